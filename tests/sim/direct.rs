//! Direct sends and contacts in simulated fleets: links that break, peers that crash, cuts.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for what it looks for")]

use crate::common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{Fleet, Plan};
use folkmoot::machine::direct::{self, FailKind, RetryConfig};
use folkmoot::machine::{contacts, gossip, liveness};
use folkmoot::model::{Data, Endpoint, Rng, Time};
use folkmoot::node::{Command, Event, PeerConfig, peer_kind};
use folkmoot::sim::for_each_seed;
use rand::{RngExt as _, SeedableRng as _};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn settled(seed: u64, peers: u16) -> Fleet {
    settled_with(seed, peers, contacts::Config::default())
}

fn settled_with(seed: u64, peers: u16, contacts: contacts::Config) -> Fleet {
    let gossip = gossip::Config { messages_max: 0, ..gossip::Config::default() };
    let peer_config = PeerConfig { gossip, contacts, ..PeerConfig::default() };
    let mut fleet = Fleet::started(seed, &Plan { peers, peer_config, ..Plan::default() });
    fleet.settle(secs(15));
    fleet.world.run_for(secs(3));
    fleet
}

/// The applications of a fleet: they send, answer, and keep book.
#[derive(Default)]
struct Desk {
    next: u64,
    /// What was sent: by whom, to whom; what nobody waits for any more is taken out.
    open: BTreeMap<u64, Endpoint>,
    ends: BTreeMap<u64, Option<FailKind>>,
    reasons: BTreeMap<u64, String>,
    arrived: BTreeMap<u64, u32>,
    taken: BTreeSet<u64>,
    contacts: Vec<(Time, Endpoint, contacts::Event)>,
    suspected: usize,
}

impl Desk {
    fn send(&mut self, fleet: &mut Fleet, from: Endpoint, to: Endpoint, size: usize) -> u64 {
        self.next += 1;
        let token = self.next;
        let mut bytes = token.to_be_bytes().to_vec();
        bytes.resize(size.max(8), 0x5a);
        let (topic, data) = ("news".to_owned(), Data::from(bytes));
        let retry = RetryConfig::default();
        let command = peer_kind::Command::Send { token, to, topic, data, retry };
        if fleet.world.command(from, Command::Peer(command)) {
            self.open.insert(token, from);
        }
        token
    }

    /// Runs for a while; each message is answered as `decide` says, or not at all.
    fn run(
        &mut self,
        fleet: &mut Fleet,
        span: Duration,
        mut decide: impl FnMut(u64) -> Option<bool>,
    ) {
        let end = fleet.world.now().after(span);
        while fleet.world.now() < end {
            fleet.world.run_for(Duration::from_millis(10));
            for (at, me, event) in fleet.world.take_events() {
                let Event::Peer(event) = event else { continue };
                match event {
                    peer_kind::Event::Direct(event) => self.book(fleet, me, event, &mut decide),
                    peer_kind::Event::Contacts(event) => self.contacts.push((at, me, event)),
                    peer_kind::Event::Liveness(liveness::Event::Suspected { .. }) => {
                        self.suspected += 1;
                    }
                    _ => {}
                }
            }
        }
    }

    fn book(
        &mut self,
        fleet: &mut Fleet,
        me: Endpoint,
        event: direct::Event,
        decide: &mut impl FnMut(u64) -> Option<bool>,
    ) {
        match event {
            direct::Event::Arrived { from, number, data, .. } => {
                let token = u64::from_be_bytes(data[..8].try_into().expect("eight bytes"));
                assert!(data[8..].iter().all(|byte| *byte == 0x5a), "altered on its way");
                *self.arrived.entry(token).or_default() += 1;
                let Some(taken) = decide(token) else { return };
                let reason = "no, thank you".to_owned();
                let answer = peer_kind::Command::Answer { from, number, taken, reason };
                if fleet.world.command(me, Command::Peer(answer)) && taken {
                    self.taken.insert(token);
                }
            }
            direct::Event::Sent { token, .. } => {
                assert!(self.taken.contains(&token), "{token} was taken by nobody");
                self.end(token, None);
            }
            direct::Event::Failed { token, kind, reason, .. } => {
                self.reasons.insert(token, reason);
                self.end(token, Some(kind));
            }
            _ => {}
        }
    }

    fn end(&mut self, token: u64, end: Option<FailKind>) {
        assert_eq!(self.ends.insert(token, end), None, "{token} ended twice");
        self.open.remove(&token);
    }

    /// What must hold of everything that was ever sent.
    fn check(&self) {
        let twice: Vec<_> = self.arrived.iter().filter(|(_, times)| **times > 1).collect();
        assert_eq!(twice, [], "delivered twice");
        for (token, end) in &self.ends {
            let arrived = self.arrived.contains_key(token);
            match end {
                None => assert!(arrived, "{token}"),
                Some(FailKind::Unknown) => {}
                Some(FailKind::Refused) => assert!(!self.taken.contains(token), "{token}"),
                Some(kind) => assert!(!arrived, "{token}: {kind:?}, and yet it arrived"),
            }
        }
    }

    fn failed(&self, token: u64) -> Option<FailKind> {
        self.ends.get(&token).copied().expect("it has ended")
    }
}

fn always(_: u64) -> Option<bool> {
    Some(true)
}

/// Two peers that are no neighbors.
fn strangers(fleet: &Fleet) -> (Endpoint, Endpoint) {
    let peers = fleet.peers.iter();
    let pairs = peers.flat_map(|a| fleet.peers.iter().map(|b| (*a, *b))).filter(|(a, b)| a < b);
    let linked = |(a, b): &(Endpoint, Endpoint)| {
        fleet.peer(*a).expect("it is up").overlay().neighbors().contains_key(b)
    };
    pairs.into_iter().find(|pair| !linked(pair)).expect("not all are neighbors")
}

#[test]
fn a_member_that_is_no_neighbor_is_sent_to_and_never_becomes_one() {
    for_each_seed(4, |seed| {
        let mut fleet = settled(seed, 14);
        let (a, b) = strangers(&fleet);
        let mut desk = Desk::default();
        let there = desk.send(&mut fleet, a, b, 100);
        let large = desk.send(&mut fleet, a, b, 1_000_000);
        desk.run(&mut fleet, secs(2), always);
        assert_eq!((desk.failed(there), desk.failed(large)), (None, None));
        let back = desk.send(&mut fleet, b, a, 100);
        let no = desk.send(&mut fleet, b, a, 100);
        assert_eq!(fleet.world.open_links(a, b), 1);
        desk.run(&mut fleet, secs(2), |token| Some(token != no));
        assert_eq!(desk.failed(back), None);
        assert_eq!(desk.failed(no), Some(FailKind::Refused));
        assert_eq!(fleet.world.open_links(a, b), 1, "the answers took the same link");
        assert!(!fleet.peer(a).expect("it is up").overlay().neighbors().contains_key(&b));
        desk.run(&mut fleet, secs(40), always);
        assert_eq!(fleet.world.open_links(a, b), 0, "an idle link is given up");
        assert_eq!((desk.suspected, desk.contacts.len()), (0, 0));
        desk.check();
    });
}

#[test]
fn a_send_that_makes_no_sense_fails_at_once_with_a_reason() {
    let mut fleet = settled(1, 4);
    let mut desk = Desk::default();
    let (me, other, seed) = (fleet.peers[0], fleet.peers[1], fleet.seeds[0]);
    let own = desk.send(&mut fleet, me, me, 9);
    let seeds = desk.send(&mut fleet, me, seed, 9);
    let nobody = desk.send(&mut fleet, me, common::peer_endpoint(99), 9);
    let large = desk.send(&mut fleet, me, other, 1_048_577);
    desk.run(&mut fleet, Duration::from_millis(10), always);
    assert_eq!(
        [own, seeds, large].map(|it| desk.failed(it).expect("it failed")),
        [FailKind::NotSent, FailKind::NotSent, FailKind::TooLarge]
    );
    assert!(desk.reasons[&own].contains("itself"), "{}", desk.reasons[&own]);
    assert!(desk.reasons[&seeds].contains("seed"), "{}", desk.reasons[&seeds]);
    desk.run(&mut fleet, secs(90), always);
    assert_eq!(desk.failed(nobody), Some(FailKind::Unreachable));
    assert!(desk.reasons[&nobody].contains("6 attempts"), "{}", desk.reasons[&nobody]);
}

#[test]
fn a_pair_cut_for_40_s_is_unreachable_after_30_and_comes_back_by_itself() {
    for_each_seed(6, |seed| {
        let mut fleet = settled(seed, 10);
        // Of neighbors and strangers alike.
        let (a, b) = match seed % 2 {
            0 => strangers(&fleet),
            _ => {
                let a = fleet.peers[0];
                let node = fleet.peer(a).expect("it is up");
                (a, *node.overlay().neighbors().keys().next().expect("it has some"))
            }
        };
        let mut desk = Desk::default();
        let before = desk.send(&mut fleet, a, b, 100);
        desk.run(&mut fleet, secs(1), always);
        assert_eq!(desk.failed(before), None);
        let cut = fleet.world.now();
        fleet.world.cut(a, b);
        desk.run(&mut fleet, secs(36), always);
        let lost = desk.contacts.iter().find_map(|(at, me, event)| match event {
            contacts::Event::Unreachable { peer, .. } if (*me, *peer) == (a, b) => Some(*at),
            _ => None,
        });
        let after = lost.expect("it was told").since(cut);
        assert!((secs(26)..secs(34)).contains(&after), "unreachable after {after:?}");
        let meanwhile = desk.send(&mut fleet, a, b, 100);
        desk.run(&mut fleet, Duration::from_millis(10), always);
        assert_eq!(desk.failed(meanwhile), Some(FailKind::Unreachable));
        desk.run(&mut fleet, secs(4), always);
        fleet.world.mend(a, b);
        desk.run(&mut fleet, secs(25), always);
        let is_back = |(_, me, event): &(Time, Endpoint, contacts::Event)| {
            *me == a && matches!(event, contacts::Event::Reachable { peer, .. } if *peer == b)
        };
        assert!(desk.contacts.iter().any(is_back), "{:?}", desk.contacts);
        let then = desk.send(&mut fleet, a, b, 100);
        desk.run(&mut fleet, secs(2), always);
        assert_eq!(desk.failed(then), None);
        assert!(fleet.all_active(&fleet.peers), "nobody was removed for it");
        desk.check();
    });
}

#[test]
fn a_peer_added_by_hand_is_linked_when_it_comes_and_one_removed_gets_nothing_more() {
    let mut fleet = settled(3, 6);
    let (a, b) = (fleet.peers[0], fleet.peers[5]);
    let mut desk = Desk::default();
    fleet.world.vanish(b);
    desk.run(&mut fleet, secs(10), always);
    let add = Command::Peer(peer_kind::Command::AddPeer(b));
    assert!(fleet.world.command(a, add));
    desk.run(&mut fleet, secs(20), always);
    assert_eq!(fleet.world.open_links(a, b), 0);
    fleet.world.restart(b);
    desk.run(&mut fleet, secs(70), always);
    assert!(fleet.world.open_links(a, b) > 0);
    desk.run(&mut fleet, secs(60), always);
    assert!(fleet.world.open_links(a, b) > 0, "it is kept, idle or not");
    let suspected = desk.suspected;
    let remove = Command::Peer(peer_kind::Command::RemovePeer(b));
    assert!(fleet.world.command(a, remove));
    for _ in 0..60 {
        desk.run(&mut fleet, secs(1), always);
        assert_eq!(fleet.world.open_links(a, b), 0);
    }
    let refused = desk.send(&mut fleet, a, b, 9);
    desk.run(&mut fleet, secs(1), always);
    assert_eq!(desk.failed(refused), Some(FailKind::NotSent));
    assert_eq!(desk.suspected, suspected, "a link closed by hand accuses nobody");
}

#[test]
fn a_peer_that_cannot_be_added_by_hand_has_no_kept_link() {
    let config = contacts::Config { by_hand_max: 0, ..contacts::Config::default() };
    let mut fleet = settled_with(3, 14, config);
    let (a, b) = strangers(&fleet);
    let mut desk = Desk::default();
    let add = Command::Peer(peer_kind::Command::AddPeer(b));
    assert!(fleet.world.command(a, add));
    let there = desk.send(&mut fleet, a, b, 100);
    desk.run(&mut fleet, secs(2), always);
    assert_eq!(desk.failed(there), None);
    assert!(matches!(desk.contacts[..], [(_, _, contacts::Event::NotAdded { .. })]));
    desk.run(&mut fleet, secs(60), always);
    assert_eq!(fleet.world.open_links(a, b), 0, "an idle link is given up");
}

/// One random fault among the peers.
fn disturb(fleet: &mut Fleet, desk: &mut Desk, rng: &mut Rng) {
    let any = |rng: &mut Rng, fleet: &Fleet| fleet.peers[rng.random_range(0..fleet.peers.len())];
    let (a, b) = (any(rng, fleet), any(rng, fleet));
    match rng.random_range(0..10) {
        0..4 if a != b => fleet.world.reset_link(a, b),
        4 if a != b => fleet.world.cut(a, b),
        5 if a != b => fleet.world.mend(a, b),
        6 => fleet.world.heal(),
        7 => {
            let (left, right) = fleet.peers.split_at(fleet.peers.len() / 2);
            let (left, right) = (left.to_vec(), right.to_vec());
            fleet.world.partition(&[&left, &right]);
        }
        8 => {
            // What it had on its way dies with it.
            fleet.world.crash(a);
            desk.open.retain(|_, from| *from != a);
            fleet.world.restart(a);
        }
        _ => {}
    }
}

#[test]
fn through_lost_links_crashes_and_partitions_nothing_arrives_twice_and_all_ends() {
    let ends = for_each_seed(12, |seed| {
        let mut fleet = settled(seed, 8);
        let (mut desk, mut rng) = (Desk::default(), Rng::seed_from_u64(seed));
        let mut answers = Rng::seed_from_u64(seed + 1_000);
        let mut decide = |_| match answers.random_range(0..10) {
            0 => Some(false),
            1 => None,
            _ => Some(true),
        };
        for _ in 0..120 {
            for _ in 0..rng.random_range(0..4) {
                let from = fleet.peers[rng.random_range(0..8)];
                let to = fleet.peers[rng.random_range(0..8)];
                let size = if rng.random_ratio(1, 6) { 300_000 } else { 50 };
                desk.send(&mut fleet, from, to, size);
            }
            if rng.random_ratio(1, 3) {
                disturb(&mut fleet, &mut desk, &mut rng);
            }
            let span = Duration::from_millis(rng.random_range(1..700));
            desk.run(&mut fleet, span, &mut decide);
        }
        fleet.world.calm_down();
        for _ in 0..18 {
            desk.run(&mut fleet, secs(10), &mut decide);
            if desk.open.is_empty() {
                break;
            }
        }
        assert_eq!(desk.open.len(), 0, "without an end: {:?}", desk.open);
        desk.check();
        let mut ends: BTreeMap<_, u32> = BTreeMap::new();
        for end in desk.ends.values() {
            *ends.entry(*end).or_default() += 1;
        }
        ends
    });
    let mut sums: BTreeMap<_, u32> = BTreeMap::new();
    for (end, count) in ends.into_iter().flatten() {
        *sums.entry(end).or_default() += count;
    }
    let count = |end| sums.get(&end).copied().unwrap_or_default();
    assert!(count(None) > 100 && count(Some(FailKind::Refused)) > 10, "{sums:?}");
    assert!(std::env::var_os("SEED").is_some() || count(Some(FailKind::Unknown)) > 10, "{sums:?}");
}
