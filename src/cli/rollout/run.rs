//! Run of a node that rolls out, from its start to its exit code.
//!
//! Order of preparation: the flags, signals, the node's directory, the log of lines, the data
//! plane, the fleet if there is one, the log of transactions and the port, the control socket. A
//! second process of the same node fails before it touches anything.

use crate::proto::rollout::Choice;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use ::log::Level;
use crossbeam_channel::{Receiver, Sender, bounded, select, tick};
use serde_json::json;

use super::decider::Decider;
use super::fleet::Fleet;
use super::local::{Local, handler};
use super::report;
use super::settings::Settings;
use crate::cli::args::PeerRunArgs;
use crate::cli::log::{Line, LogSettings, Origin, install};
use crate::cli::run::signals;
use crate::cli::{CliError, member, room};
use crate::machine::decision_log::Decision;
use crate::machine::rollout::{Decides, Event};
use crate::model::{KeyPair, Now, WallTime};
use crate::proto::dialect::Dialect;
use crate::proto::rollout::{ModelId, NodeId};
use crate::runtime::clock::Clock;
use crate::runtime::dataplane::{self, DataPlane};
use crate::runtime::driver::options::{Dialects, Sink};
use crate::runtime::files::{DataDir, FilesError, os_rng};
use crate::runtime::rollout::{
    Admits, Engine, Founding, Limits, Options, Recovered, Standing, StartError, Told,
};
use crate::runtime::{control, thread};

/// Largest number of reports that wait to be logged.
const TOLD_MAX: usize = 16 * 1024;

/// Largest number of versions that wait for a probe.
const PROBES_MAX: usize = 16;

/// Interval at which the engine is told the health of the node's own traffic.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Counters of the node for `/metrics`, beside those of its data plane.
#[derive(Debug, Default)]
struct Counts {
    committed: AtomicU64,
    aborted: AtomicU64,
    votes_commit: AtomicU64,
    votes_abort: AtomicU64,
    /// Duration of the present doubt as last reported, in ms; 0 if there is none.
    doubt_ms: AtomicU64,
}

/// Receiver of the engine's reports; it sets a state to be served at the data plane at once.
struct Ear {
    plane: Arc<DataPlane>,
    counts: Arc<Counts>,
    failed: Arc<OnceLock<String>>,
    tell: Sender<(Now, Told)>,
    probe: Sender<ModelId>,
    want: Option<Sender<Decision>>,
}

impl Sink<Told> for Ear {
    fn take(&self, now: Now, told: Told) -> bool {
        match &told {
            Told::Serve(serving) => {
                self.plane.set(Arc::new(serving.clone()));
                return true;
            }
            Told::Failed(reason) => {
                let _ = self.failed.set(reason.clone());
            }
            Told::Event(event) => self.counts.count(event),
            // A probe that finds no room is a vote that is not given in time.
            Told::Probe(model) => return self.probe.try_send(model.clone()).is_ok(),
            Told::Decide { txid, commit, proof } => {
                let decision =
                    || Decision { txid: txid.clone(), commit: *commit, proof: proof.clone() };
                // A decision that finds no room is asked for again.
                return self.want.as_ref().is_none_or(|it| it.try_send(decision()).is_ok());
            }
            Told::Founded(_) | Told::Note(_) => {}
        }
        self.tell.try_send((now, told)).is_ok()
    }
}

impl Counts {
    fn count(&self, event: &Event) {
        let counter = match event {
            Event::Voted { vote: Choice::Commit, .. } => &self.votes_commit,
            Event::Voted { vote: Choice::Abort, .. } => &self.votes_abort,
            Event::Committed(_) => &self.committed,
            Event::Aborted(_) => &self.aborted,
            Event::InDoubt { waited, .. } => {
                let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                return self.doubt_ms.store(waited, Ordering::Relaxed);
            }
            Event::Began(_)
            | Event::VoteHeard { .. }
            | Event::Everywhere(_)
            | Event::Resolved { .. }
            | Event::Diverged { .. }
            | Event::OtherRoster { .. }
            | Event::Recalling { .. }
            | Event::Recalled
            | Event::Rewound { .. }
            | Event::Braked(_)
            | Event::Removed { .. }
            | Event::DeadStay(_)
            | Event::Moved { .. }
            | Event::Echoes { .. }
            | Event::OtherServers { .. }
            | Event::TookOver { .. }
            | Event::StepHeld { .. }
            | Event::GateFailed { .. }
            | Event::Reached(_)
            | Event::Lost(_)
            | Event::Dropped(..) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if matches!(event, Event::Committed(_) | Event::Aborted(_)) {
            self.doubt_ms.store(0, Ordering::Relaxed);
        }
    }

    fn write(&self, out: &mut String) {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rows = [
            (
                "folkmoot_rollout_committed_total",
                "counter",
                "Transactions committed by this process.",
                &self.committed,
            ),
            (
                "folkmoot_rollout_aborted_total",
                "counter",
                "Transactions that this process saw aborted.",
                &self.aborted,
            ),
            (
                "folkmoot_rollout_votes_commit_total",
                "counter",
                "Votes for a transaction.",
                &self.votes_commit,
            ),
            (
                "folkmoot_rollout_votes_abort_total",
                "counter",
                "Votes against a transaction.",
                &self.votes_abort,
            ),
        ];
        for (name, kind, help, counter) in rows {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            let _ = writeln!(out, "{name} {}", now(counter));
        }
        let name = "folkmoot_rollout_in_doubt_seconds";
        let help = "How long the present doubt lasts, as of the last question; 0: none.";
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        let doubt = now(&self.doubt_ms);
        let _ = writeln!(out, "{name} {}.{:03}", doubt / 1000, doubt % 1000);
    }
}

/// Runs a node until it is stopped.
///
/// # Errors
/// Fails if the node cannot start, or its disk fails.
pub(super) fn run(args: &PeerRunArgs) -> Result<(), CliError> {
    let mut settings = Settings::new(args)?;
    let system = |action| move |source| CliError::System { action, source };
    let signals =
        signals::listen(args.node.until_stdin_closes).map_err(system("listen to signals"))?;
    let log_settings = LogSettings {
        output: args.node.output.clone(),
        format: args.node.log_format,
        level: args.node.log_level,
    };
    install(&log_settings, Origin { role: "peer", node: settings.at })?;
    let dir = DataDir::open_at(settings.dir.clone()).map_err(|error| doubled(&settings, error))?;
    let keys = dir.identity()?;
    let counts = Arc::<Counts>::default();
    let plane = Arc::new(data_plane(&settings, args, &counts)?);
    let (decider, want) = decider(&settings, args, &keys)?;
    let guests: Dialects =
        decider.as_ref().map(|it| (Dialect::Chat, it.server())).into_iter().collect();
    let mut fleet = fleet_of(&settings, args, &keys, &guests)?;
    let Some(founding) = founding(&mut settings, fleet.as_ref(), &signals) else { return Ok(()) };
    let (tell, told) = bounded(TOLD_MAX);
    let failed = Arc::<OnceLock<String>>::default();
    let (probe, probes) = bounded(PROBES_MAX);
    let for_plane = Arc::clone(&plane);
    let ear = Ear { plane: for_plane, counts, failed: Arc::clone(&failed), tell, probe, want };
    let own = SocketAddr::new(settings.at.ip(), settings.at.port());
    let listen = fleet.is_none().then_some(own);
    let options = options(&settings, args, (keys, founding, listen), (guests, Box::new(ear)));
    let (engine, recovered) = Engine::start(options).map_err(start_failed)?;
    let prober = prober(Arc::clone(&plane), engine.clone(), probes);
    let prober = prober.map_err(system("start a thread"))?;
    if let Some(fleet) = &mut fleet {
        fleet.serve(&engine)?;
    }
    let clock = Clock::start();
    begin(&settings, &engine, plane.addr(), &recovered).log(clock.now().wall);
    let ready = decider.as_ref().map(Decider::readiness);
    let local = Arc::new(Local::new(engine, Some(plane.addr().to_string()), ready));
    let decider = decider.map(|it| it.run(&local)).transpose()?;
    let control = control::serve(&dir, handler(Arc::downgrade(&local)));
    let control = control.map_err(system("take local commands"))?;
    let ended = live(&local, &plane, (&told, &signals), &failed);
    drop(control);
    local.engine.stop();
    plane.stop();
    if let Some(fleet) = fleet {
        fleet.stop();
    }
    let _ = prober.join();
    if let Some(decider) = decider {
        // It has panicked if this fails, and said so itself.
        let _ = decider.join();
    }
    let text = match &ended {
        Ok(()) => "stopped; the log keeps what was decided",
        Err(_) => "stopped by a failure",
    };
    Line::new(Level::Info, "rollout_stopped", text, json!({})).log(clock.now().wall);
    ended
}

/// Starts the thread that probes versions, one after the other, until the engine is gone.
fn prober(
    plane: Arc<DataPlane>,
    engine: Engine,
    probes: Receiver<ModelId>,
) -> std::io::Result<JoinHandle<()>> {
    thread::spawn("roll-probe", move || {
        for model in probes {
            let failure = plane.probe(&model).err();
            if !engine.probed(model, failure) {
                return;
            }
        }
    })
}

/// Returns the log of decisions and the sender of decisions asked of it, with `--decide-in-log`.
fn decider(
    settings: &Settings,
    args: &PeerRunArgs,
    keys: &KeyPair,
) -> Result<(Option<Decider>, Option<Sender<Decision>>), CliError> {
    if !args.rollout.decide_in_log {
        return Ok((None, None));
    }
    if settings.cluster_keys.is_some() {
        return Err(CliError::Usage(
            "--decide-in-log cannot be used with --cluster-key; leave one of them out".to_owned(),
        ));
    }
    let log_dir = args.rollout.log_dir.join("decisions");
    let (decider, want) = Decider::new(keys, log_dir, settings.dir.join("decisions.mark"));
    Ok((Some(decider), Some(want)))
}

/// Joins the fleet of the config file, if its seeds run and the flags do not say which nodes take
/// part.
fn fleet_of(
    settings: &Settings,
    args: &PeerRunArgs,
    keys: &KeyPair,
    guests: &Dialects,
) -> Result<Option<Fleet>, CliError> {
    if settings.founding.is_some() || settings.cluster_keys.is_some() {
        return Ok(None);
    }
    let Some(seeds) = member::seeds(&args.node.config, false)? else {
        return Ok(None);
    };
    let place = (args.node.data.clone(), guests.clone());
    Fleet::join((&settings.me, settings.at), &seeds, keys, place).map(Some)
}

/// Returns the beginning of the history; none if it is told to stop while it looks for others.
fn founding(
    settings: &mut Settings,
    fleet: Option<&Fleet>,
    signals: &Receiver<&'static str>,
) -> Option<Founding> {
    match (settings.founding.take(), fleet) {
        (Some(founding), _) => Some(founding),
        // A node with a history goes on with it.
        (None, Some(fleet)) if !settings.log.exists() => fleet.seek(signals),
        (None, _) => Some(Founding::By(Vec::new())),
    }
}

fn data_plane(
    settings: &Settings,
    args: &PeerRunArgs,
    counts: &Arc<Counts>,
) -> Result<DataPlane, CliError> {
    use rand::RngExt as _;
    let shown = Arc::clone(counts);
    let body_bytes = usize::try_from(args.rollout.body_max.0).unwrap_or(usize::MAX);
    let options = dataplane::Options {
        listen: settings.http,
        node_id: settings.me.clone(),
        upstreams: settings.upstreams.clone(),
        limits: dataplane::Limits { body_bytes, ..affordable() },
        seed: os_rng()?.random(),
        more_metrics: Some(Box::new(move |out| shown.write(out))),
    };
    Ok(DataPlane::start(options)?)
}

/// Returns the limits of a data plane, or as much of them as the system allows, with a warning.
fn affordable() -> dataplane::Limits {
    let limits = dataplane::Limits::default();
    // A client's connection may need one to an upstream; as many as half of both are kept for
    // later, and the other nodes' come on top.
    let wanted = 3 * limits.connections;
    let (room, shortage) = room::for_connections(wanted);
    let Some(shortage) = shortage else { return limits };
    ::log::warn!("{shortage}");
    let connections = (room / 4).max(1);
    let connections_of_one = limits.connections_of_one.min(connections);
    dataplane::Limits { connections, connections_of_one, ..limits }
}

fn options(
    settings: &Settings,
    args: &PeerRunArgs,
    (keys, founding, listen): (KeyPair, Founding, Option<SocketAddr>),
    (guests, sink): (Dialects, Box<dyn Sink<Told>>),
) -> Options {
    let flags = &args.rollout;
    let models = settings.models();
    let decides = if flags.decide_in_log { Decides::Log } else { Decides::Coordinator };
    Options {
        listen,
        keys,
        me: settings.me.clone(),
        at: (settings.at.ip().to_string(), settings.at.port()),
        log: settings.log.clone(),
        founding,
        initial: settings.initial.clone(),
        habits: Box::new(move |config| {
            config.models = models;
            config.decides = decides;
        }),
        cluster_keys: settings.cluster_keys.clone(),
        admits: if flags.admit_all { Admits::Anybody } else { Admits::Vouched },
        guests,
        limits: Limits::default(),
        kill_at: flags.kill_at,
        sink,
    }
}

/// Returns the first log line.
fn begin(settings: &Settings, engine: &Engine, http: SocketAddr, recovered: &Recovered) -> Line {
    let waits = match engine.standing() {
        Ok(Standing::Forming { waits_for, .. }) => waits_for,
        Ok(Standing::Running { .. }) | Err(_) => Vec::new(),
    };
    let waiting = match &waits[..] {
        [] => String::new(),
        waits => format!("; waits for {}", waits.join(", ")),
    };
    let torn = match &recovered.torn {
        Some(torn) => format!("; {torn}"),
        None => String::new(),
    };
    let text = format!(
        "{} takes part in rollouts at {}, its data plane at http://{} ({} entries in its \
         log{torn}){waiting}",
        settings.me, settings.at, http, recovered.records,
    );
    let fields = json!({
        "node_id": settings.me, "http": http.to_string(), "entries": recovered.records,
        "waits_for": waits,
    });
    Line::new(Level::Info, "rollout_started", text, fields)
}

fn live(
    local: &Arc<Local>,
    plane: &DataPlane,
    (told, signals): (&Receiver<(Now, Told)>, &Receiver<&'static str>),
    failed: &OnceLock<String>,
) -> Result<(), CliError> {
    let ticks = tick(HEALTH_EVERY);
    loop {
        select! {
            recv(told) -> it => {
                let Ok((now, it)) = it else { return Ok(()) };
                show(local, now.wall, &it);
            }
            recv(ticks) -> _ => {
                local.engine.health(plane.health());
            }
            recv(signals) -> _ => return Ok(()),
        }
        if let Some(reason) = failed.get() {
            return Err(CliError::Failed(format!("the log of transactions failed: {reason}")));
        }
    }
}

fn show(local: &Local, at: WallTime, told: &Told) {
    let line = match told {
        Told::Event(event) => report::line(event),
        Told::Founded(nodes) => {
            let names: Vec<_> = nodes.iter().map(NodeId::as_str).collect();
            let text = format!("the history begins, with {}", names.join(", "));
            Line::new(Level::Info, "rollout_founded", text, json!({ "nodes": nodes }))
        }
        Told::Note(text) => Line::new(Level::Warn, "rollout_note", text.clone(), json!({})),
        Told::Serve(_) | Told::Probe(_) | Told::Decide { .. } | Told::Failed(_) => return,
    };
    line.log(at);
    local.note(at, &line);
}

fn doubled(settings: &Settings, error: FilesError) -> CliError {
    let FilesError::Locked { dir } = error else { return error.into() };
    CliError::Failed(format!(
        "{} runs already on this machine ({} is in use); stop it, or give this one another --id",
        settings.me,
        dir.display()
    ))
}

fn start_failed(error: StartError) -> CliError {
    match error {
        StartError::Listen(error) => error.into(),
        StartError::Files(error) => error.into(),
        StartError::Log(error) => error.into(),
        StartError::Foreign { .. } => CliError::Failed(error.to_string()),
        StartError::Roster(_) => CliError::Usage(error.to_string()),
        StartError::Threads(source) => CliError::System { action: "start a thread", source },
    }
}
