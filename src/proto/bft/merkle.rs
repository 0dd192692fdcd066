//! Hash tree over the items of a bundle, as RFC 6962 builds it.
//!
//! A leaf is SHA-256(0x00 ‖ item), a node SHA-256(0x01 ‖ left ‖ right): no leaf can be shown as a
//! node. The left half of a tree is the largest power of two that is smaller than the whole.

use sha2::{Digest as _, Sha256};

use super::number::ContentDigest;

/// Hash of one leaf.
#[must_use]
pub fn leaf(bytes: &[u8]) -> ContentDigest {
    ContentDigest(Sha256::new().chain_update([0]).chain_update(bytes).finalize().into())
}

fn node(left: ContentDigest, right: ContentDigest) -> ContentDigest {
    let hash = Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0);
    ContentDigest(hash.finalize().into())
}

/// Number of leaves in the left half of a tree of `count` leaves, at least two.
const fn left_half(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

/// Root of the tree over these leaves; SHA-256 of nothing if there are none.
#[must_use]
pub fn root(leaves: &[ContentDigest]) -> ContentDigest {
    match leaves {
        [] => ContentDigest(Sha256::digest([]).into()),
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(left_half(leaves.len()));
            node(root(left), root(right))
        }
    }
}

/// Siblings on the way from the leaf of this index to the root; `None` if there is no such leaf.
#[must_use]
pub fn path(leaves: &[ContentDigest], index: usize) -> Option<Vec<ContentDigest>> {
    if index >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let (left, right) = leaves.split_at(left_half(leaves.len()));
    let (inner, at, sibling) = if index < left.len() {
        (left, index, root(right))
    } else {
        (right, index - left.len(), root(left))
    };
    let mut way = path(inner, at)?;
    way.push(sibling);
    Some(way)
}

/// Root that a leaf at this index of `count` leaves leads to by these siblings; `None` if their
/// number is not that of such a tree.
#[must_use]
pub fn root_by(
    leaf: ContentDigest,
    (index, count): (usize, usize),
    way: &[ContentDigest],
) -> Option<ContentDigest> {
    if index >= count {
        return None;
    }
    if count == 1 {
        return way.is_empty().then_some(leaf);
    }
    let (sibling, inner) = way.split_last()?;
    let left = left_half(count);
    if index < left {
        Some(node(root_by(leaf, (index, left), inner)?, *sibling))
    } else {
        Some(node(*sibling, root_by(leaf, (index - left, count - left), inner)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_count_of_leaves_is_too_great_to_be_refused() {
        let (it, way) = (leaf(b"x"), [leaf(b"y"); 3]);
        for count in [usize::MAX, usize::MAX / 2 + 2, usize::MAX / 2 + 1, usize::MAX / 2] {
            assert_eq!(root_by(it, (0, count), &way), None);
            assert_eq!(root_by(it, (count - 1, count), &[]), None);
            assert_eq!(root_by(it, (count, count), &way), None);
        }
        assert_eq!(root_by(it, (0, 0), &[]), None);
    }

    #[test]
    fn every_leaf_of_every_small_tree_leads_to_its_root_and_to_no_other_place() {
        for count in 1..20_usize {
            let leaves: Vec<_> = (0..count).map(|it| leaf(&it.to_be_bytes())).collect();
            let top = root(&leaves);
            for (index, it) in leaves.iter().enumerate() {
                let way = path(&leaves, index).unwrap();
                assert_eq!(root_by(*it, (index, count), &way), Some(top), "{index} of {count}");
                for other in (0..count).filter(|other| *other != index) {
                    assert_ne!(root_by(*it, (other, count), &way), Some(top), "{index}: {other}");
                }
                let longer: Vec<_> = way.iter().copied().chain([top]).collect();
                assert_eq!(root_by(*it, (index, count), &longer), None);
            }
            assert_eq!(path(&leaves, count), None);
        }
    }
}
