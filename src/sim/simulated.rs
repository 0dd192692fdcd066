//! The machines that the simulator can run, and what it has to know of each.
//!
//! A machine reaches others by the calls and links of [`NodeMachine`], whatever it says on them. A
//! process that carries several services is one machine, made of theirs: they share its crashes,
//! its paths and its disk. A service whose driver does more than carry out effects (a handshake, a
//! data plane) is wrapped in a machine that does it.

use crate::machine::{
    CallFailure, Effect, HostPinged, Machine, NodeCall, NodeMachine, NodeMessage, NodeOpening,
    PingHost,
};

/// A machine that the simulator can run.
pub trait Simulated:
    Machine<
        Call = NodeCall,
        ExtraEffect = PingHost,
        Opening = NodeOpening,
        CallFailure = CallFailure,
        ExtraInput = HostPinged,
    >
{
    /// True if the machine, or a part of it, holds back itself: it is given
    /// [`Input::Synced`](crate::machine::Input::Synced).
    const HEARS_OF_SYNCS: bool;

    /// True if the driver holds this effect back until the records before it are on disk. Asked
    /// only of effects that others can see.
    fn is_held(&self, effect: &Effect<Self>) -> bool;

    /// Name of a message's kind, for counts of traffic.
    fn name(msg: &Self::Message) -> &'static str;

    /// The records that replace those on disk; `None` if this machine's log is never compacted.
    fn snapshot(&self) -> Option<Vec<Self::Record>>;

    /// Weight of [`Weather::death_ppm`](super::Weather::death_ppm) at this effect.
    fn deadliness(_effect: &Effect<Self>) -> u32 {
        1
    }
}

impl<M: NodeMachine> Simulated for M {
    const HEARS_OF_SYNCS: bool = false;

    fn is_held(&self, _effect: &Effect<Self>) -> bool {
        true
    }

    fn name(msg: &NodeMessage) -> &'static str {
        msg.name()
    }

    fn snapshot(&self) -> Option<Vec<Self::Record>> {
        Some(NodeMachine::snapshot(self))
    }
}
