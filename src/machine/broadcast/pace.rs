//! Back-pressure: an origin waits for the nodes that are slower than its messages.
//!
//! A node that holds much that a neighbor lacks asks the origin to wait, by the way its last
//! message came. The origin then keeps what it publishes within the room that the slowest of them
//! leaves; messages that do not fit wait. A node that makes no progress for [`STALL_MAX`] is waited
//! for no longer, so that neither a dead machine nor a liar stops an origin; it is told later which
//! messages it missed.

use std::collections::{BTreeMap, VecDeque};

use super::config::{
    BRAKE_FOR, BRAKE_LAPSE, BRAKES_MAX, FREE_FOR, HOPS_MAX, PENDING_MAX, PENDING_PAUSE, STALL_MAX,
    STALL_SHARE,
};
use super::event::Reason;
use super::{Broadcast, Event, Fx, Numbers, Timer};
use crate::machine::LinkId;
use crate::model::{Data, Endpoint, Now, Time};
use crate::proto::broadcast::Slow;

/// Number of own messages whose sizes are remembered.
const SIZES_MAX: usize = 32_768;

/// An own message to be: its topic, its data, and whether its publisher wants receipts.
pub(super) type PublishRequest = (String, Data, bool);

/// The own messages of one life, by number and size.
#[derive(Debug, Default)]
pub(super) struct OwnMessages {
    count: u64,
    bytes: u64,
    /// Bytes of all earlier messages, for each of the last messages.
    before: VecDeque<u64>,
}

impl OwnMessages {
    /// Number of the last message, 0 before the first.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn push(&mut self, bytes: u64) {
        self.before.push_back(self.bytes);
        if self.before.len() > SIZES_MAX {
            self.before.pop_front();
        }
        self.bytes += bytes;
        self.count += 1;
    }

    /// Bytes of all messages up to a number; of those long ago about.
    fn bytes_up_to(&self, number: u64) -> u64 {
        let first = self.count - self.before.len() as u64;
        let at = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        self.before.get(at).copied().unwrap_or(self.bytes)
    }
}

/// A node that an origin waits for.
#[derive(Clone, Copy, Debug)]
struct SlowNode {
    done: u64,
    room: u64,
    /// Time of the last request.
    at: Time,
    /// Time at which its progress was last looked at, and the bytes that it had then.
    looked: (Time, u64),
    is_stalled: bool,
}

/// A time in which this origin waits, with pauses shorter than [`BRAKE_LAPSE`].
#[derive(Clone, Copy, Debug)]
struct HeldUp {
    since: Time,
    /// Bytes that it had made at `since`.
    made: u64,
    /// Time at which a message had to wait last.
    last: Time,
}

/// The nodes that this origin waits for.
#[derive(Debug, Default)]
pub(super) struct Brakes {
    by_node: BTreeMap<Endpoint, SlowNode>,
    held_up: Option<HeldUp>,
    /// Time until which no node is waited for.
    free_until: Option<Time>,
}

impl Brakes {
    /// Takes a slow node's request to wait.
    pub(super) fn note(&mut self, now: Time, (made, held_max): (&OwnMessages, u64), slow: &Slow) {
        self.by_node.retain(|_, brake| now.since(brake.at) < BRAKE_LAPSE);
        if self.by_node.len() >= BRAKES_MAX && !self.by_node.contains_key(&slow.who) {
            // A node that is not waited for any more does not take the place of one that is.
            let stalled = self.by_node.iter().find(|(_, brake)| brake.is_stalled);
            let Some((&stalled, _)) = stalled else { return };
            self.by_node.remove(&stalled);
        }
        let bytes = made.bytes_up_to(slow.done);
        let begun = SlowNode {
            done: slow.done,
            room: slow.room,
            at: now,
            looked: (now, bytes),
            is_stalled: false,
        };
        let brake = self.by_node.entry(slow.who).or_insert(begun);
        let (since, then) = brake.looked;
        if bytes.saturating_sub(then) >= held_max / STALL_SHARE {
            (brake.looked, brake.is_stalled) = ((now, bytes), false);
        } else if now.since(since) >= STALL_MAX {
            brake.is_stalled = true;
        }
        (brake.done, brake.room, brake.at) = (slow.done, slow.room, now);
    }

    /// True if one more message may be published now.
    fn allow(&mut self, now: Time, (made, held_max): (&OwnMessages, u64)) -> bool {
        let is_over = |brake: &SlowNode| {
            brake.is_stalled
                || now.since(brake.at) >= BRAKE_FOR
                || now.since(brake.looked.0) >= STALL_MAX
        };
        let has_room = |brake: &SlowNode| {
            made.bytes.saturating_sub(made.bytes_up_to(brake.done)) <= brake.room
        };
        let waits = self.by_node.values().any(|brake| !is_over(brake) && !has_room(brake));
        if !waits || self.free_until.is_some_and(|until| now < until) {
            return true;
        }
        let is_recent = |held_up: &HeldUp| now.since(held_up.last) < BRAKE_LAPSE;
        let before = self.held_up.take().filter(is_recent);
        let begun = before.unwrap_or(HeldUp { since: now, made: made.bytes, last: now });
        if now.since(begun.since) < STALL_MAX {
            self.held_up = Some(HeldUp { last: now, ..begun });
        } else if made.bytes.saturating_sub(begun.made) < held_max / STALL_SHARE {
            self.free_until = Some(now.after(FREE_FOR));
            return true;
        }
        false
    }
}

impl Broadcast {
    fn may_publish(&mut self, now: Now) -> bool {
        self.brakes.allow(now.mono, (&self.made.1, self.config.held_bytes_max))
    }

    /// Publishes an own message at once, or when slow nodes have room.
    pub(super) fn publish_in_turn(
        &mut self,
        now: Now,
        token: u64,
        said: PublishRequest,
        fx: &mut Fx,
    ) {
        if self.pending.is_empty() && self.may_publish(now) {
            return self.publish_now(now, token, said, fx);
        }
        let bytes: usize = self.pending.iter().map(|(_, said)| said.1.len()).sum();
        let has_room = self.pending.is_empty()
            || self.pending.len() < PENDING_MAX
                && (bytes + said.1.len()) as u64 <= self.config.held_bytes_max;
        if !has_room {
            let reason = "other nodes do not keep up, and too much waits for them; try again later";
            return fx.emit(Event::PublishRefused { token, reason: reason.to_owned() });
        }
        self.metrics.messages_delayed += 1;
        self.pending.push_back((token, said));
        self.arm(Timer::Pending, Some(now.mono.after(PENDING_PAUSE)), now, fx);
    }

    pub(super) fn on_pending_due(&mut self, now: Now, fx: &mut Fx) {
        while self.may_publish(now)
            && let Some((token, said)) = self.pending.pop_front()
        {
            self.publish_now(now, token, said, fx);
        }
        if !self.pending.is_empty() {
            self.arm(Timer::Pending, Some(now.mono.after(PENDING_PAUSE)), now, fx);
        }
    }

    /// True when neighbors have all messages that were published here, or there is no neighbor: two
    /// where there are more than two, because one may lie.
    pub fn is_settled(&self) -> bool {
        let Some(life) = self.life.filter(|_| !self.links.is_empty()) else { return true };
        let is_with = |link: &super::links::Link| {
            link.claims.get(&life).is_some_and(|claim| claim.done >= self.made.1.count())
        };
        let wanted = (self.links.len() - 1).clamp(1, 2);
        let has_enough = || self.links.values().filter(|it| is_with(it)).count() >= wanted;
        self.pending.is_empty() && (self.made.1.count() == 0 || has_enough())
    }

    /// Takes a slow node's request, and passes it on toward the origin.
    pub fn on_slow(&mut self, now: Now, from: LinkId, mut slow: Slow, fx: &mut Fx) {
        if !self.links.contains_key(&from) || slow.hops >= HOPS_MAX {
            return;
        }
        slow.hops += 1;
        self.ask_to_wait(now, slow, fx);
    }

    fn ask_to_wait(&mut self, now: Now, slow: Slow, fx: &mut Fx) {
        if self.life == Some(slow.origin) {
            let own = (&self.made.1, self.config.held_bytes_max);
            return self.brakes.note(now.mono, own, &slow);
        }
        let Some(place) = self.origins.place(&slow.origin) else { return };
        let newest = self.store.numbered(place, (0, u64::MAX)).next_back();
        let Some(link) = newest.and_then(|(_, held)| held.from) else { return };
        let Some(way) = self.links.get_mut(&link) else { return };
        if !way.may_slow(now.mono) {
            return self.metrics.drop_one(Reason::Hasty);
        }
        fx.send(link, slow);
    }

    /// Asks origins to wait if a neighbor lacks many of their messages that are held here. Returns
    /// whether there are any.
    pub(super) fn watch_pace(&mut self, now: Now, fx: &mut Fx) -> bool {
        let mut slow = Vec::new();
        for link in self.links.values() {
            let lags: Vec<_> = link
                .claims
                .iter()
                .filter_map(|(origin, claim)| {
                    let top = self.origins.numbers(origin).map_or(0, Numbers::top);
                    let place = self.origins.place(origin)?;
                    let lag = self.store.bytes_of_last(place, top.saturating_sub(claim.done));
                    (lag > 0).then_some((*origin, claim.done, lag))
                })
                .collect();
            let total: u64 = lags.iter().map(|(_, _, lag)| lag).sum();
            if total < self.config.held_bytes_max / 4 {
                continue;
            }
            let count = lags.len().max(1) as u64;
            let room = self.config.held_bytes_max / 2 / count;
            let heavy = lags.into_iter().filter(|(_, _, lag)| lag * count * 2 >= total);
            let who = link.endpoint;
            slow.extend(heavy.map(|(origin, done, _)| Slow { origin, who, done, room, hops: 0 }));
        }
        let is_slow = !slow.is_empty();
        for slow in slow {
            self.ask_to_wait(now, slow, fx);
        }
        is_slow
    }
}
