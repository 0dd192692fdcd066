//! Server of connections: a port, a thread for each connection, and the end of them all.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::answers::{Going, refusal};
use super::limits::DataPlaneLimits;
use super::sockets::{OpenSockets, SocketPermit};
use crate::machine::Never;
use crate::runtime::clock::Clock;
use crate::runtime::engine::CUT_GRACE;
use crate::runtime::engine::acceptor::{accept_loop, wake};
use crate::runtime::listen::{self, ListenError};
use crate::runtime::thread::ThreadGroup;

/// Time for requests to end when the server is stopped.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// State that all threads of a port share.
pub(super) struct ServerState {
    pub(super) clock: Clock,
    pub(super) limits: DataPlaneLimits,
    pub(super) sockets: Arc<OpenSockets>,
    is_stopping: AtomicBool,
    /// Number of bytes of long bodies that are in memory now.
    kept: AtomicUsize,
}

/// Handler of a port's connections.
pub(super) trait ConnectionHandler: Send + Sync + 'static {
    /// State of the server.
    fn server(&self) -> &ServerState;

    /// Serves a connection to its end.
    fn serve(&self, stream: Arc<TcpStream>, permit: &SocketPermit);

    /// Counts a connection, with whether there was room for it.
    fn count(&self, has_room: bool);
}

/// An open port, until it is shut.
pub(super) struct PortServer {
    addr: SocketAddr,
    /// The listener, and the sender whose drop is the acceptor's sign to stop.
    listener_handle: Mutex<Option<(Arc<TcpListener>, Sender<Never>)>>,
    threads: ThreadGroup,
}

impl ServerState {
    pub(super) fn new(limits: DataPlaneLimits) -> Self {
        let (clock, is_stopping) = (Clock::start(), AtomicBool::new(false));
        Self { clock, limits, sockets: Arc::default(), is_stopping, kept: AtomicUsize::new(0) }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// True if a connection may have another request after this one; if there are many, each makes
    /// room for others.
    pub(super) fn lets_go_on(&self) -> bool {
        !self.is_stopping() && self.sockets.clients() <= self.limits.connections / 4 * 3
    }

    /// Takes room for a long body, if there is; to be given back with the same length by
    /// [`Self::give_back`].
    pub(super) fn take_room(&self, len: usize) -> bool {
        let all = self.kept.fetch_add(len, Ordering::Relaxed) + len;
        let has_room = all <= self.limits.bodies_bytes;
        if !has_room {
            self.give_back(len);
        }
        has_room
    }

    pub(super) fn give_back(&self, len: usize) {
        self.kept.fetch_sub(len, Ordering::Relaxed);
    }
}

impl PortServer {
    /// Listens, and serves each connection on a thread named after `name` and the connection's
    /// port.
    ///
    /// # Errors
    /// Fails if the port cannot be listened on.
    pub(super) fn open<H: ConnectionHandler>(
        listen: SocketAddr,
        name: &'static str,
        host: &Arc<H>,
    ) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Listen { addr: listen, source };
        let listener = Arc::new(listen::bind(listen.ip(), listen.port())?);
        let addr = listener.local_addr().map_err(failed)?;
        let threads = ThreadGroup::default();
        let (host, listener2, threads2) =
            (Arc::clone(host), Arc::clone(&listener), threads.clone());
        let (open, stopping) = bounded(0);
        let accept = move || {
            let receive = |stream, from| receive(&host, stream, from, &threads2, name);
            accept_loop(&listener2, &stopping, receive, |err| {
                log::warn!("the data plane cannot accept connections: {err}; keeps trying");
            });
        };
        threads.spawn(format!("{name}:{}", addr.port()), accept).map_err(failed)?;
        Ok(Self { addr, listener_handle: Mutex::new(Some((listener, open))), threads })
    }

    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Shuts the port: requests that are being answered have [`STOP_GRACE`] to end. Returns when no
    /// thread and no socket is left. Must not be called from one of its threads.
    pub(super) fn shut(&self, server: &ServerState) {
        server.is_stopping.store(true, Ordering::Release);
        let listener_handle =
            self.listener_handle.lock().expect("nothing under this lock can panic").take();
        if let Some((listener, open)) = listener_handle {
            drop(open);
            wake(&listener);
        }
        server.sockets.shut();
        let after = |span| server.clock.mono().after(span);
        if self.threads.wait(&server.clock, after(STOP_GRACE)) > 0 {
            server.sockets.cut();
        }
        let left = self.threads.wait(&server.clock, after(CUT_GRACE));
        if left > 0 {
            log::warn!("{left} threads of {} have not ended {CUT_GRACE:?} after it", self.addr);
        }
    }
}

/// Gives a new connection a thread, or refuses it.
fn receive<H: ConnectionHandler>(
    host: &Arc<H>,
    stream: TcpStream,
    from: SocketAddr,
    threads: &ThreadGroup,
    name: &'static str,
) {
    let ServerState { limits, sockets, .. } = host.server();
    let stream = Arc::new(stream);
    let DataPlaneLimits { connections, connections_of_one, .. } = *limits;
    let permit = sockets.admit(&stream, from.ip(), connections, connections_of_one);
    host.count(permit.is_some());
    let Some(permit) = permit else {
        turn_away(&stream);
        return;
    };
    let host2 = Arc::clone(host);
    let spawned = threads.spawn(format!("{name}<{}", from.port()), move || {
        host2.serve(stream, &permit);
    });
    if let Err(err) = spawned {
        log::debug!("no thread for a request from {from}: {err}");
        host.count(false);
    }
}

/// Refuses a connection. It may not cost as much as a served one: no thread and no waiting.
fn turn_away(stream: &TcpStream) {
    let mut out = Vec::new();
    let reason = "too many connections; try again in a moment";
    refusal(&mut out, 503, "busy", reason, b"Retry-After: 1\r\n", Going::Off);
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    let _ = rustix::net::send(stream, &out, flags);
}
