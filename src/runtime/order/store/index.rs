//! Index of a log: offsets of the final slots and of their certificates.
//!
//! Invariant: a slot is called final only if a certificate's digest leads to its header, over the
//! digests of the headers between. Of several contents of one slot, which views without a decision
//! leave behind, that is the one that counts.

use std::collections::BTreeMap;

use crate::proto::bft::{ContentDigest, OrderId, SlotHeader, SlotNo, VoteSubject};
use crate::proto::chat::entry::SeqNo;

/// A final slot.
#[derive(Clone, Copy, Debug)]
struct FinalSlot {
    /// Offset of the record of its content.
    offset: u64,
    /// Number of the last message before it.
    place: SeqNo,
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
