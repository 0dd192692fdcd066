//! Outbox: effects that may not leave the node before the records they depend on are on disk.
//!
//! Invariants:
//! - An effect leaves only when every record that was persisted before it is on disk.
//! - Effects leave in the order in which they were decided.
//!
//! Pure bookkeeping: the journal thread reports the records on disk, the state carries the effects
//! out.

use serde::Serialize;

use crate::machine::held::Held;
use crate::machine::{Effect, Vocabulary};
use crate::model::Now;
use crate::runtime::journal::Lines;

/// Number of waiting effects from which on readers pause until the disk has caught up.
///
/// At a few hundred bytes each this is some megabytes, and seconds of traffic.
const EFFECTS_MAX: usize = 16 * 1024;

/// Effects that wait for the disk, and the records they wait for.
pub(super) struct Outbox<K: Vocabulary> {
    lines: Lines,
    held: Held<(Now, Effect<K>)>,
}

impl<K: Vocabulary> Default for Outbox<K> {
    fn default() -> Self {
        Self { lines: Lines::default(), held: Held::default() }
    }
}

impl<K: Vocabulary<Record: Serialize>> Outbox<K> {
    /// Takes a record for the journal; effects that are admitted from now on wait for it.
    pub(super) fn persist(&mut self, record: &K::Record) {
        self.lines.push(record);
        self.held.issue();
    }

    /// Gives `effect` back if it may leave at once, or keeps it.
    pub(super) fn admit(&mut self, now: Now, effect: Effect<K>) -> Option<Effect<K>> {
        if self.held.is_idle() {
            return Some(effect);
        }
        self.held.hold(self.held.issued(), (now, effect));
        None
    }

    /// True if the journal thread has something to write.
    pub(super) const fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Moves the records not yet written into the empty `lines`; returns the number of records on
    /// disk after their write.
    pub(super) fn take_lines(&mut self, lines: &mut Lines) -> u64 {
        debug_assert!(lines.is_empty(), "records are written before more are taken");
        std::mem::swap(&mut self.lines, lines);
        self.held.issued()
    }

    /// Notes that the first `records` records are on disk; returns the number of new ones.
    pub(super) fn set_synced(&mut self, records: u64) -> u64 {
        let before = self.held.synced();
        debug_assert!(before <= records && records <= self.held.issued());
        self.held.on_synced(records);
        records - before
    }

    /// Takes the next effect that may leave now, with the moment at which it was decided.
    pub(super) fn pop_ready(&mut self) -> Option<(Now, Effect<K>)> {
        self.held.pop()
    }

    /// True if readers should pause.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= EFFECTS_MAX
    }

    /// Drops everything: the disk has failed, and no effect that depends on it may ever leave.
    pub(super) fn abandon(&mut self) {
        self.lines.clear();
        self.held.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{NodeCall, NodeMessage, PingHost};

    struct Toy;
    impl Vocabulary for Toy {
        type Message = NodeMessage;
        type Call = NodeCall;
        type Timer = ();
        type Record = u32;
        type Event = u32;
        type ExtraEffect = PingHost;
    }

    /// Admits the event `number`; returns whether it went straight out.
    fn emit(outbox: &mut Outbox<Toy>, number: u32) -> bool {
        outbox.admit(Now::default(), Effect::Emit(number)).is_some()
    }

    fn ready(outbox: &mut Outbox<Toy>) -> Vec<u32> {
        let mut events = Vec::new();
        while let Some((_, Effect::Emit(number))) = outbox.pop_ready() {
            events.push(number);
        }
        events
    }

    #[test]
    fn without_unsynced_records_effects_go_straight_out() {
        let mut outbox = Outbox::<Toy>::default();
        assert!(emit(&mut outbox, 1));
        outbox.persist(&7);
        let mut lines = Lines::default();
        let records = outbox.take_lines(&mut lines);
        assert_eq!(outbox.set_synced(records), 1);
        assert!(emit(&mut outbox, 2));
    }

    #[test]
    fn an_effect_waits_for_the_records_before_it_and_for_no_others() {
        let mut outbox = Outbox::<Toy>::default();
        let mut lines = Lines::default();
        outbox.persist(&1);
        assert!(!emit(&mut outbox, 1));
        let first = outbox.take_lines(&mut lines);
        assert!(!emit(&mut outbox, 2), "taken is not synced");
        outbox.persist(&2);
        assert!(!emit(&mut outbox, 3));
        assert!(ready(&mut outbox).is_empty());
        lines.clear();
        outbox.set_synced(first);
        assert_eq!(ready(&mut outbox), [1, 2]);
        let second = outbox.take_lines(&mut lines);
        outbox.set_synced(second);
        assert_eq!(ready(&mut outbox), [3]);
        assert!(emit(&mut outbox, 4));
    }

    #[test]
    fn what_is_ready_but_has_not_left_is_not_overtaken() {
        let mut outbox = Outbox::<Toy>::default();
        outbox.persist(&1);
        assert!(!emit(&mut outbox, 1));
        let records = outbox.take_lines(&mut Lines::default());
        outbox.set_synced(records);
        assert!(!emit(&mut outbox, 2), "the first is still waiting to be carried out");
        assert_eq!(ready(&mut outbox), [1, 2]);
    }

    #[test]
    fn many_records_share_one_sync() {
        let mut outbox = Outbox::<Toy>::default();
        for number in 0..100 {
            outbox.persist(&number);
            assert!(!emit(&mut outbox, number));
        }
        let records = outbox.take_lines(&mut Lines::default());
        assert!(!outbox.has_lines());
        assert_eq!(outbox.set_synced(records), 100);
        assert_eq!(ready(&mut outbox).len(), 100);
    }

    #[test]
    fn after_a_failure_nothing_leaves() {
        let mut outbox = Outbox::<Toy>::default();
        outbox.persist(&1);
        assert!(!emit(&mut outbox, 1));
        outbox.abandon();
        assert!(ready(&mut outbox).is_empty());
        assert!(!outbox.has_lines());
    }
}
