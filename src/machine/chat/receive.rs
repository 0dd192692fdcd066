//! Messages that came by a connection: the ones that are believed, and their dispatch.
//!
//! A node that is no member, and that no member has named, can neither raise a term nor be heard as
//! a leader; it can ask to be admitted.

use super::config::{MEMBERS_MAX, SEQ_MAX, TERM_LEAP_MAX, TERM_MAX};
use super::duty::RoleState;
use super::event::{Event, Record, Timer};
use super::replica::{Fx, Replica};
use crate::machine::LinkId;
use crate::model::PublicKey;
use crate::proto::chat::entry::{Member, MemberId};
use crate::proto::chat::message::{JoinAck, Message, Nack, NackCode};

impl Replica {
    /// True if the other end is a member, or named by one.
    pub(super) fn is_trusted(&self, member: &Member) -> bool {
        let is_it = |it: &Member| it.id == member.id && it.key == member.key;
        self.log.membership().members.iter().any(is_it)
            || self.log.final_membership().members.iter().any(is_it)
            || self.links.vouched(member.id).is_some_and(is_it)
    }

    pub(super) fn on_received(&mut self, link: LinkId, msg: Message, fx: &mut Fx) {
        let Some(known) = self.links.hear(link, self.process.now()) else { return };
        let (member, is_ours) = (known.member().clone(), known.is_ours());
        let (id, is_client) = (member.id, known.is_client());
        // The handshake lets in also who is refused right after it.
        let is_answer = matches!(msg, Message::JoinAck(_) | Message::Nack(_));
        if !is_client && !is_answer && self.links.of_member(id) == Some(link) {
            self.links.stop_calls(id);
        }
        let is_trusted = !is_client && self.is_trusted(&member);
        if let Message::Chat(request) = msg {
            self.on_chat(link, id, is_client, is_trusted, request, fx);
            return;
        }
        if msg.sender() != Some(id) || is_client {
            self.drop_it("a message in another's name", fx);
            self.refuse(link, NackCode::NotAllowed, "only in one's own name", fx);
            return;
        }
        let (term, seq) = msg.bounds();
        let is_leap = self.is_member() && term > self.vote.term().0.saturating_add(TERM_LEAP_MAX);
        if term > TERM_MAX || seq > SEQ_MAX || is_leap {
            self.drop_it("a term or number beyond the limit", fx);
            self.refuse(link, NackCode::Invalid, "a term or number beyond the limit", fx);
            return;
        }
        // A node that is no member yet may send these; a leader checks its id.
        let is_open = matches!(
            msg,
            Message::SeqAck(_)
                | Message::SeqNack(_)
                | Message::CatchupReq(_)
                | Message::JoinAck(_)
                | Message::Alive(_)
                | Message::Nack(_)
                | Message::VerifyResp(_)
        );
        if !is_open && !is_trusted {
            self.drop_it("a message of somebody who is no member", fx);
            self.refuse(link, NackCode::NotAllowed, "not a member", fx);
            return;
        }
        if let Message::JoinAck(it) = msg {
            self.on_join_ack(it, is_trusted, is_ours, fx);
        } else if let Message::Nack(it) = &msg {
            self.on_nack(id, link, is_trusted, it, fx);
        } else {
            self.hear(id, link, msg, fx);
        }
    }

    fn hear(&mut self, id: MemberId, link: LinkId, msg: Message, fx: &mut Fx) {
        match msg {
            Message::SeqAck(it) => self.on_ack(id, it, fx),
            Message::SeqNack(it) => self.on_misfit(id, it.term, it.last_seq, fx),
            Message::CatchupReq(it) => self.on_catchup_req(id, link, it, fx),
            Message::Heartbeat(it) => self.on_heartbeat(id, link, it, fx),
            Message::Coordinator(it) => self.on_coordinator(id, link, &it, fx),
            Message::SeqChat(it) => self.on_seq_chat(id, link, &it, fx),
            Message::CatchupResp(it) => self.on_catchup_resp(id, link, &it, fx),
            Message::Election(it) => self.on_election(id, link, it, fx),
            Message::ElectionOk(it) => self.on_election_ok(id, it, fx),
            Message::ChatAck(_) | Message::Alive(_) => {}
            Message::TakeoverReq(it) => self.on_takeover_req(id, it, fx),
            Message::TakeNow(it) => self.on_take_now(id, it, fx),
            Message::RemoveReq(it) => self.on_remove_req(it, fx),
            Message::VerifyResp(it) => self.on_sign_of_life(id, link, &it, fx),
            // Of the handshake, or for the driver (C11).
            Message::Join(_)
            | Message::JoinChallenge(_)
            | Message::JoinProof(_)
            | Message::VerifyReq(_) => self.drop_it("a message out of its place", fx),
            Message::Chat(_) | Message::JoinAck(_) | Message::Nack(_) => {}
        }
    }

    /// Takes a membership of the group. A member is believed; so is a node that was called at an
    /// address given to a member which knows no group yet, or finds none of its own.
    fn on_join_ack(&mut self, ack: JoinAck, is_trusted: bool, is_ours: bool, fx: &mut Fx) {
        let is_lost = !self.is_member() || self.vote.leader().is_none();
        if !(is_trusted || is_ours && is_lost) {
            self.drop_it("a membership told by somebody who is no member", fx);
            return;
        }
        if !self.identity.learn(ack.group) {
            self.drop_it("a membership of another group", fx);
            return;
        }
        for member in ack.membership.into_iter().take(MEMBERS_MAX) {
            if member.id != self.process.id() {
                self.links.vouch(member);
            }
        }
        self.dial_everybody(fx);
    }

    /// True if a refusal by the holder of a key counts: a member's does; where no member is known
    /// yet, that of the process at the address that the operator named. Other nodes know nothing
    /// of this group.
    pub fn believes_refusal(&self, key: &PublicKey) -> bool {
        let (newest, last) = (self.log.membership(), self.log.final_membership());
        let is_member = |it: &Member| it.key == *key;
        newest.members.is_empty() || newest.members.iter().chain(&last.members).any(is_member)
    }

    fn on_nack(&mut self, id: MemberId, link: LinkId, is_trusted: bool, nack: &Nack, fx: &mut Fx) {
        let key = self.links.get(link).map(|it| it.member().key);
        let is_believed = key.is_some_and(|key| self.believes_refusal(&key));
        match nack.code {
            NackCode::Stale if is_trusted && nack.term > self.vote.term() => {
                let was_standing = matches!(self.role_state, RoleState::Stand(_));
                self.advance_term(nack.term, None, fx);
                if was_standing {
                    fx.set_timer(Timer::Election, self.config.ask_again);
                }
            }
            NackCode::Busy if is_trusted && nack.msg_id.is_none() => {
                self.vote.shorten_pause(self.process.now().after(self.config.heartbeat));
            }
            NackCode::IdTaken | NackCode::Removed | NackCode::OtherGroup
                if is_believed && !self.is_member() =>
            {
                self.be_refused(&nack.reason, fx);
            }
            // The process that the leader knows is the member; the other one ends.
            NackCode::Doubled if is_believed && !self.hears_leader() => {
                self.be_refused(&nack.reason, fx);
            }
            NackCode::Rewound
                if is_trusted && self.vote.is_leader(id) && nack.term == self.vote.term() =>
            {
                self.persist(Record::Rewound, fx);
                self.be_refused(&nack.reason, fx);
            }
            NackCode::Copied | NackCode::Doubled if is_trusted => {
                let (member, reason) = (self.process.id(), nack.reason.clone());
                fx.emit(Event::Doubled { member, reason });
            }
            NackCode::Gap
            | NackCode::Busy
            | NackCode::Invalid
            | NackCode::NoQuorum
            | NackCode::NotLeader
            | NackCode::Taken
                if is_trusted
                    && self.vote.is_leader(id)
                    && nack.term == self.vote.term()
                    && self.links.of_member(id) == Some(link) =>
            {
                self.on_chat_refused(nack, fx);
            }
            NackCode::Malformed
            | NackCode::NotAllowed
            | NackCode::Handshake
            | NackCode::IdTaken
            | NackCode::Removed
            | NackCode::OtherGroup
            | NackCode::Stale
            | NackCode::NotLeader
            | NackCode::NoQuorum
            | NackCode::Busy
            | NackCode::Gap
            | NackCode::Invalid
            | NackCode::Taken
            | NackCode::Doubled
            | NackCode::Copied
            | NackCode::Rewound => {}
        }
    }

    /// Ends this member's part in the group, which refuses it.
    fn be_refused(&mut self, reason: &str, fx: &mut Fx) {
        if self.process.refuse() {
            self.step_down(fx);
            self.vote.lose_leader();
            fx.emit(Event::Refused { reason: reason.to_owned() });
        }
    }

    /// Sends a refusal with its reason.
    pub(super) fn refuse(&self, link: LinkId, code: NackCode, reason: &str, fx: &mut Fx) {
        let nack = Nack {
            sender_id: self.process.id(),
            term: self.vote.term(),
            code,
            leader_id: self.vote.leader(),
            msg_id: None,
            reason: reason.to_owned(),
        };
        self.send(link, Message::Nack(nack), fx);
    }
}
