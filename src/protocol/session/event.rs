//! What a session tells its node: links, probes, failures, refusals.

use std::net::IpAddr;

use super::{Card, Intent};
use std::sync::Arc;

use crate::model::Endpoint;
use crate::protocol::message::Message;
use crate::protocol::{DialError, LinkId};

/// What the handshake tells its node.
#[derive(Debug)]
pub enum Event {
    /// The other end proved its key. The node must now call [`super::Session::admit`] or hang up.
    Opened {
        /// The link.
        link: LinkId,
        /// Who is there.
        card: Arc<Card>,
        /// Whether this node dialed; else it was called.
        dialed: bool,
        /// What the caller wants.
        intent: Intent,
    },
    /// A probe was answered; the card is proved, but may be another life or key than expected.
    Answered {
        /// Whom this node asked for.
        to: Endpoint,
        /// Who answered.
        card: Arc<Card>,
    },
    /// A dialed handshake came to nothing.
    Failed {
        /// Whom this node called.
        to: Endpoint,
        /// What for.
        intent: Intent,
        /// Why not.
        error: CallError,
    },
    /// A message that the link's standing allows.
    Message {
        /// The link.
        link: LinkId,
        /// The message.
        msg: Box<Message>,
    },
    /// Something was refused; the sender was told where that is possible.
    Refused {
        /// The sender's address.
        from: IpAddr,
        /// What was wrong.
        cause: Cause,
        /// Details for people.
        detail: String,
    },
    /// An open link ended.
    Closed {
        /// The link.
        link: LinkId,
        /// Who was there.
        card: Arc<Card>,
        /// Whether one of the two ends wanted it so.
        is_agreed: bool,
        /// Why, for people.
        reason: String,
    },
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// No connection.
    Dial(DialError),
    /// A connection, but no valid answer in time.
    Silent,
    /// The other side closed the connection before it answered, as a dying process does.
    Closed,
    /// The other side refused.
    Rejected(String),
    /// The answer did not prove what it claimed.
    BadProof,
}

impl CallError {
    /// The reason in words.
    pub fn text(&self) -> String {
        match self {
            Self::Dial(error) => error.as_str().to_owned(),
            Self::Silent => "connected, but no answer in time".to_owned(),
            Self::Closed => "connected, but hung up on".to_owned(),
            Self::Rejected(reason) => format!("refused: {reason}"),
            Self::BadProof => "the answer did not prove its key".to_owned(),
        }
    }
}

/// What was wrong with something refused. Counted for each cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A line that is no message.
    Garbled,
    /// A message above the sender's standing.
    NotAllowed,
    /// A handshake that proved nothing.
    BadHandshake,
    /// No handshake in time.
    HandshakeTimeout,
    /// Too many unproven connections.
    TooManyUnproven,
    /// A certificate, vote or evidence that does not hold.
    Forged,
    /// Evidence that was valid once.
    Stale,
    /// A source that asks too often.
    TooMany,
    /// A message for another role.
    WrongRole,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Garbled,
        Self::NotAllowed,
        Self::BadHandshake,
        Self::HandshakeTimeout,
        Self::TooManyUnproven,
        Self::Forged,
        Self::Stale,
        Self::TooMany,
        Self::WrongRole,
    ];

    /// The cause's name in logs, counters and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Garbled => "garbled line",
            Self::NotAllowed => "message not allowed",
            Self::BadHandshake => "bad handshake",
            Self::HandshakeTimeout => "handshake time-out",
            Self::TooManyUnproven => "too many unproven connections",
            Self::Forged => "forged",
            Self::Stale => "stale",
            Self::TooMany => "too many requests",
            Self::WrongRole => "wrong role",
        }
    }
}
