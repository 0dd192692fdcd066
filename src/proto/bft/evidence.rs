//! Evidence that a member lied: two statements of one member that exclude each other (rule B24).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::committee::VOTERS_MAX;
use super::number::{EpochNo, OrderId};
use super::view::{NewView, ViewChange};
use super::vote::{ClaimKind, PhaseVote, VotePhase, VoteSubject};
use crate::model::PublicKey;
use crate::proto::chat::entry::MemberId;

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
        /// The COMMIT of the earlier view.
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
                let ViewChange { epoch, view, signed, certificate } = &**change;
                let VoteSubject { epoch: same, view: voted, slot, .. } = commit.subject;
                let signatures = certificate.as_ref().map_or(0, |it| it.signatures.len());
                commit.sender_id == signed.sender_id
                    && *epoch == same
                    && voted < *view
                    && signatures <= VOTERS_MAX
                    && signed.claim.rank() < (true, voted, slot, ClaimKind::Prepare)
                    // A final slot hides nothing of what lies at it or below, whatever its view.
                    && (signed.claim.phase != ClaimKind::Commit || signed.claim.slot < slot)
                    && commit.is_valid(group, VotePhase::Commit, key)
                    && signed.is_valid(group, (*epoch, *view), key)
            }
            Self::NewViews { first, second } => {
                let place = |it: &NewView| (it.sender_id, it.epoch, it.view);
                place(first) == place(second)
                    && first.is_bounded()
                    && second.is_bounded()
                    && first.signature != second.signature
                    && first.base() != second.base()
                    && first.is_signed(group, key)
                    && second.is_signed(group, key)
            }
        }
    }
}
