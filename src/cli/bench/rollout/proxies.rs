//! Measurement of the data plane, with the built-in model and as a proxy, and of other proxies.

use std::time::Duration;

use crossbeam_channel::Receiver;
use serde_json::json;

use super::load::Load;
use super::server::{Rival, Server};
use crate::cli::CliError;
use crate::cli::bench::figure::{self, Sheet, Target};
use crate::runtime::descriptors;

/// Target for the requests a second with the built-in model, on two cores shared with the load.
const ECHO_TARGET: Target = Target::AtLeast(40_000.0);

/// Length of the load before the first measurement: new threads, connections and pools are slower.
const WARM_UP: Duration = Duration::from_millis(500);

/// Figures of one load.
const FIGURES: [&str; 7] =
    ["per_s", "p50_us", "p99_us", "cpu_us", "resident_mib", "private_mib", "canary_share"];

/// Values of one load, in the order of [`FIGURES`].
type Round = [f64; FIGURES.len()];

/// Measures the data plane and `rivals` with each number of clients, `rounds` times for so long,
/// and prints a JSON line a figure. Without rivals the built-in model is measured, too.
///
/// # Errors
/// Fails if a server is not installed or does not start, if a request is not answered as it should
/// be, and at a signal.
pub(super) fn run(
    rivals: &[Rival],
    clients: &[u16],
    (lasts, rounds): (Duration, u16),
    signals: &Receiver<&'static str>,
) -> Result<(), CliError> {
    descriptors::raise();
    let cores = figure::cores();
    let (upstream, kind) = Server::upstream(cores)?;
    let mut servers = vec![("proxy", Server::own(Some(upstream.addr()))?)];
    if rivals.is_empty() {
        servers.push(("echo", Server::own(None)?));
    }
    for rival in rivals {
        servers.push((rival.name(), Server::rival(*rival, upstream.addr(), cores)?));
    }
    for clients in clients {
        let sheet = Sheet::new(json!({
            "bench": "rollout", "cores": cores, "clients": clients, "seconds": lasts.as_secs(),
            "upstream": kind,
        }));
        let warm_up = |(_, server): &(_, Server)| load(server, *clients, WARM_UP, signals);
        servers.iter().try_for_each(|it| warm_up(it).map(drop))?;
        let mut measured = vec![Vec::new(); servers.len()];
        for _ in 0..rounds {
            for ((_, server), measured) in servers.iter().zip(&mut measured) {
                measured.push(load(server, *clients, lasts, signals)?);
            }
        }
        let named: Vec<_> = servers.iter().map(|(name, _)| *name).zip(measured).collect();
        print(&sheet, &named)?;
    }
    Ok(())
}

/// Sends requests by as many clients at once.
fn load(
    server: &Server,
    clients: u16,
    lasts: Duration,
    signals: &Receiver<&'static str>,
) -> Result<Round, CliError> {
    let wait = || match signals.recv_timeout(lasts / 2) {
        Ok(signal) => Err(CliError::Failed(format!("stopped by {signal}"))),
        Err(_) => Ok(()),
    };
    let load =
        Load { addr: server.addr(), clients: clients.into(), threads: figure::cores(), lasts };
    let cpu_before = server.cpu_seconds();
    let running = load.begin()?;
    wait()?;
    let (resident, private) = server.memory();
    wait()?;
    let outcome = running.end()?;
    let cpu = server.cpu_seconds() - cpu_before;
    let mut latencies = outcome.latencies_us;
    latencies.sort_by(f64::total_cmp);
    let count = latencies.len();
    let at = |percent: usize| latencies.get(count.saturating_sub(1) * percent / 100);
    let at = |percent| at(percent).copied().unwrap_or(f64::NAN);
    let cpu_us = cpu * 1e6 / count as f64;
    Ok([outcome.per_second, at(50), at(99), cpu_us, resident, private, outcome.canary_share])
}

/// Prints a line a figure of each server; with nginx among them, also the median of the ratios to
/// its figure in the same round.
fn print(sheet: &Sheet, servers: &[(&str, Vec<Round>)]) -> Result<(), CliError> {
    let nginx = servers.iter().find(|(name, _)| *name == Rival::Nginx.name());
    for (name, rounds) in servers {
        for (at, figure) in FIGURES.iter().enumerate() {
            let metric = format!("predict_{name}_{figure}");
            let values: Vec<_> = rounds.iter().map(|it| it[at]).collect();
            let mut sheet = sheet.clone();
            if let Some((_, nginx)) = nginx.filter(|_| *figure != "canary_share") {
                let ratios: Vec<_> =
                    values.iter().zip(nginx).map(|(value, nginx)| value / nginx[at]).collect();
                let ratio = figure::distribution(&ratios).remove("p50");
                sheet.note("to_nginx", ratio.unwrap_or_default());
            }
            match (*name, *figure) {
                ("echo", "per_s") => sheet.judged(&metric, &values, ECHO_TARGET)?,
                // Others send no request to a canary.
                (name, "canary_share") if !["echo", "proxy"].contains(&name) => {}
                _ => sheet.figure(&metric, &values)?,
            }
        }
    }
    Ok(())
}
