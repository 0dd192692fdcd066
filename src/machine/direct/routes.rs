//! Routes: the links over which direct messages can go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::machine::LinkId;
use crate::model::{Endpoint, Incarnation, Time};

/// Number of links for direct messages that one member may have called this node by.
const CALLED_MAX: usize = 2;

#[derive(Debug)]
struct Route {
    peer: Endpoint,
    life: Incarnation,
    /// Of a link for direct messages alone: whether this node called, and the time of its last use.
    own: Option<(bool, Time)>,
}

/// All links with members that may be used, by member.
#[derive(Debug, Default)]
pub(super) struct Routes {
    links: BTreeMap<LinkId, Route>,
    ways: BTreeMap<Endpoint, BTreeSet<LinkId>>,
    own: usize,
    kept: BTreeSet<Endpoint>,
}

impl Routes {
    pub(super) fn insert(
        &mut self,
        link: LinkId,
        peer: Endpoint,
        life: Incarnation,
        own: Option<(bool, Time)>,
    ) {
        self.own += usize::from(own.is_some());
        self.links.insert(link, Route { peer, life, own });
        self.ways.entry(peer).or_default().insert(link);
    }

    /// Forgets a link. Returns the member at its other end.
    pub(super) fn remove(&mut self, link: LinkId) -> Option<Endpoint> {
        let route = self.links.remove(&link)?;
        self.own -= usize::from(route.own.is_some());
        if let Some(ways) = self.ways.get_mut(&route.peer) {
            ways.remove(&link);
            if ways.is_empty() {
                self.ways.remove(&route.peer);
            }
        }
        Some(route.peer)
    }

    /// Number of links for direct messages alone.
    pub(super) const fn own(&self) -> usize {
        self.own
    }

    pub(super) fn is_own(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|route| route.own.is_some())
    }

    pub(super) fn knows(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// The youngest link with a member, which is the likeliest to work, and the life at its end.
    pub(super) fn way(&self, peer: Endpoint) -> Option<(LinkId, Incarnation)> {
        let link = *self.ways.get(&peer)?.last()?;
        Some((link, self.links.get(&link)?.life))
    }

    /// Notes that a message went over a link.
    pub(super) fn used(&mut self, link: LinkId, now: Time) {
        if let Some(Route { own: Some((_, used)), .. }) = self.links.get_mut(&link) {
            *used = now;
        }
    }

    /// Sets whether the links with a member are kept.
    pub(super) fn keep(&mut self, peer: Endpoint, kept: bool) {
        if kept {
            self.kept.insert(peer);
        } else {
            self.kept.remove(&peer);
        }
    }

    /// A member's links for direct messages, of the lives for which `is_meant` holds.
    pub(super) fn of(&self, peer: Endpoint, is_meant: impl Fn(Incarnation) -> bool) -> Vec<LinkId> {
        let is_own = |link: &&LinkId| {
            self.links.get(link).is_some_and(|route| route.own.is_some() && is_meant(route.life))
        };
        self.ways.get(&peer).into_iter().flatten().filter(is_own).copied().collect()
    }

    /// The older of two links by which a member has called already.
    pub(super) fn second_called(&self, peer: Endpoint) -> Option<LinkId> {
        let is_called = |link: &&LinkId| {
            matches!(self.links.get(link), Some(Route { own: Some((false, _)), .. }))
        };
        let called: Vec<_> =
            self.ways.get(&peer).into_iter().flatten().filter(is_called).copied().collect();
        (called.len() >= CALLED_MAX).then(|| called.first().copied()).flatten()
    }

    fn unneeded(
        &self,
        is_needed: impl Fn(Endpoint) -> bool,
    ) -> impl Iterator<Item = (Time, LinkId, bool)> {
        self.links.iter().filter_map(move |(link, route)| {
            let (dialed, used) = route.own?;
            let is_free = !self.kept.contains(&route.peer) && !is_needed(route.peer);
            is_free.then_some((used, *link, dialed))
        })
    }

    /// The link that is idle for the longest time.
    pub(super) fn idlest(&self, is_needed: impl Fn(Endpoint) -> bool) -> Option<LinkId> {
        self.unneeded(is_needed).min().map(|(_, link, _)| link)
    }

    /// The links that this node called and that have been idle for `span`.
    pub(super) fn idle(
        &self,
        now: Time,
        span: Duration,
        is_needed: impl Fn(Endpoint) -> bool,
    ) -> Vec<LinkId> {
        self.unneeded(is_needed)
            .filter(|(used, _, dialed)| *dialed && now.since(*used) >= span)
            .map(|(_, link, _)| link)
            .collect()
    }
}
