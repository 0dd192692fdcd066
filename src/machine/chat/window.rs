//! The part of the log that is in memory: all entries not final, and a bounded part before them.
//!
//! Invariants:
//! - Numbers have no gap; the running hash of each entry is known.
//! - No final entry is ever cut.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::authors::Authors;
use super::config::Config;
use super::event::Snapshot;
use crate::proto::chat::entry::{
    Body, ChainHash, ChatText, Entry, Membership, MsgId, Origin, SeqNo, Term,
};

/// Place, term and hash of an entry, without its content.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EntryMark {
    pub(super) seq: SeqNo,
    pub(super) term: Term,
    pub(super) chain: ChainHash,
}

impl EntryMark {
    /// Term and place, by which two logs are compared (R3).
    pub(super) const fn place(&self) -> (Term, SeqNo) {
        (self.term, self.seq)
    }
}

#[derive(Clone, Debug)]
struct Slot {
    entry: Arc<Entry>,
    chain: ChainHash,
    bytes: usize,
}

/// The log, as far as it is in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct LogWindow {
    /// The entry before the first slot.
    base: EntryMark,
    slots: VecDeque<Slot>,
    /// Bytes of text of the final slots, and of those that are not final.
    final_bytes: usize,
    waiting_bytes: usize,
    commit: SeqNo,
    /// Memberships, ascending; the first is the one at the last final entry.
    memberships: VecDeque<(SeqNo, Arc<Membership>)>,
    authors: Authors,
    /// Last numbers of authors in the entries that are not final.
    tail: BTreeMap<Origin, u64>,
}

/// Upper bound of an entry's encoded text, in bytes.
pub(super) fn text_bytes(entry: &Entry) -> usize {
    const FIELDS: usize = 256;
    const MEMBER: usize = 176;
    const KEY: usize = 68;
    let width = |it: u8| match it {
        0..0x20 | 0x7f => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    let escaped = |text: &str| text.bytes().map(width).sum::<usize>();
    let body: usize = match &entry.body {
        Body::Opening => 0,
        Body::Chat(chat) => escaped(&chat.payload) + escaped(&chat.room_id),
        Body::Membership(it) => it.members.len() * MEMBER + it.removed.len() * KEY,
    };
    FIELDS + body
}

impl LogWindow {
    pub(super) fn restore(snapshot: Option<&Snapshot>) -> Self {
        let mut log = Self::default();
        log.memberships.push_back((SeqNo(0), Arc::default()));
        if let Some(it) = snapshot {
            log.base = EntryMark { seq: it.seq_no, term: it.term, chain: it.chain };
            log.commit = it.seq_no;
            log.memberships[0] = (it.seq_no, Arc::clone(&it.membership));
            log.authors = Authors::restore(&it.authors);
        }
        log
    }

    pub(super) fn last(&self) -> EntryMark {
        self.slots.back().map_or(self.base, |it| EntryMark {
            seq: it.entry.seq_no,
            term: it.entry.term,
            chain: it.chain,
        })
    }

    pub(super) const fn commit(&self) -> SeqNo {
        self.commit
    }

    pub(super) const fn base(&self) -> EntryMark {
        self.base
    }

    pub(super) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Number of entries that are not final.
    pub(super) fn waiting(&self) -> usize {
        usize::try_from(self.last().seq.0 - self.commit.0).unwrap_or(usize::MAX)
    }

    fn index(&self, seq: SeqNo) -> Option<usize> {
        let at = usize::try_from(seq.0.checked_sub(self.base.seq.next().0)?).ok()?;
        (at < self.slots.len()).then_some(at)
    }

    /// The term of the entry at `seq`, if it is at hand.
    pub(super) fn term_at(&self, seq: SeqNo) -> Option<Term> {
        match self.index(seq) {
            Some(at) => Some(self.slots[at].entry.term),
            None => (seq == self.base.seq).then_some(self.base.term),
        }
    }

    /// The running hash at `seq`, if it is at hand.
    pub(super) fn chain_at(&self, seq: SeqNo) -> Option<ChainHash> {
        match self.index(seq) {
            Some(at) => Some(self.slots[at].chain),
            None => (seq == self.base.seq).then_some(self.base.chain),
        }
    }

    /// Entries from `from` on, within the bounds, at least one if there is one; `None` if they are
    /// no longer in memory.
    pub(super) fn slice(&self, from: SeqNo, config: &Config) -> Option<Vec<Arc<Entry>>> {
        if from <= self.base.seq {
            return None;
        }
        let start = usize::try_from(from.0 - self.base.seq.0 - 1).ok()?;
        let mut bytes = 0;
        let mut taken = Vec::new();
        for slot in self.slots.iter().skip(start).take(config.batch_entries.max(1)) {
            bytes += slot.bytes;
            if bytes > config.batch_bytes && !taken.is_empty() {
                break;
            }
            taken.push(Arc::clone(&slot.entry));
        }
        Some(taken)
    }

    /// # Panics
    /// Panics if there would be a gap.
    pub(super) fn append(&mut self, entry: Arc<Entry>) {
        let last = self.last();
        assert_eq!(entry.seq_no, last.seq.next(), "the log has no gap");
        let bytes = text_bytes(&entry);
        self.waiting_bytes += bytes;
        match &entry.body {
            Body::Opening => {}
            Body::Chat(chat) => {
                self.tail.insert(chat.msg_id.origin, chat.msg_id.number);
            }
            Body::Membership(it) => self.memberships.push_back((entry.seq_no, Arc::clone(it))),
        }
        let chain = last.chain.after(&entry);
        self.slots.push_back(Slot { entry, chain, bytes });
    }

    /// Removes all entries from `from` on.
    ///
    /// # Panics
    /// Panics if `from` is final.
    pub(super) fn cut(&mut self, from: SeqNo) {
        assert!(from > self.commit, "what is final is not cut");
        while self.last().seq >= from {
            let Some(slot) = self.slots.pop_back() else { break };
            self.waiting_bytes -= slot.bytes;
        }
        while self.memberships.back().is_some_and(|(at, _)| *at >= from) {
            self.memberships.pop_back();
        }
        self.tail.clear();
        let waiting = self.slots.iter().filter(|it| it.entry.seq_no > self.commit);
        for slot in waiting {
            if let Body::Chat(chat) = &slot.entry.body {
                self.tail.insert(chat.msg_id.origin, chat.msg_id.number);
            }
        }
    }

    /// Makes all entries up to `seq` final. Returns those that were not before.
    pub(super) fn commit_to(&mut self, seq: SeqNo) -> Vec<Arc<Entry>> {
        let mut fresh = Vec::new();
        while self.commit < seq.min(self.last().seq) {
            let next = self.commit.next();
            let Some(at) = self.index(next) else { break };
            let slot = &self.slots[at];
            self.waiting_bytes -= slot.bytes;
            self.final_bytes += slot.bytes;
            self.commit = next;
            let entry = Arc::clone(&slot.entry);
            match &entry.body {
                Body::Opening => {}
                Body::Chat(chat) => {
                    let id = chat.msg_id;
                    self.authors.on_final(id, next, &self.memberships[0].1);
                    if self.tail.get(&id.origin) == Some(&id.number) {
                        self.tail.remove(&id.origin);
                    }
                }
                Body::Membership(_) => {
                    self.memberships.pop_front();
                }
            }
            fresh.push(entry);
        }
        fresh
    }

    /// Forgets final entries beyond the bounds; the disk has them.
    pub(super) fn trim(&mut self, config: &Config) {
        while self.base.seq < self.commit {
            let finals = usize::try_from(self.commit.0 - self.base.seq.0).unwrap_or(usize::MAX);
            if finals <= config.window_entries && self.final_bytes <= config.window_bytes {
                break;
            }
            let Some(slot) = self.slots.pop_front() else { break };
            self.final_bytes -= slot.bytes;
            let Entry { seq_no, term, .. } = *slot.entry;
            self.base = EntryMark { seq: seq_no, term, chain: slot.chain };
        }
    }

    /// The newest membership, final or not: it counts from its own entry on (C7).
    pub(super) fn membership(&self) -> &Arc<Membership> {
        let last = self.memberships.len() - 1;
        &self.memberships[last].1
    }

    /// The membership at the last final entry: a later one may still be replaced.
    pub(super) fn final_membership(&self) -> &Arc<Membership> {
        &self.memberships[0].1
    }

    /// The membership before the newest, while an addition made in `term` is not final yet.
    pub(super) fn before_addition(&self, term: Term) -> Option<&Arc<Membership>> {
        let count = self.memberships.len();
        let (at, newest) = self.memberships.back()?;
        let (_, before) = self.memberships.get(count.checked_sub(2)?)?;
        let is_addition = newest.members.len() > before.members.len();
        let is_here = is_addition && !before.members.is_empty() && self.term_at(*at) == Some(term);
        is_here.then_some(before)
    }

    /// True if a membership is not final yet.
    pub(super) fn is_changing(&self) -> bool {
        self.memberships.len() > 1
    }

    /// A message that is in memory, by its identity.
    pub(super) fn find(&self, id: MsgId) -> Option<&ChatText> {
        self.slots.iter().rev().find_map(|slot| match &slot.entry.body {
            Body::Chat(chat) if chat.msg_id == id => Some(chat),
            Body::Opening | Body::Chat(_) | Body::Membership(_) => None,
        })
    }

    /// The last number of an author in the whole log.
    pub(super) fn last_number(&self, origin: Origin) -> u64 {
        let known = self.authors.last(origin).map_or(0, |(number, _)| number);
        self.tail.get(&origin).copied().unwrap_or(0).max(known)
    }

    /// The last final number of an author, and its place.
    pub(super) fn last_final(&self, origin: Origin) -> Option<(u64, SeqNo)> {
        self.authors.last(origin)
    }

    /// The state at the last final entry.
    pub(super) fn snapshot(&self, group: crate::proto::chat::entry::GroupId) -> Option<Snapshot> {
        Some(Snapshot {
            group,
            seq_no: self.commit,
            term: self.term_at(self.commit)?,
            chain: self.chain_at(self.commit)?,
            membership: Arc::clone(&self.memberships[0].1),
            authors: self.authors.marks(),
        })
    }
}
