//! A fleet without seeds, as real processes: they find each other, gossip, lose one, meet it again.

mod support;

use std::path::Path;

use rustix::process::Signal;
use support::process::{Process, eventually};
use support::{peer_exe, ports};

fn start(dir: &Path, port: u16, join: &[u16]) -> Process {
    let mut words = vec!["--port".to_owned(), port.to_string(), "--gossip-interval".to_owned()];
    words.push("300ms".to_owned());
    for port in join {
        words.extend(["--join".to_owned(), format!("127.0.0.1:{port}")]);
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    Process::start(&peer_exe(), &words, dir)
}

/// Waits until all of these are among the neighbors that it last announced.
#[track_caller]
fn wait_for_neighbors(process: &Process, ports: &[u16]) {
    let names_all = |line: &str| ports.iter().all(|it| line.contains(&format!(":{it}")));
    let is_there = eventually(|| {
        let out = process.out();
        let last = out.lines().rev().find(|line| line.contains("neighbors: "));
        last.is_some_and(names_all)
    });
    assert!(is_there, "{ports:?} are not its neighbors:\n{}", process.out());
}

/// Waits until it has printed `text` after its first `mark` bytes.
#[track_caller]
fn wait_for_more(process: &Process, mark: usize, text: &str) {
    let is_there = eventually(|| process.out()[mark..].contains(text));
    assert!(is_there, "{text:?} did not come:\n{}", process.out());
}

#[test]
fn three_processes_without_seeds_gossip_and_bear_a_death_and_a_late_bootstrap() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = ports();
    let [a, b, c, late] = [0, 1, 2, 3].map(|it| base + it);
    let (dir, all) = (dir.path(), [a, b, c]);
    // Each is told of the next one, of itself, and of one that is not there yet.
    let first = start(dir, a, &[b, late, a]);
    let second = start(dir, b, &[c, late]);
    let third = start(dir, c, &[late]);
    first.wait_for("--join ignores it");
    third.wait_for(&format!("cannot join by 127.0.0.1:{late}"));
    for (process, own) in [(&first, a), (&second, b), (&third, c)] {
        let others: Vec<_> = all.into_iter().filter(|it| *it != own).collect();
        wait_for_neighbors(process, &others);
        process.wait_for("gossip #3");
    }
    // Called again with pauses that double: early, so that they are still short.
    let last = start(dir, late, &[]);
    wait_for_more(&second, 0, &format!("127.0.0.1:{late} can be reached now"));
    drop(last);
    third.signal(Signal::KILL);
    first.wait_for(&format!("drops 127.0.0.1:{c}"));
    let mark = first.out().len();
    drop(third);
    let third = start(dir, c, &[a]);
    wait_for_more(&first, mark, &format!("won the neighbor 127.0.0.1:{c}"));
    wait_for_neighbors(&third, &[a, b]);
}
