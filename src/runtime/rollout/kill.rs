//! Death of the process at a named point, as in a power cut, but with the disk intact.

use super::options::KillPoint;
use crate::machine::rollout::{Effect, Event, Record};
use crate::proto::rollout::{Choice, Message, NodeId};

/// Ends this process if the point comes before this effect of the machine of `me`.
pub(super) fn before(at: Option<KillPoint>, me: &NodeId, effect: &Effect) {
    match (at, effect) {
        (Some(KillPoint::BeforeVote), Effect::Persist(Record::Prepared(_))) => die(),
        // The coordinator's vote is its decision.
        (Some(KillPoint::BeforeVote), Effect::Persist(Record::Committed(it)))
            if it.proposal.txid.node == *me =>
        {
            die();
        }
        (Some(KillPoint::AfterDecision), Effect::Emit(Event::Committed(_))) => die(),
        _ => {}
    }
}

/// True if the process ends once this message has left for its first recipient.
pub(super) fn is_after(at: Option<KillPoint>, message: &Message) -> bool {
    match (at, message) {
        (Some(KillPoint::AfterVote), Message::PrepareResp(it)) => it.vote == Choice::Commit,
        (Some(KillPoint::AfterFirstDecision), Message::Decision(it)) => it.kind == Choice::Commit,
        (Some(KillPoint::AfterFirstDecision), Message::DecisionAck(_)) => true,
        _ => false,
    }
}

/// Ends this process.
pub(super) fn die() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}
