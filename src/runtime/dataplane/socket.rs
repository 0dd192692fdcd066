//! One end of a connection: every wait has a deadline, and bytes that came early are kept.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Time;
use crate::runtime::clock::Clock;

/// Least number of bytes that are read at once; most requests and answers fit.
const READ_BYTES: usize = 4 * 1024;

/// Size above which the buffer is given back when a long message is over.
const HOARD_BYTES: usize = 64 * 1024;

/// A socket with time-outs.
pub(super) struct TimedSocket {
    stream: Arc<TcpStream>,
    clock: Clock,
    /// Read time-out that is set in the system: setting it costs as much as a read, and mostly it
    /// is the same again.
    waits: Option<Duration>,
    write: Duration,
}

impl TimedSocket {
    /// A socket whose other end takes all written bytes within `write`.
    pub(super) fn new(stream: Arc<TcpStream>, clock: Clock, write: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(write))?;
        Ok(Self { stream, clock, waits: None, write })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn now(&self) -> Time {
        self.clock.mono()
    }

    /// Reads once, any number of bytes; 0 at the end of the stream.
    pub(super) fn read(&mut self, buffer: &mut ReadBuffer, wait: Duration) -> io::Result<usize> {
        if self.waits != Some(wait) {
            if wait.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(wait))?;
            self.waits = Some(wait);
        }
        let len = loop {
            match (&*self.stream).read(buffer.spare()) {
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        buffer.end += len;
        Ok(len)
    }

    /// As [`Self::read`], until a moment.
    pub(super) fn read_by(&mut self, buffer: &mut ReadBuffer, deadline: Time) -> io::Result<usize> {
        let left = deadline.since(self.now());
        self.read(buffer, left)
    }

    /// Writes all of `bytes`. The other end gains no time by taking a byte now and then.
    ///
    /// # Errors
    /// Fails with the number of bytes written before.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = match (&*self.stream).write(bytes) {
            Ok(len) if len == bytes.len() => return Ok(()),
            Ok(len) => len,
            Err(err) if err.kind() == ErrorKind::Interrupted => 0,
            Err(err) => return Err((0, err)),
        };
        // The first write has waited already, unless a signal came; so much again is the most.
        let deadline = self.now().after(self.write);
        while written < bytes.len() {
            let left = deadline.since(self.now());
            let result = if left.is_zero() {
                Err(ErrorKind::TimedOut.into())
            } else {
                self.stream.set_write_timeout(Some(left))
            };
            result.map_err(|err| (written, err))?;
            match (&*self.stream).write(&bytes[written..]) {
                Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
                Ok(len) => written += len,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err((written, err)),
            }
        }
        self.stream.set_write_timeout(Some(self.write)).map_err(|err| (written, err))
    }
}

/// Received bytes that are not used up.
#[derive(Default)]
pub(super) struct ReadBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    /// All received bytes that are not used up.
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Uses up the first `len` bytes.
    pub(super) fn consume(&mut self, len: usize) {
        self.start += len;
        debug_assert!(self.start <= self.end, "only what came is used up");
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > HOARD_BYTES {
                self.bytes = Vec::new();
            }
        }
    }

    /// Takes `len` bytes out from behind the first `keep`.
    pub(super) fn cut(&mut self, keep: usize, len: usize) {
        let from = self.start + keep;
        self.bytes.copy_within(from + len..self.end, from);
        self.end -= len;
    }

    /// Space for more bytes.
    fn spare(&mut self) -> &mut [u8] {
        if self.bytes.len() - self.end < READ_BYTES / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.bytes.len() - self.end < READ_BYTES {
                let len = (2 * self.end).max(READ_BYTES);
                self.bytes.resize(len, 0);
            }
        }
        &mut self.bytes[self.end..]
    }
}

pub(super) fn is_late(err: &io::Error) -> bool {
    matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_kept_in_order_and_room_is_found_again() {
        let (mut buffer, mut sent, mut seen) = (ReadBuffer::default(), 0_u64, 0_u64);
        for turn in 0..2_000_usize {
            let spare = buffer.spare();
            assert!(spare.len() >= READ_BYTES / 2, "{turn}");
            let len = (turn * 37 % 1_500).min(spare.len());
            for byte in &mut spare[..len] {
                *byte = (sent % 251) as u8;
                sent += 1;
            }
            buffer.end += len;
            let used = buffer.filled().len() * (turn % 5) / 4;
            for byte in &buffer.filled()[..used] {
                assert_eq!(u64::from(*byte), seen % 251);
                seen += 1;
            }
            buffer.consume(used);
        }
        assert_eq!(sent - seen, buffer.filled().len() as u64);
        assert!(buffer.bytes.len() <= HOARD_BYTES, "{}", buffer.bytes.len());
    }
}
