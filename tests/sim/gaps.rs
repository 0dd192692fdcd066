//! Broadcasts to hosts that stand still, are slow, or come back late: each message arrives, or the
//! host is told how many it missed.

use crate::cast;

use std::time::Duration;

use cast::{Cast, host};
use folkmoot::machine::broadcast::Config;
use folkmoot::model::Endpoint;
use folkmoot::sim::for_each_seed;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A fleet of twelve that holds a quarter of a mebibyte, about 64 messages of 3 KiB.
fn small(seed: u64) -> Cast {
    let config = Config { held_bytes_max: 262_144, ..Config::default() };
    let mut cast = Cast::with(seed, 12, config);
    cast.start();
    cast
}

/// Publishes for some time, 3 KiB each 5 ms.
fn talk(cast: &mut Cast, from: Endpoint, span: Duration) {
    let end = cast.world.now().after(span);
    while cast.world.now() < end {
        if cast.waiting.get(&from).is_none_or(std::collections::VecDeque::is_empty) {
            let number = cast.published.len();
            cast.say_in_turn(from, format!("{number:>3072}").as_str(), false);
        }
        cast.run(millis(5));
    }
}

/// How many of the messages of `origin` a host has.
fn count(cast: &Cast, at: Endpoint, origin: Endpoint) -> u64 {
    let of_it = cast.published.iter().filter(|(_, (from, _))| *from == origin);
    of_it.filter(|(id, _)| cast.delivered.get(id).is_some_and(|it| it.contains_key(&at))).count()
        as u64
}

/// The hosts that lack messages of `origin` and were told of another number of them.
fn untold(cast: &Cast, origin: Endpoint) -> Vec<(Endpoint, u64, u64)> {
    let all = cast.published.values().filter(|(from, _)| *from == origin).count() as u64;
    let others = cast.hosts.iter().filter(|it| **it != origin);
    let lacks = others.map(|at| {
        let missed = cast.missed.get(&(*at, origin)).copied().unwrap_or(0);
        (*at, all - count(cast, *at, origin), missed)
    });
    lacks.filter(|(_, lacks, missed)| lacks != missed).collect()
}

#[test]
fn an_origin_waits_for_a_host_that_stands_still_for_seconds() {
    for_each_seed(4, |seed| {
        let mut cast = small(seed);
        let (origin, still) = (host(seed as u16 % 12), host((seed as u16 + 5) % 12));
        talk(&mut cast, origin, secs(1));
        cast.world.pause(still);
        talk(&mut cast, origin, secs(6));
        cast.world.resume(still);
        talk(&mut cast, origin, secs(3));
        let hosts = cast.hosts.clone();
        cast.settle(&hosts, secs(30));
        assert!(cast.metrics(origin).messages_delayed > 0, "SEED={seed}");
        assert!(cast.missed.is_empty(), "SEED={seed}: {:?}", cast.missed);
    });
}

#[test]
fn an_origin_is_no_faster_than_the_slowest_of_its_fleet() {
    for_each_seed(4, |seed| {
        let mut cast = small(seed);
        let (origin, slow) = (host(seed as u16 % 12), host((seed as u16 + 5) % 12));
        cast.world.slow_down(slow, millis(10));
        talk(&mut cast, origin, secs(20));
        let hosts = cast.hosts.clone();
        cast.settle(&hosts, secs(60));
        assert!(cast.missed.is_empty(), "SEED={seed}: {:?}", cast.missed);
        assert!(cast.published.len() > 100, "SEED={seed}: {}", cast.published.len());
    });
}

#[test]
fn a_host_that_stands_still_for_long_stops_nobody() {
    for_each_seed(4, |seed| {
        let mut cast = small(seed);
        let (origin, still) = (host(seed as u16 % 12), host((seed as u16 + 5) % 12));
        talk(&mut cast, origin, secs(1));
        cast.world.pause(still);
        talk(&mut cast, origin, secs(40));
        let before = cast.published.len();
        cast.world.resume(still);
        talk(&mut cast, origin, secs(3));
        cast.run(secs(40));
        assert!(before > 3_000, "SEED={seed}: {before}");
        assert_eq!(untold(&cast, origin), [], "SEED={seed}");
    });
}

#[test]
fn a_host_that_was_cut_off_is_told_what_nobody_holds_any_more() {
    for_each_seed(4, |seed| {
        let mut cast = small(seed);
        let (origin, off) = (host(seed as u16 % 12), host((seed as u16 + 5) % 12));
        talk(&mut cast, origin, secs(1));
        let others: Vec<_> = cast.hosts.iter().copied().filter(|it| *it != off).collect();
        cast.world.partition(&[&[off], &others]);
        others.iter().for_each(|it| cast.world.reset_link(off, *it));
        talk(&mut cast, origin, secs(5));
        cast.world.heal();
        talk(&mut cast, origin, secs(3));
        cast.run(secs(30));
        assert_eq!(untold(&cast, origin), [], "SEED={seed}");
        let missed = cast.missed.get(&(off, origin)).copied().unwrap_or(0);
        assert!(missed > 100, "SEED={seed}: {missed}");
        assert!(cast.missed.keys().all(|(at, _)| *at == off), "SEED={seed}: {:?}", cast.missed);
    });
}

#[test]
fn the_first_messages_of_an_origin_are_repaired_though_later_ones_come_before_them() {
    for_each_seed(8, |seed| {
        let mut cast = Cast::started(seed, 12);
        let (origin, off) = (host(seed as u16 % 12), host((seed as u16 + 5) % 12));
        let all = cast.hosts.clone();
        let others: Vec<_> = all.iter().copied().filter(|it| *it != off).collect();
        cast.world.partition(&[&[off], &others]);
        others.iter().for_each(|it| cast.world.reset_link(off, *it));
        (0..3).for_each(|number| cast.publish(origin, format!("first {number}").as_str()));
        cast.run(secs(5));
        cast.world.reunite();
        for number in 0..500 {
            cast.publish(origin, format!("later {number}").as_str());
            cast.run(millis(10));
        }
        cast.settle(&all, secs(30));
        assert!(cast.missed.is_empty(), "SEED={seed}: {:?}", cast.missed);
    });
}

#[test]
fn all_that_is_held_is_repaired_after_a_partition_however_much_it_is() {
    for_each_seed(2, |seed| {
        let mut cast = Cast::started(seed, 12);
        let all = cast.hosts.clone();
        let (one, other) = all.split_at(6);
        for number in 0..20 {
            cast.publish(host(number % 12), format!("before {number}").as_str());
        }
        cast.settle(&all, secs(10));
        cast.world.partition(&[one, other]);
        for number in 0..6_000_u16 {
            cast.publish(host(number % 2 * 6), format!("apart {number}").as_str());
        }
        // Nothing is on its way any more: all is to be asked for.
        for (one, other) in one.iter().flat_map(|it| other.iter().map(move |other| (*it, *other))) {
            cast.world.reset_link(one, other);
        }
        cast.run(secs(20));
        cast.world.reunite();
        cast.settle(&all, secs(60));
        assert!(cast.missed.is_empty(), "SEED={seed}: {:?}", cast.missed);
    });
}
