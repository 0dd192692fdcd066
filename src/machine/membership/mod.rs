//! Membership: the members of the fleet, and the decisions that admit and remove them.
//!
//! Invariants:
//! - Only a certificate ([`crate::model::statement`]) — signed yes votes of a quorum of distinct
//!   configured seeds — admits or removes (M3); the one exception is a LEAVE signed by the leaver
//!   itself (M7).
//! - The [`registry`] is a join-semilattice: merging is idempotent and order-free, and nothing that
//!   ended ever comes back under the same incarnation (M4).
//!
//! `authority` decides at seeds, `applicant` asks at peers; both agree on the other modules.

pub mod applicant;
pub mod authority;
pub mod registry;
pub mod seedbook;
