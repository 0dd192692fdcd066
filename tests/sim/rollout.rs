//! Rollouts in virtual time: whatever dies, one transaction has one end, one version one content,
//! and nobody waits who need not.
//!
//! `SEEDS=50000 cargo test --release --test sim one_transaction_has` runs more; `SEED=n` replays
//! one and `TRACE=1` prints it. `TABLE=n` has the table of rules printed over n seeds each,
//! `ROW=T12` only of the rules whose names have that in them.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "tests"
)]
#![allow(clippy::print_stdout, reason = "it prints what it found, and tables on demand")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a judge picks a few records of many")]

use crate::rollout_world;

use std::time::Duration;

use folkmoot::machine::rollout::{DecisionAuthority, DisabledRules};
use folkmoot::model::VerdictMemo;
use folkmoot::sim::for_each_seed;
use rollout_world::{Figures, Setup, WHOLE, World};

fn run(setup: &Setup) -> Result<Figures, String> {
    let _memo = VerdictMemo::on_this_thread();
    let mut world = World::new(setup);
    world.play().map(|()| world.figures)
}

fn run_parts(setup: &Setup) -> Result<Figures, String> {
    let _memo = VerdictMemo::on_this_thread();
    let mut world = World::new(setup);
    if world.has_odd_rosters {
        return Ok(world.figures);
    }
    world.play_parts().map(|()| world.figures)
}

fn run_gone(setup: &Setup) -> Result<Figures, String> {
    let _memo = VerdictMemo::on_this_thread();
    let mut world = World::new(setup);
    if world.has_odd_rosters || world.checker.roster_len() < 3 {
        return Ok(world.figures);
    }
    world.play_gone().map(|()| world.figures)
}

fn run_restored(setup: &Setup) -> Result<Figures, String> {
    let _memo = VerdictMemo::on_this_thread();
    let mut world = World::new(setup);
    if world.has_odd_rosters {
        return Ok(world.figures);
    }
    world.play_restored().map(|()| world.figures)
}

fn total(all: &[Figures], of: fn(&Figures) -> usize) -> usize {
    all.iter().map(of).sum()
}

#[test]
fn one_transaction_has_one_end_in_any_weather() {
    let figures = for_each_seed(500, |seed| {
        let is_harsh = seed % 5 == 4;
        let opens_unsynced = false;
        let setup = Setup { seed, breaks: WHOLE, is_harsh, decides: None, opens_unsynced };
        run(&setup).unwrap_or_else(|violation| panic!("{violation}"))
    });
    let of = |it| total(&figures, it);
    println!(
        "{} runs: {} committed, {} aborted, {} answers, {} deaths, {} lost disks ({} recalled), \
         {} restored, {} questions in doubt, {} resolved by hand, {} gates failed, {} brakes, \
         {} took over, {} lies, {} times some were called gone ({} by the seeds, {} settled)",
        figures.len(),
        of(|it| it.committed),
        of(|it| it.aborted),
        of(|it| it.answers),
        of(|it| it.crashes),
        of(|it| it.lost_disks),
        of(|it| it.recovered),
        of(|it| it.restored),
        of(|it| it.doubts),
        of(|it| it.resolved),
        of(|it| it.rollbacks),
        of(|it| it.braked),
        of(|it| it.took_over),
        of(|it| it.forged),
        of(|it| it.gone),
        of(|it| it.by_seeds),
        of(|it| it.settled),
    );
    if figures.len() >= 500 {
        assert!(of(|it| it.committed) > 1000, "too little happens");
        assert!(of(|it| it.restored) > 20);
        assert!(of(|it| it.lost_disks) > 20 && of(|it| it.rollbacks) > 20);
        assert!(of(|it| it.by_seeds) > 10);
    }
}

/// T10: where an order decides, nothing that nodes show each other does.
#[test]
fn one_transaction_has_one_end_in_any_weather_where_an_order_decides() {
    let figures = for_each_seed(200, |seed| {
        let is_harsh = seed % 5 == 4;
        let (decides, opens_unsynced) = (Some(DecisionAuthority::Order), false);
        let setup = Setup { seed, breaks: WHOLE, is_harsh, decides, opens_unsynced };
        run(&setup).unwrap_or_else(|violation| panic!("{violation}"))
    });
    let of = |it| total(&figures, it);
    let (committed, doubts) = (of(|it| it.committed), of(|it| it.doubts));
    println!("{} runs: {committed} committed, {doubts} questions in doubt", figures.len());
    assert!(figures.len() < 200 || committed > 400 && doubts > 20, "too little happens");
}

/// T12: whatever a coordinator had done when it was called gone, all end alike, and so does it.
#[test]
fn a_coordinator_that_is_called_gone_splits_no_version_whenever_it_is_back() {
    let figures = for_each_seed(400, |seed| {
        let (breaks, is_harsh, opens_unsynced) = (WHOLE, false, false);
        let decides = (seed % 4 != 3).then_some(DecisionAuthority::Coordinator);
        let setup = Setup { seed, breaks, is_harsh, decides, opens_unsynced };
        run_gone(&setup).unwrap_or_else(|violation| panic!("{violation}"))
    });
    let of = |it| total(&figures, it);
    let (gone, settled) = (of(|it| it.gone), of(|it| it.settled));
    println!("{} runs: {gone} times one was called gone, {settled} settled", figures.len());
    if figures.len() >= 400 {
        assert!(gone > 100 && settled > 20, "too little happens");
    }
}

/// T12: however a fleet falls apart, and whoever is told of whom that it is dead, at most one part
/// goes on, and with one cut one can.
#[test]
fn parts_that_are_told_that_the_others_are_dead_split_no_version() {
    let figures = for_each_seed(400, |seed| {
        let (breaks, is_harsh, opens_unsynced) = (WHOLE, false, false);
        let decides = (seed % 4 != 3).then_some(DecisionAuthority::Coordinator);
        let setup = Setup { seed, breaks, is_harsh, decides, opens_unsynced };
        run_parts(&setup).unwrap_or_else(|violation| panic!("{violation}"))
    });
    let of = |it| total(&figures, it);
    let (by_seeds, settled) = (of(|it| it.by_seeds), of(|it| it.settled));
    println!("{} runs: {by_seeds} times one part went on, {settled} settled", figures.len());
    if figures.len() >= 400 {
        assert!(by_seeds > 100 && settled > 10, "too little happens");
    }
}

/// P1: whoever is restored from a backup uses no name of a life that it has forgotten.
#[test]
fn a_node_that_is_restored_from_a_backup_uses_no_name_twice() {
    let figures = for_each_seed(60, |seed| {
        let (breaks, is_harsh, opens_unsynced) = (WHOLE, false, false);
        let setup = Setup { seed, breaks, is_harsh, decides: None, opens_unsynced };
        run_restored(&setup).unwrap_or_else(|violation| panic!("{violation}"))
    });
    let restored = total(&figures, |it| it.restored);
    assert!(figures.len() < 60 || restored > 40, "{restored} were restored");
}

struct Row {
    rule: &'static str,
    breaks: DisabledRules,
    is_harsh: bool,
    opens_unsynced: bool,
    play: fn(&Setup) -> Result<Figures, String>,
    /// Within so many seeds it shows.
    within: u64,
}

const fn row(rule: &'static str, breaks: DisabledRules, is_harsh: bool, within: u64) -> Row {
    Row { rule, breaks, is_harsh, opens_unsynced: false, play: run, within }
}

const fn gone_row(rule: &'static str, breaks: DisabledRules) -> Row {
    Row { play: run_gone, ..row(rule, breaks, false, 3000) }
}

/// Each rule left out, and within how many seeds that shows.
fn rows() -> Vec<Row> {
    vec![
        row("T3 vote not forced", DisabledRules { vote_unforced: true, ..WHOLE }, true, 1000),
        row(
            "T3 decision not forced",
            DisabledRules { decision_unforced: true, ..WHOLE },
            true,
            1000,
        ),
        row(
            "P6 decision not matched",
            DisabledRules { decision_unmatched: true, ..WHOLE },
            false,
            100,
        ),
        row(
            "P7 last line is served",
            DisabledRules { serves_last_line: true, ..WHOLE },
            false,
            100,
        ),
        row("T4 abort after a while", DisabledRules { aborts_in_doubt: true, ..WHOLE }, true, 1000),
        row("T4 highest id aborts", DisabledRules { highest_aborts: true, ..WHOLE }, false, 500),
        row(
            "T3 messages are counted",
            DisabledRules { counts_messages: true, ..WHOLE },
            false,
            100,
        ),
        row("T7 roster not agreed", DisabledRules { roster_unagreed: true, ..WHOLE }, false, 100),
        row(
            "T1 version not checked",
            DisabledRules { version_unchecked: true, ..WHOLE },
            false,
            500,
        ),
        row("lost disk, free to vote", DisabledRules { forgets_freely: true, ..WHOLE }, false, 500),
        Row {
            play: run_restored,
            ..row(
                "P1 a name of a forgotten life",
                DisabledRules { names_again: true, ..WHOLE },
                false,
                60,
            )
        },
        row(
            "P7 serves what it cannot know",
            DisabledRules { serves_unknown: true, ..WHOLE },
            false,
            500,
        ),
        row("T8 no brake", DisabledRules { no_brake: true, ..WHOLE }, false, 200),
        row("T8 votes unanswered", DisabledRules { unanswered: true, ..WHOLE }, false, 100),
        gone_row("T12 gone, doubt forgotten", DisabledRules { gone_forgets: true, ..WHOLE }),
        row(
            "T12 gone, vote beside doubt",
            DisabledRules { gone_unbound: true, ..WHOLE },
            true,
            3000,
        ),
        gone_row("T12 gone, unfenced", DisabledRules { gone_unfenced: true, ..WHOLE }),
        Row {
            play: run_parts,
            ..row("T12 any share", DisabledRules { dead_any_share: true, ..WHOLE }, false, 500)
        },
        Row { opens_unsynced: true, ..row("T3 no sync at open", WHOLE, true, 1000) },
    ]
}

/// The violations within so many seeds; the first alone, unless all are wanted.
fn violations(row: &Row, count: u64, all: bool) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for seed in 0..count {
        let Row { breaks, is_harsh, opens_unsynced, .. } = *row;
        let decides = Some(DecisionAuthority::Coordinator);
        let setup = Setup { seed, breaks, is_harsh, decides, opens_unsynced };
        if let Err(violation) = (row.play)(&setup) {
            found.push((seed, violation));
            if !all {
                break;
            }
        }
    }
    found
}

#[test]
fn every_rule_that_is_left_out_is_missed() {
    let table: Option<u64> = std::env::var("TABLE").ok().and_then(|it| it.parse().ok());
    let wanted = std::env::var("ROW").unwrap_or_default();
    let mut missed = Vec::new();
    for row in rows().into_iter().filter(|it| it.rule.contains(&wanted)) {
        let count = table.unwrap_or(row.within);
        let found = violations(&row, count, table.is_some());
        match found.first() {
            Some((seed, violation)) => {
                println!("| {} | {seed} | {} of {count} | {violation} |", row.rule, found.len());
            }
            None => missed.push(format!("{}: nothing shows within {count} seeds", row.rule)),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// T10: with the log, whoever voted knows the end soon; without, it may wait as long as its
/// coordinator is away.
#[test]
fn a_dead_coordinator_blocks_nobody_for_long_when_the_log_decides() {
    let blocked = |decides: DecisionAuthority| -> Vec<Duration> {
        let runs = (0..150).map(|seed| {
            let _memo = VerdictMemo::on_this_thread();
            let decides = Some(decides);
            let (breaks, is_harsh, opens_unsynced) = (WHOLE, false, false);
            let setup = Setup { seed, breaks, is_harsh, decides, opens_unsynced };
            let mut world = World::new(&setup);
            match world.has_odd_rosters {
                true => Duration::ZERO,
                false => world.play_dead_coordinator().unwrap_or_else(|it| panic!("{seed}: {it}")),
            }
        });
        runs.collect()
    };
    let (by_log, by_one) =
        (blocked(DecisionAuthority::Log), blocked(DecisionAuthority::Coordinator));
    let longest = by_log.iter().max().copied().unwrap_or_default();
    let count = |all: &[Duration]| all.iter().filter(|it| **it > Duration::from_secs(2)).count();
    println!(
        "in doubt for more than 2 s: {} runs, {longest:?} at most; without the log {} runs, of \
         these {} to the end",
        count(&by_log),
        count(&by_one),
        by_one.iter().filter(|it| **it >= Duration::from_secs(20)).count(),
    );
    assert!(count(&by_log) > 10, "nobody was ever in doubt");
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    assert!(by_one.iter().any(|it| *it >= Duration::from_secs(20)), "and the log is not needed");
}
