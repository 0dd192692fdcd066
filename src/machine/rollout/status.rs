//! Status of a node, which can be asked at any time: its state, running transactions and history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Aborted, DeadParticipants};
use super::machine::RolloutMachine;
use super::memory::AbsentNode;
use super::progress::{Phase, RolloutProgress};
use crate::machine::LinkId;
use crate::model::{PublicKey, Time};
use crate::proto::rollout::{
    Brake, Committed, Digest, HealthSnapshot, Heartbeat, NodeId, Participant, RemovalAuthority,
    Roster, RoutingState, TxId, TxProposal,
};

/// A transaction that this node coordinates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatedTxStatus {
    /// Name of the transaction.
    pub txid: TxId,
    /// Participants whose votes are missing.
    pub waits_for: Vec<NodeId>,
}

/// A transaction that this node voted COMMIT on and does not know the end of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InDoubtStatus {
    /// Name of the transaction.
    pub txid: TxId,
    /// Time that this node has waited, since its start at most.
    pub waited: Duration,
    /// Participants that may know the decision and have not said that they wait too.
    pub waits_for: Vec<NodeId>,
}

/// Status of another node of the roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterNodeStatus {
    /// Name of the node.
    pub node_id: NodeId,
    /// True if the node is in reach.
    pub is_linked: bool,
    /// Time that it has been out of reach, if it is and the time is known.
    pub away: Option<Duration>,
    /// Last heartbeat of the node.
    pub heartbeat: Option<Heartbeat>,
    /// Last health snapshot of the node.
    pub health: Option<HealthSnapshot>,
}

/// Status of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Name of the node.
    pub node_id: NodeId,
    /// The state that it serves.
    pub state: RoutingState,
    /// Digest of that state.
    pub digest: Digest,
    /// The roster in force.
    pub roster: Roster,
    /// Progress of the last rollout that was begun.
    #[serde(rename = "course")]
    pub progress: Option<RolloutProgress>,
    /// The transaction that the node coordinates.
    pub running: Option<CoordinatedTxStatus>,
    /// The transaction that the node is in doubt about.
    pub in_doubt: Option<InDoubtStatus>,
    /// Nodes that must answer before this node votes; empty unless it began without a log.
    pub recalling: BTreeSet<NodeId>,
    /// Time until the next step is due, if a rollout runs; zero once it is due.
    pub next_step: Option<Duration>,
    /// The brake, if it is on.
    #[serde(default)]
    pub brake: Option<Brake>,
    /// Reason why no step is taken, if one is due and held.
    pub held: Option<String>,
    /// Last health snapshot of this node.
    pub health: Option<HealthSnapshot>,
    /// The other nodes of the roster.
    pub peers: Vec<RosterNodeStatus>,
    /// The transaction that called this node gone, if there is one.
    #[serde(default)]
    pub removed: Option<TxId>,
    /// Nodes that were called gone and have not been let in again, each with whether it is in
    /// reach.
    #[serde(default)]
    pub gone: BTreeMap<NodeId, bool>,
    /// The gone nodes that the seeds' word removed, as the roster had them.
    #[serde(default)]
    pub gone_by_seeds: Vec<Participant>,
    /// Nodes that still take part though the seeds certify their end, if there are such.
    #[serde(default)]
    pub dead_stay: Option<DeadParticipants>,
}

impl RolloutMachine {
    /// Returns the status at `now`.
    pub fn status(&self, now: Time) -> NodeStatus {
        let running = self
            .coordinator
            .running()
            .map(|it| CoordinatedTxStatus { txid: it.txid().clone(), waits_for: it.missing() });
        let in_doubt = self.proposals.in_doubt().map(|it| InDoubtStatus {
            txid: it.txid().clone(),
            waited: now.since(it.since()),
            waits_for: self.waits_for(),
        });
        let others = self.present.roster().nodes().map(|it| &it.node_id);
        let peers = others.filter(|it| **it != self.config.me).map(|node| {
            let peer = self.peers.get(node);
            RosterNodeStatus {
                node_id: node.clone(),
                is_linked: peer.is_some(),
                away: self.peers.away_since(node).map(|since| now.since(since)),
                heartbeat: peer.and_then(|it| it.heartbeat().cloned()),
                health: peer.and_then(|it| it.health().cloned()),
            }
        });
        let by_seeds = self.present.gone().iter().filter(|it| it.1.by == RemovalAuthority::Seeds);
        NodeStatus {
            node_id: self.config.me.clone(),
            state: self.present.state().clone(),
            digest: self.present.digest(),
            roster: self.present.roster().clone(),
            progress: self.present.progress().cloned(),
            running,
            in_doubt,
            recalling: if self.is_blank() { self.recall_waits_for() } else { BTreeSet::new() },
            next_step: self.next_step(now),
            brake: self.brake().cloned(),
            held: self.tries.held().map(str::to_owned),
            health: self.tries.health().cloned(),
            peers: peers.collect(),
            removed: self.removed().map(|it| it.txid.clone()),
            gone_by_seeds: by_seeds.map(|it| it.1.participant.clone()).collect(),
            dead_stay: self.dead.held().cloned(),
            gone: self.present.gone().keys().map(|it| (it.clone(), self.reaches(it))).collect(),
        }
    }

    fn next_step(&self, now: Time) -> Option<Duration> {
        let progress = self.present.progress().filter(|it| it.phase == Phase::Running)?;
        let interval = Duration::from_millis(progress.plan.interval_ms);
        Some(interval.saturating_sub(now.since(self.present.since())))
    }

    /// Name of this node.
    pub const fn me(&self) -> &NodeId {
        &self.config.me
    }

    /// The roster in force.
    pub const fn roster(&self) -> &Roster {
        self.present.roster()
    }

    /// True if that node is linked.
    pub fn reaches(&self, node: &NodeId) -> bool {
        self.peers.reaches(node)
    }

    /// Link and key of the peer of that name, if the name is none of the roster's.
    pub fn stranger(&self, node: &NodeId) -> Option<(LinkId, PublicKey)> {
        let peer = self.peers.get(node).filter(|_| !self.present.roster().has(node))?;
        Some((peer.link(), peer.key()))
    }

    /// The key that held that name until the node was called gone.
    pub fn gone_key(&self, node: &NodeId) -> Option<PublicKey> {
        self.present.gone().get(node).map(|it| it.participant.key)
    }

    /// True if `key` cannot have a name outside the roster because a peer with another key is
    /// linked under it. A stranger keeps its place, but the key that held the name until it was
    /// called gone gets it back.
    pub fn is_claimed(&self, node: &NodeId, key: PublicKey) -> bool {
        let is_other = self.stranger(node).is_some_and(|it| it.1 != key);
        is_other && self.gone_key(node) != Some(key)
    }

    /// The transaction that called the caller's key gone, if the roster gives its name to another
    /// key now.
    pub fn replaced(&self, caller: &Participant) -> Option<TxId> {
        let known = self.present.roster().get(&caller.node_id).filter(|it| it.key != caller.key);
        known.and_then(|_| self.memory.called_gone(&self.config.roster, caller))
    }

    /// Nodes in reach that the seeds' word removed, as the roster had them.
    pub fn returned(&self) -> impl Iterator<Item = &Participant> {
        let is_back = |it: &&AbsentNode| {
            let peer = self.peers.get(&it.participant.node_id);
            it.by == RemovalAuthority::Seeds
                && peer.is_some_and(|peer| peer.key() == it.participant.key)
        };
        self.present.gone().values().filter(is_back).map(|it| &it.participant)
    }

    /// Number of linked peers that are not in the roster.
    pub fn strangers(&self) -> usize {
        self.peers.iter().filter(|it| !self.present.roster().has(it.0)).count()
    }

    /// Transactions committed here, one per version, without a gap up to the present: the last
    /// [`HISTORY_MAX`](super::HISTORY_MAX) at least, as far as this node has them.
    pub fn history(&self) -> &[Committed] {
        self.memory.history()
    }

    /// Aborted transactions that this node knows and keeps, oldest first.
    pub fn aborted(&self) -> impl Iterator<Item = &Aborted> {
        self.memory.aborted()
    }

    /// The proposal that this node voted COMMIT on and does not know the end of.
    pub const fn prepared(&self) -> Option<&TxProposal> {
        self.memory.prepared()
    }

    /// Returns records that hold all of this node's memory, to replace the log.
    pub fn snapshot(&self) -> Vec<super::event::Record> {
        self.memory.snapshot()
    }
}
