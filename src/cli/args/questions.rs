//! Flags of questions to a fleet, and of orders to its seeds.

use std::path::PathBuf;

use clap::Args;

use crate::cli::span::Span;
use crate::model::Endpoint;
use crate::proto::hello::FLEET_NAME_MAX;

const ORDER_HELP: &str = "\
Whoever can write to a seed's data directory speaks for that seed, and for no other. An order \
counts when a quorum of seeds has got it: where the seeds run on several machines, give it on as \
many of them, within ten minutes. Exit code 1: not done, or not yet.";

/// The seed to ask about the fleet.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// The seed to ask: its number in config.txt or its IP:PORT [default: the first that answers]
    #[arg(long, value_name = "SEED")]
    pub at: Option<String>,
    /// The file that lists the seeds
    #[arg(long, value_name = "FILE", default_value = "config.txt")]
    pub config: PathBuf,
    /// The cluster key of the fleet, if it has one [default: none]
    #[arg(long, value_name = "FILE")]
    pub cluster_key: Option<PathBuf>,
    /// Time that a seed may take to connect, and to answer
    #[arg(long, value_name = "TIME", default_value = "3s")]
    pub timeout: Span,
}

/// Arguments of `peer members`.
#[derive(Clone, Debug, Args)]
pub struct MembersArgs {
    /// The seed to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Those who left or were removed lately, too
    #[arg(long)]
    pub all: bool,
    /// Exact times, in UTC, instead of ages
    #[arg(long)]
    pub utc: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `peer topology`.
#[derive(Clone, Debug, Args)]
pub struct TopologyArgs {
    /// The seed to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// A graph for Graphviz
    #[arg(long, conflicts_with = "json")]
    pub dot: bool,
}

/// Arguments of `peer explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The IP:PORT to explain
    #[arg(value_name = "IP:PORT", value_parser = parse_endpoint)]
    pub endpoint: Endpoint,
    /// The seed to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

pub(super) fn parse_endpoint(text: &str) -> Result<Endpoint, &'static str> {
    text.parse().map_err(|_| "an endpoint is IP:PORT, for example 127.0.0.1:6003 or [::1]:6003")
}

/// Parses the number of a seed, the id of a member or the number of a port.
pub(in crate::cli) fn parse_number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let number = text.parse::<u64>().ok().filter(|it| *it > 0);
    number.and_then(|it| T::try_from(it).ok()).ok_or_else(|| {
        let max = u64::MAX >> (u64::BITS as usize - 8 * size_of::<T>());
        format!("write a number from 1 to {max}")
    })
}

/// Parses the number of a port that the system may choose.
pub(super) fn parse_port(text: &str) -> Result<u16, &'static str> {
    text.parse().map_err(|_| "write a number from 1 to 65535, or 0 to let the system choose")
}

/// Checks the name of a fleet, which goes into every handshake and into log lines.
pub(super) fn parse_fleet(text: &str) -> Result<String, String> {
    let is_short = (1..=FLEET_NAME_MAX).contains(&text.len());
    match is_short && text.chars().all(|it| it.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(format!("a fleet's name has 1 to {FLEET_NAME_MAX} letters, digits or signs")),
    }
}

/// A node of this machine, and the form of its answer.
#[derive(Clone, Debug, Args)]
pub struct LocalNodeArgs {
    /// The node's port [default: the one node that runs here]
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
    /// Folder in which nodes keep their data
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `peer status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// The node to ask.
    #[command(flatten)]
    pub node: LocalNodeArgs,
    /// Everything that the node tells, and not only what matters most
    #[arg(long)]
    pub all: bool,
    /// Exact times, in UTC, instead of ages
    #[arg(long)]
    pub utc: bool,
}

/// Arguments of `peer leave`.
#[derive(Clone, Debug, Args)]
pub struct LeaveArgs {
    /// The peer's port
    #[arg(long, value_name = "P")]
    pub port: u16,
    /// Folder in which nodes keep their data
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
}

/// Arguments of `peer evict`.
#[derive(Clone, Debug, Args)]
#[command(after_help = ORDER_HELP)]
pub struct EvictArgs {
    /// The member's IP:PORT
    #[arg(value_name = "IP:PORT", value_parser = parse_endpoint)]
    pub endpoint: Endpoint,
    /// Keep it out for good: neither this endpoint nor its key is let in again
    #[arg(long)]
    pub ban: bool,
    /// The seeds whose operator gives the order.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

/// Arguments of `peer unban`.
#[derive(Clone, Debug, Args)]
#[command(after_help = ORDER_HELP)]
pub struct UnbanArgs {
    /// The banned IP:PORT
    #[arg(value_name = "IP:PORT", value_parser = parse_endpoint)]
    pub endpoint: Endpoint,
    /// The seeds whose operator gives the order.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

/// The seeds whose operator gives an order, and the form of the output.
#[derive(Clone, Debug, Args)]
pub struct OperatorArgs {
    /// Folder in which the seeds of this machine keep their data
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}
