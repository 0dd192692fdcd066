//! The services of a fleet as machines that the simulator can run: each is wrapped in the part of
//! its driver that the contract of machines leaves out (handshakes, reads from the disk, uploads,
//! the data plane). [`member::Member`] carries all of them in one process.
//!
//! A wrapper reports what it does as events, in order; a checker reads them and asks no machine
//! whether all is well.

/// Implements the vocabulary of a machine by the `Word`, `Timer` and `Told` of its module.
macro_rules! vocabulary {
    ($machine:ty, $record:ty) => {
        impl folkmoot::machine::Vocabulary for $machine {
            type Message = Word;
            type Call = folkmoot::machine::NodeCall;
            type Timer = Timer;
            type Record = $record;
            type Event = Told;
            type ExtraEffect = folkmoot::machine::PingHost;
        }
    };
}

pub(crate) mod chat;
pub(crate) mod member;
pub(crate) mod order;
pub(crate) mod rollout;
pub(crate) mod swarm;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use folkmoot::model::Rng;
use rand::RngExt as _;

/// Time-out of a call, as programs have it.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Time-out of the handshake on a link, as programs have it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The records of one log that several write: a sync of the log is one of each writer's own.
#[derive(Debug)]
pub(crate) struct Ledger<W> {
    writers: VecDeque<W>,
    taken: u64,
    counts: BTreeMap<W, u64>,
}

impl<W> Default for Ledger<W> {
    fn default() -> Self {
        Self { writers: VecDeque::new(), taken: 0, counts: BTreeMap::new() }
    }
}

impl<W: Ord + Copy> Ledger<W> {
    /// A record of this writer follows.
    pub(crate) fn write(&mut self, writer: W) {
        self.writers.push_back(writer);
    }

    /// Takes note that so many records of the log are on disk. Returns the writers of which more
    /// are there now, each with its number.
    pub(crate) fn sync(&mut self, records: u64) -> Vec<(W, u64)> {
        let mut risen = Vec::new();
        while self.taken < records {
            let writer = self.writers.pop_front().expect("no more is on disk than was written");
            self.taken += 1;
            *self.counts.entry(writer).or_default() += 1;
            if !risen.contains(&writer) {
                risen.push(writer);
            }
        }
        risen.into_iter().map(|it| (it, self.counts[&it])).collect()
    }
}

/// Inputs that come after a while: what a thread of the driver is doing.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    next: u64,
    inputs: BTreeMap<u64, T>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { next: 0, inputs: BTreeMap::new() }
    }
}

impl<T> Pending<T> {
    /// Keeps an input; returns the name of the timer that brings it.
    pub(crate) fn keep(&mut self, input: T) -> u64 {
        self.next += 1;
        self.inputs.insert(self.next, input);
        self.next
    }

    pub(crate) fn take(&mut self, name: u64) -> Option<T> {
        self.inputs.remove(&name)
    }
}

/// A duration of so many microseconds, drawn.
pub(crate) fn micros(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_micros(rng.random_range(range))
}
