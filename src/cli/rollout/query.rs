//! `peer rollout query`: questions to data planes over HTTP, as any client can ask them, and the
//! verdict whether all serve the same state.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::QueryArgs;
use super::client::Client;
use super::format::{list, percent};
use super::http::{self, Reply};
use crate::cli::output::{print, table, table_text};
use crate::cli::text::escape;
use crate::cli::{CliError, local_client};
use crate::proto::rollout::{HealthSnapshot, NodeId, RoutingState};
use crate::runtime::thread;

/// Time-out of each answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The data planes of three nodes as they are started by the examples.
const USUAL: [&str; 3] = ["127.0.0.1:50051", "127.0.0.1:50052", "127.0.0.1:50053"];

/// Largest number of looks: during a commit one node may be asked before it and another after it.
const LOOKS_MAX: usize = 3;

/// Longest part of a prediction that is shown, in characters.
const SHOWN_MAX: usize = 32;

/// Answers of one data plane.
#[derive(Clone, Debug)]
pub(in crate::cli) struct PredictionCounts {
    at: String,
    /// Routing state that it serves, also as JSON; or the reason for which there is none.
    state: Result<(RoutingState, Value), String>,
    /// Health of its traffic, and the name of its node.
    health: Option<HealthSnapshot>,
    prediction: Result<Reply, String>,
}

/// Asks all data planes, and prints their answers.
///
/// # Errors
/// Fails if the data planes do not all serve the same state.
pub(super) fn run(args: &QueryArgs) -> Result<(), CliError> {
    let mut at = args.at.clone();
    if at.is_empty() {
        at = running(&args.data);
    }
    if let Some(wrong) = at.iter().find(|it| it.rsplit_once(':').is_none()) {
        return Err(CliError::Usage(format!("{wrong} is no data plane; write HOST:PORT")));
    }
    let told = look(&at, &args.body)?;
    let verdict = verdict(&told);
    if args.json {
        print(&json_of(&told, verdict.is_ok()).to_string())?;
    } else {
        print(&text(&told, super::watch::is_terminal()))?;
        if let Ok(text) = &verdict {
            print(&format!("SYNCHRONIZED: {text}"))?;
        } else if let Err(text) = &verdict {
            print(&format!("NOT SYNCHRONIZED: {text}"))?;
        }
    }
    verdict.map(|_| ()).map_err(|_| CliError::Failed("the nodes are not synchronized".to_owned()))
}

/// The data planes of the nodes that run with this data directory, or the usual ones if none does.
fn running(data: &Path) -> Vec<String> {
    let nodes = local_client::running::<NodeId>(data, "rollout-");
    let at: Vec<_> =
        nodes.into_iter().filter_map(|(_, dir)| Client { dir }.view().ok()?.http).collect();
    if at.is_empty() { USUAL.map(str::to_owned).to_vec() } else { at }
}

/// Asks all data planes at once, and again if their answers may be of two moments.
///
/// # Errors
/// Fails if a thread cannot be started.
pub(in crate::cli) fn look(at: &[String], body: &str) -> Result<Vec<PredictionCounts>, CliError> {
    let mut told = look_once(at, body)?;
    for _ in 1..LOOKS_MAX {
        let is_complete = told.iter().all(|it| it.state.is_ok());
        if !is_complete || verdict(&told).is_ok() {
            break;
        }
        told = look_once(at, body)?;
    }
    Ok(told)
}

fn look_once(at: &[String], body: &str) -> Result<Vec<PredictionCounts>, CliError> {
    let system = |source| CliError::System { action: "start a thread", source };
    let ask = |at: &String| {
        let (at, body) = (at.clone(), body.to_owned());
        thread::spawn("query", move || ask(at, &body)).map_err(system)
    };
    let asked = at.iter().map(ask).collect::<Result<Vec<_>, _>>()?;
    let hear = |it: std::thread::JoinHandle<PredictionCounts>| {
        it.join().map_err(|_| CliError::Failed("asking a data plane failed".to_owned()))
    };
    asked.into_iter().map(hear).collect()
}

fn ask(at: String, body: &str) -> PredictionCounts {
    let state = http::request(&at, "/routing/state", None, PATIENCE).and_then(|reply| {
        let wrong = |why: String| format!("no answer of a node: {why}");
        if reply.status != 200 {
            return Err(wrong(format!("status {}", reply.status)));
        }
        let value = serde_json::from_slice(&reply.body).map_err(|it| wrong(it.to_string()))?;
        let state = serde_json::from_slice(&reply.body).map_err(|it| wrong(it.to_string()))?;
        Ok((state, value))
    });
    if let Err(why) = &state {
        // One time-out is enough.
        return PredictionCounts { at, prediction: Err(why.clone()), state, health: None };
    }
    let health = http::request(&at, "/health/snapshot", None, PATIENCE).ok();
    let health = health.and_then(|it| serde_json::from_slice(&it.body).ok());
    let prediction = http::request(&at, "/predict", Some(body.as_bytes()), PATIENCE);
    PredictionCounts { at, state, health, prediction }
}

/// Checks that all data planes serve the same state.
///
/// # Errors
/// Fails with the reason if one gave no answer, if states differ, or if fewer than two were asked.
pub(in crate::cli) fn verdict(told: &[PredictionCounts]) -> Result<String, String> {
    let missing: Vec<_> = told.iter().filter(|it| it.state.is_err()).map(|it| &it.at).collect();
    if !missing.is_empty() {
        return Err(format!("{} cannot be asked", list(missing)));
    }
    let states: Vec<_> = told.iter().filter_map(|it| it.state.as_ref().ok()).collect();
    let Some((first, whole)) = states.first() else { return Err("nobody was asked".to_owned()) };
    if states.iter().any(|(state, _)| state.version != first.version) {
        let versions = told.iter().zip(&states);
        let versions = versions.map(|(it, (state, _))| format!("{} {}", name(it), state.version));
        return Err(format!("they serve different versions: {}", list(versions)));
    }
    if states.iter().any(|(_, value)| value != whole) {
        return Err(format!("they serve different contents under version {}", first.version));
    }
    if let [_] = told {
        return Err("one node alone; name all of them".to_owned());
    }
    Ok(format!("all {} nodes serve version {} alike", told.len(), first.version))
}

fn name(told: &PredictionCounts) -> String {
    told.health.as_ref().map_or_else(|| told.at.clone(), |it| it.node_id.to_string())
}

/// Returns a table with a row for each data plane.
pub(in crate::cli) fn text(told: &[PredictionCounts], is_terminal: bool) -> String {
    let header =
        ["NODE", "DATA PLANE", "VERSION", "STATUS", "WEIGHTS", "P95", "ERRORS", "PREDICTION"];
    let mut rows = table(header, is_terminal);
    for it in told {
        let unknown = || "-".to_owned();
        let (version, status, weights) = match &it.state {
            Ok((state, value)) => (
                state.version.to_string(),
                value["status"].as_str().unwrap_or("-").to_owned(),
                super::format::weights(&state.weights),
            ),
            Err(why) => (unknown(), format!("unreachable: {}", escape(why)), unknown()),
        };
        let (p95, errors) = match &it.health {
            Some(health) => {
                (format!("{:.2} ms", health.p95_ms()), percent(basis_points(health.error_rate())))
            }
            None => (unknown(), unknown()),
        };
        let node = it.health.as_ref().map_or_else(unknown, |it| it.node_id.to_string());
        let prediction = match &it.prediction {
            Ok(reply) => predicted(reply, is_terminal),
            Err(_) => unknown(),
        };
        let at = escape(&it.at);
        rows.add_row([node, at, version, status, weights, p95, errors, prediction]);
    }
    table_text(rows, is_terminal)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an error rate is between 0 and 1; it is shown, nothing is decided by it"
)]
fn basis_points(rate: f64) -> u32 {
    (rate * 10_000.0).round() as u32
}

/// An answer in words; the columns of a terminal have no room for its body.
fn predicted(reply: &Reply, is_terminal: bool) -> String {
    let by = reply.model.as_deref().unwrap_or("nobody");
    let head = format!("{} by {}", reply.status, escape(by));
    if is_terminal {
        return head;
    }
    let body = String::from_utf8_lossy(&reply.body);
    let shown: String = body.trim().chars().take(SHOWN_MAX).collect();
    let more = if shown.len() < body.trim().len() { "…" } else { "" };
    format!("{head}: {}{more}", escape(&shown))
}

fn json_of(told: &[PredictionCounts], is_synchronized: bool) -> Value {
    let node = |it: &PredictionCounts| {
        let prediction = match &it.prediction {
            Ok(reply) => json!({
                "status": reply.status,
                "model": reply.model,
                "body": String::from_utf8_lossy(&reply.body),
            }),
            Err(why) => json!({ "error": why }),
        };
        json!({
            "data_plane": it.at,
            "state": it.state.as_ref().ok().map(|it| &it.1),
            "error": it.state.as_ref().err(),
            "health": it.health,
            "prediction": prediction,
        })
    };
    let nodes: Vec<_> = told.iter().map(node).collect();
    json!({ "synchronized": is_synchronized, "nodes": nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at: &str, version: u64, share: u32) -> PredictionCounts {
        let (stable, canary) = ("v1".parse().unwrap(), "v2".parse().unwrap());
        let weights = crate::proto::rollout::Weights::split(&stable, &canary, share);
        let state = RoutingState { version, weights, ..RoutingState::initial(stable, canary) };
        let health = json!({ "node_id": at, "window_id": "window-1", "models": {
            "v1": { "samples": 80, "errors": 1, "p95_us": 1_500 } } });
        let prediction =
            Reply { status: 200, model: Some("v1".into()), body: b"{\"y\":2}".to_vec() };
        PredictionCounts {
            at: format!("{at}:1"),
            state: Ok((state.clone(), json!(state))),
            health: serde_json::from_value(health).unwrap(),
            prediction: Ok(prediction),
        }
    }

    fn gone() -> PredictionCounts {
        let why = || "nobody listens there".to_owned();
        PredictionCounts {
            at: "c:1".into(),
            state: Err(why()),
            health: None,
            prediction: Err(why()),
        }
    }

    #[test]
    fn the_usual_data_planes_are_asked_where_no_node_runs() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(dir.path()), USUAL);
    }

    #[test]
    fn a_missing_node_is_never_synchronized() {
        let same = vec![told("a", 3, 500), told("b", 3, 500)];
        assert_eq!(verdict(&same).unwrap(), "all 2 nodes serve version 3 alike");
        let missing = vec![told("a", 3, 500), told("b", 3, 500), gone()];
        assert_eq!(verdict(&missing).unwrap_err(), "c:1 cannot be asked");
        assert!(verdict(&[gone()]).is_err());
        assert!(verdict(&[]).is_err());
        assert!(verdict(&same[..1]).is_err());
    }

    #[test]
    fn other_versions_and_contents_are_not_synchronized() {
        let text = verdict(&[told("a", 3, 500), told("b", 4, 500)]).unwrap_err();
        assert_eq!(text, "they serve different versions: a 3 and b 4");
        let text = verdict(&[told("a", 3, 500), told("b", 3, 501)]).unwrap_err();
        assert_eq!(text, "they serve different contents under version 3");
    }

    #[test]
    fn a_row_has_everything_and_the_unreachable_is_shown() {
        let text = text(&[told("a", 3, 500), gone()], false);
        let rows: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect())
            .collect();
        assert_eq!(
            rows[1],
            [
                "a",
                "a:1",
                "3",
                "COMMITTED",
                "v1 95 % v2 5 %",
                "1.50 ms",
                "1.25 %",
                "200 by v1: {\"y\":2}"
            ]
        );
        assert_eq!(
            rows[2],
            ["-", "c:1", "-", "unreachable: nobody listens there", "-", "-", "-", "-"]
        );
    }
}
