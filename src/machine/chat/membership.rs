//! Changes of the group's membership: agreed in the order itself, one at a time (C7).

use std::sync::Arc;

use super::config::{MEMBERS_MAX, REMOVED_MAX};
use super::event::{Effect, Event, Fx};
use super::group::{Duty, Group};
use crate::model::PublicKey;
use crate::proto::chat::entry::{Body, Member, MemberId, Membership};
use crate::proto::chat::message::{Message, RemoveReq};

/// Removal of a member that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// Public key of the member; a membership of that id with another key is not meant.
    pub(super) key: PublicKey,
    /// True if the key is refused from then on. A member that the seeds have certified to be gone
    /// may come back.
    pub(super) is_for_good: bool,
}

impl Group {
    pub(super) fn on_remove(&mut self, id: MemberId, fx: &mut Fx) {
        let member = self.log.membership().members.iter().find(|it| it.id == id);
        let Some(key) = member.map(|it| it.key) else {
            self.drop_it("a removal of somebody who is no member", fx);
            return;
        };
        self.removals.insert(id, Ending { key, is_for_good: true });
        self.send_removals(fx);
    }

    pub(super) fn on_certified(&mut self, key: PublicKey, fx: &mut Fx) {
        let member = self.log.membership().members.iter().find(|it| it.key == key);
        if let Some(id) = member.map(|it| it.id) {
            self.removals.entry(id).or_insert(Ending { key, is_for_good: false });
            self.send_removals(fx);
        }
    }

    pub(super) fn on_remove_req(&mut self, ask: RemoveReq, fx: &mut Fx) {
        let is_it = |it: &Member| it.id == ask.node_id && it.key == ask.key;
        if !self.log.membership().members.iter().any(is_it) {
            self.drop_it("a removal of somebody who is no member", fx);
        } else if matches!(self.duty, Duty::Lead(_)) {
            let ending = Ending { key: ask.key, is_for_good: !ask.certified };
            let known = self.removals.entry(ask.node_id).or_insert(ending);
            if ending.is_for_good || known.key != ask.key {
                *known = ending;
            }
        }
    }

    /// Tells the leader the members to remove; again until it is done.
    pub(super) fn send_removals(&mut self, fx: &mut Fx) {
        let Some(link) = self.leader.and_then(|id| self.links.of_member(id)) else { return };
        let sender_id = self.me.id;
        for (node_id, Ending { key, is_for_good }) in &self.removals {
            let ask =
                RemoveReq { sender_id, node_id: *node_id, key: *key, certified: !is_for_good };
            fx.send(link, Message::RemoveReq(ask));
        }
    }

    /// Appends the leader's next change, if the last one is final.
    pub(super) fn change_membership(&mut self, fx: &mut Fx) {
        let Duty::Lead(reign) = &self.duty else { return };
        if reign.handover.is_some() || self.log.is_changing() || !self.has_opened() {
            return;
        }
        let next = self.without_removed().or_else(|| self.moved()).or_else(|| self.with_learner());
        if let Some(next) = next {
            self.append_own(Body::Membership(Arc::new(next)), fx);
        }
    }

    fn without_removed(&self) -> Option<Membership> {
        let mut next = Membership::clone(self.log.membership());
        let ending = |it: &Member| self.removals.get(&it.id).filter(|ending| ending.key == it.key);
        let is_wanted = |it: &Member| ending(it).is_some();
        let at = next.members.iter().position(is_wanted)?;
        if next.members.len() == 1 {
            return None;
        }
        let is_for_good = ending(&next.members[at]).is_some_and(|it| it.is_for_good);
        let gone = next.members.remove(at);
        if is_for_good {
            next.removed.push(gone.key);
        }
        let surplus = next.removed.len().saturating_sub(REMOVED_MAX);
        next.removed.drain(..surplus);
        Some(next)
    }

    /// The membership with the new address of a member that has moved.
    fn moved(&self) -> Option<Membership> {
        let mut next = Membership::clone(self.log.membership());
        let here = [&self.me].into_iter();
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
        let Duty::Lead(reign) = &self.duty else { return None };
        let group = self.log.membership();
        let last = self.log.last().seq.0;
        let near = self.config.batch_entries as u64;
        let is_near = |id: MemberId| {
            let matched = reign.progress.get(&id).map_or(0, |it| it.matched.0);
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
        self.removals
            .retain(|id, key| now.members.iter().any(|it| it.id == *id && it.key == key.key));
        self.let_go_of_removed(now, fx);
        let is_one = now.members.iter().any(|it| it.id == self.me.id && it.key == self.me.key);
        if !is_one && !matches!(self.duty, Duty::Follow) {
            self.step_down(fx);
            self.leader = None;
        }
        if now.removed.contains(&self.me.key) {
            self.leader = None;
            if !self.was_refused {
                self.was_refused = true;
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
            self.vouched.remove(&id);
            if let Some(reign) = self.reign() {
                reign.progress.remove(&id);
                fx.extend(told.clone().map(|msg| Effect::Send { link, msg }));
            }
            fx.hangup(link);
        }
    }
}
