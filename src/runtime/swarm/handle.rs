//! Part of this process in one swarm: its options, and its progress for the owner.

use crate::proto::swarm::{Hash, PeerId};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rand::SeedableRng as _;

use super::engine::Shared;
use super::store::{Checked, ContentStoreError, Store};
use super::task::{DiskTask, SwarmTask, SwarmView, TaskParts};
use crate::machine::swarm::{
    Bitfield, Config, Event, ExtraInput, FileListState, Input, PeerAddrId, Swarm, SwarmOutcome,
    SwarmRoster, SwarmSetup, SwarmStatus, Tree,
};
use crate::model::{Rng, Time};
use crate::runtime::driver::options::EventSink;
use crate::runtime::files;

/// Longest time before the disk is told to keep written data. After a crash of the machine, the
/// writes of this time are read again.
const SYNC_PAUSE: Duration = Duration::from_secs(5);

/// Span over which rates are averaged, about.
const RATE_SPAN: Duration = Duration::from_secs(3);

/// Kind of a swarm, with its members or tree.
#[derive(Debug)]
pub enum SwarmKind {
    /// The assignment's: all peers are known beforehand.
    Assignment {
        /// Numbers of the other peers.
        roster: SwarmRoster,
        /// Peers to call, with their addresses; of several addresses the first that answers.
        calls: Vec<(PeerId, Vec<SocketAddr>)>,
    },
    /// A share: its content is known by a hash, its peers are not.
    Share {
        /// Identity of the share.
        id: Hash,
        /// The known part of its tree.
        tree: Tree,
        /// List of its files, if it is a folder.
        files: FileListState,
        /// Addresses to call first.
        at: Vec<SocketAddr>,
    },
}

/// Options of a part in a swarm.
pub struct SwarmSpec {
    /// Kind of the swarm.
    pub kind: SwarmKind,
    /// Id of this peer in the swarm.
    pub me: PeerId,
    /// Content of the swarm on disk.
    pub store: Store,
    /// Limits and settings of the machine.
    pub config: Config,
    /// Receiver of events. See [`EventSink`]: it is called under the swarm's lock.
    pub events: Box<dyn EventSink<Event>>,
}

/// Reason why a swarm cannot be joined.
#[derive(Debug)]
pub enum JoinError {
    /// This engine is in that swarm already, or is stopping.
    Taken,
    /// The system gives no threads or no randomness.
    System(io::Error),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("this process takes part in that swarm already"),
            Self::System(err) => write!(f, "cannot start the threads of a swarm: {err}"),
        }
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Taken => None,
            Self::System(err) => Some(err),
        }
    }
}

/// State of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentPhase {
    /// Pieces are missing.
    Fetching,
    /// All pieces are written; the disk is told to keep them.
    Finishing,
    /// The content is on disk, under its own name.
    Stored,
    /// The disk has failed, for this reason.
    Failed(String),
}

/// A swarm at one moment, as its owner sees it.
#[derive(Clone, Debug)]
pub struct SwarmProgress {
    /// State of the content.
    pub phase: ContentPhase,
    /// Outcome of the swarm, if it has ended.
    pub ended: Option<SwarmOutcome>,
    /// Number of all pieces.
    pub pieces: u32,
    /// Number of pieces on disk.
    pub have: u32,
    /// Number of connections.
    pub peers: usize,
    /// Number of bytes of pieces that were sent, in part or whole.
    pub up: u64,
    /// Number of bytes of pieces that were received.
    pub down: u64,
    /// Bytes a second that were sent lately, as seen from one call to the next.
    pub up_rate: f64,
    /// Bytes a second that were received lately.
    pub down_rate: f64,
    /// Status of the machine.
    pub status: SwarmStatus,
}

/// Part of this process in one swarm. Dropping it leaves it running: see [`Self::stop`].
pub struct SwarmHandle {
    task: Arc<SwarmTask>,
    samples: Mutex<VecDeque<(Time, u64, u64)>>,
}

impl SwarmHandle {
    pub(super) fn start(shared: &Arc<Shared>, join: SwarmSpec) -> Result<Self, JoinError> {
        let SwarmSpec { kind, me, store, config, events } = join;
        let pieces = store.pieces();
        let mut have = Bitfield::none(pieces.count());
        for index in store.proven() {
            have.set(*index);
        }
        let is_whole = have.is_full() && !store.wants_list();
        let needs_end = is_whole && store.is_unfinished();
        let (share, roster, tree, files, places) = match kind {
            SwarmKind::Assignment { roster, calls } => {
                let places = calls.into_iter().map(|(peer, addrs)| (PeerAddrId(peer.0), addrs));
                (None, Some(roster), None, FileListState::None, places.collect())
            }
            SwarmKind::Share { id, tree, files, at } => {
                let at = (1..).map(PeerAddrId).zip(at.into_iter().map(|addr| vec![addr]));
                (Some(id), None, Some(tree), files, at.collect::<BTreeMap<_, _>>())
            }
        };
        let known = roster.clone();
        let setup = SwarmSetup { config, me, pieces, have, roster, tree, files };
        let no_entropy = |err: files::FilesError| JoinError::System(io::Error::other(err));
        let rng = Rng::from_rng(&mut files::os_rng().map_err(no_entropy)?);
        let (keep, keeping) = bounded(4);
        if needs_end {
            let _ = keep.try_send(DiskTask::Finish);
        }
        let phase = match (is_whole, needs_end) {
            (true, false) => ContentPhase::Stored,
            (true, true) => ContentPhase::Finishing,
            (false, _) => ContentPhase::Fetching,
        };
        let machine = Swarm::new(setup, rng);
        let plan =
            TaskParts { me, share, roster: known, store, machine, phase, events, places, keep };
        let task = Arc::new(SwarmTask::new(shared, plan));
        let ours = Arc::clone(&task);
        task.threads.spawn("timer:swarm", move || ours.timer_loop()).map_err(JoinError::System)?;
        let ours = Arc::clone(&task);
        let keeper = task.threads.spawn("disk:swarm", move || ours.keep_loop(&keeping));
        if let Err(err) = keeper {
            task.stop();
            return Err(JoinError::System(err));
        }
        task.begin();
        if !shared.enter(&task) {
            task.stop();
            return Err(JoinError::Taken);
        }
        Ok(Self { task, samples: Mutex::default() })
    }

    /// Adds an address at which a peer of the swarm may be.
    pub fn add_place(&self, addr: SocketAddr) {
        self.task.add_place(addr);
    }

    /// Progress of the swarm.
    pub fn progress(&self) -> SwarmProgress {
        self.look(self.task.view())
    }

    /// Waits until `is_enough` returns true, at a change of the phase or the end of the swarm, for
    /// at most `span`; new pieces alone do not end the wait.
    pub fn wait(
        &self,
        span: Duration,
        is_enough: impl Fn(&ContentPhase, Option<&SwarmOutcome>) -> bool,
    ) -> SwarmProgress {
        let deadline = self.task.shared().clock.now().mono.after(span);
        let view = self.task.wait(deadline, |view| is_enough(&view.phase, view.ended.as_ref()));
        self.look(view)
    }

    /// Content of the swarm on disk.
    pub fn store(&self) -> &Store {
        self.task.store()
    }

    /// Leaves the swarm: queued messages are sent, then all connections and threads end. Stored
    /// data stays on disk, and the disk is told to keep it.
    pub fn stop(&self) {
        self.task.stop();
    }

    fn look(&self, view: SwarmView) -> SwarmProgress {
        let SwarmView { phase, ended, status, peers } = view;
        let up = self.task.traffic.up.load(Ordering::Relaxed);
        let down = self.task.traffic.down.load(Ordering::Relaxed);
        let (up_rate, down_rate) = self.rates(up, down);
        SwarmProgress {
            phase,
            ended,
            pieces: status.count,
            have: status.have,
            peers,
            up,
            down,
            up_rate,
            down_rate,
            status,
        }
    }

    fn rates(&self, up: u64, down: u64) -> (f64, f64) {
        let now = self.task.shared().clock.now().mono;
        let mut samples = self.samples.lock().expect("nothing under this lock can panic");
        while samples.get(1).is_some_and(|(at, ..)| now.since(*at) >= RATE_SPAN) {
            samples.pop_front();
        }
        let (at, up_then, down_then) = samples.front().copied().unwrap_or((Time::ZERO, up, down));
        let is_news = samples.back().is_none_or(|(last, ..)| now.since(*last) >= RATE_SPAN / 30);
        if is_news {
            samples.push_back((now, up, down));
        }
        let span = now.since(at).as_secs_f64().max(0.001);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / span;
        (rate(up, up_then), rate(down, down_then))
    }
}

impl fmt::Debug for SwarmHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task.fmt(f)
    }
}

impl SwarmTask {
    /// Looks after the disk until the swarm stops.
    fn keep_loop(self: &Arc<Self>, keeping: &Receiver<DiskTask>) {
        loop {
            let done = match keeping.recv_timeout(SYNC_PAUSE) {
                Ok(DiskTask::Finish) => self.bring_to_end(),
                Ok(DiskTask::List) => self.store().keep_list(),
                Err(RecvTimeoutError::Timeout) => self.store().sync(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Err(err) = done {
                self.fail(err.to_string());
            }
        }
        if let Err(err) = self.store().sync() {
            log::warn!("{err}");
        }
    }

    /// Gives the content its name, or fetches pieces again that other programs have spoiled.
    fn bring_to_end(self: &Arc<Self>) -> Result<(), ContentStoreError> {
        let Checked { read, lost, files } = self.store().finish(&|index| self.leaf(index))?;
        let is_whole = lost.is_empty();
        if !is_whole {
            self.set_phase(ContentPhase::Fetching);
        }
        if read > 0 || !files.is_empty() {
            self.submit(Input::Extra(ExtraInput::ReadAgain { read, lost, files }));
        }
        if is_whole {
            self.set_phase(ContentPhase::Stored);
        } else if self.view().ended.is_some() {
            // No peer is connected any more that could send them.
            let path = self.store().folder().to_owned();
            return Err(ContentStoreError::Disturbed { path });
        }
        Ok(())
    }
}
