//! Inputs, effects, timers, records and events of a Byzantine order's machine.
//!
//! The machine holds back itself the messages that must not be sent before a record is on disk
//! (B8, B9).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::LinkId;
use crate::model::PublicKey;
use crate::proto::bft::message::SlotContent;
use crate::proto::bft::{
    Bundle, Certificate, Committee, ContentDigest, EpochNo, Equivocation, Life, MembershipChange,
    SlotHeader, SlotNo, ViewNo,
};
use crate::proto::chat::entry::{ChainHash, ChatText, Entry, MemberId, MsgId, Origin, SeqNo};

/// A connection on which both ends have proved their keys; never of another group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Key of the other end, which is proved. One that is no member's only follows the order.
    pub key: PublicKey,
    /// True if this end called.
    pub is_ours: bool,
}

/// An input that only this machine has.
#[derive(Clone, Debug)]
pub enum ExtraInput {
    /// An [`ExtraEffect::Load`] is done.
    Loaded {
        /// Link that the effect named.
        link: LinkId,
        /// Slots without a gap from the one that was asked for on.
        slots: Vec<Arc<SlotContent>>,
        /// Headers of the slots between the last of them and the certificate's.
        headers: Vec<SlotHeader>,
        /// Certificate of COMMITs of the last slot or header; `None` if the log has none there.
        certificate: Option<Certificate>,
    },
    /// All inputs that were waiting have been handed over: messages that have piled up may go now,
    /// together. Follows each input sooner or later.
    Idle,
}

/// Command of the local process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send this text; it is kept until it is final, across restarts.
    Say {
        /// Name of the room.
        room: Arc<str>,
        /// Text of the message.
        text: Arc<str>,
    },
    /// Consent to a change of the committee.
    Approve(MembershipChange),
    /// Wish for the next view.
    Suspect,
    /// Stop taking part.
    Leave,
}

/// An effect that only this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtraEffect {
    /// Read final slots of one epoch from this one on, and the headers up to a slot that has a
    /// certificate; answered by [`ExtraInput::Loaded`]. No other effect waits for it.
    Load {
        /// Link that the slots are for.
        link: LinkId,
        /// Number of the first slot.
        from: SlotNo,
        /// Greatest number of slots.
        slots_max: usize,
        /// Limit of their text in bytes; at least one slot is read.
        bytes_max: usize,
    },
    /// Deliver these messages, which are final; in order, each once in a life.
    Deliver(Vec<Arc<Entry>>),
    /// Write a snapshot, with which a restart may begin instead of the log's beginning.
    Snapshot(Box<OrderSnapshot>),
}

/// Timers of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The sender's progress is told, and what is under way is said again (B22).
    Heartbeat,
    /// The view has brought nothing final for too long (B17).
    Patience,
    /// The link to the leader is not back in time (B17).
    LeaderBroken,
    /// The view has lasted long enough (B25).
    Reign,
    /// Contents that are missing are asked for.
    Fetch,
    /// Members have had the time to answer what this one had signed (B20).
    Recall,
    /// A member is called again.
    Redial(MemberId),
}

/// Record that a member must still know after a crash. Written in order, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The first record: group and owner of this log.
    Group {
        /// Committee with which the group was founded.
        committee: Arc<Committee>,
        /// Salt of the group's identity.
        salt: String,
        /// Member that owns the log.
        me: MemberId,
    },
    /// A view that this member has promised or entered (B9).
    View {
        /// Epoch of the view.
        epoch: EpochNo,
        /// Number of the view.
        view: ViewNo,
    },
    /// Messages typed here that have no place yet.
    Typed(Arc<Bundle>),
    /// Content of a slot.
    Slot(Arc<SlotContent>),
    /// A quorum has prepared a slot (B8).
    Prepared(Certificate),
    /// A quorum has committed a slot. May lag; a final slot stays final.
    Final(Certificate),
    /// This member has lost what it had signed, and is silent until it votes in this life (B20).
    Hole {
        /// Life that was lost.
        life: Life,
    },
    /// The life in which this member is to vote again; drawn after the loss (B20).
    Life {
        /// The new life.
        life: Life,
    },
    /// Two statements of one member that exclude each other (B24).
    Evidence(Arc<Equivocation>),
}

/// The state behind one final slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderSnapshot {
    /// Last final slot.
    pub slot: SlotNo,
    /// Digest of its header.
    pub digest: ContentDigest,
    /// Number of the last message.
    pub place: SeqNo,
    /// Running hash there.
    pub hash: ChainHash,
    /// Epoch behind the slot.
    pub epoch: EpochNo,
    /// Last slot before that epoch, and the digest of its header.
    pub epoch_start: (SlotNo, ContentDigest),
    /// Committee of that epoch.
    pub committee: Arc<Committee>,
    /// Last number of each numbering, ascending by author and client number.
    pub marks: Vec<OrderMark>,
    /// Numberings of an author up to this one are forgotten, and take no more messages.
    pub floors: Vec<(MemberId, u64)>,
    /// Certificate of COMMITs of the slot.
    pub certificate: Certificate,
}

/// Last number of an author's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderMark {
    /// Member that wrote the messages.
    pub member: MemberId,
    /// Client number of the numbering.
    pub client: u64,
    /// Last number that has a place.
    pub number: u64,
}

impl OrderMark {
    /// Numbering that the mark is about.
    pub const fn origin(&self) -> Origin {
        Origin { member: self.member, client: self.client }
    }
}

/// Event for the surroundings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A view has begun.
    ViewBegan {
        /// Epoch of the view.
        epoch: EpochNo,
        /// Number of the view.
        view: ViewNo,
        /// Leader of the view.
        leader: MemberId,
    },
    /// A member wishes for another view.
    Suspected {
        /// Member that wishes.
        by: MemberId,
        /// View that it wishes for.
        view: ViewNo,
        /// Reason in words, for people.
        reason: String,
    },
    /// Too few members are reached: nothing becomes final.
    Halted {
        /// Number of members reached that vote, this one included.
        reached: usize,
        /// Number that is needed.
        needed: usize,
        /// Members reached that do not vote: they may have forgotten what they had signed.
        silent: Vec<MemberId>,
    },
    /// Enough members are reached again.
    Resumed,
    /// A member has signed two statements that exclude each other.
    Equivocation(Arc<Equivocation>),
    /// This member has lost what it had signed, and is silent until its life is renewed.
    Hole {
        /// Reason in words, for people.
        reason: String,
    },
    /// A new epoch has begun.
    EpochBegan {
        /// Number of the epoch.
        epoch: EpochNo,
        /// Members of the epoch.
        committee: Arc<Committee>,
    },
    /// A text typed here has its identity; it is repeated until it is final.
    Pending(ChatText),
    /// A text typed here is not kept.
    Rejected {
        /// Name of the room.
        room: Arc<str>,
        /// Text that was typed.
        text: Arc<str>,
        /// Reason in words, for people.
        reason: String,
    },
    /// A text typed here is proposed for a place, not yet final.
    Proposed(MsgId),
    /// A member came within reach.
    Reached(MemberId),
    /// A member is out of reach.
    Lost(MemberId),
    /// This member can take no further part: the group's order contradicts its own log.
    Stopped {
        /// Reason in words, for people.
        reason: String,
    },
    /// An input was dropped and counted, for this reason, which other processes are not told.
    Dropped(#[serde(skip)] &'static str),
    /// The machine has ended, after [`Command::Leave`].
    Gone,
}
