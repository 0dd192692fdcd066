//! Votes for the present view and those near it (rules B2, B4, B24).
//!
//! Invariants:
//! - Of each member the first vote in a phase, view and slot counts, and no other.
//! - A certificate has only votes whose signatures were verified. A vote may be counted before, and
//!   is verified once enough are there to make a certificate: those beyond a quorum never are.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::bft::{Certificate, PhaseVote, SlotNo, ViewNo, VotePhase, VoteSubject};
use crate::proto::chat::entry::MemberId;

/// Votes of one phase and view, by slot and member.
type SlotVotes = BTreeMap<SlotNo, BTreeMap<MemberId, PhaseVote>>;

/// Result of counting a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// The vote is the member's first one there.
    First,
    /// The vote was known.
    Known,
    /// The member has voted for another header there.
    Contradicts(PhaseVote),
}

/// Votes of one epoch.
#[derive(Debug, Default)]
pub(super) struct Votes {
    votes: BTreeMap<(VotePhase, ViewNo), SlotVotes>,
    /// Votes whose signatures were not verified.
    unverified: BTreeSet<(VotePhase, ViewNo, SlotNo, MemberId)>,
}

impl Votes {
    /// The member's vote in a phase, view and slot.
    pub(super) fn of(
        &self,
        phase: VotePhase,
        (view, slot): (ViewNo, SlotNo),
        member: MemberId,
    ) -> Option<&PhaseVote> {
        self.votes.get(&(phase, view))?.get(&slot)?.get(&member)
    }

    /// Counts a vote whose signature is valid.
    pub(super) fn count(&mut self, phase: VotePhase, vote: PhaseVote) -> Counted {
        let VoteSubject { view, slot, digest, .. } = vote.subject;
        let slots = self.votes.entry((phase, view)).or_default();
        let votes = slots.entry(slot).or_default();
        match votes.get(&vote.sender_id) {
            None => {
                votes.insert(vote.sender_id, vote);
                Counted::First
            }
            Some(first) if first.subject.digest == digest => Counted::Known,
            Some(first) => Counted::Contradicts(*first),
        }
    }

    /// Counts the first vote of a member whose signature is still to be verified.
    pub(super) fn count_unverified(&mut self, phase: VotePhase, vote: PhaseVote) {
        if self.count(phase, vote) == Counted::First {
            self.unverified.insert(key_of(phase, &vote));
        }
    }

    /// Votes to be verified before the certificate of this subject: all that are not, if there are
    /// enough votes for one.
    pub(super) fn to_verify(
        &self,
        phase: VotePhase,
        subject: VoteSubject,
        quorum: usize,
    ) -> Vec<PhaseVote> {
        let votes = self.votes.get(&(phase, subject.view)).and_then(|it| it.get(&subject.slot));
        let same =
            || votes.into_iter().flat_map(BTreeMap::values).filter(|it| it.subject == subject);
        if same().count() < quorum {
            return Vec::new();
        }
        let is_open = |it: &&PhaseVote| self.unverified.contains(&key_of(phase, it));
        same().filter(is_open).copied().collect()
    }

    /// Notes whether the signature of a vote is valid; one that is not was never counted.
    pub(super) fn on_verified(&mut self, phase: VotePhase, vote: &PhaseVote, is_valid: bool) {
        self.unverified.remove(&key_of(phase, vote));
        let VoteSubject { view, slot, .. } = vote.subject;
        if !is_valid
            && let Some(slots) = self.votes.get_mut(&(phase, view))
            && let Some(votes) = slots.get_mut(&slot)
        {
            votes.remove(&vote.sender_id);
        }
    }

    /// Number of verified votes for a subject.
    pub(super) fn verified(&self, phase: VotePhase, subject: VoteSubject) -> usize {
        self.verified_votes(phase, subject).count()
    }

    fn verified_votes(
        &self,
        phase: VotePhase,
        subject: VoteSubject,
    ) -> impl Iterator<Item = &PhaseVote> {
        let votes = self.votes.get(&(phase, subject.view)).and_then(|it| it.get(&subject.slot));
        let is_same = move |it: &&PhaseVote| {
            it.subject == subject && !self.unverified.contains(&key_of(phase, it))
        };
        votes.into_iter().flat_map(BTreeMap::values).filter(is_same)
    }

    /// The certificate of a quorum's verified votes for a subject, once there are so many.
    pub(super) fn certificate(
        &self,
        phase: VotePhase,
        subject: VoteSubject,
        quorum: usize,
    ) -> Option<Certificate> {
        let votes = self.verified_votes(phase, subject).take(quorum);
        let signatures: Vec<_> = votes.map(|it| (it.sender_id, it.signature)).collect();
        (signatures.len() == quorum).then_some(Certificate { phase, subject, signatures })
    }

    /// Forgets slots up to a final one, and views before the first that still counts.
    pub(super) fn prune(&mut self, last: SlotNo, first_view: ViewNo) {
        self.votes.retain(|(_, view), _| *view >= first_view);
        for slots in self.votes.values_mut() {
            slots.retain(|slot, _| *slot > last);
        }
        self.unverified.retain(|(_, view, slot, _)| *view >= first_view && *slot > last);
    }

    /// Number of votes, and of the views that they are for.
    #[cfg(feature = "fault-injection")]
    pub(super) fn sizes(&self) -> (usize, usize) {
        let of_view = |slots: &SlotVotes| slots.values().map(BTreeMap::len).sum::<usize>();
        let filled = self.votes.iter().filter(|(_, slots)| !slots.is_empty());
        let views: std::collections::BTreeSet<_> = filled.map(|((_, view), _)| *view).collect();
        (self.votes.values().map(of_view).sum(), views.len())
    }

    /// Forgets everything: a new epoch begins.
    pub(super) fn clear(&mut self) {
        self.votes.clear();
        self.unverified.clear();
    }
}

const fn key_of(phase: VotePhase, vote: &PhaseVote) -> (VotePhase, ViewNo, SlotNo, MemberId) {
    (phase, vote.subject.view, vote.subject.slot, vote.sender_id)
}
