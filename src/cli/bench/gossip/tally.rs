//! Counters of all peers together, and the processor time of their processes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Bench, ask};
use crate::cli::CliError;
use crate::cli::bench::procfs;

/// Counters of all peers together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) delivered: u64,
    /// Number of copies that came.
    pub(super) received: u64,
    /// Number of copies that came because they were asked for.
    pub(super) repaired: u64,
    /// Signs that a peer could not keep up, by name: messages that the broadcast dropped for any
    /// reason but that they were there already, lines never written, links closed because they were
    /// slow, events that were not fetched.
    losses: BTreeMap<String, u64>,
    /// Seconds of processor time of all nodes.
    pub(super) cpu: f64,
}

/// Counters of a driver that only rise if a peer cannot keep up.
const LOSSES: [&str; 3] = ["lines_lost", "refused_slow", "events_dropped"];

impl Tally {
    /// Difference to the counters `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let earlier = |name: &String| before.losses.get(name).copied().unwrap_or(0);
        let losses = self.losses.iter().map(|(name, it)| (name.clone(), it - earlier(name)));
        Self {
            delivered: self.delivered - before.delivered,
            received: self.received - before.received,
            repaired: self.repaired - before.repaired,
            losses: losses.filter(|(_, count)| *count > 0).collect(),
            cpu: self.cpu - before.cpu,
        }
    }

    /// Signs that a peer could not keep up, by name.
    pub(super) const fn losses(&self) -> &BTreeMap<String, u64> {
        &self.losses
    }

    /// Microseconds of processor time for each message delivered.
    pub(super) fn cost(&self) -> f64 {
        self.cpu * 1e6 / self.delivered as f64
    }

    /// Adds the counters of a peer's status; `None` if some are missing.
    fn add(&mut self, status: &Value) -> Option<()> {
        let (broadcast, counters) = (&status["network"]["broadcast"], &status["counters"]);
        self.delivered += broadcast["messages_delivered"].as_u64()?;
        self.received += broadcast["messages_received"].as_u64()?;
        self.repaired += broadcast["repaired"].as_u64()?;
        for (reason, count) in broadcast["messages_dropped"].as_object()? {
            *self.losses.entry(format!("dropped, {reason}")).or_default() += count.as_u64()?;
        }
        for name in LOSSES {
            *self.losses.entry(name.to_owned()).or_default() += counters[name].as_u64()?;
        }
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
            "counters": { "lines_lost": 4, "refused_slow": 0, "events_dropped": 6 },
        });
        let mut tally = Tally::default();
        tally.add(&status).unwrap();
        let before = tally.clone();
        tally.add(&status).unwrap();
        let since = tally.since(&before);
        assert_eq!((since.delivered, since.received, since.repaired), (7, 8, 1));
        assert_eq!(tally.add(&json!({ "counters": {} })), None, "silence is not a zero");
        let losses: Vec<_> = since.losses().iter().map(|(name, it)| (name.as_str(), *it)).collect();
        let wanted =
            [("dropped, hasty", 3), ("dropped, old", 2), ("events_dropped", 6), ("lines_lost", 4)];
        assert_eq!(losses, wanted, "what did not move is left out");
    }
}
