//! Questions to the programs that run on this machine, by their control sockets: one line of JSON
//! each way.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::CliError;
use super::text::escape;
use crate::runtime::control;
use crate::runtime::files::control_path;

/// Programs that run with this data directory, in directories named `PREFIXNAME`; ascending by
/// name.
pub(super) fn running<T: FromStr + Ord>(data: &Path, prefix: &str) -> Vec<(T, PathBuf)> {
    let entries = std::fs::read_dir(data).into_iter().flatten().filter_map(Result::ok);
    let one = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok()?;
        control::is_served(&control_path(&path)).then_some((name, path))
    };
    let mut found: Vec<_> = entries.filter_map(|it| one(it.path())).collect();
    found.sort();
    found
}

/// Sends a question to the program in a directory and returns its answer.
///
/// # Errors
/// Fails at an answer `{"error": …}`, if no program is there, or without an answer in time.
/// [`CliError::Unanswered`] means that the program may have carried out the request.
pub(super) fn exchange(
    dir: &Path,
    wanted: &impl Serialize,
    patience: Duration,
    action: &'static str,
) -> Result<Value, CliError> {
    let system = |source| CliError::System { action, source };
    let request = serde_json::to_string(wanted).map_err(|error| system(error.into()))?;
    let answer = control::ask(&control_path(dir), &request, patience).map_err(|error| {
        if control::may_be_done(&error) {
            CliError::Unanswered(escape(&error.to_string()))
        } else {
            system(error)
        }
    })?;
    let answer: Value = serde_json::from_str(&answer).map_err(|error| system(error.into()))?;
    match answer["error"].as_str() {
        Some(error) => Err(CliError::Failed(escape(error))),
        None => Ok(answer),
    }
}
