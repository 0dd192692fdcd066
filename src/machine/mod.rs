//! The state machines: all decisions of the fleet, without any input or output.
//!
//! No sockets, no files, no threads, no clock, no global randomness: a machine is a function from
//! (state, input) to (state, effects). Two drivers run the same machines: [`crate::runtime`] with
//! real sockets and disks, and [`crate::sim`] with virtual time and any weather.
//!
//! **The contract of a driver:** hand over one [`Input`]; then carry out every [`Effect`], in
//! order, before the next input. Effects that follow an [`Effect::Persist`], of this or any later
//! input, may leave the node only when that record is on disk.

pub mod bootstrap;
pub mod broadcast;
pub mod chat;
pub mod contacts;
pub mod decision_log;
pub mod direct;
pub mod discovery;
pub mod gossip;
pub mod health;
pub mod histogram;
pub mod liveness;
pub mod membership;
pub mod message;
pub mod open;
pub mod overlay;
pub mod probe;
pub mod quorum;
pub mod rollout;
pub mod session;
pub mod shares;
pub mod swarm;
pub mod timer;

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use crate::model::{Endpoint, Now};
use message::Message;

/// One connection of this node, numbered by the driver; a number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One attempt to connect, numbered by the machine that asked; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A value that is the same at both ends of one encrypted connection and nowhere else: signed by
/// both, it shows that no third node is between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding(pub [u8; 32]);

/// The four vocabularies of a service or node beside its messages.
pub trait Kind {
    /// Names of timers. Setting a name again moves its deadline.
    type Timer: Ord + Clone + Debug;
    /// Records that must survive a crash.
    type Record: Clone + Debug;
    /// Events for the surroundings.
    type Event: Debug;
}

/// A whole node, as a driver runs it.
pub trait Machine: Kind + Sized {
    /// Requests of the local process to the node.
    type Command: Debug;

    /// Takes one input. Never fails and never blocks: bad input is answered or reported.
    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Effects<Self>);

    /// The records that rebuild this node's durable state; replaces the journal's history.
    fn snapshot(&self) -> Vec<Self::Record>;
}

/// Input to a node.
#[derive(Debug)]
pub enum Input<M: Machine> {
    /// The first input, once, after the journal was replayed and the port was bound.
    Start,
    /// A caller connected; only its address is known.
    Accepted {
        /// Link of the connection.
        link: LinkId,
        /// Address of the caller.
        from: IpAddr,
        /// Binding of the connection, if it is encrypted.
        binding: Option<Binding>,
    },
    /// An attempt to connect succeeded.
    Dialed {
        /// Ticket of the attempt.
        ticket: Ticket,
        /// Link of the connection.
        link: LinkId,
        /// Binding of the connection, if it is encrypted.
        binding: Option<Binding>,
    },
    /// An attempt to connect failed.
    DialFailed {
        /// Ticket of the attempt.
        ticket: Ticket,
        /// Reason of the failure.
        reason: DialError,
    },
    /// A message was received.
    Received {
        /// Link by which it came.
        link: LinkId,
        /// The message, well-formed but not yet believed.
        msg: Message,
    },
    /// A line came that is no message; the connection is still usable.
    Garbled {
        /// Link by which it came.
        link: LinkId,
        /// The fault of the line, in words.
        reason: String,
    },
    /// A connection ended, for any reason. Comes exactly once for each link.
    Closed {
        /// Link that ended.
        link: LinkId,
        /// Reason in words, for people.
        reason: String,
    },
    /// A deadline passed.
    Expired(M::Timer),
    /// The system `ping` has finished for a host.
    HostPinged {
        /// Address of the host.
        host: IpAddr,
        /// Answer of the host.
        answer: HostAnswer,
    },
    /// The local process requests something.
    Command(M::Command),
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

/// An action that a driver must carry out.
#[derive(Debug)]
pub enum Effect<K: Kind> {
    /// Queue a message on a link. A link that is gone or full leads to an [`Input::Closed`].
    Send {
        /// Link to use.
        link: LinkId,
        /// Message to send.
        msg: Message,
    },
    /// Try to connect; answered by [`Input::Dialed`] or [`Input::DialFailed`], exactly once.
    Dial {
        /// Ticket of the attempt.
        ticket: Ticket,
        /// Address to connect to.
        to: Endpoint,
        /// Time-out of the attempt.
        timeout: Duration,
    },
    /// Close a link after what is queued on it has left; [`Input::Closed`] follows.
    Hangup {
        /// Link to close.
        link: LinkId,
    },
    /// Ask the system `ping` once; answered by [`Input::HostPinged`].
    PingHost {
        /// Address of the host.
        host: IpAddr,
    },
    /// Set or move a deadline.
    SetTimer {
        /// Name of the timer.
        timer: K::Timer,
        /// Delay from now.
        after: Duration,
    },
    /// Remove a deadline; harmless when there is none of that name.
    StopTimer(K::Timer),
    /// Write a record to the journal; later effects wait for the disk.
    Persist(K::Record),
    /// Report an event to the surroundings.
    Emit(K::Event),
}

impl<K: Kind> PartialEq for Effect<K>
where
    K::Record: PartialEq,
    K::Event: PartialEq,
{
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Send { link: a, msg: x }, Self::Send { link: b, msg: y }) => (a, x) == (b, y),
            (
                Self::Dial { ticket: a, to: x, timeout: i },
                Self::Dial { ticket: b, to: y, timeout: j },
            ) => (a, x, i) == (b, y, j),
            (Self::Hangup { link: a }, Self::Hangup { link: b }) => a == b,
            (Self::PingHost { host: a }, Self::PingHost { host: b }) => a == b,
            (Self::SetTimer { timer: a, after: x }, Self::SetTimer { timer: b, after: y }) => {
                (a, x) == (b, y)
            }
            (Self::StopTimer(a), Self::StopTimer(b)) => a == b,
            (Self::Persist(a), Self::Persist(b)) => a == b,
            (Self::Emit(a), Self::Emit(b)) => a == b,
            (
                Self::Send { .. }
                | Self::Dial { .. }
                | Self::Hangup { .. }
                | Self::PingHost { .. }
                | Self::SetTimer { .. }
                | Self::StopTimer(_)
                | Self::Persist(_)
                | Self::Emit(_),
                _,
            ) => false,
        }
    }
}

/// The effects of one input, in order.
#[derive(Debug)]
pub struct Effects<K: Kind> {
    list: Vec<Effect<K>>,
}

impl<K: Kind> Default for Effects<K> {
    fn default() -> Self {
        Self { list: Vec::new() }
    }
}

impl<K: Kind> Effects<K> {
    /// Queues `msg` on `link`.
    pub fn send(&mut self, link: LinkId, msg: impl Into<Message>) {
        self.list.push(Effect::Send { link, msg: msg.into() });
    }

    /// Tries to connect to `to`.
    pub fn dial(&mut self, ticket: Ticket, to: Endpoint, timeout: Duration) {
        self.list.push(Effect::Dial { ticket, to, timeout });
    }

    /// Closes `link` once its queue has drained.
    pub fn hangup(&mut self, link: LinkId) {
        self.list.push(Effect::Hangup { link });
    }

    /// Asks the system `ping` about `host`.
    pub fn ping_host(&mut self, host: IpAddr) {
        self.list.push(Effect::PingHost { host });
    }

    /// Sets or moves the deadline `timer` to `after` from now.
    pub fn set_timer(&mut self, timer: impl Into<K::Timer>, after: Duration) {
        self.list.push(Effect::SetTimer { timer: timer.into(), after });
    }

    /// Removes the deadline `timer`.
    pub fn stop_timer(&mut self, timer: impl Into<K::Timer>) {
        self.list.push(Effect::StopTimer(timer.into()));
    }

    /// Writes `record` to the journal before anything that follows leaves the node.
    pub fn persist(&mut self, record: impl Into<K::Record>) {
        self.list.push(Effect::Persist(record.into()));
    }

    /// Reports `event` to the surroundings.
    pub fn emit(&mut self, event: impl Into<K::Event>) {
        self.list.push(Effect::Emit(event.into()));
    }

    /// Takes all effects, in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Effect<K>> {
        self.list.drain(..)
    }

    /// True if there are no effects.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds the effects of a part to these, and returns the part's events, in order.
    pub fn absorb<P: Kind>(&mut self, part: Effects<P>) -> Vec<P::Event>
    where
        K::Timer: From<P::Timer>,
        K::Record: From<P::Record>,
    {
        let mut events = Vec::new();
        for effect in part.list {
            let own = match effect {
                Effect::Send { link, msg } => Effect::Send { link, msg },
                Effect::Dial { ticket, to, timeout } => Effect::Dial { ticket, to, timeout },
                Effect::Hangup { link } => Effect::Hangup { link },
                Effect::PingHost { host } => Effect::PingHost { host },
                Effect::SetTimer { timer, after } => {
                    Effect::SetTimer { timer: timer.into(), after }
                }
                Effect::StopTimer(timer) => Effect::StopTimer(timer.into()),
                Effect::Persist(record) => Effect::Persist(record.into()),
                Effect::Emit(event) => {
                    events.push(event);
                    continue;
                }
            };
            self.list.push(own);
        }
        events
    }
}

/// The record type of parts that keep no records on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {}
