//! Figures of a simulation: under the names and with the keys of `peer bench membership` if they
//! mean the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::args::SimulateArgs;
use super::ledger::Death;
use super::run::{Outcome, Watch};
use crate::cli::bench::figure::distribution;
use crate::sim::Traffic;

/// Least degree that counts as the tail, in the fit of the power law: one above the number that a
/// joiner seeks, because that is where chance begins.
const TAIL_FROM: usize = 4;

/// Number of messages, or of bytes.
type Amount = fn(&Traffic) -> u64;

/// One figure of a run.
struct Figure {
    metric: String,
    fields: Map<String, Value>,
}

/// All figures of a run.
pub(super) struct Figures {
    peers: u16,
    head: Map<String, Value>,
    /// Figures that follow from the flags.
    exact: Vec<Figure>,
    /// Figures that depend on this machine.
    cost: Vec<Figure>,
}

impl Figure {
    fn spread(metric: impl Into<String>, values: &[f64]) -> Self {
        Self { metric: metric.into(), fields: distribution(values) }
    }

    fn new(metric: impl Into<String>, fields: Value) -> Self {
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Self { metric: metric.into(), fields }
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// The figures of a run.
pub(super) fn of(args: &SimulateArgs, outcome: &Outcome) -> Figures {
    let mut exact = joining(args, outcome);
    exact.extend(shape(outcome));
    exact.extend(gossip(args, outcome));
    exact.extend(traffic("idle", &outcome.idle));
    exact.extend(deaths(args, outcome));
    exact.extend(traffic("total", &outcome.total));
    let head = json!({
        "peers": args.peers, "seeds": args.seeds, "seed": args.seed, "kill": args.kill,
        "vanish": args.vanish, "loss": args.loss, "latency_ms": millis(args.latency.0),
        "join_rate": args.join_rate, "idle_s": args.idle.0.as_secs_f64(),
        "gossip": args.gossip, "duration_s": args.duration.0.as_secs_f64(),
        "quorum": format!("{:?}", args.quorum).to_lowercase(),
        "virtual_s": outcome.schedule.end.as_micros() as f64 / 1e6,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let head = Figure::new("", head).fields;
    Figures { peers: args.peers, head, exact, cost: cost(args, outcome) }
}

fn joining(args: &SimulateArgs, outcome: &Outcome) -> Vec<Figure> {
    let admitted = &outcome.ledger.admitted;
    let last = admitted.values().map(|(at, _)| *at).max().unwrap_or(outcome.schedule.join);
    let waits: Vec<_> = admitted.values().map(|(_, waited)| millis(*waited)).collect();
    vec![
        Figure::spread("all_peers_active_ms", &[millis(last.since(outcome.schedule.join))]),
        Figure::spread("asked_to_admitted_ms", &waits),
        Figure::new(
            "members",
            json!({ "active": outcome.active, "of": args.peers,
                "seeds_that_list_all": outcome.complete_seeds, "of_seeds": args.seeds,
                "refused_attempts": outcome.ledger.refused }),
        ),
    ]
}

fn shape(outcome: &Outcome) -> Vec<Figure> {
    let degrees: Vec<_> = outcome.overlay.values().map(std::collections::BTreeSet::len).collect();
    let mut histogram: BTreeMap<usize, usize> = BTreeMap::new();
    for degree in &degrees {
        *histogram.entry(*degree).or_default() += 1;
    }
    let is_mutual = outcome.overlay.iter().all(|(node, list)| {
        list.iter().all(|it| outcome.overlay.get(it).is_some_and(|theirs| theirs.contains(node)))
    });
    let mean = degrees.iter().sum::<usize>() as f64 / degrees.len().max(1) as f64;
    let as_floats: Vec<_> = degrees.iter().map(|degree| *degree as f64).collect();
    let fit = exponent(&degrees, TAIL_FROM).map(round);
    vec![
        Figure::spread("degree", &as_floats),
        Figure::new("degree_histogram", json!({ "histogram": histogram, "mutual": is_mutual })),
        Figure::new(
            "degree_power_law",
            json!({ "exponent": fit, "from_degree": TAIL_FROM, "mean": round(mean) }),
        ),
    ]
}

/// Exponent of a power-law tail by maximum likelihood, in the discrete approximation of Clauset,
/// Shalizi and Newman (SIAM Review 51, 661, equation 3.7), for degrees from `least` on.
fn exponent(degrees: &[usize], least: usize) -> Option<f64> {
    let tail: Vec<_> = degrees.iter().filter(|degree| **degree >= least).collect();
    let shift = least as f64 - 0.5;
    let sum: f64 = tail.iter().map(|degree| (**degree as f64 / shift).ln()).sum();
    (sum > 0.0).then(|| 1.0 + tail.len() as f64 / sum)
}

fn gossip(args: &SimulateArgs, outcome: &Outcome) -> Vec<Figure> {
    if args.gossip == 0 {
        return Vec::new();
    }
    let rumors = outcome.ledger.rumors();
    let last: Vec<_> =
        rumors.iter().filter_map(|it| it.heard.last()).map(|it| millis(*it)).collect();
    let wanted = rumors.len() * usize::from(args.peers - 1);
    let got: usize = rumors.iter().map(|rumor| rumor.heard.len()).sum();
    let share = got as f64 / wanted.max(1) as f64;
    vec![
        Figure::spread("gossip_to_the_last_peer_ms", &last),
        Figure::new("gossip_delivered", json!({ "messages": rumors.len(), "share": share })),
    ]
}

fn traffic(phase: &str, watch: &Watch) -> Vec<Figure> {
    let per_second = |all: &[Traffic], pick: Amount| -> Vec<f64> {
        all.iter().map(|it| pick(it) as f64 / watch.seconds).collect()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let mut figures = Vec::new();
    for (role, all) in [("peer", &watch.peers), ("seed", &watch.seeds)] {
        let units: [(_, Amount); 2] = [("messages", |it| it.messages), ("bytes", |it| it.bytes)];
        for (unit, pick) in units {
            let values = per_second(all, pick);
            let metric = format!("{phase}_{unit}_sent_per_second_{role}");
            let mut figure = Figure::spread(metric, &values);
            figure.fields.insert("mean".to_owned(), json!(round(mean(&values))));
            figures.push(figure);
        }
    }
    let nodes = (watch.peers.len() as f64 * watch.seconds).max(f64::MIN_POSITIVE);
    let by_name: BTreeMap<_, _> = watch
        .by_name
        .iter()
        .filter(|(_, it)| it.messages > 0)
        .map(|(name, it)| {
            let rate = |amount: u64| round(amount as f64 / nodes);
            (*name, json!({ "messages": rate(it.messages), "bytes": rate(it.bytes) }))
        })
        .collect();
    let metric = format!("{phase}_sent_by_all_nodes_per_second_and_peer");
    figures.push(Figure::new(metric, json!({ "by_message": by_name })));
    let rate = round(watch.events as f64 / nodes);
    let metric = format!("{phase}_events_handled");
    figures
        .push(Figure::new(metric, json!({ "events": watch.events, "per_second_and_peer": rate })));
    figures
}

fn deaths(args: &SimulateArgs, outcome: &Outcome) -> Vec<Figure> {
    let ledger = &outcome.ledger;
    let mut figures = Vec::new();
    let seeds = usize::from(args.seeds);
    let survivors = usize::from(args.peers - args.kill);
    if args.kill > 0 {
        figures.extend(stages(&ledger.deaths.values().collect::<Vec<_>>(), seeds, survivors));
        let learnt: usize = ledger.deaths.values().map(|it| it.learnt.len()).sum();
        let wanted = survivors * usize::from(args.kill);
        let share = learnt as f64 / wanted as f64;
        figures.push(Figure::new("removals_learnt_by_survivors", json!({ "share": share })));
    }
    let missed = ledger.deaths.values().filter(|it| it.removed.len() < seeds).count();
    figures.push(Figure::new(
        "removals",
        json!({
            "deaths": ledger.deaths.len(), "decisions": ledger.decisions.len(),
            "wrong": ledger.wrong.len(), "missed": missed,
        }),
    ));
    figures.push(Figure::new(
        "suspicions",
        json!({ "all": ledger.suspicions, "false": ledger.false_suspicions }),
    ));
    figures
}

/// Duration of each stage of each death; a stage that was not reached in time is left out.
fn stages(deaths: &[&Death], seeds: usize, survivors: usize) -> Vec<Figure> {
    let column = |metric: &str, pick: &dyn Fn(&Death) -> Option<Duration>| {
        let values: Vec<_> = deaths.iter().filter_map(|it| pick(it)).map(millis).collect();
        Figure::spread(format!("kill_to_{metric}_ms"), &values)
    };
    let reached = |death: &Death, share: f64| {
        let count = (survivors as f64 * share).ceil() as usize;
        death.learnt.get(count.saturating_sub(1)).copied()
    };
    vec![
        column("suspected", &|it| it.suspected),
        column("reported", &|it| it.reported),
        column("removed_at_every_seed", &|it| {
            (it.removed.len() >= seeds).then(|| it.removed.values().max().copied())?
        }),
        column("dropped_by_every_neighbor", &|it| {
            let all = it.dropped.len() >= it.neighbors.len();
            all.then(|| it.dropped.values().max().copied())?
        }),
        column("learnt_by_half_of_the_survivors", &|it| reached(it, 0.5)),
        column("learnt_by_99_percent_of_the_survivors", &|it| reached(it, 0.99)),
        column("learnt_by_the_last_survivor", &|it| reached(it, 1.0)),
    ]
}

fn cost(args: &SimulateArgs, outcome: &Outcome) -> Vec<Figure> {
    let cost = &outcome.cost;
    let span = outcome.schedule.end.as_micros() as f64 / 1e6;
    let wall = cost.wall.as_secs_f64();
    let events = outcome.total.events;
    let per_cpu = |span: f64, cpu: f64| (cpu > 0.0).then(|| round(span / cpu));
    let peers = f64::from(args.peers);
    let events = events.max(1) as f64;
    vec![
        Figure::new(
            "speed",
            json!({ "wall_s": round(wall), "virtual_s": round(span),
                "virtual_per_wall": round(span / wall), "cpu_s": round(cost.cpu),
                "virtual_per_cpu": per_cpu(span, cost.cpu),
                "idle_virtual_per_cpu": per_cpu(outcome.idle.seconds, cost.idle_cpu),
                "cpu_us_per_event": round(cost.cpu * 1e6 / events),
                "idle_cpu_us_per_peer_and_second":
                    round(cost.idle_cpu * 1e6 / outcome.idle.seconds / peers) }),
        ),
        Figure::new(
            "memory",
            json!({ "resident_mib": round(cost.resident), "peak_mib": round(cost.peak),
                "resident_kib_per_peer":
                    round(cost.resident * 1_024.0 / peers) }),
        ),
    ]
}

impl Figures {
    /// The figures for programs: one JSON object a line. Those of this machine are a bench of their
    /// own.
    pub(super) fn json_lines(&self) -> String {
        let line = |bench: &str, metric: Option<&str>, fields: &Map<String, Value>| {
            let mut all = Map::new();
            all.insert("bench".to_owned(), json!(bench));
            all.insert("peers".to_owned(), json!(self.peers));
            if let Some(metric) = metric {
                all.insert("metric".to_owned(), json!(metric));
            }
            all.extend(fields.clone());
            Value::Object(all).to_string() + "\n"
        };
        let mut text = line("simulation", None, &self.head);
        for (bench, figures) in [("simulation", &self.exact), ("simulation_cost", &self.cost)] {
            text.extend(figures.iter().map(|it| line(bench, Some(&it.metric), &it.fields)));
        }
        text
    }

    /// The figures for people.
    pub(super) fn text(&self, args: &SimulateArgs) -> String {
        let mut text = args.title() + "\n\n";
        let width = self.exact.iter().map(|it| it.metric.len()).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "{:width$} {:>10} {:>10} {:>10} {:>10} {:>7}",
            "figure", "p50", "p90", "p99", "max", "n"
        );
        for figure in &self.exact {
            write_figure(&mut text, figure, width);
        }
        text.push_str("\nof this machine, and another each time:\n");
        for figure in &self.cost {
            write_figure(&mut text, figure, width);
        }
        text
    }
}

fn write_figure(text: &mut String, figure: &Figure, width: usize) {
    let metric = &figure.metric;
    if figure.fields.contains_key("p50") {
        let number = |name: &str| figure.fields.get(name).and_then(Value::as_f64);
        let cell = |name: &str| number(name).map_or("-".to_owned(), |it| format!("{it:.1}"));
        let [p50, p90, p99, max] = ["p50", "p90", "p99", "max"].map(cell);
        let n = number("n").unwrap_or(0.0);
        let _ = writeln!(text, "{metric:width$} {p50:>10} {p90:>10} {p99:>10} {max:>10} {n:>7}");
        return;
    }
    let _ = writeln!(text, "{metric}");
    for (name, value) in &figure.fields {
        match value {
            // Long tables are for programs, but for the traffic, of which the largest amounts are
            // shown.
            Value::Object(rows) if name == "by_message" => write_rows(text, rows),
            Value::Object(_) | Value::Array(_) => {}
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let _ = writeln!(text, "    {name:<32} {value}");
            }
        }
    }
}

fn write_rows(text: &mut String, rows: &Map<String, Value>) {
    let bytes = |row: &Value| row.get("bytes").and_then(Value::as_f64).unwrap_or(0.0);
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by(|(_, a), (_, b)| bytes(b).total_cmp(&bytes(a)));
    for (name, row) in rows.into_iter().take(6) {
        let messages = row.get("messages").and_then(Value::as_f64).unwrap_or(0.0);
        let _ =
            writeln!(text, "    {name:<20} {messages:>9.3} messages {:>10.1} bytes", bytes(row));
    }
}
