//! The gate: with a cluster key, only its holders become links; without one, only plain lines do.
//!
//! Invariants:
//! - The machine learns of no connection that has not passed: a refused one leaves nothing behind
//!   but a counter.
//! - A refused caller is told the reason in one plain line, and so is this node's operator, but not
//!   again for each attempt.
//! - A handshake has a deadline, for any behavior of the other end.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::options::Connection;
use super::{Drivable, Driver};
use crate::model::{Endpoint, Time};
use crate::proto::line::encode;
use crate::proto::refusal::{ErrorCode, ErrorReply};
use crate::proto::sealed::{self, ClusterKeys, HandshakeError, Sealed};
use crate::runtime::clock::Clock;
use crate::runtime::engine::LINGER;

/// Pause before the same complaint is repeated.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// Largest number of bytes that are read and thrown away after a refusal: a HELLO and more.
const DISCARD_BYTES_MAX: u64 = 1024 * 1024;

/// Longest quote of another node's words in the log, in characters.
const QUOTE_CHARS_MAX: usize = 200;

/// Disagreement between two ends about the cluster key; each has its own complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// A caller uses no key, and this node has one.
    Keyless,
    /// A caller uses another key.
    WrongKey,
    /// A caller uses a key, and this node has none.
    Key,
    /// This node was refused by the node it called.
    Barred,
}

impl Trouble {
    /// Text that the refused caller is sent.
    const fn reply(self) -> &'static str {
        match self {
            Self::Keyless | Self::Barred => {
                "this node listens to holders of its cluster key only: use --cluster-key FILE"
            }
            Self::WrongKey => {
                "this node holds another cluster key: compare the files given to --cluster-key"
            }
            Self::Key => {
                "this node holds no cluster key: start it with --cluster-key FILE, or call without"
            }
        }
    }
}

/// The keys of this node, and its recent complaints.
#[derive(Debug)]
pub(super) struct Gate {
    keys: Option<Arc<ClusterKeys>>,
    complaints: Mutex<BTreeMap<Trouble, Complaint>>,
}

#[derive(Debug)]
struct Complaint {
    at: Time,
    /// Number of complaints held back since.
    held_back: u64,
}

impl Gate {
    pub(super) const fn new(keys: Option<Arc<ClusterKeys>>) -> Self {
        Self { keys, complaints: Mutex::new(BTreeMap::new()) }
    }

    /// Keys of this node, if it has any.
    pub(super) const fn keys(&self) -> Option<&Arc<ClusterKeys>> {
        self.keys.as_ref()
    }

    /// Number of complaints held back since the last one, if it is time for another.
    fn complain(&self, trouble: Trouble, now: Time) -> Option<u64> {
        let mut complaints = self.complaints.lock().expect("nothing under this lock can panic");
        if let Some(last) = complaints.get_mut(&trouble)
            && now.since(last.at) < COMPLAINT_PAUSE
        {
            last.held_back += 1;
            return None;
        }
        let last = complaints.insert(trouble, Complaint { at: now, held_back: 0 });
        Some(last.map_or(0, |last| last.held_back))
    }
}

/// Result of a caller's way through the gate.
pub(super) enum Passage {
    /// The connection may become a link: with frames, or with lines as they are.
    Open(Connection, Option<Sealed>),
    /// The caller was refused, told so, and counted.
    Refused,
    /// The caller left in the middle of the handshake.
    Left,
    /// The handshake took too long, or the connection failed.
    Silent,
}

impl<M: Drivable> Driver<M> {
    /// Lets a caller pass that opened with plain lines.
    pub(super) fn pass_plain(&self, connection: Connection, deadline: Time) -> Passage {
        if self.gate.keys().is_none() {
            return Passage::Open(connection, None);
        }
        self.counters.refused_keyless.add(1);
        self.turn_away(connection, Trouble::Keyless, deadline)
    }

    /// Lets a caller pass that opened with a cluster key, if it is one of this node's.
    pub(super) fn pass_sealed(&self, mut connection: Connection, deadline: Time) -> Passage {
        let Some(keys) = self.gate.keys() else {
            self.counters.refused_key.add(1);
            return self.turn_away(connection, Trouble::Key, deadline);
        };
        let outcome = sealed::answer(&mut self.timed(&mut connection, deadline), keys);
        match outcome {
            Ok(sealed) => Passage::Open(connection, Some(sealed)),
            Err(HandshakeError::WrongKey) => {
                self.counters.refused_wrong_key.add(1);
                self.turn_away(connection, Trouble::WrongKey, deadline)
            }
            Err(HandshakeError::Garbled | HandshakeError::Refused(_)) => {
                self.counters.refused_frame.add(1);
                Passage::Refused
            }
            Err(HandshakeError::Io(err)) => {
                let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                if ends.contains(&err.kind()) { Passage::Left } else { Passage::Silent }
            }
        }
    }

    /// Proves to the called node that this node holds the cluster key, if it has one.
    pub(super) fn pass_called(
        &self,
        connection: &mut Connection,
        deadline: Time,
    ) -> Result<Option<Sealed>, HandshakeError> {
        let Some(keys) = self.gate.keys() else { return Ok(None) };
        let outcome = sealed::call(&mut self.timed(connection, deadline), &keys.used());
        if let Err(HandshakeError::Refused(error)) = &outcome {
            self.was_barred(Endpoint::from(connection.from()), error);
        }
        outcome.map(Some)
    }

    /// Warns the operator that the called node wants another key, or none.
    pub(super) fn was_barred(&self, by: Endpoint, error: &ErrorReply) {
        self.counters.dials_barred.add(1);
        let text = if self.gate.keys().is_some() {
            // The remedy in the answer is in the other node's terms; this node logs its own.
            let said = error.reason.split(':').next().unwrap_or_default();
            let said: String = said.chars().take(QUOTE_CHARS_MAX).collect();
            format!(
                "{by} did not listen to this node; of itself it says: \"{said}\"; give {by} a \
                 --cluster-key file that holds the first key of this node's"
            )
        } else {
            format!(
                "{by} did not listen to this node, which uses no cluster key; start this node \
                 with the --cluster-key FILE of its fleet"
            )
        };
        self.complain(Trouble::Barred, |again| format!("{text}{again}"));
    }

    /// Sends a caller the reason of its refusal.
    fn turn_away(&self, mut connection: Connection, why: Trouble, deadline: Time) -> Passage {
        let from = connection.from().ip();
        let (what, remedy) = match why {
            Trouble::Keyless | Trouble::Barred => {
                ("it uses no cluster key", "if it is one of the fleet, give it --cluster-key FILE")
            }
            Trouble::WrongKey => (
                "it uses another cluster key",
                "if it is one of the fleet, the first key of its file must be in this node's",
            ),
            Trouble::Key => (
                "it uses a cluster key and this node has none",
                "if it is one of the fleet, start this node with --cluster-key FILE",
            ),
        };
        self.complain(why, |again| {
            format!("refused a connection from {from}: {what}; {remedy}{again}")
        });
        let line = encode(&ErrorReply::new(ErrorCode::ClusterKey, why.reply()).into());
        let until = deadline.min(self.clock.now().mono.after(LINGER));
        let mut stream = self.timed(&mut connection, until);
        // A caller that has left, or does not read, has itself to blame.
        if stream.write_all(&line).is_ok() {
            let _ = stream.stream().shutdown(Shutdown::Write);
            // Closing a socket with unread input would reset it, and the line would be lost.
            let _ = io::copy(&mut stream.take(DISCARD_BYTES_MAX), &mut io::sink());
        }
        Passage::Refused
    }

    fn complain(&self, trouble: Trouble, text: impl FnOnce(&str) -> String) {
        let now = self.clock.now().mono;
        let again = match self.gate.complain(trouble, now) {
            None => return,
            Some(0) => String::new(),
            Some(times) => format!(" ({times} times more since this was last said)"),
        };
        log::warn!("{}", text(&again));
    }

    fn timed<'a>(&'a self, connection: &'a mut Connection, deadline: Time) -> Timed<'a> {
        Timed { connection, clock: &self.clock, deadline }
    }
}

/// A connection that fails at a deadline: a byte now and then gains no time.
struct Timed<'a> {
    connection: &'a mut Connection,
    clock: &'a Clock,
    deadline: Time,
}

impl Timed<'_> {
    fn stream(&self) -> &TcpStream {
        self.connection.stream()
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.since(self.clock.now().mono);
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream().set_read_timeout(self.left()?)?;
        self.connection.read(buf)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream().set_write_timeout(self.left()?)?;
        self.stream().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_made_once_a_minute_and_counts_what_was_held_back() {
        let gate = Gate::new(None);
        let at = |secs| Time::default().after(Duration::from_secs(secs));
        assert_eq!(gate.complain(Trouble::Barred, at(1)), Some(0));
        assert_eq!(gate.complain(Trouble::Barred, at(2)), None);
        assert_eq!(gate.complain(Trouble::Keyless, at(2)), Some(0), "each kind for itself");
        assert_eq!(gate.complain(Trouble::Barred, at(60)), None);
        assert_eq!(gate.complain(Trouble::Barred, at(61)), Some(2));
        assert_eq!(gate.complain(Trouble::Barred, at(122)), Some(0));
    }
}
