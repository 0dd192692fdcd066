//! Statements by which members leave a view and begin the next (rules B11, B12, B16).

use serde::{Deserialize, Serialize};

use super::committee::VOTERS_MAX;
use super::number::{ContentDigest, EpochNo, OrderId, SlotNo, ViewNo};
use super::vote::{Certificate, Claim, ClaimKind};
use crate::model::{KeyPair, PublicKey, Signature, SigningBytes};
use crate::proto::chat::entry::MemberId;

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

    /// True if the beginning is no longer than one of an honest leader can be. A longer one could
    /// not be passed on as evidence.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let signatures = self.certificate.as_ref().map_or(0, |it| it.signatures.len());
        self.changes.len() <= VOTERS_MAX && signatures <= VOTERS_MAX
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
