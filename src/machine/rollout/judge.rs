//! Judgment of a window of real traffic by gates (T8).
//!
//! Invariant: a window with too few requests is never good, and is doubtful if its figures are bad.

use serde::Serialize;

use crate::proto::rollout::{BASIS_POINTS, Gate, HealthSnapshot, Limit, Metric, ModelHealth, Plan};

/// Judgment of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowVerdict {
    /// Every gate holds.
    Good,
    /// A gate does not hold.
    Bad,
    /// Too few requests to judge.
    TooFew,
    /// Too few requests, and a gate does not hold in these.
    Doubtful,
}

/// Returns a latency over all nodes: the one that nodes with `percent` of 100 of the requests keep,
/// since a node reports no more than its own.
fn pooled_latency(parts: &[ModelHealth], of: fn(&ModelHealth) -> u64, percent: u128) -> u64 {
    let warm = |it: &ModelHealth| it.samples.saturating_sub(it.cold);
    let mut by_latency: Vec<_> = parts.iter().map(|it| (of(it), warm(it))).collect();
    by_latency.sort_unstable();
    let all: u128 = by_latency.iter().map(|it| u128::from(it.1)).sum();
    let mut below = 0;
    let at = by_latency.iter().find(|(_, count)| {
        below += u128::from(*count);
        all > 0 && below * 100 >= all * percent
    });
    at.map_or(0, |it| it.0)
}

/// Returns the figures of a model over all nodes.
fn pooled(parts: &[ModelHealth]) -> ModelHealth {
    let sum = |of: fn(&ModelHealth) -> u64| parts.iter().map(of).fold(0, u64::saturating_add);
    ModelHealth {
        samples: sum(|it| it.samples),
        errors: sum(|it| it.errors),
        refused: sum(|it| it.refused),
        cold: sum(|it| it.cold),
        p95_us: pooled_latency(parts, |it| it.p95_us, 95),
        p50_us: pooled_latency(parts, |it| it.p50_us, 50),
        p99_us: pooled_latency(parts, |it| it.p99_us, 99),
        unreached: sum(|it| it.unreached),
        answered_5xx: sum(|it| it.answered_5xx),
    }
}

/// Returns the answers of all nodes to an outside gate as one: no if a node says so, and else yes
/// if one says that.
fn answer(healths: &[&HealthSnapshot], gate: &str) -> Option<bool> {
    healths.iter().filter_map(|it| it.outside.get(gate).copied()).reduce(|all, it| all && it)
}

impl Plan {
    /// Judges one node's health while the new version has `share` basis points; with the gate that
    /// failed, if any.
    #[must_use]
    pub fn judge(&self, health: &HealthSnapshot, share: u32) -> (WindowVerdict, Option<Gate>) {
        let of = (health.of(&self.to), health.of(&self.from));
        self.judge_figures(of, &[health], share)
    }

    /// Judges the health of all nodes together, in the same way.
    pub(super) fn judge_pooled(
        &self,
        healths: &[&HealthSnapshot],
        share: u32,
    ) -> (WindowVerdict, Option<Gate>) {
        let of = |model| pooled(&healths.iter().map(|it| it.of(model)).collect::<Vec<_>>());
        self.judge_figures((of(&self.to), of(&self.from)), healths, share)
    }

    /// The first outside gate to which none of these nodes has an answer.
    #[must_use]
    pub fn unanswered(&self, healths: &[&HealthSnapshot]) -> Option<&Gate> {
        let mut outside = self.gates.iter().filter(|it| it.is_outside());
        outside.find(|it| answer(healths, &it.to_string()).is_none())
    }

    fn judge_figures(
        &self,
        (canary, stable): (ModelHealth, ModelHealth),
        healths: &[&HealthSnapshot],
        share: u32,
    ) -> (WindowVerdict, Option<Gate>) {
        if self.gates.is_empty() {
            return (WindowVerdict::Good, None);
        }
        let is_few = canary.samples < self.samples_min.max(1);
        let least = if is_few { 1 } else { self.samples_min.max(1) };
        // What others judge needs no requests here.
        let lacks = is_few && !self.gates.iter().all(Gate::is_outside);
        let mut verdict = if lacks { WindowVerdict::TooFew } else { WindowVerdict::Good };
        let mut doubtful = None;
        let is_usual = !self.gates.iter().any(|it| it.is_of(Metric::Refused));
        let usual = is_usual.then_some(USUAL);
        for gate in self.gates.iter().chain(&usual) {
            let found = match gate {
                Gate::Own { metric, limit } => judge((*metric, *limit), canary, stable, least),
                Gate::Prometheus(_) | Gate::Http(_) => match answer(healths, &gate.to_string()) {
                    None => WindowVerdict::TooFew,
                    Some(true) => WindowVerdict::Good,
                    Some(false) => WindowVerdict::Bad,
                },
            };
            match found {
                WindowVerdict::Bad if is_few && !gate.is_outside() => {
                    doubtful = doubtful.or(Some(gate));
                }
                WindowVerdict::Bad => return (WindowVerdict::Bad, Some(gate.clone())),
                WindowVerdict::TooFew if *gate == USUAL && is_usual => {}
                // With all requests at the new version there is nothing to compare with.
                WindowVerdict::TooFew if share == BASIS_POINTS && gate.is_relative() => {}
                WindowVerdict::TooFew => verdict = WindowVerdict::TooFew,
                WindowVerdict::Good | WindowVerdict::Doubtful => {}
            }
        }
        match doubtful {
            Some(gate) => (WindowVerdict::Doubtful, Some(gate.clone())),
            None => (verdict, None),
        }
    }
}

/// Failures of a million requests that are allowed beside a stable version without any: one failure
/// is no ratio.
const ERROR_FLOOR: u32 = 10_000;

/// The same for answers with a 4xx, which are the client's fault as often as the version's.
const REFUSED_FLOOR: u32 = 50_000;

/// The limit of 4xx in a plan that has gates but none for 4xx: a version that knows nothing, or that
/// turns everybody away, answers all requests.
const USUAL: Gate = Gate::Own { metric: Metric::Refused, limit: Limit::OfStable(2000) };

/// Judges a gate by a window of the canary, beside one of the stable version.
fn judge(
    (metric, limit): (Metric, Limit),
    canary: ModelHealth,
    stable: ModelHealth,
    samples_min: u64,
) -> WindowVerdict {
    // Exact: a product of two u64 fits into a u128.
    let wide = |a: u64, b: u64| u128::from(a) * u128::from(b);
    let figure = |it: ModelHealth| match metric {
        Metric::P50 => it.p50_us,
        Metric::P95 => it.p95_us,
        Metric::P99 => it.p99_us,
        Metric::Error => it.errors,
        Metric::Refused => it.refused,
        Metric::Answered5xx => it.answered_5xx,
        Metric::Unreached => it.unreached,
    };
    let (ours, theirs) = (figure(canary), figure(stable));
    let floor = if metric == Metric::Refused { REFUSED_FLOOR } else { ERROR_FLOOR };
    let is_within = |limit: u32| wide(ours, 1_000_000) <= wide(canary.samples, limit.into());
    if metric.is_latency() && canary.samples.saturating_sub(canary.cold) < samples_min {
        return WindowVerdict::TooFew;
    }
    let holds = match (metric.is_latency(), limit) {
        (true, Limit::Micros(limit)) => ours <= limit,
        (false, Limit::PerMillion(limit)) => is_within(limit),
        (_, Limit::OfStable(_)) if stable.samples < samples_min => return WindowVerdict::TooFew,
        (true, Limit::OfStable(ratio)) => wide(ours, 1000) <= wide(theirs, ratio.into()),
        (false, Limit::OfStable(ratio)) => {
            // ours / samples <= ratio * (the same of the stable one), multiplied out. Only
            // impossible counts overflow.
            let canary_side = wide(ours, 1000).saturating_mul(stable.samples.into());
            let stable_side = wide(theirs, ratio.into()).saturating_mul(canary.samples.into());
            ours <= 1 || is_within(floor) || canary_side <= stable_side
        }
        // A limit in the other metric's unit: parsing makes none.
        (true, Limit::PerMillion(_)) | (false, Limit::Micros(_)) => false,
    };
    if holds { WindowVerdict::Good } else { WindowVerdict::Bad }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::proto::rollout::plan;

    fn health(stable: (u64, u64, u64), canary: (u64, u64, u64)) -> HealthSnapshot {
        let of = |(samples, errors, p95_us)| ModelHealth {
            samples,
            errors,
            p95_us,
            ..ModelHealth::default()
        };
        HealthSnapshot {
            node_id: "node-a".parse().unwrap(),
            window_id: "window-1".to_owned(),
            models: [("v1".parse().unwrap(), of(stable)), ("v2".parse().unwrap(), of(canary))]
                .into(),
            outside: BTreeMap::new(),
        }
    }

    #[test]
    fn gates_judge_good_bad_and_too_few() {
        let good = (100, 0, 50_000);
        for (gates, canary, verdict) in [
            (vec![], (0, 0, 0), WindowVerdict::Good),
            (vec!["p95=200ms"], (9, 9, 200_000), WindowVerdict::TooFew),
            (vec!["p95=200ms"], (9, 9, 200_001), WindowVerdict::Doubtful),
            (vec!["error=1%"], (1, 1, 1), WindowVerdict::Doubtful),
            (vec!["error<=2x"], (354, 1, 1), WindowVerdict::Good),
            (vec!["error<=2x"], (1000, 10, 1), WindowVerdict::Good),
            (vec!["error<=2x"], (1000, 11, 1), WindowVerdict::Bad),
            (vec!["p95=200ms"], (10, 0, 200_000), WindowVerdict::Good),
            (vec!["p95=200ms"], (10, 0, 200_001), WindowVerdict::Bad),
            (vec!["error=10%"], (10, 1, 1), WindowVerdict::Good),
            (vec!["error=10%"], (10, 2, 1), WindowVerdict::Bad),
            (vec!["p95<=1.2x"], (10, 0, 60_000), WindowVerdict::Good),
            (vec!["p95<=1.2x"], (10, 0, 60_001), WindowVerdict::Bad),
            (vec!["p95=200ms", "error=1%"], (100, 5, 1), WindowVerdict::Bad),
        ] {
            let (found, blamed) = plan(&gates).judge(&health(good, canary), 500);
            assert_eq!(found, verdict, "{gates:?} {canary:?}");
            let is_blamed = matches!(verdict, WindowVerdict::Bad | WindowVerdict::Doubtful);
            assert_eq!(blamed.is_some(), is_blamed);
        }
        // Without a stable version that is used there is nothing to compare with.
        let (found, _) = plan(&["p95<=1.2x"]).judge(&health((1, 0, 1), (10, 0, 60_000)), 500);
        assert_eq!(found, WindowVerdict::TooFew);
        let (found, _) = plan(&["p95<=1.2x"]).judge(&health((1, 0, 1), (10, 0, 60_000)), 10_000);
        assert_eq!(found, WindowVerdict::Good, "the last step has no other version");
    }

    #[test]
    fn a_version_that_answers_4xx_where_the_other_does_not_is_bad_unless_it_may() {
        let of = |refused| ModelHealth { samples: 100, refused, ..ModelHealth::default() };
        for (gates, stable, canary, verdict) in [
            (vec!["error=1%"], 0, 100, WindowVerdict::Bad),
            (vec!["error=1%"], 0, 5, WindowVerdict::Good),
            (vec!["error=1%"], 0, 6, WindowVerdict::Bad),
            (vec!["error=1%"], 30, 60, WindowVerdict::Good),
            (vec!["error=1%", "4xx=100%"], 0, 100, WindowVerdict::Good),
            (vec!["4xx=2%"], 30, 3, WindowVerdict::Bad),
            (vec![], 0, 100, WindowVerdict::Good),
        ] {
            let (found, _) = plan(&gates).judge_figures((of(canary), of(stable)), &[], 500);
            assert_eq!(found, verdict, "{gates:?} {stable} {canary}");
        }
    }

    #[test]
    fn nodes_with_few_requests_are_judged_together() {
        let of = |samples, errors, p95_us| health((100, 0, 1), (samples, errors, p95_us));
        let judge = |gates: &[&str], parts: &[HealthSnapshot]| {
            plan(gates).judge_pooled(&parts.iter().collect::<Vec<_>>(), 500).0
        };
        let few = [of(4, 0, 90_000), of(4, 0, 90_000), of(4, 0, 90_000)];
        assert_eq!(judge(&["error=1%", "p95=100ms"], &few), WindowVerdict::Good);
        assert_eq!(judge(&["error=1%", "p95=80ms"], &few), WindowVerdict::Bad);
        assert_eq!(judge(&["error=1%"], &few[..2]), WindowVerdict::TooFew);
        assert_eq!(judge(&["error=10%"], &[of(4, 1, 1), of(9, 1, 1)]), WindowVerdict::Bad);
        // One slow request of a thousand is no p95.
        assert_eq!(
            judge(&["p95=80ms"], &[of(1000, 0, 70_000), of(1, 0, 900_000)]),
            WindowVerdict::Good
        );
    }

    #[test]
    fn a_version_that_warms_up_is_judged_by_its_errors_alone() {
        let cold = ModelHealth { samples: 50, cold: 50, ..ModelHealth::default() };
        let plan = plan(&["p95=200ms", "error=1%"]);
        let judge = |canary| plan.judge_figures((canary, ModelHealth::default()), &[], 500).0;
        assert_eq!(judge(cold), WindowVerdict::TooFew);
        assert_eq!(judge(ModelHealth { errors: 5, ..cold }), WindowVerdict::Bad);
        assert_eq!(judge(ModelHealth { cold: 40, ..cold }), WindowVerdict::Good);
    }

    #[test]
    fn each_metric_judges_its_own_figure() {
        let none = ModelHealth { samples: 100, ..ModelHealth::default() };
        let figures: [(&str, fn(u64) -> ModelHealth); 7] = [
            ("p50", |it| ModelHealth { p50_us: it, ..ModelHealth::default() }),
            ("p95", |it| ModelHealth { p95_us: it, ..ModelHealth::default() }),
            ("p99", |it| ModelHealth { p99_us: it, ..ModelHealth::default() }),
            ("error", |it| ModelHealth { errors: it, ..ModelHealth::default() }),
            ("4xx", |it| ModelHealth { refused: it, ..ModelHealth::default() }),
            ("5xx", |it| ModelHealth { answered_5xx: it, ..ModelHealth::default() }),
            ("connect", |it| ModelHealth { unreached: it, ..ModelHealth::default() }),
        ];
        for (at, (name, _)) in figures.iter().enumerate() {
            let metric: Metric = match format!("{name}<=2x").parse().unwrap() {
                Gate::Own { metric, .. } => metric,
                other => panic!("{other}"),
            };
            let unit = if metric.is_latency() { "ms" } else { "%" };
            let absolute = format!("{name}=10{unit}");
            let relative = format!("{name}<=2x");
            for (other, (_, of)) in figures.iter().enumerate() {
                let full = |it: u64| ModelHealth { samples: none.samples, ..of(it) };
                let judge = |gate: &str, canary, stable| {
                    // Beside a gate of 4xx no other one of it holds.
                    let plan = plan(&[gate, "4xx=100%"]);
                    plan.judge_figures((canary, stable), &[], 500).0
                };
                if at != other {
                    // No figure but its own matters to a gate.
                    assert_eq!(judge(&absolute, full(90), none), WindowVerdict::Good, "{absolute}");
                    assert_eq!(judge(&relative, full(90), none), WindowVerdict::Good, "{relative}");
                    continue;
                }
                let (good, bad) = if metric.is_latency() { (10_000, 10_001) } else { (10, 11) };
                assert_eq!(judge(&absolute, full(good), none), WindowVerdict::Good, "{absolute}");
                assert_eq!(judge(&absolute, full(bad), none), WindowVerdict::Bad, "{absolute}");
                let stable = full(10);
                assert_eq!(judge(&relative, full(20), stable), WindowVerdict::Good, "{relative}");
                assert_eq!(judge(&relative, full(21), stable), WindowVerdict::Bad, "{relative}");
            }
        }
    }

    #[test]
    fn pooled_latencies_are_those_that_so_many_of_the_requests_keep() {
        let of = |samples, p50_us, p99_us| ModelHealth {
            samples,
            p50_us,
            p99_us,
            ..ModelHealth::default()
        };
        let all = pooled(&[of(40, 5, 50), of(30, 9, 90), of(30, 1, 10)]);
        assert_eq!((all.p50_us, all.p99_us), (5, 90));
        let all = pooled(&[of(999, 1, 2), of(1, 70, 80)]);
        assert_eq!((all.p50_us, all.p99_us), (1, 2), "one of a thousand");
        assert_eq!(pooled(&[]), ModelHealth::default());
    }

    #[test]
    fn what_others_judge_counts_whatever_the_requests_here_are() {
        let (ready, query) = ("http:http://host/ready", "prom:up>0@http://p:9090");
        let with = |samples, outside: &[(&str, bool)]| {
            let it = health((100, 0, 1), (samples, 0, 1));
            let outside = outside.iter().map(|it| (it.0.to_owned(), it.1)).collect();
            HealthSnapshot { outside, ..it }
        };
        for (gates, samples, outside, verdict) in [
            (&[ready][..], 0, &[][..], WindowVerdict::TooFew),
            (&[ready], 0, &[(ready, true)], WindowVerdict::Good),
            (&[ready], 0, &[(ready, false)], WindowVerdict::Bad),
            (&[ready], 0, &[(query, false)], WindowVerdict::TooFew),
            (&[ready, query], 0, &[(ready, true)], WindowVerdict::TooFew),
            (&[ready, query], 0, &[(ready, true), (query, true)], WindowVerdict::Good),
            (&[ready, query], 0, &[(query, false)], WindowVerdict::Bad),
            (&["error=1%", ready], 9, &[(ready, true)], WindowVerdict::TooFew),
            (&["error=1%", ready], 9, &[(ready, false)], WindowVerdict::Bad),
            (&["error=1%", ready], 99, &[(ready, true)], WindowVerdict::Good),
            (&["error=1%", ready], 99, &[], WindowVerdict::TooFew),
        ] {
            let (found, blamed) = plan(gates).judge(&with(samples, outside), 500);
            assert_eq!(found, verdict, "{gates:?} {samples} {outside:?}");
            assert_eq!(blamed.is_some(), verdict == WindowVerdict::Bad);
        }
        // A gate that fails in few requests hides no other that fails for sure.
        let few = HealthSnapshot {
            outside: with(0, &[(ready, false)]).outside,
            ..health((100, 0, 1), (1, 1, 1))
        };
        let (found, blamed) = plan(&["error=1%", ready]).judge(&few, 500);
        assert_eq!((found, blamed), (WindowVerdict::Bad, Some(ready.parse().unwrap())));
        let pool = |all: &[HealthSnapshot]| {
            let all: Vec<_> = all.iter().collect();
            (plan(&[ready]).judge_pooled(&all, 500).0, plan(&[ready]).unanswered(&all).is_some())
        };
        let (yes, no, none) = (with(0, &[(ready, true)]), with(0, &[(ready, false)]), with(0, &[]));
        assert_eq!(pool(&[none.clone(), none.clone()]), (WindowVerdict::TooFew, true));
        assert_eq!(pool(&[none.clone(), yes.clone()]), (WindowVerdict::Good, false));
        assert_eq!(pool(&[yes, none, no]), (WindowVerdict::Bad, false));
    }
}
