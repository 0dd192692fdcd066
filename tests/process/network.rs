//! Messages between real peers: topics, direct messages, discovery, as a person types them and as a
//! program uses them.

use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::cli::fleet::LogEvent;
use folkmoot::machine::direct::FailKind;
use folkmoot::machine::rollout::StartOrder;
use folkmoot::model::{Data, Endpoint, Signature};
use folkmoot::network::{Change, RecvError};
use folkmoot::proto::broadcast::Publish;
use folkmoot::{
    Chat, ChatError, Network, Order, OrderRoster, Place, Rollout, RolloutOrder, RolloutOutcome,
    StartError,
};
use rustix::process::Signal;
use support::member::{Member, wall};
use support::process::{Process, eventually, run, runs_alone};
use support::{NO_GOSSIP, PATIENCE, Scene, of, peer_exe, words};

fn tell(scene: &Scene, line: &str) -> (Option<i32>, String, String) {
    let words = words(line);
    let args: Vec<_> = words.iter().map(String::as_str).collect();
    run(&peer_exe(), &args, scene.fleet.dir())
}

#[track_caller]
fn succeeds(scene: &Scene, line: &str) -> String {
    let (code, out, err) = tell(scene, line);
    assert_eq!(code, Some(0), "{line}\n{out}\n{err}");
    out
}

#[track_caller]
fn fails(scene: &Scene, line: &str, told: &[&str]) {
    let (code, out, err) = tell(scene, line);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{line}\n{err}");
    assert!(err.starts_with("error: ") && err.lines().count() == 1, "{line}\n{err}");
    for part in told {
        assert!(err.contains(part), "{line}: {part:?} is not in\n{err}");
    }
}

/// A program that prints what comes at a peer, once it reads.
fn reader(scene: &Scene, line: &str) -> Process {
    let words = words(line);
    let args: Vec<_> = words.iter().map(String::as_str).collect();
    let reader = Process::start(&peer_exe(), &args, scene.fleet.dir());
    assert!(eventually(|| reader.err().contains("reading at peer")), "{line}: {}", reader.err());
    reader
}

/// Output of a reader, once it has read all that it wanted.
#[track_caller]
fn read(mut reader: Process) -> String {
    let code = reader.wait_for_end();
    assert_eq!(code, Some(0), "{}\n{}", reader.out(), reader.err());
    reader.out()
}

/// Held by scenes that keep a small machine busy, so that they come one after the other.
static CROWD: Mutex<()> = Mutex::new(());

fn publish_and_hear(peers: u16) {
    let _alone = CROWD.lock();
    let scene = Scene::up(3, peers, NO_GOSSIP);
    let all = scene.peers();
    let (first, last) = (all[0], all[all.len() - 1]);
    let readers: Vec<_> = all
        .iter()
        .map(|peer| reader(&scene, &format!("subscribe news --count 3 --port {}", peer.port())))
        .collect();
    let other = reader(&scene, &format!("subscribe weather --port {}", last.port()));

    let out = succeeds(&scene, &format!("publish news hello --port {}", first.port()));
    assert!(out.starts_with("published ") && out.contains("known to have it"), "{out}");
    // Whoever answers late, on a busy machine, is not waited for.
    let known = format!("{} peers are known to have it", all.len() - 1);
    let line = format!("publish nobody-reads hello --port {}", first.port());
    assert!(eventually(|| succeeds(&scene, &line).contains(&known)));
    succeeds(&scene, &format!("publish news again --port {} --wait 1ms", last.port()));
    let large: String = "0123456789".repeat(30_000);
    fs::write(scene.fleet.dir().join("large.txt"), &large).expect("it can be written");
    succeeds(&scene, &format!("publish news --file large.txt --port {}", last.port()));
    for reader in readers {
        let out = read(reader);
        let wanted =
            [format!("{last}: again"), format!("{first}: hello"), format!("{last}: {large}")];
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 3, "{out}");
        assert!(wanted.iter().all(|it| lines.contains(&it.as_str())), "each once");
    }
    drop(other);
}

#[test]
fn three_peers_hear_each_message_of_their_topic_once() {
    publish_and_hear(3);
}

#[test]
fn ten_peers_hear_each_message_of_their_topic_once() {
    publish_and_hear(10);
}

#[test]
fn fifty_peers_hear_a_program_that_publishes() {
    let _alone = CROWD.lock();
    let scene = Scene::up(3, 50, NO_GOSSIP);
    let network = Network::builder().seeds(scene.seeds()).start().expect("it starts");
    network.wait_for_peers(2, PATIENCE).expect("it becomes a member");
    let readers: Vec<_> = scene.peers()[..10]
        .iter()
        .map(|peer| reader(&scene, &format!("subscribe news --count 20 --port {}", peer.port())))
        .collect();
    for number in 0..20 {
        network.broadcast("news", format!("number {number}").as_str()).expect("a member may");
    }
    for reader in readers {
        let out = read(reader);
        for number in 0..20 {
            let line = format!("{}: number {number}", network.endpoint());
            assert_eq!(out.lines().filter(|it| *it == line).count(), 1, "{line}\n{out}");
        }
    }
}

/// Number of messages of `origin` that a reader has printed, and number that it was told it missed.
fn heard(reader: &Process, origin: Endpoint) -> (usize, u64) {
    let out = reader.out();
    let lines = out.lines().filter_map(|it| serde_json::from_str::<serde_json::Value>(it).ok());
    let (mut ids, mut missed) = (BTreeSet::new(), 0);
    for line in lines {
        if line["origin"] == origin.to_string() {
            assert!(ids.insert(line["id"].to_string()), "{line} came twice");
        } else if line["of"] == origin.to_string() {
            missed += line["missed"].as_u64().expect("it is a number");
        }
    }
    (ids.len(), missed)
}

#[test]
fn a_peer_that_stands_still_gets_each_message_or_its_reader_is_told() {
    const ALL: usize = 4_000;
    let _alone = CROWD.lock();
    let scene = Scene::up(3, 3, NO_GOSSIP);
    let network = Network::builder().seeds(scene.seeds()).start().expect("it starts");
    network.wait_for_peers(2, PATIENCE).expect("it becomes a member");
    let still = scene.peers()[2];
    let reader = reader(&scene, &format!("subscribe news --json --port {}", still.port()));
    let origin = network.endpoint();
    for number in 0..ALL {
        if number == ALL / 10 {
            assert!(eventually(|| heard(&reader, origin).0 == number));
            scene.fleet.signal(still, Signal::STOP).expect("it runs");
            // A second is about as long as it takes to be suspected.
            let _ = crossbeam_channel::after(Duration::from_secs(1)).recv();
        }
        if number == ALL / 2 {
            scene.fleet.signal(still, Signal::CONT).expect("it runs");
        }
        network.broadcast("news", format!("{number:>2048}").as_str()).expect("a member may");
    }
    let sum = |(came, missed)| came as u64 + missed == ALL as u64;
    assert!(eventually(|| sum(heard(&reader, origin))), "{:?}", heard(&reader, origin));
}

#[test]
fn what_was_published_just_before_a_stop_arrives() {
    const ALL: usize = 1_000;
    let _alone = CROWD.lock();
    let scene = Scene::up(3, 3, NO_GOSSIP);
    let network = Network::builder().seeds(scene.seeds()).start().expect("it starts");
    network.wait_for_peers(2, PATIENCE).expect("it becomes a member");
    let reader =
        reader(&scene, &format!("subscribe news --json --port {}", scene.peers()[0].port()));
    for number in 0..ALL {
        network.broadcast("news", format!("{number}").as_str()).expect("a member may");
    }
    network.stop();
    let origin = network.endpoint();
    assert!(eventually(|| heard(&reader, origin) == (ALL, 0)), "{:?}", heard(&reader, origin));
}

#[test]
fn a_direct_message_is_taken_once_or_its_sender_is_told() {
    let mut scene = Scene::up(3, 4, NO_GOSSIP);
    let peers = scene.peers();
    let from = peers[0].port();
    let line = format!("send {} only-you --port {from}", peers[1]);
    assert!(succeeds(&scene, &line).contains("took it"), "{line}");
    scene.wait("it is shown there", |lines| {
        lines.iter().any(|it| it.node == peers[1] && it.text("text") == Some("only-you"))
    });
    let inbox = reader(&scene, &format!("inbox --count 1 --port {}", peers[2].port()));
    succeeds(&scene, &format!("send {} for-you --topic t --port {from}", peers[2]));
    assert_eq!(read(inbox), format!("{}: for-you\n", peers[0]));

    fails(&scene, &format!("send {} me --port {from}", peers[0]), &["not delivered", "itself"]);
    fails(&scene, &format!("send {} x --port {from}", scene.seeds()[0]), &["seed"]);
    scene.fleet.kill(peers[3]).expect("it runs");
    scene.await_lists(&peers[..3]);
    let line = format!("send {} too-late --retries 1 --port {from}", peers[3]);
    fails(&scene, &line, &["not delivered"]);
}

#[test]
fn what_cannot_be_said_is_refused_with_a_reason() {
    let scene = Scene::up(1, 2, NO_GOSSIP);
    let port = scene.peers()[0].port();
    fs::write(scene.fleet.dir().join("huge"), vec![b'x'; 1_048_577]).expect("it can be written");
    fails(&scene, &format!("publish news --file huge --port {port}"), &["1048576"]);
    fails(&scene, "publish news hello --port 9", &["no peer with port 9"]);
    fails(&scene, "publish news hello --data nowhere", &["no peer runs", "start one"]);
    let topic = "t".repeat(129);
    fails(&scene, &format!("publish {topic} hello --port {port}"), &["topic", "128"]);
    fails(&scene, &format!("subscribe {topic} --port {port}"), &["topic", "128"]);
}

#[test]
fn peers_without_seeds_find_and_hear_each_other_in_one_process() {
    let first = Network::builder().start().expect("it starts");
    let dead: Endpoint = "127.0.0.1:9".parse().expect("an endpoint");
    let begin = |to: Endpoint| Network::builder().bootstrap([dead, to]).start().expect("it starts");
    let second = begin(first.endpoint());
    second.wait_for_peers(1, PATIENCE).expect("they meet");
    let third = begin(second.endpoint());
    third.wait_for_peers(1, PATIENCE).expect("they meet");
    let news = [&first, &second, &third].map(|it| it.subscribe("news").expect("a topic"));
    let told = third.broadcast("news", "hello").expect("it is a member");
    for queue in &news {
        let message = queue.recv_timeout(PATIENCE).expect("it comes");
        assert_eq!((message.id, message.origin), (told.id, third.endpoint()));
        assert_eq!(queue.try_recv(), Err(RecvError::Empty), "once");
    }
    assert!(eventually(|| {
        let found = third.discover_peers().expect("it runs").wait().expect("it runs");
        found.iter().any(|it| it.endpoint == first.endpoint())
    }));

    // Nobody reads at the first; then somebody does.
    let failed = third.send_to_peer(first.endpoint(), "hear").expect("it runs").wait();
    assert_eq!(failed.map_err(|it| it.kind), Err(FailKind::Refused));
    let inbox = first.inbox().expect("the first to ask");
    assert!(first.inbox().is_err(), "there is one");
    let sent = third.send_to_peer(first.endpoint(), "hear").expect("it runs");
    sent.wait().expect("it is taken");
    assert_eq!(&inbox.recv_timeout(PATIENCE).expect("it is there").data[..], b"hear");

    // A stopped network is gone, and its port is free at once.
    let place = second.endpoint();
    second.stop();
    assert!(second.broadcast("news", "late").is_err());
    assert_eq!(news[1].recv_timeout(PATIENCE), Err(RecvError::Closed));
    let again = Network::builder().listen(place).bootstrap([first.endpoint()]).start();
    again.expect("the port is free").wait_for_peers(1, PATIENCE).expect("it is back");
    assert!(Network::builder().listen("localhost:1").start().is_err(), "a name is no address");
}

#[test]
fn without_seeds_nobody_speaks_for_an_endpoint_that_another_has_proved() {
    let first = Network::builder().start().expect("it starts");
    let second = Network::builder().bootstrap([first.endpoint()]).start().expect("it starts");
    second.wait_for_peers(1, PATIENCE).expect("they meet");
    let key_of = |it: &Network| it.status().key;
    let is_known = |it: &Network, other: &Network| {
        let found = it.discover_peers().expect("it runs").wait().expect("it runs");
        found.iter().any(|it| (it.endpoint, it.key) == (other.endpoint(), key_of(other)))
    };
    assert!(eventually(|| is_known(&first, &second)), "its key was shown");
    let news = first.subscribe("news").expect("a topic");
    let liar = Member::new();
    let link = liar.call(first.endpoint());
    let publish = |origin: Endpoint, text: &str| {
        let data = Data::from(text);
        let mut msg = Publish {
            origin,
            incarnation: liar.subject().incarnation,
            key: liar.subject().key,
            number: 1,
            topic: "news".to_owned(),
            time: wall(),
            size: data.len() as u64,
            digest: data.sha256(),
            data: Some(data),
            receipt: false,
            signature: Signature::from_bytes([0; 64]),
            ttl: 8,
            hops: 0,
            seen_by: vec![liar.endpoint()],
            age_ms: 0,
            proof: None,
        };
        msg.signature = liar.keys().sign(&msg.statement());
        link.send(msg);
    };
    publish(first.endpoint(), "I am you");
    publish(second.endpoint(), "I am the second");
    publish(liar.endpoint(), "I am I");
    let heard = news.recv_timeout(PATIENCE).expect("it comes");
    assert_eq!((&heard.data[..], heard.key), (&b"I am I"[..], liar.subject().key));
    assert_eq!((heard.origin, news.try_recv()), (liar.endpoint(), Err(RecvError::Empty)));
    second.broadcast("news", "I am the second").expect("it is a member");
    let heard = news.recv_timeout(PATIENCE).expect("it comes");
    assert_eq!((heard.origin, heard.key), (second.endpoint(), key_of(&second)));
}

#[test]
fn an_inbox_is_free_when_its_program_is_gone_and_the_log_takes_only_so_much() {
    let mut scene = Scene::up(1, 2, NO_GOSSIP);
    let peers = scene.peers();
    let (from, to) = (peers[0].port(), peers[1]);
    let line = format!("inbox --count 1 --port {}", to.port());
    for text in ["one", "two"] {
        let inbox = reader(&scene, &line);
        succeeds(&scene, &format!("send {to} {text} --port {from}"));
        assert_eq!(read(inbox), format!("{}: {text}\n", peers[0]));
    }
    // A program that is killed leaves no word; the next one waits until it is found out.
    drop(reader(&scene, &line));
    drop(reader(&scene, &line));
    let is_read = |it: &LogEvent| of(it, to, "direct");
    assert!(!scene.lines().iter().any(is_read), "what a program reads is no business of the log");
    let flood = |scene: &Scene| {
        let line = format!("send {to} unread --retries 1 --port {from}");
        (0..100).map(|_| tell(scene, &line)).find(|it| it.0 != Some(0))
    };
    // Whatever the second moment: within one of its spans it takes 60.
    let refused = flood(&scene).or_else(|| flood(&scene)).expect("no log takes all");
    assert!(refused.2.contains("nobody reads there"), "{}", refused.2);
    let shown = scene.lines().iter().filter(|it| is_read(it)).count();
    assert!((60..=180).contains(&shown), "{shown}");
}

#[test]
fn a_program_learns_what_happens_to_its_fleet() {
    let mut scene = Scene::up(3, 1, NO_GOSSIP);
    let peer = scene.peers()[0];
    let network = Network::builder().seeds(scene.seeds()).start().expect("it starts");
    let changes = network.changes().expect("it runs");
    network.wait_for_peers(1, PATIENCE).expect("it becomes a member");
    assert_eq!(network.members(), [peer]);
    scene.fleet.kill(peer).expect("it runs");
    // `Admitted` and `Linked` may have come before the queue was there.
    let mut told: Vec<_> = std::iter::from_fn(|| changes.recv_timeout(PATIENCE).ok())
        .take_while(|it| !matches!(it, Change::Removed(known) if known.endpoint == peer))
        .filter(|it| !matches!(it, Change::Admitted | Change::NotAdmitted { .. }))
        .collect();
    told.retain(|it| *it != Change::Linked(peer));
    assert_eq!(told, [Change::Unlinked(peer), Change::Alone]);

    let other = Network::builder().start().expect("it starts");
    let changes = other.changes().expect("it runs");
    let third = Network::builder().bootstrap([other.endpoint()]).start().expect("it starts");
    let at = third.endpoint();
    assert_eq!(changes.recv_timeout(PATIENCE), Ok(Change::Linked(at)));
    third.stop();
    let told: BTreeSet<_> =
        (0..3).map(|_| format!("{:?}", changes.recv_timeout(PATIENCE))).collect();
    let wanted = [Change::Left(at), Change::Unlinked(at), Change::Alone];
    assert_eq!(
        told,
        wanted.map(|it| format!("{:?}", Ok::<_, RecvError>(it))).into_iter().collect()
    );
    other.stop();
    assert_eq!(changes.recv_timeout(PATIENCE), Err(RecvError::Closed));
}

#[test]
fn programs_chat_and_roll_out_inside_their_networks() {
    let first = Network::builder().start().unwrap();
    let other = Network::builder().bootstrap([first.endpoint()]).start().unwrap();
    first.wait_for_peers(1, PATIENCE).unwrap();
    let (chat, node) = (first.chat(1).start().unwrap(), first.rollout("node-a").start().unwrap());
    let (chat2, node2) = (other.chat(2).start().unwrap(), other.rollout("node-b").start().unwrap());

    let (heard, heard2) = (chat.messages().unwrap(), chat2.messages().unwrap());
    let number = chat.say("one").wait().unwrap();
    let other_number = chat2.say_in("side", "two").wait().unwrap();
    assert!(number != other_number);
    for heard in [heard, heard2] {
        let mut texts =
            [heard.recv().unwrap(), heard.recv().unwrap()].map(|it| (it.number, it.text));
        texts.sort();
        let mut expected = [(number, "one".into()), (other_number, "two".into())];
        expected.sort();
        assert_eq!(texts, expected, "the same order for both");
    }
    let refused = chat.say("x".repeat(17_000)).wait();
    assert!(matches!(refused, Err(ChatError::Refused(_))), "{refused:?}");

    let nodes = |it: &Rollout| it.status().unwrap().map(|it| it.roster.nodes().count());
    assert!(eventually(|| nodes(&node) == Some(2) && nodes(&node2) == Some(2)));
    assert!(eventually(|| begins(&node)), "{:?}", node.status());
    let version = |it: &Rollout| it.status().unwrap().map(|it| it.state.version);
    assert!(eventually(|| version(&node) == version(&node2)));

    // What ends tells so.
    drop((chat, node));
    first.stop();
    assert_eq!(heard_end(&chat2), Err(RecvError::Closed));
    drop(node2);
    other.stop();
}

/// True if a rollout from v1 to v2 begins at a node.
fn begins(node: &Rollout) -> bool {
    let order = StartOrder {
        from: "v1".parse().unwrap(),
        to: "v2".parse().unwrap(),
        steps: vec![5_000, 10_000],
        interval_ms: 600_000,
        gates: Vec::new(),
        sticky: None,
        samples_min: 0,
        window_ms: 60_000,
        warm_up_ms: 0,
        failures: 0,
        deadline_ms: 0,
        routes: Vec::new(),
        mirror: None,
        same_servers: false,
    };
    let outcome = node.order(RolloutOrder::Start(order)).unwrap();
    matches!(outcome, RolloutOutcome::Committed { .. })
}

#[test]
fn rollouts_of_programs_end_in_their_order() {
    let first = Network::builder().start().unwrap();
    let other = Network::builder().bootstrap([first.endpoint()]).start().unwrap();
    first.wait_for_peers(1, PATIENCE).unwrap();
    let networks = [first, other];
    let members = (1..).zip(&networks).map(|(id, it)| (id, it.endpoint(), it.key()));
    let roster = OrderRoster::of(members).unwrap();
    let order = |it: &Network| Arc::new(it.order("ends", Order::byzantine(&roster)).unwrap());
    let logs = networks.each_ref().map(order);
    let node = |at: usize, name| networks[at].rollout(name).decide_in(&logs[at]).start().unwrap();
    let nodes = [node(0, "node-a"), node(1, "node-b")];
    assert!(eventually(|| begins(&nodes[0])), "{:?}", nodes[0].status());

    // Its end is an entry of the order, which has a proof, and both serve what it says.
    let version = |it: &Rollout| it.status().unwrap().map(|it| it.state.version);
    assert!(eventually(|| version(&nodes[0]) == version(&nodes[1])));
    let place = logs[1].sync().wait().unwrap().place;
    let group = roster.group("ends");
    let shows_an_end = |place| {
        let proven = logs[1].proof(Place(place)).unwrap().verify(&group).unwrap();
        proven.payload.contains("\"commit\":true")
    };
    assert!((1..=place.0).any(shows_an_end));

    // An order that trusts its members is no place for ends.
    let third = Network::builder().start().unwrap();
    let crash = Arc::new(third.order("ends", Order::crash(1)).unwrap());
    let refused = third.rollout("node-c").decide_in(&crash).start();
    assert!(matches!(refused, Err(StartError::Setting(_))), "{refused:?}");
}

/// Result of a read after the member has stopped.
fn heard_end(chat: &Chat) -> Result<(), RecvError> {
    let messages = chat.messages().unwrap();
    chat.stop();
    messages.recv().map(|_| ())
}

#[test]
fn a_network_leaves_no_thread_and_no_socket() {
    let count = |folder: &str| {
        fs::read_dir(Path::new("/proc/self").join(folder)).map_or(0, Iterator::count)
    };
    if !runs_alone("network::a_network_leaves_no_thread_and_no_socket") {
        return;
    }
    let before = (count("task"), count("fd"));
    let one = Network::builder().start().expect("it starts");
    let two = Network::builder().bootstrap([one.endpoint()]).start().expect("it starts");
    two.wait_for_peers(1, PATIENCE).expect("they meet");
    one.broadcast("news", "hello").expect("it is a member");
    assert!(count("task") > before.0 && count("fd") > before.1);
    drop((one, two));
    assert!(eventually(|| (count("task"), count("fd")) == before), "{before:?}");
}
