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
use sha2::{Digest as _, Sha256};

use super::counts::Counts;
use super::decider::{Decider, DecisionStore};
use super::group::Group;
use super::outside::{self, OutsideAnswers};
use crate::machine::Never;
use crate::machine::decision_log::DecisionEntry;
use crate::machine::rollout::DecisionAuthority;
use crate::model::{Endpoint, KeyPair, Now};
use crate::network::error::StartError;
use crate::network::peer::Network;
use crate::proto::rollout::{HealthSnapshot, ModelId, NodeId, RoutingState};
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

/// Largest number of versions that wait for a probe.
const PROBES_MAX: usize = 16;

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
    /// Servers of each version; empty for the built-in model.
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
    /// Log of decisions; `None` to let coordinators decide.
    pub decisions: Option<DecisionStore>,
    /// Condition under which another node is let in.
    pub policy: AdmissionPolicy,
    /// Point at which the process kills itself, for tests.
    pub kill_at: Option<KillPoint>,
}

impl NodeOptions {
    /// Versions that this node can serve, each with a digest of its server's address, which may
    /// hold a secret; `None` if it serves any.
    pub fn models(&self) -> Option<BTreeMap<ModelId, String>> {
        let digest = |it: &Servers| hex::encode(&Sha256::digest(it.to_string())[..4]);
        let told = self.servers.iter().map(|(model, at)| (model.clone(), digest(at)));
        (!self.servers.is_empty()).then(|| told.collect())
    }
}

/// Running node of rollouts.
pub struct RolloutNode {
    /// Engine of the node.
    pub engine: RolloutEngine,
    /// Data plane of the node.
    pub plane: Arc<DataPlane>,
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
        let plane = Arc::new(data_plane(&options, &counts)?);
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
        let (failed, (probe, probes)) = (Arc::<OnceLock<String>>::default(), bounded(PROBES_MAX));
        let (outside, clock) = (Arc::<OutsideAnswers>::default(), Clock::start());
        let sink = Box::new(Reports {
            plane: Arc::clone(&plane),
            outside: (Arc::clone(&outside), clock),
            counts: Arc::clone(&counts),
            failed: Arc::clone(&failed),
            probe,
            want,
            sink,
        });
        let own = SocketAddr::new(options.at.ip(), options.at.port());
        let listen = network.is_none().then_some(own);
        let founded = (keys, bootstrap, decides.unwrap_or(DecisionAuthority::Coordinator));
        // A peer's port has its own servers of all dialects, the engine's among them.
        let guests = if network.is_some() { DialectServers::default() } else { dialects };
        let options = engine_options(options, founded, listen, (guests, sink));
        let (engine, recovered) = RolloutEngine::start(options)?;
        let can_decide = decider.as_ref().map(Decider::readiness);
        let (runs, stopping) = bounded(0);
        let mut node = Self {
            engine,
            plane,
            outside,
            counts,
            recovered,
            can_decide,
            failed,
            group: None,
            threads: Vec::new(),
            runs: Mutex::new(Some(runs)),
        };
        let started = node.start_threads((probes, stopping), clock, decider, group.as_mut());
        node.group = group;
        if let Err(error) = started {
            node.stop();
            return Err(StartError::System(error));
        }
        Ok(Some(node))
    }

    fn start_threads(
        &mut self,
        (probes, stopping): (Receiver<ModelId>, Receiver<Never>),
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
        self.threads.push(thread::spawn("roll-probe", move || {
            for model in probes {
                let failure = plane.probe(&model).err();
                if !engine.probed(model, failure) {
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
        // The engine's sink holds a sender of probes, whose end is that of their thread.
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

/// Receiver of the engine's reports; it sets a state to be served at the data plane at once.
struct Reports {
    plane: Arc<DataPlane>,
    outside: (Arc<OutsideAnswers>, Clock),
    counts: Arc<Counts>,
    failed: Arc<OnceLock<String>>,
    probe: Sender<ModelId>,
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
            RolloutNotification::Probe(model) => return self.probe.try_send(model.clone()).is_ok(),
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

fn data_plane(options: &NodeOptions, counts: &Arc<Counts>) -> Result<DataPlane, StartError> {
    let rollout_counts = Arc::clone(counts);
    let options = dataplane::DataPlaneOptions {
        listen: options.http,
        node_id: options.me.clone(),
        servers: options.servers.clone(),
        limits: options.plane_limits,
        seed: os_rng()?.random(),
        more_metrics: Some(Box::new(move || rollout_counts.snapshot())),
        proxy: options.proxy.clone(),
    };
    Ok(DataPlane::start(options)?)
}

fn engine_options(
    options: NodeOptions,
    (keys, bootstrap, decides): (KeyPair, HistoryBootstrap, DecisionAuthority),
    listen: Option<SocketAddr>,
    (guests, sink): (DialectServers, Box<dyn EventSink<RolloutNotification>>),
) -> RolloutOptions {
    let models = options.models();
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
