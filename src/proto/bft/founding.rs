//! Notes by which peers of a fleet found a Byzantine order without a roster's file.
//!
//! A note is the data of a message on a topic of the fleet, so its origin has proved its key, and
//! speaks for itself only. Its own certificate of admission is in the note: members judge it by
//! their own list of seeds, and keep it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::committee::{Committee, VOTERS_MAX};
use super::number::OrderId;
use crate::model::statement::Admission;
use crate::model::{Endpoint, KeyPair, PublicKey, Signature, SigningBytes};
use crate::proto::chat::entry::{HostPort, Member, MemberId};

/// Number of groups in a note's `left`; a longer list is read to there.
pub const LEFT_MAX: usize = 16;

/// Greatest difference of two members' attempts; a higher one is not believed.
pub const ATTEMPTS_AHEAD_MAX: u64 = 8;

/// Statement of a peer that looks for an order's founders, or of a founder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingNote {
    /// Name of the order.
    pub order: String,
    /// Number of members with which the order is to be founded.
    pub size: usize,
    /// Certificate of the sender's admission, signed by a quorum of seeds.
    pub admission: Admission,
    /// Number of the next attempt to found the order, by what the sender knows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u64,
    /// The one roster that the sender has signed, with all signatures that it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roster: Option<SignedRoster>,
    /// Groups in which the sender takes no part for good; the latest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<OrderId>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Founders of a group, with the signatures of those that agree to be founders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRoster {
    /// Founders: ids from 1 on, ascending by address.
    pub members: Vec<Member>,
    /// Number of the attempt to found the order, from 0: each founds another group.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u64,
    /// Signatures by id.
    pub signatures: BTreeMap<MemberId, Signature>,
}

impl SignedRoster {
    /// Roster of these founders, which nobody has signed.
    #[must_use]
    pub fn new(founders: impl IntoIterator<Item = (Endpoint, PublicKey)>, attempt: u64) -> Self {
        let mut founders: Vec<_> = founders.into_iter().collect();
        founders.sort_unstable();
        let member = |(id, (at, key))| Member { id: MemberId(id), at: HostPort::from(at), key };
        let members = (1..).zip(founders).map(member).collect();
        Self { members, attempt, signatures: BTreeMap::new() }
    }

    /// Founders as a committee; `None` if they are none, or not numbered by their addresses.
    #[must_use]
    pub fn committee(&self) -> Option<Committee> {
        if self.members.len() > VOTERS_MAX {
            return None;
        }
        let founders =
            self.members.iter().map(|it| (Endpoint::new(it.at.host, it.at.port), it.key));
        let is_numbered = Self::new(founders, 0).members == self.members;
        let is_apart = self.members.windows(2).all(|pair| pair[0].at != pair[1].at);
        (is_numbered && is_apart).then(|| Committee::of(self.members.clone()).ok())?
    }

    /// Name that makes the group's identity: the order's, and the attempt unless it is the first.
    #[must_use]
    pub fn salt(&self, order: &str) -> String {
        match self.attempt {
            0 => order.to_owned(),
            attempt => format!("{order}/{attempt}"),
        }
    }

    /// Identity of the group that the founders found; `None` if they are no committee.
    #[must_use]
    pub fn group(&self, order: &str) -> Option<OrderId> {
        Some(self.committee()?.order_id(&self.salt(order)))
    }

    /// Id of the founder with this key.
    #[must_use]
    pub fn id_of(&self, key: &PublicKey) -> Option<MemberId> {
        self.members.iter().find(|it| it.key == *key).map(|it| it.id)
    }

    /// Signs the roster of this group as `member`.
    pub fn sign(&mut self, group: &OrderId, (member, keys): (MemberId, &KeyPair)) {
        self.signatures.insert(member, keys.sign(&founding_bytes(group)));
    }

    /// True if `member` is a founder that has signed so.
    #[must_use]
    pub fn is_valid(&self, group: &OrderId, member: MemberId, signature: &Signature) -> bool {
        let founder = self.members.iter().find(|it| it.id == member);
        founder.is_some_and(|it| it.key.verifies(&founding_bytes(group), signature))
    }

    /// True if each founder has signed the roster of this group.
    #[must_use]
    pub fn is_complete(&self, group: &OrderId) -> bool {
        let has_signed = |it: &Member| {
            let signature = self.signatures.get(&it.id);
            signature.is_some_and(|signature| it.key.verifies(&founding_bytes(group), signature))
        };
        !self.members.is_empty() && self.members.iter().all(has_signed)
    }
}

fn founding_bytes(group: &OrderId) -> SigningBytes {
    SigningBytes::new("folkmoot/bft/found/1").bytes(&group.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(number: u8) -> KeyPair {
        KeyPair::from_secret([number; 32])
    }

    fn at(number: u8) -> Endpoint {
        Endpoint::new([10, 0, 0, number].into(), 6_000)
    }

    fn roster(attempt: u64) -> SignedRoster {
        SignedRoster::new([3, 1, 4, 2].map(|it| (at(it), keys(it).public())), attempt)
    }

    #[test]
    fn founders_are_numbered_by_their_addresses_and_sign_one_group() {
        let mut it = roster(0);
        let group = it.group("ledger").unwrap();
        assert_ne!(Some(group), it.group("other"));
        assert_ne!(Some(group), roster(1).group("ledger"));
        assert_eq!(roster(1).salt("ledger"), "ledger/1");
        for number in 1..=4 {
            assert!(!it.is_complete(&group));
            let id = it.id_of(&keys(number).public()).unwrap();
            assert_eq!(id, MemberId(number.into()));
            it.sign(&group, (id, &keys(number)));
        }
        assert!(it.is_complete(&group));
        assert!(!it.is_complete(&roster(1).group("ledger").unwrap()), "another group");
        let other = it.signatures[&MemberId(1)];
        assert!(it.is_valid(&group, MemberId(1), &other));
        assert!(!it.is_valid(&group, MemberId(2), &other), "another founder's");
        it.signatures.insert(MemberId(2), other);
        assert!(!it.is_complete(&group));
    }

    #[test]
    fn founders_that_are_no_committee_found_no_group() {
        let mut swapped = roster(0);
        swapped.members.swap(0, 1);
        let mut renumbered = roster(0);
        renumbered.members[3].id = MemberId(9);
        let twice = SignedRoster::new([(at(1), keys(1).public()), (at(2), keys(1).public())], 0);
        let there = SignedRoster::new([(at(1), keys(1).public()), (at(1), keys(2).public())], 0);
        let many = SignedRoster::new((1..=65).map(|it| (at(it), keys(it).public())), 0);
        for it in [swapped, renumbered, twice, there, many, SignedRoster::new([], 0)] {
            assert_eq!(it.group("ledger"), None, "{it:?}");
        }
    }
}
