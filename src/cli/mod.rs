//! Command line: flags, `config.txt`, log lines, questions and their answers.
//!
//! Invariants:
//! - Every error of the user ends in one clear sentence with its remedy, and exit code 2.
//! - Every refusal of the machine or network ends in one sentence too, and exit code 1.
//! - Only [`report`] knows the required lines; only `src/bin` ends the process.
//!
//! No protocol decision is made here: a node's settings go in, its events come out.

pub mod args;
mod asking;
pub mod bench;
pub mod chat;
pub mod config;
pub mod demo;
mod door;
mod error;
pub mod fleet;
pub mod keygen;
pub mod log;
pub mod metrics;
pub mod page;
mod parse;
pub mod query;
pub mod report;
pub mod rollout;
mod room;
pub mod run;
pub mod settings;
pub mod share;
pub mod simulate;
pub mod size;
pub mod span;
pub mod swarm;

pub use error::{CliError, conclude};
pub use parse::parse;

use self::args::{PeerArgs, PeerCommand, SeedArgs, SeedCommand};
use self::settings::{PeerSettings, SeedSettings};
use crate::runtime::descriptors;

/// The program `seed`.
///
/// # Errors
/// Any failure that keeps it from starting, or stops it before it is told to stop.
pub fn seed(args: &SeedArgs) -> Result<(), CliError> {
    descriptors::raise();
    match &args.command {
        None => run::seed(&SeedSettings::from_args(args)?),
        Some(SeedCommand::Keygen(args)) => keygen::run(args),
        Some(SeedCommand::Status(args)) => query::status(args, &["seed"]),
        Some(SeedCommand::Members(args)) => query::members(args),
        Some(SeedCommand::Metrics(args)) => query::metrics(args, &["seed"]),
    }
}

/// The program `peer`.
///
/// # Errors
/// Any failure that keeps it from starting, stops it before it is told to stop, or leaves a
/// question without an answer.
pub fn peer(args: &PeerArgs) -> Result<(), CliError> {
    descriptors::raise();
    match &args.command {
        None if args.rollout.id.is_some() => rollout::node(args),
        None => run::peer(&PeerSettings::from_args(args)?),
        Some(PeerCommand::Members(args)) => query::members(args),
        Some(PeerCommand::Topology(args)) => query::topology(args),
        Some(PeerCommand::Explain(args)) => query::explain(args),
        Some(PeerCommand::Status(args)) => query::status(args, &["peer", "seed"]),
        Some(PeerCommand::Metrics(args)) => query::metrics(args, &["peer", "seed"]),
        Some(PeerCommand::Publish(args)) => query::publish(args),
        Some(PeerCommand::Subscribe(args)) => query::subscribe(args),
        Some(PeerCommand::Send(args)) => query::send(args),
        Some(PeerCommand::Inbox(args)) => query::inbox(args),
        Some(PeerCommand::Discover(args)) => query::discover(args),
        Some(PeerCommand::Chat(args)) => chat::run(args),
        Some(PeerCommand::Rollout(args)) => rollout::command(args),
        Some(PeerCommand::Swarm(args)) => swarm::run(args),
        Some(PeerCommand::Share(args)) => share::share(args),
        Some(PeerCommand::Fetch(args)) => share::fetch(args),
        Some(PeerCommand::Unshare(args)) => share::unshare(args),
        Some(PeerCommand::Shares(args)) => share::shares(args),
        Some(PeerCommand::Leave(args)) => query::leave(args),
        Some(PeerCommand::Evict(args)) => query::evict(args),
        Some(PeerCommand::Unban(args)) => query::unban(args),
        Some(PeerCommand::Demo(args)) => demo::run(args),
        Some(PeerCommand::Bench(args)) => bench::run(args),
        Some(PeerCommand::Simulate(args)) => simulate::run(args),
        Some(PeerCommand::Seed(args)) => seed(args),
    }
}
