//! The real world: every thread, socket, file and clock of the program.
//!
//! Knows the [`Machine`](crate::protocol::Machine) trait and no service behind it. Its sibling is
//! the simulator, which drives the same machines with none of this.

pub mod chat;
pub mod clock;
pub mod cluster_key;
pub mod control;
pub mod driver;
pub mod files;
pub mod http;
pub mod journal;
pub mod listen;
pub mod ping;
pub mod swarm;
pub mod thread;
