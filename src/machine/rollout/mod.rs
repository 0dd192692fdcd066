//! Rollout: a new version on all machines together, a little at a time, or not at all.
//!
//! Two-phase commit in which the coordinator votes last: its own COMMIT, on disk, is the decision.
//! So COMMIT is proved by the votes of all participants and ABORT by the vote of one, no decision
//! can be forged, and a participant that has not voted can always say no. A participant that voted
//! COMMIT asks until it learns the end.
//!
//! Rules T1-T12 and P1-P10 are stated in `docs/PROTOCOL.md`, "Rollout".

mod brake;
mod buckets;
mod config;
mod coordinator;
mod course;
mod dead;
mod enroll;
mod event;
mod gone;
mod health;
mod ids;
mod links;
mod machine;
mod memory;
mod messages;
mod outbox;
mod participant;
mod plan;
mod probe;
mod proposal;
mod recall;
mod recovery;
mod roster;
mod state;
mod status;
mod steps;
#[cfg(test)]
mod tests;
mod window;

pub use brake::Brake;
pub use buckets::{bucket_of_draw, bucket_of_key};
pub use config::{Breaks, Config, Decides};
pub use course::{Course, Phase};
pub use enroll::{Enroll, EnrollAck, EnrollChallenge, EnrollNack, EnrollProof, Genesis, Greeting};
pub use event::{
    Aborted, Answer, Command, Effect, Event, ExtraEffect, ExtraInput, Fx, Input, Opening, Record,
    Request, Serving, StartOrder, Timer,
};
pub use health::{HealthSnapshot, ModelHealth, Verdict};
pub use ids::{Kind, Mark, ModelId, NAME_BYTES_MAX, NodeId, TxId};
pub use machine::Rollout;
pub use memory::{ABORTED_MAX, HISTORY_MAX, Memory};
pub use messages::{
    Cause, Decision, DecisionAck, DecisionReq, DecisionResp, Heartbeat, Message, NUMBER_MAX,
    Outcome, PrepareReq, PrepareResp, ProposalRest, RecallReq, RecallResp, STATE_RESP_MAX,
    StateReq, StateResp,
};
pub use plan::{GATES_MAX, Gate, INTERVAL_MAX, Limit, Metric, Plan, STEPS_MAX, Sticky};
pub use proposal::{
    Choice, Committed, Gone, NOTE_BYTES_MAX, Proof, Proposal, Resolution, Vote, Word,
};
pub use roster::{HOST_BYTES_MAX, Participant, ROSTER_MAX, Roster};
pub use state::{BASIS_POINTS, Digest, RoutingState, Status, Weights};
pub use status::{DeadStay, DoubtStatus, PeerStatus, RunningStatus, Status as NodeStatus};
pub use window::{Ending, Window};
