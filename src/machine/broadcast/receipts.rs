//! Receipts: counts of the nodes that have a message, summed up along the way it came.
//!
//! Each node tells the neighbor that sent it the message the number of nodes known to have it by
//! way of itself. A node counts for one neighbor only, so no honest node is counted twice; a liar
//! can add any number, up to a bound.

use std::collections::BTreeMap;

use super::config::{RECEIPT_AFTER, RECEIPT_MAX, RECEIPTS_MAX};
use super::{Broadcast, Event, Fx, Timer};
use crate::machine::LinkId;
use crate::model::{MessageId, Now};
use crate::proto::broadcast::Receipt;

/// Counts of the nodes that have one message by way of this node.
#[derive(Debug)]
pub(super) struct ReceiptCounts {
    counts: BTreeMap<LinkId, u32>,
    told: u32,
    updates: u32,
    is_due: bool,
}

impl ReceiptCounts {
    pub(super) const fn new() -> Self {
        Self { counts: BTreeMap::new(), told: 0, updates: 0, is_due: false }
    }

    fn others(&self) -> u32 {
        self.counts
            .values()
            .fold(0, |sum: u32, count| sum.saturating_add(*count))
            .min(RECEIPT_MAX - 1)
    }
}

impl Broadcast {
    /// Takes a neighbor's count of the nodes that have a message by way of it.
    pub fn on_receipt(&mut self, now: Now, from: LinkId, receipt: Receipt, fx: &mut Fx) {
        if !(1..=RECEIPT_MAX).contains(&receipt.count) {
            let reason = format!("a receipt counts 1 to {RECEIPT_MAX}");
            return self.blame(from, reason, fx);
        }
        let is_neighbor = self.links.contains_key(&from);
        let Some(held) = self.store.get_mut(&receipt.id).filter(|_| is_neighbor) else { return };
        let Some(tally) = held.tally.as_mut().filter(|_| held.from != Some(from)) else { return };
        let known = tally.counts.entry(from).or_default();
        if receipt.count > *known {
            *known = receipt.count;
            self.report(now, receipt.id, fx);
        }
    }

    /// Schedules a receipt with the present count; each further one waits longer.
    pub(super) fn report(&mut self, now: Now, id: MessageId, fx: &mut Fx) {
        let Some(tally) = self.store.get_mut(&id).and_then(|held| held.tally.as_mut()) else {
            return;
        };
        if tally.is_due || tally.updates >= RECEIPTS_MAX {
            return;
        }
        tally.is_due = true;
        let after = RECEIPT_AFTER * (1 + tally.updates);
        self.receipts_due.insert((now.mono.after(after), id));
        self.arm(Timer::Receipts, self.receipts_due.first().map(|(due, _)| *due), now, fx);
    }

    pub(super) fn on_receipts_due(&mut self, now: Now, fx: &mut Fx) {
        while let Some((due, id)) = self.receipts_due.first().copied() {
            if due > now.mono {
                break;
            }
            self.receipts_due.pop_first();
            let Some(held) = self.store.get_mut(&id) else { continue };
            let Some(tally) = held.tally.as_mut() else { continue };
            tally.is_due = false;
            let count = tally.others() + 1;
            if count == tally.told {
                continue;
            }
            tally.told = count;
            tally.updates += 1;
            match held.from {
                Some(from) if self.links.contains_key(&from) => {
                    fx.send(from, Receipt { id, count });
                }
                Some(_) => {}
                None => fx.emit(Event::Receipts { id, count: count - 1 }),
            }
        }
        self.arm(Timer::Receipts, self.receipts_due.first().map(|(due, _)| *due), now, fx);
    }
}
