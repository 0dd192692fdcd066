//! Rollouts across hosts that are cut apart, and in a fleet that is asked who takes part.

#![allow(clippy::print_stdout, reason = "a skipped test says why")]

use crate::support;

use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::hosts::{Net, obstacle};
use support::nodes::{Nodes, start};
use support::peer_exe;
use support::seeds::Seeds;

/// Three nodes on three hosts.
fn on_three_hosts(net: &Net) -> Nodes {
    let mut nodes = Nodes::lay_out(3);
    for (host, name) in nodes.names().into_iter().enumerate() {
        let command = net.command(host, &peer_exe());
        let before: Vec<_> = command.get_args().map(|it| it.to_str().expect("text")).collect();
        let exe = Path::new(command.get_program()).to_owned();
        let mut flags = vec!["--ip".to_owned(), Net::address(host).to_string()];
        for (other, name) in nodes.names().into_iter().enumerate().filter(|it| it.0 != host) {
            let place = format!("{name}={}:{}", Net::address(other), nodes.port(name));
            flags.extend(["--node".to_owned(), place]);
        }
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        nodes.start_by(&exe, &before, (name, &flags));
    }
    nodes.await_ready();
    nodes
}

#[test]
fn a_fleet_that_is_cut_apart_agrees_on_nothing_and_serves_on_until_it_is_one_again() {
    if let Some(obstacle) = obstacle() {
        println!("skipped: no network namespaces here: {obstacle}");
        return;
    }
    let net = Net::with_hosts(3).expect("hosts can be made");
    let nodes = on_three_hosts(&net);
    assert_eq!(nodes.begin("node-a", ("v1", "v2"), 500)["answer"], "committed");
    let all_serve = |nodes: &Nodes, version: u64| {
        nodes.wait(&format!("all serve version {version}"), |it| {
            it.names().iter().all(|name| it.version(name) == version)
        });
    };
    all_serve(&nodes, 2);
    net.split(&[&[0], &[1, 2]]);
    for name in ["node-a", "node-b"] {
        let promoted = nodes.order(name, json!({ "command": "promote", "full": true }));
        assert_eq!(promoted["answer"], "aborted", "{name}: {promoted}");
        assert_eq!(promoted["cause"], "no_vote", "{name}: {promoted}");
    }
    all_serve(&nodes, 2);
    net.join();
    nodes.await_ready();
    nodes.wait("one of all goes on", |it| {
        let promoted = it.order("node-c", json!({ "command": "promote", "full": true }));
        promoted["answer"] == "committed"
    });
    all_serve(&nodes, 3);
}

#[test]
fn in_a_fleet_nodes_find_each_other_and_are_let_in() {
    let mut nodes = Nodes::lay_out(3);
    let _seeds = Seeds::start(nodes.dir(), nodes.port("node-a") + 20);
    // At the same moment, and nobody is told of anybody.
    for name in nodes.names() {
        nodes.start_alone(name, &[]);
    }
    nodes.wait("all agree that there are three", |it| {
        it.names()
            .iter()
            .all(|name| it.standing(name)["roster"]["nodes"].as_array().map(Vec::len) == Some(3))
    });
    nodes.await_ready();
    let begun = nodes.order("node-c", start(("v1", "v2"), &[500, 10_000], 600_000));
    assert_eq!(begun["answer"], "committed", "{begun}");
    let version = begun["version"].as_u64().expect("a number");
    nodes.await_version(version);
    // Whoever comes back needs nobody's word.
    nodes.kill("node-a");
    nodes.start_alone("node-a", &[]);
    nodes.await_ready();
    nodes.await_version(version);
}

/// Waits until each of these sees that so many take part.
fn await_members(nodes: &Nodes, names: &[&'static str], count: usize) {
    nodes.wait(&format!("{names:?} see {count} take part"), |it| {
        let members = |name: &&str| {
            it.standing(name)["roster"]["nodes"].as_array().map(Vec::len) == Some(count)
        };
        names.iter().all(members)
    });
}

/// Three nodes that take part, and the seeds of their fleet.
fn three_in_a_fleet() -> (Nodes, Seeds) {
    let mut nodes = Nodes::lay_out(3);
    let seeds = Seeds::start(nodes.dir(), nodes.port("node-a") + 20);
    for name in nodes.names() {
        nodes.start_alone(name, &[]);
    }
    await_members(&nodes, &["node-a", "node-b", "node-c"], 3);
    nodes.await_ready();
    (nodes, seeds)
}

#[test]
fn the_seeds_word_takes_a_dead_node_out_and_lets_it_in_again_without_an_operator() {
    let (mut nodes, _seeds) = three_in_a_fleet();
    let begun = nodes.order("node-c", start(("v1", "v2"), &[500, 10_000], 600_000));
    assert_eq!(begun["answer"], "committed", "{begun}");
    nodes.await_version(begun["version"].as_u64().expect("a number"));
    nodes.kill("node-c");
    await_members(&nodes, &["node-a", "node-b"], 2);
    let promoted = nodes.order("node-b", json!({ "command": "promote", "full": true }));
    assert_eq!(promoted["answer"], "committed", "{promoted}");
    let history =
        nodes.ask("node-b", &json!({ "ask": "history", "count": 10 })).expect("it has one");
    let committed = history["committed"].as_array().expect("a list");
    let gone: Vec<_> =
        committed.iter().map(|it| &it["proposal"]["gone"]).filter(|it| it.is_object()).collect();
    assert_eq!(gone.len(), 1, "{history}");
    assert_eq!(*gone[0], json!({ "nodes": ["node-c"], "by": "seeds" }));
    // It is back with its data, follows, and takes part again.
    nodes.start_alone("node-c", &[]);
    await_members(&nodes, &["node-a", "node-b", "node-c"], 3);
    assert!(nodes.out("node-c").contains("by the seeds' word"), "{}", nodes.out("node-c"));
    nodes.await_ready();
    assert!(nodes.routing("node-c")["removed"].is_null(), "{}", nodes.routing("node-c"));
    let done = nodes.order("node-c", json!({ "command": "promote", "full": false }));
    assert_eq!(done["answer"], "committed", "{done}");
    nodes.await_version(done["version"].as_u64().expect("a number"));
}

/// True if the seeds say that the last incarnation at a node's port was removed.
fn is_removed(nodes: &Nodes, name: &str) -> bool {
    let at = format!("127.0.0.1:{}", nodes.port(name));
    let mut ask = Command::new(peer_exe());
    let out = ask.current_dir(nodes.dir()).args(["explain", &at, "--json"]).output();
    let text = String::from_utf8(out.expect("it can be run").stdout).expect("text");
    text.contains("\"removal\"")
}

#[test]
fn who_was_away_when_the_seeds_gave_their_word_asks_for_it() {
    let (mut nodes, _seeds) = three_in_a_fleet();
    // The power fails everywhere, and one machine does not survive it.
    for name in nodes.names() {
        nodes.kill(name);
    }
    nodes.wait("the seeds miss it", |it| is_removed(it, "node-c"));
    nodes.start_alone("node-a", &[]);
    nodes.start_alone("node-b", &[]);
    await_members(&nodes, &["node-a", "node-b"], 2);
    nodes.await_ready();
    let begun = nodes.order("node-b", start(("v1", "v2"), &[500, 10_000], 600_000));
    assert_eq!(begun["answer"], "committed", "{begun}");
}
