//! The normal course: proposals, PREPARE, COMMIT, final slots (rules B4–B8, B14, B18, B19).

use std::sync::Arc;

use super::chain::body_of;
use super::config::BftRule;
use super::disk::Outgoing;
use super::event::{Event, ExtraEffect, Record, Timer};
use super::ledger::{PlacedSlot, SlotBody};
use super::pool::PassedOver;
use super::replica::{BftReplica, Fx};
use super::tally::VIEWS_BACK;
use super::votes::Counted;
use crate::machine::LinkId;
use crate::proto::bft::message::{Message, PrePrepare};
use crate::proto::bft::{
    Certificate, Claim, ContentDigest, PhaseVote, SlotNo, ViewNo, VotePhase, VoteSubject,
};
use crate::proto::chat::entry::MemberId;

impl BftReplica {
    /// Number of members that decide.
    pub(super) fn quorum(&self) -> usize {
        match self.config.keeps(BftRule::Quorum) {
            true => self.committee().quorum(),
            false => crate::machine::quorum::majority(self.committee().len()),
        }
    }

    /// Last slot that this member keeps proposals and votes for. A view may begin with slots beyond
    /// its own window, which a quorum of others with greater windows has prepared.
    pub(super) fn horizon(&self) -> SlotNo {
        let own = self.chain.settled().tip.slot.ahead(4 * self.config.window);
        own.max(self.chain.tip().tip.slot)
    }

    const fn subject(&self, slot: SlotNo, digest: ContentDigest) -> VoteSubject {
        VoteSubject { epoch: self.epoch(), view: self.views.view(), slot, digest }
    }

    /// Proposes slots while there is something to place and room for it.
    pub(super) fn propose(&mut self, fx: &mut Fx) {
        if !self.views.is_active() || !self.leads() || !self.may_vote() {
            return;
        }
        let limit = self.chain.settled().tip.slot.ahead(self.config.window);
        while self.chain.tip().tip.slot < limit && !self.is_behind_change() {
            let Some(placed) = self.next_slot() else { break };
            let (view, slot) = (self.views.view(), placed.after.tip.slot);
            let is_taken = self.votes.of(VotePhase::Prepare, (view, slot), self.me.id).is_some();
            if is_taken && self.config.keeps(BftRule::OneVote) {
                // What it proposed there gave way to what a later view made final.
                self.wish(view.next(), "its leader has fallen behind", fx);
                break;
            }
            let record = self.disk.promise(self.epoch(), view, fx);
            let subject = self.subject(slot, placed.digest);
            let vote = PhaseVote::sign(&self.group, VotePhase::Prepare, subject, self.signer());
            let header = placed.content.header.clone();
            let sender_id = self.me.id;
            let proposal = PrePrepare { sender_id, view, header, signature: vote.signature };
            self.say_after(record, Message::PrePrepare(Arc::new(proposal)), fx);
            self.accept(placed, fx);
            self.votes.count(VotePhase::Prepare, vote);
            self.check_prepared(subject.slot, fx);
        }
        self.release(fx);
    }

    /// True if nothing may be accepted before the change at the end of the chain is final (B19).
    fn is_behind_change(&self) -> bool {
        self.chain.ends_epoch() && self.config.keeps(BftRule::Epoch)
    }

    /// The next slot to propose: a change alone, or bundles.
    fn next_slot(&self) -> Option<PlacedSlot> {
        let tip = self.chain.tip();
        let place = |body| tip.next(&self.group, self.now.wall, body, &self.config);
        for change in self.pool.changes() {
            let placed = place(SlotBody::Change(Arc::clone(change)));
            if placed.is_some() {
                return placed;
            }
        }
        let turn = tip.tip.slot.0;
        let bundles = self.pool.choose(&tip.marks, turn, None);
        place(SlotBody::Bundles(bundles))
    }

    /// Takes a leader's proposal.
    pub(super) fn on_pre_prepare(
        &mut self,
        (link, member): (LinkId, MemberId),
        proposal: Arc<PrePrepare>,
        fx: &mut Fx,
    ) {
        let header = &proposal.header;
        if proposal.sender_id != member {
            return self.distrust(link, "it proposes in another's name", fx);
        }
        let is_leader = self.leader_of(proposal.view) == member;
        if !is_leader && self.config.keeps(BftRule::Leader) {
            return self.dropped("a proposal by no leader", fx);
        }
        let last = self.chain.settled().tip.slot;
        if header.epoch != self.epoch() || proposal.view != self.views.view() {
            return self.dropped("a proposal of another epoch or view", fx);
        }
        if header.slot <= last || header.slot > self.horizon() {
            return self.dropped("a proposal for a slot that is final or too far ahead", fx);
        }
        let digest = self.digest_of(header);
        let accepted = self.chain.accepted_at(header.slot).map(|it| it.digest);
        let waiting = self.proposals.get(&header.slot).map(|it| self.digest_of(&it.header));
        if accepted.or(waiting) == Some(digest) {
            return;
        }
        let vote = proposal.vote(digest);
        if !self.is_signed(VotePhase::Prepare, &vote) {
            return self.distrust(link, "a proposal with a bad signature", fx);
        }
        if let Counted::Contradicts(first) = self.votes.count(VotePhase::Prepare, vote) {
            return self.on_contradiction(VotePhase::Prepare, link, (first, vote), fx);
        }
        self.proposals.insert(header.slot, proposal);
        self.accept_proposals(fx);
    }

    /// Digest of a header.
    pub(super) fn digest_of(&self, header: &crate::proto::bft::SlotHeader) -> ContentDigest {
        self.config.digest_of(&self.group, header)
    }

    /// True if a vote carries its member's signature (B2).
    pub(super) fn is_signed(&self, phase: VotePhase, vote: &PhaseVote) -> bool {
        !self.config.keeps(BftRule::Signed)
            || self
                .committee()
                .key(vote.sender_id)
                .is_some_and(|key| vote.is_valid(&self.group, phase, key))
    }

    /// Accepts the proposals that follow the chain, as far as their content is here.
    pub(super) fn accept_proposals(&mut self, fx: &mut Fx) {
        while self.views.is_active() && !self.is_behind_change() {
            let tip = self.chain.tip();
            let next = tip.tip.slot.next();
            let Some(proposal) = self.proposals.get(&next).cloned() else { break };
            let header = &proposal.header;
            let digest = self.digest_of(header);
            if header.parent != tip.tip.digest && self.config.keeps(BftRule::Chain) {
                return self.blame(next, "its proposal does not follow the chain", fx);
            }
            let body = match self.chain.body(&digest, header, &self.pool) {
                Ok(body) => body,
                Err(_) => {
                    if !self.config.keeps(BftRule::Content) {
                        self.prepare(next, digest, fx);
                    }
                    return self.fetch_soon(fx);
                }
            };
            let Some(placed) = tip.check(&self.group, header, body, &self.config) else {
                return self.blame(next, "its proposal says what is not so", fx);
            };
            let limit = 4 + 2 * self.config.window + self.committee().len() as u64;
            let marks = tip.marks.clone();
            let authors = placed.content.bundles.iter().map(|it| it.author).collect();
            let verdicts = self.pool.on_accepted(&marks, &authors, limit);
            self.proposals.remove(&next);
            self.end_fetch(fx);
            self.accept(placed, fx);
            self.prepare(next, digest, fx);
            self.check_prepared(next, fx);
            self.check_final(self.views.view(), next, fx);
            if self.config.keeps(BftRule::Fairness) {
                self.on_passed_over(verdicts, fx);
            }
        }
        self.release(fx);
    }

    fn on_passed_over(&mut self, verdicts: Vec<PassedOver>, fx: &mut Fx) {
        for verdict in verdicts {
            match verdict {
                PassedOver::Show(bundle) => {
                    if let Some(link) = self.links.of(self.leader()) {
                        fx.send(link, Message::Bundle(bundle));
                    }
                }
                PassedOver::Suspect(author) => {
                    let next = self.views.view().next();
                    self.wish(next, &format!("its leader passes over {author}"), fx);
                }
            }
        }
    }

    /// Adds a slot to the accepted ones.
    fn accept(&mut self, placed: PlacedSlot, fx: &mut Fx) {
        for (index, reference) in placed.content.header.bundles.iter().enumerate() {
            let Some(bundle) = placed.content.bundles.get(index) else { continue };
            if bundle.origin() == self.outbox.origin()
                && let Some(text) = bundle.message(bundle.items.len().saturating_sub(1))
                && reference.skip < reference.count
            {
                fx.emit(Event::Proposed(text.msg_id));
            }
        }
        self.chain.accept(placed);
    }

    /// Drops a proposal that no honest leader makes, and wishes for another leader.
    fn blame(&mut self, slot: SlotNo, reason: &str, fx: &mut Fx) {
        self.proposals.remove(&slot);
        self.dropped("a proposal that no honest leader makes", fx);
        let next = self.views.view().next();
        self.wish(next, reason, fx);
    }

    /// Votes for a slot that was accepted (B4, B9).
    pub(super) fn prepare(&mut self, slot: SlotNo, digest: ContentDigest, fx: &mut Fx) {
        let view = self.views.view();
        let known = self.votes.of(VotePhase::Prepare, (view, slot), self.me.id);
        let has_voted = known.is_some() && self.config.keeps(BftRule::OneVote);
        if !self.may_vote() || has_voted {
            return;
        }
        let record = self.disk.promise(self.epoch(), view, fx);
        let subject = self.subject(slot, digest);
        let vote = PhaseVote::sign(&self.group, VotePhase::Prepare, subject, self.signer());
        self.votes.count(VotePhase::Prepare, vote);
        self.say_after(record, Message::Prepare(vote), fx);
    }

    /// Votes for the slots that were proposed in this view before this member could vote: the base
    /// of the view, and what follows it (B13).
    pub(super) fn vote_for_accepted(&mut self, fx: &mut Fx) {
        if !self.may_vote() {
            return;
        }
        let base = self.views.new_view().and_then(|it| it.base()).map_or(SlotNo(0), |it| it.slot);
        let slot_of = |it: &PlacedSlot| (it.after.tip.slot, it.digest);
        let accepted = self.chain.accepted().iter().map(slot_of);
        let accepted: Vec<_> = accepted.filter(|(slot, _)| *slot >= base).collect();
        for (slot, digest) in accepted {
            self.prepare(slot, digest, fx);
            // What was prepared meanwhile has no COMMIT of this member.
            self.given.remove(&slot);
            self.check_prepared(slot, fx);
        }
    }

    /// Commits a slot that a quorum has prepared, once its content is on disk (B8).
    pub(super) fn check_prepared(&mut self, slot: SlotNo, fx: &mut Fx) {
        let Some(placed) = self.chain.accepted_at(slot) else { return };
        let subject = self.subject(slot, placed.digest);
        if self.given.contains(&slot) || !self.views.is_active() {
            return;
        }
        let Some(certificate) = self.certify(VotePhase::Prepare, subject, fx) else { return };
        self.given.insert(slot);
        self.write_contents(slot, fx);
        if self.may_vote() {
            // No PREPARE has promised this view yet where the slot was accepted before this member
            // was certain of its memory.
            self.disk.promise(self.epoch(), self.views.view(), fx);
        }
        let record = self.disk.write(Record::Prepared(certificate.clone()), fx);
        self.raise_claim(certificate);
        if !self.may_vote() {
            return;
        }
        let vote = PhaseVote::sign(&self.group, VotePhase::Commit, subject, self.signer());
        if !self.config.keeps(BftRule::Disk) {
            self.send_all(Message::Commit(vote), fx);
            self.count_own_commit(vote, fx);
            return;
        }
        self.disk.hold(record, Outgoing::OwnCommit(vote));
        if !self.config.keeps(BftRule::OwnCommit) {
            self.count_own_commit(vote, fx);
        }
    }

    /// Writes the contents of the accepted slots up to this one.
    fn write_contents(&mut self, slot: SlotNo, fx: &mut Fx) {
        let contents: Vec<_> = self
            .chain
            .accepted()
            .iter()
            .take_while(|it| it.after.tip.slot <= slot)
            .map(|it| (it.after.tip.slot, it.digest, Arc::clone(&it.content)))
            .collect();
        for (slot, digest, content) in contents {
            if self.disk.add_content(slot, digest) {
                self.disk.write(Record::Slot(content), fx);
            }
        }
    }

    /// Remembers a certificate if it is the highest (B11).
    fn raise_claim(&mut self, certificate: Certificate) {
        if !self.config.keeps(BftRule::Claim) {
            return;
        }
        let rank = |it: &Certificate| Claim::of(it).rank();
        if self.claim.as_ref().is_none_or(|it| rank(it) < rank(&certificate)) {
            self.claim = Some(certificate);
        }
    }

    /// Counts this member's COMMIT, whose content is on disk.
    pub(super) fn count_own_commit(&mut self, vote: PhaseVote, fx: &mut Fx) {
        let VoteSubject { epoch, view, slot, .. } = vote.subject;
        if epoch == self.epoch() && slot > self.chain.settled().tip.slot {
            self.votes.count(VotePhase::Commit, vote);
            self.check_final(view, slot, fx);
        }
    }

    /// Makes a slot final that a quorum has committed, with all below it (B14).
    pub(super) fn check_final(&mut self, view: ViewNo, slot: SlotNo, fx: &mut Fx) {
        let Some(placed) = self.chain.accepted_at(slot) else { return };
        let subject = VoteSubject { view, ..self.subject(slot, placed.digest) };
        if let Some(it) = self.certify(VotePhase::Commit, subject, fx) {
            self.settle(it, fx);
        }
    }

    /// Makes the accepted slots final up to the one that this certificate is of.
    pub(super) fn settle(&mut self, certificate: Certificate, fx: &mut Fx) {
        let slot = certificate.subject.slot;
        let is_accepted = |it: &PlacedSlot| it.digest == certificate.subject.digest;
        if !self.chain.accepted_at(slot).is_some_and(is_accepted) {
            return;
        }
        self.recall.hear_certificate(&certificate);
        self.settle_up_to(slot, Some(certificate), fx);
        // A slot behind it may have its votes already.
        let behind: Vec<_> = self.chain.accepted().iter().map(|it| it.after.tip.slot).collect();
        for slot in behind.into_iter().rev() {
            self.check_final(self.views.view(), slot, fx);
        }
    }

    /// Makes the accepted slots final up to this one, which this certificate is of; without it a
    /// later slot's proves them.
    pub(super) fn settle_up_to(
        &mut self,
        slot: SlotNo,
        certificate: Option<Certificate>,
        fx: &mut Fx,
    ) {
        self.write_contents(slot, fx);
        if let Some(certificate) = &certificate {
            self.disk.write(Record::Final(certificate.clone()), fx);
            self.raise_claim(certificate.clone());
        }
        let before = Arc::clone(self.committee());
        let first = self.chain.settled().tip.slot.0;
        let (mut entries, mut authors) = (Vec::new(), Vec::new());
        while self.chain.settled().tip.slot < slot {
            let is_last = self.chain.settled().tip.slot.next() == slot;
            let own = certificate.clone().filter(|_| is_last);
            let Some(placed) = self.chain.settle(own, self.config.window_slots) else { break };
            authors.extend(placed.content.bundles.iter().map(|it| it.author));
            entries.extend(placed.entries);
            self.views.on_final(&self.config);
        }
        if !entries.is_empty() {
            fx.extra(ExtraEffect::Deliver(entries));
        }
        authors.sort_unstable();
        authors.dedup();
        let settled = self.chain.settled();
        self.pool.prune(&settled.marks, authors);
        self.outbox.prune(&settled.marks);
        self.disk.prune(slot);
        let first_view = ViewNo(self.views.view().0.saturating_sub(VIEWS_BACK));
        self.votes.prune(slot, first_view);
        self.proposals.retain(|it, _| *it > slot);
        self.given.retain(|it| *it > slot);
        let every = self.config.snapshot_every.max(1);
        if let Some(certificate) = certificate
            && first / every != slot.0 / every
        {
            let snapshot = settled.snapshot(certificate);
            fx.extra(ExtraEffect::Snapshot(Box::new(snapshot)));
        }
        self.restart_patience(fx);
        if self.chain.window().back().is_some_and(|it| it.content.change.is_some()) {
            self.begin_epoch(&before, fx);
        }
    }

    /// Forgets votes that count no more, however long nothing has become final (B27).
    pub(super) fn prune_votes(&mut self) {
        let first_view = ViewNo(self.views.view().0.saturating_sub(VIEWS_BACK));
        self.votes.prune(self.chain.settled().tip.slot, first_view);
    }

    /// Accepts slots that a certificate proves, without votes; false if they are not what the state
    /// says (B7).
    pub(super) fn accept_proved(
        &mut self,
        slots: &[(ContentDigest, Arc<crate::proto::bft::message::SlotContent>)],
        fx: &mut Fx,
    ) -> bool {
        for (digest, content) in slots {
            let tip = self.chain.tip();
            let body = body_of(content);
            let placed = tip.check(&self.group, &content.header, body, &self.config);
            let Some(placed) = placed.filter(|it| it.digest == *digest) else {
                return false;
            };
            self.accept(placed, fx);
        }
        true
    }

    /// Sends a message to all members once the promise of its view is on disk (B9). It waits for no
    /// later record: a vote for a slot must not wait for the content of the one before it.
    pub(super) fn say_after(&mut self, promise: u64, msg: Message, fx: &mut Fx) {
        if self.disk.has(promise) || !self.config.keeps(BftRule::Promise) {
            self.send_all(msg, fx);
        } else {
            self.disk.hold(promise, Outgoing::ToAll(msg));
        }
    }

    /// Sends what waits for records that are on disk already.
    pub(super) fn release(&mut self, fx: &mut Fx) {
        while let Some(outgoing) = self.disk.pop() {
            match outgoing {
                Outgoing::ToAll(msg) => self.send_all(msg, fx),
                Outgoing::OwnCommit(vote) => {
                    self.send_all(Message::Commit(vote), fx);
                    self.count_own_commit(vote, fx);
                }
            }
        }
    }

    /// Restarts the patience with the leader.
    pub(super) fn restart_patience(&mut self, fx: &mut Fx) {
        if std::mem::take(&mut self.is_patient) {
            fx.stop_timer(Timer::Patience);
        }
    }
}
