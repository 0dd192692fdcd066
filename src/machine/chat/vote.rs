//! Term, promise and leader, as a member knows them (R1, R5, L1, L2).
//!
//! Invariants:
//! - The term never falls.
//! - In one term the promise is given to one candidate, and never taken back.

use std::time::Duration;

use super::config::TERM_MAX;
use crate::model::Time;
use crate::proto::chat::entry::{MemberId, Term};
use crate::proto::chat::message::Election;

/// Number of objections of higher ids without a leader after which a candidate goes on all
/// the same (L2).
const OBJECTIONS_MAX: u32 = 2;

/// Answer to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The candidate's term is over.
    Stale,
    /// Another member leads, and is heard.
    HasLeader,
    /// The candidate would get the promise, which is all that it asks.
    Trial,
    /// The candidate gets the promise of a newer term, which begins.
    NewTerm,
    /// The candidate gets the promise of the present term.
    Promise,
    /// The candidate has the promise already.
    Repeat,
    /// Another candidate has the promise of the term.
    Promised,
}

/// Vote of a member, and the leader that it follows.
#[derive(Debug)]
pub(super) struct VoteState {
    term: Term,
    voted_for: Option<MemberId>,
    leader: Option<MemberId>,
    leader_heard: Time,
    /// Number of objections of higher ids since a leader was heard (L2).
    objections: u32,
    /// Time before which this member does not ask for the lead (C8).
    no_takeover_before: Time,
}

impl VoteState {
    /// The vote after a restart.
    pub(super) const fn restore(term: Term, voted_for: Option<MemberId>) -> Self {
        Self {
            term,
            voted_for,
            leader: None,
            leader_heard: Time::ZERO,
            objections: 0,
            no_takeover_before: Time::ZERO,
        }
    }

    pub(super) const fn term(&self) -> Term {
        self.term
    }

    pub(super) const fn voted_for(&self) -> Option<MemberId> {
        self.voted_for
    }

    pub(super) const fn leader(&self) -> Option<MemberId> {
        self.leader
    }

    pub(super) fn is_leader(&self, id: MemberId) -> bool {
        self.leader == Some(id)
    }

    /// The next term, if there is one.
    pub(super) fn next_term(&self) -> Option<Term> {
        (self.term.0 < TERM_MAX).then(|| Term(self.term.0 + 1))
    }

    /// Decides about a candidate's question; changes nothing.
    pub(super) fn verdict(&self, id: MemberId, ask: &Election, hears_leader: bool) -> Verdict {
        // R5: no answer counts in a term that is over. A trial is about a term to come.
        let is_over = if ask.trial { ask.term <= self.term } else { ask.term < self.term };
        if is_over {
            return Verdict::Stale;
        }
        // L1: a leader that is heard is not deposed, except after its own handover (C8).
        if hears_leader && !ask.force {
            return Verdict::HasLeader;
        }
        // A trial binds nobody, so nothing is written for it.
        if ask.trial {
            return Verdict::Trial;
        }
        // R1: a newer term has no promise yet.
        if ask.term > self.term {
            return Verdict::NewTerm;
        }
        match self.voted_for {
            // R1: the same answer again; the first one may have been lost.
            Some(it) if it == id => Verdict::Repeat,
            // A leader of this term has a majority's promises (R2): none is left for a second.
            None if self.leader.is_none() => Verdict::Promise,
            Some(_) | None => Verdict::Promised,
        }
    }

    /// Begins a newer term, in which nobody leads yet.
    pub(super) const fn advance_term(&mut self, term: Term, voted_for: Option<MemberId>) {
        (self.term, self.voted_for) = (term, voted_for);
        self.leader = None;
    }

    /// Gives the promise of the present term, which nobody has.
    pub(super) const fn promise(&mut self, id: MemberId) {
        self.voted_for = Some(id);
    }

    /// Notes that the leader was heard.
    pub(super) const fn hear(&mut self, now: Time) {
        self.leader_heard = now;
    }

    /// Follows a leader, which was heard. Returns true if it is a new one.
    pub(super) fn follow(&mut self, id: MemberId, now: Time) -> bool {
        self.leader_heard = now;
        self.objections = 0;
        self.leader.replace(id) != Some(id)
    }

    /// Leads the present term.
    pub(super) const fn lead(&mut self, me: MemberId) {
        self.leader = Some(me);
        self.objections = 0;
        self.no_takeover_before = Time::ZERO;
    }

    /// Gives the leader up.
    pub(super) const fn lose_leader(&mut self) {
        self.leader = None;
    }

    /// Time after which a leader that stays silent is given up.
    pub(super) fn patience_ends(&self, patience: Duration) -> Time {
        self.leader_heard.after(patience)
    }

    pub(super) fn was_heard(&self, now: Time, patience: Duration) -> bool {
        now.since(self.leader_heard) < patience
    }

    /// Counts the objection of a higher id.
    pub(super) const fn object(&mut self) {
        self.objections += 1;
    }

    /// True if higher ids have objected so often that they must promise like any other (L2).
    pub(super) const fn may_force(&self) -> bool {
        self.objections >= OBJECTIONS_MAX
    }

    pub(super) fn may_ask_for_lead(&self, now: Time) -> bool {
        now >= self.no_takeover_before
    }

    pub(super) const fn pause_takeover(&mut self, until: Time) {
        self.no_takeover_before = until;
    }

    /// Shortens a pause: the leader is only busy.
    pub(super) fn shorten_pause(&mut self, until: Time) {
        self.no_takeover_before = self.no_takeover_before.min(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::chat::entry::SeqNo;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);

    fn ask(term: u64, trial: bool, force: bool) -> Election {
        let (last_term, last_seq) = (Term(1), SeqNo(1));
        Election { sender_id: A, term: Term(term), last_term, last_seq, trial, force }
    }

    #[test]
    fn a_term_has_one_promise_for_good() {
        let mut vote = VoteState::restore(Term(4), None);
        assert_eq!(vote.verdict(A, &ask(3, false, false), false), Verdict::Stale);
        assert_eq!(vote.verdict(A, &ask(4, false, false), false), Verdict::Promise);
        vote.promise(A);
        assert_eq!(vote.verdict(A, &ask(4, false, false), false), Verdict::Repeat);
        assert_eq!(vote.verdict(B, &ask(4, false, true), false), Verdict::Promised, "forced, too");
        assert_eq!(vote.verdict(B, &ask(5, false, false), false), Verdict::NewTerm);
        vote.advance_term(Term(5), Some(B));
        assert_eq!(vote.verdict(A, &ask(5, false, false), false), Verdict::Promised);
    }

    #[test]
    fn a_member_that_knows_the_terms_leader_promises_to_nobody_in_it() {
        let mut vote = VoteState::restore(Term(4), None);
        assert!(vote.follow(A, Time::ZERO) && !vote.follow(A, Time::ZERO));
        assert_eq!(vote.verdict(B, &ask(4, false, false), false), Verdict::Promised);
    }

    #[test]
    fn a_leader_that_is_heard_is_deposed_by_its_own_handover_alone() {
        let vote = VoteState::restore(Term(4), None);
        for trial in [true, false] {
            assert_eq!(vote.verdict(B, &ask(5, trial, false), true), Verdict::HasLeader);
        }
        assert_eq!(vote.verdict(B, &ask(5, false, true), true), Verdict::NewTerm);
        assert_eq!(vote.verdict(B, &ask(3, false, true), true), Verdict::Stale);
    }

    #[test]
    fn a_trial_is_about_a_term_to_come() {
        let vote = VoteState::restore(Term(4), Some(A));
        assert_eq!(vote.verdict(B, &ask(4, true, false), false), Verdict::Stale);
        assert_eq!(vote.verdict(B, &ask(5, true, false), false), Verdict::Trial);
    }

    #[test]
    fn the_third_try_is_forced_until_a_leader_is_heard() {
        let mut vote = VoteState::restore(Term(4), None);
        vote.object();
        assert!(!vote.may_force());
        vote.object();
        assert!(vote.may_force());
        vote.follow(A, Time::ZERO);
        assert!(!vote.may_force());
    }

    #[test]
    fn there_is_no_term_beyond_the_limit() {
        assert_eq!(VoteState::restore(Term(TERM_MAX), None).next_term(), None);
        assert_eq!(VoteState::restore(Term(TERM_MAX - 1), None).next_term(), Some(Term(TERM_MAX)));
    }
}
