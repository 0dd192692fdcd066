//! Who was heard of lately: the peers that this one deals with, and which of them are cut off.
//!
//! Watched are the neighbors, whoever there is a link for direct messages with, or something on its
//! way to, and whom the operator added by hand. Anything that comes from a peer by a link that
//! proves it is a contact; what is sent to it is none, until it is answered. Who is idle is pinged.
//!
//! Invariants:
//! - A peer without contact for `unreachable_after` is told of once, and once more when it
//!   is back.
//! - Any contact brings it back at once. Meanwhile it is called from time to time, gently.
//! - Nobody is accused here: whether somebody is dead is the business of liveness.
//! - A peer added by hand is called for as long as it is not removed; one removed by hand never.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::liveness::Ping;
use super::{Effects, Kind, LinkId, Never};
use crate::model::{Endpoint, Now, Time};

/// Looks in one `unreachable_after`.
const LOOKS: u32 = 20;

/// Calls in one look at most, so that a fleet that fell apart is not flooded with them.
const CALLS_MAX: usize = 4;

/// The pauses between calls to a peer that was added by hand: from, to.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A link that lasted for so long was a good one: the next pause is the first again.
const GOOD_LINK: Duration = Duration::from_secs(10);

/// How long an unreachable peer that nobody wants anything of is called.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Limits and periods of contacts.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The silence after which a peer is unreachable.
    pub unreachable_after: Duration,
    /// Peers watched at most; of those without a link the longest silent goes.
    pub watched_max: usize,
    /// Peers added by hand at most, and peers removed by hand.
    pub by_hand_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Longer than a link may be silent, so that a link that works is never blamed.
            unreachable_after: Duration::from_secs(30),
            watched_max: 1_024,
            by_hand_max: 256,
        }
    }
}

/// Deadlines of contacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Look who has been silent.
    Look,
    /// Call a peer that was added by hand.
    Call(Endpoint),
}

/// What contacts tell their node, or ask it to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The node must call this peer.
    Call {
        /// Whom.
        to: Endpoint,
    },
    /// A watched peer is cut off.
    Unreachable {
        /// Which.
        peer: Endpoint,
        /// How long it has been silent.
        silent_for: Duration,
    },
    /// It is back.
    Reachable {
        /// Which.
        peer: Endpoint,
        /// How long it was silent.
        after: Duration,
    },
    /// A peer could not be added by hand.
    NotAdded {
        /// Which.
        peer: Endpoint,
        /// Why not, for people.
        reason: String,
    },
}

/// The counts of contacts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ContactsMetrics {
    /// Peers watched now.
    pub watched: u64,
    /// Of these, with a link.
    pub connected_peers: u64,
    /// Of these, unreachable.
    pub unreachable: u64,
    /// How often a peer became unreachable.
    pub lost: u64,
    /// How often one came back.
    pub regained: u64,
    /// Calls made to find out.
    pub calls: u64,
}

#[derive(Debug)]
struct Watched {
    heard: Time,
    /// When it was last pinged or called.
    asked: Time,
    links: BTreeSet<LinkId>,
    linked: Time,
    /// Something is on its way to it.
    is_busy: bool,
    is_by_hand: bool,
    /// Its last link broke.
    is_lost: bool,
    is_unreachable: bool,
    is_called: bool,
    pause: Duration,
}

impl Watched {
    /// Whether there is no reason to watch it any more.
    fn is_idle(&self) -> bool {
        let is_wanted = self.is_busy || self.is_by_hand || self.is_lost || self.is_unreachable;
        self.links.is_empty() && !is_wanted
    }
}

/// The contacts of one peer.
#[derive(Debug)]
pub struct Contacts {
    config: Config,
    watched: BTreeMap<Endpoint, Watched>,
    removed: BTreeSet<Endpoint>,
    due: Time,
    metrics: ContactsMetrics,
}

impl Kind for Contacts {
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
}

type Fx = Effects<Contacts>;

impl Contacts {
    /// No contacts yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            watched: BTreeMap::new(),
            removed: BTreeSet::new(),
            due: Time::ZERO,
            metrics: ContactsMetrics::default(),
        }
    }

    /// The counts.
    pub fn metrics(&self) -> ContactsMetrics {
        let count = |is_counted: fn(&&Watched) -> bool| {
            self.watched.values().filter(is_counted).count() as u64
        };
        ContactsMetrics {
            watched: self.watched.len() as u64,
            connected_peers: count(|it| !it.links.is_empty()),
            unreachable: count(|it| it.is_unreachable),
            ..self.metrics
        }
    }

    /// How long a peer has been silent that is held for unreachable; `None` of others.
    pub fn unreachable_for(&self, now: Now, peer: Endpoint) -> Option<Duration> {
        let watched = self.watched.get(&peer).filter(|it| it.is_unreachable)?;
        Some(now.mono.since(watched.heard))
    }

    /// The last contact with a watched peer.
    pub fn last_contact(&self, peer: Endpoint) -> Option<Time> {
        self.watched.get(&peer).map(|it| it.heard)
    }

    /// Whether the operator wants nothing to do with a peer.
    pub fn is_removed(&self, peer: Endpoint) -> bool {
        self.removed.contains(&peer)
    }

    /// Begins to look.
    pub fn on_start(&mut self, now: Now, fx: &mut Fx) {
        self.look_later(now, fx);
    }

    fn look_later(&mut self, now: Now, fx: &mut Fx) {
        let pause = self.config.unreachable_after / LOOKS;
        self.due = now.mono.after(pause);
        fx.set_timer(Timer::Look, pause);
    }

    /// The record of a peer, made if there is room.
    fn watch(&mut self, now: Now, peer: Endpoint) -> Option<&mut Watched> {
        if !self.watched.contains_key(&peer) && self.watched.len() >= self.config.watched_max {
            let is_spare = |it: &Watched| it.links.is_empty() && !it.is_by_hand && !it.is_busy;
            let spare = self.watched.iter().filter(|(_, it)| is_spare(it));
            let oldest = spare.min_by_key(|(_, it)| it.heard).map(|(peer, _)| *peer)?;
            self.watched.remove(&oldest);
        }
        let fresh = Watched {
            heard: now.mono,
            asked: now.mono,
            links: BTreeSet::new(),
            linked: now.mono,
            is_busy: false,
            is_by_hand: false,
            is_lost: false,
            is_unreachable: false,
            is_called: false,
            pause: PAUSES.0,
        };
        Some(self.watched.entry(peer).or_insert(fresh))
    }

    fn drop_idle(&mut self, peer: Endpoint) {
        if self.watched.get(&peer).is_some_and(Watched::is_idle) {
            self.watched.remove(&peer);
        }
    }

    /// The operator wants a link with this peer, whatever comes.
    pub fn add(&mut self, now: Now, peer: Endpoint, fx: &mut Fx) {
        let by_hand = self.watched.values().filter(|it| it.is_by_hand).count();
        let most = self.config.by_hand_max;
        self.removed.remove(&peer);
        let watched = if by_hand >= most { None } else { self.watch(now, peer) };
        let Some(watched) = watched else {
            let reason = format!("at most {most} peers are added by hand");
            return fx.emit(Event::NotAdded { peer, reason });
        };
        watched.is_by_hand = true;
        watched.pause = PAUSES.0;
        self.call(peer, fx);
    }

    /// The operator wants nothing more to do with this peer.
    pub fn remove(&mut self, peer: Endpoint, fx: &mut Fx) {
        self.watched.remove(&peer);
        fx.stop_timer(Timer::Call(peer));
        if self.removed.len() >= self.config.by_hand_max {
            self.removed.pop_first();
        }
        self.removed.insert(peer);
    }

    /// Calls a peer that was added by hand, if it has no link.
    fn call(&mut self, peer: Endpoint, fx: &mut Fx) {
        let Some(watched) = self.watched.get_mut(&peer) else { return };
        if watched.is_by_hand && watched.links.is_empty() && !watched.is_called {
            watched.is_called = true;
            self.metrics.calls += 1;
            fx.emit(Event::Call { to: peer });
        }
    }

    /// A call for direct messages came to nothing, whoever wanted it.
    pub fn on_call_failed(&mut self, peer: Endpoint, fx: &mut Fx) {
        let Some(watched) = self.watched.get_mut(&peer) else { return };
        watched.is_called = false;
        if watched.is_by_hand && watched.links.is_empty() {
            fx.set_timer(Timer::Call(peer), watched.pause);
            watched.pause = (watched.pause * 2).min(PAUSES.1);
        }
    }

    /// A neighbor's link, or one for direct messages, came up.
    pub fn on_link_up(&mut self, now: Now, link: LinkId, peer: Endpoint, fx: &mut Fx) {
        let Some(watched) = self.watch(now, peer) else { return };
        if watched.links.is_empty() {
            watched.linked = now.mono;
        }
        watched.links.insert(link);
        watched.is_called = false;
        watched.is_lost = false;
        fx.stop_timer(Timer::Call(peer));
        self.on_heard(now, peer, fx);
    }

    /// A link ended.
    pub fn on_link_down(
        &mut self,
        now: Now,
        link: LinkId,
        peer: Endpoint,
        is_agreed: bool,
        fx: &mut Fx,
    ) {
        let Some(watched) = self.watched.get_mut(&peer) else { return };
        if !watched.links.remove(&link) || !watched.links.is_empty() {
            return;
        }
        watched.is_lost = !is_agreed;
        watched.asked = now.mono;
        if watched.is_by_hand {
            if now.mono.since(watched.linked) >= GOOD_LINK {
                watched.pause = PAUSES.0;
            }
            fx.set_timer(Timer::Call(peer), watched.pause);
            watched.pause = (watched.pause * 2).min(PAUSES.1);
        }
        self.drop_idle(peer);
    }

    /// Something came from a peer, by a link that proves it.
    pub fn on_heard(&mut self, now: Now, peer: Endpoint, fx: &mut Fx) {
        let Some(watched) = self.watched.get_mut(&peer) else { return };
        let after = now.mono.since(watched.heard);
        watched.heard = now.mono;
        if std::mem::take(&mut watched.is_unreachable) {
            self.metrics.regained += 1;
            fx.emit(Event::Reachable { peer, after });
        }
        if std::mem::take(&mut watched.is_lost) {
            self.drop_idle(peer);
        }
    }

    /// Something is on its way to a peer, or not any more.
    pub fn on_busy(&mut self, now: Now, peer: Endpoint, busy: bool) {
        if busy {
            if let Some(watched) = self.watch(now, peer) {
                watched.is_busy = true;
            }
        } else if let Some(watched) = self.watched.get_mut(&peer) {
            watched.is_busy = false;
            self.drop_idle(peer);
        }
    }

    /// A member's life ended, by certificate or goodbye: nobody need look for it.
    pub fn on_gone(&mut self, peer: Endpoint) {
        if let Some(watched) = self.watched.get_mut(&peer)
            && !watched.is_by_hand
            && watched.links.is_empty()
        {
            watched.is_lost = false;
            watched.is_unreachable = false;
            self.drop_idle(peer);
        }
    }

    /// A deadline passed.
    pub fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Look => self.on_look(now, fx),
            Timer::Call(peer) => self.call(peer, fx),
        }
    }

    fn on_look(&mut self, now: Now, fx: &mut Fx) {
        let late_by = now.mono.since(self.due);
        if late_by > self.config.unreachable_after / LOOKS {
            // Nobody was listened to meanwhile: that silence is this node's own.
            for watched in self.watched.values_mut() {
                watched.heard = watched.heard.after(late_by).min(now.mono);
            }
        }
        self.look_later(now, fx);
        let period = self.config.unreachable_after;
        let mut calls = 0;
        for (peer, watched) in &mut self.watched {
            let silent_for = now.mono.since(watched.heard);
            if silent_for >= period && !watched.is_unreachable {
                watched.is_unreachable = true;
                self.metrics.lost += 1;
                fx.emit(Event::Unreachable { peer: *peer, silent_for });
            }
            let since_asked = now.mono.since(watched.asked);
            if silent_for < period / 3 || since_asked < period / 3 {
                continue;
            }
            if let Some(link) = watched.links.last() {
                watched.asked = now.mono;
                fx.send(*link, Ping { nonce: 0 });
                continue;
            }
            // What is on its way has its own schedule, and so has a peer added by hand.
            let is_called_anyway = watched.is_by_hand || watched.is_busy;
            let pause = (silent_for / 3).min(PAUSES.1);
            if !is_called_anyway && since_asked >= pause && calls < CALLS_MAX {
                calls += 1;
                watched.asked = now.mono;
                self.metrics.calls += 1;
                fx.emit(Event::Call { to: *peer });
            }
        }
        self.watched.retain(|_, it| {
            let is_hopeless = now.mono.since(it.heard) >= FORGET_AFTER + period;
            it.is_by_hand || it.is_busy || !it.links.is_empty() || !is_hopeless
        });
    }
}

#[cfg(test)]
mod tests;
