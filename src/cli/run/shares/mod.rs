//! Shares of a running peer, and the shares that the fleet's peers are known to have.
//!
//! Invariants:
//! - Nothing is served before something is shared or taken here, and no thread runs before that or
//!   before another peer announces something.
//! - A share of this peer is shared again after a restart, as long as its files are still there.
//! - A share that is ordered for all peers is taken only up to the size that the operator allows
//!   for all of them together, into one folder of the peer's own; it gets its name when it was
//!   verified.

mod answers;
mod orders;
mod reports;
mod taken;
mod tell;
mod version;
mod versions;
mod waking;

use crate::proto::swarm::Hash;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use crossbeam_channel::bounded;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::reports::{BEAT, hashed, lines_of};
use self::version::Version;
use self::waking::Waking;
use crate::cli::CliError;
use crate::cli::share::host::{Held, Key, ShareHost, Wanted};
use crate::machine::shares::{ANNOUNCE_EVERY, Answered, KnownShare, LIST_MAX, Shares, TOPIC};
use crate::machine::swarm::Event;
use crate::model::{Endpoint, Now, Ticket, Time};
use crate::network::{Gone, NetworkError, Pending, Published, Switchboard};
use crate::node::PeerNode;
use crate::proto::sealed::ClusterKeys;
use crate::runtime::clock::Clock;
use crate::runtime::control::{Answer, Next};
use crate::runtime::driver::Driver;
use crate::runtime::driver::options::{Connection, Serve, Sink};
use crate::runtime::files::{replace_file, settle};
use crate::runtime::swarm::{Engine, EngineOptions};
use crate::runtime::thread;

/// Interval at which downloads are looked at, and the lists of others read.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Largest number of waiting reports of hashing; more are of no use.
const REPORTS_MAX: usize = 4;

type Node = Arc<Driver<PeerNode>>;

/// Sink that drops events: a running peer has no screen for them.
struct Quiet;

impl Sink<Event> for Quiet {
    fn take(&self, _: Now, _: Event) -> bool {
        true
    }
}

/// Record of a share over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    piece: Option<u32>,
    #[serde(default)]
    everywhere: bool,
    /// Number of the order to take it everywhere.
    #[serde(default)]
    order: u64,
    /// Ticket of the share, so that nothing else is shared in its place after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
}

/// A share that is taken by an order for all peers.
struct Taken {
    held: Arc<Held>,
    /// True if its end was reported.
    is_told: bool,
    /// Number of the newest order to take it.
    order: u64,
}

/// Reason why a share is not taken, and the order that is refused.
struct Refusal {
    order: u64,
    why: String,
}

/// A list that waits for other nodes.
type Telling = Pending<Result<Published, NetworkError>>;

/// Orders for one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ordered {
    /// Number of the last order.
    last: u64,
    /// Number of the last order whose versions are to be removed, with all before it.
    removed: u64,
}

#[derive(Default)]
struct State {
    host: Option<Arc<ShareHost>>,
    known: Shares,
    kept: BTreeMap<Key, Kept>,
    /// Shares that are taken by orders for all peers.
    taken: BTreeMap<Hash, Taken>,
    /// All versions that were taken and are there, also in earlier lives.
    versions: BTreeMap<Hash, Version>,
    /// Orders of this peer to all others, by name.
    ordered: BTreeMap<String, Ordered>,
    /// Shares that could not be taken, so that it is reported once.
    refused: BTreeMap<Key, Refusal>,
    /// Number of the last list that was announced.
    announced: u64,
    /// Answers that were announced last.
    answered: Vec<Answered>,
    /// Tickets of programs of this machine, which serve by themselves, by number.
    others: BTreeMap<u64, Ticket>,
    number: u64,
    /// True if other peers were told of a share, and not since that it has ended.
    is_known: bool,
    /// True if the others do not know the list as it is now.
    is_untold: bool,
    is_closed: bool,
}

/// The shares of one peer.
pub(in crate::cli) struct Sharing {
    me: Endpoint,
    /// Folder of the peer's own.
    folder: PathBuf,
    cluster_keys: Option<Arc<ClusterKeys>>,
    /// Largest sum of all shares that are taken without being asked for, in bytes; 0 for none.
    push_max: u64,
    /// One clock for all lists, whose ages it decides.
    clock: Clock,
    /// The list that is being told, while other nodes do not keep up.
    telling: Mutex<Option<Telling>>,
    state: Mutex<State>,
    /// The thread of [`Sharing::run`], once it is wanted.
    pub(super) waking: Waking,
}

impl Sharing {
    /// The shares of the peer at `me`, with its own `folder`.
    pub(in crate::cli) fn new(
        me: Endpoint,
        folder: &Path,
        cluster_keys: Option<Arc<ClusterKeys>>,
        push_max: u64,
    ) -> Arc<Self> {
        let (clock, state) = (Clock::start(), Mutex::default());
        let (folder, telling) = (folder.to_owned(), Mutex::default());
        let waking = Waking::default();
        Arc::new(Self { me, folder, cluster_keys, push_max, clock, telling, state, waking })
    }

    /// Keeps the announcements of others from now on, and wants the thread if anything is
    /// remembered from an earlier run.
    pub(super) fn listen(&self, board: &Arc<Switchboard>) {
        let Ok(queue) = board.subscribe(TOPIC) else { return };
        let memories = [self.memory(), self.orders_file(), self.versions_file()];
        let remembers = memories.iter().any(|it| it.exists());
        self.waking.keep((queue, remembers));
        if remembers {
            self.waking.want();
        }
    }

    /// Starts the thread of [`Sharing::run`], unless it has been started.
    pub(super) fn wake(self: &Arc<Self>, board: &Arc<Switchboard>, node: &Node) {
        let (this, board, node) = (Arc::clone(self), Arc::clone(board), Arc::clone(node));
        self.waking.start(move || this.run(&board, &node));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing under this lock can panic")
    }

    /// Host of the shares of this peer; begins with the first share.
    fn host(&self) -> Result<Arc<ShareHost>, CliError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(CliError::Failed("the peer has stopped".to_owned()));
        }
        if let Some(host) = &state.host {
            return Ok(Arc::clone(host));
        }
        // Encrypted connections to the peer's own port are links of the fleet, and nothing else.
        let listen = self.cluster_keys.as_ref().map(|_| (self.me.ip(), 0).into());
        let options = EngineOptions {
            listen,
            cluster_keys: self.cluster_keys.clone(),
            ..EngineOptions::default()
        };
        let engine = Engine::start(options)?;
        let at = engine.addr().map_or(self.me, Endpoint::from);
        let host = Arc::new(ShareHost::over(engine, vec![at]));
        state.host = Some(Arc::clone(&host));
        Ok(host)
    }

    fn memory(&self) -> PathBuf {
        self.folder.join("shares.json")
    }

    fn remember(&self) {
        let kept: Vec<_> = self.lock().kept.values().cloned().collect();
        let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
        if let Err(error) = replace_file(&self.memory(), &text) {
            ::log::warn!("shares are not remembered over a restart: {error}");
        }
    }

    /// Shares a file or folder from now on.
    fn share(
        &self,
        kept: Kept,
        rehash: bool,
        hashed: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Arc<Held>, CliError> {
        if self.lock().kept.len() >= LIST_MAX {
            let text = format!("a peer shares at most {LIST_MAX} files and folders: unshare one");
            return Err(CliError::Failed(text));
        }
        let host = self.host()?;
        let wanted = Wanted { path: &kept.path, piece: kept.piece, rehash };
        let held = host.share(wanted, hashed, Quiet)?;
        let (id, name) = (held.ticket.share_id(), held.ticket.name.clone());
        let before = kept.ticket.as_ref().and_then(|it| it.parse::<Ticket>().ok());
        if before.is_some_and(|it| it.share_id() != id) {
            host.end_those(|it| it.ticket.share_id() == id && it.ticket.name == name);
            let text = "it was changed since it was shared: share it again";
            return Err(CliError::Failed(text.to_owned()));
        }
        let ticket = Some(Ticket { at: Vec::new(), ..held.ticket.clone() }.to_string());
        // An earlier share of that path is a version that does not exist any more.
        let older: Vec<_> = {
            let state = self.lock();
            let is_older = |it: &(&Key, &Kept)| it.1.path == kept.path && it.0.0 != id;
            state.kept.iter().filter(is_older).map(|(key, _)| key.clone()).collect()
        };
        let is_older = |it: &Held| {
            older.iter().any(|(id, name)| it.ticket.share_id() == *id && it.ticket.name == *name)
        };
        host.end_those(is_older);
        let mut state = self.lock();
        older.iter().for_each(|key| drop(state.kept.remove(key)));
        state.kept.insert((id, name), Kept { ticket, ..kept });
        drop(state);
        Ok(held)
    }

    fn read(path: &Path) -> Option<Vec<u8>> {
        let mut file = fs::File::open(path).ok()?;
        let mut text = Vec::new();
        match settle(path, &file).and_then(|()| file.read_to_end(&mut text)) {
            Ok(_) => Some(text),
            Err(error) => {
                ::log::warn!("{} cannot be read, share again: {error}", path.display());
                None
            }
        }
    }

    /// Shares again the shares from before the restart.
    fn share_again(&self) {
        let Some(text) = Self::read(&self.memory()) else { return };
        let kept: Vec<Kept> = match serde_json::from_slice(&text) {
            Ok(kept) => kept,
            Err(error) => {
                let path = self.memory().display().to_string();
                return ::log::warn!("{path} is damaged, share again what it named: {error}");
            }
        };
        for kept in kept {
            let path = kept.path.display().to_string();
            if let Err(error) = self.share(kept, false, &|_, _| true) {
                ::log::warn!("{path} is not shared any more: {error}");
            }
        }
    }

    /// Receives and sends announcements, until the network stops. For a thread of its own.
    pub(super) fn run(&self, board: &Arc<Switchboard>, node: &Node) {
        let fresh = || Some((board.subscribe(TOPIC).ok()?, true));
        let Some((queue, remembers)) = self.waking.take().or_else(fresh) else { return };
        // What is written down since the start is known already.
        if remembers {
            self.read_orders();
            self.read_versions();
            self.share_again();
        }
        let mut announced: Option<Time> = None;
        loop {
            let now = self.clock.now();
            let is_untold = self.lock().is_untold;
            let is_due = announced.is_none_or(|at| now.mono.since(at) >= ANNOUNCE_EVERY);
            if is_due || is_untold {
                let mut is_told = true;
                if is_untold || self.lock().is_known || !self.announcement().is_empty() {
                    is_told = self.announce(board, node);
                }
                announced = is_told.then_some(now.mono);
            }
            match queue.recv_timeout(LOOK_EVERY) {
                Ok(message) => {
                    let heard = {
                        let mut state = self.lock();
                        // Messages are held for newcomers: the time of their making counts.
                        let said = now.mono.before(message.age);
                        state.known.on_announced(said, message.key, &message.data)
                    };
                    if let Err(why) = heard {
                        ::log::debug!("{} announces: {why}", message.origin);
                    }
                }
                Err(Gone::Empty | Gone::Missed(_) | Gone::Missing { .. }) => {}
                Err(Gone::Closed) => break,
            }
            self.take_pushed(now.mono);
            let is_changed = self.tell_taken() | self.remove_withdrawn(now.mono);
            let is_answered = self.lock().has_new_answers(now.mono);
            if self.end_failed() || self.end_unwanted(now.mono) || is_changed || is_answered {
                announced = None;
            }
        }
        let host = {
            let mut state = self.lock();
            state.is_closed = true;
            state.host.take()
        };
        if let Some(host) = host {
            host.stop();
        }
    }

    /// Shares a file or folder; answered by the number of bytes hashed, and then by the ticket.
    pub(super) fn begin(
        self: &Arc<Self>,
        (path, piece, everywhere, rehash): (PathBuf, Option<u32>, bool, bool),
        (board, node): (&Arc<Switchboard>, &Node),
    ) -> Result<Answer, String> {
        let (report, reports) = bounded(REPORTS_MAX);
        let (this, board, node) = (Arc::clone(self), Arc::clone(board), Arc::clone(node));
        let order = if everywhere { self.next_order() } else { 0 };
        let kept = Kept { path, piece, everywhere, order, ticket: None };
        let work = move || {
            let before: BTreeSet<_> = this.lock().kept.keys().cloned().collect();
            let outcome = this.share(kept, rehash, &|done, size| hashed(&report, done, size));
            let key =
                outcome.as_ref().ok().map(|it| (it.ticket.share_id(), it.ticket.name.clone()));
            let line = match outcome {
                Ok(held) => {
                    this.note_order(&held.ticket.name, order);
                    this.remember();
                    let _ = this.announce(&board, &node);
                    json!({ "ticket": held.ticket.to_string(), "left_out": held.left_out })
                }
                Err(error) => json!({ "error": error.to_string() }),
            };
            let is_heard = report.send(line).is_ok();
            // The asking program has gone, as Ctrl-C does: the share it began ends with it.
            if let Some(key) = key.filter(|key| !is_heard && !before.contains(key)) {
                this.end_keys(&[key], (&board, &node));
            }
        };
        thread::spawn("share", work).map_err(|error| error.to_string())?;
        Ok(lines_of(reports))
    }

    /// Ends these shares, and tells the other peers.
    fn end_keys(&self, ended: &[Key], (board, node): (&Arc<Switchboard>, &Node)) {
        let host = self.lock().host.clone();
        let is_meant = |it: &Held| {
            ended.iter().any(|(id, name)| it.ticket.share_id() == *id && it.ticket.name == *name)
        };
        let _ = host.map(|it| it.end_those(is_meant));
        {
            let mut state = self.lock();
            for key in ended {
                let is_shared = state.kept.remove(key).is_some();
                // The share is not taken again, though other peers still order it everywhere.
                if !is_shared && state.taken.remove(&key.0).is_some() {
                    let why = "its operator has ended it there".to_owned();
                    state.refuse(key.clone(), Refusal { order: u64::MAX, why });
                }
            }
        }
        self.remember();
        let _ = self.announce(board, node);
    }

    /// Shares of the fleet, as far as is known here.
    pub(super) fn list(&self) -> Value {
        let now = self.clock.now().mono;
        let mut state = self.lock();
        let here: BTreeMap<_, _> = state.host.as_ref().map(|it| it.views()).unwrap_or_default();
        let object = |it: &KnownShare| {
            json!({
                "name": it.ticket.name, "size": it.ticket.size, "peers": it.peers,
                "everywhere": !it.orders.is_empty(),
                "here": here.get(&(it.ticket.share_id(), it.ticket.name.clone())),
                "is_folder": it.ticket.files.is_some(), "ticket": it.ticket.to_string(),
            })
        };
        state.known.all(now).iter().map(object).collect()
    }

    /// Announces a share that a program of this machine serves by itself, until the answer is
    /// dropped.
    pub(super) fn lend(
        self: &Arc<Self>,
        ticket: Ticket,
        (board, node): (&Arc<Switchboard>, &Node),
    ) -> Answer {
        let id = ticket.share_id();
        let number = {
            let mut state = self.lock();
            state.number += 1;
            let number = state.number;
            state.others.insert(number, ticket);
            number
        };
        let _ = self.announce(board, node);
        let lent = Lent {
            number,
            sharing: Arc::downgrade(self),
            board: Arc::clone(board),
            node: Arc::clone(node),
        };
        let mut told = BTreeSet::new();
        Answer::Lines(Box::new(move || {
            let Some(sharing) = lent.sharing.upgrade() else { return Next::End };
            if sharing.lock().is_closed {
                return Next::End;
            }
            let places = {
                let now = sharing.clock.now().mono;
                sharing.lock().known.places(now, &id)
            };
            let fresh: Vec<_> = places.into_iter().filter(|it| told.insert(*it)).collect();
            if !fresh.is_empty() {
                return Next::Line(json!({ "places": fresh }).to_string());
            }
            // Only the time ends this pause.
            let _ = crossbeam_channel::after(BEAT).recv();
            Next::Idle
        }))
    }
}

/// A share that a program serves by itself, while it does.
struct Lent {
    number: u64,
    sharing: Weak<Sharing>,
    board: Arc<Switchboard>,
    node: Node,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(sharing) = self.sharing.upgrade() else { return };
        sharing.lock().others.remove(&self.number);
        let _ = sharing.announce(&self.board, &self.node);
    }
}

/// Serves the swarm's connections to the peer's port, while it has shares.
impl Serve for Sharing {
    fn serve(&self, connection: Connection) {
        let host = self.lock().host.clone();
        // Nothing is shared here: the connection ends.
        let Some(host) = host else { return };
        host.server().serve(connection);
    }
}
