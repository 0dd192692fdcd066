//! Slots: the choker's decisions, carried out as messages and events.

use super::choker::{Candidate, Changes};
use super::event::{Event, Timer};
use super::machine::{Effect, Fx, Swarm};
use super::neighbor::Neighbor;
use crate::machine::LinkId;
use crate::proto::swarm::Message;

impl Swarm {
    pub(super) fn on_unchoke(&mut self, fx: &mut Fx) {
        fx.set_timer(Timer::Unchoke, self.config.unchoke_every);
        let interested = self.neighbors.iter().filter(|(_, it)| it.is_interested());
        let candidates =
            interested.map(|(link, it)| Candidate { link, credit: it.credit() }).collect();
        self.neighbors.iter_mut().for_each(Neighbor::reset_credit);
        let is_complete = self.content.have().is_full();
        let changes = self.choker.choose(candidates, is_complete, &mut self.rng);
        self.carry_out(changes, fx);
    }

    pub(super) fn on_optimistic(&mut self, fx: &mut Fx) {
        fx.set_timer(Timer::Optimistic, self.config.optimistic_every);
        // A neighbor that never says either way and lacks pieces gets its turn here: some programs
        // of others know no such messages, and would never have the file.
        let own = self.content.have().count();
        let is_candidate = |it: &Neighbor| it.is_interested() || it.is_mute(own);
        let candidates: Vec<_> =
            self.neighbors.iter().filter(|(_, it)| is_candidate(it)).map(|it| it.0).collect();
        let changes = self.choker.choose_optimistic(&candidates, &mut self.rng);
        self.carry_out(changes, fx);
    }

    /// Gives an interested neighbor a place at once, if one is free and the configuration says so.
    pub(super) fn grant_slot(&mut self, link: LinkId, fx: &mut Fx) {
        let at_once = self.config.seats_at_once;
        if at_once || !self.choker.has_chosen() {
            let neighbors = &self.neighbors;
            let is_interested = |it| neighbors.get(it).is_some_and(Neighbor::is_interested);
            let changes = self.choker.grant_slot(link, at_once, is_interested);
            self.carry_out(changes, fx);
        }
    }

    /// Gives a place that may be free to a neighbor that waits for one, if the
    /// configuration says so.
    pub(super) fn seat_somebody(&mut self, fx: &mut Fx) {
        let waits = |(link, it): &(LinkId, &Neighbor)| {
            it.is_interested() && !self.choker.is_unchoked(*link)
        };
        let next = self.neighbors.iter().find(waits).map(|it| it.0);
        if let Some(link) = next {
            self.grant_slot(link, fx);
        }
    }

    /// Chokes come first, so that never too many are unchoked (S3).
    fn carry_out(&mut self, changes: Changes, fx: &mut Fx) {
        for link in changes.choke {
            fx.send(link, Message::Choke);
            if let Some(neighbor) = self.neighbors.get_mut(link) {
                neighbor.withdraw_uploads();
            }
        }
        fx.extend(
            changes.unchoke.iter().map(|link| Effect::Send { link: *link, msg: Message::Unchoke }),
        );
        let peer = |link: &LinkId| self.neighbors.peer(*link);
        let mut preferred: Vec<_> = self.choker.preferred().iter().filter_map(peer).collect();
        preferred.sort_unstable();
        if self.choker.tell(&preferred) && !preferred.is_empty() {
            fx.emit(Event::Preferred(preferred));
        }
        if let Some(peer) =
            self.choker.optimistic().filter(|_| changes.optimistic).and_then(|it| peer(&it))
        {
            fx.emit(Event::Optimistic(peer));
        }
    }
}
