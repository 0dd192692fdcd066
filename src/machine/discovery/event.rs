//! Configuration, timers, events and metrics of discovery.

use std::time::Duration;

use serde::Serialize;

use crate::machine::LinkId;
use crate::machine::histogram::Histogram;
use crate::model::{Endpoint, PublicKey};
use crate::proto::discovery::{Contact, FindNode, NodeId};

/// Periods and limits of discovery.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time-out of one question, the call included. With a longer one dead peers cost more.
    pub answer_timeout: Duration,
    /// Time-out of one look-up.
    pub lookup_timeout: Duration,
    /// Number of look-ups at a time; further ones wait.
    pub lookups_max: usize,
    /// Greatest number of look-ups that wait; further ones are answered at once with what is known.
    pub waiting_max: usize,
    /// Pause from the first contact to the look-up of the own id; all pauses vary by a quarter.
    pub refresh_min: Duration,
    /// Longest pause between two refreshes; the pause grows fourfold each time.
    pub refresh_max: Duration,
    /// Number of callers whose claimed endpoints are checked at a time; others are not.
    pub checks_max: usize,
}

impl Config {
    /// The configuration of a peer whose neighbors come from seeds: it needs its table only to find
    /// others by their ids, so it fills it slowly. A look-up is some twenty calls, and in a fleet
    /// that comes together they would compete with the admissions.
    pub fn with_seeds(self) -> Self {
        Self { refresh_min: self.refresh_max, ..self }
    }
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
    /// The time-out of a question is over.
    Answer(u64),
    /// The time-out of a look-up is over.
    Lookup(u64),
    /// The next refresh begins.
    Refresh,
}

/// A peer whose key was proved at its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DiscoveredPeer {
    /// Address on which the peer listens.
    pub endpoint: Endpoint,
    /// Public key of the peer.
    pub key: PublicKey,
    /// Id of the peer.
    pub id: NodeId,
}

impl From<Contact> for DiscoveredPeer {
    fn from(contact: Contact) -> Self {
        Self { endpoint: contact.endpoint, key: contact.key, id: contact.id() }
    }
}

/// Events of discovery: news for the node, and requests to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node must put this question to an endpoint, by any link.
    Ask {
        /// Endpoint to ask.
        to: Endpoint,
        /// Question to put.
        question: FindNode,
    },
    /// The node must find out afresh which key answers at an endpoint.
    Check {
        /// Endpoint to check.
        endpoint: Endpoint,
    },
    /// An answer was refused.
    Malformed {
        /// Link by which the answer came.
        from: LinkId,
        /// Reason of the refusal, in words.
        reason: String,
    },
    /// A key was proved at an endpoint that was not known before.
    Learnt(DiscoveredPeer),
    /// The answer to [`super::Discovery::discover`].
    Discovered {
        /// Token that the caller gave to the request.
        token: u64,
        /// All peers known now, by endpoint.
        peers: Vec<DiscoveredPeer>,
    },
    /// The answer to [`super::Discovery::look_up`].
    Resolved {
        /// Token that the caller gave to the request.
        token: u64,
        /// The id that was looked for.
        id: NodeId,
        /// Holder of the id, which has just proved its key; `None` if it was not found.
        peer: Option<DiscoveredPeer>,
        /// Number of peers on the path of questions to the holder.
        hops: u32,
    },
}

/// Counters and present sizes of discovery.
#[derive(Clone, Debug, Serialize)]
pub struct DiscoveryMetrics {
    /// Number of peers known, each proved at its endpoint.
    pub entries: u64,
    /// Number of look-ups under way or waiting.
    pub lookups_open: u64,
    /// Number of look-ups begun.
    pub lookups: u64,
    /// Number of questions put to others.
    pub asked: u64,
    /// Number of others' questions answered.
    pub answered: u64,
    /// Number of questions that were not answered in time.
    pub unanswered: u64,
    /// Number of answers that were refused, as unasked for or too long.
    pub refused: u64,
    /// Number of contacts in answers that were ignored: this peer, seeds, endpoints that
    /// cannot be called.
    pub ignored: u64,
    /// Number of contacts at whose endpoint another key answered.
    pub false_contacts: u64,
    /// Numbers of hops to the results of look-ups.
    pub lookup_hops: Histogram,
}
