//! Handover: a leader numbers no further message, brings its successor to its last entry, and lets
//! it stand at once (C8).

use super::event::{Event, Fx, Timer};
use super::group::{Duty, Group};
use crate::model::Time;
use crate::proto::chat::entry::{MemberId, SeqNo};
use crate::proto::chat::message::{Message, NackCode, TakeNow, TakeoverReq};

/// State of a higher id between its requests.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    pub(super) not_before: Time,
}

/// State of a leader that hands over.
#[derive(Debug)]
pub(super) struct Handover {
    target: MemberId,
    is_told: bool,
}

impl Group {
    /// Asks for the lead if this member has the highest id, has caught up and could keep the lead.
    pub(super) fn take_over_if_due(&mut self, final_there: SeqNo, fx: &mut Fx) {
        let Some(leader) = self.leader.filter(|it| *it < self.me.id) else { return };
        let Some(link) = self.links.of_member(leader) else { return };
        let is_highest =
            !self.links.members().any(|(id, ..)| id > self.me.id && self.has_member(id));
        let has_caught_up = self.log.commit() >= final_there;
        let may = self.config.takeover && !self.is_leaving && is_highest;
        if !may || !has_caught_up || self.now.mono < self.takeover.not_before {
            return;
        }
        if self.reaches_majority() {
            self.takeover.not_before = self.now.mono.after(self.config.takeover_cooldown);
            let ask = TakeoverReq { sender_id: self.me.id, term: self.term };
            self.send(link, Message::TakeoverReq(ask), fx);
        }
    }

    pub(super) fn on_takeover_req(&mut self, id: MemberId, ask: TakeoverReq, fx: &mut Fx) {
        let Some(link) = self.links.of_member(id) else { return };
        let is_free = matches!(&self.duty, Duty::Lead(it) if it.handover.is_none());
        if ask.term != self.term || id < self.me.id || !is_free || !self.has_opened() {
            self.refuse(link, NackCode::Busy, "no handover now", fx);
            return;
        }
        self.begin_handover(id, self.config.leader_timeout, fx);
    }

    fn begin_handover(&mut self, target: MemberId, wait: std::time::Duration, fx: &mut Fx) {
        if let Some(reign) = self.reign() {
            reign.handover = Some(Handover { target, is_told: false });
            fx.set_timer(Timer::Takeover, wait);
            self.hand_over_if_ready(fx);
        }
    }

    pub(super) fn hand_over_if_ready(&mut self, fx: &mut Fx) {
        let (sender_id, term, last_seq) = (self.me.id, self.term, self.log.last().seq);
        let Some(reign) = self.reign() else { return };
        let Some(handover) = reign.handover.as_mut().filter(|it| !it.is_told) else { return };
        let progress = reign.progress.get(&handover.target);
        let Some(progress) = progress.filter(|it| it.matched == last_seq) else { return };
        handover.is_told = true;
        let msg = Message::TakeNow(TakeNow { sender_id, term, last_seq });
        fx.send(progress.link, msg);
    }

    pub(super) fn on_takeover_timer(&mut self, fx: &mut Fx) {
        if self.is_leaving {
            self.end(fx);
            return;
        }
        if let Some(reign) = self.reign()
            && reign.handover.take().is_some()
        {
            self.drop_it("a handover that came to nothing", fx);
            self.outbox.begin_again();
            self.send_typed(fx);
        }
    }

    pub(super) fn on_take_now(&mut self, id: MemberId, msg: TakeNow, fx: &mut Fx) {
        let is_meant = self.leader == Some(id) && msg.term == self.term && self.is_member();
        let fits = self.log.last().seq == msg.last_seq && self.verified == msg.last_seq;
        if !is_meant || !fits || self.is_leaving || !matches!(self.duty, Duty::Follow) {
            self.drop_it("a handover that does not fit", fx);
            return;
        }
        self.stand(true, false, "the leader hands over", fx);
    }

    /// Ends the process: a leader hands over first, if a successor is linked.
    pub(super) fn on_leave(&mut self, fx: &mut Fx) {
        self.is_leaving = true;
        let members = self.links.members().map(|(id, ..)| id).filter(|id| self.has_member(*id));
        let target = members.max();
        match target.filter(|_| matches!(self.duty, Duty::Lead(_))) {
            Some(target) => self.begin_handover(target, self.config.leave_timeout, fx),
            None => self.end(fx),
        }
    }

    /// Notes a new leader; a member that leaves ends then.
    pub(super) fn on_successor(&mut self, fx: &mut Fx) {
        if self.leader == Some(self.me.id) {
            self.takeover = Takeover::default();
        } else if self.is_leaving {
            self.end(fx);
        }
    }

    fn end(&mut self, fx: &mut Fx) {
        if !self.is_gone {
            self.is_gone = true;
            self.keep_commit(fx);
            fx.emit(Event::Gone);
        }
    }
}
