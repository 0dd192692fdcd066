//! Index of a log: offsets of the final slots and of their certificates.
//!
//! Invariant: a slot is called final only if a certificate's digest leads to its header, over the
//! digests of the headers between. Of several contents of one slot, which views without a decision
//! leave behind, that is the one that counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checkpoint::IndexPart;
use crate::machine::bft::{OrderSnapshot, Record};
use crate::proto::bft::{ContentDigest, OrderId, SlotHeader, SlotNo, VoteSubject};
use crate::proto::chat::entry::{Origin, SeqNo};
use crate::runtime::member_log::LogPosition;

/// A final slot.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(from = "(u64, SeqNo)", into = "(u64, SeqNo)")]
pub(super) struct FinalSlot {
    /// Offset of the record of its content.
    offset: u64,
    /// Number of the last message before it.
    place: SeqNo,
}

impl From<(u64, SeqNo)> for FinalSlot {
    fn from((offset, place): (u64, SeqNo)) -> Self {
        Self { offset, place }
    }
}

impl From<FinalSlot> for (u64, SeqNo) {
    fn from(slot: FinalSlot) -> Self {
        (slot.offset, slot.place)
    }
}

/// Record of no slot and no certificate, as far as its offset may be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// It counts for ever.
    Always,
    /// A view, until the next one.
    View,
    /// Messages up to this number of a numbering, until they have places.
    Typed(Origin, u64),
}

/// Content of a slot that is not known to be final.
#[derive(Clone, Copy, Debug)]
struct OpenSlot {
    digest: ContentDigest,
    parent: ContentDigest,
    has_change: bool,
    at: FinalSlot,
}

/// Knowledge about a log without reading it: 32 bytes a slot.
#[derive(Debug)]
pub(super) struct SlotIndex {
    group: OrderId,
    /// Final slots from the first on.
    finals: Vec<FinalSlot>,
    /// Final slots that change the committee.
    changes: Vec<SlotNo>,
    /// Slots with a certificate of COMMITs, ascending, and the offsets of these.
    certificates: Vec<(SlotNo, u64)>,
    open: BTreeMap<SlotNo, Vec<OpenSlot>>,
    /// Certificates of slots whose content, or that of one before, is not there yet.
    waiting: Vec<(VoteSubject, u64)>,
    /// Offsets of the records that a start needs wherever they stand, ascending.
    kept: Vec<(u64, Kept)>,
    /// Last slot that the index on disk has, and the length of that.
    saved: (SlotNo, u64),
    /// Offset of the log's end.
    pub(super) end: u64,
}

impl SlotIndex {
    pub(super) const fn new(group: OrderId) -> Self {
        Self {
            group,
            finals: Vec::new(),
            changes: Vec::new(),
            certificates: Vec::new(),
            open: BTreeMap::new(),
            waiting: Vec::new(),
            kept: Vec::new(),
            saved: (SlotNo(0), 0),
            end: 0,
        }
    }

    /// Last final slot.
    pub(super) const fn last(&self) -> SlotNo {
        SlotNo(self.finals.len() as u64)
    }

    /// Notes that the content of a slot stands at `offset`.
    pub(super) fn add_slot(&mut self, header: &SlotHeader, offset: u64) {
        if header.slot <= self.last() {
            return;
        }
        let at = FinalSlot { offset, place: header.place };
        let (digest, parent) = (header.digest(&self.group), header.parent);
        let slot = OpenSlot { digest, parent, has_change: header.change.is_some(), at };
        self.open.entry(header.slot).or_default().push(slot);
        for (subject, offset) in std::mem::take(&mut self.waiting) {
            self.add_certificate(subject, offset);
        }
    }

    /// Notes that a certificate of COMMITs stands at `offset`.
    pub(super) fn add_certificate(&mut self, subject: VoteSubject, offset: u64) {
        if subject.slot > self.last() && !self.settle(subject) {
            self.waiting.push((subject, offset));
            return;
        }
        let at = self.certificates.partition_point(|it| it.0 < subject.slot);
        if self.certificates.get(at).is_none_or(|it| it.0 != subject.slot) {
            self.certificates.insert(at, (subject.slot, offset));
        }
    }

    /// Makes a slot final, and all before it; false if a content is missing.
    fn settle(&mut self, subject: VoteSubject) -> bool {
        let (mut digest, mut chain) = (subject.digest, Vec::new());
        for slot in (self.last().0 + 1..=subject.slot.0).rev() {
            let known = self.open.get(&SlotNo(slot)).into_iter().flatten();
            let Some(found) = known.into_iter().find(|it| it.digest == digest) else {
                return false;
            };
            digest = found.parent;
            chain.push(*found);
        }
        for found in chain.into_iter().rev() {
            self.finals.push(found.at);
            if found.has_change {
                self.changes.push(self.last());
            }
        }
        self.open = self.open.split_off(&self.last().next());
        true
    }

    /// Notes that a record stands at `offset`.
    pub(super) fn add(&mut self, record: &Record, offset: u64) {
        let kept = match record {
            Record::Slot(content) => return self.add_slot(&content.header, offset),
            Record::Final(certificate) => {
                return self.add_certificate(certificate.subject, offset);
            }
            // It stands behind its slot's content, and counts as long as that is not final.
            Record::Prepared(_) => return,
            Record::View { .. } => Kept::View,
            Record::Typed(bundle) => Kept::Typed(bundle.origin(), bundle.last()),
            Record::Group { .. }
            | Record::Hole { .. }
            | Record::Life { .. }
            | Record::Evidence(_) => Kept::Always,
        };
        self.kept.push((offset, kept));
    }

    /// Offset from which on a start with this snapshot has to read, and the offsets of the records
    /// before it that still count; `None` if the index does not cover the snapshot, or what is on
    /// disk of it does already.
    pub(super) fn rest_behind(&mut self, snapshot: &OrderSnapshot) -> Option<(u64, Vec<u64>)> {
        let slot = snapshot.slot;
        if slot > self.last() || slot <= self.saved.0 {
            return None;
        }
        let (of, certificate) = self.certificate_to(slot)?;
        let behind = usize::try_from(slot.0).ok()?;
        let finals = self.finals[behind..].iter().map(|it| it.offset);
        let open = self.open.values().flatten().map(|it| it.at.offset);
        let waiting = self.waiting.iter().map(|it| it.1);
        let offsets = finals.chain(open).chain(waiting).chain([certificate]);
        let rest = offsets.min().filter(|_| of == slot)?;
        let is_placed = |origin: &Origin, last: u64| {
            let mut marks = snapshot.marks.iter();
            marks.any(|it| it.origin() == *origin && last <= it.number)
        };
        self.kept.retain(|(_, it)| !matches!(it, Kept::Typed(of, last) if is_placed(of, *last)));
        // The newest promise before the rest counts, whatever becomes of the rest.
        let views = self.kept.iter().filter(|(at, it)| *it == Kept::View && *at < rest);
        let newest = views.map(|(at, _)| *at).max();
        self.kept.retain(|(at, it)| *it != Kept::View || *at >= rest || Some(*at) == newest);
        let kept = self.kept.iter().map(|(offset, _)| *offset);
        Some((rest, kept.take_while(|it| *it < rest).collect()))
    }

    /// The slots up to this one that are not in the index on disk.
    pub(super) fn part(&self, slot: SlotNo, rest: LogPosition, kept: Vec<u64>) -> IndexPart {
        let is_new = |it: SlotNo| it > self.saved.0 && it <= slot;
        let at = |it: SlotNo| usize::try_from(it.0).unwrap_or(usize::MAX);
        IndexPart {
            slot,
            finals: self.finals[at(self.saved.0)..at(slot)].to_vec(),
            changes: self.changes.iter().copied().filter(|it| is_new(*it)).collect(),
            certificates: self.certificates.iter().copied().filter(|it| is_new(it.0)).collect(),
            rest,
            kept,
        }
    }

    /// Adds the slots of a part of so many bytes, which was read from disk.
    pub(super) fn add_part(&mut self, part: &IndexPart, bytes: u64) -> Result<(), String> {
        self.finals.extend(&part.finals);
        self.changes.extend(&part.changes);
        self.certificates.extend(&part.certificates);
        if self.last() != part.slot {
            return Err(format!("its slots do not lead to {}", part.slot.0));
        }
        self.note_saved(part.slot, bytes);
        Ok(())
    }

    /// Notes that the index on disk has got a part of so many bytes, up to this slot.
    pub(super) fn note_saved(&mut self, slot: SlotNo, bytes: u64) {
        self.saved = (slot, self.saved.1 + bytes);
    }

    /// Length of the index on disk.
    pub(super) const fn saved_bytes(&self) -> u64 {
        self.saved.1
    }

    /// Offset of the content of a final slot.
    pub(super) fn offset(&self, slot: SlotNo) -> Option<u64> {
        let at = usize::try_from(slot.0.checked_sub(1)?).ok()?;
        Some(self.finals.get(at)?.offset)
    }

    /// Final slot that gives a message its place.
    pub(super) fn slot_of(&self, place: SeqNo) -> Option<SlotNo> {
        let after = self.finals.partition_point(|it| it.place < place);
        (after > 0).then_some(SlotNo(after as u64))
    }

    /// The first certificate of a slot at or behind this one, and its offset.
    pub(super) fn certificate_from(&self, slot: SlotNo) -> Option<(SlotNo, u64)> {
        let at = self.certificates.partition_point(|it| it.0 < slot);
        self.certificates.get(at).copied()
    }

    /// The last certificate of a slot up to this one, and its offset.
    pub(super) fn certificate_to(&self, slot: SlotNo) -> Option<(SlotNo, u64)> {
        let after = self.certificates.partition_point(|it| it.0 <= slot);
        Some(self.certificates[after.checked_sub(1)?])
    }

    /// Final slots below this one that change the committee.
    pub(super) fn changes_before(&self, slot: SlotNo) -> &[SlotNo] {
        &self.changes[..self.changes.partition_point(|it| *it < slot)]
    }

    /// The first final slot at or behind this one that changes the committee: its epoch's last.
    pub(super) fn epoch_end(&self, slot: SlotNo) -> Option<SlotNo> {
        self.changes.get(self.changes.partition_point(|it| *it < slot)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WallTime;
    use crate::proto::bft::{EpochNo, ViewNo};
    use crate::proto::chat::entry::ChainHash;

    const GROUP: OrderId = OrderId([7; 32]);

    fn header(slot: u64, parent: ContentDigest, place: u64) -> SlotHeader {
        SlotHeader {
            epoch: EpochNo(0),
            slot: SlotNo(slot),
            parent,
            time: WallTime(place),
            place: SeqNo(place),
            hash: ChainHash::default(),
            bundles: Vec::new(),
            change: None,
            committee: None,
            state: None,
        }
    }

    fn subject(header: &SlotHeader) -> VoteSubject {
        let SlotHeader { epoch, slot, .. } = *header;
        VoteSubject { epoch, view: ViewNo(0), slot, digest: header.digest(&GROUP) }
    }

    #[test]
    fn of_two_contents_the_one_counts_to_which_the_certificate_leads() {
        let mut index = SlotIndex::new(GROUP);
        let one = header(1, ContentDigest(GROUP.0), 0);
        let (wrong, right) = (header(2, one.digest(&GROUP), 9), header(2, one.digest(&GROUP), 3));
        let three = header(3, right.digest(&GROUP), 3);
        index.add_slot(&one, 10);
        index.add_slot(&right, 20);
        index.add_slot(&wrong, 30);
        assert_eq!(index.last(), SlotNo(0), "nothing is final without a certificate");
        index.add_certificate(subject(&three), 40);
        assert_eq!(index.last(), SlotNo(0), "its content is missing");
        index.add_slot(&three, 50);
        assert_eq!(index.last(), SlotNo(3));
        assert_eq!([1, 2, 3].map(|it| index.offset(SlotNo(it))), [10, 20, 50].map(Some));
        assert_eq!(index.slot_of(SeqNo(3)), Some(SlotNo(1)));
        assert_eq!(index.slot_of(SeqNo(4)), Some(SlotNo(3)));
        assert_eq!(index.certificate_from(SlotNo(1)), Some((SlotNo(3), 40)));
        assert_eq!(index.certificate_to(SlotNo(2)), None);
    }
}
