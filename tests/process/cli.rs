//! The command line as people meet it: what is typed wrong, what the machine refuses, what is
//! asked of a running fleet, and the demo.
//!
//! A slip of the user ends with exit code 2, a refusal of the surroundings with 1; either says on
//! standard error, in one sentence, what is wrong and what to do about it.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use folkmoot::model::Endpoint;
use rustix::process::Signal;
use serde_json::Value;
use support::process::{Process, children_of, eventually, is_running, run};
use support::{NO_GOSSIP, Scene, peer_exe, ports, words};

fn seed_exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_seed"))
}

/// A directory with a `config.txt` of three seeds on free ports.
struct Desk {
    dir: tempfile::TempDir,
    first: u16,
}

impl Desk {
    fn new() -> Self {
        let this =
            Self { dir: tempfile::tempdir().expect("a directory can be made"), first: ports() };
        let [one, two, three] = [0, 1, 2].map(|n| this.first + n);
        let config = format!("127.0.0.1:{one}\n127.0.0.1:{two}\n127.0.0.1:{three}\n");
        this.write("config.txt", config);
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the desk")).expect("it can be made");
        fs::write(path, text).expect("a file can be written");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn run(&self, line: &str) -> (Option<i32>, String, String) {
        let line = line.replace("PORT", &(self.first + 9).to_string());
        let words = words(&line);
        let args: Vec<_> = words.iter().skip(1).map(String::as_str).collect();
        run(&exe_of(&words[0]), &args, self.dir.path())
    }

    fn start(&self, line: &str) -> Process {
        let words = words(line);
        let args: Vec<_> = words.iter().skip(1).map(String::as_str).collect();
        Process::start(&exe_of(&words[0]), &args, self.dir.path())
    }

    /// Runs what must fail with `code` and a complaint that holds all of `told`.
    #[track_caller]
    fn fails(&self, line: &str, code: i32, told: &[&str]) {
        let (found, out, err) = self.run(line);
        assert_eq!(found, Some(code), "{line}\nout: {out}\nerr: {err}");
        for part in told {
            assert!(err.contains(part), "{line}: {part:?} is not in\n{err}");
        }
        assert!(err.starts_with("error: "), "{line}: {err}");
        assert!(!err.contains("panicked"), "{line}: {err}");
        assert_eq!(out, "", "{line}: nothing was started");
    }

    /// Asserts that a call fails with one sentence and nothing else.
    #[track_caller]
    fn fails_plainly(&self, line: &str, code: i32, told: &[&str]) {
        self.fails(line, code, told);
        let (_, _, err) = self.run(line);
        assert_eq!(err.lines().count(), 1, "{line}: one sentence, not\n{err}");
    }
}

fn exe_of(name: &str) -> PathBuf {
    if name == "seed" { seed_exe() } else { peer_exe() }
}

// What is typed wrong.

#[test]
fn flags_that_do_not_exist_or_make_no_sense_are_named() {
    let desk = Desk::new();
    for (line, told) in [
        ("peer --prot 6001", &["--prot", "--port"][..]),
        ("seed --id 1 --verbose", &["--verbose", "--help"]),
        ("peer", &["--port"]),
        ("seed", &["--id"]),
        ("seed --id zero", &["--id", "zero"]),
        ("seed --id 0", &["--id", "1"]),
        ("peer --port 70000", &["--port", "70000", "65535"]),
        ("peer --port PORT --ip nowhere", &["--ip", "nowhere"]),
        ("peer --port PORT --gossip-interval 5", &["5s", "unit"]),
        ("peer --port PORT --gossip-interval 0s", &["1ms"]),
        ("peer --port PORT --gossip-max many", &["--gossip-max", "many"]),
        ("peer --port PORT --log-format yaml", &["yaml", "json"]),
        ("peer --port PORT --quorum all", &["all", "byzantine"]),
        ("peer frobnicate", &["frobnicate"]),
        ("peer explain nowhere", &["nowhere"]),
        ("peer topology --json --dot", &["--json", "--dot"]),
        ("peer demo --peers 1", &["--peers", "4"]),
        ("peer --port PORT members", &["members"]),
    ] {
        desk.fails(line, 2, told);
    }
    for (line, told) in [
        ("seed --id 9", &["config.txt", "3 seeds", "9"][..]),
        ("seed --id 1 --port 7", &["seed 1", "127.0.0.1:7"]),
        ("seed --id 1 --ip 127.0.0.2", &["seed 1", "127.0.0.2"]),
        ("peer --port PORT --ip 0.0.0.0", &["--ip", "0.0.0.0"]),
        ("peer --port PORT --links 0", &["--links 0", "at least 1"]),
        ("peer --port PORT --backoff-min 1h", &["--backoff-min", "--backoff-max"]),
        ("peer --port PORT --dials-max 0", &["--dials-max 0", "at least 1"]),
        ("seed --id 1 --members-max 0", &["--members-max 0"]),
        ("peer members --at 9", &["--at 9", "1 to 3"]),
        ("peer members --at nobody", &["--at nobody", "IP:PORT"]),
    ] {
        desk.fails_plainly(line, 2, told);
    }
    let of_seed = format!("peer --port {}", desk.first);
    desk.fails_plainly(&of_seed, 2, &["seed 1", "another --port"]);
    let swapped = format!("seed --id 1 --port {}", desk.first + 1);
    desk.fails_plainly(&swapped, 2, &["seed 2", "--id 2"]);
}

#[test]
fn a_config_that_cannot_be_used_is_named_with_line_and_reason() {
    let desk = Desk::new();
    desk.fails_plainly("peer --port PORT --config no.txt", 2, &["no.txt", "--config"]);
    desk.fails_plainly("seed --id 1 --config .", 2, &["--config"]);
    let key = "ab".repeat(32);
    let pinned_twice = format!("127.0.0.1:1:{key}\n127.0.0.1:2:{key}\n");
    let too_long = "127.0.0.1:1\n".repeat(90_000);
    let too_many = (1..=65).map(|port| format!("127.0.0.1:{port}\n")).collect::<String>();
    for (text, told) in [
        ("", "lists no seed"),
        ("# nobody\n\n", "lists no seed"),
        ("127.0.0.1\n", "bad.txt, line 1: "),
        ("127.0.0.1:5001\n\n127.0.0.1:port\n", "bad.txt, line 3: \"port\" is no port"),
        ("127.0.0.1:5001\nlocalhost:5002\n", "bad.txt, line 2: \"localhost\" is no IP address"),
        ("127.0.0.1:0\n", "bad.txt, line 1: \"0\" is no port"),
        ("127.0.0.1:65536\n", "bad.txt, line 1: \"65536\" is no port"),
        ("300.0.0.1:5001\n", "bad.txt, line 1: \"300.0.0.1\" is no IP address"),
        ("0.0.0.0:5001\n", "bad.txt, line 1: 0.0.0.0 cannot be called"),
        ("127.0.0.1:5001:beef\n", "bad.txt, line 1: \"beef\" is no public key"),
        (
            "127.0.0.1:5001\n127.0.0.1,5001\n",
            "bad.txt, line 2: 127.0.0.1:5001 was listed in line 1",
        ),
        ("::1:5001\n", "in brackets"),
        (&pinned_twice, "bad.txt, line 2: line 1 pins the same key"),
        (&too_many, "bad.txt, line 65: "),
        (&too_long, "larger than 1 MiB"),
    ] {
        desk.write("bad.txt", text);
        for line in ["seed --id 1", "peer --port PORT", "peer members"] {
            desk.fails_plainly(&format!("{line} --config bad.txt"), 2, &["bad.txt", told]);
        }
    }
    desk.write("bad.txt", b"127.0.0.1:5001 \xff\xfe\n");
    desk.fails_plainly("seed --id 1 --config bad.txt", 2, &["bad.txt", "UTF-8"]);
}

#[test]
fn every_usual_way_to_write_the_config_starts_a_seed() {
    for text in [
        "127.0.0.1:PORT",
        "127.0.0.1:PORT\n",
        "127.0.0.1,PORT\n",
        "127.0.0.1 PORT\n",
        "\t127.0.0.1\t\tPORT\t\n",
        "# the seeds\n\n  127.0.0.1 : PORT   # the only one\n",
        "ip,port\n127.0.0.1,PORT\n",
        "127.0.0.1:PORT\r\n",
        "\u{feff}127.0.0.1:PORT\n",
    ] {
        let desk = Desk::new();
        let port = desk.first.to_string();
        desk.write("config.txt", text.replace("PORT", &port));
        let mut seed = desk.start("seed --id 1");
        seed.wait_for("started as seed 1 of 1");
        seed.wait_for("votes from now on");
        seed.signal(Signal::INT);
        assert_eq!(seed.wait_for_end(), Some(0), "{text:?}");
        assert!(desk.read("outputfile.txt").contains("started as seed 1"), "{text:?}");
    }
}

// What the machine refuses.

#[test]
fn what_the_machine_refuses_is_said_with_a_remedy() {
    let desk = Desk::new();
    let port = desk.first;
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let address = format!("127.0.0.1:{port}");
    desk.fails_plainly("seed --id 1", 1, &[&address, "stop the process", "another port"]);
    drop(taken);
    desk.fails_plainly("peer --port PORT --ip 192.0.2.1", 1, &["192.0.2.1", "address that this"]);

    fs::create_dir(desk.path("folder")).expect("a folder can be made");
    desk.fails_plainly("seed --id 1 --output folder", 1, &["folder", "--output"]);
    desk.fails_plainly("seed --id 1 --output no/such/file", 1, &["no/such/file", "--output"]);
    desk.write("file", "no directory");
    desk.fails_plainly("seed --id 1 --data file", 1, &["file", "cannot create"]);

    let key = format!("data/seed-{port}/identity.key");
    desk.write(&key, "zz\n");
    set_mode(&desk.path(&key), 0o600);
    desk.fails_plainly("seed --id 1", 1, &["identity.key", "64 hexadecimal digits", "delete it"]);
    desk.write(&key, "ab".repeat(32));
    set_mode(&desk.path(&key), 0o644);
    desk.fails_plainly("seed --id 1", 1, &["identity.key", "chmod 600"]);
    set_mode(&desk.path(&key), 0o600);

    let pinned = format!("127.0.0.1:{port}:{}\n", "cd".repeat(32));
    desk.write("pinned.txt", pinned);
    desk.fails_plainly("seed --id 1 --config pinned.txt", 2, &["pins the key", "identity.key"]);
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[test]
fn two_nodes_do_not_share_a_data_directory() {
    let desk = Desk::new();
    let port = desk.first + 9;
    let peer = desk.start(&format!("peer --port {port}"));
    peer.wait_for("started with the key");
    let other = format!("peer --port {port} --ip 127.0.0.2");
    desk.fails_plainly(&other, 1, &["another process uses", "data directory"]);
    desk.fails_plainly(&format!("peer --port {port}"), 1, &["stop the process"]);
}

#[test]
fn a_journal_is_cut_where_a_crash_tore_it_and_refused_where_it_is_corrupt() {
    let desk = Desk::new();
    desk.write("config.txt", format!("127.0.0.1:{}\n", desk.first));
    let journal = format!("data/seed-{}/journal.log", desk.first);
    let mut seed = desk.start("seed --id 1");
    seed.wait_for("votes from now on");
    for number in 1..=2 {
        let mut peer = desk.start(&format!("peer --port {} {NO_GOSSIP}", desk.first + number));
        peer.wait_for("approved: registered");
        peer.signal(Signal::TERM);
        assert_eq!(peer.wait_for_end(), Some(0));
    }
    seed.signal(Signal::KILL);
    seed.wait_for_end();
    let whole = desk.read(&journal);
    let lines = whole.lines().count();
    assert!(lines >= 6, "two votes, two admissions, two goodbyes: {whole}");

    // A crash in the middle of the last record.
    desk.write(&journal, format!("{whole}{}", &whole[..12]));
    let seed = desk.start("seed --id 1");
    seed.wait_for("started as seed 1");
    seed.wait_for("was torn by a crash");
    drop(seed);
    // It votes again only after it has compared its registry: alone, at once.
    let kept = desk.read(&journal);
    let records = |text: &str| -> Vec<String> {
        let is_mark = |line: &&str| line.contains("{\"synced\":");
        text.lines().filter(|line| !is_mark(line)).map(str::to_owned).collect()
    };
    let mut expected = records(&whole);
    let ready = expected.iter().find(|line| line.contains("\"ready\"")).expect("it was ready");
    expected.push(ready.clone());
    assert_eq!(records(&kept), expected, "what was torn is gone");

    let broken = whole.replacen("\"voted\"", "\"vuted\"", 1);
    assert_ne!(broken, whole);
    desk.write(&journal, &broken);
    let at = 1 + whole.lines().position(|line| line.contains("\"voted\"")).expect("a vote");
    let told = format!("journal.log is corrupt at line {at}");
    desk.fails_plainly("seed --id 1", 1, &[&told, "Move it away"]);
    assert_eq!(desk.read(&journal), broken, "it is left as it was found");
}

// Questions.

/// Runs a question to a scene's fleet that must be answered.
#[track_caller]
fn ask(scene: &Scene, line: &str) -> String {
    let words = words(line);
    let args: Vec<_> = words.iter().map(String::as_str).collect();
    let (code, out, err) = run(&peer_exe(), &args, scene.fleet.dir());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{line}");
    assert!(out.ends_with('\n'), "{line}: {out:?}");
    out
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn a_fleet_answers_questions() {
    let mut scene = Scene::up(3, 4, NO_GOSSIP);
    let peers = scene.peers();
    scene.fleet.kill(peers[3]).expect("it runs");
    scene.await_lists(&peers[..3]);
    let text = |endpoint: Endpoint| endpoint.to_string();

    let members = ask(&scene, "members");
    assert!(peers[..3].iter().all(|it| members.contains(&text(*it))), "{members}");
    assert!(!members.contains(&text(peers[3])), "{members}");
    let found = json_lines(&ask(&scene, "members --json"));
    let listed: Vec<_> = found.iter().map(|it| it["endpoint"].as_str().unwrap_or("")).collect();
    assert_eq!(listed, peers[..3].iter().map(|it| text(*it)).collect::<Vec<_>>());
    let all = json_lines(&ask(&scene, "members --all --json --at 2"));
    assert!(all.iter().any(|it| it["status"] == "removed"), "{all:?}");

    assert!(eventually(|| {
        // Seeds hear of a peer's links a moment after its neighbors do.
        let topology = json_lines(&ask(&scene, "topology --json"));
        topology.len() == 3 && topology.iter().all(|it| it["degree"].as_u64() >= Some(1))
    }));
    assert!(ask(&scene, "topology").contains(&text(peers[0])));
    let dot = ask(&scene, "topology --dot");
    assert!(dot.trim_start().starts_with("graph") && dot.trim_end().ends_with('}'), "{dot}");
    assert!(dot.contains("--"), "{dot}");

    let status = ask(&scene, &format!("status --port {}", peers[0].port()));
    assert!(status.contains("member") && status.contains("neighbors"), "{status}");
    assert_eq!(scene.status(scene.seeds()[0])["members"], 3);
    assert_eq!(scene.status(peers[0])["state"], "member");

    let alive = ask(&scene, &format!("explain {}", peers[0]));
    assert!(alive.contains("is a member since") && alive.contains("said yes"), "{alive}");
    let dead = ask(&scene, &format!("explain {}", peers[3]));
    for part in ["removed as dead", "accused by", "confirmed by", "said yes", "nobody listens"] {
        assert!(dead.contains(part), "{part:?} is not in\n{dead}");
    }
    let json: Value =
        serde_json::from_str(&ask(&scene, &format!("explain {} --json", peers[3]))).expect("JSON");
    assert!(json["lives"][0]["removal"]["votes"].as_array().is_some_and(|it| it.len() >= 2));
    assert!(ask(&scene, "explain 127.0.0.1:9").contains("never a member"));

    let left = ask(&scene, &format!("leave --port {}", peers[2].port()));
    assert!(left.contains("said goodbye"), "{left}");
    scene.await_lists(&peers[..2]);
    let explained = ask(&scene, &format!("explain {}", peers[2]));
    assert!(explained.contains("left by its own"), "{explained}");
}

#[test]
fn questions_that_nobody_can_answer_say_so() {
    let desk = Desk::new();
    for line in ["peer members", "peer topology --dot", "peer explain 127.0.0.1:9 --json"] {
        desk.fails_plainly(line, 1, &["no seed answered", "nobody listens", "start the seeds"]);
    }
    desk.fails_plainly("peer members --at 2", 1, &["seed 2"]);
    desk.fails_plainly("peer status", 1, &["data", "--data"]);
    desk.fails_plainly("peer status --port PORT", 1, &["--port", "--data"]);
    desk.fails_plainly("peer leave --port PORT", 1, &["--port", "--data"]);
    let seed = desk.start("seed --id 1");
    seed.wait_for("started as seed 1");
    assert!(eventually(|| desk.run("peer status").0 == Some(0)));
    let of_seed = format!("peer leave --port {}", desk.first);
    desk.fails_plainly(&of_seed, 1, &["a seed does not leave"]);
    drop(seed);
    let gone = format!("peer status --port {}", desk.first);
    desk.fails_plainly(&gone, 1, &["does not run"]);
}

/// The flags in a help text that take a value, each with the text up to the next flag.
fn flags_with_values(help: &str) -> Vec<String> {
    let mut flags: Vec<String> = Vec::new();
    for line in help.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("--") && line.starts_with(' ') {
            flags.push(trimmed.to_owned());
        } else if let (Some(last), true) = (flags.last_mut(), line.starts_with(' ')) {
            last.push(' ');
            last.push_str(trimmed);
        }
    }
    flags.into_iter().filter(|flag| flag.contains('<')).collect()
}

#[test]
fn help_names_every_flag_with_its_default() {
    let desk = Desk::new();
    for line in [
        "seed --help",
        "peer --help",
        "peer members --help",
        "peer topology --help",
        "peer explain --help",
        "peer status --help",
        "peer leave --help",
        "peer demo --help",
        "peer bench --help",
        "peer bench membership --help",
        "peer bench gossip --help",
        "peer bench registrations --help",
        "peer bench crypto --help",
    ] {
        let (code, out, err) = desk.run(line);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{line}");
        assert!(out.contains("Usage:"), "{line}: {out}");
        for flag in flags_with_values(&out) {
            let is_required = ["--id ", "--port <P>"].iter().any(|it| flag.starts_with(it));
            assert!(is_required || flag.contains("[default: "), "{line}: no default: {flag}");
        }
    }
    let (code, out, _) = desk.run("peer --version");
    assert!(code == Some(0) && out.starts_with("peer "), "{out}");
}

// The demo.

#[test]
fn the_demo_shows_everything_and_leaves_no_process_behind() {
    let desk = Desk::new();
    let mut demo = desk.start("peer demo --peers 5 --output run.txt");
    demo.wait_for("everybody has two or more");
    let children = children_of(demo.pid());
    assert_eq!(children.len(), 8, "three seeds and five peers");
    let code = demo.wait_for_end();
    let out = demo.out();
    assert_eq!((code, demo.err().as_str()), (Some(0), ""), "{out}");
    assert!(!out.contains("FAIL"), "{out}");
    assert!(children.iter().all(|pid| !is_running(*pid)), "{children:?}");
    let run = desk.read("run.txt");
    assert!(run.contains("Dead Node:127.0.0.1:"), "the run is left in the output file");
}

#[test]
fn a_demo_that_is_interrupted_leaves_no_process_behind() {
    for (signal, code) in [(Signal::INT, Some(1)), (Signal::KILL, None)] {
        let desk = Desk::new();
        let mut demo = desk.start("peer demo --peers 4 --output run.txt");
        demo.wait_for("Peers ask to be let in");
        let children = children_of(demo.pid());
        assert!(children.len() >= 3, "{children:?}");
        demo.signal(signal);
        assert_eq!(demo.wait_for_end(), code, "{}", demo.err());
        if code.is_some() {
            assert!(demo.err().contains("interrupted"), "{}", demo.err());
            assert!(children.iter().all(|pid| !is_running(*pid)), "{children:?}");
        }
        assert!(eventually(|| children.iter().all(|pid| !is_running(*pid))), "{children:?}");
    }
}

// Measurements.

#[test]
fn what_cannot_be_measured_is_refused_before_anything_starts() {
    let desk = Desk::new();
    for (line, complaint) in [
        ("peer bench membership --peers 10 --kill-many 8", "at most 7 can die at once"),
        ("peer bench membership --peers 1", "1 is not in 2..=2000"),
        ("peer bench membership --at-once 0", "0 is not in 1..=2000"),
        ("peer bench gossip --peers 2", "2 is not in 3..=1000"),
        ("peer bench gossip --peers 5 --publishers 5", "at least one peer must be left"),
        ("peer bench gossip --size 7", "7 is not in 8..=65536"),
        ("peer bench registrations --applicants 0", "0 is not in 1..=2000"),
        ("peer bench registrations --at-once 201", "201 is not in 1..=200"),
        ("peer bench crypto --span soon", "soon"),
    ] {
        let (code, out, err) = desk.run(line);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{line}");
        assert!(err.contains(complaint), "{line}: {err}");
    }
}

/// The lines of a measurement, by their metric.
fn figures(out: &str) -> BTreeMap<String, Value> {
    let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
    lines.map(|line| (line["metric"].as_str().expect("a metric").to_owned(), line)).collect()
}

#[test]
fn a_small_measurement_of_registrations_and_proofs_says_what_was_measured() {
    let desk = Desk::new();
    let (code, out, err) =
        desk.run("peer bench registrations --applicants 5 --at-once 2 --seeds 2");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let found = figures(&out);
    assert_eq!(found["asked_to_admitted_ms"]["n"], 5);
    let rate = &found["registrations_a_second"];
    assert!(rate["value"].as_f64().is_some_and(|rate| rate > 0.0), "{rate}");
    assert!(rate["target"] == "at least 500" && rate["met"].is_boolean(), "{rate}");
    assert_eq!(found["resident_mib_seed"]["n"], 2);
    assert_eq!(found["refusals"]["n"], 0);

    let (code, out, err) = desk.run("peer bench crypto --span 10ms");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let found = figures(&out);
    assert_eq!(found.len(), 5, "{out}");
    let rate = |metric: &str| found[metric]["value"].as_f64().expect("a rate");
    assert!(rate("certificates_a_second_5_of_7") > 0.0 && rate("signatures_a_second") > 0.0);
}

#[test]
fn a_small_fleet_is_measured_with_deaths_at_once_on_a_machine_without_rest() {
    let desk = Desk::new();
    let (code, out, err) = desk.run(
        "peer bench membership --peers 6 --kills 1 --stops 0 --kill-many 2 --idle 1s --overload",
    );
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let found = figures(&out);
    assert_eq!(found["kill_many_to_removed_at_every_seed_ms"]["n"], 2);
    assert!(found["kill_many_to_removed_at_every_seed_ms"]["overload"].as_u64() > Some(0));
    assert_eq!(found["idle_cpu_percent_of_a_core_mean_of_peers"]["overload"], 0);
    assert_eq!((&found["removals"]["deaths"], &found["removals"]["wrong"]), (&3.into(), &0.into()));
    assert_eq!(found["anti_entropy_bytes_a_round"]["met"], true);
}

#[test]
fn a_small_measurement_of_the_broadcast_says_how_soon_how_often_and_how_many() {
    let desk = Desk::new();
    let (code, out, err) = desk.run(
        "peer bench gossip --peers 3 --publishers 2 --messages 5 --step 300ms --rate 20 \
         --rate-max 20",
    );
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let found = figures(&out);
    assert_eq!(found["publish_to_last_delivery_ms"]["n"], 5);
    let p99 = &found["publish_to_last_delivery_ms_p99"];
    assert!(p99["value"].as_f64() > Some(0.0) && p99["target"] == "at most 250", "{p99}");
    let copies = &found["copies_per_delivery"];
    assert!(copies["value"].as_f64() >= Some(1.0) && copies["met"].is_boolean(), "{copies}");
    assert_eq!(found["delivered_share"]["value"], 1.0);
    // Five messages, each heard by its publisher too.
    let delivered = &found["delivered"];
    assert_eq!((&delivered["heard"], &delivered["deliveries"]), (&15.into(), &10.into()));
    let rates: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .filter(|line: &serde_json::Value| line["metric"] == "rate")
        .collect();
    let publishers: Vec<_> = rates.iter().map(|it| it["publishers"].as_u64()).collect();
    assert_eq!(publishers, [Some(1), Some(2)], "{out}");
    for rate in rates {
        assert!(rate["messages"].as_u64() > Some(0), "{rate}");
        assert!(rate["good"].is_boolean() && rate["complaints"].is_array(), "{rate}");
    }
    for metric in ["messages_per_s", "deliveries_per_s", "cpu_us_per_delivery"] {
        assert_eq!(found[metric]["publishers"], 2, "{metric}: {out}");
    }
}

#[test]
fn a_second_signal_ends_a_node_at_once() {
    let desk = Desk::new();
    let mut seed = desk.start("seed --id 1");
    seed.wait_for("started as seed 1");
    seed.signal(Signal::TERM);
    seed.signal(Signal::TERM);
    let code = seed.wait_for_end();
    assert!([Some(0), Some(130)].contains(&code), "{code:?}");
}
