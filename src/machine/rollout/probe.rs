//! Probe of a version before this node votes to give it more requests (T8).
//!
//! Invariant: a node with servers of its own votes COMMIT on a higher share only after the version
//! has answered a request that was sent since the node was asked for that vote. The way back needs
//! no answer.

use std::collections::BTreeMap;

use super::event::{Event, ExtraEffect};
use super::machine::{Effect, RolloutMachine};
use super::peers::LinkedNode;
use super::progress::CommandRefusal;
use super::running::CoordinatedTx;
use crate::proto::rollout::{AbortCause, ModelId, NodeId, TxProposal};

impl RolloutMachine {
    /// True if a vote on the proposal needs an answer of its new version first.
    pub(super) fn needs_answer(&self, proposal: &TxProposal) -> bool {
        let is_due = self.config.models.is_some() && proposal.txid.kind.raises();
        is_due && !self.config.breaks().unanswered
    }

    /// Probes the new version and votes once it has answered.
    pub(super) fn vote_after_answer(&mut self, from: NodeId, proposal: TxProposal) {
        let model = proposal.state.canary_model_id.clone();
        if self.proposals.probe(from, proposal) {
            self.out.push_now(Effect::Extra(ExtraEffect::Probe(model)));
        }
    }

    /// Votes or decides by the result of a probe; `failure` is the reason of one that failed.
    pub(super) fn on_probed(&mut self, model: &ModelId, failure: Option<String>) {
        let silent = |why: &String| format!("{model} does not answer it: {why}");
        if let Some((from, proposal)) = self.proposals.take_probed(model) {
            match &failure {
                None => self.vote_on(&from, &proposal, true),
                Some(why) => {
                    let refusal = CommandRefusal::new(AbortCause::Model, silent(why));
                    self.vote_abort(&from, &proposal.txid, &refusal, true);
                }
            }
        }
        let is_it = |it: &CoordinatedTx| it.proposal().state.canary_model_id == *model;
        let waits = |it: &&mut CoordinatedTx| is_it(it) && it.lacks_answer();
        let Some(running) = self.coordinator.running_mut().filter(waits) else { return };
        running.on_answer();
        match failure {
            None => self.decide_if_complete(),
            Some(why) => {
                let reason = format!("{}: {}", self.config.me, silent(&why));
                self.abort_running(AbortCause::Model, reason, None);
            }
        }
    }

    /// Returns a refusal if this node would echo where another node asks real models.
    pub(super) fn would_echo(&self) -> Option<CommandRefusal> {
        let is_real = |node: &&NodeId| {
            self.peers.get(node).and_then(LinkedNode::serves).is_some_and(|it| !it.is_empty())
        };
        let other = self.present.roster().nodes().map(|it| &it.node_id).find(is_real);
        let other = other.filter(|_| self.config.models.is_none())?;
        let reason = format!("it has no --serve and would echo, where {other} has servers");
        Some(CommandRefusal::new(AbortCause::Model, reason))
    }

    /// Reports once that `node` serves versions by other servers than this node, or that one of
    /// them echoes.
    pub(super) fn compare_servers(&mut self, node: &NodeId) {
        if !self.present.roster().has(node) {
            return;
        }
        let Some(theirs) = self.peers.take_servers(node) else { return };
        let none = BTreeMap::new();
        let ours = self.config.models.as_ref().unwrap_or(&none);
        let echoes = match (ours.is_empty(), theirs.is_empty()) {
            (true, false) => Some(self.config.me.clone()),
            (false, true) => Some(node.clone()),
            (true, true) | (false, false) => None,
        };
        let differs =
            |(model, at): &(&ModelId, &String)| theirs.get(*model).is_some_and(|it| it != *at);
        let others: Vec<_> = ours.iter().filter(differs).map(|it| it.0.clone()).collect();
        if let Some(node) = echoes {
            self.report(Event::Echoes { node });
        }
        if !others.is_empty() {
            self.report(Event::OtherServers { node: node.clone(), models: others });
        }
    }
}
