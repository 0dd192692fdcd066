//! Order of a rollout as an operator gives it, and a committed state as the data plane serves it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::proto::rollout::{
    Gate, Mirror, ModelId, NodeId, Plan, RemovalAuthority, Route, RoutingState, Sticky, TxId,
};

/// Order of a rollout; the node that begins it adds owner and salt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOrder {
    /// The stable version, which the fleet serves now.
    pub from: ModelId,
    /// The new version.
    pub to: ModelId,
    /// Shares of the canary in basis points, see [`Plan::steps`].
    pub steps: Vec<u32>,
    /// Interval between two steps, in milliseconds.
    pub interval_ms: u64,
    /// Gates that must hold.
    pub gates: Vec<Gate>,
    /// The part of a request that pins it to a version, if any.
    pub sticky: Option<Sticky>,
    /// Minimum number of requests in a window.
    pub samples_min: u64,
    /// Length of the window, in milliseconds.
    pub window_ms: u64,
    /// As [`Plan::warm_up_ms`] says.
    #[serde(default)]
    pub warm_up_ms: u64,
    /// As [`Plan::failures`] says.
    #[serde(default)]
    pub failures: u64,
    /// As [`Plan::deadline_ms`] says.
    #[serde(default)]
    pub deadline_ms: u64,
    /// Routes that decide before the shares do.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Copies for the new version, if there are to be some.
    #[serde(default)]
    pub mirror: Option<Mirror>,
    /// True if all nodes must have the same servers of both versions as the one that begins it.
    #[serde(default)]
    pub same_servers: bool,
}

impl StartOrder {
    /// Returns the plan of this order.
    #[must_use]
    pub fn into_plan(self, owner: NodeId, salt: u64) -> Plan {
        let Self { from, to, steps, interval_ms, gates, sticky, samples_min, window_ms, .. } = self;
        let Self { warm_up_ms, failures, deadline_ms, routes, mirror, .. } = self;
        Plan {
            from,
            to,
            steps,
            interval_ms,
            gates,
            sticky,
            salt,
            samples_min,
            window_ms,
            owner,
            warm_up_ms,
            failures,
            deadline_ms,
            routes,
            mirror,
            servers: BTreeMap::new(),
        }
    }
}

/// Gates that this node asks other systems about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideGates {
    /// The gates, none of which is of the node's own figures.
    pub gates: Vec<Gate>,
    /// Interval between two questions about one gate.
    pub every: Duration,
}

impl OutsideGates {
    /// Returns no gates.
    #[must_use]
    pub const fn none() -> Self {
        Self { gates: Vec::new(), every: Duration::ZERO }
    }

    /// Returns those of a plan, asked about half the interval of its steps, from 1 s to 15 s.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let gates = plan.gates.iter().filter(|it| it.is_outside()).cloned().collect();
        let half = Duration::from_millis(plan.interval_ms) / 2;
        Self { gates, every: half.clamp(Duration::from_secs(1), Duration::from_secs(15)) }
    }
}

/// A committed state with the settings that the data plane needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedState {
    /// The committed state, to be served.
    pub state: RoutingState,
    /// Salt of the rollout that set the state.
    pub salt: u64,
    /// The part of a request that pins it to a version in that rollout, if any.
    pub sticky: Option<Sticky>,
    /// Length of the window that its gates judge.
    pub window: Option<Duration>,
    /// Time since the rollout's begin in which the canary's latencies do not count.
    pub warm_up: Duration,
    /// Routes that decide before the shares do; none once the rollout is over or the brake is on.
    pub routes: Vec<Route>,
    /// Copies for the canary, as long as routes are served.
    pub mirror: Option<Mirror>,
    /// Gates that other systems judge, to be asked for while the rollout lives.
    pub outside: OutsideGates,
    /// Reason why everything goes to the stable version, if the brake is on.
    pub brake: Option<String>,
    /// The transaction that called this node gone, and the authority for it, if it was.
    pub removed: Option<(TxId, RemovalAuthority)>,
}

impl ServedState {
    /// Returns this state as it is served outside of any rollout.
    #[must_use]
    pub const fn new(state: RoutingState) -> Self {
        Self {
            state,
            salt: 0,
            sticky: None,
            window: None,
            warm_up: Duration::ZERO,
            routes: Vec::new(),
            mirror: None,
            outside: OutsideGates::none(),
            brake: None,
            removed: None,
        }
    }
}
