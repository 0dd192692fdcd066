//! Messages of others: dispatch, contents, evidence (rules B2, B7, B24, B26).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::BftRule;
use super::event::{Event, Record};
use super::pool::Pool;
use super::replica::{BftReplica, Fx};
use crate::machine::LinkId;
use crate::proto::bft::bundle::BUNDLE_COST_MAX;
use crate::proto::bft::message::{Approve, Message};
use crate::proto::bft::{Approval, Bundle, Equivocation, MembershipChange, VotePhase};
use crate::proto::chat::entry::MemberId;

/// Greatest number of changes to which one member consents in an epoch.
const CONSENTS_MAX: usize = 8;

/// Cost of looking at a change.
const CHANGE_COST: u32 = 8;

impl BftReplica {
    pub(super) fn on_received(&mut self, link: LinkId, msg: Message, fx: &mut Fx) {
        let Some(known) = self.links.get(link) else { return };
        // Those that are no members follow the order, and have no part in it.
        let follows =
            matches!(msg, Message::OrderStatus(_) | Message::SlotReq(_) | Message::SlotResp(_));
        let member = match known.member {
            Some(member) => member,
            None if follows => MemberId(0),
            None => return self.dropped("a message of no member", fx),
        };
        let from = (link, member);
        match msg {
            Message::Bundle(bundle) => self.on_bundle(link, bundle, fx),
            Message::Change(change) => self.on_change(Some(link), change, fx),
            Message::PrePrepare(proposal) => self.on_pre_prepare(from, proposal, fx),
            Message::Prepare(vote) => self.on_vote(VotePhase::Prepare, from, vote, fx),
            Message::Commit(vote) => self.on_vote(VotePhase::Commit, from, vote, fx),
            Message::Suspect(wish) => self.on_suspect(from, &wish, fx),
            Message::ViewChange(change) => self.on_view_change(from, change, fx),
            Message::NewView(beginning) => self.on_new_view(from, beginning, fx),
            Message::OrderStatus(status) => self.on_status(link, status, fx),
            Message::SlotReq(request) => self.on_slot_req(link, request, fx),
            Message::SlotResp(answer) => self.on_slot_resp(link, answer, fx),
            Message::ChainReq(request) => self.on_chain_req(link, request, fx),
            Message::ChainResp(answer) => self.on_chain_resp(answer, fx),
            Message::BundleReq(request) => self.on_bundle_req(link, &request, fx),
            Message::RecallReq(request) => self.on_recall_req(from, request, fx),
            Message::RecallResp(answer) => self.on_recall_resp(member, answer, fx),
            Message::Approve(consent) => self.on_approve(from, consent, fx),
            Message::Evidence(lie) => self.on_evidence(link, lie, fx),
            // The words of the handshake are the engine's.
            Message::OrderJoin(_)
            | Message::OrderChallenge(_)
            | Message::OrderProof(_)
            | Message::OrderAck(_)
            | Message::OrderRefused(_) => self.dropped("a word of the handshake", fx),
        }
        self.release(fx);
    }

    /// Closes the connection of a liar.
    pub(super) fn distrust(&self, link: LinkId, reason: &'static str, fx: &mut Fx) {
        self.dropped(reason, fx);
        fx.hangup(link);
    }

    /// Takes a bundle, from its author or from another member that holds it.
    fn on_bundle(&mut self, link: LinkId, bundle: Arc<Bundle>, fx: &mut Fx) {
        let Some(key) = self.committee().key(bundle.author).copied() else {
            return self.dropped("a bundle of no member", fx);
        };
        let marks = &self.chain.settled().marks;
        if marks.last(bundle.origin()).is_none_or(|last| bundle.last() <= last) {
            return;
        }
        if bundle.cost() > BUNDLE_COST_MAX {
            return self.distrust(link, "a bundle that is too long", fx);
        }
        let statement = bundle.statement();
        let digest = statement.digest(&self.group);
        let share = Pool::share(&self.config, self.committee().len());
        if !self.pool.takes((&digest, &bundle), marks, share) {
            return;
        }
        let is_signed = bundle.is_valid(&self.group, &statement, &key);
        if !is_signed && self.config.keeps(BftRule::Author) {
            return self.distrust(link, "a bundle with a bad signature", fx);
        }
        let (author, is_due) = (bundle.author, marks.skip(&bundle).is_some());
        self.pool.add(digest, bundle);
        if is_due {
            self.pool.shrink(author, &self.chain.settled().marks, share);
        }
        self.go_on(fx);
    }

    /// Takes a change that waits for its slot, if it is valid now.
    fn on_change(&mut self, link: Option<LinkId>, change: Arc<MembershipChange>, fx: &mut Fx) {
        let digest = change.digest(&self.group);
        let from = link.and_then(|it| self.links.get(it)?.member);
        if !self.pool.takes_change(from, &digest, &change) {
            return;
        }
        // Its signatures are many: a liar must not keep this member busy with them.
        if link.is_some_and(|it| !self.links.pay(it, CHANGE_COST)) {
            return self.dropped("a change beyond the sender's share", fx);
        }
        let tip = self.chain.settled();
        let place = (tip.epoch, tip.tip.slot.next());
        if change.apply(&self.group, place, &tip.committee).is_none() {
            return self.dropped("a change that is not valid now", fx);
        }
        self.pool.add_change(digest, change);
        self.mind_leader(fx);
        self.go_on(fx);
    }

    /// Consents to a change.
    pub(super) fn approve(&mut self, change: MembershipChange, fx: &mut Fx) {
        let digest = change.digest(&self.group);
        let epoch = self.epoch();
        let approval = Approval::sign(&self.group, epoch, &digest, self.signer());
        self.send_all(Message::Approve(Approve { epoch, change: change.clone(), approval }), fx);
        self.count_consent(change, approval, fx);
    }

    fn on_approve(&mut self, (link, member): (LinkId, MemberId), it: Approve, fx: &mut Fx) {
        if it.approval.member != member {
            return self.distrust(link, "it consents in another's name", fx);
        }
        let digest = it.change.digest(&self.group);
        let Some(key) = self.committee().key(member) else { return };
        if it.epoch != self.epoch() {
            return self.dropped("a consent of another epoch", fx);
        }
        if self.consents.get(&digest).is_some_and(|(_, given)| given.contains_key(&member)) {
            return;
        }
        if !it.approval.is_valid(&self.group, it.epoch, &digest, key) {
            return self.distrust(link, "a consent with a bad signature", fx);
        }
        self.count_consent(it.change, it.approval, fx);
    }

    /// Offers a change once a quorum has consented (B26).
    fn count_consent(&mut self, change: MembershipChange, approval: Approval, fx: &mut Fx) {
        let digest = change.digest(&self.group);
        // Consents come one by one: those that came with the change are a liar's or repeats.
        let Some(change) = change.with_approvals(Vec::new()) else {
            return self.dropped("a consent to what needs none", fx);
        };
        let member = approval.member;
        let own = self.consents.values().filter(|(_, given)| given.contains_key(&member)).count();
        if own >= CONSENTS_MAX {
            return self.dropped("a consent of a member that consents to too much", fx);
        }
        let (_, given) =
            self.consents.entry(digest).or_insert_with(|| (change.clone(), BTreeMap::new()));
        given.insert(approval.member, approval);
        let consents: Vec<_> = given.values().copied().collect();
        if consents.len() < self.committee().quorum() {
            return;
        }
        let Some(change) = change.with_approvals(consents).map(Arc::new) else { return };
        self.send_all(Message::Change(Arc::clone(&change)), fx);
        self.on_change(None, change, fx);
    }

    /// Keeps and tells that a member has signed two statements that exclude each other (B24).
    pub(super) fn accuse(&mut self, lie: Equivocation, fx: &mut Fx) {
        let lie = Arc::new(lie);
        let liar = lie.member();
        if self.evidence.contains_key(&liar) {
            return;
        }
        self.evidence.insert(liar, Arc::clone(&lie));
        self.disk.write(Record::Evidence(Arc::clone(&lie)), fx);
        self.send_all(Message::Evidence(Arc::clone(&lie)), fx);
        fx.emit(Event::Equivocation(lie));
        if self.leader() == liar {
            let next = self.views.view().next();
            self.wish(next, "its leader has signed two things", fx);
        }
    }

    fn on_evidence(&mut self, link: LinkId, lie: Arc<Equivocation>, fx: &mut Fx) {
        if lie.epoch() != self.epoch() || self.evidence.contains_key(&lie.member()) {
            return;
        }
        let Some(key) = self.committee().key(lie.member()) else { return };
        if lie.is_valid(&self.group, key) {
            self.accuse(Arc::unwrap_or_clone(lie), fx);
        } else {
            self.distrust(link, "evidence that proves nothing", fx);
        }
    }
}
