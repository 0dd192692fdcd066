//! Queue of one connection: messages, and pieces to send from the disk, in the order in which they
//! were decided.
//!
//! Invariants: a piece that was begun is not in here any more; a waiting writer sleeps; and the
//! queue is bounded, both by the bytes of messages and by the number of items.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::proto::swarm::PieceIndex;

/// Largest number of bytes of messages that may wait: room for a bitfield and some runs of hashes.
/// A connection that is further behind is cut, because its other end does not read.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// Largest number of items that may wait; a swarm with 100,000 pieces sends `have` as often, to
/// slow peers too.
const ITEMS_MAX: usize = 128 * 1024;

/// An item to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OutgoingItem {
    /// A message, encoded.
    Message(Vec<u8>),
    /// A piece from the disk, from this byte on.
    Piece(PieceIndex, u32),
}

/// Error: the queue has no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Default)]
struct Inner {
    items: VecDeque<OutgoingItem>,
    bytes: usize,
    is_closed: bool,
    /// True if the writer sleeps until there is an item; waking costs a system call.
    is_awaited: bool,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    inner: Mutex<Inner>,
    moved: Condvar,
}

impl Outgoing {
    /// Appends an item, without blocking. After [`Self::close`] it is dropped.
    pub(super) fn push(&self, item: OutgoingItem) -> Result<(), Full> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Ok(());
        }
        if let OutgoingItem::Message(bytes) = &item {
            if inner.bytes + bytes.len() > BYTES_MAX {
                return Err(Full);
            }
            inner.bytes += bytes.len();
        }
        if inner.items.len() >= ITEMS_MAX {
            return Err(Full);
        }
        inner.items.push_back(item);
        let is_awaited = std::mem::take(&mut inner.is_awaited);
        drop(inner);
        if is_awaited {
            self.moved.notify_one();
        }
        Ok(())
    }

    /// Removes all pieces that were not begun, and returns them.
    pub(super) fn drop_pieces(&self) -> Vec<PieceIndex> {
        let mut dropped = Vec::new();
        self.lock().items.retain(|item| match item {
            OutgoingItem::Message(_) => true,
            OutgoingItem::Piece(index, _) => {
                dropped.push(*index);
                false
            }
        });
        dropped
    }

    /// Removes one piece; false if it is not queued.
    pub(super) fn drop_piece(&self, index: PieceIndex) -> bool {
        let mut inner = self.lock();
        let at = inner
            .items
            .iter()
            .position(|item| matches!(item, OutgoingItem::Piece(it, _) if *it == index));
        at.is_some_and(|at| inner.items.remove(at).is_some())
    }

    /// Refuses new items; those in the queue still leave.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.moved.notify_all();
    }

    /// Refuses new items and drops those in the queue; returns the pieces among them.
    pub(super) fn abandon(&self) -> Vec<PieceIndex> {
        self.close();
        let dropped = self.drop_pieces();
        let mut inner = self.lock();
        inner.items.clear();
        inner.bytes = 0;
        dropped
    }

    /// Takes the next item, once there is one; `None` if the queue is closed and empty. Messages
    /// that wait together are taken together, up to `most` bytes.
    pub(super) fn wait(&self, most: usize) -> Option<OutgoingItem> {
        let mut inner = self.lock();
        loop {
            match inner.take(most) {
                Some(item) => return Some(item),
                None if inner.is_closed => return None,
                None => {
                    inner.is_awaited = true;
                    inner = self.moved.wait(inner).expect("nothing under this lock can panic");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing under this lock can panic")
    }
}

impl Inner {
    fn take(&mut self, most: usize) -> Option<OutgoingItem> {
        let mut batch = match self.items.pop_front()? {
            OutgoingItem::Message(bytes) => bytes,
            piece @ OutgoingItem::Piece(..) => return Some(piece),
        };
        let mut taken = batch.len();
        while let Some(OutgoingItem::Message(next)) = self.items.front()
            && batch.len() + next.len() <= most
        {
            batch.extend_from_slice(next);
            taken += next.len();
            self.items.pop_front();
        }
        self.bytes -= taken;
        Some(OutgoingItem::Message(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> OutgoingItem {
        OutgoingItem::Message(text.as_bytes().to_vec())
    }

    fn piece(index: u32) -> OutgoingItem {
        OutgoingItem::Piece(PieceIndex(index), 0)
    }

    #[test]
    fn messages_and_pieces_leave_in_order_and_messages_together() {
        let queue = Outgoing::default();
        for item in [message("a"), message("b"), piece(7), message("c"), message("dd")] {
            queue.push(item).unwrap();
        }
        assert_eq!(queue.wait(10), Some(message("ab")));
        assert_eq!(queue.wait(10), Some(piece(7)));
        assert_eq!(queue.wait(2), Some(message("c")), "no more than was asked for");
        queue.close();
        assert_eq!(queue.wait(2), Some(message("dd")));
        assert_eq!(queue.wait(2), None);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn pieces_are_dropped_one_by_one_or_all() {
        let queue = Outgoing::default();
        for item in [piece(1), message("a"), piece(2), piece(3)] {
            queue.push(item).unwrap();
        }
        assert!(queue.drop_piece(PieceIndex(2)));
        assert!(!queue.drop_piece(PieceIndex(2)));
        assert_eq!(queue.drop_pieces(), [PieceIndex(1), PieceIndex(3)]);
        assert_eq!(queue.wait(9), Some(message("a")));
    }

    #[test]
    fn there_is_a_bound_to_what_waits() {
        let queue = Outgoing::default();
        assert_eq!(queue.push(OutgoingItem::Message(vec![0; BYTES_MAX])), Ok(()));
        assert_eq!(queue.push(message("a")), Err(Full));
        assert_eq!(queue.push(piece(1)), Ok(()));
        assert_eq!(queue.abandon(), [PieceIndex(1)]);
        assert_eq!(queue.wait(1), None);
    }
}
