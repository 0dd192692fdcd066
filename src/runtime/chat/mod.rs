//! A group that chats, with real sockets, threads and files around its machine.
//!
//! No decision of the protocol is made here: inputs are handed over, effects are carried out.
//!
//! One thread owns the machine (`keeper`); each connection has one that reads (`link`), and one to
//! write once the system takes no more (`line`); one writes the log (`disk`), one reads it
//! (`loader`), one calls (`seek`), one accepts (`engine`).

pub mod client;
mod engine;
mod greet;
mod keeper;
mod link;
mod loader;
mod options;
pub mod recover;
mod seek;
pub mod store;
mod verify;

pub use engine::Engine;
pub use options::{Allows, Counters, Founds, Limits, Options, StartError, Told};
pub use verify::{Verdict, VerifyReport};
