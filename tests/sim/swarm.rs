//! Swarms in virtual time: everybody completes, byte for byte, within a bound, and everybody ends.
//!
//! The world checks at every step that never more than k + 1 neighbors are unchoked and that nobody
//! is served who is choked (S3).

use crate::swarm_world;

use std::time::Duration;

use folkmoot::machine::swarm::{Config, Event, SwarmOutcome};
use swarm_world::{Manner, World};

const SECOND: Duration = Duration::from_secs(1);

fn assignment() -> Config {
    Config::assignment(2, SECOND, 3 * SECOND)
}

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

/// One with everything at `seed_at`, all others without.
fn one_of(count: usize, seed_at: usize) -> Vec<bool> {
    (0..count).map(|at| at == seed_at).collect()
}

/// All orders of so many.
fn orders(count: usize) -> Vec<Vec<usize>> {
    match count {
        0 => vec![vec![]],
        _ => orders(count - 1)
            .into_iter()
            .flat_map(|order| {
                (0..count).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, count - 1);
                    longer
                })
            })
            .collect(),
    }
}

#[track_caller]
fn all_end_well(world: &mut World, bound: Duration) {
    world.run(bound, World::all_ended);
    world.check_content();
    for peer in &world.peers {
        assert_eq!(
            peer.outcome,
            Some(SwarmOutcome::AllComplete),
            "{:?} of {:?}",
            peer.id,
            world.now
        );
        let told = peer.events.iter().filter(|it| **it == Event::Complete).count();
        assert!(told <= 1, "complete once");
    }
}

#[test]
fn assignment_swarms_end_in_every_order_of_starts_and_whoever_has_the_file() {
    let mut number = 0;
    for count in 2..=4 {
        for order in orders(count) {
            for seed_at in 0..count {
                for gap in [0.0, 0.01, 3.0] {
                    number += 1;
                    let seeds = one_of(count, seed_at);
                    let mut world = World::new(number, assignment(), 2_150, 100, &seeds);
                    for (at, peer) in order.iter().enumerate() {
                        world.start(*peer, seconds(gap * f64::from(u32::try_from(at).unwrap())));
                    }
                    all_end_well(&mut world, 60 * SECOND);
                }
            }
        }
    }
}

#[test]
fn contents_of_any_size_are_passed_on() {
    for size in [0, 1, 99, 100, 101, 799, 800, 801, 6_401] {
        for config in [assignment(), Config::share()] {
            let is_share = config.give_up_after.is_none();
            let mut world = World::new(size, config, size, 100, &one_of(3, 1));
            (0..3).for_each(|at| world.start(at, Duration::ZERO));
            match is_share {
                true => world.run(60 * SECOND, World::all_complete),
                false => all_end_well(&mut world, 60 * SECOND),
            }
            world.check_content();
        }
    }
}

#[test]
fn large_assignment_swarms_end() {
    for (count, pieces) in [(30, 60), (200, 12)] {
        let mut world = World::new(
            count,
            assignment(),
            pieces * 100,
            100,
            &one_of(usize::try_from(count).unwrap(), 0),
        );
        for at in 0..usize::try_from(count).unwrap() {
            let after = world.random(0..3_000);
            world.start(at, Duration::from_millis(after));
        }
        all_end_well(&mut world, 300 * SECOND);
    }
}

#[test]
fn large_shares_complete() {
    for (count, pieces) in [(30, 300), (200, 40)] {
        let seeds = one_of(count, 7);
        let mut world = World::new(1, Config::share(), pieces * 100, 100, &seeds);
        for at in 0..count {
            let after = world.random(0..3_000);
            world.start(at, Duration::from_millis(after));
        }
        world.run(120 * SECOND, World::all_complete);
        world.check_content();
    }
}

#[test]
fn whoever_crashes_comes_back_with_what_was_on_its_disk_and_all_complete() {
    for seed in 0..40 {
        let is_share = seed % 2 == 0;
        let config = if is_share { Config::share() } else { assignment() };
        let count = 6;
        let mut world = World::new(seed, config, 20_000, 100, &one_of(count, 2));
        world.peers.iter_mut().for_each(|it| it.rate = 3_000);
        for at in 0..count {
            let after = Duration::from_millis(world.random(0..1_000));
            world.start(at, after);
        }
        for _ in 0..5 {
            let victim = usize::try_from(world.random(0..6)).unwrap();
            let after = Duration::from_millis(world.random(1_000..4_000));
            world.crash(victim, after);
            world.start(victim, after + 2 * SECOND);
        }
        match is_share {
            true => world.run(300 * SECOND, World::all_complete),
            false => world.run(600 * SECOND, World::all_ended),
        }
        world.check_content();
    }
}

#[test]
fn slow_and_mute_neighbors_hold_nobody_up() {
    for seed in 0..20 {
        let is_share = seed % 2 == 0;
        let config = if is_share { Config::share() } else { assignment() };
        let seeds = [true, true, false, false, false, true];
        let mut world = World::new(seed, config, 10_000, 100, &seeds);
        world.peers[0].manner = Manner::Mute;
        world.peers[5].rate = 300;
        (0..6).for_each(|at| world.start(at, Duration::ZERO));
        let is_done = |world: &World| world.all_complete();
        world.run(200 * SECOND, is_done);
        world.check_content();
    }
}

#[test]
fn liars_cost_one_piece_each_and_are_named() {
    for seed in 0..20 {
        let seeds = [true, false, true, false, true, false];
        let mut world = World::new(seed, Config::share(), 10_000, 100, &seeds);
        world.peers[0].manner = Manner::Lying;
        world.peers[2].manner = Manner::Lying;
        (0..6).for_each(|at| world.start(at, Duration::ZERO));
        world.run(100 * SECOND, World::all_complete);
        world.check_content();
        for peer in world.peers.iter().filter(|it| it.manner == Manner::Honest) {
            for liar in [0, 2].map(|at| world.peers[at].id) {
                let is_it = |it: &&Event| matches!(it, Event::FalsePiece(who, _) if *who == liar);
                assert!(peer.events.iter().filter(is_it).count() <= 1, "one piece a liar");
            }
            let honest = |it: &Event| {
                !matches!(it, Event::FalsePiece(who, _)
                    if world.peers.iter().any(|it| it.id == *who && it.manner == Manner::Honest))
            };
            assert!(peer.events.iter().all(honest), "nobody else is blamed");
        }
        let named = world.peers.iter().flat_map(|it| &it.events);
        assert!(named.filter(|it| matches!(it, Event::FalsePiece(..))).count() > 0);
    }
}

#[test]
fn a_swarm_ends_without_those_who_never_come_or_leave_too_soon() {
    let mut world = World::new(1, assignment(), 5_000, 100, &one_of(4, 0));
    (0..3).for_each(|at| world.start(at, Duration::ZERO));
    let is_over = |world: &World| world.peers[..3].iter().all(|it| it.outcome.is_some());
    world.run(200 * SECOND, is_over);
    for peer in &world.peers[..3] {
        assert_eq!(peer.outcome, Some(SwarmOutcome::WithoutSome(vec![world.peers[3].id])));
        assert_eq!(peer.disk.len(), 50);
    }
    // The only one with the file goes at once: nobody can complete, and all end.
    let mut world = World::new(2, assignment(), 50_000, 100, &one_of(3, 0));
    world.peers[0].rate = 1_000;
    (0..3).for_each(|at| world.start(at, Duration::ZERO));
    world.crash(0, 2 * SECOND);
    let is_over = |world: &World| world.peers[1..].iter().all(|it| it.outcome.is_some());
    world.run(300 * SECOND, is_over);
    for peer in &world.peers[1..] {
        assert_eq!(peer.outcome, Some(SwarmOutcome::Incomplete));
    }
}

#[test]
fn a_seeder_with_a_narrow_uplink_sends_little_more_than_one_copy() {
    let mut world = World::new(5, Config::share(), 25_600, 100, &one_of(5, 0));
    world.peers[0].rate = 3_200;
    (0..5).for_each(|at| world.start(at, Duration::ZERO));
    world.run(60 * SECOND, World::all_complete);
    // 8 s for one copy; whoever gets copies from the seeder alone needs 32 s.
    let last = world.peers.iter().filter_map(|it| it.complete_at).max().unwrap();
    assert!(last.as_micros() < 13_000_000, "{last:?}");
}

#[test]
fn in_any_weather_everybody_who_stays_completes() {
    for seed in 0..60 {
        let mut world = World::new(seed, Config::share(), 12_345, 100, &one_of(12, 0));
        world.latency = Duration::from_millis(world.random(0..80));
        for at in 0..12 {
            world.peers[at].rate = 10_u64.pow(u32::try_from(world.random(3..6)).expect("small"));
            let after = Duration::from_millis(world.random(0..5_000));
            world.start(at, after);
            // The first has everything and stays; the others may be of any kind, half are honest.
            if at >= 6 {
                let manners = [Manner::Honest, Manner::Lying, Manner::Mute];
                world.peers[at].manner =
                    manners[usize::try_from(world.random(0..3)).expect("small")];
            }
            if at > 0 && world.random(0..3) == 0 {
                let crash = after + Duration::from_millis(world.random(0..5_000));
                world.crash(at, crash);
                let pause = Duration::from_millis(world.random(0..5_000));
                world.start(at, crash + pause);
            }
            for _ in 0..world.random(0..4) {
                let cut = after + Duration::from_millis(world.random(0..20_000));
                world.cut(at, cut);
            }
        }
        world.run(400 * SECOND, World::all_complete);
        world.check_content();
    }
}

#[test]
fn pieces_that_take_longer_than_a_connection_lasts_come_part_by_part() {
    for seed in 0..20 {
        let mut world = World::new(seed, Config::share(), 100_000, 20_000, &one_of(2, 0));
        world.peers[0].rate = 1_000;
        (0..2).for_each(|at| world.start(at, Duration::ZERO));
        (1..40).for_each(|number| world.cut(0, 12 * number * SECOND));
        world.run(450 * SECOND, World::all_complete);
        world.check_content();
    }
}

#[test]
fn pieces_that_are_scattered_come_together() {
    for (seed, config) in (0..20).zip([assignment(), Config::share()].into_iter().cycle()) {
        let mut world = World::new(seed, config, 4_000, 100, &[true; 5]);
        world.everybody_knows_the_tree = true;
        for (at, peer) in world.peers.iter_mut().enumerate() {
            peer.disk.retain(|index, _| index.0 as usize % 5 == at);
            peer.complete_at = None;
        }
        (0..5).for_each(|at| world.start(at, Duration::ZERO));
        world.run(60 * SECOND, World::all_complete);
        world.check_content();
    }
}
