//! The fleet's duties, shown with real processes: the binaries as they are shipped, on loopback,
//! killed, stopped and restarted for real.
//!
//! `f1` to `f7` are the seven cases that a membership of this kind must pass; each prints one
//! line that says what was seen. The others are what a user relies on beyond them.

#![allow(clippy::print_stdout, reason = "each of the seven cases says what it has seen")]

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use folkmoot::cli::fleet::LogEvent;
use folkmoot::model::statement::{Finding, MemberInstance};
use folkmoot::model::{Endpoint, Incarnation};
use rustix::process::Signal;
use support::member::Member;
use support::process::{Process, eventually, run, script};
use support::{
    FAST_GOSSIP, NO_GOSSIP, PATIENCE, Scene, about, doubts, endpoints, life_of, neighborhoods, of,
    peer_exe, voters,
};

fn seed_exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_seed"))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// True if `text` is seconds with three decimals, as both fixed texts have it.
fn is_timestamp(text: &str) -> bool {
    let is_digits = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.')
        .is_some_and(|(seconds, rest)| is_digits(seconds) && is_digits(rest) && rest.len() == 3)
}

/// The number in a gossip text, if it is `<timestamp>:127.0.0.1:<number>` to the letter.
fn gossip_number(text: &str) -> Option<u64> {
    let [at, "127.0.0.1", number] = text.split(':').collect::<Vec<_>>()[..] else { return None };
    let number: u64 = number.parse().ok()?;
    (is_timestamp(at) && number > 0 && text.ends_with(&format!(":{number}"))).then_some(number)
}

/// True if `text` is `Dead Node:127.0.0.1:<port>:<timestamp>:127.0.0.1` to the letter.
fn is_death_report(text: &str, dead: Endpoint) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    let [head, "127.0.0.1", port, at, "127.0.0.1"] = parts[..] else { return false };
    head == "Dead Node" && port == dead.port().to_string() && is_timestamp(at)
}

// F1: registration with a quorum.

/// Peers register through so many seeds; returns how many yes votes were needed.
fn registers_with(seeds: u16, peers: u16) -> (Scene, u64) {
    let mut scene = Scene::lay_out(seeds, peers, NO_GOSSIP);
    scene.start_seeds();
    scene.start_peers();
    scene.await_lists(&scene.peers());
    let needed = u64::from(seeds) / 2 + 1;
    let lines = scene.lines();
    for peer in scene.peers() {
        let asked = lines.iter().find(|it| of(it, peer, "asked")).expect("it asked");
        assert_eq!(asked.number("needed"), Some(needed), "{}", asked.line());
        let admitted = lines.iter().find(|it| of(it, peer, "admitted")).expect("it is in");
        let voters: BTreeSet<_> = voters(admitted).into_iter().collect();
        assert!(voters.len() as u64 >= needed, "{}", admitted.line());
        assert!(voters.iter().all(|seed| (1..=u64::from(seeds)).contains(seed)));
    }
    for seed in scene.seeds() {
        let admitted = lines.iter().filter(|it| of(it, seed, "admitted"));
        assert!(admitted.clone().all(|it| voters(it).len() as u64 >= needed));
        assert_eq!(admitted.count(), usize::from(peers), "each seed tells each admission once");
    }
    (scene, needed)
}

#[test]
fn f1_a_peer_registers_with_a_quorum_of_seeds() {
    let (scene, needed) = registers_with(3, 4);
    let lists: Vec<_> = scene.seeds().into_iter().map(|seed| scene.members_at(seed)).collect();
    assert!(lists.windows(2).all(|pair| {
        let key =
            |it: &folkmoot::proto::membership::MemberLine| (it.endpoint, it.incarnation, it.status);
        pair[0].iter().map(key).eq(pair[1].iter().map(key))
    }));
    println!(
        "F1 PASS: 4 peers registered through 3 seeds, each with at least {needed} of 3 votes; the \
         lists of all 3 seeds are equal, with {} members each",
        lists[0].len()
    );
}

#[test]
fn one_seed_is_a_quorum_of_one() {
    registers_with(1, 3);
}

#[test]
fn seven_seeds_need_four_votes() {
    let (_, needed) = registers_with(7, 2);
    assert_eq!(needed, 4);
}

// F2: no registration without one.

#[test]
fn f2_a_peer_stays_out_without_a_quorum_and_gets_in_when_there_is_one() {
    let args = format!("{FAST_GOSSIP} --backoff-min 200ms --backoff-max 2s");
    let mut scene = Scene::lay_out(3, 2, &args);
    let (seeds, peers) = (scene.seeds(), scene.peers());
    scene.fleet.start_seed(seeds[0]).expect("a seed starts");
    // Before it listens the peers would reach none.
    scene.wait("a seed", |lines| lines.iter().any(|it| of(it, seeds[0], "started")));
    for peer in &peers {
        scene.fleet.start_peer(*peer).expect("a peer starts");
    }
    let refusals = |lines: &[LogEvent], peer| {
        let refused = |it: &&LogEvent| of(it, peer, "not_admitted");
        lines.iter().filter(refused).cloned().collect::<Vec<_>>()
    };
    let says = |it: &LogEvent, what| it.text("reason").is_some_and(|it| it.contains(what));
    scene.wait("three refusals each, and one seed's warning", |lines| {
        let warned =
            |it: &LogEvent| of(it, seeds[0], "quorum") && it.level.eq_ignore_ascii_case("warn");
        peers.iter().all(|peer| {
            let refused = refusals(lines, *peer);
            let one = "no quorum: 1 of 2 needed seeds in reach";
            refused.len() >= 3 && refused.iter().any(|it| says(it, one))
        }) && lines.iter().any(warned)
    });
    let lines = scene.lines();
    for peer in &peers {
        let refused = refusals(&lines, *peer);
        assert!(refused.iter().all(|it| says(it, "no quorum: ")), "{refused:?}");
        let pauses: Vec<_> = refused.iter().filter_map(|it| it.number("retry_ms")).collect();
        assert!(pauses[..3].is_sorted_by(|a, b| a < b), "it backs off: {pauses:?}");
    }
    let premature = |it: &&LogEvent| {
        ["gossip", "gossip_made", "admitted", "linked"].contains(&it.event.as_str())
    };
    assert_eq!(lines.iter().find(premature).map(LogEvent::line), None);
    assert_eq!(scene.members_at(seeds[0]), [], "one seed adds nobody");
    let warnings = lines.iter().filter(|it| of(it, seeds[0], "quorum")).count();
    assert_eq!(warnings, 1, "a lost quorum is told once");

    scene.fleet.start_seed(seeds[1]).expect("a seed starts");
    scene.wait("both get in by themselves and gossip", |lines| {
        peers.iter().all(|peer| {
            let told = |event| lines.iter().any(|it| of(it, *peer, event));
            told("admitted") && told("gossip_made") && told("gossip_heard")
        })
    });
    scene.await_lists(&peers);
    let refused = refusals(&lines, peers[0]).len();
    println!(
        "F2 PASS: with 1 of 3 seeds up 2 peers stayed out ({refused} attempts, \"no quorum: 1 of 2 \
         needed seeds in reach\") and gossiped nothing; with the second seed both got in"
    );
}

// F3 and F4: gossip.

/// First-time lines by (peer, message), where a message is (origin, number).
fn heard(lines: &[LogEvent]) -> BTreeMap<(Endpoint, Endpoint, u64), usize> {
    let mut counts = BTreeMap::new();
    for line in lines.iter().filter(|it| it.is("peer", "gossip_heard")) {
        let origin = line.endpoint("origin").expect("a message has an origin");
        let number = line.number("number").expect("a message has a number");
        *counts.entry((line.node, origin, number)).or_default() += 1;
    }
    counts
}

/// Lets a fleet gossip until each peer's ten messages are everywhere, and everybody leave: what
/// was told until then is all there will ever be.
fn gossip_to_the_end(peers: u16, args: &str) -> (Scene, Vec<LogEvent>) {
    let mut scene = Scene::lay_out(3, peers, args);
    scene.start_seeds();
    scene.start_peers();
    let members = scene.peers();
    let wanted = members.len() * 10 * (members.len() - 1);
    scene.wait("everybody hears everything", |lines| {
        lines.iter().filter(|it| it.is("peer", "gossip_heard")).count() >= wanted
    });
    let mut duplicates = 0;
    for peer in &members {
        let status = scene.status(*peer);
        duplicates += status["gossip_duplicates"].as_u64().expect("a count");
        assert_eq!(status["gossip_made"], 10);
    }
    for peer in &members {
        assert_eq!(scene.fleet.stop(*peer, PATIENCE).expect("it ends"), Some(0));
    }
    let lines = scene.lines();
    println!("{peers} peers dropped {duplicates} duplicates");
    assert!(duplicates > 0, "the overlay has loops");
    (scene, lines)
}

#[test]
fn f3_gossip_of_peers_on_one_host_started_in_one_second_reaches_everybody() {
    let (_scene, lines) = gossip_to_the_end(6, FAST_GOSSIP);
    let started = lines.iter().filter(|it| it.is("peer", "started")).map(|it| it.ts_ms);
    let spread = started.clone().max().unwrap_or(0) - started.min().unwrap_or(0);
    let made = lines.iter().filter(|it| it.is("peer", "gossip_made")).count();
    let heard = heard(&lines);
    assert_eq!(made, 60, "each peer makes ten messages");
    assert_eq!(heard.len(), made * 5, "each message reaches each other peer");
    println!(
        "F3 PASS: 6 peers on one IP, started within {spread} ms, made {made} messages; {} \
         deliveries = {made} x 5",
        heard.len()
    );
}

#[test]
fn f4_each_message_is_told_once_by_each_peer_however_often_it_comes() {
    let (scene, lines) = gossip_to_the_end(5, &format!("{FAST_GOSSIP} --links 4"));
    let counts = heard(&lines);
    assert_eq!(counts.values().max(), Some(&1), "nobody tells a message twice");
    let mut texts: BTreeMap<Endpoint, Vec<&str>> = BTreeMap::new();
    for line in lines.iter().filter(|it| it.is("peer", "gossip")) {
        assert!(gossip_number(&line.message).is_some(), "not the fixed text: {}", line.message);
        assert_eq!(line.text("text"), Some(line.message.as_str()));
        texts.entry(line.node).or_default().push(&line.message);
    }
    for peer in scene.peers() {
        assert_eq!(texts[&peer].len(), 50, "ten of its own, and ten of each other");
        let made = lines.iter().filter(|it| of(it, peer, "gossip_made"));
        let numbers: Vec<_> = made.filter_map(|it| gossip_number(it.text("text")?)).collect();
        assert_eq!(numbers, (1..=10).collect::<Vec<_>>(), "{peer} numbers its own");
    }
    println!(
        "F4 PASS: in a mesh of 5 peers (each linked with all others) each of 50 messages was told \
         exactly once by each peer: {} first-time lines and no other",
        texts.values().map(Vec::len).sum::<usize>()
    );
}

// F5: nobody is removed by mistake.

#[test]
fn f5_a_peer_that_stalls_for_a_moment_is_not_removed() {
    let mut scene = Scene::up(3, 5, FAST_GOSSIP);
    let (peers, victim) = (scene.peers(), scene.peers()[2]);
    let life = life_of(&scene.lines(), victim);
    scene.fleet.signal(victim, Signal::STOP).expect("it runs");
    scene.fleet.story().watch(millis(1_200)).expect("the log can be read");
    scene.fleet.signal(victim, Signal::CONT).expect("it runs");
    let before = scene.mark();
    scene.wait("all that it says after its stall is heard", |lines| {
        let heard = |peer: &Endpoint| {
            lines[before..]
                .iter()
                .any(|it| of(it, *peer, "gossip_heard") && it.endpoint("origin") == Some(victim))
        };
        peers.iter().filter(|peer| **peer != victim).all(heard)
    });
    scene.never("a removal", millis(1_500), |it| it.event == "removed" || it.event == "evicted");
    scene.await_lists(&peers);
    assert_eq!(life_of(&scene.lines(), victim), life, "it is the same member as before");
    let lines = scene.lines();
    let count = |event| lines.iter().filter(|it| about(it, victim, event)).count();
    println!(
        "F5 PASS: a stall of 1.2 s made {} suspicions, {} taken back, and no removal",
        count("suspected"),
        count("cleared")
    );
}

#[test]
fn f5_one_member_alone_removes_nobody() {
    let mut scene = Scene::up(3, 4, NO_GOSSIP);
    let (peers, victim) = (scene.peers(), scene.peers()[0]);
    let mut liar = Member::admitted(&scene.seeds());
    let subject = subject_at(&scene, victim);
    let all: Vec<_> = peers.iter().copied().chain([liar.endpoint()]).collect();
    scene.await_lists(&all);
    // A true link with the victim makes its word a neighbor's.
    let link = liar.call(victim);
    scene.wait("the victim calls it its neighbor", |lines| {
        neighborhoods(lines).get(&victim).is_some_and(|it| it.contains(&liar.endpoint()))
    });
    liar.announce(1, &[victim]);
    let before = scene.mark();
    for _ in 0..3 {
        let report = liar.report(subject, vec![liar.finding(subject, Finding::Refused)]);
        liar.tell_seeds(report);
    }
    let no = |seed: &Endpoint, lines: &[LogEvent]| {
        lines.iter().any(|it| {
            of(it, *seed, "voted")
                && it.text("kind") == Some("remove")
                && it.fields.get("yes").and_then(|it| it.as_bool()) == Some(false)
        })
    };
    let seeds = scene.seeds();
    scene.wait("every seed says no", |lines| seeds.iter().all(|it| no(it, &lines[before..])));
    scene.never("a removal", millis(1_500), |it| it.event == "removed" || it.event == "evicted");
    scene.await_lists(&all);
    drop(link);
    liar.seeds.clear();
    println!(
        "F5 PASS: a certified neighbor of {victim} reported it dead to 3 seeds, 3 times, with its \
         own signed finding: every seed probed for itself and voted no; all {} members stay",
        all.len()
    );
}

/// Member instance of a peer, from a seed's list and its own status.
fn subject_at(scene: &Scene, peer: Endpoint) -> MemberInstance {
    let status = scene.status(peer);
    let key = status["key"].as_str().expect("a key");
    MemberInstance {
        endpoint: peer,
        incarnation: Incarnation(status["incarnation"].as_u64().expect("a number")),
        key: folkmoot::model::PublicKey::parse(key).expect("a key"),
    }
}

// F6: the dead are removed.

/// Waits for the removal of `victim` by all seeds and former neighbors, and checks how it came.
fn check_removal(
    scene: &mut Scene,
    before: usize,
    victim: Endpoint,
    neighbors: &[Endpoint],
) -> String {
    let (seeds, peers) = (scene.running_seeds(), scene.peers());
    let survivors: Vec<_> = peers.into_iter().filter(|it| *it != victim).collect();
    scene.wait("all seeds remove it, and its neighbors drop it", |lines| {
        let lines = &lines[before..];
        let removed = |node: &Endpoint| {
            lines.iter().any(|it| it.node == *node && about(it, victim, "removed"))
        };
        let lost = |node: &Endpoint| {
            lines
                .iter()
                .any(|it| of(it, *node, "unlinked") && it.endpoint("neighbor") == Some(victim))
        };
        seeds.iter().all(removed) && neighbors.iter().all(|it| removed(it) && lost(it))
    });
    scene.await_lists(&survivors);
    let lines = scene.lines()[before..].to_vec();
    let report = lines
        .iter()
        .find(|it| it.is("peer", "dead_node") && it.endpoint("endpoint") == Some(victim))
        .expect("a majority of its neighbors reported it");
    assert!(is_death_report(&report.message, victim), "{}", report.message);
    let witnesses: BTreeSet<_> = endpoints(report, "witnesses").into_iter().collect();
    assert!(witnesses.len() > neighbors.len() / 2, "{witnesses:?} of {neighbors:?}");
    assert!(witnesses.is_subset(&survivors.iter().copied().collect()));
    let told = |seed: &Endpoint| {
        lines.iter().any(|it| of(it, *seed, "dead_node") && is_death_report(&it.message, victim))
    };
    assert!(seeds.iter().any(told), "the seeds tell the report too");
    let quorum = scene.seeds().len() / 2 + 1;
    for removed in lines.iter().filter(|it| it.is("seed", "removed")) {
        let voters: BTreeSet<_> = voters(removed).into_iter().collect();
        assert!(voters.len() >= quorum, "{}", removed.line());
    }
    assert!(lines.iter().all(|it| it.event != "removed" || about(it, victim, "removed")));
    format!(
        "\"{}\", found dead by {} of {} neighbors; {} seeds list the {} others, {} former \
         neighbors dropped it",
        report.message,
        witnesses.len(),
        neighbors.len(),
        seeds.len(),
        survivors.len(),
        neighbors.len()
    )
}

/// Seeds that were made anew have other keys, and nothing proves that they are not somebody else's:
/// peers that knew the old keys come back when an operator pins the new ones.
#[test]
fn seeds_that_lost_their_keys_are_believed_again_when_the_new_ones_are_pinned() {
    let mut scene = Scene::up(3, 2, NO_GOSSIP);
    let (seeds, peers) = (scene.seeds(), scene.peers());
    for seed in &seeds {
        scene.fleet.stop(*seed, PATIENCE).expect("it runs");
        fs::remove_dir_all(scene.data_of("seed", *seed)).expect("it had data");
    }
    let before = scene.mark();
    scene.start_seeds();
    scene.wait("both peers refuse the new keys", |lines| {
        let refuses = |peer| lines[before..].iter().any(|it| of(it, peer, "seed_key_contradicted"));
        peers.iter().all(|peer| refuses(*peer))
    });
    let lines = scene.lines();
    let refused = lines[before..].iter().find(|it| it.event == "seed_key_contradicted");
    let refused = &refused.expect("it was told").message;
    assert!(refused.contains("pin the new key in config.txt on every node"), "{refused}");

    for node in peers.iter().chain(&seeds) {
        scene.fleet.stop(*node, PATIENCE).expect("it runs");
    }
    let mut pinned = String::new();
    let (config, data) = (scene.fleet.config(), scene.fleet.dir().join("data"));
    for id in 1..=seeds.len() {
        let id = id.to_string();
        let args = ["keygen", "--id", &id, "--config", path(&config), "--data", path(&data)];
        let (code, line, err) = run(&seed_exe(), &args, scene.fleet.dir());
        assert_eq!(code, Some(0), "{err}");
        pinned += &line;
    }
    fs::write(&config, pinned).expect("it can be written");
    for seed in &seeds {
        scene.fleet.start_seed(*seed).expect("a seed starts");
    }
    scene.start_peers();
    scene.await_lists(&peers);
}

#[test]
fn f6_a_killed_peer_is_reported_by_a_majority_and_removed_by_all() {
    let mut scene = Scene::up(3, 6, NO_GOSSIP);
    let victim = scene.peers()[1];
    let neighbors = neighborhoods(&scene.lines()).remove(&victim).expect("it has some");
    let before = scene.mark();
    scene.fleet.kill(victim).expect("it runs");
    let seen = check_removal(&mut scene, before, victim, &neighbors);
    println!("F6 PASS: kill -9: {seen}");
}

#[test]
fn f6_a_peer_that_is_silent_for_good_is_removed_and_comes_back_when_it_wakes() {
    let mut scene = Scene::up(3, 6, NO_GOSSIP);
    let victim = scene.peers()[4];
    let neighbors = neighborhoods(&scene.lines()).remove(&victim).expect("it has some");
    let life = life_of(&scene.lines(), victim);
    let before = scene.mark();
    scene.fleet.signal(victim, Signal::STOP).expect("it runs");
    let seen = check_removal(&mut scene, before, victim, &neighbors);
    println!("F6 PASS: SIGSTOP: {seen}");
    scene.fleet.signal(victim, Signal::CONT).expect("it runs");
    scene.await_lists(&scene.peers());
    scene.wait("it is a new member", |lines| life_of(lines, victim) > life);
}

// F7: the restarted are fresh.

/// Waits until a restarted peer is a member under a higher incarnation than `life`.
fn check_rebirth(scene: &mut Scene, peer: Endpoint, life: u64) -> u64 {
    scene.wait("it is admitted anew", |lines| life_of(lines, peer) > life);
    scene.await_lists(&scene.peers());
    let new = life_of(&scene.lines(), peer);
    for seed in scene.seeds() {
        // One that did not vote may list the former life for a moment.
        assert!(eventually(|| {
            let listed = scene.members_at(seed);
            listed.iter().any(|it| it.endpoint == peer && it.incarnation.0 == new)
        }));
    }
    new
}

#[test]
fn f7_a_peer_that_was_removed_registers_as_a_fresh_member() {
    let mut scene = Scene::up(3, 5, FAST_GOSSIP);
    let victim = scene.peers()[3];
    let life = life_of(&scene.lines(), victim);
    scene.fleet.kill(victim).expect("it runs");
    let rest: Vec<_> = scene.peers().into_iter().filter(|it| *it != victim).collect();
    scene.await_lists(&rest);
    let before = scene.mark();
    scene.fleet.start_peer(victim).expect("it starts again");
    let new = check_rebirth(&mut scene, victim, life);
    scene.wait("its new gossip is heard by all", |lines| {
        let heard = |peer: &Endpoint| {
            lines[before..].iter().any(|it| {
                of(it, *peer, "gossip_heard")
                    && it.endpoint("origin") == Some(victim)
                    && it.number("incarnation") == Some(new)
            })
        };
        rest.iter().all(heard)
    });
    println!(
        "F7 PASS: {victim} was killed, removed and restarted: incarnation {life} ended, {new} is \
         listed by 3 seeds, and its gossip counts anew"
    );
}

#[test]
fn f7_a_peer_that_restarts_before_anybody_notices_is_fresh_too() {
    let mut scene = Scene::up(3, 4, NO_GOSSIP);
    let victim = scene.peers()[0];
    let life = life_of(&scene.lines(), victim);
    scene.fleet.kill(victim).expect("it runs");
    scene.fleet.start_peer(victim).expect("it starts again");
    check_rebirth(&mut scene, victim, life);
    scene.await_overlay(&scene.peers());
}

#[test]
fn a_peer_that_lost_its_key_gets_in_once_its_old_self_is_gone() {
    let mut scene = Scene::up(3, 4, "--gossip-max 0 --backoff-max 1s");
    let victim = scene.peers()[0];
    let life = life_of(&scene.lines(), victim);
    scene.fleet.kill(victim).expect("it runs");
    let data = scene.data_of("peer", victim);
    fs::remove_dir_all(data).expect("it had data");
    scene.fleet.start_peer(victim).expect("it starts again");
    check_rebirth(&mut scene, victim, life);
}

// Goodbyes.

/// All seeds list `left` no more, and nobody was suspected or removed on the way.
fn check_goodbye(scene: &mut Scene, left: Endpoint) {
    let rest: Vec<_> = scene.running_peers();
    scene.await_lists(&rest);
    let seeds = scene.seeds();
    scene.wait("every seed tells the goodbye", |lines| {
        seeds.iter().all(|seed| lines.iter().any(|it| it.node == *seed && about(it, left, "left")))
    });
    let lines = scene.lines();
    let bad = doubts(&lines, &["suspected", "reported", "dead_node", "removed", "confirmed"]);
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn a_goodbye_by_signal_or_by_command_needs_no_suspicion() {
    let mut scene = Scene::up(3, 5, NO_GOSSIP);
    let peers = scene.peers();
    assert_eq!(scene.fleet.stop(peers[0], PATIENCE).expect("it ends"), Some(0), "SIGTERM");
    check_goodbye(&mut scene, peers[0]);

    scene.fleet.signal(peers[1], Signal::INT).expect("it runs");
    assert!(eventually(|| scene.fleet.fallen().is_some()));
    assert_eq!(scene.fleet.fallen(), Some((peers[1], Some(0))), "SIGINT");
    scene.fleet.kill(peers[1]).expect("only its entry is left");
    check_goodbye(&mut scene, peers[1]);

    let port = peers[2].port().to_string();
    let data = scene.fleet.dir().join("data");
    let data = data.to_str().expect("a plain path");
    let args = ["leave", "--port", &port, "--data", data];
    let (code, out, err) = run(&peer_exe(), &args, scene.fleet.dir());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("has said goodbye"), "{out}");
    assert!(eventually(|| scene.fleet.fallen() == Some((peers[2], Some(0)))), "peer leave");
    scene.fleet.kill(peers[2]).expect("only its entry is left");
    check_goodbye(&mut scene, peers[2]);
}

// Seeds that fail.

/// One more peer can join, and a dead one is removed: the seeds decide.
fn check_decisions(scene: &mut Scene, newcomer: Endpoint, victim: Endpoint) {
    scene.start_some_peers(&[newcomer]);
    scene.await_lists(&scene.running_peers());
    scene.fleet.kill(victim).expect("it runs");
    scene.await_lists(&scene.running_peers());
}

#[test]
fn seeds_that_were_all_killed_at_once_remember_everything() {
    let mut scene = Scene::lay_out(3, 5, NO_GOSSIP);
    let (seeds, peers) = (scene.seeds(), scene.peers());
    scene.start_seeds();
    scene.start_some_peers(&peers[..4]);
    scene.await_lists(&peers[..4]);
    let lives = |scene: &Scene, seed| {
        let list = scene.members_at(seed);
        list.iter().map(|it| (it.endpoint, it.incarnation)).collect::<Vec<_>>()
    };
    let known = lives(&scene, seeds[0]);
    for seed in &seeds {
        scene.fleet.kill(*seed).expect("it runs");
    }
    scene.start_seeds();
    for seed in &seeds {
        assert_eq!(lives(&scene, *seed), known, "{seed} has lost nothing");
    }
    check_decisions(&mut scene, peers[4], peers[0]);
    let lines = scene.lines();
    assert!(lines.iter().all(|it| it.event != "evicted"), "nobody had to register again");
}

#[test]
fn a_seed_that_lost_its_journal_catches_up_before_it_votes() {
    let mut scene = Scene::lay_out(3, 5, NO_GOSSIP);
    let (seeds, peers) = (scene.seeds(), scene.peers());
    scene.start_seeds();
    scene.start_some_peers(&peers[..4]);
    scene.await_lists(&peers[..4]);
    let loser = seeds[2];
    scene.fleet.kill(loser).expect("it runs");
    fs::remove_file(scene.data_of("seed", loser).join("journal.log")).expect("it had a journal");
    let before = scene.mark();
    scene.start_some_seeds(&[loser]);
    let lines = scene.lines()[before..].to_vec();
    let own: Vec<_> = lines.iter().filter(|it| it.node == loser).collect();
    let started = own.iter().find(|it| it.event == "started").expect("it started");
    assert_eq!(started.number("members"), Some(0), "it knew nobody");
    let ready = own.iter().position(|it| it.event == "ready").expect("it votes");
    assert_eq!(own[ready].number("members"), Some(4), "{}", own[ready].line());
    assert!(own[..ready].iter().all(|it| it.event != "voted" || it.number("seed") != Some(3)));
    scene.await_lists(&peers[..4]);
    check_decisions(&mut scene, peers[4], peers[1]);
}

/// The seed knows no other seed's key any more either, so one seed alone cannot prove to it what
/// two have decided.
#[test]
fn a_seed_without_a_journal_does_not_vote_on_what_one_other_seed_cannot_prove() {
    let mut scene = Scene::lay_out(3, 4, NO_GOSSIP);
    let (seeds, peers) = (scene.seeds(), scene.peers());
    // With the third still away, all votes are those of the first two.
    scene.start_some_seeds(&seeds[..2]);
    scene.start_peers();
    scene.await_lists(&peers);
    scene.fleet.kill(seeds[0]).expect("it runs");
    scene.fleet.start_seed(seeds[2]).expect("a seed starts");
    scene.wait("it is linked with the second", |lines| {
        lines.iter().any(|it| of(it, seeds[2], "seed_link") && it.number("seed") == Some(2))
    });
    scene.never("a vote of one who knows less than the others", millis(2_000), |it| {
        of(it, seeds[2], "ready") && it.number("members") != Some(4)
    });
    scene.start_some_seeds(&seeds[..1]);
    scene.wait("it has caught up, and votes", |lines| {
        lines.iter().any(|it| of(it, seeds[2], "ready") && it.number("members") == Some(4))
    });
    scene.await_lists(&peers);
}

#[test]
fn two_of_three_seeds_do_all_that_three_do() {
    let mut scene = Scene::lay_out(3, 5, NO_GOSSIP);
    let (seeds, peers) = (scene.seeds(), scene.peers());
    scene.start_seeds();
    scene.start_some_peers(&peers[..4]);
    scene.fleet.kill(seeds[1]).expect("it runs");
    check_decisions(&mut scene, peers[4], peers[2]);
    // What happened without it is learnt by the third when it is back.
    scene.start_some_seeds(&[seeds[1]]);
    scene.await_lists(&scene.running_peers());
}

// The log.

/// A log line in text, in its parts: time, level, role and node, message.
fn parts_of(line: &str) -> Option<[&str; 4]> {
    let (at, rest) = line.split_once(' ')?;
    let (level, rest) = (rest.get(..5)?, rest.get(6..)?);
    let (role, rest) = rest.split_once(' ')?;
    let (node, message) = rest.split_once(' ')?;
    let is_right = at.len() == 24
        && at.ends_with('Z')
        && ["ERROR", "WARN ", "INFO "].contains(&level)
        && ["seed", "peer"].contains(&role)
        && node.parse::<Endpoint>().is_ok();
    is_right.then_some([at, role, node, message])
}

#[test]
fn console_and_shared_output_file_hold_the_same_whole_lines() {
    let scene = Scene::lay_out(1, 3, "");
    let dir = scene.fleet.dir().to_owned();
    let shared = dir.join("shared.txt");
    let port = |node: Endpoint| node.port().to_string();
    let start = |args: &[&str]| {
        let common = ["--config", "config.txt", "--data", "data", "--output", "shared.txt"];
        Process::start(&peer_exe(), &[args, &common].concat(), &dir)
    };
    let seed = start(&["seed", "--id", "1"]);
    let mut all = vec![seed];
    for peer in scene.peers() {
        all.push(start(&["--port", &port(peer), "--gossip-interval", "20ms"]));
    }
    for process in &all[1..] {
        process.wait_for("gossip #10 made");
    }
    assert!(eventually(|| {
        let text = fs::read_to_string(&shared).expect("it is text");
        text.matches(" heard from ").count() == 60
    }));
    for process in all.iter_mut().rev() {
        process.signal(Signal::TERM);
        assert_eq!(process.wait_for_end(), Some(0), "{}", process.err());
    }
    let text = fs::read_to_string(&shared).expect("it is text");
    let mut filed: Vec<_> = text.lines().map(str::to_owned).collect();
    let mut shown: Vec<String> = Vec::new();
    for process in &all {
        shown.extend(process.out().lines().map(str::to_owned));
        assert_eq!(process.err(), "", "nothing went wrong");
    }
    let gossip = filed.iter().filter(|line| {
        let [.., message] = parts_of(line).unwrap_or_else(|| panic!("a torn line: {line:?}"));
        gossip_number(message).is_some()
    });
    assert_eq!(gossip.count(), 90, "30 messages, each told once by each of 3 peers");
    filed.sort();
    shown.sort();
    assert_eq!(filed, shown);
}

// The system's ping.

/// The peer under another search path, as an executable of its own.
fn exe_with_path(dir: &tempfile::TempDir, path: &str) -> PathBuf {
    let exe = peer_exe();
    let text = format!("PATH={path}\nexport PATH\nexec '{}' \"$@\"", exe.display());
    script(&dir.path().join("node"), &text)
}

/// A fleet with this executable, laid out and up.
fn scene_with(exe: PathBuf, args: &str) -> Scene {
    let mut scene = Scene::lay_out_with(exe, 3, 4, ("", args));
    scene.start_seeds();
    scene.start_peers();
    scene.await_overlay(&scene.peers());
    scene
}

#[test]
fn the_systems_ping_is_asked_in_its_turn_and_its_failure_removes_nobody() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let log = dir.path().join("pings");
    let shim = format!("echo \"$PPID $(date +%s%N) $*\" >> '{}'\nexit 1", log.display());
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).expect("a directory can be made");
    script(&bin.join("ping"), &shim);
    let exe = exe_with_path(&dir, &format!("{}:$PATH", bin.display()));
    let mut scene = scene_with(exe, "--gossip-max 0 --host-ping-interval 400ms");
    let pings = || -> BTreeMap<u32, Vec<u64>> {
        let mut all: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for line in fs::read_to_string(&log).unwrap_or_default().lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [pid, nanos, "-c", "1", "-W", "1", "127.0.0.1"] = words[..] else {
                panic!("an unexpected call: {line}");
            };
            let millis = nanos.parse::<u64>().expect("a time") / 1_000_000;
            all.entry(pid.parse().expect("a process")).or_default().push(millis);
        }
        all
    };
    assert!(eventually(|| {
        let pings = pings();
        pings.len() == 4 && pings.values().all(|times| times.len() >= 6)
    }));
    let pids: Vec<_> = scene.peers().iter().filter_map(|it| scene.fleet.pid(*it)).collect();
    for (pid, times) in pings() {
        assert!(pids.contains(&pid), "only peers ask");
        let span = times.last().expect("six") - times[0];
        let turns = u64::try_from(times.len() - 1).expect("few");
        assert!(span / turns >= 350, "{turns} turns in {span} ms, one each 400 ms");
    }
    let lines = scene.lines();
    let bad = doubts(&lines, &["suspected", "removed", "evicted"]);
    assert!(bad.is_empty(), "a failed ping of the host is no verdict: {bad:?}");
    scene.await_lists(&scene.peers());
}

#[test]
fn a_machine_without_ping_is_as_good_as_any() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let exe = exe_with_path(&dir, "/nowhere");
    let mut scene = scene_with(exe, "--gossip-max 0 --host-ping-interval 300ms");
    let peers = scene.peers();
    scene.wait("each says once that there is none", |lines| {
        peers.iter().all(|peer| lines.iter().any(|it| of(it, *peer, "no_host_ping")))
    });
    let victim = peers[0];
    let neighbors = neighborhoods(&scene.lines()).remove(&victim).expect("it has some");
    let before = scene.mark();
    scene.fleet.kill(victim).expect("it runs");
    check_removal(&mut scene, before, victim, &neighbors);
    let lines = scene.lines();
    for peer in peers {
        let told = lines.iter().filter(|it| of(it, peer, "no_host_ping")).count();
        assert_eq!(told, 1, "{peer} says it once");
    }
}

#[test]
fn no_process_outlives_its_fleet() {
    let scene = Scene::up(1, 2, NO_GOSSIP);
    let dir = scene.fleet.dir().to_str().expect("a plain path").to_owned();
    assert_eq!(support::process::processes_with(&dir).len(), 3);
    drop(scene);
    assert!(support::process::processes_with(&dir).is_empty());
}
