//! A life on which a yes to its removal lies is not kept for long.
//!
//! A seed's yes is final (M2), also when the removal came to nothing because the others reach the
//! member. Whoever collects such votes could complete a certificate with them long after, with the
//! vote of one lying seed. A seed that knows of one therefore shows it to the member, which begins
//! a new life in a while; votes on the old one are worth nothing then.

use super::{Applicant, Event, Fx, State, Timer};
use crate::protocol::LinkId;
use crate::protocol::membership::authority::SeedDeadVote;
use crate::protocol::membership::certificate::{ProposalKind, Vote};

impl Applicant {
    /// A seed shows a yes to the removal of members. One that is about this life is reason to begin
    /// another, but not at once: a lying seed must not keep a member from being one.
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
