//! Counts of faults and their consequences: a simulation proves only the cases that it really met.
//!
//! Invariant: a fault is counted when it changed something, not when it was asked for.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use super::weather::WeatherFault;

/// Consequence of faults; counted so that a test can assert that it was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultEffect {
    /// A message was lost because its link broke.
    LostInFlight,
    /// A message was sent on a link that had broken without its sender knowing.
    SentInVain,
    /// A lane of a link got stuck on a cut path or a silent host.
    Held,
    /// A stuck link was given up by its sender.
    LinkTimedOut,
    /// A link was closed because too much was under way on it.
    QueueFull,
    /// A call was refused.
    DialRefused,
    /// A call got no answer.
    DialTimedOut,
    /// A crash lost a record that was not yet synced.
    LostRecord,
    /// A crash left a record on disk whose sync had not come back.
    KeptUnsynced,
    /// A log was replaced by a snapshot.
    Snapshot,
    /// An input or timer was handled late because its process was paused or slow.
    HandledLate,
    /// A message was replaced by a tampering host.
    Tampered,
}

/// Counts of each kind of fault and trouble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    faults: BTreeMap<WeatherFault, u64>,
    troubles: BTreeMap<FaultEffect, u64>,
}

impl FaultCounts {
    /// Number of faults of this kind.
    pub fn faults(&self, fault: WeatherFault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }

    /// Number of troubles of this kind.
    pub fn troubles(&self, trouble: FaultEffect) -> u64 {
        self.troubles.get(&trouble).copied().unwrap_or(0)
    }

    pub(super) fn count(&mut self, fault: WeatherFault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(super) fn add(&mut self, trouble: FaultEffect, times: usize) {
        if times > 0 {
            *self.troubles.entry(trouble).or_default() += times as u64;
        }
    }
}

impl AddAssign<&Self> for FaultCounts {
    /// Adds the counts of another run.
    fn add_assign(&mut self, other: &Self) {
        for (fault, times) in &other.faults {
            *self.faults.entry(*fault).or_default() += times;
        }
        for (trouble, times) in &other.troubles {
            *self.troubles.entry(*trouble).or_default() += times;
        }
    }
}
