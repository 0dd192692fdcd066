//! Strangers, liars and floods against real processes: whatever comes in is answered, and nothing
//! of it changes who is a member or keeps a node from its work.
//!
//! The attackers live in this test. They hold every key they may hold (their own, and where one
//! seed lies that seed's) and sign what they like; the nodes are the binaries as they are shipped.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an attacker waits for one answer, and for any other in vain"
)]

use crate::support;

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::after;
use folkmoot::cli::fleet::LogEvent;
use folkmoot::model::entry::RegistryEntry;
use folkmoot::model::statement::{
    Admission, Confirmation, Finding, Leave, MemberInstance, NeighborList, ProposalKind,
    RegisterReq, Removal, RemovalReason, Vote,
};
use folkmoot::model::{
    Endpoint, Incarnation, KeyPair, Nonce, PublicKey, SeedId, Signature, WallTime,
};
use folkmoot::proto::gossip;
use folkmoot::proto::gossip::{GossipDigest, GossipMsg};
use folkmoot::proto::hello::{Bye, Hello, HelloProof, Intent, NodeInfo, VERSION};
use folkmoot::proto::line::{LINE_BYTES_MAX, encode};
use folkmoot::proto::liveness::{DeadReport, Ping, Pong, SuspectReq};
use folkmoot::proto::membership::{
    ExplainReq, LinkHint, PeerListReq, PeerListResp, RegisterVote, SeedDeadVote, SeedDigest,
    SeedSyncReq, SeedSyncResp, TopologyReq,
};
use folkmoot::proto::message::Message;
use folkmoot::proto::refusal::{ErrorCode, ErrorReply};
use folkmoot::runtime::{descriptors, thread};
use rustix::process::Signal;
use support::client::Client;
use support::member::{Member, Shaken, proof, rng, shake, wall};
use support::process::eventually;
use support::{NO_GOSSIP, Scene, about, neighborhoods, of};

/// Name of the statement that the caller of a handshake signs.
const CALLER: &str = "folkmoot/hello-proof/1";

fn pause(millis: u64) {
    let _ = after(Duration::from_millis(millis)).recv();
}

/// Member instance of a peer, by its own status.
fn subject_of(scene: &Scene, peer: Endpoint) -> MemberInstance {
    let status = scene.status(peer);
    let key = status["key"].as_str().and_then(PublicKey::parse).expect("a key");
    let incarnation = Incarnation(status["incarnation"].as_u64().expect("a number"));
    MemberInstance { endpoint: peer, incarnation, key }
}

/// Somebody whom nobody has ever seen.
fn ghost() -> (MemberInstance, KeyPair) {
    let keys = KeyPair::generate(&mut rng());
    let endpoint = Endpoint::new([127, 0, 0, 9].into(), 9);
    (MemberInstance { endpoint, incarnation: Incarnation(wall().0), key: keys.public() }, keys)
}

/// The key of a seed that lies: an attacker who has all that this seed has.
fn key_of_seed(scene: &Scene, seed: Endpoint) -> KeyPair {
    let path = scene.data_of("seed", seed).join("identity.key");
    let text = fs::read_to_string(path).expect("a seed has a key");
    let mut secret = [0; 32];
    hex::decode_to_slice(text.trim(), &mut secret).expect("64 digits");
    KeyPair::from_secret(secret)
}

fn vote(kind: ProposalKind, subject: MemberInstance, seed: u16, keys: &KeyPair) -> Vote {
    Vote::sign(kind, &[subject], (SeedId(seed), keys), wall())
}

fn admission(subject: MemberInstance, votes: Vec<Vote>) -> Admission {
    let MemberInstance { endpoint, incarnation, key } = subject;
    Admission { endpoint, incarnation, key, votes }
}

fn removal(subject: MemberInstance, votes: Vec<Vote>) -> Removal {
    Removal {
        because: RemovalReason::Death,
        lives: vec![subject],
        votes,
        confirmations: Vec::new(),
    }
}

fn nothing_signed() -> Signature {
    Signature::from_bytes([7; 64])
}

/// A vote of seed 2 on an admission that seed 2 never gave.
fn forged_register_vote(subject: MemberInstance, keys: &KeyPair) -> RegisterVote {
    let request = RegisterReq::sign(subject, keys);
    RegisterVote {
        endpoint: subject.endpoint,
        incarnation: subject.incarnation,
        key: subject.key,
        request: request.signature,
        seed: SeedId(2),
        yes: true,
        at: wall(),
        signature: Some(vote(ProposalKind::Admit, subject, 2, keys).signature),
        reason: "it is fine".to_owned(),
    }
}

/// A vote of seed 2 on a removal that seed 2 never gave.
fn forged_dead_vote(subject: MemberInstance, keys: &KeyPair) -> SeedDeadVote {
    SeedDeadVote {
        lives: vec![subject],
        seed: SeedId(2),
        yes: true,
        at: wall(),
        signature: Some(vote(ProposalKind::Remove, subject, 2, keys).signature),
        reason: "it is dead".to_owned(),
        confirmations: Vec::new(),
    }
}

fn gossip_of(origin: Endpoint, incarnation: Incarnation, number: u32) -> GossipMsg {
    let text = gossip::fixed_text(wall(), origin, number);
    GossipMsg { text, origin, incarnation, number, hops: 0, age_ms: 0 }
}

fn report_by(reporter: Endpoint, subject: MemberInstance, found: Vec<Confirmation>) -> DeadReport {
    let at = wall();
    DeadReport {
        text: folkmoot::proto::liveness::fixed_text(subject.endpoint, at, reporter),
        endpoint: subject.endpoint,
        incarnation: subject.incarnation,
        reporter,
        at,
        confirmations: found,
    }
}

/// The eleven messages of the core protocol, as a stranger with a key of its own would write them.
fn named_messages(victim: MemberInstance) -> Vec<Message> {
    let (me, keys) = ghost();
    let about = &victim;
    let found = Confirmation::sign(about, Finding::Refused, (me.endpoint, &keys), wall());
    let MemberInstance { endpoint, incarnation, key } = victim;
    vec![
        RegisterReq::sign(me, &keys).into(),
        forged_register_vote(me, &keys).into(),
        admission(me, vec![vote(ProposalKind::Admit, me, 1, &keys)]).into(),
        PeerListReq::default().into(),
        PeerListResp { seed: SeedId(1), members: Vec::new(), more: false }.into(),
        gossip_of(me.endpoint, me.incarnation, 1).into(),
        SuspectReq { endpoint, incarnation, key }.into(),
        found.into(),
        report_by(me.endpoint, victim, vec![found]).into(),
        forged_dead_vote(victim, &keys).into(),
        removal(victim, vec![vote(ProposalKind::Remove, victim, 1, &keys)]).into(),
    ]
}

/// State that must not change: the member instances at each seed, and what each peer believes.
fn state(scene: &Scene) -> String {
    let mut text = String::new();
    for seed in scene.running_seeds() {
        for line in scene.members_at(seed) {
            text += &format!("{seed}: {} {} {:?}\n", line.endpoint, line.incarnation, line.status);
        }
    }
    for peer in scene.running_peers() {
        let status = scene.status(peer);
        let neighbors: Vec<_> = status["neighbors"].as_object().expect("a map").keys().collect();
        let known = &status["members_known"];
        let held = &status["gossip_held"];
        let suspects = &status["suspects"];
        text += &format!("{peer}: {neighbors:?} {known} {held} {suspects} {}\n", status["state"]);
    }
    text
}

fn refusals(lines: &[LogEvent], node: Endpoint) -> Vec<&LogEvent> {
    lines.iter().filter(|it| of(it, node, "refused")).collect()
}

/// Nothing has changed that must not; a suspicion of a busy machine's may come and go.
#[track_caller]
fn check_unchanged(scene: &Scene, before: &str) {
    let is_unchanged = eventually(|| state(scene) == before);
    assert!(is_unchanged, "before:\n{before}now:\n{}", state(scene));
}

/// Waits until all seeds and peers know all members: the rest is what others do to them.
#[track_caller]
fn settle(scene: &mut Scene) {
    let peers = scene.running_peers();
    scene.await_lists(&peers);
    let knows = |peer: &Endpoint| scene.status(*peer)["members_known"] == peers.len() - 1;
    assert!(eventually(|| peers.iter().all(knows)), "{}", state(scene));
}

/// A fleet of three seeds and three quiet peers.
fn fleet() -> Scene {
    let mut scene = Scene::up(3, 3, NO_GOSSIP);
    settle(&mut scene);
    scene
}

// Strangers.

#[test]
fn each_named_message_of_a_stranger_gets_one_line_back_and_changes_nothing() {
    let scene = fleet();
    let victim = subject_of(&scene, scene.peers()[0]);
    let before = state(&scene);
    for node in [scene.seeds()[0], scene.peers()[1]] {
        for msg in named_messages(victim) {
            let name = msg.name();
            let mut client = Client::connect(node);
            client.send(msg);
            match client.receive().expect("an answer") {
                Message::PeerListResp(list) => {
                    assert_eq!((name, list.members.len()), ("PEER_LIST_REQ", 3));
                }
                Message::Error(error) => {
                    let code = if name == "PEER_LIST_REQ" {
                        ErrorCode::WrongRole
                    } else {
                        ErrorCode::NotAllowed
                    };
                    assert_eq!(error.code, code, "{name}: {}", error.reason);
                    assert!(error.reason.contains(name), "{name}: {}", error.reason);
                }
                other => panic!("{name} was answered by {other:?}"),
            }
            client.finish();
            assert_eq!(client.rest(), [], "{name} gets one line");
        }
    }
    check_unchanged(&scene, &before);
}

#[test]
fn how_messages_are_cut_into_packets_does_not_matter() {
    let scene = Scene::up(1, 1, NO_GOSSIP);
    let seed = scene.seeds()[0];
    let line = encode(&PeerListReq::default().into());
    let is_list = |msg: Option<Message>| {
        let Some(Message::PeerListResp(list)) = msg else { return false };
        list.members.len() == 1
    };
    let mut client = Client::connect(seed);
    let size = line.len().div_ceil(10);
    assert_eq!(line.chunks(size).count(), 10);
    for part in line.chunks(size) {
        client.write(part).expect("it reads");
        pause(5);
    }
    assert!(is_list(client.receive()), "in ten pieces");
    client.write(&line.repeat(10)).expect("it reads");
    for _ in 0..10 {
        assert!(is_list(client.receive()), "ten in one piece");
    }
    client.finish();
    assert_eq!(client.rest(), []);
}

/// Lines that open like a message and are none; the connection survives each.
fn malformed_lines() -> Vec<Vec<u8>> {
    let deep = "[".repeat(100_000);
    let text = [
        "{",
        "{}",
        "{\"type\":\"NO_SUCH_THING\"}",
        "{\"type\":7}",
        "{\"type\":\"REGISTER_REQ\"}",
        "{\"type\":\"PEER_LIST_REQ\",\"after\":\"nowhere\"}",
        "{\"type\":\"PEER_LIST_REQ\",\"ended\":\"perhaps\"}",
        "{\"type\":\"PING\",\"nonce\":-1}",
        "{\"type\":\"PING\",\"nonce\":1e99}",
        "{\"type\":\"EXPLAIN_REQ\",\"endpoint\":\"127.0.0.1:99999\"}",
        "{\"type\":\"PEER_LIST_REQ\"} trailing",
        &format!("{{\"type\":{deep}"),
        &format!("{{\"type\":\"PEER_LIST_REQ\",\"x\":{deep}"),
    ];
    let bytes = [&b"{\"type\":\"PEER_LIST_REQ\0\"}"[..], b"{\"\xff\xfe\":1}"];
    text.iter().map(|it| it.as_bytes().to_vec()).chain(bytes.map(<[u8]>::to_vec)).collect()
}

#[test]
fn garbage_costs_its_sender_a_line_or_its_connection_and_the_node_nothing() {
    let mut scene = fleet();
    let nodes = [scene.seeds()[0], scene.peers()[0]];
    let before = state(&scene);
    for node in nodes {
        for line in malformed_lines() {
            let shown = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
            let mut client = Client::connect(node);
            client.write(&[&line[..], b"\n"].concat()).expect("it reads");
            let refusal = client.refusal();
            assert_eq!(refusal.code, ErrorCode::Malformed, "{shown}: {}", refusal.reason);
            assert!(refusal.reason.len() < 1_000, "{shown}");
            client.send(ExplainReq { endpoint: node });
            assert!(client.receive().is_some(), "{shown}: the connection goes on");
        }
        let unknown: [&[u8]; 4] = [b"hello\n", b"\x16\x03\x01\x02\n", b"\xff\xff", b"[1]\n"];
        for bytes in unknown {
            let mut client = Client::connect(node);
            client.write(bytes).expect("it reads");
            assert_eq!(client.line(), None, "{bytes:?} is no dialect: closed");
        }
        let mut client = Client::connect(node);
        client.write(b"{\"type\":\"PEER_LIST").expect("it reads");
        client.finish();
        assert_eq!(client.refusal().code, ErrorCode::Malformed, "half a line");
        assert_eq!(client.rest(), []);
    }
    check_unchanged(&scene, &before);
    let lines = scene.lines();
    for node in nodes {
        assert!(refusals(&lines, node).len() <= 6, "{:#?}", refusals(&lines, node));
    }
}

#[test]
fn a_line_of_ten_megabytes_ends_its_connection_and_no_other() {
    let scene = fleet();
    for node in [scene.seeds()[0], scene.peers()[0]] {
        let mut bystander = Client::connect(node);
        bystander.send(ExplainReq { endpoint: node });
        assert!(bystander.receive().is_some());
        let mut client = Client::connect(node);
        let mut line = b"{\"type\":\"PEER_LIST_REQ\",\"x\":\"".to_vec();
        line.resize(10 * 1024 * 1024, b'x');
        // It may be closed long before it has all been sent.
        let _ = client.write(&line);
        let told = client.rest();
        if let [Message::Error(error)] = &told[..] {
            assert!(error.reason.contains(&LINE_BYTES_MAX.to_string()), "{}", error.reason);
        } else {
            panic!("told {told:?}, not the limit");
        }
        bystander.send(ExplainReq { endpoint: node });
        assert!(bystander.receive().is_some(), "the other connection goes on");
    }
}

#[test]
fn a_flood_of_garbage_is_not_a_flood_of_log_lines() {
    let mut scene = fleet();
    let node = scene.seeds()[0];
    let before = state(&scene);
    let mut refused = 0;
    for _ in 0..150 {
        let mut client = Client::connect(node);
        let _ = client.write(&b"{nonsense}\n".repeat(40));
        client.finish();
        refused += client.rest().len();
    }
    assert_eq!(refused, 150 * 16, "a connection may offend sixteen times");
    check_unchanged(&scene, &before);
    let lines = scene.lines();
    let garbled = |it: &&&LogEvent| it.text("cause") == Some("garbled line");
    let told = refusals(&lines, node).iter().filter(garbled).count();
    assert!((1..=5).contains(&told), "{told} lines for {refused} refusals");
    let status = scene.status(node);
    assert_eq!(status["refused"]["garbled line"], refused);
}

#[test]
fn a_flood_of_strangers_is_not_a_flood_of_log_lines() {
    let mut scene = fleet();
    let seed = scene.seeds()[0];
    let before = scene.mark();
    for number in 0..400 {
        let (mut me, keys) = ghost();
        let is_impostor = number % 2 == 0;
        if is_impostor {
            me.endpoint = scene.seeds()[1];
        }
        let mut info = NodeInfo::new(me);
        info.seed = is_impostor.then_some(SeedId(2));
        let Shaken::Open(mut client, _) = shake(seed, &info, &keys, Intent::Errand) else {
            panic!("what node info claims is seen after its proof");
        };
        client.finish();
        client.rest();
    }
    assert_eq!(scene.members_at(seed).len(), 3);
    let lines = scene.lines()[before..].to_vec();
    // Of so many in so many milliseconds it is told; those spans may end within the flood.
    for (event, most, span) in [("seed_key_contradicted", 1, 60_000), ("connected", 40, 10_000)] {
        let told = lines.iter().filter(|it| of(it, seed, event)).map(|it| it.ts_ms);
        let told: Vec<_> = told.collect();
        assert!(!told.is_empty(), "nobody is told of {event}");
        let is_slow = |it: &[u64]| it[2 * most] - it[0] + 10 >= span;
        assert!(told.windows(2 * most + 1).all(is_slow), "{event}: {told:?}");
    }
    // Of refusals it is told at powers of ten of each cause.
    let refused = refusals(&lines, seed);
    assert!(refused.len() <= 6, "{refused:#?}");
}

// Crowds.

#[test]
fn a_thousand_silent_connections_do_not_keep_an_honest_peer_out() {
    let mut scene = Scene::lay_out(3, 1, NO_GOSSIP);
    scene.start_seeds();
    let mut crowd = Vec::new();
    // Where the hard limit is low too, the crowd is as large as it allows.
    let size = descriptors::allowed().saturating_sub(256).min(3_000);
    for number in 0..size {
        let seed = scene.seeds()[number % 3];
        let mut client = TcpStream::connect(seed.socket_addr()).expect("it listens");
        if number % 2 == 0 {
            // Half of them open like a native client and then say no more.
            let _ = client.write_all(b"{\"type\":");
        }
        crowd.push(client);
    }
    scene.start_peers();
    scene.await_lists(&scene.peers());
    drop(crowd);
    for seed in scene.seeds() {
        assert_eq!(scene.status(seed)["ready"], true);
    }
}

#[test]
fn a_thousand_bogus_registrations_are_refused_and_the_seeds_go_on() {
    const BOGUS: u16 = 1_000;
    const AT_A_TIME: u16 = 8;
    let mut scene = Scene::lay_out(3, 2, NO_GOSSIP);
    scene.start_seeds();
    let peers = scene.peers();
    scene.start_some_peers(&peers[..1]);
    let seeds = scene.seeds();
    let crowd: Vec<_> = (0..AT_A_TIME)
        .map(|lane| {
            let seed = seeds[usize::from(lane) % 3];
            let attack = move || (0..BOGUS / AT_A_TIME).map(|n| bogus(seed, lane, n)).collect();
            thread::spawn("bogus", attack).expect("a thread starts")
        })
        .collect();
    scene.start_some_peers(&peers[1..]);
    let reasons: Vec<Vec<ErrorReply>> =
        crowd.into_iter().map(|lane| lane.join().expect("each was refused")).collect();
    let reasons: Vec<_> = reasons.into_iter().flatten().collect();
    assert_eq!(reasons.len(), usize::from(BOGUS));
    for error in reasons {
        // On a crowded machine a dial-back may run out of time.
        let is_clear = ["nobody listens at", "no answer from"];
        assert!(is_clear.iter().any(|it| error.reason.contains(it)), "{error:?}");
    }
    scene.await_lists(&peers);
}

/// Registers an endpoint at which nobody listens; returns how that was refused.
fn bogus(seed: Endpoint, lane: u16, number: u16) -> ErrorReply {
    let keys = KeyPair::generate(&mut rng());
    let endpoint = Endpoint::new([127, 0, 1, lane as u8].into(), 2_000 + number);
    let subject =
        MemberInstance { endpoint, incarnation: Incarnation(wall().0), key: keys.public() };
    let Shaken::Open(mut client, _) = shake(seed, &NodeInfo::new(subject), &keys, Intent::Link)
    else {
        panic!("a handshake is not refused");
    };
    client.send(RegisterReq::sign(subject, &keys));
    loop {
        match client.receive().expect("an answer") {
            Message::Error(error) => return error,
            Message::RegisterVote(vote) => assert!(!vote.yes, "{vote:?}"),
            Message::Ping(Ping { nonce }) => client.send(Pong { nonce }),
            other => panic!("{endpoint} was answered by {other:?}"),
        }
    }
}

// Names and keys.

/// Shakes hands with a seed and asks it to let `info`'s owner in; the refusal.
fn register_as(seed: Endpoint, subject: MemberInstance, keys: &KeyPair) -> ErrorReply {
    let Shaken::Open(mut client, _) = shake(seed, &NodeInfo::new(subject), keys, Intent::Link)
    else {
        panic!("a handshake is not refused");
    };
    client.send(RegisterReq::sign(subject, keys));
    client.refusal()
}

#[test]
fn an_endpoint_that_is_alive_is_not_given_to_another_key() {
    let scene = fleet();
    let before = state(&scene);
    let victim = subject_of(&scene, scene.peers()[0]);
    let keys = KeyPair::generate(&mut rng());
    for incarnation in [victim.incarnation, Incarnation(victim.incarnation.0 + 9), Incarnation(1)] {
        let subject = MemberInstance { endpoint: victim.endpoint, incarnation, key: keys.public() };
        for seed in scene.seeds() {
            let refusal = register_as(seed, subject, &keys);
            assert_eq!(refusal.code, ErrorCode::EndpointTaken);
            assert!(refusal.reason.contains("alive under another key"), "{}", refusal.reason);
        }
    }
    let subject = MemberInstance {
        endpoint: scene.seeds()[1],
        incarnation: Incarnation(1),
        key: keys.public(),
    };
    let refusal = register_as(scene.seeds()[0], subject, &keys);
    assert!(refusal.reason.contains("a seed's address"), "{}", refusal.reason);
    check_unchanged(&scene, &before);
}

/// A first line of `info`'s owner, and the answer of `to`.
fn hello(to: Endpoint, hello: &Hello) -> (Client, Option<Message>) {
    let mut client = Client::connect(to);
    client.send(hello.clone());
    let answer = client.receive();
    (client, answer)
}

fn assert_handshake_refused(client: &mut Client, why: &str) {
    let refusal = client.refusal();
    assert_eq!(refusal.code, ErrorCode::Handshake, "{why}: {}", refusal.reason);
    client.finish();
    assert_eq!(client.rest(), [], "{why}: closed");
}

#[test]
fn a_proof_holds_for_one_connection_and_one_challenger_only() {
    let scene = fleet();
    let before = state(&scene);
    let (me, keys) = ghost();
    let info = NodeInfo::new(me);
    for node in [scene.seeds()[0], scene.peers()[0]] {
        let first = Hello {
            version: VERSION,
            intent: Intent::Errand,
            nonce: Nonce::random(&mut rng()),
            info: info.clone(),
        };
        let ack = |answer| match answer {
            Some(Message::HelloAck(ack)) => ack,
            other => panic!("no handshake: {other:?}"),
        };
        let (mut honest, answer) = hello(node, &first);
        let challenge = ack(answer);
        let recorded = HelloProof {
            proof: proof(CALLER, &info, &challenge.nonce, &challenge.info.key, &keys),
        };
        honest.send(recorded);

        let (mut replay, answer) = hello(node, &first);
        let fresh = ack(answer);
        assert_ne!(fresh.nonce, challenge.nonce);
        replay.send(recorded);
        assert_handshake_refused(&mut replay, "a recorded proof");

        // A man in the middle gets proofs that are bound to his own key.
        let (mut relay, answer) = hello(node, &first);
        let middle = KeyPair::generate(&mut rng()).public();
        relay.send(HelloProof { proof: proof(CALLER, &info, &ack(answer).nonce, &middle, &keys) });
        assert_handshake_refused(&mut relay, "a proof for another challenger");

        let (mut mirror, answer) = hello(node, &first);
        mirror.send(HelloProof { proof: ack(answer).proof });
        assert_handshake_refused(&mut mirror, "the node's own proof");

        let (mut other, answer) = hello(node, &first);
        let thief = KeyPair::generate(&mut rng());
        let challenge = ack(answer);
        let stolen = proof(CALLER, &info, &challenge.nonce, &challenge.info.key, &thief);
        other.send(HelloProof { proof: stolen });
        assert_handshake_refused(&mut other, "a proof by another key");

        let itself = Hello { info: challenge.info, ..first };
        let (_, answer) = hello(node, &itself);
        assert!(matches!(answer, Some(Message::Error(_))), "its own key");
        let old = Hello { version: VERSION + 1, ..itself };
        let (_, answer) = hello(node, &old);
        assert!(matches!(answer, Some(Message::Error(it)) if it.reason.contains("version")));
    }
    check_unchanged(&scene, &before);
}

#[test]
fn nobody_is_a_seed_by_saying_so() {
    let mut scene = Scene::lay_out(3, 2, NO_GOSSIP);
    let (seeds, peers) = (scene.seeds(), scene.peers());
    // The third has never been seen by anybody.
    scene.start_some_seeds(&seeds[..2]);
    scene.start_peers();
    scene.await_overlay(&peers);
    settle(&mut scene);
    let victim = subject_of(&scene, peers[0]);
    let before = state(&scene);
    for (number, endpoint) in [(2, seeds[1]), (3, seeds[2]), (1, seeds[0]), (4, seeds[2])] {
        let keys = KeyPair::generate(&mut rng());
        let subject = MemberInstance { endpoint, incarnation: Incarnation(0), key: keys.public() };
        let mut info = NodeInfo::new(subject);
        info.seed = Some(SeedId(number));
        for node in [seeds[0], peers[0]] {
            let Shaken::Open(mut client, _) = shake(node, &info, &keys, Intent::Link) else {
                panic!("what node info claims is seen after its proof");
            };
            client.send(forged_dead_vote(victim, &keys));
            let told = client.rest();
            let is_no = |it: &Message| matches!(it, Message::Error(_) | Message::Bye(_));
            assert!(!told.is_empty() && told.iter().all(is_no), "{told:?}");
        }
    }
    check_unchanged(&scene, &before);
    let lines = scene.lines();
    let loud = lines.iter().find(|it| of(it, seeds[0], "seed_key_contradicted"));
    assert_eq!(loud.and_then(|it| it.number("seed")), Some(2), "the operator is told");
    // The true third is still believed.
    scene.start_some_seeds(&seeds[2..]);
    scene.await_lists(&peers);
}

#[test]
fn strangers_that_call_as_seeds_do_not_keep_a_seed_that_stood_still_from_the_other() {
    let mut scene = Scene::lay_out(3, 0, NO_GOSSIP);
    let seeds = scene.seeds();
    // Two of three: without one of them there is no quorum.
    scene.start_some_seeds(&seeds[..2]);
    scene.fleet.signal(seeds[1], Signal::STOP).expect("it runs");
    let is_over = Arc::new(AtomicBool::new(false));
    let call = |(number, claimed, node): (u16, Endpoint, Endpoint)| {
        let is_over = Arc::clone(&is_over);
        let keys = KeyPair::generate(&mut rng());
        let subject =
            MemberInstance { endpoint: claimed, incarnation: Incarnation(0), key: keys.public() };
        let info = NodeInfo { seed: Some(SeedId(number)), ..NodeInfo::new(subject) };
        let calls = move || {
            while !is_over.load(Ordering::Relaxed) {
                if let Shaken::Open(mut client, _) = shake(node, &info, &keys, Intent::Link) {
                    drop(client.rest());
                }
                pause(50);
            }
        };
        thread::spawn("caller", calls).expect("a thread starts")
    };
    let both = [(2, seeds[1], seeds[0]), (1, seeds[0], seeds[1])];
    let callers: Vec<_> = both.into_iter().cycle().take(6).map(call).collect();
    scene.wait("the first misses the second", |lines| {
        let is_lost = |it: &LogEvent| {
            of(it, seeds[0], "seed_link") && it.fields.get("up") == Some(&false.into())
        };
        lines.iter().any(is_lost)
    });
    scene.fleet.signal(seeds[1], Signal::CONT).expect("it runs");
    let is_quorum = || seeds[..2].iter().all(|seed| scene.status(*seed)["seeds_connected"] == 2);
    let is_whole = eventually(is_quorum);
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().expect("a call is a call");
    }
    assert!(is_whole, "the seeds are apart under calls");
}

// Lies of members.

/// Certificates that prove nothing although one seed lies: its own vote alone, doubled, under
/// another seed's name, with strangers' votes, for something else, or none at all.
fn worthless_votes(kind: ProposalKind, subject: MemberInstance, liar: &KeyPair) -> Vec<Vec<Vote>> {
    let other = match kind {
        ProposalKind::Admit => ProposalKind::Remove,
        ProposalKind::Remove | ProposalKind::Evict | ProposalKind::Ban => ProposalKind::Admit,
    };
    let stranger = KeyPair::generate(&mut rng());
    let own = vote(kind, subject, 1, liar);
    let later = Vote::sign(kind, &[subject], (SeedId(1), liar), WallTime(wall().0 + 1));
    vec![
        vec![],
        vec![own.clone()],
        vec![own.clone(), own.clone()],
        vec![own.clone(), later],
        vec![own.clone(), vote(kind, subject, 2, liar)],
        vec![own.clone(), vote(kind, subject, 2, &stranger)],
        vec![own.clone(), vote(kind, subject, 4, &stranger), vote(kind, subject, 0, &stranger)],
        vec![own, vote(other, subject, 2, liar)],
        vec![vote(kind, subject, 2, &stranger), vote(kind, subject, 3, &stranger)],
    ]
}

#[test]
fn certificates_without_a_quorum_of_true_votes_change_nothing() {
    let mut scene = fleet();
    let liar = Member::admitted(&scene.seeds());
    let members: Vec<_> = scene.peers().into_iter().chain([liar.endpoint()]).collect();
    scene.await_lists(&members);
    let lying_seed = key_of_seed(&scene, scene.seeds()[0]);
    let victim = subject_of(&scene, scene.peers()[0]);
    let (ghost, _) = ghost();
    let before = scene.mark();
    let mut links = liar.seeds.clone();
    links.push(liar.call(scene.peers()[1]));
    for link in &mut links {
        let is_seed = link.info.seed.is_some();
        for votes in worthless_votes(ProposalKind::Admit, ghost, &lying_seed) {
            if is_seed {
                let reason = liar.refused(link, admission(ghost, votes));
                assert!(reason.contains("no certificate"), "{reason}");
            }
        }
        if is_seed {
            // More than a dozen offenses end a link; the removals get a fresh one.
            continue;
        }
        for votes in worthless_votes(ProposalKind::Remove, victim, &lying_seed) {
            let reason = liar.refused(link, removal(victim, votes));
            assert!(reason.contains("no certificate"), "{reason}");
        }
    }
    for seed in scene.seeds() {
        let mut link = liar.call(seed);
        for votes in worthless_votes(ProposalKind::Remove, victim, &lying_seed) {
            let reason = liar.refused(&mut link, removal(victim, votes));
            assert!(reason.contains("no certificate"), "{reason}");
        }
    }
    scene.await_lists(&members);
    let lines = scene.lines()[before..].to_vec();
    let changed = |it: &&LogEvent| ["admitted", "removed", "left"].contains(&it.event.as_str());
    assert_eq!(lines.iter().find(changed).map(LogEvent::line), None);
}

/// The state of a registry that this one is certainly not.
fn digest_of_lies(buckets: Vec<String>) -> SeedDigest {
    SeedDigest { entries: 0, root: "0".repeat(16), buckets, answer: true }
}

/// Everything that a certified member can say against `victim`, or in somebody else's name.
fn lies(liar: &Member, victim: MemberInstance, witness: MemberInstance) -> Vec<Message> {
    let (ghost, ghost_keys) = ghost();
    let (me, keys) = (liar.endpoint(), liar.keys());
    let about = &victim;
    let own = liar.finding(victim, Finding::Silent);
    // In another member's name, with this one's signature; and in a ghost's.
    let borrowed = Confirmation::sign(about, Finding::Silent, (witness.endpoint, keys), wall());
    let unknown = Confirmation::sign(about, Finding::Silent, (ghost.endpoint, &ghost_keys), wall());
    let suicide = Confirmation::sign(about, Finding::Silent, (victim.endpoint, keys), wall());
    let turned = Confirmation { finding: Finding::Refused, ..liar.finding(victim, Finding::Alive) };
    let mut renamed = report_by(me, victim, vec![own]);
    renamed.text = renamed.text.replace("Dead Node", "Dead Mode");
    let MemberInstance { endpoint, incarnation, key } = victim;
    let signature = nothing_signed();
    let leave = Leave { endpoint, incarnation, key, at: wall(), signature };
    let removal = removal(victim, vec![vote(ProposalKind::Remove, victim, 1, keys)]);
    let entry =
        RegistryEntry { subject: victim, admission: None, removal: None, leave: Some(leave) };
    let many = (1..=2_000).map(|port| Endpoint::new([127, 0, 0, 1].into(), port)).collect();
    vec![
        report_by(me, victim, vec![own, own, borrowed, unknown, suicide, turned]).into(),
        report_by(me, victim, vec![]).into(),
        report_by(witness.endpoint, victim, vec![borrowed]).into(),
        renamed.into(),
        report_by(me, ghost, vec![own]).into(),
        borrowed.into(),
        SuspectReq { endpoint, incarnation, key }.into(),
        forged_dead_vote(victim, keys).into(),
        forged_register_vote(ghost, &ghost_keys).into(),
        leave.into(),
        Leave::sign(MemberInstance { key: keys.public(), ..victim }, wall(), keys).into(),
        NeighborList::sign(&victim, u64::MAX, vec![me], keys).into(),
        NeighborList::sign(&liar.subject(), 5, many, keys).into(),
        SeedSyncResp {
            entries: vec![entry],
            removals: vec![Arc::new(removal)],
            ..SeedSyncResp::default()
        }
        .into(),
        SeedSyncReq { buckets: (0..64).collect(), after: None }.into(),
        digest_of_lies(Vec::new()).into(),
        digest_of_lies(vec!["0".repeat(16); 64]).into(),
        digest_of_lies(vec!["0".repeat(16); 63]).into(),
        LinkHint { endpoint: me }.into(),
        PeerListResp { seed: SeedId(1), members: Vec::new(), more: false }.into(),
        RegisterReq::sign(ghost, &ghost_keys).into(),
        gossip_of(victim.endpoint, victim.incarnation, 0).into(),
        GossipMsg { text: "x".repeat(5_000), ..gossip_of(me, Incarnation(1), 1) }.into(),
        GossipDigest { ids: "zz".to_owned() }.into(),
        TopologyReq::default().into(),
        Bye { reason: "I am somebody else".to_owned() }.into(),
    ]
}

#[test]
fn one_lying_member_changes_nothing_whatever_it_says() {
    let mut scene = fleet();
    let (seeds, peers) = (scene.seeds(), scene.peers());
    let liar = Member::admitted(&seeds);
    let members: Vec<_> = peers.iter().copied().chain([liar.endpoint()]).collect();
    scene.await_lists(&members);
    let (victim, witness) = (subject_of(&scene, peers[0]), subject_of(&scene, peers[1]));
    let before = scene.mark();
    for node in seeds.iter().chain(&peers) {
        for lie in lies(&liar, victim, witness) {
            // On a link of its own, so that no offense is missed because of an earlier one.
            let link = liar.call(*node);
            link.send(lie);
            link.send(Ping { nonce: 77 });
            link.await_msg("sign of life", |msg| match msg {
                Message::Pong(Pong { nonce: 77 }) | Message::Bye(_) => Some(()),
                _ => None,
            });
        }
    }
    let bad = ["removed", "left", "evicted", "gossip"];
    scene.never("a change", Duration::from_secs(1), |it| {
        bad.contains(&it.event.as_str()) && !about(it, liar.endpoint(), "left")
    });
    let lines = scene.lines()[before..].to_vec();
    let admitted = |it: &&LogEvent| it.event == "admitted";
    assert_eq!(lines.iter().find(admitted).map(LogEvent::line), None);
    scene.await_lists(&members);
    for peer in &peers {
        let life = lines.iter().find(|it| of(it, *peer, "attempt"));
        assert_eq!(life.map(LogEvent::line), None, "nobody has to register again");
    }
}

#[test]
fn a_flood_of_reports_by_one_member_is_neither_work_without_end_nor_a_flood_of_log_lines() {
    let mut scene = fleet();
    let liar = Member::admitted(&scene.seeds());
    let members: Vec<_> = scene.peers().into_iter().chain([liar.endpoint()]).collect();
    scene.await_lists(&members);
    let victim = subject_of(&scene, scene.peers()[0]);
    let before = scene.mark();
    let link = &liar.seeds[0];
    for number in 0..2_000_u64 {
        let mut found = liar.finding(victim, Finding::Silent);
        if number > 0 {
            // Ever newer, so that none is taken for a repetition.
            let at = WallTime(found.at.0 + number);
            let who = (liar.endpoint(), liar.keys());
            let about = &victim;
            found = Confirmation::sign(about, Finding::Silent, who, at);
        }
        let at = WallTime(wall().0 + number);
        let mut report = liar.report(victim, vec![found]);
        report.at = at;
        report.text = folkmoot::proto::liveness::fixed_text(victim.endpoint, at, liar.endpoint());
        link.send(report);
    }
    link.send(Ping { nonce: 77 });
    link.await_msg("sign of life", |msg| matches!(msg, Message::Pong(_)).then_some(()));
    scene.await_lists(&members);
    let lines = scene.lines()[before..].to_vec();
    for seed in scene.seeds() {
        let told = lines.iter().filter(|it| it.node == seed).count();
        assert!(told < 1_000, "{seed} wrote {told} lines about 2,000 lies of one member");
    }
}

#[test]
fn colluding_neighbors_do_not_get_a_live_member_removed() {
    let mut scene = Scene::lay_out(3, 1, NO_GOSSIP);
    let seeds = scene.seeds();
    scene.start_seeds();
    let liars: Vec<_> = (0..4).map(|_| Member::admitted(&seeds)).collect();
    scene.start_peers();
    let victim = subject_of(&scene, scene.peers()[0]);
    scene.wait("all neighbors of the victim are liars", |lines| {
        let all = neighborhoods(lines);
        all.get(&victim.endpoint).is_some_and(|neighbors| {
            neighbors.len() >= 2
                && neighbors.iter().all(|it| liars.iter().any(|liar| liar.endpoint() == *it))
        })
    });
    let before = scene.mark();
    for round in 1..=4 {
        let found: Vec<_> =
            liars.iter().map(|liar| liar.finding(victim, Finding::Refused)).collect();
        for liar in &liars {
            liar.announce(round, &[victim.endpoint]);
            liar.tell_seeds(liar.report(victim, found.clone()));
            for finding in &found {
                liar.tell_seeds(*finding);
            }
        }
        pause(300);
    }
    let no = |it: &LogEvent, seed| {
        of(it, seed, "voted")
            && it.number("seed").is_some()
            && it.text("reason").is_some_and(|it| it.contains("it answered my own probe"))
    };
    scene.wait("each seed has looked for itself", |lines| {
        seeds.iter().all(|seed| lines[before..].iter().any(|it| no(it, *seed)))
    });
    scene.never("a removal", Duration::from_millis(500), |it| {
        it.event == "removed" || it.event == "evicted"
    });
    let members: Vec<_> = liars.iter().map(Member::endpoint).chain([victim.endpoint]).collect();
    scene.await_lists(&members);
}

#[test]
fn evidence_and_certificates_of_an_ended_life_do_not_harm_the_next_one() {
    let mut scene = fleet();
    let (seeds, peers) = (scene.seeds(), scene.peers());
    let witnesses = [Member::admitted(&seeds), Member::admitted(&seeds)];
    let endpoints: Vec<_> = witnesses.iter().map(Member::endpoint).collect();
    let all: Vec<_> = peers.iter().copied().chain(endpoints).collect();
    scene.await_lists(&all);
    let old = subject_of(&scene, peers[0]);
    scene.fleet.kill(peers[0]).expect("it runs");
    // Now it is true.
    let found: Vec<_> = witnesses.iter().map(|it| it.finding(old, Finding::Refused)).collect();
    let report = witnesses[0].report(old, found.clone());
    witnesses[0].tell_seeds(report.clone());
    let rest: Vec<_> = all.iter().copied().filter(|it| *it != peers[0]).collect();
    scene.await_lists(&rest);
    let certificate = removal_of(seeds[0], peers[0]);
    scene.start_some_peers(&peers[..1]);
    scene.await_lists(&all);
    let new = subject_of(&scene, peers[0]);
    assert!(new.incarnation > old.incarnation && new.key == old.key);

    let before = scene.mark();
    let renewed = DeadReport { incarnation: new.incarnation, ..report.clone() };
    let moved: Vec<_> =
        found.iter().map(|it| Confirmation { incarnation: new.incarnation, ..*it }).collect();
    let moved = DeadReport { confirmations: moved, ..renewed.clone() };
    let stretched = Removal { lives: vec![new], ..certificate.clone() };
    let replays: [Message; 5] =
        [report.into(), renewed.into(), moved.into(), certificate.into(), stretched.into()];
    for replay in replays {
        witnesses[0].tell_seeds(replay.clone());
        let link = witnesses[0].call(peers[1]);
        link.send(replay);
        link.send(Ping { nonce: 77 });
        // Of two links with one neighbor one is hung up, with a BYE.
        link.await_msg("sign of life", |msg| {
            matches!(msg, Message::Pong(_) | Message::Bye(_)).then_some(())
        });
    }
    scene.never("a second removal", Duration::from_secs(1), |it| it.event == "evicted");
    scene.await_lists(&all);
    let lines = scene.lines()[before..].to_vec();
    assert!(lines.iter().all(|it| it.event != "removed"), "the new life is untouched");
    assert_eq!(subject_of(&scene, peers[0]), new);
}

/// The certificate by which the last life of `endpoint` ended.
fn removal_of(seed: Endpoint, endpoint: Endpoint) -> Removal {
    let mut client = Client::connect(seed);
    client.send(ExplainReq { endpoint });
    match client.receive() {
        Some(Message::ExplainResp(answer)) => answer
            .lives
            .into_iter()
            .find_map(|life| life.removal)
            .map(Arc::unwrap_or_clone)
            .expect("it was removed"),
        other => panic!("not explained: {other:?}"),
    }
}

#[test]
fn nobody_can_burn_an_endpoint_with_an_incarnation_from_the_far_future() {
    let mut scene = Scene::lay_out(3, 1, "--gossip-max 0 --backoff-max 1s");
    let seeds = scene.seeds();
    scene.start_seeds();
    let keys = KeyPair::generate(&mut rng());
    let peer = scene.peers()[0];
    let mut burner = Member::at(peer, keys, Incarnation(u64::MAX));
    burner.link_seeds(&seeds);
    for link in &burner.seeds {
        link.send(RegisterReq::sign(burner.subject(), burner.keys()));
    }
    let outcome = burner.seeds[0].await_msg("decision", |msg| match msg {
        Message::RegisterCommit(_) => Some(true),
        Message::Error(_) => Some(false),
        _ => None,
    });
    if outcome {
        burner.tell_seeds(Leave::sign(burner.subject(), wall(), burner.keys()));
        scene.await_lists(&[]);
    }
    drop(burner);
    scene.start_peers();
    scene.await_lists(&[peer]);
}

/// Connections are cheap to make and to forget.
#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let scene = Scene::up(1, 1, NO_GOSSIP);
    let seed = scene.seeds()[0];
    for _ in 0..500 {
        drop(TcpStream::connect(seed.socket_addr()).expect("it listens"));
        drop(Client::connect(seed));
    }
    assert!(eventually(|| {
        let pid = scene.fleet.pid(seed).expect("it runs");
        let open = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        open < 60
    }));
    assert_eq!(scene.members_at(seed).len(), 1);
}
