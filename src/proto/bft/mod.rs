//! The dialect of a group with Byzantine order: its messages, and all that is signed in it.
//!
//! Everything here is checked by content: a statement names the group, the epoch, the view and the
//! slot that it is about, so that it says nothing elsewhere. `docs/PROTOCOL.md`, "Byzantine order",
//! states rules B1–B27.

pub mod bundle;
pub mod change;
pub mod committee;
pub mod evidence;
pub mod founding;
pub mod handshake;
pub mod header;
pub mod line;
pub mod merkle;
pub mod message;
pub mod number;
pub mod proof;
pub mod roster;
pub mod verifier;
pub mod view;
pub mod vote;

pub use bundle::{Bundle, BundleItem};
pub use change::{Approval, MembershipChange};
pub use committee::{Committee, Life, Voter};
pub use evidence::Equivocation;
pub use founding::{FoundingNote, SignedRoster};
pub use header::{BundleRef, SlotHeader};
pub use number::{ContentDigest, EpochNo, OrderId, SlotNo, ViewNo};
pub use proof::{ChangeProof, PlaceProof, ProofError, ProvenMessage};
pub use verifier::{OrderConflict, OrderFault, OrderVerifier};
pub use vote::{Certificate, Claim, ClaimKind, PhaseVote, VotePhase, VoteSubject};

#[cfg(test)]
mod tests;
