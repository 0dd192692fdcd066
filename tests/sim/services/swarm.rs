//! A swarm's peer as the simulator runs it: the machine, its calls and handshakes, an uplink with a
//! rate, and pieces on disk. Pieces cross a link in parts, so that one may end amid a piece.
//!
//! What holds at every step is checked here: at most k + 1 neighbors are unchoked and nobody is
//! served who is choked (S3), and what is served is on disk (S2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use folkmoot::machine::swarm::{
    self, Bitfield, Config, DialFailure, Event, ExtraEffect, ExtraInput, FileListState, Fx,
    Opening, PeerAddrId, Stored, Swarm, SwarmRoster, SwarmSetup, Tree, leaf_hash,
};
use folkmoot::machine::{
    CallFailure, DialId, Effect, Effects, HostPinged, Input, LinkId, Machine, NodeOpening,
};
use folkmoot::model::{Endpoint, Now, Rng, Time};
use folkmoot::proto::swarm::{Message, PeerId, PieceIndex, Pieces};
use folkmoot::sim::Simulated;
use rand::{RngExt as _, SeedableRng as _};

use super::{CALL_TIMEOUT, HANDSHAKE_TIMEOUT, Pending, micros};

/// Bytes of the largest part of a piece that leaves at once.
const PART_MAX: usize = 1_000;

/// Behavior of a peer towards others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// The peer sends false pieces.
    Lying,
    /// The peer never sends a piece.
    Mute,
}

/// The words on a link: the handshake, the messages, and pieces part by part.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Hello(PeerId),
    Welcome(PeerId),
    Said(Message),
    /// Bytes of a piece; the first part tells where they begin, the last one ends it.
    Part {
        index: PieceIndex,
        offset: u32,
        data: Vec<u8>,
        is_last: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Swarm(swarm::Timer),
    /// A thread of the driver has done the work of this number.
    Done(u64),
    Handshake(LinkId),
    /// A part of a piece has left by this link.
    Sent(LinkId),
}

/// A piece on disk.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) index: PieceIndex,
    pub(crate) data: Vec<u8>,
}

/// Report to the checkers.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Event(Event),
    /// The disk has all pieces.
    Whole,
    /// A link ended amid a piece.
    Torn,
}

/// Setup of a peer, for each of its starts.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) config: Config,
    pub(crate) me: PeerId,
    pub(crate) pieces: Pieces,
    /// The content on its disk when it starts first.
    pub(crate) first: BTreeMap<PieceIndex, Vec<u8>>,
    pub(crate) manner: Manner,
    /// Bytes a second.
    pub(crate) rate: u64,
    /// The tree of the content's hashes, if it is a share.
    pub(crate) tree: Option<Tree>,
    /// True if the peer knows the whole tree at once, and not the root alone.
    pub(crate) knows_tree: bool,
    /// The peers of an assignment, and who has everything.
    pub(crate) roster: Vec<(PeerId, bool)>,
    /// Address of each peer.
    pub(crate) places: BTreeMap<PeerId, Endpoint>,
    /// Peers that this one knows of when it starts.
    pub(crate) known: Vec<PeerId>,
}

#[derive(Clone, Debug)]
enum Link {
    Accepted,
    Greeted(PeerAddrId),
    Open,
    /// The machine has hung up; nothing comes until it is told of the end.
    HungUp,
}

#[derive(Debug)]
enum Out {
    Say(Message),
    Piece(PieceIndex, u32),
    End,
}

/// A piece that is leaving, and how far it has left.
#[derive(Clone, Copy, Debug)]
struct Sending {
    index: PieceIndex,
    from: u32,
    at: u32,
}

/// A process that is a peer of a swarm.
pub(crate) struct SwarmHost {
    machine: Swarm,
    desk: Desk,
    disk: BTreeMap<PieceIndex, Vec<u8>>,
    has_ended: bool,
    calls: BTreeMap<DialId, PeerAddrId>,
    tickets: u64,
    links: BTreeMap<LinkId, Link>,
    unchoked: BTreeSet<LinkId>,
    queues: BTreeMap<LinkId, VecDeque<Out>>,
    sending: BTreeMap<LinkId, Sending>,
    /// Parts of the piece that comes by each link.
    coming: BTreeMap<LinkId, (PieceIndex, u32, Vec<u8>)>,
    uplink_free: Time,
    pending: Pending<swarm::Input>,
    rng: Rng,
}

impl SwarmHost {
    pub(crate) fn new(desk: &Desk, records: &[Record], seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let mut disk = desk.first.clone();
        disk.extend(records.iter().map(|it| (it.index, it.data.clone())));
        let count = desk.pieces.count();
        let mut have = Bitfield::none(count);
        disk.keys().for_each(|index| assert!(have.set(*index)));
        let knows_tree = have.is_full() || desk.knows_tree;
        let tree = desk.tree.as_ref().map(|tree| match knows_tree {
            true => tree.clone(),
            false => Tree::of_root(count, tree.root()),
        });
        let setup = SwarmSetup {
            config: desk.config.clone(),
            me: desk.me,
            pieces: desk.pieces,
            have,
            roster: tree.is_none().then(|| SwarmRoster::new(desk.roster.iter().copied())),
            tree,
            files: FileListState::None,
        };
        Self {
            machine: Swarm::new(setup, Rng::seed_from_u64(rng.random())),
            desk: desk.clone(),
            disk,
            has_ended: false,
            calls: BTreeMap::new(),
            tickets: 0,
            links: BTreeMap::new(),
            unchoked: BTreeSet::new(),
            queues: BTreeMap::new(),
            sending: BTreeMap::new(),
            coming: BTreeMap::new(),
            uplink_free: Time::ZERO,
            pending: Pending::default(),
            rng,
        }
    }

    pub(crate) const fn machine(&self) -> &Swarm {
        &self.machine
    }

    /// The content, as far as it is on disk.
    pub(crate) const fn disk(&self) -> &BTreeMap<PieceIndex, Vec<u8>> {
        &self.disk
    }

    fn hand(&mut self, now: Now, input: swarm::Input, fx: &mut Effects<Self>) {
        let mut part = Fx::default();
        self.machine.handle(now, input, &mut part);
        for effect in part {
            self.carry_out(now, effect, fx);
        }
        self.check_slots();
    }

    fn check_slots(&self) {
        let unchoked = self.unchoked.len();
        assert!(unchoked <= self.desk.config.preferred + 1, "S3: {unchoked} are unchoked");
    }

    fn carry_out(&mut self, now: Now, effect: swarm::Effect, fx: &mut Effects<Self>) {
        match effect {
            Effect::SendAll { .. } => unreachable!("it sends to one at a time"),
            Effect::Persist(never) => match never {},
            Effect::Send { link, msg } => {
                let is_piece = matches!(msg, Message::Piece { .. } | Message::Rest { .. });
                assert!(!is_piece, "pieces go from the disk");
                if msg == Message::Choke {
                    assert!(self.unchoked.remove(&link), "choked twice");
                    self.drop_pieces(link, |_| true, fx);
                } else if msg == Message::Unchoke {
                    assert!(self.unchoked.insert(link), "unchoked twice");
                    self.check_slots();
                }
                self.push(now, link, Out::Say(msg), fx);
            }
            Effect::Extra(ExtraEffect::Upload(link, index, offset)) => {
                assert!(self.unchoked.contains(&link), "S3: served while choked");
                assert!(self.disk.contains_key(&index), "S2: not on disk");
                self.push(now, link, Out::Piece(index, offset), fx);
            }
            Effect::Extra(ExtraEffect::Drop(link, index)) => {
                self.drop_pieces(link, |it| it == index, fx);
            }
            Effect::Extra(ExtraEffect::Store { index, data, from, expected }) => {
                let is_true = expected.is_none_or(|hash| hash == leaf_hash(&data));
                let outcome = if is_true { Stored::Yes } else { Stored::False };
                if is_true {
                    fx.persist(Record { index, data: data.clone() });
                    let old = self.disk.insert(index, data);
                    assert!(old.is_none(), "a piece is stored once");
                    if self.disk.len() == self.desk.pieces.count() as usize {
                        fx.emit(Told::Whole);
                    }
                }
                let stored = Input::Extra(ExtraInput::Stored { index, from, outcome });
                let name = self.pending.keep(stored);
                fx.set_timer(Timer::Done(name), micros(&mut self.rng, 0..2_000));
            }
            Effect::Dial(place) => {
                self.tickets += 1;
                let ticket = DialId(self.tickets);
                fx.dial(ticket, self.desk.places[&PeerId(place.0)], CALL_TIMEOUT);
                self.calls.insert(ticket, place);
            }
            Effect::Hangup { link } => {
                if let Some(state) = self.links.get_mut(&link) {
                    *state = Link::HungUp;
                }
                self.unchoked.remove(&link);
                self.drop_pieces(link, |_| true, fx);
                self.push(now, link, Out::End, fx);
            }
            Effect::SetTimer { timer, after } => fx.set_timer(Timer::Swarm(timer), after),
            Effect::StopTimer(timer) => fx.stop_timer(Timer::Swarm(timer)),
            Effect::Emit(event) => {
                self.has_ended |= matches!(event, Event::Ended(_));
                fx.emit(Told::Event(event));
            }
        }
    }

    fn push(&mut self, now: Now, link: LinkId, out: Out, fx: &mut Effects<Self>) {
        if let Some(queue) = self.queues.get_mut(&link) {
            queue.push_back(out);
            self.pump(now, link, fx);
        }
    }

    fn drop_pieces(
        &mut self,
        link: LinkId,
        which: impl Fn(PieceIndex) -> bool,
        fx: &mut Effects<Self>,
    ) {
        let Some(queue) = self.queues.get_mut(&link) else { return };
        let (mut kept, mut dropped) = (VecDeque::new(), Vec::new());
        for out in queue.drain(..) {
            match out {
                Out::Piece(index, _) if which(index) => dropped.push(index),
                Out::Say(_) | Out::Piece(..) | Out::End => kept.push_back(out),
            }
        }
        *queue = kept;
        for index in dropped {
            let uploaded = ExtraInput::Uploaded { link, index, bytes: 0 };
            let name = self.pending.keep(Input::Extra(uploaded));
            // Told a little later, as a writer's thread does.
            fx.set_timer(Timer::Done(name), Duration::from_micros(50));
        }
    }

    /// Lets a link's queue out, up to a piece, which takes its time.
    fn pump(&mut self, now: Now, link: LinkId, fx: &mut Effects<Self>) {
        while !self.sending.contains_key(&link) {
            match self.queues.get_mut(&link).and_then(VecDeque::pop_front) {
                None => return,
                Some(Out::Say(msg)) => fx.send(link, Word::Said(msg)),
                Some(Out::End) => {
                    self.queues.remove(&link);
                    fx.hangup(link);
                    return;
                }
                Some(Out::Piece(index, offset)) => {
                    self.sending.insert(link, Sending { index, from: offset, at: offset });
                    self.send_part_later(now, link, fx);
                }
            }
        }
    }

    fn part_len(&self, sending: Sending) -> usize {
        let len = self.desk.pieces.len(sending.index).expect("a piece");
        let third = (len / 3).max(1) as usize;
        PART_MAX.min(third).min((len - sending.at) as usize)
    }

    fn send_part_later(&mut self, now: Now, link: LinkId, fx: &mut Effects<Self>) {
        if self.desk.manner == Manner::Mute {
            return;
        }
        let bytes = self.part_len(self.sending[&link]) as u64;
        let span = Duration::from_micros(bytes * 1_000_000 / self.desk.rate);
        self.uplink_free = self.uplink_free.max(now.mono).after(span);
        fx.set_timer(Timer::Sent(link), self.uplink_free.since(now.mono));
    }

    fn on_part_sent(&mut self, now: Now, link: LinkId, fx: &mut Effects<Self>) {
        let Some(sending) = self.sending.get(&link).copied() else { return };
        let Sending { index, from, at } = sending;
        if self.queues.contains_key(&link) {
            let len = self.part_len(sending);
            let place = at as usize;
            let mut data = self.disk[&index][place..place + len].to_vec();
            if self.desk.manner == Manner::Lying && at == from {
                data[0] ^= 1;
            }
            let next = at + u32::try_from(len).expect("a short piece");
            let is_last = next == self.desk.pieces.len(index).expect("a piece");
            fx.send(link, Word::Part { index, offset: at, data, is_last });
            if !is_last {
                self.sending.insert(link, Sending { at: next, ..sending });
                return self.send_part_later(now, link, fx);
            }
            self.sending.remove(&link);
            let bytes = u64::from(next - from);
            let uploaded = ExtraInput::Uploaded { link, index, bytes };
            self.hand(now, Input::Extra(uploaded), fx);
        } else {
            self.sending.remove(&link);
            let uploaded = ExtraInput::Uploaded { link, index, bytes: 0 };
            self.hand(now, Input::Extra(uploaded), fx);
        }
        self.pump(now, link, fx);
    }

    fn on_word(&mut self, now: Now, link: LinkId, word: Word, fx: &mut Effects<Self>) {
        match (self.links.get(&link).cloned(), word) {
            (Some(Link::Open), Word::Said(msg)) => {
                self.hand(now, Input::Received { link, msg }, fx);
            }
            (Some(Link::Open), Word::Part { index, offset, data, is_last }) => {
                let (_, from, bytes) =
                    self.coming.entry(link).or_insert((index, offset, Vec::new()));
                bytes.extend(data);
                if is_last {
                    let (offset, data) = (*from, std::mem::take(bytes));
                    self.coming.remove(&link);
                    let msg = match offset {
                        0 => Message::Piece { index, data },
                        _ => Message::Rest { index, offset, data },
                    };
                    self.hand(now, Input::Received { link, msg }, fx);
                }
            }
            (Some(Link::Accepted), Word::Hello(peer)) => {
                fx.stop_timer(Timer::Handshake(link));
                fx.send(link, Word::Welcome(self.desk.me));
                self.open(now, link, Opening { peer, place: None }, fx);
            }
            (Some(Link::Greeted(place)), Word::Welcome(peer)) => {
                fx.stop_timer(Timer::Handshake(link));
                self.open(now, link, Opening { peer, place: Some(place) }, fx);
            }
            (Some(Link::Accepted | Link::Greeted(_)), _) => unreachable!("a handshake is first"),
            (Some(Link::Open | Link::HungUp) | None, _) => {}
        }
    }

    fn open(&mut self, now: Now, link: LinkId, opening: Opening, fx: &mut Effects<Self>) {
        self.links.insert(link, Link::Open);
        self.queues.insert(link, VecDeque::new());
        self.hand(now, Input::Opened { link, opening }, fx);
    }

    fn fail_call(&mut self, now: Now, place: PeerAddrId, fx: &mut Effects<Self>) {
        let reason = "refused".to_owned();
        self.hand(now, Input::DialFailed(DialFailure { place, reason }), fx);
    }

    fn on_closed(&mut self, now: Now, link: LinkId, reason: String, fx: &mut Effects<Self>) {
        fx.stop_timer(Timer::Handshake(link));
        match self.links.remove(&link) {
            Some(Link::Open | Link::HungUp) => {
                self.queues.remove(&link);
                self.unchoked.remove(&link);
                if let Some((index, offset, data)) = self.coming.remove(&link) {
                    fx.emit(Told::Torn);
                    let part = ExtraInput::Part { link, index, offset, data };
                    self.hand(now, Input::Extra(part), fx);
                }
                self.hand(now, Input::Closed { link, reason }, fx);
            }
            Some(Link::Greeted(place)) => self.fail_call(now, place, fx),
            Some(Link::Accepted) | None => {}
        }
    }
}

vocabulary!(SwarmHost, Record);

impl Machine for SwarmHost {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = folkmoot::machine::Never;
    type ExtraInput = HostPinged;

    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Effects<Self>) {
        match input {
            Input::Start => {
                self.hand(now, Input::Start, fx);
                for peer in self.desk.known.clone() {
                    self.hand(now, Input::Extra(ExtraInput::Known(PeerAddrId(peer.0))), fx);
                }
            }
            // Whoever is through takes no more calls.
            Input::Opened { link, opening: NodeOpening::Accepted { .. } } if self.has_ended => {
                fx.hangup(link);
            }
            Input::Opened { link, opening: NodeOpening::Accepted { .. } } => {
                self.links.insert(link, Link::Accepted);
                fx.set_timer(Timer::Handshake(link), HANDSHAKE_TIMEOUT);
            }
            Input::Opened { link, opening: NodeOpening::Dialed { ticket, .. } } => {
                let place = self.calls.remove(&ticket).expect("it was dialed");
                self.links.insert(link, Link::Greeted(place));
                fx.send(link, Word::Hello(self.desk.me));
                fx.set_timer(Timer::Handshake(link), HANDSHAKE_TIMEOUT);
            }
            Input::DialFailed(CallFailure { ticket, .. }) => {
                let place = self.calls.remove(&ticket).expect("it was dialed");
                self.fail_call(now, place, fx);
            }
            Input::Received { link, msg } => self.on_word(now, link, msg, fx),
            Input::Closed { link, reason } => self.on_closed(now, link, reason, fx),
            Input::Expired(Timer::Swarm(timer)) => self.hand(now, Input::Expired(timer), fx),
            Input::Expired(Timer::Done(name)) => {
                if let Some(input) = self.pending.take(name) {
                    self.hand(now, input, fx);
                }
            }
            Input::Expired(Timer::Handshake(link)) => {
                fx.hangup(link);
                if let Some(Link::Greeted(place)) = self.links.remove(&link) {
                    self.fail_call(now, place, fx);
                }
            }
            Input::Expired(Timer::Sent(link)) => self.on_part_sent(now, link, fx),
            Input::Command(never) => match never {},
            Input::Synced { .. } | Input::Garbled { .. } | Input::Extra(HostPinged { .. }) => {}
        }
    }
}

impl Simulated for SwarmHost {
    // A piece is told to be stored before its disk is synced: a crash may lose it all the same, and
    // then it is fetched again.
    const HEARS_OF_SYNCS: bool = false;

    fn is_held(&self, _effect: &Effect<Self>) -> bool {
        false
    }

    fn name(msg: &Word) -> &'static str {
        match msg {
            Word::Hello(_) | Word::Welcome(_) => "handshake",
            Word::Said(_) => "swarm",
            Word::Part { .. } => "part",
        }
    }

    fn snapshot(&self) -> Option<Vec<Record>> {
        let records = self.disk.iter().map(|(index, data)| (*index, data.clone()));
        Some(records.map(|(index, data)| Record { index, data }).collect())
    }
}
