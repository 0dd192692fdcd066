//! A client of the node that rolls out on this machine, by its control socket.

use crate::proto::rollout::NodeId;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::NodeAskArgs;
use super::format::table::View;
use super::format::timeline::History;
use super::local_server::NodeRequest;
use crate::cli::{CliError, local_client};
use crate::runtime::control;
use crate::runtime::files::control_path;

/// Time-out of an answer: a transaction waits 2 s for votes.
const PATIENCE: Duration = Duration::from_secs(15);

/// Running node that can be asked.
pub(in crate::cli) struct Client {
    /// Folder of the node, with its control socket.
    pub(in crate::cli) dir: PathBuf,
}

impl Client {
    /// Finds the node to ask: the one of `--id`, or the first that runs here.
    ///
    /// # Errors
    /// Fails if the node does not run here.
    pub(super) fn find(args: &NodeAskArgs) -> Result<Self, CliError> {
        let data = args.data.display();
        if let Some(id) = &args.id {
            let dir = args.data.join(format!("rollout-{id}"));
            if control::is_served(&control_path(&dir)) {
                return Ok(Self { dir });
            }
            return Err(CliError::Failed(format!(
                "{id} does not run with --data {data}; start it: peer --port 60001 --id {id} \
                 --http 127.0.0.1:50051"
            )));
        }
        let found = local_client::running::<NodeId>(&args.data, "rollout-").into_iter().next();
        found.map(|(_, dir)| Self { dir }).ok_or_else(|| {
            CliError::Failed(format!(
                "no node that rolls out runs with --data {data}; start one: peer --port 60001 \
                 --id node-a --http 127.0.0.1:50051"
            ))
        })
    }

    /// Returns the node's answer as JSON.
    ///
    /// # Errors
    /// Fails if the node does not answer, or answers with an error.
    pub(in crate::cli) fn raw(&self, wanted: &NodeRequest) -> Result<Value, CliError> {
        let mut answer = local_client::exchange(&self.dir, wanted, PATIENCE, "ask the node")?;
        Ok(answer["ok"].take())
    }

    /// Returns the node's answer, parsed.
    ///
    /// # Errors
    /// As [`Client::raw`].
    pub(in crate::cli) fn ask<T: DeserializeOwned>(
        &self,
        wanted: &NodeRequest,
    ) -> Result<T, CliError> {
        understood(self.raw(wanted)?)
    }

    /// Returns the node's status.
    ///
    /// # Errors
    /// As [`Client::raw`].
    pub(in crate::cli) fn view(&self) -> Result<View, CliError> {
        self.ask(&NodeRequest::Status)
    }

    /// Returns the last transactions, at most `count` of each kind.
    ///
    /// # Errors
    /// As [`Client::raw`].
    pub(in crate::cli) fn history(&self, count: usize) -> Result<History, CliError> {
        self.ask(&NodeRequest::History { count })
    }
}

pub(super) fn understood<T: DeserializeOwned>(value: Value) -> Result<T, CliError> {
    serde_json::from_value(value).map_err(|error| {
        CliError::Failed(format!(
            "the node's answer cannot be understood ({error}); is it of another version?"
        ))
    })
}
