//! What peers ask each other to find somebody, and the names used in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, PublicKey, SigningBytes};

/// Contacts in one answer at most; the size of a bucket.
pub const CONTACTS_MAX: usize = 16;

/// A peer's place in the space of ids: the hash of its key, so that nobody chooses it freely.
/// 64 hexadecimal digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(#[serde(with = "hex::serde")] pub [u8; 32]);

impl NodeId {
    /// The id of the holder of `key`.
    pub fn of(key: &PublicKey) -> Self {
        Self(SigningBytes::new("folkmoot/node-id/1").key(key).sha256())
    }

    /// How far it is to `other`: exclusive or, read as a number. Symmetric, and for each id and
    /// distance there is one other.
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

/// How far two ids are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Distance([u8; 32]);

impl Distance {
    /// How many leading bits are alike; 256 of an id and itself.
    pub fn common_bits(&self) -> u16 {
        let zeros = self.0.iter().take_while(|byte| **byte == 0).count();
        let rest = self.0.get(zeros).map_or(0, |byte| byte.leading_zeros());
        u16::try_from(zeros * 8).unwrap_or(256) + u16::try_from(rest).unwrap_or(0)
    }
}

/// Somebody, and where: a claim until that key was proved at that endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contact {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its key.
    pub key: PublicKey,
}

impl Contact {
    /// Its place in the space of ids.
    pub fn id(&self) -> NodeId {
        NodeId::of(&self.key)
    }
}

/// Who of those you know is closest to this id?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindNode {
    /// The asker's number for the question; comes back in the answer.
    pub number: u64,
    /// The id that is looked for.
    pub target: NodeId,
}

/// These, whose keys I have seen proved there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The number of the question.
    pub number: u64,
    /// The closest, closest first; at most [`CONTACTS_MAX`].
    pub contacts: Vec<Contact>,
}
