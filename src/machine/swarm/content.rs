//! Content of a swarm, as far as it is here: the pieces, their hashes, and the list of files.
//!
//! Invariant: the list of files comes from one neighbor as a whole, so that it is clear which one
//! lied.

use super::bitfield::Bitfield;
use super::tree::Tree;
use crate::machine::LinkId;
use crate::proto::swarm::{Hash, PieceIndex, Pieces};

/// The list of files of a share that is a folder.
#[derive(Clone, Debug)]
pub enum FileListState {
    /// The share is no folder.
    None,
    /// The list has this SHA-256, and is fetched before anything else.
    Wanted(Hash),
    /// The list is here, and its digest was checked.
    Known(Vec<u8>),
}

/// Pieces, hashes and list of files.
#[derive(Debug)]
pub(super) struct Content {
    pieces: Pieces,
    have: Bitfield,
    tree: Option<Tree>,
    files: FileListState,
    /// Part of the wanted list that has come, and the link it comes by.
    list: Option<(LinkId, Vec<u8>)>,
}

impl Content {
    /// # Panics
    /// Panics if `have` or the tree is not over as many pieces as there are.
    pub(super) fn new(
        pieces: Pieces,
        have: Bitfield,
        tree: Option<Tree>,
        files: FileListState,
    ) -> Self {
        assert_eq!(have.len(), pieces.count(), "a bit for every piece");
        assert!(tree.as_ref().is_none_or(|it| it.count() == pieces.count()), "a leaf a piece");
        Self { pieces, have, tree, files, list: None }
    }

    pub(super) const fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// The pieces that are on disk.
    pub(super) const fn have(&self) -> &Bitfield {
        &self.have
    }

    pub(super) fn has(&self, index: PieceIndex) -> bool {
        self.have.has(index)
    }

    /// Notes that a piece is on disk (S2).
    pub(super) fn gain(&mut self, index: PieceIndex) {
        self.have.set(index);
    }

    /// Notes that a piece is lost. Returns false if it was not here.
    pub(super) fn lose(&mut self, index: PieceIndex) -> bool {
        self.have.clear(index)
    }

    /// True if nothing is missing: neither pieces nor the list of files.
    pub(super) fn is_done(&self) -> bool {
        self.have.is_full() && !self.wants_list()
    }

    /// True if pieces can be checked.
    pub(super) const fn has_tree(&self) -> bool {
        self.tree.is_some()
    }

    /// The known part of the tree.
    pub(super) const fn tree(&self) -> Option<&Tree> {
        self.tree.as_ref()
    }

    pub(super) const fn tree_mut(&mut self) -> Option<&mut Tree> {
        self.tree.as_mut()
    }

    /// Hash of a piece, if pieces can be checked and it is known.
    pub(super) fn leaf(&self, index: PieceIndex) -> Option<Hash> {
        self.tree.as_ref().and_then(|it| it.leaf(index))
    }

    /// True if a piece could be checked when it comes, or none can be.
    pub(super) fn may_ask(&self, index: PieceIndex) -> bool {
        !self.has_tree() || self.leaf(index).is_some()
    }

    /// True if the list of files is missing.
    pub(super) const fn wants_list(&self) -> bool {
        matches!(self.files, FileListState::Wanted(_))
    }

    /// Digest of the list that is missing.
    pub(super) const fn wanted_list(&self) -> Option<Hash> {
        match self.files {
            FileListState::Wanted(digest) => Some(digest),
            FileListState::None | FileListState::Known(_) => None,
        }
    }

    /// The list of files; empty if there is none here.
    pub(super) fn list(&self) -> &[u8] {
        match &self.files {
            FileListState::Known(list) => list,
            FileListState::None | FileListState::Wanted(_) => &[],
        }
    }

    /// True if the list comes from a neighbor.
    pub(super) const fn is_fetching_list(&self) -> bool {
        self.list.is_some()
    }

    /// Notes the part of the list that has come from a neighbor.
    pub(super) fn keep_part(&mut self, link: LinkId, part: Vec<u8>) {
        self.list = Some((link, part));
    }

    /// Takes the part of the list, which is forgotten if it did not come from this neighbor.
    pub(super) fn take_part(&mut self, link: LinkId) -> Option<Vec<u8>> {
        self.list.take().filter(|(from, _)| *from == link).map(|(_, list)| list)
    }

    /// Forgets the part of the list that came from this neighbor.
    pub(super) fn drop_part_of(&mut self, link: LinkId) {
        self.list.take_if(|(from, _)| *from == link);
    }

    /// Takes the whole list, whose digest was checked.
    pub(super) fn set_list(&mut self, list: Vec<u8>) {
        self.files = FileListState::Known(list);
    }
}
