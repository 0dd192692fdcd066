//! Messages between two members for direct sends.

use serde::{Deserialize, Serialize};

use crate::model::{Data, Incarnation, MessageId};

/// Greatest number of bytes of data that travel whole in one line, and the size of a part of more.
pub const PART_BYTES: usize = 64 * 1024;

/// Number of parts that are asked for at once: a link's queue holds sixteen times as many bytes.
pub const PARTS_MAX: u32 = 4;

/// A message for the application at the other end of this link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectMsg {
    /// Number that the sender gave to the message, unique in the sender's life; the same
    /// in each attempt.
    pub number: u64,
    /// Incarnation of the receiver's life that the message is meant for.
    pub life: Incarnation,
    /// Topic of the message.
    pub topic: String,
    /// Size of the data, in bytes.
    pub size: u64,
    /// SHA-256 of the data.
    pub digest: MessageId,
    /// Data of the message, unless it is too large for one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
}

/// Answer to a message, with its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectAck {
    /// Number of the message.
    pub number: u64,
    /// Verdict of the receiver.
    pub verdict: DeliveryVerdict,
    /// Reason in words, for people; empty if the message was taken.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Verdict of a receiver on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryVerdict {
    /// The application took the message.
    Taken,
    /// The message was refused, and would be again.
    Refused,
    /// There was no room for the message; the application has not seen it, and it may
    /// be sent again.
    Busy,
    /// The fate is not known: the application was shown the message and did not answer in time, or
    /// the message came so late that an earlier verdict may be forgotten.
    Unknown,
}

/// Request for parts of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectPartReq {
    /// Number of the message.
    pub number: u64,
    /// Index of the first part, from 0.
    pub at: u32,
    /// Number of parts.
    pub count: u32,
}

/// One part of the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectPart {
    /// Number of the message.
    pub number: u64,
    /// Index of the part, from 0.
    pub at: u32,
    /// Bytes of the part: 65536 of them, fewer only in the last.
    pub data: Data,
}

/// Number of parts that `size` bytes make.
pub fn parts_of(size: usize) -> u32 {
    u32::try_from(size.div_ceil(PART_BYTES)).unwrap_or(u32::MAX)
}

/// Returns the bytes of one part; empty beyond the last.
pub fn part(data: &Data, at: u32) -> Data {
    let start = (at as usize).saturating_mul(PART_BYTES).min(data.len());
    let end = start.saturating_add(PART_BYTES).min(data.len());
    Data::from(data[start..end].to_vec())
}
