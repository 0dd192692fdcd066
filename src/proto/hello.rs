//! Messages of the handshake, and the statements that each side signs in them.

use serde::{Deserialize, Serialize};

use crate::model::statement::{Admission, MemberInstance};
use crate::model::{
    Binding, Endpoint, Incarnation, Nonce, PublicKey, SeedId, Signature, SigningBytes,
};

/// The version of the native dialect; both ends must name the same.
pub const VERSION: u16 = 1;

/// Greatest length of a fleet's name, in bytes.
pub const FLEET_NAME_MAX: usize = 64;

/// Number of votes in a node info's certificate, and of seeds whose keys it may name: as many seeds
/// as can be configured. More would only be kept in memory until the node info is judged.
const CARD_SEEDS_MAX: usize = 64;

/// Data by which a node introduces itself in the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Number of the seed, if the node is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<SeedId>,
    /// Address on which the node listens.
    pub endpoint: Endpoint,
    /// Incarnation of the node's life.
    pub incarnation: Incarnation,
    /// Public key of the node.
    pub key: PublicKey,
    /// Number of the node's neighbors: the weight for preferential attachment (O2).
    pub degree: u32,
    /// Endpoints of the neighbors.
    #[serde(default)]
    pub neighbors: Vec<Endpoint>,
    /// Certificate of the node's admission, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Admission>,
    /// Seed keys that the node knows, if it is a seed: hints, never trusted from one seed alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seed_keys: Vec<SeedKey>,
    /// Digests of the addresses in the node's list of seeds: each the first 32 bits of a SHA-256.
    /// The order of the list is not part of it. Empty in a fleet without seeds and in probes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<u32>,
    /// Name of the node's fleet, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
}

/// A seed's key as another node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedKey {
    /// Number of the seed in the list of the node that states the key.
    pub seed: SeedId,
    /// Public key of the seed.
    pub key: PublicKey,
    /// Address on which the seed listens. Lists may have another order, so this goes before the
    /// number; earlier programs left it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Endpoint>,
}

impl NodeInfo {
    /// Greatest number of neighbors that a node info may name: as many as a member may have.
    pub const NEIGHBORS_MAX: usize = 256;

    /// Creates the node info of a peer in this life, without neighbors, certificate and lists.
    pub const fn new(life: MemberInstance) -> Self {
        Self {
            seed: None,
            endpoint: life.endpoint,
            incarnation: life.incarnation,
            key: life.key,
            degree: 0,
            neighbors: Vec::new(),
            certificate: None,
            seed_keys: Vec::new(),
            seeds: Vec::new(),
            fleet: None,
        }
    }

    /// The life for which the node info speaks.
    pub const fn subject(&self) -> MemberInstance {
        MemberInstance { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// Returns the limit that this node info exceeds, in words.
    pub fn excess(&self) -> Option<String> {
        let votes = self.certificate.as_ref().map_or(0, |proof| proof.votes.len());
        if self.neighbors.len() > Self::NEIGHBORS_MAX {
            Some(format!("a card names at most {} neighbors", Self::NEIGHBORS_MAX))
        } else if [self.seeds.len(), self.seed_keys.len(), votes]
            .iter()
            .any(|it| *it > CARD_SEEDS_MAX)
        {
            Some(format!("a card has digests, keys and votes of at most {CARD_SEEDS_MAX} seeds"))
        } else if self.fleet.as_ref().is_some_and(|name| name.len() > FLEET_NAME_MAX) {
            Some(format!("a fleet's name has at most {FLEET_NAME_MAX} bytes"))
        } else {
            None
        }
    }

    /// The statement by which the node info's owner answers `nonce`, put by the holder of
    /// `challenger`. The caller and the called node sign different domains, so that an answer
    /// cannot be reflected; both sign the encrypted connection, if it is one, so that an answer
    /// cannot be carried to another.
    pub fn proof_bytes(
        &self,
        domain: &str,
        nonce: &Nonce,
        challenger: &PublicKey,
        binding: Option<Binding>,
    ) -> SigningBytes {
        let statement = SigningBytes::new(domain)
            .number(u64::from(VERSION))
            .number(self.seed.map_or(0, |seed| u64::from(seed.0)))
            .endpoint(self.endpoint)
            .incarnation(self.incarnation)
            .key(&self.key)
            .nonce(nonce)
            .key(challenger);
        match binding {
            None => statement,
            Some(binding) => statement.bytes(&binding.0),
        }
    }
}

/// Domain of the called node's signature.
pub const CALLED: &str = "folkmoot/hello-ack/1";
/// Domain of the caller's signature.
pub const CALLER: &str = "folkmoot/hello-proof/1";

/// Purpose of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// A lasting link.
    Link,
    /// A link for one question and its answer, closed by the caller, or after a short while.
    Errand,
    /// Only the proof that the called node is there.
    Probe,
    /// A link for direct messages, kept while they come; its ends do not become neighbors by it.
    Direct,
}

/// The first line of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the dialect, [`VERSION`].
    pub version: u16,
    /// Purpose of the call.
    pub intent: Intent,
    /// Challenge for the called node.
    pub nonce: Nonce,
    /// Node info of the caller.
    #[serde(flatten)]
    pub info: NodeInfo,
}

/// The called node's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// Version of the dialect, [`VERSION`].
    pub version: u16,
    /// Challenge for the caller.
    pub nonce: Nonce,
    /// Signed answer to the caller's challenge.
    pub proof: Signature,
    /// Node info of the called node.
    #[serde(flatten)]
    pub info: NodeInfo,
}

/// The caller's answer; after it the link is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloProof {
    /// Signed answer to the called node's challenge.
    pub proof: Signature,
}

/// The last message on an open link that its sender closes on purpose. Its receiver has no reason
/// to suspect the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Reason in words, for people.
    pub reason: String,
}
