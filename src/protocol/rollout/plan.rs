//! A rollout's plan: which steps, how far apart, and by which gates (T8).
//!
//! Invariants: steps ascend and end with everything; a gate says its unit; a plan travels in the
//! transaction that starts it and is the same everywhere, so whoever is left can go on with it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::health::{HealthSnapshot, Verdict};
use super::ids::{ModelId, NodeId};
use super::state::BASIS_POINTS;
use crate::model::SigningBytes;

/// Steps of a plan at most.
pub const STEPS_MAX: usize = 100;
/// Gates of a plan at most.
pub const GATES_MAX: usize = 16;
/// The longest interval between two steps: a week.
pub const INTERVAL_MAX: Duration = Duration::from_secs(604_800);

/// What a gate looks at, in the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// The latency that 95 of 100 requests keep.
    P95,
    /// The share of requests that failed.
    Error,
}

/// What it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// At most so many microseconds.
    Micros(u64),
    /// At most so many of a million requests.
    PerMillion(u32),
    /// At most so many thousandths of the stable version's.
    OfStable(u32),
}

/// A limit of health: `p95=200ms`, `error=1%`, `p95<=1.2x`; `=` means at most, as `<=` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gate {
    /// What is looked at.
    pub metric: Metric,
    /// What it may be.
    pub limit: Limit,
}

/// A decimal number as so many thousandths; at most three places, no sign, no exponent.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |it: &str| !it.is_empty() && it.bytes().all(|c| c.is_ascii_digit());
    if !is_digits(whole) || !is_digits(part) || part.len() > 3 {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)
}

impl FromStr for Gate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a gate is like p95=200ms, error=1% or p95<=1.2x";
        let (name, value) = text.split_once("<=").or_else(|| text.split_once('=')).ok_or(WRONG)?;
        let metric = match name {
            "p95" => Metric::P95,
            "error" => Metric::Error,
            _ => return Err("a gate is of p95 or of error"),
        };
        let at = value.find(|c: char| c.is_ascii_alphabetic() || c == '%');
        let (number, unit) = value.split_at(at.ok_or("a gate needs a unit: ms, s, % or x")?);
        let number = thousandths(number).ok_or(WRONG)?;
        let narrow = |number: u64| u32::try_from(number).map_err(|_| WRONG);
        let limit = match (metric, unit) {
            (Metric::P95, "ms") => Limit::Micros(number),
            (Metric::P95, "s") => Limit::Micros(number.checked_mul(1000).ok_or(WRONG)?),
            (Metric::Error, "%") if number <= 100_000 => Limit::PerMillion(narrow(number * 10)?),
            (_, "x") => Limit::OfStable(narrow(number)?),
            _ => return Err("p95 is limited in ms, s or x, error in % (at most 100) or x"),
        };
        Ok(Self { metric, limit })
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.metric {
            Metric::P95 => "p95",
            Metric::Error => "error",
        };
        let (number, unit) = match self.limit {
            Limit::Micros(micros) => (micros, "ms"),
            Limit::PerMillion(share) => (u64::from(share) / 10, "%"),
            Limit::OfStable(ratio) => (u64::from(ratio), "x"),
        };
        let text = format!("{}.{:03}", number / 1000, number % 1000);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        write!(f, "{name}<={text}{unit}")
    }
}

impl TryFrom<String> for Gate {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Gate> for String {
    fn from(gate: Gate) -> Self {
        gate.to_string()
    }
}

/// What binds a request to one version while a rollout lives (T9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// The value of this header.
    Header(String),
    /// The value of this field of the JSON body.
    Json(String),
}

/// What the fleet is to do, one transaction a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The stable version.
    pub from: ModelId,
    /// The new one.
    pub to: ModelId,
    /// The new one's shares in basis points: ascending, the last is 10,000.
    pub steps: Vec<u32>,
    /// Between two steps.
    pub interval_ms: u64,
    /// What must hold before each further step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// Whether and by what requests stick to a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// What the buckets of sticky requests are drawn with; the same as long as the rollout lives.
    pub salt: u64,
    /// Fewer requests to the canary than this in a window say nothing.
    pub samples_min: u64,
    /// How long the window is that gates look at.
    pub window_ms: u64,
    /// Who takes the steps as long as it is alive.
    pub owner: NodeId,
}

impl Plan {
    /// Why this is no plan, if so.
    ///
    /// # Errors
    /// With the reason, in words for whoever wrote it.
    pub fn check(&self) -> Result<(), &'static str> {
        let ascends = self.steps.windows(2).all(|pair| pair[0] < pair[1]);
        if self.from == self.to {
            return Err("a rollout is from one version to another");
        }
        if self.steps.is_empty() || self.steps.len() > STEPS_MAX {
            return Err("a rollout has 1 to 100 steps");
        }
        if !ascends || self.steps[0] == 0 {
            return Err("the steps are not ascending from above 0 %");
        }
        if self.steps.last() != Some(&BASIS_POINTS) {
            return Err("the last step is not 100 %");
        }
        if self.gates.len() > GATES_MAX {
            return Err("a rollout has at most 16 gates");
        }
        if Duration::from_millis(self.interval_ms) > INTERVAL_MAX {
            return Err("the interval is longer than a week");
        }
        if Duration::from_millis(self.window_ms) > INTERVAL_MAX || self.window_ms == 0 {
            return Err("the window is not between 1 ms and a week");
        }
        Ok(())
    }

    /// What one node's health says of going on, and what spoke against it.
    #[must_use]
    pub fn judge(&self, health: &HealthSnapshot) -> (Verdict, Option<Gate>) {
        let (canary, stable) = (health.of(&self.to), health.of(&self.from));
        if self.gates.is_empty() {
            return (Verdict::Good, None);
        }
        if canary.samples < self.samples_min.max(1) {
            return (Verdict::TooFew, None);
        }
        let mut verdict = Verdict::Good;
        for gate in &self.gates {
            match gate.judge(canary, stable, self.samples_min.max(1)) {
                Verdict::Bad => return (Verdict::Bad, Some(*gate)),
                Verdict::TooFew => verdict = Verdict::TooFew,
                Verdict::Good => {}
            }
        }
        (verdict, None)
    }

    pub(super) fn sign_into(&self, bytes: SigningBytes) -> SigningBytes {
        let bytes = bytes
            .text(self.from.as_str())
            .text(self.to.as_str())
            .number(self.interval_ms)
            .number(self.salt)
            .number(self.samples_min)
            .number(self.window_ms)
            .text(self.owner.as_str());
        let bytes = match &self.sticky {
            None => bytes.number(0),
            Some(Sticky::Header(name)) => bytes.number(1).text(name),
            Some(Sticky::Json(name)) => bytes.number(2).text(name),
        };
        let bytes = bytes.number(self.steps.len() as u64);
        let bytes = self.steps.iter().fold(bytes, |bytes, step| bytes.number((*step).into()));
        let bytes = bytes.number(self.gates.len() as u64);
        self.gates.iter().fold(bytes, |bytes, gate| bytes.text(&gate.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::ModelHealth;
    use super::*;

    fn plan(gates: &[&str]) -> Plan {
        Plan {
            from: "v1".parse().unwrap(),
            to: "v2".parse().unwrap(),
            steps: vec![500, 2000, 10_000],
            interval_ms: 1000,
            gates: gates.iter().map(|it| it.parse().unwrap()).collect(),
            sticky: None,
            salt: 1,
            samples_min: 10,
            window_ms: 1000,
            owner: "node-a".parse().unwrap(),
        }
    }

    fn health(stable: (u64, u64, u64), canary: (u64, u64, u64)) -> HealthSnapshot {
        let of = |(samples, errors, p95_us)| ModelHealth { samples, errors, p95_us };
        HealthSnapshot {
            node_id: "node-a".parse().unwrap(),
            window_id: "window-1".to_owned(),
            models: [("v1".parse().unwrap(), of(stable)), ("v2".parse().unwrap(), of(canary))]
                .into(),
        }
    }

    #[test]
    fn a_gate_says_its_unit() {
        for (text, shown) in [
            ("p95=200ms", "p95<=200ms"),
            ("p95<=0.25s", "p95<=250ms"),
            ("error=1%", "error<=1%"),
            ("error<=0.05%", "error<=0.05%"),
            ("p95<=1.2x", "p95<=1.2x"),
        ] {
            let gate: Gate = text.parse().unwrap();
            assert_eq!(gate.to_string(), shown);
            assert_eq!(shown.parse::<Gate>().unwrap(), gate);
        }
        for wrong in [
            "p95=200",
            "p95",
            "p95=%",
            "p95=1%",
            "error=1ms",
            "error=101%",
            "cpu=1%",
            "p95=-1ms",
            "p95=1e3ms",
            "p95=1.2345x",
            "",
        ] {
            assert!(wrong.parse::<Gate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn steps_ascend_and_end_with_everything() {
        assert_eq!(plan(&[]).check(), Ok(()));
        for steps in [vec![], vec![500], vec![0, 10_000], vec![500, 500, 10_000], vec![10_000, 5]] {
            assert!(Plan { steps: steps.clone(), ..plan(&[]) }.check().is_err(), "{steps:?}");
        }
        let same = Plan { to: "v1".parse().unwrap(), ..plan(&[]) };
        assert!(same.check().is_err());
    }

    #[test]
    fn gates_judge_good_bad_and_too_few() {
        let good = (100, 0, 50_000);
        for (gates, canary, verdict) in [
            (vec![], (0, 0, 0), Verdict::Good),
            (vec!["p95=200ms"], (9, 9, 900_000), Verdict::TooFew),
            (vec!["p95=200ms"], (10, 0, 200_000), Verdict::Good),
            (vec!["p95=200ms"], (10, 0, 200_001), Verdict::Bad),
            (vec!["error=10%"], (10, 1, 1), Verdict::Good),
            (vec!["error=10%"], (10, 2, 1), Verdict::Bad),
            (vec!["p95<=1.2x"], (10, 0, 60_000), Verdict::Good),
            (vec!["p95<=1.2x"], (10, 0, 60_001), Verdict::Bad),
            (vec!["p95=200ms", "error=1%"], (100, 5, 1), Verdict::Bad),
        ] {
            let (found, blamed) = plan(&gates).judge(&health(good, canary));
            assert_eq!(found, verdict, "{gates:?} {canary:?}");
            assert_eq!(blamed.is_some(), verdict == Verdict::Bad);
        }
        // Without a stable version that is used there is nothing to compare with.
        let (found, _) = plan(&["p95<=1.2x"]).judge(&health((1, 0, 1), (10, 0, 60_000)));
        assert_eq!(found, Verdict::TooFew);
    }
}
