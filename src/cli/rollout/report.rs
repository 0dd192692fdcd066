//! Log lines of rollouts: one line for each event, which names its transaction.

use ::log::Level;
use serde_json::json;

use super::format::{by_word, remedy_of_dead};
use crate::cli::log::LogLine;
use crate::machine::rollout::{Aborted, DeadParticipants, Event};
use crate::proto::rollout::{
    Brake, Choice, Committed, Digest, GoneNodes, ModelId, NodeId, RemovalAuthority, RoutingState,
    TxId, TxKind, TxProposal,
};

/// Returns names in a row.
fn list<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
    nodes.into_iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}

/// Returns the share of each version, for people.
pub(super) fn weights(state: &RoutingState) -> String {
    let share = |(model, points): (&ModelId, u32)| {
        let (whole, part) = (points / 100, points % 100);
        let text = format!("{whole}.{part:02}");
        format!("{model} {} %", text.trim_end_matches('0').trim_end_matches('.'))
    };
    state.weights.iter().map(share).collect::<Vec<_>>().join(", ")
}

fn voted(choice: Choice, reason: &str) -> String {
    match choice {
        Choice::Commit => "COMMIT".to_owned(),
        Choice::Abort => format!("ABORT: {reason}"),
    }
}

fn of_tx(level: Level, event: &'static str, txid: &TxId, text: String) -> LogLine {
    LogLine::new(level, event, text, json!({ "txid": txid }))
}

fn of_node(level: Level, event: &'static str, node: &NodeId, text: String) -> LogLine {
    LogLine::new(level, event, text, json!({ "node_id": node }))
}

/// Returns the log line of an event.
pub(super) fn line(event: &Event) -> LogLine {
    match event {
        Event::Began(proposal) => began(proposal),
        Event::Voted { txid, vote, reason } => {
            let text = format!("{txid}: voted {}", voted(*vote, reason));
            let fields = json!({ "txid": txid, "vote": vote, "reason": reason });
            LogLine::new(Level::Info, "rollout_voted", text, fields)
        }
        Event::VoteHeard { node, txid, vote, reason } => {
            let text = format!("{txid}: {node} voted {}", voted(*vote, reason));
            let fields = json!({ "txid": txid, "node_id": node, "vote": vote, "reason": reason });
            LogLine::new(Level::Info, "rollout_vote_heard", text, fields)
        }
        Event::Committed(committed) => self::committed(committed),
        Event::Aborted(aborted) => self::aborted(aborted),
        Event::Everywhere(txid) => {
            of_tx(Level::Info, "rollout_everywhere", txid, format!("{txid}: committed everywhere"))
        }
        Event::InDoubt { txid, waited, waits_for } => in_doubt(txid, *waited, waits_for),
        Event::Resolved { txid, by, resolution } => {
            let (at, how) = (&resolution.node_id, voted(resolution.kind, "as ordered"));
            let by = by_word(*by);
            let text = format!("{txid}: resolved by {by} at {at}: {how}");
            of_tx(Level::Warn, "rollout_resolved", txid, text)
        }
        Event::Diverged { node, version } => {
            let text = format!(
                "{node} has served another version {version}: the fleet is split; choose one side, \
                 and at each node of the other: stop it, move its log away, start it with --join \
                 to a node of the chosen side, and admit it there"
            );
            of_node(Level::Error, "rollout_diverged", node, text)
        }
        Event::OtherRoster { node, digest } => other_roster(node, *digest),
        Event::Recalling { waits_for } => {
            let names = list(waits_for);
            let text = format!(
                "began without a log: votes once it has heard what the others saw; waits for \
                 {names}"
            );
            LogLine::new(Level::Info, "rollout_recalling", text, json!({ "waits_for": waits_for }))
        }
        Event::Recalled => {
            LogLine::new(Level::Info, "rollout_recalled", "knows enough to vote", json!({}))
        }
        Event::Rewound { by } => rewound(by),
        Event::Moved { node, at } => moved(node, at),
        Event::Echoes { node } => echoes(node),
        Event::OtherServers { node, models } => other_servers(node, models),
        Event::Braked(brake) => braked(brake),
        Event::Removed { txid, by } => removed(txid, *by),
        Event::DeadStay(stay) => dead_stay(stay),
        Event::TookOver { .. } | Event::StepHeld { .. } | Event::GateFailed { .. } => step(event),
        Event::Reached(node) => {
            of_node(Level::Info, "rollout_reached", node, format!("{node} is within reach"))
        }
        Event::Lost(node) => {
            of_node(Level::Info, "rollout_lost", node, format!("{node} is out of reach"))
        }
        Event::Dropped(node, what) => {
            of_node(Level::Debug, "rollout_dropped", node, format!("dropped of {node}: {what}"))
        }
    }
}

fn rewound(by: &NodeId) -> LogLine {
    let text = format!(
        "this node's log is older than what {by} has seen of it, as after a restore from a \
                 backup: it signs nothing before it has heard from all others"
    );
    of_node(Level::Warn, "rollout_rewound", by, text)
}

fn moved(node: &NodeId, at: &str) -> LogLine {
    let text = format!("{node} is at {at}, not where the log says; it is called there from now on");
    of_node(Level::Warn, "rollout_moved", node, text)
}

fn echoes(node: &NodeId) -> LogLine {
    let text = format!(
        "{node} has no --serve among nodes that have: it would answer with an echo of the \
                 question; start it again with --serve NAME=URL for each version"
    );
    of_node(Level::Warn, "rollout_echoes", node, text)
}

fn other_servers(node: &NodeId, models: &[ModelId]) -> LogLine {
    let names = models.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = format!(
        "{node} has another --serve address than this node for {names}; the same version \
                 must answer at both"
    );
    of_node(Level::Info, "rollout_other_servers", node, text)
}

fn braked(brake: &Brake) -> LogLine {
    let text = format!(
        "the brake is on: all requests go to the stable version until {} is committed; \
                 {}",
        if brake.kind == TxKind::Abort { "an abort" } else { "a rollback" },
        brake.reason
    );
    let fields = json!({ "course": brake.course, "reason": brake.reason });
    LogLine::new(Level::Warn, "rollout_braked", text, fields)
}

fn removed(txid: &TxId, by: RemovalAuthority) -> LogLine {
    let (by, how) = match by {
        RemovalAuthority::Operator => {
            ("", "to let it in again, at a node that takes part: peer rollout admit, with its name")
        }
        RemovalAuthority::Seeds => {
            (" by the seeds' word", "it is let in again once it is a member of the fleet again")
        }
    };
    let text = format!(
        "{txid}: this node was called gone{by} while it was away: it serves what the others \
         commit, and decides nothing; {how}"
    );
    of_tx(Level::Warn, "rollout_removed", txid, text)
}

fn dead_stay(stay: &DeadParticipants) -> LogLine {
    let DeadParticipants { nodes, cause, reason, .. } = stay;
    let text = format!(
        "{}: dead by the seeds' word, still taking part: {reason}{}",
        list(nodes),
        remedy_of_dead(stay)
    );
    let fields = json!({ "nodes": nodes, "cause": cause, "reason": reason });
    LogLine::new(Level::Warn, "rollout_dead_stay", text, fields)
}

fn other_roster(node: &NodeId, digest: Digest) -> LogLine {
    let text = format!(
        "{node} has another roster ({digest:?}); nothing is agreed with it: stop all nodes, move \
         their logs away, and start them with the same --node flags"
    );
    of_node(Level::Error, "rollout_other_roster", node, text)
}

fn in_doubt(txid: &TxId, waited: std::time::Duration, waits_for: &[NodeId]) -> LogLine {
    let text = format!(
        "{txid}: in doubt for {:.1} s, serves what was committed before; waits for {}",
        waited.as_secs_f64(),
        list(waits_for)
    );
    let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    let fields = json!({ "txid": txid, "waited_ms": waited_ms, "waits_for": waits_for });
    LogLine::new(Level::Warn, "rollout_in_doubt", text, fields)
}

/// Returns the line of an event about the steps of a rollout.
fn step(event: &Event) -> LogLine {
    if let Event::TookOver { owner } = event {
        let text = format!("takes the steps of the rollout, since {owner} is away");
        return of_node(Level::Info, "rollout_took_over", owner, text);
    }
    if let Event::GateFailed { node, gate } = event {
        let on = node.as_ref().map_or("all nodes together", NodeId::as_str);
        let text = format!("{gate} does not hold on {on}: it is rolled back");
        let fields = json!({ "node_id": node, "gate": gate });
        return LogLine::new(Level::Warn, "rollout_gate_failed", text, fields);
    }
    let reason = if let Event::StepHeld { reason } = event { reason.as_str() } else { "" };
    let text = format!("a step is held: {reason}");
    LogLine::new(Level::Info, "rollout_step_held", text, json!({ "reason": reason }))
}

/// Returns the nodes that a transaction takes out and the authority for it; empty if there are
/// none.
fn without(proposal: &TxProposal) -> String {
    let text = |it: &GoneNodes| format!(", without {} by {}", list(&it.nodes), by_word(it.by));
    proposal.gone.as_ref().map_or_else(String::new, text)
}

fn began(proposal: &TxProposal) -> LogLine {
    let TxProposal { txid, state, note, .. } = proposal;
    let why = if note.is_empty() { String::new() } else { format!(" ({note})") };
    let gone = without(proposal);
    let text = format!("{txid}: proposes version {}: {}{gone}{why}", state.version, weights(state));
    let fields = json!({ "txid": txid, "version": state.version });
    LogLine::new(Level::Info, "rollout_began", text, fields)
}

fn committed(committed: &Committed) -> LogLine {
    let TxProposal { txid, state, .. } = &committed.proposal;
    let gone = without(&committed.proposal);
    let text = format!("{txid}: COMMITTED version {}: {}{gone}", state.version, weights(state));
    let fields = json!({ "txid": txid, "version": state.version, "state": state });
    LogLine::new(Level::Info, "rollout_committed", text, fields)
}

fn aborted(aborted: &Aborted) -> LogLine {
    let Aborted { txid, cause, reason, .. } = aborted;
    let text = format!("{txid}: ABORTED: {reason}");
    let fields = json!({ "txid": txid, "cause": cause, "reason": reason });
    LogLine::new(Level::Info, "rollout_aborted", text, fields)
}
