//! The index of a log on disk, beside its snapshot: a start reads the log from the place on that
//! the snapshot does not cover.
//!
//! `peer_<id>.index` has a line for each snapshot, in the form of records: the slots that became
//! final since the line before, and the place from which on the log is to be read. A file that is
//! missing, damaged or of another log costs time: the log is then read whole.
//!
//! Invariant: a line is written after the snapshot that covers its slots, and after the records
//! that it names are on disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::index::{FinalSlot, SlotIndex};
use crate::machine::bft::OrderSnapshot;
use crate::proto::bft::{OrderId, SlotNo};
use crate::runtime::member_log::{LogPosition, LogStoreError, Snapshots};
use crate::runtime::records::{checked_json, push_line};

/// The slots of one snapshot behind those of the one before.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct IndexPart {
    /// Last slot that is covered.
    pub(super) slot: SlotNo,
    /// Final slots behind those of the part before.
    pub(super) finals: Vec<FinalSlot>,
    /// Those of them that change the committee.
    pub(super) changes: Vec<SlotNo>,
    /// Those of them that have certificates, and the offsets of these.
    pub(super) certificates: Vec<(SlotNo, u64)>,
    /// Place from which on the log is to be read.
    pub(super) rest: LogPosition,
    /// Offsets of the records before it that still count, ascending.
    pub(super) kept: Vec<u64>,
}

/// An index that was read, and what is still to be read of the log.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) index: SlotIndex,
    pub(super) rest: u64,
    pub(super) kept: Vec<u64>,
}

/// Path of the index of the log at `log`.
fn path_of(log: &Path) -> PathBuf {
    log.with_extension("index")
}

impl Checkpoint {
    /// Reads the index of a log of which a snapshot covers the slots up to `covered`.
    ///
    /// # Errors
    /// Fails with a reason if the index is of no use.
    pub(super) fn read(
        (path, log): (&Path, &File),
        group: OrderId,
        covered: SlotNo,
    ) -> Result<Option<Self>, String> {
        let mut lines = Vec::new();
        match File::open(path_of(path)) {
            Ok(mut file) => {
                file.read_to_end(&mut lines).map_err(|error| error.to_string())?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
        let (mut index, mut last) = (SlotIndex::new(group), None);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            // A line that a crash has torn, or that is ahead of the snapshot, is written anew.
            let Ok(json) = checked_json(line) else { break };
            let part: IndexPart =
                serde_json::from_slice(json).map_err(|error| error.to_string())?;
            if part.slot > covered {
                break;
            }
            index.add_part(&part, line.len() as u64)?;
            last = Some(part);
        }
        let Some(IndexPart { rest, kept, .. }) = last else { return Ok(None) };
        if !LogPosition::of(log, rest.bytes).is_ok_and(|it| it == rest) {
            return Err("it is of another log".to_owned());
        }
        let length = log.metadata().map_err(|error| error.to_string())?.len();
        if index.certificate_to(covered).is_none_or(|(_, at)| at >= length) {
            return Err("the log ends before it".to_owned());
        }
        Ok(Some(Self { index, rest: rest.bytes, kept }))
    }
}

/// Writer of a member's snapshots, each with the index of what it covers.
#[derive(Debug)]
pub struct OrderSnapshots {
    snapshots: Snapshots,
    log: File,
    path: PathBuf,
    index: Arc<Mutex<SlotIndex>>,
}

impl OrderSnapshots {
    pub(super) fn new(
        snapshots: Snapshots,
        (path, log): (&Path, File),
        index: Arc<Mutex<SlotIndex>>,
    ) -> Self {
        Self { snapshots, log, path: path_of(path), index }
    }

    /// Replaces the snapshot, and notes what it covers. Everything that it depends on must be on
    /// disk already.
    ///
    /// # Errors
    /// Fails if the disk refuses; the old snapshot, or the whole log, is then read at a start.
    pub fn write(&self, snapshot: &OrderSnapshot) -> Result<(), LogStoreError> {
        self.snapshots.write(snapshot)?;
        self.write_part(snapshot).map_err(LogStoreError::io("write", &self.path))
    }

    fn write_part(&self, snapshot: &OrderSnapshot) -> io::Result<()> {
        let lock = || self.index.lock().expect("nothing under this lock can panic");
        let mut index = lock();
        let Some((rest, kept)) = index.rest_behind(snapshot) else { return Ok(()) };
        let rest = LogPosition::of(&self.log, rest)?;
        let part = index.part(snapshot.slot, rest, kept);
        let (mut line, before) = (Vec::new(), index.saved_bytes());
        push_line(&part, &mut line);
        drop(index);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
        file.set_len(before)?;
        file.seek(SeekFrom::Start(before))?;
        file.write_all(&line)?;
        lock().note_saved(snapshot.slot, line.len() as u64);
        Ok(())
    }
}
