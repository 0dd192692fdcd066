//! The thread that owns the machine: it takes waiting messages, hands inputs over, and carries out
//! the effects.
//!
//! Invariants:
//! - Only this thread touches the machine, and it waits for nothing but its queue and deadlines.
//! - Messages for one connection leave in the order of their decision. A message for many is
//!   encoded once for each form.
//! - All that piled up is answered together: one write for each connection, one for the disk.
//! - After a failure of the disk no message is sent any more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::link_writer::{LinkWriter, Sent};
use super::service::{MessageOf, Service, TimerOf};
use super::shared::Shared;
use crate::machine::timer::TimerQueue;
use crate::machine::{Effect, Effects, Input, LinkId, Machine as _};
use crate::model::Time;
use crate::proto::sealed::Sealer;
use crate::runtime::driver::options::EventSink;
use crate::runtime::engine::LINGER;

/// Largest number of links that linger after they were hung up; above it the oldest is cut. Each
/// holds a place of the engine's, so those who are hung up on must not fill it.
const LINGERING_MAX: usize = 64;

/// A question to the state of the core thread, answered on that thread.
pub(in crate::runtime) type Query<S> = Box<dyn FnOnce(&mut <S as Service>::State) + Send>;

/// Message to the core thread.
pub(in crate::runtime) enum CoreMsg<S: Service> {
    /// An input of the machine.
    Input(Input<S::Machine>),
    /// Both ends of a connection have proved their keys.
    NewLink(Box<NewLink<S>>),
    /// Number of entries that are on disk.
    Synced(u64),
    /// A question of another thread.
    Query(Query<S>),
    /// A remark for people.
    Note(String),
    /// The disk has failed.
    Failed(String),
    /// A message that only this service has.
    Extra(S::Extra),
}

/// Connection over which both ends have just proved their keys.
pub(in crate::runtime) struct NewLink<S: Service> {
    pub(super) link: LinkId,
    pub(super) writer: Arc<LinkWriter>,
    pub(super) form: S::Form,
    pub(super) sealer: Option<Sealer>,
    /// Counter of the connection's reads.
    pub(super) reads: Arc<AtomicU64>,
    pub(super) peer: S::Peer,
}

/// Sending end of a connection, with the bytes that have not left yet.
struct LinkOut<F> {
    writer: Arc<LinkWriter>,
    form: F,
    sealer: Option<Sealer>,
    bytes: Vec<u8>,
    /// Counter of the connection's reads, and its value when it was last looked at.
    reads: (Arc<AtomicU64>, u64),
}

/// State of the core thread: the machine, its deadlines, links and effects.
pub(in crate::runtime) struct EngineLoop<S: Service> {
    pub(in crate::runtime) shared: Arc<Shared<S>>,
    pub(in crate::runtime) state: S::State,
    /// Entries for the log that were not handed over yet.
    pub(in crate::runtime) entries: Vec<S::Entry>,
    /// Number of entries written in this life before the machine's first record.
    pub(in crate::runtime) preface: u64,
    pub(in crate::runtime) has_failed: bool,
    sink: Box<dyn EventSink<S::Notification>>,
    timers: TimerQueue<TimerOf<S>>,
    outs: BTreeMap<LinkId, LinkOut<S::Form>>,
    /// Links with bytes to send.
    touched: Vec<LinkId>,
    /// Links that were hung up, with the time at which each is cut.
    lingering: VecDeque<(Time, Arc<LinkWriter>)>,
    effects: Effects<S::Machine>,
    buffer: Vec<u8>,
}

impl<S: Service> EngineLoop<S> {
    pub(in crate::runtime) fn new(
        shared: &Arc<Shared<S>>,
        state: S::State,
        sink: Box<dyn EventSink<S::Notification>>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            state,
            entries: Vec::new(),
            preface: 0,
            has_failed: false,
            sink,
            timers: TimerQueue::default(),
            outs: BTreeMap::new(),
            touched: Vec::new(),
            lingering: VecDeque::new(),
            effects: Effects::default(),
            buffer: Vec::new(),
        }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        S::start(&mut self);
        self.flush_all();
        let shared = Arc::clone(&self.shared);
        let mut messages = VecDeque::new();
        while shared.queue.take(&mut messages, self.patience()) {
            for message in messages.drain(..) {
                self.accept(message);
            }
            self.fire();
            S::end_batch(&mut self);
            self.flush_all();
        }
    }

    /// Time until the next deadline or cut; `None` if there is neither.
    fn patience(&self) -> Option<Duration> {
        let cut = self.lingering.front().map(|it| it.0);
        let deadlines = [self.timers.next(), cut, S::deadline(&self.state)];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.since(self.shared.clock.now().mono))
    }

    fn fire(&mut self) {
        let now = self.shared.clock.now().mono;
        while let Some(timer) = self.timers.pop_due(now) {
            S::before_timer(self, &timer);
            self.handle(Input::Expired(timer));
        }
        while self.lingering.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, writer)) = self.lingering.pop_front() {
                writer.cut();
            }
        }
    }

    /// Sends the bytes of all links, and hands the entries to the log.
    fn flush_all(&mut self) {
        for link in std::mem::take(&mut self.touched) {
            self.flush(link);
        }
        self.shared.log.hand_over(&mut self.entries);
    }

    fn accept(&mut self, message: CoreMsg<S>) {
        match message {
            CoreMsg::Input(input) => {
                if let Input::Closed { link, .. } = &input {
                    self.outs.remove(link);
                } else if let Input::Received { link, .. } = &input
                    && !self.outs.contains_key(link)
                {
                    // A link that was hung up is not heard any more.
                    return;
                }
                S::on_input(self, input);
            }
            CoreMsg::NewLink(new) => self.add_link(*new),
            CoreMsg::Synced(entries) => {
                self.handle(Input::Synced { records: entries.saturating_sub(self.preface) });
            }
            CoreMsg::Query(query) => query(&mut self.state),
            CoreMsg::Note(text) => self.notify(S::note(text)),
            CoreMsg::Failed(reason) => self.fail(reason),
            CoreMsg::Extra(extra) => S::on_extra(self, extra),
        }
    }

    fn add_link(&mut self, new: NewLink<S>) {
        let NewLink { link, writer, form, sealer, reads, peer } = new;
        if self.has_failed {
            writer.cut();
        }
        let out = LinkOut { writer, form, sealer, bytes: Vec::new(), reads: (reads, 0) };
        self.outs.insert(link, out);
        S::on_opened(self, link, peer);
    }

    /// Links by which bytes have come since the last call.
    pub(in crate::runtime) fn stirred(&mut self) -> Vec<LinkId> {
        let mut stirred = Vec::new();
        for (link, LinkOut { reads: (reads, seen), .. }) in &mut self.outs {
            let now = reads.load(Ordering::Relaxed);
            if std::mem::replace(seen, now) != now {
                stirred.push(*link);
            }
        }
        stirred
    }

    /// Hands an input over, and carries out its effects.
    pub(in crate::runtime) fn handle(&mut self, input: Input<S::Machine>) {
        if self.has_failed {
            return;
        }
        let Some(machine) = S::machine(&mut self.state) else { return };
        let now = self.shared.clock.now();
        let mut effects = std::mem::take(&mut self.effects);
        machine.handle(now, input, &mut effects);
        for effect in effects.drain() {
            self.carry_out(now.mono, effect);
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, now: Time, effect: Effect<S::Machine>) {
        S::before_effect(self, &effect);
        match effect {
            Effect::Send { link, msg } => self.send(&[link], msg),
            Effect::SendAll { links, msg } => self.send(&links, msg),
            Effect::Persist(record) => S::persist(self, record),
            Effect::Dial(call) => self.shared.dial(call),
            Effect::Hangup { link } => self.hang_up(now, link),
            Effect::SetTimer { timer, after } => self.timers.set(timer, now.after(after)),
            Effect::StopTimer(timer) => self.timers.stop(&timer),
            Effect::Emit(event) => {
                S::before_event(self, &event);
                self.notify(event.into());
            }
            Effect::Extra(effect) => S::carry_out(self, effect),
        }
    }

    /// Closes a link after what is queued on it has left.
    pub(in crate::runtime) fn hang_up(&mut self, now: Time, link: LinkId) {
        self.flush(link);
        if let Some(out) = self.outs.remove(&link) {
            out.writer.close();
            self.lingering.push_back((now.after(LINGER), out.writer));
        }
        if self.lingering.len() > LINGERING_MAX
            && let Some((_, oldest)) = self.lingering.pop_front()
        {
            oldest.cut();
        }
    }

    /// Queues a message on links.
    pub(in crate::runtime) fn send(&mut self, links: &[LinkId], message: MessageOf<S>) {
        if self.has_failed {
            return;
        }
        let said = S::said(&self.shared, message);
        let mut bytes = std::mem::take(&mut self.buffer);
        for form in S::FORMS {
            bytes.clear();
            for link in links {
                let Some(out) = self.outs.get_mut(link).filter(|it| it.form == *form) else {
                    continue;
                };
                if bytes.is_empty() {
                    S::append(*form, &said, &mut bytes);
                }
                if out.bytes.is_empty() {
                    self.touched.push(*link);
                }
                out.bytes.extend_from_slice(&bytes);
                S::after_send(self, *link, &said);
            }
        }
        self.buffer = bytes;
    }

    /// Sends the bytes that wait for a link.
    pub(in crate::runtime) fn flush(&mut self, link: LinkId) {
        let Some(out) = self.outs.get_mut(&link) else { return };
        if out.bytes.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut out.bytes);
        let bytes = match &mut out.sealer {
            Some(sealer) => sealer.seal(&bytes),
            None => bytes,
        };
        match out.writer.send(bytes) {
            Ok(Sent::Taken) => {}
            Ok(Sent::WantsWriter) => {
                let writer = Arc::clone(&out.writer);
                let name = format!("write:{}", link.0);
                if self.shared.acceptor.threads.spawn(name, move || writer.write()).is_err() {
                    out.writer.cut();
                }
            }
            Err(_) => {
                self.shared.counters.cut_full.add(1);
                out.writer.cut();
            }
        }
    }

    /// Stops after a failure of the disk: a message sent now might not be true after a restart.
    pub(in crate::runtime) fn fail(&mut self, reason: String) {
        if std::mem::replace(&mut self.has_failed, true) {
            return;
        }
        for out in self.outs.values() {
            out.writer.cut();
        }
        S::on_failed(&mut self.state);
        self.entries.clear();
        self.notify(S::failed(reason));
    }

    /// Reports something to the sink.
    pub(in crate::runtime) fn notify(&self, notification: S::Notification) {
        if !self.sink.take(self.shared.clock.now(), notification) {
            log::log!(S::LOST, "a report of {} found no room", S::ABOUT);
        }
    }
}

impl<S: Service> Drop for EngineLoop<S> {
    /// Closes the links and the log, so that nothing more is sent or written.
    fn drop(&mut self) {
        for out in self.outs.values() {
            out.writer.close();
        }
        self.shared.log.close();
    }
}
