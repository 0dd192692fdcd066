//! What a node can be asked at any time: what it serves, what runs, and what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::brake::Brake;
use super::course::{Course, Phase};
use super::event::Aborted;
use super::health::HealthSnapshot;
use super::ids::{NodeId, TxId};
use super::machine::Rollout;
use super::memory::Absent;
use super::messages::{Cause, Heartbeat};
use super::proposal::{Committed, Proposal, Word};
use super::roster::{Participant, Roster};
use super::state::{Digest, RoutingState};
use crate::model::{PublicKey, Time};
use crate::protocol::LinkId;

/// A transaction that this node coordinates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningStatus {
    /// Which.
    pub txid: TxId,
    /// Whose vote is missing.
    pub waits_for: Vec<NodeId>,
}

/// A transaction that this node voted COMMIT on, and does not know the end of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubtStatus {
    /// Which.
    pub txid: TxId,
    /// For how long, since this node's start at most.
    pub waited: Duration,
    /// Who could know, and has not said that it waits too.
    pub waits_for: Vec<NodeId>,
}

/// What is known of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Which.
    pub node_id: NodeId,
    /// Whether it is within reach.
    pub is_linked: bool,
    /// For how long it has been out of reach, if it is and this is known.
    pub away: Option<Duration>,
    /// What it said of itself last.
    pub heartbeat: Option<Heartbeat>,
    /// How its traffic fares.
    pub health: Option<HealthSnapshot>,
}

/// Nodes that still take part though the seeds certify their end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadStay {
    /// Which.
    pub nodes: BTreeSet<NodeId>,
    /// Why, for programs.
    pub cause: Cause,
    /// Why, for people.
    pub reason: String,
    /// The transaction that is in the way, if it is one.
    pub running: Option<TxId>,
}

/// A node as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Which.
    pub node_id: NodeId,
    /// What it serves.
    pub state: RoutingState,
    /// That state's digest.
    pub digest: Digest,
    /// Who takes part.
    pub roster: Roster,
    /// The last rollout that was begun.
    pub course: Option<Course>,
    /// What it coordinates.
    pub running: Option<RunningStatus>,
    /// What it is in doubt about.
    pub in_doubt: Option<DoubtStatus>,
    /// Whom it has to hear from before it votes; it began without a log.
    pub recalling: BTreeSet<NodeId>,
    /// When the next step is due, if a rollout runs; zero once it is.
    pub next_step: Option<Duration>,
    /// The brake, if it is on.
    #[serde(default)]
    pub brake: Option<Brake>,
    /// Why no step is taken, if one is due and held.
    pub held: Option<String>,
    /// How its own traffic fares.
    pub health: Option<HealthSnapshot>,
    /// The others of the roster.
    pub peers: Vec<PeerStatus>,
    /// By which transaction this node was called gone, if it was.
    #[serde(default)]
    pub removed: Option<TxId>,
    /// Who was called gone, and has not been let in again, each with whether it is in reach.
    #[serde(default)]
    pub gone: BTreeMap<NodeId, bool>,
    /// Those of them that the seeds' word took out, as the roster had them.
    #[serde(default)]
    pub gone_by_seeds: Vec<Participant>,
    /// Nodes that still take part though the seeds certify their end, if there are such.
    #[serde(default)]
    pub dead_stay: Option<DeadStay>,
}

impl Rollout {
    /// The node as it is at `now`.
    pub fn status(&self, now: Time) -> Status {
        let running = self
            .running
            .as_ref()
            .map(|it| RunningStatus { txid: it.proposal.txid.clone(), waits_for: it.missing() });
        let in_doubt = self.doubt.as_ref().map(|it| DoubtStatus {
            txid: it.txid.clone(),
            waited: now.since(it.since),
            waits_for: self.waits_for(),
        });
        let others = self.roster.nodes().map(|it| &it.node_id);
        let peers = others.filter(|it| **it != self.config.me).map(|node| {
            let peer = self.peers.get(node);
            PeerStatus {
                node_id: node.clone(),
                is_linked: peer.is_some(),
                away: self.away.get(node).map(|since| now.since(*since)),
                heartbeat: peer.and_then(|it| it.heartbeat.clone()),
                health: peer.and_then(|it| it.health.clone()),
            }
        });
        let by_seeds = self.gone.iter().filter(|it| it.1.by == Word::Seeds);
        Status {
            node_id: self.config.me.clone(),
            state: self.state.clone(),
            digest: self.state_digest,
            roster: self.roster.clone(),
            course: self.course.clone(),
            running,
            in_doubt,
            recalling: if self.is_blank() { self.recall_waits_for() } else { BTreeSet::new() },
            next_step: self.next_step(now),
            brake: self.brake().cloned(),
            held: self.held_told.clone(),
            health: self.health.clone(),
            peers: peers.collect(),
            removed: self.removed().map(|it| it.txid.clone()),
            gone_by_seeds: by_seeds.map(|it| it.1.participant.clone()).collect(),
            dead_stay: self.dead.held.clone(),
            gone: self.gone.keys().map(|it| (it.clone(), self.reaches(it))).collect(),
        }
    }

    fn next_step(&self, now: Time) -> Option<Duration> {
        let course = self.course.as_ref().filter(|it| it.phase == Phase::Running)?;
        let interval = Duration::from_millis(course.plan.interval_ms);
        Some(interval.saturating_sub(now.since(self.course_at)))
    }

    /// This node.
    pub const fn me(&self) -> &NodeId {
        &self.config.me
    }

    /// Who takes part.
    pub const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Whether that node is linked.
    pub fn reaches(&self, node: &NodeId) -> bool {
        self.peers.contains_key(node)
    }

    /// Who is linked under a name of which nobody takes part.
    pub fn stranger(&self, node: &NodeId) -> Option<(LinkId, PublicKey)> {
        let peer = self.peers.get(node).filter(|_| !self.roster.has(node))?;
        Some((peer.link, peer.key))
    }

    /// The key that had that name until it was called gone.
    pub fn gone_key(&self, node: &NodeId) -> Option<PublicKey> {
        self.gone.get(node).map(|it| it.participant.key)
    }

    /// Whether a name of which nobody takes part is another key's here, so that this one cannot
    /// have it: a stranger's place is nobody else's, but whose name it was until it was called gone
    /// has it back.
    pub fn is_claimed(&self, node: &NodeId, key: PublicKey) -> bool {
        let is_other = self.stranger(node).is_some_and(|it| it.1 != key);
        is_other && self.gone_key(node) != Some(key)
    }

    /// By which transaction that key was called gone, if its name is another key's now.
    pub fn replaced(&self, caller: &Participant) -> Option<TxId> {
        let known = self.roster.get(&caller.node_id).filter(|it| it.key != caller.key);
        known.and_then(|_| self.memory.called_gone(&self.config.roster, caller))
    }

    /// Those in reach that the seeds' word took out, as the roster had them.
    pub fn returned(&self) -> impl Iterator<Item = &Participant> {
        let is_back = |it: &&Absent| {
            let peer = self.peers.get(&it.participant.node_id);
            it.by == Word::Seeds && peer.is_some_and(|peer| peer.key == it.participant.key)
        };
        self.gone.values().filter(is_back).map(|it| &it.participant)
    }

    /// How many are linked that do not take part.
    pub fn strangers(&self) -> usize {
        self.peers.keys().filter(|it| !self.roster.has(it)).count()
    }

    /// What was committed here, one a version, without a gap up to the present: the last
    /// [`HISTORY_MAX`](super::HISTORY_MAX) at least, as far as this node has them.
    pub fn history(&self) -> &[Committed] {
        &self.memory.history
    }

    /// What came to nothing, as far as this node knows and keeps it, oldest first.
    pub fn aborted(&self) -> impl Iterator<Item = &Aborted> {
        self.memory.aborted.iter()
    }

    /// The transaction that this node voted COMMIT on and does not know the end of.
    pub const fn prepared(&self) -> Option<&Proposal> {
        self.memory.prepared.as_ref()
    }

    /// Records that make this node's memory, in place of all that it wrote.
    pub fn snapshot(&self) -> Vec<super::event::Record> {
        self.memory.snapshot()
    }
}
