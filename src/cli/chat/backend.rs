//! A chat that runs, in this process or in another one on this machine, as a screen uses it.

use std::sync::Arc;

use super::engine::ChatState;
use crate::proto::chat::entry::{Body, Entry, MemberId, SeqNo};

/// Largest number of entries in a page: an answer of the control socket has room for so many of the
/// longest messages, also if each of their characters is escaped.
pub(super) const PAGE: u64 = 500;

/// A running chat.
pub(super) trait ChatBackend {
    /// Status of the member; `None` once it is stopping.
    fn status(&self) -> Option<ChatState>;

    /// Lines of `/status`.
    fn status_lines(&self) -> Vec<String>;

    /// The final entries from number `from` on: `count`, [`PAGE`] at most, or up to the last one.
    ///
    /// # Errors
    /// Fails if the log cannot be read, with a sentence for people.
    fn page(&self, from: SeqNo, count: u64) -> Result<Vec<Arc<Entry>>, String>;

    /// Hands a text over; events tell whether it is kept.
    ///
    /// # Errors
    /// Fails if it was not taken or may not have been, with a sentence for people.
    fn say(&self, room: Arc<str>, text: String) -> Result<(), String>;

    /// Orders a member's removal.
    ///
    /// # Errors
    /// Fails if there is no such member, with a sentence for people.
    fn remove(&self, id: MemberId) -> Result<(), String>;

    /// Lets the member leave its group, if it ends with the screen.
    fn leave(&self);

    /// True if the chat runs in another process, so that it goes on when the screen ends.
    fn is_attached(&self) -> bool {
        false
    }

    /// The last `count` messages, the oldest first.
    ///
    /// # Errors
    /// Fails if the log cannot be read.
    fn history(&self, count: usize) -> Result<Vec<Arc<Entry>>, String> {
        let Some(status) = self.status() else { return Ok(Vec::new()) };
        let mut end = status.commit().0;
        let mut found: Vec<Arc<Entry>> = Vec::new();
        while end > 0 && found.len() < count {
            let from = end.saturating_sub(PAGE - 1).max(1);
            let mut page = self.page(SeqNo(from), end - from + 1)?;
            page.retain(|it| it.seq_no.0 <= end && matches!(it.body, Body::Chat(_)));
            found.extend(page.into_iter().rev());
            end = from - 1;
        }
        found.truncate(count);
        found.reverse();
        Ok(found)
    }
}
