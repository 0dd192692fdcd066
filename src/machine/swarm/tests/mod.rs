//! Every rule of the swarm, played by scripted neighbors.

mod choking;
mod fetching;
mod linking;
mod proving;

use std::time::Duration;

use rand::SeedableRng as _;

use super::*;
use crate::machine::{LinkId, Machine as _};
use crate::model::{Now, Rng, Time, WallTime};
use crate::proto::swarm::*;

const ME: PeerId = PeerId(1_002);
const SECOND: Duration = Duration::from_secs(1);

/// The link of the neighbor `number`, whose id is 1000 + `number`.
const fn link(number: u64) -> LinkId {
    LinkId(number)
}

fn piece(index: u32) -> PieceIndex {
    PieceIndex(index)
}

/// Pieces of 4 bytes; the last has 2.
fn content(count: u32) -> Vec<u8> {
    (0..count * 4 - 2).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn bytes(count: u32, index: u32) -> Vec<u8> {
    content(count).chunks(4).nth(index as usize).unwrap().to_vec()
}

fn whole_tree(count: u32) -> Tree {
    let leaves: Vec<_> = content(count).chunks(4).map(leaf_hash).collect();
    Tree::of_leaves(&leaves)
}

/// A machine, and its effects since it was last looked at.
struct TestSwarm {
    swarm: Swarm,
    now: Time,
    count: u32,
    fx: Fx,
}

impl TestSwarm {
    fn new(config: Config, count: u32, have: &[u32], setup: impl FnOnce(&mut SwarmSetup)) -> Self {
        let pieces = Pieces::new((u64::from(count) * 4).saturating_sub(2), 4).unwrap();
        let mut bits = Bitfield::none(count);
        have.iter().for_each(|index| assert!(bits.set(piece(*index))));
        let mut setup_of = SwarmSetup {
            config,
            me: ME,
            pieces,
            have: bits,
            roster: None,
            tree: None,
            files: FileListState::None,
        };
        setup(&mut setup_of);
        let swarm = Swarm::new(setup_of, Rng::seed_from_u64(1));
        let mut stage = Self { swarm, now: Time::ZERO, count, fx: Fx::default() };
        stage.give(Input::Start);
        stage.take();
        stage
    }

    /// The assignment's way with peers 1001 to 1009, of which 1001 has all pieces.
    fn assignment(count: u32, have: &[u32]) -> Self {
        let config = Config::assignment(2, 5 * SECOND, 15 * SECOND);
        Self::new(config, count, have, |it| {
            it.roster = Some(SwarmRoster::new((1_001..1_010).map(|id| (PeerId(id), id == 1_001))));
        })
    }

    /// The way of shares, with the whole tree known.
    fn share(count: u32, have: &[u32]) -> Self {
        Self::new(Config::share(), count, have, |it| it.tree = Some(whole_tree(count)))
    }

    fn give(&mut self, input: Input) {
        let now = Now { mono: self.now, wall: WallTime(0) };
        self.swarm.handle(now, input, &mut self.fx);
        let unchoked = self.swarm.status().neighbors.iter().filter(|it| it.is_unchoked).count();
        assert!(unchoked <= self.swarm.config.preferred + 1, "S3");
    }

    fn take(&mut self) -> Vec<Effect> {
        self.fx.drain().collect()
    }

    /// Lets a neighbor call.
    fn comes(&mut self, number: u32) {
        let peer = PeerId(1_000 + number);
        self.give(Input::Opened {
            link: link(number.into()),
            opening: Opening { peer, place: None },
        });
        self.take();
    }

    /// Lets a neighbor call that has these pieces.
    fn comes_with(&mut self, number: u32, have: &[u32]) {
        self.comes(number);
        let mut bits = Bitfield::none(self.count);
        have.iter().for_each(|index| assert!(bits.set(piece(*index))));
        self.hear(number, Message::Bitfield(bits.to_wire()));
    }

    /// Gives the machine a neighbor's message; returns the effects.
    fn hear(&mut self, number: u32, msg: Message) -> Vec<Effect> {
        self.give(Input::Received { link: link(number.into()), msg });
        self.take()
    }

    fn timer(&mut self, timer: Timer) -> Vec<Effect> {
        self.give(Input::Expired(timer));
        self.take()
    }

    fn later(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    /// Lets a neighbor send a piece as it should be.
    fn send_piece(&mut self, number: u32, index: u32) -> Vec<Effect> {
        let data = bytes(self.count, index);
        self.hear(number, Message::Piece { index: piece(index), data })
    }

    fn stored(&mut self, number: u32, index: u32, outcome: Stored) -> Vec<Effect> {
        self.give(Input::Extra(ExtraInput::Stored {
            index: piece(index),
            from: link(number.into()),
            outcome,
        }));
        self.take()
    }
}

/// The messages among effects, with the numbers of their receivers.
fn said(fx: &[Effect]) -> Vec<(u64, Message)> {
    let said = fx.iter().filter_map(|it| {
        let Effect::Send { link, msg } = it else { return None };
        Some((link.0, msg.clone()))
    });
    said.collect()
}

/// The requests among effects: the neighbor asked, and the piece.
fn requests(fx: &[Effect]) -> Vec<(u64, u32)> {
    let requests = said(fx).into_iter().filter_map(|(link, msg)| {
        let Message::Request(index) = msg else { return None };
        Some((link, index.0))
    });
    requests.collect()
}

fn events(fx: &[Effect]) -> Vec<Event> {
    let events = fx.iter().filter_map(|it| {
        let Effect::Emit(event) = it else { return None };
        Some(event.clone())
    });
    events.collect()
}

fn uploads(fx: &[Effect]) -> Vec<(u64, u32)> {
    let uploads = fx.iter().filter_map(|it| {
        let Effect::Extra(ExtraEffect::Upload(link, index, _)) = it else { return None };
        Some((link.0, index.0))
    });
    uploads.collect()
}

fn is_odd(fx: &[Effect]) -> bool {
    events(fx).iter().any(|it| matches!(it, Event::Odd(..)))
}

fn hangs_up(fx: &[Effect], number: u64) -> bool {
    fx.contains(&Effect::Hangup { link: link(number) })
}
