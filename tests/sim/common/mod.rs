//! A simulated fleet of seeds and peers, shared by the simulation tests.

pub(crate) mod callers;
pub(crate) mod campaign;
pub(crate) mod checkers;
pub(crate) mod liars;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::machine::membership::seedbook::{SeedAddress, SeedBook};
use folkmoot::machine::quorum::QuorumRule;
use folkmoot::model::{Endpoint, KeyPair, Rng, SeedId, Time, WallTime};
use folkmoot::node::{Event, Node, PeerConfig, PeerNode, Record, SeedConfig, SeedNode};
use folkmoot::sim::{Boot, Simulated, World, WorldOptions};
use rand::SeedableRng as _;

/// How a fleet is made.
#[derive(Clone)]
pub(crate) struct Plan {
    pub seeds: u16,
    pub peers: u16,
    pub rule: QuorumRule,
    pub pinned: bool,
    pub seed_config: SeedConfig,
    pub peer_config: PeerConfig,
    pub options: WorldOptions,
    /// The time between two peers' starts.
    pub stagger: Duration,
    /// Hosts whose list of seeds is another one: these seeds, in this order.
    pub drift: Vec<(Endpoint, Vec<u16>)>,
    /// Whether the second peer's data directory is a copy of the first one's.
    pub twins: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seeds: 3,
            peers: 8,
            rule: QuorumRule::Majority,
            pinned: false,
            seed_config: SeedConfig::default(),
            peer_config: PeerConfig::default(),
            options: WorldOptions::default(),
            stagger: Duration::from_millis(200),
            twins: false,
            drift: Vec::new(),
        }
    }
}

/// The `config.txt` of every host; may change while it runs, as files do.
#[derive(Clone)]
pub(crate) struct Lists {
    rule: QuorumRule,
    pinned: bool,
    seeds: Arc<Mutex<Vec<u16>>>,
    drift: Vec<(Endpoint, Vec<u16>)>,
}

impl Lists {
    /// The list of a host, from the next boot on.
    fn of(&self, host: Endpoint) -> Vec<u16> {
        let other = self.drift.iter().find(|(it, _)| *it == host);
        other.map_or_else(
            || self.seeds.lock().expect("one thread runs a world").clone(),
            |(_, list)| list.clone(),
        )
    }

    fn book(&self, host: Endpoint) -> SeedBook {
        let address = |(id, seed)| {
            let endpoint = seed_endpoint(seed);
            let key = self.pinned.then(|| keys_of(endpoint).public());
            SeedAddress { id: SeedId(id), endpoint, key }
        };
        SeedBook::new(self.rule, &(1..).zip(self.of(host)).map(address).collect::<Vec<_>>())
    }

    /// A new seed in the place of another one, for all that boot from now on.
    pub(crate) fn replace(&self, old: u16, new: u16) {
        for seed in self
            .seeds
            .lock()
            .expect("one thread runs a world")
            .iter_mut()
            .filter(|seed| **seed == old)
        {
            *seed = new;
        }
    }
}

/// A process that carries a node of a fleet, alone or among other services.
pub(crate) trait Carries: Simulated {
    fn node(&self) -> &Node;

    fn node_event(event: &Self::Event) -> Option<&Event>;

    fn node_record(record: &Self::Record) -> Option<&Record>;
}

impl Carries for Node {
    fn node(&self) -> &Node {
        self
    }

    fn node_event(event: &Event) -> Option<&Event> {
        Some(event)
    }

    fn node_record(record: &Record) -> Option<&Record> {
        Some(record)
    }
}

/// A simulated fleet.
pub(crate) struct Fleet<M: Carries = Node> {
    pub world: World<M>,
    pub seeds: Vec<Endpoint>,
    pub peers: Vec<Endpoint>,
    /// The seeds' true keys.
    pub book: SeedBook,
    /// The wall clock at the world's start.
    pub epoch: WallTime,
    /// The lists of seeds that hosts read when they boot.
    pub lists: Lists,
}

pub(crate) fn seed_endpoint(number: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    Endpoint::new([10, 1, high, low].into(), 5001)
}

pub(crate) fn peer_endpoint(number: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    Endpoint::new([10, 2, high, low].into(), 6001)
}

/// The key of the host at `endpoint`, the same in every run.
pub(crate) fn keys_of(endpoint: Endpoint) -> KeyPair {
    let ip = match endpoint.ip() {
        std::net::IpAddr::V4(ip) => u64::from(u32::from(ip)),
        std::net::IpAddr::V6(_) => 0,
    };
    KeyPair::generate(&mut Rng::seed_from_u64(ip << 16 | u64::from(endpoint.port())))
}

impl Fleet {
    /// A fleet that has not been started.
    pub(crate) fn new(seed: u64, plan: &Plan) -> Self {
        Self::of(seed, plan, |_, node| node)
    }

    /// A fleet whose seeds start at once and whose peers follow one by one.
    pub(crate) fn started(seed: u64, plan: &Plan) -> Self {
        let mut fleet = Self::new(seed, plan);
        fleet.start(plan);
        fleet
    }
}

impl<M: Carries> Fleet<M> {
    /// The hosts of its seeds and peers; without those that are ready to take a seed's place.
    pub(crate) fn hosts(&self) -> Vec<Endpoint> {
        [&self.seeds[..], &self.peers].concat()
    }

    /// The events of its nodes, in order.
    pub(crate) fn events(&self) -> impl Iterator<Item = (&Time, &Endpoint, &Event)> {
        let all = self.world.events().iter();
        all.filter_map(|(at, host, event)| Some((at, host, M::node_event(event)?)))
    }

    /// A fleet that has not been started; `carry` makes a process of a node.
    pub(crate) fn of(
        seed: u64,
        plan: &Plan,
        carry: impl Fn(&Boot<'_, M::Record>, Node) -> M + Clone + Send + 'static,
    ) -> Self {
        let seeds: Vec<_> = (1..=plan.seeds).map(seed_endpoint).collect();
        let peers: Vec<_> = (1..=plan.peers).map(peer_endpoint).collect();
        let lists = Lists {
            rule: plan.rule,
            pinned: plan.pinned,
            seeds: Arc::new(Mutex::new((1..=plan.seeds).collect())),
            drift: plan.drift.clone(),
        };
        let mut world = World::new(seed, plan.options.clone());
        // As many again are ready to take their places.
        for endpoint in (1..=plan.seeds * 2).map(seed_endpoint) {
            let (config, lists, carry) = (plan.seed_config, lists.clone(), carry.clone());
            world.add_host(
                endpoint,
                Box::new(move |boot: Boot<'_, M::Record>| {
                    let book = lists.book(endpoint);
                    let id = book.seed_at(endpoint).expect("it is in its own list");
                    let me = (id, endpoint, keys_of(endpoint));
                    let rng = Rng::seed_from_u64(boot.seed);
                    let records = boot.records.iter().filter_map(M::node_record);
                    let records = records.filter_map(seed_record).collect();
                    let node = SeedNode::new(config, me, book, records, rng);
                    carry(&boot, Node::Seed(Box::new(node)))
                }),
            );
        }
        for endpoint in &peers {
            let (config, endpoint) = (plan.peer_config, *endpoint);
            let is_copy = plan.twins && endpoint == peer_endpoint(2);
            let home = if is_copy { peer_endpoint(1) } else { endpoint };
            let (lists, carry) = (lists.clone(), carry.clone());
            world.add_host(
                endpoint,
                Box::new(move |boot: Boot<'_, M::Record>| {
                    let me = (endpoint, keys_of(home));
                    let rng = Rng::seed_from_u64(boot.seed);
                    let records = boot.records.iter().filter_map(M::node_record);
                    let records: Vec<_> = records.filter_map(peer_record).collect();
                    let book = lists.book(endpoint);
                    let node = PeerNode::new(config, me, book, &records, rng);
                    carry(&boot, Node::Peer(Box::new(node)))
                }),
            );
        }
        let known = Lists { pinned: true, drift: Vec::new(), ..lists.clone() };
        let book = known.book(seeds[0]);
        Self { world, seeds, peers, book, epoch: plan.options.epoch, lists }
    }

    /// Starts its seeds at once and its peers one by one.
    pub(crate) fn start(&mut self, plan: &Plan) {
        for endpoint in self.seeds.clone() {
            self.world.boot(endpoint);
        }
        let mut at = self.world.now().after(plan.stagger);
        for endpoint in self.peers.clone() {
            self.world.boot_at(endpoint, at);
            at = at.after(plan.stagger);
        }
    }

    pub(crate) fn seed(&self, endpoint: Endpoint) -> Option<&SeedNode> {
        match self.world.machine(endpoint)?.node() {
            Node::Seed(node) => Some(node),
            Node::Peer(_) => None,
        }
    }

    pub(crate) fn peer(&self, endpoint: Endpoint) -> Option<&PeerNode> {
        match self.world.machine(endpoint)?.node() {
            Node::Peer(node) => Some(node),
            Node::Seed(_) => None,
        }
    }

    /// The members by a seed's registry, ascending.
    pub(crate) fn members_at(&self, seed: Endpoint) -> Vec<Endpoint> {
        let node = self.seed(seed).expect("the seed is up");
        node.authority().registry().alive().map(|entry| entry.subject.endpoint).collect()
    }

    /// Whether every seed lists exactly `members`, ascending.
    pub(crate) fn all_seeds_list(&self, members: &[Endpoint]) -> bool {
        let up = self.seeds.iter().filter(|seed| self.world.is_up(**seed));
        up.clone().count() > 0 && up.into_iter().all(|seed| self.members_at(*seed) == members)
    }

    /// Whether each of these peers is a member in its present life and each seed knows it.
    pub(crate) fn all_active(&self, peers: &[Endpoint]) -> bool {
        peers.iter().all(|peer| {
            let Some(node) = self.peer(*peer) else { return false };
            let subject = node.applicant().subject();
            let is_listed = |seed: &Endpoint| {
                self.seed(*seed).is_some_and(|it| it.authority().registry().is_alive(&subject))
            };
            node.applicant().admission().is_some() && self.seeds.iter().all(is_listed)
        })
    }

    /// Runs until `reached`, at most for `limit`; fails with `what` otherwise.
    #[track_caller]
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        reached: impl Fn(&Self) -> bool,
    ) {
        let end = self.world.now().after(limit);
        while !reached(self) {
            if self.world.now() >= end {
                panic!("not within {limit:?}: {what}\n{}", describe(self));
            }
            self.world.run_for(Duration::from_millis(20));
        }
    }

    /// Runs until everybody is a member and the seeds agree on it.
    #[track_caller]
    pub(crate) fn settle(&mut self, limit: Duration) {
        let peers = self.peers.clone();
        self.run_until(limit, "everybody is a member", |fleet| {
            fleet.all_active(&peers) && fleet.all_seeds_list(&peers)
        });
    }
}

fn seed_record(record: &Record) -> Option<<SeedNode as folkmoot::machine::Vocabulary>::Record> {
    match record {
        Record::Seed(record) => Some(record.clone()),
        Record::Peer(_) => None,
    }
}

fn peer_record(record: &Record) -> Option<<PeerNode as folkmoot::machine::Vocabulary>::Record> {
    match record {
        Record::Peer(record) => Some(record.clone()),
        Record::Seed(_) => None,
    }
}

/// Where everybody stands, for a failure's message.
pub(crate) fn describe<M: Carries>(fleet: &Fleet<M>) -> String {
    let mut lines = Vec::new();
    for seed in &fleet.seeds {
        let Some(node) = fleet.seed(*seed) else {
            lines.push(format!("{seed} is down"));
            continue;
        };
        let status = node.status();
        lines.push(format!(
            "{seed} ready={} connected={} members={} linked={} open={}/{} health={}",
            status.ready,
            status.seeds_connected,
            status.members,
            status.members_linked,
            status.admissions_open,
            status.removals_open,
            status.health,
        ));
    }
    for peer in &fleet.peers {
        let Some(node) = fleet.peer(*peer) else {
            lines.push(format!("{peer} is down"));
            continue;
        };
        let status = node.status();
        let listed = fleet.seeds.iter().filter(|seed| {
            let subject = node.applicant().subject();
            fleet.seed(**seed).is_some_and(|it| it.authority().registry().is_alive(&subject))
        });
        lines.push(format!(
            "{peer} {} {} listed at {} seeds, linked with {:?}, neighbors {:?}, suspects {:?}",
            status.state,
            status.incarnation,
            listed.count(),
            status.seeds,
            node.overlay().neighbors().keys().map(|it| it.ip()).collect::<Vec<_>>(),
            status.suspects,
        ));
    }
    lines.join("\n")
}
