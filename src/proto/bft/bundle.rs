//! Bundles: messages of one author, signed once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::merkle;
use super::number::{ContentDigest, OrderId};
use crate::model::{KeyPair, PublicKey, Signature, SigningBytes};
use crate::proto::chat::entry::{ChatText, MemberId, MsgId, Origin};

/// Greatest number of messages in a bundle.
pub const BUNDLE_ITEMS_MAX: usize = 1_024;

/// Greatest cost of a bundle, as [`Bundle::cost`] counts.
pub const BUNDLE_COST_MAX: usize = 131_072;

/// One message of a bundle; its number is the bundle's first plus its index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleItem {
    /// Label under which the message is shown.
    #[serde(rename = "room_id")]
    pub room: Arc<str>,
    /// Text of the message.
    pub payload: Arc<str>,
}

impl BundleItem {
    /// Upper limit of the message's length as JSON, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        let text = |it: &str| it.bytes().map(byte_cost).sum::<usize>();
        ITEM_COST + text(&self.room) + text(&self.payload)
    }

    /// Hash of the item as a leaf of its bundle's tree.
    #[must_use]
    pub fn leaf(&self) -> ContentDigest {
        let bytes = SigningBytes::new("folkmoot/bft/item/1").text(&self.room).text(&self.payload);
        merkle::leaf(bytes.as_bytes())
    }
}

/// Length of a bundle without its messages, and of a message without its texts.
const BUNDLE_COST: usize = 320;
const ITEM_COST: usize = 32;

/// Upper limit of the length of one byte of text in JSON.
const fn byte_cost(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' => 2,
        ..=0x1f | 0x7f => 6,
        _ => 1,
    }
}

/// Payload of `BUNDLE`: consecutive messages of one numbering, with its author's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Member that wrote the messages.
    pub author: MemberId,
    /// Client number of the numbering.
    pub client: u64,
    /// Number of the first message, from 1.
    pub first: u64,
    /// The messages, 1 to [`BUNDLE_ITEMS_MAX`].
    pub items: Vec<BundleItem>,
    /// Signature of the author over group, author, client, first number, count and tree root.
    pub signature: Signature,
}

/// The signed part of a bundle; stands for the whole where the messages are not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleStatement {
    /// Member that wrote the messages.
    pub author: MemberId,
    /// Client number of the numbering.
    pub client: u64,
    /// Number of the first message, from 1.
    pub first: u64,
    /// Number of messages.
    pub count: u64,
    /// Root of the tree over the messages.
    pub root: ContentDigest,
}

impl BundleStatement {
    /// Bytes that the author signs.
    #[must_use]
    pub fn signing_bytes(&self, group: &OrderId) -> SigningBytes {
        SigningBytes::new("folkmoot/bft/bundle/1")
            .bytes(&group.0)
            .number(self.author.0.into())
            .number(self.client)
            .number(self.first)
            .number(self.count)
            .bytes(&self.root.0)
    }

    /// Digest by which headers name the bundle.
    #[must_use]
    pub fn digest(&self, group: &OrderId) -> ContentDigest {
        ContentDigest(self.signing_bytes(group).sha256())
    }
}

impl Bundle {
    /// Signs these messages, which begin with number `first` of the numbering `origin`.
    #[must_use]
    pub fn sign(
        group: &OrderId,
        origin: Origin,
        first: u64,
        items: Vec<BundleItem>,
        keys: &KeyPair,
    ) -> Self {
        let Origin { member: author, client } = origin;
        let unsigned = Signature::from_bytes([0; 64]);
        let mut bundle = Self { author, client, first, items, signature: unsigned };
        bundle.signature = keys.sign(&bundle.statement().signing_bytes(group));
        bundle
    }

    /// Numbering of the messages.
    pub const fn origin(&self) -> Origin {
        Origin { member: self.author, client: self.client }
    }

    /// Number of messages.
    pub const fn count(&self) -> u64 {
        self.items.len() as u64
    }

    /// Number of the last message; saturates.
    pub const fn last(&self) -> u64 {
        self.first.saturating_add(self.count().saturating_sub(1))
    }

    /// Bytes of text in the bundle, of labels and messages.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(|it| it.room.len() + it.payload.len()).sum()
    }

    /// Upper limit of the bundle's length as JSON, in bytes; the same for all members.
    #[must_use]
    pub fn cost(&self) -> usize {
        BUNDLE_COST + self.items.iter().map(BundleItem::cost).sum::<usize>()
    }

    /// Hashes of the messages as leaves of the tree.
    #[must_use]
    pub fn leaves(&self) -> Vec<ContentDigest> {
        self.items.iter().map(BundleItem::leaf).collect()
    }

    /// The signed part.
    #[must_use]
    pub fn statement(&self) -> BundleStatement {
        let root = merkle::root(&self.leaves());
        let Self { author, client, first, .. } = *self;
        BundleStatement { author, client, first, count: self.count(), root }
    }

    /// True if the bundle has messages and numbers as it must, and `statement` is its signed part
    /// with a signature by `key`.
    #[must_use]
    pub fn is_valid(&self, group: &OrderId, statement: &BundleStatement, key: &PublicKey) -> bool {
        let count = self.items.len();
        (1..=BUNDLE_ITEMS_MAX).contains(&count)
            && self.first > 0
            && self.first.checked_add(self.count()).is_some()
            && key.verifies(&statement.signing_bytes(group), &self.signature)
    }

    /// The message of this index as the chat's readers know it.
    #[must_use]
    pub fn message(&self, index: usize) -> Option<ChatText> {
        let item = self.items.get(index)?;
        let number = self.first.saturating_add(index as u64);
        let msg_id = MsgId { origin: self.origin(), number };
        Some(ChatText {
            msg_id,
            room_id: Arc::clone(&item.room),
            payload: Arc::clone(&item.payload),
        })
    }
}
