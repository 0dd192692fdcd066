//! The node's own endpoints: its state, its health and its metrics.

use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};

use super::Shared;
use super::metrics;
use super::serving::ServingState;
use crate::runtime::web::prometheus;
use crate::runtime::web::refusal::{self, JSON, Refusal};

/// Beginning of the paths that are the node's in any case.
const PREFIX: &str = "/-/folkmoot";

/// Paths at which the node itself answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnPaths {
    /// `/routing`, `/health` and `/metrics` as well as those below `/-/folkmoot/`.
    #[default]
    Document,
    /// Only those below `/-/folkmoot/`; all others are the service's.
    Prefix,
}

/// Resource of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Routing,
    Health,
    Metrics,
    /// Nothing, at a path that is the node's.
    Nothing,
}

/// The node's resource at a path; `None` if the path is the service's.
pub(super) fn at(path: &str, own_paths: OwnPaths) -> Option<Resource> {
    let is_below = |rest: &&str| rest.is_empty() || rest.starts_with('/');
    let (rest, is_prefixed) = match path.strip_prefix(PREFIX).filter(is_below) {
        Some(rest) => (rest, true),
        None if own_paths == OwnPaths::Prefix => return None,
        None => (path, false),
    };
    Some(match rest {
        "/routing" | "/routing/state" => Resource::Routing,
        "/health" | "/health/snapshot" => Resource::Health,
        "/metrics" => Resource::Metrics,
        _ if is_prefixed => Resource::Nothing,
        _ => return None,
    })
}

/// Refusal of a node that has no state yet.
pub(super) fn not_ready() -> Refusal {
    let reason = "this node does not know yet what its fleet serves; peer rollout status shows for \
                  whom it waits";
    Refusal::new(503, "not_ready", reason)
}

/// Answer at a path of the node.
pub(super) fn answer(
    shared: &Shared,
    resource: Resource,
    request: &Request<Incoming>,
    state: Option<&ServingState>,
) -> Response<Bytes> {
    if resource == Resource::Nothing {
        shared.counters.refused.add(1);
        let reason = "the node has routing, health and metrics here";
        return Refusal::new(404, "no_such_path", reason).response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        shared.counters.refused.add(1);
        let refusal = Refusal::new(405, "no_such_method", "this path has GET, HEAD");
        let mut response = refusal.response();
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match (resource, state) {
        (Resource::Routing, None) => not_ready().response(),
        (Resource::Routing, Some(state)) => refusal::own(200, JSON, state.json.clone()),
        (Resource::Health, _) => {
            let (is_ready, text) = shared.health_json();
            refusal::own(if is_ready { 200 } else { 503 }, JSON, text)
        }
        (Resource::Metrics | Resource::Nothing, _) => {
            let open = prometheus::open_metrics(&metrics::registry(shared));
            if prometheus::wants_open_metrics(request.headers()) {
                return refusal::own(200, prometheus::OPEN_METRICS, open);
            }
            refusal::own(200, prometheus::CLASSIC, prometheus::classic(&open))
        }
    }
}

/// A body as the input of a built-in model: itself if it is JSON, or else an empty object.
pub(super) fn input_of(body: &[u8]) -> &str {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if is_json { text.trim_ascii() } else { "{}" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_paths_are_below_its_prefix_and_those_of_the_document_if_wished() {
        use OwnPaths::{Document, Prefix};
        for (path, document, prefix) in [
            ("/health", Some(Resource::Health), None),
            ("/routing/state", Some(Resource::Routing), None),
            ("/metrics", Some(Resource::Metrics), None),
            ("/metrics/x", None, None),
            ("/predict", None, None),
            ("/-/folkmoot/metrics", Some(Resource::Metrics), Some(Resource::Metrics)),
            ("/-/folkmoot/x", Some(Resource::Nothing), Some(Resource::Nothing)),
            ("/-/folkmootx/metrics", None, None),
        ] {
            assert_eq!((at(path, Document), at(path, Prefix)), (document, prefix), "{path}");
        }
    }
}
