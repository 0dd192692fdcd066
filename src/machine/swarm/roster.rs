//! The roster: the members of a swarm that are known beforehand, and the ones that have all pieces.
//!
//! Invariant: a member is content with this peer when it knows that this peer has all pieces, or
//! when it had all pieces itself and is gone. This peer may go only when all members are, and all
//! have all pieces: a member left behind untold would wait for it.

use std::collections::BTreeMap;

use crate::proto::swarm::PeerId;

#[derive(Clone, Copy, Debug, Default)]
struct SwarmMember {
    /// True if the member has all pieces, as far as is known.
    is_complete: bool,
    /// True if the member was a neighbor once.
    was_met: bool,
    /// True if the member is a neighbor now.
    is_linked: bool,
    /// True if the member was a neighbor while this peer had all pieces.
    was_told: bool,
}

/// The members of the swarm, without this peer.
#[derive(Clone, Debug, Default)]
pub struct SwarmRoster(BTreeMap<PeerId, SwarmMember>);

impl SwarmRoster {
    /// Creates the roster of these members, each with whether it has all pieces from the beginning.
    pub fn new(members: impl IntoIterator<Item = (PeerId, bool)>) -> Self {
        let member = |is_complete| SwarmMember { is_complete, ..SwarmMember::default() };
        Self(members.into_iter().map(|(peer, has)| (peer, member(has))).collect())
    }

    /// True if a peer is a member.
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

    /// Notes that this peer has all pieces: the linked members were told.
    pub(super) fn tell(&mut self) {
        self.0.values_mut().filter(|it| it.is_linked).for_each(|it| it.was_told = true);
    }

    /// The members that lack pieces, as far as is known.
    pub(super) fn incomplete(&self) -> Vec<PeerId> {
        self.0.iter().filter(|(_, it)| !it.is_complete).map(|(peer, _)| *peer).collect()
    }

    /// True if all members have all pieces and none waits for this peer; `is_gone` says of a member
    /// that was met and is not linked whether it can be taken as ended.
    pub(super) fn is_over(&self, is_gone: impl Fn(PeerId) -> bool) -> bool {
        self.0.iter().all(|(peer, it)| {
            it.is_complete && (it.was_told || (it.was_met && !it.is_linked && is_gone(*peer)))
        })
    }
}
