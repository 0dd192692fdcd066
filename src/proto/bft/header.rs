//! Headers of slots, on which the members vote (rules B3, B6, B14, B15).

use serde::{Deserialize, Serialize};

use super::number::{ContentDigest, EpochNo, OrderId, SlotNo};
use crate::model::{SigningBytes, WallTime};
use crate::proto::chat::entry::{ChainHash, SeqNo};

/// Greatest number of bundles in a slot.
pub const SLOT_BUNDLES_MAX: usize = 128;

/// Greatest cost of a slot's bundles, as [`Bundle::cost`](super::Bundle::cost) counts: a slot with
/// the headers behind it fits a line.
pub const SLOT_COST_MAX: usize = 163_840;

/// A bundle as a header names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRef {
    /// Digest of the bundle's signed part.
    pub digest: ContentDigest,
    /// Number of its messages.
    pub count: u64,
    /// Number of these, from the first, that have a place already (B15).
    pub skip: u64,
}

/// Subject of a vote: the content of one slot by its digests, and its place in the chain. The view
/// is not in it, so a later leader proposes the same header again (B3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotHeader {
    /// Epoch of the slot.
    pub epoch: EpochNo,
    /// Number of the slot.
    pub slot: SlotNo,
    /// Digest of the header before it; that of the group's identity for the first.
    pub parent: ContentDigest,
    /// Time by the first proposer's clock; for people, no rule reads it (B23).
    pub time: WallTime,
    /// Number of the last message before the slot.
    pub place: SeqNo,
    /// Running hash over all messages before the slot, as in the chat (C11).
    pub hash: ChainHash,
    /// Bundles in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<BundleRef>,
    /// Digest of the change that the slot holds instead of bundles, if it does (B19).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ContentDigest>,
    /// Digest of the committee after that change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committee: Option<ContentDigest>,
    /// Digest of committee and authors' marks before the slot; in slots divisible by 1,024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ContentDigest>,
}

impl SlotHeader {
    /// Digest of the header, which is what members sign.
    #[must_use]
    pub fn digest(&self, group: &OrderId) -> ContentDigest {
        let bytes = SigningBytes::new("folkmoot/bft/slot/1")
            .bytes(&group.0)
            .number(self.epoch.0)
            .number(self.slot.0)
            .bytes(&self.parent.0)
            .wall(self.time)
            .number(self.place.0)
            .bytes(&self.hash.0)
            .number(self.bundles.len() as u64);
        let bytes = self
            .bundles
            .iter()
            .fold(bytes, |bytes, it| bytes.bytes(&it.digest.0).number(it.count).number(it.skip));
        let optional = |bytes: SigningBytes, it: &Option<ContentDigest>| {
            bytes.bytes(it.as_ref().map_or(&[], |it| it.0.as_slice()))
        };
        let bytes = optional(bytes, &self.change);
        let bytes = optional(bytes, &self.committee);
        ContentDigest(optional(bytes, &self.state).sha256())
    }

    /// Number of messages that the slot gives places to.
    #[must_use]
    pub fn messages(&self) -> u64 {
        let new = self.bundles.iter().map(|it| it.count.saturating_sub(it.skip));
        new.fold(0, u64::saturating_add)
    }
}
