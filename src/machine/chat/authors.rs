//! The last number of each author's numbering (R9), at the last final entry.
//!
//! Invariant: a function of the final entries alone, so that all members have the same table.

use std::collections::{BTreeMap, BTreeSet};

use super::config::AUTHORS_MAX;
use super::event::AuthorMark;
use crate::proto::chat::entry::{MemberId, Membership, MsgId, Origin, SeqNo};

/// Last number of each author.
#[derive(Clone, Debug, Default)]
pub(super) struct Authors {
    last: BTreeMap<Origin, (u64, SeqNo)>,
    /// The authors by the place of their last message, to find the oldest.
    by_seq: BTreeSet<(SeqNo, Origin)>,
    /// Newest own numbering of each member.
    own: BTreeMap<MemberId, Origin>,
}

impl Authors {
    pub(super) fn restore(marks: &[AuthorMark]) -> Self {
        let mut authors = Self::default();
        for mark in marks {
            authors.put(mark.origin(), mark.number, mark.seq_no);
        }
        authors
    }

    pub(super) fn marks(&self) -> Vec<AuthorMark> {
        let mark = |(seq_no, origin): &(SeqNo, Origin)| AuthorMark {
            member: origin.member,
            client: origin.client,
            number: self.last[origin].0,
            seq_no: *seq_no,
        };
        self.by_seq.iter().map(mark).collect()
    }

    /// The last number of an author, and its place in the order.
    pub(super) fn last(&self, origin: Origin) -> Option<(u64, SeqNo)> {
        self.last.get(&origin).copied()
    }

    /// Takes a final message. The newest own numbering of a member is never forgotten: a member
    /// sends nothing by a newer one before all of the older one is final.
    pub(super) fn on_final(&mut self, id: MsgId, seq: SeqNo, group: &Membership) {
        self.put(id.origin, id.number, seq);
        if self.last.len() <= AUTHORS_MAX {
            return;
        }
        let is_kept = |it: &Origin| {
            self.own.get(&it.member) == Some(it) && group.members.iter().any(|m| m.id == it.member)
        };
        if let Some(oldest) = self.by_seq.iter().find(|(_, it)| !is_kept(it)).copied() {
            self.by_seq.remove(&oldest);
            self.last.remove(&oldest.1);
            self.own.retain(|_, it| *it != oldest.1);
        }
    }

    fn put(&mut self, origin: Origin, number: u64, seq: SeqNo) {
        if let Some((_, old)) = self.last.insert(origin, (number, seq)) {
            self.by_seq.remove(&(old, origin));
        }
        self.by_seq.insert((seq, origin));
        if origin.is_own() {
            self.own.insert(origin.member, origin);
        }
    }
}
