//! What two members say to each other directly.

use serde::{Deserialize, Serialize};

use crate::model::{Data, Incarnation, MessageId};

/// The most bytes of data that travel whole in one line, and the size of a part of more.
pub const PART_BYTES: usize = 64 * 1024;

/// Parts that are asked for at once: a link's queue holds sixteen times as many bytes.
pub const PARTS_MAX: u32 = 4;

/// Something for the application at the other end of this link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectMsg {
    /// The sender's number for it, unique in the sender's life; the same in each attempt.
    pub number: u64,
    /// Which of the receiver's lives is meant.
    pub life: Incarnation,
    /// What it is about.
    pub topic: String,
    /// How many bytes there are.
    pub size: u64,
    /// The SHA-256 of the bytes.
    pub digest: MessageId,
    /// The bytes, unless there are too many for one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectAck {
    /// The number of what is answered.
    pub number: u64,
    /// What the receiver says to it.
    pub verdict: Verdict,
    /// Why, for people; empty if it was taken.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What a receiver says to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The application took it.
    Taken,
    /// It was refused, and it would be again.
    Refused,
    /// There was no room for it; nobody has seen it, and it may be sent again.
    Busy,
    /// Nobody can say: the application was told and did not answer in time, or it came so late
    /// that an earlier verdict may be forgotten.
    Unknown,
}

/// Send me these parts of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectPartReq {
    /// The number of the message.
    pub number: u64,
    /// The first part, from 0.
    pub at: u32,
    /// How many.
    pub count: u32,
}

/// One part of the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectPart {
    /// The number of the message.
    pub number: u64,
    /// Which part, from 0.
    pub at: u32,
    /// Its bytes: 65536 of them, fewer only in the last.
    pub data: Data,
}

/// How many parts so many bytes are.
pub(super) fn parts_of(size: usize) -> u32 {
    u32::try_from(size.div_ceil(PART_BYTES)).unwrap_or(u32::MAX)
}

/// The bytes of one part; empty beyond the last.
pub(super) fn part(data: &Data, at: u32) -> Data {
    let start = (at as usize).saturating_mul(PART_BYTES).min(data.len());
    let end = start.saturating_add(PART_BYTES).min(data.len());
    Data::from(data[start..end].to_vec())
}
