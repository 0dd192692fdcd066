//! What must hold in any weather, read from the events and the state of a fleet, from outside.

#![allow(clippy::wildcard_enum_match_arm, reason = "checkers look at a few events of many")]

use std::collections::{BTreeMap, BTreeSet};

use folkmoot::machine::membership::{applicant, authority};
use folkmoot::machine::{gossip, overlay};
use folkmoot::model::entry::MemberState;
use folkmoot::model::statement::{MemberInstance, ProposalKind};
use folkmoot::model::{Endpoint, Incarnation, PublicKey, SeedId, Time};
use folkmoot::node::{Event, peer_kind, seed_kind};
use folkmoot::proto::gossip::GossipId;

use super::{Carries, Fleet};

/// Checks every safety rule over the whole history of a fleet.
pub(crate) fn check_safety(fleet: &Fleet<impl Carries>) {
    one_vote_per_life(fleet);
    only_certificates_change_registries(fleet);
    nothing_comes_back(fleet);
    nobody_acts_without_a_certificate(fleet);
    gossip_is_heard_once(fleet);
}

fn of_authority(event: &Event) -> Option<&authority::Event> {
    match event {
        Event::Seed(seed_kind::Event::Authority(event)) => Some(event),
        Event::Seed(_) | Event::Peer(_) => None,
    }
}

/// M2: one yes of a seed per (endpoint, incarnation, kind), whatever the key, across restarts.
fn one_vote_per_life(fleet: &Fleet<impl Carries>) {
    let mut given: BTreeMap<(Endpoint, Endpoint, Incarnation, ProposalKind), PublicKey> =
        BTreeMap::new();
    for (at, host, event) in fleet.events() {
        let Some(authority::Event::Voted { proposal, seed, yes: true, .. }) = of_authority(event)
        else {
            continue;
        };
        if fleet.book.endpoint(*seed) != Some(*host) {
            continue; // Another seed's vote, as counted here.
        }
        let MemberInstance { endpoint, incarnation, key } = proposal.subject;
        let earlier = given.insert((*host, endpoint, incarnation, proposal.kind), key);
        assert!(
            earlier.is_none_or(|earlier| earlier == key),
            "M2: at {at:?} seed {seed} voted for a second key of {}",
            proposal.subject
        );
    }
}

/// M3, M9: whoever came or went did so by the verified votes of a quorum of distinct seeds.
fn only_certificates_change_registries(fleet: &Fleet<impl Carries>) {
    for (at, host, event) in fleet.events() {
        let verdict = match of_authority(event) {
            Some(authority::Event::Admitted(it)) => fleet.book.verify_admission(it),
            Some(authority::Event::Removed { removal, .. }) => fleet.book.verify_removal(removal),
            Some(authority::Event::Left(it)) => {
                assert!(it.is_valid(), "M7: a forged goodbye was believed by {host} at {at:?}");
                Ok(())
            }
            _ => Ok(()),
        };
        assert_eq!(verdict, Ok(()), "M3: {host} believed {event:?} at {at:?}");
    }
    for seed in &fleet.seeds {
        let Some(node) = fleet.seed(*seed) else { continue };
        for entry in node.authority().registry().entries() {
            let proofs = [
                entry.admission.as_ref().map(|it| fleet.book.verify_admission(it)),
                entry.removal.as_ref().map(|it| fleet.book.verify_removal(it)),
            ];
            let is_proved = proofs.iter().flatten().all(Result::is_ok);
            assert!(is_proved, "M3: {seed} holds {} without proof", entry.subject);
        }
    }
}

/// M4: at no seed does a life that ended come back, across restarts of the seed. A seed that
/// lost its disk has forgotten; it is excused for that moment, not for what it learns afterwards.
fn nothing_comes_back(fleet: &Fleet<impl Carries>) {
    let mut ended: BTreeMap<Endpoint, BTreeSet<(Endpoint, Incarnation)>> = BTreeMap::new();
    for (at, host, event) in fleet.events() {
        if let Event::Seed(seed_kind::Event::Started { members: 0, .. }) = event {
            ended.remove(host);
        }
        match of_authority(event) {
            Some(authority::Event::Removed { lives, .. }) => {
                let lives = lives.iter().map(|life| (life.endpoint, life.incarnation));
                ended.entry(*host).or_default().extend(lives);
            }
            Some(authority::Event::Left(it)) => {
                ended.entry(*host).or_default().insert((it.endpoint, it.incarnation));
            }
            Some(authority::Event::Admitted(it)) => {
                let dead = ended.entry(*host).or_default();
                assert!(
                    !dead.contains(&(it.endpoint, it.incarnation)),
                    "M4: {} came back at {host} at {at:?}",
                    it.subject()
                );
            }
            _ => {}
        }
    }
}

/// O1, O6: a peer has neighbors and gossips only in a life whose certificate it holds.
fn nobody_acts_without_a_certificate(fleet: &Fleet<impl Carries>) {
    let mut member: BTreeMap<Endpoint, Incarnation> = BTreeMap::new();
    for (at, host, event) in fleet.events() {
        match event {
            Event::Peer(peer_kind::Event::Started { .. }) => _ = member.remove(host),
            Event::Peer(peer_kind::Event::Applicant(event)) => match event {
                applicant::Event::Attempt { .. } => _ = member.remove(host),
                applicant::Event::Admitted(it) => {
                    let verdict = fleet.book.verify_admission(it);
                    assert_eq!(verdict, Ok(()), "O1: {host} at {at:?}");
                    member.insert(*host, it.incarnation);
                }
                _ => {}
            },
            Event::Peer(peer_kind::Event::Overlay(overlay::Event::Linked { .. })) => {
                assert!(member.contains_key(host), "O1: {host} linked at {at:?}, not a member");
            }
            Event::Peer(peer_kind::Event::Gossip {
                event: gossip::Event::Made { msg, .. },
                ..
            }) => {
                let life = member.get(host);
                assert_eq!(life, Some(&msg.incarnation), "O1: {host} gossiped at {at:?}");
            }
            Event::Peer(peer_kind::Event::MemberRemoved { removal, life }) => {
                assert_eq!(fleet.book.verify_removal(removal), Ok(()), "O6: {host} at {at:?}");
                assert!(removal.ends(life), "O6: {host} at {at:?}");
            }
            _ => {}
        }
    }
}

/// G2: no process hears a message twice.
fn gossip_is_heard_once(fleet: &Fleet<impl Carries>) {
    let mut heard: BTreeSet<(Endpoint, GossipId)> = BTreeSet::new();
    for (at, host, event) in fleet.events() {
        match event {
            Event::Peer(peer_kind::Event::Started { .. }) => {
                heard.retain(|(other, _)| other != host);
            }
            Event::Peer(peer_kind::Event::Gossip { event, .. }) => {
                let (gossip::Event::Made { msg, .. } | gossip::Event::Heard { msg, .. }) = event
                else {
                    continue;
                };
                let is_first = heard.insert((*host, msg.id()));
                assert!(is_first, "G2: {host} heard {} again at {at:?}", msg.text);
            }
            _ => {}
        }
    }
}

/// The overlay is symmetric and connected, and nobody has fewer than two neighbors while there
/// are two others to be had (O2). Returns what is wrong.
pub(crate) fn overlay_fault(fleet: &Fleet<impl Carries>, peers: &[Endpoint]) -> Option<String> {
    let links: BTreeMap<Endpoint, BTreeSet<Endpoint>> = peers
        .iter()
        .map(|peer| {
            let node = fleet.peer(*peer).expect("the peer is up");
            (*peer, node.overlay().neighbors().keys().copied().collect())
        })
        .collect();
    for (peer, neighbors) in &links {
        if neighbors.len() < 2.min(peers.len() - 1) {
            return Some(format!("{peer} has {} neighbors", neighbors.len()));
        }
        for neighbor in neighbors {
            if !links.get(neighbor).is_some_and(|theirs| theirs.contains(peer)) {
                return Some(format!("{peer} lists {neighbor}, but not the other way round"));
            }
        }
    }
    let mut reached = BTreeSet::from([peers[0]]);
    let mut open = vec![peers[0]];
    while let Some(next) = open.pop() {
        for neighbor in &links[&next] {
            if reached.insert(*neighbor) {
                open.push(*neighbor);
            }
        }
    }
    (reached.len() < peers.len()).then(|| format!("{} of {} reached", reached.len(), peers.len()))
}

/// The messages made since `since`, by whom, and who of `peers` has not heard them.
pub(crate) fn undelivered(
    fleet: &Fleet<impl Carries>,
    peers: &[Endpoint],
    since: Time,
) -> Vec<(String, Endpoint)> {
    let mut made: BTreeMap<GossipId, String> = BTreeMap::new();
    let mut known: BTreeSet<(Endpoint, GossipId)> = BTreeSet::new();
    for (at, host, event) in fleet.events() {
        let Event::Peer(peer_kind::Event::Gossip { event, .. }) = event else { continue };
        match event {
            gossip::Event::Made { msg, .. } => {
                if *at >= since {
                    made.insert(msg.id(), msg.text.clone());
                }
                known.insert((*host, msg.id()));
            }
            gossip::Event::Heard { msg, .. } => _ = known.insert((*host, msg.id())),
            gossip::Event::Malformed { .. } => {}
        }
    }
    let mut missing = Vec::new();
    for (id, text) in &made {
        for peer in peers.iter().filter(|peer| !known.contains(&(**peer, *id))) {
            missing.push((text.clone(), *peer));
        }
    }
    missing
}

/// Whether all seeds that are up hold the same registry.
pub(crate) fn seeds_agree(fleet: &Fleet<impl Carries>) -> bool {
    let mut registries = fleet.seeds.iter().filter_map(|seed| fleet.seed(*seed)).map(|node| {
        let registry = node.authority().registry();
        let line = |entry: &folkmoot::model::entry::RegistryEntry| (entry.subject, entry.status());
        registry.entries().map(line).collect::<Vec<(MemberInstance, MemberState)>>()
    });
    let first = registries.next();
    registries.all(|other| Some(&other) == first.as_ref())
}

/// How many removals the seeds committed, each life counted once.
pub(crate) fn removals(fleet: &Fleet<impl Carries>) -> BTreeSet<(Endpoint, Incarnation)> {
    let events = fleet.events();
    events
        .filter_map(|(_, _, event)| match of_authority(event)? {
            authority::Event::Removed { lives, .. } => Some(lives),
            _ => None,
        })
        .flatten()
        .map(|life| (life.endpoint, life.incarnation))
        .collect()
}

/// M2, M3, wherever it shows: no honest seed's yes for two keys of one life was seen by anybody,
/// and no two certificates give one life two keys.
pub(crate) fn lives_have_one_key(fleet: &Fleet<impl Carries>, liars: &BTreeSet<SeedId>) {
    let mut votes: BTreeMap<(SeedId, Endpoint, Incarnation, ProposalKind), PublicKey> =
        BTreeMap::new();
    let mut lives: BTreeMap<(Endpoint, Incarnation), PublicKey> = BTreeMap::new();
    for (at, host, event) in fleet.events() {
        match of_authority(event) {
            Some(authority::Event::Voted { proposal, seed, yes: true, .. }) => {
                let MemberInstance { endpoint, incarnation, key } = proposal.subject;
                if liars.contains(seed) {
                    continue;
                }
                let vote = (*seed, endpoint, incarnation, proposal.kind);
                let earlier = *votes.entry(vote).or_insert(key);
                assert_eq!(earlier, key, "M2: seed {seed}'s yes at {host} at {at:?}");
            }
            Some(authority::Event::Admitted(it)) => {
                let earlier = *lives.entry((it.endpoint, it.incarnation)).or_insert(it.key);
                assert_eq!(earlier, it.key, "M3: two keys of {} at {host}", it.subject());
            }
            _ => {}
        }
    }
}
