//! Slots: the choker's decisions, carried out as messages and events.

use super::choker::{Candidate, Changes};
use super::event::{Effect, Event, Fx, Timer};
use super::machine::Swarm;
use super::neighbor::Neighbor;
use crate::machine::LinkId;
use crate::proto::swarm::Message;

impl Swarm {
    pub(super) fn on_unchoke(&mut self, fx: &mut Fx) {
        fx.set_timer(Timer::Unchoke, self.config.unchoke_every);
        let interested = self.links.iter().filter(|(_, it)| it.is_interested);
        let candidates =
            interested.map(|(link, it)| Candidate { link: *link, credit: it.credit }).collect();
        self.links.values_mut().for_each(|it| it.credit = 0);
        let is_complete = self.have.is_full();
        let changes = self.choker.choose(candidates, is_complete, &mut self.rng);
        self.was_chosen = true;
        self.carry_out(changes, fx);
    }

    pub(super) fn on_optimistic(&mut self, fx: &mut Fx) {
        fx.set_timer(Timer::Optimistic, self.config.optimistic_every);
        // A neighbor that never says either way and lacks pieces gets its turn here: some programs
        // of others know no such messages, and would never have the file.
        let own = self.have.count();
        let is_candidate =
            |it: &Neighbor| it.is_interested || (!it.says_interest && it.have.count() < own);
        let candidates: Vec<_> =
            self.links.iter().filter(|(_, it)| is_candidate(it)).map(|(link, _)| *link).collect();
        let changes = self.choker.choose_optimistic(&candidates, &mut self.rng);
        self.carry_out(changes, fx);
    }

    /// Gives an interested neighbor a place at once, if one is free and the configuration says so.
    pub(super) fn seat(&mut self, link: LinkId, fx: &mut Fx) {
        let at_once = self.config.seats_at_once;
        if at_once || !self.was_chosen {
            let links = &self.links;
            let is_interested = |it| links.get(&it).is_some_and(|it| it.is_interested);
            let changes = self.choker.seat(link, at_once, is_interested);
            self.carry_out(changes, fx);
        }
    }

    /// Gives a place that may be free to a neighbor that waits for one, if the
    /// configuration says so.
    pub(super) fn seat_somebody(&mut self, fx: &mut Fx) {
        let waits = |it: &LinkId| self.links[it].is_interested && !self.choker.is_unchoked(*it);
        if let Some(link) = self.links.keys().copied().find(waits) {
            self.seat(link, fx);
        }
    }

    /// Chokes come first, so that never too many are unchoked (S3).
    fn carry_out(&mut self, changes: Changes, fx: &mut Fx) {
        for link in changes.choke {
            fx.send(link, Message::Choke);
            if let Some(neighbor) = self.links.get_mut(&link) {
                let dropped = std::mem::take(&mut neighbor.uploads);
                neighbor.withdrawn.extend(dropped);
            }
        }
        fx.extend(
            changes.unchoke.iter().map(|link| Effect::Send { link: *link, msg: Message::Unchoke }),
        );
        let peer = |link: &LinkId| self.links.get(link).map(|it| it.peer);
        let mut preferred: Vec<_> = self.choker.preferred().iter().filter_map(peer).collect();
        preferred.sort_unstable();
        if preferred != self.preferred_told {
            if !preferred.is_empty() {
                fx.emit(Event::Preferred(preferred.clone()));
            }
            self.preferred_told = preferred;
        }
        if let Some(peer) =
            self.choker.optimistic().filter(|_| changes.optimistic).and_then(|it| peer(&it))
        {
            fx.emit(Event::Optimistic(peer));
        }
    }
}
