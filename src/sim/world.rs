//! The world: hosts, a network between them, and the loop that runs them in order.
//!
//! A test builds, runs and asks a world by the functions here; `drive` carries out effects,
//! `faults` and `storm` do harm, `intruder` lets strangers in. A world is a pure function of its
//! seed and of the calls made on it; two worlds with the same of both live the same life to the
//! last event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;

use crate::machine::Effects;
use crate::model::{Endpoint, Now, Rng, Time, WallTime};

use super::agenda::{Agenda, Due};
use super::disk::Disk;
use super::host::{Factory, Host, Process};
use super::intruder::Stranger;
use super::network::Network;
use super::reach::{HostId, LinkHolder};
use super::simulated::Simulated;
use super::storm::Storm;
use super::tally::FaultCounts;
use super::traffic::{ByName, Traffic};
use super::weather::{Branch, Weather, branch};

/// Settings that are fixed for a whole run.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// The weather at the start. Its faults strike only in a storm.
    pub weather: Weather,
    /// Largest number of inputs that may be handled before the run fails; catches endless storms of
    /// messages.
    pub steps_max: u64,
    /// The wall clock at the world's start.
    pub epoch: WallTime,
    /// Time for which a sender tries to get through on a silent path before its link is closed.
    pub patience: Duration,
    /// True if no process syncs what an earlier one left in the system's cache, as each must when
    /// it opens its log; to prove that a test would notice.
    pub opens_unsynced: bool,
    /// True if a message that was held on a cut path may wait as long again when the path is whole,
    /// as TCP does whose pauses double.
    pub backs_off: bool,
    /// True if a process that is late handles the timers that are due before what came earlier,
    /// as a driver may whose timers have their own thread.
    pub timers_first: bool,
    /// Largest number of messages under way in one direction of a link; with more it is closed.
    pub queue_max: usize,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            weather: Weather::calm(),
            steps_max: 20_000_000,
            epoch: WallTime(1_772_010_000_000),
            patience: Duration::from_secs(120),
            opens_unsynced: false,
            backs_off: false,
            timers_first: false,
            queue_max: 10_000,
        }
    }
}

/// A simulated world of machines of one type; a machine may be made of several services.
pub struct World<M: Simulated> {
    pub(super) seed: u64,
    pub(super) options: WorldOptions,
    pub(super) weather: Weather,
    pub(super) agenda: Agenda,
    pub(super) network: Network<M::Message>,
    pub(super) hosts: Vec<Host<M>>,
    pub(super) strangers: Vec<Stranger<M::Message>>,
    pub(super) events: Vec<(Time, Endpoint, M::Event)>,
    pub(super) fx: Effects<M>,
    pub(super) tally: FaultCounts,
    /// Messages sent, by their names.
    pub(super) traffic: ByName,
    /// The message that was sent last, and its bytes.
    pub(super) packed: Option<(Arc<M::Message>, u64)>,
    /// Returns the size of a message on the wire, in bytes, if they are to be counted.
    pub(super) meter: Option<fn(&M::Message) -> usize>,
    /// Generator of the storm's faults.
    pub(super) rng: Rng,
    pub(super) storm: Option<Storm>,
    pub(super) storms: u32,
    pub(super) islands: u32,
    pub(super) steps: u64,
    pub(super) traced: bool,
    /// Lets effects pass the disk, to prove that the tests would notice.
    #[cfg(test)]
    pub(super) leaky: bool,
}

impl<M: Simulated> World<M> {
    /// An empty world. With `TRACE` in the environment it tells every step on stderr.
    pub fn new(seed: u64, options: WorldOptions) -> Self {
        let network_rng = Rng::seed_from_u64(branch(seed, Branch::Network, 0));
        let weather = options.weather.clone();
        Self {
            seed,
            network: Network::new(network_rng, &options),
            weather,
            options,
            agenda: Agenda::default(),
            hosts: Vec::new(),
            strangers: Vec::new(),
            events: Vec::new(),
            fx: Effects::default(),
            tally: FaultCounts::default(),
            traffic: ByName::default(),
            packed: None,
            meter: None,
            rng: Rng::seed_from_u64(branch(seed, Branch::Storm, 0)),
            storm: None,
            storms: 0,
            islands: 0,
            steps: 0,
            traced: std::env::var_os("TRACE").is_some(),
            #[cfg(test)]
            leaky: false,
        }
    }

    /// Adds a host that is switched on but runs nothing; `factory` makes its process each time it
    /// starts.
    ///
    /// # Panics
    /// Panics if the endpoint is taken.
    pub fn add_host(&mut self, endpoint: Endpoint, factory: Factory<M>) {
        let Some(host) = self.network.add_host(endpoint) else {
            panic!("SEED={}: there is already a host at {endpoint}", self.seed)
        };
        let seed = branch(self.seed, Branch::Host, u64::from(host.0));
        let mut rng = Rng::seed_from_u64(seed);
        let skew_ms = draw_skew(self.weather.skew, &mut rng);
        self.hosts.push(Host {
            endpoint,
            factory,
            tamper: None,
            rng,
            disk: Disk::default(),
            boots: 0,
            process: None,
            buried: false,
            moves: 0,
            fuse: 0,
            slow: Duration::ZERO,
            fsync: None,
            sent: Traffic::default(),
            skew_ms,
        });
    }

    /// Counts the bytes of messages from now on: `meter` returns the size of one on the wire.
    pub const fn set_meter(&mut self, meter: fn(&M::Message) -> usize) {
        self.meter = Some(meter);
    }

    /// Starts the process of a host now; without effect while it runs.
    pub fn boot(&mut self, endpoint: Endpoint) {
        let host = self.find(endpoint);
        self.start(host);
    }

    /// Starts the process of a host at the moment `at`, if it does not run then.
    pub fn boot_at(&mut self, endpoint: Endpoint, at: Time) {
        let host = self.find(endpoint);
        self.agenda.plan(at, Due::Boot(host));
    }

    /// Runs everything due up to the moment `until`, and moves the clock there.
    ///
    /// # Panics
    /// Panics if a machine breaks the driver's contract, or the limit of steps is reached.
    pub fn run_until(&mut self, until: Time) {
        while let Some(due) = self.agenda.pop(until) {
            self.happen(due);
        }
        self.agenda.advance(until);
    }

    /// Runs for this long.
    ///
    /// # Panics
    /// Like [`World::run_until`].
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now().after(span));
    }

    /// Runs while `waiting` holds, at most for `limit`; returns whether it ceased to hold. Looks
    /// once a millisecond at the most, because `waiting` may be costly.
    ///
    /// # Panics
    /// Like [`World::run_until`].
    pub fn run_while(&mut self, mut waiting: impl FnMut(&Self) -> bool, limit: Duration) -> bool {
        let end = self.now().after(limit);
        while waiting(self) {
            if self.now() >= end {
                return false;
            }
            let tick = self.now().after(Duration::from_millis(1));
            let next = self.agenda.next().unwrap_or(end);
            self.run_until(next.max(tick).min(end));
        }
        true
    }

    /// The present moment, counted from the world's start.
    pub const fn now(&self) -> Time {
        self.agenda.now()
    }

    /// The seed of this run.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The weather at present.
    pub const fn weather(&self) -> &Weather {
        &self.weather
    }

    /// Number of inputs that have been handled.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Number of steps that a host has taken, in the sense of [`World::crash_after`].
    pub fn moves(&self, endpoint: Endpoint) -> u64 {
        self.host(endpoint).moves
    }

    /// The machine of a host while its process lives, paused or not.
    pub fn machine(&self, endpoint: Endpoint) -> Option<&M> {
        self.host(endpoint).process.as_ref().map(|process| &process.machine)
    }

    /// Records that a host's disk would give back after a crash now.
    pub fn records(&self, endpoint: Endpoint) -> &[M::Record] {
        self.host(endpoint).disk.safe()
    }

    /// All events that machines emitted, in order, with the world's time.
    pub fn events(&self) -> &[(Time, Endpoint, M::Event)] {
        &self.events
    }

    /// Takes the events emitted so far, for tests that watch long runs piece by piece.
    pub fn take_events(&mut self) -> Vec<(Time, Endpoint, M::Event)> {
        std::mem::take(&mut self.events)
    }

    /// Every host's endpoint, in order.
    pub fn hosts(&self) -> impl Iterator<Item = Endpoint> {
        self.network.reach.endpoints()
    }

    /// True if a process lives at `endpoint`, paused or not.
    pub fn is_up(&self, endpoint: Endpoint) -> bool {
        self.machine(endpoint).is_some()
    }

    /// True if a process lives at `endpoint` and handles its inputs as they come.
    pub fn is_prompt(&self, endpoint: Endpoint) -> bool {
        let host = self.host(endpoint);
        host.slow.is_zero() && host.process.as_ref().is_some_and(|process| !process.paused)
    }

    /// True if packets between two hosts get through, both ways.
    pub fn are_joined(&self, a: Endpoint, b: Endpoint) -> bool {
        let (a, b) = (LinkHolder::Host(self.find(a)), LinkHolder::Host(self.find(b)));
        self.network.reach.carries(a, b) && self.network.reach.carries(b, a)
    }

    /// Number of links between two hosts that are open at both ends.
    pub fn open_links(&self, a: Endpoint, b: Endpoint) -> usize {
        self.network.open_between(self.find(a), self.find(b))
    }

    /// Both clocks of a host, as its machine sees them; the monotonic one starts with its process.
    pub fn clocks(&self, endpoint: Endpoint) -> Now {
        self.host(endpoint).clocks(self.options.epoch, self.now())
    }

    /// The wall clock of a host.
    pub fn wall(&self, endpoint: Endpoint) -> WallTime {
        self.host(endpoint).wall(self.options.epoch, self.now())
    }

    /// Counts of all faults and troubles so far.
    pub fn tally(&self) -> FaultCounts {
        let mut tally = self.tally.clone();
        tally += &self.network.tally;
        tally
    }

    /// Messages that a host has sent so far, in all its lives.
    pub fn sent(&self, endpoint: Endpoint) -> Traffic {
        self.host(endpoint).sent
    }

    /// Messages that all hosts have sent so far, by their names.
    pub fn traffic(&self) -> BTreeMap<&'static str, Traffic> {
        self.traffic.sorted()
    }

    pub(super) fn find(&self, endpoint: Endpoint) -> HostId {
        let host = self.network.reach.find(endpoint);
        host.unwrap_or_else(|| panic!("SEED={}: there is no host at {endpoint}", self.seed))
    }

    fn host(&self, endpoint: Endpoint) -> &Host<M> {
        &self.hosts[self.find(endpoint).index()]
    }

    pub(super) fn process(&mut self, host: HostId) -> Option<&mut Process<M>> {
        self.hosts[host.index()].process.as_mut()
    }
}

/// A wall clock's error, up to `most` either way, in milliseconds.
pub(super) fn draw_skew(most: Duration, rng: &mut Rng) -> i64 {
    use rand::RngExt as _;
    let most = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
    if most == 0 { 0 } else { rng.random_range(-most..=most) }
}
