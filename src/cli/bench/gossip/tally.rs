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

    /// Adds what a peer says of itself; `None` when it does not say all of it.
    fn add(&mut self, status: &Value) -> Option<()> {
        let (broadcast, counters) = (&status["network"]["broadcast"], &status["counters"]);
        self.delivered += broadcast["messages_delivered"].as_u64()?;
        self.received += broadcast["messages_received"].as_u64()?;
        self.repaired += broadcast["repaired"].as_u64()?;
        let reasons = broadcast["messages_dropped"].as_object()?;
        self.dropped += reasons.values().map(Value::as_u64).sum::<Option<u64>>()?;
        self.lost += counters["lines_lost"].as_u64()?;
        self.slow += counters["refused_slow"].as_u64()?;
        self.unfetched += counters["events_dropped"].as_u64()?;
        Some(())
    }
}

impl Bench {
    /// Asks all peers for their counters.
    pub(super) fn tally(&self) -> Result<Tally, CliError> {
        let mut tally = Tally::default();
        for socket in &self.sockets {
            let status = ask(socket, &json!({ "ask": "status" }))?;
            let text = "a peer's status lacks counters of the broadcast";
            tally.add(&status).ok_or_else(|| CliError::Failed(text.to_owned()))?;
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
            "network": { "broadcast": { "messages_delivered": 7, "messages_received": 8,
                "repaired": 1, "messages_dropped": { "old": 2, "hasty": 3 } } },
            "counters": { "lines_lost": 4, "refused_slow": 5, "events_dropped": 6 },
        });
        let mut tally = Tally::default();
        tally.add(&status).unwrap();
        let before = tally;
        tally.add(&status).unwrap();
        let since = tally.since(&before);
        assert_eq!((since.delivered, since.received, since.repaired), (7, 8, 1));
        assert_eq!(tally.add(&json!({ "counters": {} })), None, "silence is not a zero");
        assert_eq!(since.losses().map(|(_, count)| count), [5, 4, 5, 6]);
    }
}
