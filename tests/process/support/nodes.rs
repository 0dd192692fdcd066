//! Nodes that roll out, as running programs: asked by their control sockets and data planes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use folkmoot::runtime::control;
use serde_json::{Value, json};

use super::process::{Process, eventually};
use super::{PATIENCE, peer_exe, ports};

/// Nodes of this machine, in a directory of their own.
pub struct Nodes {
    dir: tempfile::TempDir,
    base: u16,
    names: Vec<&'static str>,
    pub running: BTreeMap<&'static str, Process>,
}

/// The names of as many nodes.
const NAMES: [&str; 9] =
    ["node-a", "node-b", "node-c", "node-d", "node-e", "node-f", "node-g", "node-h", "node-i"];

impl Nodes {
    /// So many, none of which runs yet.
    pub fn lay_out(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("there is room");
        let names = NAMES[..count].to_vec();
        Self { dir, base: ports(), names, running: BTreeMap::new() }
    }

    /// So many, which have begun their history.
    pub fn up(count: usize) -> Self {
        let mut nodes = Self::lay_out(count);
        for name in nodes.names() {
            nodes.start(name);
        }
        nodes.await_ready();
        nodes
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.names.clone()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn number(name: &str) -> u16 {
        let at = NAMES.iter().position(|it| *it == name);
        u16::try_from(at.expect("a known name")).expect("a small number")
    }

    /// Port at which other nodes call a node.
    pub fn port(&self, name: &str) -> u16 {
        self.base + Self::number(name)
    }

    /// Port of a node's data plane.
    pub fn http(&self, name: &str) -> u16 {
        self.base + 10 + Self::number(name)
    }

    /// File of a node's log of transactions.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir().join(format!("data/logs/{name}.log"))
    }

    /// Starts one that knows all others by flags.
    pub fn start(&mut self, name: &'static str) {
        self.start_with(name, &[]);
    }

    /// Starts a node with further flags.
    pub fn start_with(&mut self, name: &'static str, flags: &[&str]) {
        let others: Vec<_> = self.names().into_iter().filter(|it| *it != name).collect();
        let mut all = Vec::new();
        for other in others {
            let place = format!("{other}=127.0.0.1:{}", self.port(other));
            all.extend(["--node".to_owned(), place]);
        }
        all.extend(flags.iter().map(|it| (*it).to_owned()));
        self.start_alone(name, &all.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Starts one with these flags only, and those that say where it is.
    pub fn start_alone(&mut self, name: &'static str, flags: &[&str]) {
        self.start_by(&peer_exe(), &[], (name, flags));
    }

    /// Starts a node by another program, which is told what to run behind `before`.
    pub fn start_by(
        &mut self,
        exe: &Path,
        before: &[&str],
        (name, flags): (&'static str, &[&str]),
    ) {
        let (port, http) = (self.port(name).to_string(), self.http(name));
        let http = format!("127.0.0.1:{http}");
        let mut args = before.to_vec();
        args.extend(["--port", &port, "--id", name, "--http", &http, "--log-level", "debug"]);
        args.extend_from_slice(flags);
        let process = Process::start(exe, &args, self.dir());
        self.running.insert(name, process);
    }

    pub fn kill(&mut self, name: &str) {
        self.running.remove(name).expect("it runs");
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn await_end(&mut self, name: &str) -> (Option<i32>, String) {
        let mut process = self.running.remove(name).expect("it runs");
        let code = process.wait_for_end();
        (code, process.out() + &process.err())
    }

    /// Log lines of a node so far.
    pub fn out(&self, name: &str) -> String {
        self.running[name].out()
    }

    /// Asks it by its control socket; an error when it does not run or refuses the question.
    pub fn ask(&self, name: &str, ask: &Value) -> Result<Value, String> {
        let path = self.dir().join(format!("data/rollout-{name}/control.sock"));
        let answer = control::ask(&path, &ask.to_string(), PATIENCE);
        let answer = answer.map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }

    /// Gives it an order and waits for the answer.
    #[track_caller]
    pub fn order(&self, name: &str, order: impl Into<Value>) -> Value {
        let order = order.into();
        let answer = self.ask(name, &json!({ "ask": "order", "order": order }));
        answer.expect("it answers")
    }

    /// Begins a rollout of `to` whose first share is `share` basis points, and nothing more for a
    /// long time.
    #[track_caller]
    pub fn begin(&self, name: &str, (from, to): (&str, &str), share: u32) -> Value {
        self.order(name, start((from, to), &[share, 10_000], 600_000))
    }

    /// Status of a node.
    pub fn standing(&self, name: &str) -> Value {
        let status = self.ask(name, &json!({ "ask": "status" }));
        status.map_or(Value::Null, |mut it| it["standing"].take())
    }

    /// The version that it serves; 0: none.
    pub fn version(&self, name: &str) -> u64 {
        self.standing(name)["state"]["version"].as_u64().unwrap_or(0)
    }

    /// The transaction that it is in doubt about.
    pub fn doubt(&self, name: &str) -> Option<String> {
        self.standing(name)["in_doubt"]["txid"].as_str().map(str::to_owned)
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn wait(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        if !eventually(|| reached(self)) {
            let told: Vec<_> =
                self.running.iter().map(|(name, it)| format!("{name}:\n{}", it.out())).collect();
            panic!("not: {what}\n{}", told.join("\n"));
        }
    }

    /// Waits until all that run take part, can vote, and reach each other.
    #[track_caller]
    pub fn await_ready(&self) {
        let others = self.running.len() - 1;
        self.wait("all are ready", |it| {
            it.running.keys().all(|name| {
                let standing = it.standing(name);
                let peers = standing["peers"].as_array().map_or(0, |peers| {
                    peers.iter().filter(|peer| peer["is_linked"] == true).count()
                });
                let is_sure = standing["recalling"].as_array().is_some_and(Vec::is_empty);
                // On a host of its own it is not reached from here.
                let at = ("127.0.0.1", it.http(name));
                let serves = || http(at, "GET", "/routing", "").map_or(true, |it| it.0 == 200);
                standing["phase"] == "running" && peers >= others && is_sure && serves()
            })
        });
    }

    /// Waits until all that run serve this version, each the same content.
    #[track_caller]
    pub fn await_version(&self, version: u64) {
        self.wait(&format!("all serve version {version}"), |it| {
            // Who began without a log answers 503 until it has caught up.
            it.running.keys().all(|name| {
                let (status, body) = it.http_of(name, "GET", "/routing/state", "");
                let state: Value = serde_json::from_str(&body).unwrap_or_default();
                status == 200 && state["version"] == version
            })
        });
        let states: Vec<_> = self.running.keys().map(|it| self.routing(it)).collect();
        assert!(states.iter().all(|it| *it == states[0]), "{states:?}");
        assert_eq!(states[0]["status"], "COMMITTED");
    }

    /// State that a node's data plane says it serves.
    #[track_caller]
    pub fn routing(&self, name: &str) -> Value {
        let (status, body) = self.http_of(name, "GET", "/routing/state", "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("it is JSON")
    }

    /// One request to its data plane: the status, and the body.
    #[track_caller]
    pub fn http_of(&self, name: &str, method: &str, path: &str, body: &str) -> (u16, String) {
        http(("127.0.0.1", self.http(name)), method, path, body).expect("it answers")
    }

    /// Number of lines of a node's log of transactions that contain `text`.
    pub fn lines_with(&self, name: &str, text: &str) -> usize {
        let log = fs::read_to_string(self.log(name)).expect("there is a log");
        log.lines().filter(|it| it.contains(text)).count()
    }
}

/// The order of a rollout without gates.
pub fn start((from, to): (&str, &str), steps: &[u32], interval_ms: u64) -> Value {
    json!({
        "command": "start", "from": from, "to": to, "steps": steps, "interval_ms": interval_ms,
        "gates": [], "samples_min": 1, "window_ms": 10_000,
    })
}

/// One request: the status, and the body.
pub fn http(
    to: (&str, u16),
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(to).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(failed)?;
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).ok_or("no status")?;
    Ok((status, body.to_owned()))
}
