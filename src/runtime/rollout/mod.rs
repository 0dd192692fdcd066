//! Runtime of a node that rolls out: the sockets, threads and files around its machine.
//!
//! The runtime makes no decision of the protocol: it hands inputs to the machine and carries out
//! its effects.
//!
//! The node runs on [`crate::runtime::engine`]. The beginning of the history is agreed before the
//! machine begins (`bootstrapping`).

mod bootstrapping;
mod core;
mod dialer;
mod engine;
mod handshake;
#[cfg(feature = "fault-injection")]
mod kill;
#[cfg(not(feature = "fault-injection"))]
mod no_kill;
mod node_state;
mod options;
mod service;

pub use crate::runtime::engine::options::EngineCounters;
pub use engine::{RolloutEngine, StoppingError};
#[cfg(feature = "fault-injection")]
pub use kill::KillPoint;
#[cfg(not(feature = "fault-injection"))]
pub use no_kill::KillPoint;
pub use options::{
    AdmissionPolicy, ConfigOverrides, EngineStatus, HistoryBootstrap, NodeAddr, ReplayReport,
    RolloutLimits, RolloutNotification, RolloutOptions, RolloutStartError, UnknownKey,
};
