//! Limits and counters of an engine.

use std::time::Duration;

use crate::runtime::driver::counters::Counter;

/// Limits of one engine. Each protects the process from the other ends of its sockets.
#[derive(Clone, Debug)]
pub struct EngineLimits {
    /// Time-out of a new connection until both ends have proved their keys.
    pub handshake_timeout: Duration,
    /// Time-out of a call to be connected.
    pub dial_timeout: Duration,
    /// Time-out of an end that takes none of the bytes that wait for it; it is cut then.
    pub write_timeout: Duration,
    /// Largest number of accepted connections that have not proved a key; above this the oldest of
    /// the address with the most is closed.
    pub silent_max: usize,
    /// Largest number of connections; above this new ones are closed at once. A
    /// sixteenth is for own calls.
    pub links_max: usize,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(2),
            write_timeout: Duration::from_secs(10),
            silent_max: 64,
            links_max: 1_024,
        }
    }
}

/// Counters of connections and messages.
#[derive(Debug, Default)]
pub struct EngineCounters {
    /// Connections over which both ends have proved their keys.
    pub links: Counter,
    /// Accepted connections closed for want of room.
    pub refused_full: Counter,
    /// Accepted connections that closed, failed or timed out in the handshake, or were the oldest
    /// of too many.
    pub refused_silent: Counter,
    /// Accepted connections of another dialect that nothing here serves.
    pub refused_dialect: Counter,
    /// Connections without a cluster key, or with another one.
    pub refused_key: Counter,
    /// Handshakes refused, such as for a false proof, for another's name, or because the caller may
    /// not join.
    pub refused_handshake: Counter,
    /// Messages that were malformed, or named another sender.
    pub refused_message: Counter,
    /// Messages that the machine dropped and reported: false votes, forged decisions, late ones.
    pub dropped: Counter,
    /// Connections cut because the other end does not read.
    pub cut_full: Counter,
}
