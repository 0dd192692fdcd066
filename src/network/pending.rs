//! Outcomes that are still to come.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// One of the waits that a wait without an end is made of.
const LONG: Duration = Duration::from_secs(3_600);

/// State of an outcome: open, known, or taken.
enum State<T> {
    Open(Option<Waker>),
    Known(T),
    Taken,
}

/// Takes the outcome, if it is there.
fn take<T>(state: &mut State<T>) -> Option<T> {
    match std::mem::replace(state, State::Taken) {
        State::Known(outcome) => Some(outcome),
        State::Taken => panic!("the outcome was taken already"),
        open @ State::Open(_) => {
            *state = open;
            None
        }
    }
}

/// Shared place of an outcome.
pub(super) struct Cell<T> {
    state: Mutex<State<T>>,
    moved: Condvar,
}

impl<T> Cell<T> {
    /// A place for an outcome that is open.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Open(None)), moved: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("nothing under this lock can panic")
    }

    /// Sets the outcome; only the first one counts.
    pub(super) fn put(&self, outcome: T) {
        let mut state = self.lock();
        let State::Open(waker) = &mut *state else { return };
        let waker = waker.take();
        *state = State::Known(outcome);
        drop(state);
        self.moved.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// An outcome that comes later: [`Pending::wait`] blocks for it, `.await` does not.
///
/// Dropping it gives up the outcome, not the operation; see [`Pending::cancel`].
#[must_use = "what becomes of it is known only by waiting"]
pub struct Pending<T> {
    cell: Arc<Cell<T>>,
    cancel: Option<Box<dyn Fn() + Send + Sync>>,
}

impl<T> Pending<T> {
    pub(super) fn new(cell: Arc<Cell<T>>, cancel: Option<Box<dyn Fn() + Send + Sync>>) -> Self {
        Self { cell, cancel }
    }

    /// Blocks until the outcome is there.
    ///
    /// # Panics
    /// Panics if the outcome was taken already, by an earlier `await` or [`Pending::wait_timeout`].
    pub fn wait(mut self) -> T {
        loop {
            if let Some(outcome) = self.wait_timeout(LONG) {
                return outcome;
            }
        }
    }

    /// Blocks until the outcome is there, but no longer than `most`. `None` if it is not there yet.
    ///
    /// # Panics
    /// Panics if the outcome was taken already.
    pub fn wait_timeout(&mut self, most: Duration) -> Option<T> {
        let is_open = |state: &mut State<T>| matches!(state, State::Open(_));
        let waited = self.cell.moved.wait_timeout_while(self.cell.lock(), most, is_open);
        let (mut state, _) = waited.expect("nothing under this lock can panic");
        take(&mut state)
    }

    /// Cancels the operation, as far as that is still possible. The outcome then tells the result:
    /// cancelled, done all the same, or unknown.
    pub fn cancel(&self) {
        if let Some(cancel) = &self.cancel {
            cancel();
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.cell.lock();
        if let Some(outcome) = take(&mut state) {
            return Poll::Ready(outcome);
        }
        *state = State::Open(Some(context.waker().clone()));
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Notifier(AtomicU32);

    impl Wake for Notifier {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_outcome_is_there_for_who_blocks_and_for_who_polls() {
        let cell = Cell::new();
        let mut pending = Pending::new(Arc::clone(&cell), None);
        assert_eq!(pending.wait_timeout(Duration::from_millis(1)), None);
        cell.put(1);
        cell.put(2);
        assert_eq!(pending.wait(), 1, "the first one counts");

        let cell = Cell::new();
        let bell = Arc::new(Notifier::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut context = Context::from_waker(&waker);
        let mut pending = Box::pin(Pending::new(Arc::clone(&cell), None));
        assert_eq!(pending.as_mut().poll(&mut context), Poll::Pending);
        cell.put("done");
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        assert_eq!(pending.as_mut().poll(&mut context), Poll::Ready("done"));
    }

    #[test]
    fn a_waiting_thread_is_woken() {
        let cell = Cell::new();
        let pending = Pending::new(Arc::clone(&cell), None);
        let waiter = crate::runtime::thread::spawn("waiter", move || pending.wait()).unwrap();
        cell.put(7);
        assert_eq!(waiter.join().unwrap(), 7);
    }
}
