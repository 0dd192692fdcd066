//! Gossip: every message reaches every connected peer, and each peer passes it on once.
//!
//! Invariants:
//! - A message is delivered at most once per node (G2), by its identity (G1), not by its text.
//! - A message is never sent back along the link it came from, and at most once along any link.
//! - Over every live link both ends come to hold the same messages: those seen before the link came
//!   up are compared by digests (G4), later ones are forwarded.
//! - Content is offered while it is younger than `hold`; identities are remembered a minute longer
//!   than that by origin's age, so no message comes back from the dead (G3).

use crate::machine::NodeMessage;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Effects, LinkId, Never, NodeCall, PingHost, Vocabulary};
use crate::model::{Endpoint, Incarnation, Now, Time};
use crate::proto::gossip::{DIGEST_DIGITS, GossipDigest, GossipId, GossipMsg, fixed_text};

/// Number of links that a message may cross; no overlay of this size needs a tenth of it.
const HOPS_MAX: u32 = 255;

/// Number of messages that a neighbor is sent at once after its digest, and the pause before the
/// next portion: a link's queue holds many times as many.
const PORTION: usize = 200;
const PORTION_PAUSE: Duration = Duration::from_millis(20);

/// Limits and periods of gossip.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Pause between two own messages (G5).
    pub interval: Duration,
    /// Greatest number of own messages (G5).
    pub messages_max: u32,
    /// Greatest number of identities remembered (G3).
    pub seen_max: usize,
    /// Age up to which a message is offered to neighbors that lack it.
    pub hold: Duration,
    /// Age up to which the identity of a message is remembered (G3).
    pub remember: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            messages_max: 10,
            seen_max: 10_000,
            hold: Duration::from_secs(240),
            remember: Duration::from_secs(300),
        }
    }
}

/// Deadlines of gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The next own message is due.
    Next,
    /// Old messages are forgotten.
    Forget,
    /// The next portion of the messages that neighbors lack is due.
    Owed,
}

/// Events of gossip for its node.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// This node made a message.
    Made {
        /// Message that was made.
        msg: GossipMsg,
        /// Number of neighbors that the message was sent to.
        to: usize,
    },
    /// A message came for the first time.
    Heard {
        /// Message that came.
        msg: GossipMsg,
        /// Link by which the message came.
        from: LinkId,
    },
    /// A message was refused.
    Malformed {
        /// Link by which the message came.
        from: LinkId,
        /// Reason of the refusal, in words.
        reason: String,
    },
}

#[derive(Debug)]
struct Seen {
    msg: GossipMsg,
    /// Time at which this node got the message.
    at: Time,
    /// Number of messages that this node had got before.
    rank: u64,
}

impl Seen {
    /// Age of the message, by its own account and the time it spent here.
    fn age(&self, now: Time) -> Duration {
        Duration::from_millis(self.msg.age_ms) + now.since(self.at)
    }
}

/// The gossip state of one peer.
#[derive(Debug)]
pub struct Gossip {
    config: Config,
    me: Endpoint,
    incarnation: Incarnation,
    made: u32,
    running: bool,
    /// Links, each with the rank of the first message that was forwarded on it.
    neighbors: BTreeMap<LinkId, u64>,
    seen: BTreeMap<GossipId, Seen>,
    /// Identities by rank: the lowest is forgotten first when the table is full.
    order: BTreeMap<u64, GossipId>,
    rank: u64,
    /// Messages that neighbors lack by their digests, until they are sent.
    owed: BTreeMap<LinkId, VecDeque<GossipId>>,
    /// The latest time of origin, by this node's clock, of the messages forgotten for want of room:
    /// no message as old is taken for new (G2).
    forgotten: Option<Time>,
    duplicates: u64,
}

impl Vocabulary for Gossip {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<Gossip>;

impl Gossip {
    /// Creates the gossip of the peer at `me`, silent until [`Gossip::begin`].
    pub const fn new(config: Config, me: Endpoint) -> Self {
        Self {
            config,
            me,
            incarnation: Incarnation(0),
            made: 0,
            running: false,
            neighbors: BTreeMap::new(),
            seen: BTreeMap::new(),
            order: BTreeMap::new(),
            rank: 0,
            owed: BTreeMap::new(),
            forgotten: None,
            duplicates: 0,
        }
    }

    /// Begins the peer's own messages, because it is active under this incarnation and
    /// has a neighbor.
    pub fn begin(&mut self, incarnation: Incarnation, fx: &mut Fx) {
        if self.running && self.incarnation == incarnation {
            return;
        }
        if self.incarnation != incarnation {
            self.made = 0;
        }
        self.running = true;
        self.incarnation = incarnation;
        fx.set_timer(Timer::Next, self.config.interval);
        fx.set_timer(Timer::Forget, self.config.interval * 2);
    }

    /// Stops the own messages, because the peer is not a member any more.
    pub fn pause(&mut self, fx: &mut Fx) {
        self.running = false;
        fx.stop_timer(Timer::Next);
    }

    /// Returns the numbers of own messages, of messages held and of duplicates dropped.
    pub fn counts(&self) -> (u32, usize, u64) {
        (self.made, self.seen.len(), self.duplicates)
    }

    /// Takes a neighbor's new link, and sends it a digest of the messages seen (G4).
    pub fn on_link_up(&mut self, now: Now, link: LinkId, fx: &mut Fx) {
        self.neighbors.insert(link, self.rank);
        let offered = self.offered(now.mono).map(|(id, _)| id.short());
        fx.send(link, GossipDigest { ids: offered.collect() });
    }

    /// Takes the end of a neighbor's link.
    pub fn on_link_down(&mut self, link: LinkId) {
        self.neighbors.remove(&link);
        self.owed.remove(&link);
    }

    /// Takes a message; a new one is forwarded.
    pub fn on_message(&mut self, now: Now, from: LinkId, mut msg: GossipMsg, fx: &mut Fx) {
        if let Some(reason) = msg.complaint() {
            return fx.emit(Event::Malformed { from, reason });
        }
        let age = Duration::from_millis(msg.age_ms);
        let is_forgotten = self.forgotten.is_some_and(|time| now.mono.before(age) <= time);
        if age >= self.config.remember || is_forgotten || msg.hops >= HOPS_MAX {
            return; // So old that its identity may be forgotten here already.
        }
        if (msg.origin, msg.incarnation) == (self.me, self.incarnation) && msg.number > self.made {
            let reason = format!("a message #{} that I never made", msg.number);
            return fx.emit(Event::Malformed { from, reason });
        }
        let id = msg.id();
        if self.seen.contains_key(&id) {
            self.duplicates += 1;
            return;
        }
        msg.hops = msg.hops.saturating_add(1);
        self.remember(now.mono, id, msg.clone());
        self.forward(&msg, Some(from), fx);
        fx.emit(Event::Heard { msg, from });
    }

    /// Takes a neighbor's digest, and sends it the messages that it lacks.
    pub fn on_digest(&mut self, now: Now, from: LinkId, digest: &GossipDigest, fx: &mut Fx) {
        if !digest.ids.len().is_multiple_of(DIGEST_DIGITS) || !digest.ids.is_ascii() {
            let reason = "a digest is a whole number of 16-digit identities".to_owned();
            return fx.emit(Event::Malformed { from, reason });
        }
        let theirs: BTreeSet<&str> = (0..digest.ids.len())
            .step_by(DIGEST_DIGITS)
            .map(|start| &digest.ids[start..start + DIGEST_DIGITS])
            .collect();
        // Messages that came after the link were forwarded on it already (G2).
        let Some(first_forwarded) = self.neighbors.get(&from) else { return };
        let owed: VecDeque<_> = self
            .offered(now.mono)
            .filter(|(id, seen)| {
                seen.rank < *first_forwarded && !theirs.contains(id.short().as_str())
            })
            .map(|(id, _)| *id)
            .collect();
        self.owed.insert(from, owed);
        // Once a link: a second digest gets no messages, or one line would buy thousands.
        self.neighbors.insert(from, 0);
        self.send_owed(now, fx);
    }

    /// Sends each neighbor a portion of the messages that it lacks.
    fn send_owed(&mut self, now: Now, fx: &mut Fx) {
        let mut owed = std::mem::take(&mut self.owed);
        owed.retain(|link, ids| {
            for id in ids.drain(..ids.len().min(PORTION)) {
                let Some(seen) = self.seen.get(&id) else { continue };
                let age_ms = u64::try_from(seen.age(now.mono).as_millis()).unwrap_or(u64::MAX);
                fx.send(*link, GossipMsg { age_ms, ..seen.msg.clone() });
            }
            !ids.is_empty()
        });
        self.owed = owed;
        if !self.owed.is_empty() {
            fx.set_timer(Timer::Owed, PORTION_PAUSE);
        }
    }

    /// Handles a timer that has fired.
    pub fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Next => self.on_next(now, fx),
            Timer::Owed => self.send_owed(now, fx),
            Timer::Forget => {
                fx.set_timer(Timer::Forget, self.config.interval * 2);
                let old: Vec<_> = self
                    .seen
                    .iter()
                    .filter(|(_, seen)| seen.age(now.mono) > self.config.remember)
                    .map(|(id, seen)| (seen.rank, *id))
                    .collect();
                for (rank, id) in old {
                    self.order.remove(&rank);
                    self.seen.remove(&id);
                }
            }
        }
    }

    fn on_next(&mut self, now: Now, fx: &mut Fx) {
        if !self.running || self.made >= self.config.messages_max {
            return;
        }
        fx.set_timer(Timer::Next, self.config.interval);
        if self.neighbors.is_empty() {
            return; // Without neighbors it would use up a number; the next round may have some.
        }
        self.made += 1;
        let msg = GossipMsg {
            text: fixed_text(now.wall, self.me, self.made),
            origin: self.me,
            incarnation: self.incarnation,
            number: self.made,
            hops: 0,
            age_ms: 0,
        };
        self.remember(now.mono, msg.id(), msg.clone());
        self.forward(&msg, None, fx);
        fx.emit(Event::Made { msg, to: self.neighbors.len() });
    }

    fn forward(&self, msg: &GossipMsg, from: Option<LinkId>, fx: &mut Fx) {
        for link in self.neighbors.keys() {
            if Some(*link) != from {
                fx.send(*link, msg.clone());
            }
        }
    }

    fn remember(&mut self, now: Time, id: GossipId, msg: GossipMsg) {
        self.seen.insert(id, Seen { msg, at: now, rank: self.rank });
        self.order.insert(self.rank, id);
        self.rank += 1;
        if self.seen.len() > self.config.seen_max
            && let Some((_, oldest)) = self.order.pop_first()
            && let Some(seen) = self.seen.remove(&oldest)
        {
            let made = now.before(seen.age(now));
            self.forgotten = Some(self.forgotten.map_or(made, |time| time.max(made)));
        }
    }

    fn offered(&self, now: Time) -> impl Iterator<Item = (&GossipId, &Seen)> {
        self.seen.iter().filter(move |(_, seen)| seen.age(now) < self.config.hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Effect;
    use crate::model::WallTime;

    const ME: u16 = 6001;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new([127, 0, 0, 1].into(), port)
    }

    fn at(ms: u64) -> Now {
        Now { mono: Time::from_micros(ms * 1_000), wall: WallTime(1_734_567_890_123 + ms) }
    }

    fn with_neighbors(links: &[u64]) -> Gossip {
        let mut gossip = Gossip::new(Config::default(), endpoint(ME));
        for link in links {
            gossip.on_link_up(at(0), LinkId(*link), &mut Effects::default());
        }
        gossip
    }

    fn message(port: u16, number: u32) -> GossipMsg {
        let origin = endpoint(port);
        GossipMsg {
            text: fixed_text(at(0).wall, origin, number),
            origin,
            incarnation: Incarnation(1),
            number,
            hops: 0,
            age_ms: 0,
        }
    }

    fn step(gossip: &mut Gossip, from: u64, msg: &GossipMsg) -> Vec<Effect<Gossip>> {
        let mut fx = Effects::default();
        gossip.on_message(at(1), LinkId(from), msg.clone(), &mut fx);
        fx.drain().collect()
    }

    #[test]
    fn the_text_is_exactly_as_fixed() {
        assert_eq!(fixed_text(at(0).wall, endpoint(ME), 5), "1734567890.123:127.0.0.1:5");
    }

    #[test]
    fn a_message_is_heard_once_and_forwarded_to_all_but_its_sender() {
        let mut gossip = with_neighbors(&[1, 2, 3]);
        let sent = message(6009, 1);
        let msg = GossipMsg { hops: 1, ..sent.clone() };
        let to = |link| Effect::Send { link: LinkId(link), msg: msg.clone().into() };
        assert_eq!(
            step(&mut gossip, 2, &sent),
            [to(1), to(3), Effect::Emit(Event::Heard { msg: msg.clone(), from: LinkId(2) })]
        );
        assert_eq!(step(&mut gossip, 3, &sent), [], "a duplicate is dropped in silence");
        assert_eq!(gossip.counts(), (0, 1, 1));
    }

    #[test]
    fn peers_that_share_address_and_second_do_not_collide() {
        let mut gossip = with_neighbors(&[1]);
        let (one, other) = (message(6002, 1), message(6003, 1));
        assert_eq!(one.text, other.text);
        assert_eq!(step(&mut gossip, 1, &one).len(), 1);
        assert_eq!(step(&mut gossip, 1, &other).len(), 1, "the same text of another origin");
    }

    #[test]
    fn a_digest_is_answered_with_what_the_other_lacks_and_nothing_twice() {
        let mut gossip = with_neighbors(&[1]);
        let (old, known) = (message(6002, 1), message(6002, 2));
        step(&mut gossip, 1, &old);
        step(&mut gossip, 1, &known);
        gossip.on_link_up(at(2), LinkId(7), &mut Effects::default());
        let later = message(6002, 3);
        step(&mut gossip, 1, &later);
        let mut fx = Effects::default();
        let digest = GossipDigest { ids: known.id().short() };
        gossip.on_digest(at(5), LinkId(7), &digest, &mut fx);
        let sent: Vec<_> = fx.drain().collect();
        let expected = GossipMsg { hops: 1, age_ms: 4, ..old };
        assert_eq!(sent, [Effect::Send { link: LinkId(7), msg: expected.into() }]);
    }

    #[test]
    fn own_messages_end_at_the_limit_and_wait_for_a_neighbor() {
        let mut gossip = with_neighbors(&[]);
        let mut fx = Effects::default();
        gossip.begin(Incarnation(1), &mut fx);
        gossip.on_timer(at(5_000), Timer::Next, &mut fx);
        assert_eq!(gossip.counts().0, 0, "nobody to tell");
        gossip.on_link_up(at(5_001), LinkId(1), &mut fx);
        for round in 0..30 {
            gossip.on_timer(at(6_000 + round * 5_000), Timer::Next, &mut fx);
        }
        assert_eq!(gossip.counts().0, 10);
    }

    #[test]
    fn nothing_comes_back_after_it_was_forgotten() {
        let mut gossip = with_neighbors(&[1]);
        let msg = message(6002, 1);
        step(&mut gossip, 1, &msg);
        gossip.on_timer(at(302_000), Timer::Forget, &mut Effects::default());
        assert_eq!(gossip.counts().1, 0, "forgotten");
        let late = GossipMsg { age_ms: 301_000, ..msg };
        assert_eq!(step(&mut gossip, 1, &late), []);
    }

    #[test]
    fn what_was_forgotten_for_want_of_room_is_not_heard_again() {
        let config = Config { seen_max: 3, ..Config::default() };
        let mut gossip = Gossip::new(config, endpoint(ME));
        for number in 1..=4 {
            step(&mut gossip, 1, &message(6002, number));
        }
        assert_eq!(step(&mut gossip, 1, &message(6002, 1)), [], "forgotten, but not new");
    }

    #[test]
    fn the_table_is_bounded() {
        let config = Config { seen_max: 3, ..Config::default() };
        let mut gossip = Gossip::new(config, endpoint(ME));
        for number in 1..10 {
            step(&mut gossip, 1, &message(6002, number));
        }
        assert_eq!(gossip.counts().1, 3);
    }

    #[test]
    fn texts_that_lie_about_their_origin_are_refused() {
        let mut gossip = with_neighbors(&[1]);
        let lies = [
            "",
            "1.123:10.9.9.9:1",
            "1.123:127.0.0.1:2",
            "1\n.123:127.0.0.1:1",
            "1:127.0.0.1:1",
            "x.123:127.0.0.1:1",
        ];
        for text in lies {
            let msg = GossipMsg { text: text.to_owned(), ..message(6002, 1) };
            let effects = step(&mut gossip, 1, &msg);
            assert!(matches!(effects[..], [Effect::Emit(Event::Malformed { .. })]), "{text:?}");
        }
    }
}
