//! Measurement of a Byzantine order: a group of processes with real disks, each of which proposes
//! entries by the library's interface.
//!
//! A client is a proposal in flight: it is made in a member's process, and the next follows when it
//! is final there. In the end all processes are killed at once, and their logs are checked, each by
//! itself and against the others.
//!
//! Beside it stand, in the same run, the floor of this machine in this hour, and the order that
//! trusts its members: the chat's.

mod fleet;
mod floor;
mod liar;
mod part;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;
use serde_json::json;

use self::fleet::{Fleet, GroupSize};
pub use self::part::OrderPartArgs;
pub(super) use self::part::run as run_part;
use self::part::{Load, pause};
use super::chat::{self, ChatBenchArgs};
use super::figure::{Sheet, Target, cores};
use crate::cli::CliError;
use crate::cli::size::Size;
use crate::machine::quorum::QuorumRule;
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
    /// Members that lie, those with the highest ids. The bench plays them: on each slot they sign
    /// votes that exclude each other, give each half of the members another message of one number,
    /// and messages that can have no place; they lead nobody, and answer nothing
    #[arg(long, value_name = "N", default_value_t = 0)]
    liars: u32,
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
    /// Leave out what the order is compared with: the floor of this machine, which is a bare normal
    /// course in threads, and a chat of three, whose members are trusted
    #[arg(long)]
    alone: bool,
    /// Folder in which the logs are written, in one that is removed in the end. One in memory, such
    /// as /dev/shm, shows what the disk costs
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// Measures, and prints a JSON line a figure.
///
/// # Errors
/// Fails if a process cannot be started, the group does not come together, or a log does not hold.
pub(super) fn run(args: &OrderBenchArgs) -> Result<(), CliError> {
    let size = GroupSize { members: args.members, liars: args.liars };
    let quorum = QuorumRule::Byzantine.needed(args.members as usize);
    let honest = args.members.saturating_sub(args.liars) as usize;
    if honest < quorum {
        return Err(CliError::Usage(format!(
            "with {} liars among {} members nothing becomes final: {quorum} honest ones are needed",
            args.liars, args.members
        )));
    }
    let sheet = Sheet::new(json!({
        "bench": "order", "members": args.members, "liars": args.liars, "bytes": args.size.0,
        "cores": cores(),
    }));
    let failed = |source| CliError::System { action: "make a folder", source };
    let dir = tempfile::tempdir_in(&args.folder).map_err(failed)?;
    let bytes = usize::try_from(args.size.0).unwrap_or(usize::MAX);
    let load = |in_flight| Load { in_flight, bytes, millis: args.seconds * 1_000 };
    let loads = [args.clients, args.clients * args.in_flight].map(load);
    let floors = match args.alone {
        true => Vec::new(),
        false => floor::run(&sheet, args.members, &[load(1), loads[0], loads[1]], dir.path())?,
    };
    let mut fleet = Fleet::start(size, bytes, dir.path())?;
    let all: Vec<u32> = size.honest().collect();
    if args.liars == 0 {
        idle(&sheet, &fleet)?;
    }
    // A liar that leads is given up; the first member is honest.
    let leader = Some(fleet.leader(1)?).filter(|it| all.contains(it)).unwrap_or(1);
    let one = fleet.load(&[leader], load(1), |_| Ok(()))?;
    sheet.line(
        "one_client_by_the_leader",
        json!({ "a_second": one.rate.round(),
        "latency_ms": one.latency }),
    )?;
    if args.members == 4 && args.liars == 0 {
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
    for (index, (load, target)) in loads.into_iter().zip(targets).enumerate() {
        let loaded = fleet.load(&all, load, |_| Ok(()))?;
        rates.push(loaded.rate);
        let in_flight = load.in_flight;
        sheet.line("latency_ms", json!({ "in_flight": in_flight, "of": loaded.latency }))?;
        let name = format!("a_second_with_{in_flight}_in_flight");
        match target.filter(|_| args.liars == 0) {
            Some(least) => sheet.judged(&name, &[loaded.rate], Target::AtLeast(least))?,
            None => sheet.figure(&name, &[loaded.rate])?,
        }
        if let Some(floor) = floors.get(index + 1) {
            let share = [loaded.rate / floor];
            let name = format!("share_of_the_floor_with_{in_flight}_in_flight");
            sheet.judged(&name, &share, Target::AtLeast(0.5))?;
        }
    }
    if !args.no_faults && honest > quorum {
        faults(&sheet, &mut fleet, &all, (loads, &rates))?;
    }
    sheet.figure("memory_mib", &fleet.memory())?;
    fleet.kill_all();
    check(&sheet, &fleet)?;
    if args.alone { Ok(()) } else { chat::run(&rival(args)) }
}

/// A chat with the same clients and messages, for about the same time.
fn rival(args: &OrderBenchArgs) -> ChatBenchArgs {
    ChatBenchArgs {
        peers: 3,
        messages: args.seconds * 10_000,
        clients: args.clients,
        size: args.size,
        rate: None,
        by_followers: false,
        kill_leader: false,
        freeze_leader: false,
        kills: 1,
        leader_timeout: None,
        folder: args.folder.clone(),
    }
}

/// Processor time of a member to which nothing happens.
fn idle(sheet: &Sheet, fleet: &Fleet) -> Result<(), CliError> {
    let before = fleet.cpu();
    pause(IDLE);
    let share = (fleet.cpu() - before) / IDLE.as_secs_f64() / fleet.logs().len() as f64;
    sheet.judged("idle_cpu_percent_a_member", &[share * 100.0], Target::AtMost(0.2))
}

/// A stopped leader, a killed one, the group with one dead member, and its return.
fn faults(
    sheet: &Sheet,
    fleet: &mut Fleet,
    all: &[u32],
    (loads, whole_rates): ([Load; 2], &[f64]),
) -> Result<(), CliError> {
    let gap = |fleet: &mut Fleet, signal| {
        let leader = fleet.leader(1)?;
        let by = all.iter().copied().find(|id| *id != leader).unwrap_or(1);
        let millis = loads[0].millis.max(8_000);
        let loaded = fleet.load(&[by], Load { in_flight: 1, millis, ..loads[0] }, |it| {
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
    for (load, whole_rate) in loads.into_iter().zip(whole_rates) {
        let loaded = fleet.load(&living, load, |_| Ok(()))?;
        let name = format!("share_with_one_dead_and_{}_in_flight", load.in_flight);
        sheet.judged(&name, &[loaded.rate / whole_rate], Target::AtLeast(0.8))?;
    }
    catch_up(sheet, fleet, (killed, by))
}

/// Return of a dead member, until it has what the others have.
fn catch_up(sheet: &Sheet, fleet: &mut Fleet, (dead, by): (u32, u32)) -> Result<(), CliError> {
    let place = |it: &serde_json::Value| it["place"].as_u64().unwrap_or_default();
    let wanted = place(&fleet.look(by)?);
    let clock = Clock::start();
    fleet.restart(dead)?;
    let found = fleet.look(dead)?;
    fleet.wait(|it| it.look(dead).is_ok_and(|it| place(&it) >= wanted))?;
    let took = clock.now().mono.as_micros() as f64 / 1e6;
    let missed = wanted.saturating_sub(place(&found));
    sheet.line(
        "return",
        json!({ "missed": missed, "s": took, "places_in_its_log": place(&found),
            "log_opened_s": found["opened_s"], "mib_then": found["opened_mib"] }),
    )?;
    let scaled = took * 1e5 / missed.max(1) as f64;
    sheet.judged("catch_up_s_scaled_to_100000_places", &[scaled], Target::AtMost(5.0))
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
