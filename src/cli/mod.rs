//! Command line: flags, `config.txt`, log lines, questions and their answers.
//!
//! Invariants:
//! - Every error of the user ends in one clear sentence with its remedy, and exit code 2.
//! - Every refusal of the machine or network ends in one sentence too, and exit code 1.
//! - Only [`report`] knows the required lines; only `src/bin` ends the process.
//!
//! No protocol decision is made here: a node's settings go in, its events come out.

pub mod args;
pub mod bench;
pub mod chat;
pub mod commands;
pub mod config;
pub mod demo;
mod descriptor_check;
mod error;
pub mod fleet;
pub mod keygen;
mod local_client;
pub mod log;
pub mod metrics;
pub mod order;
mod output;
pub mod page;
mod parse;
mod picture;
pub mod query;
pub mod report;
pub mod rollout;
pub mod run;
mod seeds;
pub mod settings;
pub mod share;
pub mod simulate;
pub mod swarm;
mod terminal;
pub mod top;

pub use crate::model::{size, span};
pub use commands::{PeerArgs, SeedArgs, peer, seed};
pub use error::{CliError, conclude};
pub use parse::parse;

use crate::model::text;
