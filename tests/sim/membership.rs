//! The membership in simulation: safety in any weather, liveness after it calms.

use crate::common;

use std::time::Duration;

use common::checkers::{check_safety, overlay_fault, removals, seeds_agree, undelivered};
use common::{Fleet, Plan, peer_endpoint, seed_endpoint};
use folkmoot::machine::membership::{applicant, authority};
use folkmoot::machine::session::RejectReason;
use folkmoot::model::Endpoint;
use folkmoot::node::{Event, peer_kind, seed_kind};
use folkmoot::sim::{FaultCounts, Weather, WeatherFault, WorldOptions, for_each_seed, single_seed};

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
        options: WorldOptions { weather: weather.clone(), ..WorldOptions::default() },
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
        let mut all = FaultCounts::default();
        for tally in &tallies {
            all += tally;
        }
        for fault in WeatherFault::ALL {
            let is_drawn =
                !matches!(fault, WeatherFault::Wipe | WeatherFault::Kill | WeatherFault::SlowDisk);
            assert!(!is_drawn || all.faults(fault) > 0, "{fault:?} never happened");
        }
    }
}

#[test]
fn clocks_that_were_days_off_keep_nobody_out_once_they_are_right() {
    for_each_seed(60, |seed| {
        let month = secs(30 * 24 * 3_600);
        let weather = Weather { skew: month, ..Weather::draw(seed).with(WeatherFault::Skew) };
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

#[test]
fn lists_of_seeds_in_another_order_are_the_same_list() {
    for_each_seed(30, |seed| {
        let drift = vec![
            (seed_endpoint(2), vec![3, 1, 2]),
            (seed_endpoint(3), vec![2, 3, 1]),
            (peer_endpoint(1), vec![3, 2, 1]),
            (peer_endpoint(2), vec![2, 3, 1]),
        ];
        let mut fleet = Fleet::started(seed, &Plan { peers: 6, drift, ..Plan::default() });
        fleet.settle(secs(20));
        let peers = fleet.peers.clone();
        fleet.run_until(secs(20), "the overlay is whole", |fleet| {
            overlay_fault(fleet, &peers).is_none()
        });
        for host in [fleet.seeds[1], fleet.seeds[0], peers[0]] {
            fleet.world.crash(host);
            fleet.world.run_for(secs(3));
            fleet.world.boot(host);
        }
        fleet.settle(secs(30));
        fleet.world.crash(peers[0]);
        fleet.run_until(secs(20), "a dead member is removed", |fleet| {
            fleet.all_seeds_list(&peers[1..])
        });
        assert_eq!(accusations(&fleet), Vec::<String>::new());
    });
}

/// What seeds and peers were blamed of.
fn accusations(fleet: &Fleet) -> Vec<String> {
    let is_blame = |event: &Event| match event {
        Event::Seed(
            seed_kind::Event::RejectedBySeed { .. }
            | seed_kind::Event::Authority(authority::Event::SeedKeyContradicted { .. }),
        )
        | Event::Peer(peer_kind::Event::Applicant(applicant::Event::SeedKeyContradicted {
            ..
        })) => true,
        Event::Seed(seed_kind::Event::Refused(it)) | Event::Peer(peer_kind::Event::Refused(it)) => {
            matches!(it.cause, RejectReason::Forged | RejectReason::BadHandshake)
        }
        Event::Seed(_) | Event::Peer(_) => false,
    };
    let events = fleet.world.events().iter().filter(|(_, _, event)| is_blame(event));
    events.map(|(at, host, event)| format!("{host} at {at:?}: {event:?}")).collect()
}

#[test]
fn who_lists_too_few_of_the_seeds_is_told_so_and_is_in_nobodys_list() {
    for_each_seed(20, |seed| {
        let drift = vec![
            (seed_endpoint(3), vec![1, 3]),
            (peer_endpoint(1), vec![1, 2]),
            (peer_endpoint(2), vec![2]),
            (peer_endpoint(3), vec![4, 2, 5]),
            (peer_endpoint(4), vec![1, 2, 4]),
        ];
        let mut fleet = Fleet::started(seed, &Plan { peers: 8, drift, ..Plan::default() });
        let rest = fleet.peers[3..].to_vec();
        fleet.run_until(secs(30), "the others are members of each other's seeds", |fleet| {
            fleet.seeds[..2].iter().all(|seed| fleet.members_at(*seed) == rest)
        });
        fleet.world.run_for(secs(20));
        assert_eq!(fleet.members_at(fleet.seeds[2]), [], "it decides nothing with one list");
        assert_eq!(fleet.members_at(fleet.seeds[0]), rest);
        let told = |is_it: fn(&Event) -> bool| -> std::collections::BTreeSet<_> {
            let events = fleet.world.events().iter().filter(|(_, _, event)| is_it(event));
            events.map(|(_, host, _)| *host).collect()
        };
        let refused = told(|event| match event {
            Event::Peer(peer_kind::Event::Applicant(applicant::Event::Refused {
                reason, ..
            })) => reason.contains("the same list"),
            Event::Seed(_) | Event::Peer(_) => false,
        });
        assert_eq!(refused, fleet.peers[..3].iter().copied().collect());
        let warned = told(|event| {
            matches!(
                event,
                Event::Seed(seed_kind::Event::ListsDiffer(_))
                    | Event::Peer(peer_kind::Event::ListsDiffer(_))
            )
        });
        assert_eq!(warned, fleet.seeds.iter().chain([&fleet.peers[3]]).copied().collect());
        check_safety(&fleet);
    });
}

#[test]
fn seeds_are_replaced_one_by_one_and_nobody_is_called_a_forger() {
    for_each_seed(20, |seed| {
        let mut fleet = Fleet::started(seed, &Plan { peers: 5, ..Plan::default() });
        fleet.settle(secs(20));
        fleet.world.run_for(secs(5));
        for old in 1..=3 {
            let new = old + 3;
            fleet.world.crash(seed_endpoint(old));
            fleet.lists.replace(old, new);
            fleet.seeds[usize::from(old) - 1] = seed_endpoint(new);
            fleet.world.boot(seed_endpoint(new));
            let others = fleet.seeds.clone().into_iter().filter(|it| *it != seed_endpoint(new));
            for host in others.chain(fleet.peers.clone()) {
                fleet.world.crash(host);
                fleet.world.run_for(secs(1));
                fleet.world.boot(host);
                fleet.world.run_for(secs(4));
            }
            fleet.settle(secs(30));
            let peers = fleet.peers.clone();
            fleet.run_until(secs(30), "the overlay is whole", |fleet| {
                overlay_fault(fleet, &peers).is_none()
            });
        }
        assert_eq!(accusations(&fleet), Vec::<String>::new());
        let victim = fleet.peers.remove(0);
        fleet.world.crash(victim);
        let rest = fleet.peers.clone();
        fleet.run_until(secs(20), "the new seeds decide", |fleet| fleet.all_seeds_list(&rest));
    });
}
