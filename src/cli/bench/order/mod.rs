//! Measurement of a Byzantine order: a group of processes with real disks, each of which proposes
//! entries by the library's interface.
//!
//! A client is a proposal in flight: it is made in a member's process, and the next follows when it
//! is final there. In the end all processes are killed at once, and their logs are checked, each by
//! itself and against the others.

mod fleet;
mod part;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;
use serde_json::json;

use self::fleet::{Fleet, pause};
use self::part::Load;
pub use self::part::OrderPartArgs;
pub(super) use self::part::run as run_part;
use super::figure::{Sheet, Target, cores};
use crate::cli::CliError;
use crate::cli::size::Size;
use crate::runtime::clock::Clock;
use crate::runtime::order::audit::AuditedLog;

/// Time before the leader is killed or stopped under load.
const CALM: Duration = Duration::from_secs(2);

/// Time for which nothing happens while idle processor time is measured.
const IDLE: Duration = Duration::from_secs(10);

/// Flags of this measurement.
#[derive(Clone, Debug, Args)]
pub struct OrderBenchArgs {
    /// Number of members, each a process
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=64))]
    members: u32,
    /// Clients of the second measurement; the first has one
    #[arg(long, value_name = "N", default_value_t = 64)]
    clients: usize,
    /// Proposals in flight of each client in the third measurement
    #[arg(long, value_name = "N", default_value_t = 16)]
    in_flight: usize,
    /// Bytes of an entry
    #[arg(long, value_name = "SIZE", default_value = "256")]
    size: Size,
    /// Seconds of each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Leave out the faults: a killed and a stopped leader, and one dead member
    #[arg(long)]
    no_faults: bool,
    /// Folder in which the logs are written, in one that is removed in the end
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// Measures, and prints a JSON line a figure.
///
/// # Errors
/// Fails if a process cannot be started, the group does not come together, or a log does not hold.
pub(super) fn run(args: &OrderBenchArgs) -> Result<(), CliError> {
    let sheet = Sheet::new(json!({
        "bench": "order", "members": args.members, "bytes": args.size.0, "cores": cores(),
    }));
    let failed = |source| CliError::System { action: "make a folder", source };
    let dir = tempfile::tempdir_in(&args.folder).map_err(failed)?;
    let mut fleet = Fleet::start(args.members, dir.path())?;
    let all: Vec<u32> = (1..=args.members).collect();
    idle(&sheet, &fleet)?;
    let load = |in_flight| Load {
        in_flight,
        bytes: usize::try_from(args.size.0).unwrap_or(usize::MAX),
        millis: args.seconds * 1_000,
    };
    let leader = fleet.leader(1)?;
    let one = fleet.load(&[leader], load(1), |_| Ok(()))?;
    sheet.line(
        "one_client_by_the_leader",
        json!({ "a_second": one.rate.round(),
        "latency_ms": one.latency }),
    )?;
    if args.members == 4 {
        let p50 = one.latency["p50"].as_f64().unwrap_or(f64::NAN);
        sheet.judged("one_client_p50_ms", &[p50], Target::AtMost(2.5))?;
    }
    let targets = match args.members {
        4 => [Some(7_000.0), Some(40_000.0)],
        7 => [None, Some(20_000.0)],
        10 => [None, Some(10_000.0)],
        16 => [None, Some(5_000.0)],
        _ => [None, None],
    };
    let mut rates = Vec::new();
    for (in_flight, target) in
        [args.clients, args.clients * args.in_flight].into_iter().zip(targets)
    {
        let loaded = fleet.load(&all, load(in_flight), |_| Ok(()))?;
        rates.push(loaded.rate);
        sheet.line("latency_ms", json!({ "in_flight": in_flight, "of": loaded.latency }))?;
        let name = format!("a_second_with_{in_flight}_in_flight");
        match target {
            Some(least) => sheet.judged(&name, &[loaded.rate], Target::AtLeast(least))?,
            None => sheet.figure(&name, &[loaded.rate])?,
        }
    }
    if !args.no_faults && args.members >= 4 {
        faults(&sheet, &mut fleet, &all, (load(args.clients), rates[0]))?;
    }
    sheet.figure("memory_mib", &fleet.memory())?;
    fleet.kill_all();
    check(&sheet, &fleet)
}

/// Processor time of a member to which nothing happens.
fn idle(sheet: &Sheet, fleet: &Fleet) -> Result<(), CliError> {
    let before = fleet.cpu();
    pause(IDLE);
    let share = (fleet.cpu() - before) / IDLE.as_secs_f64() / fleet.logs().len() as f64;
    sheet.judged("idle_cpu_percent_a_member", &[share * 100.0], Target::AtMost(0.2))
}

/// A stopped leader, a killed one, and then the group with one dead member.
fn faults(
    sheet: &Sheet,
    fleet: &mut Fleet,
    all: &[u32],
    (load, whole_rate): (Load, f64),
) -> Result<(), CliError> {
    let gap = |fleet: &mut Fleet, signal| {
        let leader = fleet.leader(1)?;
        let by = all.iter().copied().find(|id| *id != leader).unwrap_or(1);
        let light = Load { in_flight: 1, ..load };
        let loaded =
            fleet.load(&[by], Load { millis: light.millis.max(8_000), ..light }, |it| {
                pause(CALM);
                it.signal(leader, signal);
                Ok(())
            })?;
        Ok::<_, CliError>((leader, by, loaded.gap_ms))
    };
    let (stopped, _, gap_ms) = gap(fleet, Signal::STOP)?;
    sheet.judged("stopped_leader_to_next_final_ms", &[gap_ms], Target::AtMost(1_500.0))?;
    fleet.signal(stopped, Signal::CONT);
    pause(CALM);
    let (killed, by, gap_ms) = gap(fleet, Signal::KILL)?;
    sheet.judged("killed_leader_to_next_final_ms", &[gap_ms], Target::AtMost(500.0))?;
    let living: Vec<_> = all.iter().copied().filter(|id| *id != killed).collect();
    fleet.leader(by)?;
    let loaded = fleet.load(&living, load, |_| Ok(()))?;
    let share = loaded.rate / whole_rate;
    sheet.judged("rate_with_one_dead_of_whole", &[share], Target::AtLeast(0.8))
}

/// Checks all logs, and the time that one of them takes.
fn check(sheet: &Sheet, fleet: &Fleet) -> Result<(), CliError> {
    let mut logs: Vec<AuditedLog> = Vec::new();
    let clock = Clock::start();
    for path in fleet.logs() {
        let begun = clock.now().mono;
        let log = AuditedLog::read(&path).map_err(|error| CliError::Failed(error.to_string()))?;
        let took = clock.now().mono.since(begun).as_secs_f64();
        if logs.is_empty() {
            let places = log.place().0.max(1) as f64;
            sheet
                .line("verify", json!({ "places": log.place(), "slots": log.slot(), "s": took }))?;
            let scaled = took * 1e6 / places;
            sheet.judged("verify_s_scaled_to_a_million_places", &[scaled], Target::AtMost(60.0))?;
        }
        logs.push(log);
    }
    let places: Vec<_> = logs.iter().map(AuditedLog::place).collect();
    let are_one = logs.iter().all(|it| it.conflict_with(&logs[0]).is_none());
    sheet.line("logs", json!({ "equal": are_one, "places": places }))?;
    if are_one {
        Ok(())
    } else {
        Err(CliError::Failed("the logs contradict each other; see above".to_owned()))
    }
}
