//! The lines of a group that chats: JSON as in the native dialect, with messages of its own.
//!
//! Invariants:
//! - A line that the short way reads is read by the general way too, and is the same message.
//! - Every line that is not just as this program writes it takes the general way, which alone
//!   refuses.
//!
//! The general way keeps every field until it knows the type, which a leader's thousands of
//! messages a second would pay for. Those few types, written by this program with the type first,
//! are read straight into their fields.

use std::borrow::Cow;
use std::io::BufRead;
use std::sync::Arc;

use serde::Deserialize;

use crate::model::WallTime;
use crate::proto::chat::entry::{
    Body, ChainHash, ChatText, Entry, MemberId, Membership, MsgId, SeqNo, Term,
};
use crate::proto::chat::message::{ChatAck, ChatReq, LeaderHeartbeat, Message, SeqAck, SeqChat};
use crate::proto::line::{ByteLines, LineError, malformed, refuse_no_object};

pub use crate::proto::line::LINE_BYTES_MAX;

/// The line of `message`, newline included.
///
/// Longer than [`LINE_BYTES_MAX`] only if the message breaks its own limits; a reader refuses it.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    let mut line = Vec::new();
    append(message, &mut line);
    line
}

/// Appends the line of `message` to `lines`.
pub fn append(message: &Message, lines: &mut Vec<u8>) {
    serde_json::to_writer(&mut *lines, message)
        .expect("messages are plain data with text keys, which always have a JSON form");
    lines.push(b'\n');
}

/// Reads messages from a stream, one a line.
#[derive(Debug)]
pub struct ChatReader<R> {
    lines: ByteLines<R>,
    rooms: RoomNames,
}

impl<R: BufRead> ChatReader<R> {
    /// A reader of the lines of `input`.
    pub fn new(input: R) -> Self {
        Self { lines: ByteLines::new(input), rooms: RoomNames::default() }
    }

    /// The underlying stream.
    pub const fn input(&self) -> &R {
        self.lines.input()
    }

    /// Length of the last line that was read, in bytes.
    pub const fn line_bytes(&self) -> usize {
        self.lines.line_bytes()
    }

    /// The next message; `None` when the stream ended after a whole line.
    ///
    /// # Errors
    /// See [`LineError`]. After an unrecoverable one the stream's position is undefined, and the
    /// reader must not be used again.
    pub fn read(&mut self) -> Result<Option<Message>, LineError> {
        let Some(line) = self.lines.next_line()? else { return Ok(None) };
        match quickly(line, &mut self.rooms) {
            Some(message) => Ok(Some(message)),
            None => decode(line).map(Some),
        }
    }
}

/// Reads one line without its newline, by the general way.
///
/// # Errors
/// Fails if the line is no message.
pub fn decode(line: &[u8]) -> Result<Message, LineError> {
    refuse_no_object(line)?;
    serde_json::from_slice(line).map_err(|err| malformed(&err))
}

/// The name of a room, kept because nearly all messages of a connection are in one.
#[derive(Debug, Default)]
struct RoomNames(Option<Arc<str>>);

impl RoomNames {
    fn find(&mut self, name: &str) -> Arc<str> {
        match &self.0 {
            Some(known) if **known == *name => Arc::clone(known),
            Some(_) | None => Arc::clone(self.0.insert(Arc::from(name))),
        }
    }
}

/// Reads a line of one of the frequent types, if it is just as [`encode`] writes it.
fn quickly(line: &[u8], rooms: &mut RoomNames) -> Option<Message> {
    let name = line.strip_prefix(br#"{"type":""#)?;
    let name = &name[..name.iter().position(|byte| *byte == b'"')?];
    Some(match name {
        b"CHAT" => Message::Chat(parse::<ChatFields<'_>>(line)?.message(rooms)),
        b"CHAT_ACK" => Message::ChatAck(parse::<ChatAckFields>(line)?.into()),
        b"SEQ_CHAT" => Message::SeqChat(parse::<SeqChatFields<'_>>(line)?.message(rooms)?),
        b"CATCHUP_RESP" => Message::CatchupResp(parse::<SeqChatFields<'_>>(line)?.message(rooms)?),
        b"SEQ_ACK" => Message::SeqAck(parse::<SeqAckFields>(line)?.into()),
        b"HEARTBEAT" => Message::Heartbeat(parse::<HeartbeatFields>(line)?.into()),
        _ => return None,
    })
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

/// A text as it stands in the line, if nothing in it is escaped.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The value of `type`, which was looked at before; read so that a second one is noticed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Kind {
    Chat,
    ChatAck,
    SeqChat,
    CatchupResp,
    SeqAck,
    Heartbeat,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChatFields<'a> {
    #[serde(rename = "type")]
    _kind: Kind,
    sender_id: MemberId,
    msg_id: MsgId,
    #[serde(borrow)]
    room_id: Cow<'a, str>,
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

impl ChatFields<'_> {
    fn message(self, rooms: &mut RoomNames) -> ChatReq {
        let Self { _kind: _, sender_id, msg_id, room_id, payload } = self;
        let chat =
            ChatText { msg_id, room_id: rooms.find(&room_id), payload: Arc::from(&*payload) };
        ChatReq { sender_id, chat }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChatAckFields {
    #[serde(rename = "type")]
    _kind: Kind,
    sender_id: MemberId,
    msg_id: MsgId,
    #[serde(default)]
    seq_no: Option<SeqNo>,
}

impl From<ChatAckFields> for ChatAck {
    fn from(it: ChatAckFields) -> Self {
        Self { sender_id: it.sender_id, msg_id: it.msg_id, seq_no: it.seq_no }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeqAckFields {
    #[serde(rename = "type")]
    _kind: Kind,
    sender_id: MemberId,
    term: Term,
    last_seq: SeqNo,
}

impl From<SeqAckFields> for SeqAck {
    fn from(it: SeqAckFields) -> Self {
        Self { sender_id: it.sender_id, term: it.term, last_seq: it.last_seq }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeartbeatFields {
    #[serde(rename = "type")]
    _kind: Kind,
    sender_id: MemberId,
    term: Term,
    commit: SeqNo,
    hash: ChainHash,
}

impl From<HeartbeatFields> for LeaderHeartbeat {
    fn from(it: HeartbeatFields) -> Self {
        Self { sender_id: it.sender_id, term: it.term, commit: it.commit, hash: it.hash }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeqChatFields<'a> {
    #[serde(rename = "type")]
    _kind: Kind,
    sender_id: MemberId,
    term: Term,
    prev_seq: SeqNo,
    prev_term: Term,
    commit: SeqNo,
    #[serde(borrow)]
    entries: Vec<EntryFields<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFields<'a> {
    seq_no: SeqNo,
    term: Term,
    leader_id: MemberId,
    time: WallTime,
    sender_id: Option<MemberId>,
    msg_id: Option<MsgId>,
    #[serde(borrow)]
    room_id: Option<Text<'a>>,
    #[serde(borrow)]
    payload: Option<Text<'a>>,
    membership: Option<Arc<Membership>>,
}

impl SeqChatFields<'_> {
    fn message(self, rooms: &mut RoomNames) -> Option<SeqChat> {
        let Self { _kind: _, sender_id, term, prev_seq, prev_term, commit, entries } = self;
        let entries: Option<_> =
            entries.into_iter().map(|it| it.entry(rooms).map(Arc::new)).collect();
        Some(SeqChat { sender_id, term, prev_seq, prev_term, commit, entries: entries? })
    }
}

impl EntryFields<'_> {
    /// The entry; `None` if only the general way can judge it.
    fn entry(self, rooms: &mut RoomNames) -> Option<Entry> {
        let Self { seq_no, term, leader_id, time, sender_id, .. } = self;
        let body = match (self.msg_id, self.room_id, self.payload, self.membership) {
            (Some(msg_id), Some(room), Some(payload), None)
                if sender_id == Some(msg_id.origin.member) =>
            {
                let (room_id, payload) = (rooms.find(&room.0), Arc::from(&*payload.0));
                Body::Chat(ChatText { msg_id, room_id, payload })
            }
            (None, None, None, None) if sender_id.is_none() => Body::Opening,
            _ => return None,
        };
        Some(Entry { seq_no, term, leader: leader_id, time, body })
    }
}
