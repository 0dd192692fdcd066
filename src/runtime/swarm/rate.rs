//! A limit in bytes a second, shared by all threads that move bytes in one direction.
//!
//! Each share of bytes takes its own stretch of time, one after the other, in the order of asking:
//! so the limit holds exactly over any second, and no thread is forgotten. Unused time is saved up
//! for a moment only, so there are no bursts.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::runtime::clock::Clock;

/// Unused time that may be made up for: longer gives bursts, shorter loses what a busy machine's
/// late wake-ups cost.
const SAVED: Duration = Duration::from_millis(100);

/// Number of shares a second, about. More are smoother and cost more wake-ups.
const SHARES_A_SECOND: u64 = 50;

/// Least and greatest size of a share, in bytes.
const SHARE_BYTES: std::ops::RangeInclusive<u64> = 512..=256 * 1024;

/// A limit of the rate, or none.
#[derive(Debug)]
pub(super) struct Throttle {
    clock: Clock,
    /// Limit in bytes a second.
    rate: Option<u64>,
    inner: Mutex<Inner>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// Time when all granted bytes will have been moved, in nanoseconds.
    free_at: u64,
    is_closed: bool,
}

impl Throttle {
    /// A limit of `rate` bytes a second, or none.
    pub(super) fn new(clock: Clock, rate: Option<u64>) -> Self {
        Self { clock, rate, inner: Mutex::default(), closed: Condvar::new() }
    }

    /// Number of bytes that may be moved at a time; all `wanted` ones without a limit.
    pub(super) fn share(&self, wanted: usize) -> usize {
        match self.rate {
            None => wanted,
            Some(rate) => {
                let share =
                    (rate / SHARES_A_SECOND).clamp(*SHARE_BYTES.start(), *SHARE_BYTES.end());
                wanted.min(share as usize)
            }
        }
    }

    /// Waits until `bytes` may be moved, or the throttle is closed.
    pub(super) fn take(&self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let mut inner = self.lock();
        let now = self.now();
        let saved = u64::try_from(SAVED.as_nanos()).unwrap_or(0);
        let cost = (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1);
        let start = inner.free_at.max(now.saturating_sub(saved));
        inner.free_at = start + cost;
        // The wait lasts to the end of the stretch and not to its beginning: no thread is ahead of
        // the limit.
        let until = inner.free_at;
        loop {
            let left = until.saturating_sub(self.now());
            if left == 0 || inner.is_closed {
                return;
            }
            let waited = self.closed.wait_timeout(inner, Duration::from_nanos(left));
            inner = waited.expect("nothing under this lock can panic").0;
        }
    }

    /// Ends all waits, now and in future.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.closed.notify_all();
    }

    fn now(&self) -> u64 {
        self.clock.now().mono.as_micros().saturating_mul(1_000)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing under this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::runtime::thread;

    #[test]
    fn several_together_move_no_more_than_the_limit_allows() {
        const RATE: u64 = 20_000_000;
        let clock = Clock::start();
        let throttle = Arc::new(Throttle::new(clock, Some(RATE)));
        let moved = Arc::new(AtomicU64::new(0));
        let begun = clock.now().mono;
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (throttle, moved) = (Arc::clone(&throttle), Arc::clone(&moved));
                thread::spawn(format!("mover:{number}"), move || {
                    while clock.now().mono.since(begun) < Duration::from_secs(1) {
                        let share = throttle.share(1_000_000);
                        throttle.take(share);
                        moved.fetch_add(share as u64, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.unwrap().join().unwrap();
        }
        let took = clock.now().mono.since(begun).as_secs_f64();
        let rate = moved.load(Ordering::Relaxed) as f64 / took / RATE as f64;
        // A machine that is busy with other tests moves less.
        assert!((0.1..=1.05).contains(&rate), "{rate} of the limit in {took} s");
    }

    #[test]
    fn a_pause_is_made_up_for_by_a_moment_only() {
        let clock = Clock::start();
        let throttle = Throttle::new(clock, Some(1_000_000));
        throttle.lock().free_at = 0;
        let pause = Duration::from_millis(400);
        let begun = clock.now().mono;
        let (_never, idle) = crossbeam_channel::bounded::<()>(0);
        let _ = idle.recv_timeout(pause);
        throttle.take(300_000);
        let took = clock.now().mono.since(begun);
        assert!(took >= pause + Duration::from_millis(195), "{took:?}");
    }

    #[test]
    fn a_closed_throttle_holds_nobody() {
        let clock = Clock::start();
        let throttle = Arc::new(Throttle::new(clock, Some(1)));
        let waiting = Arc::clone(&throttle);
        let thread = thread::spawn("waiter", move || waiting.take(1_000_000));
        throttle.close();
        thread.unwrap().join().unwrap();
        assert!(clock.now().mono.as_micros() < 30_000_000);
    }

    #[test]
    fn without_a_limit_everything_is_granted_at_once() {
        let throttle = Throttle::new(Clock::start(), None);
        assert_eq!(throttle.share(10_000_000), 10_000_000);
        throttle.take(usize::MAX);
    }
}
