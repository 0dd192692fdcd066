//! Eligibility: the checks of a request before any seed votes on it (M3, M4, M5).

use std::net::IpAddr;
use std::time::Duration;

use super::{Authority, Bucket};
use crate::machine::session::RejectReason;
use crate::model::entry::MemberState;
use crate::model::statement::{MemberInstance, RegisterReq};
use crate::model::{Endpoint, Incarnation, Now, Time, WallTime};
use crate::proto::hello::NodeInfo;
use crate::proto::refusal::{ErrorCode, ErrorReply};

impl Authority {
    /// Checks that a request that came over a link from `address` may open a vote.
    pub(super) fn check_request(
        &mut self,
        now: Now,
        (from, address): (&NodeInfo, IpAddr),
        request: &RegisterReq,
    ) -> Result<(), (RejectReason, ErrorReply)> {
        let refuse = |cause, code, reason: String| Err((cause, ErrorReply::new(code, reason)));
        let subject = request.subject();
        if !self.spend_request(now, address) {
            let limit = self.config.requests_per_second;
            let reason = format!("more than {limit} requests a second from one address");
            return refuse(RejectReason::TooMany, ErrorCode::Busy, reason);
        }
        // Several seeds pass on the same request; it was verified when its case was opened.
        let open_case = self.admissions.get(&subject);
        let is_verified = open_case.is_some_and(|open_case| open_case.request == *request);
        if subject != from.subject() || !(is_verified || request.is_valid()) {
            let reason = "the request is not about the one who proved its key on this link";
            return refuse(RejectReason::Forged, ErrorCode::Invalid, reason.to_owned());
        }
        if let Err(reason) = self.check_time(now, &subject) {
            // The floor goes with the refusal: the applicant must forget the incarnation that its
            // clock made.
            let floor = self.last_life(subject.endpoint);
            return Err((
                RejectReason::Stale,
                ErrorReply::new(ErrorCode::Invalid, reason).with_floor(floor),
            ));
        }
        if let Some(objection) = self.objection(&subject) {
            return Err(objection);
        }
        if self.registry.alive_count() >= self.config.members_max
            || self.admissions.len() >= self.config.admissions_max
        {
            let (members, open) = (self.config.members_max, self.config.admissions_max);
            let reason = format!("full: at most {members} members, {open} admissions at once");
            return refuse(RejectReason::TooMany, ErrorCode::Busy, reason);
        }
        Ok(())
    }

    /// Checks that an incarnation, which is a time, is not too far ahead: one far ahead would use
    /// up its endpoint. It may be ahead of this clock only as far as a quorum has admitted an
    /// earlier life of that endpoint: a clock that was ahead once, a member's or all seeds', shuts
    /// out no later life.
    pub(super) fn check_time(&self, now: Now, subject: &MemberInstance) -> Result<(), String> {
        let last = self.last_life(subject.endpoint).0.max(now.wall.0);
        if subject.incarnation.0 <= last.saturating_add(millis(self.config.evidence_skew)) {
            return Ok(());
        }
        let (theirs, own) = (WallTime(subject.incarnation.0), now.wall);
        Err(format!(
            "the clock at {} is far ahead of seed {}'s ({theirs} there, {own} here); \
             set the clock that is wrong",
            subject.endpoint, self.me
        ))
    }

    /// Highest life of an endpoint that is known to have been admitted, or the lowest possible one.
    fn last_life(&self, endpoint: Endpoint) -> Incarnation {
        let held = self.registry.get(endpoint).map(|held| held.subject.incarnation);
        held.max(self.registry.floor(endpoint)).unwrap_or_default()
    }

    /// The reason why this seed would not admit `subject`, whichever node asks (M4, M5).
    pub(super) fn objection(&self, subject: &MemberInstance) -> Option<(RejectReason, ErrorReply)> {
        let refusal = |cause, code, reason| Some((cause, ErrorReply::new(code, reason)));
        if !subject.endpoint.is_callable() {
            let reason = format!("nobody can be called at {}", subject.endpoint);
            return refusal(RejectReason::Forged, ErrorCode::Invalid, reason);
        }
        if self.book.seed_at(subject.endpoint).is_some() {
            let reason = format!("{} is a seed's address", subject.endpoint);
            return refusal(RejectReason::NotAllowed, ErrorCode::EndpointTaken, reason);
        }
        if let Some(objection) = self.ban_objection(subject) {
            return Some(objection);
        }
        let ended = |last: Incarnation| {
            let reason = format!("this life has ended; register above incarnation {last}");
            (RejectReason::Stale, ErrorReply::new(ErrorCode::Removed, reason).with_floor(last))
        };
        if let Some(floor) = self.registry.floor(subject.endpoint)
            && subject.incarnation <= floor
        {
            return Some(ended(floor));
        }
        let held = self.registry.get(subject.endpoint)?;
        if held.status() == MemberState::Alive && held.subject.key != subject.key {
            let reason = format!(
                "{} is alive under another key ({}); wait until that one is removed, \
                 or use its identity.key",
                subject.endpoint,
                held.subject.key.short(),
            );
            return refusal(RejectReason::NotAllowed, ErrorCode::EndpointTaken, reason);
        }
        let has_ended = held.subject == *subject && held.status() != MemberState::Alive;
        if held.subject.incarnation > subject.incarnation || has_ended {
            return Some(ended(held.subject.incarnation));
        }
        None
    }

    /// Takes one token of the source address's bucket.
    fn spend_request(&mut self, now: Now, from: IpAddr) -> bool {
        let (burst, rate) = (self.config.requests_burst, self.config.requests_per_second);
        // A full bucket is the same as none; dropping these bounds the table by the active sources.
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
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Adds the tokens earned since the last refill. Returns their number.
fn refill(bucket: &mut Bucket, now: Time, burst: u32, rate: u32) -> u32 {
    let micros = now.since(bucket.refilled).as_micros();
    let earned = u32::try_from(micros * u128::from(rate) / 1_000_000).unwrap_or(u32::MAX);
    if earned > 0 {
        bucket.tokens = bucket.tokens.saturating_add(earned).min(burst);
        bucket.refilled = now;
    }
    bucket.tokens
}
