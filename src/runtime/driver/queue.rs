//! Queue of one link: frames that were decided and are not yet written.
//!
//! Invariants:
//! - Frames leave in the order in which they came.
//! - A queue takes no more memory than its frames: thousands of links are idle most of the time.
//! - A thread that waits for a frame sleeps. A waiter that turns round a few times first, as those
//!   of general channels do, costs more than all else if thousands of threads share few cores.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::link::Frame;

/// Number of frames for which an empty queue keeps room.
const KEPT_FRAMES: usize = 16;

/// Reason why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// There is no room.
    Full,
    /// The writer has ended.
    WriterGone,
}

#[derive(Default)]
struct Inner {
    frames: VecDeque<Frame>,
    /// The way in was dropped: no more frames will come.
    is_closed: bool,
    /// The way out was dropped.
    is_abandoned: bool,
    /// True if the writer sleeps until there is a frame; waking costs a system call.
    is_awaited: bool,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    moved: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing under this lock can panic")
    }
}

/// The way into a queue. Dropping it closes the queue.
pub(super) struct FrameSender {
    shared: Arc<Shared>,
    most: usize,
}

/// The way out of a queue, for one thread.
pub(super) struct FrameReceiver {
    shared: Arc<Shared>,
}

/// A queue of at most `most` frames.
pub(super) fn queue(most: usize) -> (FrameSender, FrameReceiver) {
    let shared = Arc::new(Shared::default());
    (FrameSender { shared: Arc::clone(&shared), most }, FrameReceiver { shared })
}

impl FrameSender {
    /// Appends a frame, without blocking.
    pub(super) fn push(&self, frame: Frame) -> Result<(), NotTaken> {
        let mut inner = self.shared.lock();
        if inner.is_abandoned {
            return Err(NotTaken::WriterGone);
        }
        if inner.frames.len() >= self.most {
            return Err(NotTaken::Full);
        }
        inner.frames.push_back(frame);
        let is_awaited = std::mem::take(&mut inner.is_awaited);
        drop(inner);
        if is_awaited {
            self.shared.moved.notify_one();
        }
        Ok(())
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.moved.notify_one();
    }
}

impl FrameReceiver {
    /// Takes the next frame, once there is one; `None` if the queue is closed and empty.
    pub(super) fn wait(&self) -> Option<Frame> {
        let mut inner = self.shared.lock();
        loop {
            if let Some(frame) = inner.frames.pop_front() {
                return Some(frame);
            }
            if inner.is_closed {
                return None;
            }
            inner.frames.shrink_to(KEPT_FRAMES);
            inner.is_awaited = true;
            inner = self.shared.moved.wait(inner).expect("nothing under this lock can panic");
        }
    }

    /// Takes the next frame, if there is one.
    pub(super) fn next(&self) -> Option<Frame> {
        self.shared.lock().frames.pop_front()
    }
}

impl FrameReceiver {
    /// Takes no more frames, and returns those that were never taken out.
    pub(super) fn abandon(&self) -> VecDeque<Frame> {
        let mut inner = self.shared.lock();
        inner.is_abandoned = true;
        std::mem::take(&mut inner.frames)
    }
}

impl Drop for FrameReceiver {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::thread;

    fn frame(number: u8) -> Frame {
        Arc::new(vec![number])
    }

    #[test]
    fn frames_leave_in_order_and_the_rest_after_the_close() {
        let (way_in, way_out) = queue(3);
        for number in 1..=3 {
            assert_eq!(way_in.push(frame(number)), Ok(()));
        }
        assert_eq!(way_in.push(frame(4)), Err(NotTaken::Full));
        assert_eq!(way_out.wait(), Some(frame(1)));
        assert_eq!(way_in.push(frame(5)), Ok(()));
        drop(way_in);
        assert_eq!((way_out.next(), way_out.wait()), (Some(frame(2)), Some(frame(3))));
        assert_eq!((way_out.wait(), way_out.wait()), (Some(frame(5)), None));
        assert_eq!(way_out.next(), None);
    }

    #[test]
    fn nobody_queues_for_a_writer_that_is_gone() {
        let (way_in, way_out) = queue(3);
        assert_eq!(way_in.push(frame(1)), Ok(()));
        drop(way_out);
        assert_eq!(way_in.push(frame(2)), Err(NotTaken::WriterGone));
    }

    #[test]
    fn a_sleeper_is_woken_by_each_frame_and_by_the_close() {
        let (way_in, way_out) = queue(1);
        let (tell, heard) = crossbeam_channel::bounded(0);
        let reader = thread::spawn("reader", move || {
            while let Some(frame) = way_out.wait() {
                tell.send(frame).unwrap();
            }
        });
        for number in 0..200 {
            // Only when the last one was heard is there room again.
            assert_eq!(way_in.push(frame(number)), Ok(()));
            assert_eq!(heard.recv(), Ok(frame(number)));
        }
        drop(way_in);
        assert!(heard.recv().is_err());
        reader.unwrap().join().unwrap();
    }
}
