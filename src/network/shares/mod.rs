//! Files and folders that spread in a fleet: those of this peer, and those that the others have.
//!
//! A file or folder is offered as long as its [`Share`] lives, and fetched by its ticket from all
//! that have pieces of it:
//!
//! ```
//! use folkmoot::Network;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let (from, to) = (dir.path().join("notes.txt"), dir.path().join("to"));
//! # std::fs::write(&from, "seven")?;
//! let first = Network::builder().start()?;
//! let other = Network::builder().bootstrap([first.endpoint()]).start()?;
//!
//! let offered = first.share(&from).wait()?;
//! let fetched = other.fetch(offered.ticket(), &to).wait()?;
//! fetched.complete().wait()?;
//! assert_eq!(std::fs::read(fetched.path())?, b"seven");
//!
//! // The same without blocking a thread: `.await` in the place of each `.wait()`.
//! # Ok(())
//! # }
//! ```
//!
//! A process that shares catches `SIGXFSZ`, so that a file beyond a limit is an error and not its
//! end.
//!
//! Invariants:
//! - Nothing is served before something is shared or taken here, and no thread runs before that or
//!   before another peer announces something.
//! - A share of this peer is shared again after a restart, as long as its files are still there.
//! - A share that is ordered for all peers is taken only up to the size that the operator allows
//!   for all of them together, into one folder of the peer's own; it gets its name when it was
//!   verified.

mod announce;
mod answers;
mod error;
mod handle;
mod host;
mod kept;
mod local;
mod memory;
mod notice;
mod orders;
mod reports;
mod taken;
mod version;
mod versions;
mod view;
mod waking;

use crate::proto::swarm::Hash;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use crossbeam_channel::Receiver;
use serde::{Deserialize, Serialize};

pub use self::error::ShareError;
pub(in crate::network) use self::handle::Home;
pub use self::handle::Share;
#[doc(hidden)]
pub use self::host::{FetchOptions, HostedShare, ShareHost, WantedContent};
#[doc(hidden)]
pub use self::notice::{NO_MORE, name, notice, read_again};
#[doc(hidden)]
pub use self::view::{ShareCounts, View};
pub use crate::machine::shares::KnownShare;
pub use crate::runtime::swarm::{ContentPhase, SwarmProgress};

use self::host::Key;
use self::kept::ShareRecord;
use self::version::Version;
use self::waking::Waking;
use crate::machine::broadcast;
use crate::machine::shares::{ANNOUNCE_EVERY, Answered, LIST_MAX, Shares, TOPIC};
use crate::machine::swarm::Event;
use crate::model::{Endpoint, Now, Ticket, Time};
use crate::network::error::NetworkError;
use crate::network::message::Published;
use crate::network::pending::Pending;
use crate::network::queue::RecvError;
use crate::network::subscriptions::Subscriptions;
use crate::node::PeerNode;
use crate::node::peer_kind::Event as NodeEvent;
use crate::proto::sealed::ClusterKeys;
use crate::runtime::clock::Clock;
use crate::runtime::driver::Driver;
use crate::runtime::driver::options::{EventSink, RawConnection, ServeConnection};
use crate::runtime::swarm::{SwarmEngine, SwarmOptions};
use crate::runtime::thread::ThreadGroup;

/// Interval at which downloads are looked at, and the lists of others read.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Longest time for the threads of handles to end; each looks up after a piece.
const END_GRACE: Duration = Duration::from_secs(5);

type Node = Arc<Driver<PeerNode>>;

/// Sink that drops events: a running peer has no screen for them.
struct NullSink;

impl EventSink<Event> for NullSink {
    fn take(&self, _: Now, _: Event) -> bool {
        true
    }
}

/// A share that is taken by an order for all peers.
struct TakenShare {
    held: Arc<HostedShare>,
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

/// Answers to orders; and true if there are orders, and this peer stands apart from them all.
type Answers = (Vec<Answered>, bool);

/// Limits of the shares of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Rule for the shares that other peers want everywhere.
    pub taking: Taking,
    /// Bytes a second that are sent, at most.
    pub up: Option<u64>,
    /// Bytes a second that are received, at most.
    pub down: Option<u64>,
}

impl From<Taking> for Bounds {
    fn from(taking: Taking) -> Self {
        Self { taking, up: None, down: None }
    }
}

/// Rule for the shares that other peers want everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// None is taken, and no peer waits for this one.
    Apart,
    /// All are taken as long as they have no more than `bytes` in all; 0 refuses each.
    UpTo {
        /// The limit, in bytes.
        bytes: u64,
        /// Name of the setting, for people.
        setting: &'static str,
    },
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
    kept: BTreeMap<Key, ShareRecord>,
    /// Shares that are taken by orders for all peers.
    taken: BTreeMap<Hash, TakenShare>,
    /// All versions that were taken and are there, also in earlier lives.
    versions: BTreeMap<Hash, Version>,
    /// Orders of this peer to all others, by name.
    ordered: BTreeMap<String, Ordered>,
    /// Shares that could not be taken, so that it is reported once.
    refused: BTreeMap<Key, Refusal>,
    /// Number of the last list that was announced.
    announced: u64,
    /// True if no share is taken by an order, and the other peers are told so.
    is_apart: bool,
    /// Answers that were announced last.
    answered: Answers,
    /// Tickets of programs of this machine, which serve by themselves, by number.
    others: BTreeMap<u64, Ticket>,
    number: u64,
    /// Keys of the shares that were announced last.
    listed: BTreeSet<Key>,
    /// True if other peers were told of a share, and not since that it has ended.
    is_known: bool,
    /// True if the others do not know the list as it is now.
    is_untold: bool,
    is_closed: bool,
}

/// The shares of one peer.
#[doc(hidden)]
pub struct Sharing {
    me: Endpoint,
    /// Folder of the peer's own.
    folder: PathBuf,
    cluster_keys: Option<Arc<ClusterKeys>>,
    bounds: Bounds,
    /// One clock for all lists, whose ages it decides.
    clock: Clock,
    /// The list that is being told, while other nodes do not keep up.
    announcing: Mutex<Option<Telling>>,
    state: Mutex<State>,
    /// The thread of [`Sharing::run`], once it is wanted.
    waking: Waking,
    /// Threads that open and follow the shares of handles.
    threads: ThreadGroup,
    /// Called with the host when it begins.
    on_host: OnceLock<OnHost>,
}

/// Observer of the host's beginning.
type OnHost = Box<dyn Fn(&Arc<ShareHost>) + Send + Sync>;

impl Sharing {
    /// The shares of the peer at `me`, with its own `folder`.
    pub fn new(
        me: Endpoint,
        folder: &Path,
        cluster_keys: Option<Arc<ClusterKeys>>,
        bounds: Bounds,
    ) -> Arc<Self> {
        let state = State { is_apart: bounds.taking == Taking::Apart, ..State::default() };
        Arc::new(Self {
            me,
            folder: folder.to_owned(),
            cluster_keys,
            bounds,
            clock: Clock::start(),
            announcing: Mutex::default(),
            state: Mutex::new(state),
            waking: Waking::default(),
            threads: ThreadGroup::default(),
            on_host: OnceLock::new(),
        })
    }

    /// Calls `observe` with the host when it begins; only the first such wish counts.
    pub fn on_host(&self, observe: impl Fn(&Arc<ShareHost>) + Send + Sync + 'static) {
        // A second observer is dropped, as the contract says.
        let _ = self.on_host.set(Box::new(observe));
    }

    /// Wants the thread when another peer announces something. Neither blocks nor calls the node.
    pub fn on_event(&self, event: &NodeEvent) {
        if let NodeEvent::Broadcast(broadcast::Event::Delivered { message, .. }) = event
            && message.topic == TOPIC
        {
            self.waking.want();
        }
    }

    /// Channel of the messages that [`Sharing::wake`] is to be called.
    pub fn wanted(&self) -> Receiver<()> {
        self.waking.wanted()
    }

    /// Ends all shares and threads. The subscriptions have been closed.
    pub fn end(&self) {
        let host = {
            let mut state = self.lock();
            state.is_closed = true;
            state.host.take()
        };
        if let Some(host) = host {
            host.stop();
        }
        self.waking.end();
        let left = self.threads.wait(&self.clock, self.clock.mono().after(END_GRACE));
        if left > 0 {
            ::log::warn!("{left} threads of shares have not ended after {END_GRACE:?}");
        }
    }

    /// Keeps the announcements of others from now on, and wants the thread if anything is
    /// remembered from an earlier run.
    pub fn listen(&self, subscriptions: &Arc<Subscriptions>) {
        let Ok(queue) = subscriptions.subscribe(TOPIC) else { return };
        let memories = [self.memory(), self.orders_file(), self.versions_file()];
        let remembers = memories.iter().any(|it| it.exists());
        self.waking.keep((queue, remembers));
        if remembers {
            self.waking.want();
        }
    }

    /// Starts the thread of [`Sharing::run`], unless it has been started.
    pub fn wake(self: &Arc<Self>, subscriptions: &Arc<Subscriptions>, node: &Node) {
        if self.lock().is_closed {
            return;
        }
        let (this, subscriptions, node) =
            (Arc::clone(self), Arc::clone(subscriptions), Arc::clone(node));
        self.waking.start(move || this.run(&subscriptions, &node));
    }

    /// Shares of the fleet, as far as is known here, by name.
    pub fn known(&self) -> Vec<KnownShare> {
        let now = self.clock.mono();
        self.lock().known.all(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing under this lock can panic")
    }

    /// Host of the shares of this peer; begins with the first share.
    fn host(&self) -> Result<Arc<ShareHost>, ShareError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(ShareError::Stopped);
        }
        if let Some(host) = &state.host {
            return Ok(Arc::clone(host));
        }
        // Encrypted connections to the peer's own port are links of the fleet, and nothing else.
        let listen = self.cluster_keys.as_ref().map(|_| (self.me.ip(), 0).into());
        let options = SwarmOptions {
            listen,
            up: self.bounds.up,
            down: self.bounds.down,
            cluster_keys: self.cluster_keys.clone(),
            ..SwarmOptions::default()
        };
        let engine = SwarmEngine::start(options)?;
        let at = engine.addr().map_or(self.me, Endpoint::from);
        let host = Arc::new(ShareHost::over(engine, vec![at]));
        state.host = Some(Arc::clone(&host));
        drop(state);
        if let Some(observe) = self.on_host.get() {
            observe(&host);
        }
        Ok(host)
    }

    /// Shares a file or folder from now on.
    fn share(
        &self,
        kept: ShareRecord,
        rehash: bool,
        hashed: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Arc<HostedShare>, ShareError> {
        if self.lock().kept.len() >= LIST_MAX {
            let text = format!("a peer shares at most {LIST_MAX} files and folders: unshare one");
            return Err(ShareError::Failed(text));
        }
        let host = self.host()?;
        let wanted = WantedContent { path: &kept.path, piece: kept.piece, rehash };
        let held = host.share(wanted, hashed, NullSink)?;
        let (id, name) = (held.ticket.share_id(), held.ticket.name.clone());
        let before = kept.ticket.as_ref().and_then(|it| it.parse::<Ticket>().ok());
        if before.is_some_and(|it| it.share_id() != id) {
            host.end_those(|it| it.ticket.share_id() == id && it.ticket.name == name);
            let text = "it was changed since it was shared: share it again";
            return Err(ShareError::Failed(text.to_owned()));
        }
        let ticket = Some(Ticket { at: Vec::new(), ..held.ticket.clone() }.to_string());
        // An earlier share of that path is a version that does not exist any more.
        let older: Vec<_> = {
            let state = self.lock();
            let is_older = |it: &(&Key, &ShareRecord)| it.1.path == kept.path && it.0.0 != id;
            state.kept.iter().filter(is_older).map(|(key, _)| key.clone()).collect()
        };
        let is_older = |it: &HostedShare| {
            older.iter().any(|(id, name)| it.ticket.share_id() == *id && it.ticket.name == *name)
        };
        host.end_those(is_older);
        let mut state = self.lock();
        older.iter().for_each(|key| drop(state.kept.remove(key)));
        match state.kept.entry((id, name)) {
            Entry::Vacant(place) => drop(place.insert(ShareRecord { ticket, ..kept })),
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                let handles = known.handles + kept.handles;
                if !kept.is_passing {
                    *known = ShareRecord { ticket, ..kept };
                } else if kept.everywhere {
                    (known.everywhere, known.order) = (true, kept.order);
                }
                known.handles = handles;
            }
        }
        drop(state);
        Ok(held)
    }

    /// Receives and sends announcements, until the network stops. For a thread of its own.
    pub fn run(&self, subscriptions: &Arc<Subscriptions>, node: &Node) {
        let fresh = || Some((subscriptions.subscribe(TOPIC).ok()?, true));
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
                    is_told = self.announce(subscriptions, node);
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
                Err(RecvError::Empty | RecvError::Missed(_) | RecvError::Missing { .. }) => {}
                Err(RecvError::Closed) => return,
            }
            self.take_pushed(now.mono);
            self.add_places(now.mono);
            let is_changed = self.announce_taken() | self.remove_withdrawn(now.mono);
            let is_answered = self.lock().has_new_answers(now.mono);
            let is_news = is_answered || self.has_first_pieces();
            if self.end_failed() || self.end_unwanted(now.mono) || is_changed || is_news {
                announced = None;
            }
        }
    }

    /// Ends these shares, and tells the other peers.
    fn end_keys(&self, ended: &[Key], (subscriptions, node): (&Arc<Subscriptions>, &Node)) {
        let host = self.lock().host.clone();
        let is_meant = |it: &HostedShare| {
            ended.iter().any(|(id, name)| it.ticket.share_id() == *id && it.ticket.name == *name)
        };
        let _ = host.map(|it| it.end_those(is_meant));
        let mut is_forgotten = false;
        {
            let mut state = self.lock();
            for key in ended {
                let kept = state.kept.remove(key);
                is_forgotten |= kept.as_ref().is_some_and(|it| !it.is_passing);
                let is_shared = kept.is_some();
                // The share is not taken again, though other peers still order it everywhere.
                if !is_shared && state.taken.remove(&key.0).is_some() {
                    let why = "its operator has ended it there".to_owned();
                    state.refuse(key.clone(), Refusal { order: u64::MAX, why });
                }
            }
        }
        if is_forgotten {
            self.remember();
        }
        let _ = self.announce(subscriptions, node);
    }
}

/// Serves the swarm's connections to the peer's port, while it has shares.
impl ServeConnection for Sharing {
    fn serve(&self, connection: RawConnection) {
        let host = self.lock().host.clone();
        // Nothing is shared here: the connection ends.
        let Some(host) = host else { return };
        host.server().serve(connection);
    }
}
