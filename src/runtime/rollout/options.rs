//! Options of an engine, and its reports, status and errors.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::KillPoint;
use crate::machine::rollout::{Config, Event, NodeStatus, ServedState};
use crate::model::{KeyPair, PublicKey};
use crate::proto::rollout::{Committed, ModelId, NodeId, RoutingState, ServerChanges, TxId};
use crate::proto::sealed::ClusterKeys;
use crate::runtime::driver::options::{DialectServers, EventSink};
use crate::runtime::engine::options as engine;
use crate::runtime::files::FilesError;
use crate::runtime::journal::{JournalError, TornTail};
use crate::runtime::listen;

/// Limits of one engine. Each protects the process from the other ends of its sockets.
#[derive(Clone, Debug)]
pub struct RolloutLimits {
    /// Limits of its connections.
    pub engine: engine::EngineLimits,
    /// Largest number of linked nodes that are not in the roster; above this more are refused.
    pub strangers_max: usize,
}

impl Default for RolloutLimits {
    fn default() -> Self {
        let engine = engine::EngineLimits { links_max: 512, ..engine::EngineLimits::default() };
        Self { engine, strangers_max: 16 }
    }
}

/// Name and address of a node as an operator writes them, before its key is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddr {
    /// Name of the node.
    pub node_id: NodeId,
    /// Host name or address of the node.
    pub host: String,
    /// Port of the node, never 0.
    pub port: u16,
    /// Key of the node, if it was given; else the key that the node proves first.
    pub key: Option<PublicKey>,
}

impl FromStr for NodeAddr {
    type Err = &'static str;

    /// Parses `NAME=HOST:PORT`, with `@` and the key in hexadecimal digits behind it if the key is
    /// known.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write NAME=HOST:PORT, as in node-b=127.0.0.1:60002";
        let (name, at) = text.split_once('=').ok_or(WRONG)?;
        let (at, key) = match at.split_once('@') {
            Some((at, key)) => {
                let key = PublicKey::parse(key);
                (at, Some(key.ok_or("a key has 64 hexadecimal digits, and is on the curve")?))
            }
            None => (at, None),
        };
        let (host, port) = at.rsplit_once(':').ok_or(WRONG)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(WRONG)?;
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || host.len() > 255 || (host.contains(':') && !is_bracketed) {
            return Err(WRONG);
        }
        Ok(Self { node_id: name.parse()?, host: host.to_owned(), port, key })
    }
}

/// Beginning of the history of a node whose log has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryBootstrap {
    /// A history of these nodes and this one, which begins once all have proved their keys.
    By(Vec<NodeAddr>),
    /// The history of the node at one of these addresses, which is asked to let this one in.
    Join(Vec<String>),
}

/// Condition under which a node that asks is added to the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionPolicy {
    /// An operator, or the fleet, has vouched for its key.
    Vouched,
    /// The node has proved a key.
    Anybody,
}

/// Changes the default configuration of a machine.
pub type ConfigOverrides = Box<dyn FnOnce(&mut Config) + Send>;

/// Options of an engine.
pub struct RolloutOptions {
    /// Listen address; `None` if another listener serves connections by `RolloutEngine::server`.
    pub listen: Option<SocketAddr>,
    /// Key pair of this node.
    pub keys: KeyPair,
    /// Name of this node.
    pub me: NodeId,
    /// Host and port at which other nodes call this one; port 0 stands for the port it listens at.
    pub at: (String, u16),
    /// File of the log of transactions.
    pub log: PathBuf,
    /// Beginning of the history, if the log has none.
    pub bootstrap: HistoryBootstrap,
    /// Routing state of version 1, if this node founds the history.
    pub initial: RoutingState,
    /// Changes the default configuration of the machine.
    pub overrides: ConfigOverrides,
    /// Cluster keys; with them connections are encrypted, and a node without one is refused.
    pub cluster_keys: Option<Arc<ClusterKeys>>,
    /// Condition under which a node is added to the roster; with cluster keys, always
    /// [`AdmissionPolicy::Anybody`].
    pub policy: AdmissionPolicy,
    /// Servers of accepted connections of other dialects; the others are closed.
    pub guests: DialectServers,
    /// Limits of the engine.
    pub limits: RolloutLimits,
    /// Point at which the process kills itself, for tests.
    pub kill_at: Option<KillPoint>,
    /// Receiver of the reports. It is called by the thread that owns the machine, so it must not
    /// block.
    pub sink: Box<dyn EventSink<RolloutNotification>>,
}

/// Report of an engine to its sink.
#[derive(Clone, Debug)]
pub enum RolloutNotification {
    /// The data plane serves this state from now on.
    Serve(ServedState),
    /// The machine reports an event.
    Event(Event),
    /// The servers of this node change so, as all have agreed.
    ChangeServers {
        /// Version of the state with which it was committed.
        version: u64,
        /// Changes by version.
        changes: ServerChanges,
    },
    /// The server of this version is to answer one request; the result goes to
    /// `RolloutEngine::probed`.
    Probe(ModelId),
    /// The log of decisions is to take this (T10); the result goes to `RolloutEngine::decided`.
    Decide {
        /// Name of the transaction.
        txid: TxId,
        /// True to commit it, false to abort it.
        commit: bool,
        /// Proof that it may be committed.
        proof: Option<Box<Committed>>,
    },
    /// The history has begun with these nodes in its roster.
    Founded(Vec<NodeId>),
    /// A remark for people, such as a call that was refused.
    Note(String),
    /// The disk has failed: the engine does nothing more, and the process must end.
    Failed(String),
}

/// Key that came under a name that no node of the roster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownKey {
    /// Key that came under the name.
    pub key: PublicKey,
    /// True if the node of this key is linked; else another key holds the name here.
    pub is_linked: bool,
    /// True if the name was this key's until it was called gone.
    pub was_gone: bool,
}

/// Status of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum EngineStatus {
    /// The node has no history yet.
    Forming {
        /// Name of the node.
        node_id: NodeId,
        /// Nodes that have not proved a key yet, or addresses at which this one asks to be let in.
        waits_for: Vec<String>,
    },
    /// The node has a history.
    Running {
        /// Status of the machine.
        #[serde(flatten)]
        status: Box<NodeStatus>,
        /// Address and short key of each linked node that asks to be let in.
        #[serde(rename = "asking")]
        pending_members: BTreeMap<NodeId, String>,
        /// Keys that came under names that no node of the roster has.
        #[serde(default)]
        claims: BTreeMap<NodeId, Vec<UnknownKey>>,
        /// Reason for which calls to an unlinked node of the roster fail: a refusal, or a host
        /// without an address.
        #[serde(default)]
        refusals: BTreeMap<NodeId, String>,
    },
}

/// Result of reading the log at the start.
#[derive(Clone, Debug)]
pub struct ReplayReport {
    /// Number of entries of the log.
    pub records: usize,
    /// Part of the log that a crash tore, if any.
    pub torn: Option<TornTail>,
}

/// Error of starting an engine.
#[derive(Debug)]
pub enum RolloutStartError {
    /// The port cannot be listened on.
    Listen(listen::ListenError),
    /// The log cannot be used.
    Log(JournalError),
    /// The log is of another node, or is malformed.
    Foreign {
        /// File of the log.
        log: PathBuf,
        /// Complaint about it.
        reason: String,
    },
    /// The nodes named make no valid roster.
    Roster(&'static str),
    /// The system gives no randomness.
    Files(FilesError),
    /// The system has no room for the first threads.
    Threads(io::Error),
}

impl fmt::Display for RolloutStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => error.fmt(f),
            Self::Log(error) => error.fmt(f),
            Self::Foreign { log, reason } => {
                write!(f, "{}: {reason}; name another --log-dir", log.display())
            }
            Self::Roster(complaint) => write!(f, "the nodes that were named: {complaint}"),
            Self::Files(error) => error.fmt(f),
            Self::Threads(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl Error for RolloutStartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen(error) => Some(error),
            Self::Log(error) => Some(error),
            Self::Foreign { .. } | Self::Roster(_) => None,
            Self::Files(error) => Some(error),
            Self::Threads(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_name_an_address_and_perhaps_a_key() {
        let place: NodeAddr = "node-b=127.0.0.1:60002".parse().unwrap();
        assert_eq!(
            (place.node_id.as_str(), &*place.host, place.port),
            ("node-b", "127.0.0.1", 60_002)
        );
        assert_eq!(place.key, None);
        let key = KeyPair::from_secret([7; 32]).public();
        let place: NodeAddr = format!("b=[::1]:7@{key}").parse().unwrap();
        assert_eq!((&*place.host, place.key), ("[::1]", Some(key)));
        let wrong =
            ["", "b", "b=", "b=c", "b=c:0", "b=:7", "b=::1:7", "=c:7", "b c=d:7", "b=c:7@x"];
        for text in wrong {
            assert!(text.parse::<NodeAddr>().is_err(), "{text}");
        }
    }
}
