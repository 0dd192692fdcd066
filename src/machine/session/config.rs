//! The limits of the handshake, with their reasons.

use std::time::Duration;

/// Limits of the handshake.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time-out of a connection's handshake. Shorter refuses slow hosts; longer lets silent
    /// connections pile up.
    pub handshake_timeout: Duration,
    /// Number of unproven connections that are kept; when another comes, the oldest of the
    /// address with the most is closed.
    pub unproven_max: usize,
    /// Length of a keep-alive round. A link that is silent for four is closed; neighbors watch each
    /// other more closely than that, seeds and their links need no more.
    pub keep_alive: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            unproven_max: 512,
            keep_alive: Duration::from_secs(3),
        }
    }
}
