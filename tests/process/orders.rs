//! Orders of operators to real seeds: evictions, bans and their end, each by a quorum of machines;
//! and the answers of `seed` itself.

use crate::support;

use std::path::{Path, PathBuf};

use folkmoot::cli::fleet::LogEvent;
use folkmoot::model::Endpoint;
use serde_json::Value;
use support::process::{eventually, run};
use support::{NO_GOSSIP, Scene, peer_exe, words};

/// Runs a program in the fleet's directory. Returns its exit code, output and complaints.
fn tell(scene: &Scene, exe: &Path, line: &str) -> (Option<i32>, String, String) {
    let words = words(line);
    let args: Vec<_> = words.iter().map(String::as_str).collect();
    run(exe, &args, scene.fleet.dir())
}

#[track_caller]
fn succeeds(scene: &Scene, line: &str) -> String {
    let (code, out, err) = tell(scene, &peer_exe(), line);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{line}\n{out}");
    out
}

/// The data of one seed as its own machine would have it: nothing else is there.
fn machine_of(scene: &Scene, seed: Endpoint) -> PathBuf {
    let name = format!("seed-{}", seed.port());
    let machine = scene.fleet.dir().join(format!("machine-{}", seed.port()));
    std::fs::create_dir(&machine).expect("it is new");
    let data = scene.data_of("seed", seed);
    std::os::unix::fs::symlink(data, machine.join(name)).expect("a link can be made");
    machine
}

fn state_of(scene: &Scene, peer: Endpoint) -> String {
    let line = format!("status --port {} --json", peer.port());
    let (_, out, _) = tell(scene, &peer_exe(), &line);
    let status: Value = serde_json::from_str(&out).unwrap_or_default();
    status["state"].as_str().unwrap_or("").to_owned()
}

#[test]
fn the_evicted_comes_back_and_the_banned_does_not_until_the_ban_is_lifted() {
    let mut scene = Scene::up(3, 4, NO_GOSSIP);
    let peers = scene.peers();
    let victim = peers[1];
    let before = scene.mark();

    let out = succeeds(&scene, &format!("evict {victim}"));
    assert!(out.contains("is evicted"), "{out}");
    scene.wait("the evicted peer is told and registers again", |lines| {
        let of = |event| lines[before..].iter().any(|it| it.node == victim && it.event == event);
        of("evicted") && of("admitted")
    });
    scene.await_lists(&peers);

    let mark = scene.mark();
    let out = succeeds(&scene, &format!("evict --ban {victim}"));
    assert!(out.contains("is banned"), "{out}");
    let rest: Vec<_> = peers.iter().copied().filter(|it| *it != victim).collect();
    scene.await_lists(&rest);
    scene.wait("it asks again and is told why it is kept out", |lines| {
        lines[mark..]
            .iter()
            .any(|it| it.node == victim && it.event == "not_admitted" && it.message.contains("ban"))
    });
    scene.await_lists(&rest);
    let out = succeeds(&scene, &format!("explain {victim}"));
    assert!(out.contains("evicted"), "{out}");

    let out = succeeds(&scene, &format!("unban {victim}"));
    assert!(out.contains("may register again"), "{out}");
    scene.await_lists(&peers);
    assert!(eventually(|| state_of(&scene, victim) == "member"));
    let victim = victim.to_string();
    let is_other = |it: &LogEvent| it.event == "removed" && it.text("endpoint") != Some(&victim);
    assert!(!scene.lines().iter().any(is_other), "nobody else was touched");
}

#[test]
fn the_operator_of_one_machine_alone_orders_in_vain() {
    let mut scene = Scene::up(3, 3, NO_GOSSIP);
    let (seeds, peers) = (scene.seeds(), scene.peers());
    let [one, two] = [0, 1].map(|at| machine_of(&scene, seeds[at]));

    let line = format!("evict {} --data {}", peers[0], one.display());
    let (code, out, err) = tell(&scene, &peer_exe(), &line);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("1 of 2 needed seeds") && err.contains("ten minutes"), "{err}");
    scene.await_lists(&peers);

    let before = scene.mark();
    let line = format!("evict {} --data {} --json", peers[0], two.display());
    let out: Value = serde_json::from_str(&succeeds(&scene, &line)).expect("JSON");
    assert_eq!((&out["done"], &out["seeds"]), (&Value::Bool(true), &serde_json::json!([1, 2])));
    scene.wait("that life ends", |lines| {
        lines[before..].iter().any(|it| it.node == peers[0] && it.event == "evicted")
    });

    for (line, told) in [
        (format!("evict {} --data nowhere", peers[1]), "where the seeds run"),
        ("evict 127.0.0.1:9".to_owned(), "127.0.0.1:9"),
        (format!("unban {}", peers[1]), "ban"),
    ] {
        let (code, out, err) = tell(&scene, &peer_exe(), &line);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{line}\n{err}");
        assert!(err.starts_with("error: ") && err.contains(told), "{line}\n{err}");
    }
}

#[test]
fn a_seed_answers_for_itself() {
    let scene = Scene::up(3, 3, NO_GOSSIP);
    let seed = Path::new(env!("CARGO_BIN_EXE_seed"));
    let port = scene.seeds()[0].port();
    let (code, out, err) = tell(&scene, seed, &format!("status --port {port}"));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("members") && out.contains("seeds"), "{out}");
    let (_, out, _) = tell(&scene, seed, &format!("status --port {port} --json"));
    let status: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&status["role"], &status["members"]), (&"seed".into(), &3.into()));
    let (code, out, err) = tell(&scene, seed, "members");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(scene.peers().iter().all(|peer| out.contains(&peer.to_string())), "{out}");
}
