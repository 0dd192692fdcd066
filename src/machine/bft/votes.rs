//! Votes for the present view and those near it (rules B2, B4, B24).
//!
//! Invariant: of each member the first vote in a phase, view and slot counts, and no other.

use std::collections::BTreeMap;

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

/// Votes whose signatures are valid, of one epoch.
#[derive(Debug, Default)]
pub(super) struct Votes(BTreeMap<(VotePhase, ViewNo), SlotVotes>);

impl Votes {
    /// The member's vote in a phase, view and slot.
    pub(super) fn of(
        &self,
        phase: VotePhase,
        (view, slot): (ViewNo, SlotNo),
        member: MemberId,
    ) -> Option<&PhaseVote> {
        self.0.get(&(phase, view))?.get(&slot)?.get(&member)
    }

    /// Counts a vote whose signature is valid.
    pub(super) fn count(&mut self, phase: VotePhase, vote: PhaseVote) -> Counted {
        let VoteSubject { view, slot, digest, .. } = vote.subject;
        let slots = self.0.entry((phase, view)).or_default();
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

    /// The certificate of a quorum's votes for a subject, once there are so many.
    pub(super) fn certificate(
        &self,
        phase: VotePhase,
        subject: VoteSubject,
        quorum: usize,
    ) -> Option<Certificate> {
        let votes = self.0.get(&(phase, subject.view))?.get(&subject.slot)?;
        let same = votes.values().filter(|it| it.subject == subject);
        let signatures: Vec<_> = same.take(quorum).map(|it| (it.sender_id, it.signature)).collect();
        (signatures.len() == quorum).then_some(Certificate { phase, subject, signatures })
    }

    /// Slots and digests that a quorum has committed in a view, ascending.
    pub(super) fn committed(&self, view: ViewNo, quorum: usize) -> Vec<Certificate> {
        let Some(slots) = self.0.get(&(VotePhase::Commit, view)) else { return Vec::new() };
        let certificate = |votes: &BTreeMap<MemberId, PhaseVote>| {
            votes.values().find_map(|it| self.certificate(VotePhase::Commit, it.subject, quorum))
        };
        slots.values().filter_map(certificate).collect()
    }

    /// Forgets slots up to a final one, and views before the first that still counts.
    pub(super) fn prune(&mut self, last: SlotNo, first_view: ViewNo) {
        self.0.retain(|(_, view), _| *view >= first_view);
        for slots in self.0.values_mut() {
            slots.retain(|slot, _| *slot > last);
        }
    }

    /// Number of votes, and of the views that they are for.
    #[cfg(feature = "fault-injection")]
    pub(super) fn sizes(&self) -> (usize, usize) {
        let of_view = |slots: &SlotVotes| slots.values().map(BTreeMap::len).sum::<usize>();
        let filled = self.0.iter().filter(|(_, slots)| !slots.is_empty());
        let views: std::collections::BTreeSet<_> = filled.map(|((_, view), _)| *view).collect();
        (self.0.values().map(of_view).sum(), views.len())
    }

    /// Forgets everything: a new epoch begins.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
