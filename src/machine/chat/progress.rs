//! A leader's view of one follower, or of a learner: the entries that it has, and those on
//! their way.

use std::collections::VecDeque;

use crate::machine::LinkId;
use crate::model::{PublicKey, Time};
use crate::proto::chat::entry::SeqNo;

/// Number of heartbeats without progress after which a follower is probed again.
const STALLED_MAX: u8 = 3;

/// Progress of one follower.
#[derive(Debug)]
pub(super) struct Progress {
    link: LinkId,
    key: PublicKey,
    /// First entry that was not sent.
    next: SeqNo,
    /// Number up to which the follower's disk has the log.
    matched: SeqNo,
    /// Last entries of the batches on their way.
    in_flight: VecDeque<SeqNo>,
    /// True if the follower asked for missing entries, and has not got all of them.
    is_behind: bool,
    is_loading: bool,
    /// True if the follower was sent a message that tells whether its log fits.
    is_probed: bool,
    stalled: u8,
    stalled_at: SeqNo,
    heard: Time,
    /// Commit that the follower was told last.
    told: SeqNo,
}

impl Progress {
    pub(super) const fn new(link: LinkId, key: PublicKey, next: SeqNo, heard: Time) -> Self {
        Self {
            link,
            key,
            next,
            matched: SeqNo(0),
            in_flight: VecDeque::new(),
            is_behind: false,
            is_loading: false,
            is_probed: false,
            stalled: 0,
            stalled_at: SeqNo(0),
            heard,
            told: SeqNo(0),
        }
    }

    pub(super) const fn link(&self) -> LinkId {
        self.link
    }

    pub(super) const fn key(&self) -> PublicKey {
        self.key
    }

    pub(super) const fn next(&self) -> SeqNo {
        self.next
    }

    /// Number up to which the follower's disk has the log, as it has acknowledged.
    pub(super) const fn matched(&self) -> SeqNo {
        self.matched
    }

    pub(super) const fn heard(&self) -> Time {
        self.heard
    }

    pub(super) const fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// True if a batch may be sent now: there is one to send, or the log is not compared yet.
    pub(super) fn wants(&self, last: SeqNo, flights_max: usize) -> bool {
        let has_room = self.in_flight.len() < flights_max && !self.is_loading;
        has_room && (self.next <= last || !self.is_probed)
    }

    /// Takes an acknowledgement.
    pub(super) fn on_ack(&mut self, stored: SeqNo, now: Time) {
        self.heard = now;
        if stored > self.matched {
            self.matched = stored;
            self.next = self.next.max(stored.next());
        }
        while self.in_flight.front().is_some_and(|it| *it <= self.matched) {
            self.in_flight.pop_front();
        }
    }

    /// Takes an answer that entries do not fit: all up to `seq` may.
    pub(super) fn on_misfit(&mut self, seq: SeqNo, now: Time) {
        self.heard = now;
        self.restart(seq);
        self.is_behind = true;
    }

    /// Notes that old entries are being read from disk.
    pub(super) const fn load(&mut self) {
        self.is_loading = true;
    }

    /// Notes that old entries were read.
    pub(super) const fn on_loaded(&mut self) {
        self.is_loading = false;
    }

    /// Notes that the entries up to `end` were sent, and the commit with them; `last` is the
    /// log's end.
    pub(super) fn on_sent(&mut self, prev: SeqNo, end: SeqNo, last: SeqNo, commit: SeqNo) {
        self.next = end.next();
        self.is_probed = true;
        self.told = commit;
        if end > prev {
            self.in_flight.push_back(end);
        }
        if end == last {
            self.is_behind = false;
        }
    }

    /// Commit that the follower was told last.
    pub(super) const fn told(&self) -> SeqNo {
        self.told
    }

    /// Notes that the commit was told.
    pub(super) const fn tell(&mut self, commit: SeqNo) {
        self.told = commit;
    }

    /// Sends from the entry after `seq` on.
    fn restart(&mut self, seq: SeqNo) {
        self.next = seq.next();
        self.in_flight.clear();
        self.is_probed = false;
        self.stalled = 0;
    }

    /// Begins again if the follower makes no progress: a message may have been lost on the way.
    pub(super) fn look_for_stall(&mut self, last: SeqNo) {
        let is_waiting = self.next > self.matched.next() && !self.is_loading;
        if !is_waiting || self.stalled_at != self.matched {
            self.stalled_at = self.matched;
            self.stalled = 0;
            return;
        }
        self.stalled += 1;
        if self.stalled >= STALLED_MAX {
            self.restart(if self.matched.0 > 0 { self.matched } else { last });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyPair;

    fn progress() -> Progress {
        let key = KeyPair::from_secret([1; 32]).public();
        Progress::new(LinkId(1), key, SeqNo(6), Time::ZERO)
    }

    #[test]
    fn a_new_follower_is_probed_even_if_there_is_nothing_to_send() {
        let mut it = progress();
        assert!(it.wants(SeqNo(5), 1));
        it.on_sent(SeqNo(5), SeqNo(5), SeqNo(5), SeqNo(4));
        assert!(!it.wants(SeqNo(5), 1));
        assert_eq!((it.told(), it.next()), (SeqNo(4), SeqNo(6)));
    }

    #[test]
    fn only_so_many_batches_are_on_their_way() {
        let mut it = progress();
        it.on_sent(SeqNo(5), SeqNo(7), SeqNo(9), SeqNo(4));
        assert!(!it.wants(SeqNo(9), 1) && it.wants(SeqNo(9), 2));
        it.on_ack(SeqNo(6), Time::ZERO);
        assert!(!it.wants(SeqNo(9), 1), "a part of the batch");
        it.on_ack(SeqNo(7), Time::ZERO);
        assert!(it.wants(SeqNo(9), 1));
        it.load();
        assert!(!it.wants(SeqNo(9), 1), "the disk is being read");
    }

    #[test]
    fn a_late_acknowledgement_takes_nothing_back() {
        let mut it = progress();
        it.on_ack(SeqNo(8), Time::ZERO);
        it.on_ack(SeqNo(3), Time::ZERO);
        assert_eq!((it.matched(), it.next()), (SeqNo(8), SeqNo(9)));
    }

    #[test]
    fn a_follower_without_progress_is_probed_again() {
        let mut it = progress();
        it.on_ack(SeqNo(5), Time::ZERO);
        it.on_sent(SeqNo(5), SeqNo(9), SeqNo(9), SeqNo(4));
        for _ in 0..=STALLED_MAX {
            assert_eq!(it.next(), SeqNo(10));
            it.look_for_stall(SeqNo(9));
        }
        assert_eq!(it.next(), SeqNo(6), "from its own place");
        assert!(it.wants(SeqNo(9), 1));
    }
}
