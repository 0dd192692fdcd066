//! The machine itself: its state, and the dispatch of each input.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::event::{
    Command, Event, ExtraEffect, ExtraInput, Opening, OrderSnapshot, Record, Timer,
};
use crate::machine::{self, Machine, Vocabulary};
use crate::model::{KeyPair, Now, Rng};
use crate::proto::bft::message::Message;
use crate::proto::bft::{Committee, ContentDigest, EpochNo, Equivocation, OrderId, SlotNo, ViewNo};
use crate::proto::chat::entry::{ChainHash, Member, MemberId, SeqNo};

/// Input to the machine.
pub type Input = machine::Input<BftReplica>;

/// Action that the driver must carry out.
pub type Effect = machine::Effect<BftReplica>;

/// The effects of one input.
pub type Fx = machine::Effects<BftReplica>;

/// One member of a group, as it is configured.
#[derive(Clone, Debug)]
pub struct BftIdentity {
    /// Id of the member in its committee.
    pub id: MemberId,
    /// Key pair of the member, which signs all that it says.
    pub keys: KeyPair,
    /// Committee with which the group was founded.
    pub founders: Arc<Committee>,
    /// Salt of the group's identity.
    pub salt: String,
}

/// State that a member has on its disk when it starts.
#[derive(Debug, Default)]
pub struct OrderMemory {
    /// Newest snapshot, if there is one.
    pub snapshot: Option<Box<OrderSnapshot>>,
    /// Records in order; those that the snapshot covers may be left out, but not `Group`, `View`,
    /// `Typed`, `Hole`, `Life` and `Evidence`.
    pub records: Vec<Record>,
    /// Reason why what the member has signed may be missing here, if there is one: its log is gone
    /// though its key has signed before, or its operator says that it is a copy (B20).
    pub is_lost: Option<String>,
}

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
    /// Number of members in reach, this one included.
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
    /// Members that have signed statements which exclude each other, with these.
    pub evidence: Vec<Arc<Equivocation>>,
}

/// Status of one member, as another sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BftMemberStatus {
    /// Member that the status is about.
    #[serde(flatten)]
    pub member: Member,
    /// True if the member is in reach.
    pub reached: bool,
    /// Last final slot of the member, as it has told.
    pub slot: Option<SlotNo>,
    /// View that the member wishes for, if it is above the present one.
    pub wishes: Option<ViewNo>,
}

/// State of one member in its group.
#[derive(Debug)]
pub struct BftReplica {
    me: BftIdentity,
    config: Config,
}

impl Vocabulary for BftReplica {
    type Message = Message;
    type Call = Member;
    type Timer = Timer;
    type Record = Record;
    type Event = Event;
    type ExtraEffect = ExtraEffect;
}

impl Machine for BftReplica {
    type Opening = Opening;
    type CallFailure = MemberId;
    type Command = Command;
    type ExtraInput = ExtraInput;

    fn handle(&mut self, _now: Now, _input: Input, _fx: &mut Fx) {}
}

impl BftReplica {
    /// Creates a member that has not begun: the first input is [`Input::Start`].
    ///
    /// # Errors
    /// Fails if the records contradict each other or the identity: the log must not be used.
    pub fn new(
        config: Config,
        me: BftIdentity,
        _rng: Rng,
        _memory: OrderMemory,
    ) -> Result<Self, String> {
        Ok(Self { me, config })
    }
}
