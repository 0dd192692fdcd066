//! The thread that owns the machine: takes waiting items, hands them over, and carries out the
//! effects.
//!
//! Invariants:
//! - Only this thread touches the machine, and it waits for nothing but its inbox and deadlines.
//! - Lines for one connection leave in the order of their decision. A message for many is written
//!   once.
//! - All items that piled up are answered together: one write for each connection, one for the
//!   disk.
//! - After a failure of the disk no message is sent any more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::engine::Shared;
use super::loader::{Job, hand_over};
use super::options::Told;
use crate::machine::chat::messages::{Intent, JoinAck, Nack, NackCode};
use crate::machine::chat::{
    Effect, Event, ExtraEffect, ExtraInput, Fx, Group, Input, Member, MemberId, Message, Opening,
    Record, Timer,
};
use crate::machine::timer::TimerQueue;
use crate::machine::{LinkId, Machine as _};
use crate::model::Time;
use crate::proto::chat as proto;
use crate::proto::sealed::Sealer;
use crate::runtime::driver::options::Sink;
use crate::runtime::inbox::Closed;
use crate::runtime::line::{Line, Sent};

/// Time for the other end to read the last lines and close.
const LINGER: Duration = Duration::from_secs(2);

/// Largest number of texts that are told with a refusal, and of characters of each.
const UNFINISHED_MAX: usize = 20;
const UNFINISHED_CHARS: usize = 200;

/// A question to the machine, answered on its thread.
pub(super) type Question = Box<dyn FnOnce(&Group) + Send>;

/// Item that waits for the machine.
pub(super) enum Item {
    /// An input of the machine.
    Input(Input),
    /// Both ends of a connection have proved their keys.
    Arrived(Box<Arrival>),
    /// A connection has sent a line that is no message.
    Garbled { link: LinkId, reason: String },
    /// An answer that the machine has no part in.
    Answer(LinkId, Message),
    /// A question of another thread to the machine.
    Ask(Question),
    /// A thread waits for the end of this member's leaving.
    AwaitGone(Sender<()>),
    /// A note for people.
    Note(String),
    /// Another member has refused this one.
    Refused(String),
    /// The disk has failed.
    Failed(String),
}

/// A new connection.
pub(super) struct Arrival {
    pub(super) link: LinkId,
    pub(super) line: Arc<Line>,
    pub(super) reads: Arc<AtomicU64>,
    pub(super) sealer: Option<Sealer>,
    pub(super) member: Member,
    pub(super) intent: Intent,
    /// Random number of the process at the other end.
    pub(super) life: Option<u64>,
    /// Last message of the called member, if this end called.
    pub(super) ack: Option<JoinAck>,
}

/// Lines for a connection that have not left yet.
struct Out {
    line: Arc<Line>,
    /// Counter of the connection's reads, and its value when it was last looked at.
    reads: (Arc<AtomicU64>, u64),
    sealer: Option<Sealer>,
    lines: Vec<u8>,
}

/// The machine, its deadlines, links and effects.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    group: Group,
    sink: Box<dyn Sink<Told>>,
    jobs: Sender<Job>,
    timers: TimerQueue<Timer>,
    outs: BTreeMap<LinkId, Out>,
    /// Connections with lines to be sent.
    touched: Vec<LinkId>,
    records: Vec<Record>,
    handed_over: u64,
    /// Connections that are hung up, and the times when they are cut.
    lingering: VecDeque<(Time, Arc<Line>)>,
    effects: Fx,
    line: Vec<u8>,
    has_failed: bool,
    is_gone: bool,
    waiting: Vec<Sender<()>>,
    /// Reason of this member's refusal, as last reported.
    refused: Option<String>,
}

impl Keeper {
    pub(super) fn new(
        shared: &Arc<Shared>,
        group: Group,
        sink: Box<dyn Sink<Told>>,
        jobs: Sender<Job>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            group,
            sink,
            jobs,
            timers: TimerQueue::default(),
            outs: BTreeMap::new(),
            touched: Vec::new(),
            records: Vec::new(),
            handed_over: 0,
            lingering: VecDeque::new(),
            effects: Fx::default(),
            line: Vec::new(),
            has_failed: false,
            is_gone: false,
            waiting: Vec::new(),
            refused: None,
        }
    }

    /// Runs until the inbox is closed and empty.
    pub(super) fn run(mut self) {
        self.handle(Input::Start);
        self.round_off();
        let shared = Arc::clone(&self.shared);
        let mut items = VecDeque::new();
        while shared.inbox.take(&mut items, self.patience()) {
            for item in items.drain(..) {
                self.accept(item);
            }
            self.fire();
            self.round_off();
        }
    }

    /// Time until the next deadline or cut; `None` if there is neither.
    fn patience(&self) -> Option<Duration> {
        let deadlines = [self.timers.next(), self.lingering.front().map(|it| it.0)];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.since(self.shared.clock.now().mono))
    }

    fn fire(&mut self) {
        let now = self.shared.clock.now().mono;
        while let Some(timer) = self.timers.pop_due(now) {
            if timer == Timer::Pulse {
                self.tell_signs_of_life();
            }
            self.handle(Input::Expired(timer));
        }
        while self.lingering.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, line)) = self.lingering.pop_front() {
                line.cut();
            }
        }
    }

    /// Reports connections that have read as alive: a long message on a slow way is a sign of life
    /// before it is whole.
    fn tell_signs_of_life(&mut self) {
        let mut alive = Vec::new();
        for (link, Out { reads: (reads, seen), .. }) in &mut self.outs {
            let now = reads.load(Ordering::Relaxed);
            if std::mem::replace(seen, now) != now {
                alive.push(*link);
            }
        }
        for link in alive {
            self.handle(Input::Extra(ExtraInput::Stirred { link }));
        }
    }

    /// Ends a batch of items: all that waited were handed over.
    fn round_off(&mut self) {
        self.handle(Input::Extra(ExtraInput::Idle));
        for link in std::mem::take(&mut self.touched) {
            self.flush(link);
        }
        self.shared.disk.hand_over(&mut self.records);
    }

    fn accept(&mut self, item: Item) {
        match item {
            Item::Input(input) => match &input {
                Input::Closed { link, .. } => {
                    self.outs.remove(link);
                    self.handle(input);
                }
                // A connection that was hung up is not listened to any more.
                Input::Received { link, .. } if !self.outs.contains_key(link) => {}
                Input::Start
                | Input::Opened { .. }
                | Input::DialFailed(_)
                | Input::Received { .. }
                | Input::Garbled { .. }
                | Input::Synced { .. }
                | Input::Expired(_)
                | Input::Command(_)
                | Input::Extra(_) => self.handle(input),
            },
            Item::Arrived(arrival) => self.welcome(*arrival),
            Item::Garbled { link, reason } => {
                let refusal = self.refusal(NackCode::Malformed, reason);
                self.send(&[link], &Message::Nack(refusal));
            }
            Item::Answer(link, message) => self.send(&[link], &message),
            Item::Ask(question) => question(&self.group),
            Item::AwaitGone(tell) if self.is_gone || self.has_failed => {
                let _ = tell.try_send(());
            }
            Item::AwaitGone(tell) => self.waiting.push(tell),
            Item::Note(text) => self.tell(Told::Note(text)),
            Item::Refused(reason) => self.refused(reason),
            Item::Failed(reason) => self.fail(reason),
        }
    }

    fn welcome(&mut self, arrival: Arrival) {
        let Arrival { link, line, reads, sealer, member, intent, life, ack } = arrival;
        if self.has_failed {
            line.cut();
        }
        let is_ours = ack.is_some();
        self.outs.insert(link, Out { line, reads: (reads, 0), sealer, lines: Vec::new() });
        self.handle(Input::Opened { link, opening: Opening { member, intent, is_ours, life } });
        if let Some(ack) = ack {
            self.handle(Input::Received { link, msg: Message::JoinAck(ack) });
        }
    }

    /// Reports a refusal; one that does not change is reported once.
    fn refused(&mut self, mut reason: String) {
        let texts = self.group.unfinished().take(UNFINISHED_MAX);
        let cut = |it: &Arc<str>| it.chars().take(UNFINISHED_CHARS).collect();
        let texts: Vec<String> = texts.map(cut).collect();
        if !texts.is_empty() {
            let texts = texts.join("\", \"");
            reason = format!("{reason}; typed here and not final: \"{texts}\"");
        }
        if self.refused.as_ref() != Some(&reason) {
            self.refused = Some(reason.clone());
            self.tell(Told::Event(Event::Refused { reason }));
        }
    }

    fn refusal(&self, code: NackCode, reason: String) -> Nack {
        let (sender_id, term) = (self.shared.me.id, self.group.term());
        Nack { sender_id, term, code, leader_id: None, msg_id: None, reason }
    }

    fn handle(&mut self, input: Input) {
        if self.has_failed {
            return;
        }
        let now = self.shared.clock.now();
        let mut effects = std::mem::take(&mut self.effects);
        self.group.handle(now, input, &mut effects);
        for effect in effects.drain() {
            self.carry_out(now.mono, effect);
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, now: Time, effect: Effect) {
        match effect {
            Effect::Send { link, msg } => self.send(&[link], &msg),
            Effect::SendAll { links, msg } => self.send(&links, &msg),
            Effect::Persist(record) => {
                self.records.push(record);
                self.handed_over = self.shared.count_record();
            }
            Effect::Extra(ExtraEffect::Load { link, from, bytes_max }) => {
                let after = self.handed_over;
                // If there is no room the member asks again.
                hand_over(&self.jobs, Job::Load { link, from, bytes_max, after });
            }
            Effect::Dial(member) => self.shared.dial(&member),
            Effect::Hangup { link } => {
                self.flush(link);
                if let Some(out) = self.outs.remove(&link) {
                    out.line.close();
                    self.lingering.push_back((now.after(LINGER), out.line));
                }
            }
            Effect::Extra(ExtraEffect::Deliver(entries)) => self.tell(Told::Delivered(entries)),
            Effect::Extra(ExtraEffect::Snapshot(snapshot)) => {
                let after = self.handed_over;
                hand_over(&self.jobs, Job::Keep { snapshot, after });
            }
            Effect::SetTimer { timer, after: span } => self.timers.set(timer, now.after(span)),
            Effect::StopTimer(timer) => self.timers.stop(&timer),
            Effect::Emit(event) => {
                if event == Event::Gone {
                    self.is_gone = true;
                    for tell in self.waiting.drain(..) {
                        let _ = tell.try_send(());
                    }
                }
                self.tell(Told::Event(event));
            }
        }
    }

    fn send(&mut self, links: &[LinkId], message: &Message) {
        if self.has_failed {
            return;
        }
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        for link in links {
            let Some(out) = self.outs.get_mut(link) else { continue };
            if line.is_empty() {
                proto::append(message, &mut line);
                debug_assert!(line.len() <= proto::LINE_BYTES_MAX, "a line that nobody reads");
            }
            if out.lines.is_empty() {
                self.touched.push(*link);
            }
            out.lines.extend_from_slice(&line);
        }
        self.line = line;
    }

    /// Sends the lines that were decided for a connection.
    fn flush(&mut self, link: LinkId) {
        let Some(out) = self.outs.get_mut(&link) else { return };
        if out.lines.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut out.lines);
        let bytes = match &mut out.sealer {
            Some(sealer) => sealer.seal(&lines),
            None => lines,
        };
        match out.line.send(bytes) {
            Ok(Sent::Taken) => {}
            Ok(Sent::WantsWriter) => {
                let line = Arc::clone(&out.line);
                let name = format!("write:{}", link.0);
                if self.shared.porter.crew.spawn(name, move || line.write()).is_err() {
                    out.line.cut();
                }
            }
            Err(_) => {
                self.shared.counters.cut_full.add(1);
                out.line.cut();
            }
        }
    }

    /// Stops after a failure of the disk: any further message might not be true after a restart.
    fn fail(&mut self, reason: String) {
        if std::mem::replace(&mut self.has_failed, true) {
            return;
        }
        for out in self.outs.values() {
            out.line.cut();
        }
        for tell in self.waiting.drain(..) {
            let _ = tell.try_send(());
        }
        self.records.clear();
        self.tell(Told::Failed(reason));
    }

    fn tell(&self, told: Told) {
        if !self.sink.take(self.shared.clock.now(), told) {
            log::debug!("something a group told found no room");
        }
    }
}

impl Drop for Keeper {
    /// Closes the disk and all connections.
    fn drop(&mut self) {
        for out in self.outs.values() {
            out.line.close();
        }
        self.shared.disk.close();
    }
}

impl Shared {
    /// Asks the machine something, on its thread, and waits for the answer.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Group) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        let (tell, told) = crossbeam_channel::bounded(1);
        let ask: Question = Box::new(move |group| {
            // The asking thread may have gone meanwhile.
            let _ = tell.send(question(group));
        });
        self.inbox.push(Item::Ask(ask), 0)?;
        told.recv().map_err(|_| Closed)
    }

    /// Submits an input that a thread of the engine found out.
    pub(super) fn submit(&self, input: Input) {
        // If the inbox is closed, no thread is left to tell.
        let _ = self.inbox.push_now(Item::Input(input));
    }

    /// Reports that a call of the machine's failed.
    pub(super) fn dial_failed(&self, member: MemberId) {
        self.submit(Input::DialFailed(member));
    }
}
