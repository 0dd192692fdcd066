//! Queue of inputs for the thread that owns the machine, in the order in which they came.
//!
//! Invariants: connections wait if there is no room, which holds up their other ends; the machine's
//! own disk and timers never wait; a waiting thread sleeps; no connection waits because of others
//! as long as its own share has room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::machine::LinkId;

/// Number of items above which a connection waits until the machine has caught up.
const ITEMS_MAX: usize = 4_096;

/// Number of bytes above which a connection waits: lines of 256 KiB would otherwise make a gigabyte
/// of the items.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Number of items, and of their bytes, of one connection above which it waits: more would only
/// make the others' items late.
const LINK_ITEMS_MAX: usize = 1_024;
const LINK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Number of items, and of their bytes, for which each connection has room even if the others have
/// filled the queue.
const SHARE_ITEMS: usize = 64;
const SHARE_BYTES: usize = 64 * 1024;

/// The machine is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) struct Closed;

/// Room that is taken, by all or by one connection.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    items: usize,
    bytes: usize,
}

impl Taken {
    const fn reaches(self, items: usize, bytes: usize) -> bool {
        self.items >= items || self.bytes >= bytes
    }

    const fn add(&mut self, bytes: usize) {
        self.items += 1;
        self.bytes += bytes;
    }
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    taken: Taken,
    /// Room that each connection has taken; `None` stands for this process.
    shares: BTreeMap<Option<LinkId>, Taken>,
    is_closed: bool,
    /// True if the owner sleeps; waking it costs a system call.
    is_awaited: bool,
    /// Number of threads that wait for room.
    waiting: usize,
}

impl<T> Inner<T> {
    fn has_room(&self, link: Option<LinkId>) -> bool {
        let share = self.shares.get(&link).copied().unwrap_or_default();
        let is_full = self.taken.reaches(ITEMS_MAX, BYTES_MAX);
        let is_greedy = link.is_some() && share.reaches(LINK_ITEMS_MAX, LINK_BYTES_MAX);
        !is_greedy && (!is_full || !share.reaches(SHARE_ITEMS, SHARE_BYTES))
    }
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
            taken: Taken::default(),
            shares: BTreeMap::new(),
            is_closed: false,
            is_awaited: false,
            waiting: 0,
        };
        Self { inner: Mutex::new(inner), filled: Condvar::new(), emptied: Condvar::new() }
    }
}

impl<T> CoreQueue<T> {
    /// Appends an item of this process of about `bytes` bytes, and waits for room first.
    pub(in crate::runtime) fn push(&self, item: T, bytes: usize) -> Result<(), Closed> {
        self.append_if_room(None, item, bytes)
    }

    /// Appends an item of about `bytes` bytes that came by a connection, and waits for room first.
    pub(in crate::runtime) fn push_of(
        &self,
        link: LinkId,
        item: T,
        bytes: usize,
    ) -> Result<(), Closed> {
        self.append_if_room(Some(link), item, bytes)
    }

    /// Appends an item without waiting. Only for items that are bounded by their nature.
    pub(in crate::runtime) fn push_now(&self, item: T) -> Result<(), Closed> {
        self.append(self.lock(), item)
    }

    fn append_if_room(&self, link: Option<LinkId>, item: T, bytes: usize) -> Result<(), Closed> {
        let mut inner = self.lock();
        while !inner.is_closed && !inner.has_room(link) {
            inner.waiting += 1;
            inner = self.emptied.wait(inner).expect("nothing under this lock can panic");
            inner.waiting -= 1;
        }
        inner.taken.add(bytes);
        inner.shares.entry(link).or_default().add(bytes);
        self.append(inner, item)
    }

    fn append(&self, mut inner: MutexGuard<'_, Inner<T>>, item: T) -> Result<(), Closed> {
        if inner.is_closed {
            return Err(Closed);
        }
        inner.items.push_back(item);
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
        inner.taken = Taken::default();
        inner.shares.clear();
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

    #[test]
    fn a_connection_that_floods_waits_and_the_others_do_not() {
        let queue = Arc::new(CoreQueue::default());
        let (flooding, (tell, pushed)) = (Arc::clone(&queue), crossbeam_channel::bounded(1 << 16));
        let flood = thread::spawn("flooding", move || {
            while flooding.push_of(LinkId(1), 1, 1_024).is_ok() {
                tell.send(()).unwrap();
            }
        });
        for _ in 0..LINK_ITEMS_MAX {
            pushed.recv().unwrap();
        }
        assert!(pushed.recv_timeout(Duration::from_millis(20)).is_err(), "its share is full");
        // Many together fill the queue, and still each has a share of its own.
        for link in 2..=(ITEMS_MAX / LINK_ITEMS_MAX) as u64 {
            (0..LINK_ITEMS_MAX).for_each(|_| queue.push_of(LinkId(link), 2, 0).unwrap());
        }
        assert!(!queue.lock().has_room(Some(LinkId(2))), "the queue is full");
        (0..SHARE_ITEMS).for_each(|_| queue.push_of(LinkId(100), 3, 0).unwrap());
        (0..SHARE_ITEMS).for_each(|_| queue.push(4, 0).unwrap());
        assert!(!queue.lock().has_room(Some(LinkId(100))) && !queue.lock().has_room(None));
        let mut found = VecDeque::new();
        assert!(queue.take(&mut found, None));
        pushed.recv().unwrap();
        queue.close();
        flood.unwrap().join().unwrap();
    }
}
