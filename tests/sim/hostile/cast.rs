//! Who takes part: three seeds, six peers, the places where they listen, and their papers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::OnceLock;

use folkmoot::machine::membership::seedbook::{SeedAddress, SeedBook};
use folkmoot::machine::quorum::QuorumRule;
use folkmoot::model::statement::{
    Admission, MemberInstance, ProposalKind, Removal, RemovalReason, Vote,
};
use folkmoot::model::{
    Endpoint, Incarnation, KeyPair, Nonce, PublicKey, SeedId, Signature, SigningBytes, WallTime,
};
use folkmoot::proto::hello::{NodeInfo, VERSION};

use super::source::Source;

/// When everything begins.
pub const AT: WallTime = WallTime(1_734_567_890_123);
/// The first life of everybody.
pub const LIFE: u64 = AT.0 - 10_000;

pub const SEEDS: u16 = 3;
pub const QUORUM: usize = 2;
pub const PEERS: u16 = 6;

/// What the two proofs of a handshake are made for.
pub const CALLED: &str = "folkmoot/hello-ack/1";
pub const CALLER: &str = "folkmoot/hello-proof/1";

/// One of the nine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// Seed 1, 2 or 3.
    Seed(u16),
    /// Peer 1 to 6.
    Peer(u16),
}

fn all_keys() -> &'static [KeyPair] {
    static KEYS: OnceLock<Vec<KeyPair>> = OnceLock::new();
    KEYS.get_or_init(|| (1..=9).map(|n| KeyPair::from_secret([n; 32])).collect())
}

impl Actor {
    pub fn any(src: &mut Source<'_>) -> Self {
        match src.below(9) as u16 {
            seed @ 0..3 => Self::Seed(seed + 1),
            peer => Self::Peer(peer - 2),
        }
    }

    pub fn peer(src: &mut Source<'_>) -> Self {
        Self::Peer(src.below(usize::from(PEERS)) as u16 + 1)
    }

    pub fn keys(self) -> &'static KeyPair {
        match self {
            Self::Seed(seed) => &all_keys()[usize::from(seed) - 1],
            Self::Peer(peer) => &all_keys()[usize::from(peer) + 2],
        }
    }

    pub fn endpoint(self) -> Endpoint {
        let port = match self {
            Self::Seed(seed) => 5_000 + seed,
            Self::Peer(peer) => 6_000 + peer,
        };
        Endpoint::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    /// Life of the actor by this number; lives are numbered from 0.
    pub fn subject(self, life: u64) -> MemberInstance {
        let incarnation = match self {
            Self::Seed(_) => Incarnation(0),
            Self::Peer(_) => Incarnation(LIFE + life),
        };
        MemberInstance { endpoint: self.endpoint(), incarnation, key: self.keys().public() }
    }

    /// Who listens there.
    pub fn at(endpoint: Endpoint) -> Option<Self> {
        let all = (1..=SEEDS).map(Self::Seed).chain((1..=PEERS).map(Self::Peer));
        all.into_iter().find(|it| it.endpoint() == endpoint)
    }

    /// Node info of the actor.
    pub fn info(self, life: u64) -> NodeInfo {
        let seed = match self {
            Self::Seed(seed) => Some(SeedId(seed)),
            Self::Peer(_) => None,
        };
        let certificate = match self {
            Self::Seed(_) => None,
            Self::Peer(_) => Some(admission(self.subject(life))),
        };
        NodeInfo { seed, certificate, ..NodeInfo::new(self.subject(life)) }
    }
}

/// The three seeds; with `pinned`, their keys are known from the start.
pub fn book(pinned: bool) -> SeedBook {
    let seeds: Vec<_> = (1..=SEEDS)
        .map(|seed| SeedAddress {
            id: SeedId(seed),
            endpoint: Actor::Seed(seed).endpoint(),
            key: pinned.then(|| Actor::Seed(seed).keys().public()),
        })
        .collect();
    SeedBook::new(QuorumRule::Majority, &seeds)
}

/// A yes of each of these seeds.
pub fn votes(kind: ProposalKind, subject: MemberInstance, seeds: &[u16]) -> Vec<Vote> {
    votes_on(kind, &[subject], seeds)
}

/// A yes of each of these seeds, for all of `lives`.
pub fn votes_on(kind: ProposalKind, lives: &[MemberInstance], seeds: &[u16]) -> Vec<Vote> {
    let vote = |seed: &u16| Vote::sign(kind, lives, (SeedId(*seed), Actor::Seed(*seed).keys()), AT);
    seeds.iter().map(vote).collect()
}

/// The proof that `subject` is in, by the two seeds that are never under test.
pub fn admission(subject: MemberInstance) -> Admission {
    let MemberInstance { endpoint, incarnation, key } = subject;
    Admission { endpoint, incarnation, key, votes: votes(ProposalKind::Admit, subject, &[2, 3]) }
}

/// The proof that `subject` is out.
pub fn removal(subject: MemberInstance) -> Removal {
    let votes = votes(ProposalKind::Remove, subject, &[2, 3]);
    Removal {
        because: RemovalReason::Death,
        lives: vec![subject],
        votes,
        confirmations: Vec::new(),
    }
}

/// Whether these votes prove the proposal for all of `lives`, found out without the book under
/// test.
pub fn proves(kind: ProposalKind, lives: &[MemberInstance], votes: &[Vote]) -> bool {
    let says_yes = |seed: &u16| {
        let key = Actor::Seed(*seed).keys().public();
        votes.iter().any(|vote| vote.seed == SeedId(*seed) && vote.is_valid(kind, lives, &key))
    };
    (1..=SEEDS).filter(says_yes).count() >= QUORUM
}

/// Signature that proves the key of a node info to the holder of `challenger`.
pub fn proof(
    domain: &str,
    info: &NodeInfo,
    (nonce, challenger): (&Nonce, &PublicKey),
    keys: &KeyPair,
) -> Signature {
    let statement = SigningBytes::new(domain)
        .number(u64::from(VERSION))
        .number(info.seed.map_or(0, |seed| u64::from(seed.0)))
        .endpoint(info.endpoint)
        .incarnation(info.incarnation)
        .key(&info.key)
        .nonce(nonce)
        .key(challenger);
    keys.sign(&statement)
}

/// A place: mostly an actor's, else one that means trouble.
pub fn place(src: &mut Source<'_>) -> Endpoint {
    if !src.chance(20) {
        return Actor::any(src).endpoint();
    }
    let v6 = |ip: Ipv6Addr, scope| SocketAddrV6::new(ip, 6_001, 0, scope);
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let odd: [SocketAddr; 10] = [
        (Ipv4Addr::LOCALHOST, 0).into(),
        (Ipv4Addr::UNSPECIFIED, 6_001).into(),
        (Ipv4Addr::BROADCAST, 6_001).into(),
        (Ipv4Addr::new(224, 0, 0, 1), 6_001).into(),
        (Ipv6Addr::UNSPECIFIED, 6_001).into(),
        (Ipv6Addr::LOCALHOST, u16::MAX).into(),
        v6(link_local, u32::MAX).into(),
        v6(mapped, 0).into(),
        (IpAddr::from(src.array::<4>()), u16::from_be_bytes(src.array())).into(),
        (IpAddr::from(src.array::<16>()), u16::from_be_bytes(src.array())).into(),
    ];
    src.one(&odd).into()
}

/// A key: mostly an actor's, else none that could sign.
pub fn key(src: &mut Source<'_>) -> PublicKey {
    if !src.chance(15) {
        return Actor::any(src).keys().public();
    }
    // Points of small order, encodings of no point, and whatever comes.
    let hex = match src.byte() % 5 {
        0 => "00".repeat(32),
        1 => format!("01{}", "00".repeat(31)),
        2 => "ff".repeat(32),
        3 => format!("ec{}7f", "ff".repeat(30)),
        _ => src.array::<32>().iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    PublicKey::parse(&hex).expect("64 digits")
}

/// A signature that was not made for the occasion.
pub fn junk_signature(src: &mut Source<'_>) -> Signature {
    match src.byte() % 3 {
        0 => Signature::from_bytes([0; 64]),
        1 => Signature::from_bytes([0xff; 64]),
        _ => Actor::any(src).keys().sign(&SigningBytes::new("folkmoot/other/1")),
    }
}

/// A moment near the beginning, or any.
pub fn moment(src: &mut Source<'_>) -> WallTime {
    if src.chance(25) { WallTime(src.number()) } else { WallTime(AT.0 + u64::from(src.byte())) }
}

/// A life: mostly a peer's own, in one of three incarnations.
pub fn subject(src: &mut Source<'_>) -> MemberInstance {
    let life = (src.byte() % 8).saturating_sub(5);
    let mut subject = Actor::peer(src).subject(u64::from(life));
    match src.byte() % 24 {
        0 => subject.endpoint = place(src),
        1 => subject.key = key(src),
        2 => subject.incarnation = Incarnation(src.number()),
        3 => subject = Actor::any(src).subject(0),
        _ => {}
    }
    subject
}
