//! The present of a node: the state, the roster and the rollout that its committed transactions
//! have made.
//!
//! Invariant: the digests are those of the state and of the roster.

use std::collections::BTreeMap;

use super::config::Config;
use super::memory::{AbsentNode, RolloutMemory};
use super::progress::RolloutProgress;
use crate::model::Time;
use crate::proto::rollout::{Digest, NodeId, Roster, RoutingState, TxKind, TxProposal};

/// State, roster and rollout in force.
#[derive(Debug)]
pub(super) struct Present {
    /// The state that is served.
    state: RoutingState,
    digest: Digest,
    roster: Roster,
    roster_digest: Digest,
    /// Nodes that were called gone and no longer take part.
    gone: BTreeMap<NodeId, AbsentNode>,
    progress: Option<RolloutProgress>,
    /// Time of the last commit, or of this node's start.
    since: Time,
    /// Version of the last resume.
    resumed_at: u64,
    /// True if this node knows the state of its fleet and has served it.
    is_serving: bool,
}

impl Present {
    pub(super) fn restore(memory: &RolloutMemory, config: &Config) -> Self {
        let (state, roster, progress) = memory.present(config);
        Self {
            digest: state.digest(),
            roster_digest: roster.digest(),
            gone: memory.gone(&config.roster),
            resumed_at: memory.last_resume(),
            state,
            roster,
            progress,
            since: Time::ZERO,
            is_serving: false,
        }
    }

    pub(super) const fn state(&self) -> &RoutingState {
        &self.state
    }

    pub(super) const fn version(&self) -> u64 {
        self.state.version
    }

    /// Digest of the state.
    pub(super) const fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) const fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(super) const fn roster_digest(&self) -> Digest {
        self.roster_digest
    }

    /// Nodes that were called gone and no longer take part.
    pub(super) const fn gone(&self) -> &BTreeMap<NodeId, AbsentNode> {
        &self.gone
    }

    /// Progress of the last rollout that was begun.
    pub(super) const fn progress(&self) -> Option<&RolloutProgress> {
        self.progress.as_ref()
    }

    /// Time of the last commit, or of this node's start.
    pub(super) const fn since(&self) -> Time {
        self.since
    }

    /// Version of the last resume.
    pub(super) const fn resumed_at(&self) -> u64 {
        self.resumed_at
    }

    /// Notes the time of this node's start.
    pub(super) const fn start(&mut self, now: Time) {
        self.since = now;
    }

    pub(super) const fn is_serving(&self) -> bool {
        self.is_serving
    }

    /// Serves from now on.
    pub(super) const fn serve(&mut self) {
        self.is_serving = true;
    }

    /// True if a proposal is about the version after this one, and on top of this state (T1).
    pub(super) fn is_before(&self, proposal: &TxProposal) -> bool {
        proposal.state.version == self.state.next_version() && proposal.base == self.digest
    }

    /// Makes a committed transaction the present one, but for its roster. Returns true if requests
    /// are shared otherwise than before.
    pub(super) fn switch_to(&mut self, proposal: &TxProposal, now: Time) -> bool {
        // A rollout may begin with a share of nothing.
        let is_begun = proposal.plan.is_some();
        let is_shared_anew = is_begun || proposal.state.weights != self.state.weights;
        self.state = proposal.state.clone();
        self.digest = self.state.digest();
        self.progress = RolloutProgress::after(self.progress.take(), proposal);
        self.since = now;
        if proposal.txid.kind == TxKind::Resume {
            self.resumed_at = self.state.version;
        }
        is_shared_anew
    }

    pub(super) fn set_gone(&mut self, gone: BTreeMap<NodeId, AbsentNode>) {
        self.gone = gone;
    }

    pub(super) fn set_roster(&mut self, roster: Roster) {
        self.roster_digest = roster.digest();
        self.roster = roster;
    }

    /// True if a node takes part, or was called gone: others do not know that.
    pub(super) fn knows(&self, node: &NodeId) -> bool {
        self.roster.has(node) || self.gone.contains_key(node)
    }
}
