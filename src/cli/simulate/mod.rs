//! `peer simulate`: a fleet before it is built. The real state machines of seeds and peers, at the
//! size a user plans, in virtual time.
//!
//! Real parts: every protocol decision, message, timer, signature and retry of [`crate::node`].
//! Simulated parts: sockets, disks and processors. A message takes the path's latency and no time
//! to be computed; so the figures hold for machines that are not overloaded.
//!
//! Figures that follow from the flags alone are the same in every run with the same flags. Those
//! that depend on this machine (seconds, memory) are printed apart.

mod args;
mod chart;
mod curve;
mod figures;
mod fleet;
mod ledger;
mod play;
mod record;
mod run;

use std::io::IsTerminal as _;

pub use args::SimulateArgs;

use super::CliError;
use super::output::print;

/// Largest fleet whose run is played: the page can show no more.
const OPEN_MAX: u16 = 2_000;

/// Simulates, prints the figures and draws them.
///
/// # Errors
/// Fails if the flags contradict each other, or the picture cannot be written.
pub fn run(args: &SimulateArgs) -> Result<(), CliError> {
    check(args)?;
    // Before the run, because it may take minutes: can the picture be written at all?
    let unwritable = |source| {
        CliError::Failed(format!(
            "cannot write the picture {}: {source}; name another file with --svg",
            args.svg.display()
        ))
    };
    std::fs::OpenOptions::new().append(true).create(true).open(&args.svg).map_err(unwritable)?;
    let mut outcome = run::run(args);
    let picture = chart::draw(args, &outcome);
    std::fs::write(&args.svg, picture).map_err(unwritable)?;
    let figures = figures::of(args, &outcome);
    if args.json {
        return print(&figures.json_lines());
    }
    print(&figures.text(args))?;
    if std::io::stdout().is_terminal() {
        print(&format!("\nHow the news spread is drawn in {}\n", args.svg.display()))?;
    } else {
        print(&format!("svg {}\n", args.svg.display()))?;
    }
    match outcome.record.take() {
        Some(record) => play::play(record.finish(args, outcome.schedule.end)),
        None => Ok(()),
    }
}

fn check(args: &SimulateArgs) -> Result<(), CliError> {
    let (peers, kill, gossip) = (args.peers, args.kill, args.gossip);
    if kill >= peers {
        return Err(CliError::Usage(format!(
            "--kill {kill} of --peers {peers} would leave nobody; kill {} at most",
            peers - 1
        )));
    }
    if args.open && peers > OPEN_MAX {
        return Err(CliError::Usage(format!(
            "--open shows {OPEN_MAX} peers at most; simulate the {peers} without it, or fewer"
        )));
    }
    if gossip > peers {
        return Err(CliError::Usage(format!(
            "--gossip {gossip} is more than --peers {peers}; each peer makes one message at most"
        )));
    }
    Ok(())
}
