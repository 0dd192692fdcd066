//! Changes of a node's servers while it runs: its operator's, and those that all nodes agree on
//! (T13).
//!
//! Invariants: a node that may have to serve a version keeps its server, whoever wants it away; a
//! change that was agreed on is carried out once it is committed, also by a node that was away, and
//! counts for every vote after that.

use std::collections::{BTreeMap, BTreeSet};

use super::event::ExtraEffect;
use super::machine::{Effect, RolloutMachine};
use super::progress::CommandRefusal;
use super::running::CoordinatedTx;
use super::served::{ServerDigests, server_digest};
use crate::proto::rollout::{
    AbortCause, Message, ModelId, NodeId, Plan, RoutingState, ServerChanges, TxProposal,
};

fn digests(changes: &ServerChanges) -> ServerDigests {
    let digest = |it: &Option<String>| it.as_deref().map(server_digest);
    changes.iter().map(|(model, address)| (model.clone(), digest(address))).collect()
}

/// Versions that need a server in a state: the stable one, to which every way back leads, and the
/// canary if it gets requests or is on trial.
fn needed(state: &RoutingState, is_tried: bool) -> impl Iterator<Item = &ModelId> {
    let is_tried = is_tried || state.canary_share() > 0;
    std::iter::once(&state.stable_model_id).chain(is_tried.then_some(&state.canary_model_id))
}

impl RolloutMachine {
    /// Versions that this node may have to serve: now, or by a transaction under way.
    fn in_use(&self) -> BTreeSet<&ModelId> {
        let live = self.present.progress().filter(|it| it.is_live());
        let prepared = self.memory.prepared();
        let running = self.coordinator.running().map(CoordinatedTx::proposal);
        let under_way = prepared.into_iter().chain(running.map(|it| &**it));
        let way_back = self.present.progress().filter(|_| self.brake().is_some());
        needed(self.present.state(), live.is_some())
            .chain(under_way.flat_map(|it| needed(&it.state, it.txid.kind.raises())))
            .chain(way_back.map(|it| &it.plan.from))
            .collect()
    }

    /// Servers after these changes, by the digests of their addresses; `None` if this node answers
    /// for any version by an echo.
    pub(super) fn servers_after(
        &self,
        changes: &ServerDigests,
    ) -> Option<BTreeMap<ModelId, String>> {
        let mut servers = self.config.models.clone().unwrap_or_default();
        for (model, digest) in changes {
            match digest {
                Some(digest) => servers.insert(model.clone(), digest.clone()),
                None => servers.remove(model),
            };
        }
        (self.config.models.is_some() || !servers.is_empty()).then_some(servers)
    }

    /// Returns the reason why this node cannot change its servers so, if there is one: a version
    /// would lose its server that has one now, if only the built-in model.
    fn refusal_of(&self, changes: &ServerDigests) -> Option<String> {
        let servers = self.servers_after(changes)?;
        let has = |it: &ModelId| self.config.models.as_ref().is_none_or(|all| all.contains_key(it));
        let loses = |it: &&ModelId| has(it) && !servers.contains_key(*it);
        let missing = self.in_use().into_iter().find(loses)?;
        let state = self.present.state();
        Some(if self.config.models.is_none() {
            format!(
                "this node answers with the built-in model, and {missing} is served now: name a \
                 server of {missing} in the same order"
            )
        } else if *missing == state.stable_model_id {
            format!("{missing} is served now, as the stable version")
        } else if *missing == state.canary_model_id {
            format!("{missing} is served now, by a rollout that is not over")
        } else {
            format!("{missing} is needed by a transaction that is under way")
        })
    }

    /// Checks whether an operator may change the servers of this node so, at this moment.
    ///
    /// # Errors
    /// With the reason, for people, if a version that is served would have no server.
    pub fn may_change_servers(&self, changes: &ServerDigests) -> Result<(), String> {
        let has = |model| self.config.models.as_ref().is_some_and(|it| it.contains_key(model));
        let unknown = changes.iter().find(|(model, to)| to.is_none() && !has(model));
        let refusal = unknown.map(|it| format!("this node has no server of {}", it.0));
        refusal.or_else(|| self.refusal_of(changes)).map_or(Ok(()), Err)
    }

    /// Checks a change of servers that all nodes are to agree on, if it is one.
    pub(super) fn judge_servers(&self, proposal: &TxProposal) -> Result<(), CommandRefusal> {
        if proposal.serves.is_empty() {
            return Ok(());
        }
        let no = |reason| Err(CommandRefusal::new(AbortCause::Model, reason));
        let mut addresses = proposal.serves.values().flatten();
        if let Some(unknown) = addresses.find(|it| !(self.config.can_ask)(it)) {
            return no(format!("this node cannot ask {unknown}"));
        }
        self.refusal_of(&digests(&proposal.serves)).map_or(Ok(()), no)
    }

    /// Checks that this node has a server of each version that needs one by a proposal, and the
    /// servers that a plan insists on.
    pub(super) fn judge_models(&self, proposal: &TxProposal) -> Result<(), CommandRefusal> {
        let (me, raises) = (&self.config.me, proposal.txid.kind.raises());
        let no = |reason| Err(CommandRefusal::new(AbortCause::Model, reason));
        if let Some(servers) = self.servers_after(&digests(&proposal.serves)) {
            let mut needed = needed(&proposal.state, raises);
            if let Some(unknown) = needed.find(|it| !servers.contains_key(*it)) {
                return no(format!(
                    "this node serves no model {unknown}: peer rollout serve {unknown}=URL --id \
                     {me}"
                ));
            }
        }
        let live = self.present.progress().filter(|it| it.is_live()).map(|it| &it.plan);
        let plan = proposal.plan.as_ref().or(live).filter(|_| raises);
        let Some(plan) = plan else { return Ok(()) };
        let other = plan.servers.iter().find(|(model, digest)| self.digest_of(model) != **digest);
        other.map_or(Ok(()), |(model, _)| {
            no(format!("{model} has another server here than {} had at the start", plan.owner))
        })
    }

    fn digest_of(&self, model: &ModelId) -> String {
        let servers = self.config.models.as_ref();
        servers.and_then(|it| it.get(model)).cloned().unwrap_or_default()
    }

    /// Digests of this node's servers of the two versions of a plan.
    pub(super) fn servers_of(&self, plan: &Plan) -> BTreeMap<ModelId, String> {
        [&plan.from, &plan.to].map(|it| (it.clone(), self.digest_of(it))).into()
    }

    /// Takes changes of this node's servers, and tells the others.
    pub(super) fn on_servers(&mut self, changes: &ServerDigests) {
        self.config.models = self.servers_after(changes);
        self.peers.forget_servers();
        let nodes: Vec<NodeId> = self.peers.iter().map(|it| it.0.clone()).collect();
        nodes.iter().for_each(|it| self.compare_servers(it));
        let heartbeat = self.heartbeat();
        self.send_all(&Message::Heartbeat(heartbeat));
    }

    /// Carries out a change of servers that was agreed on, unless `proposal` is none.
    pub(super) fn change_servers(&mut self, proposal: &TxProposal) {
        if proposal.serves.is_empty() {
            return;
        }
        self.on_servers(&digests(&proposal.serves));
        let (txid, changes) = (proposal.txid.clone(), proposal.serves.clone());
        self.out.push_after_sync(Effect::Extra(ExtraEffect::ChangeServers { txid, changes }));
    }

    /// Carries out what was agreed on and is not among this node's servers at its start: it may
    /// have died before.
    pub(super) fn change_servers_of_before(&mut self) {
        let all = self.memory.after(0).map(|it| &it.proposal).filter(|it| !it.serves.is_empty());
        let all: Vec<TxProposal> = all.cloned().collect();
        // In another history than that of before there is no such transaction, and all are new.
        let last = all.iter().position(|it| Some(&it.txid) == self.config.servers_at.as_ref());
        all[last.map_or(0, |it| it + 1)..].iter().for_each(|it| self.change_servers(it));
    }
}
