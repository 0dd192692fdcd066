//! Measurement of rollouts: the time of transactions, and the load that a node's data plane
//! carries.
//!
//! Load, data plane and upstream share the machine, so a figure is of all of them together; the
//! upstream is a second data plane with the built-in model, as small as an upstream can be.

mod load;
mod transactions;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::load::{Load, Outcome};
use super::figure::{Sheet, Target};
use crate::cli::CliError;
use crate::machine::rollout::ServedState;
use crate::proto::rollout::{ModelId, NodeId, RoutingState, Weights};
use crate::runtime::dataplane::{
    DataPlane, DataPlaneLimits, DataPlaneOptions, ProxyOptions, Servers,
};

/// Target for the requests a second with the built-in model, on two cores shared with the load.
const ECHO_TARGET: Target = Target::AtLeast(40_000.0);

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
    /// Connections that ask at the same time
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=512))]
    clients: u16,
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
    if !args.data_plane {
        transactions::run(args.nodes, args.count as usize, args.rounds)?;
    }
    if args.transactions {
        return Ok(());
    }
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sheet = Sheet::new(json!({
        "bench": "rollout", "cores": super::figure::cores(), "clients": args.clients,
        "seconds": args.seconds,
    }));
    let echo = start(any, None)?;
    measure(&sheet, args, "echo", echo.addr(), Some(ECHO_TARGET))?;
    let upstream = format!("http://{}", echo.addr()).parse();
    let upstream = upstream.map_err(|reason: &str| CliError::Failed(reason.to_owned()))?;
    let proxy = start(any, Some(&upstream))?;
    measure(&sheet, args, "proxy", proxy.addr(), None)?;
    proxy.stop();
    echo.stop();
    Ok(())
}

fn measure(
    sheet: &Sheet,
    args: &RolloutBenchArgs,
    what: &str,
    addr: SocketAddr,
    target: Option<Target>,
) -> Result<(), CliError> {
    let load = Load {
        addr,
        clients: args.clients.into(),
        threads: super::figure::cores(),
        lasts: Duration::from_secs(args.seconds),
    };
    // New threads, connections and pools are slower.
    Load { lasts: Duration::from_millis(500), ..load }.run()?;
    let (mut rates, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let Outcome { per_second, canary_share, latencies_us } = load.run()?;
        rates.push(per_second);
        shares.push(canary_share);
        sheet.figure(&format!("predict_{what}_us"), &latencies_us)?;
    }
    sheet.figure(&format!("predict_{what}_canary_share"), &shares)?;
    match target {
        Some(target) => sheet.judged(&format!("predict_{what}_per_s"), &rates, target),
        None => sheet.figure(&format!("predict_{what}_per_s"), &rates),
    }
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
