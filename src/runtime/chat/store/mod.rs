//! A member's log and snapshot: what it must still know after a crash, and what it shows of old
//! times.
//!
//! `peer_<id>.log` has one record a line: the CRC-32 of its JSON as eight hexadecimal digits, a
//! space, the JSON. `peer_<id>.snapshot` is one such line, `peer_<id>.lock` keeps others away.
//!
//! Invariants:
//! - After [`Log::append`] has returned without an error, its records are read back by every later
//!   [`open`], in order, whenever the process dies.
//! - A log is read back whole, but for a last line that a crash tore, or refused with its line.
//! - A log is only ever used by the member, with the key, that began it.
//! - What is kept in memory of a log does not grow with its messages, but for 16 bytes in every
//!   [`index::MARK_ENTRIES`].

mod error;
mod index;
mod read;
mod replay;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use error::StoreError;
pub use read::{LogFile, LogReader, Page};

use self::index::Index;
use crate::model::PublicKey;
use crate::protocol::chat::{GroupId, MemberId, Record, Snapshot};
use crate::runtime::files::{replace_file, sync_dir};
use crate::runtime::lock::LockedFile;

/// Eight hexadecimal digits and a space.
const PREFIX_BYTES: usize = 9;

/// How every entry's JSON opens, and no other record's.
const ENTRY_OPENING: &[u8] = br#"{"record":"entry","#;

/// Buffers above this size are given back after use.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// What a log holds that a restart begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The group, if this member is in one.
    pub group: Option<GroupId>,
    /// The newest snapshot that holds.
    pub snapshot: Option<Snapshot>,
    /// The records after the snapshot's place; of terms only the newest, of what was typed all that
    /// the snapshot does not have, wherever they stand.
    pub records: Vec<Record>,
}

/// What [`open`] gives.
#[derive(Debug)]
pub struct Opened {
    /// The log, to be continued.
    pub log: Log,
    /// What was in it.
    pub found: Found,
    /// What its user should know: a torn end that was cut, a snapshot that was of no use.
    pub notes: Vec<String>,
}

/// A log that is written to.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// Where the next line begins.
    bytes: u64,
    index: Arc<Mutex<Index>>,
    lines: Vec<u8>,
    snapshots: Snapshots,
    /// Where it is noted, away from the log, that there is one.
    marker: Option<PathBuf>,
    _lock: LockedFile,
}

/// Opens the log of a member in `dir`, which is made where it is missing, or begins an empty one.
///
/// # Errors
/// When another process has it open, when it is somebody else's or damaged, or the disk refuses.
pub fn open(dir: &Path, me: MemberId, key: PublicKey) -> Result<Opened, StoreError> {
    let path = dir.join(format!("peer_{}.log", me.0));
    std::fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
    let lock = lock(&dir.join(format!("peer_{}.lock", me.0)), dir)?;
    let is_new = !path.exists();
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    if is_new {
        sync_dir(dir).map_err(StoreError::io("create a file in", dir))?;
    }
    let snapshots = Snapshots { path: dir.join(format!("peer_{}.snapshot", me.0)) };
    let mut notes = Vec::new();
    let snapshot = snapshots.read().unwrap_or_else(|reason| {
        let shown = snapshots.path.display();
        notes.push(format!("{shown} is of no use ({reason}); the whole log is read instead"));
        None
    });
    let replayed = replay::replay(&path, &file, snapshot, Some((me, key)))?;
    if let Some((line, bytes)) = replayed.torn {
        file.set_len(replayed.bytes).map_err(StoreError::io("cut the torn end of", &path))?;
        file.sync_all().map_err(StoreError::io("sync", &path))?;
        notes.push(format!(
            "{}: line {line} was torn by a crash; its {bytes} bytes were cut off",
            path.display()
        ));
    }
    let log = Log {
        path,
        file,
        bytes: replayed.bytes,
        index: Arc::new(Mutex::new(replayed.index)),
        lines: Vec::new(),
        snapshots,
        marker: None,
        _lock: lock,
    };
    Ok(Opened { log, found: replayed.found, notes })
}

fn lock(path: &Path, dir: &Path) -> Result<LockedFile, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("open", path))?;
    LockedFile::lock(file).map_err(|error| match error {
        TryLockError::WouldBlock => StoreError::Locked { dir: dir.into() },
        TryLockError::Error(source) => StoreError::io("lock", path)(source),
    })
}

impl Opened {
    /// Notes in the file `marker` that this member has a log, as soon as it is one of a group:
    /// before it promises or acknowledges anything.
    ///
    /// # Errors
    /// When there was a log, by the marker, and it is gone; when the disk refuses.
    pub fn mark(&mut self, marker: &Path) -> Result<(), StoreError> {
        if self.found.group.is_none() && marker.exists() {
            let (path, marker) = (self.log.path.clone(), marker.into());
            return Err(StoreError::Forgotten { path, marker });
        }
        self.log.marker = Some(marker.into());
        if self.found.group.is_some() && !marker.exists() {
            self.log.write_marker()?;
        }
        Ok(())
    }
}

impl Log {
    fn write_marker(&self) -> Result<(), StoreError> {
        let Some(marker) = &self.marker else { return Ok(()) };
        let text = format!("{}\n", self.path.display());
        replace_file(marker, text.as_bytes()).map_err(StoreError::io("write", marker))
    }

    /// Writes records at the end, all at once, and waits until the disk has them.
    ///
    /// # Errors
    /// When the disk refuses. The log must not be used again: what is on the disk is then unknown.
    pub fn append(&mut self, records: &[Record]) -> Result<(), StoreError> {
        self.lines.clear();
        self.lines.shrink_to(KEPT_BYTES_MAX);
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            places.push(self.bytes + self.lines.len() as u64);
            push_line(record, &mut self.lines);
        }
        self.file.write_all(&self.lines).map_err(StoreError::io("write", &self.path))?;
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
        self.bytes += self.lines.len() as u64;
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
                | Record::Commit { .. } => {}
            }
        }
        index.end = self.bytes;
        Ok(())
    }

    /// Reads this log beside whoever writes it.
    ///
    /// # Errors
    /// When it cannot be opened a second time.
    pub fn reader(&self) -> Result<LogReader, StoreError> {
        let file = File::open(&self.path).map_err(StoreError::io("open", &self.path))?;
        Ok(LogReader::new(self.path.clone(), file, Arc::clone(&self.index)))
    }

    /// Where snapshots go.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }
}

/// Where the snapshots of one member go.
#[derive(Clone, Debug)]
pub struct Snapshots {
    path: PathBuf,
}

impl Snapshots {
    /// Replaces the snapshot. Everything that it rests on is on disk already.
    ///
    /// # Errors
    /// When the disk refuses; the old one is then still there.
    pub fn write(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let mut line = Vec::new();
        push_line(snapshot, &mut line);
        replace_file(&self.path, &line).map_err(StoreError::io("write", &self.path))
    }

    /// The snapshot, if there is one.
    fn read(&self) -> Result<Option<Snapshot>, String> {
        let line = match std::fs::read(&self.path) {
            Ok(line) => line,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err.to_string()),
        };
        let json = checked_json(&line)?;
        serde_json::from_slice(json).map(Some).map_err(|err| err.to_string())
    }
}

/// Appends the line of a record.
fn push_line(record: &impl serde::Serialize, lines: &mut Vec<u8>) {
    let start = lines.len();
    lines.extend_from_slice(b"00000000 ");
    serde_json::to_writer(&mut *lines, record)
        .expect("records are plain data with text keys, which always have a JSON form");
    let checksum = crc32fast::hash(&lines[start + PREFIX_BYTES..]).to_be_bytes();
    hex::encode_to_slice(checksum, &mut lines[start..start + PREFIX_BYTES - 1])
        .expect("there are two digits a byte");
    lines.push(b'\n');
}

/// The JSON of a line whose checksum holds.
fn checked_json(line: &[u8]) -> Result<&[u8], &'static str> {
    let text = line.strip_suffix(b"\n").ok_or("it has no newline")?;
    let (prefix, json) = text.split_at_checked(PREFIX_BYTES).ok_or("it has no checksum")?;
    let mut expected = [0; 4];
    let digits = prefix.strip_suffix(b" ").ok_or("it has no checksum")?;
    hex::decode_to_slice(digits, &mut expected).map_err(|_| "it has no checksum")?;
    let is_right = crc32fast::hash(json) == u32::from_be_bytes(expected);
    if is_right { Ok(json) } else { Err("its checksum is wrong") }
}
