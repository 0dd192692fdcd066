//! State of a node before its history begins: the nodes that are to take part, and the keys proved.
//!
//! Invariant: a history begins once, with a roster in which every key was proved or told.

use std::collections::BTreeMap;

use super::dialer::Call;
use super::options::{HistoryBootstrap, NodeAddr};
use crate::machine::LinkId;
use crate::model::PublicKey;
use crate::proto::rollout::{Genesis, Message, NodeId, Participant, Roster, RoutingState, TxId};

/// Largest number of messages that are kept until the machine begins; more are dropped.
const EARLY_MAX: usize = 256;

/// A node without a history.
#[derive(Debug)]
pub(super) struct Bootstrapping {
    me: Participant,
    bootstrap: HistoryBootstrap,
    initial: RoutingState,
    keys: BTreeMap<NodeId, PublicKey>,
    /// Connections made meanwhile, oldest first.
    pub(super) arrived: Vec<(LinkId, NodeId, PublicKey)>,
    /// Messages received meanwhile, oldest first.
    pub(super) early: Vec<(LinkId, Message)>,
}

impl Bootstrapping {
    pub(super) fn new(me: Participant, bootstrap: HistoryBootstrap, initial: RoutingState) -> Self {
        let mut keys = BTreeMap::from([(me.node_id.clone(), me.key)]);
        if let HistoryBootstrap::By(places) = &bootstrap {
            let told = places.iter().filter_map(|it| Some((it.node_id.clone(), it.key?)));
            keys.extend(told.filter(|(node, _)| *node != me.node_id));
        }
        Self { me, bootstrap, initial, keys, arrived: Vec::new(), early: Vec::new() }
    }

    fn place(&self, node: &NodeId) -> Option<&NodeAddr> {
        match &self.bootstrap {
            HistoryBootstrap::By(places) => places.iter().find(|it| it.node_id == *node),
            HistoryBootstrap::Join(_) => None,
        }
    }

    /// Returns the addresses of the nodes, as this one was told.
    pub(super) fn places(&self) -> BTreeMap<NodeId, (String, u16)> {
        let HistoryBootstrap::By(places) = &self.bootstrap else { return BTreeMap::new() };
        places.iter().map(|it| (it.node_id.clone(), (it.host.clone(), it.port))).collect()
    }

    /// Returns the reason to refuse a caller, if there is one.
    pub(super) fn objection(&self, caller: &Participant) -> Option<String> {
        let node = &caller.node_id;
        if let Some(known) = self.keys.get(node) {
            return (*known != caller.key).then(|| in_use(node));
        }
        // A node that joins learns the roster from others, so it hears every caller.
        let is_named =
            self.place(node).is_some() || matches!(self.bootstrap, HistoryBootstrap::Join(_));
        let me = &self.me.node_id;
        (!is_named).then(|| format!("{me} has not begun, and {node} is not among its nodes; wait"))
    }

    /// Takes a connection whose other end has proved a key. Returns the beginning of the history,
    /// if it is settled now.
    pub(super) fn arrived(
        &mut self,
        link: LinkId,
        (node, key): (NodeId, PublicKey),
        genesis: Option<Genesis>,
    ) -> Option<Genesis> {
        self.arrived.push((link, node.clone(), key));
        if self.place(&node).is_some() {
            self.keys.entry(node.clone()).or_insert(key);
        }
        let genesis = genesis.filter(Genesis::is_first);
        match &self.bootstrap {
            HistoryBootstrap::Join(_) => genesis,
            HistoryBootstrap::By(_) => match genesis {
                // It has begun without this key, which may differ from the one this node had
                // before; or it begins as this node was told, though some of its nodes may be gone
                // by now.
                Some(it) if self.is_believed(&it, &node, key) || self.is_told(&it) => Some(it),
                Some(_) | None => self.complete(),
            },
        }
    }

    /// True if a history that begins without this node's key is this fleet's: its roster
    /// has the node that stated it, under the key which that node has proved, and no node and no
    /// key other than those this node was told.
    fn is_believed(&self, genesis: &Genesis, stated_by: &NodeId, key: PublicKey) -> bool {
        let is_told = |it: &Participant| {
            let pinned = self.place(&it.node_id).map(|place| place.key);
            let is_me = it.node_id == self.me.node_id;
            pinned.is_some_and(|pinned| is_me || pinned.is_none_or(|key| key == it.key))
        };
        !self.is_named_by(genesis)
            && genesis.roster.get(stated_by).is_some_and(|it| it.key == key)
            && genesis.roster.nodes().all(is_told)
    }

    /// True if a history begins as this node was told, with no other key than those proved to it.
    fn is_told(&self, genesis: &Genesis) -> bool {
        let HistoryBootstrap::By(places) = &self.bootstrap else { return false };
        let is_proved = |(node, key): (&NodeId, &PublicKey)| {
            genesis.roster.get(node).is_none_or(|it| it.key == *key)
        };
        genesis.state == self.initial
            && places.len() == genesis.roster.len()
            && places.iter().all(|it| genesis.roster.has(&it.node_id))
            && self.keys.iter().all(is_proved)
    }

    fn is_named_by(&self, genesis: &Genesis) -> bool {
        genesis.roster.get(&self.me.node_id).is_some_and(|it| it.key == self.me.key)
    }

    pub(super) fn left(&mut self, link: LinkId) {
        self.arrived.retain(|it| it.0 != link);
        self.early.retain(|it| it.0 != link);
    }

    pub(super) fn hear(&mut self, link: LinkId, message: Message) {
        if self.early.len() < EARLY_MAX {
            self.early.push((link, message));
        }
    }

    /// Returns the beginning of the history, if the keys of all named nodes are known.
    pub(super) fn complete(&self) -> Option<Genesis> {
        let HistoryBootstrap::By(places) = &self.bootstrap else { return None };
        let participant = |place: &NodeAddr| {
            let key = *self.keys.get(&place.node_id)?;
            let NodeAddr { node_id, host, port, .. } = place.clone();
            Some(Participant { node_id, host, port, key })
        };
        let nodes: Option<Vec<_>> = places.iter().map(participant).collect();
        // Names and addresses were checked at the start; what may be wrong is a key named twice.
        let roster = Roster::new(nodes?).ok()?;
        Some(Genesis { roster, state: self.initial.clone() })
    }

    /// Returns the nodes that have not proved a key, or the addresses at which this one asks to be
    /// let in.
    pub(super) fn waits_for(&self) -> Vec<String> {
        match &self.bootstrap {
            HistoryBootstrap::Join(places) => places.clone(),
            HistoryBootstrap::By(places) => {
                let is_missing = |it: &&NodeAddr| !self.keys.contains_key(&it.node_id);
                let name = |it: &NodeAddr| format!("{} at {}:{}", it.node_id, it.host, it.port);
                places.iter().filter(is_missing).map(name).collect()
            }
        }
    }

    /// Returns the calls to make now: of two nodes the one with the lower name calls, and the other
    /// once it has waited in vain.
    pub(super) fn calls(&self, has_waited: bool) -> Vec<Call> {
        match &self.bootstrap {
            HistoryBootstrap::Join(places) => places.iter().cloned().map(Call::join).collect(),
            HistoryBootstrap::By(places) => {
                let is_mine = |it: &&NodeAddr| {
                    let is_turn = self.me.node_id < it.node_id || has_waited;
                    is_turn
                        && it.node_id != self.me.node_id
                        && !self.arrived.iter().any(|a| a.1 == it.node_id)
                };
                let call = |it: &NodeAddr| Call {
                    node: Some(it.node_id.clone()),
                    key: it.key,
                    at: format!("{}:{}", it.host, it.port),
                    joins: false,
                };
                places.iter().filter(is_mine).map(call).collect()
            }
        }
    }
}

/// Returns the refusal of a caller whose name is another key's.
pub(super) fn in_use(node: &NodeId) -> String {
    format!(
        "the name {node} is in use by another key; choose another --id, or start it with the \
         --data that it had; if that is lost, at a node that takes part: peer rollout remove \
         {node} --gone --i-know, then peer rollout admit {node}"
    )
}

/// Returns the refusal of a caller whose name no node of the roster has, but under which another
/// key came first.
pub(super) fn claimed(node: &NodeId) -> String {
    format!(
        "another key is here under the name {node}; if this one is meant, at that node: peer \
         rollout admit {node}@KEY, with the key that peer rollout status shows"
    )
}

/// Returns the refusal of a caller that was called gone, and whose name is another key's now.
pub(super) fn replaced(node: &NodeId, txid: &TxId) -> String {
    format!(
        "{node} was called gone ({txid}), and another machine has its name now: this one decides \
         nothing any more; stop it, or start it with another --id, --data and --log-dir, and \
         --join"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyPair;

    fn place(name: &str, port: u16) -> NodeAddr {
        format!("{name}=127.0.0.1:{port}").parse().unwrap()
    }

    fn key(number: u8) -> PublicKey {
        KeyPair::from_secret([number; 32]).public()
    }

    fn bootstrapping(bootstrap: HistoryBootstrap) -> Bootstrapping {
        let NodeAddr { node_id, host, port, .. } = place("b", 2);
        let me = Participant { node_id, host, port, key: key(2) };
        let model = |text: &str| text.parse().unwrap();
        Bootstrapping::new(me, bootstrap, RoutingState::initial(model("v1"), model("v2")))
    }

    #[test]
    fn a_history_begins_when_everybody_named_has_proved_a_key() {
        let named = vec![place("a", 1), place("b", 2), place("c", 3)];
        let mut it = bootstrapping(HistoryBootstrap::By(named));
        assert_eq!(it.calls(false).len(), 1, "the lower name calls");
        assert_eq!(it.calls(true).len(), 2, "and the other in time");
        assert_eq!(it.waits_for(), ["a at 127.0.0.1:1", "c at 127.0.0.1:3"]);
        let arrive = |it: &mut Bootstrapping, link, name: &str, number| {
            it.arrived(LinkId(link), (name.parse().unwrap(), key(number)), None)
        };
        assert_eq!(arrive(&mut it, 1, "c", 3), None);
        let other = Participant { key: key(9), ..it.me.clone() };
        assert!(it.objection(&other).unwrap().contains("in use"));
        let genesis = arrive(&mut it, 2, "a", 1).unwrap();
        let names: Vec<_> = genesis.roster.nodes().map(|it| it.node_id.to_string()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn who_lost_its_log_or_its_key_follows_the_history_that_others_have() {
        let named = || HistoryBootstrap::By(vec![place("a", 1), place("b", 2), place("c", 3)]);
        let participant = |name: &str, port, number| {
            let NodeAddr { node_id, host, port, .. } = place(name, port);
            Participant { node_id, host, port, key: key(number) }
        };
        let genesis = |mine: u8, others: u8| {
            let nodes = [participant("a", 1, 1), participant("b", 2, mine)];
            let nodes = nodes.into_iter().chain([participant("c", 3, others)]).collect();
            let state = bootstrapping(named()).initial;
            Genesis { roster: Roster::new(nodes).unwrap(), state }
        };
        let told = |genesis: &Genesis| {
            let other = ("a".parse().unwrap(), key(1));
            bootstrapping(named()).arrived(LinkId(1), other, Some(genesis.clone()))
        };
        // c is dead; what a says of it is believed.
        assert_eq!(told(&genesis(2, 3)), Some(genesis(2, 3)));
        assert_eq!(told(&genesis(9, 3)), Some(genesis(9, 3)), "another key of its own name");
        let mut other = genesis(2, 3);
        other.state.version = 2;
        assert_eq!(told(&other), None, "not as it was told");
    }

    #[test]
    fn a_history_of_somebody_who_did_not_begin_it_or_with_other_keys_than_told_is_not_followed() {
        let participant = |name: &str, port, number| {
            let NodeAddr { node_id, host, port, .. } = place(name, port);
            Participant { node_id, host, port, key: key(number) }
        };
        // The keys of a, b and c; b is this node, which has the key 2.
        let genesis = |names: [(&str, u8); 3]| {
            let ports = names.iter().zip(1..).map(|((name, key), at)| participant(name, at, *key));
            let nodes = ports.collect();
            Genesis { roster: Roster::new(nodes).unwrap(), state: bootstrapping(by(None)).initial }
        };
        fn by(pinned: Option<u8>) -> HistoryBootstrap {
            let mut places = vec![place("a", 1), place("b", 2), place("c", 3)];
            places[2].key = pinned.map(key);
            HistoryBootstrap::By(places)
        }
        // a has proved the key 1.
        let is_followed = |pinned, genesis: &Genesis| {
            let other = ("a".parse().unwrap(), key(1));
            let begun = bootstrapping(by(pinned)).arrived(LinkId(1), other, Some(genesis.clone()));
            begun.as_ref() == Some(genesis)
        };
        assert!(is_followed(None, &genesis([("a", 1), ("b", 9), ("c", 3)])));
        assert!(is_followed(Some(3), &genesis([("a", 1), ("b", 9), ("c", 3)])));
        assert!(!is_followed(None, &genesis([("a", 7), ("b", 9), ("c", 3)])), "another a");
        assert!(!is_followed(None, &genesis([("d", 1), ("b", 9), ("c", 3)])), "no a");
        assert!(!is_followed(Some(4), &genesis([("a", 1), ("b", 9), ("c", 3)])), "a pinned key");
        assert!(!is_followed(None, &genesis([("a", 1), ("x", 8), ("y", 9)])), "unknown names");
        let mut late = genesis([("a", 1), ("b", 9), ("c", 3)]);
        late.state.version = u64::MAX;
        assert!(!is_followed(None, &late), "no beginning");
        let mut joins = bootstrapping(HistoryBootstrap::Join(vec!["127.0.0.1:1".to_owned()]));
        let other = ("a".parse().unwrap(), key(1));
        assert_eq!(joins.arrived(LinkId(1), other, Some(late)), None, "no beginning");
    }

    #[test]
    fn who_joins_begins_with_what_it_is_told() {
        let mut it = bootstrapping(HistoryBootstrap::Join(vec!["127.0.0.1:1".to_owned()]));
        let by = bootstrapping(HistoryBootstrap::By(vec![place("b", 2)])).complete();
        let other = Participant { node_id: "a".parse().unwrap(), key: key(1), ..it.me.clone() };
        assert_eq!(it.objection(&other), None);
        let told = it.arrived(LinkId(1), ("a".parse().unwrap(), key(1)), by.clone());
        assert_eq!(told, by);
        assert!(by.is_some());
    }
}
