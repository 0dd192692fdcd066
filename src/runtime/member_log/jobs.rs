//! The thread that reads a log for other members and for people, and writes snapshots: slow work
//! that nothing else waits for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::runtime::engine::core_queue::Closed;
use crate::runtime::engine::log_writer::LogWriter;

/// Largest number of waiting jobs. A job that finds no room has to be asked for again.
const JOBS_MAX: usize = 1_024;

type Work<L> = Box<dyn FnOnce(&mut L) + Send>;

/// A job, which waits until so many records of this life are on disk: a final entry may be on other
/// disks before it is on this one.
pub(in crate::runtime) struct Job<L> {
    after: u64,
    work: Work<L>,
}

/// Sending end of the jobs with a library `L`, which one thread reads.
pub(in crate::runtime) struct Jobs<L> {
    /// Queue of the jobs, until the end.
    queue: Mutex<Option<Sender<Job<L>>>>,
    /// Number of records that the machine has given out.
    records: AtomicU64,
}

impl<L> Jobs<L> {
    /// A queue, and its other end.
    pub(in crate::runtime) fn new() -> (Self, Receiver<Job<L>>) {
        let (queue, jobs) = bounded(JOBS_MAX);
        (Self { queue: Mutex::new(Some(queue)), records: AtomicU64::new(0) }, jobs)
    }

    /// Counts a record that the machine has given out.
    pub(in crate::runtime) fn count_record(&self) {
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands over a job, which waits for all records that the machine has given out until now;
    /// false if there is no room for it.
    pub(in crate::runtime) fn hand_over(
        &self,
        work: impl FnOnce(&mut L) + Send + 'static,
    ) -> Result<bool, Closed> {
        let after = self.records.load(Ordering::Relaxed);
        let queue = self.queue.lock().expect("nothing under this lock can panic").clone();
        match queue.ok_or(Closed)?.try_send(Job { after, work: Box::new(work) }) {
            Ok(()) => Ok(true),
            Err(TrySendError::Full(_)) => Ok(false),
            Err(TrySendError::Disconnected(_)) => Err(Closed),
        }
    }

    /// Has a job done, and waits for its result; `None` if there is no room for it.
    pub(in crate::runtime) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut L) -> T + Send + 'static,
    ) -> Result<Option<T>, Closed> {
        let (reply, replied) = bounded(1);
        // The asking thread may have gone meanwhile.
        let is_taken = self.hand_over(move |library| drop(reply.send(work(library))))?;
        if is_taken { replied.recv().map(Some).map_err(|_| Closed) } else { Ok(None) }
    }

    /// Ends the thread that does the jobs, once it has done those that wait.
    pub(in crate::runtime) fn close(&self) {
        self.queue.lock().expect("nothing under this lock can panic").take();
    }
}

/// Does jobs until the queue is closed.
pub(in crate::runtime) fn run<L, R>(jobs: &Receiver<Job<L>>, log: &LogWriter<R>, library: &mut L) {
    while let Ok(Job { after, work }) = jobs.recv() {
        if log.await_synced(after) {
            work(library);
        }
    }
}
