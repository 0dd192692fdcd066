//! Neighbors: connections that come and go, and the places to call again.
//!
//! Invariants: one connection a peer; none with this peer itself, with a banned peer, or with one
//! that is not on the roster. When two peers of a share have called each other, both keep the
//! connection that the one with the higher id dialed.

use super::config::LINK_LASTS;
use super::event::{Event, PeerAddrId, Timer};
use super::machine::{Fx, Swarm};
use super::neighbor::Neighbor;
use super::peer_addrs::DisconnectCause;
use crate::machine::LinkId;
use crate::proto::swarm::{Message, PeerId, ProtocolVariant};

impl Swarm {
    pub(super) fn on_known(&mut self, place: PeerAddrId, fx: &mut Fx) {
        if self.places.learn(place) {
            self.call(place, fx);
        }
    }

    /// Calls a place that waits to be called, if there is room.
    fn call(&mut self, place: PeerAddrId, fx: &mut Fx) {
        let linked =
            self.places.peer_at(place).is_some_and(|it| self.neighbors.of_peer(it).is_some());
        if linked || self.neighbors.len() + self.places.calling() >= self.config.links_max {
            fx.set_timer(Timer::Redial(place), self.config.redial_max);
        } else {
            self.places.call(place);
            fx.call(place);
        }
    }

    pub(super) fn on_redial(&mut self, place: PeerAddrId, fx: &mut Fx) {
        if self.places.is_waiting(place) {
            self.call(place, fx);
        }
    }

    pub(super) fn on_dial_failed(&mut self, place: PeerAddrId, reason: String, fx: &mut Fx) {
        let retry_in =
            self.places.pause(place, DisconnectCause::Missed, &self.config, &mut self.rng);
        if let Some(pause) = retry_in {
            fx.set_timer(Timer::Redial(place), pause);
        }
        fx.emit(Event::Unreachable { place, reason, retry_in });
    }

    pub(super) fn on_connected(
        &mut self,
        link: LinkId,
        peer: PeerId,
        place: Option<PeerAddrId>,
        fx: &mut Fx,
    ) {
        if let Err(why) = self.admit(peer, place, fx) {
            fx.emit(Event::Refused(peer, why));
            fx.hangup(link);
            self.call_again(place, DisconnectCause::Short, fx);
            return;
        }
        self.progressed();
        if let Some(place) = place {
            self.places.linked(place, peer);
        }
        let (count, is_proven) = (self.content.pieces().count(), !self.content.has_tree());
        let neighbor = Neighbor::new(peer, place, count, is_proven, self.now);
        self.neighbors.add(link, neighbor);
        let is_done = self.is_done();
        if let Some(roster) = &mut self.roster {
            roster.linked(peer, true);
            if self.content.pieces().is_empty() {
                roster.complete(peer, true);
            }
            if is_done {
                roster.tell();
            }
        }
        let event = match place {
            Some(_) => Event::Connected(peer),
            None => Event::ConnectedFrom(peer),
        };
        fx.emit(event);
        // Also when it is empty: some programs wait for it before they do anything.
        fx.send(link, Message::Bitfield(self.content.have().to_wire()));
        self.ask(link, fx);
    }

    /// Checks whether a peer may be a neighbor; if so, there is room for it now.
    fn admit(
        &mut self,
        peer: PeerId,
        place: Option<PeerAddrId>,
        fx: &mut Fx,
    ) -> Result<(), &'static str> {
        if peer == self.me {
            place.into_iter().for_each(|it| self.places.never(it));
            return Err("it is this peer itself");
        }
        if self.neighbors.is_banned(peer) {
            place.into_iter().for_each(|it| self.places.never(it));
            return Err("it sent a false piece before");
        }
        if self.roster.as_ref().is_some_and(|it| !it.has(peer)) {
            return Err("it does not belong to this swarm");
        }
        let is_assignment = self.config.variant == ProtocolVariant::Assignment;
        if is_assignment && place.is_some_and(|it| it.0 != peer.0) {
            return Err("somebody else was called");
        }
        if let Some(old) = self.neighbors.of_peer(peer) {
            if let Some(place) = place {
                self.places.known_as(place, peer);
            }
            let was_dialed = self.neighbors.get(old).is_some_and(|it| it.place().is_some());
            let i_am_higher = self.me > peer;
            let crossed = was_dialed != place.is_some();
            if is_assignment || !crossed || place.is_some() != i_am_higher {
                return Err("there is a connection with it already");
            }
            self.hang_up(old, "both called, and the other call stays", fx);
        }
        if self.neighbors.len() >= self.config.links_max && !self.make_room(fx) {
            return Err("there are enough neighbors");
        }
        Ok(())
    }

    /// Ends a connection that is of no use to either end. Returns whether there was one.
    fn make_room(&mut self, fx: &mut Fx) -> bool {
        let idle = self.neighbors.iter().find(|(_, it)| it.have().is_full()).map(|it| it.0);
        let idle = idle.filter(|_| self.is_done() && self.speaks_share());
        if let Some(link) = idle {
            self.hang_up(link, "both have everything, and others want to come", fx);
        }
        idle.is_some()
    }

    fn call_again(&mut self, place: Option<PeerAddrId>, cause: DisconnectCause, fx: &mut Fx) {
        let Some(place) = place else { return };
        if let Some(pause) = self.places.pause(place, cause, &self.config, &mut self.rng) {
            fx.set_timer(Timer::Redial(place), pause);
        }
    }

    /// Ends a connection, with the reason.
    pub(super) fn hang_up(&mut self, link: LinkId, why: &str, fx: &mut Fx) {
        if self.neighbors.get(link).is_some() {
            fx.hangup(link);
            self.remove(link, Some(why.to_owned()), fx);
        }
    }

    /// Ends a connection and bans its peer. The place may be called again: a peer that is there
    /// after a restart has another id, and may be honest.
    pub(super) fn ban(&mut self, link: LinkId, peer: PeerId, why: &str, fx: &mut Fx) {
        self.neighbors.ban(peer);
        self.hang_up(link, why, fx);
    }

    /// Removes a connection that is over: its requests go to other neighbors.
    pub(super) fn remove(&mut self, link: LinkId, why: Option<String>, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.remove(link) else { return };
        self.picker.lost(neighbor.have());
        self.choker.remove(link);
        if neighbor.is_timed() {
            fx.stop_timer(Timer::Answer(link));
        }
        if let Some(roster) = &mut self.roster {
            roster.linked(neighbor.peer(), false);
        }
        self.content.drop_part_of(link);
        fx.emit(Event::Disconnected(neighbor.peer(), why));
        for index in neighbor.asked().keys() {
            self.release(link, *index);
        }
        self.parts.is_gone(neighbor.peer());
        let is_short = self.now.since(neighbor.since()) < LINK_LASTS;
        let cause = if is_short { DisconnectCause::Short } else { DisconnectCause::Over };
        self.call_again(neighbor.place(), cause, fx);
        self.seat_somebody(fx);
        self.ask_everybody(fx);
    }
}
