//! A set of pieces, one bit each.
//!
//! Invariants: no bit is set behind the last piece; the number of set bits is always known. The
//! order of bits on the wire is that of the assignment: piece 0 is the high bit of the first byte.

use crate::proto::swarm::PieceIndex;

/// A set of pieces, out of a fixed number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

impl Bitfield {
    /// Returns the empty set out of `len` pieces.
    pub fn none(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len, ones: 0 }
    }

    /// Returns the set of all `len` pieces.
    pub fn all(len: u32) -> Self {
        let mut all = Self { words: vec![u64::MAX; len.div_ceil(64) as usize], len, ones: len };
        if let Some(last) = all.words.last_mut()
            && !len.is_multiple_of(64)
        {
            *last = (1 << (len % 64)) - 1;
        }
        all
    }

    /// Reads a set of `len` pieces from the wire. Returns it, and whether `bytes` are exactly as
    /// long as they should be with all spare bits zero. If they are not, bits without a piece are
    /// left out and pieces without a bit are not in the set.
    pub fn from_wire(len: u32, bytes: &[u8]) -> (Self, bool) {
        let mut found = Self::none(len);
        let mut spare = false;
        for (at, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            for bit in (0..8u32).filter(|bit| byte & (0x80 >> bit) != 0) {
                let index =
                    u32::try_from(at).ok().and_then(|at| at.checked_mul(8)?.checked_add(bit));
                match index.filter(|index| *index < len) {
                    Some(index) => {
                        found.set(PieceIndex(index));
                    }
                    None => spare = true,
                }
            }
        }
        let is_exact = bytes.len() == len.div_ceil(8) as usize && !spare;
        (found, is_exact)
    }

    /// Returns the bytes for the wire; the spare bits are zero.
    pub fn to_wire(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_le_bytes());
        bytes.map(u8::reverse_bits).take(self.len.div_ceil(8) as usize).collect()
    }

    /// Number of pieces, in the set or not.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Number of pieces in the set.
    pub const fn count(&self) -> u32 {
        self.ones
    }

    /// True if all pieces are in the set.
    pub const fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// True if no piece is in the set.
    pub const fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// True if a piece is in the set; false if there is no such piece.
    pub fn has(&self, index: PieceIndex) -> bool {
        index.0 < self.len && self.words[index.0 as usize / 64] & (1 << (index.0 % 64)) != 0
    }

    /// Adds a piece. Returns whether that changed the set. A piece that does not exist stays out.
    pub fn set(&mut self, index: PieceIndex) -> bool {
        let is_new = index.0 < self.len && !self.has(index);
        if is_new {
            self.words[index.0 as usize / 64] |= 1 << (index.0 % 64);
            self.ones += 1;
        }
        is_new
    }

    /// Removes a piece. Returns whether that changed the set.
    pub fn clear(&mut self, index: PieceIndex) -> bool {
        let was = self.has(index);
        if was {
            self.words[index.0 as usize / 64] &= !(1 << (index.0 % 64));
            self.ones -= 1;
        }
        was
    }

    /// The pieces in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words.iter().zip((0..).step_by(64)).flat_map(|(word, base)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(PieceIndex(base + bit))
            })
        })
    }

    /// Number of pieces that are in this set and not in `other`.
    pub fn count_without(&self, other: &Self) -> u32 {
        let pairs = self.words.iter().zip(&other.words);
        pairs.map(|(ours, theirs)| (ours & !theirs).count_ones()).sum()
    }

    /// The words, 64 pieces each, the first in the low bit.
    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_piece_is_the_high_bit_of_the_first_byte() {
        let mut some = Bitfield::none(11);
        for index in [0, 6, 9] {
            assert!(some.set(PieceIndex(index)));
        }
        assert_eq!(some.to_wire(), [0b1000_0010, 0b0100_0000]);
        assert!(!some.set(PieceIndex(11)), "there is no such piece");
        assert_eq!(some.count(), 3);
    }

    #[test]
    fn all_pieces_leave_the_spare_bits_zero() {
        for len in [0, 1, 7, 8, 9, 63, 64, 65, 306] {
            let all = Bitfield::all(len);
            assert!(all.is_full());
            assert_eq!(all.iter().count(), len as usize);
            let (back, is_exact) = Bitfield::from_wire(len, &all.to_wire());
            assert_eq!((back, is_exact), (all, true), "{len}");
        }
    }

    #[test]
    fn odd_bitfields_say_what_they_can() {
        let says = |bytes: &[u8]| {
            let (found, is_exact) = Bitfield::from_wire(10, bytes);
            (found.iter().map(|it| it.0).collect::<Vec<_>>(), is_exact)
        };
        assert_eq!(says(&[0x80, 0x40]), (vec![0, 9], true));
        assert_eq!(says(&[0x80, 0x60]), (vec![0, 9], false), "a spare bit");
        assert_eq!(says(&[0x80]), (vec![0], false), "too short");
        assert_eq!(says(&[0x80, 0, 0]), (vec![0], false), "too long");
        assert_eq!(says(&[]), (vec![], false), "empty");
    }

    proptest! {
        #[test]
        fn a_bitfield_survives_the_wire(bits in prop::collection::vec(any::<bool>(), 0..300)) {
            let mut some = Bitfield::none(u32::try_from(bits.len()).unwrap());
            for (index, _) in (0..).zip(&bits).filter(|(_, bit)| **bit) {
                some.set(PieceIndex(index));
            }
            let (back, is_exact) = Bitfield::from_wire(some.len(), &some.to_wire());
            prop_assert!(is_exact);
            prop_assert_eq!(back.count() as usize, bits.iter().filter(|bit| **bit).count());
            prop_assert_eq!(back, some);
        }
    }
}
