//! A small world for a chat's group in virtual time: members with disks, connections that keep
//! order and break, clients. One seed decides everything.

mod checker;
mod disk;
mod machines;
mod weather;

use folkmoot::proto::chat::entry::{At, Body, Chat, Member, MemberId, MsgId, Origin, SeqNo};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use folkmoot::machine::chat::{
    Command, Config, Effect, Event, ExtraEffect, ExtraInput, Fx, Group, Input, Opening, Record,
    Role, Timer,
};
use folkmoot::machine::{LinkId, Machine as _};
use folkmoot::model::{KeyPair, Now, Rng, Time, WallTime};
use folkmoot::proto::chat::message::{ChatReq, Consent, Intent, Message, VerifyResp};
use rand::{RngExt as _, SeedableRng as _};

pub(crate) use checker::{Checker, Kind, Violation};
use disk::Disk;
pub(crate) use weather::Weather;

/// One member, in all its lives.
pub(crate) struct Node {
    pub(crate) member: Member,
    pub(crate) machine: Option<Group>,
    pub(crate) life: u32,
    pub(crate) disk: Disk,
    timers: BTreeMap<Timer, u64>,
    is_paused: bool,
    /// What came during a pause.
    inbox: VecDeque<Input>,
    delivered: SeqNo,
    is_idle_due: bool,
    /// Microseconds of a flush, at most.
    pub(crate) disk_micros: u64,
    pub(crate) is_removed: bool,
    /// So many records were on disk when this was noted last, away from them.
    noted: usize,
    /// An older copy of the disk.
    backup: Option<Disk>,
    /// It must not run again: its log is not whole, or another process is this member.
    pub(crate) is_spent: bool,
    links: BTreeSet<LinkId>,
    founds: bool,
}

impl Default for Node {
    fn default() -> Self {
        let key = KeyPair::from_secret([1; 32]).public();
        Self {
            member: Member {
                id: MemberId(0),
                at: At { host: [127, 0, 0, 1].into(), port: 0 },
                key,
            },
            machine: None,
            life: 0,
            disk: Disk::default(),
            timers: BTreeMap::new(),
            is_paused: false,
            inbox: VecDeque::new(),
            delivered: SeqNo(0),
            is_idle_due: false,
            disk_micros: 0,
            is_removed: false,
            noted: 0,
            backup: None,
            is_spent: false,
            links: BTreeSet::new(),
            founds: false,
        }
    }
}

#[derive(Debug)]
enum Due {
    Input { node: usize, life: u32, input: Input },
    Timer { node: usize, life: u32, timer: Timer, at: u64 },
    Idle { node: usize, life: u32 },
    Flushed { node: usize, life: u32 },
    Connect { from: usize, life: u32, to: Member, is_asked: bool },
    Arrive { lane: usize, number: u64, msg: Message },
    Close { lane: usize },
    BreakIfCut { conn: usize },
    Retransmit { lane: usize },
    Seek { node: usize, life: u32 },
    Restart { node: usize },
    Operate { node: usize },
    Noticed { original: usize, copy: usize },
    Client { at: usize },
    Weather,
    Type,
}

/// A connection: who called whom, in which lives, and what is under way in each direction.
struct Conn {
    nodes: [usize; 2],
    lives: [u32; 2],
    is_open: [bool; 2],
    /// When the last message arrives.
    last: [u64; 2],
    /// What waits for the path to open again, and the system to try again.
    stuck: [VecDeque<Message>; 2],
    /// Since when, for what was lost first.
    lost_at: [Option<u64>; 2],
    /// This end has closed, and the other cannot hear of it.
    is_end_lost: [bool; 2],
}

/// A program that sends by one member.
struct Client {
    node: usize,
    number: u64,
    next: u64,
    link: Option<(LinkId, u32)>,
    waiting: BTreeSet<u64>,
}

/// What happened in a run, by name.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) nodes: Vec<Node>,
    pub(crate) checker: Checker,
    pub(crate) tally: Tally,
    pub(crate) now: u64,
    pub(crate) steps: u64,
    pub(crate) weather: Weather,
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    dues: BTreeMap<u64, Due>,
    number: u64,
    conns: Vec<Conn>,
    clients: Vec<Client>,
    client_links: BTreeMap<LinkId, usize>,
    cuts: BTreeSet<(usize, usize)>,
    typed: u64,
    is_typing: bool,
    /// No fault comes before this.
    quiet_until: u64,
    has_copied: bool,
    is_trace: bool,
    pub(crate) rng: Rng,
}

impl World {
    /// `count` members, of which the first founds the group; the others join by it.
    pub(crate) fn new(seed: u64, config: Config, weather: Weather, count: usize) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let nodes = (1..=count).map(|id| {
            let id = u32::try_from(id).expect("few");
            let key = KeyPair::generate(&mut Rng::seed_from_u64(u64::from(id))).public();
            let at =
                At { host: [127, 0, 0, 1].into(), port: 6_000 + u16::try_from(id).expect("few") };
            Node {
                member: Member { id: MemberId(id), at, key },
                disk_micros: rng.random_range(200..2_000),
                founds: id == 1,
                ..Node::default()
            }
        });
        Self {
            config,
            nodes: nodes.collect(),
            checker: Checker::default(),
            tally: Tally::new(),
            now: 0,
            steps: 0,
            weather,
            agenda: BinaryHeap::new(),
            dues: BTreeMap::new(),
            number: 0,
            conns: Vec::new(),
            clients: Vec::new(),
            client_links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            typed: 0,
            is_typing: true,
            quiet_until: 0,
            has_copied: false,
            is_trace: std::env::var_os("TRACE").is_some(),
            rng,
        }
    }

    fn plan(&mut self, at: u64, due: Due) {
        self.number += 1;
        self.agenda.push(Reverse((at, self.number)));
        self.dues.insert(self.number, due);
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    #[allow(clippy::print_stderr, reason = "a trace is asked for")]
    fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_trace {
            eprintln!("{:>10.4} {}", self.now as f64 / 1e6, what());
        }
    }

    // Time.

    /// Runs until `until` (microseconds), or until something is wrong.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.checker.violation.is_none() {
            let Some(Reverse((at, _))) = self.agenda.peek().copied() else { break };
            if at > until {
                break;
            }
            let Some(Reverse((at, number))) = self.agenda.pop() else { break };
            let Some(due) = self.dues.remove(&number) else { continue };
            self.now = at;
            self.steps += 1;
            self.happen(due);
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Input { node, life, input } => self.hand(node, life, input),
            Due::Timer { node, life, timer, at } => {
                let it = &self.nodes[node];
                if it.life == life && it.timers.get(&timer) == Some(&at) {
                    if it.is_paused {
                        // It fires when the process goes on.
                        return;
                    }
                    self.nodes[node].timers.remove(&timer);
                    self.hand(node, life, Input::Expired(timer));
                }
            }
            Due::Idle { node, life } => {
                self.nodes[node].is_idle_due = false;
                self.hand(node, life, Input::Extra(ExtraInput::Idle));
            }
            Due::Flushed { node, life } => self.on_flushed(node, life),
            Due::Connect { from, life, to, is_asked } => self.connect(from, life, &to, is_asked),
            Due::Arrive { lane, number, msg } => self.arrive(lane, number, msg),
            Due::Close { lane } => self.close(lane),
            Due::BreakIfCut { conn } => {
                let [a, b] = self.conns[conn].nodes;
                if self.is_cut(a, b) || self.is_cut(b, a) {
                    self.break_conn(conn);
                }
            }
            Due::Retransmit { lane } => self.retransmit(lane),
            Due::Seek { node, life } => self.seek(node, life),
            Due::Restart { node } => self.start(node),
            Due::Operate { node } => self.operate(node),
            Due::Noticed { original, copy } => self.judge_copy(original, copy),
            Due::Client { at } => self.on_client(at),
            Due::Weather => self.on_weather(),
            Due::Type => self.on_type(),
        }
    }

    // Members.

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].machine.is_some()
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.is_up(node) || self.nodes[node].is_spent || self.is_rewound(node) {
            return;
        }
        self.count("start");
        let seed = self.rng.random();
        let it = &mut self.nodes[node];
        it.life += 1;
        let life = it.life;
        let memory = it.disk.memory(it.founds, &mut self.rng);
        it.noted = it.noted.max(it.disk.synced);
        let rng = Rng::seed_from_u64(seed);
        let machine = Group::new(self.config.clone(), it.member.clone(), rng, memory);
        it.delivered = machine.status().commit;
        if usize::try_from(it.delivered.0).expect("short") > self.checker.order.len() {
            let what = format!("{} believes {} final", it.member.id, it.delivered.0);
            self.checker.fail(Kind::Gap, what);
        }
        it.machine = Some(machine);
        it.timers.clear();
        it.is_paused = false;
        it.is_idle_due = false;
        it.inbox.clear();
        self.trace(|| format!("START {node} life {life}"));
        self.hand(node, life, Input::Start);
        self.plan(self.now + 1_000, Due::Seek { node, life });
    }

    /// A process ends at once; its system closes its connections.
    pub(crate) fn kill(&mut self, node: usize, is_power: bool) {
        if !self.is_up(node) {
            return;
        }
        self.count(if is_power { "power cut" } else { "kill" });
        self.trace(|| format!("KILL {node} power {is_power}"));
        let it = &mut self.nodes[node];
        it.machine = None;
        if is_power {
            it.disk.cut_power(&mut self.rng);
        } else {
            it.disk.kill();
        }
        for link in std::mem::take(&mut it.links) {
            let lane = usize::try_from(link.0).expect("few");
            if self.client_links.contains_key(&link) {
                continue;
            }
            self.conns[lane / 2].is_open[lane % 2] = false;
            let delay = match is_power {
                true => self.rng.random_range(500_000..6_000_000),
                false => self.rng.random_range(100..5_000),
            };
            self.plan(self.now + delay, Due::Close { lane: lane ^ 1 });
        }
    }

    pub(crate) fn pause(&mut self, node: usize) {
        if self.is_up(node) && !self.nodes[node].is_paused {
            self.count("pause");
            self.trace(|| format!("PAUSE {node}"));
            self.nodes[node].is_paused = true;
        }
    }

    pub(crate) fn resume(&mut self, node: usize) {
        if !self.is_up(node) || !self.nodes[node].is_paused {
            return;
        }
        self.trace(|| format!("RESUME {node}"));
        let it = &mut self.nodes[node];
        it.is_paused = false;
        let life = it.life;
        let timers_first = self.rng.random_bool(0.5);
        if !timers_first {
            self.empty_inbox(node, life);
        }
        let now = self.now;
        let due = self.nodes[node].timers.iter().filter(|(_, at)| **at <= now);
        let mut due: Vec<_> = due.map(|(timer, at)| (*at, *timer)).collect();
        due.sort_unstable();
        for (at, timer) in due {
            if self.nodes[node].timers.get(&timer) == Some(&at) {
                self.nodes[node].timers.remove(&timer);
                self.hand(node, life, Input::Expired(timer));
            }
        }
        self.empty_inbox(node, life);
    }

    fn empty_inbox(&mut self, node: usize, life: u32) {
        while let Some(input) = self.nodes[node].inbox.pop_front() {
            self.hand(node, life, input);
        }
    }

    /// Hands one input over, and then `Idle` at once or a little later.
    fn hand(&mut self, node: usize, life: u32, input: Input) {
        let it = &mut self.nodes[node];
        if it.life != life || it.machine.is_none() {
            return;
        }
        if it.is_paused {
            it.inbox.push_back(input);
            return;
        }
        if let Input::Received { link, msg: Message::VerifyReq(ask) } = &input {
            // The driver's own business.
            let (sender_id, question) = (it.member.id, ask.question);
            let (commit, hashes) = (SeqNo(0), Vec::new());
            let answer = VerifyResp { sender_id, question, commit, hashes };
            self.send(node, *link, Message::VerifyResp(answer));
            return;
        }
        let is_idle = matches!(input, Input::Extra(ExtraInput::Idle));
        self.step(node, input);
        if is_idle || !self.is_up(node) {
            return;
        }
        if self.rng.random_bool(0.75) {
            self.step(node, Input::Extra(ExtraInput::Idle));
        } else if !self.nodes[node].is_idle_due {
            self.nodes[node].is_idle_due = true;
            let delay = self.rng.random_range(0..2_000);
            self.plan(self.now + delay, Due::Idle { node, life });
        }
    }

    fn step(&mut self, node: usize, input: Input) {
        let now = Now { mono: Time::from_micros(self.now), wall: WallTime(self.now / 1_000) };
        if self.is_trace && !matches!(input, Input::Extra(ExtraInput::Idle)) {
            self.trace(|| format!("  {node} <- {}", brief(&format!("{input:?}"))));
        }
        let mut fx = Fx::default();
        let Some(machine) = &mut self.nodes[node].machine else { return };
        machine.handle(now, input, &mut fx);
        for effect in fx {
            self.carry_out(node, effect);
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        let life = self.nodes[node].life;
        if self.is_trace && !matches!(effect, Effect::SetTimer { .. } | Effect::StopTimer(_)) {
            self.trace(|| format!("  {node} -> {}", brief(&format!("{effect:?}"))));
        }
        match effect {
            Effect::Send { link, msg } => {
                self.count_message(&msg);
                self.send(node, link, msg);
            }
            Effect::SendAll { links, msg } => {
                self.count_message(&msg);
                for link in links {
                    self.send(node, link, msg.clone());
                }
            }
            Effect::Persist(record) => self.persist(node, record),
            Effect::Extra(ExtraEffect::Load { link, from, bytes_max: _ }) => {
                self.count("load");
                let count = self.rng.random_range(1..=8);
                let (prev_term, entries) = self.nodes[node].disk.load(from, count);
                let input = Input::Extra(ExtraInput::Loaded { link, prev_term, entries });
                let delay = self.rng.random_range(100..20_000);
                self.plan(self.now + delay, Due::Input { node, life, input });
            }
            Effect::Dial(to) => {
                let delay = self.weather.latency(&mut self.rng);
                self.plan(self.now + delay, Due::Connect { from: node, life, to, is_asked: true });
            }
            Effect::Hangup { link } => self.hang_up(node, link),
            Effect::Extra(ExtraEffect::Deliver(entries)) => {
                for entry in &entries {
                    let id = self.nodes[node].member.id;
                    let before = self.nodes[node].delivered;
                    self.checker.on_delivered(id, before, entry);
                    self.nodes[node].delivered = entry.seq_no;
                    if let Body::Membership(it) = &entry.body {
                        for node in &mut self.nodes {
                            node.is_removed |= it.removed.contains(&node.member.key);
                        }
                    }
                }
            }
            Effect::Extra(ExtraEffect::Snapshot(it)) => {
                self.count("snapshot");
                self.nodes[node].disk.put_snapshot(*it);
            }
            Effect::SetTimer { timer, after: span } => {
                let micros = u64::try_from(span.as_micros()).expect("a short span");
                let at = self.now + micros;
                self.nodes[node].timers.insert(timer, at);
                self.plan(at, Due::Timer { node, life, timer, at });
            }
            Effect::StopTimer(timer) => {
                self.nodes[node].timers.remove(&timer);
            }
            Effect::Emit(event) => self.on_event(node, &event),
        }
    }

    /// Branches that only some runs come to.
    #[allow(clippy::wildcard_enum_match_arm, reason = "it picks a few messages of many")]
    fn count_message(&mut self, msg: &Message) {
        match msg {
            Message::CatchupReq(it) if it.tail => self.count("adoption of another's log"),
            Message::CatchupReq(_) => self.count("question for what is missing"),
            Message::SeqNack(_) => self.count("conflict"),
            Message::TakeNow(_) => self.count("handover"),
            Message::TakeoverReq(_) => self.count("wish to take over"),
            Message::ElectionOk(it) if it.kind == Consent::Takeover => self.count("objection"),
            Message::Election(it) if it.force => self.count("election by force"),
            Message::RemoveReq(_) => self.count("removal forwarded"),
            _ => {}
        }
    }

    fn on_event(&mut self, node: usize, event: &Event) {
        let id = self.nodes[node].member.id;
        match event {
            Event::RoleChanged { role: Role::Leader, term, .. } => {
                self.count("leader");
                self.checker.on_leader(id, *term);
            }
            Event::Diverged { member, at } => {
                let what = format!("{id} says that {member} differs at {}", at.0);
                self.checker.fail(Kind::Diverged, what);
            }
            Event::Dropped(why) => self.count(why),
            Event::NoQuorum => self.count("no quorum"),
            Event::Gone => {
                self.count("left");
                self.kill(node, false);
                if self.weather.is_calm {
                    self.plan(self.now + 500_000, Due::Restart { node });
                }
            }
            Event::Refused { reason } => {
                self.count("refused");
                let is_double = reason.contains("another process");
                let is_copy = self.nodes.iter().position(|it| it.member.id == id) != Some(node);
                if reason.contains("must not vote again") && !is_copy {
                    self.checker.fail(Kind::Accused, format!("{id} is told: {reason}"));
                }
                if is_double || reason.contains("must not vote again") {
                    self.count(if is_double { "a copy ends" } else { "told that its log is old" });
                    self.kill(node, false);
                    self.spend(node);
                }
            }
            Event::ElectionBegun { reason: Cow::Borrowed(reason), .. } => self.count(reason),
            Event::Doubled { member, .. } if *member == id => self.count("told of a copy"),
            Event::RoleChanged { .. }
            | Event::ElectionBegun { .. }
            | Event::Quorum
            | Event::MembershipChanged(_)
            | Event::Pending(_)
            | Event::Rejected { .. }
            | Event::GivenBack { .. }
            | Event::Renamed { .. }
            | Event::Doubled { .. }
            | Event::Numbered(..)
            | Event::Reached(_)
            | Event::Lost(_) => {}
        }
    }

    fn persist(&mut self, node: usize, record: Record) {
        if matches!(record, Record::Cut { .. }) {
            self.count("cut of a tail");
        }
        self.nodes[node].disk.put(record);
        self.flush(node);
    }

    fn flush(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let all = it.disk.records.len();
        if it.disk.flushing.is_some() || it.disk.synced == all {
            return;
        }
        it.disk.flushing = Some(all);
        let (life, micros) = (it.life, it.disk_micros);
        let delay = self.rng.random_range(micros / 4..=micros);
        self.plan(self.now + delay, Due::Flushed { node, life });
    }

    fn on_flushed(&mut self, node: usize, life: u32) {
        let it = &mut self.nodes[node];
        if it.life != life || it.machine.is_none() {
            return;
        }
        let Some(count) = it.disk.flushing.take() else { return };
        it.disk.synced = count;
        it.noted = count;
        let records = (count - it.disk.before) as u64;
        self.hand(node, life, Input::Synced { records });
        self.flush(node);
    }

    // Connections.

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    fn connect(&mut self, from: usize, life: u32, to: &Member, is_asked: bool) {
        if self.nodes[from].life != life || !self.is_up(from) {
            return;
        }
        let me = self.nodes[from].member.clone();
        let is_it = |it: &Node| (it.member.id, it.member.at) == (to.id, to.at);
        let target = self.nodes.iter().position(is_it);
        let target = target.filter(|it| !is_asked || self.nodes[*it].member.key == to.key);
        let target = target.filter(|it| self.is_up(*it) && !self.nodes[*it].is_paused);
        let target = target.filter(|it| !self.is_cut(from, *it) && !self.is_cut(*it, from));
        let group = self.nodes[from].machine.as_ref().and_then(Group::introduction);
        let group = group.map(|it| it.group);
        let answer = target.and_then(|it| {
            let machine = self.nodes[it].machine.as_ref()?;
            let is_let_in = machine.admits(&me, group).is_ok();
            is_let_in.then(|| machine.introduction()).flatten()
        });
        let (Some(target), Some(answer)) = (target, answer) else {
            if is_asked {
                let delay = self.rng.random_range(1_000..50_000);
                let input = Input::DialFailed(to.id);
                self.plan(self.now + delay, Due::Input { node: from, life, input });
            }
            return;
        };
        let conn = self.conns.len();
        let lives = [life, self.nodes[target].life];
        self.conns.push(Conn {
            nodes: [from, target],
            lives,
            is_open: [true, true],
            last: [self.now; 2],
            stuck: [VecDeque::new(), VecDeque::new()],
            lost_at: [None; 2],
            is_end_lost: [false; 2],
        });
        self.count("connection");
        let links = [conn * 2, conn * 2 + 1].map(|it| LinkId(it as u64));
        self.nodes[from].links.insert(links[0]);
        self.nodes[target].links.insert(links[1]);
        let caller = Input::Opened {
            link: links[0],
            opening: Opening {
                member: self.nodes[target].member.clone(),
                intent: Intent::Member,
                is_ours: true,
                life: answer.life,
            },
        };
        let called = Input::Opened {
            link: links[1],
            opening: Opening {
                member: me,
                intent: Intent::Member,
                is_ours: false,
                life: self.nodes[from].machine.as_ref().map(Group::life),
            },
        };
        self.hand(target, lives[1], called);
        self.hand(from, life, caller);
        let msg = Message::JoinAck(answer);
        self.hand(from, life, Input::Received { link: links[0], msg });
    }

    fn send(&mut self, node: usize, link: LinkId, msg: Message) {
        if let Some(client) = self.client_links.get(&link).copied() {
            self.on_answer(client, link, &msg);
            return;
        }
        let lane = usize::try_from(link.0).expect("few");
        let (conn, side) = (lane / 2, lane % 2);
        if !self.nodes[node].links.contains(&link) || !self.conns[conn].is_open[side] {
            return;
        }
        let to = self.conns[conn].nodes[1 - side];
        if self.is_cut(node, to) || self.conns[conn].lost_at[side].is_some() {
            self.conns[conn].lost_at[side].get_or_insert(self.now);
            self.conns[conn].stuck[side].push_back(msg);
            return;
        }
        let latency = self.weather.latency(&mut self.rng);
        let last = &mut self.conns[conn].last[side];
        let at = (self.now + latency).max(*last);
        *last = at;
        let number = self.number;
        self.plan(at, Due::Arrive { lane: lane ^ 1, number, msg });
    }

    fn arrive(&mut self, lane: usize, _number: u64, msg: Message) {
        let (conn, side) = (lane / 2, lane % 2);
        let it = &mut self.conns[conn];
        let (node, from, life) = (it.nodes[side], it.nodes[1 - side], it.lives[side]);
        if !it.is_open[side] {
            return;
        }
        if self.cuts.contains(&(from, node)) {
            self.conns[conn].lost_at[1 - side].get_or_insert(self.now);
            self.conns[conn].stuck[1 - side].push_back(msg);
            return;
        }
        self.hand(node, life, Input::Received { link: LinkId(lane as u64), msg });
    }

    /// This end is told that the connection is over.
    fn close(&mut self, lane: usize) {
        let (conn, side) = (lane / 2, lane % 2);
        if std::mem::replace(&mut self.conns[conn].is_open[side], false) {
            let (node, life) = (self.conns[conn].nodes[side], self.conns[conn].lives[side]);
            let link = LinkId(lane as u64);
            self.nodes[node].links.remove(&link);
            self.hand(node, life, Input::closed(link, ""));
        }
    }

    fn hang_up(&mut self, node: usize, link: LinkId) {
        if self.client_links.remove(&link).is_some() {
            return;
        }
        let lane = usize::try_from(link.0).expect("few");
        if !self.nodes[node].links.contains(&link) {
            return;
        }
        let (conn, side) = (lane / 2, lane % 2);
        let other = self.conns[conn].nodes[1 - side];
        if self.is_cut(node, other) || self.conns[conn].lost_at[side].is_some() {
            self.conns[conn].lost_at[side].get_or_insert(self.now);
            self.conns[conn].is_end_lost[side] = true;
        } else {
            // What was sent before arrives before.
            let at = self.conns[conn].last[side].max(self.now) + 1;
            self.plan(at, Due::Close { lane: lane ^ 1 });
        }
        self.plan(self.now, Due::Close { lane });
    }

    pub(crate) fn break_conn(&mut self, conn: usize) {
        let it = &mut self.conns[conn];
        if !it.is_open[0] && !it.is_open[1] {
            return;
        }
        it.stuck.iter_mut().for_each(VecDeque::clear);
        self.count("broken connection");
        for side in 0..2 {
            let delay = self.rng.random_range(0..1_500_000);
            self.plan(self.now + delay, Due::Close { lane: conn * 2 + side });
        }
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        if from == to || !self.cuts.insert((from, to)) {
            return;
        }
        let between = |it: &Conn| it.nodes == [from, to] || it.nodes == [to, from];
        let all: Vec<_> = (0..self.conns.len()).filter(|at| between(&self.conns[*at])).collect();
        for conn in all {
            if self.conns[conn].is_open != [false, false] && self.rng.random_bool(0.7) {
                let delay = self.rng.random_range(200_000..6_000_000);
                self.plan(self.now + delay, Due::BreakIfCut { conn });
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        if self.cuts.is_empty() {
            return;
        }
        self.trace(|| "HEAL".to_owned());
        self.cuts.clear();
        // The pauses between two tries grow with the silence, up to two minutes.
        for lane in 0..self.conns.len() * 2 {
            if let Some(lost_at) = self.conns[lane / 2].lost_at[lane % 2] {
                let delay = self.rng.random_range(0..=(self.now - lost_at).min(120_000_000));
                self.plan(self.now + delay, Due::Retransmit { lane });
            }
        }
    }

    /// The system of one end sends again what was lost.
    fn retransmit(&mut self, lane: usize) {
        let (conn, side) = (lane / 2, lane % 2);
        let [node, to] = [self.conns[conn].nodes[side], self.conns[conn].nodes[1 - side]];
        if self.is_cut(node, to) || self.conns[conn].lost_at[side].take().is_none() {
            return;
        }
        for msg in std::mem::take(&mut self.conns[conn].stuck[side]) {
            self.send(node, LinkId(lane as u64), msg);
        }
        if self.conns[conn].is_end_lost[side] {
            let at = self.conns[conn].last[side].max(self.now) + 1;
            self.plan(at, Due::Close { lane: lane ^ 1 });
        }
    }

    /// Whoever is in no group, or finds nobody, calls somebody that it was told of.
    fn seek(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life || !self.is_up(node) {
            return;
        }
        let Some(machine) = &self.nodes[node].machine else { return };
        let status = machine.status();
        let is_lost =
            status.role == Role::Joining || status.leader.is_none() && self.rng.random_bool(0.3);
        if is_lost && !self.nodes[node].founds | (status.role != Role::Joining) {
            let to = self.rng.random_range(0..self.nodes.len());
            if to != node {
                let to = self.nodes[to].member.clone();
                self.connect(node, life, &to, false);
            }
        }
        let delay = self.rng.random_range(300_000..1_000_000);
        self.plan(self.now + delay, Due::Seek { node, life });
    }

    /// All packets of a node vanish from now on, and nobody is told.
    pub(crate) fn silence(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|it| *it != node) {
            self.cuts.extend([(node, other), (other, node)]);
        }
    }

    // Whoever types.

    pub(crate) fn say(&mut self, node: usize, text: &str) {
        let life = self.nodes[node].life;
        let command = Command::Say { room: "general".into(), text: text.into() };
        self.hand(node, life, Input::Command(command));
    }

    /// Whether a text is final.
    pub(crate) fn is_said(&self, text: &str) -> bool {
        let is_it = |body: &Body| matches!(body, Body::Chat(chat) if *chat.payload == *text);
        self.checker.order.iter().any(|it| is_it(&it.body))
    }

    /// Nobody types any more; what waits is sent on.
    pub(crate) fn stop_typing(&mut self) {
        self.is_typing = false;
    }

    fn on_type(&mut self) {
        if !self.is_typing {
            return;
        }
        let node = self.rng.random_range(0..self.nodes.len());
        if self.is_up(node) {
            let room: Arc<str> = "general".into();
            let text: Arc<str> = format!("text {}", self.typed).into();
            self.typed += 1;
            let life = self.nodes[node].life;
            let command = Command::Say { room, text };
            self.hand(node, life, Input::Command(command));
        }
        let gap = self.rng.random_range(0..=self.weather.typing * 2);
        self.plan(self.now + gap.max(1_000), Due::Type);
    }

    pub(crate) fn begin(&mut self, members: usize) {
        for node in 0..members {
            let life = self.nodes[node].life;
            if life == 0 {
                self.start(node);
            }
        }
        let clients = self.weather.clients;
        for at in 0..clients {
            let node = self.rng.random_range(0..self.nodes.len());
            let number = Origin::program(self.rng.random());
            self.clients.push(Client {
                node,
                number,
                next: 1,
                link: None,
                waiting: BTreeSet::new(),
            });
            self.plan(self.now + 2_000_000, Due::Client { at });
        }
        self.plan(self.now + 500_000, Due::Type);
        self.plan(self.now + 1_000_000, Due::Weather);
    }

    /// A client sends a message, or one again.
    fn on_client(&mut self, at: usize) {
        if !self.is_typing {
            return;
        }
        let gap = self.rng.random_range(50_000..800_000);
        self.plan(self.now + gap, Due::Client { at });
        let node = self.clients[at].node;
        if !self.is_up(node) || self.nodes[node].is_paused {
            return;
        }
        let life = self.nodes[node].life;
        let link = match self.clients[at].link {
            Some((link, of)) if of == life && self.client_links.contains_key(&link) => link,
            _ => {
                self.number += 1;
                let link = LinkId(u64::MAX - self.number);
                self.client_links.insert(link, at);
                self.clients[at].link = Some((link, life));
                let member = self.nodes[node].member.clone();
                let input = Input::Opened {
                    link,
                    opening: Opening { member, intent: Intent::Client, is_ours: false, life: None },
                };
                self.hand(node, life, input);
                link
            }
        };
        let client = &mut self.clients[at];
        let number = if client.waiting.len() < 3 && self.rng.random_bool(0.7) {
            client.next += 1;
            client.waiting.insert(client.next - 1);
            client.next - 1
        } else {
            // Once more: one that waits, or even one that is done.
            let low = client.waiting.first().copied().unwrap_or(1);
            if client.next == 1 {
                return;
            }
            if self.rng.random_bool(0.8) { low } else { self.rng.random_range(1..client.next) }
        };
        let member = self.nodes[node].member.id;
        let origin = Origin { member, client: self.clients[at].number };
        let chat = Chat {
            msg_id: MsgId { origin, number },
            room_id: "general".into(),
            payload: client_text(at, number).into(),
        };
        let msg = Message::Chat(ChatReq { sender_id: member, chat });
        self.hand(node, life, Input::Received { link, msg });
    }

    fn on_answer(&mut self, client: usize, link: LinkId, msg: &Message) {
        if self.clients[client].link.map(|(it, _)| it) != Some(link) {
            return;
        }
        if let Message::ChatAck(ack) = msg {
            self.count("acknowledged");
            let number = ack.msg_id.number;
            self.clients[client].waiting.remove(&number);
            self.checker.on_acknowledged(ack.msg_id, &client_text(client, number));
        } else if matches!(msg, Message::Nack(_)) {
            self.count("a client refused");
        }
    }
}

/// What a client sends under a number.
fn client_text(client: usize, number: u64) -> String {
    format!("client {client} number {number}")
}

/// A long text, shortened.
fn brief(text: &str) -> String {
    text.chars().take(400).collect()
}
