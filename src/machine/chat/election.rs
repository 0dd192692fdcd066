//! Elections: a fenced Bully. The highest id that reaches a majority stands first; a candidate asks
//! without writing anything, then for promises that are on disk (R1, R2).

use std::time::Duration;

use super::candidacy::{CandidateState, Question, Step};
use super::config::Rule;
use super::duty::RoleState;
use super::event::{Event, Timer};
use super::replica::{Fx, Replica};
use super::vote::Verdict;
use crate::machine::LinkId;
use crate::machine::quorum::majority;
use crate::proto::chat::entry::{MemberId, Term};
use crate::proto::chat::message::{Consent, Election, ElectionOk, Message, NackCode};

impl Replica {
    /// Delay in which the members above stand first (L3).
    pub(super) fn stagger(&self, unit: Duration) -> Duration {
        let is_above = |id: MemberId| id > self.process.id() && self.has_member(id);
        let rank = self.links.members().filter(|(id, ..)| is_above(*id)).count();
        unit * u32::try_from(rank.min(64)).unwrap_or(64)
    }

    /// True if this member leads, or hears the leader (L1).
    pub(super) fn hears_leader(&self) -> bool {
        if self.role_state.leads() {
            return true;
        }
        let is_linked = self.vote.leader().is_some_and(|id| self.links.is_linked(id));
        is_linked && self.vote.was_heard(self.process.now(), self.config.leader_timeout)
    }

    pub(super) fn on_leader_lost(&mut self, fx: &mut Fx) {
        self.vote.lose_leader();
        fx.set_timer(Timer::Election, self.stagger(self.config.rank_broken));
    }

    pub(super) fn on_election_timer(&mut self, fx: &mut Fx) {
        match &self.role_state {
            RoleState::Lead(_) => {}
            RoleState::Stand(it) | RoleState::Adopt(it, _) => {
                if it.has_lasted(self.process.now(), self.config.leader_timeout) {
                    self.give_up(fx);
                    return;
                }
                fx.set_timer(Timer::Election, self.config.ask_again);
                self.request_votes(fx);
                self.count_promises(fx);
            }
            RoleState::Follow => self.on_silence(fx),
        }
    }

    fn on_silence(&mut self, fx: &mut Fx) {
        // L1: the leader was heard meanwhile.
        if self.hears_leader() {
            let end = self.vote.patience_ends(self.config.leader_timeout);
            let wait = end.since(self.process.now()) + self.stagger(self.config.rank_silent);
            fx.set_timer(Timer::Election, wait);
            return;
        }
        let reason = match self.vote.leader() {
            Some(_) => "the leader was silent for too long",
            None => "nobody leads",
        };
        self.vote.lose_leader();
        // R2: without a majority in reach no candidate can win (C6).
        let can_stand = self.reaches_majority() || !self.config.keeps(Rule::Quorum);
        if !self.is_member() || !can_stand || self.process.was_refused() {
            if self.is_member() {
                self.report_quorum(false, fx);
                self.refuse_clients(fx);
            }
            fx.set_timer(Timer::Election, self.config.ask_again * 5);
            return;
        }
        self.start_election(self.vote.may_force(), true, reason, fx);
    }

    /// Stands as a candidate: with `is_pre_vote` the members are only asked whether
    /// they would promise.
    pub(super) fn start_election(
        &mut self,
        force: bool,
        is_pre_vote: bool,
        reason: &'static str,
        fx: &mut Fx,
    ) {
        let Some(term) = self.vote.next_term() else {
            self.drop_it("a term beyond the limit", fx);
            return;
        };
        fx.emit(Event::ElectionBegun { term, reason: reason.into() });
        let me = self.process.id();
        // R1: the candidate's own promise is one like any other. A trial begins no term.
        if !is_pre_vote {
            self.advance_term(term, Some(me), fx);
        }
        let question = Question { term, is_pre_vote, force };
        let (last, now) = (self.log.last().place(), self.process.now());
        self.role_state =
            RoleState::Stand(CandidateState::new(question, me, last, self.disk.issued(), now));
        fx.set_timer(Timer::Election, self.config.ask_again);
        self.request_votes(fx);
        self.count_promises(fx);
    }

    /// Asks all members in reach that have not answered.
    pub(super) fn request_votes(&mut self, fx: &mut Fx) {
        let Some(it) = self.role_state.candidacy() else { return };
        let ask = it.message(self.process.id(), self.log.last().place());
        let is_asked = |id: MemberId| self.has_member(id) && !it.has(id);
        let links = self.links.members().filter(|(id, ..)| is_asked(*id));
        let links: Vec<_> = links.map(|(_, link, _)| link).collect();
        if !links.is_empty() {
            fx.send_all(links, Message::Election(ask));
        }
    }

    pub(super) fn give_up(&mut self, fx: &mut Fx) {
        self.step_down(fx);
        self.report_quorum(false, fx);
        self.refuse_clients(fx);
        let jitter = self.process.jitter(100);
        let wait = self.config.ask_again * 3 + self.stagger(self.config.rank_silent) + jitter;
        fx.set_timer(Timer::Election, wait);
    }

    pub(super) fn on_election(&mut self, id: MemberId, link: LinkId, ask: Election, fx: &mut Fx) {
        let verdict = self.vote.verdict(id, &ask, self.hears_leader());
        // R5: the refusal tells the candidate the newer term.
        if verdict == Verdict::Stale {
            self.refuse(link, NackCode::Stale, "that term is over", fx);
            return;
        }
        // A member that the group refuses takes no part: another process may be the member (R12),
        // or its log lacks what it has acknowledged (R13). Any other asked member counts for the
        // candidate, even if it does not know yet that it is a member.
        if self.process.was_refused() {
            return;
        }
        match verdict {
            Verdict::Stale | Verdict::Promised => return,
            // L1: the candidate should follow the leader, too; perhaps it does not know its
            // address.
            Verdict::HasLeader => {
                if let Some(group) = self.introduction() {
                    self.send(link, Message::JoinAck(group), fx);
                }
                return;
            }
            Verdict::Trial => {
                self.on_trial(id, link, ask, fx);
                return;
            }
            // R5: a newer term ends this member's own part in the old one. R1: the promise is
            // written with it, as one record.
            Verdict::NewTerm => self.advance_term(ask.term, Some(id), fx),
            // R1: this member came into the term by another's message, and has promised nothing.
            Verdict::Promise => {
                self.vote.promise(id);
                if self.config.keeps(Rule::Promise) {
                    self.keep_vote(fx);
                }
            }
            Verdict::Repeat => {}
        }
        // R1: the answer leaves only when the promise is on disk. All records up to now are waited
        // for, so the last entry that the answer tells is there, too (R3, R7).
        let ok = Message::ElectionOk(self.election_ok(ask.term, Consent::Promise));
        let record = self.disk.issued();
        if self.is_kept(record) {
            self.send(link, ok, fx);
        } else {
            self.disk.hold(record, link, ok);
        }
    }

    /// True if a promise in this record may be told (R1).
    fn is_kept(&self, record: u64) -> bool {
        let needs_disk = self.config.keeps(Rule::Promise) && self.config.keeps(Rule::Disk);
        self.disk.has(record) || !needs_disk
    }

    fn on_trial(&mut self, id: MemberId, link: LinkId, ask: Election, fx: &mut Fx) {
        // L2: a higher id that could win stands itself.
        let is_higher = self.process.id() > id;
        let can_win = self.reaches_majority() && !self.process.is_leaving();
        let objects = is_higher && !ask.force && can_win;
        let kind = if objects { Consent::Takeover } else { Consent::Would };
        self.send(link, Message::ElectionOk(self.election_ok(ask.term, kind)), fx);
        if objects && self.role_state.follows() {
            self.vote.lose_leader();
            fx.set_timer(Timer::Election, Duration::ZERO);
        }
    }

    fn election_ok(&self, term: Term, kind: Consent) -> ElectionOk {
        let last = self.log.last();
        ElectionOk {
            sender_id: self.process.id(),
            term,
            kind,
            last_term: last.term,
            last_seq: last.seq,
            commit: self.log.commit(),
        }
    }

    pub(super) fn on_election_ok(&mut self, id: MemberId, ok: ElectionOk, fx: &mut Fx) {
        let Some(it) = self.role_state.candidacy_mut() else { return };
        let Question { term, is_pre_vote, force } = it.question();
        // R5: an answer counts in the term that it is about.
        if ok.term != term {
            return;
        }
        match ok.kind {
            // L2: the higher id is let go first.
            Consent::Takeover if is_pre_vote && !force && id > self.process.id() => {
                self.vote.object();
                self.step_down(fx);
                let jitter = self.process.jitter(50);
                fx.set_timer(Timer::Election, self.config.ask_again * 5 + jitter);
            }
            // R1: a consent to a trial is no promise, and the other way round.
            Consent::Would if is_pre_vote => {
                it.put(id, (ok.last_term, ok.last_seq));
                self.count_promises(fx);
            }
            Consent::Promise if !is_pre_vote => {
                it.put(id, (ok.last_term, ok.last_seq));
                self.count_promises(fx);
            }
            Consent::Takeover | Consent::Would | Consent::Promise => {}
        }
    }

    /// Goes on if enough members have consented.
    pub(super) fn count_promises(&mut self, fx: &mut Fx) {
        let RoleState::Stand(it) = &self.role_state else { return };
        let (group, now) = (self.log.membership(), self.process.now());
        // R2: two majorities share a member, which promises once a term (R1): so one leader a term.
        let needed =
            if self.config.keeps(Rule::Quorum) { majority(group.members.len()) } else { 1 };
        let is_above = |id: MemberId| id > self.process.id() && self.has_member(id);
        let may_object = self.links.members().any(|(id, ..)| is_above(id) && !it.has(id));
        let (record, force) = (it.record(), it.question().force);
        match it.step(group, needed, may_object, now, self.config.grace) {
            Step::Wait => {}
            Step::Grace => {
                if let Some(it) = self.role_state.candidacy_mut() {
                    it.begin_grace(now);
                }
                fx.set_timer(Timer::Election, self.config.grace);
            }
            Step::Stand => self.start_election(force, false, super::event::TRIAL_SUCCEEDED, fx),
            // R1: the candidate's own promise counts only when it is on disk, too.
            Step::Adopt if self.is_kept(record) => self.recover_log(fx),
            Step::Adopt => {}
        }
    }
}
