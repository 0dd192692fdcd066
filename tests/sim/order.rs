//! The Byzantine order in virtual time, in any weather, with as many liars as the group bears: one
//! order, nothing invented, nothing twice, and after the storm everybody has everything.
//!
//! `SEED=n` runs one run alone, `SEEDS=n` more of them, `TRACE=1` prints what happens. Before a
//! release: `SEEDS=2000 cargo test --release --test sim order::one_order`.

#![allow(clippy::print_stdout, reason = "it prints what it found, and tables on demand")]

use folkmoot::machine::bft::{BftRule, Config};
use folkmoot::model::Rng;
use folkmoot::proto::chat::entry::SeqNo;
use folkmoot::sim::for_each_seed;
use rand::{RngExt as _, SeedableRng as _};

use crate::order_world::{Cast, Kind, Lie, SECOND, Tally, Violation, Weather, World};

/// Number of liars in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liars {
    /// Up to as many as the group bears.
    UpToBorne,
    /// As many as the group bears.
    Borne,
    /// One more than the group bears.
    TooMany,
}

/// What kind of runs a campaign makes.
#[derive(Clone, Debug)]
pub(crate) struct Campaign {
    /// Kinds of liars to draw from.
    pub(crate) lies: &'static [Lie],
    pub(crate) liars: Liars,
    pub(crate) weather: fn(&mut Rng) -> Weather,
    pub(crate) tune: fn(&mut Config),
    /// True if all liars lie in all these ways, together.
    pub(crate) is_plot: bool,
    /// Least and greatest number of members.
    pub(crate) members: (usize, usize),
    pub(crate) without: Option<BftRule>,
}

impl Default for Campaign {
    fn default() -> Self {
        Self {
            lies: &Lie::ALL,
            liars: Liars::UpToBorne,
            weather: Weather::draw,
            tune: |_| {},
            is_plot: false,
            members: (4, 7),
            without: None,
        }
    }
}

pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    pub(crate) tally: Tally,
    pub(crate) steps: u64,
    pub(crate) slots: usize,
    pub(crate) cast: Cast,
    /// Microseconds after the storm until all is final.
    pub(crate) settled: u64,
}

/// Small bounds, so that every window and snapshot ends all the time.
fn config(rng: &mut Rng, without: Option<BftRule>) -> Config {
    Config {
        window: rng.random_range(1..=8),
        snapshot_every: rng.random_range(3..40),
        window_slots: rng.random_range(1..30),
        reign: std::time::Duration::from_secs(rng.random_range(5..60)),
        without,
        ..Config::default()
    }
}

pub(crate) fn run(seed: u64, campaign: &Campaign) -> Outcome {
    let mut rng = Rng::seed_from_u64(seed ^ 0x0b57);
    let mut config = config(&mut rng, campaign.without);
    (campaign.tune)(&mut config);
    let weather = (campaign.weather)(&mut rng);
    let members = rng.random_range(campaign.members.0..=campaign.members.1);
    let borne = (members - 1) / 3;
    let liars = match campaign.liars {
        Liars::UpToBorne => rng.random_range(0..=borne),
        Liars::Borne => borne,
        Liars::TooMany => borne + 1,
    };
    let mut cast = Cast::draw(members, liars, campaign.lies, &mut rng);
    if campaign.is_plot {
        let all = campaign.lies.iter().copied().collect();
        cast.lies.values_mut().for_each(|it| it.clone_from(&all));
        cast.is_plot = true;
    }
    let mut world = World::new(seed, config, weather, &cast);
    world.begin();
    world.run_until(20 * SECOND);
    world.calm_down();
    let calm = world.now();
    settle(&mut world, calm);
    Outcome {
        settled: world.now() - calm,
        violation: world.checker.violation.take(),
        tally: std::mem::take(&mut world.tally),
        steps: world.world.steps(),
        slots: world.checker.slots(),
        cast,
    }
}

/// All that honest members said in the storm and keep is final everywhere within 20 s, while people
/// type on.
fn settle(world: &mut World, calm: u64) {
    let until = calm + 20 * SECOND;
    world.run_while(until, |world| world.now() < calm + SECOND || open(world).is_some());
    world.is_typing = false;
    if world.checker.violation.is_none()
        && let Some(what) = open(world)
    {
        let quorum = world.checker.committee().quorum();
        let forgot = |it: &str| it.contains("lost");
        let votes = |node: &usize| {
            world.status(*node).is_some_and(|it| !it.silent.as_deref().is_some_and(forgot))
        };
        let voting = world.honest().filter(votes).count();
        let kind = if voting < quorum { Kind::Unsettled } else { Kind::Stuck };
        world.checker.fail(kind, what);
    }
    world.judge_noise();
    if world.checker.violation.is_none() {
        world.checker.on_end();
    }
}

/// What an honest member keeps that is not final there, or final elsewhere only.
fn open(world: &World) -> Option<String> {
    let mut places = Vec::new();
    let mut least = SeqNo(0);
    for node in world.honest() {
        let (texts, place) = world.kept(node);
        places.push((node, place));
        for text in texts {
            match world.checker.place_of(&text) {
                Some(place) => least = least.max(place),
                None => {
                    let said = world.checker.said.get(&text)?;
                    if said.at < world.now().saturating_sub(SECOND) {
                        let id = world.nodes[node].id;
                        return Some(format!("{text:?} of {id} is not final: {}", world.tell()));
                    }
                }
            }
        }
    }
    let behind = places.into_iter().find(|(_, place)| *place < least);
    let (node, place) = behind?;
    let id = world.nodes[node].id;
    Some(format!("{id} has {} of {} places: {}", place.0, least.0, world.tell()))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|it| it.parse().expect("a number"))
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 14, 159] {
        let campaign = Campaign::default();
        let (first, second) = (run(seed, &campaign), run(seed, &campaign));
        assert_eq!(first.tally, second.tally, "seed {seed}");
        assert_eq!((first.steps, first.slots), (second.steps, second.slots), "seed {seed}");
    }
}

/// What must have occurred in some of a few hundred runs: each fault, and each way that is seldom
/// gone.
const BRANCHES: [&str; 18] = [
    "kill",
    "power cut",
    "power cut of all",
    "pause",
    "slow disk",
    "delays",
    "broken connection",
    "partition",
    "isolation",
    "lost disk",
    "restored from a copy",
    "view",
    "wish",
    "evidence",
    "load",
    "snapshot",
    "hole",
    "epoch",
];

/// Runs so many storms, prints what they came to, and fails if one of them broke anything.
fn storms(count: u64) {
    let outcomes = for_each_seed(count, |seed| run(seed, &Campaign::default()));
    let count = outcomes.len() as u64;
    let mut tally = Tally::new();
    let (mut steps, mut slots, mut longest, mut unsettled) = (0, 0, 0, 0_u32);
    let mut bad = Vec::new();
    for (seed, outcome) in outcomes.into_iter().enumerate() {
        for (what, count) in outcome.tally {
            *tally.entry(what).or_default() += count;
        }
        steps += outcome.steps;
        slots += outcome.slots;
        match outcome.violation {
            None => longest = outcome.settled.max(longest),
            Some(it) if it.kind == Kind::Unsettled => unsettled += 1,
            Some(it) => {
                let seed = number("SEED").unwrap_or(seed as u64);
                let what: String = it.what.chars().take(1_500).collect();
                println!("SEED={seed} {:?} by {:?}: {what}", it.kind, outcome.cast.lies);
                bad.push(seed);
            }
        }
    }
    println!(
        "{count} runs, {steps} steps, {slots} final slots, settled within {:.1} s, {unsettled} \
         with too many silent\n{tally:#?}",
        longest as f64 / 1e6
    );
    if count >= 300 {
        let missing: Vec<_> = BRANCHES.iter().filter(|it| !tally.contains_key(**it)).collect();
        assert!(missing.is_empty(), "the weather is too mild: nothing of {missing:?}");
        assert!(u64::from(unsettled) * 10 < count, "{unsettled} of {count} runs did not settle");
    }
    assert!(bad.is_empty(), "{} of {count} runs failed: {bad:?}", bad.len());
}

#[test]
fn one_order_for_everybody_in_any_weather_with_any_liars() {
    storms(300);
}

#[test]
fn one_liar_more_than_the_group_bears_breaks_it_and_the_checker_sees_it() {
    let campaign = Campaign {
        lies: &[Lie::Equivocate, Lie::Countersign],
        liars: Liars::TooMany,
        is_plot: true,
        ..Campaign::default()
    };
    let breaks = |seed| run(seed, &campaign).violation.is_some_and(|it| it.kind == Kind::Diverged);
    assert!((0..100).any(breaks), "100 runs with too many liars, and one order in each");
}
