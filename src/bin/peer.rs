//! `peer`: a member of the fleet, and questions to the fleet.

use std::process::ExitCode;

use clap::Parser as _;
use folkmoot::cli;
use folkmoot::cli::args::PeerArgs;

fn main() -> ExitCode {
    cli::conclude(cli::peer(&PeerArgs::parse()))
}
