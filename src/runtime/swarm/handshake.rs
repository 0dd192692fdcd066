//! Handshakes, on accepted connections and on calls, each within a deadline.

use crate::proto::swarm::PeerId;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::engine::Shared;
use super::link::{Limited, OpenConnection};
use super::task::SwarmTask;
use crate::machine::swarm::{DialFailure, Input, PeerAddrId};
use crate::model::Time;
use crate::proto::sealed::{self, SealError, Sealed};
use crate::proto::swarm::handshake::{self, Expect, Handshake};
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::RawConnection;

/// Reason why a handshake failed.
#[derive(Debug)]
enum HandshakeError {
    Io(io::Error),
    Hello(handshake::SwarmHandshakeError),
    Key(SealError),
    /// Another peer answers at the address.
    OtherPeer(PeerId),
    /// The other end is in another swarm.
    OtherSwarm,
    /// This end is stopping, or has no room.
    Closed,
}

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(err) if is_late(err) => f.write_str("no answer in time"),
            Self::Io(err) if err.kind() == ErrorKind::UnexpectedEof => {
                f.write_str("connected, but hung up on")
            }
            Self::Io(err) => err.fmt(f),
            Self::Hello(err) => err.fmt(f),
            Self::Key(err) => err.fmt(f),
            Self::OtherPeer(peer) => write!(f, "it says that it is peer {}", peer.0),
            Self::OtherSwarm => f.write_str("it does not know this share"),
            Self::Closed => f.write_str("there is no room here for more connections"),
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

fn is_late(err: &io::Error) -> bool {
    matches!(err.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

impl Shared {
    /// Exchanges handshakes with a caller; returns the swarm that it names, and the connection.
    pub(super) fn shake_hands(
        self: &Arc<Self>,
        connection: RawConnection,
        may_be_sealed: bool,
    ) -> Option<(Arc<SwarmTask>, OpenConnection)> {
        let from = connection.from();
        let outcome = self.answer(connection, may_be_sealed);
        match outcome {
            Ok(greeted) => Some(greeted),
            Err(trouble) => {
                match &trouble {
                    HandshakeError::Io(_) => self.counters.refused_silent.add(1),
                    HandshakeError::Key(_) => self.counters.refused_key.add(1),
                    HandshakeError::Hello(_)
                    | HandshakeError::OtherPeer(_)
                    | HandshakeError::OtherSwarm
                    | HandshakeError::Closed => self.counters.refused_handshake.add(1),
                }
                log::debug!("no neighbor in a swarm at {from}: {trouble}");
                None
            }
        }
    }

    fn answer(
        self: &Arc<Self>,
        mut connection: RawConnection,
        may_be_sealed: bool,
    ) -> Result<(Arc<SwarmTask>, OpenConnection), HandshakeError> {
        let deadline = self.clock.now().mono.after(self.limits.handshake_timeout);
        let _ = connection.stream().set_nodelay(true);
        let sealed = match self.keys.as_ref().filter(|_| may_be_sealed) {
            None => None,
            Some(keys) => {
                let mut timed = DeadlineStream::new(&mut connection, &self.clock, deadline);
                Some(sealed::answer(&mut timed, keys).map_err(HandshakeError::Key)?)
            }
        };
        let mut half_open = HalfOpenConnection::new(self, connection, sealed);
        // Some programs wait for the other handshake although they are the callers.
        let early = self.only_room();
        if let Some(task) = &early {
            half_open.write_handshake(
                &Handshake { peer: task.me(), share: None },
                (&self.clock, deadline),
            )?;
        }
        // If the assignment's is the only swarm, anything may stand in the spare bytes.
        let expect = early.is_some().then_some(Expect::Assignment);
        let hello = half_open.read_handshake(expect, (&self.clock, deadline))?;
        let task = self.task(hello.share.as_ref()).ok_or(HandshakeError::OtherSwarm)?;
        if early.is_none() {
            let answer = Handshake { peer: task.me(), share: hello.share };
            half_open.write_handshake(&answer, (&self.clock, deadline))?;
        }
        let peer = hello.peer_among(|peer| task.knows(peer));
        Ok((task, half_open.open(peer)))
    }
}

impl SwarmTask {
    /// Calls a peer, on a thread of its own, which then reads the connection.
    pub(super) fn dial(self: &Arc<Self>, place: PeerAddrId, addrs: Vec<SocketAddr>) {
        let task = Arc::clone(self);
        let port = addrs.first().map_or(0, SocketAddr::port);
        let spawned = self.threads.spawn(format!("call:{port}"), move || {
            let Some(permit) = task.shared().sit(None) else {
                let reason = HandshakeError::Closed.to_string();
                task.submit(Input::DialFailed(DialFailure { place, reason }));
                return;
            };
            match task.call(place, &addrs) {
                Ok(connection) => task.converse(connection, Some(place)),
                Err(trouble) => {
                    // Before the machine learns of the failure: it may call again.
                    drop(permit);
                    task.submit(Input::DialFailed(DialFailure {
                        place,
                        reason: trouble.to_string(),
                    }));
                }
            }
        });
        if spawned.is_err() {
            let reason = HandshakeError::Closed.to_string();
            // Not from here: the machine may call again at once, and again.
            let jobs = self.step(Input::DialFailed(DialFailure { place, reason }));
            self.stores().store(jobs);
        }
    }

    fn call(
        self: &Arc<Self>,
        place: PeerAddrId,
        addrs: &[SocketAddr],
    ) -> Result<OpenConnection, HandshakeError> {
        let mut last = HandshakeError::Io(ErrorKind::AddrNotAvailable.into());
        for addr in addrs {
            match self.call_at(place, *addr) {
                Ok(connection) => return Ok(connection),
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }

    fn call_at(
        self: &Arc<Self>,
        place: PeerAddrId,
        addr: SocketAddr,
    ) -> Result<OpenConnection, HandshakeError> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        let stream = Arc::new(TcpStream::from(socket));
        let number = self.pending.admit_dial(&stream).ok_or(HandshakeError::Closed)?;
        let outcome = self.call_over(place, addr, Arc::clone(&stream));
        if self.pending.leave(number) { outcome } else { Err(HandshakeError::Closed) }
    }

    fn call_over(
        self: &Arc<Self>,
        place: PeerAddrId,
        addr: SocketAddr,
        stream: Arc<TcpStream>,
    ) -> Result<OpenConnection, HandshakeError> {
        let shared = self.shared();
        SockRef::from(&*stream).connect_timeout(&addr.into(), shared.limits.dial_timeout)?;
        // If no process listens on a port that the system also hands out to callers, it may hand
        // out that very port: the socket is then connected with itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(HandshakeError::Io(ErrorKind::ConnectionRefused.into()));
        }
        let deadline = shared.clock.now().mono.after(shared.limits.handshake_timeout);
        let _ = stream.set_nodelay(true);
        let mut connection = RawConnection::new(stream, Vec::new(), addr);
        let sealed = match &shared.keys {
            None => None,
            Some(keys) => {
                let mut timed = DeadlineStream::new(&mut connection, &shared.clock, deadline);
                Some(sealed::call(&mut timed, &keys.used()).map_err(HandshakeError::Key)?)
            }
        };
        let mut half_open = HalfOpenConnection::new(shared, connection, sealed);
        let hello = Handshake { peer: self.me(), share: self.share() };
        half_open.write_handshake(&hello, (&shared.clock, deadline))?;
        let expect = if self.share().is_some() { Expect::Share } else { Expect::Assignment };
        let answer = half_open.read_handshake(Some(expect), (&shared.clock, deadline))?;
        if answer.share != self.share() {
            return Err(HandshakeError::OtherSwarm);
        }
        // In the assignment, a called peer is known by number.
        let peer = answer.peer_among(|peer| peer.0 == place.0);
        if self.share().is_none() && peer.0 != place.0 {
            return Err(HandshakeError::OtherPeer(peer));
        }
        Ok(half_open.open(peer))
    }
}

/// A connection in the middle of its handshake.
struct HalfOpenConnection {
    connection: OpenConnection,
}

impl HalfOpenConnection {
    fn new(shared: &Arc<Shared>, connection: RawConnection, sealed: Option<Sealed>) -> Self {
        let stream = connection.share_stream();
        let (sealer, opener) = sealed.map(|it| (it.sealer, it.opener)).unzip();
        let input = Limited::new(connection, shared, opener);
        Self { connection: OpenConnection { input, stream, sealer, peer: PeerId(0) } }
    }

    fn write_handshake(
        &mut self,
        hello: &Handshake,
        (clock, deadline): (&Clock, Time),
    ) -> Result<(), HandshakeError> {
        let OpenConnection { stream, sealer, .. } = &mut self.connection;
        stream.set_write_timeout(Some(left(clock, deadline)?))?;
        super::link::send(stream, sealer, &hello.encode(), false)?;
        Ok(())
    }

    /// Reads a handshake: one of the expected kind, or one of either.
    fn read_handshake(
        &mut self,
        expect: Option<Expect>,
        (clock, deadline): (&Clock, Time),
    ) -> Result<Handshake, HandshakeError> {
        let OpenConnection { input, stream, .. } = &mut self.connection;
        let mut bytes = Vec::new();
        let mut kind = expect.unwrap_or(Expect::Assignment);
        loop {
            let known = bytes.len();
            let wanted = handshake::expected_bytes(kind);
            bytes.resize(wanted, 0);
            stream.set_read_timeout(Some(left(clock, deadline)?))?;
            match input.read(&mut bytes[known..]) {
                Ok(0) => return Err(HandshakeError::Io(ErrorKind::UnexpectedEof.into())),
                Ok(len) => bytes.truncate(known + len),
                Err(err) if err.kind() == ErrorKind::Interrupted => bytes.truncate(known),
                Err(err) => return Err(err.into()),
            }
            let decoded = Handshake::decode(&bytes, kind).map_err(HandshakeError::Hello)?;
            let Some(found) = decoded else { continue };
            // The mark of a share among the spare bytes: more is to come.
            let is_marked = handshake::names_share(&bytes);
            if expect.is_none() && kind == Expect::Assignment && is_marked {
                kind = Expect::Share;
                continue;
            }
            return Ok(found);
        }
    }

    fn open(self, peer: PeerId) -> OpenConnection {
        OpenConnection { peer, ..self.connection }
    }
}

fn left(clock: &Clock, deadline: Time) -> io::Result<Duration> {
    let left = deadline.since(clock.now().mono);
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A connection that fails at a deadline, in both directions.
struct DeadlineStream<'a> {
    connection: &'a mut RawConnection,
    clock: &'a Clock,
    deadline: Time,
}

impl<'a> DeadlineStream<'a> {
    fn new(connection: &'a mut RawConnection, clock: &'a Clock, deadline: Time) -> Self {
        Self { connection, clock, deadline }
    }
}

impl Read for DeadlineStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = left(self.clock, self.deadline)?;
        self.connection.stream().set_read_timeout(Some(left))?;
        self.connection.read(buf)
    }
}

impl Write for DeadlineStream<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let left = left(self.clock, self.deadline)?;
        self.connection.stream().set_write_timeout(Some(left))?;
        self.connection.stream().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
