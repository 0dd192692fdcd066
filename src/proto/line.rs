//! The native dialect's framing: one message of JSON a line, ended by a newline.
//!
//! Invariants:
//! - A line costs its reader at most [`LINE_BYTES_MAX`] bytes, whatever the sender does.
//! - After an error that [`LineError::is_recoverable`], the next line of the same stream is intact.
//!
//! Both ends of the line are tolerant of a carriage return, and lines of blanks are skipped. The
//! meaning of a message is not the business of this file.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead};

use crate::proto::message::Message;

/// The longest line in bytes, its newline included.
///
/// Smaller would cut full pages of the registry; larger would let each connection hold more memory.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

/// A line buffer above this size is given back after use, so that one long line does not cost a
/// connection its memory for the rest of its life. Nearly all lines are shorter.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// Longest part of a parser's complaint that is passed on, in characters; it may quote the sender
/// at length.
const REASON_CHARS_MAX: usize = 200;

/// The line of `message`, newline included.
///
/// Longer than [`LINE_BYTES_MAX`] only if the message breaks its own limits; a reader refuses it.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    let mut line = serde_json::to_vec(message)
        .expect("messages are plain data with text keys, which always have a JSON form");
    line.push(b'\n');
    line
}

/// Length of the line that [`encode`] would write, in bytes, without keeping it.
#[must_use]
pub fn line_length(message: &Message) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(1);
    serde_json::to_writer(&mut counter, message)
        .expect("messages are plain data with text keys, which always have a JSON form");
    counter.0
}

/// Reason why a line could not be read.
#[derive(Debug)]
pub enum LineError {
    /// The connection failed, or nothing came within its read time-out.
    Io(io::Error),
    /// The line is longer than [`LINE_BYTES_MAX`].
    TooLong,
    /// The stream ended within a line.
    Truncated,
    /// The line is no message.
    Malformed {
        /// The parser's complaint, cut to a modest length.
        reason: String,
    },
}

impl LineError {
    /// True if the next line of the same stream may still be read.
    pub const fn is_recoverable(&self) -> bool {
        match self {
            Self::Malformed { .. } => true,
            Self::Io(_) | Self::TooLong | Self::Truncated => false,
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(err) => write!(f, "cannot read: {err}"),
            Self::TooLong => {
                write!(f, "the line is longer than the limit of {LINE_BYTES_MAX} bytes")
            }
            Self::Truncated => f.write_str("the stream ended before the newline of its last line"),
            Self::Malformed { reason } => write!(f, "the line is no message: {reason}"),
        }
    }
}

impl Error for LineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(err) => Some(err),
            Self::TooLong | Self::Truncated | Self::Malformed { .. } => None,
        }
    }
}

/// Reads messages from a stream, one a line.
#[derive(Debug)]
pub struct LineReader<R> {
    lines: ByteLines<R>,
}

impl<R: BufRead> LineReader<R> {
    /// A reader of the lines of `input`.
    pub const fn new(input: R) -> Self {
        Self { lines: ByteLines::new(input) }
    }

    /// The next message; `None` when the stream ended after a whole line.
    ///
    /// # Errors
    ///
    /// See [`LineError`]. After an unrecoverable one the stream's position is undefined, and the
    /// reader must not be used again.
    pub fn read(&mut self) -> Result<Option<Message>, LineError> {
        self.lines.next_line()?.map(parse).transpose()
    }

    /// The underlying stream, with the bytes that it still holds.
    pub fn into_inner(self) -> R {
        self.lines.input
    }
}

/// Reads the lines of a stream as bytes, of any content.
#[derive(Debug)]
pub(super) struct ByteLines<R> {
    input: R,
    line: Vec<u8>,
    bytes_max: usize,
}

impl<R: BufRead> ByteLines<R> {
    pub(super) const fn new(input: R) -> Self {
        Self::up_to(LINE_BYTES_MAX, input)
    }

    /// Lines of at most so many bytes, newline included.
    pub(super) const fn up_to(bytes_max: usize, input: R) -> Self {
        Self { input, line: Vec::new(), bytes_max }
    }

    /// The underlying stream.
    pub(super) const fn input(&self) -> &R {
        &self.input
    }

    /// Length of the last line, in bytes.
    pub(super) const fn line_bytes(&self) -> usize {
        self.line.len()
    }

    /// The next line that is not blank, without blanks at its ends; `None` at the stream's end.
    pub(super) fn next_line(&mut self) -> Result<Option<&[u8]>, LineError> {
        while self.read_line()? {
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(self.line.trim_ascii()));
            }
        }
        Ok(None)
    }

    /// Reads one line, newline included; false at the end of the stream.
    fn read_line(&mut self) -> Result<bool, LineError> {
        self.line.clear();
        self.line.shrink_to(KEPT_BYTES_MAX);
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(LineError::Io(err)),
            };
            if chunk.is_empty() {
                return if self.line.is_empty() { Ok(false) } else { Err(LineError::Truncated) };
            }
            let newline = chunk.iter().position(|&byte| byte == b'\n');
            let taken = newline.map_or(chunk.len(), |at| at + 1);
            if self.line.len() + taken > self.bytes_max {
                return Err(LineError::TooLong);
            }
            self.line.extend_from_slice(&chunk[..taken]);
            self.input.consume(taken);
            if newline.is_some() {
                return Ok(true);
            }
        }
    }
}

fn parse(text: &[u8]) -> Result<Message, LineError> {
    refuse_no_object(text)?;
    serde_json::from_slice(text).map_err(|err| malformed(&err))
}

/// Refuses a text that is no JSON object: the JSON library would also take an array for an object
/// with its fields in order.
pub(super) fn refuse_no_object(text: &[u8]) -> Result<(), LineError> {
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        return Ok(());
    }
    let reason = "a message is a JSON object: {\"type\":…}".to_owned();
    Err(LineError::Malformed { reason })
}

/// A parser's complaint.
pub(super) fn malformed(err: &serde_json::Error) -> LineError {
    LineError::Malformed { reason: err.to_string().chars().take(REASON_CHARS_MAX).collect() }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Read};

    use super::*;
    use crate::proto::refusal::{ErrorCode, ErrorReply};

    fn message(text: &str) -> Message {
        Message::from(ErrorReply::new(ErrorCode::Busy, text))
    }

    /// A message whose line has exactly `len` bytes, newline included.
    fn message_of_line_length(len: usize) -> Message {
        let bare = encode(&message("")).len();
        message(&"x".repeat(len - bare))
    }

    fn read_all(input: &[u8]) -> Vec<Result<Message, LineError>> {
        let mut reader = LineReader::new(input);
        let mut found = Vec::new();
        loop {
            match reader.read() {
                Ok(None) => return found,
                Ok(Some(msg)) => found.push(Ok(msg)),
                Err(err) => {
                    let last = !err.is_recoverable();
                    found.push(Err(err));
                    if last {
                        return found;
                    }
                }
            }
        }
    }

    /// Hands out `step` bytes a call, as a network may.
    struct Dripping(Cursor<Vec<u8>>, usize);

    impl Read for Dripping {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let len = buf.len().min(self.1);
            self.0.read(&mut buf[..len])
        }
    }

    #[test]
    fn lines_survive_any_splitting_and_joining() {
        let sent: Vec<Message> = (0..20).map(|n| message(&"né".repeat(n * 7))).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(encode).collect();
        for step in [1, 2, 3, 7, 64, 8192, bytes.len()] {
            let input = Dripping(Cursor::new(bytes.clone()), step);
            let mut reader = LineReader::new(BufReader::with_capacity(16, input));
            for msg in &sent {
                assert_eq!(reader.read().unwrap().as_ref(), Some(msg), "in steps of {step}");
            }
            assert!(reader.read().unwrap().is_none());
        }
    }

    #[test]
    fn an_encoded_message_is_one_line() {
        let line = encode(&message("two\nlines\r"));
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
        assert_eq!(read_all(&line).remove(0).unwrap(), message("two\nlines\r"));
    }

    #[test]
    fn carriage_returns_and_empty_lines_are_tolerated() {
        let mut bytes = b"\n\r\n  \n".to_vec();
        bytes.extend_from_slice(encode(&message("a")).trim_ascii_end());
        bytes.extend_from_slice(b"\r\n\n");
        bytes.extend_from_slice(&encode(&message("b")));
        let found: Vec<Message> = read_all(&bytes).into_iter().map(Result::unwrap).collect();
        assert_eq!(found, [message("a"), message("b")]);
    }

    #[test]
    fn a_malformed_line_leaves_the_next_one_intact() {
        let bad: [&[u8]; 7] = [
            b"{",
            b"nonsense",
            b"[]",
            b"{\"type\":\"NO_SUCH\"}",
            b"\xff\xfe",
            b"{\"type\":7}",
            b"\0",
        ];
        for line in bad {
            let bytes = [line, b"\n", &encode(&message("after"))].concat();
            let mut found = read_all(&bytes);
            assert_eq!(found.len(), 2, "{:?}", line.escape_ascii().to_string());
            assert_eq!(found.remove(1).unwrap(), message("after"));
            let err = found.remove(0).unwrap_err();
            assert!(matches!(err, LineError::Malformed { .. }), "{err}");
        }
    }

    #[test]
    fn the_limit_is_exact() {
        let fits = message_of_line_length(LINE_BYTES_MAX);
        assert_eq!(read_all(&encode(&fits)).remove(0).unwrap(), fits);
        let exceeds = encode(&message_of_line_length(LINE_BYTES_MAX + 1));
        assert!(matches!(read_all(&exceeds)[..], [Err(LineError::TooLong)]));
    }

    #[test]
    fn an_endless_line_is_refused_without_being_kept() {
        let mut reader = LineReader::new(BufReader::new(io::repeat(b'x')));
        let err = reader.read().unwrap_err();
        assert!(matches!(err, LineError::TooLong));
        assert!(err.to_string().contains("262144"), "{err}");
        assert!(reader.lines.line.capacity() <= 2 * LINE_BYTES_MAX);
    }

    #[test]
    fn a_long_line_does_not_keep_its_memory() {
        let long = encode(&message_of_line_length(LINE_BYTES_MAX));
        let bytes = [long, encode(&message("short"))].concat();
        let mut reader = LineReader::new(&bytes[..]);
        reader.read().unwrap();
        reader.read().unwrap();
        assert!(reader.lines.line.capacity() <= KEPT_BYTES_MAX);
    }

    #[test]
    fn a_stream_that_ends_within_a_line_is_truncated() {
        let line = encode(&message("a"));
        for len in 1..line.len() {
            assert!(matches!(read_all(&line[..len])[..], [Err(LineError::Truncated)]));
        }
    }

    #[test]
    fn a_read_time_out_is_an_error_of_the_connection() {
        struct Silent;
        impl Read for Silent {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
        let err = LineReader::new(BufReader::new(Silent)).read().unwrap_err();
        assert!(matches!(err, LineError::Io(_)) && !err.is_recoverable());
        assert!(err.source().is_some());
    }

    #[test]
    fn a_bomb_of_brackets_is_only_a_malformed_line() {
        let deep = LINE_BYTES_MAX - 100;
        let bombs = [
            "[".repeat(deep),
            "{\"a\":".repeat(deep / 5),
            format!("{{\"type\":{}", "[".repeat(deep)),
        ];
        // On a stack as small as a reader's: the parser must give up long before it runs out.
        let small = std::thread::Builder::new().stack_size(256 * 1024);
        let check = move || {
            for bomb in bombs {
                let bytes = [bomb.as_bytes(), b"\n", &encode(&message("after"))].concat();
                let found = read_all(&bytes);
                assert!(matches!(found[..], [Err(LineError::Malformed { .. }), Ok(_)]));
            }
        };
        small.spawn(check).unwrap().join().unwrap();
    }

    #[test]
    fn a_complaint_does_not_quote_the_sender_at_length() {
        let line = format!("{{\"type\":\"{}\"}}\n", "é".repeat(10_000));
        let [Err(LineError::Malformed { reason })] = &read_all(line.as_bytes())[..] else {
            panic!("the line was taken");
        };
        assert!(reason.chars().count() <= REASON_CHARS_MAX);
    }
}
