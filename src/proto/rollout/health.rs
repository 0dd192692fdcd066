//! Health of a node's real traffic. Counts are whole and latencies whole microseconds, so every
//! node judges one snapshot alike.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{ModelId, NodeId};

/// One model's requests of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelHealth {
    /// Number of requests.
    pub samples: u64,
    /// Number of failed requests.
    pub errors: u64,
    /// Number of requests that were answered with a 4xx.
    #[serde(default)]
    pub refused: u64,
    /// Number of requests during the version's warm-up: their latency does not count.
    #[serde(default)]
    pub cold: u64,
    /// Latency that 95 of 100 of the other requests kept, in microseconds.
    pub p95_us: u64,
}

/// One node's window, as `HEALTH_SNAPSHOT` carries it, with `p95` and `error_rate` of all requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SnapshotFields", into = "SnapshotFields")]
pub struct HealthSnapshot {
    /// Name of the node.
    pub node_id: NodeId,
    /// Name of the window, for people: `window-` and its end in Unix seconds.
    pub window_id: String,
    /// Figures by model.
    pub models: BTreeMap<ModelId, ModelHealth>,
}

#[derive(Serialize, Deserialize)]
struct SnapshotFields {
    node_id: NodeId,
    window_id: String,
    /// p95 of the slowest model, in milliseconds; for people and the seed document's readers.
    #[serde(default)]
    p95: f64,
    /// Share of failed requests of all models, from 0 to 1; for the same readers.
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
    /// Figures of a model; zero when it is not named.
    pub fn of(&self, model: &ModelId) -> ModelHealth {
        self.models.get(model).copied().unwrap_or_default()
    }

    /// The highest number of the snapshot.
    pub fn highest(&self) -> u64 {
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
