//! Node of rollouts: its engine, its data plane, and with `decides_in_log` its part in the log of
//! decisions; inside a peer, or with a port of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select, tick};
use rand::RngExt as _;

use super::counts::Counts;
use super::decider::{Decider, DecisionStore};
use super::group::Group;
use super::outside::{self, OutsideAnswers};
use super::versions::{self, ServedVersions};
use crate::machine::Never;
use crate::machine::decision_log::DecisionEntry;
use crate::machine::rollout::{DecisionAuthority, server_digest};
use crate::model::{Endpoint, KeyPair, Now};
use crate::network::error::StartError;
use crate::network::peer::Network;
use crate::proto::rollout::{HealthSnapshot, ModelId, NodeId, RoutingState, ServerChanges};
use crate::proto::sealed::ClusterKeys;
use crate::runtime::clock::Clock;
use crate::runtime::dataplane::{self, DataPlane, Servers};
use crate::runtime::driver::options::{DialectServers, EventSink};
use crate::runtime::files::os_rng;
use crate::runtime::rollout::{
    AdmissionPolicy, HistoryBootstrap, KillPoint, ReplayReport, RolloutEngine, RolloutLimits,
    RolloutNotification, RolloutOptions,
};
use crate::runtime::thread;

/// Largest number of tasks that wait, nearly all of them probes.
const TASKS_MAX: usize = 16;

/// Interval at which the engine is told the health of the node's own traffic.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Interval at which gates that other systems judge are looked at; each says how often it is asked.
const OUTSIDE_EVERY: Duration = Duration::from_millis(250);

/// Settings of a node of rollouts.
pub struct NodeOptions {
    /// Name of the node.
    pub me: NodeId,
    /// Address at which other nodes call it.
    pub at: Endpoint,
    /// Address at which the data plane listens.
    pub http: SocketAddr,
    /// Servers of each version by the flags; empty for the built-in model.
    pub servers: BTreeMap<ModelId, Servers>,
    /// Limits of the data plane.
    pub plane_limits: dataplane::DataPlaneLimits,
    /// Settings of the data plane as a proxy.
    pub proxy: dataplane::ProxyOptions,
    /// Routing state of version 1.
    pub initial: RoutingState,
    /// Beginning of the history; `None` to let the fleet say.
    pub bootstrap: Option<HistoryBootstrap>,
    /// Cluster keys of its links, if they are encrypted.
    pub cluster_keys: Option<Arc<ClusterKeys>>,
    /// File of the log of transactions.
    pub log: PathBuf,
    /// File of the changes of servers at run time.
    pub servers_file: PathBuf,
    /// Log of decisions; `None` to let coordinators decide.
    pub decisions: Option<DecisionStore>,
    /// Condition under which another node is let in.
    pub policy: AdmissionPolicy,
    /// Point at which the process kills itself, for tests.
    pub kill_at: Option<KillPoint>,
}

/// Running node of rollouts.
pub struct RolloutNode {
    /// Engine of the node.
    pub engine: RolloutEngine,
    /// Data plane of the node.
    pub plane: Arc<DataPlane>,
    /// Servers of the versions.
    pub versions: Arc<ServedVersions>,
    /// Held by an order that changes servers, from its check to its end.
    changing: Mutex<()>,
    /// Answers of other systems to the gates of the rollout that is served.
    pub outside: Arc<OutsideAnswers>,
    counts: Arc<Counts>,
    /// Content of the log when the node started.
    pub recovered: ReplayReport,
    /// Readiness of the log of decisions, if there is one.
    pub can_decide: Option<Arc<AtomicBool>>,
    failed: Arc<OnceLock<String>>,
    group: Option<Group>,
    threads: Vec<JoinHandle<()>>,
    /// Sender whose drop is the sign of the node's own threads to stop.
    runs: Mutex<Option<Sender<Never>>>,
}

impl RolloutNode {
    /// Starts a node, inside the peer of `network` or with a port of its own; `None` if
    /// `is_stopping` became true while it looked for other nodes. `sink` takes the reports that are
    /// for people.
    ///
    /// # Errors
    /// Fails if the network has stopped, a port or a log cannot be used, or the system has no room.
    pub fn start(
        mut options: NodeOptions,
        keys: KeyPair,
        network: Option<&Arc<Network>>,
        (sink, is_stopping): (Box<dyn EventSink<RolloutNotification>>, impl Fn() -> bool),
    ) -> Result<Option<Self>, StartError> {
        let counts = Arc::<Counts>::default();
        let upstreams = std::mem::take(&mut options.servers);
        let versions = ServedVersions::open(options.servers_file.clone(), upstreams)?;
        let versions = Arc::new(versions);
        let plane = Arc::new(data_plane(&options, versions.servers(), &counts)?);
        let dialects = network.map_or_else(DialectServers::default, |it| it.dialects().clone());
        let decider = options.decisions.take();
        let decides = decider.as_ref().map(DecisionStore::authority);
        let decider = decider.map(|store| Decider::new(&keys, store, dialects.clone()));
        let (decider, want) = decider.unzip();
        let mut group = network.map(|it| Group::new(it, &options.me)).transpose()?;
        let bootstrap = match (options.bootstrap.take(), &group) {
            (Some(bootstrap), _) => bootstrap,
            // A node with a history goes on with it.
            (None, Some(group)) if !options.log.exists() => match group.find_group(is_stopping) {
                Some(bootstrap) => bootstrap,
                None => return Ok(None),
            },
            (None, _) => HistoryBootstrap::By(Vec::new()),
        };
        let (failed, (tasks, to_do)) = (Arc::<OnceLock<String>>::default(), bounded(TASKS_MAX));
        let (outside, clock) = (Arc::<OutsideAnswers>::default(), Clock::start());
        let sink = Box::new(Reports {
            plane: Arc::clone(&plane),
            outside: (Arc::clone(&outside), clock),
            counts: Arc::clone(&counts),
            failed: Arc::clone(&failed),
            versions: Arc::clone(&versions),
            tasks,
            want,
            sink,
        });
        let own = SocketAddr::new(options.at.ip(), options.at.port());
        let listen = network.is_none().then_some(own);
        let founded = (keys, bootstrap, decides.unwrap_or(DecisionAuthority::Coordinator));
        // A peer's port has its own servers of all dialects, the engine's among them.
        let guests = if network.is_some() { DialectServers::default() } else { dialects };
        let options = engine_options(options, &versions, founded, listen, (guests, sink));
        let (engine, recovered) = RolloutEngine::start(options)?;
        let can_decide = decider.as_ref().map(Decider::readiness);
        let (runs, stopping) = bounded(0);
        let mut node = Self {
            engine,
            plane,
            versions,
            changing: Mutex::default(),
            outside,
            counts,
            recovered,
            can_decide,
            failed,
            group: None,
            threads: Vec::new(),
            runs: Mutex::new(Some(runs)),
        };
        let started = node.start_threads((to_do, stopping), clock, decider, group.as_mut());
        node.group = group;
        if let Err(error) = started {
            node.stop();
            return Err(StartError::System(error));
        }
        Ok(Some(node))
    }

    fn start_threads(
        &mut self,
        (to_do, stopping): (Receiver<Task>, Receiver<Never>),
        clock: Clock,
        decider: Option<Decider>,
        group: Option<&mut Group>,
    ) -> std::io::Result<()> {
        let (outside, is_over) = (Arc::clone(&self.outside), stopping.clone());
        let asks = move || ask_outside(&outside, clock, &is_over);
        self.threads.push(thread::spawn("roll-outside", asks)?);
        let (plane, engine) = (Arc::clone(&self.plane), self.engine.clone());
        let outside = Arc::clone(&self.outside);
        let health = move || tell_health(&plane, &outside, &engine, &stopping);
        self.threads.push(thread::spawn("roll-health", health)?);
        let (plane, engine) = (Arc::clone(&self.plane), self.engine.clone());
        let versions = Arc::clone(&self.versions);
        self.threads.push(thread::spawn("roll-tasks", move || {
            for task in to_do {
                let goes_on = match task {
                    Task::Probe(model) => {
                        let failure = plane.probe(&model).err();
                        engine.probed(model, failure)
                    }
                    Task::KeepServers => {
                        if let Err(error) = versions.save() {
                            // The log has them, and says them again at the next start.
                            log::warn!("the servers of versions cannot be kept: {error}");
                        }
                        true
                    }
                };
                if !goes_on {
                    return;
                }
            }
        })?);
        if let Some(group) = group {
            group.serve(&self.engine)?;
        }
        if let Some(decider) = decider {
            self.threads.push(decider.run(self.engine.clone())?);
        }
        Ok(())
    }

    /// Changes the servers of versions at this node, from the next request on; they are kept on
    /// disk. Must not be called by the engine's sink.
    ///
    /// # Errors
    /// Fails if an address is none, if a version that is served would have no server, or if the
    /// disk refuses; the text says so for people.
    pub fn change_servers(&self, changes: &ServerChanges) -> Result<(), String> {
        let servers = versions::parsed(changes)?;
        for servers in servers.values().flatten() {
            self.plane.can_serve(servers)?;
        }
        let digest = |it: &Option<Servers>| it.as_ref().map(|it| server_digest(&it.to_string()));
        let digests = servers.iter().map(|(model, it)| (model.clone(), digest(it)));
        let _changing = self.changing.lock().expect("nothing under this lock can panic");
        let answer = self.engine.change_servers(digests.collect());
        answer.map_err(|error| error.to_string())??;
        for (model, servers) in &servers {
            self.plane.serve(model, servers.as_ref())?;
        }
        self.versions.change(&servers, None);
        let kept = self.versions.save();
        kept.map_err(|error| format!("it is so now, and not after a restart: {error}"))
    }

    /// Counters of the transactions of this process.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Reason why the node does nothing more, once its disk has failed.
    pub fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// True if transactions can be ended: always, unless the log of decisions is not complete yet.
    pub fn can_decide(&self) -> bool {
        self.can_decide.as_ref().is_none_or(|it| it.load(Ordering::Acquire))
    }

    /// Stops the engine and the data plane.
    pub fn stop(&self) {
        drop(self.runs.lock().expect("nothing can panic here").take());
        // Clients hear of it at once, and may take their time while the engine ends.
        self.plane.close();
        self.engine.stop();
        self.plane.stop();
    }

    /// Waits for the threads to end, after the node and the network have stopped.
    pub fn join(self) {
        let Self { engine, plane, group, threads, .. } = self;
        // The engine's sink holds a sender of tasks, whose end is that of their thread.
        drop((engine, plane));
        if let Some(group) = group {
            group.join();
        }
        for thread in threads {
            // The thread has panicked if this fails, and reported that itself.
            let _ = thread.join();
        }
    }
}

/// Task that the engine's reports leave to a thread.
enum Task {
    /// Have the server of a version answer one request.
    Probe(ModelId),
    /// Write the changes of servers to disk.
    KeepServers,
}

/// Receiver of the engine's reports; it sets a state to be served at the data plane at once.
struct Reports {
    plane: Arc<DataPlane>,
    outside: (Arc<OutsideAnswers>, Clock),
    counts: Arc<Counts>,
    failed: Arc<OnceLock<String>>,
    versions: Arc<ServedVersions>,
    tasks: Sender<Task>,
    want: Option<Sender<DecisionEntry>>,
    sink: Box<dyn EventSink<RolloutNotification>>,
}

impl EventSink<RolloutNotification> for Reports {
    fn take(&self, now: Now, told: RolloutNotification) -> bool {
        match &told {
            RolloutNotification::Serve(serving) => {
                let (outside, clock) = &self.outside;
                outside.serve(serving, clock.mono());
                self.plane.set(Arc::new(serving.clone()));
                return true;
            }
            RolloutNotification::Failed(reason) => {
                let _ = self.failed.set(reason.clone());
            }
            RolloutNotification::Event(event) => self.counts.count(event),
            // A probe that finds no room is a vote that is not given in time.
            RolloutNotification::Probe(model) => {
                return self.tasks.try_send(Task::Probe(model.clone())).is_ok();
            }
            RolloutNotification::ChangeServers { version, changes } => {
                self.change_servers(*version, changes);
                return true;
            }
            RolloutNotification::Decide { txid, commit, proof } => {
                let decision =
                    || DecisionEntry { txid: txid.clone(), commit: *commit, proof: proof.clone() };
                // A decision that finds no room is asked for again.
                return self.want.as_ref().is_none_or(|it| it.try_send(decision()).is_ok());
            }
            RolloutNotification::Founded(_) | RolloutNotification::Note(_) => {}
        }
        self.sink.take(now, told)
    }
}

impl Reports {
    /// Carries out changes of servers that all have agreed on.
    fn change_servers(&self, version: u64, changes: &ServerChanges) {
        // Each node has checked the addresses before it voted.
        let Ok(servers) = versions::parsed(changes) else { return };
        if self.versions.change(&servers, Some(version)) {
            for (model, servers) in &servers {
                if let Err(reason) = self.plane.serve(model, servers.as_ref()) {
                    log::warn!("{model} has no server at this node: {reason}");
                }
            }
            // One that finds no room comes again at the next start.
            let _ = self.tasks.try_send(Task::KeepServers);
        }
    }
}

/// Tells the engine the health of the node's traffic, until the node stops.
fn tell_health(
    plane: &DataPlane,
    outside: &OutsideAnswers,
    engine: &RolloutEngine,
    stopping: &Receiver<Never>,
) {
    let ticks = tick(HEALTH_EVERY);
    loop {
        select! {
            recv(stopping) -> _ => return,
            recv(ticks) -> _ => {
                engine.health(HealthSnapshot { outside: outside.answers(), ..plane.health() });
            }
        }
    }
}

/// Asks other systems about the gates that they judge, until the node stops.
fn ask_outside(outside: &OutsideAnswers, clock: Clock, stopping: &Receiver<Never>) {
    let ticks = tick(OUTSIDE_EVERY);
    let is_stopping = || stopping.try_recv() == Err(TryRecvError::Disconnected);
    loop {
        select! {
            recv(stopping) -> _ => return,
            recv(ticks) -> _ => outside.ask_if_due(clock.mono(), is_stopping, outside::ask),
        }
    }
}

fn data_plane(
    options: &NodeOptions,
    upstreams: BTreeMap<ModelId, Servers>,
    counts: &Arc<Counts>,
) -> Result<DataPlane, StartError> {
    let rollout_counts = Arc::clone(counts);
    let options = dataplane::DataPlaneOptions {
        listen: options.http,
        node_id: options.me.clone(),
        servers: upstreams,
        limits: options.plane_limits,
        seed: os_rng()?.random(),
        more_metrics: Some(Box::new(move || rollout_counts.snapshot())),
        proxy: options.proxy.clone(),
    };
    Ok(DataPlane::start(options)?)
}

fn engine_options(
    options: NodeOptions,
    versions: &ServedVersions,
    (keys, bootstrap, decides): (KeyPair, HistoryBootstrap, DecisionAuthority),
    listen: Option<SocketAddr>,
    (guests, sink): (DialectServers, Box<dyn EventSink<RolloutNotification>>),
) -> RolloutOptions {
    let (models, servers_at) = (versions.digests(), versions.agreed());
    RolloutOptions {
        listen,
        keys,
        at: (options.at.ip().to_string(), options.at.port()),
        me: options.me,
        log: options.log,
        bootstrap,
        initial: options.initial,
        overrides: Box::new(move |config| {
            config.models = models;
            config.servers_at = servers_at;
            config.can_ask = |address| address.parse::<Servers>().is_ok();
            config.decides = decides;
        }),
        cluster_keys: options.cluster_keys,
        policy: options.policy,
        guests,
        limits: RolloutLimits::default(),
        kill_at: options.kill_at,
        sink,
    }
}
