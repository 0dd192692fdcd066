//! Atomic rollouts in a program of one's own.
//!
//! A [`Rollout`] is one node of the group that steps versions together: with a data plane, which
//! sends each request to the version that is its turn, and a log of transactions on disk.

mod counts;
mod decider;
mod group;
mod node;
mod outside;
mod versions;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use decider::DecisionStore;
pub use node::{NodeOptions, RolloutNode};
pub use outside::OutsideAnswers;
pub use versions::ServedVersions;

use super::error::{NetworkError, StartError};
use super::order::OrderedLog;
use super::peer::Network;
use super::queue::{ByteSize, Queue, Readers};
use crate::machine::rollout::NodeStatus;
pub use crate::machine::rollout::{
    Command as RolloutOrder, CommandResult as RolloutOutcome, Event as RolloutEvent,
};
use crate::model::Now;
use crate::proto::rollout::{ModelId, NodeId, RoutingState};
use crate::runtime::dataplane::{self, Servers};
use crate::runtime::driver::options::EventSink;
use crate::runtime::rollout::{AdmissionPolicy, EngineStatus, RolloutNotification};

impl ByteSize for RolloutEvent {
    fn bytes(&self) -> usize {
        size_of::<Self>() + 1_024
    }
}

/// Settings of a node of rollouts before it starts.
#[derive(Debug)]
pub struct RolloutBuilder<'a> {
    network: &'a Network,
    name: String,
    listen: SocketAddr,
    served: Vec<(String, String)>,
    versions: (String, String),
    data: PathBuf,
    order: Option<Arc<OrderedLog>>,
}

impl Network {
    /// A node of rollouts of this name inside this peer, to be configured and started. A name is
    /// 1 to 64 letters, digits, dots and dashes.
    pub fn rollout(&self, name: &str) -> RolloutBuilder<'_> {
        RolloutBuilder {
            network: self,
            name: name.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            served: Vec::new(),
            versions: ("v1".to_owned(), "v2".to_owned()),
            data: self.peer.dir.join("rollout"),
            order: None,
        }
    }
}

impl RolloutBuilder<'_> {
    /// Listen address of the data plane; port 0 lets the system choose. The default is
    /// `127.0.0.1:0`.
    #[must_use]
    pub const fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Servers that answer for a version, as in `serve("v1", "http://a:9001,http://b:9001")`.
    /// Without any a built-in model answers for all versions with its input.
    #[must_use]
    pub fn serve(mut self, version: &str, url: &str) -> Self {
        self.served.push((version.to_owned(), url.to_owned()));
        self
    }

    /// Version that is served before the first rollout, and the one after it; the same on all
    /// nodes. The default is `v1` and `v2`.
    #[must_use]
    pub fn versions(mut self, stable: &str, next: &str) -> Self {
        self.versions = (stable.to_owned(), next.to_owned());
        self
    }

    /// Directory of the log of transactions. The default is in the network's own directory.
    #[must_use]
    pub fn data(mut self, dir: impl AsRef<Path>) -> Self {
        self.data = dir.as_ref().to_owned();
        self
    }

    /// Byzantine order in which decisions are kept: a dead coordinator blocks nobody, and none can
    /// show two ends of a transaction. All nodes are members of it, and all say so.
    #[must_use]
    pub fn decide_in(mut self, order: &Arc<OrderedLog>) -> Self {
        self.order = Some(Arc::clone(order));
        self
    }

    /// Finds the other nodes through the fleet, and begins; founds a history if there are none.
    ///
    /// Blocks for 2.5 s, and up to 20 s longer where the fleet has not admitted this peer yet.
    ///
    /// # Errors
    /// Fails if a name or an address is malformed, the order is not a Byzantine one, the data plane
    /// cannot listen, the log cannot be used, or the network has stopped.
    pub fn start(self) -> Result<Rollout, StartError> {
        let wrong = |reason: &str| StartError::Setting(reason.to_owned());
        let me: NodeId = self.name.parse().map_err(wrong)?;
        let version = |name: &str| name.parse::<ModelId>().map_err(wrong);
        let (stable, next) = (version(&self.versions.0)?, version(&self.versions.1)?);
        let servers = |(name, urls): &(String, String)| {
            Ok((version(name)?, urls.parse::<Servers>().map_err(wrong)?))
        };
        let servers = self.served.iter().map(servers).collect::<Result<_, StartError>>()?;
        let decisions = self.order.map(|it| {
            it.engine().ok_or_else(|| {
                wrong("a crash order decides no rollouts; found it with Order::byzantine")
            })?;
            Ok::<_, StartError>(DecisionStore::of(it))
        });
        std::fs::create_dir_all(&self.data)?;
        let options = NodeOptions {
            at: self.network.endpoint(),
            http: self.listen,
            servers,
            plane_limits: dataplane::DataPlaneLimits::default(),
            proxy: dataplane::ProxyOptions::default(),
            initial: RoutingState::initial(stable, next),
            bootstrap: None,
            cluster_keys: None,
            log: self.data.join(format!("{me}.log")),
            servers_file: self.data.join(format!("{me}.servers.json")),
            decisions: decisions.transpose()?,
            policy: AdmissionPolicy::Vouched,
            kill_at: None,
            me,
        };
        let network = self.network.handle();
        let events = Readers::default();
        let sink = Box::new(Reports(events.clone()));
        let keys = network.keys();
        let node = RolloutNode::start(options, keys, Some(&network), (sink, || false))?;
        let node = node.ok_or(StartError::Network(NetworkError::Stopped))?;
        Ok(Rollout { node, network, events })
    }
}

/// Sink that passes events to the readers.
struct Reports(Readers<RolloutEvent>);

impl EventSink<RolloutNotification> for Reports {
    fn take(&self, _: Now, told: RolloutNotification) -> bool {
        match told {
            RolloutNotification::Event(event) => self.0.push(&event),
            RolloutNotification::Note(note) => {
                log::warn!("{note}");
                true
            }
            RolloutNotification::Failed(_) => {
                self.0.close();
                true
            }
            RolloutNotification::Founded(_)
            | RolloutNotification::Serve(_)
            | RolloutNotification::ChangeServers { .. }
            | RolloutNotification::Probe(_)
            | RolloutNotification::Decide { .. } => true,
        }
    }
}

/// One node of atomic rollouts. See the [module](self).
///
/// Dropping it stops the node; its log keeps what was decided.
pub struct Rollout {
    node: RolloutNode,
    network: Arc<Network>,
    events: Readers<RolloutEvent>,
}

impl Rollout {
    /// Address at which the data plane listens: `POST /predict`, `GET /routing`, `/health` and
    /// `/metrics`.
    pub fn address(&self) -> SocketAddr {
        self.node.plane.addr()
    }

    /// Carries out an order on all nodes, or on none: begin a rollout, take a step, pause, abort,
    /// roll back. Blocks until it is decided, a few seconds at most.
    ///
    /// # Errors
    /// Fails if the node has stopped, for instance because its disk failed.
    pub fn order(&self, order: RolloutOrder) -> Result<RolloutOutcome, NetworkError> {
        self.node.engine.command(order).map_err(|_| NetworkError::Stopped)
    }

    /// Status of the node and of the group, as this node sees it; `None` while there is no history
    /// yet, because the others have not let this node in.
    ///
    /// # Errors
    /// Fails if the node has stopped.
    pub fn status(&self) -> Result<Option<Box<NodeStatus>>, NetworkError> {
        match self.node.engine.standing().map_err(|_| NetworkError::Stopped)? {
            EngineStatus::Running { status, .. } => Ok(Some(status)),
            EngineStatus::Forming { .. } => Ok(None),
        }
    }

    /// Stops the node and its data plane. A second call does nothing.
    pub fn stop(&self) {
        self.node.stop();
        self.events.close();
    }

    /// Subscribes to the events of the node, from now on.
    ///
    /// # Errors
    /// Fails if the node has stopped.
    pub fn events(&self) -> Result<Queue<RolloutEvent>, NetworkError> {
        self.events.open()
    }
}

impl Drop for Rollout {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Rollout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.network.endpoint();
        f.debug_struct("Rollout").field("at", &at).field("http", &self.address()).finish()
    }
}
