//! Weather: which faults come in a run and how often, drawn from its seed; some stay away.

use std::sync::atomic::Ordering;
use std::time::Duration;

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
    /// The longest delay of a message on a good path.
    pub(crate) delay: u64,
    /// The longest such delay after the storm.
    pub(crate) calm_delay: u64,
    /// Microseconds after which a silent connection is given up by its system.
    pub(crate) silence: u64,
    /// The weight of each fault.
    pub(crate) weights: [u32; 15],
    /// Whether it is over.
    pub(crate) is_calm: bool,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            fault: SECONDS,
            typing: 200_000,
            delay: 2_000,
            calm_delay: 5_000,
            silence: 10 * SECONDS,
            weights: [0; 15],
            is_calm: true,
        }
    }
}

const SECONDS: u64 = super::SECOND;

impl Weather {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut weights = [0; 15];
        for weight in &mut weights {
            *weight = if rng.random_bool(0.3) { 0 } else { rng.random_range(1..=10) };
        }
        let one = |rng: &mut Rng, of: &[u64]| of[rng.random_range(0..of.len())];
        Self {
            fault: one(rng, &[150_000, 400_000, SECONDS, 2_500_000]),
            typing: one(rng, &[50_000, 150_000, 400_000]),
            delay: one(rng, &[500, 5_000, 20_000, 60_000]),
            calm_delay: 5_000,
            silence: one(rng, &[SECONDS, 3 * SECONDS, 6 * SECONDS, 120 * SECONDS]),
            weights,
            is_calm: false,
        }
    }

    /// The weather of the network alone.
    pub(crate) fn of_network(&self) -> sim::Weather {
        sim::Weather {
            latency: DurationRange::micros(50, 300),
            jitter: Duration::from_micros(self.delay),
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
        if total == 0 {
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
        match which {
            0 => self.kill_for_a_while(any, false),
            1 => self.kill_for_a_while(leader, false),
            2 if self.rng.random_bool(0.4) => self.power_cut_of_all(),
            2 => self.kill_for_a_while(any, true),
            3 => self.kill_for_a_while(leader, true),
            4 => (0..self.nodes.len()).for_each(|node| self.start(node)),
            5 | 6 => {
                self.count("partition");
                let side: Vec<bool> = self.nodes.iter().map(|_| self.rng.random()).collect();
                self.divide(|node| side[node]);
            }
            7 => {
                self.count("isolation");
                let node = if self.rng.random_bool(0.5) { leader } else { any };
                self.divide(|it| it == node);
            }
            8 | 9 => self.heal(),
            10 => match self.nodes[any].is_paused {
                true => self.resume(any),
                false => {
                    let node = if self.rng.random_bool(0.5) { leader } else { any };
                    self.pause(node);
                }
            },
            11 => {
                self.count("slow disk");
                let micros = [300, 2_000, 50_000, 200_000][self.rng.random_range(0..4)];
                self.set_disk(any, micros);
            }
            12 => {
                self.count("delays");
                let delay = [2_000, 20_000, 100_000, 300_000, 600_000];
                let delay = delay[self.rng.random_range(0..5)];
                let mut weather = self.weather.of_network();
                weather.jitter = Duration::from_micros(delay);
                self.world.set_weather(weather);
            }
            13 => self.forget(any),
            _ => self.break_some(any),
        }
    }

    /// A member that leads, by its own word.
    pub(crate) fn leader(&self) -> Option<usize> {
        let all = (0..self.nodes.len()).filter_map(|node| Some((node, self.status(node)?)));
        let leads = all.filter(|(node, it)| it.active && it.leader == self.nodes[*node].id);
        leads.max_by_key(|(_, it)| (it.epoch, it.view)).map(|(node, _)| node)
    }

    fn kill_for_a_while(&mut self, node: usize, is_power: bool) {
        self.kill(node, is_power);
        let after = self.rng.random_range(10_000..3 * SECONDS);
        self.plan(self.now() + after, Due::Restart { node });
    }

    fn power_cut_of_all(&mut self) {
        self.count("power cut of all");
        for node in 0..self.nodes.len() {
            self.kill_for_a_while(node, true);
        }
    }

    /// A disk is lost, or put back to an older copy, of as many members as may be silent. A copy
    /// that nobody calls one makes its member a liar as far as nobody contradicts it.
    fn forget(&mut self, node: usize) {
        let is_honest = self.nodes[node].lies.is_empty();
        if !self.is_up(node) {
            return;
        }
        if self.rng.random_bool(0.3) {
            return self.back_up(node);
        }
        if is_honest && !self.forgetful.contains(&node) {
            if self.spare == 0 || !self.may_forget(node) {
                return;
            }
            self.spare -= 1;
            self.forgetful.insert(node);
        }
        if self.nodes[node].backup.is_some() && self.rng.random_bool(0.6) {
            self.count("restored from a copy");
            let is_told = self.rng.random_bool(0.5);
            if !is_told {
                self.checker.forgetful.insert(self.nodes[node].id);
            }
            self.restore(node, is_told);
        } else {
            self.count("lost disk");
            self.lose(node);
        }
        self.start(node);
    }

    fn break_some(&mut self, node: usize) {
        let other = self.rng.random_range(0..self.nodes.len());
        if other != node {
            self.count("broken connection");
            self.world.reset_link(self.nodes[node].at, self.nodes[other].at);
        }
    }

    /// No more faults; everybody is there.
    pub(crate) fn calm_down(&mut self) {
        self.weather.is_calm = true;
        if let Some(it) = &self.mutating {
            it.is_on.store(false, Ordering::Relaxed);
        }
        self.weather.delay = self.weather.delay.min(self.weather.calm_delay);
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
