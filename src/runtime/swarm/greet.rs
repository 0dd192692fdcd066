//! Handshakes, on accepted connections and on calls, each within a deadline.

use crate::proto::swarm::PeerId;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::engine::Shared;
use super::link::{Ends, Limited};
use super::room::Room;
use crate::machine::swarm::{DialFailure, Input, Place};
use crate::model::Time;
use crate::proto::sealed::{self, HandshakeError, Sealed};
use crate::proto::swarm::handshake::{self, Expect, Handshake};
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::Connection;

/// Reason why a handshake failed.
#[derive(Debug)]
enum Trouble {
    Io(io::Error),
    Hello(handshake::HandshakeError),
    Key(HandshakeError),
    /// Another peer answers at the address.
    OtherPeer(PeerId),
    /// The other end is in another swarm.
    OtherSwarm,
    /// This end is stopping, or has no room.
    Closed,
}

impl std::fmt::Display for Trouble {
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

impl From<io::Error> for Trouble {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

fn is_late(err: &io::Error) -> bool {
    matches!(err.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

impl Shared {
    /// Exchanges handshakes with a caller; returns the swarm that it names, and the connection.
    pub(super) fn greet(
        self: &Arc<Self>,
        connection: Connection,
        may_be_sealed: bool,
    ) -> Option<(Arc<Room>, Ends)> {
        let from = connection.from();
        let outcome = self.answer(connection, may_be_sealed);
        match outcome {
            Ok(greeted) => Some(greeted),
            Err(trouble) => {
                match &trouble {
                    Trouble::Io(_) => self.counters.refused_silent.add(1),
                    Trouble::Key(_) => self.counters.refused_key.add(1),
                    Trouble::Hello(_)
                    | Trouble::OtherPeer(_)
                    | Trouble::OtherSwarm
                    | Trouble::Closed => self.counters.refused_handshake.add(1),
                }
                log::debug!("no neighbor in a swarm at {from}: {trouble}");
                None
            }
        }
    }

    fn answer(
        self: &Arc<Self>,
        mut connection: Connection,
        may_be_sealed: bool,
    ) -> Result<(Arc<Room>, Ends), Trouble> {
        let deadline = self.clock.now().mono.after(self.limits.handshake_timeout);
        let _ = connection.stream().set_nodelay(true);
        let sealed = match self.keys.as_ref().filter(|_| may_be_sealed) {
            None => None,
            Some(keys) => {
                let mut timed = Timed::new(&mut connection, &self.clock, deadline);
                Some(sealed::answer(&mut timed, keys).map_err(Trouble::Key)?)
            }
        };
        let mut parting = Parting::new(self, connection, sealed);
        // Some programs wait for the other handshake although they are the callers.
        let early = self.only_room();
        if let Some(room) = &early {
            parting.say(&Handshake { peer: room.me(), share: None }, (&self.clock, deadline))?;
        }
        // If the assignment's is the only swarm, anything may stand in the spare bytes.
        let expect = early.is_some().then_some(Expect::Assignment);
        let hello = parting.hear(expect, (&self.clock, deadline))?;
        let room = self.room(hello.share.as_ref()).ok_or(Trouble::OtherSwarm)?;
        if early.is_none() {
            let answer = Handshake { peer: room.me(), share: hello.share };
            parting.say(&answer, (&self.clock, deadline))?;
        }
        let peer = hello.peer_among(|peer| room.knows(peer));
        Ok((room, parting.ends(peer)))
    }
}

impl Room {
    /// Calls a peer, on a thread of its own, which then reads the connection.
    pub(super) fn dial(self: &Arc<Self>, place: Place, addrs: Vec<SocketAddr>) {
        let room = Arc::clone(self);
        let port = addrs.first().map_or(0, SocketAddr::port);
        let spawned = self.crew.spawn(format!("call:{port}"), move || {
            let Some(seat) = room.shared().sit(None) else {
                let reason = Trouble::Closed.to_string();
                room.submit(Input::DialFailed(DialFailure { place, reason }));
                return;
            };
            match room.call(place, &addrs) {
                Ok(ends) => room.converse(ends, Some(place)),
                Err(trouble) => {
                    // Before the machine learns of the failure: it may call again.
                    drop(seat);
                    room.submit(Input::DialFailed(DialFailure {
                        place,
                        reason: trouble.to_string(),
                    }));
                }
            }
        });
        if spawned.is_err() {
            let reason = Trouble::Closed.to_string();
            // Not from here: the machine may call again at once, and again.
            let jobs = self.step(Input::DialFailed(DialFailure { place, reason }));
            self.stores().store(jobs);
        }
    }

    fn call(self: &Arc<Self>, place: Place, addrs: &[SocketAddr]) -> Result<Ends, Trouble> {
        let mut last = Trouble::Io(ErrorKind::AddrNotAvailable.into());
        for addr in addrs {
            match self.call_at(place, *addr) {
                Ok(ends) => return Ok(ends),
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }

    fn call_at(self: &Arc<Self>, place: Place, addr: SocketAddr) -> Result<Ends, Trouble> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        let stream = Arc::new(TcpStream::from(socket));
        let number = self.lobby.admit_dial(&stream).ok_or(Trouble::Closed)?;
        let outcome = self.call_over(place, addr, Arc::clone(&stream));
        if self.lobby.leave(number) { outcome } else { Err(Trouble::Closed) }
    }

    fn call_over(
        self: &Arc<Self>,
        place: Place,
        addr: SocketAddr,
        stream: Arc<TcpStream>,
    ) -> Result<Ends, Trouble> {
        let shared = self.shared();
        SockRef::from(&*stream).connect_timeout(&addr.into(), shared.limits.dial_timeout)?;
        // If no process listens on a port that the system also hands out to callers, it may hand
        // out that very port: the socket is then connected with itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(Trouble::Io(ErrorKind::ConnectionRefused.into()));
        }
        let deadline = shared.clock.now().mono.after(shared.limits.handshake_timeout);
        let _ = stream.set_nodelay(true);
        let mut connection = Connection::new(stream, Vec::new(), addr);
        let sealed = match &shared.keys {
            None => None,
            Some(keys) => {
                let mut timed = Timed::new(&mut connection, &shared.clock, deadline);
                Some(sealed::call(&mut timed, &keys.used()).map_err(Trouble::Key)?)
            }
        };
        let mut parting = Parting::new(shared, connection, sealed);
        let hello = Handshake { peer: self.me(), share: self.share() };
        parting.say(&hello, (&shared.clock, deadline))?;
        let expect = if self.share().is_some() { Expect::Share } else { Expect::Assignment };
        let answer = parting.hear(Some(expect), (&shared.clock, deadline))?;
        if answer.share != self.share() {
            return Err(Trouble::OtherSwarm);
        }
        // In the assignment, a called peer is known by number.
        let peer = answer.peer_among(|peer| peer.0 == place.0);
        if self.share().is_none() && peer.0 != place.0 {
            return Err(Trouble::OtherPeer(peer));
        }
        Ok(parting.ends(peer))
    }
}

/// A connection in the middle of its handshake.
struct Parting {
    ends: Ends,
}

impl Parting {
    fn new(shared: &Arc<Shared>, connection: Connection, sealed: Option<Sealed>) -> Self {
        let stream = connection.share_stream();
        let (sealer, opener) = sealed.map(|it| (it.sealer, it.opener)).unzip();
        let input = Limited::new(connection, shared, opener);
        Self { ends: Ends { input, stream, sealer, peer: PeerId(0) } }
    }

    fn say(&mut self, hello: &Handshake, (clock, deadline): (&Clock, Time)) -> Result<(), Trouble> {
        let Ends { stream, sealer, .. } = &mut self.ends;
        stream.set_write_timeout(Some(left(clock, deadline)?))?;
        super::link::send(stream, sealer, &hello.encode(), false)?;
        Ok(())
    }

    /// Reads a handshake: one of the expected kind, or one of either.
    fn hear(
        &mut self,
        expect: Option<Expect>,
        (clock, deadline): (&Clock, Time),
    ) -> Result<Handshake, Trouble> {
        let Ends { input, stream, .. } = &mut self.ends;
        let mut bytes = Vec::new();
        let mut kind = expect.unwrap_or(Expect::Assignment);
        loop {
            let known = bytes.len();
            let wanted = handshake::expected_bytes(kind);
            bytes.resize(wanted, 0);
            stream.set_read_timeout(Some(left(clock, deadline)?))?;
            match input.read(&mut bytes[known..]) {
                Ok(0) => return Err(Trouble::Io(ErrorKind::UnexpectedEof.into())),
                Ok(len) => bytes.truncate(known + len),
                Err(err) if err.kind() == ErrorKind::Interrupted => bytes.truncate(known),
                Err(err) => return Err(err.into()),
            }
            let decoded = Handshake::decode(&bytes, kind).map_err(Trouble::Hello)?;
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

    fn ends(self, peer: PeerId) -> Ends {
        Ends { peer, ..self.ends }
    }
}

fn left(clock: &Clock, deadline: Time) -> io::Result<Duration> {
    let left = deadline.since(clock.now().mono);
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A connection that fails at a deadline, in both directions.
struct Timed<'a> {
    connection: &'a mut Connection,
    clock: &'a Clock,
    deadline: Time,
}

impl<'a> Timed<'a> {
    fn new(connection: &'a mut Connection, clock: &'a Clock, deadline: Time) -> Self {
        Self { connection, clock, deadline }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = left(self.clock, self.deadline)?;
        self.connection.stream().set_read_timeout(Some(left))?;
        self.connection.read(buf)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let left = left(self.clock, self.deadline)?;
        self.connection.stream().set_write_timeout(Some(left))?;
        self.connection.stream().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
