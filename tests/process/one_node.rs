//! One process that carries every service of a fleet's member: at one port, with one key, as one
//! row among the members.

use crate::support;

use folkmoot::cli::metrics::table::{MetricRow, ROWS};
use serde_json::Value;
use support::nodes::{Nodes, start};
use support::peer_exe;
use support::process::{Process, eventually, run};
use support::seeds::Seeds;

/// Three nodes with a chat and rollouts in each, in a fleet of three seeds.
fn three() -> (Nodes, Seeds) {
    let mut nodes = Nodes::lay_out(3);
    let seeds = Seeds::start(nodes.dir(), nodes.port("node-a") + 20);
    for name in nodes.names() {
        start_node(&mut nodes, name);
    }
    nodes.wait("all have begun", |it| {
        it.names().iter().all(|name| {
            it.standing(name)["roster"]["nodes"].as_array().map(Vec::len) == Some(3)
                && status(it, name)["chat"]["members"] == 3
        })
    });
    nodes.await_ready();
    (nodes, seeds)
}

fn id_of(name: &str) -> &'static str {
    match name {
        "node-a" => "1",
        "node-b" => "2",
        _ => "3",
    }
}

fn start_node(nodes: &mut Nodes, name: &'static str) {
    nodes.start_alone(name, &["--chat", id_of(name)]);
}

fn ask(nodes: &Nodes, args: &[&str]) -> (Option<i32>, String) {
    let (code, out, err) = run(&peer_exe(), args, nodes.dir());
    (code, out + &err)
}

/// Status of the peer of a node; `null` while it does not answer.
fn status(nodes: &Nodes, name: &str) -> Value {
    let port = nodes.port(name).to_string();
    let (_, out) = ask(nodes, &["status", "--port", &port, "--json"]);
    serde_json::from_str(&out).unwrap_or_default()
}

fn members(nodes: &Nodes) -> Vec<String> {
    let (_, out) = ask(nodes, &["members", "--json"]);
    let lines = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|it| it["endpoint"].as_str().map(str::to_owned)).collect()
}

#[track_caller]
fn say(nodes: &Nodes, id: &str, text: &str) {
    let (code, told) = ask(nodes, &["chat", "send", "--id", id, "--wait", "30s", text]);
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn one_process_carries_all_services_and_comes_back_with_them() {
    let (mut nodes, _seeds) = three();
    assert_eq!(members(&nodes).len(), 3, "each node is one member");

    say(&nodes, "1", "from the first");
    assert_eq!(nodes.begin("node-c", ("v1", "v2"), 5_000)["answer"], "committed");
    let (code, told) = ask(&nodes, &["publish", "news", "hello"]);
    assert_eq!(code, Some(0), "{told}");
    std::fs::write(nodes.dir().join("notes"), "seven").unwrap();
    let port = nodes.port("node-b").to_string();
    let (code, told) = ask(&nodes, &["share", "notes", "--peer", &port]);
    assert_eq!(code, Some(0), "{told}");

    // One status, one page and one list of metrics tell about all of it.
    let it = status(&nodes, "node-b");
    assert_eq!(it["shares"]["own"], 1, "{it}");
    assert_eq!((&it["chat"]["id"], &it["rollout"]["nodes"]), (&2.into(), &3.into()), "{it}");
    let (_, metrics) = ask(&nodes, &["metrics", "--port", &port]);
    for line in ["folkmoot_chat_members 3", "folkmoot_rollout_nodes 3", "folkmoot_healthy 1"] {
        assert!(metrics.lines().any(|it| it == line), "{line}\n{metrics}");
    }
    let of_services = ["chat_", "rollout_", "data_plane_", "shares"];
    let is_of_service = |row: &&MetricRow| of_services.iter().any(|it| row.name.starts_with(it));
    for row in ROWS.iter().filter(is_of_service) {
        assert!(metrics.contains(&format!("folkmoot_{}", row.name)), "{}\n{metrics}", row.name);
    }

    // Death is one: the fleet, the chat and the rollouts see it.
    nodes.kill("node-b");
    nodes.wait("two members are left", |it| members(it).len() == 2);
    say(&nodes, "3", "while the second is dead");
    start_node(&mut nodes, "node-b");
    nodes.wait("it is back everywhere", |it| {
        members(it).len() == 3
            && status(it, "node-b")["chat"]["members"] == 3
            && it.standing("node-b")["roster"]["nodes"].as_array().map(Vec::len) == Some(3)
    });
    let has_all = || {
        let (_, told) = ask(&nodes, &["chat", "history", "--id", "2"]);
        told.contains("from the first") && told.contains("while the second is dead")
    };
    assert!(eventually(has_all));

    // It leaves as one, too.
    let (code, told) = ask(&nodes, &["leave", "--port", &port]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = nodes.await_end("node-b");
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn nodes_that_start_long_before_their_seeds_are_one_group_afterwards() {
    let mut nodes = Nodes::lay_out(3);
    let base = nodes.port("node-a") + 20;
    Seeds::name(nodes.dir(), base);
    for name in nodes.names() {
        start_node(&mut nodes, name);
    }
    nodes.wait("all wait for the fleet", |it| {
        it.names()
            .iter()
            .all(|name| it.out(name).contains("the search for other nodes begins then"))
    });
    // Longer than a round of those that look for a group.
    let _ = crossbeam_channel::after(std::time::Duration::from_secs(4)).recv();
    let _seeds = Seeds::start(nodes.dir(), base);
    nodes.wait("all are one", |it| {
        it.names().iter().all(|name| {
            it.standing(name)["roster"]["nodes"].as_array().map(Vec::len) == Some(3)
                && status(it, name)["chat"]["members"] == 3
        })
    });
}

#[test]
fn a_chat_that_is_another_group_says_so() {
    let mut nodes = Nodes::lay_out(2);
    let base = nodes.port("node-a") + 20;
    // A chat of one, without a fleet.
    let port = nodes.port("node-b").to_string();
    let chat = ["chat", "--id", "2", "--port", &port, "--host", "127.0.0.1", "--plain", "--stay"];
    let alone = Process::start(&peer_exe(), &chat, nodes.dir());
    alone.wait_for("the group is peer_2");
    drop(alone);
    let _seeds = Seeds::start(nodes.dir(), base);
    start_node(&mut nodes, "node-a");
    nodes.wait("the fleet has a group", |it| status(it, "node-a")["chat"]["members"] == 1);
    start_node(&mut nodes, "node-b");
    nodes.wait("both say that they are split", |it| {
        it.names().iter().all(|name| {
            let trouble = status(it, name)["trouble"].to_string();
            trouble.contains("two groups") && trouble.contains("give it another --log-dir")
        })
    });
}

#[test]
fn a_service_that_ran_in_a_process_of_its_own_goes_on_inside_the_node() {
    let mut nodes = Nodes::lay_out(2);
    let _seeds = Seeds::start(nodes.dir(), nodes.port("node-a") + 20);
    // Two nodes of rollouts without a fleet: each has the key of its own directory.
    nodes.start("node-a");
    nodes.start("node-b");
    nodes.await_ready();
    assert_eq!(
        nodes.order("node-a", start(("v1", "v2"), &[5_000, 10_000], 600_000))["answer"],
        "committed"
    );
    for name in nodes.names() {
        nodes.running[name].signal(rustix::process::Signal::TERM);
        nodes.await_end(name);
        start_node(&mut nodes, name);
    }
    nodes.await_ready();
    nodes.wait("the history goes on, beside a chat", |it| {
        it.names()
            .iter()
            .all(|name| it.version(name) == 2 && status(it, name)["chat"]["members"] == 2)
    });
}

#[test]
fn two_services_with_different_keys_are_no_node() {
    let mut nodes = Nodes::lay_out(1);
    let _seeds = Seeds::start(nodes.dir(), nodes.port("node-a") + 20);
    for dir in ["chat-1", "rollout-node-a"] {
        let dir = nodes.dir().join("data").join(dir);
        drop(folkmoot::runtime::files::DataDir::open_at(dir).unwrap().identity().unwrap());
    }
    start_node(&mut nodes, "node-a");
    let (code, told) = nodes.await_end("node-a");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("different keys"), "{told}");
}
