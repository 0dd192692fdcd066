//! What a swarm looks like from outside.

use super::machine::Swarm;
use super::messages::PeerId;
use crate::protocol::LinkId;

/// A swarm at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Pieces on disk.
    pub have: u32,
    /// Pieces in all.
    pub count: u32,
    /// Whether nothing is missing, neither pieces nor the list of files.
    pub is_complete: bool,
    /// Whether it is over.
    pub is_ended: bool,
    /// Pieces asked for and not here yet.
    pub asked: usize,
    /// Pieces on their way to the disk.
    pub storing: usize,
    /// Bytes of pieces that came.
    pub down: u64,
    /// Bytes of pieces that left.
    pub up: u64,
    /// The neighbors.
    pub neighbors: Vec<NeighborStatus>,
}

/// One neighbor at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborStatus {
    /// Who.
    pub peer: PeerId,
    /// The connection.
    pub link: LinkId,
    /// Pieces that it has.
    pub have: u32,
    /// It answers our requests.
    pub unchokes_us: bool,
    /// We answer its requests.
    pub is_unchoked: bool,
    /// It wants something.
    pub is_interested: bool,
    /// We want something.
    pub is_interesting: bool,
    /// Bytes of pieces that came from it.
    pub down: u64,
    /// Bytes of pieces that went to it.
    pub up: u64,
}

impl Swarm {
    /// The swarm now.
    pub fn status(&self) -> Status {
        let neighbors = self.links.iter().map(|(link, it)| NeighborStatus {
            peer: it.peer,
            link: *link,
            have: it.have.count(),
            unchokes_us: !it.is_choking,
            is_unchoked: self.choker.is_unchoked(*link),
            is_interested: it.is_interested,
            is_interesting: it.useful > 0,
            down: it.down,
            up: it.up,
        });
        Status {
            have: self.have.count(),
            count: self.pieces.count(),
            is_complete: self.is_done(),
            is_ended: self.ended.is_some(),
            asked: self.askers.len(),
            storing: self.storing.len(),
            down: self.down,
            up: self.up,
            neighbors: neighbors.collect(),
        }
    }

    /// What is on disk.
    pub const fn have(&self) -> &super::Bitfield {
        &self.have
    }

    /// As much of the tree as is known.
    pub const fn tree(&self) -> Option<&super::Tree> {
        self.tree.as_ref()
    }
}
