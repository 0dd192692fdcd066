//! Table of a fleet as one of its nodes sees it: a row for each node, and the rollout under way.
//! Pure.

use crate::proto::rollout::{Committed, Digest, HealthSnapshot, Weights};
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{
    detours, gates, list, parts, percent, phase, rate, remedy_of_dead, span, steps, sticky,
};
use crate::cli::output::{NO_BREAK, table, table_text};
use crate::cli::text::escape;
use crate::machine::rollout::{
    NodeStatus, Phase, RolloutProgress, RosterNodeStatus, WindowVerdict,
};
use crate::model::{PublicKey, WallTime};
use crate::proto::rollout::{ModelId, NodeId, TxKind};
use crate::runtime::rollout::{EngineStatus, UnknownKey};

/// Largest age of another node's heartbeat in a healthy fleet: nodes send one every 2 s.
const STALE_MAX: Duration = Duration::from_secs(3);

/// Text of an unknown value.
const UNKNOWN: &str = "-";

/// Answer of a node to a question for its status.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct View {
    /// Status of the node, with what it knows of the others.
    pub(in crate::cli) standing: EngineStatus,
    /// Address at which its data plane listens.
    pub(in crate::cli) http: Option<String>,
    /// Address of the data plane for clients.
    #[serde(default)]
    pub(in crate::cli) url: Option<String>,
    /// Time of the answer by the node's clock, in ms since 1970.
    pub(in crate::cli) wall_ms: u64,
    /// Reason for which the node has no answer to a gate that another system judges, by gate.
    #[serde(default)]
    pub(in crate::cli) outside: BTreeMap<String, String>,
    /// Address of the node's server of each version.
    #[serde(default)]
    pub(in crate::cli) serves: BTreeMap<ModelId, String>,
}

impl View {
    /// Returns the status of the machine, if the node has a history.
    pub(in crate::cli) fn status(&self) -> Option<&NodeStatus> {
        match &self.standing {
            EngineStatus::Running { status, .. } => Some(status),
            EngineStatus::Forming { .. } => None,
        }
    }

    /// True if another node serves a different state, whose shares only the history tells.
    pub(in crate::cli) fn needs_history(&self) -> bool {
        self.status().is_some_and(|status| {
            let beats = status.peers.iter().filter_map(|it| it.heartbeat.as_ref());
            beats.into_iter().any(|it| it.digest != status.digest)
        })
    }

    /// True if the state that is served is younger than the heartbeats of others may be.
    fn is_fresh(&self, status: &NodeStatus) -> bool {
        WallTime(self.wall_ms).distance(status.state.timestamp) < STALE_MAX
    }

    /// Returns a row for each node, the one that was asked first.
    pub(in crate::cli) fn rows(&self, known: &[Committed]) -> Vec<NodeRow> {
        let status = self.status();
        status.map_or_else(Vec::new, |it| node_rows(it, known, self.is_fresh(it)))
    }

    /// Returns the last rollout that was begun, with its steps, gates and verdicts.
    pub(in crate::cli) fn progress_text(&self) -> String {
        self.status().map_or_else(String::new, progress)
    }

    /// Returns the whole text; `known` holds committed transactions, for the shares of other
    /// states.
    pub(in crate::cli) fn text(&self, known: &[Committed], is_terminal: bool) -> String {
        let mut text = match &self.standing {
            EngineStatus::Forming { node_id, waits_for } => {
                let waits = waits_for.iter().map(|it| escape(it));
                format!(
                    "{node_id} has not begun yet: it waits for {}\n  a first history begins when \
                     all have proved their keys; one that joins waits until it is let in\n",
                    list(waits)
                )
            }
            EngineStatus::Running { status, .. } => {
                rows(status, known, self.is_fresh(status), is_terminal)
            }
        };
        if let EngineStatus::Running { status, pending_members, refusals, claims } = &self.standing
        {
            text += &progress(status);
            for (gate, why) in &self.outside {
                let (me, gate, why) = (&status.node_id, escape(gate), escape(why));
                text += &format!("  {gate}: {me} has no answer, {why}\n");
            }
            text += &transactions(status);
            for (node, why) in refusals {
                text += &format!("{node}: {}\n", escape(why));
            }
            for (node, at) in pending_members {
                let which = claims.get(node).and_then(|it| it.first());
                let which = which.map_or(node.to_string(), |it| named(node, &it.key));
                text += &format!(
                    "{node} ({}) asks to be let in; let it: peer rollout admit {which}\n",
                    escape(at)
                );
            }
            for (node, claims) in claims {
                text += &others_of(node, claims);
            }
            text += &gone(status, pending_members, claims);
        }
        if !self.serves.is_empty() {
            let server = |(model, at): (&ModelId, &String)| format!("{model} at {}", escape(at));
            let servers: Vec<_> = self.serves.iter().map(server).collect();
            text += &format!("servers: {}\n", servers.join(", "));
        }
        if let Some(url) = &self.url {
            text += &format!("data plane: {}\n", escape(url));
        }
        text
    }
}

/// Row of a node in the table of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct NodeRow {
    /// Name of the node.
    pub(in crate::cli) node: String,
    /// True if it is the node that was asked.
    pub(in crate::cli) is_asked: bool,
    /// Number of the state that it serves.
    pub(in crate::cli) version: String,
    /// First digits of the state's digest.
    pub(in crate::cli) digest: String,
    /// Share of each version of the service.
    pub(in crate::cli) weights: Vec<String>,
    /// Status of the node in words.
    pub(in crate::cli) word: String,
    /// Time in which 95 of 100 answers came, of each version; then share of errors and requests.
    pub(in crate::cli) figures: [Vec<String>; 3],
}

/// Returns a row for each node, the one that was asked first.
fn node_rows(status: &NodeStatus, known: &[Committed], is_fresh: bool) -> Vec<NodeRow> {
    let mine = &status.state;
    let mut rows = vec![NodeRow {
        node: status.node_id.to_string(),
        is_asked: true,
        version: mine.version.to_string(),
        digest: short(&status.digest),
        weights: parts(&mine.weights),
        word: own_word(status),
        figures: figures(status.health.as_ref()),
    }];
    rows.extend(status.peers.iter().map(|peer| {
        let beat = peer.heartbeat.as_ref();
        let unknown = || UNKNOWN.to_owned();
        let served = beat.and_then(|it| shares_of(status, known, &it.digest));
        NodeRow {
            node: peer.node_id.to_string(),
            is_asked: false,
            version: beat.map_or_else(unknown, |it| it.last_committed_version.to_string()),
            digest: beat.map_or_else(unknown, |it| short(&it.digest)),
            weights: served.map_or_else(|| vec![unknown()], parts),
            word: peer_word(status, peer, is_fresh),
            figures: figures(peer.health.as_ref()),
        }
    }));
    rows
}

fn rows(status: &NodeStatus, known: &[Committed], is_fresh: bool, is_terminal: bool) -> String {
    let header = ["NODE", "VERSION", "DIGEST", "WEIGHTS", "STATUS", "P95", "ERRORS", "REQUESTS"];
    let mut rows = table(header, is_terminal);
    // A terminal gets a line for each model.
    let cell = |parts: Vec<String>, separator| match is_terminal {
        true => parts.join("\n").replace(' ', NO_BREAK.encode_utf8(&mut [0; 2])),
        false => parts.join(separator),
    };
    for row in node_rows(status, known, is_fresh) {
        let name = if row.is_asked { format!("{} (asked)", row.node) } else { row.node };
        let [p95, errors, requests] = row.figures.map(|it| cell(it, ", "));
        let weights = cell(row.weights, " ");
        rows.add_row([name, row.version, row.digest, weights, row.word, p95, errors, requests]);
    }
    table_text(rows, is_terminal)
}

/// Returns the first digits of a digest, which tell states apart well enough for people.
fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(8).collect()
}

/// Returns the shares of a state known by its digest alone: the content is the same everywhere.
fn shares_of<'a>(
    status: &'a NodeStatus,
    known: &'a [Committed],
    digest: &Digest,
) -> Option<&'a Weights> {
    if status.digest == *digest {
        return Some(&status.state.weights);
    }
    let states = known.iter().rev().map(|it| &it.proposal.state);
    states.into_iter().find(|it| it.digest() == *digest).map(|it| &it.weights)
}

fn own_word(status: &NodeStatus) -> String {
    if let Some(doubt) = &status.in_doubt {
        return format!(
            "in doubt about {} for {}, waits for {}",
            doubt.txid,
            span(doubt.waited),
            list(&doubt.waits_for)
        );
    }
    if let Some(txid) = &status.removed {
        let by = if is_by_seeds(status, &status.node_id) { " BY THE SEEDS' WORD" } else { "" };
        return format!("CALLED GONE{by} ({txid}), decides nothing");
    }
    if !status.roster.has(&status.node_id) {
        return "REMOVED, takes part no more".to_owned();
    }
    if !status.recalling.is_empty() {
        return format!("began without a log, answers 503, asks {}", list(&status.recalling));
    }
    if status.brake.is_some() { "COMMITTED, brake on" } else { "COMMITTED" }.to_owned()
}

/// Returns the status of another node; `is_fresh` if the present state is younger than others' last
/// heartbeats may be.
fn peer_word(status: &NodeStatus, peer: &RosterNodeStatus, is_fresh: bool) -> String {
    if !peer.is_linked {
        return match peer.away {
            Some(away) => format!("away for {}", span(away)),
            None => "unreachable".to_owned(),
        };
    }
    let Some(beat) = &peer.heartbeat else { return "linked, has said nothing yet".to_owned() };
    let (its, mine) = (beat.last_committed_version, status.state.version);
    if its < mine && is_fresh {
        return format!("not heard since version {mine}");
    }
    if let Some(txid) = &beat.in_doubt {
        return format!("in doubt about {txid}");
    }
    if its < mine {
        return format!("behind by {}", mine - its);
    }
    if its > mine {
        return format!("ahead by {}", its - mine);
    }
    if beat.digest != status.digest {
        return "DIFFERENT CONTENT under the same version".to_owned();
    }
    if beat.roster != status.roster.digest() {
        return "another roster: nothing is agreed with it".to_owned();
    }
    let is_echo = beat.serves.as_ref().is_some_and(|it| it.is_empty());
    let is_real = |it: &RosterNodeStatus| {
        it.heartbeat.as_ref().and_then(|it| it.serves.as_ref()).is_some_and(|it| !it.is_empty())
    };
    if is_echo && status.peers.iter().any(is_real) {
        return "COMMITTED, but ECHOES: it has no --serve".to_owned();
    }
    if beat.brake.is_some() { "COMMITTED, brake on" } else { "COMMITTED" }.to_owned()
}

/// Returns p95, errors and requests, each of all models.
fn figures(health: Option<&HealthSnapshot>) -> [Vec<String>; 3] {
    let Some(health) = health.filter(|it| !it.models.is_empty()) else {
        return [(); 3].map(|()| vec![UNKNOWN.to_owned()]);
    };
    let mut columns: [Vec<String>; 3] = Default::default();
    for (model, it) in &health.models {
        let p95 = match it.samples {
            0 => UNKNOWN.to_owned(),
            _ => span(Duration::from_micros(it.p95_us)),
        };
        columns[0].push(format!("{model} {p95}"));
        columns[1].push(format!("{model} {}", rate(it.errors, it.samples)));
        columns[2].push(format!("{model} {}", it.samples));
    }
    columns
}

/// Returns the last rollout that was begun.
fn progress(status: &NodeStatus) -> String {
    let Some(progress) = &status.progress else {
        return "no rollout has been begun; peer rollout start begins one\n".to_owned();
    };
    let RolloutProgress { id, plan, step, phase: at } = progress;
    let mut text = format!("rollout {id}: {} -> {}, {}", plan.from, plan.to, phase(*at));
    if !progress.is_live() {
        return text + "\n";
    }
    let (number, all) = (step + 1, plan.steps.len());
    let share = percent(status.state.canary_share());
    text += &format!(", step {number} of {all}: {} gets {share}", plan.to);
    match (at, status.next_step) {
        (Phase::Running, Some(Duration::ZERO)) => text += "; the next step is due",
        (Phase::Running, Some(left)) => {
            let what = if progress.is_last_step() { "it finishes" } else { "next step" };
            text += &format!("; {what} in {}", span(left));
        }
        _ => text += "; peer rollout resume goes on",
    }
    if let Some(brake) = &status.brake {
        text += &format!(
            "\n  THE BRAKE IS ON: each node in reach sends all requests to {}, until {} is \
             committed: {}",
            plan.from,
            if brake.kind == TxKind::Abort { "an abort" } else { "the rollback" },
            escape(&brake.reason)
        );
    }
    let every = span(Duration::from_millis(plan.interval_ms));
    text += &format!(
        "\n  steps: {}, every {every}, taken by {}; {}\n  gates: {}\n",
        steps(plan, Some(*step)),
        plan.owner,
        sticky(plan.sticky.as_ref()),
        gates(plan)
    );
    for (name, detour) in detours(plan) {
        text += &format!("  {name}: {detour}\n");
    }
    text += &verdicts(status, progress);
    if let Some(reason) = &status.held {
        text += &format!("  held: {}\n", escape(reason));
    }
    text
}

/// Returns the verdict of each node's figures on the next step.
fn verdicts(status: &NodeStatus, progress: &RolloutProgress) -> String {
    let plan = &progress.plan;
    if plan.gates.is_empty() {
        return String::new();
    }
    let judge = |(node, health): (&NodeId, Option<&HealthSnapshot>)| {
        let Some(health) = health else { return format!("{node} says nothing yet") };
        let samples = health.of(&plan.to).samples;
        match plan.judge(health, status.state.canary_share()) {
            (WindowVerdict::Good, _) => format!("{node} good"),
            (WindowVerdict::TooFew, _) => match plan.unanswered(&[health]) {
                Some(gate) => format!("{node} no answer to {}", escape(&gate.to_string())),
                None => format!("{node} too few requests ({samples})"),
            },
            (WindowVerdict::Doubtful, gate) => {
                let gate = gate.map_or_else(String::new, |it| it.to_string());
                format!("{node} too few requests ({samples}), and {gate} does not hold in these")
            }
            (WindowVerdict::Bad, Some(gate)) => format!("{node} BAD, {gate} does not hold"),
            (WindowVerdict::Bad, None) => format!("{node} BAD"),
        }
    };
    let all = std::iter::once((&status.node_id, status.health.as_ref()))
        .chain(status.peers.iter().map(|it| (&it.node_id, it.health.as_ref())));
    format!("  now: {}\n", all.map(judge).collect::<Vec<_>>().join("; "))
}

fn is_by_seeds(status: &NodeStatus, node: &NodeId) -> bool {
    status.gone_by_seeds.iter().any(|it| it.node_id == *node)
}

/// Returns the name of a node with enough digits of its key to tell it from others.
pub(in crate::cli::rollout) fn named(node: &NodeId, key: &PublicKey) -> String {
    let digits: String = key.to_string().chars().take(16).collect();
    format!("{node}@{digits}")
}

/// Returns the keys that came under a name that another key holds here.
fn others_of(node: &NodeId, claims: &[UnknownKey]) -> String {
    let others = claims.iter().filter(|it| !it.is_linked);
    let line = |it: &UnknownKey| {
        format!(
            "another key came under the name {node} and was turned away; if that one is meant: \
             peer rollout admit {}\n",
            named(node, &it.key)
        )
    };
    others.map(line).collect()
}

/// Returns the nodes that were called gone, with the remedy.
fn gone(
    status: &NodeStatus,
    pending_members: &BTreeMap<NodeId, String>,
    claims: &BTreeMap<NodeId, Vec<UnknownKey>>,
) -> String {
    let me = &status.node_id;
    if let Some(txid) = status.removed.as_ref().filter(|_| is_by_seeds(status, me)) {
        return format!(
            "{me} was called gone by the seeds' word ({txid}): it serves what the others commit, \
             and decides nothing\n  it is let in again once it is a member of the fleet again\n"
        );
    }
    if let Some(txid) = &status.removed {
        return format!(
            "{me} was called gone ({txid}): it serves what the others commit, and decides \
             nothing\n  let it in again, at a node that takes part: peer rollout admit {me}\n"
        );
    }
    let is_other = |node: &NodeId| node != me && !pending_members.contains_key(node);
    let others = status.gone.iter().filter(|(node, _)| is_other(node));
    let line = |(node, is_here): (&NodeId, &bool)| match claims.get(node).and_then(|it| it.first())
    {
        _ if is_by_seeds(status, node) => format!(
            "{node} was called gone by the seeds' word; it is let in again once it is a member of \
             the fleet again\n"
        ),
        Some(it) if *is_here && it.was_gone => format!(
            "{node} was called gone, and is here again, with the key it had; let it in: peer \
             rollout admit {}\n",
            named(node, &it.key)
        ),
        Some(it) if *is_here => format!(
            "{node} was called gone, and ANOTHER KEY is here by that name; let it in only if it \
             is the machine that is to have the name: peer rollout admit {}\n",
            named(node, &it.key)
        ),
        Some(_) | None => format!(
            "{node} was called gone; when it is back, or another machine runs by that name with \
             --join, let it in: peer rollout admit {node}\n"
        ),
    };
    let mut text: String = others.map(line).collect();
    if let Some(stay) = &status.dead_stay {
        let (names, reason) = (list(&stay.nodes), escape(&stay.reason));
        let remedy = remedy_of_dead(stay);
        text += &format!("{names}: dead by the seeds' word, still taking part: {reason}{remedy}\n");
    }
    if !status.roster.has(me) {
        text += &format!(
            "{me} takes no part; to let it, at a node that does: peer rollout admit {me}\n"
        );
    }
    text
}

/// Returns the transactions under way and in doubt.
fn transactions(status: &NodeStatus) -> String {
    let mut text = String::new();
    if let Some(running) = &status.running {
        let waits = match &running.waits_for[..] {
            [] => "all votes are there".to_owned(),
            some => format!("waits for the vote of {}", list(some)),
        };
        text += &format!("transaction {} is under way: {waits}\n", running.txid);
    }
    if let Some(doubt) = &status.in_doubt {
        text += &format!(
            "{} voted COMMIT on {} and must not guess: it serves version {} until {} can be \
             asked\n  it ends by itself when that is so; if one of them is gone for good, here: \
             peer rollout remove NAME --gone --i-know\n  if all are there and do not know it any \
             more: peer rollout resolve {} --commit or --abort, with --i-know\n",
            status.node_id,
            doubt.txid,
            status.state.version,
            list(&doubt.waits_for),
            doubt.txid,
        );
    }
    text
}
