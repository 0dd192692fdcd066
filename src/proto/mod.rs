//! Encoding of messages on a connection, and detection of a connection's dialect.
//!
//! Nothing here opens, waits or decides. Every form of input has a length limit that is checked
//! before memory is spent on it.

pub mod chat;
pub mod dialect;
pub mod http;
pub mod line;
pub mod rollout;
pub mod sealed;
pub mod swarm;
