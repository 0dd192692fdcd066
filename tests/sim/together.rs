//! One fleet that does all of it at once: members die and come back while a chat runs, a rollout
//! steps, a Byzantine order grows and files spread between the same hosts, in any weather.
//!
//! A host is one process with a node, a chat's member, a rollout's node, a swarm's peer and, in
//! every second run, a member of a Byzantine order, which share its crashes, its paths and its
//! disk; the seeds' word about the dead reaches the services as in a running program. `SEED=n`
//! replays one run, `TRACE=1` prints it, `SEEDS=n` runs more.

#![allow(clippy::print_stdout, reason = "it prints what it met")]
#![allow(clippy::wildcard_enum_match_arm, reason = "it counts a few events of many")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::machine::bft;
use folkmoot::machine::chat::{self, Rule};
use folkmoot::machine::rollout::{self, CommandId, CommandResult, DisabledRules};
use folkmoot::machine::swarm;
use folkmoot::machine::swarm::{Tree, leaf_hash};
use folkmoot::model::{Endpoint, Rng, Time, VerdictMemo};
use folkmoot::node::Node;
use folkmoot::proto::bft::Committee;
use folkmoot::proto::chat::entry::{HostPort, MemberId, Origin};
use folkmoot::proto::rollout::{Encoding, NodeId, Participant, Roster, RoutingState};
use folkmoot::proto::swarm::{PeerId, PieceIndex, Pieces};
use folkmoot::sim::{
    Boot, DurationRange, FaultCounts, Weather, WeatherFault, WorldOptions, for_each_seed,
};
use rand::{RngExt as _, SeedableRng as _};

use crate::chat_world;
use crate::common::campaign::{Run as Removals, Truth};
use crate::common::checkers::{check_safety, removals, seeds_agree};
use crate::common::{Fleet, Plan, describe, keys_of, peer_endpoint};
use crate::order_world;
use crate::rollout_world::{self, End, check_end, plain_start};
use crate::services::chat::{ChatHost, Desk as ChatDesk};
use crate::services::member::{Command, Member, Record, Services, Told, order};
use crate::services::order::{Desk as OrderDesk, OrderHost};
use crate::services::rollout::{Desk as RolloutDesk, RolloutHost, model};
use crate::services::swarm::{Desk as SwarmDesk, Manner, SwarmHost};
use crate::services::{chat as chat_host, rollout as rollout_host, swarm as swarm_host};

const PEERS: u16 = 5;

/// Time between two looks of the test at its world.
const LOOK: Duration = Duration::from_millis(10);

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Rules that are left out of the machines, to show that a run finds it.
#[derive(Clone, Copy, Debug, Default)]
struct Without {
    rule: Option<Rule>,
    breaks: DisabledRules,
}

/// A program that sends by one member.
struct Program {
    at: usize,
    client: u64,
    next: u64,
}

/// Outcome of a run.
#[derive(Default)]
struct Outcome {
    faults: FaultCounts,
    met: BTreeMap<&'static str, u64>,
    steps: u64,
}

/// A fleet in which everything happens.
struct All {
    fleet: Fleet<Member>,
    chat: chat_world::Checker,
    rollout: rollout_world::Checker,
    /// What is known of the Byzantine order, if there is one.
    order: Option<order_world::Checker>,
    removals: Removals,
    truth: Truth,
    has_takeover: bool,
    content: Vec<u8>,
    names: Vec<NodeId>,
    roster: Roster,
    programs: Vec<Program>,
    rng: Rng,
    met: BTreeMap<&'static str, u64>,
    /// Number of events that were looked at.
    seen: usize,
    typed: u64,
    tickets: u64,
    answers: BTreeMap<CommandId, CommandResult>,
}

/// Setup of each service of a peer.
struct Desks {
    chat: Vec<ChatDesk>,
    rollout: Vec<RolloutDesk>,
    swarm: Vec<SwarmDesk>,
    /// Empty without an order.
    order: Vec<OrderDesk>,
}

impl Desks {
    /// The process of a host, from the records of its disk.
    fn carry(&self, boot: &Boot<'_, Record>, node: Node) -> Member {
        let at = (1..=PEERS).position(|number| peer_endpoint(number) == boot.endpoint);
        let Some(at) = at else { return Member::new(node, None) };
        let (mut chat, mut rollout, mut swarm) = (Vec::new(), Vec::new(), Vec::new());
        let mut order = Vec::new();
        for record in boot.records {
            match record {
                Record::Node(_) => {}
                Record::Chat(it) => chat.push(it.clone()),
                Record::Rollout(it) => rollout.push(it.clone()),
                Record::Swarm(it) => swarm.push(it.clone()),
                Record::Order(it) => order.push(it.clone()),
            }
        }
        let services = Services {
            chat: ChatHost::new(&self.chat[at], &chat, boot.seed ^ 1),
            rollout: RolloutHost::new(&self.rollout[at], &rollout, boot.seed ^ 2),
            swarm: SwarmHost::new(&self.swarm[at], &swarm, boot.seed ^ 3),
            order: self.order.get(at).map(|it| OrderHost::new(it, &order, boot.seed ^ 4)),
        };
        Member::new(node, Some(services))
    }
}

fn chat_desks(rng: &mut Rng, without: Without) -> Vec<ChatDesk> {
    let config = chat::Config {
        takeover: rng.random_bool(0.8),
        takeover_cooldown: secs(4),
        snapshot_every: rng.random_range(3..40),
        window_entries: rng.random_range(0..20),
        batch_entries: rng.random_range(1..8),
        batches_in_flight: rng.random_range(1..6),
        waiting_entries: 200,
        without: without.rule,
        ..chat::Config::default()
    };
    let members = (1..=PEERS).map(|number| {
        let endpoint = peer_endpoint(number);
        let (id, key) = (MemberId(u32::from(number)), keys_of(endpoint).public());
        folkmoot::proto::chat::entry::Member { id, at: HostPort::from(endpoint), key }
    });
    let members: Vec<_> = members.collect();
    let book = Arc::new(Mutex::new(members.clone()));
    let desk = |me: folkmoot::proto::chat::entry::Member| ChatDesk {
        config: config.clone(),
        bootstrap: me.id == MemberId(1),
        me: Arc::new(Mutex::new(me)),
        book: Arc::clone(&book),
        syncs_at_open: true,
        noted: Arc::new(AtomicUsize::new(0)),
    };
    members.into_iter().map(desk).collect()
}

fn rollout_desks(rng: &mut Rng, without: Without) -> (Vec<RolloutDesk>, Roster) {
    let names = "abcde".chars().map(|it| format!("node-{it}").parse().expect("a name"));
    let all = names.zip(1..=PEERS).map(|(node_id, number)| {
        let endpoint = peer_endpoint(number);
        let (host, port) = (endpoint.ip().to_string(), endpoint.port());
        Participant { node_id, host, port, key: keys_of(endpoint).public() }
    });
    let all: Vec<_> = all.collect();
    let roster = Roster::new(all.clone()).expect("a roster");
    let history_max = [1, 3, 10_000][rng.random_range(0..3)];
    let form = [None, None, Some(Encoding::Line), Some(Encoding::Frame)][rng.random_range(0..4)];
    let dead_after = Duration::from_millis([500, 3_000][rng.random_range(0..2)]);
    let has_servers = rng.random_bool(0.3);
    let desk = |(me, number): (&Participant, u16)| {
        let initial = RoutingState::initial(model("v1"), model("v1"));
        let mut config = rollout::Config::new(me.node_id.clone(), roster.clone(), initial);
        let served = rollout_host::MODELS.map(|it| (model(it), String::new()));
        config.models = has_servers.then(|| served.into());
        config.dead_after = dead_after;
        config.breaks = without.breaks;
        let keys = keys_of(peer_endpoint(number));
        RolloutDesk { config, keys, history_max, form, silent_servers: 0.1, errors: Some(0) }
    };
    (all.iter().zip(1..).map(desk).collect(), roster)
}

fn swarm_desks(rng: &mut Rng) -> (Vec<SwarmDesk>, Vec<u8>) {
    let pieces = Pieces::new(rng.random_range(1..12_000), 500).expect("pieces that can be");
    let content: Vec<u8> = (0..pieces.size()).map(|_| rng.random()).collect();
    let of = |index| {
        let range = pieces.range(index).expect("a piece");
        let at = |at| usize::try_from(at).expect("a small content");
        content[at(range.start)..at(range.end)].to_vec()
    };
    let all: BTreeMap<_, _> = (0..pieces.count()).map(PieceIndex).map(|it| (it, of(it))).collect();
    let leaves: Vec<_> = all.values().map(|it| leaf_hash(it)).collect();
    let id = |number: u16| PeerId(1_000 + u32::from(number));
    let owner = rng.random_range(1..=PEERS);
    let rate = [300, 1_000, 10_000][rng.random_range(0..3)];
    let desk = |number| SwarmDesk {
        config: swarm::Config::share(),
        me: id(number),
        pieces,
        first: if number == owner { all.clone() } else { BTreeMap::new() },
        manner: Manner::Honest,
        rate,
        tree: Some(Tree::of_leaves(&leaves)),
        knows_tree: false,
        roster: Vec::new(),
        places: (1..=PEERS).map(|it| (id(it), peer_endpoint(it))).collect(),
        known: (1..=PEERS).filter(|it| *it != number).map(id).collect(),
    };
    ((1..=PEERS).map(desk).collect(), content)
}

const SALT: &str = "fleet";

fn order_founders() -> Arc<Committee> {
    let member = |number| {
        let id = MemberId(u32::from(number));
        let (at, key) = (peer_endpoint(number).into(), order_world::keys_of(id.0).public());
        folkmoot::proto::chat::entry::Member { id, at, key }
    };
    Arc::new(Committee::of((1..=PEERS).map(member)).expect("ids and keys differ"))
}

fn order_desks(rng: &mut Rng) -> (Vec<OrderDesk>, order_world::Checker) {
    let config = bft::Config {
        window: rng.random_range(1..=8),
        snapshot_every: rng.random_range(3..40),
        window_slots: rng.random_range(1..30),
        reign: secs(rng.random_range(5..60)),
        ..bft::Config::default()
    };
    let founders = order_founders();
    let desk = |number| OrderDesk {
        config: config.clone(),
        me: bft::BftIdentity {
            id: MemberId(u32::from(number)),
            keys: order_world::keys_of(u32::from(number)),
            founders: Arc::clone(&founders),
            salt: SALT.to_owned(),
        },
        plot: None,
        is_lost: Arc::default(),
        has_signed: Arc::new(AtomicBool::new(false)),
        window: Arc::new(AtomicU64::new(config.window)),
        mutator: None,
    };
    let desks = (1..=PEERS).map(desk).collect();
    let group = founders.order_id(SALT);
    let checker = order_world::Checker::new((group, config), founders, [].into());
    (desks, checker)
}

/// The weather of a seed. With an even one all clocks are right, so that the seeds' votes can be
/// dated.
fn weather(seed: u64, rng: &mut Rng) -> Weather {
    let mut weather = Weather::draw(seed);
    for fault in [WeatherFault::Kill, WeatherFault::SlowDisk] {
        if rng.random_bool(0.75) {
            weather = weather.with(fault);
        }
    }
    weather.death_ppm = [0, 20, 100][rng.random_range(0..3)];
    if seed.is_multiple_of(2) {
        weather.skew = Duration::ZERO;
        weather = weather.without(WeatherFault::Skew);
    }
    // A run is short, and is to meet more than one fault.
    weather.gap = DurationRange::millis(50, [300, 1_000, 3_000][rng.random_range(0..3)]);
    weather.lasting = DurationRange::millis(50, [1_000, 5_000, 15_000][rng.random_range(0..3)]);
    weather
}

impl All {
    fn new(seed: u64, without: Without, has_order: bool) -> (Self, Weather) {
        let mut rng = Rng::seed_from_u64(seed ^ 0xa11);
        let weather = weather(seed, &mut rng);
        let options = WorldOptions {
            weather: weather.clone(),
            backs_off: rng.random_bool(0.5),
            timers_first: rng.random_bool(0.3),
            ..WorldOptions::default()
        };
        let plan = Plan { peers: PEERS, options, ..Plan::default() };
        let chat = chat_desks(&mut rng, without);
        let has_takeover = chat[0].config.takeover;
        let (rollout, roster) = rollout_desks(&mut rng, without);
        let (swarm, content) = swarm_desks(&mut rng);
        let names = rollout.iter().map(|it| it.config.me.clone()).collect();
        let mut checker = rollout_world::Checker::new(roster.clone());
        checker.may_leap = rollout[0].history_max < 100;
        let mut orders = Rng::seed_from_u64(seed ^ 0x0bf7);
        let (order, known) = has_order.then(|| order_desks(&mut orders)).unzip();
        let order = order.unwrap_or_default();
        let desks = Arc::new(Desks { chat, rollout, swarm, order });
        let mut fleet = Fleet::of(seed, &plan, move |boot, node| desks.carry(boot, node));
        fleet.start(&plan);
        let programs = (0..rng.random_range(0..=2)).map(|_| Program {
            at: rng.random_range(0..usize::from(PEERS)),
            client: Origin::program(rng.random()),
            next: 1,
        });
        let programs = programs.collect();
        let all = Self {
            fleet,
            chat: chat_world::Checker::default(),
            rollout: checker,
            order: known,
            removals: Removals::default(),
            truth: Truth::default(),
            has_takeover,
            content,
            names,
            roster,
            programs,
            rng,
            met: BTreeMap::new(),
            seen: 0,
            typed: 0,
            tickets: 0,
            answers: BTreeMap::new(),
        };
        (all, weather)
    }

    fn services(&self, at: usize) -> Option<&Services> {
        self.fleet.world.machine(self.fleet.peers[at])?.services.as_deref()
    }

    fn command(&mut self, at: usize, command: Command) {
        let host = self.fleet.peers[at];
        self.fleet.world.command(host, command);
    }

    fn order(&mut self, at: usize, command: rollout::Command) -> CommandId {
        self.tickets += 1;
        let ticket = CommandId(self.tickets);
        if self.fleet.world.is_up(self.fleet.peers[at]) {
            self.rollout.on_command(at, ticket, self.fleet.world.now());
            self.command(at, order(ticket, command));
        }
        ticket
    }

    /// Runs on, and reads what was told meanwhile.
    fn run_for(&mut self, span: Duration) {
        let end = self.fleet.world.now().after(span);
        while self.fleet.world.now() < end {
            self.fleet.world.run_for(LOOK);
            self.examine();
            self.heed();
        }
    }

    /// Notes the peers that cannot be expected to answer every seed.
    fn examine(&mut self) {
        let world = &self.fleet.world;
        for peer in &self.fleet.peers {
            let hears = |seed: &Endpoint| world.is_prompt(*seed) && world.are_joined(*seed, *peer);
            if world.is_prompt(*peer) && self.fleet.seeds.iter().all(hears) {
                self.truth.recovers(*peer, world.now());
            } else {
                self.truth.falls_ill(*peer, world.now());
            }
        }
    }

    fn heed(&mut self) {
        let seed = self.fleet.world.seed();
        for (now, host, told) in &self.fleet.world.events()[self.seen..] {
            let at = self.fleet.peers.iter().position(|it| it == host);
            match (told, at) {
                (Told::Chat(told), Some(at)) => {
                    let id = MemberId(u32::try_from(at + 1).expect("few"));
                    self.chat.heed(id, told, &mut self.met);
                    if let chat_host::Told::Group(chat::Event::Refused { reason }) = told
                        && chat_host::ends_process(reason)
                    {
                        let what = format!("{id} is told: {reason}");
                        self.chat.fail(chat_world::Kind::Accused, what);
                    }
                }
                (Told::Swarm(told), _) => {
                    let what = match told {
                        swarm_host::Told::Event(swarm::Event::Downloaded { .. }) => {
                            "a piece of a file"
                        }
                        swarm_host::Told::Torn => "a connection ended amid a piece",
                        swarm_host::Told::Event(swarm::Event::FalsePiece(..)) => {
                            panic!("SEED={seed}: swarm: {host} calls a piece false")
                        }
                        swarm_host::Told::Event(_) | swarm_host::Told::Whole => continue,
                    };
                    *self.met.entry(what).or_default() += 1;
                }
                (Told::Order(told), Some(at)) => {
                    let id = MemberId(u32::try_from(at + 1).expect("few"));
                    let mut tally = BTreeMap::new();
                    let known = self.order.as_mut().expect("there is an order");
                    known.heed(id, told, &mut tally);
                    for what in ["view", "load"] {
                        let count = tally.get(what).copied().unwrap_or_default();
                        *self.met.entry(what).or_default() += count;
                    }
                }
                (Told::Rollout(told), Some(at)) => {
                    self.rollout.heed(at, *now, told);
                    if let rollout_host::Told::Answer(ticket, answer) = told {
                        self.answers.insert(*ticket, answer.clone());
                    }
                    if let rollout_host::Told::Event(event) = told {
                        let what = match event {
                            rollout::Event::Committed(it) if it.proposal.gone.is_some() => {
                                "a rollout goes on without the dead"
                            }
                            rollout::Event::Committed(_) => "committed",
                            rollout::Event::Aborted(_) => "aborted",
                            rollout::Event::InDoubt { .. } => "in doubt",
                            rollout::Event::TookOver { .. } => "took over",
                            rollout::Event::GateFailed { .. } => "a gate failed",
                            _ => continue,
                        };
                        *self.met.entry(what).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        self.seen = self.fleet.world.events().len();
        if let Some(violation) = &self.chat.violation {
            panic!("SEED={seed}: chat: {violation:?}");
        }
        if let Some(violation) = self.order.as_ref().and_then(|it| it.violation.as_ref()) {
            panic!("SEED={seed}: order: {violation:?}");
        }
        if let Err(violation) = self.rollout.verdict() {
            panic!("SEED={seed}: rollout: {violation}");
        }
    }

    /// Does what people do: they type, programs send, operators roll out.
    fn work(&mut self) {
        let any = self.rng.random_range(0..usize::from(PEERS));
        match self.rng.random_range(0..100) {
            0..60 => {
                let text = format!("text {}", self.typed).into();
                self.typed += 1;
                let say = chat::Command::Say { room: "general".into(), text };
                self.command(any, Command::Chat(chat_host::Command::Group(say)));
                self.propose(any);
            }
            60..85 if !self.programs.is_empty() => {
                let chosen = self.rng.random_range(0..self.programs.len());
                let again = self.rng.random_bool(0.3);
                let program = &mut self.programs[chosen];
                let number = if again { program.next.max(2) - 1 } else { program.next };
                program.next = program.next.max(number + 1);
                let (at, client) = (program.at, program.client);
                let ask = chat_host::Command::Client { program: chosen, client, number };
                self.command(at, Command::Chat(ask));
            }
            60..85 => {}
            85..90 => {
                let errors = [None, Some(0), Some(0), Some(50)][self.rng.random_range(0..4)];
                self.command(any, Command::Rollout(rollout_host::Command::Errors(errors)));
            }
            _ => {
                let command = match self.rng.random_range(0..10) {
                    0..5 => {
                        let steps = [vec![500, 5_000, 10_000], vec![10_000], vec![0, 10_000]];
                        plain_start(steps[self.rng.random_range(0..3)].clone())
                    }
                    5 => rollout::Command::Pause,
                    6 => rollout::Command::Resume,
                    7 => rollout::Command::Promote { full: self.rng.random_bool(0.3) },
                    8 => rollout::Command::Rollback,
                    _ => rollout::Command::Abort,
                };
                self.order(any, command);
            }
        }
    }

    /// Types into the Byzantine order, if there is one.
    fn propose(&mut self, at: usize) {
        let Some(known) = &mut self.order else { return };
        let text = format!("order {}", self.typed);
        let id = MemberId(u32::try_from(at + 1).expect("few"));
        known.on_said(id, &text, self.fleet.world.now().as_micros());
        let say = bft::Command::Say { room: "general".into(), text: text.into() };
        self.command(at, Command::Order(say));
    }

    /// Everybody has all of the Byzantine order, and it proves itself.
    fn order_fault(&self) -> Result<(), String> {
        let Some(known) = &self.order else { return Ok(()) };
        for at in 0..usize::from(PEERS) {
            let services = self.services(at).ok_or("it is down")?;
            let host = services.order.as_ref().ok_or("it has no order")?;
            let status = host.machine().ok_or("its order has ended")?.status();
            if status.place.0 != known.order.len() as u64 || status.pending > 0 {
                return Err(format!("not everything is final: {status:?}"));
            }
            order_world::verify(host.log(), (&order_founders(), SALT), &known.order)?;
        }
        Ok(())
    }

    fn calm_down(&mut self) {
        self.fleet.world.calm_down();
        for at in 0..usize::from(PEERS) {
            self.command(at, Command::Rollout(rollout_host::Command::Errors(Some(0))));
        }
    }

    /// Lets the operator of the rollout take in again whoever was taken out while it was away.
    fn readmit(&mut self) {
        let newest = (0..usize::from(PEERS)).filter_map(|at| {
            let now = self.fleet.world.clocks(self.fleet.peers[at]).mono;
            let status = self.services(at)?.rollout.machine().status(now);
            status.roster.has(&self.names[at]).then_some((status.state.version, at, status.roster))
        });
        let Some((_, at, roster)) = newest.max_by_key(|it| it.0) else { return };
        if roster != self.roster {
            let full = self.roster.clone();
            self.order(at, rollout::Command::Roster(full));
        }
    }

    /// Returns an error if something is not as it should be when all is calm.
    fn fault(&mut self) -> Result<(), String> {
        let peers = self.fleet.peers.clone();
        if !self.fleet.all_active(&peers) || !self.fleet.all_seeds_list(&peers) {
            return Err(format!("not everybody is a member\n{}", describe(&self.fleet)));
        }
        if !seeds_agree(&self.fleet) {
            return Err("the seeds disagree".to_owned());
        }
        self.chat_fault()?;
        self.rollout_fault()?;
        self.order_fault()?;
        for at in 0..usize::from(PEERS) {
            let swarm = &self.services(at).ok_or("it is down")?.swarm;
            let found: Vec<u8> = swarm.disk().values().flatten().copied().collect();
            if found.len() < self.content.len() {
                return Err(format!(
                    "{at} has {} bytes: {:?}",
                    found.len(),
                    swarm.machine().status()
                ));
            }
            assert!(found == self.content, "{at} has other bytes");
        }
        Ok(())
    }

    fn chat_fault(&self) -> Result<(), String> {
        let order = &self.chat.order;
        let members = self.chat.members();
        for at in 0..usize::from(PEERS) {
            let host = &self.services(at).ok_or("it is down")?.chat;
            let status = host.group().ok_or("the chat has ended")?.status();
            if !members.contains(&status.id) {
                return Err(format!("{} is not in: {status:?}", status.id));
            }
            if status.commit.0 != order.len() as u64 || host.log().entries.len() != order.len() {
                return Err(format!("not everything is final: {status:?}"));
            }
            let is_open = |it: &&folkmoot::proto::chat::entry::ChatText| {
                !self.chat.is_final(it.msg_id, &it.payload)
            };
            if let Some(open) = host.log().typed().iter().find(is_open) {
                return Err(format!("{open:?} is not final: {status:?}"));
            }
            let highest = MemberId(u32::from(PEERS));
            if self.has_takeover && status.leader != Some(highest) {
                return Err(format!("{:?} leads: {status:?}", status.leader));
            }
        }
        Ok(())
    }

    fn rollout_fault(&self) -> Result<(), String> {
        let world = &self.fleet.world;
        let mut ends = Vec::new();
        for (at, id) in self.names.iter().enumerate() {
            let host = &self.services(at).ok_or("it is down")?.rollout;
            let now = world.clocks(self.fleet.peers[at]).mono;
            let (machine, errors) = (host.machine(), host.errors());
            let status = machine.status(now);
            if status.roster != self.roster {
                return Err(format!("{id} has another roster"));
            }
            if status.in_doubt.is_some() {
                return Err(format!("{id} is in doubt"));
            }
            ends.push(End { id, machine, now, errors });
        }
        check_end(&ends, self.rollout.may_leap)
    }

    /// Checks that a rollout can be committed, and that all serve it.
    fn probe(&mut self) {
        for _ in 0..20 {
            let roster = self.roster.clone();
            let ticket = self.order(0, rollout::Command::Roster(roster));
            self.run_for(Duration::from_millis(2_600));
            if matches!(self.answers.get(&ticket), Some(CommandResult::Committed { .. })) {
                return;
            }
        }
        panic!("SEED={}: rollout: T5: nothing can be committed", self.fleet.world.seed());
    }
}

/// The whole life of a fleet: it comes together in a storm, works, calms down, and is whole.
fn run(seed: u64, without: Without, has_order: bool) -> Outcome {
    let _memo = VerdictMemo::on_this_thread();
    let (mut all, weather) = All::new(seed, without, has_order);
    let storm = secs(all.rng.random_range(10..25));
    let begins = Duration::from_millis(all.rng.random_range(0..6_000));
    let ends = Time::ZERO.after(begins + storm);
    all.run_for(begins);
    all.fleet.world.storm(&weather, ends);
    while all.fleet.world.now() < ends {
        all.work();
        let pause = Duration::from_millis(all.rng.random_range(10..400));
        all.run_for(pause);
    }
    check_safety(&all.fleet);
    all.calm_down();
    let limit = all.fleet.world.now().after(secs(120));
    loop {
        all.run_for(secs(1));
        match all.fault() {
            Ok(()) => break,
            Err(_) if all.fleet.world.now() < limit => all.readmit(),
            Err(fault) => panic!("SEED={seed}: not whole after 120 s of calm: {fault}"),
        }
    }
    all.probe();
    check_safety(&all.fleet);
    for at in 0..usize::from(PEERS) {
        let log = all.services(at).expect("it is up").chat.log().entries.clone();
        all.chat.on_end(MemberId(u32::try_from(at + 1).expect("few")), &log);
    }
    all.heed();
    if let Some(known) = &mut all.order {
        known.on_end();
    }
    all.heed();
    if seed.is_multiple_of(2) {
        let All { fleet, truth, removals, .. } = &mut all;
        removals.judge(fleet, truth);
    }
    let Removals { wrong, stale, .. } = &all.removals;
    assert!(wrong.is_empty(), "SEED={seed}: wrongly removed: {}", wrong.join("\n"));
    assert!(stale.is_empty(), "SEED={seed}: removed too late: {}", stale.join("\n"));
    let removed = removals(&all.fleet).len() as u64;
    all.met.insert("a member was removed", removed);
    Outcome { faults: all.fleet.world.tally(), met: all.met, steps: all.fleet.world.steps() }
}

/// Rules of which a fleet must not lack one, and within how many seeds that shows.
fn rules() -> Vec<(String, Without, u64)> {
    let chat = |(rule, within): (Rule, u64)| {
        (format!("{rule:?}"), Without { rule: Some(rule), ..Without::default() }, within)
    };
    let of = |name: &str, breaks: DisabledRules, within: u64| {
        (name.to_owned(), Without { breaks, ..Without::default() }, within)
    };
    let whole = DisabledRules::NONE;
    let chats = [
        (Rule::Quorum, 20),
        (Rule::Adoption, 40),
        (Rule::Disk, 40),
        (Rule::Majority, 20),
        (Rule::Once, 20),
    ];
    let mut rules: Vec<_> = chats.into_iter().map(chat).collect();
    rules.extend([
        of("T3 decision not forced", DisabledRules { decision_unforced: true, ..whole }, 20),
        of("P6 decision not matched", DisabledRules { decision_unmatched: true, ..whole }, 40),
        of("P7 last line is served", DisabledRules { serves_last_line: true, ..whole }, 40),
        of("T8 votes unanswered", DisabledRules { unanswered: true, ..whole }, 20),
    ]);
    rules
}

#[test]
fn a_fleet_that_lacks_a_rule_is_found_out() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    let wanted = std::env::var("ROW").unwrap_or_default();
    for (name, without, within) in rules().into_iter().filter(|it| it.0.contains(&wanted)) {
        let found = (0..within).find_map(|seed| {
            let failure = std::panic::catch_unwind(|| run(seed, without, false)).err()?;
            let text = failure.downcast_ref::<String>().cloned().unwrap_or_default();
            Some((seed, text))
        });
        match found {
            Some((seed, text)) => {
                let text: String = text.chars().take(200).collect();
                println!("| {name} | {seed} | {text} |");
            }
            None => missed.push(format!("{name}: nothing shows within {within} seeds")),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn one_fleet_does_all_of_it_at_once_in_any_weather() {
    let outcomes = for_each_seed(200, |seed| run(seed, Without::default(), seed % 2 == 1));
    let (mut faults, mut met, mut steps) = (FaultCounts::default(), BTreeMap::new(), 0);
    for outcome in &outcomes {
        faults += &outcome.faults;
        steps += outcome.steps;
        for (what, count) in &outcome.met {
            *met.entry(*what).or_insert(0) += count;
        }
    }
    println!("{} runs, {steps} steps: {met:?} {faults:?}", outcomes.len());
    if outcomes.len() >= 200 {
        for fault in WeatherFault::ALL.into_iter().filter(|it| *it != WeatherFault::Wipe) {
            assert!(faults.faults(fault) > 50, "{fault:?} is too rare");
        }
        for (what, least) in [
            ("acknowledged", 500),
            ("leader", 400),
            ("adoption of another's log", 50),
            ("committed", 1_000),
            ("aborted", 300),
            ("in doubt", 10),
            ("a rollout goes on without the dead", 20),
            ("a piece of a file", 1_000),
            ("a connection ended amid a piece", 50),
            ("a member was removed", 100),
            ("view", 200),
        ] {
            let count = met.get(what).copied().unwrap_or_default();
            assert!(count >= least, "{what}: {count} times only");
        }
    }
}
