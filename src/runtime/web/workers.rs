//! Threads that serve HTTP: each runs its own tokio runtime, and a connection stays on the one it
//! was given to, so that no request wakes another thread.

use std::io;
use std::sync::Mutex;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

use crate::runtime::thread;

/// Largest number of threads.
const WORKERS_MAX: usize = 16;

/// Stack size of a thread in bytes: all of its requests run on it, one after the other.
const STACK_BYTES: usize = 1024 * 1024;

/// Threads at work, and the sender whose drop is their sign to stop.
type Running = (watch::Sender<()>, Vec<JoinHandle<()>>);

/// Threads with a runtime each, until stopped or dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: Vec<Handle>,
    running: Mutex<Option<Running>>,
}

impl Workers {
    /// Starts `count` threads, named after `name`.
    ///
    /// # Errors
    /// Fails if the system has no room for a thread.
    pub(crate) fn start(name: &str, count: usize) -> io::Result<Self> {
        let (running, stop) = watch::channel(());
        let (mut handles, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count.clamp(1, WORKERS_MAX) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let mut stop = stop.clone();
            let work = move || {
                // An error means that the sender is gone.
                let _ = runtime.block_on(stop.changed());
                // A look-up of a name may hang for long; it is not waited for.
                runtime.shutdown_background();
            };
            let builder = std::thread::Builder::new().name(format!("{name}-{number}"));
            threads.push(builder.stack_size(STACK_BYTES.max(thread::STACK_BYTES)).spawn(work)?);
        }
        Ok(Self { handles, running: Mutex::new(Some((running, threads))) })
    }

    /// Number of threads.
    pub(crate) const fn count(&self) -> usize {
        self.handles.len()
    }

    /// Runtime of a thread; `number` may be any.
    pub(crate) fn handle(&self, number: usize) -> &Handle {
        &self.handles[number % self.handles.len()]
    }

    /// Stops all threads; what they were doing is dropped. Must not be called from one of them.
    pub(crate) fn stop(&self) {
        let running = self.running.lock().expect("nothing under this lock can panic").take();
        let Some((running, threads)) = running else { return };
        drop(running);
        for thread in threads {
            // The thread has panicked if this fails, and reported that itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Number of threads that suit this machine.
pub(crate) fn count_of_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
