//! Queue of inputs for the thread that owns the machine, in the order in which they came.
//!
//! Invariants: connections wait if there is no room, which holds up their other ends; the machine's
//! own disk and timers never wait; a waiting thread sleeps.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Number of items above which a connection waits until the machine has caught up.
const ITEMS_MAX: usize = 4_096;

/// Number of bytes above which a connection waits: lines of 256 KiB would otherwise make a gigabyte
/// of the items.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// The machine is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) struct Closed;

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    bytes: usize,
    is_closed: bool,
    /// True if the owner sleeps; waking it costs a system call.
    is_awaited: bool,
    /// Number of threads that wait for room.
    waiting: usize,
}

/// A queue with many ends in and one out.
#[derive(Debug)]
pub(in crate::runtime) struct CoreQueue<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
    emptied: Condvar,
}

impl<T> Default for CoreQueue<T> {
    fn default() -> Self {
        let inner = Inner {
            items: VecDeque::new(),
            bytes: 0,
            is_closed: false,
            is_awaited: false,
            waiting: 0,
        };
        Self { inner: Mutex::new(inner), filled: Condvar::new(), emptied: Condvar::new() }
    }
}

impl<T> CoreQueue<T> {
    /// Appends an item of about `bytes` bytes, and waits for room first.
    pub(in crate::runtime) fn push(&self, item: T, bytes: usize) -> Result<(), Closed> {
        let mut inner = self.lock();
        while !inner.is_closed && (inner.items.len() >= ITEMS_MAX || inner.bytes >= BYTES_MAX) {
            inner.waiting += 1;
            inner = self.emptied.wait(inner).expect("nothing under this lock can panic");
            inner.waiting -= 1;
        }
        self.append(inner, item, bytes)
    }

    /// Appends an item without waiting. Only for items that are bounded by their nature.
    pub(in crate::runtime) fn push_now(&self, item: T) -> Result<(), Closed> {
        self.append(self.lock(), item, 0)
    }

    fn append(
        &self,
        mut inner: MutexGuard<'_, Inner<T>>,
        item: T,
        bytes: usize,
    ) -> Result<(), Closed> {
        if inner.is_closed {
            return Err(Closed);
        }
        inner.items.push_back(item);
        inner.bytes += bytes;
        let is_awaited = std::mem::take(&mut inner.is_awaited);
        drop(inner);
        if is_awaited {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes out all items, after waiting for one, for so long at most; false if the queue is
    /// closed and empty.
    pub(in crate::runtime) fn take(
        &self,
        items: &mut VecDeque<T>,
        patience: Option<Duration>,
    ) -> bool {
        let mut inner = self.lock();
        if inner.items.is_empty() && !inner.is_closed && patience != Some(Duration::ZERO) {
            inner.is_awaited = true;
            inner = match patience {
                None => self.filled.wait(inner).expect("nothing under this lock can panic"),
                Some(patience) => {
                    let waited = self.filled.wait_timeout(inner, patience);
                    waited.expect("nothing under this lock can panic").0
                }
            };
            inner.is_awaited = false;
        }
        std::mem::swap(&mut inner.items, items);
        inner.bytes = 0;
        let is_open = !inner.is_closed || !items.is_empty();
        let is_wanted = inner.waiting > 0;
        drop(inner);
        if is_wanted {
            self.emptied.notify_all();
        }
        is_open
    }

    /// Refuses new items; those in the queue can still be taken out.
    pub(in crate::runtime) fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().expect("nothing under this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::runtime::thread;

    #[test]
    fn everything_is_taken_out_at_once_and_in_order() {
        let (queue, mut found) = (CoreQueue::default(), VecDeque::new());
        for number in 0..3 {
            queue.push(number, 1).unwrap();
        }
        queue.push_now(3).unwrap();
        assert!(queue.take(&mut found, None));
        assert_eq!(found, [0, 1, 2, 3]);
        found.clear();
        assert!(queue.take(&mut found, Some(Duration::from_millis(1))), "only late, not closed");
        queue.push(4, 1).unwrap();
        queue.close();
        assert_eq!(queue.push(5, 1), Err(Closed));
        assert!(queue.take(&mut found, None));
        assert_eq!(found, [4]);
        found.clear();
        assert!(!queue.take(&mut found, None));
    }

    #[test]
    fn whoever_finds_no_room_waits_and_the_disk_does_not() {
        let queue = Arc::new(CoreQueue::default());
        queue.push(0, BYTES_MAX).unwrap();
        queue.push_now(1).unwrap();
        let (other, (tell, pushed)) = (Arc::clone(&queue), crossbeam_channel::bounded(1));
        let waiting = thread::spawn("waiting", move || tell.send(other.push(2, 1)));
        assert!(pushed.recv_timeout(Duration::from_millis(20)).is_err(), "there is no room");
        let mut found = VecDeque::new();
        assert!(queue.take(&mut found, None));
        assert_eq!(pushed.recv(), Ok(Ok(())));
        waiting.unwrap().join().unwrap().unwrap();
        found.clear();
        assert!(queue.take(&mut found, None));
        assert_eq!(found, [2]);
    }
}
