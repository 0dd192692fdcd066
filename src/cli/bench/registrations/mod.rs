//! Measurement of admissions: the number of applicants a second that the seeds let in.
//!
//! The seeds are real processes with real disks. The applicants are as small as they can be, so
//! that the seeds are measured and not the start of a thousand processes; they shake hands, ask,
//! answer the dial-backs, and keep their links like any peer.

mod applicant;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use clap::Args;
use serde_json::json;

use self::applicant::{Admitted, ApplicantPool};
use super::figure::{Sheet, Target};
use super::{limits, procfs};
use crate::cli::CliError;
use crate::cli::fleet::{Fleet, FleetLayout};
use crate::model::Endpoint;
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Target for the registrations a second of three seeds.
const RATE_WANTED: f64 = 500.0;

/// Target for the memory of a seed with a thousand members, in MiB.
const SEED_MIB_WANTED: f64 = 50.0;

/// Flags of this measurement.
#[derive(Clone, Debug, Args)]
pub struct RegistrationsArgs {
    /// Number of applicants to register
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub applicants: u16,
    /// Number of them that ask at a time
    #[arg(long, value_name = "N", default_value_t = 32,
        value_parser = clap::value_parser!(u16).range(1..=200))]
    pub at_once: u16,
    /// Number of seeds to start
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=15))]
    pub seeds: u16,
}

/// Measures, and prints a JSON line a figure.
pub(super) fn run(args: &RegistrationsArgs) -> Result<(), CliError> {
    let mut sheet = Sheet::new(json!({ "bench": "registrations", "applicants": args.applicants,
        "at_once": args.at_once, "seeds": args.seeds, "cores": super::figure::cores() }));
    sheet.line("limits", limits::make_room(args.applicants, args.seeds)?)?;
    sheet.note("version", env!("CARGO_PKG_VERSION").into());
    let mut fleet = start_seeds(args)?;
    let used = |fleet: &Fleet| -> f64 {
        let pids = fleet.seeds().iter().filter_map(|seed| fleet.pid(*seed));
        pids.filter_map(procfs::cpu_seconds).sum()
    };
    let before = used(&fleet);
    let admitted = register_all(args, fleet.seeds())?;
    let seeds_used = used(&fleet) - before;
    let waits: Vec<_> = admitted.iter().map(Admitted::wait_ms).collect();
    sheet.figure("asked_to_admitted_ms", &waits)?;
    let (span, rate) = rate(&admitted);
    sheet.figure("all_registered_ms", &[span * 1_000.0])?;
    sheet.judged("registrations_a_second", &[rate], Target::AtLeast(RATE_WANTED))?;
    let each = seeds_used * 1_000.0 / f64::from(args.applicants);
    sheet.figure("cpu_ms_of_all_seeds_per_registration", &[each])?;
    let pids: Vec<_> = fleet.seeds().iter().filter_map(|seed| fleet.pid(*seed)).collect();
    let memory: Vec<_> = pids.into_iter().filter_map(procfs::memory).collect();
    let (resident, proportional): (Vec<_>, Vec<_>) =
        memory.iter().map(|it| (it.resident, it.proportional)).unzip();
    sheet.judged("resident_mib_seed", &resident, Target::AtMost(SEED_MIB_WANTED))?;
    sheet.figure("proportional_mib_seed", &proportional)?;
    let lines = fleet.story().read();
    lines.map_err(|source| CliError::System { action: "follow the log", source })?;
    let refused = fleet.story().lines().iter().filter(|it| it.event == "refused").count();
    sheet.line("refusals", json!({ "n": refused }))
}

fn start_seeds(args: &RegistrationsArgs) -> Result<Fleet, CliError> {
    let exe = std::env::current_exe()
        .map_err(|source| CliError::System { action: "find this executable", source })?;
    let plan = FleetLayout {
        exe,
        seeds: args.seeds,
        seed_port: 0,
        peer_port: 0,
        peers: 0,
        seed_args: Vec::new(),
        peer_args: Vec::new(),
    };
    let failed = |action| move |source| CliError::System { action, source };
    let mut fleet = Fleet::lay_out(plan).map_err(failed("lay out the fleet"))?;
    for seed in fleet.seeds().to_vec() {
        fleet.start_seed(seed).map_err(failed("start a seed"))?;
    }
    let wanted = usize::from(args.seeds);
    let ready = fleet.story().wait(applicant::PATIENCE, |lines| {
        lines.iter().filter(|line| line.is("seed", "ready")).count() >= wanted
    });
    if !ready.map_err(failed("follow the log"))? {
        return Err(CliError::Failed(format!("the seeds do not start; {}", fleet.complaints())));
    }
    Ok(fleet)
}

/// Registers all applicants, `at_once` of them at a time, each by a quorum of the seeds.
fn register_all(args: &RegistrationsArgs, seeds: &[Endpoint]) -> Result<Vec<Admitted>, CliError> {
    let (next, clock) = (Arc::new(AtomicU32::new(0)), Clock::start());
    let mut workers: Vec<JoinHandle<Result<Vec<Admitted>, String>>> = Vec::new();
    for number in 0..args.at_once {
        let (next, seeds, all) = (Arc::clone(&next), seeds.to_vec(), args.applicants);
        let work = move || {
            let mut pool = ApplicantPool::settle(clock)?;
            let mut admitted = Vec::new();
            loop {
                let applicant = next.fetch_add(1, Ordering::Relaxed);
                if applicant >= u32::from(all) {
                    return Ok(admitted);
                }
                let chosen = quorum_of(&seeds, applicant as usize);
                admitted.push(pool.register(applicant, &chosen)?);
            }
        };
        let started = thread::spawn(format!("applicant:{number}"), work);
        let failed = |source| CliError::System { action: "start an applicant", source };
        workers.push(started.map_err(failed)?);
    }
    let mut admitted = Vec::new();
    for worker in workers {
        let done = worker.join().unwrap_or_else(|_| Err("an applicant crashed".to_owned()));
        admitted.extend(done.map_err(CliError::Failed)?);
    }
    Ok(admitted)
}

/// A quorum of the seeds, another choice for each applicant in turn.
fn quorum_of(seeds: &[Endpoint], turn: usize) -> Vec<Endpoint> {
    let quorum = seeds.len() / 2 + 1;
    seeds.iter().cycle().skip(turn % seeds.len().max(1)).take(quorum).copied().collect()
}

/// Seconds from the first question to the last admission, and admissions in each of them.
fn rate(admitted: &[Admitted]) -> (f64, f64) {
    let first = admitted.iter().map(|it| it.asked).min();
    let last = admitted.iter().map(|it| it.admitted).max();
    let (Some(first), Some(last)) = (first, last) else { return (0.0, 0.0) };
    let seconds = last.since(first).as_secs_f64();
    (seconds, admitted.len() as f64 / seconds.max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::model::Time;

    #[test]
    fn a_rate_is_from_the_first_question_to_the_last_admission() {
        let at = |ms| Time::ZERO.after(Duration::from_millis(ms));
        let admitted = |asked, admitted| Admitted { asked: at(asked), admitted: at(admitted) };
        let all = [admitted(600, 1_500), admitted(500, 700), admitted(900, 2_500)];
        assert_eq!(rate(&all), (2.0, 1.5));
        assert_eq!(all[0].wait_ms(), 900.0);
        assert_eq!(rate(&[]), (0.0, 0.0));
    }

    #[test]
    fn every_applicant_asks_a_quorum_of_distinct_seeds() {
        let seeds: Vec<_> =
            (1..=3).map(|port| Endpoint::new([127, 0, 0, 1].into(), port)).collect();
        let choices: BTreeSet<_> = (0..9).map(|turn| quorum_of(&seeds, turn)).collect();
        assert_eq!(choices.len(), 3);
        for choice in choices {
            assert_eq!(choice.iter().collect::<BTreeSet<_>>().len(), 2);
        }
    }
}
