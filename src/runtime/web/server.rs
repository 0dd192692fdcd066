//! Server of HTTP/1.1 and HTTP/2: a port, its connections, and an orderly end of them all.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

use super::guarded::{ClientTimeouts, ConnectionState, GuardCounters, Guarded};
use super::workers::Workers;

/// Largest number of headers of a request.
const HEADERS_MAX: usize = 100;

/// Longest head of a request in bytes; also the largest part of a body that waits unread.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Largest number of requests at once on one connection of HTTP/2.
const STREAMS_MAX: u32 = 256;

/// Interval of the questions by which a silent connection of HTTP/2 is found dead.
const PING_EVERY: Duration = Duration::from_secs(30);

/// Pause after an error of the system before the next connection is accepted.
const BACKOFF: Duration = Duration::from_millis(100);

/// Interval at which a stopping server looks whether its connections have ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Connection of a client, as its requests see it.
#[derive(Debug)]
pub(crate) struct Client {
    /// Address of the other end.
    pub(crate) from: SocketAddr,
    /// True if the connection is encrypted.
    pub(crate) is_tls: bool,
    /// Number of the thread that serves it.
    pub(crate) worker: usize,
    /// State that its socket shares.
    pub(crate) state: Arc<ConnectionState>,
    /// Place of the connection; free when its last request has ended.
    pub(crate) _place: Place,
}

/// Handler of requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// Answers a request.
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: Arc<Client>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Serves one connection until it ends; once `stopping` is true, until its requests have ended.
pub(crate) async fn serve<S, H>(
    socket: S,
    client: Client,
    handler: Arc<H>,
    (timeouts, counters): (ClientTimeouts, Arc<GuardCounters>),
    mut stopping: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let state = Arc::clone(&client.state);
    let client = Arc::new(client);
    let socket = Guarded::new(socket, Arc::clone(&state), timeouts, counters);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .header_read_timeout(None)
        .title_case_headers(true)
        .half_close(timeouts.half_close)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX);
    let service = service_fn(|request| {
        let (handler, client) = (Arc::clone(&handler), Arc::clone(&client));
        async move { Ok::<_, std::convert::Infallible>(handler.handle(request, client).await) }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        // A client that breaks its connection has been counted where it was seen.
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
    }
    if !state.is_http2() {
        // The answer to a request that comes now says that the connection ends.
        let stopped = Instant::now();
        loop {
            let idle = state.idle().min(stopped.elapsed());
            let left = timeouts.drain.saturating_sub(idle);
            if left.is_zero() {
                break;
            }
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                () = tokio::time::sleep(left) => {}
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Places for connections.
#[derive(Debug, Default)]
pub(crate) struct Places {
    open: AtomicUsize,
    by_address: Mutex<BTreeMap<IpAddr, usize>>,
}

/// Place of one connection, until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    from: IpAddr,
}

impl Places {
    fn by_address(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.by_address.lock().expect("nothing under this lock can panic")
    }

    /// Number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a place, if there are fewer than `all` and fewer than `of_one` from this address.
    pub(crate) fn take(self: &Arc<Self>, from: IpAddr, all: usize, of_one: usize) -> Option<Place> {
        let mut by_address = self.by_address();
        let own = by_address.get(&from).copied().unwrap_or(0);
        if self.open() >= all || own >= of_one {
            return None;
        }
        by_address.insert(from, own + 1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Place { places: Arc::clone(self), from })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.places.by_address();
        match by_address.get(&self.from).copied().unwrap_or(1) {
            1 => drop(by_address.remove(&self.from)),
            count => drop(by_address.insert(self.from, count - 1)),
        }
        self.places.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Receiver of a port's connections, on the thread that accepts them.
pub(crate) type Receive = Box<dyn FnMut(TcpStream, SocketAddr) + Send>;

/// An open port, until it is shut.
#[derive(Debug)]
pub(crate) struct Port {
    addr: SocketAddr,
    stopping: watch::Sender<bool>,
    accepting: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Port {
    /// Accepts the connections of `listener` on the first of `workers`.
    ///
    /// # Errors
    /// Fails if the system has no room for the listener.
    pub(crate) fn open(
        listener: TcpListener,
        workers: &Workers,
        mut receive: Receive,
    ) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (stopping, mut stop) = watch::channel(false);
        let runtime = workers.handle(0);
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let accepting = runtime.spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|is_stopping| *is_stopping) => {}
                () = accept(&listener, &mut receive) => {}
            }
            // Those that the system has accepted already are not lost.
            let Ok(listener) = listener.into_std() else { return };
            while let Ok((stream, from)) = listener.accept() {
                receive(stream, from);
            }
        });
        Ok(Self { addr, stopping, accepting: Mutex::new(Some(accepting)) })
    }

    /// Listen address of the port.
    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts no more connections.
    pub(crate) fn close(&self) {
        self.stopping.send_replace(true);
    }

    /// Closes the port, and waits at most `grace` until `places` are empty; returns the number of
    /// connections that are left. Must not be called from one of the workers.
    pub(crate) fn shut(&self, workers: &Workers, places: &Arc<Places>, grace: Duration) -> usize {
        self.close();
        let accepting = self.accepting.lock().expect("nothing under this lock can panic").take();
        let places = Arc::clone(places);
        let (tell, told) = crossbeam_channel::bounded(1);
        workers.handle(0).spawn(async move {
            let end = Instant::now() + grace;
            if let Some(accepting) = accepting {
                let _ = accepting.await;
            }
            while places.open() > 0 && Instant::now() < end {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let _ = tell.send(places.open());
        });
        // The workers are stopped already if nothing comes.
        told.recv().unwrap_or(0)
    }
}

/// Accepts connections for ever.
async fn accept(listener: &tokio::net::TcpListener, receive: &mut Receive) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // Another thread may serve it.
                if let Ok(stream) = stream.into_std() {
                    receive(stream, from);
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                log::warn!("a port of HTTP cannot accept connections: {error}; keeps trying");
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

/// True if the next connection may well be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}
