//! Programs without the feature `fault-injection` have no point at which they kill themselves.

use crate::machine::rollout::Effect;
use crate::proto::rollout::{Message, NodeId};

/// Point at which the process kills itself. No value of it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillPoint {}

impl KillPoint {
    pub(super) const fn comes_before(self, _me: &NodeId, _effect: &Effect) -> bool {
        match self {}
    }

    pub(super) const fn comes_after(self, _message: &Message) -> bool {
        match self {}
    }

    pub(super) const fn die(self) -> ! {
        match self {}
    }
}
