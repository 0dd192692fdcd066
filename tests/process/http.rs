//! HTTP at real nodes: what collectors of metrics, health checks and browsers get, and what those
//! get who send something else.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;

use folkmoot::cli::metrics::table::{MetricKind, MetricRow, ROWS};
use folkmoot::model::Endpoint;
use serde_json::Value;
use support::process::{eventually, run};
use support::{NO_GOSSIP, PATIENCE, Scene, peer_exe};

/// An answer, taken apart.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a body of JSON")
    }
}

/// Sends these bytes, ends the own direction, and reads to the end of the connection.
#[track_caller]
fn say(node: Endpoint, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect((node.ip(), node.port())).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
    stream.write_all(bytes).expect("the node reads");
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text and ends");
    answer
}

#[track_caller]
fn ask(node: Endpoint, method: &str, path: &str, headers: &str) -> Answer {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n{headers}\r\n");
    let text = say(node, request.as_bytes());
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers: BTreeMap<_, _> = lines
        .map(|line| line.split_once(": ").expect("a header"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let len: usize = headers["content-length"].parse().expect("a number");
    assert!(method == "HEAD" && body.is_empty() || body.len() == len, "{text}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(!headers.contains_key("access-control-allow-origin"));
    Answer { status: status.parse().expect("a number"), headers, body: body.to_owned() }
}

#[track_caller]
fn get(node: Endpoint, path: &str) -> Answer {
    ask(node, "GET", path, "")
}

/// A line: its name, its labels, its value.
type Sample = (String, Vec<(String, String)>, f64);

/// One family of the classic text format: its type, and its lines with their labels.
#[derive(Default)]
struct Family {
    kind: String,
    has_help: bool,
    samples: Vec<Sample>,
}

fn is_name(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next().is_some_and(|it| it.is_ascii_alphabetic() || it == b'_')
        && letters.all(|it| it.is_ascii_alphanumeric() || it == b'_')
}

/// The labels of a line, and what follows them.
#[track_caller]
fn labels(text: &str) -> (Vec<(String, String)>, &str) {
    let (mut labels, mut rest) = (Vec::new(), text);
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label and its value in quotes");
        assert!(is_name(name), "{text}");
        let (mut value, mut letters) = (String::new(), after.char_indices());
        let end = loop {
            match letters.next().expect("a closing quote") {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next().expect("an escape").1 {
                    'n' => '\n',
                    it @ ('\\' | '"') => it,
                    it => panic!("no escape: {it:?} in {text}"),
                }),
                (_, it) => value.push(it),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", more) => return (labels, more),
            other => panic!("{other:?} in {text}"),
        }
    }
}

/// Reads the classic text format, and fails at whatever it does not allow.
#[track_caller]
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n') && !text.contains('\r') && !text.contains("\n\n"), "{text}");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next(), words.next());
            let (name, rest) = (name.expect("a name"), rest.expect("a text"));
            assert!(is_name(name), "{line}");
            if what == Some("HELP") {
                assert!(!families.contains_key(name), "twice: {line}");
                current = name.to_owned();
                families.entry(current.clone()).or_default().has_help = true;
            } else {
                assert_eq!((what, name), (Some("TYPE"), current.as_str()), "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                families.get_mut(name).expect("after its help").kind = rest.to_owned();
            }
            continue;
        }
        let end = line.find(['{', ' ']).expect("a value");
        let (name, rest) = line.split_at(end);
        let (labels, value) =
            if let Some(rest) = rest.strip_prefix('{') { labels(rest) } else { (vec![], rest) };
        let value = value.strip_prefix(' ').expect("one blank").parse().expect("a number");
        let family = families.get_mut(&current).expect("after its help and type");
        let base = match family.kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|it| name.strip_suffix(it))
                .expect("the end of a histogram's name"),
            _ => name,
        };
        assert_eq!(base, current, "{line}");
        assert!(is_name(name) && !family.kind.is_empty() && family.has_help, "{line}");
        let sample = (name.to_owned(), labels, value);
        let is_known = family.samples.iter().any(|it| (&it.0, &it.1) == (&sample.0, &sample.1));
        assert!(!is_known, "twice: {line}");
        family.samples.push(sample);
    }
    for (name, family) in &families {
        assert!(!family.samples.is_empty(), "{name} has no lines");
        assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name}");
        if family.kind == "counter" {
            assert!(family.samples.iter().all(|it| it.2 >= 0.0), "{name}");
        }
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    families
}

#[track_caller]
fn check_histogram(name: &str, family: &Family) {
    let of = |end: &str| {
        let is_it = |it: &&Sample| it.0 == format!("{name}{end}");
        family.samples.iter().filter(is_it).collect::<Vec<_>>()
    };
    let buckets: Vec<(f64, f64)> = of("_bucket")
        .iter()
        .map(|it| {
            let bound = &it.1.iter().find(|label| label.0 == "le").expect("a bound").1;
            let bound =
                if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound") };
            (bound, it.2)
        })
        .collect();
    let rises = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
    assert!(buckets.windows(2).all(rises), "{name}: {buckets:?}");
    let last = buckets.last().expect("a bucket");
    assert_eq!((last.0, Some(last.1)), (f64::INFINITY, of("_count").first().map(|it| it.2)));
    assert_eq!(of("_sum").len(), 1, "{name}");
}

/// Value of a family that has one, without labels.
#[track_caller]
fn value(families: &BTreeMap<String, Family>, name: &str) -> f64 {
    let family = families.get(&format!("folkmoot_{name}")).expect("the family is there");
    assert_eq!(family.samples.len(), 1, "{name}");
    family.samples[0].2
}

fn seed_exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_seed"))
}

#[test]
fn a_fleet_tells_its_health_its_numbers_and_its_state_over_http() {
    let mut scene = Scene::lay_out(3, 2, NO_GOSSIP);
    let (seeds, peers) = (scene.seeds(), scene.peers());
    // One seed of three decides nothing, and a peer alone with it is no member.
    scene.fleet.start_seed(seeds[0]).expect("a seed starts");
    scene.fleet.start_peer(peers[0]).expect("a peer starts");
    scene.wait("both have started", |lines| {
        let started = |node| lines.iter().any(|it| it.node == node && it.event == "started");
        started(seeds[0]) && started(peers[0])
    });
    let seed = get(seeds[0], "/readyz");
    assert_eq!((seed.status, &seed.json()["status"]), (503, &Value::from("not ready")));
    assert!(seed.json()["reason"].as_str().is_some_and(|it| it.contains("no quorum")));
    let peer = get(peers[0], "/readyz");
    assert_eq!(peer.status, 503);
    assert!(peer.json()["reason"].as_str().is_some_and(|it| it.contains("no member")));
    // Neither would do its part if it was started again: both are alive.
    for node in [seeds[0], peers[0]] {
        let alive = get(node, "/healthz");
        assert_eq!((alive.status, &alive.json()["status"]), (200, &Value::from("ok")));
    }
    scene.start_some_seeds(&seeds[1..]);
    scene.start_some_peers(&peers[1..]);
    scene.await_overlay(&peers);
    for node in [seeds[0], peers[0]] {
        let becomes_healthy = eventually(|| get(node, "/readyz").status == 200);
        assert!(becomes_healthy, "{node}: {}", get(node, "/readyz").body);
        assert_eq!(get(node, "/readyz").json()["status"], "ready");
    }
    check_metrics(&scene, &seeds, &peers);
    check_pages(&scene, seeds[0], peers[0]);
    check_broadcasts(&scene, &peers);
    check_bad_requests(peers[0]);
    // What was refused has cost nobody anything.
    assert_eq!(get(peers[0], "/healthz").status, 200);
    assert_eq!(scene.status(peers[0])["refused"].as_object().map(serde_json::Map::len), Some(0));
}

fn check_metrics(scene: &Scene, seeds: &[Endpoint], peers: &[Endpoint]) {
    let mut seen = BTreeSet::new();
    for node in [seeds[0], peers[0]] {
        let answer = get(node, "/metrics");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let families = parse(&answer.body);
        assert!(families.keys().all(|name| name.starts_with("folkmoot_")));
        for own in seeds.iter().chain(peers) {
            assert!(!answer.body.contains(&own.to_string()), "labels grow with the fleet");
        }
        for name in ["messages_sent_total", "bytes_received_total", "process_threads"] {
            assert!(value(&families, name) > 0.0, "{name}");
        }
        assert_eq!(value(&families, "healthy"), 1.0);
        seen.extend(families.into_keys());
        let open = ask(node, "GET", "/metrics", "Accept: application/openmetrics-text\r\n");
        assert!(
            open.headers["content-type"].starts_with("application/openmetrics-text; version=1")
        );
        assert!(open.body.ends_with("# EOF\n"));
    }
    let peer = parse(&get(peers[0], "/metrics").body);
    assert_eq!(value(&peer, "connected_peers"), 1.0);
    let seed = parse(&get(seeds[0], "/metrics").body);
    assert_eq!(value(&seed, "members"), 2.0);
    // Every metric of the table is exported by one of them, but those of services that none runs.
    let is_common = |row: &&MetricRow| !SERVICES.iter().any(|it| row.name.starts_with(it));
    for row in ROWS.iter().filter(is_common) {
        let ending = if row.kind == MetricKind::Counter { "_total" } else { "" };
        let name = format!("folkmoot_{}{ending}", row.name);
        assert!(seen.contains(&name), "{name} is exported by nobody");
    }
    // The same through the local socket.
    let data = scene.fleet.dir().join("data");
    let data = data.to_str().expect("a plain path");
    let port = seeds[0].port().to_string();
    let args = ["metrics", "--data", data, "--port", &port];
    let (code, out, err) = run(&seed_exe(), &args, scene.fleet.dir());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let local: Vec<_> = parse(&out).into_keys().collect();
    assert_eq!(local, seed.into_keys().collect::<Vec<_>>());
    let (code, out, _) = run(&peer_exe(), &[&args[..], &["--json"]].concat(), scene.fleet.dir());
    let json: Value = serde_json::from_str(&out).expect("one object");
    assert_eq!((code, &json["folkmoot_members"]), (Some(0), &Value::from(2)));
    let args = ["metrics", "--data", data, "--port", "9"];
    let (code, _, err) = run(&peer_exe(), &args, scene.fleet.dir());
    assert!(code == Some(1) && err.contains("port 9"), "{err}");
}

/// Real messages of programs are in the numbers of both ends, and in the distributions.
fn check_broadcasts(scene: &Scene, peers: &[Endpoint]) {
    let count = 12;
    for at in 0..count {
        let data = scene.fleet.dir().join("data");
        let (data, port) = (data.to_str().expect("a plain path"), peers[0].port().to_string());
        let text = format!("message {at}");
        let args = ["publish", "--data", data, "--port", &port, "news", &text];
        let (code, out, err) = run(&peer_exe(), &args, scene.fleet.dir());
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    }
    let numbers = |node| parse(&get(node, "/metrics").body);
    let is_there = |node, name: &str| {
        let is_there = eventually(|| value(&numbers(node), name) == f64::from(count));
        assert!(is_there, "{node} {name}: {}", value(&numbers(node), name));
    };
    is_there(peers[0], "broadcast_published_total");
    for name in ["broadcast_delivered_total", "broadcast_messages_received_total"] {
        is_there(peers[1], name);
    }
    let families = numbers(peers[1]);
    for (name, most) in [("latency_seconds", 60.0), ("hops", 1.0)] {
        let name = format!("folkmoot_broadcast_delivery_{name}");
        let family = &families[&name];
        assert_eq!(family.kind, "histogram");
        let one = |end: &str| {
            let is_it = |it: &&Sample| it.0 == format!("{name}{end}");
            family.samples.iter().find(is_it).expect("a line").2
        };
        assert_eq!(one("_count"), f64::from(count), "{name}");
        // A sum in milliseconds would be a thousand times as large.
        assert!((0.0..=most * f64::from(count)).contains(&one("_sum")), "{name}: {}", one("_sum"));
    }
    let bounds = |name: &str| -> Vec<String> {
        let lines = families[name].samples.iter().filter(|it| it.0.ends_with("_bucket"));
        lines.map(|it| it.1[0].1.clone()).collect()
    };
    let latency = bounds("folkmoot_broadcast_delivery_latency_seconds");
    assert_eq!((latency[0].as_str(), latency[latency.len() - 2].as_str()), ("0.001", "60.0"));
    let seen = &families["folkmoot_seen_messages"].samples;
    let of_broadcast = seen.iter().find(|it| it.1[0].1 == "broadcast").expect("a line");
    assert!(seen.len() == 2 && of_broadcast.2 >= f64::from(count), "{seen:?}");
    // Nobody was refused anything, and it is said so from the start.
    let refusals = &families["folkmoot_refusals_total"].samples;
    assert!(refusals.len() == 9 && refusals.iter().all(|it| it.2 == 0.0), "{refusals:?}");
    let data = scene.fleet.dir().join("data");
    let (data, port) = (data.to_str().expect("a plain path"), peers[1].port().to_string());
    let args = ["status", "--all", "--data", data, "--port", &port];
    let (code, out, _) = run(&peer_exe(), &args, scene.fleet.dir());
    assert!(code == Some(0) && out.contains("messages_delivered: 12"), "{out}");
    assert!(out.contains("on average of 12") && !out.contains("buckets"), "{out}");
}

fn check_pages(scene: &Scene, seed: Endpoint, peer: Endpoint) {
    for node in [seed, peer] {
        let status = get(node, "/status").json();
        let local = scene.status(node);
        let keys = |it: &Value| it.as_object().expect("an object").keys().cloned().collect();
        let (here, there): (Vec<String>, Vec<String>) = (keys(&status), keys(&local));
        assert_eq!(here, there);
        assert_eq!(status["endpoint"], node.to_string());
        let page = get(node, "/");
        assert!(page.headers["content-type"].starts_with("text/html"));
        assert!(page.headers["content-security-policy"].contains("default-src 'none'"));
        assert!(page.body.contains("<script type=\"module\" src=\"/-/folkmoot/page/app.js\">"));
        let script = get(node, "/-/folkmoot/page/app.js");
        assert!(script.headers["content-type"].starts_with("text/javascript"));
    }
    let head = ask(peer, "HEAD", "/", "");
    assert!(head.status == 200 && head.body.is_empty());
}

fn check_bad_requests(peer: Endpoint) {
    assert_eq!(get(peer, "/journal.log").status, 404);
    assert_eq!(get(peer, "/../identity.key").status, 404);
    let post = ask(peer, "POST", "/status", "Content-Length: 0\r\n");
    assert_eq!((post.status, post.headers["allow"].as_str()), (405, "GET, HEAD"));
    for (bytes, status) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"[..], "400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "405"),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", "505"),
        (b"GET \x01\x02\x03\r\n\r\n", "400"),
    ] {
        let answer = say(peer, bytes);
        let shown = bytes.escape_ascii().to_string();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {answer}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(say(peer, long.as_bytes()).starts_with("HTTP/1.1 431 "));
    for status in ["400", "404", "405", "431", "505"] {
        // An answer may be a moment old.
        let is_counted = eventually(|| {
            let answered = parse(&get(peer, "/metrics").body);
            let counts = &answered["folkmoot_http_responses_total"].samples;
            counts.iter().any(|it| it.1[0].1 == status && it.2 > 0.0)
        });
        assert!(is_counted, "{status}");
    }
}

/// Messages sent, received, and lost on the way out, over these nodes.
fn totals(scene: &Scene, nodes: &[Endpoint]) -> (u64, u64, u64) {
    let each = nodes.iter().map(|node| scene.status(*node)["counters"].clone());
    each.fold((0, 0, 0), |all, it| {
        let number = |name: &str| it[name].as_u64().expect("a counter");
        (
            all.0 + number("lines_out"),
            all.1 + number("lines_in") + number("garbled"),
            all.2 + number("lines_lost") + number("oversized"),
        )
    })
}

/// Number of messages sent and not received, seen at a moment when nothing was under way.
#[track_caller]
fn missing_at_rest(scene: &Scene, nodes: &[Endpoint], after: u64) -> (u64, i64) {
    let mut found = None;
    let is_at_rest = eventually(|| {
        let (first, second) = (totals(scene, nodes), totals(scene, nodes));
        found = Some((second.0, second.0.cast_signed() - second.1.cast_signed()));
        first == second && second.0 >= after
    });
    assert!(is_at_rest, "never at rest: {found:?}");
    found.expect("it was looked at")
}

#[test]
fn in_a_quiet_network_what_is_sent_is_received() {
    let peer_args = format!("{NO_GOSSIP} --ping-interval 2s");
    let scene = Scene::up(1, 3, &peer_args);
    let nodes = [scene.seeds(), scene.peers()].concat();
    let (sent, missing) = missing_at_rest(&scene, &nodes, 0);
    let (more, still_missing) = missing_at_rest(&scene, &nodes, sent + 20);
    assert!(more >= sent + 20);
    assert_eq!(missing, still_missing, "of {more} messages; {sent} of them while it came up");
    // What is missing at all was on links that ended while the fleet came up.
    let closed: u64 =
        nodes.iter().filter_map(|it| scene.status(*it)["counters"]["links_closed"].as_u64()).sum();
    assert!(
        (0..=closed.cast_signed()).contains(&missing),
        "{missing} messages are missing after the ends of {closed} links"
    );
    for node in nodes {
        let queues = &scene.status(node)["queues"];
        assert!(queues["lines_waiting"].as_u64() < Some(10), "{node}: {queues}");
    }
}

#[test]
fn a_node_that_stops_ends_its_idle_guests() {
    let mut scene = Scene::up(1, 1, NO_GOSSIP);
    let peer = scene.peers()[0];
    let mut guest = TcpStream::connect((peer.ip(), peer.port())).expect("the port is open");
    guest.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
    guest.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    let mut some = [0; 12];
    guest.read_exact(&mut some).expect("it answers");
    assert_eq!(&some, b"HTTP/1.1 200");
    let data = scene.fleet.dir().join("data");
    let args = ["leave", "--port", &peer.port().to_string(), "--data", data.to_str().unwrap()];
    let (code, out, err) = run(&peer_exe(), &args, scene.fleet.dir());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let mut rest = Vec::new();
    guest.read_to_end(&mut rest).expect("the connection was ended, not reset");
    scene.wait("it has stopped", |lines| {
        lines.iter().any(|it| it.node == peer && it.event == "stopped")
    });
}

#[test]
fn with_a_cluster_key_or_by_choice_others_are_told_nothing() {
    let mut scene = Scene::lay_out_with(peer_exe(), 1, 1, ("--http off", "--http loopback"));
    scene.start_seeds();
    scene.start_peers();
    let (seed, peer) = (scene.seeds()[0], scene.peers()[0]);
    assert_eq!(say(seed, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    assert!(scene.status(seed)["counters"]["refused_dialect"].as_u64() >= Some(1));
    assert_eq!(get(peer, "/healthz").status, 200);
    // A page of somebody else's, shown here, that had its own name point to this machine.
    let rebound = say(peer, b"GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(rebound.starts_with("HTTP/1.1 403 "), "{rebound}");
    assert_eq!(scene.status(peer)["http"]["refused_access"], 1);
}

/// Beginnings of the names of metrics that only a peer with services exports.
const SERVICES: [&str; 5] = ["chat_", "order_", "rollout_", "data_plane_", "shares"];

#[test]
fn the_document_of_metrics_lists_those_that_there_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
    let document = std::fs::read_to_string(path).expect("the document is there");
    let rows = document.lines().filter(|line| line.starts_with("| `folkmoot_"));
    let listed: BTreeSet<_> = rows
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 4, "name, kind, label, meaning: {line}");
            (cells[0].to_owned(), cells[1].to_owned(), cells[2].to_owned())
        })
        .collect();
    let build = ("`folkmoot_build_info`", "gauge", "`role`, `version`");
    let mut exported = BTreeSet::from([(build.0.into(), build.1.into(), build.2.into())]);
    for row in ROWS {
        let (ending, kind) = match row.kind {
            MetricKind::Counter => ("_total", "counter"),
            MetricKind::Gauge => ("", "gauge"),
            MetricKind::Histogram => ("", "histogram"),
        };
        let label = row.label.map_or_else(String::new, |it| format!("`{it}`"));
        exported.insert((format!("`folkmoot_{}{ending}`", row.name), kind.to_owned(), label));
        assert!(document.contains(row.help), "the meaning of {} differs: {}", row.name, row.help);
    }
    let missing: Vec<_> = exported.difference(&listed).collect();
    let invented: Vec<_> = listed.difference(&exported).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not listed: {missing:?}; not there: {invented:?}"
    );
}
