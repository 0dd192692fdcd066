//! Fresh probes: whether an endpoint answers now, and under which node info.
//!
//! Every verdict about a death rests on these (O3, O5, M6), and so does the dial-back before an
//! admission (M5). A probe is a new connection and a handshake cut short after the proof; it shares
//! nothing with the links whose failure led to it.
//!
//! Invariant: a refusal is believed only after a burst, a connection that could not be made only
//! after a second attempt; a probe under way serves all callers.

use crate::machine::NodeMessage;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::session::CallError;
use super::{DialError, Effects, Never, NodeCall, PingHost, Vocabulary};
use crate::model::Endpoint;
use crate::model::statement::{Finding, MemberInstance};
use crate::proto::hello::NodeInfo;

/// Attempts and time-outs of a probe.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Number of attempts when the connection is refused: a restarting process may be back
    /// in a moment.
    pub attempts: u32,
    /// Pause between two attempts.
    pub pause: Duration,
    /// Time-out of one attempt for the connection, and again for the proof, before stretching; the
    /// first attempt waits half as long for the connection. Shorter blames slow hosts.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { attempts: 3, pause: Duration::from_millis(30), timeout: Duration::from_millis(600) }
    }
}

/// Pause before the next attempt at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer(pub Endpoint);

/// Events of the prober for its node.
#[derive(Debug)]
pub enum Event {
    /// The node must call the endpoint with [`crate::proto::hello::Intent::Probe`].
    Call {
        /// Endpoint to call.
        to: Endpoint,
        /// Time-out of the connection.
        connect: Duration,
        /// Time-out of the answer once connected.
        timeout: Duration,
    },
    /// A probe is over.
    Done {
        /// Endpoint that was probed.
        to: Endpoint,
        /// Outcome of the probe.
        outcome: ProbeOutcome,
    },
}

/// Outcome of a probe.
#[derive(Clone, Debug)]
pub enum ProbeOutcome {
    /// A node proved a key there.
    Answered(Arc<NodeInfo>),
    /// The connection was refused, repeatedly.
    Refused,
    /// No valid answer came in time.
    Silent,
    /// This node could not try; says nothing about the other.
    Inconclusive,
}

impl ProbeOutcome {
    /// Returns the finding that follows about one life of the endpoint; `None` if none does.
    pub fn finding(&self, subject: &MemberInstance) -> Option<Finding> {
        match self {
            Self::Answered(info) if info.subject() == *subject => Some(Finding::Alive),
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
    /// True if a connection has failed to be made in time once.
    is_lossy: bool,
}

impl Vocabulary for Prober {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<Prober>;

impl Prober {
    /// Creates a prober with no probe under way.
    pub const fn new(config: Config) -> Self {
        Self { config, under_way: BTreeMap::new() }
    }

    /// Time-out of one attempt, before stretching.
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

    /// Takes the node info that the called node proved.
    pub fn on_answered(&mut self, to: Endpoint, info: Arc<NodeInfo>, fx: &mut Fx) {
        self.finish(to, ProbeOutcome::Answered(info), fx);
    }

    /// Takes the failure of a call.
    pub fn on_failed(&mut self, to: Endpoint, error: &CallError, fx: &mut Fx) {
        let Some(burst) = self.under_way.get_mut(&to) else { return };
        match error {
            // A packet that opens a connection is repeated after a second if it is lost, longer
            // than a probe can wait: the connection is tried once more instead.
            CallError::Dial(DialError::TimedOut | DialError::Unreachable) if !burst.is_lossy => {
                burst.is_lossy = true;
                fx.set_timer(Timer(to), self.config.pause);
            }
            // Quick failures of a process that is ending, starting or overloaded: none of them
            // counts alone.
            CallError::Dial(DialError::Refused | DialError::HungUp)
            | CallError::Closed
            | CallError::NoRoom(_)
                if burst.left > 0 =>
            {
                fx.set_timer(Timer(to), self.config.pause);
            }
            CallError::Dial(DialError::Refused) => self.finish(to, ProbeOutcome::Refused, fx),
            CallError::Dial(DialError::Busy) => self.finish(to, ProbeOutcome::Inconclusive, fx),
            CallError::Dial(
                DialError::TimedOut
                | DialError::Unreachable
                | DialError::HungUp
                | DialError::Barred,
            )
            | CallError::Silent
            | CallError::Closed
            | CallError::NoRoom(_)
            | CallError::Rejected(_)
            | CallError::BadProof => self.finish(to, ProbeOutcome::Silent, fx),
        }
    }

    /// Makes the next attempt after the pause.
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

    fn finish(&mut self, to: Endpoint, outcome: ProbeOutcome, fx: &mut Fx) {
        if self.under_way.remove(&to).is_some() {
            fx.stop_timer(Timer(to));
            fx.emit(Event::Done { to, outcome });
        }
    }
}
