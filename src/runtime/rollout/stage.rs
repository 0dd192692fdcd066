//! How far a node is: without a history yet, or with a machine; and who asks to be let in.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::Shared;
use super::forming::{Forming, in_use, replaced};
use super::keeper::{Item, Question};
use super::options::{Admits, Standing};
use super::seek::Call;
use crate::model::{PublicKey, Time};
use crate::protocol::rollout::{Genesis, Input, NodeId, Participant, Rollout, Roster};
use crate::runtime::inbox::Closed;

/// So many may ask to be let in at a time.
const ASKING_MAX: usize = 64;

/// What the thread that owns the machine knows.
pub(super) struct Stage {
    pub(super) phase: Phase,
    pub(super) asking: Asking,
    strangers_max: usize,
}

pub(super) enum Phase {
    Forming(Box<Forming>),
    Running { rollout: Box<Rollout>, genesis: Genesis },
}

/// Who asks to be let in.
pub(super) struct Asking {
    admits: Admits,
    /// Where this node asked itself to be let in.
    joins: Vec<String>,
    /// Who is here and takes no part, and whether it is to be let in if its key is vouched for: it
    /// asks, or an operator wants it.
    nodes: BTreeMap<NodeId, (Participant, bool)>,
    vouched: BTreeMap<NodeId, PublicKey>,
    /// The keys of members whose end the seeds certify.
    pub(super) dead: BTreeSet<PublicKey>,
}

impl Asking {
    pub(super) const fn new(admits: Admits, joins: Vec<String>) -> Self {
        Self {
            admits,
            joins,
            nodes: BTreeMap::new(),
            vouched: BTreeMap::new(),
            dead: BTreeSet::new(),
        }
    }

    /// Somebody came. Kept without its connection, which may be replaced by another.
    pub(super) fn came(&mut self, participant: Participant, asks: bool) {
        let known = self.nodes.get(&participant.node_id);
        let asks = asks || known.is_some_and(|(it, asks)| *asks && it.key == participant.key);
        if self.nodes.len() < ASKING_MAX || known.is_some() {
            self.nodes.insert(participant.node_id.clone(), (participant, asks));
        }
    }

    /// Somebody who knows says that this name is this key's; false where it is another's already.
    /// Without a key an operator means whoever is here by that name, whoever had it before.
    pub(super) fn vouch(&mut self, node: NodeId, key: Option<PublicKey>) -> bool {
        match (key, self.nodes.get_mut(&node)) {
            (Some(key), _) => *self.vouched.entry(node).or_insert(key) == key,
            (None, Some((participant, asks))) => {
                *asks = true;
                self.vouched.insert(node, participant.key);
                true
            }
            (None, None) => false,
        }
    }

    /// Takes the keys of all members whose end the seeds certify: what was vouched for a key before
    /// its end counts no more, and its name is free for another.
    pub(super) fn bury(&mut self, dead: BTreeSet<PublicKey>) {
        let is_new = |key: &PublicKey| dead.contains(key) && !self.dead.contains(key);
        self.vouched.retain(|_, key| !is_new(key));
        self.dead = dead;
    }

    /// Whether one that the seeds' word took out is a member of the fleet again.
    fn is_back(&self, participant: &Participant) -> bool {
        let vouched = self.vouched.get(&participant.node_id);
        !self.dead.contains(&participant.key) && vouched == Some(&participant.key)
    }

    fn is_let_in(&self, (participant, asks): &(Participant, bool)) -> bool {
        let vouched = self.vouched.get(&participant.node_id);
        *asks && (self.admits == Admits::Anybody || vouched == Some(&participant.key))
    }

    /// The roster with one more node, if somebody is to be let in.
    pub(super) fn next(&mut self, rollout: &Rollout) -> Option<Roster> {
        let roster = rollout.roster();
        // All have to vote, so it is of no use while somebody is away.
        let is_here =
            |it: &Participant| it.node_id == *rollout.me() || rollout.reaches(&it.node_id);
        if !roster.nodes().all(is_here) {
            return None;
        }
        // Whom the seeds' word took out need not ask: it learns of it only by coming back.
        let back: Vec<_> = rollout.returned().filter(|it| self.is_back(it)).cloned().collect();
        for it in back {
            let place = self.nodes.get(&it.node_id).filter(|known| known.0.key == it.key);
            let it = place.map_or(it, |known| known.0.clone());
            self.nodes.insert(it.node_id.clone(), (it, true));
        }
        // Who has gone would not vote, and asks again when it is back.
        self.nodes.retain(|node, _| !roster.has(node) && rollout.reaches(node));
        let (node, (new, _)) = self.nodes.iter().find(|(_, it)| self.is_let_in(it))?;
        let node = node.clone();
        let nodes: Vec<_> = roster.nodes().cloned().chain([new.clone()]).collect();
        match Roster::new(nodes) {
            Ok(roster) => Some(roster),
            Err(complaint) => {
                log::warn!("{node} cannot be let in: {complaint}");
                self.nodes.remove(&node);
                None
            }
        }
    }

    fn shown(&self, rollout: &Rollout) -> BTreeMap<NodeId, String> {
        let show = |(node, (it, _)): (&NodeId, &(Participant, bool))| {
            (node.clone(), format!("{}:{} {}", it.host, it.port, it.key.short()))
        };
        let asks = |(node, (_, asks)): &(&NodeId, &(Participant, bool))| {
            *asks && !rollout.roster().has(node) && rollout.reaches(node)
        };
        self.nodes.iter().filter(asks).map(show).collect()
    }
}

impl Stage {
    pub(super) const fn new(phase: Phase, asking: Asking, strangers_max: usize) -> Self {
        Self { phase, asking, strangers_max }
    }

    /// Whether somebody is to be let in.
    pub(super) fn is_asked(&self) -> bool {
        let Phase::Running { rollout, .. } = &self.phase else { return false };
        let asking = &self.asking;
        asking.nodes.values().any(|it| asking.is_let_in(it))
            || rollout.returned().any(|it| asking.is_back(it))
    }

    /// Whether a node may come, and what the history begins with, if it has begun.
    pub(super) fn admits(&self, caller: &Participant) -> Result<Option<Genesis>, String> {
        match &self.phase {
            Phase::Forming(forming) => forming.objection(caller).map_or(Ok(None), Err),
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
                    None if rollout.strangers() >= self.strangers_max => {
                        Err("too many strangers are here already".to_owned())
                    }
                    None => Ok(Some(genesis.clone())),
                }
            }
        }
    }

    /// Whom to call, beside those whom the machine calls.
    pub(super) fn calls(&self, has_waited: bool) -> Vec<Call> {
        match &self.phase {
            Phase::Forming(forming) => forming.calls(has_waited),
            Phase::Running { rollout, .. } if !rollout.roster().has(rollout.me()) => {
                self.asking.joins.iter().cloned().map(Call::join).collect()
            }
            Phase::Running { .. } => Vec::new(),
        }
    }

    pub(super) fn standing(&self, me: &NodeId, now: Time) -> Standing {
        match &self.phase {
            Phase::Forming(forming) => {
                Standing::Forming { node_id: me.clone(), waits_for: forming.waits_for() }
            }
            Phase::Running { rollout, .. } => Standing::Running {
                status: Box::new(rollout.status(now)),
                asking: self.asking.shown(rollout),
                refusals: BTreeMap::new(),
            },
        }
    }
}

impl Shared {
    /// Asks the machine something, on its thread, and waits for the answer.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Stage) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        let (tell, told) = crossbeam_channel::bounded(1);
        let ask: Question = Box::new(move |stage| {
            // Whoever has gone meanwhile does not want it.
            let _ = tell.send(question(stage));
        });
        self.inbox.push(Item::Ask(ask), 0)?;
        told.recv().map_err(|_| Closed)
    }

    /// Hands the machine what its own threads found out.
    pub(super) fn submit(&self, input: Input) {
        // Where it is closed there is nobody left to tell.
        let _ = self.inbox.push_now(Item::Input(input));
    }

    /// Tells people something.
    pub(super) fn note(&self, text: String) {
        let _ = self.inbox.push_now(Item::Note(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyPair;

    #[test]
    fn a_name_is_free_for_another_key_once_the_seeds_call_its_holder_dead() {
        let key = |number| KeyPair::from_secret([number; 32]).public();
        let node: NodeId = "node-c".parse().unwrap();
        let mut asking = Asking::new(Admits::Vouched, Vec::new());
        assert!(asking.vouch(node.clone(), Some(key(1))));
        assert!(!asking.vouch(node.clone(), Some(key(2))), "it is another's");
        asking.bury([key(1)].into());
        assert!(asking.vouch(node.clone(), Some(key(2))));
        // What was said of it after its death stands, however often that is told again.
        asking.bury([key(1), key(3)].into());
        assert!(!asking.vouch(node, Some(key(1))));
    }

    #[test]
    fn one_that_the_seeds_took_out_is_back_when_both_its_death_and_its_absence_are_over() {
        let key = KeyPair::from_secret([1; 32]).public();
        let (node_id, host): (NodeId, _) = ("node-c".parse().unwrap(), "127.0.0.1".to_owned());
        let node = Participant { node_id: node_id.clone(), host, port: 60_003, key };
        let mut asking = Asking::new(Admits::Vouched, Vec::new());
        asking.vouch(node_id.clone(), Some(key));
        assert!(asking.is_back(&node));
        asking.bury([key].into());
        assert!(!asking.is_back(&node));
        asking.vouch(node_id, Some(key));
        assert!(!asking.is_back(&node), "the seeds have not taken it back here");
        asking.bury(BTreeSet::new());
        assert!(asking.is_back(&node));
    }
}
