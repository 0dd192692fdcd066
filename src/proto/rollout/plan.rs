//! Plan of a rollout: its steps, their interval, and the gates between them (T8).
//!
//! Invariants: steps ascend and end with everything; a plan travels in the transaction that starts
//! it and is the same on every node, so any remaining node can go on with it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gate::Gate;
use super::ids::{ModelId, NodeId};
use super::route::{ROUTE_BYTES_MAX, ROUTES_MAX, Route, is_token};
use super::state::BASIS_POINTS;
use crate::model::SigningBytes;

/// Maximum number of steps of a plan.
pub const STEPS_MAX: usize = 100;
/// Maximum number of gates of a plan.
pub const GATES_MAX: usize = 16;
/// Maximum length of all names, routes and gates of a plan together, in bytes.
pub const PLAN_TEXT_BYTES_MAX: usize = 4096;
/// Maximum interval between two steps: a week.
pub const INTERVAL_MAX: Duration = Duration::from_secs(604_800);

/// The part of a request that pins it to one version while a rollout lives (T9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// The value of the header of this name.
    Header(String),
    /// The value of the field of this name in the JSON body.
    Json(String),
    /// The value of a cookie.
    Cookie {
        /// Name of the cookie.
        name: String,
        /// True if the data plane sets the cookie itself where a request has none; else it is the
        /// application's.
        own: bool,
    },
}

impl Sticky {
    /// Name of the header, of the field or of the cookie.
    fn name(&self) -> &str {
        match self {
            Self::Header(name) | Self::Json(name) | Self::Cookie { name, .. } => name,
        }
    }
}

/// Copies of the stable version's requests for the new version, whose answers nobody gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Share of the requests that are copied, in basis points, from 1.
    pub share: u32,
    /// True if requests of methods that are not safe are copied too.
    #[serde(rename = "unsafe", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unsafe: bool,
}

impl Mirror {
    /// True if requests of this method are copied: GET, HEAD and OPTIONS change nothing.
    pub fn copies(&self, method: &str) -> bool {
        self.is_unsafe || matches!(method, "GET" | "HEAD" | "OPTIONS")
    }
}

/// Plan of a rollout, carried out with one transaction for each step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The stable version.
    pub from: ModelId,
    /// The new version.
    pub to: ModelId,
    /// Shares of the new version in basis points: ascending to 10,000. A first step of 0 is a
    /// preview, which only routes and a request's own choice lead to; it waits for a promote.
    pub steps: Vec<u32>,
    /// Interval between two steps, in milliseconds.
    pub interval_ms: u64,
    /// Gates that must hold before each further step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// The part of a request that pins it to a version; `None`: requests are not pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// Salt of the buckets of sticky requests; the same as long as the rollout lives.
    pub salt: u64,
    /// Minimum number of requests to the canary in a window; fewer say nothing.
    pub samples_min: u64,
    /// Length of the window that gates judge, in milliseconds.
    pub window_ms: u64,
    /// Node that takes the steps as long as it is alive.
    pub owner: NodeId,
    /// Warm-up of the new version, in milliseconds from the rollout's begin, in which its latencies
    /// do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warm_up_ms: u64,
    /// Number of checks, one a second, without a good one between, that may find a gate that fails.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u64,
    /// Time in milliseconds after which a due step that cannot be taken is answered by a rollback;
    /// 0: never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deadline_ms: u64,
    /// Routes that decide before the shares do, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Copies for the new version, if there are to be some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Digests of the servers that every node must have for the two versions; empty: each has its
    /// own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<ModelId, String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Plan {
    /// Checks that this is a plan that can be carried out.
    ///
    /// # Errors
    /// With the reason, in words for the plan's author.
    pub fn check(&self) -> Result<(), &'static str> {
        let ascends = self.steps.windows(2).all(|pair| pair[0] < pair[1]);
        if self.from == self.to {
            return Err("a rollout is from one version to another");
        }
        if self.steps.is_empty() || self.steps.len() > STEPS_MAX {
            return Err("a rollout has 1 to 100 steps");
        }
        if !ascends {
            return Err("the steps are not ascending");
        }
        if self.steps.last() != Some(&BASIS_POINTS) {
            return Err("the last step is not 100 %");
        }
        if self.gates.len() > GATES_MAX {
            return Err("a rollout has at most 16 gates");
        }
        if Duration::from_millis(self.interval_ms) > INTERVAL_MAX {
            return Err("the interval is longer than a week");
        }
        if Duration::from_millis(self.window_ms) > INTERVAL_MAX || self.window_ms == 0 {
            return Err("the window is not between 1 ms and a week");
        }
        if self.warm_up_ms.max(self.deadline_ms) > INTERVAL_MAX.as_secs() * 1000 {
            return Err("the warm-up or the deadline is longer than a week");
        }
        if self.routes.len() > ROUTES_MAX {
            return Err("a rollout has at most 16 routes");
        }
        if self.mirror.is_some_and(|it| !(1..=BASIS_POINTS).contains(&it.share)) {
            return Err("the mirrored share is not above 0 % and at most 100 %");
        }
        let is_ours = |model: &ModelId| [&self.from, &self.to].contains(&model);
        if !self.servers.iter().all(|(model, digest)| is_ours(model) && digest.len() <= 64) {
            return Err("the servers of a plan are digests of those of its two versions");
        }
        match &self.sticky {
            Some(Sticky::Cookie { name, .. }) if !is_token(name) => {
                return Err("the name of a cookie is of 1 to 256 letters, digits and - _ .");
            }
            Some(it) if it.name().len() > ROUTE_BYTES_MAX => {
                return Err("a sticky name has more than 256 bytes");
            }
            Some(_) | None => {}
        }
        if self.text_bytes() > PLAN_TEXT_BYTES_MAX {
            return Err("the names, routes and gates have more than 4096 bytes together");
        }
        Ok(())
    }

    /// Length of all texts of variable length, which transactions carry.
    fn text_bytes(&self) -> usize {
        let gates = self.gates.iter().map(|it| it.to_string().len());
        let routes = self.routes.iter().map(|it| it.to_string().len());
        let sticky = self.sticky.as_ref().map(|it| it.name().len());
        gates.chain(routes).chain(sticky).sum()
    }

    /// The highest number of the plan that the machine calculates with; times have limits of their
    /// own.
    pub fn highest(&self) -> u64 {
        self.samples_min.max(self.failures)
    }

    /// Adds the content to a statement that is signed.
    pub fn sign_into(&self, bytes: SigningBytes) -> SigningBytes {
        let bytes = bytes
            .text(self.from.as_str())
            .text(self.to.as_str())
            .number(self.interval_ms)
            .number(self.salt)
            .number(self.samples_min)
            .number(self.window_ms)
            .text(self.owner.as_str());
        let bytes = match &self.sticky {
            None => bytes.number(0),
            Some(Sticky::Header(name)) => bytes.number(1).text(name),
            Some(Sticky::Json(name)) => bytes.number(2).text(name),
            Some(Sticky::Cookie { name, own }) => bytes.number(3).text(name).number((*own).into()),
        };
        let bytes = bytes.number(self.steps.len() as u64);
        let bytes = self.steps.iter().fold(bytes, |bytes, step| bytes.number((*step).into()));
        let bytes = bytes.number(self.gates.len() as u64);
        let bytes = self.gates.iter().fold(bytes, |bytes, gate| bytes.text(&gate.to_string()));
        let more = [self.warm_up_ms, self.failures, self.deadline_ms];
        let is_of_before =
            self.routes.is_empty() && self.mirror.is_none() && self.servers.is_empty();
        if more == [0; 3] && is_of_before {
            // Plans signed before these fields existed stay valid.
            return bytes;
        }
        let mut bytes = more.into_iter().fold(bytes, SigningBytes::number);
        // Nothing is added for a field without content, and each begins with its name.
        if !self.routes.is_empty() {
            bytes = bytes.text("routes").number(self.routes.len() as u64);
            bytes = self.routes.iter().fold(bytes, |bytes, it| bytes.text(&it.to_string()));
        }
        if let Some(Mirror { share, is_unsafe }) = self.mirror {
            bytes = bytes.text("mirror").number(share.into()).number(is_unsafe.into());
        }
        if !self.servers.is_empty() {
            bytes = bytes.text("servers").number(self.servers.len() as u64);
            bytes = self
                .servers
                .iter()
                .fold(bytes, |bytes, (model, digest)| bytes.text(model.as_str()).text(digest));
        }
        bytes
    }
}

/// A plan with these gates, for tests.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) fn plan(gates: &[&str]) -> Plan {
    Plan {
        from: "v1".parse().unwrap(),
        to: "v2".parse().unwrap(),
        steps: vec![500, 2000, 10_000],
        interval_ms: 1000,
        gates: gates.iter().map(|it| it.parse().unwrap()).collect(),
        sticky: None,
        salt: 1,
        samples_min: 10,
        window_ms: 1000,
        owner: "node-a".parse().unwrap(),
        warm_up_ms: 0,
        failures: 0,
        deadline_ms: 0,
        routes: Vec::new(),
        mirror: None,
        servers: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_ascend_and_end_with_everything() {
        assert_eq!(plan(&[]).check(), Ok(()));
        let preview = Plan { steps: vec![0, 10_000], ..plan(&[]) };
        assert_eq!(preview.check(), Ok(()));
        for steps in [vec![], vec![500], vec![0], vec![500, 500, 10_000], vec![10_000, 5]] {
            assert!(Plan { steps: steps.clone(), ..plan(&[]) }.check().is_err(), "{steps:?}");
        }
        let same = Plan { to: "v1".parse().unwrap(), ..plan(&[]) };
        assert!(same.check().is_err());
    }

    #[test]
    fn a_plan_of_before_is_signed_as_it_was() {
        let bytes = |plan: &Plan| plan.sign_into(SigningBytes::new("x")).sha256();
        let old = plan(&[]);
        let text = serde_json::to_string(&old).unwrap();
        assert!(!text.contains("warm_up") && !text.contains("deadline"), "{text}");
        let mut seen = std::collections::BTreeSet::from([bytes(&old)]);
        assert!(!text.contains("routes") && !text.contains("mirror"), "{text}");
        let (name, route) = ("sid".to_owned(), "path:/a -> canary".parse::<Route>().unwrap());
        let sticky = |own| Some(Sticky::Cookie { name: name.clone(), own });
        let mirror = |is_unsafe| Some(Mirror { share: 500, is_unsafe });
        let changes = [
            Plan { warm_up_ms: 7, ..old.clone() },
            Plan { failures: 7, ..old.clone() },
            Plan { deadline_ms: 7, ..old.clone() },
            Plan { routes: vec![route.clone()], ..old.clone() },
            Plan { routes: vec![route.clone(), route.clone()], ..old.clone() },
            Plan { routes: vec!["path:/a -> stable".parse().unwrap()], ..old.clone() },
            Plan { mirror: mirror(false), ..old.clone() },
            Plan { mirror: mirror(true), ..old.clone() },
            Plan { routes: vec![route], mirror: mirror(false), ..old.clone() },
            Plan { servers: [(old.to.clone(), "0a".to_owned())].into(), ..old.clone() },
            Plan { sticky: sticky(false), ..old.clone() },
            Plan { sticky: sticky(true), ..old.clone() },
        ];
        for new in changes {
            assert!(seen.insert(bytes(&new)), "{new:?}");
            let text = serde_json::to_string(&new).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), new);
        }
    }

    #[test]
    fn texts_of_a_plan_are_of_bounded_length_and_a_share_is_at_most_all() {
        let check = |change: fn(&mut Plan)| {
            let mut it = plan(&[]);
            change(&mut it);
            it.check()
        };
        fn route(len: usize) -> Route {
            format!("path:/{} -> canary", "x".repeat(len)).parse().unwrap()
        }
        fn cookie(name: &str) -> Option<Sticky> {
            Some(Sticky::Cookie { name: name.to_owned(), own: false })
        }
        assert_eq!(check(|it| it.routes = vec![route(9); ROUTES_MAX]), Ok(()));
        assert!(check(|it| it.routes = vec![route(9); ROUTES_MAX + 1]).is_err());
        assert!(check(|it| it.routes = vec![route(250); ROUTES_MAX]).is_err());
        assert_eq!(check(|it| it.sticky = cookie("__Host-sid")), Ok(()));
        for wrong in ["", "a b", "a=b", "a;b", &"x".repeat(257)] {
            let it = Plan { sticky: cookie(wrong), ..plan(&[]) };
            assert!(it.check().is_err(), "{wrong}");
        }
        assert!(check(|it| it.sticky = Some(Sticky::Header("x".repeat(257)))).is_err());
        assert!(check(|it| it.sticky = Some(Sticky::Json("x".repeat(257)))).is_err());
        assert_eq!(check(|it| _ = it.servers.insert(it.to.clone(), "0a".to_owned())), Ok(()));
        let other = "v3".parse::<ModelId>().unwrap();
        let servers = [(other, "0a".to_owned())].into();
        assert!(Plan { servers, ..plan(&[]) }.check().is_err());
        assert!(check(|it| _ = it.servers.insert(it.to.clone(), "0".repeat(65))).is_err());
        for (share, is_fit) in [(0, false), (1, true), (10_000, true), (10_001, false)] {
            let mirror = Some(Mirror { share, is_unsafe: false });
            assert_eq!(Plan { mirror, ..plan(&[]) }.check().is_ok(), is_fit, "{share}");
        }
    }

    #[test]
    fn only_requests_that_change_nothing_are_copied_unless_all_are() {
        let copies = |is_unsafe, method| Mirror { share: 1, is_unsafe }.copies(method);
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert!(copies(false, method));
        }
        for method in ["POST", "PUT", "DELETE", "get", ""] {
            assert!(!copies(false, method) && copies(true, method), "{method}");
        }
    }
}
