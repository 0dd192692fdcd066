//! `peer status`, `peer metrics` and `peer leave`: nodes of this machine, found by their data
//! directories.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{after, tick};
use serde_json::{Map, Value, json};

use super::QueryError;
use super::brief::{brief, turned_away};
use crate::cli::CliError;
use crate::cli::args::{LeaveArgs, LocalNodeArgs, StatusArgs};
use crate::cli::metrics::{classic, json as metrics_json};
use crate::cli::output::{lasting, moment, print, rows_text, table, table_text, terminal_width};
use crate::cli::span::Span;
use crate::cli::text::escape;
use crate::model::WallTime;
use crate::runtime::clock::Clock;
use crate::runtime::control;
use crate::runtime::files::control_path;

/// Time-out of a node's answer to a local program; a busy machine answers late.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time-out of a peer to stop after its goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval of the checks whether it has stopped.
const STOP_LOOK: Duration = Duration::from_millis(20);

/// Shows the status of a node of this machine that has one of `roles`.
///
/// # Errors
/// Fails if no node answers, or it is not clear which is meant.
pub fn status(args: &StatusArgs, roles: &[&str]) -> Result<(), CliError> {
    let answer = ask_status(&args.node, roles)?;
    let now = Clock::start().now().wall;
    if args.node.json {
        print(&(Value::Object(answer).to_string() + "\n"))
    } else if args.all {
        let since = |at| moment(at, now, args.utc);
        print(&status_text(&answer, since, std::io::stdout().is_terminal()))
    } else {
        let since = |at| lasting(at, now, args.utc);
        print(&rows_text(&brief(&Value::Object(answer), since), terminal_width()))
    }
}

/// Shows the metrics of a node of this machine that has one of `roles`.
///
/// # Errors
/// Fails if no node answers, or it is not clear which is meant.
pub fn metrics(args: &LocalNodeArgs, roles: &[&str]) -> Result<(), CliError> {
    let answer = Value::Object(ask_status(args, roles)?);
    if args.json {
        print(&(Value::Object(metrics_json(&answer)).to_string() + "\n"))
    } else {
        print(&classic(&answer))
    }
}

fn ask_status(args: &LocalNodeArgs, roles: &[&str]) -> Result<Map<String, Value>, CliError> {
    match args.port {
        Some(port) => Ok(ask_at(&args.data, roles, port, "status")?.1),
        None => ask_only(&args.data, roles),
    }
}

/// Lets a peer say goodbye, and waits until it has stopped.
///
/// # Errors
/// Fails if no peer answers, or it does not stop.
pub fn leave(args: &LeaveArgs) -> Result<(), CliError> {
    let (dir, _) = ask_at(&args.data, &["peer", "seed"], args.port, "leave")?;
    let socket = control_path(&dir);
    let (late, look) = (after(STOP_TIMEOUT), tick(STOP_LOOK));
    // The node removes its socket when all is done and its port is free.
    while socket.exists() {
        if late.try_recv().is_ok() {
            return Err(local(format!(
                "the peer on port {} said goodbye but has not stopped within {}; look at its log",
                args.port,
                Span(STOP_TIMEOUT)
            )));
        }
        let _ = look.recv();
    }
    print(&format!("the peer on port {} has said goodbye and stopped\n", args.port))
}

pub(super) fn local(text: String) -> CliError {
    QueryError::Local(text).into()
}

/// Asks the node on `port`, of any of `roles`, and returns its directory and its answer.
fn ask_at(
    data: &Path,
    roles: &[&str],
    port: u16,
    ask: &str,
) -> Result<(PathBuf, Map<String, Value>), CliError> {
    let mut reasons = Vec::new();
    for role in roles {
        let dir = data.join(format!("{role}-{port}"));
        if !dir.exists() {
            continue;
        }
        match ask_in(&dir, ask) {
            Ok(answer) => return Ok((dir, answer)),
            Err(_) if ask == "leave" && is_down(&dir) => {
                let dir = dir.display();
                reasons.push(format!("the node of {dir} does not run: there is nothing to stop"));
            }
            Err(reason) => reasons.push(reason),
        }
    }
    let data = data.display();
    Err(local(match reasons.first() {
        Some(reason) => escape(reason),
        None => format!(
            "no {} with port {port} has its data in {data}; name the right --port and --data",
            roles.join(" or ")
        ),
    }))
}

/// True if no node runs that has its data in `dir`.
pub(super) fn is_down(dir: &Path) -> bool {
    let nothing = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused);
    let answer = control::ask(&control_path(dir), r#"{"ask":"status"}"#, ANSWER_TIMEOUT);
    answer.is_err_and(|error| nothing(error.kind()))
}

fn ask_in(dir: &Path, ask: &str) -> Result<Map<String, Value>, String> {
    request_in(dir, &json!({ "ask": ask }))
}

/// Sends a request to the node that has its data in `dir`.
///
/// # Errors
/// In words, if it does not run or refuses.
pub(in crate::cli) fn request_in(
    dir: &Path,
    request: &Value,
) -> Result<Map<String, Value>, String> {
    let request = request.to_string();
    let answer = control::ask(&control_path(dir), &request, ANSWER_TIMEOUT).map_err(|error| {
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
            format!("the node of {} does not run; start it first", dir.display())
        } else {
            error.to_string()
        }
    })?;
    match serde_json::from_str(&answer) {
        Ok(Value::Object(mut answer)) => match answer.remove("error") {
            None => Ok(answer),
            Some(Value::String(error)) => Err(error),
            Some(other) => Err(other.to_string()),
        },
        Ok(_) | Err(_) => Err(format!("the node in {} gave no proper answer", dir.display())),
    }
}

/// The directories of the nodes that run with their data in `data`, ascending by port.
pub(in crate::cli) fn running(data: &Path, roles: &[&str]) -> Vec<PathBuf> {
    let port = |dir: &PathBuf| {
        let name = dir.file_name()?.to_str()?;
        let (role, port) = name.split_once('-')?;
        roles.contains(&role).then(|| port.parse::<u16>().ok())?
    };
    let entries = std::fs::read_dir(data).into_iter().flatten().filter_map(Result::ok);
    let dirs =
        entries.map(|entry| entry.path()).filter(|dir| control::is_served(&control_path(dir)));
    let mut found: Vec<_> = dirs.filter_map(|dir| Some((port(&dir)?, dir))).collect();
    found.sort();
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// Asks the one node that runs with its data in `data`.
fn ask_only(data: &Path, roles: &[&str]) -> Result<Map<String, Value>, CliError> {
    let entries = std::fs::read_dir(data).map_err(|error| {
        let data = data.display();
        local(format!("no node has its data in {data} ({error}); name the right --data"))
    })?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|dir| {
            let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            roles.iter().any(|role| name.starts_with(role)) && control_path(dir).exists()
        })
        .collect();
    found.sort();
    let mut answers: Vec<_> =
        found.iter().filter_map(|dir| Some((dir, ask_in(dir, "status").ok()?))).collect();
    match (answers.pop(), answers.len()) {
        (Some((_, answer)), 0) => Ok(answer),
        (Some((last, _)), _) => {
            let names = answers.iter().map(|(dir, _)| *dir).chain([last]);
            let names: Vec<_> = names.filter_map(|dir| dir.file_name()?.to_str()).collect();
            let names = names.join(", ");
            Err(local(format!("several nodes run here: {names}; choose one with --port")))
        }
        (None, _) => {
            let data = data.display();
            Err(local(format!("no running node has its data in {data}; start one, or name --data")))
        }
    }
}

/// A line for each field, in the order of interest; unknown fields come last.
fn status_text(
    status: &Map<String, Value>,
    since: impl Fn(WallTime) -> String,
    is_terminal: bool,
) -> String {
    const FIRST: [&str; 24] = [
        "role",
        "seed",
        "endpoint",
        "state",
        "ready",
        "incarnation",
        "key",
        "member_since",
        "seeds",
        "seeds_connected",
        "seeds_configured",
        "quorum",
        "members",
        "members_known",
        "members_linked",
        "neighbors",
        "suspects",
        "admissions_open",
        "removals_open",
        "gossip_made",
        "gossip_held",
        "gossip_duplicates",
        "health",
        "uptime_ms",
    ];
    /// Too long for a table; `--json` has them.
    const LEFT_OUT: [&str; 5] = ["topology", "counters", "http", "process", "queues"];
    let known = FIRST.iter().filter_map(|name| Some((*name, status.get(*name)?)));
    let others = status.iter().map(|(name, value)| (name.as_str(), value));
    let others = others.filter(|(name, _)| !FIRST.contains(name) && !LEFT_OUT.contains(name));
    let mut table = table(["FIELD", "VALUE"], is_terminal);
    let shown = if is_terminal { "\n" } else { ", " };
    // Each service of the network layer has a line of its own.
    let (network, others): (Vec<_>, Vec<_>) = others.partition(|(name, _)| *name == "network");
    let services = network.iter().filter_map(|(_, value)| value.as_object()).flatten();
    let services = services.map(|(name, value)| (name.as_str(), value));
    for (name, value) in known.chain(services).chain(others) {
        let label = name.strip_suffix("_ms").unwrap_or(name).replace('_', " ");
        let mut text = match value.as_u64() {
            Some(at) if name == "member_since" => since(WallTime(at)),
            Some(_) | None => value_text(name, value, shown),
        };
        if name == "quorum" && is_out_of_reach(status) {
            text.push_str(" (not reached: membership is frozen)");
        }
        table.add_row([label, escape_lines(&text)]);
    }
    let turned_away = turned_away(status);
    if !turned_away.is_empty() {
        table.add_row(["turned away".to_owned(), turned_away.join(", ")]);
    }
    table_text(table, is_terminal)
}

/// True if this is a seed that reaches too few others to decide anything.
fn is_out_of_reach(status: &Map<String, Value>) -> bool {
    let count = |name| status.get(name).and_then(Value::as_u64);
    matches!((count("seeds_connected"), count("quorum")), (Some(up), Some(needed)) if up < needed)
}

/// Escapes all but the line breaks that were put in here.
fn escape_lines(text: &str) -> String {
    text.split('\n').map(escape).collect::<Vec<_>>().join("\n")
}

fn value_text(name: &str, value: &Value, separator: &str) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.replace('\n', " "),
        Value::Number(number) => match (name, number.as_u64()) {
            ("uptime_ms", Some(ms)) => Span(Duration::from_secs(ms / 1_000)).to_string(),
            ("health", Some(0)) => "0 (trusts itself)".to_owned(),
            ("health", Some(score)) => format!("{score} of 7 (distrusts itself)"),
            (_, Some(_) | None) => number.to_string(),
        },
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| value_text(name, item, ", ")).collect();
            items.join(separator)
        }
        Value::Object(fields) if fields.is_empty() => "none".to_owned(),
        Value::Object(seen) if seen.contains_key("buckets") => distribution(name, seen),
        Value::Object(link) if name == "links" => {
            let text = |field| value_text("", link.get(field).unwrap_or(&Value::Null), " ");
            format!("{} ({})", text("endpoint"), text("standing"))
        }
        Value::Object(fields) => {
            let mut parts = Vec::new();
            for (key, value) in fields {
                // In long lists by cause, zeros are left out.
                if name == "messages_dropped" && value == 0 {
                    continue;
                }
                let mut part = key.strip_suffix("_ms").unwrap_or(key).to_owned();
                match (name, value.as_u64()) {
                    ("neighbors", Some(micros)) => _ = write!(part, " ({micros} µs)"),
                    ("neighbors", None) => {}
                    (_, _) => _ = write!(part, ": {}", value_text(key, value, " ")),
                }
                parts.push(part);
            }
            if parts.is_empty() { "none".to_owned() } else { parts.join(separator) }
        }
    }
}

/// Number and average of a distribution; `--json` and the metrics have more.
fn distribution(name: &str, seen: &Map<String, Value>) -> String {
    let number = |field: &str| seen.get(field).and_then(Value::as_u64).unwrap_or(0);
    let (count, sum) = (number("count"), number("sum"));
    if count == 0 {
        return "none".to_owned();
    }
    let unit = if name.ends_with("_ms") { " ms" } else { "" };
    format!("{:.1}{unit} on average of {count}", sum as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(fields) = value else { panic!("{value} is no object") };
        fields
    }

    fn text_of(status: &Map<String, Value>, is_terminal: bool) -> String {
        status_text(status, |at| at.to_string(), is_terminal)
    }

    #[test]
    fn a_status_is_one_plain_line_a_field_for_programs() {
        let status = object(json!({
            "neighbors": { "127.0.0.1:6002": 250, "127.0.0.1:6003": null },
            "role": "peer", "member_since": null, "suspects": [], "uptime_ms": 90_400,
            "refused": { "forged": 3, "stale": 1 }, "pid": 7,
            "counters": { "lines_in": 1, "refused_keyless": 4, "refused_full": 0,
                "refused_crowded": 2_489 },
        }));
        let text = text_of(&status, false);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected: [&[&str]; 9] = [
            &["FIELD", "VALUE"],
            &["role", "peer"],
            &["member", "since", "-"],
            &["neighbors", "127.0.0.1:6002", "(250", "µs),", "127.0.0.1:6003"],
            &["suspects", "none"],
            &["uptime", "90s"],
            &["pid", "7"],
            &["refused", "forged:", "3,", "stale:", "1"],
            &["turned", "away", "no", "cluster", "key:", "4,", "crowded:", "2489"],
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_seed_without_a_quorum_says_so() {
        let text = |up| {
            let status = json!({ "role": "seed", "seeds_connected": up, "quorum": 2 });
            text_of(&object(status), false)
        };
        assert!(text(1).contains("2 (not reached: membership is frozen)"), "{}", text(1));
        assert!(!text(2).contains("frozen"), "{}", text(2));
    }

    #[test]
    fn who_does_not_run_cannot_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("peer-6001")).unwrap();
        let told = |ask| ask_at(dir.path(), &["peer"], 6001, ask).unwrap_err().to_string();
        assert!(told("leave").ends_with("does not run: there is nothing to stop"));
        assert!(told("status").ends_with("does not run; start it first"));
    }

    #[test]
    fn each_service_of_the_network_has_a_line_and_none_shows_buckets() {
        let seen = json!({ "buckets": [[1, 2], [5, 4], [null, 4]], "sum": 10, "count": 4 });
        let none = json!({ "buckets": [[1, 0], [null, 0]], "sum": 0, "count": 0 });
        let status = object(json!({
            "role": "peer",
            "network": {
                "broadcast": {
                    "delivery_latency_ms": seen, "messages_dropped": { "forged": 0, "old": 2 },
                    "messages_published": 1,
                },
                "discovery": { "entries": 3, "lookup_hops": none },
            },
        }));
        let expected = "FIELD VALUE|role peer|broadcast delivery_latency: 2.5 ms on average of 4, \
                        messages_dropped: old: 2, messages_published: 1|discovery entries: 3, \
                        lookup_hops: none";
        let text = text_of(&status, false);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(lines.join("|"), expected);
        let shown = text_of(&status, true);
        assert!(shown.contains("messages_published: 1") && !shown.contains("buckets"), "{shown}");
    }

    #[test]
    fn nobody_here_is_told_with_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let text = ask_only(dir.path(), &["seed"]).unwrap_err().to_string();
        assert!(text.contains("no running node") && text.contains("--data"), "{text}");
        let text = ask_at(dir.path(), &["seed"], 6001, "status").unwrap_err().to_string();
        assert!(text.contains("6001"), "{text}");
        let text = ask_only(&dir.path().join("none"), &["seed"]).unwrap_err().to_string();
        assert!(text.contains("no node has its data"), "{text}");
    }
}
