//! Flags of a simulation.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::args::QuorumArg;
use crate::cli::span::{Span, SpanError};

const EXAMPLES: &str = "\
Examples:
  peer simulate                                     1,000 peers, 10 of them die at once
  peer simulate --peers 10000 --kill 100 --loss 0.05 --seed 42
  peer simulate --peers 300 --latency 80ms --kill 30 --vanish --svg plan.svg
  peer simulate --peers 100 --kill 5 --open         watch the run on a page, at any speed
  peer simulate --json | grep kill_to               figures for programs, one a line

The same flags give the same figures, but for those of this machine (seconds, memory).";

/// Flags of a simulation.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SimulateArgs {
    /// Number of peers, 2 to 20000
    #[arg(long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u16).range(2..=20_000))]
    pub peers: u16,
    /// Number of seeds, 1 to 15
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=15))]
    pub seeds: u16,
    /// Number of peers that die, all at once, when all are members; fewer than there are peers
    #[arg(long, value_name = "K", default_value_t = 10)]
    pub kill: u16,
    /// Let the dead vanish with their hosts, without a word; without this their processes are
    /// killed, and their hosts reset their connections
    #[arg(long)]
    pub vanish: bool,
    /// The share of packets that get lost, from 0 to below 1; TCP repeats them, so they come late
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub loss: f64,
    /// The latency of a path, one way; each path draws its own, between half of it and half more
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = parse_latency)]
    pub latency: Span,
    /// Number of yes votes that decide: floor(n/2)+1, or enough to bear lying seeds
    #[arg(long, value_name = "RULE", value_enum, default_value_t)]
    pub quorum: QuorumArg,
    /// Number of peers that start each second, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub join_rate: u32,
    /// Time that the quiet fleet is watched; the member lists are fetched anew once a minute
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub idle: Span,
    /// Number of gossip messages, each by another peer, one a second; 0 to 1000, and no
    /// more than there are peers
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u16).range(0..=1_000))]
    pub gossip: u16,
    /// Time that the fleet is watched after the deaths
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub duration: Span,
    /// The number that all chance follows from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// The file for the picture of how fast the news spread
    #[arg(long, value_name = "FILE", default_value = "simulate.svg")]
    pub svg: PathBuf,
    /// Play the run on a page for browsers afterwards, with a time slider, until Ctrl-C; up to 2000
    /// peers
    #[arg(long, conflicts_with = "json")]
    pub open: bool,
    /// One JSON object a figure, with the keys of `peer bench membership`
    #[arg(long)]
    pub json: bool,
}

impl SimulateArgs {
    /// Parameters of the run, in one line.
    pub(super) fn title(&self) -> String {
        let how = if self.vanish { "vanish" } else { "die" };
        let quorum = format!("{:?}", self.quorum).to_lowercase();
        format!(
            "{} peers, {} seeds ({quorum}), {} {how} at once, loss {} %, latency {}, seed {}",
            self.peers,
            self.seeds,
            self.kill,
            (self.loss * 1e6).round() / 1e4,
            self.latency,
            self.seed,
        )
    }
}

fn parse_share(text: &str) -> Result<f64, &'static str> {
    let share: f64 = text.parse().map_err(|_| "a share is a number such as 0.05")?;
    // Also refuses what is no number.
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("a share is from 0 to below 1") }
}

fn parse_latency(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error: SpanError| error.to_string())?;
    if span.0 <= Duration::from_secs(2) {
        Ok(span)
    } else {
        Err("a latency is 2s at most; no path on this planet takes longer".to_owned())
    }
}
