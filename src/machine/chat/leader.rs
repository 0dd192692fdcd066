//! Leading: the leader's own first entry (R4), the final entries (R8), and the end of a leadership.

use std::sync::Arc;

use super::config::{Rule, SEQ_MAX};
use super::duty::RoleState;
use super::event::Timer;
use super::reign::LeaderState;
use super::replica::{Fx, Replica};
use crate::machine::quorum::majority;
use crate::proto::chat::entry::{Body, Entry, MemberId};
use crate::proto::chat::message::{Coordinator, Message};

impl Replica {
    /// Begins to lead, with `first` as the first entry.
    pub(super) fn lead(&mut self, promises: Vec<MemberId>, first: Body, fx: &mut Fx) {
        let first_index = self.log.last().seq.next();
        self.role_state =
            RoleState::Lead(LeaderState::new(first_index, promises, self.process.now()));
        self.vote.lead(self.process.id());
        fx.stop_timer(Timer::Election);
        fx.stop_timer(Timer::Catchup);
        fx.set_timer(Timer::Heartbeat, self.config.heartbeat);
        fx.set_timer(Timer::Quorum, self.config.leader_timeout);
        let linked: Vec<_> = self.links.members().map(|(id, link, _)| (id, link)).collect();
        for (id, link) in linked {
            self.on_follower_linked(id, link, fx);
        }
        self.append_own(first, fx);
        self.pending.begin_again();
        self.send_typed(fx);
        self.advance_commit(fx);
    }

    pub(super) fn coordinator(&self) -> Message {
        Message::Coordinator(Coordinator {
            sender_id: self.process.id(),
            term: self.vote.term(),
            commit: self.log.commit(),
            membership: vec![self.process.member().clone()],
        })
    }

    /// Appends an entry with the next number.
    pub(super) fn append_own(&mut self, body: Body, fx: &mut Fx) {
        let seq_no = self.log.last().seq.next();
        if seq_no.0 > SEQ_MAX {
            self.drop_it("the order is full", fx);
            return;
        }
        let (term, leader, time) = (self.vote.term(), self.process.id(), self.process.wall());
        self.append(Arc::new(Entry { seq_no, term, leader, time, body }), fx);
        if !self.config.keeps(Rule::Majority) {
            self.advance_commit(fx);
        }
    }

    /// Makes final the entries that a majority has on disk by now (R8).
    pub(super) fn advance_commit(&mut self, fx: &mut Fx) {
        loop {
            let Some(leading) = self.role_state.leading() else { return };
            let own = (self.process.id(), self.stored());
            let bound = leading.committable(&self.log, self.vote.term(), own, &self.config);
            let Some(bound) = bound else { return };
            let had = self.log.commit();
            self.make_final(bound, fx);
            // An entry that became final may have ended this leadership (C7). If it has not, it may
            // have ended a change of the membership: then fewer are counted, and more is final.
            if self.log.commit() == had || !self.role_state.leads() {
                return;
            }
            if self.has_opened() {
                self.report_quorum(true, fx);
            }
        }
    }

    /// True if this member leads, and the first entry of its term is final (R4): it knows all final
    /// entries.
    pub(super) fn has_opened(&self) -> bool {
        self.role_state.leading().is_some_and(|leading| leading.has_opened(self.log.commit()))
    }

    pub(super) fn on_heartbeat_timer(&mut self, fx: &mut Fx) {
        let Some(mut replication) = self.replication() else { return };
        replication.beat(fx);
        fx.set_timer(Timer::Heartbeat, self.config.heartbeat);
        self.change_membership(fx);
    }

    /// Steps down if this leader hears no majority (L1).
    pub(super) fn on_quorum_timer(&mut self, fx: &mut Fx) {
        let patience = self.config.leader_timeout;
        let Some(leading) = self.role_state.leading() else { return };
        let group = self.log.membership();
        let heard = leading.heard(group, self.process.id(), self.process.now(), patience);
        if heard >= majority(group.members.len()) || !self.config.keeps(Rule::Quorum) {
            fx.set_timer(Timer::Quorum, patience / 4);
            return;
        }
        self.step_down(fx);
        self.report_quorum(false, fx);
        self.refuse_clients(fx);
    }
}
