//! Queue of that which must not be seen before records are on disk.
//!
//! Invariant: nothing leaves before the record that it waits for, and all leaves in order.

use std::collections::VecDeque;

/// Number of places that a queue keeps when it has become empty.
const KEPT: usize = 64;

/// Records of this life, counted, and what waits for them.
#[derive(Debug)]
pub struct Held<T> {
    issued: u64,
    synced: u64,
    /// Effects, say, that wait, each with the number of its record.
    waiting: VecDeque<(u64, T)>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { issued: 0, synced: 0, waiting: VecDeque::new() }
    }
}

impl<T> Held<T> {
    /// Counts a record that was handed over; returns its number, from 1 on.
    pub const fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    /// Number of records that were handed over.
    pub const fn issued(&self) -> u64 {
        self.issued
    }

    /// Number of records that are on disk.
    pub const fn synced(&self) -> u64 {
        self.synced
    }

    /// True if nothing waits and all records are on disk: what is held back now may leave at once.
    pub fn is_idle(&self) -> bool {
        self.synced == self.issued && self.waiting.is_empty()
    }

    /// Number of those that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Drops all that wait: the disk has failed, and nothing that depends on it may ever leave.
    pub fn abandon(&mut self) {
        self.waiting.clear();
    }

    /// True if the record of this number is on disk.
    pub const fn has(&self, record: u64) -> bool {
        record <= self.synced
    }

    /// Holds `it` back until the record of this number is on disk. Numbers must not fall.
    pub fn hold(&mut self, record: u64, it: T) {
        self.waiting.push_back((record, it));
    }

    /// Notes that the first `records` records are on disk; more than were handed over count as all.
    pub fn on_synced(&mut self, records: u64) {
        self.synced = self.synced.max(if records < self.issued { records } else { self.issued });
    }

    /// Takes the next that waits no more.
    pub fn pop(&mut self) -> Option<T> {
        if self.waiting.front().is_none_or(|(record, _)| *record > self.synced) {
            return None;
        }
        let (_, it) = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            // A burst must not hold its memory forever.
            self.waiting.shrink_to(KEPT);
        }
        Some(it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_before_its_record_and_all_leaves_in_order() {
        let mut held = Held::default();
        let first = held.issue();
        held.hold(first, 'a');
        held.hold(first, 'b');
        let second = held.issue();
        held.hold(second, 'c');
        assert_eq!(held.pop(), None);
        held.on_synced(1);
        assert_eq!([held.pop(), held.pop(), held.pop()], [Some('a'), Some('b'), None]);
        held.on_synced(99);
        assert!(held.has(second) && !held.has(3), "there were two");
        assert_eq!(held.pop(), Some('c'));
        held.on_synced(1);
        assert!(held.has(second), "a record does not leave the disk again");
    }
}
