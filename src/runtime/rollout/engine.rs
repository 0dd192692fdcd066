//! Engine of a node that rolls out: its port, its log and its threads.
//!
//! Invariant: after [`Engine::stop`] no thread and no socket is left, and everything handed to the
//! disk is there.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::bounded;
use serde::{Deserialize, Serialize};

use super::forming::Forming;
use super::greet::Caller;
use super::keeper::{Item, Keeper};
use super::options::{
    Admits, Counters, Founding, Limits, Options, Place, Recovered, Standing, StartError,
};
use super::stage::{Asking, Phase, Stage};
use crate::machine::LinkId;
use crate::machine::rollout::{Aborted, Answer, Command, Input, Memory, Record};
use crate::model::{KeyPair, PublicKey, Rng};
use crate::proto::dialect::Dialect;
use crate::proto::rollout::{
    Committed, Genesis, HealthSnapshot, ModelId, NodeId, Participant, Roster, TxId,
};
use crate::proto::sealed::ClusterKeys;
use crate::runtime::clock::Clock;
use crate::runtime::disk::Disk;
use crate::runtime::driver::options::{Connection, Dialects, Serve};
use crate::runtime::files::{make_dirs, os_rng};
use crate::runtime::inbox::Inbox;
use crate::runtime::journal::{Journal, JournalError};
use crate::runtime::listen;
use crate::runtime::porter::{Porter, Refused};

/// Time within which threads must end once their sockets are shut.
const CUT_GRACE: Duration = Duration::from_secs(5);

/// Entry of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Entry {
    /// The first entry: the owner of the log, and the beginning of its history.
    Genesis {
        /// Name of the owner.
        node_id: NodeId,
        /// First roster and first state.
        genesis: Genesis,
    },
    /// A record that the machine needs after a crash.
    Record(Box<Record>),
}

/// Handle of a running node. Dropping it leaves the node running: see [`Self::stop`].
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// State shared by all threads of the engine.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) guests: Dialects,
    pub(super) counters: Counters,
    pub(super) me: Participant,
    pub(super) keys_of_mine: KeyPair,
    pub(super) keys: Option<Arc<ClusterKeys>>,
    pub(super) rng: Mutex<Rng>,
    pub(super) inbox: Inbox<Item>,
    pub(super) disk: Arc<Disk<Entry>>,
    pub(super) porter: Porter,
    /// Addresses that [`Self::seek`] has called, and which are being called or are linked.
    pub(super) busy: Mutex<BTreeSet<String>>,
    /// Last reported reason for which calls to an address fail, by address.
    pub(super) told: Mutex<BTreeMap<String, String>>,
    addr: Option<SocketAddr>,
    links: Mutex<Links>,
    next_link: AtomicU64,
}

/// Connections over which both ends have proved their keys.
#[derive(Default)]
struct Links {
    by_id: BTreeMap<LinkId, Arc<TcpStream>>,
    is_closed: bool,
}

/// Error of a request to a node that is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingError;

impl fmt::Display for StandingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this node is stopping")
    }
}

impl Error for StandingError {}

/// Content of the log: the beginning of the history, and the memory of its records; none if empty.
type Past = Option<(Genesis, Memory)>;

impl Engine {
    /// Starts a node.
    ///
    /// # Errors
    /// Fails if its log cannot be used, its port is taken, or the system has no room.
    pub fn start(options: Options) -> Result<(Self, Recovered), StartError> {
        let (journal, past, recovered) = open(&options)?;
        let listener = options.listen.map(|addr| listen::bind(addr.ip(), addr.port())).transpose();
        let listener = listener.map_err(StartError::Listen)?;
        let addr = listener.as_ref().and_then(|it| it.local_addr().ok());
        let (host, port) = options.at;
        let port = if port == 0 { addr.map_or(0, |it| it.port()) } else { port };
        let key = options.keys.public();
        let me = Participant { node_id: options.me, host, port, key };
        let founding = checked(options.founding, &me)?;
        let joins = match &founding {
            Founding::Join(places) => places.clone(),
            Founding::By(_) => Vec::new(),
        };
        let has_key = options.cluster_keys.is_some();
        let admits = if has_key { Admits::Anybody } else { options.admits };
        let forming = Forming::new(me.clone(), founding, options.initial);
        let asking = Asking::new(admits, joins);
        let strangers_max = options.limits.strangers_max;
        let stage = Stage::new(Phase::Forming(Box::new(forming)), asking, strangers_max);
        let shared = Arc::new(Shared {
            clock: Clock::start(),
            porter: Porter::new(options.limits.silent_max, options.limits.links_max),
            limits: options.limits,
            guests: options.guests,
            counters: Counters::default(),
            me,
            keys_of_mine: options.keys,
            keys: options.cluster_keys,
            rng: Mutex::new(os_rng().map_err(StartError::Files)?),
            inbox: Inbox::default(),
            disk: Arc::default(),
            busy: Mutex::default(),
            told: Mutex::default(),
            addr,
            links: Mutex::default(),
            next_link: AtomicU64::new(1),
        });
        let keeper = Keeper::new(&shared, stage, options.habits, options.sink, options.kill_at);
        let engine = Self { shared };
        match engine.start_threads(keeper, past, journal, listener) {
            Ok(()) => Ok((engine, recovered)),
            Err(error) => {
                engine.stop();
                Err(error)
            }
        }
    }

    fn start_threads(
        &self,
        keeper: Keeper,
        past: Past,
        mut journal: Journal<Entry>,
        listener: Option<TcpListener>,
    ) -> Result<(), StartError> {
        let shared = &self.shared;
        let spawn = |name: &str, work: Box<dyn FnOnce(Arc<Shared>) + Send>| {
            let shared = Arc::clone(shared);
            self.shared.porter.crew.spawn(name, move || work(shared)).map_err(StartError::Threads)
        };
        spawn("roll:disk", Box::new(move |shared| shared.write_log(&mut journal)))?;
        spawn("roll:core", Box::new(move |_| keeper.run(past)))?;
        let listener = listener.map(Arc::new);
        let stopping = shared.porter.open(listener.as_ref());
        let seeking = stopping.clone();
        spawn("roll:seek", Box::new(move |shared| shared.seek(&seeking)))?;
        if let Some(listener) = listener {
            let accept = move |shared: Arc<Shared>| {
                let hosting = Arc::clone(&shared);
                let serve = move |connection| hosting.host(connection, None);
                let full = &shared.counters.refused_full;
                shared.porter.accept("roll", (&listener, &stopping), full, &serve);
            };
            spawn("roll:accept", Box::new(accept))?;
        }
        Ok(())
    }

    /// Returns the address it listens at, if any.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.shared.addr
    }

    /// Returns this node's name, address and key.
    pub fn me(&self) -> &Participant {
        &self.shared.me
    }

    /// Returns a server of connections that another listener accepts, and that speak this dialect.
    pub fn server(&self, dialect: Dialect) -> Arc<dyn Serve> {
        Arc::new(Server(Arc::clone(&self.shared), dialect))
    }

    /// Returns the counters of connections and messages.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Gives an order to the machine and waits for the answer. Every order gets one, except that of
    /// a coordinator whose log of decisions is out of reach. Must not be called by the sink.
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub fn command(&self, command: Command) -> Result<Answer, StandingError> {
        let (tell, told) = bounded(1);
        let pushed = self.shared.inbox.push(Item::Command(command, tell), 0);
        pushed.map_err(|_| StandingError)?;
        told.recv().map_err(|_| StandingError)
    }

    /// Reports a window of traffic that the data plane has measured. False once the node is
    /// stopping.
    pub fn health(&self, snapshot: HealthSnapshot) -> bool {
        self.shared.inbox.push(Item::Input(Input::Health(snapshot)), 0).is_ok()
    }

    /// Reports whether a version has answered; `failure` is the reason if it has not. False once
    /// the node is stopping.
    pub fn probed(&self, model: ModelId, failure: Option<String>) -> bool {
        self.shared.inbox.push(Item::Input(Input::Probed { model, failure }), 0).is_ok()
    }

    /// Reports a decision of the log of decisions (T10). False once the node is stopping.
    pub fn decided(&self, txid: TxId, commit: bool, proof: Option<Box<Committed>>) -> bool {
        let input = Input::Decided { txid, commit, proof };
        self.shared.inbox.push(Item::Input(input), 0).is_ok()
    }

    /// Vouches that this name belongs to this key, by the word of the fleet. False if another key
    /// was vouched for under that name.
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub fn vouch(&self, node: NodeId, key: PublicKey) -> Result<bool, StandingError> {
        let (tell, told) = bounded(1);
        let pushed = self.shared.inbox.push(Item::Vouch(node, key, tell), 0);
        pushed.map_err(|_| StandingError)?;
        told.recv().map_err(|_| StandingError)
    }

    /// Reports the keys of all members whose end the fleet's seeds certify now, in place of those
    /// of the last report. False once the node is stopping.
    pub fn dead(&self, keys: BTreeSet<PublicKey>) -> bool {
        self.shared.inbox.push(Item::Dead(keys), 0).is_ok()
    }

    /// Lets a node in under this name whose key begins with these digits, or with any if there are
    /// none. Returns the keys that match: nothing is done unless there is exactly one.
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub fn admit(&self, node: NodeId, digits: String) -> Result<Vec<PublicKey>, StandingError> {
        let (tell, told) = bounded(1);
        let pushed = self.shared.inbox.push(Item::Admit(node, digits, tell), 0);
        pushed.map_err(|_| StandingError)?;
        told.recv().map_err(|_| StandingError)
    }

    /// Returns the status of the node. Must not be called by the sink.
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub fn standing(&self) -> Result<Standing, StandingError> {
        let (me, clock) = (self.shared.me.node_id.clone(), self.shared.clock);
        let ask = move |stage: &mut Stage| stage.standing(&me, clock.now().mono);
        let mut standing = self.shared.ask(ask).map_err(|_| StandingError)?;
        if let Standing::Running { status, refusals, .. } = &mut standing {
            let told = self.shared.told.lock().expect("nothing under this lock can panic");
            for peer in status.peers.iter().filter(|it| !it.is_linked) {
                let known = status.roster.get(&peer.node_id);
                let why = known.and_then(|it| told.get(&format!("{}:{}", it.host, it.port)));
                refusals.extend(why.map(|why| (peer.node_id.clone(), why.clone())));
            }
        }
        Ok(standing)
    }

    /// Returns the last committed and the last aborted transactions that it keeps, oldest first, at
    /// most `most` of each.
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub fn history(&self, most: usize) -> Result<(Vec<Committed>, Vec<Aborted>), StandingError> {
        let ask = move |stage: &mut Stage| match &stage.phase {
            Phase::Forming(_) => (Vec::new(), Vec::new()),
            Phase::Running { rollout, .. } => {
                let committed = rollout.history();
                let aborted: Vec<_> = rollout.aborted().cloned().collect();
                let last = |len: usize| len.saturating_sub(most);
                (
                    committed[last(committed.len())..].to_vec(),
                    aborted[last(aborted.len())..].to_vec(),
                )
            }
        };
        self.shared.ask(ask).map_err(|_| StandingError)
    }

    /// Stops the node and ends all threads. Must not be called from one of them. A second call does
    /// nothing.
    pub fn stop(&self) {
        let shared = &self.shared;
        shared.porter.shut();
        shared.inbox.close();
        let mut links = shared.links();
        links.is_closed = true;
        let open = std::mem::take(&mut links.by_id);
        drop(links);
        for stream in open.into_values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        shared.porter.lobby.clear();
        let deadline = shared.clock.now().mono.after(CUT_GRACE);
        let left = shared.porter.crew.wait(&shared.clock, deadline);
        if left > 0 {
            log::warn!("{left} threads of a rollout have not ended {CUT_GRACE:?} after its end");
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Participant { node_id, host, port, .. } = &self.shared.me;
        f.debug_struct("Engine").field("node_id", node_id).field("at", &(host, port)).finish()
    }
}

/// Opens the log and reads it, or creates an empty one.
fn open(options: &Options) -> Result<(Journal<Entry>, Past, Recovered), StartError> {
    let path = &options.log;
    let io = |action| {
        move |source| StartError::Log(JournalError::Io { action, path: path.clone(), source })
    };
    if let Some(dir) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        make_dirs(dir, 0o777).map_err(io("create the folder of"))?;
    }
    let (journal, entries, torn) = Journal::<Entry>::open(path).map_err(StartError::Log)?;
    let recovered = Recovered { records: entries.len(), torn };
    let foreign = |reason: String| StartError::Foreign { log: path.clone(), reason };
    let mut entries = entries.into_iter();
    let past = match entries.next() {
        None => None,
        Some(Entry::Record(_)) => return Err(foreign("it does not begin with a beginning".into())),
        Some(Entry::Genesis { node_id, .. }) if node_id != options.me => {
            return Err(foreign(format!("it is the log of {node_id}, not of {}", options.me)));
        }
        Some(Entry::Genesis { genesis, .. }) => {
            let mut memory = Memory::default();
            for entry in entries {
                match entry {
                    Entry::Record(record) => memory.replay(*record),
                    Entry::Genesis { .. } => return Err(foreign("it begins twice".into())),
                }
            }
            Some((genesis, memory))
        }
    };
    Ok((journal, past, recovered))
}

/// Returns the founding with this node among its places, once all are checked but the keys that are
/// not known yet.
fn checked(founding: Founding, me: &Participant) -> Result<Founding, StartError> {
    let Founding::By(mut places) = founding else { return Ok(founding) };
    let Participant { node_id, host, port, key } = me.clone();
    match places.iter_mut().find(|it| it.node_id == node_id) {
        None => places.push(Place { node_id, host, port, key: Some(key) }),
        Some(mine) if mine.key.is_some_and(|it| it != key) => {
            return Err(StartError::Roster("this node's own key is another one than was named"));
        }
        Some(mine) => mine.key = Some(key),
    }
    let mut number = 0_u8;
    // Keys that are not known yet differ; all else is checked now.
    let mut stand_in = || {
        number += 1;
        KeyPair::from_secret([number; 32]).public()
    };
    let participant = |it: &Place| Participant {
        node_id: it.node_id.clone(),
        host: it.host.clone(),
        port: it.port,
        key: it.key.unwrap_or_else(&mut stand_in),
    };
    Roster::new(places.iter().map(participant).collect()).map_err(StartError::Roster)?;
    Ok(Founding::By(places))
}

impl Shared {
    /// Returns a number that no connection has had.
    pub(super) fn number_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns a copy of this node's key pair, for the machine.
    pub(super) fn keys_again(&self) -> KeyPair {
        KeyPair::from_secret(self.keys_of_mine.secret_bytes())
    }

    /// Registers a connection, so that [`Engine::stop`] can cut it; cuts it at once after a stop.
    pub(super) fn enter(&self, link: LinkId, stream: &Arc<TcpStream>) {
        let mut links = self.links();
        if links.is_closed {
            let _ = stream.shutdown(Shutdown::Both);
        }
        links.by_id.insert(link, Arc::clone(stream));
    }

    pub(super) fn leave(&self, link: LinkId) {
        self.links().by_id.remove(&link);
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().expect("nothing under this lock can panic")
    }

    fn write_log(&self, journal: &mut Journal<Entry>) {
        let append = |entries: &[Entry]| {
            for entry in entries {
                journal.append(entry);
            }
            journal.sync()
        };
        // A closed inbox means that the node is stopping.
        let tell = |entries| {
            let _ = self.inbox.push_now(Item::Synced(entries));
        };
        if let Err(error) = self.disk.write(append, tell, || Ok(())) {
            let _ = self.inbox.push_now(Item::Failed(error.to_string()));
        }
    }

    /// Serves an accepted connection from its first byte to its end.
    fn host(&self, connection: Connection, told: Option<Dialect>) {
        let counters = &self.counters;
        let refused = Refused { full: &counters.refused_full, silent: &counters.refused_silent };
        let greet = |connection| self.greet(connection, told);
        self.porter.host(connection, refused, greet, |caller| match caller {
            Caller::Node(ends) => self.converse(*ends),
            Caller::Guest(server, connection) => server.serve(connection),
        });
    }
}

/// Serves connections of another listener, which has found out the dialect.
struct Server(Arc<Shared>, Dialect);

impl Serve for Server {
    fn serve(&self, connection: Connection) {
        let _place = self.0.porter.crew.join();
        self.0.host(connection, Some(self.1));
    }
}
