//! Entries of an order from a place on: those of the log first, then each as it becomes final.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::entry::{OrderEntry, Place};
use crate::proto::chat::entry::{Body, Entry};

/// Number of the last final entries that are kept in memory for readers that keep up.
const RECENT_MAX: usize = 1_024;

/// Bytes of text of the entries in memory, at most; the last one stays in any case.
const RECENT_BYTES_MAX: usize = 4 << 20;

/// Number of entries that are read from the log at a time.
const PAGE: u64 = 500;

/// Pause before the log is read again that has not shown what is final, or had no time to.
const AGAIN: Duration = Duration::from_millis(20);

/// One of the waits that a wait without an end is made of.
const LONG: Duration = Duration::from_secs(3_600);

#[derive(Default)]
struct Known {
    /// Last final entries, without a gap.
    recent: VecDeque<Arc<Entry>>,
    bytes: usize,
    is_closed: bool,
}

fn text_bytes(entry: &Entry) -> usize {
    match &entry.body {
        Body::Chat(chat) => chat.payload.len(),
        Body::Opening | Body::Membership(_) => 0,
    }
}

/// The last entries that became final here, for all who follow.
#[derive(Clone, Default)]
pub(super) struct Tail(Arc<(Mutex<Known>, Condvar)>);

impl Tail {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.0.lock().expect("nothing under this lock can panic")
    }

    /// Adds entries that have become final, in order.
    pub(super) fn add(&self, entries: &[Arc<Entry>]) {
        let mut known = self.known();
        for entry in entries {
            if known.recent.back().is_some_and(|it| it.seq_no.next() != entry.seq_no) {
                known.recent.clear();
                known.bytes = 0;
            }
            known.bytes += text_bytes(entry);
            known.recent.push_back(Arc::clone(entry));
        }
        while known.recent.len() > 1
            && (known.recent.len() > RECENT_MAX || known.bytes > RECENT_BYTES_MAX)
        {
            let gone = known.recent.pop_front().map_or(0, |it| text_bytes(&it));
            known.bytes -= gone;
        }
        drop(known);
        self.0.1.notify_all();
    }

    /// Ends all waits: the member has stopped.
    pub(super) fn close(&self) {
        self.known().is_closed = true;
        self.0.1.notify_all();
    }

    /// Waits until there is something from `next` on; it is in the log, if it is not given here.
    fn wait(&self, next: u64, most: Duration) -> Waited {
        let nothing = |known: &mut Known| {
            !known.is_closed && known.recent.back().is_none_or(|it| it.seq_no.0 < next)
        };
        let waited = self.0.1.wait_timeout_while(self.known(), most, nothing);
        let (known, _) = waited.expect("nothing under this lock can panic");
        let is_here = known.recent.front().is_some_and(|it| it.seq_no.0 <= next);
        match known.recent.back() {
            Some(last) if last.seq_no.0 >= next && is_here => Waited::Here(
                known.recent.iter().filter(|it| it.seq_no.0 >= next).cloned().collect(),
            ),
            Some(last) if last.seq_no.0 >= next => Waited::InLog,
            Some(_) | None if known.is_closed => Waited::Ended,
            Some(_) | None => Waited::Nothing,
        }
    }
}

enum Waited {
    /// The entries from the wanted one on.
    Here(VecDeque<Arc<Entry>>),
    /// The wanted entry is final, and no longer in memory.
    InLog,
    /// Nothing new came in time.
    Nothing,
    /// The member has stopped.
    Ended,
}

/// Function that reads final entries from a number on out of the log, so many at most.
pub(super) type ReadLog = Box<dyn Fn(u64, u64) -> Result<Vec<Arc<Entry>>, String> + Send>;

/// Iterator over the entries of an order from one place on, without a gap.
///
/// It waits for entries that are not final yet, and ends when the member stops. A reader may take
/// its time: what is not in memory any more comes from the log. To resume, follow from the place
/// after the last entry that was taken.
pub struct Follower {
    read: ReadLog,
    tail: Tail,
    next: u64,
    ready: VecDeque<Arc<Entry>>,
    /// True until the log has shown nothing new: what was final before the start is only there.
    looks_in_log: bool,
}

/// Reason why [`Follower::next_within`] has no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEntry {
    /// No entry became final in time.
    Yet,
    /// The member has stopped.
    Stopped,
}

impl Follower {
    pub(super) fn new(read: ReadLog, tail: Tail, from: Place) -> Self {
        Self { read, tail, next: from.0.max(1), ready: VecDeque::new(), looks_in_log: true }
    }

    /// Waits for the next entry, but no longer than `most`.
    ///
    /// # Errors
    /// Fails if there is none yet, or the member has stopped.
    pub fn next_within(&mut self, most: Duration) -> Result<OrderEntry, NoEntry> {
        let mut left = most;
        loop {
            if let Some(entry) = OrderEntry::of(&*self.next_final(&mut left)?) {
                return Ok(entry);
            }
        }
    }

    /// Waits for the next entry of any kind, but no longer than `left`, which it shortens.
    fn next_final(&mut self, left: &mut Duration) -> Result<Arc<Entry>, NoEntry> {
        let mut has_looked = false;
        loop {
            if let Some(entry) = self.ready.pop_front() {
                self.next = entry.seq_no.0 + 1;
                return Ok(entry);
            }
            if std::mem::take(&mut self.looks_in_log) {
                // An error is a log that has too much to do, or a member that stops.
                self.ready = (self.read)(self.next, PAGE).unwrap_or_default().into();
                self.looks_in_log = !self.ready.is_empty();
                has_looked = !self.looks_in_log;
                if self.looks_in_log {
                    continue;
                }
            }
            match self.tail.wait(self.next, *left) {
                Waited::Here(entries) => self.ready = entries,
                Waited::Ended => return Err(NoEntry::Stopped),
                Waited::Nothing => return Err(NoEntry::Yet),
                Waited::InLog => {
                    self.looks_in_log = true;
                    if has_looked {
                        let pause = AGAIN.min(*left);
                        *left -= pause;
                        if left.is_zero() {
                            return Err(NoEntry::Yet);
                        }
                        let _ = crossbeam_channel::after(pause).recv();
                    }
                }
            }
        }
    }
}

impl Follower {
    /// The next entry of any kind that is final already.
    pub(super) fn next_ready(&mut self) -> Option<Arc<Entry>> {
        self.next_final(&mut Duration::ZERO.clone()).ok()
    }

    /// Waits for the next entry of any kind; `None` once the member has stopped.
    pub(in crate::network) fn next_of_any_kind(&mut self) -> Option<Arc<Entry>> {
        loop {
            match self.next_final(&mut LONG.clone()) {
                Ok(entry) => return Some(entry),
                Err(NoEntry::Yet) => {}
                Err(NoEntry::Stopped) => return None,
            }
        }
    }
}

impl Iterator for Follower {
    type Item = OrderEntry;

    fn next(&mut self) -> Option<OrderEntry> {
        loop {
            match self.next_within(LONG) {
                Ok(entry) => return Some(entry),
                Err(NoEntry::Yet) => {}
                Err(NoEntry::Stopped) => return None,
            }
        }
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("next", &self.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::model::WallTime;
    use crate::proto::chat::entry::{ChatText, MemberId, MsgId, Origin, SeqNo, Term};

    const SOON: Duration = Duration::from_millis(5);

    fn entry(place: u64, room: &str) -> Arc<Entry> {
        let origin = Origin { member: MemberId(1), client: 7 };
        let msg_id = MsgId { origin, number: place };
        let chat = ChatText { msg_id, room_id: room.into(), payload: place.to_string().into() };
        let (term, leader, time) = (Term(0), MemberId(1), WallTime(0));
        Arc::new(Entry { seq_no: SeqNo(place), term, leader, time, body: Body::Chat(chat) })
    }

    /// A log that holds so many entries, and reports what is read from it.
    fn log(last: u64) -> (ReadLog, Receiver<u64>) {
        let (tell, reads) = bounded(64);
        let read = move |from, count| {
            let _ = tell.try_send(from);
            let end = last.min(from + count - 1);
            Ok((from..=end).map(|it| entry(it, "text")).collect())
        };
        (Box::new(read), reads)
    }

    fn places(follower: &mut Follower) -> Vec<u64> {
        let next = || follower.next_within(SOON).ok().map(|it| it.place.0);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn the_past_comes_from_the_log_and_the_present_without_it() {
        let (tail, (read, reads)) = (Tail::default(), log(1_200));
        let mut follower = Follower::new(read, tail.clone(), Place(200));
        assert_eq!(places(&mut follower), (200..=1_200).collect::<Vec<_>>());
        let from_log = reads.try_iter().count();
        tail.add(&[entry(1_201, "text"), entry(1_202, super::super::entry::MARK)]);
        tail.add(&[entry(1_203, "text")]);
        assert_eq!(places(&mut follower), [1_201, 1_203], "markers are not shown");
        assert_eq!(reads.try_iter().count(), 0, "{from_log}");
        assert_eq!(follower.next_within(SOON), Err(NoEntry::Yet));
        tail.close();
        assert_eq!(follower.next_within(SOON), Err(NoEntry::Stopped));
        assert_eq!(follower.next(), None);
    }

    #[test]
    fn a_reader_that_is_far_behind_misses_nothing() {
        let last = 3 * RECENT_MAX as u64;
        let (tail, (read, reads)) = (Tail::default(), log(last));
        let mut follower = Follower::new(read, tail.clone(), Place(0));
        for place in 1..=last {
            tail.add(&[entry(place, "text")]);
        }
        assert_eq!(tail.known().recent.len(), RECENT_MAX);
        assert_eq!(places(&mut follower), (1..=last).collect::<Vec<_>>());
        assert!(reads.try_iter().count() >= 4, "what is not in memory comes from the log");
    }

    #[test]
    fn a_gap_in_what_is_told_is_filled_from_the_log() {
        let (tail, (read, _reads)) = (Tail::default(), log(9));
        let mut follower = Follower::new(read, tail.clone(), Place(8));
        assert_eq!(places(&mut follower), [8, 9]);
        let (read, _reads) = log(12);
        follower.read = read;
        tail.add(&[entry(10, "text")]);
        tail.add(&[entry(12, "text")]);
        assert_eq!(places(&mut follower), [10, 11, 12]);
    }
}
