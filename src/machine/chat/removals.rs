//! Removals of members that are wanted, until they are final (C7).

use std::collections::BTreeMap;

use crate::model::PublicKey;
use crate::proto::chat::entry::{Member, MemberId, Membership};

/// Removal of a member that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberRemoval {
    /// Public key of the member; a membership of that id with another key is not meant.
    pub(super) key: PublicKey,
    /// True if the key is refused from then on. A member that the seeds have certified to be gone
    /// may come back.
    pub(super) is_for_good: bool,
}

/// Members to remove, when it is possible.
#[derive(Debug, Default)]
pub(super) struct Removals(BTreeMap<MemberId, MemberRemoval>);

impl Removals {
    /// Wants a removal. One for good counts more than one that is not, a newer key more than an
    /// older one.
    pub(super) fn want(&mut self, id: MemberId, ending: MemberRemoval) {
        let known = self.0.entry(id).or_insert(ending);
        if ending.is_for_good || known.key != ending.key {
            *known = ending;
        }
    }

    /// Wants a removal that the seeds have certified, unless one is wanted already.
    pub(super) fn certify(&mut self, id: MemberId, key: PublicKey) {
        self.0.entry(id).or_insert(MemberRemoval { key, is_for_good: false });
    }

    /// The removal that is meant for this member.
    pub(super) fn of(&self, member: &Member) -> Option<MemberRemoval> {
        self.0.get(&member.id).copied().filter(|it| it.key == member.key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (MemberId, MemberRemoval)> {
        self.0.iter().map(|(id, it)| (*id, *it))
    }

    /// Forgets the removals that a final membership has carried out.
    pub(super) fn on_final(&mut self, now: &Membership) {
        self.0.retain(|id, it| now.members.iter().any(|m| m.id == *id && m.key == it.key));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
