//! Words between the machine of a node and its driver or simulator.

use std::net::IpAddr;
use std::time::Duration;

use super::{DialId, Effects, LinkId, Machine, Vocabulary};
use crate::model::{Binding, Endpoint};
/// A message between nodes.
pub use crate::proto::message::Message as NodeMessage;

/// Machine of a node of the fleet. Its driver holds back what follows a record until that is on
/// disk, and gives no [`Input::Synced`](super::Input::Synced).
pub trait NodeMachine:
    Machine<
        Message = NodeMessage,
        Call = NodeCall,
        ExtraEffect = PingHost,
        Opening = NodeOpening,
        CallFailure = CallFailure,
        ExtraInput = HostPinged,
    >
{
    /// The records that rebuild this node's durable state; replaces the journal's history.
    fn snapshot(&self) -> Vec<Self::Record>;

    /// True if the other end of a link is a member or a seed; all others share a bound to the bytes
    /// that wait for them.
    fn is_trusted(&self, link: LinkId) -> bool;
}

/// Beginning of a connection of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeOpening {
    /// A caller connected; only its address is known.
    Accepted {
        /// Address of the caller.
        from: IpAddr,
        /// Binding of the connection, if it is encrypted.
        binding: Option<Binding>,
    },
    /// A [`NodeCall`] succeeded.
    Dialed {
        /// Ticket of the attempt.
        ticket: DialId,
        /// Binding of the connection, if it is encrypted.
        binding: Option<Binding>,
    },
}

/// Attempt of a node to connect; answered by [`NodeOpening::Dialed`] or [`CallFailure`], once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCall {
    /// Ticket of the attempt.
    pub ticket: DialId,
    /// Address to connect to.
    pub to: Endpoint,
    /// Time-out of the attempt.
    pub timeout: Duration,
}

/// Failure of a [`NodeCall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallFailure {
    /// Ticket of the attempt.
    pub ticket: DialId,
    /// Reason of the failure.
    pub reason: DialError,
}

/// Request to ask the system `ping` once about a host; answered by [`HostPinged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingHost {
    /// Address of the host.
    pub host: IpAddr,
}

impl<K: Vocabulary<Call = NodeCall>> Effects<K> {
    /// Tries to connect to `to`.
    pub fn dial(&mut self, ticket: DialId, to: Endpoint, timeout: Duration) {
        self.call(NodeCall { ticket, to, timeout });
    }
}

impl<K: Vocabulary<ExtraEffect = PingHost>> Effects<K> {
    /// Asks the system `ping` about `host`.
    pub fn ping_host(&mut self, host: IpAddr) {
        self.extra(PingHost { host });
    }
}

/// The end of the system `ping` for a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPinged {
    /// Address of the host.
    pub host: IpAddr,
    /// Answer of the host.
    pub answer: HostAnswer,
}

/// Reason why a connection could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialError {
    /// The host answered that no process listens there: the process is gone.
    Refused,
    /// No answer came in time.
    TimedOut,
    /// No route, or another failure of the network.
    Unreachable,
    /// The other end was there, and hung up before the connection stood, as a dying process does.
    HungUp,
    /// The other end was there, and holds no cluster key or another one than this node.
    Barred,
    /// This node has no room for another attempt (its own limit; the other end is not at fault).
    Busy,
}

impl DialError {
    /// The reason in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::TimedOut => "no answer in time",
            Self::Unreachable => "unreachable",
            Self::HungUp => "connected, but hung up on",
            Self::Barred => "it holds another cluster key, or none",
            Self::Busy => "too many attempts under way here",
        }
    }
}

/// Answer of the system `ping` about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAnswer {
    /// The host answered.
    Answered,
    /// The host did not answer.
    Silent,
    /// This machine has no usable `ping`; nothing was learnt.
    NoPing,
}
