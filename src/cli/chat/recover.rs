//! `peer chat recover`: by the chat that runs here, or on the log of one that does not.

use super::args::{ChatAskArgs, ChatRecoverArgs};
use super::client;
use super::local_server::{ChatRequest, recovered_lines};
use super::run::start_failed;
use crate::cli::CliError;
use crate::proto::chat::entry::MemberId;
use crate::runtime::chat::recover::recover;
use crate::runtime::control;
use crate::runtime::files::{DataDir, control_path};
use serde_json::json;

/// Lets a member go on alone.
///
/// # Errors
/// Fails if that was not confirmed, nothing is to be recovered, or its log cannot be used.
pub(super) fn run(args: &ChatRecoverArgs) -> Result<(), CliError> {
    if !args.i_know {
        return Err(CliError::Usage(
            "a recovered member leaves all others out for good, and what only they have is lost to \
             it; if most of the group is gone for good, add --i-know"
                .to_owned(),
        ));
    }
    let ChatAskArgs { id, data, .. } = &args.ask;
    let dir = id.map(|id| (MemberId(id), data.join(format!("chat-{id}"))));
    let idle = dir.filter(|(_, dir)| !control::is_served(&control_path(dir)));
    let answer = match idle {
        None => client::ask(&args.ask, &ChatRequest::Recover, client::PATIENCE)?,
        Some((_, dir)) if !dir.exists() => {
            let shown = dir.display();
            return Err(CliError::Failed(format!("there is no {shown}; name its --id and --data")));
        }
        Some((id, dir)) => {
            let dir = DataDir::open_at(dir)?;
            let key = dir.identity()?.public();
            let marker = dir.path().join("has-a-log");
            let status = recover(&args.log_dir, &marker, id, key)
                .map_err(|error| start_failed(error.into()))?
                .map_err(|reason| CliError::Failed(format!("nothing was recovered: {reason}")))?;
            json!({ "lines": recovered_lines(&status), "json": status })
        }
    };
    client::show(&args.ask, &answer)
}
