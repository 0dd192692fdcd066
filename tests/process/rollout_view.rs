//! `peer rollout …` with real processes: what a person types at nodes, what is answered and with
//! which exit code, and the demo.

use crate::support;

use std::io::{Read as _, Write as _};

use folkmoot::runtime::dataplane::model::{Model, ModelOptions};
use rustix::process::Signal;
use serde_json::Value;
use support::process::{Process, children_of, eventually, run};
use support::{peer_exe, ports};

/// The nodes, ascending: who does not say which is asked asks the first.
const NAMES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// Three nodes on this machine, in a directory of their own.
struct Trio {
    dir: tempfile::TempDir,
    base: u16,
    nodes: Vec<Option<Process>>,
}

impl Trio {
    /// All of them, together.
    fn up() -> Self {
        let mut trio = Self {
            dir: tempfile::tempdir().expect("there is room"),
            base: ports(),
            nodes: Vec::new(),
        };
        trio.nodes = (0..3).map(|at| Some(trio.start(at))).collect();
        trio.await_all_at(1);
        trio
    }

    fn start(&self, at: u16) -> Process {
        let name = NAMES[usize::from(at)];
        let (port, http) = ((self.base + at).to_string(), self.plane(at));
        let mut args = vec!["--port", &port, "--id", name, "--http", &http];
        let places: Vec<_> = NAMES
            .iter()
            .zip(self.base..)
            .map(|(name, port)| format!("{name}=127.0.0.1:{port}"))
            .collect();
        args.extend(places.iter().flat_map(|it| ["--node", it]));
        Process::start(&peer_exe(), &args, self.dir.path())
    }

    fn plane(&self, at: u16) -> String {
        format!("127.0.0.1:{}", self.base + 10 + at)
    }

    fn rollout(&self, line: &str) -> (Option<i32>, String) {
        let mut args = vec!["rollout"];
        args.extend(line.split_whitespace());
        let (code, out, err) = run(&peer_exe(), &args, self.dir.path());
        (code, out + &err)
    }

    fn query(&self) -> (Option<i32>, String) {
        let planes = (0..3).map(|at| self.plane(at)).collect::<Vec<_>>().join(" ");
        self.rollout(&format!("query {planes}"))
    }

    fn standing(&self, name: &str) -> Value {
        let (_, text) = self.rollout(&format!("status --json --id {name}"));
        serde_json::from_str::<Value>(&text).map_or(Value::Null, |it| it["standing"].clone())
    }

    /// Waits until all see each other and serve that version.
    fn await_all_at(&self, version: u64) {
        let is_whole = |name: &&str| {
            let it = self.standing(name);
            let peers = it["peers"].as_array().cloned().unwrap_or_default();
            it["state"]["version"] == version
                && peers.len() == 2
                && peers.iter().all(|it| it["is_linked"] == true)
        };
        assert!(
            eventually(|| NAMES.iter().all(is_whole)),
            "{:#?}",
            NAMES.map(|it| self.standing(it))
        );
    }
}

#[test]
fn orders_are_done_by_all_or_refused_with_their_remedy() {
    let trio = Trio::up();
    for (line, code, said) in [
        ("start --from v1 --to v2 --steps 20,10,100", 1, "percents that ascend to 100"),
        ("start --from v1 --to v2 --steps 20,x", 2, "as in 5,20,50,100"),
        ("start --from v1 --to v2 --gate p95=200", 2, "a gate needs a unit"),
        ("start --from v9 --to v2", 1, "v1 is served as stable, not v9"),
        ("pause", 1, "no rollout is under way"),
        ("history", 0, "nothing was decided yet"),
        ("resolve start-node-a-1-1 --abort", 2, "--i-know"),
        ("resolve start-node-a-1-1 --abort --i-know", 1, "not in doubt about start-node-a-1-1"),
        ("admit node-z", 1, "start it with --join HOST:PORT"),
        ("admit node-c", 1, "node-c takes part already"),
        ("remove node-b --gone --i-know", 1, "node-b is not gone, node-a reaches it"),
        ("remove node-a --gone --i-know", 1, "order it at a node that remains (--id)"),
        ("remove node-b --gone", 2, "--i-know"),
        ("remove node-b node-c", 2, "one node at a time"),
        ("remove node-z", 1, "node-z does not take part"),
        ("status --id node-z", 1, "start it: peer --port"),
        ("query nowhere", 2, "write HOST:PORT"),
    ] {
        let (found, text) = trio.rollout(line);
        assert_eq!((found, text.contains(said)), (Some(code), true), "{line}: {text}");
    }
    trio.await_all_at(1);
    let (code, text) = trio.rollout("start --from v1 --to v2 --steps 5,100 --interval 1h");
    assert_eq!(code, Some(0), "{text}");
    let txid = text.strip_prefix("started: v2 gets 5 % on all nodes (version 2, ");
    let txid = txid.and_then(|it| it.strip_suffix(")\n")).expect(&text).to_owned();
    let (code, text) = trio.rollout("start --from v1 --to v2 --id node-b");
    assert_eq!(code, Some(1));
    assert!(text.contains(&format!("{txid} is in the way")), "{text}");
    for (line, said) in [
        ("pause --id node-b", "paused: "),
        ("resume --id node-c", "resumed: "),
        ("promote", "promoted: "),
        ("rollback", "rolled back: "),
        ("retry --id node-c", "started again"),
        ("abort", "the rollout is over"),
    ] {
        let (code, text) = trio.rollout(line);
        assert_eq!((code, text.starts_with(said)), (Some(0), true), "{line}: {text}");
    }
    trio.await_all_at(8);
    let (_, text) = trio.rollout(&format!("explain {txid} --id node-c"));
    assert!(text.starts_with(&format!("{txid}: COMMITTED as version 2\n")), "{text}");
    assert_eq!(text.matches(" COMMIT, signature ").count(), 3, "{text}");
    let (code, text) = trio.query();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with("SYNCHRONIZED: all 3 nodes serve version 8 alike\n"), "{text}");
}

#[test]
fn a_rollout_that_is_waited_for_shows_its_steps_and_how_it_ends() {
    let trio = Trio::up();
    let line = "start --from v1 --to v2 --steps 5,50,100 --interval 100ms --wait";
    let (code, text) = trio.rollout(line);
    assert_eq!(code, Some(0), "{text}");
    let heads: Vec<_> = text.lines().map(|it| it.split(" (").next().unwrap()).collect();
    assert_eq!(
        heads,
        [
            "started: v2 gets 5 % on all nodes",
            "step: v2 gets 50 %",
            "step: v2 gets 100 %",
            "finished: v2 is the stable version now"
        ]
    );
    let exe = peer_exe();
    let args = "rollout start --from v2 --to v3 --steps 5,100 --interval 1h --wait";
    let args: Vec<_> = args.split(' ').collect();
    let mut waits = Process::start(&exe, &args, trio.dir.path());
    waits.wait_for("started: v3 gets 5 %");
    assert_eq!(trio.rollout("abort --id node-b").0, Some(0));
    assert_eq!(waits.wait_for_end(), Some(1));
    let text = waits.out() + &waits.err();
    assert!(text.contains("given up: v2 gets everything: an operator said so"), "{text}");
}

#[test]
fn a_node_that_is_away_is_shown_and_never_called_synchronized() {
    let mut trio = Trio::up();
    let watch = ["rollout", "status", "--watch", "--id", "node-a"];
    let mut watch = Process::start(&peer_exe(), &watch, trio.dir.path());
    watch.wait_for("node-c");
    trio.nodes[2] = None;
    watch.wait_for("away for ");
    let (code, text) = trio.query();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("unreachable: nobody listens there"), "{text}");
    assert!(text.contains("NOT SYNCHRONIZED: ") && text.contains("cannot be asked"), "{text}");
    let (code, text) = trio.rollout("start --from v1 --to v2");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("node-c") && text.contains("every node has to vote"), "{text}");
    let (_, text) = trio.rollout("history");
    assert!(text.starts_with("aborted ") && text.contains("start-node-a-"), "{text}");
    trio.nodes[2] = Some(trio.start(2));
    trio.await_all_at(1);
    watch.signal(Signal::INT);
    assert_eq!(watch.wait_for_end(), Some(0), "Ctrl-C is how it ends");
}

#[test]
fn a_node_that_asks_to_be_let_in_is_shown_with_the_way_to_do_it() {
    let trio = Trio::up();
    let dir = trio.dir.path().join("new");
    std::fs::create_dir(&dir).unwrap();
    let (port, http) = ((trio.base + 5).to_string(), trio.plane(5));
    let join = format!("127.0.0.1:{}", trio.base);
    let args = ["--port", &port, "--id", "node-d", "--http", &http, "--join", &join];
    let _new = Process::start(&peer_exe(), &args, &dir);
    let asks = || trio.rollout("status").1.contains("let it: peer rollout admit node-d");
    assert!(eventually(asks), "{}", trio.rollout("status").1);
    assert_eq!(trio.rollout("admit node-d").0, Some(0));
    let is_in = || trio.standing("node-b")["roster"].to_string().contains("node-d");
    assert!(eventually(is_in), "{}", trio.standing("node-b"));
    let (code, text) = trio.rollout("remove node-d --id node-c");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("node-d takes part no more; node-a, node-b and node-c do"), "{text}");
}

impl Trio {
    /// Moves a node's data away or back.
    fn move_data(&self, from: &str, to: &str, name: &str) {
        let data = |state: &str| self.dir.path().join(state);
        std::fs::create_dir_all(data(to).join("logs")).expect("there is room");
        for part in [format!("rollout-{name}"), format!("logs/{name}.log")] {
            std::fs::rename(data(from).join(&part), data(to).join(&part)).expect("it is there");
        }
    }

    fn wait(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        assert!(eventually(|| reached(self)), "not: {what}; {}", self.rollout("status").1);
    }

    fn does(&self, line: &str) -> String {
        let (code, text) = self.rollout(line);
        assert_eq!(code, Some(0), "{line}: {text}");
        text
    }
}

#[test]
fn one_that_was_called_gone_knows_it_when_it_is_back_and_is_let_in_again() {
    let mut trio = Trio::up();
    trio.nodes[2] = None;
    trio.wait("it is away", |it| it.rollout("status").1.contains("away for"));
    let (code, text) = trio.rollout("remove node-c");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("peer rollout remove NAME --gone --i-know"), "{text}");
    trio.does("remove node-c --gone --i-know");
    let text = trio.does("history");
    assert!(
        text.contains("!! node-c CALLED GONE BY AN OPERATOR at node-a, and not asked"),
        "{text}"
    );
    trio.does("start --from v1 --to v2 --interval 1h");
    trio.nodes[2] = Some(trio.start(2));
    let out = || trio.nodes[2].as_ref().map_or_else(String::new, Process::out);
    assert!(eventually(|| out().contains("was called gone while it was away")), "{}", out());
    trio.wait("it follows", |it| it.standing("node-c")["state"]["version"] == 3);
    let text = trio.does("status --id node-c");
    assert!(text.contains("CALLED GONE") && text.contains("peer rollout admit node-c"), "{text}");
    let (code, text) = trio.rollout("abort --id node-c");
    assert_eq!(code, Some(1), "{text}");
    trio.wait("it asks to be let in", |it| {
        it.rollout("status")
            .1
            .contains("with the key it had; let it in: peer rollout admit node-c@")
    });
    trio.does("admit node-c");
    trio.await_all_at(4);
    trio.does("abort --id node-c");
}

#[test]
fn a_lost_machine_is_called_gone_and_another_has_its_name() {
    let mut trio = Trio::up();
    trio.nodes[2] = None;
    trio.move_data("data", "old", "node-c");
    let new = trio.start(2);
    assert!(eventually(|| new.out().contains("--gone --i-know")), "{}", new.out());
    trio.nodes[2] = Some(new);
    let (code, text) = trio.rollout("admit node-c");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("peer rollout remove node-c --gone --i-know, then admit it"), "{text}");
    trio.does("remove node-c --gone --i-know");
    trio.wait("it is here", |it| it.rollout("admit node-c").0 == Some(0));
    trio.await_all_at(3);
    trio.does("start --from v1 --to v2 --interval 1h --id node-c");
    // The old machine is back.
    trio.nodes[2] = None;
    trio.move_data("data", "new", "node-c");
    trio.move_data("old", "data", "node-c");
    trio.nodes[2] = Some(trio.start(2));
    let is_told = |it: &Trio| it.rollout("status --id node-c").1.contains("has its name now");
    trio.wait("it is refused", is_told);
    let (code, text) = trio.rollout("pause --id node-c");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("see there why they refuse"), "{text}");
    // And the new one goes on.
    trio.nodes[2] = None;
    trio.move_data("data", "old", "node-c");
    trio.move_data("new", "data", "node-c");
    trio.nodes[2] = Some(trio.start(2));
    trio.await_all_at(4);
}

#[test]
fn a_model_is_as_slow_and_failing_as_it_is_told_to_be() {
    let at = format!("127.0.0.1:{}", ports());
    let dir = tempfile::tempdir().unwrap();
    let args = ["rollout", "model", "--listen", &at, "--name", "v3", "--fail", "100"];
    let mut model = Process::start(&peer_exe(), &args, dir.path());
    model.wait_for(&format!("v3 answers at http://{at}, failing 100 %\n"));
    let mut stream = std::net::TcpStream::connect(&at).unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    model.signal(Signal::INT);
    assert_eq!(model.wait_for_end(), Some(0));
    assert!(model.out().ends_with("requests to v3: 1\n"), "{}", model.out());
}

#[test]
fn the_demo_passes_all_its_checks() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = run(&peer_exe(), &["demo", "rollout", "--keep", "kept"], dir.path());
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("SYNCHRONIZED: all 3 nodes serve version 9") && !out.contains("FAIL"));
    assert!(dir.path().join("kept/logs/node-a.log").exists());
}

#[test]
fn an_interrupted_demo_leaves_nobody_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Process::start(&peer_exe(), &["demo", "rollout"], dir.path());
    demo.wait_for("see each other");
    let children = children_of(demo.pid());
    assert!(children.len() >= 6, "{children:?}");
    demo.signal(Signal::INT);
    assert_eq!(demo.wait_for_end(), Some(1), "{}", demo.out());
    assert!(demo.err().contains("interrupted"), "{}", demo.err());
    assert!(children.iter().all(|it| !support::process::is_running(*it)));
}

/// A server of a version.
fn model(name: &str) -> Model {
    let (listen, name) =
        ("127.0.0.1:0".parse().expect("an address"), name.parse().expect("a name"));
    let delay = std::time::Duration::ZERO;
    Model::start(ModelOptions { listen, name, delay, failing: 0 }).expect("it starts")
}

#[test]
fn versions_are_served_at_run_time_by_one_node_or_by_all() {
    let mut trio = Trio::up();
    let servers = ["v1", "v2", "v3"].map(model);
    let [v1, v2, v3] = [1, 2, 3].map(|at| format!("v{at}=http://{}", servers[at - 1].addr()));
    let check = |trio: &Trio, line: &str, code, said: &str| {
        let (found, text) = trio.rollout(line);
        assert_eq!((found, text.contains(said)), (Some(code), true), "{line}: {text}");
    };
    let serves = |trio: &Trio, name: &str| {
        let (_, text) = trio.rollout(&format!("status --json --id {name}"));
        let value = serde_json::from_str::<Value>(&text).unwrap_or_default();
        value["serves"].as_object().map_or(0, serde_json::Map::len)
    };
    check(&trio, &format!("serve {v3}"), 1, "name a server of v1 in the same order");
    check(&trio, &format!("serve {v1} {v1}"), 2, "v1 stands twice");
    check(&trio, "serve v1=ftp://a", 2, "http://");
    check(&trio, &format!("serve {v1} {v2} --everywhere"), 0, "the servers of v1 and v2 now");
    trio.await_all_at(2);
    check(&trio, "query", 0, "v1");
    assert!(servers[0].asked() > 0, "no node echoes any more");
    check(&trio, &format!("serve {v3}"), 0, "node-a serves v1, v2 and v3 from now on");
    check(&trio, "status", 0, "v3 at http://127.0.0.1:");
    let start = "start --from v1 --to v3 --steps 50,100 --interval 1h";
    check(&trio, start, 1, "peer rollout serve v3=URL --id node-");
    check(&trio, &format!("serve {v3} --id node-b"), 0, "node-b serves");
    check(&trio, &format!("serve {v3} --id node-c"), 0, "node-c serves");
    check(&trio, &format!("{start} --same-servers"), 0, "started: v3 gets 50 %");
    check(&trio, "unserve v3", 1, "v3 is served now, by a rollout that is not over");
    check(&trio, "unserve v3 --everywhere", 1, "v3 is served now, by a rollout that is not over");
    check(&trio, "unserve v1 --id node-b", 1, "v1 is served now, as the stable version");
    check(&trio, "unserve v9", 1, "no server of v9");
    // What was said at run time and what was agreed on outlive a death.
    let dead = trio.nodes[1].take().expect("it runs");
    dead.signal(Signal::KILL);
    drop(dead);
    trio.nodes[1] = Some(trio.start(1));
    trio.await_all_at(3);
    assert_eq!(serves(&trio, "node-b"), 3);
    check(&trio, "abort", 0, "the rollout is over");
    check(&trio, "unserve v3 --everywhere", 0, "no node has a server of v3 any more");
    trio.await_all_at(5);
    assert_eq!(NAMES.map(|name| serves(&trio, name)), [2, 2, 2]);
    check(&trio, start, 1, "serves no model v3");
}

#[test]
fn gates_that_others_judge_finish_a_rollout_hold_it_or_undo_it() {
    let trio = Trio::up();
    let start = |from: &str, to: &str, gate: &str| {
        format!(
            "start --from {from} --to {to} --steps 50,100 --interval 1s --gate {gate} --deadline 1h"
        )
    };
    let check = |line: &str, code, said: &str| {
        let (found, text) = trio.rollout(line);
        assert_eq!((found, text.contains(said)), (Some(code), true), "{line}: {text}");
    };
    let ready = format!("http:http://{}/health", trio.plane(0));
    check(&format!("{} --wait", start("v1", "v2", &ready)), 0, "finished");
    // A path that there is not.
    let no = format!("http:http://{}/ready", trio.plane(0));
    check(&format!("{} --wait", start("v2", "v3", &no)), 1, "does not hold");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = silent.local_addr().expect("an address");
    drop(silent);
    let gate = format!("prom:up>0@http://{at}");
    check(&start("v2", "v4", &gate), 0, "started");
    let is_held = || {
        let (_, text) = trio.rollout("status");
        text.contains(&format!("held: no node has an answer to {gate}"))
            && text.contains(&format!("{gate}: node-a has no answer, cannot call it: "))
    };
    assert!(eventually(is_held), "{}", trio.rollout("status").1);
    check("abort", 0, "the rollout is over");
}

#[test]
fn a_preview_and_its_routes_are_shown_and_it_waits_for_a_promote() {
    let trio = Trio::up();
    let line = "start --from v1 --to v2+build.7 --steps 0,100 --interval 1s --mirror 5% \
                --sticky-own-cookie sid --route path:/beta->v2+build.7";
    let (code, text) = trio.rollout(line);
    assert!(code == Some(0) && text.contains("v2+build.7 is a preview on all nodes"), "{text}");
    for line in ["--route path:/a->v3", "--mirror 101%", "--mirror 0%", "--route nonsense"] {
        let (code, text) = trio.rollout(&format!("start --from v1 --to v2 {line}"));
        assert_eq!(code, Some(2), "{line}: {text}");
    }
    let is_held = || {
        let (_, text) = trio.rollout("status --id node-b");
        text.contains("routes: path:/beta -> canary") && text.contains("mirror: 5 % of")
    };
    assert!(eventually(is_held), "{}", trio.rollout("status --id node-b").1);
    assert!(eventually(|| trio.rollout("status").1.contains("waits for peer rollout promote")));
    let (code, text) = trio.rollout("promote");
    assert_eq!(code, Some(0), "{text}");
    let is_over = || trio.rollout("status").1.contains("v1 -> v2+build.7, finished");
    assert!(eventually(is_over), "{}", trio.rollout("status").1);
}
