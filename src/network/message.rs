//! What applications are handed: messages, and peers that were found.

use std::time::Duration;

use super::queue::Weigh;
use crate::model::{Data, Endpoint, MessageId, PublicKey};

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its identity: SHA-256 over the message and its origin.
    pub id: MessageId,
    /// The topic.
    pub topic: String,
    /// Who made it, and signed it.
    pub origin: Endpoint,
    /// The key that signed it. A fleet with seeds vouches for whose it is; in one without, the key
    /// is who it is, and the endpoint is what its holder says.
    pub key: PublicKey,
    /// The data.
    pub data: Data,
    /// How long it was under way.
    pub age: Duration,
    /// Links it has crossed.
    pub hops: u32,
}

impl Weigh for Message {
    fn bytes(&self) -> usize {
        self.data.len() + 256
    }
}

/// A direct message. It was taken: its sender knows that it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Who sent it, proved by the link it came by.
    pub from: Endpoint,
    /// What it is about.
    pub topic: String,
    /// The data.
    pub data: Data,
}

impl Weigh for Incoming {
    fn bytes(&self) -> usize {
        self.data.len() + 256
    }
}

/// A message that is on its way to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its identity.
    pub id: MessageId,
    /// How many neighbors it was pushed to at once; the others are told of it.
    pub pushed_to: usize,
}

/// A peer that was found, and has proved its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its key.
    pub key: PublicKey,
}

impl Weigh for Known {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}
