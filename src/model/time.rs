//! Monotonic time, which decides time-outs, and wall-clock time, which is printed and signed.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A monotonic moment: microseconds since the driver started.
///
/// Ours and not `std::time::Instant`, because a simulator must be able to invent one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The driver's start.
    pub const ZERO: Self = Self(0);

    /// The moment `micros` microseconds after the driver's start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the driver's start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The moment `span` later; saturates at the end of time.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The moment `span` earlier; saturates at the driver's start.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The span since `earlier`; zero when `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A wall-clock moment: milliseconds since the Unix epoch, UTC.
///
/// It is printed, signed and compared with a generous tolerance; it never decides a time-out,
/// because clocks of different machines disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub u64);

impl WallTime {
    /// The distance to `other`, whichever of the two is earlier.
    #[must_use]
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }
}

impl fmt::Display for WallTime {
    /// RFC 3339 with milliseconds, for example `2026-02-25T09:00:00.123Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(moment) => write!(f, "{moment:.3}"),
            Err(_) => write!(f, "@{}ms", self.0),
        }
    }
}

/// The moment at which an input is handled, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time; decides time-outs.
    pub mono: Time,
    /// Wall-clock time; printed in reports and signed into evidence, never decides a time-out.
    pub wall: WallTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_time_prints_as_rfc_3339_with_milliseconds() {
        assert_eq!(WallTime(1_772_010_000_123).to_string(), "2026-02-25T09:00:00.123Z");
        assert_eq!(WallTime(0).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn spans_never_go_below_zero() {
        let (early, late) = (Time::from_micros(5), Time::from_micros(9));
        assert_eq!(late.since(early), Duration::from_micros(4));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
