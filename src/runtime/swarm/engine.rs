//! All swarms of one process: the port they share, the limits of its connections, and its rates.
//!
//! Invariants:
//! - A connection that has not named its swarm holds a thread for a bounded time, and there is a
//!   bound to their number; above it the oldest of the address with the most goes.
//! - No failure of one connection ends the acceptor.
//! - After [`SwarmEngine::stop`] no thread and no socket is left.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::handle::{JoinError, SwarmHandle, SwarmSpec};
use super::rate::Throttle;
use super::stores::Stores;
use super::task::SwarmTask;
use crate::machine::{LinkId, Never};
use crate::proto::sealed::ClusterKeys;
use crate::proto::swarm::Hash;
use crate::runtime::clock::Clock;
use crate::runtime::driver::counters::Counter;
use crate::runtime::driver::options::{RawConnection, ServeConnection, places_of_callers};
use crate::runtime::driver::pending::PendingConnections;
use crate::runtime::engine::CUT_GRACE;
use crate::runtime::engine::acceptor::{accept_loop, wake};
use crate::runtime::listen::{self, ListenError};
use crate::runtime::thread::ThreadGroup;

/// Limits of all swarms of one process together.
#[derive(Clone, Debug)]
pub struct SwarmLimits {
    /// Time-out of a new connection until both handshakes are exchanged.
    pub handshake_timeout: Duration,
    /// Time-out of a call to be connected.
    pub dial_timeout: Duration,
    /// Time-out of an end that takes none of the bytes sent to it.
    pub write_timeout: Duration,
    /// Largest number of accepted connections that have not named their swarm; above this the
    /// oldest of the address with the most is closed.
    pub silent_max: usize,
    /// Largest number of connections; above this new ones are closed at once. A
    /// sixteenth is for own calls.
    pub links_max: usize,
    /// Largest number of accepted connections from one address.
    pub links_of_one_max: usize,
}

impl Default for SwarmLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            silent_max: 64,
            links_max: 512,
            links_of_one_max: 56,
        }
    }
}

/// Options of an engine.
#[derive(Clone, Debug, Default)]
pub struct SwarmOptions {
    /// Listen address; `None` if another listener serves connections by [`SwarmEngine::server`].
    pub listen: Option<SocketAddr>,
    /// Limit of the bytes a second that all swarms together send.
    pub up: Option<u64>,
    /// Limit of the bytes a second that all swarms together receive.
    pub down: Option<u64>,
    /// Limits of connections.
    pub limits: SwarmLimits,
    /// Cluster keys: with them, connections are encrypted, and an end without one is refused.
    pub cluster_keys: Option<Arc<ClusterKeys>>,
}

/// Counters of an engine.
#[derive(Debug, Default)]
pub struct SwarmCounters {
    /// Connections that became a swarm's, called or accepted.
    pub links: Counter,
    /// Accepted connections closed for want of room, in all or for one address.
    pub refused_full: Counter,
    /// Accepted connections that sent nothing useful in time.
    pub refused_silent: Counter,
    /// Handshakes that were malformed, or for a swarm that is not here.
    pub refused_handshake: Counter,
    /// Connections without a cluster key, or with another one.
    pub refused_key: Counter,
    /// Connections that were ended because of their messages.
    pub refused_message: Counter,
}

/// The swarms of one process. Dropping it leaves them running: see [`Self::stop`].
#[derive(Clone)]
pub struct SwarmEngine {
    shared: Arc<Shared>,
}

/// State that all threads of an engine share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) limits: SwarmLimits,
    pub(super) counters: SwarmCounters,
    pub(super) up: Throttle,
    pub(super) down: Throttle,
    pub(super) stores: Stores,
    pub(super) keys: Option<Arc<ClusterKeys>>,
    /// Threads of connections that are no swarm's yet, and of the engine itself.
    pub(super) threads: ThreadGroup,
    pub(super) pending: PendingConnections,
    addr: Option<SocketAddr>,
    tasks: Mutex<SwarmTasks>,
    permits: Mutex<PermitCounts>,
    next_link: AtomicU64,
    listener_handle: Mutex<Option<ListenerHandle>>,
}

/// The swarms, by the identity that a caller names.
#[derive(Default)]
struct SwarmTasks {
    assignment: Option<Arc<SwarmTask>>,
    shares: BTreeMap<Hash, Arc<SwarmTask>>,
    is_closed: bool,
}

#[derive(Default)]
struct PermitCounts {
    taken: usize,
    of_one: BTreeMap<IpAddr, usize>,
}

struct ListenerHandle {
    listener: Arc<TcpListener>,
    open: Sender<Never>,
    /// Sender whose drop is the acceptor's sign to begin, when there is a first swarm.
    shut: Option<Sender<Never>>,
}

impl SwarmEngine {
    /// Starts an engine without swarms.
    ///
    /// # Errors
    /// Fails if the port is taken, or the system has no room for the first threads.
    pub fn start(options: SwarmOptions) -> Result<Self, ListenError> {
        let SwarmOptions { listen, up, down, limits, cluster_keys } = options;
        let listener = listen.map(|addr| listen::bind(addr.ip(), addr.port())).transpose()?;
        let addr = listener.as_ref().and_then(|it| it.local_addr().ok());
        let clock = Clock::start();
        let no_thread = |source| ListenError::Listen {
            addr: addr.unwrap_or(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0)),
            source,
        };
        let threads = ThreadGroup::default();
        let stores = Stores::start(&threads).map_err(no_thread)?;
        let shared = Arc::new(Shared {
            clock,
            limits,
            counters: SwarmCounters::default(),
            up: Throttle::new(clock, up),
            down: Throttle::new(clock, down),
            stores,
            keys: cluster_keys,
            threads,
            pending: PendingConnections::default(),
            addr,
            tasks: Mutex::default(),
            permits: Mutex::default(),
            next_link: AtomicU64::new(1),
            listener_handle: Mutex::new(None),
        });
        let engine = Self { shared };
        if let Some(listener) = listener {
            let (open, stopping) = bounded(0);
            let (shut, joined) = bounded::<Never>(0);
            let listener = Arc::new(listener);
            let listener_handle =
                ListenerHandle { listener: Arc::clone(&listener), open, shut: Some(shut) };
            *engine.shared.listener_handle.lock().expect("nothing under this lock can panic") =
                Some(listener_handle);
            let shared = Arc::clone(&engine.shared);
            let accept = move || {
                // Until then the system keeps callers waiting: there is no swarm to lead them to,
                // and many other programs call only once.
                let _ = joined.recv();
                let receive = |stream, from| shared.receive(stream, from);
                accept_loop(&listener, &stopping, receive, |err| {
                    log::debug!("cannot accept connections of swarms: {err}");
                    shared.pending.evict_one();
                });
            };
            if let Err(err) = engine.shared.threads.spawn("accept:swarm", accept) {
                engine.stop();
                return Err(no_thread(err));
            }
        }
        Ok(engine)
    }

    /// Listen address, if the engine listens.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.shared.addr
    }

    /// Server of accepted connections of the swarm's dialect that another listener accepts.
    pub fn server(&self) -> Arc<dyn ServeConnection> {
        Arc::new(SharedPortServer(Arc::clone(&self.shared)))
    }

    /// Joins a swarm.
    ///
    /// # Errors
    /// Fails if this engine is in that swarm already, or is stopping, or no threads can be started.
    pub fn join(&self, join: SwarmSpec) -> Result<SwarmHandle, JoinError> {
        let joined = SwarmHandle::start(&self.shared, join)?;
        let mut listener_handle =
            self.shared.listener_handle.lock().expect("nothing under this lock can panic");
        if let Some(listener_handle) = &mut *listener_handle {
            listener_handle.shut = None;
        }
        Ok(joined)
    }

    /// Counters of the engine.
    pub fn counters(&self) -> &SwarmCounters {
        &self.shared.counters
    }

    /// Leaves all swarms, and ends all threads. Must not be called from one of them.
    pub fn stop(&self) {
        let shared = &self.shared;
        let listener_handle =
            shared.listener_handle.lock().expect("nothing under this lock can panic").take();
        if let Some(listener_handle) = listener_handle {
            drop(listener_handle.open);
            wake(&listener_handle.listener);
        }
        shared.pending.shut();
        let tasks: Vec<_> = {
            let mut tasks = shared.tasks();
            tasks.is_closed = true;
            tasks.assignment.iter().chain(tasks.shares.values()).cloned().collect()
        };
        for task in tasks {
            task.stop();
        }
        shared.up.close();
        shared.down.close();
        shared.stores.close();
        shared.pending.clear();
        let deadline = shared.clock.now().mono.after(CUT_GRACE);
        let left = shared.threads.wait(&shared.clock, deadline);
        if left > 0 {
            log::warn!("{left} threads of swarms have not ended {CUT_GRACE:?} after the end");
        }
    }
}

impl fmt::Debug for SwarmEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("addr", &self.shared.addr).finish_non_exhaustive()
    }
}

impl Shared {
    /// A new number of a connection.
    pub(super) fn number_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// The swarm that a caller asks for: a share, or the assignment's.
    pub(super) fn task(&self, share: Option<&Hash>) -> Option<Arc<SwarmTask>> {
        let tasks = self.tasks();
        match share {
            Some(share) => tasks.shares.get(share).cloned(),
            None => tasks.assignment.clone(),
        }
    }

    /// The assignment's swarm if it is the only one: callers need not name theirs then.
    pub(super) fn only_room(&self) -> Option<Arc<SwarmTask>> {
        let tasks = self.tasks();
        tasks.assignment.clone().filter(|_| tasks.shares.is_empty())
    }

    /// Makes a swarm known to callers; false if it is known already, or the engine is stopping.
    pub(super) fn enter(&self, task: &Arc<SwarmTask>) -> bool {
        let mut tasks = self.tasks();
        if tasks.is_closed {
            return false;
        }
        match task.share() {
            Some(share) => {
                let is_new = !tasks.shares.contains_key(&share);
                if is_new {
                    tasks.shares.insert(share, Arc::clone(task));
                }
                is_new
            }
            None if tasks.assignment.is_none() => {
                tasks.assignment = Some(Arc::clone(task));
                true
            }
            None => false,
        }
    }

    /// Makes a swarm unknown to callers.
    pub(super) fn leave(&self, task: &Arc<SwarmTask>) {
        let mut tasks = self.tasks();
        tasks.shares.retain(|_, it| !Arc::ptr_eq(it, task));
        if tasks.assignment.as_ref().is_some_and(|it| Arc::ptr_eq(it, task)) {
            tasks.assignment = None;
        }
    }

    /// Takes room for one more connection: one that was accepted from an address, or a call.
    pub(super) fn sit(self: &Arc<Self>, from: Option<IpAddr>) -> Option<ConnectionPermit> {
        let mut permits = self.permits();
        let of_one = from.map_or(0, |from| permits.of_one.get(&from).copied().unwrap_or(0));
        let all = self.limits.links_max;
        let max = if from.is_some() { places_of_callers(all) } else { all };
        if permits.taken >= max || of_one >= self.limits.links_of_one_max {
            return None;
        }
        permits.taken += 1;
        if let Some(from) = from {
            permits.of_one.insert(from, of_one + 1);
        }
        Some(ConnectionPermit { shared: Arc::clone(self), from })
    }

    /// Gives a new connection a thread, or closes it if there is no room.
    fn receive(self: &Arc<Self>, stream: TcpStream, from: SocketAddr) {
        let (shared, stream) = (Arc::clone(self), Arc::new(stream));
        let spawned = self.threads.spawn(format!("swarm:{}", from.port()), move || {
            shared.host(RawConnection::new(stream, Vec::new(), from), true);
        });
        if spawned.is_err() {
            self.counters.refused_full.add(1);
        }
    }

    /// Serves an accepted connection from its first byte to its end.
    fn host(self: &Arc<Self>, connection: RawConnection, may_be_sealed: bool) {
        let from = connection.from().ip();
        let Some(permit) = self.sit(Some(from)) else {
            self.counters.refused_full.add(1);
            return;
        };
        let stream = connection.share_stream();
        let Some((number, evicted)) = self.pending.admit(&stream, from, self.limits.silent_max)
        else {
            return;
        };
        if let Some(evicted) = evicted {
            self.counters.refused_silent.add(1);
            let _ = evicted.shutdown(Shutdown::Both);
        }
        let greeted = self.shake_hands(connection, may_be_sealed);
        let is_ours = self.pending.has_spoken(number);
        self.pending.leave(number);
        if let Some((task, ends)) = greeted
            && is_ours
        {
            task.converse(ends, None);
        }
        drop(permit);
    }

    fn tasks(&self) -> MutexGuard<'_, SwarmTasks> {
        self.tasks.lock().expect("nothing under this lock can panic")
    }

    fn permits(&self) -> MutexGuard<'_, PermitCounts> {
        self.permits.lock().expect("nothing under this lock can panic")
    }
}

/// Server of connections that another listener accepts, and whose dialect and need of keys it has
/// detected.
struct SharedPortServer(Arc<Shared>);

impl ServeConnection for SharedPortServer {
    fn serve(&self, connection: RawConnection) {
        let _place = self.0.threads.join();
        self.0.host(connection, false);
    }
}

/// Room for one connection, until it is dropped.
pub(super) struct ConnectionPermit {
    shared: Arc<Shared>,
    from: Option<IpAddr>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut permits = self.shared.permits();
        permits.taken -= 1;
        if let Some(from) = self.from {
            match permits.of_one.get_mut(&from) {
                Some(taken) if *taken > 1 => *taken -= 1,
                Some(_) | None => {
                    permits.of_one.remove(&from);
                }
            }
        }
    }
}
