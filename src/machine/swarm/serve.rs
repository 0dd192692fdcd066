//! Uploads: the requests of neighbors that are taken.
//!
//! Invariants: only an unchoked neighbor's request is taken (S3), only for a piece that is here,
//! once at a time, and at most [`UPLOADS_MAX`](super::UPLOADS_MAX) wait for one neighbor (S5).

use super::event::ExtraEffect;
use super::machine::{Fx, Swarm};
use crate::machine::LinkId;
use crate::proto::swarm::PieceIndex;

impl Swarm {
    /// Takes a neighbor's request for a piece from the byte `offset` on.
    pub(super) fn on_request(&mut self, link: LinkId, index: PieceIndex, offset: u32, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        if self.content.pieces().len(index).is_none_or(|len| offset >= len) {
            self.odd(link, "it wants a piece that does not exist", fx);
        } else if !self.choker.is_unchoked(link) {
            // No oddity: the request may have crossed the choke on its way.
        } else if !self.content.has(index) {
            self.odd(link, "it wants a piece that is not here", fx);
        } else if let Err(why) = neighbor.order_upload(index) {
            self.odd(link, why, fx);
        } else {
            fx.extra(ExtraEffect::Upload(link, index, offset));
        }
    }

    pub(super) fn on_cancel(&mut self, link: LinkId, index: PieceIndex, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        // A cancel of an upload that is under way or done by now is no oddity.
        if neighbor.withdraw_upload(index) {
            fx.extra(ExtraEffect::Drop(link, index));
        }
    }

    pub(super) fn on_uploaded(&mut self, link: LinkId, index: PieceIndex, bytes: u64) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        neighbor.on_uploaded(index, bytes);
        self.progress.left(bytes);
        if bytes > 0 {
            self.progressed();
        }
    }
}
