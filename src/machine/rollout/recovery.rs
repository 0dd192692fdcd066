//! Recovery of decisions (T4, T5): decisions, questions of nodes in doubt, and missing versions.
//!
//! Invariants: nothing is believed without its proof (T3); a node in doubt ends the doubt by a
//! proof, by the log, or by an operator's decision, and never by itself; a node that has not voted
//! refuses when asked, and so ends the doubt of others; a decision is of the transaction that it
//! names (P6).

use std::collections::BTreeSet;
use std::time::Duration;

use super::config::Decides;
use super::coordinator::commit_message;
use super::course::Course;
use super::event::{Aborted, Answer, Effect, Event, ExtraEffect, Record, Timer};
use super::machine::Rollout;
use super::memory::Absent;
use crate::machine::Ticket;
use crate::model::Time;
use crate::proto::rollout::{
    Cause, Choice, Committed, Decision, DecisionAck, DecisionReq, DecisionResp, Kind, Mark,
    Message, NodeId, Outcome, Proof, Resolution, Roster, STATE_RESP_MAX, StateReq, StateResp,
    Status, TxId, Vote, Word, cut,
};

/// A transaction that this node voted COMMIT on and does not know the end of.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) txid: TxId,
    pub(super) since: Time,
    pause: Duration,
    /// Participants that wait as well.
    pub(super) uncertain: BTreeSet<NodeId>,
}

impl Rollout {
    pub(super) fn begin_doubt(&mut self, txid: TxId, first: Duration) {
        let (since, uncertain) = (self.now.mono, BTreeSet::new());
        let pause = self.config.redial_every / 2;
        self.doubt = Some(Doubt { txid, since, pause, uncertain });
        self.out.at_once(Effect::SetTimer { timer: Timer::Doubt, after: first });
    }

    fn end_doubt(&mut self) {
        if self.doubt.take().is_some() {
            self.out.at_once(Effect::StopTimer(Timer::Doubt));
        }
    }

    /// Asks all voters, reports the doubt, and sets the timer to ask again.
    pub(super) fn on_doubt(&mut self) {
        let Some(prepared) = self.memory.prepared.clone() else { return };
        let waits_for = self.waits_for();
        let Some(doubt) = &mut self.doubt else { return };
        let waited = self.now.mono.since(doubt.since);
        doubt.pause = (doubt.pause * 2).min(self.config.doubt_max);
        let pause = doubt.pause;
        let txid = prepared.txid.clone();
        self.tell(Event::InDoubt { txid: txid.clone(), waited, waits_for });
        let links = self.links_to(&self.voters(&prepared));
        if !links.is_empty() {
            let msg = Message::DecisionReq(DecisionReq { txid: txid.clone() });
            self.out.say(Effect::SendAll { links, msg });
        }
        self.out.at_once(Effect::SetTimer { timer: Timer::Doubt, after: pause });
        self.call_for_help();
        if self.config.decides == Decides::Log {
            // The coordinator has asked already, with all votes; its question may have been lost.
            let is_mine = self.running.as_ref().is_some_and(|it| it.proposal.txid == txid);
            let proof = self.running_proof().filter(|_| is_mine);
            self.out.say(Effect::Extra(ExtraEffect::Decide { txid, commit: is_mine, proof }));
        }
        if self.config.breaks().aborts_in_doubt && waited > Duration::from_secs(6) {
            self.end_prepared(Cause::Late, "waited for too long", Proof::default());
        }
    }

    /// Participants that may end this node's doubt: those that did not say that they wait too.
    pub(super) fn waits_for(&self) -> Vec<NodeId> {
        let Some(prepared) = &self.memory.prepared else { return Vec::new() };
        let uncertain = self.doubt.as_ref().map(|it| &it.uncertain);
        let is_awaited = |node: &NodeId| {
            *node != self.config.me && uncertain.is_none_or(|it| !it.contains(node))
        };
        self.voters(prepared).into_iter().filter(is_awaited).collect()
    }

    pub(super) fn on_decision(&mut self, from: &NodeId, decision: Decision) {
        let Decision { mut txid, kind, mut proposal, proof, reason } = decision;
        if self.config.breaks().decision_unmatched
            && let Some(prepared) = &self.memory.prepared
        {
            txid = prepared.txid.clone();
            proposal = Some(prepared.clone());
        }
        match (kind, proposal) {
            (Choice::Commit, Some(proposal)) if proposal.txid == txid => {
                self.on_proved_commit(from, Committed { proposal, proof });
                if self.memory.committed(&txid).is_some() {
                    self.send_to(from, Message::DecisionAck(DecisionAck { txid }));
                }
            }
            (Choice::Commit, _) => self.drop_from(from, "a COMMIT without its content"),
            (Choice::Abort, _) => self.on_proved_abort(from, &txid, proof, &reason),
        }
    }

    /// Applies a COMMIT if it is proved and is the next version.
    fn on_proved_commit(&mut self, from: &NodeId, committed: Committed) {
        let proposal = &committed.proposal;
        let version = proposal.state.version;
        if self.memory.committed(&proposal.txid).is_some() {
            return;
        }
        let is_lax = self.config.breaks().version_unchecked || self.config.breaks().roster_unagreed;
        let follows = self.follows(proposal);
        if version > self.state.next_version() && !follows && !is_lax {
            let from_version = self.state.version;
            return self.send_to(from, Message::StateReq(StateReq { from_version }));
        }
        let unmatched = self.config.breaks().decision_unmatched;
        if !follows && !is_lax && !unmatched {
            return self.drop_from(from, "a COMMIT of what does not follow");
        }
        // With a log, all votes do not yet mean COMMIT; but a member passes on only what it knows.
        let may_tell = self.config.decides == Decides::Coordinator
            || self.roster.has(from)
            || *from == self.config.me;
        if !may_tell || !self.is_proved(&committed) {
            return self.drop_from(from, "a COMMIT that its votes do not show");
        }
        self.apply(committed);
    }

    /// Applies a transaction that others have committed long after this node's version, having kept
    /// only the skeleton between: all of this node's own roster have voted for it, so it was
    /// committed, whatever came before. Nothing goes on without this node's vote, unless it was
    /// called gone or its log is from a backup: a transaction that it is in doubt about was over
    /// long ago, and it signs nothing about that anymore.
    fn leap(&mut self, from: &NodeId, committed: Committed) {
        let may_tell = self.config.decides == Decides::Coordinator || self.roster.has(from);
        if !may_tell || !self.is_proved(&committed) {
            return self.drop_from(from, "a COMMIT that its votes do not show");
        }
        if let Some(prepared) = &self.memory.prepared {
            let mut unsure = self.memory.unsure.clone().unwrap_or_default();
            let mark = unsure.entry(prepared.txid.node.clone()).or_default();
            *mark = (*mark).max(prepared.txid.mark());
            self.persist(Record::Recalled { unsure });
        }
        self.apply(committed);
    }

    fn is_proved(&self, committed: &Committed) -> bool {
        let Committed { proposal, proof } = committed;
        let breaks = self.config.breaks();
        if breaks.counts_messages {
            return proof.votes.len() >= proposal.participants(&self.roster).len()
                || proof.resolution.is_some();
        }
        breaks.decision_unmatched
            || breaks.roster_unagreed
            || proposal.complaint().is_none()
                && proposal.roster == self.roster_digest
                && proof.shows_commit(proposal, &self.roster)
    }

    fn on_proved_abort(&mut self, from: &NodeId, txid: &TxId, proof: Proof, reason: &str) {
        let participants = match self.memory.prepared.as_ref().filter(|it| it.txid == *txid) {
            Some(prepared) => prepared.participants(&self.roster),
            None => self.roster.nodes().collect(),
        };
        let is_proved = proof.shows_abort(txid, &participants);
        if !is_proved && !self.config.breaks().decision_unmatched {
            return self.drop_from(from, "an ABORT that no vote shows");
        }
        let is_unfenced = self.config.breaks().gone_unfenced;
        let is_settled = self.memory.prepared.as_ref().is_some_and(|it| it.settles_tx(txid));
        if self.memory.prepared.as_ref().is_some_and(|it| it.txid == *txid)
            || is_settled && is_unfenced
        {
            self.end_prepared(Cause::Late, reason, proof);
        } else if self.early.as_ref().is_some_and(|it| it.1.txid == *txid) {
            self.early = None;
        }
        self.probing.take_if(|it| it.1.txid == *txid);
        // A proposal that comes later than its end is not voted for.
        self.memory.mark(txid);
    }

    /// Ends this node's doubt by an ABORT.
    pub(super) fn end_prepared(&mut self, cause: Cause, reason: &str, proof: Proof) {
        let Some(prepared) = self.memory.prepared.clone() else { return };
        let (txid, version) = (prepared.txid.clone(), Some(prepared.state.version));
        let reason = cut(reason.to_owned());
        let aborted = Aborted { txid, version, cause, reason, proof };
        self.end_doubt();
        let voters = self.voters(&prepared);
        self.persist(Record::Aborted(aborted.clone()));
        self.tell(Event::Aborted(aborted.clone()));
        if let Some(settled) = self.memory.prepared.as_ref().map(|it| it.txid.clone()) {
            self.begin_doubt(settled, self.config.redial_every);
        }
        if self.running.as_ref().is_some_and(|it| it.proposal.settles_tx(&prepared.txid)) {
            let reason = format!("{} was aborted meanwhile", prepared.txid);
            self.abort_running(Cause::Version, reason, None);
        }
        if self.running.as_ref().is_some_and(|it| it.proposal.txid == prepared.txid) {
            self.on_running_over(Err(&aborted));
        } else if self.highest_live() == Some(&self.config.me) {
            // The coordinator may be away: the highest live id passes it on (T5).
            self.send_abort(&voters, &aborted, &prepared);
        }
        self.obey_waiting();
    }

    /// Makes a transaction the present one: on disk, then served, then told.
    pub(super) fn apply(&mut self, mut committed: Committed) {
        committed.proposal.state.status = Status::Committed;
        let version = committed.proposal.state.version;
        let was_in_doubt = self.memory.prepared.take_if(|it| it.state.version <= version);
        let voters = self.voters(&committed.proposal);
        let was_removed = self.removed().is_some();
        let settled = committed.proposal.settles().filter(|it| self.memory.is_next(it)).cloned();
        self.persist(Record::Committed(Box::new(committed.clone())));
        if self.memory.prepared.is_none() {
            self.end_doubt();
        }
        if let Some(settled) = &settled {
            if let Some(resolution) = settled.proof.resolution.clone() {
                let txid = settled.proposal.txid.clone();
                let by = committed.proposal.gone.as_ref().map_or(Word::Operator, |it| it.by);
                self.tell(Event::Resolved { txid, by, resolution });
            }
            self.switch_to(settled);
        }
        self.switch_to(&committed);
        let proposal = &committed.proposal;
        if let Some(running) = &self.running {
            if running.proposal.txid == proposal.txid {
                self.on_running_over(Ok(&committed));
            } else {
                let reason = format!("{} was committed meanwhile", proposal.txid);
                self.abort_running(Cause::Version, reason, None);
            }
        }
        let was_asked = was_in_doubt.is_some_and(|it| it.txid == proposal.txid);
        if was_asked && self.highest_live() == Some(&self.config.me) {
            let links = self.links_to(&voters);
            if proposal.txid.node != self.config.me && !links.is_empty() {
                let msg = Message::Decision(Box::new(commit_message(&committed)));
                self.out.say(Effect::SendAll { links, msg });
            }
        }
        if let Some(roster) = committed.proposal.new_roster {
            self.take_roster(roster, was_removed);
        }
        self.end_recall_if_complete();
        self.vote_on_early();
        self.look_for_steps();
        self.obey_waiting();
    }

    fn take_roster(&mut self, roster: Roster, was_removed: bool) {
        self.roster_digest = roster.digest();
        self.roster = roster;
        self.told_of.retain(|it, _| self.roster.has(it) || self.gone.contains_key(it));
        if let Some(Absent { txid, by, .. }) = self.removed().filter(|_| !was_removed).cloned() {
            self.tell(Event::Removed { txid, by });
        }
        self.drop_impostors();
        self.look_for_dead();
        self.call_all();
    }

    /// Serves a committed transaction, and reports it.
    fn switch_to(&mut self, committed: &Committed) {
        let proposal = &committed.proposal;
        if proposal.state.weights != self.state.weights {
            // Figures from before say nothing of the new shares.
            self.health = None;
            self.peers.values_mut().for_each(|it| it.health = None);
        }
        self.state = proposal.state.clone();
        self.state_digest = self.state.digest();
        self.course = Course::after(self.course.take(), proposal);
        self.course_at = self.now.mono;
        (self.held_told, self.missed, self.bad_looks) = (None, 0, 0);
        if proposal.txid.kind == Kind::Resume {
            self.resumed_at = proposal.state.version;
        }
        if proposal.new_roster.is_some() {
            // Whether this node was called gone, or let in again, is served with the version.
            self.gone = self.memory.gone(&self.config.roster);
        }
        self.serve();
        let whole = std::sync::Arc::new(committed.clone());
        self.tell(Event::Committed(whole));
    }

    pub(super) fn on_decision_req(&mut self, from: &NodeId, txid: &TxId) {
        let (outcome, proposal, proof) = self.known(from, txid);
        let txid = txid.clone();
        let resp = DecisionResp { txid, outcome, proposal, proof };
        self.send_to(from, Message::DecisionResp(Box::new(resp)));
    }

    /// Returns what this node knows of a transaction; if it has not voted, it refuses, for good.
    fn known(
        &mut self,
        from: &NodeId,
        txid: &TxId,
    ) -> (Outcome, Option<crate::proto::rollout::Proposal>, Proof) {
        if let Some(committed) = self.memory.committed(txid) {
            let Committed { proposal, proof } = committed.clone();
            return (Outcome::Commit, Some(proposal), proof);
        }
        let aborted = self.memory.aborted.iter().rfind(|it| it.txid == *txid);
        if let Some(aborted) = aborted.filter(|it| it.proof != Proof::default()) {
            return (Outcome::Abort, None, aborted.proof.clone());
        }
        let uncertain = (Outcome::Uncertain, None, Proof::default());
        let is_prepared = self.memory.is_waiting_for(txid);
        let is_running = self.running.as_ref().is_some_and(|it| it.proposal.txid == *txid);
        let is_own = txid.node == self.config.me;
        // A node outside the roster cannot make this node refuse a transaction that it has not
        // seen. Of its own transactions a node tells any node, because a joiner is in no roster
        // yet; but only of those that it has begun: a later one must not be refused, for it may be
        // committed.
        let begun = Mark { epoch: self.memory.epoch, counter: self.counter };
        let may_ask = if is_own { txid.mark() <= begun } else { self.roster.has(from) };
        let has_forgotten = self.memory.is_unsure(txid) || self.is_blank();
        if is_prepared || is_running || has_forgotten || !may_ask {
            return uncertain;
        }
        let was_voted_on = self.memory.is_marked(txid);
        // No record is needed of an own one: its name is used once, and it has not been committed.
        let vote = match is_own {
            true => Vote::abort(&self.keys, &self.config.me, txid),
            false => self.refuse(txid),
        };
        if self.early.as_ref().is_some_and(|it| it.1.txid == *txid) {
            self.early = None;
        }
        let outcome = if was_voted_on { Outcome::Abort } else { Outcome::Refused };
        (outcome, None, Proof::of(vec![vote]))
    }

    pub(super) fn on_decision_resp(&mut self, from: &NodeId, resp: DecisionResp) {
        if self.memory.prepared.as_ref().is_none_or(|it| it.txid != resp.txid) {
            return;
        }
        match (resp.outcome, resp.proposal) {
            (Outcome::Commit, Some(proposal)) if proposal.txid == resp.txid => {
                self.on_proved_commit(from, Committed { proposal, proof: resp.proof });
            }
            (Outcome::Commit, _) => self.drop_from(from, "a COMMIT without its content"),
            (Outcome::Abort | Outcome::Refused, _) => {
                let reason = format!("{from} says so");
                self.on_proved_abort(from, &resp.txid, resp.proof, &reason);
            }
            (Outcome::Uncertain, _) => {
                if let Some(doubt) = &mut self.doubt {
                    doubt.uncertain.insert(from.clone());
                }
                let nobody_knows = self.waits_for().iter().all(|it| !self.peers.contains_key(it));
                let is_highest = self.highest_live() == Some(&self.config.me);
                if self.config.breaks().highest_aborts && nobody_knows && is_highest {
                    let own = Vote::abort(&self.keys, &self.config.me, &resp.txid);
                    self.end_prepared(Cause::Late, "nobody knows", Proof::of(vec![own]));
                }
            }
        }
    }

    pub(super) fn on_state_req(&mut self, from: &NodeId, from_version: u64) {
        let missing = self.memory.after(from_version);
        let committed: Vec<_> = missing.take(STATE_RESP_MAX).cloned().collect();
        if !committed.is_empty() {
            self.send_to(from, Message::StateResp(StateResp { committed }));
        }
    }

    pub(super) fn on_state_resp(&mut self, from: &NodeId, committed: Vec<Committed>) {
        let is_full = committed.len() >= STATE_RESP_MAX;
        let before = self.state.version;
        for it in committed {
            let next = self.state.next_version();
            if it.proposal.state.version == next {
                if it.proposal.base != self.state_digest {
                    return self.on_diverged(from, self.state.version);
                }
                self.on_proved_commit(from, it);
            } else if it.proposal.state.version > next {
                self.leap(from, it);
            }
        }
        if is_full && self.state.version > before {
            let from_version = self.state.version;
            self.send_to(from, Message::StateReq(StateReq { from_version }));
        }
    }

    /// Handles the decision of the log (T10).
    pub(super) fn on_decided(&mut self, txid: &TxId, commit: bool, proof: Option<Box<Committed>>) {
        let is_prepared = self.memory.prepared.as_ref().is_some_and(|it| it.txid == *txid);
        if !commit {
            if is_prepared {
                // It can never be committed now, so an ABORT vote is true, and proves it to others.
                let own = Vote::abort(&self.keys, &self.config.me, txid);
                self.end_prepared(Cause::Resolved, "the log says so", Proof::of(vec![own]));
            } else if self.running.as_ref().is_some_and(|it| it.proposal.txid == *txid) {
                self.abort_running(Cause::Resolved, "the log says so".to_owned(), None);
            } else if self.memory.committed(txid).is_none() {
                self.memory.mark(txid);
            }
            return;
        }
        if let Some(committed) = proof {
            let me = self.config.me.clone();
            if committed.proposal.state.version == self.state.next_version() {
                self.on_proved_commit(&me, *committed);
            }
        }
    }

    /// Ends this node's doubt by an operator's decision (T10), which others may learn.
    pub(super) fn resolve(&mut self, ticket: Ticket, txid: &TxId, commit: bool) {
        let Some(prepared) = self.memory.prepared.clone().filter(|it| it.txid == *txid) else {
            let reason = format!("this node is not in doubt about {txid}");
            let (cause, running) = (Cause::Nothing, None);
            return self.out.say(Effect::Extra(ExtraEffect::Answer(
                ticket,
                Answer::Refused { cause, reason, running },
            )));
        };
        let kind = if commit { Choice::Commit } else { Choice::Abort };
        let resolution = Resolution::new(&self.keys, &self.config.me, txid, kind, self.now.wall);
        self.tell(Event::Resolved {
            txid: txid.clone(),
            by: Word::Operator,
            resolution: resolution.clone(),
        });
        let proof = Proof { votes: Vec::new(), resolution: Some(resolution) };
        let (txid, version) = (txid.clone(), prepared.state.version);
        let answer = if commit {
            self.apply(Committed { proposal: prepared, proof });
            Answer::Committed { txid, version }
        } else {
            let reason = format!("resolved by an operator at {}", self.config.me);
            self.end_prepared(Cause::Resolved, &reason, proof);
            Answer::Aborted { txid, cause: Cause::Resolved, reason }
        };
        self.out.say(Effect::Extra(ExtraEffect::Answer(ticket, answer)));
    }
}
