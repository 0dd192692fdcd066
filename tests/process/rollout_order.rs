//! `--decide-in-log=bft` with real processes: each node rolls out and is a member of the Byzantine
//! order that ends its transactions.

use crate::support;

use std::fs;

use serde_json::{Value, json};
use support::nodes::{Nodes, start};
use support::peer_exe;
use support::process::{Process, run};

const FLAGS: [&str; 4] =
    ["--order=roster.txt", "--decide-in-log=bft", "--config=none.txt", "--gossip-max=0"];

/// So many nodes, none of which runs yet, and the roster of an order of so many members: the nodes
/// and others.
fn lay_out(count: usize, members: u16) -> Nodes {
    let nodes = Nodes::lay_out(count);
    let line = |at: u16| {
        let (id, port) = ((at + 1).to_string(), (nodes.port("node-a") + at).to_string());
        told(&nodes, &["order", "keygen", "--id", &id, "--port", &port])
    };
    let roster: String = (0..members).map(line).collect();
    fs::write(nodes.dir().join("roster.txt"), roster).unwrap();
    nodes
}

/// Four nodes whose order can decide.
fn four() -> Nodes {
    let mut nodes = lay_out(4, 4);
    for name in nodes.names() {
        nodes.start_with(name, &FLAGS);
    }
    await_log(&nodes);
    nodes
}

#[track_caller]
fn await_log(nodes: &Nodes) {
    nodes.await_ready();
    nodes.wait("the order can decide", |it| {
        let can = |name| it.ask(name, &json!({ "ask": "status" })).unwrap_or_default();
        it.running.keys().all(|name| can(name)["can_decide"] == true)
    });
}

/// Output of a command that succeeds.
#[track_caller]
fn told(nodes: &Nodes, args: &[&str]) -> String {
    let (code, out, err) = run(&peer_exe(), args, nodes.dir());
    assert_eq!(code, Some(0), "{args:?}: {out}{err}");
    out
}

/// Writes an entry of a member's own making into the order, and waits until it is final.
#[track_caller]
fn append(nodes: &Nodes, name: &str, entry: &Value) {
    let port = nodes.port(name).to_string();
    told(nodes, &["order", "append", "--port", &port, "--wait", "50s", &entry.to_string()]);
}

/// Waits until a member has `count` decisions on a transaction in its order; returns them all.
#[track_caller]
fn await_entries(nodes: &Nodes, name: &str, (txid, count): (&str, usize)) -> Vec<Value> {
    let port = nodes.port(name).to_string();
    let entries = || -> Vec<Value> {
        let status = told(nodes, &["order", "status", "--port", &port, "--json"]);
        let status: Value = serde_json::from_str(&status).unwrap();
        let places = status["place"].to_string();
        if places == "0" {
            return Vec::new();
        }
        let follow = ["order", "follow", "--port", &port, "--count", &places];
        let lines = told(nodes, &follow);
        let texts = lines.lines().filter_map(|it| it.split_once(": "));
        let entries = texts.filter_map(|it| serde_json::from_str::<Value>(it.1).ok());
        entries.filter(|it| it["txid"] == txid).collect()
    };
    nodes.wait("the order has the entries", |_| entries().len() >= count);
    entries()
}

#[test]
fn a_dead_coordinator_blocks_nobody_where_an_order_ends_its_transactions() {
    let mut nodes = lay_out(4, 4);
    nodes.start_with("node-a", &[&FLAGS[..], &["--kill-at", "before-vote"]].concat());
    for name in ["node-b", "node-c", "node-d"] {
        nodes.start_with(name, &FLAGS);
    }
    await_log(&nodes);
    let begin = json!({ "ask": "order", "order": start(("v1", "v2"), &[500, 10_000], 600_000) });
    let _ = nodes.ask("node-a", &begin);
    nodes.await_end("node-a");
    let rest = ["node-b", "node-c", "node-d"];
    nodes.wait("the order ends their doubt", |it| {
        rest.iter().all(|name| {
            let history = it.ask(name, &json!({ "ask": "history", "count": 9 }));
            history.is_ok_and(|it| it["aborted"].to_string().contains("the log says so"))
        })
    });
    nodes.await_version(1);

    // It is back, and all end its next one alike.
    nodes.start_with("node-a", &FLAGS);
    await_log(&nodes);
    let begun = nodes.begin("node-a", ("v1", "v2"), 500);
    assert_eq!(begun["answer"], "committed", "{begun}");
    nodes.await_version(2);
    let txid = begun["txid"].as_str().expect("a name");
    let first = await_entries(&nodes, "node-d", (txid, 1)).remove(0);
    assert_eq!(first["commit"], true, "{first}");
    assert_eq!(first["proof"]["votes"].as_array().map(Vec::len), Some(4), "{first}");
    let ended = nodes.order("node-c", json!({ "command": "abort" }));
    assert_eq!(ended["answer"], "committed", "{ended}");
    nodes.await_version(3);
}

#[test]
fn of_contradicting_decisions_the_first_entry_counts_for_every_node() {
    let mut nodes = four();
    let begun = nodes.begin("node-a", ("v1", "v2"), 500);
    assert_eq!(begun["answer"], "committed", "{begun}");
    let txid = begun["txid"].as_str().expect("a name");
    nodes.await_version(2);
    // A second end comes too late.
    append(&nodes, "node-b", &json!({ "txid": txid, "commit": false }));

    // An end before all votes: a COMMIT that nothing proves is none, and then ABORT.
    let (name, number) = txid.rsplit_once('-').expect("it ends in a number");
    let next = number.parse::<u64>().expect("a number") + 1;
    let next = format!("{}-{next}", name.replacen("start", "pause", 1));
    let borrowed = await_entries(&nodes, "node-b", (txid, 2)).remove(0)["proof"].clone();
    append(&nodes, "node-b", &json!({ "txid": next, "commit": true, "proof": borrowed }));
    append(&nodes, "node-c", &json!({ "txid": next, "commit": false }));
    let paused = nodes.order("node-a", json!({ "command": "pause" }));
    assert_eq!((&paused["txid"], &paused["answer"]), (&json!(next), &json!("aborted")), "{paused}");
    assert_eq!(paused["reason"], "the log says so", "{paused}");
    nodes.wait("nobody is in doubt", |it| it.names().iter().all(|name| it.doubt(name).is_none()));
    nodes.await_version(2);
    assert_eq!(nodes.order("node-a", json!({ "command": "pause" }))["answer"], "committed");
    nodes.await_version(3);

    // Who reads all of it again knows the same ends, also without its log of transactions.
    nodes.kill("node-d");
    fs::remove_file(nodes.log("node-d")).unwrap();
    nodes.start_with("node-d", &FLAGS);
    await_log(&nodes);
    nodes.await_version(3);
}

#[test]
fn transactions_wait_while_the_order_is_halted_and_end_alike_when_it_heals() {
    let mut nodes = lay_out(2, 4);
    let dir = nodes.dir().to_owned();
    let base = nodes.port("node-a");
    let member = |at: u16| {
        let port = (base + at).to_string();
        let args = ["--port", &port, "--order=roster.txt", "--config=none.txt", "--gossip-max=0"];
        Process::start(&peer_exe(), &args, &dir)
    };
    let others = [member(2), member(3)];
    for name in nodes.names() {
        nodes.start_with(name, &FLAGS);
    }
    await_log(&nodes);
    drop(others);
    nodes.wait("the order is halted", |it| {
        it.names().iter().all(|name| it.out(name).contains("halted: 2 of 4 reached"))
    });
    let begin = json!({ "ask": "order", "order": start(("v1", "v2"), &[500, 10_000], 600_000) });
    std::thread::scope(|scope| {
        let begun = scope.spawn(|| nodes.ask("node-a", &begin));
        nodes
            .wait("both are in doubt", |it| it.names().iter().all(|name| it.doubt(name).is_some()));
        // Nothing but the order ends it.
        let txid = nodes.doubt("node-a").expect("it is in doubt");
        let resolve = json!({ "command": "resolve", "txid": txid, "commit": true });
        let refused = nodes.order("node-b", resolve);
        assert_eq!(refused["answer"], "refused", "{refused}");
        assert!(refused["reason"].to_string().contains("peer order status"), "{refused}");
        assert_eq!((nodes.version("node-a"), nodes.version("node-b")), (1, 1));
        let _others = [member(2), member(3)];
        nodes.wait("nobody is in doubt", |it| {
            it.names().iter().all(|name| it.doubt(name).is_none())
        });
        // The coordinator's COMMIT and the other's ABORT have waited; the first one counts.
        let first = await_entries(&nodes, "node-b", (&txid, 1)).remove(0);
        nodes.await_version(if first["commit"] == true { 2 } else { 1 });
        drop(begun.join());
    });
}

#[test]
fn what_does_not_fit_the_order_ends_with_code_2_and_a_remedy() {
    let nodes = lay_out(1, 1);
    let port = nodes.port("node-a").to_string();
    let node = ["--port", &port, "--id", "node-a", "--http", "127.0.0.1:1"];
    let refused = |flags: &[&str]| {
        let (code, out, err) = run(&peer_exe(), &[&node[..], flags].concat(), nodes.dir());
        assert_eq!(code, Some(2), "{flags:?}: {out}{err}");
        err
    };
    assert!(refused(&["--decide-in-log=bft"]).contains("add --order ROSTER"));
    assert!(refused(&["--decide-in-log=raft"]).contains("[possible values: chat, bft]"));
    let chat = refused(&["--decide-in-log", "--chat", "1"]);
    assert!(chat.contains("leave out --chat") && chat.contains("--decide-in-log=bft"), "{chat}");
}
