//! The real world: every thread, socket, file and clock of the program.
//!
//! All machines are driven by one contract, [`Machine`](crate::machine::Machine). The driver of
//! nodes knows no service behind it. Its sibling is the simulator, which drives the same machines
//! with none of this.

pub(crate) mod channel;
pub mod chat;
pub mod claimed_port;
pub mod clock;
pub mod cluster_key;
pub mod control;
pub mod dataplane;
pub mod descriptors;
pub mod driver;
pub mod engine;
pub mod files;
pub mod http;
pub mod journal;
pub mod listen;
pub mod local_socket;
pub mod lock;
mod member_log;
pub mod order;
pub mod ping;
mod records;
pub mod rollout;
pub mod swarm;
pub mod thread;
pub mod web;
