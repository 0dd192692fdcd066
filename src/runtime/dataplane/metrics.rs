//! The text of `/metrics`; each name has a row in `docs/METRICS.md`.

use std::fmt::Write as _;

use super::Shared;
use super::upstream::PoolCounters;
use crate::machine::histogram::Histogram;
use crate::proto::rollout::ModelId;

/// Converts to seconds, which collectors want: latency bounds are whole microseconds.
#[allow(clippy::cast_precision_loss, reason = "it is shown, nothing is decided by it")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn single(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    head(text, name, kind, help);
    let _ = writeln!(text, "{name} {value}");
}

fn histogram(text: &mut String, name: &str, model: &ModelId, seen: &Histogram) {
    for (bound, count) in seen.buckets() {
        let le = bound.map_or_else(|| "+Inf".to_owned(), |it| seconds(it).to_string());
        let _ = writeln!(text, "{name}_bucket{{model=\"{model}\",le=\"{le}\"}} {count}");
    }
    let _ = writeln!(text, "{name}_sum{{model=\"{model}\"}} {}", seconds(seen.sum()));
    let _ = writeln!(text, "{name}_count{{model=\"{model}\"}} {}", seen.count());
}

/// Text of all metrics.
pub(super) fn text(shared: &Shared) -> String {
    let mut text = String::with_capacity(8 * 1024);
    let out = &mut text;
    let (serving_state, _) = shared.current();
    if let Some(serving_state) = serving_state {
        let state = &serving_state.serving.state;
        let help = "Version of the committed state that is served.";
        single(out, "folkmoot_rollout_version", "gauge", help, state.version);
        let help = "Whether the brake is on: 1, everything goes to the stable version.";
        let brake = u64::from(serving_state.serving.brake.is_some());
        single(out, "folkmoot_rollout_brake", "gauge", help, brake);
        let name = "folkmoot_rollout_weight";
        head(out, name, "gauge", "Share of the requests that each model is to get.");
        for (model, share) in state.weights.iter() {
            let _ = writeln!(out, "{name}{{model=\"{model}\"}} {}", f64::from(share) / 10_000.0);
        }
    }
    let meters: Vec<_> = {
        let current = shared.lock();
        current.meters.iter().map(|(model, it)| (model.clone(), it.clone())).collect()
    };
    let name = "folkmoot_predict_seconds";
    head(out, name, "histogram", "Time from a whole request to the model's whole answer.");
    for (model, meter) in &meters {
        let seen = meter.readings().latency_us.clone();
        histogram(out, name, model, &seen);
    }
    let name = "folkmoot_predict_errors_total";
    head(out, name, "counter", "Requests that a model failed: 5xx, no answer, half an answer.");
    for (model, meter) in &meters {
        let errors = meter.readings().errors;
        let _ = writeln!(out, "{name}{{model=\"{model}\"}} {errors}");
    }
    upstreams(out, shared);
    let counters = &shared.counters;
    for (name, help, value) in [
        ("connections", "Connections served.", counters.connections.get()),
        ("requests", "Requests whose head was read.", counters.requests.get()),
        ("refused", "Requests that were no good, or for nothing there is.", counters.refused.get()),
        ("refused_busy", "Connections refused, too many.", counters.refused_busy.get()),
        ("closed_idle", "Connections closed, nothing more said.", counters.closed_idle.get()),
        ("write_failed", "Answers that were not taken.", counters.write_failed.get()),
    ] {
        single(out, &format!("folkmoot_data_plane_{name}_total"), "counter", help, value);
    }
    let open = shared.server.sockets.clients() as u64;
    single(out, "folkmoot_data_plane_connections", "gauge", "Connections now.", open);
    if let Some(more) = &shared.more_metrics {
        more(out);
    }
    text
}

fn upstreams(out: &mut String, shared: &Shared) {
    type Column = (&'static str, &'static str, fn(&PoolCounters) -> u64);
    const COLUMNS: [Column; 4] = [
        ("dials", "Connections made to an upstream.", |it| it.dials.get()),
        ("reuses", "Requests over a connection that was kept.", |it| it.reuses.get()),
        ("stale", "Kept connections that were over.", |it| it.stale.get()),
        ("failures", "Requests without a whole answer.", |it| it.failures.get()),
    ];
    for (name, help, of) in COLUMNS {
        let name = format!("folkmoot_upstream_{name}_total");
        head(out, &name, "counter", help);
        for (model, pool) in &shared.pools().clone() {
            let _ = writeln!(out, "{name}{{model=\"{model}\"}} {}", of(&pool.counters));
        }
    }
}
