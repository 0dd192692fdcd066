//! Log and snapshot of a member: the records that it must still know after a crash, and the entries
//! of old times.
//!
//! `peer_<id>.log` has one record a line, and a mark after each sync, in the form of
//! [`crate::runtime::records`]. `peer_<id>.snapshot` is one such line, `peer_<id>.lock` excludes
//! other processes.
//!
//! Invariants:
//! - After [`Log::append`] has returned without an error, its records are read back by every later
//!   [`open`], in order, whenever the process dies.
//! - A log is read back whole, but for a last write that a crash tore, or refused with its line.
//! - Records that [`open`] returns are on disk, whichever process wrote them and however it ended.
//! - A log is only ever used by the member, with the key, that began it.
//! - The memory for a log does not grow with its messages, but for 16 bytes in every
//!   [`index::MARK_ENTRIES`].

mod error;
mod index;
mod note;
mod read;
mod replay;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use error::LogStoreError;
pub use read::{LogFile, LogReader, Page};

use self::index::Index;
use self::note::{LogPosition, Note};
use crate::machine::chat::{Record, Snapshot};
use crate::model::PublicKey;
use crate::proto::chat::entry::{GroupId, MemberId};
use crate::runtime::files::{make_dirs, replace_file, settle};
use crate::runtime::lock::LockedFile;
use crate::runtime::records::{DurableMark, MARK_BYTES, checked_json, push_line};

/// Opening of every entry's JSON, and of no other record's.
const ENTRY_OPENING: &[u8] = br#"{"record":"entry","#;

/// Buffers above this size are given back after use.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// Content of a log that a restart begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogContent {
    /// The group, if this member is in one; the last one that the log names (C14).
    pub group: Option<GroupId>,
    /// The newest snapshot that is intact.
    pub snapshot: Option<Snapshot>,
    /// True if the log must not be used any more: it ends before the last entry that its member had
    /// acknowledged.
    pub is_rewound: bool,
    /// Records after the snapshot's place; of terms only the newest, of typed texts all that the
    /// snapshot does not have, wherever they stand.
    pub records: Vec<Record>,
}

/// Result of [`open`].
#[derive(Debug)]
pub struct OpenedLog {
    /// The log, to be continued.
    pub log: Log,
    /// Content of the log.
    pub found: LogContent,
    /// Notes for the user: a torn end that was cut, a snapshot that was of no use.
    pub notes: Vec<String>,
}

/// A log that is written to.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// Offset of the next line.
    bytes: u64,
    /// End of the last record on which other members may rely: any but a text that was typed here.
    bound: u64,
    index: Arc<Mutex<Index>>,
    lines: Vec<u8>,
    snapshots: Snapshots,
    /// File, away from the log, that notes that there is one, and how far it has come.
    marker: Option<PathBuf>,
    note: Option<Note>,
    /// Held open for its lock, which the system releases even after a crash.
    _lock: LockedFile,
}

/// Opens the log of a member in `dir`, which is made if it is missing, or begins an empty one.
///
/// # Errors
/// Fails if another process has it open, if it is another member's or damaged, or if the disk
/// refuses.
pub fn open(dir: &Path, me: MemberId, key: PublicKey) -> Result<OpenedLog, LogStoreError> {
    let path = dir.join(format!("peer_{}.log", me.0));
    make_dirs(dir, 0o777).map_err(LogStoreError::io("create", dir))?;
    let lock = lock(&dir.join(format!("peer_{}.lock", me.0)), dir)?;
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(LogStoreError::io("open", &path))?;
    let snapshots = Snapshots { path: dir.join(format!("peer_{}.snapshot", me.0)) };
    let mut notes = Vec::new();
    let snapshot = snapshots.read().unwrap_or_else(|reason| {
        let shown = snapshots.path.display();
        notes.push(format!("{shown} is of no use ({reason}); the whole log is read instead"));
        None
    });
    let replayed = replay::replay(&path, &file, snapshot, Some((me, key)))?;
    if replayed.found.is_rewound {
        let reason = "a leader noticed that it ends before what had been acknowledged".to_owned();
        return Err(LogStoreError::Rewound { path, reason, me });
    }
    if let Some(torn) = &replayed.torn {
        file.set_len(replayed.bytes).map_err(LogStoreError::io("cut the torn end of", &path))?;
        notes.extend(torn.notes(&path));
    }
    settle(&path, &file).map_err(LogStoreError::io("sync", &path))?;
    let mut log = Log {
        path,
        file,
        bytes: replayed.bytes,
        bound: replayed.bound,
        index: Arc::new(Mutex::new(replayed.index)),
        lines: Vec::new(),
        snapshots,
        marker: None,
        note: None,
        _lock: lock,
    };
    if !replayed.ends_marked {
        log.mark()?;
    }
    Ok(OpenedLog { log, found: replayed.found, notes })
}

fn lock(path: &Path, dir: &Path) -> Result<LockedFile, LogStoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(LogStoreError::io("open", path))?;
    LockedFile::lock(file).map_err(|error| match error {
        TryLockError::WouldBlock => LogStoreError::Locked { dir: dir.into() },
        TryLockError::Error(source) => LogStoreError::io("lock", path)(source),
    })
}

impl OpenedLog {
    /// Notes in the file `marker` that this member has a log, and how far it has come, as soon as
    /// it is one of a group: before it promises or acknowledges anything.
    ///
    /// # Errors
    /// Fails if there was a log, by the marker, and it is gone or ends before that place, or if the
    /// disk refuses.
    pub fn mark(&mut self, marker: &Path, me: MemberId) -> Result<(), LogStoreError> {
        let path = self.log.path.clone();
        let known = Note::read(marker).map_err(LogStoreError::io("read", marker))?;
        if self.found.group.is_none() && known.is_some() {
            return Err(LogStoreError::Forgotten { path, marker: marker.into(), me });
        }
        if let Some(had) = known.flatten() {
            let has = self.log.bytes;
            let is_there = has >= had.bytes
                && LogPosition::of(&self.log.file, had.bytes)
                    .map_err(LogStoreError::io("read", &path))?
                    == had;
            if !is_there {
                let reason = format!(
                    "it has {has} bytes and does not hold what stood before byte {}, which was \
                     acknowledged, as {} says; it was cut, or replaced by a copy",
                    had.bytes,
                    marker.display()
                );
                return Err(LogStoreError::Rewound { path, reason, me });
            }
        }
        self.log.marker = Some(marker.into());
        if self.found.group.is_some() {
            self.log.write_marker()?;
        }
        Ok(())
    }
}

impl Log {
    fn write_marker(&mut self) -> Result<(), LogStoreError> {
        let Some(marker) = &self.marker else { return Ok(()) };
        let place = self.place()?;
        let note = Note::create(marker, &self.path, place);
        self.note = Some(note.map_err(LogStoreError::io("write", marker))?);
        Ok(())
    }

    /// End of the records on which other members rely.
    fn place(&self) -> Result<LogPosition, LogStoreError> {
        LogPosition::of(&self.file, self.bound).map_err(LogStoreError::io("read", &self.path))
    }

    /// Writes records at the end, all at once, waits until the disk has them, and concludes.
    ///
    /// # Errors
    /// Fails if the disk refuses. The log must not be used again: the state of the disk is then
    /// unknown.
    pub fn append(&mut self, records: &[Record]) -> Result<(), LogStoreError> {
        self.write(records)?;
        self.conclude()
    }

    /// Marks that the last write is on disk, and notes away from the log how far it has come.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn conclude(&mut self) -> Result<(), LogStoreError> {
        self.mark()?;
        let Some(note) = &self.note else { return Ok(()) };
        note.write(self.place()?).map_err(LogStoreError::io("write", note.path()))
    }

    /// Writes records at the end, all at once, and waits until the disk has them. To be followed by
    /// [`Self::conclude`], which need not be waited for: neither of its writes is synced, and a
    /// process that dies in between leaves a mark and a note that are one write behind.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn write(&mut self, records: &[Record]) -> Result<(), LogStoreError> {
        self.lines.clear();
        self.lines.shrink_to(KEPT_BYTES_MAX);
        let (mut places, mut bound) = (Vec::with_capacity(records.len()), self.bound);
        let mut marked = 0;
        for record in records {
            if self.lines.len() > marked + MARK_BYTES {
                marked = self.lines.len();
                let at = self.bytes + marked as u64;
                let mark = DurableMark { synced: self.bytes, bound: self.bound, at };
                push_line(&mark, &mut self.lines);
            }
            places.push(self.bytes + self.lines.len() as u64);
            push_line(record, &mut self.lines);
            if is_bound(record) {
                bound = self.bytes + self.lines.len() as u64;
            }
        }
        self.file.write_all(&self.lines).map_err(LogStoreError::io("write", &self.path))?;
        self.file.sync_data().map_err(LogStoreError::io("sync", &self.path))?;
        self.bytes += self.lines.len() as u64;
        self.bound = bound;
        if records.iter().any(|it| matches!(it, Record::Group { .. })) {
            self.write_marker()?;
        }
        let mut index = self.index.lock().expect("nothing under this lock can panic");
        for (record, offset) in records.iter().zip(places) {
            match record {
                Record::Entry(entry) => index.entry(entry.seq_no, offset),
                Record::Cut { from } => index.cut(*from, offset),
                Record::Group { .. }
                | Record::Term { .. }
                | Record::Typed(_)
                | Record::Renamed { .. }
                | Record::GivenBack { .. }
                | Record::Rewound
                | Record::Commit { .. } => {}
            }
        }
        index.end = self.bytes;
        Ok(())
    }

    /// Writes a mark that everything so far is on disk. The mark gets there with the next write: if
    /// it is lost, nothing else is.
    fn mark(&mut self) -> Result<(), LogStoreError> {
        self.lines.clear();
        let (at, bound) = (self.bytes, self.bound);
        push_line(&DurableMark { synced: at, bound, at }, &mut self.lines);
        self.file.write_all(&self.lines).map_err(LogStoreError::io("write", &self.path))?;
        self.bytes += self.lines.len() as u64;
        Ok(())
    }

    /// Opens a reader of this log, beside its writer.
    ///
    /// # Errors
    /// Fails if the log cannot be opened a second time.
    pub fn reader(&self) -> Result<LogReader, LogStoreError> {
        let file = File::open(&self.path).map_err(LogStoreError::io("open", &self.path))?;
        Ok(LogReader::new(self.path.clone(), file, Arc::clone(&self.index)))
    }

    /// Writer of this member's snapshots.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }
}

/// Writer of the snapshots of one member.
#[derive(Clone, Debug)]
pub struct Snapshots {
    path: PathBuf,
}

impl Snapshots {
    /// Replaces the snapshot. Everything that it depends on must be on disk already.
    ///
    /// # Errors
    /// Fails if the disk refuses; the old one is then still there.
    pub fn write(&self, snapshot: &Snapshot) -> Result<(), LogStoreError> {
        let mut line = Vec::new();
        push_line(snapshot, &mut line);
        replace_file(&self.path, &line).map_err(LogStoreError::io("write", &self.path))
    }

    /// The snapshot, if there is one.
    fn read(&self) -> Result<Option<Snapshot>, String> {
        let mut line = Vec::new();
        match File::open(&self.path) {
            Ok(mut file) => settle(&self.path, &file)
                .and_then(|()| file.read_to_end(&mut line))
                .map_err(|err| err.to_string())?,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err.to_string()),
        };
        let json = checked_json(&line)?;
        serde_json::from_slice(json).map(Some).map_err(|err| err.to_string())
    }
}

/// True if other members may rely on a record: on all but texts that were typed here and have no
/// number yet.
fn is_bound(record: &Record) -> bool {
    match record {
        Record::Typed(_) | Record::Renamed { .. } | Record::GivenBack { .. } => false,
        Record::Group { .. }
        | Record::Rewound
        | Record::Term { .. }
        | Record::Entry(_)
        | Record::Cut { .. }
        | Record::Commit { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyPair;
    use crate::runtime::files::settling;

    #[test]
    fn what_was_read_is_on_disk_before_it_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (me, key) = (MemberId(2), KeyPair::from_secret([1; 32]).public());
        let marker = dir.path().join("has-a-log");
        let mut opened = open(dir.path(), me, key).unwrap();
        opened.mark(&marker, me).unwrap();
        let group = GroupId([7; 16]);
        opened.log.append(&[Record::Group { group, me, key }]).unwrap();
        std::fs::write(dir.path().join("peer_2.snapshot"), "damaged").unwrap();
        drop(opened);
        let reopen =
            || open(dir.path(), me, key).and_then(|mut it| it.mark(&marker, me).map(|()| it));
        let (opened, seen) = settling::during(false, reopen);
        assert_eq!(opened.unwrap().found.group, Some(group));
        // The marker is not only synced, but written anew.
        let expected = ["peer_2.snapshot", "peer_2.log"];
        assert_eq!(seen, expected.map(|it| dir.path().join(it)));
        let error = settling::during(true, reopen).0.unwrap_err().to_string();
        assert!(error.contains("cannot sync") && error.contains("peer_2.log"), "{error}");
    }
}
