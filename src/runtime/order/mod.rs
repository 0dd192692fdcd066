//! A Byzantine order, with real sockets, threads and files around its machine.
//!
//! No decision of the protocol is made here: inputs are handed over, effects are carried out. The
//! member runs on [`crate::runtime::engine`], with one more thread that reads the log.

pub mod audit;
pub mod client;
mod core;
mod engine;
mod handshake;
mod options;
mod prove;
mod service;
pub mod store;

pub use crate::runtime::engine::options::{EngineCounters, EngineLimits};
pub use engine::OrderEngine;
pub use options::{OrderNotification, OrderOptions, OrderStartError};
