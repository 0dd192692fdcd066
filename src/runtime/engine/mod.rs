//! Engine of a machine that writes a log: its port, its links, its log and its threads. Chats,
//! Byzantine orders and rollouts run on it.
//!
//! One thread owns the machine (`core`); each connection has one that reads (`link`), and one to
//! write once the system takes no more (`link_writer`); one writes the log (`log_writer`), one
//! makes the calls that the machine does not order, one accepts (`acceptor`). The differences
//! between the machines are in [`service::Service`], and those between their handshakes in
//! [`service::HandshakeDialect`].
//!
//! Invariant: after [`shared::Shared::stop`] no thread and no socket is left, and all entries
//! handed to the log are there.

use std::time::Duration;

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

/// Time for threads to end once their sockets are shut. More is only needed if a disk hangs.
pub(in crate::runtime) const CUT_GRACE: Duration = Duration::from_secs(5);

/// Time for the other end of a closed connection to read the last bytes and close.
pub(in crate::runtime) const LINGER: Duration = Duration::from_secs(2);
