//! Attempts of a peer: how each begins and fails, and which incarnations are kept on disk.
//!
//! Invariants:
//! - Each attempt has a higher incarnation than any life that was admitted, also across restarts,
//!   and than the attempt before it, unless the seeds say that it is ahead of their clocks.
//! - An incarnation is kept on disk once it is admitted, before the peer says anything in it: one
//!   that came from a wrong clock is forgotten with the refusal.

use super::{Applicant, ErrorCode, Event, Fx, Incarnation, Now, Record, State, Timer};

impl Applicant {
    pub(super) fn attempt(&mut self, now: Now, fx: &mut Fx) {
        self.incarnation = self.floor.next(now.wall.0);
        self.floor = self.incarnation;
        self.attempts += 1;
        self.state = State::Connecting;
        self.undecided = None;
        self.failed.clear();
        self.calling.clear();
        self.is_renewing = false;
        fx.stop_timer(Timer::Decision);
        fx.stop_timer(Timer::Renew);
        for link in std::mem::take(&mut self.links).into_values() {
            fx.emit(Event::Hangup { link });
        }
        fx.emit(Event::Attempt { incarnation: self.incarnation, number: self.attempts });
        fx.set_timer(Timer::Decision, self.config.decision_timeout);
        self.connect(fx);
    }

    /// Ends the attempt if no linked seed is left that has not refused the request.
    pub(super) fn fail_if_refused(&mut self, reason: &str, fx: &mut Fx) {
        if let State::Asking { no, .. } = &self.state
            && self.links.values().all(|link| no.contains_key(link))
        {
            self.fail(reason, fx);
        }
    }

    pub(super) fn fail(&mut self, reason: &str, fx: &mut Fx) {
        self.learn_floor();
        self.state = State::Pausing;
        fx.stop_timer(Timer::Decision);
        let doubled = self.config.backoff_min * 2_u32.saturating_pow(self.attempts.min(16) - 1);
        let pause = self.jitter(doubled.min(self.config.backoff_max));
        fx.set_timer(Timer::Retry, pause);
        fx.emit(Event::Refused { reason: reason.to_owned(), retry_in: pause });
    }

    /// Keeps the incarnation on disk before anything is said in it, so that no earlier process has
    /// spoken in the same life.
    pub(super) fn keep_life(&mut self, fx: &mut Fx) {
        self.admitted = self.incarnation;
        fx.persist(Record::Incarnation { incarnation: self.incarnation });
    }

    /// Sets the floor of the next attempt from the seeds' refusals. A lying seed can spoil one
    /// attempt by it: the honest seeds then refuse the incarnation as ahead of their clocks.
    fn learn_floor(&mut self) {
        let State::Asking { no, .. } = &self.state else { return };
        let told = |code| no.values().filter(move |it| it.code == code).filter_map(|it| it.above);
        self.floor = match told(ErrorCode::Invalid).min() {
            Some(floor) => floor,
            None => told(ErrorCode::Removed).fold(self.floor, Incarnation::max),
        };
    }
}
