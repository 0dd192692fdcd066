//! Death of the process at a named point, as in a power cut, but with the disk intact. Only
//! programs with the feature `fault-injection` have it.

use std::str::FromStr;

use crate::machine::rollout::{Effect, Event, Record};
use crate::proto::rollout::{Choice, Message, NodeId};

/// Point at which a process kills itself, to show that nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillPoint {
    /// A COMMIT vote is decided, and nothing of it is on disk.
    BeforeVote,
    /// A COMMIT vote has left.
    AfterVote,
    /// The decision COMMIT is on disk, and no other node was told.
    AfterDecision,
    /// The decision COMMIT has left for one other node, or a participant's acknowledgement has.
    AfterFirstDecision,
}

impl FromStr for KillPoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "before-vote" => Ok(Self::BeforeVote),
            "after-vote" => Ok(Self::AfterVote),
            "after-decision" => Ok(Self::AfterDecision),
            "after-first-decision" => Ok(Self::AfterFirstDecision),
            _ => Err("one of before-vote, after-vote, after-decision, after-first-decision"),
        }
    }
}

impl KillPoint {
    /// True if the point comes before this effect of the machine of `me`.
    pub(super) fn comes_before(self, me: &NodeId, effect: &Effect) -> bool {
        match (self, effect) {
            (Self::BeforeVote, Effect::Persist(Record::Prepared(_)))
            | (Self::AfterDecision, Effect::Emit(Event::Committed(_))) => true,
            // The coordinator's vote is its decision.
            (Self::BeforeVote, Effect::Persist(Record::Committed(it))) => {
                it.proposal.txid.node == *me
            }
            _ => false,
        }
    }

    /// True if the process ends once this message has left for its first recipient.
    pub(super) fn comes_after(self, message: &Message) -> bool {
        match (self, message) {
            (Self::AfterVote, Message::PrepareResp(it)) => it.vote == Choice::Commit,
            (Self::AfterFirstDecision, Message::Decision(it)) => it.kind == Choice::Commit,
            (Self::AfterFirstDecision, Message::DecisionAck(_)) => true,
            _ => false,
        }
    }

    /// Ends this process.
    pub(super) fn die(self) -> ! {
        use rustix::process::{Signal, getpid, kill_process};
        let _ = kill_process(getpid(), Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
