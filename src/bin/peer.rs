//! `peer`: a member of the fleet, and questions to the fleet.

use std::process::ExitCode;

use folkmoot::cli;

fn main() -> ExitCode {
    cli::conclude(cli::peer(&cli::parse()))
}
