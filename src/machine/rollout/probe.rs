//! Probe of a version before this node votes to give it more requests (T8).
//!
//! Invariant: a node with servers of its own votes COMMIT on a higher share only after the version
//! has answered a request that was sent since the node was asked for that vote. The way back needs
//! no answer.

use std::collections::BTreeMap;

use super::coordinator::Running;
use super::course::Refusal;
use super::event::{Effect, Event, ExtraEffect};
use super::machine::Rollout;
use crate::proto::rollout::{Cause, ModelId, NodeId, Proposal};

impl Rollout {
    /// True if a vote on the proposal needs an answer of its new version first.
    pub(super) fn needs_answer(&self, proposal: &Proposal) -> bool {
        let is_due = self.config.models.is_some() && proposal.txid.kind.raises();
        is_due && !self.config.breaks().unanswered
    }

    /// Probes the new version and votes once it has answered.
    pub(super) fn vote_after_answer(&mut self, from: NodeId, proposal: Proposal) {
        let model = proposal.state.canary_model_id.clone();
        let is_asked = self.probing.as_ref().is_some_and(|it| it.1 == proposal);
        self.probing = Some((from, proposal));
        if !is_asked {
            self.out.at_once(Effect::Extra(ExtraEffect::Probe(model)));
        }
    }

    /// Votes or decides by the result of a probe; `failure` is the reason of one that failed.
    pub(super) fn on_probed(&mut self, model: &ModelId, failure: Option<String>) {
        let is_it = |it: &Proposal| it.state.canary_model_id == *model;
        let silent = |why: &String| format!("{model} does not answer it: {why}");
        if let Some((from, proposal)) = self.probing.take_if(|it| is_it(&it.1)) {
            match &failure {
                None => self.vote_on(&from, &proposal, true),
                Some(why) => {
                    let refusal = Refusal::new(Cause::Model, silent(why));
                    self.vote_abort(&from, &proposal.txid, &refusal, true);
                }
            }
        }
        let waits = |it: &Running| is_it(&it.proposal) && it.lacks_answer;
        let Some(running) = self.running.as_mut().filter(|it| waits(it)) else { return };
        running.lacks_answer = false;
        match failure {
            None => self.decide_if_complete(),
            Some(why) => {
                let reason = format!("{}: {}", self.config.me, silent(&why));
                self.abort_running(Cause::Model, reason, None);
            }
        }
    }

    /// Returns a refusal if this node would echo where another node asks real models.
    pub(super) fn would_echo(&self) -> Option<Refusal> {
        let is_real = |node: &&NodeId| {
            let beat = self.peers.get(*node).and_then(|it| it.heartbeat.as_ref());
            beat.and_then(|it| it.serves.as_ref()).is_some_and(|it| !it.is_empty())
        };
        let other = self.roster.nodes().map(|it| &it.node_id).find(is_real);
        let other = other.filter(|_| self.config.models.is_none())?;
        let reason = format!("it has no --serve and would echo, where {other} has servers");
        Some(Refusal::new(Cause::Model, reason))
    }

    /// Reports once that `node` serves versions by other servers than this node, or that one of
    /// them echoes.
    pub(super) fn compare_servers(&mut self, node: &NodeId) {
        let Some(peer) = self.peers.get_mut(node).filter(|_| self.roster.has(node)) else { return };
        let Some(theirs) = peer.heartbeat.as_ref().and_then(|it| it.serves.clone()) else { return };
        if peer.told_servers.as_ref() == Some(&theirs) {
            return;
        }
        peer.told_servers = Some(theirs.clone());
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
            self.tell(Event::Echoes { node });
        }
        if !others.is_empty() {
            self.tell(Event::OtherServers { node: node.clone(), models: others });
        }
    }
}
