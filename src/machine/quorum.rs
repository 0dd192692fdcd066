//! The arithmetic of quorums and of witnesses, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::SeedId;

/// Rule by which the size of a quorum of seeds follows from their number (M9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuorumRule {
    /// floor(n/2)+1: any two quorums share a seed. Enough when seeds crash but do not lie.
    #[default]
    Majority,
    /// ceil((n+f+1)/2) with f = floor((n-1)/3): any two quorums share an honest seed.
    Byzantine,
}

impl QuorumRule {
    /// Returns the number of distinct yes votes that decide among `seeds` configured seeds.
    ///
    /// Counted over the configured seeds, never over those that happen to be up. Zero seeds give
    /// an unreachable quorum of 1.
    pub const fn needed(self, seeds: usize) -> usize {
        match self {
            Self::Majority => majority(seeds),
            Self::Byzantine => {
                if seeds == 0 {
                    return 1;
                }
                let faulty = (seeds - 1) / 3;
                (seeds + faulty + 1).div_ceil(2)
            }
        }
    }
}

/// Smallest number of `n` that is more than half: floor(n/2)+1.
pub const fn majority(n: usize) -> usize {
    n / 2 + 1
}

/// Number of witnesses that must confirm a death, of an electorate of `electorate` neighbors that
/// can testify, when `others` members beside the suspect exist at all (M6, O5).
///
/// A majority of the neighbors; where fewer than two of those are left, two witnesses of any
/// kind, or as many as exist. A sole member has no witnesses: there the seeds' probes decide.
pub fn witnesses_needed(electorate: usize, others: usize) -> usize {
    if electorate >= 2 { majority(electorate) } else { others.min(2) }
}

/// State of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// There are enough yes votes; nothing can change that.
    Won,
    /// There are not enough yes votes, and too few open votes to get there.
    Lost,
    /// Neither is certain yet.
    Pending,
}

/// The votes on one proposal.
#[derive(Clone, Debug)]
pub struct Ballot {
    electorate: BTreeSet<SeedId>,
    needed: usize,
    votes: BTreeMap<SeedId, bool>,
}

impl Ballot {
    /// Creates a ballot among `electorate`, decided by `rule`.
    pub fn new(electorate: impl IntoIterator<Item = SeedId>, rule: QuorumRule) -> Self {
        let electorate: BTreeSet<_> = electorate.into_iter().collect();
        let needed = rule.needed(electorate.len());
        Self { electorate, needed, votes: BTreeMap::new() }
    }

    /// Counts a vote. A yes is final, a no may still become a yes; a voter outside the
    /// electorate changes nothing.
    pub fn cast(&mut self, voter: SeedId, yes: bool) -> Tally {
        if self.electorate.contains(&voter) {
            let vote = self.votes.entry(voter).or_insert(yes);
            *vote |= yes;
        }
        self.tally()
    }

    /// Returns the state of the vote.
    pub fn tally(&self) -> Tally {
        let yes = self.yes();
        let open = self.electorate.len() - self.votes.len();
        if yes >= self.needed {
            Tally::Won
        } else if yes + open >= self.needed {
            Tally::Pending
        } else {
            Tally::Lost
        }
    }

    /// Number of yes votes so far, of distinct voters.
    pub fn yes(&self) -> usize {
        self.votes.values().filter(|&&yes| yes).count()
    }

    /// Number of yes votes that decide.
    pub const fn needed(&self) -> usize {
        self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_are_as_the_rules_say() {
        let table = [
            // seeds, majority, byzantine
            (1, 1, 1),
            (2, 2, 2),
            (3, 2, 2),
            (4, 3, 3),
            (5, 3, 4),
            (6, 4, 4),
            (7, 4, 5),
            (10, 6, 7),
        ];
        for (seeds, majority, byzantine) in table {
            assert_eq!(QuorumRule::Majority.needed(seeds), majority, "{seeds} seeds");
            assert_eq!(QuorumRule::Byzantine.needed(seeds), byzantine, "{seeds} seeds");
        }
    }

    #[test]
    fn any_two_byzantine_quorums_share_an_honest_seed() {
        for seeds in 1..100_usize {
            let (quorum, faulty) = (QuorumRule::Byzantine.needed(seeds), (seeds - 1) / 3);
            assert!(2 * quorum > seeds + faulty, "{seeds} seeds");
            assert!(quorum <= seeds - faulty || seeds < 4, "{seeds} seeds: must be reachable");
        }
    }

    #[test]
    fn witnesses_are_a_majority_or_two_or_all_there_are() {
        let table = [(0, 0, 0), (0, 1, 1), (0, 9, 2), (1, 1, 1), (1, 9, 2), (2, 9, 2), (5, 9, 3)];
        for (electorate, others, needed) in table {
            assert_eq!(witnesses_needed(electorate, others), needed, "{electorate} of {others}");
        }
    }

    #[test]
    fn every_combination_of_five_voters_is_counted_right() {
        let seeds: Vec<_> = (1..=5).map(SeedId).collect();
        for code in 0..3_u32.pow(5) {
            let mut ballot = Ballot::new(seeds.clone(), QuorumRule::Majority);
            let answers: Vec<_> = (0..5).map(|i| code / 3_u32.pow(i) % 3).collect();
            for (seed, answer) in seeds.iter().zip(&answers) {
                match answer {
                    0 => {}
                    1 => _ = ballot.cast(*seed, true),
                    _ => _ = ballot.cast(*seed, false),
                }
            }
            let count = |wanted| answers.iter().filter(|&&answer| answer == wanted).count();
            let expected = match (count(1), count(2)) {
                (3.., _) => Tally::Won,
                (_, 3..) => Tally::Lost,
                _ => Tally::Pending,
            };
            assert_eq!(ballot.tally(), expected, "{answers:?}");
        }
    }

    #[test]
    fn a_second_yes_of_the_same_voter_and_a_stranger_change_nothing() {
        let mut ballot = Ballot::new([SeedId(1), SeedId(2), SeedId(3)], QuorumRule::Majority);
        assert_eq!(ballot.cast(SeedId(1), true), Tally::Pending);
        assert_eq!(ballot.cast(SeedId(1), true), Tally::Pending);
        assert_eq!(ballot.cast(SeedId(9), true), Tally::Pending);
        assert_eq!(ballot.cast(SeedId(1), false), Tally::Pending, "a yes is final");
        assert_eq!(ballot.yes(), 1);
        assert_eq!(ballot.cast(SeedId(2), false), Tally::Pending);
        assert_eq!(ballot.cast(SeedId(2), true), Tally::Won, "a no may become a yes");
    }
}
