//! Links to the nodes in reach, and their last heartbeats.
//!
//! Invariants: one link a node, the newest, so no message of a node's former life is heard after
//! its present one; of two nodes the one with the lower name calls, and the other one too when it
//! has waited in vain: one of them may have moved, or not know that the other takes part.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::{Event, Timer};
use super::machine::{Effect, RolloutMachine};
use super::peers::Place;
use super::recalled::AmnesiaRecovery;
use crate::machine::LinkId;
use crate::model::PublicKey;
use crate::proto::rollout::{DecisionReq, Heartbeat, Message, NodeId, RecallReq, StateReq};

impl RolloutMachine {
    pub(super) fn on_linked(&mut self, link: LinkId, node: &NodeId, key: PublicKey) {
        let known = self.present.roster().get(node).or_else(|| {
            let new = self.coordinator.running()?.proposal().new_roster.as_ref()?;
            new.get(node)
        });
        if *node == self.config.me || known.is_some_and(|it| it.key != key) {
            self.out.push_now(Effect::Hangup { link });
            return self.drop_from(node, "its key is not the one in the roster");
        }
        if self.is_claimed(node, key) {
            self.out.push_now(Effect::Hangup { link });
            return self.drop_from(node, "another key is here under that name");
        }
        if let Some(old) = self.peers.link(node, link, key) {
            self.out.push_now(Effect::Hangup { link: old });
        } else {
            self.out.push_after_sync(Effect::Emit(Event::Reached(node.clone())));
            self.tries.resume(self.now.mono);
        }
        self.out.push_now(Effect::StopTimer(Timer::Redial(node.clone())));
        let heartbeat = self.heartbeat();
        self.send_to(node, Message::Heartbeat(heartbeat));
        if let Some(question) = self.amnesia.as_ref().map(AmnesiaRecovery::question) {
            self.send_to(node, Message::RecallReq(RecallReq { question }));
        }
        if let Some(proposal) = self.memory.prepared()
            && proposal.participants(self.present.roster()).iter().any(|it| it.node_id == *node)
        {
            let txid = proposal.txid.clone();
            self.send_to(node, Message::DecisionReq(DecisionReq { txid }));
        }
        self.ask_for_vote(node);
    }

    pub(super) fn on_unlinked(&mut self, link: LinkId) {
        // A link that was replaced is already forgotten.
        let Some(node) = self.peers.unlink(link, self.now.mono) else { return };
        self.out.push_after_sync(Effect::Emit(Event::Lost(node.clone())));
        self.look_for_dead();
        self.redial_later(node);
    }

    /// Takes the place that a caller names; only one that has proved its key is believed.
    pub(super) fn on_called(&mut self, node: NodeId, place: Place) {
        if self.peers.reaches(&node) {
            self.on_told_place(node, place);
        }
    }

    /// Calls a node at another place than the roster names, until a call there fails.
    pub(super) fn on_told_place(&mut self, node: NodeId, place: Place) {
        let Some(known) =
            self.present.roster().get(&node).filter(|it| it.node_id != self.config.me)
        else {
            return;
        };
        if (&known.host, known.port) == (&place.0, place.1) {
            self.peers.forget_place(&node);
            return;
        }
        let at = format!("{}:{}", place.0, place.1);
        if self.peers.move_to(node.clone(), place) {
            self.report(Event::Moved { node, at });
        }
    }

    pub(super) fn on_dial_failed(&mut self, node: NodeId) {
        self.peers.forget_place(&node);
        self.redial_later(node);
    }

    fn redial_later(&mut self, node: NodeId) {
        let is_gone = self.present.gone().contains_key(&node);
        let after = if is_gone { self.config.retry_max } else { self.config.redial_every };
        self.out.push_now(Effect::SetTimer { timer: Timer::Redial(node), after });
    }

    pub(super) fn on_redial(&mut self, node: &NodeId) {
        if self.is_mine_to_call(node) {
            self.call(node);
        } else if self.is_called(node) && !self.peers.reaches(node) {
            self.redial_later(node.clone());
        }
    }

    /// True if this node calls: of two, the lower name calls, and the other when it has waited for
    /// long; a node outside the roster calls all, and a coordinator calls voters.
    fn is_mine_to_call(&self, node: &NodeId) -> bool {
        let me = &self.config.me;
        let is_wanted = self.coordinator.running().is_some_and(|it| it.wants(node));
        let away = self.peers.away_since(node).map(|since| self.now.mono.since(since));
        let has_waited = away.is_some_and(|it| it >= self.config.call_after);
        let is_turn = me < node || !self.is_member() || has_waited;
        node != me && (is_wanted || self.is_called(node) && is_turn)
    }

    /// True if a node is called at all: participants, and nodes that were called gone, because they
    /// do not know that.
    fn is_called(&self, node: &NodeId) -> bool {
        self.present.knows(node)
    }

    fn call(&mut self, node: &NodeId) {
        let new = self.coordinator.running().and_then(|it| it.proposal().new_roster.as_ref());
        let known = self.present.roster().get(node).or_else(|| new?.get(node));
        let known = known.or_else(|| self.present.gone().get(node).map(|it| &it.participant));
        if let Some(participant) = known.filter(|_| !self.peers.reaches(node)) {
            let mut participant = participant.clone();
            if let Some((host, port)) = self.peers.place(node).cloned() {
                (participant.host, participant.port) = (host, port);
            }
            self.out.push_now(Effect::Dial(participant));
        }
    }

    /// Calls the others of the roster that do not come first: right after the machine's start a
    /// driver hands over the links from before, and a second link would end the first.
    pub(super) fn call_soon(&mut self) {
        let named = self.present.roster().nodes().map(|it| it.node_id.clone());
        let names: Vec<NodeId> = named.filter(|it| *it != self.config.me).collect();
        for node in names {
            self.out
                .push_now(Effect::SetTimer { timer: Timer::Redial(node), after: Duration::ZERO });
        }
    }

    /// Calls all nodes that this node has to call and that are not linked.
    pub(super) fn call_all(&mut self) {
        let new = self.coordinator.running().and_then(|it| it.proposal().new_roster.as_ref());
        let named = self.present.roster().nodes().chain(new.into_iter().flat_map(|it| it.nodes()));
        let names = named.map(|it| &it.node_id).chain(self.present.gone().keys());
        let names: BTreeSet<NodeId> = names.cloned().collect();
        for node in names {
            if self.is_mine_to_call(&node) {
                self.call(&node);
            } else if node != self.config.me && !self.peers.reaches(&node) {
                self.redial_later(node);
            }
        }
    }

    /// Calls all nodes that could end a wait of this node, whichever end is to call: the others may
    /// have agreed meanwhile that this node takes no part, and then they do not call it.
    pub(super) fn call_for_help(&mut self) {
        let named = self.present.roster().nodes().map(|it| it.node_id.clone());
        let names: Vec<NodeId> = named.filter(|it| *it != self.config.me).collect();
        for node in names {
            self.call(&node);
        }
    }

    /// Closes the links of peers that bear a name of the new roster with another key.
    pub(super) fn drop_impostors(&mut self) {
        for link in self.peers.impostors(self.present.roster()) {
            self.out.push_now(Effect::Hangup { link });
            self.on_unlinked(link);
        }
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            node_id: self.config.me.clone(),
            last_committed_version: self.present.version(),
            digest: self.present.digest(),
            roster: self.present.roster_digest(),
            in_doubt: self.memory.prepared().map(|it| it.txid.clone()),
            serves: Some(self.config.models.clone().unwrap_or_default()),
            brake: self.brake().cloned(),
        }
    }

    /// Closes links without a sign of life: a network may lose everything and leave both ends their
    /// connection, on which the system tries again ever more rarely.
    fn close_silent(&mut self) {
        for link in self.peers.end_round() {
            self.out.push_now(Effect::Hangup { link });
            self.on_unlinked(link);
        }
    }

    pub(super) fn on_heartbeat_due(&mut self) {
        self.close_silent();
        let heartbeat = self.heartbeat();
        self.send_all(&Message::Heartbeat(heartbeat));
        if self.is_blank() {
            self.call_for_help();
        }
        let after = self.config.heartbeat_every;
        self.out.push_now(Effect::SetTimer { timer: Timer::Heartbeat, after });
    }

    pub(super) fn on_heartbeat(&mut self, from: &NodeId, heartbeat: Heartbeat) {
        let (version, digest) = (heartbeat.last_committed_version, heartbeat.digest);
        let (mine, my_digest) = (self.present.version(), self.present.digest());
        let other_roster = version == mine
            && heartbeat.roster != self.present.roster_digest()
            && self.present.roster().has(from);
        let (roster, brake) = (heartbeat.roster, heartbeat.brake.clone());
        if !self.peers.on_heartbeat(from, heartbeat) {
            return;
        }
        self.serve_if_new();
        self.compare_servers(from);
        if let Some(brake) = brake {
            self.on_brake_of(from, brake);
        }
        if version > mine {
            return self.send_to(from, Message::StateReq(StateReq { from_version: mine }));
        }
        let then = self.memory.after(version.saturating_sub(1)).next();
        let then = then.filter(|it| it.proposal.state.version == version);
        if then.map_or(my_digest, |it| it.proposal.state.digest()) != digest
            && (version == mine || then.is_some())
        {
            return self.on_diverged(from, version);
        }
        if other_roster && self.peers.tell_roster(from, version) {
            let event = Event::OtherRoster { node: from.clone(), digest: roster };
            self.out.push_after_sync(Effect::Emit(event));
        }
    }

    pub(super) fn send_to(&mut self, node: &NodeId, msg: Message) {
        if let Some(peer) = self.peers.get(node) {
            self.out.push_after_sync(Effect::Send { link: peer.link(), msg });
        }
    }

    /// Sends a message on all links, also to nodes outside the roster.
    pub(super) fn send_all(&mut self, msg: &Message) {
        let links = self.peers.links();
        if !links.is_empty() {
            self.out.push_after_sync(Effect::SendAll { links, msg: msg.clone() });
        }
    }

    /// Links to those of the nodes that are in reach.
    pub(super) fn links_to(&self, nodes: &[NodeId]) -> Vec<LinkId> {
        self.peers.links_to(nodes)
    }

    pub(super) fn drop_from(&mut self, node: &NodeId, what: &'static str) {
        self.out.push_after_sync(Effect::Emit(Event::Dropped(node.clone(), what)));
    }

    /// A node of the roster that is out of reach, if there is one.
    pub(super) fn out_of_reach(&self) -> Option<&NodeId> {
        let is_missing = |it: &&NodeId| **it != self.config.me && !self.peers.reaches(it);
        self.present.roster().nodes().map(|it| &it.node_id).find(is_missing)
    }

    /// The highest name among the nodes of the roster that are in reach, this one included.
    pub(super) fn highest_live(&self) -> Option<&NodeId> {
        let is_live = |it: &&NodeId| **it == self.config.me || self.peers.reaches(it);
        self.present.roster().nodes().map(|it| &it.node_id).filter(is_live).last()
    }
}
