//! Contacts: the peers that this one deals with, and the ones among them that are cut off.
//!
//! Watched are the neighbors, the peers with a link for direct messages or a message on its way,
//! and the peers that the operator added by hand. A message from a peer by a link that proves it is
//! a contact; a message sent to it is none, until it is answered. Idle peers are pinged.
//!
//! Invariants:
//! - A peer without contact for `unreachable_after` is told of once, and once more when it is back.
//! - Any contact brings a peer back at once. Meanwhile it is called from time to time, gently.
//! - No peer is accused here: liveness decides whether a peer is dead.
//! - A peer added by hand is called for as long as it is not removed; one removed by hand never.

use crate::machine::NodeMessage;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::{Effects, LinkId, Never, NodeCall, PingHost, Vocabulary};
use crate::model::{Endpoint, Now, Time};
use crate::proto::liveness::Ping;

/// Number of looks in one `unreachable_after` while a peer is silent; while none is, the next look
/// comes when one can be.
const LOOKS: u32 = 20;

/// Greatest number of calls in one look, so that a fleet that fell apart is not flooded with them.
const CALLS_MAX: usize = 4;

/// Shortest and longest pause between calls to a peer that was added by hand.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Duration from which a link was a good one: the next pause is the first again.
const GOOD_LINK: Duration = Duration::from_secs(10);

/// Time that an unreachable peer is called without further reason.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Limits and periods of contacts.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Silence after which a peer is unreachable.
    pub unreachable_after: Duration,
    /// Greatest number of peers watched; of those without a link the longest silent is dropped.
    pub watched_max: usize,
    /// Greatest number of peers added by hand, and of peers removed by hand.
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
    /// The silence of all peers is checked.
    Look,
    /// A peer that was added by hand is called.
    Call(Endpoint),
}

/// Events of contacts: news for the node, and requests to it.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The node must call this peer.
    Call {
        /// Address of the peer.
        to: Endpoint,
    },
    /// A watched peer is cut off.
    Unreachable {
        /// Address of the peer.
        peer: Endpoint,
        /// Time since the last contact.
        silent_for: Duration,
    },
    /// An unreachable peer is back.
    Reachable {
        /// Address of the peer.
        peer: Endpoint,
        /// Time that the peer was silent.
        after: Duration,
    },
    /// A peer could not be added by hand.
    NotAdded {
        /// Address of the peer.
        peer: Endpoint,
        /// Reason in words, for people.
        reason: String,
    },
}

/// Counters and present sizes of contacts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ContactsMetrics {
    /// Number of peers watched now.
    pub watched: u64,
    /// Number of watched peers with a link.
    pub connected_peers: u64,
    /// Number of watched peers that are unreachable.
    pub unreachable: u64,
    /// Number of times that a peer became unreachable.
    pub lost: u64,
    /// Number of times that a peer came back.
    pub regained: u64,
    /// Number of calls made to silent peers and peers added by hand.
    pub calls: u64,
}

#[derive(Debug)]
struct Watched {
    heard: Time,
    /// Time of the last ping or call.
    asked: Time,
    links: BTreeSet<LinkId>,
    linked: Time,
    /// True if a message is on its way to the peer.
    is_busy: bool,
    is_by_hand: bool,
    /// True if the peer's last link broke.
    is_lost: bool,
    is_unreachable: bool,
    is_called: bool,
    pause: Duration,
}

impl Watched {
    /// True if there is no reason to watch the peer any more.
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

impl Vocabulary for Contacts {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<Contacts>;

impl Contacts {
    /// Creates an empty set of contacts.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            watched: BTreeMap::new(),
            removed: BTreeSet::new(),
            due: Time::ZERO,
            metrics: ContactsMetrics::default(),
        }
    }

    /// Returns the counters and present sizes.
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

    /// Time that an unreachable peer has been silent; `None` for others.
    pub fn unreachable_for(&self, now: Now, peer: Endpoint) -> Option<Duration> {
        let watched = self.watched.get(&peer).filter(|it| it.is_unreachable)?;
        Some(now.mono.since(watched.heard))
    }

    /// Time of the last contact with a watched peer.
    pub fn last_contact(&self, peer: Endpoint) -> Option<Time> {
        self.watched.get(&peer).map(|it| it.heard)
    }

    /// True if the operator has removed a peer.
    pub fn is_removed(&self, peer: Endpoint) -> bool {
        self.removed.contains(&peer)
    }

    /// Starts the timer.
    pub fn on_start(&mut self, now: Now, fx: &mut Fx) {
        self.look_later(now, fx);
    }

    fn look_later(&mut self, now: Now, fx: &mut Fx) {
        let period = self.config.unreachable_after;
        let longest = self.watched.values().map(|it| now.mono.since(it.heard)).max();
        // Nothing is done before a peer was silent for a third of the period.
        let calm = (period / 3).saturating_sub(longest.unwrap_or_default());
        let pause = calm.max(period / LOOKS);
        self.due = now.mono.after(pause);
        fx.set_timer(Timer::Look, pause);
    }

    /// Returns the entry of a peer, made if there is room.
    fn watch(&mut self, now: Now, peer: Endpoint) -> Option<&mut Watched> {
        if !self.watched.contains_key(&peer) && self.watched.len() >= self.config.watched_max {
            // A full table drops the longest silent of the peers without a reason to stay.
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

    /// Adds a peer by hand: the operator wants a link with it at any time.
    pub fn add(&mut self, now: Now, peer: Endpoint, fx: &mut Fx) {
        let by_hand = self.watched.values().filter(|it| it.is_by_hand).count();
        let is_added = self.watched.get(&peer).is_some_and(|it| it.is_by_hand);
        let Config { by_hand_max, watched_max, .. } = self.config;
        self.removed.remove(&peer);
        let reason = if by_hand >= by_hand_max && !is_added {
            format!("at most {by_hand_max} peers are added by hand")
        } else if let Some(watched) = self.watch(now, peer) {
            watched.is_by_hand = true;
            watched.pause = PAUSES.0;
            return self.call(peer, fx);
        } else {
            format!("{watched_max} peers are watched already, and none of them can be spared")
        };
        fx.emit(Event::NotAdded { peer, reason });
    }

    /// Removes a peer by hand: the operator wants no link with it.
    pub fn remove(&mut self, peer: Endpoint, fx: &mut Fx) {
        self.watched.remove(&peer);
        fx.stop_timer(Timer::Call(peer));
        if self.removed.len() >= self.config.by_hand_max && !self.removed.contains(&peer) {
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

    /// Takes the failure of a call for direct messages, made for any purpose.
    pub fn on_call_failed(&mut self, peer: Endpoint, fx: &mut Fx) {
        let Some(watched) = self.watched.get_mut(&peer) else { return };
        watched.is_called = false;
        if watched.is_by_hand && watched.links.is_empty() {
            fx.set_timer(Timer::Call(peer), watched.pause);
            watched.pause = (watched.pause * 2).min(PAUSES.1);
        }
    }

    /// Takes a neighbor's new link, or one for direct messages.
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

    /// Takes the end of a link.
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

    /// Takes a message of a peer, by a link that proves it, as a contact.
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

    /// Sets whether a message is on its way to a peer.
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

    /// Takes the end of a member's life, by certificate or goodbye: it need not be looked for.
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

    /// Handles a timer that has fired.
    pub fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Look => self.on_look(now, fx),
            Timer::Call(peer) => self.call(peer, fx),
        }
    }

    fn on_look(&mut self, now: Now, fx: &mut Fx) {
        let late_by = now.mono.since(self.due);
        if late_by > self.config.unreachable_after / LOOKS {
            // The node read no message meanwhile: that silence is its own.
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
            // Messages on their way have their own schedule, and so has a peer added by hand.
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
