//! Transactions that a node coordinates: the one that is running, and the acknowledgements of the
//! last committed one (T3, T6).
//!
//! Invariants: one is running at a time; once its decision is begun, it is not aborted by this
//! node's own will anymore; votes count once per voter.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::event::CommandId;
use crate::proto::rollout::{Committed, Digest, NodeId, TxId, TxProposal, TxVote};

/// A transaction that this node coordinates.
#[derive(Debug)]
pub(super) struct CoordinatedTx {
    proposal: Arc<TxProposal>,
    digest: Digest,
    voters: Vec<NodeId>,
    votes: Vec<TxVote>,
    /// The command that waits for the result, if any.
    ticket: Option<CommandId>,
    /// All votes are there and the log's decision is to come: this node may not abort anymore.
    is_deciding: bool,
    /// True if this node's server of the new version has yet to answer.
    lacks_answer: bool,
    /// The entry that was proposed to the log of decisions.
    proof: Option<Box<Committed>>,
}

impl CoordinatedTx {
    pub(super) fn new(
        proposal: Arc<TxProposal>,
        voters: Vec<NodeId>,
        ticket: Option<CommandId>,
        lacks_answer: bool,
    ) -> Self {
        Self {
            digest: proposal.digest(),
            proposal,
            voters,
            votes: Vec::new(),
            ticket,
            is_deciding: false,
            lacks_answer,
            proof: None,
        }
    }

    pub(super) const fn proposal(&self) -> &Arc<TxProposal> {
        &self.proposal
    }

    pub(super) fn txid(&self) -> &TxId {
        &self.proposal.txid
    }

    /// Digest of the proposal, which the votes sign.
    pub(super) const fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(super) fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// The command that waits for the result, if any.
    pub(super) const fn ticket(&self) -> Option<CommandId> {
        self.ticket
    }

    /// True if a transaction that no operator ordered is tried.
    pub(super) fn is_by_itself(&self) -> bool {
        self.ticket.is_none() && self.proposal.is_by_itself()
    }

    fn has_vote_of(&self, node: &NodeId) -> bool {
        self.votes.iter().any(|it| it.node_id == *node)
    }

    /// True if the vote of that node is missing.
    pub(super) fn wants(&self, node: &NodeId) -> bool {
        self.voters.contains(node) && !self.has_vote_of(node)
    }

    /// True if a vote of that node is waited for, or was: the decision is not begun.
    pub(super) fn takes_vote_of(&self, node: &NodeId) -> bool {
        !self.is_deciding && self.voters.contains(node)
    }

    /// Voters without a vote so far, other than the coordinator.
    pub(super) fn missing(&self) -> Vec<NodeId> {
        let me = &self.proposal.txid.node;
        self.voters.iter().filter(|it| *it != me && self.wants(it)).cloned().collect()
    }

    /// Counts a COMMIT that holds: once a voter, or each message, where that rule is left out.
    pub(super) fn count(&mut self, vote: TxVote, counts_messages: bool) {
        if counts_messages || !self.has_vote_of(&vote.node_id) {
            self.votes.push(vote);
        }
    }

    pub(super) const fn lacks_answer(&self) -> bool {
        self.lacks_answer
    }

    /// Notes that this node's server of the new version has answered.
    pub(super) const fn on_answer(&mut self) {
        self.lacks_answer = false;
    }

    pub(super) const fn is_deciding(&self) -> bool {
        self.is_deciding
    }

    /// Begins the decision if nothing is missing but the coordinator's own vote. Returns the votes
    /// of the others.
    pub(super) fn decide(&mut self, counts_messages: bool) -> Option<Vec<TxVote>> {
        let is_complete = match counts_messages {
            true => self.votes.len() + 1 >= self.voters.len(),
            // T3: each voter itself.
            false => self.missing().is_empty(),
        };
        if self.is_deciding || self.lacks_answer || !is_complete {
            return None;
        }
        self.is_deciding = true;
        Some(self.votes.clone())
    }

    /// Keeps the entry that is proposed to the log of decisions.
    pub(super) fn keep_proof(&mut self, proof: Box<Committed>) {
        self.proof = Some(proof);
    }
}

/// All transactions of a node's own.
#[derive(Debug, Default)]
pub(super) struct Coordinator {
    counter: u64,
    running: Option<CoordinatedTx>,
    /// This node's last committed transaction, with the participants that have not acknowledged it.
    unacked: Option<(TxId, BTreeSet<NodeId>)>,
}

impl Coordinator {
    /// Number of the last transaction that was begun in this life.
    pub(super) const fn counter(&self) -> u64 {
        self.counter
    }

    /// Number of the next transaction.
    pub(super) const fn next_counter(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) const fn running(&self) -> Option<&CoordinatedTx> {
        self.running.as_ref()
    }

    pub(super) const fn running_mut(&mut self) -> Option<&mut CoordinatedTx> {
        self.running.as_mut()
    }

    /// True if that transaction is running.
    pub(super) fn runs(&self, txid: &TxId) -> bool {
        self.running.as_ref().is_some_and(|it| it.txid() == txid)
    }

    pub(super) fn begin(&mut self, running: CoordinatedTx) {
        self.running = Some(running);
    }

    /// Ends the running transaction, which is decided.
    pub(super) const fn take(&mut self) -> Option<CoordinatedTx> {
        self.running.take()
    }

    /// Ends the running transaction, unless its decision is begun.
    pub(super) fn take_undecided(&mut self) -> Option<CoordinatedTx> {
        self.running.take_if(|it| !it.is_deciding)
    }

    /// The entry that was proposed to the log for the running transaction, if there is one.
    pub(super) fn proof(&self) -> Option<Box<Committed>> {
        self.running.as_ref()?.proof.clone()
    }

    /// Waits for the acknowledgements of a committed transaction.
    pub(super) fn await_acks(&mut self, txid: TxId, nodes: BTreeSet<NodeId>) {
        self.unacked = Some((txid, nodes));
    }

    /// Takes an acknowledgement. Returns true if it is the last that was missing.
    pub(super) fn on_ack(&mut self, from: &NodeId, txid: &TxId) -> bool {
        let Some((_, nodes)) = self.unacked.as_mut().filter(|it| it.0 == *txid) else {
            return false;
        };
        nodes.remove(from);
        self.unacked.take_if(|it| it.1.is_empty()).is_some()
    }
}
