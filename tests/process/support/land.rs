//! A fleet of real processes on several hosts of its own, and what a test may say of it.
//!
//! As in [`super::Scene`], what the nodes do is read from their common log; what they know is
//! asked with the commands that an operator has, on the host of the node that is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use folkmoot::cli::fleet::{FleetLog, LogEvent};
use folkmoot::model::Endpoint;
use folkmoot::runtime::clock::Clock;
use serde_json::Value;

use super::hosts::{Net, obstacle};
use super::{of, words};

/// Time after which a test fails that waits for something. Silence is noticed by time-outs, which
/// some of the waits here need several of, on a machine that has more to do.
pub const PATIENCE: Duration = Duration::from_secs(150);

const SEED_PORT: u16 = 5001;
const PEER_PORT: u16 = 6001;

/// An endpoint in one of its lives.
pub type Life = (Endpoint, u64);

/// The members that a seed lists, those who went among them: their life and status.
pub type List = BTreeMap<Endpoint, (u64, String)>;

/// Hosts, the nodes that belong on them, and those that run.
pub struct Land {
    running: BTreeMap<Endpoint, Child>,
    pub net: Net,
    seeds: Vec<Endpoint>,
    peers: Vec<Endpoint>,
    story: FleetLog,
    dir: tempfile::TempDir,
    clock: Clock,
    peer_args: Vec<String>,
}

impl Land {
    /// One host for each entry: whether a seed belongs on it, and how many peers. Nothing is
    /// started. `None`, with a word about it, where namespaces are not permitted.
    #[allow(clippy::print_stdout, reason = "a test that shows nothing must say so")]
    pub fn lay_out(hosts: &[(bool, u16)], peer_args: &str) -> Option<Self> {
        if let Some(obstacle) = obstacle() {
            println!("skipped: network namespaces cannot be made here: {obstacle}");
            return None;
        }
        let net = Net::with_hosts(hosts.len()).expect("as many as are wanted");
        let (mut seeds, mut peers) = (Vec::new(), Vec::new());
        for (host, (is_seed, count)) in hosts.iter().enumerate() {
            let at = |port| Endpoint::new(Net::address(host), port);
            seeds.extend(is_seed.then(|| at(SEED_PORT)));
            peers.extend((0..*count).map(|turn| at(PEER_PORT + turn)));
        }
        let dir = tempfile::Builder::new().prefix("folkmoot-").tempdir().expect("a directory");
        let config: String = seeds.iter().map(|seed| format!("{seed}\n")).collect();
        fs::write(dir.path().join("config.txt"), config).expect("a file can be written");
        let story = FleetLog::follow(dir.path().join("log.jsonl")).expect("a log can be made");
        let (clock, peer_args) = (Clock::start(), words(peer_args));
        Some(Self { running: BTreeMap::new(), net, seeds, peers, story, dir, clock, peer_args })
    }

    /// Lays hosts out and starts all but those `later`: the seeds vote, and the peers are members
    /// whose overlay stands, at all seeds.
    pub fn up(hosts: &[(bool, u16)], peer_args: &str, later: &[(usize, u16)]) -> Option<Self> {
        let mut land = Self::lay_out(hosts, peer_args)?;
        let later: Vec<_> = later.iter().map(|(host, turn)| land.peer(*host, *turn)).collect();
        for seed in land.seeds() {
            land.start(seed);
        }
        let peers: Vec<_> = land.peers().into_iter().filter(|it| !later.contains(it)).collect();
        for peer in &peers {
            land.start(*peer);
        }
        land.await_members(&land.seeds(), &peers);
        land.await_overlay(&land.seeds(), &peers);
        Some(land)
    }

    pub fn seeds(&self) -> Vec<Endpoint> {
        self.seeds.clone()
    }

    /// The directory that holds everything of this fleet.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// All peers that there are places for.
    pub fn peers(&self) -> Vec<Endpoint> {
        self.peers.clone()
    }

    /// The seed of a host.
    #[track_caller]
    pub fn seed(&self, host: usize) -> Endpoint {
        self.known(Endpoint::new(Net::address(host), SEED_PORT))
    }

    /// A peer of a host, counted from 0.
    #[track_caller]
    pub fn peer(&self, host: usize, turn: u16) -> Endpoint {
        self.known(Endpoint::new(Net::address(host), PEER_PORT + turn))
    }

    #[track_caller]
    fn known(&self, node: Endpoint) -> Endpoint {
        assert!(self.seeds.contains(&node) || self.peers.contains(&node), "{node} has no place");
        node
    }

    /// The peers that run.
    pub fn running_peers(&self) -> Vec<Endpoint> {
        self.running.keys().copied().filter(|it| self.peers.contains(it)).collect()
    }

    /// Everything that runs on a host.
    pub fn running_on(&self, host: usize) -> Vec<Endpoint> {
        self.running.keys().copied().filter(|it| it.ip() == Net::address(host)).collect()
    }

    /// The host that a node belongs on.
    pub fn host_of(node: Endpoint) -> usize {
        let host = (0..=u8::MAX).position(|it| Net::address(usize::from(it)) == node.ip());
        host.expect("it is on one of the hosts")
    }

    fn data(&self, node: Endpoint) -> PathBuf {
        self.dir.path().join(format!("host-{}", Self::host_of(node)))
    }

    /// Starts a seed or a peer on its host.
    #[track_caller]
    pub fn start(&mut self, node: Endpoint) {
        let host = Self::host_of(node);
        let dir = self.dir.path();
        let mut command = match self.seeds.iter().position(|it| *it == node) {
            Some(at) => {
                let exe = Path::new(env!("CARGO_BIN_EXE_seed"));
                let mut command = self.net.command(host, exe);
                command.arg("--id").arg((at + 1).to_string());
                command
            }
            None => {
                let mut command = self.net.command(host, &super::peer_exe());
                command.arg("--ip").arg(node.ip().to_string()).args(&self.peer_args);
                command
            }
        };
        let errors = fs::OpenOptions::new().create(true).append(true).open(dir.join("stderr.txt"));
        let child = command
            .arg("--port")
            .arg(node.port().to_string())
            .arg("--config")
            .arg(dir.join("config.txt"))
            .arg("--data")
            .arg(self.data(node))
            .arg("--output")
            .arg(dir.join("log.jsonl"))
            .args(["--log-format", "json", "--until-stdin-closes"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(errors.expect("a file can be made"))
            .spawn()
            .expect("a node starts");
        let before = self.running.insert(node, child);
        assert!(before.is_none(), "{node} runs already");
    }

    /// Kills a process with SIGKILL and waits for its end.
    #[track_caller]
    pub fn kill(&mut self, node: Endpoint) {
        let mut child = self.running.remove(&node).expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Milliseconds since the Unix epoch, as the log counts.
    pub fn now_ms(&self) -> u64 {
        self.clock.now().wall.0
    }

    /// Number of lines that were read so far: the next chapter begins there.
    pub fn mark(&mut self) -> usize {
        self.story.read().expect("the log can be read");
        self.story.lines().len()
    }

    /// Everything that was told since `mark`.
    pub fn lines(&mut self, mark: usize) -> Vec<LogEvent> {
        self.mark();
        self.story.lines()[mark..].to_vec()
    }

    /// Waits until `reached` holds of all that was told.
    #[track_caller]
    pub fn wait(&mut self, what: &str, reached: impl FnMut(&[LogEvent]) -> bool) {
        let outcome = self.story.wait(PATIENCE, reached);
        if !outcome.expect("every line of the log is whole") {
            panic!("not within {PATIENCE:?}: {what}\n{}", self.told());
        }
    }

    /// Waits until a line after `mark` is `wanted`, and returns the first.
    #[track_caller]
    pub fn wait_line(
        &mut self,
        mark: usize,
        what: &str,
        wanted: impl Fn(&LogEvent) -> bool,
    ) -> LogEvent {
        self.wait(what, |lines| lines[mark..].iter().any(&wanted));
        self.lines(mark).into_iter().find(wanted).expect("it was just there")
    }

    /// Asks again and again until `reached` finds what it looks for; it says why it did not yet.
    #[track_caller]
    pub fn poll<T>(&mut self, what: &str, reached: impl Fn(&Self) -> Result<T, String>) -> T {
        let began = self.clock.now().mono;
        loop {
            let reason = match reached(self) {
                Ok(found) => return found,
                Err(reason) => reason,
            };
            if self.clock.now().mono.since(began) > PATIENCE {
                panic!("not within {PATIENCE:?}: {what}: {reason}\n{}", self.told());
            }
            self.story.watch(Duration::from_millis(250)).expect("the log can be read");
        }
    }

    /// Runs a command of `peer` on the host of `node`; what it prints is lines of JSON.
    ///
    /// # Errors
    /// What it complained.
    pub fn ask(&self, node: Endpoint, args: &str) -> Result<Vec<Value>, String> {
        let output = self
            .net
            .command(Self::host_of(node), &super::peer_exe())
            .args(words(args))
            .arg("--json")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("it can be run");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8(output.stdout).expect("JSON is text");
        Ok(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
    }

    /// Begins a command of `peer` on the host of `node`, through the peer that is `node`.
    pub fn begin(&self, node: Endpoint, args: &str) -> Child {
        let mut command = self.net.command(Self::host_of(node), &super::peer_exe());
        command.args(words(args)).arg("--port").arg(node.port().to_string());
        command.arg("--data").arg(self.data(node)).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it can be run")
    }

    /// True if a program on the host of `node` gets an answer from a seed.
    pub fn reaches(&self, node: Endpoint, seed: Endpoint) -> bool {
        self.ask(node, &format!("members --at {seed} --timeout 2s")).is_ok()
    }

    /// Whom a seed knows, as it says on its own host.
    ///
    /// # Errors
    /// What the command complained.
    pub fn list(&self, seed: Endpoint) -> Result<List, String> {
        let lines = self.ask(seed, &format!("members --all --at {seed} --timeout 10s"))?;
        let line = |line: &Value| {
            let status = line["status"].as_str().expect("a text").to_owned();
            (endpoint(&line["endpoint"]), (line["incarnation"].as_u64().expect("one"), status))
        };
        Ok(lines.iter().map(line).collect())
    }

    /// Status that a node gives of itself.
    ///
    /// # Errors
    /// What the command complained.
    pub fn status(&self, node: Endpoint) -> Result<Value, String> {
        let data = self.data(node);
        let data = data.to_str().expect("a plain path");
        let mut lines = self.ask(node, &format!("status --port {} --data {data}", node.port()))?;
        lines.pop().ok_or_else(|| "no answer".to_owned())
    }

    /// The neighbors that a peer says it has.
    ///
    /// # Errors
    /// What the command complained.
    pub fn neighbors(&self, peer: Endpoint) -> Result<BTreeSet<Endpoint>, String> {
        let status = self.status(peer)?;
        let neighbors = status["neighbors"].as_object().expect("an object");
        Ok(neighbors.keys().map(|it| it.parse().expect("an endpoint")).collect())
    }

    /// Waits until each of these seeds lists exactly `members` as living, in the same lives.
    #[track_caller]
    pub fn await_members(&mut self, seeds: &[Endpoint], members: &[Endpoint]) {
        let wanted: BTreeSet<_> = members.iter().copied().collect();
        self.poll("the seeds list the members", |land| {
            let mut lists = Vec::new();
            for seed in seeds {
                let alive = alive(&land.list(*seed)?);
                let listed: BTreeSet<_> = alive.iter().map(|(endpoint, _)| *endpoint).collect();
                if listed != wanted {
                    return Err(format!("{seed} lists {listed:?}, not {wanted:?}"));
                }
                lists.push(alive);
            }
            let is_same = lists.windows(2).all(|pair| pair[0] == pair[1]);
            if is_same { Ok(()) } else { Err(format!("different lives: {lists:?}")) }
        });
    }

    /// Waits until the links that each of these seeds knows of, and those that the members say
    /// they have, are the same from both ends and connect all `members`.
    #[track_caller]
    pub fn await_overlay(&mut self, seeds: &[Endpoint], members: &[Endpoint]) {
        self.poll("one connected overlay", |land| {
            for seed in seeds {
                let nodes = land.ask(*seed, &format!("topology --at {seed} --timeout 10s"))?;
                let node = |node: &Value| (endpoint(&node["endpoint"]), ends(&node["neighbors"]));
                is_whole(&nodes.iter().map(node).collect(), members)?;
            }
            let mut told = BTreeMap::new();
            for member in members {
                told.insert(*member, land.neighbors(*member)?);
            }
            is_whole(&told, members)
        });
    }

    /// Waits until of each of `members` a message that it made after `mark` was heard by all
    /// the others.
    #[track_caller]
    pub fn await_gossip(&mut self, mark: usize, members: &[Endpoint]) {
        let id = |line: &LogEvent| {
            let number = |field| line.number(field).expect("it has one");
            (line.endpoint("origin").expect("it has one"), number("incarnation"), number("number"))
        };
        self.wait("gossip of each reaches all", |lines| {
            let told =
                |event: &'static str| lines[mark..].iter().filter(move |it| it.event == event);
            let mut heard: BTreeMap<_, BTreeSet<_>> =
                told("gossip_made").map(|it| (id(it), BTreeSet::from([it.node]))).collect();
            // Its author may be the last to come to the file with it.
            for line in told("gossip_heard") {
                if let Some(heard) = heard.get_mut(&id(line)) {
                    heard.insert(line.node);
                }
            }
            members.iter().all(|member| {
                let by_all = |by: &BTreeSet<_>| members.iter().all(|it| by.contains(it));
                heard.iter().any(|((origin, ..), by)| origin == member && by_all(by))
            })
        });
    }

    /// All lives that any seed has declared over, since the beginning.
    pub fn removed(&mut self) -> BTreeSet<Life> {
        let lines = self.lines(0);
        lines.iter().filter(|it| it.is("seed", "removed")).map(life).collect()
    }

    /// The fleet is whole: these are members in the same lives at all seeds, linked, heard by
    /// each other; and no life that a seed has declared over is lived anywhere.
    #[track_caller]
    pub fn await_whole(&mut self, members: &[Endpoint]) {
        let seeds = self.seeds();
        self.await_members(&seeds, members);
        self.await_overlay(&seeds, members);
        let mark = self.mark();
        self.await_gossip(mark, members);
        // Whoever came back under another life meanwhile is in the lists again by now.
        self.await_members(&seeds, members);
        let removed = self.removed();
        for seed in seeds {
            let list = self.list(seed).expect("it runs");
            let back: Vec<_> = alive(&list).intersection(&removed).copied().collect();
            assert!(back.is_empty(), "{seed} has removed lives as members: {back:?}");
        }
        for member in members {
            let status = self.status(*member).expect("it runs");
            assert_eq!(status["state"], "member", "{status}");
            let life = (*member, status["incarnation"].as_u64().expect("a number"));
            assert!(!removed.contains(&life), "{member} goes on in a removed life");
        }
        assert_eq!(self.fallen(), None, "everybody runs");
    }

    /// The life in which a seed lists a member.
    #[track_caller]
    pub fn life(&self, seed: Endpoint, member: Endpoint) -> u64 {
        let list = self.list(seed).expect("it runs");
        let (life, status) = list.get(&member).expect("it is listed");
        assert_eq!(status, "alive", "{member}");
        *life
    }

    /// A node whose process has ended by itself, with its exit code.
    pub fn fallen(&mut self) -> Option<(Endpoint, Option<i32>)> {
        self.running.iter_mut().find_map(|(node, child)| {
            let status = child.try_wait().ok().flatten()?;
            Some((*node, status.code()))
        })
    }

    /// Last lines of the log, to find out why a test failed.
    pub fn told(&mut self) -> String {
        let lines = self.lines(0);
        let lines = lines.iter().filter(|it| !it.event.starts_with("gossip"));
        let lines: Vec<_> = lines.map(LogEvent::line).collect();
        let skipped = lines.len().saturating_sub(200);
        let errors = fs::read_to_string(self.dir.path().join("stderr.txt")).unwrap_or_default();
        let fallen = self.fallen();
        format!("{}\nfallen: {fallen:?}\n{errors}", lines[skipped..].join("\n"))
    }
}

impl Drop for Land {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // It may have ended by itself; then there is nothing left to do.
            let _ = child.kill();
        }
        for child in self.running.values_mut() {
            let _ = child.wait();
        }
        if let Some(to) = std::env::var_os("KEEP_LOGS") {
            let name = std::thread::current().name().unwrap_or("log").to_owned();
            let _ = fs::copy(self.dir.path().join("log.jsonl"), Path::new(&to).join(name));
        }
    }
}

/// The lives that a list has as living.
pub fn alive(list: &List) -> BTreeSet<Life> {
    let alive = list.iter().filter(|(_, (_, status))| status == "alive");
    alive.map(|(endpoint, (life, _))| (*endpoint, *life)).collect()
}

/// The life that a line is about.
pub fn life(line: &LogEvent) -> Life {
    let life = line.number("incarnation").expect("it names the life");
    (line.endpoint("endpoint").expect("it names the endpoint"), life)
}

/// True if a line says that this seed has lost its quorum, or has one again.
pub fn quorum(line: &LogEvent, seed: Endpoint, reached: bool) -> bool {
    of(line, seed, "quorum") && line.fields.get("reached") == Some(&Value::Bool(reached))
}

fn endpoint(value: &Value) -> Endpoint {
    value.as_str().expect("a text").parse().expect("an endpoint")
}

fn ends(value: &Value) -> BTreeSet<Endpoint> {
    value.as_array().expect("a list").iter().map(endpoint).collect()
}

/// True if these links are exactly the members', the same from both ends, and connect them all.
fn is_whole(
    links: &BTreeMap<Endpoint, BTreeSet<Endpoint>>,
    members: &[Endpoint],
) -> Result<(), String> {
    let none = BTreeSet::new();
    let of = |node: &Endpoint| links.get(node).unwrap_or(&none);
    let wanted = members.len().saturating_sub(1).min(2);
    for member in members {
        let is_mutual = |neighbor: &Endpoint| of(neighbor).contains(member);
        if of(member).len() < wanted || !of(member).iter().all(is_mutual) {
            return Err(format!("{member} has {:?} of {links:?}", of(member)));
        }
    }
    let mut reached: BTreeSet<_> = members.first().copied().into_iter().collect();
    let mut border: Vec<_> = reached.iter().copied().collect();
    while let Some(node) = border.pop() {
        border.extend(of(&node).iter().copied().filter(|it| reached.insert(*it)));
    }
    let all: BTreeSet<_> = members.iter().copied().collect();
    if reached == all { Ok(()) } else { Err(format!("{reached:?} of {links:?}")) }
}
