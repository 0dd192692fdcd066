//! What happens to a group's machine, what it has its driver do, and what it must still know after
//! a crash.
//!
//! The machine never waits. A [`Effect::Persist`] is answered by [`Input::Synced`] when the disk
//! has it; what must not be said before is said by the machine only then (R7).

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entry::{
    Chain, Chat, Entry, GroupId, Member, MemberId, Membership, MsgId, Origin, SeqNo, Term,
};
use super::messages::{Intent, Message};
use crate::model::PublicKey;
use crate::protocol::LinkId;

/// What can happen to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// The first input, once.
    Start,
    /// A connection on which both ends have proved their keys; never of another group. The other
    /// end's `JOIN_ACK` follows as [`Input::Received`] where this end called. A call that
    /// [`Effect::Dial`] asked for is only linked if the key that was proved is that member's.
    Linked {
        /// The connection.
        link: LinkId,
        /// The other end, as it describes itself; its key is proved.
        member: Member,
        /// What it is for.
        intent: Intent,
        /// Whether this end called.
        is_ours: bool,
        /// The random number of the process at the other end, if it has told it.
        life: Option<u64>,
    },
    /// A call that was asked for failed.
    DialFailed {
        /// Whom it was to.
        member: MemberId,
    },
    /// A connection ended. Comes once for each that was [`Input::Linked`].
    Unlinked {
        /// The connection.
        link: LinkId,
    },
    /// Something came by a connection, perhaps not a whole message yet.
    Stirred {
        /// The connection.
        link: LinkId,
    },
    /// A message came.
    Received {
        /// The connection.
        link: LinkId,
        /// The message, well-formed and not yet believed.
        msg: Message,
    },
    /// All records handed over up to the one of this number, counted from 1, are on disk.
    Synced {
        /// How many.
        records: u64,
    },
    /// An [`Effect::Load`] is done.
    Loaded {
        /// As asked.
        link: LinkId,
        /// The term of the entry before the first.
        prev_term: Term,
        /// The entries, at least one if there is one.
        entries: Vec<Arc<Entry>>,
    },
    /// Somebody at this member typed something.
    Command(Command),
    /// A deadline passed.
    TimerFired(Timer),
    /// All inputs that were waiting have been handed over: whatever piled up may go now, together.
    /// Follows each input sooner or later.
    Idle,
}

/// What the local process asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send this; it is kept until it is final, across restarts (C5).
    Say {
        /// The room.
        room: Arc<str>,
        /// The text.
        text: Arc<str>,
    },
    /// Remove a member for good.
    Remove(MemberId),
    /// The seeds have certified that whoever holds this key is gone. It may come back.
    Certified(PublicKey),
    /// Go on alone, as another group: the majority is gone for good (C14). Nothing happens unless
    /// [`Group::may_recover`](super::Group::may_recover) says so.
    Recover,
    /// Stop; a leader hands over first.
    Leave,
}

/// What the driver is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a message by these connections.
    Send(Vec<LinkId>, Message),
    /// Write a record at the end of the log; answered by [`Input::Synced`].
    Persist(Record),
    /// Read final entries from this number on, at most so many bytes of text; answered by
    /// [`Input::Loaded`]. Nothing else waits for it.
    Load {
        /// For whom.
        link: LinkId,
        /// The first.
        from: SeqNo,
        /// The bound, of at least one entry.
        bytes_max: usize,
    },
    /// Call a member; answered by [`Input::Linked`] or [`Input::DialFailed`].
    Dial(Member),
    /// End a connection, after what was sent to it has left.
    Hangup(LinkId),
    /// These are final, in order, each once in a life (C4).
    Deliver(Vec<Arc<Entry>>),
    /// What a restart may begin with instead of the log's beginning.
    Snapshot(Box<Snapshot>),
    /// Have a deadline; setting it again moves it.
    SetTimer(Timer, Duration),
    /// Have it no more.
    StopTimer(Timer),
    /// Tell the surroundings.
    Emit(Event),
}

/// The deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The leader was silent for too long; or a candidate asked for long enough.
    Election,
    /// Say that this one leads; tell what became final.
    Heartbeat,
    /// Tell what became final, if no entries have carried that on their way.
    Commit,
    /// Look whether a majority is still heard.
    Quorum,
    /// Send again what has no number yet.
    Resend,
    /// Call a member again.
    Redial(MemberId),
    /// A handover may begin; or it takes too long.
    Takeover,
    /// A catch-up's answer is late.
    Catchup,
    /// Give a sign of life, and look for those of the others.
    Pulse,
}

/// What a member must still know after a crash. Written in order, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The first: whose log of which group this is. A later one: it goes on as that group (C14).
    Group {
        /// The group.
        group: GroupId,
        /// Whose log.
        me: MemberId,
        /// Its key.
        key: PublicKey,
    },
    /// A term, and whom this member has promised it (R1).
    Term {
        /// The term.
        term: Term,
        /// The candidate, if any.
        promised_to: Option<MemberId>,
    },
    /// An entry; its number is one above the entry before it.
    Entry(Arc<Entry>),
    /// From this number on the entries before this record do not count.
    Cut {
        /// The first that does not.
        from: SeqNo,
    },
    /// Something typed here that has no number yet.
    Typed(Chat),
    /// A text typed here goes on under another identity; the old one was another text's.
    Renamed {
        /// The identity until now.
        from: MsgId,
        /// The identity from now on.
        to: MsgId,
    },
    /// A text typed here was given back to its author: the group cannot take it.
    GivenBack {
        /// The identity.
        msg_id: MsgId,
    },
    /// This member's log ends before what it had acknowledged, as a leader has noticed: it must
    /// not be used any more.
    Rewound,
    /// Everything up to here was final then. May lag; what is final stays so.
    Commit {
        /// The last.
        seq_no: SeqNo,
    },
}

/// The state at one final entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The group.
    pub group: GroupId,
    /// The entry.
    pub seq_no: SeqNo,
    /// Its term.
    pub term: Term,
    /// The running hash there.
    pub chain: Chain,
    /// Who the group is there.
    pub membership: Arc<Membership>,
    /// The last number of each author there, and where it stands (R9), ascending by the last.
    pub authors: Vec<AuthorMark>,
}

/// How far an author's numbering is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorMark {
    /// The member.
    pub member: MemberId,
    /// Its client.
    pub client: u64,
    /// The last number.
    pub number: u64,
    /// Where it stands.
    pub seq_no: SeqNo,
}

impl AuthorMark {
    /// Whose.
    pub const fn origin(&self) -> Origin {
        Origin { member: self.member, client: self.client }
    }
}

/// What a member does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// It is not one of the group yet.
    Joining,
    /// It follows a leader, or waits for one.
    Follower,
    /// It wants to lead.
    Candidate,
    /// It leads.
    Leader,
}

/// What the surroundings are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Role, term or leader changed.
    RoleChanged {
        /// The role.
        role: Role,
        /// The term.
        term: Term,
        /// Who leads.
        leader: Option<MemberId>,
        /// Whose promises a leader holds.
        promises: Vec<MemberId>,
    },
    /// An election was begun; for the reason given.
    ElectionBegun {
        /// The term wanted.
        term: Term,
        /// Why, for people.
        reason: &'static str,
    },
    /// The leader, or this one as the leader, reaches no majority: what is typed waits (C6).
    NoQuorum,
    /// A majority is reached again.
    Quorum,
    /// The group is now this.
    MembershipChanged(Arc<Membership>),
    /// Something typed here is kept on disk, and waits for its number.
    Pending(Chat),
    /// Something typed here is not kept: there is no room, or it is no message.
    Rejected {
        /// The room.
        room: Arc<str>,
        /// The text.
        text: Arc<str>,
        /// The reason, for people.
        reason: String,
    },
    /// Something typed here that was kept is given back: the group cannot take it.
    GivenBack {
        /// The message.
        chat: Chat,
        /// The reason, for people.
        reason: String,
    },
    /// A text typed here goes on under another identity.
    Renamed {
        /// The identity until now.
        from: MsgId,
        /// The identity from now on.
        to: MsgId,
    },
    /// Two processes use one member's key; the later one was refused.
    Doubled {
        /// The member.
        member: MemberId,
        /// What has happened and what to do, for people.
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
        /// Why, for people.
        reason: String,
    },
    /// A member's log differs from this one at or before this number (C11).
    Diverged {
        /// The member.
        member: MemberId,
        /// The number.
        at: SeqNo,
    },
    /// Something was dropped and counted; why.
    Dropped(&'static str),
    /// The end, after [`Command::Leave`].
    Gone,
}
