//! Arguments of `peer rollout start`.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::ask_args::NodeAskArgs;
use crate::cli::span::Span;
use crate::proto::rollout::{BASIS_POINTS, Gate, Mirror, ModelId, Route, Sticky};

/// Arguments of `peer rollout start`.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// The version that is served now
    #[arg(long, value_name = "NAME")]
    pub from: ModelId,
    /// The new version
    #[arg(long, value_name = "NAME")]
    pub to: ModelId,
    /// The new version's shares in percent, ascending to 100, at most two decimal places. With a
    /// first 0 it is a preview for routes and X-Canary, until peer rollout promote
    #[arg(long, value_name = "P,P,…", default_value = "5,20,50,100")]
    pub steps: Steps,
    /// The time between two steps
    #[arg(long, value_name = "TIME", default_value_t = Span(Duration::from_secs(60)))]
    pub interval: Span,
    /// Condition that must hold before each step, of the new version's traffic: p95=200ms,
    /// error=1%, p95<=1.2x, error<=2x, likewise p50, p99, 4xx, 5xx and connect; of a Prometheus:
    /// 'prom:QUERY<0.01@http://prometheus:9090'; of a web address: http:URL answers 2xx. Once for
    /// each. Beside any gate 4xx<=2x holds, unless one is of 4xx [default: none]
    #[arg(long, value_name = "GATE")]
    pub gate: Vec<Gate>,
    /// Requests to the new version within a window, below which gates say nothing and the step is
    /// held
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub samples: u64,
    /// Length of the window that gates look at
    #[arg(long, value_name = "TIME", default_value_t = Span(Duration::from_secs(60)))]
    pub window: Span,
    /// So many looks in a row, one a second, may find a gate that does not hold before it is rolled
    /// back
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub failures: u64,
    /// Do not count the latencies of the new version for so long after it began [default: a third
    /// of the interval, at most 10s]
    #[arg(long, value_name = "TIME")]
    pub warm_up: Option<Span>,
    /// Roll back when a step is due for so long and cannot be taken, for want of requests or of a
    /// node [default: it is waited for]
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<Span>,
    /// Send these requests to one version, whatever the shares are: header:NAME=VALUE,
    /// cookie:NAME=VALUE, path:/PREFIX or source:RANGE, then -> canary or -> stable, as in
    /// 'header:X-Team=qa -> canary'; once for each, the first that fits decides [default: none]
    #[arg(long, value_name = "ROUTE")]
    pub route: Vec<String>,
    /// Copy this share of the stable version's requests to the new one, whose answers nobody gets:
    /// 5% [default: none]
    #[arg(long, value_name = "PERCENT")]
    pub mirror: Option<MirrorShare>,
    /// Copy requests of all methods, not only GET, HEAD and OPTIONS
    #[arg(long, requires = "mirror")]
    pub mirror_unsafe: bool,
    /// Keep requests with the same value of this header at one version [default: none]
    #[arg(long, value_name = "NAME", group = "sticky")]
    pub sticky_header: Option<String>,
    /// The same by this field of the JSON body [default: none]
    #[arg(long, value_name = "FIELD", group = "sticky")]
    pub sticky_json: Option<String>,
    /// The same by this cookie of the application [default: none]
    #[arg(long, value_name = "NAME", group = "sticky")]
    pub sticky_cookie: Option<String>,
    /// The same by a cookie of this name that the data plane sets [default: none]
    #[arg(long, value_name = "NAME", group = "sticky")]
    pub sticky_own_cookie: Option<String>,
    /// Refuse to begin unless every node asks the same server addresses for both versions as the
    /// one that is ordered [default: each has its own, and a difference is logged]
    #[arg(long)]
    pub same_servers: bool,
    /// Stay until the rollout has ended, and show each step; exit code 1 if it was rolled back
    #[arg(long)]
    pub wait: bool,
    /// Node to ask.
    #[command(flatten)]
    pub ask: NodeAskArgs,
}

impl StartArgs {
    /// Returns the part of a request by which it stays at one version, if any.
    pub fn sticky(&self) -> Option<Sticky> {
        let cookie =
            |name: &Option<String>, own| name.clone().map(|name| Sticky::Cookie { name, own });
        let header = self.sticky_header.clone().map(Sticky::Header);
        header
            .or_else(|| self.sticky_json.clone().map(Sticky::Json))
            .or_else(|| cookie(&self.sticky_cookie, false))
            .or_else(|| cookie(&self.sticky_own_cookie, true))
    }

    /// Returns the routes.
    ///
    /// # Errors
    /// Fails if one is no route of these two versions.
    pub fn routes(&self) -> Result<Vec<Route>, String> {
        let route = |text: &String| {
            let route = Route::parse(text, &self.from, &self.to);
            route.map_err(|why| format!("--route '{text}': {why}"))
        };
        self.route.iter().map(route).collect()
    }

    /// Returns the copies for the new version, if there are to be some.
    pub fn mirror(&self) -> Option<Mirror> {
        self.mirror.map(|it| Mirror { share: it.0, is_unsafe: self.mirror_unsafe })
    }
}

/// Share of requests that are copied, in basis points, as in `5%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorShare(pub u32);

impl FromStr for MirrorShare {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write a percentage above 0% and at most 100%, as in 5%";
        let share = basis_points(text.strip_suffix('%').unwrap_or(text).trim());
        share.filter(|it| *it > 0).map(Self).ok_or(WRONG)
    }
}

/// Parses a percentage of at most two decimal places and at most 100.
fn basis_points(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |it: &str| !it.is_empty() && it.bytes().all(|c| c.is_ascii_digit());
    if !is_digits(whole) || !is_digits(part) || part.len() > 2 {
        return None;
    }
    let part: u32 = format!("{part:0<2}").parse().ok()?;
    let all = whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part)?;
    (all <= BASIS_POINTS).then_some(all)
}

/// Shares of the new version, in basis points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps(pub Vec<u32>);

impl FromStr for Steps {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write percents with at most two decimal places, as in 5,20,50,100";
        let steps = text.split(',').map(|it| basis_points(it.trim()).ok_or(WRONG));
        steps.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        args: StartArgs,
    }

    #[test]
    fn steps_are_percents() {
        assert_eq!("5,20,50,100".parse(), Ok(Steps(vec![500, 2000, 5000, 10_000])));
        assert_eq!("0.5, 12.25,100".parse(), Ok(Steps(vec![50, 1225, 10_000])));
        assert_eq!("0,100".parse(), Ok(Steps(vec![0, 10_000])));
        for wrong in ["", "5,", "101", "100.01", "-5,100", "5.123,100", "5%,100", "x"] {
            assert!(wrong.parse::<Steps>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mirrored_share_is_a_part_of_all_requests() {
        for (text, share) in [("5%", 500), ("5", 500), ("0.01%", 1), ("100%", 10_000)] {
            assert_eq!(text.parse(), Ok(MirrorShare(share)));
        }
        for wrong in ["", "%", "0%", "100.01%", "101%", "-5%", "5%%", "5x"] {
            assert!(wrong.parse::<MirrorShare>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn flags_of_a_start_become_its_routes_and_its_key() {
        let args = |line: &str| {
            let words = shell(&format!("start --from v1 --to v2 {line}"));
            Only::try_parse_from(words).map(|it| it.args).map_err(|error| error.to_string())
        };
        let it = args("--route 'path:/a -> v1' --route 'header:X-Team=qa -> canary'").unwrap();
        let routes = it.routes().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(routes, ["path:/a -> stable", "header:X-Team=qa -> canary"]);
        let wrong = args("--route 'path:/a -> v3'").unwrap().routes().unwrap_err();
        assert!(wrong.contains("--route 'path:/a -> v3'") && wrong.contains("--to"), "{wrong}");
        let cookie = |own| Some(Sticky::Cookie { name: "sid".to_owned(), own });
        assert_eq!(args("--sticky-cookie sid").unwrap().sticky(), cookie(false));
        assert_eq!(args("--sticky-own-cookie sid").unwrap().sticky(), cookie(true));
        assert!(args("--sticky-cookie a --sticky-header b").is_err());
        assert!(args("--mirror-unsafe").is_err(), "of what?");
        let mirror = args("--mirror 5% --mirror-unsafe").unwrap().mirror();
        assert_eq!(mirror, Some(Mirror { share: 500, is_unsafe: true }));
    }

    /// Words of a line, of which quotes keep blanks together.
    fn shell(line: &str) -> Vec<String> {
        let parts = line.split('\'').enumerate();
        let words = |(at, part): (usize, &str)| match at % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        };
        parts.flat_map(words).collect()
    }
}
