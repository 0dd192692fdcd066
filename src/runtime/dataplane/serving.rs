//! State that is served now: one committed state, with all that an answer needs of it made
//! beforehand.

use std::sync::Arc;

use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::choose::ModelChoice;
use super::meters::Meter;
use super::pool::Version;
use crate::machine::rollout::ServedState;
use crate::proto::rollout::{ModelId, NodeId, RoutingState, TxId};

/// A committed state. A request takes one and keeps it to its end.
pub(super) struct ServingState {
    pub(super) serving: Arc<ServedState>,
    /// Number of the 10,000 buckets that are the canary's.
    pub(super) share: u32,
    /// The state as JSON, the same text on every node.
    pub(super) json: Bytes,
    /// Digest of the state, as text.
    pub(super) digest: String,
    /// Number that distinguishes rollouts.
    pub(super) epoch: u64,
    pub(super) stable: ModelBackend,
    pub(super) canary: ModelBackend,
}

/// Target of a model's requests.
pub(super) enum Backend {
    /// The model that is built in.
    Echo,
    /// The servers of the version.
    Servers(Arc<Version>),
    /// None: this node knows servers of other models only.
    Missing,
}

/// One of the two models of a state.
pub(super) struct ModelBackend {
    pub(super) model: ModelId,
    pub(super) meter: Arc<Meter>,
    pub(super) backend: Backend,
    /// Headers of all its answers.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Answer of the built-in model, up to the input, behind which a brace follows.
    pub(super) echo: String,
}

/// Headers of an answer that only this node may set.
pub(super) const OWN_HEADERS: [HeaderName; 5] = [
    HeaderName::from_static("x-model"),
    HeaderName::from_static("x-routing-version"),
    HeaderName::from_static("x-routing-txid"),
    HeaderName::from_static("x-routing-node"),
    HeaderName::from_static("x-routing-bucket"),
];

impl ModelBackend {
    pub(super) fn new(
        model: &ModelId,
        meter: Arc<Meter>,
        backend: Backend,
        state: &RoutingState,
        node: &NodeId,
    ) -> Self {
        let txid = state.txid.as_ref().map_or_else(|| "initial".to_owned(), TxId::to_string);
        let values = [model.to_string(), state.version.to_string(), txid, node.to_string()];
        let value = |it: String| HeaderValue::try_from(it).expect("names are plain text");
        let headers = OWN_HEADERS.into_iter().zip(values.map(value)).collect();
        let echo = json!({ "model_selected": model }).to_string();
        let echo = format!(
            "{},\"routing_state\":{},\"input\":",
            echo.trim_end_matches('}'),
            json_of(state),
        );
        Self { model: model.clone(), meter, backend, headers, echo }
    }

    /// Sets the headers of an answer that say which state and version it is of, and why.
    pub(super) fn sign(&self, headers: &mut HeaderMap, choice: &ModelChoice) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let [.., bucket] = OWN_HEADERS;
        let value = match choice {
            ModelChoice::Key(number) | ModelChoice::Cookie(.., number) => {
                HeaderValue::from(*number)
            }
            ModelChoice::Draw(_) => HeaderValue::from_static("random"),
            ModelChoice::Route(_) => HeaderValue::from_static("route"),
            ModelChoice::Wish(true) => HeaderValue::from_static("always"),
            ModelChoice::Wish(false) => HeaderValue::from_static("never"),
        };
        headers.insert(bucket, value);
        if let ModelChoice::Cookie(name, value, _) = choice {
            let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax");
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                headers.append(hyper::header::SET_COOKIE, cookie);
            }
        }
    }
}

/// Text of a state, in JSON.
pub(super) fn json_of(state: &RoutingState) -> String {
    serde_json::to_string(state).expect("a state has text for keys")
}
