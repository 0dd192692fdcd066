//! What an engine is told at its start, and what it tells.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::store::StoreError;
use crate::model::{Endpoint, KeyPair, PublicKey};
use crate::protocol::chat::{self, Entry, Member, MemberId};
use crate::runtime::driver::counters::Counter;
use crate::runtime::driver::options::Sink;
use crate::runtime::files::FilesError;
use crate::runtime::listen;
use crate::wire::sealed::ClusterKeys;

/// The bounds of one engine. Every one protects it from the other ends of its sockets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a new connection may take until both ends have proved their keys.
    pub handshake_timeout: Duration,
    /// How long a call may take to be connected.
    pub dial_timeout: Duration,
    /// How long the other end may take nothing of what waits for it.
    pub write_timeout: Duration,
    /// Accepted connections that have not proved a key; above this the oldest is closed.
    pub silent_max: usize,
    /// Connections in all; above this new ones are closed at once.
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

/// Whether a group is begun where the log knows none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Founds {
    /// Yes, with this member alone.
    IfNew,
    /// No: one is joined.
    Never,
}

/// Whether a key may be a member's.
pub type Allows = Box<dyn Fn(&PublicKey) -> bool + Send + Sync>;

/// What an engine is told at its start.
pub struct Options {
    /// Where to listen; nowhere if whoever is called at `Engine::server` listens.
    pub listen: Option<SocketAddr>,
    /// This member's key.
    pub keys: KeyPair,
    /// This member, as others are told of it. Where its port is 0, that of `listen` is told.
    pub me: Member,
    /// Where its log is.
    pub log_dir: PathBuf,
    /// A file away from the log, beside the key, that remembers that there is a log: a key without
    /// its log must not vote again.
    pub marker: Option<PathBuf>,
    /// Where members of the group may be found.
    pub seeds: Vec<(Option<MemberId>, Endpoint)>,
    /// The machine's limits and habits.
    pub config: chat::Config,
    /// With keys, connections are encrypted, and nobody without one is heard.
    pub cluster_keys: Option<Arc<ClusterKeys>>,
    /// Whether a group is begun.
    pub founds: Founds,
    /// The bounds.
    pub limits: Limits,
    /// Whose keys may be members at all; without it, whoever proves one. Asked on the threads of
    /// connections, which it may hold up.
    pub allows: Option<Allows>,
    /// Where what happens is told. Called by the thread that owns the machine: it must not block.
    pub sink: Box<dyn Sink<Told>>,
}

/// What an engine tells.
#[derive(Clone, Debug)]
pub enum Told {
    /// These are final, in order.
    Delivered(Vec<Arc<Entry>>),
    /// Something happened.
    Event(chat::Event),
    /// For people: something about the surroundings.
    Note(String),
    /// The disk fails: nothing more is done, and the process must end.
    Failed(String),
}

/// What an engine has turned away so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections over which both ends have proved their keys.
    pub links: Counter,
    /// Accepted connections closed for want of room.
    pub refused_full: Counter,
    /// Accepted connections that left, or said nothing useful in time.
    pub refused_silent: Counter,
    /// Accepted connections that speak something else.
    pub refused_dialect: Counter,
    /// Connections without a cluster key, or with another one.
    pub refused_key: Counter,
    /// Handshakes that failed, or of somebody who may not join.
    pub refused_handshake: Counter,
    /// Lines that were no messages.
    pub refused_line: Counter,
    /// Connections cut because their other end does not read.
    pub cut_full: Counter,
}

/// Why an engine cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The port cannot be listened on.
    Listen(listen::StartError),
    /// The log cannot be used.
    Store(StoreError),
    /// There is no randomness.
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
