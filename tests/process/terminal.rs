//! `peer chat` at its edges to people and the system: on a terminal and where that is none, by a
//! pipe, with names that do not resolve, deep in a file system, and with few files to open.

use crate::support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::SigSet;
use nix::sys::signal::Signal::{SIGTERM, SIGTSTP};
use rustix::process::Signal;
use support::process::{Process, eventually, run};
use support::terminal::OnTerminal;
use support::{peer_exe, ports};

fn chat(dir: &Path, port: u16, term: &str) -> OnTerminal {
    let port = port.to_string();
    let args = ["chat", "--id", "1", "--port", &port, "--host", "127.0.0.1"];
    let it = OnTerminal::start(&peer_exe(), &args, dir, term);
    it.wait_for("peer_1");
    it
}

/// The texts that are final, the oldest first.
fn texts(dir: &Path) -> Vec<String> {
    let (code, out, err) = run(&peer_exe(), &["chat", "history", "100", "--json"], dir);
    assert_eq!(code, Some(0), "{err}");
    let entries: Vec<serde_json::Value> = serde_json::from_str(&out).expect("it is JSON");
    entries.iter().filter_map(|it| it["payload"].as_str()).map(str::to_owned).collect()
}

#[track_caller]
fn await_texts(dir: &Path, expected: &[&str]) {
    assert!(eventually(|| texts(dir) == expected), "{:?}", texts(dir));
}

#[test]
fn pasted_lines_keep_their_words_apart_whatever_ends_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut it = chat(dir.path(), ports(), "xterm-256color");
    it.wait_for("leads");
    it.type_keys("\x1b[200~first line\rsecond line\r\nthird\nfourth\x1b[201~\r");
    await_texts(dir.path(), &["first line second line third fourth"]);
}

#[test]
fn a_long_text_that_comes_as_keys_at_once_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut it = chat(dir.path(), ports(), "xterm-256color");
    it.wait_for("leads");
    let text = "word ".repeat(3_200);
    // The end of the line comes with the burst: nothing after it wakes who reads keys.
    it.type_keys(&format!("{text}\r"));
    await_texts(dir.path(), &[&text]);
}

#[test]
fn a_stopped_chat_has_its_terminal_again_when_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut it = chat(dir.path(), ports(), "xterm-256color");
    assert!(eventually(|| it.is_raw()));
    for how in ["SIGTSTP", "SIGSTOP", "Ctrl-Z"] {
        match how {
            "SIGTSTP" => it.signal(Signal::TSTP),
            "SIGSTOP" => it.signal(Signal::STOP),
            _ => it.type_keys("\x1a"),
        }
        assert!(eventually(|| it.is_stopped()), "{how}");
        if how != "SIGSTOP" {
            assert!(!it.is_raw(), "{how}: it has given the terminal back");
            it.wait_for("\x1b[?1049l");
        }
        it.cook();
        it.forget();
        it.signal(Signal::CONT);
        assert!(eventually(|| it.is_raw()), "{how}");
        it.wait_for("peer_1");
    }
    it.type_keys("still here\r");
    await_texts(dir.path(), &["still here"]);
    it.type_keys("/quit\r");
    assert_eq!(it.wait_for_end(), Some(0));
    assert!(!it.is_raw());
}

#[test]
fn a_chat_whose_parent_has_blocked_its_signals_takes_them_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = SigSet::from_iter([SIGTSTP, SIGTERM]);
    // A child inherits the signals that are blocked in the thread that starts it.
    blocked.thread_block().unwrap();
    let mut it = chat(dir.path(), ports(), "xterm-256color");
    blocked.thread_unblock().unwrap();
    it.signal(Signal::TSTP);
    assert!(eventually(|| it.is_stopped()));
    it.signal(Signal::CONT);
    it.signal(Signal::TERM);
    assert_eq!(it.wait_for_end(), Some(0));
}

#[test]
fn a_terminal_that_understands_no_control_sequences_gets_none() {
    for term in ["dumb", ""] {
        let dir = tempfile::tempdir().unwrap();
        let mut it = chat(dir.path(), ports(), term);
        it.wait_for("leads");
        it.type_keys("hello\n");
        it.wait_for("<peer_1>: hello");
        it.type_keys("/quit\n");
        assert_eq!(it.wait_for_end(), Some(0));
        assert!(!it.written().contains('\x1b'), "{term:?}: {:?}", it.written());
    }
}

#[test]
fn pasted_lines_that_hold_a_removal_remove_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let base = ports();
    let mut one = chat(dir.path(), base, "xterm-256color");
    one.wait_for("leads");
    let (port, seed) = ((base + 1).to_string(), format!("1:127.0.0.1:{base}"));
    let args = ["chat", "--id", "2", "--port", &port, "--seed", &seed, "--stay", "--plain"];
    let mut two = Process::start(&peer_exe(), &args, dir.path());
    one.wait_for("has joined the group");
    one.type_keys("see the manual:\r/remove 2\rand so on\r");
    assert!(eventually(|| two.out().contains("<peer_1>: and so on")), "{}", two.out());
    assert!(!two.out().contains("removed"), "{}", two.out());
    one.type_keys("/remove 2\r");
    one.wait_for("yes peer_2");
    one.type_keys("yes peer_2\r");
    assert_eq!(two.wait_for_end(), Some(1), "{}", two.err());
}

#[test]
fn a_node_on_a_terminal_logs_short_lines_and_whole_ones_to_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let port = ports().to_string();
    let args = ["--port", &port, "--open", "--gossip-max", "0"];
    let mut node = OnTerminal::start(&peer_exe(), &args, dir.path(), "dumb");
    node.wait_for(&format!(" INFO  peer:{port} started with the key "));
    node.signal(Signal::TERM);
    assert_eq!(node.wait_for_end(), Some(0));
    let shown = node.written();
    assert!(shown.starts_with(&format!("peer 127.0.0.1:{port}; times are UTC")), "{shown}");
    assert!(!shown.contains('\x1b') && !shown.contains("Z INFO"), "{shown:?}");
    let kept = fs::read_to_string(dir.path().join("outputfile.txt")).unwrap();
    let whole = format!("Z INFO  peer 127.0.0.1:{port} ");
    assert!(kept.lines().count() > 2 && kept.lines().all(|it| it.contains(&whole)), "{kept}");
    let mut colored = OnTerminal::start(&peer_exe(), &args, dir.path(), "xterm-256color");
    colored.wait_for("started with the key");
    let has_colors = std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    assert_eq!(colored.written().contains("\x1b[32mINFO \x1b[0m peer:"), has_colors);
    colored.signal(Signal::TERM);
    assert_eq!(colored.wait_for_end(), Some(0));
}

#[test]
fn a_script_whose_line_is_no_text_learns_which_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let port = ports().to_string();
    let mut child = Command::new(peer_exe())
        .args(["chat", "--id", "1", "--host", "127.0.0.1", "--port", &port])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(File::create(dir.path().join("out")).unwrap())
        .stderr(File::create(dir.path().join("err")).unwrap())
        .spawn()
        .unwrap();
    let mut input = b"first\ncaf\xe9 \xff\xfe\n".to_vec();
    input.extend([b'x'; 17_000]);
    input.extend(b"\nlast\n");
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let code = child.wait().unwrap().code();
    let said = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(code, Some(4), "{}", said("err"));
    assert!(said("err").contains("2 texts were not sent"), "{}", said("err"));
    assert!(said("out").contains("line 2 is not UTF-8"), "{}", said("out"));
    assert!(said("out").contains("17000 bytes"), "{}", said("out"));
    for text in ["<peer_1>: first", "<peer_1>: last"] {
        assert!(said("out").contains(text), "{}", said("out"));
    }
    assert!(!said("out").contains("caf"), "{}", said("out"));
}

#[test]
fn a_screen_is_attached_to_a_chat_that_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let port = ports().to_string();
    let args = ["chat", "--id", "1", "--port", &port, "--host", "127.0.0.1", "--stay"];
    let chat = Process::start(&peer_exe(), &args, dir.path());
    let send = ["chat", "send", "earlier"];
    assert!(eventually(|| run(&peer_exe(), &send, dir.path()).0 == Some(0)), "{}", chat.err());
    let mut screen = OnTerminal::start(&peer_exe(), &["chat"], dir.path(), "xterm-256color");
    screen.wait_for("earlier");
    screen.wait_for("attached to peer_1;");
    screen.type_keys("by-screen\r");
    await_texts(dir.path(), &["earlier", "by-screen"]);
    screen.type_keys("/quit\r");
    assert_eq!(screen.wait_for_end(), Some(0), "{}", screen.written());
    assert!(eventually(|| chat.out().contains("<peer_1>: by-screen")), "{}", chat.err());
    let mut again = OnTerminal::start(&peer_exe(), &["chat"], dir.path(), "xterm-256color");
    again.wait_for("by-screen");
    drop(chat);
    assert_eq!(again.wait_for_end(), Some(1));
    assert!(again.written().contains("peer_1 has stopped"), "{}", again.written());
}

#[test]
fn a_seed_without_an_address_is_passed_by_while_another_or_the_log_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let base = ports();
    let member = |id: u16, seeds: &[&str]| {
        let (id, port) = (id.to_string(), (base + id).to_string());
        let mut args = vec!["chat", "--id", &id, "--port", &port, "--host", "127.0.0.1"];
        args.extend(["--stay", "--plain"]);
        seeds.iter().for_each(|it| args.extend(["--seed", it]));
        Process::start(&peer_exe(), &args, dir.path())
    };
    let one = member(1, &[]);
    assert!(eventually(|| one.out().contains("leads")), "{}", one.err());
    let (unknown, known) = ("9:no-such-host.invalid:7", format!("1:127.0.0.1:{}", base + 1));
    let mut alone = member(2, &[unknown]);
    assert_eq!(alone.wait_for_end(), Some(2));
    assert!(alone.err().contains("no-such-host.invalid"), "{}", alone.err());
    let two = member(2, &[unknown, &known]);
    assert!(eventually(|| one.out().contains("peer_2 at")), "{}", two.err());
    let note = "no-such-host.invalid:7: ";
    assert!(two.out().contains(note) && two.out().contains("goes on without it"), "{}", two.out());
    drop(two);
    let two = member(2, &[unknown]);
    assert!(eventually(|| two.out().contains("leads")), "its log knows the group: {}", two.err());
}

#[test]
fn a_member_deep_in_the_file_system_takes_local_commands() {
    let dir = tempfile::tempdir().unwrap();
    let deep = ["a-folder-with-a-long-name"; 6].join("/");
    let (port, seat) = (ports().to_string(), ["--data", deep.as_str()]);
    let mut args = vec!["chat", "--id", "1", "--port", &port, "--stay", "--plain"];
    args.extend(seat);
    let mut member = Process::start(&peer_exe(), &args, dir.path());
    let send = ["chat", "send", "hello", seat[0], seat[1]];
    let is_sent = || run(&peer_exe(), &send, dir.path()).0 == Some(0);
    assert!(eventually(is_sent), "{}{}", member.out(), member.err());
    member.signal(Signal::TERM);
    assert_eq!(member.wait_for_end(), Some(0), "{}", member.err());
    assert!(!dir.path().join(&deep).join("chat-1/control.sock").exists());
}

/// A program under limits that a shell sets first.
fn limited(limits: &str, args: &[&str], dir: &Path) -> Process {
    let script = format!("{limits}; exec \"$@\"");
    let exe = peer_exe();
    let mut all = vec!["-c", &script, "sh", exe.to_str().expect("a plain path")];
    all.extend(args);
    Process::start(Path::new("sh"), &all, dir)
}

/// The soft limit of open files of a process.
fn open_files_allowed(process: &Process) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid())).ok()?;
    let line = limits.lines().find_map(|it| it.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn the_limit_of_open_files_is_raised_and_a_shortage_is_told_with_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let base = ports();
    let port = base.to_string();
    let args = ["--port", &port, "--open"];
    let peer = limited("ulimit -Sn 300 && ulimit -Hn 900", &args, dir.path());
    assert!(
        eventually(|| peer.out().contains("644 connections instead of 7000")),
        "{}",
        peer.err()
    );
    assert!(peer.out().contains("ulimit -Hn 7256"), "{}", peer.out());
    assert_eq!(open_files_allowed(&peer), Some(900));
    let port = (base + 1).to_string();
    let args = ["chat", "--id", "1", "--port", &port, "--stay", "--plain"];
    let member = limited("ulimit -Sn 300 && ulimit -Hn 900", &args, dir.path());
    let words = "644 connections instead of 1024";
    assert!(eventually(|| member.out().contains(words)), "{}", member.out());
}
