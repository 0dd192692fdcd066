//! Options, events and counters of an engine.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::store::LogStoreError;
use crate::machine::chat;
use crate::model::{Endpoint, KeyPair, PublicKey};
use crate::proto::chat::entry::{Entry, Member, MemberId};
use crate::proto::sealed::ClusterKeys;
use crate::runtime::driver::options::EventSink;
use crate::runtime::engine::options::EngineLimits;
use crate::runtime::files::FilesError;
use crate::runtime::listen;

/// Rule for founding a group when the log knows none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBootstrap {
    /// A group is founded with this member alone.
    IfNew,
    /// No group is founded: one is joined.
    Never,
}

/// Function that decides whether a key may be a member's.
pub type KeyFilter = Box<dyn Fn(&PublicKey) -> bool + Send + Sync>;

/// Options of an engine.
pub struct ChatOptions {
    /// Listen address; `None` if another listener serves connections by `ChatEngine::server`.
    pub listen: Option<SocketAddr>,
    /// Key pair of this member.
    pub keys: KeyPair,
    /// This member, as it is announced to others. If its port is 0, that of `listen` is announced.
    pub me: Member,
    /// Directory of the log.
    pub log_dir: PathBuf,
    /// A file away from the log, beside the key, that remembers that there is a log: a key without
    /// its log must not vote again.
    pub marker: Option<PathBuf>,
    /// Addresses at which members of the group may be found.
    pub seeds: Vec<(Option<MemberId>, Endpoint)>,
    /// Limits and settings of the machine.
    pub config: chat::Config,
    /// Cluster keys: with them, connections are encrypted, and an end without one is refused.
    pub cluster_keys: Option<Arc<ClusterKeys>>,
    /// Rule for founding a group.
    pub bootstrap: GroupBootstrap,
    /// Limits of the engine.
    pub limits: EngineLimits,
    /// Decides which keys may be members at all; without it, any proved key may. Called on the
    /// threads of connections, which it may hold up.
    pub key_filter: Option<KeyFilter>,
    /// Receiver of the engine's events. Called by the thread that owns the machine: it must not
    /// block.
    pub sink: Box<dyn EventSink<ChatNotification>>,
}

/// Event of an engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatNotification {
    /// Entries that are final, in order.
    Delivered(Vec<Arc<Entry>>),
    /// An event of the machine.
    Event(chat::Event),
    /// A note for people about the surroundings.
    Note(String),
    /// The disk has failed: nothing more is done, and the process must end.
    Failed(String),
}

/// Reason why an engine cannot start.
#[derive(Debug)]
pub enum ChatStartError {
    /// The port cannot be listened on.
    Listen(listen::ListenError),
    /// The log cannot be used.
    Store(LogStoreError),
    /// The system gives no randomness.
    Files(FilesError),
    /// There is no room for the first threads.
    Threads(io::Error),
}

impl fmt::Display for ChatStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Files(error) => error.fmt(f),
            Self::Threads(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl Error for ChatStartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Files(error) => Some(error),
            Self::Threads(error) => Some(error),
        }
    }
}
