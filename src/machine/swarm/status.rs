//! Status of a swarm and its neighbors.

use super::machine::Swarm;
use crate::machine::LinkId;
use crate::proto::swarm::PeerId;

/// Status of a swarm at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmStatus {
    /// Number of pieces on disk.
    pub have: u32,
    /// Number of pieces in all.
    pub count: u32,
    /// True if nothing is missing, neither pieces nor the list of files.
    pub is_complete: bool,
    /// True if the swarm is over.
    pub is_ended: bool,
    /// Number of pieces that are asked for and not here yet.
    pub asked: usize,
    /// Number of pieces on their way to the disk.
    pub storing: usize,
    /// Bytes of pieces that came.
    pub down: u64,
    /// Bytes of pieces that left.
    pub up: u64,
    /// Status of each neighbor.
    pub neighbors: Vec<NeighborStatus>,
}

/// Status of one neighbor at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborStatus {
    /// Id of the peer.
    pub peer: PeerId,
    /// Link to the neighbor.
    pub link: LinkId,
    /// Number of pieces that the neighbor has.
    pub have: u32,
    /// True if the neighbor answers this peer's requests.
    pub unchokes_us: bool,
    /// True if this peer answers the neighbor's requests.
    pub is_unchoked: bool,
    /// True if the neighbor wants pieces of this peer.
    pub is_interested: bool,
    /// True if this peer wants pieces of the neighbor.
    pub is_interesting: bool,
    /// Bytes of pieces that came from the neighbor.
    pub down: u64,
    /// Bytes of pieces that went to the neighbor.
    pub up: u64,
}

impl Swarm {
    /// Returns the present status.
    pub fn status(&self) -> SwarmStatus {
        let neighbors = self.neighbors.iter().map(|(link, it)| NeighborStatus {
            peer: it.peer(),
            link,
            have: it.have().count(),
            unchokes_us: !it.is_choking(),
            is_unchoked: self.choker.is_unchoked(link),
            is_interested: it.is_interested(),
            is_interesting: it.is_useful(),
            down: it.down(),
            up: it.up(),
        });
        SwarmStatus {
            have: self.content.have().count(),
            count: self.content.pieces().count(),
            is_complete: self.is_done(),
            is_ended: self.progress.ended().is_some(),
            asked: self.requests.asked_count(),
            storing: self.requests.storing_count(),
            down: self.progress.down(),
            up: self.progress.up(),
            neighbors: neighbors.collect(),
        }
    }

    /// The pieces that are on disk.
    pub const fn have(&self) -> &super::Bitfield {
        self.content.have()
    }

    /// The known part of the tree.
    pub const fn tree(&self) -> Option<&super::Tree> {
        self.content.tree()
    }
}
