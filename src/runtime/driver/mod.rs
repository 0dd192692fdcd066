//! The driver: one node on real sockets, real disks and real threads.
//!
//! Threads: `accept`; per link a reader (`read:PORT`, or `dial:PORT` where this node called) and a
//! writer (`write:PORT`); `timers`; `journal`; short-lived `ping`. All of them block; none polls.
//!
//! Invariants, beside those of the contract in [`crate::machine`]:
//! - One lock guards machine, deadlines, links and outbox; nothing blocks while it is held.
//! - A stopped deadline cannot fire: deadlines and machine share the lock.
//! - An effect that a machine decides after a record leaves the node after the record is on disk.
//! - After [`Driver::stop`] no thread of the driver is left, and its port is free.

mod accept;
pub mod counters;
mod dial;
mod journal_thread;
mod key_check;
mod link;
pub mod options;
mod outbox;
pub(in crate::runtime) mod pending;
mod queue;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::counters::{DriverCounters, Gauge};
use self::key_check::KeyCheck;
use self::options::{ConnectionLimits, DialectServers, DriverOptions};
use self::pending::PendingConnections;
use self::state::{Armed, Deferred, Phase, State};
use super::clock::Clock;
use super::journal::{Journal, JournalError};
use super::ping::{self, PINGS_MAX};
use super::thread::ThreadGroup;
use crate::machine::{HostAnswer, HostPinged, Input, Never, NodeMachine};
use crate::model::Now;
use crate::runtime::engine::CUT_GRACE;
use crate::runtime::engine::acceptor::wake;

/// Bounds of a machine whose threads share it and whose records a journal holds.
pub trait Drivable:
    NodeMachine<
        Timer: Send,
        Record: Send + Serialize + DeserializeOwned,
        Event: Send,
        Command: Send,
    > + Send
    + 'static
{
}

impl<M> Drivable for M where
    M: NodeMachine<
            Timer: Send,
            Record: Send + Serialize + DeserializeOwned,
            Event: Send,
            Command: Send,
        > + Send
        + 'static
{
}

/// A running node.
pub struct Driver<M: Drivable> {
    state: Mutex<State<M>>,
    /// Signaled when the earliest deadline came closer, or the node stops.
    deadline_moved: Condvar,
    /// Signaled when there are records to write, or the node stops.
    disk_wanted: Condvar,
    /// Signaled when the outbox has room again, or the journal thread has ended.
    outbox_moved: Condvar,
    clock: Clock,
    counters: Arc<DriverCounters>,
    limits: ConnectionLimits,
    dialects: DialectServers,
    key_check: KeyCheck,
    threads: ThreadGroup,
    pending: PendingConnections,
    connections: Gauge,
    dials: Gauge,
    /// Bytes that wait for all strangers together.
    unread: Arc<AtomicUsize>,
    pings: Gauge,
    /// Listener and sign to stop; `None` once it is closed.
    listener_handle: Mutex<Option<ListenerHandle>>,
    failure: Sender<JournalError>,
    failed: Receiver<JournalError>,
}

/// The listening socket, and the sender whose drop is the acceptor's sign to stop.
struct ListenerHandle {
    listener: Arc<TcpListener>,
    open: Sender<Never>,
}

impl<M: Drivable> Driver<M> {
    /// Starts a node: submits [`Input::Start`], and only then accepts connections.
    ///
    /// The caller has replayed `journal` into `machine`.
    ///
    /// # Errors
    ///
    /// Fails if the system has no room for the first threads; those that had started are stopped
    /// again.
    pub fn start(
        machine: M,
        listener: TcpListener,
        journal: Journal<M::Record>,
        options: DriverOptions<M::Event>,
    ) -> io::Result<Arc<Self>> {
        let counters = Arc::new(DriverCounters::default());
        let (open, stopping) = bounded(0);
        let (failure, failed) = bounded(1);
        let listener = Arc::new(listener);
        let driver = Arc::new(Self {
            state: Mutex::new(State::new(
                machine,
                options.events,
                Arc::clone(&counters),
                options.limits.clone(),
            )),
            deadline_moved: Condvar::new(),
            disk_wanted: Condvar::new(),
            outbox_moved: Condvar::new(),
            clock: Clock::start(),
            counters,
            limits: options.limits,
            dialects: options.dialects,
            key_check: KeyCheck::new(options.cluster_keys),
            threads: ThreadGroup::default(),
            pending: PendingConnections::default(),
            connections: Gauge::default(),
            dials: Gauge::default(),
            unread: Arc::default(),
            pings: Gauge::default(),
            listener_handle: Mutex::new(Some(ListenerHandle {
                listener: Arc::clone(&listener),
                open,
            })),
            failure,
            failed,
        });
        let started = driver.start_threads(listener, stopping, journal);
        if let Err(err) = started {
            driver.stop(Duration::ZERO);
            return Err(err);
        }
        Ok(driver)
    }

    fn start_threads(
        self: &Arc<Self>,
        listener: Arc<TcpListener>,
        stopping: Receiver<Never>,
        journal: Journal<M::Record>,
    ) -> io::Result<()> {
        let driver = Arc::clone(self);
        self.threads.spawn("journal", move || driver.journal_loop(journal))?;
        self.submit(Input::Start);
        let driver = Arc::clone(self);
        self.threads.spawn("timers", move || driver.timer_loop())?;
        let driver = Arc::clone(self);
        self.threads.spawn("accept", move || driver.accept_loop(&listener, &stopping))
    }

    /// Gives the machine one input and carries out its effects. Callable from any thread; returns
    /// when every effect is carried out or waits for the disk. Without effect once stopping.
    pub fn submit(self: &Arc<Self>, input: Input<M>) {
        self.with(self.lock(), |state, now| state.step(now, input));
    }

    /// Runs `look` on the machine, between two inputs. The node stands still meanwhile: be brief.
    pub fn inspect<R>(&self, look: impl FnOnce(&M, Now) -> R) -> R {
        let state = self.lock();
        look(&state.machine, self.clock.now())
    }

    /// Counters of the driver.
    pub fn counters(&self) -> &DriverCounters {
        &self.counters
    }

    /// Channel of the one message that the disk has failed. The node has then stopped deciding, and
    /// its links are cut; the caller is to [`Self::stop`] it and to exit with a failure.
    pub const fn failed(&self) -> &Receiver<JournalError> {
        &self.failed
    }

    /// Stops the node: accepts and decides no more, syncs the journal, gives writers up to `grace`
    /// to drain, ends all threads. Must not be called from one of them.
    ///
    /// The machine's last messages (a goodbye) must be submitted before. A second call waits for
    /// the same end.
    pub fn stop(self: &Arc<Self>, grace: Duration) {
        let deadline = self.clock.now().mono.after(grace);
        self.with(self.lock(), |state, _| {
            if state.is_running() {
                state.phase = Phase::Stopping;
            }
        });
        self.close_door();
        self.pending.shut();
        let mut state = self.lock();
        while !state.disk_is_done {
            let left = deadline.since(self.clock.now().mono);
            if left.is_zero() {
                break;
            }
            state = self.outbox_moved.wait_timeout(state, left).expect("a handler panicked").0;
        }
        self.with(state, |state, _| state.hang_up_all("this node is stopping"));
        if self.threads.wait(&self.clock, deadline) == 0 {
            return;
        }
        self.with(self.lock(), |state, _| state.cut_all());
        self.pending.clear();
        let deadline = self.clock.now().mono.after(CUT_GRACE);
        let left = self.threads.wait(&self.clock, deadline);
        if left > 0 {
            log::warn!("{left} threads have not ended {CUT_GRACE:?} after their sockets were shut");
        }
    }

    /// Stops accepting, and wakes every thread so that it sees the changed phase.
    fn close_door(&self) {
        let listener_handle =
            self.listener_handle.lock().expect("nothing under this lock can panic").take();
        if let Some(listener_handle) = listener_handle {
            let listener = listener_handle.listener;
            drop(listener_handle.open);
            wake(&listener);
        }
        self.deadline_moved.notify_all();
        self.disk_wanted.notify_all();
        self.outbox_moved.notify_all();
    }

    /// Fires deadlines as they come, until the node stops.
    fn timer_loop(self: &Arc<Self>) {
        loop {
            let state = self.lock();
            if !state.is_running() {
                return;
            }
            self.with(state, |state, now| {
                while let Some(timer) = state.timers.pop_due(now.mono) {
                    state.step(self.clock.now(), Input::Expired(timer));
                }
            });
            self.await_deadline();
        }
    }

    fn await_deadline(&self) {
        let mut state = self.lock();
        if !state.is_running() {
            return;
        }
        state = match state.timers.next() {
            None => {
                state.armed = Armed::Forever;
                self.deadline_moved.wait(state).expect("a handler panicked")
            }
            Some(deadline) => {
                state.armed = Armed::Until(deadline);
                let left = deadline.since(self.clock.now().mono);
                self.deadline_moved.wait_timeout(state, left).expect("a handler panicked").0
            }
        };
        state.armed = Armed::Busy;
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().expect("a handler panicked")
    }

    /// Does `work` under the lock, then without the lock the work that it deferred.
    fn with<R>(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State<M>>,
        work: impl FnOnce(&mut State<M>, Now) -> R,
    ) -> R {
        let result = work(&mut state, self.clock.now());
        let mut deferred = VecDeque::from(self.release(state));
        while let Some(next) = deferred.pop_front() {
            if let Some(answer) = self.carry_out(next) {
                let mut state = self.lock();
                state.step(self.clock.now(), answer);
                deferred.extend(self.release(state));
            }
        }
        result
    }

    /// Releases the lock, wakes the threads that have something to do now, and returns the deferred
    /// work.
    fn release(&self, mut state: MutexGuard<'_, State<M>>) -> Vec<Deferred> {
        let timers = state.needs_timer_thread();
        let disk = state.disk_is_idle && state.outbox.has_lines();
        if disk {
            // One wake-up is enough, and each costs a system call.
            state.disk_is_idle = false;
        }
        let deferred = state.take_deferred();
        drop(state);
        if timers {
            self.deadline_moved.notify_one();
        }
        if disk {
            self.disk_wanted.notify_one();
        }
        deferred
    }

    /// Carries out deferred work, which must not be done under the lock; returns an input for the
    /// machine, if there is one at once.
    fn carry_out(self: &Arc<Self>, deferred: Deferred) -> Option<Input<M>> {
        match deferred {
            Deferred::Cut(link) => {
                link.cut();
                None
            }
            Deferred::Dial { ticket, to, timeout } => self.start_dial(ticket, to, timeout),
            Deferred::PingHost(host) => self.start_ping(host),
        }
    }

    fn start_ping(self: &Arc<Self>, host: IpAddr) -> Option<Input<M>> {
        let no_ping = Input::Extra(HostPinged { host, answer: HostAnswer::NoPing });
        let Some(permit) = self.pings.enter(PINGS_MAX) else {
            return Some(no_ping);
        };
        let driver = Arc::clone(self);
        let spawned = self.threads.spawn("ping", move || {
            let answer = ping::ask(host, &driver.clock);
            drop(permit);
            driver.submit(Input::Extra(HostPinged { host, answer }));
        });
        spawned.is_err().then_some(no_ping)
    }
}
