//! Messages of the neighbors, and the interest in their pieces.
//!
//! Liberal where content stays correct: a bitfield may come late, twice, never, or with the wrong
//! length; `have` may be repeated; interest need not be told off. A message that names a piece that
//! does not exist is left out and reported.

use super::bitfield::Bitfield;
use super::event::Event;
use super::machine::{Effect, Fx, Swarm};
use crate::machine::LinkId;
use crate::proto::swarm::{Message, PieceIndex};

impl Swarm {
    pub(super) fn on_received(&mut self, link: LinkId, msg: Message, fx: &mut Fx) {
        if self.neighbors.get(link).is_none() {
            return;
        }
        match msg {
            Message::Choke => self.on_choke(link, fx),
            Message::Unchoke => self.on_unchoked(link, fx),
            Message::Interested => self.on_interested(link, fx),
            Message::NotInterested => self.on_not_interested(link, fx),
            Message::Have(index) => self.on_have(link, index, fx),
            Message::Bitfield(bytes) => self.on_bitfield(link, &bytes, fx),
            Message::Request(index) => self.on_request(link, index, 0, fx),
            Message::Piece { index, data } => self.on_piece(link, index, Vec::new(), data, fx),
            Message::Cancel(_)
            | Message::RequestRest { .. }
            | Message::Rest { .. }
            | Message::HashesReq { .. }
            | Message::Hashes { .. }
            | Message::FilesReq { .. }
            | Message::Files { .. }
            | Message::Withdrawn
                if !self.speaks_share() =>
            {
                self.odd(link, "a message of shares", fx);
            }
            Message::Cancel(index) => self.on_cancel(link, index, fx),
            Message::RequestRest { index, offset } => self.on_request(link, index, offset, fx),
            Message::Rest { index, offset, data } => self.on_rest(link, index, offset, data, fx),
            Message::HashesReq { first, count } => self.on_hashes_req(link, first, count, fx),
            Message::Hashes { first, leaves, uncles } => {
                self.on_hashes(link, first, leaves, &uncles, fx);
            }
            Message::FilesReq { offset } => self.on_files_req(link, offset, fx),
            Message::Files { offset, bytes } => self.on_files(link, offset, &bytes, fx),
            Message::Withdrawn => {
                let peer = self.neighbors.peer(link);
                fx.extend(peer.map(|it| Effect::Emit(Event::Withdrawn(it))));
                self.hang_up(link, "it does not offer this any more", fx);
            }
        }
    }

    fn on_choke(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        let (asked, was_choking) = neighbor.on_choke();
        let peer = neighbor.peer();
        if !was_choking {
            fx.emit(Event::ChokedBy(peer));
        }
        for index in &asked {
            self.release(link, *index);
        }
        if !asked.is_empty() {
            self.ask_everybody(fx);
        }
    }

    fn on_unchoked(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        if neighbor.on_unchoke() {
            fx.emit(Event::UnchokedBy(neighbor.peer()));
        }
        self.ask(link, fx);
    }

    fn on_interested(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        neighbor.set_interest(true);
        fx.emit(Event::Interested(neighbor.peer()));
        self.grant_slot(link, fx);
    }

    fn on_not_interested(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        neighbor.set_interest(false);
        fx.emit(Event::NotInterested(neighbor.peer()));
        self.seat_somebody(fx);
    }

    fn on_have(&mut self, link: LinkId, index: PieceIndex, fx: &mut Fx) {
        if self.content.pieces().len(index).is_none() {
            self.odd(link, "it has a piece that does not exist", fx);
            return;
        }
        if let Some(peer) = self.neighbors.peer(link) {
            fx.emit(Event::Have(peer, index));
        }
        if self.appeared(link, index) {
            self.progressed();
        }
        self.judge(link, false, fx);
    }

    fn on_bitfield(&mut self, link: LinkId, bytes: &[u8], fx: &mut Fx) {
        let (says, is_exact) = Bitfield::from_wire(self.content.pieces().count(), bytes);
        if !is_exact {
            self.odd(
                link,
                "a bitfield of the wrong length or with bits that stand for nothing",
                fx,
            );
        }
        for index in says.iter() {
            self.appeared(link, index);
        }
        if let Some(neighbor) = self.neighbors.get(link)
            && let Some(roster) = &mut self.roster
        {
            // Also when it has less than it should: then the roster was wrong.
            roster.complete(neighbor.peer(), neighbor.have().is_full());
        }
        self.judge(link, true, fx);
    }

    /// Notes that a neighbor has this piece. Returns whether that is news.
    fn appeared(&mut self, link: LinkId, index: PieceIndex) -> bool {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return false };
        let is_new = neighbor.appeared(index, !self.content.has(index));
        if is_new {
            self.picker.appeared(index);
            if let Some(roster) = self.roster.as_mut().filter(|_| neighbor.have().is_full()) {
                roster.complete(neighbor.peer(), true);
            }
        }
        is_new
    }

    /// Tells a neighbor whether its pieces are of interest, if that is news or `is_asked`; then
    /// asks for them.
    fn judge(&mut self, link: LinkId, is_asked: bool, fx: &mut Fx) {
        self.send_interest(link, is_asked, fx);
        self.ask(link, fx);
    }

    pub(super) fn send_interest(&mut self, link: LinkId, is_asked: bool, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        if let Some(wants) = neighbor.interest_to_send(is_asked) {
            let msg = if wants { Message::Interested } else { Message::NotInterested };
            fx.send(link, msg);
        }
    }
}
