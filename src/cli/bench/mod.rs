//! Measurements with real processes on this machine; each prints JSON lines.
//!
//! Figures are as measured, with the machine's cores beside them; nothing here passes or fails.

mod membership;
mod procfs;

use clap::{Args, Subcommand};
use serde_json::json;

use super::CliError;
use super::query::print;
pub use membership::MembershipArgs;

/// What can be measured.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What to measure
    #[command(subcommand)]
    pub what: What,
}

/// The measurements.
#[derive(Clone, Debug, Subcommand)]
pub enum What {
    /// Joining, detection of crashes and silence, gossip, idle cost, degrees
    Membership(MembershipArgs),
}

/// Measures.
///
/// # Errors
/// When a process cannot be started, or the fleet does not come together.
pub fn run(args: &BenchArgs) -> Result<(), CliError> {
    match &args.what {
        What::Membership(args) => membership::run(args),
    }
}

/// Prints one figure: the distribution of `values`, in the unit that `metric` ends with.
fn figure(peers: u16, metric: &str, values: &[f64]) -> Result<(), CliError> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = sorted.len().saturating_sub(1) as f64;
        sorted.get((last * share).round() as usize).map(|it| (it * 1_000.0).round() / 1_000.0)
    };
    let line = json!({
        "bench": "membership", "peers": peers, "metric": metric, "n": sorted.len(),
        "min": at(0.0), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0),
    });
    print(&format!("{line}\n"))
}
