//! The data plane of a node: requests of the world, each answered by the model that the committed
//! state chooses (T9, T11).
//!
//! Invariants:
//! - A request is of one committed state from its choice to its last byte; a new state is for the
//!   requests after it, all of it at once.
//! - A connection ends within a bounded time for any behavior of its client, and no other
//!   connection ends with it; the same holds for an upstream's answer.
//! - A model's figures are of its own doing: the costs of a slow client are not in them.
//!
//! A connection has one thread. The state that is served is not decided here.

mod answers;
mod connection;
mod limits;
mod meters;
mod metrics;
pub mod model;
mod predict;
mod request_reader;
mod server;
mod serving;
mod socket;
mod sockets;
mod texts;
mod upstream;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::SeedableRng as _;
use serde_json::json;

pub use limits::DataPlaneLimits;
pub use upstream::Upstream;

/// Servers of one version.
pub type Servers = Upstream;

use self::connection::HttpConnection;
use self::meters::Meters;
use self::predict::Predictor;
use self::request_reader::RequestReader;
use self::server::{ConnectionHandler, PortServer, ServerState};
use self::serving::{Backend, ModelBackend, ServingState, json_of};
use self::sockets::SocketPermit;
use self::upstream::{Pool, Reply};
use super::driver::counters::Counter;
use super::listen::ListenError;
use crate::machine::rollout::ServedState;
use crate::model::Rng;
use crate::proto::rollout::{HealthSnapshot, ModelId, NodeId, RemovalAuthority};

/// Window of gates as long as no rollout names another.
const WINDOW_DEFAULT: Duration = Duration::from_secs(60);

/// Time-out of a version's answer before a vote: votes have two seconds.
const PROBE_WITHIN: Duration = Duration::from_millis(1500);

/// Appends lines of further metrics to the text of `/metrics`.
pub type MoreMetrics = Box<dyn Fn(&mut String) + Send + Sync>;

/// Options of a data plane.
pub struct DataPlaneOptions {
    /// Listen address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Id of this node.
    pub node_id: NodeId,
    /// Servers of the models; without any the built-in model answers for all.
    pub upstreams: BTreeMap<ModelId, Upstream>,
    /// Limits of clients and upstreams.
    pub limits: DataPlaneLimits,
    /// Seed of the draws for requests without a key.
    pub seed: u64,
    /// Writer of further metrics at `/metrics`.
    pub more_metrics: Option<MoreMetrics>,
}

/// Counters of served and refused requests.
#[derive(Debug, Default)]
pub struct DataPlaneCounters {
    /// Connections that were served.
    pub connections: Counter,
    /// Requests whose head was read.
    pub requests: Counter,
    /// Requests that were malformed, or for a path or method that does not exist.
    pub refused: Counter,
    /// Connections refused because there were too many.
    pub refused_busy: Counter,
    /// Connections closed because no further request came.
    pub closed_idle: Counter,
    /// Answers that could not be written.
    pub write_failed: Counter,
}

/// State that all threads of a data plane share.
struct Shared {
    node_id: NodeId,
    server: ServerState,
    seed: u64,
    counters: DataPlaneCounters,
    pools: Mutex<BTreeMap<ModelId, Arc<Pool>>>,
    more_metrics: Option<MoreMetrics>,
    /// Number that rises with each state, so that a thread need not take the lock to see that it is
    /// the same.
    generation: AtomicU64,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    serving_state: Option<Arc<ServingState>>,
    generation: u64,
    meters: Meters,
}

/// A data plane that runs until it is stopped or dropped.
pub struct DataPlane {
    shared: Arc<Shared>,
    port: PortServer,
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
    /// Fails if the address cannot be listened on.
    pub fn start(options: DataPlaneOptions) -> Result<Self, ListenError> {
        let DataPlaneOptions { listen, node_id, upstreams, limits, seed, more_metrics } = options;
        let server = ServerState::new(limits);
        let pool = |(model, upstream)| {
            let sockets = Arc::clone(&server.sockets);
            (model, Arc::new(Pool::new(upstream, limits, server.clock, sockets)))
        };
        let pools = Mutex::new(upstreams.into_iter().map(pool).collect());
        let shared = Arc::new(Shared {
            node_id,
            server,
            seed,
            counters: DataPlaneCounters::default(),
            pools,
            more_metrics,
            generation: AtomicU64::new(0),
            current: Mutex::default(),
        });
        let port = PortServer::open(listen, "data", &shared)?;
        Ok(Self { shared, port })
    }

    /// Listen address of the data plane.
    pub const fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Serves another committed state, from the next request on.
    pub fn set(&self, serving: Arc<ServedState>) {
        self.shared.set(serving);
    }

    /// Has these servers answer for a version from the next request on; `None`: none any more.
    pub fn serve(&self, model: &ModelId, servers: Option<Servers>) {
        let Shared { server, .. } = &*self.shared;
        let pool = servers.map(|it| {
            Arc::new(Pool::new(it, server.limits, server.clock, Arc::clone(&server.sockets)))
        });
        let old = match pool {
            Some(pool) => self.shared.pools().insert(model.clone(), pool),
            None => self.shared.pools().remove(model),
        };
        if let Some(old) = old {
            old.close();
        }
        if let Some(state) = self.shared.current().0 {
            self.shared.set(Arc::clone(&state.serving));
        }
    }

    /// Figures of the last window, of the two models of the state that is served.
    pub fn health(&self) -> HealthSnapshot {
        self.shared.health()
    }

    /// Lets the server of a model answer one request, `{}`, over a connection of its own. Any
    /// answer will do but 502, 503 and 504, by which servers say that they are not ready: a model's
    /// opinion of this question does not matter, and gates judge the rest.
    ///
    /// # Errors
    /// The reason why there is no such answer, for people.
    pub fn probe(&self, model: &ModelId) -> Result<(), String> {
        let Shared { pools, server, .. } = &*self.shared;
        let pool = pools.lock().expect("nothing under this lock can panic").get(model).cloned();
        let Some(pool) = pool else { return Ok(()) };
        let limits =
            DataPlaneLimits { answer: PROBE_WITHIN, connect: PROBE_WITHIN, ..server.limits };
        let sockets = Arc::clone(&server.sockets);
        let pool = Pool::new(pool.upstream.clone(), limits, server.clock, sockets);
        let mut request = b"POST ".to_vec();
        pool.upstream.write_target(&mut request, "/predict", "");
        request.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        pool.upstream.write_host(&mut request);
        request.extend_from_slice(b"\r\nContent-Type: application/json\r\nConnection: close\r\n");
        request.extend_from_slice(b"Content-Length: 2\r\n\r\n{}");
        let mut reply = Reply::default();
        match pool.ask(&request, &mut reply) {
            Ok(()) if !matches!(reply.status, 502..=504) => Ok(()),
            Ok(()) => Err(format!("it answers with {}", reply.status)),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Counters of the data plane.
    pub fn counters(&self) -> &DataPlaneCounters {
        &self.shared.counters
    }

    /// Stops the data plane: requests that are being answered have two seconds to end. Returns when
    /// no thread and no socket is left. Must not be called from one of its threads.
    pub fn stop(&self) {
        self.port.shut(&self.shared.server);
        for pool in self.shared.pools().values() {
            pool.close();
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().expect("nothing under this lock can panic")
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<ModelId, Arc<Pool>>> {
        self.pools.lock().expect("nothing under this lock can panic")
    }

    /// Number of the state that is served.
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The state that is served, with its number.
    fn current(&self) -> (Option<Arc<ServingState>>, u64) {
        let current = self.lock();
        (current.serving_state.clone(), current.generation)
    }

    fn set(&self, serving: Arc<ServedState>) {
        let mut current = self.lock();
        // Another rollout, or another window: gates look at no earlier requests.
        let epoch = match &current.serving_state {
            None => 1,
            Some(serving_state) => {
                let is_same = serving_state.serving.salt == serving.salt
                    && serving_state.serving.window == serving.window;
                serving_state.epoch + u64::from(!is_same)
            }
        };
        let span = serving.window.unwrap_or(WINDOW_DEFAULT);
        let state = &serving.state;
        let now = self.server.clock.mono();
        let pools = self.pools().clone();
        let mut model_backend = |model: &ModelId, warm_up: Duration| {
            let backend = match pools.get(model) {
                Some(pool) => Backend::Upstream(Arc::clone(pool)),
                None if pools.is_empty() => Backend::Echo,
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
        let (json, digest) = (json.into_bytes(), state.digest().to_string());
        // The brake: the committed state stays, and all requests go to the stable version.
        let share = if serving.brake.is_some() { 0 } else { state.canary_share() };
        current.serving_state =
            Some(Arc::new(ServingState { serving, share, json, digest, epoch, stable, canary }));
        current.generation += 1;
        self.generation.store(current.generation, Ordering::Release);
    }

    fn health(&self) -> HealthSnapshot {
        let now = self.server.clock.now();
        let (serving_state, _) = self.current();
        let backends = serving_state
            .iter()
            .flat_map(|serving_state| [&serving_state.stable, &serving_state.canary]);
        HealthSnapshot {
            node_id: self.node_id.clone(),
            window_id: format!("window-{}", now.wall.0 / 1000),
            models: backends.map(|it| (it.model.clone(), it.meter.health(now.mono))).collect(),
            outside: BTreeMap::new(),
        }
    }

    fn health_json(&self) -> String {
        let (serving_state, _) = self.current();
        let mut fields = json!(self.health());
        fields["status"] = if serving_state.is_some() { "serving" } else { "starting" }.into();
        fields["last_committed_version"] =
            serving_state.as_ref().map_or(0, |it| it.serving.state.version).into();
        if let Some(reason) = serving_state.as_ref().and_then(|it| it.serving.brake.clone()) {
            fields["brake"] = reason.into();
        }
        fields["digest"] = serving_state.map(|it| it.digest.clone()).into();
        fields.to_string()
    }

    fn metrics(&self) -> String {
        metrics::text(self)
    }
}

impl ConnectionHandler for Shared {
    fn server(&self) -> &ServerState {
        &self.server
    }

    fn serve(&self, stream: Arc<TcpStream>, permit: &SocketPermit) {
        // Spread out, so that neighbors among seeds have nothing in common.
        let own = permit.number().wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let predictor = Predictor::new(Rng::seed_from_u64(self.seed ^ own), self.server.clock);
        if let Ok(reader) = RequestReader::new(&self.server, stream) {
            HttpConnection::new(self, reader, predictor).serve();
        }
    }

    fn count(&self, has_room: bool) {
        let counters = &self.counters;
        let counter = if has_room { &counters.connections } else { &counters.refused_busy };
        counter.add(1);
    }
}
