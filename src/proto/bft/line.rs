//! The lines of a group with Byzantine order: JSON, as in the native dialect.

use std::io::BufRead;

use super::message::Message;
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
    serde_json::from_slice(line).map_err(|err| malformed(&err))
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
