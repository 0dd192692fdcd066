//! Everything that nodes say to each other: the messages, their form on a connection, and the
//! dialects that share a port.
//!
//! [`message`] is the table of the native dialect; its payloads are in [`hello`], [`refusal`],
//! [`membership`], [`gossip`], [`liveness`], [`direct`], [`broadcast`] and [`discovery`], and what
//! is signed in [`crate::model::statement`]. [`chat`], [`rollout`] and [`swarm`] are dialects of
//! their own, each with its messages and its codec.
//!
//! Nothing here opens, waits or decides. Every form of input has a length limit that is checked
//! before memory is spent on it.

pub mod bft;
pub mod broadcast;
pub mod chat;
pub mod dialect;
pub mod direct;
pub mod discovery;
pub mod gossip;
pub mod hello;
pub mod line;
pub mod liveness;
pub mod membership;
pub mod message;
pub mod refusal;
pub mod rollout;
pub mod sealed;
pub mod swarm;
