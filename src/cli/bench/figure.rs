//! Lines of a measurement: distributions, and whether a target was met.

use serde_json::{Map, Value, json};

use super::procfs;
use crate::cli::CliError;
use crate::cli::output::print;

/// Target of a figure, which is judged by its worst value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// No value is above this.
    AtMost(f64),
    /// No value is below this.
    AtLeast(f64),
}

impl Target {
    /// True if `values` meet the target; without values it is not met.
    fn is_met(self, values: &[f64]) -> bool {
        let is_good = |value: &f64| match self {
            Self::AtMost(most) => *value <= most,
            Self::AtLeast(least) => *value >= least,
        };
        !values.is_empty() && values.iter().all(is_good)
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("at most {most}"),
            Self::AtLeast(least) => format!("at least {least}"),
        }
    }
}

/// Common fields of all lines of a measurement.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    head: Map<String, Value>,
}

impl Sheet {
    /// A sheet whose lines all begin with the fields of the JSON object `head`.
    pub(super) fn new(head: Value) -> Self {
        let mut sheet =
            Self { head: if let Value::Object(head) = head { head } else { Map::new() } };
        // A fleet is itself a load, so the load before it tells more of other programs.
        sheet.note("load_before", procfs::load().into());
        sheet
    }

    /// Adds a field to all further lines.
    pub(super) fn note(&mut self, name: &str, value: Value) {
        self.head.insert(name.to_owned(), value);
    }

    /// Prints a line about `metric` with the fields of the JSON object `fields`.
    pub(super) fn line(&self, metric: &str, fields: Value) -> Result<(), CliError> {
        let mut line = self.head.clone();
        line.insert("metric".to_owned(), metric.into());
        line.extend(if let Value::Object(fields) = fields { fields } else { Map::new() });
        print(&format!("{}\n", Value::Object(line)))
    }

    /// Prints the distribution of `values`, in the unit that `metric` ends with.
    pub(super) fn figure(&self, metric: &str, values: &[f64]) -> Result<(), CliError> {
        self.line(metric, Value::Object(spread(values)))
    }

    /// Prints the distribution of `values` and whether it meets a target.
    pub(super) fn judged(
        &self,
        metric: &str,
        values: &[f64],
        target: Target,
    ) -> Result<(), CliError> {
        let mut fields = spread(values);
        fields.insert("target".to_owned(), target.text().into());
        fields.insert("met".to_owned(), target.is_met(values).into());
        self.line(metric, Value::Object(fields))
    }
}

/// The distribution of `values`; a single value stands for itself.
fn spread(values: &[f64]) -> Map<String, Value> {
    match values {
        [value] => Map::from_iter([("value".to_owned(), json!(rounded(*value)))]),
        _ => distribution(values),
    }
}

/// The count, the ends and the percentiles of `values`, rounded to thousandths.
pub(in crate::cli) fn distribution(values: &[f64]) -> Map<String, Value> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = sorted.len().saturating_sub(1) as f64;
        sorted.get((last * share).round() as usize).map(|it| rounded(*it))
    };
    let shares = [("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];
    let parts = shares.map(|(name, share)| (name.to_owned(), json!(at(share))));
    [("n".to_owned(), json!(sorted.len()))].into_iter().chain(parts).collect()
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// Number of threads that this machine runs at once.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<_> = (0..=100).rev().map(f64::from).collect();
        let line = Value::Object(spread(&values));
        let wanted = json!({ "n": 101, "min": 0.0, "p50": 50.0, "p90": 90.0, "p99": 99.0,
            "max": 100.0 });
        assert_eq!(line, wanted);
        assert_eq!(spread(&[1.23456, 1.23456])["p90"], 1.235);
        assert_eq!(Value::Object(spread(&[1.23456])), json!({ "value": 1.235 }));
        assert_eq!(spread(&[])["p50"], Value::Null);
    }

    #[test]
    fn a_target_is_met_by_the_worst_value_or_not_at_all() {
        assert!(Target::AtMost(5.0).is_met(&[1.0, 5.0]));
        assert!(!Target::AtMost(5.0).is_met(&[1.0, 5.1]));
        assert!(Target::AtLeast(5.0).is_met(&[5.0, 9.0]));
        assert!(!Target::AtLeast(5.0).is_met(&[4.9, 9.0]));
        assert!(!Target::AtLeast(5.0).is_met(&[]), "nothing measured meets no target");
        assert!(!Target::AtMost(5.0).is_met(&[f64::NAN]));
    }
}
