//! Messages between neighbors about broadcast messages.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::statement::{Admission, MemberInstance};
use crate::model::{
    Data, Endpoint, Incarnation, KeyPair, MessageId, PublicKey, Signature, SigningBytes, WallTime,
    topic_complaint,
};

/// Bytes of data that travel in one line, and of one part of a larger message: in base64 a third
/// of a line.
pub const PART_BYTES: usize = 65_536;

/// Number of parts asked for at once, and under way at once.
pub const PARTS_MAX: u32 = 4;

/// Number of identities in one `ANNOUNCE`.
pub const ANNOUNCE_MAX: usize = 512;

/// Number of origins in one `HAVE` or `LACK`.
pub const HAVE_MAX: usize = 64;

/// Number of rows of numbers of one origin in a `LACK`.
pub const LACK_ROWS_MAX: usize = 32;

/// Highest number of a message, in each life of its origin: sums of such numbers do not overflow.
pub const NUMBER_MAX: u64 = 65_536 * 65_536 * 65_536;

/// Number of identities in one `GRAFT`, and asked for at once on a link: an answer is
/// so many messages.
pub const GRAFT_MAX: usize = 64;

/// Number of nodes in a `seen_by`; a longer one is refused.
pub const SEEN_BY_MAX: usize = 64;

/// Greatest value of a `ttl`; a larger one counts as this.
pub const TTL_MAX: u32 = 64;

/// A broadcast message on its way; without its data where that is large and must be
/// pulled in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Endpoint that published the message.
    pub origin: Endpoint,
    /// Incarnation of the origin's life.
    pub incarnation: Incarnation,
    /// Public key of the origin.
    pub key: PublicKey,
    /// Number that the origin gave to the message, from 1 in each life.
    pub number: u64,
    /// Topic of the message.
    pub topic: String,
    /// Time of publication, by the origin's clock; for people.
    pub time: WallTime,
    /// Size of the data, in bytes.
    pub size: u64,
    /// Data up to 64 KiB; more is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// SHA-256 of the data.
    #[serde(with = "hex::serde")]
    pub digest: [u8; 32],
    /// True if the origin wants receipts of the message.
    #[serde(default, skip_serializing_if = "is_false")]
    pub receipt: bool,
    /// Signature of the origin over all of the above, the data by its digest.
    pub signature: Signature,
    /// Number of further links that the message may be pushed over.
    pub ttl: u32,
    /// Number of links that the message has crossed.
    pub hops: u32,
    /// Nodes that have the message, the latest last.
    pub seen_by: Vec<Endpoint>,
    /// Milliseconds since its origin made it, added up along the way without any clock: the exact
    /// time spent in nodes, and about the time spent on links.
    pub age_ms: u64,
    /// Certificate of the origin's admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Arc<Admission>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Publish {
    /// Signs a new message of `subject`.
    pub fn sign(
        subject: &MemberInstance,
        (number, time): (u64, WallTime),
        (topic, data, receipt): (String, Data, bool),
        keys: &KeyPair,
    ) -> Self {
        let mut this = Self {
            origin: subject.endpoint,
            incarnation: subject.incarnation,
            key: subject.key,
            number,
            topic,
            time,
            size: data.len() as u64,
            digest: data.sha256(),
            data: Some(data),
            receipt,
            signature: Signature::from_bytes([0; 64]),
            ttl: 0,
            hops: 0,
            seen_by: vec![subject.endpoint],
            age_ms: 0,
            proof: None,
        };
        this.signature = keys.sign(&this.statement());
        this
    }

    /// The statement that the origin signs; its SHA-256 is the message's identity.
    pub fn statement(&self) -> SigningBytes {
        SigningBytes::new("folkmoot/message/1")
            .endpoint(self.origin)
            .incarnation(self.incarnation)
            .key(&self.key)
            .number(self.number)
            .text(&self.topic)
            .wall(self.time)
            .number(self.size)
            .bytes(&self.digest)
            .number(u64::from(self.receipt))
    }

    /// Identity of the message.
    pub fn id(&self) -> MessageId {
        MessageId::of(&self.statement())
    }

    /// The life that published the message.
    pub const fn subject(&self) -> MemberInstance {
        MemberInstance { endpoint: self.origin, incarnation: self.incarnation, key: self.key }
    }

    /// True if the data is pulled in parts.
    pub const fn is_large(&self) -> bool {
        self.size > PART_BYTES as u64
    }

    /// Returns the fault of the message that is seen without verifying signatures.
    pub fn complaint(&self, message_max: u64) -> Option<String> {
        if let Some(reason) = topic_complaint(&self.topic) {
            return Some(reason);
        }
        if !(1..=NUMBER_MAX).contains(&self.number) {
            return Some(format!("messages are numbered from 1 to {NUMBER_MAX}"));
        }
        if self.seen_by.len() > SEEN_BY_MAX {
            let count = self.seen_by.len();
            return Some(format!("seen_by of {count}; {SEEN_BY_MAX} are too many to check"));
        }
        if self.size > message_max {
            return Some(format!("{} bytes; at most {} are taken", self.size, message_max));
        }
        match &self.data {
            None if self.is_large() => None,
            None => Some("data up to 64 KiB travels with its message".to_owned()),
            Some(_) if self.is_large() => {
                Some("data above 64 KiB is announced, and pulled in parts".to_owned())
            }
            Some(data) if data.len() as u64 != self.size => {
                Some(format!("{} bytes of data, {} announced", data.len(), self.size))
            }
            Some(_) => None,
        }
    }
}

/// A message that the sender holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Identity of the message.
    pub id: MessageId,
    /// Size of the data, in bytes.
    pub size: u64,
    /// Number of links that the sender's copy has crossed.
    pub hops: u32,
}

/// Announcement of messages that the sender holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Identities, sizes and hops of the messages.
    pub ids: Vec<Offer>,
}

/// Request for messages, with the certificates of their origins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graft {
    /// Identities of the messages.
    pub ids: Vec<MessageId>,
    /// True if to push to the sender from now on.
    pub push: bool,
}

/// Request to announce messages to the sender instead of pushing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {}

/// Request for parts of a large message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReq {
    /// Identity of the message.
    pub id: MessageId,
    /// Index of the first part, from 0.
    pub at: u32,
    /// Number of parts.
    pub count: u32,
}

/// A part of a large message: 64 KiB, or the rest in the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Identity of the message.
    pub id: MessageId,
    /// Index of the part, from 0.
    pub at: u32,
    /// Bytes of the part.
    pub data: Data,
}

/// Count of the nodes known to have a message by way of the sender, the sender included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Identity of the message.
    pub id: MessageId,
    /// Number of the nodes.
    pub count: u32,
}

/// A row of consecutive numbers: the first and the last.
pub type Row = (u64, u64);

/// The numbers of some origins' messages that the sender has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// One entry for each origin.
    pub of: Vec<Reached>,
}

/// The numbers of one origin's messages that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The life that numbered them.
    pub origin: MemberInstance,
    /// The number up to which no message is waited for any more.
    pub done: u64,
    /// The highest number that came.
    pub top: u64,
}

/// A question for announcements of the messages with these numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// One entry for each origin.
    pub of: Vec<Lacking>,
}

/// The numbers of one origin's messages that a node lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacking {
    /// The life that numbered them.
    pub origin: MemberInstance,
    /// Rows of these numbers, the lowest first; each with its first and last.
    pub rows: Vec<(u64, u64)>,
}

/// A request to an origin to wait for a node that does not keep up, on its way back to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// The life that is to wait.
    pub origin: MemberInstance,
    /// The node that does not keep up.
    pub who: Endpoint,
    /// The number up to which it lacks nothing.
    pub done: u64,
    /// Bytes that may be published after `done`.
    pub room: u64,
    /// Links that the request has crossed.
    pub hops: u32,
}
