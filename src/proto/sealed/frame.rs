//! Encrypted frames: a length of two bytes, big-endian, and so many bytes of one Noise message.
//!
//! Each direction counts its frames, and the count is part of what is proved: a frame opens at its
//! own place in the stream or not at all.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::sync::Arc;

use snow::StatelessTransportState;

use super::TAG_BYTES;

/// The longest frame, without its length; what two bytes can say and Noise allows.
pub const FRAME_BYTES_MAX: usize = 65_535;

/// Largest plain content of one frame, in bytes. Longer frames would save nothing, and would cost
/// every reader a buffer of that size.
const PLAIN_BYTES_MAX: usize = 16 * 1024;

/// A frame's length, as it stands before it.
pub(super) const HEADER_BYTES: usize = 2;

/// A buffer above this size is given back after use; nearly all frames are shorter.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// Encrypts one direction.
pub struct Sealer {
    noise: Arc<StatelessTransportState>,
    frames: u64,
}

/// Decrypts the other direction.
pub struct Opener {
    noise: Arc<StatelessTransportState>,
    frames: u64,
}

/// The two directions of one connection, which two threads may use at the same time.
pub(super) fn directions(noise: StatelessTransportState) -> (Sealer, Opener) {
    let noise = Arc::new(noise);
    (Sealer { noise: Arc::clone(&noise), frames: 0 }, Opener { noise, frames: 0 })
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Encrypts `plain` in as many frames as it takes.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let count = plain.len().div_ceil(PLAIN_BYTES_MAX);
        let mut out = Vec::with_capacity(plain.len() + count * (HEADER_BYTES + TAG_BYTES));
        for part in plain.chunks(PLAIN_BYTES_MAX) {
            self.seal_frame(part, &mut out);
        }
        out
    }

    /// Appends one frame with `plain`, which may be empty, to `out`.
    pub(super) fn seal_frame(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let len = plain.len() + TAG_BYTES;
        let header = u16::try_from(len).expect("a part fits a frame");
        out.extend_from_slice(&header.to_be_bytes());
        let start = out.len();
        out.resize(start + len, 0);
        self.noise
            .write_message(self.frames, plain, &mut out[start..])
            .expect("the part fits, and no connection lives for 2^64 frames");
        self.frames += 1;
    }
}

impl Opener {
    /// Replaces `plain` with the content of `frame`, the next one of this direction.
    pub(super) fn open(&mut self, frame: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        plain.resize(frame.len(), 0);
        match self.noise.read_message(self.frames, frame, plain) {
            Ok(len) => {
                plain.truncate(len);
                self.frames += 1;
                Ok(())
            }
            Err(_) => {
                plain.clear();
                Err(garbled("a frame was changed, repeated or moved on its way"))
            }
        }
    }
}

fn garbled(reason: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

/// Reads the content of the frames of a stream.
///
/// A frame that does not hold is an error of the kind `InvalidData`, a stream that ends within one
/// `UnexpectedEof`; after either the reader must not be read from again.
#[derive(Debug)]
pub struct SealedReader<R> {
    input: R,
    opener: Opener,
    frame: Vec<u8>,
    plain: Vec<u8>,
    /// Number of bytes of `plain` that were taken.
    taken: usize,
}

impl<R: Read> SealedReader<R> {
    /// A reader of the frames of `input`.
    pub const fn new(input: R, opener: Opener) -> Self {
        Self { input, opener, frame: Vec::new(), plain: Vec::new(), taken: 0 }
    }

    /// The underlying stream.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The state for the frames that follow.
    #[cfg(test)]
    pub(super) fn into_opener(self) -> Opener {
        self.opener
    }

    /// The bytes of memory that are held.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.frame.capacity() + self.plain.capacity()
    }

    /// Opens the next frame; false where the stream ends instead.
    fn next_frame(&mut self) -> io::Result<bool> {
        self.taken = 0;
        for buffer in [&mut self.frame, &mut self.plain] {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES_MAX);
        }
        let mut header = [0; HEADER_BYTES];
        if !self.read_first(&mut header[..1])? {
            return Ok(false);
        }
        self.input.read_exact(&mut header[1..])?;
        let len = usize::from(u16::from_be_bytes(header));
        if len <= TAG_BYTES {
            return Err(garbled("a frame is too short to hold anything"));
        }
        self.frame.resize(len, 0);
        self.input.read_exact(&mut self.frame)?;
        self.opener.open(&self.frame, &mut self.plain)?;
        Ok(true)
    }

    fn read_first(&mut self, byte: &mut [u8]) -> io::Result<bool> {
        loop {
            match self.input.read(byte) {
                Ok(len) => return Ok(len > 0),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
    }
}

impl<R: Read> BufRead for SealedReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.plain.len() {
            self.next_frame()?;
        }
        Ok(&self.plain[self.taken..])
    }

    fn consume(&mut self, amount: usize) {
        self.taken = (self.taken + amount).min(self.plain.len());
    }
}

impl<R: Read> Read for SealedReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.fill_buf()?.read(buf)?;
        self.consume(len);
        Ok(len)
    }
}

/// Incoming bytes of a connection: plain lines, or lines in encrypted frames.
#[derive(Debug)]
pub enum PlainOrSealed<R> {
    /// Plain lines, without encryption.
    Plain(BufReader<R>),
    /// Lines in encrypted frames.
    Sealed(SealedReader<BufReader<R>>),
}

impl<R: Read> PlainOrSealed<R> {
    /// Reads `input` through a buffer of `capacity` bytes, and opens its frames if it has any.
    pub fn new(input: R, capacity: usize, opener: Option<Opener>) -> Self {
        let input = BufReader::with_capacity(capacity, input);
        match opener {
            None => Self::Plain(input),
            Some(opener) => Self::Sealed(SealedReader::new(input, opener)),
        }
    }

    /// The connection; what was read and not yet taken is lost.
    pub fn into_inner(self) -> R {
        match self {
            Self::Plain(input) => input.into_inner(),
            Self::Sealed(reader) => reader.into_inner().into_inner(),
        }
    }
}

impl<R: Read> Read for PlainOrSealed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buf),
            Self::Sealed(reader) => reader.read(buf),
        }
    }
}

impl<R: Read> BufRead for PlainOrSealed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Plain(input) => input.fill_buf(),
            Self::Sealed(reader) => reader.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match self {
            Self::Plain(input) => input.consume(amount),
            Self::Sealed(reader) => reader.consume(amount),
        }
    }
}
