//! The dialect of nodes that roll out: greetings, messages, what they carry, and their two forms.

mod enroll;
mod form;
mod health;
mod ids;
mod message;
mod plan;
mod proposal;
mod roster;
mod state;

pub use enroll::{Enroll, EnrollAck, EnrollChallenge, EnrollNack, EnrollProof, Genesis, Greeting};
pub use form::{Form, LENGTH_BYTES, MESSAGE_BYTES_MAX, ReadError, Reader, Said, decode, encode};
pub use health::{HealthSnapshot, ModelHealth};
pub use ids::{Kind, Mark, ModelId, NAME_BYTES_MAX, NodeId, TxId};
pub use message::{
    Brake, Cause, Decision, DecisionAck, DecisionReq, DecisionResp, Heartbeat, Message, NUMBER_MAX,
    Outcome, PrepareReq, PrepareResp, ProposalRest, RecallReq, RecallResp, STATE_RESP_MAX,
    StateReq, StateResp,
};
#[cfg(test)]
pub(crate) use plan::plan;
pub use plan::{GATES_MAX, Gate, INTERVAL_MAX, Limit, Metric, Plan, STEPS_MAX, Sticky};
pub use proposal::{
    Choice, Committed, Gone, NOTE_BYTES_MAX, Proof, Proposal, Resolution, Vote, Word, cut,
};
pub use roster::{HOST_BYTES_MAX, Participant, ROSTER_MAX, Roster};
pub use state::{BASIS_POINTS, Digest, RoutingState, Status, Weights};
