//! Runtime of a node that rolls out: the sockets, threads and files around its machine.
//!
//! It makes no decision of the protocol: it hands inputs to the machine and carries out its
//! effects.
//!
//! The node runs on [`crate::runtime::engine`]. The beginning of the history is agreed before the
//! machine begins (`forming`).

mod core;
mod dialer;
mod engine;
mod forming;
mod handshake;
#[cfg(feature = "fault-injection")]
mod kill;
#[cfg(not(feature = "fault-injection"))]
mod no_kill;
mod options;
mod service;
mod stage;

pub use crate::runtime::engine::options::Counters;
pub use engine::{Engine, StandingError};
#[cfg(feature = "fault-injection")]
pub use kill::KillPoint;
#[cfg(not(feature = "fault-injection"))]
pub use no_kill::KillPoint;
pub use options::{
    Admits, Claim, Founding, Habits, Limits, Options, Place, Recovered, Standing, StartError, Told,
};
