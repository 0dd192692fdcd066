//! Connecting to other nodes: a thread for each attempt, which then reads the link it made. With a
//! cluster key, a connection stands only when both ends have proved it.
//!
//! Invariant: each attempt is answered exactly once, and its seat is free before the machine gets
//! the answer.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::counters::Seat;
use super::link::Ends;
use super::options::Connection;
use super::{Drivable, Driver};
use crate::machine::{CallFailure, DialError, Input, NodeOpening, Ticket};
use crate::model::{Endpoint, Time};
use crate::proto::sealed::HandshakeError;

/// An attempt to connect, with the seats it needs.
struct Attempt {
    ticket: Ticket,
    to: Endpoint,
    timeout: Duration,
    /// Held until the attempt is over.
    dialing: Seat,
    /// Held until the connection is over.
    connected: Seat,
}

impl<M: Drivable> Driver<M> {
    /// Starts an attempt, or returns the answer if there is no room for one.
    pub(super) fn start_dial(
        self: &Arc<Self>,
        ticket: Ticket,
        to: Endpoint,
        timeout: Duration,
    ) -> Option<Input<M>> {
        let busy = Input::DialFailed(CallFailure { ticket, reason: DialError::Busy });
        let dialing = self.dials.enter(self.limits.dials_max);
        let connected = self.connections.enter(self.limits.links_max);
        let (Some(dialing), Some(connected)) = (dialing, connected) else {
            self.counters.dials_failed.add(1);
            return Some(busy);
        };
        let attempt = Attempt { ticket, to, timeout, dialing, connected };
        let driver = Arc::clone(self);
        let spawned = self.crew.spawn(format!("dial:{}", to.port()), move || driver.dial(attempt));
        spawned.is_err().then(|| {
            self.counters.dials_failed.add(1);
            busy
        })
    }

    fn dial(self: &Arc<Self>, attempt: Attempt) {
        let Attempt { ticket, to, timeout, dialing, connected } = attempt;
        let ends = self.connect(to, timeout);
        drop(dialing);
        let outcome = ends.and_then(|ends| {
            let binding = ends.binding();
            let hello =
                |link| Input::Opened { link, opening: NodeOpening::Dialed { ticket, binding } };
            Ok(self.open_link(ends, hello)?)
        });
        match outcome {
            Ok(opened) => {
                self.counters.links_dialed.add(1);
                self.read_link(opened);
            }
            Err(err) => {
                log::debug!("cannot connect to {to}: {err}");
                self.counters.dials_failed.add(1);
                self.submit(Input::DialFailed(CallFailure { ticket, reason: reason(&err) }));
            }
        }
        drop(connected);
    }

    /// Connects and proves the cluster key, in such a way that stopping the node ends the attempt.
    fn connect(&self, to: Endpoint, timeout: Duration) -> Result<Ends, HandshakeError> {
        let deadline = self.clock.now().mono.after(timeout);
        let addr = to.socket_addr();
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        let stream = Arc::new(TcpStream::from(socket));
        let Some(number) = self.lobby.admit_dial(&stream) else {
            return Err(io::Error::other("this node is stopping").into());
        };
        let outcome = self.connect_by(to, stream, (timeout, deadline));
        self.lobby.leave(number);
        outcome
    }

    fn connect_by(
        &self,
        to: Endpoint,
        stream: Arc<TcpStream>,
        (timeout, deadline): (Duration, Time),
    ) -> Result<Ends, HandshakeError> {
        SockRef::from(&*stream).connect_timeout(&to.socket_addr().into(), timeout)?;
        // If no process listens on a port that the system also hands out to callers, it may hand
        // out that very port: the socket is then connected with itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::Error::from(ErrorKind::ConnectionRefused).into());
        }
        let _ = stream.set_nodelay(true);
        let mut connection = Connection::new(stream, Vec::new(), to.socket_addr());
        let sealed = self.pass_called(&mut connection, deadline)?;
        Ok(Ends::new(connection, sealed, Some(to)))
    }
}

fn reason(err: &HandshakeError) -> DialError {
    let err = match err {
        HandshakeError::Io(err) => err,
        HandshakeError::WrongKey | HandshakeError::Refused(_) => return DialError::Barred,
        HandshakeError::Garbled => return DialError::Unreachable,
    };
    let kind = err.kind();
    if kind == ErrorKind::ConnectionRefused {
        DialError::Refused
    } else if matches!(kind, ErrorKind::TimedOut | ErrorKind::WouldBlock) {
        DialError::TimedOut
    } else if is_own_shortage(err) {
        DialError::Busy
    } else if matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    ) {
        DialError::HungUp
    } else {
        DialError::Unreachable
    }
}

/// True if this node has run out of local ports, memory or open files.
fn is_own_shortage(err: &io::Error) -> bool {
    // The process's and the system's limit of open files, for which there is no `ErrorKind`.
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    matches!(err.kind(), ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory)
        || matches!(err.raw_os_error(), Some(EMFILE | ENFILE))
}
