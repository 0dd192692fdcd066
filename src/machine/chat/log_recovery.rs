//! Adoption: before it leads, a candidate makes the best log of its majority its own (R3).

use super::config::Rule;
use super::duty::{LogRecovery, RoleState};
use super::event::{ExtraEffect, Timer};
use super::replica::{Fx, Replica};
use crate::machine::LinkId;
use crate::proto::chat::entry::{Body, Entry, MemberId, SeqNo, Term};
use crate::proto::chat::message::{CatchupReq, Message, SeqChat};
use std::sync::Arc;

impl Replica {
    /// Adopts the best log of the majority that has promised; leads if that log is here already.
    pub(super) fn recover_log(&mut self, fx: &mut Fx) {
        let RoleState::Stand(it) = &self.role_state else { return };
        // R3: what is final is in the log of one of this majority (R8), and in the best one for
        // sure: entries of a newer term were written by a leader that had adopted all of it.
        let best = it.best(self.process.id(), self.log.last().place());
        match best {
            Some((source, target)) if self.config.keeps(Rule::Adoption) => {
                self.role_state.adopt(LogRecovery { source, target });
                let from = self.log.commit();
                self.request_tail(source, from, fx);
            }
            // The adopted log may not know this member any more.
            _ if !self.is_member() => self.give_up(fx),
            _ => {
                let promises = it.voters();
                // R4: with an entry of its own term.
                self.lead(promises, Body::Opening, fx);
            }
        }
    }

    fn request_tail(&mut self, source: MemberId, last_seq: SeqNo, fx: &mut Fx) {
        fx.set_timer(Timer::Catchup, self.config.leader_timeout / 2);
        let Some(link) = self.links.of_member(source) else {
            self.on_source_lost(fx);
            return;
        };
        let (sender_id, term) = (self.process.id(), self.vote.term());
        let ask = CatchupReq { sender_id, term, last_seq, tail: true };
        self.send(link, Message::CatchupReq(ask), fx);
    }

    /// Drops the source's promise, which is of no use any more; the others may still be enough.
    pub(super) fn on_source_lost(&mut self, fx: &mut Fx) {
        let Some(LogRecovery { source, .. }) = self.role_state.stand_again() else { return };
        if let Some(it) = self.role_state.candidacy_mut() {
            it.remove(source);
        }
        fx.stop_timer(Timer::Catchup);
        self.count_promises(fx);
    }

    pub(super) fn on_catchup_timer(&mut self, fx: &mut Fx) {
        self.on_source_lost(fx);
    }

    /// Takes a piece of the source's log.
    pub(super) fn on_log_tail(&mut self, id: MemberId, msg: &SeqChat, fx: &mut Fx) {
        let RoleState::Adopt(_, LogRecovery { source, target: (_, target) }) = self.role_state
        else {
            return;
        };
        if source != id || msg.term != self.vote.term() {
            self.drop_it("an answer that nobody waits for", fx);
            return;
        }
        let Ok(end) = self.apply(msg.prev_seq, msg.prev_term, &msg.entries, fx) else {
            self.drop_it("a donated log that does not fit", fx);
            self.on_source_lost(fx);
            return;
        };
        // R8: what is final there is final; and up to `end` the log here is the source's.
        self.make_final(msg.commit.min(end), fx);
        if end < target && !msg.entries.is_empty() {
            self.request_tail(id, end, fx);
        } else if end < target {
            self.on_source_lost(fx);
        } else {
            self.on_adopted(fx);
        }
    }

    /// Asks for promises anew, because the log is the best now: its newest membership decides which
    /// members must have promised (R2, C7).
    fn on_adopted(&mut self, fx: &mut Fx) {
        fx.stop_timer(Timer::Catchup);
        if self.role_state.stand_again().is_none() {
            return;
        }
        let (me, last) = (self.process.id(), self.log.last().place());
        if let Some(it) = self.role_state.candidacy_mut() {
            it.put(me, last);
        }
        self.request_votes(fx);
        self.count_promises(fx);
    }

    /// Sends a candidate the entries that it asks for, while this member's newest promise
    /// is the candidate's.
    pub(super) fn send_log_tail(
        &mut self,
        id: MemberId,
        link: LinkId,
        ask: CatchupReq,
        fx: &mut Fx,
    ) {
        // R3: since it promised, this log has taken nothing that a newer leader could have made
        // final; else the candidate would adopt less than a later majority knows.
        let is_promised = self.vote.voted_for() == Some(id) && self.vote.term() == ask.term;
        if !is_promised || !self.role_state.follows() {
            self.drop_it("a question for a log that is promised to another", fx);
            return;
        }
        let from = ask.last_seq.next();
        let prev_term = self.log.term_at(ask.last_seq);
        match self.log.slice(from, &self.config).zip(prev_term) {
            Some((entries, prev_term)) => {
                self.send_tail(link, ask.last_seq, prev_term, entries, fx);
            }
            None if ask.last_seq < self.log.commit() => {
                self.following.await_tail(link, ask.term);
                let bytes_max = self.config.batch_bytes;
                fx.extra(ExtraEffect::Load { link, from, bytes_max });
            }
            None => {}
        }
    }

    pub(super) fn on_tail_loaded(
        &mut self,
        link: LinkId,
        prev_term: Term,
        entries: Vec<Arc<Entry>>,
        fx: &mut Fx,
    ) {
        let is_wanted = self.following.take_tail_read(link) == Some(self.vote.term());
        let Some(first) = entries.first().map(|it| it.seq_no) else { return };
        if is_wanted && self.links.get(link).is_some() && self.role_state.follows() {
            self.send_tail(link, SeqNo(first.0 - 1), prev_term, entries, fx);
        }
    }

    fn send_tail(
        &self,
        link: LinkId,
        prev_seq: SeqNo,
        prev_term: Term,
        entries: Vec<Arc<Entry>>,
        fx: &mut Fx,
    ) {
        let (sender_id, term, commit) = (self.process.id(), self.vote.term(), self.log.commit());
        let msg = SeqChat { sender_id, term, prev_seq, prev_term, commit, entries };
        self.send(link, Message::CatchupResp(msg), fx);
    }
}
