//! Shares of a fleet, as real processes: offered through a running peer, found by name, fetched
//! from whoever has pieces, taken by everybody where that is wanted.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};

use support::process::{Process, eventually, run};
use support::{NO_GOSSIP, Scene, peer_exe, ports, words};

/// A fleet without seeds, all in one directory.
struct Fleet {
    dir: tempfile::TempDir,
    ports: Vec<u16>,
    peers: Vec<Process>,
}

impl Fleet {
    fn start(count: u16, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let base = ports();
        let mut fleet = Self { dir, ports: (base..base + count).collect(), peers: Vec::new() };
        for at in 0..usize::from(count) {
            let peer = fleet.peer(at, more);
            fleet.peers.push(peer);
        }
        for peer in &fleet.peers[1..] {
            peer.wait_for("won the neighbor");
        }
        fleet
    }

    fn peer(&self, at: usize, more: &[&str]) -> Process {
        let port = self.ports[at].to_string();
        let first = format!("127.0.0.1:{}", self.ports[0]);
        let join = if at == 0 { vec!["--open"] } else { vec!["--join", &first] };
        let all = [&["--port", &port, "--gossip-max", "0"], &join[..], more].concat();
        Process::start(&peer_exe(), &all, self.dir.path())
    }

    /// One more peer, with flags of its own.
    fn add(&mut self, more: &[&str]) {
        self.ports.push(self.ports[0] + u16::try_from(self.ports.len()).expect("a few"));
        let peer = self.peer(self.ports.len() - 1, more);
        peer.wait_for("won the neighbor");
        self.peers.push(peer);
    }

    /// Waits until a peer can find so many others.
    #[track_caller]
    fn wait_for_others(&self, at: usize, wanted: usize) {
        let line = format!("discover --port {}", self.ports[at]);
        assert!(eventually(|| self.run(&line).1.matches("127.0.0.1:").count() == wanted));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, line: &str) -> (Option<i32>, String, String) {
        let words = words(line);
        let args: Vec<_> = words.iter().map(String::as_str).collect();
        run(&peer_exe(), &args, self.dir.path())
    }

    #[track_caller]
    fn succeeds(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!(code, Some(0), "{line}\n{out}\n{err}");
        out
    }

    #[track_caller]
    fn fails(&self, line: &str, told: &str) {
        let (code, out, err) = self.run(line);
        assert!(code.is_some_and(|it| it != 0) && err.contains(told), "{line}\n{out}\n{err}");
    }

    /// Shares that a peer knows: the name of each, and the number of peers that offer it.
    fn shares(&self, at: usize) -> Vec<(String, u64)> {
        let out = self.succeeds(&format!("shares --json --peer {}", self.ports[at]));
        let line = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let name = value["name"].as_str().expect("a name").to_owned();
            Some((name, value["peers"].as_u64().filter(|_| !value["pid"].is_u64())?))
        };
        out.lines().filter_map(line).collect()
    }

    #[track_caller]
    fn wait_for_shares(&self, at: usize, wanted: &[(&str, u64)]) {
        let wanted: Vec<_> =
            wanted.iter().map(|(name, peers)| ((*name).to_owned(), *peers)).collect();
        let own = |it: &(String, u64)| wanted.iter().any(|other| other.0 == it.0);
        let found = || self.shares(at).into_iter().filter(own).collect::<Vec<_>>();
        assert!(eventually(|| found() == wanted), "{:?}", self.shares(at));
    }
}

fn noise(path: &Path, bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let content: Vec<u8> = (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    fs::write(path, &content).expect("it can be written");
    content
}

#[test]
fn what_one_peer_shares_is_listed_by_all_and_fetched_by_name_until_it_is_shared_no_more() {
    let mut fleet = Fleet::start(3, &[]);
    let content = noise(&fleet.path("fleet-big.bin"), 3_000_000);
    let ticket = fleet.succeeds(&format!("share fleet-big.bin --peer {}", fleet.ports[0]));
    assert!(ticket.starts_with("folkmoot:share?name=fleet-big.bin&size=3000000&"), "{ticket}");
    assert_eq!(ticket.lines().count(), 1);
    fleet.wait_for_shares(2, &[("fleet-big.bin", 1)]);
    fs::create_dir(fleet.path("here")).expect("a directory");
    // The name is that of a file here, too, which is no ticket.
    let line = format!("fetch fleet-big.bin --to here --peer {}", fleet.ports[2]);
    fleet.succeeds(&line);
    assert!(fs::read(fleet.path("here/fleet-big.bin")).expect("it is there") == content);
    fleet.fails(&format!("fetch fleet-none --peer {}", fleet.ports[2]), "no share of the fleet");

    // It is shared again after the peer was killed.
    let first = fleet.peers.remove(0);
    first.signal(rustix::process::Signal::KILL);
    drop(first);
    let first = fleet.peer(0, &[]);
    fleet.peers.insert(0, first);
    fs::create_dir(fleet.path("again")).expect("a directory");
    let line = format!("fetch fleet-big.bin --to again --peer {}", fleet.ports[1]);
    assert!(eventually(|| fleet.run(&line).0 == Some(0)));

    fleet.succeeds(&format!("unshare fleet-big.bin --peer {}", fleet.ports[0]));
    fleet.wait_for_shares(1, &[]);
    fleet.fails(&format!("unshare fleet-big.bin --peer {}", fleet.ports[0]), "nothing that");
    fleet.fails("share fleet-big.bin --everywhere --alone", "running peer");
}

#[test]
fn what_is_wanted_everywhere_is_taken_by_all_that_take_so_much() {
    let fleet = Fleet::start(4, &["--push-max", "1M"]);
    fs::create_dir_all(fleet.path("fleet-folder/deep")).expect("a directory");
    let one = noise(&fleet.path("fleet-folder/one"), 300_000);
    let two = noise(&fleet.path("fleet-folder/deep/two"), 5);
    // It would fit alone, but not beside the folder.
    noise(&fleet.path("fleet-large"), 900_000);
    let at = fleet.ports[1];
    fleet.succeeds(&format!("share fleet-folder --everywhere --peer {at}"));
    for other in [0, 2, 3] {
        fleet.peers[other].wait_for("has all of fleet-folder, verified");
    }
    fleet.succeeds(&format!("share fleet-large --everywhere --peer {at}"));
    for other in [0, 2, 3] {
        let peer = &fleet.peers[other];
        peer.wait_for("does not take fleet-large, wanted everywhere");
        let folder = format!("data/peer-{}/received", fleet.ports[other]);
        let read = |name: &str| fs::read(fleet.path(&folder).join(name)).expect("it is there");
        assert!(read("fleet-folder/one") == one && read("fleet-folder/deep/two") == two);
        assert!(!fleet.path(&folder).join("fleet-large").exists());
    }
    fleet.wait_for_shares(1, &[("fleet-folder", 4), ("fleet-large", 1)]);
}

#[test]
fn downloads_find_each_other_through_the_fleet() {
    let fleet = Fleet::start(3, &[]);
    let content = noise(&fleet.path("fleet-slow.bin"), 4_000_000);
    // Slow enough that one alone would have to wait for both.
    let at = fleet.ports[0];
    let line = format!("share fleet-slow.bin --up 1M --peer {at} --port 0");
    let args = words(&line);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let sharer = Process::start(&peer_exe(), &args, fleet.dir.path());
    sharer.wait_for("folkmoot:share?");
    let ticket = sharer.out().lines().next().expect("a ticket").to_owned();
    let fetch = |at: usize| {
        let to = format!("to-{at}");
        fs::create_dir(fleet.path(&to)).expect("a directory");
        let port = fleet.ports[at].to_string();
        let args = ["fetch", &ticket, "--to", &to, "--peer", &port, "--stay", "--json"];
        Process::start(&peer_exe(), &args, fleet.dir.path())
    };
    let fetchers = [fetch(1), fetch(2)];
    for (at, fetcher) in [(1, &fetchers[0]), (2, &fetchers[1])] {
        fetcher.wait_for("\"event\":\"complete\"");
        let path = fleet.path(&format!("to-{at}")).join("fleet-slow.bin");
        assert!(fs::read(path).expect("it is there") == content);
    }
    let handed_on = |it: &Process| {
        let out = it.out();
        let last = out.lines().rev().find(|line| line.contains("\"up_bytes\":"));
        let last: serde_json::Value =
            serde_json::from_str(last.unwrap_or("{}")).expect("a whole line");
        last["up_bytes"].as_u64().unwrap_or(0)
    };
    let sum = fetchers.iter().map(handed_on).sum::<u64>();
    assert!(sum > 500_000, "they had {sum} bytes from each other");
}

#[test]
fn what_is_invented_takes_no_room_and_few_calls() {
    let fleet = Fleet::start(2, &[]);
    let invented = |number: usize| {
        let name = format!("folkmoot:share?name=v{number}&size=10000000&piece=262144");
        let ticket = format!("{name}&root={number:064x}&at=127.0.0.1:9");
        format!("{{\"ticket\":\"{ticket}\",\"everywhere\":true}}")
    };
    let all: Vec<_> = (1..=64).map(invented).collect();
    let list = format!("{{\"shares\":[{}]}}", all.join(","));
    let port = fleet.ports[1].to_string();
    let args = ["publish", "folkmoot/shares", &list, "--port", &port];
    assert_eq!(run(&peer_exe(), &args, fleet.dir.path()).0, Some(0));
    fleet.peers[0].wait_for("takes v");
    fleet.wait_for_shares(0, &[]);
    let taken = fleet.peers[0].out().lines().filter(|it| it.contains(" takes v")).count();
    assert!((1..=4).contains(&taken), "{taken} at a time");
    let folder = fleet.path(&format!("data/peer-{}/received", fleet.ports[0]));
    let blocks = |it: fs::DirEntry| {
        use std::os::unix::fs::MetadataExt as _;
        it.metadata().expect("it is there").blocks() * 512
    };
    let room: u64 = fs::read_dir(folder).expect("it is there").flatten().map(blocks).sum();
    assert!(room < 1_000_000, "{room} bytes are set aside for nothing");
    // Nobody has any of it: nobody offers it on.
    let offered: Vec<_> = fleet.shares(1).into_iter().filter(|it| it.1 > 1).collect();
    assert_eq!(offered, []);
}

#[test]
fn a_share_whose_file_is_changed_is_told_and_ended_and_the_same_twice_is_one() {
    let fleet = Fleet::start(2, &[]);
    noise(&fleet.path("fleet-frail"), 400_000);
    let line = format!("share fleet-frail --peer {}", fleet.ports[0]);
    let ticket = fleet.succeeds(&line);
    assert_eq!(fleet.succeeds(&line), ticket, "the same");
    fleet.wait_for_shares(1, &[("fleet-frail", 1)]);
    fs::write(fleet.path("fleet-frail"), b"").expect("it can be written");
    let (code, _, _) = fleet
        .run(&format!("fetch fleet-frail --to elsewhere --give-up 2s --peer {}", fleet.ports[1]));
    assert_ne!(code, Some(0));
    fleet.peers[0].wait_for("does not share fleet-frail any more");
    assert!(eventually(|| fleet.shares(1).is_empty()));
}

#[test]
fn a_new_version_under_an_old_name_is_taken_by_all_and_the_old_one_stays_beside_it() {
    let fleet = Fleet::start(2, &[]);
    let at = fleet.ports[0];
    fs::create_dir(fleet.path("fleet-release")).expect("a directory");
    noise(&fleet.path("fleet-release/blob"), 100_000);
    let received = fleet.path(&format!("data/peer-{}/received", fleet.ports[1]));
    let app = || fs::read_to_string(received.join("fleet-release/app")).unwrap_or_default();
    for version in ["v1", "v2"] {
        fs::write(fleet.path("fleet-release/app"), version).expect("a file");
        fleet.succeeds(&format!("share fleet-release --everywhere --peer {at}"));
        assert!(eventually(|| app() == version), "{version}: {:?}", app());
    }
    let versions = fs::read_dir(received.join(".versions")).expect("a folder").count();
    assert_eq!(versions, 2);
}

#[test]
fn who_waits_for_everybody_is_told_how_many_have_it_and_why_others_have_not() {
    let mut fleet = Fleet::start(3, &[]);
    let at = fleet.ports[1];
    fleet.wait_for_others(1, 2);
    let content = noise(&fleet.path("fleet-all"), 700_000);
    let order = format!("share fleet-all --everywhere --peer {at} --wait");
    let (code, out, err) = fleet.run(&order);
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(err.contains("2 of 2 have it"), "{err}");
    for other in [0, 2] {
        let path = format!("data/peer-{}/received/fleet-all", fleet.ports[other]);
        assert!(fs::read(fleet.path(&path)).expect("it is there") == content);
    }
    // What all have is answered for at once, also when it is asked for again.
    assert_eq!(fleet.run(&order).0, Some(0));

    fleet.add(&["--no-push"]);
    fleet.add(&["--push-max", "1K"]);
    fleet.wait_for_others(1, 4);
    let (code, out, err) = fleet.run(&order);
    assert_eq!(code, Some(4), "{out}\n{err}");
    let refuses = |at: usize, why: &str| {
        let who = format!("127.0.0.1:{} refuses: ", fleet.ports[at]);
        err.lines().any(|line| line.starts_with(&who) && line.contains(why))
    };
    assert!(refuses(3, "--no-push") && refuses(4, "--push-max"), "{err}");
    assert!(err.contains("2 of 4 have it"), "{err}");

    // Holes, which are sent as bytes: nobody has all of them in no time.
    let late = fs::File::create(fleet.path("fleet-late")).expect("a file");
    late.set_len(200_000_000).expect("holes");
    let (code, _, err) =
        fleet.run(&format!("share fleet-late --everywhere --peer {at} --wait 1ms"));
    assert!(matches!(code, Some(3 | 4)) && err.contains("after 1ms"), "{code:?} {err}");
    fleet.fails(&format!("share fleet-late --peer {at} --wait"), "--everywhere");
}

#[test]
fn the_name_is_that_of_the_last_order_although_an_older_one_is_complete_later() {
    let fleet = Fleet::start(2, &[]);
    let at = fleet.ports[0];
    fs::create_dir_all(fleet.path("old/fleet-rel")).expect("a directory");
    fs::create_dir_all(fleet.path("new/fleet-rel")).expect("a directory");
    noise(&fleet.path("old/fleet-rel/blob"), 60_000_000);
    fs::write(fleet.path("old/fleet-rel/app"), "old").expect("a file");
    fs::write(fleet.path("new/fleet-rel/app"), "new").expect("a file");
    fleet.succeeds(&format!("share old/fleet-rel --everywhere --peer {at}"));
    fleet.succeeds(&format!("share new/fleet-rel --everywhere --peer {at}"));
    let told = || fleet.peers[1].out().matches("has all of fleet-rel, verified").count();
    assert!(eventually(|| told() == 2), "{}", fleet.peers[1].out());
    let received = fleet.path(&format!("data/peer-{}/received", fleet.ports[1]));
    let app = || fs::read_to_string(received.join("fleet-rel/app")).unwrap_or_default();
    assert_eq!(app(), "new");
    // The way back is an order, too.
    fleet.succeeds(&format!("share old/fleet-rel --everywhere --peer {at} --wait"));
    assert!(eventually(|| app() == "old"), "{}", app());
}

#[test]
fn what_was_taken_is_removed_everywhere_for_the_peer_that_ordered_it_and_nothing_else_is() {
    let mut fleet = Fleet::start(2, &[]);
    let (at, other) = (fleet.ports[0], fleet.ports[1]);
    fleet.wait_for_others(0, 1);
    fs::create_dir(fleet.path("fleet-tool")).expect("a directory");
    let received = fleet.path(&format!("data/peer-{other}/received"));
    let versions = || {
        let all = fs::read_dir(received.join(".versions")).expect("a folder").flatten();
        all.map(|it| it.path()).collect::<Vec<_>>()
    };
    for version in ["v1", "v2", "v3"] {
        fs::write(fleet.path("fleet-tool/app"), version).expect("a file");
        fleet.succeeds(&format!("share fleet-tool --everywhere --wait --peer {at}"));
    }
    assert_eq!(versions().len(), 3);
    let of = |version: &str| {
        let app = |it: &PathBuf| fs::read_to_string(it.join("fleet-tool/app")).ok();
        versions().into_iter().find(|it| app(it).as_deref() == Some(version))
    };
    // One has a file of somebody else's beside the content, one among it, one is behind a link.
    let (v1, v2, v3) = (of("v1").expect("v1"), of("v2").expect("v2"), of("v3").expect("v3"));
    fs::write(v1.join("notes"), "mine").expect("a file");
    fs::write(v2.join("fleet-tool/mine"), "mine").expect("a file");
    fs::rename(&v3, fleet.path("elsewhere")).expect("it moves");
    std::os::unix::fs::symlink(fleet.path("elsewhere"), &v3).expect("a link");
    // It is remembered whose they are.
    let second = fleet.peers.remove(1);
    second.signal(rustix::process::Signal::KILL);
    drop(second);
    let second = fleet.peer(1, &[]);
    fleet.peers.push(second);

    assert!(eventually(|| fleet.run(&format!("shares --peer {other}")).0 == Some(0)));
    fleet.fails(&format!("unshare fleet-tool --everywhere --peer {other}"), "has not shared");
    fleet.succeeds(&format!("unshare fleet-tool --everywhere --peer {at}"));
    let told = |text: &str| fleet.peers[1].out().matches(text).count();
    let is_told =
        || told("has removed a version of fleet-tool") + told("does not remove a version of") == 3;
    assert!(eventually(is_told), "{}", fleet.peers[1].out());
    assert_eq!(told("was changed there"), 1);
    assert_eq!(told("is behind a link"), 1);
    assert_eq!(fs::read_to_string(v1.join("notes")).expect("it stays"), "mine");
    assert!(!v1.join("fleet-tool").exists());
    assert_eq!(fs::read_to_string(v2.join("fleet-tool/mine")).expect("it stays"), "mine");
    assert!(fleet.path("elsewhere/fleet-tool/app").exists());
    // A later order is not meant.
    fs::write(fleet.path("fleet-tool/app"), "v4").expect("a file");
    fleet.succeeds(&format!("share fleet-tool --everywhere --wait --peer {at}"));
    let app = || fs::read_to_string(received.join("fleet-tool/app")).unwrap_or_default();
    assert!(eventually(|| app() == "v4"), "{}", app());
    fleet.succeeds(&format!("unshare fleet-tool --everywhere --peer {at}"));
    assert!(
        eventually(|| received.join("fleet-tool").symlink_metadata().is_err() || app() == "v2")
    );
    assert!(of("v4").is_none());
}

#[test]
fn the_same_content_under_a_second_name_is_a_second_share() {
    let fleet = Fleet::start(2, &[]);
    let at = fleet.ports[0];
    let content = noise(&fleet.path("fleet-one"), 50_000);
    fs::write(fleet.path("fleet-two"), &content).expect("a file");
    fleet.succeeds(&format!("share fleet-one --peer {at}"));
    let second = fleet.succeeds(&format!("share fleet-two --peer {at}"));
    assert!(second.contains("name=fleet-two&"), "{second}");
    fleet.wait_for_shares(1, &[("fleet-one", 1), ("fleet-two", 1)]);
    fleet.succeeds(&format!("unshare fleet-one --peer {at}"));
    fleet.wait_for_shares(1, &[("fleet-two", 1)]);
    let line = format!("fetch fleet-two --to here --peer {}", fleet.ports[1]);
    fleet.succeeds(&line);
    assert!(fs::read(fleet.path("here/fleet-two")).expect("it is there") == content);
    // Once more is no fault: it is there.
    fleet.succeeds(&line);
}

#[test]
fn a_share_at_an_address_of_its_own_is_not_left_to_a_peer_at_another() {
    let fleet = Fleet::start(1, &[]);
    let content = noise(&fleet.path("fleet-apart"), 100_000);
    let args = ["share", "fleet-apart", "--ip", "127.0.0.2"];
    let share = Process::start(&peer_exe(), &args, fleet.dir.path());
    share.wait_for("&at=127.0.0.2:");
    fs::create_dir(fleet.path("to")).expect("a directory");
    fleet.succeeds(&format!("fetch {} --to to --alone", share.out().trim()));
    assert!(fs::read(fleet.path("to/fleet-apart")).expect("it is there") == content);
    let (code, _, err) = fleet.run("share fleet-apart --everywhere --ip 127.0.0.2");
    assert!(code == Some(2) && err.contains("no --ip"), "{err}");
    // A peer at that address serves it.
    let ticket = fleet.succeeds("share fleet-apart --everywhere --ip 127.0.0.1");
    assert!(ticket.contains(&format!("&at=127.0.0.1:{}", fleet.ports[0])), "{ticket}");
}

#[test]
fn the_swarms_of_a_machine_are_also_those_of_its_peers() {
    let fleet = Fleet::start(2, &[]);
    noise(&fleet.path("fleet-seen"), 100_000);
    let is_listed = || {
        let out = fleet.succeeds("swarm status --json");
        let lines = out.lines().map(serde_json::from_str::<serde_json::Value>);
        let pid = fleet.peers[1].pid();
        let is_it = |it: &serde_json::Value| {
            (&it["name"], &it["kind"], &it["pid"])
                == (&"fleet-seen".into(), &"share".into(), &pid.into())
        };
        lines.map(|it| it.expect("JSON")).filter(is_it).count() == 1
    };
    assert!(!is_listed());
    fleet.succeeds(&format!("share fleet-seen --peer {}", fleet.ports[1]));
    assert!(is_listed());
    fleet.succeeds(&format!("unshare fleet-seen --peer {}", fleet.ports[1]));
    assert!(!is_listed());
}

#[test]
fn hashing_in_a_running_peer_ends_with_the_command_that_wanted_it() {
    let fleet = Fleet::start(1, &[]);
    let huge = fs::File::create(fleet.path("fleet-huge")).expect("a file");
    huge.set_len(64 << 30).expect("holes");
    let port = fleet.ports[0].to_string();
    assert!(eventually(|| fleet.run(&format!("shares --peer {port}")).0 == Some(0)));
    let args = ["share", "fleet-huge", "--peer", &port];
    let command = Process::start(&peer_exe(), &args, fleet.dir.path());
    // Threads of processes that work in this folder: the peer's own process may be a child.
    let hashing = || {
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        let here = processes.filter(|it| {
            fs::read_link(it.path().join("cwd")).is_ok_and(|cwd| cwd == fleet.dir.path())
        });
        let threads = here.filter_map(|it| fs::read_dir(it.path().join("task")).ok()).flatten();
        let name = |it: fs::DirEntry| fs::read_to_string(it.path().join("comm")).ok();
        threads.flatten().filter_map(name).any(|it| it.starts_with("hash:") || it.trim() == "share")
    };
    assert!(eventually(hashing), "it hashes");
    command.signal(rustix::process::Signal::INT);
    assert!(eventually(|| !hashing()), "it goes on without anybody who wants it");
    assert_eq!(fleet.shares(0), []);
}

#[test]
fn members_that_take_no_shares_are_not_waited_for() {
    let scene = Scene::up(1, 2, NO_GOSSIP);
    let (dir, config) = (scene.fleet.dir(), scene.fleet.config());
    let port = ports().to_string();
    let config = config.to_str().expect("a plain path");
    let args = ["chat", "--id", "1", "--port", &port, "--config", config, "--stay", "--plain"];
    let chat = Process::start(&peer_exe(), &args, dir);
    chat.wait_for("leads");
    let at = scene.peers()[0].port().to_string();
    let finds = || run(&peer_exe(), &["discover", "--port", &at], dir).1;
    assert!(eventually(|| finds().matches("127.0.0.1:").count() == 2), "{}", finds());
    fs::write(dir.join("fleet-all"), "all of it").expect("a file");
    let order = ["share", "fleet-all", "--everywhere", "--peer", &at, "--wait", "60s"];
    let (code, out, err) = run(&peer_exe(), &order, dir);
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(err.contains("1 of 1 have it"), "{err}");
}
