//! Answers of the others to a node that asks, at its start, for what it may have forgotten (P1).

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::rollout::{NodeId, TxMark};

/// Raises the mark of a coordinator.
pub(super) fn raise(marks: &mut BTreeMap<NodeId, TxMark>, node: NodeId, mark: TxMark) {
    let known = marks.entry(node).or_default();
    *known = (*known).max(mark);
}

/// Answers of the others so far.
#[derive(Debug)]
pub(super) struct AmnesiaRecovery {
    /// Random number, new in each life: an answer to a former one says nothing of later
    /// transactions.
    question: u64,
    /// True if this node may have forgotten votes that it signed.
    is_blank: bool,
    heard: BTreeSet<NodeId>,
    seen: BTreeMap<NodeId, TxMark>,
}

impl AmnesiaRecovery {
    pub(super) const fn new(question: u64, is_blank: bool) -> Self {
        Self { question, is_blank, heard: BTreeSet::new(), seen: BTreeMap::new() }
    }

    pub(super) const fn question(&self) -> u64 {
        self.question
    }

    pub(super) const fn is_blank(&self) -> bool {
        self.is_blank
    }

    pub(super) fn has_heard(&self, node: &NodeId) -> bool {
        self.heard.contains(node)
    }

    /// Takes an answer; `mine` is this node, and the last transaction that it can have begun in
    /// this life. Returns true if the answer shows that its log is from a backup, which was not
    /// known.
    pub(super) fn hear(
        &mut self,
        from: NodeId,
        seen: BTreeMap<NodeId, TxMark>,
        mine: (&NodeId, TxMark),
    ) -> bool {
        for (node, mark) in seen {
            raise(&mut self.seen, node, mark);
        }
        self.heard.insert(from);
        let is_later = self.seen.get(mine.0).is_some_and(|it| *it > mine.1);
        is_later && !std::mem::replace(&mut self.is_blank, true)
    }

    /// The last transactions of each coordinator that the others have seen.
    pub(super) fn into_seen(self) -> BTreeMap<NodeId, TxMark> {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    const fn mark(epoch: u64) -> TxMark {
        TxMark { epoch, counter: 0 }
    }

    #[test]
    fn a_name_that_this_life_has_not_given_shows_a_backup_once() {
        let mut amnesia = AmnesiaRecovery::new(7, false);
        let me = name("node-a");
        let mut hear = |from, epoch| {
            amnesia.hear(name(from), [(me.clone(), mark(epoch))].into(), (&me, mark(5)))
        };
        assert_eq!([hear("node-b", 5), hear("node-c", 6), hear("node-d", 9)], [false, true, false]);
        assert!(amnesia.is_blank() && amnesia.has_heard(&name("node-b")));
        assert_eq!(amnesia.into_seen(), [(me, mark(9))].into());
    }
}
