//! Reliable broadcast: every message of a member reaches every connected member, once.
//!
//! A tree forms itself out of the overlay's links (Leitão, Pereira and Rodrigues, "Epidemic
//! Broadcast Trees", SRDS 2007): on eager links messages are pushed, on all others announced. A
//! node that is pushed a message twice makes the second link lazy; a node that hears of a message
//! that does not come asks for it, and makes the link it came by eager.
//!
//! Invariants:
//! - A message is delivered at most once per node, by its identity: the SHA-256 of all that its
//!   origin signed. A forgotten message is never taken for new.
//! - No message is delivered, held or passed on whose signature and origin do not hold.
//! - A message that one link fails to push is announced on another: pushes make for speed,
//!   announcements for certainty, and no push is trusted to come.
//! - The bytes queued on a link unasked are bounded in each span of time; the rest is announced and
//!   pulled by its receiver. All tables are bounded, and held messages in bytes.

pub mod config;
mod event;
mod gaps;
mod links;
mod memory;
mod numbers;
mod pace;
mod parts;
mod receipts;
mod repair;
#[cfg(test)]
mod tests;
mod tree;
mod wanted;

use crate::machine::NodeMessage;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use config::{Config, MESSAGE_BYTES_MAX};
pub use event::{BroadcastMetrics, Delivered, Event, Reason};

use self::config::{ANNOUNCE_AFTER, FORGET_INTERVAL};
use self::links::{Link, WaitEstimate};
use self::memory::{Held, Origins, Seen, Store};
use self::numbers::Numbers;
use self::pace::{Brakes, OwnMessages, PublishRequest};
use self::parts::Pull;
use self::wanted::Wanted;
use super::{Effects, LinkId, Never, NodeCall, PingHost, Vocabulary};
use crate::model::statement::{Admission, MemberInstance};
use crate::model::{Endpoint, Incarnation, KeyPair, MessageId, Now, Time, topic_complaint};
use crate::proto::broadcast::{ANNOUNCE_MAX, Announce, Offer, Publish};

/// Deadlines of the broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Collected announcements are sent.
    Announce,
    /// Announced messages that did not come are asked for.
    Repair,
    /// Parts that did not come are asked for elsewhere.
    Parts,
    /// Collected receipts are sent.
    Receipts,
    /// Numbers are told to the neighbors, and missing ones asked for.
    Tick,
    /// Own messages that wait for slow nodes are published.
    Pending,
    /// Old messages and identities are forgotten.
    Forget,
}

/// Reason for refusing a message of a peer that is no member.
const NO_MEMBER: &str = "not a member yet: only members publish";

/// Verdict on an origin's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateVerdict {
    /// The certificate holds.
    Holds,
    /// The certificate cannot be judged yet: keys of its voters are not known here.
    Unsure,
    /// The certificate does not hold.
    Fails,
}

/// State of the broadcast of one peer.
#[derive(Debug)]
pub struct Broadcast {
    config: Config,
    keys: KeyPair,
    me: Endpoint,
    /// The present life, while it is a member's.
    life: Option<MemberInstance>,
    proof: Option<Arc<Admission>>,
    /// The last life that began, and the messages it made.
    made: (Incarnation, OwnMessages),
    /// Own messages that wait for slow nodes, each with its caller's token.
    pending: VecDeque<(u64, PublishRequest)>,
    brakes: Brakes,
    /// Number of messages that came or were published here.
    arrivals: u64,
    /// Bytes of the messages since neighbors were told of numbers.
    untold: u64,
    links: BTreeMap<LinkId, Link>,
    seen: Seen,
    store: Store,
    origins: Origins,
    wanted: Wanted,
    pulls: BTreeMap<MessageId, Pull>,
    receipts_due: BTreeSet<(Time, MessageId)>,
    /// Time of the last tick.
    ticked: Time,
    /// Time since which there is a link, and this node has not stood still.
    connected: Time,
    /// Link that was asked for missing numbers last, and the origin at which it goes on.
    lacked: (LinkId, Option<MemberInstance>),
    /// Messages given up since the last tick, by their origins.
    missed: BTreeMap<Endpoint, u64>,
    /// Delays of pushed copies after announcements.
    lateness: WaitEstimate,
    /// Times that answers take.
    answers: WaitEstimate,
    armed: BTreeMap<Timer, Time>,
    metrics: BroadcastMetrics,
}

impl Vocabulary for Broadcast {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<Broadcast>;

impl Broadcast {
    /// Creates the broadcast of the peer at `me`, which publishes nothing until
    /// [`Broadcast::begin`].
    pub fn new(config: Config, me: Endpoint, keys: KeyPair) -> Self {
        Self {
            config,
            keys,
            me,
            life: None,
            proof: None,
            made: (Incarnation(0), OwnMessages::default()),
            pending: VecDeque::new(),
            brakes: Brakes::default(),
            arrivals: 0,
            untold: 0,
            links: BTreeMap::new(),
            seen: Seen::default(),
            store: Store::default(),
            origins: Origins::default(),
            wanted: Wanted::default(),
            pulls: BTreeMap::new(),
            receipts_due: BTreeSet::new(),
            ticked: Time::ZERO,
            connected: Time::ZERO,
            lacked: (LinkId(0), None),
            missed: BTreeMap::new(),
            lateness: WaitEstimate::default(),
            answers: WaitEstimate::default(),
            armed: BTreeMap::new(),
            metrics: BroadcastMetrics::default(),
        }
    }

    /// Counts a message whose claimed origin the node knows to be false.
    pub fn drop_forged(&mut self) {
        self.metrics.drop_one(Reason::Forged);
    }

    /// Sets whether origins must show certificates, which depends on the kind of fleet.
    pub const fn set_requires_proof(&mut self, requires_proof: bool) {
        self.config.requires_proof = requires_proof;
    }

    /// Lets the peer publish, because it is a member in this life by this proof.
    pub fn begin(&mut self, incarnation: Incarnation, proof: Option<Arc<Admission>>) {
        if self.made.0 != incarnation {
            self.made = (incarnation, OwnMessages::default());
            self.brakes = Brakes::default();
        }
        self.life =
            Some(MemberInstance { endpoint: self.me, incarnation, key: self.keys.public() });
        self.proof = proof;
    }

    /// Stops publishing, because the peer is not a member any more.
    pub fn pause(&mut self, fx: &mut Fx) {
        for (token, _) in std::mem::take(&mut self.pending) {
            let reason = "this peer is no member any more".to_owned();
            fx.emit(Event::PublishRefused { token, reason });
        }
        self.life = None;
        self.proof = None;
    }

    /// Publishes an own message, at once or when slow nodes have room; answered by
    /// [`Event::Published`] or [`Event::PublishRefused`].
    pub fn publish(&mut self, now: Now, token: u64, said: PublishRequest, fx: &mut Fx) {
        let complaint = topic_complaint(&said.0).or_else(|| {
            let (size, max) = (said.1.len() as u64, self.config.message_max);
            (size > max).then(|| format!("{size} bytes of data; at most {max} are published"))
        });
        let refused = match self.life {
            None => complaint.or_else(|| Some(NO_MEMBER.to_owned())),
            Some(_) => complaint,
        };
        match refused {
            Some(reason) => fx.emit(Event::PublishRefused { token, reason }),
            None => self.publish_in_turn(now, token, said, fx),
        }
    }

    fn publish_now(&mut self, now: Now, token: u64, said: PublishRequest, fx: &mut Fx) {
        let Some(life) = self.life else { return };
        let number = self.made.1.count() + 1;
        let mut msg = Publish::sign(&life, (number, now.wall), said, &self.keys);
        msg.ttl = self.config.ttl.saturating_add(1); // Copies are one less.
        let id = msg.id();
        let origin = self.origins.insert(life, self.proof.clone());
        let room = (self.config.seen_max, &mut self.origins);
        self.seen.insert(id, (origin, number), (now.mono, now.mono), room);
        let held = Held::new(msg, self.proof.clone(), now.mono, (None, origin));
        let bytes = held.bytes();
        self.made.1.push(bytes);
        self.store.insert(id, held, self.config.held_bytes_max);
        self.metrics.messages_published += 1;
        let to = self.forward(now, id, &BTreeSet::new(), fx);
        self.arrived(now, (&life, number), bytes, fx);
        fx.emit(Event::Published { token, id, to });
    }

    /// Takes a neighbor's new link, and tells it the numbers that are here.
    pub fn on_link_up(&mut self, now: Now, link: LinkId, endpoint: Endpoint, fx: &mut Fx) {
        if self.links.is_empty() {
            self.connected = now.mono;
        }
        let eager = self.links.values().filter(|link| link.eager).count();
        self.links.insert(link, Link::new(endpoint, eager < self.config.fanout));
        self.introduce_numbers(link, fx);
    }

    /// Takes the end of a neighbor's link.
    pub fn on_link_down(&mut self, now: Now, link: LinkId, fx: &mut Fx) {
        if self.links.remove(&link).is_none() {
            return;
        }
        self.wanted.on_link_down(link, now.mono);
        self.on_source_gone(now, link, fx);
        self.arm(Timer::Repair, self.wanted.next_due(), now, fx);
    }

    /// Takes the end of a member's life: messages that it makes from now on are not taken.
    pub fn on_gone(&mut self, now: Now, endpoint: Endpoint, incarnation: Incarnation) {
        self.origins.end(now.mono, endpoint, incarnation);
        let is_ended =
            |it: &MemberInstance| it.endpoint == endpoint && it.incarnation <= incarnation;
        for link in self.links.values_mut() {
            link.claims.retain(|origin, _| !is_ended(origin));
        }
    }

    /// Handles a timer that has fired.
    pub fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        self.armed.remove(&timer);
        match timer {
            Timer::Announce => self.announce(fx),
            Timer::Repair => self.on_repair_due(now, fx),
            Timer::Parts => self.on_parts_due(now, fx),
            Timer::Receipts => self.on_receipts_due(now, fx),
            Timer::Tick => self.on_tick(now, fx),
            Timer::Pending => self.on_pending_due(now, fx),
            Timer::Forget => {
                self.seen.forget(now.mono, self.config.remember, &mut self.origins);
                self.store.forget(now.mono, self.config.hold);
                if self.seen.len() + self.store.len() > 0 {
                    self.forget_later(now, fx);
                }
            }
        }
    }

    /// Returns the counters since the start, and the current sizes.
    pub fn metrics(&self) -> BroadcastMetrics {
        let eager = self.links.values().filter(|link| link.eager).count();
        BroadcastMetrics {
            seen_messages: self.seen.len() as u64,
            held_messages: self.store.len() as u64,
            held_bytes: self.store.bytes(),
            wanted_messages: self.wanted.len() as u64,
            pulls: self.pulls.len() as u64,
            eager_links: eager as u64,
            lazy_links: (self.links.len() - eager) as u64,
            ..self.metrics.clone()
        }
    }

    /// Sends the collected announcements on each link.
    fn announce(&mut self, fx: &mut Fx) {
        for (id, link) in &mut self.links {
            let offers = std::mem::take(&mut link.offers);
            if !offers.is_empty() {
                let ids: Vec<_> = offers.into_values().collect();
                self.metrics.announcements += ids.len() as u64;
                fx.send(*id, Announce { ids });
            }
        }
    }

    /// Announces a message on the links after a short delay, at once where there is
    /// much to announce.
    fn offer(&mut self, now: Now, offer: Offer, to: &[LinkId], fx: &mut Fx) {
        let mut is_full = false;
        for link in to {
            if let Some(link) = self.links.get_mut(link) {
                link.offers.insert(offer.id, offer);
                is_full |= link.offers.len() >= ANNOUNCE_MAX;
            }
        }
        if is_full {
            self.announce(fx);
        } else if !to.is_empty() && !self.armed.contains_key(&Timer::Announce) {
            self.arm(Timer::Announce, Some(now.mono.after(ANNOUNCE_AFTER)), now, fx);
        }
    }

    fn blame(&mut self, from: LinkId, reason: impl Into<String>, fx: &mut Fx) {
        self.drop_and_blame(Reason::Malformed, from, reason, fx);
    }

    fn drop_and_blame(
        &mut self,
        why: Reason,
        from: LinkId,
        reason: impl Into<String>,
        fx: &mut Fx,
    ) {
        self.metrics.drop_one(why);
        fx.emit(Event::Malformed { from, reason: reason.into() });
    }

    fn forget_later(&mut self, now: Now, fx: &mut Fx) {
        if !self.armed.contains_key(&Timer::Forget) {
            self.arm(Timer::Forget, Some(now.mono.after(FORGET_INTERVAL)), now, fx);
        }
    }

    /// Sets the timer if its deadline changes; an idle timer just runs out.
    fn arm(&mut self, timer: Timer, due: Option<Time>, now: Now, fx: &mut Fx) {
        let Some(due) = due else { return };
        if self.armed.get(&timer) != Some(&due) {
            self.armed.insert(timer, due);
            fx.set_timer(timer, due.since(now.mono));
        }
    }
}
