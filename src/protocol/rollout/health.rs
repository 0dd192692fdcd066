//! What a node's data plane measured of its real traffic, and what gates make of it (T8).
//!
//! Invariants: counts are counts and latencies whole microseconds, so every node judges one
//! snapshot alike; too few requests are neither good nor bad, and not good if their figures are
//! bad.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{ModelId, NodeId};
use super::plan::{Gate, Limit, Metric};

/// What a window says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every gate holds.
    Good,
    /// One does not.
    Bad,
    /// Nothing: too few requests.
    TooFew,
    /// Too few requests, and a gate does not hold in these.
    Doubtful,
}

/// One model's requests of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelHealth {
    /// How many.
    pub samples: u64,
    /// How many of them failed.
    pub errors: u64,
    /// How many of them were answered with a 4xx.
    #[serde(default)]
    pub refused: u64,
    /// How many of them came while the version warmed up: their latency does not count.
    #[serde(default)]
    pub cold: u64,
    /// The latency that 95 of 100 of the others kept, in microseconds.
    pub p95_us: u64,
}

/// What all nodes together measured of a model. Its p95 is that which nodes with 95 of 100 of the
/// requests keep: no node says more than its own.
pub(super) fn pooled(parts: &[ModelHealth]) -> ModelHealth {
    let sum = |of: fn(&ModelHealth) -> u64| parts.iter().map(of).fold(0, u64::saturating_add);
    let warm = |it: &ModelHealth| it.samples.saturating_sub(it.cold);
    let mut by_latency: Vec<_> = parts.iter().map(|it| (it.p95_us, warm(it))).collect();
    by_latency.sort_unstable();
    let all: u128 = by_latency.iter().map(|it| u128::from(it.1)).sum();
    let mut below = 0;
    let at = by_latency.iter().find(|(_, count)| {
        below += u128::from(*count);
        all > 0 && below * 100 >= all * 95
    });
    ModelHealth {
        samples: sum(|it| it.samples),
        errors: sum(|it| it.errors),
        refused: sum(|it| it.refused),
        cold: sum(|it| it.cold),
        p95_us: at.map_or(0, |it| it.0),
    }
}

/// One node's window; `HEALTH_SNAPSHOT` carries it, with `p95` and `error_rate` of all requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SnapshotFields", into = "SnapshotFields")]
pub struct HealthSnapshot {
    /// Whose.
    pub node_id: NodeId,
    /// Which window, for people: `window-` and its end in Unix seconds.
    pub window_id: String,
    /// By model.
    pub models: BTreeMap<ModelId, ModelHealth>,
}

#[derive(Serialize, Deserialize)]
struct SnapshotFields {
    node_id: NodeId,
    window_id: String,
    /// Milliseconds, of the slowest model; for people and the seed document's readers.
    #[serde(default)]
    p95: f64,
    /// Of all requests, from 0 to 1; likewise.
    #[serde(default)]
    error_rate: f64,
    #[serde(default)]
    models: BTreeMap<ModelId, ModelHealth>,
}

impl From<SnapshotFields> for HealthSnapshot {
    fn from(fields: SnapshotFields) -> Self {
        let SnapshotFields { node_id, window_id, models, .. } = fields;
        Self { node_id, window_id, models }
    }
}

impl From<HealthSnapshot> for SnapshotFields {
    fn from(health: HealthSnapshot) -> Self {
        let (p95, error_rate) = (health.p95_ms(), health.error_rate());
        let HealthSnapshot { node_id, window_id, models } = health;
        Self { node_id, window_id, p95, error_rate, models }
    }
}

impl HealthSnapshot {
    /// A model's requests; none when it is not named.
    pub fn of(&self, model: &ModelId) -> ModelHealth {
        self.models.get(model).copied().unwrap_or_default()
    }

    /// The highest number in it.
    pub(super) fn highest(&self) -> u64 {
        let of = |it: &ModelHealth| {
            it.samples.max(it.errors).max(it.refused).max(it.cold).max(it.p95_us)
        };
        self.models.values().map(of).max().unwrap_or(0)
    }

    /// The slowest model's p95 in milliseconds, for people.
    #[allow(clippy::cast_precision_loss, reason = "it is shown, nothing is decided by it")]
    pub fn p95_ms(&self) -> f64 {
        self.models.values().map(|it| it.p95_us).max().unwrap_or(0) as f64 / 1000.0
    }

    /// The share of all requests that failed, for people.
    #[allow(clippy::cast_precision_loss, reason = "it is shown, nothing is decided by it")]
    pub fn error_rate(&self) -> f64 {
        let sum = |of: fn(&ModelHealth) -> u64| {
            self.models.values().map(of).fold(0, u64::saturating_add) as f64
        };
        sum(|it| it.errors) / sum(|it| it.samples).max(1.0)
    }
}

/// Of a million requests so many may fail beside a stable version of which none does: one failure
/// is no ratio.
const ERROR_FLOOR: u32 = 10_000;

/// The same for answers with a 4xx, which are the client's as often as the version's.
const REFUSED_FLOOR: u32 = 50_000;

impl Gate {
    /// What holds of 4xx where a plan has gates and none for them: a version that knows nothing, or
    /// that everybody is turned away by, answers all requests.
    pub(super) const USUAL: Self = Self { metric: Metric::Refused, limit: Limit::OfStable(2000) };

    /// What a window of the canary, beside one of the stable version, says of this gate.
    pub(super) fn judge(
        self,
        canary: ModelHealth,
        stable: ModelHealth,
        samples_min: u64,
    ) -> Verdict {
        // Exact: a product of two u64 fits into a u128.
        let wide = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let (counted, of_stable, floor) = match self.metric {
            Metric::P95 if canary.samples.saturating_sub(canary.cold) < samples_min => {
                return Verdict::TooFew;
            }
            Metric::P95 => (0, 0, 0),
            Metric::Error => (canary.errors, stable.errors, ERROR_FLOOR),
            Metric::Refused => (canary.refused, stable.refused, REFUSED_FLOOR),
        };
        let is_within = |limit: u32| wide(counted, 1_000_000) <= wide(canary.samples, limit.into());
        let holds = match (self.metric, self.limit) {
            (Metric::P95, Limit::Micros(limit)) => canary.p95_us <= limit,
            (Metric::Error | Metric::Refused, Limit::PerMillion(limit)) => is_within(limit),
            (_, Limit::OfStable(_)) if stable.samples < samples_min => return Verdict::TooFew,
            (Metric::P95, Limit::OfStable(ratio)) => {
                wide(canary.p95_us, 1000) <= wide(stable.p95_us, ratio.into())
            }
            (Metric::Error | Metric::Refused, Limit::OfStable(ratio)) => {
                // counted / samples <= ratio * (the same of the stable one), multiplied out. Only
                // counts that nobody has do not fit.
                let ours = wide(counted, 1000).saturating_mul(stable.samples.into());
                let theirs = wide(of_stable, ratio.into()).saturating_mul(canary.samples.into());
                let is_as_there = ours <= theirs;
                counted <= 1 || is_within(floor) || is_as_there
            }
            // A limit of the other metric's unit: parsing makes none.
            (Metric::P95, Limit::PerMillion(_))
            | (Metric::Error | Metric::Refused, Limit::Micros(_)) => false,
        };
        if holds { Verdict::Good } else { Verdict::Bad }
    }
}
