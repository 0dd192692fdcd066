//! A storm: faults of the drawn kinds, at drawn moments, on drawn hosts, each ending by itself.
//!
//! Invariant: after the storm's end and the longest drawn duration, everything that it broke is
//! whole again; a storm that [`World::calm_down`] ended early mends nothing later on its own.

use rand::RngExt as _;

use crate::model::{Endpoint, Time};

use super::agenda::Due;
use super::reach::{HostId, Presence};
use super::simulated::Simulated;
use super::weather::{DurationRange, Weather, WeatherFault};
use super::world::{World, draw_skew};

/// Time that a slow disk takes for one sync.
const SLOW_DISK: DurationRange = DurationRange::millis(50, 400);

/// End of a fault of a storm.
#[derive(Clone, Copy, Debug)]
pub(super) enum FaultEnd {
    /// Start this host again, if it has not started since this life.
    Restart(HostId, u32),
    Resume(HostId),
    Mend(HostId, HostId),
    /// End the division of this number.
    Reunite(u32),
    Hurry(HostId),
    QuickDisk(HostId),
}

/// A storm in progress.
#[derive(Debug)]
pub(super) struct Storm {
    victims: Vec<HostId>,
    until: Time,
}

impl<M: Simulated> World<M> {
    /// Begins a storm over all hosts, in this weather, which stays when the storm is over.
    /// Replaces the storm before, whose open faults are left to [`World::calm_down`].
    pub fn storm(&mut self, weather: &Weather, until: Time) {
        let all: Vec<_> = self.hosts().collect();
        self.storm_over(weather, &all, until);
    }

    /// Begins a storm that harms only `victims`; paths between a victim and another host may
    /// suffer, and a partition divides the victims.
    pub fn storm_over(&mut self, weather: &Weather, victims: &[Endpoint], until: Time) {
        let victims = victims.iter().map(|endpoint| self.find(*endpoint)).collect();
        self.set_weather(weather.clone());
        self.storms += 1;
        self.storm = Some(Storm { victims, until });
        self.plan_gust();
    }

    fn plan_gust(&mut self) {
        let Some(storm) = &self.storm else { return };
        if self.weather.faults.is_empty() || storm.victims.is_empty() {
            return;
        }
        let at = self.agenda.now().after(self.weather.gap.draw(&mut self.rng));
        if at < storm.until {
            self.agenda.plan(at, Due::Gust(self.storms));
        }
    }

    pub(super) fn gust(&mut self, number: u32) {
        if number != self.storms {
            return;
        }
        let Some(storm) = &self.storm else { return };
        let victim = storm.victims[self.rng.random_range(0..storm.victims.len())];
        let choice = self.rng.random_range(0..self.weather.faults.len());
        let fault = self.weather.faults.iter().nth(choice).copied();
        let fault = fault.filter(|_| !self.hosts[victim.index()].buried);
        if let Some(amends) = fault.and_then(|fault| self.strike(fault, victim)) {
            let at = self.agenda.now().after(self.weather.lasting.draw(&mut self.rng));
            self.agenda.plan(at, Due::Amends(self.storms, amends));
        }
        self.plan_gust();
    }

    /// Does one fault to one host; returns its later end.
    fn strike(&mut self, fault: WeatherFault, victim: HostId) -> Option<FaultEnd> {
        let (endpoint, life) =
            (self.hosts[victim.index()].endpoint, self.hosts[victim.index()].boots);
        let runs = self.hosts[victim.index()].process.is_some();
        match fault {
            WeatherFault::Crash if runs => {
                self.crash(endpoint);
                Some(FaultEnd::Restart(victim, life))
            }
            WeatherFault::Vanish if runs => {
                self.vanish(endpoint);
                Some(FaultEnd::Restart(victim, life))
            }
            WeatherFault::Kill if runs => {
                self.kill(endpoint);
                Some(FaultEnd::Restart(victim, life))
            }
            WeatherFault::SlowDisk => {
                self.set_fsync(endpoint, Some(SLOW_DISK));
                Some(FaultEnd::QuickDisk(victim))
            }
            WeatherFault::Restart if runs => {
                self.restart(endpoint);
                None
            }
            WeatherFault::Wipe if runs => {
                self.wipe(endpoint);
                None
            }
            WeatherFault::Pause if runs => {
                self.pause(endpoint);
                Some(FaultEnd::Resume(victim))
            }
            WeatherFault::Slow if runs => {
                let by = self.weather.slowness.draw(&mut self.rng);
                self.slow_down(endpoint, by);
                Some(FaultEnd::Hurry(victim))
            }
            WeatherFault::Crash
            | WeatherFault::Vanish
            | WeatherFault::Kill
            | WeatherFault::Restart
            | WeatherFault::Wipe
            | WeatherFault::Pause
            | WeatherFault::Slow => None,
            WeatherFault::Cut | WeatherFault::CutOneWay | WeatherFault::Reset => {
                self.strike_path(fault, victim)
            }
            WeatherFault::Partition => self.divide(),
            WeatherFault::Skew => {
                let skew_ms = draw_skew(self.weather.skew, &mut self.rng);
                self.set_skew(endpoint, skew_ms);
                None
            }
        }
    }

    fn strike_path(&mut self, fault: WeatherFault, victim: HostId) -> Option<FaultEnd> {
        let other = self.draw_partner(victim)?;
        let (a, b) = (self.hosts[victim.index()].endpoint, self.hosts[other.index()].endpoint);
        if fault == WeatherFault::Reset {
            self.reset_link(a, b);
            return None;
        }
        if fault == WeatherFault::Cut {
            self.cut(a, b);
        } else if self.rng.random_bool(0.5) {
            self.cut_one_way(a, b);
        } else {
            self.cut_one_way(b, a);
        }
        Some(FaultEnd::Mend(victim, other))
    }

    /// Draws the other host of a path fault, mostly one that the victim has a link with: in a large
    /// world other paths matter to no link.
    fn draw_partner(&mut self, victim: HostId) -> Option<HostId> {
        let linked: Vec<_> = self.network.linked_with(victim).into_iter().collect();
        if !linked.is_empty() && self.rng.random_bool(0.8) {
            return Some(linked[self.rng.random_range(0..linked.len())]);
        }
        let storm = self.storm.as_ref()?;
        let other = storm.victims[self.rng.random_range(0..storm.victims.len())];
        (other != victim).then_some(other)
    }

    /// Divides the victims in two, at a drawn ratio.
    fn divide(&mut self) -> Option<FaultEnd> {
        let share = self.rng.random_range(0.1..0.9);
        let mut islands = [Vec::new(), Vec::new()];
        for victim in &self.storm.as_ref()?.victims {
            let island = usize::from(self.rng.random_bool(share));
            islands[island].push(self.hosts[victim.index()].endpoint);
        }
        self.partition(&[&islands[0], &islands[1]]);
        Some(FaultEnd::Reunite(self.islands))
    }

    pub(super) fn amend(&mut self, storm: u32, amends: FaultEnd) {
        if storm != self.storms {
            return;
        }
        let at = |world: &Self, host: HostId| world.hosts[host.index()].endpoint;
        match amends {
            FaultEnd::Restart(host, life) => {
                let state = &self.hosts[host.index()];
                if state.process.is_none() && state.boots == life && !state.buried {
                    self.restart(at(self, host));
                }
            }
            FaultEnd::Resume(host) => self.resume(at(self, host)),
            FaultEnd::Mend(a, b) => self.mend(at(self, a), at(self, b)),
            FaultEnd::Reunite(number) => {
                if number == self.islands {
                    self.reunite();
                }
            }
            FaultEnd::QuickDisk(host) => self.set_fsync(at(self, host), None),
            FaultEnd::Hurry(host) => self.slow_down(at(self, host), std::time::Duration::ZERO),
        }
    }

    /// True if a host is off the network.
    pub fn is_vanished(&self, endpoint: Endpoint) -> bool {
        self.network.reach.presence(self.find(endpoint)) == Presence::Vanished
    }
}
