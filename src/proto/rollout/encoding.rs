//! Messages of nodes about rollouts, in two forms of one JSON: a line `{"type":…,"sender_id":…,…}`,
//! or a 4-byte big-endian length and as many bytes of `{"msg_type":…,"sender":…,"payload":{…}}`.
//!
//! Invariants:
//! - A message of any announced or real length costs its reader's buffer no more than
//!   [`MESSAGE_BYTES_MAX`], and no more than twice the bytes that have come.
//! - A message that one form takes, the other takes as well; each refusal says what is wrong, and a
//!   field that is missing by its name.
//! - After an error that [`EncodingError::is_recoverable`], the next message of the stream is
//!   intact.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, Read as _};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor, value};
use serde::{Deserialize, Serialize};

use super::{Message, NodeId};
use crate::proto::line::{self, ByteLines, malformed, refuse_no_object};

/// The longest line, newline included, and the longest frame, its length left out, in bytes.
///
/// Eight committed transactions of the largest rosters fit. The first byte of a frame is zero
/// because of it, which tells frames from all other dialects.
pub const MESSAGE_BYTES_MAX: usize = 1_048_576;

/// Bytes of the length before a frame.
pub const LENGTH_BYTES: usize = 4;

/// A frame's buffer above this size is given back after use.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// Form of the messages on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Each on a line of its own.
    Line,
    /// Each behind its length.
    Frame,
}

impl Encoding {
    /// The form of a connection by its first byte that is no blank: a frame's length is less than
    /// 2^24.
    pub const fn of_opening(first: u8) -> Self {
        if first == 0 { Self::Frame } else { Self::Line }
    }

    /// One JSON text, without line breaks, as it is sent.
    ///
    /// # Panics
    /// Panics if a frame's length does not fit its 4 bytes, which no message's comes near.
    #[must_use]
    pub fn enclose(self, json: &[u8]) -> Vec<u8> {
        match self {
            Self::Line => [json, b"\n"].concat(),
            Self::Frame => {
                let length = u32::try_from(json.len()).expect("a message has less than 4 GiB");
                [&length.to_be_bytes()[..], json].concat()
            }
        }
    }
}

/// A message and its sender as stated; the connection's handshake proved the real one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedMessage {
    /// Stated sender of the message.
    pub sender: NodeId,
    /// The message itself.
    pub message: Message,
}

/// Encodes a message as it is sent.
///
/// Longer than [`MESSAGE_BYTES_MAX`] only if the message breaks its own limits; a reader refuses
/// such a message.
#[must_use]
pub fn encode(form: Encoding, said: &StatedMessage) -> Vec<u8> {
    const PLAIN: &str = "messages are plain data with text keys, which always have a JSON form";
    let StatedMessage { sender, message } = said;
    let json = match form {
        Encoding::Line => {
            let sender_id = sender.clone();
            serde_json::to_vec(&LineOut { message, sender_id }).expect(PLAIN)
        }
        Encoding::Frame => {
            let mut payload = serde_json::to_value(message).expect(PLAIN);
            let fields = payload.as_object_mut().expect("a message is an object");
            let msg_type = fields.remove("type").expect("a message has a type");
            let payload = &payload;
            serde_json::to_vec(&FrameOut { msg_type, sender, payload }).expect(PLAIN)
        }
    };
    form.enclose(&json)
}

#[derive(Serialize)]
struct LineOut<'a> {
    #[serde(flatten)]
    message: &'a Message,
    sender_id: NodeId,
}

#[derive(Serialize)]
struct FrameOut<'a> {
    msg_type: serde_json::Value,
    sender: &'a NodeId,
    payload: &'a serde_json::Value,
}

/// Reason why a message could not be read.
#[derive(Debug)]
pub enum EncodingError {
    /// The connection failed, or nothing came within its read time-out.
    Io(io::Error),
    /// The line, or the length that a frame announces, is beyond [`MESSAGE_BYTES_MAX`].
    TooLong,
    /// A frame announces the length 0.
    Empty,
    /// The stream ended within a message.
    Truncated,
    /// The text is no message.
    Malformed {
        /// The parser's complaint, cut to a modest length.
        reason: String,
    },
}

impl EncodingError {
    /// True if the next message of the same stream may still be read.
    pub const fn is_recoverable(&self) -> bool {
        match self {
            Self::Malformed { .. } | Self::Empty => true,
            Self::Io(_) | Self::TooLong | Self::Truncated => false,
        }
    }
}

impl From<line::LineError> for EncodingError {
    fn from(err: line::LineError) -> Self {
        match err {
            line::LineError::Io(err) => Self::Io(err),
            line::LineError::TooLong => Self::TooLong,
            line::LineError::Truncated => Self::Truncated,
            line::LineError::Malformed { reason } => Self::Malformed { reason },
        }
    }
}

impl fmt::Display for EncodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(err) => write!(f, "cannot read: {err}"),
            Self::TooLong => {
                write!(f, "the message is longer than the limit of {MESSAGE_BYTES_MAX} bytes")
            }
            Self::Empty => f.write_str("a frame of length 0 is no message"),
            Self::Truncated => f.write_str("the stream ended within a message"),
            Self::Malformed { reason } => write!(f, "it is no message: {reason}"),
        }
    }
}

impl Error for EncodingError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(err) => Some(err),
            Self::TooLong | Self::Empty | Self::Truncated | Self::Malformed { .. } => None,
        }
    }
}

/// Reads messages of one form from a stream.
#[derive(Debug)]
pub struct RolloutReader<R>(Source<R>);

#[derive(Debug)]
enum Source<R> {
    Lines(ByteLines<R>),
    Frames { input: R, frame: Vec<u8> },
}

impl<R: BufRead> RolloutReader<R> {
    /// A reader of what comes from `input`.
    pub const fn new(form: Encoding, input: R) -> Self {
        Self(match form {
            Encoding::Line => Source::Lines(ByteLines::up_to(MESSAGE_BYTES_MAX, input)),
            Encoding::Frame => Source::Frames { input, frame: Vec::new() },
        })
    }

    /// Form of the messages that the reader expects.
    pub const fn form(&self) -> Encoding {
        match self.0 {
            Source::Lines(_) => Encoding::Line,
            Source::Frames { .. } => Encoding::Frame,
        }
    }

    /// The underlying stream.
    pub const fn input(&self) -> &R {
        match &self.0 {
            Source::Lines(lines) => lines.input(),
            Source::Frames { input, .. } => input,
        }
    }

    /// Length of the last message, in bytes.
    pub const fn message_bytes(&self) -> usize {
        match &self.0 {
            Source::Lines(lines) => lines.line_bytes(),
            Source::Frames { frame, .. } => frame.len() + LENGTH_BYTES,
        }
    }

    /// The next message; `None` when the stream ended after a whole one.
    ///
    /// # Errors
    /// See [`EncodingError`]. After an unrecoverable one the stream's position is undefined, and
    /// the reader must not be used again.
    pub fn read(&mut self) -> Result<Option<StatedMessage>, EncodingError> {
        let form = self.form();
        self.read_text()?.map(|json| decode(form, json)).transpose()
    }

    /// The next JSON text of any content; for the exchange before the first message.
    ///
    /// # Errors
    /// As [`Self::read`]; none for what the text says.
    pub fn read_text(&mut self) -> Result<Option<&[u8]>, EncodingError> {
        match &mut self.0 {
            Source::Lines(lines) => Ok(lines.next_line()?),
            Source::Frames { input, frame } => {
                Ok(read_frame(input, frame)?.then_some(frame.as_slice()))
            }
        }
    }
}

/// Reads one frame's text; false at the end of the stream.
fn read_frame(input: &mut impl BufRead, frame: &mut Vec<u8>) -> Result<bool, EncodingError> {
    frame.clear();
    frame.shrink_to(KEPT_BYTES_MAX);
    let mut length = [0; LENGTH_BYTES];
    if fill(input, &mut length)? == 0 {
        return Ok(false);
    }
    let length = u32::from_be_bytes(length) as usize;
    match length {
        0 => return Err(EncodingError::Empty),
        1..=MESSAGE_BYTES_MAX => {}
        _ => return Err(EncodingError::TooLong),
    }
    // The buffer grows with what comes, not with what was announced.
    let taken = input.take(length as u64).read_to_end(frame).map_err(EncodingError::Io)?;
    if taken < length { Err(EncodingError::Truncated) } else { Ok(true) }
}

/// Fills `bytes`; returns 0 if the stream is at its end.
fn fill(input: &mut impl BufRead, bytes: &mut [u8]) -> Result<usize, EncodingError> {
    let mut filled = 0;
    while filled < bytes.len() {
        match input.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(0),
            Ok(0) => return Err(EncodingError::Truncated),
            Ok(count) => filled += count,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(EncodingError::Io(err)),
        }
    }
    Ok(filled)
}

/// Reads one JSON text of that form.
///
/// # Errors
/// Fails if the text is no message.
pub fn decode(form: Encoding, json: &[u8]) -> Result<StatedMessage, EncodingError> {
    #[derive(Deserialize)]
    struct LineIn {
        sender_id: NodeId,
        #[serde(flatten)]
        message: Message,
    }
    #[derive(Deserialize)]
    struct FrameHead {
        msg_type: String,
        sender: NodeId,
        #[serde(rename = "payload")]
        _payload: IgnoredAny,
    }
    refuse_no_object(json)?;
    let is_wrong = |err| EncodingError::from(malformed(&err));
    match form {
        Encoding::Line => {
            let LineIn { sender_id, message } = serde_json::from_slice(json).map_err(is_wrong)?;
            Ok(StatedMessage { sender: sender_id, message })
        }
        Encoding::Frame => {
            // The type may stand behind the payload, which cannot be understood without it.
            let head: FrameHead = serde_json::from_slice(json).map_err(is_wrong)?;
            let mut text = serde_json::Deserializer::from_slice(json);
            let message = text.deserialize_map(FrameBody(&head.msg_type)).map_err(is_wrong)?;
            Ok(StatedMessage { sender: head.sender, message })
        }
    }
}

/// Finds the payload of a frame and reads it as a message of that type.
struct FrameBody<'a>(&'a str);

impl<'de> Visitor<'de> for FrameBody<'_> {
    type Value = Message;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message, A::Error> {
        let mut message = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "payload" {
                message = Some(map.next_value_seed(Payload(self.0))?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        message.ok_or_else(|| serde::de::Error::missing_field("payload"))
    }
}

/// Reads the fields of a payload as if its type stood before them.
struct Payload<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Payload<'_> {
    type Value = Message;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Message, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Payload<'_> {
    type Value = Message;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload that is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, rest: A) -> Result<Message, A::Error> {
        let typed = Typed { msg_type: Some(self.0), is_key: true, rest };
        Message::deserialize(value::MapAccessDeserializer::new(typed))
    }
}

struct Typed<'a, A> {
    msg_type: Option<&'a str>,
    is_key: bool,
    rest: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Typed<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        if self.msg_type.is_some() && std::mem::take(&mut self.is_key) {
            return seed.deserialize(value::StrDeserializer::new("type")).map(Some);
        }
        self.rest.next_key_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Self::Error> {
        match self.msg_type.take() {
            Some(msg_type) => seed.deserialize(value::StrDeserializer::new(msg_type)),
            None => self.rest.next_value_seed(seed),
        }
    }
}
