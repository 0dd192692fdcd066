//! Nodes as services run them: signals, rotated log files, volumes of container systems, closed
//! terminals, and versions that are newer than this one.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, says that it is skipped, and waits for one answer"
)]

use crate::support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use folkmoot::proto::liveness::Ping;
use folkmoot::proto::message::Message;
use rustix::process::Signal;
use support::member::Member;
use support::process::{Process, eventually, run};
use support::{NO_GOSSIP, PATIENCE, Scene, about, of, peer_exe, ports};

fn seed_exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_seed"))
}

/// A folder with a `config.txt` of one seed, and its port.
fn desk() -> (tempfile::TempDir, u16) {
    let dir = tempfile::tempdir().unwrap();
    let port = ports();
    fs::write(dir.path().join("config.txt"), format!("127.0.0.1:{port}\n")).unwrap();
    (dir, port)
}

/// Has children start with the usual disposition of SIGHUP, which `nohup` makes the tests ignore: a
/// signal that a process catches is not ignored by the programs that it starts.
fn heed_hangups() {
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default()).unwrap();
}

/// True if a holder of this key file gets an answer of the seed.
fn answers(dir: &Path, port: u16, key: &str) -> bool {
    let at = format!("127.0.0.1:{port}");
    run(&peer_exe(), &["members", "--at", &at, "--cluster-key", key], dir).0 == Some(0)
}

#[test]
fn a_hangup_ends_nobody_and_has_the_cluster_key_read_again() {
    heed_hangups();
    let (dir, port) = desk();
    for name in ["used.key", "other.key"] {
        run(&seed_exe(), &["keygen", "--cluster-key", name], dir.path());
    }
    let args = ["--id", "1", "--cluster-key", "used.key"];
    let seed = Process::start(&seed_exe(), &args, dir.path());
    seed.wait_for("started as seed 1");
    assert!(answers(dir.path(), port, "used.key") && !answers(dir.path(), port, "other.key"));
    fs::copy(dir.path().join("other.key"), dir.path().join("used.key")).unwrap();
    seed.signal(Signal::HUP);
    seed.wait_for("the cluster key was read again");
    assert!(answers(dir.path(), port, "other.key"));
    fs::write(dir.path().join("used.key"), "no key\n").unwrap();
    seed.signal(Signal::HUP);
    seed.wait_for("the cluster key stays as it was");
    assert!(answers(dir.path(), port, "other.key"));
}

/// `nohup` starts a program so.
#[test]
fn a_node_that_was_started_to_ignore_hangups_ignores_them() {
    let (dir, port) = desk();
    let line = format!("trap '' HUP; exec {} --id 1", seed_exe().display());
    let mut seed = Process::start(Path::new("/bin/sh"), &["-c", &line], dir.path());
    seed.wait_for("started as seed 1");
    seed.signal(Signal::HUP);
    let at = format!("127.0.0.1:{port}");
    assert_eq!(run(&peer_exe(), &["members", "--at", &at], dir.path()).0, Some(0));
    seed.signal(Signal::TERM);
    assert_eq!(seed.wait_for_end(), Some(0));
    assert!(!seed.out().contains("SIGHUP"), "{}", seed.out());
}

#[test]
fn a_log_file_that_was_renamed_or_removed_is_made_anew() {
    heed_hangups();
    let (dir, _) = desk();
    let seed = Process::start(&seed_exe(), &["--id", "1", "--output", "seed.log"], dir.path());
    seed.wait_for("started as seed 1");
    let (log, old) = (dir.path().join("seed.log"), dir.path().join("seed.log.1"));
    let said = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    fs::rename(&log, &old).unwrap();
    seed.signal(Signal::HUP);
    assert!(eventually(|| said(&log).contains("SIGHUP")), "{}", seed.out());
    assert!(said(&old).contains("started as seed 1") && !said(&old).contains("SIGHUP"));
    fs::remove_file(&log).unwrap();
    seed.signal(Signal::HUP);
    assert!(eventually(|| said(&log).contains("SIGHUP")), "{}", seed.out());
}

#[test]
fn volumes_and_secrets_that_are_open_to_ones_own_group_are_taken() {
    let (dir, port) = desk();
    run(&seed_exe(), &["keygen", "--cluster-key", "fleet.key"], dir.path());
    let args = ["--id", "1", "--cluster-key", "fleet.key"];
    let first = Process::start(&seed_exe(), &args, dir.path());
    first.wait_for("started as seed 1");
    drop(first);
    let data = dir.path().join(format!("data/seed-{port}"));
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    set(&data, 0o2770);
    set(&data.join("identity.key"), 0o660);
    set(&dir.path().join("fleet.key"), 0o440);
    let mut second = Process::start(&seed_exe(), &args, dir.path());
    second.wait_for("started as seed 1");
    let warned = format!("{}{}", second.out(), second.err());
    assert_eq!(warned.matches("is open to the group").count(), 1, "{warned}");
    second.signal(Signal::TERM);
    assert_eq!(second.wait_for_end(), Some(0));
    // Anybody else is still nobody's friend.
    for (path, mode, told) in [
        (data.clone(), 0o2777, "others may replace what is in"),
        (data.join("identity.key"), 0o664, "others may read or change the secret key"),
        (dir.path().join("fleet.key"), 0o444, "others may read or change this cluster key"),
    ] {
        let before = fs::metadata(&path).unwrap().permissions();
        set(&path, mode);
        let (code, _, err) = run(&seed_exe(), &args, dir.path());
        assert!(code != Some(0) && err.contains(told), "{err}");
        fs::set_permissions(&path, before).unwrap();
    }
}

#[test]
fn a_record_of_a_newer_version_is_called_that() {
    let (dir, port) = desk();
    let folder = dir.path().join(format!("data/seed-{port}"));
    fs::create_dir_all(&folder).unwrap();
    let json = r#"{"record":"cohort","number":7}"#;
    let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    let journal = folder.join("journal.log");
    fs::write(&journal, &line).unwrap();
    let (code, _, err) = run(&seed_exe(), &["--id", "1"], dir.path());
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("a newer version has written it") && !err.contains("corrupt"), "{err}");
    assert_eq!(fs::read_to_string(&journal).unwrap(), line, "it is left as it is");
}

/// A peer whose terminal is closed says goodbye, as when it is asked to end.
#[test]
fn a_peer_whose_terminal_is_closed_says_goodbye() {
    heed_hangups();
    let mut scene = Scene::up(1, 2, NO_GOSSIP);
    let peers = scene.peers();
    let left = peers[1];
    scene.fleet.stop(left, PATIENCE).unwrap();
    let (config, dir) = (scene.fleet.config(), scene.fleet.dir().to_owned());
    let line = format!(
        "exec {} --port {} --config {} --output {}",
        peer_exe().display(),
        left.port(),
        config.display(),
        dir.join("closed.log").display()
    );
    let log = || fs::read_to_string(dir.join("closed.log")).unwrap_or_default();
    let Ok(mut terminal) = std::process::Command::new("script")
        .args(["-q", "-c", &line, "/dev/null"])
        .current_dir(&dir)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
    else {
        return eprintln!("skipped: there is no `script` here, which makes terminals");
    };
    assert!(eventually(|| log().contains("approved: registered")), "{}", log());
    let mark = scene.mark();
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    scene.wait("it has left", |lines| {
        lines[mark..].iter().any(|it| it.is("seed", "left") && about(it, left, "left"))
    });
    assert!(eventually(|| log().contains("the closing of its terminal")), "{}", log());
}

/// A member of a newer version says words that this one does not know, and stays linked.
#[test]
fn unknown_words_of_a_member_do_not_end_its_link() {
    let mut scene = Scene::up(1, 1, NO_GOSSIP);
    let (seed, member) = (scene.seeds()[0], Member::admitted(&scene.seeds()));
    let link = &member.seeds[0];
    for number in 0..40 {
        link.say(&format!("{{\"type\":\"WAVE\",\"number\":{number}}}"));
    }
    let nonce = 4_711;
    link.send(Ping { nonce });
    link.await_msg("answer", |msg| match msg {
        Message::Pong(pong) => (pong.nonce == nonce).then_some(()),
        _ => None,
    });
    let refused = scene.lines().iter().filter(|it| of(it, seed, "refused")).count();
    assert!(refused <= 1, "it is told once");
}
