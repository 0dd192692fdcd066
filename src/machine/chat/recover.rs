//! Recovery of a member whose group has lost its majority for good (C14): it goes on alone, with
//! its log, as another group. Both are recorded: the new group's number, and an entry that names
//! this member, the time, and the members that it left out.
//!
//! The number is another one, because a member cannot know that the others are gone: if they come
//! back, or one of them has recovered, too, they belong to another group. Entries that differ in
//! their logs are never put together.

use std::sync::Arc;

use super::config::REMOVED_MAX;
use super::replica::{Fx, Replica};
use crate::proto::chat::entry::{Body, GroupId, Membership, Recovered};
use rand::RngExt as _;

impl Replica {
    /// Checks that this member may go on alone.
    ///
    /// # Errors
    /// The reason against it in words, for people.
    pub fn may_recover(&self) -> Result<(), &'static str> {
        if self.identity.group().is_none() || !self.is_member() || self.process.was_refused() {
            Err("it is a member of no group")
        } else if self.process.is_leaving() {
            Err("it is stopping")
        } else if self.reaches_majority() {
            Err("a majority is in reach, and can remove whoever is gone")
        } else {
            Ok(())
        }
    }

    /// The recovery that this group began with, if it began so.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.log.membership().recovered.as_ref()
    }

    /// The texts that were typed here and are not final, the oldest first.
    pub fn unfinished(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pending.own_waiting().map(|it| &it.payload)
    }

    pub(super) fn on_recover(&mut self, fx: &mut Fx) {
        let (group, next_term) = (self.identity.group(), self.vote.next_term());
        let (Some(was), Some(term), Ok(())) = (group, next_term, self.may_recover()) else {
            self.drop_it("a recovery that is not needed", fx);
            return;
        };
        for link in self.links.take_members() {
            fx.hangup(link);
        }
        self.removals.clear();
        let (me, old) = (self.process.id(), Arc::clone(self.log.membership()));
        let others = || old.members.iter().filter(|it| it.id != me);
        let mut removed = old.removed.clone();
        removed.extend(others().map(|it| it.key));
        removed.drain(..removed.len().saturating_sub(REMOVED_MAX));
        let left_out = others().map(|it| it.id).collect();
        let recovered = Some(Recovered { was, by: me, at: self.process.wall(), left_out });
        // First of all, so that no later message can ever be sent in the old group.
        self.identity.become_group(GroupId(self.process.rng().random()));
        self.keep_group(fx);
        self.advance_term(term, Some(me), fx);
        let (members, message_max) = (vec![self.process.member().clone()], old.message_max);
        let membership = Membership { members, removed, message_max, recovered };
        self.lead(vec![me], Body::Membership(Arc::new(membership)), fx);
    }
}
