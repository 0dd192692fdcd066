//! Admissions: request, dial-back, votes, certificate (M1, M2, M3, M5).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Authority, Bucket, Event, Fx, Timer};
use crate::model::{Endpoint, Incarnation, Now, PublicKey, SeedId, Signature, Time, WallTime};
use crate::protocol::LinkId;
use crate::protocol::membership::certificate::{
    Admission, Proposal, ProposalKind, RegisterReq, Subject, Vote,
};
use crate::protocol::membership::registry::{Entry, Merged, Status};
use crate::protocol::message::{ErrorCode, ErrorReply};
use crate::protocol::probe::Outcome;
use crate::protocol::quorum::{Ballot, Tally};
use crate::protocol::session::{Card, Cause};

/// A seed's answer to a request to register; goes to the other seeds and to the applicant.
///
/// It carries the applicant's own signature, so that a seed that has not seen the request can
/// begin its own dial-back on the strength of the vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterVote {
    /// Where the applicant listens.
    pub endpoint: Endpoint,
    /// The life that asks.
    pub incarnation: Incarnation,
    /// Its key.
    pub key: PublicKey,
    /// The applicant's signature of its request.
    pub request: Signature,
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
}

impl RegisterVote {
    const fn request(&self) -> RegisterReq {
        RegisterReq {
            endpoint: self.endpoint,
            incarnation: self.incarnation,
            key: self.key,
            signature: self.request,
        }
    }

    /// The signed yes in it, if it is one.
    pub fn vote(&self) -> Option<Vote> {
        let signature = self.signature.filter(|_| self.yes)?;
        Some(Vote { seed: self.seed, at: self.at, others: Vec::new(), signature })
    }
}

/// An admission under way.
#[derive(Debug)]
pub(super) struct Case {
    request: RegisterReq,
    /// Links that wait for the outcome.
    pub(super) applicants: BTreeSet<LinkId>,
    ballot: Ballot,
    votes: BTreeMap<SeedId, Vote>,
    /// What was said last by each seed, for people and for seeds that connect later.
    said: BTreeMap<SeedId, RegisterVote>,
}

impl Authority {
    /// A request came, from the applicant itself or forwarded by a seed.
    pub fn on_register_req(
        &mut self,
        now: Now,
        (link, from, address): (LinkId, &Card, IpAddr),
        request: RegisterReq,
        fx: &mut Fx,
    ) {
        let subject = request.subject();
        if from.seed.is_some() {
            if !self.is_settled(&subject) && request.is_valid() {
                self.open_admission(request, fx);
            }
            return;
        }
        if let Err((cause, error)) = self.check_request(now, (from, address), &request) {
            fx.emit(Event::Refuse { link, cause, error });
            return;
        }
        if let Some(entry) = self.registry.alive_at(subject.endpoint)
            && entry.subject == subject
            && let Some(admission) = entry.admission.clone()
        {
            // Decided by the other seeds before this request came: the link is a member's now.
            self.linked(subject.endpoint, link);
            fx.send(link, admission);
            fx.emit(Event::Standing { link, member: true });
            return;
        }
        self.open_admission(request, fx);
        if let Some(case) = self.admissions.get_mut(&subject) {
            case.applicants.insert(link);
            for vote in case.said.values() {
                fx.send(link, vote.clone());
            }
        }
        self.tell_seeds(&request.into(), None, fx);
    }

    /// Another seed's vote came. It must come from the voter itself.
    pub fn on_register_vote(&mut self, now: Now, link: LinkId, vote: RegisterVote, fx: &mut Fx) {
        if self.seed_of(link) != Some(vote.seed) {
            return self.refuse(link, Cause::Forged, "a vote in another seed's name", fx);
        }
        let subject = vote.request().subject();
        if self.registry.is_alive(&subject) {
            return;
        }
        if !self.admissions.contains_key(&subject) {
            if !vote.request().is_valid() {
                return self.refuse(link, Cause::Forged, "a vote for a forged request", fx);
            }
            self.open_admission(vote.request(), fx);
        }
        self.count_register_vote(now, Some(link), vote, fx);
    }

    /// The proof of an admission came.
    pub fn on_register_commit(&mut self, now: Now, link: LinkId, proof: &Admission, fx: &mut Fx) {
        if self.take_admission(now, proof, fx) == Some(Merged::Nothing) {
            return;
        }
        if let Err(error) = self.book.verify_admission(proof) {
            self.refuse(link, Cause::Forged, format!("no certificate: {error}"), fx);
        }
    }

    /// Merges an admission if its certificate holds; `None` if it does not.
    pub(super) fn take_admission(
        &mut self,
        now: Now,
        proof: &Admission,
        fx: &mut Fx,
    ) -> Option<Merged> {
        let known = self.registry.get(proof.endpoint);
        if known.is_some_and(|held| held.subject == proof.subject() && held.admission.is_some()) {
            return Some(Merged::Nothing);
        }
        self.book.verify_admission(proof).ok()?;
        let merged = self.apply(now, Entry::admitted(proof.clone()), None, fx);
        self.close_admission(proof, fx);
        Some(merged)
    }

    /// The dial-back of an applicant is over (M5).
    pub(super) fn probed_applicant(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        outcome: &Outcome,
        fx: &mut Fx,
    ) {
        let waiting: Vec<_> = self
            .admissions
            .iter()
            .filter(|(subject, case)| {
                subject.endpoint == endpoint && !case.said.contains_key(&self.me)
            })
            .map(|(subject, _)| *subject)
            .collect();
        for subject in waiting {
            let verdict = match outcome {
                Outcome::Answered(card) if card.subject() == subject => Ok(()),
                Outcome::Answered(card) if card.key == subject.key => {
                    Err(format!("{endpoint} answers as incarnation {}", card.incarnation))
                }
                Outcome::Answered(_) => Err(format!("another key answers at {endpoint}")),
                Outcome::Refused => Err(format!("nobody listens at {endpoint}")),
                Outcome::Silent => Err(format!("no answer from {endpoint} when dialed back")),
                Outcome::Inconclusive => Err("too busy to dial back".to_owned()),
            };
            self.cast_register_vote(now, &subject, verdict, fx);
        }
    }

    /// An admission has taken too long.
    pub(super) fn admission_expired(&mut self, subject: &Subject, fx: &mut Fx) {
        let Some(case) = self.admissions.get(subject) else { return };
        let silent: Vec<_> = self
            .book
            .seeds()
            .filter(|(id, _)| !case.said.contains_key(id))
            .map(|(id, _)| id.to_string())
            .collect();
        let reason = format!(
            "{} of {} needed yes votes in time; no answer from seed {}",
            case.ballot.yes(),
            case.ballot.needed(),
            silent.join(", "),
        );
        self.reject_admission(subject, &reason, fx);
    }

    /// A seed's link came up: what is still open here may be decided with it.
    pub(super) fn repeat_admissions(&self, link: LinkId, fx: &mut Fx) {
        for case in self.admissions.values() {
            match case.said.get(&self.me) {
                Some(vote) => fx.send(link, vote.clone()),
                None => fx.send(link, case.request),
            }
        }
    }

    /// Whether a request of `subject` opens nothing here: it is being voted on, or has been.
    fn is_settled(&self, subject: &Subject) -> bool {
        let known = self.registry.get(subject.endpoint);
        let is_obsolete = known.is_some_and(|held| held.subject.incarnation >= subject.incarnation);
        is_obsolete || self.admissions.contains_key(subject)
    }

    fn open_admission(&mut self, request: RegisterReq, fx: &mut Fx) {
        let subject = request.subject();
        if self.is_settled(&subject) || self.admissions.len() >= self.config.admissions_max {
            return;
        }
        let ballot = Ballot::new(self.book.seeds().map(|(id, _)| id), self.book.rule());
        fx.emit(Event::Proposed {
            proposal: Proposal { kind: ProposalKind::Admit, subject },
            needed: ballot.needed(),
            because: "it asks to register".to_owned(),
        });
        let (applicants, votes, said) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let case = Case { request, applicants, ballot, votes, said };
        self.admissions.insert(subject, case);
        fx.set_timer(Timer::Admission(subject), self.config.admission_timeout);
        let timeout = self.health.stretch(self.config.probe_timeout * 2);
        fx.emit(Event::Probe { endpoint: subject.endpoint, timeout });
    }

    fn check_request(
        &mut self,
        now: Now,
        (from, address): (&Card, IpAddr),
        request: &RegisterReq,
    ) -> Result<(), (Cause, ErrorReply)> {
        let refuse = |cause, code, reason: String| Err((cause, ErrorReply::new(code, reason)));
        let subject = request.subject();
        if !self.spend_request(now, address) {
            let limit = self.config.requests_per_second;
            let reason = format!("more than {limit} requests a second from one address");
            return refuse(Cause::TooMany, ErrorCode::Busy, reason);
        }
        // Several seeds pass on the same request; it was verified when its case was opened.
        let case = self.admissions.get(&subject);
        let is_verified = case.is_some_and(|case| case.request == *request);
        if subject != from.subject() || !(is_verified || request.is_valid()) {
            let reason = "the request is not about the one who proved its key on this link";
            return refuse(Cause::Forged, ErrorCode::Invalid, reason.to_owned());
        }
        if !self.is_of_our_time(now, &subject) {
            let reason = "the incarnation is far ahead of the seeds' clocks; set this clock";
            return refuse(Cause::Stale, ErrorCode::Invalid, reason.to_owned());
        }
        if let Some((cause, code, reason)) = self.objection(&subject) {
            return refuse(cause, code, reason);
        }
        if self.registry.alive_count() >= self.config.members_max
            || self.admissions.len() >= self.config.admissions_max
        {
            let (members, open) = (self.config.members_max, self.config.admissions_max);
            let reason = format!("full: at most {members} members, {open} admissions at once");
            return refuse(Cause::TooMany, ErrorCode::Busy, reason);
        }
        Ok(())
    }

    /// An incarnation is a time: one far ahead would use up its endpoint for good.
    fn is_of_our_time(&self, now: Now, subject: &Subject) -> bool {
        let bound = now.wall.0.saturating_add(millis(self.config.evidence_skew));
        subject.incarnation.0 <= bound
    }

    /// Why this seed would not admit `subject`, whoever asks (M4, M5).
    fn objection(&self, subject: &Subject) -> Option<(Cause, ErrorCode, String)> {
        if self.book.seed_at(subject.endpoint).is_some() {
            let reason = format!("{} is a seed's address", subject.endpoint);
            return Some((Cause::NotAllowed, ErrorCode::EndpointTaken, reason));
        }
        if let Some(objection) = self.ban_objection(subject) {
            return Some(objection);
        }
        if let Some(floor) = self.registry.floor(subject.endpoint)
            && subject.incarnation <= floor
        {
            let reason = format!("this life has ended; register above incarnation {floor}");
            return Some((Cause::Stale, ErrorCode::Removed, reason));
        }
        let held = self.registry.get(subject.endpoint)?;
        if held.status() == Status::Alive && held.subject.key != subject.key {
            let reason = format!(
                "{} is alive under another key ({}); wait until that one is removed, \
                 or use its identity.key",
                subject.endpoint,
                held.subject.key.short(),
            );
            return Some((Cause::NotAllowed, ErrorCode::EndpointTaken, reason));
        }
        let has_ended = held.subject == *subject && held.status() != Status::Alive;
        if held.subject.incarnation > subject.incarnation || has_ended {
            let last = held.subject.incarnation;
            let reason = format!("this life has ended; register above incarnation {last}");
            return Some((Cause::Stale, ErrorCode::Removed, reason));
        }
        None
    }

    /// Takes one token of the source address's bucket.
    fn spend_request(&mut self, now: Now, from: IpAddr) -> bool {
        let (burst, rate) = (self.config.requests_burst, self.config.requests_per_second);
        // A full bucket is as good as none; this bounds the table by the active sources.
        if self.rates.len() >= 4_096 {
            self.rates.retain(|_, bucket| refill(bucket, now.mono, burst, rate) < burst);
        }
        let fresh = Bucket { tokens: burst, refilled: now.mono };
        let bucket = self.rates.entry(from).or_insert(fresh);
        refill(bucket, now.mono, burst, rate);
        let has_token = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        has_token
    }

    /// Gives this seed's answer, to the other seeds and to those who wait.
    fn cast_register_vote(
        &mut self,
        now: Now,
        subject: &Subject,
        verdict: Result<(), String>,
        fx: &mut Fx,
    ) {
        let kind = ProposalKind::Admit;
        let objection = self.objection(subject).map(|(_, _, reason)| reason);
        let verdict = match verdict.and(objection.map_or(Ok(()), Err)) {
            Ok(()) if !self.is_of_our_time(now, subject) => {
                Err("the incarnation is far ahead of my clock".to_owned())
            }
            Ok(()) if !self.ready => Err("catching up with the other seeds first".to_owned()),
            Ok(()) => match self.vote_given(kind, subject).cloned() {
                Some(given) if given.lives.contains(subject) => Ok(given),
                Some(_) => Err("voted for another key in this incarnation already".to_owned()),
                None => Ok(self.vote(now, kind, vec![*subject], fx)),
            },
            Err(reason) => Err(reason),
        };
        let Some(case) = self.admissions.get(subject) else { return };
        let said = RegisterVote {
            endpoint: subject.endpoint,
            incarnation: subject.incarnation,
            key: subject.key,
            request: case.request.signature,
            seed: self.me,
            yes: verdict.is_ok(),
            at: verdict.as_ref().map_or(now.wall, |given| given.vote.at),
            signature: verdict.as_ref().ok().map(|given| given.vote.signature),
            reason: verdict.err().unwrap_or_else(|| "it answered when dialed back".to_owned()),
        };
        self.tell_seeds(&said.clone().into(), None, fx);
        self.count_register_vote(now, None, said, fx);
    }

    fn count_register_vote(
        &mut self,
        now: Now,
        link: Option<LinkId>,
        said: RegisterVote,
        fx: &mut Fx,
    ) {
        let subject = said.request().subject();
        let proposal = Proposal { kind: ProposalKind::Admit, subject };
        let seed = said.seed;
        if let Some(vote) = said.vote()
            && !self
                .book
                .key(seed)
                .is_some_and(|key| vote.is_valid(proposal.kind, &[subject], &key))
        {
            if let Some(link) = link {
                self.refuse(link, Cause::Forged, "the vote's signature does not hold", fx);
            }
            return;
        }
        let Some(case) = self.admissions.get_mut(&subject) else { return };
        if let Some(vote) = said.vote() {
            case.votes.insert(seed, vote);
        }
        let tally = case.ballot.cast(seed, said.vote().is_some());
        fx.emit(Event::Voted {
            proposal,
            seed,
            yes: said.vote().is_some(),
            reason: said.reason.clone(),
            count: case.ballot.yes(),
            needed: case.ballot.needed(),
        });
        for applicant in &case.applicants {
            fx.send(*applicant, said.clone());
        }
        case.said.insert(seed, said);
        match tally {
            Tally::Pending => {}
            Tally::Won => self.commit_admission(now, &subject, fx),
            Tally::Lost => self.vote_lost(&subject, fx),
        }
    }

    fn commit_admission(&mut self, now: Now, subject: &Subject, fx: &mut Fx) {
        let Some(case) = self.admissions.get(subject) else { return };
        let Subject { endpoint, incarnation, key } = *subject;
        let votes = case.votes.values().cloned().collect();
        let admission = Admission { endpoint, incarnation, key, votes };
        let is_proposer = !case.applicants.is_empty();
        self.apply(now, Entry::admitted(admission.clone()), None, fx);
        self.close_admission(&admission, fx);
        if is_proposer {
            self.tell_seeds(&admission.into(), None, fx);
        }
    }

    /// Ends a case well: those who wait are told, and are members from now on.
    fn close_admission(&mut self, admission: &Admission, fx: &mut Fx) {
        let subject = admission.subject();
        let Some(case) = self.admissions.remove(&subject) else { return };
        fx.stop_timer(Timer::Admission(subject));
        for link in case.applicants {
            self.linked(subject.endpoint, link);
            fx.send(link, admission.clone());
            fx.emit(Event::Standing { link, member: true });
        }
    }

    fn vote_lost(&mut self, subject: &Subject, fx: &mut Fx) {
        let Some(case) = self.admissions.get(subject) else { return };
        let reasons: Vec<_> = case
            .said
            .values()
            .filter(|said| said.vote().is_none())
            .map(|said| format!("seed {}: {}", said.seed, said.reason))
            .collect();
        self.reject_admission(subject, &reasons.join("; "), fx);
    }

    fn reject_admission(&mut self, subject: &Subject, reason: &str, fx: &mut Fx) {
        let Some(case) = self.admissions.remove(subject) else { return };
        fx.stop_timer(Timer::Admission(*subject));
        for link in case.applicants {
            fx.send(link, ErrorReply::new(ErrorCode::Rejected, reason));
        }
        let proposal = Proposal { kind: ProposalKind::Admit, subject: *subject };
        fx.emit(Event::Aborted { proposal, reason: reason.to_owned() });
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Adds the tokens that time has brought. Returns how many there are.
fn refill(bucket: &mut Bucket, now: Time, burst: u32, rate: u32) -> u32 {
    let micros = now.since(bucket.refilled).as_micros();
    let earned = u32::try_from(micros * u128::from(rate) / 1_000_000).unwrap_or(u32::MAX);
    if earned > 0 {
        bucket.tokens = bucket.tokens.saturating_add(earned).min(burst);
        bucket.refilled = now;
    }
    bucket.tokens
}
