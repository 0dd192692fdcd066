//! Channels with a bound that reserve no memory for it.
//!
//! A bounded channel makes all its places when it is made, in every process and for good: with
//! thousands of places of hundreds of bytes that is a megabyte for what may never come.

use crossbeam_channel::{Receiver, Sender, unbounded};

/// The sending end of a channel.
#[derive(Debug)]
pub(crate) struct BoundedSender<T> {
    channel: Sender<T>,
    most: usize,
}

/// A channel in which `most` items may wait.
#[allow(clippy::disallowed_methods, reason = "the entry has the bound")]
pub(crate) fn channel<T>(most: usize) -> (BoundedSender<T>, Receiver<T>) {
    let (channel, items) = unbounded();
    (BoundedSender { channel, most }, items)
}

impl<T> BoundedSender<T> {
    /// Appends an item without blocking; returns whether there was room, and a receiver. Threads
    /// that send at the same time can exceed the bound by their number.
    pub(crate) fn send(&self, item: T) -> bool {
        self.channel.len() < self.most && self.channel.send(item).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_channel_takes_nothing_until_an_item_is_read_and_a_closed_one_nothing_at_all() {
        let (entry, items) = channel(2);
        assert!(entry.send(1) && entry.send(2));
        assert!(!entry.send(3));
        assert_eq!(items.recv(), Ok(1));
        assert!(entry.send(4));
        assert_eq!(items.try_iter().collect::<Vec<_>>(), [2, 4]);
        drop(items);
        assert!(!entry.send(5));
    }
}
