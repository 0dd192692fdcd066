//! Memory of a member after a restart, rebuilt from its records.

use std::sync::Arc;

use super::config::{Config, Rule};
use super::event::{Record, Snapshot};
use super::pending::PendingMessages;
use super::window::LogWindow;
use crate::proto::chat::entry::{ChatText, GroupId, Member, MemberId, MsgId, Origin, SeqNo, Term};

/// Data that the driver found on disk.
#[derive(Clone, Debug, Default)]
pub struct ChatMemory {
    /// True if a group is to be founded if there is none.
    pub bootstrap: bool,
    /// Identity of the group, if one is known.
    pub group: Option<GroupId>,
    /// Newest snapshot, if there is one.
    pub snapshot: Option<Snapshot>,
    /// Records in order: at least all entries and cuts after the snapshot's place, the newest term,
    /// and all typed texts that are not final.
    pub records: Vec<Record>,
}

pub(super) struct Known {
    pub(super) group: Option<GroupId>,
    pub(super) term: Term,
    pub(super) voted_for: Option<MemberId>,
    pub(super) log: LogWindow,
    pub(super) pending: PendingMessages,
    pub(super) snapshot_at: SeqNo,
}

impl ChatMemory {
    /// # Panics
    /// Panics if entries have a gap: the driver must check its files before.
    pub(super) fn restore(self, config: &Config, me: &Member, life: u64) -> Known {
        let snapshot_at = self.snapshot.as_ref().map_or(SeqNo(0), |it| it.seq_no);
        let mut known = Known {
            group: self.group.or_else(|| self.snapshot.as_ref().map(|it| it.group)),
            term: self.snapshot.as_ref().map_or(Term(0), |it| it.term),
            voted_for: None,
            log: LogWindow::restore(self.snapshot.as_ref()),
            pending: PendingMessages::default(),
            snapshot_at,
        };
        let mut typed = Vec::new();
        for record in self.records {
            match record {
                Record::Group { group, .. } => known.group = Some(group),
                Record::Term { term, voted_for } if term >= known.term => {
                    (known.term, known.voted_for) = (term, voted_for);
                }
                Record::Term { .. } => {}
                Record::Entry(entry) => known.put(entry),
                Record::Cut { from } if from > known.log.commit() => known.log.cut(from),
                Record::Cut { .. } => {}
                record @ (Record::Typed(_) | Record::Renamed { .. } | Record::GivenBack { .. }) => {
                    apply_typed(&mut typed, record);
                }
                // The driver does not start with such a log.
                Record::Rewound => {}
                Record::Commit { seq_no } => {
                    known.log.commit_to(seq_no);
                    known.log.trim(config);
                }
            }
        }
        let own = match config.keeps(Rule::Life) {
            true => Origin::own(me.id, life),
            false => Origin { member: me.id, client: 0 },
        };
        let numbered = known.log.last_number(own);
        let is_open = |chat: &ChatText| {
            let MsgId { origin, number } = chat.msg_id;
            let done = known.log.last_final(origin).map_or(0, |(number, _)| number);
            let is_other = known.log.find(chat.msg_id).is_some_and(|it| it != chat);
            number > done || is_other && config.keeps(Rule::Text)
        };
        typed.retain(is_open);
        known.pending = PendingMessages::restore(own, numbered, typed);
        known
    }
}

/// Applies a record to the typed texts, in order: a later record counts.
pub fn apply_typed(typed: &mut Vec<ChatText>, record: Record) {
    match record {
        Record::Typed(chat) => typed.push(chat),
        Record::Renamed { from, to } => {
            if let Some(chat) = typed.iter_mut().find(|it| it.msg_id == from) {
                chat.msg_id = to;
            }
        }
        Record::GivenBack { msg_id } => typed.retain(|it| it.msg_id != msg_id),
        Record::Group { .. }
        | Record::Term { .. }
        | Record::Entry(_)
        | Record::Cut { .. }
        | Record::Commit { .. }
        | Record::Rewound => {}
    }
}

impl Known {
    fn put(&mut self, entry: Arc<crate::proto::chat::entry::Entry>) {
        if entry.seq_no <= self.log.base().seq.max(self.log.commit()) {
            return;
        }
        if entry.term > self.term {
            (self.term, self.voted_for) = (entry.term, None);
        }
        if entry.seq_no <= self.log.last().seq {
            self.log.cut(entry.seq_no);
        }
        self.log.append(entry);
    }
}
