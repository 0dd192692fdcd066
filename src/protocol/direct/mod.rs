//! Direct sends: a message for one member, whoever's neighbor it is, acknowledged end to end.
//!
//! A message travels over any link with the member, or over a new one that is called for it. Its
//! receiver's application says yes or no, and that answer comes back. What was lost is sent again
//! after ever longer pauses.
//!
//! Invariants:
//! - Every message ends in exactly one of [`Event::Sent`] and [`Event::Failed`].
//! - `Sent`: the receiver took it, once. A definite failure: it was not taken, and will not be.
//! - A message that may have arrived is repeated only toward the same life of its receiver, and
//!   only for as long as that life remembers it; there, whatever comes again is shown to nobody.
//! - Nothing grows without bound: not what waits here, nor what waits for the application, nor what
//!   is put together, nor what is remembered.

mod event;
mod incoming;
mod messages;
mod outbox;
mod outgoing;
mod retry;
mod routes;

pub use event::{Config, DirectMetrics, Event, FailKind, Timer};
pub use messages::{
    DirectAck, DirectMsg, DirectPart, DirectPartReq, PART_BYTES, PARTS_MAX, Verdict,
};
pub use outbox::Letter;
pub use retry::RetryConfig;

use incoming::Inbox;
use outbox::Outbox;
use routes::Routes;

use crate::model::{Endpoint, Incarnation, Now, Rng};
use crate::protocol::{Effects, Kind, LinkId, Never};

/// Messages of more than one part that one member is sent, or sends, at a time.
const LARGE_MAX: usize = 2;

/// The pause between two looks at what has become old.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(5);

/// The direct sends of one peer, in both directions.
#[derive(Debug)]
pub struct Direct {
    config: Config,
    me: Endpoint,
    rng: Rng,
    routes: Routes,
    outbox: Outbox,
    inbox: Inbox,
    metrics: DirectMetrics,
    is_sweeping: bool,
}

impl Kind for Direct {
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
}

type Fx = Effects<Direct>;

impl Direct {
    /// The direct sends of the peer at `me`.
    pub fn new(config: Config, me: Endpoint, rng: Rng) -> Self {
        Self {
            config,
            me,
            rng,
            routes: Routes::default(),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            metrics: DirectMetrics::default(),
            is_sweeping: false,
        }
    }

    /// The counts.
    pub fn metrics(&self) -> DirectMetrics {
        DirectMetrics {
            open: self.outbox.len() as u64,
            open_bytes: self.outbox.bytes() as u64,
            questions: self.inbox.questions() as u64,
            remembered: self.inbox.remembered() as u64,
            links: self.routes.own() as u64,
            ..self.metrics
        }
    }

    /// Whether this is a link for direct messages, kept or called by one end for them alone.
    pub fn is_own(&self, link: LinkId) -> bool {
        self.routes.is_own(link)
    }

    /// A link with a member came up. `own` says of a link for direct messages alone whether this
    /// node called; a neighbor's link serves as well.
    pub fn on_link_up(
        &mut self,
        now: Now,
        (link, peer, life): (LinkId, Endpoint, Incarnation),
        own: Option<bool>,
        fx: &mut Fx,
    ) {
        if own == Some(true) {
            self.outbox.called(peer);
        }
        if own.is_some()
            && let Err(victim) = self.make_room(peer)
        {
            let link = victim.unwrap_or(link);
            fx.emit(Event::Hangup { link, reason: "too many links for direct messages" });
            if victim.is_none() {
                return;
            }
        }
        self.routes.insert(link, peer, life, own.map(|dialed| (dialed, now.mono)));
        self.sweep_later(fx);
        self.advance(now, peer, fx);
    }

    /// Whether there is room for another link of this peer; else which one must go for it, if any
    /// may.
    fn make_room(&self, peer: Endpoint) -> Result<(), Option<LinkId>> {
        if let Some(second) = self.routes.second_called(peer) {
            return Err(Some(second));
        }
        if self.routes.own() < self.config.links_max {
            return Ok(());
        }
        let is_needed = |it: Endpoint| self.outbox.is_busy(it) || self.inbox.is_asking(it);
        Err(self.routes.idlest(is_needed))
    }

    /// A link ended.
    pub fn on_link_down(&mut self, now: Now, link: LinkId, fx: &mut Fx) {
        if let Some(peer) = self.routes.remove(link) {
            self.on_flights_lost(now, peer, link, fx);
        }
    }

    /// Whether the links with this member are kept without a message on them.
    pub fn keep(&mut self, peer: Endpoint, kept: bool) {
        self.routes.keep(peer, kept);
    }

    /// A life of a member ended: its links for direct messages go.
    pub fn on_gone(&mut self, peer: Endpoint, life: Incarnation, fx: &mut Fx) {
        for link in self.routes.of(peer, |it| it <= life) {
            fx.emit(Event::Hangup { link, reason: "its membership ended" });
        }
    }

    /// The operator wants nothing more to do with a member.
    pub fn on_removed(&mut self, peer: Endpoint, fx: &mut Fx) {
        self.routes.keep(peer, false);
        self.give_up(Some(peer), "that peer was removed by hand", fx);
        for link in self.routes.of(peer, |_| true) {
            fx.emit(Event::Hangup { link, reason: "removed by hand" });
        }
    }

    /// This peer's life ended: what is on its way from here cannot be told from what the next life
    /// sends.
    pub fn reset(&mut self, fx: &mut Fx) {
        self.give_up(None, "this peer's membership ended", fx);
        self.inbox.drop_parts();
    }

    /// A deadline passed.
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
        let is_needed = |it: Endpoint| self.outbox.is_busy(it) || self.inbox.is_asking(it);
        let idle = self.routes.idle(now.mono, self.config.idle, is_needed);
        for link in idle {
            fx.emit(Event::Hangup { link, reason: "nothing more to say for now" });
        }
        self.inbox.forget(now.mono, &self.config);
        self.is_sweeping = self.routes.own() > 0 || !self.inbox.is_empty();
        if self.is_sweeping {
            fx.set_timer(Timer::Sweep, SWEEP);
        }
    }
}

#[cfg(test)]
mod tests;
