//! The only reader of the clock.

use std::time::{Instant, SystemTime};

use crate::model::{Now, Time, WallTime};

/// Both clocks of this process; the monotonic one counts from [`Clock::start`].
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock whose monotonic time is now zero.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the place where time enters")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The present moment on the monotonic clock alone.
    #[must_use]
    pub fn mono(&self) -> Time {
        Time::ZERO.after(self.started.elapsed())
    }

    /// The present moment. The monotonic part never goes back; the wall clock may.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the place where time enters")]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: self.mono(),
            wall: WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_starts_at_zero_and_never_goes_back() {
        let clock = Clock::start();
        let (one, two) = (clock.now(), clock.now());
        assert!(one.mono <= two.mono);
        assert!(one.mono.as_micros() < 60_000_000, "it counts from the start of the clock");
        assert!(one.wall > WallTime(1_700_000_000_000), "the wall clock is of this century");
    }
}
