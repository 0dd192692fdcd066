//! The whole story on one machine: joining, gossip, a death, its removal, a fresh start.
//!
//! Real processes, real sockets, real disk; everything shown is read from the nodes' own logs and
//! from the seeds' answers, and everything claimed is checked. The run is left in the output file.

mod acts;
mod stage;

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use stage::Stage;

/// What can be set at the demo.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// The file to leave the run in: the log lines of all nodes; an older one is replaced
    #[arg(long, value_name = "FILE", default_value = "outputfile.txt")]
    pub output: PathBuf,
    /// How many peers to start
    #[arg(long, value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(4..=30))]
    pub peers: u16,
}

/// Plays the demo.
///
/// # Errors
/// When something could not be started, or did not happen as it should have; the text lists
/// what. Ctrl-C is an error too. In any case no process is left behind.
pub fn run(args: &DemoArgs) -> Result<(), CliError> {
    let mut stage = Stage::set(args)?;
    let played = acts::play(&mut stage);
    let concluded = stage.conclude();
    played?;
    concluded
}
