//! How news spread: the share of those who were to know, over the time since it happened.

use std::time::Duration;

/// One curve: when each of those who know learnt it, ascending, and how many were to know.
pub(super) struct Curve {
    when: Vec<Duration>,
    wanted: usize,
}

impl Curve {
    /// The curve of what was learnt at these times, of which there were to be `wanted`.
    pub(super) fn new(when: impl IntoIterator<Item = Duration>, wanted: usize) -> Self {
        let mut when: Vec<_> = when.into_iter().collect();
        when.sort_unstable();
        Self { when, wanted }
    }

    /// After how long this share of those who were to know did; `None` if that was never so.
    pub(super) fn reached(&self, share: f64) -> Option<Duration> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = (self.wanted as f64 * share).ceil() as usize;
        self.when.get(count.max(1) - 1).copied()
    }

    /// The share of those who were to know that did after `span`.
    pub(super) fn share(&self, span: Duration) -> f64 {
        let knew = self.when.partition_point(|when| *when <= span);
        knew as f64 / self.wanted.max(1) as f64
    }

    /// When the last one learnt it.
    pub(super) fn last(&self) -> Option<Duration> {
        self.when.last().copied()
    }
}
