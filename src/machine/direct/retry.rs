//! Retries: the schedule by which a failed message is sent again.

use std::time::Duration;

use rand::RngExt as _;

use crate::model::Rng;

/// Longest pause that can be configured.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// Greatest number of retries that can be configured.
const RETRIES_MAX: u32 = 100;

/// Pauses between attempts: each `factor` times the one before, up to `most`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryConfig {
    /// Pause before the second attempt.
    pub first: Duration,
    /// Ratio of each pause to the one before it.
    pub factor: f64,
    /// Upper bound of a pause.
    pub most: Duration,
    /// Number of attempts after the first.
    pub retries: u32,
    /// Random variation of a pause, as a share of it.
    pub jitter: f64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            factor: 2.0,
            most: Duration::from_secs(60),
            retries: 5,
            jitter: 0.1,
        }
    }
}

impl RetryConfig {
    /// Checks that the values make a schedule.
    ///
    /// # Errors
    /// The reason in words, with the range that is accepted.
    pub fn check(&self) -> Result<(), String> {
        if self.first.is_zero() || self.first > self.most || self.most > PAUSE_MAX {
            let (first, most) = (self.first, self.most);
            Err(format!("pauses from {first:?} to {most:?}; they lie above 0 s, up to 3600 s"))
        } else if !(1.0..=100.0).contains(&self.factor) {
            Err(format!("a factor of {}; it lies between 1 and 100", self.factor))
        } else if self.retries > RETRIES_MAX {
            Err(format!("{} retries; at most {RETRIES_MAX}", self.retries))
        } else if !(0.0..=0.5).contains(&self.jitter) {
            Err(format!("a jitter of {}; it lies between 0 and 0.5", self.jitter))
        } else {
            Ok(())
        }
    }

    /// The pause after `failed` failed attempts (1 and more), without variation.
    fn plain(&self, failed: u32) -> Duration {
        let most = self.most.as_secs_f64();
        let mut pause = self.first.as_secs_f64();
        for _ in 1..failed {
            pause = (pause * self.factor).min(most);
        }
        Duration::from_secs_f64(pause)
    }

    /// The pause after `failed` failed attempts (1 and more).
    pub(super) fn pause(&self, failed: u32, rng: &mut Rng) -> Duration {
        let plain = self.plain(failed);
        if self.jitter == 0.0 {
            return plain;
        }
        plain.mul_f64(1.0 + rng.random_range(-self.jitter..=self.jitter)).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_vary_by_the_jitter_alone() {
        let config = RetryConfig { retries: 9, ..RetryConfig::default() };
        let secs: Vec<_> = (1..=9).map(|failed| config.plain(failed).as_secs()).collect();
        assert_eq!(secs, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let mut rng = Rng::seed_from_u64(1);
        let drawn: Vec<_> = (0..1_000).map(|_| config.pause(3, &mut rng).as_secs_f64()).collect();
        assert!(drawn.iter().all(|it| (3.6..=4.4).contains(it)), "{drawn:?}");
        assert!(drawn.iter().any(|it| *it < 3.7) && drawn.iter().any(|it| *it > 4.3));
        assert!((0..1_000).all(|_| config.pause(9, &mut rng) <= config.most));
    }

    #[test]
    fn nonsense_is_no_schedule() {
        let good = RetryConfig::default();
        assert_eq!(good.check(), Ok(()));
        let zero = Duration::ZERO;
        for bad in [
            RetryConfig { first: zero, ..good },
            RetryConfig { most: Duration::from_millis(999), ..good },
            RetryConfig { most: Duration::MAX, ..good },
            RetryConfig { factor: 0.5, ..good },
            RetryConfig { factor: f64::NAN, ..good },
            RetryConfig { factor: f64::INFINITY, ..good },
            RetryConfig { retries: 101, ..good },
            RetryConfig { jitter: -0.1, ..good },
            RetryConfig { jitter: 0.6, ..good },
            RetryConfig { jitter: f64::NAN, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
