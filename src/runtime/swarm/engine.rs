//! All swarms of one process: the port they share, the limits of its connections, and its rates.
//!
//! Invariants:
//! - A connection that has not named its swarm holds a thread for a bounded time, and there is a
//!   bound to their number; above it the oldest of the address with the most goes.
//! - No failure of one connection ends the acceptor.
//! - After [`Engine::stop`] no thread and no socket is left.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::joined::{Join, JoinError, Joined};
use super::rate::Throttle;
use super::room::Room;
use super::stores::Stores;
use crate::machine::{LinkId, Never};
use crate::proto::sealed::ClusterKeys;
use crate::proto::swarm::Hash;
use crate::runtime::clock::Clock;
use crate::runtime::driver::counters::Counter;
use crate::runtime::driver::lobby::Lobby;
use crate::runtime::driver::options::{Connection, Serve, places_of_callers};
use crate::runtime::engine::CUT_GRACE;
use crate::runtime::engine::acceptor::{accept_loop, wake};
use crate::runtime::listen::{self, StartError};
use crate::runtime::thread::Crew;

/// Limits of all swarms of one process together.
#[derive(Clone, Debug)]
pub struct Limits {
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

impl Default for Limits {
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
pub struct EngineOptions {
    /// Listen address; `None` if another listener serves connections by [`Engine::server`].
    pub listen: Option<SocketAddr>,
    /// Limit of the bytes a second that all swarms together send.
    pub up: Option<u64>,
    /// Limit of the bytes a second that all swarms together receive.
    pub down: Option<u64>,
    /// Limits of connections.
    pub limits: Limits,
    /// Cluster keys: with them, connections are encrypted, and an end without one is refused.
    pub cluster_keys: Option<Arc<ClusterKeys>>,
}

/// Counters of an engine.
#[derive(Debug, Default)]
pub struct Counters {
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
pub struct Engine {
    shared: Arc<Shared>,
}

/// State that all threads of an engine share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) counters: Counters,
    pub(super) up: Throttle,
    pub(super) down: Throttle,
    pub(super) stores: Stores,
    pub(super) keys: Option<Arc<ClusterKeys>>,
    /// Threads of connections that are no swarm's yet, and of the engine itself.
    pub(super) crew: Crew,
    pub(super) lobby: Lobby,
    addr: Option<SocketAddr>,
    rooms: Mutex<Rooms>,
    seats: Mutex<Seats>,
    next_link: AtomicU64,
    door: Mutex<Option<Door>>,
}

/// The swarms, by the identity that a caller names.
#[derive(Default)]
struct Rooms {
    assignment: Option<Arc<Room>>,
    shares: BTreeMap<Hash, Arc<Room>>,
    is_closed: bool,
}

#[derive(Default)]
struct Seats {
    taken: usize,
    of_one: BTreeMap<IpAddr, usize>,
}

struct Door {
    listener: Arc<TcpListener>,
    open: Sender<Never>,
    /// Sender whose drop is the acceptor's sign to begin, when there is a first swarm.
    shut: Option<Sender<Never>>,
}

impl Engine {
    /// Starts an engine without swarms.
    ///
    /// # Errors
    /// Fails if the port is taken, or the system has no room for the first threads.
    pub fn start(options: EngineOptions) -> Result<Self, StartError> {
        let EngineOptions { listen, up, down, limits, cluster_keys } = options;
        let listener = listen.map(|addr| listen::bind(addr.ip(), addr.port())).transpose()?;
        let addr = listener.as_ref().and_then(|it| it.local_addr().ok());
        let clock = Clock::start();
        let no_thread = |source| StartError::Listen {
            addr: addr.unwrap_or(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0)),
            source,
        };
        let crew = Crew::default();
        let stores = Stores::start(&crew).map_err(no_thread)?;
        let shared = Arc::new(Shared {
            clock,
            limits,
            counters: Counters::default(),
            up: Throttle::new(clock, up),
            down: Throttle::new(clock, down),
            stores,
            keys: cluster_keys,
            crew,
            lobby: Lobby::default(),
            addr,
            rooms: Mutex::default(),
            seats: Mutex::default(),
            next_link: AtomicU64::new(1),
            door: Mutex::new(None),
        });
        let engine = Self { shared };
        if let Some(listener) = listener {
            let (open, stopping) = bounded(0);
            let (shut, joined) = bounded::<Never>(0);
            let listener = Arc::new(listener);
            let door = Door { listener: Arc::clone(&listener), open, shut: Some(shut) };
            *engine.shared.door.lock().expect("nothing under this lock can panic") = Some(door);
            let shared = Arc::clone(&engine.shared);
            let accept = move || {
                // Until then the system keeps callers waiting: there is no swarm to lead them to,
                // and many other programs call only once.
                let _ = joined.recv();
                let receive = |stream, from| shared.receive(stream, from);
                accept_loop(&listener, &stopping, receive, |err| {
                    log::debug!("cannot accept connections of swarms: {err}");
                    shared.lobby.evict_one();
                });
            };
            if let Err(err) = engine.shared.crew.spawn("accept:swarm", accept) {
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
    pub fn server(&self) -> Arc<dyn Serve> {
        Arc::new(Server(Arc::clone(&self.shared)))
    }

    /// Joins a swarm.
    ///
    /// # Errors
    /// Fails if this engine is in that swarm already, or is stopping, or no threads can be started.
    pub fn join(&self, join: Join) -> Result<Joined, JoinError> {
        let joined = Joined::start(&self.shared, join)?;
        let mut door = self.shared.door.lock().expect("nothing under this lock can panic");
        if let Some(door) = &mut *door {
            door.shut = None;
        }
        Ok(joined)
    }

    /// Counters of the engine.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Leaves all swarms, and ends all threads. Must not be called from one of them.
    pub fn stop(&self) {
        let shared = &self.shared;
        let door = shared.door.lock().expect("nothing under this lock can panic").take();
        if let Some(door) = door {
            drop(door.open);
            wake(&door.listener);
        }
        shared.lobby.shut();
        let rooms: Vec<_> = {
            let mut rooms = shared.rooms();
            rooms.is_closed = true;
            rooms.assignment.iter().chain(rooms.shares.values()).cloned().collect()
        };
        for room in rooms {
            room.stop();
        }
        shared.up.close();
        shared.down.close();
        shared.stores.close();
        shared.lobby.clear();
        let deadline = shared.clock.now().mono.after(CUT_GRACE);
        let left = shared.crew.wait(&shared.clock, deadline);
        if left > 0 {
            log::warn!("{left} threads of swarms have not ended {CUT_GRACE:?} after the end");
        }
    }
}

impl fmt::Debug for Engine {
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
    pub(super) fn room(&self, share: Option<&Hash>) -> Option<Arc<Room>> {
        let rooms = self.rooms();
        match share {
            Some(share) => rooms.shares.get(share).cloned(),
            None => rooms.assignment.clone(),
        }
    }

    /// The assignment's swarm if it is the only one: callers need not name theirs then.
    pub(super) fn only_room(&self) -> Option<Arc<Room>> {
        let rooms = self.rooms();
        rooms.assignment.clone().filter(|_| rooms.shares.is_empty())
    }

    /// Makes a swarm known to callers; false if it is known already, or the engine is stopping.
    pub(super) fn enter(&self, room: &Arc<Room>) -> bool {
        let mut rooms = self.rooms();
        if rooms.is_closed {
            return false;
        }
        match room.share() {
            Some(share) => {
                let is_new = !rooms.shares.contains_key(&share);
                if is_new {
                    rooms.shares.insert(share, Arc::clone(room));
                }
                is_new
            }
            None if rooms.assignment.is_none() => {
                rooms.assignment = Some(Arc::clone(room));
                true
            }
            None => false,
        }
    }

    /// Makes a swarm unknown to callers.
    pub(super) fn leave(&self, room: &Arc<Room>) {
        let mut rooms = self.rooms();
        rooms.shares.retain(|_, it| !Arc::ptr_eq(it, room));
        if rooms.assignment.as_ref().is_some_and(|it| Arc::ptr_eq(it, room)) {
            rooms.assignment = None;
        }
    }

    /// Takes room for one more connection: one that was accepted from an address, or a call.
    pub(super) fn sit(self: &Arc<Self>, from: Option<IpAddr>) -> Option<Seat> {
        let mut seats = self.seats();
        let of_one = from.map_or(0, |from| seats.of_one.get(&from).copied().unwrap_or(0));
        let all = self.limits.links_max;
        let max = if from.is_some() { places_of_callers(all) } else { all };
        if seats.taken >= max || of_one >= self.limits.links_of_one_max {
            return None;
        }
        seats.taken += 1;
        if let Some(from) = from {
            seats.of_one.insert(from, of_one + 1);
        }
        Some(Seat { shared: Arc::clone(self), from })
    }

    /// Gives a new connection a thread, or closes it if there is no room.
    fn receive(self: &Arc<Self>, stream: TcpStream, from: SocketAddr) {
        let (shared, stream) = (Arc::clone(self), Arc::new(stream));
        let spawned = self.crew.spawn(format!("swarm:{}", from.port()), move || {
            shared.host(Connection::new(stream, Vec::new(), from), true);
        });
        if spawned.is_err() {
            self.counters.refused_full.add(1);
        }
    }

    /// Serves an accepted connection from its first byte to its end.
    fn host(self: &Arc<Self>, connection: Connection, may_be_sealed: bool) {
        let from = connection.from().ip();
        let Some(seat) = self.sit(Some(from)) else {
            self.counters.refused_full.add(1);
            return;
        };
        let stream = connection.share_stream();
        let Some((number, evicted)) = self.lobby.admit(&stream, from, self.limits.silent_max)
        else {
            return;
        };
        if let Some(evicted) = evicted {
            self.counters.refused_silent.add(1);
            let _ = evicted.shutdown(Shutdown::Both);
        }
        let greeted = self.greet(connection, may_be_sealed);
        let is_ours = self.lobby.has_spoken(number);
        self.lobby.leave(number);
        if let Some((room, ends)) = greeted
            && is_ours
        {
            room.converse(ends, None);
        }
        drop(seat);
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().expect("nothing under this lock can panic")
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().expect("nothing under this lock can panic")
    }
}

/// Server of connections that another listener accepts, and whose dialect and need of keys it has
/// detected.
struct Server(Arc<Shared>);

impl Serve for Server {
    fn serve(&self, connection: Connection) {
        let _place = self.0.crew.join();
        self.0.host(connection, false);
    }
}

/// Room for one connection, until it is dropped.
pub(super) struct Seat {
    shared: Arc<Shared>,
    from: Option<IpAddr>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.shared.seats();
        seats.taken -= 1;
        if let Some(from) = self.from {
            match seats.of_one.get_mut(&from) {
                Some(taken) if *taken > 1 => *taken -= 1,
                Some(_) | None => {
                    seats.of_one.remove(&from);
                }
            }
        }
    }
}
