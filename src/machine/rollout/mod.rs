//! Rollout: a new version on all machines together, a little at a time, or not at all.
//!
//! Two-phase commit in which the coordinator votes last: its own COMMIT, on disk, is the decision.
//! So COMMIT is proved by the votes of all participants and ABORT by the vote of one, no decision
//! can be forged, and a participant that has not voted can always say no. A participant that voted
//! COMMIT asks until it learns the end.
//!
//! Rules T1-T13 and P1-P10 are stated in `docs/PROTOCOL.md`, "Rollout".

mod amnesia;
mod brake;
mod buckets;
mod config;
mod coordinator;
mod dead;
mod deaths;
mod event;
mod gone;
mod judge;
mod links;
mod machine;
mod memory;
mod orders;
mod outbox;
mod participant;
mod peers;
mod present;
mod probe;
mod progress;
mod proposals;
mod recalled;
mod recovery;
mod running;
mod served;
mod servers;
mod status;
mod steps;
#[cfg(test)]
mod tests;
mod tries;
mod window;

pub use buckets::{bucket_of_draw, bucket_of_key};
pub use config::{Config, DecisionAuthority, DisabledRules};
pub use event::{
    Aborted, Command, CommandId, CommandRequest, CommandResult, DeadParticipants, Event,
    ExtraEffect, ExtraInput, Opening, Record, Timer,
};
pub use judge::WindowVerdict;
pub use machine::{Effect, Fx, Input, RolloutMachine};
pub use memory::{ABORTED_MAX, HISTORY_MAX, RolloutMemory};
pub use progress::{Phase, RolloutProgress};
pub use served::{OutsideGates, ServedState, StartOrder};
pub use servers::{ServerDigests, server_digest};
pub use status::{CoordinatedTxStatus, InDoubtStatus, NodeStatus, RosterNodeStatus};
pub use window::{RequestOutcome, Window};
