//! An order that members of a fleet found without a roster, with real processes: seeds that decide
//! by a Byzantine quorum, and peers of which one may lie.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use folkmoot::machine::quorum::QuorumRule;
use folkmoot::model::{KeyPair, Signature};
use folkmoot::proto::bft::{FoundingNote, SignedRoster};
use folkmoot::{Network, Order};
use serde_json::{Value, json};
use support::process::{Process, eventually, run};
use support::{peer_exe, ports};

/// Four seeds, and peers that found an order, on this machine.
struct Fleet {
    dir: tempfile::TempDir,
    base: u16,
    seeds: Vec<Process>,
    running: BTreeMap<u16, Process>,
}

const BYZANTINE: [&str; 2] = ["--quorum", "byzantine"];

impl Fleet {
    fn new() -> Self {
        let (dir, base) = (tempfile::tempdir().expect("there is room"), ports());
        let text: String = (0..4).map(|it| format!("127.0.0.1:{}\n", base + it)).collect();
        fs::write(dir.path().join("config.txt"), text).unwrap();
        let seed = |id: u16| {
            let args = ["seed", "--id", &id.to_string(), BYZANTINE[0], BYZANTINE[1]];
            Process::start(&peer_exe(), &args, dir.path())
        };
        let seeds = (1..=4).map(seed).collect();
        Self { dir, base, seeds, running: BTreeMap::new() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn port(&self, number: u16) -> String {
        (self.base + 4 + number).to_string()
    }

    fn start(&mut self, number: u16) {
        self.start_with(number, &[]);
    }

    fn start_with(&mut self, number: u16, flags: &[&str]) {
        let port = self.port(number);
        let args = ["--port", &port, "--gossip-max", "0", "--order", "ledger", "--order-size", "4"];
        let args = [&args[..], &BYZANTINE, flags].concat();
        self.running.insert(number, Process::start(&peer_exe(), &args, self.path()));
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        run(&peer_exe(), args, self.path())
    }

    #[track_caller]
    fn told(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    }

    /// Status of a member; `null` while its order is not founded.
    fn status(&self, number: u16) -> Value {
        let (_, out, _) = self.run(&["order", "status", "--port", &self.port(number), "--json"]);
        serde_json::from_str(&out).unwrap_or_default()
    }

    #[track_caller]
    fn wait(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        if !eventually(|| reached(self)) {
            let peers = self.running.iter().map(|(id, it)| format!("-- {id}\n{}", it.out()));
            let seeds = self.seeds.iter().map(|it| format!("-- seed\n{}", it.out()));
            panic!("not in time: {what}\n{}", peers.chain(seeds).collect::<Vec<_>>().join("\n"));
        }
    }

    #[track_caller]
    fn wait_for_all(&self, numbers: &[u16]) {
        self.wait("the order is founded, and all are reached", |it| {
            numbers.iter().all(|number| it.status(*number)["reached"] == 4)
        });
    }

    fn says(&self, number: u16, text: &str) -> bool {
        self.running[&number].out().contains(text)
    }
}

#[test]
fn four_members_of_a_fleet_found_an_order_and_go_on_in_it() {
    let mut fleet = Fleet::new();
    (1..=3).for_each(|number| fleet.start(number));
    fleet
        .wait("three know each other", |it| (1..=3).all(|id| it.says(id, "3 of 4 founders found")));
    assert!(fleet.status(1).is_null(), "three are not enough");
    fleet.start(4);
    fleet.wait_for_all(&[1, 2, 3, 4]);
    let group = fleet.status(1)["group"].clone();
    assert!((2..=4).all(|number| fleet.status(number)["group"] == group));
    fleet.wait("it is said", |it| it.says(2, "founded by 4 members of the fleet, group "));

    // The words of the founding have the first places, and are no entries.
    let place = fleet.told(&["order", "append", "--port", &fleet.port(2), "pay 5 to b"]);
    let place = place.trim();
    assert!(place.parse::<u64>().unwrap() >= 4, "{place}");
    let wanted = format!("[{place}] peer_2: pay 5 to b\n");
    for number in 1..=4 {
        let follow = ["order", "follow", "--port", &fleet.port(number), "--count", "1"];
        assert_eq!(fleet.told(&follow), wanted);
    }
    let proof = fleet.told(&["order", "proof", place, "--port", &fleet.port(3)]);
    fs::write(fleet.path().join("proof"), proof).unwrap();
    let out = fleet.told(&["order", "verify", "--group", group.as_str().unwrap(), "proof"]);
    assert!(out.contains("is \"pay 5 to b\" by peer_2"), "{out}");

    // A fifth is told; one that was killed goes on in its group, without any roster.
    fleet.start(5);
    fleet.wait("the fifth is told", |it| it.says(5, "others have founded it without this peer"));
    drop(fleet.running.remove(&2));
    fleet.start(2);
    fleet.wait_for_all(&[1, 2, 3, 4]);
    assert_eq!(fleet.status(2)["group"], group);
    assert_eq!(fleet.status(2)["me"], 2);
    let logs = fs::read_dir(fleet.path().join("data/logs")).unwrap();
    let logs: Vec<_> = logs.map(|it| it.unwrap().path().display().to_string()).collect();
    let logs = logs.iter().map(|it| &**it).filter(|it| it.contains("order_"));
    let args: Vec<_> = ["order", "verify"].into_iter().chain(logs).collect();
    assert_eq!(args.len(), 6);
    fleet.told(&args);
}

#[test]
fn a_member_that_lies_on_the_topic_neither_joins_nor_keeps_the_others_from_founding() {
    let mut fleet = Fleet::new();
    let seeds: Vec<_> = (0..4).map(|it| format!("127.0.0.1:{}", fleet.base + it)).collect();
    let liar = Network::builder().seeds(&seeds).quorum(QuorumRule::Byzantine).start().unwrap();
    let is_in = || liar.status().state == "member";
    assert!(eventually(is_in));
    (1..=4).for_each(|number| fleet.start(number));
    let topic = "folkmoot/order";
    let heard = liar.subscribe(topic).unwrap();
    let (mut true_notes, mut lies) = (0, 0);
    let lie = |note: &[u8]| drop(liar.broadcast(topic, note.to_vec()));
    let is_founded = || (1..=4).all(|number| fleet.status(number)["reached"] == 4);
    let mut told = eventually(|| {
        while let Ok(message) = heard.recv_timeout(Duration::from_millis(1)) {
            if message.origin == liar.endpoint() {
                continue;
            }
            let Ok(note) = serde_json::from_slice::<FoundingNote>(&message.data) else { continue };
            true_notes += 1;
            // In another's name, with its certificate; with its own key in a forged one; and with a
            // roster that others have not signed.
            lie(&message.data);
            let mut forged = note.clone();
            (forged.admission.endpoint, forged.admission.key) = (liar.endpoint(), liar.key());
            lie(&serde_json::to_vec(&forged).unwrap());
            let stranger = KeyPair::from_secret([7; 32]).public();
            let mut roster = SignedRoster::new(
                [(liar.endpoint(), liar.key()), (message.origin, message.key)].into_iter().chain(
                    [(fleet.base + 20, stranger), (fleet.base + 21, liar.key())]
                        .map(|(port, key)| (format!("127.0.0.1:{port}").parse().unwrap(), key)),
                ),
                0,
            );
            let signature = Signature::from_bytes([9; 64]);
            roster.signatures = roster.members.iter().map(|it| (it.id, signature)).collect();
            forged.roster = Some(roster);
            lie(&serde_json::to_vec(&forged).unwrap());
            lies += 3;
        }
        for garbage in ["", "{", "[]", "\u{0}", r#"{"order":"ledger","size":4}"#] {
            lie(garbage.as_bytes());
        }
        lie(json!({ "order": "ledger", "size": u64::MAX, "left": [1, 2] }).to_string().as_bytes());
        is_founded()
    });
    told &= true_notes > 0 && lies > 0;
    if !told {
        fleet.wait("the four found their order", |_| false);
    }
    let members = fleet.status(1)["members"].clone();
    let ports: Vec<_> =
        members.as_array().unwrap().iter().map(|it| it["port"].to_string()).collect();
    assert_eq!(ports, [1, 2, 3, 4].map(|number| fleet.port(number)), "{members}");
}

#[test]
fn the_certificates_of_the_seeds_get_places_and_are_shown_readably() {
    let mut fleet = Fleet::new();
    (1..=4).for_each(|number| fleet.start_with(number, &["--order-certificates"]));
    fleet.wait_for_all(&[1, 2, 3, 4]);
    // The entries up to one that is appended now.
    let entries = |fleet: &Fleet| {
        let port = fleet.port(1);
        let end = fleet.told(&["order", "append", "--port", &port, "--wait", "50s", "here"]);
        let (mut entries, mut next) = (Vec::new(), 1);
        while next <= end.trim().parse::<u64>().unwrap() {
            let from = next.to_string();
            let line = fleet.told(&["order", "follow", &from, "--port", &port, "--count", "1"]);
            let place = line.split_once(']').unwrap().0[1..].parse::<u64>().unwrap();
            entries.push((place, line));
            next = place + 1;
        }
        entries
    };
    let told = |fleet: &Fleet, number: u16, what: &str| {
        let life = format!("127.0.0.1:{} (incarnation ", fleet.port(number));
        let is_it = |line: &str| line.contains(&life) && line.contains(what);
        let all = entries(fleet).into_iter().filter(|(_, line)| is_it(line));
        all.collect::<Vec<_>>()
    };
    for number in 1..=4 {
        fleet.wait("its admission has a place", |it| {
            !told(it, number, "admitted by the seeds ").is_empty()
        });
    }
    let (place, line) = told(&fleet, 2, "admitted by the seeds ").remove(0);
    assert!(!line.contains("NOT PROVED"), "{line}");
    let proof = fleet.told(&["order", "proof", &place.to_string(), "--port", &fleet.port(3)]);
    assert!(proof.contains("admission"), "{proof}");

    // A false one is shown as such, and a death gets a place by those that live.
    let text = proof_text(&proof).replacen("\"incarnation\":", "\"incarnation\":1", 1);
    fleet.told(&["order", "append", "--port", &fleet.port(1), "--wait", "50s", &text]);
    fleet.wait("it is doubted", |it| {
        entries(it).iter().any(|(_, line)| line.contains("(NOT PROVED by the seeds"))
    });
    drop(fleet.running.remove(&4));
    fleet
        .wait("its end has a place", |it| !told(it, 4, "removed as dead by the seeds ").is_empty());
    assert!(told(&fleet, 2, "admitted by the seeds ").len() <= 5, "few say the same");
}

/// Text of the entry that a proof is about.
fn proof_text(proof: &str) -> String {
    let proof: Value = serde_json::from_str(proof).unwrap();
    proof["item"]["payload"].as_str().unwrap().to_owned()
}

#[test]
fn an_order_is_founded_by_a_fleet_only_that_vouches_for_keys() {
    let fleet = Fleet::new();
    let port = fleet.port(1);
    let peer = ["--port", &port, "--order", "ledger", "--order-size", "4"];
    for more in [&[][..], &["--open"], &["--join", "127.0.0.1:1", "--quorum", "byzantine"]] {
        let (code, _, err) = fleet.run(&[&peer[..], more].concat());
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains("--quorum byzantine"), "{err}");
    }
    let named = ["--port", &port, "--order", "a=roster.txt", "--order-size", "4"];
    let (code, _, err) = fleet.run(&named);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("--order NAME"), "{err}");
    // The library says the same.
    let network = Network::builder().start().unwrap();
    let error = network.order("ledger", Order::byzantine_of(4)).unwrap_err().to_string();
    assert!(error.contains("a fleet with seeds"), "{error}");
}
