//! The counters of all peers together, and what the processes have used.

use serde_json::{Value, json};

use super::{Bench, ask};
use crate::cli::CliError;
use crate::cli::bench::procfs;

/// Counters of all peers together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) delivered: u64,
    /// Copies that came.
    pub(super) received: u64,
    /// Copies that came because they were asked for.
    pub(super) repaired: u64,
    /// What the broadcast dropped, for any reason but that it was there already.
    pub(super) dropped: u64,
    /// Lines that were decided and never written.
    pub(super) lost: u64,
    /// Links closed because their queue was full.
    pub(super) slow: u64,
    /// Events that nobody fetched in time.
    pub(super) unfetched: u64,
    /// Seconds of processor time of all nodes.
    pub(super) cpu: f64,
}

impl Tally {
    /// What was added since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            delivered: self.delivered - before.delivered,
            received: self.received - before.received,
            repaired: self.repaired - before.repaired,
            dropped: self.dropped - before.dropped,
            lost: self.lost - before.lost,
            slow: self.slow - before.slow,
            unfetched: self.unfetched - before.unfetched,
            cpu: self.cpu - before.cpu,
        }
    }

    /// What shows that somebody could not keep up.
    pub(super) const fn losses(&self) -> [(&'static str, u64); 4] {
        [
            ("dropped", self.dropped),
            ("lines_lost", self.lost),
            ("slow_links", self.slow),
            ("events_dropped", self.unfetched),
        ]
    }

    /// Microseconds of processor time for each message delivered.
    pub(super) fn cost(&self) -> f64 {
        self.cpu * 1e6 / self.delivered as f64
    }

    fn add(&mut self, status: &Value) {
        let broadcast = |name: &str| status["broadcast"][name].as_u64().unwrap_or(0);
        let counter = |name: &str| status["counters"][name].as_u64().unwrap_or(0);
        self.delivered += broadcast("messages_delivered");
        self.received += broadcast("messages_received");
        self.repaired += broadcast("repaired");
        let reasons = status["broadcast"]["messages_dropped"].as_object();
        self.dropped +=
            reasons.into_iter().flatten().filter_map(|(_, it)| it.as_u64()).sum::<u64>();
        self.lost += counter("lines_lost");
        self.slow += counter("refused_slow");
        self.unfetched += counter("events_dropped");
    }
}

impl Bench {
    /// Asks all peers for their counters.
    pub(super) fn tally(&self) -> Result<Tally, CliError> {
        let mut tally = Tally::default();
        for socket in &self.sockets {
            tally.add(&ask(socket, &json!({ "ask": "status" }))?);
        }
        let nodes = self.fleet.seeds().iter().chain(self.fleet.peers());
        let pids = nodes.filter_map(|node| self.fleet.pid(*node));
        tally.cpu = pids.filter_map(procfs::cpu_seconds).sum();
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_peers_are_added_and_every_reason_counts() {
        let status = json!({
            "broadcast": { "messages_delivered": 7, "messages_received": 8, "repaired": 1,
                "messages_dropped": { "old": 2, "hasty": 3 } },
            "counters": { "lines_lost": 4, "refused_slow": 5, "events_dropped": 6 },
        });
        let mut tally = Tally::default();
        tally.add(&status);
        let before = tally;
        tally.add(&status);
        let since = tally.since(&before);
        assert_eq!((since.delivered, since.received, since.repaired), (7, 8, 1));
        assert_eq!(since.losses().map(|(_, count)| count), [5, 4, 5, 6]);
    }
}
