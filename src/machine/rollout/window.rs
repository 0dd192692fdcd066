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
    samples: u64,
    errors: u64,
    refused: u64,
    cold: u64,
}

impl WindowPart {
    fn clear(&mut self) {
        if self.samples > 0 {
            self.cells.fill(0);
            (self.samples, self.errors, self.refused, self.cold) = (0, 0, 0, 0);
        }
    }
}

/// Result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The request was answered.
    Fine,
    /// The request was answered with a 4xx.
    Refused,
    /// The request was answered with a 5xx, or not at all.
    Failed,
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
        let part = WindowPart { cells: vec![0; CELLS], samples: 0, errors: 0, refused: 0, cold: 0 };
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
        part.samples += 1;
        part.cold += u64::from(latency.is_none());
        part.errors += u64::from(ending == RequestOutcome::Failed);
        part.refused += u64::from(ending == RequestOutcome::Refused);
    }

    /// Counts a failure of a request that was counted as answered.
    pub fn fail(&mut self) {
        let at = self.place(self.newest);
        self.parts[at].errors = (self.parts[at].errors + 1).min(self.parts[at].samples);
    }

    /// Returns the figures of the window at `now`.
    pub fn health(&mut self, now: Time) -> ModelHealth {
        self.move_on(now);
        let sum = |of: fn(&WindowPart) -> u64| self.parts.iter().map(of).sum();
        let (samples, errors): (u64, u64) = (sum(|it| it.samples), sum(|it| it.errors));
        let (refused, cold) = (sum(|it| it.refused), sum(|it| it.cold));
        // The 95th of 100, and the 1st of 1.
        let rank = ((samples - cold) * 95).div_ceil(100);
        let mut below = 0;
        let at = (0..CELLS).find(|cell| {
            below += self.parts.iter().map(|part| u64::from(part.cells[*cell])).sum::<u64>();
            below >= rank && rank > 0
        });
        ModelHealth { samples, errors, refused, cold, p95_us: at.map_or(0, longest) }
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
}
