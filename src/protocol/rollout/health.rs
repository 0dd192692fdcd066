//! What a node's data plane measured of its real traffic, and what gates make of it (T8).
//!
//! Invariants: counts are counts and latencies whole microseconds, so every node judges one
//! snapshot alike; too few requests are neither good nor bad.

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
}

/// One model's requests of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelHealth {
    /// How many.
    pub samples: u64,
    /// How many of them failed.
    pub errors: u64,
    /// The latency that 95 of 100 kept, in microseconds.
    pub p95_us: u64,
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

    /// The slowest model's p95 in milliseconds, for people.
    #[allow(clippy::cast_precision_loss, reason = "it is shown, nothing is decided by it")]
    pub fn p95_ms(&self) -> f64 {
        self.models.values().map(|it| it.p95_us).max().unwrap_or(0) as f64 / 1000.0
    }

    /// The share of all requests that failed, for people.
    #[allow(clippy::cast_precision_loss, reason = "it is shown, nothing is decided by it")]
    pub fn error_rate(&self) -> f64 {
        let sum = |of: fn(&ModelHealth) -> u64| self.models.values().map(of).sum::<u64>() as f64;
        sum(|it| it.errors) / sum(|it| it.samples).max(1.0)
    }
}

impl Gate {
    /// What a window of the canary, beside one of the stable version, says of this gate.
    pub(super) fn judge(
        self,
        canary: ModelHealth,
        stable: ModelHealth,
        samples_min: u64,
    ) -> Verdict {
        // Exact: a product of two u64 fits into a u128.
        let wide = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let holds = match (self.metric, self.limit) {
            (Metric::P95, Limit::Micros(limit)) => canary.p95_us <= limit,
            (Metric::Error, Limit::PerMillion(limit)) => {
                wide(canary.errors, 1_000_000) <= wide(canary.samples, limit.into())
            }
            (_, Limit::OfStable(_)) if stable.samples < samples_min => return Verdict::TooFew,
            (Metric::P95, Limit::OfStable(ratio)) => {
                wide(canary.p95_us, 1000) <= wide(stable.p95_us, ratio.into())
            }
            (Metric::Error, Limit::OfStable(ratio)) => {
                // errors / samples <= ratio * (errors / samples) of the stable one, multiplied out.
                wide(canary.errors, 1000) * u128::from(stable.samples)
                    <= wide(stable.errors, ratio.into()) * u128::from(canary.samples)
            }
            // A limit of the other metric's unit: parsing makes none.
            (Metric::P95, Limit::PerMillion(_)) | (Metric::Error, Limit::Micros(_)) => false,
        };
        if holds { Verdict::Good } else { Verdict::Bad }
    }
}
