//! Messages between peers to find the holder of an id, and the ids and distances in them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, PublicKey, SigningBytes};

/// Greatest number of contacts in one answer; the size of a bucket.
pub const CONTACTS_MAX: usize = 16;

/// A peer's place in the space of ids: the hash of its key, so that it cannot be chosen freely. 64
/// hexadecimal digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(#[serde(with = "hex::serde")] pub [u8; 32]);

impl NodeId {
    /// The id of the holder of `key`.
    pub fn of(key: &PublicKey) -> Self {
        Self(SigningBytes::new("folkmoot/node-id/1").key(key).sha256())
    }

    /// Distance to `other`: exclusive or, read as a number. Symmetric, and for each id and distance
    /// there is one other.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Distance {
        let mut bits = self.0;
        for (bit, other) in bits.iter_mut().zip(other.0) {
            *bit ^= other;
        }
        Distance(bits)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..4]))
    }
}

/// Distance between two ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Distance([u8; 32]);

impl Distance {
    /// Number of leading bits that are alike; 256 of an id and itself.
    pub fn common_bits(&self) -> u16 {
        let zeros = self.0.iter().take_while(|byte| **byte == 0).count();
        let rest = self.0.get(zeros).map_or(0, |byte| byte.leading_zeros());
        u16::try_from(zeros * 8).unwrap_or(256) + u16::try_from(rest).unwrap_or(0)
    }
}

/// A peer and its endpoint: a claim until that key was proved at that endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contact {
    /// Address on which the peer listens.
    pub endpoint: Endpoint,
    /// Public key of the peer.
    pub key: PublicKey,
}

impl Contact {
    /// The peer's place in the space of ids.
    pub fn id(&self) -> NodeId {
        NodeId::of(&self.key)
    }
}

/// A question for the known contacts that are closest to an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindNode {
    /// Number that the asker gave to the question; repeated in the answer.
    pub number: u64,
    /// Id that is looked for.
    pub target: NodeId,
}

/// Answer: contacts whose keys the sender has seen proved at their endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Number of the question.
    pub number: u64,
    /// The closest contacts, closest first; at most [`CONTACTS_MAX`].
    pub contacts: Vec<Contact>,
}
