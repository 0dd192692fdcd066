//! Small changes of every message of the Byzantine order, by a liar that signs what it has changed,
//! and on the way, where nobody can sign it: one order, and after the storm all goes on.
//!
//! `SEEDS=n` plays more of the table, `SEED=n` one run. The table is made from the golden lines: a
//! new type of message does not compile, or does not pass, until it has its mutations.

#![allow(clippy::print_stdout, reason = "it prints what it found")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use folkmoot::machine::bft::Config;
use folkmoot::model::Rng;
use folkmoot::sim::for_each_seed;
use rand::{RngExt as _, SeedableRng as _};

use crate::order::play;
use crate::order_world::mutation::{HANDSHAKE, KINDS, Mutating, Mutation, all};
use crate::order_world::{Cast, Kind, Lie, SECOND, Violation, Weather, World};

/// Types that only few runs bring about.
const RARE: [&str; 4] = ["CHAIN_REQ", "CHAIN_RESP", "BUNDLE_REQ", "EVIDENCE"];

/// The mutation of a run, and whether a liar signs it: each type of message has its turn.
fn draw(seed: u64, table: &BTreeMap<&str, Vec<Mutation>>) -> (Mutation, bool) {
    let turn = usize::try_from(seed).expect("a small number");
    let (kind, turn) = (KINDS[turn % KINDS.len()], turn / KINDS.len());
    let of_kind = &table[kind];
    // A prime, so that the first runs are of all parts of the table, and all come to all of it.
    let at = (turn / 2) * 7_919 % of_kind.len();
    (of_kind[at].clone(), turn % 2 == 0)
}

fn table() -> BTreeMap<&'static str, Vec<Mutation>> {
    let mut table: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for it in all() {
        table.entry(it.kind).or_default().push(it);
    }
    table
}

/// What a run comes to, and the number of messages that were changed.
fn run(seed: u64, mutation: Mutation, is_signed: bool) -> (Option<Violation>, u64) {
    let mut rng = Rng::seed_from_u64(seed ^ 0x3117);
    let config = Config {
        window: rng.random_range(1..=8),
        snapshot_every: rng.random_range(3..40),
        window_slots: rng.random_range(1..30),
        reign: Duration::from_secs(rng.random_range(1..5)),
        ..Config::default()
    };
    // Only somebody who equivocates brings evidence about.
    let has_other = mutation.kind == "EVIDENCE" || rng.random_bool(0.2);
    let members = if is_signed && has_other { 7 } else { rng.random_range(4..=7) };
    let other = if rng.random_bool(0.5) { Lie::Equivocate } else { Lie::Twins };
    let mut lies = BTreeMap::new();
    if is_signed {
        lies.insert(0, BTreeSet::from([Lie::Mutate]));
    }
    if has_other {
        lies.insert(1, BTreeSet::from([other]));
    }
    let mutating = Mutating::new(mutation, is_signed);
    let count = std::sync::Arc::clone(&mutating.count);
    let cast = Cast { members, lies, is_plot: false, mutating: Some(mutating) };
    let weather = Weather::draw(&mut rng);
    let weather = Weather { fault: weather.fault.min(400_000), ..weather };
    let mut world = World::new(seed, config, weather, &cast);
    world.let_members_change(seed, 1);
    play(&mut world, 8 * SECOND);
    world.verify_logs();
    (world.checker.violation.take(), count.load(Ordering::Relaxed))
}

#[test]
fn every_type_of_message_has_mutations() {
    let table = table();
    for kind in KINDS {
        let count = table.get(kind).map_or(0, Vec::len);
        println!("{kind}: {count} mutations");
        assert!(count >= 3, "{kind} has {count} mutations");
    }
}

#[test]
fn one_small_change_in_any_message_breaks_no_order_and_stops_nobody() {
    let table = table();
    let outcomes = for_each_seed(460, |seed| {
        let (mutation, is_signed) = draw(seed, &table);
        let (violation, count) = run(seed, mutation.clone(), is_signed);
        (seed, mutation, is_signed, violation, count)
    });
    let mut changed: BTreeMap<_, u64> = BTreeMap::new();
    let (mut bad, mut unsettled) = (Vec::new(), 0);
    for (seed, mutation, is_signed, violation, count) in &outcomes {
        *changed.entry((is_signed, mutation.kind)).or_default() += count;
        match violation {
            None => {}
            Some(it) if it.kind == Kind::Unsettled => unsettled += 1,
            Some(it) => {
                let what: String = it.what.chars().take(1_500).collect();
                println!("SEED={seed} {mutation:?} signed {is_signed}: {:?}: {what}", it.kind);
                bad.push(*seed);
            }
        }
    }
    println!("{} runs, {unsettled} with too many silent: {changed:#?}", outcomes.len());
    assert!(bad.is_empty(), "{} of {} runs failed: {bad:?}", bad.len(), outcomes.len());
    if outcomes.len() >= 460 {
        let count = |kind: &&&str| {
            let of = |is_signed: bool| changed.get(&(&is_signed, **kind)).copied();
            of(true).unwrap_or_default() + of(false).unwrap_or_default()
        };
        let usual = KINDS[HANDSHAKE..].iter().filter(|it| !RARE.contains(it));
        let missing: Vec<_> = usual.filter(|it| count(it) == 0).collect();
        assert!(missing.is_empty(), "nothing of {missing:?} was changed");
    }
}
