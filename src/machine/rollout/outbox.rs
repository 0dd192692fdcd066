//! Queue of effects: it holds back all that others can see until the records that it rests on are
//! on disk (T3, P10).

use std::collections::VecDeque;

use super::event::{Effect, Record};

/// Effects on their way to the driver.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    written: u64,
    synced: u64,
    /// Effects held back, each with the number of the record that it waits for.
    held: VecDeque<(u64, Effect)>,
    ready: Vec<Effect>,
}

impl Outbox {
    /// Adds a record; effects given to `say` from here on wait for it.
    pub(super) fn persist(&mut self, record: Record) {
        self.written += 1;
        self.ready.push(Effect::Persist(record));
    }

    /// Adds an effect that others may see.
    pub(super) fn say(&mut self, effect: Effect) {
        if self.written == self.synced {
            self.ready.push(effect);
        } else {
            self.held.push_back((self.written, effect));
        }
    }

    /// Adds an effect that only concerns this node, or that breaks the rule on purpose.
    pub(super) fn at_once(&mut self, effect: Effect) {
        self.ready.push(effect);
    }

    /// Releases the effects that waited for the first `records` records, which are on disk now.
    pub(super) fn on_synced(&mut self, records: u64) {
        self.synced = self.synced.max(records.min(self.written));
        while self.held.front().is_some_and(|(record, _)| *record <= self.synced) {
            self.ready.extend(self.held.pop_front().map(|(_, effect)| effect));
        }
    }

    /// Appends the effects that the driver carries out now.
    pub(super) fn drain(&mut self, fx: &mut Vec<Effect>) {
        fx.append(&mut self.ready);
    }
}
