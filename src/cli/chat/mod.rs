//! `peer chat`: the chat of a group that has one order for all messages, on terminals and for
//! scripts.
//!
//! On a terminal there is a [`screen`]; scripts get [`plain`] lines. Both show the same [`model`],
//! which a [`session`] keeps. No protocol decision is made here.

pub mod args;
mod attach;
mod backend;
mod byzantine;
mod client;
mod command;
mod compare;
mod engine;
mod event_log;
mod format;
mod input;
mod local_server;
mod model;
mod order_service;
mod plain;
mod recover;
mod run;
mod screen;
mod service;
mod session;
mod settings;
mod typing;
pub(in crate::cli) mod verify;
pub(in crate::cli) mod web;

use self::args::{ChatArgs, ChatCommand, ChatOrder};
use crate::cli::CliError;
pub(in crate::cli) use order_service::OrderChatService;
pub(in crate::cli) use service::ChatService;

/// Takes part in a chat, attaches a screen to one that runs here, or asks it.
///
/// # Errors
/// Any failure that keeps it from starting or stops it, or leaves a question without an answer;
/// also messages that are not final at the end.
pub fn run(args: &ChatArgs) -> Result<(), CliError> {
    match &args.command {
        None if args.port.is_none() => attach::run(args),
        None => {
            order_service::check_log(args)?;
            match args.order {
                ChatOrder::Crash => run::run(args),
                ChatOrder::Bft => order_service::run(args),
            }
        }
        Some(ChatCommand::Status(args)) => client::status(args),
        Some(ChatCommand::History(args)) => client::history(args),
        Some(ChatCommand::Send(args)) => client::send(args),
        Some(ChatCommand::Verify(args)) => client::verify(args),
        Some(ChatCommand::Remove(args)) => client::remove(args),
        Some(ChatCommand::Recover(args)) => recover::run(args),
    }
}
