//! The thread that reads the log for members that lag and for people, and writes snapshots: slow
//! work that nothing else waits for.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::store::{LogReader, LogStoreError, Page, Snapshots};
use crate::machine::LinkId;
use crate::machine::chat::{ExtraInput, Input, Record, Snapshot};
use crate::proto::chat::entry::{ChainHash, SeqNo};
use crate::runtime::engine::log_writer::LogWriter;

/// Largest number of waiting jobs. A job that finds no room has to be asked for again.
pub(super) const JOBS_MAX: usize = 1_024;

/// Largest size of a page for people, in bytes.
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Channel for the answer to a reader.
pub(super) type Reply<T> = Sender<Result<T, LogStoreError>>;

/// A job of the loader; those with `after` wait until so many records of this life are on disk: a
/// final entry may be on other disks before it is on this one.
pub(super) enum Job {
    /// Entries for a member.
    Load { link: LinkId, from: SeqNo, bytes_max: usize, after: u64 },
    /// Entries for people.
    Page { from: SeqNo, count: u64, after: u64, reply: Reply<Page> },
    /// Running hashes at these numbers.
    Hashes { at: Vec<SeqNo>, after: u64, reply: Reply<Vec<(SeqNo, ChainHash)>> },
    /// A snapshot to be written.
    Keep { snapshot: Box<Snapshot>, after: u64 },
}

/// Hands over a job; false if there is no room for it.
pub(super) fn hand_over(jobs: &Sender<Job>, job: Job) -> bool {
    match jobs.try_send(job) {
        Ok(()) => true,
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
    }
}

/// Does jobs until the queue is closed.
pub(super) fn run(
    jobs: &Receiver<Job>,
    log: &Arc<LogWriter<Record>>,
    (reader, snapshots): (&mut LogReader, &Snapshots),
    submit: impl Fn(Input),
    fail: impl Fn(LogStoreError),
) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Load { link, from, bytes_max, after } => {
                if !log.await_synced(after) {
                    continue;
                }
                match reader.page(from, u64::MAX, bytes_max) {
                    Ok(Page { prev_term, entries }) => {
                        submit(Input::Extra(ExtraInput::Loaded { link, prev_term, entries }));
                    }
                    Err(error) => fail(error),
                }
            }
            Job::Page { from, count, after, reply } => {
                if !log.await_synced(after) {
                    continue;
                }
                // The asking thread may have gone meanwhile.
                let _ = reply.send(reader.page(from, count, PAGE_BYTES_MAX));
            }
            Job::Hashes { at, after, reply } => {
                if !log.await_synced(after) {
                    continue;
                }
                let _ = reply.send(reader.hashes(&at));
            }
            Job::Keep { snapshot, after } => {
                if log.await_synced(after)
                    && let Err(error) = snapshots.write(&snapshot)
                {
                    // The log itself is whole; the next start only takes longer.
                    log::warn!("{error}");
                }
            }
        }
    }
}
