//! Weather: which faults come in a run and how often, drawn from its seed; some stay away.

use std::time::Duration;

use folkmoot::machine::chat::{Command, Role};
use folkmoot::model::Rng;
use folkmoot::sim::{self, DurationRange};
use rand::RngExt as _;

use super::{Due, World};

/// What a run is like.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// Microseconds between faults, on average.
    pub(crate) fault: u64,
    /// Microseconds between two texts typed, on average.
    pub(crate) typing: u64,
    pub(crate) clients: usize,
    /// The longest delay of a message on a good path.
    pub(crate) delay: u64,
    /// The chance that one is lost, and comes late.
    pub(crate) slow: f64,
    /// Microseconds after which a silent connection is given up by its system.
    pub(crate) patience: u64,
    /// The weight of each fault.
    pub(crate) weights: [u32; 16],
    /// Whether it is over.
    pub(crate) is_calm: bool,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            fault: 0,
            typing: 0,
            clients: 0,
            delay: 0,
            slow: 0.0,
            patience: 120_000_000,
            weights: [0; 16],
            is_calm: false,
        }
    }
}

impl Weather {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut weights = [0; 16];
        for weight in &mut weights {
            *weight = if rng.random_bool(0.3) { 0 } else { rng.random_range(1..=10) };
        }
        Self {
            fault: *[150_000, 400_000, 1_000_000, 2_500_000]
                .get(rng.random_range(0..4))
                .expect("one of four"),
            typing: *[30_000, 100_000, 300_000].get(rng.random_range(0..3)).expect("one of three"),
            clients: rng.random_range(0..=3),
            delay: *[500, 5_000, 30_000, 100_000].get(rng.random_range(0..4)).expect("one of four"),
            slow: *[0.0, 0.0, 0.01, 0.1].get(rng.random_range(0..4)).expect("one of four"),
            patience: *[1_000_000, 3_000_000, 6_000_000, 120_000_000]
                .get(rng.random_range(0..4))
                .expect("one of four"),
            weights,
            is_calm: false,
        }
    }

    /// The weather of the network alone.
    pub(crate) fn of_network(&self) -> sim::Weather {
        sim::Weather {
            latency: DurationRange::micros(50, 100),
            jitter: Duration::from_micros(self.delay),
            loss_ppm: (self.slow * 1e6) as u32,
            torn_tails: true,
            ..sim::Weather::calm()
        }
    }
}

impl World {
    /// A fault, and when the next one comes.
    pub(super) fn on_weather(&mut self) {
        if self.weather.is_calm {
            return;
        }
        let gap = self.rng.random_range(0..=self.weather.fault * 2);
        self.plan(self.now() + gap, Due::Weather);
        let total: u32 = self.weather.weights.iter().sum();
        if total == 0 || self.now() < self.quiet_until {
            return;
        }
        let mut at = self.rng.random_range(0..total);
        let mut which = 0;
        for (index, weight) in self.weather.weights.iter().enumerate() {
            if at < *weight {
                which = index;
                break;
            }
            at -= weight;
        }
        let any = self.rng.random_range(0..self.nodes.len());
        let leader = self.leader().unwrap_or(any);
        let other = self.rng.random_range(0..self.nodes.len());
        match which {
            0 => self.kill(any, false),
            1 => self.kill(leader, false),
            2 if self.rng.random_bool(0.3) => {
                self.count("power cut of all");
                (0..self.nodes.len()).for_each(|node| self.kill(node, true));
                let back = (0..self.nodes.len()).filter(|_| self.rng.random_bool(0.7));
                back.collect::<Vec<_>>().into_iter().for_each(|node| self.start(node));
            }
            2 => self.kill(any, true),
            3 => self.kill(leader, true),
            4 | 5 => self.start_some(),
            6 => self.partition(),
            7 => {
                self.count("one way cut");
                self.cut(any, other);
            }
            8 => self.isolate(leader),
            9 => self.heal(),
            10 => match self.nodes[any].is_paused {
                true => self.resume(any),
                false => {
                    let node = if self.rng.random_bool(0.5) { leader } else { any };
                    self.pause(node);
                }
            },
            11 => {
                self.count("slow disk");
                let micros = [300, 2_000, 50_000, 400_000][self.rng.random_range(0..4)];
                self.set_disk(any, micros);
            }
            12 => self.break_some(),
            14 => self.restore(any),
            15 => self.copy(any),
            _ => self.order_something(any, leader),
        }
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| self.group(*at).is_some_and(|it| it.role() == Role::Leader);
        let term = |at: &usize| self.group(*at).map(|it| it.term());
        (0..self.nodes.len()).filter(leads).max_by_key(term)
    }

    fn start_some(&mut self) {
        let down: Vec<_> = (0..self.nodes.len()).filter(|at| !self.is_up(*at)).collect();
        if !down.is_empty() {
            let at = down[self.rng.random_range(0..down.len())];
            if self.nodes[at].has_begun && !self.nodes[at].is_spent && self.rng.random_bool(0.1) {
                self.count("moved");
                let mut member = self.nodes[at].member.clone();
                member.at.port += 100;
                self.move_to(at, member);
            }
            self.start(at);
        }
    }

    fn partition(&mut self) {
        self.count("partition");
        let side: Vec<bool> = self.nodes.iter().map(|_| self.rng.random()).collect();
        for a in 0..self.nodes.len() {
            for b in 0..self.nodes.len() {
                if side[a] != side[b] {
                    self.cut(a, b);
                }
            }
        }
    }

    fn isolate(&mut self, node: usize) {
        self.count("isolated leader");
        for other in 0..self.nodes.len() {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    fn break_some(&mut self) {
        let pairs = |a: usize| (0..a).map(move |b| (a, b));
        let all = (0..self.nodes.len()).flat_map(pairs);
        let is_open = |(a, b): &(usize, usize)| self.world.open_links(self.at(*a), self.at(*b)) > 0;
        let all: Vec<_> = all.filter(is_open).collect();
        if !all.is_empty() {
            self.count("broken connection");
            let (a, b) = all[self.rng.random_range(0..all.len())];
            self.world.reset_link(self.at(a), self.at(b));
        }
    }

    fn order_something(&mut self, any: usize, leader: usize) {
        let node = if self.rng.random_bool(0.5) { leader } else { any };
        if !self.is_up(node) {
            return;
        }
        let members = self.checker.members();
        if self.rng.random_bool(0.5) {
            self.count("leave");
            self.command(node, Command::Leave);
        } else if members.len() > 3 && self.nodes.iter().all(|it| !it.is_spent) {
            if self.rng.random_bool(0.3)
                && let Some(gone) = self.nodes.iter().position(|it| it.is_removed && !it.is_spent)
            {
                self.replace(gone);
                return;
            }
            self.count("removal");
            let id = members[self.rng.random_range(0..members.len())];
            self.command(node, Command::Remove(id));
        }
    }

    /// No more faults; everybody is there who was not removed.
    pub(crate) fn calm_down(&mut self) {
        self.weather.is_calm = true;
        self.weather.slow = 0.0;
        // What waited must fit through the smallest windows in time.
        self.weather.delay = self.weather.delay.min(3_000);
        self.weather.typing = self.weather.typing.max(300_000);
        self.world.set_weather(self.weather.of_network());
        self.heal();
        for node in 0..self.nodes.len() {
            self.set_disk(node, 2_000);
            self.resume(node);
            self.start(node);
        }
    }
}
