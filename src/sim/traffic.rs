//! Counts of messages sent, and of their bytes if the world has a meter.
//!
//! A message counts when it leaves its node, whether or not it arrives.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Sub};
use std::sync::Arc;

use super::reach::HostId;
use super::simulated::Simulated;
use super::world::World;

/// An amount of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of messages.
    pub messages: u64,
    /// Size of the messages on the wire, in bytes; 0 without a meter.
    pub bytes: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

impl Sub for Traffic {
    type Output = Self;

    /// Difference to the `earlier` amount.
    fn sub(self, earlier: Self) -> Self {
        let messages = self.messages - earlier.messages;
        Self { messages, bytes: self.bytes - earlier.bytes }
    }
}

/// Amounts sent, by the messages' names. Few names, most of them rare: searched one by one.
#[derive(Clone, Debug, Default)]
pub(super) struct ByName(Vec<(&'static str, Traffic)>);

impl ByName {
    fn add(&mut self, name: &'static str, sent: Traffic) {
        match self.0.iter_mut().find(|(known, _)| std::ptr::eq(*known, name) || *known == name) {
            Some((_, traffic)) => *traffic += sent,
            None => self.0.push((name, sent)),
        }
    }

    /// All amounts, ascending by name.
    pub(super) fn sorted(&self) -> BTreeMap<&'static str, Traffic> {
        self.0.iter().copied().collect()
    }
}

impl<M: Simulated> World<M> {
    /// Counts a message that leaves a host. A message that is sent to many, link after link, is
    /// kept and metered once: a removal goes to thousands of members in the same moment.
    pub(super) fn pack(&mut self, id: HostId, msg: M::Message) -> Arc<M::Message> {
        let (msg, bytes) = match &self.packed {
            Some((last, bytes)) if **last == msg => (Arc::clone(last), *bytes),
            Some(_) | None => {
                let bytes = self.meter.map_or(0, |meter| meter(&msg) as u64);
                let packed = Arc::new(msg);
                self.packed = Some((Arc::clone(&packed), bytes));
                (packed, bytes)
            }
        };
        let one = Traffic { messages: 1, bytes };
        self.hosts[id.index()].sent += one;
        self.traffic.add(M::name(&msg), one);
        msg
    }
}
