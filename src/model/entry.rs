//! Knowledge of one life of a member: the proofs of its admission and of its end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::WallTime;
use super::statement::{Admission, Leave, MemberInstance, Removal};

/// Knowledge of one life of one endpoint, with the proofs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryEntry {
    /// The life that the entry is about.
    #[serde(flatten)]
    pub subject: MemberInstance,
    /// Certificate of the admission; absent where only the end became known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
    /// Certificate of the removal, shared by the lives that were removed together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Arc<Removal>>,
    /// The member's own goodbye.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave: Option<Leave>,
}

/// Status of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// The member is in.
    Alive,
    /// The member was removed.
    Removed,
    /// The member said goodbye.
    Left,
}

impl MemberState {
    /// The status as people see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Removed => "removed",
            Self::Left => "left",
        }
    }
}

impl RegistryEntry {
    /// Creates an entry that holds only the proof `admission`.
    pub const fn admitted(admission: Admission) -> Self {
        let subject = admission.subject();
        Self { subject, admission: Some(admission), removal: None, leave: None }
    }

    /// Creates an entry that holds only the proof `removal`, which must end this life.
    pub const fn removed(subject: MemberInstance, removal: Arc<Removal>) -> Self {
        Self { subject, admission: None, removal: Some(removal), leave: None }
    }

    /// Creates an entry that holds only the goodbye `leave`.
    pub const fn left(leave: Leave) -> Self {
        let subject = leave.subject();
        Self { subject, admission: None, removal: None, leave: Some(leave) }
    }

    /// Returns the entry without the proof of a removal, which is kept and sent once for
    /// all its lives.
    pub fn unremoved(&self) -> Self {
        Self { removal: None, ..self.clone() }
    }

    /// Status of the life.
    pub const fn status(&self) -> MemberState {
        if self.leave.is_some() {
            MemberState::Left
        } else if self.removal.is_some() {
            MemberState::Removed
        } else {
            MemberState::Alive
        }
    }

    /// Time since which the status holds, by the clocks of the deciding nodes.
    pub fn since(&self) -> WallTime {
        let admitted = self.admission.as_ref().map(Admission::at);
        let removed = self.removal.as_ref().map(|removal| removal.at());
        let left = self.leave.as_ref().map(|leave| leave.at);
        left.or(removed).or(admitted).unwrap_or_default()
    }
}
