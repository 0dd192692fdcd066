//! Changes of the committee (rules B19, B20, B26).

use serde::{Deserialize, Serialize};

use super::committee::{Committee, Life, Voter};
use super::number::{ContentDigest, EpochNo, OrderId, SlotNo};
use crate::model::{KeyPair, PublicKey, Signature, SigningBytes};
use crate::proto::chat::entry::{Member, MemberId};

/// A change of the committee; it stands alone in its slot, and the next epoch begins behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MembershipChange {
    /// A member begins a new life, because it has lost what it had signed (B20).
    Renew {
        /// Member that is renewed.
        member: MemberId,
        /// The new life: its counter is one above the present one's.
        life: Life,
        /// Signature of the member over group, member and life.
        signature: Signature,
    },
    /// A member is added, because the present members approve it.
    Add {
        /// The new member.
        member: Member,
        /// Approvals of a quorum of distinct members.
        approvals: Vec<Approval>,
    },
    /// A member is removed, because the present members approve it.
    Remove {
        /// Id of the member.
        member: MemberId,
        /// Approvals of a quorum of distinct members.
        approvals: Vec<Approval>,
    },
}

/// Consent of one member to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Member that approves.
    pub member: MemberId,
    /// Signature of the member over group, epoch and the digest of the change.
    pub signature: Signature,
}

/// Bytes that a member signs to begin a new life.
fn renewal_bytes(group: &OrderId, member: MemberId, life: Life) -> SigningBytes {
    SigningBytes::new("folkmoot/bft/renew/1")
        .bytes(&group.0)
        .number(member.0.into())
        .number(life.counter)
        .number(life.number)
}

fn approval_bytes(group: &OrderId, epoch: EpochNo, change: &ContentDigest) -> SigningBytes {
    SigningBytes::new("folkmoot/bft/approve/1").bytes(&group.0).number(epoch.0).bytes(&change.0)
}

impl Approval {
    /// Signs the consent of `member` to a change with this digest.
    #[must_use]
    pub fn sign(
        group: &OrderId,
        epoch: EpochNo,
        change: &ContentDigest,
        (member, keys): (MemberId, &KeyPair),
    ) -> Self {
        Self { member, signature: keys.sign(&approval_bytes(group, epoch, change)) }
    }

    /// True if `key` has consented to this change in this epoch.
    #[must_use]
    pub fn is_valid(
        &self,
        group: &OrderId,
        epoch: EpochNo,
        change: &ContentDigest,
        key: &PublicKey,
    ) -> bool {
        key.verifies(&approval_bytes(group, epoch, change), &self.signature)
    }
}

impl MembershipChange {
    /// Signs the wish of `member` to begin the life `life`.
    #[must_use]
    pub fn renew(group: &OrderId, member: MemberId, life: Life, keys: &KeyPair) -> Self {
        let signature = keys.sign(&renewal_bytes(group, member, life));
        Self::Renew { member, life, signature }
    }

    /// The change with these approvals and no others; `None` for a renewal, which needs none.
    #[must_use]
    pub fn with_approvals(self, approvals: Vec<Approval>) -> Option<Self> {
        match self {
            Self::Add { member, .. } => Some(Self::Add { member, approvals }),
            Self::Remove { member, .. } => Some(Self::Remove { member, approvals }),
            Self::Renew { .. } => None,
        }
    }

    /// Digest of the change without its signatures: what is approved, and what a header names.
    #[must_use]
    pub fn digest(&self, group: &OrderId) -> ContentDigest {
        let bytes = SigningBytes::new("folkmoot/bft/change/1").bytes(&group.0);
        let bytes = match self {
            Self::Renew { member, life, .. } => {
                bytes.text("renew").number(member.0.into()).number(life.counter).number(life.number)
            }
            Self::Add { member, .. } => bytes
                .text("add")
                .number(member.id.0.into())
                .text(&member.at.host.to_string())
                .number(member.at.port.into())
                .key(&member.key),
            Self::Remove { member, .. } => bytes.text("remove").number(member.0.into()),
        };
        ContentDigest(bytes.sha256())
    }

    /// Committee after this change in a slot of `epoch`; `None` if the change is not valid there
    /// (B26).
    #[must_use]
    pub fn apply(
        &self,
        group: &OrderId,
        (epoch, slot): (EpochNo, SlotNo),
        before: &Committee,
    ) -> Option<Committee> {
        let are_approved = |approvals: &[Approval]| {
            let digest = self.digest(group);
            let mut signers: Vec<_> = approvals.iter().map(|it| it.member).collect();
            signers.sort_unstable();
            signers.windows(2).all(|pair| pair[0] != pair[1])
                && signers.len() >= before.quorum()
                && approvals.iter().all(|it| {
                    let key = before.key(it.member);
                    key.is_some_and(|key| it.is_valid(group, epoch, &digest, key))
                })
        };
        match self {
            Self::Renew { member, life, signature } => {
                let voter = before.voter(*member)?;
                let is_next = voter.life.counter.checked_add(1) == Some(life.counter);
                let is_signed =
                    voter.member.key.verifies(&renewal_bytes(group, *member, *life), signature);
                let is_due = slot >= before.renewable_from(voter);
                (is_next && is_due && is_signed).then(|| before.renewed(*member, *life, slot))
            }
            Self::Add { member, approvals } => {
                // Old renewals of a member that comes back have lower counters, and say nothing.
                let life = Life { counter: slot.0, number: 0 };
                let member = member.clone();
                let voter = Voter { member, life, renewed: SlotNo(0) };
                let voters = before.voters().iter().cloned().chain([voter]).collect::<Vec<_>>();
                let after = Committee::try_from(voters).ok()?;
                are_approved(approvals).then_some(after)
            }
            Self::Remove { member, approvals } => {
                before.voter(*member)?;
                let is_other = |it: &&Voter| it.member.id != *member;
                let voters = before.voters().iter().filter(is_other).cloned().collect::<Vec<_>>();
                let after = Committee::try_from(voters).ok()?;
                are_approved(approvals).then_some(after)
            }
        }
    }
}
