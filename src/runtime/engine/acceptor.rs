//! Acceptor of an engine: accepted connections from their first byte to their handshake.
//!
//! Invariants:
//! - A connection that has not proved a key holds a thread for a bounded time, and there is a bound
//!   to their number; above it the oldest of the address with the most is closed.
//! - No failure of one connection ends the acceptor.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use crate::machine::Never;
use crate::model::Time;
use crate::proto::dialect::{Detection, Dialect, OPENING_BYTES_MAX, detect};
use crate::runtime::clock::Clock;
use crate::runtime::driver::counters::Counter;
use crate::runtime::driver::options::{RawConnection, places_of_callers};
use crate::runtime::driver::pending::{PendingConnections, turn_away};
use crate::runtime::thread::ThreadGroup;

/// Pause after a failure to accept that would at once repeat itself.
const BACKOFF: Duration = Duration::from_millis(100);

/// The threads and sockets of an engine.
#[derive(Debug)]
pub(in crate::runtime) struct Acceptor {
    pub(in crate::runtime) threads: ThreadGroup,
    pub(in crate::runtime) pending: PendingConnections,
    permits: Arc<AtomicUsize>,
    listener_handle: Mutex<Option<ListenerHandle>>,
    silent_max: usize,
    links_max: usize,
}

#[derive(Debug)]
struct ListenerHandle {
    listener: Option<Arc<TcpListener>>,
    open: Sender<Never>,
}

/// Counters of refused connections.
#[derive(Clone, Copy, Debug)]
pub(in crate::runtime) struct RejectionCounters<'a> {
    /// Connections refused for want of room.
    pub(in crate::runtime) full: &'a Counter,
    /// Silent connections closed because there were too many of them.
    pub(in crate::runtime) silent: &'a Counter,
}

impl Acceptor {
    /// An acceptor for at most `silent_max` connections that have not proved a key, and `links_max`
    /// in all.
    pub(in crate::runtime) fn new(silent_max: usize, links_max: usize) -> Self {
        Self {
            threads: ThreadGroup::default(),
            pending: PendingConnections::default(),
            permits: Arc::default(),
            listener_handle: Mutex::new(None),
            silent_max,
            links_max,
        }
    }

    /// Starts to listen, if there is a listener; the returned channel is disconnected by
    /// [`Self::shut`].
    pub(in crate::runtime) fn open(&self, listener: Option<&Arc<TcpListener>>) -> Receiver<Never> {
        let (open, stopping) = bounded(0);
        let listener_handle = ListenerHandle { listener: listener.cloned(), open };
        *self.listener_handle.lock().expect("nothing under this lock can panic") =
            Some(listener_handle);
        stopping
    }

    /// Admits no connection any more, and closes those that have not proved a key.
    pub(in crate::runtime) fn shut(&self) {
        let listener_handle =
            self.listener_handle.lock().expect("nothing under this lock can panic").take();
        if let Some(ListenerHandle { listener, open }) = listener_handle {
            drop(open);
            if let Some(listener) = listener {
                wake(&listener);
            }
        }
        self.pending.shut();
    }

    /// Accepts connections until [`Self::shut`]; each is served on a thread of its own.
    pub(in crate::runtime) fn accept(
        &self,
        name: &str,
        (listener, stopping): (&TcpListener, &Receiver<Never>),
        full: &Counter,
        serve: &(impl Fn(RawConnection) + Clone + Send + 'static),
    ) {
        let receive = |stream, from| {
            let (serve, stream) = (serve.clone(), Arc::new(stream));
            let serve = move || serve(RawConnection::new(stream, Vec::new(), from));
            if self.threads.spawn(thread_name(name, from), serve).is_err() {
                full.add(1);
            }
        };
        accept_loop(listener, stopping, receive, |err| {
            log::debug!("cannot accept connections: {err}");
            self.pending.evict_one();
        });
    }

    /// Serves an accepted connection from its first byte to its end; if there is no room, it or
    /// another one gets the words of `busy` and is closed.
    pub(in crate::runtime) fn host<T>(
        &self,
        connection: RawConnection,
        refused: RejectionCounters<'_>,
        busy: impl FnOnce() -> Vec<u8>,
        shake_hands: impl FnOnce(RawConnection) -> Option<T>,
        converse: impl FnOnce(T),
    ) {
        let places = places_of_callers(self.links_max);
        let Some(_permit) = self.sit_below(places) else {
            refused.full.add(1);
            return turn_away(connection.stream(), &busy());
        };
        let (stream, from) = (connection.share_stream(), connection.from().ip());
        let admitted = self.pending.admit(&stream, from, self.silent_max);
        let Some((number, evicted)) = admitted else { return };
        if let Some(evicted) = evicted {
            refused.silent.add(1);
            turn_away(&evicted, &busy());
        }
        let greeted = shake_hands(connection);
        let is_ours = self.pending.has_spoken(number);
        self.pending.leave(number);
        if let Some(ends) = greeted
            && is_ours
        {
            converse(ends);
        }
    }

    /// Takes room for one more own call.
    pub(in crate::runtime) fn sit(&self) -> Option<ConnectionPermit> {
        self.sit_below(self.links_max)
    }

    fn sit_below(&self, max: usize) -> Option<ConnectionPermit> {
        let permit = ConnectionPermit(Arc::clone(&self.permits));
        let taken = self.permits.fetch_add(1, Ordering::Relaxed);
        (taken < max).then_some(permit)
    }
}

/// Room for one connection, until it is dropped.
pub(in crate::runtime) struct ConnectionPermit(Arc<AtomicUsize>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Detects the dialect of a connection from its first bytes, which can be read again; an error if
/// it is not clear by the deadline.
pub(in crate::runtime) fn read_opening(
    mut connection: RawConnection,
    clock: Clock,
    deadline: Time,
) -> io::Result<(RawConnection, Dialect)> {
    let mut bytes = vec![0; OPENING_BYTES_MAX];
    let mut heard = 0;
    loop {
        let left = deadline.since(clock.now().mono);
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        connection.stream().set_read_timeout(Some(left))?;
        match io::Read::read(&mut connection, &mut bytes[heard..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => heard += len,
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
        if let Detection::Is(dialect) = detect(&bytes[..heard]) {
            bytes.truncate(heard);
            let (stream, from) = (connection.share_stream(), connection.from());
            return Ok((RawConnection::new(stream, bytes, from), dialect));
        }
    }
}

/// Connects within `patience`; the set of pending connections can close the socket meanwhile.
/// `None` if there is no room for it, or it was closed.
pub(in crate::runtime) fn connect<T>(
    pending: &PendingConnections,
    addr: SocketAddr,
    patience: Duration,
    talk: impl FnOnce(Arc<TcpStream>) -> T,
) -> Option<io::Result<T>> {
    let kind = socket2::Type::STREAM;
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), kind, None);
    let stream = match socket {
        Ok(socket) => Arc::new(TcpStream::from(socket)),
        Err(error) => return Some(Err(error)),
    };
    let number = pending.admit_dial(&stream)?;
    let connected = socket2::SockRef::from(&*stream)
        .connect_timeout(&addr.into(), patience)
        .and_then(|()| Ok(stream.local_addr()? == stream.peer_addr()?));
    let outcome = match connected {
        Ok(false) => Ok(talk(stream)),
        // If no process listens on a port that the system also hands out to callers, it may hand
        // out that very port: the socket is then connected with itself.
        Ok(true) => Err(ErrorKind::ConnectionRefused.into()),
        Err(error) => Err(error),
    };
    pending.leave(number).then_some(outcome)
}

/// Name of a thread, of which Linux keeps 15 bytes.
fn thread_name(name: &str, from: SocketAddr) -> String {
    format!("{name}:{}", from.port())
}

/// Accepts connections until `stopping` is disconnected, which [`wake`] makes known. After a
/// failure that would at once repeat itself, for want of descriptors say, it calls `on_trouble` and
/// pauses.
pub(in crate::runtime) fn accept_loop(
    listener: &TcpListener,
    stopping: &Receiver<Never>,
    mut receive: impl FnMut(TcpStream, SocketAddr),
    mut on_trouble: impl FnMut(io::Error),
) {
    loop {
        let accepted = listener.accept();
        if stopping.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        match accepted {
            Ok((stream, from)) => receive(stream, from),
            Err(err) if is_of_one_connection(&err) => {}
            Err(err) => {
                on_trouble(err);
                if stopping.recv_timeout(BACKOFF) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        }
    }
}

/// Wakes the thread that accepts connections of `listener`.
pub(in crate::runtime) fn wake(listener: &TcpListener) {
    // On Linux this is enough; elsewhere it fails, and a call to oneself does it.
    if socket2::SockRef::from(listener).shutdown(Shutdown::Both).is_err() {
        let _ = listener.local_addr().map(connect_to_wake);
    }
}

/// Connects to a listener of this process once, and hangs up.
fn connect_to_wake(addr: SocketAddr) {
    let mut addr = addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let _ = TcpStream::connect_timeout(&addr, Duration::from_secs(1));
}

/// True if an accept failed because of the connection that was to be accepted.
fn is_of_one_connection(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        ErrorKind::Interrupted
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_leave_places_for_own_calls() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (acceptor, full, silent) =
            (Acceptor::new(64, 32), Counter::default(), Counter::default());
        let call = |converse: &dyn Fn()| {
            let stream = Arc::new(TcpStream::connect(addr).unwrap());
            let refused = RejectionCounters { full: &full, silent: &silent };
            let connection = RawConnection::new(stream, Vec::new(), addr);
            acceptor.host(connection, refused, Vec::new, |_| Some(()), |()| converse());
        };
        let mine: Vec<_> = (0..29).map(|_| acceptor.sit().unwrap()).collect();
        call(&|| call(&|| panic!("thirty of 32 places are taken")));
        assert_eq!(full.get(), 1);
        let last = [acceptor.sit(), acceptor.sit(), acceptor.sit()];
        assert!(last.iter().all(Option::is_some), "own calls have them all");
        assert!(acceptor.sit().is_none(), "{} and three", mine.len());
    }
}
