//! Local health: this node's distrust of its own observations (O4), and time-outs of answers.
//!
//! The idea is Lifeguard's local health (arXiv 1707.00788): a node that is late itself sees all
//! others as late. Its own lateness, and many probes failing at once, raise a score that stretches
//! its time-outs and holds its accusations back; answers lower it again.

use std::time::Duration;

/// Highest score; time-outs stretch by up to this plus one.
const SCORE_MAX: u32 = 7;

/// Lateness of a timer from which this node did not run when it should have. Above the jitter of a
/// busy two-core machine (measured: tens of milliseconds), below any time-out in use.
const LATE: Duration = Duration::from_millis(250);

/// This node's distrust of itself: 0 is healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalHealth {
    score: u32,
}

impl LocalHealth {
    /// Takes note of the lateness of a timer. Returns whether this node was asleep or starved, in
    /// which case all its waits have to begin anew.
    pub fn timer_fired(&mut self, late_by: Duration) -> bool {
        if late_by >= LATE * 4 {
            self.raise(3);
        } else if late_by >= LATE {
            self.raise(1);
        }
        late_by >= LATE
    }

    /// Takes note of a quiet round: all watched nodes have answered and the timers were on time.
    pub fn quiet_round(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    /// Takes note that more than half of at least three watched nodes went silent together: the
    /// likelier explanation is this node.
    pub fn many_failed_at_once(&mut self) {
        self.raise(2);
    }

    /// True if this node should keep its suspicions to itself for now.
    pub const fn is_doubtful(&self) -> bool {
        self.score >= 3
    }

    /// The score, 0 to 7.
    pub const fn score(&self) -> u32 {
        self.score
    }

    /// Returns `timeout`, stretched by the distrust.
    pub fn stretch(&self, timeout: Duration) -> Duration {
        timeout * (self.score + 1)
    }

    fn raise(&mut self, by: u32) {
        self.score = (self.score + by).min(SCORE_MAX);
    }
}

/// A smoothed round-trip time and the time-out it suggests (RFC 6298's estimator).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip {
    smoothed: Option<(Duration, Duration)>,
}

impl RoundTrip {
    /// Takes a measured round trip into account.
    pub fn measured(&mut self, sample: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => (sample, sample / 2),
            Some((mean, deviation)) => {
                let error = mean.abs_diff(sample);
                ((mean * 7 + sample) / 8, (deviation * 3 + error) / 4)
            }
        });
    }

    /// Time-out of an answer: the mean and four deviations, within `floor` and `ceiling`.
    pub fn timeout(&self, floor: Duration, ceiling: Duration) -> Duration {
        match self.smoothed {
            None => floor,
            Some((mean, deviation)) => (mean + deviation * 4).clamp(floor, ceiling),
        }
    }

    /// The smoothed round trip, once one was measured.
    pub fn mean(&self) -> Option<Duration> {
        self.smoothed.map(|(mean, _)| mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_long_sleep_makes_a_node_doubt_itself_until_quiet_rounds_pass() {
        let mut health = LocalHealth::default();
        assert!(!health.timer_fired(ms(50)));
        assert!(!health.is_doubtful());
        assert!(health.timer_fired(ms(5_000)));
        assert!(health.is_doubtful());
        assert_eq!(health.stretch(ms(100)), ms(400));
        health.quiet_round();
        assert!(!health.is_doubtful());
    }

    #[test]
    fn the_score_has_a_ceiling() {
        let mut health = LocalHealth::default();
        for _ in 0..100 {
            health.timer_fired(ms(10_000));
            health.many_failed_at_once();
        }
        assert_eq!(health.stretch(ms(100)), ms(800));
    }

    #[test]
    fn the_time_out_follows_the_round_trip_within_its_bounds() {
        let mut trip = RoundTrip::default();
        assert_eq!(trip.timeout(ms(500), ms(5_000)), ms(500));
        for _ in 0..50 {
            trip.measured(ms(800));
        }
        let timeout = trip.timeout(ms(500), ms(5_000));
        assert!(timeout >= ms(800) && timeout < ms(900), "{timeout:?}");
        trip.measured(ms(9_000));
        assert_eq!(trip.timeout(ms(500), ms(5_000)), ms(5_000));
    }
}
