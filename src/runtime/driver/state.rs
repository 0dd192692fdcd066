//! State behind the driver's one lock: the machine, its deadlines, its links, its outbox.
//!
//! Invariants:
//! - Nothing here blocks: no socket, disk, thread or full queue is waited for. Work that would
//!   block becomes a [`Deferred`], done by the caller after it has released the lock.
//! - A message enters its link's queue in the order in which it was decided.
//! - A link is in the table from just before the machine learns of it until just before the machine
//!   learns of its end.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::options::{ConnectionLimits, EventSink};

use super::Drivable;
use super::counters::DriverCounters;
use super::link::{Enqueued, Frame, Link, QUEUE_FRAMES_MAX};
use super::outbox::Outbox;
use super::queue::FrameSender;
use crate::machine::timer::TimerQueue;
use crate::machine::{DialId, Effect, Effects, Input, LinkId, NodeCall, PingHost};
use crate::model::{Endpoint, Now, Time};
use crate::proto::line::{self, LINE_BYTES_MAX};
use crate::proto::message::Message;

/// The state of a node and of its surroundings.
pub(super) struct State<M: Drivable> {
    pub(super) machine: M,
    pub(super) phase: Phase,
    pub(super) timers: TimerQueue<M::Timer>,
    /// State of the timer thread; see [`Self::needs_timer_thread`].
    pub(super) armed: Armed,
    pub(super) outbox: Outbox<M>,
    /// True if the journal thread waits for work.
    pub(super) disk_is_idle: bool,
    /// True if the journal thread has ended.
    pub(super) disk_is_done: bool,
    /// Number of readers that wait for room in the outbox.
    pub(super) readers_paused: usize,
    links: BTreeMap<LinkId, Entry>,
    links_ever: u64,
    /// Empty between inputs; kept for its memory.
    fx: Effects<M>,
    deferred: Vec<Deferred>,
    events: Box<dyn EventSink<M::Event>>,
    counters: Arc<DriverCounters>,
    limits: ConnectionLimits,
    /// Links that were hung up and have not ended, in that order.
    draining: VecDeque<LinkId>,
}

/// Phase of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The machine takes inputs.
    Running,
    /// The node is stopping: effects already decided still leave, no more are decided.
    Stopping,
    /// The disk has failed: no effect leaves and none is decided.
    Failed,
}

/// State of the timer thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Armed {
    /// The thread will look at the deadlines again by itself.
    Busy,
    /// The thread waits until then.
    Until(Time),
    /// The thread waits until it is woken.
    Forever,
}

struct Entry {
    /// Queue of frames; `None` once the link is to be closed: the writer drains the queue and ends.
    frames: Option<FrameSender>,
    link: Arc<Link>,
}

/// Work to be done without the lock.
pub(super) enum Deferred {
    /// End a link's connection at once.
    Cut(Arc<Link>),
    /// Try to connect.
    Dial { ticket: DialId, to: Endpoint, timeout: Duration },
    /// Ask the system `ping`.
    PingHost(IpAddr),
}

impl<M: Drivable> State<M> {
    pub(super) fn new(
        machine: M,
        events: Box<dyn EventSink<M::Event>>,
        counters: Arc<DriverCounters>,
        limits: ConnectionLimits,
    ) -> Self {
        Self {
            machine,
            phase: Phase::Running,
            timers: TimerQueue::default(),
            armed: Armed::Busy,
            outbox: Outbox::default(),
            disk_is_idle: false,
            disk_is_done: false,
            readers_paused: 0,
            links: BTreeMap::new(),
            links_ever: 0,
            fx: Effects::default(),
            deferred: Vec::new(),
            events,
            counters,
            limits,
            draining: VecDeque::new(),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Gives the machine one input and carries out its effects. Does nothing unless running.
    pub(super) fn step(&mut self, now: Now, input: Input<M>) {
        if !self.is_running() {
            return;
        }
        let mut fx = mem::take(&mut self.fx);
        self.machine.handle(now, input, &mut fx);
        let mut cache = FrameCache::default();
        for effect in fx.drain() {
            match effect {
                Effect::SetTimer { timer, after } => self.timers.set(timer, now.mono.after(after)),
                Effect::StopTimer(timer) => self.timers.stop(&timer),
                Effect::Persist(record) => self.outbox.persist(&record),
                outward @ (Effect::Send { .. }
                | Effect::SendAll { .. }
                | Effect::Dial(NodeCall { .. })
                | Effect::Hangup { .. }
                | Effect::Extra(PingHost { .. })
                | Effect::Emit(_)) => {
                    if let Some(effect) = self.outbox.admit(now, outward) {
                        self.let_out(now, effect, &mut cache);
                    }
                }
            }
        }
        self.fx = fx;
    }

    /// Carries out the effects whose records are on disk.
    pub(super) fn let_out_ready(&mut self) {
        let mut cache = FrameCache::default();
        while let Some((now, effect)) = self.outbox.pop_ready() {
            self.let_out(now, effect, &mut cache);
        }
    }

    fn let_out(&mut self, now: Now, effect: Effect<M>, cache: &mut FrameCache) {
        match effect {
            Effect::Send { link, msg } => self.send(link, msg, cache),
            Effect::SendAll { links, msg } => {
                for link in links {
                    self.send(link, msg.clone(), cache);
                }
            }
            Effect::Hangup { link } => self.hang_up(link, "closed by this node"),
            Effect::Dial(NodeCall { ticket, to, timeout }) => {
                self.deferred.push(Deferred::Dial { ticket, to, timeout });
            }
            Effect::Extra(PingHost { host }) => self.deferred.push(Deferred::PingHost(host)),
            Effect::Emit(event) => {
                if !self.events.take(now, event) {
                    self.counters.events_dropped.add(1);
                }
            }
            Effect::SetTimer { .. } | Effect::StopTimer(_) | Effect::Persist(_) => {
                unreachable!("these are carried out at once and never wait in the outbox")
            }
        }
    }

    /// Takes the work to be done without the lock.
    pub(super) fn take_deferred(&mut self) -> Vec<Deferred> {
        mem::take(&mut self.deferred)
    }

    /// True if the timer thread would miss the earliest deadline unless it is woken.
    ///
    /// A deadline that moved away wakes no thread: the timer thread finds out when the old one
    /// comes.
    pub(super) fn needs_timer_thread(&self) -> bool {
        match (self.armed, self.timers.next()) {
            (Armed::Busy, _) | (_, None) => false,
            (Armed::Until(armed), Some(next)) => next < armed,
            (Armed::Forever, Some(_)) => true,
        }
    }

    /// Adds a link to the table, under a new number, before the machine learns of it.
    pub(super) fn add_link(&mut self, link: Arc<Link>, frames: FrameSender) -> LinkId {
        self.links_ever += 1;
        let id = LinkId(self.links_ever);
        self.links.insert(id, Entry { frames: Some(frames), link });
        id
    }

    /// Removes a link that has ended. Its queued frames may still leave.
    pub(super) fn remove_link(&mut self, id: LinkId) {
        self.links.remove(&id);
        self.draining.retain(|it| *it != id);
    }

    /// True if the machine has not hung up the link.
    pub(super) fn is_open(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|entry| entry.frames.is_some())
    }

    /// Queues a message that depends on no record in the journal.
    pub(super) fn send_unjournaled(&mut self, id: LinkId, msg: Message) {
        self.send(id, msg, &mut FrameCache::default());
    }

    fn send(&mut self, id: LinkId, msg: Message, cache: &mut FrameCache) {
        let Some(entry) = self.links.get_mut(&id) else {
            return;
        };
        let Some(frames) = &entry.frames else { return };
        let frame = cache.frame(msg);
        if frame.len() > LINE_BYTES_MAX {
            log::error!("a message of {} bytes for {id:?} exceeds a line: dropped", frame.len());
            self.counters.oversized.add(1);
            return;
        }
        let len = frame.len();
        let unread = if self.machine.is_trusted(id) { 0 } else { entry.link.charge(len) };
        match entry.link.enqueue(frames, frame) {
            Enqueued::Yes => {
                self.counters.lines_waiting.rise(1);
                self.counters.bytes_waiting.rise(len);
            }
            Enqueued::Full => {
                entry.link.discharge(len);
                self.counters.lines_lost.add(1);
                let reason = format!("it does not read: {QUEUE_FRAMES_MAX} messages are queued");
                entry.link.set_end(reason);
                entry.frames = None;
                self.counters.refused_slow.add(1);
                self.deferred.push(Deferred::Cut(Arc::clone(&entry.link)));
            }
            // The writer has failed and set the reason; the reader is about to report the end.
            Enqueued::WriterGone => {
                entry.link.discharge(len);
                self.counters.lines_lost.add(1);
                entry.frames = None;
            }
        }
        if unread > self.limits.unread_bytes_max {
            self.cut_strangers();
        }
    }

    /// Cuts links for which most bytes of strangers wait, until there is room again.
    fn cut_strangers(&mut self) {
        while let Some(entry) = self.links.values_mut().max_by_key(|it| it.link.unread())
            && entry.link.unread() > 0
        {
            let most = entry.link.unread();
            entry.link.set_end(format!("strangers do not read: most waits for it, {most} bytes"));
            entry.frames = None;
            self.counters.refused_slow.add(1);
            self.deferred.push(Deferred::Cut(Arc::clone(&entry.link)));
            if entry.link.discharge(usize::MAX) <= self.limits.unread_bytes_max {
                return;
            }
        }
    }

    /// Closes a link once its queue has drained.
    pub(super) fn hang_up(&mut self, id: LinkId, reason: &str) {
        if let Some(entry) = self.links.get_mut(&id)
            && entry.frames.take().is_some()
        {
            entry.link.set_end(reason.to_owned());
            self.draining.push_back(id);
        }
        if self.draining.len() > self.limits.draining_max
            && let Some(oldest) = self.draining.pop_front()
            && let Some(entry) = self.links.get(&oldest)
        {
            self.deferred.push(Deferred::Cut(Arc::clone(&entry.link)));
        }
    }

    /// Closes all links once their queues have drained.
    pub(super) fn hang_up_all(&mut self, reason: &str) {
        for entry in self.links.values_mut() {
            entry.frames = None;
            entry.link.set_end(reason.to_owned());
        }
    }

    /// Ends all links at once.
    pub(super) fn cut_all(&mut self) {
        let links = self.links.values().map(|entry| Deferred::Cut(Arc::clone(&entry.link)));
        self.deferred.extend(links);
    }
}

/// The last message encoded. A flood sends one message to many links; it is encoded once.
#[derive(Default)]
struct FrameCache(Option<(Message, Frame)>);

impl FrameCache {
    fn frame(&mut self, msg: Message) -> Frame {
        if let Some((known, frame)) = &self.0
            && *known == msg
        {
            return Arc::clone(frame);
        }
        let frame: Frame = Arc::new(line::encode(&msg));
        self.0 = Some((msg, Arc::clone(&frame)));
        frame
    }
}
