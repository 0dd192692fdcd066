//! All neighbors, and the peers that never become any again.
//!
//! Invariant: one connection a peer.

use std::collections::{BTreeMap, BTreeSet};

use super::config::BANNED_MAX;
use super::neighbor::Neighbor;
use crate::machine::LinkId;
use crate::proto::swarm::PeerId;

/// The neighbors of one swarm.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    all: BTreeMap<LinkId, Neighbor>,
    by_peer: BTreeMap<PeerId, LinkId>,
    banned: BTreeSet<PeerId>,
}

impl Neighbors {
    pub(super) fn add(&mut self, link: LinkId, neighbor: Neighbor) {
        self.by_peer.insert(neighbor.peer(), link);
        self.all.insert(link, neighbor);
    }

    pub(super) fn remove(&mut self, link: LinkId) -> Option<Neighbor> {
        let neighbor = self.all.remove(&link)?;
        self.by_peer.remove(&neighbor.peer());
        Some(neighbor)
    }

    /// Removes all neighbors; bans stay.
    pub(super) fn take(&mut self) -> BTreeMap<LinkId, Neighbor> {
        self.by_peer.clear();
        std::mem::take(&mut self.all)
    }

    pub(super) fn get(&self, link: LinkId) -> Option<&Neighbor> {
        self.all.get(&link)
    }

    pub(super) fn get_mut(&mut self, link: LinkId) -> Option<&mut Neighbor> {
        self.all.get_mut(&link)
    }

    /// Peer at the other end of a link.
    pub(super) fn peer(&self, link: LinkId) -> Option<PeerId> {
        self.all.get(&link).map(Neighbor::peer)
    }

    /// Link to a peer.
    pub(super) fn of_peer(&self, peer: PeerId) -> Option<LinkId> {
        self.by_peer.get(&peer).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &Neighbor)> {
        self.all.iter().map(|(link, it)| (*link, it))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Neighbor> {
        self.all.values_mut()
    }

    pub(super) fn links(&self) -> Vec<LinkId> {
        self.all.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Bans a peer, within a bound.
    pub(super) fn ban(&mut self, peer: PeerId) {
        if self.banned.len() < BANNED_MAX {
            self.banned.insert(peer);
        }
    }

    pub(super) fn is_banned(&self, peer: PeerId) -> bool {
        self.banned.contains(&peer)
    }
}
