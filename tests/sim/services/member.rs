//! One process of a fleet: a node, and beside it a chat's member, a rollout's node, a swarm's peer
//! and perhaps a member of a Byzantine order, which share its crashes, its paths and its disk, and
//! hear from the node whom the seeds call dead, as a running program has them hear.
//!
//! The services of a host listen at one address: who calls says first which of them it calls.

#![allow(clippy::wildcard_enum_match_arm, reason = "a wrapper picks a few words of many")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use folkmoot::machine::rollout::{CommandId, CommandRequest};
use folkmoot::machine::{
    CallFailure, DialId, Effect, Effects, HostPinged, Input, LinkId, Machine, NodeCall,
    NodeMessage, NodeOpening, PingHost,
};
use folkmoot::model::{Now, PublicKey};
use folkmoot::node::peer_kind;
use folkmoot::node::{self, Node};
use folkmoot::sim::Simulated;

use super::Ledger;
use super::chat::{self, ChatHost};
use super::order::{self, OrderHost};
use super::rollout::{self, RolloutHost};
use super::swarm::{self, SwarmHost};
use crate::common::Carries;

/// Interval at which the services hear of certified ends.
const HEED: Duration = Duration::from_secs(1);

/// Number of such intervals after which the seeds are asked about members that are away.
const ASK: u64 = 5;

/// A service of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Node,
    Chat,
    Rollout,
    Swarm,
    Order,
}

const SERVICES: u64 = 5;

impl Service {
    /// The service whose call it is, by the process's ticket.
    const fn of(ticket: DialId) -> Self {
        match ticket.0 % SERVICES {
            0 => Self::Node,
            1 => Self::Chat,
            2 => Self::Rollout,
            3 => Self::Swarm,
            _ => Self::Order,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    /// The first word on a link: the service that is called.
    To(Service),
    Node(NodeMessage),
    Chat(chat::Word),
    Rollout(rollout::Word),
    Swarm(swarm::Word),
    Order(order::Word),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Node(node::Timer),
    Chat(chat::Timer),
    Rollout(rollout::Timer),
    Swarm(swarm::Timer),
    Order(order::Timer),
    /// The services hear of certified ends.
    Heed,
}

#[derive(Clone, Debug)]
pub(crate) enum Record {
    Node(node::Record),
    Chat(chat::Record),
    Rollout(folkmoot::machine::rollout::Record),
    Swarm(swarm::Record),
    Order(order::Record),
}

#[derive(Debug)]
pub(crate) enum Command {
    Node(node::Command),
    Chat(chat::Command),
    Rollout(rollout::Command),
    Order(order::Command),
}

#[derive(Debug)]
pub(crate) enum Told {
    Node(node::Event),
    Chat(chat::Told),
    Rollout(rollout::Told),
    Swarm(swarm::Told),
    Order(order::Told),
}

/// A machine that is part of a process.
trait Part: Simulated {
    const SERVICE: Service;
    fn word(msg: Self::Message) -> Word;
    fn timer(timer: Self::Timer) -> Timer;
    fn record(record: Self::Record) -> Record;
    fn told(event: Self::Event) -> Told;
}

macro_rules! part {
    ($machine:ty, $service:ident) => {
        impl Part for $machine {
            const SERVICE: Service = Service::$service;

            fn word(msg: Self::Message) -> Word {
                Word::$service(msg)
            }

            fn timer(timer: Self::Timer) -> Timer {
                Timer::$service(timer)
            }

            fn record(record: Self::Record) -> Record {
                Record::$service(record)
            }

            fn told(event: Self::Event) -> Told {
                Told::$service(event)
            }
        }
    };
}

part!(Node, Node);
part!(ChatHost, Chat);
part!(RolloutHost, Rollout);
part!(SwarmHost, Swarm);
part!(OrderHost, Order);

/// The services beside a peer's node.
pub(crate) struct Services {
    pub(crate) chat: ChatHost,
    pub(crate) rollout: RolloutHost,
    pub(crate) swarm: SwarmHost,
    pub(crate) order: Option<OrderHost>,
}

/// A process: a seed's node alone, or a peer's with its services.
pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) services: Option<Box<Services>>,
    /// Links of which the service is known.
    links: BTreeMap<LinkId, Service>,
    /// Links of callers that have not said yet which service they call.
    callers: BTreeMap<LinkId, IpAddr>,
    ledger: Ledger<Service>,
    heeded: BTreeSet<PublicKey>,
    rounds: u64,
}

impl Member {
    pub(crate) fn new(node: Node, services: Option<Services>) -> Self {
        Self {
            node,
            services: services.map(Box::new),
            links: BTreeMap::new(),
            callers: BTreeMap::new(),
            ledger: Ledger::default(),
            heeded: BTreeSet::new(),
            rounds: 0,
        }
    }

    /// Hands an input to one part, whichever it is, and takes over its effects.
    fn hand(&mut self, now: Now, service: Service, input: Common, fx: &mut Effects<Self>) {
        let ledger = &mut self.ledger;
        match (service, &mut self.services) {
            (Service::Node, _) => {
                let msg = |it| if let Word::Node(it) = it { Some(it) } else { None };
                run(&mut self.node, now, input.of(msg), ledger, fx);
            }
            (Service::Chat, Some(it)) => {
                let msg = |it| if let Word::Chat(it) = it { Some(it) } else { None };
                run(&mut it.chat, now, input.of(msg), ledger, fx);
            }
            (Service::Rollout, Some(it)) => {
                let msg = |it| if let Word::Rollout(it) = it { Some(it) } else { None };
                run(&mut it.rollout, now, input.of(msg), ledger, fx);
            }
            (Service::Swarm, Some(it)) => {
                let msg = |it| if let Word::Swarm(it) = it { Some(it) } else { None };
                run(&mut it.swarm, now, input.of(msg), ledger, fx);
            }
            (Service::Order, Some(it)) => {
                let msg = |it| if let Word::Order(it) = it { Some(it) } else { None };
                if let Some(it) = &mut it.order {
                    run(it, now, input.of(msg), ledger, fx);
                }
            }
            (_, None) => {}
        }
    }

    fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Effects<Self>) {
        let ledger = &mut self.ledger;
        match (timer, &mut self.services) {
            (Timer::Node(timer), _) => {
                run(&mut self.node, now, Input::Expired(timer), ledger, fx);
            }
            (Timer::Chat(timer), Some(it)) => {
                run(&mut it.chat, now, Input::Expired(timer), ledger, fx);
            }
            (Timer::Rollout(timer), Some(it)) => {
                run(&mut it.rollout, now, Input::Expired(timer), ledger, fx);
            }
            (Timer::Swarm(timer), Some(it)) => {
                run(&mut it.swarm, now, Input::Expired(timer), ledger, fx);
            }
            (Timer::Order(timer), Some(it)) => {
                if let Some(it) = &mut it.order {
                    run(it, now, Input::Expired(timer), ledger, fx);
                }
            }
            (Timer::Heed, _) => self.heed(now, fx),
            (_, None) => {}
        }
    }

    fn on_command(&mut self, now: Now, command: Command, fx: &mut Effects<Self>) {
        let ledger = &mut self.ledger;
        match (command, &mut self.services) {
            (Command::Node(command), _) => {
                run(&mut self.node, now, Input::Command(command), ledger, fx);
            }
            (Command::Chat(command), Some(it)) => {
                run(&mut it.chat, now, Input::Command(command), ledger, fx);
            }
            (Command::Rollout(command), Some(it)) => {
                run(&mut it.rollout, now, Input::Command(command), ledger, fx);
            }
            (Command::Order(command), Some(it)) => {
                if let Some(it) = &mut it.order {
                    run(it, now, Input::Command(command), ledger, fx);
                }
            }
            (_, None) => {}
        }
    }

    /// Tells chat and rollout of the members whose end the seeds certify, and now and then asks the
    /// seeds about those that are away.
    fn heed(&mut self, now: Now, fx: &mut Effects<Self>) {
        fx.set_timer(Timer::Heed, HEED);
        let Node::Peer(peer) = &self.node else { return };
        let keys: BTreeSet<_> = peer.ended().map(|it| it.key).collect();
        if keys != self.heeded {
            let heeded = std::mem::replace(&mut self.heeded, keys.clone());
            for key in keys.difference(&heeded) {
                let certified = folkmoot::machine::chat::Command::Certified(*key);
                self.on_command(now, Command::Chat(chat::Command::Group(certified)), fx);
            }
            self.on_command(now, Command::Rollout(rollout::Command::Dead(keys)), fx);
        }
        self.rounds += 1;
        if !self.rounds.is_multiple_of(ASK) {
            return;
        }
        let Some(services) = &self.services else { return };
        let status = services.rollout.machine().status(now.mono);
        let away = status.peers.iter().filter(|it| !it.is_linked);
        let away = away.filter_map(|it| status.roster.get(&it.node_id));
        let places = away.chain(&status.gone_by_seeds).map(|it| (it.host.parse(), it.port));
        let places: Vec<_> = places.filter_map(|(ip, port)| Some((ip.ok()?, port))).collect();
        for (ip, port) in places {
            let ask = peer_kind::Command::AskSeeds(folkmoot::model::Endpoint::new(ip, port));
            self.on_command(now, Command::Node(node::Command::Peer(ask)), fx);
        }
    }
}

/// An input that any part may get.
enum Common {
    Start,
    Accepted(LinkId, IpAddr),
    Dialed(LinkId, DialId),
    DialFailed(CallFailure),
    Received(LinkId, Word),
    Closed(LinkId, String),
    Synced(u64),
    Pinged(HostPinged),
}

impl Common {
    fn of<M: Simulated>(self, msg: impl Fn(Word) -> Option<M::Message>) -> Input<M> {
        match self {
            Self::Start => Input::Start,
            Self::Accepted(link, from) => {
                Input::Opened { link, opening: NodeOpening::Accepted { from, binding: None } }
            }
            Self::Dialed(link, ticket) => {
                Input::Opened { link, opening: NodeOpening::Dialed { ticket, binding: None } }
            }
            Self::DialFailed(failure) => Input::DialFailed(failure),
            Self::Received(link, word) => {
                Input::Received { link, msg: msg(word).expect("a word of the link's service") }
            }
            Self::Closed(link, reason) => Input::Closed { link, reason },
            Self::Synced(records) => Input::Synced { records },
            Self::Pinged(pinged) => Input::Extra(pinged),
        }
    }
}

/// Hands an input to a part, and takes over its effects.
fn run<P: Part>(
    part: &mut P,
    now: Now,
    input: Input<P>,
    ledger: &mut Ledger<Service>,
    fx: &mut Effects<Member>,
) {
    let mut own = Effects::default();
    part.handle(now, input, &mut own);
    for effect in own.drain() {
        match effect {
            Effect::Send { link, msg } => fx.send(link, P::word(msg)),
            Effect::SendAll { links, msg } => fx.send_all(links, P::word(msg)),
            Effect::Dial(NodeCall { ticket, to, timeout }) => {
                let ticket = DialId(ticket.0 * SERVICES + P::SERVICE as u64);
                fx.dial(ticket, to, timeout);
            }
            Effect::Hangup { link } => fx.hangup(link),
            Effect::SetTimer { timer, after } => fx.set_timer(P::timer(timer), after),
            Effect::StopTimer(timer) => fx.stop_timer(P::timer(timer)),
            Effect::Persist(record) => {
                ledger.write(P::SERVICE);
                fx.persist(P::record(record));
            }
            Effect::Emit(event) => fx.emit(P::told(event)),
            Effect::Extra(ping) => fx.extra(ping),
        }
    }
}

vocabulary!(Member, Record);

impl Machine for Member {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = Command;
    type ExtraInput = HostPinged;

    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Effects<Self>) {
        match input {
            Input::Start => {
                for service in
                    [Service::Node, Service::Chat, Service::Rollout, Service::Swarm, Service::Order]
                {
                    self.hand(now, service, Common::Start, fx);
                }
                if self.services.is_some() {
                    fx.set_timer(Timer::Heed, HEED);
                }
            }
            Input::Opened { link, opening: NodeOpening::Accepted { from, .. } } => {
                self.callers.insert(link, from);
            }
            Input::Opened { link, opening: NodeOpening::Dialed { ticket, .. } } => {
                let service = Service::of(ticket);
                self.links.insert(link, service);
                fx.send(link, Word::To(service));
                let ticket = DialId(ticket.0 / SERVICES);
                self.hand(now, service, Common::Dialed(link, ticket), fx);
            }
            Input::DialFailed(CallFailure { ticket, reason }) => {
                let service = Service::of(ticket);
                let failure = CallFailure { ticket: DialId(ticket.0 / SERVICES), reason };
                self.hand(now, service, Common::DialFailed(failure), fx);
            }
            Input::Received { link, msg: Word::To(service) } => {
                let from = self.callers.remove(&link).expect("the first word on a link");
                self.links.insert(link, service);
                self.hand(now, service, Common::Accepted(link, from), fx);
            }
            Input::Received { link, msg } => {
                let service = self.links[&link];
                self.hand(now, service, Common::Received(link, msg), fx);
            }
            Input::Closed { link, reason } => {
                self.callers.remove(&link);
                if let Some(service) = self.links.remove(&link) {
                    self.hand(now, service, Common::Closed(link, reason), fx);
                }
            }
            Input::Synced { records } => {
                for (service, records) in self.ledger.sync(records) {
                    if matches!(service, Service::Chat | Service::Rollout | Service::Order) {
                        self.hand(now, service, Common::Synced(records), fx);
                    }
                }
            }
            Input::Expired(timer) => self.on_timer(now, timer, fx),
            Input::Command(command) => self.on_command(now, command, fx),
            Input::Extra(pinged) => self.hand(now, Service::Node, Common::Pinged(pinged), fx),
            Input::Garbled { .. } => unreachable!("members send no garbage"),
        }
    }
}

impl Simulated for Member {
    const HEARS_OF_SYNCS: bool = true;

    /// A node's driver holds back; the other services do it themselves.
    fn is_held(&self, effect: &Effect<Self>) -> bool {
        match effect {
            Effect::Send { msg, .. } | Effect::SendAll { msg, .. } => {
                matches!(msg, Word::Node(_) | Word::To(Service::Node))
            }
            Effect::Dial(call) => Service::of(call.ticket) == Service::Node,
            Effect::Hangup { link } => self.links.get(link) == Some(&Service::Node),
            Effect::Emit(told) => matches!(told, Told::Node(_)),
            Effect::Extra(PingHost { .. }) => true,
            Effect::SetTimer { .. } | Effect::StopTimer(_) | Effect::Persist(_) => false,
        }
    }

    fn name(msg: &Word) -> &'static str {
        match msg {
            Word::To(_) => "to",
            Word::Node(msg) => Node::name(msg),
            Word::Chat(msg) => ChatHost::name(msg),
            Word::Rollout(msg) => RolloutHost::name(msg),
            Word::Swarm(msg) => SwarmHost::name(msg),
            Word::Order(msg) => OrderHost::name(msg),
        }
    }

    fn snapshot(&self) -> Option<Vec<Record>> {
        let mut records: Vec<_> =
            Simulated::snapshot(&self.node)?.into_iter().map(Record::Node).collect();
        if let Some(it) = &self.services {
            records.extend(it.chat.snapshot()?.into_iter().map(Record::Chat));
            records.extend(it.rollout.snapshot()?.into_iter().map(Record::Rollout));
            records.extend(it.swarm.snapshot()?.into_iter().map(Record::Swarm));
            if let Some(it) = &it.order {
                records.extend(it.snapshot()?.into_iter().map(Record::Order));
            }
        }
        Some(records)
    }

    fn deadliness(effect: &Effect<Self>) -> u32 {
        use folkmoot::machine::rollout::Record as Line;
        match effect {
            Effect::Send { msg: Word::Rollout(rollout::Word::Said(msg)), .. } => {
                rollout::weight(msg)
            }
            Effect::Persist(Record::Rollout(
                Line::Prepared(_) | Line::Committed(_) | Line::Refused { .. },
            )) => 10,
            Effect::Emit(Told::Chat(_) | Told::Rollout(_) | Told::Swarm(_) | Told::Order(_)) => 0,
            _ => 1,
        }
    }
}

/// An order to a rollout, as a command to its process.
pub(crate) fn order(ticket: CommandId, command: folkmoot::machine::rollout::Command) -> Command {
    Command::Rollout(rollout::Command::Order(CommandRequest { ticket, command }))
}

impl Carries for Member {
    fn node(&self) -> &Node {
        &self.node
    }

    fn node_event(event: &Told) -> Option<&node::Event> {
        if let Told::Node(event) = event { Some(event) } else { None }
    }

    fn node_record(record: &Record) -> Option<&node::Record> {
        if let Record::Node(record) = record { Some(record) } else { None }
    }
}
