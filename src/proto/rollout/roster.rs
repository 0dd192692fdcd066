//! The roster of participants: explicit, agreed, and changed only by a transaction in which both
//! the old and the new participants vote (T7), so two transactions that both commit share a
//! participant.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ids::NodeId;
use super::state::Digest;
use crate::model::{PublicKey, SigningBytes};

/// Maximum number of participants: every commit costs a vote of each.
pub const ROSTER_MAX: usize = 64;

/// Maximum length of a host, in bytes: that of a name in the domain name system.
pub const HOST_BYTES_MAX: usize = 255;

/// A node that takes part in rollouts, with its place and key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Name of the node.
    pub node_id: NodeId,
    /// IP address or host name of the node.
    pub host: String,
    /// Control port of the node.
    pub port: u16,
    /// Key of the node, which never changes.
    pub key: PublicKey,
}

/// The participants, ascending by name; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RosterFields", into = "RosterFields")]
pub struct Roster(BTreeMap<NodeId, Participant>);

#[derive(Serialize, Deserialize)]
struct RosterFields {
    nodes: Vec<Participant>,
}

impl TryFrom<RosterFields> for Roster {
    type Error = &'static str;
    fn try_from(fields: RosterFields) -> Result<Self, Self::Error> {
        Self::new(fields.nodes)
    }
}

impl From<Roster> for RosterFields {
    fn from(roster: Roster) -> Self {
        Self { nodes: roster.0.into_values().collect() }
    }
}

impl Roster {
    /// Returns a roster of these participants, given in any order.
    ///
    /// # Errors
    /// If there is none, or more than [`ROSTER_MAX`], or a name, key or address occurs twice, or a
    /// host is empty or longer than [`HOST_BYTES_MAX`].
    pub fn new(nodes: Vec<Participant>) -> Result<Self, &'static str> {
        if nodes.is_empty() {
            return Err("a roster names at least one node");
        }
        if nodes.len() > ROSTER_MAX {
            return Err("a roster names at most 64 nodes");
        }
        let mut roster = BTreeMap::new();
        for node in nodes {
            if !(1..=HOST_BYTES_MAX).contains(&node.host.len()) {
                return Err("a host has 1 to 255 bytes");
            }
            let is_known = |other: &Participant| {
                other.key == node.key || (&other.host, other.port) == (&node.host, node.port)
            };
            if roster.values().any(is_known) {
                return Err("a roster names a key or an address twice");
            }
            if roster.insert(node.node_id.clone(), node).is_some() {
                return Err("a roster names a node twice");
            }
        }
        Ok(Self(roster))
    }

    /// The participants, ascending by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Participant> {
        self.0.values()
    }

    /// Number of participants, at least 1.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Always false: a roster names at least one node.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The participant of that name.
    pub fn get(&self, node: &NodeId) -> Option<&Participant> {
        self.0.get(node)
    }

    /// True if that node takes part.
    pub fn has(&self, node: &NodeId) -> bool {
        self.0.contains_key(node)
    }

    /// True if the nodes that remain without `lost` are at least two, and more than half of the
    /// roster, or half with the lowest name: any two such parts of a roster share a node. If a
    /// single remaining node lost its disk, no other could tell it what it has decided.
    pub fn outlives(&self, lost: &BTreeSet<NodeId>) -> bool {
        let rest = self.0.keys().filter(|it| !lost.contains(*it)).count();
        let has_lowest = self.0.keys().next().is_some_and(|it| !lost.contains(it));
        rest >= 2 && (rest * 2 > self.0.len() || rest * 2 == self.0.len() && has_lowest)
    }

    /// Digest of the participants.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(self.sign_into(SigningBytes::new("folkmoot/rollout/roster/1")).sha256())
    }

    /// Adds the content to a statement that is signed.
    pub fn sign_into(&self, bytes: SigningBytes) -> SigningBytes {
        self.0.values().fold(bytes.number(self.0.len() as u64), |bytes, it| {
            bytes.text(it.node_id.as_str()).text(&it.host).number(it.port.into()).key(&it.key)
        })
    }
}
