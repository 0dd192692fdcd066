//! Pending messages: messages that were typed here, or sent by this member, and are not final yet;
//! and the numbering of typed texts.
//!
//! Invariant: no identity is given twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::machine::LinkId;
use crate::proto::chat::entry::{ChatText, MsgId, Origin};

/// Number of messages that are on their way to the leader without an answer.
const SENT_MAX: usize = 1_024;

#[derive(Debug)]
struct PendingMessage {
    chat: ChatText,
    /// Number of the record after which the message may be sent; own ones only.
    record: u64,
    /// Link of the client that waits for the answer.
    client: Option<LinkId>,
}

/// All messages that are not final.
#[derive(Debug, Default)]
pub(super) struct PendingMessages {
    /// Numbering of the texts typed now (R10).
    own: Option<Origin>,
    /// Last number given in it.
    numbered: u64,
    /// Own numberings of which messages may wait, the oldest first.
    numberings: Vec<Origin>,
    waiting: BTreeMap<MsgId, PendingMessage>,
    bytes: usize,
    /// Messages that were sent to this leader.
    sent: BTreeSet<MsgId>,
    unsent: BTreeSet<MsgId>,
    /// Own messages whose records are on their way to the disk, with the records' numbers.
    unkept: VecDeque<(u64, MsgId)>,
}

impl PendingMessages {
    pub(super) fn restore(own: Origin, numbered: u64, typed: Vec<ChatText>) -> Self {
        let mut pending = Self { own: Some(own), numbered, ..Self::default() };
        for chat in typed {
            pending.raise(chat.msg_id);
            pending.put(chat, 0, None);
        }
        pending
    }

    /// Raises the current numbering above a number that is taken.
    pub(super) fn raise(&mut self, id: MsgId) {
        if self.own == Some(id.origin) {
            self.numbered = self.numbered.max(id.number);
        }
    }

    /// True if the texts typed now are numbered so.
    pub(super) fn numbers_by(&self, origin: Origin) -> bool {
        self.own == Some(origin)
    }

    /// Begins another numbering of the texts typed from now on.
    pub(super) const fn begin_numbering(&mut self, origin: Origin) {
        (self.own, self.numbered) = (Some(origin), 0);
    }

    /// Returns the identity of the next message; `None` when the numbering is full.
    pub(super) fn next_id(&mut self) -> Option<MsgId> {
        let origin = self.own?;
        self.numbered = self.numbered.checked_add(1).filter(|it| *it < u64::MAX)?;
        Some(MsgId { origin, number: self.numbered })
    }

    /// Adds a message; an own one may be sent once `record` is on disk.
    pub(super) fn put(&mut self, chat: ChatText, record: u64, client: Option<LinkId>) {
        let (id, bytes) = (chat.msg_id, bytes_of(&chat));
        if self.waiting.insert(id, PendingMessage { chat, record, client }).is_none() {
            self.bytes += bytes;
            self.unsent.insert(id);
            if id.origin.is_own() && !self.numberings.contains(&id.origin) {
                self.numberings.push(id.origin);
            }
        }
    }

    /// Adds a text that was typed now, and is to be told when `record` is on disk.
    pub(super) fn put_typed(&mut self, chat: ChatText, record: u64) {
        self.unkept.push_back((record, chat.msg_id));
        self.put(chat, record, None);
    }

    /// Takes the typed texts that the disk has now.
    pub(super) fn take_kept(&mut self, has: impl Fn(u64) -> bool) -> Vec<ChatText> {
        let mut kept = Vec::new();
        while let Some((_, id)) = self.unkept.front().filter(|(record, _)| has(*record)) {
            kept.extend(self.waiting.get(id).map(|it| it.chat.clone()));
            self.unkept.pop_front();
        }
        kept
    }

    /// Removes a message. Returns it, with the client that waits for the answer.
    pub(super) fn take(&mut self, id: MsgId) -> Option<(ChatText, Option<LinkId>)> {
        self.sent.remove(&id);
        self.unsent.remove(&id);
        let PendingMessage { chat, client, .. } = self.waiting.remove(&id)?;
        self.bytes -= bytes_of(&chat);
        if self.waiting_of(id.origin).next().is_none() {
            self.numberings.retain(|it| *it != id.origin);
        }
        Some((chat, client))
    }

    /// Removes a message. Returns the client that waits for the answer.
    pub(super) fn take_client(&mut self, id: MsgId) -> Option<LinkId> {
        self.take(id).and_then(|(_, client)| client)
    }

    pub(super) fn get(&self, id: MsgId) -> Option<&ChatText> {
        self.waiting.get(&id).map(|it| &it.chat)
    }

    pub(super) fn waiting_of(&self, origin: Origin) -> impl Iterator<Item = MsgId> {
        let all = MsgId { origin, number: 0 }..=MsgId { origin, number: u64::MAX };
        self.waiting.range(all).map(|(id, _)| *id)
    }

    /// The identities of all programs' messages.
    pub(super) fn of_clients(&self) -> Vec<MsgId> {
        self.waiting.keys().filter(|it| !it.origin.is_own()).copied().collect()
    }

    /// Marks all messages to be sent again, in order, to another leader, or to the same
    /// after a pause.
    pub(super) fn begin_again(&mut self) {
        self.sent.clear();
        self.unsent = self.waiting.keys().copied().collect();
    }

    /// Marks a client's message to be sent again, because its client asks for it.
    pub(super) fn ask_again(&mut self, id: MsgId, client: LinkId) {
        if let Some(known) = self.waiting.get_mut(&id) {
            known.client = Some(client);
            self.sent.remove(&id);
            self.unsent.insert(id);
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The messages to send now, in order and within the bound; `is_kept` is true for records on
    /// disk.
    pub(super) fn ready(&self, is_kept: impl Fn(u64) -> bool) -> Vec<MsgId> {
        let room = SENT_MAX.saturating_sub(self.sent.len());
        let oldest = self.numberings.first().copied();
        let may_go = |id: &&MsgId| {
            let record = self.waiting.get(id).map_or(0, |it| it.record);
            // R10: the messages of one own numbering at a time, so that the group never has to
            // remember two of one member (R9).
            let is_due = !id.origin.is_own() || Some(id.origin) == oldest;
            is_due && is_kept(record)
        };
        self.unsent.iter().filter(may_go).take(room).copied().collect()
    }

    /// Marks a message as sent. Returns it, if it still waits.
    pub(super) fn send(&mut self, id: MsgId) -> Option<ChatText> {
        let chat = self.waiting.get(&id)?.chat.clone();
        self.unsent.remove(&id);
        self.sent.insert(id);
        Some(chat)
    }

    /// True if a message that waits has this identity and this text.
    pub(super) fn has(&self, chat: &ChatText) -> bool {
        self.get(chat.msg_id).is_some_and(|it| it == chat)
    }

    /// True if a message that waits has this identity and another text.
    pub(super) fn has_other(&self, chat: &ChatText) -> bool {
        self.get(chat.msg_id).is_some_and(|it| it != chat)
    }

    pub(super) fn forget_client(&mut self, link: LinkId) {
        for waiting in self.waiting.values_mut().filter(|it| it.client == Some(link)) {
            waiting.client = None;
        }
    }

    /// The messages that were typed here and are not final.
    pub(super) fn own_waiting(&self) -> impl Iterator<Item = &ChatText> {
        self.waiting.values().map(|it| &it.chat).filter(|it| it.msg_id.origin.is_own())
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True if another message may wait.
    pub(super) fn has_room(&self, count_max: usize, bytes_max: usize) -> bool {
        self.waiting.len() < count_max && self.bytes < bytes_max
    }
}

fn bytes_of(chat: &ChatText) -> usize {
    chat.payload.len() + chat.room_id.len() + 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::chat::entry::MemberId;

    fn origin(drawn: u64) -> Origin {
        Origin::own(MemberId(1), drawn)
    }

    fn chat(origin: Origin, number: u64) -> ChatText {
        let msg_id = MsgId { origin, number };
        ChatText { msg_id, room_id: "general".into(), payload: "x".into() }
    }

    #[test]
    fn a_text_goes_only_when_its_record_is_on_disk_and_in_order() {
        let mut pending = PendingMessages::restore(origin(1), 0, Vec::new());
        for record in 1..=2 {
            let msg_id = pending.next_id().expect("there are numbers");
            pending.put_typed(ChatText { msg_id, ..chat(origin(1), 0) }, record);
        }
        let [first, second] = [1, 2].map(|number| chat(origin(1), number));
        assert_eq!(pending.ready(|_| false), []);
        assert_eq!(pending.take_kept(|record| record <= 1), std::slice::from_ref(&first));
        assert_eq!(pending.ready(|record| record <= 1), [first.msg_id]);
        assert_eq!(pending.take_kept(|_| true), std::slice::from_ref(&second), "told once");
        assert_eq!(pending.ready(|_| true), [first.msg_id, second.msg_id]);
        assert_eq!(pending.send(first.msg_id), Some(first.clone()));
        assert_eq!(pending.ready(|_| true), [second.msg_id]);
        pending.begin_again();
        assert_eq!(pending.ready(|_| true), [first.msg_id, second.msg_id]);
    }

    #[test]
    fn an_older_numbering_goes_first_and_alone() {
        let (old, new) = (chat(origin(9), 4), chat(origin(1), 1));
        let mut pending = PendingMessages::restore(origin(1), 0, vec![old.clone()]);
        pending.put(new.clone(), 0, None);
        assert_eq!(pending.ready(|_| true), [old.msg_id], "though the new one sorts first");
        assert_eq!(pending.take(old.msg_id), Some((old, None)));
        assert_eq!(pending.ready(|_| true), [new.msg_id]);
    }

    #[test]
    fn a_client_that_asks_again_is_answered_on_its_new_connection() {
        let program = Origin { member: MemberId(1), client: 5 };
        let mut pending = PendingMessages::restore(origin(1), 0, Vec::new());
        let it = chat(program, 1);
        pending.put(it.clone(), 0, Some(LinkId(1)));
        pending.send(it.msg_id);
        pending.forget_client(LinkId(1));
        pending.ask_again(it.msg_id, LinkId(2));
        assert_eq!(pending.ready(|_| true), [it.msg_id]);
        assert_eq!(pending.take_client(it.msg_id), Some(LinkId(2)));
        assert_eq!((pending.len(), pending.has_unsent()), (0, false));
    }

    #[test]
    fn the_bounds_count_messages_and_bytes() {
        let mut pending = PendingMessages::restore(origin(1), 0, Vec::new());
        assert!(pending.has_room(1, 1));
        pending.put(chat(origin(1), 1), 0, None);
        assert!(
            !pending.has_room(1, 1_000) && !pending.has_room(9, 1) && pending.has_room(2, 1_000)
        );
        pending.take(chat(origin(1), 1).msg_id);
        assert!(pending.has_room(1, 1));
    }
}
