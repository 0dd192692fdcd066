//! The data plane of a node: a reverse proxy whose requests go to the version that the committed
//! state chooses (T9, T11).
//!
//! Invariants:
//! - A request is of one committed state from its choice to its last byte; a new state is for the
//!   requests after it, all of it at once.
//! - A connection ends within a bounded time for any behavior of its client, and no other
//!   connection ends with it; the same holds for a server's answer.
//! - No body is held, except one that decides where its request goes.
//! - A version's figures are of its own doing: the costs of a slow client are not in them.
//!
//! Requests run on a few threads with tokio, each connection on one of them. The state that is
//! served is not decided here.

mod accept;
mod access_log;
mod body;
mod choose;
mod forward;
mod headers;
mod limits;
mod meters;
mod metrics;
mod mirror;
pub mod model;
mod options;
mod own;
mod pool;
mod proxy;
mod request_body;
mod servers;
mod serving;
mod tunnel;
mod watch;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use ipnet::IpNet;
use rand::SeedableRng as _;
use serde_json::json;
use tokio::sync::watch as signal;

pub use access_log::AccessLogOptions;
pub use limits::DataPlaneLimits;
pub use options::{DataPlaneOptions, MoreMetrics, ProxyOptions};
pub use own::OwnPaths;
pub use servers::{Servers, Upstream};

use self::accept::receiver;
use self::access_log::AccessLog;
use self::body::ResponseBody;
use self::headers::ToldSource;
use self::meters::Meters;
use self::pool::{Version, Versions};
use self::serving::{Backend, ModelBackend, ServingState, json_of};
use super::driver::counters::Counter;
use super::listen::{self, ListenError};
use crate::machine::rollout::ServedState;
use crate::model::{Rng, Time};
use crate::proto::rollout::{HealthSnapshot, ModelId, NodeId, RemovalAuthority};
use crate::runtime::clock::Clock;
pub use crate::runtime::web::guarded::GuardCounters;
use crate::runtime::web::server::{Client, Handler, Places, Port};
pub use crate::runtime::web::tls::TlsFiles;
use crate::runtime::web::tls::{ServerTls, Trust};
use crate::runtime::web::workers::{Workers, count_of_cores};

/// Window of gates as long as no rollout names another.
const WINDOW_DEFAULT: Duration = Duration::from_secs(60);

/// Time after the start within which requests wait for the state that is served.
const STATE_WITHIN: Duration = Duration::from_secs(2);

/// Counters of served and refused requests.
#[derive(Debug, Default)]
pub struct DataPlaneCounters {
    /// Connections that were served.
    pub connections: Counter,
    /// Requests whose head was read.
    pub requests: Counter,
    /// Requests that were refused by the node itself.
    pub refused: Counter,
    /// Connections refused because there were too many.
    pub refused_busy: Counter,
    /// Connections that were given up.
    pub clients: Arc<GuardCounters>,
}

/// State that all requests of a data plane share.
struct Shared {
    node_id: NodeId,
    clock: Clock,
    limits: DataPlaneLimits,
    counters: DataPlaneCounters,
    places: Arc<Places>,
    /// Versions that this node has servers of.
    versions: RwLock<Arc<Versions>>,
    trust: Trust,
    tls: Option<ServerTls>,
    trusted: Vec<IpNet>,
    own_paths: OwnPaths,
    keeps_underscores: bool,
    ready_path: Option<String>,
    more_metrics: Option<MoreMetrics>,
    access_log: Option<Arc<AccessLog>>,
    /// Source of the draws of each thread.
    rngs: Vec<Mutex<Rng>>,
    /// Source that each thread has told last.
    told: Vec<Mutex<Option<ToldSource>>>,
    workers: usize,
    stopping: signal::Sender<bool>,
    /// True once there is a state that is served.
    known: signal::Sender<bool>,
    /// State that is served; a request takes it once.
    serving_state: RwLock<Option<Arc<ServingState>>>,
    /// The served state as it was told, and its meters; changes one at a time.
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    serving: Option<Arc<ServedState>>,
    epoch: u64,
    meters: Meters,
}

/// A data plane that runs until it is stopped or dropped.
pub struct DataPlane {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    port: Port,
}

impl fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlane").field("addr", &self.addr()).finish_non_exhaustive()
    }
}

impl DataPlane {
    /// Listens and answers; with 503 if a state is needed, until [`Self::set`] brings one.
    ///
    /// # Errors
    /// Fails if the address cannot be listened on, or a file of TLS is not one.
    pub fn start(options: DataPlaneOptions) -> Result<Self, ListenError> {
        let DataPlaneOptions { listen, node_id, servers, limits, seed, more_metrics, proxy } =
            options;
        let failed = |source| ListenError::Listen { addr: listen, source };
        let clock = Clock::start();
        let workers = Arc::new(Workers::start("data", count_of_cores()).map_err(failed)?);
        let trust = Trust::new(proxy.authorities);
        let settings = (limits, clock, workers.count());
        let version = |(model, servers): (ModelId, Servers)| {
            Ok((model, Arc::new(Version::new(&servers, &trust, settings)?)))
        };
        let versions = servers.into_iter().map(version).collect::<Result<Versions, String>>();
        let versions = versions.map_err(ListenError::Setting)?;
        let tls = proxy.tls.map(ServerTls::read).transpose().map_err(ListenError::Setting)?;
        let access_log = proxy.access_log.as_ref().map(AccessLog::open).transpose();
        let access_log = access_log.map_err(ListenError::Setting)?.map(Arc::new);
        let listener = listen::bind(listen.ip(), listen.port())?;
        let rng = |at| Mutex::new(Rng::seed_from_u64(seed ^ (at as u64).wrapping_mul(0x9E37_79B9)));
        let shared = Arc::new(Shared {
            node_id,
            clock,
            limits,
            counters: DataPlaneCounters::default(),
            places: Arc::default(),
            versions: RwLock::new(Arc::new(versions)),
            trust,
            tls,
            trusted: proxy.trusted,
            own_paths: proxy.own_paths,
            keeps_underscores: proxy.keeps_underscores,
            ready_path: proxy.ready_path,
            more_metrics,
            access_log,
            rngs: (0..workers.count()).map(rng).collect(),
            told: (0..workers.count()).map(|_| Mutex::default()).collect(),
            workers: workers.count(),
            stopping: signal::channel(false).0,
            known: signal::channel(false).0,
            serving_state: RwLock::default(),
            current: Mutex::default(),
        });
        if shared.tls.is_some() || shared.access_log.is_some() {
            let mut all = WITH_FILES.lock().expect("nothing under this lock can panic");
            all.push(Arc::downgrade(&shared));
        }
        let receive = receiver(&shared, &workers);
        let port = Port::open(listener, &workers, receive).map_err(failed)?;
        workers.handle(0).spawn(watch::run(Arc::clone(&shared)));
        Ok(Self { shared, workers, port })
    }

    /// Address of the data plane for clients, such as `http://127.0.0.1:50051`.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr())
    }

    /// Listen address of the data plane.
    pub const fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Serves another committed state, from the next request on.
    pub fn set(&self, serving: Arc<ServedState>) {
        let mut current = self.shared.lock();
        // Another rollout, or another window: gates look at no earlier requests.
        let is_same = current
            .serving
            .as_ref()
            .is_some_and(|it| it.salt == serving.salt && it.window == serving.window);
        current.epoch += u64::from(!is_same);
        current.serving = Some(serving);
        self.shared.apply(&mut current);
    }

    /// Checks that servers can be asked at all.
    ///
    /// # Errors
    /// Fails with the reason, for people.
    pub fn can_serve(&self, servers: &Servers) -> Result<(), String> {
        let shared = &self.shared;
        Version::new(servers, &shared.trust, (shared.limits, shared.clock, 0)).map(drop)
    }

    /// Sets the servers of a version, from the next request on; `None` if this node has none any
    /// more.
    ///
    /// # Errors
    /// Fails with the reason, for people, if a server cannot be asked at all; nothing has changed.
    pub fn serve(&self, model: &ModelId, servers: Option<&Servers>) -> Result<(), String> {
        let shared = &self.shared;
        let settings = (shared.limits, shared.clock, shared.workers);
        let version = servers.map(|it| Version::new(it, &shared.trust, settings)).transpose()?;
        let mut current = shared.lock();
        let mut versions = Versions::clone(&shared.versions());
        let is_same = |it: &Arc<Version>| servers.is_some_and(|servers| it.told == *servers);
        match version {
            // Its figures and connections go on.
            Some(_) if versions.get(model).is_some_and(is_same) => return Ok(()),
            Some(version) => drop(versions.insert(model.clone(), Arc::new(version))),
            None => drop(versions.remove(model)),
        }
        *shared.versions.write().expect("nothing under this lock can panic") = Arc::new(versions);
        shared.apply(&mut current);
        Ok(())
    }

    /// Figures of the last window, of the two models of the state that is served.
    pub fn health(&self) -> HealthSnapshot {
        self.shared.health()
    }

    /// Lets each server of a version answer one request over a connection of its own: `{}` to
    /// `/predict`, or the path that says whether it is ready. Any answer will do but 502, 503 and
    /// 504, by which servers say that they are not ready: a model's opinion of this question does
    /// not matter, and gates judge the rest. Must not be called from a thread that serves HTTP.
    ///
    /// # Errors
    /// The reason why there is no such answer, for people.
    pub fn probe(&self, model: &ModelId) -> Result<(), String> {
        let versions = self.shared.versions();
        let Some(version) = versions.get(model).cloned() else { return Ok(()) };
        let ready_path = self.shared.ready_path.clone();
        let (tell, told) = crossbeam_channel::bounded(1);
        self.workers.handle(0).spawn(async move {
            let mut outcome = Ok(());
            for server in &version.servers {
                outcome = watch::probe(server, ready_path.as_deref()).await;
                if outcome.is_err() {
                    break;
                }
            }
            let _ = tell.send(outcome);
        });
        told.recv().unwrap_or_else(|_| Err("the data plane is stopping".to_owned()))
    }

    /// Counters of the data plane.
    pub fn counters(&self) -> &DataPlaneCounters {
        &self.shared.counters
    }

    /// Accepts no more connections, and says with each answer that its connection ends.
    pub fn close(&self) {
        self.shared.stopping.send_replace(true);
        self.port.close();
    }

    /// Stops the data plane. It accepts no more connections; each answer says that its connection
    /// ends, and requests that are being answered have the time of the limits' grace. Returns when
    /// no thread and no socket is left. Must not be called from a thread that serves HTTP.
    pub fn stop(&self) {
        self.close();
        let left = self.port.shut(&self.workers, &self.shared.places, self.shared.limits.grace);
        if left > 0 {
            log::warn!(
                "{left} connections to {} were cut off at the end of the grace",
                self.addr()
            );
        }
        self.workers.stop();
        for version in self.shared.versions().values() {
            version.servers.iter().for_each(|it| it.tidy(true));
        }
        if let Some(log) = &self.shared.access_log {
            log.close();
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The data planes of this process that have files.
static WITH_FILES: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Reads the certificates of this process's data planes again, which new connections have from then
/// on, and opens their access logs anew, which may have been moved away. Returns the number of data
/// planes with such files.
///
/// # Errors
/// Fails with the reason, for people; the old certificate stays.
pub fn read_files_again() -> Result<usize, String> {
    let mut all = WITH_FILES.lock().expect("nothing under this lock can panic");
    all.retain(|it| it.strong_count() > 0);
    for shared in all.iter().filter_map(Weak::upgrade) {
        if let Some(log) = &shared.access_log {
            log.reopen();
        }
        shared.tls.as_ref().map_or(Ok(()), ServerTls::read_again)?;
    }
    Ok(all.len())
}

impl Handler for Shared {
    type Body = ResponseBody;

    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: Arc<Client>,
    ) -> Response<ResponseBody> {
        self.answer(request, &client).await
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().expect("nothing under this lock can panic")
    }

    fn meters(&self) -> Meters {
        self.lock().meters.clone()
    }

    fn versions(&self) -> Arc<Versions> {
        Arc::clone(&self.versions.read().expect("nothing under this lock can panic"))
    }

    /// True if the built-in model answers for all versions.
    fn is_echo(&self) -> bool {
        self.versions.read().expect("nothing under this lock can panic").is_empty()
    }

    /// The state that is served; for a moment after the start it is waited for, because those that
    /// connect to a socket that was handed over should not notice a restart.
    async fn await_state(&self) -> Option<Arc<ServingState>> {
        let since_start = self.clock.mono().since(Time::ZERO);
        let mut known = self.known.subscribe();
        let known = known.wait_for(|is_known| *is_known);
        let _ = tokio::time::timeout(STATE_WITHIN.saturating_sub(since_start), known).await;
        self.current()
    }

    /// The state that is served.
    fn current(&self) -> Option<Arc<ServingState>> {
        self.serving_state.read().expect("nothing under this lock can panic").clone()
    }

    fn rng(&self, worker: usize) -> MutexGuard<'_, Rng> {
        let rng = &self.rngs[worker % self.rngs.len()];
        rng.lock().expect("nothing under this lock can panic")
    }

    fn told(&self, worker: usize) -> MutexGuard<'_, Option<ToldSource>> {
        let told = &self.told[worker % self.told.len()];
        told.lock().expect("nothing under this lock can panic")
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Makes the state of `current` the one that is served.
    fn apply(&self, current: &mut Current) {
        let Some(serving) = current.serving.clone() else { return };
        let (state, epoch) = (&serving.state, current.epoch);
        let span = serving.window.unwrap_or(WINDOW_DEFAULT);
        let now = self.clock.mono();
        let versions = self.versions();
        let mut model_backend = |model: &ModelId, warm_up: Duration| {
            let backend = match versions.get(model) {
                Some(version) => Backend::Servers(Arc::clone(version)),
                None if versions.is_empty() => Backend::Echo,
                None => Backend::Missing,
            };
            let meter = current.meters.of(model, epoch, (span, now.after(warm_up)));
            ModelBackend::new(model, meter, backend, state, &self.node_id)
        };
        let stable = model_backend(&state.stable_model_id, Duration::ZERO);
        let canary = model_backend(&state.canary_model_id, serving.warm_up);
        current.meters.tidy(&[&state.stable_model_id, &state.canary_model_id]);
        let mut json = json_of(state);
        let removed = serving.removed.as_ref().map(|(txid, by)| {
            let me = &self.node_id;
            let (whose, how) = match by {
                RemovalAuthority::Operator => (
                    "",
                    format!(
                        "to let it in again, at a node that takes part: peer rollout admit {me}"
                    ),
                ),
                RemovalAuthority::Seeds => (
                    " by the seeds' word",
                    "it is let in again once it is a member of the fleet again".to_owned(),
                ),
            };
            format!("{me} was called gone{whose} ({txid}) and decides nothing; {how}")
        });
        for (name, text) in [("brake", serving.brake.as_ref()), ("removed", removed.as_ref())] {
            if let Some(text) = text {
                json.truncate(json.len() - 1);
                let _ = write!(json, ",\"{name}\":{}}}", json!(text));
            }
        }
        let (json, digest) = (json.into(), state.digest().to_string());
        // The brake: the committed state stays, and all requests go to the stable version.
        let share = if serving.brake.is_some() { 0 } else { state.canary_share() };
        let state =
            Some(Arc::new(ServingState { serving, share, json, digest, epoch, stable, canary }));
        *self.serving_state.write().expect("nothing under this lock can panic") = state;
        self.known.send_replace(true);
    }

    fn health(&self) -> HealthSnapshot {
        let now = self.clock.now();
        let state = self.current();
        let backends = state.iter().flat_map(|state| [&state.stable, &state.canary]);
        HealthSnapshot {
            node_id: self.node_id.clone(),
            window_id: format!("window-{}", now.wall.0 / 1000),
            models: backends.map(|it| (it.model.clone(), it.meter.health(now.mono))).collect(),
            outside: BTreeMap::new(),
        }
    }

    /// The node's health, and whether requests can succeed here: a state is known, and the version
    /// that has most of them has a server that can be called.
    fn health_json(&self) -> (bool, String) {
        let state = self.current();
        let mut fields = json!(self.health());
        let is_up = |state: &ServingState| {
            let backend = if state.share > 5_000 { &state.canary } else { &state.stable };
            match &backend.backend {
                Backend::Echo => true,
                Backend::Servers(version) => version.is_up(),
                Backend::Missing => false,
            }
        };
        let status = match &state {
            None => "starting",
            Some(_) if self.is_stopping() => "stopping",
            Some(state) if !is_up(state) => "no server",
            Some(_) => "serving",
        };
        fields["status"] = status.into();
        fields["last_committed_version"] =
            state.as_ref().map_or(0, |it| it.serving.state.version).into();
        if let Some(reason) = state.as_ref().and_then(|it| it.serving.brake.clone()) {
            fields["brake"] = reason.into();
        }
        fields["digest"] = state.map(|it| it.digest.clone()).into();
        (status == "serving", fields.to_string())
    }
}
