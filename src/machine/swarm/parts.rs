//! Parts of pieces amid which a connection ended.
//!
//! Invariants: a part is continued only by the peer that sent it, so that a false piece has one
//! sender; a part is forgotten when its sender hangs up after the rest was asked for, as older
//! programs do; and all parts together have at most [`PARTS_BYTES_MAX`] bytes.

use std::collections::BTreeMap;

use super::config::PARTS_BYTES_MAX;
use crate::proto::swarm::{PeerId, PieceIndex};

#[derive(Debug)]
struct PartState {
    from: PeerId,
    bytes: Vec<u8>,
    /// True if the rest was asked for, and has not come.
    is_asked: bool,
}

/// Parts of the pieces of one swarm.
#[derive(Debug, Default)]
pub(super) struct Parts {
    parts: BTreeMap<PieceIndex, PartState>,
}

impl Parts {
    /// The pieces that this peer has begun, and whose rest was not asked for.
    pub(super) fn of(&self, peer: PeerId) -> impl Iterator<Item = PieceIndex> {
        let is_open = move |part: &PartState| part.from == peer && !part.is_asked;
        self.parts.iter().filter(move |(_, part)| is_open(part)).map(|(index, _)| *index)
    }

    /// Marks the rest of a piece as asked of this peer. Returns its offset; `None` for
    /// the whole piece.
    pub(super) fn ask(&mut self, index: PieceIndex, peer: PeerId) -> Option<u32> {
        let part = self.parts.get_mut(&index).filter(|it| it.from == peer && !it.is_asked)?;
        part.is_asked = true;
        u32::try_from(part.bytes.len()).ok()
    }

    /// The peer did not send the rest that it was asked for, and its connection goes on.
    pub(super) fn was_put_off(&mut self, index: PieceIndex, peer: PeerId) {
        if let Some(part) = self.parts.get_mut(&index).filter(|it| it.from == peer) {
            part.is_asked = false;
        }
    }

    /// Keeps the bytes that came from `offset` on, with those before it.
    pub(super) fn keep(&mut self, index: PieceIndex, from: PeerId, offset: u32, data: Vec<u8>) {
        let bytes = match (offset, self.take(index, from, offset)) {
            (0, _) => data,
            (_, Some(before)) => [before, data].concat(),
            (_, None) => return,
        };
        if self.parts.get(&index).is_some_and(|it| it.bytes.len() >= bytes.len()) {
            return;
        }
        self.parts.insert(index, PartState { from, bytes, is_asked: false });
        let total = |parts: &BTreeMap<_, PartState>| parts.values().map(|it| it.bytes.len()).sum();
        while PARTS_BYTES_MAX < total(&self.parts) {
            self.parts.pop_first();
        }
    }

    /// Takes out the part that this peer sent of a piece, if it ends at `offset`.
    pub(super) fn take(&mut self, index: PieceIndex, peer: PeerId, offset: u32) -> Option<Vec<u8>> {
        let is_it = |it: &PartState| it.from == peer && it.bytes.len() == offset as usize;
        self.parts.get(&index).filter(|it| is_it(it))?;
        self.parts.remove(&index).map(|it| it.bytes)
    }

    /// Forgets the part of a piece that is here.
    pub(super) fn forget(&mut self, index: PieceIndex) {
        self.parts.remove(&index);
    }

    /// Forgets the parts that this peer was asked to continue, because its connection has ended.
    pub(super) fn is_gone(&mut self, peer: PeerId) {
        self.parts.retain(|_, part| part.from != peer || !part.is_asked);
    }
}
