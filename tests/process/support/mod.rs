//! Real processes on loopback, shared by the process tests: fleets, raw clients, lying members.
//!
//! Everything is awaited with a time-out that a crowded machine cannot exhaust; nothing here
//! measures speed. Whatever is started ends with the test that started it.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one message, and for any other in vain"
)]

pub mod browser;
pub mod client;
pub mod course;
pub mod foreign;
pub mod hosts;
pub mod land;
pub mod liar;
pub mod member;
pub mod nodes;
pub mod process;
pub mod seeds;
pub mod talker;
pub mod terminal;
pub mod web;

use std::collections::{BTreeMap, VecDeque};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use folkmoot::cli::fleet::{Fleet, FleetLayout, LogEvent};
use folkmoot::cli::query::fetch_members;
use folkmoot::model::{Endpoint, Time};
use folkmoot::proto::membership::MemberLine;
use folkmoot::runtime::clock::Clock;
use folkmoot::runtime::descriptors;

/// Time after which a test fails that waits for something: far beyond what anything takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ports of the tests: below those that the system gives to callers, or a restarted node could
/// find its port taken by somebody's outgoing connection, and below those of the fleets of
/// `peer bench`, which tests run too.
const PORTS_FIRST: u32 = 7_000;
const PORTS_PER_SCENE: u32 = 64;
const SCENES: u32 = 200;
/// Number of scenes that a process keeps for itself.
const CLAIMS_MAX: usize = 120;

/// The executable of the peer, which can be a seed too.
pub fn peer_exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_peer"))
}

/// The first of 64 ports that no other scene uses, in whatever process of this network namespace:
/// some tests run in processes of their own.
pub fn ports() -> u16 {
    // A crowd of strangers needs more than the usual soft limit.
    descriptors::raise();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static CLAIMS: Mutex<VecDeque<UnixListener>> = Mutex::new(VecDeque::new());
    let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let scene = std::process::id().wrapping_mul(17).wrapping_add(turn) % SCENES;
        let name = format!("folkmoot-scene-{scene}");
        let name = SocketAddr::from_abstract_name(name).expect("a short name");
        let Ok(claim) = UnixListener::bind_addr(&name) else { continue };
        claims.push_back(claim);
        if claims.len() > CLAIMS_MAX {
            // Its scene is long over.
            claims.pop_front();
        }
        return u16::try_from(PORTS_FIRST + scene * PORTS_PER_SCENE).expect("below 2^16");
    }
}

/// The words of a command line.
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Peers whose gossip is over soon.
pub const FAST_GOSSIP: &str = "--gossip-interval 300ms";
/// Peers that say nothing of their own.
pub const NO_GOSSIP: &str = "--gossip-max 0";

/// A fleet of processes, and what a test may say of it.
pub struct Scene {
    pub fleet: Fleet,
    clock: Clock,
}

impl Scene {
    /// A fleet that is laid out and not started, with `peer_args` for each peer.
    pub fn lay_out(seeds: u16, peers: u16, peer_args: &str) -> Self {
        Self::lay_out_with(peer_exe(), seeds, peers, ("", peer_args))
    }

    /// Lays a fleet out with another executable and arguments for the seeds.
    pub fn lay_out_with(
        exe: PathBuf,
        seeds: u16,
        peers: u16,
        (seed_args, peer_args): (&str, &str),
    ) -> Self {
        let first = ports();
        let plan = FleetLayout {
            exe,
            seeds,
            seed_port: first,
            peer_port: first + seeds,
            peers,
            seed_args: words(seed_args),
            peer_args: words(peer_args),
        };
        let fleet = Fleet::lay_out(plan).expect("a fleet can be laid out");
        Self { fleet, clock: Clock::start() }
    }

    /// A fleet whose seeds vote and whose peers are members with the neighbors they want.
    pub fn up(seeds: u16, peers: u16, peer_args: &str) -> Self {
        let mut scene = Self::lay_out(seeds, peers, peer_args);
        scene.start_seeds();
        scene.start_peers();
        scene.await_overlay(&scene.peers());
        scene
    }

    pub fn seeds(&self) -> Vec<Endpoint> {
        self.fleet.seeds().to_vec()
    }

    pub fn peers(&self) -> Vec<Endpoint> {
        self.fleet.peers().to_vec()
    }

    /// Directory of the key and the journal of a node.
    pub fn data_of(&self, role: &str, node: Endpoint) -> PathBuf {
        self.fleet.dir().join("data").join(format!("{role}-{}", node.port()))
    }

    /// Starts all seeds and waits until they vote.
    pub fn start_seeds(&mut self) {
        let seeds = self.seeds();
        self.start_some_seeds(&seeds);
    }

    /// Starts these seeds and waits until they vote.
    pub fn start_some_seeds(&mut self, seeds: &[Endpoint]) {
        let before = self.mark();
        for seed in seeds {
            self.fleet.start_seed(*seed).expect("a seed starts");
        }
        self.wait("the seeds vote", |lines| {
            // One that remembers votes at once, and has nothing to say about it.
            let votes = |it: &LogEvent| {
                it.event == "ready" || it.event == "started" && it.number("members") > Some(0)
            };
            let lines = &lines[before..];
            seeds.iter().all(|seed| lines.iter().any(|it| it.node == *seed && votes(it)))
        });
    }

    /// Starts all peers at once and waits until they are members.
    pub fn start_peers(&mut self) {
        let peers = self.peers();
        self.start_some_peers(&peers);
    }

    /// Starts these peers at once and waits until they are members.
    pub fn start_some_peers(&mut self, peers: &[Endpoint]) {
        let before = self.mark();
        for peer in peers {
            self.fleet.start_peer(*peer).expect("a peer starts");
        }
        self.wait("the peers are members", |lines| {
            peers.iter().all(|peer| lines[before..].iter().any(|it| of(it, *peer, "admitted")))
        });
    }

    /// Number of lines that were read so far: the next chapter begins there.
    pub fn mark(&mut self) -> usize {
        self.fleet.story().read().expect("the log can be read");
        self.fleet.story().lines().len()
    }

    /// Everything that was told so far.
    pub fn lines(&mut self) -> Vec<LogEvent> {
        self.mark();
        self.fleet.story().lines().to_vec()
    }

    /// Waits until `reached` holds of all that was told.
    #[track_caller]
    pub fn wait(&mut self, what: &str, reached: impl FnMut(&[LogEvent]) -> bool) {
        let outcome = self.fleet.story().wait(PATIENCE, reached);
        if !outcome.expect("every line of the log is whole") {
            panic!("not within {PATIENCE:?}: {what}\n{}", self.told());
        }
    }

    /// Waits for `span` and makes sure that meanwhile nothing is told that must not happen.
    #[track_caller]
    pub fn never(&mut self, what: &str, span: Duration, bad: impl Fn(&LogEvent) -> bool) {
        let found = self.fleet.story().wait(span, |lines| lines.iter().any(&bad));
        if found.expect("every line of the log is whole") {
            panic!("it happened: {what}\n{}", self.told());
        }
    }

    /// Asks a seed for its members, as anybody could.
    #[track_caller]
    pub fn members_at(&self, seed: Endpoint) -> Vec<MemberLine> {
        match fetch_members(seed, PATIENCE) {
            Ok(members) => members,
            Err(error) => panic!("{seed} gave no list: {error}"),
        }
    }

    /// Waits until each running seed lists exactly `members`.
    #[track_caller]
    pub fn await_lists(&mut self, members: &[Endpoint]) {
        let mut wanted = members.to_vec();
        wanted.sort_unstable();
        let began = self.clock.now().mono;
        for seed in self.running_seeds() {
            loop {
                let list: Vec<_> = self.members_at(seed).iter().map(|it| it.endpoint).collect();
                if list == wanted {
                    break;
                }
                if self.elapsed(began) > PATIENCE {
                    panic!("{seed} lists {list:?}, not {wanted:?}\n{}", self.told());
                }
                self.fleet.story().watch(Duration::from_millis(20)).expect("the log can be read");
            }
        }
    }

    /// Waits until all `members` have two neighbors (or all there are), each link known to both.
    #[track_caller]
    pub fn await_overlay(&mut self, members: &[Endpoint]) {
        let wanted = members.len().saturating_sub(1).min(2);
        self.wait("the overlay stands", |lines| {
            let all = neighborhoods(lines);
            let of = |peer| all.get(peer).map_or(&[][..], Vec::as_slice);
            members.iter().all(|member| {
                let is_mutual = |neighbor| of(neighbor).contains(member);
                of(member).len() >= wanted && of(member).iter().all(is_mutual)
            })
        });
    }

    /// State of a node, by its local socket.
    #[track_caller]
    pub fn status(&self, node: Endpoint) -> serde_json::Value {
        let port = node.port().to_string();
        let data = self.fleet.dir().join("data");
        let data = data.to_str().expect("a plain path");
        let args = ["status", "--json", "--port", &port, "--data", data];
        let (code, out, err) = process::run(&peer_exe(), &args, self.fleet.dir());
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str(&out).expect("a status is JSON")
    }

    pub fn running_seeds(&self) -> Vec<Endpoint> {
        let running: Vec<_> = self.fleet.running().collect();
        self.seeds().into_iter().filter(|seed| running.contains(seed)).collect()
    }

    pub fn running_peers(&self) -> Vec<Endpoint> {
        let running: Vec<_> = self.fleet.running().collect();
        self.peers().into_iter().filter(|peer| running.contains(peer)).collect()
    }

    fn elapsed(&self, began: Time) -> Duration {
        self.clock.now().mono.since(began)
    }

    /// Last lines of the log, to find out why a test failed.
    pub fn told(&mut self) -> String {
        let lines = self.lines();
        let lines: Vec<_> =
            lines.iter().filter(|it| !it.event.starts_with("gossip")).map(LogEvent::line).collect();
        let skipped = lines.len().saturating_sub(80);
        let fallen = self.fleet.fallen();
        let complaints = self.fleet.complaints();
        format!("{}\nfallen: {fallen:?}\n{complaints}", lines[skipped..].join("\n"))
    }
}

/// True if a line is `node`'s and tells `event`.
pub fn of(line: &LogEvent, node: Endpoint, event: &str) -> bool {
    line.node == node && line.event == event
}

/// True if a line tells `event` about `endpoint`.
pub fn about(line: &LogEvent, endpoint: Endpoint, event: &str) -> bool {
    line.event == event && line.endpoint("endpoint") == Some(endpoint)
}

/// The lines among `lines` that tell of one of these events. On a machine that keeps a node from
/// running in time suspicions are right, and do not count; the node says so by `doubtful`.
pub fn doubts<'a>(lines: &'a [LogEvent], events: &[&str]) -> Vec<&'a LogEvent> {
    let is_late = lines.iter().any(|it| it.event == "doubtful");
    let comes_of_load =
        |it: &LogEvent| is_late && ["unlinked", "suspected", "confirmed"].contains(&&*it.event);
    lines.iter().filter(|it| events.contains(&&*it.event) && !comes_of_load(it)).collect()
}

/// The endpoints in a list of a line.
pub fn endpoints(line: &LogEvent, field: &str) -> Vec<Endpoint> {
    let list = line.fields.get(field).and_then(|it| it.as_array());
    let parse = |it: &serde_json::Value| it.as_str()?.parse().ok();
    list.map(|list| list.iter().filter_map(parse).collect()).unwrap_or_default()
}

/// The seeds in a line's list of voters.
pub fn voters(line: &LogEvent) -> Vec<u64> {
    let list = line.fields.get("seeds").and_then(|it| it.as_array());
    list.map(|list| list.iter().filter_map(serde_json::Value::as_u64).collect()).unwrap_or_default()
}

/// The neighbors that each peer has announced last.
pub fn neighborhoods(lines: &[LogEvent]) -> BTreeMap<Endpoint, Vec<Endpoint>> {
    let mut all = BTreeMap::new();
    for line in lines.iter().filter(|line| line.role == "peer") {
        match line.event.as_str() {
            "started" => _ = all.remove(&line.node),
            "neighbors" => _ = all.insert(line.node, endpoints(line, "neighbors")),
            _ => {}
        }
    }
    all
}

/// The incarnation under which a peer was admitted last.
pub fn life_of(lines: &[LogEvent], peer: Endpoint) -> u64 {
    let mut lives = lines.iter().filter(|it| of(it, peer, "admitted"));
    let last = lives.next_back().expect("the peer was admitted");
    last.number("incarnation").expect("an admission names the incarnation")
}
