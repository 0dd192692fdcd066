//! The end of a swarm for this peer.
//!
//! Invariant: with a roster the swarm ends in every case (S4): when all members have all
//! pieces and none waits for this peer, or when there was no progress toward that for as long
//! as the limit says.

use super::event::{Event, SwarmOutcome, Timer};
use super::machine::{Effect, Fx, Swarm};
use crate::proto::swarm::Message;

impl Swarm {
    pub(super) fn end_if_over(&mut self, fx: &mut Fx) {
        if self.progress.ended().is_none()
            && self.is_done()
            && let Some(roster) = &self.roster
            && roster.is_over(|peer| self.places.is_gone(peer))
        {
            self.end(SwarmOutcome::AllComplete, fx);
        }
    }

    pub(super) fn on_give_up(&mut self, fx: &mut Fx) {
        let Some(span) = self.config.give_up_after else { return };
        let left = self.progress.at().after(span).since(self.now);
        if !left.is_zero() {
            fx.set_timer(Timer::GiveUp, left);
            return;
        }
        let missing = self.roster.as_ref().map(|it| it.incomplete());
        match missing {
            _ if !self.is_done() => self.end(SwarmOutcome::Incomplete, fx),
            Some(missing) if missing.is_empty() => self.end(SwarmOutcome::AllComplete, fx),
            Some(missing) => self.end(SwarmOutcome::WithoutSome(missing), fx),
            // A share is offered for as long as it is wanted.
            None => fx.set_timer(Timer::GiveUp, span),
        }
    }

    /// True if neighbors are told that this peer does not offer the content any more.
    pub(super) fn has_withdrawn(&self, outcome: &SwarmOutcome) -> bool {
        self.speaks_share() && matches!(outcome, SwarmOutcome::DiskFailed(_))
    }

    /// Ends the swarm. Messages that were sent before still leave.
    pub(super) fn end(&mut self, outcome: SwarmOutcome, fx: &mut Fx) {
        for timer in [Timer::Unchoke, Timer::Optimistic, Timer::Retry, Timer::GiveUp] {
            fx.stop_timer(timer);
        }
        let redials = self.places.waiting().map(Timer::Redial);
        fx.extend(redials.map(Effect::StopTimer));
        for (link, neighbor) in self.neighbors.take() {
            if self.has_withdrawn(&outcome) {
                fx.send(link, Message::Withdrawn);
            }
            if neighbor.is_timed() {
                fx.stop_timer(Timer::Answer(link));
            }
            fx.hangup(link);
        }
        self.progress.end(outcome.clone());
        fx.emit(Event::Ended(outcome));
    }
}
