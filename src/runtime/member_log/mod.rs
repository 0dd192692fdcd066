//! Log of one member of a group: what chats and Byzantine orders have in common.
//!
//! `peer_<id>.log` has one record a line, and a mark after each sync, in the form of
//! [`crate::runtime::records`]. `peer_<id>.snapshot` is one such line, `peer_<id>.lock` excludes
//! other processes. The meaning of the records is the user's.
//!
//! Invariants:
//! - A write is on disk when [`RecordFile::write`] returns.
//! - A log is read back whole, but for a last write that a crash tore, or refused with its line.
//! - Records that were read are on disk, whichever process wrote them and however it ended.

mod error;
pub(in crate::runtime) mod jobs;
mod note;
mod read;
mod replay;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::LogStoreError;
pub(in crate::runtime) use note::{LogPosition, Note};
pub(in crate::runtime) use read::walk_lines;
pub(in crate::runtime) use replay::{RecordFault, Replayed, replay, replay_from};

use crate::proto::chat::entry::MemberId;
use crate::runtime::files::{make_dirs, replace_file, settle};
use crate::runtime::lock::LockedFile;
use crate::runtime::records::{DurableMark, MARK_BYTES, checked_json, push_line};

/// Buffers above this size are given back after use.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// Files of a log that are open and locked, before they were read.
#[derive(Debug)]
pub(in crate::runtime) struct LogFiles {
    pub(in crate::runtime) path: PathBuf,
    pub(in crate::runtime) file: File,
    pub(in crate::runtime) snapshots: Snapshots,
    lock: LockedFile,
}

impl LogFiles {
    /// Opens the files of a member in `dir`; makes what is missing.
    pub(in crate::runtime) fn open(dir: &Path, me: MemberId) -> Result<Self, LogStoreError> {
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
        Ok(Self { path, file, snapshots, lock })
    }

    /// The newest snapshot, if it is intact; otherwise a note says that it is of no use.
    pub(in crate::runtime) fn snapshot<T: DeserializeOwned>(
        &self,
        notes: &mut Vec<String>,
    ) -> Option<T> {
        self.snapshots.read().unwrap_or_else(|reason| {
            let shown = self.snapshots.path.display();
            notes.push(format!("{shown} is of no use ({reason}); the whole log is read instead"));
            None
        })
    }
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

/// The file of a log that is written to.
#[derive(Debug)]
pub(in crate::runtime) struct RecordFile {
    path: PathBuf,
    file: File,
    /// Offset of the next line.
    bytes: u64,
    /// End of the last record on which other members may rely.
    bound: u64,
    lines: Vec<u8>,
    /// File, away from the log, that notes that there is one, and how far it has come.
    marker: Option<PathBuf>,
    note: Option<Note>,
    /// Held open for its lock, which the system releases even after a crash.
    _lock: LockedFile,
}

impl RecordFile {
    /// Continues a log that was read: a torn end is cut off.
    pub(in crate::runtime) fn resume(
        files: LogFiles,
        read: &Replayed,
    ) -> Result<Self, LogStoreError> {
        let LogFiles { path, file, lock, .. } = files;
        if read.torn.is_some() {
            file.set_len(read.bytes).map_err(LogStoreError::io("cut the torn end of", &path))?;
        }
        settle(&path, &file).map_err(LogStoreError::io("sync", &path))?;
        let mut log = Self {
            path,
            file,
            bytes: read.bytes,
            bound: read.bound,
            lines: Vec::new(),
            marker: None,
            note: None,
            _lock: lock,
        };
        if !read.ends_marked {
            log.mark()?;
        }
        Ok(log)
    }

    pub(in crate::runtime) fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the log.
    pub(in crate::runtime) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True if the log holds what stood before a place.
    pub(in crate::runtime) fn has(&self, place: LogPosition) -> Result<bool, LogStoreError> {
        let read = LogStoreError::io("read", &self.path);
        Ok(self.bytes >= place.bytes
            && LogPosition::of(&self.file, place.bytes).map_err(read)? == place)
    }

    /// Names the file that notes how far the log has come.
    pub(in crate::runtime) fn set_marker(&mut self, marker: &Path) {
        self.marker = Some(marker.into());
    }

    /// Notes away from the log, if that is wanted, that there is one.
    pub(in crate::runtime) fn write_marker(&mut self) -> Result<(), LogStoreError> {
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

    /// Writes records at the end, all at once, and waits until the disk has them; returns the
    /// offsets of their lines. To be followed by [`Self::conclude`], which need not be waited for:
    /// neither of its writes is synced, and a process that dies in between leaves a mark and a note
    /// that are one write behind.
    ///
    /// # Errors
    /// Fails if the disk refuses. The log must not be used again: the state of the disk is then
    /// unknown.
    pub(in crate::runtime) fn write<R: Serialize>(
        &mut self,
        records: &[R],
        is_bound: impl Fn(&R) -> bool,
    ) -> Result<Vec<u64>, LogStoreError> {
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
        Ok(places)
    }

    /// Marks that the last write is on disk, and notes away from the log how far it has come.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(in crate::runtime) fn conclude(&mut self) -> Result<(), LogStoreError> {
        self.mark()?;
        let Some(note) = &self.note else { return Ok(()) };
        note.write(self.place()?).map_err(LogStoreError::io("write", note.path()))
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

    /// Opens the log a second time, to be read while it is written.
    ///
    /// # Errors
    /// Fails if it cannot be opened.
    pub(in crate::runtime) fn open_again(&self) -> Result<File, LogStoreError> {
        File::open(&self.path).map_err(LogStoreError::io("open", &self.path))
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
    pub fn write(&self, snapshot: &impl Serialize) -> Result<(), LogStoreError> {
        let mut line = Vec::new();
        push_line(snapshot, &mut line);
        replace_file(&self.path, &line).map_err(LogStoreError::io("write", &self.path))
    }

    /// The snapshot, if there is one.
    fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, String> {
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
