//! Composition of the machines of a seed and of a peer, and routing of their events to each other.
//!
//! Services do not know each other; a node receives the events of one and passes them to the
//! others. No protocol decision is made here, and nothing is touched: nodes are pure machines too.

mod peer;
mod refusals;
mod seed;
mod status;

use crate::machine::{
    CallFailure, Effect, Effects, HostPinged, Input, LinkId, Machine, NodeCall, NodeMachine,
    NodeMessage, NodeOpening, PingHost, Vocabulary,
};

pub use peer::{PeerConfig, PeerNode};
pub use refusals::Refusal;
pub use seed::{SeedConfig, SeedNode};
pub use status::{LinkStatus, NetworkStatus, PeerStatus, SeedStatus};

/// The vocabulary of a seed.
pub mod seed_kind {
    pub use super::seed::{Command, Event, Timer};
}

/// The vocabulary of a peer.
pub mod peer_kind {
    pub use super::peer::{Command, Event, Timer};
}

/// Either of the two, so that one world can hold a whole fleet.
#[derive(Debug)]
pub enum Node {
    /// A membership authority.
    Seed(Box<SeedNode>),
    /// A member of the fleet.
    Peer(Box<PeerNode>),
}

/// Timer of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Timer of a seed.
    Seed(seed::Timer),
    /// Timer of a peer.
    Peer(peer::Timer),
}

/// Durable record of a node.
#[derive(Clone, Debug)]
pub enum Record {
    /// Record of a seed.
    Seed(<SeedNode as Vocabulary>::Record),
    /// Record of a peer.
    Peer(<PeerNode as Vocabulary>::Record),
}

/// Event that a node reports.
#[derive(Debug)]
pub enum Event {
    /// Event of a seed.
    Seed(seed::Event),
    /// Event of a peer.
    Peer(peer::Event),
}

/// Command to a node.
#[derive(Debug)]
pub enum Command {
    /// Command to a seed.
    Seed(seed::Command),
    /// Command to a peer.
    Peer(peer::Command),
}

impl Vocabulary for Node {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Record;
    type Event = Event;
    type ExtraEffect = PingHost;
}

impl Machine for Node {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = Command;
    type ExtraInput = HostPinged;

    fn handle(&mut self, now: crate::model::Now, input: Input<Self>, fx: &mut Effects<Self>) {
        match self {
            Self::Seed(node) => {
                let timer = |timer| match timer {
                    Timer::Seed(timer) => Some(timer),
                    Timer::Peer(_) => None,
                };
                let command = |command| match command {
                    Command::Seed(command) => Some(command),
                    Command::Peer(_) => None,
                };
                let Some(input) = translate(input, timer, command) else { return };
                let mut inner = Effects::<SeedNode>::default();
                node.handle(now, input, &mut inner);
                lift(inner, fx, Timer::Seed, Record::Seed, Event::Seed);
            }
            Self::Peer(node) => {
                let timer = |timer| match timer {
                    Timer::Peer(timer) => Some(timer),
                    Timer::Seed(_) => None,
                };
                let command = |command| match command {
                    Command::Peer(command) => Some(command),
                    Command::Seed(_) => None,
                };
                let Some(input) = translate(input, timer, command) else { return };
                let mut inner = Effects::<PeerNode>::default();
                node.handle(now, input, &mut inner);
                lift(inner, fx, Timer::Peer, Record::Peer, Event::Peer);
            }
        }
    }
}

impl NodeMachine for Node {
    fn snapshot(&self) -> Vec<Record> {
        match self {
            Self::Seed(node) => node.snapshot().into_iter().map(Record::Seed).collect(),
            Self::Peer(node) => node.snapshot().into_iter().map(Record::Peer).collect(),
        }
    }

    fn is_trusted(&self, link: LinkId) -> bool {
        match self {
            Self::Seed(node) => node.is_trusted(link),
            Self::Peer(node) => node.is_trusted(link),
        }
    }
}

/// The same input for another machine; `None` when it is meant for a node of the other role.
fn translate<A: NodeMachine, B: NodeMachine>(
    input: Input<A>,
    timer: impl FnOnce(A::Timer) -> Option<B::Timer>,
    command: impl FnOnce(A::Command) -> Option<B::Command>,
) -> Option<Input<B>> {
    Some(match input {
        Input::Start => Input::Start,
        Input::Opened { link, opening } => Input::Opened { link, opening },
        Input::DialFailed(failure) => Input::DialFailed(failure),
        Input::Received { link, msg } => Input::Received { link, msg },
        Input::Garbled { link, reason } => Input::Garbled { link, reason },
        Input::Closed { link, reason } => Input::Closed { link, reason },
        Input::Synced { records } => Input::Synced { records },
        Input::Expired(name) => Input::Expired(timer(name)?),
        Input::Command(it) => Input::Command(command(it)?),
        Input::Extra(pinged) => Input::Extra(pinged),
    })
}

fn lift<A: NodeMachine, B: NodeMachine>(
    mut inner: Effects<A>,
    fx: &mut Effects<B>,
    timer: impl Fn(A::Timer) -> B::Timer,
    record: impl Fn(A::Record) -> B::Record,
    event: impl Fn(A::Event) -> B::Event,
) {
    for effect in inner.drain() {
        match effect {
            Effect::Send { link, msg } => fx.send(link, msg),
            Effect::SendAll { links, msg } => fx.send_all(links, msg),
            Effect::Dial(call) => fx.call(call),
            Effect::Hangup { link } => fx.hangup(link),
            Effect::SetTimer { timer: name, after } => fx.set_timer(timer(name), after),
            Effect::StopTimer(name) => fx.stop_timer(timer(name)),
            Effect::Persist(it) => fx.persist(record(it)),
            Effect::Emit(it) => fx.emit(event(it)),
            Effect::Extra(extra) => fx.extra(extra),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for what it looks for")]

    use rand::SeedableRng as _;

    use super::*;
    use crate::machine::membership::seedbook::SeedBook;
    use crate::machine::quorum::QuorumRule;
    use crate::machine::{NodeMachine, NodeOpening};
    use crate::model::{Endpoint, KeyPair, Now, Rng, SeedId};
    use crate::proto::message::Message;
    use crate::proto::refusal::{ErrorCode, ErrorReply};

    /// Codes of the refusals with which `node` answers a stranger's `msg`.
    fn refusals<M: NodeMachine>(node: &mut M, msg: Message) -> Vec<ErrorCode> {
        let (link, from, mut fx) = (LinkId(1), [127, 0, 0, 1].into(), Effects::default());
        node.handle(
            Now::default(),
            Input::Opened { link, opening: NodeOpening::Accepted { from, binding: None } },
            &mut fx,
        );
        node.handle(Now::default(), Input::Received { link, msg }, &mut fx);
        fx.drain()
            .filter_map(|effect| match effect {
                Effect::Send { msg: Message::Error(ErrorReply { code, .. }), .. } => Some(code),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_seed_answers_the_question_that_a_peer_refuses() {
        let (me, keys) =
            (Endpoint::new([10, 0, 0, 1].into(), 5_000), KeyPair::from_secret([1; 32]));
        let (rng, question) =
            (|| Rng::seed_from_u64(1), || Message::PeerListReq(Default::default()));
        let nobody = SeedBook::new(QuorumRule::Majority, &[]);
        let config = SeedConfig::default();
        let id = (SeedId(1), me, keys.clone());
        let mut seed = SeedNode::new(config, id, nobody, Vec::new(), rng());
        assert_eq!(refusals(&mut seed, question()), []);
        let mut peer = PeerNode::without_seeds(PeerConfig::default(), (me, keys), &[], &[], rng());
        assert_eq!(refusals(&mut peer, question()), [ErrorCode::WrongRole]);
    }
}
