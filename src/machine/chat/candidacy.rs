//! State of a candidate: the consents that it has, and what follows from them (R2, R3, L2).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::Time;
use crate::proto::chat::entry::{MemberId, Membership, SeqNo, Term};
use crate::proto::chat::message::Election;

/// Last entry of a log. Of two logs, the one whose last entry is greater is the better (R3).
pub(super) type Last = (Term, SeqNo);

/// Question of a candidate to the members.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    /// Term in which the candidate wants to lead.
    pub(super) term: Term,
    /// True if the members are only asked whether they would promise.
    pub(super) is_pre_vote: bool,
    /// True if a higher id must promise like any other (L2, C8).
    pub(super) force: bool,
}

/// The next step of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More answers must come.
    Wait,
    /// There are enough answers, but a higher id may still object: for a while it is waited for.
    Grace,
    /// The trial has succeeded: the candidate asks for promises.
    Stand,
    /// The candidate has its promises.
    Adopt,
}

/// State of a candidate.
#[derive(Debug)]
pub(super) struct CandidateState {
    question: Question,
    /// Record of its own promise.
    record: u64,
    began: Time,
    enough_at: Option<Time>,
    /// Members that consented, with the last entries of their logs then.
    answers: BTreeMap<MemberId, Last>,
}

impl CandidateState {
    /// A candidate that has its own consent, in `record`.
    pub(super) fn new(
        question: Question,
        me: MemberId,
        last: Last,
        record: u64,
        now: Time,
    ) -> Self {
        let answers = BTreeMap::from([(me, last)]);
        Self { question, record, began: now, enough_at: None, answers }
    }

    pub(super) const fn question(&self) -> Question {
        self.question
    }

    /// Record of the candidate's own promise.
    pub(super) const fn record(&self) -> u64 {
        self.record
    }

    pub(super) fn has_lasted(&self, now: Time, span: Duration) -> bool {
        now.since(self.began) > span
    }

    /// The message that asks for consent.
    pub(super) const fn message(
        &self,
        sender_id: MemberId,
        (last_term, last_seq): Last,
    ) -> Election {
        let Question { term, is_pre_vote: trial, force } = self.question;
        Election { sender_id, term, last_term, last_seq, trial, force }
    }

    pub(super) fn has(&self, id: MemberId) -> bool {
        self.answers.contains_key(&id)
    }

    /// Takes a member's consent, and the last entry of its log.
    pub(super) fn put(&mut self, id: MemberId, last: Last) {
        self.answers.insert(id, last);
    }

    /// Drops a consent that is of no use any more.
    pub(super) fn remove(&mut self, id: MemberId) {
        self.answers.remove(&id);
    }

    /// All members that consented.
    pub(super) fn voters(&self) -> Vec<MemberId> {
        self.answers.keys().copied().collect()
    }

    /// Begins the time in which a higher id may still object.
    pub(super) const fn begin_grace(&mut self, now: Time) {
        self.enough_at = Some(now);
    }

    /// The other member with the best log, if that is better than `own` (R3).
    pub(super) fn best(&self, me: MemberId, own: Last) -> Option<(MemberId, Last)> {
        let others = self.answers.iter().filter(|(id, _)| **id != me);
        let best = others.max_by_key(|(_, log)| **log).map(|(id, log)| (*id, *log));
        best.filter(|(_, log)| *log > own)
    }

    /// Decides what follows from the answers, of which `needed` members' are enough. `may_object`
    /// is true if a higher id in reach has not answered.
    pub(super) fn step(
        &self,
        group: &Membership,
        needed: usize,
        may_object: bool,
        now: Time,
        grace: Duration,
    ) -> Step {
        // R2: by the newest membership, final or not: two majorities of it share a member, and of
        // two memberships that follow each other, too (C7).
        let count = group.members.iter().filter(|it| self.has(it.id)).count();
        if count < needed {
            return Step::Wait;
        }
        // A promise is a promise: nobody objects to it any more.
        if !self.question.is_pre_vote {
            return Step::Adopt;
        }
        // L2: where no higher id in reach is left to answer, or it has objected often enough, the
        // candidate goes on at once.
        if self.question.force || !may_object {
            return Step::Stand;
        }
        match self.enough_at {
            None => Step::Grace,
            Some(at) if now.since(at) < grace => Step::Wait,
            Some(_) => Step::Stand,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::chat::tests::membership;
    use crate::proto::chat::entry::Body;

    const ME: MemberId = MemberId(2);
    const GRACE: Duration = Duration::from_millis(30);

    fn last(term: u64, seq: u64) -> Last {
        (Term(term), SeqNo(seq))
    }

    fn candidacy(is_pre_vote: bool, force: bool) -> CandidateState {
        let question = Question { term: Term(7), is_pre_vote, force };
        CandidateState::new(question, ME, last(2, 5), 0, Time::ZERO)
    }

    fn step(it: &CandidateState, may_object: bool, millis: u64) -> Step {
        let Body::Membership(group) = membership(&[1, 2, 3]) else { panic!("a membership") };
        let now = Time::ZERO.after(Duration::from_millis(millis));
        it.step(&group, 2, may_object, now, GRACE)
    }

    #[test]
    fn only_members_count() {
        let mut it = candidacy(false, false);
        it.put(MemberId(9), last(1, 1));
        assert_eq!(step(&it, false, 0), Step::Wait);
        it.put(MemberId(3), last(1, 1));
        assert_eq!(step(&it, true, 0), Step::Adopt, "nobody objects to promises");
        it.remove(MemberId(3));
        assert_eq!(step(&it, false, 0), Step::Wait);
    }

    #[test]
    fn a_trial_waits_a_while_for_the_objection_of_a_higher_id() {
        let mut it = candidacy(true, false);
        assert_eq!(step(&it, true, 0), Step::Wait);
        it.put(MemberId(1), last(1, 1));
        assert_eq!(step(&it, false, 0), Step::Stand, "nobody is left to object");
        assert_eq!(step(&it, true, 10), Step::Grace);
        it.begin_grace(Time::ZERO.after(Duration::from_millis(10)));
        assert_eq!([step(&it, true, 39), step(&it, true, 40)], [Step::Wait, Step::Stand]);
        let mut forced = candidacy(true, true);
        forced.put(MemberId(1), last(1, 1));
        assert_eq!(step(&forced, true, 0), Step::Stand);
    }

    #[test]
    fn the_best_log_is_that_of_the_newest_term_before_that_of_the_most_entries() {
        let mut it = candidacy(false, false);
        assert_eq!(it.best(ME, last(2, 5)), None);
        it.put(MemberId(1), last(2, 5));
        assert_eq!(it.best(ME, last(2, 5)), None, "an equal log is here already");
        it.put(MemberId(1), last(1, 9));
        assert_eq!(it.best(ME, last(2, 5)), None);
        it.put(MemberId(3), last(3, 1));
        assert_eq!(it.best(ME, last(2, 5)), Some((MemberId(3), last(3, 1))));
    }
}
