//! Tests of the simulator: a world that cannot be trusted proves nothing about machines.

mod clerk;
mod links;
mod processes;
mod toy;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::{
    DurationRange, FaultCounts, FaultEffect, IntruderState, Weather, WeatherFault, World,
    WorldOptions, for_each_seed, single_seed,
};
use crate::model::{Endpoint, Time};
use toy::{Order, Toy, ToyReport};

const SECOND: Duration = Duration::from_secs(1);

fn ip(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

fn at(number: u8) -> Endpoint {
    Endpoint::new(ip(number), 6_000)
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Hosts 1 to `count`, booted, that act only on orders.
fn idle_world(count: u8, options: WorldOptions) -> World<Toy> {
    let mut world = World::new(5, options);
    for number in 1..=count {
        world.add_host(at(number), Box::new(Toy::idle));
        world.boot(at(number));
    }
    world
}

/// Host 1 and 2 with one link, dialed by 1.
fn linked_world(options: WorldOptions) -> World<Toy> {
    let mut world = idle_world(2, options);
    dial(&mut world, 1, 2);
    world.run_for(SECOND);
    assert_eq!(world.open_links(at(1), at(2)), 1);
    world.take_events();
    world
}

fn dial(world: &mut World<Toy>, from: u8, to: u8) {
    assert!(world.command(at(from), Order::Dial(at(to), 5 * SECOND)));
}

fn told(world: &World<Toy>, number: u8) -> Vec<ToyReport> {
    let events = world.events().iter();
    events.filter(|(_, by, _)| *by == at(number)).map(|(_, _, told)| told.clone()).collect()
}

fn heard(text: &str) -> ToyReport {
    ToyReport::Heard(text.to_owned())
}

fn failure(action: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(action)).expect_err("it is to fail");
    panic.downcast_ref::<String>().expect("a formatted reason").clone()
}

/// Eight busy hosts in a drawn storm for 40 seconds.
fn stormy_world(seed: u64, weather: &Weather) -> World<Toy> {
    let options =
        WorldOptions { weather: weather.clone(), patience: 15 * SECOND, ..WorldOptions::default() };
    let mut world = World::new(seed, options);
    let all: Vec<_> = (1..=8).map(at).collect();
    for endpoint in &all {
        let friends: Vec<_> = all.iter().copied().filter(|friend| friend != endpoint).collect();
        world.add_host(*endpoint, Box::new(move |boot| Toy::busy(boot, &friends)));
        world.boot_at(*endpoint, Time::ZERO.after(millis(u64::from(endpoint.port()) % 7)));
    }
    world.storm(weather, Time::ZERO.after(40 * SECOND));
    world
}

/// Checks that every note in an event is on its author's disk or in its memory of it.
fn told_is_durable(world: &World<Toy>) -> Result<(), String> {
    for (time, by, told) in world.events() {
        if let ToyReport::Noted(number) = told
            && !world.records(*by).contains(number)
        {
            return Err(format!("{by} told of {number} at {time:?}, which its disk has not"));
        }
    }
    Ok(())
}

#[test]
fn one_seed_is_one_life_and_another_seed_another() {
    let life = |seed| {
        let mut world = stormy_world(seed, &Weather::draw(seed));
        world.run_until(Time::ZERO.after(20 * SECOND));
        (world.steps(), format!("{:?}", world.events()))
    };
    assert_eq!(life(3), life(3));
    assert_ne!(life(3), life(4));
}

#[test]
fn storms_break_no_promise_and_every_fault_is_met() {
    let tallies = for_each_seed(60, |seed| {
        let mut weather = Weather::draw(seed);
        if seed % 2 == 1 {
            weather = weather.with(WeatherFault::Kill).with(WeatherFault::SlowDisk);
            weather.death_ppm = 200;
        }
        let mut world = stormy_world(seed, &weather);
        world.run_until(Time::ZERO.after(40 * SECOND));
        told_is_durable(&world).unwrap();
        world.calm_down();
        world.run_for(20 * SECOND);
        told_is_durable(&world).unwrap();
        assert!(world.hosts().all(|host| world.is_up(host)), "calm brings everybody back");
        let mut ended = BTreeSet::new();
        for (_, by, told) in world.events() {
            if let ToyReport::Down(link) = told {
                assert!(ended.insert((*by, *link)), "{by} was told twice of the end of {link:?}");
            }
        }
        world.tally()
    });
    if single_seed().is_some() {
        return;
    }
    let mut all = FaultCounts::default();
    tallies.iter().for_each(|tally| all += tally);
    for fault in WeatherFault::ALL.into_iter().filter(|fault| *fault != WeatherFault::Wipe) {
        assert!(all.faults(fault) > 0, "{fault:?} never happened");
        assert!(tallies.iter().any(|tally| tally.faults(fault) == 0), "{fault:?} always happened");
    }
    for trouble in [
        FaultEffect::LostInFlight,
        FaultEffect::SentInVain,
        FaultEffect::Held,
        FaultEffect::LinkTimedOut,
        FaultEffect::DialRefused,
        FaultEffect::DialTimedOut,
        FaultEffect::LostRecord,
        FaultEffect::KeptUnsynced,
        FaultEffect::Snapshot,
        FaultEffect::HandledLate,
    ] {
        assert!(all.troubles(trouble) > 0, "{trouble:?} was never met");
    }
}

#[test]
fn effects_that_pass_the_disk_would_be_noticed() {
    let mut weather = Weather::calm().with(WeatherFault::Crash);
    weather.fsync = DurationRange::millis(50, 200);
    let broken = |leaky| {
        (0..10).any(|seed| {
            let mut world = stormy_world(seed, &weather);
            world.leaky = leaky;
            world.run_until(Time::ZERO.after(20 * SECOND));
            world.calm_down();
            world.run_for(SECOND);
            told_is_durable(&world).is_err()
        })
    };
    assert!(broken(true), "the check sees a leak");
    assert!(!broken(false), "and there is none");
}

#[test]
fn a_failing_seed_is_named() {
    if single_seed().is_some() || std::env::var_os("SEEDS").is_some() {
        return;
    }
    assert_eq!(for_each_seed(4, |seed| seed * 2), [0, 2, 4, 6]);
    let said = failure(|| drop(for_each_seed(40, |seed| assert!(seed != 7, "seven"))));
    assert_eq!(said, "SEED=7 fails: seven");
}
