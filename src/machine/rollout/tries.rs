//! Tries of a node's own: the pauses between them, their obstacles, and the figures by which the
//! next one is judged (T5, T8).

use std::time::Duration;

use crate::model::Time;
use crate::proto::rollout::{HealthSnapshot, TxId};

/// State of a node that takes steps of itself.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// Time from which a transaction of this node's own may be tried again.
    retry_at: Time,
    /// Number of tries in a row that lacked a vote.
    missed: u32,
    /// Own checks, since the last good one, that found a gate that does not hold.
    bad_looks: u64,
    /// Reason why no step is taken, as last told.
    held: Option<String>,
    /// The rollout whose steps this node takes in place of its owner.
    took_over: Option<TxId>,
    health: Option<HealthSnapshot>,
}

impl Tries {
    pub(super) fn are_paused(&self, now: Time) -> bool {
        now < self.retry_at
    }

    /// Time from which a transaction of this node's own may be tried again.
    #[cfg(test)]
    pub(super) const fn retry_at(&self) -> Time {
        self.retry_at
    }

    /// Tries again at once: a node has come within reach.
    pub(super) const fn resume(&mut self, now: Time) {
        (self.retry_at, self.missed) = (now, 0);
    }

    /// The pause before the next try; twice as long each time that a vote was missing.
    pub(super) fn next_pause(
        &mut self,
        is_missed: bool,
        least: Duration,
        most: Duration,
    ) -> Duration {
        self.missed = if is_missed { self.missed + 1 } else { 0 };
        (least * (1 << self.missed.saturating_sub(1).min(10))).min(most)
    }

    pub(super) const fn pause_until(&mut self, until: Time) {
        self.retry_at = until;
    }

    /// Begins anew after a commit.
    pub(super) fn on_commit(&mut self) {
        (self.held, self.missed, self.bad_looks) = (None, 0, 0);
    }

    /// Counts a check that found a gate that does not hold. Returns true if `failures` are
    /// exceeded.
    pub(super) fn fails(&mut self, counts: bool, failures: u64) -> bool {
        self.bad_looks += u64::from(counts);
        self.bad_looks > failures || failures == 0
    }

    /// Notes a check that found all gates good.
    pub(super) const fn on_good(&mut self) {
        self.bad_looks = 0;
    }

    /// Notes why no step is taken. Returns true if that is news.
    pub(super) fn hold(&mut self, reason: &str) -> bool {
        let is_news = self.held.as_deref() != Some(reason);
        if is_news {
            self.held = Some(reason.to_owned());
        }
        is_news
    }

    /// Reason why no step is taken, as last told.
    pub(super) fn held(&self) -> Option<&str> {
        self.held.as_deref()
    }

    /// Notes that this node takes the steps of a rollout. Returns true if that is news.
    pub(super) fn take_over(&mut self, progress: &TxId) -> bool {
        self.took_over.replace(progress.clone()).as_ref() != Some(progress)
    }

    /// Last figures of this node, since requests were shared anew.
    pub(super) const fn health(&self) -> Option<&HealthSnapshot> {
        self.health.as_ref()
    }

    pub(super) fn on_health(&mut self, health: HealthSnapshot) {
        self.health = Some(health);
    }

    /// Forgets the figures of this node.
    pub(super) fn forget_health(&mut self) {
        self.health = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_while_votes_are_missing() {
        let mut tries = Tries::default();
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(3));
        let mut next = |is_missed| tries.next_pause(is_missed, least, most).as_secs();
        let pauses = [true, true, true, true, false, true].map(&mut next);
        assert_eq!(pauses, [1, 2, 3, 3, 1, 1]);
    }

    #[test]
    fn a_plan_without_failures_goes_back_at_the_first_one() {
        let mut tries = Tries::default();
        assert!(tries.fails(false, 0));
        let failed = [true, true, false, true].map(|counts| tries.fails(counts, 2));
        assert_eq!(failed, [false, false, false, true]);
        tries.on_good();
        assert!(!tries.fails(true, 2));
    }
}
