//! Every message, with fields of every kind: true, false, extreme, too many.

use std::collections::BTreeSet;
use std::sync::Arc;

use folkmoot::model::entry::{MemberState, RegistryEntry};
use folkmoot::model::statement::{
    Admission, Ban, Confirmation, Finding, Leave, MemberInstance, NeighborList, ProposalKind,
    RegisterReq, Removal, RemovalReason, Vote,
};
use folkmoot::model::{Data, Endpoint, Incarnation, MessageId, Nonce, SeedId, Signature};
use folkmoot::proto::broadcast::{
    Announce, Graft, Have, Lack, Lacking, Offer, Part, PartReq, Prune, Publish, Reached, Receipt,
    Slow,
};
use folkmoot::proto::direct::{DeliveryVerdict, DirectAck, DirectMsg, DirectPart, DirectPartReq};
use folkmoot::proto::discovery::{Contact, FindNode, Found, NodeId};
use folkmoot::proto::gossip;
use folkmoot::proto::gossip::{GossipDigest, GossipMsg};
use folkmoot::proto::hello::{Bye, Hello, HelloAck, HelloProof, Intent, NodeInfo, SeedKey};
use folkmoot::proto::liveness;
use folkmoot::proto::liveness::{DeadReport, Ping, Pong, SuspectReq};
use folkmoot::proto::membership::{
    ExplainReq, ExplainResp, LinkHint, MemberLine, NodeLine, PeerListReq, PeerListResp,
    RegisterVote, SeedDeadVote, SeedDigest, SeedOrderVote, SeedSyncReq, SeedSyncResp, TopologyReq,
    TopologyResp,
};
use folkmoot::proto::message::Message;
use folkmoot::proto::refusal::{ErrorCode, ErrorReply};

use super::cast::{self, Actor, junk_signature, key, moment, place, subject};
use super::source::Source;

/// How many kinds of messages there are.
pub const KINDS: usize = 47;

/// A message of kind `kind`, as `speaker` might say it.
pub fn message(kind: usize, speaker: Actor, src: &mut Source<'_>) -> Message {
    match kind {
        0..5 => handshake(kind, speaker, src),
        5..10 => registration(kind, speaker, src),
        10..14 => talk(kind, src),
        14..20 => death(kind, speaker, src),
        20..24 => between_seeds(kind, src),
        29 => order(speaker, src),
        30 => ban(src).into(),
        31..35 => direct(kind, src),
        35 | 36 => search(kind, src),
        37..47 => broadcast(kind, speaker, src),
        _ => questions(kind, src),
    }
}

fn handshake(kind: usize, speaker: Actor, src: &mut Source<'_>) -> Message {
    let version = if src.chance(10) { src.number() as u16 } else { 1 };
    let intent = src.one(&[Intent::Link, Intent::Errand, Intent::Probe, Intent::Direct]);
    let nonce = nonce(src);
    match kind {
        0 => Hello { version, intent, nonce, info: node_info(speaker, src) }.into(),
        1 => HelloAck { version, nonce, proof: junk_signature(src), info: node_info(speaker, src) }
            .into(),
        2 => HelloProof { proof: junk_signature(src) }.into(),
        3 => Bye { reason: src.text() }.into(),
        _ => ErrorReply::new(src.one(&CODES), src.text()).into(),
    }
}

const CODES: [ErrorCode; 9] = [
    ErrorCode::Malformed,
    ErrorCode::NotAllowed,
    ErrorCode::Handshake,
    ErrorCode::EndpointTaken,
    ErrorCode::Invalid,
    ErrorCode::Busy,
    ErrorCode::Rejected,
    ErrorCode::Removed,
    ErrorCode::WrongRole,
];

pub fn nonce(src: &mut Source<'_>) -> Nonce {
    let hex: String = src.array::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::from_value(hex.into()).expect("32 digits")
}

/// Node info of `speaker`, true or not.
pub fn node_info(speaker: Actor, src: &mut Source<'_>) -> NodeInfo {
    let mut info = speaker.info(u64::from(src.byte() % 8).saturating_sub(5));
    match src.byte() % 16 {
        0 => info.seed = Some(SeedId(src.number() as u16)),
        1 => info.endpoint = place(src),
        2 => info.key = key(src),
        3 => info.incarnation = Incarnation(src.number()),
        4 => info.certificate = None,
        5 | 6 => info.certificate = Some(admission(src)),
        7 => info.neighbors = endpoints(256, src),
        8 => info.seed_keys = seed_keys(src),
        9 => info.degree = src.number() as u32,
        _ => {}
    }
    info
}

fn seed_keys(src: &mut Source<'_>) -> Vec<SeedKey> {
    let count = src.length(64);
    let one = |_| SeedKey { seed: SeedId(u16::from(src.byte() % 6)), key: key(src), at: None };
    (0..count).map(one).collect()
}

fn endpoints(limit: usize, src: &mut Source<'_>) -> Vec<Endpoint> {
    let count = src.length(limit);
    (0..count).map(|_| place(src)).collect()
}

/// Votes: of a quorum, of fewer, doubled, foreign, forged, for another proposal, too many.
fn votes(kind: ProposalKind, subject: MemberInstance, src: &mut Source<'_>) -> Vec<Vote> {
    let some: [&[u16]; 6] = [&[2, 3], &[3, 2], &[1, 2, 3], &[2], &[3, 3], &[]];
    let mut votes = cast::votes(kind, subject, src.one(&some));
    match src.byte() % 16 {
        0 => votes.iter_mut().for_each(|vote| vote.signature = junk_signature(src)),
        1 => votes.iter_mut().for_each(|vote| vote.seed = SeedId(src.number() as u16)),
        2 => votes = cast::votes(kind, self::subject(src), &[2, 3]),
        3 => votes.iter_mut().for_each(|vote| vote.at = moment(src)),
        4 => {
            let count = votes.len() * src.length(64);
            votes = votes.iter().cycle().take(count).cloned().collect();
        }
        5 => votes.extend(cast::votes(kind, subject, &[3, 3, 3])),
        6 => {
            let (peer, at) = (Actor::peer(src), moment(src));
            let stranger = (SeedId(src.number() as u16), peer.keys());
            votes.push(Vote::sign(kind, &[subject], stranger, at));
            let third = (SeedId(3), Actor::Seed(3).keys());
            votes.insert(0, Vote::sign(kind, &[subject], third, moment(src)));
        }
        7 => {
            let others = (0..src.length(40)).map(|_| self::subject(src)).collect();
            votes.iter_mut().take(1).for_each(|vote| vote.others = Vec::clone(&others));
        }
        _ => {}
    }
    votes
}

fn admission(src: &mut Source<'_>) -> Admission {
    let subject = subject(src);
    let MemberInstance { endpoint, incarnation, key } = subject;
    Admission { endpoint, incarnation, key, votes: votes(ProposalKind::Admit, subject, src) }
}

fn removal(src: &mut Source<'_>) -> Removal {
    let subject = subject(src);
    let because = src.one(&[RemovalReason::Death, RemovalReason::Death, RemovalReason::Eviction]);
    let mut lives = vec![subject];
    let mut votes = votes(because.kind(), subject, src);
    if src.chance(40) {
        lives.extend((0..src.length(40)).map(|_| self::subject(src)));
        if src.chance(80) {
            lives.sort();
            lives.dedup();
        }
        if src.chance(80) {
            votes = cast::votes_on(because.kind(), &lives, &[2, 3]);
        }
    }
    Removal { because, lives, votes, confirmations: findings(&subject, src) }
}

fn findings(about: &MemberInstance, src: &mut Source<'_>) -> Vec<Confirmation> {
    match src.length(256) {
        few @ 0..8 => (0..few).map(|_| finding(about, None, src)).collect(),
        many => vec![finding(about, None, src); many],
    }
}

const FINDINGS: [Finding; 4] =
    [Finding::Refused, Finding::Silent, Finding::Replaced, Finding::Alive];

fn finding(about: &MemberInstance, by: Option<Actor>, src: &mut Source<'_>) -> Confirmation {
    let witness = by.unwrap_or_else(|| Actor::peer(src));
    let (found, at) = (src.one(&FINDINGS), moment(src));
    if src.chance(10) {
        let mut junk = Confirmation::sign(about, found, (place(src), witness.keys()), at);
        junk.signature = junk_signature(src);
        return junk;
    }
    let about = if src.chance(5) { subject(src) } else { *about };
    Confirmation::sign(&about, found, (witness.endpoint(), witness.keys()), at)
}

/// The keys of whoever listens where `subject` does, or of somebody.
fn signer(subject: &MemberInstance, src: &mut Source<'_>) -> Actor {
    let owner = Actor::at(subject.endpoint).filter(|it| it.keys().public() == subject.key);
    let other = Actor::any(src);
    owner.filter(|_| !src.chance(8)).unwrap_or(other)
}

fn request(speaker: Actor, src: &mut Source<'_>) -> RegisterReq {
    let own = speaker.subject(u64::from(src.byte() % 8).saturating_sub(5));
    let subject = if src.chance(30) { subject(src) } else { own };
    RegisterReq::sign(subject, signer(&subject, src).keys())
}

/// The number under which a speaker votes.
fn voter(speaker: Actor, src: &mut Source<'_>) -> SeedId {
    match speaker {
        Actor::Seed(seed) if !src.chance(8) => SeedId(seed),
        Actor::Seed(_) | Actor::Peer(_) => SeedId(src.number() as u16),
    }
}

/// The signature of a yes: true, of another, or none.
fn yes(
    (kind, lives): (ProposalKind, &[MemberInstance]),
    seed: SeedId,
    at: folkmoot::model::WallTime,
    src: &mut Source<'_>,
) -> Option<Signature> {
    match src.byte() % 8 {
        0 => None,
        1 => Some(junk_signature(src)),
        _ => {
            let known = (1..=cast::SEEDS).contains(&seed.0);
            let voter = if known { Actor::Seed(seed.0) } else { Actor::any(src) };
            Some(Vote::sign(kind, lives, (seed, voter.keys()), at).signature)
        }
    }
}

fn registration(kind: usize, speaker: Actor, src: &mut Source<'_>) -> Message {
    match kind {
        5 => request(speaker, src).into(),
        6 => {
            let request = request(Actor::peer(src), src);
            let (seed, at) = (voter(speaker, src), moment(src));
            let what = (ProposalKind::Admit, &[request.subject()][..]);
            let RegisterReq { endpoint, incarnation, key, signature } = request;
            let (yes, signature_of_yes) = (!src.chance(30), yes(what, seed, at, src));
            RegisterVote {
                endpoint,
                incarnation,
                key,
                request: signature,
                seed,
                yes,
                at,
                signature: signature_of_yes,
                reason: src.text(),
            }
            .into()
        }
        7 => admission(src).into(),
        8 => {
            let after = src.chance(40).then(|| place(src));
            PeerListReq { after, ended: src.chance(50), sample: src.chance(30) }.into()
        }
        _ => {
            let count = src.length(400);
            let line = |_| MemberLine {
                endpoint: place(src),
                incarnation: Incarnation(src.number()),
                status: src.one(&[MemberState::Alive, MemberState::Removed, MemberState::Left]),
                since: moment(src),
                degree: src.number() as u32,
            };
            let members = (0..count).map(line).collect();
            PeerListResp { seed: SeedId(src.number() as u16), members, more: src.chance(40) }.into()
        }
    }
}

fn talk(kind: usize, src: &mut Source<'_>) -> Message {
    match kind {
        10 => {
            let origin = place(src);
            let number = if src.chance(20) { src.number() as u32 } else { 1 };
            let text = if src.chance(15) {
                src.text()
            } else {
                gossip::fixed_text(moment(src), origin, number)
            };
            let incarnation = Incarnation(cast::LIFE + u64::from(src.byte() % 2));
            let hops = if src.chance(20) { src.number() as u32 } else { 0 };
            let age_ms = if src.chance(20) { src.number() } else { 0 };
            GossipMsg { text, origin, incarnation, number, hops, age_ms }.into()
        }
        11 => {
            let ids = match src.byte() % 4 {
                0 => src.text(),
                1 => "é".repeat(src.below(64)),
                _ => "0123456789abcdef".repeat(src.below(300)),
            };
            GossipDigest { ids }.into()
        }
        12 => Ping { nonce: src.number() }.into(),
        _ => Pong { nonce: src.number() }.into(),
    }
}

/// Questions for an id, and answers to questions that were asked or not.
fn search(kind: usize, src: &mut Source<'_>) -> Message {
    let number = if src.chance(80) { u64::from(src.byte() % 32) } else { src.number() };
    if kind == 35 {
        let own = NodeId::of(&key(src));
        return FindNode { number, target: if src.chance(50) { own } else { NodeId(src.array()) } }
            .into();
    }
    let count = src.length(40);
    let one = |_| Contact { endpoint: place(src), key: key(src) };
    Found { number, contacts: (0..count).map(one).collect() }.into()
}

/// Messages of applications, and the talk about them.
fn broadcast(kind: usize, speaker: Actor, src: &mut Source<'_>) -> Message {
    let msg = published(speaker, src);
    let id = |src: &mut Source<'_>| match src.byte() % 3 {
        0 => MessageId::from_bytes([src.byte(); 32]),
        _ => msg.id(),
    };
    match kind {
        37 => msg.into(),
        38 => {
            let offers = (0..src.length(600)).map(|at| Offer {
                id: if at == 0 { id(src) } else { MessageId::from_bytes([at as u8; 32]) },
                size: src.number(),
                hops: src.number() as u32,
            });
            Announce { ids: offers.collect() }.into()
        }
        39 => {
            let ids = (0..src.length(80)).map(|_| id(src)).collect();
            Graft { ids, push: src.chance(50) }.into()
        }
        40 => Prune {}.into(),
        41 => PartReq { id: id(src), at: src.number() as u32, count: src.number() as u32 }.into(),
        42 => {
            let data = vec![src.byte(); src.one(&[0, 1, 1_000, 65_536, 65_537])];
            Part { id: id(src), at: src.below(4) as u32, data: data.into() }.into()
        }
        43 => Receipt { id: id(src), count: src.number() as u32 }.into(),
        44 => {
            let mut reached =
                || Reached { origin: subject(src), done: src.number(), top: src.number() };
            Have { of: (0..3).map(|_| reached()).collect() }.into()
        }
        45 => {
            let rows = (0..src.length(40)).map(|_| (src.number(), src.number())).collect();
            Lack { of: vec![Lacking { origin: subject(src), rows }] }.into()
        }
        _ => {
            let (origin, who) = (subject(src), speaker.endpoint());
            let hops = src.number() as u32;
            Slow { origin, who, done: src.number(), room: src.number(), hops }.into()
        }
    }
}

/// Of its speaker or of somebody else, true or altered.
fn published(speaker: Actor, src: &mut Source<'_>) -> Publish {
    let author = if src.chance(70) { speaker } else { Actor::any(src) };
    let MemberInstance { endpoint: origin, incarnation, key } = author.subject(0);
    let data = Data::from(vec![src.byte(); src.one(&[0, 5, 5, 5, 65_536, 70_000, 2_000_000])]);
    let size = if src.chance(10) { src.number() } else { data.len() as u64 };
    let topic = if src.chance(10) { src.text() } else { "news".to_owned() };
    let proof = src.chance(60).then(|| Arc::new(cast::admission(author.subject(0))));
    let mut msg = Publish {
        origin,
        incarnation,
        key,
        number: u64::from(src.byte() % 8),
        topic,
        time: moment(src),
        size,
        digest: if src.chance(10) { [7; 32] } else { data.sha256() },
        data: (data.len() <= 65_536 || src.chance(10)).then_some(data),
        receipt: src.chance(30),
        signature: junk_signature(src),
        ttl: if src.chance(20) { src.number() as u32 } else { 31 },
        hops: if src.chance(20) { src.number() as u32 } else { 0 },
        seen_by: endpoints(100, src),
        age_ms: if src.chance(20) { src.number() } else { 0 },
        proof,
    };
    if src.chance(85) {
        msg.signature = author.keys().sign(&msg.statement());
    }
    msg
}

fn death(kind: usize, speaker: Actor, src: &mut Source<'_>) -> Message {
    let about = subject(src);
    let MemberInstance { endpoint, incarnation, key } = about;
    match kind {
        14 => {
            let life = u64::from(src.byte() % 8).saturating_sub(5);
            let author = if src.chance(85) { speaker } else { Actor::any(src) };
            let named = endpoints(256, src);
            let signer = if src.chance(85) { author } else { Actor::any(src) };
            NeighborList::sign(&author.subject(life), src.number(), named, signer.keys()).into()
        }
        15 => SuspectReq { endpoint, incarnation, key }.into(),
        16 => finding(&about, (!src.chance(20)).then_some(speaker), src).into(),
        17 => {
            let at = moment(src);
            let reporter = if src.chance(15) { place(src) } else { speaker.endpoint() };
            let text = match src.byte() % 8 {
                0 => src.text(),
                _ => liveness::fixed_text(endpoint, at, reporter),
            };
            let confirmations = findings(&about, src);
            DeadReport { text, endpoint, incarnation, reporter, at, confirmations }.into()
        }
        18 => {
            let (seed, at) = (voter(speaker, src), moment(src));
            let mut lives = vec![about];
            if src.chance(40) {
                lives.extend((0..src.length(40)).map(|_| subject(src)));
                lives.sort();
            }
            let signature = yes((ProposalKind::Remove, &lives), seed, at, src);
            SeedDeadVote {
                lives,
                seed,
                yes: !src.chance(30),
                at,
                signature,
                reason: src.text(),
                confirmations: findings(&about, src),
            }
            .into()
        }
        _ => removal(src).into(),
    }
}

/// What an operator wants, or a seed says that he does.
fn order(speaker: Actor, src: &mut Source<'_>) -> Message {
    let (seed, at, mut subject) = (voter(speaker, src), moment(src), subject(src));
    let kind = src.one(&[
        ProposalKind::Evict,
        ProposalKind::Ban,
        ProposalKind::Ban,
        ProposalKind::Admit,
        ProposalKind::Remove,
    ]);
    if kind == ProposalKind::Ban && src.chance(80) {
        subject.incarnation = Incarnation(u64::from(src.byte() % 4));
    }
    let signature = yes((kind, &[subject]), seed, at, src).unwrap_or_else(|| junk_signature(src));
    let MemberInstance { endpoint, incarnation, key } = subject;
    SeedOrderVote { kind, endpoint, incarnation, key, seed, at, signature }.into()
}

fn ban(src: &mut Source<'_>) -> Ban {
    let MemberInstance { endpoint, key, .. } = subject(src);
    let number = if src.chance(80) { u64::from(src.byte() % 6) } else { src.number() };
    let about = MemberInstance { endpoint, incarnation: Incarnation(number), key };
    Ban { endpoint, key, number, votes: votes(ProposalKind::Ban, about, src) }
}

fn leave(src: &mut Source<'_>) -> Leave {
    let about = subject(src);
    Leave::sign(about, moment(src), signer(&about, src).keys())
}

fn entry(src: &mut Source<'_>) -> RegistryEntry {
    let mut entry = match src.byte() % 4 {
        0 => {
            let removal = removal(src);
            RegistryEntry::removed(*removal.lives.first().expect("there is one"), Arc::new(removal))
        }
        1 => RegistryEntry::left(leave(src)),
        _ => RegistryEntry::admitted(admission(src)),
    };
    match src.byte() % 16 {
        0 => entry.subject = subject(src),
        1 => (entry.admission, entry.removal, entry.leave) = (None, None, None),
        2 => entry.admission = Some(admission(src)),
        3 => entry.leave = Some(leave(src)),
        4 => entry.removal = Some(Arc::new(cast::removal(entry.subject))),
        _ => {}
    }
    entry
}

fn between_seeds(kind: usize, src: &mut Source<'_>) -> Message {
    match kind {
        20 => leave(src).into(),
        21 => {
            let count = if src.chance(85) { 64 } else { src.length(64) };
            let root = format!("{:016x}", src.number());
            let odd = src.byte();
            let bucket = |at: usize| match odd % 4 {
                0 => "0".repeat(16),
                1 => format!("{at:016x}"),
                2 => String::new(),
                _ => "é".to_owned(),
            };
            let buckets = (0..count).map(bucket).collect();
            SeedDigest { entries: src.number(), root, buckets, answer: src.chance(50) }.into()
        }
        22 => {
            let count = src.length(64);
            let buckets: BTreeSet<u8> = match src.byte() % 2 {
                0 => (0..=255).collect(),
                _ => (0..count).map(|_| src.byte()).collect(),
            };
            SeedSyncReq { buckets, after: src.chance(30).then(|| place(src)) }.into()
        }
        _ => {
            let count = src.length(32);
            let entries = (0..count).map(|_| entry(src)).collect();
            let removals = (0..src.length(8)).map(|_| Arc::new(removal(src))).collect();
            let bans = (0..src.length(8)).map(|_| ban(src)).collect();
            SeedSyncResp { entries, removals, bans, more: src.chance(30) }.into()
        }
    }
}

fn questions(kind: usize, src: &mut Source<'_>) -> Message {
    let seed = SeedId(src.number() as u16);
    match kind {
        24 => LinkHint { endpoint: place(src) }.into(),
        25 => ExplainReq { endpoint: place(src) }.into(),
        26 => {
            let count = src.length(5);
            let lives = (0..count).map(|_| entry(src)).collect();
            ExplainResp { seed, endpoint: place(src), lives, open: vec![src.text()] }.into()
        }
        27 => TopologyReq { after: src.chance(40).then(|| place(src)) }.into(),
        _ => {
            let count = src.length(32);
            let node = |_| NodeLine { endpoint: place(src), neighbors: endpoints(256, src) };
            let nodes = (0..count).map(node).collect();
            TopologyResp { seed, nodes, more: src.chance(40) }.into()
        }
    }
}

/// Direct messages: whole, announced, of other sizes than they say, and parts of nothing.
fn direct(kind: usize, src: &mut Source<'_>) -> Message {
    let number = if src.chance(80) { u64::from(src.byte() % 8) } else { src.number() };
    let at = if src.chance(80) { u32::from(src.byte() % 4) } else { src.number() as u32 };
    let bytes = |src: &mut Source<'_>| match src.byte() % 8 {
        0 => Data::from(vec![7; 65_536]),
        1 => Data::from(vec![7; 65_537]),
        _ => Data::from(vec![7; src.below(64)]),
    };
    match kind {
        31 => {
            let data = bytes(src);
            let size = match src.byte() % 8 {
                0 => src.number(),
                1 | 2 => 65_537 + src.below(2_000_000) as u64,
                _ => data.len() as u64,
            };
            let digest = match src.byte() % 8 {
                0 => MessageId::from_bytes(src.array()),
                _ => MessageId::from_bytes(data.sha256()),
            };
            let life = if src.chance(80) { cast::LIFE } else { src.number() };
            let topic = if src.chance(80) { "news".to_owned() } else { src.text() };
            let data = (size == data.len() as u64 || src.chance(20)).then_some(data);
            DirectMsg { number, life: Incarnation(life), topic, size, digest, data }.into()
        }
        32 => {
            let verdicts = [
                DeliveryVerdict::Taken,
                DeliveryVerdict::Refused,
                DeliveryVerdict::Busy,
                DeliveryVerdict::Unknown,
            ];
            DirectAck { number, verdict: src.one(&verdicts), reason: src.text() }.into()
        }
        33 => {
            let count = if src.chance(80) { u32::from(src.byte() % 6) } else { u32::MAX };
            DirectPartReq { number, at, count }.into()
        }
        _ => DirectPart { number, at, data: bytes(src) }.into(),
    }
}
