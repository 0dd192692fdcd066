//! Duty of a member: to follow, to stand for election, or to lead.

use super::candidacy::Candidacy;
use super::reign::Reign;
use crate::proto::chat::entry::{MemberId, SeqNo, Term};

/// The fetch of a donor's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Adopting {
    /// Member whose log is fetched.
    pub(super) donor: MemberId,
    /// Last entry of that log.
    pub(super) target: (Term, SeqNo),
}

/// Present duty of a member.
#[derive(Debug)]
pub(super) enum Duty {
    /// The member follows, or waits.
    Follow,
    /// The member asks for promises.
    Stand(Candidacy),
    /// The member has its promises, and fetches the best log (R3).
    Adopt(Candidacy, Adopting),
    /// The member leads the group.
    Lead(Reign),
}

impl Duty {
    pub(super) const fn follows(&self) -> bool {
        matches!(self, Self::Follow)
    }

    pub(super) const fn leads(&self) -> bool {
        matches!(self, Self::Lead(_))
    }

    /// State of a leader, if the member leads.
    pub(super) const fn reign(&self) -> Option<&Reign> {
        match self {
            Self::Lead(reign) => Some(reign),
            Self::Follow | Self::Stand(_) | Self::Adopt(..) => None,
        }
    }

    pub(super) const fn reign_mut(&mut self) -> Option<&mut Reign> {
        match self {
            Self::Lead(reign) => Some(reign),
            Self::Follow | Self::Stand(_) | Self::Adopt(..) => None,
        }
    }

    /// State of a candidate, if the member stands or adopts a log.
    pub(super) const fn candidacy(&self) -> Option<&Candidacy> {
        match self {
            Self::Stand(it) | Self::Adopt(it, _) => Some(it),
            Self::Follow | Self::Lead(_) => None,
        }
    }

    pub(super) const fn candidacy_mut(&mut self) -> Option<&mut Candidacy> {
        match self {
            Self::Stand(it) | Self::Adopt(it, _) => Some(it),
            Self::Follow | Self::Lead(_) => None,
        }
    }

    /// Fetches a log, if the member stands.
    pub(super) fn adopt(&mut self, adopting: Adopting) {
        *self = match std::mem::replace(self, Self::Follow) {
            Self::Stand(it) => Self::Adopt(it, adopting),
            other @ (Self::Follow | Self::Adopt(..) | Self::Lead(_)) => other,
        };
    }

    /// Stands again, if the member was fetching a log. Returns the fetch that is over.
    pub(super) fn stand_again(&mut self) -> Option<Adopting> {
        match std::mem::replace(self, Self::Follow) {
            Self::Adopt(it, adopting) => {
                *self = Self::Stand(it);
                Some(adopting)
            }
            other @ (Self::Follow | Self::Stand(_) | Self::Lead(_)) => {
                *self = other;
                None
            }
        }
    }
}
