//! State of the disk, as far as the machine was told, and the messages that wait for it (R7).

use std::collections::VecDeque;

use crate::machine::LinkId;
use crate::proto::chat::entry::SeqNo;
use crate::proto::chat::message::Message;

/// Records of this life, and the messages held until they are on disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    issued: u64,
    synced: u64,
    /// Entries on their way: number of the record, and of the entry.
    entries: VecDeque<(u64, SeqNo)>,
    /// Number up to which the log is on disk.
    stored: SeqNo,
    /// Messages that may be sent once a record is on disk.
    held: VecDeque<(u64, LinkId, Message)>,
}

impl Disk {
    pub(super) fn restore(stored: SeqNo) -> Self {
        Self { stored, ..Self::default() }
    }

    /// Counts a record that was handed over. Returns its number.
    pub(super) const fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    pub(super) fn on_entry(&mut self, seq: SeqNo) {
        self.entries.push_back((self.issued, seq));
    }

    pub(super) fn on_cut(&mut self, from: SeqNo) {
        self.entries.retain(|(_, seq)| *seq < from);
        self.stored = self.stored.min(SeqNo(from.0 - 1));
    }

    pub(super) const fn issued(&self) -> u64 {
        self.issued
    }

    pub(super) const fn stored(&self) -> SeqNo {
        self.stored
    }

    pub(super) const fn has(&self, record: u64) -> bool {
        record <= self.synced
    }

    pub(super) fn hold(&mut self, record: u64, link: LinkId, msg: Message) {
        self.held.push_back((record, link, msg));
    }

    /// Notes that `records` records are on disk. Returns the messages that may be sent now.
    pub(super) fn on_synced(&mut self, records: u64) -> Vec<(LinkId, Message)> {
        self.synced = self.synced.max(records.min(self.issued));
        while let Some((record, seq)) = self.entries.front().copied() {
            if record > self.synced {
                break;
            }
            self.stored = seq;
            self.entries.pop_front();
        }
        let mut free = Vec::new();
        while self.held.front().is_some_and(|(record, ..)| *record <= self.synced) {
            free.extend(self.held.pop_front().map(|(_, link, msg)| (link, msg)));
        }
        free
    }
}
