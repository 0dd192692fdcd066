//! A member of a Byzantine order as the simulator runs it: the machine, its calls and handshakes,
//! and its log. A liar is an honest member between whose machine and links somebody rewrites what
//! is said, or two machines under one key.

#![allow(clippy::wildcard_enum_match_arm, reason = "a wrapper picks a few words of many")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::machine::bft::{
    self, BftIdentity, BftReplica, Config, Event, ExtraEffect, ExtraInput, Fx, Opening,
    OrderMemory, OrderSnapshot,
};
use folkmoot::machine::{
    CallFailure, DialId, Effect, Effects, HostPinged, Input, LinkId, Machine, NodeOpening,
};
use folkmoot::model::{Endpoint, Now, Rng};
use folkmoot::proto::bft::message::{Message, PrePrepare, SlotContent};
use folkmoot::proto::bft::view::NewView;
use folkmoot::proto::bft::{Bundle, Certificate, ContentDigest, OrderId, SlotHeader, SlotNo};
use folkmoot::proto::chat::entry::{Entry, Member, MemberId, SeqNo};
use folkmoot::sim::Simulated;
use rand::{RngExt as _, SeedableRng as _};

use super::{CALL_TIMEOUT, HANDSHAKE_TIMEOUT, Ledger, Pending, micros};
use crate::order_world::keys_of;
use crate::order_world::liars::{Liar, Plot};
use crate::order_world::mutation::Mutator;

/// Number of inputs of a machine between two looks at its sizes.
const WEIGH_EVERY: u64 = 8;

/// The words on a link: the handshake, in which keys are believed, and then the order's messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Join { caller: MemberId },
    Welcome { called: MemberId },
    Refused,
    Order(Message),
}

/// A record on the disk of a member, by the machine that wrote it.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Order(usize, bft::Record),
    Snapshot(usize, Box<OrderSnapshot>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Order(usize, bft::Timer),
    /// A thread of the driver has done the work of this number.
    Done(u64),
    /// A handshake takes too long.
    Handshake(LinkId),
    /// All inputs that were waiting have been handled.
    Idle,
    /// A liar says something of its own accord.
    Lie,
    /// What a liar held back leaves.
    Late(u64),
}

pub(crate) type Command = bft::Command;

/// Report to the checkers, in the order of the events. Only machines of honest members report.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// A process begins, and believes its log to be final up to this place.
    Started {
        place: SeqNo,
    },
    /// The log contradicts itself: the process does not begin.
    Unusable(String),
    Slot(Arc<SlotContent>),
    Final(Certificate),
    /// An entry was delivered, after this one.
    Delivered {
        before: SeqNo,
        entry: Arc<Entry>,
    },
    /// The member has signed this: a vote, a proposal or a claim.
    Signed(Message),
    /// A leader's proposal was heard.
    Proposed(Arc<PrePrepare>),
    /// A view begins, by one of these.
    Began {
        by: Vec<Arc<NewView>>,
    },
    Order(Event),
    /// The member keeps more of others than it may.
    TooMuch(String),
    /// A branch was taken that only some runs come to; by its name.
    Count(&'static str),
}

/// State of one member, beside its disk, that outlives its processes.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) config: Config,
    pub(crate) me: BftIdentity,
    /// How the member lies; `None` if it is honest.
    pub(crate) plot: Option<Plot>,
    /// What the member's operator says of its disk.
    pub(crate) is_lost: Arc<Mutex<Option<String>>>,
    /// True if the member's key has signed before: noted beside the key.
    pub(crate) has_signed: Arc<AtomicBool>,
    /// Window of the member's next life.
    pub(crate) window: Arc<AtomicU64>,
    /// What changes small things in the messages that leave the member.
    pub(crate) mutator: Option<Arc<Mutex<Mutator>>>,
}

#[derive(Clone, Debug)]
enum Link {
    /// The other end has called, and says nothing yet.
    Accepted,
    /// This end has called a member, and waits for the answer.
    Greeted(MemberId),
    Open(MemberId),
    /// The machine has hung up; nothing passes until it is told of the end.
    HungUp,
}

/// Log that a machine's records add up to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    group: Option<OrderId>,
    config: Config,
    slots: BTreeMap<ContentDigest, Arc<SlotContent>>,
    /// Final slots, from the first.
    chain: Vec<Arc<SlotContent>>,
    certificates: BTreeMap<SlotNo, Certificate>,
    typed: Vec<Arc<Bundle>>,
}

impl Log {
    pub(crate) fn of<'a>(
        group: OrderId,
        config: Config,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Self {
        let mut log = Self { group: Some(group), config, ..Self::default() };
        for record in records {
            if let Record::Order(0, record) = record {
                log.put(record);
            }
        }
        log
    }

    fn put(&mut self, record: &bft::Record) {
        let group = self.group.expect("it is set");
        match record {
            bft::Record::Slot(content) => {
                let digest = self.config.digest_of(&group, &content.header);
                self.slots.insert(digest, Arc::clone(content));
            }
            bft::Record::Final(certificate) => self.on_final(certificate),
            bft::Record::Typed(bundle) => self.typed.push(Arc::clone(bundle)),
            _ => {}
        }
    }

    fn on_final(&mut self, certificate: &Certificate) {
        let mut way = Vec::new();
        let mut at = certificate.subject.digest;
        while let Some(content) = self.slots.get(&at)
            && content.header.slot.0 > self.chain.len() as u64
        {
            way.push(Arc::clone(content));
            at = content.header.parent;
        }
        let is_whole = way.last().is_some_and(|it| it.header.slot.0 == self.chain.len() as u64 + 1);
        if is_whole {
            self.chain.extend(way.into_iter().rev());
            self.certificates.insert(certificate.subject.slot, certificate.clone());
        }
    }

    /// Bundles that were typed, as the disk has them.
    pub(crate) fn typed(&self) -> &[Arc<Bundle>] {
        &self.typed
    }

    /// Final slots from the first, each with its certificate if it has one of its own.
    pub(crate) fn finals(&self) -> impl Iterator<Item = (&SlotContent, Option<&Certificate>)> {
        self.chain.iter().map(|it| (&**it, self.certificates.get(&it.header.slot)))
    }

    /// Slots that answer an `ExtraEffect::Load`, all of one epoch, the headers between the last of
    /// them and a certificate, and that certificate.
    fn load(&self, from: SlotNo, (slots_max, bytes_max): (usize, usize)) -> Loaded {
        let at = usize::try_from(from.0.saturating_sub(1)).expect("a short log");
        let all = self.chain.get(at..).unwrap_or_default();
        let Some(epoch) = all.first().map(|it| it.header.epoch) else { return Loaded::default() };
        let mut bytes = 0;
        let fits = |it: &&Arc<SlotContent>| {
            let is_first = bytes == 0;
            bytes += 1 + it.bundles.iter().map(|it| it.cost()).sum::<usize>();
            it.header.epoch == epoch && (is_first || bytes <= bytes_max)
        };
        let mut slots: Vec<_> = all.iter().take(slots_max).take_while(fits).cloned().collect();
        let proof = |it: &Arc<SlotContent>| self.certificates.get(&it.header.slot).cloned();
        if let Some(last) = slots.iter().rposition(|it| proof(it).is_some()) {
            slots.truncate(last + 1);
        }
        let mut certificate = slots.last().and_then(proof);
        let mut headers = Vec::new();
        for it in all.iter().skip(slots.len()).take_while(|it| it.header.epoch == epoch) {
            if certificate.is_some() {
                break;
            }
            headers.push(it.header.clone());
            certificate = proof(it);
        }
        Loaded { slots, headers, certificate }
    }
}

/// Slots as they are read from the log.
#[derive(Default)]
struct Loaded {
    slots: Vec<Arc<SlotContent>>,
    headers: Vec<SlotHeader>,
    certificate: Option<Certificate>,
}

/// Memory that a restart finds: all of it, or no more than is certain.
fn memory(records: &[Record], twin: usize, rng: &mut Rng) -> OrderMemory {
    let mut snapshot = None;
    for record in records {
        if let Record::Snapshot(by, it) = record
            && *by == twin
        {
            snapshot = Some(it.clone());
        }
    }
    let from = snapshot.as_ref().map_or(SlotNo(0), |it| it.slot);
    let all = rng.random_bool(0.5);
    let is_kept = |it: &&bft::Record| match it {
        bft::Record::Slot(content) => all || content.header.slot > from,
        bft::Record::Prepared(it) | bft::Record::Final(it) => all || it.subject.slot > from,
        _ => true,
    };
    let own = records.iter().filter_map(|it| match it {
        Record::Order(by, record) if *by == twin => Some(record),
        Record::Order(..) | Record::Snapshot(..) => None,
    });
    OrderMemory { snapshot, records: own.filter(is_kept).cloned().collect(), is_lost: None }
}

/// One machine under a member's key.
#[derive(Debug)]
struct Twin {
    /// The machine; `None` if it did not begin, or has ended.
    machine: Option<BftReplica>,
    log: Log,
    delivered: SeqNo,
    /// Links that the machine knows.
    links: BTreeSet<LinkId>,
}

/// A process that is a member of a group with Byzantine order.
#[derive(Debug)]
pub(crate) struct OrderHost {
    me: BftIdentity,
    twins: Vec<Twin>,
    unusable: Option<String>,
    liar: Option<Liar>,
    kept: Vec<Record>,
    ledger: Ledger<usize>,
    calls: BTreeMap<DialId, Member>,
    tickets: u64,
    links: BTreeMap<LinkId, Link>,
    pending: Pending<(usize, bft::Input)>,
    late: Pending<(MemberId, Message)>,
    /// Inputs that follow from what the machines have just done.
    todo: VecDeque<(usize, bft::Input)>,
    /// Beginnings of views that were heard or said, of late.
    beginnings: VecDeque<Arc<NewView>>,
    is_idle_due: bool,
    mutator: Option<Arc<Mutex<Mutator>>>,
    /// Number of inputs that the machines have had.
    inputs: u64,
    window: u64,
    rng: Rng,
}

impl OrderHost {
    pub(crate) fn new(desk: &Desk, records: &[Record], seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let liar = desk.plot.as_ref().map(|it| Liar::new(desk.me.clone(), it, rng.random()));
        let count = liar.as_ref().map_or(1, Liar::machines);
        let has_signed = desk.has_signed.swap(true, Ordering::Relaxed);
        let group = desk.me.founders.order_id(&desk.me.salt);
        let window = desk.window.load(Ordering::Relaxed);
        let config = Config { window, ..desk.config.clone() };
        let mut unusable = None;
        let twins = (0..count).map(|twin| {
            let mut memory = memory(records, twin, &mut rng);
            if liar.is_none() {
                memory.is_lost = desk.is_lost.lock().expect("one thread runs a world").take();
                if has_signed && memory.records.is_empty() {
                    memory.is_lost = Some("the log is gone, and the key has signed".to_owned());
                }
            }
            let own = Rng::seed_from_u64(rng.random());
            let machine = BftReplica::new(config.clone(), desk.me.clone(), own, memory);
            let machine = machine.map_err(|reason| unusable = Some(reason)).ok();
            let delivered = machine.as_ref().map_or(SeqNo(0), |it| it.status().place);
            let own = records.iter().filter_map(|it| match it {
                Record::Order(by, record) if *by == twin => Some(record),
                _ => None,
            });
            let config = config.clone();
            let mut log = Log { group: Some(group), config, ..Log::default() };
            own.for_each(|it| log.put(it));
            Twin { machine, log, delivered, links: BTreeSet::new() }
        });
        let twins = twins.collect();
        Self {
            me: desk.me.clone(),
            twins,
            unusable,
            liar,
            kept: records.to_vec(),
            ledger: Ledger::default(),
            calls: BTreeMap::new(),
            tickets: 0,
            links: BTreeMap::new(),
            pending: Pending::default(),
            late: Pending::default(),
            todo: VecDeque::new(),
            beginnings: VecDeque::new(),
            is_idle_due: false,
            mutator: desk.mutator.clone(),
            inputs: 0,
            window,
            rng,
        }
    }

    /// The machine, while the process takes part; the first if there are two.
    pub(crate) fn machine(&self) -> Option<&BftReplica> {
        self.twins[0].machine.as_ref()
    }

    pub(crate) fn log(&self) -> &Log {
        &self.twins[0].log
    }

    /// The place of a member.
    pub(crate) const fn endpoint(member: &Member) -> Endpoint {
        Endpoint::new(member.at.host, member.at.port)
    }

    const fn is_honest(&self) -> bool {
        self.liar.is_none()
    }

    fn tell(&self, told: Told, fx: &mut Effects<Self>) {
        if self.is_honest() {
            fx.emit(told);
        }
    }

    fn dial(&mut self, twin: usize, to: Member, fx: &mut Effects<Self>) {
        if self.twins.len() > 1 {
            // The twins share their links.
            let open = |it: &&LinkId| matches!(self.links[*it], Link::Open(id) if id == to.id);
            let known = self.links.keys().rfind(open).copied();
            let is_new = known.filter(|it| self.twins[twin].links.insert(*it));
            if let Some(link) = is_new {
                let opening = Opening { key: to.key, is_ours: true };
                return self.todo.push_back((twin, Input::Opened { link, opening }));
            }
            if known.is_some() || self.calls.values().any(|it| it.id == to.id) {
                return self.todo.push_back((twin, Input::DialFailed(to.id)));
            }
        }
        self.tickets += 1;
        let ticket = DialId(self.tickets);
        fx.dial(ticket, Self::endpoint(&to), CALL_TIMEOUT);
        self.calls.insert(ticket, to);
    }

    fn on_call_failed(&mut self, now: Now, to: MemberId, fx: &mut Effects<Self>) {
        for twin in 0..self.twins.len() {
            self.hand(now, twin, Input::DialFailed(to), fx);
        }
    }

    /// Hands one input over, and then `Idle` at once or a little later.
    fn hand(&mut self, now: Now, twin: usize, input: bft::Input, fx: &mut Effects<Self>) {
        self.step(now, twin, input, fx);
        while let Some((twin, input)) = self.todo.pop_front() {
            self.step(now, twin, input, fx);
        }
        if self.rng.random_bool(0.75) {
            self.idle(now, fx);
        } else if !self.is_idle_due {
            self.is_idle_due = true;
            fx.set_timer(Timer::Idle, micros(&mut self.rng, 0..2_000));
        }
    }

    fn idle(&mut self, now: Now, fx: &mut Effects<Self>) {
        for twin in 0..self.twins.len() {
            self.step(now, twin, Input::Extra(ExtraInput::Idle), fx);
        }
    }

    fn step(&mut self, now: Now, twin: usize, input: bft::Input, fx: &mut Effects<Self>) {
        let Some(machine) = &mut self.twins[twin].machine else { return };
        let mut part = Fx::default();
        machine.handle(now, input, &mut part);
        for effect in part {
            self.carry_out(now, twin, effect, fx);
        }
        self.inputs += 1;
        if self.is_honest() && self.inputs.is_multiple_of(WEIGH_EVERY) {
            self.weigh(fx);
        }
    }

    /// Tells if the machine keeps more than its limits allow.
    fn weigh(&self, fx: &mut Effects<Self>) {
        let Some(machine) = &self.twins[0].machine else { return };
        if let Some(what) = limits::beyond(&machine.sizes(), self.window) {
            self.tell(Told::TooMuch(what), fx);
        }
    }

    /// Sends a message, or what somebody has made of it.
    fn send(&self, link: LinkId, msg: Message, fx: &mut Effects<Self>) {
        let Some(mutator) = &self.mutator else { return fx.send(link, Word::Order(msg)) };
        let said = mutator.lock().expect("one thread runs a world").said(msg);
        for msg in said {
            fx.send(link, Word::Order(msg));
        }
    }

    fn tell_signed(&self, msg: &Message, fx: &mut Effects<Self>) {
        if let Message::PrePrepare(_)
        | Message::Prepare(_)
        | Message::Commit(_)
        | Message::ViewChange(_)
        | Message::NewView(_) = msg
        {
            self.tell(Told::Signed(msg.clone()), fx);
        }
    }

    /// A machine says something on a link.
    fn say(&mut self, now: Now, twin: usize, link: LinkId, msg: Message, fx: &mut Effects<Self>) {
        let Some(Link::Open(to)) = self.links.get(&link) else { return };
        let to = *to;
        if !self.twins[twin].links.contains(&link) {
            return;
        }
        if let Message::NewView(it) = &msg {
            self.remember(it);
        }
        let Some(liar) = &mut self.liar else { return self.send(link, msg, fx) };
        let said = liar.says(now.mono, (twin, to), msg);
        self.let_out(link, to, said, fx);
    }

    fn let_out(
        &mut self,
        link: LinkId,
        to: MemberId,
        said: Vec<(Duration, Message)>,
        fx: &mut Effects<Self>,
    ) {
        for (after, msg) in said {
            if after.is_zero() {
                self.send(link, msg, fx);
            } else {
                let name = self.late.keep((to, msg));
                fx.set_timer(Timer::Late(name), after);
            }
        }
    }

    fn remember(&mut self, it: &Arc<NewView>) {
        self.beginnings.push_back(Arc::clone(it));
        if self.beginnings.len() > 16 {
            self.beginnings.pop_front();
        }
    }

    /// An open link with a member.
    fn link_with(&self, id: MemberId) -> Option<LinkId> {
        let is_it = |(_, it): &(&LinkId, &Link)| matches!(it, Link::Open(with) if *with == id);
        self.links.iter().rfind(is_it).map(|(link, _)| *link)
    }

    /// Members with which there is an open link.
    fn linked(&self) -> BTreeSet<MemberId> {
        let members = self.links.values().filter_map(|it| match it {
            Link::Open(id) => Some(*id),
            _ => None,
        });
        members.collect()
    }

    fn carry_out(&mut self, now: Now, twin: usize, effect: bft::Effect, fx: &mut Effects<Self>) {
        match effect {
            Effect::Send { link, msg } => {
                self.tell_signed(&msg, fx);
                self.say(now, twin, link, msg, fx);
            }
            Effect::SendAll { links, msg } => {
                self.tell_signed(&msg, fx);
                for link in links {
                    self.say(now, twin, link, msg.clone(), fx);
                }
            }
            Effect::Persist(record) => {
                match &record {
                    bft::Record::Slot(it) => self.tell(Told::Slot(Arc::clone(it)), fx),
                    bft::Record::Final(it) => self.tell(Told::Final(it.clone()), fx),
                    _ => {}
                }
                self.twins[twin].log.put(&record);
                self.write(twin, Record::Order(twin, record), fx);
            }
            Effect::Extra(ExtraEffect::Load { link, from, slots_max, bytes_max }) => {
                self.tell(Told::Count("load"), fx);
                let limits = (slots_max, bytes_max);
                let Loaded { slots, headers, certificate } =
                    self.twins[twin].log.load(from, limits);
                let loaded = ExtraInput::Loaded { link, slots, headers, certificate };
                let name = self.pending.keep((twin, Input::Extra(loaded)));
                fx.set_timer(Timer::Done(name), micros(&mut self.rng, 100..20_000));
            }
            Effect::Extra(ExtraEffect::Deliver(entries)) => {
                for entry in entries {
                    let before = std::mem::replace(&mut self.twins[twin].delivered, entry.seq_no);
                    self.tell(Told::Delivered { before, entry }, fx);
                }
            }
            Effect::Extra(ExtraEffect::Snapshot(it)) => {
                self.tell(Told::Count("snapshot"), fx);
                self.write(twin, Record::Snapshot(twin, it), fx);
            }
            Effect::Dial(to) => self.dial(twin, to, fx),
            Effect::Hangup { link } => self.hang_up_of(twin, link, fx),
            Effect::SetTimer { timer, after } => fx.set_timer(Timer::Order(twin, timer), after),
            Effect::StopTimer(timer) => fx.stop_timer(Timer::Order(twin, timer)),
            Effect::Emit(event) => {
                if let Event::ViewBegan { epoch, view, .. } = &event {
                    let is_it = |it: &&Arc<NewView>| (it.epoch, it.view) == (*epoch, *view);
                    let by: Vec<_> = self.beginnings.iter().filter(is_it).cloned().collect();
                    self.tell(Told::Began { by }, fx);
                }
                if matches!(event, Event::Gone) {
                    self.twins[twin].machine = None;
                }
                self.tell(Told::Order(event), fx);
            }
        }
    }

    fn write(&mut self, twin: usize, record: Record, fx: &mut Effects<Self>) {
        self.ledger.write(if matches!(record, Record::Snapshot(..)) { usize::MAX } else { twin });
        self.kept.push(record.clone());
        fx.persist(record);
    }

    /// A machine hangs up; the link ends when no other machine has it.
    fn hang_up_of(&mut self, twin: usize, link: LinkId, fx: &mut Effects<Self>) {
        let others = (0..self.twins.len()).filter(|it| *it != twin);
        if others.clone().any(|it| self.twins[it].links.contains(&link)) {
            if self.twins[twin].links.remove(&link) {
                self.todo.push_back((twin, Input::closed(link, "hung up")));
            }
        } else if let Some(state) = self.links.get_mut(&link) {
            *state = Link::HungUp;
            fx.hangup(link);
        }
    }

    fn open(&mut self, now: Now, link: LinkId, member: MemberId, fx: &mut Effects<Self>) {
        let is_ours = matches!(self.links.get(&link), Some(Link::Greeted(_)));
        self.links.insert(link, Link::Open(member));
        for twin in 0..self.twins.len() {
            self.twins[twin].links.insert(link);
            let key = keys_of(member.0).public();
            let opening = Opening { key, is_ours };
            self.hand(now, twin, Input::Opened { link, opening }, fx);
        }
    }

    fn on_word(&mut self, now: Now, link: LinkId, word: Word, fx: &mut Effects<Self>) {
        match (self.links.get(&link).cloned(), word) {
            (Some(Link::Open(from)), Word::Order(msg)) => self.hear(now, link, from, &msg, fx),
            (Some(Link::Accepted), Word::Join { caller }) => {
                fx.stop_timer(Timer::Handshake(link));
                let is_up = self.twins.iter().any(|it| it.machine.is_some());
                if !is_up || caller == self.me.id {
                    fx.send(link, Word::Refused);
                    return self.hang_up(link, fx);
                }
                fx.send(link, Word::Welcome { called: self.me.id });
                self.open(now, link, caller, fx);
            }
            (Some(Link::Greeted(to)), Word::Welcome { called }) if to == called => {
                fx.stop_timer(Timer::Handshake(link));
                self.open(now, link, called, fx);
            }
            (Some(Link::Greeted(to)), _) => {
                fx.stop_timer(Timer::Handshake(link));
                self.hang_up(link, fx);
                self.on_call_failed(now, to, fx);
            }
            (Some(Link::Accepted | Link::Open(_) | Link::HungUp) | None, _) => {}
        }
    }

    fn hear(
        &mut self,
        now: Now,
        link: LinkId,
        from: MemberId,
        msg: &Message,
        fx: &mut Effects<Self>,
    ) {
        match msg {
            Message::NewView(it) => self.remember(it),
            Message::PrePrepare(it) => self.tell(Told::Proposed(Arc::clone(it)), fx),
            _ => {}
        }
        for twin in 0..self.twins.len() {
            let mut msg = Some(msg.clone());
            if let Some(liar) = &mut self.liar {
                msg = liar.hears(now.mono, (twin, from), msg.expect("it was set"));
            }
            if let Some(msg) = msg
                && self.twins[twin].links.contains(&link)
                && matches!(self.links.get(&link), Some(Link::Open(_)))
            {
                self.hand(now, twin, Input::Received { link, msg }, fx);
            }
        }
    }

    /// Hangs up a link that no machine knows.
    fn hang_up(&mut self, link: LinkId, fx: &mut Effects<Self>) {
        self.links.remove(&link);
        fx.hangup(link);
    }

    fn lie(&mut self, now: Now, fx: &mut Effects<Self>) {
        let linked = self.linked();
        let status = self.twins[0].machine.as_ref().map(BftReplica::status);
        let Some(liar) = &mut self.liar else { return };
        if let Some(status) = status {
            let said = liar.acts(now.mono, &status, &linked);
            for (to, msg) in said {
                if let Some(link) = self.link_with(to) {
                    self.send(link, msg, fx);
                }
            }
        }
        fx.set_timer(Timer::Lie, micros(&mut self.rng, 20_000..200_000));
    }

    fn on_command(&mut self, now: Now, command: &Command, fx: &mut Effects<Self>) {
        for twin in 0..self.twins.len() {
            self.hand(now, twin, Input::Command(command.clone()), fx);
        }
    }

    fn on_closed(&mut self, now: Now, link: LinkId, reason: &str, fx: &mut Effects<Self>) {
        match self.links.remove(&link) {
            Some(Link::Open(_) | Link::HungUp) => {
                for twin in 0..self.twins.len() {
                    if self.twins[twin].links.remove(&link) {
                        self.hand(now, twin, Input::closed(link, reason), fx);
                    }
                }
            }
            Some(Link::Greeted(to)) => {
                fx.stop_timer(Timer::Handshake(link));
                self.on_call_failed(now, to, fx);
            }
            Some(Link::Accepted) => fx.stop_timer(Timer::Handshake(link)),
            None => {}
        }
    }
}

vocabulary!(OrderHost, Record);

impl Machine for OrderHost {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = Command;
    type ExtraInput = HostPinged;

    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Effects<Self>) {
        match input {
            Input::Start => {
                if let Some(reason) = self.unusable.take() {
                    return self.tell(Told::Unusable(reason), fx);
                }
                self.tell(Told::Started { place: self.twins[0].delivered }, fx);
                for twin in 0..self.twins.len() {
                    self.hand(now, twin, Input::Start, fx);
                }
                if !self.is_honest() {
                    fx.set_timer(Timer::Lie, Duration::from_millis(50));
                }
            }
            Input::Opened { link, opening: NodeOpening::Accepted { .. } } => {
                self.links.insert(link, Link::Accepted);
                fx.set_timer(Timer::Handshake(link), HANDSHAKE_TIMEOUT);
            }
            Input::Opened { link, opening: NodeOpening::Dialed { ticket, .. } } => {
                let to = self.calls.remove(&ticket).expect("it was dialed");
                fx.send(link, Word::Join { caller: self.me.id });
                self.links.insert(link, Link::Greeted(to.id));
                fx.set_timer(Timer::Handshake(link), HANDSHAKE_TIMEOUT);
            }
            Input::DialFailed(CallFailure { ticket, .. }) => {
                let to = self.calls.remove(&ticket).expect("it was dialed");
                self.on_call_failed(now, to.id, fx);
            }
            Input::Received { link, msg } => self.on_word(now, link, msg, fx),
            Input::Closed { link, reason } => self.on_closed(now, link, &reason, fx),
            Input::Synced { records } => {
                for (twin, records) in self.ledger.sync(records) {
                    if twin != usize::MAX {
                        self.hand(now, twin, Input::Synced { records }, fx);
                    }
                }
            }
            Input::Expired(Timer::Order(twin, timer)) => {
                self.hand(now, twin, Input::Expired(timer), fx);
            }
            Input::Expired(Timer::Done(name)) => {
                if let Some((twin, input)) = self.pending.take(name) {
                    self.hand(now, twin, input, fx);
                }
            }
            Input::Expired(Timer::Handshake(link)) => match self.links.get(&link).cloned() {
                Some(Link::Greeted(to)) => {
                    self.hang_up(link, fx);
                    self.on_call_failed(now, to, fx);
                }
                Some(Link::Accepted) => self.hang_up(link, fx),
                Some(Link::Open(_) | Link::HungUp) | None => {}
            },
            Input::Expired(Timer::Idle) => {
                self.is_idle_due = false;
                self.idle(now, fx);
            }
            Input::Expired(Timer::Lie) => self.lie(now, fx),
            Input::Expired(Timer::Late(name)) => {
                if let Some((to, msg)) = self.late.take(name)
                    && let Some(link) = self.link_with(to)
                {
                    self.send(link, msg, fx);
                }
            }
            Input::Command(command) => self.on_command(now, &command, fx),
            Input::Garbled { .. } | Input::Extra(HostPinged { .. }) => {}
        }
    }
}

impl Simulated for OrderHost {
    const HEARS_OF_SYNCS: bool = true;

    fn is_held(&self, _effect: &Effect<Self>) -> bool {
        false
    }

    fn name(msg: &Word) -> &'static str {
        match msg {
            Word::Join { .. } | Word::Welcome { .. } | Word::Refused => "handshake",
            Word::Order(msg) => name(msg),
        }
    }

    fn snapshot(&self) -> Option<Vec<Record>> {
        Some(self.kept.clone())
    }
}

mod limits {
    //! Limits of what a member may keep of others, by the protocol and not by the machine's code.

    use folkmoot::machine::bft::BftSizes;

    /// Views in which votes are kept: two back, the own one, and four ahead.
    const VIEWS: usize = 7;

    /// Contents that may have been asked for beyond an author's share.
    const ASKED: usize = 256;

    /// Members that may take part in a run.
    const MEMBERS: usize = 12;

    /// The greatest window of a member in a run.
    const WINDOW: usize = 8;

    /// The first size that is beyond its limit, for a member with this window.
    pub(super) fn beyond(it: &BftSizes, window: u64) -> Option<String> {
        let n = it.members;
        let ahead = 4 * usize::try_from(window).unwrap_or(WINDOW);
        let share = (64 << 20) / n;
        let share = share.clamp(1 << 20, 16 << 20);
        let limits = [
            ("bundles of an author", it.pool_bundles, 64 + ASKED),
            ("bytes of an author", it.pool_bytes, share + ASKED * 131_072),
            // One that is no member any more keeps what it has typed itself.
            ("authors", it.pool_authors, n + 1),
            ("changes", it.changes, 128 + ASKED),
            ("votes", it.votes, 2 * VIEWS * ahead * n),
            ("views with votes", it.vote_views, VIEWS),
            ("proposals", it.proposals, ahead),
            ("wishes", it.wishes, n),
            ("claims", it.claims, 5 * n),
            ("contents", it.contents, 8 * WINDOW),
            ("headers", it.headers, 128 * n),
            ("consents", it.consents, 8 * n),
            ("evidence", it.evidence, MEMBERS),
            ("own bundles", it.outbox, 16),
        ];
        let over = limits.iter().find(|(_, size, most)| size > most);
        over.map(|(what, size, most)| format!("{size} {what}, at most {most}: {it:?}"))
    }
}

/// Kind of a message, for counts of traffic.
pub(crate) const fn name(msg: &Message) -> &'static str {
    match msg {
        Message::Bundle(_) | Message::Change(_) => "bundle",
        Message::PrePrepare(_) => "pre-prepare",
        Message::Prepare(_) => "prepare",
        Message::Commit(_) => "commit",
        Message::Suspect(_) => "suspect",
        Message::ViewChange(_) => "view-change",
        Message::NewView(_) => "new-view",
        Message::OrderStatus(_) => "status",
        Message::SlotReq(_) | Message::SlotResp(_) => "slots",
        Message::ChainReq(_) | Message::ChainResp(_) => "chain",
        Message::BundleReq(_) => "bundle-req",
        Message::RecallReq(_) | Message::RecallResp(_) => "recall",
        Message::Approve(_) | Message::Evidence(_) => "other",
        _ => "handshake",
    }
}
