//! Measurements with real processes on this machine; each prints JSON lines.
//!
//! Figures are as measured, with the machine's cores beside them; nothing here passes or fails.

mod membership;
pub(super) mod procfs;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

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
    let mut line = json!({ "bench": "membership", "peers": peers, "metric": metric });
    if let Some(fields) = line.as_object_mut() {
        fields.extend(distribution(values));
    }
    print(&format!("{line}\n"))
}

/// How many values there are and how they are spread, to a thousandth.
pub(super) fn distribution(values: &[f64]) -> Map<String, Value> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = sorted.len().saturating_sub(1) as f64;
        sorted.get((last * share).round() as usize).map(|it| (it * 1_000.0).round() / 1_000.0)
    };
    let shares = [("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];
    let spread = shares.map(|(name, share)| (name.to_owned(), json!(at(share))));
    [("n".to_owned(), json!(sorted.len()))].into_iter().chain(spread).collect()
}
