//! Metrics of a node, for programs that collect them: from its status to the text of Prometheus.
//!
//! [`table`] lists them.

pub mod process;
pub mod table;

use std::fmt;
use std::sync::LazyLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use serde_json::{Map, Number, Value};

use self::table::{MetricKind, MetricRow, ROWS};
use crate::runtime::web::prometheus;

/// Prefix of every metric's name.
const PREFIX: &str = "folkmoot";

/// The metrics of a node with this status, as `OpenMetrics`.
pub fn open_metrics(status: &Value) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Snapshot(status.clone())));
    prometheus::open_metrics(&registry)
}

/// The metrics of a node with this status, in the classic text format.
pub fn classic(status: &Value) -> String {
    prometheus::classic(&open_metrics(status))
}

/// The metrics as one object: the name of each line, with its label, and its value.
pub fn json(status: &Value) -> Map<String, Value> {
    let lines = classic(status);
    let values = lines.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let whole = value.parse::<u64>().ok().map(Number::from);
        let number = whole.or_else(|| Number::from_f64(value.parse().ok()?))?;
        Some((name.to_owned(), Value::Number(number)))
    });
    values.collect()
}

#[derive(Debug)]
struct Snapshot(Value);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let text = |name: &str| self.0[name].as_str().unwrap_or_default().to_owned();
        let labels = [("role", text("role")), ("version", text("version"))];
        let help = "Which program this is";
        encoder.encode_descriptor("build", help, None, MetricType::Info)?.encode_info(&labels)?;
        for row in ROWS {
            let values = values(row, &self.0);
            if values.is_empty() {
                continue;
            }
            let kind = match row.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
                MetricKind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(row.name, row.help, None, kind)?;
            for (label, value) in values {
                match row.label {
                    None => write(&mut family, row, value)?,
                    Some(name) => {
                        let labels = [(name, label)];
                        write(&mut family.encode_family(&labels)?, row, value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Value of a metric that was not counted yet.
static ZERO: LazyLock<Value> = LazyLock::new(|| Value::from(0));

/// The values of a row that a status has, each with its label's value.
fn values<'a>(row: &MetricRow, status: &'a Value) -> Vec<(String, &'a Value)> {
    let mut values = Vec::new();
    for (label, path) in row.sources {
        let pointer = format!("/{}", path.replace('.', "/"));
        match status.pointer(&pointer) {
            None | Some(Value::Null) => {}
            Some(Value::Object(each))
                if row.label.is_some() && row.kind != MetricKind::Histogram =>
            {
                let quiet = row.from_start.iter().filter(|name| !each.contains_key(**name));
                let named = quiet.map(|name| (*name, &*ZERO));
                let named = named.chain(each.iter().map(|(name, value)| (name.as_str(), value)));
                values.extend(named.map(|(name, value)| (name.replace([' ', '-'], "_"), value)));
            }
            Some(value) => values.push(((*label).to_owned(), value)),
        }
    }
    values
}

fn write(to: &mut MetricEncoder<'_>, row: &MetricRow, value: &Value) -> fmt::Result {
    if row.kind == MetricKind::Histogram {
        return write_histogram(to, row, value);
    }
    let whole = match value {
        Value::Bool(is_so) => Some(u64::from(*is_so)),
        // A list is measured by its length: labels do not grow with the fleet.
        Value::Array(items) => Some(items.len() as u64),
        Value::Object(items) => Some(items.len() as u64),
        Value::Number(number) => number.as_u64(),
        Value::Null | Value::String(_) => None,
    };
    let real = whole.map_or_else(|| value.as_f64().unwrap_or(0.0), |it| it as f64) / row.divisor;
    match (row.kind, whole.filter(|_| row.divisor == 1.0)) {
        (MetricKind::Counter, Some(whole)) => to.encode_counter::<NoLabelSet, _, f64>(&whole, None),
        (MetricKind::Counter, None) => to.encode_counter::<NoLabelSet, _, f64>(&real, None),
        (_, Some(whole)) => to.encode_gauge(&whole),
        (_, None) => to.encode_gauge(&real),
    }
}

fn write_histogram(to: &mut MetricEncoder<'_>, row: &MetricRow, value: &Value) -> fmt::Result {
    let number = |name: &str| value[name].as_u64().unwrap_or(0);
    let mut below = 0;
    let mut buckets = Vec::new();
    for bucket in value["buckets"].as_array().into_iter().flatten() {
        let bound = bucket[0].as_u64().map_or(f64::INFINITY, |it| it as f64 / row.divisor);
        let count = bucket[1].as_u64().unwrap_or(below);
        // The writer of the format adds the buckets up again.
        buckets.push((bound, count.saturating_sub(below)));
        below = count;
    }
    let sum = number("sum") as f64 / row.divisor;
    to.encode_histogram::<NoLabelSet>(sum, number("count"), &buckets, None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::machine::histogram::Histogram;

    fn status() -> Value {
        json!({
            "role": "peer", "version": "1.2", "healthy": true, "uptime_ms": 1_500,
            "counters": { "lines_out": 7, "garbled": 1, "oversized": 0, "lines_lost": 2 },
            "refused": { "message not allowed": 3, "handshake time-out": 1 },
            "neighbors": { "127.0.0.1:1": 5, "127.0.0.1:2": null }, "suspects": [],
        })
    }

    #[test]
    fn a_status_becomes_lines_with_types_and_labels() {
        let text = classic(&status());
        for line in [
            "# TYPE folkmoot_build_info gauge",
            "folkmoot_build_info{role=\"peer\",version=\"1.2\"} 1",
            "folkmoot_healthy 1",
            "folkmoot_uptime_seconds 1.5",
            "# TYPE folkmoot_messages_sent_total counter",
            "# HELP folkmoot_messages_sent_total Messages written to links",
            "folkmoot_messages_sent_total 7",
            "folkmoot_messages_dropped_total{reason=\"link_lost\"} 2",
            "folkmoot_refusals_total{cause=\"message_not_allowed\"} 3",
            "folkmoot_refusals_total{cause=\"handshake_time_out\"} 1",
            "folkmoot_refusals_total{cause=\"garbled_line\"} 0",
            "folkmoot_refusals_total{cause=\"wrong_role\"} 0",
            "folkmoot_connected_peers 2",
            "folkmoot_suspects 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert!(
            !text.contains("127.0.0.1")
                && !text.contains("EOF")
                && !text.contains("folkmoot_members")
        );
        let open = open_metrics(&status());
        assert!(
            open.ends_with("# EOF\n") && open.contains("# TYPE folkmoot_messages_sent counter")
        );
        let json = json(&status());
        assert_eq!(json["folkmoot_messages_sent_total"], 7);
        assert_eq!(json["folkmoot_messages_dropped_total{reason=\"garbled\"}"], 1);
        assert_eq!(json["folkmoot_uptime_seconds"], 1.5);
    }

    #[test]
    fn a_histogram_is_cumulative_and_in_its_unit() {
        let mut seen = Histogram::new(&[10, 100]);
        for value in [5, 50, 500] {
            seen.observe(value);
        }
        let value = serde_json::to_value(&seen).expect("a histogram can be shown");
        let row = MetricRow {
            name: "wait_seconds",
            kind: MetricKind::Histogram,
            help: "x",
            label: None,
            sources: &[("", "wait")],
            from_start: &[],
            divisor: 1_000.0,
        };
        let mut registry = Registry::with_prefix(PREFIX);
        #[derive(Debug)]
        struct One(MetricRow, Value);
        impl Collector for One {
            fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
                let kind = MetricType::Histogram;
                let mut to = encoder.encode_descriptor(self.0.name, self.0.help, None, kind)?;
                write(&mut to, &self.0, &self.1)
            }
        }
        registry.register_collector(Box::new(One(row, value)));
        let text = prometheus::open_metrics(&registry);
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "folkmoot_wait_seconds_sum 0.555",
            "folkmoot_wait_seconds_count 3",
            "folkmoot_wait_seconds_bucket{le=\"0.01\"} 1",
            "folkmoot_wait_seconds_bucket{le=\"0.1\"} 2",
            "folkmoot_wait_seconds_bucket{le=\"+Inf\"} 3",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn every_metric_is_named_once_and_as_such_names_are() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(row.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert!(!row.name.ends_with("_total"), "{}: that is added", row.name);
            assert!(ROWS[..at].iter().all(|other| other.name != row.name), "{} twice", row.name);
            assert!(!row.help.contains(['\n', '\\', '"']), "{}", row.name);
            assert!(row.label.is_some() || row.sources.iter().all(|(label, _)| label.is_empty()));
        }
    }
}
