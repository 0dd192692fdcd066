//! Named situations, each in many draws of latency and chance.

use crate::common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::checkers::{check_safety, overlay_fault, removals, seeds_agree};
use common::{Fleet, Plan, peer_endpoint};
use folkmoot::machine::liveness;
use folkmoot::machine::membership::authority::{self, OperatorOrder};
use folkmoot::machine::quorum::QuorumRule;
use folkmoot::model::entry::MemberState;
use folkmoot::model::statement::{MemberInstance, Proposal};
use folkmoot::model::{Endpoint, SeedId};
use folkmoot::node::{Command, Event, peer_kind, seed_kind};
use folkmoot::sim::for_each_seed;

const RUNS: u64 = 20;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn settled(seed: u64, plan: &Plan) -> Fleet {
    let mut fleet = Fleet::started(seed, plan);
    fleet.settle(secs(15));
    let peers = fleet.peers.clone();
    fleet.run_until(secs(15), "the overlay is whole", |fleet| {
        overlay_fault(fleet, &peers).is_none()
    });
    fleet.world.run_for(secs(2));
    fleet
}

fn suspicions(fleet: &Fleet) -> usize {
    let is_suspicion = |event: &Event| {
        matches!(event, Event::Peer(peer_kind::Event::Liveness(liveness::Event::Suspected { .. })))
    };
    fleet.world.events().iter().filter(|(_, _, event)| is_suspicion(event)).count()
}

/// How often each seed said that a quorum was lost, and found again.
fn quorum_reports(fleet: &Fleet, seed: Endpoint, wanted: bool) -> usize {
    let is_report = |(_, host, event): &&(_, Endpoint, Event)| {
        *host == seed
            && matches!(event, Event::Seed(seed_kind::Event::Authority(
                authority::Event::Quorum { reached, .. })) if *reached == wanted)
    };
    fleet.world.events().iter().filter(is_report).count()
}

#[test]
fn a_fleet_of_one_seed_and_a_fleet_of_seven_work() {
    for_each_seed(RUNS, |seed| {
        for (seeds, peers) in [(1, 3), (2, 4), (5, 5), (7, 4)] {
            let fleet = settled(seed, &Plan { seeds, peers, ..Plan::default() });
            check_safety(&fleet);
        }
    });
}

#[test]
fn the_byzantine_rule_decides_with_three_of_four_and_not_with_two() {
    for_each_seed(RUNS, |seed| {
        let plan = Plan { seeds: 4, peers: 5, rule: QuorumRule::Byzantine, ..Plan::default() };
        let mut fleet = settled(seed, &plan);
        fleet.world.crash(fleet.seeds[0]);
        let mut rest = fleet.peers.clone();
        let first = rest.remove(0);
        fleet.world.crash(first);
        fleet.run_until(secs(20), "three of four decide", |fleet| fleet.all_seeds_list(&rest));
        fleet.world.crash(fleet.seeds[1]);
        fleet.world.crash(rest[0]);
        fleet.world.run_for(secs(20));
        assert!(fleet.all_seeds_list(&rest), "two of four do not");
        check_safety(&fleet);
    });
}

#[test]
fn without_a_quorum_nobody_is_admitted_and_the_peer_gets_in_by_itself_later() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = Fleet::new(seed, &Plan { peers: 1, ..Plan::default() });
        fleet.world.boot(fleet.seeds[0]);
        fleet.world.boot(fleet.peers[0]);
        fleet.world.run_for(secs(20));
        assert!(fleet.all_seeds_list(&[]), "one seed of three decides nothing");
        let peer = fleet.peer(fleet.peers[0]).expect("it is up");
        assert!(peer.applicant().admission().is_none());
        fleet.world.boot(fleet.seeds[2]);
        let peers = fleet.peers.clone();
        fleet.run_until(secs(40), "two of three seeds admit", |fleet| fleet.all_seeds_list(&peers));
        check_safety(&fleet);
    });
}

#[test]
fn without_a_quorum_nobody_is_removed_and_each_seed_says_so_once() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        let [first, second, third] = fleet.seeds[..] else { panic!("three seeds") };
        fleet.world.crash(first);
        fleet.world.crash(second);
        fleet.world.run_for(secs(2));
        let mut rest = fleet.peers.clone();
        let victim = rest.remove(0);
        fleet.world.crash(victim);
        fleet.world.run_for(secs(30));
        assert_eq!(fleet.members_at(third), fleet.peers, "one seed of three removes nobody");
        assert_eq!(quorum_reports(&fleet, third, false), 1, "said once");
        fleet.world.restart(first);
        fleet.run_until(secs(40), "two of three seeds remove", |fleet| fleet.all_seeds_list(&rest));
        assert_eq!(quorum_reports(&fleet, third, true), 2);
        check_safety(&fleet);
    });
}

#[test]
fn a_leave_is_known_at_once_and_raises_no_suspicion() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        let before = suspicions(&fleet);
        let mut rest = fleet.peers.clone();
        let leaver = rest.remove(2);
        fleet.world.command(leaver, Command::Peer(peer_kind::Command::Leave));
        fleet.run_until(secs(1), "it is out", |fleet| fleet.all_seeds_list(&rest));
        fleet.world.crash(leaver);
        fleet.world.run_for(secs(20));
        for seed in &fleet.seeds {
            let node = fleet.seed(*seed).expect("it is up");
            let entry = node.authority().registry().get(leaver).expect("a tombstone");
            assert_eq!(entry.status(), MemberState::Left);
        }
        assert_eq!(suspicions(&fleet), before, "nobody suspected anybody");
        assert_eq!(removals(&fleet), BTreeSet::new());
        check_safety(&fleet);
    });
}

#[test]
fn a_restarted_peer_is_a_fresh_member() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        let victim = fleet.peers[3];
        let old = fleet.peer(victim).expect("it is up").applicant().subject();
        fleet.world.crash(victim);
        if seed % 2 == 0 {
            fleet.world.run_for(secs(5)); // Long enough to be removed first.
        }
        fleet.world.restart(victim);
        fleet.settle(secs(20));
        let new = fleet.peer(victim).expect("it is up").applicant().subject();
        assert!(new.incarnation > old.incarnation);
        assert_eq!(new.key, old.key, "the same identity");
        let peers = fleet.peers.clone();
        fleet.run_until(secs(20), "the overlay is whole", |fleet| {
            overlay_fault(fleet, &peers).is_none()
        });
        check_safety(&fleet);
    });
}

#[test]
fn a_peer_that_was_cut_off_and_removed_registers_again_by_itself() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        let mut rest = fleet.peers.clone();
        let island = rest.remove(1);
        let mainland: Vec<_> = rest.iter().chain(&fleet.seeds).copied().collect();
        fleet.world.partition(&[&[island], &mainland]);
        fleet.run_until(secs(20), "it is removed", |fleet| fleet.all_seeds_list(&rest));
        fleet.world.run_for(secs(10));
        fleet.world.reunite();
        fleet.settle(secs(60));
        assert_eq!(removals(&fleet).len(), 1);
        check_safety(&fleet);
    });
}

#[test]
fn a_certified_end_is_known_to_who_asks_and_taken_back_with_the_next_life() {
    let knows = |fleet: &Fleet, at: Endpoint, gone: Endpoint| {
        let peer = fleet.peer(at).expect("it is up");
        peer.ended().any(|it| it.endpoint == gone)
    };
    let ask = |fleet: &mut Fleet, at: Endpoint, about: Endpoint| {
        fleet.world.command(at, Command::Peer(peer_kind::Command::AskSeeds(about)));
        fleet.world.run_for(secs(2));
    };
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        let (gone, late) = (fleet.peers[0], fleet.peers[1]);
        let rest = fleet.peers[1..].to_vec();
        ask(&mut fleet, late, gone);
        assert!(!knows(&fleet, late, gone), "it lives");
        fleet.world.crash(gone);
        fleet.run_until(secs(20), "it is removed", |fleet| fleet.all_seeds_list(&rest));
        fleet.world.run_for(secs(2));
        assert!(rest.iter().all(|it| knows(&fleet, *it, gone)));
        // Who was away when it was certified has not heard of it, and asks.
        fleet.world.crash(late);
        fleet.world.run_for(secs(1));
        fleet.world.restart(late);
        fleet.run_until(secs(60), "it is back", |fleet| fleet.all_active(&[late]));
        assert!(!knows(&fleet, late, gone));
        ask(&mut fleet, late, gone);
        assert!(knows(&fleet, late, gone));
        // The same key in a later life has not ended.
        fleet.world.restart(gone);
        fleet.settle(secs(60));
        for at in rest {
            ask(&mut fleet, at, gone);
            assert!(!knows(&fleet, at, gone));
        }
        check_safety(&fleet);
    });
}

#[test]
fn a_restart_of_all_seeds_loses_nothing_and_removes_nobody() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        for endpoint in fleet.seeds.clone() {
            fleet.world.crash(endpoint);
        }
        fleet.world.run_for(secs(5));
        for endpoint in fleet.seeds.clone() {
            fleet.world.restart(endpoint);
        }
        let peers = fleet.peers.clone();
        assert!(fleet.all_seeds_list(&peers), "the registry was on disk");
        fleet.world.run_for(secs(40));
        assert!(fleet.all_active(&peers) && fleet.all_seeds_list(&peers));
        assert_eq!(removals(&fleet), BTreeSet::new());
        check_safety(&fleet);
    });
}

#[test]
fn a_seed_that_was_away_catches_up_and_one_that_lost_its_disk_does_so_before_it_votes() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan { peers: 6, ..Plan::default() });
        let away = fleet.seeds[2];
        fleet.world.crash(away);
        let gone = fleet.peers[0];
        fleet.world.crash(gone);
        let rest = fleet.peers[1..].to_vec();
        fleet.run_until(secs(20), "removed without the third seed", |fleet| {
            fleet.all_seeds_list(&rest)
        });
        if seed % 2 == 0 {
            fleet.world.restart(away);
        } else {
            fleet.world.wipe(away);
            let node = fleet.seed(away).expect("it is up");
            assert!(!node.authority().is_ready(), "nothing is known yet, so nothing is voted on");
        }
        fleet.run_until(secs(10), "it has caught up", |fleet| {
            fleet.all_seeds_list(&rest) && seeds_agree(fleet)
        });
        let node = fleet.seed(away).expect("it is up");
        assert!(node.authority().is_ready());
        // It votes again: with another seed away, nothing can be decided without it.
        fleet.world.crash(fleet.seeds[0]);
        fleet.world.restart(gone);
        let peers = fleet.peers.clone();
        fleet.run_until(secs(30), "admitted with its vote", |fleet| fleet.all_seeds_list(&peers));
        check_safety(&fleet);
    });
}

#[test]
fn a_third_of_the_fleet_dies_at_once_and_all_of_it_is_removed() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan { peers: 15, ..Plan::default() });
        let (dead, rest) = fleet.peers.split_at(5);
        let (dead, rest) = (dead.to_vec(), rest.to_vec());
        for victim in &dead {
            if seed % 2 == 0 { fleet.world.crash(*victim) } else { fleet.world.vanish(*victim) }
        }
        fleet.run_until(secs(40), "the dead are out", |fleet| fleet.all_seeds_list(&rest));
        fleet.run_until(secs(20), "the overlay is mended", |fleet| {
            overlay_fault(fleet, &rest).is_none()
        });
        assert_eq!(removals(&fleet).len(), 5, "the dead and nobody else");
        check_safety(&fleet);
    });
}

#[test]
fn the_last_member_is_removed_by_the_seeds_alone() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan { peers: 2, ..Plan::default() });
        let (first, second) = (fleet.peers[0], fleet.peers[1]);
        fleet.world.crash(first);
        fleet.run_until(secs(20), "one is left", |fleet| fleet.all_seeds_list(&[second]));
        fleet.world.crash(second);
        fleet.run_until(secs(40), "nobody is left", |fleet| fleet.all_seeds_list(&[]));
        check_safety(&fleet);
    });
}

#[test]
fn a_short_pause_removes_nobody() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        let sleeper = fleet.peers[4];
        fleet.world.pause(sleeper);
        fleet.world.run_for(Duration::from_millis(1_500));
        fleet.world.resume(sleeper);
        fleet.world.run_for(secs(20));
        assert_eq!(removals(&fleet), BTreeSet::new());
        check_safety(&fleet);
    });
}

#[test]
fn everybody_rejoins_after_all_of_a_rack_restarts() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        for port in 1..=5 {
            fleet.world.crash(peer_endpoint(port));
        }
        fleet.world.run_for(Duration::from_millis(300));
        for port in 1..=5 {
            fleet.world.restart(peer_endpoint(port));
        }
        fleet.settle(secs(30));
        check_safety(&fleet);
    });
}

#[test]
fn a_peer_that_only_the_seeds_cannot_reach_is_not_removed() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        let victim = fleet.peers[3];
        for seed in fleet.seeds.clone() {
            fleet.world.cut(victim, seed);
            fleet.world.reset_link(victim, seed);
        }
        fleet.world.run_for(secs(60));
        assert_eq!(removals(&fleet), BTreeSet::new(), "its neighbors reach it: no witness, no yes");
        check_safety(&fleet);
    });
}

/// The distinct certificates by which lives ended, at any seed.
fn removal_decisions(fleet: &Fleet) -> BTreeSet<Vec<MemberInstance>> {
    let events = fleet.world.events().iter();
    events
        .filter_map(|(_, _, event)| match event {
            Event::Seed(seed_kind::Event::Authority(authority::Event::Removed {
                removal, ..
            })) => Some(removal.lives.clone()),
            Event::Seed(_) | Event::Peer(_) => None,
        })
        .collect()
}

#[test]
fn ten_that_die_at_once_are_one_or_two_decisions() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan { peers: 40, ..Plan::default() });
        let dead: Vec<_> = fleet.peers[10..20].to_vec();
        for peer in &dead {
            fleet.world.crash(*peer);
        }
        fleet.run_until(secs(5), "all ten are removed", |fleet| {
            removals(fleet).len() == dead.len() && seeds_agree(fleet)
        });
        check_safety(&fleet);
        let decisions = removal_decisions(&fleet);
        assert!(decisions.len() <= 2, "{decisions:?}");
    });
}

/// What `order` about `endpoint` means at the first seed.
fn meaning(fleet: &Fleet, order: OperatorOrder, endpoint: Endpoint) -> Proposal {
    let seed = fleet.seed(fleet.seeds[0]).expect("it is up");
    seed.authority().meaning(order, endpoint).expect("it means something")
}

fn order(fleet: &mut Fleet, seed: Endpoint, proposal: Proposal) {
    fleet.world.command(seed, Command::Seed(seed_kind::Command::Order { proposal }));
}

#[test]
fn an_eviction_takes_a_quorum_of_operators_and_the_evicted_one_comes_back() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        let (seeds, all, victim) = (fleet.seeds.clone(), fleet.peers.clone(), fleet.peers[3]);
        let evict = meaning(&fleet, OperatorOrder::Evict, victim);
        order(&mut fleet, seeds[0], evict);
        order(&mut fleet, seeds[0], evict);
        fleet.world.run_for(secs(5));
        assert!(removals(&fleet).is_empty(), "one operator removes nobody");
        let state = fleet.seed(seeds[1]).expect("it is up").authority().order_state(&evict);
        assert_eq!(state.expect("it waits").seeds, [SeedId(1)]);
        order(&mut fleet, seeds[2], evict);
        fleet.run_until(secs(5), "it is out", |fleet| removals(fleet).len() == 1);
        fleet.run_until(secs(20), "it is back", |fleet| fleet.all_seeds_list(&all));
        let life = fleet.peer(victim).expect("it is up").applicant().subject();
        assert!(life.incarnation > evict.subject.incarnation);
        // The same order, repeated, means the life that has ended.
        order(&mut fleet, seeds[1], evict);
        fleet.world.run_for(secs(5));
        assert_eq!(removals(&fleet).len(), 1, "the new life is untouched");
        check_safety(&fleet);
    });
}

#[test]
fn a_ban_keeps_endpoint_and_key_out_until_it_is_lifted() {
    for_each_seed(RUNS, |seed| {
        let mut fleet = settled(seed, &Plan::default());
        let (seeds, all, victim) = (fleet.seeds.clone(), fleet.peers.clone(), fleet.peers[3]);
        let rest: Vec<_> = all.iter().copied().filter(|it| *it != victim).collect();
        let ban = meaning(&fleet, OperatorOrder::Ban, victim);
        // One seed hears of it only when it is back.
        fleet.world.crash(seeds[1]);
        order(&mut fleet, seeds[0], ban);
        order(&mut fleet, seeds[2], ban);
        fleet.run_until(secs(10), "it is out", |fleet| removals(fleet).len() == 1);
        fleet.world.restart(seeds[1]);
        fleet.world.run_for(secs(30));
        fleet.world.restart(victim);
        fleet.world.run_for(secs(30));
        assert!(fleet.all_seeds_list(&rest), "it stays out, whatever it tries");
        for seed in &seeds {
            fleet.world.restart(*seed);
            fleet.world.run_for(secs(5));
        }
        assert!(fleet.all_seeds_list(&rest), "and after a restart of all seeds");
        let unban = meaning(&fleet, OperatorOrder::Unban, victim);
        order(&mut fleet, seeds[1], unban);
        fleet.world.run_for(secs(5));
        assert!(fleet.all_seeds_list(&rest), "one operator lifts no ban");
        order(&mut fleet, seeds[2], unban);
        fleet.run_until(secs(90), "it is in again", |fleet| fleet.all_seeds_list(&all));
        check_safety(&fleet);
    });
}
