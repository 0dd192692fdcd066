//! Every message of the native dialect, in one table: flat JSON objects told apart by `type`.
//!
//! The payloads are declared by the services they belong to; this file says who may send what.
//! `docs/PROTOCOL.md` states fields, duties and limits; `tests/golden/` holds the exact bytes.

use serde::{Deserialize, Serialize};

use crate::model::Incarnation;

use super::broadcast::{Announce, Graft, Have, Lack, Part, PartReq, Prune, Publish, Receipt, Slow};
use super::direct::{DirectAck, DirectMsg, DirectPart, DirectPartReq};
use super::discovery::{FindNode, Found};
use super::gossip::{GossipDigest, GossipMsg};
use super::liveness::{DeadReport, Ping, Pong, SuspectReq};
use super::membership::authority::{
    ExplainReq, ExplainResp, LinkHint, PeerListReq, PeerListResp, RegisterVote, SeedDeadVote,
    SeedDigest, SeedOrderVote, SeedSyncReq, SeedSyncResp, TopologyReq, TopologyResp,
};
use super::membership::certificate::{
    Admission, Ban, Confirmation, Leave, NeighborList, RegisterReq, Removal,
};
use super::session::{Bye, Hello, HelloAck, HelloProof};

/// How much of a text for people is taken in. Such texts are kept, logged and passed on; a longer
/// one is cut. Twice what an honest node writes.
const REASON_BYTES_MAX: usize = 1_024;

/// One line of the native dialect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Message {
    /// Who I am, and a challenge to prove that you are who you are.
    Hello(Hello),
    /// Who I am, the answer to your challenge, and one of mine.
    HelloAck(HelloAck),
    /// The answer to your challenge; the link is open.
    HelloProof(HelloProof),
    /// This link ends by intent; its sender lives on.
    Bye(Bye),
    /// What was refused and why.
    Error(ErrorReply),

    /// Let me in.
    RegisterReq(RegisterReq),
    /// A seed's yes or no to an applicant.
    RegisterVote(RegisterVote),
    /// The proof that an applicant was admitted.
    RegisterCommit(Admission),
    /// Who is in?
    PeerListReq(PeerListReq),
    /// The members, a page at a time.
    PeerListResp(PeerListResp),

    /// One gossip message on its way.
    GossipMsg(GossipMsg),
    /// What I have seen lately; send me the rest.
    GossipDigest(GossipDigest),

    /// Are you there?
    Ping(Ping),
    /// I am.
    Pong(Pong),
    /// My neighbors are now these.
    Neighbors(NeighborList),
    /// Your neighbor does not answer me; probe it and tell me.
    SuspectReq(SuspectReq),
    /// What my own fresh probe found.
    SuspectAck(Confirmation),
    /// A majority of its neighbors found it dead.
    DeadReport(DeadReport),
    /// A seed's yes or no to a removal.
    SeedDeadVote(SeedDeadVote),
    /// The proof that a member was removed.
    SeedDeadCommit(Removal),
    /// My operator wants a member evicted, or an endpoint banned.
    SeedOrderVote(SeedOrderVote),
    /// The proof of a ban, or that it was lifted.
    SeedBanCommit(Ban),
    /// I am going.
    Leave(Leave),

    /// Something for the application of the other end.
    Direct(DirectMsg),
    /// What became of it.
    DirectAck(DirectAck),
    /// Send me parts of its data.
    DirectPartReq(DirectPartReq),
    /// One part of its data.
    DirectPart(DirectPart),
    /// Who of those you know is closest to this id?
    FindNode(FindNode),
    /// These are.
    Found(Found),
    /// A message of a member on its way to all.
    Publish(Publish),
    /// I hold these messages.
    Announce(Announce),
    /// Send me these messages.
    Graft(Graft),
    /// Push to me no more; announce.
    Prune(Prune),
    /// Send me these parts of a large message.
    PartReq(PartReq),
    /// A part of a large message.
    Part(Part),
    /// So many have this message by way of me.
    Receipt(Receipt),
    /// I have the messages with these numbers.
    Have(Have),
    /// Announce to me the messages with these numbers.
    Lack(Lack),
    /// Wait for a node that does not keep up with your messages.
    Slow(Slow),

    /// The state of my registry, in hashes.
    SeedDigest(SeedDigest),
    /// Send me these parts of yours.
    SeedSyncReq(SeedSyncReq),
    /// Parts of my registry.
    SeedSyncResp(SeedSyncResp),
    /// Your part of the overlay is cut off; link to this member.
    LinkHint(LinkHint),

    /// Why is this endpoint in or out?
    ExplainReq(ExplainReq),
    /// Its certificates.
    ExplainResp(ExplainResp),
    /// Who is linked with whom?
    TopologyReq(TopologyReq),
    /// The neighbor lists, a page at a time.
    TopologyResp(TopologyResp),
}

/// How much is known of the other end of a link. Ordered: each grade may do all the lower may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing but an address.
    Stranger,
    /// It proved a key, but holds no certificate for it.
    Applicant,
    /// It proved the key of a certificate that is not known to have ended.
    Member,
    /// It proved the key of a configured seed.
    Seed,
}

impl Message {
    /// The name in the `type` field.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "HELLO",
            Self::HelloAck(_) => "HELLO_ACK",
            Self::HelloProof(_) => "HELLO_PROOF",
            Self::Bye(_) => "BYE",
            Self::Error(_) => "ERROR",
            Self::RegisterReq(_) => "REGISTER_REQ",
            Self::RegisterVote(_) => "REGISTER_VOTE",
            Self::RegisterCommit(_) => "REGISTER_COMMIT",
            Self::PeerListReq(_) => "PEER_LIST_REQ",
            Self::PeerListResp(_) => "PEER_LIST_RESP",
            Self::GossipMsg(_) => "GOSSIP_MSG",
            Self::GossipDigest(_) => "GOSSIP_DIGEST",
            Self::Ping(_) => "PING",
            Self::Pong(_) => "PONG",
            Self::Neighbors(_) => "NEIGHBORS",
            Self::SuspectReq(_) => "SUSPECT_REQ",
            Self::SuspectAck(_) => "SUSPECT_ACK",
            Self::DeadReport(_) => "DEAD_REPORT",
            Self::SeedDeadVote(_) => "SEED_DEAD_VOTE",
            Self::SeedDeadCommit(_) => "SEED_DEAD_COMMIT",
            Self::SeedOrderVote(_) => "SEED_ORDER_VOTE",
            Self::SeedBanCommit(_) => "SEED_BAN_COMMIT",
            Self::Leave(_) => "LEAVE",
            Self::Direct(_) => "DIRECT",
            Self::DirectAck(_) => "DIRECT_ACK",
            Self::DirectPartReq(_) => "DIRECT_PART_REQ",
            Self::DirectPart(_) => "DIRECT_PART",
            Self::FindNode(_) => "FIND_NODE",
            Self::Found(_) => "FOUND",
            Self::Publish(_) => "PUBLISH",
            Self::Announce(_) => "ANNOUNCE",
            Self::Graft(_) => "GRAFT",
            Self::Prune(_) => "PRUNE",
            Self::PartReq(_) => "PART_REQ",
            Self::Part(_) => "PART",
            Self::Receipt(_) => "RECEIPT",
            Self::Have(_) => "HAVE",
            Self::Lack(_) => "LACK",
            Self::Slow(_) => "SLOW",
            Self::SeedDigest(_) => "SEED_DIGEST",
            Self::SeedSyncReq(_) => "SEED_SYNC_REQ",
            Self::SeedSyncResp(_) => "SEED_SYNC_RESP",
            Self::LinkHint(_) => "LINK_HINT",
            Self::ExplainReq(_) => "EXPLAIN_REQ",
            Self::ExplainResp(_) => "EXPLAIN_RESP",
            Self::TopologyReq(_) => "TOPOLOGY_REQ",
            Self::TopologyResp(_) => "TOPOLOGY_RESP",
        }
    }

    /// Cuts the text for people in it, if there is one, to a modest length.
    pub fn shorten_reason(&mut self) {
        let reason = if let Self::Bye(Bye { reason })
        | Self::Error(ErrorReply { reason, .. })
        | Self::RegisterVote(RegisterVote { reason, .. })
        | Self::SeedDeadVote(SeedDeadVote { reason, .. })
        | Self::DirectAck(DirectAck { reason, .. }) = self
        {
            reason
        } else {
            return;
        };
        if reason.len() > REASON_BYTES_MAX {
            let is_end = |at: &usize| reason.is_char_boundary(*at);
            let end = (0..=REASON_BYTES_MAX).rev().find(is_end).unwrap_or(0);
            reason.truncate(end);
            reason.shrink_to_fit();
        }
    }

    /// The least standing from which this message is listened to.
    ///
    /// Proofs that anybody can check (certificates, goodbyes) are still taken only from known
    /// nodes: a stranger has no business here but to introduce itself and to ask public questions.
    pub const fn needs(&self) -> Standing {
        match self {
            Self::Hello(_)
            | Self::HelloAck(_)
            | Self::HelloProof(_)
            | Self::Bye(_)
            | Self::Error(_)
            | Self::PeerListReq(_)
            | Self::ExplainReq(_)
            | Self::TopologyReq(_) => Standing::Stranger,
            Self::RegisterReq(_) | Self::Leave(_) | Self::Ping(_) | Self::Pong(_) => {
                Standing::Applicant
            }
            Self::GossipMsg(_)
            | Self::GossipDigest(_)
            | Self::Neighbors(_)
            | Self::SuspectReq(_)
            | Self::SuspectAck(_)
            | Self::DeadReport(_)
            | Self::RegisterCommit(_)
            | Self::SeedDeadCommit(_)
            | Self::Direct(_)
            | Self::DirectAck(_)
            | Self::DirectPartReq(_)
            | Self::DirectPart(_)
            | Self::FindNode(_)
            | Self::Found(_)
            | Self::Publish(_)
            | Self::Announce(_)
            | Self::Graft(_)
            | Self::Prune(_)
            | Self::PartReq(_)
            | Self::Part(_)
            | Self::Receipt(_)
            | Self::Have(_)
            | Self::Lack(_)
            | Self::Slow(_) => Standing::Member,
            Self::RegisterVote(_)
            | Self::PeerListResp(_)
            | Self::SeedDeadVote(_)
            | Self::SeedOrderVote(_)
            | Self::SeedBanCommit(_)
            | Self::SeedDigest(_)
            | Self::SeedSyncReq(_)
            | Self::SeedSyncResp(_)
            | Self::LinkHint(_)
            | Self::ExplainResp(_)
            | Self::TopologyResp(_) => Standing::Seed,
        }
    }
}

/// A refusal; it always names what was refused and what would be accepted instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// What kind of refusal, for programs.
    pub code: ErrorCode,
    /// What was wrong and what the limit is, for people.
    pub reason: String,
    /// The life above which a refused applicant's next one has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<Incarnation>,
}

impl ErrorReply {
    /// A refusal of the kind `code`.
    pub fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), above: None }
    }

    /// The same refusal of a life that has to be above `floor`.
    #[must_use]
    pub fn with_floor(self, floor: Incarnation) -> Self {
        Self { above: Some(floor), ..self }
    }
}

/// Kinds of refusal. All are definite: what was asked for did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The line is no message.
    Malformed,
    /// The message needs a handshake, a membership or a seed's key first.
    NotAllowed,
    /// The handshake failed: wrong proof, wrong version, wrong key.
    Handshake,
    /// The two ends do not hold the same cluster key; nothing was listened to.
    ClusterKey,
    /// The endpoint is taken: it is alive under another key.
    EndpointTaken,
    /// The request's signature or fields contradict the link it came by.
    Invalid,
    /// Too many requests from this source, or too many under way.
    Busy,
    /// The seeds could not agree in time, or agreed on no.
    Rejected,
    /// This incarnation has ended; register again under a new one.
    Removed,
    /// The seeds' operators keep this endpoint, or this key, out.
    Banned,
    /// This node takes no part in what was asked.
    WrongRole,
}

macro_rules! into_message {
    ($($variant:ident($payload:ty)),* $(,)?) => {
        $(impl From<$payload> for Message {
            fn from(payload: $payload) -> Self {
                Self::$variant(payload)
            }
        })*
    };
}

into_message! {
    Hello(Hello), HelloAck(HelloAck), HelloProof(HelloProof), Bye(Bye),
    Error(ErrorReply),
    RegisterReq(RegisterReq), RegisterVote(RegisterVote), RegisterCommit(Admission),
    PeerListReq(PeerListReq), PeerListResp(PeerListResp), GossipMsg(GossipMsg),
    GossipDigest(GossipDigest), Ping(Ping), Pong(Pong), Neighbors(NeighborList),
    SuspectReq(SuspectReq), SuspectAck(Confirmation), DeadReport(DeadReport),
    SeedDeadVote(SeedDeadVote), SeedDeadCommit(Removal), SeedOrderVote(SeedOrderVote),
    SeedBanCommit(Ban), Leave(Leave),
    Direct(DirectMsg), DirectAck(DirectAck), DirectPartReq(DirectPartReq), DirectPart(DirectPart),
    FindNode(FindNode), Found(Found),
    Publish(Publish), Announce(Announce), Graft(Graft), Prune(Prune), PartReq(PartReq),
    Part(Part), Receipt(Receipt), Have(Have), Lack(Lack),
    Slow(Slow),
    SeedDigest(SeedDigest),
    SeedSyncReq(SeedSyncReq), SeedSyncResp(SeedSyncResp), LinkHint(LinkHint),
    ExplainReq(ExplainReq), ExplainResp(ExplainResp), TopologyReq(TopologyReq),
    TopologyResp(TopologyResp),
}
