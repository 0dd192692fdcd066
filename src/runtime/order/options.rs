//! Options and events of an engine.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::machine::bft;
use crate::model::KeyPair;
use crate::proto::bft::Committee;
use crate::proto::chat::entry::{Entry, MemberId};
use crate::proto::sealed::ClusterKeys;
use crate::runtime::driver::options::EventSink;
use crate::runtime::engine::options::EngineLimits;
use crate::runtime::files::FilesError;
use crate::runtime::listen;
use crate::runtime::member_log::LogStoreError;

/// Options of an engine.
pub struct OrderOptions {
    /// Listen address; `None` if another listener serves connections by `OrderEngine::server`.
    pub listen: Option<SocketAddr>,
    /// Key pair of this member. One that is no member's only follows the order.
    pub keys: KeyPair,
    /// Id of this member in its committee.
    pub me: MemberId,
    /// Committee with which the group was founded.
    pub founders: Arc<Committee>,
    /// Salt of the group's identity.
    pub salt: String,
    /// Directory of the log.
    pub log_dir: PathBuf,
    /// A file beside the key, to whose name that of the group is added: it remembers that the key
    /// has signed in the group (B20).
    pub marker: Option<PathBuf>,
    /// True if the operator says that the log may be a copy: what the key has signed may be
    /// missing in it (B20).
    pub is_restored: bool,
    /// Limits and settings of the machine.
    pub config: bft::Config,
    /// Cluster keys: with them, connections are encrypted, and an end without one is refused.
    pub cluster_keys: Option<Arc<ClusterKeys>>,
    /// Limits of the engine.
    pub limits: EngineLimits,
    /// Receiver of the engine's events. Called by the thread that owns the machine: it must not
    /// block.
    pub sink: Box<dyn EventSink<OrderNotification>>,
}

/// Event of an engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderNotification {
    /// Messages that are final, in order.
    Delivered(Vec<Arc<Entry>>),
    /// An event of the machine.
    Event(bft::Event),
    /// A note for people about the surroundings.
    Note(String),
    /// The disk has failed, or another process uses the key: nothing more is done, and the process
    /// must end.
    Failed(String),
}

/// Reason why an engine cannot start.
#[derive(Debug)]
pub enum OrderStartError {
    /// The port cannot be listened on.
    Listen(listen::ListenError),
    /// The log cannot be used.
    Store(LogStoreError),
    /// The records of the log contradict each other.
    Records(String),
    /// The system gives no randomness.
    Files(FilesError),
    /// There is no room for the first threads.
    Threads(io::Error),
}

impl fmt::Display for OrderStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Records(reason) => write!(f, "the log cannot be used: {reason}"),
            Self::Files(error) => error.fmt(f),
            Self::Threads(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl Error for OrderStartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Records(_) => None,
            Self::Files(error) => Some(error),
            Self::Threads(error) => Some(error),
        }
    }
}
