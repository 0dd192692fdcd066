//! What the members of a group say to each other: the seed document's ten messages, and what safety
//! needs beyond them, in the same style.
//!
//! `docs/PROTOCOL.md`, "Chat", states fields, duties and limits. Who says it was proved by the
//! handshake (`JOIN` … `JOIN_ACK`), which the driver carries out; the machine sees the rest.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{Chain, Chat, Entry, GroupId, Member, MemberId, MsgId, SeqNo, Term};
use crate::model::{Nonce, PublicKey, Signature};

/// One line of the chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Message {
    /// Who I am, and a challenge; the first line of a connection.
    Join(Join),
    /// The answer to your challenge, and one of mine.
    JoinChallenge(JoinChallenge),
    /// The answer to your challenge.
    JoinProof(JoinProof),
    /// You are heard; this is the group.
    JoinAck(JoinAck),

    /// I lead, and this is final.
    Heartbeat(Heartbeat),
    /// I want to lead: will you promise?
    Election(Election),
    /// I promise; or: I am higher, leave it to me.
    ElectionOk(ElectionOk),
    /// I lead from now on.
    Coordinator(Coordinator),

    /// Please give this a number.
    Chat(ChatReq),
    /// It is final, at this number.
    ChatAck(ChatAck),
    /// Entries in order: store them.
    SeqChat(SeqChat),
    /// I have stored everything up to here. Also the answer to a heartbeat.
    SeqAck(SeqAck),
    /// What I have does not fit to what you sent.
    SeqNack(SeqNack),
    /// What was asked for did not happen.
    Nack(Nack),

    /// What comes after this?
    CatchupReq(CatchupReq),
    /// A part of it.
    CatchupResp(SeqChat),

    /// I am higher than you and have caught up: hand over (C8).
    TakeoverReq(TakeoverReq),
    /// You have everything: stand for election at once.
    TakeNow(TakeNow),
    /// Remove a member for good (C7).
    RemoveReq(RemoveReq),

    /// I am here.
    Alive(Alive),

    /// Which running hash have you at these numbers? (C11)
    VerifyReq(VerifyReq),
    /// These.
    VerifyResp(VerifyResp),
}

/// `JOIN`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The caller.
    pub sender_id: MemberId,
    /// The newest term that it knows.
    pub term: Term,
    /// Its group; absent in whoever is in none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    /// What the connection is for.
    pub intent: Intent,
    /// The caller itself, one entry.
    pub membership: Vec<Member>,
    /// The caller's challenge.
    pub nonce: Nonce,
    /// The random number of the caller's process, by which two processes of one member are told
    /// apart; absent in clients and in earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<u64>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// To be one of the group.
    Member,
    /// To send `CHAT` by the called member, with that member's own key as proof.
    Client,
}

/// `JOIN_CHALLENGE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinChallenge {
    /// The called one.
    pub sender_id: MemberId,
    /// Its key.
    pub key: PublicKey,
    /// Its challenge.
    pub nonce: Nonce,
    /// Its signature over the caller's challenge.
    pub proof: Signature,
}

/// `JOIN_PROOF`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinProof {
    /// The caller's signature over the called one's challenge.
    pub proof: Signature,
}

/// `JOIN_ACK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAck {
    /// The called one.
    pub sender_id: MemberId,
    /// The newest term that it knows.
    pub term: Term,
    /// The group.
    pub group: GroupId,
    /// Who leads, as far as it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_id: Option<MemberId>,
    /// Everybody.
    pub membership: Vec<Member>,
    /// The random number of the called one's process; absent in earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<u64>,
}

/// `HEARTBEAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The leader.
    pub sender_id: MemberId,
    /// Its term.
    pub term: Term,
    /// Everything up to here is final.
    pub commit: SeqNo,
    /// The running hash there (C11).
    pub hash: Chain,
}

/// `ELECTION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Election {
    /// The candidate.
    pub sender_id: MemberId,
    /// The term that it wants to lead in.
    pub term: Term,
    /// The term of its last entry.
    pub last_term: Term,
    /// The number of its last entry.
    pub last_seq: SeqNo,
    /// Whether it only asks whether there would be a promise; nothing is written for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trial: bool,
    /// Whether a higher id must promise like anybody (it has objected often enough, L2), or
    /// whoever hears its leader (the leader itself has handed over, C8).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// `ELECTION_OK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectionOk {
    /// Who answers.
    pub sender_id: MemberId,
    /// The term asked for.
    pub term: Term,
    /// What is said.
    pub kind: Consent,
    /// The term of its last entry.
    pub last_term: Term,
    /// The number of its last entry.
    pub last_seq: SeqNo,
    /// What it knows to be final.
    pub commit: SeqNo,
}

/// What an `ELECTION_OK` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// It would promise; nothing is written.
    Would,
    /// It has promised, on disk, and follows nobody else in this term.
    Promise,
    /// It has the higher id and takes over itself; be quiet for a while.
    Takeover,
}

/// `COORDINATOR`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// The leader.
    pub sender_id: MemberId,
    /// Its term.
    pub term: Term,
    /// What is final.
    pub commit: SeqNo,
    /// The leader itself, one entry: how to reach it.
    pub membership: Vec<Member>,
}

/// `CHAT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatReq {
    /// The author.
    pub sender_id: MemberId,
    /// The message.
    #[serde(flatten)]
    pub chat: Chat,
}

/// `CHAT_ACK`: a majority has it on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatAck {
    /// Who answers.
    pub sender_id: MemberId,
    /// The message.
    pub msg_id: MsgId,
    /// Its number; absent when it was numbered so long ago that the number is not at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq_no: Option<SeqNo>,
}

/// `SEQ_CHAT`, and with it `CATCHUP_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqChat {
    /// Who sends: the leader, or the donor of a catch-up.
    pub sender_id: MemberId,
    /// The leader's term; in an answer to `CATCHUP_REQ` the term of the question.
    pub term: Term,
    /// The number before the first entry.
    pub prev_seq: SeqNo,
    /// The term of the entry there (R6).
    pub prev_term: Term,
    /// What is final.
    pub commit: SeqNo,
    /// The entries, one after the other.
    pub entries: Vec<Arc<Entry>>,
}

/// `SEQ_ACK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqAck {
    /// Who answers.
    pub sender_id: MemberId,
    /// The leader's term.
    pub term: Term,
    /// Up to here its log, on disk, is the leader's.
    pub last_seq: SeqNo,
}

/// `SEQ_NACK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqNack {
    /// Who answers.
    pub sender_id: MemberId,
    /// Its newest term.
    pub term: Term,
    /// Where to go on: everything up to here may fit.
    pub last_seq: SeqNo,
}

/// `NACK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// Who answers.
    pub sender_id: MemberId,
    /// Its newest term.
    pub term: Term,
    /// Why.
    pub code: NackCode,
    /// Who leads, as far as it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_id: Option<MemberId>,
    /// Which message this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg_id: Option<MsgId>,
    /// For people: what was wrong and what the limit is.
    pub reason: String,
}

/// Why something did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NackCode {
    /// The line is no message, or breaks a limit.
    Malformed,
    /// The sender is not a member, or not who it says.
    NotAllowed,
    /// The handshake failed: version, key, proof.
    Handshake,
    /// That id is another key's.
    IdTaken,
    /// That key was removed for good.
    Removed,
    /// That is another group.
    OtherGroup,
    /// The term is over (R5).
    Stale,
    /// Whoever was asked does not lead.
    NotLeader,
    /// The leader reaches no majority now.
    NoQuorum,
    /// Too much is under way; try later.
    Busy,
    /// The author's number before this one is missing.
    Gap,
    /// A text that is too long, a room that is none.
    Invalid,
    /// Another text stands under that `msg_id`.
    Taken,
    /// The caller's member is connected already, by another process that has just answered.
    Doubled,
    /// Another process came with the key of the member that is told this, and was refused.
    Copied,
    /// The log of the member that is told this ends before what it had acknowledged.
    Rewound,
}

/// `CATCHUP_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchupReq {
    /// Who asks.
    pub sender_id: MemberId,
    /// The term in which it asks; a donor serves a candidate only while this is its promise (R3).
    pub term: Term,
    /// What it has, up to here.
    pub last_seq: SeqNo,
    /// Whether what is not final is wanted too: a candidate's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tail: bool,
}

/// `TAKEOVER_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverReq {
    /// Who asks.
    pub sender_id: MemberId,
    /// The leader's term.
    pub term: Term,
}

/// `TAKE_NOW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeNow {
    /// The leader.
    pub sender_id: MemberId,
    /// Its term; the next one is the other's.
    pub term: Term,
    /// Its last entry.
    pub last_seq: SeqNo,
}

/// `REMOVE_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveReq {
    /// Who asks.
    pub sender_id: MemberId,
    /// Whom to remove.
    pub node_id: MemberId,
    /// Whose key that is; another's membership of that id is not meant.
    pub key: PublicKey,
    /// Whether the seeds have certified that it is gone; then it may come back. Else this is for
    /// good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub certified: bool,
}

/// `ALIVE`: a sign of life, on every connection between members in every round (C13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// Who is here.
    pub sender_id: MemberId,
}

/// `VERIFY_REQ`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReq {
    /// Who asks.
    pub sender_id: MemberId,
    /// Told from other questions by this.
    pub question: u64,
    /// The numbers, ascending, at most `VERIFY_MAX`.
    pub at: Vec<SeqNo>,
}

/// `VERIFY_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyResp {
    /// Who answers.
    pub sender_id: MemberId,
    /// The question.
    pub question: u64,
    /// What is final there.
    pub commit: SeqNo,
    /// The running hash at each of the numbers asked for that is final.
    pub hashes: Vec<(SeqNo, Chain)>,
}

impl Message {
    /// Who says it, as it says; the handshake's own lines are the driver's.
    pub fn sender(&self) -> Option<MemberId> {
        match self {
            Self::Join(it) => Some(it.sender_id),
            Self::JoinChallenge(it) => Some(it.sender_id),
            Self::JoinProof(_) => None,
            Self::JoinAck(it) => Some(it.sender_id),
            Self::Heartbeat(it) => Some(it.sender_id),
            Self::Election(it) => Some(it.sender_id),
            Self::ElectionOk(it) => Some(it.sender_id),
            Self::Coordinator(it) => Some(it.sender_id),
            Self::Chat(it) => Some(it.sender_id),
            Self::ChatAck(it) => Some(it.sender_id),
            Self::SeqChat(it) | Self::CatchupResp(it) => Some(it.sender_id),
            Self::SeqAck(it) => Some(it.sender_id),
            Self::SeqNack(it) => Some(it.sender_id),
            Self::Nack(it) => Some(it.sender_id),
            Self::CatchupReq(it) => Some(it.sender_id),
            Self::TakeoverReq(it) => Some(it.sender_id),
            Self::TakeNow(it) => Some(it.sender_id),
            Self::RemoveReq(it) => Some(it.sender_id),
            Self::Alive(it) => Some(it.sender_id),
            Self::VerifyReq(it) => Some(it.sender_id),
            Self::VerifyResp(it) => Some(it.sender_id),
        }
    }

    /// The highest term and number in it that the machine reckons with.
    pub(super) fn bounds(&self) -> (u64, u64) {
        match self {
            Self::Heartbeat(it) => (it.term.0, it.commit.0),
            Self::Election(it) => (it.term.0.max(it.last_term.0), it.last_seq.0),
            Self::ElectionOk(it) => (it.term.0.max(it.last_term.0), it.last_seq.0.max(it.commit.0)),
            Self::Coordinator(it) => (it.term.0, it.commit.0),
            Self::SeqChat(it) | Self::CatchupResp(it) => {
                // Of a piece of a log the last entry has the highest of both.
                let last = it.entries.last().map_or((0, 0), |last| (last.term.0, last.seq_no.0));
                let term = it.term.0.max(it.prev_term.0).max(last.0);
                (term, it.prev_seq.0.max(it.commit.0).max(last.1))
            }
            Self::SeqAck(it) => (it.term.0, it.last_seq.0),
            Self::SeqNack(it) => (it.term.0, it.last_seq.0),
            Self::Nack(it) => (it.term.0, 0),
            Self::CatchupReq(it) => (it.term.0, it.last_seq.0),
            Self::TakeoverReq(it) => (it.term.0, 0),
            Self::TakeNow(it) => (it.term.0, it.last_seq.0),
            Self::JoinAck(it) => (it.term.0, 0),
            Self::Join(_)
            | Self::JoinChallenge(_)
            | Self::JoinProof(_)
            | Self::Chat(_)
            | Self::ChatAck(_)
            | Self::RemoveReq(_)
            | Self::Alive(_)
            | Self::VerifyReq(_)
            | Self::VerifyResp(_) => (0, 0),
        }
    }
}
