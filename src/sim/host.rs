//! One simulated host: its disk, the factory of its process, and the process while there is one.
//!
//! Invariants:
//! - Inputs of a process are handled in the order in which they came, timers among the rest; a
//!   paused or slow process handles them later, never in another order. Only with `timers_first` it
//!   handles all timers that are due before the inputs: of two threads either may wake up first.
//! - `links` holds the links that the machine has been told of, not those that the network knows: a
//!   machine is held to its own knowledge.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::machine::timer::TimerQueue;
use crate::machine::{DialId, Input, LinkId, NodeMessage, Vocabulary};
use crate::model::{Endpoint, Now, Rng, Time, WallTime};

use super::disk::Disk;
use super::simulated::Simulated;
use super::traffic::Traffic;
use super::weather::DurationRange;

/// Arguments of a host's start, from which its process is made.
#[derive(Debug)]
pub struct Boot<'a, R> {
    /// Endpoint on which the process will listen.
    pub endpoint: Endpoint,
    /// Records of its disk, oldest first; empty at the first start and after a wipe.
    pub records: &'a [R],
    /// Number of starts of the host, this one included.
    pub boots: u32,
    /// The host's wall clock now.
    pub wall: WallTime,
    /// Seed of the machine's own randomness; another one at each start.
    pub seed: u64,
}

// By hand, because a derive would ask for records that can be copied.
impl<R> Clone for Boot<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Boot<'_, R> {}

/// A message that is about to leave a tampering host.
#[derive(Debug)]
pub struct TamperedMessage<'a, T = NodeMessage> {
    /// Time of the sending, counted from the world's start.
    pub at: Time,
    /// Endpoint of the sender.
    pub from: Endpoint,
    /// Endpoint of the receiver; `None` for a stranger, and if the link is already gone.
    pub to: Option<Endpoint>,
    /// The link, by the sender's number.
    pub link: LinkId,
    /// The message itself; it leaves only if the tamperer returns it.
    pub msg: &'a T,
}

/// Makes the process of a host each time it starts.
pub type Factory<M> = Box<dyn FnMut(Boot<'_, <M as Vocabulary>::Record>) -> M + Send>;

/// Replacement for each message that leaves a lying host: any messages, in any number.
pub type Tamper<T = NodeMessage> =
    Box<dyn FnMut(&mut Rng, &TamperedMessage<'_, T>) -> Vec<T> + Send>;

/// The effects that leave a node, and so wait for its disk.
#[derive(Debug)]
pub(super) enum Outward<T, E> {
    Send { link: LinkId, msg: T },
    Dial { ticket: DialId, to: Endpoint, timeout: Duration },
    Hangup { link: LinkId },
    PingHost { host: std::net::IpAddr },
    Emit(E),
}

/// The effects that wait, each for a number of the disk's writes.
type Gate<M> = VecDeque<(u64, Outward<<M as Vocabulary>::Message, <M as Vocabulary>::Event>)>;

/// A running process.
pub(super) struct Process<M: Simulated> {
    pub(super) machine: M,
    pub(super) started: Time,
    /// Deadlines, in the world's time.
    pub(super) timers: TimerQueue<M::Timer>,
    pub(super) inbox: VecDeque<(Time, Input<M>)>,
    /// The links the machine has been told of, and whether it has hung them up.
    pub(super) links: BTreeMap<LinkId, bool>,
    pub(super) dials: BTreeSet<DialId>,
    /// Effects that wait for this many of the disk's writes.
    pub(super) gate: Gate<M>,
    pub(super) paused: bool,
    /// Time when the handling of the first input in line ends, on a slow host.
    pub(super) busy: Option<Time>,
    /// The earliest wake-up in the agenda.
    pub(super) wake: Option<Time>,
}

impl<M: Simulated> Process<M> {
    pub(super) fn new(machine: M, started: Time) -> Self {
        Self {
            machine,
            started,
            timers: TimerQueue::default(),
            inbox: VecDeque::new(),
            links: BTreeMap::new(),
            dials: BTreeSet::new(),
            gate: VecDeque::new(),
            paused: false,
            busy: None,
            wake: None,
        }
    }

    /// True if an input that comes now is handled at once: no input waits, and no deadline goes
    /// before it.
    pub(super) fn is_idle(&self, now: Time) -> bool {
        !self.paused
            && self.busy.is_none()
            && self.inbox.is_empty()
            && self.timers.next().is_none_or(|due| due > now)
    }

    /// Takes the input to be handled now, with the time at which it came. On a host that is `slow`
    /// the first call only begins the handling, and [`Process::wake_at`] returns the time of its
    /// end.
    pub(super) fn take_ready(
        &mut self,
        now: Time,
        (slow, timers_first): (Duration, bool),
    ) -> Option<(Time, Input<M>)> {
        if self.paused {
            return None;
        }
        let due = self.timers.next().filter(|due| *due <= now);
        let came = self.inbox.front().map(|(came, _)| *came);
        let timer_first = match (due, came) {
            (None, None) => return None,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(due), Some(came)) => timers_first || due <= came,
        };
        match self.busy {
            None if !slow.is_zero() => {
                self.busy = Some(now.after(slow));
                return None;
            }
            Some(until) if until > now => return None,
            None | Some(_) => self.busy = None,
        }
        if timer_first {
            let timer = self.timers.pop_due(now)?;
            Some((due?, Input::Expired(timer)))
        } else {
            self.inbox.pop_front()
        }
    }

    /// Time when this process has to be looked at again if no input comes before.
    pub(super) fn wake_at(&self) -> Option<Time> {
        if self.paused { None } else { self.busy.or_else(|| self.timers.next()) }
    }
}

/// A host, running or not.
pub(super) struct Host<M: Simulated> {
    pub(super) endpoint: Endpoint,
    pub(super) factory: Factory<M>,
    pub(super) tamper: Option<Tamper<M::Message>>,
    /// Generator for this host's disk, starts and tamperer.
    pub(super) rng: Rng,
    pub(super) disk: Disk<M::Record>,
    pub(super) boots: u32,
    pub(super) process: Option<Process<M>>,
    /// True if the test declared that the host stays dead.
    pub(super) buried: bool,
    /// Number of steps taken so far, in the sense of `World::crash_after`.
    pub(super) moves: u64,
    /// Number of further steps until its process crashes; 0 for never.
    pub(super) fuse: u64,
    /// Time that is added to the handling of each input.
    pub(super) slow: Duration,
    /// Time that its disk takes for one sync, instead of the weather's.
    pub(super) fsync: Option<DurationRange>,
    /// Messages that its processes have sent.
    pub(super) sent: Traffic,
    /// Error of the wall clock, in milliseconds.
    pub(super) skew_ms: i64,
}

impl<M: Simulated> Host<M> {
    /// The wall clock of this host when the world's is at `epoch` plus `now`.
    pub(super) fn wall(&self, epoch: WallTime, now: Time) -> WallTime {
        let world_ms = epoch.0.saturating_add(now.as_micros() / 1_000);
        WallTime(world_ms.saturating_add_signed(self.skew_ms))
    }

    /// Both clocks of this host; the monotonic one starts with its process.
    pub(super) fn clocks(&self, epoch: WallTime, now: Time) -> Now {
        let started = self.process.as_ref().map_or(now, |process| process.started);
        let mono = Time::ZERO.after(now.since(started));
        Now { mono, wall: self.wall(epoch, now) }
    }
}
