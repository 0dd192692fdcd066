//! Ledger of the simulated nodes' events: times of admissions, of gossip heard, and of deaths
//! learnt.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::machine::membership::{applicant, authority};
use crate::machine::{gossip, liveness};
use crate::model::statement::MemberInstance;
use crate::model::{Endpoint, Incarnation, Time};
use crate::node::{Event, peer_kind, seed_kind};

/// One gossip message on its way through the fleet.
#[derive(Clone, Debug)]
pub(super) struct Rumor {
    made: Time,
    /// Times from its making until each peer heard it, in the order of hearing.
    pub(super) heard: Vec<Duration>,
}

/// One death on its way through the fleet. All spans count from the death.
#[derive(Clone, Debug, Default)]
pub(super) struct Death {
    at: Time,
    /// Neighbors of the peer when it died.
    pub(super) neighbors: BTreeSet<Endpoint>,
    /// Time until a neighbor first suspected it.
    pub(super) suspected: Option<Duration>,
    /// Time until it was first reported to seeds.
    pub(super) reported: Option<Duration>,
    /// Time until each seed had removed it.
    pub(super) removed: BTreeMap<Endpoint, Duration>,
    /// Time until each of its neighbors knew the certificate of its removal.
    pub(super) dropped: BTreeMap<Endpoint, Duration>,
    /// Time until each peer that knows the certificate learnt of it, in the order of learning.
    pub(super) learnt: Vec<Duration>,
}

/// Ledger of one run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    asked: BTreeMap<Endpoint, Time>,
    /// Time when each peer first became a member, and the time since it asked.
    pub(super) admitted: BTreeMap<Endpoint, (Time, Duration)>,
    /// Number of failed attempts to register.
    pub(super) refused: u64,
    /// Lives that ended by a removal though they were not killed.
    pub(super) wrong: BTreeSet<(Endpoint, Incarnation)>,
    /// Sets of lives that one certificate of a removal ended together.
    pub(super) decisions: BTreeSet<Vec<MemberInstance>>,
    /// Deaths by endpoint.
    pub(super) deaths: BTreeMap<Endpoint, Death>,
    rumors: BTreeMap<(Endpoint, Incarnation, u32), Rumor>,
    /// Number of suspicions.
    pub(super) suspicions: u64,
    /// Number of suspicions of peers that lived.
    pub(super) false_suspicions: u64,
}

impl Ledger {
    /// Begins the record of a peer that dies now.
    pub(super) fn kill(&mut self, victim: Endpoint, at: Time, neighbors: BTreeSet<Endpoint>) {
        self.deaths.insert(victim, Death { at, neighbors, ..Death::default() });
    }

    /// The gossip messages, in the order of their making.
    pub(super) fn rumors(&self) -> Vec<&Rumor> {
        let mut all: Vec<_> = self.rumors.values().collect();
        all.sort_by_key(|rumor| rumor.made);
        all
    }

    /// Books an event of a node.
    pub(super) fn book(&mut self, at: Time, node: Endpoint, event: &Event) {
        match event {
            Event::Seed(event) => self.book_seed(at, node, event),
            Event::Peer(event) => self.book_peer(at, node, event),
        }
    }

    fn book_seed(&mut self, at: Time, seed: Endpoint, event: &seed_kind::Event) {
        let seed_kind::Event::Authority(authority::Event::Removed { removal, lives }) = event
        else {
            return;
        };
        self.decisions.insert(removal.lives.clone());
        for life in lives {
            match self.deaths.get_mut(&life.endpoint) {
                Some(death) => _ = death.removed.entry(seed).or_insert(at.since(death.at)),
                None => _ = self.wrong.insert((life.endpoint, life.incarnation)),
            }
        }
    }

    fn book_peer(&mut self, at: Time, peer: Endpoint, event: &peer_kind::Event) {
        match event {
            peer_kind::Event::Applicant(applicant::Event::Asked { .. }) => {
                self.asked.entry(peer).or_insert(at);
            }
            peer_kind::Event::Applicant(applicant::Event::Admitted(_)) => {
                let waited = self.asked.get(&peer).map_or(Duration::ZERO, |asked| at.since(*asked));
                self.admitted.entry(peer).or_insert((at, waited));
            }
            peer_kind::Event::Applicant(applicant::Event::Refused { .. }) => self.refused += 1,
            peer_kind::Event::Gossip { event, .. } => self.book_gossip(at, event),
            peer_kind::Event::Liveness(liveness::Event::Suspected { subject, .. }) => {
                self.suspicions += 1;
                match self.deaths.get_mut(&subject.endpoint) {
                    Some(death) => _ = death.suspected.get_or_insert(at.since(death.at)),
                    None => self.false_suspicions += 1,
                }
            }
            peer_kind::Event::Liveness(liveness::Event::Report(report)) => {
                if let Some(death) = self.deaths.get_mut(&report.endpoint) {
                    death.reported.get_or_insert(at.since(death.at));
                }
            }
            peer_kind::Event::MemberRemoved { life, .. } => {
                if let Some(death) = self.deaths.get_mut(&life.endpoint) {
                    let after = at.since(death.at);
                    death.learnt.push(after);
                    if death.neighbors.contains(&peer) {
                        death.dropped.entry(peer).or_insert(after);
                    }
                }
            }
            peer_kind::Event::Applicant(_)
            | peer_kind::Event::Discovery(_)
            | peer_kind::Event::Liveness(_)
            | peer_kind::Event::Started { .. }
            | peer_kind::Event::Broadcast(_)
            | peer_kind::Event::Overlay(_)
            | peer_kind::Event::Direct(_)
            | peer_kind::Event::Contacts(_)
            | peer_kind::Event::MemberLeft(_)
            | peer_kind::Event::SharedKey { .. }
            | peer_kind::Event::Gone
            | peer_kind::Event::Open(_)
            | peer_kind::Event::ListsDiffer(_)
            | peer_kind::Event::Refused(_) => {}
        }
    }

    fn book_gossip(&mut self, at: Time, event: &gossip::Event) {
        match event {
            gossip::Event::Made { msg, .. } => {
                let key = (msg.origin, msg.incarnation, msg.number);
                self.rumors.insert(key, Rumor { made: at, heard: Vec::new() });
            }
            gossip::Event::Heard { msg, .. } => {
                let key = (msg.origin, msg.incarnation, msg.number);
                if let Some(rumor) = self.rumors.get_mut(&key) {
                    rumor.heard.push(at.since(rumor.made));
                }
            }
            gossip::Event::Malformed { .. } => {}
        }
    }
}
