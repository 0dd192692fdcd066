//! `peer chat --order bft` with real processes: four screens on one order, of which one may lie,
//! stop or be gone, and what each of them says about it.

use crate::support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use folkmoot::model::{KeyPair, Rng};
use folkmoot::proto::bft::message::Message;
use folkmoot::proto::bft::{
    ContentDigest, EpochNo, OrderId, PhaseVote, SlotNo, ViewNo, VotePhase, VoteSubject,
};
use folkmoot::proto::chat::entry::MemberId;
use folkmoot::runtime::order::client::OrderClient;
use rand::SeedableRng as _;
use serde_json::Value;
use support::process::{Process, eventually, run};
use support::talker::Talker;
use support::{peer_exe, ports};

const FLAGS: [&str; 4] = ["--order", "bft", "--roster", "roster.txt"];

/// A group on this machine, in a directory of its own.
struct Group {
    dir: tempfile::TempDir,
    base: u16,
}

impl Group {
    /// A roster of so many members, of which none runs yet.
    fn of(members: u32) -> Self {
        let group = Self { dir: tempfile::tempdir().expect("there is room"), base: ports() };
        let roster: String = (1..=members).map(|id| group.keygen(id)).collect();
        fs::write(group.dir.path().join("roster.txt"), roster).unwrap();
        group
    }

    /// Four members with a screen each, which reach each other.
    fn of_four() -> (Self, Vec<Talker>) {
        let group = Self::of(4);
        let talkers: Vec<_> = (1..=4).map(|id| group.start(id)).collect();
        group.wait_for_reach(&[1, 2, 3, 4], 4);
        (group, talkers)
    }

    fn port(&self, id: u32) -> u16 {
        self.base + u16::try_from(id).expect("a small number")
    }

    fn keygen(&self, id: u32) -> String {
        let (id, port) = (id.to_string(), self.port(id).to_string());
        let (code, out, err) = self.run(&["order", "keygen", "--id", &id, "--port", &port]);
        assert_eq!(code, Some(0), "{err}");
        out
    }

    fn start(&self, id: u32) -> Talker {
        let at = ("127.0.0.1", self.port(id));
        Talker::start(Command::new(peer_exe()), id, at, &FLAGS, self.dir.path())
    }

    fn attach(&self, id: u32) -> Talker {
        let flags = ["--id", &id.to_string()];
        Talker::attach(Command::new(peer_exe()), id, &flags, self.dir.path())
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        run(&peer_exe(), args, self.dir.path())
    }

    /// Complaint of a command that ends with this code.
    #[track_caller]
    fn refused(&self, code: i32, args: &[&str]) -> String {
        let (ended, out, err) = self.run(args);
        assert_eq!(ended, Some(code), "{args:?}: {out}{err}");
        err
    }

    /// Status of a member; `null` while it does not answer.
    fn status(&self, id: u32) -> Value {
        let (_, out, _) = self.run(&["chat", "status", "--json", "--id", &id.to_string()]);
        serde_json::from_str(&out).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for_reach(&self, ids: &[u32], reached: u64) {
        let is_there = || ids.iter().all(|id| self.status(*id)["reached"] == reached);
        assert!(
            eventually(is_there),
            "{:#?}",
            ids.iter().map(|it| self.status(*it)).collect::<Vec<_>>()
        );
    }
}

#[track_caller]
fn same_messages(talkers: &[Talker]) {
    let first = talkers[0].messages();
    for it in talkers {
        assert!(eventually(|| it.messages() == first), "peer_{}: {}", it.id, it.out());
    }
}

#[test]
fn what_is_typed_at_each_of_four_screens_is_final_at_all_in_one_order() {
    let (group, mut talkers) = Group::of_four();
    for it in &mut talkers {
        it.wait_for(": 4 members, one liar is borne, 3 decide");
        for number in 1..=5 {
            it.type_line(&format!("line {number}"));
        }
    }
    talkers.iter().for_each(|it| it.wait_for_count(20));
    same_messages(&talkers);
    for id in 1..=4 {
        let head = format!("<peer_{id}>: ");
        let own = talkers[0].messages();
        let own: Vec<_> = own.iter().filter_map(|it| it.1.strip_prefix(&head)).collect();
        assert_eq!(own, ["line 1", "line 2", "line 3", "line 4", "line 5"]);
    }

    // A second screen, programs, and the commands of an order all meet the same member.
    let mut second = group.attach(2);
    second.wait_for(": 4 members, one liar is borne, 3 decide");
    second.type_line("by another screen");
    talkers.push(second);
    talkers[..4].iter().for_each(|it| it.wait_for("[seq=21] <peer_2>: by another screen"));
    talkers[4].wait_for("[seq=21] <peer_2>: by another screen");
    let sent = group.run(&["chat", "send", "--id", "3", "--wait", "50s", "by a program"]);
    assert_eq!((sent.0, sent.1.as_str()), (Some(0), "final: seq 22\n"), "{}", sent.2);
    let (_, history, _) = group.run(&["chat", "history", "2", "--id", "4"]);
    let wanted = "[seq=21] <peer_2>: by another screen\n[seq=22] <peer_3>: by a program\n";
    assert_eq!(history, wanted);
    let port = group.port(1).to_string();
    let (code, out, err) = group.run(&["order", "follow", "21", "--count", "1", "--port", &port]);
    assert_eq!((code, out.as_str()), (Some(0), "[21] peer_2: by another screen\n"), "{err}");

    let status = group.status(1);
    let told = ["members", "epoch", "view", "leader", "reached", "evidence", "slot"];
    assert!(told.iter().all(|it| !status[it].is_null()), "{status:#}");
    for (field, value) in [("liars_borne", 1), ("quorum", 3), ("place", 22), ("failures_left", 1)] {
        assert_eq!(status[field], value, "{field}: {status:#}");
    }
    assert_eq!((&status["order"], &status["is_halted"]), (&"order".into(), &false.into()));
    talkers[0].type_line("/status");
    for line in ["Reach: 4 of 4 reached\n", "\nLeader: peer_", "\nFinal: place 22, slot "] {
        talkers[0].wait_for(line);
    }

    // What this order does not have says what to do instead.
    talkers[0].type_line("/remove 2");
    talkers[0].wait_for("keeps the members of its roster");
    let ask = |words: &[&str]| group.refused(1, &[&["chat"], words, &["--id", "1"]].concat());
    assert!(ask(&["remove", "2"]).contains("another group with another roster"));
    assert!(ask(&["recover", "--i-know"]).contains("start its members again"));
    assert!(ask(&["verify"]).contains("peer order verify data/logs/order_*"));
    assert!(
        group.refused(2, &["chat", "verify", "data/logs/order_1"]).contains("peer order verify")
    );
    for it in talkers.into_iter().rev() {
        it.quit();
    }
    let logs: Vec<_> = (1..=4).map(|id| format!("data/logs/order_{id}")).collect();
    let logs = logs.iter().map(|it| &**it);
    let args: Vec<_> = ["order", "verify"].into_iter().chain(logs).collect();
    let (code, out, err) = group.run(&args);
    assert_eq!(code, Some(0), "{out}{err}");
}

#[test]
fn a_dead_leader_is_replaced_and_with_two_gone_what_is_typed_waits() {
    let (group, mut talkers) = Group::of_four();
    talkers[0].type_line("one");
    talkers.iter().for_each(|it| it.wait_for("[seq=1] <peer_1>: one"));
    let leader = u32::try_from(group.status(1)["leader"].as_u64().unwrap()).unwrap();
    let at = talkers.iter().position(|it| it.id == leader).unwrap();
    talkers.remove(at).kill();
    talkers[0].type_line("two");
    for it in &talkers {
        it.wait_for(&format!("[seq=2] <peer_{}>: two", talkers[0].id));
        it.wait_for("the connection with its leader broke");
        it.wait_for("has begun; peer_");
    }
    let one_more = || group.run(&["chat", "status", "--id", &talkers[0].id.to_string()]).1;
    assert!(
        eventually(|| one_more().contains("one more failure halts the order")),
        "{}",
        one_more()
    );

    let gone = talkers.remove(2);
    let id = gone.id;
    gone.kill();
    for it in &talkers {
        it.wait_for("halted: 2 of 4 reached, 3 are needed; what is typed waits");
    }
    talkers[1].type_line("three");
    let waits = || {
        let status = group.status(talkers[1].id);
        status["is_halted"] == true && status["pending"] == 1
    };
    assert!(eventually(waits), "{}", talkers[1].out());
    let met = group.attach(talkers[0].id);
    met.wait_for("halted: 2 of 4 reached, 3 are needed; what is typed waits");
    let back = group.start(id);
    for it in &talkers {
        it.wait_for("enough members are reached again; the order goes on");
        it.wait_for(&format!("[seq=3] <peer_{}>: three", talkers[1].id));
    }
    // It reads on from where its log ends; `/history` has the rest.
    back.wait_for(&format!("[seq=3] <peer_{}>: three", talkers[1].id));
}

#[test]
fn a_member_that_has_lied_is_named_on_every_honest_screen() {
    let group = Group::of(3);
    let keys = KeyPair::from_secret([4; 32]);
    let file = group.dir.path().join("roster.txt");
    let line = format!("4 127.0.0.1:{} {}\n", group.port(4), keys.public());
    fs::write(&file, fs::read_to_string(&file).unwrap() + &line).unwrap();
    let talkers: Vec<_> = (1..=3).map(|id| group.start(id)).collect();
    group.wait_for_reach(&[1, 2, 3], 3);
    let id = group.status(1)["group"].as_str().and_then(OrderId::parse).unwrap();
    let (at, me) = (([127, 0, 0, 1], group.port(1)).into(), (MemberId(4), &keys));
    let mut rng = Rng::seed_from_u64(4);
    let mut liar = OrderClient::connect(at, id, me, &mut rng, Duration::from_secs(60)).unwrap();
    let view = ViewNo(group.status(1)["view"].as_u64().unwrap());
    for digest in [1, 2] {
        let digest = ContentDigest([digest; 32]);
        let subject = VoteSubject { epoch: EpochNo(0), view, slot: SlotNo(1), digest };
        let vote = PhaseVote::sign(&id, VotePhase::Prepare, subject, me);
        liar.send(&Message::Prepare(vote)).unwrap();
    }
    for it in &talkers {
        it.wait_for("* peer_4 has signed two different PREPAREs for slot 1");
    }
    let (_, out, _) = group.run(&["chat", "status", "--id", "3"]);
    assert!(out.contains("Evidence:\n  peer_4 has signed two different PREPAREs"), "{out}");
    assert_eq!(group.status(2)["evidence"].as_array().map(Vec::len), Some(1));
    group.attach(2).wait_for("* peer_4 has signed two different PREPAREs for slot 1");
}

#[test]
fn a_screen_attaches_to_a_node_that_carries_an_order() {
    let group = Group::of(4);
    let nodes = (1..=4).map(|id| {
        let port = group.port(id).to_string();
        let args = ["--port", &port, "--config", "none.txt", "--order", "roster.txt"];
        Process::start(&peer_exe(), &args, group.dir.path())
    });
    let _nodes: Vec<_> = nodes.collect();
    group.wait_for_reach(&[1, 2, 3, 4], 4);
    let mut talkers: Vec<_> = (1..=4).map(|id| group.attach(id)).collect();
    talkers.iter_mut().for_each(|it| it.type_line("hello"));
    talkers.iter().for_each(|it| it.wait_for_count(4));
    same_messages(&talkers);
    talkers.into_iter().for_each(|it| drop(it.quit()));
}

#[test]
fn wrong_flags_end_with_their_exit_code_and_a_remedy() {
    let group = Group::of(2);
    let port = group.port(1).to_string();
    let chat = |flags: &[&str]| {
        let id = ["chat", "--plain", "--id", "1", "--port", &port];
        group.refused(2, &[&id[..], flags].concat())
    };
    assert!(chat(&["--order", "bft"]).contains("peer order keygen --id 1"));
    assert!(chat(&["--roster", "roster.txt"]).contains("add --order bft"));
    assert!(chat(&["--order", "bft", "--roster", "none.txt"]).contains("cannot read the roster"));
    assert!(chat(&[&FLAGS[..], &["--seed", "127.0.0.1:1"]].concat()).contains("--seed"));
    let id = ["chat", "--plain", "--id", "2", "--port", &port];
    assert!(group.refused(2, &[&id[..], &FLAGS].concat()).contains("say --port"));
    let id = ["chat", "--plain", "--id", "3", "--port", &port];
    assert!(group.refused(2, &[&id[..], &FLAGS].concat()).contains("no line of peer_3"));
    let other = group.port(2).to_string();
    let id = ["chat", "--plain", "--id", "2", "--port", &other, "--data", "else"];
    assert!(group.refused(2, &[&id[..], &FLAGS].concat()).contains("has another key for peer_2"));

    let logs = group.dir.path().join("data/logs");
    fs::create_dir_all(&logs).unwrap();
    fs::write(logs.join("peer_1.log"), "").unwrap();
    assert!(chat(&FLAGS).contains("leave out --order bft"));
    fs::rename(logs.join("peer_1.log"), logs.join("order_1")).unwrap();
    assert!(chat(&[]).contains("add --order bft --roster FILE"));
}
