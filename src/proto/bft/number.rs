//! Numbers and digests by which a Byzantine order names its parts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Time between two changes of the membership, from 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EpochNo(pub u64);

/// Reign of one leader within an epoch, from 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ViewNo(pub u64);

/// Place in the chain of proposals, from 1. 0 is before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SlotNo(pub u64);

impl EpochNo {
    /// The epoch after it. A message may say anything, so it saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl ViewNo {
    /// The view after it. A message may say anything, so it saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl SlotNo {
    /// The slot after it. A message may say anything, so it saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The slot that lies so many slots ahead; saturates.
    #[must_use]
    pub const fn ahead(self, slots: u64) -> Self {
        Self(self.0.saturating_add(slots))
    }
}

/// SHA-256 of a header, a bundle, a change, a committee or a state, each over its own domain; 64
/// hexadecimal digits in text.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ContentDigest(#[serde(with = "hex::serde")] pub [u8; 32]);

/// Identity of a group: SHA-256 of its first committee and a salt. Whoever knows it can check every
/// proof of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(#[serde(with = "hex::serde")] pub [u8; 32]);

impl OrderId {
    /// The identity written as 64 hexadecimal digits; `None` if `text` is not that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
