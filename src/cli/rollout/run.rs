//! Run of a node that rolls out: with a port of its own, or inside a peer.
//!
//! Order of preparation: the flags, signals, the node's directory, the log of lines, the data
//! plane, the fleet if there is one, the log of transactions and the port, the control socket. A
//! second process of the same node fails before it touches anything.

use std::sync::Arc;
use std::time::Duration;

use ::log::Level;
use crossbeam_channel::{Receiver, bounded, select, tick};
use serde_json::{Value, json};

use super::local_server::{LocalServer, handler};
use super::report;
use super::settings::Settings;
use crate::cli::args::PeerRunArgs;
use crate::cli::log::{LogLine, LogOrigin, LogSettings, install};
use crate::cli::run::{Running, Service, signals};
use crate::cli::{CliError, descriptor_check};
use crate::model::{Endpoint, KeyPair, Now, WallTime};
use crate::network::rollout::{NodeOptions, RolloutNode};
use crate::network::{self, Network};
use crate::proto::rollout::NodeId;
use crate::runtime::clock::Clock;
use crate::runtime::control::{self, Control};
use crate::runtime::dataplane;
use crate::runtime::files::{DataDir, FilesError};
use crate::runtime::rollout::{EngineStatus, RolloutNotification, RolloutStartError};

/// Interval at which the node is asked whether its disk has failed.
const LOOK: Duration = Duration::from_secs(1);

/// Largest number of reports that wait to be logged.
const TOLD_MAX: usize = 16 * 1024;

/// Runs a node with a port of its own, until it is stopped.
///
/// # Errors
/// Fails if the node cannot start, or its disk fails.
pub(super) fn run(args: &PeerRunArgs, settings: Settings) -> Result<(), CliError> {
    let system = |action| move |source| CliError::System { action, source };
    let signals =
        signals::listen(args.node.until_stdin_closes).map_err(system("listen to signals"))?;
    let log_settings = LogSettings {
        output: args.node.output.clone(),
        format: args.node.log_format,
        level: args.node.log_level,
    };
    install(&log_settings, LogOrigin { role: "peer", node: settings.node.at })?;
    let service = RolloutService::prepare(settings)?;
    let keys = service.dir.identity()?;
    let Some(node) = service.start_in(keys, None, &signals)? else { return Ok(()) };
    let ended = node.log(&signals);
    node.stop();
    let text = match &ended {
        Ok(()) => "stopped; the log keeps what was decided",
        Err(_) => "stopped by a failure",
    };
    LogLine::new(Level::Info, "rollout_stopped", text, json!({})).log(Clock::start().now().wall);
    node.join();
    ended
}

/// A node of rollouts whose directory is this process's alone, before it starts.
pub(in crate::cli) struct RolloutService {
    dir: DataDir,
    options: NodeOptions,
}

impl RolloutService {
    /// Takes the node's directory.
    ///
    /// # Errors
    /// Fails if another process has it, or the disk refuses.
    pub(in crate::cli) fn prepare(settings: Settings) -> Result<Self, CliError> {
        let Settings { node, dir } = settings;
        let dir = DataDir::open_at(dir).map_err(|error| doubled(&node.me, error))?;
        let options = NodeOptions { plane_limits: affordable(node.plane_limits), ..node };
        Ok(Self { dir, options })
    }

    /// Starts the node, inside the peer of `network` or with a port of its own; `None` if it is to
    /// `stop` while it looks for others.
    ///
    /// # Errors
    /// Fails if a port or a log cannot be used, or the system has no room.
    fn start_in<S>(
        self,
        keys: KeyPair,
        network: Option<&Arc<Network>>,
        stop: &Receiver<S>,
    ) -> Result<Option<RunningNode>, CliError> {
        let Self { dir, options } = self;
        let (me, at) = (options.me.clone(), options.at);
        let (tell, told) = bounded(TOLD_MAX);
        let watch = (Box::new(tell) as _, || signals::is_told(stop));
        let node = RolloutNode::start(options, keys, network, watch);
        let Some(node) = node.map_err(start_failed)? else { return Ok(None) };
        begin(&me, at, &node).log(Clock::start().now().wall);
        let local = Arc::new(LocalServer::new(node));
        let control = control::serve(&dir, handler(Arc::downgrade(&local)));
        let control =
            control.map_err(|source| CliError::System { action: "take local commands", source })?;
        Ok(Some(RunningNode { local, told, control, _dir: dir }))
    }
}

/// A running node of rollouts, with its control socket.
pub(in crate::cli) struct RunningNode {
    local: Arc<LocalServer>,
    told: Receiver<(Now, RolloutNotification)>,
    control: Control,
    _dir: DataDir,
}

impl RunningNode {
    /// Logs the node's reports until it is told to `stop`.
    ///
    /// # Errors
    /// Fails if its disk does.
    fn log<S>(&self, stop: &Receiver<S>) -> Result<(), CliError> {
        // A report of the failure may have found no room.
        let looks = tick(LOOK);
        loop {
            select! {
                recv(self.told) -> told => {
                    let Ok((now, told)) = told else { return Ok(()) };
                    show(&self.local, now.wall, &told);
                }
                recv(looks) -> _ => {}
                recv(stop) -> _ => return Ok(()),
            }
            if let Some(reason) = self.local.node.failure() {
                return Err(CliError::Failed(format!("the log of transactions failed: {reason}")));
            }
        }
    }
}

impl Service for RolloutService {
    type Running = RunningNode;

    const NAME: &'static str = "rollout";

    fn dir(&self) -> &DataDir {
        &self.dir
    }

    fn start(
        self,
        network: &Arc<Network>,
        stop: &Receiver<()>,
    ) -> Result<Option<RunningNode>, CliError> {
        self.start_in(network.keys(), Some(network), stop)
    }
}

impl Running for RunningNode {
    fn status(&self) -> Box<dyn Fn() -> Value + Send + Sync> {
        let local = Arc::downgrade(&self.local);
        Box::new(move || local.upgrade().map_or(Value::Null, |it| summary(&it.node)))
    }

    fn attend(&self, stop: &Receiver<()>) -> Result<(), CliError> {
        self.log(stop)
    }

    fn stop(&self) {
        self.local.node.stop();
        let text = "rollouts stopped; the log keeps what was decided";
        LogLine::new(Level::Info, "rollout_stopped", text, json!({}))
            .log(Clock::start().now().wall);
    }

    fn join(self) {
        drop(self.control);
        if let Some(local) = Arc::into_inner(self.local) {
            local.node.join();
        }
    }
}

/// Status of a node in a few fields; `null` once it is stopping.
fn summary(node: &RolloutNode) -> Value {
    let counts = node.counts();
    let common = json!({
        "node_id": node.engine.me().node_id,
        "http": node.plane.addr().to_string(),
        "can_decide": node.can_decide(),
        "committed": counts.committed(),
        "aborted": counts.aborted(),
        "requests": node.plane.counters().requests.get(),
    });
    let more = match node.engine.standing() {
        Err(_) => return Value::Null,
        Ok(EngineStatus::Forming { waits_for, .. }) => json!({ "waits_for": waits_for }),
        Ok(EngineStatus::Running { status, .. }) => {
            let away = status.peers.iter().filter(|it| !it.is_linked).map(|it| &it.node_id);
            json!({
                "version": status.state.version,
                "weights": status.state.weights,
                "nodes": status.roster.nodes().count(),
                "away": away.collect::<Vec<_>>(),
                "in_doubt": status.in_doubt.map(|it| it.txid),
            })
        }
    };
    let fields = [common, more].into_iter().filter_map(|it| it.as_object().cloned());
    Value::Object(fields.flatten().collect())
}

/// Returns `limits` of a data plane, or as much of them as the system allows, with a warning.
fn affordable(limits: dataplane::DataPlaneLimits) -> dataplane::DataPlaneLimits {
    // A client's connection may need one to a server; as many again are kept for later.
    let wanted = 3 * limits.connections;
    let (room, shortage) = descriptor_check::for_sockets(wanted);
    let Some(shortage) = shortage else { return limits };
    ::log::warn!("{shortage}");
    let connections = (room / 3).max(1);
    dataplane::DataPlaneLimits {
        connections,
        connections_of_one: limits.connections_of_one.min(connections / 4 * 3).max(1),
        requests_of_version: limits.requests_of_version.min(connections / 2).max(1),
        ..limits
    }
}

/// Returns the first log line.
fn begin(me: &NodeId, at: Endpoint, node: &RolloutNode) -> LogLine {
    let (http, recovered) = (node.plane.addr(), &node.recovered);
    let waits = match node.engine.standing() {
        Ok(EngineStatus::Forming { waits_for, .. }) => waits_for,
        Ok(EngineStatus::Running { .. }) | Err(_) => Vec::new(),
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
        "{me} takes part in rollouts at {at}, its data plane at {} ({} entries in its \
         log{torn}){waiting}",
        node.plane.url(),
        recovered.records,
    );
    let fields = json!({
        "node_id": me, "http": http.to_string(), "entries": recovered.records,
        "waits_for": waits,
    });
    LogLine::new(Level::Info, "rollout_started", text, fields)
}

fn show(local: &LocalServer, at: WallTime, told: &RolloutNotification) {
    let line = match told {
        RolloutNotification::Event(event) => report::line(event),
        RolloutNotification::Founded(nodes) => {
            let names: Vec<_> = nodes.iter().map(NodeId::as_str).collect();
            let text = format!("the history begins, with {}", names.join(", "));
            LogLine::new(Level::Info, "rollout_founded", text, json!({ "nodes": nodes }))
        }
        RolloutNotification::Note(text) => {
            LogLine::new(Level::Warn, "rollout_note", text.clone(), json!({}))
        }
        RolloutNotification::Serve(_)
        | RolloutNotification::ChangeServers { .. }
        | RolloutNotification::Probe(_)
        | RolloutNotification::Decide { .. }
        | RolloutNotification::Failed(_) => return,
    };
    line.log(at);
    local.note(at, &line);
}

fn doubled(me: &NodeId, error: FilesError) -> CliError {
    let FilesError::Locked { dir } = error else { return error.into() };
    CliError::Failed(format!(
        "{me} runs already on this machine ({} is in use); stop it, or give this one another name \
         with --rollout",
        dir.display()
    ))
}

fn start_failed(error: network::StartError) -> CliError {
    use network::StartError as Start;
    match error {
        Start::Rollout(error) => match error {
            RolloutStartError::Listen(error) => error.into(),
            RolloutStartError::Files(error) => error.into(),
            RolloutStartError::Log(error) => error.into(),
            RolloutStartError::Foreign { .. } => CliError::Failed(error.to_string()),
            RolloutStartError::Roster(_) => CliError::Usage(error.to_string()),
            RolloutStartError::Threads(source) => {
                CliError::System { action: "start a thread", source }
            }
        },
        other @ (Start::Address { .. }
        | Start::Setting(_)
        | Start::Listen(_)
        | Start::Files(_)
        | Start::Journal(_)
        | Start::ClusterKey(_)
        | Start::Chat(_)
        | Start::Order(_)
        | Start::Network(_)
        | Start::System(_)) => other.into(),
    }
}
