//! A fleet of broadcasts without membership around them: machines that link as they are told,
//! publish, and deliver. What is tested is the broadcast alone, so that fleets can be large.

#![allow(clippy::wildcard_enum_match_arm, reason = "a host takes a few messages of many")]

use folkmoot::proto::message::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use folkmoot::machine::broadcast::{self, Broadcast, BroadcastMetrics, CertificateVerdict, Config};
use folkmoot::machine::{
    CallFailure, DialId, Effects, HostPinged, Input, LinkId, Machine, Never, NodeCall, NodeMachine,
    NodeMessage, NodeOpening, PingHost, Vocabulary,
};
use folkmoot::model::{Data, Endpoint, Incarnation, KeyPair, MessageId, Now, Rng};
use folkmoot::sim::{Boot, DurationRange, Weather, World, WorldOptions};
use rand::{RngExt as _, SeedableRng as _};

/// The pause before a broken link is made again.
const REDIAL: Duration = Duration::from_millis(300);

/// One host: a broadcast, and the neighbors that it calls.
#[derive(Debug)]
pub(crate) struct Host {
    pub broadcast: Broadcast,
    calls: Vec<Endpoint>,
    dialing: BTreeMap<DialId, Endpoint>,
    dialed: BTreeMap<LinkId, Endpoint>,
    tickets: u64,
    life: Incarnation,
    /// Refusals, each with whom it blames.
    pub blamed: Vec<(Option<Endpoint>, String)>,
}

/// What a host may be asked.
#[derive(Debug)]
pub(crate) struct Say(pub String, pub Data, pub bool);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Broadcast(broadcast::Timer),
    Dial(Endpoint),
}

impl From<broadcast::Timer> for Timer {
    fn from(timer: broadcast::Timer) -> Self {
        Self::Broadcast(timer)
    }
}

impl Vocabulary for Host {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = broadcast::Event;
    type ExtraEffect = PingHost;
}

impl Host {
    fn with(
        &mut self,
        fx: &mut Effects<Self>,
        work: impl FnOnce(&mut Broadcast, &mut Effects<Broadcast>),
    ) {
        let mut part = Effects::default();
        work(&mut self.broadcast, &mut part);
        for event in fx.absorb(part) {
            if let broadcast::Event::Malformed { from, reason } = event {
                self.blamed.push((self.broadcast.neighbor(from), reason));
            } else {
                fx.emit(event);
            }
        }
    }

    fn dial(&mut self, to: Endpoint, fx: &mut Effects<Self>) {
        self.tickets += 1;
        self.dialing.insert(DialId(self.tickets), to);
        fx.dial(DialId(self.tickets), to, Duration::from_secs(3));
    }

    fn on_message(&mut self, now: Now, link: LinkId, msg: Message, fx: &mut Effects<Self>) {
        self.with(fx, |it, part| match msg {
            Message::Publish(msg) => {
                it.on_publish(now, link, msg, |_| CertificateVerdict::Fails, part);
            }
            Message::Announce(msg) => it.on_announce(now, link, &msg, part),
            Message::Graft(msg) => it.on_graft(now, link, &msg, part),
            Message::Prune(_) => it.on_prune(link),
            Message::PartReq(msg) => it.on_part_req(link, msg, part),
            Message::Part(msg) => it.on_part(now, link, &msg, part),
            Message::Receipt(msg) => it.on_receipt(now, link, msg, part),
            Message::Have(msg) => it.on_have(now, link, &msg, part),
            Message::Lack(msg) => it.on_lack(now, link, &msg, part),
            Message::Slow(msg) => it.on_slow(now, link, msg, part),
            other => panic!("a broadcast says {other:?}"),
        });
    }
}

impl Machine for Host {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = Say;
    type ExtraInput = HostPinged;

    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Effects<Self>) {
        match input {
            Input::Start => {
                let life = self.life;
                self.with(fx, |it, _| it.begin(life, None));
                for to in self.calls.clone() {
                    self.dial(to, fx);
                }
            }
            Input::Opened { link, opening: NodeOpening::Accepted { from, .. } } => {
                let who = Endpoint::new(from, PORT);
                self.with(fx, |it, part| it.on_link_up(now, link, who, part));
            }
            Input::Opened { link, opening: NodeOpening::Dialed { ticket, .. } } => {
                let who = self.dialing.remove(&ticket).expect("it was dialed");
                self.dialed.insert(link, who);
                self.with(fx, |it, part| it.on_link_up(now, link, who, part));
            }
            Input::DialFailed(CallFailure { ticket, .. }) => {
                let who = self.dialing.remove(&ticket).expect("it was dialed");
                fx.set_timer(Timer::Dial(who), REDIAL);
            }
            Input::Received { link, msg } => self.on_message(now, link, msg, fx),
            Input::Closed { link, .. } => {
                self.with(fx, |it, part| it.on_link_down(now, link, part));
                if let Some(who) = self.dialed.remove(&link) {
                    fx.set_timer(Timer::Dial(who), REDIAL);
                }
            }
            Input::Expired(Timer::Broadcast(timer)) => {
                self.with(fx, |it, part| it.on_timer(now, timer, part));
            }
            Input::Expired(Timer::Dial(to)) => self.dial(to, fx),
            Input::Command(Say(topic, data, receipt)) => {
                self.with(fx, |it, part| it.publish(now, 0, (topic, data, receipt), part));
            }
            Input::Garbled { .. } | Input::Synced { .. } | Input::Extra(HostPinged { .. }) => {}
        }
    }
}

impl NodeMachine for Host {
    fn snapshot(&self) -> Vec<Never> {
        Vec::new()
    }

    fn is_trusted(&self, _: LinkId) -> bool {
        true
    }
}

const PORT: u16 = 6001;

pub(crate) fn host(number: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    Endpoint::new(IpAddr::from([10, 2, high, low]), PORT)
}

pub(crate) fn keys(number: u16) -> KeyPair {
    KeyPair::generate(&mut Rng::seed_from_u64(u64::from(number)))
}

/// A fleet, and what was published and delivered in it so far.
pub(crate) struct Cast {
    pub world: World<Host>,
    pub hosts: Vec<Endpoint>,
    /// Whom each host calls, by their numbers.
    pub calls: Vec<Vec<u16>>,
    /// How often each host delivered each message.
    pub delivered: BTreeMap<MessageId, BTreeMap<Endpoint, u32>>,
    /// What honest hosts published, with topic and data.
    pub published: BTreeMap<MessageId, (Endpoint, Option<(String, Data)>)>,
    /// What each host was asked to publish and has not published yet.
    pub waiting: BTreeMap<Endpoint, VecDeque<(String, Data)>>,
    /// How many messages each host has missed, by origin.
    pub missed: BTreeMap<(Endpoint, Endpoint), u64>,
    /// What was delivered, by identity.
    pub heard: BTreeMap<MessageId, (String, Data)>,
    pub receipts: BTreeMap<MessageId, u32>,
    pub hops_max: u32,
    /// Links crossed by each delivery since it was cleared.
    pub hops: Vec<u32>,
    pub age_max: u64,
}

impl Cast {
    /// A fleet of `count` whose later hosts call three earlier ones, those with more links first.
    pub(crate) fn new(seed: u64, count: u16) -> Self {
        Self::with(seed, count, Config::default())
    }

    pub(crate) fn with(seed: u64, count: u16, config: Config) -> Self {
        let config = Config { requires_proof: false, ..config };
        let weather = Weather { latency: DurationRange::micros(1_000, 20_000), ..Weather::calm() };
        let options = WorldOptions { weather, steps_max: u64::MAX, ..WorldOptions::default() };
        let mut world = World::new(seed, options);
        let mut rng = Rng::seed_from_u64(seed);
        let mut ends: Vec<u16> = vec![0];
        let mut calls = Vec::new();
        for number in 0..count {
            let mut chosen = BTreeSet::new();
            while chosen.len() < usize::from(number.min(3)) {
                let to = if rng.random_ratio(1, 3) {
                    rng.random_range(0..number)
                } else {
                    ends[rng.random_range(0..ends.len())]
                };
                if to != number {
                    chosen.insert(to);
                }
            }
            for to in &chosen {
                ends.extend([number, *to]);
            }
            calls.push(chosen.into_iter().collect::<Vec<_>>());
        }
        for (number, calls) in (0..).zip(&calls) {
            let calls: Vec<_> = calls.iter().map(|to| host(*to)).collect();
            world.add_host(
                host(number),
                Box::new(move |boot: Boot<'_, Never>| Host {
                    broadcast: Broadcast::new(config, host(number), keys(number)),
                    calls: calls.clone(),
                    dialing: BTreeMap::new(),
                    dialed: BTreeMap::new(),
                    tickets: 0,
                    life: Incarnation(u64::from(boot.boots)),
                    blamed: Vec::new(),
                }),
            );
        }
        Self {
            world,
            hosts: (0..count).map(host).collect(),
            calls,
            delivered: BTreeMap::new(),
            published: BTreeMap::new(),
            waiting: BTreeMap::new(),
            missed: BTreeMap::new(),
            heard: BTreeMap::new(),
            receipts: BTreeMap::new(),
            hops_max: 0,
            hops: Vec::new(),
            age_max: 0,
        }
    }

    /// The same, all of it started and linked.
    pub(crate) fn started(seed: u64, count: u16) -> Self {
        let mut cast = Self::new(seed, count);
        cast.start();
        cast
    }

    pub(crate) fn start(&mut self) {
        for host in self.hosts.clone() {
            self.world.boot(host);
        }
        self.run(Duration::from_secs(1));
    }

    pub(crate) fn publish(&mut self, from: Endpoint, data: impl Into<Data>) {
        self.say(from, data, false);
    }

    pub(crate) fn say(&mut self, from: Endpoint, data: impl Into<Data>, receipt: bool) {
        let before = self.published.len();
        self.say_in_turn(from, data, receipt);
        self.run(Duration::from_micros(1));
        assert_eq!(self.published.len(), before + 1, "{from} published");
    }

    /// Has a host publish, at once or when others have kept up.
    pub(crate) fn say_in_turn(&mut self, from: Endpoint, data: impl Into<Data>, receipt: bool) {
        let data = data.into();
        let said = ("news".to_owned(), data.clone());
        self.waiting.entry(from).or_default().push_back(said);
        self.world.command(from, Say("news".to_owned(), data, receipt));
    }

    pub(crate) fn run(&mut self, span: Duration) {
        self.world.run_for(span);
        for (_, at, event) in self.world.take_events() {
            match event {
                broadcast::Event::Delivered { message, .. } => {
                    let counts = self.delivered.entry(message.id).or_default();
                    *counts.entry(at).or_default() += 1;
                    self.hops.push(message.hops);
                    self.hops_max = self.hops_max.max(message.hops);
                    self.age_max = self.age_max.max(message.age_ms);
                    self.heard.insert(message.id, (message.topic, message.data));
                }
                broadcast::Event::Published { id, .. } => {
                    let said = self.waiting.get_mut(&at).and_then(VecDeque::pop_front);
                    self.published.insert(id, (at, said));
                }
                broadcast::Event::Receipts { id, count } => _ = self.receipts.insert(id, count),
                broadcast::Event::Missed { origin, count } => {
                    *self.missed.entry((at, origin)).or_default() += count;
                }
                broadcast::Event::PublishRefused { reason, .. } => panic!("refused: {reason}"),
                broadcast::Event::Malformed { .. } => unreachable!("it was kept by the host"),
            }
        }
    }

    /// What is missing or too much among `hosts`: each is to have each message exactly once.
    pub(crate) fn fault(&self, hosts: &[Endpoint]) -> Option<String> {
        for (id, (origin, said)) in &self.published {
            let counts = self.delivered.get(id);
            let lacks: Vec<_> = hosts
                .iter()
                .filter(|host| *host != origin)
                .filter(|host| counts.and_then(|counts| counts.get(host)) != Some(&1))
                .collect();
            if !lacks.is_empty() {
                let counts = lacks.iter().map(|it| counts.and_then(|counts| counts.get(*it)));
                let counts: Vec<_> = counts.collect();
                return Some(format!("{id:?} of {origin}: {lacks:?} have it {counts:?} times"));
            }
            if self.heard.get(id) != said.as_ref() && hosts.len() > 1 {
                return Some(format!("{id:?} was altered"));
            }
        }
        let alien = self.delivered.keys().find(|id| !self.published.contains_key(id));
        if let Some(id) = alien {
            return Some(format!("{id:?} was delivered and never published"));
        }
        let twice = self.delivered.values().flatten().find(|(_, count)| **count > 1);
        twice.map(|(at, count)| format!("{at} delivered a message {count} times"))
    }

    /// Runs until nothing is missing, and a while longer.
    #[track_caller]
    pub(crate) fn settle(&mut self, hosts: &[Endpoint], limit: Duration) {
        let end = self.world.now().after(limit);
        while let Some(fault) = self.fault(hosts) {
            assert!(self.world.now() < end, "SEED={}: {fault}", self.world.seed());
            self.run(Duration::from_millis(50));
        }
        self.run(Duration::from_secs(3));
        assert_eq!(self.fault(hosts), None, "SEED={}", self.world.seed());
    }

    pub(crate) fn metrics(&self, host: Endpoint) -> BroadcastMetrics {
        self.world.machine(host).expect("it lives").broadcast.metrics()
    }

    /// The sum of one count over all that live.
    pub(crate) fn sum(&self, of: impl Fn(&BroadcastMetrics) -> u64) -> u64 {
        let up = self.hosts.iter().filter(|host| self.world.is_up(**host));
        up.map(|host| of(&self.metrics(*host))).sum()
    }

    /// Whom honest hosts blame.
    pub(crate) fn blamed(&self, by: &[Endpoint]) -> BTreeSet<Endpoint> {
        let up = by.iter().filter_map(|host| self.world.machine(*host));
        up.flat_map(|host| host.blamed.iter().filter_map(|(whom, _)| *whom)).collect()
    }

    /// Those of `hosts` that are connected with the first one by links among `hosts` alone.
    pub(crate) fn connected(&self, hosts: &[Endpoint]) -> Vec<Endpoint> {
        let mut edges: BTreeMap<Endpoint, Vec<Endpoint>> = BTreeMap::new();
        for (from, calls) in (0..).zip(&self.calls) {
            for to in calls {
                edges.entry(host(from)).or_default().push(host(*to));
                edges.entry(host(*to)).or_default().push(host(from));
            }
        }
        let (mut found, mut open) = (BTreeSet::from([hosts[0]]), vec![hosts[0]]);
        while let Some(next) = open.pop() {
            for to in edges.get(&next).into_iter().flatten() {
                if hosts.contains(to) && found.insert(*to) {
                    open.push(*to);
                }
            }
        }
        found.into_iter().collect()
    }
}
