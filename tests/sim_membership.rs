//! The membership in simulation: safety in any weather, liveness after it calms.

mod common;

use std::time::Duration;

use common::checkers::{check_safety, overlay_fault, removals, seeds_agree, undelivered};
use common::{Fleet, Plan};
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

/// A fleet in weather drawn from the seed, with a storm over it.
fn stormy(seed: u64) -> Fleet {
    let weather = Weather::draw(seed);
    let plan = Plan {
        options: Options { weather: weather.clone(), ..Options::default() },
        ..Plan::default()
    };
    let mut fleet = Fleet::started(seed, &plan);
    let end = fleet.world.now().after(secs(60));
    fleet.world.run_for(secs(3));
    fleet.world.storm(&weather, end);
    fleet.world.run_until(end);
    fleet
}

#[test]
fn safe_in_any_weather_and_live_after_it() {
    let tallies = for_each_seed(200, |seed| {
        let mut fleet = stormy(seed);
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
