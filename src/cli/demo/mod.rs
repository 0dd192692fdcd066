//! Demo of a fleet on one machine: joining, gossip, a death, its removal, a fresh start.
//!
//! Real processes, real sockets, real disk; everything shown is read from the nodes' own logs and
//! from the seeds' answers, and every claim is checked. The run is left in the output file.

pub mod chat;
mod process;
pub mod rollout;
mod state;
mod steps;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CliError;
use chat::ChatDemoArgs;
use rollout::RolloutDemoArgs;
use state::FleetDemo;

/// Flags of the demo.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DemoArgs {
    /// Story to play in place of the demo of the fleet.
    #[command(subcommand)]
    pub story: Option<DemoStory>,
    /// The file to leave the run in: the log lines of all nodes; an older one is replaced
    #[arg(long, value_name = "FILE", default_value = "outputfile.txt")]
    pub output: PathBuf,
    /// Number of peers to start
    #[arg(long, value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(4..=30))]
    pub peers: u16,
    /// Print the address of the live page, and go on when it is open
    #[arg(long)]
    pub open: bool,
    /// Keep the fleet running after the story, until Ctrl-C
    #[arg(long)]
    pub hold: bool,
}

/// Stories beside the one of a fleet.
#[derive(Clone, Debug, Subcommand)]
pub enum DemoStory {
    /// Show a chat of three: its leader is killed while messages flow, and comes back
    Chat(ChatDemoArgs),
    /// Show rollouts on three nodes: a good version in steps, a bad one that is rolled back by
    /// itself, and nodes that die in the middle of a transaction
    Rollout(RolloutDemoArgs),
}

/// Plays the demo.
///
/// # Errors
/// Fails if something could not be started, or did not happen as it should have; the text lists the
/// failures. Ctrl-C is an error too. In any case no process is left behind.
pub fn run(args: &DemoArgs) -> Result<(), CliError> {
    match &args.story {
        Some(DemoStory::Chat(args)) => return chat::run(args),
        Some(DemoStory::Rollout(args)) => return rollout::run(args),
        None => {}
    }
    let mut demo = FleetDemo::set(args.peers, &args.output)?;
    let played = steps::run_steps(&mut demo, args.open, args.hold);
    let concluded = demo.conclude();
    played?;
    concluded
}
