//! Measurement of transactions: the time of each, and the rate of those that are committed one
//! after the other, by nodes of this process, with the sockets, disks and threads that they have
//! anywhere.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::json;

use super::super::figure::{Sheet, Target};
use crate::cli::CliError;
use crate::machine::rollout::{Command, CommandResult, Event, StartOrder};
use crate::model::{KeyPair, Now};
use crate::proto::rollout::{ModelId, RoutingState, TxId};
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::{DialectServers, EventSink};
use crate::runtime::files::os_rng;
use crate::runtime::rollout::{
    AdmissionPolicy, EngineStatus, HistoryBootstrap, NodeAddr, RolloutEngine, RolloutLimits,
    RolloutNotification, RolloutOptions,
};

/// Target for the time from the order until the coordinator knows that all have it on disk, in
/// milliseconds.
const EVERYWHERE_MS: Target = Target::AtMost(3.0);

/// Target for the transactions a second that are committed one after the other.
const PER_SECOND: Target = Target::AtLeast(200.0);

/// Longest wait for any step before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Largest number of reports that wait to be counted.
const TOLD_MAX: usize = 1 << 16;

struct EventReceiver(Sender<TxId>);

impl EventSink<RolloutNotification> for EventReceiver {
    fn take(&self, _: Now, told: RolloutNotification) -> bool {
        if let RolloutNotification::Event(Event::Everywhere(txid)) = told {
            return self.0.try_send(txid).is_ok();
        }
        true
    }
}

/// Measures, and prints a JSON line a figure.
///
/// # Errors
/// Fails if nodes cannot be started, or a transaction is not committed.
pub(super) fn run(nodes: u8, count: usize, rounds: u16) -> Result<(), CliError> {
    let dir = tempfile::tempdir();
    let dir = dir.map_err(|source| CliError::System { action: "make a directory", source })?;
    let sheet = Sheet::new(json!({
        "bench": "rollout", "cores": super::super::figure::cores(), "nodes": nodes, "fsync": true,
        "transactions": count,
    }));
    let (engines, told) = start(nodes, dir.path())?;
    let outcome = measure(&sheet, &engines[0], &told, (count, rounds));
    for engine in &engines {
        engine.stop();
    }
    outcome
}

fn measure(
    sheet: &Sheet,
    engine: &RolloutEngine,
    told: &Receiver<TxId>,
    (count, rounds): (usize, u16),
) -> Result<(), CliError> {
    let clock = Clock::start();
    commit(engine, begin()?)?;
    let _ = told.recv_timeout(PATIENCE);
    // Each pauses or resumes: a transaction like any other, which does not wait for traffic.
    let mut is_paused = false;
    let mut next = || {
        is_paused = !is_paused;
        if is_paused { Command::Pause } else { Command::Resume }
    };
    let (mut medians, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut times = Vec::new();
        for _ in 0..count {
            let begun = clock.mono();
            let txid = commit(engine, next())?;
            while told.recv_timeout(PATIENCE).map_err(late)? != txid {}
            times.push(clock.mono().since(begun).as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        medians.push(times[times.len() / 2]);
        sheet.figure("transaction_everywhere_ms", &times)?;
        let begun = clock.mono();
        for _ in 0..count {
            commit(engine, next())?;
        }
        rates.push(count as f64 / clock.mono().since(begun).as_secs_f64());
        while told.try_recv().is_ok() {}
    }
    sheet.judged("transaction_everywhere_median_ms", &medians, EVERYWHERE_MS)?;
    sheet.judged("transactions_per_s", &rates, PER_SECOND)
}

fn late(_: crossbeam_channel::RecvTimeoutError) -> CliError {
    CliError::Failed("a transaction did not come everywhere in time".to_owned())
}

fn failed(reason: &str) -> CliError {
    CliError::Failed(reason.to_owned())
}

fn commit(engine: &RolloutEngine, command: Command) -> Result<TxId, CliError> {
    match engine.command(command).map_err(|error| CliError::Failed(error.to_string()))? {
        CommandResult::Committed { txid, .. } => Ok(txid),
        CommandResult::Aborted { reason, .. } | CommandResult::Refused { reason, .. } => {
            Err(CliError::Failed(format!("a transaction was not committed: {reason}")))
        }
    }
}

fn model(name: &str) -> Result<ModelId, CliError> {
    name.parse().map_err(failed)
}

fn begin() -> Result<Command, CliError> {
    Ok(Command::Start(StartOrder {
        from: model("v1")?,
        to: model("v2")?,
        steps: vec![500, 10_000],
        interval_ms: 600_000,
        gates: Vec::new(),
        sticky: None,
        samples_min: 1,
        warm_up_ms: 0,
        failures: 0,
        deadline_ms: 0,
        routes: Vec::new(),
        mirror: None,
        window_ms: 1_000,
        same_servers: false,
    }))
}

/// Starts so many nodes; also returns the channel of the first one's commits.
fn start(nodes: u8, dir: &Path) -> Result<(Vec<RolloutEngine>, Receiver<TxId>), CliError> {
    let system = |source| CliError::System { action: "find free ports", source };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // All are held until all are known, so that they differ.
    let held: Result<Vec<_>, _> = (0..nodes).map(|_| TcpListener::bind(any)).collect();
    let held = held.map_err(system)?;
    let ports: Result<Vec<_>, _> = held.iter().map(|it| Ok(it.local_addr()?.port())).collect();
    let ports = ports.map_err(system)?;
    drop(held);
    let place = |(at, port): (usize, &u16)| NodeAddr {
        node_id: format!("node-{at:02}").parse().expect("a fit name"),
        host: "127.0.0.1".to_owned(),
        port: *port,
        key: None,
    };
    let places: Vec<_> = ports.iter().enumerate().map(place).collect();
    let (tell, told) = bounded(TOLD_MAX);
    let mut engines = Vec::new();
    for place in &places {
        let (unheard, _) = bounded(1);
        let tell = if engines.is_empty() { tell.clone() } else { unheard };
        let options = RolloutOptions {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, place.port))),
            keys: KeyPair::generate(&mut os_rng()?),
            me: place.node_id.clone(),
            at: (place.host.clone(), place.port),
            log: dir.join(format!("{}.log", place.node_id)),
            bootstrap: HistoryBootstrap::By(places.clone()),
            initial: RoutingState::initial(model("v1")?, model("v2")?),
            overrides: Box::new(|_| {}),
            cluster_keys: None,
            policy: AdmissionPolicy::Vouched,
            guests: DialectServers::default(),
            limits: RolloutLimits::default(),
            kill_at: None,
            sink: Box::new(EventReceiver(tell)),
        };
        let started = RolloutEngine::start(options);
        engines.push(started.map_err(|error| CliError::Failed(error.to_string()))?.0);
    }
    let clock = Clock::start();
    while !engines.iter().all(is_ready) {
        if clock.mono().as_micros() > PATIENCE.as_micros() as u64 {
            return Err(failed("the nodes did not begin in time"));
        }
        let _ = crossbeam_channel::after(Duration::from_millis(5)).recv();
    }
    Ok((engines, told))
}

fn is_ready(engine: &RolloutEngine) -> bool {
    match engine.standing() {
        Ok(EngineStatus::Running { status, .. }) => {
            status.recalling.is_empty() && status.peers.iter().all(|it| it.is_linked)
        }
        Ok(EngineStatus::Forming { .. }) | Err(_) => false,
    }
}
