//! Queue of effects: it holds back all that others can see until the records that it rests on are
//! on disk (T3, P10).

use crate::machine::held::Held;
use crate::machine::{Effect, Effects, Vocabulary};

/// Effects on their way to the driver.
#[derive(Debug)]
pub(super) struct EffectQueue<K: Vocabulary> {
    held: Held<Effect<K>>,
    ready: Effects<K>,
}

impl<K: Vocabulary> Default for EffectQueue<K> {
    fn default() -> Self {
        Self { held: Held::default(), ready: Effects::default() }
    }
}

impl<K: Vocabulary> EffectQueue<K> {
    /// Adds a record; effects given to `push_after_sync` from here on wait for it.
    pub(super) fn persist(&mut self, record: K::Record) {
        self.held.issue();
        self.ready.persist(record);
    }

    /// Adds an effect that others may see.
    pub(super) fn push_after_sync(&mut self, effect: Effect<K>) {
        let record = self.held.issued();
        if self.held.has(record) {
            self.ready.push(effect);
        } else {
            self.held.hold(record, effect);
        }
    }

    /// Adds an effect that only concerns this node, or that breaks the rule on purpose.
    pub(super) fn push_now(&mut self, effect: Effect<K>) {
        self.ready.push(effect);
    }

    /// Releases the effects that waited for the first `records` records, which are on disk now.
    pub(super) fn on_synced(&mut self, records: u64) {
        self.held.on_synced(records);
        while let Some(effect) = self.held.pop() {
            self.ready.push(effect);
        }
    }

    /// Appends the effects that the driver carries out now.
    pub(super) fn drain(&mut self, fx: &mut Effects<K>) {
        fx.extend(self.ready.drain());
    }
}
