//! Who belongs to a swarm whose members are known beforehand, and who has everything.
//!
//! Invariant: somebody is content with us when it knows that we have everything, or when it had
//! everything itself and is gone. Only when all are, and all have everything, may we go: whoever is
//! left behind untold would wait for us.

use std::collections::BTreeMap;

use super::messages::PeerId;

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// It has everything, as far as is known.
    is_complete: bool,
    /// It was a neighbor once.
    was_met: bool,
    /// It is one.
    is_linked: bool,
    /// It was, while we had everything.
    was_told: bool,
}

/// The members other than oneself.
#[derive(Clone, Debug, Default)]
pub struct Roster(BTreeMap<PeerId, Member>);

impl Roster {
    /// The members, each with whether it has everything from the beginning.
    pub fn new(members: impl IntoIterator<Item = (PeerId, bool)>) -> Self {
        let member = |is_complete| Member { is_complete, ..Member::default() };
        Self(members.into_iter().map(|(peer, has)| (peer, member(has))).collect())
    }

    /// Whether this is one.
    pub fn has(&self, peer: PeerId) -> bool {
        self.0.contains_key(&peer)
    }

    pub(super) fn remove(&mut self, me: PeerId) {
        self.0.remove(&me);
    }

    pub(super) fn linked(&mut self, peer: PeerId, is_linked: bool) {
        if let Some(member) = self.0.get_mut(&peer) {
            member.is_linked = is_linked;
            member.was_met |= is_linked;
        }
    }

    pub(super) fn complete(&mut self, peer: PeerId, is_complete: bool) {
        if let Some(member) = self.0.get_mut(&peer) {
            member.is_complete = is_complete;
        }
    }

    /// We have everything: whoever is linked was told.
    pub(super) fn tell(&mut self) {
        self.0.values_mut().filter(|it| it.is_linked).for_each(|it| it.was_told = true);
    }

    /// Those that lack something, as far as is known.
    pub(super) fn incomplete(&self) -> Vec<PeerId> {
        self.0.iter().filter(|(_, it)| !it.is_complete).map(|(peer, _)| *peer).collect()
    }

    /// Whether everybody has everything and nobody waits for us; `is_gone` says of one that was met
    /// and is not linked whether it can be taken as ended.
    pub(super) fn is_over(&self, is_gone: impl Fn(PeerId) -> bool) -> bool {
        self.0.iter().all(|(peer, it)| {
            it.is_complete && (it.was_told || (it.was_met && !it.is_linked && is_gone(*peer)))
        })
    }
}
