//! Byzantine order: one log that up to a third of its members cannot corrupt.
//!
//! PBFT with signatures, in which each proposal names the one before it. A stable leader proposes
//! slots of a chain by digests; authors spread contents; all vote twice, PREPARE and COMMIT, and a
//! quorum's COMMITs make a slot final. As proposals are chained, one certificate says all that
//! lies below it, and a view change carries one for each member.
//!
//! Rules B1–B27 are stated in `docs/PROTOCOL.md`.

mod agree;
mod catchup;
mod chain;
pub mod config;
mod disk;
pub mod event;
mod ledger;
mod links;
mod memory;
mod outbox;
mod pool;
mod recall;
mod receive;
mod repair;
mod replica;
#[cfg(feature = "fault-injection")]
mod sizes;
mod status;
mod tally;
#[cfg(test)]
mod tests;
mod view_change;
mod views;
mod votes;
mod wish_cause;

pub use config::{BftRule, Config};
pub use event::{
    Command, Event, ExtraEffect, ExtraInput, Opening, OrderMark, OrderSnapshot, Record, Timer,
};
pub use memory::OrderMemory;
pub use replica::{BftIdentity, BftReplica, Effect, Fx, Input};
#[cfg(feature = "fault-injection")]
#[doc(hidden)]
pub use sizes::BftSizes;
pub use status::{BftChangeStatus, BftMemberStatus, BftStatus};
pub use wish_cause::cause_of_wish;
