//! `peer simulate` as its users meet it: figures that agree with each other, the same again for
//! the same flags, a picture that any viewer can read, and clear refusals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to fail")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn simulate(flags: &str, svg: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
    command.arg("simulate").args(flags.split_whitespace()).arg("--svg").arg(svg);
    command.output().expect("the program starts")
}

/// The figures that follow from the flags, and the picture.
fn figures(flags: &str) -> (Vec<Value>, String) {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("out.svg");
    let output = simulate(&format!("--json {flags}"), &svg);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "", "no progress where there is no terminal");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let (exact, cost): (Vec<Value>, Vec<Value>) =
        lines.partition(|it: &Value| it["bench"] == "simulation");
    assert!(cost.iter().all(|it| it["bench"] == "simulation_cost"), "{cost:?}");
    assert!(cost.iter().any(|it| it["wall_s"].as_f64() > Some(0.0)), "{cost:?}");
    (exact, std::fs::read_to_string(svg).unwrap())
}

#[track_caller]
fn metric<'a>(figures: &'a [Value], name: &str) -> &'a Value {
    let found = figures.iter().find(|it| it["metric"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {figures:?}"))
}

/// Fails unless every tag is closed, in order, and every attribute is quoted.
#[track_caller]
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert_eq!(tag.matches('=').count() * 2, tag.matches('"').count(), "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name.to_owned()), "{tag}");
        } else if !tag.ends_with('/') {
            open.push(name.to_owned());
        }
    }
    assert_eq!(open, Vec::<String>::new());
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert!(!svg.contains('&'), "nothing needs an entity");
}

const SMALL: &str = "--peers 60 --kill 6 --gossip 5 --idle 5s --duration 10s --join-rate 50";

#[test]
fn the_figures_agree_with_each_other() {
    let (found, svg) = figures(SMALL);
    assert_eq!(found[0]["peers"], 60);
    assert_eq!(metric(&found, "members")["active"], 60);
    assert_eq!(metric(&found, "members")["seeds_that_list_all"], 3);
    assert_eq!(metric(&found, "asked_to_admitted_ms")["n"], 60);
    assert_eq!(metric(&found, "degree")["n"], 60);
    let shape = metric(&found, "degree_histogram");
    assert_eq!(shape["mutual"], true);
    let histogram = shape["histogram"].as_object().unwrap();
    assert_eq!(histogram.values().filter_map(Value::as_u64).sum::<u64>(), 60);
    let removals = metric(&found, "removals");
    let count = |name: &str| removals[name].as_u64().unwrap();
    assert_eq!(["deaths", "wrong", "missed"].map(count), [6, 0, 0]);
    assert_eq!(metric(&found, "removals_learnt_by_survivors")["share"], 1.0);
    assert_eq!(metric(&found, "gossip_delivered")["share"], 1.0);
    assert_eq!(metric(&found, "gossip_to_the_last_peer_ms")["n"], 5);
    let stages = ["suspected", "reported", "removed_at_every_seed", "learnt_by_the_last_survivor"];
    let p50 = stages.map(|stage| {
        let figure = metric(&found, &format!("kill_to_{stage}_ms"));
        // A seed whose own link breaks is sometimes through before any neighbor's report.
        let least = if stage == "reported" { 1 } else { 6 };
        assert!((least..=6).contains(&figure["n"].as_u64().unwrap()), "{stage}: {figure}");
        figure["p50"].as_f64().unwrap()
    });
    assert!(p50.is_sorted() && p50[0] > 0.0 && p50[3] < 10_000.0, "{p50:?}");

    // What all nodes sent is what each of them sent, whichever way it is counted.
    for unit in ["messages", "bytes"] {
        let mean = |role: &str| {
            let name = format!("idle_{unit}_sent_per_second_{role}");
            metric(&found, &name)["mean"].as_f64().unwrap()
        };
        let each = mean("peer") * 60.0 + mean("seed") * 3.0;
        let rows = &metric(&found, "idle_sent_by_all_nodes_per_second_and_peer")["by_message"];
        let rows = rows.as_object().unwrap().values();
        let all = rows.filter_map(|row| row[unit].as_f64()).sum::<f64>() * 60.0;
        assert!(each > 0.0 && (each - all).abs() < each * 0.01 + 0.5, "{unit}: {each} {all}");
    }

    assert_well_formed(&svg);
    for part in ["60 peers", "seconds since the death", "share that knows", "p99", "100 %"] {
        assert!(svg.contains(part), "no {part:?} in the picture");
    }
    assert!(svg.contains("fill=\"#FFFFFF\""), "it brings its own background");
    for word in ["<style", "class=", "var(", "currentColor"] {
        assert!(!svg.contains(word), "not every viewer knows {word}");
    }
}

#[test]
fn the_same_flags_give_the_same_figures_and_another_seed_gives_others() {
    let flags = "--peers 30 --kill 3 --gossip 2 --idle 2s --duration 5s --loss 0.1";
    let (one, picture) = figures(&format!("{flags} --seed 7"));
    assert_eq!((one.clone(), picture), figures(&format!("{flags} --seed 7")));
    assert_ne!(one[1..], figures(&format!("{flags} --seed 8")).0[1..]);
}

#[test]
fn loss_and_silence_make_everything_later() {
    let (calm, _) = figures(SMALL);
    let (lossy, _) = figures(&format!("{SMALL} --loss 0.2"));
    let (silent, _) = figures(&format!("{SMALL} --vanish"));
    let p50 = |found: &[Value], name| metric(found, name)["p50"].as_f64().unwrap();
    let gossip = "gossip_to_the_last_peer_ms";
    let worst = |found: &[Value]| metric(found, gossip)["max"].as_f64().unwrap();
    assert!(worst(&lossy) > worst(&calm) + 100.0, "a repetition takes 200 ms");
    assert!(metric(&lossy, "gossip_delivered")["share"].as_f64() > Some(0.8));
    let removed = "kill_to_removed_at_every_seed_ms";
    assert!(p50(&silent, removed) > p50(&calm, removed) + 1_000.0, "three pings are waited for");
    assert_eq!(metric(&silent, "removals")["missed"], 0);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("out.svg");
    let cases = [
        ("--peers 10 --kill 10", "--kill 10 of --peers 10"),
        ("--peers 10 --kill 11", "--kill 11 of --peers 10"),
        ("--peers 10 --kill 1 --gossip 11", "--gossip 11"),
        ("--peers 1", "2..=20000"),
        ("--peers 20001", "2..=20000"),
        ("--seeds 0", "1..=15"),
        ("--loss 1", "from 0 to below 1"),
        ("--loss 1.5", "from 0 to below 1"),
        ("--loss=-0.1", "from 0 to below 1"),
        ("--loss NaN", "from 0 to below 1"),
        ("--loss much", "a share is a number"),
        ("--latency 3s", "2s at most"),
        ("--latency 20", "a duration needs its unit"),
        ("--join-rate 0", "1..=10000"),
    ];
    for (flags, reason) in cases {
        let output = simulate(flags, &svg);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags}: {text}");
        assert!(text.contains(reason), "{flags}: {text}");
        assert!(!svg.exists(), "{flags}");
    }
    let output = simulate("--peers 10 --kill 1", &dir.path().join("no/such/dir.svg"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--svg"));
}
