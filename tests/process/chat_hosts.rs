//! A chat across hosts that are cut apart, with a leader that stands still, and in a fleet.

#![allow(clippy::print_stdout, reason = "a skipped test says why")]

use crate::support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use folkmoot::model::Time;
use folkmoot::runtime::clock::Clock;
use rustix::process::{Signal, kill_process};
use support::hosts::{Net, obstacle};
use support::process::{eventually, run};
use support::seeds::Seeds;
use support::talker::Talker;
use support::terminal::{OnTerminal, only_child};
use support::{peer_exe, ports};

const PORT: u16 = 6_001;

/// Five members on five hosts, led by the fifth.
fn of_five(net: &Net, dir: &Path) -> Vec<Talker> {
    let seed = format!("1:{}:{PORT}", Net::address(0));
    let mut talkers = Vec::new();
    for (host, id) in (1..=5).enumerate() {
        let command = net.command(host, &peer_exe());
        let flags: &[&str] = if id == 1 { &[] } else { &["--seed", &seed] };
        let at = Net::address(host).to_string();
        talkers.push(Talker::start(command, id, (&at, PORT), flags, dir));
    }
    for host in 1..5 {
        let at = Net::address(host);
        talkers[0].wait_for(&format!("peer_{} at {at}:{PORT} has joined the group", host + 1));
    }
    let follows = |it: &Talker| it.out().contains("peer_5 leads in term");
    if !eventually(|| talkers[..4].iter().all(follows)) {
        let told: Vec<_> =
            talkers.iter().map(|it| format!("{}\n{}", it.out(), standing(it.id, dir).0)).collect();
        panic!("not all follow peer_5:\n{}", told.join("\n\n"));
    }
    talkers
}

/// All have shown the same messages under the same numbers, and their logs are equal.
#[track_caller]
fn check_equal(talkers: Vec<Talker>, count: usize, dir: &Path) {
    for talker in &talkers {
        talker.wait_for_count(count);
    }
    let mut shown: Vec<_> = talkers.iter().map(Talker::messages).collect();
    shown.iter_mut().for_each(|it| it.sort());
    for (talker, it) in talkers.iter().zip(&shown) {
        assert_eq!(it, &shown[0], "peer_{}", talker.id);
        assert_eq!(it.len(), count, "peer_{}", talker.id);
        assert!(talker.messages().is_sorted_by_key(|it| it.0), "peer_{}", talker.id);
    }
    talkers.into_iter().for_each(Talker::kill);
    let (code, out, err) = run(&peer_exe(), &["chat", "verify", "--log-dir", "data/logs"], dir);
    assert_eq!(code, Some(0), "{out}{err}");
}

#[test]
fn two_and_three_that_are_cut_apart_have_one_order_afterwards() {
    if let Some(obstacle) = obstacle() {
        println!("skipped: no network namespaces here: {obstacle}");
        return;
    }
    let net = Net::with_hosts(5).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut talkers = of_five(&net, dir.path());
    talkers[0].type_line("before");
    talkers.iter().for_each(|it| it.wait_for_messages(&["<peer_1>: before"]));

    // The leader is with the two.
    net.split(&[&[0, 1, 2], &[3, 4]]);
    talkers[4].wait_for("no majority");
    for talker in &mut talkers {
        talker.type_line(&format!("while cut, of {}", talker.id));
    }
    talkers[0].wait_for("peer_3 leads in term");
    talkers[..3].iter().for_each(|it| it.wait_for_count(4));
    for talker in &talkers[3..] {
        assert_eq!(talker.messages().len(), 1, "a minority makes nothing final");
    }

    net.join();
    for talker in &talkers[..4] {
        let leads = |out: &str| out.matches("peer_5 leads in term").count() >= 2;
        assert!(eventually(|| leads(&talker.out())), "{}", talker.out());
    }
    talkers[3].type_line("after");
    check_equal(talkers, 7, dir.path());
}

/// Status of a member, and the time since it heard each other, in ms; the longest for one that it
/// never heard.
fn standing(id: u32, dir: &Path) -> (serde_json::Value, Vec<u64>) {
    let words = ["chat", "status", "--id", &id.to_string(), "--json"];
    let (_, out, _) = run(&peer_exe(), &words, dir);
    let status: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
    let members = status["members"].as_array().cloned().unwrap_or_default();
    let others = members.iter().filter(|it| it["node_id"] != id);
    let heard = others.map(|it| it["heard_ms"].as_u64().unwrap_or(u64::MAX)).collect();
    (status, heard)
}

/// Packets vanish for so long that the system, left to itself, would next try after half a minute.
#[test]
fn a_member_behind_a_silent_network_knows_it_and_is_soon_heard_when_it_heals() {
    if let Some(obstacle) = obstacle() {
        println!("skipped: no network namespaces here: {obstacle}");
        return;
    }
    let net = Net::with_hosts(5).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut talkers = of_five(&net, dir.path());
    let is_whole = |heard: &[u64]| heard.len() == 4 && heard.iter().all(|it| *it < 10_000);
    assert!(eventually(|| is_whole(&standing(4, dir.path()).1)), "it hears all others");
    net.split(&[&[0, 1, 2, 4], &[3]]);
    let is_alone = || {
        let (status, _) = standing(4, dir.path());
        let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
        let linked = members.iter().filter(|it| it["linked"] == true).count();
        status["quorum"] == false && linked == 1
    };
    assert!(eventually(is_alone), "no connection looks alive: {:?}", standing(4, dir.path()));
    talkers[3].type_line("while nobody heard it");
    let silent = |ms: u64| move |heard: &[u64]| heard.len() == 4 && heard.iter().all(|it| *it > ms);
    assert!(eventually(|| silent(27_000)(&standing(4, dir.path()).1)));
    net.join();
    let clock = Clock::start();
    talkers[..3].iter().for_each(|it| it.wait_for_count(1));
    let took = clock.now().mono.since(Time::ZERO);
    println!("final {:.2} s after the network healed", took.as_secs_f32());
    // Left to itself the system tries again after 24 s.
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(eventually(|| is_whole(&standing(4, dir.path()).1)));
    check_equal(talkers, 1, dir.path());
}

#[test]
fn a_leader_that_stands_still_is_replaced_and_comes_back_without_contradiction() {
    let dir = tempfile::tempdir().unwrap();
    let base = ports();
    let seed = format!("1:127.0.0.1:{base}");
    let mut talkers: Vec<_> = (1..=3)
        .map(|id| {
            let flags: &[&str] = if id == 1 { &[] } else { &["--seed", &seed] };
            let at = ("127.0.0.1", base + u16::try_from(id).unwrap() - 1);
            Talker::start(Command::new(peer_exe()), id, at, flags, dir.path())
        })
        .collect();
    for id in [2, 3] {
        talkers[0].wait_for(&format!("peer_{id} at 127.0.0.1:{} has joined", base + id - 1));
    }
    talkers[0].wait_for("peer_3 leads in term");
    talkers[1].wait_for("peer_3 leads in term");
    talkers[2].type_line("before");
    talkers[0].wait_for_count(1);
    talkers[2].signal(Signal::STOP);
    // What was typed at it waits in the pipe, and is said when it goes on.
    talkers[2].type_line("of the frozen");
    for turn in 0..20 {
        talkers[turn % 2].type_line(&format!("meanwhile {turn}"));
    }
    talkers[..2].iter().for_each(|it| it.wait_for_count(21));
    talkers[0].wait_for("peer_2 leads in term");
    talkers[2].signal(Signal::CONT);
    check_equal(talkers, 22, dir.path());
}

#[test]
fn in_a_fleet_members_find_their_group_and_whom_the_seeds_certify_to_be_gone_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let base = ports();
    let _seeds = Seeds::start(dir.path(), base);
    let start = |id: u32| {
        let at = ("127.0.0.1", base + 10 + u16::try_from(id).unwrap());
        Talker::start(Command::new(peer_exe()), id, at, &["--stay"], dir.path())
    };
    // At the same moment, and nobody is told of anybody.
    let mut talkers: Vec<_> = (1..=3).map(start).collect();
    talkers[0].wait_for("peer_3 leads in term");
    talkers[1].wait_for("peer_3 leads in term");
    let members = |id: &str| {
        let (_, out, _) = run(&peer_exe(), &["chat", "status", "--id", id, "--json"], dir.path());
        let status: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
        status["members"].as_array().map_or(0, Vec::len)
    };
    // Whoever follows a leader is not one of the group yet.
    assert!(eventually(|| members("1") == 3 && members("2") == 3));
    talkers[0].type_line("one group");
    talkers.iter().for_each(|it| it.wait_for_count(1));

    talkers.remove(0).kill();
    talkers[0].wait_for("peer_1 was removed from the group");
    talkers[0].type_line("without the first");
    talkers.iter().for_each(|it| it.wait_for_count(2));

    // By then it is another life of its endpoint, and the group takes it in again.
    let first = start(1);
    let joined = |out: &str| out.matches("has joined the group").count() > 0;
    assert!(eventually(|| joined(&first.out())), "{}\n{}", first.out(), first.err());
    talkers.insert(0, first);
    talkers[0].type_line("and with it");
    talkers[1..].iter().for_each(|it| it.wait_for_count(3));
    let shown: Vec<_> = talkers.iter().map(|it| it.messages().pop()).collect();
    assert_eq!(shown[1], shown[2]);
}

#[test]
fn a_chat_in_a_container_whose_session_began_outside_stops_and_goes_on() {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let peer = peer_exe();
    let port = ports().to_string();
    // The first process of a container cannot be stopped: there is a shell in between.
    let mut args = vec!["--pid", "--fork", "--kill-child", "sh", "-c", "\"$@\"; exit $?", "sh"];
    args.push(peer.to_str().unwrap());
    args.extend(["chat", "--id", "1", "--host", "127.0.0.1", "--port", &port]);
    let mut it = OnTerminal::start(Path::new("unshare"), &args, dir.path(), "xterm-256color");
    it.wait_for("peer_1");
    let chat = only_child(only_child(it.pid()));
    it.type_keys("\x1a");
    it.wait_for("\x1b[?1049l");
    let status = format!("/proc/{}/status", chat.as_raw_pid());
    assert!(eventually(|| fs::read_to_string(&status).unwrap().contains("T (stopped)")));
    it.forget();
    kill_process(chat, Signal::CONT).unwrap();
    it.wait_for("peer_1");
    it.type_keys("/quit\r");
    assert_eq!(it.wait_for_end(), Some(0), "{}", it.written());
}
