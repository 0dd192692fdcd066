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

/// Returns the figures of a model over all nodes. The p95 is the one that nodes with 95 of 100 of
/// the requests keep: a node reports no more than its own p95.
fn pooled(parts: &[ModelHealth]) -> ModelHealth {
    let sum = |of: fn(&ModelHealth) -> u64| parts.iter().map(of).fold(0, u64::saturating_add);
    let warm = |it: &ModelHealth| it.samples.saturating_sub(it.cold);
    let mut by_latency: Vec<_> = parts.iter().map(|it| (it.p95_us, warm(it))).collect();
    by_latency.sort_unstable();
    let all: u128 = by_latency.iter().map(|it| u128::from(it.1)).sum();
    let mut below = 0;
    let at = by_latency.iter().find(|(_, count)| {
        below += u128::from(*count);
        all > 0 && below * 100 >= all * 95
    });
    ModelHealth {
        samples: sum(|it| it.samples),
        errors: sum(|it| it.errors),
        refused: sum(|it| it.refused),
        cold: sum(|it| it.cold),
        p95_us: at.map_or(0, |it| it.0),
    }
}

impl Plan {
    /// Judges one node's health while the new version has `share` basis points; with the gate that
    /// failed, if any.
    #[must_use]
    pub fn judge(&self, health: &HealthSnapshot, share: u32) -> (WindowVerdict, Option<Gate>) {
        self.judge_figures(health.of(&self.to), health.of(&self.from), share)
    }

    /// Judges the health of all nodes together, in the same way.
    pub(super) fn judge_pooled(
        &self,
        healths: &[&HealthSnapshot],
        share: u32,
    ) -> (WindowVerdict, Option<Gate>) {
        let of = |model| pooled(&healths.iter().map(|it| it.of(model)).collect::<Vec<_>>());
        self.judge_figures(of(&self.to), of(&self.from), share)
    }

    fn judge_figures(
        &self,
        canary: ModelHealth,
        stable: ModelHealth,
        share: u32,
    ) -> (WindowVerdict, Option<Gate>) {
        if self.gates.is_empty() {
            return (WindowVerdict::Good, None);
        }
        let is_few = canary.samples < self.samples_min.max(1);
        let least = if is_few { 1 } else { self.samples_min.max(1) };
        let mut verdict = if is_few { WindowVerdict::TooFew } else { WindowVerdict::Good };
        let is_usual = self.gates.iter().all(|it| it.metric != Metric::Refused);
        let usual = is_usual.then_some(&Gate::USUAL);
        for gate in self.gates.iter().chain(usual) {
            match gate.judge(canary, stable, least) {
                WindowVerdict::Bad if is_few => return (WindowVerdict::Doubtful, Some(*gate)),
                WindowVerdict::Bad => return (WindowVerdict::Bad, Some(*gate)),
                WindowVerdict::TooFew if *gate == Gate::USUAL && is_usual => {}
                // With all requests at the new version there is nothing to compare with.
                WindowVerdict::TooFew if share == BASIS_POINTS && gate.is_relative() => {}
                WindowVerdict::TooFew => verdict = WindowVerdict::TooFew,
                WindowVerdict::Good | WindowVerdict::Doubtful => {}
            }
        }
        (verdict, None)
    }
}

/// Failures of a million requests that are allowed beside a stable version without any: one failure
/// is no ratio.
const ERROR_FLOOR: u32 = 10_000;

/// The same for answers with a 4xx, which are the client's fault as often as the version's.
const REFUSED_FLOOR: u32 = 50_000;

impl Gate {
    /// The limit of 4xx in a plan that has gates but none for 4xx: a version that knows nothing, or
    /// that turns everybody away, answers all requests.
    const USUAL: Self = Self { metric: Metric::Refused, limit: Limit::OfStable(2000) };

    /// Judges this gate by a window of the canary, beside one of the stable version.
    fn judge(self, canary: ModelHealth, stable: ModelHealth, samples_min: u64) -> WindowVerdict {
        // Exact: a product of two u64 fits into a u128.
        let wide = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let (counted, of_stable, floor) = match self.metric {
            Metric::P95 if canary.samples.saturating_sub(canary.cold) < samples_min => {
                return WindowVerdict::TooFew;
            }
            Metric::P95 => (0, 0, 0),
            Metric::Error => (canary.errors, stable.errors, ERROR_FLOOR),
            Metric::Refused => (canary.refused, stable.refused, REFUSED_FLOOR),
        };
        let is_within = |limit: u32| wide(counted, 1_000_000) <= wide(canary.samples, limit.into());
        let holds = match (self.metric, self.limit) {
            (Metric::P95, Limit::Micros(limit)) => canary.p95_us <= limit,
            (Metric::Error | Metric::Refused, Limit::PerMillion(limit)) => is_within(limit),
            (_, Limit::OfStable(_)) if stable.samples < samples_min => {
                return WindowVerdict::TooFew;
            }
            (Metric::P95, Limit::OfStable(ratio)) => {
                wide(canary.p95_us, 1000) <= wide(stable.p95_us, ratio.into())
            }
            (Metric::Error | Metric::Refused, Limit::OfStable(ratio)) => {
                // counted / samples <= ratio * (the same of the stable one), multiplied out. Only
                // impossible counts overflow.
                let ours = wide(counted, 1000).saturating_mul(stable.samples.into());
                let theirs = wide(of_stable, ratio.into()).saturating_mul(canary.samples.into());
                let is_as_there = ours <= theirs;
                counted <= 1 || is_within(floor) || is_as_there
            }
            // A limit in the other metric's unit: parsing makes none.
            (Metric::P95, Limit::PerMillion(_))
            | (Metric::Error | Metric::Refused, Limit::Micros(_)) => false,
        };
        if holds { WindowVerdict::Good } else { WindowVerdict::Bad }
    }
}

#[cfg(test)]
mod tests {
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
            let (found, _) = plan(&gates).judge_figures(of(canary), of(stable), 500);
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
        let judge = |canary| plan.judge_figures(canary, ModelHealth::default(), 500).0;
        assert_eq!(judge(cold), WindowVerdict::TooFew);
        assert_eq!(judge(ModelHealth { errors: 5, ..cold }), WindowVerdict::Bad);
        assert_eq!(judge(ModelHealth { cold: 40, ..cold }), WindowVerdict::Good);
    }
}
