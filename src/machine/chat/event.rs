//! Inputs, effects, timers, records and events of a group's machine.
//!
//! The machine holds back itself the messages that must not be sent before a record is on disk
//! (R7).

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::machine::LinkId;
use crate::model::PublicKey;
use crate::proto::chat::entry::{
    ChainHash, ChatText, Entry, GroupId, Member, MemberId, Membership, MsgId, Origin, SeqNo, Term,
};
use crate::proto::chat::message::JoinIntent;

/// A connection on which both ends have proved their keys; never of another group. The other end's
/// `JOIN_ACK` follows as [`Input::Received`](crate::machine::Input::Received) where this end
/// called. A call of the machine's only leads to one if the key that was proved is that member's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The other end, as it describes itself; its key is proved.
    pub member: Member,
    /// Purpose of the connection.
    pub intent: JoinIntent,
    /// True if this end called.
    pub is_ours: bool,
    /// Random number of the process at the other end, if it has told it.
    pub life: Option<u64>,
}

/// An input that only this machine has.
#[derive(Clone, Debug)]
pub enum ExtraInput {
    /// Bytes came by a connection, perhaps not a whole message yet.
    Stirred {
        /// Link of the connection.
        link: LinkId,
    },
    /// An [`ExtraEffect::Load`] is done.
    Loaded {
        /// Link that the effect named.
        link: LinkId,
        /// Term of the entry before the first.
        prev_term: Term,
        /// Entries, at least one if there is one.
        entries: Vec<Arc<Entry>>,
    },
    /// All inputs that were waiting have been handed over: messages that have piled up may go now,
    /// together. Follows each input sooner or later.
    Idle,
}

/// Command of the local process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send this text; it is kept until it is final, across restarts (C5).
    Say {
        /// Name of the room.
        room: Arc<str>,
        /// Text of the message.
        text: Arc<str>,
    },
    /// Remove a member for good.
    Remove(MemberId),
    /// The seeds have certified that the member with this key is gone. It may come back.
    Certified(PublicKey),
    /// Go on alone, as another group: the majority is gone for good (C14). Nothing happens unless
    /// [`Group::may_recover`](super::Replica::may_recover) says so.
    Recover,
    /// Stop; a leader hands over first.
    Leave,
}

/// An effect that only this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtraEffect {
    /// Read final entries from this number on, at most so many bytes of text; answered by
    /// [`ExtraInput::Loaded`]. No other effect waits for it.
    Load {
        /// Link that the entries are for.
        link: LinkId,
        /// Number of the first entry.
        from: SeqNo,
        /// Limit of their text in bytes; at least one entry is read.
        bytes_max: usize,
    },
    /// Deliver these entries, which are final; in order, each once in a life (C4).
    Deliver(Vec<Arc<Entry>>),
    /// Write a snapshot, with which a restart may begin instead of the log's beginning.
    Snapshot(Box<Snapshot>),
}

/// Timers of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The leader was silent for too long; or a candidate has asked for long enough.
    Election,
    /// The leader sends its heartbeat, with the commit.
    Heartbeat,
    /// The leader tells the commit, if no entries have carried it on their way.
    Commit,
    /// The leader checks whether it still hears a majority.
    Quorum,
    /// Messages without a number are sent again.
    Resend,
    /// A member is called again.
    Redial(MemberId),
    /// A handover may begin; or it takes too long.
    Takeover,
    /// The answer to a catch-up is late.
    Catchup,
    /// Signs of life are sent, and the others' are checked.
    Pulse,
}

/// Record that a member must still know after a crash. Written in order, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The first record: group and owner of this log. A later one: the log goes on as
    /// that group (C14).
    Group {
        /// Identity of the group.
        group: GroupId,
        /// Member that owns the log.
        me: MemberId,
        /// Public key of that member.
        key: PublicKey,
    },
    /// A term, and the candidate to which this member has promised it (R1).
    Term {
        /// Newest term that is known.
        term: Term,
        /// Candidate that has the promise, if any.
        #[serde(rename = "promised_to")]
        voted_for: Option<MemberId>,
    },
    /// An entry; its number is one above the entry before it.
    Entry(Arc<Entry>),
    /// From this number on the entries before this record do not count.
    Cut {
        /// First number that does not count.
        from: SeqNo,
    },
    /// A text typed here that has no number yet.
    Typed(ChatText),
    /// A text typed here goes on under another identity; the old one was another text's.
    Renamed {
        /// Identity until now.
        from: MsgId,
        /// Identity from now on.
        to: MsgId,
    },
    /// A text typed here was given back to its author: the group cannot take it.
    GivenBack {
        /// Identity of the message.
        msg_id: MsgId,
    },
    /// This member's log ends before what it had acknowledged, as a leader has noticed: it must
    /// not be used any more.
    Rewound,
    /// All entries up to here were final then. May lag; a final entry stays final.
    Commit {
        /// Number of the last final entry.
        seq_no: SeqNo,
    },
}

/// The state at one final entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Identity of the group.
    pub group: GroupId,
    /// Number of the entry.
    pub seq_no: SeqNo,
    /// Term of the entry.
    pub term: Term,
    /// Running hash there.
    pub chain: ChainHash,
    /// Membership of the group there.
    pub membership: Arc<Membership>,
    /// Last number of each author there, and its place (R9), ascending by the place.
    pub authors: Vec<AuthorMark>,
}

/// Last number of an author's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorMark {
    /// Member that answers for the messages.
    pub member: MemberId,
    /// Client number of the numbering.
    pub client: u64,
    /// Last number of the author.
    pub number: u64,
    /// Place of that message in the order.
    pub seq_no: SeqNo,
}

impl AuthorMark {
    /// Numbering that the mark is about.
    pub const fn origin(&self) -> Origin {
        Origin { member: self.member, client: self.client }
    }
}

/// Role of a member in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// The process is not a member of the group yet.
    Joining,
    /// The member follows a leader, or waits for one.
    Follower,
    /// The member stands for election.
    Candidate,
    /// The member leads the group.
    Leader,
}

/// Reason of an election that follows a successful trial.
pub const TRIAL_SUCCEEDED: &str = "a majority would promise";

/// Event for the surroundings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Role, term or leader changed.
    RoleChanged {
        /// Role of this member now.
        role: Role,
        /// Newest term that is known.
        term: Term,
        /// Present leader, if known.
        leader: Option<MemberId>,
        /// Members whose promises a leader holds.
        promises: Vec<MemberId>,
    },
    /// An election was begun.
    ElectionBegun {
        /// Term in which the member wants to lead.
        term: Term,
        /// Reason in words, for people.
        reason: Cow<'static, str>,
    },
    /// The leader, or this member as the leader, reaches no majority: typed texts wait (C6).
    NoQuorum,
    /// A majority is reached again.
    Quorum,
    /// The membership of the group has changed to this.
    MembershipChanged(Arc<Membership>),
    /// A text typed here is kept on disk, and waits for its number.
    Pending(ChatText),
    /// A text typed here is not kept: there is no room, or it is no message.
    Rejected {
        /// Name of the room.
        room: Arc<str>,
        /// Text that was typed.
        text: Arc<str>,
        /// Reason in words, for people.
        reason: String,
    },
    /// A text typed here that was kept is given back: the group cannot take it.
    GivenBack {
        /// Message that is given back.
        chat: ChatText,
        /// Reason in words, for people.
        reason: String,
    },
    /// A text typed here goes on under another identity.
    Renamed {
        /// Identity until now.
        from: MsgId,
        /// Identity from now on.
        to: MsgId,
    },
    /// Two processes use one member's key; the later one was refused.
    Doubled {
        /// Member whose key is used twice.
        member: MemberId,
        /// The fault and the remedy in words, for people.
        reason: String,
    },
    /// A message typed here is in the leader's log at this number, not yet final.
    Numbered(MsgId, SeqNo),
    /// A member came within reach.
    Reached(MemberId),
    /// A member is out of reach.
    Lost(MemberId),
    /// This member was removed for good, or refused.
    Refused {
        /// Reason in words, for people.
        reason: String,
    },
    /// A member's log differs from this one at or before this number (C11).
    Diverged {
        /// Member whose log differs.
        member: MemberId,
        /// Number at or before which it differs.
        at: SeqNo,
    },
    /// An input was dropped and counted, for this reason, which other processes are not told.
    Dropped(#[serde(skip)] &'static str),
    /// The machine has ended, after [`Command::Leave`].
    Gone,
}
