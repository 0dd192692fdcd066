//! The outbox: messages that were typed here, or sent by this member, and are not final yet; and
//! the numbering of typed texts.
//!
//! Invariant: no identity is given twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::machine::LinkId;
use crate::proto::chat::entry::{Chat, MsgId, Origin};

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) chat: Chat,
    /// Number of the record after which the message may be sent; own ones only.
    pub(super) record: u64,
    /// Link of the client that waits for the answer.
    pub(super) client: Option<LinkId>,
}

/// All messages that are not final.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Numbering of the texts typed now (R10).
    pub(super) own: Option<Origin>,
    /// Last number given in it.
    pub(super) numbered: u64,
    /// Own numberings of which messages may wait, the oldest first.
    pub(super) numberings: Vec<Origin>,
    pub(super) waiting: BTreeMap<MsgId, Waiting>,
    pub(super) bytes: usize,
    /// Messages that were sent to this leader.
    pub(super) sent: BTreeSet<MsgId>,
    pub(super) unsent: BTreeSet<MsgId>,
    /// Own messages whose records are on their way to the disk, with the records' numbers.
    pub(super) unkept: VecDeque<(u64, MsgId)>,
}

impl Outbox {
    pub(super) fn restore(own: Origin, numbered: u64, typed: Vec<Chat>) -> Self {
        let mut outbox = Self { own: Some(own), numbered, ..Self::default() };
        for chat in typed {
            outbox.raise(chat.msg_id);
            outbox.put(chat, 0, None);
        }
        outbox
    }

    /// Raises the current numbering above a number that is taken.
    pub(super) fn raise(&mut self, id: MsgId) {
        if self.own == Some(id.origin) {
            self.numbered = self.numbered.max(id.number);
        }
    }

    /// Returns the identity of the next message; `None` when the numbering is full.
    pub(super) fn next_id(&mut self) -> Option<MsgId> {
        let origin = self.own?;
        self.numbered = self.numbered.checked_add(1).filter(|it| *it < u64::MAX)?;
        Some(MsgId { origin, number: self.numbered })
    }

    pub(super) fn put(&mut self, chat: Chat, record: u64, client: Option<LinkId>) {
        let (id, bytes) = (chat.msg_id, bytes_of(&chat));
        if self.waiting.insert(id, Waiting { chat, record, client }).is_none() {
            self.bytes += bytes;
            self.unsent.insert(id);
            if id.origin.is_own() && !self.numberings.contains(&id.origin) {
                self.numberings.push(id.origin);
            }
        }
    }

    pub(super) fn take(&mut self, id: MsgId) -> Option<Waiting> {
        self.sent.remove(&id);
        self.unsent.remove(&id);
        let waiting = self.waiting.remove(&id)?;
        self.bytes -= bytes_of(&waiting.chat);
        if self.waiting_of(id.origin).next().is_none() {
            self.numberings.retain(|it| *it != id.origin);
        }
        Some(waiting)
    }

    pub(super) fn waiting_of(&self, origin: Origin) -> impl Iterator<Item = MsgId> {
        let all = MsgId { origin, number: 0 }..=MsgId { origin, number: u64::MAX };
        self.waiting.range(all).map(|(id, _)| *id)
    }

    /// Marks all messages to be sent again, in order, to another leader, or to the same
    /// after a pause.
    pub(super) fn begin_again(&mut self) {
        self.sent.clear();
        self.unsent = self.waiting.keys().copied().collect();
    }

    /// True if a message that waits has this identity and this text.
    pub(super) fn has(&self, chat: &Chat) -> bool {
        self.waiting.get(&chat.msg_id).is_some_and(|it| it.chat == *chat)
    }

    pub(super) fn forget_client(&mut self, link: LinkId) {
        for waiting in self.waiting.values_mut().filter(|it| it.client == Some(link)) {
            waiting.client = None;
        }
    }

    /// The messages that were typed here and are not final.
    pub(super) fn own_waiting(&self) -> impl Iterator<Item = &Chat> {
        self.waiting.values().map(|it| &it.chat).filter(|it| it.msg_id.origin.is_own())
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn bytes_of(chat: &Chat) -> usize {
    chat.payload.len() + chat.room_id.len() + 64
}
