//! Counters of a node of rollouts, as `/metrics` of its data plane has them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::machine::rollout::Event;
use crate::proto::rollout::Choice;

/// Counters of the node for `/metrics`, beside those of its data plane.
#[derive(Debug, Default)]
pub struct Counts {
    committed: AtomicU64,
    aborted: AtomicU64,
    votes_commit: AtomicU64,
    votes_abort: AtomicU64,
    /// Duration of the present doubt as last reported, in ms; 0 if there is none.
    doubt_ms: AtomicU64,
}

impl Counts {
    /// Number of transactions committed by this process.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Number of transactions that this process saw aborted.
    pub fn aborted(&self) -> u64 {
        self.aborted.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, event: &Event) {
        let counter = match event {
            Event::Voted { vote: Choice::Commit, .. } => &self.votes_commit,
            Event::Voted { vote: Choice::Abort, .. } => &self.votes_abort,
            Event::Committed(_) => &self.committed,
            Event::Aborted(_) => &self.aborted,
            Event::InDoubt { waited, .. } => {
                let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                return self.doubt_ms.store(waited, Ordering::Relaxed);
            }
            Event::Began(_)
            | Event::VoteHeard { .. }
            | Event::Everywhere(_)
            | Event::Resolved { .. }
            | Event::Diverged { .. }
            | Event::OtherRoster { .. }
            | Event::Recalling { .. }
            | Event::Recalled
            | Event::Rewound { .. }
            | Event::Braked(_)
            | Event::Removed { .. }
            | Event::DeadStay(_)
            | Event::Moved { .. }
            | Event::Echoes { .. }
            | Event::OtherServers { .. }
            | Event::TookOver { .. }
            | Event::StepHeld { .. }
            | Event::GateFailed { .. }
            | Event::Reached(_)
            | Event::Lost(_)
            | Event::Dropped(..) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if matches!(event, Event::Committed(_) | Event::Aborted(_)) {
            self.doubt_ms.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn write(&self, out: &mut String) {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rows = [
            (
                "folkmoot_rollout_committed_total",
                "counter",
                "Transactions committed by this process.",
                &self.committed,
            ),
            (
                "folkmoot_rollout_aborted_total",
                "counter",
                "Transactions that this process saw aborted.",
                &self.aborted,
            ),
            (
                "folkmoot_rollout_votes_commit_total",
                "counter",
                "Votes for a transaction.",
                &self.votes_commit,
            ),
            (
                "folkmoot_rollout_votes_abort_total",
                "counter",
                "Votes against a transaction.",
                &self.votes_abort,
            ),
        ];
        for (name, kind, help, counter) in rows {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            let _ = writeln!(out, "{name} {}", now(counter));
        }
        let name = "folkmoot_rollout_in_doubt_seconds";
        let help = "How long the present doubt lasts, as of the last question; 0: none.";
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        let doubt = now(&self.doubt_ms);
        let _ = writeln!(out, "{name} {}.{:03}", doubt / 1000, doubt % 1000);
    }
}
