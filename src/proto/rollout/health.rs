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
    /// Number of failed requests: answered with a 5xx, not wholly answered, or never sent.
    pub errors: u64,
    /// Number of requests that were answered with a 4xx.
    #[serde(default)]
    pub refused: u64,
    /// Number of requests during the version's warm-up: their latency does not count.
    #[serde(default)]
    pub cold: u64,
    /// Latency that 95 of 100 of the other requests kept, in microseconds.
    pub p95_us: u64,
    /// Latency that half of these requests kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub p50_us: u64,
    /// Latency that 99 of 100 of these requests kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub p99_us: u64,
    /// Number of requests for which no connection could be made.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreached: u64,
    /// Number of requests that were answered with a 5xx.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answered_5xx: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
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
    /// Answers of other systems to the plan's gates, by the text of the gate: true if it holds. A
    /// gate without an answer is not named.
    pub outside: BTreeMap<String, bool>,
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    outside: BTreeMap<String, bool>,
}

impl From<SnapshotFields> for HealthSnapshot {
    fn from(fields: SnapshotFields) -> Self {
        let SnapshotFields { node_id, window_id, models, outside, .. } = fields;
        Self { node_id, window_id, models, outside }
    }
}

impl From<HealthSnapshot> for SnapshotFields {
    fn from(health: HealthSnapshot) -> Self {
        let (p95, error_rate) = (health.p95_ms(), health.error_rate());
        let HealthSnapshot { node_id, window_id, models, outside } = health;
        Self { node_id, window_id, p95, error_rate, models, outside }
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
            let latency = it.p50_us.max(it.p95_us).max(it.p99_us);
            let failed = it.errors.max(it.unreached).max(it.answered_5xx);
            it.samples.max(failed).max(it.refused).max(it.cold).max(latency)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_before_are_read_and_new_ones_are_absent_while_they_are_zero() {
        let old = r#"{"samples":9,"errors":1,"p95_us":7}"#;
        let health: ModelHealth = serde_json::from_str(old).unwrap();
        let figures = ModelHealth { samples: 9, errors: 1, p95_us: 7, ..ModelHealth::default() };
        assert_eq!(health, figures);
        assert_eq!(
            serde_json::to_string(&figures).unwrap(),
            r#"{"samples":9,"errors":1,"refused":0,"cold":0,"p95_us":7}"#
        );
        let whole = ModelHealth {
            p50_us: 1,
            p99_us: 2,
            unreached: 3,
            answered_5xx: 4,
            ..ModelHealth::default()
        };
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<ModelHealth>(&text).unwrap(), whole, "{text}");
        let mut snapshot = HealthSnapshot {
            node_id: "node-a".parse().unwrap(),
            window_id: "window-1".to_owned(),
            models: BTreeMap::new(),
            outside: BTreeMap::new(),
        };
        assert!(!serde_json::to_string(&snapshot).unwrap().contains("outside"));
        snapshot.outside.insert("http:http://host".to_owned(), true);
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<HealthSnapshot>(&text).unwrap(), snapshot);
    }

    #[test]
    fn the_highest_number_is_that_of_any_figure() {
        let number = 77;
        let none = ModelHealth::default();
        for one in [
            ModelHealth { samples: number, ..none },
            ModelHealth { errors: number, ..none },
            ModelHealth { refused: number, ..none },
            ModelHealth { cold: number, ..none },
            ModelHealth { p50_us: number, ..none },
            ModelHealth { p95_us: number, ..none },
            ModelHealth { p99_us: number, ..none },
            ModelHealth { unreached: number, ..none },
            ModelHealth { answered_5xx: number, ..none },
        ] {
            let health = HealthSnapshot {
                node_id: "node-a".parse().unwrap(),
                window_id: String::new(),
                models: [("v1".parse().unwrap(), one)].into(),
                outside: BTreeMap::new(),
            };
            assert_eq!(health.highest(), number, "{one:?}");
        }
    }
}
