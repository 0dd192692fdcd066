//! Fetching: the requests to each neighbor, and the pieces that come.
//!
//! Invariants: at most a pipeline of requests is under way with one neighbor, and only while it
//! unchokes this peer; a piece is asked of one neighbor, in the endgame of [`COPIES_MAX`]; no piece
//! is asked for that could not be checked when it comes. A piece that comes twice is dropped.

use std::collections::BTreeSet;
use std::time::Duration;

use super::config::{COPIES_MAX, SLOW_BYTES};
use super::event::{Event, ExtraEffect, Stored, SwarmOutcome, Timer};
use super::machine::{Fx, Swarm};
use super::neighbor::{Late, Neighbor};
use crate::machine::LinkId;
use crate::proto::swarm::{Message, PeerId, PieceIndex, ProtocolVariant};

impl Swarm {
    /// Asks all neighbors for all that may be asked.
    pub(super) fn ask_everybody(&mut self, fx: &mut Fx) {
        let links = self.neighbors.links();
        for link in links {
            self.ask(link, fx);
        }
    }

    /// Asks one neighbor for all that may be asked of it now.
    pub(super) fn ask(&mut self, link: LinkId, fx: &mut Fx) {
        self.ask_for_proof(link, fx);
        if self.content.wants_list() || self.content.have().is_full() {
            return;
        }
        while let Some(index) = self.next_for(link, fx) {
            let Some(neighbor) = self.neighbors.get_mut(link) else { return };
            neighbor.ask(index, self.now);
            self.requests.ask(index, link);
            self.picker.want_no_more(index);
            let request = match self.parts.ask(index, neighbor.peer()) {
                None => Message::Request(index),
                Some(offset) => Message::RequestRest { index, offset },
            };
            fx.send(link, request);
            self.await_answer(link, fx);
        }
    }

    /// The next piece to ask of a neighbor, if it has room for a request.
    fn next_for(&mut self, link: LinkId, fx: &mut Fx) -> Option<PieceIndex> {
        let neighbor = self.neighbors.get(link)?;
        let room = match neighbor.is_proven() {
            true => self.config.pipeline,
            false => self.config.pipeline_unproven,
        };
        if !neighbor.may_be_asked() || neighbor.asked().len() >= room {
            return None;
        }
        let is_wanted = |it: &PieceIndex| self.picker.wanted().has(*it) && neighbor.have().has(*it);
        // A begun piece is continued first, by the peer that sent its beginning.
        let begun = self.parts.of(neighbor.peer()).find(is_wanted);
        let fresh = begun.or_else(|| self.picker.pick(neighbor.have(), &mut self.rng));
        fresh.or_else(|| self.next_copy_for(link, fx))
    }

    /// In the endgame: the piece that was asked of another neighbor the longest ago.
    fn next_copy_for(&mut self, link: LinkId, fx: &mut Fx) -> Option<PieceIndex> {
        let age = self.config.endgame_after.filter(|_| self.picker.wanted().is_empty())?;
        let neighbor = self.neighbors.get(link)?;
        let open = self.requests.iter().filter(|(index, askers)| {
            // A slow neighbor does not keep others from being asked.
            let is_quick = |it: &&LinkId| self.neighbors.get(**it).is_some_and(|it| !it.is_slow());
            let quick = askers.iter().filter(is_quick).count();
            neighbor.have().has(*index) && !askers.contains(&link) && quick < COPIES_MAX
        });
        let asked_at = |(index, askers): (PieceIndex, &BTreeSet<LinkId>)| {
            let times = askers.iter().filter_map(|it| self.neighbors.get(*it)?.asked().get(&index));
            (times.max().copied(), index)
        };
        let (since, index) = open.map(asked_at).min()?;
        if self.now.since(since?) >= age {
            return Some(index);
        }
        self.retry_later(fx);
        None
    }

    /// Sets the timer for a request that was just made to a neighbor.
    pub(super) fn await_answer(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        if let Some(patience) = neighbor.await_answer(self.now, self.config.answer_after) {
            fx.set_timer(Timer::Answer(link), patience);
        }
    }

    /// Asks others for the pieces that a neighbor owes (S4), because its timer ran out; the
    /// neighbor is left alone for as long again.
    pub(super) fn on_answer_late(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        let late = match neighbor.on_late(self.now, self.config.answer_after) {
            Late::Nothing => return,
            Late::Wait(left) => return fx.set_timer(Timer::Answer(link), left),
            Late::AskAgain => return self.ask(link, fx),
            Late::Stalled(pause, late) => {
                fx.set_timer(Timer::Answer(link), pause);
                late
            }
        };
        self.content.drop_part_of(link);
        for index in late {
            if self.speaks_share() {
                fx.send(link, Message::Cancel(index));
            }
            self.release(link, index);
        }
        let is_slow = self.neighbors.get(link).is_some_and(Neighbor::is_slow);
        let what =
            if is_slow { "it is slow: for a while nothing came" } else { "it does not answer" };
        self.odd(link, what, fx);
        self.ask_everybody(fx);
    }

    /// Notes that bytes of a piece come from a neighbor: it is slow at worst, and the swarm
    /// goes on. Only requested pieces count, and for these no more time than [`SLOW_BYTES`] a
    /// second would take.
    pub(super) fn on_coming(&mut self, link: LinkId) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        let asked = neighbor.asked();
        let since = asked.values().min().copied();
        let piece_size = u64::from(self.content.pieces().piece_size());
        let most = piece_size * asked.len() as u64 / SLOW_BYTES;
        let patience = self.config.answer_after + Duration::from_secs(most);
        if since.is_some_and(|since| self.now.since(since) <= patience) {
            neighbor.on_coming(self.now);
            self.progressed();
        }
    }

    /// Ends the request of a piece to this neighbor; if no other has one, the piece
    /// is wanted again.
    pub(super) fn release(&mut self, link: LinkId, index: PieceIndex) {
        if let Some(neighbor) = self.neighbors.get(link) {
            self.parts.was_put_off(index, neighbor.peer());
        }
        let is_last = self.requests.release(index, link);
        if is_last && !self.content.has(index) && !self.requests.is_storing(index) {
            self.picker.want(index);
        }
    }

    /// Keeps the part of a requested piece amid which a connection ends.
    pub(super) fn on_part(&mut self, link: LinkId, index: PieceIndex, offset: u32, data: Vec<u8>) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        let len = self.content.pieces().len(index).unwrap_or(0) as usize;
        let is_short = offset as usize + data.len() < len;
        if is_short && self.config.variant == ProtocolVariant::Share && neighbor.answers(index) {
            self.parts.keep(index, neighbor.peer(), offset, data);
            self.release(link, index);
        }
    }

    pub(super) fn on_rest(
        &mut self,
        link: LinkId,
        index: PieceIndex,
        offset: u32,
        data: Vec<u8>,
        fx: &mut Fx,
    ) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        if let Some(part) = self.parts.take(index, neighbor.peer(), offset) {
            return self.on_piece(link, index, part, data, fx);
        }
        if neighbor.answers(index) {
            self.release(link, index);
        }
        self.odd(link, "the end of a piece that was not asked for", fx);
        self.ask(link, fx);
    }

    /// Takes a piece: the part that was kept of it, and the part that came now.
    pub(super) fn on_piece(
        &mut self,
        link: LinkId,
        index: PieceIndex,
        kept: Vec<u8>,
        came: Vec<u8>,
        fx: &mut Fx,
    ) {
        let new = came.len() as u64;
        let mut data = came;
        if !kept.is_empty() {
            data = [kept, data].concat();
        }
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        let Some(len) = self.content.pieces().len(index) else {
            return self.odd(link, "a piece that does not exist", fx);
        };
        if !neighbor.answers(index) {
            if self.content.has(index) && self.speaks_share() {
                fx.send(link, Message::Have(index));
            }
            return self.odd(link, "a piece that was not asked for", fx);
        }
        let is_padded = index.0 + 1 == self.content.pieces().count()
            && data.len() == self.content.pieces().piece_size() as usize
            && data.len() > len as usize;
        let new = new.min(u64::from(len));
        neighbor.on_piece(new, self.now);
        self.progress.came(new);
        if is_padded {
            data.truncate(len as usize);
            self.odd(link, "a last piece that was filled up", fx);
        }
        if data.len() != len as usize {
            self.release(link, index);
            return self.fault(link, "it sent a piece of the wrong length", fx);
        }
        for other in self.requests.take(index).into_iter().filter(|it| *it != link) {
            self.call_off(other, index, fx);
        }
        self.picker.want_no_more(index);
        if !self.content.has(index)
            && let Some(peer) = self.neighbors.peer(link)
            && self.requests.store(index, link, peer)
        {
            let expected = self.content.leaf(index);
            fx.extra(ExtraEffect::Store { index, data, from: link, expected });
        }
        self.ask(link, fx);
    }

    /// Withdraws a request, because the piece came from another neighbor.
    fn call_off(&mut self, link: LinkId, index: PieceIndex, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        if neighbor.withdraw(index) && self.speaks_share() {
            fx.send(link, Message::Cancel(index));
        }
        self.ask(link, fx);
    }

    /// Ends the connection with a neighbor for a fault. In a share the peer is banned; in the
    /// assignment's swarms all peers are needed, and may come back.
    pub(super) fn fault(&mut self, link: LinkId, why: &str, fx: &mut Fx) {
        let Some(peer) = self.neighbors.peer(link) else { return };
        match self.speaks_share() {
            true => self.ban(link, peer, why, fx),
            false => self.hang_up(link, why, fx),
        }
    }

    pub(super) fn on_stored(
        &mut self,
        index: PieceIndex,
        from: LinkId,
        outcome: Stored,
        fx: &mut Fx,
    ) {
        let Some((link, peer)) = self.requests.stored(index) else { return };
        debug_assert_eq!(link, from, "a piece is stored once at a time");
        match outcome {
            Stored::Yes => self.on_gained(index, peer, fx),
            Stored::False => {
                self.picker.want(index);
                if !self.neighbors.is_banned(peer) {
                    fx.emit(Event::FalsePiece(peer, index));
                }
                self.ban(link, peer, "it sent a false piece", fx);
                self.ask_everybody(fx);
            }
            Stored::Failed(reason) => {
                self.picker.want(index);
                self.end(SwarmOutcome::DiskFailed(reason), fx);
            }
        }
        if let (true, Some(neighbor)) = (self.content.has(index), self.neighbors.get_mut(link)) {
            neighbor.prove();
            self.ask(link, fx);
        }
    }

    fn on_gained(&mut self, index: PieceIndex, from: PeerId, fx: &mut Fx) {
        self.progressed();
        self.content.gain(index);
        self.parts.forget(index);
        let have = self.content.have().count();
        fx.emit(Event::Downloaded { index, from, have });
        let links = self.neighbors.links();
        for link in links {
            if self.neighbors.get_mut(link).is_some_and(|it| it.on_gained(index)) {
                self.send_interest(link, false, fx);
            }
        }
        // After the interest: a neighbor that hears of the last piece may end at once.
        self.send_all(&Message::Have(index), fx);
        if self.is_done() {
            self.on_done(fx);
        }
    }

    /// Wants lost pieces again, after some were read again. Neighbors that were told of them cannot
    /// be told otherwise: their requests are left out.
    pub(super) fn on_read_again(
        &mut self,
        read: u32,
        lost: &[PieceIndex],
        files: Vec<String>,
        fx: &mut Fx,
    ) {
        let lost: Vec<_> = lost.iter().copied().filter(|it| self.content.lose(*it)).collect();
        fx.emit(Event::ReadAgain { read, lost: lost.len(), files });
        for index in &lost {
            if self.content.may_ask(*index) {
                self.picker.want(*index);
            }
            self.neighbors.iter_mut().for_each(|it| it.on_lost(*index));
        }
        if !lost.is_empty() {
            self.progressed();
            let links = self.neighbors.links();
            links.into_iter().for_each(|link| self.send_interest(link, false, fx));
            self.ask_everybody(fx);
        }
    }

    /// Tells that no piece is missing any more.
    pub(super) fn on_done(&mut self, fx: &mut Fx) {
        fx.emit(Event::Complete);
        if let Some(roster) = &mut self.roster {
            roster.tell();
        }
    }
}
