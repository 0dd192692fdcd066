//! Uploads: the requests of neighbors that are taken.
//!
//! Invariants: only an unchoked neighbor's request is taken (S3), only for a piece that is here,
//! once at a time, and at most [`UPLOADS_MAX`] wait for one neighbor (S5).

use super::config::UPLOADS_MAX;
use super::event::{ExtraEffect, Fx};
use super::machine::Swarm;
use crate::machine::LinkId;
use crate::proto::swarm::PieceIndex;

impl Swarm {
    /// Takes a neighbor's request for a piece from the byte `offset` on.
    pub(super) fn on_request(&mut self, link: LinkId, index: PieceIndex, offset: u32, fx: &mut Fx) {
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        if self.pieces.len(index).is_none_or(|len| offset >= len) {
            self.odd(link, "it wants a piece that does not exist", fx);
        } else if !self.choker.is_unchoked(link) {
            // No oddity: the request may have crossed the choke on its way.
        } else if !self.have.has(index) {
            self.odd(link, "it wants a piece that is not here", fx);
        } else if neighbor.uploads.contains(&index) {
            self.odd(link, "it wants a piece twice", fx);
        } else if neighbor.uploads.len() + neighbor.withdrawn.len() >= UPLOADS_MAX {
            self.odd(link, "it wants too many pieces at a time", fx);
        } else {
            neighbor.uploads.push_back(index);
            fx.extra(ExtraEffect::Upload(link, index, offset));
        }
    }

    pub(super) fn on_cancel(&mut self, link: LinkId, index: PieceIndex, fx: &mut Fx) {
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        // A cancel of an upload that is under way or done by now is no oddity.
        if let Some(at) = neighbor.uploads.iter().position(|it| *it == index) {
            neighbor.uploads.remove(at);
            neighbor.withdrawn.push_back(index);
            fx.extra(ExtraEffect::Drop(link, index));
        }
    }

    pub(super) fn on_uploaded(&mut self, link: LinkId, index: PieceIndex, bytes: u64) {
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        let waiting = match neighbor.withdrawn.contains(&index) {
            // A withdrawn upload was ordered before one that is not.
            true => &mut neighbor.withdrawn,
            false => &mut neighbor.uploads,
        };
        if let Some(at) = waiting.iter().position(|it| *it == index) {
            waiting.remove(at);
        }
        neighbor.up += bytes;
        self.up += bytes;
        if bytes > 0 {
            self.progressed();
        }
    }
}
