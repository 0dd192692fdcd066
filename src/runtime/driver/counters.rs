//! Counters of a driver, each counted at one place.
//!
//! Counters only rise. They are read at any time from any thread and are not a consistent snapshot:
//! two of them may be an instant apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// Counter of events.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount` to the counter.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Value of the counter.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Level of a resource: its present amount.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// Raises the level by `amount`.
    pub(super) fn rise(&self, amount: usize) {
        self.0.fetch_add(i64::try_from(amount).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Lowers the level by `amount`.
    pub(super) fn fall(&self, amount: usize) {
        self.0.fetch_sub(i64::try_from(amount).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Present amount; 0 while a decrease is counted before its increase.
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// All counters of one driver.
        #[derive(Debug, Default)]
        pub struct DriverCounters {
            $($(#[$doc])* pub $name: Counter,)*
            /// Messages that wait to be written, on all links.
            pub lines_waiting: Level,
            /// Bytes of the messages that wait.
            pub bytes_waiting: Level,
        }

        impl DriverCounters {
            /// Every counter with its name, in the order of declaration.
            pub fn each(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }

            /// Every level with its name.
            pub fn levels(&self) -> [(&'static str, u64); 2] {
                [
                    ("lines_waiting", self.lines_waiting.get()),
                    ("bytes_waiting", self.bytes_waiting.get()),
                ]
            }
        }
    };
}

counters! {
    /// Accepted connections that spoke the native dialect and became links.
    links_accepted,
    /// Accepted links whose caller used this node's second cluster key.
    links_second_key,
    /// Dialed connections that became links.
    links_dialed,
    /// Links that ended.
    links_closed,
    /// Attempts to connect that failed.
    dials_failed,
    /// Dials that failed because the two ends do not hold the same cluster key.
    dials_barred,
    /// Well-formed messages received.
    lines_in,
    /// Messages written to links.
    lines_out,
    /// Messages that were decided and never written: their link ended, or had no room.
    lines_lost,
    /// Bytes received on links.
    bytes_in,
    /// Bytes written to links.
    bytes_out,
    /// Lines that were no message, on connections that stayed usable.
    garbled,
    /// Links closed because a line was too long.
    refused_too_long,
    /// Links closed because the stream ended within a line.
    refused_truncated,
    /// Links closed because their queue was full: the other end does not read.
    refused_slow,
    /// Connections closed because they said nothing intelligible before the deadline.
    refused_silent,
    /// Silent connections closed to make room for newer ones.
    refused_crowded,
    /// Connections closed because no dialect is served for their first bytes.
    refused_dialect,
    /// Connections refused because they came without the cluster key.
    refused_keyless,
    /// Connections refused because they came with another cluster key.
    refused_wrong_key,
    /// Connections refused because they came with a cluster key, and this node has none.
    refused_key,
    /// Connections and links closed because an encrypted frame was not as its sender made it.
    refused_frame,
    /// Connections closed because this node had no room: its limit of links, or no thread.
    refused_full,
    /// Connections whose other end closed before it sent anything, as port probes do.
    left_silent,
    /// Failures of the listening socket, for example too many open files.
    accept_errors,
    /// Messages of this node that were dropped because they exceed the length of a line.
    oversized,
    /// Events dropped because their reader did not fetch them in time.
    events_dropped,
    /// Records written to the journal.
    journal_records,
    /// Waits for the disk; each serves all records that had piled up.
    journal_syncs,
    /// Rewrites of the journal from a snapshot.
    journal_rewrites,
}

/// Number of present objects of one kind, with a limit.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge(Arc<AtomicUsize>);

/// One object that a [`Gauge`] counts; uncounted when dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<AtomicUsize>);

impl Gauge {
    /// Takes a permit unless `max` are taken.
    pub(super) fn enter(&self, max: usize) -> Option<Permit> {
        let one_more = |taken| (taken < max).then_some(taken + 1);
        let entered = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered.is_ok().then(|| Permit(Arc::clone(&self.0)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_has_as_many_seats_as_allowed() {
        let gauge = Gauge::default();
        let (one, two) = (gauge.enter(2), gauge.enter(2));
        assert!(one.is_some() && two.is_some() && gauge.enter(2).is_none());
        drop(one);
        assert!(gauge.enter(2).is_some());
    }

    #[test]
    fn every_counter_is_listed_under_its_name() {
        let counters = DriverCounters::default();
        counters.links_closed.add(3);
        assert!(counters.each().contains(&("links_closed", 3)));
    }
}
