//! A fleet of rollout machines in virtual time: disks that forget, links that break, nodes that die
//! between any two effects, strangers who lie, and a checker that sees everything.
//!
//! One number draws all. The world keeps its own books (`checker`); it asks no machine whether all
//! is well.

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
use std::ops::Range;
use std::time::Duration;

use folkmoot::machine::rollout::{
    Answer, Breaks, Command, Config, Course, Decides, Effect, Event, ExtraEffect, ExtraInput, Fx,
    Input, Memory, Opening, Phase, Record, Request, Rollout, Timer,
};
use folkmoot::machine::timer::TimerQueue;
use folkmoot::machine::{LinkId, Machine as _, Ticket};
use folkmoot::model::{KeyPair, Now, Rng, Time, WallTime};
use folkmoot::proto::rollout::{
    Committed, Digest, Form, HealthSnapshot, Message, ModelHealth, ModelId, NodeId, Participant,
    Reader, Roster, RoutingState, Said, TxId, Word, encode,
};
use rand::{RngExt as _, SeedableRng as _};

pub(crate) use chaos::plain_start;
pub(crate) use checker::{Checker, End, WHOLE, check_end};

pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What a run is like.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) breaks: Breaks,
    /// Slow disks and many deaths, whatever is drawn.
    pub(crate) is_harsh: bool,
    /// None: drawn.
    pub(crate) decides: Option<Decides>,
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
    pub(crate) disk: Vec<Record>,
    backup: Option<Vec<Record>>,
    /// How many of these a power cut leaves.
    pub(crate) synced: usize,
    /// Where this life's records begin.
    base: usize,
    /// What it read of former lives and did not sync, though it could: a power cut takes it.
    unsynced: Vec<Range<usize>>,
    pub(crate) machine: Option<Rollout>,
    pub(crate) life: u64,
    timers: TimerQueue<Timer>,
    wake_at: Option<Time>,
    slow_disk: bool,
    /// How its canary fares, in percent of errors; none: too few requests.
    pub(crate) errors: Option<u64>,
    /// Versions that have answered it since it voted last.
    answered: BTreeSet<ModelId>,
    /// Whether the brake is on in what it serves, if it serves anything.
    is_braked: Option<bool>,
    /// In which life and state its own figures were bad when it measured last.
    was_bad: Option<(u64, Digest)>,
}

enum Happening {
    Wake(usize),
    Synced {
        node: usize,
        life: u64,
        records: u64,
    },
    Dialed {
        from: usize,
        life: u64,
        to: usize,
    },
    Arrived {
        link: LinkId,
        to: usize,
        msg: Message,
    },
    Broken {
        link: LinkId,
        to: usize,
    },
    Restart(usize),
    PowerCut {
        node: usize,
        life: u64,
    },
    /// A node's fleet tells it whom the seeds call dead: these, or those of that moment.
    Told {
        node: usize,
        life: u64,
        dead: Option<BTreeSet<usize>>,
    },
    Health,
    Chaos,
    Decided {
        node: usize,
        life: u64,
        txid: TxId,
    },
    Probed {
        node: usize,
        life: u64,
        model: ModelId,
    },
}

struct Link {
    ends: [usize; 2],
    /// Whether each end still knows it.
    open: [bool; 2],
    last: [Time; 2],
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Time,
    pub(crate) nodes: Vec<Node>,
    agenda: BTreeMap<(Time, u64), Happening>,
    links: BTreeMap<LinkId, Link>,
    number: u64,
    /// Who is on which side of a partition.
    pub(crate) sides: Vec<u8>,
    latency: u64,
    pub(crate) decides: Decides,
    breaks: Breaks,
    /// The chance of a crash at an effect, in a million.
    pub(crate) crash_ppm: u32,
    pub(crate) is_calm: bool,
    pub(crate) checker: Checker,
    pub(crate) figures: Figures,
    log: BTreeMap<TxId, (bool, Option<Box<Committed>>)>,
    /// What was said, to be said again.
    said: Vec<(usize, usize, Message)>,
    pub(crate) tickets: u64,
    pub(crate) answers: BTreeMap<Ticket, Answer>,
    is_traced: bool,
    is_harsh: bool,
    pub(crate) has_odd_rosters: bool,
    opens_unsynced: bool,
    pub(crate) lost: BTreeSet<usize>,
    mallory: KeyPair,
    /// How many committed transactions a node keeps whole.
    history_max: usize,
    /// Whether what is said crosses the wire as bytes.
    form: Option<Form>,
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

pub(crate) fn model(text: &str) -> ModelId {
    text.parse().expect("a name")
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
                let (host, port) = ("127.0.0.1".to_owned(), 60_001 + at);
                (Participant { node_id, host, port, key: keys.public() }, keys)
            })
            .collect();
        let first = if rng.random_bool(0.3) { rng.random_range(2..=count) } else { count };
        let named = all.iter().take(first.into()).map(|it| it.0.clone()).collect();
        let roster = Roster::new(named).unwrap();
        let has_odd_rosters = rng.random_bool(0.08);
        let decided_in_log = rng.random_bool(0.25);
        let decides = setup.decides.unwrap_or(match decided_in_log {
            true => Decides::Log,
            false => Decides::Coordinator,
        });
        let nodes = all.iter().map(|(me, keys)| Node {
            id: me.node_id.clone(),
            keys: keys.clone(),
            roster: roster.clone(),
            disk: Vec::new(),
            backup: None,
            synced: 0,
            base: 0,
            unsynced: Vec::new(),
            machine: None,
            life: 0,
            timers: TimerQueue::default(),
            wake_at: None,
            slow_disk: rng.random_bool(0.2),
            errors: Some(0),
            answered: BTreeSet::new(),
            is_braked: None,
            was_bad: None,
        });
        let nodes: Vec<_> = nodes.collect();
        let latency = *[200, 1000, 20_000, 300_000].get(rng.random_range(0..4)).unwrap();
        let mallory = KeyPair::generate(&mut rng);
        let mut world = Self {
            sides: vec![0; nodes.len()],
            nodes,
            now: Time::ZERO,
            agenda: BTreeMap::new(),
            links: BTreeMap::new(),
            number: 0,
            latency,
            decides,
            breaks: setup.breaks,
            crash_ppm: 0,
            is_calm: false,
            checker: Checker::new(roster),
            figures: Figures::default(),
            log: BTreeMap::new(),
            said: Vec::new(),
            tickets: 0,
            answers: BTreeMap::new(),
            is_traced: std::env::var("TRACE").is_ok_and(|it| it == "1"),
            is_harsh: setup.is_harsh,
            has_odd_rosters,
            opens_unsynced: setup.opens_unsynced,
            lost: BTreeSet::new(),
            mallory,
            history_max: [1, 3, 10_000][rng.random_range(0..3)],
            form: [None, None, Some(Form::Line), Some(Form::Frame)][rng.random_range(0..4)],
            loss_ppm: 0,
            has_servers: rng.random_bool(0.3),
            down_for: None,
            anchor: rng.random_range(0..usize::from(first)),
            has_seeds: !has_odd_rosters && rng.random_bool(0.5),
            dead: BTreeSet::new(),
            rng,
        };
        world.checker.may_leap = world.history_max < 100;
        if has_odd_rosters {
            let all: Vec<_> = all.into_iter().map(|it| it.0).collect();
            chaos::odd_rosters(&mut world, &all);
            world.checker.may_leap = world.history_max < 100;
        }
        world.crash_ppm = *[0, 300, 2000].get(world.rng.random_range(0..3)).unwrap();
        if setup.is_harsh {
            world.crash_ppm = 5000;
            world.loss_ppm = 150_000;
            world.nodes.iter_mut().for_each(|it| it.slow_disk = true);
        }
        world
    }

    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>10.3} ms  {}", self.now.as_micros() as f64 / 1000.0, what());
        }
    }

    fn plan(&mut self, at: Time, what: Happening) {
        self.number += 1;
        self.agenda.insert((at, self.number), what);
    }

    /// Everything from the first start to the calm end.
    pub(crate) fn play(&mut self) -> Result<(), String> {
        for at in 0..self.nodes.len() {
            let late = Duration::from_micros(self.rng.random_range(0..500_000));
            self.plan(self.now.after(late), Happening::Restart(at));
        }
        self.plan(self.now.after(ms(1000)), Happening::Health);
        self.plan(self.now.after(ms(1500)), Happening::Chaos);
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
        let died_at = self.now;
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            self.run_for(ms(100))?;
            let mut up = self.nodes.iter().filter_map(|it| it.machine.as_ref());
            if up.any(|it| it.prepared().is_some()) {
                longest = self.now.since(died_at);
            }
        }
        Ok(longest)
    }

    /// Starts all nodes, while nothing goes wrong.
    fn begin_in_peace(&mut self) -> Result<(), String> {
        self.crash_ppm = 0;
        self.latency = 1000;
        for at in 0..self.nodes.len() {
            self.plan(self.now, Happening::Restart(at));
        }
        self.run_for(ms(3000))
    }

    /// The coordinator of the only transaction dies or is cut off somewhere on its way, is called
    /// gone, and comes back, perhaps before that.
    pub(crate) fn play_gone(&mut self) -> Result<(), String> {
        self.begin_in_peace()?;
        self.latency = [1000, 20_000, 200_000][self.rng.random_range(0..3)];
        self.command(0, chaos::plain_start(vec![10_000]));
        let moment = self.rng_between(0, 4 * self.latency);
        self.run_for(Duration::from_micros(moment))?;
        if self.rng.random_bool(0.5) {
            self.down_for = Some(ms(self.rng_between(10, 4000)));
            let is_power_cut = self.rng.random_bool(0.5);
            self.crash(0, is_power_cut);
        } else {
            self.sides[0] = 1;
            let all = self.open_links();
            for (link, ends) in all.into_iter().filter(|(_, ends)| ends.contains(&0)) {
                self.close(link, ends[0]);
            }
        }
        let (whole_at, order_at) = (self.rng_between(1, 60), self.rng_between(1, 40));
        let mut is_back_first = self.sides[0] == 1 && self.rng.random_bool(0.5);
        for step in 0..80 {
            self.run_for(ms(50))?;
            if is_back_first && let Some(at) = self.voted_to_settle() {
                // It reaches one that has just given it up before the others' word does.
                self.sides[at] = 1;
                is_back_first = false;
            }
            if step == whole_at {
                self.sides.fill(0);
            }
            let gone = self.nodes[0].id.clone();
            let machine = self.nodes[1].machine.as_ref().expect("it lives");
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

    /// The network falls apart, at any moment of the only transaction; the seeds tell the nodes of
    /// each part, or of one, that those of the other are dead, and later it is whole again.
    pub(crate) fn play_parts(&mut self) -> Result<(), String> {
        self.begin_in_peace()?;
        self.latency = [1000, 20_000, 200_000][self.rng.random_range(0..3)];
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
        for (link, ends) in self.open_links() {
            if self.sides[ends[0]] != self.sides[ends[1]] {
                self.close(link, ends[0]);
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
                    self.plan(self.now.after(late), Happening::Told { node, life, dead });
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
        self.sides.fill(0);
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
            let prepared = self.nodes[*at].machine.as_ref()?.prepared()?;
            prepared.settles().map(|_| ())
        };
        let is_decided = self.nodes[1].machine.as_ref().is_some_and(|it| it.prepared().is_none());
        (2..self.nodes.len()).find(|at| is_decided && settles(at).is_some())
    }

    fn rng_between(&mut self, low: u64, high: u64) -> u64 {
        self.rng.random_range(low..high)
    }

    fn calm_down(&mut self) {
        self.trace(|| "calm".to_owned());
        self.is_calm = true;
        self.crash_ppm = 0;
        self.sides.fill(0);
        let is_sick = self.rng.random_bool(0.5);
        for at in 0..self.nodes.len() {
            let bad = if is_sick && at == 0 { 50 } else { 0 };
            self.nodes[at].errors = Some(bad);
            if self.nodes[at].machine.is_none() {
                self.plan(self.now.after(ms(100)), Happening::Restart(at));
            }
        }
        if self.has_seeds {
            self.certify(BTreeSet::new());
        }
    }

    pub(crate) fn run_for(&mut self, span: Duration) -> Result<(), String> {
        let end = self.now.after(span);
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((time, _), what) = entry.remove_entry();
            self.now = self.now.max(time);
            self.happen(what);
            self.checker.verdict()?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Wake(at) => self.wake(at),
            Happening::Synced { node, life, records } => {
                if self.is_living(node, life) {
                    let base = self.nodes[node].base;
                    let synced = base + usize::try_from(records).unwrap();
                    self.nodes[node].synced = self.nodes[node].synced.max(synced);
                    self.hand(node, Input::Synced { records });
                }
            }
            Happening::Dialed { from, life, to } => self.dialed(from, life, to),
            Happening::Arrived { link, to, msg } => self.arrived(link, to, msg),
            Happening::Broken { link, to } => self.broken(link, to),
            Happening::Restart(at) => self.restart(at),
            Happening::PowerCut { node, life } => {
                if self.is_living(node, life) && !self.is_calm {
                    self.crash(node, true);
                }
            }
            Happening::Told { node, life, dead } => {
                if self.is_living(node, life) {
                    let dead = dead.unwrap_or_else(|| self.dead.clone());
                    let keys = dead.iter().map(|it| self.nodes[*it].keys.public());
                    let keys: BTreeSet<_> = keys.collect();
                    self.trace(|| format!("{} is told who is dead", self.nodes[node].id));
                    self.hand(node, Input::Extra(ExtraInput::Dead { keys }));
                }
            }
            Happening::Health => self.measure(),
            Happening::Chaos => {
                if !self.is_calm {
                    chaos::something(self);
                    let pause = ms(self.rng_between(50, 900));
                    self.plan(self.now.after(pause), Happening::Chaos);
                }
            }
            Happening::Probed { node, life, model } => {
                if self.is_living(node, life) {
                    self.probed(node, model);
                }
            }
            Happening::Decided { node, life, txid } => {
                if self.is_living(node, life) {
                    let (commit, proof) = self.log[&txid].clone();
                    self.hand(node, Input::Extra(ExtraInput::Decided { txid, commit, proof }));
                }
            }
        }
    }

    fn probed(&mut self, node: usize, model: ModelId) {
        let is_silent = !self.is_calm && self.rng.random_bool(0.1);
        if !is_silent {
            self.nodes[node].answered.insert(model.clone());
        }
        let failure = is_silent.then(|| "it answers with 503".to_owned());
        self.hand(node, Input::Extra(ExtraInput::Probed { model, failure }));
    }

    fn is_living(&self, at: usize, life: u64) -> bool {
        self.nodes[at].machine.is_some() && self.nodes[at].life == life
    }

    // Nodes.

    fn restart(&mut self, at: usize) {
        if self.nodes[at].machine.is_some() {
            return;
        }
        let rng = Rng::seed_from_u64(self.rng.random());
        let node = &mut self.nodes[at];
        let mut memory = Memory::keeping(self.history_max);
        node.disk.iter().cloned().for_each(|it| memory.replay(it));
        if node.life % 3 == 2 {
            // A log that has grown long is written anew.
            node.disk = memory.snapshot();
            node.synced = node.disk.len();
            node.unsynced.clear();
        }
        // Whoever opens a log has it on disk before it goes on. If it did not, its syncs would not
        // do it either: they are of what it writes itself.
        if self.opens_unsynced {
            node.unsynced.push(node.synced..node.disk.len());
        }
        node.synced = node.disk.len();
        node.base = node.disk.len();
        node.life += 1;
        node.is_braked = None;
        let initial = RoutingState::initial(model("v1"), model("v1"));
        let mut config = Config::new(node.id.clone(), node.roster.clone(), initial);
        config.decides = self.decides;
        config.dead_after = ms(500);
        let served = ["v1", "v2", "v3"].map(|it| (model(it), String::new()));
        config.models = self.has_servers.then(|| served.into());
        config.breaks = self.breaks;
        let machine = Rollout::new(config, node.keys.clone(), rng, memory);
        self.checker.on_history(&node.id, machine.history());
        node.machine = Some(machine);
        self.trace(|| format!("{} starts", self.nodes[at].id));
        let is_fresh = self.nodes[at].disk.is_empty();
        self.checker.on_start(at, is_fresh);
        self.hand(at, Input::Start);
        if self.has_seeds {
            self.tell_of_dead(at);
        }
    }

    /// The seeds change their mind, and all hear of it: late, or never.
    pub(crate) fn certify(&mut self, dead: BTreeSet<usize>) {
        self.trace(|| format!("the seeds call dead {dead:?}"));
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
            self.plan(self.now.after(late), Happening::Told { node: at, life, dead });
        }
    }

    /// A kill leaves what was written, a power cut what was synced.
    pub(crate) fn crash(&mut self, at: usize, is_power_cut: bool) {
        if self.nodes[at].machine.take().is_none() {
            return;
        }
        self.trace(|| format!("{} dies, power cut: {is_power_cut}", self.nodes[at].id));
        self.figures.crashes += 1;
        let extra = self.nodes[at].disk.len() - self.nodes[at].synced;
        let kept = if is_power_cut { self.rng.random_range(0..=extra) } else { extra };
        let kept = if self.rng.random_bool(0.5) && is_power_cut { 0 } else { kept };
        let node = &mut self.nodes[at];
        let len = node.synced + kept;
        node.disk.truncate(len);
        if is_power_cut {
            for lost in std::mem::take(&mut node.unsynced).into_iter().rev() {
                node.synced -= lost.len();
                node.disk.drain(lost);
            }
        }
        node.timers = TimerQueue::default();
        node.wake_at = None;
        self.checker.on_crash(at);
        let mine: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.ends.contains(&at))
            .map(|(link, _)| *link)
            .collect();
        for link in mine {
            if is_power_cut && self.rng.random_bool(0.5) {
                // What the host still had to send is gone with it.
                self.agenda.retain(|_, it| match it {
                    Happening::Arrived { link: of, to, .. } => *of != link || *to == at,
                    _ => true,
                });
            }
            self.close(link, at);
        }
        let drawn = ms(self.rng_between(10, 6000));
        let mut down = self.down_for.unwrap_or(drawn);
        if self.is_harsh && !is_power_cut && extra > 0 && !self.is_calm {
            // It goes on with what is on no disk yet, and soon the power fails.
            down = ms(self.rng_between(10, 100));
            let life = self.nodes[at].life + 1;
            let later = down + ms(self.rng_between(1, 2000));
            self.plan(self.now.after(later), Happening::PowerCut { node: at, life });
        }
        self.plan(self.now.after(down), Happening::Restart(at));
    }

    /// The disk is gone, the key is not.
    pub(crate) fn lose_disk(&mut self, at: usize) {
        self.crash(at, false);
        self.trace(|| format!("{} loses its disk", self.nodes[at].id));
        self.nodes[at].disk.clear();
        self.nodes[at].unsynced.clear();
        self.nodes[at].synced = 0;
        self.figures.lost_disks += 1;
        self.lost.insert(at);
        self.checker.on_lost_disk(at);
    }

    /// The log is that of an earlier moment again: nothing is under way, so only names are lost.
    pub(crate) fn back_up_or_restore(&mut self, at: usize) {
        let is_quiet = |it: &Node| {
            let status = it.machine.as_ref().map(|machine| machine.status(self.now));
            status.is_some_and(|it| it.running.is_none() && it.in_doubt.is_none())
        };
        let node = &self.nodes[at];
        if node.backup.is_none() {
            self.nodes[at].backup = Some(node.disk[..node.synced].to_vec());
        } else if self.nodes.iter().all(is_quiet) && self.lost.is_empty() && !self.has_odd_rosters {
            self.crash(at, false);
            self.trace(|| format!("{} is restored from a backup", self.nodes[at].id));
            let node = &mut self.nodes[at];
            node.disk = node.backup.take().unwrap_or_default();
            node.unsynced.clear();
            node.synced = node.disk.len();
            self.figures.restored += 1;
            self.checker.on_restored(at, &self.nodes[at].id);
        }
    }

    fn wake(&mut self, at: usize) {
        self.nodes[at].wake_at = None;
        while let Some(timer) = self.nodes[at].timers.pop_due(self.now) {
            self.hand(at, Input::Expired(timer));
        }
        self.wake_later(at);
    }

    fn wake_later(&mut self, at: usize) {
        let next = self.nodes[at].timers.next();
        let earlier = |next: &Time| self.nodes[at].wake_at.is_none_or(|it| *next < it);
        if let Some(next) = next.filter(earlier) {
            self.nodes[at].wake_at = Some(next);
            self.plan(next.max(self.now), Happening::Wake(at));
        }
    }

    pub(crate) fn command(&mut self, at: usize, command: Command) -> Option<Ticket> {
        self.nodes[at].machine.as_ref()?;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.trace(|| format!("{} is asked: {command:?}", self.nodes[at].id));
        self.checker.on_command(at, ticket, self.now);
        self.hand(at, Input::Command(Request { ticket, command }));
        Some(ticket)
    }

    pub(crate) fn hand(&mut self, at: usize, input: Input) {
        let now = Now { mono: self.now, wall: WallTime(self.now.as_micros() / 1000) };
        let Some(machine) = &mut self.nodes[at].machine else { return };
        let mut fx = Fx::default();
        machine.handle(now, input, &mut fx);
        for effect in fx {
            // Death has a taste for the moments at which somebody is told something that binds.
            let binds = matches!(
                &effect,
                Effect::Send { msg, .. } | Effect::SendAll { msg, .. }
                    if matches!(
                        msg,
                        Message::PrepareResp(_) | Message::Decision(_) | Message::PrepareReq(_)
                    )
            );
            // And in harsh weather for those at which a disk does not have it yet.
            let is_written = matches!(
                &effect,
                Effect::Persist(
                    Record::Prepared(_) | Record::Committed(_) | Record::Refused { .. }
                )
            );
            let taste = if binds { 25 } else { 1 + 9 * u32::from(is_written && self.is_harsh) };
            let ppm = self.crash_ppm * taste;
            let dies = self.rng.random_range(0..1_000_000) < ppm;
            let comes_first = dies && self.rng.random_bool(0.5);
            if !comes_first {
                self.carry_out(at, effect);
            }
            if dies {
                let is_power_cut = self.rng.random_bool(0.5);
                let is_lost = self.rng.random_range(0..1_000_000) < self.loss_ppm;
                if is_lost && self.lost.is_empty() && !self.has_odd_rosters {
                    return self.lose_disk(at);
                }
                return self.crash(at, is_power_cut);
            }
        }
        self.checker.look(at, &self.nodes[at], self.now, self.decides);
        self.wake_later(at);
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Send { link, msg } => self.send(at, link, msg),
            Effect::SendAll { links, msg } => {
                for link in links {
                    self.send(at, link, msg.clone());
                }
            }
            Effect::Persist(record) => self.persist(at, record),
            Effect::Extra(ExtraEffect::Serve(serving)) => {
                let is_braked = serving.brake.is_some();
                self.nodes[at].is_braked = Some(is_braked);
                let state = serving.state;
                self.trace(|| {
                    format!("{} serves {} {:?}", self.nodes[at].id, state.version, state.txid)
                });
                self.checker.on_serve(at, &state, is_braked);
            }
            Effect::Extra(ExtraEffect::Decide { txid, commit, proof }) => {
                self.decide(at, txid, commit, proof);
            }
            Effect::Dial(participant) => {
                let to = self.nodes.iter().position(|it| it.id == participant.node_id);
                let to = to.expect("nobody else is named");
                let (from, life) = (at, self.nodes[at].life);
                let span = self.travel();
                self.plan(self.now.after(span), Happening::Dialed { from, life, to });
            }
            Effect::Extra(ExtraEffect::Probe(model)) => {
                let (node, life) = (at, self.nodes[at].life);
                let span = ms(self.rng_between(1, 40));
                self.plan(self.now.after(span), Happening::Probed { node, life, model });
            }
            Effect::Hangup { link } => self.close(link, at),
            Effect::SetTimer { timer, after: span } => {
                self.nodes[at].timers.set(timer, self.now.after(span));
            }
            Effect::StopTimer(timer) => self.nodes[at].timers.stop(&timer),
            Effect::Emit(event) => self.on_event(at, event),
            Effect::Extra(ExtraEffect::Answer(ticket, answer)) => {
                self.trace(|| format!("{} answers {answer:?}", self.nodes[at].id));
                self.figures.answers += 1;
                self.checker.on_answer(ticket, &answer);
                self.answers.insert(ticket, answer);
            }
        }
    }

    fn on_event(&mut self, at: usize, event: Event) {
        self.trace(|| format!("{}: {event:?}", self.nodes[at].id));
        let figures = &mut self.figures;
        figures.committed += usize::from(matches!(event, Event::Committed(_)));
        figures.aborted += usize::from(matches!(event, Event::Aborted(_)));
        figures.doubts += usize::from(matches!(event, Event::InDoubt { .. }));
        figures.took_over += usize::from(matches!(event, Event::TookOver { .. }));
        figures.braked += usize::from(matches!(event, Event::Braked(_)));
        figures.rollbacks += usize::from(matches!(event, Event::GateFailed { .. }));
        if let Event::Committed(it) = &event
            && it.proposal.txid.node == self.nodes[at].id
            && let Some(gone) = &it.proposal.gone
        {
            figures.gone += 1;
            figures.by_seeds += usize::from(gone.by == Word::Seeds);
            figures.settled += usize::from(gone.settles.is_some());
        }
        let is_back = event == Event::Recalled && self.lost.remove(&at);
        figures.recovered += usize::from(is_back);
        self.checker.on_event(&self.nodes[at].id, &event);
    }

    fn persist(&mut self, at: usize, record: Record) {
        self.checker.on_record(&self.nodes[at].id, &record);
        if let (Record::Prepared(it), true) = (&record, self.has_servers) {
            let raises = it.txid.kind.raises();
            if !self.nodes[at].answered.remove(&it.state.canary_model_id) && raises {
                let id = self.nodes[at].id.clone();
                self.checker.violation(format!("T8: {id} votes for what has not answered it"));
            }
        }
        let node = &mut self.nodes[at];
        node.disk.push(record);
        let (life, records) = (node.life, (node.disk.len() - node.base) as u64);
        let longest = if node.slow_disk { 400_000 } else { 3_000 };
        let span = Duration::from_micros(self.rng.random_range(100..longest));
        self.plan(self.now.after(span), Happening::Synced { node: at, life, records });
    }

    /// The log of decisions: a majority's, so only who reaches one is heard.
    fn decide(&mut self, at: usize, txid: TxId, commit: bool, proof: Option<Box<Committed>>) {
        let is_up =
            |it: &usize| self.nodes[*it].machine.is_some() && self.sides[*it] == self.sides[at];
        let side: Vec<_> = (0..self.nodes.len()).filter(is_up).collect();
        if side.len() * 2 <= self.nodes.len() || self.rng.random_bool(0.1) {
            return;
        }
        self.trace(|| format!("the log is asked for {txid}: {commit}"));
        self.log.entry(txid.clone()).or_insert((commit, proof));
        for node in side {
            if node == at || self.rng.random_bool(0.7) {
                let (life, txid) = (self.nodes[node].life, txid.clone());
                let span = self.travel();
                self.plan(self.now.after(span), Happening::Decided { node, life, txid });
            }
        }
    }

    // Links.

    fn travel(&mut self) -> Duration {
        let base = if self.is_calm { self.latency.min(20_000) } else { self.latency };
        let slow = !self.is_calm && self.rng.random_bool(0.01);
        let factor = if slow { 20 } else { 1 };
        Duration::from_micros(self.rng.random_range(base / 2..=base * 3 / 2) * factor)
    }

    fn dialed(&mut self, from: usize, life: u64, to: usize) {
        if !self.is_living(from, life) {
            return;
        }
        if self.nodes[to].machine.is_none() || self.sides[from] != self.sides[to] {
            let node = self.nodes[to].id.clone();
            return self.hand(from, Input::DialFailed(node));
        }
        self.number += 1;
        let link = LinkId(self.number);
        let (ends, open, last) = ([from, to], [true; 2], [self.now; 2]);
        self.links.insert(link, Link { ends, open, last });
        for (at, other) in [(to, from), (from, to)] {
            let (node, key) = (self.nodes[other].id.clone(), self.nodes[other].keys.public());
            self.hand(at, Input::Opened { link, opening: Opening { node, key } });
        }
    }

    fn send(&mut self, at: usize, link: LinkId, msg: Message) {
        let Some(known) = self.links.get(&link) else { return };
        let side = usize::from(known.ends[1] == at);
        let to = known.ends[1 - side];
        if !known.open[side] {
            return;
        }
        if !matches!(msg, Message::Heartbeat(_) | Message::HealthSnapshot(_)) {
            self.trace(|| {
                format!("{} -> {}: {}", self.nodes[at].id, self.nodes[to].id, brief(&msg))
            });
            if self.said.len() < 2000 {
                self.said.push((at, to, msg.clone()));
            }
        }
        let node = &self.nodes[at];
        self.checker.on_said(&node.id, &msg, &node.disk[..node.synced]);
        let msg = match self.form {
            Some(form) => {
                let said = Said { sender: self.nodes[at].id.clone(), message: msg };
                let bytes = encode(form, &said);
                let read = Reader::new(form, &bytes[..]).read();
                read.expect("what a node says is a message").expect("and a whole one").message
            }
            None => msg,
        };
        let span = self.travel();
        let known = self.links.get_mut(&link).expect("it was there");
        let arrival = self.now.after(span).max(known.last[side]);
        known.last[side] = arrival;
        self.plan(arrival, Happening::Arrived { link, to, msg });
    }

    fn arrived(&mut self, link: LinkId, to: usize, msg: Message) {
        let Some(known) = self.links.get(&link) else { return };
        let side = usize::from(known.ends[1] == to);
        let from = known.ends[1 - side];
        if !known.open[side] {
            return;
        }
        if self.sides[from] != self.sides[to] {
            // It is repeated until the network is whole again, or the link given up.
            let later = self.now.after(ms(300));
            return self.plan(later, Happening::Arrived { link, to, msg });
        }
        self.hand(to, Input::Received { link, msg });
    }

    /// One end goes; what it sent before may still arrive.
    pub(crate) fn close(&mut self, link: LinkId, at: usize) {
        let Some(known) = self.links.get_mut(&link) else { return };
        let side = usize::from(known.ends[1] == at);
        if !std::mem::replace(&mut known.open[side], false) {
            return;
        }
        let other = known.ends[1 - side];
        let last = known.last[side];
        let span = self.travel();
        self.plan(self.now.after(span).max(last), Happening::Broken { link, to: other });
        if self.nodes[at].machine.is_some() {
            self.plan(self.now, Happening::Broken { link, to: at });
        }
    }

    fn broken(&mut self, link: LinkId, to: usize) {
        let Some(known) = self.links.get_mut(&link) else { return };
        let side = usize::from(known.ends[1] == to);
        known.open[side] = false;
        if known.open == [false; 2] {
            self.links.remove(&link);
        }
        self.hand(to, Input::closed(link, ""));
    }

    pub(crate) fn open_links(&self) -> Vec<(LinkId, [usize; 2])> {
        let open = self.links.iter().filter(|(_, it)| it.open == [true; 2]);
        open.map(|(link, it)| (*link, it.ends)).collect()
    }

    // Traffic.

    /// T8: whoever sees its own canary fail for a second sends nothing to it any more.
    fn look_at_brake(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(status) = node.machine.as_ref().map(|it| it.status(self.now)) else { return };
        let is_judged = |it: &Course| {
            it.phase == Phase::Running && it.plan.to == model("v2") && !it.plan.gates.is_empty()
        };
        let is_member = status.roster.has(&node.id);
        let is_bad =
            node.errors == Some(50) && is_member && status.course.as_ref().is_some_and(is_judged);
        let now = is_bad.then_some((node.life, status.digest));
        let was_bad = std::mem::replace(&mut node.was_bad, now);
        if now.is_some() && was_bad == now && node.is_braked == Some(false) {
            let id = node.id.clone();
            self.checker.violation(format!("T8: {id} sees its canary fail, and asks it"));
        }
    }

    fn measure(&mut self) {
        for at in 0..self.nodes.len() {
            self.look_at_brake(at);
            let node_id = self.nodes[at].id.clone();
            let errors = self.nodes[at].errors;
            let of = |bad: u64| ModelHealth {
                samples: if errors.is_some() { 100 } else { 3 },
                errors: if errors.is_some() { bad } else { 0 },
                p95_us: 50_000,
                ..ModelHealth::default()
            };
            let models = [(model("v1"), of(0)), (model("v2"), of(errors.unwrap_or(0)))];
            let models = models.into_iter().chain([(model("v3"), of(0))]).collect();
            let window_id = format!("window-{}", self.now.as_micros() / 1_000_000);
            self.hand(
                at,
                Input::Extra(ExtraInput::Health(HealthSnapshot { node_id, window_id, models })),
            );
        }
        self.plan(self.now.after(ms(1000)), Happening::Health);
    }
}

pub(crate) fn brief(msg: &Message) -> String {
    let text = format!("{msg:?}");
    text.chars().take(300).collect()
}
