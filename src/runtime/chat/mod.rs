//! A group that chats, with real sockets, threads and files around its machine.
//!
//! No decision of the protocol is made here: inputs are handed over, effects are carried out.
//!
//! The group runs on [`crate::runtime::engine`], with one more thread that reads the log
//! (`loader`).

pub mod client;
mod core;
mod dialer;
mod engine;
mod handshake;
mod loader;
mod options;
pub mod recover;
mod service;
pub mod store;
mod verify;

pub use crate::runtime::engine::options::{EngineCounters, EngineLimits};
pub use engine::ChatEngine;
pub use options::{ChatNotification, ChatOptions, ChatStartError, GroupBootstrap, KeyFilter};
pub use verify::{LogComparison, VerifyReport};
