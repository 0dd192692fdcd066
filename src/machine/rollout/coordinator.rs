//! The coordinator of a transaction: it proposes, collects votes, votes last, and tells (P3).
//!
//! Invariants:
//! - Votes count once per voter, for this transaction and content only (T3).
//! - The coordinator's own COMMIT is signed when all others are there. With
//!   `DecisionAuthority::Coordinator` it is on disk together with the decision, so before that the
//!   coordinator may always say no: after 2 s, when a participant objects, and after a restart.
//! - Where a log decides (`DecisionAuthority`), the coordinator votes like all others.

use crate::machine::rollout::WindowVerdict;
use std::sync::Arc;

use super::config::DecisionAuthority;
use super::event::{Aborted, CommandId, CommandResult, Event, ExtraEffect, Record, Timer};
use super::machine::{Effect, RolloutMachine};
use super::progress::{CommandRefusal, target};
use super::running::CoordinatedTx;
use crate::proto::rollout::{
    AbortCause, Choice, Committed, Decision, GoneNodes, Message, NodeId, Plan, PrepareResp, Roster,
    RoutingState, RoutingStatus, ServerChanges, TxId, TxKind, TxProof, TxProposal, TxVote, Weights,
    cut,
};

/// Content of a transaction, beside the state before it.
#[derive(Debug, Default)]
pub(super) struct TxRequest {
    pub(super) is_full: bool,
    pub(super) plan: Option<Plan>,
    pub(super) new_roster: Option<Roster>,
    pub(super) gone: Option<GoneNodes>,
    pub(super) serves: ServerChanges,
    pub(super) note: String,
    pub(super) ticket: Option<CommandId>,
}

impl RolloutMachine {
    /// Begins a transaction, one at a time (T6).
    pub(super) fn begin(&mut self, kind: TxKind, request: TxRequest) -> Result<(), CommandRefusal> {
        let (progress, plan) = (self.present.progress(), request.plan.as_ref());
        let is_braked = self.brake().is_some();
        // A settled transaction comes first.
        let settled =
            request.gone.as_ref().and_then(|it| Some(&it.settles.as_ref()?.proposal.state));
        let before = settled.unwrap_or(self.present.state()).clone();
        let goal = target(kind, request.is_full, &before, progress, plan, is_braked);
        if goal.is_ok() && request.ticket.is_some() {
            self.give_way();
        }
        self.refuse_to_begin(request.gone.as_ref())?;
        let (stable, canary, share) = goal?;
        // P1: a name is used once, over all lives of this node.
        let (node, epoch) = (self.config.me.clone(), self.memory.epoch());
        let txid = TxId { node, epoch, counter: self.coordinator.next_counter(), kind };
        let proposal = TxProposal {
            state: RoutingState {
                version: before.next_version(),
                weights: Weights::split(&stable, &canary, share),
                stable_model_id: stable,
                canary_model_id: canary,
                status: RoutingStatus::Prepared,
                txid: Some(txid.clone()),
                timestamp: self.now.wall,
            },
            txid,
            base: before.digest(),
            roster: self.present.roster_digest(),
            new_roster: request.new_roster,
            plan: request.plan,
            note: request.note,
            gone: request.gone,
            serves: request.serves,
        };
        if let Some(complaint) = proposal.complaint() {
            return Err(CommandRefusal::new(AbortCause::Malformed, complaint));
        }
        self.judge_own(&proposal)?;
        let proposal = Arc::new(proposal);
        self.report(Event::Began(Arc::clone(&proposal)));
        let voters = self.voters(&proposal);
        let lacks_answer = self.needs_answer(&proposal);
        let running =
            CoordinatedTx::new(Arc::clone(&proposal), voters.clone(), request.ticket, lacks_answer);
        if lacks_answer {
            self.out.push_now(Effect::Extra(ExtraEffect::Probe(
                proposal.state.canary_model_id.clone(),
            )));
        }
        self.coordinator.begin(running);
        let links = self.links_to(&voters);
        if !links.is_empty() {
            let msg = Message::PrepareReq(Box::new((*proposal).clone().into()));
            self.out.push_after_sync(Effect::SendAll { links, msg });
        }
        self.call_all();
        self.out
            .push_now(Effect::SetTimer { timer: Timer::Votes, after: self.config.votes_within });
        self.decide_if_complete();
        Ok(())
    }

    /// Makes room for an operator's order: a transaction that no operator ordered is tried later.
    fn give_way(&mut self) {
        if self.coordinator.running().is_some_and(CoordinatedTx::is_by_itself) {
            self.abort_running(AbortCause::Busy, "an operator's order goes first".to_owned(), None);
        }
    }

    fn refuse_to_begin(&mut self, gone: Option<&GoneNodes>) -> Result<(), CommandRefusal> {
        let busy = |txid: &TxId, cause: AbortCause, what: &str| {
            let running = Some(txid.clone());
            CommandRefusal { running, ..CommandRefusal::new(cause, format!("{txid} {what}")) }
        };
        if let Some(running) = self.coordinator.running() {
            return Err(busy(running.txid(), AbortCause::Busy, "is running"));
        }
        let settles = |it: &TxProposal| {
            let settled = gone.and_then(|gone| gone.settles.as_ref());
            settled.is_some_and(|settled| settled.proposal.txid == it.txid)
        };
        if let Some(prepared) = self.memory.prepared().filter(|it| !settles(it)) {
            let what = "is running, its decision is not known here yet";
            return Err(busy(&prepared.txid, AbortCause::InDoubt, what));
        }
        if self.amnesia.is_some() && !self.goes_on_without(gone) {
            let names = self.recall_waits_for();
            let names: Vec<_> = names.iter().map(NodeId::as_str).collect();
            let reason = format!("no word yet of {} since this node's start", names.join(", "));
            return Err(CommandRefusal::new(AbortCause::Recalling, reason));
        }
        if !self.is_member() {
            return Err(CommandRefusal::new(AbortCause::Roster, "this node is not in the roster"));
        }
        Ok(())
    }

    /// Checks a proposal against this node's own models, brake and gates.
    pub(super) fn judge_own(&self, proposal: &TxProposal) -> Result<(), CommandRefusal> {
        self.judge_servers(proposal)?;
        self.judge_models(proposal)?;
        if let Some(refusal) = self.would_echo().filter(|_| proposal.txid.kind.raises()) {
            return Err(refusal);
        }
        if let Some(brake) = self.brake().filter(|_| proposal.txid.kind.raises()) {
            return Err(CommandRefusal::new(
                AbortCause::Gate,
                format!("the brake is on: {}", brake.reason),
            ));
        }
        let live = self.present.progress().filter(|it| it.is_live());
        if let (Some(progress), Some(health)) = (live, self.tries.health())
            && proposal.txid.kind.raises()
            && progress.plan.failures == 0
            && let (WindowVerdict::Bad, Some(gate)) =
                progress.plan.judge(health, self.present.state().canary_share())
        {
            return Err(CommandRefusal::new(AbortCause::Gate, format!("{gate} does not hold")));
        }
        Ok(())
    }

    /// Asks a node that came within reach for its vote, if it is missing.
    pub(super) fn ask_for_vote(&mut self, node: &NodeId) {
        if let Some(running) = self.coordinator.running().filter(|it| it.wants(node)) {
            let proposal = TxProposal::clone(running.proposal());
            self.send_to(node, Message::PrepareReq(Box::new(proposal.into())));
        }
    }

    pub(super) fn on_vote(&mut self, from: &NodeId, msg: PrepareResp) {
        let Some(running) = self.coordinator.running().filter(|it| *it.txid() == msg.txid) else {
            return self.drop_from(from, "a vote on what is not running");
        };
        if !running.takes_vote_of(from) {
            return self.drop_from(from, "a vote that nobody asked for");
        }
        let proposal = Arc::clone(running.proposal());
        let participants = proposal.participants(self.present.roster());
        let by = participants.iter().find(|it| it.node_id == *from);
        let is_true = |vote: &TxVote| {
            vote.vote == msg.vote
                && by.is_some_and(|by| vote.holds(by, &msg.txid, running.digest()))
        };
        let signed = msg.signed.filter(is_true);
        if msg.vote == Choice::Commit && signed.is_none() {
            return self.drop_from(from, "a vote that does not hold");
        }
        let (node, txid) = (from.clone(), msg.txid);
        let reason = msg.reason.clone();
        self.report(Event::VoteHeard { node, txid, vote: msg.vote, reason });
        match (msg.vote, signed) {
            (Choice::Commit, Some(vote)) => self.count(vote),
            (Choice::Commit, None) => {}
            (Choice::Abort, signed) => {
                let cause = msg.cause.unwrap_or(AbortCause::Malformed);
                let reason = cut(format!("{from}: {}", msg.reason));
                self.abort_running(cause, reason, signed);
            }
        }
    }

    fn count(&mut self, vote: TxVote) {
        let counts_messages = self.config.breaks().counts_messages;
        let Some(running) = self.coordinator.running_mut() else { return };
        running.count(vote, counts_messages);
        self.decide_if_complete();
    }

    pub(super) fn decide_if_complete(&mut self) {
        let Some(running) = self.coordinator.running_mut() else { return };
        // T3: all other voters have voted COMMIT, each by a vote that holds.
        let Some(mut votes) = running.decide(self.config.breaks().counts_messages) else { return };
        let proposal = Arc::clone(running.proposal());
        let (txid, me) = (&proposal.txid, &self.config.me);
        // P3: the coordinator votes last; before this vote it may always say no.
        if running.voters().contains(me) {
            votes.push(TxVote::commit(&self.keys, me, txid, running.digest()));
        }
        let whole = Committed { proposal: (*proposal).clone(), proof: TxProof::of(votes) };
        self.out.push_now(Effect::StopTimer(Timer::Votes));
        match self.config.decides {
            DecisionAuthority::Coordinator => {
                if self.config.breaks().decision_unforced {
                    let links = self.links_to(&self.voters(&proposal));
                    let msg = Message::Decision(Box::new(commit_message(&whole)));
                    self.out.push_now(Effect::SendAll { links, msg });
                }
                self.apply(whole);
            }
            DecisionAuthority::Log | DecisionAuthority::Order => {
                let txid = txid.clone();
                let proof = Box::new(whole);
                running.keep_proof(proof.clone());
                let proof = Some(proof);
                self.persist(Record::Prepared(Box::new((*proposal).clone())));
                self.begin_doubt(txid.clone(), self.config.doubt_first);
                self.out.push_after_sync(Effect::Extra(ExtraEffect::Decide {
                    txid,
                    commit: true,
                    proof,
                }));
            }
        }
    }

    pub(super) fn on_votes_late(&mut self) {
        let Some(running) = self.coordinator.running().filter(|it| !it.is_deciding()) else {
            return;
        };
        let missing: Vec<_> = running.missing().iter().map(ToString::to_string).collect();
        let model = &running.proposal().state.canary_model_id;
        let (cause, reason) = match &missing[..] {
            [] => (AbortCause::Model, format!("no answer of {model} in time")),
            some => (AbortCause::NoVote, format!("no vote of {} in time", some.join(", "))),
        };
        self.abort_running(cause, reason, None);
    }

    /// Aborts the running transaction, by another node's signed ABORT or by this node's own.
    pub(super) fn abort_running(
        &mut self,
        cause: AbortCause,
        reason: String,
        vote: Option<TxVote>,
    ) {
        // T3: once the decision is begun, this node's COMMIT may be known, and is not taken back.
        let Some(running) = self.coordinator.take_undecided() else { return };
        let proposal = running.proposal();
        let own = || TxVote::abort(&self.keys, &self.config.me, &proposal.txid);
        let proof = TxProof::of(vec![vote.unwrap_or_else(own)]);
        let version = Some(proposal.state.version);
        let txid = proposal.txid.clone();
        let aborted = Aborted { txid, version, cause, reason, proof };
        self.out.push_now(Effect::StopTimer(Timer::Votes));
        self.persist(Record::Aborted(aborted.clone()));
        self.send_abort(running.voters(), &aborted, proposal);
        self.report(Event::Aborted(aborted.clone()));
        self.answer_aborted(running.ticket(), &aborted);
        self.after_abort(&aborted);
    }

    fn answer_aborted(&mut self, ticket: Option<CommandId>, aborted: &Aborted) {
        let Aborted { txid, cause, reason, .. } = aborted.clone();
        if let Some(ticket) = ticket {
            self.out.push_after_sync(Effect::Extra(ExtraEffect::Answer(
                ticket,
                CommandResult::Aborted { txid, cause, reason },
            )));
        }
    }

    pub(super) fn send_abort(&mut self, to: &[NodeId], aborted: &Aborted, proposal: &TxProposal) {
        let links = self.links_to(to);
        if !links.is_empty() {
            let Aborted { txid, proof, reason, .. } = aborted.clone();
            let kind = Choice::Abort;
            let proposal = Some(with_status(proposal.clone(), RoutingStatus::Aborted));
            let decision = Decision { txid, kind, proposal, proof, reason };
            self.out.push_after_sync(Effect::SendAll {
                links,
                msg: Message::Decision(Box::new(decision)),
            });
        }
    }

    /// Answers and tells after the end of a transaction that this node coordinated and all voted
    /// for.
    pub(super) fn on_running_over(&mut self, how: Result<&Committed, &Aborted>) {
        let Some(running) = self.coordinator.take() else { return };
        self.out.push_now(Effect::StopTimer(Timer::Votes));
        let others: Vec<_> =
            running.voters().iter().filter(|it| **it != self.config.me).cloned().collect();
        match how {
            Ok(committed) => {
                let links = self.links_to(&others);
                if !links.is_empty() {
                    let msg = Message::Decision(Box::new(commit_message(committed)));
                    self.out.push_after_sync(Effect::SendAll { links, msg });
                }
                let txid = committed.proposal.txid.clone();
                let version = committed.proposal.state.version;
                if let Some(ticket) = running.ticket() {
                    let answer = CommandResult::Committed { txid: txid.clone(), version };
                    self.out.push_after_sync(Effect::Extra(ExtraEffect::Answer(ticket, answer)));
                }
                self.coordinator.await_acks(txid.clone(), others.into_iter().collect());
                self.on_ack(&self.config.me.clone(), &txid);
            }
            Err(aborted) => {
                self.send_abort(&others, aborted, running.proposal());
                self.answer_aborted(running.ticket(), aborted);
                self.after_abort(aborted);
            }
        }
    }

    pub(super) fn on_ack(&mut self, from: &NodeId, txid: &TxId) {
        if self.coordinator.on_ack(from, txid) {
            self.report(Event::Everywhere(txid.clone()));
        }
    }
}

/// Returns the message of a COMMIT.
pub(super) fn commit_message(committed: &Committed) -> Decision {
    let Committed { proposal, proof } = committed.clone();
    let (txid, kind) = (proposal.txid.clone(), Choice::Commit);
    let proposal = with_status(proposal, RoutingStatus::Committed);
    Decision { txid, kind, proposal: Some(proposal), proof, reason: String::new() }
}

fn with_status(proposal: TxProposal, status: RoutingStatus) -> TxProposal {
    TxProposal { state: proposal.state.with_status(status), ..proposal }
}
