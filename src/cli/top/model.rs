//! Everything that was seen: the last answer of the node and of the seeds, and rates. Pure.

use std::collections::VecDeque;

use serde_json::Value;

use super::decisions::Decision;
use super::look::{NodeView, Sighting};
use crate::cli::query::FleetView;
use crate::model::WallTime;

/// Number of rates that are kept for the curves.
const RATES_MAX: usize = 240;

/// Counters whose rates are shown: label, and path in the status.
pub(super) const COUNTERS: [(&str, &str); 13] = [
    ("gossip made", "/gossip_made"),
    ("gossip that came twice", "/gossip_duplicates"),
    ("messages published", "/network/broadcast/messages_published"),
    ("messages delivered", "/network/broadcast/messages_delivered"),
    ("messages sent on", "/network/broadcast/messages_sent"),
    ("messages that came twice", "/network/broadcast/duplicates"),
    ("direct messages sent", "/network/direct/messages_sent"),
    ("direct messages received", "/network/direct/messages_received"),
    ("lines read", "/counters/lines_in"),
    ("lines written", "/counters/lines_out"),
    ("bytes read", "/counters/bytes_in"),
    ("bytes written", "/counters/bytes_out"),
    ("requests to the data plane", "/rollout/requests"),
];

/// Paths of the last numbers of the chat and of the order, for their rates.
pub(super) const LOGS: [(&str, &str); 2] = [("chat", "/chat/final"), ("order", "/order/places")];

/// A counter over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    /// Value of the counter, if the node has it.
    pub(super) total: Option<u64>,
    /// Increases per second, the latest last.
    pub(super) rates: VecDeque<u64>,
}

impl Series {
    fn take(&mut self, now: Option<u64>, elapsed_ms: u64) {
        // A counter that has become smaller is of a node that was started again.
        if let (Some(before), Some(now)) = (self.total, now) {
            let rate = now.saturating_sub(before) * 1_000 / elapsed_ms.max(1);
            self.rates.push_back(rate);
            if self.rates.len() > RATES_MAX {
                self.rates.pop_front();
            }
        }
        self.total = now;
    }

    /// The last rate, if there were two looks.
    pub(super) fn now(&self) -> Option<u64> {
        self.rates.back().copied()
    }
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct TopModel {
    /// Last answer of the node.
    pub(super) node: Option<NodeView>,
    /// Time of that answer.
    node_at: WallTime,
    /// Reason why the node does not answer now.
    pub(super) node_trouble: Option<String>,
    /// Last answer of a seed.
    pub(super) fleet: Option<FleetView>,
    /// Time of that answer.
    fleet_at: WallTime,
    /// Reason why no seed answers now.
    pub(super) fleet_trouble: Option<String>,
    /// Decisions of the seeds, the latest first.
    pub(super) decisions: Vec<Decision>,
    /// Counters over time, in the order of [`COUNTERS`], then of [`LOGS`].
    series: Vec<Series>,
}

impl TopModel {
    /// Takes a look; what did not answer stays as it was seen last.
    pub(super) fn take(&mut self, sighting: Sighting) {
        let at = sighting.at;
        match sighting.node {
            Ok(node) => {
                let elapsed_ms = at.0.saturating_sub(self.node_at.0);
                let paths = COUNTERS.iter().chain(&LOGS);
                self.series.resize_with(COUNTERS.len() + LOGS.len(), Series::default);
                for (series, (_, path)) in self.series.iter_mut().zip(paths) {
                    series.take(node.status.pointer(path).and_then(Value::as_u64), elapsed_ms);
                }
                (self.node, self.node_at, self.node_trouble) = (Some(node), at, None);
            }
            Err(reason) => self.node_trouble = Some(reason),
        }
        match sighting.fleet {
            Some(Ok(fleet)) => {
                (self.fleet, self.fleet_at, self.fleet_trouble) = (Some(fleet), at, None);
                self.decisions = sighting.decisions;
            }
            Some(Err(reason)) => self.fleet_trouble = Some(reason),
            None => {}
        }
    }

    /// Status of the node; `null` if it never answered.
    pub(super) fn status(&self) -> &Value {
        self.node.as_ref().map_or(&Value::Null, |it| &it.status)
    }

    /// Counter number `index` of [`COUNTERS`] and [`LOGS`] over time.
    pub(super) fn series(&self, index: usize) -> Option<&Series> {
        self.series.get(index)
    }

    /// Time since the node answered last, in ms.
    pub(super) fn node_age_ms(&self, now: WallTime) -> u64 {
        now.0.saturating_sub(self.node_at.0)
    }

    /// Time since a seed answered last, in ms.
    pub(super) fn fleet_age_ms(&self, now: WallTime) -> u64 {
        now.0.saturating_sub(self.fleet_at.0)
    }
}
