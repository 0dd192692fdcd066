//! The buckets: peers whose key was proved at their endpoint, many of them near, few far away.
//!
//! Invariants (Maymounkov and Mazières, "Kademlia", 2002, section 2.2):
//! - An entry's key was proved at its endpoint; an endpoint and a key have one entry each.
//! - A bucket holds at most `BUCKET_SIZE` entries. Those that were there first stay: a peer that
//!   has been there long stays longer, and a flood of newcomers displaces no entry.
//! - A newcomer to a full bucket waits, one for each bucket, until an entry has failed.

use std::collections::BTreeMap;

use crate::model::{Endpoint, Time};
use crate::proto::discovery::{CONTACTS_MAX, Contact, NodeId};

/// Number of entries of one bucket (k in the paper): all of them would have to vanish at once.
const BUCKET_SIZE: usize = CONTACTS_MAX;

/// Number of failures in a row after which an entry is removed: one may be a lost packet.
const FAILURES_MAX: u32 = 2;

#[derive(Clone, Copy, Debug)]
struct Entry {
    contact: Contact,
    id: NodeId,
    /// Time at which its key was last proved.
    seen: Time,
    failures: u32,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Entries, the longest known first.
    entries: Vec<Entry>,
    waiting: Option<Entry>,
}

/// Contacts of one peer, by their distance.
#[derive(Debug)]
pub(super) struct Table {
    me: NodeId,
    /// Buckets by the number of leading bits that are those of this peer's id.
    buckets: BTreeMap<u16, Bucket>,
}

impl Table {
    pub(super) const fn new(me: NodeId) -> Self {
        Self { me, buckets: BTreeMap::new() }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.buckets.values().map(|bucket| bucket.entries.len()).sum()
    }

    /// The contacts of all entries.
    pub(super) fn contacts(&self) -> impl Iterator<Item = Contact> {
        self.entries().map(|entry| entry.contact)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.values().flat_map(|bucket| &bucket.entries)
    }

    fn place(&self, id: &NodeId) -> u16 {
        self.me.distance(id).common_bits()
    }

    /// True if a newcomer of this id would be an entry.
    pub(super) fn has_room(&self, id: &NodeId) -> bool {
        let bucket = self.buckets.get(&self.place(id));
        *id != self.me && bucket.is_none_or(|bucket| bucket.entries.len() < BUCKET_SIZE)
    }

    /// True if this key was proved at this endpoint.
    pub(super) fn knows(&self, contact: &Contact) -> bool {
        let bucket = self.buckets.get(&self.place(&contact.id()));
        bucket.is_some_and(|it| it.entries.iter().any(|entry| entry.contact == *contact))
    }

    /// Adds or renews a contact whose key was proved at its endpoint.
    pub(super) fn insert(&mut self, contact: Contact, now: Time) {
        let id = contact.id();
        if id == self.me {
            return;
        }
        // Another key listens there now, or the same key elsewhere: the old entry is over.
        self.weed(|it| {
            it.contact == contact || (it.contact.endpoint != contact.endpoint && it.id != id)
        });
        let place = self.place(&id);
        let bucket = self.buckets.entry(place).or_default();
        let fresh = Entry { contact, id, seen: now, failures: 0 };
        if let Some(known) = bucket.entries.iter_mut().find(|it| it.contact == contact) {
            *known = fresh;
        } else if bucket.entries.len() < BUCKET_SIZE {
            bucket.entries.push(fresh);
        } else {
            bucket.waiting = Some(fresh);
        }
    }

    /// Counts a failure to answer at an endpoint. Two in a row end an entry, and one that waited
    /// takes its place.
    pub(super) fn failed(&mut self, endpoint: Endpoint) {
        self.weed(|entry| {
            if entry.contact.endpoint == endpoint {
                entry.failures += 1;
            }
            entry.failures < FAILURES_MAX
        });
    }

    /// Removes an endpoint whose peer is gone for certain.
    pub(super) fn remove(&mut self, endpoint: Endpoint) {
        self.weed(|entry| entry.contact.endpoint != endpoint);
    }

    fn weed(&mut self, mut keep: impl FnMut(&mut Entry) -> bool) {
        for bucket in self.buckets.values_mut() {
            bucket.waiting.take_if(|it| !keep(it));
            bucket.entries.retain_mut(&mut keep);
            if bucket.entries.len() < BUCKET_SIZE {
                bucket.entries.extend(bucket.waiting.take());
            }
        }
        self.buckets.retain(|_, bucket| !bucket.entries.is_empty());
    }

    /// The closest to `target` of the contacts that did not fail lately, closest first.
    pub(super) fn closest(&self, target: &NodeId, count: usize) -> Vec<Contact> {
        let healthy = self.entries().filter(|entry| entry.failures == 0);
        let mut found: Vec<_> =
            healthy.map(|entry| (entry.id.distance(target), entry.contact)).collect();
        found.sort_unstable();
        found.into_iter().take(count).map(|(_, contact)| contact).collect()
    }

    /// The entry whose key was proved the longest time ago.
    pub(super) fn stalest(&self) -> Option<(Contact, Time)> {
        let oldest = self.entries().min_by_key(|entry| entry.seen)?;
        Some((oldest.contact, oldest.seen))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::model::{KeyPair, Rng};

    fn contacts(count: u16) -> Vec<Contact> {
        let one = |port: u16| Contact {
            endpoint: Endpoint::new([127, 0, 0, 1].into(), port),
            key: KeyPair::generate(&mut Rng::seed_from_u64(port.into())).public(),
        };
        (1..=count).map(one).collect()
    }

    fn full() -> (Table, Vec<Contact>) {
        let all = contacts(400);
        let mut table = Table::new(all[0].id());
        for contact in &all {
            table.insert(*contact, Time::ZERO);
        }
        (table, all)
    }

    #[test]
    fn buckets_are_bounded_and_the_first_ones_stay() {
        let (mut table, all) = full();
        assert!(!table.knows(&all[0]), "nobody knows itself");
        assert!(table.buckets.values().all(|bucket| bucket.entries.len() <= BUCKET_SIZE));
        let far: Vec<_> = all.iter().filter(|it| table.place(&it.id()) == 0).copied().collect();
        assert!(far.len() > 100, "half of them share no bit");
        let known: Vec<_> = far.iter().filter(|it| table.knows(it)).collect();
        assert_eq!(known, far[..BUCKET_SIZE].iter().collect::<Vec<_>>());
        // One that fails makes room, for the newcomer that came last.
        table.failed(far[3].endpoint);
        assert!(table.knows(&far[3]), "once is no failure");
        assert!(!table.closest(&far[3].id(), 1).contains(&far[3]), "but it is not passed on");
        table.failed(far[3].endpoint);
        assert!(!table.knows(&far[3]) && table.knows(&far[far.len() - 1]));
    }

    #[test]
    fn the_closest_are_those_that_a_full_search_finds() {
        let (table, all) = full();
        for target in all.iter().take(50) {
            let mut expected: Vec<_> = table.contacts().collect();
            expected.sort_by_key(|it| it.id().distance(&target.id()));
            expected.truncate(CONTACTS_MAX);
            assert_eq!(table.closest(&target.id(), CONTACTS_MAX), expected);
        }
    }

    #[test]
    fn an_endpoint_and_a_key_have_one_entry_each() {
        let all = contacts(3);
        let mut table = Table::new(all[0].id());
        table.insert(all[1], Time::ZERO);
        let other_key = Contact { endpoint: all[1].endpoint, key: all[2].key };
        table.insert(other_key, Time::ZERO);
        assert!(table.knows(&other_key) && table.len() == 1);
        table.insert(all[2], Time::ZERO);
        assert!(table.knows(&all[2]) && table.len() == 1);
    }

    #[test]
    fn a_newcomer_that_waits_is_dropped_when_it_fails_like_an_entry() {
        let (mut table, all) = full();
        let far: Vec<_> = all.iter().filter(|it| table.place(&it.id()) == 0).copied().collect();
        let newcomer = far[far.len() - 1].endpoint;
        table.failed(newcomer);
        table.failed(newcomer);
        table.remove(far[0].endpoint);
        assert!(!table.knows(&far[far.len() - 1]));
        assert!(table.has_room(&far[BUCKET_SIZE].id()), "the place is free for a live one");
    }

    #[test]
    fn a_newcomer_that_waits_is_over_when_its_endpoint_has_another_key() {
        let (mut table, all) = full();
        let far: Vec<_> = all.iter().filter(|it| table.place(&it.id()) == 0).copied().collect();
        let near = all.iter().find(|it| table.place(&it.id()) == 5).expect("one of 400 is");
        let newcomer = far[far.len() - 1];
        let restarted = Contact { endpoint: newcomer.endpoint, key: near.key };
        table.insert(restarted, Time::ZERO);
        table.remove(far[0].endpoint);
        let there: Vec<_> =
            table.contacts().filter(|it| it.endpoint == newcomer.endpoint).collect();
        assert_eq!(there, [restarted], "an endpoint has one entry");
    }
}
