//! Options, events and counters of an engine.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::store::StoreError;
use crate::machine::chat;
use crate::model::{Endpoint, KeyPair, PublicKey};
use crate::proto::chat::entry::{Entry, Member, MemberId};
use crate::proto::sealed::ClusterKeys;
use crate::runtime::driver::counters::Counter;
use crate::runtime::driver::options::Sink;
use crate::runtime::files::FilesError;
use crate::runtime::listen;

/// Limits of one engine. Each protects it from the other ends of its sockets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time-out of a new connection until both ends have proved their keys.
    pub handshake_timeout: Duration,
    /// Time-out of a call to be connected.
    pub dial_timeout: Duration,
    /// Time-out of an end that takes none of the bytes that wait for it.
    pub write_timeout: Duration,
    /// Largest number of accepted connections that have not proved a key; above this the oldest is
    /// closed.
    pub silent_max: usize,
    /// Largest number of connections; above this new ones are closed at once.
    pub links_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(2),
            write_timeout: Duration::from_secs(10),
            silent_max: 64,
            links_max: 1_024,
        }
    }
}

/// Rule for founding a group when the log knows none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Founds {
    /// A group is founded with this member alone.
    IfNew,
    /// No group is founded: one is joined.
    Never,
}

/// Function that decides whether a key may be a member's.
pub type Allows = Box<dyn Fn(&PublicKey) -> bool + Send + Sync>;

/// Options of an engine.
pub struct Options {
    /// Listen address; `None` if another listener serves connections by `Engine::server`.
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
    pub founds: Founds,
    /// Limits of the engine.
    pub limits: Limits,
    /// Decides which keys may be members at all; without it, any proved key may. Called on the
    /// threads of connections, which it may hold up.
    pub allows: Option<Allows>,
    /// Receiver of the engine's events. Called by the thread that owns the machine: it must not
    /// block.
    pub sink: Box<dyn Sink<Told>>,
}

/// Event of an engine.
#[derive(Clone, Debug)]
pub enum Told {
    /// These entries are final, in order.
    Delivered(Vec<Arc<Entry>>),
    /// An event of the machine.
    Event(chat::Event),
    /// A note for people about the surroundings.
    Note(String),
    /// The disk has failed: nothing more is done, and the process must end.
    Failed(String),
}

/// Counters of an engine.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections over which both ends have proved their keys.
    pub links: Counter,
    /// Accepted connections closed for want of room.
    pub refused_full: Counter,
    /// Accepted connections that left, or sent nothing useful in time.
    pub refused_silent: Counter,
    /// Accepted connections that speak another dialect.
    pub refused_dialect: Counter,
    /// Connections without a cluster key, or with another one.
    pub refused_key: Counter,
    /// Handshakes that failed, or whose caller may not join.
    pub refused_handshake: Counter,
    /// Lines that were no messages.
    pub refused_line: Counter,
    /// Connections cut because their other end does not read.
    pub cut_full: Counter,
}

/// Reason why an engine cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The port cannot be listened on.
    Listen(listen::StartError),
    /// The log cannot be used.
    Store(StoreError),
    /// The system gives no randomness.
    Files(FilesError),
    /// There is no room for the first threads.
    Threads(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Files(error) => error.fmt(f),
            Self::Threads(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Files(error) => Some(error),
            Self::Threads(error) => Some(error),
        }
    }
}
