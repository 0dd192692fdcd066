//! Handover: a leader numbers no further message, brings its successor to its last entry, and lets
//! it stand at once (C8).

use std::time::Duration;

use super::event::{Event, Timer};
use super::replica::{Fx, Replica};
use crate::proto::chat::entry::{MemberId, SeqNo};
use crate::proto::chat::message::{Message, NackCode, TakeNow, TakeoverReq};

impl Replica {
    /// Asks for the lead if this member has the highest id, has caught up and could keep the lead.
    pub(super) fn take_over_if_due(&mut self, final_there: SeqNo, fx: &mut Fx) {
        let Some(leader) = self.vote.leader().filter(|it| *it < self.process.id()) else { return };
        let Some(link) = self.links.of_member(leader) else { return };
        let is_above = |id: MemberId| id > self.process.id() && self.has_member(id);
        let is_highest = !self.links.members().any(|(id, ..)| is_above(id));
        let has_caught_up = self.log.commit() >= final_there;
        let may = self.config.takeover && !self.process.is_leaving() && is_highest;
        let now = self.process.now();
        if !may || !has_caught_up || !self.vote.may_ask_for_lead(now) {
            return;
        }
        if self.reaches_majority() {
            self.vote.pause_takeover(now.after(self.config.takeover_cooldown));
            let ask = TakeoverReq { sender_id: self.process.id(), term: self.vote.term() };
            self.send(link, Message::TakeoverReq(ask), fx);
        }
    }

    pub(super) fn on_takeover_req(&mut self, id: MemberId, ask: TakeoverReq, fx: &mut Fx) {
        let Some(link) = self.links.of_member(id) else { return };
        let is_free = self.role_state.leading().is_some_and(|it| !it.hands_over());
        let is_higher = id >= self.process.id();
        if ask.term != self.vote.term() || !is_higher || !is_free || !self.has_opened() {
            self.refuse(link, NackCode::Busy, "no handover now", fx);
            return;
        }
        self.begin_handover(id, self.config.leader_timeout, fx);
    }

    fn begin_handover(&mut self, target: MemberId, wait: Duration, fx: &mut Fx) {
        if let Some(leading) = self.role_state.leading_mut() {
            leading.begin_handover(target);
            fx.set_timer(Timer::Takeover, wait);
            self.hand_over_if_ready(fx);
        }
    }

    pub(super) fn hand_over_if_ready(&mut self, fx: &mut Fx) {
        let (sender_id, term) = (self.process.id(), self.vote.term());
        let last_seq = self.log.last().seq;
        if let Some(link) = self.role_state.leading_mut().and_then(|it| it.tell_successor(last_seq))
        {
            fx.send(link, Message::TakeNow(TakeNow { sender_id, term, last_seq }));
        }
    }

    pub(super) fn on_takeover_timer(&mut self, fx: &mut Fx) {
        if self.process.is_leaving() {
            self.end(fx);
            return;
        }
        if let Some(leading) = self.role_state.leading_mut()
            && leading.end_handover()
        {
            self.drop_it("a handover that came to nothing", fx);
            self.pending.begin_again();
            self.send_typed(fx);
        }
    }

    pub(super) fn on_take_now(&mut self, id: MemberId, msg: TakeNow, fx: &mut Fx) {
        let is_of_now = self.vote.is_leader(id) && msg.term == self.vote.term();
        let (last, verified) = (self.log.last().seq, self.following.verified());
        let fits = last == msg.last_seq && verified == msg.last_seq;
        let can_stand = self.is_member() && !self.process.is_leaving() && self.role_state.follows();
        if !is_of_now || !fits || !can_stand {
            self.drop_it("a handover that does not fit", fx);
            return;
        }
        self.start_election(true, false, "the leader hands over", fx);
    }

    /// Ends the process: a leader hands over first, if a successor is linked.
    pub(super) fn on_leave(&mut self, fx: &mut Fx) {
        self.process.leave();
        let members = self.links.members().map(|(id, ..)| id).filter(|id| self.has_member(*id));
        let target = members.max();
        match target.filter(|_| self.role_state.leads()) {
            Some(target) => self.begin_handover(target, self.config.leave_timeout, fx),
            None => self.end(fx),
        }
    }

    /// Ends, if this member leaves and another one leads now.
    pub(super) fn end_if_leaving(&mut self, fx: &mut Fx) {
        if self.process.is_leaving() {
            self.end(fx);
        }
    }

    fn end(&mut self, fx: &mut Fx) {
        if self.process.end() {
            self.keep_commit(fx);
            fx.emit(Event::Gone);
        }
    }
}
