//! Engine of a machine that writes a log: its port, its links, its log and its threads. Chats and
//! rollouts run on it.
//!
//! One thread owns the machine (`core`); each connection has one that reads (`link`), and one to
//! write once the system takes no more (`link_writer`); one writes the log (`log_writer`), one makes
//! the calls that the machine does not order (`dialer`), one accepts (`acceptor`). The differences
//! between the machines are in [`service::Service`].
//!
//! Invariant: after [`shared::Shared::stop`] no thread and no socket is left, and all entries handed
//! to the log are there.

pub(in crate::runtime) mod acceptor;
pub(in crate::runtime) mod core;
pub(in crate::runtime) mod core_queue;
mod dialer;
pub(in crate::runtime) mod handshake;
pub(in crate::runtime) mod link;
pub(in crate::runtime) mod link_writer;
pub(in crate::runtime) mod log_writer;
pub mod options;
pub(in crate::runtime) mod service;
pub(in crate::runtime) mod shared;
pub(in crate::runtime) mod timed;
