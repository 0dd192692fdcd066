//! The real world: every thread, socket, file and clock of the program.
//!
//! All machines are driven by one contract, [`Machine`](crate::machine::Machine). The driver of nodes
//! knows no service behind it. Its sibling is the simulator, which drives the same machines with
//! none of this.

pub mod chat;
pub mod clock;
pub mod cluster_key;
pub mod control;
pub mod dataplane;
pub mod descriptors;
mod disk;
pub mod driver;
pub mod files;
pub mod http;
mod inbox;
pub mod journal;
mod line;
pub mod listen;
pub mod lock;
pub mod ping;
pub mod place;
mod porter;
mod records;
pub mod rollout;
pub mod swarm;
pub mod thread;
mod timed;
