//! Reading entries out of a log, by number, while it grows or after the fact.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::LogStoreError;
use super::index::Index;
use super::replay::{parse, peek_entry, replay};
use crate::machine::chat::Record;
use crate::model::PublicKey;
use crate::proto::chat::entry::{ChainHash, Entry, GroupId, MemberId, SeqNo, Term};
use crate::runtime::member_log::walk_lines;

/// Distance of the running hashes that are remembered, in entries.
const CHAIN_ENTRIES: u64 = 1024;

/// Entries in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Term of the entry before the first; 0 before the first of all.
    pub prev_term: Term,
    /// Entries of the page.
    pub entries: Vec<Arc<Entry>>,
}

/// Reader of a log, which may be written meanwhile.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: File,
    index: Arc<Mutex<Index>>,
    /// The running hash after some entries, ascending, each [`CHAIN_ENTRIES`] after the last.
    chains: Vec<(SeqNo, ChainHash)>,
}

impl LogReader {
    pub(super) const fn new(path: PathBuf, file: File, index: Arc<Mutex<Index>>) -> Self {
        Self { path, file, index, chains: Vec::new() }
    }

    /// Number of the last entry that is on disk.
    pub fn last(&self) -> SeqNo {
        self.index.lock().expect("nothing under this lock can panic").last
    }

    /// The entries from `from` on: at most `count` with at most `bytes_max` bytes of lines, but one
    /// if there is one. None may be cut off meanwhile: ask for final ones.
    ///
    /// # Errors
    /// Fails if the disk refuses, or a line is damaged.
    pub fn page(&self, from: SeqNo, count: u64, bytes_max: usize) -> Result<Page, LogStoreError> {
        let from = from.max(SeqNo(1));
        let before = SeqNo(from.0 - 1);
        let mut page = Page::default();
        let mut bytes = 0;
        self.walk(before.max(SeqNo(1)), |entry, len| {
            if entry.seq_no == before {
                page.prev_term = entry.term;
                return true;
            }
            bytes += len;
            let is_full = page.entries.len() as u64 >= count || bytes > bytes_max;
            if is_full && (count == 0 || !page.entries.is_empty()) {
                return false;
            }
            page.entries.push(entry);
            true
        })?;
        Ok(page)
    }

    /// Running hashes after these entries, ascending, as far as the entries exist.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub fn hashes(&mut self, at: &[SeqNo]) -> Result<Vec<(SeqNo, ChainHash)>, LogStoreError> {
        let Some(last) = at.last().copied() else { return Ok(Vec::new()) };
        let first = at[0];
        let known = self.chains.partition_point(|(seq, _)| *seq <= first);
        let (start, mut chain) =
            known.checked_sub(1).map_or((SeqNo(0), ChainHash::default()), |it| self.chains[it]);
        let (mut found, mut learned) = (Vec::new(), Vec::new());
        let mut wanted = at.iter().copied().peekable();
        while wanted.next_if(|it| *it <= start).is_some_and(|it| {
            if it == start {
                found.push((it, chain));
            }
            true
        }) {}
        if last > start {
            self.walk(SeqNo(start.0 + 1), |entry, _| {
                chain = chain.after(&entry);
                if entry.seq_no.0 % CHAIN_ENTRIES == 0 {
                    learned.push((entry.seq_no, chain));
                }
                while wanted.next_if_eq(&entry.seq_no).is_some() {
                    found.push((entry.seq_no, chain));
                }
                entry.seq_no < last
            })?;
        }
        let newest = self.chains.last().map_or(SeqNo(0), |it| it.0);
        self.chains.extend(learned.into_iter().filter(|it| it.0 > newest));
        Ok(found)
    }

    /// Calls `show` with the entries that count, in order from a number on, until it returns false.
    fn walk(
        &self,
        from: SeqNo,
        mut show: impl FnMut(Arc<Entry>, usize) -> bool,
    ) -> Result<(), LogStoreError> {
        let part = {
            let index = self.index.lock().expect("nothing under this lock can panic");
            (index.floor(from), index.end)
        };
        let mut next = from;
        walk_lines((&self.path, &self.file), part, |json, offset, len| {
            if peek_entry(json) == Some(next)
                && self.counts(next, offset)
                && let Record::Entry(entry) = parse(json).map_err(|err| err.to_string())?
            {
                next.0 = next.0.saturating_add(1);
                return Ok(show(entry, len));
            }
            Ok(true)
        })
    }

    fn counts(&self, seq_no: SeqNo, offset: u64) -> bool {
        self.index.lock().expect("nothing under this lock can panic").counts(seq_no, offset)
    }
}

/// A log opened for reading only: nothing is cut, written or locked.
#[derive(Debug)]
pub struct LogFile {
    /// Group of the log, if it names one.
    pub group: Option<GroupId>,
    /// Member of the log and its key, if the log names them.
    pub whose: Option<(MemberId, PublicKey)>,
    /// Number of the last entry that the log knows to be final.
    pub commit: SeqNo,
    /// Number of the last entry.
    pub last: SeqNo,
    /// Reader of the entries.
    pub reader: LogReader,
}

impl LogFile {
    /// Reads the log at `path` from its beginning.
    ///
    /// # Errors
    /// Fails if there is no log, the disk refuses, or a line other than a torn last one is corrupt.
    pub fn open(path: &Path) -> Result<Self, LogStoreError> {
        let file = File::open(path).map_err(LogStoreError::io("open", path))?;
        let replayed = replay((path, &file), None, None)?;
        let commit = |record: &Record| match record {
            Record::Commit { seq_no } => Some(*seq_no),
            Record::Group { .. }
            | Record::Term { .. }
            | Record::Entry(_)
            | Record::Cut { .. }
            | Record::Typed(_)
            | Record::Renamed { .. }
            | Record::GivenBack { .. }
            | Record::Rewound => None,
        };
        let commit = replayed.found.records.iter().filter_map(commit).max();
        let last = replayed.index.last;
        let index = Arc::new(Mutex::new(replayed.index));
        Ok(Self {
            group: replayed.found.group,
            whose: replayed.whose,
            commit: commit.unwrap_or_default(),
            last,
            reader: LogReader::new(path.to_owned(), file, index),
        })
    }
}
