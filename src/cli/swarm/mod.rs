//! `peer swarm`: one peer of the assignment's swarm, from its two files to its log.
//!
//! Reads `Common.cfg` and `PeerInfo.cfg`, words the events, and chooses the exit code; choking and
//! requests are decided in [`crate::machine::swarm`], and bytes are moved in [`crate::runtime`].

pub mod args;
pub mod common;
mod lines;
mod log_thread;
mod logfile;
mod messages;
pub mod roster;
mod run;
mod settings;

use self::args::{SwarmArgs, SwarmCommand};
use super::{CliError, share};

/// Arguments of `peer swarm`.
///
/// # Errors
/// Any failure that keeps the peer from starting or from ending with success.
pub fn run(args: &SwarmArgs) -> Result<(), CliError> {
    match &args.command {
        None => run::run(args),
        Some(SwarmCommand::Status(args)) => share::status(args.json),
    }
}
