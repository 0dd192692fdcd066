//! `peer rollout model`: a small server of one version, slow or failing on demand, to see the
//! effect on a rollout.

use std::time::Duration;

use super::args::ModelArgs;
use super::format::{percent, span};
use crate::cli::CliError;
use crate::cli::output::print;
use crate::cli::run::signals;
use crate::runtime::dataplane::model::{Model, ModelOptions};

/// Runs the server until Ctrl-C, SIGTERM or, if it was asked for, the end of standard input.
///
/// # Errors
/// Fails if it cannot listen.
pub(super) fn run(args: &ModelArgs) -> Result<(), CliError> {
    let system = |source| CliError::System { action: "listen to signals", source };
    let signals = signals::listen(args.until_stdin_closes).map_err(system)?;
    let delay = args.delay.map_or(Duration::ZERO, |it| it.0);
    // A hundredth is a hundred basis points.
    let failing = args.fail * 100;
    let name = args.name.clone();
    let model = Model::start(ModelOptions { listen: args.listen, name, delay, failing })?;
    let slow = if delay.is_zero() { String::new() } else { format!(" after {}", span(delay)) };
    let bad = if failing == 0 { String::new() } else { format!(", failing {}", percent(failing)) };
    print(&format!("{} answers at http://{}{slow}{bad}", args.name, model.addr()))?;
    let _ = signals.recv();
    model.stop();
    print(&format!("requests to {}: {}", args.name, model.asked()))
}
