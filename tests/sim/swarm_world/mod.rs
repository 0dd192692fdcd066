//! Swarms in the simulator: peers, their contents, and what befalls them. One seed decides
//! everything. What reaches a disk is checked against the content at the end; what holds at every
//! step is checked by the peers' wrapper.

use std::collections::BTreeMap;
use std::time::Duration;

use folkmoot::machine::swarm::{Config, Event, Swarm, SwarmOutcome, Tree, leaf_hash};
use folkmoot::model::{Endpoint, Rng, Time};
use folkmoot::proto::swarm::{PeerId, PieceIndex, Pieces, ProtocolVariant};
use folkmoot::sim::{self, Boot, DurationRange, Weather, WorldOptions};
use rand::{RngExt as _, SeedableRng as _};

pub(crate) use crate::services::swarm::Manner;
use crate::services::swarm::{Desk, Record, SwarmHost, Told};

/// The longest time between two looks at what was told.
const LOOK: Duration = Duration::from_millis(10);

/// One peer, from before its start until after its end.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) manner: Manner,
    /// Bytes a second.
    pub(crate) rate: u64,
    /// The content on its disk, before its first start and after a run.
    pub(crate) disk: BTreeMap<PieceIndex, Vec<u8>>,
    pub(crate) outcome: Option<SwarmOutcome>,
    pub(crate) events: Vec<Event>,
    pub(crate) complete_at: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Start(usize),
    Crash(usize),
    Cut(usize),
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) pieces: Pieces,
    pub(crate) content: Vec<u8>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) now: Time,
    pub(crate) latency: Duration,
    /// Else only whoever has everything at its start knows the hashes.
    pub(crate) everybody_knows_the_tree: bool,
    seed: u64,
    /// None: nobody has started.
    world: Option<sim::World<SwarmHost>>,
    tree: Option<Tree>,
    acts: BTreeMap<(Time, usize), Act>,
    rng: Rng,
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn place(at: usize) -> Endpoint {
    Endpoint::new([10, 4, 0, u8::try_from(at).expect("few")].into(), 7_000)
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
        let tree = (config.variant == ProtocolVariant::Share).then(|| Tree::of_leaves(&leaves));
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
        });
        Self {
            peers: peers.collect(),
            config,
            pieces,
            now: Time::ZERO,
            latency: millis(2),
            everybody_knows_the_tree: false,
            seed,
            world: None,
            tree,
            acts: BTreeMap::new(),
            content,
            rng,
        }
    }

    pub(crate) fn start(&mut self, peer: usize, at: Duration) {
        self.at(at, Act::Start(peer));
    }

    /// A peer dies then, if it is not through; what it has stored is on its disk.
    pub(crate) fn crash(&mut self, peer: usize, at: Duration) {
        self.at(at, Act::Crash(peer));
    }

    /// One of a peer's connections breaks then, amid what is being sent.
    pub(crate) fn cut(&mut self, peer: usize, at: Duration) {
        self.at(at, Act::Cut(peer));
    }

    pub(crate) fn random(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.rng.random_range(range)
    }

    fn at(&mut self, at: Duration, act: Act) {
        let number = self.acts.len();
        self.acts.insert((Time::ZERO.after(at), number), act);
    }

    /// All peers, as they are before anybody starts.
    fn begin(&self) -> sim::World<SwarmHost> {
        let weather = Weather {
            latency: DurationRange { min: self.latency, max: self.latency },
            jitter: Duration::from_micros(500),
            ..Weather::calm()
        };
        let steps_max = 30_000_000;
        let mut world = sim::World::new(
            self.seed,
            WorldOptions { weather, steps_max, ..WorldOptions::default() },
        );
        let ids: Vec<_> = self.peers.iter().map(|it| it.id).collect();
        let has_all = |it: &Peer| it.complete_at == Some(Time::ZERO);
        for (at, peer) in self.peers.iter().enumerate() {
            let known = if self.tree.is_some() { ids.len() } else { at };
            let desk = Desk {
                config: self.config.clone(),
                me: peer.id,
                pieces: self.pieces,
                first: peer.disk.clone(),
                manner: peer.manner,
                rate: peer.rate,
                tree: self.tree.clone(),
                knows_tree: self.everybody_knows_the_tree,
                roster: self.peers.iter().map(|it| (it.id, has_all(it))).collect(),
                places: ids.iter().enumerate().map(|(at, id)| (*id, place(at))).collect(),
                known: ids[..known].iter().copied().filter(|it| *it != peer.id).collect(),
            };
            let factory =
                move |boot: Boot<'_, Record>| SwarmHost::new(&desk, boot.records, boot.seed);
            world.add_host(place(at), Box::new(factory));
        }
        world
    }

    /// Runs until `is_over`, or fails when that takes longer than `bound`.
    pub(crate) fn run(&mut self, bound: Duration, is_over: impl Fn(&Self) -> bool) {
        let end = Time::ZERO.after(bound);
        if self.world.is_none() {
            self.world = Some(self.begin());
        }
        while !is_over(self) {
            assert!(self.now < end, "not over after {bound:?}: {}", self.report());
            let next = self.acts.first_key_value().map_or(end, |((at, _), _)| *at);
            self.now = self.now.after(LOOK).min(next).min(end);
            let now = self.now;
            self.world().run_until(now);
            self.heed();
            while let Some(entry) = self.acts.first_entry()
                && entry.key().0 <= self.now
            {
                let act = entry.remove();
                self.act(act);
                self.heed();
            }
        }
        for at in 0..self.peers.len() {
            self.peers[at].disk = self.disk(at);
        }
    }

    fn world(&mut self) -> &mut sim::World<SwarmHost> {
        self.world.as_mut().expect("it has begun")
    }

    /// The content of a peer, as far as it is on its disk.
    fn disk(&self, at: usize) -> BTreeMap<PieceIndex, Vec<u8>> {
        let world = self.world.as_ref().expect("it has begun");
        if let Some(host) = world.machine(place(at)) {
            return host.disk().clone();
        }
        let mut disk = self.peers[at].disk.clone();
        let records = world.records(place(at)).iter();
        disk.extend(records.map(|it| (it.index, it.data.clone())));
        disk
    }

    fn heed(&mut self) {
        for (time, host, told) in self.world().take_events() {
            let at = (0..self.peers.len()).find(|it| place(*it) == host).expect("a peer");
            let peer = &mut self.peers[at];
            match told {
                Told::Whole => peer.complete_at = Some(time),
                Told::Torn => {}
                Told::Event(event) => {
                    if let Event::Ended(outcome) = &event {
                        peer.outcome = Some(outcome.clone());
                    }
                    peer.events.push(event);
                }
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Start(at) => self.world().boot(place(at)),
            Act::Crash(at) => {
                if self.peers[at].outcome.is_none() {
                    self.world().kill(place(at));
                }
            }
            Act::Cut(at) => {
                let count = self.peers.len();
                let world = self.world.as_mut().expect("it has begun");
                let is_linked =
                    |it: &usize| *it != at && world.open_links(place(at), place(*it)) > 0;
                let linked: Vec<_> = (0..count).filter(is_linked).collect();
                if !linked.is_empty() {
                    let other = linked[self.rng.random_range(0..linked.len())];
                    world.reset_link(place(at), place(other));
                }
            }
        }
    }

    fn report(&self) -> String {
        let line = |(at, it): (usize, &Peer)| {
            let host = self.world.as_ref().and_then(|world| world.machine(place(at)));
            let status = host.map(SwarmHost::machine).map(Swarm::status);
            format!("\n{:?} {:?} {} on disk {status:?}", it.id, it.outcome, self.disk(at).len())
        };
        self.peers.iter().enumerate().map(line).collect()
    }

    /// Whether every honest peer has the content.
    pub(crate) fn all_complete(&self) -> bool {
        let is_whole = |it: &Peer| it.complete_at.is_some() || self.pieces.count() == 0;
        self.peers.iter().filter(|it| it.manner == Manner::Honest).all(is_whole)
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.peers.iter().all(|it| it.outcome.is_some())
    }

    /// Whoever is honest has the content, byte by byte.
    pub(crate) fn check_content(&self) {
        for peer in self.peers.iter().filter(|it| it.manner == Manner::Honest) {
            let found: Vec<u8> = peer.disk.values().flatten().copied().collect();
            assert!(found == self.content, "{:?} has other bytes: {}", peer.id, self.report());
        }
    }
}
