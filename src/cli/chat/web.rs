//! Chat of this node over HTTP: its history, and messages to it. Both go through the control socket
//! of the member, as every program of this machine does.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::backend::PAGE;
use super::command;
use super::local_server::ChatRequest;
use super::model::GENERAL;
use crate::cli::{CliError, local_client};
use crate::proto::chat::entry::{Body, Entry, SeqNo};

/// Largest number of messages in one answer.
const MESSAGES_MAX: usize = 500;

/// Largest number of entries that are read for one answer, in pages.
const PAGES_MAX: usize = 40;

/// Time-out of the member.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time for a message to become final, in ms.
const FINAL_MS: u64 = 3_000;

/// Message to a room.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Said {
    /// Room of the message.
    #[serde(default = "general")]
    pub(in crate::cli) room: String,
    /// Text of the message.
    pub(in crate::cli) text: String,
}

fn general() -> String {
    GENERAL.to_owned()
}

/// Range of messages of a room.
#[derive(Debug)]
pub(in crate::cli) struct Range {
    /// Room of the messages, or all rooms.
    pub(in crate::cli) room: Option<String>,
    /// Number after which the range begins; `None` for the last messages.
    pub(in crate::cli) after: Option<u64>,
    /// Largest number of messages.
    pub(in crate::cli) limit: usize,
}

fn ask(dir: &Path, wanted: &ChatRequest) -> Result<Value, CliError> {
    let mut answer = local_client::exchange(dir, wanted, PATIENCE, "ask the chat")?;
    Ok(answer["json"].take())
}

/// Whole status of the member in `dir`.
///
/// # Errors
/// Fails if the member does not answer.
pub(in crate::cli) fn status(dir: &Path) -> Result<Value, CliError> {
    ask(dir, &ChatRequest::Status)
}

/// Messages in the order of their numbers, each `{"seq", "room", "from", "at_ms", "text"}`, and
/// `more`: true if later ones follow.
///
/// # Errors
/// Fails if the member does not answer, or the room has no valid name.
pub(in crate::cli) fn history(dir: &Path, range: &Range) -> Result<Value, CliError> {
    let limit = range.limit.clamp(1, MESSAGES_MAX);
    if let Some(room) = &range.room {
        command::room(room).map_err(CliError::Usage)?;
    }
    let is_wanted = |room: &str| range.room.as_deref().is_none_or(|it| it == room);
    let Some(after) = range.after else { return last(dir, limit, is_wanted) };
    let (mut messages, mut from, mut more) = (Vec::new(), after.saturating_add(1), true);
    for _ in 0..PAGES_MAX {
        let entries = ask(dir, &ChatRequest::Page { from: SeqNo(from), count: PAGE })?;
        let entries: Vec<Entry> = understood(entries)?;
        let Some(newest) = entries.last() else {
            more = false;
            break;
        };
        from = newest.seq_no.0 + 1;
        messages.extend(entries.iter().filter_map(|it| message(it, is_wanted)));
        if messages.len() >= limit {
            messages.truncate(limit);
            break;
        }
    }
    Ok(json!({ "messages": messages, "more": more }))
}

fn last(dir: &Path, limit: usize, is_wanted: impl Fn(&str) -> bool) -> Result<Value, CliError> {
    // A room's last messages may be far apart; as many as fit one answer are looked at.
    let entries = ask(dir, &ChatRequest::History { count: MESSAGES_MAX })?;
    let entries: Vec<Entry> = understood(entries)?;
    let messages: Vec<_> = entries.iter().filter_map(|it| message(it, &is_wanted)).collect();
    let shown = messages.len().saturating_sub(limit);
    Ok(json!({ "messages": messages[shown..], "more": false }))
}

fn understood(entries: Value) -> Result<Vec<Entry>, CliError> {
    serde_json::from_value(entries)
        .map_err(|error| CliError::Failed(format!("the chat's answer is not understood: {error}")))
}

fn message(entry: &Entry, is_wanted: impl Fn(&str) -> bool) -> Option<Value> {
    let Body::Chat(chat) = &entry.body else { return None };
    is_wanted(&chat.room_id).then(|| {
        json!({
            "seq": entry.seq_no, "room": chat.room_id,
            "from": chat.msg_id.origin.member.to_string(),
            "at_ms": entry.time.0, "text": chat.payload,
        })
    })
}

/// Sends a message, and waits a moment until it is final. The answer is `{"seq_no": N}`, or
/// `{"kept": true}` if it is on disk and not final yet.
///
/// # Errors
/// Fails if the member does not answer, or refuses the message.
pub(in crate::cli) fn say(dir: &Path, said: Said) -> Result<Value, CliError> {
    let Said { room, text } = said;
    let answer = ask(dir, &ChatRequest::Send { room, text, wait_ms: FINAL_MS })?;
    match answer["refused"].as_str() {
        Some(reason) => Err(CliError::Rejected(reason.to_owned())),
        None => Ok(answer),
    }
}
