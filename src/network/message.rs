//! Messages and discovered peers, as applications receive them.

use std::time::Duration;

use super::queue::ByteSize;
use crate::model::{Data, Endpoint, MessageId, PublicKey};

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Identity of the message: SHA-256 over the message and its origin.
    pub id: MessageId,
    /// Topic of the message.
    pub topic: String,
    /// Endpoint of the peer that made and signed the message.
    pub origin: Endpoint,
    /// Key that signed the message. A fleet with seeds certifies the endpoint of the key; in one
    /// without, the key alone identifies the origin, and the endpoint is only its holder's claim.
    pub key: PublicKey,
    /// Payload of the message.
    pub data: Data,
    /// Time the message was under way.
    pub age: Duration,
    /// Number of links the message has crossed.
    pub hops: u32,
}

impl ByteSize for Message {
    fn bytes(&self) -> usize {
        self.data.len() + 256
    }
}

/// A direct message that was taken: its sender learns that it has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Endpoint of the sender, proved by the link it came by.
    pub from: Endpoint,
    /// Topic of the message.
    pub topic: String,
    /// Payload of the message.
    pub data: Data,
}

impl ByteSize for Incoming {
    fn bytes(&self) -> usize {
        self.data.len() + 256
    }
}

/// A published message, on its way to all peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Identity of the message.
    pub id: MessageId,
    /// Number of neighbors that the message was pushed to at once; the others are told of it.
    pub pushed_to: usize,
}

/// A discovered peer, which has proved its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Listen address of the peer.
    pub endpoint: Endpoint,
    /// Public key of the peer.
    pub key: PublicKey,
}

impl ByteSize for PeerInfo {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}
