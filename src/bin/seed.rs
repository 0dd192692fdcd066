//! `seed`: one of the few nodes that decide together who is a member.

use std::process::ExitCode;

use clap::Parser as _;
use folkmoot::cli;
use folkmoot::cli::args::SeedArgs;

fn main() -> ExitCode {
    cli::conclude(cli::seed(&SeedArgs::parse()))
}
