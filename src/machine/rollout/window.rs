//! Sliding window of counts of one model's latest requests (T8).
//!
//! Invariants: the memory is fixed, for any number of requests; a latency below 2^32 µs is reported
//! at most one part in 32 above its value, and never below, so a gate errs on the careful side;
//! requests older than the window and a tenth of it are forgotten, with or without new ones.

use std::time::Duration;

use crate::model::Time;
use crate::proto::rollout::ModelHealth;

/// Number of parts of a window, which are forgotten one by one.
const PARTS: usize = 10;

/// Limit, in microseconds, below which latencies are exact; from there on each octave up to the
/// next power of two has `STEPS` cells: 64, 128, 256 and so on.
const EXACT: u64 = 64;
const STEPS: usize = 32;

/// Octaves above `EXACT`; latencies from 2^32 µs, more than an hour, are reported as 2^32 - 1.
const OCTAVES: usize = 26;
const CELLS: usize = EXACT as usize + OCTAVES * STEPS;

/// Window of a model's latest requests.
#[derive(Clone, Debug)]
pub struct Window {
    part_us: u64,
    /// Ring of parts; one more than the window has, because the newest is not complete.
    parts: Vec<WindowPart>,
    /// Number of the newest part, counted from the beginning of time.
    newest: u64,
}

#[derive(Clone, Debug)]
struct WindowPart {
    cells: Vec<u32>,
    /// Number of requests by outcome.
    outcomes: [u64; RequestOutcome::ALL.len()],
    cold: u64,
}

impl WindowPart {
    fn clear(&mut self) {
        if self.outcomes.iter().any(|it| *it > 0) {
            self.cells.fill(0);
            (self.outcomes, self.cold) = (Default::default(), 0);
        }
    }
}

/// Result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The request was answered, with neither a 4xx nor a 5xx.
    Fine,
    /// The request was answered with a 4xx.
    Refused,
    /// The request was answered with a 5xx.
    Failed,
    /// The request was not answered, or not to the end.
    Broken,
    /// No connection for the request could be made.
    Unreached,
}

impl RequestOutcome {
    const ALL: [Self; 5] = [Self::Fine, Self::Refused, Self::Failed, Self::Broken, Self::Unreached];

    /// Outcome of a request that was answered with this status.
    pub const fn of(status: u16) -> Self {
        match status {
            500.. => Self::Failed,
            400.. => Self::Refused,
            0.. => Self::Fine,
        }
    }

    /// True if the request failed by the version's or its server's doing.
    pub const fn is_error(self) -> bool {
        matches!(self, Self::Failed | Self::Broken | Self::Unreached)
    }
}

/// Index of the cell that counts a latency in microseconds.
fn cell(micros: u64) -> usize {
    let capped = micros.min(u64::from(u32::MAX));
    if capped < EXACT {
        return usize::try_from(capped).unwrap_or(0);
    }
    let octave = capped.ilog2() - EXACT.ilog2();
    // The five bits behind the highest one.
    let step = (capped >> (octave + 1)) as usize % STEPS;
    EXACT as usize + octave as usize * STEPS + step
}

/// The longest latency of a cell, in microseconds.
fn longest(cell: usize) -> u64 {
    let Some(above) = cell.checked_sub(EXACT as usize) else { return cell as u64 };
    let (octave, step) = (above / STEPS, above % STEPS);
    (((STEPS + step + 1) as u64) << (octave + 1)) - 1
}

impl Window {
    /// Returns an empty window of length `span`, of at least 10 ms.
    #[must_use]
    pub fn new(span: Duration) -> Self {
        let part_us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX) / PARTS as u64;
        let part = WindowPart { cells: vec![0; CELLS], outcomes: Default::default(), cold: 0 };
        Self { part_us: part_us.max(1000), parts: vec![part; PARTS + 1], newest: 0 }
    }

    /// Forgets the parts that are too old at `now`, which does not go back.
    fn move_on(&mut self, now: Time) {
        let number = now.as_micros() / self.part_us;
        let passed = number.saturating_sub(self.newest).min(self.parts.len() as u64);
        for ahead in 0..passed {
            let at = self.place(number - ahead);
            self.parts[at].clear();
        }
        self.newest = self.newest.max(number);
    }

    fn place(&self, number: u64) -> usize {
        usize::try_from(number % self.parts.len() as u64).unwrap_or(0)
    }

    /// Counts a request; without a latency if that is not to count.
    pub fn observe(&mut self, now: Time, latency: Option<Duration>, ending: RequestOutcome) {
        self.move_on(now);
        let at = self.place(self.newest);
        let part = &mut self.parts[at];
        if let Some(latency) = latency {
            let cell = cell(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
            part.cells[cell] = part.cells[cell].saturating_add(1);
        }
        part.cold += u64::from(latency.is_none());
        part.outcomes[ending as usize] += 1;
    }

    /// Counts a request as broken whose answer broke off after its head was counted as `before`. If
    /// that was in an earlier part of the window, it counts as one more request.
    pub fn break_off(&mut self, now: Time, before: RequestOutcome) {
        self.move_on(now);
        let at = self.place(self.newest);
        let outcomes = &mut self.parts[at].outcomes;
        outcomes[before as usize] = outcomes[before as usize].saturating_sub(1);
        outcomes[RequestOutcome::Broken as usize] += 1;
    }

    /// Returns the figures of the window at `now`.
    pub fn health(&mut self, now: Time) -> ModelHealth {
        self.move_on(now);
        let sum = |is_it: fn(RequestOutcome) -> bool| {
            let all = RequestOutcome::ALL.into_iter().filter(|it| is_it(*it));
            all.flat_map(|it| self.parts.iter().map(move |part| part.outcomes[it as usize])).sum()
        };
        let samples: u64 = sum(|_| true);
        let cold: u64 = self.parts.iter().map(|it| it.cold).sum();
        let count = |cell: usize| -> u64 {
            self.parts.iter().map(|part| u64::from(part.cells[cell])).sum()
        };
        let counts: Vec<u64> = (0..CELLS).map(count).collect();
        let latency = |percent: u64| {
            // The 95th of 100, and the 1st of 1.
            let rank = ((samples - cold) * percent).div_ceil(100);
            let mut below = 0;
            let at = (0..CELLS).find(|cell| {
                below += counts[*cell];
                below >= rank && rank > 0
            });
            at.map_or(0, longest)
        };
        ModelHealth {
            samples,
            errors: sum(RequestOutcome::is_error),
            refused: sum(|it| it == RequestOutcome::Refused),
            cold,
            p95_us: latency(95),
            p50_us: latency(50),
            p99_us: latency(99),
            unreached: sum(|it| it == RequestOutcome::Unreached),
            answered_5xx: sum(|it| it == RequestOutcome::Failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    fn window(latencies_us: impl IntoIterator<Item = u64>) -> Window {
        let mut window = Window::new(Duration::from_secs(10));
        for latency in latencies_us {
            window.observe(at(1), Some(Duration::from_micros(latency)), RequestOutcome::Fine);
        }
        window
    }

    #[test]
    fn a_latency_is_told_a_little_above_and_never_below() {
        let mut last = 0;
        for power in 0..32 {
            for micros in [1_u64 << power, (1 << power) + 1, (1 << power) * 3 / 2] {
                let told = window([micros]).health(at(2)).p95_us;
                assert!(told >= micros, "{micros}: {told}");
                assert!(told - micros <= micros / 32, "{micros}: {told}");
                assert_eq!(cell(told), cell(micros), "the longest of a cell is in it");
                assert_ne!(cell(told + 1), cell(micros), "and the next is not");
            }
            assert!(cell(1 << power) >= last);
            last = cell(1 << power);
        }
        assert_eq!(window([u64::MAX]).health(at(2)).p95_us, u64::from(u32::MAX));
    }

    #[test]
    fn p95_is_what_95_of_100_keep() {
        assert_eq!(window(1..=100).health(at(2)).p95_us, 95);
        assert_eq!(window(1..=20).health(at(2)).p95_us, 19);
        assert_eq!(window([7]).health(at(2)).p95_us, 7);
        for (latencies, p50, p99) in [(1..=60, 30, 60), (1..=3, 2, 3), (7..=7, 7, 7)] {
            let health = window(latencies).health(at(2));
            assert_eq!((health.p50_us, health.p99_us), (p50, p99));
        }
        // One in a hundred is beyond the p99 from the 101st request on.
        let slow = |count| window(std::iter::repeat_n(1, count).chain([60])).health(at(2)).p99_us;
        assert_eq!((slow(98), slow(99)), (60, 1));
        assert_eq!(window([]).health(at(2)), ModelHealth::default());
    }

    #[test]
    fn what_is_old_is_forgotten_a_tenth_at_a_time() {
        let mut window = Window::new(Duration::from_secs(10));
        for second in 0..20 {
            let ending = if second < 5 { RequestOutcome::Failed } else { RequestOutcome::Refused };
            window.observe(at(second * 1000), Some(Duration::from_millis(second)), ending);
            let health = window.health(at(second * 1000 + 999));
            let oldest = (second + 1).saturating_sub(11);
            assert_eq!(health.samples, second + 1 - oldest, "{second}");
            assert_eq!(health.errors, (second + 1).min(5).saturating_sub(oldest), "{second}");
            assert_eq!(health.errors + health.refused, health.samples, "{second}");
        }
        assert_eq!(window.health(at(29_999)).samples, 1, "the last one");
        assert_eq!(window.health(at(30_000)).samples, 0, "without a new one");
        window.observe(at(3_000_000), Some(Duration::ZERO), RequestOutcome::Failed);
        let health = window.health(at(3_000_000));
        assert_eq!((health.samples, health.errors), (1, 1), "after a long silence");
        window.observe(at(3_000_000), None, RequestOutcome::Fine);
        let health = window.health(at(3_000_000));
        assert_eq!((health.samples, health.cold, health.p95_us), (2, 1, 0), "its time is no one's");
    }

    #[test]
    fn outcomes_are_counted_apart_and_three_of_them_are_errors() {
        let mut window = Window::new(Duration::from_secs(10));
        let all = [
            (RequestOutcome::Fine, 1),
            (RequestOutcome::Refused, 2),
            (RequestOutcome::Failed, 3),
            (RequestOutcome::Broken, 4),
            (RequestOutcome::Unreached, 5),
        ];
        for (ending, count) in all {
            (0..count).for_each(|_| window.observe(at(1), None, ending));
        }
        let health = window.health(at(2));
        assert_eq!((health.samples, health.errors, health.refused), (15, 12, 2));
        assert_eq!((health.answered_5xx, health.unreached), (3, 5));
        assert_eq!(window.health(at(30_000)), ModelHealth::default());
    }
}
