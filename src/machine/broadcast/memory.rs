//! Tables of the identities seen, the messages held for neighbors that lack them, and the origins.
//!
//! Invariants: each table has a bound; an identity is forgotten only after its origin's floor or
//! the common horizon was raised, so that a forgotten message is never taken for new.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::config::{ENDED_MAX, HAVE_AFTER, LEISURE, ORIGINS_MAX};
use super::numbers::Numbers;
use super::receipts::ReceiptCounts;
use crate::machine::LinkId;
use crate::model::statement::{Admission, MemberInstance};
use crate::model::{Endpoint, Incarnation, MessageId, ReadyKey, Time};
use crate::proto::broadcast::{Offer, Publish, Reached, Row};

/// Bytes that a held message takes beside its data and topic, about.
const OVERHEAD: u64 = 1_024;

#[derive(Debug)]
struct Trace {
    id: MessageId,
    origin: u64,
    number: u64,
    /// Time of arrival.
    at: Time,
    /// Time of publication, by this node's clock.
    born: Time,
}

/// Identities of the messages that were delivered, or dropped for good.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: BTreeSet<MessageId>,
    order: VecDeque<Trace>,
    /// The latest time of publication among the identities forgotten for want of room; no message
    /// as old is new.
    horizon: Option<Time>,
}

impl Seen {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn contains(&self, id: &MessageId) -> bool {
        self.ids.contains(id)
    }

    /// True if a message published at `born` may have been forgotten.
    pub(super) fn is_beyond(&self, born: Time) -> bool {
        self.horizon.is_some_and(|horizon| born <= horizon)
    }

    /// Remembers an identity; each one forgotten for want of room raises floor and horizon.
    pub(super) fn insert(
        &mut self,
        id: MessageId,
        (origin, number): (u64, u64),
        (at, born): (Time, Time),
        (max, origins): (usize, &mut Origins),
    ) {
        if self.ids.insert(id) {
            self.order.push_back(Trace { id, origin, number, at, born });
        }
        while self.ids.len() > max.max(1) {
            if let Some(gone) = self.forget_first(origins) {
                self.horizon = self.horizon.max(Some(gone));
            }
        }
    }

    /// Forgets the identities that came more than `remember` ago.
    pub(super) fn forget(&mut self, now: Time, remember: Duration, origins: &mut Origins) {
        while self.order.front().is_some_and(|first| now.since(first.at) > remember) {
            self.forget_first(origins);
        }
    }

    /// Number of entries, and about the bytes that they take.
    #[cfg(test)]
    pub(super) fn footprint(&self) -> (usize, usize) {
        // Nodes of a balanced tree are at least half full.
        let ids = self.ids.len() * size_of::<MessageId>() * 2;
        let order = self.order.capacity() * size_of::<Trace>();
        (self.ids.len() + self.order.len(), ids + order)
    }

    fn forget_first(&mut self, origins: &mut Origins) -> Option<Time> {
        let gone = self.order.pop_front()?;
        self.ids.remove(&gone.id);
        origins.raise_floor(gone.origin, gone.number);
        Some(gone.born)
    }
}

/// A message with all of its data.
#[derive(Debug)]
pub(super) struct Held {
    /// The message as it came, one hop older; its proof is apart.
    pub(super) msg: Publish,
    pub(super) proof: Option<Arc<Admission>>,
    /// Time of arrival, by this node's clock.
    pub(super) at: Time,
    /// Link by which the message came; none for an own one.
    pub(super) from: Option<LinkId>,
    /// Receipts of the message, where its origin wants them.
    pub(super) tally: Option<ReceiptCounts>,
    /// Number of the origin here, and its number for the message.
    pub(super) place: (u64, u64),
    rank: u64,
}

impl Held {
    pub(super) const fn new(
        msg: Publish,
        proof: Option<Arc<Admission>>,
        at: Time,
        (from, origin): (Option<LinkId>, u64),
    ) -> Self {
        let place = (origin, msg.number);
        let tally = if msg.receipt { Some(ReceiptCounts::new()) } else { None };
        Self { msg, proof, at, from, tally, place, rank: 0 }
    }

    /// Age of the message, by its own account and the time it spent here.
    pub(super) fn age(&self, now: Time) -> Duration {
        Duration::from_millis(self.msg.age_ms).saturating_add(now.since(self.at))
    }

    /// Returns the announcement of the message.
    pub(super) const fn offer(&self, id: MessageId) -> Offer {
        Offer { id, size: self.msg.size, hops: self.msg.hops }
    }

    /// Bytes that the message takes of `held_bytes_max`.
    pub(super) fn bytes(&self) -> u64 {
        self.msg.size + self.msg.topic.len() as u64 + OVERHEAD
    }
}

/// Messages that are held for neighbors that lack them.
#[derive(Debug, Default)]
pub(super) struct Store {
    by_id: BTreeMap<MessageId, Held>,
    order: BTreeMap<u64, MessageId>,
    by_number: BTreeMap<(u64, u64), MessageId>,
    /// Number of messages of each origin, and their bytes.
    sizes: BTreeMap<u64, (u64, u64)>,
    next_rank: u64,
    bytes: u64,
}

impl Store {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn get(&self, id: &MessageId) -> Option<&Held> {
        self.by_id.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &MessageId) -> Option<&mut Held> {
        self.by_id.get_mut(id)
    }

    /// Holds a message, and removes the oldest while all take more than `bytes_max` bytes.
    pub(super) fn insert(&mut self, id: MessageId, mut held: Held, bytes_max: u64) {
        held.rank = self.next_rank;
        self.next_rank += 1;
        self.bytes += held.bytes();
        self.order.insert(held.rank, id);
        self.by_number.insert(held.place, id);
        let size = self.sizes.entry(held.place.0).or_default();
        *size = (size.0 + 1, size.1 + held.bytes());
        self.by_id.insert(id, held);
        while self.bytes > bytes_max && self.by_id.len() > 1 {
            self.remove_first();
        }
    }

    /// Removes the messages older than `hold`. The first to come need not be the oldest, but no
    /// message is kept for longer than this after it came.
    pub(super) fn forget(&mut self, now: Time, hold: Duration) {
        while let Some((_, id)) = self.order.first_key_value() {
            if self.by_id.get(id).is_some_and(|held| held.age(now) <= hold) {
                return;
            }
            self.remove_first();
        }
    }

    fn remove_first(&mut self) {
        let Some((_, id)) = self.order.pop_first() else { return };
        if let Some(held) = self.by_id.remove(&id) {
            self.bytes -= held.bytes();
            self.by_number.remove(&held.place);
            if let Some(size) = self.sizes.get_mut(&held.place.0) {
                *size = (size.0 - 1, size.1 - held.bytes());
                if size.0 == 0 {
                    self.sizes.remove(&held.place.0);
                }
            }
        }
    }

    /// The held messages of an origin with these numbers, the lowest first.
    pub(super) fn numbered(
        &self,
        origin: u64,
        (first, last): Row,
    ) -> impl DoubleEndedIterator<Item = (MessageId, &Held)> {
        let row = (origin, first)..=(origin, last.max(first));
        self.by_number.range(row).filter_map(|(_, id)| Some((*id, self.by_id.get(id)?)))
    }

    /// The held messages of an origin in these rows that are younger than `hold`, among the first
    /// `looks` that are held; `looks` is less by those that were looked at.
    pub(super) fn offers(
        &self,
        (origin, rows): (u64, &[Row]),
        (now, hold): (Time, Duration),
        looks: &mut usize,
    ) -> Vec<Offer> {
        let mut offers = Vec::new();
        for row in rows {
            for (id, held) in self.numbered(origin, *row).take(*looks) {
                *looks -= 1;
                if held.age(now) <= hold {
                    offers.push(held.offer(id));
                }
            }
        }
        offers
    }

    /// The origins of held messages.
    pub(super) fn origins(&self) -> impl Iterator<Item = u64> {
        self.sizes.keys().copied()
    }

    /// Returns about the bytes that the last `count` held messages of an origin take.
    pub(super) fn bytes_of_last(&self, origin: u64, count: u64) -> u64 {
        let (all, bytes) = self.sizes.get(&origin).copied().unwrap_or((1, 0));
        bytes / all * count.min(all)
    }
}

#[derive(Debug)]
struct Origin {
    number: u64,
    proof: Option<Arc<Admission>>,
    /// Key of the origin, by which every message of it is checked.
    key: Option<ReadyKey>,
    /// Highest number among its forgotten messages: none up to it is new.
    floor: u64,
    /// Numbers of its messages that came; `None` before the first.
    numbers: Option<Numbers>,
    /// True while it is among the restless.
    is_restless: bool,
    /// Time at which neighbors were told of its numbers, and the last number told.
    told: (Time, u64),
}

/// Lives whose messages were taken, with the proofs of their membership.
#[derive(Debug, Default)]
pub(super) struct Origins {
    known: BTreeMap<MemberInstance, Origin>,
    order: BTreeMap<u64, MemberInstance>,
    /// Lives of which numbers are missing, or neighbors are still to be told.
    restless: BTreeSet<MemberInstance>,
    next: u64,
    ended: BTreeMap<Endpoint, (Incarnation, Time)>,
    ended_order: VecDeque<Endpoint>,
}

impl Origins {
    /// Highest forgotten number of a life; `None` if the life is not known.
    pub(super) fn floor(&self, subject: &MemberInstance) -> Option<u64> {
        self.known.get(subject).map(|origin| origin.floor)
    }

    pub(super) fn proof(&self, subject: &MemberInstance) -> Option<Arc<Admission>> {
        self.known.get(subject)?.proof.clone()
    }

    /// The key of a known life, ready to verify.
    pub(super) fn key(&self, subject: &MemberInstance) -> Option<&ReadyKey> {
        self.known.get(subject)?.key.as_ref()
    }

    /// Remembers a proven life. Returns its number here. Beyond [`ORIGINS_MAX`] lives the one known
    /// for longest is forgotten.
    pub(super) fn insert(&mut self, subject: MemberInstance, proof: Option<Arc<Admission>>) -> u64 {
        if let Some(origin) = self.known.get(&subject) {
            return origin.number;
        }
        let number = self.next;
        self.next += 1;
        let key = subject.key.ready();
        let told = (Time::ZERO, 0);
        let origin =
            Origin { number, proof, key, floor: 0, numbers: None, is_restless: false, told };
        self.known.insert(subject, origin);
        self.order.insert(number, subject);
        if self.order.len() > ORIGINS_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.known.remove(&oldest);
            self.restless.remove(&oldest);
        }
        number
    }

    /// Takes note of a number that came. Returns the count of missing numbers that are given up for
    /// want of room.
    pub(super) fn arrived(&mut self, now: Time, subject: &MemberInstance, number: u64) -> u64 {
        let Some(origin) = self.known.get_mut(subject) else { return 0 };
        if !std::mem::replace(&mut origin.is_restless, true) {
            self.restless.insert(*subject);
        }
        match &mut origin.numbers {
            Some(numbers) => numbers.insert(now, number),
            None => {
                origin.numbers = Some(Numbers::starting_at(now, number));
                0
            }
        }
    }

    /// The numbers of a life's messages that came.
    pub(super) fn numbers(&self, subject: &MemberInstance) -> Option<&Numbers> {
        self.known.get(subject)?.numbers.as_ref()
    }

    /// Number that a known life has here.
    pub(super) fn place(&self, subject: &MemberInstance) -> Option<u64> {
        Some(self.known.get(subject)?.number)
    }

    /// The numbers of a life, as neighbors are told of them.
    pub(super) fn reached(&self, place: u64) -> Option<Reached> {
        let origin = *self.order.get(&place)?;
        let numbers = self.known.get(&origin)?.numbers.as_ref()?;
        Some(Reached { origin, done: numbers.done(), top: numbers.top() })
    }

    /// The lives that neighbors are to be told of now: with `at_once` all whose last number they
    /// do not know, else those with [`HAVE_AFTER`] numbers more than they know of, and with
    /// fewer after [`LEISURE`].
    pub(super) fn untold(&mut self, now: Time, at_once: bool) -> Vec<Reached> {
        let mut found = Vec::new();
        for subject in &self.restless {
            let Some(origin) = self.known.get_mut(subject) else { continue };
            let Some(numbers) = &origin.numbers else { continue };
            let (done, top) = (numbers.done(), numbers.top());
            let (at, told) = origin.told;
            let is_due =
                at_once || done.saturating_sub(told) >= HAVE_AFTER || now.since(at) >= LEISURE;
            if done > told && is_due {
                origin.told = (now, done);
                found.push(Reached { origin: *subject, done, top });
            }
        }
        found
    }

    /// The lives of which numbers are missing, or not told yet, above `from`.
    pub(super) fn restless_after(
        &self,
        from: Option<MemberInstance>,
    ) -> impl Iterator<Item = (&MemberInstance, &Numbers)> {
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        let lives = self.restless.range((from, Bound::Unbounded));
        lives.filter_map(|it| Some((it, self.known.get(it)?.numbers.as_ref()?)))
    }

    /// True if no number is missing, and all were told.
    pub(super) fn is_at_rest(&self) -> bool {
        self.restless.is_empty()
    }

    /// Applies [`Numbers::give_up`] to the lives that are not `spared`; returns the counts by
    /// origin. Lives of which no number is missing and all are told are at rest.
    pub(super) fn give_up(
        &mut self,
        since: Option<(Time, Time)>,
        spared: &BTreeSet<MemberInstance>,
    ) -> Vec<(Endpoint, u64)> {
        let mut given_up = Vec::new();
        self.restless.retain(|subject| {
            let Some(origin) = self.known.get_mut(subject) else { return false };
            let Some(numbers) = &mut origin.numbers else { return false };
            let since = since.filter(|_| !spared.contains(subject));
            let count = since.map_or(0, |(since, long)| numbers.give_up(since, long));
            if count > 0 {
                given_up.push((subject.endpoint, count));
            }
            origin.is_restless = numbers.has_gaps() || origin.told.1 < numbers.done();
            origin.is_restless
        });
        given_up
    }

    /// Number of lives remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len().max(self.order.len())
    }

    fn raise_floor(&mut self, origin: u64, number: u64) {
        if let Some(origin) = self.order.get(&origin).and_then(|it| self.known.get_mut(it)) {
            origin.floor = origin.floor.max(number);
        }
    }

    /// Marks a life, and all earlier ones of its endpoint, as ended.
    pub(super) fn end(&mut self, now: Time, endpoint: Endpoint, incarnation: Incarnation) {
        if self.ended.get(&endpoint).is_some_and(|(known, _)| *known >= incarnation) {
            return;
        }
        if self.ended.insert(endpoint, (incarnation, now)).is_none() {
            self.ended_order.push_back(endpoint);
        }
        if self.ended_order.len() > ENDED_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    /// Time at which the end of this life became known here.
    pub(super) fn ended_at(&self, subject: &MemberInstance) -> Option<Time> {
        let (incarnation, at) = self.ended.get(&subject.endpoint)?;
        (*incarnation >= subject.incarnation).then_some(*at)
    }
}
