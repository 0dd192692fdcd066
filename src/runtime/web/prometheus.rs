//! Text of metrics, in the two formats that collectors know.

use std::collections::BTreeSet;

use hyper::HeaderMap;
use hyper::header::ACCEPT;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// Media type of `OpenMetrics`.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Media type of the classic text format.
pub(crate) const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Text of all metrics of a registry, as `OpenMetrics`.
pub(crate) fn open_metrics(registry: &Registry) -> String {
    let mut out = String::new();
    // A text takes everything, and collectors fail only where their writer does.
    let written = text::encode(&mut out, registry);
    debug_assert!(written.is_ok(), "a text takes everything");
    out
}

/// The same metrics in the classic text format.
pub(crate) fn classic(open: &str) -> String {
    let counters: BTreeSet<_> = open
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let infos: BTreeSet<_> = open
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" info"))
        .collect();
    let mut out = String::with_capacity(open.len());
    for line in open.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            // In the classic format a family is named as its lines are, and an info is a gauge.
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                let ending = match name {
                    _ if infos.contains(name) => "_info",
                    _ if counters.contains(name) => "_total",
                    _ => "",
                };
                let rest = if what == "TYPE" && rest == "info" { "gauge" } else { rest };
                out.push_str(&format!("# {what} {name}{ending} {rest}\n"));
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// True if a client accepts `OpenMetrics`.
pub(crate) fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|wish| {
        let mut words = wish.split(';').map(str::trim);
        let is_it =
            words.next().is_some_and(|it| it.eq_ignore_ascii_case("application/openmetrics-text"));
        let weight = words.find_map(|it| it.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f64>);
        is_it && weight.is_ok_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_format_is_for_those_who_name_it() {
        let wants = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            wants_open_metrics(&headers)
        };
        assert!(wants("application/openmetrics-text"));
        assert!(wants("text/plain;q=0.5, Application/OpenMetrics-Text; version=1.0.0;q=0.8"));
        for accept in ["*/*", "text/plain", "application/openmetrics-text;q=0", "text/html,*/*"] {
            assert!(!wants(accept), "{accept}");
        }
    }
}
