//! Proposals of others on their way through a node: one that came early, one whose version is
//! probed, and the doubt about one that it voted COMMIT on (T4).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::Time;
use crate::proto::rollout::{ModelId, NodeId, TxId, TxProposal};

/// A transaction that this node voted COMMIT on and does not know the end of.
#[derive(Debug)]
pub(super) struct InDoubtTx {
    txid: TxId,
    since: Time,
    pause: Duration,
    /// Participants that wait as well.
    uncertain: BTreeSet<NodeId>,
}

impl InDoubtTx {
    pub(super) const fn txid(&self) -> &TxId {
        &self.txid
    }

    pub(super) const fn since(&self) -> Time {
        self.since
    }

    /// True if a participant waits as well.
    pub(super) fn is_uncertain(&self, node: &NodeId) -> bool {
        self.uncertain.contains(node)
    }

    /// The pause before the next question, twice the last one.
    pub(super) fn next_pause(&mut self, max: Duration) -> Duration {
        self.pause = (self.pause * 2).min(max);
        self.pause
    }
}

/// Proposals that this node is asked to vote on, or has voted on.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// A proposal that waits until this node has caught up, with its coordinator.
    early: Option<(NodeId, TxProposal)>,
    /// A proposal whose new version is being probed, with its coordinator.
    probing: Option<(NodeId, TxProposal)>,
    in_doubt: Option<InDoubtTx>,
}

impl Proposals {
    /// Keeps a proposal until this node has caught up.
    pub(super) fn put_early(&mut self, from: NodeId, proposal: TxProposal) {
        self.early = Some((from, proposal));
    }

    /// Takes the proposal that came early, if it is of this version or an earlier one.
    pub(super) fn take_early(&mut self, version: u64) -> Option<(NodeId, TxProposal)> {
        self.early.take_if(|it| it.1.state.version <= version)
    }

    /// Forgets a proposal that came early.
    pub(super) fn drop_early(&mut self, txid: &TxId) {
        self.early.take_if(|it| it.1.txid == *txid);
    }

    /// Keeps a proposal until its version has answered. Returns true if that is to be asked now.
    pub(super) fn probe(&mut self, from: NodeId, proposal: TxProposal) -> bool {
        let is_asked = self.probing.as_ref().is_some_and(|it| it.1 == proposal);
        self.probing = Some((from, proposal));
        !is_asked
    }

    /// Takes the proposal whose version was probed.
    pub(super) fn take_probed(&mut self, model: &ModelId) -> Option<(NodeId, TxProposal)> {
        self.probing.take_if(|it| it.1.state.canary_model_id == *model)
    }

    /// Forgets a proposal whose version is being probed.
    pub(super) fn drop_probed(&mut self, txid: &TxId) {
        self.probing.take_if(|it| it.1.txid == *txid);
    }

    pub(super) const fn in_doubt(&self) -> Option<&InDoubtTx> {
        self.in_doubt.as_ref()
    }

    pub(super) const fn doubt_mut(&mut self) -> Option<&mut InDoubtTx> {
        self.in_doubt.as_mut()
    }

    /// Begins to be in doubt; the first question but one comes after twice `pause`.
    pub(super) fn begin_doubt(&mut self, txid: TxId, since: Time, pause: Duration) {
        self.in_doubt = Some(InDoubtTx { txid, since, pause, uncertain: BTreeSet::new() });
    }

    /// Ends the doubt. Returns false if there is none.
    pub(super) fn end_doubt(&mut self) -> bool {
        self.in_doubt.take().is_some()
    }

    /// Notes that a participant waits as well.
    pub(super) fn on_uncertain(&mut self, from: &NodeId) {
        if let Some(in_doubt) = &mut self.in_doubt {
            in_doubt.uncertain.insert(from.clone());
        }
    }
}
