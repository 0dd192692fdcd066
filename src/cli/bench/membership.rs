//! The membership, measured: how fast a fleet comes together, how fast the dead are known, what
//! a quiet fleet costs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use rand::SeedableRng as _;
use rand::seq::IteratorRandom as _;
use rustix::process::Signal;
use serde_json::json;

use super::{figure, procfs};
use crate::cli::CliError;
use crate::cli::fleet::{Fleet, Happening, Plan};
use crate::cli::query::{self, print};
use crate::cli::span::Span;
use crate::model::{Endpoint, Rng};
use crate::runtime::clock::Clock;

/// What can be set at this measurement.
#[derive(Clone, Debug, Args)]
pub struct MembershipArgs {
    /// How many peers to start
    #[arg(long, value_name = "N", default_value_t = 50,
        value_parser = clap::value_parser!(u16).range(2..=2000))]
    pub peers: u16,
    /// How many seeds to start
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=15))]
    pub seeds: u16,
    /// How many peers to kill with SIGKILL, one after the other
    #[arg(long, value_name = "K", default_value_t = 7)]
    pub kills: u16,
    /// How many peers to stop with SIGSTOP, one after the other
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub stops: u16,
    /// How long to watch the idle fleet
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub idle: Span,
}

/// How long anything may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(120);

struct Bench {
    fleet: Fleet,
    peers: u16,
    seeds: usize,
    clock: Clock,
    rng: Rng,
    /// What was measured of each death, by how it was brought about.
    deaths: BTreeMap<String, Vec<Death>>,
}

/// Measures, and prints a JSON line a figure.
pub(super) fn run(args: &MembershipArgs) -> Result<(), CliError> {
    let exe = std::env::current_exe()
        .map_err(|source| CliError::System { action: "find this executable", source })?;
    let plan = Plan {
        exe,
        seeds: args.seeds,
        seed_port: 0,
        peer_port: 0,
        peers: args.peers,
        seed_args: Vec::new(),
        peer_args: vec!["--gossip-interval".to_owned(), "2s".to_owned()],
    };
    let fleet = Fleet::lay_out(plan)
        .map_err(|source| CliError::System { action: "lay out the fleet", source })?;
    let (clock, rng) = (Clock::start(), Rng::seed_from_u64(1));
    let seeds = usize::from(args.seeds);
    let deaths = BTreeMap::new();
    let mut bench = Bench { fleet, peers: args.peers, seeds, clock, rng, deaths };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let line = json!({ "bench": "membership", "peers": args.peers, "seeds": args.seeds,
        "cores": cores, "version": env!("CARGO_PKG_VERSION") });
    print(&format!("{line}\n"))?;
    bench.join()?;
    bench.shape()?;
    bench.gossip()?;
    bench.idle(args.idle.0)?;
    // Three are left alive at the least, so that the last dead still has witnesses.
    let mortal = args.peers.saturating_sub(3);
    let kills = args.kills.min(mortal);
    for _ in 0..kills {
        bench.kill()?;
    }
    bench.detection("kill")?;
    for _ in 0..args.stops.min(mortal - kills) {
        bench.stop()?;
    }
    bench.detection("stop")?;
    bench.innocents()
}

/// Milliseconds of one death: from the deed to each stage.
#[derive(Default)]
struct Death {
    suspected: f64,
    reported: f64,
    removed: f64,
    dropped: f64,
}

impl Bench {
    fn wait(
        &mut self,
        what: &str,
        reached: impl FnMut(&[Happening]) -> bool,
    ) -> Result<(), CliError> {
        let outcome = self.fleet.story().wait(PATIENCE, reached);
        match outcome.map_err(|source| CliError::System { action: "follow the log", source })? {
            true => Ok(()),
            false => Err(CliError::Failed(format!(
                "not within {} s: {what}; {}",
                PATIENCE.as_secs(),
                self.fleet.complaints()
            ))),
        }
    }

    fn wall(&self) -> u64 {
        self.clock.now().wall.0
    }

    fn join(&mut self) -> Result<(), CliError> {
        let failed = |source| CliError::System { action: "start a process", source };
        for seed in self.fleet.seeds().to_vec() {
            self.fleet.start_seed(seed).map_err(failed)?;
        }
        let seeds = self.seeds;
        self.wait("the seeds are ready", |lines| {
            lines.iter().filter(|line| line.is("seed", "ready")).count() >= seeds
        })?;
        let began = self.wall();
        for peer in self.fleet.peers().to_vec() {
            self.fleet.start_peer(peer).map_err(failed)?;
        }
        let started = self.wall();
        let wanted = usize::from(self.peers);
        self.wait("all peers are members", |lines| {
            lines.iter().filter(|line| line.is("peer", "admitted")).count() >= wanted
        })?;
        let (mut asked, mut waits, mut last) = (BTreeMap::new(), Vec::new(), began);
        for line in self.fleet.story().lines().iter().filter(|line| line.role == "peer") {
            if line.event == "asked" {
                asked.insert(line.node, line.ts_ms);
            } else if line.event == "admitted" {
                last = last.max(line.ts_ms);
                waits.extend(asked.get(&line.node).map(|at| line.ts_ms.saturating_sub(*at) as f64));
            }
        }
        figure(self.peers, "start_all_processes_ms", &[(started - began) as f64])?;
        figure(self.peers, "all_peers_active_ms", &[last.saturating_sub(began) as f64])?;
        figure(self.peers, "asked_to_admitted_ms", &waits)
    }

    /// The overlay after it has come to rest.
    fn shape(&mut self) -> Result<(), CliError> {
        self.watch(Duration::from_secs(3))?;
        let seed = self.fleet.seeds()[0];
        let nodes = query::fetch_topology(seed, PATIENCE).map_err(CliError::Query)?;
        let mut histogram: BTreeMap<usize, usize> = BTreeMap::new();
        for node in &nodes {
            *histogram.entry(node.neighbors.len()).or_default() += 1;
        }
        let links: BTreeMap<_, BTreeSet<_>> =
            nodes.iter().map(|it| (it.endpoint, it.neighbors.iter().copied().collect())).collect();
        let is_mutual = links.iter().all(|(node, list)| {
            list.iter().all(|other| links.get(other).is_some_and(|theirs| theirs.contains(node)))
        });
        let degrees: Vec<_> = nodes.iter().map(|it| it.neighbors.len() as f64).collect();
        figure(self.peers, "degree", &degrees)?;
        let line = json!({ "bench": "membership", "peers": self.peers, "metric":
            "degree_histogram", "histogram": histogram, "mutual": is_mutual });
        print(&format!("{line}\n"))
    }

    fn gossip(&mut self) -> Result<(), CliError> {
        // Ten messages, two seconds apart, and some time for the last ones.
        let made = usize::from(self.peers) * 10;
        self.wait("all gossip is made", |lines| {
            lines.iter().filter(|line| line.event == "gossip_made").count() >= made
        })?;
        self.watch(Duration::from_secs(2))?;
        let (mut made, mut heard) = (BTreeMap::new(), BTreeMap::new());
        for line in self.fleet.story().lines() {
            let key = (line.endpoint("origin"), line.number("incarnation"), line.number("number"));
            match line.event.as_str() {
                "gossip_made" => _ = made.insert(key, line.ts_ms),
                "gossip_heard" => {
                    let entry = heard.entry(key).or_insert((0_usize, 0));
                    *entry = (entry.0 + 1, line.ts_ms.max(entry.1));
                }
                _ => {}
            }
        }
        let last = made.iter().filter_map(|(key, at)| {
            let (_, last) = heard.get(key)?;
            Some(last.saturating_sub(*at) as f64)
        });
        figure(self.peers, "gossip_to_the_last_peer_ms", &last.collect::<Vec<_>>())?;
        let wanted = made.len() * usize::from(self.peers - 1);
        let got: usize = heard.values().map(|(count, _)| *count).sum();
        let share = got as f64 / wanted as f64;
        let line = json!({ "bench": "membership", "peers": self.peers, "metric":
            "gossip_delivered", "messages": made.len(), "share": share });
        print(&format!("{line}\n"))
    }

    fn idle(&mut self, span: Duration) -> Result<(), CliError> {
        let pids = |nodes: &[Endpoint], fleet: &Fleet| -> Vec<u32> {
            nodes.iter().filter_map(|node| fleet.pid(*node)).collect()
        };
        let peers = pids(self.fleet.peers(), &self.fleet);
        let seeds = pids(self.fleet.seeds(), &self.fleet);
        let used = |pids: &[u32]| -> Vec<f64> {
            pids.iter().map(|pid| procfs::cpu_seconds(*pid).unwrap_or(0.0)).collect()
        };
        let (peers_before, seeds_before, began) = (used(&peers), used(&seeds), self.wall());
        self.watch(span)?;
        let seconds = (self.wall() - began) as f64 / 1_000.0;
        let percent = |before: Vec<f64>, after: Vec<f64>| -> Vec<f64> {
            before.iter().zip(after).map(|(b, a)| (a - b) / seconds * 100.0).collect()
        };
        let peers_percent = percent(peers_before, used(&peers));
        let mean = peers_percent.iter().sum::<f64>() / peers_percent.len().max(1) as f64;
        figure(self.peers, "idle_cpu_percent_of_a_core_mean_of_peers", &[mean])?;
        figure(
            self.peers,
            "idle_cpu_percent_of_a_core_seed",
            &percent(seeds_before, used(&seeds)),
        )?;
        let memory: Vec<_> = peers.iter().filter_map(|pid| procfs::memory(*pid)).collect();
        let column =
            |pick: fn(&(f64, f64, f64)) -> f64| -> Vec<f64> { memory.iter().map(pick).collect() };
        figure(self.peers, "resident_mib_peer", &column(|it| it.0))?;
        figure(self.peers, "proportional_mib_peer", &column(|it| it.1))?;
        figure(self.peers, "threads_peer", &column(|it| it.2))?;
        let memory: Vec<_> = seeds.iter().filter_map(|pid| procfs::memory(*pid)).collect();
        figure(self.peers, "resident_mib_seed", &memory.iter().map(|it| it.0).collect::<Vec<_>>())
    }

    fn watch(&mut self, span: Duration) -> Result<(), CliError> {
        let watched = self.fleet.story().watch(span);
        watched.map_err(|source| CliError::System { action: "follow the log", source })
    }

    /// A running peer, at random.
    fn victim(&mut self) -> Result<Endpoint, CliError> {
        let peers: BTreeSet<_> = self.fleet.peers().iter().copied().collect();
        let running = self.fleet.running().filter(|node| peers.contains(node));
        let chosen = running.choose(&mut self.rng);
        chosen.ok_or_else(|| CliError::Failed("no peer is left to kill".to_owned()))
    }

    fn kill(&mut self) -> Result<(), CliError> {
        let victim = self.victim()?;
        let before = self.deed(victim)?;
        let now = self.wall();
        let failed = |source| CliError::System { action: "kill a process", source };
        self.fleet.kill(victim).map_err(failed)?;
        self.death("kill", victim, before, now)
    }

    fn stop(&mut self) -> Result<(), CliError> {
        let victim = self.victim()?;
        let before = self.deed(victim)?;
        let now = self.wall();
        let failed = |source| CliError::System { action: "stop a process", source };
        self.fleet.signal(victim, Signal::STOP).map_err(failed)?;
        self.death("stop", victim, before, now)?;
        self.fleet.kill(victim).map_err(failed)
    }

    /// Lets the fleet come to rest before a deed. Returns how much of the log lies before it.
    fn deed(&mut self, victim: Endpoint) -> Result<(usize, BTreeSet<Endpoint>), CliError> {
        self.watch(Duration::from_secs(2))?;
        let lines = self.fleet.story().lines();
        let of_victim = lines.iter().rev().find(|it| it.node == victim && it.event == "neighbors");
        let list = of_victim.and_then(|line| line.fields.get("neighbors")?.as_array());
        let parse = |it: &serde_json::Value| it.as_str()?.parse().ok();
        let neighbors = list.map(|list| list.iter().filter_map(parse).collect());
        Ok((lines.len(), neighbors.unwrap_or_default()))
    }

    /// Waits for a death to be known everywhere, and prints how long each stage took.
    fn death(
        &mut self,
        deed: &str,
        victim: Endpoint,
        (before, neighbors): (usize, BTreeSet<Endpoint>),
        at: u64,
    ) -> Result<(), CliError> {
        let seeds = self.seeds;
        let about = move |line: &&Happening| line.endpoint("endpoint") == Some(victim);
        let removed = |lines: &[Happening], role: &str| -> BTreeMap<Endpoint, u64> {
            let lines = lines[before..].iter().filter(about);
            lines.filter(|it| it.is(role, "removed")).map(|it| (it.node, it.ts_ms)).collect()
        };
        self.wait("the victim is removed everywhere", |lines| {
            let dropped = removed(lines, "peer");
            removed(lines, "seed").len() >= seeds
                && neighbors.iter().all(|neighbor| dropped.contains_key(neighbor))
        })?;
        let lines = self.fleet.story().lines();
        let since = |ms: u64| ms.saturating_sub(at) as f64;
        let first = |event: &str| {
            let mut all = lines[before..].iter().filter(about);
            all.find(|line| line.is("peer", event)).map_or(f64::NAN, |line| since(line.ts_ms))
        };
        let last = |role: &str, of: &dyn Fn(&Endpoint) -> bool| {
            let all = removed(lines, role).into_iter().filter(|(node, _)| of(node));
            all.map(|(_, ms)| since(ms)).fold(0.0, f64::max)
        };
        let death = Death {
            suspected: first("suspected"),
            reported: first("reported"),
            removed: last("seed", &|_| true),
            dropped: last("peer", &|node| neighbors.contains(node)),
        };
        let line = json!({
            "bench": "membership", "peers": self.peers, "metric": deed, "victim": victim,
            "degree": neighbors.len(), "suspected_ms": death.suspected,
            "reported_ms": death.reported, "removed_at_every_seed_ms": death.removed,
            "dropped_by_every_neighbor_ms": death.dropped,
        });
        self.deaths.entry(deed.to_owned()).or_default().push(death);
        print(&format!("{line}\n"))
    }

    fn detection(&self, deed: &str) -> Result<(), CliError> {
        let Some(deaths) = self.deaths.get(deed) else { return Ok(()) };
        let column = |pick: fn(&Death) -> f64| deaths.iter().map(pick).collect::<Vec<_>>();
        let name = |stage: &str| format!("{deed}_to_{stage}_ms");
        figure(self.peers, &name("suspected"), &column(|it| it.suspected))?;
        figure(self.peers, &name("reported"), &column(|it| it.reported))?;
        figure(self.peers, &name("removed_at_every_seed"), &column(|it| it.removed))?;
        figure(self.peers, &name("dropped_by_every_neighbor"), &column(|it| it.dropped))
    }

    /// Members that were removed though nobody had killed or stopped them.
    fn innocents(&mut self) -> Result<(), CliError> {
        let deaths: usize = self.deaths.values().map(Vec::len).sum();
        let lines = self.fleet.story().lines();
        let removed: BTreeSet<_> = lines
            .iter()
            .filter(|line| line.is("seed", "removed"))
            .map(|line| (line.endpoint("endpoint"), line.number("incarnation")))
            .collect();
        let wrong = removed.len().saturating_sub(deaths);
        let line = json!({ "bench": "membership", "peers": self.peers, "metric":
            "removals", "deaths": deaths, "wrong": wrong });
        print(&format!("{line}\n"))
    }
}
