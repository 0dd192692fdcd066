//! Status of a member, for people and programs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::replica::{BftReplica, Consents};
use crate::proto::bft::{
    ContentDigest, EpochNo, Equivocation, MembershipChange, OrderId, SlotNo, ViewNo,
};
use crate::proto::chat::entry::{ChainHash, Member, MemberId, SeqNo};

/// Status of a member, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BftStatus {
    /// Identity of the group.
    pub group: OrderId,
    /// Member whose status it is.
    pub me: MemberId,
    /// Members of the epoch, ascending by id.
    pub members: Vec<BftMemberStatus>,
    /// Epoch of the member.
    pub epoch: EpochNo,
    /// View of the member.
    pub view: ViewNo,
    /// True if the view has begun.
    pub active: bool,
    /// Leader of the view.
    pub leader: MemberId,
    /// Number of liars that the group bears.
    pub liars_borne: usize,
    /// Number of members that decide.
    pub quorum: usize,
    /// Number of members in reach that vote, this one included.
    pub reached: usize,
    /// Last final slot.
    pub slot: SlotNo,
    /// Digest of that slot's header.
    pub digest: ContentDigest,
    /// Number of the last final message.
    pub place: SeqNo,
    /// Running hash there.
    pub hash: ChainHash,
    /// Reason why this member is silent, if it is (B20).
    pub silent: Option<String>,
    /// Number of texts typed here that are not final.
    pub pending: usize,
    /// Changes of the members that wait for a quorum's consents.
    pub changes: Vec<BftChangeStatus>,
    /// Members that have signed statements which exclude each other, with these.
    pub evidence: Vec<Arc<Equivocation>>,
}

/// Change of the members that waits for consents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BftChangeStatus {
    /// The change, without its consents.
    pub change: MembershipChange,
    /// Members that have consented, ascending.
    pub consents: Vec<MemberId>,
}

/// Status of one member, as another sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BftMemberStatus {
    /// Member that the status is about.
    #[serde(flatten)]
    pub member: Member,
    /// True if the member is in reach.
    pub reached: bool,
    /// True if the member says that it votes for nothing (B20): it counts as one that is away.
    #[serde(default)]
    pub silent: bool,
    /// Last final slot of the member, as it has told.
    pub slot: Option<SlotNo>,
    /// View that the member wishes for, if it is above the present one.
    pub wishes: Option<ViewNo>,
}

impl BftReplica {
    /// Status of the member.
    pub fn status(&self) -> BftStatus {
        let settled = self.chain.settled();
        let committee = self.committee();
        let view = self.views.view();
        let silent_members = self.silent_members();
        let member = |voter: &crate::proto::bft::Voter| {
            let id = voter.member.id;
            let link = self.links.of(id).and_then(|it| self.links.get(it));
            let is_me = id == self.me.id;
            let slot = if is_me { Some(settled.tip.slot) } else { None };
            let told = link.and_then(|it| it.status).map(|it| it.slot);
            let wish = self.views.wish_of(id).map(|it| it.view);
            BftMemberStatus {
                member: voter.member.clone(),
                reached: is_me || link.is_some(),
                silent: silent_members.contains(&id),
                slot: slot.or(told),
                wishes: wish.filter(|it| *it > view),
            }
        };
        let waiting = |(change, given): &Consents| BftChangeStatus {
            change: change.clone(),
            consents: given.keys().copied().collect(),
        };
        let silent = match (self.recall.lost(), self.recall.is_certain()) {
            (Some(_), _) => Some("it has lost what it had signed, and begins a new life"),
            (None, false) => Some("it asks the others what it has signed"),
            (None, true) if !self.views.may_vote() => {
                Some("it was restarted, and votes in later views")
            }
            (None, true) => None,
        };
        BftStatus {
            group: self.group,
            me: self.me.id,
            members: committee.voters().iter().map(member).collect(),
            epoch: settled.epoch,
            view,
            active: self.views.is_active(),
            leader: self.leader(),
            liars_borne: committee.liars_borne(),
            quorum: committee.quorum(),
            reached: self.voters_reached(),
            slot: settled.tip.slot,
            digest: settled.tip.digest,
            place: settled.tip.place,
            hash: settled.tip.hash,
            silent: self.pause_of_renewal().or_else(|| silent.map(str::to_owned)),
            pending: self.outbox.len(),
            changes: self.consents.values().map(waiting).collect(),
            evidence: self.evidence.values().cloned().collect(),
        }
    }
}
