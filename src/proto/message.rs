//! Every message of the native dialect, in one table: flat JSON objects told apart by `type`.
//!
//! The payloads are declared by the services they belong to; this file says which standing
//! may send each. `docs/PROTOCOL.md` states fields, duties and limits; `tests/golden/` holds
//! the exact bytes.

use serde::{Deserialize, Serialize};

use super::broadcast::{Announce, Graft, Have, Lack, Part, PartReq, Prune, Publish, Receipt, Slow};
use super::direct::{DirectAck, DirectMsg, DirectPart, DirectPartReq};
use super::discovery::{FindNode, Found};
use super::gossip::{GossipDigest, GossipMsg};
use super::hello::{Bye, Hello, HelloAck, HelloProof};
use super::liveness::{DeadReport, Ping, Pong, SuspectReq};
use super::membership::{
    ExplainReq, ExplainResp, LinkHint, PeerListReq, PeerListResp, RegisterVote, SeedDeadVote,
    SeedDigest, SeedOrderVote, SeedSyncReq, SeedSyncResp, TopologyReq, TopologyResp,
};
use super::refusal::ErrorReply;
use crate::model::statement::{
    Admission, Ban, Confirmation, Leave, NeighborList, RegisterReq, Removal,
};

/// Greatest length of a text for people that is taken in, in bytes. Such texts are kept, logged and
/// passed on; a longer one is cut. Twice the length that an honest node writes.
const REASON_BYTES_MAX: usize = 1_024;

/// A message of the native dialect, which is one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Message {
    /// The caller's card, and a challenge for the called node.
    Hello(Hello),
    /// The called node's card, its answer to the challenge, and a challenge for the caller.
    HelloAck(HelloAck),
    /// The caller's answer to the challenge; the link is open.
    HelloProof(HelloProof),
    /// This link ends by intent; its sender lives on.
    Bye(Bye),
    /// A refusal with its reason.
    Error(ErrorReply),

    /// A request to be admitted.
    RegisterReq(RegisterReq),
    /// A seed's yes or no to an applicant.
    RegisterVote(RegisterVote),
    /// The proof that an applicant was admitted.
    RegisterCommit(Admission),
    /// A request for a page of members.
    PeerListReq(PeerListReq),
    /// A page of members.
    PeerListResp(PeerListResp),

    /// One gossip message on its way.
    GossipMsg(GossipMsg),
    /// A digest of the messages that the sender has seen lately, to get the rest.
    GossipDigest(GossipDigest),

    /// A request for a sign of life.
    Ping(Ping),
    /// The answer to a ping.
    Pong(Pong),
    /// The sender's present neighbors.
    Neighbors(NeighborList),
    /// A request to probe a neighbor that does not answer the sender, and to testify.
    SuspectReq(SuspectReq),
    /// The finding of the sender's own fresh probe.
    SuspectAck(Confirmation),
    /// A report that a majority of a member's neighbors found it dead.
    DeadReport(DeadReport),
    /// A seed's yes or no to a removal.
    SeedDeadVote(SeedDeadVote),
    /// The proof that a member was removed.
    SeedDeadCommit(Removal),
    /// A seed's vote by order of its operator, to evict a member or ban an endpoint.
    SeedOrderVote(SeedOrderVote),
    /// The proof of a ban, or of its lifting.
    SeedBanCommit(Ban),
    /// A member's goodbye.
    Leave(Leave),

    /// A message for the application of the other end.
    Direct(DirectMsg),
    /// The verdict on a direct message.
    DirectAck(DirectAck),
    /// A request for parts of a direct message's data.
    DirectPartReq(DirectPartReq),
    /// One part of a direct message's data.
    DirectPart(DirectPart),
    /// A question for the known contacts that are closest to an id.
    FindNode(FindNode),
    /// The closest contacts, in answer to a question.
    Found(Found),
    /// A broadcast message of a member on its way to all.
    Publish(Publish),
    /// An announcement of broadcast messages that the sender holds.
    Announce(Announce),
    /// A request for broadcast messages.
    Graft(Graft),
    /// A request to announce messages instead of pushing them.
    Prune(Prune),
    /// A request for parts of a large broadcast message.
    PartReq(PartReq),
    /// A part of a large broadcast message.
    Part(Part),
    /// The number of nodes that have a broadcast message by way of the sender.
    Receipt(Receipt),
    /// The numbers of the broadcast messages that the sender has.
    Have(Have),
    /// A request to announce the broadcast messages with these numbers.
    Lack(Lack),
    /// A request to wait for a node that is slower than the origin's messages.
    Slow(Slow),

    /// The state of the sender's registry, in hashes.
    SeedDigest(SeedDigest),
    /// A request for parts of the receiver's registry.
    SeedSyncReq(SeedSyncReq),
    /// Parts of the sender's registry.
    SeedSyncResp(SeedSyncResp),
    /// Advice to link to a member, because the receiver's part of the overlay is cut off.
    LinkHint(LinkHint),

    /// A request for the reasons why an endpoint is a member or is not.
    ExplainReq(ExplainReq),
    /// The certificates of an endpoint.
    ExplainResp(ExplainResp),
    /// A request for a page of neighbor lists.
    TopologyReq(TopologyReq),
    /// A page of neighbor lists.
    TopologyResp(TopologyResp),
}

/// Standing of the other end of a link. Ordered: each grade may do all the lower may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Only the address is known.
    Stranger,
    /// The other end proved a key, but holds no certificate for it.
    Applicant,
    /// The other end proved the key of a certificate that is not known to have ended.
    Member,
    /// The other end proved the key of a configured seed.
    Seed,
}

impl Message {
    /// Name of the message in the `type` field.
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

    /// Cuts the message's text for people, if it has one, to 1,024 bytes.
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

    /// Returns the least standing from which this message is taken.
    ///
    /// Proofs that every node can check (certificates, goodbyes) are still taken only from known
    /// nodes: a stranger may only introduce itself and ask public questions.
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
