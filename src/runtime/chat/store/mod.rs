//! Log and snapshot of a member: the records that it must still know after a crash, and the entries
//! of old times.
//!
//! The files are those of [`crate::runtime::member_log`].
//!
//! Invariants:
//! - After [`Log::append`] has returned without an error, its records are read back by every later
//!   [`open`], in order, whenever the process dies.
//! - A log is read back whole, but for a last write that a crash tore, or refused with its line.
//! - Records that [`open`] returns are on disk, whichever process wrote them and however it ended.
//! - A log is only ever used by the member, with the key, that began it.
//! - The memory for a log does not grow with its messages, but for 16 bytes in every
//!   [`index::MARK_ENTRIES`].

mod index;
mod read;
mod replay;

use std::path::Path;
use std::sync::{Arc, Mutex};

pub use crate::runtime::member_log::{LogStoreError, Snapshots};
pub use read::{LogFile, LogReader, Page};

use self::index::Index;
use crate::machine::chat::{Record, Snapshot};
use crate::model::PublicKey;
use crate::proto::chat::entry::{GroupId, MemberId};
use crate::runtime::member_log::{LogFiles, Note, RecordFile};

/// Opening of every entry's JSON, and of no other record's.
const ENTRY_OPENING: &[u8] = br#"{"record":"entry","#;

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
    file: RecordFile,
    index: Arc<Mutex<Index>>,
    snapshots: Snapshots,
}

/// Opens the log of a member in `dir`, which is made if it is missing, or begins an empty one.
///
/// # Errors
/// Fails if another process has it open, if it is another member's or damaged, or if the disk
/// refuses.
pub fn open(dir: &Path, me: MemberId, key: PublicKey) -> Result<OpenedLog, LogStoreError> {
    let files = LogFiles::open(dir, me)?;
    let mut notes = Vec::new();
    let snapshot = files.snapshot(&mut notes);
    let replayed = replay::replay((&files.path, &files.file), snapshot, Some((me, key)))?;
    if replayed.found.is_rewound {
        let reason = "a leader noticed that it ends before what had been acknowledged".to_owned();
        return Err(LogStoreError::Rewound { path: files.path, reason, remedy: anew(me) });
    }
    notes.extend(replayed.torn_notes(&files.path));
    let snapshots = files.snapshots.clone();
    let file = RecordFile::resume(files, &replayed.form)?;
    let log = Log { file, index: Arc::new(Mutex::new(replayed.index)), snapshots };
    Ok(OpenedLog { log, found: replayed.found, notes })
}

impl OpenedLog {
    /// Notes in the file `marker` that this member has a log, and how far it has come, as soon as
    /// it is one of a group: before it promises or acknowledges anything.
    ///
    /// # Errors
    /// Fails if there was a log, by the marker, and it is gone or ends before that place, or if the
    /// disk refuses.
    pub fn mark(&mut self, marker: &Path, me: MemberId) -> Result<(), LogStoreError> {
        let path = self.log.file.path().to_owned();
        let known = Note::read(marker).map_err(LogStoreError::io("read", marker))?;
        if self.found.group.is_none() && known.is_some() {
            let (marker, remedy) = (marker.into(), anew(me));
            return Err(LogStoreError::Forgotten { path, marker, remedy });
        }
        if let Some(had) = known.flatten()
            && !self.log.file.has(had)?
        {
            let reason = format!(
                "it has {} bytes and does not hold what stood before byte {}, which was \
                 acknowledged, as {} says; it was cut, or replaced by a copy",
                self.log.file.bytes(),
                had.bytes,
                marker.display()
            );
            return Err(LogStoreError::Rewound { path, reason, remedy: anew(me) });
        }
        self.log.file.set_marker(marker);
        if self.found.group.is_some() {
            self.log.file.write_marker()?;
        }
        Ok(())
    }
}

impl Log {
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
        self.file.conclude()
    }

    /// Writes records at the end, all at once, and waits until the disk has them. To be followed by
    /// [`Self::conclude`], which need not be waited for: neither of its writes is synced, and a
    /// process that dies in between leaves a mark and a note that are one write behind.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn write(&mut self, records: &[Record]) -> Result<(), LogStoreError> {
        let places = self.file.write(records, is_bound)?;
        if records.iter().any(|it| matches!(it, Record::Group { .. })) {
            self.file.write_marker()?;
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
        index.end = self.file.bytes();
        Ok(())
    }

    /// Opens a reader of this log, beside its writer.
    ///
    /// # Errors
    /// Fails if the log cannot be opened a second time.
    pub fn reader(&self) -> Result<LogReader, LogStoreError> {
        let (path, file) = (self.file.path().to_owned(), self.file.open_again()?);
        Ok(LogReader::new(path, file, Arc::clone(&self.index)))
    }

    /// Writer of this member's snapshots.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }
}

/// Remedy for a log that does not hold the records its member has promised. An older copy of the
/// log is none: messages that were confirmed could be lost by it.
fn anew(me: MemberId) -> String {
    format!(
        "an older copy is no remedy, for it lacks what {me} has acknowledged. Have another member \
         remove {me} (peer chat remove {}; where no majority runs without it: peer chat recover \
         --i-know), then start it anew with --seed and a fresh --data and --log-dir; it gets all \
         messages from the others",
        me.0
    )
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
