//! Following: the leader that is believed (R5), the entries that are taken (R6), and
//! their acknowledgement (R7).

use std::sync::Arc;

use super::config::Rule;
use super::event::{Event, Fx, Timer};
use super::group::{Duty, Group};
use crate::machine::LinkId;
use crate::proto::chat::entry::{Entry, MemberId, SeqNo, Term};
use crate::proto::chat::message::{
    CatchupReq, Coordinator, Heartbeat, Message, NackCode, SeqAck, SeqChat, SeqNack,
};

/// Reason why entries were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The log ends before the entries.
    Gap,
    /// The entry before them is another one here.
    Conflict,
    /// The entries contradict a final one: a log is broken.
    Final(SeqNo),
    /// The entries are no piece of a log.
    Nonsense,
}

impl Group {
    /// Follows a leader, if its term is not over. Returns whether it did.
    fn follow(&mut self, id: MemberId, link: LinkId, term: Term, fx: &mut Fx) -> bool {
        let fenced = self.config.keeps(Rule::Fence);
        if term < self.term && fenced {
            self.drop_it("a term that is over", fx);
            self.refuse(link, NackCode::Stale, "that term is over", fx);
            return false;
        }
        if term > self.term {
            self.enter(term, None, fx);
        }
        let is_other = self.leader.is_some_and(|it| it != id);
        if fenced && (is_other || matches!(self.duty, Duty::Lead(_))) {
            self.drop_it("a second leader of one term", fx);
            return false;
        }
        if !matches!(self.duty, Duty::Follow) {
            self.step_down(fx);
        }
        self.leader_heard = self.now.mono;
        self.objections = 0;
        if self.leader != Some(id) {
            self.leader = Some(id);
            self.on_new_leader(fx);
        }
        true
    }

    fn on_new_leader(&mut self, fx: &mut Fx) {
        self.asked_at = None;
        self.resume_at = None;
        let wait = self.config.leader_timeout + self.stagger(self.config.rank_silent);
        fx.set_timer(Timer::Election, wait);
        self.outbox.begin_again();
        self.on_successor(fx);
    }

    pub(super) fn on_coordinator(
        &mut self,
        id: MemberId,
        link: LinkId,
        msg: &Coordinator,
        fx: &mut Fx,
    ) {
        if self.follow(id, link, msg.term, fx) {
            self.learn_commit(msg.commit, fx);
        }
    }

    pub(super) fn on_heartbeat(&mut self, id: MemberId, link: LinkId, msg: Heartbeat, fx: &mut Fx) {
        if !self.follow(id, link, msg.term, fx) {
            return;
        }
        self.learn_commit(msg.commit, fx);
        let is_final_here = msg.commit <= self.log.commit();
        if is_final_here && self.log.chain_at(msg.commit).is_some_and(|it| it != msg.hash) {
            self.tell_divergence(id, msg.commit, fx);
        }
        self.tell_quorum(true, fx);
        // A leader must hear that it is followed, but not with each commit.
        let is_due = self.now.mono >= self.acked_at.after(self.config.heartbeat / 2);
        self.acknowledge(is_due, fx);
        self.take_over_if_due(msg.commit, fx);
    }

    pub(super) fn on_seq_chat(&mut self, id: MemberId, link: LinkId, msg: &SeqChat, fx: &mut Fx) {
        if self.follow(id, link, msg.term, fx) {
            self.take(link, msg, fx);
        }
    }

    /// Takes entries of the leader, or of the donor of a candidate; they make no sender a leader.
    pub(super) fn on_catchup_resp(
        &mut self,
        id: MemberId,
        link: LinkId,
        msg: &SeqChat,
        fx: &mut Fx,
    ) {
        if matches!(self.duty, Duty::Adopt(..)) {
            self.on_donated(id, msg, fx);
        } else if self.leader == Some(id) && msg.term == self.term {
            self.leader_heard = self.now.mono;
            self.take(link, msg, fx);
        } else {
            self.drop_it("an answer that nobody waits for", fx);
        }
    }

    fn take(&mut self, link: LinkId, msg: &SeqChat, fx: &mut Fx) {
        match self.apply(msg.prev_seq, msg.prev_term, &msg.entries, fx) {
            Ok(end) => {
                self.asked_at = None;
                self.verified = self.verified.max(end);
                self.learn_commit(msg.commit, fx);
                let has_news = !msg.entries.is_empty() && self.stored() < end;
                self.acknowledge(!has_news, fx);
            }
            Err(Misfit::Gap) => {
                let last_seq = self.log.last().seq;
                let ask =
                    CatchupReq { sender_id: self.me.id, term: self.term, last_seq, tail: false };
                self.ask(link, Message::CatchupReq(ask), fx);
            }
            Err(Misfit::Conflict) => {
                let last_seq = self.log.commit();
                let nack = SeqNack { sender_id: self.me.id, term: self.term, last_seq };
                self.ask(link, Message::SeqNack(nack), fx);
            }
            Err(Misfit::Final(at)) => {
                self.drop_it("entries that contradict what is final", fx);
                if let Some(member) = self.leader {
                    self.tell_divergence(member, at, fx);
                }
            }
            Err(Misfit::Nonsense) => {
                self.drop_it("entries that are no piece of a log", fx);
                self.refuse(link, NackCode::Malformed, "entries that are no piece of a log", fx);
            }
        }
    }

    /// Asks the leader to go on elsewhere; once, until it did or some time has passed. A conflict
    /// is told even if a question is on its way: the answer may have shown the conflict.
    fn ask(&mut self, link: LinkId, msg: Message, fx: &mut Fx) {
        let now = self.now.mono;
        let patience = self.config.heartbeat;
        let is_conflict = matches!(msg, Message::SeqNack(_));
        let is_waiting =
            |(at, was_conflict)| now.since(at) < patience && (was_conflict || !is_conflict);
        if self.asked_at.is_some_and(is_waiting) {
            return;
        }
        self.asked_at = Some((now, is_conflict));
        self.send(link, msg, fx);
    }

    /// Appends entries at their places (R6). Returns the number up to which the log is
    /// the sender's then.
    pub(super) fn apply(
        &mut self,
        prev_seq: SeqNo,
        prev_term: Term,
        entries: &[Arc<Entry>],
        fx: &mut Fx,
    ) -> Result<SeqNo, Misfit> {
        if !is_piece(prev_seq, prev_term, entries) {
            return Err(Misfit::Nonsense);
        }
        if prev_seq > self.log.last().seq {
            return Err(Misfit::Gap);
        }
        let known = self.log.term_at(prev_seq);
        let is_final = prev_seq <= self.log.commit();
        if self.config.keeps(Rule::Match) && known.is_none_or(|it| it != prev_term) {
            match (is_final, known) {
                (true, None) => {}
                (true, Some(_)) => return Err(Misfit::Final(prev_seq)),
                (false, _) => return Err(Misfit::Conflict),
            }
        }
        let mut end = prev_seq;
        for entry in entries {
            let seq = entry.seq_no;
            match self.log.term_at(seq) {
                Some(term) if term == entry.term => {}
                Some(_) if seq <= self.log.commit() => return Err(Misfit::Final(seq)),
                Some(_) => {
                    self.cut(seq, fx);
                    self.append(Arc::clone(entry), fx);
                }
                None if seq <= self.log.commit() => {}
                None => self.append(Arc::clone(entry), fx),
            }
            end = seq;
        }
        Ok(end)
    }

    /// Takes the leader's commit, as far as the log is known to be the leader's.
    fn learn_commit(&mut self, commit: SeqNo, fx: &mut Fx) {
        self.resume_at.get_or_insert(commit);
        self.make_final(commit.min(self.verified), fx);
        self.send_typed(fx);
    }

    /// Tells that a log differs, once in each term.
    fn tell_divergence(&mut self, member: MemberId, at: SeqNo, fx: &mut Fx) {
        if self.diverged_in != Some(self.term) {
            self.diverged_in = Some(self.term);
            fx.emit(Event::Diverged { member, at });
        }
    }

    /// Tells the leader up to which number the disk has its log (R7): if that is news, or `always`.
    pub(super) fn acknowledge(&mut self, always: bool, fx: &mut Fx) {
        let link = self.leader.and_then(|id| self.links.of_member(id));
        let Some(link) = link.filter(|_| !self.was_refused) else { return };
        let last_seq = self.verified.min(self.stored());
        if always || last_seq > self.acked {
            self.acked = last_seq;
            self.acked_at = self.now.mono;
            let ack = SeqAck { sender_id: self.me.id, term: self.term, last_seq };
            self.send(link, Message::SeqAck(ack), fx);
        }
    }
}

/// True if numbers go on without a gap, and terms never go back.
fn is_piece(prev_seq: SeqNo, prev_term: Term, entries: &[Arc<Entry>]) -> bool {
    let mut before = (prev_seq, prev_term);
    entries.iter().all(|it| {
        let (seq, term) = std::mem::replace(&mut before, (it.seq_no, it.term));
        it.seq_no == seq.next() && it.term >= term
    })
}
