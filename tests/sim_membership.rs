//! The membership in simulation: safety in any weather, liveness after it calms.

mod common;

use std::time::Duration;

use common::checkers::{check_safety, overlay_fault, removals, seeds_agree, undelivered};
use common::{Fleet, Plan};
use folkmoot::model::Endpoint;
use folkmoot::node::{Event, peer_kind, seed_kind};
use folkmoot::protocol::membership::authority;
use folkmoot::sim::{Fault, Options, Tally, Weather, for_each_seed, single_seed};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_quiet_fleet_comes_together_and_stays() {
    for_each_seed(20, |seed| {
        let mut fleet = Fleet::started(seed, &Plan::default());
        fleet.settle(secs(10));
        let peers = fleet.peers.clone();
        fleet.run_until(secs(10), "the overlay is whole", |fleet| {
            overlay_fault(fleet, &peers).is_none()
        });
        fleet.world.run_for(secs(60));
        check_safety(&fleet);
        assert_eq!(overlay_fault(&fleet, &peers), None);
        assert_eq!(removals(&fleet).len(), 0, "nobody was removed");
        assert_eq!(undelivered(&fleet, &peers, folkmoot::model::Time::ZERO), []);
    });
}

#[test]
fn a_crashed_peer_is_removed_at_every_seed_and_dropped_by_every_neighbor() {
    for_each_seed(40, |seed| {
        let mut fleet = Fleet::started(seed, &Plan::default());
        fleet.settle(secs(10));
        fleet.world.run_for(secs(5));
        let mut rest = fleet.peers.clone();
        let victim = rest.remove(usize::try_from(seed % 8).expect("small"));
        let before = fleet.world.now();
        if seed % 2 == 0 {
            fleet.world.crash(victim);
        } else {
            fleet.world.pause(victim);
        }
        fleet.run_until(secs(20), "the victim is removed everywhere", |fleet| {
            fleet.all_seeds_list(&rest)
        });
        let took = fleet.world.now().since(before);
        let limit = if seed % 2 == 0 { Duration::from_millis(1_500) } else { secs(8) };
        assert!(took <= limit, "removal took {took:?}");
        fleet.run_until(secs(10), "the overlay is mended", |fleet| {
            overlay_fault(fleet, &rest).is_none()
        });
        check_safety(&fleet);
        assert_eq!(removals(&fleet).len(), 1);
    });
}

/// A fleet in this weather, with a storm over it.
fn stormy(seed: u64, weather: &Weather) -> Fleet {
    let plan = Plan {
        options: Options { weather: weather.clone(), ..Options::default() },
        ..Plan::default()
    };
    let mut fleet = Fleet::started(seed, &plan);
    let end = fleet.world.now().after(secs(60));
    fleet.world.run_for(secs(3));
    fleet.world.storm(weather, end);
    fleet.world.run_until(end);
    fleet
}

#[test]
fn safe_in_any_weather_and_live_after_it() {
    let tallies = for_each_seed(200, |seed| {
        let mut fleet = stormy(seed, &Weather::draw(seed));
        check_safety(&fleet);
        fleet.world.calm_down();
        fleet.settle(secs(90));
        let calm_since = fleet.world.now();
        let peers = fleet.peers.clone();
        fleet.run_until(secs(30), "the seeds agree", seeds_agree);
        fleet.run_until(secs(60), "the overlay is whole", |fleet| {
            overlay_fault(fleet, &peers).is_none()
        });
        fleet.world.run_for(secs(20));
        fleet.run_until(secs(30), "all gossip is delivered", |fleet| {
            undelivered(fleet, &peers, calm_since).is_empty()
        });
        check_safety(&fleet);
        fleet.world.tally()
    });
    if single_seed().is_none() {
        let mut all = Tally::default();
        for tally in &tallies {
            all += tally;
        }
        for fault in Fault::ALL {
            let is_drawn = !matches!(fault, Fault::Wipe);
            assert!(!is_drawn || all.faults(fault) > 0, "{fault:?} never happened");
        }
    }
}

#[test]
fn clocks_that_were_days_off_keep_nobody_out_once_they_are_right() {
    for_each_seed(60, |seed| {
        let month = secs(30 * 24 * 3_600);
        let weather = Weather { skew: month, ..Weather::draw(seed).with(Fault::Skew) };
        let mut fleet = stormy(seed, &weather);
        check_safety(&fleet);
        fleet.world.calm_down();
        fleet.settle(secs(90));
        fleet.run_until(secs(30), "the seeds agree", seeds_agree);
        // What was admitted in the future can still end, and be followed.
        let (victim, peers) = (fleet.peers[0], fleet.peers.clone());
        fleet.world.crash(victim);
        fleet.run_until(secs(20), "a dead member is removed", |fleet| {
            fleet.all_seeds_list(&peers[1..])
        });
        fleet.world.boot(victim);
        fleet.settle(secs(20));
        check_safety(&fleet);
    });
}

/// The hosts that have told of these two places with one key.
fn tellers(fleet: &Fleet, twins: [Endpoint; 2]) -> Vec<Endpoint> {
    let events = fleet.world.events().iter();
    let told = events.filter_map(|(_, host, event)| match event {
        Event::Seed(seed_kind::Event::Authority(authority::Event::SharedKey {
            places, ..
        }))
        | Event::Peer(peer_kind::Event::SharedKey { places, .. }) => {
            let mut places = *places;
            places.sort_unstable();
            (places == twins).then_some(*host)
        }
        Event::Seed(_) | Event::Peer(_) => None,
    });
    told.collect()
}

#[test]
fn two_members_with_one_key_work_and_seeds_and_neighbors_tell_of_it() {
    for_each_seed(20, |seed| {
        let plan = Plan { peers: 4, twins: true, ..Plan::default() };
        let mut fleet = Fleet::started(seed, &plan);
        fleet.settle(secs(10));
        let peers = fleet.peers.clone();
        fleet.run_until(secs(20), "the overlay is whole", |fleet| {
            overlay_fault(fleet, &peers).is_none()
        });
        fleet.world.run_for(secs(20));
        let told = tellers(&fleet, [peers[0], peers[1]]);
        assert!(fleet.seeds.iter().all(|seed| told.contains(seed)), "{told:?}");
        assert!(peers.iter().any(|peer| told.contains(peer)), "{told:?}");
        assert_eq!(removals(&fleet).len(), 0);
        assert_eq!(undelivered(&fleet, &peers, folkmoot::model::Time::ZERO), []);
        check_safety(&fleet);
    });
}

#[test]
fn a_machine_that_has_moved_with_its_key_raises_no_alarm() {
    for_each_seed(20, |seed| {
        let plan = Plan { twins: true, ..Plan::default() };
        let mut fleet = Fleet::new(seed, &plan);
        let (old, new) = (fleet.peers[0], fleet.peers[1]);
        for host in fleet.seeds.iter().chain(&fleet.peers).copied().collect::<Vec<_>>() {
            if host != new {
                fleet.world.boot(host);
            }
        }
        let rest: Vec<_> = fleet.peers.iter().copied().filter(|it| *it != new).collect();
        fleet.run_until(secs(20), "all but one are in", |fleet| fleet.all_seeds_list(&rest));
        fleet.world.run_for(secs(5));
        if seed % 2 == 0 {
            fleet.world.crash(old);
        } else {
            fleet.world.vanish(old);
        }
        fleet.world.boot(new);
        let rest: Vec<_> = fleet.peers[1..].to_vec();
        fleet.run_until(secs(30), "it is known at its new place alone", |fleet| {
            fleet.all_seeds_list(&rest)
        });
        fleet.world.run_for(secs(20));
        assert_eq!(tellers(&fleet, [old, new]), []);
        check_safety(&fleet);
    });
}

#[test]
fn a_member_that_seeds_reach_and_other_members_do_not_is_named() {
    for_each_seed(10, |seed| {
        let mut fleet = Fleet::new(seed, &Plan::default());
        let (alone, peers) = (fleet.peers[0], fleet.peers.clone());
        for other in &peers[1..] {
            fleet.world.cut(alone, *other);
        }
        for host in fleet.seeds.iter().chain(&peers).copied().collect::<Vec<_>>() {
            fleet.world.boot(host);
        }
        let told = |fleet: &Fleet, is_alone: bool| {
            fleet.world.events().iter().any(|(_, _, event)| {
                matches!(event,
                Event::Seed(seed_kind::Event::Authority(
                    authority::Event::Isolated { members, alone: it },
                )) if *it == is_alone && *members == [alone])
            })
        };
        fleet.run_until(secs(90), "it is named", |fleet| told(fleet, true));
        assert!(fleet.all_seeds_list(&peers), "nobody was removed");
        fleet.world.heal();
        fleet.run_until(secs(90), "it is no more", |fleet| told(fleet, false));
        check_safety(&fleet);
    });
}
