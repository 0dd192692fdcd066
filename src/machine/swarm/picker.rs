//! The picker: chooses the piece that is asked for next.
//!
//! Invariants: only a piece that is wanted and that the neighbor has is picked, each of the
//! eligible with the same chance. Wanted are the pieces that are neither here, nor asked for, nor
//! being stored. Picking costs a few steps for every 64 pieces, never one for each.

use rand::RngExt as _;

use super::bitfield::Bitfield;
use super::config::PieceOrder;
use crate::model::Rng;
use crate::proto::swarm::PieceIndex;

/// Number of levels by which neighbors that have a piece are counted; a piece that more have
/// is not rare.
const LEVELS: usize = 16;

/// Wanted pieces, and the number of neighbors that have each piece.
#[derive(Debug)]
pub(super) struct Picker {
    wanted: Bitfield,
    order: PieceOrder,
    seen: Vec<u16>,
    levels: Vec<Bitfield>,
}

impl Picker {
    pub(super) fn new(order: PieceOrder, wanted: Bitfield) -> Self {
        let count = wanted.len();
        let (seen, levels) = match order {
            PieceOrder::Random => (Vec::new(), Vec::new()),
            PieceOrder::RarestFirst => {
                let mut levels = vec![Bitfield::none(count); LEVELS];
                levels[0] = Bitfield::all(count);
                (vec![0; count as usize], levels)
            }
        };
        Self { wanted, order, seen, levels }
    }

    pub(super) const fn wanted(&self) -> &Bitfield {
        &self.wanted
    }

    pub(super) fn want(&mut self, index: PieceIndex) {
        self.wanted.set(index);
    }

    pub(super) fn want_no_more(&mut self, index: PieceIndex) {
        self.wanted.clear(index);
    }

    /// Notes that one more neighbor has this piece.
    pub(super) fn appeared(&mut self, index: PieceIndex) {
        self.shift(index, |seen| seen.saturating_add(1));
    }

    /// Notes that a neighbor that had these pieces is gone.
    pub(super) fn lost(&mut self, pieces: &Bitfield) {
        for index in pieces.iter() {
            self.shift(index, |seen| seen.saturating_sub(1));
        }
    }

    fn shift(&mut self, index: PieceIndex, to: impl Fn(u16) -> u16) {
        let Some(seen) = self.seen.get_mut(index.0 as usize) else { return };
        let level = |seen: u16| usize::from(seen).min(LEVELS - 1);
        let old = level(*seen);
        *seen = to(*seen);
        let new = level(*seen);
        if old != new {
            self.levels[old].clear(index);
            self.levels[new].set(index);
        }
    }

    /// Picks a wanted piece among `theirs`.
    pub(super) fn pick(&self, theirs: &Bitfield, rng: &mut Rng) -> Option<PieceIndex> {
        match self.order {
            PieceOrder::Random => any_of(&self.wanted, theirs, None, rng),
            PieceOrder::RarestFirst => self
                .levels
                .iter()
                .filter(|level| !level.is_empty())
                .find_map(|level| any_of(&self.wanted, theirs, Some(level), rng)),
        }
    }
}

/// Picks one piece that is in all sets, each with the same chance.
fn any_of(a: &Bitfield, b: &Bitfield, c: Option<&Bitfield>, rng: &mut Rng) -> Option<PieceIndex> {
    let word =
        |at: usize| a.words()[at] & b.words()[at] & c.map_or(u64::MAX, |level| level.words()[at]);
    let places = 0..a.words().len();
    let total: u32 = places.clone().map(|at| word(at).count_ones()).sum();
    let mut left = (total > 0).then(|| rng.random_range(0..total))?;
    for at in places {
        let mut rest = word(at);
        if left >= rest.count_ones() {
            left -= rest.count_ones();
            continue;
        }
        for _ in 0..left {
            rest &= rest - 1;
        }
        return u32::try_from(at).ok().map(|at| PieceIndex(at * 64 + rest.trailing_zeros()));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;

    use super::*;

    fn some(len: u32, indexes: &[u32]) -> Bitfield {
        let mut some = Bitfield::none(len);
        indexes.iter().for_each(|index| assert!(some.set(PieceIndex(*index))));
        some
    }

    #[test]
    fn every_eligible_piece_and_no_other_is_picked() {
        let picker = Picker::new(PieceOrder::Random, some(200, &[3, 70, 130, 199]));
        let theirs = some(200, &[0, 3, 130, 199]);
        let mut rng = Rng::seed_from_u64(1);
        let picked: BTreeSet<_> =
            (0..200).map(|_| picker.pick(&theirs, &mut rng).unwrap().0).collect();
        assert_eq!(picked, BTreeSet::from([3, 130, 199]));
        assert_eq!(picker.pick(&some(200, &[0, 1]), &mut rng), None);
    }

    #[test]
    fn the_rarest_comes_first() {
        let mut picker = Picker::new(PieceOrder::RarestFirst, Bitfield::all(3));
        for have in [[0, 1], [0, 2], [0, 2]] {
            have.into_iter().for_each(|index| picker.appeared(PieceIndex(index)));
        }
        let mut rng = Rng::seed_from_u64(1);
        let all = Bitfield::all(3);
        assert_eq!(picker.pick(&all, &mut rng), Some(PieceIndex(1)));
        picker.want_no_more(PieceIndex(1));
        assert_eq!(picker.pick(&all, &mut rng), Some(PieceIndex(2)));
        picker.lost(&some(3, &[0]));
        picker.lost(&some(3, &[0]));
        assert_eq!(picker.pick(&all, &mut rng), Some(PieceIndex(0)));
    }

    #[test]
    fn what_very_many_have_is_counted_right_when_they_go() {
        let mut picker = Picker::new(PieceOrder::RarestFirst, Bitfield::all(2));
        for _ in 0..40 {
            picker.appeared(PieceIndex(0));
        }
        picker.appeared(PieceIndex(1));
        picker.appeared(PieceIndex(1));
        for _ in 0..39 {
            picker.lost(&some(2, &[0]));
        }
        let mut rng = Rng::seed_from_u64(1);
        assert_eq!(picker.pick(&Bitfield::all(2), &mut rng), Some(PieceIndex(0)));
    }
}
