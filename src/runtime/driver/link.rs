//! One link: a connection of the native dialect, with a thread that reads and one that writes.
//!
//! Invariants:
//! - The machine learns of the link before anything from it, and of its end exactly once: both are
//!   told by the reading thread alone.
//! - A thread blocks on this link's socket or queue only, so a stuck link holds up no other.
//! - A closed link drains first: the writer empties the queue and ends its direction, then gives
//!   the other end a moment to read, and only then lets go. (Closing a socket with unread input
//!   resets the connection, and the last messages would be lost.)

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::counters::DriverCounters;
use super::options::RawConnection;
use super::pending::close;
use super::queue::{FrameReceiver, FrameSender, NotTaken, queue};
use super::{Drivable, Driver};
use crate::machine::{Input, LinkId, Never};
use crate::model::{Binding, Endpoint, Time};
use crate::proto::line::{LineError, LineReader};
use crate::proto::message::Message;
use crate::proto::refusal::{ErrorCode, ErrorReply};
use crate::proto::sealed::{Opener, PlainOrSealed, Sealed, Sealer};
use crate::runtime::engine::LINGER;

/// One encoded message, shared by all links it goes to.
pub(super) type Frame = Arc<Vec<u8>>;

/// Largest number of messages that may wait on one link.
///
/// Room for a burst (a registry in pages, a flood after a healed partition); a link that is further
/// behind is closed, because its other end does not read.
pub(super) const QUEUE_FRAMES_MAX: usize = 1024;

/// Largest number of bytes that may wait on one link: a queue of long messages must not use up the
/// memory.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A batch is written once it has this many bytes, even if more is queued.
const BATCH_BYTES: usize = 64 * 1024;

/// Buffer size of each reader. Most messages fit several times; longer ones pass through it.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// Largest number of bytes that are read and thrown away meanwhile.
const DISCARD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// State of a link that both threads and the driver's state share.
pub(super) struct Link {
    stream: Arc<TcpStream>,
    /// Bytes enqueued and not yet written.
    queued: AtomicUsize,
    /// Queued bytes that are for a stranger, here and on all links.
    unread: AtomicUsize,
    unread_of_all: Arc<AtomicUsize>,
    /// Reason why the link ended or is to end; the first reason stands.
    end: OnceLock<String>,
}

/// Result of queuing a frame.
pub(super) enum Enqueued {
    /// The frame is queued.
    Yes,
    /// The queue has no room.
    Full,
    /// The writer has ended.
    WriterGone,
}

impl Link {
    /// Counts bytes that are about to be enqueued for a stranger; returns those that wait for all
    /// strangers.
    pub(super) fn charge(&self, bytes: usize) -> usize {
        // In this order, and in the opposite one below: the sum is never less than its parts, or a
        // writer would take from it what was not yet added.
        let before = self.unread_of_all.fetch_add(bytes, Ordering::Relaxed);
        self.unread.fetch_add(bytes, Ordering::Release);
        before + bytes
    }

    /// Counts no more than `bytes` of a stranger's as waiting; returns those that wait for all
    /// strangers.
    pub(super) fn discharge(&self, bytes: usize) -> usize {
        let less = |unread: usize| Some(unread.saturating_sub(bytes));
        let before = self.unread.fetch_update(Ordering::Acquire, Ordering::Acquire, less);
        let less = before.unwrap_or_default().min(bytes);
        self.unread_of_all.fetch_sub(less, Ordering::Relaxed) - less
    }

    /// Bytes that wait for a stranger.
    pub(super) fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
    }

    /// Queues `frame` without blocking. Called only under the driver's lock, which fixes the order.
    pub(super) fn enqueue(&self, frames: &FrameSender, frame: Frame) -> Enqueued {
        let len = frame.len();
        if self.queued.load(Ordering::Relaxed) + len > QUEUE_BYTES_MAX {
            return Enqueued::Full;
        }
        self.queued.fetch_add(len, Ordering::Relaxed);
        match frames.push(frame) {
            Ok(()) => Enqueued::Yes,
            Err(NotTaken::Full) => Enqueued::Full,
            Err(NotTaken::WriterGone) => Enqueued::WriterGone,
        }
    }

    /// Sets the reason of the link's end, unless there is one already.
    pub(super) fn set_end(&self, reason: String) {
        let _ = self.end.set(reason);
    }

    /// Ends the connection at once, which wakes both threads.
    pub(super) fn cut(&self) {
        close(&self.stream);
    }
}

/// A connection that has passed the key check, with its encryption.
pub(super) struct CheckedConnection {
    connection: RawConnection,
    /// Encryption of both directions, if lines go in frames.
    sealer: Option<Sealer>,
    opener: Option<Opener>,
    binding: Option<Binding>,
    /// Endpoint that this node called, if it did.
    called: Option<Endpoint>,
}

impl CheckedConnection {
    pub(super) fn new(
        connection: RawConnection,
        sealed: Option<Sealed>,
        called: Option<Endpoint>,
    ) -> Self {
        let binding = sealed.as_ref().map(|it| it.binding);
        let (sealer, opener) = sealed.map(|it| (it.sealer, it.opener)).unzip();
        Self { connection, sealer, opener, binding, called }
    }

    /// Binding of the connection, if it is encrypted.
    pub(super) const fn binding(&self) -> Option<Binding> {
        self.binding
    }
}

/// The reading end of a link, held by the thread that will read it.
pub(super) struct LinkReader {
    id: LinkId,
    link: Arc<Link>,
    connection: RawConnection,
    opener: Option<Opener>,
    called: Option<Endpoint>,
    /// Dropped when the reader has ended.
    _reading: Sender<Never>,
}

impl<M: Drivable> Driver<M> {
    /// Makes a connection a link, starts its writer, and gives the machine the input that `hello`
    /// returns.
    ///
    /// # Errors
    ///
    /// Fails if no thread can be started, or the node is stopping; the connection is then closed
    /// and the machine has not learned of it.
    pub(super) fn open_link(
        self: &Arc<Self>,
        connection: CheckedConnection,
        hello: impl FnOnce(LinkId) -> Input<M>,
    ) -> io::Result<LinkReader> {
        let CheckedConnection { connection, sealer, opener, called, .. } = connection;
        let stream = connection.share_stream();
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(Some(self.limits.write_timeout))?;
        let port = stream.peer_addr()?.port();
        let link = Arc::new(Link {
            stream,
            queued: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            unread_of_all: Arc::clone(&self.unread),
            end: OnceLock::new(),
        });
        let (frames, queue) = queue(QUEUE_FRAMES_MAX);
        let (reading, reader_done) = bounded(0);
        let (driver, writing) = (Arc::clone(self), Arc::clone(&link));
        self.threads.spawn(format!("write:{port}"), move || {
            driver.write_link(&writing, sealer, &queue, &reader_done);
        })?;
        let state = self.lock();
        if !state.is_running() {
            return Err(io::Error::other("this node is stopping"));
        }
        let id = self.with(state, |state, now| {
            let id = state.add_link(Arc::clone(&link), frames);
            state.step(now, hello(id));
            id
        });
        Ok(LinkReader { id, link, connection, opener, called, _reading: reading })
    }

    /// Reads a link to its end, on the calling thread.
    pub(super) fn read_link(self: &Arc<Self>, opened: LinkReader) {
        let LinkReader { id, link, connection, opener, called, _reading } = opened;
        let input = Counting { connection, counters: &self.counters };
        let mut reader = LineReader::new(PlainOrSealed::new(input, READ_BUFFER_BYTES, opener));
        let end = self.read_lines(id, called, &mut reader);
        let was_hung_up = !self.lock().is_open(id);
        // The other end's close may be no more than the answer to ours.
        link.set_end(if was_hung_up { "closed by this node".into() } else { end });
        if was_hung_up {
            // The last messages may be on their way: see the invariant on closing.
            let rest = reader.into_inner().into_inner().connection;
            let _ = io::copy(&mut rest.take(DISCARD_BYTES_MAX), &mut io::sink());
        }
        self.counters.links_closed.add(1);
        let reason = link.end.get().cloned().unwrap_or_default();
        self.with(self.lock(), |state, now| {
            state.remove_link(id);
            state.step(now, Input::Closed { link: id, reason });
        });
    }

    /// Submits message after message; returns the reason why no more will come.
    fn read_lines<R: Read>(
        self: &Arc<Self>,
        id: LinkId,
        called: Option<Endpoint>,
        reader: &mut LineReader<PlainOrSealed<R>>,
    ) -> String {
        loop {
            let input = match reader.read() {
                Ok(Some(msg)) => {
                    self.counters.lines_in.add(1);
                    if let (Some(called), Message::Error(error)) = (called, &msg)
                        && error.code == ErrorCode::ClusterKey
                    {
                        self.was_barred(called, error);
                    }
                    Input::Received { link: id, msg }
                }
                Ok(None) => return "closed by the other end".into(),
                Err(LineError::Malformed { reason }) => {
                    self.counters.garbled.add(1);
                    Input::Garbled { link: id, reason }
                }
                Err(err @ (LineError::Io(_) | LineError::TooLong | LineError::Truncated)) => {
                    self.refuse(id, &err);
                    return err.to_string();
                }
            };
            if !self.deliver(id, input) {
                return "closed by this node".into();
            }
        }
    }

    /// Submits an input of a link; false if the machine has hung it up.
    ///
    /// Pauses while the outbox is full: if the disk cannot keep up, the network must not.
    fn deliver(self: &Arc<Self>, id: LinkId, input: Input<M>) -> bool {
        let mut state = self.lock();
        while state.outbox.is_full() && state.is_running() {
            state.readers_paused += 1;
            state = self.outbox_moved.wait(state).expect("a handler panicked");
            state.readers_paused -= 1;
        }
        if !state.is_open(id) {
            return false;
        }
        self.with(state, |state, now| state.step(now, input));
        true
    }

    /// Sends the reason why a link cannot go on, if that is still possible, and closes it.
    fn refuse(self: &Arc<Self>, id: LinkId, err: &LineError) {
        match err {
            LineError::TooLong => self.counters.refused_too_long.add(1),
            LineError::Truncated => self.counters.refused_truncated.add(1),
            // These two are errors of frames only: sockets do not make them.
            LineError::Io(err) if err.kind() == ErrorKind::InvalidData => {
                self.counters.refused_frame.add(1);
                return;
            }
            LineError::Io(err) if err.kind() == ErrorKind::UnexpectedEof => {
                self.counters.refused_truncated.add(1);
                return;
            }
            LineError::Io(_) | LineError::Malformed { .. } => return,
        }
        let reason = err.to_string();
        self.with(self.lock(), |state, _| {
            if state.is_open(id) {
                let reply = ErrorReply::new(ErrorCode::Malformed, reason.as_str());
                state.send_unjournaled(id, reply.into());
                state.hang_up(id, &reason);
            }
        });
    }

    /// Writes a link's queue until it is closed, then lets go of the connection.
    fn write_link(
        &self,
        link: &Link,
        sealer: Option<Sealer>,
        queue: &FrameReceiver,
        reader_done: &Receiver<Never>,
    ) {
        match self.write_frames(link, sealer, queue) {
            Ok(()) => {
                let _ = link.stream.shutdown(Shutdown::Write);
                // No message is ever sent here: the wait ends when the reader does, or in time.
                let _ = reader_done.recv_timeout(LINGER);
            }
            Err(err) => link.set_end(format!("cannot write: {err}")),
        }
        for frame in queue.abandon() {
            self.counters.lines_waiting.fall(1);
            self.counters.bytes_waiting.fall(frame.len());
            self.counters.lines_lost.add(1);
        }
        link.discharge(usize::MAX);
        link.cut();
    }

    fn write_frames(
        &self,
        link: &Link,
        mut sealer: Option<Sealer>,
        queue: &FrameReceiver,
    ) -> io::Result<()> {
        let mut drained_by = None;
        while let Some(first) = queue.wait() {
            let mut batch = Cow::Borrowed(first.as_slice());
            let mut lines = 1;
            while batch.len() < BATCH_BYTES
                && let Some(frame) = queue.next()
            {
                batch.to_mut().extend_from_slice(&frame);
                lines += 1;
            }
            let limit = self.clock.now().mono.after(self.limits.write_timeout);
            let deadline =
                if link.end.get().is_some() { *drained_by.get_or_insert(limit) } else { limit };
            let plain = batch.len();
            if let Some(sealer) = &mut sealer {
                batch = Cow::Owned(sealer.seal(&batch));
            }
            let written = self.write_by(&link.stream, &batch, deadline);
            link.queued.fetch_sub(plain, Ordering::Relaxed);
            link.discharge(plain);
            self.counters.lines_waiting.fall(lines);
            self.counters.bytes_waiting.fall(plain);
            if let Err(err) = written {
                self.counters.lines_lost.add(lines as u64);
                return Err(err);
            }
            self.counters.lines_out.add(lines as u64);
            self.counters.bytes_out.add(batch.len() as u64);
        }
        Ok(())
    }

    /// Writes all of `bytes`. The other end gains no time by taking a byte now and then.
    fn write_by(&self, mut stream: &TcpStream, bytes: &[u8], deadline: Time) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            match stream.write(left) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => left = &left[len..],
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
            if !left.is_empty() && self.clock.now().mono >= deadline {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

/// A connection whose incoming bytes are counted.
struct Counting<'a> {
    connection: RawConnection,
    counters: &'a DriverCounters,
}

impl Read for Counting<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.connection.read(buf)?;
        self.counters.bytes_in.add(len as u64);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::runtime::thread;

    #[test]
    fn the_sum_of_unread_bytes_is_right_whenever_a_writer_looks() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let link = Arc::new(Link {
            stream,
            queued: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            unread_of_all: Arc::default(),
            end: OnceLock::new(),
        });
        let charged = Arc::clone(&link);
        let charging = thread::spawn("charging", move || {
            let most = (0..3_000_000).map(|_| charged.charge(1)).max();
            assert!(most <= Some(3_000_000), "{most:?}");
        });
        let charging = charging.unwrap();
        while !charging.is_finished() {
            assert!(link.discharge(2) <= 3_000_000);
        }
        charging.join().unwrap();
        assert_eq!(link.discharge(usize::MAX), 0);
    }
}
