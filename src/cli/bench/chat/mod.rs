//! Measurement of a chat: a group of processes with real disks, and programs that send by it in the
//! public wire.
//!
//! Each client has one message on its way at a time. Its latency lasts until its `CHAT_ACK`, which
//! comes when a majority has the message on disk. In the end all processes are killed at once, and
//! their logs are read and compared.

mod args;
mod check;
mod faults;
mod fleet;
mod load;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

pub use self::args::ChatBenchArgs;
use self::faults::{Fault, FaultPlan};
use self::fleet::Fleet;
pub(super) use self::fleet::free_ports;
use self::load::{Load, Outcome};
use super::figure::{Sheet, Target, cores};
use crate::cli::CliError;
use crate::runtime::clock::Clock;

/// Number of writes to this disk that are measured for comparison.
const FLOOR_WRITES: usize = 200;

impl ChatBenchArgs {
    fn plan(&self) -> Option<FaultPlan> {
        let fault = match (self.kill_leader, self.freeze_leader) {
            (true, _) => Fault::Kill,
            (false, true) => Fault::Freeze,
            (false, false) => return None,
        };
        Some(FaultPlan { fault, times: self.kills })
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
