//! Servers of the models: their addresses, connections to them, and their answers.
//!
//! Invariants: an answer is passed on when it is whole, or not at all; a request is sent a second
//! time only when not a byte of it had left, so none is ever processed twice.

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::net::RecvFlags;

use super::limits::DataPlaneLimits;
use super::socket::{ReadBuffer, TimedSocket, is_late};
use super::sockets::{OpenSockets, SocketPermit};
use crate::model::Time;
use crate::proto::http::{Chunks, Headers, RequestFault, ResponseFraming, ResponseHead, room};
use crate::runtime::clock::Clock;
use crate::runtime::driver::counters::Counter;

/// Time that an answer may take beyond its limit.
const ROUNDING: Duration = Duration::from_millis(50);

/// Address of a model's server: `http://host:port`, with a path or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    host: String,
    port: u16,
    /// Path of all requests; `None` for the path that was asked for here.
    path: Option<String>,
}

impl FromStr for Upstream {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "an upstream is like http://127.0.0.1:9001 or http://host:9001/path";
        let rest = text.strip_prefix("http://").ok_or(WRONG)?;
        let (authority, path) =
            rest.find('/').map_or((rest, None), |at| (&rest[..at], Some(&rest[at..])));
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(WRONG)?;
        let is_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match inside {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(is_name),
        };
        let is_path = |path: &str| path.bytes().all(|c| c.is_ascii_graphic() && c != b'#');
        if !is_host || !path.is_none_or(is_path) {
            return Err(WRONG);
        }
        let path = path.filter(|path| *path != "/").map(str::to_owned);
        Ok(Self { host: host.to_owned(), port, path })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path.as_deref().unwrap_or_default())
    }
}

impl Upstream {
    /// Writes the target of a request that was for `path` with `query`.
    pub(super) fn write_target(&self, out: &mut Vec<u8>, path: &str, query: &str) {
        let own = self.path.as_deref().unwrap_or(path);
        out.extend_from_slice(own.as_bytes());
        if !query.is_empty() {
            out.push(if own.contains('?') { b'&' } else { b'?' });
            out.extend_from_slice(query.as_bytes());
        }
    }

    pub(super) fn write_host(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.host.as_bytes());
        out.push(b':');
        out.extend_from_slice(self.port.to_string().as_bytes());
    }
}

/// Reason why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server cannot be called.
    Unreachable(io::Error),
    /// The server did not answer in time.
    TooSlow,
    /// The server ended the connection before its answer was whole.
    Broken(io::Error),
    /// The received bytes are no answer.
    Garbled(RequestFault),
    /// The answer is too long.
    TooLong,
}

impl Failure {
    /// HTTP status of the answer to the client.
    pub(super) const fn status(&self) -> u16 {
        match self {
            Self::TooSlow => 504,
            Self::Unreachable(_) | Self::Broken(_) | Self::Garbled(_) | Self::TooLong => 502,
        }
    }

    /// Name of the failure, for programs.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "upstream_unreachable",
            Self::TooSlow => "upstream_timeout",
            Self::Broken(_) => "upstream_broken",
            Self::Garbled(_) => "upstream_garbled",
            Self::TooLong => "upstream_answer_too_long",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(err) => write!(f, "cannot call it: {err}"),
            Self::TooSlow => f.write_str("it did not answer in time"),
            Self::Broken(err) => write!(f, "its answer did not come whole: {err}"),
            Self::Garbled(RequestFault::HeadTooLong) => f.write_str("its headers are too long"),
            Self::Garbled(_) => f.write_str("it does not answer in HTTP/1.1"),
            Self::TooLong => f.write_str("its answer is too long"),
        }
    }
}

/// Answer of an upstream.
#[derive(Default)]
pub(super) struct Reply {
    /// Status code of the answer.
    pub(super) status: u16,
    /// Header lines that are passed on.
    pub(super) headers: Vec<u8>,
    /// Whole body of the answer.
    pub(super) body: Vec<u8>,
}

/// Counters of an upstream.
#[derive(Debug, Default)]
pub(super) struct PoolCounters {
    /// Connections that were made.
    pub(super) dials: Counter,
    /// Requests sent over a connection that existed already.
    pub(super) reuses: Counter,
    /// Kept connections that had ended meanwhile.
    pub(super) stale: Counter,
    /// Requests without an answer.
    pub(super) failures: Counter,
}

/// The connections to one upstream.
pub(super) struct Pool {
    pub(super) upstream: Upstream,
    pub(super) counters: PoolCounters,
    limits: DataPlaneLimits,
    clock: Clock,
    sockets: Arc<OpenSockets>,
    /// Idle connections; the one that was used last is the last.
    kept: Mutex<Vec<(Wire, Time)>>,
}

/// One connection to the upstream.
struct Wire {
    socket: TimedSocket,
    buffer: ReadBuffer,
    _permit: SocketPermit,
}

impl Pool {
    pub(super) fn new(
        upstream: Upstream,
        limits: DataPlaneLimits,
        clock: Clock,
        sockets: Arc<OpenSockets>,
    ) -> Self {
        let (counters, kept) = Default::default();
        Self { upstream, counters, limits, clock, sockets, kept }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(Wire, Time)>> {
        self.kept.lock().expect("nothing under this lock can panic")
    }

    /// Closes all idle connections.
    pub(super) fn close(&self) {
        let kept = std::mem::take(&mut *self.kept());
        drop(kept);
    }

    /// Sends a whole request and reads its answer.
    ///
    /// # Errors
    /// Fails if there is no whole answer within the limits.
    pub(super) fn ask(&self, request: &[u8], reply: &mut Reply) -> Result<(), Failure> {
        let result = self.try_to_ask(request, reply);
        if result.is_err() {
            self.counters.failures.add(1);
        }
        result
    }

    fn try_to_ask(&self, request: &[u8], reply: &mut Reply) -> Result<(), Failure> {
        let deadline = self.clock.mono().after(self.limits.answer);
        let sent = match self.take_kept() {
            None => None,
            Some(mut wire) => match wire.socket.write_all(request) {
                Ok(()) => {
                    self.counters.reuses.add(1);
                    Some(wire)
                }
                // The connection ended just now, and no byte has left: the request cannot have been
                // processed.
                Err((0, err)) if !is_late(&err) => {
                    self.counters.stale.add(1);
                    None
                }
                Err((_, err)) => return Err(broken(err)),
            },
        };
        let mut wire = match sent {
            Some(wire) => wire,
            None => {
                let mut wire = self.dial()?;
                wire.socket.write_all(request).map_err(|(_, err)| broken(err))?;
                wire
            }
        };
        if self.read_reply(&mut wire, deadline, reply)? {
            self.keep(wire);
        }
        Ok(())
    }

    /// Takes a kept connection that has not ended, as far as one can see.
    fn take_kept(&self) -> Option<Wire> {
        loop {
            let (wire, since) = self.kept().pop()?;
            let is_old = self.clock.mono().since(since) > self.limits.kept_for;
            // Any byte there is to read is no answer to a request that was not sent.
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            let seen = rustix::net::recv(wire.socket.stream(), &mut [0_u8; 1], flags);
            if !is_old && seen.is_err_and(|err| err == rustix::io::Errno::AGAIN) {
                return Some(wire);
            }
            self.counters.stale.add(1);
            if is_old {
                // The remaining connections are older.
                self.close();
            }
        }
    }

    fn keep(&self, wire: Wire) {
        let now = self.clock.mono();
        let mut kept = self.kept();
        if kept.len() < self.limits.kept {
            kept.push((wire, now));
        }
    }

    fn dial(&self) -> Result<Wire, Failure> {
        self.counters.dials.add(1);
        let Upstream { host, port, .. } = &self.upstream;
        let bare = host.trim_matches(['[', ']']);
        let deadline = self.clock.mono().after(self.limits.connect);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address for this name");
        for addr in (bare, *port).to_socket_addrs().map_err(Failure::Unreachable)? {
            let left = deadline.since(self.clock.mono());
            if left.is_zero() {
                break;
            }
            let stream = match TcpStream::connect_timeout(&addr, left) {
                Ok(stream) => Arc::new(stream),
                Err(err) => {
                    last = err;
                    continue;
                }
            };
            let over = || io::Error::other("the data plane is stopping");
            let permit =
                self.sockets.add(&stream).ok_or_else(over).map_err(Failure::Unreachable)?;
            let socket = TimedSocket::new(stream, self.clock, self.limits.answer);
            let socket = socket.map_err(Failure::Unreachable)?;
            return Ok(Wire { socket, buffer: ReadBuffer::default(), _permit: permit });
        }
        Err(Failure::Unreachable(last))
    }

    /// Reads a whole answer; returns whether the connection is good for another request.
    fn read_reply(
        &self,
        wire: &mut Wire,
        deadline: Time,
        reply: &mut Reply,
    ) -> Result<bool, Failure> {
        let left = deadline.since(self.clock.mono());
        if self.limits.answer.saturating_sub(left) < ROUNDING {
            // The same time-out for every answer, so that it need not be set each time.
            wire.read(self.limits.answer)?;
        } else {
            // A call or a long request took its part of the time.
            wire.read_by(deadline)?;
        }
        let (body, keep_alive) = loop {
            let mut room = room();
            let head =
                ResponseHead::parse(wire.buffer.filled(), &mut room).map_err(Failure::Garbled)?;
            match head {
                None => wire.read_by(deadline)?,
                Some((_, answer)) if answer.status == 101 => {
                    return Err(Failure::Garbled(RequestFault::NotImplemented));
                }
                Some((len, answer)) if answer.status < 200 => wire.buffer.consume(len),
                Some((len, answer)) => {
                    reply.status = answer.status;
                    reply.headers.clear();
                    write_passed(answer.headers, ANSWER_ONLY, &mut reply.headers);
                    let request_line = (answer.body, answer.keep_alive);
                    wire.buffer.consume(len);
                    break request_line;
                }
            }
        };
        reply.body.clear();
        self.read_body(wire, deadline, body, &mut reply.body)?;
        Ok(keep_alive && wire.buffer.is_empty())
    }

    fn read_body(
        &self,
        wire: &mut Wire,
        deadline: Time,
        framing: ResponseFraming,
        body: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let max = self.limits.answer_bytes;
        let mut chunks = Chunks::default();
        loop {
            let filled = wire.buffer.filled();
            let (used, is_whole) = match framing {
                ResponseFraming::Length(len) if len > max => return Err(Failure::TooLong),
                ResponseFraming::Length(len) => {
                    let used = filled.len().min(len - body.len());
                    body.extend_from_slice(&filled[..used]);
                    (used, body.len() == len)
                }
                ResponseFraming::Chunked => chunks.take(filled, body, max).map_err(|fault| {
                    let is_long = fault == RequestFault::BodyTooLong;
                    if is_long { Failure::TooLong } else { Failure::Garbled(fault) }
                })?,
                ResponseFraming::UntilClose if body.len() + filled.len() > max => {
                    return Err(Failure::TooLong);
                }
                ResponseFraming::UntilClose => {
                    body.extend_from_slice(filled);
                    (filled.len(), false)
                }
            };
            wire.buffer.consume(used);
            if is_whole {
                return Ok(());
            }
            match wire.socket.read_by(&mut wire.buffer, deadline) {
                Ok(0) if framing == ResponseFraming::UntilClose => return Ok(()),
                Ok(0) => return Err(Failure::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(err) => return Err(broken(err)),
            }
        }
    }
}

impl Wire {
    fn read(&mut self, wait: Duration) -> Result<(), Failure> {
        taken(self.socket.read(&mut self.buffer, wait))
    }

    fn read_by(&mut self, deadline: Time) -> Result<(), Failure> {
        taken(self.socket.read_by(&mut self.buffer, deadline))
    }
}

/// Meaning of a read before the end of an answer.
fn taken(read: io::Result<usize>) -> Result<(), Failure> {
    match read {
        Ok(0) => Err(Failure::Broken(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(err) => Err(broken(err)),
    }
}

fn broken(err: io::Error) -> Failure {
    if is_late(&err) { Failure::TooSlow } else { Failure::Broken(err) }
}

/// Headers that are of one connection, or that are written anew for the next.
const OF_ONE_CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers of an answer that only this node may set.
const ANSWER_ONLY: &[&str] =
    &["x-model", "x-routing-version", "x-routing-txid", "x-routing-node", "x-routing-bucket"];

/// Headers of a request that are not for the upstream.
pub(super) const REQUEST_ONLY: &[&str] = &["host", "expect"];

/// Writes the lines of those headers that are passed on: not those of one connection, named so by
/// their kind or by `Connection`, and not `others`.
pub(super) fn write_passed(headers: Headers<'_, '_>, others: &[&str], out: &mut Vec<u8>) {
    for (name, value) in headers.iter() {
        let is_one_of = |list: &[&str]| list.iter().any(|it| it.eq_ignore_ascii_case(name));
        if is_one_of(OF_ONE_CONNECTION) || is_one_of(others) || headers.says("connection", name) {
            continue;
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::RequestHead;

    #[test]
    fn an_upstream_is_an_address_with_or_without_a_path() {
        for (text, path, host) in [
            ("http://127.0.0.1:9001", "/predict?q=1", "127.0.0.1:9001"),
            ("http://models.lan:80/", "/predict?q=1", "models.lan:80"),
            ("http://[::1]:9001/v2/ask", "/v2/ask?q=1", "[::1]:9001"),
            ("http://a:1/ask?m=2", "/ask?m=2&q=1", "a:1"),
        ] {
            let upstream: Upstream = text.parse().unwrap();
            assert_eq!(upstream.to_string(), text.trim_end_matches('/'));
            let (mut target, mut authority) = (Vec::new(), Vec::new());
            upstream.write_target(&mut target, "/predict", "q=1");
            upstream.write_host(&mut authority);
            assert_eq!(
                (target.as_slice(), authority.as_slice()),
                (path.as_bytes(), host.as_bytes())
            );
        }
        for text in [
            "",
            "127.0.0.1:1",
            "https://a:1",
            "http://",
            "http://:1",
            "http://a:0",
            "http://a:65536",
            "http://a:x",
            "http://a b:1",
            "http://a\r\n:1",
            "http://u@a:1",
            "http://a:1/x y",
            "http://a:1/#x",
            "http://[::1:1",
            "http://[x]:1",
            "http://a:1/\r\nX: y",
            "http://é:1",
        ] {
            assert!(text.parse::<Upstream>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn headers_of_one_connection_stay_there() {
        let text = "POST / HTTP/1.1\r\nHost: a\r\nA: 1\r\nConnection: x-mine, close\r\n\
                    X-Mine: 2\r\nTE: gzip\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\
                    Upgrade: h2c\r\nContent-Type: text/x\r\nB:\r\n\r\n";
        let mut room = room();
        let outline = RequestHead::parse(text.as_bytes(), &mut room).unwrap();
        let mut out = Vec::new();
        write_passed(outline.headers, REQUEST_ONLY, &mut out);
        let passed = String::from_utf8(out).unwrap();
        assert_eq!(passed, "A: 1\r\nContent-Type: text/x\r\nB: \r\n");
    }
}
