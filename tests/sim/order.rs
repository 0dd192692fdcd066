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
    /// True if members are added and removed, and restart with other windows.
    pub(crate) changes: bool,
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
            changes: false,
        }
    }
}

pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    pub(crate) tally: Tally,
    pub(crate) steps: u64,
    pub(crate) slots: usize,
    pub(crate) cast: Cast,
    /// The most messages that an honest member has sent in a second.
    pub(crate) busiest: u64,
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
    if campaign.changes {
        world.let_members_change(seed, 2);
    }
    let settled = play(&mut world, 20 * SECOND);
    if campaign.without.is_none() {
        world.verify_logs();
    }
    Outcome {
        settled,
        busiest: world.busiest,
        violation: world.checker.violation.take(),
        tally: std::mem::take(&mut world.tally),
        steps: world.world.steps(),
        slots: world.checker.slots(),
        cast,
    }
}

/// A storm of so many microseconds, and then calm; returns the microseconds until all is final.
pub(crate) fn play(world: &mut World, storm: u64) -> u64 {
    world.begin();
    world.run_until(storm);
    world.calm_down();
    let calm = world.now();
    settle(world, calm);
    world.now() - calm
}

/// All that honest members said in the storm and keep is final everywhere within 20 s, while people
/// type on, and what they have typed meanwhile within 20 s more.
fn settle(world: &mut World, calm: u64) {
    let span = 20 * SECOND;
    world
        .run_while(calm + span, |world| world.now() < calm + SECOND || open(world, calm).is_some());
    judge(world, calm);
    world.is_typing = false;
    let silence = world.now();
    world.run_while(silence + span, |world| open(world, silence).is_some());
    judge(world, silence);
    world.judge_noise();
    if world.checker.violation.is_none() {
        world.checker.on_end();
    }
}

/// Everything that was said before this time is final.
fn judge(world: &mut World, before: u64) {
    if world.checker.violation.is_some() {
        return;
    }
    let Some(what) = open(world, before) else { return };
    let committee = world.checker.committee();
    let quorum = committee.quorum();
    let forgot = |it: &str| it.contains("lost");
    let votes = |node: &usize| {
        committee.voter(world.nodes[*node].id).is_some()
            && world.status(*node).is_some_and(|it| !it.silent.as_deref().is_some_and(forgot))
    };
    let voting = world.honest().filter(votes).count();
    let kind = if voting < quorum { Kind::Unsettled } else { Kind::Stuck };
    world.checker.fail(kind, what);
}

/// What an honest member keeps that was said before this time and is not final, or elsewhere only.
fn open(world: &World, before: u64) -> Option<String> {
    let mut places = Vec::new();
    let mut least = SeqNo(0);
    for node in world.honest() {
        let (texts, place) = world.kept(node);
        let is_member = world.checker.committee().voter(world.nodes[node].id).is_some();
        // Those that are no members follow by questions, some heartbeats behind.
        if is_member || !world.is_typing {
            places.push((node, place));
        }
        for text in texts.into_iter().filter(|_| is_member) {
            if world.checker.said.get(&text).is_none_or(|it| it.at >= before) {
                continue;
            }
            let Some(place) = world.checker.place_of(&text) else {
                let id = world.nodes[node].id;
                return Some(format!("{text:?} of {id} is not final: {}", world.tell()));
            };
            least = least.max(place);
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
const BRANCHES: [&str; 21] = [
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
    "a member added",
    "a member removed",
    "another window",
];

/// Runs so many storms, prints what they came to, and fails if one of them broke anything.
fn storms(count: u64) {
    // In every second run the membership changes.
    let campaign = |seed| Campaign { changes: seed % 2 == 0, ..Campaign::default() };
    let outcomes = for_each_seed(count, |seed| run(seed, &campaign(seed)));
    let count = outcomes.len() as u64;
    let mut tally = Tally::new();
    let (mut steps, mut slots, mut longest, mut unsettled, mut busiest) = (0, 0, 0, 0_u32, 0);
    let mut bad = Vec::new();
    for (seed, outcome) in outcomes.into_iter().enumerate() {
        for (what, count) in outcome.tally {
            *tally.entry(what).or_default() += count;
        }
        steps += outcome.steps;
        slots += outcome.slots;
        busiest = outcome.busiest.max(busiest);
        match outcome.violation {
            None => longest = outcome.settled.max(longest),
            Some(it) if it.kind == Kind::Unsettled => {
                unsettled += 1;
                if count == 1 {
                    println!("too many are silent: {}", it.what);
                }
            }
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
         with too many silent, at most {busiest} lines a second\n{tally:#?}",
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

/// Members that had another window than those who had prepared more slots never voted for them, and
/// newcomers waited for ever to hear what they had signed.
#[test]
fn members_that_come_and_go_with_other_windows_go_on() {
    let campaign = Campaign { changes: true, ..Campaign::default() };
    for seed in [2, 22, 32, 130, 1_052] {
        let violation = run(seed, &campaign).violation;
        assert!(violation.is_none(), "SEED={seed}: {violation:?}");
    }
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
