//! Servers of a version: the one with the fewest requests is asked, over a connection that is kept
//! if there is one, and one that fails is left alone for a while.
//!
//! Invariants: a request is sent a second time only when not a byte of it had left, so none is ever
//! processed twice; a version has a bound of requests of its own, so that one that hangs takes no
//! places from another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::limits::DataPlaneLimits;
use super::request_body::{RequestBody, Transfer};
use super::servers::{Servers, Upstream};
use crate::model::Time;
use crate::runtime::clock::Clock;
use crate::runtime::driver::counters::Counter;
use crate::runtime::web::connect::{Connector, Wire};
use crate::runtime::web::tls::Trust;

/// Number of failures in a row after which a server of several is ejected.
const FAILURES_MAX: u32 = 5;

/// Time of a first ejection; each further one is as much longer.
const EJECTED_FOR: Duration = Duration::from_secs(10);

/// Largest number of times that it is longer.
const EJECTIONS_MAX: u32 = 30;

/// Counters of the connections to a version's servers.
#[derive(Debug, Default)]
pub(super) struct PoolCounters {
    /// Connections that were made.
    pub(super) dials: Counter,
    /// Requests sent over a connection that existed already.
    pub(super) reuses: Counter,
    /// Kept connections that had ended meanwhile.
    pub(super) stale: Counter,
    /// Requests without an answer.
    pub(super) failures: Counter,
    /// Calls to a server that did not succeed.
    pub(super) unreached: Counter,
    /// Servers that were left alone for a while.
    pub(super) ejections: Counter,
    /// Requests refused because too many were waiting for this version.
    pub(super) busy: Counter,
}

/// A connection that waits for its next request.
struct Kept {
    wire: Wire<RequestBody>,
    since: Time,
}

/// Server of a version, with its idle connections.
pub(super) struct Server {
    pub(super) address: Upstream,
    /// Host and port, as `Host` has them.
    pub(super) authority: hyper::header::HeaderValue,
    pub(super) connector: Connector,
    counters: Arc<PoolCounters>,
    limits: DataPlaneLimits,
    clock: Clock,
    /// Idle connections of each thread; the one that was used last is the last.
    kept: Vec<Mutex<Vec<Kept>>>,
    outstanding: AtomicUsize,
    failures: AtomicU32,
    ejections: AtomicU32,
    /// Moment until which it is left alone, in microseconds.
    ejected_until: AtomicU64,
    /// True unless the last call to it failed.
    is_reached: AtomicBool,
    /// True unless it says that it is not ready.
    is_ready: AtomicBool,
}

/// Connection to a server on loan to one request.
pub(super) struct Lease {
    pub(super) server: Arc<Server>,
    wire: Wire<RequestBody>,
    worker: usize,
    /// Progress of the request's body, if the client sends it.
    transfer: Option<Arc<Transfer>>,
    _count: Outstanding,
    _place: VersionPlace,
}

impl Lease {
    pub(super) fn new(
        server: Arc<Server>,
        wire: Wire<RequestBody>,
        (worker, transfer): (usize, Option<Arc<Transfer>>),
        (count, place): (Outstanding, VersionPlace),
    ) -> Self {
        Self { server, wire, worker, transfer, _count: count, _place: place }
    }

    /// Keeps the connection for the next request, unless the body of this one is still on its way:
    /// the server has answered without reading it.
    pub(super) fn give_back(self) {
        let Self { server, wire, worker, transfer, .. } = self;
        if transfer.is_none_or(|it| Arc::strong_count(&it) == 1) {
            server.keep(worker, wire);
        }
    }
}

/// A request that a server is asked, until dropped.
pub(super) struct Outstanding(Arc<Server>);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    fn new(
        address: &Upstream,
        trust: &Trust,
        (counters, limits, clock, workers): (Arc<PoolCounters>, DataPlaneLimits, Clock, usize),
    ) -> Result<Self, String> {
        let authority = hyper::header::HeaderValue::from_str(&address.authority());
        let connector = Connector::new(address, trust)?;
        let mut kept = Vec::new();
        kept.resize_with(workers, Mutex::default);
        Ok(Self {
            address: address.clone(),
            authority: authority.map_err(|error| error.to_string())?,
            connector,
            counters,
            limits,
            clock,
            kept,
            outstanding: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            is_reached: AtomicBool::new(true),
            is_ready: AtomicBool::new(true),
        })
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Outstanding {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Outstanding(Arc::clone(self))
    }

    /// Takes a connection that is kept, and open as far as one can see.
    pub(super) fn take_kept(&self, worker: usize) -> Option<Wire<RequestBody>> {
        let kept = self.kept.get(worker)?;
        let now = self.clock.mono();
        loop {
            let Kept { wire, since } =
                kept.lock().expect("nothing under this lock can panic").pop()?;
            if now.since(since) > self.limits.kept_for {
                // Those below are older.
                kept.lock().expect("nothing under this lock can panic").clear();
                return None;
            }
            if !wire.sender.is_closed() {
                return Some(wire);
            }
            self.counters.stale.add(1);
        }
    }

    fn keep(&self, worker: usize, wire: Wire<RequestBody>) {
        if wire.sender.is_closed() {
            return;
        }
        let Some(kept) = self.kept.get(worker) else { return };
        let mut kept = kept.lock().expect("nothing under this lock can panic");
        if kept.len() < self.limits.kept {
            kept.push(Kept { wire, since: self.clock.mono() });
        }
    }

    /// Closes the connections that were idle for too long, or all of them.
    pub(super) fn tidy(&self, is_over: bool) {
        let now = self.clock.mono();
        for kept in &self.kept {
            let mut kept = kept.lock().expect("nothing under this lock can panic");
            kept.retain(|it| !is_over && now.since(it.since) <= self.limits.kept_for);
        }
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// Fails with the reason, for people.
    pub(super) async fn connect(&self, within: Duration) -> Result<Wire<RequestBody>, String> {
        self.counters.dials.add(1);
        let made = self.connector.connect(within).await;
        self.is_reached.store(made.is_ok(), Ordering::Relaxed);
        if made.is_err() {
            self.counters.unreached.add(1);
            self.failed();
        }
        made
    }

    /// Counts a good answer.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
        }
        self.is_reached.store(true, Ordering::Relaxed);
    }

    /// Counts a failure; the server is left alone after some in a row.
    pub(super) fn failed(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures.is_multiple_of(FAILURES_MAX) {
            let times = self.ejections.fetch_add(1, Ordering::Relaxed) + 1;
            let until = self.clock.mono().after(EJECTED_FOR * times.min(EJECTIONS_MAX));
            self.ejected_until.store(until.as_micros(), Ordering::Relaxed);
            self.counters.ejections.add(1);
        }
    }

    fn is_ejected(&self) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > self.clock.mono().as_micros()
    }

    /// True if the last call succeeded and the server does not say that it is not ready.
    pub(super) fn is_up(&self) -> bool {
        self.is_reached.load(Ordering::Relaxed) && self.is_ready.load(Ordering::Relaxed)
    }

    /// True if the last call failed.
    pub(super) fn is_lost(&self) -> bool {
        !self.is_reached.load(Ordering::Relaxed)
    }

    /// Notes whether the server says that it is ready; `None` if it could not be asked.
    pub(super) fn set_ready(&self, answer: Option<bool>) {
        self.is_reached.store(answer.is_some(), Ordering::Relaxed);
        self.is_ready.store(answer == Some(true), Ordering::Relaxed);
    }
}

/// The servers of one version.
pub(super) struct Version {
    pub(super) told: Servers,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) counters: Arc<PoolCounters>,
    limit: usize,
    in_flight: Arc<AtomicUsize>,
    /// Server with which the next choice among equals begins.
    turn: AtomicUsize,
}

/// Place of a request at a version, until dropped.
pub(super) struct VersionPlace(Arc<AtomicUsize>);

impl Drop for VersionPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Version {
    /// The servers of a version, with the limits of each.
    ///
    /// # Errors
    /// Fails with the reason, for people, if one of them cannot be asked at all.
    pub(super) fn new(
        told: &Servers,
        trust: &Trust,
        (limits, clock, workers): (DataPlaneLimits, Clock, usize),
    ) -> Result<Self, String> {
        let counters = Arc::<PoolCounters>::default();
        let server = |address: &Upstream| {
            let settings = (Arc::clone(&counters), limits, clock, workers);
            Server::new(address, trust, settings).map(Arc::new)
        };
        let servers = told.iter().map(server).collect::<Result<Vec<_>, _>>()?;
        let (in_flight, turn) = (Arc::default(), AtomicUsize::new(0));
        let told = told.clone();
        Ok(Self { told, servers, counters, limit: limits.requests_of_version, in_flight, turn })
    }

    /// Takes a place for a request, if fewer than the limit are under way.
    pub(super) fn enter(&self) -> Option<VersionPlace> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        // The guard gives the place back in either case.
        let place = VersionPlace(Arc::clone(&self.in_flight));
        if before >= self.limit {
            self.counters.busy.add(1);
            return None;
        }
        Some(place)
    }

    /// Number of requests under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Chooses the server with the fewest requests under way that was not tried; one that is
    /// ejected or not ready only if there is no other.
    pub(super) fn choose(&self, tried: &[Arc<Server>]) -> Option<Arc<Server>> {
        if let ([server], []) = (&self.servers[..], tried) {
            return Some(Arc::clone(server));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.servers.len();
        let in_turn = (0..count).map(|at| &self.servers[(turn + at) % count]);
        let rest = in_turn.filter(|it| !tried.iter().any(|other| Arc::ptr_eq(it, other)));
        let key = |it: &&Arc<Server>| {
            (it.is_ejected() || !it.is_up(), it.outstanding.load(Ordering::Relaxed))
        };
        rest.min_by_key(key).cloned()
    }

    /// True if a server can be asked, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.servers.iter().any(|it| it.is_up())
    }
}

/// All versions that a node knows servers of.
pub(super) type Versions = BTreeMap<crate::proto::rollout::ModelId, Arc<Version>>;
