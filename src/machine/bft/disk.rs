//! Messages that wait for the disk, and what is on it (rules B8, B9).

use std::collections::BTreeSet;

use super::event::Record;
use super::replica::Fx;
use crate::machine::held::Held;
use crate::proto::bft::message::Message;
use crate::proto::bft::{ContentDigest, EpochNo, PhaseVote, SlotNo, ViewNo};

/// A message that waits for a record.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// For all members.
    ToAll(Message),
    /// This member's COMMIT, which it counts itself only when it leaves (B8).
    OwnCommit(PhaseVote),
}

/// Messages that wait for the disk, and what is on it.
#[derive(Debug, Default)]
pub(super) struct DiskState {
    held: Held<Outgoing>,
    /// Record of the newest message that waits.
    last_held: u64,
    /// Newest view that the log names, and its record in this process.
    view: Option<(EpochNo, ViewNo, u64)>,
    /// Slots behind the last final one whose contents the log has.
    contents: BTreeSet<(SlotNo, ContentDigest)>,
    /// True if the log names its group.
    knows_group: bool,
}

impl DiskState {
    /// The state of a log that was read; `view` is the newest that it names.
    pub(super) fn restored(
        view: Option<(EpochNo, ViewNo)>,
        contents: BTreeSet<(SlotNo, ContentDigest)>,
    ) -> Self {
        let view = view.map(|(epoch, view)| (epoch, view, 0));
        Self { view, contents, knows_group: true, ..Self::default() }
    }

    /// True if the log names its group.
    pub(super) const fn knows_group(&self) -> bool {
        self.knows_group
    }

    /// Writes a record; returns its number.
    pub(super) fn write(&mut self, record: Record, fx: &mut Fx) -> u64 {
        fx.persist(record);
        self.held.issue()
    }

    /// Record that promises a view, written if it is not yet (B9).
    pub(super) fn promise(&mut self, epoch: EpochNo, view: ViewNo, fx: &mut Fx) -> u64 {
        match self.view {
            Some((known, newest, record)) if (known, newest) == (epoch, view) => record,
            _ => {
                let record = self.write(Record::View { epoch, view }, fx);
                self.view = Some((epoch, view, record));
                record
            }
        }
    }

    /// True if the promise of the newest view is on disk.
    pub(super) fn is_promise_kept(&self) -> bool {
        self.view.is_some_and(|(_, _, record)| self.held.has(record))
    }

    /// Notes that the log gets the content of a slot; false if it has it.
    pub(super) fn add_content(&mut self, slot: SlotNo, digest: ContentDigest) -> bool {
        self.contents.insert((slot, digest))
    }

    /// Forgets contents of slots up to a final one.
    pub(super) fn prune(&mut self, last: SlotNo) {
        self.contents.retain(|(slot, _)| *slot > last);
    }

    /// True if a record is on disk.
    pub(super) const fn has(&self, record: u64) -> bool {
        self.held.has(record)
    }

    /// Holds a message back until a record is on disk.
    pub(super) fn hold(&mut self, record: u64, message: Outgoing) {
        self.last_held = self.last_held.max(record);
        self.held.hold(self.last_held, message);
    }

    /// Notes which records are on disk.
    pub(super) fn on_synced(&mut self, records: u64) {
        self.held.on_synced(records);
    }

    /// The next message that waits no more.
    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        self.held.pop()
    }
}
