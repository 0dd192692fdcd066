//! A connection with time-outs, whose refusals have reasons.
//!
//! hyper reads and writes through [`Guarded`], which adds three things: an idle client, a head that
//! does not come and an answer that is not taken end the connection; hyper's bare answer to a head
//! that it cannot parse is replaced by one with the reason; and the end waits a moment for the
//! client, because closing a socket with unread input would reset it before the answer is read.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::explain::{explain, has_header};
use super::refusal::{JSON, Refusal};
use crate::runtime::driver::counters::Counter;

/// Time for which a closed connection waits for the client to read and close.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// Largest number of bytes that are read and thrown away meanwhile.
pub(crate) const DISCARDED_MAX: usize = 4 * 1024 * 1024;

/// Largest number of received bytes that are kept to explain a refusal.
const KEPT_MAX: usize = 64 * 1024;

/// Largest length of hyper's answer to a head that it cannot parse, in bytes.
const BARE_BYTES_MAX: usize = 256;

/// Header by which a node's answers are known; see [`Guarded::refuses`].
pub(crate) const OWN_MARK: &str = "cache-control: no-store";

/// Time-outs of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientTimeouts {
    /// Time-out of a head, from its first byte on.
    pub(crate) head: Duration,
    /// Time-out of a connection between two requests.
    pub(crate) idle: Duration,
    /// Time-out of a client for taking any part of an answer.
    pub(crate) write: Duration,
    /// Time for which a stopping server waits for a request on an idle connection: a client that
    /// was just answered may have its next one on the way.
    pub(crate) drain: Duration,
    /// True if a client that sends no more is still answered; else it is taken for gone.
    pub(crate) half_close: bool,
}

/// Counters of connections that are given up.
#[derive(Debug, Default)]
pub struct GuardCounters {
    /// Connections closed because no further request came.
    pub closed_idle: Counter,
    /// Requests whose head was malformed, or too slow, by the status of the answer.
    pub refused: Mutex<BTreeMap<u16, u64>>,
    /// Connections given up because an answer was not taken.
    pub write_failed: Counter,
}

impl GuardCounters {
    /// Counts a request that was refused with this status.
    pub(crate) fn refuse(&self, status: u16) {
        let mut refused = self.refused.lock().expect("nothing under this lock can panic");
        *refused.entry(status).or_default() += 1;
    }

    /// Number of requests whose head was malformed, or too slow.
    pub fn refused(&self) -> u64 {
        self.refused.lock().expect("nothing under this lock can panic").values().sum()
    }
}

/// State of a connection that its requests share with its socket.
#[derive(Debug)]
pub(crate) struct ConnectionState(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// Number of requests that are being answered.
    in_flight: usize,
    /// Moment since which there are none.
    idle_since: Instant,
    /// Moment of the first byte of the head that is being read.
    head_since: Option<Instant>,
    /// Bytes that came since the last request.
    received: Vec<u8>,
    is_http2: bool,
    /// True once the connection has left HTTP: its bytes mean nothing here.
    is_tunnel: bool,
}

/// A request that is being answered, until dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<ConnectionState>);

impl ConnectionState {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            in_flight: 0,
            idle_since: Instant::now(),
            // Whoever connects has something to ask.
            head_since: Some(Instant::now()),
            received: Vec::new(),
            is_http2: false,
            is_tunnel: false,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing under this lock can panic")
    }

    /// Begins a request. `is_http2` says which protocol it came by.
    pub(crate) fn begin(self: &Arc<Self>, is_http2: bool) -> InFlight {
        let mut inner = self.inner();
        inner.in_flight += 1;
        inner.head_since = None;
        inner.is_http2 = is_http2;
        inner.received.clear();
        drop(inner);
        InFlight(Arc::clone(self))
    }

    /// True if the head of the request that begins now came with this header, also if hyper has
    /// removed it. Only known before [`Self::begin`].
    pub(crate) fn came_with(&self, name: &str) -> bool {
        has_header(&self.inner().received, name)
    }

    /// Notes that the connection leaves HTTP.
    pub(crate) fn leave_http(&self) {
        self.inner().is_tunnel = true;
    }

    /// True if the connection's requests come by HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.inner().is_http2
    }

    /// Time since the last request ended; zero while one is being answered.
    pub(crate) fn idle(&self) -> Duration {
        let inner = self.inner();
        if inner.in_flight > 0 { Duration::ZERO } else { inner.idle_since.elapsed() }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.in_flight -= 1;
        if inner.in_flight == 0 {
            inner.idle_since = Instant::now();
        }
    }
}

/// A socket that is given up when its client does nothing.
pub(crate) struct Guarded<S> {
    socket: S,
    state: Arc<ConnectionState>,
    timeouts: ClientTimeouts,
    counters: Arc<GuardCounters>,
    /// Timer of reads, with the moment that it is set to.
    reads: Option<Pin<Box<Sleep>>>,
    /// Timer of writes, while one is under way.
    writes: Option<Pin<Box<Sleep>>>,
    /// Bytes of an answer of this socket's own, and how many of them are written.
    own: Option<(Vec<u8>, usize)>,
    /// Number of bytes that were thrown away after the end; `None` before it.
    discarded: Option<usize>,
}

impl<S> Guarded<S> {
    pub(crate) fn new(
        socket: S,
        state: Arc<ConnectionState>,
        timeouts: ClientTimeouts,
        counters: Arc<GuardCounters>,
    ) -> Self {
        let (reads, writes, own, discarded) = (None, None, None, None);
        Self { socket, state, timeouts, counters, reads, writes, own, discarded }
    }

    /// Sets the answer that is written in place of hyper's.
    fn refuse(&mut self, refusal: &Refusal) {
        let body = refusal.json();
        let status = hyper::StatusCode::from_u16(refusal.status);
        let phrase = status.ok().and_then(|it| it.canonical_reason()).unwrap_or("Error");
        let text = format!(
            "HTTP/1.1 {} {phrase}\r\nContent-Type: {JSON}\r\nCache-Control: no-store\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            refusal.status,
            body.len()
        );
        self.counters.refuse(refusal.status);
        self.own = Some((text.into_bytes(), 0));
    }

    /// Takes the place of an answer that hyper gives by itself, to a head that it cannot parse: an
    /// empty one, while a head is read and no request is answered. Nothing else is touched, also if
    /// the bytes of a body look like it. Answers of the node have [`OWN_MARK`], and those of a
    /// server the version's name.
    fn refuses(&mut self, bytes: &[u8]) -> bool {
        let Some(status) = bytes.strip_prefix(b"HTTP/1.1 4") else { return self.own.is_some() };
        let has = |mark: &str| {
            bytes.windows(mark.len()).any(|it| it.eq_ignore_ascii_case(mark.as_bytes()))
        };
        let is_of_head = {
            let inner = self.state.inner();
            inner.in_flight == 0 && inner.head_since.is_some() && !inner.is_tunnel
        };
        if self.own.is_none()
            && is_of_head
            && bytes.len() <= BARE_BYTES_MAX
            && bytes.ends_with(b"\r\n\r\n")
            && has("content-length: 0\r\n")
            && !has("x-model: ")
            && !has(OWN_MARK)
            && !has("x-routing-node: ")
        {
            let digit = |at: usize| status.get(at).map_or(0, |it| u16::from(it.wrapping_sub(b'0')));
            let status = 400 + digit(0) * 10 + digit(1);
            let refusal = explain(&self.state.inner().received, status);
            self.refuse(&refusal);
        }
        self.own.is_some()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    /// Writes the own answer, if there is one.
    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((bytes, written)) = &mut self.own {
            if *written == bytes.len() {
                break;
            }
            let len = ready!(Pin::new(&mut self.socket).poll_write(cx, &bytes[*written..]))?;
            if len == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            *written += len;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the connection if its client has done nothing for too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let (deadline, is_head) = {
                let inner = self.state.inner();
                let deadline = match (inner.in_flight, inner.head_since) {
                    // The request itself has time-outs.
                    (1.., _) => return Poll::Pending,
                    (0, Some(since)) => since + self.timeouts.head,
                    (0, None) => inner.idle_since + self.timeouts.idle,
                };
                (deadline, !inner.received.is_empty())
            };
            let timer =
                self.reads.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if Instant::now() < deadline {
                timer.as_mut().reset(deadline);
                continue;
            }
            if self.own.is_some() {
                // It was told already.
            } else if is_head {
                let reason = "the head of the request did not come in time";
                self.refuse(&Refusal::new(408, "too_slow", reason));
                let _ = ready!(self.poll_own(cx));
            } else {
                self.counters.closed_idle.add(1);
                self.own = Some((Vec::new(), 0));
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// Bounds the time that a write waits for the client.
    fn poll_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.writes = None;
            return written;
        }
        let write = self.timeouts.write;
        let timer = self.writes.get_or_insert_with(|| Box::pin(tokio::time::sleep(write)));
        ready!(timer.as_mut().poll(cx));
        self.counters.write_failed.add(1);
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if Pin::new(&mut this.socket).poll_read(cx, buf)?.is_pending() {
            return this.poll_idle(cx);
        }
        let came = &buf.filled()[before..];
        let mut inner = this.state.inner();
        if inner.in_flight == 0 && !came.is_empty() && !inner.is_http2 {
            if inner.head_since.is_none() {
                inner.head_since = Some(Instant::now());
            }
            let room = KEPT_MAX - inner.received.len().min(KEPT_MAX);
            inner.received.extend_from_slice(&came[..came.len().min(room)]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.refuses(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.poll_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let first = bufs.iter().find(|it| !it.is_empty());
        if first.is_some_and(|it| this.refuses(it)) {
            return Poll::Ready(Ok(bufs.iter().map(|it| it.len()).sum()));
        }
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, bufs);
        this.poll_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = match this.poll_own(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.socket).poll_flush(cx),
            unwritten @ (Poll::Ready(_) | Poll::Pending) => unwritten,
        };
        this.poll_stalled(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.discarded.is_none() {
            ready!(this.as_mut_pin().poll_flush(cx))?;
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
            this.discarded = Some(0);
            this.writes = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        let mut bytes = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut bytes);
            let discarded = this.discarded.get_or_insert(0);
            let read = Pin::new(&mut this.socket).poll_read(cx, &mut buf);
            *discarded += buf.filled().len();
            let is_over = buf.filled().is_empty() || *discarded > DISCARDED_MAX;
            match read {
                Poll::Ready(Ok(())) if !is_over => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    if let Some(timer) = &mut this.writes {
                        ready!(timer.as_mut().poll(cx));
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: Unpin> Guarded<S> {
    fn as_mut_pin(&mut self) -> Pin<&mut Self> {
        Pin::new(self)
    }
}
