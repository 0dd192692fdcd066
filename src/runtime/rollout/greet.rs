//! Handshakes, on accepted connections and on calls, each within a deadline.
//!
//! [`Greeting`] states the messages. The machine decides whether a caller may bear its name.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::engine::Shared;
use super::link::Ends;
use super::seek::Call;
use crate::model::{Binding, Nonce, Time};
use crate::proto::dialect::Dialect;
use crate::proto::rollout::{
    Enroll, EnrollAck, EnrollNack, Form, Greeting, Participant, ReadError, Reader,
};
use crate::proto::sealed::{self, HandshakeError, Incoming, Sealed, Sealer};
use crate::runtime::driver::options::{Connection, Serve};
use crate::runtime::inbox::Closed;
use crate::runtime::line::Line;
use crate::runtime::porter::{connect, hear_opening};
use crate::runtime::timed::Timed;

/// Size of each reader's buffer, in bytes.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Longest reason that is passed on, in characters.
const REASON_CHARS_MAX: usize = 300;

/// Reason for which a handshake failed.
#[derive(Debug)]
pub(super) enum Trouble {
    Io(io::Error),
    Key(HandshakeError),
    Dialect(Dialect),
    /// The other end refused, for this reason.
    Refused(String),
    /// This end refuses the other, for this reason.
    Refuses(String),
    /// This end is stopping, or has no room.
    Closed,
}

impl Trouble {
    /// True if an end has refused the other, so that trying again changes nothing.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Refuses(_) | Self::Key(_))
    }
}

impl fmt::Display for Trouble {
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
            Self::Refused(reason) => write!(f, "it refuses: {reason}"),
            Self::Refuses(reason) => write!(f, "it was refused: {reason}"),
            Self::Closed => f.write_str("there is no room here for more connections"),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

impl From<ReadError> for Trouble {
    fn from(err: ReadError) -> Self {
        match err {
            ReadError::Io(err) => Self::Io(err),
            ReadError::TooLong
            | ReadError::Empty
            | ReadError::Truncated
            | ReadError::Malformed { .. } => Self::Refuses(err.to_string()),
        }
    }
}

impl From<Closed> for Trouble {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

/// Other end of an accepted connection.
pub(super) enum Caller {
    /// A node that has proved its key.
    Node(Box<Ends>),
    /// An end whose dialect another server serves.
    Guest(Arc<dyn Serve>, Connection),
}

/// Connection in the handshake.
struct Parley {
    input: Reader<Incoming<Timed>>,
    form: Form,
    deadline: Arc<AtomicU64>,
    stream: Arc<TcpStream>,
    sealer: Option<Sealer>,
    binding: Option<Binding>,
}

impl Parley {
    fn new(timed: Timed, form: Form, sealed: Option<Sealed>) -> Self {
        let (stream, deadline) = (timed.stream(), timed.deadline());
        let (sealer, opener, binding) = match sealed {
            None => (None, None, None),
            Some(it) => (Some(it.sealer), Some(it.opener), Some(it.binding)),
        };
        let input = Reader::new(form, Incoming::new(timed, READ_BUFFER_BYTES, opener));
        Self { input, form, deadline, stream, sealer, binding }
    }

    fn say(&mut self, greeting: &Greeting) -> io::Result<()> {
        let bytes = self.form.enclose(&json_of(greeting));
        let sealed = self.sealer.as_mut().map(|sealer| sealer.seal(&bytes));
        // Some kilobytes at the beginning of a connection: they always fit.
        (&*self.stream).write_all(sealed.as_deref().unwrap_or(&bytes))
    }

    fn hear(&mut self) -> Result<Greeting, Trouble> {
        let Some(json) = self.input.read_text()? else {
            return Err(Trouble::Io(ErrorKind::UnexpectedEof.into()));
        };
        let wrong = |err: serde_json::Error| {
            Trouble::Refuses(
                format!("not a greeting: {err}").chars().take(REASON_CHARS_MAX).collect(),
            )
        };
        serde_json::from_slice(json).map_err(wrong)
    }

    fn ends(self, other: Participant, enroll: Option<Enroll>, ack: Option<EnrollAck>) -> Ends {
        let Self { input, form, deadline, stream, sealer, .. } = self;
        Ends { input, form, deadline, stream, sealer, other, enroll, ack }
    }
}

fn json_of(greeting: &Greeting) -> Vec<u8> {
    serde_json::to_vec(greeting)
        .expect("greetings are plain data with text keys, which always have a JSON form")
}

fn refuses(reason: &str) -> Trouble {
    Trouble::Refuses(reason.to_owned())
}

fn nack(reason: &str) -> Greeting {
    Greeting::EnrollNack(EnrollNack { reason: reason.to_owned() })
}

impl Shared {
    /// Tells the other end of a connection the fault of its message.
    pub(super) fn refuse(&self, line: &Line, form: Form, reason: &str) {
        // With a cluster key the machine's thread seals all that is sent, so no other thread may
        // write.
        if self.keys.is_none() {
            let _ = line.send(form.enclose(&json_of(&nack(reason))));
        }
    }

    /// Does the handshake of an accepted connection. None if it failed, which is counted.
    pub(super) fn greet(&self, connection: Connection, told: Option<Dialect>) -> Option<Caller> {
        let from = connection.from();
        let deadline = self.clock.now().mono.after(self.limits.handshake_timeout);
        let _ = connection.stream().set_nodelay(true);
        match self.answer(connection, told, deadline) {
            Ok(caller) => Some(caller),
            Err(trouble) => {
                match &trouble {
                    Trouble::Io(_) => self.counters.refused_silent.add(1),
                    Trouble::Key(_) => self.counters.refused_key.add(1),
                    Trouble::Dialect(_) => self.counters.refused_dialect.add(1),
                    Trouble::Refused(_) | Trouble::Refuses(_) | Trouble::Closed => {
                        self.counters.refused_handshake.add(1);
                    }
                }
                log::debug!("a connection from {from} came to nothing: {trouble}");
                None
            }
        }
    }

    fn answer(
        &self,
        connection: Connection,
        told: Option<Dialect>,
        deadline: Time,
    ) -> Result<Caller, Trouble> {
        let (connection, dialect) = match told {
            Some(dialect) => (connection, dialect),
            None => hear_opening(connection, self.clock, deadline)?,
        };
        if let Some(server) = self.guests.get(&dialect) {
            return Ok(Caller::Guest(Arc::clone(server), connection));
        }
        let mut timed = Timed::new(connection, self.clock, deadline);
        let form = if dialect == Dialect::Framed { Form::Frame } else { Form::Line };
        let sealed = match (dialect, &self.keys) {
            (Dialect::Rollout | Dialect::Framed, None) => None,
            (Dialect::Sealed, Some(keys)) => {
                Some(sealed::answer(&mut timed, keys).map_err(Trouble::Key)?)
            }
            (Dialect::Rollout | Dialect::Framed, Some(_)) => {
                let reason = "this node listens to holders of its cluster key only: use \
                              --cluster-key FILE";
                let _ = timed.write_all(&form.enclose(&json_of(&nack(reason))));
                return Err(Trouble::Key(HandshakeError::WrongKey));
            }
            (Dialect::Native | Dialect::Unknown, _) => {
                let reason = "a connection begins with ENROLL";
                let _ = timed.write_all(&form.enclose(&json_of(&nack(reason))));
                return Err(Trouble::Dialect(dialect));
            }
            (other, _) => return Err(Trouble::Dialect(other)),
        };
        let mut parley = Parley::new(timed, form, sealed);
        match self.try_caller(&mut parley) {
            Ok(enroll) => {
                let ends = parley.ends(enroll.caller.clone(), Some(enroll), None);
                Ok(Caller::Node(Box::new(ends)))
            }
            Err(trouble) => {
                if let Trouble::Refuses(reason) = &trouble {
                    let _ = parley.say(&nack(reason));
                }
                Err(trouble)
            }
        }
    }

    fn try_caller(&self, parley: &mut Parley) -> Result<Enroll, Trouble> {
        let Greeting::Enroll(enroll) = parley.hear()? else {
            return Err(refuses("a connection begins with ENROLL"));
        };
        let challenge =
            enroll.challenge(&self.me.node_id, &self.keys_of_mine, self.nonce(), parley.binding);
        parley.say(&Greeting::EnrollChallenge(challenge.clone()))?;
        let Greeting::EnrollProof(proof) = parley.hear()? else {
            return Err(refuses("an ENROLL_CHALLENGE is answered by ENROLL_PROOF"));
        };
        if !enroll.is_proved_by(&proof, &challenge, parley.binding) {
            return Err(refuses("the proof is not the key's"));
        }
        let caller = enroll.caller.clone();
        let answer = self.ask(move |stage| stage.admits(&caller))?;
        let genesis = answer.map_err(Trouble::Refuses)?;
        parley.say(&Greeting::EnrollAck(Box::new(EnrollAck { genesis })))?;
        Ok(enroll)
    }

    /// Calls a node, or any node that listens at an address, and does the handshake.
    pub(super) fn call(&self, addr: SocketAddr, call: &Call) -> Result<Ends, Trouble> {
        let talk = |stream| self.call_over(addr, call, stream);
        let outcome = connect(&self.porter.lobby, addr, self.limits.dial_timeout, talk);
        outcome.ok_or(Trouble::Closed)??
    }

    fn call_over(
        &self,
        addr: SocketAddr,
        call: &Call,
        stream: Arc<TcpStream>,
    ) -> Result<Ends, Trouble> {
        let deadline = self.clock.now().mono.after(self.limits.handshake_timeout);
        let _ = stream.set_nodelay(true);
        let mut timed = Timed::new(Connection::new(stream, Vec::new(), addr), self.clock, deadline);
        let sealed = match &self.keys {
            None => None,
            Some(keys) => Some(sealed::call(&mut timed, &keys.used()).map_err(Trouble::Key)?),
        };
        let mut parley = Parley::new(timed, Form::Line, sealed);
        let enroll = Enroll { caller: self.me.clone(), nonce: self.nonce(), joins: call.joins };
        parley.say(&Greeting::Enroll(enroll.clone()))?;
        let answer = parley.hear()?;
        let Greeting::EnrollChallenge(challenge) = answer else { return Err(unexpected(&answer)) };
        let node = &challenge.node_id;
        if let Some(wanted) = call.node.as_ref().filter(|it| *it != node) {
            return Err(Trouble::Refuses(format!("{node} answers where {wanted} should")));
        }
        if challenge.key == self.me.key {
            return Err(refuses("it is this node itself"));
        }
        if call.key.is_some_and(|key| key != challenge.key) {
            return Err(Trouble::Refuses(format!("{node} has another key now")));
        }
        if !enroll.is_answered_by(&challenge, parley.binding) {
            return Err(Trouble::Refuses(format!("{node} does not prove its key")));
        }
        let proof = enroll.prove(&self.keys_of_mine, &challenge, parley.binding);
        parley.say(&Greeting::EnrollProof(proof))?;
        let answer = parley.hear()?;
        let Greeting::EnrollAck(ack) = answer else { return Err(unexpected(&answer)) };
        let (node_id, key) = (challenge.node_id, challenge.key);
        let other = Participant { node_id, host: addr.ip().to_string(), port: addr.port(), key };
        let asked = other.clone();
        // The node that was called must own its name too.
        self.ask(move |stage| stage.admits(&asked))?.map_err(Trouble::Refuses)?;
        Ok(parley.ends(other, None, Some(*ack)))
    }

    fn nonce(&self) -> Nonce {
        Nonce::random(&mut self.rng.lock().expect("nothing under this lock can panic"))
    }
}

fn unexpected(greeting: &Greeting) -> Trouble {
    if let Greeting::EnrollNack(EnrollNack { reason }) = greeting {
        return Trouble::Refused(reason.chars().take(REASON_CHARS_MAX).collect());
    }
    refuses("it says something else in the handshake")
}
