//! The journal thread: one wait for the disk serves every record that piled up meanwhile.
//!
//! Invariant: the number of records told to the outbox never exceeds the number that a crash would
//! leave. A failure of the disk is final: no effect that was waiting for it ever leaves the node.

use std::sync::Arc;

use super::state::Phase;
use super::{Drivable, Driver};
use crate::runtime::journal::{Journal, JournalError, Lines};

/// Next work of the journal, and the number of records it then holds.
enum JournalWork<R> {
    Append { records: u64 },
    Rewrite { snapshot: Vec<R>, records: u64 },
}

impl<M: Drivable> Driver<M> {
    /// Serves the journal until the node stops and all is written, or the disk fails.
    pub(super) fn journal_loop(self: &Arc<Self>, mut journal: Journal<M::Record>) {
        let mut lines = Lines::default();
        while let Some(work) = self.next_work(&mut lines, journal.wants_rewrite()) {
            let (outcome, records) = match work {
                JournalWork::Append { records } => {
                    journal.append_lines(&mut lines);
                    self.counters.journal_syncs.add(1);
                    (journal.sync(), records)
                }
                JournalWork::Rewrite { snapshot, records } => {
                    self.counters.journal_rewrites.add(1);
                    let outcome = match journal.rewrite(&snapshot) {
                        Ok(true) => {
                            lines.clear();
                            Ok(())
                        }
                        Ok(false) => {
                            journal.append_lines(&mut lines);
                            journal.sync()
                        }
                        Err(err) => Err(err),
                    };
                    (outcome, records)
                }
            };
            match outcome {
                Ok(()) => self.on_synced(records),
                Err(err) => return self.on_disk_failed(err),
            }
        }
        self.lock().disk_is_done = true;
        self.outbox_moved.notify_all();
    }

    /// Waits for records; `None` when the node stops and there are no more.
    fn next_work(&self, lines: &mut Lines, wants_rewrite: bool) -> Option<JournalWork<M::Record>> {
        let mut state = self.lock();
        loop {
            if wants_rewrite && state.is_running() {
                // Every record taken so far is in the machine's state, whether it was written or
                // not: state and records change under the same lock.
                let snapshot = state.machine.snapshot();
                return Some(JournalWork::Rewrite {
                    snapshot,
                    records: state.outbox.take_lines(lines),
                });
            }
            if state.outbox.has_lines() {
                return Some(JournalWork::Append { records: state.outbox.take_lines(lines) });
            }
            if !state.is_running() {
                return None;
            }
            state.disk_is_idle = true;
            state = self.disk_wanted.wait(state).expect("a handler panicked");
            state.disk_is_idle = false;
        }
    }

    fn on_synced(self: &Arc<Self>, records: u64) {
        self.with(self.lock(), |state, _| {
            let fresh = state.outbox.set_synced(records);
            self.counters.journal_records.add(fresh);
            state.let_out_ready();
            if state.readers_paused > 0 {
                self.outbox_moved.notify_all();
            }
        });
    }

    fn on_disk_failed(self: &Arc<Self>, err: JournalError) {
        log::error!("{err}; this node stops, because it may not go on and forget");
        self.with(self.lock(), |state, _| {
            state.phase = Phase::Failed;
            state.outbox.abandon();
            state.hang_up_all("the disk of this node has failed");
            state.cut_all();
            state.disk_is_done = true;
        });
        self.close_door();
        // The one message this channel ever gets.
        let _ = self.failure.try_send(err);
    }
}
