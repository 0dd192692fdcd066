//! The reading half of a client's connection: head after head, each with its body.
//!
//! Invariant: every wait for a client has an end, even if it sends a little now and then.

use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use std::net::TcpStream;

use super::limits::BODY_BYTES_PER_SECOND;
use super::server::ServerState;
use super::socket::{ReadBuffer, TimedSocket, is_late};
use crate::model::Time;
use crate::proto::http::{CONTINUE, Chunks, Framing, HeadScanner, RequestFault, blanks};
use crate::runtime::engine::LINGER;

/// Largest number of bytes that are read and thrown away meanwhile.
const DISCARD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Length above which a body needs room among all, and its memory is given back.
pub(super) const HOARD_BYTES: usize = 64 * 1024;

/// Reason why no more requests are read.
pub(super) enum ReadEnd {
    /// The last request was answered.
    Done,
    /// The rest cannot be understood.
    Fault(RequestFault),
    /// There is no room for this body beside those of other clients.
    Full,
    /// The connection was idle for too long.
    Idle,
    /// The socket failed.
    Broken,
}

/// Reader of a client's requests.
pub(super) struct RequestReader<'a> {
    server: &'a ServerState,
    pub(super) socket: TimedSocket,
    buffer: ReadBuffer,
    /// A body that came in chunks.
    body: Vec<u8>,
    /// True if no request has begun yet.
    is_new: bool,
    /// Length of the room that was taken for this body.
    taken: usize,
}

impl Drop for RequestReader<'_> {
    fn drop(&mut self) {
        self.server.give_back(self.taken);
    }
}

impl<'a> RequestReader<'a> {
    pub(super) fn new(server: &'a ServerState, stream: Arc<TcpStream>) -> std::io::Result<Self> {
        let socket = TimedSocket::new(stream, server.clock, server.limits.write)?;
        let (buffer, body) = Default::default();
        Ok(Self { server, socket, buffer, body, is_new: true, taken: 0 })
    }

    /// Head of a request that [`Self::read_head`] has read.
    pub(super) fn head(&self, head_len: usize) -> &[u8] {
        &self.buffer.filled()[..head_len]
    }

    /// Body of a request that [`Self::read_body`] has read.
    pub(super) fn body(&self, head_len: usize, framing: Framing) -> &[u8] {
        match framing {
            Framing::Length(len) => &self.buffer.filled()[head_len..head_len + len],
            Framing::Chunked => &self.body,
        }
    }

    /// Uses up a request of that length; bytes behind it are of another.
    pub(super) fn forget(&mut self, len: usize) {
        self.buffer.consume(len);
        if self.body.len() > HOARD_BYTES {
            self.body = Vec::new();
        }
        if self.taken > 0 {
            self.server.give_back(std::mem::take(&mut self.taken));
        }
    }

    /// Waits for the next request, and for the end of its head.
    pub(super) fn read_head(&mut self) -> Result<usize, ReadEnd> {
        let mut scan = HeadScanner::default();
        let limits = &self.server.limits;
        // A client without any request yet does not get the patience that is for a pause.
        let patience = if self.is_new { limits.idle.min(limits.request) } else { limits.idle };
        self.is_new = false;
        // The clock is not looked at for requests that come whole.
        let (mut deadline, mut has_begun) = (None, !self.buffer.is_empty());
        loop {
            let blanks = blanks(self.buffer.filled());
            if blanks > 0 {
                self.buffer.consume(blanks);
                scan = HeadScanner::default();
            }
            if let Some(len) = scan.head_len(self.buffer.filled()).map_err(ReadEnd::Fault)? {
                return Ok(len);
            }
            if deadline.is_none() && has_begun {
                deadline = Some(self.after_request());
            }
            let read = match deadline {
                None => self.socket.read(&mut self.buffer, patience),
                Some(deadline) => self.socket.read_by(&mut self.buffer, deadline),
            };
            match read {
                // A client that sends blank lines and no more is given no more time than others.
                Ok(0) if self.buffer.is_empty() => return Err(ReadEnd::Done),
                Ok(0) => return Err(ReadEnd::Fault(RequestFault::Malformed)),
                Ok(_) if deadline.is_none() => has_begun = true,
                Ok(_) => {}
                Err(err) if is_late(&err) && self.buffer.is_empty() => return Err(ReadEnd::Idle),
                Err(err) if is_late(&err) => return Err(ReadEnd::Fault(RequestFault::TooSlow)),
                Err(_) => return Err(ReadEnd::Broken),
            }
        }
    }

    fn after_request(&self) -> Time {
        self.socket.now().after(self.server.limits.request)
    }

    /// Reads more of a request that has begun.
    fn read_on(&mut self, deadline: Time) -> Result<(), ReadEnd> {
        match self.socket.read_by(&mut self.buffer, deadline) {
            Ok(0) => Err(ReadEnd::Fault(RequestFault::Malformed)),
            Ok(_) => Ok(()),
            Err(err) if is_late(&err) => Err(ReadEnd::Fault(RequestFault::TooSlow)),
            Err(_) => Err(ReadEnd::Broken),
        }
    }

    fn take_room(&mut self, len: usize) -> Result<(), ReadEnd> {
        if self.taken > 0 || len <= HOARD_BYTES {
            return Ok(());
        }
        if !self.server.take_room(len) {
            return Err(ReadEnd::Full);
        }
        self.taken = len;
        Ok(())
    }

    /// Waits for the whole body; returns the length of the request, as [`Self::forget`] wants it.
    pub(super) fn read_body(
        &mut self,
        head_len: usize,
        framing: Framing,
        expects_continue: bool,
    ) -> Result<usize, ReadEnd> {
        let max = self.server.limits.body_bytes;
        if let Framing::Length(len) = framing {
            if len > max {
                return Err(ReadEnd::Fault(RequestFault::BodyTooLong));
            }
            if self.buffer.filled().len() >= head_len + len {
                return Ok(head_len + len);
            }
            self.take_room(len)?;
        }
        // A client whose body is on its way does not wait for this.
        let expects = expects_continue && self.buffer.filled().len() == head_len;
        if expects && self.socket.write_all(CONTINUE).is_err() {
            return Err(ReadEnd::Broken);
        }
        let began = self.socket.now();
        match framing {
            Framing::Length(len) => {
                while self.buffer.filled().len() < head_len + len {
                    let received = self.buffer.filled().len() - head_len;
                    self.read_on(self.more_by(began, received))?;
                }
                Ok(head_len + len)
            }
            Framing::Chunked => self.read_chunks(head_len, max, began),
        }
    }

    fn read_chunks(&mut self, head_len: usize, max: usize, began: Time) -> Result<usize, ReadEnd> {
        let mut chunks = Chunks::default();
        self.body.clear();
        loop {
            let behind = &self.buffer.filled()[head_len..];
            let (used, is_whole) =
                chunks.take(behind, &mut self.body, max).map_err(ReadEnd::Fault)?;
            self.buffer.cut(head_len, used);
            if is_whole {
                return Ok(head_len);
            }
            if self.body.len() > HOARD_BYTES {
                // The length of the body is not known in advance.
                self.take_room(max)?;
            }
            self.read_on(self.more_by(began, self.body.len()))?;
        }
    }

    /// Time by which more must come of a body that began at a time, so that slow ones of many
    /// clients do not take all connections.
    fn more_by(&self, began: Time, received: usize) -> Time {
        let limits = &self.server.limits;
        let pace = Duration::from_secs(received as u64) / BODY_BYTES_PER_SECOND;
        began.after((limits.body_grace + pace).min(limits.request))
    }

    /// Closes a connection so that the last answer arrives: closing a socket with unread input
    /// would reset it.
    pub(super) fn part(&mut self) {
        self.forget(0);
        if self.socket.stream().shutdown(Shutdown::Write).is_err() || self.server.is_stopping() {
            return;
        }
        let deadline = self.socket.now().after(LINGER);
        let mut discarded = 0;
        while discarded < DISCARD_BYTES_MAX {
            self.buffer.consume(self.buffer.filled().len());
            match self.socket.read_by(&mut self.buffer, deadline) {
                Ok(0) | Err(_) => return,
                Ok(len) => discarded += len,
            }
        }
    }
}
