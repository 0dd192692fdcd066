//! Log lines of a member's events, with a screen and inside a peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::log::Level;
use serde_json::json;

use super::format;
use super::model::item_of;
use crate::cli::CliError;
use crate::cli::log::LogLine;
use crate::cli::run::CHAT_MESSAGE;
use crate::cli::text::escape;
use crate::machine::chat::Event;
use crate::model::Now;
use crate::proto::chat::entry::{Body, Entry, MemberId};

/// Log lines of one member.
#[derive(Default)]
pub(super) struct EventLog {
    /// Number of refusals by cause, so that not each of them is a line.
    dropped: BTreeMap<&'static str, u64>,
}

impl EventLog {
    /// Logs an event of member `me`; of refusals for one cause the first, tenth and hundredth.
    ///
    /// # Errors
    /// Fails if the group refuses the member: it cannot go on.
    pub(super) fn event(&mut self, me: MemberId, now: Now, event: &Event) -> Result<(), CliError> {
        if let Event::Dropped(why) = event {
            let count = self.dropped.entry(why).or_default();
            *count += 1;
            if !matches!(*count, 1 | 10 | 100) {
                return Ok(());
            }
        }
        format::line(event, me).log(now.wall);
        let Event::Refused { reason } = event else { return Ok(()) };
        Err(CliError::Failed(format!("the group refuses {me}: {}", escape(reason))))
    }
}

/// Logs a note about the surroundings.
pub(super) fn note(now: Now, text: &str) {
    LogLine::new(Level::Info, "chat_note", text.to_owned(), json!({})).log(now.wall);
}

/// Logs messages that became final, at level debug.
pub(super) fn messages(now: Now, entries: &[Arc<Entry>], me: MemberId) {
    for entry in entries {
        if let Body::Chat(chat) = &entry.body {
            let fields = json!({ "room": chat.room_id, "seq": entry.seq_no });
            let text = item_of(entry, chat, me).line();
            LogLine::new(Level::Debug, CHAT_MESSAGE, text, fields).log(now.wall);
        }
    }
}
