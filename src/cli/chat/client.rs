//! `peer chat status`, `history`, `send`, `verify` and `remove`: by the chat that runs here.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::args::{ChatAskArgs, ChatHistoryArgs, ChatRemoveArgs, ChatSendArgs, ChatVerifyArgs};
use super::local_server::ChatRequest;
use super::verify;
use crate::cli::text::escape;
use crate::cli::{CliError, local_client};
use crate::proto::chat::entry::MemberId;
use crate::runtime::control;
use crate::runtime::files::control_path;

/// Time for an answer beyond the wait that was asked for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Time-out of a comparison of the logs of a whole group.
const VERIFY_PATIENCE: Duration = Duration::from_secs(120);

/// Shows the status of the chat here.
///
/// # Errors
/// Fails if none runs here, or it does not answer; so for all of these.
pub(super) fn status(args: &ChatAskArgs) -> Result<(), CliError> {
    show(args, &ask(args, &ChatRequest::Status, PATIENCE)?)
}

/// Shows the last messages.
pub(super) fn history(args: &ChatHistoryArgs) -> Result<(), CliError> {
    show(&args.ask, &ask(&args.ask, &ChatRequest::History { count: args.count }, PATIENCE)?)
}

/// Sends a message; exit code 3 if it is kept and not final in time, 4 if it is refused.
pub(super) fn send(args: &ChatSendArgs) -> Result<(), CliError> {
    let wait_ms = u64::try_from(args.wait.0.as_millis()).unwrap_or(u64::MAX);
    let wanted = ChatRequest::Send { room: args.room.clone(), text: args.text.clone(), wait_ms };
    let answer = ask(&args.ask, &wanted, args.wait.0.saturating_add(PATIENCE))?;
    show(&args.ask, &answer)?;
    if let Some(reason) = answer["refused"].as_str() {
        return Err(CliError::Rejected(escape(reason)));
    }
    if answer["is_pending"] == true { Err(CliError::Pending(1)) } else { Ok(()) }
}

/// Orders the removal of a member.
pub(super) fn remove(args: &ChatRemoveArgs) -> Result<(), CliError> {
    show(&args.ask, &ask(&args.ask, &ChatRequest::Remove { id: MemberId(args.whom) }, PATIENCE)?)
}

/// Compares logs; an error if they differ.
pub(super) fn verify(args: &ChatVerifyArgs) -> Result<(), CliError> {
    let differ = || CliError::Failed("the logs differ in what is final".to_owned());
    let files = match (&args.files[..], &args.log_dir) {
        ([], Some(dir)) => verify::logs_in(dir)?,
        ([], None) if args.ask.id.is_some() || !running(&args.ask.data).is_empty() => {
            let answer = ask(&args.ask, &ChatRequest::Verify, VERIFY_PATIENCE)?;
            show(&args.ask, &answer)?;
            return if answer["json"]["equal"] == true { Ok(()) } else { Err(differ()) };
        }
        ([], None) => verify::logs_in(Path::new("data/logs"))?,
        (files, _) => files.to_vec(),
    };
    if let Some(order) = files.iter().find(|it| it.is_dir()) {
        let order = order.display();
        return Err(CliError::Usage(format!(
            "{order} is a directory; the log of an order whose members may lie is checked by: peer \
             order verify {order}"
        )));
    }
    let verdict = verify::files(&files)?;
    print(&if args.ask.json { format!("{}\n", verdict.json()) } else { verdict.text() })?;
    if verdict.is_equal() { Ok(()) } else { Err(differ()) }
}

pub(super) fn ask(
    args: &ChatAskArgs,
    wanted: &ChatRequest,
    patience: Duration,
) -> Result<Value, CliError> {
    local_client::exchange(&find(args)?, wanted, patience, "ask the chat that runs here")
}

/// Directory of the chat to ask.
pub(super) fn find(args: &ChatAskArgs) -> Result<PathBuf, CliError> {
    let data = args.data.display();
    if let Some(id) = args.id {
        let dir = args.data.join(format!("chat-{id}"));
        if control::is_served(&control_path(&dir)) {
            return Ok(dir);
        }
        return Err(CliError::Failed(format!(
            "peer_{id} does not run with --data {data}; name the --data of the one that runs, or \
             start it: peer chat --id {id} --port P"
        )));
    }
    let mut found = running(&args.data);
    match found.len() {
        0 => Err(CliError::Failed(format!(
            "no chat runs with --data {data}; start one: peer chat --id 1 --port 6001, or in a \
             node of the fleet: peer --port 6001 --chat 1"
        ))),
        1 => Ok(found.swap_remove(0).1),
        _ => {
            let ids: Vec<_> = found.iter().map(|(id, _)| id.to_string()).collect();
            Err(CliError::Usage(format!(
                "several run here: name one of {} with --id",
                ids.join(", ")
            )))
        }
    }
}

/// The chats that run with this data directory.
fn running(data: &Path) -> Vec<(u32, PathBuf)> {
    local_client::running(data, "chat-")
}

pub(super) fn show(args: &ChatAskArgs, answer: &Value) -> Result<(), CliError> {
    if args.json {
        return print(&format!("{}\n", answer["json"]));
    }
    let lines = answer["lines"].as_array().map_or(&[][..], Vec::as_slice);
    let lines = lines.iter().filter_map(Value::as_str).map(|line| format!("{}\n", escape(line)));
    print(&lines.collect::<String>())
}

fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| CliError::System { action: "write to the screen", source })
}
