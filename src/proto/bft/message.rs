//! Messages between the members of a group with Byzantine order.
//!
//! Everything is taken only over the proved link of its sender; what is signed may be passed on.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bundle::Bundle;
use super::change::MembershipChange;
use super::evidence::Equivocation;
use super::handshake::{OrderAck, OrderChallenge, OrderJoin, OrderProof, OrderRefused};
use super::header::SlotHeader;
use super::number::{ContentDigest, EpochNo, SlotNo, ViewNo};
use super::view::{NewView, Suspect, ViewChange};
use super::vote::{Certificate, PhaseVote};
use super::{Approval, VoteSubject};
use crate::model::{Nonce, Signature};
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
    /// A request for headers of slots that are not final, by the digest of the last.
    ChainReq(ChainReq),
    /// Headers of slots that are not final.
    ChainResp(ChainResp),
    /// A request for bundles; answered by `BUNDLE`.
    BundleReq(BundleReq),

    /// A request for what the asker itself has signed (B20).
    RecallReq(BftRecallReq),
    /// The newest statements of the asker that the sender holds.
    RecallResp(BftRecallResp),
    /// Consent to a change of the committee.
    Approve(Approve),
    /// Two statements of one member that exclude each other (B24).
    Evidence(Arc<Equivocation>),
}

/// Payload of `PRE_PREPARE`. Its signature is the leader's PREPARE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrePrepare {
    /// Leader that proposes.
    pub sender_id: MemberId,
    /// View of the proposal.
    pub view: ViewNo,
    /// Header that is proposed.
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
    /// True if the sender may have forgotten what it signed, and votes for nothing (B20).
    #[serde(default, skip_serializing_if = "is_false")]
    pub silent: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(it: &bool) -> bool {
    !*it
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
    /// Headers of the slots between the last of them and the certificate's, this one included: a
    /// slot may be final only by a later one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<SlotHeader>,
    /// Certificate of COMMITs of the last slot or header.
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
    /// Headers without a gap, the last with the digest that was asked for; the first ones are left
    /// out if there is no room.
    pub headers: Vec<SlotHeader>,
}

/// Payload of `BUNDLE_REQ`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleReq {
    /// Digests of the bundles or of the change; at most [`DIGESTS_MAX`].
    pub digests: Vec<ContentDigest>,
}

/// Payload of `RECALL_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BftRecallReq {
    /// Random number by which the answer is known.
    pub nonce: Nonce,
}

/// Payload of `RECALL_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BftRecallResp {
    /// Random number of the request.
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
