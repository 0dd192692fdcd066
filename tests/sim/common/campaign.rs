//! Campaigns: many runs of one kind of trouble, and what the membership got wrong in them.
//!
//! `Truth` is the test's own book of who was in which state when; `judge` compares it with the
//! removals that the seeds decided. A removal is **wrong** when an honest seed voted for it while
//! the victim was running and reachable in that very life, **stale** when each vote was right when
//! it was cast but the victim was well again when the last one arrived, and **excused** otherwise.
//! **Missed** is whoever the seeds still list though it is dead, or do not list though it lives,
//! when the time to settle is over.

#![allow(clippy::wildcard_enum_match_arm, reason = "a judge looks at a few events of many")]
#![allow(clippy::print_stdout, reason = "a campaign ends with one line of figures")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use folkmoot::machine::membership::{applicant, authority};
use folkmoot::model::statement::Removal;
use folkmoot::model::{Endpoint, Incarnation, Rng, SeedId, Time, WallTime};
use folkmoot::node::{Event, peer_kind, seed_kind};
use folkmoot::sim::for_each_seed;
use rand::SeedableRng as _;

use super::{Carries, Fleet, describe};

/// How long after it is well again a member may still be voted dead: what a seed's own failed
/// probe counts for (4 s), and what a paused host needs for the letters that piled up.
const GRACE: Duration = Duration::from_millis(4_500);

/// When each host was unwell, as the test itself arranged it.
#[derive(Default)]
pub(crate) struct Truth {
    pub unwell: BTreeMap<Endpoint, Vec<(Time, Option<Time>)>>,
    /// Seeds whose votes are lies anyway.
    pub liars: BTreeSet<SeedId>,
    /// The error of each seed's wall clock, in milliseconds.
    pub skew_ms: BTreeMap<SeedId, i64>,
}

impl Truth {
    /// From now on a host cannot be expected to answer.
    pub(crate) fn falls_ill(&mut self, host: Endpoint, at: Time) {
        let spells = self.unwell.entry(host).or_default();
        if spells.last().is_none_or(|(_, end)| end.is_some()) {
            spells.push((at, None));
        }
    }

    /// From now on a host can be expected to answer.
    pub(crate) fn recovers(&mut self, host: Endpoint, at: Time) {
        if let Some((_, end)) = self.unwell.get_mut(&host).and_then(|spells| spells.last_mut()) {
            end.get_or_insert(at);
        }
    }

    /// Whether a host is unwell now, by the test's own arrangement.
    pub(crate) fn is_unwell(&self, host: Endpoint) -> bool {
        self.unwell.get(&host).and_then(|it| it.last()).is_some_and(|(_, end)| end.is_none())
    }

    /// Everybody is well again at `at`.
    pub(crate) fn all_recover(&mut self, at: Time) {
        for host in self.unwell.keys().copied().collect::<Vec<_>>() {
            self.recovers(host, at);
        }
    }

    /// Whether a vote against `host` cast at `at` is understandable.
    fn may_look_dead(&self, host: Endpoint, at: Time) -> bool {
        self.unwell.get(&host).is_some_and(|spells| {
            spells.iter().any(|(from, to)| *from <= at && to.is_none_or(|to| at <= to.after(GRACE)))
        })
    }
}

/// What came of one run.
#[derive(Default)]
pub(crate) struct Run {
    pub wrong: Vec<String>,
    pub stale: Vec<String>,
    pub missed: Vec<String>,
    pub excused: usize,
    /// How long it took until the seeds listed whom they should.
    pub settled: Vec<Duration>,
}

impl Run {
    /// Counts the removals that the fleet decided, by the test's own book.
    pub(crate) fn judge<M: Carries>(&mut self, fleet: &Fleet<M>, truth: &Truth) {
        let mut lives: BTreeMap<Endpoint, Incarnation> = BTreeMap::new();
        let mut seen: BTreeSet<(Endpoint, Incarnation)> = BTreeSet::new();
        for (at, host, event) in fleet.events() {
            match event {
                Event::Peer(peer_kind::Event::Applicant(applicant::Event::Attempt {
                    incarnation,
                    ..
                })) => _ = lives.insert(*host, *incarnation),
                Event::Seed(seed_kind::Event::Authority(authority::Event::Removed {
                    removal,
                    lives: ended,
                })) => {
                    for life in ended {
                        if seen.insert((life.endpoint, life.incarnation)) {
                            let is_present = lives.get(&life.endpoint) == Some(&life.incarnation);
                            let what = (&**removal, life.endpoint);
                            self.judge_removal(what, (*at, is_present), (fleet, truth));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn judge_removal<M: Carries>(
        &mut self,
        (removal, victim): (&Removal, Endpoint),
        (at, is_present): (Time, bool),
        (fleet, truth): (&Fleet<M>, &Truth),
    ) {
        let mut honest = removal.votes.iter().filter(|vote| !truth.liars.contains(&vote.seed));
        let cast = |seed: &SeedId, wall: WallTime| {
            let skew = truth.skew_ms.get(seed).copied().unwrap_or_default();
            let epoch = fleet.epoch;
            Time::from_micros(wall.0.saturating_add_signed(-skew).saturating_sub(epoch.0) * 1_000)
        };
        let story = || {
            let votes: Vec<_> = removal
                .votes
                .iter()
                .map(|vote| format!("{}@{:?}", vote.seed, cast(&vote.seed, vote.at)))
                .collect();
            let spells = truth.unwell.get(&victim);
            format!("{victim} removed at {at:?} by {votes:?}; it was unwell in {spells:?}")
        };
        let is_over = |moment: Time| !is_present || truth.may_look_dead(victim, moment);
        if honest.clone().count() == 0 || !honest.all(|it| is_over(cast(&it.seed, it.at))) {
            self.wrong.push(story());
        } else if !is_over(at) {
            self.stale.push(story());
        } else {
            self.excused += 1;
        }
    }

    /// Runs until each of `seeds` lists exactly `members`, and each of them is in with its
    /// present life; at most for `limit`, then whoever does not fit is missed.
    pub(crate) fn settle(
        &mut self,
        fleet: &mut Fleet,
        (seeds, members): (&[Endpoint], &[Endpoint]),
        limit: Duration,
    ) {
        let start = fleet.world.now();
        let end = start.after(limit);
        let is_settled = |fleet: &Fleet| {
            seeds.iter().all(|seed| {
                fleet.seed(*seed).is_some_and(|node| {
                    let registry = node.authority().registry();
                    registry.alive_count() == members.len()
                        && members.iter().all(|member| {
                            fleet.peer(*member).is_some_and(|it| {
                                registry.is_alive(&it.applicant().subject())
                                    && it.applicant().admission().is_some()
                            })
                        })
                })
            })
        };
        if is_settled(fleet) {
            return;
        }
        while !is_settled(fleet) {
            if fleet.world.now() >= end {
                return self.miss(fleet, (seeds, members));
            }
            fleet.world.run_for(Duration::from_millis(20));
        }
        self.settled.push(fleet.world.now().since(start));
    }

    fn miss(&mut self, fleet: &Fleet, (seeds, members): (&[Endpoint], &[Endpoint])) {
        let wanted: BTreeSet<_> = members.iter().copied().collect();
        let before = self.missed.len();
        for seed in seeds {
            let listed: BTreeSet<_> = match fleet.seed(*seed) {
                Some(_) => fleet.members_at(*seed).into_iter().collect(),
                None => BTreeSet::new(),
            };
            let told = listed.difference(&wanted).map(|it| format!("{seed} still lists {it}"));
            self.missed.extend(told);
            let told = wanted.difference(&listed).map(|it| format!("{seed} does not list {it}"));
            self.missed.extend(told);
        }
        if self.missed.len() == before {
            self.missed.push("somebody is not in with its present life".to_owned());
        }
        self.missed.push(describe(fleet));
    }
}

/// Runs a campaign: `check` once for each of `runs` seeds. Prints one line of figures, and fails
/// when anybody was removed wrongly or missed.
pub(crate) fn campaign(name: &str, runs: u64, check: impl Fn(u64) -> Run + Sync) {
    #[allow(clippy::disallowed_methods, reason = "the wall time of the campaign is told")]
    let started = std::time::Instant::now();
    let runs = for_each_seed(runs, |seed| (seed, check(seed)));
    let count = |of: fn(&Run) -> usize| runs.iter().map(|(_, run)| of(run)).sum::<usize>();
    let mut settled: Vec<_> = runs.iter().flat_map(|(_, run)| &run.settled).copied().collect();
    settled.sort();
    let at =
        |share: usize| settled.get((settled.len() * share / 100).min(settled.len().max(1) - 1));
    let span = |span: Option<&Duration>| span.map_or(0.0, Duration::as_secs_f64);
    println!(
        "campaign {name}: runs {}, wrong removals {}, stale {}, missed {}, excused removals {}, \
         converged p50 {:.2} s, max {:.2} s (wall {:.1} s)",
        runs.len(),
        count(|run| run.wrong.len()),
        count(|run| run.stale.len()),
        count(|run| run.missed.len()),
        count(|run| run.excused),
        span(at(50)),
        span(settled.last()),
        started.elapsed().as_secs_f64(),
    );
    for (seed, run) in &runs {
        let Run { wrong, stale, missed, .. } = run;
        assert!(wrong.is_empty(), "SEED={seed}: wrongly removed: {}", wrong.join("\n"));
        assert!(stale.is_empty(), "SEED={seed}: removed too late: {}", stale.join("\n"));
        assert!(missed.is_empty(), "SEED={seed}: missed: {}", missed.join("\n"));
    }
}

/// The dice of a test, apart from those of its world.
pub(crate) fn dice(seed: u64) -> Rng {
    Rng::seed_from_u64(seed ^ 0x000c_a301_a161)
}

/// Something that a script does.
pub(crate) type Act = Box<dyn FnOnce(&mut Fleet, &mut Truth)>;

/// What happens when, in a run.
#[derive(Default)]
pub(crate) struct Script {
    acts: BTreeMap<(Time, usize), Act>,
}

impl Script {
    /// At the moment `at` this happens.
    pub(crate) fn at(&mut self, at: Time, act: impl FnOnce(&mut Fleet, &mut Truth) + 'static) {
        let number = self.acts.len();
        self.acts.insert((at, number), Box::new(act));
    }

    /// Plays it all.
    pub(crate) fn play(self, fleet: &mut Fleet, truth: &mut Truth) {
        for ((at, _), act) in self.acts {
            fleet.world.run_until(at);
            act(fleet, truth);
        }
    }
}

impl Fleet {
    /// Kills a peer; it may come back.
    pub(crate) fn kill(&mut self, truth: &mut Truth, peer: Endpoint, silently: bool) {
        truth.falls_ill(peer, self.world.now());
        if silently { self.world.vanish(peer) } else { self.world.crash(peer) }
    }

    /// Starts a peer that was killed.
    pub(crate) fn revive(&mut self, truth: &mut Truth, peer: Endpoint) {
        self.world.restart(peer);
        truth.recovers(peer, self.world.now());
    }

    /// Ends all that the test did to anybody.
    pub(crate) fn calm_down(&mut self, truth: &mut Truth) {
        self.world.calm_down();
        truth.all_recover(self.world.now());
    }
}
