//! Reach: the connections that are let in, and the members to call.

use std::time::Duration;

use super::config::{LINKS_MAX, STRANGERS_MAX};
use super::duty::RoleState;
use super::event::{Event, Timer};
use super::links::{Link, Linked};
use super::replica::{Fx, Replica};
use crate::machine::LinkId;
use crate::proto::chat::entry::{GroupId, Member, MemberId};
use crate::proto::chat::message::NackCode;

/// Longest pause between two calls.
const REDIAL_MAX: Duration = Duration::from_secs(2);

impl Replica {
    /// Checks that the driver may admit a member's connection.
    ///
    /// # Errors
    /// The code of the refusal to answer with.
    pub fn admits(&self, member: &Member, group: Option<GroupId>) -> Result<(), NackCode> {
        // By the final membership: a leader that was cut off may have written removals that
        // never became final.
        let membership = self.log.final_membership();
        if membership.removed.contains(&member.key) {
            return Err(NackCode::Removed);
        }
        if group.is_some() && self.identity.group().is_some() && group != self.identity.group() {
            return Err(NackCode::OtherGroup);
        }
        let is_other = |it: &Member| (it.id == member.id) != (it.key == member.key);
        // A member that was away may know the id as a former machine's, and the one that a member
        // has named may lead now. Two majorities of ids still meet in a member that knows better.
        let is_named = !self.hears_leader()
            && self.links.vouched(member.id).is_some_and(|it| it.key == member.key);
        let is_taken = !is_named && membership.members.iter().any(is_other);
        if is_taken || is_other(self.process.member()) || member.id == self.process.id() {
            // A refusal ends the other process: only a member that knows the newest
            // membership sends it.
            let is_sure = !is_taken || self.knows_the_newest();
            return Err(if is_sure { NackCode::IdTaken } else { NackCode::Busy });
        }
        Ok(())
    }

    /// True if this member leads, or hears its leader and has all entries that were final when it
    /// was heard first.
    fn knows_the_newest(&self) -> bool {
        self.role_state.leads() || self.hears_leader() && self.has_caught_up()
    }

    pub(super) fn on_linked(&mut self, link: LinkId, new: Link, fx: &mut Fx) {
        let member = new.member();
        let (id, is_client) = (member.id, new.is_client());
        let verdict = if is_client { Ok(()) } else { self.admits(member, self.identity.group()) };
        if let Err(code) = verdict {
            self.drop_it("a connection of somebody who is not let in", fx);
            self.refuse(link, code, "not let into this group", fx);
            fx.hangup(link);
            return;
        }
        let is_stranger = !is_client && !self.is_trusted(member);
        let strangers = || self.links.members().filter(|(id, ..)| !self.has_member(*id)).count();
        if self.links.len() >= LINKS_MAX || is_stranger && strangers() >= STRANGERS_MAX {
            self.refuse(link, NackCode::Busy, "too many connections", fx);
            fx.hangup(link);
            return;
        }
        let is_rival = !is_client && self.is_rival(&new);
        self.links.add(link, new);
        if is_client {
            return;
        }
        if is_rival {
            self.turn_away(id, link, fx);
            return;
        }
        fx.stop_timer(Timer::Redial(id));
        match self.links.count(link, self.process.id(), self.process.now()) {
            Linked::Surplus => {
                fx.hangup(link);
                return;
            }
            Linked::Instead(old) => fx.hangup(old),
            Linked::First => fx.emit(Event::Reached(id)),
        }
        self.on_reached(id, link, fx);
    }

    fn on_reached(&mut self, id: MemberId, link: LinkId, fx: &mut Fx) {
        match &self.role_state {
            RoleState::Lead(_) => self.on_follower_linked(id, link, fx),
            RoleState::Stand(_) | RoleState::Adopt(..) => self.request_votes(fx),
            RoleState::Follow if self.vote.is_leader(id) => {
                self.pending.begin_again();
                self.following.reconnect();
            }
            RoleState::Follow => {}
        }
    }

    pub(super) fn on_unlinked(&mut self, link: LinkId, fx: &mut Fx) {
        let Some((gone, counted)) = self.links.remove(link) else { return };
        let id = gone.member().id;
        if gone.is_client() {
            self.pending.forget_client(link);
        }
        if !counted {
            return;
        }
        self.rivals.forget(id);
        fx.emit(Event::Lost(id));
        self.redial_later(id, fx);
        match &mut self.role_state {
            RoleState::Lead(leading) => leading.unlink(id),
            RoleState::Adopt(_, recovery) if recovery.source == id => self.on_source_lost(fx),
            RoleState::Follow if self.vote.is_leader(id) => self.on_leader_lost(fx),
            RoleState::Follow | RoleState::Stand(_) | RoleState::Adopt(..) => {}
        }
    }

    pub(super) fn on_dial_failed(&mut self, member: MemberId, fx: &mut Fx) {
        if self.links.is_calling(member) {
            self.redial_later(member, fx);
        }
    }

    fn redial_later(&mut self, id: MemberId, fx: &mut Fx) {
        let tries = self.links.on_failed(id);
        let wait = self.config.redial.saturating_mul(1 << (tries - 1).min(4)).min(REDIAL_MAX);
        fx.set_timer(Timer::Redial(id), wait + self.process.jitter(50));
    }

    pub(super) fn on_redial(&mut self, id: MemberId, fx: &mut Fx) {
        let wanted = self.wanted().into_iter().find(|it| it.id == id);
        match wanted {
            Some(member) if self.links.call_again(id) => fx.call(member),
            _ => self.links.stop_calls(id),
        }
    }

    /// All members that should be linked. A member that was last named at another address than the
    /// log's is called at both in turn.
    fn wanted(&self) -> Vec<Member> {
        let (newest, last) = (self.log.membership(), self.log.final_membership());
        let is_new = |it: &&Member| !last.removed.contains(&it.key) && !self.has_member(it.id);
        let known = last.members.iter().filter(is_new).chain(&newest.members);
        let is_unknown =
            |it: &&Member| is_new(it) && last.members.iter().all(|old| old.id != it.id);
        let named = self.links.all_vouched().filter(is_unknown).cloned();
        let known = known.map(|it| {
            let is_elsewhere = self.links.calls_elsewhere(it.id);
            let elsewhere = self.links.vouched(it.id).filter(|_| is_elsewhere);
            elsewhere.unwrap_or(it).clone()
        });
        let me = self.process.member();
        known.chain(named).filter(|it| it.id != me.id && it.key != me.key).collect()
    }

    /// Calls all members to which there is neither a connection nor a call.
    pub(super) fn dial_everybody(&mut self, fx: &mut Fx) {
        for member in self.wanted() {
            if self.links.begin_call(member.id) {
                fx.call(member);
            }
        }
    }
}
