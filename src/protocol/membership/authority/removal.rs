//! Removals: report, this seed's own probe, witnesses, votes, certificate (M6, M2, M3).
//!
//! A neighbor that is itself out of this seed's reach cannot testify; it is left out of the
//! electorate, so that the dead do not protect each other by their silence. Only this seed's own
//! failed probe leaves somebody out, so nobody else can shrink the electorate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Authority, Event, Fx, Timer};
use crate::model::{Endpoint, Incarnation, Now, PublicKey, SeedId, Signature, Time, WallTime};
use crate::protocol::LinkId;
use crate::protocol::liveness::DeadReport;
use crate::protocol::membership::certificate::{
    Confirmation, Finding, Proposal, ProposalKind, Removal, Subject, Vote,
};
use crate::protocol::membership::registry::{Entry, Merged, Status};
use crate::protocol::probe::Outcome;
use crate::protocol::quorum::{Ballot, Tally};
use crate::protocol::session::{Card, Cause};

/// Findings that one message may carry: a majority of the most neighbors that one may name, and
/// well within a line.
const CONFIRMATIONS_MAX: usize = 256;

/// How often one reporter's reports of one death are told of and passed on.
const REPORT_PAUSE: Duration = Duration::from_secs(3);

/// How soon after it answered a suspect is probed again because somebody insists.
pub(super) const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// A seed's answer to a report, for the other seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedDeadVote {
    /// The suspect's endpoint.
    pub endpoint: Endpoint,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// Its key.
    pub key: PublicKey,
    /// Who votes.
    pub seed: SeedId,
    /// How.
    pub yes: bool,
    /// When, by the voter's clock.
    pub at: WallTime,
    /// The signature of a yes; a no has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// Why, for people.
    pub reason: String,
    /// The witnesses' findings that the voter holds; others judge them for themselves.
    pub confirmations: Vec<Confirmation>,
}

impl SeedDeadVote {
    const fn subject(&self) -> Subject {
        Subject { endpoint: self.endpoint, incarnation: self.incarnation, key: self.key }
    }

    /// The signed yes in it, if it is one.
    pub fn vote(&self) -> Option<Vote> {
        let signature = self.signature.filter(|_| self.yes)?;
        Some(Vote { seed: self.seed, at: self.at, signature })
    }
}

/// Where this seed's own probe of a suspect stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Wanted,
    UnderWay,
    Done(Finding, Time),
}

/// How long this seed's own probe of a suspect is fresh. Longer than witnesses take to testify
/// once it has failed; short enough that it still speaks of now.
const OWN_FRESH: Duration = Duration::from_secs(4);

/// A removal under way.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) confirmations: BTreeMap<Endpoint, (Confirmation, Time)>,
    pub(super) own: Own,
    /// Neighbors that this seed's own probes do not reach.
    pub(super) unreachable: BTreeSet<Endpoint>,
    pub(super) witness_probes: BTreeSet<Endpoint>,
    ballot: Ballot,
    votes: BTreeMap<SeedId, Vote>,
    pub(super) said: BTreeMap<SeedId, SeedDeadVote>,
    /// Who has reported, and when that was told of and passed on last: other seeds pass on what
    /// came here already, and one who repeats itself is not repeated.
    reports: BTreeMap<Endpoint, Time>,
    pub(super) last_news: Time,
    tick_due: Time,
}

impl Case {
    /// The findings, as many as one message may carry.
    fn findings(&self) -> Vec<Confirmation> {
        self.confirmations.values().map(|(found, _)| *found).take(CONFIRMATIONS_MAX).collect()
    }
}

impl Authority {
    /// A death is reported, by a member or forwarded by a seed.
    pub fn on_dead_report(
        &mut self,
        now: Now,
        (link, from): (LinkId, &Card),
        report: DeadReport,
        fx: &mut Fx,
    ) {
        let is_relayed = from.seed.is_some();
        let is_own = is_relayed || report.reporter == from.endpoint;
        if !is_own || !report.is_well_formed() {
            let reason = "a report must be its sender's own, its text made from its fields";
            return self.refuse(link, Cause::Forged, reason, fx);
        }
        let Some(subject) = self.current_life(link, report.endpoint, report.incarnation, fx) else {
            return;
        };
        if report.confirmations.len() > CONFIRMATIONS_MAX {
            let reason = format!("more than {CONFIRMATIONS_MAX} findings in one report");
            return self.refuse(link, Cause::TooMany, reason, fx);
        }
        let (valid, complaint) = self.check_all(now, &subject, &report.confirmations);
        if valid.is_empty() {
            let reason = complaint.unwrap_or("a report needs the signed findings of witnesses");
            return self.refuse(link, Cause::Forged, reason, fx);
        }
        self.open_removal(now, &subject, fx);
        let Some(case) = self.removals.get_mut(&subject) else { return };
        let told = case.reports.get(&report.reporter);
        // One who is no member is not remembered: a lying seed could name any number of them.
        let is_news = self.registry.alive_at(report.reporter).is_some()
            && told.is_none_or(|told| now.mono.since(*told) >= REPORT_PAUSE);
        if is_news {
            case.reports.insert(report.reporter, now.mono);
            fx.emit(Event::Reported {
                subject,
                reporter: report.reporter,
                text: report.text.clone(),
                confirmations: valid.len(),
            });
        }
        self.add_confirmations(now, &subject, valid);
        if !is_relayed && is_news {
            self.tell_seeds(&report.into(), None, fx);
        }
        self.probe_suspect(&subject, fx);
        self.weigh(now, &subject, fx);
    }

    /// A witness's finding came, from itself or relayed by a seed.
    pub fn on_suspect_ack(&mut self, now: Now, link: LinkId, found: Confirmation, fx: &mut Fx) {
        let from_seed = self.seed_of(link).is_some();
        let Some(subject) = self.current_life(link, found.endpoint, found.incarnation, fx) else {
            return;
        };
        let (valid, complaint) = self.check_all(now, &subject, &[found]);
        if valid.is_empty() {
            if let Some(complaint) = complaint {
                self.refuse(link, Cause::Forged, complaint, fx);
            }
            return;
        }
        if !self.removals.contains_key(&subject) && !from_seed {
            return; // Nobody here has asked.
        }
        self.open_removal(now, &subject, fx);
        self.add_confirmations(now, &subject, valid);
        if !from_seed {
            self.tell_seeds(&found.into(), None, fx);
        }
        self.probe_suspect(&subject, fx);
        self.weigh(now, &subject, fx);
    }

    /// Another seed's vote came. It must come from the voter itself.
    pub fn on_seed_dead_vote(&mut self, now: Now, link: LinkId, said: SeedDeadVote, fx: &mut Fx) {
        if self.seed_of(link) != Some(said.seed) {
            return self.refuse(link, Cause::Forged, "a vote in another seed's name", fx);
        }
        let subject = said.subject();
        let Some(current) = self.current_life(link, said.endpoint, said.incarnation, fx) else {
            return;
        };
        if current != subject || said.confirmations.len() > CONFIRMATIONS_MAX {
            return self.refuse(link, Cause::Forged, "a vote about another key", fx);
        }
        let (valid, _) = self.check_all(now, &subject, &said.confirmations);
        self.open_removal(now, &subject, fx);
        self.add_confirmations(now, &subject, valid);
        self.count_dead_vote(now, Some(link), said, fx);
        self.probe_suspect(&subject, fx);
        self.weigh(now, &subject, fx);
    }

    /// The proof of a removal came; whoever sent it, only the votes in it count (M3).
    pub fn on_seed_dead_commit(&mut self, now: Now, link: LinkId, proof: Removal, fx: &mut Fx) {
        let held = self.registry.get(proof.endpoint);
        if held.is_some_and(|held| held.subject == proof.subject() && held.removal.is_some()) {
            return;
        }
        match self.book.verify(&proof.proposal(), &proof.votes) {
            Ok(()) => {
                // The votes decide; of the evidence that comes with them only what is signed is
                // kept for people to read.
                let mut proof = proof;
                proof.confirmations.truncate(CONFIRMATIONS_MAX);
                proof.confirmations = self.check_all(now, &proof.subject(), &proof.confirmations).0;
                self.apply(now, Entry::removed(proof), Some(link), fx);
            }
            Err(error) => {
                self.refuse(link, Cause::Forged, format!("no certificate: {error}"), fx);
            }
        }
    }

    /// This seed's own probe of a suspect is over.
    pub(super) fn probed_suspect(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        outcome: &Outcome,
        fx: &mut Fx,
    ) {
        let waiting: Vec<_> = self
            .removals
            .iter()
            .filter(|(subject, case)| subject.endpoint == endpoint && case.own == Own::UnderWay)
            .map(|(subject, _)| *subject)
            .collect();
        for subject in waiting {
            if let Some(case) = self.removals.get_mut(&subject) {
                let finding = outcome.finding(&subject);
                case.own = finding.map_or(Own::Wanted, |finding| Own::Done(finding, now.mono));
            }
            self.weigh(now, &subject, fx);
        }
    }

    /// The probe of a neighbor that has not testified is over.
    pub(super) fn probed_witness(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        outcome: &Outcome,
        fx: &mut Fx,
    ) {
        let subject_there = self.registry.get(endpoint).map(|entry| entry.subject);
        let finding = subject_there.and_then(|subject| outcome.finding(&subject));
        let mut concerned = Vec::new();
        for (subject, case) in &mut self.removals {
            if case.witness_probes.remove(&endpoint) {
                match finding {
                    Some(finding) if finding.is_dead() => _ = case.unreachable.insert(endpoint),
                    Some(_) => _ = case.unreachable.remove(&endpoint),
                    None => {}
                }
                concerned.push(*subject);
            }
        }
        for subject in concerned {
            self.weigh(now, &subject, fx);
        }
    }

    /// An open removal is due for another look: collect what is missing, or give up.
    pub(super) fn removal_tick(&mut self, now: Now, subject: &Subject, fx: &mut Fx) {
        let Some(case) = self.removals.get_mut(subject) else { return };
        self.health.timer_fired(now.mono.since(case.tick_due));
        let ttl = self.config.evidence_ttl;
        case.confirmations.retain(|_, (_, seen)| now.mono.since(*seen) <= ttl);
        let patience = match case.own {
            Own::Done(Finding::Alive, _) => self.config.removal_timeout / 5,
            Own::Wanted | Own::UnderWay | Own::Done(..) => self.config.removal_timeout,
        };
        if now.mono.since(case.last_news) > patience {
            return self.abort_removal(subject, fx);
        }
        case.tick_due = now.mono.after(self.config.removal_tick);
        fx.set_timer(Timer::Removal(*subject), self.config.removal_tick);
        self.probe_suspect(subject, fx);
        self.collect_witnesses(subject, fx);
        self.weigh(now, subject, fx);
    }

    /// A suspect has just proved its key on a new link: look again.
    pub(super) fn suspect_came(&mut self, subject: &Subject) {
        if let Some(case) = self.removals.get_mut(subject)
            && matches!(case.own, Own::Done(..))
        {
            case.own = Own::Wanted;
        }
    }

    pub(super) fn close_removal(&mut self, subject: &Subject, fx: &mut Fx) {
        if self.removals.remove(subject).is_some() {
            fx.stop_timer(Timer::Removal(*subject));
        }
    }

    /// Opens a removal on this seed's own observation or somebody's evidence.
    pub(super) fn open_removal(&mut self, now: Now, subject: &Subject, fx: &mut Fx) {
        if self.removals.contains_key(subject) || !self.registry.is_alive(subject) {
            return;
        }
        let ballot = Ballot::new(self.book.seeds().map(|(id, _)| id), self.book.rule());
        fx.emit(Event::Proposed {
            proposal: Proposal { kind: ProposalKind::Remove, subject: *subject },
            needed: ballot.needed(),
            because: "it is said to be dead".to_owned(),
        });
        let case = Case {
            confirmations: BTreeMap::new(),
            own: Own::Wanted,
            unreachable: BTreeSet::new(),
            witness_probes: BTreeSet::new(),
            ballot,
            votes: BTreeMap::new(),
            said: BTreeMap::new(),
            reports: BTreeMap::new(),
            last_news: now.mono,
            tick_due: now.mono.after(self.config.removal_tick),
        };
        self.removals.insert(*subject, case);
        fx.set_timer(Timer::Removal(*subject), self.config.removal_tick);
    }

    /// The subject that a statement is about, if that life is in; else the sender is told.
    fn current_life(
        &self,
        link: LinkId,
        endpoint: Endpoint,
        incarnation: Incarnation,
        fx: &mut Fx,
    ) -> Option<Subject> {
        let held = self.registry.get(endpoint)?;
        if held.subject.incarnation == incarnation && held.status() == Status::Alive {
            return Some(held.subject);
        }
        // Whoever still accuses somebody who is out has missed the proof.
        if let Some(removal) = &held.removal {
            fx.send(link, removal.clone());
        } else if let Some(leave) = held.leave {
            fx.send(link, leave);
        } else {
            let reason = format!("evidence about incarnation {incarnation} is of the past");
            self.refuse(link, Cause::Stale, reason, fx);
        }
        None
    }

    pub(super) fn probe_suspect(&mut self, subject: &Subject, fx: &mut Fx) {
        let timeout = self.health.stretch(self.config.probe_timeout);
        if let Some(case) = self.removals.get_mut(subject)
            && case.own == Own::Wanted
        {
            case.own = Own::UnderWay;
            fx.emit(Event::Probe { endpoint: subject.endpoint, timeout });
        }
    }

    /// Votes as soon as this seed's own probe and the witnesses allow it, one way or the other.
    fn weigh(&mut self, now: Now, subject: &Subject, fx: &mut Fx) {
        let Some(case) = self.removals.get(subject) else { return };
        let said = case.said.get(&self.me).map(|said| said.yes);
        let Own::Done(finding, at) = case.own else { return };
        if said == Some(true) || (said == Some(false) && !finding.is_dead()) {
            return;
        }
        let (count, needed) = self.count_witnesses(subject, case);
        if finding.is_dead() && now.mono.since(at) > OWN_FRESH {
            // What was so a while ago convicts nobody now: look again.
            if let Some(case) = self.removals.get_mut(subject) {
                case.own = Own::Wanted;
            }
            return self.probe_suspect(subject, fx);
        }
        if !finding.is_dead() {
            let reason = "it answered my own probe".to_owned();
            return self.cast_dead_vote(now, subject, Err(reason), fx);
        }
        if self.health.is_doubtful() {
            // What this seed saw while it was late itself is worth nothing (O4): look again.
            if let Some(case) = self.removals.get_mut(subject) {
                case.own = Own::Wanted;
            }
            return;
        }
        if count >= needed && self.ready {
            let finding = finding.as_str();
            let reason = format!("my own probe: {finding}; {count} of {needed} needed witnesses");
            self.cast_dead_vote(now, subject, Ok(reason), fx);
        }
    }

    fn cast_dead_vote(
        &mut self,
        now: Now,
        subject: &Subject,
        verdict: Result<String, String>,
        fx: &mut Fx,
    ) {
        let proposal = Proposal { kind: ProposalKind::Remove, subject: *subject };
        let vote = verdict.is_ok().then(|| self.vote(now, proposal, fx)).flatten();
        let Some(case) = self.removals.get(subject) else { return };
        let said = SeedDeadVote {
            endpoint: subject.endpoint,
            incarnation: subject.incarnation,
            key: subject.key,
            seed: self.me,
            yes: vote.is_some(),
            at: vote.map_or(now.wall, |vote| vote.at),
            signature: vote.map(|vote| vote.signature),
            reason: verdict.unwrap_or_else(|reason| reason),
            confirmations: case.findings(),
        };
        self.tell_seeds(&said.clone().into(), None, fx);
        self.count_dead_vote(now, None, said, fx);
    }

    fn count_dead_vote(&mut self, now: Now, link: Option<LinkId>, said: SeedDeadVote, fx: &mut Fx) {
        let (subject, seed) = (said.subject(), said.seed);
        let proposal = Proposal { kind: ProposalKind::Remove, subject };
        if let Some(vote) = said.vote()
            && !self.book.key(seed).is_some_and(|key| vote.is_valid(&proposal, &key))
        {
            if let Some(link) = link {
                self.refuse(link, Cause::Forged, "the vote's signature does not hold", fx);
            }
            return;
        }
        let Some(case) = self.removals.get_mut(&subject) else { return };
        let repeated = case.said.get(&seed).is_some_and(|earlier| earlier.yes == said.yes);
        case.said.insert(seed, said.clone());
        if repeated {
            return;
        }
        if let Some(vote) = said.vote() {
            case.votes.insert(seed, vote);
            case.last_news = now.mono;
        }
        let tally = case.ballot.cast(seed, said.vote().is_some());
        fx.emit(Event::Voted {
            proposal,
            seed,
            yes: said.vote().is_some(),
            reason: said.reason,
            count: case.ballot.yes(),
            needed: case.ballot.needed(),
        });
        match tally {
            // A no is an answer for now only; the case stays open until it is decided or stale.
            Tally::Pending | Tally::Lost => {}
            Tally::Won => self.commit_removal(now, &subject, fx),
        }
    }

    fn commit_removal(&mut self, now: Now, subject: &Subject, fx: &mut Fx) {
        let Some(case) = self.removals.get(subject) else { return };
        let removal = Removal {
            endpoint: subject.endpoint,
            incarnation: subject.incarnation,
            key: subject.key,
            votes: case.votes.values().copied().collect(),
            confirmations: case.findings(),
        };
        let merged = self.apply(now, Entry::removed(removal), None, fx);
        debug_assert_ne!(merged, Merged::Alive, "a removal admits nobody");
        self.close_removal(subject, fx);
    }

    fn abort_removal(&mut self, subject: &Subject, fx: &mut Fx) {
        let Some(case) = self.removals.remove(subject) else { return };
        fx.stop_timer(Timer::Removal(*subject));
        for (witness, (found, _)) in &case.confirmations {
            self.spent.insert((*subject, *witness), found.at);
        }
        let (count, needed) = self.count_witnesses(subject, &case);
        let (yes, quorum) = (case.ballot.yes(), case.ballot.needed());
        let own = match case.own {
            Own::Done(finding, _) => finding.as_str(),
            Own::Wanted | Own::UnderWay => "not finished",
        };
        let reason = format!(
            "{yes} of {quorum} needed votes, {count} of {needed} needed witnesses; \
             my own probe: {own}"
        );
        let proposal = Proposal { kind: ProposalKind::Remove, subject: *subject };
        fx.emit(Event::Aborted { proposal, reason });
    }
}
