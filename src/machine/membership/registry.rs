//! The registry of members: a join-semilattice (M4).
//!
//! Invariants:
//! - Of each endpoint the highest incarnation is kept; within one, an end wins over alive.
//! - Merging is idempotent, commutative and associative, so seeds that exchange their entries, in
//!   any order and any number of times, end with the same members.
//! - The registry checks no proof: the caller verifies certificates *before* merging.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::model::entry::{MemberState, RegistryEntry};
use crate::model::statement::{Ban, MemberInstance, Removal};
use crate::model::{Endpoint, Incarnation, Rng, SigningBytes, WallTime};

/// Number of parts into which the registry is divided for comparison between seeds.
pub const BUCKETS: usize = 64;

/// Number of endpoints whose forgotten lives are remembered: five times the most members.
const FLOORS_MAX: usize = 100_000;

/// Number of earlier lives of an endpoint that are kept for `explain`.
const PAST_MAX: usize = 4;

/// Effect of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The merge changed nothing.
    Nothing,
    /// A further proof of a known state; no member came or went.
    Detail,
    /// The endpoint is now a member, in this life.
    Alive,
    /// The endpoint is no member now.
    Ended,
}

/// All members that are in, and those that went lately.
#[derive(Clone, Debug)]
pub struct Registry {
    entries: BTreeMap<Endpoint, RegistryEntry>,
    past: BTreeMap<Endpoint, Vec<RegistryEntry>>,
    /// The highest life of each endpoint whose tombstone was forgotten.
    floors: BTreeMap<Endpoint, Incarnation>,
    /// Bans, and those that were lifted, by endpoint.
    bans: BTreeMap<Endpoint, Ban>,
    buckets: [u64; BUCKETS],
    /// Members that are in, in no order, with the index of each in `place`: to draw a few of many.
    alive: Vec<Endpoint>,
    place: BTreeMap<Endpoint, usize>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            past: BTreeMap::new(),
            floors: BTreeMap::new(),
            bans: BTreeMap::new(),
            buckets: [0; BUCKETS],
            alive: Vec::new(),
            place: BTreeMap::new(),
        }
    }
}

impl Registry {
    /// Joins verified knowledge into the registry.
    pub fn merge(&mut self, mut entry: RegistryEntry) -> Merged {
        let endpoint = entry.subject.endpoint;
        entry.removal = entry.removal.map(|removal| self.shared(removal));
        // Two keys for one life cannot both be certified while fewer than a quorum of seeds lie;
        // if they are, the lower key wins everywhere, so that registries still agree.
        let rank = |subject: &MemberInstance| (subject.incarnation, std::cmp::Reverse(subject.key));
        if self.floor(endpoint).is_some_and(|floor| entry.subject.incarnation <= floor) {
            return Merged::Nothing;
        }
        let Some(held) = self.entries.get(&endpoint) else { return self.insert(entry) };
        match rank(&entry.subject).cmp(&rank(&held.subject)) {
            std::cmp::Ordering::Less => Merged::Nothing,
            std::cmp::Ordering::Greater => {
                if let Some(old) = self.take(endpoint) {
                    let past = self.past.entry(endpoint).or_default();
                    past.push(old);
                    if past.len() > PAST_MAX {
                        past.remove(0);
                    }
                }
                self.insert(entry)
            }
            std::cmp::Ordering::Equal => {
                let Some(mut held) = self.take(endpoint) else { return Merged::Nothing };
                let before = held.status();
                let news = join(&mut held, entry);
                let after = held.status();
                self.insert(held);
                match (news, before == after) {
                    (false, _) => Merged::Nothing,
                    (true, true) => Merged::Detail,
                    (true, false) if before == MemberState::Alive => Merged::Ended,
                    (true, false) => Merged::Detail,
                }
            }
        }
    }

    /// Joins a verified removal into the registry. Returns whether anything of it was new, and the
    /// lives that ended by it.
    pub fn merge_removal(&mut self, removal: &Arc<Removal>) -> (bool, Vec<MemberInstance>) {
        let (mut news, mut ended) = (false, Vec::new());
        for life in &removal.lives {
            let merged = self.merge(RegistryEntry::removed(*life, Arc::clone(removal)));
            news |= merged != Merged::Nothing;
            if merged == Merged::Ended {
                ended.push(*life);
            }
        }
        (news, ended)
    }

    /// Joins a verified ban, or its lifting: the highest number counts.
    pub fn merge_ban(&mut self, ban: Ban) -> Merged {
        // Two keys under one number cannot both be certified while fewer than a quorum lie; if
        // they are, the lower key wins everywhere, so that registries still agree.
        let rank = |ban: &Ban| (ban.number, std::cmp::Reverse(ban.key));
        let bucket = bucket_of(ban.endpoint);
        match self.bans.get(&ban.endpoint) {
            Some(held) if rank(held) >= rank(&ban) => return Merged::Nothing,
            Some(held) => self.buckets[bucket] ^= ban_fingerprint(held),
            None => {}
        }
        self.buckets[bucket] ^= ban_fingerprint(&ban);
        self.bans.insert(ban.endpoint, ban);
        Merged::Detail
    }

    /// The ban of an endpoint, or its lifting.
    pub fn ban(&self, endpoint: Endpoint) -> Option<&Ban> {
        self.bans.get(&endpoint)
    }

    /// All bans, and those that were lifted, ascending by endpoint.
    pub fn bans(&self) -> impl Iterator<Item = &Ban> {
        self.bans.values()
    }

    /// True if a ban keeps this subject out, by its endpoint or by its key.
    pub fn is_banned(&self, subject: &MemberInstance) -> bool {
        let names = |ban: &Ban| ban.endpoint == subject.endpoint || ban.key == subject.key;
        self.bans().any(|ban| ban.is_in_force() && names(ban))
    }

    /// The entry of an endpoint's latest life.
    pub fn get(&self, endpoint: Endpoint) -> Option<&RegistryEntry> {
        self.entries.get(&endpoint)
    }

    /// True if exactly this life is in.
    pub fn is_alive(&self, subject: &MemberInstance) -> bool {
        self.alive_at(subject.endpoint).is_some_and(|entry| entry.subject == *subject)
    }

    /// The entry of an endpoint that is in.
    pub fn alive_at(&self, endpoint: Endpoint) -> Option<&RegistryEntry> {
        self.get(endpoint).filter(|entry| entry.status() == MemberState::Alive)
    }

    /// Number of members that are in.
    pub const fn alive_count(&self) -> usize {
        self.alive.len()
    }

    /// True if the registry holds no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, ascending by endpoint.
    pub fn entries(&self) -> impl Iterator<Item = &RegistryEntry> {
        self.entries.values()
    }

    /// The entries of the members that are in.
    pub fn alive(&self) -> impl Iterator<Item = &RegistryEntry> {
        self.entries().filter(|entry| entry.status() == MemberState::Alive)
    }

    /// Draws at most `count` of the members that are in, each as likely as any other, ascending by
    /// endpoint. The time does not grow with the number of members to draw from.
    pub fn sample(&self, count: usize, rng: &mut Rng) -> Vec<&RegistryEntry> {
        let count = count.min(self.alive.len());
        let drawn = rand::seq::index::sample(rng, self.alive.len(), count);
        let drawn: BTreeSet<_> = drawn.into_iter().map(|place| self.alive[place]).collect();
        drawn.into_iter().filter_map(|endpoint| self.get(endpoint)).collect()
    }

    /// The entries that follow `after`, ascending by endpoint.
    pub fn entries_after(&self, after: Option<Endpoint>) -> impl Iterator<Item = &RegistryEntry> {
        self.entries.range(following(after)).map(|(_, entry)| entry)
    }

    /// Earlier lives of an endpoint, oldest first, at most four.
    pub fn past(&self, endpoint: Endpoint) -> &[RegistryEntry] {
        self.past.get(&endpoint).map_or(&[], Vec::as_slice)
    }

    /// One hash for each bucket; equal registries have equal hashes.
    pub const fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// One hash for all buckets; equal registries have equal hashes.
    pub fn root(&self) -> u64 {
        let bytes = SigningBytes::new("folkmoot/registry/1");
        first_number(&self.buckets.iter().fold(bytes, |it, bucket| it.number(*bucket)).sha256())
    }

    /// The bans of these buckets that follow `after`, ascending by endpoint.
    pub fn bans_in_buckets(
        &self,
        wanted: &BTreeSet<u8>,
        after: Option<Endpoint>,
    ) -> impl Iterator<Item = &Ban> {
        let is_wanted = |it: &&Ban| is_in(wanted, it.endpoint);
        self.bans.range(following(after)).map(|(_, ban)| ban).filter(is_wanted)
    }

    /// The entries of these buckets that follow `after`, ascending by endpoint.
    pub fn in_buckets(
        &self,
        wanted: &BTreeSet<u8>,
        after: Option<Endpoint>,
    ) -> impl Iterator<Item = &RegistryEntry> {
        self.entries_after(after).filter(|entry| is_in(wanted, entry.subject.endpoint))
    }

    /// Bars all lives of `endpoint` up to `incarnation` from being merged again, and forgets a
    /// known life of these that has ended: a journal tells of both, the life first.
    pub fn raise_floor(&mut self, endpoint: Endpoint, incarnation: Incarnation) {
        let held = self.get(endpoint).map(|held| (held.subject.incarnation, held.status()));
        if held.is_some_and(|(life, status)| life <= incarnation && status != MemberState::Alive) {
            self.take(endpoint);
            self.past.remove(&endpoint);
        }
        if self.floors.len() >= FLOORS_MAX && !self.floors.contains_key(&endpoint) {
            self.floors.pop_first();
        }
        let floor = self.floors.entry(endpoint).or_insert(incarnation);
        *floor = incarnation.max(*floor);
    }

    /// The highest forgotten life of an endpoint.
    pub fn floor(&self, endpoint: Endpoint) -> Option<Incarnation> {
        self.floors.get(&endpoint).copied()
    }

    /// The highest forgotten lives.
    pub fn floors(&self) -> impl Iterator<Item = (Endpoint, Incarnation)> {
        self.floors.iter().map(|(endpoint, incarnation)| (*endpoint, *incarnation))
    }

    /// The lives that ended longer than `keep` ago, by the clocks of the deciding nodes.
    pub fn old(&self, now: WallTime, keep: Duration) -> Vec<(Endpoint, Incarnation)> {
        let is_old = |entry: &RegistryEntry| {
            entry.status() != MemberState::Alive
                && entry.since() < now
                && entry.since().distance(now) > keep
        };
        self.entries()
            .filter(|entry| is_old(entry))
            .map(|entry| (entry.subject.endpoint, entry.subject.incarnation))
            .collect()
    }

    /// Forgets the lives that [`Self::old`] returns, but for their incarnations, and returns them.
    pub fn purge(&mut self, now: WallTime, keep: Duration) -> Vec<(Endpoint, Incarnation)> {
        let old = self.old(now, keep);
        for (endpoint, incarnation) in &old {
            self.raise_floor(*endpoint, *incarnation);
        }
        old
    }

    /// Returns the equal certificate that another of the lives it ended holds already, so that it
    /// is kept once.
    fn shared(&self, removal: Arc<Removal>) -> Arc<Removal> {
        let held = |life: &MemberInstance| self.get(life.endpoint)?.removal.as_ref();
        let same = removal.lives.iter().filter_map(held).find(|held| **held == removal);
        same.cloned().unwrap_or(removal)
    }

    fn insert(&mut self, entry: RegistryEntry) -> Merged {
        let endpoint = entry.subject.endpoint;
        let status = entry.status();
        if status == MemberState::Alive {
            self.place.insert(endpoint, self.alive.len());
            self.alive.push(endpoint);
        }
        self.buckets[bucket_of(endpoint)] ^= fingerprint(&entry);
        self.entries.insert(endpoint, entry);
        if status == MemberState::Alive { Merged::Alive } else { Merged::Ended }
    }

    fn take(&mut self, endpoint: Endpoint) -> Option<RegistryEntry> {
        let entry = self.entries.remove(&endpoint)?;
        if let Some(place) = self.place.remove(&endpoint) {
            self.alive.swap_remove(place);
            if let Some(moved) = self.alive.get(place) {
                self.place.insert(*moved, place);
            }
        }
        self.buckets[bucket_of(endpoint)] ^= fingerprint(&entry);
        Some(entry)
    }
}

fn is_in(buckets: &BTreeSet<u8>, endpoint: Endpoint) -> bool {
    u8::try_from(bucket_of(endpoint)).is_ok_and(|bucket| buckets.contains(&bucket))
}

fn following(after: Option<Endpoint>) -> (Bound<Endpoint>, Bound<Endpoint>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

/// Returns a number that differs when the facts differ on which seeds must agree. The
/// votes that a certificate happens to hold are not part of it: several quorums may prove
/// the same thing.
fn fingerprint(entry: &RegistryEntry) -> u64 {
    let hash = SigningBytes::new("folkmoot/entry/1")
        .endpoint(entry.subject.endpoint)
        .incarnation(entry.subject.incarnation)
        .key(&entry.subject.key)
        .number(u64::from(entry.admission.is_some()))
        .number(u64::from(entry.removal.is_some()))
        .number(u64::from(entry.leave.is_some()))
        .sha256();
    first_number(&hash)
}

/// Adds to `held` the proofs that `other` has about the same life. Returns whether any was new.
fn join(held: &mut RegistryEntry, other: RegistryEntry) -> bool {
    let mut news = false;
    if held.admission.is_none() && other.admission.is_some() {
        held.admission = other.admission;
        news = true;
    }
    if held.removal.is_none() && other.removal.is_some() {
        held.removal = other.removal;
        news = true;
    }
    if held.leave.is_none() && other.leave.is_some() {
        held.leave = other.leave;
        news = true;
    }
    news
}

fn ban_fingerprint(ban: &Ban) -> u64 {
    let subject = ban.subject();
    let hash = SigningBytes::new("folkmoot/ban/1")
        .endpoint(subject.endpoint)
        .incarnation(subject.incarnation)
        .key(&subject.key)
        .sha256();
    first_number(&hash)
}

fn first_number(hash: &[u8; 32]) -> u64 {
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn bucket_of(endpoint: Endpoint) -> usize {
    let hash = SigningBytes::new("folkmoot/bucket/1").endpoint(endpoint).sha256();
    usize::from(hash[0]) % BUCKETS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    use super::*;
    use crate::model::statement::{Admission, Leave, RemovalReason};
    use crate::model::{KeyPair, Rng};

    /// One of a few lives of a few endpoints, in one of its three guises.
    fn entry(port: u16, incarnation: u64, guise: u8) -> RegistryEntry {
        let keys = KeyPair::generate(&mut Rng::seed_from_u64(u64::from(port)));
        let subject = MemberInstance {
            endpoint: Endpoint::new([127, 0, 0, 1].into(), port),
            incarnation: Incarnation(incarnation),
            key: keys.public(),
        };
        let MemberInstance { endpoint, incarnation, key } = subject;
        match guise {
            0 => {
                RegistryEntry::admitted(Admission { endpoint, incarnation, key, votes: Vec::new() })
            }
            1 => {
                let (because, lives) = (RemovalReason::Death, vec![subject]);
                let (votes, confirmations) = (Vec::new(), Vec::new());
                let removal = Removal { because, lives, votes, confirmations };
                RegistryEntry::removed(subject, Arc::new(removal))
            }
            _ => RegistryEntry::left(Leave::sign(subject, WallTime(9), &keys)),
        }
    }

    fn merged(entries: &[RegistryEntry]) -> Registry {
        let mut registry = Registry::default();
        for entry in entries {
            registry.merge(entry.clone());
        }
        registry
    }

    proptest! {
        #[test]
        fn merging_is_free_of_order_and_repetition(
            picks in prop::collection::vec((6000_u16..6004, 1_u64..4, 0_u8..3), 0..20),
            rotate in 0_usize..20,
        ) {
            let entries: Vec<_> = picks.iter().map(|&(p, i, g)| entry(p, i, g)).collect();
            let mut shuffled = entries.clone();
            shuffled.rotate_left(rotate % entries.len().max(1));
            shuffled.extend(entries.iter().rev().cloned());
            let (one, other) = (merged(&entries), merged(&shuffled));
            prop_assert_eq!(one.buckets(), other.buckets());
            prop_assert!(one.entries().eq(other.entries()));
            prop_assert_eq!(one.alive_count(), one.alive().count());
            let mut rng = Rng::seed_from_u64(7);
            prop_assert!(one.sample(9, &mut rng).into_iter().eq(one.alive()));
            let some = one.sample(2, &mut rng);
            prop_assert_eq!(some.len(), one.alive_count().min(2));
            prop_assert!(some.iter().all(|entry| entry.status() == MemberState::Alive));
        }
    }

    #[test]
    fn the_dead_never_come_back_in_the_same_life() {
        let mut registry = Registry::default();
        assert_eq!(registry.merge(entry(6001, 5, 0)), Merged::Alive);
        assert_eq!(registry.merge(entry(6001, 5, 1)), Merged::Ended);
        assert_eq!(registry.merge(entry(6001, 5, 0)), Merged::Nothing);
        assert_eq!(registry.merge(entry(6001, 4, 0)), Merged::Nothing);
        assert_eq!(registry.alive_count(), 0);
        assert_eq!(registry.merge(entry(6001, 6, 0)), Merged::Alive);
        assert_eq!(registry.past(entry(6001, 5, 0).subject.endpoint).len(), 1);
    }

    #[test]
    fn tombstones_are_forgotten_after_their_time_and_the_living_never() {
        let mut registry = Registry::default();
        registry.merge(entry(6001, 1, 2));
        registry.merge(entry(6002, 1, 0));
        let day = Duration::from_secs(86_400);
        assert_eq!(registry.purge(WallTime(86_400_000), day).len(), 0);
        assert_eq!(registry.purge(WallTime(86_400_010), day).len(), 1);
        assert_eq!(registry.entries().count(), 1);
        assert_eq!(registry.merge(entry(6001, 1, 0)), Merged::Nothing, "an old certificate");
        assert_eq!(registry.merge(entry(6001, 2, 0)), Merged::Alive, "a new life");
        registry.merge(entry(6001, 2, 2));
        registry.purge(WallTime(86_400_010), day);
        assert_eq!(registry.buckets(), merged(&[entry(6002, 1, 0)]).buckets());
    }

    /// A journal that was not rewritten since tells of the life first and of its floor later.
    #[test]
    fn a_floor_that_is_replayed_forgets_the_ended_life_below_it_and_no_other() {
        let mut registry = merged(&[entry(6001, 1, 2), entry(6002, 1, 0), entry(6003, 2, 2)]);
        for port in 6001..=6003 {
            let endpoint = entry(port, 1, 0).subject.endpoint;
            registry.raise_floor(endpoint, Incarnation(1));
        }
        let kept: Vec<_> = registry.entries().map(|it| it.subject.endpoint.port()).collect();
        assert_eq!(kept, [6002, 6003]);
        let rest = merged(&[entry(6002, 1, 0), entry(6003, 2, 2)]);
        assert_eq!(registry.buckets(), rest.buckets());
    }
}
