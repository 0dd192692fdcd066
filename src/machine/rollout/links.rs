//! Links to the nodes in reach, and their last heartbeats.
//!
//! Invariants: one link a node, the newest, so no message of a node's former life is heard after
//! its present one; of two nodes the one with the lower name calls, and the other one too when it
//! has waited in vain: one of them may have moved, or not know that the other takes part.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::{Effect, Event, Timer};
use super::machine::Rollout;
use crate::machine::LinkId;
use crate::model::PublicKey;
use crate::proto::rollout::{
    DecisionReq, HealthSnapshot, Heartbeat, Message, ModelId, NodeId, RecallReq, StateReq,
};

/// The other end of a link.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) link: LinkId,
    pub(super) key: PublicKey,
    pub(super) heartbeat: Option<Heartbeat>,
    pub(super) health: Option<HealthSnapshot>,
    pub(super) told_servers: Option<BTreeMap<ModelId, String>>,
    /// Number of this node's heartbeats since the peer's last message.
    pub(super) quiet: u32,
}

/// Maximum of [`Peer::quiet`]; beyond it a link is closed. Rounds are counted, not time: a process
/// that slept through some blames no peer for it.
const QUIET_ROUNDS_MAX: u32 = 2;

impl Rollout {
    pub(super) fn on_linked(&mut self, link: LinkId, node: &NodeId, key: PublicKey) {
        let known = self.roster.get(node).or_else(|| {
            let new = self.running.as_ref()?.proposal.new_roster.as_ref()?;
            new.get(node)
        });
        if *node == self.config.me || known.is_some_and(|it| it.key != key) {
            self.out.at_once(Effect::Hangup { link });
            return self.drop_from(node, "its key is not the one in the roster");
        }
        if self.is_claimed(node, key) {
            self.out.at_once(Effect::Hangup { link });
            return self.drop_from(node, "another key is here under that name");
        }
        let peer = Peer { link, key, heartbeat: None, health: None, told_servers: None, quiet: 0 };
        if let Some(old) = self.peers.insert(node.clone(), peer) {
            self.by_link.remove(&old.link);
            self.out.at_once(Effect::Hangup { link: old.link });
        } else {
            self.out.say(Effect::Emit(Event::Reached(node.clone())));
            (self.retry_at, self.missed) = (self.now.mono, 0);
        }
        self.by_link.insert(link, node.clone());
        self.away.remove(node);
        self.out.at_once(Effect::StopTimer(Timer::Redial(node.clone())));
        let heartbeat = self.heartbeat();
        self.send_to(node, Message::Heartbeat(heartbeat));
        if let Some(question) = self.recall.as_ref().map(|it| it.question) {
            self.send_to(node, Message::RecallReq(RecallReq { question }));
        }
        if let Some(proposal) = &self.memory.prepared
            && proposal.participants(&self.roster).iter().any(|it| it.node_id == *node)
        {
            let txid = proposal.txid.clone();
            self.send_to(node, Message::DecisionReq(DecisionReq { txid }));
        }
        self.ask_for_vote(node);
    }

    pub(super) fn on_unlinked(&mut self, link: LinkId) {
        // A link that was replaced is already forgotten.
        let Some(node) = self.by_link.remove(&link) else { return };
        self.peers.remove(&node);
        self.away.insert(node.clone(), self.now.mono);
        self.out.say(Effect::Emit(Event::Lost(node.clone())));
        self.look_for_dead();
        self.redial_later(node);
    }

    /// Takes the place that a caller names; only one that has proved its key is believed.
    pub(super) fn on_called(&mut self, node: NodeId, place: (String, u16)) {
        if self.peers.contains_key(&node) {
            self.on_told_place(node, place);
        }
    }

    /// Calls a node at another place than the roster names, until a call there fails.
    pub(super) fn on_told_place(&mut self, node: NodeId, place: (String, u16)) {
        let Some(known) = self.roster.get(&node).filter(|it| it.node_id != self.config.me) else {
            return;
        };
        if (&known.host, known.port) == (&place.0, place.1) {
            self.places.remove(&node);
        } else if self.places.get(&node) != Some(&place) {
            let at = format!("{}:{}", place.0, place.1);
            self.places.insert(node.clone(), place);
            self.tell(Event::Moved { node, at });
        }
    }

    pub(super) fn on_dial_failed(&mut self, node: NodeId) {
        self.places.remove(&node);
        self.redial_later(node);
    }

    fn redial_later(&mut self, node: NodeId) {
        let is_gone = self.gone.contains_key(&node);
        let after = if is_gone { self.config.retry_max } else { self.config.redial_every };
        self.out.at_once(Effect::SetTimer { timer: Timer::Redial(node), after });
    }

    pub(super) fn on_redial(&mut self, node: &NodeId) {
        if self.is_mine_to_call(node) {
            self.call(node);
        } else if self.is_called(node) && !self.peers.contains_key(node) {
            self.redial_later(node.clone());
        }
    }

    /// True if this node calls: of two, the lower name calls, and the other when it has waited for
    /// long; a node outside the roster calls all, and a coordinator calls voters.
    fn is_mine_to_call(&self, node: &NodeId) -> bool {
        let me = &self.config.me;
        let is_wanted = self.running.as_ref().is_some_and(|it| it.wants(node));
        let away = self.away.get(node).map(|since| self.now.mono.since(*since));
        let has_waited = away.is_some_and(|it| it >= self.config.call_after);
        let is_turn = me < node || !self.is_member() || has_waited;
        node != me && (is_wanted || self.is_called(node) && is_turn)
    }

    /// True if a node is called at all: participants, and nodes that were called gone, because they
    /// do not know that.
    fn is_called(&self, node: &NodeId) -> bool {
        self.roster.has(node) || self.gone.contains_key(node)
    }

    fn call(&mut self, node: &NodeId) {
        let new = self.running.as_ref().and_then(|it| it.proposal.new_roster.as_ref());
        let known = self.roster.get(node).or_else(|| new?.get(node));
        let known = known.or_else(|| self.gone.get(node).map(|it| &it.participant));
        if let Some(participant) = known.filter(|_| !self.peers.contains_key(node)) {
            let mut participant = participant.clone();
            if let Some((host, port)) = self.places.get(node).cloned() {
                (participant.host, participant.port) = (host, port);
            }
            self.out.at_once(Effect::Dial(participant));
        }
    }

    /// Calls the others of the roster that do not come first: right after the machine's start a
    /// driver hands over the links from before, and a second link would end the first.
    pub(super) fn call_soon(&mut self) {
        let named = self.roster.nodes().map(|it| it.node_id.clone());
        let names: Vec<NodeId> = named.filter(|it| *it != self.config.me).collect();
        for node in names {
            self.out
                .at_once(Effect::SetTimer { timer: Timer::Redial(node), after: Duration::ZERO });
        }
    }

    /// Calls all nodes that this node has to call and that are not linked.
    pub(super) fn call_all(&mut self) {
        let new = self.running.as_ref().and_then(|it| it.proposal.new_roster.as_ref());
        let named = self.roster.nodes().chain(new.into_iter().flat_map(|it| it.nodes()));
        let names = named.map(|it| &it.node_id).chain(self.gone.keys());
        let names: BTreeSet<NodeId> = names.cloned().collect();
        for node in names {
            if self.is_mine_to_call(&node) {
                self.call(&node);
            } else if node != self.config.me && !self.peers.contains_key(&node) {
                self.redial_later(node);
            }
        }
    }

    /// Calls all nodes that could end a wait of this node, whichever end is to call: the others may
    /// have agreed meanwhile that this node takes no part, and then they do not call it.
    pub(super) fn call_for_help(&mut self) {
        let named = self.roster.nodes().map(|it| it.node_id.clone());
        let names: Vec<NodeId> = named.filter(|it| *it != self.config.me).collect();
        for node in names {
            self.call(&node);
        }
    }

    /// Closes the links of peers that bear a name of the new roster with another key.
    pub(super) fn drop_impostors(&mut self) {
        let wrong = |(node, peer): &(&NodeId, &Peer)| {
            self.roster.get(node).is_some_and(|it| it.key != peer.key)
        };
        let links: Vec<_> = self.peers.iter().filter(wrong).map(|(_, it)| it.link).collect();
        for link in links {
            self.out.at_once(Effect::Hangup { link });
            self.on_unlinked(link);
        }
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            node_id: self.config.me.clone(),
            last_committed_version: self.state.version,
            digest: self.state_digest,
            roster: self.roster_digest,
            in_doubt: self.memory.prepared.as_ref().map(|it| it.txid.clone()),
            serves: Some(self.config.models.clone().unwrap_or_default()),
            brake: self.brake().cloned(),
        }
    }

    /// Closes links without a sign of life: a network may lose everything and leave both ends their
    /// connection, on which the system tries again ever more rarely.
    fn close_silent(&mut self) {
        for peer in self.peers.values_mut() {
            peer.quiet = peer.quiet.saturating_add(1);
        }
        let silent = self.peers.values().filter(|it| it.quiet > QUIET_ROUNDS_MAX);
        let links: Vec<_> = silent.map(|it| it.link).collect();
        for link in links {
            self.out.at_once(Effect::Hangup { link });
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
        self.out.at_once(Effect::SetTimer { timer: Timer::Heartbeat, after });
    }

    pub(super) fn on_heartbeat(&mut self, from: &NodeId, heartbeat: Heartbeat) {
        let (version, digest) = (heartbeat.last_committed_version, heartbeat.digest);
        let (mine, my_digest) = (self.state.version, self.state_digest);
        let other_roster =
            version == mine && heartbeat.roster != self.roster_digest && self.roster.has(from);
        let Some(peer) = self.peers.get_mut(from) else { return };
        let (roster, brake) = (heartbeat.roster, heartbeat.brake.clone());
        peer.heartbeat = Some(heartbeat);
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
        let told = other_roster.then(|| self.told_of.entry(from.clone()).or_default());
        if let Some(told) = told.filter(|it| it.1 < version) {
            told.1 = version;
            let event = Event::OtherRoster { node: from.clone(), digest: roster };
            self.out.say(Effect::Emit(event));
        }
    }

    pub(super) fn send_to(&mut self, node: &NodeId, msg: Message) {
        if let Some(peer) = self.peers.get(node) {
            self.out.say(Effect::Send { link: peer.link, msg });
        }
    }

    /// Sends a message on all links, also to nodes outside the roster.
    pub(super) fn send_all(&mut self, msg: &Message) {
        let links: Vec<_> = self.peers.values().map(|it| it.link).collect();
        if !links.is_empty() {
            self.out.say(Effect::SendAll { links, msg: msg.clone() });
        }
    }

    /// Links to those of the nodes that are in reach.
    pub(super) fn links_to(&self, nodes: &[NodeId]) -> Vec<LinkId> {
        nodes.iter().filter_map(|it| self.peers.get(it)).map(|it| it.link).collect()
    }

    pub(super) fn drop_from(&mut self, node: &NodeId, what: &'static str) {
        self.out.say(Effect::Emit(Event::Dropped(node.clone(), what)));
    }

    /// A node of the roster that is out of reach, if there is one.
    pub(super) fn out_of_reach(&self) -> Option<&NodeId> {
        let is_missing = |it: &&NodeId| **it != self.config.me && !self.peers.contains_key(*it);
        self.roster.nodes().map(|it| &it.node_id).find(is_missing)
    }

    /// The highest name among the nodes of the roster that are in reach, this one included.
    pub(super) fn highest_live(&self) -> Option<&NodeId> {
        let is_live = |it: &&NodeId| **it == self.config.me || self.peers.contains_key(*it);
        self.roster.nodes().map(|it| &it.node_id).filter(is_live).last()
    }
}
