//! Removals: the reports, this seed's own probe, the witnesses' findings (M6). The votes and
//! certificates that follow from them are in [`super::verdict`].
//!
//! The suspect is told first and can answer for itself (O4): it is asked over its own link as well
//! as by a fresh probe, because a loaded machine answers on a link long before it takes a new one.
//!
//! A neighbor that is itself out of this seed's reach cannot testify; it is left out of the
//! electorate, so that dead members do not protect each other by their silence. Only this seed's
//! own failed probe leaves a neighbor out, so no other node can shrink the electorate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::votes::CastVote;
use super::witnesses::blame;
use super::{Authority, Event, Fx, Timer};
use crate::machine::LinkId;
use crate::machine::probe::ProbeOutcome;
use crate::machine::quorum::Ballot;
use crate::machine::session::RejectReason;
use crate::model::entry::MemberState;
use crate::model::statement::{
    Confirmation, Finding, MemberInstance, Proposal, ProposalKind, Removal,
};
use crate::model::{Endpoint, Incarnation, Now, SeedId, Time};
use crate::proto::hello::NodeInfo;
use crate::proto::liveness::{DeadReport, SuspectReq};
use crate::proto::membership::CONFIRMATIONS_MAX;

/// Pause before another report of the same death by the same reporter is told of and passed on.
const REPORT_PAUSE: Duration = Duration::from_secs(3);

/// Delay before the first look at an open removal: by then the suspect's neighbors have usually
/// reported; those that have not are asked.
const FIRST_TICK: Duration = Duration::from_millis(100);

/// Pause between a suspect's answer and another probe of it because witnesses insist.
pub(super) const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// State of this seed's own probe of a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnProbe {
    Wanted,
    UnderWay,
    Done(Finding, Time),
}

impl OwnProbe {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Done(finding, _) => finding.as_str(),
            Self::Wanted | Self::UnderWay => "not finished",
        }
    }
}

/// A removal under way.
#[derive(Debug)]
pub(super) struct OpenRemoval {
    pub(super) confirmations: BTreeMap<Endpoint, (Confirmation, Time)>,
    pub(super) own_probe: OwnProbe,
    /// Neighbors that this seed's own probes do not reach.
    pub(super) unreachable: BTreeSet<Endpoint>,
    pub(super) witness_probes: BTreeSet<Endpoint>,
    pub(super) ballot: Ballot,
    /// The signed yes votes, each with all the lives that it covers.
    pub(super) votes: BTreeMap<SeedId, Arc<CastVote>>,
    /// Last answer of each seed: true for a yes.
    pub(super) said: BTreeMap<SeedId, bool>,
    /// Time since which this seed would vote yes; the vote waits a moment for suspects that
    /// are half accused.
    pub(super) ripe: Option<Time>,
    /// Reporters, with the time when a report of theirs was told of and passed on last: other seeds
    /// pass on reports that came here already, and a reporter that repeats itself is not repeated.
    reports: BTreeMap<Endpoint, Time>,
    pub(super) opened: Time,
    pub(super) last_news: Time,
    tick_due: Time,
}

impl Authority {
    /// Takes a report of a death, from a member or forwarded by a seed.
    pub fn on_dead_report(
        &mut self,
        now: Now,
        (link, from): (LinkId, &NodeInfo),
        report: DeadReport,
        fx: &mut Fx,
    ) {
        let is_relayed = from.seed.is_some();
        let is_own = is_relayed || report.reporter == from.endpoint;
        if !is_own || !report.is_well_formed() {
            let reason = "a report must be its sender's own, its text made from its fields";
            return self.refuse(link, RejectReason::Forged, reason, fx);
        }
        let Some(subject) = self.current_life(link, report.endpoint, report.incarnation, fx) else {
            return;
        };
        if report.confirmations.len() > CONFIRMATIONS_MAX {
            let reason = format!("more than {CONFIRMATIONS_MAX} findings in one report");
            return self.refuse(link, RejectReason::TooMany, reason, fx);
        }
        let (valid, complaint) = self.check_all(now, &subject, &report.confirmations);
        if valid.is_empty() {
            let reason = complaint.unwrap_or("a report needs the signed findings of witnesses");
            return self.refuse(link, blame(reason), reason, fx);
        }
        self.open_removal(now, &subject, fx);
        let Some(open_case) = self.removals.get_mut(&subject) else { return };
        let told = open_case.reports.get(&report.reporter);
        // A reporter that is no member is not remembered: a lying seed could name any number of
        // them.
        let is_news = self.registry.alive_at(report.reporter).is_some()
            && told.is_none_or(|told| now.mono.since(*told) >= REPORT_PAUSE);
        if is_news {
            open_case.reports.insert(report.reporter, now.mono);
            fx.emit(Event::Reported {
                subject,
                reporter: report.reporter,
                text: report.text.clone(),
                confirmations: valid.len(),
            });
        }
        self.add_confirmations(now, &subject, valid);
        if !is_relayed && is_news {
            self.send_to_seeds(&report.into(), None, fx);
        }
        self.probe_suspect(&subject, fx);
        self.consider(now, &subject, fx);
    }

    /// Takes a witness's finding, from the witness itself or relayed by a seed.
    pub fn on_suspect_ack(&mut self, now: Now, link: LinkId, found: Confirmation, fx: &mut Fx) {
        let from_seed = self.seed_of(link).is_some();
        if found.witness == found.endpoint && !found.finding.is_dead() {
            return self.on_sign_of_life(now, link, &found.subject(), fx);
        }
        let Some(subject) = self.current_life(link, found.endpoint, found.incarnation, fx) else {
            return;
        };
        let (valid, complaint) = self.check_all(now, &subject, &[found]);
        if valid.is_empty() {
            if let Some(complaint) = complaint {
                self.refuse(link, blame(complaint), complaint, fx);
            }
            return;
        }
        if !self.removals.contains_key(&subject) && !from_seed {
            return; // Not asked for by this seed.
        }
        self.open_removal(now, &subject, fx);
        self.add_confirmations(now, &subject, valid);
        if !from_seed {
            self.send_to_seeds(&found.into(), None, fx);
        }
        self.probe_suspect(&subject, fx);
        self.consider(now, &subject, fx);
    }

    /// Takes the suspect's own statement that it lives, on the link on which it proved its key. A
    /// probe that is still under way convicts the suspect no more.
    fn on_sign_of_life(&mut self, now: Now, link: LinkId, subject: &MemberInstance, fx: &mut Fx) {
        if self.member_links.get(&subject.endpoint) != Some(&link) {
            return;
        }
        self.own_probe_done(now, subject, Finding::Alive, fx);
    }

    /// Takes the outcome of this seed's own probe of a suspect.
    pub(super) fn probed_suspect(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        outcome: &ProbeOutcome,
        fx: &mut Fx,
    ) {
        let waiting: Vec<_> = self
            .removals
            .iter()
            .filter(|(subject, open_case)| {
                subject.endpoint == endpoint && open_case.own_probe == OwnProbe::UnderWay
            })
            .map(|(subject, _)| *subject)
            .collect();
        for subject in waiting {
            match outcome.finding(&subject) {
                Some(finding) => self.own_probe_done(now, &subject, finding, fx),
                None => self.set_own(&subject, OwnProbe::Wanted),
            }
        }
    }

    pub(super) fn own_probe_done(
        &mut self,
        now: Now,
        subject: &MemberInstance,
        finding: Finding,
        fx: &mut Fx,
    ) {
        self.set_own(subject, OwnProbe::Done(finding, now.mono));
        self.consider(now, subject, fx);
    }

    fn set_own(&mut self, subject: &MemberInstance, own_probe: OwnProbe) {
        if let Some(open_case) = self.removals.get_mut(subject) {
            open_case.own_probe = own_probe;
        }
    }

    /// Takes the outcome of probing a neighbor that has not testified.
    pub(super) fn probed_witness(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        outcome: &ProbeOutcome,
        fx: &mut Fx,
    ) {
        let subject_there = self.registry.get(endpoint).map(|entry| entry.subject);
        let finding = subject_there.and_then(|subject| outcome.finding(&subject));
        let mut concerned = Vec::new();
        for (subject, open_case) in &mut self.removals {
            if open_case.witness_probes.remove(&endpoint) {
                match finding {
                    Some(finding) if finding.is_dead() => {
                        _ = open_case.unreachable.insert(endpoint);
                    }
                    Some(_) => _ = open_case.unreachable.remove(&endpoint),
                    None => {}
                }
                concerned.push(*subject);
            }
        }
        for subject in concerned {
            self.consider(now, &subject, fx);
        }
    }

    /// Looks again at an open removal: collects the evidence that is missing, or gives up.
    pub(super) fn removal_tick(&mut self, now: Now, subject: &MemberInstance, fx: &mut Fx) {
        let Some(open_case) = self.removals.get_mut(subject) else { return };
        self.health.timer_fired(now.mono.since(open_case.tick_due));
        let ttl = self.config.evidence_ttl;
        open_case.confirmations.retain(|_, (_, seen)| now.mono.since(*seen) <= ttl);
        let patience = match open_case.own_probe {
            OwnProbe::Done(Finding::Alive, _) => self.config.removal_timeout / 5,
            OwnProbe::Wanted | OwnProbe::UnderWay | OwnProbe::Done(..) => {
                self.config.removal_timeout
            }
        };
        if now.mono.since(open_case.last_news) > patience {
            return self.abort_removal(subject, fx);
        }
        open_case.tick_due = now.mono.after(self.config.removal_tick);
        fx.set_timer(Timer::Removal(*subject), self.config.removal_tick);
        self.probe_suspect(subject, fx);
        self.collect_witnesses(subject, fx);
        self.consider(now, subject, fx);
    }

    /// Wants a new probe of a suspect that has just proved its key on a new link.
    pub(super) fn suspect_came(&mut self, subject: &MemberInstance) {
        if let Some(open_case) = self.removals.get_mut(subject)
            && matches!(open_case.own_probe, OwnProbe::Done(..))
        {
            open_case.own_probe = OwnProbe::Wanted;
        }
    }

    pub(super) fn close_removal(&mut self, subject: &MemberInstance, fx: &mut Fx) {
        if self.removals.remove(subject).is_some() {
            fx.stop_timer(Timer::Removal(*subject));
        }
    }

    /// Opens a removal on this seed's own observation or on another node's evidence.
    pub(super) fn open_removal(&mut self, now: Now, subject: &MemberInstance, fx: &mut Fx) {
        if self.removals.contains_key(subject) || !self.registry.is_alive(subject) {
            return;
        }
        let ballot = Ballot::new(self.book.seeds().map(|(id, _)| id), self.book.rule());
        fx.emit(Event::Proposed {
            proposal: Proposal { kind: ProposalKind::Remove, subject: *subject },
            needed: ballot.needed(),
            because: "it is said to be dead".to_owned(),
        });
        let open_case = OpenRemoval {
            confirmations: BTreeMap::new(),
            own_probe: OwnProbe::Wanted,
            unreachable: BTreeSet::new(),
            witness_probes: BTreeSet::new(),
            ballot,
            votes: BTreeMap::new(),
            said: BTreeMap::new(),
            ripe: None,
            reports: BTreeMap::new(),
            opened: now.mono,
            last_news: now.mono,
            tick_due: now.mono.after(FIRST_TICK),
        };
        self.removals.insert(*subject, open_case);
        fx.set_timer(Timer::Removal(*subject), FIRST_TICK);
    }

    /// Returns the subject of a statement if that life is alive; else sends the sender the proof of
    /// its end, or refuses the statement.
    pub(super) fn current_life(
        &self,
        link: LinkId,
        endpoint: Endpoint,
        incarnation: Incarnation,
        fx: &mut Fx,
    ) -> Option<MemberInstance> {
        let held = self.registry.get(endpoint)?;
        if held.subject.incarnation == incarnation && held.status() == MemberState::Alive {
            return Some(held.subject);
        }
        // A sender that still accuses a removed member has missed the proof.
        if let Some(removal) = &held.removal {
            fx.send(link, Removal::clone(removal));
        } else if let Some(leave) = held.leave {
            fx.send(link, leave);
        } else {
            let reason = format!("evidence about incarnation {incarnation} is of the past");
            self.refuse(link, RejectReason::Stale, reason, fx);
        }
        None
    }

    pub(super) fn probe_suspect(&mut self, subject: &MemberInstance, fx: &mut Fx) {
        let timeout = self.health.stretch(self.config.probe_timeout);
        let Some(open_case) = self.removals.get_mut(subject) else { return };
        if open_case.own_probe != OwnProbe::Wanted {
            return;
        }
        open_case.own_probe = OwnProbe::UnderWay;
        let MemberInstance { endpoint, incarnation, key } = *subject;
        if let Some(link) = self.member_links.get(&endpoint) {
            fx.send(*link, SuspectReq { endpoint, incarnation, key });
        }
        fx.emit(Event::Probe { endpoint, timeout });
    }

    fn abort_removal(&mut self, subject: &MemberInstance, fx: &mut Fx) {
        let Some(open_case) = self.removals.remove(subject) else { return };
        fx.stop_timer(Timer::Removal(*subject));
        for (witness, (found, _)) in &open_case.confirmations {
            self.spent.insert((*subject, *witness), found.at);
        }
        if let Some(link) = self.member_links.get(&subject.endpoint) {
            Self::warn(*link, subject, open_case.votes.values(), fx);
        }
        let (count, needed) = self.count_witnesses(subject, &open_case);
        let (yes, quorum) = (open_case.ballot.yes(), open_case.ballot.needed());
        let own_probe = open_case.own_probe.as_str();
        let reason = format!(
            "{yes} of {quorum} needed votes, {count} of {needed} needed witnesses; \
             my own probe: {own_probe}"
        );
        let proposal = Proposal { kind: ProposalKind::Remove, subject: *subject };
        fx.emit(Event::Aborted { proposal, reason });
    }
}
