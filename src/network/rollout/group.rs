//! Node of rollouts that runs inside a peer: it uses the peer's port and key, and finds the other
//! nodes through the fleet. A node that the fleet has let in is let in here too.
//!
//! The engine is told of the members whose end a quorum of seeds certifies (T12). The seeds are
//! asked about members that are away, because their word may have gone out while this node was away
//! itself.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, Incarnation, PublicKey};
use crate::network::error::NetworkError;
use crate::network::group::{self, AnnouncementReply, GroupMember, Notice, Sought};
use crate::network::message::Message;
use crate::network::peer::Network;
use crate::network::queue::RecvError;
use crate::proto::dialect::Dialect;
use crate::proto::rollout::NodeId;
use crate::runtime::rollout::{EngineStatus, HistoryBootstrap, RolloutEngine};

/// Topic on which nodes are announced.
const TOPIC: &str = "folkmoot/rollout";

/// Interval at which the certificates of the seeds are read, if none comes sooner.
const HEED: Duration = Duration::from_secs(1);

/// Number of looks at the certificates for each time that the seeds are asked.
const ASK: u64 = 3;

/// Address and key of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct NodeDetails {
    at: Endpoint,
    key: PublicKey,
}

impl group::Details for NodeDetails {
    fn at(&self) -> Endpoint {
        self.at
    }

    fn are_of(&self, message: &Message) -> bool {
        self.at == message.origin && self.key == message.key
    }
}

type Announcement = group::Announcement<NodeId, NodeDetails>;

type Announcer = group::Announcer<NodeId, NodeDetails>;

/// Membership of a node in the fleet.
pub(super) struct Group {
    member: GroupMember<NodeId, NodeDetails>,
    network: Arc<Network>,
    me: NodeId,
}

impl Group {
    /// Begins to hear the announcements of nodes.
    ///
    /// # Errors
    /// Fails if the network has stopped.
    pub(super) fn new(network: &Arc<Network>, me: &NodeId) -> Result<Self, NetworkError> {
        let details = NodeDetails { at: network.endpoint(), key: network.keys().public() };
        let member = GroupMember::new((TOPIC, me.clone(), details), network)?;
        Ok(Self { member, network: Arc::clone(network), me: me.clone() })
    }

    /// Looks for nodes that have a history, until some are found or it is this node's turn to found
    /// one; `None` once `is_stopping` or the network has stopped.
    pub(super) fn find_group(&self, is_stopping: impl Fn() -> bool) -> Option<HistoryBootstrap> {
        let told = |notice| match notice {
            Notice::NotAdmitted => ::log::warn!(
                "the fleet has not let this node in yet; the search for other nodes begins then"
            ),
            Notice::Alone => ::log::warn!("no member of the fleet is in reach yet"),
            Notice::Waits(lowest) => ::log::info!("waits for {lowest} to begin a history"),
        };
        let sought = self.member.find_group(told, || !is_stopping());
        match sought {
            Sought::Join(places) => {
                Some(HistoryBootstrap::Join(places.iter().map(ToString::to_string).collect()))
            }
            Sought::Found => Some(HistoryBootstrap::By(Vec::new())),
            Sought::Stopped => None,
        }
    }

    /// Passes callers to `engine`, and answers nodes that look for others.
    ///
    /// # Errors
    /// Fails if a thread cannot be started.
    pub(super) fn serve(&mut self, engine: &RolloutEngine) -> io::Result<()> {
        for dialect in [Dialect::Rollout, Dialect::Framed] {
            self.network.dialects().open(dialect, engine.server(dialect));
        }
        let (announcer, heeding) = (self.member.announcer(), engine.clone());
        self.member.spawn("roll-seeds", move || CertifiedEnds::new(announcer, &heeding).run())?;
        let (me, engine) = (self.me.clone(), engine.clone());
        self.member.serve("roll-fleet", move |other| attend(&me, other, &engine))
    }

    /// Waits for the threads to end, after the engine and the network have stopped.
    pub(super) fn join(self) {
        self.member.join();
    }
}

/// Takes an announcement: nodes with a history answer those that look for one.
fn attend(me: &NodeId, other: &Announcement, engine: &RolloutEngine) -> AnnouncementReply {
    // The seeds have let it in.
    if engine.vouch(other.node_id.clone(), other.details.key).is_err() {
        return AnnouncementReply::Stop;
    }
    match engine.standing() {
        Ok(EngineStatus::Running { status, .. }) if other.seeks && status.roster.has(me) => {
            AnnouncementReply::Announce
        }
        Ok(EngineStatus::Running { .. } | EngineStatus::Forming { .. }) | Err(_) => {
            AnnouncementReply::Nothing
        }
    }
}

/// Thread that tells the engine of certified ends, and other nodes of this node's lives.
struct CertifiedEnds<'a> {
    announcer: Announcer,
    engine: &'a RolloutEngine,
    /// Keys that the engine was told last.
    told: BTreeSet<PublicKey>,
    /// Last life that the other nodes were told of.
    life: Option<Incarnation>,
}

impl<'a> CertifiedEnds<'a> {
    const fn new(announcer: Announcer, engine: &'a RolloutEngine) -> Self {
        Self { announcer, engine, told: BTreeSet::new(), life: None }
    }

    /// Runs until the network or the engine stops.
    fn run(mut self) {
        let Ok(removals) = self.announcer.network.removals() else { return };
        for round in 0_u64.. {
            // A certificate that has just come is heeded at once.
            if let Err(RecvError::Closed) = removals.recv_timeout(HEED) {
                return;
            }
            let keys: BTreeSet<_> =
                self.announcer.network.ended().iter().map(|it| it.key).collect();
            if keys != self.told && !self.engine.dead(keys.clone()) {
                return;
            }
            self.told = keys;
            self.say_life();
            if round.is_multiple_of(ASK) && !self.ask() {
                return;
            }
        }
    }

    /// Tells the other nodes of a new life of this node in the fleet: they may have taken it out.
    fn say_life(&mut self) {
        let status = self.announcer.network.status();
        let is_new = status.state == "member" && self.life != Some(status.incarnation);
        if is_new && self.announcer.announce(false) {
            self.life = Some(status.incarnation);
        }
    }

    /// Asks the seeds about members that are away, and those that are out and may be back; if this
    /// node is out itself, says that it is here. False once the engine is stopping.
    fn ask(&self) -> bool {
        let Ok(standing) = self.engine.standing() else { return false };
        let EngineStatus::Running { status, .. } = standing else { return true };
        if !status.roster.has(&self.announcer.me.node_id) {
            // The nodes that could let it in may not have been there when it said so.
            self.announcer.announce(false);
        }
        let away = status.peers.iter().filter(|it| !it.is_linked);
        let away = away.filter_map(|it| status.roster.get(&it.node_id));
        for it in away.chain(&status.gone_by_seeds) {
            // The seeds know members by address, not by a host's name.
            if let Ok(endpoint) = format!("{}:{}", it.host, it.port).parse() {
                self.announcer.network.ask_seeds(endpoint);
            }
        }
        true
    }
}
