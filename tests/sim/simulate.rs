//! `peer simulate` as its users meet it: figures that agree with each other, the same again for
//! the same flags, a picture that any viewer can read, and clear refusals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to fail")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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

/// A run that is played, until dropped.
struct Played {
    process: std::process::Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Played {
    fn start(flags: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.arg("simulate").args(flags.split_whitespace()).arg("--open");
        command.arg("--svg").arg(dir.path().join("out.svg")).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let open = lines.map_while(Result::ok).find_map(|line| {
            let address = line.strip_prefix("open http://")?;
            Some(address.trim_end_matches('/').to_owned())
        });
        Self { process, address: open.expect("it says where the page is"), _dir: dir }
    }

    /// The head and the body of an answer.
    fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = &self.address;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head ends");
        (head.to_owned(), body.to_owned())
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_run_is_played_on_a_page_with_its_death_step_by_step() {
    let flags = "--peers 20 --kill 1 --gossip 2 --idle 1s --duration 5s --join-rate 50";
    let mut played = Played::start(flags);
    let (head, body) = played.get("/-/folkmoot/run");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let run: Value = serde_json::from_str(&body).unwrap();
    let list = |name: &str| run[name].as_array().unwrap();
    assert_eq!(run["left_out"], serde_json::json!({}), "a small run is told whole");
    let times: Vec<_> = list("events").iter().map(|it| it["at_ms"].as_f64().unwrap()).collect();
    assert!(times.is_sorted() && Some(times[0]) == run["start_ms"].as_f64());

    // The fleet comes together out of nothing.
    let whole = |it: &&Value| it["name"] == "fleet";
    let count = |it: &Value| it["data"]["members"].as_array().unwrap().len();
    let sizes: Vec<_> = list("events").iter().filter(whole).map(count).collect();
    assert_eq!((sizes[0], sizes.len()), (0, list("phases").len()));
    assert!(sizes[1..].iter().all(|size| *size == 20), "{sizes:?}");

    // The death, from the crash to the certificate.
    let victim = &list("faults")[0]["endpoint"];
    let place = |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        let is_here = |it: &Value| {
            let (name, event) = (&it["name"], &it["data"]["event"]);
            let fields = if name == "decided" { &it["data"] } else { &it["data"]["fields"] };
            (name == what || event == what) && fields["endpoint"] == *victim && is_it(fields)
        };
        list("events").iter().position(is_here).unwrap_or_else(|| panic!("no {what} in {run}"))
    };
    let removes = |it: &Value| it["kind"] == "remove";
    let steps = [
        place("crash", &|_| true),
        place("suspected", &|_| true),
        place("confirmed", &|it| it["count"] == 1),
        place("proposed", &removes),
        place("voted", &|it| removes(it) && it["yes"] == true && it["count"] == 1),
        place("voted", &|it| removes(it) && it["yes"] == true && it["count"] == 2),
        place("removed", &|_| true),
        place("decided", &|it| removes(it) && it["valid"] == true),
    ];
    assert!(steps.is_sorted(), "{steps:?}");

    // The page that plays it may load its own files, and those are there.
    let (head, page) = played.get("/");
    assert!(head.contains("Content-Security-Policy: default-src 'none'; script-src 'self'"));
    assert!(page.contains("<meta name=\"folkmoot-player\""), "{page}");
    for file in page.split("\"/-/folkmoot/page/").skip(1).chain(["player.js\""]) {
        let name = file.split('"').next().unwrap();
        let (head, text) = played.get(&format!("/-/folkmoot/page/{name}"));
        assert!(head.starts_with("HTTP/1.1 200 ") && !text.is_empty(), "{name}: {head}");
    }
    assert!(played.get("/-/folkmoot/fleet").0.starts_with("HTTP/1.1 404 "), "there is no node");

    let pid = rustix::process::Pid::from_child(&played.process);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(played.process.wait().unwrap().success(), "Ctrl-C is its normal end");
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
        ("--open --peers 2001", "--open shows 2000 peers at most"),
        ("--open --json", "cannot be used with"),
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
