//! Members whose end the seeds certify, and the progress of their removal (T12).

use std::collections::BTreeSet;

use super::event::DeadParticipants;
use crate::model::{PublicKey, Time};
use crate::proto::rollout::NodeId;

/// Members whose end the seeds certify, and the progress of their removal.
#[derive(Debug, Default)]
pub(super) struct CertifiedDead {
    keys: BTreeSet<PublicKey>,
    /// Nodes that could be removed, and the time since which the set is the same.
    since: Option<(BTreeSet<NodeId>, Time)>,
    /// The obstacle to the removal, as last told.
    held: Option<DeadParticipants>,
}

impl CertifiedDead {
    /// Takes the keys of all members whose end the seeds certify.
    pub(super) fn set_keys(&mut self, keys: BTreeSet<PublicKey>) {
        self.keys = keys;
    }

    pub(super) fn has(&self, key: &PublicKey) -> bool {
        self.keys.contains(key)
    }

    /// Begins to wait, if there is something to wait for and it has not begun. Returns true if the
    /// timer is to be set.
    pub(super) fn begin(&mut self, dead: BTreeSet<NodeId>, now: Time) -> bool {
        let is_new = self.since.is_none();
        if is_new {
            self.since = Some((dead, now));
        }
        is_new
    }

    /// Waits for nothing. Returns true if the timer is to be stopped.
    pub(super) fn end(&mut self) -> bool {
        self.held = None;
        self.since.take().is_some()
    }

    /// Time since which these nodes could be removed; `None` if it does not wait.
    pub(super) fn since(&mut self, dead: &BTreeSet<NodeId>, now: Time) -> Option<Time> {
        let (of, since) = self.since.as_mut()?;
        if of != dead {
            (*of, *since) = (dead.clone(), now);
        }
        Some(*since)
    }

    /// Notes the obstacle to the removal. Returns it if it is to be told.
    pub(super) fn hold(&mut self, held: Option<DeadParticipants>) -> Option<DeadParticipants> {
        let news = held.clone().filter(|it| self.held.as_ref() != Some(it));
        self.held = held;
        news
    }

    /// The obstacle to the removal, as last told.
    pub(super) const fn held(&self) -> Option<&DeadParticipants> {
        self.held.as_ref()
    }
}
