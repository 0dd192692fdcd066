//! Messages of membership: the votes of seeds, the comparison of their registries, and questions
//! about members with their answers.
//!
//! Certificates, requests and goodbyes are statements that every node can check; they are in
//! [`crate::model::statement`].

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::entry::{MemberState, RegistryEntry};
use crate::model::statement::{
    Ban, Confirmation, LIVES_MAX, MemberInstance, Proposal, ProposalKind, RegisterReq, Removal,
    Vote,
};
use crate::model::{Endpoint, Incarnation, PublicKey, SeedId, Signature, WallTime};

/// Number of findings that one message may carry: a majority of the most neighbors that one member
/// may name, and well within a line.
pub const CONFIRMATIONS_MAX: usize = 256;

/// Greatest length of the reason in another seed's vote, in bytes: the reason is kept, logged
/// and passed on.
pub const REASON_BYTES_MAX: usize = 1_024;

/// A seed's answer to a request to register, sent to the other seeds and to the applicant.
///
/// The answer carries the applicant's own signature, so that a seed that has not seen the request
/// can begin its own dial-back on the strength of the vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterVote {
    /// Address on which the applicant listens.
    pub endpoint: Endpoint,
    /// Incarnation of the life that asks.
    pub incarnation: Incarnation,
    /// Public key of the applicant.
    pub key: PublicKey,
    /// Signature of the applicant on its request.
    pub request: Signature,
    /// Seed that votes.
    pub seed: SeedId,
    /// True for a yes, false for a no.
    pub yes: bool,
    /// Time of the vote, by the voter's clock.
    pub at: WallTime,
    /// Signature of a yes; a no has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// Reason in words, for people.
    pub reason: String,
}

impl RegisterVote {
    /// The applicant's request, as the vote repeats it.
    pub const fn request(&self) -> RegisterReq {
        RegisterReq {
            endpoint: self.endpoint,
            incarnation: self.incarnation,
            key: self.key,
            signature: self.request,
        }
    }

    /// Returns the signed yes, or `None` for a no.
    pub fn vote(&self) -> Option<Vote> {
        let signature = self.signature.filter(|_| self.yes)?;
        Some(Vote { seed: self.seed, at: self.at, others: Vec::new(), signature })
    }
}

/// A seed's answer to reports, for the other seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedDeadVote {
    /// Lives that the vote is about, ascending. One signature covers them all.
    pub lives: Vec<MemberInstance>,
    /// Seed that votes.
    pub seed: SeedId,
    /// True for a yes, false for a no.
    pub yes: bool,
    /// Time of the vote, by the voter's clock.
    pub at: WallTime,
    /// Signature of a yes; a no has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// Reason in words, for people.
    pub reason: String,
    /// The witnesses' findings that the voter holds; others judge them for themselves.
    pub confirmations: Vec<Confirmation>,
}

impl SeedDeadVote {
    /// Returns the signed yes, or `None` for a no.
    pub fn vote(&self) -> Option<Vote> {
        let signature = self.signature.filter(|_| self.yes)?;
        Some(Vote { seed: self.seed, at: self.at, others: Vec::new(), signature })
    }

    /// True if the vote keeps the limits of lists and texts, and its lives ascend.
    pub fn is_well_formed(&self) -> bool {
        (1..=LIVES_MAX).contains(&self.lives.len())
            && self.lives.is_sorted_by(|one, next| one < next)
            && self.confirmations.len() <= CONFIRMATIONS_MAX
            && self.reason.len() <= REASON_BYTES_MAX
    }
}

/// A seed's yes to an order of its operator; a seed has no reason to say no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedOrderVote {
    /// Kind of the proposal: `evict` or `ban`.
    pub kind: ProposalKind,
    /// Endpoint to evict or ban.
    pub endpoint: Endpoint,
    /// The life to evict; for a ban its number: an odd one bans, an even one lifts the ban.
    pub incarnation: Incarnation,
    /// Public key of the member.
    pub key: PublicKey,
    /// Seed whose operator gave the order.
    pub seed: SeedId,
    /// Time of the vote, by the voter's clock.
    pub at: WallTime,
    /// The voter's signature.
    pub signature: Signature,
}

impl SeedOrderVote {
    /// The life, or the ban, that the vote is about.
    pub const fn subject(&self) -> MemberInstance {
        MemberInstance { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// The proposal that the vote is for.
    pub const fn proposal(&self) -> Proposal {
        Proposal { kind: self.kind, subject: self.subject() }
    }

    /// The signed yes.
    pub const fn vote(&self) -> Vote {
        Vote { seed: self.seed, at: self.at, others: Vec::new(), signature: self.signature }
    }
}

/// The state of a registry, in hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedDigest {
    /// Number of entries in the registry, for people.
    pub entries: u64,
    /// Hash of the whole registry, as 16 hexadecimal digits.
    pub root: String,
    /// One hash per bucket, as 16 hexadecimal digits each; absent as long as the roots may be
    /// equal, which they nearly always are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<String>,
    /// True if the receiver should answer with its own digest, as detailed as this one.
    pub answer: bool,
}

/// A request for some buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedSyncReq {
    /// Numbers of the buckets.
    pub buckets: BTreeSet<u8>,
    /// Last endpoint of the previous page; the first page is asked for without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Endpoint>,
}

/// Some entries of the requested buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedSyncResp {
    /// The entries, with the proofs of admissions and goodbyes.
    pub entries: Vec<RegistryEntry>,
    /// The proofs of removals that ended some of them, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<Arc<Removal>>,
    /// Bans of endpoints, and those that were lifted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bans: Vec<Ban>,
    /// True if there are more entries after the last one.
    pub more: bool,
}

/// A seed's advice to a peer in a part of the overlay that is cut off from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkHint {
    /// A member of the largest part.
    pub endpoint: Endpoint,
}

/// A request for a page of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerListReq {
    /// Last endpoint of the previous page; the first page is asked for without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Endpoint>,
    /// True if members that left or were removed lately are wanted too.
    #[serde(default)]
    pub ended: bool,
    /// True if a sample is enough: of more members than fit one page, some drawn at random.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sample: bool,
}

impl PeerListReq {
    /// The request of a peer that looks for neighbors.
    pub const SAMPLE: Self = Self { after: None, ended: false, sample: true };
}

/// One member in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLine {
    /// Address on which the member listens.
    pub endpoint: Endpoint,
    /// Incarnation of the member's life.
    pub incarnation: Incarnation,
    /// Status of the member.
    pub status: MemberState,
    /// Time since which the status holds, by the clocks of the deciding nodes.
    pub since: WallTime,
    /// Number of neighbors that the member named last.
    pub degree: u32,
}

/// A page of members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerListResp {
    /// Seed that answers.
    pub seed: SeedId,
    /// Members, ascending by endpoint.
    pub members: Vec<MemberLine>,
    /// True if there are more after the last one.
    pub more: bool,
}

/// A request for the reasons why an endpoint is a member or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainReq {
    /// Endpoint in question.
    pub endpoint: Endpoint,
}

/// The proofs about an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainResp {
    /// Seed that answers.
    pub seed: SeedId,
    /// Endpoint in question.
    pub endpoint: Endpoint,
    /// Lives of the endpoint, the latest last, at most five.
    pub lives: Vec<RegistryEntry>,
    /// Open votes about the endpoint, in words.
    pub open: Vec<String>,
}

/// A request for a page of neighbor lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyReq {
    /// Last endpoint of the previous page; the first page is asked for without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Endpoint>,
}

/// A page of neighbor lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyResp {
    /// Seed that answers.
    pub seed: SeedId,
    /// Members and their neighbors, ascending by endpoint.
    pub nodes: Vec<NodeLine>,
    /// True if there are more after the last one.
    pub more: bool,
}

/// One member's neighbors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    /// Endpoint of the member.
    pub endpoint: Endpoint,
    /// Neighbors that the member named last.
    pub neighbors: Vec<Endpoint>,
}
