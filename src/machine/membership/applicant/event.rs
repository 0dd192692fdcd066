//! Configuration, timers, records and events of an applicant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::LinkId;
use crate::model::statement::{Admission, MemberInstance, Removal};
use crate::model::{Endpoint, Incarnation, PublicKey, SeedId};
use crate::proto::hello::SeedKey;
use crate::proto::membership::MemberLine;

/// Periods of an applicant.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time-out of a registration attempt; above the seeds' own limit, so that their
    /// reason arrives first.
    pub decision_timeout: Duration,
    /// First pause after a failed attempt; doubles with each further failure.
    pub backoff_min: Duration,
    /// Longest pause between attempts.
    pub backoff_max: Duration,
    /// Pause before seeds whose links ended are called again.
    pub reconnect: Duration,
    /// Interval between two fetches of the member lists.
    pub refresh: Duration,
    /// Delay before a new life begins once a seed's yes to the removal of this one is known. Long
    /// enough that a lying seed gains nothing; short enough that such votes are worth nothing when
    /// they are collected.
    pub renew: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            decision_timeout: Duration::from_secs(8),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(15),
            reconnect: Duration::from_secs(1),
            refresh: Duration::from_secs(60),
            renew: Duration::from_secs(600),
        }
    }
}

/// Deadlines of an applicant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The seeds have not decided in time.
    Decision,
    /// The pause ended; the next attempt begins.
    Retry,
    /// Missing seeds are called again.
    Reconnect,
    /// The member lists are fetched again.
    Refresh,
    /// A new life begins, because a yes to the removal of this one exists.
    Renew,
}

/// Records that a peer keeps on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The highest incarnation that was admitted.
    Incarnation {
        /// Incarnation that was admitted.
        incarnation: Incarnation,
    },
    /// A seed's key, proved at its configured address or named by a quorum.
    SeedKey(SeedKey),
    /// The fleet without seeds that this peer belongs to.
    Fleet {
        /// Name of the fleet.
        name: String,
    },
    /// Members of that fleet that were the last neighbors, to be called after a restart.
    Known {
        /// Addresses on which these members listen.
        members: Vec<Endpoint>,
    },
}

/// Events of an applicant: news for its surroundings, and requests to its node.
#[derive(Debug)]
pub enum Event {
    /// The node must call this seed.
    Call {
        /// Address of the seed.
        to: Endpoint,
    },
    /// The node must hang up, because a new life begins or the link is of no use.
    Hangup {
        /// Link to close.
        link: LinkId,
    },
    /// A new attempt begins under this incarnation; all links speak for it from now on.
    Attempt {
        /// Incarnation of the life that asks.
        incarnation: Incarnation,
        /// The attempt's number since the last success, from 1.
        number: u32,
    },
    /// The request was sent.
    Asked {
        /// The seeds that were asked.
        seeds: Vec<SeedId>,
        /// Number of yes votes needed.
        needed: usize,
    },
    /// A seed's answer became known.
    Voted {
        /// Seed that answered.
        seed: SeedId,
        /// True if the seed voted yes.
        yes: bool,
        /// Reason of the seed, in words.
        reason: String,
        /// Yes votes so far.
        count: usize,
        /// Yes votes needed.
        needed: usize,
    },
    /// This peer is a member.
    Admitted(Box<Admission>),
    /// An attempt failed.
    Refused {
        /// Reason of the failure, with a remedy.
        reason: String,
        /// Pause before the next attempt.
        retry_in: Duration,
    },
    /// A removal ended this peer's life while the peer lives (M8).
    Evicted {
        /// Certificate of the removal.
        removal: Box<Removal>,
        /// Life of this peer that was ended.
        life: MemberInstance,
    },
    /// A seed has voted to remove this peer, in vain; the peer begins a new life after a delay.
    Renews {
        /// Seed that voted for the removal.
        seed: SeedId,
        /// Delay before the new life.
        after: Duration,
    },
    /// A complete member list came from a seed.
    Members {
        /// Seed that sent the list.
        seed: SeedId,
        /// The members in it.
        members: Vec<MemberLine>,
    },
    /// A seed's key became known.
    SeedKeyLearnt(SeedKey),
    /// A seed shows another key than the known one.
    SeedKeyContradicted {
        /// Number that the seed claims.
        seed: SeedId,
        /// The known key.
        known: PublicKey,
        /// The shown key.
        shown: PublicKey,
    },
    /// A seed's link came up or went down.
    SeedLink {
        /// Seed at the other end.
        seed: SeedId,
        /// True if the link is up.
        up: bool,
        /// Number of seeds linked now.
        connected: usize,
    },
}
