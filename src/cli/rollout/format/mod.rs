//! Texts about rollouts: shares, spans, and the outcomes of orders. Pure.

pub(in crate::cli) mod table;
#[cfg(test)]
mod tests;
pub(in crate::cli) mod timeline;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cli::text::escape;
use crate::machine::rollout::{Command, CommandResult, DeadParticipants, Phase};
use crate::proto::rollout::{
    AbortCause, BASIS_POINTS, Gate, Mirror, ModelId, NodeId, Plan, RemovalAuthority, RoutingState,
    ServerChanges, Sticky, TxId, TxKind, Weights,
};

/// Returns a share of basis points as text: `5 %`, `12.5 %`.
pub(super) fn percent(basis_points: u32) -> String {
    let text = format!("{}.{:02}", basis_points / 100, basis_points % 100);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Returns the share of each version that has one: `v1 95 % v2 5 %`.
pub(super) fn weights(weights: &Weights) -> String {
    parts(weights).join(" ")
}

/// Returns each version that has a share, with it.
fn parts(weights: &Weights) -> Vec<String> {
    let some = weights.iter().filter(|(_, share)| *share > 0);
    some.map(|(model, it)| format!("{model} {}", percent(it))).collect()
}

/// Returns a span of time, cut and not rounded: `0.35 ms`, `12 ms`, `3.2 s`, `2 min 5 s`.
pub(super) fn span(span: Duration) -> String {
    let micros = span.as_micros();
    match micros {
        0 => "0 s".to_owned(),
        1..10 => "<0.01 ms".to_owned(),
        10..10_000 => format!("{}.{:02} ms", micros / 1_000, micros % 1_000 / 10),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        1_000_000..60_000_000 => {
            format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000)
        }
        _ => {
            let secs = span.as_secs();
            match secs / 3_600 {
                0 => format!("{} min {} s", secs / 60, secs % 60),
                hours => format!("{hours} h {} min", secs % 3_600 / 60),
            }
        }
    }
}

/// Returns the share of requests that failed: `0 %`, `1.25 %`; never `0 %` if one failed.
pub(super) fn rate(errors: u64, samples: u64) -> String {
    if errors == 0 || samples == 0 {
        return "0 %".to_owned();
    }
    let hundredths = u128::from(errors) * 10_000 / u128::from(samples);
    match u32::try_from(hundredths) {
        Ok(0) => "<0.01 %".to_owned(),
        Ok(hundredths) => percent(hundredths),
        Err(_) => "100 %".to_owned(),
    }
}

/// Returns names in a row: `node-a, node-b and node-c`; `nobody` if there are none.
pub(super) fn list<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<_> = names.into_iter().map(|it| it.to_string()).collect();
    match &names[..] {
        [] => "nobody".to_owned(),
        [one] => one.clone(),
        [some @ .., last] => format!("{} and {last}", some.join(", ")),
    }
}

/// Returns the name of a cause in the protocol.
pub(super) fn cause(cause: AbortCause) -> String {
    serde_json::to_value(cause)
        .ok()
        .and_then(|it| it.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Returns the phase of a rollout as a word.
pub(super) const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Finished => "finished",
        Phase::RolledBack => "rolled back",
        Phase::Aborted => "aborted",
    }
}

/// Returns the steps of a plan, the current one in brackets: `[5 %] 20 % 100 %`.
pub(super) fn steps(plan: &Plan, current: Option<usize>) -> String {
    let step = |(at, share): (usize, &u32)| match current == Some(at) {
        true => format!("[{}]", percent(*share)),
        false => percent(*share),
    };
    plan.steps.iter().enumerate().map(step).collect::<Vec<_>>().join(" ")
}

/// Returns the gates of a plan, `none` if it has none:
/// `p95<=200ms and error<=1%, of at least 20 requests to v2 within 1 min 0 s`.
pub(super) fn gates(plan: &Plan) -> String {
    if plan.gates.is_empty() {
        return "none".to_owned();
    }
    let window = span(Duration::from_millis(plan.window_ms));
    let gates = list(plan.gates.iter().map(|it| escape(&it.to_string())));
    if plan.gates.iter().all(Gate::is_outside) {
        return gates;
    }
    let least = plan.samples_min;
    format!("{gates}, of at least {least} requests to {} within {window}", plan.to)
}

/// Returns the part of a request by which it stays at one version.
pub(super) fn sticky(sticky: Option<&Sticky>) -> String {
    match sticky {
        None => "each request by itself".to_owned(),
        Some(Sticky::Header(name)) => format!("sticky by the header {}", escape(name)),
        Some(Sticky::Json(name)) => format!("sticky by the JSON field {}", escape(name)),
        Some(Sticky::Cookie { name, own: false }) => {
            format!("sticky by the cookie {}", escape(name))
        }
        Some(Sticky::Cookie { name, own: true }) => {
            format!("sticky by the cookie {} that the data plane sets", escape(name))
        }
    }
}

/// Returns the routes of a plan and its copies, each with a name.
pub(super) fn detours(plan: &Plan) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if !plan.routes.is_empty() {
        let routes: Vec<_> = plan.routes.iter().map(|it| escape(&it.to_string())).collect();
        found.push(("routes", routes.join("; ")));
    }
    if let Some(Mirror { share, is_unsafe }) = plan.mirror {
        let which = if is_unsafe { "all methods" } else { "GET, HEAD and OPTIONS" };
        let (share, from, to) = (percent(share), &plan.from, &plan.to);
        found.push((
            "mirror",
            format!("{share} of the requests to {from} go to {to} too ({which})"),
        ));
    }
    if !plan.servers.is_empty() {
        found.push(("servers", format!("the same on all nodes as on {}", plan.owner)));
    }
    found
}

/// Returns changes of servers: `v3 at http://127.0.0.1:9003, v2 nowhere`.
pub(super) fn servers(changes: &ServerChanges) -> String {
    let change = |(model, server): (&ModelId, &Option<String>)| match server {
        Some(server) => format!("{model} at {}", escape(server)),
        None => format!("{model} nowhere"),
    };
    changes.iter().map(change).collect::<Vec<_>>().join(", ")
}

/// Returns the change of a transaction to the routing state, in a few words.
pub(super) fn deed(kind: TxKind, after: &RoutingState) -> String {
    let (stable, canary) = (&after.stable_model_id, &after.canary_model_id);
    let share = percent(after.canary_share());
    match kind {
        TxKind::Start => format!("began: {canary} gets {share}, {stable} the rest"),
        TxKind::Retry => format!("began again: {canary} gets {share}, {stable} the rest"),
        TxKind::Step | TxKind::Promote if after.canary_share() == 0 => {
            format!("{stable} is the stable version now")
        }
        TxKind::Step => format!("step: {canary} gets {share}"),
        TxKind::Promote => format!("promoted: {canary} gets {share}"),
        TxKind::Finish => format!("finished: {stable} is the stable version now"),
        TxKind::Rollback => format!("rolled back: {stable} gets everything"),
        TxKind::Abort => format!("given up: {stable} gets everything"),
        TxKind::Pause => format!("paused: {canary} stays at {share}"),
        TxKind::Resume => format!("resumed: {canary} is at {share}"),
        TxKind::Roster => "other nodes take part".to_owned(),
        TxKind::Serve => "servers of versions changed".to_owned(),
    }
}

/// Returns the outcome of an order, as a sentence if it was done, and else as an error with a
/// remedy.
///
/// # Errors
/// Fails if the order was refused or aborted.
pub(super) fn outcome(command: &Command, answer: &CommandResult) -> Result<String, String> {
    match answer {
        CommandResult::Committed { txid, version } => Ok(done(command, txid, *version)),
        // The order was to abort it.
        CommandResult::Aborted { txid, .. } if matches!(command, Command::Resolve { .. }) => {
            Ok(done(command, txid, 0))
        }
        CommandResult::Aborted { txid, cause: why, reason } => Err(format!(
            "aborted, nothing has changed on any node: {} ({}, {txid}); {}",
            escape(reason),
            cause(*why),
            remedy(command, *why, reason, None),
        )),
        CommandResult::Refused { cause: why, reason, running } => {
            let running = running.as_ref();
            let way = running.map_or(String::new(), |it| format!(", {it} is in the way"));
            Err(format!(
                "refused, nothing was tried: {} ({}{way}); {}",
                escape(reason),
                cause(*why),
                remedy(command, *why, reason, running),
            ))
        }
    }
}

fn done(command: &Command, txid: &TxId, version: u64) -> String {
    let what = match command {
        Command::Start(order) => {
            match (&order.to, order.steps.first().copied().unwrap_or(BASIS_POINTS)) {
                (to, 0) => format!(
                    "started: {to} is a preview on all nodes, for routes and X-Canary: always; \
                     peer rollout promote goes on"
                ),
                (to, first) => format!("started: {to} gets {} on all nodes", percent(first)),
            }
        }
        Command::Pause => "paused: no further step until peer rollout resume".to_owned(),
        Command::Resume => "resumed: steps are taken again".to_owned(),
        Command::Promote { .. } if txid.kind == TxKind::Finish => {
            "finished: the new version is the stable one".to_owned()
        }
        Command::Promote { full: true } => "promoted: all requests to the new version".to_owned(),
        Command::Promote { full: false } => "promoted: the next step is taken".to_owned(),
        Command::Abort => "the rollout is over: all requests to the stable version".to_owned(),
        Command::Rollback => "rolled back: all requests to the version before".to_owned(),
        Command::Retry => "started again, from the first step".to_owned(),
        Command::Roster(roster) => {
            format!("{} take part now", list(roster.nodes().map(|it| &it.node_id)))
        }
        Command::Gone { nodes } => {
            let names = list(nodes);
            format!(
                "{names}: called gone, which is recorded for ever; whoever returns decides nothing \
                 before peer rollout admit"
            )
        }
        Command::Serve { changes } => {
            let (more, less): (Vec<_>, Vec<_>) = changes.iter().partition(|it| it.1.is_some());
            let of = |all: &[(&ModelId, &Option<String>)]| list(all.iter().map(|it| it.0));
            match (&more[..], &less[..]) {
                (more, []) => format!("all nodes have the servers of {} now", of(more)),
                ([], less) => format!("no node has a server of {} any more", of(less)),
                (more, less) => format!(
                    "all nodes have the servers of {} now, and none of {}",
                    of(more),
                    of(less)
                ),
            }
        }
        Command::Resolve { commit, .. } => {
            let how = if *commit { "committed" } else { "aborted" };
            return format!("resolved: {txid} counts as {how}; that is recorded for ever");
        }
    };
    format!("{what} (version {version}, {txid})")
}

/// Returns the authority that called nodes gone.
pub(super) const fn by_word(by: RemovalAuthority) -> &'static str {
    match by {
        RemovalAuthority::Operator => "an operator",
        RemovalAuthority::Seeds => "the seeds' word",
    }
}

/// Returns the remedy for nodes that still take part though the seeds call them dead, after a `; `;
/// empty if there is none.
pub(super) fn remedy_of_dead(stay: &DeadParticipants) -> String {
    let DeadParticipants { nodes, cause, running, .. } = stay;
    match (cause, running) {
        (AbortCause::Roster, _) => format!(
            "; if no other part of the fleet goes on alone: peer rollout remove {} --gone --i-know",
            nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" ")
        ),
        (AbortCause::InDoubt, Some(txid)) => {
            format!("; end that first: peer rollout resolve {txid} --commit --i-know")
        }
        _ => String::new(),
    }
}

/// Returns the remedy for nodes that could not be called gone.
fn remedy_of_gone(
    nodes: &BTreeSet<NodeId>,
    cause: AbortCause,
    running: Option<&TxId>,
) -> Option<String> {
    let text = match (cause, running) {
        (AbortCause::Malformed, _) => "order it at a node that remains (--id)".to_owned(),
        (AbortCause::NoVote, _) => {
            "all that are not gone have to vote: start those that peer rollout status shows as \
             away, or name them too: peer rollout remove NAME NAME --gone --i-know"
                .to_owned()
        }
        (AbortCause::Recalling, _) => {
            "a node without its log cannot vote before all others have answered it: stop it, name \
             it too, and admit it again afterwards"
                .to_owned()
        }
        (AbortCause::Reached, _) => {
            "stop it first, or take it out with its own vote: peer rollout remove NAME".to_owned()
        }
        (AbortCause::InDoubt, Some(txid)) if nodes.contains(&txid.node) => {
            format!("end that first: peer rollout resolve {txid} --commit --i-know")
        }
        (AbortCause::InDoubt, Some(txid)) => {
            format!("start {} again, or name it too if it is gone", txid.node)
        }
        (AbortCause::Version, _) => "try again in some seconds".to_owned(),
        (
            AbortCause::NoWord
            | AbortCause::Busy
            | AbortCause::Roster
            | AbortCause::Gate
            | AbortCause::Model
            | AbortCause::Late
            | AbortCause::Nothing
            | AbortCause::Resolved
            | AbortCause::InDoubt,
            _,
        ) => return None,
    };
    Some(text)
}

/// Returns the remedy for an order that was refused or aborted.
fn remedy(command: &Command, cause: AbortCause, reason: &str, running: Option<&TxId>) -> String {
    let starts = matches!(command, Command::Start(_) | Command::Retry);
    if let Command::Gone { nodes } = command
        && let Some(remedy) = remedy_of_gone(nodes, cause, running)
    {
        return remedy;
    }
    match (cause, running) {
        (AbortCause::Malformed, _) if starts && reason.contains("step") => {
            "steps are percents that ascend to 100: --steps 5,20,50,100".to_owned()
        }
        (AbortCause::Malformed, _) if starts => {
            "peer rollout start --help shows what each flag takes".to_owned()
        }
        (AbortCause::Malformed, _) => "peer rollout --help shows what may be asked".to_owned(),
        (AbortCause::Busy, Some(_)) if starts => {
            "wait for its end (peer rollout status), or end it: peer rollout abort".to_owned()
        }
        (AbortCause::Busy, Some(txid)) => {
            format!("try again when it is over; peer rollout explain {txid} tells about it")
        }
        (AbortCause::Busy, None) => "try again when peer rollout status shows none".to_owned(),
        (AbortCause::Version, _) => {
            "try again; peer rollout status shows who serves which version".to_owned()
        }
        (AbortCause::Roster, _) => "peer rollout status shows who takes part".to_owned(),
        (AbortCause::Gate, _) => {
            "peer rollout status shows the figures; peer rollout abort ends the rollout, peer \
             rollout resume takes a brake off"
                .to_owned()
        }
        (AbortCause::Model, _) => {
            "each node needs a server of the version that answers: peer rollout serve NAME=URL \
             --id NODE, and start that server"
                .to_owned()
        }
        (AbortCause::Recalling, _) => {
            "a node asks all others at its start first; start those that peer rollout status shows \
             as away, or see there why they refuse, and try again"
                .to_owned()
        }
        (AbortCause::Late, _) => "try again".to_owned(),
        (AbortCause::NoVote, _) => {
            "every node has to vote: start the one that peer rollout status shows as away, and try \
             again; if its machine is gone for good: peer rollout remove NAME --gone --i-know"
                .to_owned()
        }
        (AbortCause::Nothing, _) if matches!(command, Command::Start(_)) => {
            "--from takes the version that peer rollout status shows as the stable one".to_owned()
        }
        (AbortCause::Nothing, _) => "peer rollout status shows what there is".to_owned(),
        (AbortCause::Resolved, _) => "peer rollout history shows who said so".to_owned(),
        (AbortCause::InDoubt, _) => {
            "it ends when the nodes can be asked that peer rollout status names: start them; if \
             one is gone for good: peer rollout remove NAME --gone --i-know"
                .to_owned()
        }
        (AbortCause::Reached | AbortCause::NoWord, _) => "peer rollout status shows it".to_owned(),
    }
}
