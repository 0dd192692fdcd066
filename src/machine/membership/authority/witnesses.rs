//! Witnesses: members whose findings count, the number needed, and requests to the missing ones
//! (M6).

use std::collections::BTreeSet;

use rand::seq::IteratorRandom as _;

use super::removal::{OpenRemoval, OwnProbe, PROBE_PAUSE};
use super::{Authority, Event, Fx};
use crate::machine::quorum::witnesses_needed;
use crate::machine::session::RejectReason;
use crate::model::statement::{Confirmation, Finding, MemberInstance};
use crate::model::{Endpoint, Now};
use crate::proto::liveness::SuspectReq;

/// Number of members asked in place of neighbors, where a suspect has too few of those.
const SUBSTITUTES: usize = 3;

/// Reason why a finding of a witness that is no member here does not count.
const NO_MEMBER: &str = "a witness that is not a member";

/// Offense of a sender whose findings do not count for this reason. A witness may have left, or be
/// known elsewhere only: that is no forgery.
pub(super) fn blame(reason: &str) -> RejectReason {
    if reason == NO_MEMBER { RejectReason::Stale } else { RejectReason::Forged }
}

impl Authority {
    /// Returns the findings that hold, and the reason against one of the others.
    pub(super) fn check_all(
        &self,
        now: Now,
        subject: &MemberInstance,
        all: &[Confirmation],
    ) -> (Vec<Confirmation>, Option<&'static str>) {
        let mut complaint = None;
        let holds = |found: &&Confirmation| match self.check(now, subject, found) {
            Ok(()) => true,
            Err(reason) => {
                complaint = reason.or(complaint);
                false
            }
        };
        let valid = all.iter().filter(holds).copied().collect();
        (valid, complaint)
    }

    /// Checks that a finding speaks for a death; `Err(None)` when it is honest but does not.
    pub(super) fn check(
        &self,
        now: Now,
        subject: &MemberInstance,
        found: &Confirmation,
    ) -> Result<(), Option<&'static str>> {
        if !found.finding.is_dead() {
            return Err(None);
        }
        if found.subject() != *subject {
            return Err(Some("a finding about somebody else"));
        }
        let Some(witness) = self.registry.alive_at(found.witness) else {
            return Err(Some(NO_MEMBER));
        };
        if found.witness == subject.endpoint {
            return Err(Some("a suspect is no witness of its own death"));
        }
        if found.at.distance(now.wall) > self.config.evidence_skew {
            return Err(Some("a finding of long ago"));
        }
        let known = self.removals.get(subject).and_then(|c| c.confirmations.get(&found.witness));
        if known.is_some_and(|(known, _)| known == found) {
            return Ok(()); // Verified before.
        }
        if self.spent.get(&(*subject, found.witness)).is_some_and(|spent| found.at <= *spent) {
            return Err(Some("a finding that was used before"));
        }
        if found.is_valid(&witness.subject.key) {
            Ok(())
        } else {
            Err(Some("a finding whose signature does not hold"))
        }
    }

    pub(super) fn add_confirmations(
        &mut self,
        now: Now,
        subject: &MemberInstance,
        found: Vec<Confirmation>,
    ) {
        let Some(open_case) = self.removals.get_mut(subject) else { return };
        for found in found {
            let newer =
                open_case.confirmations.get(&found.witness).is_none_or(|(k, _)| k.at < found.at);
            if newer {
                open_case.confirmations.insert(found.witness, (found, now.mono));
                open_case.last_news = now.mono;
                // A witness still insists: an answer to an earlier probe may be out of date.
                if let OwnProbe::Done(Finding::Alive, at) = open_case.own_probe
                    && now.mono.since(at) >= PROBE_PAUSE
                {
                    open_case.own_probe = OwnProbe::Wanted;
                }
            }
        }
    }

    /// Returns the neighbors whose majority decides, and the number of findings needed (M6).
    pub(super) fn electorate(
        &self,
        subject: &MemberInstance,
        open_case: &OpenRemoval,
    ) -> (BTreeSet<Endpoint>, usize) {
        let list = self.lists.get(&subject.endpoint);
        let named = list.filter(|list| list.incarnation == subject.incarnation);
        let can_testify = |neighbor: &Endpoint| {
            *neighbor != subject.endpoint
                && !open_case.unreachable.contains(neighbor)
                && self
                    .registry
                    .alive_at(*neighbor)
                    .is_some_and(|entry| !self.has_found_dead(&entry.subject))
        };
        let electorate: BTreeSet<_> = named
            .map(|list| list.neighbors.iter().copied().filter(can_testify).collect())
            .unwrap_or_default();
        let gone = open_case.unreachable.iter().filter(|it| self.registry.alive_at(**it).is_some());
        let dead = self.removals.keys().filter(|it| {
            *it != subject
                && self.has_found_dead(it)
                && !open_case.unreachable.contains(&it.endpoint)
        });
        let others = self.registry.alive_count().saturating_sub(1 + gone.count() + dead.count());
        let needed = witnesses_needed(electorate.len(), others);
        (electorate, needed)
    }

    /// True if this seed's own probe found a suspect dead: as a witness, it can testify no more
    /// than any other member that this seed does not reach.
    fn has_found_dead(&self, subject: &MemberInstance) -> bool {
        let own_probe = self.removals.get(subject).map(|open_case| open_case.own_probe);
        matches!(own_probe, Some(OwnProbe::Done(finding, _)) if finding.is_dead())
    }

    /// Returns the number of findings that count, and the number needed.
    pub(super) fn count_witnesses(
        &self,
        subject: &MemberInstance,
        open_case: &OpenRemoval,
    ) -> (usize, usize) {
        let (electorate, needed) = self.electorate(subject, open_case);
        let counts = |witness: &Endpoint| electorate.len() < 2 || electorate.contains(witness);
        (open_case.confirmations.keys().filter(|witness| counts(witness)).count(), needed)
    }

    /// Asks the witnesses that have not testified, and probes which of them cannot.
    pub(super) fn collect_witnesses(&mut self, subject: &MemberInstance, fx: &mut Fx) {
        let Some(open_case) = self.removals.get(subject) else { return };
        let (count, needed) = self.count_witnesses(subject, open_case);
        if count >= needed
            || !matches!(open_case.own_probe, OwnProbe::Done(finding, _) if finding.is_dead())
        {
            return;
        }
        let (mut candidates, _) = self.electorate(subject, open_case);
        if candidates.len() < 2 {
            let linked = self.member_links.keys().filter(|it| **it != subject.endpoint);
            candidates.extend(linked.copied().sample(&mut self.rng, SUBSTITUTES));
        }
        let missing: Vec<_> = candidates
            .into_iter()
            .filter(|it| {
                !open_case.confirmations.contains_key(it) && !open_case.witness_probes.contains(it)
            })
            .collect();
        let timeout = self.health.stretch(self.config.probe_timeout);
        let Some(open_case) = self.removals.get_mut(subject) else { return };
        for witness in missing {
            if let Some(link) = self.member_links.get(&witness) {
                let MemberInstance { endpoint, incarnation, key } = *subject;
                fx.send(*link, SuspectReq { endpoint, incarnation, key });
            }
            open_case.witness_probes.insert(witness);
            fx.emit(Event::Probe { endpoint: witness, timeout });
        }
    }
}
