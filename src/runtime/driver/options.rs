//! Options of a driver: its limits, and the servers of dialects.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::model::Now;
use crate::proto::dialect::Dialect;
use crate::proto::sealed::ClusterKeys;

/// Limits of one node. Each protects the process from the other ends of its sockets.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Time-out of an accepted connection until its dialect is clear.
    pub handshake_timeout: Duration,
    /// Time-out for writing one batch of messages, and for a closed link to drain. Shorter loses
    /// links to a busy other end; longer holds memory for a dead one.
    pub write_timeout: Duration,
    /// Largest number of accepted connections that have sent nothing yet; above this the oldest of
    /// the address with the most is closed.
    pub silent_max: usize,
    /// Largest number of connections of all kinds; above this new ones are closed at once. A
    /// sixteenth is for own calls. Each has two threads, and by default Linux gives a process
    /// memory maps for no more than 8,191 of these pairs: a thread for which there is none ends
    /// the whole process.
    pub links_max: usize,
    /// Largest number of links that were hung up and still drain; above this the oldest is cut.
    /// Each holds a place.
    pub draining_max: usize,
    /// Largest number of bytes that wait for all strangers together; above this the link is cut
    /// for which most wait. Room for a page of the registry for each of 512 unproven links.
    pub unread_bytes_max: usize,
    /// Largest number of attempts to connect at a time; each holds a thread.
    pub dials_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            silent_max: 512,
            links_max: 7000,
            draining_max: 512,
            unread_bytes_max: 128 * 1024 * 1024,
            dials_max: 256,
        }
    }
}

/// Number of connections that callers may take of `links_max` places. The rest is for own calls,
/// which a flood of callers would keep from being made.
pub(in crate::runtime) const fn places_of_callers(links_max: usize) -> usize {
    links_max - links_max / 16
}

/// Receiver of a node's events, with the moment at which each was decided.
///
/// The sink is called under the node's lock, so it must neither block nor call the driver.
pub trait EventSink<E>: Send + Sync {
    /// Takes `event`; returns whether there was room for it. An event without room is dropped and
    /// counted: a slow reader of reports must not stop the node.
    fn take(&self, now: Now, event: E) -> bool;
}

impl<E: Send> EventSink<E> for Sender<(Now, E)> {
    fn take(&self, now: Now, event: E) -> bool {
        self.try_send((now, event)).is_ok()
    }
}

/// Options of a driver. `E` is the machine's event.
pub struct DriverOptions<E> {
    /// Receiver of the node's events.
    pub events: Box<dyn EventSink<E>>,
    /// Limits of the node.
    pub limits: ConnectionLimits,
    /// Cluster keys: with them, every link is encrypted, and a caller without one is refused.
    pub cluster_keys: Option<Arc<ClusterKeys>>,
    /// Servers of accepted connections that do not speak the native dialect.
    pub dialects: DialectServers,
}

impl<E> DriverOptions<E> {
    /// Default limits, and no dialect but the native one.
    pub fn new(events: impl EventSink<E> + 'static) -> Self {
        let events = Box::new(events);
        Self {
            events,
            limits: ConnectionLimits::default(),
            cluster_keys: None,
            dialects: DialectServers::default(),
        }
    }
}

/// Servers of the dialects that are spoken at one port.
///
/// Connections of a dialect without a server are closed and counted. [`Dialect::Native`] and
/// [`Dialect::Sealed`] need none: their connections become links. Clones share their servers, so
/// an engine may start after the node whose port it uses.
#[derive(Clone, Default)]
pub struct DialectServers(Arc<RwLock<BTreeMap<Dialect, Arc<dyn ServeConnection>>>>);

impl DialectServers {
    /// Serves further connections of `dialect` by `server`, in place of an earlier server.
    pub fn open(&self, dialect: Dialect, server: Arc<dyn ServeConnection>) {
        self.0.write().expect("nothing under this lock can panic").insert(dialect, server);
    }

    /// Server of a dialect, if it has one now.
    pub(in crate::runtime) fn get(&self, dialect: Dialect) -> Option<Arc<dyn ServeConnection>> {
        self.0.read().expect("nothing under this lock can panic").get(&dialect).cloned()
    }
}

/// Server of the connections of one dialect.
pub trait ServeConnection: Send + Sync {
    /// Serves one connection to its end, on a thread of its own with a small stack.
    ///
    /// At the end of the node the socket is shut down while the server uses it; the server must
    /// then return.
    fn serve(&self, connection: RawConnection);
}

/// An accepted connection whose dialect is known. Reading starts at its very first byte.
#[derive(Debug)]
pub struct RawConnection {
    stream: Arc<TcpStream>,
    opening: Cursor<Vec<u8>>,
    from: SocketAddr,
}

impl RawConnection {
    pub(in crate::runtime) fn new(
        stream: Arc<TcpStream>,
        opening: Vec<u8>,
        from: SocketAddr,
    ) -> Self {
        Self { stream, opening: Cursor::new(opening), from }
    }

    /// The socket, for a thread that writes to it.
    pub(in crate::runtime) fn share_stream(&self) -> Arc<TcpStream> {
        Arc::clone(&self.stream)
    }

    /// The bytes that were read already.
    pub(in crate::runtime) fn opening(&self) -> &[u8] {
        self.opening.get_ref()
    }

    /// Address of the other end.
    pub const fn from(&self) -> SocketAddr {
        self.from
    }

    /// The socket, for writing and for time-outs; to read, use the connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl Read for RawConnection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.opening.read(buf)? {
            0 => (&*self.stream).read(buf),
            some => Ok(some),
        }
    }
}
