//! Decision of a group's own log whether its order is founded.

use std::collections::BTreeSet;

use super::liars;
use crate::proto::chat::entry::MemberId;

/// Entry by which a founder says that it is in the group.
pub const IN: &str = "in";

/// Entry by which a founder says that the founding takes too long.
pub const OUT: &str = "out";

/// Decision of a group's log: the same for all members, because all read the same entries in the
/// same order.
#[derive(Clone, Debug)]
pub struct FoundingVerdict {
    size: usize,
    ins: BTreeSet<MemberId>,
    outs: BTreeSet<MemberId>,
    is_founded: Option<bool>,
}

impl FoundingVerdict {
    /// Decision about a group of so many founders, before its first entry.
    #[must_use]
    pub const fn new(size: usize) -> Self {
        Self { size, ins: BTreeSet::new(), outs: BTreeSet::new(), is_founded: None }
    }

    /// Takes the next entry of the founding, with its author; returns whether the order is founded,
    /// once that is decided.
    pub fn take(&mut self, author: MemberId, text: &str) -> Option<bool> {
        match text {
            IN => _ = self.ins.insert(author),
            OUT => _ = self.outs.insert(author),
            _ => {}
        }
        if self.is_founded.is_none() {
            let is_over = self.outs.len() > liars(self.size);
            self.is_founded = (is_over || self.ins.len() >= self.size).then_some(!is_over);
        }
        self.is_founded
    }

    /// Founders that have not said that they are in.
    pub fn missing(&self) -> impl Iterator<Item = MemberId> {
        (1..).take(self.size).map(MemberId).filter(|it| !self.ins.contains(it))
    }
}
