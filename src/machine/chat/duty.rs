//! Duty of a member: to follow, to stand for election, or to lead.

use super::candidacy::CandidateState;
use super::reign::LeaderState;
use crate::proto::chat::entry::{MemberId, SeqNo, Term};

/// Recovery of the log that a new leader adopts, from the member that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogRecovery {
    /// Member whose log is fetched.
    pub(super) source: MemberId,
    /// Last entry of that log.
    pub(super) target: (Term, SeqNo),
}

/// Role of a member with its state.
#[derive(Debug)]
pub(super) enum RoleState {
    /// The member follows, or waits.
    Follow,
    /// The member asks for promises.
    Stand(CandidateState),
    /// The member has its promises, and fetches the best log (R3).
    Adopt(CandidateState, LogRecovery),
    /// The member leads the group.
    Lead(LeaderState),
}

impl RoleState {
    pub(super) const fn follows(&self) -> bool {
        matches!(self, Self::Follow)
    }

    pub(super) const fn leads(&self) -> bool {
        matches!(self, Self::Lead(_))
    }

    /// State of a leader, if the member leads.
    pub(super) const fn leading(&self) -> Option<&LeaderState> {
        match self {
            Self::Lead(leading) => Some(leading),
            Self::Follow | Self::Stand(_) | Self::Adopt(..) => None,
        }
    }

    pub(super) const fn leading_mut(&mut self) -> Option<&mut LeaderState> {
        match self {
            Self::Lead(leading) => Some(leading),
            Self::Follow | Self::Stand(_) | Self::Adopt(..) => None,
        }
    }

    /// State of a candidate, if the member stands or adopts a log.
    pub(super) const fn candidacy(&self) -> Option<&CandidateState> {
        match self {
            Self::Stand(it) | Self::Adopt(it, _) => Some(it),
            Self::Follow | Self::Lead(_) => None,
        }
    }

    pub(super) const fn candidacy_mut(&mut self) -> Option<&mut CandidateState> {
        match self {
            Self::Stand(it) | Self::Adopt(it, _) => Some(it),
            Self::Follow | Self::Lead(_) => None,
        }
    }

    /// Fetches a log, if the member stands.
    pub(super) fn adopt(&mut self, recovery: LogRecovery) {
        *self = match std::mem::replace(self, Self::Follow) {
            Self::Stand(it) => Self::Adopt(it, recovery),
            other @ (Self::Follow | Self::Adopt(..) | Self::Lead(_)) => other,
        };
    }

    /// Stands again, if the member was fetching a log. Returns the fetch that is over.
    pub(super) fn stand_again(&mut self) -> Option<LogRecovery> {
        match std::mem::replace(self, Self::Follow) {
            Self::Adopt(it, recovery) => {
                *self = Self::Stand(it);
                Some(recovery)
            }
            other @ (Self::Follow | Self::Stand(_) | Self::Lead(_)) => {
                *self = other;
                None
            }
        }
    }
}
