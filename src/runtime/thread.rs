//! Threads: named, with a sized stack, and counted so that their end can be waited for.
//!
//! Invariant: a thread that a [`ThreadGroup`] has started leaves it only after everything it owned
//! has been dropped, so that a port or file it held is free once [`ThreadGroup::wait`] has
//! returned.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};

use super::clock::Clock;
use crate::model::Time;

/// Stack size of every thread, in bytes.
///
/// Two threads serve each connection and a thousand nodes may share a machine, so the usual 2 MiB
/// are out of the question. The deepest users are the JSON parser at its nesting limit (measured:
/// passes with this size in an unoptimized build) and signature checks.
pub const STACK_BYTES: usize = 256 * 1024;

/// Length at which Linux cuts a thread's name.
pub const NAME_BYTES_MAX: usize = 15;

/// Starts a thread. The distinctive part of `name` must lie within its first [`NAME_BYTES_MAX`]
/// bytes.
///
/// # Errors
///
/// Fails if the system has no room for another thread.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    f: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(f)
}

/// A group of threads that can be waited for.
#[derive(Clone, Debug, Default)]
pub struct ThreadGroup {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    at_work: Mutex<usize>,
    left: Condvar,
}

impl ThreadGroup {
    /// Starts a thread that belongs to this group; see [`spawn`].
    ///
    /// # Errors
    ///
    /// Fails if the system has no room for another thread; `f` is then dropped.
    pub fn spawn(
        &self,
        name: impl Into<String>,
        f: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let place = ThreadGuard::take(&self.shared);
        // `f` is consumed by its call, so what it owns is gone before its place is.
        spawn(name, move || {
            f();
            drop(place);
        })?;
        Ok(())
    }

    /// Makes the calling thread one of this group until the returned place is dropped.
    pub fn join(&self) -> ThreadGuard {
        ThreadGuard::take(&self.shared)
    }

    /// Number of threads that have not ended.
    pub fn at_work(&self) -> usize {
        *self.shared.at_work.lock().expect("nothing under this lock can panic")
    }

    /// Waits until no thread is left or `deadline` has come; returns the number that are left.
    pub fn wait(&self, clock: &Clock, deadline: Time) -> usize {
        let mut at_work = self.shared.at_work.lock().expect("nothing under this lock can panic");
        loop {
            let span = deadline.since(clock.now().mono);
            if *at_work == 0 || span.is_zero() {
                return *at_work;
            }
            let waited = self.shared.left.wait_timeout(at_work, span);
            at_work = waited.expect("nothing under this lock can panic").0;
        }
    }
}

/// One thread's membership in a group; ends when dropped, even by a panic.
#[derive(Debug)]
pub struct ThreadGuard(Arc<Shared>);

impl ThreadGuard {
    fn take(shared: &Arc<Shared>) -> Self {
        *shared.at_work.lock().expect("nothing under this lock can panic") += 1;
        Self(Arc::clone(shared))
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        *self.0.at_work.lock().expect("nothing under this lock can panic") -= 1;
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn a_thread_bears_its_name() {
        let name = || std::thread::current().name().map(str::to_owned);
        assert_eq!(spawn("read:6001", name).unwrap().join().unwrap().as_deref(), Some("read:6001"));
    }

    #[test]
    fn a_group_is_waited_for_until_the_last_has_left() {
        let (clock, threads) = (Clock::start(), ThreadGroup::default());
        let (release, gate) = bounded::<()>(0);
        threads.spawn("idle", move || assert!(gate.recv().is_err())).unwrap();
        let soon = clock.now().mono.after(Duration::from_millis(5));
        assert_eq!(threads.wait(&clock, soon), 1, "it is still at its gate");
        drop(release);
        let late = clock.now().mono.after(Duration::from_secs(30));
        assert_eq!(threads.wait(&clock, late), 0);
        assert_eq!(threads.at_work(), 0);
    }
}
