//! The weather of a run: latencies, losses and kinds of faults, drawn from its seed.
//!
//! Every seed draws its own; some draws leave a kind of fault out, because a fault that always
//! strikes hides what happens without it. Nothing here acts: `storm` does.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};

use crate::model::Rng;

/// A range of durations, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationRange {
    /// Shortest duration of the range.
    pub min: Duration,
    /// Longest duration; read as `min` when it is shorter than that.
    pub max: Duration,
}

impl DurationRange {
    /// From `min` to `max` microseconds.
    pub const fn micros(min: u64, max: u64) -> Self {
        Self { min: Duration::from_micros(min), max: Duration::from_micros(max) }
    }

    /// From `min` to `max` milliseconds.
    pub const fn millis(min: u64, max: u64) -> Self {
        Self { min: Duration::from_millis(min), max: Duration::from_millis(max) }
    }

    /// Draws one duration, in whole microseconds.
    pub fn draw(&self, rng: &mut Rng) -> Duration {
        if self.max <= self.min {
            return self.min;
        }
        let width = u64::try_from((self.max - self.min).as_micros()).unwrap_or(u64::MAX);
        self.min + Duration::from_micros(rng.random_range(0..=width))
    }
}

/// The kinds of fault that can strike a host or a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeatherFault {
    /// A process dies; its host stays and resets its links.
    Crash,
    /// A host vanishes from the network.
    Vanish,
    /// A process dies; its system goes on, and keeps what it wrote.
    Kill,
    /// A process starts again from its disk.
    Restart,
    /// A process starts again with an empty disk.
    Wipe,
    /// A process is stopped while its kernel goes on answering.
    Pause,
    /// The path between two hosts is cut both ways.
    Cut,
    /// The path between two hosts is cut one way.
    CutOneWay,
    /// The hosts fall apart into islands.
    Partition,
    /// The links between two hosts are reset.
    Reset,
    /// A host takes longer for every input.
    Slow,
    /// A host's wall clock jumps.
    Skew,
    /// A host's disk takes long for each sync.
    SlowDisk,
}

impl WeatherFault {
    /// All kinds of fault.
    pub const ALL: [Self; 13] = [
        Self::Crash,
        Self::Vanish,
        Self::Kill,
        Self::Restart,
        Self::Wipe,
        Self::Pause,
        Self::Cut,
        Self::CutOneWay,
        Self::Partition,
        Self::Reset,
        Self::Slow,
        Self::Skew,
        Self::SlowDisk,
    ];

    /// Kinds of fault that [`Weather::draw`] chooses from. A wiped disk is not among them:
    /// protocols that promise something across crashes may break their promise then, so a test has
    /// to ask for it. Nor are those that only matter to machines that hold back themselves.
    const DRAWN: [Self; 9] = [
        Self::Crash,
        Self::Vanish,
        Self::Pause,
        Self::Cut,
        Self::CutOneWay,
        Self::Partition,
        Self::Reset,
        Self::Slow,
        Self::Skew,
    ];
}

/// Behavior of the network and the disks, with the kinds and rates of their faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Base latency of one way, drawn once for each link.
    pub latency: DurationRange,
    /// Longest time that is added to the base for a single message; order is kept all the same.
    pub jitter: Duration,
    /// Number of packets in a million that get lost. Links are TCP's, so data that is lost on them
    /// is late and not gone: see `loss`.
    pub loss_ppm: u32,
    /// Time that a disk takes for one sync.
    pub fsync: DurationRange,
    /// Percentage of syncs after which the log is replaced by the machine's snapshot.
    pub snapshot_percent: u8,
    /// True if a crash may keep some of the writes that were not synced, as real disks may.
    pub torn_tails: bool,
    /// Largest error of a host's wall clock, either way.
    pub skew: Duration,
    /// Chance, in a million, that a process dies at an effect of the usual weight, in a storm or
    /// not. It comes back when a fault of a storm would end.
    pub death_ppm: u32,
    /// Kinds of fault that a storm chooses from; empty means no storm.
    pub faults: BTreeSet<WeatherFault>,
    /// Time between two faults of a storm.
    pub gap: DurationRange,
    /// Duration of a fault of a storm.
    pub lasting: DurationRange,
    /// Time that a slow host adds to each input.
    pub slowness: DurationRange,
}

impl Weather {
    /// A quiet local network: no faults, quick disks, exact clocks.
    pub const fn calm() -> Self {
        Self {
            latency: DurationRange::micros(500, 2_000),
            jitter: Duration::from_micros(500),
            loss_ppm: 0,
            fsync: DurationRange::micros(300, 1_500),
            snapshot_percent: 0,
            torn_tails: false,
            skew: Duration::ZERO,
            death_ppm: 0,
            faults: BTreeSet::new(),
            gap: DurationRange::millis(500, 5_000),
            lasting: DurationRange::millis(100, 10_000),
            slowness: DurationRange::millis(1, 200),
        }
    }

    /// The weather of a seed. Each kind of fault is left out by about one seed in four.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(branch(seed, Branch::Weather, 0));
        let slow_net = [3, 20, 150][rng.random_range(0..3)];
        let slow_disk = [1, 10, 100][rng.random_range(0..3)];
        Self {
            latency: DurationRange::micros(200, slow_net * 1_000),
            jitter: Duration::from_millis([0, 2, 40][rng.random_range(0..3)]),
            loss_ppm: 0,
            fsync: DurationRange::micros(100, slow_disk * 1_000),
            snapshot_percent: [0, 5, 40][rng.random_range(0..3)],
            torn_tails: rng.random_bool(0.5),
            skew: Duration::from_millis([0, 50, 2_000][rng.random_range(0..3)]),
            death_ppm: 0,
            faults: WeatherFault::DRAWN.into_iter().filter(|_| rng.random_bool(0.75)).collect(),
            gap: DurationRange::millis(100, [500, 3_000, 10_000][rng.random_range(0..3)]),
            lasting: DurationRange::millis(50, [1_000, 10_000, 30_000][rng.random_range(0..3)]),
            slowness: DurationRange::millis(1, [5, 50, 400][rng.random_range(0..3)]),
        }
    }

    /// The same weather with one more kind of fault.
    #[must_use]
    pub fn with(mut self, fault: WeatherFault) -> Self {
        self.faults.insert(fault);
        self
    }

    /// The same weather without a kind of fault.
    #[must_use]
    pub fn without(mut self, fault: WeatherFault) -> Self {
        self.faults.remove(&fault);
        self
    }
}

/// The first forks of the tree of seeds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Branch {
    Weather = 1,
    Network,
    Storm,
    Host,
    Boot,
}

/// The seed of one branch: far apart for neighboring seeds, alike on every machine.
///
/// The finalizer is that of `SplitMix64` (Steele, Lea and Flood, 2014).
pub(super) const fn branch(seed: u64, kind: Branch, number: u64) -> u64 {
    let mut mixed = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add((kind as u64).wrapping_mul(0xd1b5_4a32_d192_ed03))
        .wrapping_add(number.wrapping_mul(0x8cb9_2ba7_2f3d_8dd7));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
