//! Measurement of rollouts: the time of transactions, and the load that a node's data plane
//! carries.
//!
//! Load, data plane and upstream share the machine, so a rate is of all of them together; the
//! processor time of a request is the data plane's alone. With `--vs`, other reverse proxies have
//! the same task in the same run, in turns, so that other programs of the machine hurt all alike.

mod load;
mod proxies;
mod server;
mod transactions;
mod volume;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::server::Rival;
use super::swarm::BinarySize;
use crate::cli::CliError;
use crate::cli::run::signals;
use crate::machine::rollout::ServedState;
use crate::proto::rollout::{ModelId, NodeId, RoutingState, Weights};
use crate::runtime::dataplane::{
    DataPlane, DataPlaneLimits, DataPlaneOptions, ProxyOptions, Servers,
};

/// Share of the canary meanwhile, in basis points.
const SHARE: u32 = 500;

/// Flags of this measurement.
#[derive(Clone, Debug, Args)]
pub struct RolloutBenchArgs {
    /// Only the transactions: how long one takes, and how many a second
    #[arg(long, conflicts_with = "data_plane")]
    transactions: bool,
    /// Only the data plane: requests a second and their latency, with the built-in model and as a
    /// proxy
    #[arg(long)]
    data_plane: bool,
    /// Nodes that take part in transactions
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u8).range(1..=64))]
    nodes: u8,
    /// Transactions of each measurement
    #[arg(long, value_name = "N", default_value_t = 500,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Measure these reverse proxies in turns with the data plane, in front of the same upstream
    #[arg(long, value_name = "PROGRAMS", value_enum, value_delimiter = ',',
        conflicts_with_all = ["transactions", "hold"])]
    vs: Vec<Rival>,
    /// Connections that ask at the same time; each number is measured
    #[arg(long, value_name = "N", default_value = "8,64,256", value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..=512))]
    clients: Vec<u16>,
    /// Only one body of so many bytes, such as 5G, through the data plane and back: its speed and
    /// the memory meanwhile
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["transactions", "hold", "vs"])]
    volume: Option<BinarySize>,
    /// Seconds of each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Number of times that each is measured
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Only serve here, for a load generator of one's own, until the input ends
    #[arg(long, value_name = "ADDRESS", conflicts_with = "transactions")]
    hold: Option<SocketAddr>,
    /// With --hold: the upstream of both models, instead of the built-in one
    #[arg(long, value_name = "URL", requires = "hold")]
    upstream: Option<Servers>,
}

/// Measures, and prints a JSON line a figure.
///
/// # Errors
/// Fails if a port cannot be listened on, or a request is not answered as it should be.
pub(super) fn run(args: &RolloutBenchArgs) -> Result<(), CliError> {
    if let Some(at) = args.hold {
        return hold(at, args.upstream.as_ref());
    }
    if !args.data_plane && args.volume.is_none() {
        transactions::run(args.nodes, args.count as usize, args.rounds)?;
    }
    if args.transactions {
        return Ok(());
    }
    let signals = signals::listen(false);
    let signals =
        signals.map_err(|source| CliError::System { action: "listen to signals", source })?;
    if let Some(volume) = args.volume {
        return volume::run(volume.0, &signals);
    }
    let lasts = Duration::from_secs(args.seconds);
    proxies::run(&args.vs, &args.clients, (lasts, args.rounds), &signals)
}

/// A data plane that sends a twentieth of its requests to the canary.
fn start(listen: SocketAddr, upstream: Option<&Servers>) -> Result<DataPlane, CliError> {
    let failed = |reason: &str| CliError::Failed(reason.to_owned());
    let model = |name: &str| name.parse::<ModelId>().map_err(failed);
    let (stable, canary) = (model("v1")?, model("v2")?);
    let servers = upstream.map_or_else(BTreeMap::new, |upstream| {
        [&stable, &canary].map(|model| (model.clone(), upstream.clone())).into()
    });
    let plane = DataPlane::start(DataPlaneOptions {
        listen,
        node_id: "node-a".parse::<NodeId>().map_err(failed)?,
        servers,
        limits: DataPlaneLimits::default(),
        seed: 1,
        more_metrics: None,
        proxy: ProxyOptions::default(),
    })
    .map_err(|err| CliError::Failed(err.to_string()))?;
    let weights = Weights::split(&stable, &canary, SHARE);
    let state = RoutingState { weights, ..RoutingState::initial(stable, canary) };
    plane.set(Arc::new(ServedState { salt: 1, ..ServedState::new(state) }));
    Ok(plane)
}

/// Serves until the input ends.
fn hold(at: SocketAddr, upstream: Option<&Servers>) -> Result<(), CliError> {
    let plane = start(at, upstream)?;
    crate::cli::output::print(&format!("{}\n", json!({ "serving": plane.addr() })))?;
    let read = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    plane.stop();
    read.map(drop).map_err(|source| CliError::System { action: "read the input", source })
}
