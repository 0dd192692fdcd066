//! `peer order`: an order of entries that up to a third of its members cannot corrupt.
//!
//! The member runs inside a peer (`service`); questions and orders reach it by its control socket
//! (`local_server`). Proofs and logs are checked without it (`verify`).

pub mod args;
mod client;
mod latency;
mod local_server;
pub(in crate::cli) mod report;
mod service;
mod verify;

use self::args::{OrderArgs, OrderCommand};
use crate::cli::CliError;
pub(in crate::cli) use service::{Hear, OrderService, RunningOrder, Settings, member_keys};

/// Answers a question, carries out an order, or checks proofs and logs.
///
/// # Errors
/// Fails if no member runs here, it refuses, or something does not hold.
pub(in crate::cli) fn command(args: &OrderArgs) -> Result<(), CliError> {
    match &args.command {
        OrderCommand::Append(args) => client::append(args),
        OrderCommand::Follow(args) => client::follow(args),
        OrderCommand::Proof(args) => client::proof(args),
        OrderCommand::Verify(args) => verify::run(args),
        OrderCommand::Status(args) => client::status(args),
        OrderCommand::Evidence(args) => client::evidence(args),
        OrderCommand::Suspect(args) => client::suspect(args),
        OrderCommand::Members(args) => client::members(args),
        OrderCommand::Keygen(args) => client::keygen(args),
    }
}
