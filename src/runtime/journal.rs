//! The append-only journal: the records that a node must still know after a crash.
//!
//! One record a line, and a mark after each sync, in the form of [`super::records`].
//!
//! Invariants:
//! - After [`Journal::sync`] has returned without an error, every record appended before is read
//!   back by the next [`Journal::open`], in order.
//! - A journal is either read back whole, but for a last write that a crash tore, or refused.
//! - Records that [`Journal::open`] returns are on disk, whichever process wrote them and however
//!   it ended.
//! - A rewrite replaces all records at once or not at all, whenever the process dies.
//!
//! One process at a time: the caller holds the lock of the data directory. After an error from the
//! disk the journal must be thrown away: the state of the disk is then unknown.

use std::error::Error;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files::{parent, settle, sync_dir};
use super::records::{
    DurableMark, MARK_BYTES, checked_json, judge, lines_from, push_line, read_line,
};

/// A journal below this size in bytes is never worth a rewrite.
pub const REWRITE_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Records in their form on disk, collected without access to the disk.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    /// Appends a record to the batch.
    pub fn push<R: Serialize>(&mut self, record: &R) {
        push_line(record, &mut self.bytes);
    }

    /// True if there are no records.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets all records.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// The end of a journal that a crash cut short; its record was never confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The number of the line that was removed, counted from 1.
    pub line: usize,
    /// Number of bytes that were removed.
    pub bytes: u64,
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} was torn by a crash; its {} bytes were cut off", self.line, self.bytes)
    }
}

/// Reason why a journal cannot be used.
#[derive(Debug)]
pub enum JournalError {
    /// The disk refused.
    Io {
        /// Action that failed, as an infinitive.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A line other than a torn last one is damaged.
    Corrupt {
        /// Path of the journal.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// Description of the damage.
        reason: String,
    },
    /// A line is intact, and not a record of this version.
    Newer {
        /// Path of the journal.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// Description of the unknown part.
        reason: String,
    },
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
            Self::Corrupt { path, line, reason } => write!(
                f,
                "{} is corrupt at line {line}: {reason}; an older copy is no remedy, for it lacks \
                 what this node has said since. Move it away: the node then starts as a new one, \
                 and learns from the others",
                path.display()
            ),
            Self::Newer { path, line, reason } => write!(
                f,
                "{} has at line {line} a record that this version does not know ({reason}): a \
                 newer version has written it. Start that version here",
                path.display()
            ),
        }
    }
}

impl Error for JournalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Corrupt { .. } | Self::Newer { .. } => None,
        }
    }
}

/// Result of [`Journal::open`]: the journal, its records, and the end that a crash cut short.
pub type OpenedJournal<R> = (Journal<R>, Vec<R>, Option<TornTail>);

/// An open journal of records `R`.
#[derive(Debug)]
pub struct Journal<R> {
    path: PathBuf,
    file: File,
    lines: Lines,
    bytes: u64,
    bytes_at_rewrite: u64,
    records: PhantomData<fn() -> R>,
}

impl<R: Serialize + DeserializeOwned> Journal<R> {
    /// Opens the journal at `path`, or creates an empty one, and reads all its records.
    ///
    /// # Errors
    ///
    /// Fails if the disk refuses, a line other than a torn last one is corrupt, or a newer version
    /// has written one: a node that would silently forget must not start.
    pub fn open(path: &Path) -> Result<OpenedJournal<R>, JournalError> {
        let io = |action| move |source| JournalError::Io { action, path: path.into(), source };
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(io("open"))?;
        let found = replay(path, &file)?;
        if found.torn.is_some() {
            file.set_len(found.bytes).map_err(io("cut the torn end of"))?;
        }
        settle(path, &file).map_err(io("sync"))?;
        let mut journal = Self {
            path: path.into(),
            file,
            lines: Lines::default(),
            bytes: found.bytes,
            bytes_at_rewrite: 0,
            records: PhantomData,
        };
        if !found.ends_marked {
            journal.mark().map_err(io("write"))?;
        }
        Ok((journal, found.records, found.torn))
    }

    /// Opens the journal at `path` in such a way that every write to it fails.
    #[cfg(test)]
    pub(super) fn open_broken(path: &Path) -> Self {
        let (mut journal, ..) = Self::open(path).unwrap();
        journal.file = File::open(path).unwrap();
        journal
    }

    /// Appends `record`; it is safe only after [`Self::sync`].
    pub fn append(&mut self, record: &R) {
        self.lines.push(record);
    }

    /// Appends records collected elsewhere and leaves `lines` empty, with its memory.
    pub fn append_lines(&mut self, lines: &mut Lines) {
        self.lines.bytes.append(&mut lines.bytes);
    }

    /// Writes everything appended and waits until the disk has it.
    ///
    /// # Errors
    ///
    /// Fails if the disk refuses. The journal must not be used again.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        let (synced, len) = (self.bytes, self.lines.bytes.len());
        if len > MARK_BYTES {
            let mark = DurableMark { synced, bound: synced, at: synced + len as u64 };
            push_line(&mark, &mut self.lines.bytes);
        }
        self.file.write_all(&self.lines.bytes).map_err(|err| self.io("write", err))?;
        self.file.sync_data().map_err(|err| self.io("sync", err))?;
        self.bytes += self.lines.bytes.len() as u64;
        self.lines.clear();
        self.mark().map_err(|err| self.io("write", err))
    }

    /// Writes a mark that everything so far is on disk. The mark gets there with the next write: if
    /// it is lost, nothing else is.
    fn mark(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        let at = self.bytes;
        push_line(&DurableMark { synced: at, bound: at, at }, &mut line);
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// True if a rewrite would pay: past [`REWRITE_BYTES_MIN`] and twice the last rewrite's size.
    pub fn wants_rewrite(&self) -> bool {
        self.bytes > REWRITE_BYTES_MIN && self.bytes / 2 > self.bytes_at_rewrite
    }

    /// Replaces the whole history by `records`, including those appended and not yet synced.
    /// Returns false if the new file cannot be made, for want of room or of a descriptor say: then
    /// the journal stays as it is, and wants no rewrite before it is twice as large.
    ///
    /// # Errors
    ///
    /// Fails if the disk refuses. The journal must not be used again.
    pub fn rewrite(&mut self, records: &[R]) -> Result<bool, JournalError> {
        let mut lines = Lines::default();
        for record in records {
            lines.push(record);
        }
        let draft = self.path.with_extension("new");
        let written = match Self::write_draft(&draft, &lines) {
            Ok(file) => file,
            Err(err) => {
                let path = self.path.display();
                log::warn!("cannot rewrite {path}: {err}; it stays as it is, and grows");
                // The unfinished draft would only take room.
                let _ = std::fs::remove_file(&draft);
                self.bytes_at_rewrite = self.bytes;
                return Ok(false);
            }
        };
        std::fs::rename(&draft, &self.path).map_err(|err| self.io("rewrite", err))?;
        sync_dir(parent(&self.path)).map_err(|err| self.io("rewrite", err))?;
        self.file = written;
        self.bytes = lines.bytes.len() as u64;
        self.bytes_at_rewrite = self.bytes;
        self.lines.clear();
        self.mark().map_err(|err| self.io("write", err))?;
        Ok(true)
    }

    fn write_draft(draft: &Path, lines: &Lines) -> io::Result<File> {
        // A draft left by a crash is worth nothing; `append` and `truncate` exclude each other.
        if draft.exists() {
            std::fs::remove_file(draft)?;
        }
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(draft)?;
        file.write_all(&lines.bytes)?;
        file.sync_all()?;
        Ok(file)
    }

    fn io(&self, action: &'static str, source: io::Error) -> JournalError {
        JournalError::Io { action, path: self.path.clone(), source }
    }
}

struct Replayed<R> {
    records: Vec<R>,
    /// Length of the intact part, in bytes.
    bytes: u64,
    torn: Option<TornTail>,
    /// True if the last line is a mark.
    ends_marked: bool,
}

fn replay<R: DeserializeOwned>(path: &Path, file: &File) -> Result<Replayed<R>, JournalError> {
    let corrupt = |line, reason| JournalError::Corrupt { path: path.into(), line, reason };
    let read_error = |source| JournalError::Io { action: "read", path: path.into(), source };
    let mut reader = lines_from(file, 0).map_err(read_error)?;
    let mut found = Replayed { records: Vec::new(), bytes: 0, torn: None, ends_marked: false };
    let (mut line, mut has_marks) = (Vec::new(), false);
    for number in 1.. {
        let bytes = read_line(&mut reader, &mut line).map_err(read_error)?;
        if bytes == 0 {
            break;
        }
        match checked_json(&line) {
            Ok(json) => {
                found.ends_marked = DurableMark::parse(json).is_some();
                has_marks |= found.ends_marked;
                if !found.ends_marked {
                    // The bytes are those once written, so a crash is no excuse, even on the last
                    // line.
                    let newer = |err: serde_json::Error| JournalError::Newer {
                        path: path.into(),
                        line: number,
                        reason: err.to_string(),
                    };
                    found.records.push(serde_json::from_slice(json).map_err(newer)?);
                }
                found.bytes += bytes;
            }
            Err(reason) => {
                let rest = judge(file, found.bytes, has_marks).map_err(read_error)?;
                if !rest.is_torn {
                    return Err(corrupt(number, reason.into()));
                }
                found.ends_marked = false;
                found.torn = Some(TornTail { line: number, bytes: rest.bytes });
                break;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::runtime::files::settling;

    type Record = (u32, String);

    fn record(number: u32) -> Record {
        (number, format!("record {number}"))
    }

    fn records(count: u32) -> Vec<Record> {
        (0..count).map(record).collect()
    }

    /// A directory, and in it a journal of `count` records.
    fn journal_of(count: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.log");
        let (mut journal, found, torn) = Journal::<Record>::open(&path).unwrap();
        assert_eq!((found.len(), torn), (0, None));
        for record in records(count) {
            journal.append(&record);
        }
        journal.sync().unwrap();
        (dir, path)
    }

    fn reopen(path: &Path) -> (Vec<Record>, Option<TornTail>) {
        let (_, found, torn) = Journal::open(path).unwrap();
        (found, torn)
    }

    #[test]
    fn what_was_synced_is_read_back_in_order() {
        let (_dir, path) = journal_of(3);
        assert_eq!(reopen(&path), (records(3), None));
        let first = fs::read_to_string(&path).unwrap().lines().nth(1).unwrap().to_owned();
        let (checksum, json) = first.split_once(' ').unwrap();
        assert_eq!(json, r#"[0,"record 0"]"#);
        assert_eq!(checksum, format!("{:08x}", crc32fast::hash(json.as_bytes())));
    }

    #[test]
    fn what_was_not_synced_is_not_on_disk() {
        let (_dir, path) = journal_of(1);
        let (mut journal, ..) = Journal::open(&path).unwrap();
        journal.append(&record(1));
        drop(journal);
        assert_eq!(reopen(&path), (records(1), None));
    }

    /// Offsets at which the lines of a journal begin, and its end.
    fn starts(bytes: &[u8]) -> Vec<usize> {
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
    }

    #[test]
    fn a_last_line_torn_anywhere_is_cut_and_reported_once() {
        let (_dir, path) = journal_of(3);
        let whole = fs::read(&path).unwrap();
        // Its lines are a mark, three records and another mark.
        let (start, end_max) = (starts(&whole)[3], starts(&whole)[4]);
        for end in start + 1..end_max {
            fs::write(&path, &whole[..end]).unwrap();
            let torn = TornTail { line: 4, bytes: (end - start) as u64 };
            assert_eq!(reopen(&path), (records(2), Some(torn)));
            assert_eq!(reopen(&path), (records(2), None));
        }
    }

    #[test]
    fn a_last_write_with_a_hole_is_cut_and_one_that_was_confirmed_is_refused() {
        let (_dir, path) = journal_of(3);
        let whole = fs::read(&path).unwrap();
        let at = starts(&whole);
        for hole in [at[1]..at[1] + 3, at[1]..at[2] + 7, at[2] + 5..at[3] + 5] {
            let (mut confirmed, first) = (whole.clone(), 1 + usize::from(hole.start > at[2]));
            confirmed[hole].fill(0);
            fs::write(&path, &confirmed).unwrap();
            let text = Journal::<Record>::open(&path).unwrap_err().to_string();
            assert!(text.contains(&format!("line {}", first + 1)), "{text}");
            assert_eq!(fs::read(&path).unwrap(), confirmed, "it is left as it is");
            // Without the mark after it nothing proves that the write was ever finished.
            let torn = &confirmed[..at[4]];
            fs::write(&path, torn).unwrap();
            let bytes = (at[4] - at[first]) as u64;
            let found = (records(first as u32 - 1), Some(TornTail { line: first + 1, bytes }));
            assert_eq!(reopen(&path), found);
        }
    }

    #[test]
    fn a_flipped_bit_in_the_last_record_is_refused_once_it_was_confirmed() {
        let (_dir, path) = journal_of(3);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[starts(&whole)[4] - 4] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let text = Journal::<Record>::open(&path).unwrap_err().to_string();
        assert!(text.contains("line 4: its checksum is wrong"), "{text}");
    }

    #[test]
    fn a_journal_of_an_older_program_is_cut_only_in_its_last_line() {
        let (_dir, path) = journal_of(0);
        let mut lines = Lines::default();
        records(3).iter().for_each(|it| lines.push(it));
        let at = starts(&lines.bytes);
        for (line, is_torn) in [false, false, true].into_iter().enumerate() {
            let mut bytes = lines.bytes.clone();
            bytes[at[line] + 12] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let opened = Journal::<Record>::open(&path);
            assert_eq!(opened.is_ok(), is_torn, "line {line}");
        }
        fs::write(&path, &lines.bytes).unwrap();
        assert_eq!(reopen(&path), (records(3), None));
    }

    #[test]
    fn what_was_read_is_on_disk_before_it_is_believed() {
        let (_dir, path) = journal_of(3);
        let (found, seen) = settling::during(false, || reopen(&path));
        assert_eq!((found, seen), ((records(3), None), vec![path.clone()]));
        let (refused, _) = settling::during(true, || Journal::<Record>::open(&path));
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("cannot sync") && text.contains("the disk refuses"), "{text}");
    }

    #[test]
    fn after_a_cut_the_journal_goes_on() {
        let (_dir, path) = journal_of(2);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"0123").unwrap();
        let (mut journal, _, torn) = Journal::open(&path).unwrap();
        assert!(torn.is_some());
        journal.append(&record(2));
        journal.sync().unwrap();
        assert_eq!(reopen(&path), (records(3), None));
    }

    #[test]
    fn a_corrupt_line_in_the_middle_is_refused_by_file_and_number() {
        let (_dir, path) = journal_of(3);
        let whole = fs::read(&path).unwrap();
        let second = starts(&whole)[1];
        for at in second..second + 12 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let text = Journal::<Record>::open(&path).unwrap_err().to_string();
            assert!(text.contains("journal.log") && text.contains("line 2"), "{text}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "a refused journal is left untouched");
        }
    }

    #[test]
    fn an_intact_line_of_another_shape_is_refused_even_at_the_end() {
        let (_dir, path) = journal_of(1);
        let mut lines = Lines::default();
        lines.push(&"another program's record");
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&lines.bytes).unwrap();
        let text = Journal::<Record>::open(&path).unwrap_err().to_string();
        assert!(text.contains("at line 4 a record that this version does not know"), "{text}");
    }

    #[test]
    fn a_rewrite_replaces_the_history_and_the_journal_goes_on() {
        let (_dir, path) = journal_of(9);
        fs::write(path.with_extension("new"), "left by a crash").unwrap();
        let (mut journal, ..) = Journal::open(&path).unwrap();
        journal.append(&record(77));
        journal.rewrite(&records(2)).unwrap();
        journal.append(&record(2));
        journal.sync().unwrap();
        assert_eq!(reopen(&path), (records(3), None));
        assert!(!path.with_extension("new").exists());
    }

    #[test]
    fn a_rewrite_for_which_there_is_no_room_leaves_the_journal_as_it_is() {
        let (_dir, path) = journal_of(9);
        // A folder in the draft's place: as with a full disk, no file can be made there.
        fs::create_dir(path.with_extension("new")).unwrap();
        let (mut journal, ..) = Journal::open(&path).unwrap();
        journal.append(&record(9));
        assert!(!journal.rewrite(&records(2)).unwrap());
        journal.sync().unwrap();
        drop(journal);
        let (_, found, torn) = Journal::<Record>::open(&path).unwrap();
        assert_eq!((found, torn), (records(10), None));
    }

    #[test]
    fn a_rewrite_is_wanted_past_the_minimum_and_twice_the_last_size() {
        let (_dir, path) = journal_of(0);
        let (mut journal, ..) = Journal::<Record>::open(&path).unwrap();
        let big = (0, "x".repeat(1024 * 1024));
        for _ in 0..4 {
            assert!(!journal.wants_rewrite());
            journal.append(&big);
            journal.sync().unwrap();
        }
        assert!(journal.wants_rewrite());
        journal.rewrite(&[big.clone(), big.clone(), big.clone()]).unwrap();
        for _ in 0..3 {
            assert!(!journal.wants_rewrite());
            journal.append(&big);
            journal.sync().unwrap();
        }
        journal.append(&big);
        journal.sync().unwrap();
        assert!(journal.wants_rewrite());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent").join("journal.log");
        let text = Journal::<Record>::open(&path).unwrap_err().to_string();
        assert!(text.contains("absent"), "{text}");
    }
}
