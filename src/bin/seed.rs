//! `seed`: one of the few nodes that decide together who is a member.

use std::process::ExitCode;

use clap::Parser as _;
use folkmoot::cli;

fn main() -> ExitCode {
    cli::conclude(cli::seed(&cli::SeedArgs::parse()))
}
