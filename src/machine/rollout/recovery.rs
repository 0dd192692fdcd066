//! Recovery of decisions (T4, T5): decisions, questions of nodes in doubt, and missing versions.
//!
//! Invariants: nothing is believed without its proof (T3); a node in doubt ends the doubt by a
//! proof, by the log, or by an operator's decision, and never by itself; a node that has not voted
//! refuses when asked, and so ends the doubt of others; a decision is of the transaction that it
//! names (P6).

use std::time::Duration;

use super::config::DecisionAuthority;
use super::coordinator::commit_message;
use super::event::{Aborted, CommandId, CommandResult, Event, ExtraEffect, Record, Timer};
use super::machine::{Effect, RolloutMachine};
use super::memory::AbsentNode;
use super::recalled::raise;
use crate::proto::rollout::{
    AbortCause, Choice, Committed, Decision, DecisionAck, DecisionReq, DecisionResp, Message,
    NodeId, RemovalAuthority, Resolution, Roster, RoutingStatus, STATE_RESP_MAX, StateReq,
    StateResp, TxEnd, TxId, TxMark, TxProof, TxVote, cut,
};

impl RolloutMachine {
    pub(super) fn begin_doubt(&mut self, txid: TxId, first: Duration) {
        self.proposals.begin_doubt(txid, self.now.mono, self.config.redial_every / 2);
        self.out.push_now(Effect::SetTimer { timer: Timer::Doubt, after: first });
    }

    fn end_doubt(&mut self) {
        if self.proposals.end_doubt() {
            self.out.push_now(Effect::StopTimer(Timer::Doubt));
        }
    }

    /// Asks all voters, reports the doubt, and sets the timer to ask again.
    pub(super) fn on_doubt(&mut self) {
        let Some(prepared) = self.memory.prepared().cloned() else { return };
        let waits_for = self.waits_for();
        let Some(in_doubt) = self.proposals.doubt_mut() else { return };
        let waited = self.now.mono.since(in_doubt.since());
        let pause = in_doubt.next_pause(self.config.doubt_max);
        let txid = prepared.txid.clone();
        self.report(Event::InDoubt { txid: txid.clone(), waited, waits_for });
        let links = self.links_to(&self.voters(&prepared));
        if !links.is_empty() {
            let msg = Message::DecisionReq(DecisionReq { txid: txid.clone() });
            self.out.push_after_sync(Effect::SendAll { links, msg });
        }
        self.out.push_now(Effect::SetTimer { timer: Timer::Doubt, after: pause });
        self.call_for_help();
        if self.config.decides.is_log() {
            // The coordinator has asked already, with all votes; its question may have been lost.
            let is_mine = self.coordinator.runs(&txid);
            let proof = self.coordinator.proof().filter(|_| is_mine);
            self.out.push_after_sync(Effect::Extra(ExtraEffect::Decide {
                txid,
                commit: is_mine,
                proof,
            }));
        }
        if self.config.breaks().aborts_in_doubt && waited > Duration::from_secs(6) {
            self.end_prepared(AbortCause::Late, "waited for too long", TxProof::default());
        }
    }

    /// Participants that may end this node's doubt: those that did not say that they wait too.
    pub(super) fn waits_for(&self) -> Vec<NodeId> {
        let Some(prepared) = self.memory.prepared() else { return Vec::new() };
        let in_doubt = self.proposals.in_doubt();
        let is_awaited = |node: &NodeId| {
            *node != self.config.me && in_doubt.is_none_or(|it| !it.is_uncertain(node))
        };
        self.voters(prepared).into_iter().filter(is_awaited).collect()
    }

    pub(super) fn on_decision(&mut self, from: &NodeId, decision: Decision) {
        let Decision { mut txid, kind, mut proposal, proof, reason } = decision;
        if self.config.breaks().decision_unmatched
            && let Some(prepared) = self.memory.prepared()
        {
            txid = prepared.txid.clone();
            proposal = Some(prepared.clone());
        }
        match (kind, proposal) {
            // P6: the votes are on the content that comes with them, so it must be of that name.
            (Choice::Commit, Some(proposal)) if proposal.txid == txid => {
                self.on_proved_commit(from, Committed { proposal, proof });
                // T3: the acknowledgement leaves when the commit is on disk here.
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
        // A repeat, by another way or because an acknowledgement was lost.
        if self.memory.committed(&proposal.txid).is_some() {
            return;
        }
        let is_lax = self.config.breaks().version_unchecked || self.config.breaks().roster_unagreed;
        let follows = self.follows(proposal);
        // T7: versions between are fetched first, each with its proof; they may change the roster
        // by which this proof is judged.
        if version > self.present.state().next_version() && !follows && !is_lax {
            let from_version = self.present.version();
            return self.send_to(from, Message::StateReq(StateReq { from_version }));
        }
        // T1: on top of another state it would be another content of this version.
        let unmatched = self.config.breaks().decision_unmatched;
        if !follows && !is_lax && !unmatched {
            return self.drop_from(from, "a COMMIT of what does not follow");
        }
        // T10: with a log, all votes do not yet mean COMMIT; but a member passes on only what it
        // knows.
        let may_tell = self.config.decides == DecisionAuthority::Coordinator
            || self.present.roster().has(from)
            || *from == self.config.me;
        // T3: every participant has voted COMMIT, so none can have shown an ABORT (P2), and the
        // coordinator has decided (P3).
        if !may_tell || !self.is_proved(&committed) {
            return self.drop_from(from, "a COMMIT that its votes do not show");
        }
        // T10: who shows it may show another end to others; the order has one.
        if self.config.decides == DecisionAuthority::Order && *from != self.config.me {
            let txid = committed.proposal.txid.clone();
            return self.ask_log(txid, Some(Box::new(committed)));
        }
        self.apply(committed);
    }

    /// Asks the log for an end: COMMIT with its proof, or ABORT.
    fn ask_log(&mut self, txid: TxId, proof: Option<Box<Committed>>) {
        let commit = proof.is_some();
        self.out.push_after_sync(Effect::Extra(ExtraEffect::Decide { txid, commit, proof }));
    }

    /// Applies a transaction that others have committed long after this node's version, having kept
    /// only the skeleton between: all of this node's own roster have voted for it, so it was
    /// committed, whatever came before. Nothing goes on without this node's vote, unless it was
    /// called gone or its log is from a backup: a transaction that it is in doubt about was over
    /// long ago, and it signs nothing about that anymore.
    fn leap(&mut self, from: &NodeId, committed: Committed) {
        if self.config.decides == DecisionAuthority::Order {
            // T10: the versions between are in the order, each with its end.
            return;
        }
        let may_tell = self.config.decides == DecisionAuthority::Coordinator
            || self.present.roster().has(from);
        if !may_tell || !self.is_proved(&committed) {
            return self.drop_from(from, "a COMMIT that its votes do not show");
        }
        if let Some(prepared) = self.memory.prepared() {
            let mut unsure = self.memory.unsure().cloned().unwrap_or_default();
            raise(&mut unsure, prepared.txid.node.clone(), prepared.txid.mark());
            self.persist(Record::Recalled { unsure });
        }
        self.apply(committed);
    }

    fn is_proved(&self, committed: &Committed) -> bool {
        let Committed { proposal, proof } = committed;
        let breaks = self.config.breaks();
        if self.config.decides == DecisionAuthority::Order && proof.resolution.is_some() {
            // T10: one member's word is no proof where members may lie.
            return false;
        }
        if breaks.counts_messages {
            return proof.votes.len() >= proposal.participants(self.present.roster()).len()
                || proof.resolution.is_some();
        }
        breaks.decision_unmatched
            || breaks.roster_unagreed
            || proposal.complaint().is_none()
                && proposal.roster == self.present.roster_digest()
                && proof.shows_commit(proposal, self.present.roster())
    }

    fn on_proved_abort(&mut self, from: &NodeId, txid: &TxId, proof: TxProof, reason: &str) {
        let participants = match self.memory.prepared().filter(|it| it.txid == *txid) {
            Some(prepared) => prepared.participants(self.present.roster()),
            None => self.present.roster().nodes().collect(),
        };
        // P4: one participant that said no never says yes, so there can be no COMMIT.
        let is_proved = proof.shows_abort(txid, &participants);
        if !is_proved && !self.config.breaks().decision_unmatched {
            return self.drop_from(from, "an ABORT that no vote shows");
        }
        let is_prepared = self.memory.prepared().is_some_and(|it| it.txid == *txid);
        if self.config.decides == DecisionAuthority::Order && is_prepared {
            // T10: who signed ABORT may have signed COMMIT too; the order has one end.
            return self.ask_log(txid.clone(), None);
        }
        // T12: a node that voted to settle a transaction hears no ABORT of it before the removal
        // came to nothing.
        let is_unfenced = self.config.breaks().gone_unfenced;
        let is_settled = self.memory.prepared().is_some_and(|it| it.settles_tx(txid));
        if is_prepared || is_settled && is_unfenced {
            self.end_prepared(AbortCause::Late, reason, proof);
        } else {
            self.proposals.drop_early(txid);
        }
        self.proposals.drop_probed(txid);
        // P2: a proposal that comes later than its end is not voted for.
        self.memory.mark(txid);
    }

    /// Ends this node's doubt by an ABORT.
    pub(super) fn end_prepared(&mut self, cause: AbortCause, reason: &str, proof: TxProof) {
        let Some(prepared) = self.memory.prepared().cloned() else { return };
        let (txid, version) = (prepared.txid.clone(), Some(prepared.state.version));
        let reason = cut(reason.to_owned());
        let aborted = Aborted { txid, version, cause, reason, proof };
        self.end_doubt();
        let voters = self.voters(&prepared);
        self.persist(Record::Aborted(aborted.clone()));
        self.report(Event::Aborted(aborted.clone()));
        if let Some(settled) = self.memory.prepared().map(|it| it.txid.clone()) {
            self.begin_doubt(settled, self.config.redial_every);
        }
        if self.coordinator.running().is_some_and(|it| it.proposal().settles_tx(&prepared.txid)) {
            let reason = format!("{} was aborted meanwhile", prepared.txid);
            self.abort_running(AbortCause::Version, reason, None);
        }
        if self.coordinator.runs(&prepared.txid) {
            self.on_running_over(Err(&aborted));
        } else if self.highest_live() == Some(&self.config.me) {
            // The coordinator may be away: the highest live id passes it on (T5).
            self.send_abort(&voters, &aborted, &prepared);
        }
        self.obey_waiting();
    }

    /// Makes a transaction the present one: on disk, then served, then told.
    pub(super) fn apply(&mut self, mut committed: Committed) {
        committed.proposal.state.status = RoutingStatus::Committed;
        let version = committed.proposal.state.version;
        let was_in_doubt = self.memory.take_ended(version);
        let voters = self.voters(&committed.proposal);
        let was_removed = self.removed().is_some();
        let settled = committed.proposal.settles().filter(|it| self.memory.is_next(it)).cloned();
        // One record for both, so that no crash comes between them; what follows leaves when it is
        // on disk (T3).
        self.persist(Record::Committed(Box::new(committed.clone())));
        if self.memory.prepared().is_none() {
            self.end_doubt();
        }
        if let Some(settled) = &settled {
            if let Some(resolution) = settled.proof.resolution.clone() {
                let txid = settled.proposal.txid.clone();
                let by =
                    committed.proposal.gone.as_ref().map_or(RemovalAuthority::Operator, |it| it.by);
                self.report(Event::Resolved { txid, by, resolution });
            }
            self.switch_to(settled);
        }
        self.switch_to(&committed);
        let proposal = &committed.proposal;
        if let Some(running) = self.coordinator.running() {
            // T1: this node's own transaction is this one, or it was on top of the state before,
            // and cannot be committed any more.
            if *running.txid() == proposal.txid {
                self.on_running_over(Ok(&committed));
            } else {
                let reason = format!("{} was committed meanwhile", proposal.txid);
                self.abort_running(AbortCause::Version, reason, None);
            }
        }
        // T5: the coordinator may be away; the highest live id passes its decision on.
        let was_asked = was_in_doubt.is_some_and(|it| it.txid == proposal.txid);
        if was_asked && self.highest_live() == Some(&self.config.me) {
            let links = self.links_to(&voters);
            if proposal.txid.node != self.config.me && !links.is_empty() {
                let msg = Message::Decision(Box::new(commit_message(&committed)));
                self.out.push_after_sync(Effect::SendAll { links, msg });
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
        self.present.set_roster(roster);
        self.peers.forget_told(|it| self.present.knows(it));
        if let Some(AbsentNode { txid, by, .. }) = self.removed().filter(|_| !was_removed).cloned()
        {
            self.report(Event::Removed { txid, by });
        }
        self.drop_impostors();
        self.look_for_dead();
        self.call_all();
    }

    /// Serves a committed transaction, and reports it.
    fn switch_to(&mut self, committed: &Committed) {
        let proposal = &committed.proposal;
        if self.present.switch_to(proposal, self.now.mono) {
            // Figures from before say nothing of the new shares.
            self.tries.forget_health();
            self.peers.forget_health();
        }
        self.tries.on_commit();
        if proposal.new_roster.is_some() {
            // Whether this node was called gone, or let in again, is served with the version.
            self.present.set_gone(self.memory.gone(&self.config.roster));
        }
        self.change_servers(proposal);
        self.serve();
        let whole = std::sync::Arc::new(committed.clone());
        self.report(Event::Committed(whole));
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
    ) -> (TxEnd, Option<crate::proto::rollout::TxProposal>, TxProof) {
        // T5: an end that is known is told, with its proof.
        if let Some(committed) = self.memory.committed(txid) {
            let Committed { proposal, proof } = committed.clone();
            return (TxEnd::Commit, Some(proposal), proof);
        }
        let aborted = self.memory.aborted().rfind(|it| it.txid == *txid);
        if let Some(aborted) = aborted.filter(|it| it.proof != TxProof::default()) {
            return (TxEnd::Abort, None, aborted.proof.clone());
        }
        // T4: a node that has voted COMMIT does not guess; a coordinator whose transaction is
        // running has not decided.
        let uncertain = (TxEnd::Uncertain, None, TxProof::default());
        let is_prepared = self.memory.is_waiting_for(txid);
        let is_running = self.coordinator.runs(txid);
        let is_own = txid.node == self.config.me;
        // A node outside the roster cannot make this node refuse a transaction that it has not
        // seen. Of its own transactions a node tells any node, because a joiner is in no roster
        // yet; but only of those that it has begun: a later one must not be refused, for it may be
        // committed.
        let begun = TxMark { epoch: self.memory.epoch(), counter: self.coordinator.counter() };
        let may_ask = if is_own { txid.mark() <= begun } else { self.present.roster().has(from) };
        // P10: it may have voted COMMIT.
        let has_forgotten = self.memory.is_unsure(txid) || self.is_blank();
        if is_prepared || is_running || has_forgotten || !may_ask {
            return uncertain;
        }
        // P4: it has not voted COMMIT, and never does from here on: that ends the doubt of others.
        let was_voted_on = self.memory.is_marked(txid);
        // No record is needed of an own one: its name is used once, and it has not been committed.
        let vote = match is_own {
            true => TxVote::abort(&self.keys, &self.config.me, txid),
            false => self.refuse(txid),
        };
        self.proposals.drop_early(txid);
        let outcome = if was_voted_on { TxEnd::Abort } else { TxEnd::Refused };
        (outcome, None, TxProof::of(vec![vote]))
    }

    pub(super) fn on_decision_resp(&mut self, from: &NodeId, resp: DecisionResp) {
        if self.memory.prepared().is_none_or(|it| it.txid != resp.txid) {
            return;
        }
        match (resp.outcome, resp.proposal) {
            (TxEnd::Commit, Some(proposal)) if proposal.txid == resp.txid => {
                self.on_proved_commit(from, Committed { proposal, proof: resp.proof });
            }
            (TxEnd::Commit, _) => self.drop_from(from, "a COMMIT without its content"),
            (TxEnd::Abort | TxEnd::Refused, _) => {
                let reason = format!("{from} says so");
                self.on_proved_abort(from, &resp.txid, resp.proof, &reason);
            }
            (TxEnd::Uncertain, _) => {
                self.proposals.on_uncertain(from);
                let nobody_knows = self.waits_for().iter().all(|it| !self.peers.reaches(it));
                let is_highest = self.highest_live() == Some(&self.config.me);
                if self.config.breaks().highest_aborts && nobody_knows && is_highest {
                    let own = TxVote::abort(&self.keys, &self.config.me, &resp.txid);
                    self.end_prepared(AbortCause::Late, "nobody knows", TxProof::of(vec![own]));
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
        let before = self.present.version();
        for it in committed {
            let next = self.present.state().next_version();
            if it.proposal.state.version == next {
                if it.proposal.base != self.present.digest() {
                    return self.on_diverged(from, self.present.version());
                }
                self.on_proved_commit(from, it);
            } else if it.proposal.state.version > next {
                self.leap(from, it);
            }
        }
        if is_full && self.present.version() > before {
            let from_version = self.present.version();
            self.send_to(from, Message::StateReq(StateReq { from_version }));
        }
    }

    /// Handles the decision of the log (T10).
    pub(super) fn on_decided(&mut self, txid: &TxId, commit: bool, proof: Option<Box<Committed>>) {
        let is_prepared = self.memory.prepared().is_some_and(|it| it.txid == *txid);
        if !commit {
            if is_prepared {
                // It can never be committed now, so an ABORT vote is true, and proves it to others.
                let own = TxVote::abort(&self.keys, &self.config.me, txid);
                self.end_prepared(AbortCause::Resolved, "the log says so", TxProof::of(vec![own]));
            } else if self.coordinator.runs(txid) {
                self.abort_running(AbortCause::Resolved, "the log says so".to_owned(), None);
            } else if self.memory.committed(txid).is_none()
                && self.config.decides == DecisionAuthority::Log
            {
                // In an order it may be a liar's, about a transaction that is not begun.
                self.memory.mark(txid);
            }
            return;
        }
        if let Some(committed) = proof.filter(|it| it.proposal.txid == *txid) {
            let me = self.config.me.clone();
            if committed.proposal.state.version == self.present.state().next_version() {
                self.on_proved_commit(&me, *committed);
                let is_told = self.config.decides == DecisionAuthority::Order && txid.node != me;
                if is_told && self.memory.committed(txid).is_some() {
                    // The coordinator's word was not believed, and so not acknowledged.
                    let ack = DecisionAck { txid: txid.clone() };
                    self.send_to(&txid.node, Message::DecisionAck(ack));
                }
            }
        }
    }

    /// Ends this node's doubt by an operator's decision (T10), which others may learn.
    pub(super) fn resolve(&mut self, ticket: CommandId, txid: &TxId, commit: bool) {
        let prepared = self.memory.prepared().cloned().filter(|it| it.txid == *txid);
        let refused = match (&prepared, self.config.decides) {
            (None, _) => {
                Some((AbortCause::Nothing, format!("this node is not in doubt about {txid}")))
            }
            (Some(_), DecisionAuthority::Order) => {
                let reason = "the order ends it, as soon as enough of its members are in reach; \
                              peer order status shows who is away";
                Some((AbortCause::InDoubt, reason.to_owned()))
            }
            (Some(_), DecisionAuthority::Coordinator | DecisionAuthority::Log) => None,
        };
        if let Some((cause, reason)) = refused {
            let refused = CommandResult::Refused { cause, reason, running: None };
            let answer = ExtraEffect::Answer(ticket, refused);
            return self.out.push_after_sync(Effect::Extra(answer));
        }
        let Some(prepared) = prepared else { return };
        let kind = if commit { Choice::Commit } else { Choice::Abort };
        let resolution = Resolution::new(&self.keys, &self.config.me, txid, kind, self.now.wall);
        self.report(Event::Resolved {
            txid: txid.clone(),
            by: RemovalAuthority::Operator,
            resolution: resolution.clone(),
        });
        let proof = TxProof { votes: Vec::new(), resolution: Some(resolution) };
        let (txid, version) = (txid.clone(), prepared.state.version);
        let answer = if commit {
            self.apply(Committed { proposal: prepared, proof });
            CommandResult::Committed { txid, version }
        } else {
            let reason = format!("resolved by an operator at {}", self.config.me);
            self.end_prepared(AbortCause::Resolved, &reason, proof);
            CommandResult::Aborted { txid, cause: AbortCause::Resolved, reason }
        };
        self.out.push_after_sync(Effect::Extra(ExtraEffect::Answer(ticket, answer)));
    }
}
