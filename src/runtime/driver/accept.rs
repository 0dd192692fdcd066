//! The acceptor, and each accepted connection until its dialect is known.
//!
//! Invariants:
//! - The machine never learns of a connection that has not opened in the native dialect and passed
//!   the key check: silent ones cost a thread for a bounded time, and there is a bound to their
//!   number.
//! - No failure of one connection, and no lack of descriptors or threads, ends the acceptor.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::key_check::KeyCheckOutcome;
use super::link::CheckedConnection;
use super::options::{RawConnection, places_of_callers};
use super::pending::{busy_line, turn_away};
use super::{Drivable, Driver};
use crate::machine::{Input, Never, NodeOpening};
use crate::model::Time;
use crate::proto::dialect::{Detection, Dialect, OPENING_BYTES_MAX, detect};
use crate::proto::sealed::Sealed;
use crate::runtime::engine::acceptor::accept_loop;

/// After so long without a failure to accept, the next one is news again and is logged.
const TROUBLE_PAUSE: Duration = Duration::from_secs(60);

/// Pause before closed silent connections are logged again.
const CROWD_PAUSE: Duration = Duration::from_secs(60);

/// Result of the wait for a connection's first bytes.
enum Opening {
    /// The dialect is known, by these bytes, which are part of the conversation.
    Heard(Dialect, Vec<u8>),
    /// The other end closed first.
    Left,
    /// The deadline passed, or the connection failed.
    Silent,
}

/// Destination of a connection after its opening.
enum Route {
    /// A link, in frames or in plain lines.
    Link(RawConnection, Option<Sealed>),
    /// A guest of another dialect.
    Guest(Dialect, RawConnection),
    /// The other end closed first.
    Left,
    /// The deadline passed, or the connection failed.
    Silent,
    /// The connection was refused by the key check, and counted there.
    Refused,
}

/// Number of silent connections closed to make room, and the time when it was last logged.
#[derive(Default)]
struct EvictionLog {
    said: Option<Time>,
    closed: u64,
}

impl EvictionLog {
    /// Counts a closed connection; returns the number since the last log line, if it is to be
    /// logged now.
    fn closed_one(&mut self, now: Time) -> Option<u64> {
        self.closed += 1;
        if self.said.is_some_and(|last| now.since(last) < CROWD_PAUSE) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.closed))
    }
}

impl<M: Drivable> Driver<M> {
    /// Accepts connections until `stopping` is disconnected.
    pub(super) fn accept_loop(
        self: &Arc<Self>,
        listener: &TcpListener,
        stopping: &Receiver<Never>,
    ) {
        let mut last_trouble: Option<Time> = None;
        let mut crowd = EvictionLog::default();
        let receive = |stream, from| self.receive(stream, from, &mut crowd);
        accept_loop(listener, stopping, receive, |err| {
            self.counters.accept_errors.add(1);
            let now = self.clock.now().mono;
            if last_trouble.is_none_or(|last| now.since(last) > TROUBLE_PAUSE) {
                log::error!("cannot accept connections: {err}; will keep trying");
            }
            last_trouble = Some(now);
            if self.pending.evict_one() {
                self.counters.refused_crowded.add(1);
            }
        });
    }

    /// Gives a new connection a thread, or closes it if there is no room.
    fn receive(self: &Arc<Self>, stream: TcpStream, from: SocketAddr, crowd: &mut EvictionLog) {
        let Some(permit) = self.connections.enter(places_of_callers(self.limits.links_max)) else {
            self.counters.refused_full.add(1);
            return turn_away(&stream, &busy_line());
        };
        let stream = Arc::new(stream);
        let Some((number, evicted)) =
            self.pending.admit(&stream, from.ip(), self.limits.silent_max)
        else {
            return;
        };
        if let Some(evicted) = evicted {
            self.counters.refused_crowded.add(1);
            turn_away(&evicted, &busy_line());
            if let Some(closed) = crowd.closed_one(self.clock.now().mono) {
                log::warn!(
                    "closed {closed} silent connection{} to make room for new ones, this one for \
                     {}; find the source, or raise --silent-max",
                    if closed == 1 { "" } else { "s" },
                    from.ip(),
                );
            }
        }
        let (driver, accepted) = (Arc::clone(self), Arc::clone(&stream));
        let spawned = self.threads.spawn(format!("read:{}", from.port()), move || {
            driver.shake_hands(number, accepted, from);
            drop(permit);
        });
        if let Err(err) = spawned {
            log::debug!("no thread for a connection from {from}: {err}");
            self.pending.leave(number);
            self.counters.refused_full.add(1);
            turn_away(&stream, &busy_line());
        }
    }

    /// Detects the dialect of a connection and serves it to its end.
    fn shake_hands(self: &Arc<Self>, number: u64, stream: Arc<TcpStream>, from: SocketAddr) {
        let course = self.set_course(stream, from);
        let is_ours = self.pending.has_spoken(number);
        match course {
            // The connection was closed to make room, and counted then.
            _ if !is_ours => {}
            Route::Link(connection, sealed) => self.serve_native(number, connection, sealed),
            Route::Guest(dialect, connection) => self.serve_other(dialect, connection),
            Route::Left => self.counters.left_silent.add(1),
            Route::Silent => self.counters.refused_silent.add(1),
            Route::Refused => {}
        }
        self.pending.leave(number);
    }

    /// Detects the dialect and leads the connection through the key check. Until then it counts as
    /// silent, so that half a handshake holds no more than no byte at all.
    fn set_course(self: &Arc<Self>, stream: Arc<TcpStream>, from: SocketAddr) -> Route {
        let deadline = self.clock.now().mono.after(self.limits.handshake_timeout);
        let (dialect, bytes) = match self.read_opening(&stream, deadline) {
            Opening::Heard(dialect, bytes) => (dialect, bytes),
            Opening::Left => return Route::Left,
            Opening::Silent => return Route::Silent,
        };
        let connection = RawConnection::new(stream, bytes, from);
        let outcome = match dialect {
            Dialect::Native => self.pass_plain(connection, deadline),
            Dialect::Sealed => self.pass_sealed(connection, deadline),
            // These dialects are plain: a caller that proves no key is refused here.
            Dialect::Chat
            | Dialect::Order
            | Dialect::Rollout
            | Dialect::Framed
            | Dialect::Swarm
                if self.key_check.keys().is_some() =>
            {
                self.counters.refused_keyless.add(1);
                let (from, name) = (connection.from(), dialect.name());
                log::debug!("closed a connection from {from}: {name}, without a cluster key");
                return Route::Refused;
            }
            Dialect::Chat
            | Dialect::Order
            | Dialect::Rollout
            | Dialect::Framed
            | Dialect::Swarm
            | Dialect::Http
            | Dialect::Unknown => {
                return Route::Guest(dialect, connection);
            }
        };
        match outcome {
            KeyCheckOutcome::Open(connection, sealed) => Route::Link(connection, sealed),
            KeyCheckOutcome::Refused => Route::Refused,
            KeyCheckOutcome::Left => Route::Left,
            KeyCheckOutcome::Silent => Route::Silent,
        }
    }

    fn read_opening(&self, mut stream: &TcpStream, deadline: Time) -> Opening {
        let mut bytes = vec![0; OPENING_BYTES_MAX];
        let mut heard = 0;
        loop {
            let left = deadline.since(self.clock.now().mono);
            if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
                return Opening::Silent;
            }
            match stream.read(&mut bytes[heard..]) {
                Ok(0) => return Opening::Left,
                Ok(len) => heard += len,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Opening::Silent,
            }
            if let Detection::Is(dialect) = detect(&bytes[..heard]) {
                bytes.truncate(heard);
                return Opening::Heard(dialect, bytes);
            }
        }
    }

    fn serve_native(
        self: &Arc<Self>,
        number: u64,
        connection: RawConnection,
        sealed: Option<Sealed>,
    ) {
        let from = connection.from();
        // Without this, small messages would wait for the acknowledgment of earlier ones.
        let _ = connection.stream().set_nodelay(true);
        let is_other_key = sealed.as_ref().is_some_and(|it| it.is_other_key);
        let connection = CheckedConnection::new(connection, sealed, None);
        let binding = connection.binding();
        let hello = |link| Input::Opened {
            link,
            opening: NodeOpening::Accepted { from: from.ip(), binding },
        };
        match self.open_link(connection, hello) {
            Ok(opened) => {
                self.pending.leave(number);
                self.counters.links_accepted.add(1);
                self.counters.links_second_key.add(is_other_key.into());
                self.read_link(opened);
            }
            Err(err) => {
                log::debug!("no link for a connection from {from}: {err}");
                self.counters.refused_full.add(1);
            }
        }
    }

    fn serve_other(&self, dialect: Dialect, connection: RawConnection) {
        if let Some(server) = self.dialects.get(dialect) {
            let _ = connection.stream().set_read_timeout(None);
            server.serve(connection);
        } else {
            let from = connection.from();
            log::debug!("closed a connection from {from}: {} is not served", dialect.name());
            self.counters.refused_dialect.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_told_once_a_minute_with_all_that_were_closed_since() {
        let mut crowd = EvictionLog::default();
        let at = |secs| Time::default().after(Duration::from_secs(secs));
        assert_eq!(crowd.closed_one(at(1)), Some(1));
        for _ in 0..2_487 {
            assert_eq!(crowd.closed_one(at(2)), None);
        }
        assert_eq!(crowd.closed_one(at(60)), None);
        assert_eq!(crowd.closed_one(at(61)), Some(2_489));
        assert_eq!(crowd.closed_one(at(62)), None);
    }
}
