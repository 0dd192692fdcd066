//! Refusals counted by cause, reported at the first of each kind and then ever rarer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::machine::session::RejectReason;

/// A refusal to report to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Cause of the refusal.
    pub cause: RejectReason,
    /// Address of the refused node.
    pub from: IpAddr,
    /// Details of this refusal.
    pub detail: String,
    /// Number of refusals of this cause so far.
    pub count: u64,
}

/// The counts of one node.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: BTreeMap<RejectReason, u64>,
}

impl Refusals {
    /// Counts a refusal. Returns it at the 1st, 10th, 100th, … of its cause, so that a flood of bad
    /// input cannot become a flood of log lines.
    pub(super) fn count(
        &mut self,
        cause: RejectReason,
        from: IpAddr,
        detail: String,
    ) -> Option<Refusal> {
        let count = self.counts.entry(cause).or_default();
        *count += 1;
        let mut power = *count;
        while power.is_multiple_of(10) {
            power /= 10;
        }
        (power == 1).then_some(Refusal { cause, from, detail, count: *count })
    }

    /// The counts by cause.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.iter().map(|(cause, count)| (cause.as_str(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_reported_at_powers_of_ten_only() {
        let mut refusals = Refusals::default();
        let from = IpAddr::from([127, 0, 0, 1]);
        let reported: Vec<_> = (0..1_000)
            .filter_map(|_| refusals.count(RejectReason::Garbled, from, String::new()))
            .map(|refusal| refusal.count)
            .collect();
        assert_eq!(reported, [1, 10, 100, 1_000]);
        assert!(
            refusals.count(RejectReason::Forged, from, String::new()).is_some(),
            "each cause alone"
        );
    }
}
