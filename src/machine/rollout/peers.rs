//! The nodes in reach: their links, and what each has told last.
//!
//! Invariant: one link a node, the newest, so no message of a node's former life is heard after
//! its present one.

use std::collections::BTreeMap;

use crate::machine::LinkId;
use crate::model::{PublicKey, Time};
use crate::proto::rollout::{HealthSnapshot, Heartbeat, ModelId, NodeId, Roster};

/// Host and control port of a node.
pub(super) type Place = (String, u16);

/// The other end of a link.
#[derive(Clone, Debug)]
pub(super) struct LinkedNode {
    link: LinkId,
    key: PublicKey,
    heartbeat: Option<Heartbeat>,
    health: Option<HealthSnapshot>,
    /// Servers of the node, as last compared with this node's.
    told_servers: Option<BTreeMap<ModelId, String>>,
    /// Number of this node's heartbeats since the peer's last message.
    quiet: u32,
}

impl LinkedNode {
    pub(super) const fn link(&self) -> LinkId {
        self.link
    }

    pub(super) const fn key(&self) -> PublicKey {
        self.key
    }

    /// Last heartbeat of the node.
    pub(super) const fn heartbeat(&self) -> Option<&Heartbeat> {
        self.heartbeat.as_ref()
    }

    /// Last health snapshot of the node since requests were shared anew.
    pub(super) const fn health(&self) -> Option<&HealthSnapshot> {
        self.health.as_ref()
    }

    /// Servers by which the node serves versions, as it says.
    pub(super) fn serves(&self) -> Option<&BTreeMap<ModelId, String>> {
        self.heartbeat.as_ref().and_then(|it| it.serves.as_ref())
    }
}

/// Maximum of [`LinkedNode::quiet`]; beyond it a link is closed. Rounds are counted, not time: a
/// process that slept through some blames no peer for it.
const QUIET_ROUNDS_MAX: u32 = 2;

/// All nodes in reach, and the absence of the others.
#[derive(Debug, Default)]
pub(super) struct Peers {
    all: BTreeMap<NodeId, LinkedNode>,
    by_link: BTreeMap<LinkId, NodeId>,
    /// Versions by node up to which was told that another state, and another roster, was in force
    /// there; of nodes of the roster and of nodes that were called gone.
    told_of: BTreeMap<NodeId, (u64, u64)>,
    /// Nodes that are called at another place than the roster names.
    places: BTreeMap<NodeId, Place>,
    /// Time since which nodes are out of reach.
    away: BTreeMap<NodeId, Time>,
}

impl Peers {
    /// Takes the newest link of a node. Returns the one that it replaces.
    pub(super) fn link(&mut self, node: &NodeId, link: LinkId, key: PublicKey) -> Option<LinkId> {
        let peer =
            LinkedNode { link, key, heartbeat: None, health: None, told_servers: None, quiet: 0 };
        let old = self.all.insert(node.clone(), peer).map(|it| it.link);
        if let Some(old) = old {
            self.by_link.remove(&old);
        }
        self.by_link.insert(link, node.clone());
        self.away.remove(node);
        old
    }

    /// Forgets a link. Returns its node; none if the link was replaced.
    pub(super) fn unlink(&mut self, link: LinkId, now: Time) -> Option<NodeId> {
        let node = self.by_link.remove(&link)?;
        self.all.remove(&node);
        self.away.insert(node.clone(), now);
        Some(node)
    }

    /// Notes that a message came by a link. Returns its node; none if the link was replaced.
    pub(super) fn hear(&mut self, link: LinkId) -> Option<NodeId> {
        let node = self.by_link.get(&link)?;
        if let Some(peer) = self.all.get_mut(node) {
            peer.quiet = 0;
        }
        Some(node.clone())
    }

    /// Ends a round. Returns the links by which nothing came for too long.
    pub(super) fn end_round(&mut self) -> Vec<LinkId> {
        for peer in self.all.values_mut() {
            peer.quiet = peer.quiet.saturating_add(1);
        }
        let silent = self.all.values().filter(|it| it.quiet > QUIET_ROUNDS_MAX);
        silent.map(|it| it.link).collect()
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&LinkedNode> {
        self.all.get(node)
    }

    pub(super) fn reaches(&self, node: &NodeId) -> bool {
        self.all.contains_key(node)
    }

    /// All nodes in reach.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &LinkedNode)> {
        self.all.iter()
    }

    pub(super) fn links(&self) -> Vec<LinkId> {
        self.all.values().map(|it| it.link).collect()
    }

    /// Links to those of the nodes that are in reach.
    pub(super) fn links_to(&self, nodes: &[NodeId]) -> Vec<LinkId> {
        nodes.iter().filter_map(|it| self.all.get(it)).map(|it| it.link).collect()
    }

    /// Links of peers that bear a name of the roster with another key.
    pub(super) fn impostors(&self, roster: &Roster) -> Vec<LinkId> {
        let wrong = |(node, peer): &(&NodeId, &LinkedNode)| {
            roster.get(node).is_some_and(|it| it.key != peer.key)
        };
        self.all.iter().filter(wrong).map(|(_, it)| it.link).collect()
    }

    /// Takes a heartbeat. Returns false if the node is out of reach.
    pub(super) fn on_heartbeat(&mut self, node: &NodeId, heartbeat: Heartbeat) -> bool {
        let peer = self.all.get_mut(node);
        peer.map(|it| it.heartbeat = Some(heartbeat)).is_some()
    }

    pub(super) fn on_health(&mut self, node: &NodeId, health: HealthSnapshot) {
        if let Some(peer) = self.all.get_mut(node) {
            peer.health = Some(health);
        }
    }

    /// Forgets the figures of all nodes.
    pub(super) fn forget_health(&mut self) {
        self.all.values_mut().for_each(|it| it.health = None);
    }

    /// Forgets which servers of others were compared with this node's, which have changed.
    pub(super) fn forget_servers(&mut self) {
        self.all.values_mut().for_each(|it| it.told_servers = None);
    }

    /// The servers of a node, if they have not been compared yet; they count as compared then.
    pub(super) fn take_servers(&mut self, node: &NodeId) -> Option<BTreeMap<ModelId, String>> {
        let peer = self.all.get_mut(node)?;
        let servers = peer.serves().cloned();
        if servers.is_none() || peer.told_servers == servers {
            return None;
        }
        peer.told_servers.clone_from(&servers);
        servers
    }

    /// Notes that a node is out of reach from the start on.
    pub(super) fn miss(&mut self, node: NodeId, now: Time) {
        self.away.insert(node, now);
    }

    /// Time since which a node is out of reach.
    pub(super) fn away_since(&self, node: &NodeId) -> Option<Time> {
        self.away.get(node).copied()
    }

    /// The place at which a node is called, if it is another than the roster names.
    pub(super) fn place(&self, node: &NodeId) -> Option<&Place> {
        self.places.get(node)
    }

    /// Calls a node at another place than the roster names. Returns false if it was called there.
    pub(super) fn move_to(&mut self, node: NodeId, place: Place) -> bool {
        self.places.insert(node, place.clone()) != Some(place)
    }

    /// Calls a node where the roster names it.
    pub(super) fn forget_place(&mut self, node: &NodeId) {
        self.places.remove(node);
    }

    /// Notes that another state is in force at a node. Returns true if no version from this one on
    /// was told.
    pub(super) fn tell_state(&mut self, node: &NodeId, version: u64) -> bool {
        let told = &mut self.told_of.entry(node.clone()).or_default().0;
        let is_news = *told < version;
        *told = version.max(*told);
        is_news
    }

    /// Notes that another roster is in force at a node, in the same way.
    pub(super) fn tell_roster(&mut self, node: &NodeId, version: u64) -> bool {
        let told = &mut self.told_of.entry(node.clone()).or_default().1;
        let is_news = *told < version;
        *told = version.max(*told);
        is_news
    }

    /// Forgets what was told of nodes that are not `known`.
    pub(super) fn forget_told(&mut self, known: impl Fn(&NodeId) -> bool) {
        self.told_of.retain(|node, _| known(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyPair;

    fn node() -> NodeId {
        "node-a".parse().unwrap()
    }

    fn key() -> PublicKey {
        KeyPair::from_secret([1; 32]).public()
    }

    #[test]
    fn of_two_links_of_a_node_the_newer_is_heard() {
        let mut peers = Peers::default();
        assert_eq!(peers.link(&node(), LinkId(1), key()), None);
        assert_eq!(peers.link(&node(), LinkId(2), key()), Some(LinkId(1)));
        assert_eq!([peers.hear(LinkId(1)), peers.hear(LinkId(2))], [None, Some(node())]);
        assert_eq!(peers.unlink(LinkId(1), Time::ZERO), None, "it was replaced");
        assert!(peers.reaches(&node()));
        assert_eq!(peers.unlink(LinkId(2), Time::ZERO), Some(node()));
        assert_eq!((peers.reaches(&node()), peers.away_since(&node())), (false, Some(Time::ZERO)));
    }

    #[test]
    fn a_link_is_silent_after_so_many_rounds_without_a_message() {
        let mut peers = Peers::default();
        peers.link(&node(), LinkId(1), key());
        for _ in 0..QUIET_ROUNDS_MAX {
            assert_eq!(peers.end_round(), []);
        }
        peers.hear(LinkId(1));
        for _ in 0..QUIET_ROUNDS_MAX {
            assert_eq!(peers.end_round(), []);
        }
        assert_eq!(peers.end_round(), [LinkId(1)]);
    }

    #[test]
    fn a_difference_is_told_once_a_version_and_of_no_earlier_one() {
        let mut peers = Peers::default();
        let told = [3, 3, 2, 4].map(|version| peers.tell_state(&node(), version));
        assert_eq!(told, [true, false, false, true]);
        assert!(peers.tell_roster(&node(), 2), "rosters are told for themselves");
    }
}
