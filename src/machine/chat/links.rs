//! Connections with their members, the calls that did not succeed, and the members that other
//! members have named.
//!
//! Invariant: of each member at most one connection counts.

use std::collections::BTreeMap;

use super::config::MEMBERS_MAX;
use crate::machine::LinkId;
use crate::model::Time;
use crate::proto::chat::entry::{Member, MemberId};
use crate::proto::chat::message::JoinIntent;

/// One connection with its member.
#[derive(Clone, Debug)]
pub(super) struct Link {
    member: Member,
    intent: JoinIntent,
    is_ours: bool,
    /// Random number of the process at the other end.
    life: Option<u64>,
    /// Number of rounds since a message came by it.
    quiet: u32,
}

impl Link {
    pub(super) const fn new(
        member: Member,
        intent: JoinIntent,
        is_ours: bool,
        life: Option<u64>,
    ) -> Self {
        Self { member, intent, is_ours, life, quiet: 0 }
    }

    pub(super) const fn member(&self) -> &Member {
        &self.member
    }

    /// True if the other end is a program of its member, and not the member.
    pub(super) fn is_client(&self) -> bool {
        self.intent == JoinIntent::Client
    }

    /// True if this end called.
    pub(super) const fn is_ours(&self) -> bool {
        self.is_ours
    }

    pub(super) const fn life(&self) -> Option<u64> {
        self.life
    }
}

/// Outcome of a new connection with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linked {
    /// The member was not linked.
    First,
    /// This connection replaces an older one.
    Instead(LinkId),
    /// The older connection stays.
    Surplus,
}

/// All connections, and the calls that did not succeed.
#[derive(Debug, Default)]
pub(super) struct Links {
    all: BTreeMap<LinkId, Link>,
    by_member: BTreeMap<MemberId, LinkId>,
    /// Members that are being called, with the numbers of calls that failed.
    dialing: BTreeMap<MemberId, u32>,
    /// Times at which members were heard last.
    heard: BTreeMap<MemberId, Time>,
    /// Members that a member has named, and that the log does not know yet.
    vouched: BTreeMap<MemberId, Member>,
}

impl Links {
    /// Adds a connection that is let in; a member's counts only after [`Self::count`].
    pub(super) fn add(&mut self, id: LinkId, link: Link) {
        self.all.insert(id, link);
    }

    /// Takes an added connection as its member's; `me` is this end. Between the same two, the one
    /// that the lower id called stays; of two by the same caller, the newer; but none that has been
    /// quiet for a while.
    pub(super) fn count(&mut self, id: LinkId, me: MemberId, now: Time) -> Linked {
        let new = &self.all[&id];
        let member = new.member.id;
        self.heard.insert(member, now);
        let old = self.of_member(member);
        let is_better = |old: LinkId| {
            let old = &self.all[&old];
            let is_quiet = old.quiet > 1;
            is_quiet || new.is_ours == old.is_ours || new.is_ours == (me < member)
        };
        let outcome = match old {
            Some(old) if !is_better(old) => return Linked::Surplus,
            Some(old) => Linked::Instead(old),
            None => Linked::First,
        };
        self.by_member.insert(member, id);
        outcome
    }

    /// Forgets a connection. Returns it, and whether it was the one that counted for its member.
    pub(super) fn remove(&mut self, id: LinkId) -> Option<(Link, bool)> {
        let gone = self.all.remove(&id)?;
        let counted = !gone.is_client() && self.of_member(gone.member.id) == Some(id);
        if counted {
            self.by_member.remove(&gone.member.id);
        }
        Some((gone, counted))
    }

    /// Notes that bytes came by a connection.
    pub(super) fn stir(&mut self, link: LinkId) {
        if let Some(link) = self.all.get_mut(&link) {
            link.quiet = 0;
        }
    }

    /// Notes that a message came by a connection. Returns the connection.
    pub(super) fn hear(&mut self, id: LinkId, now: Time) -> Option<&Link> {
        let link = self.all.get_mut(&id)?;
        link.quiet = 0;
        let member = link.member.id;
        if !link.is_client() && self.by_member.get(&member) == Some(&id) {
            self.heard.insert(member, now);
        }
        Some(link)
    }

    /// Ends a round. Returns the links to members by which nothing came for more
    /// than `quiet_max` rounds.
    pub(super) fn end_round(&mut self, quiet_max: u32) -> Vec<LinkId> {
        for link in self.all.values_mut() {
            link.quiet = link.quiet.saturating_add(1);
        }
        let is_silent = |link: &LinkId| self.all[link].quiet > quiet_max;
        self.by_member.values().copied().filter(is_silent).collect()
    }

    /// Forgets all connections but the clients', all calls, and all members that were named.
    /// Returns the links, to be hung up.
    pub(super) fn take_members(&mut self) -> Vec<LinkId> {
        self.by_member.clear();
        self.dialing.clear();
        self.heard.clear();
        self.vouched.clear();
        let of_members = self.all.iter().filter(|(_, it)| !it.is_client());
        let links = of_members.map(|(link, _)| *link).collect();
        self.all.retain(|_, it| it.is_client());
        links
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, link: LinkId) -> Option<&Link> {
        self.all.get(&link)
    }

    pub(super) fn of_member(&self, id: MemberId) -> Option<LinkId> {
        self.by_member.get(&id).copied()
    }

    pub(super) fn is_linked(&self, id: MemberId) -> bool {
        self.by_member.contains_key(&id)
    }

    /// The linked members, without clients.
    pub(super) fn members(&self) -> impl Iterator<Item = (MemberId, LinkId, &Member)> {
        self.by_member.iter().map(|(id, link)| (*id, *link, &self.all[link].member))
    }

    /// Time at which a member was heard last.
    pub(super) fn heard_at(&self, id: MemberId) -> Option<Time> {
        self.heard.get(&id).copied()
    }

    /// Forgets the times of members that are neither linked nor `known`.
    pub(super) fn forget_heard(&mut self, known: impl Fn(MemberId) -> bool) {
        self.heard.retain(|id, _| known(*id) || self.by_member.contains_key(id));
    }

    /// Begins a call, unless the member is linked or being called.
    pub(super) fn begin_call(&mut self, id: MemberId) -> bool {
        let is_new = !self.is_linked(id) && !self.dialing.contains_key(&id);
        if is_new {
            self.dialing.insert(id, 0);
        }
        is_new
    }

    /// Begins a call again, if the member is not linked; the calls that failed still count.
    pub(super) fn call_again(&mut self, id: MemberId) -> bool {
        let is_due = !self.is_linked(id);
        if is_due {
            self.dialing.entry(id).or_default();
        }
        is_due
    }

    /// Ends all attempts to call a member.
    pub(super) fn stop_calls(&mut self, id: MemberId) {
        self.dialing.remove(&id);
    }

    pub(super) fn is_calling(&self, id: MemberId) -> bool {
        self.dialing.contains_key(&id)
    }

    /// Notes that a call failed, or that a connection ended. Returns the count of those.
    pub(super) fn on_failed(&mut self, id: MemberId) -> u32 {
        let tries = self.dialing.entry(id).or_default();
        *tries = tries.saturating_add(1);
        *tries
    }

    /// True if the next call goes to the second of two addresses of a member.
    pub(super) fn calls_elsewhere(&self, id: MemberId) -> bool {
        self.dialing.get(&id).is_some_and(|tries| tries % 2 == 1)
    }

    /// Takes a member that a member has named; within a bound.
    pub(super) fn vouch(&mut self, member: Member) {
        let is_known = self.vouched.contains_key(&member.id);
        if is_known || self.vouched.len() < MEMBERS_MAX {
            self.vouched.insert(member.id, member);
        }
    }

    /// The member of this id, as a member has named it.
    pub(super) fn vouched(&self, id: MemberId) -> Option<&Member> {
        self.vouched.get(&id)
    }

    /// All members that were named.
    pub(super) fn all_vouched(&self) -> impl Iterator<Item = &Member> {
        self.vouched.values()
    }

    /// Forgets a member that was named.
    pub(super) fn unvouch(&mut self, id: MemberId) {
        self.vouched.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyPair;
    use crate::proto::chat::entry::HostPort;

    const ME: MemberId = MemberId(5);

    fn member(id: u8) -> Member {
        let at = HostPort { host: [127, 0, 0, 1].into(), port: 6_000 };
        let key = KeyPair::from_secret([id; 32]).public();
        Member { id: MemberId(id.into()), at, key }
    }

    fn add(links: &mut Links, id: u64, peer: u8, is_ours: bool) -> Linked {
        links.add(LinkId(id), Link::new(member(peer), JoinIntent::Member, is_ours, None));
        links.count(LinkId(id), ME, Time::ZERO)
    }

    #[test]
    fn of_two_connections_both_ends_keep_the_one_that_the_lower_id_called() {
        let mut links = Links::default();
        assert_eq!(add(&mut links, 1, 9, false), Linked::First);
        assert_eq!(add(&mut links, 2, 9, true), Linked::Instead(LinkId(1)), "5 has called");
        assert_eq!(add(&mut links, 3, 9, false), Linked::Surplus);
        assert_eq!(add(&mut links, 4, 9, true), Linked::Instead(LinkId(2)), "the newer one");
        assert_eq!(links.of_member(MemberId(9)), Some(LinkId(4)));
    }

    #[test]
    fn a_quiet_connection_is_replaced() {
        let mut links = Links::default();
        add(&mut links, 1, 9, true);
        links.end_round(9);
        links.end_round(9);
        assert_eq!(add(&mut links, 2, 9, false), Linked::Instead(LinkId(1)));
    }

    #[test]
    fn the_end_of_a_connection_that_does_not_count_changes_nothing() {
        let mut links = Links::default();
        add(&mut links, 1, 9, true);
        add(&mut links, 2, 9, false);
        assert!(links.remove(LinkId(2)).is_some_and(|(_, counted)| !counted));
        assert!(links.is_linked(MemberId(9)));
        assert!(links.remove(LinkId(1)).is_some_and(|(_, counted)| counted));
        assert!(!links.is_linked(MemberId(9)) && links.remove(LinkId(1)).is_none());
    }

    #[test]
    fn a_member_is_called_once_at_a_time() {
        let mut links = Links::default();
        assert!(links.begin_call(MemberId(9)) && !links.begin_call(MemberId(9)));
        assert_eq!([links.on_failed(MemberId(9)), links.on_failed(MemberId(9))], [1, 2]);
        assert!(links.call_again(MemberId(9)) && !links.calls_elsewhere(MemberId(9)));
        add(&mut links, 1, 9, true);
        assert!(!links.call_again(MemberId(9)) && links.is_calling(MemberId(9)), "not heard yet");
        links.stop_calls(MemberId(9));
        assert!(!links.call_again(MemberId(9)) && !links.is_calling(MemberId(9)));
    }
}
