//! The state machines: all decisions of the fleet, without any input or output.
//!
//! No sockets, no files, no threads, no clock, no global randomness: a machine is a function from
//! (state, input) to (state, effects). Two drivers run the same machines: [`crate::runtime`] with
//! real sockets and disks, and [`crate::sim`] with virtual time and any weather.
//!
//! **The contract**, one for all machines: a driver hands over one [`Input`]; then it carries out
//! every [`Effect`], in order, before the next input.
//!
//! **Records.** Nothing that rests on a record may be seen by others before the record is on disk.
//! One queue holds back what waits, [`held::Held`]; there are two ways to use it, and a machine's
//! driver knows which one is its own:
//! - The driver holds back: every effect that follows an [`Effect::Persist`], of this or any later
//!   input, and that others can see, leaves only when that record is on disk. So it is for
//!   [`NodeMachine`].
//! - The machine holds back, because some of its messages may overtake the disk: the driver carries
//!   out effects at once, and reports by [`Input::Synced`] which records are on disk. So it is for
//!   [`chat::Replica`] and [`rollout::RolloutMachine`].

pub mod bft;
pub mod bootstrap;
pub mod broadcast;
pub mod chat;
pub mod contacts;
pub(crate) mod crowd;
pub mod decision_log;
pub mod direct;
pub mod discovery;
mod effects;
pub mod founding;
pub mod gossip;
pub mod health;
pub mod held;
pub mod histogram;
pub mod liveness;
pub mod membership;
mod nodes;
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
use std::time::Duration;

use crate::model::Now;
pub use effects::Effects;
pub use nodes::{
    CallFailure, DialError, HostAnswer, HostPinged, NodeCall, NodeMachine, NodeMessage,
    NodeOpening, PingHost,
};

/// One connection of this node, numbered by the driver; a number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One attempt to connect, numbered by the machine that asked; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// Vocabulary of a machine, or of a part of one: all that its effects name.
pub trait Vocabulary {
    /// Messages to and from other nodes.
    type Message: Clone + Debug + PartialEq + Send;
    /// Attempts to connect.
    type Call: Clone + Debug + PartialEq + Send;
    /// Names of timers. Setting a name again moves its deadline.
    type Timer: Ord + Clone + Debug;
    /// Records that must survive a crash.
    type Record: Clone + Debug;
    /// Events for the surroundings.
    type Event: Debug;
    /// Effects that only this kind of machine has; [`Never`] if it has none.
    type ExtraEffect: Clone + Debug + PartialEq + Send;
}

/// A whole machine, as a driver runs it.
pub trait Machine: Vocabulary + Sized {
    /// Facts about a new connection.
    type Opening: Clone + Debug;
    /// A call that failed, with its reason if the machine wants it.
    type CallFailure: Clone + Debug;
    /// Requests of the local process.
    type Command: Debug;
    /// Inputs that only this kind of machine has; [`Never`] if it has none.
    type ExtraInput: Debug;

    /// Takes one input. Never fails and never blocks: bad input is answered or reported.
    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Effects<Self>);
}

/// Input to a machine.
#[derive(Debug)]
pub enum Input<M: Machine> {
    /// The first input, once, after the records were replayed and the port was bound.
    Start,
    /// A connection was made, by a caller or by an [`Effect::Dial`].
    Opened {
        /// Link of the connection.
        link: LinkId,
        /// Facts about the connection.
        opening: M::Opening,
    },
    /// An attempt to connect failed.
    DialFailed(M::CallFailure),
    /// A message was received.
    Received {
        /// Link by which it came.
        link: LinkId,
        /// The message, well-formed but not yet believed.
        msg: M::Message,
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
    /// Records are on disk. Given only to a machine that holds back itself.
    Synced {
        /// Number of records on disk, of those handed over since [`Input::Start`].
        records: u64,
    },
    /// A deadline passed.
    Expired(M::Timer),
    /// The local process requests something.
    Command(M::Command),
    /// An input of this kind of machine alone.
    Extra(M::ExtraInput),
}

impl<M: Machine> Input<M> {
    /// Input for the end of a connection.
    pub fn closed(link: LinkId, reason: impl Into<String>) -> Self {
        Self::Closed { link, reason: reason.into() }
    }
}

/// An action that a driver must carry out.
#[derive(Debug)]
pub enum Effect<K: Vocabulary> {
    /// Queue a message on a link. A link that is gone or full leads to an [`Input::Closed`].
    Send {
        /// Link to use.
        link: LinkId,
        /// Message to send.
        msg: K::Message,
    },
    /// Queue one message on several links, as [`Effect::Send`] does on each.
    SendAll {
        /// Links to use.
        links: Vec<LinkId>,
        /// Message to send.
        msg: K::Message,
    },
    /// Try to connect; answered by [`Input::Opened`] or [`Input::DialFailed`], exactly once.
    Dial(K::Call),
    /// Close a link after what is queued on it has left; [`Input::Closed`] follows.
    Hangup {
        /// Link to close.
        link: LinkId,
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
    /// Write a record at the end of the log or journal.
    Persist(K::Record),
    /// Report an event to the surroundings.
    Emit(K::Event),
    /// An effect of this kind of machine alone.
    Extra(K::ExtraEffect),
}

/// The type of that which a kind of machine does not have: records, extra inputs, extra effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {}
