//! Following: the leader that is believed (R5), the entries that are taken (R6), and
//! their acknowledgement (R7).

use std::sync::Arc;

use super::config::Rule;
use super::duty::RoleState;
use super::event::Event;
use super::fit::{AppendError, fit};
use super::replica::{Fx, Replica};
use crate::machine::LinkId;
use crate::proto::chat::entry::{Entry, MemberId, SeqNo, Term};
use crate::proto::chat::message::{
    CatchupReq, Coordinator, LeaderHeartbeat, Message, NackCode, SeqAck, SeqChat, SeqNack,
};

impl Replica {
    /// Follows a leader, if its term is not over. Returns whether it did.
    fn follow(&mut self, id: MemberId, link: LinkId, term: Term, fx: &mut Fx) -> bool {
        let fenced = self.config.keeps(Rule::Fence);
        // R5: a later leader may have made other entries final since.
        if term < self.vote.term() && fenced {
            self.drop_it("a term that is over", fx);
            self.refuse(link, NackCode::Stale, "that term is over", fx);
            return false;
        }
        if term > self.vote.term() {
            self.advance_term(term, None, fx);
        }
        // R2: one term has one leader, so this is none.
        let is_other = self.vote.leader().is_some_and(|it| it != id);
        if fenced && (is_other || self.role_state.leads()) {
            self.drop_it("a second leader of one term", fx);
            return false;
        }
        if !self.role_state.follows() {
            self.step_down(fx);
        }
        if self.vote.follow(id, self.process.now()) {
            self.on_new_leader(fx);
        }
        true
    }

    fn on_new_leader(&mut self, fx: &mut Fx) {
        self.following.begin();
        self.await_leader(fx);
        self.pending.begin_again();
        self.end_if_leaving(fx);
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

    pub(super) fn on_heartbeat(
        &mut self,
        id: MemberId,
        link: LinkId,
        msg: LeaderHeartbeat,
        fx: &mut Fx,
    ) {
        if !self.follow(id, link, msg.term, fx) {
            return;
        }
        self.learn_commit(msg.commit, fx);
        let is_final_here = msg.commit <= self.log.commit();
        if is_final_here && self.log.chain_at(msg.commit).is_some_and(|it| it != msg.hash) {
            self.report_divergence(id, msg.commit, fx);
        }
        self.report_quorum(true, fx);
        // A leader must hear that it is followed, but not with each commit.
        let is_due = self.following.is_ack_due(self.process.now(), self.config.heartbeat / 2);
        self.acknowledge(is_due, fx);
        self.take_over_if_due(msg.commit, fx);
    }

    pub(super) fn on_seq_chat(&mut self, id: MemberId, link: LinkId, msg: &SeqChat, fx: &mut Fx) {
        if self.follow(id, link, msg.term, fx) {
            self.take(link, msg, fx);
        }
    }

    /// Takes entries of the leader, or of the source of a candidate; they make no sender a leader.
    pub(super) fn on_catchup_resp(
        &mut self,
        id: MemberId,
        link: LinkId,
        msg: &SeqChat,
        fx: &mut Fx,
    ) {
        if matches!(self.role_state, RoleState::Adopt(..)) {
            self.on_log_tail(id, msg, fx);
        } else if self.vote.is_leader(id) && msg.term == self.vote.term() {
            self.vote.hear(self.process.now());
            self.take(link, msg, fx);
        } else {
            self.drop_it("an answer that nobody waits for", fx);
        }
    }

    fn take(&mut self, link: LinkId, msg: &SeqChat, fx: &mut Fx) {
        let (sender_id, term) = (self.process.id(), self.vote.term());
        match self.apply(msg.prev_seq, msg.prev_term, &msg.entries, fx) {
            Ok(end) => {
                self.following.verify(end);
                self.learn_commit(msg.commit, fx);
                let has_news = !msg.entries.is_empty() && self.stored() < end;
                self.acknowledge(!has_news, fx);
            }
            Err(AppendError::Gap) => {
                let last_seq = self.log.last().seq;
                let ask = CatchupReq { sender_id, term, last_seq, tail: false };
                self.ask(link, Message::CatchupReq(ask), fx);
            }
            Err(AppendError::Conflict) => {
                let last_seq = self.log.commit();
                self.ask(link, Message::SeqNack(SeqNack { sender_id, term, last_seq }), fx);
            }
            Err(AppendError::Final(at)) => {
                self.drop_it("entries that contradict what is final", fx);
                if let Some(member) = self.vote.leader() {
                    self.report_divergence(member, at, fx);
                }
            }
            Err(AppendError::Nonsense) => {
                self.drop_it("entries that are no piece of a log", fx);
                self.refuse(link, NackCode::Malformed, "entries that are no piece of a log", fx);
            }
        }
    }

    /// Asks the leader to go on elsewhere, unless a question is on its way.
    fn ask(&mut self, link: LinkId, msg: Message, fx: &mut Fx) {
        let is_conflict = matches!(msg, Message::SeqNack(_));
        if self.following.ask(self.process.now(), is_conflict, self.config.heartbeat) {
            self.send(link, msg, fx);
        }
    }

    /// Appends entries at their places (R6). Returns the number up to which the log is
    /// the sender's then.
    pub(super) fn apply(
        &mut self,
        prev_seq: SeqNo,
        prev_term: Term,
        entries: &[Arc<Entry>],
        fx: &mut Fx,
    ) -> Result<SeqNo, AppendError> {
        let matches = self.config.keeps(Rule::Match);
        let it = fit(&self.log, (prev_seq, prev_term), entries, matches)?;
        if let Some(from) = it.cut {
            self.cut(from, fx);
        }
        for entry in &entries[it.known..] {
            self.append(Arc::clone(entry), fx);
        }
        Ok(it.end)
    }

    /// Takes the leader's commit, as far as the log is known to be the leader's.
    fn learn_commit(&mut self, commit: SeqNo, fx: &mut Fx) {
        let commit = self.following.learn_commit(commit);
        self.make_final(commit, fx);
        self.send_typed(fx);
    }

    /// Tells that a log differs, once in each term.
    fn report_divergence(&mut self, member: MemberId, at: SeqNo, fx: &mut Fx) {
        if self.following.diverge(self.vote.term()) {
            fx.emit(Event::Diverged { member, at });
        }
    }

    /// Tells the leader up to which number the disk has its log (R7): if that is news, or `always`.
    pub(super) fn acknowledge(&mut self, always: bool, fx: &mut Fx) {
        let link = self.vote.leader().and_then(|id| self.links.of_member(id));
        let Some(link) = link.filter(|_| !self.process.was_refused()) else { return };
        let (stored, now) = (self.stored(), self.process.now());
        if let Some(last_seq) = self.following.acknowledge(stored, always, now) {
            let (sender_id, term) = (self.process.id(), self.vote.term());
            self.send(link, Message::SeqAck(SeqAck { sender_id, term, last_seq }), fx);
        }
    }
}
