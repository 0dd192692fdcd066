//! State that is served now: one committed state, with all that an answer needs of it made
//! beforehand.

use std::sync::Arc;

use serde_json::json;

use super::meters::Meter;
use super::upstream::Pool;
use crate::machine::rollout::ServedState;
use crate::proto::rollout::{ModelId, NodeId, RoutingState, TxId};

/// A committed state. A request takes one and keeps it to its end.
pub(super) struct ServingState {
    pub(super) serving: Arc<ServedState>,
    /// Number of the 10,000 buckets that are the canary's.
    pub(super) share: u32,
    /// The state as JSON, the same text on every node.
    pub(super) json: Vec<u8>,
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
    /// A server, by its pool of connections.
    Upstream(Arc<Pool>),
    /// None: this node knows servers of other models only.
    Missing,
}

/// One of the two models of a state.
pub(super) struct ModelBackend {
    pub(super) model: ModelId,
    pub(super) meter: Arc<Meter>,
    pub(super) backend: Backend,
    /// Header lines of all its answers, up to the value of the last one, which is the bucket.
    pub(super) headers: Vec<u8>,
    /// Answer of the built-in model, up to the input, behind which a brace follows.
    pub(super) echo: Vec<u8>,
}

impl ModelBackend {
    pub(super) fn new(
        model: &ModelId,
        meter: Arc<Meter>,
        backend: Backend,
        state: &RoutingState,
        node: &NodeId,
    ) -> Self {
        let txid = state.txid.as_ref().map_or_else(|| "initial".to_owned(), TxId::to_string);
        let headers = format!(
            "X-Model: {model}\r\nX-Routing-Version: {}\r\nX-Routing-Txid: {txid}\r\n\
             X-Routing-Node: {node}\r\nX-Routing-Bucket: ",
            state.version
        );
        let echo = json!({ "model_selected": model }).to_string();
        let echo = format!(
            "{},\"routing_state\":{},\"input\":",
            echo.trim_end_matches('}'),
            json_of(state),
        );
        Self {
            model: model.clone(),
            meter,
            backend,
            headers: headers.into_bytes(),
            echo: echo.into_bytes(),
        }
    }
}

/// Text of a state, in JSON.
pub(super) fn json_of(state: &RoutingState) -> String {
    serde_json::to_string(state).expect("a state has text for keys")
}
