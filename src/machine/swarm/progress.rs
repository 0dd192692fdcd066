//! Progress of a swarm toward its end (S4).

use super::event::SwarmOutcome;
use crate::model::Time;

/// Time of the last progress, the end, and the bytes of pieces that came and left.
#[derive(Debug, Default)]
pub(super) struct Progress {
    at: Time,
    /// True if the timer runs after which all possible requests are tried again.
    is_retrying: bool,
    ended: Option<SwarmOutcome>,
    down: u64,
    up: u64,
}

impl Progress {
    /// Notes progress that brings a member nearer to the end.
    pub(super) const fn note(&mut self, now: Time) {
        self.at = now;
    }

    /// Time of the last progress.
    pub(super) const fn at(&self) -> Time {
        self.at
    }

    /// Begins to wait for another try. Returns false if that has begun.
    pub(super) const fn begin_retry(&mut self) -> bool {
        !std::mem::replace(&mut self.is_retrying, true)
    }

    pub(super) const fn end_retry(&mut self) {
        self.is_retrying = false;
    }

    /// The end, once the swarm is over.
    pub(super) const fn ended(&self) -> Option<&SwarmOutcome> {
        self.ended.as_ref()
    }

    pub(super) fn end(&mut self, outcome: SwarmOutcome) {
        self.ended = Some(outcome);
    }

    pub(super) const fn came(&mut self, bytes: u64) {
        self.down += bytes;
    }

    pub(super) const fn left(&mut self, bytes: u64) {
        self.up += bytes;
    }

    /// Bytes of pieces that came.
    pub(super) const fn down(&self) -> u64 {
        self.down
    }

    /// Bytes of pieces that left.
    pub(super) const fn up(&self) -> u64 {
        self.up
    }
}
