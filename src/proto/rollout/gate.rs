//! Gates of a rollout: limits of the new version's own figures, and conditions that other systems
//! judge (T8).
//!
//! Invariants: a gate names its unit; its text is one line, and parsing that text gives the same
//! gate, so all nodes know it by its text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Figure of the canary that a gate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Latency that half of the requests keep.
    P50,
    /// Latency that 95 of 100 requests keep.
    P95,
    /// Latency that 99 of 100 requests keep.
    P99,
    /// Share of requests that failed: answered with a 5xx, not wholly answered, or never sent.
    Error,
    /// Share of requests that were answered with a 4xx.
    Refused,
    /// Share of requests that were answered with a 5xx.
    Answered5xx,
    /// Share of requests for which no connection could be made.
    Unreached,
}

impl Metric {
    const ALL: [(&'static str, Self); 7] = [
        ("p50", Self::P50),
        ("p95", Self::P95),
        ("p99", Self::P99),
        ("error", Self::Error),
        ("4xx", Self::Refused),
        ("5xx", Self::Answered5xx),
        ("connect", Self::Unreached),
    ];

    /// True for a latency, false for a share of the requests.
    pub const fn is_latency(self) -> bool {
        matches!(self, Self::P50 | Self::P95 | Self::P99)
    }

    /// Name of the metric in a gate.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|it| it.1 == self).map_or("", |it| it.0)
    }
}

/// Limit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Maximum in microseconds.
    Micros(u64),
    /// Maximum in millionths of the requests.
    PerMillion(u32),
    /// Maximum in thousandths of the stable version's figure.
    OfStable(u32),
}

/// Comparison of a sample with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The sample is below the limit.
    Less,
    /// The sample is at most the limit.
    AtMost,
    /// The sample is above the limit.
    Greater,
    /// The sample is at least the limit.
    AtLeast,
}

impl Comparison {
    const ALL: [(&'static str, Self); 4] =
        [("<=", Self::AtMost), (">=", Self::AtLeast), ("<", Self::Less), (">", Self::Greater)];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }
}

/// Condition on all samples that a query of a Prometheus gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusGate {
    /// The query, in Prometheus' own language.
    pub query: String,
    /// Comparison that each sample has to pass.
    pub comparison: Comparison,
    /// Limit, as a decimal number.
    limit: String,
    /// Address of the Prometheus, without `/api/v1/query`.
    pub url: String,
}

/// Condition that must hold before a further step: `p95=200ms`, `error=1%`, `p95<=1.2x` (`=` means
/// at most, as `<=` does), `prom:QUERY<0.01@http://prometheus:9090`, `http:http://host/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Gate {
    /// A limit of the canary's own figures.
    Own {
        /// The figure that is limited.
        metric: Metric,
        /// The limit of the figure.
        limit: Limit,
    },
    /// A condition on a Prometheus.
    Prometheus(PrometheusGate),
    /// The URL answers with a 2xx.
    Http(String),
}

/// Parses a decimal number as thousandths; at most three places, no sign, no exponent.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |it: &str| !it.is_empty() && it.bytes().all(|c| c.is_ascii_digit());
    if !is_digits(whole) || !is_digits(part) || part.len() > 3 {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)
}

const WRONG_PROMETHEUS: &str = "a gate of a Prometheus is like \
                                prom:QUERY<0.01@http://prometheus:9090, with <, <=, > or >=";

/// True if the text is a web address that fits into the head of a request.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_fit = |c: u8| c.is_ascii_graphic() && c != b'#';
    rest.is_some_and(|it| !it.is_empty() && !it.starts_with('/') && it.bytes().all(is_fit))
}

impl FromStr for PrometheusGate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The query may hold an @ and comparisons of its own: the last ones are the gate's.
        let at = text.rfind("@http").ok_or(WRONG_PROMETHEUS)?;
        let (condition, url) = (&text[..at], text[at + 1..].trim_end_matches('/'));
        let at = condition.rfind(['<', '>']).ok_or(WRONG_PROMETHEUS)?;
        let is_it = |it: &&(&str, Comparison)| condition[at..].starts_with(it.0);
        let (word, comparison) = *Comparison::ALL.iter().find(is_it).ok_or(WRONG_PROMETHEUS)?;
        let (query, limit) = (condition[..at].trim(), condition[at + word.len()..].trim());
        if !limit.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err("the limit of a Prometheus gate is a number, as in <0.01");
        }
        if query.is_empty() || query.chars().any(char::is_control) {
            return Err(WRONG_PROMETHEUS);
        }
        if !is_url(url) {
            return Err("a Prometheus is at an address like http://prometheus:9090");
        }
        let (query, limit, url) = (query.to_owned(), limit.to_owned(), url.to_owned());
        Ok(Self { query, comparison, limit, url })
    }
}

impl fmt::Display for PrometheusGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { query, comparison, limit, url } = self;
        write!(f, "prom:{query}{}{limit}@{url}", comparison.as_str())
    }
}

impl PrometheusGate {
    /// URL that asks the query.
    pub fn request(&self) -> String {
        let mut url = format!("{}/api/v1/query?query=", self.url);
        for byte in self.query.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                url.push(char::from(byte));
            } else {
                url += &format!("%{byte:02X}");
            }
        }
        url
    }

    /// True if all samples pass; `None` if there is no sample, or one that is no number, as a ratio
    /// without requests gives it.
    pub fn holds(&self, samples: &[f64]) -> Option<bool> {
        let limit: f64 = self.limit.parse().ok()?;
        let passes = |sample: &f64| match self.comparison {
            Comparison::Less => *sample < limit,
            Comparison::AtMost => *sample <= limit,
            Comparison::Greater => *sample > limit,
            Comparison::AtLeast => *sample >= limit,
        };
        if samples.iter().any(|it| !it.is_nan() && !passes(it)) {
            return Some(false);
        }
        let is_known = !samples.is_empty() && !samples.iter().any(|it| it.is_nan());
        is_known.then_some(true)
    }
}

fn own(text: &str) -> Result<Gate, &'static str> {
    const WRONG: &str = "a gate is like p95=200ms, error=1%, 4xx=5%, p95<=1.2x, \
                         prom:QUERY<0.01@http://prometheus:9090 or http:http://host/ready";
    let (name, value) = text.split_once("<=").or_else(|| text.split_once('=')).ok_or(WRONG)?;
    let metric = Metric::ALL.into_iter().find(|it| it.0 == name).map(|it| it.1);
    let metric = metric.ok_or(
        "a gate is of p50, p95, p99, error, 4xx, 5xx or connect, or begins with prom: or http:",
    )?;
    let at = value.find(|c: char| c.is_ascii_alphabetic() || c == '%');
    let (number, unit) = value.split_at(at.ok_or("a gate needs a unit: ms, s, % or x")?);
    let number = thousandths(number).ok_or(WRONG)?;
    let narrow = |number: u64| u32::try_from(number).map_err(|_| WRONG);
    let limit = match (metric.is_latency(), unit) {
        (true, "ms") => Limit::Micros(number),
        (true, "s") => Limit::Micros(number.checked_mul(1000).ok_or(WRONG)?),
        (false, "%") if number <= 100_000 => Limit::PerMillion(narrow(number * 10)?),
        (_, "x") => Limit::OfStable(narrow(number)?),
        _ => return Err("a latency is limited in ms, s or x, a share in % (at most 100) or x"),
    };
    Ok(Gate::Own { metric, limit })
}

impl FromStr for Gate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(condition) = text.strip_prefix("prom:") {
            return condition.parse().map(Self::Prometheus);
        }
        match text.strip_prefix("http:") {
            Some(url) if is_url(url) => Ok(Self::Http(url.to_owned())),
            Some(_) => Err("a gate of a web address is like http:http://host/ready"),
            None => own(text),
        }
    }
}

impl Gate {
    /// True if the gate compares with the stable version.
    pub const fn is_relative(&self) -> bool {
        matches!(self, Self::Own { limit: Limit::OfStable(_), .. })
    }

    /// True if another system judges the gate.
    pub const fn is_outside(&self) -> bool {
        !matches!(self, Self::Own { .. })
    }

    /// True if the gate limits that figure.
    pub fn is_of(&self, wanted: Metric) -> bool {
        matches!(self, Self::Own { metric, .. } if *metric == wanted)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (metric, limit) = match self {
            Self::Own { metric, limit } => (metric, limit),
            Self::Prometheus(it) => return it.fmt(f),
            Self::Http(url) => return write!(f, "http:{url}"),
        };
        let (number, unit) = match *limit {
            Limit::Micros(micros) => (micros, "ms"),
            Limit::PerMillion(share) => (u64::from(share) / 10, "%"),
            Limit::OfStable(ratio) => (u64::from(ratio), "x"),
        };
        let text = format!("{}.{:03}", number / 1000, number % 1000);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        write!(f, "{}<={text}{unit}", metric.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_says_its_unit() {
        for (text, shown) in [
            ("p95=200ms", "p95<=200ms"),
            ("p95<=0.25s", "p95<=250ms"),
            ("error=1%", "error<=1%"),
            ("error<=0.05%", "error<=0.05%"),
            ("p95<=1.2x", "p95<=1.2x"),
            ("4xx=5%", "4xx<=5%"),
            ("p50=10ms", "p50<=10ms"),
            ("p99<=2x", "p99<=2x"),
            ("5xx=0.5%", "5xx<=0.5%"),
            ("connect<=0%", "connect<=0%"),
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
            "p99=1%",
            "error=1ms",
            "connect=1s",
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
    fn a_gate_from_outside_survives_its_text() {
        for (text, shown, query, url) in [
            ("prom:up<1@http://p:9090", None, "up", "http://p:9090"),
            ("prom:a >= -1e3 @http://p/", Some("prom:a>=-1e3@http://p"), "a", "http://p"),
            (
                "prom:sum(rate(x{a=\"b@http://c<1\"}[1m] @ 5)) > bool 3 <= 0.5@https://p:1/prom",
                Some(
                    "prom:sum(rate(x{a=\"b@http://c<1\"}[1m] @ 5)) > bool 3<=0.5@https://p:1/prom",
                ),
                "sum(rate(x{a=\"b@http://c<1\"}[1m] @ 5)) > bool 3",
                "https://p:1/prom",
            ),
            ("prom:up>0@http://u:p@host:1", None, "up", "http://u:p@host:1"),
        ] {
            let gate: Gate = text.parse().unwrap();
            let again = shown.unwrap_or(text);
            assert_eq!(gate.to_string(), again);
            assert_eq!(again.parse::<Gate>().unwrap(), gate);
            let Gate::Prometheus(gate) = gate else { panic!("{text}") };
            assert_eq!((&*gate.query, &*gate.url), (query, url));
        }
        let ready = "http:https://host:1/ready?x=1";
        assert_eq!(ready.parse::<Gate>().unwrap().to_string(), ready);
        for wrong in [
            "prom:",
            "prom:up",
            "prom:up<1",
            "prom:up=1@http://p",
            "prom:<1@http://p",
            "prom:up<@http://p",
            "prom:up<x@http://p",
            "prom:up<inf@http://p",
            "prom:up<nan@http://p",
            "prom:up<1@http://",
            "prom:up<1@httpx://p",
            "prom:up<1@http://p q",
            "prom:up\r\nX: 1<1@http://p",
            "http:",
            "http:host",
            "http://host",
            "http:ftp://host",
            "http:http://host/\r\nX: 1",
        ] {
            assert!(wrong.parse::<Gate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_query_is_asked_as_it_is_and_all_its_samples_must_pass() {
        let gate = |text: &str| match text.parse().unwrap() {
            Gate::Prometheus(gate) => gate,
            other => panic!("{other}"),
        };
        let asked = gate("prom:a{b=\"é&+\"}<1@http://p/x/").request();
        assert_eq!(asked, "http://p/x/api/v1/query?query=a%7Bb%3D%22%C3%A9%26%2B%22%7D");
        for (condition, samples, verdict) in [
            ("<1", &[0.5][..], Some(true)),
            ("<1", &[1.0], Some(false)),
            ("<=1", &[1.0, -2.0], Some(true)),
            (">1", &[1.0], Some(false)),
            (">=1", &[1.0, f64::INFINITY], Some(true)),
            ("<1", &[0.5, 2.0], Some(false)),
            ("<1", &[], None),
            ("<1", &[f64::NAN], None),
            ("<1", &[0.5, f64::NAN], None),
            ("<1", &[2.0, f64::NAN], Some(false)),
        ] {
            let gate = gate(&format!("prom:up{condition}@http://p"));
            assert_eq!(gate.holds(samples), verdict, "{condition} {samples:?}");
        }
    }
}
