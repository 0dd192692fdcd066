//! Messages between the members of a group: the seed document's ten, and those that safety needs
//! beyond them, in the same style.
//!
//! `docs/PROTOCOL.md`, "Chat", states fields, duties and limits. The sender was proved by the
//! handshake (`JOIN` … `JOIN_ACK`), which the driver carries out; the machine sees the rest.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{ChainHash, ChatText, Entry, GroupId, Member, MemberId, MsgId, SeqNo, Term};
use crate::model::{Nonce, PublicKey, Signature};

/// A message of the chat, which is one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Message {
    /// The caller's membership and challenge; the first line of a connection.
    Join(Join),
    /// The called node's answer to the challenge, and a challenge of its own.
    JoinChallenge(JoinChallenge),
    /// The caller's answer to the challenge.
    JoinProof(JoinProof),
    /// The end of the handshake, with the membership of the group.
    JoinAck(JoinAck),

    /// The leader's sign of life, with its commit.
    Heartbeat(LeaderHeartbeat),
    /// A candidate's request for a promise.
    Election(Election),
    /// A promise; or an objection of a higher id.
    ElectionOk(ElectionOk),
    /// The announcement of a new leader.
    Coordinator(Coordinator),

    /// A request to number a message.
    Chat(ChatReq),
    /// The answer that a message is final, with its number.
    ChatAck(ChatAck),
    /// Entries in order, to be stored.
    SeqChat(SeqChat),
    /// The number up to which the sender has stored the log. Also the answer to a heartbeat.
    SeqAck(SeqAck),
    /// The answer that entries do not fit the sender's log.
    SeqNack(SeqNack),
    /// The refusal of a request.
    Nack(Nack),

    /// A request for the entries after a number.
    CatchupReq(CatchupReq),
    /// A part of the entries requested.
    CatchupResp(SeqChat),

    /// A higher id's request to hand over, once it has caught up (C8).
    TakeoverReq(TakeoverReq),
    /// The leader's order to stand for election at once.
    TakeNow(TakeNow),
    /// A request to remove a member (C7).
    RemoveReq(RemoveReq),

    /// A sign of life on a connection.
    Alive(Alive),

    /// A request for the running hashes at some numbers (C11).
    VerifyReq(VerifyReq),
    /// The running hashes requested.
    VerifyResp(VerifyResp),
}

/// Payload of `JOIN`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Number of the caller.
    pub sender_id: MemberId,
    /// Newest term that the caller knows.
    pub term: Term,
    /// Group of the caller; absent if it is in none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    /// Purpose of the connection.
    pub intent: JoinIntent,
    /// The caller itself, one entry.
    pub membership: Vec<Member>,
    /// Challenge for the called node.
    pub nonce: Nonce,
    /// Random number of the caller's process, by which two processes of one member are
    /// distinguished; absent in clients and in earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<u64>,
}

/// Purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinIntent {
    /// A link between members of the group.
    Member,
    /// To send `CHAT` by the called member, with that member's own key as proof.
    Client,
}

/// Payload of `JOIN_CHALLENGE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinChallenge {
    /// Number of the called node.
    pub sender_id: MemberId,
    /// Public key of the called node.
    pub key: PublicKey,
    /// Challenge for the caller.
    pub nonce: Nonce,
    /// Signature of the called node over the caller's challenge.
    pub proof: Signature,
}

/// Payload of `JOIN_PROOF`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinProof {
    /// Signature of the caller over the called node's challenge.
    pub proof: Signature,
}

/// Payload of `JOIN_ACK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAck {
    /// Number of the called node.
    pub sender_id: MemberId,
    /// Newest term that the called node knows.
    pub term: Term,
    /// Identity of the group.
    pub group: GroupId,
    /// Leader, as far as the called node knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_id: Option<MemberId>,
    /// All members of the group.
    pub membership: Vec<Member>,
    /// Random number of the called node's process; absent in earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<u64>,
}

/// Payload of `HEARTBEAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderHeartbeat {
    /// Number of the leader.
    pub sender_id: MemberId,
    /// Term of the leader.
    pub term: Term,
    /// Number up to which all entries are final.
    pub commit: SeqNo,
    /// Running hash at that number (C11).
    pub hash: ChainHash,
}

/// Payload of `ELECTION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Election {
    /// Number of the candidate.
    pub sender_id: MemberId,
    /// Term in which the candidate wants to lead.
    pub term: Term,
    /// Term of the candidate's last entry.
    pub last_term: Term,
    /// Number of the candidate's last entry.
    pub last_seq: SeqNo,
    /// True if the candidate only asks for a promise in principle; nothing is written for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trial: bool,
    /// True if a higher id must promise like any other (it has objected often enough, L2), or a
    /// member that hears its leader (the leader itself has handed over, C8).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Payload of `ELECTION_OK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectionOk {
    /// Number of the member that answers.
    pub sender_id: MemberId,
    /// Term that was asked for.
    pub term: Term,
    /// Kind of the answer.
    pub kind: Consent,
    /// Term of the member's last entry.
    pub last_term: Term,
    /// Number of the member's last entry.
    pub last_seq: SeqNo,
    /// Number up to which the member knows the log to be final.
    pub commit: SeqNo,
}

/// Kind of an `ELECTION_OK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// The member would promise; nothing is written.
    Would,
    /// The member has promised, on disk, and follows no other candidate in this term.
    Promise,
    /// The member has the higher id and stands itself; the candidate must wait for a while.
    Takeover,
}

/// Payload of `COORDINATOR`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// Number of the leader.
    pub sender_id: MemberId,
    /// Term of the leader.
    pub term: Term,
    /// Number up to which all entries are final.
    pub commit: SeqNo,
    /// The leader itself, one entry, with its address.
    pub membership: Vec<Member>,
}

/// Payload of `CHAT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatReq {
    /// Number of the author.
    pub sender_id: MemberId,
    /// Message to be numbered.
    #[serde(flatten)]
    pub chat: ChatText,
}

/// `CHAT_ACK`: a majority has the message on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatAck {
    /// Number of the member that answers.
    pub sender_id: MemberId,
    /// Identity of the message.
    pub msg_id: MsgId,
    /// Place of the message; absent when it was numbered so long ago that the place is not at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq_no: Option<SeqNo>,
}

/// `SEQ_CHAT`, and with it `CATCHUP_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqChat {
    /// Number of the sender: the leader, or the source of a catch-up.
    pub sender_id: MemberId,
    /// Term of the leader; in an answer to `CATCHUP_REQ` the term of the question.
    pub term: Term,
    /// Number before the first entry.
    pub prev_seq: SeqNo,
    /// Term of the entry there (R6).
    pub prev_term: Term,
    /// Number up to which all entries are final.
    pub commit: SeqNo,
    /// Entries, one after the other.
    pub entries: Vec<Arc<Entry>>,
}

/// Payload of `SEQ_ACK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqAck {
    /// Number of the member that answers.
    pub sender_id: MemberId,
    /// Term of the leader.
    pub term: Term,
    /// Number up to which the member's log, on disk, is the leader's.
    pub last_seq: SeqNo,
}

/// Payload of `SEQ_NACK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqNack {
    /// Number of the member that answers.
    pub sender_id: MemberId,
    /// Newest term of the member.
    pub term: Term,
    /// Number after which to go on: all entries up to here may fit.
    pub last_seq: SeqNo,
}

/// Payload of `NACK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// Number of the member that answers.
    pub sender_id: MemberId,
    /// Newest term of the member.
    pub term: Term,
    /// Code of the refusal.
    pub code: NackCode,
    /// Leader, as far as the member knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_id: Option<MemberId>,
    /// Identity of the message that was refused, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg_id: Option<MsgId>,
    /// The fault and the limit in words, for people.
    pub reason: String,
}

/// Reason of a refusal, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NackCode {
    /// The line is no message, or breaks a limit.
    Malformed,
    /// The sender is not a member, or sends in another's name.
    NotAllowed,
    /// The handshake failed: version, key, proof.
    Handshake,
    /// The id belongs to another key.
    IdTaken,
    /// The key was removed for good.
    Removed,
    /// The other end is in another group.
    OtherGroup,
    /// The term is over (R5).
    Stale,
    /// The member that was asked does not lead.
    NotLeader,
    /// The leader reaches no majority now.
    NoQuorum,
    /// Too many requests are under way; try later.
    Busy,
    /// The author's number before this one is missing.
    Gap,
    /// The text is too long, or the room's name is not valid.
    Invalid,
    /// Another text stands under that `msg_id`.
    Taken,
    /// The caller's member is connected already, by another process that has just answered.
    Doubled,
    /// Another process came with the key of the receiver, and was refused.
    Copied,
    /// The receiver's log ends before the entries that it had acknowledged.
    Rewound,
}

/// Payload of `CATCHUP_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchupReq {
    /// Number of the member that asks.
    pub sender_id: MemberId,
    /// Term in which it asks; a source serves a candidate only while this is its promise (R3).
    pub term: Term,
    /// Number up to which the member has the log.
    pub last_seq: SeqNo,
    /// True if entries that are not final are wanted, too: by a candidate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tail: bool,
}

/// Payload of `TAKEOVER_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverReq {
    /// Number of the member that asks.
    pub sender_id: MemberId,
    /// Term of the leader.
    pub term: Term,
}

/// Payload of `TAKE_NOW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeNow {
    /// Number of the leader.
    pub sender_id: MemberId,
    /// Term of the leader; the next one is the successor's.
    pub term: Term,
    /// Number of the leader's last entry.
    pub last_seq: SeqNo,
}

/// Payload of `REMOVE_REQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveReq {
    /// Number of the member that asks.
    pub sender_id: MemberId,
    /// Number of the member to remove.
    pub node_id: MemberId,
    /// Public key of that member; a membership of that id with another key is not meant.
    pub key: PublicKey,
    /// True if the seeds have certified that the member is gone; then it may come back. Else it is
    /// removed for good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub certified: bool,
}

/// `ALIVE`: a sign of life, on every connection between members in every round (C13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// Number of the sender.
    pub sender_id: MemberId,
}

/// Payload of `VERIFY_REQ`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReq {
    /// Number of the member that asks.
    pub sender_id: MemberId,
    /// Random number of the question.
    pub question: u64,
    /// Numbers of entries, ascending, at most `VERIFY_MAX`.
    pub at: Vec<SeqNo>,
}

/// Payload of `VERIFY_RESP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyResp {
    /// Number of the member that answers.
    pub sender_id: MemberId,
    /// Random number of the question.
    pub question: u64,
    /// Number up to which all entries are final there.
    pub commit: SeqNo,
    /// Running hash at each of the requested numbers that is final.
    pub hashes: Vec<(SeqNo, ChainHash)>,
}

impl Message {
    /// The sender as the message names it; the handshake's own lines are the driver's.
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

    /// Returns the highest term and number in the message that the machine reckons with.
    pub fn bounds(&self) -> (u64, u64) {
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
