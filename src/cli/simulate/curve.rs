//! Spread of news: the share of the nodes that know it, over the time since it happened.

use std::time::Duration;

/// One curve: the times at which the nodes learnt it, ascending, and the number of nodes that were
/// to learn it.
pub(super) struct Curve {
    when: Vec<Duration>,
    wanted: usize,
}

impl Curve {
    /// The curve of these times, of which there were to be `wanted`.
    pub(super) fn new(when: impl IntoIterator<Item = Duration>, wanted: usize) -> Self {
        let mut when: Vec<_> = when.into_iter().collect();
        when.sort_unstable();
        Self { when, wanted }
    }

    /// Time until this share of the nodes had learnt it; `None` if that was never so.
    pub(super) fn reached(&self, share: f64) -> Option<Duration> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = (self.wanted as f64 * share).ceil() as usize;
        self.when.get(count.max(1) - 1).copied()
    }

    /// Share of the nodes that had learnt it after `span`.
    pub(super) fn share(&self, span: Duration) -> f64 {
        let knew = self.when.partition_point(|when| *when <= span);
        knew as f64 / self.wanted.max(1) as f64
    }

    /// Time when the last one learnt it.
    pub(super) fn last(&self) -> Option<Duration> {
        self.when.last().copied()
    }
}
