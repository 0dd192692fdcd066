//! What an applicant waits for, remembers and tells.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, Incarnation, PublicKey, SeedId};
use crate::protocol::LinkId;
use crate::protocol::membership::authority::MemberLine;
use crate::protocol::membership::certificate::{Admission, Removal, Subject};
use crate::protocol::session::SeedKey;

/// Periods of an applicant.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long to wait for the seeds' decision; above their own limit, so that their reason
    /// arrives first.
    pub decision_timeout: Duration,
    /// The first pause after a failed attempt; doubles each time.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// How long to wait before seeds that went away are called again.
    pub reconnect: Duration,
    /// How often the member lists are fetched anew.
    pub refresh: Duration,
    /// How long a life goes on once a seed's yes to its removal is known. Long enough that a lying
    /// seed gains nothing; short enough that such votes are worth nothing when they are collected.
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
    /// The seeds have not decided.
    Decision,
    /// Time for the next attempt.
    Retry,
    /// Time to call seeds that are missing.
    Reconnect,
    /// Time to fetch the member lists again.
    Refresh,
    /// Time for a new life, because a yes to the removal of this one is about.
    Renew,
}

/// What a peer must not forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The highest incarnation that was admitted.
    Incarnation {
        /// That incarnation.
        incarnation: Incarnation,
    },
    /// A seed's key, proved at its configured address or named by a quorum.
    SeedKey(SeedKey),
    /// The fleet without seeds that it belongs to.
    Fleet {
        /// The name.
        name: String,
    },
    /// Members of that fleet that were neighbors last, to be called after a restart.
    Known {
        /// Where they listen.
        members: Vec<Endpoint>,
    },
}

/// What an applicant tells its surroundings, or asks its node to do.
#[derive(Debug)]
pub enum Event {
    /// The node must call this seed.
    Call {
        /// Where it listens.
        to: Endpoint,
    },
    /// The node must hang up, for a new life or a needless link.
    Hangup {
        /// Which link.
        link: LinkId,
    },
    /// A new attempt begins under this incarnation; all links speak for it from now on.
    Attempt {
        /// The life that will ask.
        incarnation: Incarnation,
        /// The attempt's number since the last success, from 1.
        number: u32,
    },
    /// The request is out.
    Asked {
        /// The seeds that were asked.
        seeds: Vec<SeedId>,
        /// How many yes votes it takes.
        needed: usize,
    },
    /// A seed's answer became known.
    Voted {
        /// Which seed.
        seed: SeedId,
        /// How it voted.
        yes: bool,
        /// Why.
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
        /// Why, with what can be done.
        reason: String,
        /// When the next attempt follows.
        retry_in: Duration,
    },
    /// This peer's own life was ended while it lives (M8).
    Evicted {
        /// The proof.
        removal: Box<Removal>,
        /// Which life of this peer it ended.
        life: Subject,
    },
    /// A seed has voted to remove this peer, in vain; it begins a new life in a while.
    Renews {
        /// Which seed has.
        seed: SeedId,
        /// In what while.
        after: Duration,
    },
    /// A whole member list came from a seed.
    Members {
        /// From which.
        seed: SeedId,
        /// The members in it.
        members: Vec<MemberLine>,
    },
    /// A seed's key became known.
    SeedKeyLearnt(SeedKey),
    /// A seed shows another key than the known one.
    SeedKeyContradicted {
        /// Which seed it claims to be.
        seed: SeedId,
        /// The known key.
        known: PublicKey,
        /// The shown key.
        shown: PublicKey,
    },
    /// A seed's link came up or went down.
    SeedLink {
        /// Which.
        seed: SeedId,
        /// Whether it is up.
        up: bool,
        /// Seeds linked now.
        connected: usize,
    },
}
