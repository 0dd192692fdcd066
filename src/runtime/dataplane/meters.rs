//! Meters of the requests of each model, for gates and for metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::machine::histogram::Histogram;
use crate::machine::rollout::{RequestOutcome, Window};
use crate::model::Time;
use crate::proto::rollout::{ModelHealth, ModelId};

/// Upper bounds of latencies, in microseconds.
pub(super) const LATENCY_US: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Number of models above which those that are not served are forgotten.
const METERS_MAX: usize = 64;

/// Meter of one model's requests.
pub(super) struct Meter(Mutex<Readings>);

pub(super) struct Readings {
    /// Latencies of all requests.
    pub(super) latency_us: Histogram,
    /// Number of failed requests.
    pub(super) errors: u64,
    /// Number of answers by the first digit of their status; the first is of requests without one.
    pub(super) by_class: [u64; 6],
    /// Number of bytes of answers' bodies.
    pub(super) bytes: u64,
    window: Window,
    /// Rollout of the window.
    epoch: u64,
    /// Time before which latencies do not count in the window.
    warm_at: Time,
}

impl Meter {
    fn new() -> Self {
        let window = Window::new(Duration::from_secs(1));
        let latency_us = Histogram::new(LATENCY_US);
        Self(Mutex::new(Readings {
            latency_us,
            errors: 0,
            by_class: [0; 6],
            bytes: 0,
            window,
            epoch: 0,
            warm_at: Time::ZERO,
        }))
    }

    pub(super) fn readings(&self) -> MutexGuard<'_, Readings> {
        self.0.lock().expect("nothing under this lock can panic")
    }

    /// Counts a request that began in a rollout, with its answer's status, 0 if there is none; the
    /// gates of later rollouts do not look at it.
    pub(super) fn observe(
        &self,
        (now, latency): (Time, Duration),
        (status, ending): (u16, RequestOutcome),
        epoch: u64,
    ) {
        let mut readings = self.readings();
        readings.latency_us.observe(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        readings.errors += u64::from(ending.is_error());
        if let Some(count) = readings.by_class.get_mut(usize::from(status / 100)) {
            *count += 1;
        }
        if readings.epoch == epoch {
            let is_warm = now >= readings.warm_at;
            readings.window.observe(now, is_warm.then_some(latency), ending);
        }
    }

    /// Counts an answer that broke off after its head had been counted as `before`.
    pub(super) fn broke(&self, now: Time, before: RequestOutcome, epoch: u64) {
        let mut readings = self.readings();
        readings.errors += u64::from(!before.is_error());
        if readings.epoch == epoch {
            readings.window.break_off(now, before);
        }
    }

    /// Counts bytes of an answer's body.
    pub(super) fn sent(&self, bytes: usize) {
        self.readings().bytes += bytes as u64;
    }

    pub(super) fn health(&self, now: Time) -> ModelHealth {
        self.readings().window.health(now)
    }
}

/// The meters of all models.
#[derive(Clone, Default)]
pub(super) struct Meters(BTreeMap<ModelId, Arc<Meter>>);

impl Meters {
    /// Meter of a model; its window is of that rollout and length from now on. In a window that
    /// begins anew, latencies count from `warm_at`.
    pub(super) fn of(
        &mut self,
        model: &ModelId,
        epoch: u64,
        (span, warm_at): (Duration, Time),
    ) -> Arc<Meter> {
        let new = || Arc::new(Meter::new());
        let meter = Arc::clone(self.0.entry(model.clone()).or_insert_with(new));
        let mut readings = meter.readings();
        if readings.epoch != epoch {
            readings.epoch = epoch;
            readings.window = Window::new(span);
            readings.warm_at = warm_at;
        }
        drop(readings);
        meter
    }

    /// Forgets the models that are not served, if there are too many.
    pub(super) fn tidy(&mut self, served: &[&ModelId]) {
        let too_many = self.0.len() > METERS_MAX;
        self.0.retain(|model, _| !too_many || served.contains(&model));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ModelId, &Arc<Meter>)> {
        self.0.iter()
    }
}
