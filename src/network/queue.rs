//! Bounded queues of an application, which report the number of items that found no room.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::error::NetworkError;
use crate::model::Endpoint;

/// One of the waits that a wait without an end is made of.
const LONG: Duration = Duration::from_secs(3_600);

/// Largest number of gap reports (messages that never came) in one queue; further ones count as
/// lost to the reader.
const MISSING_MAX: usize = 1_024;

/// An item with a size in memory.
pub trait ByteSize {
    /// Approximate size of the item, in bytes.
    fn bytes(&self) -> usize;
}

enum Entry<T> {
    Item(T),
    /// Number of items that found no room between the items before and after.
    Lost(u64),
    /// Number of messages of an origin that never came to this node.
    Missing(Endpoint, u64),
}

struct Inner<T> {
    entries: VecDeque<Entry<T>>,
    items: usize,
    bytes: usize,
    lost: u64,
    /// Number of entries for messages that never came.
    missing: usize,
    is_closed: bool,
    /// Tasks that wait for the next entry.
    wakers: Vec<Waker>,
}

impl<T> Inner<T> {
    /// Counts items that find no room.
    fn lose(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
        if let Some(Entry::Lost(known)) = self.entries.back_mut() {
            *known = known.saturating_add(count);
        } else {
            self.entries.push_back(Entry::Lost(count));
        }
    }
}

/// State shared by both ends of a queue.
pub(super) struct Shared<T> {
    inner: Mutex<Inner<T>>,
    moved: Condvar,
    items_max: usize,
    bytes_max: usize,
}

impl<T: ByteSize> Shared<T> {
    /// An empty queue with room for so many items and bytes. One item always finds room.
    pub(super) fn new(items_max: usize, bytes_max: usize) -> Arc<Self> {
        let inner = Inner {
            entries: VecDeque::new(),
            items: 0,
            bytes: 0,
            lost: 0,
            missing: 0,
            is_closed: false,
            wakers: Vec::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), moved: Condvar::new(), items_max, bytes_max })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().expect("nothing under this lock can panic")
    }

    /// Appends an item; returns whether there was room.
    pub(super) fn push(&self, item: T) -> bool {
        let mut inner = self.lock();
        let bytes = item.bytes();
        let is_full = inner.items >= self.items_max || inner.bytes + bytes > self.bytes_max;
        if inner.is_closed || (is_full && inner.items > 0) {
            inner.lose(1);
            return false;
        }
        inner.items += 1;
        inner.bytes += bytes;
        inner.entries.push_back(Entry::Item(item));
        self.wake(inner);
        true
    }

    /// Appends the report that `count` messages of an origin never came to this node.
    pub(super) fn push_missing(&self, origin: Endpoint, count: u64) {
        let mut inner = self.lock();
        if inner.is_closed {
            return;
        }
        if let Some(Entry::Missing(last, known)) = inner.entries.back_mut()
            && *last == origin
        {
            *known = known.saturating_add(count);
        } else if inner.missing >= MISSING_MAX {
            inner.lose(count);
        } else {
            inner.missing += 1;
            inner.entries.push_back(Entry::Missing(origin, count));
        }
        self.wake(inner);
    }

    /// Closes the queue: no more items will come.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        self.wake(inner);
        self.moved.notify_all();
    }

    /// Wakes one thread and all tasks that wait for an entry.
    fn wake(&self, mut inner: MutexGuard<'_, Inner<T>>) {
        let wakers = std::mem::take(&mut inner.wakers);
        // A task may run at once on this thread, and take the lock.
        drop(inner);
        self.moved.notify_one();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn pop(&self, most: Duration) -> Result<T, RecvError> {
        let is_bare = |inner: &mut Inner<T>| inner.entries.is_empty() && !inner.is_closed;
        let waited = self.moved.wait_timeout_while(self.lock(), most, is_bare);
        let (mut inner, _) = waited.expect("nothing under this lock can panic");
        Self::take(&mut inner)
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Result<T, RecvError>> {
        let mut inner = self.lock();
        match Self::take(&mut inner) {
            Err(RecvError::Empty) => {
                if !inner.wakers.iter().any(|it| it.will_wake(context.waker())) {
                    inner.wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
            found => Poll::Ready(found),
        }
    }

    fn take(inner: &mut Inner<T>) -> Result<T, RecvError> {
        match inner.entries.pop_front() {
            Some(Entry::Item(item)) => {
                inner.items -= 1;
                inner.bytes -= item.bytes();
                Ok(item)
            }
            Some(Entry::Lost(count)) => Err(RecvError::Missed(count)),
            Some(Entry::Missing(origin, count)) => {
                inner.missing -= 1;
                Err(RecvError::Missing { origin, count })
            }
            None if inner.is_closed => Err(RecvError::Closed),
            None => Err(RecvError::Empty),
        }
    }
}

/// Largest number of items, and of bytes, that wait for one reader.
pub(super) const QUEUE_ITEMS_MAX: usize = 16_384;
pub(super) const QUEUE_BYTES_MAX: usize = 64 * 1_048_576;

/// The readers of one kind of items, each with a queue of its own.
pub(super) struct Readers<T>(Arc<Mutex<Open<T>>>);

struct Open<T> {
    number: u64,
    /// `None` once there will be no more items.
    queues: Option<BTreeMap<u64, Arc<Shared<T>>>>,
}

impl<T> Clone for Readers<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Readers<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Open { number: 0, queues: Some(BTreeMap::new()) })))
    }
}

impl<T: ByteSize + Clone + Send + 'static> Readers<T> {
    fn lock(&self) -> MutexGuard<'_, Open<T>> {
        self.0.lock().expect("nothing under this lock can panic")
    }

    /// Opens a queue of all items from now on.
    ///
    /// # Errors
    /// Fails if there will be no more items.
    pub(super) fn open(&self) -> Result<Queue<T>, NetworkError> {
        let mut open = self.lock();
        let number = open.number;
        open.number += 1;
        let queues = open.queues.as_mut().ok_or(NetworkError::Stopped)?;
        let shared = Shared::new(QUEUE_ITEMS_MAX, QUEUE_BYTES_MAX);
        queues.insert(number, Arc::clone(&shared));
        let readers = self.clone();
        Ok(Queue::new(shared, move || {
            if let Some(queues) = &mut readers.lock().queues {
                queues.remove(&number);
            }
        }))
    }

    /// Appends an item to all queues; returns whether there was room in each.
    pub(super) fn push(&self, item: &T) -> bool {
        let open = self.lock();
        let queues = open.queues.iter().flatten();
        queues.filter(|(_, queue)| !queue.push(item.clone())).count() == 0
    }

    /// Closes all queues: no more items will come.
    pub(super) fn close(&self) {
        let queues = self.lock().queues.take();
        queues.iter().flatten().for_each(|(_, queue)| queue.close());
    }
}

/// Reason why there is no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// Number of messages that came while there was no room, and are lost to this reader. More can
    /// follow.
    Missed(u64),
    /// Messages of an origin that never came to this node, and that no neighbor holds any more.
    /// They may have been about any topic. More can follow.
    Missing {
        /// Endpoint that made the messages.
        origin: Endpoint,
        /// Number of the messages.
        count: u64,
    },
    /// No item has come in time.
    Empty,
    /// The network has stopped; nothing more comes.
    Closed,
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed(count) => {
                write!(f, "{count} messages found no room here and are lost; read faster")
            }
            Self::Missing { origin, count } => write!(f, "missed {count} of {origin}"),
            Self::Empty => f.write_str("no message in time"),
            Self::Closed => f.write_str("the network has stopped"),
        }
    }
}

impl std::error::Error for RecvError {}

/// Queue of one reader's items, in order. It may be read on any thread; dropping it ends it.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
    retire: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl<T: ByteSize> Queue<T> {
    pub(super) fn new(
        shared: Arc<Shared<T>>,
        retire: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        Self { shared, retire: Some(Box::new(retire)) }
    }

    /// Blocks until an item comes.
    ///
    /// # Errors
    /// [`RecvError::Missed`] and [`RecvError::Missing`] once for each gap, [`RecvError::Closed`]
    /// after the last item.
    pub fn recv(&self) -> Result<T, RecvError> {
        loop {
            match self.shared.pop(LONG) {
                Err(RecvError::Empty) => {}
                found => return found,
            }
        }
    }

    /// Blocks until an item comes, but no longer than `most`.
    ///
    /// # Errors
    /// As [`Queue::recv`], and [`RecvError::Empty`].
    pub fn recv_timeout(&self, most: Duration) -> Result<T, RecvError> {
        self.shared.pop(most)
    }

    /// Waits for an item in a task, with `.await`, on any runtime.
    ///
    /// # Errors
    /// As [`Queue::recv`].
    pub fn recv_async(&self) -> impl Future<Output = Result<T, RecvError>> + '_ {
        poll_fn(|context| self.shared.poll(context))
    }

    /// Takes an item without blocking.
    ///
    /// # Errors
    /// As [`Queue::recv_timeout`].
    pub fn try_recv(&self) -> Result<T, RecvError> {
        self.recv_timeout(Duration::ZERO)
    }

    /// Number of items that have found no room so far.
    pub fn missed(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Iterates over all items until the network stops; gaps are skipped, [`Queue::missed`] counts
    /// them.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| {
            loop {
                match self.recv() {
                    Ok(item) => return Some(item),
                    Err(RecvError::Missed(_) | RecvError::Missing { .. }) => {}
                    Err(RecvError::Empty | RecvError::Closed) => return None,
                }
            }
        })
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        if let Some(retire) = self.retire.take() {
            retire();
        }
    }
}

impl From<RecvError> for NetworkError {
    fn from(_: RecvError) -> Self {
        Self::Stopped
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    impl ByteSize for u64 {
        fn bytes(&self) -> usize {
            usize::try_from(*self).unwrap()
        }
    }

    #[test]
    fn what_finds_no_room_is_told_where_it_is_missing() {
        let shared = Shared::new(3, 100);
        let queue = Queue::new(Arc::clone(&shared), || {});
        assert_eq!(queue.try_recv(), Err(RecvError::Empty));
        let took: Vec<_> = [1, 2, 3, 4, 5].into_iter().map(|it| shared.push(it)).collect();
        assert_eq!(took, [true, true, true, false, false]);
        assert_eq!(queue.recv(), Ok(1));
        assert!(shared.push(6));
        let rest: Vec<_> = (0..5).map(|_| queue.try_recv()).collect();
        assert_eq!(rest, [Ok(2), Ok(3), Err(RecvError::Missed(2)), Ok(6), Err(RecvError::Empty)]);
        assert!(shared.push(500), "one always finds room");
        assert!(!shared.push(1));
        assert_eq!(queue.missed(), 3);
        shared.close();
        assert_eq!(queue.iter().collect::<Vec<_>>(), [500]);
        assert_eq!(queue.recv(), Err(RecvError::Closed));
    }

    #[derive(Default)]
    struct Notifier(AtomicU32);

    impl Wake for Notifier {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_by_an_item_a_gap_and_the_end() {
        let shared = Shared::new(3, 100);
        let queue = Queue::new(Arc::clone(&shared), || {});
        let bell = Arc::new(Notifier::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut context = Context::from_waker(&waker);
        let origin = Endpoint::new([127, 0, 0, 1].into(), 1);
        let missing = RecvError::Missing { origin, count: 2 };
        let happen: [(&dyn Fn(), _); 3] = [
            (&|| _ = shared.push(7), Ok(7)),
            (&|| shared.push_missing(origin, 2), Err(missing)),
            (&|| shared.close(), Err(RecvError::Closed)),
        ];
        for (turn, (happens, found)) in (1..).zip(happen) {
            let mut next = pin!(queue.recv_async());
            assert_eq!(next.as_mut().poll(&mut context), Poll::Pending);
            assert_eq!(next.as_mut().poll(&mut context), Poll::Pending);
            happens();
            assert_eq!(bell.0.load(Ordering::Relaxed), turn, "woken once");
            assert_eq!(next.as_mut().poll(&mut context), Poll::Ready(found));
        }
    }
}
