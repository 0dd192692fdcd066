//! One connection of a swarm: a thread that reads it, and one that writes.
//!
//! Invariants:
//! - The swarm learns of the connection before anything from it, and of its end exactly once: both
//!   are told by the reading thread.
//! - A piece that is sent goes from the disk to the socket without a stop in this process, unless
//!   it has to be encrypted.
//! - A closed connection drains first: the writer sends the queue, ends its direction, gives the
//!   other end a moment to read, and only then lets go.

use crate::proto::swarm::{Message, PeerId, PieceIndex, ProtocolVariant};
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::net::SendFlags;

use super::engine::Shared;
use super::outgoing::{Outgoing, OutgoingItem};
use super::store::{ContentStoreError, PieceRange};
use super::task::SwarmTask;
use crate::machine::swarm::{ExtraInput, Input, PeerAddrId};
use crate::machine::{LinkId, Never};
use crate::proto::sealed::{Opener, PlainOrSealed, Sealer};
use crate::proto::swarm::frame::{Decoder, Frame, FrameLimits, piece_head};
use crate::runtime::driver::options::RawConnection;
use crate::runtime::engine::LINGER;

/// Buffer size of each reader: pieces pass it by, all other messages are short.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Messages that wait together are written together, up to so many bytes.
const BATCH_BYTES: usize = 64 * 1024;

/// Number of bytes of a piece that are read, encrypted and written at a time.
const SEAL_BYTES: usize = 256 * 1024;

/// Interval at which the swarm is told that a piece is coming.
const COMING_EVERY: Duration = Duration::from_secs(1);

/// Largest number of bytes that are read and thrown away meanwhile.
const DISCARD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Silence after which the system tests whether the other end is still there, and number of tests
/// until the connection is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TRIES: u32 = 4;

/// State of a connection that all its threads share.
#[derive(Debug)]
pub(super) struct SharedLink {
    stream: Arc<TcpStream>,
    pub(super) outgoing: Outgoing,
    is_hung_up: AtomicBool,
    end: OnceLock<&'static str>,
}

impl SharedLink {
    /// Sends the queue, and then ends the connection.
    pub(super) fn hang_up(&self, reason: &'static str) {
        let _ = self.end.set(reason);
        self.is_hung_up.store(true, Ordering::Relaxed);
        self.outgoing.close();
    }

    /// Ends the connection at once, which wakes both threads.
    pub(super) fn cut(&self) {
        // This fails if the other end has already reset the connection: the goal is reached.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A connection over which both handshakes were exchanged.
pub(super) struct OpenConnection {
    /// Source of the connection's further bytes.
    pub(super) input: PlainOrSealed<Limited>,
    /// The socket of the connection.
    pub(super) stream: Arc<TcpStream>,
    /// Encryption of outgoing bytes, if the connection is encrypted.
    pub(super) sealer: Option<Sealer>,
    /// Id of the other end, as it states.
    pub(super) peer: PeerId,
}

/// A connection that is read no faster than all swarms together may.
pub(super) struct Limited {
    connection: RawConnection,
    shared: Arc<Shared>,
}

impl Limited {
    pub(super) fn new(
        connection: RawConnection,
        shared: &Arc<Shared>,
        opener: Option<Opener>,
    ) -> PlainOrSealed<Self> {
        let limited = Self { connection, shared: Arc::clone(shared) };
        PlainOrSealed::new(limited, READ_BUFFER_BYTES, opener)
    }
}

impl Read for Limited {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let share = self.shared.down.share(buf.len());
        let len = self.connection.read(&mut buf[..share])?;
        // Afterwards, when the number is known: the waiting bytes hold up the sender.
        self.shared.down.take(len);
        Ok(len)
    }
}

impl SwarmTask {
    /// Talks to a neighbor until either end closes, on the calling thread.
    pub(super) fn converse(self: &Arc<Self>, ends: OpenConnection, place: Option<PeerAddrId>) {
        let _place = self.threads.join();
        let OpenConnection { input, stream, sealer, peer } = ends;
        let port = stream.peer_addr().map_or(0, |addr| addr.port());
        prepare(&stream, self.shared().limits.write_timeout);
        let shared_link = Arc::new(SharedLink {
            stream,
            outgoing: Outgoing::default(),
            is_hung_up: AtomicBool::new(false),
            end: OnceLock::new(),
        });
        let (reading, reader_done) = bounded(0);
        let id = self.shared().number_link();
        let (task, writing) = (Arc::clone(self), Arc::clone(&shared_link));
        let spawned = self.threads.spawn(format!("up:{port}"), move || {
            task.write_link(id, &writing, sealer, &reader_done);
        });
        if spawned.is_err() || !self.admit(id, &shared_link, peer, place) {
            shared_link.outgoing.abandon();
            shared_link.cut();
            return;
        }
        self.shared().counters.links.add(1);
        self.read_link(id, &shared_link, input, reading);
    }

    fn read_link(
        self: &Arc<Self>,
        id: LinkId,
        shared_link: &Arc<SharedLink>,
        input: PlainOrSealed<Limited>,
        reading: Sender<Never>,
    ) {
        let variant = if self.share().is_some() {
            ProtocolVariant::Share
        } else {
            ProtocolVariant::Assignment
        };
        let mut decoder = Decoder::new(FrameLimits { variant, pieces: self.store().pieces() });
        let mut input = input;
        let clock = self.shared().clock;
        let mut told = clock.now().mono;
        loop {
            let coming = |bytes: usize| {
                self.traffic.came(bytes as u64);
                let now = clock.now().mono;
                if now.since(told) >= COMING_EVERY {
                    told = now;
                    self.submit(Input::Extra(ExtraInput::Coming { link: id }));
                }
            };
            match decoder.read_from(&mut input, coming) {
                Ok(Some(Frame::Message(msg))) => {
                    told = clock.now().mono;
                    let is_piece = matches!(msg, Message::Piece { .. });
                    if !self.deliver(id, msg) {
                        break;
                    }
                    if let Some(buffer) = is_piece.then(|| self.stores().spare()).flatten() {
                        decoder.lend(buffer);
                    }
                }
                Ok(Some(Frame::Skipped { .. })) => {
                    let what = "a message of a type that the assignment does not have";
                    self.submit(Input::Extra(ExtraInput::Skipped { link: id, what }));
                }
                Ok(None) => break,
                Err(err) => {
                    if err.kind() == ErrorKind::InvalidData {
                        self.shared().counters.refused_message.add(1);
                    }
                    log::debug!("a connection of a swarm is closed: {err}");
                    break;
                }
            }
        }
        if let Some((index, offset, data)) = decoder.into_part() {
            self.submit(Input::Extra(ExtraInput::Part { link: id, index, offset, data }));
        }
        if shared_link.is_hung_up.load(Ordering::Relaxed) {
            // The last messages may be on their way, and unread input would take them back.
            let _ = io::copy(&mut input.take(DISCARD_BYTES_MAX), &mut io::sink());
        }
        self.dismiss(id);
        shared_link.outgoing.abandon();
        drop(reading);
        shared_link.cut();
    }

    fn write_link(
        self: &Arc<Self>,
        id: LinkId,
        shared_link: &SharedLink,
        mut sealer: Option<Sealer>,
        reader_done: &Receiver<Never>,
    ) {
        let mut outcome = Ok(());
        while outcome.is_ok()
            && let Some(item) = shared_link.outgoing.wait(BATCH_BYTES)
        {
            outcome = match item {
                OutgoingItem::Message(bytes) => {
                    self.shared().up.take(bytes.len());
                    send(&shared_link.stream, &mut sealer, &bytes, false)
                }
                OutgoingItem::Piece(index, offset) => {
                    self.upload(id, shared_link, &mut sealer, (index, offset))
                }
            };
        }
        match outcome {
            Ok(()) => {
                let _ = shared_link.stream.shutdown(Shutdown::Write);
                // No message is ever sent here: the wait ends when the reader does, or in time.
                let _ = reader_done.recv_timeout(LINGER);
            }
            Err(err) => log::debug!("cannot write to a neighbor in a swarm: {err}"),
        }
        shared_link.outgoing.abandon();
        shared_link.cut();
    }

    fn upload(
        self: &Arc<Self>,
        link: LinkId,
        shared_link: &SharedLink,
        sealer: &mut Option<Sealer>,
        (index, offset): (PieceIndex, u32),
    ) -> io::Result<()> {
        let found = self.store().parts(index);
        let mut parts = match found {
            Ok(parts) => parts,
            Err(ContentStoreError::Changed { .. }) => {
                return self.upload_changed(link, shared_link, sealer, (index, offset));
            }
            Err(err) => {
                self.fail(err.to_string());
                // No byte of the piece has left: the last messages can still say so.
                return Ok(());
            }
        };
        let mut skipped = u64::from(offset);
        for part in &mut parts {
            let skip = skipped.min(part.len);
            (part.offset, part.len, skipped) =
                (part.offset + skip, part.len - skip, skipped - skip);
        }
        let bytes: u64 = parts.iter().map(|part| part.len).sum();
        let head = piece_head(index, offset, u32::try_from(bytes).map_err(io::Error::other)?);
        self.shared().up.take(head.len());
        send(&shared_link.stream, sealer, &head, bytes > 0)?;
        for part in parts {
            self.send_part(&shared_link.stream, sealer, &part)?;
        }
        self.submit(Input::Extra(ExtraInput::Uploaded { link, index, bytes }));
        Ok(())
    }

    /// Sends a piece of a file that was changed by others, if the piece itself is unchanged.
    fn upload_changed(
        self: &Arc<Self>,
        link: LinkId,
        shared_link: &SharedLink,
        sealer: &mut Option<Sealer>,
        (index, offset): (PieceIndex, u32),
    ) -> io::Result<()> {
        let mut data = Vec::new();
        let is_good = self.store().read_changed(index, &mut data).is_ok()
            && self.store().is_what_was_stored(index, &data, self.leaf(index));
        if !is_good && self.store().is_unfinished() {
            // The piece is not offered but fetched here, and can be fetched again.
            self.submit(Input::Extra(ExtraInput::ReadAgain {
                read: 1,
                lost: vec![index],
                files: Vec::new(),
            }));
            self.submit(Input::Extra(ExtraInput::Uploaded { link, index, bytes: 0 }));
            return Ok(());
        }
        if !is_good {
            let err = ContentStoreError::Changed { path: self.store().path_of_piece(index) };
            self.fail(err.to_string());
            return Ok(());
        }
        let data = &data[offset as usize..];
        let bytes = data.len() as u64;
        let head = piece_head(index, offset, u32::try_from(bytes).map_err(io::Error::other)?);
        self.shared().up.take(head.len());
        send(&shared_link.stream, sealer, &head, bytes > 0)?;
        let mut left = data;
        while !left.is_empty() {
            let share = self.shared().up.share(left.len().min(SEAL_BYTES));
            self.shared().up.take(share);
            send(&shared_link.stream, sealer, &left[..share], false)?;
            self.traffic.went(share as u64);
            left = &left[share..];
        }
        self.submit(Input::Extra(ExtraInput::Uploaded { link, index, bytes }));
        Ok(())
    }

    fn send_part(
        &self,
        stream: &TcpStream,
        sealer: &mut Option<Sealer>,
        part: &PieceRange,
    ) -> io::Result<()> {
        let (mut at, end) = (part.offset, part.offset + part.len);
        let mut data = Vec::new();
        while at < end {
            let most = if sealer.is_some() { SEAL_BYTES } else { usize::MAX };
            let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(most);
            let share = self.shared().up.share(left);
            self.shared().up.take(share);
            let moved = match sealer {
                None => move_bytes(stream, part, at, share)?,
                Some(sealer) => {
                    use std::os::unix::fs::FileExt;
                    data.resize(share, 0);
                    part.file.read_exact_at(&mut data, at)?;
                    send(stream, &mut None, &sealer.seal(&data), false)?;
                    share
                }
            };
            at += moved as u64;
            self.traffic.went(moved as u64);
        }
        Ok(())
    }
}

/// Sends all of `bytes`; with `is_more` in one packet with what follows, where that is possible.
pub(super) fn send(
    stream: &TcpStream,
    sealer: &mut Option<Sealer>,
    bytes: &[u8],
    is_more: bool,
) -> io::Result<()> {
    let sealed = sealer.as_mut().map(|sealer| sealer.seal(bytes));
    let mut left = sealed.as_deref().unwrap_or(bytes);
    #[allow(unused_mut, reason = "where packets cannot be told to wait")]
    let mut flags = SendFlags::NOSIGNAL;
    #[cfg(target_os = "linux")]
    if is_more {
        flags |= SendFlags::MORE;
    }
    let _ = is_more;
    while !left.is_empty() {
        match rustix::net::send(stream, left, flags) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => left = &left[len..],
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

/// Moves at most `most` bytes of a part from the file to the socket; at least one.
#[cfg(target_os = "linux")]
fn move_bytes(stream: &TcpStream, part: &PieceRange, at: u64, most: usize) -> io::Result<usize> {
    let mut at = at;
    loop {
        match rustix::fs::sendfile(stream, &*part.file, Some(&mut at), most) {
            // The file became shorter: the neighbor waits for bytes that do not exist any more.
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(moved) => return Ok(moved),
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
}

/// Moves at most `most` bytes of a part from the file to the socket; at least one.
#[cfg(not(target_os = "linux"))]
fn move_bytes(stream: &TcpStream, part: &PieceRange, at: u64, most: usize) -> io::Result<usize> {
    use std::os::unix::fs::FileExt;
    let mut data = vec![0; most.min(SEAL_BYTES)];
    part.file.read_exact_at(&mut data, at)?;
    send(stream, &mut None, &data, false)?;
    Ok(data.len())
}

/// Sets the options of a socket. A failure here makes it slower and not wrong.
fn prepare(stream: &TcpStream, write_timeout: Duration) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(None);
    let _ = stream.set_write_timeout(Some(write_timeout));
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE)
        .with_retries(KEEP_ALIVE_TRIES);
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keep_alive);
}
