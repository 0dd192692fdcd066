//! Log and snapshot of a member of a Byzantine order: the records that it must still know after a
//! crash, and the slots of old times.
//!
//! The files are those of [`crate::runtime::member_log`]. A torn end is cut off, which is safe:
//! what follows it was never said (B8, B9). A log that is gone or older than its marker says is
//! no error: the member is silent until its life is renewed (B20).
//!
//! A start with a snapshot reads the log from the place on that the snapshot's index names, and the
//! records before it that still count.
//!
//! Invariant: records behind the snapshot are given to the machine, and of those that it covers all
//! but slots and certificates.

mod checkpoint;
mod index;
mod read;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use checkpoint::OrderSnapshots;
pub use read::{SlotPage, SlotReader, entries_of};

use self::checkpoint::Checkpoint;
use self::index::SlotIndex;
use self::read::{SLOT_OPENING, SlotHead};
use crate::machine::bft::{OrderMemory, OrderSnapshot, Record};
use crate::proto::bft::{OrderId, SlotNo};
use crate::proto::chat::entry::MemberId;
use crate::runtime::member_log::{
    LogFiles, LogStoreError, Note, RecordFault, RecordFile, Snapshots, replay_from, walk_lines,
};

/// Remedy for a log that does not hold what its member has signed.
const REMEDY: &str = "move its log, snapshot and lock away, and start it with --restored: it gets \
                      everything from the other members, and votes again once they have renewed it";

/// Result of [`open`].
#[derive(Debug)]
pub struct OpenedOrderLog {
    /// The log, to be continued.
    pub log: OrderLog,
    /// State that the machine begins with.
    pub memory: OrderMemory,
    /// Notes for the user: a torn end that was cut, a snapshot that was of no use.
    pub notes: Vec<String>,
}

/// A log that is written to.
#[derive(Debug)]
pub struct OrderLog {
    file: RecordFile,
    index: Arc<Mutex<SlotIndex>>,
    snapshots: Snapshots,
}

/// Opens the log of a member of a group in `dir`, which is made if it is missing, or begins an
/// empty one.
///
/// # Errors
/// Fails if another process has it open, if it is another member's, another group's or damaged, or
/// if the disk refuses.
pub fn open(dir: &Path, me: MemberId, group: OrderId) -> Result<OpenedOrderLog, LogStoreError> {
    let files = LogFiles::open(dir, me)?;
    let mut notes = Vec::new();
    let mut reading = Reading::new(files.snapshot(&mut notes), me, group);
    let log = (&*files.path, &files.file);
    let from = match reading.begin(log) {
        Ok(from) => from,
        Err(reason) => {
            let shown = files.path.with_extension("index");
            notes.push(format!(
                "{} is of no use ({reason}); the whole log is read instead",
                shown.display()
            ));
            reading = Reading::new(reading.snapshot, me, group);
            0
        }
    };
    let form = replay_from(log, from, Some(REMEDY), |json, offset| reading.take(json, offset))?;
    notes.extend(form.torn.as_ref().map(|it| it.note(&files.path)));
    reading.index.end = form.bytes;
    if let Some(reason) = reading.fault() {
        let (path, remedy) = (files.path, REMEDY.to_owned());
        return Err(LogStoreError::Rewound { path, reason, remedy });
    }
    let snapshots = files.snapshots.clone();
    let file = RecordFile::resume(files, &form)?;
    let Reading { snapshot, records, index, .. } = reading;
    let memory = OrderMemory { snapshot: snapshot.map(Box::new), records, is_lost: None };
    let log = OrderLog { file, index: Arc::new(Mutex::new(index)), snapshots };
    Ok(OpenedOrderLog { log, memory, notes })
}

/// Path of the marker of one group: a key may have signed in several.
#[must_use]
pub fn marker_of(marker: &Path, group: &OrderId) -> PathBuf {
    let mut path = marker.as_os_str().to_owned();
    path.push(format!("-{}", &group.to_string()[..16]));
    path.into()
}

impl OpenedOrderLog {
    /// Notes in the marker, a file away from the log, that this key has signed in this group, and
    /// how far the log has come. If that is noted already, and the log is not there or ends before,
    /// what the member has signed is lost (B20).
    ///
    /// # Errors
    /// Fails if the disk refuses.
    pub fn mark(&mut self, marker: &Path) -> Result<(), LogStoreError> {
        let shown = marker.display();
        let known = Note::read(marker).map_err(LogStoreError::io("read", marker))?;
        let is_new = self.memory.records.is_empty();
        self.log.file.set_marker(marker);
        if is_new && known.is_some() {
            let reason = format!("its log is gone, though its key has signed before, says {shown}");
            self.memory.is_lost = Some(reason);
        } else if let Some(had) = known.flatten()
            && !self.log.file.has(had)?
        {
            let reason = format!(
                "its log has {} bytes and does not hold what stood before byte {}, says {shown}: \
                 it was cut, or replaced by a copy",
                self.log.file.bytes(),
                had.bytes
            );
            self.memory.is_lost = Some(reason);
        } else if !is_new {
            self.log.file.write_marker()?;
        }
        Ok(())
    }
}

impl OrderLog {
    /// Writes records at the end, all at once, and waits until the disk has them. To be followed by
    /// [`Self::conclude`], which need not be waited for.
    ///
    /// # Errors
    /// Fails if the disk refuses. The log must not be used again: the state of the disk is then
    /// unknown.
    pub fn write(&mut self, records: &[Record]) -> Result<(), LogStoreError> {
        let places = self.file.write(records, is_bound)?;
        // A loss is noted in the log before the marker forgets it.
        if records.iter().any(|it| matches!(it, Record::Group { .. } | Record::Hole { .. })) {
            self.file.write_marker()?;
        }
        let mut index = self.index.lock().expect("nothing under this lock can panic");
        // A certificate may lead to a slot at once, which is then read.
        index.end = self.file.bytes();
        for (record, offset) in records.iter().zip(places) {
            index.add(record, offset);
        }
        Ok(())
    }

    /// Marks that the last write is on disk, and notes away from the log how far it has come.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn conclude(&mut self) -> Result<(), LogStoreError> {
        self.file.conclude()
    }

    /// Opens a reader of this log, beside its writer.
    ///
    /// # Errors
    /// Fails if the log cannot be opened a second time.
    pub fn reader(&self) -> Result<SlotReader, LogStoreError> {
        let (path, file) = (self.file.path().to_owned(), self.file.open_again()?);
        Ok(SlotReader::new(path, file, Arc::clone(&self.index)))
    }

    /// Writer of this member's snapshots.
    ///
    /// # Errors
    /// As [`Self::reader`].
    pub fn snapshots(&self) -> Result<OrderSnapshots, LogStoreError> {
        let log = (self.file.path(), self.file.open_again()?);
        Ok(OrderSnapshots::new(self.snapshots.clone(), log, Arc::clone(&self.index)))
    }
}

/// True if other members may rely on a record: on all but texts that were typed here and have no
/// place yet.
const fn is_bound(record: &Record) -> bool {
    !matches!(record, Record::Typed(_))
}

/// State of the reading so far.
struct Reading {
    me: MemberId,
    group: OrderId,
    snapshot: Option<OrderSnapshot>,
    /// Last slot that the snapshot covers.
    covered: SlotNo,
    records: Vec<Record>,
    index: SlotIndex,
}

impl Reading {
    fn new(snapshot: Option<OrderSnapshot>, me: MemberId, group: OrderId) -> Self {
        let covered = snapshot.as_ref().map_or(SlotNo(0), |it| it.slot);
        let (records, index) = (Vec::new(), SlotIndex::new(group));
        Self { me, group, snapshot, covered, records, index }
    }

    /// Takes what the snapshot's index says of the log; returns the offset from which on the log is
    /// to be read.
    fn begin(&mut self, (path, file): (&Path, &File)) -> Result<u64, String> {
        let found = Checkpoint::read((path, file), self.group, self.covered)?;
        let Some(Checkpoint { index, rest, kept }) = found else { return Ok(0) };
        self.index = index;
        for offset in kept {
            walk_lines((path, file), (offset, rest), |json, offset, _| {
                let taken = self.take(json, offset);
                taken.map(|_| false).map_err(|_| "it names a record that is none".to_owned())
            })
            .map_err(|error| error.to_string())?;
        }
        Ok(rest)
    }

    fn take(&mut self, json: &[u8], offset: u64) -> Result<bool, RecordFault> {
        let newer = |err: serde_json::Error| RecordFault::Newer(err.to_string());
        if json.starts_with(SLOT_OPENING) {
            let SlotHead { header } = serde_json::from_slice(json).map_err(newer)?;
            self.index.add_slot(&header, offset);
            if header.slot > self.covered {
                let content = serde_json::from_slice(json).map_err(newer)?;
                self.records.push(Record::Slot(Arc::new(content)));
            }
            return self.follows_group().map(|()| true);
        }
        let record = serde_json::from_slice(json).map_err(newer)?;
        self.index.add(&record, offset);
        let is_covered = match &record {
            Record::Group { committee, salt, me } => {
                let group = committee.order_id(salt);
                if (*me, group) != (self.me, self.group) {
                    return Err(RecordFault::Foreign(format!("{me} in the group {group}")));
                }
                !self.records.is_empty()
            }
            Record::Final(certificate) | Record::Prepared(certificate) => {
                certificate.subject.slot <= self.covered
            }
            Record::Slot(content) => content.header.slot <= self.covered,
            Record::Typed(bundle) => self.is_placed(bundle.author, bundle.client, bundle.last()),
            Record::View { .. }
            | Record::Hole { .. }
            | Record::Life { .. }
            | Record::Evidence(_) => false,
        };
        let is_bound = is_bound(&record);
        if !is_covered {
            self.records.push(record);
        }
        self.follows_group().map(|()| is_bound)
    }

    fn follows_group(&self) -> Result<(), RecordFault> {
        if matches!(self.records.first(), Some(Record::Group { .. })) {
            return Ok(());
        }
        Err(RecordFault::Corrupt("it names no group before it".to_owned()))
    }

    /// True if the snapshot has a place for this message of an author.
    fn is_placed(&self, author: MemberId, client: u64, number: u64) -> bool {
        let mut marks = self.snapshot.iter().flat_map(|it| &it.marks);
        marks.any(|it| (it.member, it.client) == (author, client) && number <= it.number)
    }

    /// Reason why the log is older than its snapshot, if it is.
    fn fault(&self) -> Option<String> {
        let last = self.index.last();
        (last < self.covered).then(|| {
            let (last, covered) = (last.0, self.covered.0);
            format!("it ends with slot {last}, before its snapshot, which was made at {covered}")
        })
    }
}
