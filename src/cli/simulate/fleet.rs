//! The simulated fleet: the machines of `seed` and `peer`, as they are, in a virtual world.
//!
//! Invariants: nothing is drawn but from the one seed; a host's key follows from its endpoint, so
//! the same flags give the same run to the last byte.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::seq::IteratorRandom as _;

use super::args::SimulateArgs;
use crate::machine::membership::seedbook::{SeedAddress, SeedBook};
use crate::machine::membership::{applicant, authority};
use crate::model::{Endpoint, KeyPair, Rng, SeedId, Time};
use crate::node::{Node, PeerConfig, PeerNode, Record, SeedConfig, SeedNode};
use crate::proto::line::line_length;
use crate::sim::{Boot, DurationRange, Weather, World, WorldOptions};

/// Times of the stages, in virtual time. Fixed before the run begins: a fleet that is slow to come
/// together is measured as it is then, and reported to be late.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// The first peer starts.
    pub(super) join: Time,
    /// The last peer has started.
    pub(super) joined: Time,
    /// The fleet is left alone to be watched.
    pub(super) idle: Time,
    /// The first gossip message is made; another follows each second.
    pub(super) gossip: Time,
    /// Some peers die, all at once.
    pub(super) kill: Time,
    /// The run is over.
    pub(super) end: Time,
}

/// Pause in which the seeds learn each other's keys before the first peer starts.
const HEAD_START: Duration = Duration::from_secs(2);

/// Pause for the last peers to be admitted and linked, and the overlay to come to rest.
const REST: Duration = Duration::from_secs(15);

/// Pause between two gossip messages, and from the last one to the deaths.
const GOSSIP_PAUSE: Duration = Duration::from_secs(1);
const GOSSIP_TAIL: Duration = Duration::from_secs(4);

impl Schedule {
    /// The schedule of these flags.
    pub(super) fn new(args: &SimulateArgs) -> Self {
        let join = Time::ZERO.after(HEAD_START);
        let joined = join.after(stagger(args) * u32::from(args.peers));
        let idle = joined.after(REST);
        let gossip = idle.after(args.idle.0);
        let gossip_tail = if args.gossip == 0 { Duration::ZERO } else { GOSSIP_TAIL };
        let kill = gossip.after(GOSSIP_PAUSE * u32::from(args.gossip) + gossip_tail);
        Self { join, joined, idle, gossip, kill, end: kill.after(args.duration.0) }
    }
}

/// The time between two peers' starts.
fn stagger(args: &SimulateArgs) -> Duration {
    Duration::from_secs(1) / args.join_rate
}

/// A fleet whose seeds run and whose peers are going to start.
pub(super) struct Fleet {
    /// The world they live in.
    pub(super) world: World<Node>,
    /// The seeds, in their order.
    pub(super) seeds: Vec<Endpoint>,
    /// The peers, ascending.
    pub(super) peers: Vec<Endpoint>,
    /// Peers that are going to die.
    pub(super) victims: Vec<Endpoint>,
}

/// The endpoint of seed `id`.
fn seed_endpoint(id: u16) -> Endpoint {
    let [high, low] = id.to_be_bytes();
    Endpoint::new([10, 1, high, low].into(), 5001)
}

/// The endpoint of a peer, each on a host of its own.
fn peer_endpoint(number: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    Endpoint::new([10, 2, high, low].into(), 6001)
}

fn keys_of(endpoint: Endpoint) -> KeyPair {
    let ip = match endpoint.ip() {
        std::net::IpAddr::V4(ip) => u64::from(u32::from(ip)),
        std::net::IpAddr::V6(_) => 0,
    };
    KeyPair::generate(&mut Rng::seed_from_u64(ip << 16 | u64::from(endpoint.port())))
}

impl Fleet {
    /// Lays out the fleet of these flags and starts its seeds.
    pub(super) fn lay_out(args: &SimulateArgs, schedule: &Schedule) -> Self {
        let seeds: Vec<_> = (1..=args.seeds).map(seed_endpoint).collect();
        let peers: Vec<_> = (1..=args.peers).map(peer_endpoint).collect();
        let weather = weather(args);
        let options = WorldOptions { weather, steps_max: u64::MAX, ..WorldOptions::default() };
        let mut rng = Rng::seed_from_u64(args.seed);
        let mut victims = peers.iter().copied().sample(&mut rng, usize::from(args.kill));
        victims.sort_unstable();
        // In no order of endpoints: the first to join become hubs, whatever their addresses.
        let talkers = (0..peers.len()).sample(&mut rng, usize::from(args.gossip));
        let addresses: Vec<_> = (1..=args.seeds)
            .map(|id| SeedAddress { id: SeedId(id), endpoint: seed_endpoint(id), key: None })
            .collect();
        let book = SeedBook::new(args.quorum.into(), &addresses);
        let mut world = World::new(args.seed, options);
        world.set_meter(line_length);
        let mut fleet = Self { world, seeds, peers, victims };
        for (id, endpoint) in (1..).zip(fleet.seeds.clone()) {
            fleet.add_seed(SeedId(id), endpoint, book.clone());
            fleet.world.boot(endpoint);
        }
        let mut boot = schedule.join;
        for (number, endpoint) in fleet.peers.clone().into_iter().enumerate() {
            let mut config = PeerConfig::default();
            config.gossip.messages_max = 0;
            if let Some(turn) = talkers.iter().position(|talker| *talker == number) {
                let turn = u32::try_from(turn).unwrap_or(0);
                // Counted from its first neighbor on, a moment after it starts.
                config.gossip.messages_max = 1;
                config.gossip.interval = schedule.gossip.since(boot) + GOSSIP_PAUSE * turn;
            }
            fleet.add_peer(config, endpoint, book.clone());
            fleet.world.boot_at(endpoint, boot);
            boot = boot.after(stagger(args));
        }
        fleet
    }

    fn add_seed(&mut self, id: SeedId, endpoint: Endpoint, book: SeedBook) {
        let make = move |boot: Boot<'_, Record>| {
            let me = (id, endpoint, keys_of(endpoint));
            let records = boot.records.iter().filter_map(seed_record).collect();
            let (config, rng) = (SeedConfig::default(), Rng::seed_from_u64(boot.seed));
            Node::Seed(Box::new(SeedNode::new(config, me, book.clone(), records, rng)))
        };
        self.world.add_host(endpoint, Box::new(make));
    }

    fn add_peer(&mut self, config: PeerConfig, endpoint: Endpoint, book: SeedBook) {
        let make = move |boot: Boot<'_, Record>| {
            let me = (endpoint, keys_of(endpoint));
            let records: Vec<_> = boot.records.iter().filter_map(peer_record).collect();
            let rng = Rng::seed_from_u64(boot.seed);
            Node::Peer(Box::new(PeerNode::new(config, me, book.clone(), &records, rng)))
        };
        self.world.add_host(endpoint, Box::new(make));
    }

    /// The machine of a peer that lives.
    pub(super) fn peer(&self, endpoint: Endpoint) -> Option<&PeerNode> {
        match self.world.machine(endpoint)? {
            Node::Peer(node) => Some(node),
            Node::Seed(_) => None,
        }
    }

    /// The machine of a seed that lives.
    pub(super) fn seed(&self, endpoint: Endpoint) -> Option<&SeedNode> {
        match self.world.machine(endpoint)? {
            Node::Seed(node) => Some(node),
            Node::Peer(_) => None,
        }
    }
}

/// Weather of these flags: a path's base is drawn between half and one and a half of the latency.
fn weather(args: &SimulateArgs) -> Weather {
    let micros = u64::try_from(args.latency.0.as_micros()).unwrap_or(u64::MAX);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1 million")]
    let loss_ppm = (args.loss * 1_000_000.0).round() as u32;
    Weather {
        latency: DurationRange::micros(micros / 2, micros + micros / 2),
        jitter: args.latency.0 / 4,
        loss_ppm,
        ..Weather::calm()
    }
}

fn seed_record(record: &Record) -> Option<authority::Record> {
    match record {
        Record::Seed(record) => Some(record.clone()),
        Record::Peer(_) => None,
    }
}

fn peer_record(record: &Record) -> Option<applicant::Record> {
    match record {
        Record::Peer(record) => Some(record.clone()),
        Record::Seed(_) => None,
    }
}
