//! Going on without nodes that are gone, by an operator's word or the seeds' (T12).
//!
//! A step needs the votes of all participants, and so does a change of the roster, but for this
//! one: the others remove the gone, all of them and no other node. The removal is a transaction
//! like all, so a node that voted for it votes for nothing else of that version, and afterwards
//! everything needs the votes of the new roster. The gone need the votes of the old one, and never
//! get those of the others again.
//!
//! A coordinator that is gone may have decided a transaction that all others voted COMMIT on: its
//! vote is the decision. They cannot know; but it can have committed nothing else, and none of them
//! serves it yet. So they commit it, together with the removal. A node that has not voted on it
//! refuses it instead.
//!
//! Invariants: no node votes to call gone a node that it reaches; a node that voted to settle a
//! transaction hears no ABORT of it before the removal came to nothing; nodes that were called gone
//! are called, so that they learn of it, and so that two halves of a fleet that called each other
//! gone find out.

use std::collections::BTreeSet;

use super::config::DecisionAuthority;
use super::coordinator::TxRequest;
use super::event::{Event, Record};
use super::machine::{Effect, RolloutMachine};
use super::memory::AbsentNode;
use super::progress::CommandRefusal;
use crate::proto::rollout::{
    AbortCause, Choice, Committed, GoneNodes, NodeId, RemovalAuthority, Resolution, Roster,
    RoutingStatus, TxKind, TxProof, TxProposal,
};

impl RolloutMachine {
    /// True if this node takes part: its name may be another machine's by now.
    pub(super) fn is_member(&self) -> bool {
        self.present.roster().get(&self.config.me).is_some_and(|it| it.key == self.keys.public())
    }

    /// The removal of this node, while it is in force.
    pub(super) fn removed(&self) -> Option<&AbsentNode> {
        self.present
            .gone()
            .get(&self.config.me)
            .filter(|it| it.participant.key == self.keys.public())
    }

    /// Proposes to go on without `nodes`.
    pub(super) fn order_gone(
        &mut self,
        nodes: BTreeSet<NodeId>,
        by: RemovalAuthority,
        request: TxRequest,
    ) -> Result<(), CommandRefusal> {
        if nodes.contains(&self.config.me) {
            return Err(CommandRefusal::new(
                AbortCause::Malformed,
                "the node that is asked is not gone",
            ));
        }
        if let Some(unknown) = nodes.iter().find(|it| !self.present.roster().has(it)) {
            return Err(CommandRefusal::new(
                AbortCause::Nothing,
                format!("{unknown} does not take part"),
            ));
        }
        self.judge_word(&nodes, by)?;
        let rest = self.present.roster().nodes().filter(|it| !nodes.contains(&it.node_id)).cloned();
        let new_roster = Roster::new(rest.collect());
        let new_roster = new_roster.map_err(|it| CommandRefusal::new(AbortCause::Malformed, it))?;
        if self.config.breaks().gone_forgets
            && let Some(prepared) = self.memory.prepared().cloned()
        {
            let own =
                crate::proto::rollout::TxVote::abort(&self.keys, &self.config.me, &prepared.txid);
            self.end_prepared(AbortCause::Resolved, "forgotten", TxProof::of(vec![own]));
        }
        let settles = self.to_be_settled(&nodes)?;
        let gone = Some(GoneNodes { nodes, by, settles });
        self.begin(TxKind::Roster, TxRequest { new_roster: Some(new_roster), gone, ..request })
    }

    /// Refuses if this node reaches one of the nodes, or the seeds have not told it that they are
    /// dead.
    fn judge_word(
        &self,
        nodes: &BTreeSet<NodeId>,
        by: RemovalAuthority,
    ) -> Result<(), CommandRefusal> {
        self.refuse_reached(nodes)?;
        if by == RemovalAuthority::Seeds { self.judge_dead(nodes) } else { Ok(()) }
    }

    fn refuse_reached(&self, nodes: &BTreeSet<NodeId>) -> Result<(), CommandRefusal> {
        let reached = nodes.iter().find(|it| self.peers.reaches(it));
        let me = &self.config.me;
        let reason = |it: &NodeId| format!("{it} is not gone, {me} reaches it");
        reached.map_or(Ok(()), |it| Err(CommandRefusal::new(AbortCause::Reached, reason(it))))
    }

    /// The transaction that this node is in doubt about, if its coordinator is gone: with the proof
    /// by this removal's word that commits it.
    fn to_be_settled(
        &self,
        nodes: &BTreeSet<NodeId>,
    ) -> Result<Option<Box<Committed>>, CommandRefusal> {
        let of_gone = self.memory.prepared().filter(|it| nodes.contains(&it.txid.node));
        let Some(prepared) =
            of_gone.filter(|_| self.config.decides == DecisionAuthority::Coordinator)
        else {
            return Ok(None);
        };
        if prepared.new_roster.is_some() {
            let running = Some(prepared.txid.clone());
            let reason = "what all are in doubt about changes who takes part";
            return Err(CommandRefusal {
                running,
                ..CommandRefusal::new(AbortCause::InDoubt, reason)
            });
        }
        let (me, at) = (&self.config.me, self.now.wall);
        let word = Resolution::new(&self.keys, me, &prepared.txid, Choice::Commit, at);
        let proof = TxProof { votes: Vec::new(), resolution: Some(word) };
        let mut proposal = prepared.clone();
        proposal.state.status = RoutingStatus::Committed;
        Ok(Some(Box::new(Committed { proposal, proof })))
    }

    /// Refuses a removal that this node does not vote for, with the reason.
    pub(super) fn judge_gone(&self, proposal: &TxProposal) -> Result<(), CommandRefusal> {
        let Some(gone) = &proposal.gone else { return Ok(()) };
        self.judge_word(&gone.nodes, gone.by)?;
        let Some(settled) = proposal.settles().filter(|it| self.memory.is_next(it)) else {
            return Ok(());
        };
        let prepared = self.memory.prepared();
        if prepared.is_none_or(|it| it.digest() != settled.proposal.digest()) {
            let reason = format!("this node is not in doubt about {}", settled.proposal.txid);
            return Err(CommandRefusal::new(AbortCause::Version, reason));
        }
        Ok(())
    }

    /// True if a proposal follows the state that is served, after the one that it settles, if any.
    pub(super) fn follows(&self, proposal: &TxProposal) -> bool {
        let settled = proposal.settles().filter(|it| self.memory.is_next(it));
        let next = settled.map_or(proposal, |it| &it.proposal);
        self.present.is_before(next)
    }

    /// True if only nodes that are gone have still to answer this node's question for former
    /// transactions. These nodes may know names that this node has used and forgotten, so it goes
    /// on in a new epoch, which no node has seen.
    pub(super) fn goes_on_without(&mut self, gone: Option<&GoneNodes>) -> bool {
        let Some(gone) = gone.filter(|_| !self.is_blank()) else { return false };
        if !self.recall_waits_for().is_subset(&gone.nodes) {
            return false;
        }
        let epoch = self.memory.epoch().saturating_add(1).max(self.now.wall.0 / 1000);
        self.persist(Record::Epoch { epoch });
        true
    }

    /// True if a linked node takes part, or did under the key that was called gone: others may have
    /// served anything.
    fn is_or_was_member(&self, node: &NodeId) -> bool {
        let is_key = |key| self.peers.get(node).is_some_and(|it| it.key() == key);
        self.present.roster().has(node)
            || self.present.gone().get(node).is_some_and(|it| is_key(it.participant.key))
    }

    /// Reports a node that has served another content under a version's number: once for each
    /// version, and of no earlier one afterwards.
    pub(super) fn on_diverged(&mut self, node: &NodeId, version: u64) {
        if !self.is_or_was_member(node) {
            return self.drop_from(node, "another past than this fleet's");
        }
        if self.peers.tell_state(node, version) {
            self.out.push_after_sync(Effect::Emit(Event::Diverged { node: node.clone(), version }));
        }
    }
}
