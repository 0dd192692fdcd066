//! Leading: the leader's own first entry (R4), the final entries (R8), and the end of a leadership.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{Rule, SEQ_MAX};
use super::event::{Fx, Timer};
use super::group::{Duty, Group};
use super::replicate::Progress;
use super::takeover::Handover;
use crate::machine::LinkId;
use crate::machine::quorum::majority;
use crate::model::PublicKey;
use crate::proto::chat::entry::{Body, Entry, MemberId, Membership, SeqNo};
use crate::proto::chat::message::{Coordinator, Heartbeat, Message};

/// State of a leader in its term.
#[derive(Debug)]
pub(super) struct Reign {
    /// Number of its first entry; a predecessor's entries are not final by themselves before it is.
    pub(super) opening: SeqNo,
    pub(super) promises: Vec<MemberId>,
    pub(super) progress: BTreeMap<MemberId, Progress>,
    pub(super) handover: Option<Handover>,
    /// Last entries that the members of these keys had acknowledged when their connections ended.
    pub(super) acknowledged: BTreeMap<PublicKey, SeqNo>,
    /// Time at which the term began, for members not heard yet.
    pub(super) since: crate::model::Time,
    /// Time at which the commit was last told by itself.
    pub(super) told_at: Option<crate::model::Time>,
}

impl Group {
    pub(super) const fn reign(&mut self) -> Option<&mut Reign> {
        match &mut self.duty {
            Duty::Lead(reign) => Some(reign),
            Duty::Follow | Duty::Stand(_) | Duty::Adopt(..) => None,
        }
    }

    /// Begins to lead, with `first` as the first entry.
    pub(super) fn lead(&mut self, promises: Vec<MemberId>, first: Body, fx: &mut Fx) {
        let opening = self.log.last().seq.next();
        let since = self.now.mono;
        self.duty = Duty::Lead(Reign {
            opening,
            promises,
            progress: BTreeMap::new(),
            handover: None,
            acknowledged: BTreeMap::new(),
            since,
            told_at: None,
        });
        self.leader = Some(self.me.id);
        self.objections = 0;
        self.on_successor(fx);
        fx.stop_timer(Timer::Election);
        fx.stop_timer(Timer::Catchup);
        fx.set_timer(Timer::Heartbeat, self.config.heartbeat);
        fx.set_timer(Timer::Quorum, self.config.leader_timeout);
        let linked: Vec<_> = self.links.members().map(|(id, link, _)| (id, link)).collect();
        for (id, link) in linked {
            self.on_follower_linked(id, link, fx);
        }
        self.append_own(first, fx);
        self.outbox.begin_again();
        self.send_typed(fx);
        self.advance_commit(fx);
    }

    pub(super) fn coordinator(&self) -> Message {
        Message::Coordinator(Coordinator {
            sender_id: self.me.id,
            term: self.term,
            commit: self.log.commit(),
            membership: vec![self.me.clone()],
        })
    }

    /// Appends an entry with the next number.
    pub(super) fn append_own(&mut self, body: Body, fx: &mut Fx) {
        let seq_no = self.log.last().seq.next();
        if seq_no.0 > SEQ_MAX {
            self.drop_it("the order is full", fx);
            return;
        }
        let (term, leader, time) = (self.term, self.me.id, self.now.wall);
        self.append(Arc::new(Entry { seq_no, term, leader, time, body }), fx);
        if !self.config.keeps(Rule::Majority) {
            self.advance_commit(fx);
        }
    }

    /// Makes final the entries that a majority has on disk by now (R8).
    pub(super) fn advance_commit(&mut self, fx: &mut Fx) {
        let Duty::Lead(reign) = &self.duty else { return };
        let opening = reign.opening;
        loop {
            // A leader that adds a member waits for a majority without that one, too: then every
            // survivor of the others knows it.
            let before = self.log.before_addition(self.term).map(|it| self.stored_by_majority(it));
            let now = self.stored_by_majority(self.log.membership());
            let all = before.map_or(now, |it| it.min(now));
            let had = self.log.commit();
            if all <= had || (all < opening && self.config.keeps(Rule::OwnTerm)) {
                return;
            }
            self.make_final(all, fx);
            if self.log.commit() == had || !matches!(self.duty, Duty::Lead(_)) {
                return;
            }
            if self.log.commit() >= opening {
                self.tell_quorum(true, fx);
            }
        }
    }

    fn stored_by_majority(&self, group: &Membership) -> SeqNo {
        if !self.config.keeps(Rule::Majority) {
            return self.log.last().seq;
        }
        let Duty::Lead(reign) = &self.duty else { return SeqNo(0) };
        let stored_by = |id: MemberId| match id == self.me.id {
            true => self.stored(),
            false => reign.progress.get(&id).map_or(SeqNo(0), |it| it.matched),
        };
        let mut all: Vec<_> = group.members.iter().map(|it| stored_by(it.id)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all[majority(all.len()) - 1]
    }

    /// True if the first entry of this term is final.
    pub(super) fn has_opened(&self) -> bool {
        matches!(&self.duty, Duty::Lead(reign) if self.log.commit() >= reign.opening)
    }

    pub(super) fn heartbeat(&self) -> Option<Message> {
        let commit = self.log.commit();
        let hash = self.log.chain_at(commit)?;
        let (sender_id, term) = (self.me.id, self.term);
        Some(Message::Heartbeat(Heartbeat { sender_id, term, commit, hash }))
    }

    pub(super) fn on_heartbeat_timer(&mut self, fx: &mut Fx) {
        let commit = self.log.commit();
        let msg = self.heartbeat();
        let last = self.log.last().seq;
        let Some(reign) = self.reign() else { return };
        for progress in reign.progress.values_mut() {
            progress.look_for_stall(last);
            progress.told = commit;
        }
        let links: Vec<LinkId> = reign.progress.values().map(|it| it.link).collect();
        if let (Some(msg), false) = (msg, links.is_empty()) {
            fx.send_all(links, msg);
        }
        fx.set_timer(Timer::Heartbeat, self.config.heartbeat);
        self.change_membership(fx);
    }

    /// Steps down if this leader hears no majority (L1).
    pub(super) fn on_quorum_timer(&mut self, fx: &mut Fx) {
        let patience = self.config.leader_timeout;
        let now = self.now.mono;
        let Duty::Lead(reign) = &self.duty else { return };
        let members = &self.log.membership().members;
        let is_heard = |id: MemberId| {
            id == self.me.id
                || reign.progress.get(&id).is_some_and(|it| now.since(it.heard) < patience)
        };
        let heard = members.iter().filter(|it| is_heard(it.id)).count();
        if heard >= majority(members.len()) || !self.config.keeps(Rule::Quorum) {
            fx.set_timer(Timer::Quorum, patience / 4);
            return;
        }
        self.step_down(fx);
        self.tell_quorum(false, fx);
        self.refuse_clients(fx);
    }
}
