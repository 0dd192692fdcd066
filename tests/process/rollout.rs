//! `peer --id` with real processes: the ten rows of the assignment's table, what becomes of a
//! transaction when a node dies at any point of it, and of logs that were torn or lost.

use crate::support;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use folkmoot::runtime::clock::Clock;
use folkmoot::runtime::dataplane::model::{Model, ModelOptions};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::nodes::{Nodes, http, start};
use support::process::eventually;

/// A server of a model, of whose requests so many of 10,000 fail.
fn model(name: &str, failing: u32) -> Model {
    let (listen, name) =
        ("127.0.0.1:0".parse().expect("an address"), name.parse().expect("a name"));
    Model::start(ModelOptions { listen, name, delay: Duration::ZERO, failing }).expect("it starts")
}

#[test]
fn who_would_echo_among_real_models_and_a_version_that_does_not_answer_are_refused() {
    let mut nodes = Nodes::lay_out(3);
    let server = model("v1", 0);
    let v1 = format!("v1=http://{}", server.addr());
    // Nobody answers there.
    let [v2, v3] = ["v2", "v3"].map(|it| format!("{it}=http://127.0.0.1:9"));
    for name in ["node-a", "node-b"] {
        nodes.start_with(name, &["--serve", &v1, "--serve", &v2, "--serve", &v3]);
    }
    nodes.start("node-c");
    nodes.await_ready();
    nodes.wait("all say it", |it| {
        it.names().iter().all(|name| it.out(name).contains("node-c has no --serve among nodes"))
    });
    let aborted = nodes.begin("node-a", ("v1", "v3"), 500);
    assert_eq!(aborted["cause"], "model", "{aborted}");
    nodes.kill("node-c");
    let fine = format!("v3=http://{}", server.addr());
    nodes.start_with("node-c", &["--serve", &v1, "--serve", &fine]);
    nodes.await_ready();
    let aborted = nodes.begin("node-c", ("v1", "v3"), 500);
    let reason = aborted["reason"].to_string();
    assert!(reason.contains("v3 does not answer it: cannot call it"), "{aborted}");
    nodes.await_version(1);
}

// The ten rows of the table.

#[test]
fn row_1_three_separate_nodes_start_in_any_order() {
    let mut nodes = Nodes::lay_out(3);
    nodes.start("node-c");
    nodes.wait("it waits", |it| it.standing("node-c")["phase"] == "forming");
    let waits = nodes.standing("node-c")["waits_for"].to_string();
    assert!(waits.contains("node-a") && waits.contains("node-b"), "{waits}");
    assert_eq!(nodes.http_of("node-c", "POST", "/predict", "{}").0, 503, "it cannot know yet");
    let refused = nodes.begin("node-c", ("v1", "v2"), 500);
    assert_eq!(refused["answer"], "refused", "{refused}");
    nodes.start("node-a");
    nodes.start("node-b");
    nodes.await_ready();
    nodes.await_version(1);
}

#[test]
fn row_2_each_node_has_addresses_of_its_own() {
    let nodes = Nodes::up(3);
    for name in nodes.names() {
        for port in [nodes.port(name), nodes.http(name)] {
            assert!(TcpStream::connect(("127.0.0.1", port)).is_ok(), "{name} at {port}");
        }
        let pid = nodes.running[name].pid();
        assert_eq!(support::process::children_of(pid).len(), 0, "one process each");
    }
}

fn frame(json: &Value) -> Vec<u8> {
    let text = json.to_string();
    let length = u32::try_from(text.len()).expect("short").to_be_bytes();
    [&length[..], text.as_bytes()].concat()
}

fn read_frame(stream: &mut TcpStream) -> Value {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a length");
    let mut text = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut text).expect("as many bytes");
    serde_json::from_slice(&text).expect("it is JSON")
}

#[test]
fn row_3_messages_have_explicit_frame_boundaries() {
    use folkmoot::model::{KeyPair, Nonce, Rng};
    use folkmoot::proto::rollout::{Enroll, Greeting, Participant};
    use rand::SeedableRng as _;

    let nodes = Nodes::up(3);
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", nodes.port("node-a"))).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream
    };
    let keys = KeyPair::from_secret([77; 32]);
    let enroll = Enroll {
        caller: Participant {
            node_id: "node-x".parse().expect("a name"),
            host: "127.0.0.1".to_owned(),
            port: 9,
            key: keys.public(),
        },
        nonce: Nonce::random(&mut Rng::seed_from_u64(1)),
        joins: false,
    };
    let mut stream = connect();
    // In pieces that respect no boundary.
    let bytes = frame(&json!(Greeting::Enroll(enroll.clone())));
    for piece in bytes.chunks(7) {
        stream.write_all(piece).expect("it reads");
    }
    let challenge = read_frame(&mut stream);
    assert_eq!(challenge["type"], "ENROLL_CHALLENGE");
    let Ok(Greeting::EnrollChallenge(challenge)) = serde_json::from_value(challenge) else {
        panic!("it is a challenge");
    };
    let proof = Greeting::EnrollProof(enroll.prove(&keys, &challenge, None));
    // Joined with the first message, which no member may say, and a forged decision.
    let forged = json!({ "msg_type": "DECISION", "sender": "node-x", "payload": {
        "txid": "start-node-b-1-1", "kind": "ABORT" } });
    let heartbeat = json!({ "msg_type": "HEARTBEAT", "sender": "node-b", "payload": {} });
    stream
        .write_all(&[frame(&json!(proof)), frame(&forged), frame(&heartbeat)].concat())
        .expect("it reads");
    assert_eq!(read_frame(&mut stream)["type"], "ENROLL_ACK");
    // What was no message is answered too, in between.
    let mut heard = read_frame(&mut stream);
    while heard["msg_type"] != "HEARTBEAT" {
        assert_eq!(heard["type"], "ENROLL_NACK", "{heard}");
        heard = read_frame(&mut stream);
    }
    assert_eq!(heard["sender"], "node-a");
    assert_eq!(heard["payload"]["last_committed_version"], 1);

    // Lengths of nothing and of 2 GB, and no JSON: refused, and nobody is harmed.
    for bad in [&[0, 0, 0, 0][..], &[0x7f, 0xff, 0xff, 0xff], b"\0\0\0\x05hello"] {
        let mut stream = connect();
        stream.write_all(bad).expect("it reads");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let shown = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || shown.contains("ENROLL_NACK"), "{shown}");
    }
    assert_eq!(nodes.begin("node-a", ("v1", "v2"), 500)["answer"], "committed");
    nodes.await_version(2);
}

#[test]
fn row_4_each_node_talks_to_two_others() {
    let nodes = Nodes::up(3);
    for name in nodes.names() {
        // A link with a node that stood still for long is made anew.
        nodes.wait("each is linked with two others", |it| {
            let standing = it.standing(name);
            let peers = standing["peers"].as_array().expect("a list");
            peers.len() == 2 && peers.iter().all(|it| it["is_linked"] == true)
        });
    }
}

#[test]
fn row_5_the_routing_state_is_the_same_on_all_nodes_at_all_times() {
    let nodes = Nodes::up(3);
    let is_over = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let looking: Vec<_> = nodes
            .names()
            .into_iter()
            .map(|name| {
                let (nodes, is_over) = (&nodes, &is_over);
                scope.spawn(move || {
                    let mut seen: BTreeMap<u64, String> = BTreeMap::new();
                    let mut last = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let state = nodes.routing(name);
                        let version = state["version"].as_u64().expect("a number");
                        assert_eq!(state["status"], "COMMITTED");
                        assert!(version >= last, "{name} went back from {last} to {version}");
                        last = version;
                        let text = state.to_string();
                        assert_eq!(seen.entry(version).or_insert_with(|| text.clone()), &text);
                    }
                    seen
                })
            })
            .collect();
        let steps: Vec<_> = (1..=30).map(|it| it * 100).chain([10_000]).collect();
        let begun = nodes.order("node-b", start(("v1", "v2"), &steps, 20));
        assert_eq!(begun["answer"], "committed", "{begun}");
        nodes.await_version(33);
        is_over.store(true, Ordering::Relaxed);
        looking.into_iter().map(|it| it.join().expect("it looked")).collect::<Vec<_>>()
    });
    let mut all: BTreeMap<u64, String> = BTreeMap::new();
    for (version, text) in looks.into_iter().flatten() {
        assert_eq!(all.entry(version).or_insert_with(|| text.clone()), &text, "two contents");
    }
    assert!(all.len() > 3, "{} versions were seen", all.len());
}

#[test]
fn row_6_two_phase_commit_is_for_all_or_for_none() {
    let mut nodes = Nodes::lay_out(3);
    let server = model("any", 0);
    let flags = |names: &[&str]| -> Vec<String> {
        let serve =
            |name: &&str| ["--serve".to_owned(), format!("{name}=http://{}", server.addr())];
        names.iter().flat_map(serve).collect()
    };
    for (name, names) in
        [("node-a", &["v1", "v2", "v3"][..]), ("node-b", &["v1", "v2"]), ("node-c", &["v1", "v2"])]
    {
        let flags = flags(names);
        nodes.start_with(name, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    }
    nodes.await_ready();
    // Two of three have no v3.
    let aborted = nodes.begin("node-a", ("v1", "v3"), 500);
    assert_eq!((&aborted["answer"], &aborted["cause"]), (&json!("aborted"), &json!("model")));
    nodes.await_version(1);
    let committed = nodes.begin("node-a", ("v1", "v2"), 500);
    assert_eq!(committed["answer"], "committed");
    nodes.await_version(2);
    let txid = aborted["txid"].as_str().expect("a name").to_owned();
    nodes.wait("all know the end of the first", |it| {
        it.names().iter().all(|name| it.doubt(name).is_none())
    });
    assert!(nodes.lines_with("node-a", &txid) > 0);
}

#[test]
fn row_7_the_coordinator_decides_nothing_alone() {
    let nodes = Nodes::up(3);
    let clock = Clock::start();
    nodes.running["node-c"].signal(Signal::STOP);
    let aborted = nodes.begin("node-a", ("v1", "v2"), 500);
    let waited = clock.now().mono;
    assert_eq!((&aborted["answer"], &aborted["cause"]), (&json!("aborted"), &json!("no_vote")));
    assert!(aborted["reason"].as_str().expect("a text").contains("node-c"), "{aborted}");
    // T2: 2 s. That it is not much longer is no matter of a test.
    assert!(waited.as_micros() >= 1_900_000, "{waited:?}");
    nodes.running["node-c"].signal(Signal::CONT);
    nodes.await_version(1);

    // The coordinator's own node votes too, and everybody's vote is needed.
    let mut others = Nodes::lay_out(3);
    let server = model("any", 0);
    let serve = ["v1", "v2"].map(|it| format!("{it}=http://{}", server.addr()));
    others.start_with("node-a", &["--serve", &serve[0]]);
    for name in ["node-b", "node-c"] {
        others.start_with(name, &["--serve", &serve[0], "--serve", &serve[1]]);
    }
    others.await_ready();
    let refused = others.begin("node-a", ("v1", "v2"), 500);
    assert_eq!((&refused["answer"], &refused["cause"]), (&json!("refused"), &json!("model")));
    let aborted = others.begin("node-b", ("v1", "v2"), 500);
    assert_eq!((&aborted["answer"], &aborted["cause"]), (&json!("aborted"), &json!("model")));
    assert!(aborted["reason"].as_str().expect("a text").contains("node-a"), "{aborted}");
}

#[test]
fn row_8_a_log_that_was_torn_or_deleted_does_no_harm() {
    let mut nodes = Nodes::up(3);
    assert_eq!(nodes.begin("node-a", ("v1", "v2"), 500)["answer"], "committed");
    nodes.await_version(2);
    let promoted = nodes.order("node-b", json!({ "command": "promote", "full": true }));
    assert_eq!(promoted["version"], 3, "{promoted}");
    nodes.await_version(3);
    nodes.kill("node-b");
    nodes.kill("node-c");
    let mut log = OpenOptions::new().append(true).open(nodes.log("node-b")).expect("it is there");
    log.write_all(b"00000000 {\"record\":\"prepared\",\"txid\":\"sta").expect("there is room");
    fs::remove_file(nodes.log("node-c")).expect("it is there");
    nodes.start("node-b");
    nodes.start("node-c");
    nodes.await_ready();
    nodes.await_version(3);
    assert!(nodes.out("node-b").contains("was torn by a crash"), "{}", nodes.out("node-b"));
    assert!(nodes.out("node-c").contains("began without a log"), "{}", nodes.out("node-c"));
    assert_eq!(nodes.order("node-c", json!({ "command": "abort" }))["answer"], "committed");
    nodes.await_version(4);
}

#[test]
fn a_node_without_its_log_serves_nothing_before_it_has_heard_from_all() {
    let mut nodes = Nodes::up(3);
    assert_eq!(nodes.begin("node-a", ("v1", "v2"), 500)["answer"], "committed");
    nodes.await_version(2);
    assert_eq!(nodes.order("node-b", json!({ "command": "promote", "full": true }))["version"], 3);
    nodes.await_version(3);
    nodes.kill("node-a");
    nodes.kill("node-c");
    fs::remove_file(nodes.log("node-c")).expect("it is there");
    nodes.start("node-c");
    nodes.wait("it waits for node-a", |it| {
        it.standing("node-c")["waits_for"].to_string().contains("node-a")
    });
    for (method, path) in [("POST", "/predict"), ("GET", "/routing")] {
        let (status, body) = nodes.http_of("node-c", method, path, "{}");
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("does not know yet what its fleet serves"), "{body}");
    }
    assert!(nodes.http_of("node-c", "GET", "/health", "").1.contains("\"starting\""));
    nodes.start("node-a");
    nodes.await_ready();
    nodes.await_version(3);
    nodes.wait("it serves the present version", |it| {
        it.http_of("node-c", "GET", "/routing", "").1.contains("\"version\":3")
    });
}

#[test]
fn row_9_nine_nodes_roll_out_as_three_do() {
    let nodes = Nodes::up(9);
    let begun = nodes.order("node-e", start(("v1", "v2"), &[500, 5_000, 10_000], 50));
    assert_eq!(begun["answer"], "committed", "{begun}");
    nodes.await_version(5);
    let history = nodes.ask("node-i", &json!({ "ask": "history", "count": 10 })).expect("it runs");
    let committed = history["committed"].as_array().expect("a list");
    assert!(committed.iter().all(|it| it["votes"].as_array().map(Vec::len) == Some(9)));
}

#[test]
fn row_10_what_matters_is_logged_and_found_by_its_transaction() {
    let nodes = Nodes::up(3);
    let begun = nodes.begin("node-a", ("v1", "v2"), 500);
    let txid = begun["txid"].as_str().expect("a name").to_owned();
    nodes.await_version(2);
    for name in nodes.names() {
        let told = || nodes.out(name);
        let committed = |line: &str| line.contains(&txid) && line.contains("COMMITTED version 2");
        assert!(eventually(|| told().lines().any(committed)), "{name}: {}", told());
        let said = told();
        let lines: Vec<_> = said.lines().filter(|it| it.contains(&txid)).collect();
        let voted = if name == "node-a" { "voted COMMIT" } else { ": voted COMMIT" };
        assert!(lines.iter().any(|it| it.contains(voted)), "{name}: {said}");
        // On disk: the vote before the decision, but for the coordinator, whose vote it is.
        let records = nodes.lines_with(name, &txid);
        assert!(records >= if name == "node-a" { 1 } else { 2 }, "{name}: {records}");
    }
}

// A node dies at a named point.

/// Runs a transaction during which `victim` dies at `point`; returns the version that all serve
/// once it is back.
fn dies_at(victim: &'static str, point: &str) -> u64 {
    let mut nodes = Nodes::lay_out(3);
    for name in nodes.names() {
        let flags: &[&str] = if name == victim { &["--kill-at", point] } else { &[] };
        nodes.start_with(name, flags);
    }
    nodes.await_ready();
    let begin = json!({ "ask": "order", "order": start(("v1", "v2"), &[500, 10_000], 600_000) });
    let answer = nodes.ask("node-a", &begin);
    let (code, said) = nodes.await_end(victim);
    assert_eq!(code, None, "it was killed\n{said}");
    // Those who are left go on serving something that was committed, all the while.
    for name in nodes.running.keys() {
        assert_eq!(nodes.routing(name)["status"], "COMMITTED");
    }
    nodes.start(victim);
    nodes.await_ready();
    nodes.wait("nobody is in doubt", |it| {
        let versions: Vec<_> = it.names().iter().map(|name| it.version(name)).collect();
        it.names().iter().all(|name| it.doubt(name).is_none())
            && versions.iter().all(|it| *it == versions[0])
    });
    let version = nodes.version("node-a");
    nodes.await_version(version);
    if let Ok(answer) = answer {
        // Whoever was told something was told the truth.
        assert_eq!(answer["answer"] == "committed", version == 2, "{answer}");
    }
    // And the next one is not held up.
    let next = if version == 1 {
        nodes.begin("node-c", ("v1", "v2"), 500)
    } else {
        nodes.order("node-c", json!({ "command": "abort" }))
    };
    assert_eq!(next["answer"], "committed", "{next}");
    nodes.await_version(version + 1);
    version
}

#[test]
fn a_participant_that_dies_before_its_vote_ends_in_abort() {
    assert_eq!(dies_at("node-b", "before-vote"), 1);
}

#[test]
fn a_participant_that_dies_after_its_vote_learns_the_decision() {
    assert_eq!(dies_at("node-b", "after-vote"), 2);
}

#[test]
fn a_participant_that_dies_after_the_decision_keeps_it() {
    assert_eq!(dies_at("node-b", "after-decision"), 2);
}

#[test]
fn a_participant_that_dies_after_telling_that_it_has_the_decision_keeps_it() {
    assert_eq!(dies_at("node-b", "after-first-decision"), 2);
}

#[test]
fn a_coordinator_that_dies_before_its_own_vote_has_not_committed() {
    assert_eq!(dies_at("node-a", "before-vote"), 1);
}

#[test]
fn a_coordinator_that_dies_after_deciding_has_committed() {
    assert_eq!(dies_at("node-a", "after-decision"), 2);
}

#[test]
fn a_coordinator_that_dies_after_telling_one_has_committed() {
    assert_eq!(dies_at("node-a", "after-first-decision"), 2);
}

#[test]
fn who_learnt_the_decision_tells_the_others_while_the_coordinator_is_dead() {
    let mut nodes = Nodes::lay_out(3);
    nodes.start_with("node-a", &["--kill-at", "after-first-decision"]);
    nodes.start("node-b");
    nodes.start("node-c");
    nodes.await_ready();
    let begin = json!({ "ask": "order", "order": start(("v1", "v2"), &[500, 10_000], 600_000) });
    let _ = nodes.ask("node-a", &begin);
    nodes.await_end("node-a");
    nodes.await_version(2);
}

#[test]
fn who_is_in_doubt_says_so_serves_the_last_state_and_may_be_resolved() {
    let mut nodes = Nodes::lay_out(3);
    nodes.start_with("node-a", &["--kill-at", "before-vote"]);
    nodes.start("node-b");
    nodes.start("node-c");
    nodes.await_ready();
    let begin = json!({ "ask": "order", "order": start(("v1", "v2"), &[500, 10_000], 600_000) });
    let _ = nodes.ask("node-a", &begin);
    nodes.await_end("node-a");
    nodes.wait("both wait", |it| it.doubt("node-b").is_some() && it.doubt("node-c").is_some());
    nodes.wait("for the coordinator", |it| {
        it.standing("node-b")["in_doubt"]["waits_for"] == json!(["node-a"])
    });
    assert_eq!(nodes.routing("node-b")["version"], 1);
    let busy = nodes.begin("node-c", ("v1", "v2"), 500);
    assert_eq!((&busy["answer"], &busy["cause"]), (&json!("refused"), &json!("in_doubt")));
    let txid = nodes.doubt("node-b").expect("it is in doubt");
    assert_eq!(busy["running"], json!(txid), "the running one is named");
    let resolve = json!({ "command": "resolve", "txid": txid, "commit": false });
    assert_eq!(nodes.order("node-b", resolve)["answer"], "aborted");
    nodes.wait("the other learnt it", |it| it.doubt("node-c").is_none());
    let history = nodes.ask("node-b", &json!({ "ask": "history", "count": 9 })).expect("it runs");
    assert!(history["aborted"].to_string().contains("resolution"), "{history}");
    nodes.start("node-a");
    nodes.await_ready();
    nodes.await_version(1);
    assert_eq!(nodes.begin("node-a", ("v1", "v2"), 500)["answer"], "committed");
    nodes.await_version(2);
}

#[test]
fn a_dead_coordinator_blocks_nobody_where_a_majority_keeps_the_decisions() {
    let mut nodes = Nodes::lay_out(3);
    nodes.start_with("node-a", &["--decide-in-log", "--kill-at", "before-vote"]);
    nodes.start_with("node-b", &["--decide-in-log"]);
    nodes.start_with("node-c", &["--decide-in-log"]);
    nodes.await_ready();
    nodes.wait("the log can decide", |it| {
        let can = |name| it.ask(name, &json!({ "ask": "status" })).unwrap_or_default();
        it.names().iter().all(|name| can(name)["can_decide"] == true)
    });
    let begin = json!({ "ask": "order", "order": start(("v1", "v2"), &[500, 10_000], 600_000) });
    let _ = nodes.ask("node-a", &begin);
    nodes.await_end("node-a");
    nodes.wait("both wait", |it| it.doubt("node-b").is_some() && it.doubt("node-c").is_some());
    nodes.wait("the log ends their doubt", |it| {
        it.doubt("node-b").is_none() && it.doubt("node-c").is_none()
    });
    nodes.await_version(1);
    nodes.start_with("node-a", &["--decide-in-log"]);
    nodes.await_ready();
    nodes.wait("the log can decide", |it| {
        let status = it.ask("node-a", &json!({ "ask": "status" })).unwrap_or_default();
        status["can_decide"] == true
    });
    let begun = nodes.begin("node-a", ("v1", "v2"), 500);
    assert_eq!(begun["answer"], "committed", "{begun}");
    nodes.await_version(2);
    let begun = nodes.order("node-c", json!({ "command": "abort" }));
    assert_eq!(begun["answer"], "committed", "{begun}");
    nodes.await_version(3);
}

// Rules, orders and who may come.

#[test]
fn one_at_a_time_and_orders_that_make_no_sense_change_nothing() {
    let nodes = Nodes::up(3);
    let order = |steps: &[u32], gates: &[&str]| {
        let mut order = start(("v1", "v2"), steps, 600_000);
        order["gates"] = json!(gates);
        nodes.ask("node-a", &json!({ "ask": "order", "order": order }))
    };
    for steps in [&[][..], &[500, 400, 10_000], &[500], &[0, 0, 10_000], &[500, 20_000]] {
        let answer = order(steps, &[]).expect("it answers");
        assert_eq!(answer["answer"], "refused", "{steps:?}: {answer}");
    }
    for gate in ["p95=200", "p95=fast", "speed=1ms", "error=101%"] {
        assert!(order(&[10_000], &[gate]).unwrap_err().contains("not a question"), "{gate}");
    }
    let same = nodes.order("node-a", start(("v1", "v1"), &[10_000], 1));
    assert_eq!(same["answer"], "refused", "{same}");
    let other = nodes.order("node-a", start(("v7", "v2"), &[10_000], 1));
    assert_eq!(other["answer"], "refused", "{other}");
    for command in ["pause", "resume", "abort", "rollback", "retry"] {
        let answer = nodes.order("node-b", json!({ "command": command }));
        assert_eq!((&answer["answer"], &answer["cause"]), (&json!("refused"), &json!("nothing")));
    }
    nodes.await_version(1);
    // While a vote is missing the next one is refused, with the name of the first.
    nodes.running["node-c"].signal(Signal::STOP);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| nodes.begin("node-a", ("v1", "v2"), 500));
        nodes.wait("it runs", |it| !it.standing("node-a")["running"].is_null());
        let second = nodes.begin("node-a", ("v1", "v2"), 700);
        assert_eq!((&second["answer"], &second["cause"]), (&json!("refused"), &json!("busy")));
        let first = first.join().expect("it answers");
        assert_eq!(second["running"], first["txid"]);
    });
    nodes.running["node-c"].signal(Signal::CONT);
}

#[test]
fn a_node_that_joins_is_admitted_by_all_and_catches_up() {
    let mut nodes = Nodes::up(3);
    assert_eq!(nodes.begin("node-a", ("v1", "v2"), 500)["answer"], "committed");
    let target = format!("127.0.0.1:{}", nodes.port("node-b"));
    nodes.start_alone("node-d", &["--join", &target]);
    nodes.wait("it asks", |it| it.standing("node-b")["asking"].get("node-d").is_some());
    nodes.wait("it has caught up", |it| it.version("node-d") == 2);
    assert!(nodes.standing("node-b")["roster"]["nodes"].as_array().map(Vec::len) == Some(3));
    let admit = nodes.ask("node-b", &json!({ "ask": "admit", "node": "node-d" }));
    assert_eq!(admit.expect("it runs")["vouched"], true);
    nodes.wait("all agree that there are four", |it| {
        it.running
            .keys()
            .all(|name| it.standing(name)["roster"]["nodes"].as_array().map(Vec::len) == Some(4))
    });
    nodes.await_version(3);
    // Its vote is needed now, and it may coordinate.
    assert_eq!(nodes.order("node-d", json!({ "command": "abort" }))["answer"], "committed");
    nodes.await_version(4);
    let removed = nodes.ask("node-a", &json!({ "ask": "remove", "node": "node-d" }));
    assert_eq!(removed.expect("it runs")["answer"], "committed");
    nodes.kill("node-d");
    assert_eq!(nodes.begin("node-a", ("v1", "v2"), 700)["answer"], "committed");
}

#[test]
fn a_gate_that_fails_rolls_back_by_itself_on_all_nodes() {
    let mut nodes = Nodes::lay_out(3);
    // The first request to each server of v2 is answered, and no other.
    let servers: Vec<_> = (0..3).map(|_| model("v2", 9_999)).collect();
    let stable = model("v1", 10_000);
    for (name, server) in nodes.names().into_iter().zip(&servers) {
        let v1 = format!("v1=http://{}", stable.addr());
        let v2 = format!("v2=http://{}", server.addr());
        nodes.start_with(name, &["--serve", &v1, "--serve", &v2]);
    }
    nodes.await_ready();
    let mut order = start(("v1", "v2"), &[5_000, 10_000], 600_000);
    order["gates"] = json!(["error=1%"]);
    order["samples_min"] = json!(5);
    assert_eq!(nodes.order("node-a", order)["answer"], "committed");
    nodes.await_version(2);
    let is_back = eventually(|| {
        for name in ["node-b", "node-c"] {
            let at = ("127.0.0.1", nodes.http(name));
            let (status, body) = http(at, "POST", "/predict", "{}").expect("it answers");
            assert_eq!(status, 500, "{body}");
        }
        nodes.names().iter().all(|it| nodes.version(it) == 3)
    });
    assert!(is_back, "{}", nodes.out("node-a"));
    nodes.await_version(3);
    let state = nodes.routing("node-c");
    assert_eq!(state["weights"]["v1"], 1.0, "{state}");
    assert!(state["txid"].as_str().is_some_and(|it| it.starts_with("rollback-")), "{state}");
}

#[test]
fn a_failing_canary_is_stopped_while_a_node_is_dead_and_rolled_back_when_it_is_back() {
    let mut nodes = Nodes::lay_out(3);
    for name in nodes.names() {
        nodes.start(name);
    }
    nodes.await_ready();
    // Echoes do not fail; the operator sees it. Nobody else has to be there.
    let order = start(("v1", "v2"), &[10_000], 600_000);
    assert_eq!(nodes.order("node-b", order)["answer"], "committed");
    nodes.await_version(2);
    nodes.kill("node-c");
    let answer = nodes.order("node-a", json!({ "command": "rollback" }));
    assert_ne!(answer["answer"], "committed", "{answer}");
    for name in ["node-a", "node-b"] {
        nodes.wait("it brakes", |it| it.routing(name)["brake"].is_string());
        let state = nodes.routing(name);
        assert_eq!((&state["version"], &state["weights"]["v2"]), (&json!(2), &json!(1.0)));
        let (status, body) = nodes.http_of(name, "POST", "/predict", "{}");
        assert!(status == 200 && body.contains("\"model_selected\":\"v1\""), "{body}");
    }
    assert!(nodes.standing("node-b")["brake"]["reason"].to_string().contains("node-a"));
    // It outlives them.
    nodes.kill("node-b");
    nodes.start("node-b");
    nodes.wait("it still brakes", |it| it.standing("node-b")["brake"].is_object());
    assert!(nodes.routing("node-b")["brake"].is_string());
    nodes.start("node-c");
    nodes.await_version(3);
    nodes.wait("no brake any more", |it| {
        it.names().iter().all(|name| it.routing(name)["brake"].is_null())
    });
}

#[test]
fn ten_thousand_predictions_at_five_percent_are_five_hundred_canaries() {
    let nodes = Nodes::up(3);
    assert_eq!(nodes.begin("node-a", ("v1", "v2"), 500)["answer"], "committed");
    nodes.await_version(2);
    let mut stream = TcpStream::connect(("127.0.0.1", nodes.http("node-b"))).expect("it listens");
    let request = b"POST /predict HTTP/1.1\r\nHost: n\r\nContent-Length: 7\r\n\r\n{\"x\":1}";
    let (mut canaries, mut buffer) = (0, [0; 4096]);
    for _ in 0..10_000 {
        stream.write_all(request).expect("it reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\"input\":{\"x\":1}}") {
            let len = match stream.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                len => len.expect("it answers"),
            };
            assert!(len > 0, "it hung up");
            answer.extend_from_slice(&buffer[..len]);
        }
        canaries += usize::from(String::from_utf8_lossy(&answer).contains("X-Model: v2"));
    }
    assert!((435..=565).contains(&canaries), "{canaries} of 10,000");
}
