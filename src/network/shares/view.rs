//! Progress of a swarm, for people and programs.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::runtime::swarm::SwarmProgress;

/// Progress of one swarm at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Number of pieces of the content.
    pub pieces: u32,
    /// Number of pieces that are here.
    pub have: u32,
    /// Size of the content, in bytes.
    pub size: u64,
    /// Number of connected neighbors.
    pub peers: usize,
    /// Number of bytes that were received since the start.
    pub down: u64,
    /// Number of bytes that were sent since the start.
    pub up: u64,
    /// Bytes a second that were received lately.
    pub down_rate: u64,
    /// Bytes a second that were sent lately.
    pub up_rate: u64,
}

/// Numbers of shares, for a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShareCounts {
    /// Number of shares that this peer offers or fetches.
    pub own: usize,
    /// Number of shares that it takes because they are ordered for all peers.
    pub taken: usize,
    /// Number of shares of the fleet that it has heard of.
    pub known: usize,
}

impl View {
    /// Time for the missing pieces at this rate, if any come.
    pub fn left(&self) -> Option<Duration> {
        let missing = u64::from(self.pieces.saturating_sub(self.have));
        let bytes = self.size.checked_mul(missing)?.checked_div(self.pieces.into()).unwrap_or(0);
        let secs = bytes.checked_div(self.down_rate)?;
        (missing > 0).then(|| Duration::from_secs(secs.max(1)))
    }

    /// The progress for programs.
    pub fn json(&self) -> Value {
        json!({
            "pieces": self.pieces, "have": self.have, "size": self.size, "peers": self.peers,
            "down_bytes": self.down, "up_bytes": self.up,
            "down_per_s": self.down_rate, "up_per_s": self.up_rate,
            "left_s": self.left().map(|it| it.as_secs()),
        })
    }

    /// Progress of a swarm over `size` bytes.
    pub fn of(progress: &SwarmProgress, size: u64) -> Self {
        // A rate is no exact count, and never below zero.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float to an integer saturates"
        )]
        let whole = |rate: f64| rate.round() as u64;
        Self {
            pieces: progress.pieces,
            have: progress.have,
            size,
            peers: progress.peers,
            down: progress.down,
            up: progress.up,
            down_rate: whole(progress.down_rate),
            up_rate: whole(progress.up_rate),
        }
    }
}
