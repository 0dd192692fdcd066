//! Bundles and changes that have no place yet, and the choice among them (rules B18, B27).
//!
//! Invariant: each author has its own share; one that sends too much fills only that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::config::{Config, POOL_BUNDLES_MAX};
use super::ledger::Marks;
use crate::proto::bft::header::{SLOT_BUNDLES_MAX, SLOT_COST_MAX};
use crate::proto::bft::{Bundle, Committee, ContentDigest, MembershipChange};
use crate::proto::chat::entry::MemberId;

/// Greatest number of changes that wait.
const CHANGES_MAX: usize = 128;

/// A bundle that has no place yet.
#[derive(Debug)]
struct PooledBundle {
    bundle: Arc<Bundle>,
    cost: usize,
    /// Number in the order of arrival.
    arrival: u64,
    /// Number of slots that this member accepted while the bundle was due and that left it out.
    passed: u64,
    /// True once the leader was shown the bundle for that reason.
    is_shown: bool,
}

/// Verdict on a bundle that was left out (B18).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PassedOver {
    /// The leader is to be shown this bundle: perhaps it has never got it.
    Show(Arc<Bundle>),
    /// The leader leaves out this author, who is to have another leader.
    Suspect(MemberId),
}

/// Bundles and changes that have no place yet.
#[derive(Debug, Default)]
pub(super) struct Pool {
    bundles: BTreeMap<ContentDigest, PooledBundle>,
    /// Digests by author, in the order of arrival.
    authors: BTreeMap<MemberId, BTreeMap<u64, ContentDigest>>,
    arrivals: u64,
    changes: BTreeMap<ContentDigest, Arc<MembershipChange>>,
    /// Contents that were asked for: they are taken even where an author's share is used up.
    wanted: BTreeSet<ContentDigest>,
}

impl Pool {
    /// The bundle of this digest.
    pub(super) fn bundle(&self, digest: &ContentDigest) -> Option<&Arc<Bundle>> {
        Some(&self.bundles.get(digest)?.bundle)
    }

    /// The change of this digest.
    pub(super) fn change(&self, digest: &ContentDigest) -> Option<&Arc<MembershipChange>> {
        self.changes.get(digest)
    }

    /// Marks contents as asked for; they replace those asked for before.
    pub(super) fn want(&mut self, digests: impl IntoIterator<Item = ContentDigest>) {
        self.wanted = digests.into_iter().collect();
    }

    /// True if the bundle would be taken: it is new, and its author has room, or would have without
    /// bundles that can have no place before it.
    pub(super) fn takes(
        &self,
        (digest, bundle): (&ContentDigest, &Bundle),
        marks: &Marks,
        share: usize,
    ) -> bool {
        if self.bundles.contains_key(digest) {
            return false;
        }
        let Some(own) = self.authors.get(&bundle.author) else { return true };
        let used: usize = own.values().map(|it| self.bundles[it].cost).sum();
        let has_room = own.len() < POOL_BUNDLES_MAX && used + bundle.cost() <= share;
        has_room
            || self.wanted.contains(digest)
            || marks.skip(bundle).is_some() && self.newest_gapped(bundle.author, marks).is_some()
    }

    /// Bytes that are kept of each author.
    pub(super) fn share(config: &Config, members: usize) -> usize {
        (config.pool_bytes / members.max(1)).clamp(1 << 20, 16 << 20)
    }

    /// The author's newest bundle that cannot have the next place.
    fn newest_gapped(&self, author: MemberId, marks: &Marks) -> Option<ContentDigest> {
        let own = self.authors.get(&author)?.values().rev();
        own.copied().find(|it| marks.skip(&self.bundles[it].bundle).is_none())
    }

    /// Makes an author's bundles fit its share again, at the cost of those that cannot have the
    /// next place: else an author that fills its share with these at the leader, and tells others
    /// what can, would have them suspect the leader.
    pub(super) fn shrink(&mut self, author: MemberId, marks: &Marks, share: usize) {
        while let Some(own) = self.authors.get(&author) {
            let used: usize = own.values().map(|it| self.bundles[it].cost).sum();
            let is_over = own.len() > POOL_BUNDLES_MAX || used > share;
            let gapped = self.newest_gapped(author, marks).filter(|_| is_over);
            let Some(digest) = gapped else { return };
            self.remove(&digest);
        }
    }

    /// Adds a bundle whose author has signed it.
    pub(super) fn add(&mut self, digest: ContentDigest, bundle: Arc<Bundle>) {
        self.arrivals += 1;
        let arrival = self.arrivals;
        self.wanted.remove(&digest);
        self.authors.entry(bundle.author).or_default().insert(arrival, digest);
        let cost = bundle.cost();
        let pooled = PooledBundle { bundle, cost, arrival, passed: 0, is_shown: false };
        if let Some(old) = self.bundles.insert(digest, pooled) {
            self.forget_arrival(&old);
        }
    }

    /// True if the change would be taken: it is new, there is room, and no other renewal of its
    /// member waits, unless the member itself says another one.
    pub(super) fn takes_change(
        &self,
        from: Option<MemberId>,
        digest: &ContentDigest,
        change: &MembershipChange,
    ) -> bool {
        let member = renewed(change);
        let waits = member.is_some_and(|it| from != Some(it) && self.renews(it));
        !self.changes.contains_key(digest)
            && (self.wanted.contains(digest) || !waits && self.changes.len() < CHANGES_MAX)
    }

    /// Adds a change that is valid now. A renewal takes the place of another one of its member.
    pub(super) fn add_change(&mut self, digest: ContentDigest, change: Arc<MembershipChange>) {
        self.wanted.remove(&digest);
        if let Some(member) = renewed(&change) {
            self.changes.retain(|_, it| renewed(it) != Some(member));
        }
        self.changes.insert(digest, change);
    }

    /// True if a new life of this member waits for its slot.
    pub(super) fn renews(&self, member: MemberId) -> bool {
        self.changes.values().any(|it| renewed(it) == Some(member))
    }

    /// Changes that wait, in the order of their digests.
    pub(super) fn changes(&self) -> impl Iterator<Item = &Arc<MembershipChange>> {
        self.changes.values()
    }

    /// Removes what can have no place any more behind this state.
    pub(super) fn prune(&mut self, marks: &Marks, authors: impl IntoIterator<Item = MemberId>) {
        for author in authors {
            let Some(own) = self.authors.get(&author) else { continue };
            let is_over = |digest: &&ContentDigest| {
                let bundle = &self.bundles[*digest].bundle;
                marks.last(bundle.origin()).is_none_or(|last| bundle.last() <= last)
            };
            for digest in own.values().filter(is_over).copied().collect::<Vec<_>>() {
                self.remove(&digest);
            }
        }
    }

    /// Removes what is void in a new epoch: all changes, and the bundles of those that are no
    /// members with the same key any more.
    pub(super) fn begin_epoch(&mut self, before: &Committee, after: &Committee) {
        self.changes.clear();
        let is_out = |id: &MemberId| before.key(*id) != after.key(*id);
        let out: Vec<_> = self.authors.keys().filter(|id| is_out(id)).copied().collect();
        for author in out {
            for digest in self.authors.remove(&author).unwrap_or_default().values() {
                self.bundles.remove(digest);
            }
        }
    }

    /// Bundles and bytes of the author that has most of them, number of authors, and of changes.
    #[cfg(feature = "fault-injection")]
    pub(super) fn sizes(&self) -> (usize, usize, usize, usize) {
        let bytes = |own: &BTreeMap<u64, ContentDigest>| -> usize {
            own.values().map(|it| self.bundles[it].cost).sum()
        };
        let most = self.authors.values().map(BTreeMap::len).max().unwrap_or_default();
        let longest = self.authors.values().map(bytes).max().unwrap_or_default();
        (most, longest, self.authors.len(), self.changes.len())
    }

    fn remove(&mut self, digest: &ContentDigest) {
        if let Some(old) = self.bundles.remove(digest) {
            self.forget_arrival(&old);
        }
    }

    fn forget_arrival(&mut self, old: &PooledBundle) {
        if let Some(own) = self.authors.get_mut(&old.bundle.author) {
            own.remove(&old.arrival);
            if own.is_empty() {
                self.authors.remove(&old.bundle.author);
            }
        }
    }

    /// The author's oldest bundle that can have the next place.
    fn due(&self, author: MemberId, marks: &Marks) -> Option<(ContentDigest, &PooledBundle)> {
        let mut own = self.authors.get(&author)?.values();
        own.find_map(|digest| {
            let pooled = &self.bundles[digest];
            marks.skip(&pooled.bundle).map(|_| (*digest, pooled))
        })
    }

    /// The oldest bundle of each author that can have the next place.
    pub(super) fn all_due(&self, marks: &Marks) -> impl Iterator<Item = &Arc<Bundle>> {
        let due = |author: &MemberId| Some(&self.due(*author, marks)?.1.bundle);
        self.authors.keys().filter_map(due)
    }

    /// True if a bundle can have the next place.
    pub(super) fn has_due(&self, marks: &Marks) -> bool {
        self.authors.keys().any(|author| self.due(*author, marks).is_some())
    }

    /// Bundles for the next slot: of each author the oldest that is due, then again while there is
    /// room. Authors take turns in being first.
    pub(super) fn choose(
        &self,
        marks: &Marks,
        turn: u64,
        leaves_out: Option<MemberId>,
    ) -> Vec<(ContentDigest, Arc<Bundle>)> {
        let mut marks = marks.clone();
        let mut authors: Vec<_> = self.authors.keys().copied().collect();
        authors.retain(|it| leaves_out != Some(*it));
        if authors.is_empty() {
            return Vec::new();
        }
        let first = usize::try_from(turn % authors.len() as u64).unwrap_or_default();
        authors.rotate_left(first);
        let (mut chosen, mut cost) = (Vec::new(), 0);
        loop {
            let before = chosen.len();
            for author in &authors {
                let Some((digest, pooled)) = self.due(*author, &marks) else { continue };
                if cost + pooled.cost > SLOT_COST_MAX || chosen.len() == SLOT_BUNDLES_MAX {
                    continue;
                }
                cost += pooled.cost;
                marks.note(&pooled.bundle);
                chosen.push((digest, Arc::clone(&pooled.bundle)));
            }
            if chosen.len() == before {
                return chosen;
            }
        }
    }

    /// Notes that this member has accepted a slot behind this state, which places something of
    /// `placed`; tells which authors were left out too often (B18). An author that has something in
    /// a slot is not left out, whichever of its bundles came here first.
    pub(super) fn on_accepted(
        &mut self,
        marks: &Marks,
        placed: &BTreeSet<MemberId>,
        limit: u64,
    ) -> Vec<PassedOver> {
        let mut verdicts = Vec::new();
        let authors: Vec<_> = self.authors.keys().copied().collect();
        for author in authors.into_iter().filter(|it| !placed.contains(it)) {
            let Some((digest, _)) = self.due(author, marks) else { continue };
            let Some(pooled) = self.bundles.get_mut(&digest) else { continue };
            pooled.passed += 1;
            if pooled.passed == limit && !pooled.is_shown {
                pooled.is_shown = true;
                verdicts.push(PassedOver::Show(Arc::clone(&pooled.bundle)));
            } else if pooled.passed == 2 * limit {
                pooled.passed = 0;
                pooled.is_shown = false;
                verdicts.push(PassedOver::Suspect(author));
            }
        }
        verdicts
    }
}

/// Member that a change gives a new life.
fn renewed(change: &MembershipChange) -> Option<MemberId> {
    match change {
        MembershipChange::Renew { member, .. } => Some(*member),
        MembershipChange::Add { .. } | MembershipChange::Remove { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::model::{KeyPair, Rng};
    use crate::proto::bft::{BundleItem, Life, OrderId};
    use crate::proto::chat::entry::Origin;

    const AUTHOR: MemberId = MemberId(4);
    const SHARE: usize = 1 << 20;

    /// A bundle of one message of the author, with its digest.
    fn bundle(client: u64, first: u64) -> (ContentDigest, Arc<Bundle>) {
        let keys = KeyPair::generate(&mut Rng::seed_from_u64(4));
        let origin = Origin { member: AUTHOR, client };
        let items = vec![BundleItem { room: "text".into(), payload: "x".into() }];
        let group = OrderId([1; 32]);
        let bundle = Bundle::sign(&group, origin, first, items, &keys);
        (bundle.statement().digest(&group), Arc::new(bundle))
    }

    #[test]
    fn an_author_that_fills_its_share_with_gaps_has_room_for_what_can_be_placed() {
        let (mut pool, marks) = (Pool::default(), Marks::default());
        for client in 1..=POOL_BUNDLES_MAX as u64 {
            let (digest, gapped) = bundle(client, 2);
            assert!(pool.takes((&digest, &gapped), &marks, SHARE));
            pool.add(digest, gapped);
        }
        let (digest, gapped) = bundle(99, 2);
        assert!(!pool.takes((&digest, &gapped), &marks, SHARE));
        let (digest, due) = bundle(99, 1);
        assert!(pool.takes((&digest, &due), &marks, SHARE));
        pool.add(digest, due);
        pool.shrink(AUTHOR, &marks, SHARE);
        assert_eq!(pool.bundles.len(), POOL_BUNDLES_MAX);
        assert_eq!(
            pool.choose(&marks, 0, None),
            [(digest, Arc::clone(&pool.bundles[&digest].bundle))]
        );
        // Where all can be placed there is no room for more.
        let mut pool = Pool::default();
        for client in 1..=POOL_BUNDLES_MAX as u64 {
            let (digest, due) = bundle(client, 1);
            pool.add(digest, due);
        }
        let (digest, more) = bundle(99, 1);
        assert!(!pool.takes((&digest, &more), &marks, SHARE));
    }

    #[test]
    fn a_renewal_by_its_own_member_takes_the_place_of_an_older_one() {
        let keys = KeyPair::generate(&mut Rng::seed_from_u64(4));
        let group = OrderId([1; 32]);
        let renewal = |number| {
            let life = Life { counter: 1, number };
            let change = MembershipChange::renew(&group, AUTHOR, life, &keys);
            (change.digest(&group), change)
        };
        let (mut pool, (first, old), (digest, new)) = (Pool::default(), renewal(1), renewal(2));
        assert!(pool.takes_change(None, &first, &old));
        pool.add_change(first, Arc::new(old));
        assert!(!pool.takes_change(Some(MemberId(1)), &digest, &new), "others say it again");
        assert!(pool.takes_change(Some(AUTHOR), &digest, &new));
        pool.add_change(digest, Arc::new(new));
        assert!(pool.change(&first).is_none() && pool.change(&digest).is_some());
    }

    #[test]
    fn only_an_author_that_has_nothing_in_a_slot_is_passed_over() {
        let (mut pool, marks) = (Pool::default(), Marks::default());
        let (digest, due) = bundle(1, 1);
        pool.add(digest, Arc::clone(&due));
        // Others of its bundles have places: the leader has got them first.
        let placed = BTreeSet::from([AUTHOR]);
        assert!((0..9).all(|_| pool.on_accepted(&marks, &placed, 3).is_empty()));
        let others = BTreeSet::from([MemberId(1)]);
        let verdicts: Vec<_> = (0..6).flat_map(|_| pool.on_accepted(&marks, &others, 3)).collect();
        assert_eq!(verdicts, [PassedOver::Show(due), PassedOver::Suspect(AUTHOR)]);
    }
}
