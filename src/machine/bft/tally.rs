//! Votes of others: which are taken, and when their signatures are verified (rules B2, B4, B14,
//! B24).

use super::config::VIEWS_AHEAD;
use super::replica::{BftReplica, Fx};
use super::votes::Counted;
use crate::machine::LinkId;
use crate::proto::bft::{
    Certificate, Equivocation, PhaseVote, SlotNo, ViewNo, VotePhase, VoteSubject,
};
use crate::proto::chat::entry::MemberId;

/// Views before the present one whose votes still count.
pub(super) const VIEWS_BACK: u64 = 2;

impl BftReplica {
    /// Takes a vote over its sender's link.
    pub(super) fn on_vote(
        &mut self,
        phase: VotePhase,
        (link, member): (LinkId, MemberId),
        vote: PhaseVote,
        fx: &mut Fx,
    ) {
        if vote.sender_id != member {
            return self.distrust(link, "it votes in another's name", fx);
        }
        let VoteSubject { epoch, view, slot, digest } = vote.subject;
        let own = self.views.view().0;
        let is_near = epoch == self.epoch()
            && own.saturating_sub(VIEWS_BACK) <= view.0
            && view.0 <= own + VIEWS_AHEAD;
        let last = self.chain.settled().tip.slot;
        // Its newest COMMIT is remembered for it, and against it: so it must be its own. In a view
        // that has begun those look who are told of it; it came by its member's own link.
        let is_newest = phase == VotePhase::Commit && self.recall.is_newest_commit(&vote);
        let is_late = is_near && view.0 <= own && slot <= last;
        let is_open = is_near && slot > last && slot <= self.horizon();
        let known = self.votes.of(phase, (view, slot), member).copied();
        // A vote for what is accepted here is verified when enough are there.
        let may_wait = is_open
            && known.is_none()
            && view == self.views.view()
            && self.chain.accepted_at(slot).is_some_and(|it| it.digest == digest);
        if may_wait {
            if is_newest {
                self.recall.hear_commit(vote, false);
            }
            if phase == VotePhase::Commit || !self.is_prepared(vote.subject) {
                self.votes.count_unverified(phase, vote);
                self.check(phase, (view, slot), fx);
            }
            return self.release(fx);
        }
        if is_newest {
            if !is_late && !self.is_signed(phase, &vote) {
                return self.distrust(link, "a vote with a bad signature", fx);
            }
            self.recall.hear_commit(vote, !is_late);
        }
        if !is_open {
            return self.dropped("a vote of another epoch, view or slot", fx);
        }
        if known.is_some_and(|it| it.subject.digest == digest) {
            return;
        }
        // A vote that changes nothing is not verified, unless it contradicts another.
        let is_needed = match phase {
            VotePhase::Prepare => known.is_some() || !self.is_prepared(vote.subject),
            VotePhase::Commit => true,
        };
        if !is_needed {
            return;
        }
        if !is_newest && !self.is_signed(phase, &vote) {
            return self.distrust(link, "a vote with a bad signature", fx);
        }
        match self.votes.count(phase, vote) {
            Counted::Known => {}
            Counted::Contradicts(first) => {
                self.on_contradiction(phase, link, (first, vote), fx);
            }
            Counted::First => self.check(phase, (view, slot), fx),
        }
        self.release(fx);
    }

    /// Takes two votes of one member that exclude each other, of which the second is verified.
    pub(super) fn on_contradiction(
        &mut self,
        phase: VotePhase,
        link: LinkId,
        (first, second): (PhaseVote, PhaseVote),
        fx: &mut Fx,
    ) {
        if self.is_signed(phase, &first) {
            self.accuse(Equivocation::Votes { phase, first, second }, fx);
        } else {
            self.votes.on_verified(phase, &first, false);
            self.distrust(link, "a vote with a bad signature", fx);
        }
    }

    fn check(&mut self, phase: VotePhase, (view, slot): (ViewNo, SlotNo), fx: &mut Fx) {
        match phase {
            VotePhase::Prepare => self.check_prepared(slot, fx),
            VotePhase::Commit => self.check_final(view, slot, fx),
        }
    }

    /// The certificate of a quorum's votes for a subject, once there are so many; their signatures
    /// are verified only then.
    pub(super) fn certify(
        &mut self,
        phase: VotePhase,
        subject: VoteSubject,
        fx: &mut Fx,
    ) -> Option<Certificate> {
        let quorum = self.quorum();
        for vote in self.votes.to_verify(phase, subject, quorum) {
            if self.votes.verified(phase, subject) >= quorum {
                break;
            }
            let is_valid = self.is_signed(phase, &vote);
            self.votes.on_verified(phase, &vote, is_valid);
            if !is_valid && let Some(link) = self.links.of(vote.sender_id) {
                self.distrust(link, "a vote with a bad signature", fx);
            }
        }
        self.votes.certificate(phase, subject, quorum)
    }

    fn is_prepared(&self, subject: VoteSubject) -> bool {
        self.given.contains(&subject.slot)
            && subject.view == self.views.view()
            && self.chain.accepted_at(subject.slot).is_some_and(|it| it.digest == subject.digest)
    }
}
