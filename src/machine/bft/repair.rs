//! Links, heartbeats, and the repetition of what is under way (rule B22).

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::config::{BftRule, OBSERVERS_MAX};
use super::event::{Event, Opening, Timer};
use super::replica::{BftReplica, Fx};
use crate::machine::LinkId;
use crate::proto::bft::VotePhase;
use crate::proto::bft::message::{Approve, Message, OrderStatus, PrePrepare};
use crate::proto::chat::entry::{Member, MemberId};

/// Least time between two repairs by one connection, whatever the other end says.
const REPAIR_PAUSE: Duration = Duration::from_millis(300);

/// Longest pause between two calls of a member.
const REDIAL_MAX: Duration = Duration::from_secs(2);

impl BftReplica {
    /// Calls a member. Of two members the one with the higher id calls; those that only follow the
    /// order call all.
    pub(super) fn dial(&self, member: Member, fx: &mut Fx) {
        let is_caller = !self.is_member() || member.id < self.me.id;
        if is_caller && member.key != self.me.keys.public() {
            fx.call(member);
        }
    }

    pub(super) fn on_dial_failed(&mut self, member: MemberId, fx: &mut Fx) {
        let failures = self.failures.entry(member).or_default();
        let pause = self.config.redial * 2_u32.pow((*failures).min(8));
        *failures += 1;
        fx.set_timer(Timer::Redial(member), pause.min(REDIAL_MAX));
    }

    pub(super) fn on_redial(&mut self, member: MemberId, fx: &mut Fx) {
        if self.links.of(member).is_none()
            && let Some(voter) = self.committee().voter(member)
        {
            self.dial(voter.member.clone(), fx);
        }
    }

    pub(super) fn on_opened(&mut self, link: LinkId, opening: &Opening, fx: &mut Fx) {
        let committee = Arc::clone(self.committee());
        let replaced = self.links.open(link, opening.key, &committee);
        let member = self.links.get(link).and_then(|it| it.member);
        let Some(member) = member else {
            if self.links.observers() > OBSERVERS_MAX {
                fx.hangup(link);
            } else {
                fx.send(link, Message::OrderStatus(self.progress()));
            }
            return;
        };
        match replaced {
            Some(old) => fx.hangup(old),
            None => fx.emit(Event::Reached(member)),
        }
        self.failures.remove(&member);
        if member == self.leader() {
            fx.stop_timer(Timer::LeaderBroken);
        }
        fx.send(link, Message::OrderStatus(self.progress()));
        self.ask_recall(link, fx);
        for lie in self.evidence.values() {
            fx.send(link, Message::Evidence(Arc::clone(lie)));
        }
        self.report_reach(fx);
    }

    pub(super) fn on_closed(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(member) = self.links.close(link) else { return };
        fx.emit(Event::Lost(member));
        fx.set_timer(Timer::Redial(member), self.config.redial);
        if member == self.leader() {
            fx.set_timer(Timer::LeaderBroken, self.config.leader_broken);
        }
        self.report_reach(fx);
    }

    /// Number of members in reach that vote, this one included.
    pub(super) fn voters_reached(&self) -> usize {
        self.links.voters() + usize::from(self.is_member() && self.recall.lost().is_none())
    }

    /// Members in reach that do not vote (B20), this one included.
    pub(super) fn silent_members(&self) -> Vec<MemberId> {
        let is_silent = |id: &MemberId| match *id == self.me.id {
            true => self.recall.lost().is_some(),
            false => self.links.is_silent(*id),
        };
        self.committee().voters().iter().map(|it| it.member.id).filter(is_silent).collect()
    }

    /// Reports that too few members that vote are in reach, or enough again. A start takes its
    /// time: it is no news that the others are not reached at once.
    pub(super) fn report_reach(&mut self, fx: &mut Fx) {
        let reached = self.voters_reached();
        let needed = self.committee().quorum();
        let is_halted = reached < needed;
        if !is_halted {
            self.start_beats = 0;
        }
        if is_halted != self.is_halted && self.start_beats == 0 {
            self.is_halted = is_halted;
            fx.emit(match is_halted {
                true => Event::Halted { reached, needed, silent: self.silent_members() },
                false => Event::Resumed,
            });
        }
    }

    /// Progress of this member.
    pub(super) fn progress(&self) -> OrderStatus {
        let settled = self.chain.settled();
        OrderStatus {
            epoch: settled.epoch,
            view: self.views.view(),
            active: self.views.is_active(),
            slot: settled.tip.slot,
            digest: settled.tip.digest,
            silent: self.recall.lost().is_some(),
        }
    }

    /// Tells all others the progress of this member, and whether it votes.
    pub(super) fn tell_progress(&self, fx: &mut Fx) {
        let links: Vec<_> = self.links.ids().collect();
        if !links.is_empty() {
            fx.send_all(links, Message::OrderStatus(self.progress()));
        }
    }

    pub(super) fn on_heartbeat(&mut self, fx: &mut Fx) {
        fx.set_timer(Timer::Heartbeat, self.config.heartbeat);
        self.links.refill();
        let is_stuck = self.heartbeat_slot == self.chain.settled().tip.slot;
        self.start_beats = self.start_beats.saturating_sub(1);
        self.report_reach(fx);
        let links: Vec<_> = self.links.ids().collect();
        for link in &links {
            fx.send(*link, Message::OrderStatus(self.progress()));
        }
        if self.config.keeps(BftRule::Repair) {
            for link in links {
                if is_stuck {
                    self.catch_up(link, fx);
                    self.repair(link, fx);
                }
            }
        }
        if is_stuck {
            self.show_due(fx);
        }
        self.heartbeat_slot = self.chain.settled().tip.slot;
        self.repeat_recall(fx);
        self.call_if_alone(fx);
        self.renew(fx);
        self.release(fx);
    }

    /// Calls another member whoever's turn it is, if nobody is in reach: the others may have
    /// removed this one while it was away, and call it no more.
    fn call_if_alone(&mut self, fx: &mut Fx) {
        if self.links.ids().next().is_some() {
            return;
        }
        let committee = Arc::clone(self.committee());
        let voter = &committee.voters()[self.rng.random_range(0..committee.len())];
        if voter.member.key != self.me.keys.public() {
            fx.call(voter.member.clone());
        }
    }

    /// Shows the leader what it could place: its author may have told others only, who would give
    /// the leader up for it.
    fn show_due(&self, fx: &mut Fx) {
        let Some(link) = self.links.of(self.leader()) else { return };
        for bundle in self.pool.all_due(&self.chain.tip().marks) {
            fx.send(link, Message::Bundle(Arc::clone(bundle)));
        }
    }

    pub(super) fn on_status(&mut self, link: LinkId, status: OrderStatus, fx: &mut Fx) {
        let own = self.progress();
        let Some(it) = self.links.get_mut(link) else { return };
        let before = it.status.replace(status);
        let is_first = before.is_none();
        if before.is_some_and(|it| it.silent) != status.silent {
            self.report_reach(fx);
        }
        if !self.config.keeps(BftRule::Repair) {
            return;
        }
        let far = own.slot.ahead(2 * self.config.window);
        if status.slot > far || is_first || self.heartbeat_slot == own.slot {
            self.catch_up(link, fx);
        }
        let is_elsewhere =
            (status.epoch, status.view, status.active) != (own.epoch, own.view, own.active);
        if is_first || is_elsewhere {
            self.repair(link, fx);
        }
        self.release(fx);
    }

    /// Says again to a member what is under way, as far as it seems to lack it.
    fn repair(&mut self, link: LinkId, fx: &mut Fx) {
        let now = self.now.mono;
        let Some(it) = self.links.get_mut(link) else { return };
        let Some(status) = it.status.filter(|_| it.member.is_some()) else { return };
        if it.repaired.is_some_and(|at| now.since(at) < REPAIR_PAUSE) {
            return;
        }
        it.repaired = Some(now);
        for bundle in self.outbox.bundles() {
            fx.send(link, Message::Bundle(Arc::clone(bundle)));
        }
        for change in self.pool.changes() {
            fx.send(link, Message::Change(Arc::clone(change)));
        }
        for (change, given) in self.consents.values() {
            if let Some(approval) = given.get(&self.me.id) {
                let (epoch, change) = (self.epoch(), change.clone());
                let approval = *approval;
                fx.send(link, Message::Approve(Approve { epoch, change, approval }));
            }
        }
        if status.epoch != self.epoch() {
            return;
        }
        let view = self.views.view();
        if let Some(wish) = self.views.wish_of(self.me.id)
            && (wish.view > view || !self.views.is_active() || status.view < view)
        {
            fx.send(link, Message::Suspect(wish.clone()));
        }
        if !self.disk.is_promise_kept() {
            return;
        }
        if !self.views.is_active() {
            if let Some(change) = self.views.change_of(self.me.id) {
                fx.send(link, Message::ViewChange(Arc::clone(change)));
            }
            return;
        }
        let is_behind = status.view < view || status.view == view && !status.active;
        if is_behind
            && self.leads()
            && let Some(beginning) = self.views.new_view()
        {
            fx.send(link, Message::NewView(Arc::clone(beginning)));
        }
        if status.view <= view {
            self.repeat_votes(link, fx);
        }
    }

    /// Says again this member's proposals and votes for the slots that are not final.
    fn repeat_votes(&self, link: LinkId, fx: &mut Fx) {
        let (view, me) = (self.views.view(), self.me.id);
        for placed in self.chain.accepted() {
            let slot = placed.after.tip.slot;
            let vote = self.votes.of(VotePhase::Prepare, (view, slot), me);
            if let Some(vote) = vote {
                if self.leads() {
                    let header = placed.content.header.clone();
                    let signature = vote.signature;
                    let proposal = PrePrepare { sender_id: me, view, header, signature };
                    fx.send(link, Message::PrePrepare(Arc::new(proposal)));
                }
                fx.send(link, Message::Prepare(*vote));
            }
            if let Some(vote) = self.votes.of(VotePhase::Commit, (view, slot), me) {
                fx.send(link, Message::Commit(*vote));
            }
        }
    }
}
