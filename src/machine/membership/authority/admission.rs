//! Admissions: request, dial-back, votes, certificate (M1, M2, M3, M5).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Authority, Event, Fx, Timer};
use crate::machine::LinkId;
use crate::machine::membership::registry::Merged;
use crate::machine::probe::ProbeOutcome;
use crate::machine::quorum::{Ballot, Tally};
use crate::machine::session::RejectReason;
use crate::model::entry::RegistryEntry;
use crate::model::statement::{
    Admission, MemberInstance, Proposal, ProposalKind, RegisterReq, Vote,
};
use crate::model::{Endpoint, Now, SeedId};
use crate::proto::hello::NodeInfo;
use crate::proto::membership::{REASON_BYTES_MAX, RegisterVote};
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// An admission under way.
#[derive(Debug)]
pub(super) struct OpenAdmission {
    pub(super) request: RegisterReq,
    /// The other seed whose message opened the case.
    by: Option<SeedId>,
    /// Links that wait for the outcome.
    pub(super) applicants: BTreeSet<LinkId>,
    ballot: Ballot,
    votes: BTreeMap<SeedId, Vote>,
    /// Last answer of each seed, for people and for seeds that connect later.
    said: BTreeMap<SeedId, RegisterVote>,
}

impl Authority {
    /// Takes a request, from the applicant itself or forwarded by a seed.
    pub fn on_register_req(
        &mut self,
        now: Now,
        (link, from, address): (LinkId, &NodeInfo, IpAddr),
        request: RegisterReq,
        fx: &mut Fx,
    ) {
        let subject = request.subject();
        if from.seed.is_some() {
            if !self.is_settled(&subject) && request.is_valid() {
                self.open_admission(request, from.seed, fx);
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
            // The other seeds decided before this request came: the link is a member's now.
            self.linked(subject.endpoint, link);
            fx.send(link, admission);
            fx.emit(Event::Standing { link, member: true });
            return;
        }
        self.open_admission(request, None, fx);
        if let Some(open_case) = self.admissions.get_mut(&subject) {
            open_case.applicants.insert(link);
            open_case.by = None;
            for vote in open_case.said.values() {
                fx.send(link, vote.clone());
            }
        }
        self.send_to_seeds(&request.into(), None, fx);
    }

    /// Takes another seed's vote. It must come from the voter itself.
    pub fn on_register_vote(&mut self, now: Now, link: LinkId, vote: RegisterVote, fx: &mut Fx) {
        let Some(voter) = self.seed_of(link) else {
            return self.refuse(link, RejectReason::Forged, "a vote that comes from no seed", fx);
        };
        if vote.reason.len() > REASON_BYTES_MAX {
            let reason = format!("a reason of more than {REASON_BYTES_MAX} bytes");
            return self.refuse(link, RejectReason::TooMany, reason, fx);
        }
        let subject = vote.request().subject();
        if self.registry.is_alive(&subject) {
            return;
        }
        if !self.admissions.contains_key(&subject) {
            if !vote.request().is_valid() {
                return self.refuse(link, RejectReason::Forged, "a vote for a forged request", fx);
            }
            self.open_admission(vote.request(), Some(voter), fx);
        }
        self.count_register_vote(now, (Some(link), voter), vote, fx);
    }

    /// Takes the certificate of an admission.
    pub fn on_register_commit(&mut self, now: Now, link: LinkId, proof: &Admission, fx: &mut Fx) {
        if self.take_admission(now, proof, fx) == Some(Merged::Nothing) {
            return;
        }
        if let Err(error) = self.book.verify_admission(proof) {
            self.refuse(link, error.cause(), format!("no certificate: {error}"), fx);
        }
    }

    /// Merges an admission if its certificate holds; returns `None` if not.
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
        let merged = self.apply(now, RegistryEntry::admitted(proof.clone()), None, fx);
        self.close_admission(proof, fx);
        Some(merged)
    }

    /// Takes the outcome of an applicant's dial-back (M5).
    pub(super) fn probed_applicant(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        outcome: &ProbeOutcome,
        fx: &mut Fx,
    ) {
        let waiting: Vec<_> = self
            .admissions
            .iter()
            .filter(|(subject, open_case)| {
                subject.endpoint == endpoint && !open_case.said.contains_key(&self.me)
            })
            .map(|(subject, _)| *subject)
            .collect();
        for subject in waiting {
            let verdict = match outcome {
                ProbeOutcome::Answered(info) if info.subject() == subject => Ok(()),
                ProbeOutcome::Answered(info) if info.key == subject.key => {
                    Err(format!("{endpoint} answers as incarnation {}", info.incarnation))
                }
                ProbeOutcome::Answered(_) => Err(format!("another key answers at {endpoint}")),
                ProbeOutcome::Refused => Err(format!("nobody listens at {endpoint}")),
                ProbeOutcome::Silent => Err(format!("no answer from {endpoint} when dialed back")),
                ProbeOutcome::Inconclusive => Err("too busy to dial back".to_owned()),
            };
            self.cast_register_vote(now, &subject, verdict, fx);
        }
    }

    /// Rejects an admission that has taken too long.
    pub(super) fn admission_expired(&mut self, subject: &MemberInstance, fx: &mut Fx) {
        let Some(open_case) = self.admissions.get(subject) else { return };
        let silent: Vec<_> = self
            .book
            .seeds()
            .filter(|(id, _)| !open_case.said.contains_key(id))
            .map(|(id, _)| id.to_string())
            .collect();
        let reason = format!(
            "{} of {} needed yes votes in time; no answer from seed {}",
            open_case.ballot.yes(),
            open_case.ballot.needed(),
            silent.join(", "),
        );
        self.reject_admission(subject, &reason, fx);
    }

    /// Repeats this seed's votes and requests to a seed whose link came up: open cases may be
    /// decided with it.
    pub(super) fn repeat_admissions(&self, link: LinkId, fx: &mut Fx) {
        for open_case in self.admissions.values() {
            match open_case.said.get(&self.me) {
                Some(vote) => fx.send(link, vote.clone()),
                None => fx.send(link, open_case.request),
            }
        }
    }

    /// True if a request of `subject` opens no case here, because a vote on it is open or a life as
    /// high is known.
    fn is_settled(&self, subject: &MemberInstance) -> bool {
        let known = self.registry.get(subject.endpoint);
        let is_obsolete = known.is_some_and(|held| held.subject.incarnation >= subject.incarnation);
        is_obsolete || self.admissions.contains_key(subject)
    }

    fn open_admission(&mut self, request: RegisterReq, by: Option<SeedId>, fx: &mut Fx) {
        let subject = request.subject();
        if self.is_settled(&subject)
            || self.admissions.len() >= self.config.admissions_max
            || self.has_used_its_share(by)
        {
            return;
        }
        let ballot = Ballot::new(self.book.seeds().map(|(id, _)| id), self.book.rule());
        fx.emit(Event::Proposed {
            proposal: Proposal { kind: ProposalKind::Admit, subject },
            needed: ballot.needed(),
            because: "it asks to register".to_owned(),
        });
        let (applicants, votes, said) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let open_case = OpenAdmission { request, by, applicants, ballot, votes, said };
        self.admissions.insert(subject, open_case);
        fx.set_timer(Timer::Admission(subject), self.config.admission_timeout);
        let timeout = self.health.stretch(self.config.probe_timeout * 2);
        fx.emit(Event::Probe { endpoint: subject.endpoint, timeout });
    }

    /// True if another seed has opened as many admissions here as its share allows: a lying seed
    /// must not keep out the applicants that the others vouch for.
    fn has_used_its_share(&self, by: Option<SeedId>) -> bool {
        let share = self.config.admissions_max / (self.book.len() + 1);
        by.is_some()
            && self.admissions.values().filter(|open_case| open_case.by == by).count() >= share
    }

    /// Sends this seed's answer to the other seeds, and counts it.
    fn cast_register_vote(
        &mut self,
        now: Now,
        subject: &MemberInstance,
        verdict: Result<(), String>,
        fx: &mut Fx,
    ) {
        let kind = ProposalKind::Admit;
        let objection = self.objection(subject).map(|(_, error)| error.reason);
        let verdict = verdict.and(objection.map_or(Ok(()), Err));
        let verdict = match verdict.and_then(|()| self.check_time(now, subject)) {
            Ok(()) if !self.ready => Err("catching up with the other seeds first".to_owned()),
            Ok(()) => match self.vote_given(kind, subject).cloned() {
                Some(cast_vote) if cast_vote.lives.contains(subject) => Ok(cast_vote),
                Some(_) => Err("voted for another key in this incarnation already".to_owned()),
                None => Ok(self.vote(now, kind, vec![*subject], fx)),
            },
            Err(reason) => Err(reason),
        };
        let Some(open_case) = self.admissions.get(subject) else { return };
        let said = RegisterVote {
            endpoint: subject.endpoint,
            incarnation: subject.incarnation,
            key: subject.key,
            request: open_case.request.signature,
            seed: verdict.as_ref().map_or(self.me, |cast_vote| cast_vote.vote.seed),
            yes: verdict.is_ok(),
            at: verdict.as_ref().map_or(now.wall, |cast_vote| cast_vote.vote.at),
            signature: verdict.as_ref().ok().map(|cast_vote| cast_vote.vote.signature),
            reason: verdict.err().unwrap_or_else(|| "it answered when dialed back".to_owned()),
        };
        self.send_to_seeds(&said.clone().into(), None, fx);
        self.count_register_vote(now, (None, self.me), said, fx);
    }

    fn count_register_vote(
        &mut self,
        now: Now,
        (link, seed): (Option<LinkId>, SeedId),
        said: RegisterVote,
        fx: &mut Fx,
    ) {
        let subject = said.request().subject();
        let proposal = Proposal { kind: ProposalKind::Admit, subject };
        if let Some(vote) = said.vote()
            && !self
                .book
                .key(seed)
                .is_some_and(|key| vote.is_valid(proposal.kind, &[subject], &key))
        {
            if let Some(link) = link {
                self.refuse(link, RejectReason::Forged, "the vote's signature does not hold", fx);
            }
            return;
        }
        let Some(open_case) = self.admissions.get_mut(&subject) else { return };
        let earlier = open_case.said.get(&seed).map(|earlier| earlier.vote().is_some());
        if earlier == Some(said.vote().is_some()) {
            return; // Repeated: it is not told twice.
        }
        if let Some(vote) = said.vote() {
            open_case.votes.insert(seed, vote);
        }
        let tally = open_case.ballot.cast(seed, said.vote().is_some());
        fx.emit(Event::Voted {
            proposal,
            seed,
            yes: said.vote().is_some(),
            reason: said.reason.clone(),
            count: open_case.ballot.yes(),
            needed: open_case.ballot.needed(),
        });
        for applicant in &open_case.applicants {
            fx.send(*applicant, said.clone());
        }
        open_case.said.insert(seed, said);
        match tally {
            Tally::Pending => {}
            Tally::Won => self.commit_admission(now, &subject, fx),
            Tally::Lost => self.vote_lost(&subject, fx),
        }
    }

    fn commit_admission(&mut self, now: Now, subject: &MemberInstance, fx: &mut Fx) {
        let Some(open_case) = self.admissions.get(subject) else { return };
        let MemberInstance { endpoint, incarnation, key } = *subject;
        let votes = open_case.votes.values().cloned().collect();
        let admission = Admission { endpoint, incarnation, key, votes };
        let is_proposer = !open_case.applicants.is_empty();
        self.apply(now, RegistryEntry::admitted(admission.clone()), None, fx);
        self.close_admission(&admission, fx);
        if is_proposer {
            self.send_to_seeds(&admission.into(), None, fx);
        }
    }

    /// Ends a case with an admission: the waiting links get the certificate and are members' links
    /// from now on.
    fn close_admission(&mut self, admission: &Admission, fx: &mut Fx) {
        let subject = admission.subject();
        let Some(open_case) = self.admissions.remove(&subject) else { return };
        fx.stop_timer(Timer::Admission(subject));
        for link in open_case.applicants {
            self.linked(subject.endpoint, link);
            fx.send(link, admission.clone());
            fx.emit(Event::Standing { link, member: true });
        }
    }

    fn vote_lost(&mut self, subject: &MemberInstance, fx: &mut Fx) {
        let Some(open_case) = self.admissions.get(subject) else { return };
        let reasons: Vec<_> = open_case
            .said
            .iter()
            .filter(|(_, said)| said.vote().is_none())
            .map(|(seed, said)| format!("seed {seed}: {}", said.reason))
            .collect();
        self.reject_admission(subject, &reasons.join("; "), fx);
    }

    fn reject_admission(&mut self, subject: &MemberInstance, reason: &str, fx: &mut Fx) {
        let Some(open_case) = self.admissions.remove(subject) else { return };
        fx.stop_timer(Timer::Admission(*subject));
        for link in open_case.applicants {
            fx.send(link, ErrorReply::new(ErrorCode::Rejected, reason));
        }
        let proposal = Proposal { kind: ProposalKind::Admit, subject: *subject };
        fx.emit(Event::Aborted { proposal, reason: reason.to_owned() });
    }
}
