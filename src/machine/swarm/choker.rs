//! The choker: chooses the neighbors to serve, k preferred ones and one optimistic one.
//!
//! Invariant (S3): at most k + 1 neighbors are unchoked, also between two effects, because a
//! neighbor that loses its place is choked before another is unchoked. The choker only assigns the
//! places; uploads are decided elsewhere.

use std::collections::BTreeSet;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use crate::machine::LinkId;
use crate::model::Rng;
use crate::proto::swarm::PeerId;

/// An interested neighbor, and the bytes that came from it in the last interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) link: LinkId,
    pub(super) credit: u64,
}

/// Changes that follow from a choice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Links to choke, which comes first.
    pub(super) choke: Vec<LinkId>,
    /// Links to unchoke.
    pub(super) unchoke: Vec<LinkId>,
    /// True if the preferred neighbors are others than before.
    pub(super) preferred: bool,
    /// True if the optimistic neighbor is another than before.
    pub(super) optimistic: bool,
}

/// Neighbors with a place: preferred, or optimistic.
#[derive(Debug)]
pub(super) struct Choker {
    k: usize,
    preferred: BTreeSet<LinkId>,
    optimistic: Option<LinkId>,
    /// True if a choice was made.
    has_chosen: bool,
    /// Preferred peers, as last told.
    told: Vec<PeerId>,
}

impl Choker {
    pub(super) const fn new(k: usize) -> Self {
        Self {
            k,
            preferred: BTreeSet::new(),
            optimistic: None,
            has_chosen: false,
            told: Vec::new(),
        }
    }

    pub(super) const fn has_chosen(&self) -> bool {
        self.has_chosen
    }

    /// Notes the preferred peers. Returns true if they are news.
    pub(super) fn tell(&mut self, preferred: &[PeerId]) -> bool {
        let is_news = self.told != preferred;
        if is_news {
            self.told = preferred.to_vec();
        }
        is_news
    }

    pub(super) fn is_unchoked(&self, link: LinkId) -> bool {
        self.preferred.contains(&link) || self.optimistic == Some(link)
    }

    pub(super) const fn preferred(&self) -> &BTreeSet<LinkId> {
        &self.preferred
    }

    pub(super) const fn optimistic(&self) -> Option<LinkId> {
        self.optimistic
    }

    fn unchoked(&self) -> BTreeSet<LinkId> {
        self.preferred.iter().chain(&self.optimistic).copied().collect()
    }

    /// Carries out `change`. Returns the changes that it made.
    fn changing(&mut self, change: impl FnOnce(&mut Self)) -> Changes {
        let (before, preferred) = (self.unchoked(), self.preferred.clone());
        let optimistic = self.optimistic;
        change(self);
        let after = self.unchoked();
        assert!(after.len() <= self.k + 1, "S3: at most k + 1 are unchoked");
        Changes {
            choke: before.difference(&after).copied().collect(),
            unchoke: after.difference(&before).copied().collect(),
            preferred: preferred != self.preferred,
            optimistic: optimistic != self.optimistic,
        }
    }

    /// Chooses the preferred neighbors anew: those with the highest credit, ties at random; all at
    /// random if `is_complete`, because there is nothing to give credit for.
    pub(super) fn choose(
        &mut self,
        mut candidates: Vec<Candidate>,
        is_complete: bool,
        rng: &mut Rng,
    ) -> Changes {
        self.has_chosen = true;
        candidates.shuffle(rng);
        if !is_complete {
            // Stable, so that ties stay shuffled.
            candidates.sort_by_key(|it| std::cmp::Reverse(it.credit));
        }
        self.changing(|it| it.preferred = candidates.iter().take(it.k).map(|it| it.link).collect())
    }

    /// Chooses the optimistic neighbor anew among those of `interested` that are choked. If there
    /// are none, the present one keeps the place as long as it is interested.
    pub(super) fn choose_optimistic(&mut self, interested: &[LinkId], rng: &mut Rng) -> Changes {
        let choked: Vec<_> = interested.iter().filter(|it| !self.is_unchoked(**it)).collect();
        let chosen = match choked.len() {
            0 => self.optimistic.filter(|it| interested.contains(it)),
            count => Some(*choked[rng.random_range(0..count)]),
        };
        self.changing(|it| it.optimistic = chosen)
    }

    /// Gives `link` a place at once, if one is free; where `takes_others`, also that of a neighbor
    /// that is not interested, or the optimistic one's.
    pub(super) fn grant_slot(
        &mut self,
        link: LinkId,
        takes_others: bool,
        is_interested: impl Fn(LinkId) -> bool,
    ) -> Changes {
        self.changing(|it| {
            if it.is_unchoked(link) {
                return;
            }
            // A preferred neighbor that is not interested gives up its place.
            let idle = it.preferred.iter().copied().find(|other| !is_interested(*other));
            if let Some(idle) = idle.filter(|_| takes_others && it.preferred.len() >= it.k) {
                it.preferred.remove(&idle);
            }
            if it.preferred.len() < it.k {
                it.preferred.insert(link);
            } else if takes_others && !it.optimistic.is_some_and(&is_interested) {
                it.optimistic = Some(link);
            }
        })
    }

    /// Frees the places of a neighbor that is gone.
    pub(super) fn remove(&mut self, link: LinkId) {
        self.preferred.remove(&link);
        self.optimistic = self.optimistic.filter(|it| *it != link);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn links(range: std::ops::Range<u64>) -> Vec<LinkId> {
        range.map(LinkId).collect()
    }

    fn candidates(credits: &[u64]) -> Vec<Candidate> {
        let all = (0..).zip(credits);
        all.map(|(link, credit)| Candidate { link: LinkId(link), credit: *credit }).collect()
    }

    #[test]
    fn the_best_feeders_are_preferred_and_ties_are_drawn() {
        let mut seen = BTreeSet::new();
        for seed in 0..50 {
            let mut choker = Choker::new(2);
            let mut rng = Rng::seed_from_u64(seed);
            choker.choose(candidates(&[5, 900, 5, 0]), false, &mut rng);
            assert!(choker.preferred.contains(&LinkId(1)));
            assert!(!choker.preferred.contains(&LinkId(3)), "it gave less than others");
            seen.extend(choker.preferred.clone());
        }
        assert_eq!(seen, BTreeSet::from([LinkId(0), LinkId(1), LinkId(2)]));
    }

    #[test]
    fn with_a_complete_file_anybody_may_be_preferred() {
        let seen: BTreeSet<_> = (0..50)
            .flat_map(|seed| {
                let mut choker = Choker::new(1);
                choker.choose(candidates(&[900, 0, 5]), true, &mut Rng::seed_from_u64(seed));
                choker.preferred
            })
            .collect();
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn whoever_stays_is_not_unchoked_again_and_the_optimistic_is_not_choked() {
        let (mut choker, mut rng) = (Choker::new(1), Rng::seed_from_u64(7));
        let first = choker.choose(candidates(&[9, 1]), false, &mut rng);
        assert_eq!((first.unchoke, first.choke), (vec![LinkId(0)], vec![]));
        let second = choker.choose_optimistic(&links(0..2), &mut rng);
        assert_eq!((second.unchoke, second.choke), (vec![LinkId(1)], vec![]));
        assert_eq!(choker.choose(candidates(&[9, 1]), false, &mut rng), Changes::default());
        let swap = choker.choose(candidates(&[1, 9]), false, &mut rng);
        assert_eq!((swap.unchoke, swap.choke), (vec![], vec![LinkId(0)]));
        let back = choker.choose(candidates(&[9, 1]), false, &mut rng);
        assert_eq!((back.unchoke, back.choke), (vec![LinkId(0)], vec![]), "1 is optimistic still");
    }

    #[test]
    fn the_optimistic_place_goes_round_among_the_choked() {
        let (mut choker, mut rng) = (Choker::new(1), Rng::seed_from_u64(7));
        choker.choose(candidates(&[9, 1, 1]), false, &mut rng);
        for _ in 0..20 {
            let before = choker.optimistic;
            choker.choose_optimistic(&links(0..3), &mut rng);
            assert_ne!(choker.optimistic, before);
            assert_ne!(choker.optimistic, Some(LinkId(0)));
        }
        let kept = choker.optimistic.unwrap();
        choker.choose_optimistic(&[LinkId(0), kept], &mut rng);
        assert_eq!(choker.optimistic, Some(kept), "nobody else wants it");
        choker.choose_optimistic(&[LinkId(0)], &mut rng);
        assert_eq!(choker.optimistic, None, "it wants nothing any more");
    }

    #[test]
    fn a_place_of_somebody_idle_is_given_away() {
        let mut choker = Choker::new(2);
        for link in 0..5 {
            choker.grant_slot(LinkId(link), true, |_| true);
        }
        assert_eq!(choker.unchoked(), BTreeSet::from([LinkId(0), LinkId(1), LinkId(2)]));
        let moved = choker.grant_slot(LinkId(4), true, |link| link != LinkId(1));
        assert_eq!((moved.choke, moved.unchoke), (vec![LinkId(1)], vec![LinkId(4)]));
    }
}
