//! Swarms in the real world: their sockets, threads and files.
//!
//! The machine of a swarm ([`crate::machine::swarm`]) decides; here its decisions are carried out.
//! A [`SwarmEngine`] holds the port and the limits that all swarms of a process share;
//! [`SwarmHandle`] is the process's part in one of them; a [`store::Store`] is its content on the
//! disk.
//!
//! A connection has a thread that reads and one that writes. Nothing polls: a thread sleeps on its
//! socket, its queue or its deadline. Nothing here knows bytes (`proto::swarm` does) or chooses the
//! peers to serve (the machine does).

mod engine;
mod handle;
mod handshake;
mod link;
mod outgoing;
mod rate;
mod state;
pub mod store;
mod stores;
mod task;

pub use engine::{SwarmCounters, SwarmEngine, SwarmLimits, SwarmOptions};
pub use handle::{ContentPhase, JoinError, SwarmHandle, SwarmKind, SwarmProgress, SwarmSpec};
