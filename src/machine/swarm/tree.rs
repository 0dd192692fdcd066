//! The tree of hashes over the pieces of a share: a peer that knows its root can check every piece.
//!
//! A leaf is SHA-256(0x00 ‖ piece), a node SHA-256(0x01 ‖ left ‖ right); leaves are filled up with
//! zero hashes to a power of two. Content of one piece has its leaf as the root, empty content
//! SHA-256(0x00).
//!
//! Invariants: every hash in here leads to the root. Leaves come and go in aligned runs of
//! [`RUN_MAX`] (of all, if there are fewer), each with the hashes that lead up to the root; a run
//! is known wholly or not at all.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::proto::swarm::{Hash, PieceIndex, RUN_MAX};

/// Hash that stands where there is no piece.
const NO_HASH: Hash = [0; 32];

/// Returns the hash of a piece.
pub fn leaf_hash(piece: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(piece).finalize().into()
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Returns the hashes one level up.
fn level_up(hashes: &[Hash]) -> Vec<Hash> {
    hashes.chunks(2).map(|pair| node_hash(&pair[0], &pair[1])).collect()
}

/// The known part of a tree.
#[derive(Clone, Debug)]
pub struct Tree {
    count: u32,
    width: u32,
    root: Hash,
    runs: BTreeMap<u32, Vec<Hash>>,
    /// Hashes above the runs, by level (leaves are level 0) and place.
    upper: BTreeMap<(u32, u32), Hash>,
}

impl Tree {
    /// Creates the tree over `count` pieces of which only the root is known.
    pub fn of_root(count: u32, root: Hash) -> Self {
        let width = count.max(1).next_power_of_two();
        let mut tree = Self { count, width, root, runs: BTreeMap::new(), upper: BTreeMap::new() };
        if width == 1 {
            tree.runs.insert(0, vec![root]);
        }
        tree
    }

    /// Creates the whole tree over pieces with these hashes.
    pub fn of_leaves(leaves: &[Hash]) -> Self {
        let count = u32::try_from(leaves.len()).expect("pieces are counted in 32 bits");
        let mut tree = Self::of_root(count, NO_HASH);
        let run = tree.run_len();
        tree.runs.clear();
        let mut level = Vec::new();
        for first in (0..tree.width).step_by(run as usize) {
            let of_run = |at: u32| leaves.get(at as usize).copied().unwrap_or(NO_HASH);
            let mut hashes: Vec<_> = (first..first + run).map(of_run).collect();
            if count == 0 {
                hashes = vec![leaf_hash(&[])];
            }
            level.push(fold(&hashes));
            if first < count.max(1) {
                tree.runs.insert(first, hashes);
            }
        }
        let mut height = run.ilog2();
        while level.len() > 1 {
            let places = (0..).zip(&level);
            tree.upper.extend(places.map(|(place, hash)| ((height, place), *hash)));
            level = level_up(&level);
            height += 1;
        }
        tree.root = level[0];
        tree
    }

    /// Root of the tree.
    pub const fn root(&self) -> Hash {
        self.root
    }

    /// Number of pieces that the tree is over.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The hash of a piece, if it is known.
    pub fn leaf(&self, index: PieceIndex) -> Option<Hash> {
        let first = index.0 / self.run_len() * self.run_len();
        let run = self.runs.get(&first).filter(|_| index.0 < self.count)?;
        run.get((index.0 - first) as usize).copied()
    }

    /// Number of leaves in one run.
    pub fn run_len(&self) -> u32 {
        self.width.min(RUN_MAX)
    }

    /// True if every leaf is known.
    pub fn is_whole(&self) -> bool {
        self.runs.len() == self.count.max(1).div_ceil(self.run_len()) as usize
    }

    /// The first leaves of the runs that are not known.
    pub fn missing(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        let firsts = (0..self.count.max(1)).step_by(self.run_len() as usize);
        firsts.filter(|first| !self.runs.contains_key(first)).map(PieceIndex)
    }

    /// Returns `count` leaves from `first` on, and the hashes that lead from them to the root, if
    /// they are known and `count` is a power of two up to [`RUN_MAX`] and divides `first`.
    pub fn prove(&self, first: PieceIndex, count: u32) -> Option<(Vec<Hash>, Vec<Hash>)> {
        let run = self.run_len();
        if !count.is_power_of_two() || count > run || !first.0.is_multiple_of(count) {
            return None;
        }
        let base = first.0 / run * run;
        let known = self.runs.get(&base)?;
        let at = (first.0 - base) as usize;
        let leaves = known.get(at..at + count as usize)?.to_vec();
        let mut uncles = Vec::new();
        let (mut level, mut place, mut height) = (known.clone(), first.0 - base, 0);
        while level.len() > 1 {
            if height >= count.ilog2() {
                uncles.push(level[(place ^ 1) as usize]);
            }
            level = level_up(&level);
            place /= 2;
            height += 1;
        }
        place = base / run;
        while (1 << height) < self.width {
            uncles.push(*self.upper.get(&(height, place ^ 1))?);
            place /= 2;
            height += 1;
        }
        Some((leaves, uncles))
    }

    /// Takes the run that begins at `first`, if it leads to the root.
    ///
    /// # Errors
    /// The reason in words, if it does not: its sender lies or is broken.
    pub fn accept(
        &mut self,
        first: PieceIndex,
        leaves: Vec<Hash>,
        uncles: &[Hash],
    ) -> Result<(), &'static str> {
        let run = self.run_len();
        let height = run.ilog2();
        let is_run = first.0.is_multiple_of(run) && first.0 < self.count.max(1);
        if !is_run || leaves.len() != run as usize {
            return Err("these hashes are no run");
        }
        if uncles.len() != (self.width.ilog2() - height) as usize {
            return Err("these hashes have too few or too many above them");
        }
        let (mut hash, mut place) = (fold(&leaves), first.0 / run);
        let mut found = Vec::new();
        for (height, uncle) in (height..).zip(uncles) {
            found.push(((height, place), hash));
            found.push(((height, place ^ 1), *uncle));
            hash = match place % 2 {
                0 => node_hash(&hash, uncle),
                _ => node_hash(uncle, &hash),
            };
            place /= 2;
        }
        if hash != self.root {
            return Err("these hashes do not lead to the root");
        }
        self.upper.extend(found);
        self.runs.insert(first.0, leaves);
        Ok(())
    }
}

/// Returns the root over a power of two of hashes.
fn fold(hashes: &[Hash]) -> Hash {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level_up(&level);
    }
    level[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u32) -> Vec<Hash> {
        (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    #[test]
    fn small_trees_are_what_the_rule_says() {
        let two = leaves(2);
        assert_eq!(Tree::of_leaves(&two).root(), node_hash(&two[0], &two[1]));
        let three = leaves(3);
        let right = node_hash(&three[2], &NO_HASH);
        let root = node_hash(&node_hash(&three[0], &three[1]), &right);
        assert_eq!(Tree::of_leaves(&three).root(), root);
        assert_eq!(Tree::of_leaves(&three[..1]).root(), three[0]);
        let empty = Tree::of_leaves(&[]);
        assert_eq!(empty.root(), leaf_hash(&[]));
        assert!(empty.is_whole() && Tree::of_root(0, empty.root()).is_whole());
        assert_eq!(empty.leaf(PieceIndex(0)), None);
    }

    #[test]
    fn a_tree_grows_from_its_root_run_by_run_and_can_be_passed_on() {
        for count in [1, 2, 3, 5, 1_023, 1_024, 1_025, 2_048, 5_000] {
            let whole = Tree::of_leaves(&leaves(count));
            let mut grown = Tree::of_root(count, whole.root());
            let mut passed = grown.clone();
            for first in grown.missing().collect::<Vec<_>>() {
                let (hashes, uncles) = whole.prove(first, whole.run_len()).unwrap();
                grown.accept(first, hashes, &uncles).unwrap();
                // The hashes that one run needs above it came with it.
                let (hashes, uncles) = grown.prove(first, whole.run_len()).unwrap();
                passed.accept(first, hashes, &uncles).unwrap();
            }
            assert!(grown.is_whole() && passed.is_whole(), "{count}");
            for index in (0..count).map(PieceIndex) {
                assert_eq!(passed.leaf(index), whole.leaf(index));
            }
        }
    }

    #[test]
    fn what_does_not_lead_to_the_root_is_refused() {
        let whole = Tree::of_leaves(&leaves(3_000));
        let first = PieceIndex(1_024);
        let (hashes, uncles) = whole.prove(first, 1_024).unwrap();
        let mut tree = Tree::of_root(3_000, whole.root());
        let mut false_leaf = hashes.clone();
        false_leaf[7][0] ^= 1;
        assert!(tree.accept(first, false_leaf, &uncles).is_err());
        let mut false_uncle = uncles.clone();
        false_uncle[1][31] ^= 1;
        assert!(tree.accept(first, hashes.clone(), &false_uncle).is_err());
        assert!(tree.accept(PieceIndex(0), hashes.clone(), &uncles).is_err(), "another run");
        assert!(tree.accept(first, hashes.clone(), &uncles[1..]).is_err());
        assert!(tree.accept(first, hashes[1..].to_vec(), &uncles).is_err());
        assert!(tree.accept(PieceIndex(1), hashes.clone(), &uncles).is_err());
        assert!(tree.accept(PieceIndex(4_096), hashes.clone(), &uncles).is_err());
        assert_eq!(tree.leaf(first), None);
        tree.accept(first, hashes, &uncles).unwrap();
        assert_eq!(tree.leaf(first), whole.leaf(first));
    }

    #[test]
    fn small_runs_are_proved_too_and_odd_questions_are_not_answered() {
        let whole = Tree::of_leaves(&leaves(5_000));
        let (hashes, uncles) = whole.prove(PieceIndex(1_028), 4).unwrap();
        let (mut hash, mut place) = (fold(&hashes), 1_028 / 4);
        for uncle in &uncles {
            hash = match place % 2 {
                0 => node_hash(&hash, uncle),
                _ => node_hash(uncle, &hash),
            };
            place /= 2;
        }
        assert_eq!(hash, whole.root());
        for (first, count) in [(0, 0), (0, 3), (2, 4), (0, 2_048), (5_120, 1_024), (u32::MAX, 1)] {
            assert_eq!(whole.prove(PieceIndex(first), count), None, "{first} {count}");
        }
    }
}
