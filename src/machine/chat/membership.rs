//! Changes of the group's membership: agreed in the order itself, one at a time (C7).

use std::sync::Arc;

use super::config::{MEMBERS_MAX, REMOVED_MAX};
use super::event::Event;
use super::removals::MemberRemoval;
use super::replica::{Effect, Fx, Replica};
use crate::model::PublicKey;
use crate::proto::chat::entry::{Body, Member, MemberId, Membership};
use crate::proto::chat::message::{Message, RemoveReq};

impl Replica {
    pub(super) fn on_remove(&mut self, id: MemberId, fx: &mut Fx) {
        let member = self.log.membership().members.iter().find(|it| it.id == id);
        let Some(key) = member.map(|it| it.key) else {
            self.drop_it("a removal of somebody who is no member", fx);
            return;
        };
        self.removals.want(id, MemberRemoval { key, is_for_good: true });
        self.send_removals(fx);
    }

    pub(super) fn on_certified(&mut self, key: PublicKey, fx: &mut Fx) {
        let member = self.log.membership().members.iter().find(|it| it.key == key);
        if let Some(id) = member.map(|it| it.id) {
            self.removals.certify(id, key);
            self.send_removals(fx);
        }
    }

    pub(super) fn on_remove_req(&mut self, ask: RemoveReq, fx: &mut Fx) {
        let is_it = |it: &Member| it.id == ask.node_id && it.key == ask.key;
        if !self.log.membership().members.iter().any(is_it) {
            self.drop_it("a removal of somebody who is no member", fx);
        } else if self.role_state.leads() {
            let ending = MemberRemoval { key: ask.key, is_for_good: !ask.certified };
            self.removals.want(ask.node_id, ending);
        }
    }

    /// Tells the leader the members to remove; again until it is done.
    pub(super) fn send_removals(&mut self, fx: &mut Fx) {
        let Some(link) = self.vote.leader().and_then(|id| self.links.of_member(id)) else { return };
        let sender_id = self.process.id();
        for (node_id, MemberRemoval { key, is_for_good }) in self.removals.iter() {
            let ask = RemoveReq { sender_id, node_id, key, certified: !is_for_good };
            fx.send(link, Message::RemoveReq(ask));
        }
    }

    /// Appends the leader's next change, if the last one is final.
    pub(super) fn change_membership(&mut self, fx: &mut Fx) {
        let Some(leading) = self.role_state.leading() else { return };
        // C7: one change at a time, so that two memberships in use always share a majority's
        // member. R4: the last change may be an earlier leader's, and not known to be final before
        // this one has opened its term.
        if leading.hands_over() || self.log.is_changing() || !self.has_opened() {
            return;
        }
        let next = self.without_removed().or_else(|| self.moved()).or_else(|| self.with_learner());
        if let Some(next) = next {
            self.append_own(Body::Membership(Arc::new(next)), fx);
        }
    }

    fn without_removed(&self) -> Option<Membership> {
        let mut next = Membership::clone(self.log.membership());
        let is_wanted = |it: &Member| self.removals.of(it).is_some();
        let at = next.members.iter().position(is_wanted)?;
        if next.members.len() == 1 {
            return None;
        }
        let gone = next.members.remove(at);
        if self.removals.of(&gone).is_some_and(|it| it.is_for_good) {
            next.removed.push(gone.key);
        }
        let surplus = next.removed.len().saturating_sub(REMOVED_MAX);
        next.removed.drain(..surplus);
        Some(next)
    }

    /// The membership with the new address of a member that has moved.
    fn moved(&self) -> Option<Membership> {
        let mut next = Membership::clone(self.log.membership());
        let here = [self.process.member()].into_iter();
        let mut known = here.chain(self.links.members().map(|(_, _, member)| member));
        let moved = known.find_map(|now| {
            let is_moved = |it: &Member| it.id == now.id && it.key == now.key && it.at != now.at;
            Some((next.members.iter().position(is_moved)?, now.at))
        });
        let (at, place) = moved?;
        next.members[at].at = place;
        Some(next)
    }

    /// The membership with a learner that has nearly all entries.
    fn with_learner(&self) -> Option<Membership> {
        let leading = self.role_state.leading()?;
        let group = self.log.membership();
        let last = self.log.last().seq.0;
        let near = self.config.batch_entries as u64;
        let is_near = |id: MemberId| {
            let matched = leading.matched(id).map_or(0, |it| it.0);
            matched > 0 && matched + near > last
        };
        let is_new = |it: &Member| {
            let is_other = |old: &Member| old.id != it.id && old.key != it.key;
            group.members.iter().all(is_other) && !group.removed.contains(&it.key)
        };
        let mut linked = self.links.members().map(|(_, _, member)| member);
        let learner = linked.find(|it| is_new(it) && is_near(it.id))?.clone();
        if group.members.len() >= MEMBERS_MAX {
            return None;
        }
        let mut next = Membership::clone(group);
        let at = next.members.partition_point(|it| it.id < learner.id);
        next.members.insert(at, learner);
        Some(next)
    }

    pub(super) fn on_membership_final(&mut self, now: &Arc<Membership>, fx: &mut Fx) {
        fx.emit(Event::MembershipChanged(Arc::clone(now)));
        self.removals.on_final(now);
        self.let_go_of_removed(now, fx);
        let is_one = now.members.iter().any(|it| self.process.is(it));
        if !is_one && !self.role_state.follows() {
            self.step_down(fx);
            self.vote.lose_leader();
        }
        if now.removed.contains(&self.process.member().key) {
            self.vote.lose_leader();
            if self.process.refuse() {
                let reason = "removed from the group for good".to_owned();
                fx.emit(Event::Refused { reason });
            }
        }
    }

    /// Tells the removed members, and closes their links.
    fn let_go_of_removed(&mut self, now: &Membership, fx: &mut Fx) {
        let removed = self.links.members().filter(|(.., it)| now.removed.contains(&it.key));
        let removed: Vec<_> = removed.map(|(id, link, _)| (id, link)).collect();
        let told = self.heartbeat();
        for (id, link) in removed {
            self.links.unvouch(id);
            if let Some(leading) = self.role_state.leading_mut() {
                leading.forget(id);
                fx.extend(told.clone().map(|msg| Effect::Send { link, msg }));
            }
            fx.hangup(link);
        }
    }
}
