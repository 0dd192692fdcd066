//! Bytes: how messages look on a connection, and how to tell what a connection speaks.
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
