//! Submitting messages to the leader, again and again, until they are final (C5) or the group
//! cannot take them; and their numbering by a leader (R9).
//!
//! Invariants:
//! - A text typed here leaves only when its record is on disk, on a leader, too.
//! - Messages of one own numbering are on their way at a time, the oldest numbering's first.
//! - No message is sent to a leader before all entries are known that were final when the leader
//!   was first heard: a final message is not sent again.

use std::sync::Arc;

use rand::RngExt as _;

use super::config::{ROOM_BYTES_MAX, Rule};
use super::event::{Event, Record, Timer};
use super::reign::LeaderState;
use super::replica::{Fx, Replica};
use crate::machine::LinkId;
use crate::proto::chat::entry::{Body, ChatText, MemberId, MsgId, Origin, SeqNo};
use crate::proto::chat::message::{ChatAck, ChatReq, Message, Nack, NackCode};

/// Reason for refusing a program's message whose identity is another text's.
const TAKEN: &str = "another text stands under this msg_id; send with a fresh client number";

impl Replica {
    /// Greatest length of a text, in bytes: the group's, or this member's own where the
    /// group has none.
    pub(super) fn message_max(&self) -> usize {
        let agreed = self.log.membership().message_max;
        agreed.and_then(|it| usize::try_from(it).ok()).unwrap_or(self.config.message_max)
    }

    fn is_valid(&self, room: &str, text: &str) -> bool {
        text.len() <= self.message_max() && !room.is_empty() && room.len() <= ROOM_BYTES_MAX
    }

    fn limits(&self) -> String {
        let max = self.message_max();
        format!("a text has at most {max} bytes in this group, a room's name 1 to {ROOM_BYTES_MAX}")
    }

    fn has_room(&self) -> bool {
        self.pending.has_room(self.config.waiting_entries, self.config.waiting_bytes)
    }

    pub(super) fn on_say(&mut self, room: Arc<str>, text: Arc<str>, fx: &mut Fx) {
        if !self.is_valid(&room, &text) {
            let reason = self.limits();
            self.drop_it("a text that is too long, or a room that is none", fx);
            fx.emit(Event::Rejected { room, text, reason });
            return;
        }
        let msg_id = if self.has_room() { self.pending.next_id() } else { None };
        let Some(msg_id) = msg_id else {
            self.drop_it("a text, because too many are waiting", fx);
            let count = self.pending.len();
            let reason =
                format!("{count} messages wait to be final, which is all there is room for");
            fx.emit(Event::Rejected { room, text, reason });
            return;
        };
        let chat = ChatText { msg_id, room_id: room, payload: text };
        let record = self.persist(Record::Typed(chat.clone()), fx);
        self.pending.put_typed(chat, record);
        self.report_pending(fx);
        self.send_typed(fx);
    }

    /// Tells which of the texts typed here the disk has now.
    pub(super) fn report_pending(&mut self, fx: &mut Fx) {
        for chat in self.pending.take_kept(|record| self.disk.has(record)) {
            fx.emit(Event::Pending(chat));
        }
    }

    /// Takes a message to be numbered: of a client of this member, or of a member that forwards it.
    pub(super) fn on_chat(
        &mut self,
        link: LinkId,
        from: MemberId,
        is_client: bool,
        is_trusted: bool,
        request: ChatReq,
        fx: &mut Fx,
    ) {
        let ChatReq { sender_id, chat } = request;
        let id = chat.msg_id;
        let author = if is_client { self.process.id() } else { from };
        let is_fair = sender_id == author && id.origin.member == author;
        if !is_fair || (is_client && id.origin.is_own()) || id.number == 0 {
            self.drop_it("a message in another's name", fx);
            self.nack_chat(link, id, NackCode::NotAllowed, "only in one's own name", fx);
        } else if !is_client && !is_trusted {
            self.drop_it("a message of somebody who is no member", fx);
            self.nack_chat(link, id, NackCode::NotAllowed, "not a member", fx);
        } else if is_client {
            self.on_client_chat(link, chat, fx);
        } else {
            self.number(chat, Some(link), fx);
        }
    }

    fn on_client_chat(&mut self, link: LinkId, chat: ChatText, fx: &mut Fx) {
        let id = chat.msg_id;
        if self.pending.has(&chat) {
            self.pending.ask_again(id, link);
            self.send_typed(fx);
            return;
        }
        if self.pending.has_other(&chat) || self.is_other_text(&chat) {
            self.nack_chat(link, id, NackCode::Taken, TAKEN, fx);
        } else if self.is_known_final(id) {
            self.ack_chat(link, id, fx);
        } else if !self.is_valid(&chat.room_id, &chat.payload) || id.number == u64::MAX {
            self.drop_it("a text that is too long, or a room that is none", fx);
            self.nack_chat(link, id, NackCode::Invalid, &self.limits(), fx);
        } else if !self.has_room() {
            self.nack_chat(link, id, NackCode::Busy, "too much is waiting", fx);
        } else if self.reports.quorum() == Some(false) {
            self.nack_chat(link, id, NackCode::NoQuorum, "no majority is in reach", fx);
        } else {
            self.pending.put(chat, 0, Some(link));
            self.send_typed(fx);
        }
    }

    fn is_known_final(&self, id: MsgId) -> bool {
        self.config.keeps(Rule::Once)
            && self.log.last_final(id.origin).is_some_and(|(number, _)| id.number <= number)
    }

    /// True if another text stands under the identity of a message (R11), as far as memory goes.
    fn is_other_text(&self, chat: &ChatText) -> bool {
        self.config.keeps(Rule::Text)
            && chat.msg_id.number <= self.log.last_number(chat.msg_id.origin)
            && self.log.find(chat.msg_id).is_some_and(|it| it != chat)
    }

    fn ack_chat(&self, link: LinkId, msg_id: MsgId, fx: &mut Fx) {
        let last = self.log.last_final(msg_id.origin);
        let seq_no = last.filter(|(number, _)| *number == msg_id.number).map(|(_, seq)| seq);
        let ack = ChatAck { sender_id: self.process.id(), msg_id, seq_no };
        self.send(link, Message::ChatAck(ack), fx);
    }

    fn nack_chat(&self, link: LinkId, id: MsgId, code: NackCode, reason: &str, fx: &mut Fx) {
        let nack = Nack {
            sender_id: self.process.id(),
            term: self.vote.term(),
            code,
            leader_id: self.vote.leader(),
            msg_id: Some(id),
            reason: reason.to_owned(),
        };
        self.send(link, Message::Nack(nack), fx);
    }

    /// Gives a message its number, once (R9), if this member leads; `link` is that of the member
    /// that forwarded it.
    fn number(&mut self, chat: ChatText, link: Option<LinkId>, fx: &mut Fx) {
        let id = chat.msg_id;
        let Some(leading) = self.role_state.leading() else {
            self.refuse_chat(id, link, NackCode::NotLeader, "another leads, or nobody", fx);
            return;
        };
        if leading.hands_over() {
            // Its author sends the message to the successor, or here again.
            return;
        }
        let last = self.log.last_number(id.origin);
        if self.config.keeps(Rule::Once) && id.number <= last {
            if self.is_other_text(&chat) {
                self.drop_it("a text under another's number", fx);
                self.refuse_chat(id, link, NackCode::Taken, TAKEN, fx);
                return;
            }
            self.drop_it("a repeat", fx);
            if let (Some(link), true) = (link, self.is_known_final(id)) {
                self.ack_chat(link, id, fx);
            }
            return;
        }
        let is_gap = self.config.keeps(Rule::Once) && id.number > last + 1;
        let is_wrong = !self.is_valid(&chat.room_id, &chat.payload) || id.number == u64::MAX;
        if (is_gap || is_wrong) && !self.has_opened() {
            // An entry of an earlier leader may still come to light: no definite answer is sent.
            return;
        }
        if is_gap {
            self.refuse_chat(id, link, NackCode::Gap, "the number before it is missing", fx);
            return;
        }
        if is_wrong {
            self.drop_it("a text that is too long, or a room that is none", fx);
            self.refuse_chat(id, link, NackCode::Invalid, &self.limits(), fx);
            return;
        }
        let is_full = self.log.waiting() >= self.config.waiting_entries
            || self.log.waiting_bytes() >= self.config.waiting_bytes;
        if is_full {
            self.drop_it("a message, because too many are waiting", fx);
            self.refuse_chat(id, link, NackCode::Busy, "too much is waiting", fx);
            return;
        }
        self.append_own(Body::Chat(chat), fx);
    }

    /// Refuses to number a message, toward the member that forwarded it, this member's own client,
    /// or this member itself.
    fn refuse_chat(
        &mut self,
        id: MsgId,
        link: Option<LinkId>,
        code: NackCode,
        why: &str,
        fx: &mut Fx,
    ) {
        if let Some(link) = link {
            self.nack_chat(link, id, code, why, fx);
        } else if id.origin.is_own() {
            self.on_own_refused(id, code, why, fx);
        } else if let Some(link) = self.pending.take_client(id) {
            self.nack_chat(link, id, code, why, fx);
        }
    }

    /// True if all entries are known that were final when the leader was first heard.
    pub(super) fn has_caught_up(&self) -> bool {
        self.following.has_caught_up(self.log.commit())
    }

    /// Sends the waiting messages to the leader, in order; those on disk, and within the bound.
    pub(super) fn send_typed(&mut self, fx: &mut Fx) {
        let leads = self.role_state.leads();
        let is_handing_over = self.role_state.leading().is_some_and(LeaderState::hands_over);
        let link = self.vote.leader().and_then(|id| self.links.of_member(id));
        let can_follow = link.is_some() && self.is_member() && self.has_caught_up();
        if !self.pending.has_unsent() || is_handing_over || !leads && !can_follow {
            return;
        }
        let needs_disk = self.config.keeps(Rule::Disk);
        let is_kept = |record| !needs_disk || self.disk.has(record);
        for id in self.pending.ready(is_kept) {
            // The leader, if it is this member, may have refused an earlier one and this with it.
            let Some(chat) = self.pending.send(id) else { continue };
            match link {
                Some(link) if !leads => {
                    let request = ChatReq { sender_id: self.process.id(), chat };
                    self.send(link, Message::Chat(request), fx);
                }
                _ => self.number(chat, None, fx),
            }
        }
    }

    pub(super) fn on_resend_timer(&mut self, fx: &mut Fx) {
        fx.set_timer(Timer::Resend, self.config.resend);
        // A restart delivers again the entries that became final after the last record
        // of the commit.
        self.keep_commit(fx);
        self.introduce(fx);
        self.send_removals(fx);
        if self.pending.len() == 0 {
            return;
        }
        self.pending.begin_again();
        self.send_typed(fx);
    }

    /// Takes the leader's refusal of a message that was sent to it.
    pub(super) fn on_chat_refused(&mut self, nack: &Nack, fx: &mut Fx) {
        let Some(id) = nack.msg_id else { return };
        if id.origin.is_own() {
            self.on_own_refused(id, nack.code, &nack.reason, fx);
        } else if let Some(link) = self.pending.take_client(id) {
            // A client decides for itself whether to try again.
            self.nack_chat(link, id, nack.code, &nack.reason, fx);
        }
    }

    /// Takes the refusal of a text typed here. It is sent again until it is final, unless it never
    /// can be: by the word of an [opened](Self::has_opened) leader, which knows all final entries.
    fn on_own_refused(&mut self, id: MsgId, code: NackCode, why: &str, fx: &mut Fx) {
        let is_first = self.pending.waiting_of(id.origin).next() == Some(id);
        match code {
            NackCode::Invalid => {
                let Some((chat, _)) = self.pending.take(id) else { return };
                self.persist(Record::GivenBack { msg_id: id }, fx);
                fx.emit(Event::GivenBack { chat, reason: why.to_owned() });
            }
            // The number before it was given back, or lost with a part of the log: it never comes.
            NackCode::Gap if is_first => {
                let all: Vec<_> = self.pending.waiting_of(id.origin).collect();
                all.into_iter().for_each(|id| self.rename(id, fx));
            }
            // Renamed once that other text is final here; until then the message may still go.
            NackCode::Taken => self.rename_taken(fx),
            NackCode::Gap
            | NackCode::Malformed
            | NackCode::NotAllowed
            | NackCode::Handshake
            | NackCode::IdTaken
            | NackCode::Removed
            | NackCode::OtherGroup
            | NackCode::Stale
            | NackCode::NotLeader
            | NackCode::NoQuorum
            | NackCode::Busy
            | NackCode::Doubled
            | NackCode::Copied
            | NackCode::Rewound => {}
        }
    }

    /// Gives a text typed here another identity: its own can never be final, or is another text's.
    fn rename(&mut self, from: MsgId, fx: &mut Fx) {
        let Some((chat, _)) = self.pending.take(from) else { return };
        if self.pending.numbers_by(from.origin) {
            let drawn = self.process.rng().random();
            self.pending.begin_numbering(Origin::own(self.process.id(), drawn));
        }
        let Some(to) = self.pending.next_id() else { return };
        let record = self.persist(Record::Renamed { from, to }, fx);
        fx.emit(Event::Renamed { from, to });
        self.pending.put(ChatText { msg_id: to, ..chat }, record, None);
    }

    /// Renames the texts that an earlier process kept under identities of other texts.
    pub(super) fn rename_taken(&mut self, fx: &mut Fx) {
        let is_taken = |it: &&ChatText| self.is_known_final(it.msg_id) && self.is_other_text(it);
        let taken: Vec<_> =
            self.pending.own_waiting().filter(is_taken).map(|it| it.msg_id).collect();
        taken.into_iter().for_each(|id| self.rename(id, fx));
    }

    /// Tells the member or client that waits for a message that it is final. A text that waits
    /// under the identity of another text is not final by that (R11).
    pub(super) fn answer_author(&mut self, chat: &ChatText, seq: SeqNo, fx: &mut Fx) {
        let id = chat.msg_id;
        if id.origin.member != self.process.id() {
            return;
        }
        let is_other = self.config.keeps(Rule::Text) && self.pending.has_other(chat);
        if is_other && id.origin.is_own() {
            self.rename(id, fx);
            return;
        }
        let Some(link) = self.pending.take_client(id) else { return };
        if is_other {
            self.nack_chat(link, id, NackCode::Taken, TAKEN, fx);
        } else {
            let ack = ChatAck { sender_id: self.process.id(), msg_id: id, seq_no: Some(seq) };
            self.send(link, Message::ChatAck(ack), fx);
        }
    }

    /// Refuses the clients' messages at once, because no majority is in reach; the clients
    /// may try again.
    pub(super) fn refuse_clients(&mut self, fx: &mut Fx) {
        for id in self.pending.of_clients() {
            if let Some(link) = self.pending.take_client(id) {
                self.nack_chat(link, id, NackCode::NoQuorum, "no majority is in reach", fx);
            }
        }
    }
}
