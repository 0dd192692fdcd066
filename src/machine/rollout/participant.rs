//! A participant: votes, once a transaction, on disk first (P2).
//!
//! Invariants: a node that voted COMMIT on one transaction votes COMMIT on no other before it knows
//! the end of the first; a node that voted ABORT, or refused unasked, never votes COMMIT on that
//! transaction; a node that may have forgotten a vote signs nothing about that transaction.

use super::config::DecisionAuthority;
use super::event::{Event, Record};
use super::machine::{Effect, RolloutMachine};
use super::peers::LinkedNode;
use super::progress::CommandRefusal;
use super::running::CoordinatedTx;
use crate::proto::rollout::{
    AbortCause, Choice, Message, NodeId, PrepareResp, StateReq, TxId, TxProposal, TxVote,
};

impl RolloutMachine {
    pub(super) fn on_prepare(&mut self, from: NodeId, proposal: TxProposal) {
        if proposal.txid.node != from {
            return self.drop_from(&from, "a proposal of another coordinator");
        }
        // A node outside the roster asks its members, and hears in time whether it is still
        // outside.
        let is_lax = self.config.breaks().roster_unagreed;
        if !is_lax && self.is_member() && !self.present.roster().has(&from) {
            return self.drop_from(&from, "a proposal of nobody in the roster");
        }
        let version = proposal.state.version;
        if let Some(prepared) = self.memory.prepared().filter(|it| it.txid == proposal.txid) {
            if *prepared == proposal {
                self.vote_commit(&from, &proposal);
            }
            return;
        }
        if self.memory.is_waiting_for(&proposal.txid) {
            // It voted on that, and on another that settles it: it can say neither yes nor no now.
            return;
        }
        if self.memory.committed(&proposal.txid).is_some() {
            return self.on_decision_req(&from, &proposal.txid);
        }
        let is_behind = version > self.present.state().next_version()
            && !self.config.breaks().version_unchecked;
        if is_behind && self.memory.prepared().is_none() && !self.is_blank() {
            // It may be the next one as soon as this node has the versions before.
            let from_version = self.present.version();
            self.send_to(&from, Message::StateReq(StateReq { from_version }));
            self.proposals.put_early(from, proposal);
            return;
        }
        self.vote_on(&from, &proposal, false);
    }

    /// Votes on a proposal that came early, once this node has the version before.
    pub(super) fn vote_on_early(&mut self) {
        let next = self.present.state().next_version();
        if let Some((from, proposal)) = self.proposals.take_early(next) {
            self.vote_on(&from, &proposal, false);
        }
    }

    /// Votes on a proposal; `is_answered`: its new version has just answered this node.
    pub(super) fn vote_on(&mut self, from: &NodeId, proposal: &TxProposal, is_answered: bool) {
        let txid = &proposal.txid;
        let voters = self.voters(proposal);
        // P10: it may have voted ABORT; so it signs nothing, neither way.
        if self.memory.is_unsure(txid) || self.is_blank() {
            let reason = "this node may have voted on it and forgotten it";
            let refusal = CommandRefusal::new(AbortCause::Recalling, reason);
            return self.vote_abort(from, txid, &refusal, false);
        }
        // T7: only participants count, and an ABORT of another node would prove nothing.
        let is_lax = self.config.breaks().roster_unagreed;
        if !voters.contains(&self.config.me) || !is_lax && !self.present.roster().has(from) {
            let refusal = CommandRefusal::new(AbortCause::Roster, "this node does not take part");
            return self.vote_abort(from, txid, &refusal, false);
        }
        // P2: this ABORT rules a later COMMIT out.
        if let Err(refusal) = self.judge(proposal) {
            return self.vote_abort(from, txid, &refusal, true);
        }
        // T8: the version must have answered since this node was asked.
        if !is_answered && self.needs_answer(proposal) {
            return self.vote_after_answer(from.clone(), proposal.clone());
        }
        // T4: from here on this node cannot say no. T3: the vote leaves after this record.
        self.begin_doubt(txid.clone(), self.config.doubt_first);
        self.persist(Record::Prepared(Box::new(proposal.clone())));
        self.vote_commit(from, proposal);
    }

    /// Refuses a proposal that this node votes ABORT on, with the reason.
    fn judge(&self, proposal: &TxProposal) -> Result<(), CommandRefusal> {
        let breaks = self.config.breaks();
        if let Some(complaint) = proposal.complaint() {
            return Err(CommandRefusal::new(AbortCause::Malformed, complaint));
        }
        // P2: it said no to that one, or knows its end.
        if self.memory.is_marked(&proposal.txid) {
            let reason = "this node has refused it, or knows a later one of that coordinator";
            return Err(CommandRefusal::new(AbortCause::Late, reason));
        }
        if self.config.decides == DecisionAuthority::Order && proposal.settles().is_some() {
            // T10: one member's word ends nothing there.
            let reason = "the order ends what is in doubt";
            return Err(CommandRefusal::new(AbortCause::InDoubt, reason));
        }
        self.judge_gone(proposal)?;
        // P2, T6: one COMMIT at a time, until its end is known; only a removal may settle it (T12).
        let prepared = self.memory.prepared().map(|it| &it.txid);
        let prepared = prepared.filter(|it| !proposal.settles_tx(it) && !breaks.gone_unbound);
        let running = self.coordinator.running().map(CoordinatedTx::txid);
        if let Some(other) = prepared.or(running) {
            let refusal = CommandRefusal::new(AbortCause::Busy, format!("{other} is running"));
            return Err(CommandRefusal { running: Some(other.clone()), ..refusal });
        }
        // T7: by another roster, other voters would be enough.
        if !breaks.roster_unagreed && proposal.roster != self.present.roster_digest() {
            return Err(CommandRefusal::new(AbortCause::Roster, "this node has another roster"));
        }
        // T1: all voters put it on top of the same state.
        let follows = self.follows(proposal);
        if !breaks.version_unchecked && !breaks.roster_unagreed && !follows {
            let reason = format!("this node serves version {}", self.present.version());
            return Err(CommandRefusal::new(AbortCause::Version, reason));
        }
        self.judge_own(proposal)
    }

    fn vote_commit(&mut self, to: &NodeId, proposal: &TxProposal) {
        let txid = proposal.txid.clone();
        let signed = TxVote::commit(&self.keys, &self.config.me, &txid, &proposal.digest());
        let reason = "ready".to_owned();
        let vote = Choice::Commit;
        let (cause, signed) = (None, Some(signed));
        let voted = Event::Voted { txid: txid.clone(), vote, reason: reason.clone() };
        let msg = Message::PrepareResp(PrepareResp { txid, vote, reason, cause, signed });
        match self.peers.get(to).map(LinkedNode::link) {
            Some(link) if self.config.breaks().vote_unforced => {
                self.out.push_now(Effect::Send { link, msg });
            }
            Some(_) | None => self.send_to(to, msg),
        }
        self.report(voted);
    }

    pub(super) fn vote_abort(
        &mut self,
        to: &NodeId,
        txid: &TxId,
        refusal: &CommandRefusal,
        may_sign: bool,
    ) {
        let (txid, vote, reason) = (txid.clone(), Choice::Abort, refusal.reason.clone());
        let signed = may_sign.then(|| self.refuse(&txid));
        let voted = Event::Voted { txid: txid.clone(), vote, reason: reason.clone() };
        let cause = Some(refusal.cause);
        let msg = Message::PrepareResp(PrepareResp { txid, vote, reason, cause, signed });
        self.send_to(to, msg);
        self.report(voted);
    }

    /// Signs an ABORT and rules out a COMMIT from here on; on disk before the signature leaves.
    ///
    /// The caller has made sure that this node does not wait for its decision and has forgotten
    /// nothing about it.
    pub(super) fn refuse(&mut self, txid: &TxId) -> TxVote {
        if !self.memory.is_marked(txid) {
            self.persist(Record::Refused { txid: txid.clone() });
        }
        TxVote::abort(&self.keys, &self.config.me, txid)
    }
}
