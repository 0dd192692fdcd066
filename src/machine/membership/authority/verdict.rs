//! From evidence to a decision: which removals are ripe, this seed's vote on all of them at once,
//! the other seeds' votes, the certificate (M1, M2, M3, M6).
//!
//! Removals that are ripe together are voted on together. A ripe one waits a moment while
//! another member is half accused, so that ten deaths are one decision and not ten (the idea of
//! two watermarks is Rapid's, ATC'18, section 4.2). No removal waits for a member that is not
//! accused at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::removal::{OpenRemoval, OwnProbe};
use super::votes::CastVote;
use super::{Authority, Event, Fx, Timer, pages};
use crate::machine::LinkId;
use crate::machine::membership::seedbook::NoQuorum;
use crate::machine::quorum::Tally;
use crate::machine::session::RejectReason;
use crate::model::statement::{
    LIVES_MAX, MemberInstance, Proposal, ProposalKind, Removal, RemovalReason, Vote,
};
use crate::model::{Now, SeedId, Signature, Time};
use crate::proto::membership::{CONFIRMATIONS_MAX, SeedDeadVote};

/// Time that this seed's own probe of a suspect is fresh. Longer than witnesses take to testify
/// once it has failed; short enough that the finding still holds.
const OWN_FRESH: Duration = Duration::from_secs(4);

/// Time that ripe removals wait for half-accused suspects. The neighbors of several members that
/// die at once confirm within a tenth of a second of each other.
const SETTLE: Duration = Duration::from_millis(150);

/// Time after its first sign for which an accusation that does not ripen holds up others.
const HALF_ACCUSED: Duration = Duration::from_millis(500);

impl Authority {
    /// Takes another seed's vote. It must come from the voter itself.
    pub fn on_seed_dead_vote(&mut self, now: Now, link: LinkId, said: &SeedDeadVote, fx: &mut Fx) {
        let Some(voter) = self.seed_of(link) else {
            return self.refuse(link, RejectReason::Forged, "a vote that comes from no seed", fx);
        };
        if !said.is_well_formed() {
            let reason = format!(
                "a vote is about 1 to {LIVES_MAX} lives, ascending, and gives a short reason"
            );
            return self.refuse(link, RejectReason::Forged, reason, fx);
        }
        let (mut current, mut told) = (Vec::new(), Vec::new());
        for life in &said.lives {
            // One proof that ended many of them is sent once.
            let removal = self.registry.get(life.endpoint).and_then(|it| it.removal.as_ref());
            let removal = removal.map(Arc::as_ptr);
            if removal.is_some_and(|removal| told.contains(&removal)) {
                continue;
            }
            told.extend(removal);
            match self.current_life(link, life.endpoint, life.incarnation, fx) {
                Some(held) if held == *life => current.push(*life),
                Some(_) => {
                    return self.refuse(link, RejectReason::Forged, "a vote about another key", fx);
                }
                None => {}
            }
        }
        if let Some(vote) = said.vote()
            && !self
                .book
                .key(voter)
                .is_some_and(|key| vote.is_valid(ProposalKind::Remove, &said.lives, &key))
        {
            return self.refuse(
                link,
                RejectReason::Forged,
                "the vote's signature does not hold",
                fx,
            );
        }
        for subject in &current {
            let about = said.confirmations.iter().filter(|found| found.subject() == *subject);
            let about: Vec<_> = about.copied().collect();
            let (valid, _) = self.check_all(now, subject, &about);
            self.open_removal(now, subject, fx);
            self.add_confirmations(now, subject, valid);
        }
        self.count_dead_vote(now, (voter, said), &current, fx);
        for subject in &current {
            self.probe_suspect(subject, fx);
            self.consider(now, subject, fx);
        }
    }

    /// Takes the certificate of a removal from any sender: only the votes in it count (M3).
    pub fn on_seed_dead_commit(&mut self, now: Now, link: LinkId, proof: Removal, fx: &mut Fx) {
        let is_known = |life: &MemberInstance| {
            let held = self.registry.get(life.endpoint);
            held.is_some_and(|held| held.subject == *life && held.removal.is_some())
        };
        if !proof.lives.is_empty() && proof.lives.iter().all(is_known) {
            return;
        }
        if let Err(error) = self.take_removal(now, proof, Some(link), fx) {
            self.refuse(link, error.cause(), format!("no certificate: {error}"), fx);
        }
    }

    /// Merges the certificate of a removal. Returns whether it was anything new.
    pub(super) fn take_removal(
        &mut self,
        now: Now,
        mut proof: Removal,
        from: Option<LinkId>,
        fx: &mut Fx,
    ) -> Result<bool, NoQuorum> {
        self.book.verify_removal(&proof)?;
        // The votes decide; of the evidence that comes with them only signed findings are kept for
        // people to read.
        proof.confirmations.truncate(CONFIRMATIONS_MAX);
        let lives = &proof.lives;
        proof.confirmations.retain(|found| {
            let life = found.subject();
            lives.contains(&life) && self.check(now, &life, found).is_ok()
        });
        Ok(self.apply_removal(&Arc::new(proof), from, fx))
    }

    /// Weighs whether this seed would vote to remove `subject` now; probes again if its own finding
    /// is out of date.
    pub(super) fn consider(&mut self, now: Now, subject: &MemberInstance, fx: &mut Fx) {
        let Some(open_case) = self.removals.get(subject) else { return };
        let said = open_case.said.get(&self.me).copied();
        let OwnProbe::Done(finding, at) = open_case.own_probe else { return };
        if said == Some(true) {
            return;
        }
        if !finding.is_dead() {
            if said.is_none() {
                self.say_no(now, subject, fx);
            }
            return self.set_ripe(now, subject, false, fx);
        }
        let (count, needed) = self.count_witnesses(subject, open_case);
        // An old finding convicts no member now; nor does a finding made while this seed was late
        // itself (O4).
        let is_stale = now.mono.since(at) > OWN_FRESH;
        if is_stale || self.health.is_doubtful() {
            if let Some(open_case) = self.removals.get_mut(subject) {
                open_case.own_probe = OwnProbe::Wanted;
            }
            if is_stale {
                self.probe_suspect(subject, fx);
            }
            return self.set_ripe(now, subject, false, fx);
        }
        self.set_ripe(now, subject, count >= needed && self.ready, fx);
    }

    fn set_ripe(&mut self, now: Now, subject: &MemberInstance, is_ripe: bool, fx: &mut Fx) {
        let Some(open_case) = self.removals.get_mut(subject) else { return };
        open_case.ripe = is_ripe.then(|| open_case.ripe.unwrap_or(now.mono));
        if is_ripe {
            self.settle(now, fx);
        }
    }

    /// Votes on all removals that are ripe, unless others may be ripe in a moment.
    pub(super) fn settle(&mut self, now: Now, fx: &mut Fx) {
        let Some(since) = self.removals.values().filter_map(|open_case| open_case.ripe).min()
        else {
            return fx.stop_timer(Timer::Settle);
        };
        let waited = now.mono.since(since);
        if waited < SETTLE && self.is_unsettled(now) {
            return fx.set_timer(Timer::Settle, SETTLE - waited);
        }
        fx.stop_timer(Timer::Settle);
        self.vote_on_ripe(now, fx);
    }

    /// True if a suspect is half accused, and no other seed has voted on a ripe removal.
    fn is_unsettled(&self, now: Now) -> bool {
        let is_recent = |at: Time| now.mono.since(at) < HALF_ACCUSED;
        let is_half = |open_case: &OpenRemoval| {
            open_case.ripe.is_none()
                && !open_case.said.contains_key(&self.me)
                && !matches!(open_case.own_probe, OwnProbe::Done(finding, _) if !finding.is_dead())
                && is_recent(open_case.opened)
        };
        let is_led = self.removals.values().any(|it| it.ripe.is_some() && !it.votes.is_empty());
        // A crash breaks the link to this seed long before a neighbor reports it.
        let is_lost = |(endpoint, at): (&_, &Time)| {
            is_recent(*at)
                && self
                    .registry
                    .alive_at(*endpoint)
                    .is_some_and(|entry| !self.removals.contains_key(&entry.subject))
        };
        !is_led && (self.removals.values().any(is_half) || self.lost.iter().any(is_lost))
    }

    fn vote_on_ripe(&mut self, now: Now, fx: &mut Fx) {
        let kind = ProposalKind::Remove;
        let (mut fresh, mut evidence) = (Vec::new(), 0);
        let mut ripe = Vec::new();
        for (life, open_case) in &mut self.removals {
            if open_case.ripe.take().is_some() {
                ripe.push((*life, open_case.confirmations.len()));
            }
        }
        for (life, findings) in ripe {
            if let Some(cast_vote) = self.vote_given(kind, &life).cloned() {
                // One that was given to another key of this life is never given again (M2).
                if cast_vote.lives.contains(&life) {
                    self.say_yes(now, &cast_vote, fx);
                }
                continue;
            }
            if fresh.len() == LIVES_MAX || evidence + findings > CONFIRMATIONS_MAX {
                self.vote_and_say(now, std::mem::take(&mut fresh), fx);
                evidence = 0;
            }
            fresh.push(life);
            evidence += findings;
        }
        self.vote_and_say(now, fresh, fx);
    }

    fn vote_and_say(&mut self, now: Now, lives: Vec<MemberInstance>, fx: &mut Fx) {
        if !lives.is_empty() {
            let cast_vote = self.vote(now, ProposalKind::Remove, lives, fx);
            self.say_yes(now, &cast_vote, fx);
        }
    }

    /// Sends this seed's yes to the others, with the evidence, and counts it.
    fn say_yes(&mut self, now: Now, cast_vote: &Arc<CastVote>, fx: &mut Fx) {
        let said = self.said_yes(cast_vote);
        self.send_to_seeds(&said.clone().into(), None, fx);
        let open = |life: &&MemberInstance| self.removals.contains_key(*life);
        let current: Vec<_> = cast_vote.lives.iter().filter(open).copied().collect();
        self.count_dead_vote(now, (self.me, &said), &current, fx);
    }

    pub(super) fn said_yes(&self, cast_vote: &CastVote) -> SeedDeadVote {
        let cases = || cast_vote.lives.iter().filter_map(|life| self.removals.get_key_value(life));
        let reason = match cases().next() {
            Some((subject, open_case)) => {
                let (count, needed) = self.count_witnesses(subject, open_case);
                let own = open_case.own_probe.as_str();
                format!("my own probe: {own}; {count} of {needed} needed witnesses")
            }
            None => "decided before".to_owned(),
        };
        let findings = cases().flat_map(|(_, open_case)| open_case.confirmations.values());
        SeedDeadVote {
            lives: cast_vote.lives.clone(),
            seed: cast_vote.vote.seed,
            yes: true,
            at: cast_vote.vote.at,
            signature: Some(cast_vote.vote.signature),
            reason,
            confirmations: findings.map(|(found, _)| *found).take(CONFIRMATIONS_MAX).collect(),
        }
    }

    fn said_no(&self, now: Now, subject: &MemberInstance) -> SeedDeadVote {
        let open_case = self.removals.get(subject);
        let findings = open_case.into_iter().flat_map(|open_case| open_case.confirmations.values());
        SeedDeadVote {
            lives: vec![*subject],
            seed: self.me,
            yes: false,
            at: now.wall,
            signature: None,
            reason: "it answered my own probe".to_owned(),
            confirmations: findings.map(|(found, _)| *found).take(CONFIRMATIONS_MAX).collect(),
        }
    }

    fn say_no(&mut self, now: Now, subject: &MemberInstance, fx: &mut Fx) {
        let said = self.said_no(now, subject);
        self.send_to_seeds(&said.clone().into(), None, fx);
        self.count_dead_vote(now, (self.me, &said), &[*subject], fx);
    }

    /// Counts a verified vote for those of its lives that are being decided here.
    fn count_dead_vote(
        &mut self,
        now: Now,
        (voter, said): (SeedId, &SeedDeadVote),
        lives: &[MemberInstance],
        fx: &mut Fx,
    ) {
        let cast_vote = said.vote().map(|vote| {
            Arc::new(CastVote { kind: ProposalKind::Remove, lives: said.lives.clone(), vote })
        });
        for subject in lives {
            let Some(open_case) = self.removals.get_mut(subject) else { continue };
            if open_case.said.insert(voter, said.yes) == Some(said.yes) {
                continue;
            }
            if let Some(cast_vote) = &cast_vote {
                open_case.votes.insert(voter, Arc::clone(cast_vote));
                open_case.last_news = now.mono;
            }
            // A no is an answer for now only; the case stays open until it is decided or stale.
            open_case.ballot.cast(voter, cast_vote.is_some());
            fx.emit(Event::Voted {
                proposal: Proposal { kind: ProposalKind::Remove, subject: *subject },
                seed: voter,
                yes: cast_vote.is_some(),
                reason: said.reason.clone(),
                count: open_case.ballot.yes(),
                needed: open_case.ballot.needed(),
            });
        }
        self.commit_removals(fx);
    }

    /// Makes certificates of the removals that a quorum has signed: one for all lives with
    /// the same votes.
    fn commit_removals(&mut self, fx: &mut Fx) {
        let mut decided: BTreeMap<Vec<(SeedId, Signature)>, Vec<MemberInstance>> = BTreeMap::new();
        for (subject, open_case) in &self.removals {
            if open_case.ballot.tally() == Tally::Won {
                let votes = open_case
                    .votes
                    .iter()
                    .map(|(seed, cast_vote)| (*seed, cast_vote.vote.signature));
                decided.entry(votes.collect()).or_default().push(*subject);
            }
        }
        for lives in decided.into_values() {
            let Some(open_case) = lives.first().and_then(|life| self.removals.get(life)) else {
                continue;
            };
            let others = |cast_vote: &CastVote| {
                cast_vote.lives.iter().filter(|life| !lives.contains(life)).copied().collect()
            };
            let votes = open_case.votes.values();
            let votes = votes.map(|it| Vote { others: others(it), ..it.vote.clone() });
            let votes: Vec<_> = votes.collect();
            let taken = pages::of_votes(&votes) + lives.len() * pages::LIFE;
            let room = pages::ROOM.saturating_sub(taken) / pages::FINDING;
            let each = room.min(CONFIRMATIONS_MAX) / lives.len();
            let cases = lives.iter().filter_map(|life| self.removals.get(life));
            let findings = cases.flat_map(|open_case| open_case.confirmations.values().take(each));
            let confirmations = findings.map(|(found, _)| *found).collect();
            let removal =
                Arc::new(Removal { because: RemovalReason::Death, lives, votes, confirmations });
            self.apply_removal(&removal, None, fx);
            for life in &removal.lives {
                self.close_removal(life, fx);
            }
        }
    }

    /// Shows a member the votes to remove it that were in vain: they are final, and a lying seed
    /// could still add its own. The member begins a new life after a delay.
    pub(super) fn warn<'a>(
        link: LinkId,
        subject: &MemberInstance,
        votes: impl IntoIterator<Item = &'a Arc<CastVote>>,
        fx: &mut Fx,
    ) {
        for cast_vote in votes.into_iter().filter(|cast_vote| cast_vote.lives.contains(subject)) {
            let CastVote { lives, vote, .. } = CastVote::clone(cast_vote);
            let reason = "in vain: it lives".to_owned();
            let (seed, at, signature) = (vote.seed, vote.at, Some(vote.signature));
            let (yes, confirmations) = (true, Vec::new());
            fx.send(link, SeedDeadVote { lives, seed, yes, at, signature, reason, confirmations });
        }
    }

    /// Repeats this seed's votes and findings to a seed whose link came up: open cases may be
    /// decided with it.
    pub(super) fn repeat_removals(&self, now: Now, link: LinkId, fx: &mut Fx) {
        let mut told = Vec::<Arc<CastVote>>::new();
        for (subject, open_case) in &self.removals {
            match (open_case.said.get(&self.me), self.vote_given(ProposalKind::Remove, subject)) {
                (Some(true), Some(cast_vote)) => {
                    if !told.contains(cast_vote) {
                        told.push(Arc::clone(cast_vote));
                    }
                }
                (Some(_), _) => fx.send(link, self.said_no(now, subject)),
                (None, _) => {
                    for (found, _) in open_case.confirmations.values() {
                        fx.send(link, *found);
                    }
                }
            }
        }
        for cast_vote in told {
            fx.send(link, self.said_yes(&cast_vote));
        }
    }
}
