//! One swarm at work: its machine, and the driver of the machine.
//!
//! Invariants:
//! - The machine gets one input at a time, and its effects are carried out in order.
//! - No socket and no disk is touched under the lock: work that would touch them waits in queues,
//!   or is done by the caller of [`SwarmTask::step`] after the lock is free.
//! - The machine learns of a connection before anything from it, and of its end exactly once.
//! - Nothing here decides which peers to serve, what to ask for, or when to stop.

use crate::proto::swarm::{Hash, Message, PeerId, PieceIndex};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::engine::Shared;
use super::handle::ContentPhase;
use super::link::SharedLink;
use super::state::{DeferredWork, State};
use super::store::Store;
use super::stores::{Job, Stores};
use crate::machine::swarm::{
    Event, ExtraInput, Fx, Input, Opening, PeerAddrId, Swarm, SwarmOutcome, SwarmRoster,
    SwarmStatus,
};
use crate::machine::timer::TimerQueue;
use crate::machine::{LinkId, Machine as _};
use crate::model::{Now, Time};
use crate::runtime::driver::options::EventSink;
use crate::runtime::driver::pending::PendingConnections;
use crate::runtime::engine::CUT_GRACE;
use crate::runtime::thread::ThreadGroup;

/// Time for connections to drain when a swarm stops.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Task of the thread that looks after the disk.
pub(super) enum DiskTask {
    /// All pieces are written: finish the content.
    Finish,
    /// A folder's list of files has come: keep it.
    List,
}

/// One swarm, with its machine and threads.
pub(super) struct SwarmTask {
    shared: Arc<Shared>,
    me: PeerId,
    share: Option<Hash>,
    roster: Option<SwarmRoster>,
    store: Store,
    state: Mutex<State>,
    /// Signaled when the earliest deadline came closer, or the swarm stops.
    deadline_moved: Condvar,
    /// Signaled when the phase has changed, or the swarm has ended.
    phase_moved: Condvar,
    /// Dropped when the swarm stops.
    keep: Mutex<Option<Sender<DiskTask>>>,
    pub(super) threads: ThreadGroup,
    pub(super) pending: PendingConnections,
    pub(super) traffic: PieceTraffic,
}

/// Numbers of bytes of pieces that were moved.
#[derive(Debug, Default)]
pub(super) struct PieceTraffic {
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
}

/// Status of a swarm at one moment.
pub(super) struct SwarmView {
    pub(super) phase: ContentPhase,
    pub(super) ended: Option<SwarmOutcome>,
    pub(super) status: SwarmStatus,
    pub(super) peers: usize,
}

/// Parts that a task is made of.
pub(super) struct TaskParts {
    pub(super) me: PeerId,
    pub(super) share: Option<Hash>,
    pub(super) roster: Option<SwarmRoster>,
    pub(super) store: Store,
    pub(super) machine: Swarm,
    pub(super) phase: ContentPhase,
    pub(super) events: Box<dyn EventSink<Event>>,
    pub(super) places: BTreeMap<PeerAddrId, Vec<SocketAddr>>,
    pub(super) keep: Sender<DiskTask>,
}

impl SwarmTask {
    pub(super) fn new(shared: &Arc<Shared>, plan: TaskParts) -> Self {
        let TaskParts { me, share, roster, store, machine, phase, events, places, keep } = plan;
        let state = State {
            machine,
            timers: TimerQueue::default(),
            armed: None,
            links: BTreeMap::new(),
            places,
            events,
            phase,
            ended: None,
            is_open: true,
            effects: Fx::default(),
        };
        Self {
            shared: Arc::clone(shared),
            me,
            share,
            roster,
            store,
            state: Mutex::new(state),
            deadline_moved: Condvar::new(),
            phase_moved: Condvar::new(),
            keep: Mutex::new(Some(keep)),
            threads: ThreadGroup::default(),
            pending: PendingConnections::default(),
            traffic: PieceTraffic::default(),
        }
    }

    pub(super) const fn me(&self) -> PeerId {
        self.me
    }

    /// Identity of the share; `None` in the assignment.
    pub(super) const fn share(&self) -> Option<Hash> {
        self.share
    }

    /// True if a peer is known to belong to the swarm.
    pub(super) fn knows(&self, peer: PeerId) -> bool {
        self.roster.as_ref().is_some_and(|it| it.has(peer))
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn stores(&self) -> &Stores {
        &self.shared.stores
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Gives the machine one input and carries out its effects, but for the pieces to store, which
    /// it returns: the caller may have to wait for the disk.
    #[must_use]
    pub(super) fn step(self: &Arc<Self>, input: Input) -> Vec<Job> {
        let state = self.lock();
        if !state.is_open {
            return Vec::new();
        }
        self.advance(state, input)
    }

    /// As [`Self::step`], and stores the pieces.
    pub(super) fn submit(self: &Arc<Self>, input: Input) {
        let jobs = self.step(input);
        self.shared.stores.store(jobs);
    }

    /// Submits a message of a connection; false if the machine has hung it up.
    pub(super) fn deliver(self: &Arc<Self>, link: LinkId, msg: Message) -> bool {
        let state = self.lock();
        if !state.is_open || !state.links.contains_key(&link) {
            return false;
        }
        let jobs = self.advance(state, Input::Received { link, msg });
        self.shared.stores.store(jobs);
        true
    }

    /// Adds a new connection; false if the swarm is stopping.
    pub(super) fn admit(
        self: &Arc<Self>,
        link: LinkId,
        shared_link: &Arc<SharedLink>,
        peer: PeerId,
        place: Option<PeerAddrId>,
    ) -> bool {
        let mut state = self.lock();
        if !state.is_open {
            return false;
        }
        state.links.insert(link, Arc::clone(shared_link));
        let jobs = self.advance(state, Input::Opened { link, opening: Opening { peer, place } });
        self.shared.stores.store(jobs);
        true
    }

    /// Removes a connection, which has ended.
    pub(super) fn dismiss(self: &Arc<Self>, link: LinkId) {
        let mut state = self.lock();
        state.links.remove(&link);
        if state.is_open {
            let jobs = self.advance(state, Input::closed(link, ""));
            self.shared.stores.store(jobs);
        }
    }

    /// Adds an address at which a peer of the swarm may be.
    pub(super) fn add_place(self: &Arc<Self>, addr: SocketAddr) {
        let mut state = self.lock();
        if state.places.values().flatten().any(|it| *it == addr) {
            return;
        }
        let last = state.places.last_key_value().map_or(0, |(place, _)| place.0);
        let place = PeerAddrId(last.saturating_add(1));
        state.places.insert(place, vec![addr]);
        if state.is_open {
            let jobs = self.advance(state, Input::Extra(ExtraInput::Known(place)));
            self.shared.stores.store(jobs);
        }
    }

    /// Submits the first inputs of a swarm.
    pub(super) fn begin(self: &Arc<Self>) {
        self.submit(Input::Start);
        let places: Vec<_> = self.lock().places.keys().copied().collect();
        for place in places {
            self.submit(Input::Extra(ExtraInput::Known(place)));
        }
    }

    /// Ends the swarm because the files cannot be used any more.
    pub(super) fn fail(self: &Arc<Self>, reason: String) {
        log::debug!("a swarm's files cannot be used: {reason}");
        self.set_phase(ContentPhase::Failed(reason.clone()));
        self.submit(Input::Extra(ExtraInput::DiskFailed(reason)));
    }

    pub(super) fn set_phase(&self, phase: ContentPhase) {
        let mut state = self.lock();
        if !matches!(state.phase, ContentPhase::Failed(_)) {
            state.phase = phase;
        }
        drop(state);
        self.phase_moved.notify_all();
    }

    /// The hash of a piece, if it is known.
    pub(super) fn leaf(&self, index: PieceIndex) -> Option<Hash> {
        self.lock().machine.tree()?.leaf(index)
    }

    /// Status of the swarm.
    pub(super) fn view(&self) -> SwarmView {
        self.lock().view()
    }

    /// Waits until `is_enough` returns true, at a change of the phase, or until `deadline`.
    pub(super) fn wait(&self, deadline: Time, is_enough: impl Fn(&SwarmView) -> bool) -> SwarmView {
        let mut state = self.lock();
        loop {
            let view = state.view();
            let left = deadline.since(self.now().mono);
            if left.is_zero() || is_enough(&view) || !state.is_open {
                return view;
            }
            let waited = self.phase_moved.wait_timeout(state, left);
            state = waited.expect("a handler panicked").0;
        }
    }

    /// Fires deadlines as they come, until the swarm stops.
    pub(super) fn timer_loop(self: &Arc<Self>) {
        let mut state = self.lock();
        while state.is_open {
            let now = self.now();
            if let Some(timer) = state.timers.pop_due(now.mono) {
                let jobs = self.advance(state, Input::Expired(timer));
                self.shared.stores.store(jobs);
                state = self.lock();
                continue;
            }
            state.armed = state.timers.next();
            state = match state.armed {
                None => self.deadline_moved.wait(state).expect("a handler panicked"),
                Some(deadline) => {
                    let left = deadline.since(now.mono);
                    self.deadline_moved.wait_timeout(state, left).expect("a handler panicked").0
                }
            };
        }
    }

    /// Ends the swarm: lets queued messages leave, and ends all its threads.
    pub(super) fn stop(self: &Arc<Self>) {
        self.shared.leave(self);
        let links: Vec<_> = {
            let mut state = self.lock();
            state.is_open = false;
            std::mem::take(&mut state.links).into_values().collect()
        };
        self.keep.lock().expect("nothing under this lock can panic").take();
        self.deadline_moved.notify_all();
        self.phase_moved.notify_all();
        self.pending.shut();
        for link in &links {
            let _ = link.outgoing.drop_pieces();
            link.hang_up("this swarm was stopped");
        }
        let deadline = |grace| self.now().mono.after(grace);
        if self.threads.wait(&self.shared.clock, deadline(STOP_GRACE)) == 0 {
            return;
        }
        links.iter().for_each(|link| link.cut());
        let left = self.threads.wait(&self.shared.clock, deadline(CUT_GRACE));
        if left > 0 {
            log::warn!("{left} threads of a swarm have not ended {CUT_GRACE:?} after its end");
        }
    }

    fn now(&self) -> Now {
        self.shared.clock.now()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a handler panicked")
    }

    fn advance(self: &Arc<Self>, mut state: MutexGuard<'_, State>, input: Input) -> Vec<Job> {
        let mut deferred = DeferredWork::default();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.now();
            let mut effects = std::mem::take(&mut state.effects);
            state.machine.handle(now, input, &mut effects);
            for effect in effects.drain() {
                state.carry_out(now, effect, &mut inputs, &mut deferred, &self.store);
            }
            state.effects = effects;
        }
        let wakes = match (state.timers.next(), state.armed) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if wakes {
            state.armed = state.timers.next();
        }
        drop(state);
        if wakes {
            self.deadline_moved.notify_one();
        }
        self.do_deferred(deferred)
    }

    fn do_deferred(self: &Arc<Self>, deferred: DeferredWork) -> Vec<Job> {
        let DeferredWork { jobs, dials, cuts, keeps, has_new_phase } = deferred;
        for link in cuts {
            link.cut();
        }
        for (place, addrs) in dials {
            self.dial(place, addrs);
        }
        if !keeps.is_empty() {
            let keep = self.keep.lock().expect("nothing under this lock can panic").clone();
            // There is room for all tasks that are ever sent; without its thread the swarm is
            // stopping.
            keeps.into_iter().for_each(|it| {
                let _ = keep.as_ref().map(|keep| keep.try_send(it));
            });
        }
        if has_new_phase {
            self.phase_moved.notify_all();
        }
        let job = |(index, data, from, expected)| {
            let task = Arc::clone(self);
            Job { task, index, data, from, expected }
        };
        jobs.into_iter().map(job).collect()
    }
}

impl fmt::Debug for SwarmTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("me", &self.me).finish_non_exhaustive()
    }
}

impl PieceTraffic {
    pub(super) fn went(&self, bytes: u64) {
        self.up.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn came(&self, bytes: u64) {
        self.down.fetch_add(bytes, Ordering::Relaxed);
    }
}
