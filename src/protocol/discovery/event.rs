//! What discovery waits for, tells and counts, and its periods with their reasons.

use std::time::Duration;

use serde::Serialize;

use super::messages::{Contact, FindNode, NodeId};
use crate::model::{Endpoint, PublicKey};
use crate::protocol::LinkId;
use crate::protocol::histogram::Histogram;

/// Periods and limits of discovery.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long one question may take, the call included. Longer makes the dead dearer.
    pub answer_timeout: Duration,
    /// How long one look-up may take.
    pub lookup_timeout: Duration,
    /// Look-ups at a time; further ones wait.
    pub lookups_max: usize,
    /// Look-ups that wait at most; further ones are answered at once with what is known.
    pub waiting_max: usize,
    /// The pause from the first contact to the look-up of the own id.
    pub refresh_min: Duration,
    /// The longest pause between two look-ups that nobody asked for; the pause grows fourfold.
    pub refresh_max: Duration,
    /// Callers whose word about their endpoint is being checked at a time; others are not.
    pub checks_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(2),
            lookup_timeout: Duration::from_secs(30),
            lookups_max: 8,
            waiting_max: 64,
            refresh_min: Duration::from_secs(5),
            refresh_max: Duration::from_secs(600),
            checks_max: 8,
        }
    }
}

/// Deadlines of discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A question was not answered in time.
    Answer(u64),
    /// A look-up has taken long enough.
    Lookup(u64),
    /// Time to look around.
    Refresh,
}

/// Somebody whose key was proved at its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Peer {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its key.
    pub key: PublicKey,
    /// Its id.
    pub id: NodeId,
}

impl From<Contact> for Peer {
    fn from(contact: Contact) -> Self {
        Self { endpoint: contact.endpoint, key: contact.key, id: contact.id() }
    }
}

/// What discovery tells its node, or asks it to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Put this question there, by whatever link.
    Ask {
        /// Where.
        to: Endpoint,
        /// What.
        question: FindNode,
    },
    /// Find out afresh which key is there.
    Check {
        /// Where.
        endpoint: Endpoint,
    },
    /// An answer was refused.
    Malformed {
        /// Which link it came by.
        from: LinkId,
        /// What was wrong.
        reason: String,
    },
    /// A key was proved at an endpoint that was not known before.
    Learnt(Peer),
    /// The answer to [`super::Discovery::discover`].
    Discovered {
        /// The caller's number.
        token: u64,
        /// Everybody known now, by endpoint.
        peers: Vec<Peer>,
    },
    /// The answer to [`super::Discovery::look_up`].
    Resolved {
        /// The caller's number.
        token: u64,
        /// The id that was looked for.
        id: NodeId,
        /// Its holder, who has just proved its key there; `None` if nobody was found.
        peer: Option<Peer>,
        /// How many had to be asked, one after the other, to hear of it.
        hops: u32,
    },
}

/// What discovery counts.
#[derive(Clone, Debug, Serialize)]
pub struct Metrics {
    /// Peers known, each proved at its endpoint.
    pub entries: u64,
    /// Look-ups under way or waiting.
    pub lookups_open: u64,
    /// Look-ups begun.
    pub lookups: u64,
    /// Questions put to others.
    pub asked: u64,
    /// Questions of others answered.
    pub answered: u64,
    /// Questions that nobody answered in time.
    pub unanswered: u64,
    /// Answers that were refused, because nobody asked for them or they were too long.
    pub refused: u64,
    /// Contacts in answers that were ignored: this peer, seeds, places that cannot be called.
    pub ignored: u64,
    /// Contacts under whose endpoint another key answered.
    pub false_contacts: u64,
    /// Hops to what look-ups ended with.
    pub lookup_hops: Histogram,
}
