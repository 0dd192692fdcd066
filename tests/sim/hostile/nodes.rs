//! The two real machines on the stage, with limits so small that they are reached, and what must
//! hold of each.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use folkmoot::machine::membership::applicant;
use folkmoot::machine::membership::authority::{self, Record};
use folkmoot::machine::{LinkId, gossip, overlay, session};
use folkmoot::model::entry::{MemberState, RegistryEntry};
use folkmoot::model::statement::ProposalKind;
use folkmoot::model::{Rng, SeedId};
use folkmoot::node::peer_kind::Command as PeerCommand;
use folkmoot::node::seed_kind::Command as SeedCommand;
use folkmoot::node::{PeerConfig, PeerNode, SeedConfig, SeedNode};
use rand::SeedableRng as _;

use super::cast::{Actor, PEERS, book, proves};
use super::stage::{Ledger, Player};

const UNPROVEN_MAX: usize = 6;
const ADMISSIONS_MAX: usize = 5;
const NEIGHBORS_MAX: usize = 8;
const SEEN_MAX: usize = 12;
const LINKS_MAX: usize = 4;

/// Nobody has more than one life's link here, and four times that is beyond what may be needed.
const STATUS_LINKS_MAX: usize = 24;

fn session() -> session::Config {
    session::Config { unproven_max: UNPROVEN_MAX, ..session::Config::default() }
}

impl Player for SeedNode {
    const ME: Actor = Actor::Seed(1);

    fn born(records: Vec<Record>) -> Self {
        let authority = authority::Config {
            admissions_max: ADMISSIONS_MAX,
            neighbors_max: NEIGHBORS_MAX,
            requests_burst: 20,
            requests_per_second: 10,
            ..authority::Config::default()
        };
        let config = SeedConfig { session: session(), authority, ..SeedConfig::default() };
        let who = (SeedId(1), Self::ME.endpoint(), Self::ME.keys().clone());
        Self::new(config, who, book(false), records, Rng::seed_from_u64(7))
    }

    fn command() -> Option<SeedCommand> {
        None
    }

    fn check(&self, ledger: &mut Ledger, live: &BTreeSet<LinkId>) {
        let registry = self.authority().registry();
        for entry in registry.entries() {
            let endpoint = entry.subject.endpoint;
            if ledger.entries.get(&endpoint) != Some(entry) {
                check_entry(entry, ledger);
                ledger.entries.insert(endpoint, entry.clone());
            }
        }
        for ban in registry.bans() {
            assert!(proves(ProposalKind::Ban, &[ban.subject()], &ban.votes), "banned unproved");
        }
        let alive = registry.entries().filter(|it| it.status() == MemberState::Alive).count();
        assert_eq!(alive, registry.alive_count(), "the living were counted wrong");
        let status = self.status();
        assert!(status.admissions_open <= ADMISSIONS_MAX, "too many admissions");
        assert!(status.removals_open <= status.members, "removals of those who are not in");
        assert!(status.links.len() <= live.len().min(STATUS_LINKS_MAX), "links that are gone");
        assert!(status.members_linked <= status.members, "{status:?}");
        let members: Vec<_> = status.links.iter().filter(|it| it.standing == "member").collect();
        let places: BTreeSet<_> = members.iter().map(|it| it.endpoint).collect();
        assert_eq!(places.len(), members.len(), "a member has two links");
        for peer in (1..=PEERS).map(Actor::Peer) {
            let named = self.authority().neighbors_of(peer.endpoint()).len();
            assert!(named <= NEIGHBORS_MAX, "{named} neighbors are remembered");
        }
    }

    fn check_record(record: &Record, ledger: &mut Ledger) {
        if let Record::Voted { kind, lives, vote } = record {
            for life in lives {
                let what = (life.endpoint, life.incarnation, kind);
                let (what, to) = (format!("{what:?}"), format!("{kind:?} {life:?}"));
                // Votes are forgotten after a day, by the wall clock.
                let earlier = ledger.given.insert(what, to.clone()).filter(|it| *it != to);
                assert!(earlier.is_none() || ledger.is_clock_wrong, "a second vote: {to}");
            }
            assert!(vote.is_valid(*kind, lives, &Self::ME.keys().public()));
        }
    }

    fn open_cases(&self) -> usize {
        let (admissions, removals) = self.authority().open_cases();
        admissions + removals * usize::from(PEERS)
    }
}

fn check_entry(entry: &RegistryEntry, ledger: &mut Ledger) {
    let RegistryEntry { subject, admission, removal, leave } = entry;
    if let Some(admission) = admission {
        assert_eq!(admission.subject(), *subject);
        assert!(proves(ProposalKind::Admit, &[*subject], &admission.votes), "admitted unproved");
        assert!(admission.votes.len() <= 3, "{} votes are kept", admission.votes.len());
    }
    if let Some(removal) = removal {
        assert!(removal.ends(subject));
        assert!(proves(removal.because.kind(), &removal.lives, &removal.votes), "unproved");
        assert!(removal.votes.len() <= 3, "{} votes are kept", removal.votes.len());
        assert!(removal.confirmations.len() <= 256);
    }
    if let Some(leave) = leave {
        assert_eq!(leave.subject(), *subject);
        assert!(leave.is_valid(), "left without saying so");
    }
    assert!(admission.is_some() || removal.is_some() || leave.is_some(), "nothing is proved");
    let (endpoint, life) = (subject.endpoint, subject.incarnation.0);
    let held = ledger.entries.get(&endpoint).map(|it| it.subject.incarnation.0);
    assert!(held.is_none_or(|held| held <= life), "an earlier life came back");
    // Two keys under one life need a quorum that lies; the lower key then stands for that life.
    let rank = (life, Reverse(subject.key));
    if entry.status() == MemberState::Alive {
        let ended = ledger.ended.get(&endpoint);
        assert!(ended.is_none_or(|ended| *ended < rank), "the dead came back: {entry:?}");
    } else {
        let ended = ledger.ended.entry(endpoint).or_insert(rank);
        *ended = rank.max(*ended);
    }
}

impl Player for PeerNode {
    const ME: Actor = Actor::Peer(1);

    fn born(records: Vec<applicant::Record>) -> Self {
        let gossip = gossip::Config { seen_max: SEEN_MAX, ..gossip::Config::default() };
        let overlay = overlay::Config { links_max: LINKS_MAX, ..overlay::Config::default() };
        let config = PeerConfig { session: session(), gossip, overlay, ..PeerConfig::default() };
        let who = (Self::ME.endpoint(), Self::ME.keys().clone());
        Self::new(config, who, book(false), &records, Rng::seed_from_u64(7))
    }

    fn command() -> Option<PeerCommand> {
        Some(PeerCommand::Leave)
    }

    fn check(&self, _: &mut Ledger, live: &BTreeSet<LinkId>) {
        if let Some(admission) = self.applicant().admission() {
            let own = self.applicant().subject();
            assert_eq!(admission.subject(), own, "somebody else's certificate");
            assert!(
                proves(ProposalKind::Admit, &[own], &admission.votes),
                "a member without proof"
            );
        }
        let neighbors = self.overlay().neighbors();
        assert!(neighbors.len() <= LINKS_MAX, "{} neighbors", neighbors.len());
        assert!(neighbors.values().all(|link| live.contains(link)), "a neighbor without a link");
        assert!(self.applicant().seed_links().all(|(_, link)| live.contains(&link)));
        let topology = self.overlay().topology();
        assert!(topology.keys().all(|it| neighbors.contains_key(it)), "a view of strangers");
        assert!(topology.values().all(|named| named.len() <= 256));
        let status = self.status();
        assert!(status.gossip_held <= SEEN_MAX, "{} messages are held", status.gossip_held);
        assert!(status.suspects.len() <= 64);
        if self.applicant().admission().is_none() {
            assert!(neighbors.is_empty(), "neighbors without a membership");
        }
    }

    fn check_record(_: &applicant::Record, _: &mut Ledger) {}

    fn open_cases(&self) -> usize {
        self.status().suspects.len() * usize::from(PEERS)
    }
}
