//! Renewal: a peer soon ends a life for whose removal a yes vote exists.
//!
//! A seed's yes is final (M2), also when the removal came to nothing because other seeds reach the
//! member. A collector of such votes could complete a certificate with them much later, with the
//! vote of one lying seed. A seed that knows of such a vote therefore shows it to the member, which
//! begins a new life after a delay; votes on the old one are worth nothing then.

use super::{Applicant, Event, Fx, State, Timer};
use crate::machine::LinkId;
use crate::model::statement::{ProposalKind, Vote};
use crate::proto::membership::SeedDeadVote;

impl Applicant {
    /// Takes a seed's yes to the removal of members. A vote about this life makes the peer begin
    /// another one, but not at once: a lying seed must not keep a peer from being a member.
    pub fn on_dead_vote(&mut self, link: LinkId, said: &SeedDeadVote, fx: &mut Fx) {
        let is_own = said.lives.contains(&self.subject());
        let is_asked = matches!(self.state, State::Member(_)) && !self.is_renewing;
        if !is_own || !is_asked || !self.links.values().any(|it| *it == link) {
            return;
        }
        let is_given = |vote: Vote| self.book.is_given(ProposalKind::Remove, &said.lives, &vote);
        if said.vote().is_some_and(is_given) {
            self.is_renewing = true;
            let after = self.jitter(self.config.renew);
            fx.set_timer(Timer::Renew, after);
            fx.emit(Event::Renews { seed: said.seed, after });
        }
    }
}
