//! Measurement of a chat: a group of processes with real disks, and programs that send by it in the
//! public wire.
//!
//! Each client has one message on its way at a time. Its latency lasts until its `CHAT_ACK`, which
//! comes when a majority has the message on disk. In the end all processes are killed at once, and
//! their logs are read and compared.

mod check;
mod faults;
mod fleet;
mod load;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::faults::{Fault, Plan};
use self::fleet::Fleet;
use self::load::{Load, Outcome};
use super::cores;
use super::figure::{Sheet, Target};
use crate::cli::CliError;
use crate::cli::size::Size;
use crate::cli::span::Span;
use crate::runtime::clock::Clock;

/// Number of writes to this disk that are measured for comparison.
const FLOOR_WRITES: usize = 200;

/// Flags of this measurement.
#[derive(Clone, Debug, Args)]
pub struct ChatBenchArgs {
    /// Processes
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub peers: u32,
    /// Messages for each peer that clients send by
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub messages: u64,
    /// Clients, each with one message on its way
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub clients: usize,
    /// Bytes of a message
    #[arg(long, value_name = "SIZE", default_value = "256")]
    pub size: Size,
    /// Messages a second in all [default: as many as there can be]
    #[arg(long, value_name = "N")]
    pub rate: Option<u64>,
    /// Let clients send by all peers but the leader, instead of by the leader
    #[arg(long)]
    pub by_followers: bool,
    /// Kill the leader with SIGKILL while clients send by the others, and start it again
    #[arg(long)]
    pub kill_leader: bool,
    /// Freeze the leader with SIGSTOP for 9 seconds while clients send by the others
    #[arg(long)]
    pub freeze_leader: bool,
    /// Number of times the leader is killed or frozen
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub kills: u32,
    /// The leader time-out of the peers
    #[arg(long, value_name = "TIME")]
    pub leader_timeout: Option<Span>,
    /// Folder in which the logs are written, in one that is removed in the end
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
}

impl ChatBenchArgs {
    fn plan(&self) -> Option<Plan> {
        let fault = match (self.kill_leader, self.freeze_leader) {
            (true, _) => Fault::Kill,
            (false, true) => Fault::Freeze,
            (false, false) => return None,
        };
        Some(Plan { fault, times: self.kills })
    }
}

/// Measures, and prints a JSON line a figure.
///
/// # Errors
/// Fails if a process cannot be started, the group does not come together, or it has lost a
/// message.
pub(super) fn run(args: &ChatBenchArgs) -> Result<(), CliError> {
    let mut sheet = Sheet::new(json!({
        "bench": "chat", "peers": args.peers, "clients": args.clients, "bytes": args.size.0,
        "rate": args.rate, "cores": cores(),
    }));
    let failed = |source| CliError::System { action: "make a folder", source };
    let dir = tempfile::tempdir_in(&args.folder).map_err(failed)?;
    let floor = floor(dir.path())
        .map_err(|source| CliError::System { action: "measure the disk", source })?;
    sheet.figure("write_and_sync_ms", &floor)?;
    let clock = Clock::start();
    let fleet = Arc::new(Fleet::start(args, dir.path(), clock)?);
    let leader = fleet.await_leader()?;
    sheet.note("leader", leader.into());
    let plan = args.plan();
    let by_leader = !args.by_followers && plan.is_none();
    let senders: Vec<_> =
        fleet.ids().filter(|id| args.peers == 1 || (*id == leader) == by_leader).collect();
    let begun = fleet.cpu();
    let faults = plan.map(|plan| faults::begin(&fleet, plan)).transpose()?;
    let load = Load { args, fleet: &fleet, senders, faults };
    let outcome = load.run()?;
    let cpu = fleet.cpu() - begun;
    fleet.kill_all();
    report(args, &sheet, &outcome, cpu)?;
    check::check(&sheet, &fleet, &outcome.acknowledged)
}

fn report(
    args: &ChatBenchArgs,
    sheet: &Sheet,
    outcome: &Outcome,
    cpu: f64,
) -> Result<(), CliError> {
    let count = outcome.latencies.len() as f64;
    let rate = count / outcome.took.as_secs_f64();
    let is_plain = outcome.outages.is_empty() && args.rate.is_none();
    match (is_plain, args.clients) {
        (true, 64) => {
            sheet.judged("messages_a_second", &[rate], Target::AtLeast(30_000.0))?;
            sheet.figure("latency_ms", &outcome.latencies)?;
            let p99 = percentile(&outcome.latencies, 0.99);
            sheet.judged("latency_p99_ms", &[p99], Target::AtMost(5.0))?;
        }
        (true, 1) => {
            sheet.line("messages_a_second", json!({ "value": rate.round() }))?;
            sheet.figure("latency_ms", &outcome.latencies)?;
            let p50 = percentile(&outcome.latencies, 0.5);
            sheet.judged("latency_p50_ms", &[p50], Target::AtMost(0.5))?;
        }
        _ => {
            sheet.line("messages_a_second", json!({ "value": rate.round() }))?;
            sheet.figure("latency_ms", &outcome.latencies)?;
        }
    }
    sheet.line(
        "peers",
        json!({ "cpu_us_a_message": cpu * 1e6 / count.max(1.0),
            "memory_mib_early": outcome.memory_early, "memory_mib_late": outcome.memory_late,
            "refused_and_sent_again": outcome.refusals, "connected_again": outcome.reconnects }),
    )?;
    if !outcome.outages.is_empty() {
        let most = match (args.freeze_leader && !args.kill_leader, args.leader_timeout) {
            (false, _) => 0.3,
            (true, None) => 3.5,
            (true, Some(span)) if span.0 <= Duration::from_millis(800) => 1.2,
            (true, Some(span)) => span.0.as_secs_f64() + 1.0,
        };
        sheet.figure("outage_s", &outcome.outages)?;
        let median = percentile(&outcome.outages, 0.5);
        sheet.judged("outage_median_s", &[median], Target::AtMost(most))?;
    }
    Ok(())
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Measures small writes to this disk: the least latency of a lone client, in milliseconds.
fn floor(dir: &Path) -> std::io::Result<Vec<f64>> {
    use std::io::Write as _;
    let clock = Clock::start();
    let mut file = std::fs::File::create_new(dir.join("floor"))?;
    let mut took = Vec::new();
    for _ in 0..FLOOR_WRITES {
        let before = clock.now().mono;
        file.write_all(&[b'x'; 450])?;
        file.sync_data()?;
        took.push(clock.now().mono.since(before).as_secs_f64() * 1e3);
    }
    Ok(took)
}
