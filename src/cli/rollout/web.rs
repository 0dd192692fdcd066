//! Rollouts of this node over HTTP: its status, and the orders of its operator.

use std::path::PathBuf;

use serde_json::Value;

use super::client::{Client, understood};
use super::format::outcome;
use super::local_server::NodeRequest;
use crate::cli::CliError;
use crate::machine::rollout::Command;

/// Status of the node in `dir`, as [`NodeRequest::Status`] has it.
///
/// # Errors
/// Fails if the node does not answer.
pub(in crate::cli) fn status(dir: PathBuf) -> Result<Value, CliError> {
    Client { dir }.raw(&NodeRequest::Status)
}

/// The order of this name: `promote`, `pause`, `resume`, `abort` or `rollback`.
pub(in crate::cli) fn order(name: &str) -> Option<Command> {
    Some(match name {
        "promote" => Command::Promote { full: false },
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        "abort" => Command::Abort,
        "rollback" => Command::Rollback,
        _ => return None,
    })
}

/// Gives an order to the node in `dir`; returns its outcome for people.
///
/// # Errors
/// Fails if the order was refused or aborted, or its outcome is not known.
pub(in crate::cli) fn carry_out(dir: PathBuf, order: &Command) -> Result<String, CliError> {
    let answer = Client { dir }.raw(&NodeRequest::Order { order: order.clone() })?;
    outcome(order, &understood(answer)?).map_err(CliError::Failed)
}
