//! Events and metrics of the broadcast.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::machine::LinkId;
use crate::machine::histogram::{Histogram, LATENCY_MS, SMALL_COUNTS};
use crate::model::{Data, Endpoint, Incarnation, MessageId, PublicKey, WallTime};

/// A message that came for the first time, with its proof of origin checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Identity of the message.
    pub id: MessageId,
    /// Endpoint that published the message.
    pub origin: Endpoint,
    /// Incarnation of the origin's life.
    pub incarnation: Incarnation,
    /// Key that signed the message.
    pub key: PublicKey,
    /// Number that the origin gave to the message.
    pub number: u64,
    /// Topic of the message.
    pub topic: String,
    /// Time of publication, by the origin's clock.
    pub time: WallTime,
    /// Data of the message.
    pub data: Data,
    /// Number of links that the message has crossed.
    pub hops: u32,
    /// Time since publication, in milliseconds: exact within nodes, estimated on links.
    pub age_ms: u64,
}

/// Events of the broadcast for its node.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message came for the first time.
    Delivered {
        /// Message that came.
        message: Delivered,
        /// Neighbor that sent the message.
        from: Endpoint,
    },
    /// An own message was sent.
    Published {
        /// Token that the caller gave to the message.
        token: u64,
        /// Identity of the message.
        id: MessageId,
        /// Number of neighbors that the message was pushed to; it is announced to the others.
        to: usize,
    },
    /// An own message was not sent.
    PublishRefused {
        /// Token that the caller gave to the message.
        token: u64,
        /// Reason of the refusal, in words.
        reason: String,
    },
    /// More peers are known to have an own message.
    Receipts {
        /// Identity of the message.
        id: MessageId,
        /// Number of other peers known to have it.
        count: u32,
    },
    /// Messages did not come, and no neighbor sends them any more.
    Missed {
        /// Endpoint that published the messages.
        origin: Endpoint,
        /// Number of messages missed.
        count: u64,
    },
    /// A message was refused; its sender, a neighbor, is to blame.
    Malformed {
        /// Link of the neighbor.
        from: LinkId,
        /// Reason of the refusal, in words.
        reason: String,
    },
}

/// Reason why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Fields that contradict each other, or break a limit.
    Malformed,
    /// A signature, certificate or digest that does not hold.
    Forged,
    /// The origin is not proven yet; it was asked for.
    Unproven,
    /// The origin's life had ended before the message was made.
    Ended,
    /// The message is so old that its identity may be forgotten.
    Old,
    /// The neighbor wanted more at once than a link is given.
    Hasty,
    /// Announced, asked for everywhere, and never sent.
    Withheld,
    /// Announced beyond what is remembered.
    Crowded,
    /// Known by the numbers of its origin, and held by no neighbor any more.
    Missed,
}

impl Reason {
    /// All reasons, in a fixed order.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::Forged,
        Self::Unproven,
        Self::Ended,
        Self::Old,
        Self::Hasty,
        Self::Withheld,
        Self::Crowded,
        Self::Missed,
    ];

    /// The reason's name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forged => "forged",
            Self::Unproven => "unproven",
            Self::Ended => "ended",
            Self::Old => "old",
            Self::Hasty => "hasty",
            Self::Withheld => "withheld",
            Self::Crowded => "crowded",
            Self::Missed => "missed",
        }
    }
}

/// Counters since the start, and current sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BroadcastMetrics {
    /// Number of own messages published.
    pub messages_published: u64,
    /// Number of own messages that had to wait for slow nodes.
    pub messages_delayed: u64,
    /// Number of messages of others, each counted once.
    pub messages_delivered: u64,
    /// Number of copies sent to neighbors.
    pub messages_sent: u64,
    /// Number of copies that neighbors sent.
    pub messages_received: u64,
    /// Number of messages dropped, by reason; duplicates are counted apart.
    pub messages_dropped: BTreeMap<&'static str, u64>,
    /// Number of copies of messages that were here already.
    pub duplicates: u64,
    /// Number of messages that came because they were asked for.
    pub repaired: u64,
    /// Number of `GRAFT` sent.
    pub grafts: u64,
    /// Number of links that took another one's place in the tree because they are nearer
    /// to an origin.
    pub preferred: u64,
    /// Number of `PRUNE` sent.
    pub prunes: u64,
    /// Number of identities announced to neighbors.
    pub announcements: u64,
    /// Bytes of data received, parts included.
    pub bytes_in: u64,
    /// Bytes of data sent, parts included.
    pub bytes_out: u64,
    /// Number of identities remembered now.
    pub seen_messages: u64,
    /// Number of messages held for repair now.
    pub held_messages: u64,
    /// Bytes of the messages held for repair.
    pub held_bytes: u64,
    /// Number of messages announced here that have not come yet.
    pub wanted_messages: u64,
    /// Number of large messages that are being pulled.
    pub pulls: u64,
    /// Number of links that are pushed to.
    pub eager_links: u64,
    /// Number of links that are announced to.
    pub lazy_links: u64,
    /// Ages of messages at their delivery, in milliseconds, by their own account: time on links is
    /// estimated from round trips where these are measured, or else left out.
    pub delivery_latency_ms: Histogram,
    /// Numbers of links that messages had crossed at their delivery.
    pub delivery_hops: Histogram,
}

impl Default for BroadcastMetrics {
    fn default() -> Self {
        Self {
            messages_published: 0,
            messages_delayed: 0,
            messages_delivered: 0,
            messages_sent: 0,
            messages_received: 0,
            messages_dropped: Reason::ALL.iter().map(|reason| (reason.as_str(), 0)).collect(),
            duplicates: 0,
            repaired: 0,
            grafts: 0,
            preferred: 0,
            prunes: 0,
            announcements: 0,
            bytes_in: 0,
            bytes_out: 0,
            seen_messages: 0,
            held_messages: 0,
            held_bytes: 0,
            wanted_messages: 0,
            pulls: 0,
            eager_links: 0,
            lazy_links: 0,
            delivery_latency_ms: Histogram::new(LATENCY_MS),
            delivery_hops: Histogram::new(SMALL_COUNTS),
        }
    }
}

impl BroadcastMetrics {
    pub(super) fn drop_one(&mut self, reason: Reason) {
        self.drop_many(reason, 1);
    }

    pub(super) fn drop_many(&mut self, reason: Reason, count: u64) {
        let dropped = self.messages_dropped.entry(reason.as_str()).or_default();
        *dropped = dropped.saturating_add(count);
    }
}
