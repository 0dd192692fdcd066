//! Engine of a chat: one member with its port, its log and its threads.
//!
//! Invariants:
//! - After [`Engine::stop`] no thread and no socket is left, and all records handed to the disk are
//!   there.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::keeper::{Item, Keeper};
use super::loader::{self, JOBS_MAX, Job, hand_over};
use super::options::{Allows, Counters, Founds, Limits, Options, StartError};
use super::seek::Place;
use super::store::{self, Log, Opened};
use super::verify::{Answers, VerifyReport};
use crate::machine::LinkId;
use crate::machine::chat::{Command, Group, Input, Memory, Record, Status};
use crate::model::{Endpoint, KeyPair, PublicKey, Rng};
use crate::proto::chat::entry::{Entry, Member, MemberId, SeqNo};
use crate::proto::sealed::ClusterKeys;
use crate::runtime::clock::Clock;
use crate::runtime::disk::Disk;
use crate::runtime::driver::options::{Connection, Serve};
use crate::runtime::files::os_rng;
use crate::runtime::inbox::{Closed, Inbox};
use crate::runtime::listen;
use crate::runtime::porter::{Porter, Refused};

/// Time for threads to end once their sockets are shut.
const CUT_GRACE: Duration = Duration::from_secs(5);

/// Longest wait of a member that leaves for its machine, which bounds itself.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// A running member. Dropping it leaves it running: see [`Self::stop`].
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// State that all threads of an engine share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) allows: Option<Allows>,
    pub(super) counters: Counters,
    pub(super) me: Member,
    pub(super) keys_of_mine: KeyPair,
    pub(super) keys: Option<Arc<ClusterKeys>>,
    pub(super) rng: Mutex<Rng>,
    pub(super) inbox: Inbox<Item>,
    pub(super) disk: Arc<Disk<Record>>,
    pub(super) porter: Porter,
    pub(super) places: Mutex<Vec<Place>>,
    pub(super) verify: Answers,
    addr: Option<SocketAddr>,
    jobs: Mutex<Option<Sender<Job>>>,
    links: Mutex<Links>,
    next_link: AtomicU64,
    /// Number of records that the machine has given out.
    records: AtomicU64,
}

/// Connections over which both ends have proved their keys.
#[derive(Default)]
struct Links {
    by_id: BTreeMap<LinkId, Linked>,
    is_closed: bool,
}

struct Linked {
    stream: Arc<TcpStream>,
    peer: MemberId,
    is_member: bool,
}

impl Engine {
    /// Starts a member.
    ///
    /// # Errors
    /// Fails if the log cannot be used, the port is taken, or the system has no room.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let Options { listen, keys, mut me, log_dir, seeds, config, .. } = options;
        let opened = store::open(&log_dir, me.id, keys.public());
        let mut opened = opened.map_err(StartError::Store)?;
        if let Some(marker) = &options.marker {
            opened.mark(marker, me.id).map_err(StartError::Store)?;
        }
        let Opened { log, found, notes } = opened;
        let listener = listen.map(|addr| listen::bind(addr.ip(), addr.port())).transpose();
        let listener = listener.map_err(StartError::Listen)?;
        let addr = listener.as_ref().and_then(|it| it.local_addr().ok());
        if let (0, Some(addr)) = (me.at.port, addr) {
            me.at.port = addr.port();
        }
        let memory = Memory {
            founds: options.founds == Founds::IfNew,
            group: found.group,
            snapshot: found.snapshot,
            records: found.records,
        };
        let rng = os_rng().map_err(StartError::Files)?;
        let group = Group::new(config, me.clone(), os_rng().map_err(StartError::Files)?, memory);
        let (jobs, jobs_out) = bounded(JOBS_MAX);
        let shared = Arc::new(Shared {
            clock: Clock::start(),
            porter: Porter::new(options.limits.silent_max, options.limits.links_max),
            limits: options.limits,
            allows: options.allows,
            counters: Counters::default(),
            me,
            keys_of_mine: keys,
            keys: options.cluster_keys,
            rng: Mutex::new(rng),
            inbox: Inbox::default(),
            disk: Arc::default(),
            places: Mutex::new(seeds.into_iter().map(|(id, at)| Place::new(id, at)).collect()),
            verify: Answers::default(),
            addr,
            jobs: Mutex::new(Some(jobs.clone())),
            links: Mutex::default(),
            next_link: AtomicU64::new(1),
            records: AtomicU64::new(0),
        });
        for note in notes {
            let _ = shared.inbox.push_now(Item::Note(note));
        }
        let keeper = Keeper::new(&shared, group, options.sink, jobs);
        let engine = Self { shared };
        match engine.start_threads(keeper, log, jobs_out, listener) {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.stop();
                Err(error)
            }
        }
    }

    fn start_threads(
        &self,
        keeper: Keeper,
        mut log: Log,
        jobs: Receiver<Job>,
        listener: Option<TcpListener>,
    ) -> Result<(), StartError> {
        let shared = &self.shared;
        let (mut reader, snapshots) = (log.reader().map_err(StartError::Store)?, log.snapshots());
        let spawn = |name: &str, work: Box<dyn FnOnce(Arc<Shared>) + Send>| {
            let shared = Arc::clone(shared);
            self.shared.porter.crew.spawn(name, move || work(shared)).map_err(StartError::Threads)
        };
        spawn("chat:disk", Box::new(move |shared| shared.write_log(&mut log)))?;
        spawn(
            "chat:loader",
            Box::new(move |shared| {
                let submit = |input| shared.submit(input);
                let fail = |error: store::StoreError| shared.fail(error.to_string());
                loader::run(&jobs, &shared.disk, (&mut reader, &snapshots), submit, fail);
            }),
        )?;
        spawn("chat:core", Box::new(move |_| keeper.run()))?;
        let listener = listener.map(Arc::new);
        let stopping = shared.porter.open(listener.as_ref());
        let seeking = stopping.clone();
        spawn("chat:seek", Box::new(move |shared| shared.seek(&seeking)))?;
        if let Some(listener) = listener {
            let accept = move |shared: Arc<Shared>| {
                let hosting = Arc::clone(&shared);
                let serve = move |connection| hosting.host(connection, false);
                let full = &shared.counters.refused_full;
                shared.porter.accept("chat", (&listener, &stopping), full, &serve);
            };
            spawn("chat:accept", Box::new(accept))?;
        }
        Ok(())
    }

    /// Listen address, if the engine listens.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.shared.addr
    }

    /// This member, as it is announced to others.
    pub fn me(&self) -> &Member {
        &self.shared.me
    }

    /// Server of accepted connections of this dialect that another listener accepts.
    pub fn server(&self) -> Arc<dyn Serve> {
        Arc::new(Server(Arc::clone(&self.shared)))
    }

    /// Counters of refused connections and lines.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Sends a text; it is kept until it is final. False once the member is stopping.
    ///
    /// Waits while the machine has too much to do. Not to be called by the sink.
    pub fn say(&self, room: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> bool {
        let (room, text) = (room.into(), text.into());
        let bytes = text.len();
        let command = Input::Command(Command::Say { room, text });
        self.shared.inbox.push(Item::Input(command), bytes).is_ok()
    }

    /// Removes a member for good. False once the member is stopping.
    pub fn remove(&self, id: MemberId) -> bool {
        self.command(Command::Remove(id))
    }

    /// Lets this member go on alone, as another group (C14); returns its status then.
    ///
    /// # Errors
    /// The reason why it may not, for people.
    pub fn recover(&self) -> Result<Status, &'static str> {
        const STOPPING: &str = "it is stopping";
        self.shared.ask(Group::may_recover).unwrap_or(Err(STOPPING))?;
        let is_asked = self.command(Command::Recover);
        self.status().filter(|_| is_asked).ok_or(STOPPING)
    }

    /// Tells the machine that the seeds have certified the end of this key's holder. False once
    /// stopping.
    pub fn certified(&self, key: PublicKey) -> bool {
        self.command(Command::Certified(key))
    }

    fn command(&self, command: Command) -> bool {
        self.shared.inbox.push(Item::Input(Input::Command(command)), 0).is_ok()
    }

    /// Status of the member; `None` once it is stopping. Not to be called by the sink.
    pub fn status(&self) -> Option<Status> {
        self.shared.ask(Group::status).ok()
    }

    /// Up to `count` final entries from number `from` on, out of the log.
    ///
    /// # Errors
    /// Fails if the member is stopping, too much is being read, or the disk refuses.
    pub fn history(&self, from: SeqNo, count: u64) -> Result<Vec<Arc<Entry>>, String> {
        let stopping = || "this member is stopping".to_owned();
        let commit = self.status().ok_or_else(stopping)?.commit;
        let from = from.max(SeqNo(1));
        let count = count.min((commit.0 + 1).saturating_sub(from.0));
        let (reply, replied) = bounded(1);
        let jobs = self.shared.jobs().map_err(|_| stopping())?;
        let after = self.shared.records();
        if !hand_over(&jobs, Job::Page { from, count, after, reply }) {
            return Err("too much is being read from the log now; try again".to_owned());
        }
        let page = replied.recv().map_err(|_| stopping())?;
        page.map(|it| it.entries).map_err(|error| error.to_string())
    }

    /// Compares the log with those of all linked members (C11).
    ///
    /// # Errors
    /// Fails if the member is stopping or the disk refuses.
    pub fn verify(&self) -> Result<VerifyReport, String> {
        self.shared.compare()
    }

    /// Adds an address at which to look for members.
    pub fn add_place(&self, at: Endpoint) {
        let mut places = self.shared.places.lock().expect("nothing under this lock can panic");
        if !places.iter().any(|place| place.at() == at) {
            places.push(Place::new(None, at));
        }
    }

    /// Hands the leadership over, if this member leads, within a bounded time. The engine is still
    /// to be stopped.
    pub fn leave(&self) {
        let (tell, told) = bounded(1);
        let asked = self.command(Command::Leave)
            && self.shared.inbox.push(Item::AwaitGone(tell), 0).is_ok();
        if asked {
            let _ = told.recv_timeout(LEAVE_PATIENCE);
        }
    }

    /// Ends all threads. Must not be called from one of them. A second call does nothing.
    pub fn stop(&self) {
        let shared = &self.shared;
        shared.porter.shut();
        shared.inbox.close();
        shared.jobs.lock().expect("nothing under this lock can panic").take();
        for link in std::mem::take(&mut shared.close_links().by_id).into_values() {
            let _ = link.stream.shutdown(Shutdown::Both);
        }
        shared.porter.lobby.clear();
        let deadline = shared.clock.now().mono.after(CUT_GRACE);
        let left = shared.porter.crew.wait(&shared.clock, deadline);
        if left > 0 {
            log::warn!("{left} threads of a chat have not ended {CUT_GRACE:?} after its end");
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Member { id, at, .. } = &self.shared.me;
        f.debug_struct("Engine").field("id", id).field("at", at).finish_non_exhaustive()
    }
}

impl Shared {
    /// A new number of a connection.
    pub(super) fn number_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts a record that the machine has given out; returns their number.
    pub(super) fn count_record(&self) -> u64 {
        self.records.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Number of records that the machine had given out when it answered this thread last, or more.
    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Queue of jobs for the loader.
    pub(super) fn jobs(&self) -> Result<Sender<Job>, Closed> {
        self.jobs.lock().expect("nothing under this lock can panic").clone().ok_or(Closed)
    }

    /// Keeps a connection, so that it can be cut; if all have been cut, this one is, too.
    pub(super) fn enter(
        &self,
        link: LinkId,
        stream: &Arc<TcpStream>,
        peer: MemberId,
        is_member: bool,
    ) {
        let mut links = self.links();
        if links.is_closed {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let stream = Arc::clone(stream);
        links.by_id.insert(link, Linked { stream, peer, is_member });
    }

    pub(super) fn leave(&self, link: LinkId) {
        self.links().by_id.remove(&link);
    }

    /// Members at the other ends of open connections.
    pub(super) fn linked_members(&self) -> BTreeSet<MemberId> {
        self.member_links().into_keys().collect()
    }

    /// A connection with each linked member.
    pub(super) fn member_links(&self) -> BTreeMap<MemberId, LinkId> {
        let links = self.links();
        let members = links.by_id.iter().filter(|(_, it)| it.is_member);
        members.map(|(link, it)| (it.peer, *link)).collect()
    }

    fn close_links(&self) -> MutexGuard<'_, Links> {
        let mut links = self.links();
        links.is_closed = true;
        links
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().expect("nothing under this lock can panic")
    }

    fn write_log(&self, log: &mut Log) {
        let tell = |records| self.submit(Input::Synced { records });
        let log = RefCell::new(log);
        let write = |records: &[Record]| log.borrow_mut().write(records);
        let conclude = || log.borrow_mut().conclude();
        if let Err(error) = Arc::clone(&self.disk).write(write, tell, conclude) {
            self.fail(error.to_string());
        }
    }

    /// Reports a failure of the disk to the machine's thread.
    fn fail(&self, reason: String) {
        // If the inbox is closed, no thread is left to tell.
        let _ = self.inbox.push_now(Item::Failed(reason));
    }

    /// Serves an accepted connection from its first byte to its end.
    fn host(self: &Arc<Self>, connection: Connection, is_told: bool) {
        let counters = &self.counters;
        let refused = Refused { full: &counters.refused_full, silent: &counters.refused_silent };
        let greet = |connection| self.greet(connection, is_told);
        self.porter.host(connection, refused, greet, |ends| self.converse(ends));
    }
}

/// Server of connections that another listener accepts, and whose dialect it has detected.
struct Server(Arc<Shared>);

impl Serve for Server {
    fn serve(&self, connection: Connection) {
        let _place = self.0.porter.crew.join();
        self.0.host(connection, true);
    }
}
