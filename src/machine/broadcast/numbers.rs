//! The numbers of one origin's messages: those that came, and the gaps with their times.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::config::GAPS_MAX;
use crate::model::Time;

#[derive(Clone, Copy, Debug)]
struct Gap {
    last: u64,
    /// Time at which it opened, or at which the last number beside it came.
    since: Time,
}

impl Gap {
    /// The count of numbers that are missed when this row is given up; rows below `counted_from`
    /// are not missed.
    const fn missed(self, first: u64, counted_from: u64) -> u64 {
        if first < counted_from { 0 } else { self.last - first + 1 }
    }
}

/// The numbers of one origin that came. Those below the first that came may have been sent before
/// this node was there: they are asked for, and never count as missed.
#[derive(Debug)]
pub(super) struct Numbers {
    /// The first number that came.
    first: u64,
    /// The highest number that came.
    top: u64,
    /// Rows of missing numbers below `top`, by the first of each row.
    gaps: BTreeMap<u64, Gap>,
    /// Time at which a missing number came last.
    filled: Time,
}

impl Numbers {
    /// Begins with the first number that came.
    pub(super) fn starting_at(now: Time, number: u64) -> Self {
        let before = (number > 1).then(|| (1, Gap { last: number - 1, since: now }));
        Self { first: number, top: number, gaps: before.into_iter().collect(), filled: Time::ZERO }
    }

    /// The highest number that came.
    pub(super) const fn top(&self) -> u64 {
        self.top
    }

    /// The number up to which nothing is missing, of those from the first that came on.
    pub(super) fn done(&self) -> u64 {
        self.gaps.range(self.first..).next().map_or(self.top, |(first, _)| first - 1)
    }

    /// True if numbers are to be asked for.
    pub(super) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// The rows of numbers that have not come for `wait`, the lowest first.
    pub(super) fn missing(
        &self,
        now: Time,
        wait: Duration,
    ) -> impl Iterator<Item = RangeInclusive<u64>> {
        let is_due = move |gap: &Gap| now.since(gap.since) >= wait;
        self.gaps.iter().filter(move |(_, gap)| is_due(gap)).map(|(first, gap)| *first..=gap.last)
    }

    /// Takes note of a number that came. Returns the count of missing numbers that are given up
    /// because they are more than [`GAPS_MAX`] rows.
    pub(super) fn insert(&mut self, now: Time, number: u64) -> u64 {
        if number > self.top {
            if number > self.top + 1 {
                self.gaps.insert(self.top + 1, Gap { last: number - 1, since: now });
            }
            self.top = number;
        } else if let Some((&first, &gap)) = self.gaps.range(..=number).next_back()
            && number <= gap.last
        {
            self.filled = now;
            self.gaps.remove(&first);
            if first < number {
                self.gaps.insert(first, Gap { last: number - 1, since: now });
            }
            if number < gap.last {
                self.gaps.insert(number + 1, Gap { last: gap.last, since: now });
            }
        }
        if self.gaps.len() <= GAPS_MAX {
            return 0;
        }
        self.gaps.pop_first().map_or(0, |(first, gap)| gap.missed(first, self.first))
    }

    /// Gives up the rows that stand since before `long_since`; also those that stand since before
    /// `since`, if no missing number came since then. Returns the count of these numbers.
    pub(super) fn give_up(&mut self, since: Time, long_since: Time) -> u64 {
        let since = if self.filled > since { long_since } else { since };
        let (mut count, counted_from) = (0, self.first);
        self.gaps.retain(|first, gap| {
            let is_kept = gap.since > since;
            count += if is_kept { 0 } else { gap.missed(*first, counted_from) };
            is_kept
        });
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Time {
        Time::from_micros(secs * 1_000_000)
    }

    fn missing(it: &Numbers) -> Vec<RangeInclusive<u64>> {
        it.missing(at(100), Duration::ZERO).collect()
    }

    #[test]
    fn what_came_is_known_in_any_order() {
        let mut it = Numbers::starting_at(at(1), 10);
        assert_eq!((it.top(), it.done(), missing(&it)), (10, 10, vec![1..=9]));
        it.insert(at(1), 15);
        assert_eq!((it.done(), missing(&it)), (10, vec![1..=9, 11..=14]));
        it.insert(at(2), 12);
        assert_eq!(missing(&it), [1..=9, 11..=11, 13..=14]);
        it.insert(at(2), 9);
        it.insert(at(2), 12);
        for number in [14, 11, 13] {
            it.insert(at(3), number);
        }
        assert_eq!((it.top(), it.done(), missing(&it)), (15, 15, vec![1..=8]));
        assert_eq!(it.give_up(at(9), at(9)), 0, "they may be older than this node");
        assert!(!it.has_gaps());
    }

    #[test]
    fn a_row_that_shrinks_is_given_more_time_and_one_that_does_not_is_given_up() {
        let mut it = Numbers::starting_at(at(1), 1);
        it.insert(at(1), 5);
        it.insert(at(1), 10);
        it.insert(at(8), 3);
        let due: Vec<_> = it.missing(at(8), Duration::from_secs(1)).collect();
        assert_eq!(due, [6..=9]);
        assert_eq!(it.give_up(at(1), at(0)), 0, "others of it come");
        assert_eq!(it.give_up(at(1), at(1)), 4);
        assert_eq!(missing(&it), [2..=2, 4..=4]);
        assert_eq!(it.give_up(at(8), at(0)), 2);
        assert_eq!(it.done(), 10);
    }

    #[test]
    fn rows_are_bounded() {
        let mut it = Numbers::starting_at(at(1), 1);
        let given_up: u64 = (2..=GAPS_MAX as u64 + 3).map(|it2| it.insert(at(1), it2 * 3)).sum();
        assert_eq!(missing(&it).len(), GAPS_MAX);
        assert_eq!(given_up, 4 + 2);
    }
}
