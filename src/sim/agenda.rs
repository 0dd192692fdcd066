//! Queue of the events to come, ordered by time and then by the order of their planning.
//!
//! Invariant: two things due at the same moment come out in the order they were put in, so a run
//! depends on nothing but its seed. Entries are small and own nothing; messages wait in their link.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::IpAddr;

use crate::machine::{HostAnswer, LinkId};
use crate::model::Time;

use super::network::{LaneId, Owner};
use super::reach::HostId;
use super::storm::FaultEnd;

/// Kind of an event to come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// A host starts for the first time, or again.
    Boot(HostId),
    /// A host may have a timer due or be done with its slow handling.
    Wake(HostId),
    /// An attempt to connect takes its next step.
    Dial(u64),
    /// The head of a lane may have arrived.
    Arrival(LaneId),
    /// An end that is closing is told of it.
    LocalClose(LinkId),
    /// The sender gives up a lane that has been stuck.
    GiveUp {
        /// The stuck lane.
        lane: LaneId,
        /// Time when the lane got stuck; a lane that has moved meanwhile is left alone.
        since: Time,
    },
    /// A disk finished its sync.
    Synced {
        /// Host of the disk.
        host: HostId,
        /// Life of the host in which the sync was started.
        life: u32,
    },
    /// The system `ping` comes back.
    Pinged {
        /// Process that asks.
        owner: Owner,
        /// Address that was asked for.
        host: IpAddr,
        /// Answer that is reported.
        answer: HostAnswer,
    },
    /// The storm of this number strikes again.
    Gust(u32),
    /// A fault of the storm of this number ends.
    Amends(u32, FaultEnd),
}

#[derive(Debug)]
struct Entry {
    at: Time,
    number: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Reversed, because the standard heap gives out its greatest entry.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The queue and the virtual clock.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    now: Time,
    next_number: u64,
    heap: BinaryHeap<Entry>,
}

impl Agenda {
    /// The present moment, counted from the world's start.
    pub(super) const fn now(&self) -> Time {
        self.now
    }

    /// Plans `due` for the moment `at`, or for now if that has passed.
    pub(super) fn plan(&mut self, at: Time, due: Due) {
        let number = self.next_number;
        self.next_number += 1;
        self.heap.push(Entry { at: at.max(self.now), number, due });
    }

    /// Time of the next event.
    pub(super) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Takes the next event due up to `until` and moves the clock there.
    pub(super) fn pop(&mut self, until: Time) -> Option<Due> {
        if self.next()? > until {
            return None;
        }
        let entry = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.due)
    }

    /// Moves the clock forward to `at`, where nothing earlier is due.
    pub(super) fn advance(&mut self, at: Time) {
        self.now = self.now.max(at);
    }
}
