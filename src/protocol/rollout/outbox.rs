//! What leaves the machine, and when: nothing that others can see before the records that it rests
//! on are on disk (T3, P10).

use std::collections::VecDeque;

use super::event::{Effect, Record};

/// Effects on their way to the driver.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    written: u64,
    synced: u64,
    /// What waits, each for the record of that number.
    held: VecDeque<(u64, Effect)>,
    ready: Vec<Effect>,
}

impl Outbox {
    /// A record; what is said from here on waits for it.
    pub(super) fn persist(&mut self, record: Record) {
        self.written += 1;
        self.ready.push(Effect::Persist(record));
    }

    /// Something that others may see.
    pub(super) fn say(&mut self, effect: Effect) {
        if self.written == self.synced {
            self.ready.push(effect);
        } else {
            self.held.push_back((self.written, effect));
        }
    }

    /// Something that only concerns this node, or that breaks the rule on purpose.
    pub(super) fn at_once(&mut self, effect: Effect) {
        self.ready.push(effect);
    }

    /// So many records are on disk.
    pub(super) fn on_synced(&mut self, records: u64) {
        self.synced = self.synced.max(records.min(self.written));
        while self.held.front().is_some_and(|(record, _)| *record <= self.synced) {
            self.ready.extend(self.held.pop_front().map(|(_, effect)| effect));
        }
    }

    /// What the driver is to do now.
    pub(super) fn drain(&mut self, fx: &mut Vec<Effect>) {
        fx.append(&mut self.ready);
    }
}
