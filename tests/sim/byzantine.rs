//! Campaigns against liars: seeds that lie in every way alone and together, an applicant with two
//! faces, peers that testify falsely. No living member goes, nobody dead stays, and no life gets
//! two keys. `SEEDS=n` runs more, `SEED=n` one alone.

#![allow(clippy::wildcard_enum_match_arm, reason = "a liar picks a few messages of many")]

use crate::common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::campaign::{Run, Truth, campaign, dice};
use common::checkers::{check_safety, lives_have_one_key, overlay_fault, removals};
use common::liars::{Lie, corrupt, finding, ghost, report, wall};
use common::{Fleet, Plan, keys_of, peer_endpoint, seed_endpoint};
use folkmoot::machine::membership::seedbook::{SeedAddress, SeedBook};
use folkmoot::machine::membership::{applicant, authority};
use folkmoot::machine::quorum::QuorumRule;
use folkmoot::model::statement::{Finding, MemberInstance};
use folkmoot::model::{Endpoint, PublicKey, Rng, SeedId, WallTime};
use folkmoot::node::{Command, Event, Node, PeerConfig, PeerNode, Record, peer_kind, seed_kind};
use folkmoot::proto::hello::{Hello, HelloAck};
use folkmoot::proto::message::Message;
use folkmoot::sim::{Boot, FaultEffect, TamperedMessage, for_each_seed};
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn plan(seeds: u16, peers: u16, rule: QuorumRule) -> Plan {
    Plan { seeds, peers, rule, pinned: true, stagger: millis(100), ..Plan::default() }
}

fn subject_of(fleet: &Fleet, peer: Endpoint) -> MemberInstance {
    fleet.peer(peer).expect("it is up").applicant().subject()
}

fn neighbors(fleet: &Fleet, peer: Endpoint) -> Vec<Endpoint> {
    let node = fleet.peer(peer).expect("it is up");
    node.overlay().neighbors().keys().copied().collect()
}

/// Checks every safety rule, and judges the removals.
fn close(mut run: Run, fleet: &Fleet, truth: &Truth) -> Run {
    check_safety(fleet);
    lives_have_one_key(fleet, &truth.liars);
    run.judge(fleet, truth);
    run
}

/// The lies of a run: each alone, then all, then some.
fn lies_of(number: u64, rng: &mut Rng) -> BTreeSet<Lie> {
    let place = usize::try_from(number).expect("small") % (Lie::ALL.len() + 3);
    match Lie::ALL.get(place) {
        Some(lie) => BTreeSet::from([*lie]),
        None if place == Lie::ALL.len() => Lie::ALL.into(),
        None => Lie::ALL.into_iter().sample(rng, 4).into_iter().collect(),
    }
}

/// Members come, die, return and leave while some of the seeds lie from the first moment on.
fn among_liars(seed: u64, number: u64, (plan, liars): (&Plan, usize)) -> Run {
    let (mut run, mut truth, mut rng) = (Run::default(), Truth::default(), dice(seed));
    let mut fleet = Fleet::new(seed, plan);
    truth.liars = (1..=plan.seeds).map(SeedId).sample(&mut rng, liars).into_iter().collect();
    let gang: Vec<_> = truth.liars.iter().copied().collect();
    corrupt(&mut fleet, &gang, &lies_of(number, &mut rng));
    let honest: Vec<_> =
        (1..=plan.seeds).map(SeedId).filter(|it| !truth.liars.contains(it)).collect();
    let honest: Vec<_> = honest.iter().map(|it| seed_endpoint(it.0)).collect();
    let peers = fleet.peers.clone();
    let [crashed, vanished, restarted, leaver, late, ..] = peers[..] else { panic!("five peers") };
    for host in fleet.seeds.clone().into_iter().chain(peers.clone()) {
        if host != late {
            fleet.world.boot(host);
        }
    }
    let all_but = |gone: &[Endpoint]| -> Vec<Endpoint> {
        peers.iter().copied().filter(|it| !gone.contains(it)).collect()
    };
    run.settle(&mut fleet, (&honest, &all_but(&[late])), secs(60));
    fleet.world.run_for(secs(20));
    fleet.kill(&mut truth, crashed, false);
    fleet.kill(&mut truth, vanished, true);
    run.settle(&mut fleet, (&honest, &all_but(&[late, crashed, vanished])), secs(60));
    fleet.kill(&mut truth, restarted, false);
    fleet.world.run_for(millis(rng.random_range(0..4_000)));
    fleet.revive(&mut truth, restarted);
    fleet.world.command(leaver, Command::Peer(peer_kind::Command::Leave));
    fleet.world.boot(late);
    fleet.world.run_for(millis(100));
    truth.falls_ill(leaver, fleet.world.now());
    fleet.world.bury(leaver);
    let rest = all_but(&[crashed, vanished, leaver]);
    run.settle(&mut fleet, (&honest, &rest), secs(60));
    fleet.world.run_for(secs(30));
    run.settle(&mut fleet, (&honest, &rest), secs(20));
    fleet
        .run_until(secs(60), "the overlay is whole", |fleet| overlay_fault(fleet, &rest).is_none());
    assert!(fleet.world.tally().troubles(FaultEffect::Tampered) > 0, "somebody lied");
    close(run, &fleet, &truth)
}

#[test]
fn lying_seeds_below_a_third_take_nobody_out_and_keep_nobody_in() {
    campaign("lying seeds, byzantine rule", 26, |seed| {
        let (seeds, liars) = if seed % 2 == 0 { (4, 1) } else { (7, 2) };
        among_liars(seed, seed / 2, (&plan(seeds, 8, QuorumRule::Byzantine), liars))
    });
}

#[test]
fn one_lying_seed_of_three_takes_nobody_out_under_the_majority_rule() {
    campaign("one lying seed, majority rule", 13, |seed| {
        among_liars(seed, seed, (&plan(3, 8, QuorumRule::Majority), 1))
    });
}

/// How the attempts of applicants went: the most that one needed, and how many failed.
fn attempts(fleet: &Fleet) -> (u32, usize) {
    let (mut most, mut failed) = (0, 0);
    for (_, _, event) in fleet.world.events() {
        match event {
            Event::Peer(peer_kind::Event::Applicant(applicant::Event::Attempt {
                number, ..
            })) => most = most.max(*number),
            Event::Peer(peer_kind::Event::Applicant(applicant::Event::Refused { .. })) => {
                failed += 1;
            }
            _ => {}
        }
    }
    (most, failed)
}

#[test]
fn seeds_that_refuse_everybody_do_not_even_delay_them() {
    for_each_seed(5, |seed| {
        for (count, rule) in [(7, QuorumRule::Byzantine), (3, QuorumRule::Majority)] {
            let mut fleet = Fleet::new(seed, &plan(count, 6, rule));
            let liars = if count == 7 { vec![SeedId(2), SeedId(5)] } else { vec![SeedId(2)] };
            corrupt(&mut fleet, &liars, &BTreeSet::from([Lie::Refuse]));
            for host in fleet.seeds.clone().into_iter().chain(fleet.peers.clone()) {
                fleet.world.boot(host);
            }
            fleet.settle(secs(10));
            let (most, failed) = attempts(&fleet);
            assert_eq!(most, 1, "with {count} seeds somebody had to ask again");
            // Where nobody is expected to lie a refusal is told, and the certificate heals it.
            assert!(count == 3 || failed == 0, "{failed} refusals were believed");
        }
    });
}

/// A host whose process shows the key of the ghost's or its own, as the switch says, forgets
/// everything between its starts, and asks only the seeds that are named to it.
fn two_faced(fleet: &mut Fleet, asks: &[u16]) -> (Endpoint, Arc<AtomicBool>) {
    let endpoint = peer_endpoint(77);
    let shows_other = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&shows_other);
    let address = |id: &u16| {
        let endpoint = seed_endpoint(*id);
        SeedAddress { id: SeedId(*id), endpoint, key: Some(keys_of(endpoint).public()) }
    };
    let book = SeedBook::new(QuorumRule::Majority, &asks.iter().map(address).collect::<Vec<_>>());
    fleet.world.add_host(
        endpoint,
        Box::new(move |boot: Boot<'_, Record>| {
            let shown = if switch.load(Ordering::Relaxed) { ghost().endpoint } else { endpoint };
            let me = (endpoint, keys_of(shown));
            let rng = Rng::seed_from_u64(boot.seed);
            let node = PeerNode::new(PeerConfig::default(), me, book.clone(), &[], rng);
            Node::Peer(Box::new(node))
        }),
    );
    (endpoint, shows_other)
}

/// The message as an earlier program says it, which does not tell of its list.
fn without_list(outgoing: &TamperedMessage<'_>) -> Message {
    let mut msg = outgoing.msg.clone();
    if let Message::Hello(Hello { info, .. }) | Message::HelloAck(HelloAck { info, .. }) = &mut msg
    {
        info.seeds = Vec::new();
    }
    msg
}

/// Starts the process at `host` at the same moment by its own clock as the time before, so that
/// it is the same life.
fn boot_in_the_life(fleet: &mut Fleet, host: Endpoint, life: WallTime) {
    fleet.world.crash(host);
    fleet.world.set_skew(host, 0);
    let now = i64::try_from(fleet.world.wall(host).0).expect("it is not that late");
    fleet.world.set_skew(host, i64::try_from(life.0).expect("it was not that late") - now);
    fleet.world.boot(host);
}

/// Which keys `seed` said yes to for the endpoint, by its own account.
fn keys_voted_for(fleet: &Fleet, seed: u16, endpoint: Endpoint) -> BTreeSet<PublicKey> {
    let events = fleet.world.events().iter();
    events
        .filter_map(|(_, host, event)| match event {
            Event::Seed(seed_kind::Event::Authority(authority::Event::Voted {
                proposal,
                seed: voter,
                yes: true,
                ..
            })) if *host == seed_endpoint(seed)
                && *voter == SeedId(seed)
                && proposal.subject.endpoint == endpoint =>
            {
                Some(proposal.subject.key)
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_seed_that_crashes_after_its_yes_gives_no_other_key_a_yes_in_that_life() {
    campaign("second key after a crash", 4, |seed| {
        let start = |steps: u64| {
            let mut fleet = Fleet::started(seed, &plan(3, 2, QuorumRule::Majority));
            fleet.settle(secs(20));
            // Only seed 1 reaches it: one yes, which decides nothing.
            let (host, switch) = two_faced(&mut fleet, &[1]);
            fleet.world.cut(host, seed_endpoint(2));
            fleet.world.cut(host, seed_endpoint(3));
            // It lists one seed, and neither end says how many it lists.
            for end in [host, seed_endpoint(1)] {
                fleet.world.set_tamper(end, Box::new(|_, outgoing| vec![without_list(outgoing)]));
            }
            let life = fleet.world.wall(host);
            fleet.world.crash_after(seed_endpoint(1), steps);
            fleet.world.boot(host);
            (fleet, host, switch, life)
        };
        let (mut fleet, host, ..) = start(0);
        let before = fleet.world.moves(seed_endpoint(1));
        fleet.world.run_for(millis(500));
        let steps = fleet.world.moves(seed_endpoint(1)) - before;
        assert_eq!(keys_voted_for(&fleet, 1, host).len(), 1, "it says yes within {steps} steps");
        let (mut all, mut first, mut second) = (Run::default(), 0, 0);
        for step in 1..=steps {
            let (mut fleet, host, switch, life) = start(step);
            let crashed = fleet.world.run_while(|world| world.is_up(seed_endpoint(1)), secs(5));
            assert!(crashed, "step {step} of {steps} comes again");
            fleet.world.crash(host);
            fleet.world.restart(seed_endpoint(1));
            fleet.world.run_for(secs(1));
            switch.store(true, Ordering::Relaxed);
            boot_in_the_life(&mut fleet, host, life);
            fleet.world.run_for(secs(4));
            let other = ghost().key;
            let keys = keys_voted_for(&fleet, 1, host);
            first += usize::from(keys.iter().any(|key| *key != other));
            second += usize::from(keys.contains(&other));
            let (seeds, peers) = (fleet.seeds.clone(), fleet.peers.clone());
            let mut run = Run::default();
            run.settle(&mut fleet, (&seeds, &peers), secs(20));
            let run = close(run, &fleet, &Truth::default());
            all.missed.extend(run.missed);
            all.wrong.extend(run.wrong);
        }
        assert!(
            first > 0 && second > 0,
            "yes to the first key {first} times, {second} to the other"
        );
        all
    });
}

#[test]
fn two_lying_seeds_and_a_divided_fleet_do_not_give_one_life_two_keys() {
    campaign("two-faced applicant", 6, |seed| {
        let mut run = Run::default();
        let mut truth = Truth { liars: [SeedId(6), SeedId(7)].into(), ..Truth::default() };
        let mut fleet = Fleet::started(seed, &plan(7, 3, QuorumRule::Byzantine));
        fleet.settle(secs(20));
        let (host, switch) = two_faced(&mut fleet, &[1, 2, 3, 4, 5, 6, 7]);
        let at = |ids: &[u16]| ids.iter().map(|id| seed_endpoint(*id)).collect::<Vec<_>>();
        let (near, far, liars) = (at(&[1, 2, 3]), at(&[4, 5]), [6_u16, 7]);
        fleet.world.partition(&[&near, &far]);
        far.iter().for_each(|it| fleet.world.cut(host, *it));
        // The liars tell the far part nothing of the first key, and vote for the second there.
        let life = fleet.world.wall(host);
        let other = MemberInstance {
            endpoint: host,
            incarnation: folkmoot::model::Incarnation(life.0),
            key: ghost().key,
        };
        let began = fleet.world.now();
        for id in liars {
            let far = far.clone();
            fleet.world.set_tamper(
                seed_endpoint(id),
                Box::new(move |_, outgoing: &TamperedMessage<'_>| {
                    let is_far = outgoing.to.is_some_and(|to| far.contains(&to));
                    let keeps_up = matches!(
                        outgoing.msg,
                        Message::Ping(_)
                            | Message::Pong(_)
                            | Message::Hello(_)
                            | Message::HelloAck(_)
                            | Message::HelloProof(_)
                    );
                    let is_late = outgoing.at.since(began) > secs(60);
                    match outgoing.msg {
                        Message::SeedDigest(_) if is_far && !is_late => {
                            vec![common::liars::welcome(id, &other, life).into()]
                        }
                        _ if is_far && !keeps_up && !is_late => vec![],
                        msg => vec![msg.clone()],
                    }
                }),
            );
        }
        fleet.world.boot(host);
        fleet.world.run_for(secs(7));
        let node = fleet.seed(near[0]).expect("it is up").authority().registry();
        assert!(node.alive_at(host).is_some(), "the first key is in, in the near part");
        for (near, far) in near.iter().zip(far.iter().cycle()) {
            fleet.world.mend(host, *far);
            fleet.world.cut(host, *near);
        }
        truth.falls_ill(host, fleet.world.now());
        switch.store(true, Ordering::Relaxed);
        boot_in_the_life(&mut fleet, host, life);
        fleet.world.run_for(secs(20));
        for id in [4, 5] {
            assert!(
                keys_voted_for(&fleet, id, host).contains(&ghost().key),
                "seed {id} was fooled"
            );
        }
        fleet.world.bury(host);
        fleet.world.heal();
        fleet.world.run_until(began.after(secs(61)));
        let (seeds, peers) = (fleet.seeds.clone(), fleet.peers.clone());
        run.settle(&mut fleet, (&seeds, &peers), secs(60));
        close(run, &fleet, &truth)
    });
}

/// Lying peers about one member: with the true keys of all of them, each reports again and again
/// that it is dead, and testifies so whoever asks.
fn accuse(fleet: &mut Fleet, victim: MemberInstance, gang: &[Endpoint]) {
    for liar in gang {
        let (liar, gang, epoch) = (*liar, gang.to_vec(), fleet.epoch);
        fleet.world.set_tamper(
            liar,
            Box::new(move |rng, outgoing: &TamperedMessage<'_>| {
                let at = wall(epoch, outgoing);
                let to_seed = outgoing.to.is_some_and(|to| to.port() == 5001);
                let mut said = match outgoing.msg {
                    Message::SuspectAck(honest) if honest.subject() == victim => {
                        vec![finding(&victim, liar, Finding::Refused, at).into()]
                    }
                    honest => vec![honest.clone()],
                };
                let is_open = matches!(
                    outgoing.msg,
                    Message::Ping(_) | Message::Pong(_) | Message::Neighbors(_)
                );
                if is_open {
                    let found: Vec<_> =
                        gang.iter().map(|it| finding(&victim, *it, Finding::Silent, at)).collect();
                    said.push(match rng.random_range(0..3) {
                        0 => found[0].into(),
                        1 if !to_seed => {
                            let MemberInstance { endpoint, incarnation, key } = victim;
                            folkmoot::proto::liveness::SuspectReq { endpoint, incarnation, key }
                                .into()
                        }
                        _ => report(&victim, liar, at, found).into(),
                    });
                }
                said
            }),
        );
    }
}

/// Lying peers about one member: it answers them, whether it does or not.
fn shield(fleet: &mut Fleet, victim: MemberInstance, gang: &[Endpoint]) {
    for liar in gang {
        let (liar, epoch) = (*liar, fleet.epoch);
        fleet.world.set_tamper(
            liar,
            Box::new(move |_, outgoing: &TamperedMessage<'_>| {
                let at = wall(epoch, outgoing);
                match outgoing.msg {
                    Message::SuspectAck(honest) if honest.subject() == victim => {
                        vec![finding(&victim, liar, Finding::Alive, at).into()]
                    }
                    Message::DeadReport(honest) if honest.endpoint == victim.endpoint => vec![],
                    honest => vec![honest.clone()],
                }
            }),
        );
    }
}

fn settled(seed: u64, peers: u16) -> Fleet {
    let mut fleet = Fleet::started(seed, &plan(3, peers, QuorumRule::Majority));
    fleet.settle(secs(30));
    let peers = fleet.peers.clone();
    fleet.run_until(secs(30), "the overlay is whole", |fleet| {
        overlay_fault(fleet, &peers).is_none()
    });
    fleet.world.run_for(secs(2));
    fleet
}

#[test]
fn neighbors_that_accuse_falsely_take_nobody_out_however_many_they_are() {
    campaign("falsely accusing peers", 16, |seed| {
        let mut run = Run::default();
        let mut fleet = settled(seed, 10);
        let victim = *fleet.peers.iter().choose(&mut dice(seed)).expect("there are peers");
        let own = neighbors(&fleet, victim);
        // Below a majority of its neighbors, exactly one, all of them, and everybody.
        let gang = match seed % 4 {
            0 => own[..(own.len() - 1) / 2].to_vec(),
            1 => own[..own.len() / 2 + 1].to_vec(),
            2 => own,
            _ => fleet.peers.iter().copied().filter(|it| *it != victim).collect(),
        };
        let subject = subject_of(&fleet, victim);
        accuse(&mut fleet, subject, &gang);
        fleet.world.run_for(secs(40));
        let (seeds, peers) = (fleet.seeds.clone(), fleet.peers.clone());
        run.settle(&mut fleet, (&seeds, &peers), secs(20));
        assert_eq!(subject_of(&fleet, victim), subject, "in the same life");
        assert_eq!(removals(&fleet), BTreeSet::new());
        close(run, &fleet, &Truth::default())
    });
}

#[test]
fn neighbors_below_a_majority_that_shield_the_dead_keep_nobody_in() {
    campaign("falsely shielding peers", 16, |seed| {
        let (mut run, mut truth) = (Run::default(), Truth::default());
        let mut fleet = settled(seed, 10);
        let mut rng = dice(seed);
        let victim = *fleet.peers.iter().choose(&mut rng).expect("there are peers");
        let own = neighbors(&fleet, victim);
        let gang = own.iter().copied().sample(&mut rng, (own.len() - 1) / 2);
        let subject = subject_of(&fleet, victim);
        shield(&mut fleet, subject, &gang);
        fleet.kill(&mut truth, victim, seed % 2 == 0);
        let rest: Vec<_> = fleet.peers.iter().copied().filter(|it| *it != victim).collect();
        let seeds = fleet.seeds.clone();
        run.settle(&mut fleet, (&seeds, &rest), secs(60));
        close(run, &fleet, &truth)
    });
}

#[test]
fn a_majority_that_shields_the_dead_keeps_it_in_no_longer_than_it_lies() {
    campaign("shielding majority", 8, |seed| {
        let (mut run, mut truth) = (Run::default(), Truth::default());
        let mut fleet = settled(seed, 10);
        let victim = *fleet.peers.iter().choose(&mut dice(seed)).expect("there are peers");
        let gang = neighbors(&fleet, victim);
        let subject = subject_of(&fleet, victim);
        shield(&mut fleet, subject, &gang);
        fleet.kill(&mut truth, victim, seed % 2 == 0);
        fleet.world.run_for(secs(60));
        // What M6 costs: without a majority of its neighbors nobody is removed.
        assert!(fleet.all_seeds_list(&fleet.peers), "its neighbors say that it answers");
        for liar in gang {
            fleet.world.set_tamper(liar, Box::new(|_, outgoing| vec![outgoing.msg.clone()]));
        }
        let rest: Vec<_> = fleet.peers.iter().copied().filter(|it| *it != victim).collect();
        let seeds = fleet.seeds.clone();
        run.settle(&mut fleet, (&seeds, &rest), secs(60));
        close(run, &fleet, &truth)
    });
}
