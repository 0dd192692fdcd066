//! Attempts to connect: a handshake that takes a round trip, is refused, or runs out of time.
//!
//! Invariants: an attempt has exactly one entry in the agenda, and is answered exactly once,
//! unless its caller's process ended first. A call that is not answered is repeated with doubling
//! pauses, as TCP does, so a path that heals in time still leads to a connection.

use std::fmt::Debug;
use std::time::Duration;

use crate::machine::{DialError, DialId};
use crate::model::{Endpoint, Time};

use super::agenda::{Agenda, Due};
use super::network::{Delivery, Network, Owner};
use super::reach::{HostId, LinkHolder, Presence};
use super::tally::FaultEffect;

/// The pause before the first repetition of a call (RFC 6298, section 2, as Linux does it).
const REPEAT_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The call leaves.
    Call,
    /// The call has reached this host.
    Heard(HostId),
    /// The answer has come back: connected, with this life of the host.
    Connected(HostId, u32),
    /// The answer has come back: no process listens.
    Refused,
    /// The caller's time is up.
    Late,
}

/// One attempt to connect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    owner: Owner,
    ticket: DialId,
    to: Endpoint,
    deadline: Time,
    base: Duration,
    pause: Duration,
    stage: Stage,
}

impl<T: Clone + Debug> Network<T> {
    /// Begins an attempt to connect.
    pub(super) fn dial(
        &mut self,
        agenda: &mut Agenda,
        owner: Owner,
        ticket: DialId,
        to: Endpoint,
        timeout: Duration,
    ) {
        let number = self.next_dial;
        self.next_dial += 1;
        let deadline = agenda.now().after(timeout);
        let base = self.draw_base();
        let stage = Stage::Call;
        let attempt = Attempt { owner, ticket, to, deadline, base, pause: REPEAT_AFTER, stage };
        self.dials.insert(number, attempt);
        agenda.plan(agenda.now(), Due::Dial(number));
    }

    /// Takes the next step of an attempt; returns the answer after the last step.
    pub(super) fn dial_on(
        &mut self,
        agenda: &mut Agenda,
        number: u64,
    ) -> Option<(Owner, Delivery<T>)> {
        let attempt = self.dials.remove(&number)?;
        let Attempt { owner, ticket, base, .. } = attempt;
        if !self.is_alive(owner) {
            return None;
        }
        let next = match attempt.stage {
            Stage::Call => self.call(&attempt),
            Stage::Heard(host) => self.answer(&attempt, host),
            Stage::Connected(host, life) => {
                let listener = Owner { who: LinkHolder::Host(host), life };
                let link = self.connect(agenda, owner, listener, base);
                return Some((owner, Delivery::Dialed { ticket, link }));
            }
            Stage::Refused => {
                self.tally.add(FaultEffect::DialRefused, 1);
                let reason = DialError::Refused;
                return Some((owner, Delivery::DialFailed { ticket, reason }));
            }
            Stage::Late => {
                self.tally.add(FaultEffect::DialTimedOut, 1);
                let reason = DialError::TimedOut;
                return Some((owner, Delivery::DialFailed { ticket, reason }));
            }
        };
        self.proceed(agenda, number, attempt, next);
        None
    }

    fn call(&mut self, attempt: &Attempt) -> Option<Stage> {
        let host = self.reach.answering(attempt.to)?;
        if self.loses() {
            return None;
        }
        self.reach.carries(attempt.owner.who, LinkHolder::Host(host)).then_some(Stage::Heard(host))
    }

    fn answer(&mut self, attempt: &Attempt, host: HostId) -> Option<Stage> {
        if self.loses() || !self.reach.carries(LinkHolder::Host(host), attempt.owner.who) {
            return None;
        }
        if self.reach.endpoint(host) != attempt.to {
            return Some(Stage::Refused);
        }
        match self.reach.presence(host) {
            Presence::Listening(life) => Some(Stage::Connected(host, life)),
            Presence::Down => Some(Stage::Refused),
            Presence::Vanished => None,
        }
    }

    /// Plans the next step, or a repetition where the packet got lost, or the end of patience.
    fn proceed(
        &mut self,
        agenda: &mut Agenda,
        number: u64,
        mut attempt: Attempt,
        next: Option<Stage>,
    ) {
        let after = if let Some(stage) = next {
            attempt.stage = stage;
            self.travel(attempt.base)
        } else {
            attempt.stage = Stage::Call;
            attempt.pause *= 2;
            attempt.pause / 2
        };
        let mut at = agenda.now().after(after);
        if at >= attempt.deadline {
            attempt.stage = Stage::Late;
            at = attempt.deadline;
        }
        self.dials.insert(number, attempt);
        agenda.plan(at, Due::Dial(number));
    }
}
