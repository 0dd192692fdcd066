//! `peer --id NAME` and `peer rollout`: a node that rolls out, and the commands that ask it.
//!
//! The data directory of a node is `rollout-NAME`. It holds the node's key and its control socket.

pub mod args;
mod ask_args;
pub(in crate::cli) mod client;
mod commands;
pub(in crate::cli) mod format;
pub(in crate::cli) mod http;
mod local_server;
mod model;
pub(in crate::cli) mod proxy_args;
mod query;
mod report;
mod run;
mod settings;
pub mod start_args;
mod watch;
pub(in crate::cli) mod web;

use self::args::{RolloutArgs, RolloutCommand};
use super::CliError;
use super::args::PeerRunArgs;
use crate::machine::rollout::Command;
pub(in crate::cli) use run::RolloutService;
pub(in crate::cli) use settings::Settings;

/// Runs `peer --rollout NAME` with a port of its own, outside of a fleet.
///
/// # Errors
/// Fails if the node cannot start, or its disk fails.
pub(in crate::cli) fn node(args: &PeerRunArgs, settings: Settings) -> Result<(), CliError> {
    run::run(args, settings)
}

/// Runs `peer rollout …`.
///
/// # Errors
/// Fails if no node runs here, if it refuses, or if the order was not carried out.
pub fn command(args: &RolloutArgs) -> Result<(), CliError> {
    match &args.command {
        RolloutCommand::Start(args) => commands::start(args),
        RolloutCommand::Status(args) => commands::status(args),
        RolloutCommand::Pause(args) => commands::order(args, &Command::Pause),
        RolloutCommand::Resume(args) => commands::order(args, &Command::Resume),
        RolloutCommand::Promote(args) => commands::promote(args),
        RolloutCommand::Abort(args) => commands::order(args, &Command::Abort),
        RolloutCommand::Rollback(args) => commands::order(args, &Command::Rollback),
        RolloutCommand::Retry(args) => commands::order(args, &Command::Retry),
        RolloutCommand::History(args) => commands::history(args),
        RolloutCommand::Explain(args) => commands::explain(args),
        RolloutCommand::Resolve(args) => commands::resolve(args),
        RolloutCommand::Admit(args) => commands::admit(args),
        RolloutCommand::Remove(args) => commands::remove(args),
        RolloutCommand::Serve(args) => commands::serve(args),
        RolloutCommand::Unserve(args) => commands::unserve(args),
        RolloutCommand::Query(args) => query::run(args),
        RolloutCommand::Model(args) => model::run(args),
    }
}
