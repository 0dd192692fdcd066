//! Chat: one order for all members, in which no message is lost if any of them dies.
//!
//! A fenced Bully. The highest id that is alive and reaches a majority leads: it collects the
//! promises of a majority, adopts the most advanced log among them, and only then says
//! COORDINATOR (Viewstamped Replication's view change). It numbers messages; one that a majority
//! has on disk is final.
//!
//! Rules C1–C14, R1–R13 and L1–L3 are stated in `docs/PROTOCOL.md`.

mod authors;
mod candidacy;
pub mod config;
mod duty;
mod election;
pub mod event;
mod fit;
mod follower;
mod following;
mod identity;
mod leader;
mod links;
mod log_recovery;
mod membership;
mod memory;
mod pending;
mod process;
mod progress;
mod pulse;
mod reach;
mod receive;
mod recover;
mod reign;
mod removals;
mod replica;
mod replicate;
mod reports;
mod rival;
mod rivals;
mod status;
mod submit;
mod sync_tracker;
mod takeover;
#[cfg(test)]
mod tests;
mod vote;
mod window;

pub use config::{Config, Rule};
pub use event::{Command, Event, ExtraEffect, ExtraInput, Opening, Record, Role, Snapshot, Timer};
pub use memory::{ChatMemory, apply_typed};
pub use replica::{Effect, Fx, Input, Replica};

pub use status::{ChatStatus, MemberStatus};
