//! A small world for swarms in virtual time: machines, links that keep order and break, disks that
//! survive crashes, uplinks with a rate. One seed decides everything.
//!
//! What holds at every step is checked here: at most k + 1 neighbors are unchoked (S3), nothing is
//! uploaded to a choked one, and what reaches a disk is checked against the content at the end.

use folkmoot::proto::swarm::Tongue;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use folkmoot::machine::swarm::{
    Bitfield, Config, DialFailure, Effect, Event, ExtraEffect, ExtraInput, Files, Fx, Input,
    Opening, Outcome, Place, Roster, Setup, Stored, Swarm, Timer, Tree, leaf_hash,
};
use folkmoot::machine::timer::TimerQueue;
use folkmoot::machine::{LinkId, Machine as _};
use folkmoot::model::{Now, Rng, Time, WallTime};
use folkmoot::proto::swarm::{Message, PeerId, PieceIndex, Pieces};
use rand::{RngExt as _, SeedableRng as _};

/// How a peer treats others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Its pieces are false.
    Lying,
    /// It never sends a piece.
    Mute,
}

/// One peer, from before its start until after its end.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) manner: Manner,
    /// Bytes a second.
    pub(crate) rate: u64,
    pub(crate) disk: BTreeMap<PieceIndex, Vec<u8>>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) events: Vec<Event>,
    pub(crate) complete_at: Option<Time>,
    pub(crate) restarts: u32,
    machine: Option<Swarm>,
    timers: TimerQueue<Timer>,
    links: BTreeSet<LinkId>,
    unchoked: BTreeSet<LinkId>,
    queues: BTreeMap<LinkId, VecDeque<Out>>,
    uplink_free: Time,
    /// Pieces that are leaving, and from which byte on.
    sending: BTreeMap<LinkId, (PieceIndex, u32)>,
    wake_at: Option<Time>,
}

enum Out {
    Say(Message),
    Piece(PieceIndex, u32),
    End,
}

#[derive(Debug)]
enum Happening {
    Start(usize),
    Crash(usize),
    Cut(usize),
    Wake(usize),
    Called { from: usize, to: Place },
    Arrived { link: LinkId, to: usize, msg: Message },
    Part { link: LinkId, to: usize, index: PieceIndex, offset: u32, data: Vec<u8> },
    Broken { link: LinkId, to: usize },
    Sent { link: LinkId, from: usize, index: PieceIndex, life: u32 },
    Dropped { link: LinkId, from: usize, index: PieceIndex, life: u32 },
    Stored { peer: usize, index: PieceIndex, from: LinkId, outcome: Stored, life: u32 },
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) pieces: Pieces,
    pub(crate) content: Vec<u8>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) now: Time,
    pub(crate) latency: Duration,
    /// What every peer of a share is told at its start.
    pub(crate) everybody_knows_everybody: bool,
    /// Else only whoever has everything at its start knows the hashes.
    pub(crate) everybody_knows_the_tree: bool,
    pub(crate) steps: u64,
    tree: Option<Tree>,
    agenda: BTreeMap<(Time, u64), Happening>,
    number: u64,
    ends: BTreeMap<LinkId, [usize; 2]>,
    arrivals: BTreeMap<(LinkId, usize), Time>,
    rng: Rng,
}

impl World {
    /// `seeds` says who has everything at the beginning.
    pub(crate) fn new(
        seed: u64,
        config: Config,
        size: u64,
        piece_size: u32,
        seeds: &[bool],
    ) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let pieces = Pieces::new(size, piece_size).expect("pieces that can be");
        let content: Vec<u8> = (0..size).map(|_| rng.random()).collect();
        let range = |index| {
            let range = pieces.range(index).expect("a piece");
            let at = |at| usize::try_from(at).expect("a small content");
            &content[at(range.start)..at(range.end)]
        };
        let all: Vec<_> = (0..pieces.count()).map(PieceIndex).collect();
        let leaves: Vec<_> = all.iter().map(|index| leaf_hash(range(*index))).collect();
        let tree = (config.tongue == Tongue::Share).then(|| Tree::of_leaves(&leaves));
        let peers = (1_001..).zip(seeds).map(|(id, is_seed)| Peer {
            id: PeerId(id),
            manner: Manner::Honest,
            rate: 100_000,
            disk: all
                .iter()
                .filter(|_| *is_seed)
                .map(|index| (*index, range(*index).to_vec()))
                .collect(),
            outcome: None,
            events: Vec::new(),
            complete_at: is_seed.then_some(Time::ZERO),
            restarts: 0,
            machine: None,
            timers: TimerQueue::default(),
            links: BTreeSet::new(),
            unchoked: BTreeSet::new(),
            queues: BTreeMap::new(),
            uplink_free: Time::ZERO,
            sending: BTreeMap::new(),
            wake_at: None,
        });
        Self {
            peers: peers.collect(),
            config,
            pieces,
            now: Time::ZERO,
            latency: Duration::from_millis(2),
            everybody_knows_everybody: true,
            everybody_knows_the_tree: false,
            steps: 0,
            tree,
            agenda: BTreeMap::new(),
            number: 0,
            ends: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            content,
            rng,
        }
    }

    pub(crate) fn start(&mut self, peer: usize, at: Duration) {
        self.at(Time::ZERO.after(at), Happening::Start(peer));
    }

    pub(crate) fn crash(&mut self, peer: usize, at: Duration) {
        self.at(Time::ZERO.after(at), Happening::Crash(peer));
    }

    /// One of a peer's connections breaks then, amid what is being sent.
    pub(crate) fn cut(&mut self, peer: usize, at: Duration) {
        self.at(Time::ZERO.after(at), Happening::Cut(peer));
    }

    pub(crate) fn random(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.rng.random_range(range)
    }

    fn at(&mut self, time: Time, what: Happening) {
        self.number += 1;
        self.agenda.insert((time, self.number), what);
    }

    /// Runs until `is_over`, or fails when that takes longer than `bound`.
    pub(crate) fn run(&mut self, bound: Duration, is_over: impl Fn(&Self) -> bool) {
        let end = Time::ZERO.after(bound);
        while !is_over(self) {
            let next = self.agenda.pop_first();
            let ((time, _), what) = next.unwrap_or_else(|| panic!("nothing happens any more"));
            assert!(time <= end, "not over after {bound:?}: {}", self.report());
            self.now = time;
            self.steps += 1;
            assert!(self.steps < 30_000_000, "too many steps");
            self.happen(what);
        }
    }

    fn report(&self) -> String {
        let line = |it: &Peer| {
            let status = it.machine.as_ref().map(Swarm::status);
            format!("\n{:?} {:?} {} on disk {status:?}", it.id, it.outcome, it.disk.len())
        };
        self.peers.iter().map(line).collect()
    }

    /// Whether every honest peer has the content, byte by byte.
    pub(crate) fn all_complete(&self) -> bool {
        let is_whole = |it: &Peer| it.disk.len() == self.pieces.count() as usize;
        self.peers.iter().filter(|it| it.manner == Manner::Honest).all(is_whole)
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.peers.iter().all(|it| it.outcome.is_some())
    }

    pub(crate) fn check_content(&self) {
        for peer in self.peers.iter().filter(|it| it.manner == Manner::Honest) {
            let found: Vec<u8> = peer.disk.values().flatten().copied().collect();
            assert!(found == self.content, "{:?} has other bytes: {}", peer.id, self.report());
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Start(at) => self.begin(at),
            Happening::Crash(at) => self.die(at),
            Happening::Cut(at) => self.lose_link(at),
            Happening::Wake(at) => {
                self.peers[at].wake_at = None;
                while let Some(timer) = self.peers[at].timers.pop_due(self.now) {
                    self.hand(at, Input::Expired(timer));
                }
                self.wake_later(at);
            }
            Happening::Called { from, to } => self.called(from, to),
            Happening::Arrived { link, to, msg } => {
                if self.peers[to].links.contains(&link) {
                    self.hand(to, Input::Received { link, msg });
                }
            }
            Happening::Part { link, to, index, offset, data } => {
                if self.peers[to].links.contains(&link) {
                    self.hand(to, Input::Extra(ExtraInput::Part { link, index, offset, data }));
                }
            }
            Happening::Broken { link, to } => {
                let peer = &mut self.peers[to];
                peer.queues.remove(&link);
                peer.unchoked.remove(&link);
                if peer.links.remove(&link) {
                    self.hand(to, Input::closed(link, ""));
                }
            }
            Happening::Sent { link, from, index, life } => {
                if self.peers[from].restarts == life {
                    self.sent(link, from, index);
                }
            }
            Happening::Dropped { link, from, index, life } => {
                if self.peers[from].restarts == life {
                    self.hand(from, Input::Extra(ExtraInput::Uploaded { link, index, bytes: 0 }));
                }
            }
            Happening::Stored { peer, index, from, outcome, life } => {
                if self.peers[peer].restarts == life {
                    self.hand(peer, Input::Extra(ExtraInput::Stored { index, from, outcome }));
                }
            }
        }
    }

    fn begin(&mut self, at: usize) {
        if self.peers[at].machine.is_some() {
            return;
        }
        let count = self.pieces.count();
        let mut have = Bitfield::none(count);
        self.peers[at].disk.keys().for_each(|index| assert!(have.set(*index)));
        let is_share = self.tree.is_some();
        let knows_tree = have.is_full() || self.everybody_knows_the_tree;
        let tree = self.tree.as_ref().map(|tree| match knows_tree {
            true => tree.clone(),
            false => Tree::of_root(count, tree.root()),
        });
        let members = self.peers.iter().map(|it| (it.id, it.complete_at == Some(Time::ZERO)));
        let setup = Setup {
            config: self.config.clone(),
            me: self.peers[at].id,
            pieces: self.pieces,
            have,
            roster: (!is_share).then(|| Roster::new(members)),
            tree,
            files: Files::None,
        };
        let rng = Rng::seed_from_u64(self.rng.random());
        self.peers[at].machine = Some(Swarm::new(setup, rng));
        self.hand(at, Input::Start);
        let known = if is_share && self.everybody_knows_everybody { self.peers.len() } else { at };
        for other in (0..known).filter(|it| *it != at) {
            self.hand(at, Input::Extra(ExtraInput::Known(Place(self.peers[other].id.0))));
        }
    }

    /// A crash: only the disk is left.
    fn die(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if peer.outcome.is_some() || peer.machine.take().is_none() {
            return;
        }
        for link in self.peers[at].links.clone() {
            self.send_part(link, at);
        }
        let peer = &mut self.peers[at];
        peer.restarts += 1;
        peer.timers = TimerQueue::default();
        peer.unchoked.clear();
        peer.queues.clear();
        peer.sending.clear();
        for link in std::mem::take(&mut peer.links) {
            let other = self.other_end(link, at);
            self.deliver(link, other, Happening::Broken { link, to: other });
        }
    }

    fn lose_link(&mut self, at: usize) {
        let links: Vec<_> = self.peers[at].links.iter().copied().collect();
        if links.is_empty() {
            return;
        }
        let link = links[self.rng.random_range(0..links.len())];
        for to in self.ends[&link] {
            self.send_part(link, to);
            self.peers[to].sending.remove(&link);
            self.peers[to].queues.remove(&link);
        }
        for to in self.ends[&link] {
            self.deliver(link, to, Happening::Broken { link, to });
        }
    }

    /// Lets a part of what is being sent arrive, because the connection ends now.
    fn send_part(&mut self, link: LinkId, from: usize) {
        let Some((index, offset)) = self.peers[from].sending.get(&link).copied() else { return };
        let mut data = self.rest(from, index, offset);
        data.truncate(self.rng.random_range(0..data.len()));
        if !data.is_empty() && self.peers[from].manner != Manner::Mute {
            let to = self.other_end(link, from);
            self.deliver(link, to, Happening::Part { link, to, index, offset, data });
        }
    }

    /// A piece from this byte on, as this peer sends it.
    fn rest(&self, from: usize, index: PieceIndex, offset: u32) -> Vec<u8> {
        let peer = &self.peers[from];
        let mut data = peer.disk[&index][offset as usize..].to_vec();
        if peer.manner == Manner::Lying {
            data[0] ^= 1;
        }
        data
    }

    fn other_end(&self, link: LinkId, at: usize) -> usize {
        let [a, b] = self.ends[&link];
        if a == at { b } else { a }
    }

    /// Lets something arrive, behind all that is on its way already.
    fn deliver(&mut self, link: LinkId, to: usize, what: Happening) {
        let jitter = Duration::from_micros(self.rng.random_range(0..500));
        let last = self.arrivals.entry((link, to)).or_default();
        let time = self.now.after(self.latency + jitter).max(*last);
        *last = time;
        self.at(time, what);
    }

    fn called(&mut self, from: usize, place: Place) {
        if self.peers[from].machine.is_none() || self.peers[from].outcome.is_some() {
            return;
        }
        let to = self.peers.iter().position(|it| it.id.0 == place.0).expect("a known place");
        if self.peers[to].machine.is_none() || self.peers[to].outcome.is_some() {
            let reason = "refused".to_owned();
            return self.hand(from, Input::DialFailed(DialFailure { place, reason }));
        }
        self.number += 1;
        let link = LinkId(self.number);
        self.ends.insert(link, [from, to]);
        let ids = [self.peers[to].id, self.peers[from].id];
        for (at, peer, place) in [(from, ids[0], Some(place)), (to, ids[1], None)] {
            self.peers[at].links.insert(link);
            self.peers[at].queues.insert(link, VecDeque::new());
            self.hand(at, Input::Opened { link, opening: Opening { peer, place } });
        }
    }

    fn hand(&mut self, at: usize, input: Input) {
        let now = Now { mono: self.now, wall: WallTime(0) };
        let Some(machine) = &mut self.peers[at].machine else { return };
        let mut fx = Fx::default();
        machine.handle(now, input, &mut fx);
        for effect in fx {
            self.carry_out(at, effect);
        }
        self.check_slots(at);
        self.wake_later(at);
    }

    fn wake_later(&mut self, at: usize) {
        let next = self.peers[at].timers.next();
        if let Some(next) = next.filter(|next| self.peers[at].wake_at.is_none_or(|at| *next < at)) {
            self.peers[at].wake_at = Some(next);
            self.at(next.max(self.now), Happening::Wake(at));
        }
    }

    fn check_slots(&self, at: usize) {
        let unchoked = self.peers[at].unchoked.len();
        assert!(unchoked <= self.config.preferred + 1, "S3: {unchoked} are unchoked");
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::SendAll { .. } => unreachable!("it sends to one at a time"),
            Effect::Persist(never) => match never {},
            Effect::Send { link, msg } => {
                let is_piece = matches!(msg, Message::Piece { .. } | Message::Rest { .. });
                assert!(!is_piece, "pieces go from the disk");
                if msg == Message::Choke {
                    assert!(self.peers[at].unchoked.remove(&link), "choked twice");
                    self.drop_pieces(at, link, |_| true);
                } else if msg == Message::Unchoke {
                    assert!(self.peers[at].unchoked.insert(link), "unchoked twice");
                    self.check_slots(at);
                }
                self.push(at, link, Out::Say(msg));
            }
            Effect::Extra(ExtraEffect::Upload(link, index, offset)) => {
                assert!(self.peers[at].unchoked.contains(&link), "S3: served while choked");
                assert!(self.peers[at].disk.contains_key(&index), "S2: not on disk");
                self.push(at, link, Out::Piece(index, offset));
            }
            Effect::Extra(ExtraEffect::Drop(link, index)) => {
                self.drop_pieces(at, link, |it| it == index);
            }
            Effect::Extra(ExtraEffect::Store { index, data, from, expected }) => {
                let is_true = expected.is_none_or(|hash| hash == leaf_hash(&data));
                let outcome = if is_true { Stored::Yes } else { Stored::False };
                if is_true {
                    let old = self.peers[at].disk.insert(index, data);
                    assert!(old.is_none(), "a piece is stored once");
                    if self.peers[at].disk.len() == self.pieces.count() as usize {
                        self.peers[at].complete_at = Some(self.now);
                    }
                }
                let life = self.peers[at].restarts;
                let delay = Duration::from_micros(self.rng.random_range(0..2_000));
                let done = Happening::Stored { peer: at, index, from, outcome, life };
                self.at(self.now.after(delay), done);
            }
            Effect::Dial(to) => {
                self.at(self.now.after(self.latency), Happening::Called { from: at, to });
            }
            Effect::Hangup { link } => {
                self.peers[at].unchoked.remove(&link);
                self.drop_pieces(at, link, |_| true);
                self.push(at, link, Out::End);
            }
            Effect::SetTimer { timer, after: span } => {
                self.peers[at].timers.set(timer, self.now.after(span));
            }
            Effect::StopTimer(timer) => self.peers[at].timers.stop(&timer),
            Effect::Emit(event) => {
                if let Event::Ended(outcome) = &event {
                    self.peers[at].outcome = Some(outcome.clone());
                }
                self.peers[at].events.push(event);
            }
        }
    }

    fn push(&mut self, at: usize, link: LinkId, out: Out) {
        // A link that broke meanwhile swallows what is said.
        if let Some(queue) = self.peers[at].queues.get_mut(&link) {
            queue.push_back(out);
            self.pump(at, link);
        }
    }

    fn drop_pieces(&mut self, at: usize, link: LinkId, which: impl Fn(PieceIndex) -> bool) {
        let Some(queue) = self.peers[at].queues.get_mut(&link) else { return };
        let (mut kept, mut dropped) = (VecDeque::new(), Vec::new());
        for out in queue.drain(..) {
            match out {
                Out::Piece(index, _) if which(index) => dropped.push(index),
                Out::Say(_) | Out::Piece(..) | Out::End => kept.push_back(out),
            }
        }
        *queue = kept;
        for index in dropped {
            let life = self.peers[at].restarts;
            // Told a little later, as a writer's thread does.
            let time = self.now.after(Duration::from_micros(50));
            self.at(time, Happening::Dropped { link, from: at, index, life });
        }
    }

    /// Lets a link's queue out, up to a piece, which takes its time.
    fn pump(&mut self, at: usize, link: LinkId) {
        while !self.peers[at].sending.contains_key(&link) {
            let to = self.other_end(link, at);
            let peer = &mut self.peers[at];
            match peer.queues.get_mut(&link).and_then(VecDeque::pop_front) {
                None => return,
                Some(Out::Say(msg)) => self.deliver(link, to, Happening::Arrived { link, to, msg }),
                Some(Out::End) => {
                    peer.queues.remove(&link);
                    self.deliver(link, to, Happening::Broken { link, to });
                    self.at(self.now, Happening::Broken { link, to: at });
                    return;
                }
                Some(Out::Piece(index, offset)) => {
                    peer.sending.insert(link, (index, offset));
                    if peer.manner == Manner::Mute {
                        return;
                    }
                    let bytes = u64::from(self.pieces.len(index).expect("a piece") - offset);
                    let span = Duration::from_micros(bytes * 1_000_000 / peer.rate);
                    peer.uplink_free = peer.uplink_free.max(self.now).after(span);
                    let (time, life) = (peer.uplink_free, peer.restarts);
                    self.at(time, Happening::Sent { link, from: at, index, life });
                }
            }
        }
    }

    /// A piece has left, or was dropped before it began.
    fn sent(&mut self, link: LinkId, from: usize, index: PieceIndex) {
        let to = self.other_end(link, from);
        let peer = &mut self.peers[from];
        let mut bytes = 0;
        if let Some((_, offset)) = peer.sending.remove(&link)
            && peer.queues.contains_key(&link)
        {
            let data = self.rest(from, index, offset);
            bytes = data.len() as u64;
            let msg = match offset {
                0 => Message::Piece { index, data },
                _ => Message::Rest { index, offset, data },
            };
            self.deliver(link, to, Happening::Arrived { link, to, msg });
        }
        self.hand(from, Input::Extra(ExtraInput::Uploaded { link, index, bytes }));
        self.pump(from, link);
    }
}
