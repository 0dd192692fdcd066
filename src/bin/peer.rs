//! `peer`: a member of the fleet, and questions to the fleet.

use std::process::ExitCode;

use clap::Parser as _;
use folkmoot::cli;

fn main() -> ExitCode {
    cli::conclude(cli::peer(&cli::PeerArgs::parse()))
}
