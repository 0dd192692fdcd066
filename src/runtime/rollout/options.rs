//! What an engine is told at its start, and what it tells.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{KeyPair, PublicKey};
use crate::protocol::rollout::{
    Committed, Config, Event, ModelId, NodeId, NodeStatus, RoutingState, Serving, TxId,
};
use crate::runtime::driver::counters::Counter;
use crate::runtime::driver::options::{Dialects, Sink};
use crate::runtime::files::FilesError;
use crate::runtime::journal::{JournalError, TornTail};
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
    /// Connections of nodes that are not in the roster.
    pub strangers_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(2),
            write_timeout: Duration::from_secs(10),
            silent_max: 64,
            links_max: 512,
            strangers_max: 16,
        }
    }
}

/// A node as people name it, before its key is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub node_id: NodeId,
    /// Where it is called.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Its key, if that was told; else the one that it proves first.
    pub key: Option<PublicKey>,
}

impl FromStr for Place {
    type Err = &'static str;

    /// `NAME=HOST:PORT`, and the key in hexadecimal digits behind an `@` if it is known.
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

/// What a history begins with, where the log has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Founding {
    /// With these, this node among them, once all have proved their keys.
    By(Vec<Place>),
    /// With what the node at one of these addresses says, which is asked to let this one in.
    Join(Vec<String>),
}

/// Who is added to the roster when it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Who an operator, or the fleet, has vouched for.
    Vouched,
    /// Whoever proves a key.
    Anybody,
}

/// Where a process kills itself, to show that nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillPoint {
    /// A vote COMMIT is decided, and nothing of it is on disk.
    BeforeVote,
    /// A vote COMMIT has left.
    AfterVote,
    /// A decision is on disk, and nobody was told.
    AfterDecision,
    /// A decision has left for one other node.
    AfterFirstDecision,
}

impl FromStr for KillPoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "before-vote" => Ok(Self::BeforeVote),
            "after-vote" => Ok(Self::AfterVote),
            "after-decision" => Ok(Self::AfterDecision),
            "after-first-decision" => Ok(Self::AfterFirstDecision),
            _ => Err("one of before-vote, after-vote, after-decision, after-first-decision"),
        }
    }
}

/// Changes the usual habits of a machine.
pub type Habits = Box<dyn FnOnce(&mut Config) + Send>;

/// What an engine is told at its start.
pub struct Options {
    /// Where to listen; nowhere if whoever is called at `Engine::server` listens.
    pub listen: Option<SocketAddr>,
    /// This node's key.
    pub keys: KeyPair,
    /// This node.
    pub me: NodeId,
    /// Where others call it; port 0: where it listens.
    pub at: (String, u16),
    /// The log.
    pub log: PathBuf,
    /// What to begin with.
    pub founding: Founding,
    /// Version 1, where this node founds.
    pub initial: RoutingState,
    /// Changes the usual habits of the machine.
    pub habits: Habits,
    /// With keys, connections are encrypted, and nobody without one is heard.
    pub cluster_keys: Option<Arc<ClusterKeys>>,
    /// Who is let in.
    pub admits: Admits,
    /// Who serves accepted connections of other dialects; the others are closed.
    pub guests: Dialects,
    /// The bounds.
    pub limits: Limits,
    /// For experiments.
    pub kill_at: Option<KillPoint>,
    /// Where what happens is told. Called by the thread that owns the machine: it must not block.
    pub sink: Box<dyn Sink<Told>>,
}

/// What an engine tells.
#[derive(Clone, Debug)]
pub enum Told {
    /// This is served from now on.
    Serve(Serving),
    /// Something happened.
    Event(Event),
    /// Have the server of this version answer one request; answered by `Engine::probed`.
    Probe(ModelId),
    /// Put this into the log of decisions; answered by `Engine::decided` (T10).
    Decide {
        /// The transaction.
        txid: TxId,
        /// How it is to end.
        commit: bool,
        /// What shows that it may be committed.
        proof: Option<Box<Committed>>,
    },
    /// The history has begun, with this version of the roster's nodes.
    Founded(Vec<NodeId>),
    /// For people: something about the surroundings.
    Note(String),
    /// The disk fails: nothing more is done, and the process must end.
    Failed(String),
}

/// A key that came under a name of which nobody takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which.
    pub key: PublicKey,
    /// Whether its node is linked; else the name is another's here.
    pub is_linked: bool,
    /// Whether it had the name until it was called gone.
    pub was_gone: bool,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Standing {
    /// It has no history yet.
    Forming {
        /// Which node.
        node_id: NodeId,
        /// Who has not proved a key yet, or where it asks to be let in.
        waits_for: Vec<String>,
    },
    /// It takes part.
    Running {
        /// In what.
        #[serde(flatten)]
        status: Box<NodeStatus>,
        /// Who asks to be let in.
        asking: BTreeMap<NodeId, String>,
        /// The keys that came under names of which nobody takes part.
        #[serde(default)]
        claims: BTreeMap<NodeId, Vec<Claim>>,
        /// Who is out of reach because one end refuses the other, and why.
        #[serde(default)]
        refusals: BTreeMap<NodeId, String>,
    },
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
    /// Handshakes that failed, or of somebody who is not who the roster says.
    pub refused_handshake: Counter,
    /// Messages that were none.
    pub refused_message: Counter,
    /// Messages that were dropped: false votes, forged decisions, late ones.
    pub dropped: Counter,
    /// Connections cut because their other end does not read.
    pub cut_full: Counter,
}

/// What was read at the start, for people.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Records of the log.
    pub records: usize,
    /// What a crash tore.
    pub torn: Option<TornTail>,
}

/// Why an engine cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The port cannot be listened on.
    Listen(listen::StartError),
    /// The log cannot be used.
    Log(JournalError),
    /// The log is of another node, or of none.
    Foreign {
        /// The log.
        log: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The first roster is none.
    Roster(&'static str),
    /// There is no randomness.
    Files(FilesError),
    /// There is no room for the first threads.
    Threads(io::Error),
}

impl fmt::Display for StartError {
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

impl Error for StartError {
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
        let place: Place = "node-b=127.0.0.1:60002".parse().unwrap();
        assert_eq!(
            (place.node_id.as_str(), &*place.host, place.port),
            ("node-b", "127.0.0.1", 60_002)
        );
        assert_eq!(place.key, None);
        let key = KeyPair::from_secret([7; 32]).public();
        let place: Place = format!("b=[::1]:7@{key}").parse().unwrap();
        assert_eq!((&*place.host, place.key), ("[::1]", Some(key)));
        let wrong =
            ["", "b", "b=", "b=c", "b=c:0", "b=:7", "b=::1:7", "=c:7", "b c=d:7", "b=c:7@x"];
        for text in wrong {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
