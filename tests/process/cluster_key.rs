//! A fleet with a cluster key, as its operator and its enemies meet it: who gets in, who is told
//! what, how keys are changed, and what somebody on the path sees and can do.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an attacker waits for one answer, and for any other in vain"
)]

use crate::support;

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use folkmoot::cli::fleet::LogEvent;
use folkmoot::model::statement::MemberInstance;
use folkmoot::model::{Binding, Endpoint, KeyPair, Nonce, SigningBytes};
use folkmoot::proto::hello::{Hello, HelloProof, Intent, NodeInfo, VERSION};
use folkmoot::proto::line::{LineReader, encode};
use folkmoot::proto::liveness::Ping;
use folkmoot::proto::message::Message;
use folkmoot::proto::refusal::ErrorCode;
use folkmoot::proto::sealed::{self, ClusterKeys, OPENING, PlainOrSealed, Sealed, Sealer};
use folkmoot::runtime::{cluster_key, thread};
use support::client::Client;
use support::member::{rng, wall};
use support::process::{Process, eventually, run};
use support::{FAST_GOSSIP, NO_GOSSIP, PATIENCE, Scene, about, doubts, of, peer_exe, ports};

fn seed_exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_seed"))
}

/// A directory for key files.
struct KeyRing(tempfile::TempDir);

impl KeyRing {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory can be made"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a plain path").to_owned()
    }

    /// A new key in a file of this name.
    fn make(&self, name: &str) -> String {
        let path = self.path(name);
        let (code, out, err) = run(&seed_exe(), &["keygen", "--cluster-key", &path], self.0.path());
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(out.contains(&path), "{out}");
        path
    }

    /// Puts the keys of these files, in this order, into the file `to`.
    fn arrange(&self, to: &str, names: &[&str]) {
        let text: String =
            names.iter().map(|it| fs::read_to_string(self.path(it)).expect("it is text")).collect();
        fs::write(self.path(to), text).expect("a file can be written");
        let mode = Permissions::from_mode(0o600);
        fs::set_permissions(self.path(to), mode).expect("its mode can be set");
    }

    fn keys(&self, name: &str) -> std::sync::Arc<ClusterKeys> {
        cluster_key::read(Path::new(&self.path(name))).expect("a good key file")
    }
}

/// A fleet whose nodes have the key file `key`, laid out and not started.
fn lay_out(key: &str, seeds: u16, peers: u16, peer_args: &str) -> Scene {
    let seed_args = format!("--cluster-key {key}");
    let peer_args = format!("{peer_args} {seed_args}");
    Scene::lay_out_with(peer_exe(), seeds, peers, (&seed_args, &peer_args))
}

/// `peer members` at this seed, with these flags more.
fn ask(scene: &Scene, at: Endpoint, more: &[&str]) -> (Option<i32>, String, String) {
    let at = at.to_string();
    let args = [&["members", "--json", "--timeout", "30s", "--at", &at], more].concat();
    run(&peer_exe(), &args, scene.fleet.dir())
}

/// Waits until these seeds list exactly `members`.
#[track_caller]
fn await_lists(scene: &Scene, key: &str, seeds: &[Endpoint], members: &[Endpoint]) {
    let mut wanted: Vec<_> = members.iter().map(ToString::to_string).collect();
    wanted.sort_unstable();
    for seed in seeds {
        let mut list = Vec::new();
        let reached = eventually(|| {
            let (code, out, err) = ask(scene, *seed, &["--cluster-key", key]);
            assert_eq!(code, Some(0), "{err}");
            let line = |it: &str| serde_json::from_str::<serde_json::Value>(it).expect("JSON");
            let name = |it: &str| line(it)["endpoint"].as_str().expect("a text").to_owned();
            list = out.lines().map(name).collect();
            list.sort_unstable();
            list == wanted
        });
        assert!(reached, "{seed} lists {list:?}, not {wanted:?}");
    }
}

/// A node that is not of the fleet, but would like to be.
fn outsider(scene: &Scene, exe: &Path, flags: &str) -> Process {
    let dir = scene.fleet.dir();
    let config = scene.fleet.config();
    let config = config.to_str().expect("a plain path");
    let flags = support::words(flags);
    let mut args: Vec<_> = flags.iter().map(String::as_str).collect();
    args.extend(["--config", config, "--data", "elsewhere", "--output", "elsewhere.txt"]);
    Process::start(exe, &args, dir)
}

fn counter(scene: &Scene, node: Endpoint, name: &str) -> u64 {
    scene.status(node)["counters"][name].as_u64().expect("a counter")
}

#[test]
fn holders_of_the_key_are_a_fleet_and_nobody_else_gets_in() {
    let ring = KeyRing::new();
    let (key, wrong) = (ring.make("cluster.key"), ring.make("wrong.key"));
    let mut scene = lay_out(&key, 3, 4, FAST_GOSSIP);
    scene.start_seeds();
    scene.start_peers();
    let (seeds, peers) = (scene.seeds(), scene.peers());
    scene.await_overlay(&peers);
    scene.wait("everybody hears everybody", |lines| {
        peers.iter().all(|peer| {
            let heard = |other: &Endpoint| {
                let is_it = |it: &LogEvent| {
                    of(it, *peer, "gossip_heard") && it.endpoint("origin") == Some(*other)
                };
                other == peer || lines.iter().any(is_it)
            };
            peers.iter().all(heard)
        })
    });

    let port = ports() + 20;
    for (flags, said, refused) in [
        (String::new(), "uses no cluster key", "holders of its cluster key only"),
        (
            format!("--cluster-key {wrong}"),
            "\"this node holds another cluster key\"",
            "holds another cluster key",
        ),
    ] {
        let stranger = outsider(&scene, &peer_exe(), &format!("--port {port} {flags}"));
        // It tries again and again, and complains once.
        let tries = eventually(|| stranger.out().matches("not let in").count() >= 3);
        assert!(tries, "{}", stranger.out());
        let out = stranger.out();
        let complaints: Vec<_> = out.lines().filter(|it| it.contains("WARN")).collect();
        let own: Vec<_> =
            complaints.iter().filter(|it| it.contains("did not listen to this node")).collect();
        assert_eq!(own.len(), 1, "{out}");
        assert!(own[0].contains(said), "{}", own[0]);
        assert_eq!(own[0].matches("--cluster-key").count(), 1, "one remedy: {}", own[0]);
        assert!(!out.contains("registered"), "{out}");
        let flags = support::words(&flags);
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let (code, list, err) = ask(&scene, seeds[0], &flags);
        assert_eq!((code, list.as_str()), (Some(1), ""));
        assert!(err.contains(" refuse"), "{err}");
        assert_eq!(err.matches(refused).count(), 1, "{err}");
        assert!(!err.contains("start the seeds") && err.lines().count() == 1, "{err}");
    }
    assert!(counter(&scene, seeds[0], "refused_keyless") > 0);
    assert!(counter(&scene, seeds[0], "refused_wrong_key") > 0);
    let told =
        |it: &&LogEvent| it.node == seeds[0] && it.message.starts_with("refused a connection");
    let lines = scene.lines();
    let told: Vec<_> = lines.iter().filter(told).map(|it| it.message.as_str()).collect();
    assert_eq!(told.len(), 2, "one of each kind: {told:?}");
    await_lists(&scene, &key, &seeds, &peers);

    let victim = peers[3];
    scene.fleet.kill(victim).expect("it runs");
    scene.wait("every seed removes the dead", |lines| {
        let removed = |seed: &Endpoint| {
            lines.iter().any(|it| it.node == *seed && about(it, victim, "removed"))
        };
        seeds.iter().all(removed)
    });
    await_lists(&scene, &key, &seeds, &peers[..3]);
}

#[test]
fn a_seed_without_the_key_is_alone_and_the_others_go_on() {
    let ring = KeyRing::new();
    let key = ring.make("cluster.key");
    let mut scene = lay_out(&key, 3, 2, NO_GOSSIP);
    let seeds = scene.seeds();
    let odd = outsider(&scene, &seed_exe(), "--id 3");
    scene.start_some_seeds(&seeds[..2]);
    scene.start_peers();
    scene.await_overlay(&scene.peers());
    await_lists(&scene, &key, &seeds[..2], &scene.peers());
    odd.wait_for("no quorum");
    odd.wait_for("did not listen to this node");
    odd.wait_for("it uses a cluster key and this node has none");
    let out = odd.out();
    assert_eq!(out.matches("did not listen to this node").count(), 1, "{out}");
    assert_eq!(out.matches("this node has none").count(), 1, "{out}");
    let (code, _, err) = ask(&scene, seeds[2], &["--cluster-key", &key]);
    assert_eq!(code, Some(1));
    assert!(err.contains("holds no cluster key"), "{err}");
    let (code, list, _) = ask(&scene, seeds[2], &[]);
    assert_eq!((code, list.as_str()), (Some(0), ""), "it knows nobody");
}

#[test]
fn keys_are_changed_node_by_node_and_nobody_is_removed() {
    let ring = KeyRing::new();
    ring.make("old");
    ring.make("new");
    let key = ring.path("cluster.key");
    ring.arrange("cluster.key", &["old"]);
    let mut scene = lay_out(&key, 3, 3, NO_GOSSIP);
    scene.start_seeds();
    scene.start_peers();
    let (seeds, peers) = (scene.seeds(), scene.peers());
    for step in [&["old", "new"][..], &["new", "old"], &["new"]] {
        // A node reads the file when it starts, so that the others still have the step before.
        ring.arrange("cluster.key", step);
        for seed in &seeds {
            assert_eq!(scene.fleet.stop(*seed, PATIENCE).expect("it ends"), Some(0));
            scene.start_some_seeds(&[*seed]);
        }
        for peer in &peers {
            assert_eq!(scene.fleet.stop(*peer, PATIENCE).expect("it ends"), Some(0));
            scene.start_some_peers(&[*peer]);
            // An orderly change waits until a node has found its place again.
            scene.await_overlay(&peers);
        }
        await_lists(&scene, &key, &seeds, &peers);
    }
    let lines = scene.lines();
    let bad = doubts(&lines, &["removed", "suspected", "dead_node", "evicted"]);
    assert!(bad.is_empty(), "{bad:?}");
    let refused: Vec<_> = lines.iter().filter(|it| it.message.contains("cluster key")).collect();
    assert!(refused.is_empty(), "{refused:?}");
    for seed in &seeds {
        let (code, _, err) = ask(&scene, *seed, &["--cluster-key", &ring.path("old")]);
        assert_eq!(code, Some(1));
        assert!(err.contains("holds another cluster key"), "{err}");
    }
}

/// Copies one connection in both directions; what crossed, there and back.
fn relay(from: &TcpListener, to: Endpoint) -> impl FnOnce() -> (Vec<u8>, Vec<u8>) + use<> {
    let from = from.try_clone().expect("a socket can be shared");
    let pump = |mut from: TcpStream, mut to: TcpStream| {
        let copy = move || {
            let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
            while let Ok(len @ 1..) = from.read(&mut chunk) {
                seen.extend_from_slice(&chunk[..len]);
                if to.write_all(&chunk[..len]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
            seen
        };
        thread::spawn("pump", copy).expect("a thread starts")
    };
    let relaying = thread::spawn("relay", move || {
        let (near, _) = from.accept().expect("somebody calls");
        let far = TcpStream::connect(to.socket_addr()).expect("it listens");
        let share = |it: &TcpStream| it.try_clone().expect("a socket can be shared");
        let (there, back) = (pump(share(&near), share(&far)), pump(far, near));
        let join = |it: std::thread::JoinHandle<_>| it.join().expect("it does not panic");
        (join(there), join(back))
    })
    .expect("a thread starts");
    move || relaying.join().expect("it does not panic")
}

/// Sends bytes to a node; what it answers until it closes.
fn say(to: Endpoint, bytes: &[u8], is_all: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(to.socket_addr()).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes options");
    // It may close before it has taken everything.
    let _ = stream.write_all(bytes);
    if is_all {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("it does not close: {error}"),
    }
}

#[test]
fn whoever_is_on_the_path_reads_nothing_and_gets_nowhere() {
    let ring = KeyRing::new();
    let key = ring.make("cluster.key");
    let mut scene = lay_out(&key, 1, 2, NO_GOSSIP);
    scene.start_seeds();
    scene.start_peers();
    let (seed, peers) = (scene.seeds()[0], scene.peers());
    // Two that call each other at once drop one of the links.
    scene.await_overlay(&peers);
    let mark = scene.mark();

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let recorded = relay(&listener, seed);
    let middle = Endpoint::from(listener.local_addr().expect("it is bound"));
    let (code, list, err) = ask(&scene, middle, &["--cluster-key", &key]);
    assert_eq!((code, list.lines().count()), (Some(0), 2), "{err}");
    let (there, back) = recorded();
    for seen in [&there, &back] {
        for word in [&b"\"type\""[..], b"PEER_LIST", b"127.0.0.1"] {
            assert!(!seen.windows(word.len()).any(|it| it == word), "it can be read");
        }
    }

    // The recording gets the second message of a handshake, which is noise to whoever lacks the
    // key, and nothing else; whole, cut anywhere, or with garbage behind.
    let refused = counter(&scene, seed, "refused_frame");
    assert_eq!(say(seed, &there, true).len(), 50);
    for cut in [1, OPENING.len(), OPENING.len() + 1, 40, 66] {
        assert_eq!(say(seed, &there[..cut], true), b"", "cut after {cut} bytes");
    }
    assert_eq!(say(seed, &there[..67], true).len(), 50);
    let huge = [&there[..67], &[0xff; 70_000]].concat();
    assert_eq!(say(seed, &huge, false).len(), 50, "a length that no proof has");
    assert_eq!(say(seed, &[OPENING, &[0xff; 70_000]].concat(), false), b"");
    assert_eq!(say(seed, &[OPENING, b"{\"type\":\"PEER_LIST_REQ\"}\n"].concat(), false), b"");
    assert_eq!(counter(&scene, seed, "refused_frame"), refused + 4);
    let stranger = [OPENING, &[0, 48], &[7; 48]].concat();
    let answer = String::from_utf8(say(seed, &stranger, false)).expect("a plain line");
    assert!(answer.contains("\"code\":\"cluster_key\"") && answer.lines().count() == 1);
    let mut plain = Client::connect(seed);
    let question = b"{\"type\":\"PEER_LIST_REQ\"}\n{\"type\":\"PEER_LIST_REQ\"}\n";
    plain.write(question).expect("it listens");
    assert_eq!(plain.refusal().code, ErrorCode::ClusterKey);
    assert!(plain.rest().is_empty(), "one line for all");

    // A holder of the key who breaks the frames loses its own link.
    for spoil in [&[0, 5, 1, 2, 3][..], &[0, 20], &[0xff; 70_000]] {
        let (mut stream, _) = shake(seed, &ring.keys("cluster.key"));
        // It may close before it has taken everything.
        let _ = stream.write_all(spoil);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = io::copy(&mut stream, &mut io::sink());
    }
    assert_eq!(counter(&scene, seed, "refused_frame"), refused + 6);
    assert_eq!(counter(&scene, seed, "refused_truncated"), 1, "the second was cut short");

    await_lists(&scene, &key, &[seed], &peers);
    let lines = scene.lines();
    let lost = doubts(&lines[mark..], &["unlinked", "suspected"]);
    assert!(lost.is_empty(), "{lost:?}");
}

fn shake(to: Endpoint, keys: &ClusterKeys) -> (TcpStream, Sealed) {
    let mut stream = TcpStream::connect(to.socket_addr()).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes options");
    let sealed = sealed::call(&mut stream, &keys.used()).expect("the key is right");
    (stream, sealed)
}

/// A holder of the cluster key that speaks for itself.
struct Holder {
    stream: TcpStream,
    sealer: Sealer,
    reader: LineReader<PlainOrSealed<TcpStream>>,
}

impl Holder {
    fn send(&mut self, msg: impl Into<Message>) {
        let frames = self.sealer.seal(&encode(&msg.into()));
        self.stream.write_all(&frames).expect("it listens");
    }

    fn receive(&mut self) -> Option<Message> {
        self.reader.read().expect("a message")
    }
}

/// Says HELLO and proves the key of `keys`, on the connection and for the one that is named; the
/// answer to a PING after it.
fn prove(to: Endpoint, cluster: &ClusterKeys, named: Option<Binding>) -> Option<Message> {
    let (stream, sealed) = shake(to, cluster);
    let incoming = PlainOrSealed::new(
        stream.try_clone().expect("a socket can be shared"),
        1_000,
        Some(sealed.opener),
    );
    let reader = LineReader::new(incoming);
    let mut holder = Holder { stream, sealer: sealed.sealer, reader };
    let keys = KeyPair::generate(&mut rng());
    let endpoint = Endpoint::new([127, 0, 0, 9].into(), 9);
    let incarnation = folkmoot::model::Incarnation(wall().0);
    let info = NodeInfo::new(MemberInstance { endpoint, incarnation, key: keys.public() });
    let nonce = Nonce::random(&mut rng());
    holder.send(Hello { version: VERSION, intent: Intent::Link, nonce, info: info.clone() });
    let Some(Message::HelloAck(ack)) = holder.receive() else { panic!("no answer") };
    let statement = |domain: &str, info: &NodeInfo, nonce: &Nonce, challenger, binding: Binding| {
        SigningBytes::new(domain)
            .number(u64::from(VERSION))
            .number(info.seed.map_or(0, |seed| u64::from(seed.0)))
            .endpoint(info.endpoint)
            .incarnation(info.incarnation)
            .key(&info.key)
            .nonce(nonce)
            .key(challenger)
            .bytes(&binding.0)
    };
    let (near, far) = ("folkmoot/hello-proof/1", "folkmoot/hello-ack/1");
    let theirs = statement(far, &ack.info, &nonce, &info.key, sealed.binding);
    assert!(ack.info.key.verifies(&theirs, &ack.proof), "it signs this very connection");
    let named = named.unwrap_or(sealed.binding);
    let ours = statement(near, &info, &ack.nonce, &ack.info.key, named);
    holder.send(HelloProof { proof: keys.sign(&ours) });
    holder.send(Ping { nonce: 7 });
    holder.receive()
}

#[test]
fn a_holder_of_the_key_cannot_pass_on_the_proofs_of_another() {
    let ring = KeyRing::new();
    let key = ring.make("cluster.key");
    let mut scene = lay_out(&key, 1, 0, "");
    scene.start_seeds();
    let (seed, cluster) = (scene.seeds()[0], ring.keys("cluster.key"));
    assert!(matches!(prove(seed, &cluster, None), Some(Message::Pong(pong)) if pong.nonce == 7));
    // As it would be signed on the other side of somebody in the middle.
    let elsewhere = Some(Binding([7; 32]));
    match prove(seed, &cluster, elsewhere) {
        Some(Message::Error(error)) => assert!(error.reason.contains("proof"), "{}", error.reason),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_key_file_that_cannot_be_used_is_refused_in_one_sentence() {
    let ring = KeyRing::new();
    let good = ring.make("good.key");
    let digits = fs::read_to_string(&good).expect("text").lines().last().expect("a key").to_owned();
    fs::write(ring.path("config.txt"), format!("127.0.0.1:{}\n", ports())).expect("written");
    fs::write(ring.path("bad.key"), format!("{}\n", &digits[..40])).expect("written");
    ring.arrange("bad.key", &["bad.key"]);
    ring.make("second");
    ring.make("third");
    ring.arrange("many.key", &["good.key", "second", "third"]);
    ring.arrange("open.key", &["good.key"]);
    let open = ring.path("open.key");
    fs::set_permissions(&open, Permissions::from_mode(0o644)).expect("its mode can be set");
    for (file, told) in [
        ("none.key", "seed keygen --cluster-key"),
        ("bad.key", "line 1: is no cluster key"),
        ("many.key", "line 6: is a third key"),
        ("open.key", "chmod 600"),
    ] {
        let port = (ports() + 9).to_string();
        for (exe, line) in [
            (seed_exe(), &["--id", "1"][..]),
            (peer_exe(), &["--port", &port]),
            (peer_exe(), &["members"]),
        ] {
            let args = [line, &["--cluster-key", file]].concat();
            let (code, out, err) = run(&exe, &args, Path::new(&ring.path("")));
            assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {err}");
            assert!(err.starts_with("error: ") && err.lines().count() == 1, "{err}");
            assert!(err.contains(file) && err.contains(told), "{err}");
            assert!(!err.contains(&digits[..20]), "a secret is not shown");
        }
    }
    assert!(!Path::new(&ring.path("data")).exists(), "nothing was begun");
    let before = fs::read(&good).expect("it is there");
    let (code, _, err) =
        run(&seed_exe(), &["keygen", "--cluster-key", &good], Path::new(&ring.path("")));
    assert_eq!(code, Some(2), "{err}");
    assert_eq!(fs::read(&good).expect("it is there"), before);
}

#[test]
fn a_seed_is_pinned_before_its_first_start_by_the_line_that_keygen_prints() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let first = ports();
    let config = format!("127.0.0.1:{first}\n127.0.0.1:{}\n", first + 1);
    let write = |text: &str| fs::write(dir.path().join("config.txt"), text).expect("written");
    write(&config);
    let keygen = |line: &str| {
        let words = support::words(line);
        let args: Vec<_> = words.iter().map(String::as_str).collect();
        run(&seed_exe(), &args, dir.path())
    };
    let (code, line, err) = keygen("keygen --id 2");
    assert_eq!(code, Some(0));
    assert!(err.contains("in the place of seed 2's line") && err.lines().count() == 1, "{err}");
    let key = line.trim_end().strip_prefix(&format!("127.0.0.1:{} ", first + 1));
    assert!(key.is_some_and(|it| it.len() == 64), "{line}");
    assert_eq!(keygen("keygen --id 2").1, line, "the key that is there is not replaced");
    let file = dir.path().join(format!("data/seed-{}/identity.key", first + 1));
    assert_eq!(fs::metadata(file).expect("it is made").permissions().mode() & 0o777, 0o600);
    let (code, _, err) = keygen("keygen --id 3");
    assert_eq!(code, Some(2));
    assert!(err.contains("2 seeds"), "{err}");
    assert_eq!(keygen(&format!("keygen --id 2 --port {first}")).0, Some(2));

    write(&format!("127.0.0.1:{first}\n{line}"));
    let mut seed = Process::start(&seed_exe(), &["--id", "2"], dir.path());
    seed.wait_for("started as seed 2 of 2");
    assert_eq!(keygen("keygen --id 2").1, line, "it can be asked for while the seed runs");
    seed.signal(rustix::process::Signal::TERM);
    assert_eq!(seed.wait_for_end(), Some(0));
}
