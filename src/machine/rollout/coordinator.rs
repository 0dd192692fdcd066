//! The coordinator of a transaction: it proposes, collects votes, votes last, and tells (P3).
//!
//! Invariants:
//! - Votes count once per voter, for this transaction and content only (T3).
//! - The coordinator's own COMMIT is signed when all others are there. With `Decides::Coordinator`
//!   it is on disk together with the decision, so before that the coordinator may always say no:
//!   after 2 s, when a participant objects, and after a restart.
//! - With `Decides::Log` the coordinator votes like all others, and the log decides.

use crate::machine::rollout::Verdict;
use std::sync::Arc;

use super::config::Decides;
use super::course::{Refusal, target};
use super::event::{Aborted, Answer, Effect, Event, ExtraEffect, Record, Timer};
use super::machine::Rollout;
use crate::machine::Ticket;
use crate::proto::rollout::{
    Cause, Choice, Committed, Decision, Digest, Gone, Kind, Message, NodeId, Plan, PrepareResp,
    Proof, Proposal, Roster, RoutingState, Status, TxId, Vote, Weights, cut,
};

/// A transaction that this node coordinates.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) proposal: Arc<Proposal>,
    digest: Digest,
    pub(super) voters: Vec<NodeId>,
    votes: Vec<Vote>,
    /// The command that waits for the result, if any.
    ticket: Option<Ticket>,
    /// All votes are there and the log's decision is to come: this node may not abort anymore.
    is_deciding: bool,
    /// True if this node's server of the new version has yet to answer.
    pub(super) lacks_answer: bool,
    /// The entry that was proposed to the log of decisions.
    proof: Option<Box<Committed>>,
}

impl Running {
    fn has_vote_of(&self, node: &NodeId) -> bool {
        self.votes.iter().any(|it| it.node_id == *node)
    }

    /// True if the vote of that node is missing.
    pub(super) fn wants(&self, node: &NodeId) -> bool {
        self.voters.contains(node) && !self.has_vote_of(node)
    }

    /// Voters without a vote so far, other than the coordinator.
    pub(super) fn missing(&self) -> Vec<NodeId> {
        let me = &self.proposal.txid.node;
        self.voters.iter().filter(|it| *it != me && self.wants(it)).cloned().collect()
    }
}

/// Content of a transaction, beside the state before it.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) is_full: bool,
    pub(super) plan: Option<Plan>,
    pub(super) new_roster: Option<Roster>,
    pub(super) gone: Option<Gone>,
    pub(super) note: String,
    pub(super) ticket: Option<Ticket>,
}

impl Rollout {
    /// Begins a transaction, one at a time (T6).
    pub(super) fn begin(&mut self, kind: Kind, wish: Wish) -> Result<(), Refusal> {
        let (course, plan) = (self.course.as_ref(), wish.plan.as_ref());
        let is_braked = self.brake().is_some();
        // A settled transaction comes first.
        let settled = wish.gone.as_ref().and_then(|it| Some(&it.settles.as_ref()?.proposal.state));
        let before = settled.unwrap_or(&self.state).clone();
        let goal = target(kind, wish.is_full, &before, course, plan, is_braked);
        if goal.is_ok() && wish.ticket.is_some() {
            self.give_way();
        }
        self.refuse_to_begin(wish.gone.as_ref())?;
        let (stable, canary, share) = goal?;
        self.counter += 1;
        let (node, epoch) = (self.config.me.clone(), self.memory.epoch);
        let txid = TxId { node, epoch, counter: self.counter, kind };
        let proposal = Proposal {
            state: RoutingState {
                version: before.next_version(),
                weights: Weights::split(&stable, &canary, share),
                stable_model_id: stable,
                canary_model_id: canary,
                status: Status::Prepared,
                txid: Some(txid.clone()),
                timestamp: self.now.wall,
            },
            txid,
            base: before.digest(),
            roster: self.roster_digest,
            new_roster: wish.new_roster,
            plan: wish.plan,
            note: wish.note,
            gone: wish.gone,
        };
        if let Some(complaint) = proposal.complaint() {
            return Err(Refusal::new(Cause::Malformed, complaint));
        }
        self.judge_own(&proposal)?;
        let proposal = Arc::new(proposal);
        self.tell(Event::Began(Arc::clone(&proposal)));
        let digest = proposal.digest();
        let voters = self.voters(&proposal);
        let ticket = wish.ticket;
        let running = Running {
            proposal: Arc::clone(&proposal),
            digest,
            voters: voters.clone(),
            votes: Vec::new(),
            ticket,
            is_deciding: false,
            lacks_answer: self.needs_answer(&proposal),
            proof: None,
        };
        if running.lacks_answer {
            self.out
                .at_once(Effect::Extra(ExtraEffect::Probe(proposal.state.canary_model_id.clone())));
        }
        self.running = Some(running);
        let links = self.links_to(&voters);
        if !links.is_empty() {
            let msg = Message::PrepareReq(Box::new((*proposal).clone().into()));
            self.out.say(Effect::SendAll { links, msg });
        }
        self.call_all();
        self.out.at_once(Effect::SetTimer { timer: Timer::Votes, after: self.config.votes_within });
        self.decide_if_complete();
        Ok(())
    }

    /// Makes room for an operator's order: a transaction that no operator ordered is tried later.
    fn give_way(&mut self) {
        let is_ordered = |it: &Running| it.ticket.is_some();
        if self.running.as_ref().is_some_and(|it| !is_ordered(it) && it.proposal.is_by_itself()) {
            self.abort_running(Cause::Busy, "an operator's order goes first".to_owned(), None);
        }
    }

    fn refuse_to_begin(&mut self, gone: Option<&Gone>) -> Result<(), Refusal> {
        let busy = |txid: &TxId, cause: Cause, what: &str| {
            let running = Some(txid.clone());
            Refusal { running, ..Refusal::new(cause, format!("{txid} {what}")) }
        };
        if let Some(running) = &self.running {
            return Err(busy(&running.proposal.txid, Cause::Busy, "is running"));
        }
        let settles = |it: &Proposal| {
            let settled = gone.and_then(|gone| gone.settles.as_ref());
            settled.is_some_and(|settled| settled.proposal.txid == it.txid)
        };
        if let Some(prepared) = self.memory.prepared.as_ref().filter(|it| !settles(it)) {
            let what = "is running, its decision is not known here yet";
            return Err(busy(&prepared.txid, Cause::InDoubt, what));
        }
        if self.recall.is_some() && !self.goes_on_without(gone) {
            let names = self.recall_waits_for();
            let names: Vec<_> = names.iter().map(NodeId::as_str).collect();
            let reason = format!("no word yet of {} since this node's start", names.join(", "));
            return Err(Refusal::new(Cause::Recalling, reason));
        }
        if !self.is_member() {
            return Err(Refusal::new(Cause::Roster, "this node is not in the roster"));
        }
        Ok(())
    }

    /// Checks a proposal against this node's own models, brake and gates.
    pub(super) fn judge_own(&self, proposal: &Proposal) -> Result<(), Refusal> {
        let state = &proposal.state;
        if let Some(models) = &self.config.models {
            let named = [&state.stable_model_id, &state.canary_model_id];
            if let Some(unknown) = named.into_iter().find(|it| !models.contains_key(*it)) {
                let reason = format!("this node serves no model {unknown}");
                return Err(Refusal::new(Cause::Model, reason));
            }
        }
        if let Some(refusal) = self.would_echo().filter(|_| proposal.txid.kind.raises()) {
            return Err(refusal);
        }
        if let Some(brake) = self.brake().filter(|_| proposal.txid.kind.raises()) {
            return Err(Refusal::new(Cause::Gate, format!("the brake is on: {}", brake.reason)));
        }
        let live = self.course.as_ref().filter(|it| it.is_live());
        if let (Some(course), Some(health)) = (live, &self.health)
            && proposal.txid.kind.raises()
            && course.plan.failures == 0
            && let (Verdict::Bad, Some(gate)) = course.plan.judge(health, self.state.canary_share())
        {
            return Err(Refusal::new(Cause::Gate, format!("{gate} does not hold")));
        }
        Ok(())
    }

    /// Asks a node that came within reach for its vote, if it is missing.
    pub(super) fn ask_for_vote(&mut self, node: &NodeId) {
        if let Some(running) = self.running.as_ref().filter(|it| it.wants(node)) {
            let proposal = (*running.proposal).clone();
            self.send_to(node, Message::PrepareReq(Box::new(proposal.into())));
        }
    }

    pub(super) fn on_vote(&mut self, from: &NodeId, msg: PrepareResp) {
        let Some(running) = self.running.as_ref().filter(|it| it.proposal.txid == msg.txid) else {
            return self.drop_from(from, "a vote on what is not running");
        };
        if running.is_deciding || !running.voters.contains(from) {
            return self.drop_from(from, "a vote that nobody asked for");
        }
        let proposal = Arc::clone(&running.proposal);
        let participants = proposal.participants(&self.roster);
        let by = participants.iter().find(|it| it.node_id == *from);
        let is_true = |vote: &Vote| {
            vote.vote == msg.vote && by.is_some_and(|by| vote.holds(by, &msg.txid, &running.digest))
        };
        let signed = msg.signed.filter(is_true);
        if msg.vote == Choice::Commit && signed.is_none() {
            return self.drop_from(from, "a vote that does not hold");
        }
        let (node, txid) = (from.clone(), msg.txid);
        let reason = msg.reason.clone();
        self.tell(Event::VoteHeard { node, txid, vote: msg.vote, reason });
        match (msg.vote, signed) {
            (Choice::Commit, Some(vote)) => self.count(vote),
            (Choice::Commit, None) => {}
            (Choice::Abort, signed) => {
                let cause = msg.cause.unwrap_or(Cause::Malformed);
                let reason = cut(format!("{from}: {}", msg.reason));
                self.abort_running(cause, reason, signed);
            }
        }
    }

    fn count(&mut self, vote: Vote) {
        let counts_messages = self.config.breaks().counts_messages;
        let Some(running) = &mut self.running else { return };
        if counts_messages || !running.has_vote_of(&vote.node_id) {
            running.votes.push(vote);
        }
        self.decide_if_complete();
    }

    pub(super) fn decide_if_complete(&mut self) {
        let Some(running) = &mut self.running else { return };
        let is_complete = match self.config.breaks().counts_messages {
            true => running.votes.len() + 1 >= running.voters.len(),
            false => running.missing().is_empty(),
        };
        if running.is_deciding || running.lacks_answer || !is_complete {
            return;
        }
        let proposal = Arc::clone(&running.proposal);
        let (txid, me) = (&proposal.txid, &self.config.me);
        let mut votes = running.votes.clone();
        if running.voters.contains(me) {
            votes.push(Vote::commit(&self.keys, me, txid, &running.digest));
        }
        running.is_deciding = true;
        let whole = Committed { proposal: (*proposal).clone(), proof: Proof::of(votes) };
        self.out.at_once(Effect::StopTimer(Timer::Votes));
        match self.config.decides {
            Decides::Coordinator => {
                if self.config.breaks().decision_unforced {
                    let links = self.links_to(&self.voters(&proposal));
                    let msg = Message::Decision(Box::new(commit_message(&whole)));
                    self.out.at_once(Effect::SendAll { links, msg });
                }
                self.apply(whole);
            }
            Decides::Log => {
                let txid = txid.clone();
                let proof = Some(Box::new(whole));
                running.proof.clone_from(&proof);
                self.persist(Record::Prepared(Box::new((*proposal).clone())));
                self.begin_doubt(txid.clone(), self.config.doubt_first);
                self.out.say(Effect::Extra(ExtraEffect::Decide { txid, commit: true, proof }));
            }
        }
    }

    /// The entry that was proposed to the log for the running transaction, if there is one.
    pub(super) fn running_proof(&self) -> Option<Box<Committed>> {
        self.running.as_ref()?.proof.clone()
    }

    pub(super) fn on_votes_late(&mut self) {
        let Some(running) = self.running.as_ref().filter(|it| !it.is_deciding) else { return };
        let missing: Vec<_> = running.missing().iter().map(ToString::to_string).collect();
        let model = &running.proposal.state.canary_model_id;
        let (cause, reason) = match &missing[..] {
            [] => (Cause::Model, format!("no answer of {model} in time")),
            some => (Cause::NoVote, format!("no vote of {} in time", some.join(", "))),
        };
        self.abort_running(cause, reason, None);
    }

    /// Aborts the running transaction, by another node's signed ABORT or by this node's own.
    pub(super) fn abort_running(&mut self, cause: Cause, reason: String, vote: Option<Vote>) {
        let Some(running) = self.running.take_if(|it| !it.is_deciding) else { return };
        let proposal = &running.proposal;
        let own = || Vote::abort(&self.keys, &self.config.me, &proposal.txid);
        let proof = Proof::of(vec![vote.unwrap_or_else(own)]);
        let version = Some(proposal.state.version);
        let txid = proposal.txid.clone();
        let aborted = Aborted { txid, version, cause, reason, proof };
        self.out.at_once(Effect::StopTimer(Timer::Votes));
        self.persist(Record::Aborted(aborted.clone()));
        self.send_abort(&running.voters, &aborted, proposal);
        self.tell(Event::Aborted(aborted.clone()));
        self.answer_aborted(running.ticket, &aborted);
        self.after_abort(&aborted);
    }

    fn answer_aborted(&mut self, ticket: Option<Ticket>, aborted: &Aborted) {
        let Aborted { txid, cause, reason, .. } = aborted.clone();
        if let Some(ticket) = ticket {
            self.out.say(Effect::Extra(ExtraEffect::Answer(
                ticket,
                Answer::Aborted { txid, cause, reason },
            )));
        }
    }

    pub(super) fn send_abort(&mut self, to: &[NodeId], aborted: &Aborted, proposal: &Proposal) {
        let links = self.links_to(to);
        if !links.is_empty() {
            let Aborted { txid, proof, reason, .. } = aborted.clone();
            let kind = Choice::Abort;
            let proposal = Some(with_status(proposal.clone(), Status::Aborted));
            let decision = Decision { txid, kind, proposal, proof, reason };
            self.out.say(Effect::SendAll { links, msg: Message::Decision(Box::new(decision)) });
        }
    }

    /// Answers and tells after the end of a transaction that this node coordinated and all voted
    /// for.
    pub(super) fn on_running_over(&mut self, how: Result<&Committed, &Aborted>) {
        let Some(running) = self.running.take() else { return };
        self.out.at_once(Effect::StopTimer(Timer::Votes));
        let others: Vec<_> =
            running.voters.iter().filter(|it| **it != self.config.me).cloned().collect();
        match how {
            Ok(committed) => {
                let links = self.links_to(&others);
                if !links.is_empty() {
                    let msg = Message::Decision(Box::new(commit_message(committed)));
                    self.out.say(Effect::SendAll { links, msg });
                }
                let txid = committed.proposal.txid.clone();
                let version = committed.proposal.state.version;
                if let Some(ticket) = running.ticket {
                    let answer = Answer::Committed { txid: txid.clone(), version };
                    self.out.say(Effect::Extra(ExtraEffect::Answer(ticket, answer)));
                }
                self.unacked = Some((txid.clone(), others.into_iter().collect()));
                self.on_ack(&self.config.me.clone(), &txid);
            }
            Err(aborted) => {
                self.send_abort(&others, aborted, &running.proposal);
                self.answer_aborted(running.ticket, aborted);
                self.after_abort(aborted);
            }
        }
    }

    pub(super) fn on_ack(&mut self, from: &NodeId, txid: &TxId) {
        let Some((unacked, nodes)) = &mut self.unacked else { return };
        if unacked == txid {
            nodes.remove(from);
            if nodes.is_empty() {
                self.unacked = None;
                self.tell(Event::Everywhere(txid.clone()));
            }
        }
    }
}

/// Returns the message of a COMMIT.
pub(super) fn commit_message(committed: &Committed) -> Decision {
    let Committed { proposal, proof } = committed.clone();
    let (txid, kind) = (proposal.txid.clone(), Choice::Commit);
    let proposal = with_status(proposal, Status::Committed);
    Decision { txid, kind, proposal: Some(proposal), proof, reason: String::new() }
}

fn with_status(proposal: Proposal, status: Status) -> Proposal {
    Proposal { state: proposal.state.with_status(status), ..proposal }
}
