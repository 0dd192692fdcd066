//! Events of a session: links, answers to probes, failures, refusals.

use crate::proto::message::Message;
use std::net::IpAddr;

use super::{Session, Timer};
use crate::machine::{DialError, LinkId, Never, NodeCall, NodeMessage, PingHost, Vocabulary};
use crate::model::Endpoint;
use crate::proto::hello::{Intent, NodeInfo};
use crate::proto::refusal::{ErrorCode, ErrorReply};
use std::sync::Arc;

impl Vocabulary for Session {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = PingHost;
}

/// Events of a session for its node.
#[derive(Debug)]
pub enum Event {
    /// The other end proved its key. The node must now call [`super::Session::admit`] or hang up.
    Opened {
        /// Link that was opened.
        link: LinkId,
        /// Node info of the other end.
        info: Arc<NodeInfo>,
        /// True if this node dialed; false if it was called.
        dialed: bool,
        /// Purpose of the call.
        intent: Intent,
    },
    /// A probe was answered; the node info is proved, but may be another life or key than expected.
    Answered {
        /// Endpoint that this node called.
        to: Endpoint,
        /// Node info of the node that answered.
        info: Arc<NodeInfo>,
    },
    /// A dialed handshake failed.
    Failed {
        /// Endpoint that this node called.
        to: Endpoint,
        /// Purpose of the call.
        intent: Intent,
        /// Reason of the failure.
        error: CallError,
    },
    /// A message that the link's standing allows.
    Message {
        /// Link on which the message came.
        link: LinkId,
        /// Message that came.
        msg: Box<Message>,
    },
    /// The other end refused a message.
    Error {
        /// Link on which the refusal came.
        link: LinkId,
        /// Refusal that came.
        error: ErrorReply,
    },
    /// A message or connection was refused; the sender was told where that is possible.
    Refused {
        /// Address of the sender.
        from: IpAddr,
        /// Kind of the offense.
        cause: RejectReason,
        /// Details for people.
        detail: String,
    },
    /// An open link ended.
    Closed {
        /// Link that ended.
        link: LinkId,
        /// Node info of the other end.
        info: Arc<NodeInfo>,
        /// True if one of the two ends intended to close the link.
        is_agreed: bool,
        /// Reason in words, for people.
        reason: String,
    },
}

/// Reason why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The connection could not be made.
    Dial(DialError),
    /// The connection was made, but no valid answer came in time.
    Silent,
    /// The other side closed the connection before it answered, as a dying process does.
    Closed,
    /// The other side has no room for the connection now.
    NoRoom(String),
    /// The other side refused.
    Rejected(String),
    /// The answer did not prove the key that it claimed.
    BadProof,
}

impl CallError {
    /// Error of a call that was answered by `error`.
    pub(super) fn told(error: ErrorReply) -> Self {
        let is_full = error.code == ErrorCode::Busy;
        if is_full { Self::NoRoom(error.reason) } else { Self::Rejected(error.reason) }
    }

    /// The reason in words.
    pub fn text(&self) -> String {
        match self {
            Self::Dial(error) => error.as_str().to_owned(),
            Self::Silent => "connected, but no answer in time".to_owned(),
            Self::Closed => "connected, but hung up on".to_owned(),
            Self::NoRoom(reason) | Self::Rejected(reason) => format!("refused: {reason}"),
            Self::BadProof => "the answer did not prove its key".to_owned(),
        }
    }
}

/// Kind of offense for which a message or connection is refused. Each kind has its own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectReason {
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

impl RejectReason {
    /// All kinds of offense.
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
