//! State of a follower toward the leader of its term: the part of the log that is known to be the
//! leader's, and the questions and acknowledgements on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::machine::LinkId;
use crate::model::Time;
use crate::proto::chat::entry::{SeqNo, Term};

/// A follower's state in one term.
#[derive(Debug)]
pub(super) struct Following {
    /// Number up to which the log is that of the term's leader.
    verified: SeqNo,
    /// Time of the last question to the leader, and whether it was for a conflict.
    asked_at: Option<(Time, bool)>,
    /// Number that the leader was last told to be stored here.
    acked: SeqNo,
    /// Time of that acknowledgement.
    acked_at: Time,
    /// The leader's commit when it was last heard anew; `None` until it is heard.
    resume_at: Option<SeqNo>,
    /// Candidates for which old entries are being read, and the terms.
    pending_tail_reads: BTreeMap<LinkId, Term>,
    /// Last term in which it was told that logs differ.
    diverged_in: Option<Term>,
}

impl Following {
    /// The state at the start; what is final is every leader's.
    pub(super) const fn new(commit: SeqNo) -> Self {
        Self {
            verified: commit,
            asked_at: None,
            acked: SeqNo(0),
            acked_at: Time::ZERO,
            resume_at: None,
            pending_tail_reads: BTreeMap::new(),
            diverged_in: None,
        }
    }

    /// Begins another term: of the log, only the final part is known to be its leader's.
    pub(super) fn begin_term(&mut self, commit: SeqNo) {
        *self = Self { diverged_in: self.diverged_in, ..Self::new(commit) };
    }

    /// Begins with a leader that was not known before.
    pub(super) const fn begin(&mut self) {
        self.asked_at = None;
        self.resume_at = None;
    }

    /// Notes that the leader's connection is another one: its commit must be heard anew.
    pub(super) const fn reconnect(&mut self) {
        self.resume_at = None;
    }

    pub(super) const fn verified(&self) -> SeqNo {
        self.verified
    }

    /// Notes that the log is the leader's up to `end`.
    pub(super) fn verify(&mut self, end: SeqNo) {
        self.asked_at = None;
        self.verified = self.verified.max(end);
    }

    /// Takes the leader's commit. Returns the number up to which the log here is final by that.
    pub(super) fn learn_commit(&mut self, commit: SeqNo) -> SeqNo {
        self.resume_at.get_or_insert(commit);
        // R6: beyond what is verified, the entries here may be others than the leader's.
        commit.min(self.verified)
    }

    /// True if all entries are known that were final when the leader was first heard.
    pub(super) fn has_caught_up(&self, commit: SeqNo) -> bool {
        self.resume_at.is_some_and(|at| commit >= at)
    }

    /// Notes a question to the leader, unless one is on its way and not too old. A conflict is told
    /// even then: the answer may have shown the conflict.
    pub(super) fn ask(&mut self, now: Time, is_conflict: bool, patience: Duration) -> bool {
        let is_waiting =
            |(at, was_conflict)| now.since(at) < patience && (was_conflict || !is_conflict);
        if self.asked_at.is_some_and(is_waiting) {
            return false;
        }
        self.asked_at = Some((now, is_conflict));
        true
    }

    /// The number to acknowledge, if it is news or `always`: that of the last entry which is the
    /// leader's and on disk here (R7).
    pub(super) fn acknowledge(&mut self, stored: SeqNo, always: bool, now: Time) -> Option<SeqNo> {
        let last = self.verified.min(stored);
        if !always && last <= self.acked {
            return None;
        }
        (self.acked, self.acked_at) = (last, now);
        Some(last)
    }

    /// True if the leader was told nothing for this time.
    pub(super) fn is_ack_due(&self, now: Time, pause: Duration) -> bool {
        now >= self.acked_at.after(pause)
    }

    /// Notes that a log differs. Returns true for the first time in a term.
    pub(super) fn diverge(&mut self, term: Term) -> bool {
        self.diverged_in.replace(term) != Some(term)
    }

    /// Notes that entries are being read for a candidate.
    pub(super) fn await_tail(&mut self, link: LinkId, term: Term) {
        self.pending_tail_reads.insert(link, term);
    }

    /// Takes the term for which entries were read.
    pub(super) fn take_tail_read(&mut self, link: LinkId) -> Option<Term> {
        self.pending_tail_reads.remove(&link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    #[test]
    fn entries_that_are_not_known_to_be_the_leaders_are_neither_final_nor_acknowledged() {
        let mut following = Following::new(SeqNo(3));
        assert_eq!(following.learn_commit(SeqNo(9)), SeqNo(3));
        following.verify(SeqNo(5));
        assert_eq!(following.learn_commit(SeqNo(9)), SeqNo(5));
        assert_eq!(following.acknowledge(SeqNo(9), false, Time::ZERO), Some(SeqNo(5)));
        assert_eq!(following.acknowledge(SeqNo(9), false, Time::ZERO), None, "no news");
        following.verify(SeqNo(9));
        assert_eq!(following.acknowledge(SeqNo(7), false, Time::ZERO), Some(SeqNo(7)), "on disk");
        following.begin_term(SeqNo(5));
        assert_eq!(following.verified(), SeqNo(5), "another leader may have another tail");
    }

    #[test]
    fn a_follower_has_caught_up_with_the_commit_that_it_heard_first() {
        let mut following = Following::new(SeqNo(3));
        assert!(!following.has_caught_up(SeqNo(9)), "no leader was heard");
        following.learn_commit(SeqNo(5));
        following.learn_commit(SeqNo(8));
        assert!(!following.has_caught_up(SeqNo(4)) && following.has_caught_up(SeqNo(5)));
        following.reconnect();
        assert!(!following.has_caught_up(SeqNo(5)));
    }

    #[test]
    fn one_question_is_on_its_way_but_a_conflict_is_told_at_once() {
        let mut following = Following::new(SeqNo(0));
        let at = |millis| Time::ZERO.after(Duration::from_millis(millis));
        assert!(following.ask(at(0), false, PATIENCE));
        assert!(!following.ask(at(1), false, PATIENCE));
        assert!(following.ask(at(2), true, PATIENCE));
        assert!(!following.ask(at(3), true, PATIENCE) && !following.ask(at(4), false, PATIENCE));
        assert!(following.ask(at(102), false, PATIENCE));
    }

    #[test]
    fn a_divergence_is_told_once_a_term() {
        let mut following = Following::new(SeqNo(0));
        assert!(following.diverge(Term(1)) && !following.diverge(Term(1)));
        following.begin_term(SeqNo(0));
        assert!(!following.diverge(Term(1)) && following.diverge(Term(2)));
    }
}
