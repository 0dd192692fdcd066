//! HTTP on the one port of a node: its page, its feeds and its metrics.
//!
//! Invariants:
//! - A connection ends within a bounded time for any behavior of its client, and no other
//!   connection ends with it.
//! - The number of connections is bounded, and so is the share of one address, so that HTTP takes
//!   no descriptors and threads from the fleet.
//! - Of a request's body no more than 64 KiB are read, and only where the handler wants it.
//!
//! The content of answers is the handler's business. A connection is served to its end on the
//! thread that it came with.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HOST, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};

use super::driver::counters::Counter;
use super::driver::options::{RawConnection, ServeConnection};
use super::web::guarded::{ClientTimeouts, ConnectionState, GuardCounters, InFlight};
use super::web::refusal::{Refusal, own};
use super::web::server::{Client, Handler, Places, Port, serve};
use super::web::workers::Workers;

pub mod events;

/// Largest number of HTTP connections at a time; above this new ones are answered with 503 and
/// closed. Each open page holds one for its events.
const CONNECTIONS_MAX: usize = 192;

/// Largest number of these connections from one address.
const CONNECTIONS_OF_ONE_MAX: usize = 128;

/// Largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Time-out of a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Time-outs of a client; an idle connection outlives the pauses of programs that collect metrics.
const TIMEOUTS: ClientTimeouts = ClientTimeouts {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(75),
    write: Duration::from_secs(10),
    drain: Duration::ZERO,
    half_close: true,
};

/// A request to a node.
#[derive(Debug)]
pub struct HttpRequest {
    /// Head of the request.
    pub head: Parts,
    /// Body of the request; empty where the handler does not want it.
    pub body: Bytes,
    /// Address of the client.
    pub from: SocketAddr,
}

impl HttpRequest {
    /// True if a program of this machine asks, which names the machine by its address or as
    /// `localhost`, and is no page of another site. Only then it may change something.
    pub fn is_own(&self) -> bool {
        let Parts { uri, headers, .. } = &self.head;
        let own_origin = |it: &HeaderValue| {
            let origin = it.to_str().ok().and_then(|it| it.split_once("://")).map(|it| it.1);
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            origin.is_some() && origin == host.or(uri.authority().map(|it| it.as_str()))
        };
        self.from.ip().to_canonical().is_loopback()
            && names_this_machine(&self.head)
            && headers.get_all(ORIGIN).iter().all(own_origin)
    }
}

/// Content of an answer.
#[derive(Debug)]
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// Parts as they come, until the sender is dropped.
    Stream(mpsc::Receiver<Bytes>),
}

impl From<Bytes> for Content {
    fn from(whole: Bytes) -> Self {
        Self::Whole(whole)
    }
}

/// Handler of requests, on any number of threads at once, each in a tokio runtime.
pub trait HttpHandler: Send + Sync {
    /// True if the body of this request is wanted.
    fn wants_body(&self, head: &Parts) -> bool;

    /// Answer to a request.
    fn answer(&self, request: &HttpRequest) -> Response<Content>;
}

/// Clients that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// All clients are answered.
    Any,
    /// Only programs of this machine are answered, that name it by its address or as `localhost`:
    /// another site's page in a browser here cannot ask under its own name.
    Loopback,
}

/// Counters of served and refused requests.
#[derive(Debug, Default)]
pub struct HttpCounters {
    connections: Counter,
    requests: Counter,
    refused_busy: Counter,
    refused_access: Counter,
    clients: Arc<GuardCounters>,
    answers: Mutex<BTreeMap<u16, u64>>,
}

/// Values of the counters at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct HttpMetrics {
    /// Connections served or refused.
    pub connections: u64,
    /// Requests whose head was read.
    pub requests: u64,
    /// Answers by status.
    pub answers: BTreeMap<String, u64>,
    /// Connections refused because there were too many.
    pub refused_busy: u64,
    /// Requests refused because of where they came from.
    pub refused_access: u64,
    /// Connections closed because no further request came.
    pub closed_idle: u64,
    /// Answers that could not be written.
    pub write_failed: u64,
}

/// Statuses that are told from the start, with 0.
const USUAL: [u16; 5] = [200, 403, 404, 405, 503];

impl HttpCounters {
    /// Values of all counters.
    pub fn metrics(&self) -> HttpMetrics {
        let mut answers: BTreeMap<_, _> = USUAL.map(|it| (it.to_string(), 0)).into();
        let counted = self.answers.lock().expect("nothing under this lock can panic");
        let refused = self.clients.refused.lock().expect("nothing under this lock can panic");
        for (status, count) in counted.iter().chain(refused.iter()) {
            *answers.entry(status.to_string()).or_default() += count;
        }
        drop((counted, refused));
        HttpMetrics {
            connections: self.connections.get(),
            requests: self.requests.get(),
            answers,
            refused_busy: self.refused_busy.get(),
            refused_access: self.refused_access.get(),
            closed_idle: self.clients.closed_idle.get(),
            write_failed: self.clients.write_failed.get(),
        }
    }

    fn count(&self, status: StatusCode) {
        let mut answers = self.answers.lock().expect("nothing under this lock can panic");
        *answers.entry(status.as_u16()).or_default() += 1;
    }
}

/// Server of HTTP.
pub struct HttpServer {
    shared: Arc<Shared>,
    places: Arc<Places>,
    timeouts: ClientTimeouts,
    /// Nobody stops the server: connections end with the driver's.
    _running: watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
}

struct Shared {
    handler: Arc<dyn HttpHandler>,
    access: Access,
    counters: Arc<HttpCounters>,
}

impl HttpServer {
    /// A server whose answers are those of `handler`.
    pub fn new(handler: Arc<dyn HttpHandler>, access: Access, counters: Arc<HttpCounters>) -> Self {
        let shared = Arc::new(Shared { handler, access, counters });
        let (running, stopping) = watch::channel(false);
        Self { shared, places: Arc::default(), timeouts: TIMEOUTS, _running: running, stopping }
    }

    /// Serves the connections of a port of its own, all on one thread.
    ///
    /// # Errors
    /// Fails if the system has no room for the thread or the listener.
    pub fn open(self, listener: TcpListener) -> io::Result<HttpPort> {
        let workers = Workers::start("http", 1)?;
        let runtime = workers.handle(0).clone();
        // Whole, as its end is the sign for its connections to end.
        let server = Box::new(self);
        let receive = move |stream: TcpStream, from: SocketAddr| {
            let Self { shared, places, timeouts, stopping, .. } = &*server;
            let counters = &shared.counters;
            counters.connections.add(1);
            let place = places.take(from.ip(), CONNECTIONS_MAX, CONNECTIONS_OF_ONE_MAX);
            let Some(place) = place else { return counters.refused_busy.add(1) };
            let (shared, stop) = (Arc::clone(shared), stopping.clone());
            let settings = (*timeouts, Arc::clone(&counters.clients));
            runtime.spawn(async move {
                let made = stream.set_nonblocking(true);
                let made = made.and_then(|()| tokio::net::TcpStream::from_std(stream));
                let Ok(stream) = made else { return };
                let _ = stream.set_nodelay(true);
                let state = ConnectionState::new();
                let client = Client { from, is_tls: false, worker: 0, state, _place: place };
                serve(stream, client, shared, settings, stop).await;
            });
        };
        let port = Port::open(listener, &workers, Box::new(receive))?;
        Ok(HttpPort { port, _workers: workers })
    }

    fn converse(&self, connection: &RawConnection) -> io::Result<()> {
        let counters = &self.shared.counters;
        counters.connections.add(1);
        let from = connection.from();
        let Some(place) = self.places.take(from.ip(), CONNECTIONS_MAX, CONNECTIONS_OF_ONE_MAX)
        else {
            counters.refused_busy.add(1);
            return turn_away(connection);
        };
        let stream = connection.stream().try_clone()?;
        stream.set_nonblocking(true)?;
        let _ = stream.set_nodelay(true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let stream = Opened { opening: connection.opening().to_vec(), read: 0, stream };
            let state = ConnectionState::new();
            let client = Client { from, is_tls: false, worker: 0, state, _place: place };
            let settings = (self.timeouts, Arc::clone(&counters.clients));
            serve(stream, client, Arc::clone(&self.shared), settings, self.stopping.clone()).await;
            Ok(())
        })
    }
}

/// Port of a server, until it is dropped.
#[derive(Debug)]
pub struct HttpPort {
    port: Port,
    _workers: Workers,
}

impl HttpPort {
    /// Listen address of the port.
    pub const fn addr(&self) -> SocketAddr {
        self.port.addr()
    }
}

impl ServeConnection for HttpServer {
    fn serve(&self, connection: RawConnection) {
        if let Err(error) = self.converse(&connection) {
            log::debug!("no answer to {}: {error}", connection.from());
        }
    }
}

/// Refuses a connection. It may not cost as much as a served one: no task and no waiting.
fn turn_away(connection: &RawConnection) -> io::Result<()> {
    let body = "too many connections; try again in a moment\n";
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Retry-After: 1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    rustix::net::send(connection.stream(), text.as_bytes(), flags)?;
    Ok(())
}

impl Handler for Shared {
    type Body = AnswerBody;

    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: Arc<Client>,
    ) -> Response<AnswerBody> {
        let in_flight = client.state.begin(request.version() == hyper::Version::HTTP_2);
        self.counters.requests.add(1);
        let answer = self.respond(request, client.from).await;
        self.counters.count(answer.status());
        answer.map(|content| AnswerBody { content: Some(content), _in_flight: in_flight })
    }
}

impl Shared {
    async fn respond(&self, request: Request<Incoming>, from: SocketAddr) -> Response<Content> {
        let (head, body) = request.into_parts();
        let hosts = head.headers.get_all(HOST).iter().count();
        let refusal = match self.bar(&head, from) {
            Some(refusal) => Some((403, refusal.reason)),
            None if hosts > 1 => Some((400, "a request has one Host header".to_owned())),
            None => None,
        };
        if let Some((status, reason)) = refusal {
            return text(status, &reason).map(Content::from);
        }
        let mut request = HttpRequest { head, body: Bytes::new(), from };
        if self.handler.wants_body(&request.head) {
            let body = Limited::new(body, BODY_BYTES_MAX).collect();
            match tokio::time::timeout(BODY_TIMEOUT, body).await {
                Ok(Ok(body)) => request.body = body.to_bytes(),
                Ok(Err(_)) => {
                    let reason = format!("a body has at most {BODY_BYTES_MAX} bytes");
                    return text(413, &reason).map(Content::from);
                }
                Err(_) => return text(408, "the body did not come in time").map(Content::from),
            }
        }
        self.handler.answer(&request)
    }

    /// Refusal of a request because of its sender, if it is not allowed.
    fn bar(&self, request: &Parts, from: SocketAddr) -> Option<Refusal> {
        let is_let_in = match self.access {
            Access::Any => true,
            Access::Loopback => {
                from.ip().to_canonical().is_loopback() && names_this_machine(request)
            }
        };
        (!is_let_in).then(|| {
            self.counters.refused_access.add(1);
            let reason = "this node answers programs of its own machine only; see --http";
            Refusal::new(403, "not_allowed", reason)
        })
    }
}

/// Body of an answer. Its request is being answered until all of it was taken.
struct AnswerBody {
    /// `None` once all of it was taken.
    content: Option<Content>,
    _in_flight: InFlight,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let part = match self.content.take() {
            None => None,
            Some(Content::Whole(whole)) => Some(whole).filter(|it| !it.is_empty()),
            Some(Content::Stream(mut parts)) => {
                let part = parts.poll_recv(cx);
                self.content = Some(Content::Stream(parts));
                std::task::ready!(part)
            }
        };
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            None => true,
            Some(Content::Whole(whole)) => whole.is_empty(),
            Some(Content::Stream(_)) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            None => SizeHint::with_exact(0),
            Some(Content::Whole(whole)) => SizeHint::with_exact(whole.len() as u64),
            Some(Content::Stream(_)) => SizeHint::default(),
        }
    }
}

/// True if a request names this machine, or nobody.
fn names_this_machine(request: &Parts) -> bool {
    let named = request.uri.authority().map(|it| it.as_str());
    let mut hosts = request.headers.get_all(HOST).iter().map(HeaderValue::to_str);
    named.is_none_or(is_own_name) && hosts.all(|it| it.is_ok_and(is_own_name))
}

/// An answer in plain text.
pub(crate) fn text(status: u16, body: &str) -> Response<Bytes> {
    own(status, "text/plain; charset=utf-8", format!("{body}\n"))
}

/// A socket whose first bytes were read already.
struct Opened {
    opening: Vec<u8>,
    read: usize,
    stream: tokio::net::TcpStream,
}

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.opening[self.read..];
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let len = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..len]);
        self.read += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// True if a host is an address or `localhost`, with or without a port.
fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let inside = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_v6 = inside.is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok());
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok() || is_v6
}

#[cfg(test)]
mod tests;
