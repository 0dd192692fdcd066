//! Health of a node's real traffic, and its judgment by gates (T8).
//!
//! Invariants: counts are whole and latencies whole microseconds, so every node judges one snapshot
//! alike; a window with too few requests is never good, and is doubtful if its figures are bad.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{ModelId, NodeId};
use super::plan::{Gate, Limit, Metric};

/// Judgment of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every gate holds.
    Good,
    /// A gate does not hold.
    Bad,
    /// Too few requests to judge.
    TooFew,
    /// Too few requests, and a gate does not hold in these.
    Doubtful,
}

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

/// Returns the figures of a model over all nodes. The p95 is the one that nodes with 95 of 100 of
/// the requests keep: a node reports no more than its own p95.
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

/// Failures of a million requests that are allowed beside a stable version without any: one failure
/// is no ratio.
const ERROR_FLOOR: u32 = 10_000;

/// The same for answers with a 4xx, which are the client's fault as often as the version's.
const REFUSED_FLOOR: u32 = 50_000;

impl Gate {
    /// The limit of 4xx in a plan that has gates but none for 4xx: a version that knows nothing, or
    /// that turns everybody away, answers all requests.
    pub(super) const USUAL: Self = Self { metric: Metric::Refused, limit: Limit::OfStable(2000) };

    /// Judges this gate by a window of the canary, beside one of the stable version.
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
                // impossible counts overflow.
                let ours = wide(counted, 1000).saturating_mul(stable.samples.into());
                let theirs = wide(of_stable, ratio.into()).saturating_mul(canary.samples.into());
                let is_as_there = ours <= theirs;
                counted <= 1 || is_within(floor) || is_as_there
            }
            // A limit in the other metric's unit: parsing makes none.
            (Metric::P95, Limit::PerMillion(_))
            | (Metric::Error | Metric::Refused, Limit::Micros(_)) => false,
        };
        if holds { Verdict::Good } else { Verdict::Bad }
    }
}
