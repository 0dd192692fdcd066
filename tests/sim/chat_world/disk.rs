//! A disk: records in order, of which some are on the platter and all are in the system's cache.
//! A killed process loses nothing of either; a power cut leaves the platter, and perhaps a little
//! of what was on its way. Whoever opens a log has it on the platter before it believes any of it.

use std::sync::Arc;

use folkmoot::machine::chat::{Memory, Record, Snapshot, apply_typed};
use folkmoot::model::Rng;
use folkmoot::proto::chat::entry::{Chat, Entry, GroupId, SeqNo, Term};
use rand::RngExt as _;

#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) records: Vec<Record>,
    /// So many of them are on the platter.
    pub(crate) synced: usize,
    /// How many there were when this life began.
    pub(crate) before: usize,
    /// A flush is under way for so many.
    pub(crate) flushing: Option<usize>,
    /// The log that the records are.
    pub(crate) log: Vec<Arc<Entry>>,
    snapshots: Vec<Snapshot>,
    /// It is opened without a sync, to show that one is needed.
    pub(crate) opens_unsynced: bool,
}

impl Disk {
    pub(crate) fn put(&mut self, record: Record) {
        apply(&mut self.log, &record);
        self.records.push(record);
    }

    pub(crate) fn put_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshots.push(snapshot);
        if self.snapshots.len() > 2 {
            self.snapshots.remove(0);
        }
    }

    pub(crate) fn kill(&mut self) {
        self.flushing = None;
    }

    pub(crate) fn cut_power(&mut self, rng: &mut Rng) {
        self.flushing = None;
        let left = rng.random_range(self.synced..=self.records.len());
        self.records.truncate(if rng.random_bool(0.5) { self.synced } else { left });
        self.synced = self.records.len();
        self.log.clear();
        self.records.iter().for_each(|it| apply(&mut self.log, it));
        // The newest may not have got its name yet.
        if self.snapshots.len() > 1 && rng.random_bool(0.3) {
            self.snapshots.pop();
        }
    }

    /// What a restart finds: everything, or no more than it must.
    pub(crate) fn memory(&mut self, founds: bool, rng: &mut Rng) -> Memory {
        self.before = self.records.len();
        if !self.opens_unsynced {
            self.synced = self.records.len();
        }
        let snapshot = self.snapshots.last().cloned();
        let from = snapshot.as_ref().map_or(SeqNo(0), |it| it.seq_no);
        let all = rng.random_bool(0.5);
        let is_kept = |it: &&Record| match it {
            Record::Entry(entry) => all || entry.seq_no > from,
            Record::Group { .. } | Record::Term { .. } | Record::Cut { .. } => true,
            Record::Typed(_) | Record::Commit { .. } => true,
            Record::Renamed { .. } | Record::GivenBack { .. } | Record::Rewound => true,
        };
        let records: Vec<_> = self.records.iter().filter(is_kept).cloned().collect();
        Memory { founds, group: self.group(), snapshot, records }
    }

    /// What was typed, as the disk has it.
    pub(crate) fn typed(&self) -> Vec<Chat> {
        let mut typed = Vec::new();
        self.records.iter().for_each(|it| apply_typed(&mut typed, it.clone()));
        typed
    }

    /// The same disk as a copy of its files has it.
    pub(crate) fn copy(&self) -> Self {
        Self { synced: self.records.len(), flushing: None, ..self.clone() }
    }

    fn group(&self) -> Option<GroupId> {
        self.records
            .iter()
            .rev()
            .find_map(|it| if let Record::Group { group, .. } = it { Some(*group) } else { None })
    }

    /// What an `Effect::Load` gets.
    pub(crate) fn load(&self, from: SeqNo, count: usize) -> (Term, Vec<Arc<Entry>>) {
        let at = usize::try_from(from.0 - 1).expect("a short log");
        let prev_term =
            at.checked_sub(1).and_then(|it| self.log.get(it)).map_or(Term(0), |it| it.term);
        (prev_term, self.log.iter().skip(at).take(count).cloned().collect())
    }
}

fn apply(log: &mut Vec<Arc<Entry>>, record: &Record) {
    match record {
        Record::Entry(entry) => {
            assert_eq!(entry.seq_no.0, log.len() as u64 + 1, "records have no gap");
            log.push(Arc::clone(entry));
        }
        Record::Cut { from } => log.truncate(usize::try_from(from.0 - 1).expect("a short log")),
        Record::Group { .. } | Record::Term { .. } => {}
        Record::Typed(_) | Record::Commit { .. } => {}
        Record::Renamed { .. } | Record::GivenBack { .. } | Record::Rewound => {}
    }
}
