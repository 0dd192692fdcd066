//! A simulated disk: the records written, the safe ones, and the group commit in between.
//!
//! Invariants: one sync is under way at most, and the next takes all writes that piled up
//! meanwhile; a record is safe when the sync that took it came back; a crash keeps all safe
//! records.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;

use rand::RngExt as _;

use crate::model::Rng;

/// A write to the disk.
#[derive(Debug)]
enum Write<R> {
    Record(R),
    /// Replaces everything before it.
    Snapshot(Vec<R>),
}

/// The disk of one host; outlives its processes.
#[derive(Debug)]
pub(super) struct Disk<R> {
    safe: Vec<R>,
    tail: VecDeque<Write<R>>,
    /// Number of the tail's writes that the sync under way has taken.
    syncing: usize,
    written: u64,
    synced: u64,
    /// Number of this life's records that are safe; a snapshot is none.
    records: u64,
    /// Records that a killed process left in the cache and none after it synced, by their places.
    unsynced: Vec<Range<usize>>,
}

impl<R> Default for Disk<R> {
    fn default() -> Self {
        Self {
            safe: Vec::new(),
            tail: VecDeque::new(),
            syncing: 0,
            written: 0,
            synced: 0,
            records: 0,
            unsynced: Vec::new(),
        }
    }
}

impl<R> Disk<R> {
    /// The records that survive a crash.
    pub(super) fn safe(&self) -> &[R] {
        &self.safe
    }

    /// Number of writes that this life has made; an effect that follows them waits for this mark.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// Number of this life's writes that are safe.
    pub(super) const fn synced(&self) -> u64 {
        self.synced
    }

    /// Number of this life's records that are safe.
    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    /// Writes one record.
    pub(super) fn append(&mut self, record: R) {
        self.tail.push_back(Write::Record(record));
        self.written += 1;
    }

    /// Writes a snapshot, to replace every record written so far.
    pub(super) fn compact(&mut self, snapshot: Vec<R>) {
        self.tail.push_back(Write::Snapshot(snapshot));
        self.written += 1;
    }

    /// Starts a sync if there is something to sync and none under way; returns whether it did.
    pub(super) fn start_sync(&mut self) -> bool {
        let starts = self.syncing == 0 && !self.tail.is_empty();
        if starts {
            self.syncing = self.tail.len();
        }
        starts
    }

    /// Ends the sync under way; returns whether it brought a record (and not just a snapshot).
    pub(super) fn finish_sync(&mut self) -> bool {
        let taken = mem::take(&mut self.syncing);
        let mut records = 0;
        for _ in 0..taken {
            records += u64::from(self.settle_first());
        }
        self.synced += taken as u64;
        self.records += records;
        records > 0
    }

    /// Loses the writes that are not safe, at the end of the process or power. Of them, `torn`
    /// keeps as many of the first as it draws. Returns the numbers of writes kept and lost.
    pub(super) fn crash(&mut self, torn: Option<&mut Rng>) -> (usize, usize) {
        let kept = torn.map_or(0, |rng| rng.random_range(0..=self.tail.len()));
        for _ in 0..kept {
            self.settle_first();
        }
        let mut lost = self.tail.len();
        self.tail.clear();
        (self.syncing, self.written, self.synced, self.records) = (0, 0, 0, 0);
        for places in mem::take(&mut self.unsynced).into_iter().rev() {
            lost += self.safe.drain(places).len();
        }
        (kept, lost)
    }

    /// Keeps all writes, at the end of a process whose system goes on: they are in its cache, and
    /// the next process syncs them when it opens the log. If it does not (`opens_unsynced`), the
    /// next crash loses them.
    pub(super) fn outlive(&mut self, opens_unsynced: bool) {
        let before = self.safe.len();
        while !self.tail.is_empty() {
            self.settle_first();
        }
        (self.syncing, self.written, self.synced, self.records) = (0, 0, 0, 0);
        if opens_unsynced && before < self.safe.len() {
            self.unsynced.push(before..self.safe.len());
        }
    }

    /// Puts other records in the place of all there are; only while no process runs.
    pub(super) fn replace(&mut self, records: Vec<R>) {
        *self = Self { safe: records, ..Self::default() };
    }

    fn settle_first(&mut self) -> bool {
        match self.tail.pop_front() {
            Some(Write::Record(record)) => {
                self.safe.push(record);
                true
            }
            Some(Write::Snapshot(records)) => {
                self.safe = records;
                self.unsynced.clear();
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn one_sync_takes_what_is_there_and_the_next_what_piled_up() {
        let mut disk = Disk::default();
        disk.append(1);
        assert!(disk.start_sync());
        disk.append(2);
        disk.append(3);
        assert!(!disk.start_sync(), "one at a time");
        assert!(disk.finish_sync());
        assert_eq!((disk.safe(), disk.synced()), (&[1][..], 1));
        assert!(disk.start_sync());
        disk.finish_sync();
        assert_eq!((disk.safe(), disk.synced()), (&[1, 2, 3][..], 3));
    }

    #[test]
    fn a_crash_keeps_what_is_safe_and_at_most_a_prefix_of_the_rest() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut disk = Disk::default();
            disk.append(1);
            disk.start_sync();
            disk.finish_sync();
            disk.append(2);
            disk.append(3);
            let (kept, lost) = disk.crash(Some(&mut Rng::seed_from_u64(seed)));
            assert_eq!(kept + lost, 2);
            assert_eq!(disk.safe(), &[1, 2, 3][..=kept]);
            seen.insert(kept);
        }
        assert_eq!(seen.len(), 3, "no, some and all of the tail");
    }

    #[test]
    fn a_kill_keeps_all_and_what_nobody_syncs_then_is_lost_in_the_next_crash() {
        for opens_unsynced in [false, true] {
            let mut disk = Disk::default();
            disk.append(1);
            disk.start_sync();
            disk.finish_sync();
            disk.append(2);
            disk.outlive(opens_unsynced);
            assert_eq!(disk.safe(), &[1, 2], "the system's cache outlives the process");
            disk.append(3);
            disk.start_sync();
            disk.finish_sync();
            disk.crash(None);
            let left: &[i32] = if opens_unsynced { &[1, 3] } else { &[1, 2, 3] };
            assert_eq!(disk.safe(), left);
        }
    }

    #[test]
    fn a_snapshot_replaces_what_was_written_before_it_and_nothing_after() {
        let mut disk = Disk::default();
        disk.append(1);
        disk.append(2);
        disk.compact(vec![12]);
        disk.append(3);
        disk.start_sync();
        disk.finish_sync();
        assert_eq!(disk.safe(), &[12, 3]);
    }
}
