//! A fleet without seeds, as real processes: they find each other, gossip, lose one, meet it again.

use crate::support;

use std::path::Path;

use rustix::process::Signal;
use support::process::{Process, eventually, run};
use support::{peer_exe, ports};

fn start(dir: &Path, port: u16, join: &[u16], more: &[&str]) -> Process {
    let mut words = vec!["--port".to_owned(), port.to_string(), "--gossip-interval".to_owned()];
    words.push("300ms".to_owned());
    for port in join {
        words.extend(["--join".to_owned(), format!("127.0.0.1:{port}")]);
    }
    let words: Vec<_> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Process::start(&peer_exe(), &words, dir)
}

/// Waits until all of these are among the neighbors that it last announced.
#[track_caller]
fn wait_for_neighbors(process: &Process, ports: &[u16]) {
    let names_all = |line: &str| ports.iter().all(|it| line.contains(&format!(":{it}")));
    let is_there = eventually(|| {
        let out = process.out();
        let last = out
            .lines()
            .rev()
            .find(|line| line.contains("neighbor: ") || line.contains("neighbors: "));
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
    let first = start(dir, a, &[b, late, a], &[]);
    let second = start(dir, b, &[c, late], &[]);
    let third = start(dir, c, &[late], &[]);
    first.wait_for("--join ignores it");
    for process in [&first, &second, &third] {
        process.wait_for(&format!("cannot join by 127.0.0.1:{late}"));
    }
    // It is called again with pauses that double: it comes while they are still short.
    // Without any --join it would look for seeds.
    let last = start(dir, late, &[late], &[]);
    for process in [&first, &second, &third] {
        process.wait_for(&format!("127.0.0.1:{late} can be reached now"));
    }
    drop(last);
    for (process, own) in [(&first, a), (&second, b), (&third, c)] {
        let others: Vec<_> = all.into_iter().filter(|it| *it != own).collect();
        wait_for_neighbors(process, &others);
        process.wait_for("gossip #3");
    }
    let mark = first.out().len();
    third.signal(Signal::KILL);
    wait_for_more(&first, mark, &format!("drops 127.0.0.1:{c}"));
    let mark = first.out().len();
    drop(third);
    let third = start(dir, c, &[a], &[]);
    wait_for_more(&first, mark, &format!("won the neighbor 127.0.0.1:{c}"));
    wait_for_neighbors(&third, &[a, b]);
}

#[test]
fn a_fleet_without_seeds_keeps_out_who_lacks_its_cluster_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = ports();
    let [a, b, none, wrong] = [0, 1, 2, 3].map(|it| base + it);
    let dir = dir.path();
    let [key, other] = ["cluster.key", "other.key"].map(|name| {
        let path = dir.join(name).to_str().expect("a plain path").to_owned();
        let seed = Path::new(env!("CARGO_BIN_EXE_seed"));
        let (code, _, err) = run(seed, &["keygen", "--cluster-key", &path], dir);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        path
    });
    let first = start(dir, a, &[a], &["--cluster-key", &key]);
    let second = start(dir, b, &[a], &["--cluster-key", &key]);
    wait_for_neighbors(&first, &[b]);
    let without = start(dir, none, &[a], &[]);
    let stranger = start(dir, wrong, &[a, b], &["--cluster-key", &other]);
    for process in [&without, &stranger] {
        process.wait_for(&format!("cannot join by 127.0.0.1:{a}"));
        let out = process.out();
        let said = out.lines().find(|it| it.contains("cannot join by")).expect("it was there");
        assert!(said.contains("cluster key"), "{said}");
    }
    // Called again a few times, while the two with the key talk on.
    let mark = first.out().len();
    wait_for_more(&first, mark, "gossip #");
    let mark = first.out().len();
    wait_for_more(&first, mark, "gossip #");
    wait_for_neighbors(&second, &[a]);
    for process in [&without, &stranger] {
        assert!(!process.out().contains("won the neighbor"), "{}", process.out());
    }
    for process in [&first, &second] {
        let out = process.out();
        let mut won = out.lines().filter(|it| it.contains("won the neighbor"));
        let is_out = |line: &str| ![none, wrong].iter().any(|it| line.contains(&format!(":{it}")));
        assert!(won.all(is_out), "{out}");
    }
}
