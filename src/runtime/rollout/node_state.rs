//! State of a node, before its history or with a machine, and the nodes that ask to be let in.

use std::collections::{BTreeMap, BTreeSet};

use super::bootstrapping::{Bootstrapping, claimed, in_use, replaced};
use super::dialer::Call;
use super::options::{AdmissionPolicy, EngineStatus, UnknownKey};
use crate::machine::rollout::RolloutMachine;
use crate::model::{PublicKey, Time};
use crate::proto::rollout::{Genesis, NodeId, Participant, Roster};

/// Largest number of nodes and keys without a part that are remembered.
const ASKING_MAX: usize = 64;

/// Largest number of keys that are remembered under one name.
const KEYS_MAX: usize = 4;

/// State that the machine's thread owns and its questions read.
pub(super) struct NodeState {
    pub(super) phase: Phase,
    pub(super) pending_members: PendingMembers,
    strangers_max: usize,
}

pub(super) enum Phase {
    Forming(Box<Bootstrapping>),
    Running { rollout: Box<RolloutMachine>, genesis: Genesis },
}

/// Nodes that ask to be let in, and the keys vouched for.
pub(super) struct PendingMembers {
    policy: AdmissionPolicy,
    /// Addresses at which this node asks to be let in itself.
    joins: Vec<String>,
    /// Nodes that came and are not in the roster, by name and key; true if the node asks to be let
    /// in or an operator wants it. It is let in if its key is vouched for. One name may have
    /// several keys.
    nodes: BTreeMap<(NodeId, PublicKey), (Participant, bool)>,
    /// Key vouched for under each name; true if an operator said so.
    vouched: BTreeMap<NodeId, (PublicKey, bool)>,
    /// The keys of members whose end the seeds certify.
    pub(super) dead: BTreeSet<PublicKey>,
}

impl PendingMembers {
    pub(super) const fn new(policy: AdmissionPolicy, joins: Vec<String>) -> Self {
        Self {
            policy,
            joins,
            nodes: BTreeMap::new(),
            vouched: BTreeMap::new(),
            dead: BTreeSet::new(),
        }
    }

    /// Remembers a node that came, without its connection, which may be replaced by another. A node
    /// that is not linked, because another key holds its name here, displaces no other.
    pub(super) fn came(&mut self, participant: Participant, asks: bool, is_linked: bool) {
        let (node, key) = (participant.node_id.clone(), participant.key);
        let at = (node.clone(), key);
        let asks =
            asks || self.is_wanted(&participant) || self.nodes.get(&at).is_some_and(|it| it.1);
        if !self.nodes.contains_key(&at) {
            let others: Vec<_> = self.keys(&node).collect();
            if is_linked && others.len() >= KEYS_MAX {
                self.nodes.remove(&(node, others[0]));
            }
            if !is_linked && others.len() >= KEYS_MAX || self.nodes.len() >= ASKING_MAX {
                return;
            }
        }
        self.nodes.insert(at, (participant, asks));
    }

    /// Returns the keys that came under a name.
    fn keys(&self, node: &NodeId) -> impl Iterator<Item = PublicKey> {
        self.nodes.keys().filter(move |it| it.0 == *node).map(|it| it.1)
    }

    /// Vouches for a key under a name, by the word of the fleet; false if another key was vouched
    /// for.
    pub(super) fn vouch(&mut self, node: NodeId, key: PublicKey) -> bool {
        self.vouched.entry(node).or_insert((key, false)).0 == key
    }

    /// Vouches for the key that begins with these digits under a name, by an operator's word and in
    /// place of any other. Returns the keys that match: nothing is done unless there is exactly
    /// one.
    pub(super) fn admit(&mut self, node: &NodeId, digits: &str) -> Vec<PublicKey> {
        let is_meant = |it: &PublicKey| it.to_string().starts_with(digits);
        let mut meant: Vec<_> = self.keys(node).filter(is_meant).collect();
        // A whole key need not have come yet: the holder of the name may keep it away.
        meant.extend(PublicKey::parse(digits).filter(|_| meant.is_empty()));
        if let [key] = meant[..] {
            self.vouched.insert(node.clone(), (key, true));
            if let Some((_, asks)) = self.nodes.get_mut(&(node.clone(), key)) {
                *asks = true;
            }
        }
        meant
    }

    /// True if an operator wants this key under its name.
    pub(super) fn is_wanted(&self, it: &Participant) -> bool {
        self.vouched.get(&it.node_id) == Some(&(it.key, true))
    }

    /// Takes the keys of all members whose end the seeds certify. A key that is new among them is
    /// no longer vouched for, so its name is free for another.
    pub(super) fn mark_dead(&mut self, dead: BTreeSet<PublicKey>) {
        let is_new = |key: &PublicKey| dead.contains(key) && !self.dead.contains(key);
        self.vouched.retain(|_, (key, _)| !is_new(key));
        self.dead = dead;
    }

    /// True if a node that the seeds' word took out is a member of the fleet again.
    fn is_back(&self, participant: &Participant) -> bool {
        let vouched = self.vouched.get(&participant.node_id).map(|it| it.0);
        !self.dead.contains(&participant.key) && vouched == Some(participant.key)
    }

    fn is_let_in(&self, (participant, asks): &(Participant, bool)) -> bool {
        let vouched = self.vouched.get(&participant.node_id).map(|it| it.0);
        *asks && (self.policy == AdmissionPolicy::Anybody || vouched == Some(participant.key))
    }

    /// Forgets the names under which no node is linked any more.
    fn tidy(&mut self, rollout: &RolloutMachine) {
        self.nodes.retain(|(node, _), _| rollout.stranger(node).is_some());
    }

    /// Returns the roster with one more node, if one is to be let in and all of the roster are
    /// linked.
    pub(super) fn next(&mut self, rollout: &RolloutMachine) -> Option<Roster> {
        let roster = rollout.roster();
        // All have to vote, so an attempt is of no use while one is away.
        let is_here =
            |it: &Participant| it.node_id == *rollout.me() || rollout.reaches(&it.node_id);
        if !roster.nodes().all(is_here) {
            return None;
        }
        // A node that the seeds' word took out need not ask: it learns of that only by coming back.
        let back: Vec<_> = rollout.returned().filter(|it| self.is_back(it)).cloned().collect();
        for it in back {
            let at = (it.node_id.clone(), it.key);
            let it = self.nodes.get(&at).map_or(it, |known| known.0.clone());
            self.nodes.insert(at, (it, true));
        }
        // A node that has left would not vote, and asks again when it is back.
        self.tidy(rollout);
        let is_here = |(node, key): &(NodeId, PublicKey)| {
            rollout.stranger(node).is_some_and(|it| it.1 == *key)
        };
        let (at, (new, _)) =
            self.nodes.iter().find(|(at, it)| self.is_let_in(it) && is_here(at))?;
        let at = at.clone();
        let nodes: Vec<_> = roster.nodes().cloned().chain([new.clone()]).collect();
        match Roster::new(nodes) {
            Ok(roster) => Some(roster),
            Err(complaint) => {
                log::warn!("{} cannot be let in: {complaint}", at.0);
                self.nodes.remove(&at);
                None
            }
        }
    }

    fn shown(&self, rollout: &RolloutMachine) -> BTreeMap<NodeId, String> {
        let show = |((node, _), (it, _)): (&(NodeId, PublicKey), &(Participant, bool))| {
            (node.clone(), format!("{}:{} {}", it.host, it.port, it.key.short()))
        };
        let asks = |((node, key), (_, asks)): &(&(NodeId, PublicKey), &(Participant, bool))| {
            *asks && rollout.stranger(node).is_some_and(|it| it.1 == *key)
        };
        self.nodes.iter().filter(asks).map(show).collect()
    }

    /// Returns the keys that came under each name, the linked one first.
    fn claims(&self, rollout: &RolloutMachine) -> BTreeMap<NodeId, Vec<UnknownKey>> {
        let mut claims: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (node, key) in self.nodes.keys() {
            let Some((_, linked)) = rollout.stranger(node) else { continue };
            let is_linked = linked == *key;
            let was_gone = rollout.gone_key(node) == Some(*key);
            claims.entry(node.clone()).or_default().push(UnknownKey {
                key: *key,
                is_linked,
                was_gone,
            });
        }
        claims.values_mut().for_each(|it| it.sort_by_key(|it| !it.is_linked));
        claims
    }
}

impl NodeState {
    pub(super) const fn new(
        phase: Phase,
        pending_members: PendingMembers,
        strangers_max: usize,
    ) -> Self {
        Self { phase, pending_members, strangers_max }
    }

    /// True if a node is to be let in.
    pub(super) fn is_asked(&self) -> bool {
        let Phase::Running { rollout, .. } = &self.phase else { return false };
        let pending_members = &self.pending_members;
        pending_members.nodes.values().any(|it| pending_members.is_let_in(it))
            || rollout.returned().any(|it| pending_members.is_back(it))
    }

    /// Returns the beginning of the history, if it has begun, for a caller that may stay.
    pub(super) fn admit_caller(&mut self, caller: &Participant) -> Result<Option<Genesis>, String> {
        match &self.phase {
            Phase::Forming(bootstrapping) => bootstrapping.objection(caller).map_or(Ok(None), Err),
            Phase::Running { rollout, genesis } => {
                let (node, roster) = (&caller.node_id, rollout.roster());
                if node == rollout.me() {
                    return Err(in_use(node));
                }
                match roster.get(node) {
                    Some(known) if known.key != caller.key => Err(match rollout.replaced(caller) {
                        Some(txid) => replaced(node, &txid),
                        None => in_use(node),
                    }),
                    Some(_) => Ok(Some(genesis.clone())),
                    None if rollout.is_claimed(node, caller.key)
                        && !self.pending_members.is_wanted(caller) =>
                    {
                        // Remembered, because an operator may say that this one is meant.
                        self.pending_members.tidy(rollout);
                        self.pending_members.came(caller.clone(), false, false);
                        Err(claimed(node))
                    }
                    None if rollout.strangers() >= self.strangers_max => {
                        Err("too many strangers are here already".to_owned())
                    }
                    None => Ok(Some(genesis.clone())),
                }
            }
        }
    }

    /// Returns the calls to make beside those of the machine.
    pub(super) fn calls(&self, has_waited: bool) -> Vec<Call> {
        match &self.phase {
            Phase::Forming(bootstrapping) => bootstrapping.calls(has_waited),
            Phase::Running { rollout, .. } if !rollout.roster().has(rollout.me()) => {
                self.pending_members.joins.iter().cloned().map(Call::join).collect()
            }
            Phase::Running { .. } => Vec::new(),
        }
    }

    pub(super) fn standing(&self, me: &NodeId, now: Time) -> EngineStatus {
        match &self.phase {
            Phase::Forming(bootstrapping) => {
                EngineStatus::Forming { node_id: me.clone(), waits_for: bootstrapping.waits_for() }
            }
            Phase::Running { rollout, .. } => EngineStatus::Running {
                status: Box::new(rollout.status(now)),
                pending_members: self.pending_members.shown(rollout),
                claims: self.pending_members.claims(rollout),
                refusals: BTreeMap::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::machine::rollout::{Config, Fx, Input, Opening, RolloutMemory};
    use crate::machine::{LinkId, Machine as _};
    use crate::model::{KeyPair, Now, Rng};
    use crate::proto::rollout::RoutingState;

    #[test]
    fn a_name_is_free_for_another_key_once_the_seeds_call_its_holder_dead() {
        let key = |number| KeyPair::from_secret([number; 32]).public();
        let node: NodeId = "node-c".parse().unwrap();
        let mut pending_members = PendingMembers::new(AdmissionPolicy::Vouched, Vec::new());
        assert!(pending_members.vouch(node.clone(), key(1)));
        assert!(!pending_members.vouch(node.clone(), key(2)), "it is another's");
        pending_members.mark_dead([key(1)].into());
        assert!(pending_members.vouch(node.clone(), key(2)));
        // A key vouched for after its end stays so, however often the end is reported again.
        pending_members.mark_dead([key(1), key(3)].into());
        assert!(!pending_members.vouch(node, key(1)));
    }

    #[test]
    fn one_that_the_seeds_took_out_is_back_when_both_its_death_and_its_absence_are_over() {
        let key = KeyPair::from_secret([1; 32]).public();
        let (node_id, host): (NodeId, _) = ("node-c".parse().unwrap(), "127.0.0.1".to_owned());
        let node = Participant { node_id: node_id.clone(), host, port: 60_003, key };
        let mut pending_members = PendingMembers::new(AdmissionPolicy::Vouched, Vec::new());
        pending_members.vouch(node_id.clone(), key);
        assert!(pending_members.is_back(&node));
        pending_members.mark_dead([key].into());
        assert!(!pending_members.is_back(&node));
        pending_members.vouch(node_id, key);
        assert!(!pending_members.is_back(&node), "the seeds have not taken it back here");
        pending_members.mark_dead(BTreeSet::new());
        assert!(pending_members.is_back(&node));
    }

    fn keys(number: u8) -> KeyPair {
        KeyPair::from_secret([number; 32])
    }

    fn participant(name: &str, number: u8) -> Participant {
        let (host, port) = ("127.0.0.1".to_owned(), 60_000 + u16::from(number));
        Participant { node_id: name.parse().unwrap(), host, port, key: keys(number).public() }
    }

    /// Returns the state of a node that runs alone.
    fn node_state() -> NodeState {
        let me = participant("node-a", 1);
        let model = |text: &str| text.parse().unwrap();
        let state = RoutingState::initial(model("v1"), model("v2"));
        let roster = Roster::new(vec![me.clone()]).unwrap();
        let config = Config::new(me.node_id, roster.clone(), state.clone());
        let rng = Rng::seed_from_u64(1);
        let mut rollout =
            Box::new(RolloutMachine::new(config, keys(1), rng, RolloutMemory::default()));
        rollout.handle(Now::default(), Input::Start, &mut Fx::default());
        let phase = Phase::Running { rollout, genesis: Genesis { roster, state } };
        NodeState::new(phase, PendingMembers::new(AdmissionPolicy::Vouched, Vec::new()), 8)
    }

    /// Has a node come and link; false if it is refused.
    fn come(node_state: &mut NodeState, it: &Participant, asks: bool) -> bool {
        if node_state.admit_caller(it).is_err() {
            return false;
        }
        node_state.pending_members.came(it.clone(), asks, true);
        let Phase::Running { rollout, .. } = &mut node_state.phase else { unreachable!() };
        let input = Input::Opened {
            link: LinkId(1),
            opening: Opening { node: it.node_id.clone(), key: it.key },
        };
        rollout.handle(Now::default(), input, &mut Fx::default());
        true
    }

    fn go(node_state: &mut NodeState) {
        let Phase::Running { rollout, .. } = &mut node_state.phase else { unreachable!() };
        rollout.handle(Now::default(), Input::closed(LinkId(1), ""), &mut Fx::default());
    }

    fn let_in(node_state: &mut NodeState) -> Option<PublicKey> {
        let Phase::Running { rollout, .. } = &node_state.phase else { unreachable!() };
        let roster = node_state.pending_members.next(rollout)?;
        roster.get(&"node-c".parse().unwrap()).map(|it| it.key)
    }

    fn claims(node_state: &NodeState) -> Vec<(PublicKey, bool)> {
        let Phase::Running { rollout, .. } = &node_state.phase else { unreachable!() };
        let claims = node_state.pending_members.claims(rollout).into_values().flatten();
        claims.map(|it| (it.key, it.is_linked)).collect()
    }

    #[test]
    fn of_several_keys_under_a_name_an_operator_says_which_is_let_in() {
        let (first, second) = (participant("node-c", 3), participant("node-c", 4));
        let node = &first.node_id;
        let mut node_state = node_state();
        assert!(come(&mut node_state, &first, true));
        assert!(!come(&mut node_state, &second, true), "the name is another's");
        assert_eq!(claims(&node_state), [(first.key, true), (second.key, false)]);
        assert_eq!(node_state.pending_members.admit(node, "").len(), 2);
        assert_eq!(let_in(&mut node_state), None, "which is not said");
        assert_eq!(node_state.pending_members.admit(node, "zz"), []);
        let digits = second.key.to_string();
        assert_eq!(node_state.pending_members.admit(node, &digits[..16]), [second.key]);
        assert_eq!(let_in(&mut node_state), None, "it is not here");
        // The node that holds the name is hung up on, and the other has it then.
        assert!(node_state.admit_caller(&second).is_ok(), "it takes the place of the first one");
        go(&mut node_state);
        assert!(come(&mut node_state, &second, false));
        assert_eq!(let_in(&mut node_state), Some(second.key));
        assert!(!come(&mut node_state, &first, true));
        assert_eq!(let_in(&mut node_state), Some(second.key));
    }

    #[test]
    fn one_key_under_a_name_is_let_in_by_the_name_alone_and_keys_without_end_take_no_room() {
        let first = participant("node-c", 3);
        let mut node_state = node_state();
        assert!(come(&mut node_state, &first, false));
        assert_eq!(let_in(&mut node_state), None);
        assert_eq!(node_state.pending_members.admit(&first.node_id, ""), [first.key]);
        assert_eq!(let_in(&mut node_state), Some(first.key));
        for number in 10..100 {
            assert!(!come(&mut node_state, &participant("node-c", number), true));
        }
        assert_eq!(claims(&node_state).len(), KEYS_MAX);
        let late = participant("node-c", 200);
        let whole = late.key.to_string();
        assert_eq!(
            node_state.pending_members.admit(&late.node_id, &whole),
            [late.key],
            "it needs not be here"
        );
        go(&mut node_state);
        assert!(come(&mut node_state, &late, false));
        assert_eq!(let_in(&mut node_state), Some(late.key));
    }
}
