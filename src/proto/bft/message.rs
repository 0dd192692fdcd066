//! Messages between the members of a group with Byzantine order.
//!
//! Everything is taken only over the proved link of its sender; what is signed may be passed on.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bundle::Bundle;
use super::change::MembershipChange;
use super::header::SlotHeader;
use super::number::{ContentDigest, EpochNo, OrderId, SlotNo, ViewNo};
use super::vote::{Certificate, Claim, ClaimKind, PhaseVote, VotePhase};
use super::{Approval, VoteSubject};
use crate::model::{KeyPair, Nonce, PublicKey, Signature, SigningBytes};
use crate::proto::chat::entry::MemberId;

/// Greatest number of digests in a `BUNDLE_REQ`.
pub const DIGESTS_MAX: usize = 256;

/// Greatest number of slots in a `SLOT_RESP` or `CHAIN_RESP`.
pub const SLOTS_MAX: usize = 128;

/// A message of the dialect, which is one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Message {
    /// The caller's membership and challenge; the first line of a connection.
    OrderJoin(OrderJoin),
    /// The called member's answer to the challenge, and a challenge of its own.
    OrderChallenge(OrderChallenge),
    /// The caller's answer to the challenge.
    OrderProof(OrderProof),
    /// The end of the handshake.
    OrderAck(OrderAck),
    /// The refusal of a handshake.
    OrderRefused(OrderRefused),

    /// Messages of one author.
    Bundle(Arc<Bundle>),
    /// A change of the committee, which waits for its slot.
    Change(Arc<MembershipChange>),
    /// A leader's proposal, which is also its PREPARE.
    PrePrepare(Arc<PrePrepare>),
    /// A vote for a proposal.
    Prepare(PhaseVote),
    /// A vote for a proposal that a quorum has prepared.
    Commit(PhaseVote),
    /// A wish for another view, which promises nothing (B16).
    Suspect(Suspect),
    /// The sender's entry into a view, with its claim.
    ViewChange(Arc<ViewChange>),
    /// The beginning of a view, by its leader.
    NewView(Arc<NewView>),
    /// The sender's progress.
    OrderStatus(OrderStatus),

    /// A request for final slots.
    SlotReq(SlotReq),
    /// Final slots, with the certificate of the last.
    SlotResp(SlotResp),
    /// A request for slots that are not final, by the digest of the last.
    ChainReq(ChainReq),
    /// Slots that are not final.
    ChainResp(ChainResp),
    /// A request for bundles; answered by `BUNDLE`.
    BundleReq(BundleReq),

    /// A request for what the asker itself has signed (B20).
    RecallReq(RecallReq),
    /// The newest statements of the asker that the sender holds.
    RecallResp(RecallResp),
    /// Consent to a change of the committee.
    Approve(Approve),
    /// Two statements of one member that exclude each other (B24).
    Evidence(Arc<Equivocation>),
}

/// Payload of `ORDER_JOIN`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderJoin {
    /// Id of the caller in its committee.
    pub sender_id: MemberId,
    /// Group of the caller.
    pub group: OrderId,
    /// Public key of the caller.
    pub key: PublicKey,
    /// Challenge for the called member.
    pub nonce: Nonce,
    /// Random number of the caller's process, by which two processes with one key are
    /// distinguished.
    pub process: u64,
}

/// Payload of `ORDER_CHALLENGE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderChallenge {
    /// Id of the called member.
    pub sender_id: MemberId,
    /// Public key of the called member.
    pub key: PublicKey,
    /// Challenge for the caller.
    pub nonce: Nonce,
    /// Signature of the called member over the caller's challenge.
    pub proof: Signature,
}

/// Payload of `ORDER_PROOF`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderProof {
    /// Signature of the caller over the called member's challenge.
    pub proof: Signature,
}

/// Payload of `ORDER_ACK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderAck {
    /// Id of the called member.
    pub sender_id: MemberId,
    /// Random number of the called member's process.
    pub process: u64,
}

/// Payload of `ORDER_REFUSED`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRefused {
    /// Reason, for programs.
    pub code: OrderRefusal,
    /// Reason in words, for people.
    pub reason: String,
}

/// Reason of a refused handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderRefusal {
    /// A line is no message, or none of the handshake.
    Malformed,
    /// The caller belongs to another group, or another group's member was called.
    OtherGroup,
    /// A key or proof is wrong, or the caller is no member.
    NoMember,
    /// Another process uses the caller's key.
    Doubled,
    /// There is no room.
    Busy,
}

/// Payload of `PRE_PREPARE`. Its signature is the leader's PREPARE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrePrepare {
    /// Leader that proposes.
    pub sender_id: MemberId,
    /// View of the proposal.
    pub view: ViewNo,
    /// The proposal.
    pub header: SlotHeader,
    /// The leader's PREPARE of it.
    pub signature: Signature,
}

impl PrePrepare {
    /// The leader's PREPARE that the proposal is, for a header with this digest.
    pub const fn vote(&self, digest: ContentDigest) -> PhaseVote {
        let SlotHeader { epoch, slot, .. } = self.header;
        let subject = VoteSubject { epoch, view: self.view, slot, digest };
        PhaseVote { sender_id: self.sender_id, subject, signature: self.signature }
    }
}

/// Payload of `SUSPECT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Member that wishes.
    pub sender_id: MemberId,
    /// Epoch of the view.
    pub epoch: EpochNo,
    /// View that it wishes for.
    pub view: ViewNo,
    /// Reason in words, for people; not signed.
    pub reason: String,
    /// Signature of the member over group, epoch and view.
    pub signature: Signature,
}

impl Suspect {
    /// Signs a wish.
    #[must_use]
    pub fn sign(
        group: &OrderId,
        (epoch, view): (EpochNo, ViewNo),
        reason: &str,
        (sender_id, keys): (MemberId, &KeyPair),
    ) -> Self {
        let signature = keys.sign(&Self::signing_bytes(group, epoch, view));
        Self { sender_id, epoch, view, reason: reason.to_owned(), signature }
    }

    /// True if `key` has signed this wish.
    #[must_use]
    pub fn is_valid(&self, group: &OrderId, key: &PublicKey) -> bool {
        key.verifies(&Self::signing_bytes(group, self.epoch, self.view), &self.signature)
    }

    fn signing_bytes(group: &OrderId, epoch: EpochNo, view: ViewNo) -> SigningBytes {
        SigningBytes::new("folkmoot/bft/suspect/1").bytes(&group.0).number(epoch.0).number(view.0)
    }
}

/// The signed part of a `VIEW_CHANGE`, as a `NEW_VIEW` repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedClaim {
    /// Member that has entered the view.
    pub sender_id: MemberId,
    /// Highest certificate whose content the member has on its disk.
    pub claim: Claim,
    /// Signature of the member over group, epoch, view and claim.
    pub signature: Signature,
}

impl SignedClaim {
    /// Signs the claim with which a member enters a view.
    #[must_use]
    pub fn sign(
        group: &OrderId,
        (epoch, view): (EpochNo, ViewNo),
        claim: Claim,
        (sender_id, keys): (MemberId, &KeyPair),
    ) -> Self {
        let signature = keys.sign(&Self::signing_bytes(group, epoch, view, &claim));
        Self { sender_id, claim, signature }
    }

    /// True if `key` has signed this claim for this view.
    #[must_use]
    pub fn is_valid(
        &self,
        group: &OrderId,
        (epoch, view): (EpochNo, ViewNo),
        key: &PublicKey,
    ) -> bool {
        key.verifies(&Self::signing_bytes(group, epoch, view, &self.claim), &self.signature)
    }

    fn signing_bytes(group: &OrderId, epoch: EpochNo, view: ViewNo, claim: &Claim) -> SigningBytes {
        let bytes = SigningBytes::new("folkmoot/bft/view-change/1").bytes(&group.0);
        claim.add_to(bytes.number(epoch.0).number(view.0))
    }
}

/// Payload of `VIEW_CHANGE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewChange {
    /// Epoch of the view.
    pub epoch: EpochNo,
    /// View that the member has entered.
    pub view: ViewNo,
    /// The member's claim.
    #[serde(flatten)]
    pub signed: SignedClaim,
    /// Certificate that the claim is of; absent at an epoch's beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// Payload of `NEW_VIEW`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewView {
    /// Leader of the view.
    pub sender_id: MemberId,
    /// Epoch of the view.
    pub epoch: EpochNo,
    /// View that begins.
    pub view: ViewNo,
    /// Claims of a quorum of distinct members, ascending by member. The highest is the base.
    pub changes: Vec<SignedClaim>,
    /// Certificate of the base; absent at an epoch's beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Signature of the leader over group, epoch, view, base and the list of claims.
    pub signature: Signature,
}

impl NewView {
    /// Signs the beginning of a view.
    #[must_use]
    pub fn sign(
        group: &OrderId,
        (epoch, view): (EpochNo, ViewNo),
        changes: Vec<SignedClaim>,
        certificate: Option<Certificate>,
        (sender_id, keys): (MemberId, &KeyPair),
    ) -> Self {
        let unsigned = Signature::from_bytes([0; 64]);
        let mut this = Self { sender_id, epoch, view, changes, certificate, signature: unsigned };
        this.signature = keys.sign(&this.signing_bytes(group));
        this
    }

    /// Highest claim, from which the view goes on; `None` without any claim.
    #[must_use]
    pub fn base(&self) -> Option<Claim> {
        self.changes.iter().map(|it| it.claim).max_by_key(Claim::rank)
    }

    /// True if `key` has signed this beginning.
    #[must_use]
    pub fn is_signed(&self, group: &OrderId, key: &PublicKey) -> bool {
        key.verifies(&self.signing_bytes(group), &self.signature)
    }

    fn signing_bytes(&self, group: &OrderId) -> SigningBytes {
        let list = SigningBytes::new("folkmoot/bft/claims/1").number(self.changes.len() as u64);
        let list = self.changes.iter().fold(list, |bytes, it| {
            let bytes = it.claim.add_to(bytes.number(it.sender_id.0.into()));
            bytes.bytes(it.signature.as_bytes())
        });
        let start = Claim {
            phase: ClaimKind::Start,
            view: ViewNo(0),
            slot: SlotNo(0),
            digest: ContentDigest::default(),
        };
        let bytes = SigningBytes::new("folkmoot/bft/new-view/1").bytes(&group.0);
        let bytes = bytes.number(self.epoch.0).number(self.view.0);
        self.base().unwrap_or(start).add_to(bytes).bytes(&list.sha256())
    }
}

/// Payload of `ORDER_STATUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderStatus {
    /// Epoch of the sender.
    pub epoch: EpochNo,
    /// View of the sender.
    pub view: ViewNo,
    /// True if the view has begun at the sender.
    pub active: bool,
    /// Last final slot of the sender.
    pub slot: SlotNo,
    /// Digest of that slot's header.
    pub digest: ContentDigest,
}

/// Payload of `SLOT_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReq {
    /// First slot that is wanted.
    pub from: SlotNo,
}

/// A slot with its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotContent {
    /// Header of the slot.
    pub header: SlotHeader,
    /// Bundles that the header names, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<Arc<Bundle>>,
    /// Change that the header names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Arc<MembershipChange>>,
}

/// Payload of `SLOT_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotResp {
    /// Final slots without a gap, all of one epoch; at most [`SLOTS_MAX`].
    pub slots: Vec<Arc<SlotContent>>,
    /// Certificate of COMMITs of the last of them.
    pub certificate: Certificate,
}

/// Payload of `CHAIN_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainReq {
    /// Digest of the last header that is wanted.
    pub digest: ContentDigest,
    /// Slot above which headers are wanted.
    pub above: SlotNo,
}

/// Payload of `CHAIN_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainResp {
    /// Slots without a gap, the last with the digest that was asked for.
    pub slots: Vec<Arc<SlotContent>>,
}

/// Payload of `BUNDLE_REQ`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleReq {
    /// Digests of the bundles or of the change; at most [`DIGESTS_MAX`].
    pub digests: Vec<ContentDigest>,
}

/// Payload of `RECALL_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallReq {
    /// Random number by which the answer is known.
    pub nonce: Nonce,
}

/// Payload of `RECALL_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallResp {
    /// Number of the request.
    pub nonce: Nonce,
    /// The asker's own newest COMMIT that the sender holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<PhaseVote>,
    /// The asker's own newest VIEW_CHANGE that the sender holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Arc<ViewChange>>,
}

/// Payload of `APPROVE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approve {
    /// Epoch in which the consent counts.
    pub epoch: EpochNo,
    /// Change that is approved; its own approvals are left out.
    pub change: MembershipChange,
    /// Consent of the sender.
    pub approval: Approval,
}

/// Payload of `EVIDENCE`: two statements that one member signed and that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Equivocation {
    /// Two votes for different headers in one epoch, view and slot.
    Votes {
        /// Phase of both votes.
        phase: VotePhase,
        /// Vote that was seen first.
        first: PhaseVote,
        /// Vote that excludes it.
        second: PhaseVote,
    },
    /// A claim below a COMMIT of an earlier view in the same epoch.
    Claim {
        /// The COMMIT.
        commit: PhaseVote,
        /// The claim that hides it.
        change: Arc<ViewChange>,
    },
    /// Two beginnings of one view.
    NewViews {
        /// Beginning that was seen first.
        first: Arc<NewView>,
        /// Beginning that excludes it.
        second: Arc<NewView>,
    },
}

impl Equivocation {
    /// Member that signed both statements.
    #[must_use]
    pub fn member(&self) -> MemberId {
        match self {
            Self::Votes { first, .. } => first.sender_id,
            Self::Claim { commit, .. } => commit.sender_id,
            Self::NewViews { first, .. } => first.sender_id,
        }
    }

    /// Epoch of both statements, whose committee knows the member's key.
    #[must_use]
    pub fn epoch(&self) -> EpochNo {
        match self {
            Self::Votes { first, .. } => first.subject.epoch,
            Self::Claim { commit, .. } => commit.subject.epoch,
            Self::NewViews { first, .. } => first.epoch,
        }
    }

    /// True if `key` has signed both, and no honest member would have.
    #[must_use]
    pub fn is_valid(&self, group: &OrderId, key: &PublicKey) -> bool {
        match self {
            Self::Votes { phase, first, second } => {
                let place = |it: &PhaseVote| {
                    (it.sender_id, it.subject.epoch, it.subject.view, it.subject.slot)
                };
                place(first) == place(second)
                    && first.subject.digest != second.subject.digest
                    && first.is_valid(group, *phase, key)
                    && second.is_valid(group, *phase, key)
            }
            Self::Claim { commit, change } => {
                let ViewChange { epoch, view, signed, .. } = &**change;
                let VoteSubject { epoch: same, view: voted, slot, .. } = commit.subject;
                commit.sender_id == signed.sender_id
                    && *epoch == same
                    && voted < *view
                    && signed.claim.rank() < (true, voted, slot, ClaimKind::Prepare)
                    && commit.is_valid(group, VotePhase::Commit, key)
                    && signed.is_valid(group, (*epoch, *view), key)
            }
            Self::NewViews { first, second } => {
                let place = |it: &NewView| (it.sender_id, it.epoch, it.view);
                place(first) == place(second)
                    && first.signature != second.signature
                    && first.base() != second.base()
                    && first.is_signed(group, key)
                    && second.is_signed(group, key)
            }
        }
    }
}
