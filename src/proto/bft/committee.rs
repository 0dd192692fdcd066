//! Members that vote in an epoch, and the numbers that follow from them (rule B1).

use serde::{Deserialize, Serialize};

use super::number::{ContentDigest, EpochNo, OrderId, SlotNo, ViewNo};
use crate::model::{PublicKey, SigningBytes};
use crate::proto::chat::entry::{Member, MemberId};

/// Greatest number of members of a group with Byzantine order: each of them hears each vote.
pub const VOTERS_MAX: usize = 64;

/// Number of slots, for each member of the group, in which a member may renew its life once: all
/// liars together must not take more than a twelfth of the slots by renewals. A quiet group gets
/// there by a few entries.
pub const RENEW_EVERY: u64 = 4;

/// Life of a member's memory: a member that has lost what it had signed begins a new one (B20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Life {
    /// Number of the life, from 0.
    pub counter: u64,
    /// Number drawn at random when the life began; 0 in the first life.
    pub number: u64,
}

/// One member of a committee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    /// The member, with its address and key.
    #[serde(flatten)]
    pub member: Member,
    /// Life in which the member votes.
    #[serde(default)]
    pub life: Life,
    /// Slot in which that life began; 0 for a first life.
    #[serde(default)]
    pub renewed: SlotNo,
}

/// Membership of an epoch: 1 to [`VOTERS_MAX`] members, ascending by id, no key twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Voter>", into = "Vec<Voter>")]
pub struct Committee(Vec<Voter>);

impl TryFrom<Vec<Voter>> for Committee {
    type Error = &'static str;

    fn try_from(mut voters: Vec<Voter>) -> Result<Self, Self::Error> {
        voters.sort_by_key(|it| it.member.id);
        if voters.is_empty() || voters.len() > VOTERS_MAX {
            return Err("a committee has 1 to 64 members");
        }
        let mut keys: Vec<_> = voters.iter().map(|it| it.member.key).collect();
        keys.sort_unstable();
        if voters.windows(2).any(|pair| pair[0].member.id == pair[1].member.id)
            || keys.windows(2).any(|pair| pair[0] == pair[1])
        {
            return Err("two members of the committee have one id or one key");
        }
        Ok(Self(voters))
    }
}

impl From<Committee> for Vec<Voter> {
    fn from(committee: Committee) -> Self {
        committee.0
    }
}

impl Committee {
    /// Committee of these members in their first lives.
    ///
    /// # Errors
    /// Fails if there are none or too many, or if two share an id or a key.
    pub fn of(members: impl IntoIterator<Item = Member>) -> Result<Self, &'static str> {
        let life = Life::default();
        let first = |member| Voter { member, life, renewed: SlotNo(0) };
        members.into_iter().map(first).collect::<Vec<_>>().try_into()
    }

    /// Members, ascending by id.
    pub fn voters(&self) -> &[Voter] {
        &self.0
    }

    /// Number of members.
    #[expect(clippy::len_without_is_empty, reason = "a committee is never empty")]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The member of this id.
    pub fn voter(&self, id: MemberId) -> Option<&Voter> {
        let at = self.0.binary_search_by_key(&id, |it| it.member.id).ok()?;
        Some(&self.0[at])
    }

    /// Key of the member of this id.
    pub fn key(&self, id: MemberId) -> Option<&PublicKey> {
        Some(&self.voter(id)?.member.key)
    }

    /// Number of liars that the committee bears: floor((n-1)/3).
    pub const fn liars_borne(&self) -> usize {
        (self.0.len() - 1) / 3
    }

    /// Number of distinct members that decide (B1): ceil((n+f+1)/2).
    pub const fn quorum(&self) -> usize {
        (self.0.len() + self.liars_borne() + 1).div_ceil(2)
    }

    /// Leader of a view: the members take turns, and each epoch begins with the next.
    pub fn leader(&self, epoch: EpochNo, view: ViewNo) -> MemberId {
        let turn = epoch.0.wrapping_add(view.0) % self.0.len() as u64;
        self.0[usize::try_from(turn).unwrap_or_default()].member.id
    }

    /// Appends the committee to a statement.
    fn add_to(&self, bytes: SigningBytes) -> SigningBytes {
        self.0.iter().fold(bytes.number(self.0.len() as u64), |bytes, voter| {
            let Voter { member, life, renewed } = voter;
            bytes
                .number(member.id.0.into())
                .text(&member.at.host.to_string())
                .number(member.at.port.into())
                .key(&member.key)
                .number(life.counter)
                .number(life.number)
                .number(renewed.0)
        })
    }

    /// Digest of the committee, as headers name it.
    #[must_use]
    pub fn digest(&self) -> ContentDigest {
        ContentDigest(self.add_to(SigningBytes::new("folkmoot/bft/committee/1")).sha256())
    }

    /// Identity of the group whose first committee this is. Groups of the same members differ by
    /// their salt.
    #[must_use]
    pub fn order_id(&self, salt: &str) -> OrderId {
        OrderId(self.add_to(SigningBytes::new("folkmoot/bft/group/1").text(salt)).sha256())
    }

    /// First slot in which a member may renew its life (B26).
    #[must_use]
    pub const fn renewable_from(&self, voter: &Voter) -> SlotNo {
        match voter.renewed {
            SlotNo(0) => SlotNo(0),
            renewed => renewed.ahead(RENEW_EVERY * self.0.len() as u64),
        }
    }

    /// The committee in which `id` votes in the life `life` from `slot` on; unchanged if it is no
    /// member.
    #[must_use]
    pub fn renewed(&self, id: MemberId, life: Life, slot: SlotNo) -> Self {
        let mut voters = self.0.clone();
        for voter in voters.iter_mut().filter(|it| it.member.id == id) {
            (voter.life, voter.renewed) = (life, slot);
        }
        Self(voters)
    }
}
