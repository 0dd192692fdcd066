//! HTTP of a node, on hyper: the data plane and the status page share it.
//!
//! Invariants:
//! - A connection ends within a bounded time for any behavior of its client, and no other
//!   connection ends with it.
//! - A request that cannot be understood is answered with the reason.
//!
//! HTTP runs on its own threads with tokio; the fleet's connections have a thread each and do not
//! come here.

pub mod address;
pub mod client;
pub(crate) mod connect;
mod explain;
pub(crate) mod guarded;
pub(crate) mod prometheus;
pub(crate) mod refusal;
mod resolver;
pub(crate) mod server;
pub(crate) mod tls;
pub(crate) mod workers;
