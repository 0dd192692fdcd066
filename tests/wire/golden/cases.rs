//! The messages behind `native.jsonl`, in the order of its lines: fixed keys, fixed times, and
//! signatures that hold. Whoever adds a message or an optional field adds a case here.

use std::sync::Arc;
use std::time::Duration;

use folkmoot::machine::membership::registry::Registry;
use folkmoot::machine::session::{self, Session};
use folkmoot::machine::{DialId, Effect, Effects, LinkId};
use folkmoot::model::entry::{MemberState, RegistryEntry};
use folkmoot::model::statement::{
    Admission, Ban, Confirmation, Finding, Leave, MemberInstance, NeighborList, ProposalKind,
    RegisterReq, Removal, RemovalReason, Vote,
};
use folkmoot::model::{
    Data, Endpoint, Incarnation, KeyPair, MessageId, PublicKey, Rng, SeedId, Signature,
    SigningBytes, WallTime,
};
use folkmoot::proto::broadcast::{
    Announce, Graft, Have, Lack, Lacking, Offer, Part, PartReq, Prune, Publish, Reached, Receipt,
    Slow,
};
use folkmoot::proto::direct::{DeliveryVerdict, DirectAck, DirectMsg, DirectPart, DirectPartReq};
use folkmoot::proto::discovery::{Contact, FindNode, Found, NodeId};
use folkmoot::proto::gossip;
use folkmoot::proto::gossip::{GossipDigest, GossipMsg};
use folkmoot::proto::hello::{Bye, Intent, NodeInfo, SeedKey};
use folkmoot::proto::liveness;
use folkmoot::proto::liveness::{DeadReport, Ping, Pong, SuspectReq};
use folkmoot::proto::membership::{
    ExplainReq, ExplainResp, LinkHint, MemberLine, NodeLine, PeerListReq, PeerListResp,
    RegisterVote, SeedDeadVote, SeedDigest, SeedOrderVote, SeedSyncReq, SeedSyncResp, TopologyReq,
    TopologyResp,
};
use folkmoot::proto::message::Message;
use folkmoot::proto::refusal::{ErrorCode, ErrorReply};
use rand::SeedableRng as _;

/// The moment at which all of this happens: that of the fixed texts in the documentation.
pub(crate) const AT: WallTime = WallTime(1_734_567_890_123);

/// The life of peer 6001 that is admitted and removed here.
pub(crate) const LIFE: Incarnation = Incarnation(1_734_567_880_000);

/// All lines of the golden file, each with what it shows.
pub(crate) fn all() -> Vec<(&'static str, Message)> {
    [
        handshake(),
        registration(),
        lists(),
        gossip(),
        liveness(),
        removal(),
        direct(),
        discovery(),
        broadcast(),
        seeds(),
        questions(),
    ]
    .concat()
}

/// Seed 1, 2 or 3 of the fleet.
pub(crate) fn seed_keys(seed: u16) -> KeyPair {
    KeyPair::from_secret([u8::try_from(seed).expect("small"); 32])
}

/// The peer that listens at `port`.
pub(crate) fn peer_keys(port: u16) -> KeyPair {
    KeyPair::from_secret([u8::try_from(port - 6000).expect("small") + 0x10; 32])
}

pub(crate) fn endpoint(port: u16) -> Endpoint {
    Endpoint::new([127, 0, 0, 1].into(), port)
}

pub(crate) fn subject(port: u16) -> MemberInstance {
    MemberInstance { endpoint: endpoint(port), incarnation: LIFE, key: peer_keys(port).public() }
}

fn votes(kind: ProposalKind, seeds: &[u16]) -> Vec<Vote> {
    let lives = [subject(6001)];
    let vote = |&seed: &u16| Vote::sign(kind, &lives, (SeedId(seed), &seed_keys(seed)), AT);
    seeds.iter().map(vote).collect()
}

pub(crate) fn admission() -> Admission {
    let MemberInstance { endpoint, incarnation, key } = subject(6001);
    Admission { endpoint, incarnation, key, votes: votes(ProposalKind::Admit, &[1, 3]) }
}

fn confirmation(witness: u16, finding: Finding) -> Confirmation {
    Confirmation::sign(&subject(6001), finding, (endpoint(witness), &peer_keys(witness)), AT)
}

fn buckets(after: Option<Endpoint>) -> SeedSyncReq {
    SeedSyncReq { buckets: [0, 17, 63].into(), after }
}

fn removed() -> Removal {
    Removal {
        because: RemovalReason::Death,
        lives: vec![subject(6001)],
        votes: votes(ProposalKind::Remove, &[1, 2]),
        confirmations: vec![
            confirmation(6002, Finding::Refused),
            confirmation(6003, Finding::Silent),
        ],
    }
}

/// The first ban of an endpoint.
fn ban() -> Ban {
    let MemberInstance { endpoint, key, .. } = subject(6005);
    let unsigned = Ban { endpoint, key, number: 1, votes: Vec::new() };
    let vote = |seed: u16| {
        let voter = (SeedId(seed), &seed_keys(seed));
        Vote::sign(ProposalKind::Ban, &[unsigned.subject()], voter, AT)
    };
    Ban { votes: vec![vote(1), vote(3)], ..unsigned.clone() }
}

/// Two lives that ended together; seed 2 has signed for a third as well.
fn removed_together() -> Removal {
    let (lives, third) = (vec![subject(6001), subject(6002)], subject(6003));
    let vote = |seed: u16, lives: &[MemberInstance]| {
        Vote::sign(ProposalKind::Remove, lives, (SeedId(seed), &seed_keys(seed)), AT)
    };
    let wider = Vote { others: vec![third], ..vote(2, &[lives[0], lives[1], third]) };
    let votes = vec![vote(1, &lives), wider];
    let confirmations = vec![confirmation(6004, Finding::Refused)];
    Removal { because: RemovalReason::Death, lives, votes, confirmations }
}

fn peer_card(port: u16) -> NodeInfo {
    NodeInfo::new(subject(port))
}

fn member_card() -> NodeInfo {
    NodeInfo {
        degree: 2,
        neighbors: vec![endpoint(6002), endpoint(6003)],
        certificate: Some(admission()),
        ..peer_card(6001)
    }
}

fn seed_card(seed: u16) -> NodeInfo {
    let known = |seed| SeedKey {
        seed: SeedId(seed),
        key: seed_keys(seed).public(),
        at: Some(endpoint(5000 + seed)),
    };
    let life = MemberInstance {
        endpoint: endpoint(5000 + seed),
        incarnation: Incarnation(0),
        key: seed_keys(seed).public(),
    };
    NodeInfo {
        seed: Some(SeedId(seed)),
        seed_keys: vec![known(1), known(2)],
        seeds: vec![7, 3_735_928_559],
        fleet: Some("staging".to_owned()),
        ..NodeInfo::new(life)
    }
}

/// Two sessions shake hands; returns the lines that cross, in order.
fn shake(intent: Intent, caller: (NodeInfo, KeyPair), called: (NodeInfo, KeyPair)) -> Vec<Message> {
    let to = called.0.endpoint;
    let session = |(info, keys): (NodeInfo, KeyPair), rng| {
        Session::new(session::Config::default(), keys, info, Rng::seed_from_u64(rng))
    };
    let (mut caller, mut called) = (session(caller, 1), session(called, 2));
    let link = LinkId(1);
    let mut fx = Effects::default();
    caller.call(to, intent, Duration::from_secs(1), &mut fx);
    caller.on_dialed(DialId(1), link, None, &mut fx);
    called.on_accepted(link, to.ip(), None, &mut Effects::default());
    let mut crossed = Vec::new();
    loop {
        for side in [&mut called, &mut caller] {
            let sent = std::mem::take(&mut fx).drain().find_map(|effect| {
                if let Effect::Send { msg, .. } = effect { Some(msg) } else { None }
            });
            let Some(msg) = sent else { return crossed };
            side.on_received(link, msg.clone(), &mut fx);
            crossed.push(msg);
        }
    }
}

fn handshake() -> Vec<(&'static str, Message)> {
    let newcomer = (peer_card(6001), peer_keys(6001));
    let member = (member_card(), peer_keys(6001));
    let other = (NodeInfo { degree: 4, ..peer_card(6002) }, peer_keys(6002));
    let third = (peer_card(6003), peer_keys(6003));
    let (one, two) = ((seed_card(1), seed_keys(1)), (seed_card(2), seed_keys(2)));
    let mut lines = Vec::new();
    for (what, intent, caller, called) in [
        ("a newcomer calls a seed", Intent::Link, newcomer, one.clone()),
        ("a member calls another peer on an errand", Intent::Errand, member.clone(), other),
        ("a seed probes a member", Intent::Probe, two, member.clone()),
        ("a member calls another for direct messages", Intent::Direct, member, third),
    ] {
        lines.extend(shake(intent, caller, called).into_iter().map(|msg| (what, msg)));
    }
    lines.push(("a link ends on purpose", Bye { reason: "leaving".to_owned() }.into()));
    let codes = [
        (ErrorCode::Malformed, "missing field `nonce`"),
        (ErrorCode::NotAllowed, "REGISTER_REQ needs a handshake first: say HELLO"),
        (ErrorCode::Handshake, "version 2 is not spoken here, 1 is"),
        (ErrorCode::ClusterKey, "this node holds no cluster key: start it with --cluster-key FILE"),
        (ErrorCode::EndpointTaken, "127.0.0.1:5001 is a seed's address"),
        (ErrorCode::Invalid, "no certificate: 1 valid votes of 2 needed (0 of unknown seeds)"),
        (ErrorCode::Busy, "more than 1000 requests a second from one address"),
        (ErrorCode::Rejected, "seed 1: nobody listens at 127.0.0.1:6001"),
        (ErrorCode::Removed, "this life has ended; register above incarnation 1734567880000"),
        (ErrorCode::Banned, "127.0.0.1:6001 is banned by the operators of seeds 1 and 2"),
        (ErrorCode::WrongRole, "a seed takes no part in GOSSIP_MSG"),
    ];
    lines.extend(codes.map(|(code, why)| ("a refusal", ErrorReply::new(code, why).into())));
    let ended = ErrorReply::new(ErrorCode::Removed, "this life has ended");
    let floor = Incarnation(1_734_567_880_000);
    lines.push(("a refusal with a floor", ended.with_floor(floor).into()));
    lines
}

fn registration() -> Vec<(&'static str, Message)> {
    let request = RegisterReq::sign(subject(6001), &peer_keys(6001));
    let MemberInstance { endpoint, incarnation, key } = subject(6001);
    let yes = RegisterVote {
        endpoint,
        incarnation,
        key,
        request: request.signature,
        seed: SeedId(1),
        yes: true,
        at: AT,
        signature: Some(votes(ProposalKind::Admit, &[1])[0].signature),
        reason: "it answered when dialed back".to_owned(),
    };
    let no = RegisterVote {
        seed: SeedId(2),
        yes: false,
        signature: None,
        reason: "nobody listens at 127.0.0.1:6001".to_owned(),
        ..yes.clone()
    };
    vec![
        ("a request to be admitted", request.into()),
        ("a yes, signed", yes.into()),
        ("a no, unsigned", no.into()),
        ("the proof of an admission", admission().into()),
    ]
}

fn lists() -> Vec<(&'static str, Message)> {
    let line = |port, status| MemberLine {
        endpoint: endpoint(port),
        incarnation: LIFE,
        status,
        since: AT,
        degree: 3,
    };
    let v6 = Endpoint::new("2001:db8::7".parse().expect("an address"), 6001);
    let members = vec![
        line(6001, MemberState::Alive),
        line(6002, MemberState::Removed),
        line(6003, MemberState::Left),
        MemberLine { endpoint: v6, ..line(6001, MemberState::Alive) },
    ];
    let after = Some(endpoint(6003));
    vec![
        ("the first page, please", PeerListReq::default().into()),
        (
            "the next page, with the ended ones",
            PeerListReq { after, ended: true, sample: false }.into(),
        ),
        ("some members, please", PeerListReq::SAMPLE.into()),
        ("a page", PeerListResp { seed: SeedId(1), members, more: true }.into()),
        (
            "an empty page",
            PeerListResp { seed: SeedId(1), members: Vec::new(), more: false }.into(),
        ),
    ]
}

fn gossip_msg() -> GossipMsg {
    GossipMsg {
        text: gossip::fixed_text(AT, endpoint(6001), 5),
        origin: endpoint(6001),
        incarnation: LIFE,
        number: 5,
        hops: 2,
        age_ms: 40,
    }
}

/// The statement whose SHA-256 is a gossip message's identity.
pub(crate) fn gossip_statement(msg: &GossipMsg) -> SigningBytes {
    SigningBytes::new("folkmoot/gossip/1")
        .endpoint(msg.origin)
        .incarnation(msg.incarnation)
        .number(u64::from(msg.number))
        .text(&msg.text)
}

fn gossip() -> Vec<(&'static str, Message)> {
    let ids = |numbers: &[u32]| -> String {
        let msg = |number: &u32| GossipMsg { number: *number, ..gossip_msg() };
        numbers.iter().map(|it| hex::encode(&gossip_statement(&msg(it)).sha256()[..8])).collect()
    };
    vec![
        ("a gossip message", gossip_msg().into()),
        ("nothing was seen yet", GossipDigest { ids: ids(&[]) }.into()),
        ("two messages were seen", GossipDigest { ids: ids(&[5, 6]) }.into()),
    ]
}

fn discovery() -> Vec<(&'static str, Message)> {
    let contact = |port| Contact { endpoint: endpoint(port), key: peer_keys(port).public() };
    let target = NodeId::of(&peer_keys(6001).public());
    let contacts = vec![contact(6001), contact(6002)];
    vec![
        ("who is closest to this id", FindNode { number: 7, target }.into()),
        ("these two are", Found { number: 7, contacts }.into()),
        ("nobody is known", Found { number: 8, contacts: Vec::new() }.into()),
    ]
}

/// The statement that a message's origin signs, and whose SHA-256 is its identity.
pub(crate) fn statement(msg: &Publish) -> SigningBytes {
    SigningBytes::new("folkmoot/message/1")
        .endpoint(msg.origin)
        .incarnation(msg.incarnation)
        .key(&msg.key)
        .number(msg.number)
        .text(&msg.topic)
        .wall(msg.time)
        .number(msg.size)
        .bytes(&msg.digest)
        .number(u64::from(msg.receipt))
}

fn published(data: &Data, receipt: bool) -> Publish {
    let MemberInstance { endpoint: origin, incarnation, key } = subject(6001);
    let mut msg = Publish {
        origin,
        incarnation,
        key,
        number: 1,
        topic: "news".to_owned(),
        time: AT,
        size: data.len() as u64,
        data: (data.len() <= 65_536).then(|| data.clone()),
        digest: data.sha256(),
        receipt,
        signature: Signature::from_bytes([0; 64]),
        ttl: 31,
        hops: 1,
        seen_by: vec![origin, endpoint(6002)],
        age_ms: 4,
        proof: None,
    };
    msg.signature = peer_keys(6001).sign(&statement(&msg));
    msg
}

fn broadcast() -> Vec<(&'static str, Message)> {
    let votes = votes(ProposalKind::Admit, &[1, 2]);
    let MemberInstance { endpoint: life, incarnation, key } = subject(6001);
    let proof = Some(Arc::new(Admission { endpoint: life, incarnation, key, votes }));
    let small = published(&Data::from("hello"), false);
    let (origin, who) = (small.subject(), endpoint(6003));
    let large = published(&Data::from(vec![0x2a; 65_538]), true);
    let id = |msg: &Publish| MessageId::of(&statement(msg));
    let offer = |msg: &Publish| Offer { id: id(msg), size: msg.size, hops: msg.hops };
    vec![
        ("a message", small.clone().into()),
        ("with its origin's proof", Publish { proof, ..small.clone() }.into()),
        ("a large message, and a receipt is wanted", large.clone().into()),
        ("two messages are held", Announce { ids: vec![offer(&small), offer(&large)] }.into()),
        ("one is asked for", Graft { ids: vec![id(&small)], push: true }.into()),
        ("no more pushes", Prune {}.into()),
        ("two parts are asked for", PartReq { id: id(&large), at: 0, count: 2 }.into()),
        ("the last part", Part { id: id(&large), at: 1, data: vec![0x2a; 2].into() }.into()),
        ("three have it", Receipt { id: id(&large), count: 3 }.into()),
        (
            "all up to 7 are here, and 9",
            Have { of: vec![Reached { origin, done: 7, top: 9 }] }.into(),
        ),
        ("8 is not", Lack { of: vec![Lacking { origin, rows: vec![(8, 8)] }] }.into()),
        ("a node does not keep up", Slow { origin, who, done: 7, room: 65_536, hops: 1 }.into()),
    ]
}

fn liveness() -> Vec<(&'static str, Message)> {
    let MemberInstance { endpoint: suspect, incarnation, key } = subject(6001);
    let named = vec![endpoint(6002), endpoint(6003)];
    let list = NeighborList::sign(&subject(6001), 7, named, &peer_keys(6001));
    let report = DeadReport {
        text: liveness::fixed_text(suspect, AT, endpoint(6002)),
        endpoint: suspect,
        incarnation,
        reporter: endpoint(6002),
        at: AT,
        confirmations: removed().confirmations,
    };
    vec![
        ("are you there?", Ping { nonce: 41 }.into()),
        ("I am", Pong { nonce: u64::MAX }.into()),
        ("a member names its neighbors", list.into()),
        ("probe it, please", SuspectReq { endpoint: suspect, incarnation, key }.into()),
        ("nobody listens there", confirmation(6002, Finding::Refused).into()),
        ("nothing answers there", confirmation(6003, Finding::Silent).into()),
        ("somebody else answers there", confirmation(6004, Finding::Replaced).into()),
        ("it answers", confirmation(6005, Finding::Alive).into()),
        ("a majority found it dead", report.into()),
    ]
}

fn removal() -> Vec<(&'static str, Message)> {
    let yes = SeedDeadVote {
        lives: vec![subject(6001)],
        seed: SeedId(1),
        yes: true,
        at: AT,
        signature: Some(removed().votes[0].signature),
        reason: "my own probe: no answer; 2 of 2 needed witnesses".to_owned(),
        confirmations: removed().confirmations,
    };
    let no = SeedDeadVote {
        seed: SeedId(3),
        yes: false,
        signature: None,
        reason: "it answered my own probe".to_owned(),
        confirmations: Vec::new(),
        ..yes.clone()
    };
    let evict = votes(ProposalKind::Evict, &[1, 2]);
    let MemberInstance { endpoint, incarnation, key } = subject(6001);
    let (kind, Vote { seed, at, signature, .. }) = (ProposalKind::Evict, evict[0].clone());
    let order = SeedOrderVote { kind, endpoint, incarnation, key, seed, at, signature };
    let evicted = Removal {
        because: RemovalReason::Eviction,
        lives: vec![subject(6001)],
        votes: evict,
        confirmations: Vec::new(),
    };
    vec![
        ("a yes to a removal, signed", yes.into()),
        ("a no to a removal, unsigned", no.into()),
        ("the proof of a removal", removed().into()),
        ("the proof of two removals, signed in two lists", removed_together().into()),
        ("an operator wants a member out", order.into()),
        ("the proof of an eviction", evicted.into()),
        ("the proof of a ban", ban().into()),
        ("a goodbye", Leave::sign(subject(6001), AT, &peer_keys(6001)).into()),
    ]
}

fn direct() -> Vec<(&'static str, Message)> {
    let data = Data::from("only you");
    let digest = MessageId::from_bytes(data.sha256());
    let (life, topic, size) = (LIFE, "news".to_owned(), data.len() as u64);
    let whole = DirectMsg { number: 7, life, topic, size, digest, data: Some(data.clone()) };
    let large = DirectMsg { number: 8, size: 65_544, data: None, ..whole.clone() };
    let ack = |number, verdict, reason: &str| DirectAck { number, verdict, reason: reason.into() };
    vec![
        ("a direct message", whole.into()),
        ("a large direct message is announced", large.into()),
        ("send me its two parts", DirectPartReq { number: 8, at: 0, count: 2 }.into()),
        ("its second and last part", DirectPart { number: 8, at: 1, data }.into()),
        ("it was taken", ack(7, DeliveryVerdict::Taken, "").into()),
        ("it was refused", ack(8, DeliveryVerdict::Refused, "who are you?").into()),
        ("not now", ack(9, DeliveryVerdict::Busy, "busy: too many members send").into()),
        (
            "nobody can say",
            ack(10, DeliveryVerdict::Unknown, "the application did not answer in time").into(),
        ),
    ]
}

/// One life with all its proofs.
fn entry() -> RegistryEntry {
    RegistryEntry {
        subject: subject(6001),
        admission: Some(admission()),
        removal: Some(Arc::new(removed())),
        leave: Some(Leave::sign(subject(6001), AT, &peer_keys(6001))),
    }
}

fn seeds() -> Vec<(&'static str, Message)> {
    let mut registry = Registry::default();
    registry.merge(RegistryEntry::admitted(admission()));
    let digest = SeedDigest {
        entries: 1,
        root: format!("{:016x}", registry.root()),
        buckets: registry.buckets().iter().map(|it| format!("{it:016x}")).collect(),
        answer: true,
    };
    let brief = SeedDigest { buckets: Vec::new(), answer: false, ..digest.clone() };
    let entries = vec![entry().unremoved(), RegistryEntry::admitted(admission())];
    let removals = vec![Arc::new(removed())];
    let nothing = SeedSyncResp::default();
    vec![
        ("the state of a registry", brief.into()),
        ("the state of a registry in detail", digest.into()),
        ("send me three buckets", buckets(None).into()),
        ("go on with them", buckets(Some(endpoint(6002))).into()),
        (
            "entries with their proofs",
            SeedSyncResp { entries, removals, bans: vec![ban()], more: true }.into(),
        ),
        ("no more entries", nothing.into()),
        ("link to the largest part", LinkHint { endpoint: endpoint(6004) }.into()),
    ]
}

fn questions() -> Vec<(&'static str, Message)> {
    let open = vec!["removal of incarnation 1734567880000 is being voted on".to_owned()];
    let answer = ExplainResp {
        seed: SeedId(1),
        endpoint: endpoint(6001),
        lives: vec![RegistryEntry::removed(subject(6001), Arc::new(removed()))],
        open,
    };
    let node = NodeLine { endpoint: endpoint(6001), neighbors: vec![endpoint(6002)] };
    let after = Some(endpoint(6001));
    vec![
        ("why is it out?", ExplainReq { endpoint: endpoint(6001) }.into()),
        ("its certificates", answer.into()),
        ("the first page of the overlay", TopologyReq::default().into()),
        ("the next page of the overlay", TopologyReq { after }.into()),
        (
            "a page of the overlay",
            TopologyResp { seed: SeedId(1), nodes: vec![node], more: false }.into(),
        ),
    ]
}

/// The key of a witness or reporter, by its endpoint.
pub(crate) fn key_at(endpoint: Endpoint) -> PublicKey {
    peer_keys(endpoint.port()).public()
}
