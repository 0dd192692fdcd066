//! `peer top` and `peer status`, of a real fleet: as text, and on a terminal.

use crate::support;

use std::path::Path;

use folkmoot::model::Endpoint;
use rustix::process::Signal;
use support::process::{Process, eventually, run};
use support::terminal::OnTerminal;
use support::{Scene, peer_exe, ports};

const NO_GOSSIP: &str = "--gossip-max 0";

fn tell(dir: &Path, line: &str) -> (Option<i32>, String, String) {
    let words: Vec<_> = line.split_whitespace().collect();
    run(&peer_exe(), &words, dir)
}

#[track_caller]
fn told(scene: &Scene, line: &str) -> String {
    let (code, out, err) = tell(scene.fleet.dir(), line);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{line}\n{out}");
    out
}

/// A fleet of three seeds in which the last of four peers was killed and removed.
fn after_a_death() -> (Scene, Vec<Endpoint>) {
    let mut scene = Scene::up(3, 4, NO_GOSSIP);
    let peers = scene.peers();
    scene.await_overlay(&peers);
    scene.fleet.kill(peers[3]).expect("it runs");
    scene.await_lists(&peers[..3]);
    (scene, peers)
}

#[test]
fn one_picture_and_a_short_status_tell_about_a_fleet_and_a_death_in_it() {
    let (scene, peers) = after_a_death();
    let (port, dead) = (peers[0].port(), peers[3].to_string());
    let members = told(&scene, &format!("top --once --port {port} --size 100x30"));
    assert_eq!(members.lines().count(), 30, "{members}");
    assert!(members.lines().all(|line| line.chars().count() <= 100), "{members}");
    assert!(!members.contains('\u{1b}'), "{members:?}");
    let row = |text: &str, endpoint: &str| {
        let row = text.lines().find(|line| line.contains(endpoint)).unwrap_or_default();
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    for peer in &peers[..3] {
        let peer = peer.to_string();
        assert!(row(&members, &format!("│{peer}")).contains("alive"), "{members}");
    }
    assert!(row(&members, &format!("│{dead}")).contains("removed"), "{members}");
    assert!(members.contains("3 alive, 1 gone") && members.contains("q quit"), "{members}");
    let decisions = told(&scene, "top --once --pane 2 --at 2 --size 120x30");
    let removal = row(&decisions, &format!("{dead}  removed"));
    assert!(removal.contains("removed seeds ") && removal.contains(", says "), "{decisions}");
    assert_eq!(decisions.matches(" let in ").count(), 4, "{decisions}");
    let default = told(&scene, "top --once");
    assert_eq!(default.lines().count(), 24, "{default}");

    let status = told(&scene, &format!("status --port {port}"));
    let rows: Vec<_> = status.lines().collect();
    assert_eq!(rows[..2], ["health     good", &format!("node       peer at {}", peers[0])]);
    assert!((8..=14).contains(&rows.len()), "{status}");
    assert!(status.contains("\nmember     for ") && status.contains(" of 3 linked ("), "{status}");
    assert!(status.contains("\nmembers    2 others known\n"), "{status}");
    let exact = told(&scene, &format!("status --port {port} --utc"));
    assert!(exact.contains("\nmember     since 20"), "{exact}");
    let all = told(&scene, &format!("status --port {port} --all"));
    assert!(all.lines().count() > 20 && all.contains("incarnation"), "{all}");
    let members = told(&scene, "members --utc");
    assert!(members.contains("Z  ") && !members.contains(" ago"), "{members}");
    assert!(told(&scene, "members").contains(" s ago "));
}

#[test]
fn tables_fit_a_terminal_of_eighty_columns_and_break_no_word() {
    let (scene, peers) = after_a_death();
    let port = peers[0].port();
    let status = [format!("status --port {port}"), format!("status --all --port {port}")];
    let lines = ["members --all", "topology"].map(str::to_owned).into_iter().chain(status);
    for line in lines {
        let args: Vec<_> = line.split_whitespace().collect();
        let mut it = OnTerminal::start(&peer_exe(), &args, scene.fleet.dir(), "xterm-256color");
        assert_eq!(it.wait_for_end(), Some(0), "{line}");
        it.wait_for(&peers[0].to_string());
        let shown = it.written();
        let fits = |it: &str| it.trim_end().chars().count() <= 80;
        assert!(shown.lines().all(fits), "{line}\n{shown}");
        assert!(!line.starts_with("members") || shown.contains(" s ago "), "{line}\n{shown}");
    }
}

#[test]
fn who_has_nothing_to_look_at_is_told_what_to_name() {
    let dir = tempfile::tempdir().unwrap();
    for (line, code, said) in [
        ("top --once", 1, "name a node with --port and --data, or a seed with --at"),
        ("top --once --at 127.0.0.1:9", 1, "nobody listens there"),
        ("top", 2, "peer top --once"),
        ("top --size 80x24", 2, "--once"),
        ("top --once --size 80", 2, "120x40"),
        ("top --once --pane 7", 2, "1..=6"),
    ] {
        let (found, out, err) = tell(dir.path(), line);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{line}\n{err}");
        assert!(err.contains(said), "{line}\n{err}");
    }
}

#[test]
fn the_view_on_a_terminal_goes_on_while_its_node_dies_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let port = ports().to_string();
    let args = ["--port", &port, "--open", "--gossip-max", "0"];
    let node = Process::start(&peer_exe(), &args, dir.path());
    assert!(eventually(|| tell(dir.path(), "status").0 == Some(0)), "{}", node.out());
    let mut top = OnTerminal::start(&peer_exe(), &["top"], dir.path(), "xterm-256color");
    top.wait_until_shown("healthy");
    assert!(eventually(|| top.is_raw()));
    top.type_keys("3");
    top.wait_until_shown("A SECOND");
    top.type_keys("?");
    top.wait_until_shown("another pane");
    top.type_keys("x");
    drop(node);
    top.wait_until_shown("does not run");
    top.wait_until_shown("tries again");
    top.type_keys("\x1a");
    assert!(eventually(|| top.is_stopped()));
    assert!(!top.is_raw(), "it has given the terminal back");
    let node = Process::start(&peer_exe(), &args, dir.path());
    assert!(eventually(|| tell(dir.path(), "status").0 == Some(0)), "{}", node.out());
    top.signal(Signal::CONT);
    assert!(eventually(|| top.is_raw()));
    assert!(eventually(|| top.shown().contains(" healthy ")), "{}", top.shown());
    top.type_keys("q");
    assert_eq!(top.wait_for_end(), Some(0), "{}", top.written());
    assert!(!top.is_raw());
}

#[test]
fn the_proof_of_a_removal_is_shown_on_a_terminal() {
    let (scene, peers) = after_a_death();
    let dir = scene.fleet.dir();
    let args = ["top", "--no-color"];
    let mut top = OnTerminal::start(&peer_exe(), &args, dir, "xterm-256color");
    top.wait_until_shown("removed");
    top.type_keys(&format!("2/{}\r\r", peers[3].port()));
    top.wait_until_shown("removed as dead by the votes of");
    assert!(!top.written().contains("\x1b[38;5;"), "no color: {:?}", top.written());
    top.signal(Signal::TERM);
    assert_eq!(top.wait_for_end(), Some(0), "{}", top.written());
}
