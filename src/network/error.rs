//! Errors of a network.

use std::error::Error;
use std::fmt;
use std::io;

use crate::machine::direct::FailKind;
use crate::runtime::cluster_key::ClusterKeyError;
use crate::runtime::files::FilesError;
use crate::runtime::journal::JournalError;
use crate::runtime::{chat, listen, order, rollout};

/// Reason why a network could not be started.
#[derive(Debug)]
pub enum StartError {
    /// A name in the builder is no address.
    Address {
        /// The address as it was given.
        given: String,
        /// Reason why it is no address.
        reason: String,
    },
    /// Settings contradict each other, or are out of range.
    Setting(String),
    /// The port cannot be listened on.
    Listen(listen::ListenError),
    /// The data directory cannot be used.
    Files(FilesError),
    /// The journal cannot be used.
    Journal(JournalError),
    /// The cluster key cannot be used.
    ClusterKey(ClusterKeyError),
    /// A chat cannot start.
    Chat(chat::ChatStartError),
    /// A member of a Byzantine order cannot start.
    Order(order::OrderStartError),
    /// A node of rollouts cannot start.
    Rollout(rollout::RolloutStartError),
    /// The network has stopped.
    Network(NetworkError),
    /// The system refused something else.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { given, reason } => write!(f, "{given:?} is no address: {reason}"),
            Self::Setting(text) => f.write_str(text),
            Self::Listen(error) => error.fmt(f),
            Self::Files(error) => error.fmt(f),
            Self::Journal(error) => error.fmt(f),
            Self::ClusterKey(error) => error.fmt(f),
            Self::Chat(error) => error.fmt(f),
            Self::Order(error) => error.fmt(f),
            Self::Rollout(error) => error.fmt(f),
            Self::Network(error) => error.fmt(f),
            Self::System(error) => write!(f, "the system has no room for another node: {error}"),
        }
    }
}

impl Error for StartError {}

macro_rules! start_error_from {
    ($($variant:ident($source:ty)),* $(,)?) => {
        $(impl From<$source> for StartError {
            fn from(source: $source) -> Self {
                Self::$variant(source)
            }
        })*
    };
}

start_error_from! {
    Listen(listen::ListenError), Files(FilesError), Journal(JournalError),
    ClusterKey(ClusterKeyError), Chat(chat::ChatStartError), Order(order::OrderStartError),
    Rollout(rollout::RolloutStartError),
    Network(NetworkError), System(io::Error),
}

/// Reason why a call did nothing. All are definite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// The network has stopped.
    Stopped,
    /// The message was not published; the reason, for people.
    NotPublished(String),
    /// The topic is not 1 to 128 bytes without control characters.
    Topic,
    /// Another queue of the application reads direct messages already.
    InboxTaken,
    /// The awaited state was not reached in time; a description for people.
    TimedOut(String),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the network has stopped"),
            Self::NotPublished(reason) => write!(f, "not published: {reason}"),
            Self::Topic => f.write_str("a topic is 1 to 128 bytes without control characters"),
            Self::InboxTaken => f.write_str("direct messages are being read already"),
            Self::TimedOut(what) => write!(f, "not in time: {what}"),
        }
    }
}

impl Error for NetworkError {}

/// Reason why a direct message was not delivered, or why its outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    /// Kind of failure; [`FailKind::is_definite`] is true if the message surely did not arrive.
    pub kind: FailKind,
    /// The reason, for people.
    pub reason: String,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, reason } = self;
        if kind.is_definite() {
            write!(f, "not delivered: {reason}")
        } else {
            write!(f, "it may have been delivered or not: {reason}")
        }
    }
}

impl Error for SendError {}
