//! A driver that means harm: it runs one real machine, plays everybody else, and checks after
//! every input what must hold of any driver's machine.
//!
//! Others shake hands with true proofs made by their own keys, so that they are heard; what they
//! say then, and whether links break, timers are late or clocks jump, the source decides.

use folkmoot::proto::message::Message;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use folkmoot::machine::{
    CallFailure, DialError, DialId, Effect, Effects, HostAnswer, HostPinged, Input, LinkId,
    NodeCall, NodeMachine, NodeOpening, PingHost,
};
use folkmoot::model::{Endpoint, Nonce, Now, PublicKey, Time, WallTime};
use folkmoot::proto::hello::{Hello, HelloAck, HelloProof, Intent, NodeInfo, VERSION};
use folkmoot::proto::line::{LINE_BYTES_MAX, encode};

use super::cast::{AT, Actor, CALLED, CALLER, moment, proof};
use super::source::Source;
use super::words::{self, KINDS};

/// Links that are open at once; more would only take time.
const LINKS_MAX: usize = 24;

/// What one input may cause, links and open questions not counted: see [`Stage::check_cost`].
const SENDS_BASE: usize = 220;
const DIALS_BASE: usize = 8;

/// A machine that can be put on the stage.
pub trait Player: NodeMachine<Record: PartialEq> {
    /// Who this is.
    const ME: Actor;

    /// One that remembers these records.
    fn born(records: Vec<Self::Record>) -> Self;

    /// What a local program may ask of it, if anything.
    fn command() -> Option<Self::Command>;

    /// Everything that must hold after every input.
    fn check(&self, ledger: &mut Ledger, live: &BTreeSet<LinkId>);

    /// A record was written.
    fn check_record(record: &Self::Record, ledger: &mut Ledger);

    /// How many messages one input may cause beside those to each link: what is open here and is
    /// repeated to a seed that comes back.
    fn open_cases(&self) -> usize;
}

/// What the checks remember of earlier inputs.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Whether the wall clock was always within an hour of the truth.
    pub is_clock_wrong: bool,
    /// The highest ended life of each endpoint, and its key.
    pub ended: BTreeMap<Endpoint, (u64, Reverse<PublicKey>)>,
    /// The registry's entries as they were last checked.
    pub entries: BTreeMap<Endpoint, folkmoot::model::entry::RegistryEntry>,
    /// What each yes was given to, by what there may be one of.
    pub given: BTreeMap<String, String>,
}

/// The other end of one link.
#[derive(Debug, Default)]
struct Link {
    who: Option<Actor>,
    /// The last challenge that the machine put, and its key.
    challenge: Option<(Nonce, PublicKey)>,
    /// Node info by which the other end introduced itself.
    info: Option<NodeInfo>,
    /// Whom the machine wanted, if it called.
    called: Option<Endpoint>,
}

/// The most that one input has caused, for people who set the bounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Most {
    pub sends: usize,
    pub dials: usize,
    pub effects: usize,
    pub bytes: usize,
}

/// One machine and everybody else.
#[derive(Debug)]
pub struct Stage<M: Player> {
    node: M,
    now: Now,
    links: BTreeMap<LinkId, Link>,
    live: BTreeSet<LinkId>,
    /// Hung up by the machine; its driver has not said yet that they are closed.
    hung: Vec<LinkId>,
    dials: Vec<(DialId, Endpoint)>,
    tickets: BTreeSet<DialId>,
    hosts: Vec<IpAddr>,
    timers: BTreeMap<M::Timer, Time>,
    last_link: u64,
    records: Vec<M::Record>,
    said: Vec<Message>,
    is_over: bool,
    pub ledger: Ledger,
    pub most: Most,
}

impl<M: Player> Stage<M> {
    /// Plays the whole of `src`.
    pub fn play(src: &mut Source<'_>) -> Self {
        let mut stage = Self::new();
        stage.feed(Input::Start);
        let settled = src.byte() % 8;
        if settled > 0 {
            stage.settle(u16::from(settled) - 1);
        }
        while !src.is_empty() && !stage.is_over {
            stage.step(src);
        }
        stage
    }

    pub fn new() -> Self {
        let mono = Time::from_micros(1_000_000);
        Self {
            node: M::born(Vec::new()),
            now: Now { mono, wall: AT },
            links: BTreeMap::new(),
            live: BTreeSet::new(),
            hung: Vec::new(),
            dials: Vec::new(),
            tickets: BTreeSet::new(),
            hosts: Vec::new(),
            timers: BTreeMap::new(),
            last_link: 0,
            records: Vec::new(),
            said: Vec::new(),
            is_over: false,
            ledger: Ledger::default(),
            most: Most::default(),
        }
    }

    pub const fn node(&self) -> &M {
        &self.node
    }

    /// What the machine has said lately.
    pub fn said(&self) -> &[Message] {
        &self.said
    }

    /// Whom the machine is calling.
    pub fn dials(&self) -> &[(DialId, Endpoint)] {
        &self.dials
    }

    /// The same, for the caller to answer.
    pub fn take_dials(&mut self) -> Vec<(DialId, Endpoint)> {
        std::mem::take(&mut self.dials)
    }

    /// Time goes by until `until`, and every timer fires when it is due.
    pub fn pass(&mut self, until: Time) {
        while self.timers.values().any(|due| *due <= until) {
            self.some_timer(&mut Source::new(&[]));
        }
        self.advance(until.max(self.now.mono));
    }

    /// An honest beginning: the seeds are linked, and so are the first `peers` peers, as members.
    pub fn settle(&mut self, peers: u16) {
        for _ in 0..4 {
            for (ticket, to) in std::mem::take(&mut self.dials) {
                self.answer_dial(ticket, to, Actor::at(to), &mut Source::new(&[]));
            }
            self.serve();
        }
        for peer in (1..=peers).map(Actor::Peer).filter(|it| *it != M::ME) {
            self.call_in(peer, peer.info(0), Intent::Link, true);
        }
        self.serve();
    }

    /// Answers what honest seeds would: comparisons of registries, and requests to register.
    fn serve(&mut self) {
        let asked: Vec<_> = std::mem::take(&mut self.said);
        for msg in asked {
            let is_seed = |link: &&LinkId| {
                let at = self.links.get(link).filter(|it| it.called.is_some());
                at.is_some_and(|it| matches!(it.who, Some(Actor::Seed(_))))
            };
            let seeds: Vec<_> = self.live.iter().filter(is_seed).copied().collect();
            for link in seeds {
                if let Message::RegisterReq(request) = &msg {
                    self.receive(link, super::cast::admission(request.subject()).into());
                } else if let Message::SeedDigest(digest) = &msg {
                    self.receive(link, digest.clone().into());
                }
            }
        }
    }

    fn step(&mut self, src: &mut Source<'_>) {
        match src.byte() % 32 {
            0..=13 => self.say_something(src),
            14..=16 => {
                let (who, intent) = (Actor::any(src), intent(src));
                let info = if src.chance(70) { who.info(0) } else { words::node_info(who, src) };
                let is_true = !src.chance(10);
                self.call_in(who, info, intent, is_true);
            }
            17 | 18 => self.some_dial(src),
            19..=22 => self.some_timer(src),
            23 => self.wait(src),
            24 => self.jump(src),
            25 => self.close_something(src),
            26 => {
                if let Some(link) = self.some_link(src) {
                    self.feed(Input::Garbled { link, reason: src.text() });
                }
            }
            27 => self.accept_only(src),
            28 => {
                let answers = [HostAnswer::Answered, HostAnswer::Silent, HostAnswer::NoPing];
                let host = self.hosts.pop().unwrap_or(Ipv4Addr::LOCALHOST.into());
                self.feed(Input::Extra(HostPinged { host, answer: src.one(&answers) }));
            }
            29 => self.reflect(src),
            30 => self.restart(),
            _ => {
                if src.chance(10)
                    && let Some(command) = M::command()
                {
                    self.feed(Input::Command(command));
                    self.is_over = true;
                }
            }
        }
    }

    /// Any link that is up, or that the machine has hung up and that still has something to say.
    fn some_link(&mut self, src: &mut Source<'_>) -> Option<LinkId> {
        let all: Vec<_> = self.links.keys().copied().collect();
        (!all.is_empty()).then(|| src.one(&all))
    }

    fn say_something(&mut self, src: &mut Source<'_>) {
        let Some(link) = self.some_link(src) else { return self.accept_only(src) };
        let kind = src.below(KINDS);
        let who = self.links.get(&link).and_then(|it| it.who).unwrap_or(Actor::Peer(6));
        let speaker = if src.chance(90) { who } else { Actor::any(src) };
        let msg = words::message(kind, speaker, src);
        let times = if src.chance(10) { 1 + src.below(20) } else { 1 };
        for _ in 0..times {
            self.receive(link, msg.clone());
        }
    }

    /// A message comes.
    pub fn receive(&mut self, link: LinkId, msg: Message) {
        self.feed(Input::Received { link, msg });
    }

    fn accept(&mut self, from: IpAddr) -> LinkId {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.links.insert(link, Link::default());
        self.live.insert(link);
        self.feed(Input::Opened { link, opening: NodeOpening::Accepted { from, binding: None } });
        link
    }

    fn accept_only(&mut self, src: &mut Source<'_>) {
        if self.links.len() < LINKS_MAX {
            self.accept([127, 0, 0, src.byte()].into());
        }
    }

    /// Somebody calls and shakes hands, with a true proof or without.
    #[allow(clippy::needless_pass_by_value, reason = "a node info is made for one call")]
    pub fn call_in(&mut self, who: Actor, info: NodeInfo, intent: Intent, is_true: bool) -> LinkId {
        if self.links.len() >= LINKS_MAX {
            return LinkId(self.last_link);
        }
        let link = self.accept(who.endpoint().ip());
        let nonce = words::nonce(&mut Source::new(&who.keys().public().as_bytes()[..16]));
        self.receive(link, Hello { version: VERSION, intent, nonce, info: info.clone() }.into());
        let Some(entry) = self.links.get_mut(&link) else { return link };
        (entry.who, entry.info) = (Some(who), Some(info.clone()));
        if let Some((nonce, challenger)) = entry.challenge {
            let keys = if is_true { who.keys() } else { Actor::Peer(6).keys() };
            let proof = proof(CALLER, &info, (&nonce, &challenger), keys);
            self.receive(link, HelloProof { proof }.into());
        }
        link
    }

    /// A call of the machine fails, or is answered: by whom it wanted, or by somebody else.
    fn some_dial(&mut self, src: &mut Source<'_>) {
        if self.dials.is_empty() {
            return self.some_timer(src);
        }
        let (ticket, to) = self.dials.swap_remove(src.below(self.dials.len()));
        if src.chance(30) || self.links.len() >= LINKS_MAX {
            let reasons =
                [DialError::Refused, DialError::TimedOut, DialError::Unreachable, DialError::Busy];
            return self.feed(Input::DialFailed(CallFailure { ticket, reason: src.one(&reasons) }));
        }
        let who = if src.chance(15) { Some(Actor::any(src)) } else { Actor::at(to) };
        self.answer_dial(ticket, to, who, src);
    }

    fn answer_dial(
        &mut self,
        ticket: DialId,
        to: Endpoint,
        who: Option<Actor>,
        src: &mut Source<'_>,
    ) {
        let Some(who) = who else {
            _ = self.dialed(ticket, to, None);
            return;
        };
        let info = if src.chance(25) { words::node_info(who, src) } else { who.info(0) };
        let keys = if src.chance(8) { Actor::any(src) } else { who };
        self.answer_with(ticket, to, (who, keys), info);
    }

    /// A call is connected, and `who` answers with this node info and a true proof.
    pub fn answer_dial_as(&mut self, ticket: DialId, to: Endpoint, who: Actor, info: NodeInfo) {
        self.answer_with(ticket, to, (who, who), info);
    }

    fn dialed(&mut self, ticket: DialId, to: Endpoint, who: Option<Actor>) -> LinkId {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.links.insert(link, Link { who, called: Some(to), ..Link::default() });
        self.live.insert(link);
        self.feed(Input::Opened { link, opening: NodeOpening::Dialed { ticket, binding: None } });
        link
    }

    fn answer_with(
        &mut self,
        ticket: DialId,
        to: Endpoint,
        (who, signer): (Actor, Actor),
        info: NodeInfo,
    ) {
        let link = self.dialed(ticket, to, Some(who));
        let Some(entry) = self.links.get_mut(&link) else { return };
        entry.info = Some(info.clone());
        if let Some((nonce, challenger)) = entry.challenge {
            let proof = proof(CALLED, &info, (&nonce, &challenger), signer.keys());
            self.receive(link, HelloAck { version: VERSION, nonce, proof, info }.into());
        }
    }

    /// The next timer fires, in time or late.
    fn some_timer(&mut self, src: &mut Source<'_>) {
        let Some((timer, due)) = self.timers.iter().min_by_key(|(_, due)| **due) else { return };
        let (timer, due) = (timer.clone(), *due);
        let late = if src.chance(10) { u64::from(src.byte()) * 20_000 } else { 0 };
        let at = Time::from_micros(due.as_micros() + late).max(self.now.mono);
        self.advance(at);
        self.timers.remove(&timer);
        self.feed(Input::Expired(timer));
    }

    fn advance(&mut self, at: Time) {
        let span = at.since(self.now.mono).as_millis() as u64;
        self.now.mono = at;
        self.now.wall = WallTime(self.now.wall.0.saturating_add(span));
    }

    /// Time goes by and all that is due fires, some of it for want of a processor much later.
    fn wait(&mut self, src: &mut Source<'_>) {
        let seconds = u64::from(src.byte()) * if src.chance(10) { 3_600 } else { 1 } / 4;
        let until = self.now.mono.after(Duration::from_secs(seconds));
        for _ in 0..40 {
            match self.timers.iter().min_by_key(|(_, due)| **due) {
                Some((_, due)) if *due <= until => self.some_timer(&mut Source::new(&[])),
                Some(_) | None => break,
            }
        }
        self.advance(until);
    }

    /// The wall clock is set.
    fn jump(&mut self, src: &mut Source<'_>) {
        if src.chance(50) {
            self.now.wall = moment(src);
            self.ledger.is_clock_wrong = true;
        } else {
            let back = u64::from(src.byte()) * 1_000;
            self.now.wall = WallTime(self.now.wall.0.saturating_sub(back));
        }
    }

    fn close_something(&mut self, src: &mut Source<'_>) {
        let link = match self.hung.pop() {
            Some(link) if src.chance(70) => Some(link),
            Some(link) => {
                self.hung.push(link);
                self.some_link(src)
            }
            None => self.some_link(src),
        };
        if let Some(link) = link {
            self.links.remove(&link);
            self.hung.retain(|it| *it != link);
            self.live.remove(&link);
            self.feed(Input::Closed { link, reason: src.text() });
        }
    }

    /// What the machine said comes back to it, from the same or from another.
    fn reflect(&mut self, src: &mut Source<'_>) {
        if self.said.is_empty() {
            return;
        }
        let said = src.one(&self.said);
        if let Some(link) = self.some_link(src) {
            self.receive(link, said);
        }
    }

    /// The process dies and is started again with what it wrote down, or with a rewrite of that.
    fn restart(&mut self) {
        self.links.clear();
        self.live.clear();
        self.hung.clear();
        self.dials.clear();
        self.timers.clear();
        self.hosts.clear();
        self.tickets.clear();
        let snapshot = self.node.snapshot();
        self.node = M::born(std::mem::take(&mut self.records));
        assert_eq!(self.node.snapshot(), snapshot, "the journal and the state differ");
        self.node = M::born(snapshot.clone());
        assert_eq!(self.node.snapshot(), snapshot, "a rewrite of the journal forgets something");
        self.records = snapshot;
        self.feed(Input::Start);
    }

    /// Hands over one input, carries out its effects, and checks everything.
    pub fn feed(&mut self, input: Input<M>) {
        let links = self.live.len();
        let open = self.node.open_cases();
        let mut fx = Effects::default();
        self.node.handle(self.now, input, &mut fx);
        let mut cost = Most::default();
        for effect in fx.drain() {
            cost.effects += 1;
            self.carry_out(effect, &mut cost);
        }
        self.check_cost(cost, links, open);
        self.node.check(&mut self.ledger, &self.live);
    }

    fn carry_out(&mut self, effect: Effect<M>, cost: &mut Most) {
        match effect {
            Effect::Send { link, msg } => {
                assert!(self.live.contains(&link), "{} was sent on a dead link", msg.name());
                let bytes = encode(&msg).len();
                assert!(bytes <= LINE_BYTES_MAX, "{} has {bytes} bytes", msg.name());
                cost.sends += 1;
                cost.bytes += bytes;
                self.hear(link, msg);
            }
            Effect::SendAll { links, msg } => {
                for link in links {
                    self.carry_out(Effect::Send { link, msg: msg.clone() }, cost);
                }
            }
            Effect::Dial(NodeCall { ticket, to, timeout }) => {
                assert!(self.tickets.insert(ticket), "a ticket was used twice");
                assert!(timeout > Duration::ZERO);
                cost.dials += 1;
                self.dials.push((ticket, to));
            }
            Effect::Hangup { link } => {
                assert!(self.live.remove(&link), "a dead link was hung up");
                self.hung.push(link);
            }
            Effect::Extra(PingHost { host }) => self.hosts.push(host),
            Effect::SetTimer { timer, after } => {
                _ = self.timers.insert(timer, self.now.mono.after(after));
            }
            Effect::StopTimer(timer) => _ = self.timers.remove(&timer),
            Effect::Persist(record) => {
                M::check_record(&record, &mut self.ledger);
                self.records.push(record);
            }
            Effect::Emit(_) => {}
        }
    }

    fn hear(&mut self, link: LinkId, msg: Message) {
        if let Some(entry) = self.links.get_mut(&link) {
            match &msg {
                Message::Hello(hello) => entry.challenge = Some((hello.nonce, hello.info.key)),
                Message::HelloAck(ack) => entry.challenge = Some((ack.nonce, ack.info.key)),
                _ => {}
            }
        }
        if self.said.len() > 64 {
            self.said.clear();
        }
        self.said.push(msg);
    }

    /// One input causes at most: to each link, four messages; what is open here, once, to a seed
    /// that comes back; and one portion of a page. Nobody makes a machine shout.
    fn check_cost(&mut self, cost: Most, links: usize, open: usize) {
        self.most.sends = self.most.sends.max(cost.sends);
        self.most.dials = self.most.dials.max(cost.dials);
        self.most.effects = self.most.effects.max(cost.effects);
        self.most.bytes = self.most.bytes.max(cost.bytes);
        let sends = SENDS_BASE + 4 * links + open;
        assert!(cost.sends <= sends, "{} messages for one input", cost.sends);
        let dials = DIALS_BASE + 4 * links + open;
        assert!(cost.dials <= dials, "{} calls for one input", cost.dials);
    }
}

fn intent(src: &mut Source<'_>) -> Intent {
    src.one(&[Intent::Link, Intent::Link, Intent::Errand, Intent::Probe, Intent::Direct])
}
