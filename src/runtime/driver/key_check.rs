//! Check of cluster keys: with a cluster key, only its holders become links; without one, only
//! plain lines do.
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

use super::options::RawConnection;
use super::{Drivable, Driver};
use crate::model::{Endpoint, Time};
use crate::proto::line::encode;
use crate::proto::refusal::{ErrorCode, ErrorReply};
use crate::proto::sealed::{self, ClusterKeys, SealError, Sealed};
use crate::runtime::clock::Clock;
use crate::runtime::engine::LINGER;

/// Pause before the same mismatch is reported again.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

/// Largest number of bytes that are read and thrown away after a refusal: a HELLO and more.
const DISCARD_BYTES_MAX: u64 = 1024 * 1024;

/// Longest quote of another node's words in the log, in characters.
const QUOTE_CHARS_MAX: usize = 200;

/// Disagreement between two ends about the cluster key; each kind is reported by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum KeyMismatch {
    /// A caller uses no key, and this node has one.
    Keyless,
    /// A caller uses another key.
    WrongKey,
    /// A caller uses a key, and this node has none.
    Key,
    /// This node was refused by the node it called.
    Barred,
}

impl KeyMismatch {
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

/// The keys of this node, and its recent mismatches.
#[derive(Debug)]
pub(super) struct KeyCheck {
    keys: Option<Arc<ClusterKeys>>,
    recent: Mutex<BTreeMap<KeyMismatch, RecentMismatch>>,
}

#[derive(Debug)]
struct RecentMismatch {
    at: Time,
    /// Number of reports held back since.
    held_back: u64,
}

impl KeyCheck {
    pub(super) const fn new(keys: Option<Arc<ClusterKeys>>) -> Self {
        Self { keys, recent: Mutex::new(BTreeMap::new()) }
    }

    /// Keys of this node, if it has any.
    pub(super) const fn keys(&self) -> Option<&Arc<ClusterKeys>> {
        self.keys.as_ref()
    }

    /// Number of reports held back since the last one, if it is time for another.
    fn held_back(&self, trouble: KeyMismatch, now: Time) -> Option<u64> {
        let mut recent = self.recent.lock().expect("nothing under this lock can panic");
        if let Some(last) = recent.get_mut(&trouble)
            && now.since(last.at) < REPORT_PAUSE
        {
            last.held_back += 1;
            return None;
        }
        let last = recent.insert(trouble, RecentMismatch { at: now, held_back: 0 });
        Some(last.map_or(0, |last| last.held_back))
    }
}

/// Result of the check of a caller's key.
pub(super) enum KeyCheckOutcome {
    /// The connection may become a link: with frames, or with lines as they are.
    Open(RawConnection, Option<Sealed>),
    /// The caller was refused, told so, and counted.
    Refused,
    /// The caller left in the middle of the handshake.
    Left,
    /// The handshake took too long, or the connection failed.
    Silent,
}

impl<M: Drivable> Driver<M> {
    /// Lets a caller pass that opened with plain lines.
    pub(super) fn pass_plain(&self, connection: RawConnection, deadline: Time) -> KeyCheckOutcome {
        if self.key_check.keys().is_none() {
            return KeyCheckOutcome::Open(connection, None);
        }
        self.counters.refused_keyless.add(1);
        self.turn_away(connection, KeyMismatch::Keyless, deadline)
    }

    /// Lets a caller pass that opened with a cluster key, if it is one of this node's.
    pub(super) fn pass_sealed(
        &self,
        mut connection: RawConnection,
        deadline: Time,
    ) -> KeyCheckOutcome {
        let Some(keys) = self.key_check.keys() else {
            self.counters.refused_key.add(1);
            return self.turn_away(connection, KeyMismatch::Key, deadline);
        };
        let outcome = sealed::answer(&mut self.timed(&mut connection, deadline), keys);
        match outcome {
            Ok(sealed) => KeyCheckOutcome::Open(connection, Some(sealed)),
            Err(SealError::WrongKey) => {
                self.counters.refused_wrong_key.add(1);
                self.turn_away(connection, KeyMismatch::WrongKey, deadline)
            }
            Err(SealError::Garbled | SealError::Refused(_)) => {
                self.counters.refused_frame.add(1);
                KeyCheckOutcome::Refused
            }
            Err(SealError::Io(err)) => {
                let endings = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                if endings.contains(&err.kind()) {
                    KeyCheckOutcome::Left
                } else {
                    KeyCheckOutcome::Silent
                }
            }
        }
    }

    /// Proves to the called node that this node holds the cluster key, if it has one.
    pub(super) fn pass_called(
        &self,
        connection: &mut RawConnection,
        deadline: Time,
    ) -> Result<Option<Sealed>, SealError> {
        let Some(keys) = self.key_check.keys() else { return Ok(None) };
        let outcome = sealed::call(&mut self.timed(connection, deadline), &keys.used());
        if let Err(SealError::Refused(error)) = &outcome {
            self.was_barred(Endpoint::from(connection.from()), error);
        }
        outcome.map(Some)
    }

    /// Warns the operator that the called node wants another key, or none.
    pub(super) fn was_barred(&self, by: Endpoint, error: &ErrorReply) {
        self.counters.dials_barred.add(1);
        let text = if self.key_check.keys().is_some() {
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
        self.report(KeyMismatch::Barred, |again| format!("{text}{again}"));
    }

    /// Sends a caller the reason of its refusal.
    fn turn_away(
        &self,
        mut connection: RawConnection,
        why: KeyMismatch,
        deadline: Time,
    ) -> KeyCheckOutcome {
        let from = connection.from().ip();
        let (what, remedy) = match why {
            KeyMismatch::Keyless | KeyMismatch::Barred => {
                ("it uses no cluster key", "if it is one of the fleet, give it --cluster-key FILE")
            }
            KeyMismatch::WrongKey => (
                "it uses another cluster key",
                "if it is one of the fleet, the first key of its file must be in this node's",
            ),
            KeyMismatch::Key => (
                "it uses a cluster key and this node has none",
                "if it is one of the fleet, start this node with --cluster-key FILE",
            ),
        };
        self.report(why, |again| {
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
        KeyCheckOutcome::Refused
    }

    fn report(&self, trouble: KeyMismatch, text: impl FnOnce(&str) -> String) {
        let now = self.clock.now().mono;
        let again = match self.key_check.held_back(trouble, now) {
            None => return,
            Some(0) => String::new(),
            Some(times) => format!(" ({times} times more since this was last said)"),
        };
        log::warn!("{}", text(&again));
    }

    fn timed<'a>(
        &'a self,
        connection: &'a mut RawConnection,
        deadline: Time,
    ) -> DeadlineStream<'a> {
        DeadlineStream { connection, clock: &self.clock, deadline }
    }
}

/// A connection that fails at a deadline: a byte now and then gains no time.
struct DeadlineStream<'a> {
    connection: &'a mut RawConnection,
    clock: &'a Clock,
    deadline: Time,
}

impl DeadlineStream<'_> {
    fn stream(&self) -> &TcpStream {
        self.connection.stream()
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.since(self.clock.now().mono);
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for DeadlineStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream().set_read_timeout(self.left()?)?;
        self.connection.read(buf)
    }
}

impl Write for DeadlineStream<'_> {
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
        let key_check = KeyCheck::new(None);
        let at = |secs| Time::default().after(Duration::from_secs(secs));
        assert_eq!(key_check.held_back(KeyMismatch::Barred, at(1)), Some(0));
        assert_eq!(key_check.held_back(KeyMismatch::Barred, at(2)), None);
        assert_eq!(
            key_check.held_back(KeyMismatch::Keyless, at(2)),
            Some(0),
            "each kind for itself"
        );
        assert_eq!(key_check.held_back(KeyMismatch::Barred, at(60)), None);
        assert_eq!(key_check.held_back(KeyMismatch::Barred, at(61)), Some(2));
        assert_eq!(key_check.held_back(KeyMismatch::Barred, at(122)), Some(0));
    }
}
