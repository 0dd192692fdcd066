//! `peer --order` and `peer order` with real processes: an order of four members by hand, what it
//! bears, and what it says about what it does not.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use folkmoot::{Network, Order, OrderError, OrderRoster, Place};
use rustix::process::Signal;
use serde_json::Value;
use support::process::{Process, eventually, run};
use support::{peer_exe, ports};

/// The members of one group on this machine, in a directory of their own.
pub struct Group {
    dir: tempfile::TempDir,
    base: u16,
    pub running: BTreeMap<u32, Process>,
}

impl Group {
    /// A roster of so many members, of which none runs yet.
    pub fn of(members: u32) -> Self {
        let dir = tempfile::tempdir().expect("there is room");
        let group = Self { dir, base: ports(), running: BTreeMap::new() };
        let roster: String = (1..=members).map(|id| group.keygen(id)).collect();
        fs::write(group.path("roster.txt"), roster).unwrap();
        group
    }

    /// Four members that run and reach each other.
    pub fn of_four() -> Self {
        let mut group = Self::of(4);
        (1..=4).for_each(|id| group.start(id));
        group.wait("all are reached", |it| (1..=4).all(|id| it.status(id)["reached"] == 4));
        group
    }

    pub fn port(&self, id: u32) -> String {
        (u32::from(self.base) + id).to_string()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        run(&peer_exe(), args, self.dir.path())
    }

    /// Output of a command that succeeds.
    #[track_caller]
    pub fn told(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    }

    /// Complaint of a command that ends with this code.
    #[track_caller]
    pub fn refused(&self, code: i32, args: &[&str]) -> String {
        let (ended, out, err) = self.run(args);
        assert_eq!(ended, Some(code), "{args:?}: {out}{err}");
        err
    }

    pub fn keygen(&self, id: u32) -> String {
        self.told(&["order", "keygen", "--id", &id.to_string(), "--port", &self.port(id)])
    }

    pub fn start(&mut self, id: u32) {
        self.start_with(id, &["--order", "ledger=roster.txt"]);
    }

    pub fn start_with(&mut self, id: u32, flags: &[&str]) {
        let port = self.port(id);
        let common = ["--port", &port, "--gossip-max", "0", "--config", "none.txt"];
        let args = [&common[..], flags].concat();
        self.running.insert(id, Process::start(&peer_exe(), &args, self.dir.path()));
    }

    pub fn out(&self, id: u32) -> String {
        self.running[&id].out()
    }

    /// Ends a member without warning.
    pub fn kill(&mut self, id: u32) {
        drop(self.running.remove(&id));
    }

    /// Status of a member; `null` while it does not answer.
    pub fn status(&self, id: u32) -> Value {
        let (_, out, _) = self.run(&["order", "status", "--port", &self.port(id), "--json"]);
        serde_json::from_str(&out).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        if !eventually(|| reached(self)) {
            let out: Vec<_> =
                self.running.iter().map(|(id, it)| format!("-- {id}\n{}", it.out())).collect();
            panic!("not in time: {what}\n{}", out.join("\n"));
        }
    }

    /// Proposes a text by a member, and waits for its place.
    #[track_caller]
    pub fn append(&self, id: u32, text: &str) -> u64 {
        let port = self.port(id);
        let out = self.told(&["order", "append", "--port", &port, "--wait", "50s", text]);
        out.trim().parse().unwrap()
    }

    /// The first entries as a member prints them.
    #[track_caller]
    pub fn entries(&self, id: u32, count: u64) -> Vec<String> {
        let count = count.to_string();
        let out = self.told(&["order", "follow", "--port", &self.port(id), "--count", &count]);
        out.lines().map(str::to_owned).collect()
    }

    pub fn group_id(&self) -> String {
        let told = self.status(*self.running.keys().next().unwrap())["group"].clone();
        told.as_str().unwrap().to_owned()
    }

    pub fn logs(&self) -> Vec<String> {
        let all = fs::read_dir(self.path("data/logs")).unwrap();
        let mut all: Vec<_> = all.map(|it| it.unwrap().path().display().to_string()).collect();
        all.sort();
        all
    }

    /// Compares all logs, without their members.
    pub fn verify(&self) -> (Option<i32>, String, String) {
        let logs = self.logs();
        let args: Vec<_> =
            ["order", "verify"].into_iter().chain(logs.iter().map(|it| &**it)).collect();
        self.run(&args)
    }
}

/// Writes `text` with the first `from` replaced by `to`, which must be there.
fn forge(file: &Path, text: &str, (from, to): (&str, &str)) {
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn four_members_place_entries_prove_them_and_forge_nothing() {
    let group = Group::of_four();
    group.wait("it says what it bears", |it| {
        (1..=4).all(|id| it.out(id).contains(": 4 members, one liar is borne, 3 decide"))
    });
    assert_eq!(group.append(2, "pay 5 to b"), 1);
    let port = group.port(3);
    let more = ["order", "append", "--port", &port, "--wait", "50s", "pay 7 to c", "pay 9 to d"];
    assert_eq!(group.told(&more), "2\n3\n");
    let wanted = ["[1] peer_2: pay 5 to b", "[2] peer_3: pay 7 to c", "[3] peer_3: pay 9 to d"];
    for id in 1..=4 {
        assert_eq!(group.entries(id, 3), wanted, "peer_{id}");
    }

    // Anybody checks a proof, with the group's identity and nothing else.
    let id = group.group_id();
    let proof = group.told(&["order", "proof", "2", "--port", &group.port(1)]);
    fs::write(group.path("proof"), &proof).unwrap();
    let check = |file: &str, id: &str| group.run(&["order", "verify", "--group", id, file]);
    let (code, out, err) = check("proof", &id);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("place 2 is \"pay 7 to c\" by peer_3; final by peer_"), "{out}");
    forge(&group.path("forged"), &proof, ("pay 7 to c", "pay 8 to c"));
    assert_eq!(check("forged", &id).0, Some(1));
    let (code, out, _) = check("proof", &"0".repeat(64));
    assert_eq!(code, Some(1));
    assert!(out.contains("another group"), "{out}");
    assert!(group.refused(2, &["order", "verify", "proof"]).contains("--group"));

    // With proofs, each line stands for itself.
    let port = group.port(4);
    let follow = ["order", "follow", "2", "--port", &port, "--count", "2", "--json", "--proofs"];
    for line in group.told(&follow).lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        fs::write(group.path("proof"), entry["proof"].to_string()).unwrap();
        let (code, out, err) = check("proof", &id);
        assert_eq!(code, Some(0), "{line}: {err}");
        assert!(out.contains(&format!("place {}", entry["place"])), "{out}");
    }

    // The node's status and metrics tell of it.
    let told = group.told(&["status", "--port", &group.port(1), "--json"]);
    let status: Value = serde_json::from_str(&told).unwrap();
    let order = &status["order"];
    assert_eq!((&order["places"], &order["reached"]), (&3.into(), &4.into()), "{order}");
    let metrics = group.told(&["metrics", "--port", &group.port(1)]);
    assert!(metrics.contains("folkmoot_order_places 3"), "{metrics}");
    let lines = group.told(&["order", "status", "--port", &group.port(1)]);
    assert!(lines.contains("4 of 4 reached") && lines.contains("Final: place 3"), "{lines}");
    let none = group.told(&["order", "evidence", "--port", &group.port(1)]);
    assert!(none.contains("no member is known to have lied"), "{none}");
}

#[test]
fn a_killed_leader_and_one_dead_member_are_borne_and_two_are_waited_for() {
    let mut group = Group::of_four();
    assert_eq!(group.append(1, "one"), 1);
    let leader = u32::try_from(group.status(1)["leader"].as_u64().unwrap()).unwrap();
    group.kill(leader);
    let living: Vec<_> = group.running.keys().copied().collect();
    assert_eq!(group.append(living[0], "two"), 2);
    assert_eq!(group.append(living[1], "three"), 3);

    // With a second one gone nothing becomes final; what was typed is kept.
    group.kill(living[2]);
    let halted = "halted: 2 of 4 reached, 3 are needed; what is proposed waits";
    group.wait("both say so", |it| living[..2].iter().all(|id| it.out(*id).contains(halted)));
    let port = group.port(living[0]);
    let err = group.refused(3, &["order", "append", "--port", &port, "--wait", "1s", "four"]);
    assert!(err.contains("not final; kept, and sent until enough members vote"), "{err}");
    let status = group.told(&["order", "status", "--port", &port]);
    assert!(status.contains(halted) && status.contains("Pending: 1"), "{status}");
    let told = group.told(&["status", "--port", &port, "--json"]);
    assert!(told.contains("3 are needed"), "{told}");

    // It goes on by itself.
    group.start(living[2]);
    group.wait("it has its place", |it| it.status(living[0])["place"] == 4);
    group.start(leader);
    group.wait("all have it", |it| (1..=4).all(|id| it.status(id)["place"] == 4));
    let entries = group.entries(leader, 4);
    for id in living {
        assert_eq!(group.entries(id, 4), entries, "peer_{id}");
    }
    group.running.values().for_each(|it| it.signal(Signal::TERM));
    for process in group.running.values_mut() {
        assert_eq!(process.wait_for_end(), Some(0), "{}", process.out());
    }
    let (code, out, err) = group.verify();
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("places 1 to 4"), "{out}");
}

#[test]
fn a_member_whose_log_is_gone_is_silent_until_it_is_renewed() {
    let mut group = Group::of_four();
    assert_eq!(group.append(1, "one"), 1);
    group.wait("it has it", |it| it.status(3)["place"] == 1);
    group.kill(3);
    fs::remove_dir_all(group.path("data/logs/order_3")).unwrap();
    group.start(3);
    group.wait("it says that it is silent", |it| {
        it.out(3).contains("is silent until the group has renewed this member")
    });
    group.wait("it is renewed", |it| {
        let status = it.status(3);
        status["epoch"] == 1 && status["silent"].is_null()
    });
    // It is needed, and votes.
    group.kill(1);
    assert_eq!(group.append(2, "two"), 2);
    assert_eq!(group.entries(3, 2), ["[1] peer_1: one", "[2] peer_2: two"]);
    // A proof of the new epoch shows how it came about.
    let proof = group.told(&["order", "proof", "2", "--port", &group.port(3)]);
    fs::write(group.path("proof"), proof).unwrap();
    group.told(&["order", "verify", "--group", &group.group_id(), "proof"]);
    let (code, out, err) = group.verify();
    assert_eq!(code, Some(0), "{out}{err}");
}

#[test]
fn a_fifth_member_follows_is_added_by_a_quorum_and_another_is_removed() {
    let mut group = Group::of_four();
    assert_eq!(group.append(1, "before the fifth"), 1);
    let id = group.group_id();
    let fifth = group.keygen(5);
    let roster = fs::read_to_string(group.path("roster.txt")).unwrap();
    fs::write(group.path("five.txt"), format!("{roster}+ {fifth}")).unwrap();
    group.start_with(5, &["--order", "ledger=five.txt"]);
    group.wait("it follows", |it| it.status(5)["place"] == 1);
    assert_eq!(group.status(5)["group"], *id);
    let (code, out, err) = group.run(&["order", "append", "--port", &group.port(5), "mine"]);
    assert!(code == Some(4) && format!("{out}{err}").contains("follows the order"), "{out}{err}");

    // Two of four are no quorum; the third operator makes it.
    let fifth = fifth.trim();
    let add = |group: &Group, id: u32, code: i32| {
        let args = ["order", "members", "add", fifth, "--port", &group.port(id)];
        let (ended, out, err) = group.run(&args);
        assert_eq!(ended, Some(code), "{out}{err}");
        format!("{out}{err}")
    };
    assert!(add(&group, 1, 0).contains("1 of the 3 that are needed"));
    add(&group, 2, 0);
    group.wait("the consents are known", |it| {
        let out = it.told(&["order", "status", "--port", &it.port(4)]);
        out.contains("adding peer_5") && out.contains("2 of 3 consents: peer_1, peer_2")
    });
    assert_eq!(group.status(3)["epoch"], 0);
    add(&group, 3, 0);
    group.wait("it is a member", |it| {
        it.running.keys().all(|id| {
            let status = it.status(*id);
            status["epoch"] == 1 && status["members"].as_array().is_some_and(|it| it.len() == 5)
        })
    });
    assert!(add(&group, 1, 1).contains("already"));
    assert_eq!(group.append(5, "by the fifth"), 2);

    // Four of five decide now: without the first the fifth is needed, and remembers it all.
    group.kill(5);
    group.start_with(5, &["--order", "ledger=five.txt"]);
    group.wait("it is back", |it| it.status(5)["epoch"] == 1);
    group.kill(1);
    assert_eq!(group.append(5, "without the first"), 3);
    for id in 2..=5 {
        let port = group.port(id);
        group.told(&["order", "members", "remove", "1", "--port", &port]);
    }
    group.wait("the dead one is out", |it| it.status(2)["epoch"] == 2);
    assert_eq!(group.append(2, "four again"), 4);
    let proof = group.told(&["order", "proof", "4", "--port", &group.port(3)]);
    fs::write(group.path("proof"), proof).unwrap();
    group.told(&["order", "verify", "--group", &id, "proof"]);
    let missing = group.refused(1, &["order", "members", "remove", "9", "--port", &group.port(2)]);
    assert!(missing.contains("peer_9 is no member"), "{missing}");
    let (code, out, err) = group.verify();
    assert_eq!(code, Some(0), "{out}{err}");
}

#[test]
fn another_roster_is_refused_with_both_identities() {
    let mut group = Group::of(4);
    let of = |out: &str| {
        let at = out.find("group ").map(|at| at + 6)?;
        Some(out[at..at + 64].to_owned())
    };
    group.start(1);
    group.start_with(2, &["--order", "other=roster.txt"]);
    group.wait("both have begun", |it| [1, 2].iter().all(|id| it.out(*id).contains("3 decide")));
    let [one, two] = [1, 2].map(|id| of(&group.out(id)).unwrap());
    assert_ne!(one, two);
    group.wait("the stranger is named", |it| {
        [1, 2].iter().any(|id| {
            let out = it.out(*id);
            out.lines().any(|line| line.contains(&one) && line.contains(&two))
        })
    });
}

#[test]
fn wrong_input_ends_with_its_exit_code_and_a_remedy() {
    let mut group = Group::of(2);
    let port = group.port(1);
    let start = |flags: &[&str]| {
        let args = [&["--port", &*port, "--config", "none.txt", "--order"][..], flags].concat();
        group.refused(2, &args)
    };
    assert!(start(&["missing.txt"]).contains("peer order keygen"));
    assert!(start(&["a b=roster.txt"]).contains("write ROSTER or NAME=ROSTER"));
    let roster = fs::read_to_string(group.path("roster.txt")).unwrap();
    fs::write(group.path("bad.txt"), format!("{roster}{roster}")).unwrap();
    assert!(start(&["bad.txt"]).contains("bad.txt, line 3: line 1 has the id 1 too"));
    fs::write(group.path("others.txt"), roster.lines().nth(1).unwrap()).unwrap();
    assert!(start(&["others.txt"]).contains("no member of the roster has the key of this peer"));
    assert!(start(&["roster.txt", "--patience", "1ms"]).contains("--patience"));

    let none = group.refused(1, &["order", "status"]);
    assert!(none.contains("no member of an order runs"), "{none}");
    group.start(1);
    group.start(2);
    group.wait("both have begun", |it| {
        [1, 2].iter().all(|id| it.out(*id).contains(": 2 members, no liar is borne, 2 decide"))
    });
    let which = group.refused(2, &["order", "status"]);
    assert!(which.contains("--port"), "{which}");
    let ask = |args: &[&str], code| group.refused(code, &[args, &["--port", &*port]].concat());
    assert!(ask(&["order", "proof", "99"], 1).contains("no proof"));
    let long = "x".repeat(20_000);
    assert!(ask(&["order", "append", &long], 4).contains("not proposed: "));
    let taken =
        group.refused(1, &["--port", &port, "--config", "none.txt", "--order", "roster.txt"]);
    assert!(taken.contains("in use") || taken.contains("another process"), "{taken}");

    fs::write(group.path("junk"), "no proof\n").unwrap();
    let id = group.group_id();
    assert_eq!(group.run(&["order", "verify", "--group", &id, "junk"]).0, Some(1));
    assert_eq!(group.run(&["order", "verify", "--group", "12", "junk"]).0, Some(2));
    assert_eq!(group.run(&["order", "verify", "--group", &id, "absent"]).0, Some(1));
}

#[test]
fn a_program_appends_follows_from_disk_and_proves_by_the_library() {
    let networks: Vec<_> = (0..4).map(|_| Network::builder().start().unwrap()).collect();
    let members = (1..).zip(&networks).map(|(id, it)| (id, it.endpoint(), it.key()));
    let roster = OrderRoster::of(members).unwrap();
    let strange = Network::builder().start().unwrap();
    let refused = strange.order("ledger", Order::byzantine(&roster)).unwrap_err();
    assert!(refused.to_string().contains("no member of the roster"), "{refused}");
    let order = |it: &Network| it.order("ledger", Order::byzantine(&roster)).unwrap();
    let logs: Vec<_> = networks.iter().map(order).collect();

    // More than a member keeps in memory, from two authors at once.
    let outcomes: Vec<_> =
        (0..1_500).map(|number| logs[number % 2].propose(format!("entry {number}"))).collect();
    let mut places: Vec<_> = outcomes.into_iter().map(|it| it.wait().unwrap().place).collect();
    places.sort();
    assert_eq!(places, (1..=1_500).map(Place).collect::<Vec<_>>(), "each has a place of its own");
    let bytes = [0xff, 0x00, 0x80];
    let placed = logs[2].propose(bytes).wait().unwrap();
    assert_eq!(placed.place, Place(1_501));

    // A member that waits for a marker has all of it, and a reader misses nothing.
    logs[3].sync().wait().unwrap();
    let first: Vec<_> = logs[0].follow(Place(1)).take(1_501).collect();
    let last: Vec<_> = logs[3].follow(Place(1)).take(1_501).collect();
    assert_eq!(first, last);
    assert_eq!(&*last[1_500].data, &bytes[..]);
    assert_eq!(last[1_500].text(), None);
    let resumed: Vec<_> = logs[1].follow(last[1_400].place.next()).take(100).collect();
    assert_eq!(resumed, last[1_401..]);
    let status = logs[0].status().unwrap();
    assert_eq!((status.members, status.reached, status.needed), (4, 4, 3));

    let group = roster.group("ledger");
    let proof = logs[1].proof(placed.place).unwrap();
    let proven = proof.verify(&group).unwrap();
    assert_eq!((proven.place.0, proven.author().0), (1_501, 3));
    assert!(proof.verify(&roster.group("other")).is_err());
    let absent = logs[1].proof(Place(9_999)).unwrap_err();
    assert!(matches!(absent, OrderError::NoProof(_)), "{absent}");

    // A member that has stopped says so, and ends its readers.
    let mut reader = logs[2].follow(Place(1_503));
    logs[2].stop();
    assert_eq!(reader.next(), None);
    assert!(matches!(logs[2].propose("late").wait(), Err(OrderError::Refused(_))));
    assert_eq!(logs[0].propose("three are enough").wait().unwrap().place, Place(1_503));
}

#[test]
fn the_order_of_a_chat_has_the_same_interface_and_proves_nothing() {
    let network = Network::builder().start().unwrap();
    let log = network.order("any", Order::crash(1)).unwrap();
    let place = log.propose("pay 5 to b").wait().unwrap().place;
    log.propose("pay 7 to c").wait().unwrap();
    let entries: Vec<_> = log.follow(place).take(2).collect();
    let texts: Vec<_> = entries.iter().map(|it| it.text().unwrap()).collect();
    assert_eq!(texts, ["pay 5 to b", "pay 7 to c"]);
    let refused = log.proof(place).unwrap_err().to_string();
    assert!(refused.contains("Order::byzantine"), "{refused}");
    assert_eq!(log.status().map(|it| (it.members, it.needed)), Some((1, 1)));
}
