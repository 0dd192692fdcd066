//! The thread that owns the machine: it hands inputs over to it, and carries out its effects.
//!
//! Invariants:
//! - Only this thread touches the machine, and it waits for nothing but its inbox and deadlines.
//! - What is decided for one connection leaves in that order.
//! - Whatever piled up is answered together: one write for each connection, one for the disk.
//! - After a failure of the disk nothing is said any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::engine::{Entry, Shared};
use super::kill;
use super::options::{Habits, KillPoint, Told};
use super::stage::{Phase, Stage};
use crate::machine::rollout::{
    Answer, Command, Config, Effect, Event, Input, Memory, Rollout, Timer,
};
use crate::machine::timer::TimerQueue;
use crate::machine::{LinkId, Ticket};
use crate::model::{PublicKey, Time};
use crate::proto::rollout::{Cause, Form, Genesis, Message, NodeId, Participant, Said, encode};
use crate::proto::sealed::Sealer;
use crate::runtime::driver::options::Sink;
use crate::runtime::files::os_rng;
use crate::runtime::line::{Line, Sent};

/// Time that a link hung up on has to read the last messages and close.
const LINGER: Duration = Duration::from_secs(2);

/// Pause between two attempts to let a node in; two nodes that try at once abort each other.
const ADMISSION_PAUSE: Duration = Duration::from_millis(700);

/// Question to the machine, answered on its thread.
pub(super) type Question = Box<dyn FnOnce(&mut Stage) + Send>;

/// Item of the inbox of the machine's thread.
pub(super) enum Item {
    /// An input of the machine.
    Input(Input),
    /// Both ends of a connection have proved their keys.
    Arrived(Box<Arrival>),
    /// Number of entries that are on disk.
    Synced(u64),
    /// An order of an operator.
    Command(Command, Sender<Answer>),
    /// A name, and the key that the fleet vouches for.
    Vouch(NodeId, PublicKey, Sender<bool>),
    /// The keys of all members whose end the seeds certify.
    Dead(BTreeSet<PublicKey>),
    /// A node that an operator lets in, and the first digits of its key.
    Admit(NodeId, String, Sender<Vec<PublicKey>>),
    /// A question to the machine.
    Ask(Question),
    /// A remark for people.
    Note(String),
    /// The disk has failed.
    Failed(String),
}

/// Connection over which both ends have just proved their keys.
pub(super) struct Arrival {
    pub(super) link: LinkId,
    pub(super) line: Arc<Line>,
    pub(super) form: Form,
    pub(super) sealer: Option<Sealer>,
    pub(super) other: Participant,
    /// True if the other end called, so that the address in its ENROLL is its own word.
    pub(super) is_caller: bool,
    /// True if the other end asks to be let in.
    pub(super) joins: bool,
    /// Beginning of the other end's history, if it told it.
    pub(super) genesis: Option<Genesis>,
}

/// Sending end of a connection, with the bytes that have not left yet.
struct Out {
    line: Arc<Line>,
    form: Form,
    sealer: Option<Sealer>,
    bytes: Vec<u8>,
}

/// State of the thread: the machine, its timers and its connections.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    stage: Stage,
    habits: Option<Habits>,
    sink: Box<dyn Sink<Told>>,
    kill_at: Option<KillPoint>,
    timers: TimerQueue<Timer>,
    outs: BTreeMap<LinkId, Out>,
    /// Connections with bytes to send.
    touched: Vec<LinkId>,
    entries: Vec<Entry>,
    /// Number of entries written in this life before the machine's first record.
    preface: u64,
    /// Connections hung up on, with the time at which each is cut.
    lingering: VecDeque<(Time, Arc<Line>)>,
    effects: Vec<Effect>,
    waiting: BTreeMap<Ticket, Sender<Answer>>,
    last_ticket: u64,
    /// Order in flight that lets a node in, if any; `admission_at` is the earliest time of the
    /// next.
    admission: Option<Ticket>,
    admission_at: Time,
    has_failed: bool,
}

impl Keeper {
    pub(super) fn new(
        shared: &Arc<Shared>,
        stage: Stage,
        habits: Habits,
        sink: Box<dyn Sink<Told>>,
        kill_at: Option<KillPoint>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            stage,
            habits: Some(habits),
            sink,
            kill_at,
            timers: TimerQueue::default(),
            outs: BTreeMap::new(),
            touched: Vec::new(),
            entries: Vec::new(),
            preface: 0,
            lingering: VecDeque::new(),
            effects: Vec::new(),
            waiting: BTreeMap::new(),
            last_ticket: 0,
            admission: None,
            admission_at: Time::ZERO,
            has_failed: false,
        }
    }

    /// Runs until the inbox is closed and empty. `past` is the content of the log.
    pub(super) fn run(mut self, past: Option<(Genesis, Memory)>) {
        match past {
            Some((genesis, memory)) => self.begin(genesis, memory, false),
            None => self.begin_if_complete(),
        }
        self.round_off();
        let shared = Arc::clone(&self.shared);
        let mut items = VecDeque::new();
        while shared.inbox.take(&mut items, self.patience()) {
            for item in items.drain(..) {
                self.accept(item);
            }
            self.fire();
            self.let_in();
            self.round_off();
        }
    }

    /// Returns the time until the next deadline; none if there is none.
    fn patience(&self) -> Option<Duration> {
        let asked = self.is_asked().then_some(self.admission_at);
        let deadlines = [self.timers.next(), self.lingering.front().map(|it| it.0), asked];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.since(self.shared.clock.now().mono))
    }

    fn fire(&mut self) {
        let now = self.shared.clock.now().mono;
        while let Some(timer) = self.timers.pop_due(now) {
            self.handle(Input::TimerFired(timer));
        }
        while self.lingering.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, line)) = self.lingering.pop_front() {
                line.cut();
            }
        }
    }

    /// Sends the bytes of all connections, and hands the entries to the disk, after a batch of
    /// items.
    fn round_off(&mut self) {
        for link in std::mem::take(&mut self.touched) {
            self.flush(link);
        }
        self.shared.disk.hand_over(&mut self.entries);
    }

    fn accept(&mut self, item: Item) {
        match item {
            Item::Input(input) => self.take(input),
            Item::Arrived(arrival) => self.welcome(*arrival),
            Item::Synced(entries) => {
                self.handle(Input::Synced { records: entries.saturating_sub(self.preface) });
            }
            Item::Command(command, reply) => self.command(command, reply),
            Item::Vouch(node, key, reply) => {
                // The caller may have gone meanwhile.
                let _ = reply.try_send(self.stage.asking.vouch(node, key));
                self.admission_at = Time::ZERO;
            }
            Item::Dead(keys) => {
                self.stage.asking.bury(keys.clone());
                self.handle(Input::Dead { keys });
            }
            Item::Admit(node, digits, reply) => {
                let meant = self.stage.asking.admit(&node, &digits);
                if let [key] = meant[..] {
                    self.make_room(&node, key);
                }
                let _ = reply.try_send(meant);
                self.admission_at = Time::ZERO;
            }
            Item::Ask(question) => question(&mut self.stage),
            Item::Note(text) => self.tell(Told::Note(text)),
            Item::Failed(reason) => self.fail(reason),
        }
    }

    /// Hangs up on the node that holds this name with another key, as an operator wants the name
    /// for this one.
    fn make_room(&mut self, node: &NodeId, key: PublicKey) {
        let Phase::Running { rollout, .. } = &self.stage.phase else { return };
        if let Some((link, _)) = rollout.stranger(node).filter(|it| it.1 != key) {
            let now = self.shared.clock.now().mono;
            self.carry_out(now, Effect::Hangup(link));
            self.handle(Input::Unlinked { link });
        }
    }

    fn take(&mut self, input: Input) {
        match (&mut self.stage.phase, input) {
            (_, Input::Unlinked { link }) => {
                self.outs.remove(&link);
                if let Phase::Forming(forming) = &mut self.stage.phase {
                    forming.left(link);
                }
                self.handle(Input::Unlinked { link });
            }
            // A link that was hung up on is not heard any more.
            (_, Input::Received { link, .. }) if !self.outs.contains_key(&link) => {}
            (Phase::Forming(forming), Input::Received { link, msg }) => forming.hear(link, msg),
            (_, input) => self.handle(input),
        }
    }

    fn welcome(&mut self, arrival: Arrival) {
        let Arrival { link, line, form, sealer, other, is_caller, joins, genesis } = arrival;
        if self.has_failed {
            line.cut();
        }
        self.outs.insert(link, Out { line, form, sealer, bytes: Vec::new() });
        let (node, key) = (other.node_id.clone(), other.key);
        let place = is_caller.then(|| (node.clone(), other.host.clone(), other.port));
        let is_known = match &self.stage.phase {
            Phase::Running { rollout, .. } => rollout.roster().has(&node),
            Phase::Forming(_) => !joins,
        };
        if self.stage.asking.is_wanted(&other) {
            self.make_room(&node, key);
        }
        if !is_known {
            let is_linked = match &self.stage.phase {
                Phase::Running { rollout, .. } => !rollout.is_claimed(&node, key),
                Phase::Forming(_) => true,
            };
            self.stage.asking.came(other, joins, is_linked);
        }
        match &mut self.stage.phase {
            Phase::Running { .. } => {
                self.handle(Input::Linked { link, node, key });
                if let Some((node, host, port)) = place {
                    self.handle(Input::Called { node, host, port });
                }
            }
            Phase::Forming(forming) => {
                if let Some(genesis) = forming.arrived(link, (node, key), genesis) {
                    self.begin(genesis, Memory::default(), true);
                }
            }
        }
    }

    fn begin_if_complete(&mut self) {
        let Phase::Forming(forming) = &self.stage.phase else { return };
        if let Some(genesis) = forming.complete() {
            self.begin(genesis, Memory::default(), true);
        }
    }

    /// Begins a new history, or resumes that of the log.
    fn begin(&mut self, genesis: Genesis, memory: Memory, is_new: bool) {
        let Some(habits) = self.habits.take() else { return };
        let me = self.shared.me.node_id.clone();
        let rng = match os_rng() {
            Ok(rng) => rng,
            Err(error) => return self.fail(error.to_string()),
        };
        let mut config = Config::new(me.clone(), genesis.roster.clone(), genesis.state.clone());
        habits(&mut config);
        if let Phase::Forming(forming) = &self.stage.phase {
            config.places = forming.places();
        }
        let keys = self.shared.keys_again();
        let rollout = Box::new(Rollout::new(config, keys, rng, memory));
        let phase = Phase::Running { rollout, genesis: genesis.clone() };
        let before = std::mem::replace(&mut self.stage.phase, phase);
        let nodes = genesis.roster.nodes().map(|it| it.node_id.clone()).collect();
        if is_new {
            self.tell(Told::Founded(nodes));
            self.preface = 1;
            self.entries.push(Entry::Genesis { node_id: me, genesis });
        }
        self.handle(Input::Start);
        let keys = self.stage.asking.dead.clone();
        self.handle(Input::Dead { keys });
        if let Phase::Forming(forming) = before {
            for (link, node, key) in forming.arrived {
                self.handle(Input::Linked { link, node, key });
            }
            for (link, msg) in forming.early {
                self.handle(Input::Received { link, msg });
            }
        }
    }

    fn command(&mut self, command: Command, reply: Sender<Answer>) {
        if let Phase::Forming(forming) = &self.stage.phase {
            let waits_for = forming.waits_for().join(", ");
            let reason = format!("this node has not begun; it waits for {waits_for}");
            let _ = reply.try_send(Answer::Refused { cause: Cause::Roster, reason, running: None });
            return;
        }
        let ticket = self.ticket();
        self.waiting.insert(ticket, reply);
        self.handle(Input::Command { ticket, command });
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    fn is_asked(&self) -> bool {
        self.admission.is_none() && self.stage.is_asked()
    }

    /// Lets in the next node that is to be let in, one at a time.
    fn let_in(&mut self) {
        let now = self.shared.clock.now().mono;
        if !self.is_asked() || now < self.admission_at {
            return;
        }
        self.admission_at = now.after(ADMISSION_PAUSE);
        let Phase::Running { rollout, .. } = &self.stage.phase else { return };
        if let Some(roster) = self.stage.asking.next(rollout) {
            let ticket = self.ticket();
            self.admission = Some(ticket);
            self.handle(Input::Command { ticket, command: Command::Roster(roster) });
        }
    }

    fn handle(&mut self, input: Input) {
        let Phase::Running { rollout, .. } = &mut self.stage.phase else { return };
        if self.has_failed {
            return;
        }
        let now = self.shared.clock.now();
        let mut effects = std::mem::take(&mut self.effects);
        rollout.handle(now, input, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(now.mono, effect);
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, now: Time, effect: Effect) {
        kill::before(self.kill_at, &self.shared.me.node_id, &effect);
        match effect {
            Effect::Send(links, message) => self.send(&links, message),
            Effect::Persist(record) => self.entries.push(Entry::Record(Box::new(record))),
            Effect::Serve(serving) => self.tell(Told::Serve(serving)),
            Effect::Decide { txid, commit, proof } => {
                self.tell(Told::Decide { txid, commit, proof });
            }
            Effect::Probe(model) => self.tell(Told::Probe(model)),
            Effect::Dial(participant) => self.shared.dial(participant),
            Effect::Hangup(link) => {
                self.flush(link);
                if let Some(out) = self.outs.remove(&link) {
                    out.line.close();
                    self.lingering.push_back((now.after(LINGER), out.line));
                }
            }
            Effect::SetTimer(timer, span) => self.timers.set(timer, now.after(span)),
            Effect::StopTimer(timer) => self.timers.stop(&timer),
            Effect::Emit(event) => {
                if matches!(event, Event::Dropped(..)) {
                    self.shared.counters.dropped.add(1);
                }
                self.tell(Told::Event(event));
            }
            Effect::Answer(ticket, answer) => {
                if self.admission == Some(ticket) {
                    self.admission = None;
                } else if let Some(reply) = self.waiting.remove(&ticket) {
                    // The caller may have gone meanwhile.
                    let _ = reply.try_send(answer);
                }
            }
        }
    }

    fn send(&mut self, links: &[LinkId], message: Message) {
        if self.has_failed {
            return;
        }
        let kill = kill::is_after(self.kill_at, &message);
        let said = Said { sender: self.shared.me.node_id.clone(), message };
        let mut encoded: [Option<Vec<u8>>; 2] = [None, None];
        for link in links {
            let Some(out) = self.outs.get_mut(link) else { continue };
            let form = out.form;
            let bytes = encoded[usize::from(form == Form::Frame)]
                .get_or_insert_with(|| encode(form, &said));
            if out.bytes.is_empty() {
                self.touched.push(*link);
            }
            out.bytes.extend_from_slice(bytes);
            if kill {
                self.flush(*link);
                kill::die();
            }
        }
    }

    /// Sends the bytes that wait for a connection.
    fn flush(&mut self, link: LinkId) {
        let Some(out) = self.outs.get_mut(&link) else { return };
        if out.bytes.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut out.bytes);
        let bytes = match &mut out.sealer {
            Some(sealer) => sealer.seal(&bytes),
            None => bytes,
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

    /// Stops after a failure of the disk: a message sent now might not be true after a restart
    /// (P10).
    fn fail(&mut self, reason: String) {
        if std::mem::replace(&mut self.has_failed, true) {
            return;
        }
        for out in self.outs.values() {
            out.line.cut();
        }
        self.entries.clear();
        self.waiting.clear();
        self.tell(Told::Failed(reason));
    }

    fn tell(&self, told: Told) {
        if !self.sink.take(self.shared.clock.now(), told) {
            log::warn!("something that a rollout told found no room");
        }
    }
}

impl Drop for Keeper {
    /// Closes the connections and the disk, so that nothing more is sent or written.
    fn drop(&mut self) {
        for out in self.outs.values() {
            out.line.close();
        }
        self.shared.disk.close();
    }
}
