//! A swarm among neighbors that say anything.

use folkmoot::proto::swarm::ProtocolVariant;
use std::time::Duration;

use folkmoot::machine::swarm::{
    Bitfield, Config, Effect, ExtraEffect, ExtraInput, FileListState, Fx, Input, Opening,
    PeerAddrId, Stored, Swarm, SwarmRoster, SwarmSetup, Timer, Tree, leaf_hash,
};
use folkmoot::machine::{LinkId, Machine as _};
use folkmoot::model::{Now, Rng, Ticket, Time, WallTime};
use folkmoot::proto::swarm::frame::{Decoder, Frame, FrameLimits, encode};
use folkmoot::proto::swarm::handshake::{Expect, Handshake};
use folkmoot::proto::swarm::{Message, PeerId, PieceIndex, Pieces};
use rand::SeedableRng as _;

/// The pieces.
const CONTENTS: [&[u8]; 3] = [b"abcd", b"efgh", b"ijk"];

/// What is unchoked, and what the disk holds, as the effects say.
struct Desk {
    swarm: Swarm,
    unchoked: Vec<LinkId>,
    places: usize,
    now: Time,
    written: Vec<PieceIndex>,
    is_checked: bool,
}

impl Desk {
    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        // What the disk answers comes after what it was asked.
        while let Some(input) = inputs.pop() {
            let mut fx = Fx::default();
            let now = Now { mono: self.now, wall: WallTime(self.now.as_micros() / 1_000) };
            self.swarm.handle(now, input, &mut fx);
            assert!(fx.len() < 4_096, "the cost of one input is bounded");
            for effect in fx {
                match effect {
                    Effect::Send { link, msg: Message::Unchoke } => self.unchoked.push(link),
                    Effect::Send { link, msg: Message::Choke } => {
                        self.unchoked.retain(|it| *it != link);
                    }
                    Effect::Send { msg, .. } => {
                        let is_piece = matches!(msg, Message::Piece { .. } | Message::Rest { .. });
                        assert!(!is_piece, "pieces are uploads");
                        assert!(encode(&msg).len() < 512 * 1_024);
                    }
                    Effect::Extra(ExtraEffect::Upload(link, index, offset)) => {
                        assert!(self.unchoked.contains(&link), "S3: it is choked");
                        assert!(offset < 4, "there is something to send");
                        assert!(self.swarm.have().has(index), "it is there");
                        inputs.insert(
                            0,
                            Input::Extra(ExtraInput::Uploaded { link, index, bytes: 1 }),
                        );
                    }
                    Effect::Extra(ExtraEffect::Store { index, data, from, expected }) => {
                        assert!(data.len() <= 4, "a piece has its length");
                        assert!(expected.is_some() == self.is_checked, "S2");
                        let is_true = expected.is_none_or(|it| it == leaf_hash(&data));
                        let outcome = if is_true { Stored::Yes } else { Stored::False };
                        if is_true {
                            self.written.push(index);
                        }
                        inputs.insert(0, Input::Extra(ExtraInput::Stored { index, from, outcome }));
                    }
                    Effect::Hangup { link } => self.unchoked.retain(|it| *it != link),
                    Effect::SendAll { .. } => unreachable!("it sends to one at a time"),
                    Effect::Persist(never) => match never {},
                    Effect::Extra(ExtraEffect::Drop(..))
                    | Effect::Dial(_)
                    | Effect::SetTimer { .. }
                    | Effect::StopTimer(_)
                    | Effect::Emit(_) => {}
                }
                assert!(self.unchoked.len() <= self.places, "S3: at most k + 1 are unchoked");
            }
        }
        let status = self.swarm.status();
        let open: Vec<_> = status.neighbors.iter().map(|it| it.link).collect();
        self.unchoked.retain(|it| open.contains(it));
    }
}

/// A swarm of three pieces: which kind, and how much of it is there, is in `first`.
fn setup(first: u8, is_share: bool) -> (Pieces, SwarmSetup) {
    let pieces = Pieces::new(11, 4).expect("three pieces");
    let leaves: Vec<_> = CONTENTS.iter().map(|it| leaf_hash(it)).collect();
    let whole = Tree::of_leaves(&leaves);
    let ids = (1..=6).map(|it| (PeerId(it), it == 2));
    let config = if is_share {
        Config::share()
    } else {
        Config::assignment(2, Duration::from_secs(5), Duration::from_secs(15))
    };
    let mut have = Bitfield::none(pieces.count());
    if first & 2 == 2 {
        have = Bitfield::all(pieces.count());
    }
    let tree = match first & 6 {
        6 => whole,
        _ => Tree::of_root(pieces.count(), whole.root()),
    };
    let setup = SwarmSetup {
        config,
        me: PeerId(1),
        pieces,
        have,
        roster: (!is_share).then(|| SwarmRoster::new(ids)),
        tree: is_share.then_some(tree),
        files: FileListState::None,
    };
    (pieces, setup)
}

/// Whatever neighbors say and however connections end: S2, S3 and all bounds hold.
pub fn swarm(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    handshakes(rest);
    let is_share = first & 1 == 1;
    let (pieces, setup) = setup(*first, is_share);
    let swarm = Swarm::new(setup, Rng::seed_from_u64(u64::from(*first)));
    let mut desk = Desk {
        places: if is_share { usize::MAX } else { 3 },
        swarm,
        unchoked: Vec::new(),
        now: Time::ZERO,
        written: Vec::new(),
        is_checked: is_share,
    };
    desk.step(Input::Start);
    let variant = if is_share { ProtocolVariant::Share } else { ProtocolVariant::Assignment };
    // Each word: what happens, at whose link, and then the bytes of a frame.
    let mut open: Vec<LinkId> = Vec::new();
    let mut made = 0;
    for word in rest.chunks(6) {
        let [what, whom, frame @ ..] = word else { break };
        desk.now = desk.now.after(Duration::from_millis(u64::from(*what) * 7));
        let link = open.get(usize::from(*whom) % open.len().max(1)).copied();
        match (what % 8, link) {
            (0, _) | (_, None) => {
                made += 1;
                let (link, peer) = (LinkId(made), PeerId(2 + u32::from(whom % 6)));
                let place = (whom & 1 == 1).then_some(PeerAddrId(peer.0));
                open.push(link);
                desk.step(Input::Opened { link, opening: Opening { peer, place } });
            }
            (1, Some(link)) => {
                open.retain(|it| *it != link);
                desk.unchoked.retain(|it| *it != link);
                let (index, offset) = (PieceIndex(u32::from(*whom) % 4), u32::from(*whom) % 5);
                let data = frame.iter().copied().take(3).collect();
                desk.step(Input::Extra(ExtraInput::Part { link, index, offset, data }));
                desk.step(Input::closed(link, ""));
            }
            (2, Some(link)) => {
                let timers = [
                    Timer::Unchoke,
                    Timer::Optimistic,
                    Timer::Answer(link),
                    Timer::Redial(PeerAddrId(u32::from(*whom))),
                    Timer::GiveUp,
                ];
                desk.step(Input::Expired(timers[usize::from(*whom) % timers.len()]));
            }
            (3, Some(link)) => {
                let index = usize::from(*whom) % 3;
                let data = CONTENTS[index].to_vec();
                let index = PieceIndex(u32::from(*whom) % 3);
                desk.step(Input::Received { link, msg: Message::Piece { index, data } });
            }
            (4..=6, Some(link)) => {
                let msg = said(frame);
                desk.step(Input::Received { link, msg });
            }
            (_, Some(link)) => {
                let mut decoder = Decoder::new(FrameLimits { variant, pieces });
                let mut source = frame;
                while let Ok(Some(frame)) = decoder.read_from(&mut source, |_| ()) {
                    if let Frame::Message(msg) = frame {
                        desk.step(Input::Received { link, msg });
                    }
                }
            }
        }
    }
    let known = desk.written.iter().all(|it| desk.swarm.have().has(*it));
    assert!(known, "what is on disk counts");
}

/// What a word of a conversation says.
fn said(word: &[u8]) -> Message {
    let at = |place: usize| word.get(place).copied().unwrap_or_default();
    // Three pieces, and some that there are not.
    let extreme =
        |byte: u8| [3, 4, 1 << 30, 1 << 31, u32::MAX - 1, u32::MAX][usize::from(byte % 6)];
    let far = |byte: u8, near: u32| if byte < 200 { near } else { extreme(byte) };
    let index = PieceIndex(far(at(1), u32::from(at(1)) % 4));
    match at(0) % 14 {
        0 => Message::Choke,
        1 => Message::Unchoke,
        2 | 3 => Message::Interested,
        4 => Message::NotInterested,
        5 => Message::Have(index),
        6 => Message::Bitfield(vec![at(1); usize::from(at(2) % 3)]),
        7 | 8 => Message::Request(index),
        9 => Message::Cancel(index),
        10 => Message::HashesReq { first: index, count: far(at(2), 1 << (at(2) % 12)) },
        11 => Message::RequestRest { index, offset: far(at(2), u32::from(at(2)) % 6) },
        12 => {
            let data = word.iter().copied().take(3).collect();
            Message::Rest { index, offset: far(at(2), u32::from(at(2)) % 5), data }
        }
        _ => Message::Piece { index, data: word.iter().copied().take(5).collect() },
    }
}

/// Handshakes and tickets: an error in words, or the same again.
fn handshakes(bytes: &[u8]) {
    for expect in [Expect::Assignment, Expect::Share] {
        if let Ok(Some(read)) = Handshake::decode(bytes, expect) {
            let again = read.encode();
            assert!(again.len() <= bytes.len());
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        match text.parse::<Ticket>() {
            Ok(ticket) => assert_eq!(ticket.to_string(), text, "one spelling"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
