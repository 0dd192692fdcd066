//! Jobs of the thread that reads the log of a chat for members that lag and for people, and writes
//! snapshots.

use std::sync::Arc;

use super::engine::Shared;
use super::store::{LogReader, LogStoreError, Page, Snapshots};
use crate::machine::LinkId;
use crate::machine::chat::{ExtraInput, Input, Snapshot};
use crate::proto::chat::entry::SeqNo;

/// Largest size of a page for people, in bytes.
pub(super) const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The log, as it is read, and its snapshots.
pub(super) struct Library {
    pub(super) reader: LogReader,
    pub(super) snapshots: Snapshots,
}

impl Shared {
    /// Has entries read for a member. If there is no room the member asks again.
    pub(super) fn load(self: &Arc<Self>, link: LinkId, from: SeqNo, bytes_max: usize) {
        let shared = Arc::clone(self);
        let _ = self.service.jobs.hand_over(move |library| {
            match library.reader.page(from, u64::MAX, bytes_max) {
                Ok(Page { prev_term, entries }) => {
                    shared.submit(Input::Extra(ExtraInput::Loaded { link, prev_term, entries }));
                }
                Err(error) => shared.fail(error.to_string()),
            }
        });
    }

    /// Has a snapshot written.
    pub(super) fn keep(&self, snapshot: Box<Snapshot>) {
        let _ = self.service.jobs.hand_over(move |library| {
            if let Err(error) = library.snapshots.write(&snapshot) {
                // The log itself is whole; the next start only takes longer.
                log::warn!("{error}");
            }
        });
    }

    /// Has the log read for people.
    ///
    /// # Errors
    /// Fails if the member is stopping, too much is being read, or the disk refuses.
    pub(super) fn read_log<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut LogReader) -> Result<T, LogStoreError> + Send + 'static,
    ) -> Result<T, String> {
        let answer = self.service.jobs.ask(move |library| read(&mut library.reader));
        let answer = answer.map_err(|_| "this member is stopping".to_owned())?;
        let Some(answer) = answer else {
            return Err("too much is being read from the log now; try again".to_owned());
        };
        answer.map_err(|error| error.to_string())
    }
}
