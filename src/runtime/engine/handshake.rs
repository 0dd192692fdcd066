//! Handshakes, on accepted connections and on calls, each within a deadline: both ends prove their
//! keys by signing all that both have sent, so that no proof can be replayed to another node; on an
//! encrypted connection that includes its binding. The words are the dialect's.

use crate::model::Binding;
use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::acceptor::{connect, read_opening};
use super::core_queue::Closed;
use super::link::AuthenticatedConnection;
use super::service::{HandshakeDialect, Service};
use super::shared::Shared;
use super::timed::DeadlineStream;
use crate::model::{PublicKey, Time};
use crate::proto::dialect::Dialect;
use crate::proto::sealed::{self, PlainOrSealed, SealError as KeyError, Sealed, Sealer};
use crate::runtime::driver::options::{RawConnection, ServeConnection};

/// Buffer size of each reader: most messages are short, and a batch passes through it quickly.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Reason why a handshake failed. `C` is the reason of a refusal, for programs.
#[derive(Debug)]
pub(in crate::runtime) enum HandshakeError<C> {
    Io(io::Error),
    Key(KeyError),
    Dialect(Dialect),
    /// The other end refused, for this reason; with the key, if it has proved one.
    Refused(C, String, Option<PublicKey>),
    /// This end refuses the other, for this reason.
    Refuses(C, String),
    /// The name of the other end has no address.
    NoAddress,
    /// This end is stopping, or has no room.
    Closed,
}

impl<C> HandshakeError<C> {
    /// True if trying again changes nothing.
    pub(in crate::runtime) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(..) | Self::Refuses(..) | Self::Key(_) | Self::NoAddress)
    }
}

impl<C> fmt::Display for HandshakeError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(err) if matches!(err.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                f.write_str("no answer in time")
            }
            Self::Io(err) if err.kind() == ErrorKind::UnexpectedEof => {
                f.write_str("connected, but hung up on")
            }
            Self::Io(err) => err.fmt(f),
            Self::Key(err) => err.fmt(f),
            Self::Dialect(dialect) => write!(f, "it speaks {}", dialect.name()),
            Self::Refused(_, reason, _) => write!(f, "it refuses: {reason}"),
            Self::Refuses(_, reason) => write!(f, "it was refused: {reason}"),
            Self::NoAddress => f.write_str("this name has no address"),
            Self::Closed => f.write_str("there is no room here for more connections"),
        }
    }
}

impl<C> From<io::Error> for HandshakeError<C> {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

impl<C> From<Closed> for HandshakeError<C> {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

/// Other end of an accepted connection.
pub(in crate::runtime) enum Caller<S: Service> {
    /// An end that has proved its key.
    Peer(Box<AuthenticatedConnection<S>>),
    /// An end whose dialect another server serves.
    Guest(Arc<dyn ServeConnection>, RawConnection),
}

/// Connection whose ends are still to prove their keys.
pub(in crate::runtime) struct Handshake<D: HandshakeDialect> {
    /// Binding of the connection, if it is encrypted.
    pub(in crate::runtime) binding: Option<Binding>,
    input: D::Reader,
    form: D::Form,
    deadline: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    stream: Arc<TcpStream>,
    sealer: Option<Sealer>,
}

impl<D: HandshakeDialect> Handshake<D> {
    fn new(timed: DeadlineStream, form: D::Form, sealed: Option<Sealed>) -> Self {
        let (stream, deadline, reads) = (timed.stream(), timed.deadline(), timed.reads());
        let (sealer, opener, binding) = match sealed {
            None => (None, None, None),
            Some(it) => (Some(it.sealer), Some(it.opener), Some(it.binding)),
        };
        let input = D::reader(form, PlainOrSealed::new(timed, READ_BUFFER_BYTES, opener));
        Self { binding, input, form, deadline, reads, stream, sealer }
    }

    /// Sends a message.
    pub(in crate::runtime) fn write_word(&mut self, word: &D::Word) -> io::Result<()> {
        let bytes = D::encode(self.form, word);
        let sealed = self.sealer.as_mut().map(|sealer| sealer.seal(&bytes));
        // Some kilobytes at the beginning of a connection: they always fit.
        (&*self.stream).write_all(sealed.as_deref().unwrap_or(&bytes))
    }

    /// Waits for a message.
    pub(in crate::runtime) fn read_word(&mut self) -> Result<D::Word, HandshakeError<D::Code>> {
        let ended = || HandshakeError::Io(ErrorKind::UnexpectedEof.into());
        D::read_word(&mut self.input)?.ok_or_else(ended)
    }
}

impl<S: Service> Handshake<S> {
    fn ends(self, peer: S::Peer) -> AuthenticatedConnection<S> {
        let Self { input, form, deadline, reads, stream, sealer, .. } = self;
        AuthenticatedConnection { input, form, deadline, reads, stream, sealer, peer }
    }
}

impl<S: Service> Shared<S> {
    /// Does the handshake of an accepted connection. `None` if it failed, which is counted.
    pub(super) fn shake_hands(
        &self,
        connection: RawConnection,
        known_dialect: Option<Dialect>,
    ) -> Option<Caller<S>> {
        let from = connection.from();
        let deadline = self.clock.now().mono.after(self.limits.handshake_timeout);
        let _ = connection.stream().set_nodelay(true);
        match self.answer(connection, known_dialect, deadline) {
            Ok(caller) => Some(caller),
            Err(error) => {
                match &error {
                    HandshakeError::Io(_) => self.counters.refused_silent.add(1),
                    HandshakeError::Key(_) => self.counters.refused_key.add(1),
                    HandshakeError::Dialect(_) => self.counters.refused_dialect.add(1),
                    HandshakeError::Refused(..)
                    | HandshakeError::Refuses(..)
                    | HandshakeError::NoAddress
                    | HandshakeError::Closed => self.counters.refused_handshake.add(1),
                }
                log::debug!("a connection from {from} came to nothing: {error}");
                None
            }
        }
    }

    fn answer(
        &self,
        connection: RawConnection,
        known_dialect: Option<Dialect>,
        deadline: Time,
    ) -> Result<Caller<S>, HandshakeError<S::Code>> {
        let (connection, dialect) = match known_dialect {
            Some(dialect) => (connection, dialect),
            None => read_opening(connection, self.clock, deadline)?,
        };
        // Another port's acceptor has its own servers, this engine among them.
        if known_dialect.is_none()
            && let Some(server) = self.guests.get(dialect)
        {
            return Ok(Caller::Guest(server, connection));
        }
        let mut timed = DeadlineStream::new(connection, self.clock, deadline);
        let form = S::form_of(dialect);
        let (form, sealed) = match (form, dialect, &self.keys) {
            (Some(form), _, None) => (form, None),
            (_, Dialect::Sealed, Some(keys)) => {
                let sealed = sealed::answer(&mut timed, keys).map_err(HandshakeError::Key)?;
                (S::own_form(), Some(sealed))
            }
            (form, dialect, _) => {
                let (words, error) = self.service.turn_away(dialect, form);
                if let Some(words) = words {
                    let _ = timed.write_all(&words);
                }
                return Err(error);
            }
        };
        let mut handshake = Handshake::new(timed, form, sealed);
        match S::identify(self, &mut handshake) {
            Ok(peer) => Ok(Caller::Peer(Box::new(handshake.ends(peer)))),
            Err(error) => {
                if let HandshakeError::Refuses(code, reason) = &error {
                    let _ = handshake.write_word(&self.service.refusal(code, reason));
                }
                Err(error)
            }
        }
    }

    /// Connects to a target at an address, and does the handshake.
    pub(super) fn connect(
        &self,
        addr: SocketAddr,
        target: &S::Target,
    ) -> Result<AuthenticatedConnection<S>, HandshakeError<S::Code>> {
        let talk = |stream| self.introduce(addr, target, stream);
        let outcome = connect(&self.acceptor.pending, addr, self.limits.dial_timeout, talk);
        outcome.ok_or(HandshakeError::Closed)??
    }

    fn introduce(
        &self,
        addr: SocketAddr,
        target: &S::Target,
        stream: Arc<TcpStream>,
    ) -> Result<AuthenticatedConnection<S>, HandshakeError<S::Code>> {
        let deadline = self.clock.now().mono.after(self.limits.handshake_timeout);
        let _ = stream.set_nodelay(true);
        let mut timed =
            DeadlineStream::new(RawConnection::new(stream, Vec::new(), addr), self.clock, deadline);
        let sealed = match &self.keys {
            None => None,
            Some(keys) => {
                Some(sealed::call(&mut timed, &keys.used()).map_err(HandshakeError::Key)?)
            }
        };
        let mut handshake = Handshake::new(timed, S::own_form(), sealed);
        let peer = S::introduce(self, &mut handshake, addr, target)?;
        Ok(handshake.ends(peer))
    }
}
