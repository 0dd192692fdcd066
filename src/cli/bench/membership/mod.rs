//! Measurement of the membership: the time for a fleet to come together and to learn of deaths, the
//! costs of a quiet fleet, and whether living members are taken for dead.

mod cost;
mod deaths;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use rand::SeedableRng as _;
use serde_json::json;

use super::figure::{Sheet, Target};
use super::limits;
use super::overload::Overload;
use crate::cli::CliError;
use crate::cli::fleet::{Fleet, FleetLayout, LogEvent};
use crate::cli::query;
use crate::cli::span::Span;
use crate::model::Rng;
use crate::runtime::clock::Clock;

/// Flags of this measurement.
#[derive(Clone, Debug, Args)]
pub struct MembershipArgs {
    /// Number of peers to start
    #[arg(long, value_name = "N", default_value_t = 50,
        value_parser = clap::value_parser!(u16).range(2..=2000))]
    pub peers: u16,
    /// Number of peers that may be on their way in at a time; others start as these arrive
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub at_once: u16,
    /// Number of seeds to start
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=15))]
    pub seeds: u16,
    /// Number of peers to kill with SIGKILL, one after the other
    #[arg(long, value_name = "K", default_value_t = 7)]
    pub kills: u16,
    /// Number of peers to stop with SIGSTOP, one after the other
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub stops: u16,
    /// Number of peers to kill with SIGKILL at the same instant; three are left at the least
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub kill_many: u16,
    /// As many busy loops as there are cores, from the watch on: nobody may be taken for dead
    #[arg(long)]
    pub overload: bool,
    /// Time to watch the idle fleet, and then the overloaded one
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub idle: Span,
}

/// Below the ports that the system gives to callers: in a large fleet those would take a peer's
/// port before the peer does. If one is taken, free ones are found.
const SEED_PORT: u16 = 5_101;
const PEER_PORT: u16 = 20_001;

/// Longest wait for any step, and the addition for each peer.
const PATIENCE: Duration = Duration::from_secs(120);
const PATIENCE_PER_PEER: Duration = Duration::from_millis(300);

/// Target for the time until a thousand peers are members, in milliseconds.
const ALL_ACTIVE_MS_WANTED: f64 = 20_000.0;

/// Largest number of gossip messages that are heard, by all peers together; few of many peers
/// speak.
const HEARD_MAX: usize = 100_000;

/// Largest number of gossip messages that each speaker makes.
const MESSAGES_EACH: usize = 10;

/// Events that are read in the fleet's log.
const EVENTS: &[&str] = &[
    "ready",
    "attempt",
    "asked",
    "admitted",
    "neighbors",
    "gossip_made",
    "gossip_heard",
    "suspected",
    "reported",
    "removed",
];

/// Least number of peers that are left alive, so that the last dead still has witnesses.
const SURVIVORS: u16 = 3;

/// Milliseconds of one death: from the deed to each stage.
#[derive(Default)]
struct Death {
    suspected: f64,
    reported: f64,
    removed: f64,
    dropped: f64,
}

struct Bench {
    fleet: Fleet,
    peers: u16,
    /// Number of peers that gossip: the last ones to start, so that nearly all can hear.
    speakers: usize,
    seeds: usize,
    clock: Clock,
    rng: Rng,
    sheet: Sheet,
    /// Measurements of each death, by its kind.
    deaths: BTreeMap<String, Vec<Death>>,
    /// Number of peers that died at the same instant.
    dead_at_once: usize,
    overload: Option<Overload>,
}

/// Measures, and prints a JSON line a figure.
pub(super) fn run(args: &MembershipArgs) -> Result<(), CliError> {
    check(args)?;
    let exe = std::env::current_exe()
        .map_err(|source| CliError::System { action: "find this executable", source })?;
    let plan = FleetLayout {
        exe,
        seeds: args.seeds,
        seed_port: SEED_PORT,
        peer_port: PEER_PORT,
        peers: args.peers,
        seed_args: Vec::new(),
        peer_args: vec!["--gossip-interval".to_owned(), "2s".to_owned()],
    };
    let mut sheet = Sheet::new(json!({ "bench": "membership", "peers": args.peers }));
    sheet.line("limits", limits::make_room(args.peers, args.seeds)?)?;
    let mut fleet = Fleet::lay_out(plan)
        .map_err(|source| CliError::System { action: "lay out the fleet", source })?;
    let version = env!("CARGO_PKG_VERSION");
    sheet.line(
        "start",
        json!({ "seeds": args.seeds, "cores": super::figure::cores(), "version": version }),
    )?;
    sheet.note("overload", 0.into());
    fleet.story().keep_only(|line| EVENTS.contains(&line.event.as_str()));
    let mut bench = Bench {
        fleet,
        peers: args.peers,
        speakers: speakers(args.peers.into()),
        seeds: args.seeds.into(),
        clock: Clock::start(),
        rng: Rng::seed_from_u64(1),
        sheet,
        deaths: BTreeMap::new(),
        dead_at_once: 0,
        overload: None,
    };
    bench.join(args.at_once)?;
    bench.shape()?;
    bench.gossip()?;
    bench.rest()?;
    bench.idle(args.idle.0)?;
    bench.anti_entropy()?;
    if args.overload {
        bench.overload()?;
        bench.watch(args.idle.0)?;
        bench.innocents()?;
    }
    bench.die(args)?;
    bench.innocents()
}

/// Refuses flags that cannot be measured.
fn check(args: &MembershipArgs) -> Result<(), CliError> {
    let mortal = args.peers.saturating_sub(SURVIVORS);
    if args.kill_many > mortal {
        return Err(CliError::Usage(format!(
            "--kill-many {} of --peers {} would leave fewer than {SURVIVORS} witnesses; at most \
             {mortal} can die at once",
            args.kill_many, args.peers,
        )));
    }
    Ok(())
}

/// Number of `peers` that speak, so that a machine can log all that is heard.
const fn speakers(peers: usize) -> usize {
    let most = HEARD_MAX / (MESSAGES_EACH * peers);
    if most == 0 {
        1
    } else if most < peers {
        most
    } else {
        peers
    }
}

impl Bench {
    fn patience(&self) -> Duration {
        PATIENCE + PATIENCE_PER_PEER * u32::from(self.peers)
    }

    fn wait(
        &mut self,
        what: &str,
        reached: impl FnMut(&[LogEvent]) -> bool,
    ) -> Result<(), CliError> {
        let patience = self.patience();
        let outcome = self.fleet.story().wait(patience, reached);
        match outcome.map_err(|source| CliError::System { action: "follow the log", source })? {
            true => Ok(()),
            false => Err(CliError::Failed(format!(
                "not within {} s: {what}; {}",
                patience.as_secs(),
                self.fleet.complaints()
            ))),
        }
    }

    /// Waits until `wanted` different nodes have logged a line for which `is_it` is true. Each line
    /// is looked at once: the log of a large fleet is long.
    fn wait_for_nodes(
        &mut self,
        what: &str,
        wanted: usize,
        is_it: impl Fn(&LogEvent) -> bool,
    ) -> Result<(), CliError> {
        let (mut seen, mut nodes) = (0, BTreeSet::new());
        self.wait(what, |lines| {
            nodes.extend(lines[seen..].iter().filter(|it| is_it(it)).map(|it| it.node));
            seen = lines.len();
            nodes.len() >= wanted
        })
    }

    fn wall(&self) -> u64 {
        self.clock.now().wall.0
    }

    fn join(&mut self, at_once: u16) -> Result<(), CliError> {
        let failed = |source| CliError::System { action: "start a process", source };
        for seed in self.fleet.seeds().to_vec() {
            self.fleet.start_seed(seed).map_err(failed)?;
        }
        self.wait_for_nodes("the seeds are ready", self.seeds, |line| line.is("seed", "ready"))?;
        let began = self.wall();
        let silent = usize::from(self.peers) - self.speakers;
        let (mut seen, mut admitted) = (0, BTreeSet::new());
        for (number, peer) in self.fleet.peers().to_vec().into_iter().enumerate() {
            self.wait("peers that were started are members", |lines| {
                let lines = lines.get(seen..).unwrap_or_default().iter().inspect(|_| seen += 1);
                admitted.extend(lines.filter(|it| it.is("peer", "admitted")).map(|it| it.node));
                number < admitted.len() + usize::from(at_once)
            })?;
            let more: &[&str] = if number < silent { &["--gossip-max", "0"] } else { &[] };
            self.fleet.start_peer_with(peer, more).map_err(failed)?;
        }
        let started = self.wall();
        let wanted = usize::from(self.peers);
        self.wait_for_nodes("all peers are members", wanted, |line| line.is("peer", "admitted"))?;
        let (mut asked, mut waits, mut last) = (BTreeMap::new(), Vec::new(), began);
        let mut attempts = Vec::new();
        for line in self.fleet.story().lines().iter().filter(|line| line.role == "peer") {
            if line.event == "asked" {
                asked.insert(line.node, line.ts_ms);
            } else if line.event == "attempt" {
                attempts.push(line.node);
            } else if line.event == "admitted" {
                last = last.max(line.ts_ms);
                waits.extend(asked.get(&line.node).map(|at| line.ts_ms.saturating_sub(*at) as f64));
            }
        }
        self.sheet.figure("start_all_processes_ms", &[(started - began) as f64])?;
        let all = [last.saturating_sub(began) as f64];
        let target = Target::AtMost(ALL_ACTIVE_MS_WANTED);
        self.sheet.judged("all_peers_active_ms", &all, target)?;
        self.sheet.figure("attempts_per_peer_mean", &[attempts.len() as f64 / wanted as f64])?;
        self.sheet.figure("asked_to_admitted_ms", &waits)
    }

    /// Measures the overlay after it has come to rest.
    fn shape(&mut self) -> Result<(), CliError> {
        self.watch(Duration::from_secs(3))?;
        let seed = self.fleet.seeds()[0];
        let nodes = query::fetch_topology(seed, self.patience()).map_err(CliError::Query)?;
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
        self.sheet.figure("degree", &degrees)?;
        let fields = json!({ "histogram": histogram, "mutual": is_mutual });
        self.sheet.line("degree_histogram", fields)
    }

    fn gossip(&mut self) -> Result<(), CliError> {
        // Ten messages, two seconds apart, and some time for the last ones.
        let wanted = self.speakers;
        self.wait_for_nodes("all gossip is made", wanted, |line| {
            line.event == "gossip_made" && line.number("number") == Some(MESSAGES_EACH as u64)
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
        self.sheet.figure("gossip_to_the_last_peer_ms", &last.collect::<Vec<_>>())?;
        let wanted = made.len() * usize::from(self.peers - 1);
        let got: usize = heard.values().map(|(count, _)| *count).sum();
        let share = got as f64 / wanted as f64;
        let fields = json!({ "messages": made.len(), "share": share });
        self.sheet.line("gossip_delivered", fields)
    }

    /// Waits until the log is quiet.
    fn rest(&mut self) -> Result<(), CliError> {
        let began = self.wall();
        loop {
            let before = self.fleet.story().lines().len();
            self.watch(Duration::from_secs(3))?;
            let is_patient = self.wall() - began < 60_000;
            if self.fleet.story().lines().len() == before || !is_patient {
                return self.sheet.line("rest", json!({ "quiet": is_patient }));
            }
        }
    }

    /// Gives the machine more work than it can do, from now on.
    fn overload(&mut self) -> Result<(), CliError> {
        let overload = Overload::start()?;
        self.sheet.note("overload", overload.count().into());
        self.overload = Some(overload);
        Ok(())
    }

    fn watch(&mut self, span: Duration) -> Result<(), CliError> {
        let watched = self.fleet.story().watch(span);
        watched.map_err(|source| CliError::System { action: "follow the log", source })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: MembershipArgs,
    }

    #[test]
    fn few_of_many_peers_speak_and_all_of_few() {
        assert_eq!(speakers(10), 10);
        assert_eq!(speakers(100), 100);
        assert_eq!(speakers(1_000), 10);
        assert_eq!(speakers(60_000), 1);
    }

    #[test]
    fn as_many_must_survive_as_can_testify() {
        let parse = |line: &str| Line::parse_from(line.split(' ')).args;
        let error = check(&parse("bench --peers 10 --kill-many 8")).unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(error.to_string().contains("at most 7"), "{error}");
        assert!(check(&parse("bench --peers 10 --kill-many 7 --overload")).is_ok());
    }
}
