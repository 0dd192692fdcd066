//! Questions that others on this machine may ask of a running node, by its control socket.
//!
//! One line of JSON in, one out: `{"ask": …}`, and `{"ok": …}` or `{"error": …}`.

use crate::proto::rollout::Roster;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::log::LogLine;
use crate::cli::text::escape;
use crate::machine::rollout::Command;
use crate::model::WallTime;
use crate::network::rollout::RolloutNode;
use crate::proto::rollout::{ModelId, NodeId, ServerChanges, TxId};
use crate::runtime::control::{ControlAnswer, ControlHandler};
use crate::runtime::rollout::{EngineStatus, StoppingError};

/// Largest number of log lines that are kept for explanations.
const STORY_MAX: usize = 4_096;

/// Question or order to a node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(in crate::cli) enum NodeRequest {
    /// Status of the node. `{"standing": …, "http": …, "url": …, "wall_ms": …, "can_decide": bool,
    /// "outside": {gate: reason for which it has no answer}, "serves": {NAME: URL}}`.
    Status,
    /// Order to the machine; answered by a
    /// [`CommandResult`](crate::machine::rollout::CommandResult).
    Order {
        /// Order for the machine.
        order: Command,
    },
    /// Last committed and aborted transactions. `{"committed": […], "aborted": […]}`.
    History {
        /// Largest number of each.
        count: usize,
    },
    /// End of a transaction, and the log lines about it.
    /// `{"txid": …, "committed": …, "aborted": …, "story": [{"wall_ms", "message"}]}`.
    Explain {
        /// Name of the transaction.
        txid: TxId,
    },
    /// Lets a node take part. `{"vouched": bool, "keys": [the keys that may be meant]}`.
    Admit {
        /// Name of the node.
        node: NodeId,
        /// First digits of its key, perhaps none.
        #[serde(default)]
        key: String,
    },
    /// Changes the servers of versions at this node alone. `{"node_id": …, "serves": {NAME: URL}}`.
    Serve {
        /// Changes by version.
        changes: ServerChanges,
    },
    /// Takes a node out of the roster; answered as an order.
    Remove {
        /// Name of the node.
        node: NodeId,
    },
}

/// Engine of the node, with what its control socket tells besides.
pub(in crate::cli) struct LocalServer {
    pub(super) node: RolloutNode,
    story: Mutex<VecDeque<(WallTime, String)>>,
}

impl LocalServer {
    /// A node without log lines yet.
    pub(super) fn new(node: RolloutNode) -> Self {
        Self { node, story: Mutex::default() }
    }

    /// Status of the node; its fields are those of [`NodeRequest::Status`].
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub(in crate::cli) fn status(&self, wall: WallTime) -> Result<Value, StoppingError> {
        Ok(json!({
            "standing": self.node.engine.standing()?,
            "http": self.node.plane.addr().to_string(),
            "url": self.node.plane.url(),
            "wall_ms": wall.0,
            "can_decide": self.node.can_decide(),
            "outside": self.node.outside.failures(),
            "serves": self.serves(),
        }))
    }

    /// Address of each version's server, as text; empty if this node answers with an echo.
    fn serves(&self) -> BTreeMap<ModelId, String> {
        let servers = self.node.versions.servers();
        servers.into_iter().map(|(model, it)| (model, it.to_string())).collect()
    }

    /// Keeps a log line for explanations.
    pub(super) fn note(&self, at: WallTime, line: &LogLine) {
        let mut story = self.story.lock().expect("nothing under this lock can panic");
        if story.len() >= STORY_MAX {
            story.pop_front();
        }
        story.push_back((at, line.message.clone()));
    }

    fn answer(&self, ask: NodeRequest, wall: WallTime) -> Result<Value, String> {
        let stopping = |error: StoppingError| error.to_string();
        match ask {
            NodeRequest::Status => self.status(wall).map_err(stopping),
            NodeRequest::Order { order } => {
                if !self.node.can_decide() && !matches!(order, Command::Resolve { .. }) {
                    return Err("not all nodes are in the group yet that keeps the decisions \
                                (--decide-in-log); start them all with that flag, for =bft with \
                                a line for each in the roster of --order, and try again"
                        .to_owned());
                }
                Ok(json!(self.node.engine.command(order).map_err(stopping)?))
            }
            NodeRequest::History { count } => {
                let (committed, aborted) = self.node.engine.history(count).map_err(stopping)?;
                Ok(json!({ "committed": committed, "aborted": aborted }))
            }
            NodeRequest::Explain { txid } => self.explain(&txid),
            NodeRequest::Admit { node, key } => {
                let keys = self.node.engine.admit(node, key).map_err(stopping)?;
                Ok(json!({ "vouched": keys.len() == 1, "keys": keys }))
            }
            NodeRequest::Serve { changes } => {
                self.node.change_servers(&changes)?;
                let me = &self.node.engine.me().node_id;
                Ok(json!({ "node_id": me, "serves": self.serves() }))
            }
            NodeRequest::Remove { node } => self.remove(&node),
        }
    }

    fn explain(&self, txid: &TxId) -> Result<Value, String> {
        let (committed, aborted) =
            self.node.engine.history(usize::MAX).map_err(|error| error.to_string())?;
        let committed = committed.into_iter().rfind(|it| it.proposal.txid == *txid);
        let aborted = aborted.into_iter().rfind(|it| it.txid == *txid);
        let name = txid.to_string();
        let story = self.story.lock().expect("nothing under this lock can panic");
        let told =
            story.iter().filter(|(_, text)| text.split([' ', ',', ':']).any(|it| it == name));
        let told: Vec<_> =
            told.map(|(at, text)| json!({ "wall_ms": at.0, "message": text })).collect();
        drop(story);
        Ok(json!({ "txid": name, "committed": committed, "aborted": aborted, "story": told }))
    }

    fn remove(&self, node: &NodeId) -> Result<Value, String> {
        let standing = self.node.engine.standing().map_err(|error| error.to_string())?;
        let EngineStatus::Running { status, .. } = standing else {
            return Err("this node has not begun, so it has no roster yet".to_owned());
        };
        if !status.roster.has(node) {
            return Err(format!("{node} does not take part; peer rollout status lists who does"));
        }
        let rest = status.roster.nodes().filter(|it| it.node_id != *node).cloned().collect();
        let roster = Roster::new(rest).map_err(str::to_owned)?;
        let answer = self.node.engine.command(Command::Roster(roster));
        Ok(json!(answer.map_err(|error| error.to_string())?))
    }
}

/// Returns a handler that answers by `local`, for as long as that lives.
pub(super) fn handler(local: Weak<LocalServer>) -> ControlHandler {
    let clock = crate::runtime::clock::Clock::start();
    Arc::new(move |request| {
        let answer = match (local.upgrade(), serde_json::from_str(request)) {
            (Some(local), Ok(ask)) => local.answer(ask, clock.now().wall),
            (None, _) => Err("it is stopping".to_owned()),
            (_, Err(error)) => Err(format!("not a question: {error}")),
        };
        let answer = match answer {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": escape(&error) }),
        };
        ControlAnswer::Line(answer.to_string())
    })
}
