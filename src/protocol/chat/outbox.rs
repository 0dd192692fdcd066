//! What was typed here, or sent by this member, and is not final yet: kept, sent to each leader
//! again in order, until it is (C5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::config::{ROOM_BYTES_MAX, Rule};
use super::entry::{Body, Chat, MemberId, MsgId, Origin, SeqNo};
use super::event::{Effect, Event, Record, Timer};
use super::group::{Duty, Group};
use super::messages::{ChatAck, ChatReq, Message, Nack, NackCode};
use crate::protocol::LinkId;

/// So many messages are on their way to the leader without an answer.
const SENT_MAX: usize = 1_024;

#[derive(Debug)]
struct Waiting {
    chat: Chat,
    /// The record after which it may be sent; own ones only.
    record: u64,
    /// The client that waits for it.
    client: Option<LinkId>,
}

/// All that waits.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    own: Option<Origin>,
    /// The last number given here.
    numbered: u64,
    waiting: BTreeMap<MsgId, Waiting>,
    bytes: usize,
    /// What this leader has got.
    sent: BTreeSet<MsgId>,
    unsent: BTreeSet<MsgId>,
}

impl Outbox {
    pub(super) fn restore(own: Origin, numbered: u64, typed: Vec<Chat>) -> Self {
        let mut outbox = Self { own: Some(own), numbered, ..Self::default() };
        for chat in typed {
            outbox.numbered = outbox.numbered.max(chat.msg_id.number);
            outbox.put(chat, 0, None);
        }
        outbox
    }

    fn put(&mut self, chat: Chat, record: u64, client: Option<LinkId>) {
        let id = chat.msg_id;
        let bytes = bytes_of(&chat);
        if self.waiting.insert(id, Waiting { chat, record, client }).is_none() {
            self.bytes += bytes;
            self.unsent.insert(id);
        }
    }

    fn take(&mut self, id: MsgId) -> Option<Waiting> {
        self.sent.remove(&id);
        self.unsent.remove(&id);
        let waiting = self.waiting.remove(&id)?;
        self.bytes -= bytes_of(&waiting.chat);
        Some(waiting)
    }

    /// Another leader, or the same after a pause: everything is sent again, in order.
    pub(super) fn begin_again(&mut self) {
        self.sent.clear();
        self.unsent = self.waiting.keys().copied().collect();
    }

    pub(super) fn is_own(&self, id: MsgId) -> bool {
        self.own == Some(id.origin)
    }

    pub(super) fn forget_client(&mut self, link: LinkId) {
        for waiting in self.waiting.values_mut().filter(|it| it.client == Some(link)) {
            waiting.client = None;
        }
    }

    /// What was typed here and is not final.
    pub(super) fn own_waiting(&self) -> impl Iterator<Item = &Chat> {
        self.waiting.values().map(|it| &it.chat).filter(|it| self.is_own(it.msg_id))
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn bytes_of(chat: &Chat) -> usize {
    chat.payload.len() + chat.room_id.len() + 64
}

impl Group {
    fn is_valid(&self, room: &str, text: &str) -> bool {
        text.len() <= self.config.message_max && !room.is_empty() && room.len() <= ROOM_BYTES_MAX
    }

    fn has_room(&self) -> bool {
        self.outbox.waiting.len() < self.config.waiting_entries
            && self.outbox.bytes < self.config.waiting_bytes
    }

    pub(super) fn on_say(&mut self, room: Arc<str>, text: Arc<str>, fx: &mut Vec<Effect>) {
        if !self.is_valid(&room, &text) {
            self.drop_it("a text that is too long, or a room that is none", fx);
            return;
        }
        if !self.has_room() || self.outbox.numbered == u64::MAX {
            self.drop_it("a text, because too many are waiting", fx);
            return;
        }
        let origin = Origin { member: self.me.id, client: 0 };
        self.outbox.own = Some(origin);
        self.outbox.numbered += 1;
        let msg_id = MsgId { origin, number: self.outbox.numbered };
        let chat = Chat { msg_id, room_id: room, payload: text };
        let record = self.persist(Record::Typed(chat.clone()), fx);
        fx.push(Effect::Emit(Event::Pending(chat.clone())));
        self.outbox.put(chat, record, None);
        self.send_typed(fx);
    }

    /// A message to be numbered: of a client of this member, or of a member that forwards it.
    pub(super) fn on_chat(
        &mut self,
        link: LinkId,
        from: MemberId,
        is_client: bool,
        is_trusted: bool,
        request: ChatReq,
        fx: &mut Vec<Effect>,
    ) {
        let ChatReq { sender_id, chat } = request;
        let id = chat.msg_id;
        let author = if is_client { self.me.id } else { from };
        let is_fair = sender_id == author && id.origin.member == author;
        if !is_fair || (is_client && id.origin.client == 0) || id.number == 0 {
            self.drop_it("a message in another's name", fx);
            self.nack_chat(link, id, NackCode::NotAllowed, "only in one's own name", fx);
        } else if !is_client && !is_trusted {
            self.drop_it("a message of somebody who is no member", fx);
            self.nack_chat(link, id, NackCode::NotAllowed, "not a member", fx);
        } else if !self.is_valid(&chat.room_id, &chat.payload) || id.number == u64::MAX {
            self.drop_it("a text that is too long, or a room that is none", fx);
            let max = self.config.message_max;
            let why = format!("a text has at most {max} bytes, a room 1 to {ROOM_BYTES_MAX}");
            self.nack_chat(link, id, NackCode::Invalid, &why, fx);
        } else if is_client {
            self.on_client_chat(link, chat, fx);
        } else {
            self.number(chat, Some(link), fx);
        }
    }

    fn on_client_chat(&mut self, link: LinkId, chat: Chat, fx: &mut Vec<Effect>) {
        let id = chat.msg_id;
        if let Some(known) = self.outbox.waiting.get_mut(&id) {
            known.client = Some(link);
            self.outbox.sent.remove(&id);
            self.outbox.unsent.insert(id);
            self.send_typed(fx);
            return;
        }
        if self.is_known_final(id) {
            self.ack_chat(link, id, fx);
        } else if !self.has_room() {
            self.nack_chat(link, id, NackCode::Busy, "too much is waiting", fx);
        } else if self.quorum == Some(false) {
            self.nack_chat(link, id, NackCode::NoQuorum, "no majority is in reach", fx);
        } else {
            self.outbox.put(chat, 0, Some(link));
            self.send_typed(fx);
        }
    }

    fn is_known_final(&self, id: MsgId) -> bool {
        self.config.keeps(Rule::Once)
            && self.log.last_final(id.origin).is_some_and(|(number, _)| id.number <= number)
    }

    fn ack_chat(&self, link: LinkId, msg_id: MsgId, fx: &mut Vec<Effect>) {
        let last = self.log.last_final(msg_id.origin);
        let seq_no = last.filter(|(number, _)| *number == msg_id.number).map(|(_, seq)| seq);
        let ack = ChatAck { sender_id: self.me.id, msg_id, seq_no };
        self.send(link, Message::ChatAck(ack), fx);
    }

    fn nack_chat(
        &self,
        link: LinkId,
        id: MsgId,
        code: NackCode,
        reason: &str,
        fx: &mut Vec<Effect>,
    ) {
        let nack = Nack {
            sender_id: self.me.id,
            term: self.term,
            code,
            leader_id: self.leader,
            msg_id: Some(id),
            reason: reason.to_owned(),
        };
        self.send(link, Message::Nack(nack), fx);
    }

    /// The leader gives a message its number, once (R9); `link` is who forwarded it.
    fn number(&mut self, chat: Chat, link: Option<LinkId>, fx: &mut Vec<Effect>) {
        let id = chat.msg_id;
        let answer = |it: &mut Self, code, why: &str, fx: &mut Vec<Effect>| {
            // Without a link it is a client of this member itself.
            let is_own = it.outbox.is_own(id);
            let mut client = || it.outbox.take(id).and_then(|it| it.client);
            let to = link.or_else(|| if is_own { None } else { client() });
            if let Some(to) = to {
                it.nack_chat(to, id, code, why, fx);
            }
        };
        let Duty::Lead(reign) = &self.duty else {
            answer(self, NackCode::NotLeader, "another leads, or nobody", fx);
            return;
        };
        if reign.handover.is_some() {
            // Its author sends it to the successor, or here again.
            return;
        }
        let last = self.log.last_number(id.origin);
        if self.config.keeps(Rule::Once) {
            if id.number <= last {
                self.drop_it("a repeat", fx);
                if let (Some(link), true) = (link, self.is_known_final(id)) {
                    self.ack_chat(link, id, fx);
                }
                return;
            }
            if id.number > last + 1 {
                answer(self, NackCode::Gap, "the number before it is missing", fx);
                return;
            }
        }
        let is_full = self.log.waiting() >= self.config.waiting_entries
            || self.log.waiting_bytes() >= self.config.waiting_bytes;
        if is_full {
            self.drop_it("a message, because too many are waiting", fx);
            answer(self, NackCode::Busy, "too much is waiting", fx);
            return;
        }
        self.append_own(Body::Chat(chat), fx);
    }

    /// Sends what waits to the leader, in order; what is on disk, and within the bound.
    pub(super) fn send_typed(&mut self, fx: &mut Vec<Effect>) {
        let leads = matches!(self.duty, Duty::Lead(_));
        let is_handing_over = matches!(&self.duty, Duty::Lead(it) if it.handover.is_some());
        let link = self.leader.and_then(|id| self.links.of_member(id));
        if is_handing_over || !leads && (link.is_none() || !self.is_member()) {
            return;
        }
        let needs_disk = self.config.keeps(Rule::Disk) && !leads;
        let room = SENT_MAX.saturating_sub(self.outbox.sent.len());
        let may_go = |id: &&MsgId| {
            let record = self.outbox.waiting.get(id).map_or(0, |it| it.record);
            !needs_disk || self.disk.has(record)
        };
        let ready: Vec<_> = self.outbox.unsent.iter().filter(may_go).take(room).copied().collect();
        for id in ready {
            let Some(waiting) = self.outbox.waiting.get(&id) else { continue };
            let chat = waiting.chat.clone();
            self.outbox.unsent.remove(&id);
            self.outbox.sent.insert(id);
            match link {
                Some(link) if !leads => {
                    let request = ChatReq { sender_id: self.me.id, chat };
                    self.send(link, Message::Chat(request), fx);
                }
                _ => self.number(chat, None, fx),
            }
        }
    }

    pub(super) fn on_resend_timer(&mut self, fx: &mut Vec<Effect>) {
        fx.push(Effect::SetTimer(Timer::Resend, self.config.resend));
        // A restart shows again what became final after the last note of it.
        self.keep_commit(fx);
        self.introduce(fx);
        self.send_removals(fx);
        if self.outbox.waiting.is_empty() {
            return;
        }
        self.outbox.begin_again();
        self.send_typed(fx);
    }

    /// The leader did not number a message that was sent to it.
    pub(super) fn on_chat_refused(&mut self, nack: &Nack, fx: &mut Vec<Effect>) {
        let Some(id) = nack.msg_id.filter(|it| !self.outbox.is_own(*it)) else { return };
        // What was typed here is sent again until it is final; a client decides for itself.
        if let Some(link) = self.outbox.take(id).and_then(|it| it.client) {
            self.nack_chat(link, id, nack.code, &nack.reason, fx);
        }
    }

    /// A message is final: whoever waits for that is told.
    pub(super) fn answer_author(&mut self, id: MsgId, seq: SeqNo, fx: &mut Vec<Effect>) {
        if id.origin.member != self.me.id {
            return;
        }
        if let Some(link) = self.outbox.take(id).and_then(|it| it.client) {
            let ack = ChatAck { sender_id: self.me.id, msg_id: id, seq_no: Some(seq) };
            self.send(link, Message::ChatAck(ack), fx);
        }
    }

    /// There is no majority: clients are told at once, and try again when they like.
    pub(super) fn refuse_clients(&mut self, fx: &mut Vec<Effect>) {
        let of_clients = |it: &&MsgId| !self.outbox.is_own(**it);
        let all: Vec<_> = self.outbox.waiting.keys().filter(of_clients).copied().collect();
        for id in all {
            if let Some(link) = self.outbox.take(id).and_then(|it| it.client) {
                self.nack_chat(link, id, NackCode::NoQuorum, "no majority is in reach", fx);
            }
        }
    }
}
