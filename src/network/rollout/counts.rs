//! Counters of a node of rollouts, as `/metrics` of its data plane has them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

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

    /// Values at this moment.
    pub(super) fn snapshot(&self) -> Box<dyn Collector> {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Box::new(Snapshot {
            counts: [
                ("committed", "Transactions committed by this process", now(&self.committed)),
                ("aborted", "Transactions that this process saw aborted", now(&self.aborted)),
                ("votes_commit", "Votes for a transaction", now(&self.votes_commit)),
                ("votes_abort", "Votes against a transaction", now(&self.votes_abort)),
            ],
            doubt_ms: now(&self.doubt_ms),
        })
    }
}

#[derive(Debug)]
struct Snapshot {
    counts: [(&'static str, &'static str, u64); 4],
    doubt_ms: u64,
}

impl Collector for Snapshot {
    #[allow(clippy::cast_precision_loss, reason = "it is shown, nothing is decided by it")]
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, count) in self.counts {
            let name = format!("rollout_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            family.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        let (name, help) =
            ("rollout_in_doubt_seconds", "Time in doubt, as of the last question; 0: none");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        family.encode_gauge(&(self.doubt_ms as f64 / 1000.0))
    }
}
