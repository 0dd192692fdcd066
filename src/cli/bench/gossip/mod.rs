//! Measurement of the broadcast on a fleet of real processes: the time until the last peer has a
//! message, the number of copies, the rate that passes before anything is dropped, and whether
//! messages are lost without a report when a receiver pauses or is slow.
//!
//! Messages are published through the peers' control sockets, several in a request at high rates.
//! One at a time they are timed at their arrival, by a subscriber at every peer; for rates the
//! peers' counters are read, since timing each arrival would be the larger load.

mod latency;
mod rates;
mod slow;
mod subscribers;
mod tally;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::figure::Sheet;
use super::limits;
use crate::cli::CliError;
use crate::cli::fleet::{Fleet, FleetLayout};
use crate::cli::run::ApiRequest;
use crate::cli::span::Span;
use crate::model::{Data, Rng};
use crate::runtime::clock::Clock;
use crate::runtime::control;
use crate::runtime::files::control_path;

/// Flags of this measurement.
#[derive(Clone, Debug, Args)]
pub struct GossipArgs {
    /// Number of peers to start
    #[arg(long, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u16).range(3..=1000))]
    pub peers: u16,
    /// Number of seeds to start
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=15))]
    pub seeds: u16,
    /// Bytes of each message
    #[arg(long, value_name = "BYTES", default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub size: u32,
    /// Number of messages to publish one at a time, by random peers
    #[arg(long, value_name = "M", default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub messages: u16,
    /// Number of peers that publish at once when rates are measured; one alone is measured first
    #[arg(long, value_name = "P", default_value_t = 10,
        value_parser = clap::value_parser!(u16).range(1..=100))]
    pub publishers: u16,
    /// Time for which each rate is held
    #[arg(long, value_name = "TIME", default_value = "3s")]
    pub step: Span,
    /// The first rate, in messages a second
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// The highest rate to try
    #[arg(long, value_name = "N", default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate_max: u32,
    /// Measure also with a receiver that pauses and with a slow one, a minute or two more
    #[arg(long)]
    pub hinder: bool,
}

/// Below the ports that the system gives to callers; if one is taken, free ones are found.
const SEED_PORT: u16 = 5_101;
const PEER_PORT: u16 = 20_001;

/// Longest time for the fleet to come together, and the addition for each peer.
const PATIENCE: Duration = Duration::from_secs(120);
const PATIENCE_PER_PEER: Duration = Duration::from_millis(300);

/// Largest number of peers that join at a time.
const AT_ONCE: usize = 64;

/// Time without a log line after which the overlay counts as quiet, and limit of the looks.
const QUIET: Duration = Duration::from_secs(3);
const QUIET_LOOKS_MAX: u32 = 20;

/// Time-out of a peer's answer to a local program.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Topic of all published messages.
const TOPIC: &str = "bench";

struct Bench {
    fleet: Fleet,
    /// The peers' control sockets.
    sockets: Vec<PathBuf>,
    size: usize,
    clock: Clock,
    rng: Rng,
    sheet: Sheet,
}

/// Measures, and prints a JSON line a figure.
pub(super) fn run(args: &GossipArgs) -> Result<(), CliError> {
    if args.publishers >= args.peers {
        return Err(CliError::Usage(format!(
            "--publishers {} of --peers {}: at least one peer must be left to listen",
            args.publishers, args.peers
        )));
    }
    let exe = std::env::current_exe()
        .map_err(|source| CliError::System { action: "find this executable", source })?;
    let plan = FleetLayout {
        exe,
        seeds: args.seeds,
        seed_port: SEED_PORT,
        peer_port: PEER_PORT,
        peers: args.peers,
        seed_args: Vec::new(),
        peer_args: vec!["--gossip-max".to_owned(), "0".to_owned()],
    };
    let sheet = Sheet::new(json!({
        "bench": "gossip", "peers": args.peers, "bytes": args.size,
    }));
    // This process has a subscriber's socket at each peer beside its pipe.
    sheet.line("limits", limits::make_room(args.peers.saturating_mul(2), args.seeds)?)?;
    let fleet = Fleet::lay_out(plan)
        .map_err(|source| CliError::System { action: "lay out the fleet", source })?;
    let version = env!("CARGO_PKG_VERSION");
    sheet.line(
        "start",
        json!({ "seeds": args.seeds, "cores": super::figure::cores(), "version": version }),
    )?;
    let data = fleet.dir().join("data");
    let socket = |port| control_path(&data.join(format!("peer-{port}")));
    let sockets = fleet.peers().iter().map(|peer| socket(peer.port())).collect();
    let (size, clock, rng) = (args.size as usize, Clock::start(), Rng::seed_from_u64(1));
    let mut bench = Bench { fleet, sockets, size, clock, rng, sheet };
    bench.join()?;
    bench.rest()?;
    bench.latency(args.messages)?;
    bench.rates(1, args)?;
    if args.publishers > 1 {
        bench.rates(args.publishers.into(), args)?;
    }
    if args.hinder {
        bench.hindrances(args)?;
    }
    Ok(())
}

impl Bench {
    /// Starts all processes, and waits until all peers are members.
    fn join(&mut self) -> Result<(), CliError> {
        let failed = |source| CliError::System { action: "start a process", source };
        for seed in self.fleet.seeds().to_vec() {
            self.fleet.start_seed(seed).map_err(failed)?;
        }
        let seeds = self.fleet.seeds().len();
        self.wait_for("seed", "ready", seeds)?;
        let peers = self.fleet.peers().to_vec();
        for (number, peer) in peers.iter().enumerate() {
            self.wait_for("peer", "admitted", (number + 1).saturating_sub(AT_ONCE))?;
            self.fleet.start_peer(*peer).map_err(failed)?;
        }
        self.wait_for("peer", "admitted", peers.len())
    }

    /// Waits until `wanted` nodes have logged an event.
    fn wait_for(&mut self, role: &str, event: &str, wanted: usize) -> Result<(), CliError> {
        let patience = PATIENCE + PATIENCE_PER_PEER * (self.sockets.len() as u32);
        let (mut seen, mut nodes) = (0, BTreeSet::new());
        let waited = self.fleet.story().wait(patience, |lines| {
            let new = lines[seen..].iter().filter(|it| it.is(role, event));
            nodes.extend(new.map(|it| it.node));
            seen = lines.len();
            nodes.len() >= wanted
        });
        match waited.map_err(|source| CliError::System { action: "follow the log", source })? {
            true => Ok(()),
            false => Err(CliError::Failed(format!(
                "not within {} s: {wanted} nodes ({role}) that are {event}; {}",
                patience.as_secs(),
                self.fleet.complaints()
            ))),
        }
    }

    /// Waits until the overlay has settled.
    fn rest(&mut self) -> Result<(), CliError> {
        for _ in 0..QUIET_LOOKS_MAX {
            let before = self.fleet.story().lines().len();
            self.pause(QUIET)?;
            if self.fleet.story().lines().len() == before {
                return self.sheet.line("rest", json!({ "quiet": true }));
            }
        }
        self.sheet.line("rest", json!({ "quiet": false }))
    }

    fn pause(&mut self, span: Duration) -> Result<(), CliError> {
        let watched = self.fleet.story().watch(span);
        watched.map_err(|source| CliError::System { action: "follow the log", source })
    }

    /// A message of the measured size that begins with `number`.
    fn message(&mut self, number: u64) -> Data {
        let mut bytes = vec![0; self.size];
        self.rng.fill_bytes(&mut bytes);
        numbered(bytes, number)
    }
}

/// `bytes`, beginning with `number`.
fn numbered(mut bytes: Vec<u8>, number: u64) -> Data {
    let head = number.to_le_bytes();
    bytes[..head.len()].copy_from_slice(&head);
    bytes.into()
}

/// The number that a message begins with.
fn number_of(data: &Data) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(..8)?.try_into().ok()?))
}

/// Publishes messages by the peer with this control socket.
fn publish(socket: &std::path::Path, all: Vec<Data>) -> Result<(), CliError> {
    let request = json!(ApiRequest::PublishAll { topic: TOPIC.to_owned(), all }).to_string();
    let mut outcome = Ok(());
    let take = |line: &str| {
        outcome = answer(line).map(|_| ());
        false
    };
    control::follow(socket, &request, ANSWER_TIMEOUT, take).map_err(failed)?;
    outcome
}

/// Sends a request to a peer.
fn ask(socket: &std::path::Path, request: &Value) -> Result<Value, CliError> {
    answer(&control::ask(socket, &request.to_string(), ANSWER_TIMEOUT).map_err(failed)?)
}

fn failed(source: std::io::Error) -> CliError {
    CliError::System { action: "ask a peer", source }
}

fn answer(line: &str) -> Result<Value, CliError> {
    let answer: Value = serde_json::from_str(line)
        .map_err(|error| CliError::Failed(format!("a peer's answer is none: {error}")))?;
    match answer.get("error") {
        None => Ok(answer),
        Some(error) => Err(CliError::Failed(format!("a peer refuses: {error}"))),
    }
}
