//! In which life an attempt is made, and which lives are kept.
//!
//! Invariants:
//! - Each attempt has a higher incarnation than any life that was admitted, also across restarts,
//!   and than the attempt before it, unless the seeds say that it is ahead of their clocks.
//! - An incarnation is kept on disk once it is admitted, before anything is said in it: what a
//!   wrong clock has made of one is forgotten with the refusal.

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

    /// Nobody shares this life with a process before: whatever is said in it comes after this.
    pub(super) fn keep_life(&mut self, fx: &mut Fx) {
        self.admitted = self.incarnation;
        fx.persist(Record::Incarnation { incarnation: self.incarnation });
    }

    /// What the next attempt has to be above, by what the seeds have said to this one. A lying seed
    /// can spoil one attempt with it: the honest ones then say that it is ahead of their clocks.
    pub(super) fn learn_floor(&mut self) {
        let State::Asking { no, .. } = &self.state else { return };
        let told = |code| no.values().filter(move |it| it.code == code).filter_map(|it| it.above);
        self.floor = match told(ErrorCode::Invalid).min() {
            Some(floor) => floor,
            None => told(ErrorCode::Removed).fold(self.floor, Incarnation::max),
        };
    }
}
