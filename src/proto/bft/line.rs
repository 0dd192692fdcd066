//! The lines of a group with Byzantine order: JSON, as in the native dialect.

use std::io::BufRead;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::message::{Message, PrePrepare, SlotContent, SlotResp};
use super::number::{ContentDigest, EpochNo, SlotNo, ViewNo};
use super::{Bundle, BundleItem, Certificate, PhaseVote, SlotHeader, VoteSubject};
use crate::model::Signature;
use crate::proto::chat::entry::MemberId;
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

/// Reads one line without its newline.
///
/// # Errors
/// Fails if the line is no message.
pub fn decode(line: &[u8]) -> Result<Message, LineError> {
    refuse_no_object(line)?;
    let message = match () {
        () if line.starts_with(br#"{"type":"BUNDLE","#) => {
            serde_json::from_slice(line).map(BundleLine::message)
        }
        () if line.starts_with(br#"{"type":"PRE_PREPARE","#) => {
            serde_json::from_slice(line).map(ProposalLine::message)
        }
        () if line.starts_with(br#"{"type":"PREPARE","#) => {
            serde_json::from_slice(line).map(|it: VoteLine| Message::Prepare(it.vote()))
        }
        () if line.starts_with(br#"{"type":"COMMIT","#) => {
            serde_json::from_slice(line).map(|it: VoteLine| Message::Commit(it.vote()))
        }
        () if line.starts_with(br#"{"type":"SLOT_RESP","#) => {
            serde_json::from_slice(line).map(SlotsLine::message)
        }
        () => serde_json::from_slice(line),
    };
    message.map_err(|err| malformed(&err))
}

/// The line of a `BUNDLE`. An enum with a tag among its fields is read into a tree of values before
/// its fields, at several times the cost; the lines that nearly all are have forms of their own.
#[derive(Deserialize)]
struct BundleLine {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    author: MemberId,
    client: u64,
    first: u64,
    items: Vec<BundleItem>,
    signature: Signature,
}

impl BundleLine {
    fn message(self) -> Message {
        let Self { author, client, first, items, signature, .. } = self;
        Message::Bundle(Arc::new(Bundle { author, client, first, items, signature }))
    }
}

/// The line of a `PRE_PREPARE`.
#[derive(Deserialize)]
struct ProposalLine {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    sender_id: MemberId,
    view: ViewNo,
    header: SlotHeader,
    signature: Signature,
}

impl ProposalLine {
    fn message(self) -> Message {
        let Self { sender_id, view, header, signature, .. } = self;
        Message::PrePrepare(Arc::new(PrePrepare { sender_id, view, header, signature }))
    }
}

/// The line of a `PREPARE` or `COMMIT`.
#[derive(Deserialize)]
struct VoteLine {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    sender_id: MemberId,
    epoch: EpochNo,
    view: ViewNo,
    slot: SlotNo,
    digest: ContentDigest,
    signature: Signature,
}

impl VoteLine {
    const fn vote(self) -> PhaseVote {
        let Self { sender_id, epoch, view, slot, digest, signature, .. } = self;
        let subject = VoteSubject { epoch, view, slot, digest };
        PhaseVote { sender_id, subject, signature }
    }
}

/// The line of a `SLOT_RESP`.
#[derive(Deserialize)]
struct SlotsLine {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    slots: Vec<Arc<SlotContent>>,
    #[serde(default)]
    headers: Vec<SlotHeader>,
    certificate: Certificate,
}

impl SlotsLine {
    fn message(self) -> Message {
        let Self { slots, headers, certificate, .. } = self;
        Message::SlotResp(SlotResp { slots, headers, certificate })
    }
}

/// Reads messages from a stream, one a line.
#[derive(Debug)]
pub struct OrderReader<R>(ByteLines<R>);

impl<R: BufRead> OrderReader<R> {
    /// A reader of the lines of `input`.
    pub fn new(input: R) -> Self {
        Self(ByteLines::new(input))
    }

    /// Length of the last line that was read, in bytes.
    pub const fn line_bytes(&self) -> usize {
        self.0.line_bytes()
    }

    /// The next message; `None` when the stream ended after a whole line.
    ///
    /// # Errors
    /// See [`LineError`]. After an unrecoverable one the stream's position is undefined, and the
    /// reader must not be used again.
    pub fn read(&mut self) -> Result<Option<Message>, LineError> {
        let Some(line) = self.0.next_line()? else { return Ok(None) };
        decode(line).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of a vote but its type.
    fn vote(extra: &str) -> String {
        let (digest, signature) = ("ab".repeat(32), "cd".repeat(64));
        let subject = format!(r#""epoch":1,"view":2,"slot":9,"digest":"{digest}""#);
        format!(r#""sender_id":3,{subject},"signature":"{signature}"{extra}"#)
    }

    #[test]
    fn the_order_of_fields_changes_nothing() {
        for kind in ["PREPARE", "COMMIT"] {
            let first = format!(r#"{{"type":"{kind}",{}}}"#, vote(r#","more":[1]"#));
            let last = format!(r#"{{{},"type":"{kind}"}}"#, vote(""));
            assert_eq!(decode(first.as_bytes()).unwrap(), decode(last.as_bytes()).unwrap());
        }
    }

    #[test]
    fn a_line_with_two_types_or_a_field_twice_or_too_few_is_no_message() {
        for extra in [r#","type":"COMMIT""#, r#","view":2"#] {
            let first = format!(r#"{{"type":"PREPARE",{}}}"#, vote(extra));
            assert!(decode(first.as_bytes()).is_err(), "{first}");
        }
        for kind in ["BUNDLE", "PRE_PREPARE", "PREPARE", "COMMIT", "SLOT_RESP"] {
            let line = format!(r#"{{"type":"{kind}","view":2}}"#);
            assert!(decode(line.as_bytes()).is_err(), "{line}");
        }
    }
}
