//! The Byzantine order with one member doubled, in every way to divide five machines: four members,
//! each in turn run twice under one key, and in each round every division of the five into two
//! sides that do not reach each other (Bano et al.: Twins, OPODIS 2021).
//!
//! By default 1,024 of the 16,384 scenarios of three rounds are played, from all parts of the list.
//! `SEEDS=16384` plays all; `ROUNDS=4 SEEDS=262144` all of four rounds; `SEED=n` one alone.

#![allow(clippy::print_stdout, reason = "it prints what it found")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::machine::bft::{BftRule, Config};
use folkmoot::sim::for_each_seed;

use crate::order_world::{Cast, Kind, Lie, SECOND, Violation, Weather, World};

const MEMBERS: usize = 4;

/// Divisions of five machines into two sides.
const DIVISIONS: u64 = 1 << MEMBERS;

/// Length of a round, in microseconds: long enough for a view to be given up.
const ROUND: u64 = 700_000;

/// Time in which all that was said is final when the rounds are over.
const SETTLED: u64 = 15 * SECOND;

fn config(without: Option<BftRule>) -> Config {
    Config {
        heartbeat: Duration::from_millis(200),
        patience: Duration::from_millis(250),
        patience_max: Duration::from_secs(2),
        recall: Duration::from_millis(500),
        without,
        ..Config::default()
    }
}

/// Number of scenarios with so many rounds.
const fn scenarios(rounds: u32) -> u64 {
    MEMBERS as u64 * DIVISIONS.pow(rounds)
}

/// What one scenario comes to, and the microseconds until all is final after the last round.
fn run(scenario: u64, rounds: u32, without: Option<BftRule>) -> (Option<Violation>, u64) {
    let doubled = usize::try_from(scenario % MEMBERS as u64).expect("one of four");
    let mut rest = scenario / MEMBERS as u64;
    let lies = BTreeMap::from([(doubled, BTreeSet::from([Lie::Twins]))]);
    let cast = Cast { members: MEMBERS, lies, is_plot: false, mutating: None };
    let everybody = |world: &World| world.nodes.iter().map(|it| it.id).collect::<BTreeSet<_>>();
    let sides = Arc::new(Mutex::new(Vec::new()));
    let weather = Weather::default();
    let mut world = World::planned(1, config(without), weather, &cast, Some(Arc::clone(&sides)));
    let all = everybody(&world);
    *sides.lock().expect("one thread runs a world") = vec![all.clone(), all.clone()];
    world.begin();
    world.is_typing = false;
    world.run_until(50_000);
    for round in 0..rounds {
        let division = rest % DIVISIONS;
        rest /= DIVISIONS;
        // The first twin is always on the first side; the other machines are where the bits say.
        let is_second = |at: usize| division >> at & 1 == 1;
        let side = |which: bool| {
            let here = (0..MEMBERS).filter(|at| *at != doubled && is_second(*at) == which);
            here.map(|at| world.nodes[at].id).collect::<BTreeSet<_>>()
        };
        let of_twins = vec![side(false), side(is_second(doubled))];
        *sides.lock().expect("one thread runs a world") = of_twins;
        world.heal();
        for a in (0..MEMBERS).filter(|it| *it != doubled) {
            for b in (0..MEMBERS).filter(|it| *it != doubled && is_second(*it) != is_second(a)) {
                world.cut(a, b);
            }
        }
        for at in 0..MEMBERS {
            world.say(at, &format!("{round} of {at}"));
        }
        world.run_for(ROUND);
    }
    *sides.lock().expect("one thread runs a world") = vec![all.clone(), all];
    world.heal();
    let over = world.now();
    let is_open = |world: &World| world.checker.open_before(over).next().is_some();
    if !world.run_while(over + SETTLED, is_open) && world.checker.violation.is_none() {
        let what = format!("not all is final: {}", world.tell());
        world.checker.fail(Kind::Stuck, what);
    }
    (world.checker.violation.take(), world.now() - over)
}

/// A leader that catches up in its own view has proposed otherwise, and must not propose again.
#[test]
fn b4_a_member_votes_once() {
    let without = |scenario| run(scenario, 2, Some(BftRule::OneVote)).0;
    let found = (128..256).find_map(|scenario| Some((scenario, without(scenario)?.kind)));
    println!("without {:?}: {found:?}", BftRule::OneVote);
    let (scenario, kind) = found.expect("one of 128 scenarios is found");
    assert!(matches!(kind, Kind::Contradicted | Kind::Accused), "{kind:?}");
    let clean = run(scenario, 2, None).0;
    assert!(clean.is_none(), "{clean:?}");
}

#[test]
fn one_order_with_any_member_doubled_in_every_division_of_each_round() {
    let rounds = std::env::var("ROUNDS").map_or(3, |it| it.parse().expect("a number"));
    let all = scenarios(rounds);
    // An odd step: all numbers below `all`, a power of two, have their turn once.
    let outcomes = for_each_seed(1_024, |seed| run(seed * 10_501 % all, rounds, None));
    let longest = outcomes.iter().map(|(_, settled)| *settled).max().unwrap_or_default();
    println!("{} scenarios, settled within {:.2} s", outcomes.len(), longest as f64 / 1e6);
    let bad: Vec<_> = outcomes.iter().enumerate().filter(|(_, (it, _))| it.is_some()).collect();
    assert!(bad.is_empty(), "{} scenarios failed, among them SEED={:?}", bad.len(), bad[0]);
}
