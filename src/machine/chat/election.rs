//! Elections: a fenced Bully. The highest id that reaches a majority stands first; a candidate asks
//! without writing anything, then for promises that are on disk (R1, R2).

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;

use super::config::Rule;
use super::event::{Event, Fx, Record, Timer};
use super::group::{Duty, Group};
use crate::machine::LinkId;
use crate::machine::quorum::majority;
use crate::model::Time;
use crate::proto::chat::entry::{MemberId, Membership, SeqNo, Term};
use crate::proto::chat::message::{Consent, Election, ElectionOk, Message, NackCode};

/// Number of objections of higher ids without a leader after which a candidate goes on all
/// the same (L2).
const OBJECTIONS_MAX: u32 = 2;

/// State of a candidate.
#[derive(Debug)]
pub(super) struct Candidacy {
    is_trial: bool,
    force: bool,
    term: Term,
    /// Record of its own promise.
    record: u64,
    began: Time,
    enough_at: Option<Time>,
    /// Members that consented, with the last entries of their logs then.
    pub(super) answers: BTreeMap<MemberId, (Term, SeqNo)>,
}

impl Candidacy {
    fn count(&self, group: &Membership) -> usize {
        group.members.iter().filter(|it| self.answers.contains_key(&it.id)).count()
    }
}

impl Group {
    /// Delay in which the members above stand first.
    pub(super) fn stagger(&self, unit: Duration) -> Duration {
        let is_above = |id: MemberId| id > self.me.id && self.has_member(id);
        let rank = self.links.members().filter(|(id, ..)| is_above(*id)).count();
        unit * u32::try_from(rank.min(64)).unwrap_or(64)
    }

    /// True if this member leads, or hears the leader (L1).
    pub(super) fn hears_leader(&self) -> bool {
        if matches!(self.duty, Duty::Lead(_)) {
            return true;
        }
        let is_linked = self.leader.is_some_and(|id| self.links.of_member(id).is_some());
        is_linked && self.now.mono.since(self.leader_heard) < self.config.leader_timeout
    }

    pub(super) fn on_leader_lost(&mut self, fx: &mut Fx) {
        self.leader = None;
        fx.set_timer(Timer::Election, self.stagger(self.config.rank_broken));
    }

    pub(super) fn on_election_timer(&mut self, fx: &mut Fx) {
        match &self.duty {
            Duty::Lead(_) => {}
            Duty::Stand(it) | Duty::Adopt(it, _) => {
                let is_over = self.now.mono.since(it.began) > self.config.leader_timeout;
                if is_over {
                    self.give_up(fx);
                    return;
                }
                fx.set_timer(Timer::Election, self.config.ask_again);
                self.ask_for_promises(fx);
                self.count_promises(fx);
            }
            Duty::Follow => self.on_silence(fx),
        }
    }

    fn on_silence(&mut self, fx: &mut Fx) {
        if self.hears_leader() {
            let left = self.leader_heard.after(self.config.leader_timeout).since(self.now.mono);
            let wait = left + self.stagger(self.config.rank_silent);
            fx.set_timer(Timer::Election, wait);
            return;
        }
        let reason = match self.leader {
            Some(_) => "the leader was silent for too long",
            None => "nobody leads",
        };
        self.leader = None;
        let can_stand = self.reaches_majority() || !self.config.keeps(Rule::Quorum);
        if !self.is_member() || !can_stand || self.was_refused {
            if self.is_member() {
                self.tell_quorum(false, fx);
                self.refuse_clients(fx);
            }
            fx.set_timer(Timer::Election, self.config.ask_again * 5);
            return;
        }
        self.stand(self.objections >= OBJECTIONS_MAX, true, reason, fx);
    }

    /// Stands as a candidate: with `is_trial` the members are only asked whether
    /// they would promise.
    pub(super) fn stand(&mut self, force: bool, is_trial: bool, reason: &'static str, fx: &mut Fx) {
        let Some(term) = self.next_term() else {
            self.drop_it("a term beyond the limit", fx);
            return;
        };
        fx.emit(Event::ElectionBegun { term, reason: reason.into() });
        if !is_trial {
            self.enter(term, Some(self.me.id), fx);
        }
        let last = self.log.last();
        self.duty = Duty::Stand(Candidacy {
            is_trial,
            force,
            term,
            record: self.disk.issued(),
            began: self.now.mono,
            enough_at: None,
            answers: BTreeMap::from([(self.me.id, (last.term, last.seq))]),
        });
        fx.set_timer(Timer::Election, self.config.ask_again);
        self.ask_for_promises(fx);
        self.count_promises(fx);
    }

    /// Asks all members in reach that have not answered.
    pub(super) fn ask_for_promises(&mut self, fx: &mut Fx) {
        let (Duty::Stand(it) | Duty::Adopt(it, _)) = &self.duty else { return };
        let last = self.log.last();
        let ask = Election {
            sender_id: self.me.id,
            term: it.term,
            last_term: last.term,
            last_seq: last.seq,
            trial: it.is_trial,
            force: it.force,
        };
        let is_asked = |id: MemberId| self.has_member(id) && !it.answers.contains_key(&id);
        let links = self.links.members().filter(|(id, ..)| is_asked(*id));
        let links: Vec<_> = links.map(|(_, link, _)| link).collect();
        if !links.is_empty() {
            fx.send_all(links, Message::Election(ask));
        }
    }

    pub(super) fn give_up(&mut self, fx: &mut Fx) {
        self.step_down(fx);
        self.tell_quorum(false, fx);
        self.refuse_clients(fx);
        let jitter = Duration::from_millis(self.rng.random_range(0..=100));
        let wait = self.config.ask_again * 3 + self.stagger(self.config.rank_silent) + jitter;
        fx.set_timer(Timer::Election, wait);
    }

    pub(super) fn on_election(&mut self, id: MemberId, link: LinkId, ask: Election, fx: &mut Fx) {
        let is_over = if ask.trial { ask.term <= self.term } else { ask.term < self.term };
        if is_over {
            self.refuse(link, NackCode::Stale, "that term is over", fx);
            return;
        }
        // An asked member counts for the candidate, even if it does not know yet that it
        // is a member.
        if self.was_refused {
            return;
        }
        if self.hears_leader() && !ask.force {
            // The candidate should follow the leader, too (L1); perhaps it does not
            // know its address.
            if let Some(group) = self.introduction() {
                self.send(link, Message::JoinAck(group), fx);
            }
            return;
        }
        if ask.trial {
            self.on_trial(id, link, ask, fx);
            return;
        }
        if ask.term > self.term {
            self.enter(ask.term, Some(id), fx);
        } else if self.promised_to.is_none() && self.leader.is_none() {
            self.promised_to = Some(id);
            if self.config.keeps(Rule::Promise) {
                self.persist(Record::Term { term: self.term, promised_to: Some(id) }, fx);
            }
        } else if self.promised_to != Some(id) {
            return;
        }
        let ok = Message::ElectionOk(self.election_ok(ask.term, Consent::Promise));
        let record = self.disk.issued();
        let needs_disk = self.config.keeps(Rule::Promise) && self.config.keeps(Rule::Disk);
        if self.disk.has(record) || !needs_disk {
            self.send(link, ok, fx);
        } else {
            self.disk.hold(record, link, ok);
        }
    }

    fn on_trial(&mut self, id: MemberId, link: LinkId, ask: Election, fx: &mut Fx) {
        let objects = self.me.id > id && !ask.force && self.reaches_majority() && !self.is_leaving;
        let kind = if objects { Consent::Takeover } else { Consent::Would };
        self.send(link, Message::ElectionOk(self.election_ok(ask.term, kind)), fx);
        if objects && matches!(self.duty, Duty::Follow) {
            self.leader = None;
            fx.set_timer(Timer::Election, Duration::ZERO);
        }
    }

    fn election_ok(&self, term: Term, kind: Consent) -> ElectionOk {
        let last = self.log.last();
        ElectionOk {
            sender_id: self.me.id,
            term,
            kind,
            last_term: last.term,
            last_seq: last.seq,
            commit: self.log.commit(),
        }
    }

    pub(super) fn on_election_ok(&mut self, id: MemberId, ok: ElectionOk, fx: &mut Fx) {
        let (Duty::Stand(it) | Duty::Adopt(it, _)) = &mut self.duty else { return };
        if ok.term != it.term {
            return;
        }
        match ok.kind {
            Consent::Takeover if it.is_trial && !it.force && id > self.me.id => {
                self.objections += 1;
                self.step_down(fx);
                let jitter = Duration::from_millis(self.rng.random_range(0..=50));
                fx.set_timer(Timer::Election, self.config.ask_again * 5 + jitter);
            }
            Consent::Would if it.is_trial => {
                it.answers.insert(id, (ok.last_term, ok.last_seq));
                self.count_promises(fx);
            }
            Consent::Promise if !it.is_trial => {
                it.answers.insert(id, (ok.last_term, ok.last_seq));
                self.count_promises(fx);
            }
            Consent::Takeover | Consent::Would | Consent::Promise => {}
        }
    }

    /// Goes on if enough members have consented.
    pub(super) fn count_promises(&mut self, fx: &mut Fx) {
        let Duty::Stand(it) = &self.duty else { return };
        let group = self.log.membership();
        let needed =
            if self.config.keeps(Rule::Quorum) { majority(group.members.len()) } else { 1 };
        if it.count(group) < needed {
            return;
        }
        let needs_disk = self.config.keeps(Rule::Promise) && self.config.keeps(Rule::Disk);
        if !it.is_trial {
            if self.disk.has(it.record) || !needs_disk {
                self.adopt_best(fx);
            }
            return;
        }
        let may_object = |id: MemberId| id > self.me.id && group.members.iter().any(|m| m.id == id);
        let is_asked = |id: MemberId| may_object(id) && !it.answers.contains_key(&id);
        let is_open = !it.force && self.links.members().any(|(id, ..)| is_asked(id));
        let now = self.now.mono;
        let waited = it.enough_at.map(|at| now.since(at));
        if is_open && waited.is_none_or(|it| it < self.config.grace) {
            if waited.is_none() {
                self.begin_grace(fx);
            }
            return;
        }
        let force = it.force;
        self.stand(force, false, super::event::TRIAL_SUCCEEDED, fx);
    }

    fn begin_grace(&mut self, fx: &mut Fx) {
        if let Duty::Stand(it) = &mut self.duty {
            it.enough_at = Some(self.now.mono);
            fx.set_timer(Timer::Election, self.config.grace);
        }
    }
}
