//! The change from one view to the next (rules B9–B13, B16, B17, B25).

use std::sync::Arc;

use super::chain::Path;
use super::config::{BftRule, VIEW_MAX};
use super::event::{Event, Timer};
use super::replica::{BftReplica, Fx};
use super::views::Views;
use crate::machine::LinkId;
use crate::proto::bft::message::Message;
use crate::proto::bft::view::{NewView, SignedClaim, Suspect, ViewChange};
use crate::proto::bft::{Certificate, Claim, ClaimKind, Equivocation, ViewNo, VotePhase};
use crate::proto::chat::entry::MemberId;

/// Costs of another member's wish and claim: signatures to check, and lines for people.
const WISH_COST: u32 = 16;
const CLAIM_COST: u32 = 8;

impl BftReplica {
    /// Wishes for a view; promises nothing, and goes on in the present one (B16).
    pub(super) fn wish(&mut self, view: ViewNo, reason: &str, fx: &mut Fx) {
        if !self.is_member() || view <= self.views.view() {
            return;
        }
        let wish = Suspect::sign(&self.group, (self.epoch(), view), reason, self.signer());
        if !self.views.wish(wish.clone()) {
            return;
        }
        let reason = wish.reason.clone();
        fx.emit(Event::Suspected { by: self.me.id, view, reason });
        self.send_all(Message::Suspect(wish), fx);
        if !self.config.keeps(BftRule::Wish) {
            return self.enter(view, fx);
        }
        self.follow_wishes(fx);
    }

    /// Takes another member's wish.
    pub(super) fn on_suspect(
        &mut self,
        (link, member): (LinkId, MemberId),
        wish: &Suspect,
        fx: &mut Fx,
    ) {
        if wish.sender_id != member {
            return self.distrust(link, "it wishes in another's name", fx);
        }
        if wish.epoch != self.epoch() {
            return self.dropped("a wish of another epoch", fx);
        }
        let Some(key) = self.committee().key(member).copied() else { return };
        if self.views.wish_of(member).is_some_and(|it| it.view >= wish.view) {
            return;
        }
        if wish.view.0 > VIEW_MAX || !self.links.pay(link, WISH_COST) {
            return self.dropped("a wish too far ahead, or beyond the sender's share", fx);
        }
        if !wish.is_valid(&self.group, &key) {
            return self.distrust(link, "a wish with a bad signature", fx);
        }
        let (view, reason) = (wish.view, wish.reason.chars().take(200).collect());
        let wish = Suspect { reason, ..wish.clone() };
        let reason = wish.reason.clone();
        if self.views.wish(wish) && view > self.views.view() {
            fx.emit(Event::Suspected { by: member, view, reason });
        }
        self.follow_wishes(fx);
    }

    /// Raises this member's wish, and enters a view that a quorum wishes for (B16).
    fn follow_wishes(&mut self, fx: &mut Fx) {
        let raising = Views::raising(self.committee());
        if let Some(view) = self.views.wished_by(raising)
            && self.views.wish_of(self.me.id).is_none_or(|it| it.view < view)
        {
            self.wish(view, "others wish for it", fx);
        }
        if let Some(view) = self.views.wished_by(self.quorum())
            && view > self.views.view()
        {
            self.enter(view, fx);
        }
    }

    /// Enters a view that has not begun: no vote in a lower one follows (B9).
    fn enter(&mut self, view: ViewNo, fx: &mut Fx) {
        self.views.enter(view);
        self.prune_votes();
        self.proposals.clear();
        self.given.clear();
        fx.stop_timer(Timer::Reign);
        self.restart_patience(fx);
        self.mind_leader(fx);
        self.claim_view(fx);
    }

    /// Sends the claim with which this member enters the view, once it may (B11).
    pub(super) fn claim_view(&mut self, fx: &mut Fx) {
        let view = self.views.view();
        if self.views.is_active() || !self.may_vote() {
            return;
        }
        if self.views.change_of(self.me.id).is_none() {
            let certificate = self.claim.clone().filter(|it| it.subject.epoch == self.epoch());
            if certificate.as_ref().is_some_and(|it| it.subject.view >= view) {
                // The view has begun elsewhere, so it needs no claim any more; and one that is of
                // the view itself, or a later one, would be taken for a liar's.
                return;
            }
            let claim = certificate.as_ref().map_or_else(|| self.epoch_start(), Claim::of);
            let epoch = self.epoch();
            let signed = SignedClaim::sign(&self.group, (epoch, view), claim, self.signer());
            let change = Arc::new(ViewChange { epoch, view, signed, certificate });
            self.views.on_change(Arc::clone(&change));
            let record = self.disk.promise(epoch, view, fx);
            self.say_after(record, Message::ViewChange(change), fx);
        }
        self.try_new_view(fx);
        self.release(fx);
    }

    /// The claim of a member that has no certificate of the epoch.
    fn epoch_start(&self) -> Claim {
        let (slot, digest) = self.chain.settled().epoch_start;
        Claim { phase: ClaimKind::Start, view: ViewNo(0), slot, digest }
    }

    /// Takes another member's claim.
    pub(super) fn on_view_change(
        &mut self,
        (link, member): (LinkId, MemberId),
        change: Arc<ViewChange>,
        fx: &mut Fx,
    ) {
        let ViewChange { epoch, view, signed, .. } = &*change;
        if signed.sender_id != member {
            return self.distrust(link, "it claims in another's name", fx);
        }
        if self.views.knows_change(&change) {
            return self.check_claim(member, &change, fx);
        }
        if !self.links.pay(link, CLAIM_COST) {
            return self.dropped("a claim beyond the sender's share", fx);
        }
        let Some(key) = self.committee().key(member).copied() else { return };
        if !signed.is_valid(&self.group, (*epoch, *view), &key) {
            return self.distrust(link, "a claim with a bad signature", fx);
        }
        if *epoch != self.epoch() {
            self.recall.hear_change(&change);
            return self.dropped("a claim of another epoch", fx);
        }
        if !self.is_claim_proved(*view, &signed.claim, change.certificate.as_ref()) {
            return self.distrust(link, "a claim that its certificate does not prove", fx);
        }
        self.recall.hear_change(&change);
        self.check_claim(member, &change, fx);
        if self.views.on_change(change) {
            self.try_new_view(fx);
            self.release(fx);
        }
    }

    /// Looks whether a claim hides a COMMIT of its member (B24).
    fn check_claim(&mut self, member: MemberId, change: &Arc<ViewChange>, fx: &mut Fx) {
        let Some(key) = self.committee().key(member).copied() else { return };
        if self.evidence.contains_key(&member) {
            return;
        }
        for commit in self.recall.commits_of(member) {
            let lie = Equivocation::Claim { commit, change: Arc::clone(change) };
            if lie.is_valid(&self.group, &key) {
                return self.accuse(lie, fx);
            }
        }
    }

    /// True if a claim for this view is of the certificate that comes with it (B11).
    fn is_claim_proved(
        &self,
        view: ViewNo,
        claim: &Claim,
        certificate: Option<&Certificate>,
    ) -> bool {
        if !self.config.keeps(BftRule::ClaimProof) {
            return true;
        }
        match certificate {
            None => *claim == self.epoch_start(),
            Some(it) => {
                it.subject.epoch == self.epoch()
                    && it.subject.view < view
                    && Claim::of(it) == *claim
                    && self.is_certified(it)
            }
        }
    }

    /// True if a quorum of the present committee has signed a certificate.
    pub(super) fn is_certified(&self, certificate: &Certificate) -> bool {
        !self.config.keeps(BftRule::Signed)
            || certificate.is_valid(&self.group, self.committee())
            || !self.config.keeps(BftRule::Quorum) && certificate.signatures.len() >= self.quorum()
    }

    /// True if the content of a claim is here: the leader counts no other (B12).
    fn has_content(&self, claim: &Claim) -> bool {
        if !self.config.keeps(BftRule::BaseContent) {
            return true;
        }
        if claim.slot <= self.chain.settled().tip.slot {
            return true;
        }
        match self.chain.path(claim.slot, claim.digest) {
            Path::Whole(headers) => headers
                .iter()
                .all(|header| self.chain.body(&self.digest_of(header), header, &self.pool).is_ok()),
            Path::NoHeader(_) | Path::Elsewhere => false,
        }
    }

    /// Begins the view as its leader, once a quorum's claims are here (B12).
    pub(super) fn try_new_view(&mut self, fx: &mut Fx) {
        if self.views.is_active() || !self.leads() || !self.may_vote() {
            return;
        }
        let mut changes: Vec<_> = self.views.changes().cloned().collect();
        if self.views.change_of(self.me.id).is_none() {
            return;
        }
        let known = changes.len();
        changes.retain(|it| self.has_content(&it.signed.claim));
        if changes.len() < known {
            self.fetch_soon(fx);
        }
        let quorum = self.quorum();
        if changes.len() < quorum {
            return;
        }
        changes.sort_by_key(|it| std::cmp::Reverse(it.signed.claim.rank()));
        changes.truncate(quorum);
        let certificate = changes[0].certificate.clone();
        let mut claims: Vec<_> = changes.iter().map(|it| it.signed).collect();
        claims.sort_by_key(|it| it.sender_id);
        let (epoch, view) = (self.epoch(), self.views.view());
        let beginning =
            NewView::sign(&self.group, (epoch, view), claims, certificate, self.signer());
        let beginning = Arc::new(beginning);
        let record = self.disk.promise(epoch, view, fx);
        self.say_after(record, Message::NewView(Arc::clone(&beginning)), fx);
        self.begin_view(&beginning, fx);
    }

    /// Takes the beginning of a view from its leader.
    pub(super) fn on_new_view(
        &mut self,
        (link, member): (LinkId, MemberId),
        beginning: Arc<NewView>,
        fx: &mut Fx,
    ) {
        let NewView { sender_id, epoch, view, .. } = *beginning;
        if sender_id != member {
            return self.distrust(link, "it begins a view in another's name", fx);
        }
        if epoch != self.epoch() || view < self.views.view() || self.leader_of(view) != member {
            return self.dropped("the beginning of a view that is over or another's", fx);
        }
        if !beginning.is_bounded() {
            return self.distrust(link, "the beginning of a view that is too long", fx);
        }
        let Some(key) = self.committee().key(member) else { return };
        if !beginning.is_signed(&self.group, key) {
            return self.distrust(link, "the beginning of a view with a bad signature", fx);
        }
        if view == self.views.view() && self.views.is_active() {
            let first = self.views.new_view().cloned();
            if let Some(first) = first.filter(|it| it.base() != beginning.base()) {
                self.accuse(Equivocation::NewViews { first, second: beginning }, fx);
            }
            return;
        }
        if !self.is_well_founded(&beginning) {
            return self.distrust(link, "the beginning of a view without its quorum's claims", fx);
        }
        if view > self.views.view() {
            self.enter(view, fx);
        }
        self.begin_view(&beginning, fx);
    }

    /// True if a quorum's claims are there, and the highest of them is proved (B12).
    fn is_well_founded(&self, beginning: &NewView) -> bool {
        if !self.config.keeps(BftRule::Base) {
            return true;
        }
        let NewView { epoch, view, changes, certificate, .. } = beginning;
        let are_signed = || {
            changes.iter().all(|it| {
                let key = self.committee().key(it.sender_id);
                key.is_some_and(|key| it.is_valid(&self.group, (*epoch, *view), key))
            })
        };
        let are_distinct = changes.windows(2).all(|pair| pair[0].sender_id < pair[1].sender_id);
        let base = beginning.base();
        let is_proved = |base: Claim| self.is_claim_proved(*view, &base, certificate.as_ref());
        // Signatures come last: a liar must not keep this member busy with those of a long list.
        are_distinct
            && changes.len() >= self.quorum()
            && (are_signed() || !self.config.keeps(BftRule::Signed))
            && base.is_some_and(is_proved)
    }

    /// Goes on from the base of a view, once its content is here (B13).
    fn begin_view(&mut self, beginning: &Arc<NewView>, fx: &mut Fx) {
        let base = beginning.base().unwrap_or_else(|| self.epoch_start());
        let last = self.chain.settled().tip.slot;
        let mut slots = Vec::new();
        if base.slot > last {
            let headers = match self.chain.path(base.slot, base.digest) {
                Path::Whole(headers) => headers,
                Path::NoHeader(_) => {
                    self.views.wait_for(Arc::clone(beginning));
                    return self.fetch_soon(fx);
                }
                Path::Elsewhere => {
                    return self.dropped("a view that begins against the final slots", fx);
                }
            };
            for header in headers {
                let digest = self.digest_of(&header);
                let Ok(body) = self.chain.body(&digest, &header, &self.pool) else {
                    self.views.wait_for(Arc::clone(beginning));
                    return self.fetch_soon(fx);
                };
                slots.push((header, body));
            }
        }
        self.chain.rewind();
        for (header, body) in slots {
            let tip = self.chain.tip();
            let Some(placed) = tip.check(&self.group, &header, body, &self.config) else {
                self.chain.rewind();
                let slot = header.slot.0;
                let reason = format!("a quorum has prepared slot {slot}, which is wrong here");
                return fx.emit(Event::Stopped { reason });
            };
            self.chain.accept(placed);
        }
        self.views.activate(Arc::clone(beginning));
        let claimed = self.claim.as_ref().map(|it| it.subject.digest);
        self.chain.forget_others(claimed);
        let (epoch, view, leader) = (self.epoch(), self.views.view(), self.leader());
        fx.emit(Event::ViewBegan { epoch, view, leader });
        self.rest_reign(fx);
        self.restart_patience(fx);
        self.mind_leader(fx);
        match &beginning.certificate {
            Some(certificate) if certificate.phase == VotePhase::Commit => {
                self.settle(certificate.clone(), fx);
            }
            _ if base.slot > last => {
                self.prepare(base.slot, base.digest, fx);
                self.check_prepared(base.slot, fx);
                self.check_final(view, base.slot, fx);
            }
            _ => {}
        }
        self.accept_proposals(fx);
    }

    /// Tries again what waited for content.
    pub(super) fn go_on(&mut self, fx: &mut Fx) {
        if let Some(beginning) = self.views.waiting().cloned() {
            self.begin_view(&beginning, fx);
        }
        self.try_new_view(fx);
        self.accept_proposals(fx);
    }

    /// Begins a new epoch behind a change that is final (B19).
    pub(super) fn begin_epoch(&mut self, before: &crate::proto::bft::Committee, fx: &mut Fx) {
        let committee = Arc::clone(self.committee());
        self.views.begin_epoch(&self.config);
        self.votes.clear();
        self.proposals.clear();
        self.given.clear();
        self.consents.clear();
        self.claim = None;
        self.pool.begin_epoch(before, &committee);
        self.links.begin_epoch(before, &committee);
        let epoch = self.epoch();
        fx.emit(Event::EpochBegan { epoch, committee: Arc::clone(&committee) });
        for voter in committee.voters() {
            if self.links.of(voter.member.id).is_none() {
                self.dial(voter.member.clone(), fx);
            }
        }
        self.rest_reign(fx);
        self.check_life(fx);
        self.report_reach(fx);
    }

    /// Begins the time of a view anew (B25).
    pub(super) fn rest_reign(&self, fx: &mut Fx) {
        if !self.config.reign.is_zero() && self.committee().len() > 1 {
            fx.set_timer(Timer::Reign, self.config.reign);
        }
    }

    /// Watches whether the leader can lead (B17).
    pub(super) fn mind_leader(&self, fx: &mut Fx) {
        if self.leader_fault().is_some() && self.links.reached() > 0 {
            fx.set_timer(Timer::LeaderBroken, self.config.leader_broken);
        }
    }

    /// Reason why the leader can lead nobody now, if it is known. Two leaders in a row that have
    /// lost their memory must not cost the patience with each.
    fn leader_fault(&self) -> Option<&'static str> {
        let leader = self.leader();
        if leader == self.me.id {
            return self.recall.lost().map(|_| "it leads, and has lost what it had signed");
        }
        if self.links.of(leader).is_none() {
            return Some("the connection with its leader broke");
        }
        self.pool.renews(leader).then_some("its leader has lost what it had signed")
    }

    pub(super) fn on_leader_broken(&mut self, fx: &mut Fx) {
        if let Some(reason) = self.leader_fault() {
            let next = self.views.view().next();
            self.wish(next, reason, fx);
        }
    }

    /// Runs the patience with the leader while there is something to wait for (B17).
    pub(super) fn mind_patience(&mut self, fx: &mut Fx) {
        let is_waiting = !self.views.is_active()
            || !self.chain.accepted().is_empty()
            || !self.proposals.is_empty()
            || self.pool.has_due(&self.chain.settled().marks)
            || self.pool.changes().next().is_some();
        if is_waiting == self.is_patient || !self.config.keeps(BftRule::Patience) {
            return;
        }
        self.is_patient = is_waiting;
        if is_waiting {
            fx.set_timer(Timer::Patience, self.views.patience());
        } else {
            fx.stop_timer(Timer::Patience);
        }
    }

    pub(super) fn on_patience(&mut self, fx: &mut Fx) {
        self.is_patient = false;
        self.views.on_expired(&self.config);
        let next = self.views.view().next();
        let reason = match self.views.is_active() {
            true => "nothing has become final for too long",
            false => "its leader has not begun it",
        };
        self.wish(next, reason, fx);
    }
}
