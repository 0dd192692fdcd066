//! A chat's member as the simulator runs it: the machine, its calls and handshakes, its log, and
//! programs that send by it.

#![allow(clippy::wildcard_enum_match_arm, reason = "a wrapper picks a few words of many")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::machine::chat::{
    self, ChatMemory, Config, Event, ExtraEffect, ExtraInput, Fx, Opening, Replica, Role, Rule,
    Snapshot, apply_typed,
};
use folkmoot::machine::{
    CallFailure, DialId, Effect, Effects, HostPinged, Input, LinkId, Machine, NodeOpening,
};
use folkmoot::model::{Endpoint, Now, Rng};
use folkmoot::proto::chat::entry::{ChatText, Entry, GroupId, Member, MsgId, Origin, SeqNo, Term};
use folkmoot::proto::chat::message::{ChatReq, Consent, JoinAck, JoinIntent, Message, VerifyResp};
use folkmoot::sim::Simulated;
use rand::{RngExt as _, SeedableRng as _};

use super::{CALL_TIMEOUT, HANDSHAKE_TIMEOUT, Ledger, Pending, micros};

/// The words on a link: the handshake, in which keys are believed, and then the chat's messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Join { caller: Member, group: Option<GroupId>, life: u64 },
    Welcome { called: Member, ack: JoinAck },
    Refused,
    Chat(Message),
}

/// A record on the disk of a member.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Group(chat::Record),
    Snapshot(Box<Snapshot>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Group(chat::Timer),
    /// A thread of the driver has done the work of this number.
    Done(u64),
    /// A handshake takes too long.
    Handshake(LinkId),
    /// All inputs that were waiting have been handled.
    Idle,
    /// The member looks for others.
    Seek,
}

/// A request to the process.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Group(chat::Command),
    /// The program of this number sends the message of this number, under this client number.
    Client {
        program: usize,
        client: u64,
        number: u64,
    },
}

/// Report to the checkers, in the order of the events.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// A process begins, and believes its log to be final up to this commit.
    Started { commit: SeqNo },
    /// The log ends before what was noted away from it: the process does not begin.
    Rewound,
    /// An entry was delivered, after this one.
    Delivered { before: SeqNo, entry: Arc<Entry> },
    /// The group's event.
    Group(Event),
    /// A program was told that its message is final.
    Acknowledged { program: usize, id: MsgId },
    /// A branch was taken that only some runs come to; by its name.
    Count(&'static str),
}

/// State of one member, beside its disk, that outlives its processes.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) config: Config,
    pub(crate) bootstrap: bool,
    /// The member as its operator configured it.
    pub(crate) me: Arc<Mutex<Member>>,
    /// Other members, with the addresses at which they may be.
    pub(crate) book: Arc<Mutex<Vec<Member>>>,
    /// True if the member syncs its log when it opens it, as it must.
    pub(crate) syncs_at_open: bool,
    /// Number of records on disk, as last noted away from them.
    pub(crate) noted: Arc<AtomicUsize>,
}

#[derive(Clone, Debug)]
struct Call {
    to: Member,
    /// True if the machine asked for the call.
    is_asked: bool,
}

#[derive(Clone, Debug)]
enum Link {
    /// The other end has called, and says nothing yet.
    Accepted,
    /// This end has called, and waits for the answer.
    Greeted(Call),
    Open,
    /// The machine has hung up; nothing passes until it is told of the end.
    HungUp,
}

/// Log that a member's records add up to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: usize,
    pub(crate) entries: Vec<Arc<Entry>>,
    typed: Vec<ChatText>,
}

impl Log {
    pub(crate) fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut log = Self::default();
        for record in records {
            if let Record::Group(record) = record {
                log.put(record);
            }
        }
        log
    }

    fn put(&mut self, record: &chat::Record) {
        self.records += 1;
        if let chat::Record::Entry(entry) = record {
            assert_eq!(entry.seq_no.0, self.entries.len() as u64 + 1, "records have no gap");
            self.entries.push(Arc::clone(entry));
        } else if let chat::Record::Cut { from } = record {
            self.entries.truncate(usize::try_from(from.0 - 1).expect("a short log"));
        }
        apply_typed(&mut self.typed, record.clone());
    }

    /// Texts that were typed, as the disk has them.
    pub(crate) fn typed(&self) -> &[ChatText] {
        &self.typed
    }

    /// Entries that answer an `ExtraEffect::Load`, and the term before them.
    fn load(&self, from: SeqNo, count: usize) -> (Term, Vec<Arc<Entry>>) {
        let at = usize::try_from(from.0 - 1).expect("a short log");
        let before = at.checked_sub(1).and_then(|it| self.entries.get(it));
        let prev_term = before.map_or(Term(0), |it| it.term);
        (prev_term, self.entries.iter().skip(at).take(count).cloned().collect())
    }
}

/// Memory that a restart finds: all of it, or no more than is certain.
fn memory(records: &[Record], bootstrap: bool, rng: &mut Rng) -> ChatMemory {
    let mut snapshot = None;
    let mut group = None;
    for record in records {
        match record {
            Record::Snapshot(it) => snapshot = Some((**it).clone()),
            Record::Group(chat::Record::Group { group: it, .. }) => group = Some(*it),
            Record::Group(_) => {}
        }
    }
    let from = snapshot.as_ref().map_or(SeqNo(0), |it| it.seq_no);
    let all = rng.random_bool(0.5);
    let is_kept = |it: &&chat::Record| match it {
        chat::Record::Entry(entry) => all || entry.seq_no > from,
        _ => true,
    };
    let own = records.iter().filter_map(|it| match it {
        Record::Group(record) => Some(record),
        Record::Snapshot(_) => None,
    });
    ChatMemory { bootstrap, group, snapshot, records: own.filter(is_kept).cloned().collect() }
}

/// A process that is a member of a chat.
#[derive(Debug)]
pub(crate) struct ChatHost {
    /// The machine; `None` if it did not begin, or has ended.
    group: Option<Replica>,
    me: Member,
    book: Arc<Mutex<Vec<Member>>>,
    bootstrap: bool,
    log: Log,
    /// All records of the member, for a log that is written anew.
    kept: Vec<Record>,
    /// Number of records when the process began.
    before: usize,
    noted: Arc<AtomicUsize>,
    is_rewound: bool,
    ledger: Ledger<bool>,
    delivered: SeqNo,
    calls: BTreeMap<DialId, Call>,
    tickets: u64,
    links: BTreeMap<LinkId, Link>,
    /// Links of programs, which are not the network's.
    programs: BTreeMap<LinkId, usize>,
    pending: Pending<chat::Input>,
    is_idle_due: bool,
    rng: Rng,
}

impl ChatHost {
    pub(crate) fn new(desk: &Desk, records: &[Record], seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let me = desk.me.lock().expect("one thread runs a world").clone();
        let log = Log::of(records);
        let before = log.records;
        let noted = desk.noted.load(Ordering::Relaxed);
        let is_rewound = before < noted && desk.config.without != Some(Rule::Rewound);
        if desk.syncs_at_open {
            desk.noted.fetch_max(before, Ordering::Relaxed);
        }
        let memory = memory(records, desk.bootstrap, &mut rng);
        let machine_rng = Rng::seed_from_u64(rng.random());
        let group = (!is_rewound)
            .then(|| Replica::new(desk.config.clone(), me.clone(), machine_rng, memory));
        Self {
            delivered: group.as_ref().map_or(SeqNo(0), |it| it.status().commit),
            group,
            me,
            book: Arc::clone(&desk.book),
            bootstrap: desk.bootstrap,
            log,
            kept: records.to_vec(),
            before,
            noted: Arc::clone(&desk.noted),
            is_rewound,
            ledger: Ledger::default(),
            calls: BTreeMap::new(),
            tickets: 0,
            links: BTreeMap::new(),
            programs: BTreeMap::new(),
            pending: Pending::default(),
            is_idle_due: false,
            rng,
        }
    }

    /// The machine, while the process takes part.
    pub(crate) const fn group(&self) -> Option<&Replica> {
        self.group.as_ref()
    }

    pub(crate) const fn log(&self) -> &Log {
        &self.log
    }

    /// The place of a member.
    pub(crate) const fn endpoint(member: &Member) -> Endpoint {
        Endpoint::new(member.at.host, member.at.port)
    }

    fn dial(&mut self, call: Call, fx: &mut Effects<Self>) {
        self.tickets += 1;
        let ticket = DialId(self.tickets);
        fx.dial(ticket, Self::endpoint(&call.to), CALL_TIMEOUT);
        self.calls.insert(ticket, call);
    }

    fn on_call_failed(&mut self, now: Now, call: &Call, fx: &mut Effects<Self>) {
        if call.is_asked {
            self.hand(now, Input::DialFailed(call.to.id), fx);
        }
    }

    /// Hands one input over, and then `Idle` at once or a little later.
    fn hand(&mut self, now: Now, input: chat::Input, fx: &mut Effects<Self>) {
        if let Input::Received { link, msg: Message::VerifyReq(ask) } = &input {
            // The driver's own business.
            let (sender_id, question) = (self.me.id, ask.question);
            let (commit, hashes) = (SeqNo(0), Vec::new());
            let answer = VerifyResp { sender_id, question, commit, hashes };
            return self.send(*link, Message::VerifyResp(answer), fx);
        }
        self.step(now, input, fx);
        if self.rng.random_bool(0.75) {
            self.step(now, Input::Extra(ExtraInput::Idle), fx);
        } else if !self.is_idle_due {
            self.is_idle_due = true;
            fx.set_timer(Timer::Idle, micros(&mut self.rng, 0..2_000));
        }
    }

    fn step(&mut self, now: Now, input: chat::Input, fx: &mut Effects<Self>) {
        let Some(group) = &mut self.group else { return };
        let mut part = Fx::default();
        group.handle(now, input, &mut part);
        for effect in part {
            self.carry_out(effect, fx);
        }
    }

    fn send(&mut self, link: LinkId, msg: Message, fx: &mut Effects<Self>) {
        if let Some(program) = self.programs.get(&link).copied() {
            if let Message::ChatAck(ack) = &msg {
                fx.emit(Told::Acknowledged { program, id: ack.msg_id });
            }
            return;
        }
        if matches!(self.links.get(&link), Some(Link::Open)) {
            fx.send(link, Word::Chat(msg));
        }
    }

    fn carry_out(&mut self, effect: chat::Effect, fx: &mut Effects<Self>) {
        match effect {
            Effect::Send { link, msg } => {
                count_message(&msg, fx);
                self.send(link, msg, fx);
            }
            Effect::SendAll { links, msg } => {
                count_message(&msg, fx);
                for link in links {
                    self.send(link, msg.clone(), fx);
                }
            }
            Effect::Persist(record) => {
                if matches!(record, chat::Record::Cut { .. }) {
                    fx.emit(Told::Count("cut of a tail"));
                }
                self.log.put(&record);
                self.write(true, Record::Group(record), fx);
            }
            Effect::Extra(ExtraEffect::Load { link, from, bytes_max: _ }) => {
                fx.emit(Told::Count("load"));
                let count = self.rng.random_range(1..=8);
                let (prev_term, entries) = self.log.load(from, count);
                let loaded = ExtraInput::Loaded { link, prev_term, entries };
                let name = self.pending.keep(Input::Extra(loaded));
                fx.set_timer(Timer::Done(name), micros(&mut self.rng, 100..20_000));
            }
            Effect::Extra(ExtraEffect::Deliver(entries)) => {
                for entry in entries {
                    let before = std::mem::replace(&mut self.delivered, entry.seq_no);
                    fx.emit(Told::Delivered { before, entry });
                }
            }
            Effect::Extra(ExtraEffect::Snapshot(it)) => {
                fx.emit(Told::Count("snapshot"));
                self.write(false, Record::Snapshot(it), fx);
            }
            Effect::Dial(to) => self.dial(Call { to, is_asked: true }, fx),
            Effect::Hangup { link } => {
                if self.programs.remove(&link).is_none()
                    && let Some(state) = self.links.get_mut(&link)
                {
                    *state = Link::HungUp;
                    fx.hangup(link);
                }
            }
            Effect::SetTimer { timer, after } => fx.set_timer(Timer::Group(timer), after),
            Effect::StopTimer(timer) => fx.stop_timer(Timer::Group(timer)),
            Effect::Emit(event) => {
                let ends = match &event {
                    Event::Gone => true,
                    Event::Refused { reason } => ends_process(reason),
                    _ => false,
                };
                fx.emit(Told::Group(event));
                if ends {
                    self.end(fx);
                }
            }
        }
    }

    fn write(&mut self, is_own: bool, record: Record, fx: &mut Effects<Self>) {
        self.ledger.write(is_own);
        self.kept.push(record.clone());
        fx.persist(record);
    }

    /// The process ends, as far as it is a member of a chat.
    fn end(&mut self, fx: &mut Effects<Self>) {
        self.group = None;
        self.programs.clear();
        for (link, state) in &mut self.links {
            *state = Link::HungUp;
            fx.hangup(*link);
        }
    }

    fn on_word(&mut self, now: Now, link: LinkId, word: Word, fx: &mut Effects<Self>) {
        match (self.links.get(&link).cloned(), word) {
            (Some(Link::Open), Word::Chat(msg)) => {
                self.hand(now, Input::Received { link, msg }, fx);
            }
            (Some(Link::Accepted), Word::Join { caller, group, life }) => {
                fx.stop_timer(Timer::Handshake(link));
                let known = self.group.as_ref();
                let ack = known.filter(|it| it.admits(&caller, group).is_ok());
                let Some(ack) = ack.and_then(Replica::introduction) else {
                    fx.send(link, Word::Refused);
                    return self.hang_up(link, fx);
                };
                fx.send(link, Word::Welcome { called: self.me.clone(), ack });
                self.links.insert(link, Link::Open);
                let life = Some(life);
                let opening =
                    Opening { member: caller, intent: JoinIntent::Member, is_ours: false, life };
                self.hand(now, Input::Opened { link, opening }, fx);
            }
            (Some(Link::Greeted(call)), Word::Welcome { called, ack }) => {
                fx.stop_timer(Timer::Handshake(link));
                let is_it =
                    called.id == call.to.id && (!call.is_asked || called.key == call.to.key);
                if !is_it || self.group.is_none() {
                    self.hang_up(link, fx);
                    return self.on_call_failed(now, &call, fx);
                }
                fx.emit(Told::Count("connection"));
                self.links.insert(link, Link::Open);
                let (intent, life) = (JoinIntent::Member, ack.life);
                let opening = Opening { member: called, intent, is_ours: true, life };
                self.hand(now, Input::Opened { link, opening }, fx);
                if self.links.contains_key(&link) {
                    self.hand(now, Input::Received { link, msg: Message::JoinAck(ack) }, fx);
                }
            }
            (Some(Link::Greeted(call)), _) => {
                fx.stop_timer(Timer::Handshake(link));
                self.hang_up(link, fx);
                self.on_call_failed(now, &call, fx);
            }
            (Some(Link::Accepted | Link::Open | Link::HungUp) | None, _) => {}
        }
    }

    /// Hangs up a link that the machine does not know.
    fn hang_up(&mut self, link: LinkId, fx: &mut Effects<Self>) {
        self.links.remove(&link);
        fx.hangup(link);
    }

    /// Calls a known member, if this one is joining, or by chance if it knows no leader.
    fn seek(&mut self, fx: &mut Effects<Self>) {
        let Some(group) = &self.group else { return };
        let status = group.status();
        let is_joining = status.role == Role::Joining;
        let is_lost = is_joining || status.leader.is_none() && self.rng.random_bool(0.3);
        if is_lost && !(self.bootstrap && is_joining) {
            let book = self.book.lock().expect("one thread runs a world").clone();
            let to = book[self.rng.random_range(0..book.len())].clone();
            if to.id != self.me.id {
                self.dial(Call { to, is_asked: false }, fx);
            }
        }
        fx.set_timer(Timer::Seek, micros(&mut self.rng, 300_000..1_000_000));
    }

    fn on_program(
        &mut self,
        now: Now,
        (program, client, number): (usize, u64, u64),
        fx: &mut Effects<Self>,
    ) {
        let link = LinkId(u64::MAX - program as u64);
        let id = self.me.id;
        if self.programs.insert(link, program).is_none() {
            let (intent, life) = (JoinIntent::Client, None);
            let opening = Opening { member: self.me.clone(), intent, is_ours: false, life };
            self.hand(now, Input::Opened { link, opening }, fx);
        }
        let origin = Origin { member: id, client };
        let chat = ChatText {
            msg_id: MsgId { origin, number },
            room_id: "general".into(),
            payload: program_text(program, number).into(),
        };
        let msg = Message::Chat(ChatReq { sender_id: id, chat });
        self.hand(now, Input::Received { link, msg }, fx);
    }

    fn on_synced(&mut self, now: Now, records: u64, fx: &mut Effects<Self>) {
        for (is_own, records) in self.ledger.sync(records) {
            if is_own {
                let count = self.before + usize::try_from(records).expect("a short log");
                self.noted.fetch_max(count, Ordering::Relaxed);
                self.hand(now, Input::Synced { records }, fx);
            }
        }
    }
}

/// Text that a program sends under a number.
pub(crate) fn program_text(program: usize, number: u64) -> String {
    format!("client {program} number {number}")
}

/// Returns true if a refusal ends the process.
pub(crate) fn ends_process(reason: &str) -> bool {
    reason.contains("another process") || reason.contains("must not vote again")
}

/// Counts messages that only some runs come to.
fn count_message(msg: &Message, fx: &mut Effects<ChatHost>) {
    let what = match msg {
        Message::CatchupReq(it) if it.tail => "adoption of another's log",
        Message::CatchupReq(_) => "question for what is missing",
        Message::SeqNack(_) => "conflict",
        Message::TakeNow(_) => "handover",
        Message::TakeoverReq(_) => "wish to take over",
        Message::ElectionOk(it) if it.kind == Consent::Takeover => "objection",
        Message::Election(it) if it.force => "election by force",
        Message::RemoveReq(_) => "removal forwarded",
        _ => return,
    };
    fx.emit(Told::Count(what));
}

vocabulary!(ChatHost, Record);

impl Machine for ChatHost {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = Command;
    type ExtraInput = HostPinged;

    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Effects<Self>) {
        match input {
            Input::Start if self.is_rewound => fx.emit(Told::Rewound),
            Input::Start => {
                fx.emit(Told::Started { commit: self.delivered });
                self.hand(now, Input::Start, fx);
                fx.set_timer(Timer::Seek, Duration::from_millis(1));
            }
            Input::Opened { link, opening: NodeOpening::Accepted { .. } } => {
                self.links.insert(link, Link::Accepted);
                fx.set_timer(Timer::Handshake(link), HANDSHAKE_TIMEOUT);
            }
            Input::Opened { link, opening: NodeOpening::Dialed { ticket, .. } } => {
                let call = self.calls.remove(&ticket).expect("it was dialed");
                let Some(group) = &self.group else { return fx.hangup(link) };
                let group_id = group.introduction().map(|it| it.group);
                let life = group.life();
                fx.send(link, Word::Join { caller: self.me.clone(), group: group_id, life });
                self.links.insert(link, Link::Greeted(call));
                fx.set_timer(Timer::Handshake(link), HANDSHAKE_TIMEOUT);
            }
            Input::DialFailed(CallFailure { ticket, .. }) => {
                let call = self.calls.remove(&ticket).expect("it was dialed");
                self.on_call_failed(now, &call, fx);
            }
            Input::Received { link, msg } => self.on_word(now, link, msg, fx),
            Input::Closed { link, reason } => match self.links.remove(&link) {
                Some(Link::Open | Link::HungUp) => {
                    self.hand(now, Input::Closed { link, reason }, fx);
                }
                Some(Link::Greeted(call)) => {
                    fx.stop_timer(Timer::Handshake(link));
                    self.on_call_failed(now, &call, fx);
                }
                Some(Link::Accepted) => fx.stop_timer(Timer::Handshake(link)),
                None => {}
            },
            Input::Synced { records } => self.on_synced(now, records, fx),
            Input::Expired(Timer::Group(timer)) => self.hand(now, Input::Expired(timer), fx),
            Input::Expired(Timer::Done(name)) => {
                if let Some(input) = self.pending.take(name) {
                    self.hand(now, input, fx);
                }
            }
            Input::Expired(Timer::Handshake(link)) => match self.links.get(&link).cloned() {
                Some(Link::Greeted(call)) => {
                    self.hang_up(link, fx);
                    self.on_call_failed(now, &call, fx);
                }
                Some(Link::Accepted) => self.hang_up(link, fx),
                Some(Link::Open | Link::HungUp) | None => {}
            },
            Input::Expired(Timer::Idle) => {
                self.is_idle_due = false;
                self.step(now, Input::Extra(ExtraInput::Idle), fx);
            }
            Input::Expired(Timer::Seek) => self.seek(fx),
            Input::Command(Command::Group(command)) => {
                self.hand(now, Input::Command(command), fx);
            }
            Input::Command(Command::Client { program, client, number }) => {
                self.on_program(now, (program, client, number), fx);
            }
            Input::Garbled { .. } | Input::Extra(HostPinged { .. }) => {}
        }
    }
}

impl Simulated for ChatHost {
    const HEARS_OF_SYNCS: bool = true;

    fn is_held(&self, _effect: &Effect<Self>) -> bool {
        false
    }

    fn name(msg: &Word) -> &'static str {
        match msg {
            Word::Join { .. } | Word::Welcome { .. } | Word::Refused => "handshake",
            Word::Chat(_) => "chat",
        }
    }

    fn snapshot(&self) -> Option<Vec<Record>> {
        Some(self.kept.clone())
    }
}

/// Members that are linked, by their own word.
pub(crate) fn linked(host: &ChatHost) -> BTreeSet<folkmoot::proto::chat::entry::MemberId> {
    let members = host.group().map(|it| it.status().members).unwrap_or_default();
    members.iter().filter(|it| it.linked).map(|it| it.member.id).collect()
}
