//! What the broadcast tells its node, and what it counts.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{Data, Endpoint, Incarnation, MessageId, PublicKey, WallTime};
use crate::protocol::LinkId;
use crate::protocol::histogram::{Histogram, LATENCY_MS, SMALL_COUNTS};

/// A message that came for the first time, with its proof of origin checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its identity.
    pub id: MessageId,
    /// Who made it.
    pub origin: Endpoint,
    /// In which of its lives.
    pub incarnation: Incarnation,
    /// The key that signed it.
    pub key: PublicKey,
    /// The origin's number for it.
    pub number: u64,
    /// What it is about.
    pub topic: String,
    /// When it was made, by the origin's clock.
    pub time: WallTime,
    /// Its data.
    pub data: Data,
    /// Links it has crossed.
    pub hops: u32,
    /// How long it was under way, in milliseconds: exact within nodes, estimated on links.
    pub age_ms: u64,
}

/// What the broadcast tells its node.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message came for the first time.
    Delivered {
        /// The message.
        message: Delivered,
        /// The neighbor it came from.
        from: Endpoint,
    },
    /// An own message is on its way.
    Published {
        /// The caller's number for it.
        token: u64,
        /// Its identity.
        id: MessageId,
        /// How many neighbors it was pushed to; the others are told of it.
        to: usize,
    },
    /// An own message was not sent.
    PublishRefused {
        /// The caller's number for it.
        token: u64,
        /// Why not.
        reason: String,
    },
    /// So many other peers are known to have an own message.
    Receipts {
        /// Which message.
        id: MessageId,
        /// How many.
        count: u32,
    },
    /// Messages did not come, and nobody sends them any more.
    Missed {
        /// The endpoint that made them.
        origin: Endpoint,
        /// How many.
        count: u64,
    },
    /// Something was refused; the neighbor is to blame.
    Malformed {
        /// The neighbor's link.
        from: LinkId,
        /// What was wrong.
        reason: String,
    },
}

/// Why something was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Fields that contradict each other, or break a limit.
    Malformed,
    /// A signature, certificate or digest that does not hold.
    Forged,
    /// The origin is not proven yet; it was asked for.
    Unproven,
    /// The origin's life had ended when this was made.
    Ended,
    /// So old that its identity may be forgotten.
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
    /// All of them.
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

/// What was counted so far, and what is held now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BroadcastMetrics {
    /// Own messages.
    pub messages_published: u64,
    /// Own messages that had to wait for nodes that do not keep up.
    pub messages_delayed: u64,
    /// Messages of others, each once.
    pub messages_delivered: u64,
    /// Copies sent to neighbors.
    pub messages_sent: u64,
    /// Copies that neighbors sent.
    pub messages_received: u64,
    /// What was dropped, by reason; duplicates are counted apart.
    pub messages_dropped: BTreeMap<&'static str, u64>,
    /// Copies of what was there already.
    pub duplicates: u64,
    /// Messages that came because they were asked for.
    pub repaired: u64,
    /// `GRAFT` sent.
    pub grafts: u64,
    /// Links that took another one's place in the tree for being nearer to an origin.
    pub preferred: u64,
    /// `PRUNE` sent.
    pub prunes: u64,
    /// Identities announced to neighbors.
    pub announcements: u64,
    /// Bytes of data that came, parts included.
    pub bytes_in: u64,
    /// Bytes of data that went, parts included.
    pub bytes_out: u64,
    /// Identities remembered.
    pub seen_messages: u64,
    /// Messages held for repair.
    pub held_messages: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// Messages announced here and not there yet.
    pub wanted_messages: u64,
    /// Large messages being pulled.
    pub pulls: u64,
    /// Links that are pushed to.
    pub eager_links: u64,
    /// Links that are announced to.
    pub lazy_links: u64,
    /// How old messages were when they were delivered, in milliseconds, by their own account:
    /// time on links is estimated from round trips where these are measured, or else left out.
    pub delivery_latency_ms: Histogram,
    /// Links that messages had crossed when they were delivered.
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
        *self.messages_dropped.entry(reason.as_str()).or_default() += count;
    }
}
