//! One simulation from the first start to the end, phase by phase, with its measurements.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::SimulateArgs;
use super::fleet::{Fleet, Schedule};
use super::ledger::Ledger;
use super::record::Record;
use crate::cli::bench::procfs;
use crate::model::{Endpoint, Time, VerdictMemo};
use crate::runtime::clock::Clock;
use crate::sim::Traffic;

/// Virtual time that passes before the events are booked: they are not kept.
const STRIDE: Duration = Duration::from_millis(20);

/// Results from which the figures and the picture are made.
pub(super) struct Outcome {
    /// Times of the stages.
    pub(super) schedule: Schedule,
    /// Events of the nodes.
    pub(super) ledger: Ledger,
    /// Peers that were members when the quiet watch began.
    pub(super) active: usize,
    /// Number of the seeds that listed them all then.
    pub(super) complete_seeds: usize,
    /// The overlay then: each peer's neighbors.
    pub(super) overlay: BTreeMap<Endpoint, BTreeSet<Endpoint>>,
    /// Messages sent in the quiet watch.
    pub(super) idle: Watch,
    /// Messages sent from the first start to the end.
    pub(super) total: Watch,
    /// Costs of this run here.
    pub(super) cost: Cost,
    /// The run for the page, if it was asked for.
    pub(super) record: Option<Record>,
}

/// Messages sent in a span of virtual time.
pub(super) struct Watch {
    pub(super) seconds: f64,
    /// Messages of each peer that lived all the while.
    pub(super) peers: Vec<Traffic>,
    /// Messages of each seed.
    pub(super) seeds: Vec<Traffic>,
    /// Messages of all nodes, by the messages' names.
    pub(super) by_name: BTreeMap<&'static str, Traffic>,
    /// Number of inputs that machines handled.
    pub(super) events: u64,
}

/// Costs of a run for the machine it runs on. Not a function of the flags.
pub(super) struct Cost {
    pub(super) wall: Duration,
    /// Seconds of processor time, all of it of one core.
    pub(super) cpu: f64,
    /// Resident memory that the fleet added, in MiB, when it was complete and quiet.
    pub(super) resident: f64,
    /// Largest resident memory of this process, in MiB.
    pub(super) peak: f64,
    /// Seconds of processor time that the quiet watch took.
    pub(super) idle_cpu: f64,
}

/// Counters at one moment.
struct CounterMark {
    at: Time,
    peers: Vec<Traffic>,
    seeds: Vec<Traffic>,
    by_name: BTreeMap<&'static str, Traffic>,
    events: u64,
}

struct Run {
    fleet: Fleet,
    ledger: Ledger,
    record: Option<Record>,
    bar: ProgressBar,
    peers: u16,
}

/// Runs the simulation that the flags ask for.
pub(super) fn run(args: &SimulateArgs) -> Outcome {
    let clock = Clock::start();
    // All nodes live in this thread: each signature is verified once, not once by each of them.
    let _memo = VerdictMemo::on_this_thread();
    let before = resident();
    let cpu_before = cpu();
    let schedule = Schedule::new(args);
    let fleet = Fleet::lay_out(args, &schedule);
    let bar = progress(schedule.end);
    let record = args.open.then(|| Record::new(&fleet));
    let mut run = Run { fleet, ledger: Ledger::default(), record, bar, peers: args.peers };
    let start = run.mark();
    run.advance("joining", schedule.joined);
    run.advance("settling", schedule.idle);
    let (active, complete_seeds) = run.complete();
    let overlay = run.overlay();
    let (quiet, quiet_since) = (run.mark(), cpu());
    run.advance("quiet", schedule.gossip);
    let idle_cpu = cpu() - quiet_since;
    let idle = run.since(&quiet);
    let resident = (resident() - before).max(0.0);
    run.advance("gossip", schedule.kill);
    run.kill(args.vanish);
    run.advance("after the deaths", schedule.end);
    let total = run.since(&start);
    run.bar.finish_and_clear();
    let wall = clock.now().mono.since(Time::ZERO);
    let peak = procfs::own_peak().unwrap_or(0.0);
    let cpu = cpu() - cpu_before;
    let cost = Cost { wall, cpu, resident, peak, idle_cpu };
    let Run { ledger, record, .. } = run;
    Outcome { schedule, ledger, active, complete_seeds, overlay, idle, total, cost, record }
}

fn cpu() -> f64 {
    procfs::cpu_seconds(std::process::id()).unwrap_or(0.0)
}

fn resident() -> f64 {
    procfs::memory(std::process::id()).map_or(0.0, |it| it.resident)
}

/// Progress bar, shown on a terminal only.
fn progress(end: Time) -> ProgressBar {
    let bar = ProgressBar::new(end.as_micros() / 1_000);
    let style = ProgressStyle::with_template(
        "{elapsed_precise} [{bar:32}] {percent:>3}% {msg}, {eta} to go",
    );
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

impl Run {
    fn advance(&mut self, phase: &str, until: Time) {
        if let Some(record) = &mut self.record {
            record.begin(phase, &self.fleet);
        }
        while self.fleet.world.now() < until {
            let next = self.fleet.world.now().after(STRIDE).min(until);
            self.fleet.world.run_until(next);
            for (at, node, event) in self.fleet.world.take_events() {
                self.ledger.book(at, node, &event);
                if let Some(record) = &mut self.record {
                    record.book(at, node, &event, &self.fleet);
                }
            }
            if let Some(record) = &mut self.record {
                record.fold(next);
            }
            let now = self.fleet.world.now().as_micros() / 1_000;
            self.bar.set_position(now);
            self.bar.set_message(format!(
                "{phase}: second {}, {} of {} are members",
                now / 1_000,
                self.ledger.admitted.len(),
                self.peers,
            ));
        }
    }

    fn mark(&self) -> CounterMark {
        let world = &self.fleet.world;
        let sent = |nodes: &[Endpoint]| nodes.iter().map(|node| world.sent(*node)).collect();
        CounterMark {
            at: world.now(),
            peers: sent(&self.fleet.peers),
            seeds: sent(&self.fleet.seeds),
            by_name: world.traffic(),
            events: world.steps(),
        }
    }

    fn since(&self, mark: &CounterMark) -> Watch {
        let now = self.mark();
        let less = |now: Vec<Traffic>, then: &[Traffic]| -> Vec<Traffic> {
            now.into_iter().zip(then).map(|(now, then)| now - *then).collect()
        };
        let then = |name: &str| mark.by_name.get(name).copied().unwrap_or_default();
        Watch {
            seconds: now.at.since(mark.at).as_secs_f64(),
            peers: less(now.peers, &mark.peers),
            seeds: less(now.seeds, &mark.seeds),
            by_name: now.by_name.into_iter().map(|(name, it)| (name, it - then(name))).collect(),
            events: now.events - mark.events,
        }
    }

    /// Number of peers that are members, and number of seeds that list exactly those.
    fn complete(&self) -> (usize, usize) {
        let is_active = |peer: &&Endpoint| {
            self.fleet.peer(**peer).is_some_and(|node| node.applicant().admission().is_some())
        };
        let active = self.fleet.peers.iter().filter(is_active).count();
        let lists_all = |seed: &&Endpoint| {
            let node = self.fleet.seed(**seed);
            node.is_some_and(|node| {
                let registry = node.authority().registry();
                registry.alive().map(|it| it.subject.endpoint).eq(self.fleet.peers.iter().copied())
            })
        };
        (active, self.fleet.seeds.iter().filter(lists_all).count())
    }

    fn neighbors(&self, peer: Endpoint) -> BTreeSet<Endpoint> {
        let node = self.fleet.peer(peer);
        node.map(|node| node.overlay().neighbors().keys().copied().collect()).unwrap_or_default()
    }

    fn overlay(&self) -> BTreeMap<Endpoint, BTreeSet<Endpoint>> {
        self.fleet.peers.iter().map(|peer| (*peer, self.neighbors(*peer))).collect()
    }

    fn kill(&mut self, silently: bool) {
        let victims: BTreeSet<_> = self.fleet.victims.iter().copied().collect();
        let now = self.fleet.world.now();
        for victim in &victims {
            // Only the neighbors that live on can drop it.
            let neighbors = &self.neighbors(*victim) - &victims;
            self.ledger.kill(*victim, now, neighbors);
        }
        if let Some(record) = &mut self.record {
            record.kill(&victims, silently, now);
        }
        for victim in &victims {
            if silently {
                self.fleet.world.vanish(*victim);
            }
            self.fleet.world.bury(*victim);
        }
    }
}
