//! Flags of `peer share`, `peer fetch` and `peer shares`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::size::Size;
use crate::cli::span::Span;
use crate::cli::{CliError, config};
use crate::model::Endpoint;
use crate::runtime::cluster_key;
use crate::runtime::swarm::SwarmOptions;

const SHARE_EXAMPLES: &str = "\
Examples:
  peer share big.iso                        print a ticket, and serve until Ctrl-C; where a peer of
                                            a fleet runs on this machine, it serves from now on
  peer share big.iso --everywhere           have every peer of the fleet take it
  peer share big.iso --everywhere --wait    the same, and wait until all have it, verified
  peer share photos --ip 192.168.1.7        a folder, for other machines
  peer share big.iso --ticket big.ticket    put the ticket into a file as well
  peer share big.iso --port 7001 --up 4M    a fixed port, so the ticket stays good; 4 MiB/s";

const FETCH_EXAMPLES: &str = "\
Examples:
  peer fetch 'folkmoot:share?name=…'        into this folder
  peer fetch big.iso                        by its name, where a peer of the fleet runs here
  peer fetch big.ticket --to downloads      the ticket is in a file
  peer fetch big.ticket --timeline big.svg  draw which piece came from whom and when
  peer fetch big.ticket --stay              go on serving it to others until Ctrl-C

What was cut short, even by kill -9, goes on where it was when it is fetched again. Nothing
appears under the final name until all of it was verified.";

/// Arguments of `peer share`.
#[derive(Clone, Debug, Args)]
#[command(after_help = SHARE_EXAMPLES)]
pub struct ShareArgs {
    /// The file or folder to share
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// A file to put the ticket into, beside printing it
    #[arg(long, value_name = "FILE")]
    pub ticket: Option<PathBuf>,
    /// Bytes of a piece, 16K to 16M [default: as fits the size]
    #[arg(long, value_name = "SIZE")]
    pub piece: Option<Size>,
    /// Have every peer of the fleet take it
    #[arg(long)]
    pub everywhere: bool,
    /// Wait until all peers that can be found now have it, this long at most
    #[arg(long, value_name = "TIME", requires = "everywhere", num_args = 0..=1,
        default_missing_value = "10m")]
    pub wait: Option<Span>,
    /// Read and hash all of it, although nothing seems to have changed since the last time
    #[arg(long)]
    pub rehash: bool,
    /// The peer of the fleet to use.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Address to be reached at, and limits of the rate.
    #[command(flatten)]
    pub net: NetArgs,
}

/// Arguments of `peer unshare`.
#[derive(Clone, Debug, Args)]
pub struct UnshareArgs {
    /// The name that it is shared under
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Have every peer remove all versions that it took of this from this peer
    #[arg(long)]
    pub everywhere: bool,
    /// The peer of the fleet to use.
    #[command(flatten)]
    pub fleet: FleetArgs,
}

/// The running peer that stands for the fleet.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The fleet")]
pub struct FleetArgs {
    /// The port of a peer of this machine [default: the lowest that runs here]
    #[arg(long, value_name = "P")]
    pub peer: Option<u16>,
    /// Folder in which nodes keep their data
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// Have nothing to do with a fleet
    #[arg(long, conflicts_with = "peer")]
    pub alone: bool,
}

/// Arguments of `peer fetch`.
#[derive(Clone, Debug, Args)]
#[command(after_help = FETCH_EXAMPLES)]
pub struct FetchArgs {
    /// The ticket, a file with it, or the name of a share of the fleet
    #[arg(value_name = "TICKET")]
    pub ticket: String,
    /// The folder to put it into
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub to: PathBuf,
    /// Ask here as well; may be given more than once
    #[arg(long, value_name = "IP:PORT")]
    pub at: Vec<Endpoint>,
    /// Draw the source and time of each piece: a picture, or a page if it ends in .html
    #[arg(long, value_name = "FILE")]
    pub timeline: Option<PathBuf>,
    /// Go on serving it to others when it is complete, until Ctrl-C
    #[arg(long)]
    pub stay: bool,
    /// Time to wait while no peer has the missing pieces
    #[arg(long, value_name = "TIME", default_value_t = Span(Duration::from_secs(60)))]
    pub give_up: Span,
    /// Lines of JSON also on a terminal
    #[arg(long)]
    pub json: bool,
    /// The peer of the fleet to use.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Address to be reached at, and limits of the rate.
    #[command(flatten)]
    pub net: NetArgs,
}

/// Address to be reached at, and limits of the rate.
#[derive(Clone, Debug, Args)]
pub struct NetArgs {
    /// The address to listen on, at which others reach this machine [default: 127.0.0.1]
    #[arg(long)]
    pub ip: Option<IpAddr>,
    /// The TCP port to listen on; 0 lets the system choose
    #[arg(long, value_name = "P", default_value_t = 0)]
    pub port: u16,
    /// Bytes to send each second, at most, to all together [default: no limit]
    #[arg(long, value_name = "RATE")]
    pub up: Option<Size>,
    /// Bytes to take each second, at most, from all together [default: no limit]
    #[arg(long, value_name = "RATE")]
    pub down: Option<Size>,
    /// Talk only with holders of the cluster key in this file, and encrypt every connection
    /// [default: none, and talk with anybody in plain text]
    #[arg(long, value_name = "FILE")]
    pub cluster_key: Option<PathBuf>,
}

impl NetArgs {
    /// Options of an engine with a port of its own.
    ///
    /// # Errors
    /// Fails if the address or the cluster key cannot be used.
    pub(super) fn engine(&self) -> Result<SwarmOptions, CliError> {
        let cluster_keys = self.cluster_key.as_deref().map(cluster_key::read).transpose()?;
        let ip = self.ip.unwrap_or(Ipv4Addr::LOCALHOST.into());
        config::check_ip(ip).map_err(CliError::Usage)?;
        Ok(SwarmOptions {
            listen: Some((ip, self.port).into()),
            up: self.up.map(|it| it.0),
            down: self.down.map(|it| it.0),
            cluster_keys,
            ..SwarmOptions::default()
        })
    }
}

/// Arguments of `peer shares`.
#[derive(Clone, Debug, Args)]
pub struct SharesArgs {
    /// One JSON object a share
    #[arg(long)]
    pub json: bool,
    /// The peer of the fleet to use.
    #[command(flatten)]
    pub fleet: FleetArgs,
}
