//! Votes, certificates and claims (rules B1, B2, B11).

use serde::{Deserialize, Serialize};

use super::committee::Committee;
use super::number::{ContentDigest, EpochNo, OrderId, SlotNo, ViewNo};
use crate::model::{KeyPair, PublicKey, Signature, SigningBytes};
use crate::proto::chat::entry::MemberId;

/// Phase of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VotePhase {
    /// The voter has accepted the header, and votes for no other in this view and slot.
    Prepare,
    /// The voter has a quorum's PREPAREs and the content on its disk.
    Commit,
}

impl VotePhase {
    const fn domain(self) -> &'static str {
        match self {
            Self::Prepare => "folkmoot/bft/prepare/1",
            Self::Commit => "folkmoot/bft/commit/1",
        }
    }
}

/// The subject of a vote: one header in one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VoteSubject {
    /// Epoch of the slot.
    pub epoch: EpochNo,
    /// View in which it is voted on.
    pub view: ViewNo,
    /// Slot of the header.
    pub slot: SlotNo,
    /// Digest of the header.
    pub digest: ContentDigest,
}

impl VoteSubject {
    /// Bytes that a member signs.
    #[must_use]
    pub fn signing_bytes(&self, group: &OrderId, phase: VotePhase) -> SigningBytes {
        SigningBytes::new(phase.domain())
            .bytes(&group.0)
            .number(self.epoch.0)
            .number(self.view.0)
            .number(self.slot.0)
            .bytes(&self.digest.0)
    }
}

/// Payload of `PREPARE` and `COMMIT`: one member's signed vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseVote {
    /// Member that votes.
    pub sender_id: MemberId,
    /// Header that it votes for.
    #[serde(flatten)]
    pub subject: VoteSubject,
    /// Signature of the member over the phase, the group and the subject.
    pub signature: Signature,
}

impl PhaseVote {
    /// Signs a vote.
    #[must_use]
    pub fn sign(
        group: &OrderId,
        phase: VotePhase,
        subject: VoteSubject,
        (sender_id, keys): (MemberId, &KeyPair),
    ) -> Self {
        Self { sender_id, subject, signature: keys.sign(&subject.signing_bytes(group, phase)) }
    }

    /// True if `key` has given this vote in this phase.
    #[must_use]
    pub fn is_valid(&self, group: &OrderId, phase: VotePhase, key: &PublicKey) -> bool {
        key.verifies(&self.subject.signing_bytes(group, phase), &self.signature)
    }
}

/// Signatures of a quorum of distinct members on one subject: *prepared* if of PREPAREs, *final*
/// if of COMMITs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Phase of the votes.
    pub phase: VotePhase,
    /// Header that they are for.
    #[serde(flatten)]
    pub subject: VoteSubject,
    /// The signatures, ascending by member.
    pub signatures: Vec<(MemberId, Signature)>,
}

impl Certificate {
    /// True if a quorum of distinct members of `committee` has signed, and nobody else.
    #[must_use]
    pub fn is_valid(&self, group: &OrderId, committee: &Committee) -> bool {
        let bytes = self.subject.signing_bytes(group, self.phase);
        self.signatures.len() >= committee.quorum()
            && self.signatures.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && self.signatures.iter().all(|(id, signature)| {
                committee.key(*id).is_some_and(|key| key.verifies(&bytes, signature))
            })
    }
}

/// Kind of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimKind {
    /// The beginning of the epoch, which needs no certificate.
    Start,
    /// A certificate of PREPAREs.
    Prepare,
    /// A certificate of COMMITs.
    Commit,
}

impl From<VotePhase> for ClaimKind {
    fn from(phase: VotePhase) -> Self {
        match phase {
            VotePhase::Prepare => Self::Prepare,
            VotePhase::Commit => Self::Commit,
        }
    }
}

/// The highest certificate whose content a member has on its disk (B11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Kind of the certificate.
    pub phase: ClaimKind,
    /// View of the certificate; 0 at an epoch's beginning.
    pub view: ViewNo,
    /// Slot of the certificate; at an epoch's beginning the last slot before it.
    pub slot: SlotNo,
    /// Digest of that slot's header.
    pub digest: ContentDigest,
}

impl Claim {
    /// The claim that a certificate proves.
    #[must_use]
    pub fn of(certificate: &Certificate) -> Self {
        let VoteSubject { view, slot, digest, .. } = certificate.subject;
        Self { phase: certificate.phase.into(), view, slot, digest }
    }

    /// Rank of the claim: by its view, then its slot; an epoch's beginning is below all (B11).
    #[must_use]
    pub fn rank(&self) -> (bool, ViewNo, SlotNo, ClaimKind) {
        (self.phase != ClaimKind::Start, self.view, self.slot, self.phase)
    }

    /// Appends the claim to a statement.
    #[must_use]
    pub fn add_to(&self, bytes: SigningBytes) -> SigningBytes {
        bytes
            .number(self.phase as u64)
            .number(self.view.0)
            .number(self.slot.0)
            .bytes(&self.digest.0)
    }
}
