//! The dialect of nodes that roll out: greetings, messages, what they carry, and their two forms.

mod encoding;
mod enroll;
mod gate;
mod health;
mod ids;
mod message;
mod plan;
mod prometheus;
mod proposal;
mod roster;
mod route;
mod state;

pub use encoding::{
    Encoding, EncodingError, LENGTH_BYTES, MESSAGE_BYTES_MAX, RolloutReader, StatedMessage, decode,
    encode,
};
pub use enroll::{Enroll, EnrollAck, EnrollChallenge, EnrollNack, EnrollProof, Genesis, Greeting};
pub use gate::{Comparison, Gate, Limit, Metric, PrometheusGate};
pub use health::{HealthSnapshot, ModelHealth};
pub use ids::{ModelId, NAME_BYTES_MAX, NodeId, TxId, TxKind, TxMark};
pub use message::{
    AbortCause, Brake, Decision, DecisionAck, DecisionReq, DecisionResp, Heartbeat, Message,
    NUMBER_MAX, PrepareReq, PrepareResp, ProposalRest, RecallReq, RecallResp, STATE_RESP_MAX,
    StateReq, StateResp, TxEnd,
};
#[cfg(test)]
pub(crate) use plan::plan;
pub use plan::{GATES_MAX, INTERVAL_MAX, Mirror, PLAN_TEXT_BYTES_MAX, Plan, STEPS_MAX, Sticky};
pub use prometheus::prometheus_samples;
pub use proposal::{
    Choice, Committed, GoneNodes, NOTE_BYTES_MAX, RemovalAuthority, Resolution, SERVES_BYTES_MAX,
    SERVES_MAX, ServerChanges, TxProof, TxProposal, TxVote, cut,
};
pub use roster::{HOST_BYTES_MAX, Participant, ROSTER_MAX, Roster};
pub use route::{
    HeaderValues, ROUTE_BYTES_MAX, ROUTES_MAX, RequestFacts, Route, RouteMatch, RouteTarget, Subnet,
};
pub use state::{BASIS_POINTS, Digest, RoutingState, RoutingStatus, Weights};
