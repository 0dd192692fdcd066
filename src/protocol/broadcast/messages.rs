//! What neighbors say to each other about broadcast messages.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::{Config, PART_BYTES, SEEN_BY_MAX};
use crate::model::{
    Data, Endpoint, Incarnation, KeyPair, MessageId, PublicKey, Signature, SigningBytes, WallTime,
    topic_complaint,
};
use crate::protocol::membership::certificate::{Admission, Subject};

/// A message on its way; without its data where that is large and must be pulled in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Who made it.
    pub origin: Endpoint,
    /// In which of its lives.
    pub incarnation: Incarnation,
    /// The origin's key.
    pub key: PublicKey,
    /// The origin's number for it, from 1 in each life.
    pub number: u64,
    /// What it is about.
    pub topic: String,
    /// When it was made, by the origin's clock; for people.
    pub time: WallTime,
    /// Bytes of data.
    pub size: u64,
    /// The data, up to 64 KiB; more is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The SHA-256 of the data.
    #[serde(with = "hex::serde")]
    pub digest: [u8; 32],
    /// Whether the origin wants to know how many have it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub receipt: bool,
    /// The origin's signature over all of the above, the data by its digest.
    pub signature: Signature,
    /// How many more links it may be pushed over.
    pub ttl: u32,
    /// Links it has crossed.
    pub hops: u32,
    /// Nodes that have it, the latest last.
    pub seen_by: Vec<Endpoint>,
    /// Milliseconds since its origin made it, added up along the way without any clock: exactly
    /// what it spent in nodes, about what it spent on links.
    pub age_ms: u64,
    /// The origin's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Arc<Admission>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Publish {
    /// A new message of `subject`, signed.
    pub(super) fn sign(
        subject: &Subject,
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

    /// What the origin signs; its SHA-256 is the message's identity.
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

    /// The message's identity.
    pub fn id(&self) -> MessageId {
        MessageId::of(&self.statement())
    }

    /// The life that made it.
    pub const fn subject(&self) -> Subject {
        Subject { endpoint: self.origin, incarnation: self.incarnation, key: self.key }
    }

    /// Whether its data is pulled in parts.
    pub const fn is_large(&self) -> bool {
        self.size > PART_BYTES as u64
    }

    /// What is wrong with it that can be seen without any arithmetic of signatures.
    pub(super) fn complaint(&self, config: &Config) -> Option<String> {
        if let Some(reason) = topic_complaint(&self.topic) {
            return Some(reason);
        }
        if self.number == 0 {
            return Some("messages are numbered from 1".to_owned());
        }
        if self.seen_by.len() > SEEN_BY_MAX {
            let count = self.seen_by.len();
            return Some(format!("seen_by of {count}; {SEEN_BY_MAX} are too many to check"));
        }
        if self.size > config.message_max {
            return Some(format!("{} bytes; at most {} are taken", self.size, config.message_max));
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

/// A message that its speaker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Which.
    pub id: MessageId,
    /// Bytes of data.
    pub size: u64,
    /// Links that the speaker's copy has crossed.
    pub hops: u32,
}

/// I hold these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Which, and how large.
    pub ids: Vec<Offer>,
}

/// Send me these, with the certificates of their origins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graft {
    /// Which.
    pub ids: Vec<MessageId>,
    /// Whether to push to me from now on.
    pub push: bool,
}

/// Push to me no more; announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {}

/// Send me these parts of a large message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReq {
    /// Of which message.
    pub id: MessageId,
    /// The first part, from 0.
    pub at: u32,
    /// How many.
    pub count: u32,
}

/// A part of a large message: 64 KiB, the last one what is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Of which message.
    pub id: MessageId,
    /// Which part, from 0.
    pub at: u32,
    /// Its bytes.
    pub data: Data,
}

/// How many are known to have a message that they got by way of me, myself included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which message.
    pub id: MessageId,
    /// How many.
    pub count: u32,
}

/// A row of consecutive numbers: the first and the last.
pub(super) type Row = (u64, u64);

/// The numbers of some origins' messages that its speaker has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// One entry for each origin.
    pub of: Vec<Reached>,
}

/// The numbers of one origin's messages that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The life that numbered them.
    pub origin: Subject,
    /// The number up to which nothing is waited for any more.
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
    pub origin: Subject,
    /// The rows of them, the lowest first.
    pub rows: Vec<(u64, u64)>,
}

/// A request to an origin to wait for a node that does not keep up, on its way back to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// The life that is to wait.
    pub origin: Subject,
    /// The node that does not keep up.
    pub who: Endpoint,
    /// The number up to which it lacks nothing.
    pub done: u64,
    /// Bytes that may be published after `done`.
    pub room: u64,
    /// Links that the request has crossed.
    pub hops: u32,
}
