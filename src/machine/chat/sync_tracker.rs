//! State of the disk, as far as the machine was told, and the messages that wait for it (R7).

use std::collections::VecDeque;

use super::window::LogWindow;
use crate::machine::LinkId;
use crate::machine::held::Held;
use crate::proto::chat::entry::SeqNo;
use crate::proto::chat::message::Message;

/// Records of this life, and the messages held until they are on disk.
#[derive(Debug, Default)]
pub(super) struct SyncTracker {
    /// Messages that may be sent once a record is on disk, and the count of the records.
    held: Held<(LinkId, Message)>,
    /// Entries on their way: number of the record, and of the entry.
    entries: VecDeque<(u64, SeqNo)>,
    /// Number up to which the log is on disk.
    stored: SeqNo,
    /// Commit that the log says.
    commit_kept: SeqNo,
    /// Place of the newest snapshot.
    snapshot_at: SeqNo,
}

impl SyncTracker {
    pub(super) fn restore(log: &LogWindow, snapshot_at: SeqNo) -> Self {
        let (stored, commit_kept) = (log.last().seq, log.commit());
        Self { stored, commit_kept, snapshot_at, ..Self::default() }
    }

    /// Counts a record that was handed over. Returns its number.
    pub(super) const fn issue(&mut self) -> u64 {
        self.held.issue()
    }

    pub(super) fn on_entry(&mut self, seq: SeqNo) {
        self.entries.push_back((self.held.issued(), seq));
    }

    pub(super) fn on_cut(&mut self, from: SeqNo) {
        self.entries.retain(|(_, seq)| *seq < from);
        self.stored = self.stored.min(SeqNo(from.0 - 1));
    }

    pub(super) const fn issued(&self) -> u64 {
        self.held.issued()
    }

    pub(super) const fn stored(&self) -> SeqNo {
        self.stored
    }

    pub(super) const fn has(&self, record: u64) -> bool {
        self.held.has(record)
    }

    pub(super) fn hold(&mut self, record: u64, link: LinkId, msg: Message) {
        self.held.hold(record, (link, msg));
    }

    /// Notes that `records` records are on disk.
    pub(super) fn on_synced(&mut self, records: u64) {
        self.held.on_synced(records);
        while let Some((record, seq)) = self.entries.front().copied() {
            if !self.held.has(record) {
                break;
            }
            self.stored = seq;
            self.entries.pop_front();
        }
    }

    /// Notes the commit that is written now. Returns false if it need not be: it is known, or the
    /// disk has not got all entries up to there.
    pub(super) fn keep_commit(&mut self, commit: SeqNo) -> bool {
        let is_due = commit > self.commit_kept && self.stored >= commit;
        if is_due {
            self.commit_kept = commit;
        }
        is_due
    }

    /// True if a snapshot is due, and the disk has all entries that it stands for.
    pub(super) fn is_snapshot_due(&self, commit: SeqNo, every: u64) -> bool {
        commit.0 >= self.snapshot_at.0.saturating_add(every) && self.stored >= commit
    }

    /// Notes the place of a snapshot.
    pub(super) const fn on_snapshot(&mut self, at: SeqNo) {
        self.snapshot_at = at;
    }

    /// Takes the next message that may be sent now.
    pub(super) fn pop(&mut self) -> Option<(LinkId, Message)> {
        self.held.pop()
    }
}
