//! Refusals: the answer to a message that is not taken.

use serde::{Deserialize, Serialize};

use crate::model::Incarnation;

/// A refusal; its reason names the fault and what would be accepted instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// Kind of refusal, for programs.
    pub code: ErrorCode,
    /// The fault and the limit in words, for people.
    pub reason: String,
    /// Incarnation that a refused applicant's next one must exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<Incarnation>,
}

impl ErrorReply {
    /// Creates a refusal of the kind `code`.
    pub fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), above: None }
    }

    /// Adds the incarnation `floor`, which the applicant's next one must exceed.
    #[must_use]
    pub fn with_floor(self, floor: Incarnation) -> Self {
        Self { above: Some(floor), ..self }
    }
}

/// Kind of refusal. All are definite: the requested action did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The line is no message.
    Malformed,
    /// The message needs a handshake, a membership or a seed's key first.
    NotAllowed,
    /// The handshake failed: wrong proof, wrong version, wrong key.
    Handshake,
    /// The two ends do not hold the same cluster key; no message was read.
    ClusterKey,
    /// The endpoint is taken: it is alive under another key.
    EndpointTaken,
    /// The request's signature or fields contradict the link it came by.
    Invalid,
    /// Too many requests from this source, or too many under way.
    Busy,
    /// The seeds could not agree in time, or agreed on no.
    Rejected,
    /// This incarnation has ended; register again under a new one.
    Removed,
    /// The seeds' operators have banned this endpoint, or this key.
    Banned,
    /// This node takes no part in the requested action.
    WrongRole,
}
