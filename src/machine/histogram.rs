//! A histogram of measured values: counts by fixed upper bounds.
//!
//! Invariants: the memory is that of the bounds, whatever is observed; every observation is in
//! exactly one bucket, so that the last cumulative count is the count of all.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

/// Upper bounds for latencies, in milliseconds: from within a machine to around the world and
/// through a few retries.
pub const LATENCY_MS: &[u64] =
    &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000];

/// Upper bounds for small counts, such as hops, attempts or copies.
pub const SMALL_COUNTS: &[u64] = &[0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32];

/// A distribution of whole numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: &'static [u64],
    /// Number of observations for each bound, at most as large as it and larger than the one
    /// before; the last is of those above every bound.
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    /// Creates an empty histogram. `bounds` rise strictly, and are inclusive.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.is_sorted_by(|a, b| a < b), "bounds rise");
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    /// Counts one value.
    pub fn observe(&mut self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// For each upper bound, in order, the number of values that were at most that; last, with
    /// `None`, the number of all.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts.iter().scan(0, |below, count| {
            *below += count;
            Some(*below)
        }))
    }

    /// Number of values observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of the values observed; stays at the largest number rather than starting again.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }
}

/// `{"buckets":[[bound,count],…,[null,count]],"sum":…,"count":…}`, the counts cumulative.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Histogram", 3)?;
        fields.serialize_field("buckets", &self.buckets().collect::<Vec<_>>())?;
        fields.serialize_field("sum", &self.sum)?;
        fields.serialize_field("count", &self.count())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_counts_for_its_bound_and_for_all_above() {
        let mut seen = Histogram::new(&[1, 10, 100]);
        for value in [0, 1, 2, 10, 11, 100, 101, 5_000] {
            seen.observe(value);
        }
        let buckets: Vec<_> = seen.buckets().collect();
        assert_eq!(buckets, [(Some(1), 2), (Some(10), 4), (Some(100), 6), (None, 8)]);
        assert_eq!((seen.sum(), seen.count()), (5_225, 8));
        let expected = json!({
            "buckets": [[1, 2], [10, 4], [100, 6], [null, 8]], "sum": 5_225, "count": 8,
        });
        assert_eq!(serde_json::to_value(&seen).unwrap(), expected);
    }

    #[test]
    fn nothing_observed_is_zero_in_every_bucket() {
        let seen = Histogram::new(SMALL_COUNTS);
        assert_eq!(seen.buckets().count(), SMALL_COUNTS.len() + 1);
        assert!(seen.buckets().all(|(_, count)| count == 0));
        assert_eq!((seen.sum(), seen.count()), (0, 0));
    }

    #[test]
    fn the_sum_stays_at_its_end() {
        let mut seen = Histogram::new(LATENCY_MS);
        seen.observe(u64::MAX);
        seen.observe(u64::MAX);
        assert_eq!((seen.sum(), seen.count()), (u64::MAX, 2));
    }

    #[test]
    fn the_bounds_rise() {
        for bounds in [LATENCY_MS, SMALL_COUNTS] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }
}
