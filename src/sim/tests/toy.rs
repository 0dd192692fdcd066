//! A machine for the simulator's own tests: it links, talks, takes notes, and trusts nobody.
//!
//! It checks what the contract promises a machine: messages of a link come in order and without a
//! gap, a link is announced before it is used, and its end comes once and last.

use crate::proto::message::Message;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};

use crate::machine::{
    CallFailure, DialError, DialId, Effects, HostAnswer, HostPinged, Input, LinkId, Machine,
    NodeCall, NodeMachine, NodeMessage, NodeOpening, PingHost, Vocabulary,
};
use crate::model::{Endpoint, Now, Rng};
use crate::proto::refusal::{ErrorCode, ErrorReply};

use crate::sim::Boot;

/// Commands of the toy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Dial(Endpoint, Duration),
    /// Send a text on all links.
    Say(&'static str),
    /// Send a text on a link that need not exist.
    SayOn(LinkId, &'static str),
    /// Write a number down, then send it on all links and report it.
    Note(u64),
    /// Hang up on all links.
    Hangup,
    /// Hang up on all links, and send something afterwards.
    HangupAndSay,
    TickAfter(Duration),
    PingHost(IpAddr),
    /// Sets a timer that is due at once, for ever.
    Spin,
}

/// Events of the toy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToyReport {
    Up(LinkId),
    Down(LinkId),
    Failed(DialError),
    Heard(String),
    Garbled(String),
    Noted(u64),
    Ticked(Now),
    Pinged(HostAnswer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    Live,
    Tick,
    Spin,
}

#[derive(Debug, Default)]
struct Line {
    said: u64,
    heard: u64,
    hung_up: bool,
}

/// Machine for the simulator's own tests.
#[derive(Debug)]
pub(super) struct Toy {
    rng: Rng,
    friends: Vec<Endpoint>,
    boots: u32,
    notes: Vec<u64>,
    links: BTreeMap<LinkId, Line>,
    tickets: u64,
}

impl Vocabulary for Toy {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Alarm;
    type Record = u64;
    type Event = ToyReport;
    type ExtraEffect = PingHost;
}

impl Toy {
    /// A toy that acts only on orders.
    pub(super) fn idle(boot: Boot<'_, u64>) -> Self {
        Self::busy(boot, &[])
    }

    /// A toy that dials, talks, notes and hangs up on its own, among `friends`.
    pub(super) fn busy(boot: Boot<'_, u64>, friends: &[Endpoint]) -> Self {
        Self {
            rng: Rng::seed_from_u64(boot.seed),
            friends: friends.to_vec(),
            boots: boot.boots,
            notes: boot.records.to_vec(),
            links: BTreeMap::new(),
            tickets: 0,
        }
    }

    pub(super) fn notes(&self) -> &[u64] {
        &self.notes
    }

    pub(super) fn links(&self) -> Vec<LinkId> {
        self.links.keys().copied().collect()
    }

    fn say(&mut self, text: &str, fx: &mut Effects<Self>) {
        for (link, line) in self.links.iter_mut().filter(|(_, line)| !line.hung_up) {
            line.said += 1;
            fx.send(*link, words(line.said, text));
        }
    }

    fn note(&mut self, number: u64, fx: &mut Effects<Self>) {
        self.notes.push(number);
        fx.persist(number);
        self.say(&format!("note {number}"), fx);
        fx.emit(ToyReport::Noted(number));
    }

    fn dial(&mut self, to: Endpoint, timeout: Duration, fx: &mut Effects<Self>) {
        self.tickets += 1;
        fx.dial(DialId(self.tickets), to, timeout);
    }

    fn hang_up(&mut self, fx: &mut Effects<Self>) {
        for (link, line) in self.links.iter_mut().filter(|(_, line)| !line.hung_up) {
            line.hung_up = true;
            fx.hangup(*link);
        }
    }

    fn live(&mut self, fx: &mut Effects<Self>) {
        match self.rng.random_range(0..10) {
            0..3 => {
                let to = self.friends[self.rng.random_range(0..self.friends.len())];
                self.dial(to, Duration::from_secs(3), fx);
            }
            3..6 => self.say("hello", fx),
            6..9 => {
                let number = u64::from(self.boots) * 1_000_000 + self.notes.len() as u64;
                self.note(number, fx);
            }
            _ => {
                if self.links.len() > 4 {
                    self.hang_up(fx);
                }
            }
        }
        fx.set_timer(Alarm::Live, Duration::from_millis(self.rng.random_range(1..400)));
    }

    fn obey(&mut self, order: Order, fx: &mut Effects<Self>) {
        match order {
            Order::Dial(to, timeout) => self.dial(to, timeout, fx),
            Order::Say(text) => self.say(text, fx),
            Order::SayOn(link, text) => fx.send(link, words(1, text)),
            Order::Note(number) => self.note(number, fx),
            Order::Hangup => self.hang_up(fx),
            Order::HangupAndSay => {
                let links = self.links();
                self.hang_up(fx);
                fx.send(links[0], words(99, "and another thing"));
            }
            Order::TickAfter(after) => fx.set_timer(Alarm::Tick, after),
            Order::PingHost(ip) => fx.ping_host(ip),
            Order::Spin => fx.set_timer(Alarm::Spin, Duration::ZERO),
        }
    }
}

/// A message with this number on its link.
pub(super) fn words(number: u64, text: &str) -> Message {
    Message::Error(ErrorReply::new(ErrorCode::Busy, format!("{number} {text}")))
}

/// Text of a message that [`words`] made, without the number.
pub(super) fn text_of(msg: &Message) -> &str {
    #[allow(clippy::wildcard_enum_match_arm, reason = "toys speak in one kind of message")]
    match msg {
        Message::Error(reply) => reply.reason.split_once(' ').map_or("", |(_, text)| text),
        _ => "",
    }
}

fn number_of(msg: &Message) -> u64 {
    #[allow(clippy::wildcard_enum_match_arm, reason = "toys speak in one kind of message")]
    match msg {
        Message::Error(reply) => {
            reply.reason.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}

impl Machine for Toy {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = Order;
    type ExtraInput = HostPinged;

    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Effects<Self>) {
        match input {
            Input::Start => {
                if !self.friends.is_empty() {
                    fx.set_timer(Alarm::Live, Duration::from_millis(1));
                }
            }
            Input::Opened { link, opening: NodeOpening::Accepted { .. } }
            | Input::Opened { link, opening: NodeOpening::Dialed { .. } } => {
                assert!(self.links.insert(link, Line::default()).is_none(), "{link:?} came twice");
                fx.emit(ToyReport::Up(link));
            }
            Input::DialFailed(CallFailure { reason, .. }) => fx.emit(ToyReport::Failed(reason)),
            Input::Received { link, msg } => {
                let line = self.links.get_mut(&link).expect("an open link");
                line.heard += 1;
                assert_eq!(number_of(&msg), line.heard, "order on {link:?}");
                fx.emit(ToyReport::Heard(text_of(&msg).to_owned()));
            }
            Input::Garbled { reason, .. } => fx.emit(ToyReport::Garbled(reason)),
            Input::Closed { link, .. } => {
                assert!(self.links.remove(&link).is_some(), "{link:?} closed twice or never open");
                fx.emit(ToyReport::Down(link));
            }
            Input::Expired(Alarm::Live) => self.live(fx),
            Input::Expired(Alarm::Tick) => fx.emit(ToyReport::Ticked(now)),
            Input::Expired(Alarm::Spin) => fx.set_timer(Alarm::Spin, Duration::ZERO),
            Input::Synced { .. } => unreachable!("the simulator holds back"),
            Input::Extra(HostPinged { answer, .. }) => fx.emit(ToyReport::Pinged(answer)),
            Input::Command(order) => self.obey(order, fx),
        }
    }
}

impl NodeMachine for Toy {
    fn snapshot(&self) -> Vec<u64> {
        self.notes.clone()
    }

    fn is_trusted(&self, _: LinkId) -> bool {
        true
    }
}
