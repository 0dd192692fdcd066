//! Threads that check and write pieces, beside the threads that read them from sockets.
//!
//! Invariants: no more than a few pieces wait here, and a thread that brings one more waits until
//! there is room, so that a slow disk makes slow readers and not a full memory (S5); buffers of
//! pieces are used again.

use std::io;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::task::SwarmTask;
use crate::machine::LinkId;
use crate::machine::swarm::{ExtraInput, Input, Stored, leaf_hash};
use crate::proto::swarm::{Hash, PieceIndex};
use crate::runtime::thread::ThreadGroup;

/// Number of threads that check and write: a disk takes no more at once, and a link has its own
/// reader.
const THREADS: usize = 2;

/// Largest number of pieces that wait for them.
const WAITING_MAX: usize = 2;

/// Largest size of pieces that are checked and written by the thread that read them: to hand them
/// over costs as much.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Largest sum of the buffers, in bytes, that are kept for the next pieces.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A piece to be checked and written.
pub(super) struct Job {
    pub(super) task: Arc<SwarmTask>,
    pub(super) index: PieceIndex,
    pub(super) data: Vec<u8>,
    pub(super) from: LinkId,
    pub(super) expected: Option<Hash>,
}

/// The threads, and the pieces that wait for them.
#[derive(Debug)]
pub(super) struct Stores {
    way_in: Mutex<Option<Sender<Job>>>,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Stores {
    pub(super) fn start(threads: &ThreadGroup) -> io::Result<Self> {
        let (way_in, way_out) = bounded::<Job>(WAITING_MAX);
        for number in 0..THREADS {
            let way_out: Receiver<Job> = way_out.clone();
            threads.spawn(format!("store:{number}"), move || {
                for job in &way_out {
                    job.run();
                }
            })?;
        }
        Ok(Self { way_in: Mutex::new(Some(way_in)), spare: Mutex::default() })
    }

    /// Stores pieces; returns when they are stored, or when it is certain that they will be soon.
    pub(super) fn store(&self, jobs: Vec<Job>) {
        for job in jobs {
            if job.data.len() <= INLINE_BYTES_MAX {
                job.run();
                continue;
            }
            let way_in = self.way_in.lock().expect("nothing under this lock can panic").clone();
            // When the engine stops, the piece is lost like any that was under way.
            let _ = way_in.map(|way_in| way_in.send(job));
        }
    }

    /// Refuses new pieces, and lets the threads end.
    pub(super) fn close(&self) {
        self.way_in.lock().expect("nothing under this lock can panic").take();
    }

    /// A buffer that was used before, if there is one.
    pub(super) fn spare(&self) -> Option<Vec<u8>> {
        self.spare.lock().expect("nothing under this lock can panic").pop()
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.lock().expect("nothing under this lock can panic");
        let kept: usize = spare.iter().map(Vec::capacity).sum();
        if kept + buffer.capacity() <= SPARE_BYTES_MAX {
            spare.push(buffer);
        }
    }
}

impl Job {
    /// Checks and writes the piece, and reports it to its swarm; again, if that has another one to
    /// store.
    fn run(self) {
        let mut jobs = vec![self];
        while let Some(job) = jobs.pop() {
            let Self { task, index, data, from, expected } = job;
            let outcome = if expected.is_some_and(|hash| hash != leaf_hash(&data)) {
                Stored::False
            } else {
                match task.store().write_piece(index, &data) {
                    Ok(()) => Stored::Yes,
                    Err(err) => Stored::Failed(err.to_string()),
                }
            };
            task.stores().give_back(data);
            jobs.extend(task.step(Input::Extra(ExtraInput::Stored { index, from, outcome })));
        }
    }
}
