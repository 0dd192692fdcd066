//! Flags of `peer swarm`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::log::{LogFormat, LogLevel};
use crate::cli::span::Span;

const EXAMPLES: &str = "\
Examples:
  peer swarm 1001                     the peer 1001 of PeerInfo.cfg in this folder
  peer swarm 1002 --dir project       the same in another folder
  peer swarm 1003 --give-up 10m       wait longer for peers that are not there
  peer swarm status                   how far the swarms on this machine are

The folder holds Common.cfg and PeerInfo.cfg, and peer_1001/ with the file where PeerInfo.cfg says
so; peer_1001/ and log_peer_1001.log are made in it. Peers may be started in any order. The exit
code is 0 when all peers have the file, 2 when a file or flag is wrong, and 1 for anything else.
A peer that was killed goes on where it was when it is started again.";

/// Arguments of `peer swarm`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct SwarmArgs {
    /// A question, instead of taking part.
    #[command(subcommand)]
    pub command: Option<SwarmCommand>,
    /// The id of this peer in PeerInfo.cfg
    // Always there when no subcommand is: clap refuses its absence.
    #[arg(value_name = "ID", required = true)]
    pub id: Option<u32>,
    /// The folder of the swarm
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// The settings that all peers share [default: Common.cfg in the folder]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The peers [default: PeerInfo.cfg in the folder]
    #[arg(long, value_name = "FILE")]
    pub peers: Option<PathBuf>,
    /// Time to wait while nothing goes on: for peers that have gone, or never came
    #[arg(long, value_name = "TIME", default_value_t = Span(Duration::from_secs(120)))]
    pub give_up: Span,
    /// Format of lines on the console; the log file has a format of its own
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// The least important lines to show on the console; the log file has them all
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub log_level: LogLevel,
    /// No progress bar, also on a terminal
    #[arg(long)]
    pub no_bar: bool,
}

/// Questions about swarms.
#[derive(Clone, Debug, Subcommand)]
pub enum SwarmCommand {
    /// Show how far the swarms, shares and downloads of this user on this machine are
    Status(SwarmStatusArgs),
}

/// `peer swarm status`.
#[derive(Clone, Debug, Args)]
pub struct SwarmStatusArgs {
    /// One JSON object a swarm
    #[arg(long)]
    pub json: bool,
}
