//! A seed's view of the overlay: neighbor lists, members without a link, parts that are cut off.
//!
//! Neighbor lists are the peers' own signed statements and are soft state: they are not on disk,
//! and decide nothing but which members' findings count as a witness's (M6). A member that no seed
//! is linked with and that all its neighbors lost at once would be missed by every node; the audit
//! finds it, and its witnesses are asked from here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Authority, Event, Fx, LISTS_PAUSE, Timer};
use crate::machine::LinkId;
use crate::machine::probe::ProbeOutcome;
use crate::machine::session::RejectReason;
use crate::model::statement::{MemberInstance, NeighborList, ProposalKind};
use crate::model::{Endpoint, Incarnation, Now};
use crate::proto::hello::NodeInfo;
use crate::proto::liveness::SuspectReq;
use crate::proto::membership::LinkHint;
use rand::seq::IteratorRandom as _;

/// Time that a member whose link broke has to come back before it is probed. Its neighbors will
/// have noticed a crash long before; the probe is for members without neighbors.
const ORPHAN_PATIENCE: Duration = Duration::from_millis(1_500);

/// Interval between two looks for members without neighbors; a member without one at two looks is
/// told of. Shorter would blame those that have just come, or whose neighbors have just gone.
const ISOLATED_LOOK: Duration = Duration::from_secs(30);

/// Number of neighbor lists in one portion for a seed that has just come.
const LISTS_PORTION: usize = 128;

/// Number of removals of earlier lives of one endpoint voted for, above which this seed vouches for
/// no more: a lying seed must not fill the journal with votes on lives that never were.
const VOUCHED_MAX: usize = 16;

impl Authority {
    /// Takes a member's statement of its neighbors, from itself or relayed by a seed.
    pub fn on_neighbors(&mut self, link: LinkId, from: &NodeInfo, list: NeighborList, fx: &mut Fx) {
        let is_relayed = from.seed.is_some();
        if !is_relayed && list.endpoint != from.endpoint {
            return self.refuse(link, RejectReason::Forged, "a list in another member's name", fx);
        }
        if list.neighbors.len() > self.config.neighbors_max {
            let reason = format!("more than {} neighbors", self.config.neighbors_max);
            return self.refuse(link, RejectReason::TooMany, reason, fx);
        }
        let Some(member) = self.registry.alive_at(list.endpoint) else { return };
        let known = self.lists.get(&list.endpoint);
        let is_news = known.is_none_or(|known| {
            (known.incarnation, known.version) < (list.incarnation, list.version)
        });
        if member.subject.incarnation != list.incarnation || !is_news {
            return;
        }
        if !list.is_valid(&member.subject.key) {
            return self.refuse(
                link,
                RejectReason::Forged,
                "the list's signature does not hold",
                fx,
            );
        }
        if !is_relayed {
            self.send_to_seeds(&list.clone().into(), None, fx);
        }
        self.overlay_changed = true;
        self.lists.insert(list.endpoint, list);
    }

    /// The neighbors that a member named last.
    pub fn neighbors_of(&self, endpoint: Endpoint) -> &[Endpoint] {
        self.lists.get(&endpoint).map_or(&[], |list| &list.neighbors)
    }

    /// Sends seeds that have just come the neighbor lists that are known, in portions.
    pub(super) fn on_lists_timer(&mut self, fx: &mut Fx) {
        use std::ops::Bound::{Excluded, Unbounded};
        for (seed, after) in std::mem::take(&mut self.lists_owed) {
            let Some(link) = self.seed_links.get(&seed) else { continue };
            let rest = self.lists.range((after.map_or(Unbounded, Excluded), Unbounded));
            let mut last = None;
            for (endpoint, list) in rest.take(LISTS_PORTION) {
                fx.send(*link, list.clone());
                last = Some(*endpoint);
            }
            if last.is_some() {
                self.lists_owed.insert(seed, last);
                fx.set_timer(Timer::Lists, LISTS_PAUSE);
            }
        }
    }

    /// Takes the break of a member's link. A crash breaks it without a goodbye; this seed then
    /// probes at once, so that it has its own finding when the neighbors' reports come.
    pub(super) fn lost_member(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        is_agreed: bool,
        fx: &mut Fx,
    ) {
        if self.registry.alive_at(endpoint).is_none() {
            return;
        }
        self.unlinked.insert(endpoint, now.mono);
        fx.set_timer(Timer::Orphan(endpoint), ORPHAN_PATIENCE);
        if !is_agreed {
            self.lost.insert(endpoint, now.mono);
            self.audit(endpoint, fx);
        }
    }

    pub(super) fn on_orphan_timer(&mut self, endpoint: Endpoint, fx: &mut Fx) {
        self.lost.remove(&endpoint);
        if self.unlinked.contains_key(&endpoint) {
            self.audit(endpoint, fx);
        }
    }

    pub(super) fn on_audit_timer(&mut self, now: Now, fx: &mut Fx) {
        if !self.health.timer_fired(now.mono.since(self.audit_due)) {
            self.health.quiet_round();
        }
        self.audit_due = now.mono.after(self.config.audit_interval);
        fx.set_timer(Timer::Audit, self.config.audit_interval);
        let patience = self.config.audit_after;
        let due: Vec<_> = self
            .unlinked
            .iter()
            .filter(|(_, since)| now.mono.since(**since) >= patience)
            .map(|(endpoint, _)| *endpoint)
            .sample(&mut self.rng, self.config.audit_batch);
        for endpoint in due {
            self.unlinked.insert(endpoint, now.mono);
            self.audit(endpoint, fx);
        }
    }

    fn audit(&mut self, endpoint: Endpoint, fx: &mut Fx) {
        self.audits.insert(endpoint);
        let timeout = self.health.stretch(self.config.probe_timeout);
        fx.emit(Event::Probe { endpoint, timeout });
    }

    /// Takes the outcome of an audit: if the member did not answer, its neighbors and the other
    /// seeds are asked.
    pub(super) fn probed_orphan(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        outcome: &ProbeOutcome,
        fx: &mut Fx,
    ) {
        if !self.audits.remove(&endpoint) {
            return;
        }
        let Some(subject) = self.registry.alive_at(endpoint).map(|entry| entry.subject) else {
            return;
        };
        let Some(finding) = outcome.finding(&subject) else { return };
        if finding.is_dead() && self.unlinked.contains_key(&endpoint) {
            self.open_removal(now, &subject, fx);
            self.own_probe_done(now, &subject, finding, fx);
            // The other seeds are linked with other witnesses.
            let MemberInstance { endpoint, incarnation, key } = subject;
            self.send_to_seeds(&SuspectReq { endpoint, incarnation, key }.into(), None, fx);
        }
    }

    /// Takes the request of another seed that does not reach a member: probes it, and asks the
    /// witnesses that this seed can reach.
    pub fn on_suspect_req(&mut self, now: Now, link: LinkId, request: SuspectReq, fx: &mut Fx) {
        let subject = request.subject();
        if self.seed_of(link).is_none() {
            let reason = "a seed testifies in votes only";
            return self.refuse(link, RejectReason::WrongRole, reason, fx);
        }
        if self.registry.is_alive(&subject) {
            self.open_removal(now, &subject, fx);
            self.probe_suspect(&subject, fx);
        } else {
            self.vouch_for_end(now, link, subject, fx);
        }
    }

    /// Vouches for the end of a life that another seed still lists and whose end this seed has
    /// forgotten: the other was away for longer than tombstones last. This seed's yes takes the
    /// place of the proof that no seed has any more.
    fn vouch_for_end(&mut self, now: Now, link: LinkId, subject: MemberInstance, fx: &mut Fx) {
        let MemberInstance { endpoint, incarnation, .. } = subject;
        let floor = self.registry.floor(endpoint).filter(|floor| incarnation <= *floor);
        let kind = ProposalKind::Remove;
        if floor.is_none() || self.registry.get(endpoint).is_some() || !self.ready {
            return;
        }
        let cast_vote = match self.vote_given(kind, &subject).cloned() {
            Some(cast_vote) if cast_vote.lives.contains(&subject) => cast_vote,
            Some(_) => return, // To another key of this life: never twice (M2).
            None => {
                let past = (endpoint, Incarnation::default(), kind)..(endpoint, incarnation, kind);
                let is_removal = |(what, _): &(&(_, _, ProposalKind), _)| what.2 == kind;
                if self.cast_votes.range(past).filter(is_removal).count() >= VOUCHED_MAX {
                    return;
                }
                self.vote(now, kind, vec![subject], fx)
            }
        };
        fx.send(link, self.said_yes(&cast_vote));
    }

    /// Advises the parts of the overlay that are cut off from the largest one (O2).
    pub(super) fn hint_links(&mut self, fx: &mut Fx) {
        if !std::mem::take(&mut self.overlay_changed) {
            return;
        }
        let mut parts = self.parts();
        parts.sort_by_key(BTreeSet::len);
        let Some(largest) = parts.pop() else { return };
        for part in parts {
            // Looked at again next time, in case the advice is lost.
            self.overlay_changed = true;
            let link = part.iter().find_map(|member| self.member_links.get(member));
            let target = largest.iter().choose(&mut self.rng);
            if let (Some(link), Some(target)) = (link, target) {
                fx.send(*link, LinkHint { endpoint: *target });
            }
        }
    }

    /// Tells of members that the seeds reach, so that they are not removed, but that have no
    /// neighbor: packets are lost on their way to other members.
    pub(super) fn seek_isolated(&mut self, now: Now, fx: &mut Fx) {
        if now.mono < self.isolated_due || self.quorum_reached != Some(true) {
            return;
        }
        self.isolated_due = now.mono.after(ISOLATED_LOOK);
        let has_others = self.registry.alive_count() > 1;
        let members = self.registry.alive().map(|entry| entry.subject.endpoint);
        let alone: BTreeSet<_> =
            members.filter(|it| has_others && self.neighbors_of(*it).is_empty()).collect();
        let (mut lasting, mut over) = (Vec::new(), Vec::new());
        for (endpoint, is_told) in std::mem::take(&mut self.isolated) {
            if alone.contains(&endpoint) {
                lasting.extend((!is_told).then_some(endpoint));
                self.isolated.insert(endpoint, true);
            } else if is_told && self.registry.alive_at(endpoint).is_some() {
                over.push(endpoint);
            }
        }
        for endpoint in alone {
            self.isolated.entry(endpoint).or_insert(false);
        }
        for (members, alone) in [(lasting, true), (over, false)] {
            if !members.is_empty() {
                fx.emit(Event::Isolated { members, alone });
            }
        }
    }

    /// The connected parts of the overlay, among the members that have named neighbors.
    fn parts(&self) -> Vec<BTreeSet<Endpoint>> {
        let mut links: BTreeMap<Endpoint, BTreeSet<Endpoint>> = BTreeMap::new();
        for (endpoint, list) in &self.lists {
            links.entry(*endpoint).or_default();
            for neighbor in list.neighbors.iter().filter(|it| self.lists.contains_key(it)) {
                links.entry(*endpoint).or_default().insert(*neighbor);
                links.entry(*neighbor).or_default().insert(*endpoint);
            }
        }
        let mut parts = Vec::new();
        let mut left: BTreeSet<_> = links.keys().copied().collect();
        while let Some(first) = left.pop_first() {
            let mut part = BTreeSet::from([first]);
            let mut open = vec![first];
            while let Some(next) = open.pop() {
                for neighbor in links.get(&next).into_iter().flatten() {
                    if left.remove(neighbor) {
                        part.insert(*neighbor);
                        open.push(*neighbor);
                    }
                }
            }
            parts.push(part);
        }
        parts
    }
}
