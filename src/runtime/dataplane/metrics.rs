//! Metrics of a data plane; each name has a row in `docs/METRICS.md`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Shared;
use super::meters::Meter;
use super::pool::Version;
use crate::machine::histogram::Histogram;

/// Prefix of every metric's name.
const PREFIX: &str = "folkmoot";

/// Names of the classes of answers; the first is of requests without one.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// All metrics at this moment.
pub(super) fn registry(shared: &Shared) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Snapshot::of(shared)));
    if let Some(more) = &shared.more_metrics {
        registry.register_collector(more());
    }
    registry
}

/// Values at one moment.
#[derive(Debug)]
struct Snapshot {
    version: Option<(u64, bool)>,
    /// Share of each version, from 0 to 1.
    weights: Vec<(String, f64)>,
    meters: Vec<(String, Histogram, [u64; 6], u64, u64)>,
    pools: Vec<(String, [u64; 7], u64, u64)>,
    plane: [(&'static str, &'static str, u64); 6],
    connections: u64,
}

impl Snapshot {
    fn of(shared: &Shared) -> Self {
        let state = shared.current();
        let serving = state.as_ref().map(|it| &it.serving);
        let meter = |(model, meter): (String, std::sync::Arc<Meter>)| {
            let readings = meter.readings();
            let latency = readings.latency_us.clone();
            (model, latency, readings.by_class, readings.errors, readings.bytes)
        };
        let meters: Vec<_> = {
            let meters = shared.meters();
            meters.iter().map(|(model, it)| (model.to_string(), it.clone())).collect()
        };
        let pool =
            |(model, version): (&crate::proto::rollout::ModelId, &std::sync::Arc<Version>)| {
                let it = &version.counters;
                let counts = [
                    &it.dials,
                    &it.reuses,
                    &it.stale,
                    &it.failures,
                    &it.unreached,
                    &it.ejections,
                    &it.busy,
                ];
                let up = version.servers.iter().filter(|it| it.is_up()).count();
                (
                    model.to_string(),
                    counts.map(|it| it.get()),
                    version.in_flight() as u64,
                    up as u64,
                )
            };
        let counters = &shared.counters;
        let guard = &counters.clients;
        Self {
            version: serving.map(|it| (it.state.version, it.brake.is_some())),
            weights: serving.map_or_else(Vec::new, |it| {
                let weights = it.state.weights.iter();
                weights.map(|(model, share)| (model.to_string(), f64::from(share) / 1e4)).collect()
            }),
            meters: meters.into_iter().map(meter).collect(),
            pools: shared.versions().iter().map(pool).collect(),
            plane: [
                ("connections", "Connections served", counters.connections.get()),
                ("requests", "Requests whose head was read", counters.requests.get()),
                (
                    "refused",
                    "Requests that were malformed, too slow, or for nothing there is",
                    counters.refused.get() + guard.refused(),
                ),
                ("refused_busy", "Connections refused, too many", counters.refused_busy.get()),
                (
                    "closed_idle",
                    "Connections closed without a further request",
                    guard.closed_idle.get(),
                ),
                ("write_failed", "Answers that were not taken", guard.write_failed.get()),
            ],
            connections: shared.places.open() as u64,
        }
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        if let Some((version, brake)) = self.version {
            gauge(to, "rollout_version", "Version of the committed state that is served", version)?;
            let help = "Whether the brake is on: 1, everything goes to the stable version";
            gauge(to, "rollout_brake", help, u64::from(brake))?;
        }
        let help = "Share of the requests that each model is to get";
        let mut family = to.encode_descriptor("rollout_weight", help, None, MetricType::Gauge)?;
        for (model, share) in &self.weights {
            family.encode_family(&[("model", model.as_str())])?.encode_gauge(share)?;
        }
        self.encode_meters(to)?;
        self.encode_pools(to)?;
        for (name, help, value) in self.plane {
            let name = format!("data_plane_{name}");
            let mut family = to.encode_descriptor(&name, help, None, MetricType::Counter)?;
            family.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        gauge(to, "data_plane_open_connections", "Connections now", self.connections)
    }
}

impl Snapshot {
    fn encode_meters(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time from a request to the head of the model's answer";
        let mut family =
            to.encode_descriptor("predict_seconds", help, None, MetricType::Histogram)?;
        for (model, latency, ..) in &self.meters {
            let mut below = 0;
            let buckets: Vec<_> = latency
                .buckets()
                .map(|(bound, count)| {
                    let own = count - below;
                    below = count;
                    (bound.map_or(f64::INFINITY, seconds), own)
                })
                .collect();
            let labels = [("model", model.as_str())];
            let mut one = family.encode_family(&labels)?;
            let (sum, count) = (seconds(latency.sum()), latency.count());
            one.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        let help = "Requests that a model failed: 5xx, no answer, half an answer";
        let mut family = to.encode_descriptor("predict_errors", help, None, MetricType::Counter)?;
        for (model, _, _, errors, _) in &self.meters {
            let labels = [("model", model.as_str())];
            let mut one = family.encode_family(&labels)?;
            one.encode_counter::<NoLabelSet, _, f64>(errors, None)?;
        }
        let help = "Requests to a model by the class of their status; none: it gave no answer";
        let mut family =
            to.encode_descriptor("predict_requests", help, None, MetricType::Counter)?;
        for (model, _, by_class, ..) in &self.meters {
            for (class, count) in CLASSES.iter().zip(by_class) {
                let labels = [("model", model.as_str()), ("class", class)];
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, f64>(count, None)?;
            }
        }
        let help = "Bytes of the bodies of a model's answers";
        let mut family = to.encode_descriptor("predict_bytes", help, None, MetricType::Counter)?;
        for (model, .., bytes) in &self.meters {
            let labels = [("model", model.as_str())];
            let mut one = family.encode_family(&labels)?;
            one.encode_counter::<NoLabelSet, _, f64>(bytes, None)?;
        }
        Ok(())
    }

    fn encode_pools(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        const ROWS: [(&str, &str); 7] = [
            ("dials", "Connections made to an upstream"),
            ("reuses", "Requests over a connection that was kept"),
            ("stale", "Kept connections that were over"),
            ("failures", "Requests without an answer"),
            ("unreached", "Calls to an upstream that did not succeed"),
            ("ejections", "Upstreams left alone for a while after failures"),
            ("busy", "Requests refused, too many under way to this model"),
        ];
        for (at, (name, help)) in ROWS.iter().enumerate() {
            let name = format!("upstream_{name}");
            let mut family = to.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (model, counts, ..) in &self.pools {
                let labels = [("model", model.as_str())];
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, f64>(&counts[at], None)?;
            }
        }
        let help = "Requests under way to a model";
        let mut family =
            to.encode_descriptor("upstream_in_flight", help, None, MetricType::Gauge)?;
        for (model, _, in_flight, _) in &self.pools {
            family.encode_family(&[("model", model.as_str())])?.encode_gauge(in_flight)?;
        }
        let help = "Upstreams of a model that can be asked";
        let mut family = to.encode_descriptor("upstream_up", help, None, MetricType::Gauge)?;
        for (model, .., up) in &self.pools {
            family.encode_family(&[("model", model.as_str())])?.encode_gauge(up)?;
        }
        Ok(())
    }
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    to.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

/// Converts to seconds, which collectors want: latency bounds are whole microseconds.
#[allow(clippy::cast_precision_loss, reason = "it is shown, nothing is decided by it")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}
