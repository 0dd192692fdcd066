//! Requests under way: the neighbors that each piece is asked of, and the pieces on their way to
//! the disk.
//!
//! Invariant: a piece is stored once at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::machine::LinkId;
use crate::proto::swarm::{PeerId, PieceIndex};

/// All requests of a swarm.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Links of the neighbors that each piece is asked of.
    askers: BTreeMap<PieceIndex, BTreeSet<LinkId>>,
    /// Pieces on their way to the disk, and the neighbors that sent them.
    storing: BTreeMap<PieceIndex, (LinkId, PeerId)>,
}

impl Requests {
    /// Notes that a piece is asked of a neighbor.
    pub(super) fn ask(&mut self, index: PieceIndex, link: LinkId) {
        self.askers.entry(index).or_default().insert(link);
    }

    /// The pieces that are asked for, with the links of the neighbors.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PieceIndex, &BTreeSet<LinkId>)> {
        self.askers.iter().map(|(index, links)| (*index, links))
    }

    /// Ends the request to one neighbor. Returns true if the piece is asked of no other.
    pub(super) fn release(&mut self, index: PieceIndex, link: LinkId) -> bool {
        let Some(askers) = self.askers.get_mut(&index) else { return true };
        askers.remove(&link);
        let is_last = askers.is_empty();
        if is_last {
            self.askers.remove(&index);
        }
        is_last
    }

    /// Ends all requests for a piece. Returns the links.
    pub(super) fn take(&mut self, index: PieceIndex) -> BTreeSet<LinkId> {
        self.askers.remove(&index).unwrap_or_default()
    }

    /// Stores a piece, unless one of its number is being stored.
    pub(super) fn store(&mut self, index: PieceIndex, link: LinkId, peer: PeerId) -> bool {
        let is_new = !self.is_storing(index);
        if is_new {
            self.storing.insert(index, (link, peer));
        }
        is_new
    }

    pub(super) fn is_storing(&self, index: PieceIndex) -> bool {
        self.storing.contains_key(&index)
    }

    /// Takes the sender of a piece that was stored.
    pub(super) fn stored(&mut self, index: PieceIndex) -> Option<(LinkId, PeerId)> {
        self.storing.remove(&index)
    }

    /// Number of pieces that are asked for.
    pub(super) fn asked_count(&self) -> usize {
        self.askers.len()
    }

    /// Number of pieces on their way to the disk.
    pub(super) fn storing_count(&self) -> usize {
        self.storing.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_wanted_again_when_the_last_neighbor_that_was_asked_is_gone() {
        let mut requests = Requests::default();
        let index = PieceIndex(3);
        assert!(requests.release(index, LinkId(1)), "nobody was asked");
        requests.ask(index, LinkId(1));
        requests.ask(index, LinkId(2));
        assert!(!requests.release(index, LinkId(1)));
        assert!(requests.release(index, LinkId(2)));
        assert_eq!(requests.asked_count(), 0);
    }

    #[test]
    fn a_piece_is_stored_once_at_a_time() {
        let mut requests = Requests::default();
        let index = PieceIndex(3);
        assert!(requests.store(index, LinkId(1), PeerId(1)));
        assert!(!requests.store(index, LinkId(2), PeerId(2)));
        assert_eq!(requests.stored(index), Some((LinkId(1), PeerId(1))));
        assert_eq!(requests.stored(index), None);
    }
}
