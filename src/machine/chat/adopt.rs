//! Adoption: before it leads, a candidate makes the best log of its majority its own (R3).

use super::config::Rule;
use super::event::{ExtraEffect, Fx, Timer};
use super::group::{Duty, Group};
use crate::machine::LinkId;
use crate::proto::chat::entry::{Body, Entry, MemberId, SeqNo, Term};
use crate::proto::chat::message::{CatchupReq, Message, SeqChat};
use std::sync::Arc;

/// The fetch of a donor's log.
#[derive(Debug)]
pub(super) struct Adopting {
    pub(super) donor: MemberId,
    target: (Term, SeqNo),
}

impl Group {
    /// Adopts the best log of the majority that has promised; leads if that log is here already.
    pub(super) fn adopt_best(&mut self, fx: &mut Fx) {
        let Duty::Stand(it) = std::mem::replace(&mut self.duty, Duty::Follow) else { return };
        let last = self.log.last();
        let best = it.answers.iter().filter(|(id, _)| **id != self.me.id);
        let best = best.max_by_key(|(_, log)| **log).map(|(id, log)| (*id, *log));
        match best.filter(|(_, log)| *log > (last.term, last.seq)) {
            Some((donor, target)) if self.config.keeps(Rule::Adoption) => {
                self.duty = Duty::Adopt(it, Adopting { donor, target });
                let from = self.log.commit();
                self.ask_donor(donor, from, fx);
            }
            // The adopted log may not know this member any more.
            _ if !self.is_member() => self.give_up(fx),
            _ => {
                let promises = it.answers.keys().copied().collect();
                self.lead(promises, Body::Opening, fx);
            }
        }
    }

    fn ask_donor(&mut self, donor: MemberId, last_seq: SeqNo, fx: &mut Fx) {
        fx.set_timer(Timer::Catchup, self.config.leader_timeout / 2);
        let Some(link) = self.links.of_member(donor) else {
            self.on_donor_lost(fx);
            return;
        };
        let ask = CatchupReq { sender_id: self.me.id, term: self.term, last_seq, tail: true };
        self.send(link, Message::CatchupReq(ask), fx);
    }

    /// Drops the donor's promise, which is of no use any more; the others may still be enough.
    pub(super) fn on_donor_lost(&mut self, fx: &mut Fx) {
        match std::mem::replace(&mut self.duty, Duty::Follow) {
            Duty::Adopt(mut it, adopting) => {
                it.answers.remove(&adopting.donor);
                fx.stop_timer(Timer::Catchup);
                self.duty = Duty::Stand(it);
                self.count_promises(fx);
            }
            other @ (Duty::Follow | Duty::Stand(_) | Duty::Lead(_)) => self.duty = other,
        }
    }

    pub(super) fn on_catchup_timer(&mut self, fx: &mut Fx) {
        self.on_donor_lost(fx);
    }

    /// Takes a piece of the donor's log.
    pub(super) fn on_donated(&mut self, id: MemberId, msg: &SeqChat, fx: &mut Fx) {
        let Duty::Adopt(_, adopting) = &self.duty else { return };
        let target = adopting.target.1;
        if adopting.donor != id || msg.term != self.term {
            self.drop_it("an answer that nobody waits for", fx);
            return;
        }
        let Ok(end) = self.apply(msg.prev_seq, msg.prev_term, &msg.entries, fx) else {
            self.drop_it("a donated log that does not fit", fx);
            self.on_donor_lost(fx);
            return;
        };
        self.make_final(msg.commit.min(end), fx);
        if end < target && !msg.entries.is_empty() {
            self.ask_donor(id, end, fx);
        } else if end < target {
            self.on_donor_lost(fx);
        } else {
            self.on_adopted(fx);
        }
    }

    /// Asks for promises anew, because the log is the best now: its newest membership decides which
    /// members must have promised.
    fn on_adopted(&mut self, fx: &mut Fx) {
        fx.stop_timer(Timer::Catchup);
        match std::mem::replace(&mut self.duty, Duty::Follow) {
            Duty::Adopt(mut it, _) => {
                let last = self.log.last();
                it.answers.insert(self.me.id, (last.term, last.seq));
                self.duty = Duty::Stand(it);
                self.ask_for_promises(fx);
                self.count_promises(fx);
            }
            other @ (Duty::Follow | Duty::Stand(_) | Duty::Lead(_)) => self.duty = other,
        }
    }

    /// Sends a candidate the entries that it asks for, while this member's newest promise
    /// is the candidate's.
    pub(super) fn donate(&mut self, id: MemberId, link: LinkId, ask: CatchupReq, fx: &mut Fx) {
        let is_promised = self.promised_to == Some(id) && self.term == ask.term;
        if !is_promised || !matches!(self.duty, Duty::Follow) {
            self.drop_it("a question for a log that is promised to another", fx);
            return;
        }
        let from = ask.last_seq.next();
        let prev_term = self.log.term_at(ask.last_seq);
        match self.log.slice(from, &self.config).zip(prev_term) {
            Some((entries, prev_term)) => {
                self.send_donation(link, ask.last_seq, prev_term, entries, fx);
            }
            None if ask.last_seq < self.log.commit() => {
                self.donations.insert(link, ask.term);
                let bytes_max = self.config.batch_bytes;
                fx.extra(ExtraEffect::Load { link, from, bytes_max });
            }
            None => {}
        }
    }

    pub(super) fn on_donation_loaded(
        &mut self,
        link: LinkId,
        prev_term: Term,
        entries: Vec<Arc<Entry>>,
        fx: &mut Fx,
    ) {
        let is_wanted = self.donations.remove(&link) == Some(self.term);
        let Some(first) = entries.first().map(|it| it.seq_no) else { return };
        if is_wanted && self.links.get(link).is_some() && matches!(self.duty, Duty::Follow) {
            self.send_donation(link, SeqNo(first.0 - 1), prev_term, entries, fx);
        }
    }

    fn send_donation(
        &self,
        link: LinkId,
        prev_seq: SeqNo,
        prev_term: Term,
        entries: Vec<Arc<Entry>>,
        fx: &mut Fx,
    ) {
        let (sender_id, term, commit) = (self.me.id, self.term, self.log.commit());
        let msg = SeqChat { sender_id, term, prev_seq, prev_term, commit, entries };
        self.send(link, Message::CatchupResp(msg), fx);
    }
}
