//! Channels with a bound that reserve no memory for it.
//!
//! A bounded channel makes all its places when it is made, in every process and for good: with
//! thousands of places of hundreds of bytes that is a megabyte for what may never come.

use crossbeam_channel::Sender;

/// Appends `item` to an unbounded channel in which fewer than `most` items wait; returns whether
/// there was room. Callers that send at the same time can exceed `most` by their number.
pub(crate) fn send_within<T>(channel: &Sender<T>, most: usize, item: T) -> bool {
    channel.len() < most && channel.send(item).is_ok()
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn a_full_channel_takes_nothing_until_an_item_is_read_and_a_closed_one_nothing_at_all() {
        let (tell, told) = unbounded();
        assert!(send_within(&tell, 2, 1) && send_within(&tell, 2, 2));
        assert!(!send_within(&tell, 2, 3));
        assert_eq!(told.recv(), Ok(1));
        assert!(send_within(&tell, 2, 4));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [2, 4]);
        drop(told);
        assert!(!send_within(&tell, 2, 5));
    }
}
