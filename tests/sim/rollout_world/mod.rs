//! A fleet of rollout nodes in the simulator: operators, seeds, deaths between any two effects,
//! lost disks, strangers who lie, and a checker that sees everything.
//!
//! One number draws all. The checker keeps its own books; it asks no machine whether all is well.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "tests"
)]
#![allow(clippy::print_stdout, reason = "it prints what it found, and tables on demand")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a judge picks a few records of many")]

mod chaos;
mod checker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::machine::rollout::{
    Command, CommandId, CommandRequest, CommandResult, Config, DecisionAuthority, DisabledRules,
    Event, Record, RolloutMachine,
};
use folkmoot::model::{Endpoint, KeyPair, Rng, Time};
use folkmoot::proto::rollout::{
    Committed, Encoding, Message, NodeId, Participant, RemovalAuthority, Roster, RoutingState, TxId,
};
use folkmoot::sim::{self, Boot, DurationRange, Weather, WeatherFault, WorldOptions};
use rand::{RngExt as _, SeedableRng as _};

use crate::services::rollout::{Command as Call, Desk, MODELS, RolloutHost, Told, model};

pub(crate) use chaos::plain_start;
pub(crate) use checker::{Checker, End, WHOLE, check_end};

/// The longest time between two looks at what was told.
const LOOK: Duration = ms(2);

pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What a run is like.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) breaks: DisabledRules,
    /// Slow disks and many deaths, whatever is drawn.
    pub(crate) is_harsh: bool,
    /// None: drawn.
    pub(crate) decides: Option<DecisionAuthority>,
    /// Logs are opened without a sync, to show that one is needed.
    pub(crate) opens_unsynced: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) committed: usize,
    pub(crate) aborted: usize,
    pub(crate) crashes: usize,
    pub(crate) lost_disks: usize,
    pub(crate) restored: usize,
    pub(crate) resolved: usize,
    pub(crate) recovered: usize,
    pub(crate) doubts: usize,
    pub(crate) rollbacks: usize,
    pub(crate) braked: usize,
    pub(crate) took_over: usize,
    pub(crate) forged: usize,
    pub(crate) gone: usize,
    /// How often of these by the seeds' word.
    pub(crate) by_seeds: usize,
    pub(crate) settled: usize,
    pub(crate) answers: usize,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) keys: KeyPair,
    pub(crate) roster: Roster,
    desk: Option<Arc<Mutex<Desk>>>,
    backup: Option<Vec<Record>>,
    /// Number of its starts.
    life: u64,
    /// Number of ends that its part in the order has told it in this life.
    read: usize,
    /// Whether it ran when it was looked at last.
    was_up: bool,
    slow_disk: bool,
    /// How its canary fares, in percent of errors; none: too few requests.
    pub(crate) errors: Option<u64>,
}

#[derive(Debug)]
enum Happening {
    Restart(usize),
    PowerCut {
        node: usize,
        life: u64,
    },
    /// A node's fleet tells it whom the seeds call dead: these, or those of that moment.
    Dead {
        node: usize,
        life: u64,
        dead: Option<BTreeSet<usize>>,
    },
    Chaos,
    Decided {
        node: usize,
        life: u64,
        txid: TxId,
    },
    /// A node's part in the order tells it all ends that it has not told it yet.
    Ordered {
        node: usize,
        life: u64,
    },
}

pub(crate) struct World {
    pub(crate) world: sim::World<RolloutHost>,
    pub(crate) rng: Rng,
    pub(crate) nodes: Vec<Node>,
    agenda: BTreeMap<(Time, u64), Happening>,
    number: u64,
    /// Who is on which side of a partition.
    pub(crate) sides: Vec<u8>,
    latency: u64,
    pub(crate) decides: DecisionAuthority,
    breaks: DisabledRules,
    /// The chance of a death at an effect, in a million.
    pub(crate) crash_ppm: u32,
    pub(crate) is_calm: bool,
    pub(crate) checker: Checker,
    pub(crate) figures: Figures,
    log: BTreeMap<TxId, (bool, Option<Box<Committed>>)>,
    /// Transactions with an end in the log, in its order.
    ends: Vec<TxId>,
    /// What was said, to be said again.
    said: Vec<(usize, usize, Message)>,
    pub(crate) tickets: u64,
    pub(crate) answers: BTreeMap<CommandId, CommandResult>,
    is_harsh: bool,
    pub(crate) has_odd_rosters: bool,
    pub(crate) lost: BTreeSet<usize>,
    mallory: KeyPair,
    /// How many committed transactions a node keeps whole.
    history_max: usize,
    /// Whether what is said crosses the wire as bytes.
    form: Option<Encoding>,
    /// In a million, how often a death takes the disk with it.
    loss_ppm: u32,
    /// Whether nodes have servers of their own, which have to answer.
    has_servers: bool,
    /// How long the dead stay dead; drawn if it is not set.
    down_for: Option<Duration>,
    /// Whom no operator ever calls gone, so that no two halves call each other so.
    pub(crate) anchor: usize,
    /// Whether there are seeds, and whom they call dead now, rightly or not.
    pub(crate) has_seeds: bool,
    pub(crate) dead: BTreeSet<usize>,
}

fn place(at: usize) -> Endpoint {
    Endpoint::new([127, 0, 0, 1].into(), 60_001 + u16::try_from(at).expect("few"))
}

impl World {
    pub(crate) fn new(setup: &Setup) -> Self {
        let mut rng = Rng::seed_from_u64(setup.seed);
        let count = rng.random_range(3..=9);
        let count = if rng.random_bool(0.6) { count.min(4) } else { count };
        let all: Vec<(Participant, KeyPair)> = (0..count)
            .map(|at: u16| {
                let keys = KeyPair::generate(&mut rng);
                let node_id = format!("node-{}", char::from(b'a' + at as u8)).parse().unwrap();
                let (host, port) = ("127.0.0.1".to_owned(), place(usize::from(at)).port());
                (Participant { node_id, host, port, key: keys.public() }, keys)
            })
            .collect();
        let first = if rng.random_bool(0.3) { rng.random_range(2..=count) } else { count };
        let named = all.iter().take(first.into()).map(|it| it.0.clone()).collect();
        let roster = Roster::new(named).unwrap();
        let has_odd_rosters = rng.random_bool(0.08);
        let decided_in_log = rng.random_bool(0.25);
        let decides = setup.decides.unwrap_or(match decided_in_log {
            true => DecisionAuthority::Log,
            false => DecisionAuthority::Coordinator,
        });
        let nodes = all.iter().map(|(me, keys)| Node {
            id: me.node_id.clone(),
            keys: keys.clone(),
            roster: roster.clone(),
            desk: None,
            backup: None,
            life: 0,
            read: 0,
            was_up: false,
            slow_disk: rng.random_bool(0.2),
            errors: Some(0),
        });
        let nodes: Vec<_> = nodes.collect();
        let latency = *[200, 1000, 20_000, 300_000].get(rng.random_range(0..4)).unwrap();
        let mallory = KeyPair::generate(&mut rng);
        let opens_unsynced = setup.opens_unsynced;
        let options = WorldOptions { opens_unsynced, ..WorldOptions::default() };
        let mut world = Self {
            world: sim::World::new(setup.seed, options),
            sides: vec![0; nodes.len()],
            nodes,
            agenda: BTreeMap::new(),
            number: 0,
            latency,
            decides,
            breaks: setup.breaks,
            crash_ppm: 0,
            is_calm: false,
            checker: Checker::new(roster),
            figures: Figures::default(),
            log: BTreeMap::new(),
            ends: Vec::new(),
            said: Vec::new(),
            tickets: 0,
            answers: BTreeMap::new(),
            is_harsh: setup.is_harsh,
            has_odd_rosters,
            lost: BTreeSet::new(),
            mallory,
            history_max: [1, 3, 10_000][rng.random_range(0..3)],
            form: [None, None, Some(Encoding::Line), Some(Encoding::Frame)][rng.random_range(0..4)],
            loss_ppm: 0,
            has_servers: rng.random_bool(0.3),
            down_for: None,
            anchor: rng.random_range(0..usize::from(first)),
            has_seeds: !has_odd_rosters && rng.random_bool(0.5),
            dead: BTreeSet::new(),
            rng,
        };
        if has_odd_rosters {
            let all: Vec<_> = all.into_iter().map(|it| it.0).collect();
            chaos::odd_rosters(&mut world, &all);
        }
        world.checker.may_leap = world.history_max < 100;
        world.checker.is_timed = decides == DecisionAuthority::Coordinator;
        world.crash_ppm = *[0, 300, 2000].get(world.rng.random_range(0..3)).unwrap();
        if setup.is_harsh {
            world.crash_ppm = 5000;
            world.loss_ppm = 150_000;
            world.nodes.iter_mut().for_each(|it| it.slow_disk = true);
        }
        (0..world.nodes.len()).for_each(|at| world.add(at));
        world.set_weather();
        world
    }

    /// Adds the host of a node.
    fn add(&mut self, at: usize) {
        let node = &self.nodes[at];
        let initial = RoutingState::initial(model("v1"), model("v1"));
        let mut config = Config::new(node.id.clone(), node.roster.clone(), initial);
        config.decides = self.decides;
        config.dead_after = ms(500);
        let served = MODELS.map(|it| (model(it), String::new()));
        config.models = self.has_servers.then(|| served.into());
        config.breaks = self.breaks;
        let desk = Arc::new(Mutex::new(Desk {
            config,
            keys: node.keys.clone(),
            history_max: self.history_max,
            form: self.form,
            silent_servers: 0.1,
            errors: Some(0),
        }));
        let of_host = Arc::clone(&desk);
        let factory = move |boot: Boot<'_, Record>| {
            let desk = of_host.lock().expect("one thread runs a world");
            RolloutHost::new(&desk, boot.records, boot.seed)
        };
        self.world.add_host(place(at), Box::new(factory));
        self.nodes[at].desk = Some(desk);
        if self.nodes[at].slow_disk {
            self.world.set_fsync(place(at), Some(DurationRange::micros(100, 400_000)));
        }
    }

    /// The weather as it is to be now.
    fn set_weather(&mut self) {
        let latency = if self.is_calm { self.latency.min(20_000) } else { self.latency };
        self.world.set_weather(Weather {
            latency: DurationRange::micros(latency / 2, latency / 2),
            jitter: Duration::from_micros(latency),
            loss_ppm: if self.is_calm { 0 } else { 10_000 },
            fsync: DurationRange::micros(100, 3_000),
            snapshot_percent: 5,
            torn_tails: true,
            death_ppm: self.crash_ppm,
            lasting: DurationRange::millis(10, 6_000),
            ..Weather::calm()
        });
    }

    pub(crate) const fn now(&self) -> Time {
        self.world.now()
    }

    /// A node's own clock.
    pub(crate) fn clock(&self, at: usize) -> Time {
        self.world.clocks(place(at)).mono
    }

    pub(crate) fn machine(&self, at: usize) -> Option<&RolloutMachine> {
        self.world.machine(place(at)).map(RolloutHost::machine)
    }

    fn plan(&mut self, at: Time, what: Happening) {
        self.number += 1;
        self.agenda.insert((at, self.number), what);
    }

    /// Everything from the first start to the calm end.
    pub(crate) fn play(&mut self) -> Result<(), String> {
        for at in 0..self.nodes.len() {
            let late = Duration::from_micros(self.rng.random_range(0..500_000));
            self.plan(self.now().after(late), Happening::Restart(at));
        }
        self.plan(self.now().after(ms(1500)), Happening::Chaos);
        let storm = ms(self.rng_between(12_000, 25_000));
        self.run_for(storm)?;
        self.calm_down();
        self.run_for(ms(20_000))?;
        if self.has_odd_rosters {
            return Ok(());
        }
        self.check_doubts()?;
        self.resolve_by_hand();
        self.run_for(ms(20_000))?;
        self.check_end()?;
        self.probe()
    }

    /// The coordinator of the only transaction dies somewhere on its way and stays dead: how long
    /// anybody is in doubt after that, as far as it is looked at, which is for 20 seconds.
    pub(crate) fn play_dead_coordinator(&mut self) -> Result<Duration, String> {
        self.is_calm = true;
        self.begin_in_peace()?;
        self.down_for = Some(ms(3_600_000));
        let order = chaos::plain_start(vec![10_000]);
        self.command(0, order);
        let moment = Duration::from_micros(self.rng_between(500, 9000));
        self.run_for(moment)?;
        let is_power_cut = self.rng.random_bool(0.5);
        self.crash(0, is_power_cut);
        let died_at = self.now();
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            self.run_for(ms(100))?;
            let mut up = (0..self.nodes.len()).filter_map(|it| self.machine(it));
            if up.any(|it| it.prepared().is_some()) {
                longest = self.now().since(died_at);
            }
        }
        Ok(longest)
    }

    /// Starts all nodes, while nothing goes wrong.
    fn begin_in_peace(&mut self) -> Result<(), String> {
        self.crash_ppm = 0;
        self.latency = 1000;
        self.set_weather();
        for at in 0..self.nodes.len() {
            self.plan(self.now(), Happening::Restart(at));
        }
        self.run_for(ms(3000))
    }

    /// The coordinator of the only transaction dies or is cut off somewhere on its way, is called
    /// gone, and comes back, perhaps before that.
    pub(crate) fn play_gone(&mut self) -> Result<(), String> {
        self.begin_in_peace()?;
        self.latency = [1000, 20_000, 200_000][self.rng.random_range(0..3)];
        self.set_weather();
        self.command(0, chaos::plain_start(vec![10_000]));
        let moment = self.rng_between(0, 4 * self.latency);
        self.run_for(Duration::from_micros(moment))?;
        if self.rng.random_bool(0.5) {
            self.down_for = Some(ms(self.rng_between(10, 4000)));
            let is_power_cut = self.rng.random_bool(0.5);
            self.crash(0, is_power_cut);
        } else {
            self.sides[0] = 1;
            self.part();
            (1..self.nodes.len()).for_each(|at| self.close((at, 0)));
        }
        let (whole_at, order_at) = (self.rng_between(1, 60), self.rng_between(1, 40));
        let mut is_back_first = self.sides[0] == 1 && self.rng.random_bool(0.5);
        for step in 0..80 {
            self.run_for(ms(50))?;
            if is_back_first && let Some(at) = self.voted_to_settle() {
                // It reaches one that has just given it up before the others' word does.
                self.sides[at] = 1;
                self.part();
                is_back_first = false;
            }
            if step == whole_at {
                self.join();
            }
            let gone = self.nodes[0].id.clone();
            let machine = self.machine(1).expect("it lives");
            let is_away = machine.roster().has(&gone) && !machine.reaches(&gone);
            if step >= order_at && (step - order_at).is_multiple_of(20) && is_away {
                self.command(1, Command::Gone { nodes: [gone].into() });
            }
        }
        self.calm_down();
        self.run_for(ms(25_000))?;
        self.check_doubts()?;
        self.check_end()?;
        self.probe()
    }

    /// A node is backed up, dies and comes back, begins something, is restored from the backup, and
    /// begins something again.
    pub(crate) fn play_restored(&mut self) -> Result<(), String> {
        self.begin_in_peace()?;
        self.down_for = Some(ms(200));
        self.back_up_or_restore(0);
        self.crash(0, false);
        for _ in 0..2 {
            let moment = ms(self.rng_between(2000, 4000));
            self.run_for(moment)?;
            let roster = self.machine(0).expect("it is back").roster().clone();
            self.command(0, Command::Roster(roster));
            self.run_for(ms(3000))?;
            self.back_up_or_restore(0);
        }
        self.calm_down();
        self.run_for(ms(25_000))?;
        self.check_doubts()?;
        self.check_end()?;
        self.probe()
    }

    /// The network falls apart, at any moment of the only transaction; the seeds tell the nodes of
    /// each part, or of one, that those of the other are dead, and later it is whole again.
    pub(crate) fn play_parts(&mut self) -> Result<(), String> {
        self.begin_in_peace()?;
        self.latency = [1000, 20_000, 200_000][self.rng.random_range(0..3)];
        self.set_weather();
        let count = self.nodes.len();
        if self.rng.random_bool(0.7) {
            let by = self.rng.random_range(0..count);
            self.command(by, chaos::plain_start(vec![10_000]));
            let moment = self.rng_between(0, 4 * self.latency);
            self.run_for(Duration::from_micros(moment))?;
        }
        for side in 0..count {
            self.sides[side] = self.rng.random_range(0..2);
        }
        self.part();
        for (a, b) in self.linked() {
            if self.sides[a] != self.sides[b] {
                self.close((a, b));
            }
        }
        for _ in 0..2 {
            let life = |at: usize| self.nodes[at].life;
            let lives: Vec<_> = (0..count).map(life).collect();
            let alike = |a: usize, b: usize| self.sides[a] == self.sides[b];
            let others = |at: usize| (0..count).filter(|it| !alike(at, *it)).collect();
            let of_part: Vec<BTreeSet<usize>> = (0..count).map(others).collect();
            for at in 0..count {
                let late = ms(self.rng_between(0, 4000));
                if self.rng.random_bool(0.9) {
                    let (node, life, dead) = (at, lives[at], Some(of_part[at].clone()));
                    self.plan(self.now().after(late), Happening::Dead { node, life, dead });
                }
            }
            self.run_for(ms(4000))?;
            if self.rng.random_bool(0.3) {
                let (at, is_power_cut) =
                    (self.rng.random_range(0..count), self.rng.random_bool(0.5));
                self.crash(at, is_power_cut);
            }
            let by = self.rng.random_range(0..count);
            self.command(by, Command::Promote { full: true });
            let moment = ms(self.rng_between(0, 6000));
            self.run_for(moment)?;
        }
        self.join();
        let moment = ms(self.rng_between(0, 3000));
        self.run_for(moment)?;
        self.has_seeds = true;
        self.calm_down();
        self.run_for(ms(25_000))?;
        self.check_doubts()?;
        self.check_end()?;
        self.probe()
    }

    /// Somebody who has voted to settle what a dead coordinator began, when that is decided.
    fn voted_to_settle(&self) -> Option<usize> {
        let settles = |at: &usize| {
            let prepared = self.machine(*at)?.prepared()?;
            prepared.settles().map(|_| ())
        };
        let is_decided = self.machine(1).is_some_and(|it| it.prepared().is_none());
        (2..self.nodes.len()).find(|at| is_decided && settles(at).is_some())
    }

    fn rng_between(&mut self, low: u64, high: u64) -> u64 {
        self.rng.random_range(low..high)
    }

    fn calm_down(&mut self) {
        self.is_calm = true;
        self.crash_ppm = 0;
        self.set_weather();
        self.join();
        let is_sick = self.rng.random_bool(0.5);
        for at in 0..self.nodes.len() {
            let bad = if is_sick && at == 0 { 50 } else { 0 };
            self.set_errors(at, Some(bad));
            self.desk(at).silent_servers = 0.0;
            self.world.command(place(at), Call::ServersAnswer);
            if self.machine(at).is_none() {
                self.plan(self.now().after(ms(100)), Happening::Restart(at));
            }
        }
        if self.has_seeds {
            self.certify(BTreeSet::new());
        }
    }

    fn desk(&self, at: usize) -> std::sync::MutexGuard<'_, Desk> {
        let desk = self.nodes[at].desk.as_ref().expect("it has a host");
        desk.lock().expect("one thread runs a world")
    }

    pub(crate) fn set_errors(&mut self, at: usize, errors: Option<u64>) {
        self.nodes[at].errors = errors;
        self.desk(at).errors = errors;
        self.world.command(place(at), Call::Errors(errors));
    }

    pub(crate) fn run_for(&mut self, span: Duration) -> Result<(), String> {
        let end = self.now().after(span);
        while self.now() < end {
            let next = self.agenda.first_key_value().map_or(end, |((at, _), _)| *at);
            let stop = self.now().after(LOOK).min(next).min(end);
            self.world.run_until(stop);
            self.heed();
            while let Some(entry) = self.agenda.first_entry()
                && entry.key().0 <= self.world.now()
            {
                let what = entry.remove();
                self.happen(what);
                self.heed();
            }
            self.checker.look_at_the_clock(self.now());
            self.checker.verdict()?;
        }
        Ok(())
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Restart(at) => self.world.boot(place(at)),
            Happening::PowerCut { node, life } => {
                if self.is_living(node, life) && !self.is_calm {
                    self.crash(node, true);
                }
            }
            Happening::Dead { node, life, dead } => {
                if self.is_living(node, life) {
                    let dead = dead.unwrap_or_else(|| self.dead.clone());
                    let keys = dead.iter().map(|it| self.nodes[*it].keys.public());
                    let keys = keys.collect();
                    self.world.command(place(node), Call::Dead(keys));
                }
            }
            Happening::Chaos => {
                if !self.is_calm {
                    chaos::something(self);
                    let pause = ms(self.rng_between(50, 900));
                    self.plan(self.now().after(pause), Happening::Chaos);
                }
            }
            Happening::Decided { node, life, txid } => {
                if self.is_living(node, life) {
                    let (commit, proof) = self.log[&txid].clone();
                    self.world.command(place(node), Call::Decided { txid, commit, proof });
                }
            }
            Happening::Ordered { node, life } => {
                if self.is_living(node, life) {
                    for txid in &self.ends[self.nodes[node].read..] {
                        let (txid, (commit, proof)) = (txid.clone(), self.log[txid].clone());
                        self.world.command(place(node), Call::Decided { txid, commit, proof });
                    }
                    self.nodes[node].read = self.ends.len();
                }
            }
        }
    }

    fn is_living(&self, at: usize, life: u64) -> bool {
        self.machine(at).is_some() && self.nodes[at].life == life
    }

    /// Reads what was told, and sees who has died.
    fn heed(&mut self) {
        for (time, host, told) in self.world.take_events() {
            let at = usize::from(host.port() - 60_001);
            self.checker.heed(at, time, &told);
            match told {
                Told::Started { .. } => self.on_started(at),
                Told::Said { to, msg } => {
                    if self.said.len() < 2000
                        && let Some(to) = self.nodes.iter().position(|it| it.id == to)
                    {
                        self.said.push((at, to, msg));
                    }
                }
                Told::Event(event) => self.on_event(at, &event),
                Told::Answer(ticket, answer) => {
                    self.figures.answers += 1;
                    self.answers.insert(ticket, answer);
                }
                Told::Decide { txid, commit, proof } => self.decide(at, txid, commit, proof),
                Told::Record(_)
                | Told::Synced(_)
                | Told::Serves { .. }
                | Told::Busy { .. }
                | Told::Wrong(_) => {}
            }
        }
        for at in 0..self.nodes.len() {
            let is_up = self.machine(at).is_some();
            let was_up = std::mem::replace(&mut self.nodes[at].was_up, is_up);
            if was_up && !is_up {
                self.checker.on_crash(at);
                self.may_lose_disk(at);
            }
        }
        let tally = self.world.tally();
        let deaths = tally.faults(WeatherFault::Crash) + tally.faults(WeatherFault::Kill);
        self.figures.crashes = usize::try_from(deaths).expect("few");
    }

    fn on_started(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.life += 1;
        node.read = 0;
        node.was_up = true;
        if self.is_harsh && !self.is_calm && node.life > 1 && self.rng.random_bool(0.5) {
            // It goes on with what may be on no disk yet, and soon the power fails.
            let life = self.nodes[at].life;
            let later = ms(self.rng_between(1, 2000));
            self.plan(self.now().after(later), Happening::PowerCut { node: at, life });
        }
        if self.has_seeds {
            self.tell_of_dead(at);
        }
        self.tell_of_ends(at);
    }

    /// Where an order decides, its members learn of all that is final.
    fn tell_of_ends(&mut self, at: usize) {
        if self.decides == DecisionAuthority::Order {
            let (node, life) = (at, self.nodes[at].life);
            let span = Duration::from_micros(self.rng_between(self.latency / 2, self.latency));
            self.plan(self.now().after(span), Happening::Ordered { node, life });
        }
    }

    /// A death may take the disk with it.
    fn may_lose_disk(&mut self, at: usize) {
        let is_lost = !self.is_calm && self.rng.random_range(0..1_000_000) < self.loss_ppm;
        if is_lost && self.lost.is_empty() && !self.has_odd_rosters {
            self.lose_disk(at);
        }
    }

    /// The seeds change their mind, and all hear of it: late, or never.
    pub(crate) fn certify(&mut self, dead: BTreeSet<usize>) {
        self.dead = dead;
        for at in 0..self.nodes.len() {
            self.tell_of_dead(at);
        }
    }

    fn tell_of_dead(&mut self, at: usize) {
        let life = self.nodes[at].life;
        let late = ms(self.rng_between(0, 3000));
        if self.is_calm || self.rng.random_bool(0.85) {
            let dead = None;
            self.plan(self.now().after(late), Happening::Dead { node: at, life, dead });
        }
    }

    /// A kill leaves what was written, a power cut what was synced. The node comes back later.
    pub(crate) fn crash(&mut self, at: usize, is_power_cut: bool) {
        if self.machine(at).is_none() {
            return;
        }
        match is_power_cut {
            true => self.world.crash(place(at)),
            false => self.world.kill(place(at)),
        }
        self.nodes[at].was_up = false;
        self.checker.on_crash(at);
        let drawn = ms(self.rng_between(10, 6000));
        let down = self.down_for.unwrap_or(drawn);
        self.plan(self.now().after(down), Happening::Restart(at));
    }

    /// The disk is gone, the key is not.
    pub(crate) fn lose_disk(&mut self, at: usize) {
        self.crash(at, false);
        self.world.replace_disk(place(at), Vec::new());
        self.figures.lost_disks += 1;
        self.lost.insert(at);
        self.checker.on_lost_disk(at);
    }

    /// The log is that of an earlier moment again: nothing is under way, so only names are lost.
    pub(crate) fn back_up_or_restore(&mut self, at: usize) {
        let is_quiet = |at: usize| {
            let status = self.machine(at).map(|machine| machine.status(self.clock(at)));
            status.is_some_and(|it| it.running.is_none() && it.in_doubt.is_none())
        };
        if self.nodes[at].backup.is_none() {
            self.nodes[at].backup = Some(self.world.records(place(at)).to_vec());
        } else if (0..self.nodes.len()).all(is_quiet)
            && self.lost.is_empty()
            && !self.has_odd_rosters
        {
            self.crash(at, false);
            let backup = self.nodes[at].backup.take().unwrap_or_default();
            self.world.replace_disk(place(at), backup);
            self.figures.restored += 1;
            self.checker.on_restored(at, &self.nodes[at].id);
        }
    }

    pub(crate) fn command(&mut self, at: usize, command: Command) -> Option<CommandId> {
        self.machine(at)?;
        self.tickets += 1;
        let ticket = CommandId(self.tickets);
        self.checker.on_command(at, ticket, self.now());
        self.world.command(place(at), Call::Order(CommandRequest { ticket, command }));
        Some(ticket)
    }

    pub(crate) fn hand(&mut self, at: usize, call: Call) {
        self.world.command(place(at), call);
    }

    fn on_event(&mut self, at: usize, event: &Event) {
        let figures = &mut self.figures;
        figures.committed += usize::from(matches!(event, Event::Committed(_)));
        figures.aborted += usize::from(matches!(event, Event::Aborted(_)));
        figures.doubts += usize::from(matches!(event, Event::InDoubt { .. }));
        figures.took_over += usize::from(matches!(event, Event::TookOver { .. }));
        figures.braked += usize::from(matches!(event, Event::Braked(_)));
        figures.rollbacks += usize::from(matches!(event, Event::GateFailed { .. }));
        if let Event::Committed(it) = event
            && it.proposal.txid.node == self.nodes[at].id
            && let Some(gone) = &it.proposal.gone
        {
            figures.gone += 1;
            figures.by_seeds += usize::from(gone.by == RemovalAuthority::Seeds);
            figures.settled += usize::from(gone.settles.is_some());
        }
        let is_back = *event == Event::Recalled && self.lost.remove(&at);
        figures.recovered += usize::from(is_back);
    }

    /// The log of decisions: a majority's, so only who reaches one is heard.
    fn decide(&mut self, at: usize, txid: TxId, commit: bool, proof: Option<Box<Committed>>) {
        let is_up = |it: &usize| self.machine(*it).is_some() && self.sides[*it] == self.sides[at];
        let side: Vec<_> = (0..self.nodes.len()).filter(is_up).collect();
        if side.len() * 2 <= self.nodes.len() || self.rng.random_bool(0.1) {
            return;
        }
        if !self.log.contains_key(&txid) {
            self.log.insert(txid.clone(), (commit, proof));
            self.ends.push(txid.clone());
        }
        for node in side {
            self.tell_of_ends(node);
            if node == at || self.rng.random_bool(0.7) {
                let (life, txid) = (self.nodes[node].life, txid.clone());
                let span = Duration::from_micros(self.rng_between(self.latency / 2, self.latency));
                self.plan(self.now().after(span), Happening::Decided { node, life, txid });
            }
        }
    }

    // Paths.

    /// The network falls apart as `sides` has it.
    pub(crate) fn part(&mut self) {
        let of = |side: u8| -> Vec<Endpoint> {
            (0..self.sides.len()).filter(|it| self.sides[*it] == side).map(place).collect()
        };
        let (first, second) = (of(0), of(1));
        self.world.partition(&[&first, &second]);
    }

    /// The network is whole again.
    pub(crate) fn join(&mut self) {
        self.sides.fill(0);
        self.world.reunite();
        (0..self.nodes.len()).for_each(|at| self.tell_of_ends(at));
    }

    /// Pairs of nodes with a link.
    pub(crate) fn linked(&self) -> Vec<(usize, usize)> {
        let pairs = (0..self.nodes.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
        pairs.filter(|(a, b)| self.world.open_links(place(*a), place(*b)) > 0).collect()
    }

    /// The links of two nodes break.
    pub(crate) fn close(&mut self, (a, b): (usize, usize)) {
        self.world.reset_link(place(a), place(b));
    }
}
