//! Catching up with final slots, and fetching what is missing of others (rules B12, B21, B22).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::chain::Path;
use super::config::BftRule;
use super::event::{ExtraEffect, Timer};
use super::replica::{BftReplica, Fx};
use crate::machine::LinkId;
use crate::proto::bft::header::SLOT_COST_MAX;
use crate::proto::bft::message::{
    BundleReq, ChainReq, ChainResp, DIGESTS_MAX, Message, SLOTS_MAX, SlotContent, SlotReq, SlotResp,
};
use crate::proto::bft::{
    Bundle, Certificate, ContentDigest, MembershipChange, SlotHeader, SlotNo, VotePhase,
};

/// Pause before missing contents are asked for: they are mostly on their way.
const FETCH_FIRST: Duration = Duration::from_millis(20);

/// Pause before they are asked for again, of another member.
const FETCH_AGAIN: Duration = Duration::from_millis(150);

/// Time for which a member that has answered wrongly is not asked.
const DISTRUST: Duration = Duration::from_secs(10);

/// Time after which an answer is not waited for any more.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Pause before the same slots are asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(150);

/// Costs of answers with one slot's headers, and with contents.
const CHAIN_COST: u32 = 4;
const BUNDLES_COST: u32 = 16;

/// Cost of slots for an observer: anybody may be one.
const OBSERVER_COST: u32 = 16;

/// Bytes of contents in the answer to one request.
const BUNDLES_BYTES_MAX: usize = 1 << 20;

/// Bytes that a change is counted as.
const CHANGE_BYTES: usize = 16 << 10;

/// Bytes of headers in one `CHAIN_RESP`.
const HEADERS_COST_MAX: usize = 131_072;

/// A part of a slot's content.
enum SlotPart {
    /// Messages of one author.
    Bundle(Arc<Bundle>),
    /// A change of the committee.
    Change(Arc<MembershipChange>),
}

/// Contents that are missing here.
#[derive(Debug, Default)]
struct Missing {
    headers: Vec<ContentDigest>,
    bundles: Vec<ContentDigest>,
}

impl BftReplica {
    /// Asks a member for the final slots that are missing here, if it has them.
    pub(super) fn catch_up(&mut self, link: LinkId, fx: &mut Fx) {
        let (now, next) = (self.now.mono, self.chain.settled().tip.slot.next());
        let Some(it) = self.links.get_mut(link) else { return };
        let has_more = it.status.is_some_and(|status| status.slot >= next);
        // The next question comes only after progress, or a while.
        let is_asked = it.asked.is_some_and(|(from, at)| {
            let pause = if it.is_asked { ANSWER_MAX } else { ASK_AGAIN };
            (it.is_asked || from == next) && now.since(at) < pause
        });
        if !has_more || is_asked || it.distrusted.is_some_and(|until| now < until) {
            return;
        }
        (it.asked, it.is_asked) = (Some((next, now)), true);
        fx.send(link, Message::SlotReq(SlotReq { from: next }));
    }

    /// Answers a request for final slots, from memory or from the log.
    pub(super) fn on_slot_req(&mut self, link: LinkId, request: SlotReq, fx: &mut Fx) {
        let from = request.from;
        let first = self.chain.window().front().map(|it| it.content.header.slot);
        let Some(known) = self.links.get(link) else { return };
        let cost = if known.member.is_some() { 1 } else { OBSERVER_COST };
        if from.0 == 0 || from > self.chain.settled().tip.slot {
            return;
        }
        if !self.links.pay(link, cost) {
            return self.dropped("a request beyond the sender's share", fx);
        }
        if first.is_some_and(|first| first <= from) {
            if let Some(answer) = self.recent_slots(from) {
                fx.send(link, Message::SlotResp(answer));
            }
            return;
        }
        let Some(it) = self.links.get_mut(link) else { return };
        if std::mem::replace(&mut it.is_loading, true) {
            return;
        }
        let (slots_max, bytes_max) = (SLOTS_MAX, SLOT_COST_MAX);
        fx.extra(ExtraEffect::Load { link, from, slots_max, bytes_max });
    }

    /// Final slots in memory from this one on, as far as one message holds.
    fn recent_slots(&self, from: SlotNo) -> Option<SlotResp> {
        let first = self.chain.window().front()?.content.header.slot;
        let skip = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        let mut recent = self.chain.window().iter().skip(skip);
        let epoch = self.chain.window().get(skip)?.content.header.epoch;
        let (mut slots, mut headers, mut cost) = (Vec::new(), Vec::new(), 0);
        let mut last = None;
        for it in recent.by_ref() {
            if it.content.header.epoch != epoch {
                break;
            }
            let more: usize = it.content.bundles.iter().map(|it| it.cost()).sum();
            let is_full = slots.len() == SLOTS_MAX || cost + more > SLOT_COST_MAX;
            if !slots.is_empty() && is_full || !headers.is_empty() {
                // The rest only leads to a certificate.
                if last.is_some() {
                    break;
                }
                headers.push(it.content.header.clone());
            } else {
                cost += more;
                slots.push(Arc::clone(&it.content));
                last = None;
            }
            if it.certificate.is_some() {
                last.clone_from(&it.certificate);
            }
            if last.is_some() && !headers.is_empty() {
                break;
            }
        }
        Some(SlotResp { slots, headers, certificate: last? })
    }

    /// Sends slots that were read from the log.
    pub(super) fn on_loaded(
        &mut self,
        link: LinkId,
        slots: Vec<Arc<SlotContent>>,
        headers: Vec<SlotHeader>,
        certificate: Option<Certificate>,
        fx: &mut Fx,
    ) {
        if let Some(it) = self.links.get_mut(link) {
            it.is_loading = false;
            if let Some(certificate) = certificate.filter(|_| !slots.is_empty()) {
                fx.send(link, Message::SlotResp(SlotResp { slots, headers, certificate }));
            }
        }
    }

    /// Takes final slots, which the certificate of the last proves (B21).
    pub(super) fn on_slot_resp(&mut self, link: LinkId, answer: SlotResp, fx: &mut Fx) {
        let until = self.now.mono.after(DISTRUST);
        let next = self.chain.settled().tip.slot.next();
        let Some(it) = self.links.get_mut(link) else { return };
        if !std::mem::take(&mut it.is_asked) {
            return self.dropped("slots that were not asked for", fx);
        }
        let is_old = answer.slots.last().is_none_or(|it| it.header.slot < next);
        if is_old {
            return self.catch_up(link, fx);
        }
        if !self.take_slots(answer, fx) {
            if let Some(it) = self.links.get_mut(link) {
                it.distrusted = Some(until);
            }
            self.dropped("slots that their certificate does not prove", fx);
            return self.catch_up_elsewhere(fx);
        }
        self.catch_up(link, fx);
        self.go_on(fx);
    }

    fn catch_up_elsewhere(&mut self, fx: &mut Fx) {
        for link in self.links.ids().collect::<Vec<_>>() {
            self.catch_up(link, fx);
        }
    }

    /// Makes slots final that follow the last final one; false if they do not, or are not proved.
    fn take_slots(&mut self, answer: SlotResp, fx: &mut Fx) -> bool {
        let SlotResp { slots, headers, certificate } = answer;
        let last = self.chain.settled().tip;
        let subject = certificate.subject;
        if slots.len() > SLOTS_MAX || headers.len() > SLOTS_MAX {
            return false;
        }
        let mut parent = last.digest;
        let mut number = last.slot;
        let mut checked = Vec::new();
        let new = slots.into_iter().skip_while(|it| it.header.slot <= last.slot);
        for content in new {
            number = number.next();
            let digest = self.digest_of(&content.header);
            if content.header.slot != number || content.header.parent != parent {
                return false;
            }
            parent = digest;
            checked.push((digest, content));
        }
        let Some((newest, _)) = checked.last() else { return false };
        let newest = *newest;
        for header in &headers {
            number = number.next();
            if header.slot != number || header.parent != parent {
                return false;
            }
            parent = self.digest_of(header);
        }
        let is_proved = certificate.phase == VotePhase::Commit
            && subject.epoch == self.epoch()
            && (subject.slot, subject.digest) == (number, parent)
            && self.is_certified(&certificate);
        if !is_proved && self.config.keeps(BftRule::Catchup) {
            return false;
        }
        // Only now: a liar must not keep this member busy with signatures of what nobody proves.
        if !checked.iter().all(|(_, content)| self.is_genuine(content)) {
            return false;
        }
        let slot = checked.last().map_or(last.slot, |(_, it)| it.header.slot);
        let is_accepted = self.chain.accepted_at(slot).is_some_and(|it| it.digest == newest);
        if !is_accepted {
            self.chain.rewind();
            if !self.accept_proved(&checked, fx) {
                self.chain.rewind();
                return false;
            }
        }
        if certificate.subject.slot == slot {
            self.settle(certificate, fx);
        } else {
            // Its own certificate follows with the slot that it is of.
            self.settle_up_to(slot, None, fx);
        }
        true
    }

    /// True if the content of a slot is what its header names, and its authors have signed it.
    fn is_genuine(&self, content: &SlotContent) -> bool {
        let header = &content.header;
        let change = content.change.as_ref().map(|it| it.digest(&self.group));
        let bundles = content.bundles.iter().zip(&header.bundles);
        change == header.change
            && content.bundles.len() == header.bundles.len()
            && bundles.into_iter().all(|(bundle, named)| {
                let statement = bundle.statement();
                statement.digest(&self.group) == named.digest
                    && (!self.config.keeps(BftRule::Author)
                        || self
                            .committee()
                            .key(bundle.author)
                            .is_some_and(|key| bundle.is_valid(&self.group, &statement, key)))
            })
    }

    /// Asks for what is missing after a short time, in which it mostly comes.
    pub(super) fn fetch_soon(&mut self, fx: &mut Fx) {
        if !std::mem::replace(&mut self.is_fetching, true) {
            self.has_asked_leader = false;
            let missing = self.missing();
            self.pool.want(missing.bundles);
            fx.set_timer(Timer::Fetch, FETCH_FIRST);
        }
    }

    /// Ends the asking, for what was missing is here. What is missing next is asked for at once.
    pub(super) fn end_fetch(&mut self, fx: &mut Fx) {
        if std::mem::take(&mut self.is_fetching) {
            fx.stop_timer(Timer::Fetch);
        }
    }

    /// Contents that a proposal, the beginning of a view or a claim needs.
    fn missing(&self) -> Missing {
        let mut missing = Missing::default();
        let next = self.chain.tip().tip.slot.next();
        if let Some(proposal) = self.proposals.get(&next) {
            let digest = self.digest_of(&proposal.header);
            if let Err(bundles) = self.chain.body(&digest, &proposal.header, &self.pool) {
                missing.bundles.extend(bundles);
            }
        }
        let mut bases: Vec<_> = self.views.waiting().and_then(|it| it.base()).into_iter().collect();
        if !self.views.is_active() && self.leads() {
            bases.extend(self.views.changes().map(|it| it.signed.claim));
        }
        let last = self.chain.settled().tip.slot;
        for base in bases.into_iter().filter(|it| it.slot > last) {
            match self.chain.path(base.slot, base.digest) {
                Path::NoHeader(digest) => missing.headers.push(digest),
                Path::Elsewhere => {}
                Path::Whole(headers) => {
                    for header in headers {
                        let digest = self.digest_of(&header);
                        if let Err(them) = self.chain.body(&digest, &header, &self.pool) {
                            missing.bundles.extend(them);
                        }
                    }
                }
            }
        }
        missing.bundles.sort_unstable();
        missing.bundles.dedup();
        missing.bundles.truncate(DIGESTS_MAX);
        missing
    }

    /// Asks one member for what is missing: first the leader, who has what it proposes, then by
    /// turns any member and the leader.
    pub(super) fn on_fetch(&mut self, fx: &mut Fx) {
        self.is_fetching = false;
        let asks_leader = !self.has_asked_leader;
        self.has_asked_leader = asks_leader;
        let missing = self.missing();
        let members: Vec<_> = self.links.members().map(|(_, link)| link).collect();
        if members.is_empty() || missing.headers.is_empty() && missing.bundles.is_empty() {
            return;
        }
        let any = members[self.rng.random_range(0..members.len())];
        let leader = self.links.of(self.leader()).filter(|_| asks_leader);
        let link = leader.unwrap_or(any);
        let above = self.chain.settled().tip.slot;
        for digest in missing.headers {
            fx.send(link, Message::ChainReq(ChainReq { digest, above }));
        }
        if !missing.bundles.is_empty() {
            self.pool.want(missing.bundles.iter().copied());
            fx.send(link, Message::BundleReq(BundleReq { digests: missing.bundles }));
        }
        self.is_fetching = true;
        fx.set_timer(Timer::Fetch, FETCH_AGAIN);
    }

    /// Answers with headers from the one that is asked for downwards.
    pub(super) fn on_chain_req(&mut self, link: LinkId, request: ChainReq, fx: &mut Fx) {
        if !self.links.pay(link, CHAIN_COST) {
            return self.dropped("a request beyond the sender's share", fx);
        }
        let (mut headers, mut wanted, mut cost) = (Vec::new(), request.digest, 0);
        while let Some(header) = self.header_at(&wanted) {
            cost += 400 + 128 * header.bundles.len();
            if header.slot <= request.above || cost > HEADERS_COST_MAX {
                break;
            }
            wanted = header.parent;
            headers.push(header.clone());
        }
        if !headers.is_empty() {
            headers.reverse();
            fx.send(link, Message::ChainResp(ChainResp { headers }));
        }
    }

    fn header_at(&self, digest: &ContentDigest) -> Option<&SlotHeader> {
        let recent = usize::try_from(4 * self.config.window).unwrap_or(usize::MAX);
        let mut window = self.chain.window().iter().rev().take(recent);
        let settled = window.find(|it| it.digest == *digest).map(|it| &it.content.header);
        self.chain.header(digest).or(settled)
    }

    /// Takes headers that a certificate, or a header behind them, names.
    pub(super) fn on_chain_resp(&mut self, answer: ChainResp, fx: &mut Fx) {
        let mut wanted = self.missing().headers;
        let mut is_new = false;
        for header in answer.headers.into_iter().rev().take(SLOTS_MAX) {
            let digest = self.digest_of(&header);
            if !wanted.contains(&digest) {
                break;
            }
            wanted.push(header.parent);
            self.chain.add_header(digest, header);
            is_new = true;
        }
        if is_new {
            self.go_on(fx);
        } else {
            self.dropped("headers that were not asked for", fx);
        }
    }

    /// Answers with the bundles and changes that are here.
    pub(super) fn on_bundle_req(&mut self, link: LinkId, request: &BundleReq, fx: &mut Fx) {
        if !self.links.pay(link, BUNDLES_COST) {
            return self.dropped("a request beyond the sender's share", fx);
        }
        let wanted: BTreeSet<_> = request.digests.iter().take(DIGESTS_MAX).collect();
        let mut left = BUNDLES_BYTES_MAX;
        for content in wanted.into_iter().filter_map(|it| self.content_of(it)) {
            let cost = match &content {
                SlotPart::Bundle(bundle) => bundle.cost(),
                SlotPart::Change(_) => CHANGE_BYTES,
            };
            // What finds no room is asked for again.
            let Some(rest) = left.checked_sub(cost) else { return };
            left = rest;
            fx.send(
                link,
                match content {
                    SlotPart::Bundle(bundle) => Message::Bundle(bundle),
                    SlotPart::Change(change) => Message::Change(change),
                },
            );
        }
    }

    /// The bundle or change of this digest, if it is here.
    fn content_of(&self, digest: &ContentDigest) -> Option<SlotPart> {
        if let Some(bundle) = self.pool.bundle(digest) {
            return Some(SlotPart::Bundle(Arc::clone(bundle)));
        }
        if let Some(change) = self.pool.change(digest) {
            return Some(SlotPart::Change(Arc::clone(change)));
        }
        let recent = usize::try_from(4 * self.config.window).unwrap_or(usize::MAX);
        self.chain.recent(recent).find_map(|content| {
            let at = content.header.bundles.iter().position(|it| it.digest == *digest);
            let bundle = at.and_then(|at| content.bundles.get(at));
            let change = content.change.as_ref();
            let change = change.filter(|_| content.header.change == Some(*digest));
            let bundle = bundle.map(|it| SlotPart::Bundle(Arc::clone(it)));
            bundle.or_else(|| change.map(|it| SlotPart::Change(Arc::clone(it))))
        })
    }
}
