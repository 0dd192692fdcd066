//! Direct sends: a message for one member, neighbor or not, acknowledged end to end.
//!
//! A message travels over any link with the member, or over a new one that is called for it. The
//! receiver's application says yes or no, and that answer comes back. A lost message is sent again
//! after ever longer pauses.
//!
//! Invariants:
//! - Every message ends in exactly one of [`Event::Sent`] and [`Event::Failed`].
//! - `Sent`: the receiver took it, once. A definite failure: it was not taken, and will not be.
//! - A message that may have arrived is repeated only toward the same life of its receiver, and
//!   only for as long as that life remembers it; there, a repeated message is not shown again.
//! - All is bounded: the messages that wait here, those that wait for the application, those that
//!   are put together, and the verdicts that are remembered.

mod event;
mod incoming;
mod outbox;
mod outgoing;
mod retry;
mod routes;

pub use event::{Config, DirectMetrics, Event, FailKind, Timer};

pub use outbox::OutgoingMessage;
pub use retry::RetryConfig;

use incoming::ReceivedMessages;
use outbox::SendQueue;
use routes::Routes;

use crate::machine::{Effects, LinkId, Never, NodeCall, NodeMessage, PingHost, Vocabulary};
use crate::model::{Endpoint, Incarnation, Now, Rng};

/// Number of messages of more than one part that one member is sent, or sends, at a time.
const LARGE_MAX: usize = 2;

/// Pause between two searches for idle links and old entries.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(5);

/// The direct sends of one peer, in both directions.
#[derive(Debug)]
pub struct Direct {
    config: Config,
    me: Endpoint,
    rng: Rng,
    routes: Routes,
    queue: SendQueue,
    received: ReceivedMessages,
    metrics: DirectMetrics,
    is_sweeping: bool,
}

impl Vocabulary for Direct {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<Direct>;

impl Direct {
    /// Creates the direct sends of the peer at `me`.
    pub fn new(config: Config, me: Endpoint, rng: Rng) -> Self {
        Self {
            config,
            me,
            rng,
            routes: Routes::default(),
            queue: SendQueue::default(),
            received: ReceivedMessages::default(),
            metrics: DirectMetrics::default(),
            is_sweeping: false,
        }
    }

    /// Returns the counters and the present sizes.
    pub fn metrics(&self) -> DirectMetrics {
        DirectMetrics {
            open: self.queue.len() as u64,
            open_bytes: self.queue.bytes() as u64,
            questions: self.received.questions() as u64,
            remembered: self.received.remembered() as u64,
            links: self.routes.own() as u64,
            ..self.metrics
        }
    }

    /// True if a link is one for direct messages, kept or called by one end for them alone.
    pub fn is_own(&self, link: LinkId) -> bool {
        self.routes.is_own(link)
    }

    /// Takes a new link with a member. `own` says of a link for direct messages alone whether this
    /// node called; `None` is a neighbor's link, which serves as well.
    pub fn on_link_up(
        &mut self,
        now: Now,
        (link, peer, life): (LinkId, Endpoint, Incarnation),
        own: Option<bool>,
        fx: &mut Fx,
    ) {
        if own.is_some()
            && let Err(victim) = self.make_room(peer)
        {
            let (link, reason) = (victim.unwrap_or(link), "too many links for direct messages");
            fx.emit(Event::Hangup { link, reason });
            if victim.is_none() {
                // The messages that wait for this call must not wait for ever.
                if own == Some(true) {
                    self.on_call_failed(peer, reason, fx);
                }
                return;
            }
        }
        if own == Some(true) {
            self.queue.called(peer);
        }
        self.routes.insert(link, peer, life, own.map(|dialed| (dialed, now.mono)));
        self.sweep_later(fx);
        self.advance(now, peer, fx);
    }

    /// Checks whether there is room for another link of this peer; else returns the one that must
    /// be closed for it, if any may be.
    fn make_room(&self, peer: Endpoint) -> Result<(), Option<LinkId>> {
        // Of the links that the peer has called, the older gives way to a further one.
        if let Some(second) = self.routes.second_called(peer) {
            return Err(Some(second));
        }
        if self.routes.own() < self.config.links_max {
            return Ok(());
        }
        let is_needed = |it: Endpoint| self.queue.is_busy(it) || self.received.is_asking(it);
        Err(self.routes.idlest(is_needed))
    }

    /// Takes the end of a link.
    pub fn on_link_down(&mut self, now: Now, link: LinkId, fx: &mut Fx) {
        if let Some(peer) = self.routes.remove(link) {
            self.on_flights_lost(now, peer, link, fx);
        }
    }

    /// Sets whether the links with this member are kept without a message on them.
    pub fn keep(&mut self, peer: Endpoint, kept: bool) {
        self.routes.keep(peer, kept);
    }

    /// Closes the links for direct messages of a member's life that ended.
    pub fn on_gone(&mut self, peer: Endpoint, life: Incarnation, fx: &mut Fx) {
        for link in self.routes.of(peer, |it| it <= life) {
            fx.emit(Event::Hangup { link, reason: "its membership ended" });
        }
    }

    /// Ends all sends to a member that the operator removed, and closes its links.
    pub fn on_removed(&mut self, peer: Endpoint, fx: &mut Fx) {
        self.routes.keep(peer, false);
        self.give_up(Some(peer), "that peer was removed by hand", fx);
        for link in self.routes.of(peer, |_| true) {
            fx.emit(Event::Hangup { link, reason: "removed by hand" });
        }
    }

    /// Ends all sends, because this peer's life ended: its messages could not be told from those of
    /// the next life.
    pub fn reset(&mut self, fx: &mut Fx) {
        self.give_up(None, "this peer's membership ended", fx);
        self.received.drop_parts();
    }

    /// Handles a timer that has fired.
    pub fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Send(id) => self.on_send_timer(now, id, fx),
            Timer::Question(number) => self.on_question_timer(now, number, fx),
            Timer::Sweep => self.on_sweep(now, fx),
        }
    }

    fn sweep_later(&mut self, fx: &mut Fx) {
        if !std::mem::replace(&mut self.is_sweeping, true) {
            fx.set_timer(Timer::Sweep, SWEEP);
        }
    }

    fn on_sweep(&mut self, now: Now, fx: &mut Fx) {
        let is_needed = |it: Endpoint| self.queue.is_busy(it) || self.received.is_asking(it);
        let idle = self.routes.idle(now.mono, self.config.idle, is_needed);
        for link in idle {
            fx.emit(Event::Hangup { link, reason: "nothing more to say for now" });
        }
        self.received.forget(now.mono, &self.config);
        self.is_sweeping = self.routes.own() > 0 || !self.received.is_empty();
        if self.is_sweeping {
            fx.set_timer(Timer::Sweep, SWEEP);
        }
    }
}

#[cfg(test)]
mod tests;
