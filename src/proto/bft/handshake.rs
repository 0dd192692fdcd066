//! Words of the handshake, by which both ends of a connection prove their keys.

use serde::{Deserialize, Serialize};

use super::number::OrderId;
use crate::model::{Nonce, PublicKey, Signature};
use crate::proto::chat::entry::MemberId;

/// Payload of `ORDER_JOIN`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderJoin {
    /// Id of the caller in its committee.
    pub sender_id: MemberId,
    /// Group of the caller.
    pub group: OrderId,
    /// Public key of the caller.
    pub key: PublicKey,
    /// Challenge for the called member.
    pub nonce: Nonce,
    /// Random number of the caller's process, by which two processes with one key are
    /// distinguished.
    pub process: u64,
}

/// Payload of `ORDER_CHALLENGE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderChallenge {
    /// Id of the called member.
    pub sender_id: MemberId,
    /// Public key of the called member.
    pub key: PublicKey,
    /// Challenge for the caller.
    pub nonce: Nonce,
    /// Signature of the called member over the caller's challenge.
    pub proof: Signature,
}

/// Payload of `ORDER_PROOF`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderProof {
    /// Signature of the caller over the called member's challenge.
    pub proof: Signature,
}

/// Payload of `ORDER_ACK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderAck {
    /// Id of the called member.
    pub sender_id: MemberId,
    /// Random number of the called member's process.
    pub process: u64,
}

/// Payload of `ORDER_REFUSED`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRefused {
    /// Reason, for programs.
    pub code: OrderRefusal,
    /// Reason in words, for people.
    pub reason: String,
}

/// Reason of a refused handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderRefusal {
    /// A line is no message, or none of the handshake.
    Malformed,
    /// The caller belongs to another group, or another group's member was called.
    OtherGroup,
    /// A key or proof is wrong, or the caller is no member.
    NoMember,
    /// Another process uses the caller's key.
    Doubled,
    /// There is no room.
    Busy,
}
