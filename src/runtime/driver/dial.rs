//! Connecting to other nodes: a thread for each attempt, which then reads the link it made. With a
//! cluster key, a connection stands only when both ends have proved it.
//!
//! Invariant: each attempt is answered exactly once, and its permit is free before the machine gets
//! the answer.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::counters::Permit;
use super::link::CheckedConnection;
use super::options::RawConnection;
use super::{Drivable, Driver};
use crate::machine::{CallFailure, DialError, DialId, Input, NodeOpening};
use crate::model::{Endpoint, Time};
use crate::proto::sealed::SealError;

/// An attempt to connect, with the permits it needs.
struct DialAttempt {
    ticket: DialId,
    to: Endpoint,
    timeout: Duration,
    /// Held until the attempt is over.
    dialing: Permit,
    /// Held until the connection is over.
    connected: Permit,
}

impl<M: Drivable> Driver<M> {
    /// Starts an attempt, or returns the answer if there is no room for one.
    pub(super) fn start_dial(
        self: &Arc<Self>,
        ticket: DialId,
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
        let attempt = DialAttempt { ticket, to, timeout, dialing, connected };
        let driver = Arc::clone(self);
        let spawned =
            self.threads.spawn(format!("dial:{}", to.port()), move || driver.dial(attempt));
        spawned.is_err().then(|| {
            self.counters.dials_failed.add(1);
            busy
        })
    }

    fn dial(self: &Arc<Self>, attempt: DialAttempt) {
        let DialAttempt { ticket, to, timeout, dialing, connected } = attempt;
        let connection = self.connect(to, timeout);
        drop(dialing);
        let outcome = connection.and_then(|connection| {
            let binding = connection.binding();
            let hello =
                |link| Input::Opened { link, opening: NodeOpening::Dialed { ticket, binding } };
            Ok(self.open_link(connection, hello)?)
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
    fn connect(&self, to: Endpoint, timeout: Duration) -> Result<CheckedConnection, SealError> {
        let deadline = self.clock.now().mono.after(timeout);
        let addr = to.socket_addr();
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        let stream = Arc::new(TcpStream::from(socket));
        let Some(number) = self.pending.admit_dial(&stream) else {
            return Err(io::Error::other("this node is stopping").into());
        };
        let outcome = self.connect_by(to, stream, (timeout, deadline));
        self.pending.leave(number);
        outcome
    }

    fn connect_by(
        &self,
        to: Endpoint,
        stream: Arc<TcpStream>,
        (timeout, deadline): (Duration, Time),
    ) -> Result<CheckedConnection, SealError> {
        SockRef::from(&*stream).connect_timeout(&to.socket_addr().into(), timeout)?;
        // If no process listens on a port that the system also hands out to callers, it may hand
        // out that very port: the socket is then connected with itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::Error::from(ErrorKind::ConnectionRefused).into());
        }
        let _ = stream.set_nodelay(true);
        let mut connection = RawConnection::new(stream, Vec::new(), to.socket_addr());
        let sealed = self.pass_called(&mut connection, deadline)?;
        Ok(CheckedConnection::new(connection, sealed, Some(to)))
    }
}

fn reason(err: &SealError) -> DialError {
    let err = match err {
        SealError::Io(err) => err,
        SealError::WrongKey | SealError::Refused(_) => return DialError::Barred,
        SealError::Garbled => return DialError::Unreachable,
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
