//! Fetching: the requests to each neighbor, and the pieces that come.
//!
//! Invariants: at most a pipeline of requests is under way with one neighbor, and only while it
//! unchokes this peer; a piece is asked of one neighbor, in the endgame of [`COPIES_MAX`]; no piece
//! is asked for that could not be checked when it comes. A piece that comes twice is dropped.

use crate::proto::swarm::Tongue;
use std::time::Duration;

use super::config::{COPIES_MAX, SLOW_BYTES};
use super::event::{Event, ExtraEffect, Fx, Outcome, Stored, Timer};
use super::machine::{Files, Swarm};
use crate::machine::LinkId;
use crate::proto::swarm::{Message, PeerId, PieceIndex};

impl Swarm {
    /// Asks all neighbors for all that may be asked.
    pub(super) fn ask_everybody(&mut self, fx: &mut Fx) {
        let links: Vec<_> = self.links.keys().copied().collect();
        for link in links {
            self.ask(link, fx);
        }
    }

    /// Asks one neighbor for all that may be asked of it now.
    pub(super) fn ask(&mut self, link: LinkId, fx: &mut Fx) {
        self.ask_for_proof(link, fx);
        if matches!(self.files, Files::Wanted(_)) || self.have.is_full() {
            return;
        }
        while let Some(index) = self.next_for(link, fx) {
            let Some(neighbor) = self.links.get_mut(&link) else { return };
            neighbor.asked.insert(index, self.now);
            self.askers.entry(index).or_default().insert(link);
            self.picker.want_no_more(index);
            let request = match self.parts.ask(index, neighbor.peer) {
                None => Message::Request(index),
                Some(offset) => Message::RequestRest { index, offset },
            };
            fx.send(link, request);
            self.await_answer(link, fx);
        }
    }

    /// The next piece to ask of a neighbor, if it has room for a request.
    fn next_for(&mut self, link: LinkId, fx: &mut Fx) -> Option<PieceIndex> {
        let neighbor = self.links.get(&link)?;
        let room = match neighbor.is_proven {
            true => self.config.pipeline,
            false => self.config.pipeline_unproven,
        };
        let may = !neighbor.is_choking && neighbor.useful > 0 && neighbor.snubbed_until.is_none();
        if !may || neighbor.asked.len() >= room {
            return None;
        }
        let is_wanted = |it: &PieceIndex| self.picker.wanted().has(*it) && neighbor.have.has(*it);
        // A begun piece is continued first, by the peer that sent its beginning.
        let begun = self.parts.of(neighbor.peer).find(is_wanted);
        let fresh = begun.or_else(|| self.picker.pick(&neighbor.have, &mut self.rng));
        fresh.or_else(|| self.next_copy_for(link, fx))
    }

    /// In the endgame: the piece that was asked of another neighbor the longest ago.
    fn next_copy_for(&mut self, link: LinkId, fx: &mut Fx) -> Option<PieceIndex> {
        let age = self.config.endgame_after.filter(|_| self.picker.wanted().is_empty())?;
        let neighbor = self.links.get(&link)?;
        let open = self.askers.iter().filter(|(index, askers)| {
            // A slow neighbor does not keep others from being asked.
            let is_quick = |it: &&LinkId| self.links.get(it).is_some_and(|it| !it.is_slow);
            let quick = askers.iter().filter(is_quick).count();
            neighbor.have.has(**index) && !askers.contains(&link) && quick < COPIES_MAX
        });
        let asked_at = |(index, askers): (&PieceIndex, &std::collections::BTreeSet<LinkId>)| {
            let times = askers.iter().filter_map(|it| self.links.get(it)?.asked.get(index));
            (times.max().copied(), *index)
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
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        if neighbor.asked.len() <= 1 {
            neighbor.waiting_since = self.now;
        }
        if !neighbor.is_timed {
            neighbor.is_timed = true;
            let patience = neighbor.patience(self.config.answer_after);
            fx.set_timer(Timer::Answer(link), patience);
        }
    }

    /// Asks others for the pieces that a neighbor owes (S4), because its timer ran out; the
    /// neighbor is left alone for as long again.
    pub(super) fn on_answer_late(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        neighbor.is_timed = false;
        let patience = neighbor.patience(self.config.answer_after);
        let until = neighbor
            .snubbed_until
            .or_else(|| neighbor.owes().then(|| neighbor.waiting_since.after(patience)));
        let Some(until) = until else { return };
        let left = until.since(self.now);
        if !left.is_zero() {
            neighbor.is_timed = true;
            fx.set_timer(Timer::Answer(link), left);
            return;
        }
        if neighbor.snubbed_until.take().is_some() {
            self.ask(link, fx);
            return;
        }
        neighbor.stalls += 1;
        neighbor.snubbed_until = Some(self.now.after(patience));
        neighbor.is_timed = true;
        neighbor.asked_hashes = None;
        neighbor.asked_files = false;
        fx.set_timer(Timer::Answer(link), patience);
        let late: Vec<_> = neighbor.asked.keys().copied().collect();
        for index in &late {
            neighbor.withdraw(*index);
        }
        if self.list.as_ref().is_some_and(|(from, _)| *from == link) {
            self.list = None;
        }
        for index in late {
            if self.speaks_share() {
                fx.send(link, Message::Cancel(index));
            }
            self.release(link, index);
        }
        let is_slow = self.links.get(&link).is_some_and(|it| it.is_slow);
        let what =
            if is_slow { "it is slow: for a while nothing came" } else { "it does not answer" };
        self.odd(link, what, fx);
        self.ask_everybody(fx);
    }

    /// Notes that bytes of a piece come from a neighbor: it is slow at worst, and the swarm
    /// goes on. Only requested pieces count, and for these no more time than [`SLOW_BYTES`] a
    /// second would take.
    pub(super) fn on_coming(&mut self, link: LinkId) {
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        let since = neighbor.asked.values().min().copied();
        let most = u64::from(self.pieces.piece_size()) * neighbor.asked.len() as u64 / SLOW_BYTES;
        let patience = self.config.answer_after + Duration::from_secs(most);
        if since.is_some_and(|since| self.now.since(since) <= patience) {
            neighbor.waiting_since = self.now;
            neighbor.is_slow = true;
            self.progress_at = self.now;
        }
    }

    /// Ends the request of a piece to this neighbor; if no other has one, the piece
    /// is wanted again.
    pub(super) fn release(&mut self, link: LinkId, index: PieceIndex) {
        if let Some(neighbor) = self.links.get(&link) {
            self.parts.was_put_off(index, neighbor.peer);
        }
        if let Some(askers) = self.askers.get_mut(&index) {
            askers.remove(&link);
            if !askers.is_empty() {
                return;
            }
            self.askers.remove(&index);
        }
        if !self.have.has(index) && !self.storing.contains_key(&index) {
            self.picker.want(index);
        }
    }

    /// Keeps the part of a requested piece amid which a connection ends.
    pub(super) fn on_part(&mut self, link: LinkId, index: PieceIndex, offset: u32, data: Vec<u8>) {
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        let len = self.pieces.len(index).unwrap_or(0) as usize;
        let is_short = offset as usize + data.len() < len;
        if is_short && self.config.tongue == Tongue::Share && neighbor.answers(index) {
            self.parts.keep(index, neighbor.peer, offset, data);
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
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        if let Some(part) = self.parts.take(index, neighbor.peer, offset) {
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
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        let Some(len) = self.pieces.len(index) else {
            return self.odd(link, "a piece that does not exist", fx);
        };
        if !neighbor.answers(index) {
            if self.have.has(index) && self.speaks_share() {
                fx.send(link, Message::Have(index));
            }
            return self.odd(link, "a piece that was not asked for", fx);
        }
        let is_padded = index.0 + 1 == self.pieces.count()
            && data.len() == self.pieces.piece_size() as usize
            && data.len() > len as usize;
        neighbor.answered(self.now);
        let new = new.min(u64::from(len));
        neighbor.credit += new;
        neighbor.down += new;
        self.down += new;
        let others = self.askers.remove(&index).unwrap_or_default();
        if is_padded {
            data.truncate(len as usize);
            self.odd(link, "a last piece that was filled up", fx);
        }
        if data.len() != len as usize {
            self.askers.insert(index, others);
            self.release(link, index);
            return self.fault(link, "it sent a piece of the wrong length", fx);
        }
        for other in others.into_iter().filter(|it| *it != link) {
            self.call_off(other, index, fx);
        }
        self.picker.want_no_more(index);
        if !self.have.has(index)
            && !self.storing.contains_key(&index)
            && let Some(peer) = self.links.get(&link).map(|it| it.peer)
        {
            self.storing.insert(index, (link, peer));
            let expected = self.tree.as_ref().and_then(|it| it.leaf(index));
            fx.extra(ExtraEffect::Store { index, data, from: link, expected });
        }
        self.ask(link, fx);
    }

    /// Withdraws a request, because the piece came from another neighbor.
    fn call_off(&mut self, link: LinkId, index: PieceIndex, fx: &mut Fx) {
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        if neighbor.withdraw(index) && self.speaks_share() {
            fx.send(link, Message::Cancel(index));
        }
        self.ask(link, fx);
    }

    /// Ends the connection with a neighbor for a fault. In a share the peer is banned; in the
    /// assignment's swarms all peers are needed, and may come back.
    pub(super) fn fault(&mut self, link: LinkId, why: &str, fx: &mut Fx) {
        let Some(peer) = self.links.get(&link).map(|it| it.peer) else { return };
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
        let Some((link, peer)) = self.storing.remove(&index) else { return };
        debug_assert_eq!(link, from, "a piece is stored once at a time");
        match outcome {
            Stored::Yes => self.on_gained(index, peer, fx),
            Stored::False => {
                self.picker.want(index);
                if !self.banned.contains(&peer) {
                    fx.emit(Event::FalsePiece(peer, index));
                }
                self.ban(link, peer, "it sent a false piece", fx);
                self.ask_everybody(fx);
            }
            Stored::Failed(reason) => {
                self.picker.want(index);
                self.end(Outcome::DiskFailed(reason), fx);
            }
        }
        if let (true, Some(neighbor)) = (self.have.has(index), self.links.get_mut(&link)) {
            neighbor.is_proven = true;
            self.ask(link, fx);
        }
    }

    fn on_gained(&mut self, index: PieceIndex, from: PeerId, fx: &mut Fx) {
        self.progressed();
        self.have.set(index);
        self.parts.forget(index);
        let have = self.have.count();
        fx.emit(Event::Downloaded { index, from, have });
        let links: Vec<_> = self.links.keys().copied().collect();
        for link in links {
            if let Some(neighbor) = self.links.get_mut(&link).filter(|it| it.have.has(index)) {
                neighbor.useful -= 1;
                self.tell_interest(link, false, fx);
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
        let lost: Vec<_> = lost.iter().copied().filter(|it| self.have.clear(*it)).collect();
        fx.emit(Event::ReadAgain { read, lost: lost.len(), files });
        for index in &lost {
            if self.tree.as_ref().is_none_or(|it| it.leaf(*index).is_some()) {
                self.picker.want(*index);
            }
            let has_it = self.links.values_mut().filter(|it| it.have.has(*index));
            has_it.for_each(|it| it.useful += 1);
        }
        if !lost.is_empty() {
            self.progressed();
            let links: Vec<_> = self.links.keys().copied().collect();
            links.into_iter().for_each(|link| self.tell_interest(link, false, fx));
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
