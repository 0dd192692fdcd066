//! Index of a log: offsets of some entries, from which the others are found.
//!
//! Invariant: marks are only of entries that count, ascending by number and by offset.

use crate::proto::chat::entry::SeqNo;

/// Distance of marks, in entries. Fewer marks make the beginning of a range slower to find.
pub(super) const MARK_ENTRIES: u64 = 256;

/// Knowledge about a log without reading it.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Numbers of some entries, and the offsets of their lines.
    marks: Vec<(SeqNo, u64)>,
    /// Numbers from which entries were cut off, and the offsets of the cuts: both ascending,
    /// because a later cut that goes further back makes the earlier one needless.
    cuts: Vec<(SeqNo, u64)>,
    /// Number of the last entry that counts.
    pub(super) last: SeqNo,
    /// Offset of the log's end.
    pub(super) end: u64,
}

impl Index {
    /// Notes that an entry begins at `offset`.
    pub(super) fn entry(&mut self, seq_no: SeqNo, offset: u64) {
        let is_due = self.marks.last().is_none_or(|(seq, _)| seq_no.0 >= seq.0 + MARK_ENTRIES);
        if is_due {
            self.marks.push((seq_no, offset));
        }
        self.last = seq_no;
    }

    /// Notes that entries before `offset` do not count from number `from` on.
    pub(super) fn cut(&mut self, from: SeqNo, offset: u64) {
        let keep = self.marks.partition_point(|(seq, _)| *seq < from);
        self.marks.truncate(keep);
        let keep = self.cuts.partition_point(|(seq, _)| *seq < from);
        self.cuts.truncate(keep);
        self.cuts.push((from, offset));
        self.last = self.last.min(SeqNo(from.0.saturating_sub(1)));
    }

    /// Offset at or before that of the entry that counts for a number.
    pub(super) fn floor(&self, seq_no: SeqNo) -> u64 {
        let after = self.marks.partition_point(|(seq, _)| *seq <= seq_no);
        after.checked_sub(1).map_or(0, |at| self.marks[at].1)
    }

    /// True if the entry with this number at this offset still counts.
    pub(super) fn counts(&self, seq_no: SeqNo, offset: u64) -> bool {
        let next = self.cuts.partition_point(|(_, at)| *at <= offset);
        self.cuts.get(next).is_none_or(|(from, _)| seq_no < *from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_does_not_count_and_what_came_after_does() {
        let mut index = Index::default();
        for seq in 1..=1_000 {
            index.entry(SeqNo(seq), seq * 10);
        }
        assert_eq!(index.floor(SeqNo(1)), 10);
        assert_eq!(index.floor(SeqNo(600)), 5_130, "of entry 513");
        index.cut(SeqNo(900), 20_000);
        index.entry(SeqNo(900), 20_010);
        index.cut(SeqNo(500), 30_000);
        assert_eq!(index.last, SeqNo(499));
        index.entry(SeqNo(500), 30_010);
        assert!(index.counts(SeqNo(499), 4_990) && !index.counts(SeqNo(500), 5_000));
        assert!(!index.counts(SeqNo(900), 9_000) && !index.counts(SeqNo(900), 20_010));
        assert!(index.counts(SeqNo(500), 30_010));
        assert_eq!(index.cuts.len(), 1);
        assert_eq!(index.floor(SeqNo(499)), 2_570);
        assert_eq!(index.floor(SeqNo(600)), 2_570, "the marks of what was cut are gone");
    }
}
