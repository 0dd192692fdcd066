//! Faults that a test, or the storm, inflicts on hosts and paths.
//!
//! Each call takes effect at once and is counted only if it changed something. None of them
//! breaks the driver's contract: machines see nothing here that a real network could not show.

use std::time::Duration;

use rand::RngExt as _;

use crate::machine::Effect;
use crate::model::Endpoint;

use super::agenda::Due;
use super::host::Tamper;
use super::reach::{HostId, Presence};
use super::simulated::Simulated;
use super::tally::FaultEffect;
use super::weather::{DurationRange, Weather, WeatherFault};
use super::world::World;

/// Moment of a death at an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The effect is not carried out any more.
    Before,
    /// The effect is the last one.
    After,
}

impl<M: Simulated> World<M> {
    /// Kills a process. Its disk keeps the synced records, its host resets its links, so that the
    /// other ends soon know.
    pub fn crash(&mut self, endpoint: Endpoint) {
        let host = self.find(endpoint);
        if self.end_process(host, Presence::Down) {
            self.count(host, WeatherFault::Crash);
        }
    }

    /// Kills a process. Its system goes on: what it wrote is kept, synced or not, and its host
    /// resets its links.
    pub fn kill(&mut self, endpoint: Endpoint) {
        let host = self.find(endpoint);
        if self.end_process_alone(host) {
            self.count(host, WeatherFault::Kill);
        }
    }

    /// Lets a process crash as soon as it has taken this many more steps, wherever in its work
    /// that is: between two messages that leave it, after a write and before its sync. A step is
    /// an input handled, a sync that came back, or an effect that reached the world outside.
    /// Counted by the host, so a process that starts meanwhile inherits it; zero calls it off.
    pub fn crash_after(&mut self, endpoint: Endpoint, steps: u64) {
        let host = self.find(endpoint);
        self.hosts[host.index()].fuse = steps;
    }

    /// Counts a step of a host; returns whether its process outlives it.
    pub(super) fn step(&mut self, id: HostId) -> bool {
        let host = &mut self.hosts[id.index()];
        host.moves += 1;
        if host.fuse > 0 {
            host.fuse -= 1;
            if host.fuse == 0 && self.end_process(id, Presence::Down) {
                self.count(id, WeatherFault::Crash);
            }
        }
        self.hosts[id.index()].process.is_some()
    }

    /// Takes a host off the network, its process with it; no other host is told.
    pub fn vanish(&mut self, endpoint: Endpoint) {
        let host = self.find(endpoint);
        let was_there = self.network.reach.presence(host) != Presence::Vanished;
        self.end_process(host, Presence::Vanished);
        self.network.reach.set_presence(host, Presence::Vanished);
        if was_there {
            self.count(host, WeatherFault::Vanish);
        }
    }

    /// Starts a process from its disk; one that runs is killed first. A vanished host is back.
    pub fn restart(&mut self, endpoint: Endpoint) {
        let host = self.find(endpoint);
        self.end_process(host, Presence::Down);
        self.start(host);
        if self.hosts[host.index()].process.is_some() {
            self.count(host, WeatherFault::Restart);
        }
    }

    /// Starts a process with an empty disk; one that runs is killed first.
    pub fn wipe(&mut self, endpoint: Endpoint) {
        let host = self.find(endpoint);
        self.replace_disk(endpoint, Vec::new());
        self.start(host);
        if self.hosts[host.index()].process.is_some() {
            self.count(host, WeatherFault::Wipe);
        }
    }

    /// Kills the process of a host, whose disk then holds `records` and nothing else: none after
    /// its loss, older ones after it was restored from a backup.
    pub fn replace_disk(&mut self, endpoint: Endpoint, records: Vec<M::Record>) {
        let host = self.find(endpoint);
        self.end_process(host, Presence::Down);
        self.hosts[host.index()].disk.replace(records);
    }

    /// Sets the time that a host's disk takes for one sync; `None`: the weather's.
    pub fn set_fsync(&mut self, endpoint: Endpoint, fsync: Option<DurationRange>) {
        let host = self.find(endpoint);
        if std::mem::replace(&mut self.hosts[host.index()].fsync, fsync) != fsync && fsync.is_some()
        {
            self.count(host, WeatherFault::SlowDisk);
        }
    }

    /// Kills the process of a host, which has the address `to` from then on.
    ///
    /// # Panics
    /// Panics if `to` is taken.
    pub fn relocate(&mut self, endpoint: Endpoint, to: Endpoint) {
        self.kill(endpoint);
        let host = self.find(endpoint);
        assert!(self.network.reach.relocate(host, to), "SEED={}: {to} is taken", self.seed);
        self.hosts[host.index()].endpoint = to;
    }

    /// Declares that a host stays dead: it is crashed if it lives, and nothing starts it again.
    /// Call [`World::vanish`] first for a death without a word.
    pub fn bury(&mut self, endpoint: Endpoint) {
        self.crash(endpoint);
        let host = self.find(endpoint);
        self.hosts[host.index()].buried = true;
    }

    /// Pauses a process: its kernel still takes calls and bytes, its clock runs on, and no input is
    /// handled.
    pub fn pause(&mut self, endpoint: Endpoint) {
        let host = self.find(endpoint);
        if let Some(process) = self.process(host).filter(|process| !process.paused) {
            process.paused = true;
            self.count(host, WeatherFault::Pause);
        }
    }

    /// Lets a paused process go on; inputs that came meanwhile are handled now, in order.
    ///
    /// # Panics
    /// Like [`World::run_until`].
    pub fn resume(&mut self, endpoint: Endpoint) {
        let host = self.find(endpoint);
        if let Some(process) = self.process(host).filter(|process| process.paused) {
            process.paused = false;
            self.trace(host, || "goes on".to_owned());
            self.open_gate(host);
            self.pump(host);
        }
    }

    /// Cuts the path between two hosts, without a word to either.
    pub fn cut(&mut self, a: Endpoint, b: Endpoint) {
        let (a, b) = (self.find(a), self.find(b));
        let forth = self.network.reach.cut(a, b);
        if self.network.reach.cut(b, a) || forth {
            self.count(a, WeatherFault::Cut);
        }
    }

    /// Cuts the path in one direction only.
    pub fn cut_one_way(&mut self, from: Endpoint, to: Endpoint) {
        let (from, to) = (self.find(from), self.find(to));
        if self.network.reach.cut(from, to) {
            self.count(from, WeatherFault::CutOneWay);
        }
    }

    /// Cuts everything that comes to a host, or opens it again; the other direction is not touched.
    pub fn deafen(&mut self, endpoint: Endpoint, deaf: bool) {
        let host = self.find(endpoint);
        if self.network.reach.deafen(host, deaf) {
            self.one_way_changed(host, deaf);
        }
    }

    /// Cuts everything that leaves a host, or opens it again; the other direction is not touched.
    pub fn mute(&mut self, endpoint: Endpoint, mute: bool) {
        let host = self.find(endpoint);
        if self.network.reach.mute(host, mute) {
            self.one_way_changed(host, mute);
        }
    }

    /// Mends the path between two hosts, in both directions; parcels held on it move on.
    pub fn mend(&mut self, a: Endpoint, b: Endpoint) {
        let (a, b) = (self.find(a), self.find(b));
        self.network.reach.mend(a, b);
        self.network.reach.mend(b, a);
        self.network.unstick(&mut self.agenda);
    }

    /// Divides hosts into groups that cannot reach each other; replaces an earlier division.
    /// Hosts of no group reach all.
    pub fn partition(&mut self, groups: &[&[Endpoint]]) {
        self.network.reach.reunite();
        for (island, group) in groups.iter().enumerate() {
            for endpoint in *group {
                let host = self.find(*endpoint);
                self.network.reach.maroon(host, u32::try_from(island).ok());
            }
        }
        self.network.unstick(&mut self.agenda);
        self.islands += 1;
        if groups.iter().filter(|group| !group.is_empty()).count() > 1 {
            self.tally.count(WeatherFault::Partition);
        }
    }

    /// Ends a partition and leaves single cuts as they are.
    pub fn reunite(&mut self) {
        self.network.reach.reunite();
        self.network.unstick(&mut self.agenda);
    }

    /// Ends a partition and mends every path.
    pub fn heal(&mut self) {
        self.network.reach.heal();
        self.network.unstick(&mut self.agenda);
    }

    /// Breaks every link between two hosts; parcels under way are lost, both ends are told.
    pub fn reset_link(&mut self, a: Endpoint, b: Endpoint) {
        let (a, b) = (self.find(a), self.find(b));
        if self.network.reset(&mut self.agenda, a, b) > 0 {
            self.count(a, WeatherFault::Reset);
        }
    }

    /// Makes a host take this much longer over each input; zero makes it quick again.
    ///
    /// # Panics
    /// Like [`World::run_until`].
    pub fn slow_down(&mut self, endpoint: Endpoint, by: Duration) {
        let host = self.find(endpoint);
        self.hosts[host.index()].slow = by;
        if !by.is_zero() {
            self.count(host, WeatherFault::Slow);
        }
        self.pump(host);
    }

    /// Sets how far a host's wall clock is off, in milliseconds.
    pub fn set_skew(&mut self, endpoint: Endpoint, skew_ms: i64) {
        let host = self.find(endpoint);
        if std::mem::replace(&mut self.hosts[host.index()].skew_ms, skew_ms) != skew_ms {
            self.count(host, WeatherFault::Skew);
        }
    }

    /// From now on each message that leaves this host is replaced by the messages that `tamper`
    /// returns.
    pub fn set_tamper(&mut self, endpoint: Endpoint, tamper: Tamper<M::Message>) {
        let host = self.find(endpoint);
        self.hosts[host.index()].tamper = Some(tamper);
    }

    /// Changes the weather; links that exist keep their base latency.
    pub fn set_weather(&mut self, weather: Weather) {
        self.network.weather = weather.clone();
        self.weather = weather;
    }

    /// Ends every fault: storms, cuts, pauses, slowness and skew go, the weather is calm, and
    /// every host that ever ran and is not buried runs again. Tampering hosts go on tampering.
    ///
    /// # Panics
    /// Like [`World::run_until`].
    pub fn calm_down(&mut self) {
        self.storm = None;
        self.storms += 1;
        let calm = Weather::calm();
        self.network.quicken(calm.latency.max);
        self.set_weather(calm);
        self.heal();
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            host.skew_ms = 0;
            host.fsync = None;
            let (endpoint, slow) = (host.endpoint, !host.slow.is_zero());
            let is_due_back = host.process.is_none() && host.boots > 0 && !host.buried;
            if slow {
                self.slow_down(endpoint, Duration::ZERO);
            }
            self.resume(endpoint);
            if is_due_back {
                self.restart(endpoint);
            }
        }
    }

    fn one_way_changed(&mut self, host: HostId, cut: bool) {
        if cut {
            self.count(host, WeatherFault::CutOneWay);
        } else {
            self.network.unstick(&mut self.agenda);
        }
    }

    pub(super) fn end_process(&mut self, id: HostId, presence: Presence) -> bool {
        let host = &mut self.hosts[id.index()];
        if host.process.take().is_none() {
            return false;
        }
        let torn = self.weather.torn_tails.then_some(&mut host.rng);
        let (kept, lost) = host.disk.crash(torn);
        self.tally.add(FaultEffect::KeptUnsynced, kept);
        self.tally.add(FaultEffect::LostRecord, lost);
        self.network.reach.set_presence(id, presence);
        let silent = presence == Presence::Vanished;
        self.network.end_process(&mut self.agenda, id, silent);
        true
    }

    /// Ends a process whose disk loses nothing.
    fn end_process_alone(&mut self, id: HostId) -> bool {
        let host = &mut self.hosts[id.index()];
        let runs = host.process.take().is_some();
        if runs {
            host.disk.outlive(self.options.opens_unsynced);
            self.network.reach.set_presence(id, Presence::Down);
            self.network.end_process(&mut self.agenda, id, false);
        }
        runs
    }

    /// Draws whether a process dies at an effect; without deaths in the weather nothing is drawn.
    pub(super) fn draw_death(&mut self, effect: &Effect<M>) -> Option<Moment> {
        let ppm = self.weather.death_ppm.saturating_mul(M::deadliness(effect)).min(1_000_000);
        if ppm == 0 || !self.rng.random_ratio(ppm, 1_000_000) {
            return None;
        }
        Some(if self.rng.random_bool(0.5) { Moment::Before } else { Moment::After })
    }

    /// A process dies, with its system or alone, and comes back by itself.
    pub(super) fn let_die(&mut self, id: HostId) {
        let endpoint = self.hosts[id.index()].endpoint;
        if self.rng.random_bool(0.5) {
            self.crash(endpoint);
        } else {
            self.kill(endpoint);
        }
        let at = self.agenda.now().after(self.weather.lasting.draw(&mut self.rng));
        self.agenda.plan(at, Due::Boot(id));
    }

    fn count(&mut self, host: HostId, fault: WeatherFault) {
        self.tally.count(fault);
        self.trace(host, || format!("suffers {fault:?}"));
    }
}
