//! Fresh probes: does this endpoint answer now, and as whom?
//!
//! Every verdict about a death rests on these (O3, O5, M6), and so does the dial-back before an
//! admission (M5). A probe is a new connection and a handshake cut short after the proof; it
//! shares nothing with the links whose failure made somebody curious.
//!
//! Invariant: a refusal is believed only after a burst, a connection that does not come about only
//! after a second attempt; a probe under way serves all who ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::membership::certificate::{Finding, Subject};
use super::session::{CallError, Card};
use super::{DialError, Effects, Kind, Never};
use crate::model::Endpoint;

/// How often and how long to try.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Attempts when nobody listens: a restarting process may be back in a moment.
    pub attempts: u32,
    /// The pause between two of them.
    pub pause: Duration,
    /// How long one attempt waits for the connection, and then for the proof, before stretching;
    /// the first waits half as long for the connection. Shorter blames slow hosts.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { attempts: 3, pause: Duration::from_millis(30), timeout: Duration::from_millis(600) }
    }
}

/// The pause before the next attempt at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer(pub Endpoint);

/// What the prober tells its node.
#[derive(Debug)]
pub enum Event {
    /// The node must call the endpoint with [`super::session::Intent::Probe`].
    Call {
        /// Whom.
        to: Endpoint,
        /// For how long a connection may take to come about.
        connect: Duration,
        /// For how long the answer then may.
        timeout: Duration,
    },
    /// A probe is over.
    Done {
        /// Whom it asked for.
        to: Endpoint,
        /// What it found.
        outcome: Outcome,
    },
}

/// What a probe found.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Somebody proved a key there.
    Answered(Arc<Card>),
    /// Nobody listens there, repeatedly.
    Refused,
    /// No valid answer in time.
    Silent,
    /// This node could not try; says nothing about the other.
    Inconclusive,
}

impl Outcome {
    /// What this says about one life of the endpoint; `None` if nothing.
    pub fn finding(&self, subject: &Subject) -> Option<Finding> {
        match self {
            Self::Answered(card) if card.subject() == *subject => Some(Finding::Alive),
            Self::Answered(_) => Some(Finding::Replaced),
            Self::Refused => Some(Finding::Refused),
            Self::Silent => Some(Finding::Silent),
            Self::Inconclusive => None,
        }
    }
}

/// The probes under way at one node.
#[derive(Debug, Default)]
pub struct Prober {
    config: Config,
    under_way: BTreeMap<Endpoint, Burst>,
}

#[derive(Debug)]
struct Burst {
    left: u32,
    timeout: Duration,
    /// A connection has failed to come about in time once.
    is_lossy: bool,
}

impl Kind for Prober {
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
}

type Fx = Effects<Prober>;

impl Prober {
    /// A prober with nothing under way.
    pub const fn new(config: Config) -> Self {
        Self { config, under_way: BTreeMap::new() }
    }

    /// The time one attempt waits, before stretching.
    pub const fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// Starts a probe of `to`, unless one is under way; `Done` follows exactly once for both.
    pub fn probe(&mut self, to: Endpoint, timeout: Duration, fx: &mut Fx) {
        if self.under_way.contains_key(&to) {
            return;
        }
        let left = self.config.attempts.max(1);
        self.under_way.insert(to, Burst { left, timeout, is_lossy: false });
        self.attempt(to, fx);
    }

    /// The called one proved a key.
    pub fn on_answered(&mut self, to: Endpoint, card: Arc<Card>, fx: &mut Fx) {
        self.finish(to, Outcome::Answered(card), fx);
    }

    /// The call failed.
    pub fn on_failed(&mut self, to: Endpoint, error: &CallError, fx: &mut Fx) {
        let Some(burst) = self.under_way.get_mut(&to) else { return };
        match error {
            // A packet that opens a connection is repeated after a second if it is lost, longer
            // than a probe can wait: the connection is tried once more instead.
            CallError::Dial(DialError::TimedOut | DialError::Unreachable) if !burst.is_lossy => {
                burst.is_lossy = true;
                fx.set_timer(Timer(to), self.config.pause);
            }
            // Quick failures of a process that is ending or starting: none of them counts alone.
            CallError::Dial(DialError::Refused | DialError::HungUp) | CallError::Closed
                if burst.left > 0 =>
            {
                fx.set_timer(Timer(to), self.config.pause);
            }
            CallError::Dial(DialError::Refused) => self.finish(to, Outcome::Refused, fx),
            CallError::Dial(DialError::Busy) => self.finish(to, Outcome::Inconclusive, fx),
            CallError::Dial(
                DialError::TimedOut
                | DialError::Unreachable
                | DialError::HungUp
                | DialError::Barred,
            )
            | CallError::Silent
            | CallError::Closed
            | CallError::Rejected(_)
            | CallError::BadProof => self.finish(to, Outcome::Silent, fx),
        }
    }

    /// The pause between two attempts is over.
    pub fn on_timer(&mut self, Timer(to): Timer, fx: &mut Fx) {
        self.attempt(to, fx);
    }

    fn attempt(&mut self, to: Endpoint, fx: &mut Fx) {
        if let Some(burst) = self.under_way.get_mut(&to) {
            burst.left = burst.left.saturating_sub(1);
            let connect = if burst.is_lossy { burst.timeout } else { burst.timeout / 2 };
            fx.emit(Event::Call { to, connect, timeout: burst.timeout });
        }
    }

    fn finish(&mut self, to: Endpoint, outcome: Outcome, fx: &mut Fx) {
        if self.under_way.remove(&to).is_some() {
            fx.stop_timer(Timer(to));
            fx.emit(Event::Done { to, outcome });
        }
    }
}
