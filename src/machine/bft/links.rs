//! Connections with members and with those who only follow the order.

use std::collections::BTreeMap;

use crate::machine::LinkId;
use crate::model::{PublicKey, Time};
use crate::proto::bft::message::OrderStatus;
use crate::proto::bft::{Committee, SlotNo};
use crate::proto::chat::entry::MemberId;

/// Cost of the requests that are answered between two heartbeats: a liar must not keep this member
/// busy with answers.
const BUDGET: u32 = 512;

/// One connection, and the progress at its other end.
#[derive(Debug)]
pub(super) struct OrderLink {
    pub(super) key: PublicKey,
    /// Member at the other end, if its key is one of the committee's.
    pub(super) member: Option<MemberId>,
    /// Progress that the other end has told last.
    pub(super) status: Option<OrderStatus>,
    /// Slot from which on slots were asked for last, and the time.
    pub(super) asked: Option<(SlotNo, Time)>,
    /// True while an answer to that is due.
    pub(super) is_asked: bool,
    /// Number of requests that are still answered before the next heartbeat.
    pub(super) budget: u32,
    /// Time until which nothing is asked: the other end has answered wrongly.
    pub(super) distrusted: Option<Time>,
    /// Time of the last repair by this connection (B22).
    pub(super) repaired: Option<Time>,
    /// True while slots for the other end are read from the log.
    pub(super) is_loading: bool,
}

/// All connections; a member has at most one.
#[derive(Debug, Default)]
pub(super) struct OrderLinks {
    links: BTreeMap<LinkId, OrderLink>,
    members: BTreeMap<MemberId, LinkId>,
}

impl OrderLinks {
    /// Adds a connection; returns the one that it replaces.
    pub(super) fn open(
        &mut self,
        id: LinkId,
        key: PublicKey,
        committee: &Committee,
    ) -> Option<LinkId> {
        let member = member_of(&key, committee);
        let link = OrderLink {
            key,
            member,
            status: None,
            asked: None,
            is_asked: false,
            budget: BUDGET,
            distrusted: None,
            repaired: None,
            is_loading: false,
        };
        self.links.insert(id, link);
        self.members.insert(member?, id)
    }

    /// Removes a connection; returns the member that is out of reach by that.
    pub(super) fn close(&mut self, id: LinkId) -> Option<MemberId> {
        let member = self.links.remove(&id)?.member?;
        if self.members.get(&member) != Some(&id) {
            return None;
        }
        self.members.remove(&member);
        Some(member)
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&OrderLink> {
        self.links.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut OrderLink> {
        self.links.get_mut(&id)
    }

    /// Takes the cost of an answer from a connection's budget; false if it is used up.
    pub(super) fn pay(&mut self, id: LinkId, cost: u32) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        let rest = link.budget.checked_sub(cost);
        link.budget = rest.unwrap_or(link.budget);
        rest.is_some()
    }

    /// Begins a new period of answers.
    pub(super) fn refill(&mut self) {
        for link in self.links.values_mut() {
            link.budget = BUDGET;
        }
    }

    /// Connection with a member.
    pub(super) fn of(&self, member: MemberId) -> Option<LinkId> {
        self.members.get(&member).copied()
    }

    /// Connections with members, ascending by member.
    pub(super) fn members(&self) -> impl Iterator<Item = (MemberId, LinkId)> {
        self.members.iter().map(|(member, link)| (*member, *link))
    }

    /// Number of members that are linked.
    pub(super) fn reached(&self) -> usize {
        self.members.len()
    }

    /// True if a member is linked and says that it votes for nothing (B20).
    pub(super) fn is_silent(&self, member: MemberId) -> bool {
        let status = self.of(member).and_then(|link| self.get(link)?.status);
        status.is_some_and(|it| it.silent)
    }

    /// Last final slots that members have told.
    pub(super) fn slots(&self) -> impl Iterator<Item = SlotNo> {
        let told = |link| self.get(link)?.status.map(|it| it.slot);
        self.members().filter_map(move |(_, link)| told(link))
    }

    /// Number of members that are linked and vote.
    pub(super) fn voters(&self) -> usize {
        self.members.keys().filter(|it| !self.is_silent(**it)).count()
    }

    /// Numbers of all connections.
    pub(super) fn ids(&self) -> impl Iterator<Item = LinkId> {
        self.links.keys().copied()
    }

    /// Number of connections with those that are no members.
    pub(super) fn observers(&self) -> usize {
        self.links.values().filter(|it| it.member.is_none()).count()
    }

    /// Takes the members of a new epoch. A member whose life is another one is silent no more.
    pub(super) fn begin_epoch(&mut self, before: &Committee, committee: &Committee) {
        self.members.clear();
        let life = |members: &Committee, id| members.voter(id).map(|it| it.life);
        for (id, link) in &mut self.links {
            link.member = member_of(&link.key, committee);
            if let Some(member) = link.member {
                self.members.insert(member, *id);
                if let Some(status) = &mut link.status
                    && life(before, member) != life(committee, member)
                {
                    status.silent = false;
                }
            }
        }
    }
}

fn member_of(key: &PublicKey, committee: &Committee) -> Option<MemberId> {
    committee.voters().iter().find(|it| it.member.key == *key).map(|it| it.member.id)
}
