//! HTTP on the one port of a node: one connection, served to its end on the thread it came with.
//!
//! Invariants:
//! - A connection ends within a bounded time for any behavior of its client, and no other
//!   connection ends with it.
//! - The number of connections is bounded, and so is the share of one address, so that HTTP takes
//!   no descriptors and threads from the fleet.
//! - A body is read only where the [`HttpHandler`] takes one.
//!
//! The content of answers is the handler's business.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;

use super::clock::Clock;
use super::driver::counters::Counter;
use super::driver::options::{RawConnection, ServeConnection};
use crate::model::Time;
use crate::proto::http::{CONTINUE, Head, RequestFault, RequestParser, Response};
use crate::runtime::engine::LINGER;

/// Largest number of HTTP connections at a time; above this new ones are answered with 503 and
/// closed.
const CONNECTIONS_MAX: usize = 64;

/// Largest number of these connections from one address.
const CONNECTIONS_OF_ONE_MAX: usize = 16;

/// Number of open connections above which none is kept after its answer.
const CONNECTIONS_KEPT_MAX: usize = 32;

/// Largest number of requests on one connection; with the last answer it is closed.
const REQUESTS_MAX: usize = 1000;

/// Time-out of a head from its first byte on, and of a body from the end of its head on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time-out of an idle connection between two requests: longer than the pauses of programs that
/// collect metrics.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Time-out of a client for reading an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest number of bytes that are read and thrown away meanwhile.
const DISCARD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Number of bytes read at once.
const READ_BYTES: usize = 4 * 1024;

/// Every status that a node gives.
const STATUSES: [u16; 14] = [200, 400, 403, 404, 405, 408, 411, 413, 414, 417, 431, 501, 503, 505];

/// A whole request.
#[derive(Debug)]
pub struct HttpRequest {
    /// Request line and headers.
    pub head: Head,
    /// Body of the request.
    pub body: Vec<u8>,
    /// Address of the client.
    pub from: SocketAddr,
}

/// Handler of requests, on any number of threads at once.
pub trait HttpHandler: Send + Sync {
    /// Response to a request whose body need not be read: nothing is at its path, or not with its
    /// method. `None` if [`Self::answer`] is to decide.
    fn refuse(&self, head: &Head) -> Option<Response>;

    /// Response to a request.
    fn answer(&self, request: &HttpRequest) -> Response;
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
    closed_idle: Counter,
    write_failed: Counter,
    /// As many as [`STATUSES`], in their order.
    answers: [Counter; STATUSES.len()],
}

/// Values of the counters at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct HttpMetrics {
    /// Connections served or refused.
    pub connections: u64,
    /// Requests read, with or without their body.
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

impl HttpCounters {
    /// Values of all counters.
    pub fn metrics(&self) -> HttpMetrics {
        let answers = STATUSES.iter().zip(&self.answers);
        HttpMetrics {
            connections: self.connections.get(),
            requests: self.requests.get(),
            answers: answers.map(|(status, count)| (status.to_string(), count.get())).collect(),
            refused_busy: self.refused_busy.get(),
            refused_access: self.refused_access.get(),
            closed_idle: self.closed_idle.get(),
            write_failed: self.write_failed.get(),
        }
    }

    fn count(&self, status: u16) {
        let place = STATUSES.iter().position(|known| *known == status);
        debug_assert!(place.is_some(), "{status} is not in the list");
        if let Some(place) = place {
            self.answers[place].add(1);
        }
    }
}

/// Time-outs of a client.
#[derive(Clone, Copy, Debug)]
struct Pace {
    request: Duration,
    idle: Duration,
    write: Duration,
}

/// Server of HTTP.
pub struct HttpServer {
    handler: Arc<dyn HttpHandler>,
    access: Access,
    pace: Pace,
    clock: Clock,
    counters: Arc<HttpCounters>,
    guests: Mutex<BTreeMap<IpAddr, usize>>,
}

/// Reason why no more requests are read.
enum End {
    /// The last request was answered.
    Done,
    /// The rest cannot be understood.
    Fault(RequestFault),
    /// The connection was idle for too long.
    Idle,
    /// The socket failed.
    Broken,
}

impl HttpServer {
    /// A server whose answers are those of `handler`.
    pub fn new(handler: Arc<dyn HttpHandler>, access: Access, counters: Arc<HttpCounters>) -> Self {
        let pace = Pace { request: REQUEST_TIMEOUT, idle: IDLE_TIMEOUT, write: WRITE_TIMEOUT };
        let guests = Mutex::default();
        Self { handler, access, pace, clock: Clock::start(), counters, guests }
    }

    fn guests(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.guests.lock().expect("nothing under this lock can panic")
    }

    /// Takes a place for one connection, if there is room.
    fn enter(&self, from: IpAddr) -> Option<ConnectionPermit<'_>> {
        let mut guests = self.guests();
        let all: usize = guests.values().sum();
        let own = guests.entry(from).or_default();
        if all >= CONNECTIONS_MAX || *own >= CONNECTIONS_OF_ONE_MAX {
            if *own == 0 {
                guests.remove(&from);
            }
            return None;
        }
        *own += 1;
        drop(guests);
        Some(ConnectionPermit { server: self, from })
    }

    fn is_crowded(&self) -> bool {
        self.guests().values().sum::<usize>() > CONNECTIONS_KEPT_MAX
    }

    /// Answers request after request; returns the reason why there are no more.
    fn converse(&self, connection: &mut RawConnection) -> End {
        let mut reader = RequestParser::default();
        for turn in 1..=REQUESTS_MAX {
            let head = match self.read_head(connection, &mut reader) {
                Ok(head) => head,
                Err(end) => return end,
            };
            self.counters.requests.add(1);
            let refusal = self.bar(&head, connection.from()).or_else(|| self.handler.refuse(&head));
            let may_go_on = head.keep_alive && turn < REQUESTS_MAX && !self.is_crowded();
            let (is_head, body_len) = (head.method == "HEAD", head.body_len);
            let (response, goes_on) = match refusal {
                // An unwanted body is not read; the next request would begin behind it.
                Some(refusal) => (refusal, may_go_on && body_len == 0),
                None => {
                    // A client whose body is on its way does not wait for this.
                    let expects = head.expects_continue && !reader.has_begun();
                    if expects && self.write(connection.stream(), CONTINUE).is_err() {
                        return End::Broken;
                    }
                    let body = match self.read_body(connection, &mut reader, body_len) {
                        Ok(body) => body,
                        Err(end) => return end,
                    };
                    let request = HttpRequest { head, body, from: connection.from() };
                    (self.handler.answer(&request), may_go_on)
                }
            };
            if !self.write_response(connection.stream(), &response, is_head, goes_on) {
                return End::Broken;
            }
            if !goes_on {
                return End::Done;
            }
        }
        End::Done
    }

    /// Refusal of a request because of its sender, if it is not allowed.
    fn bar(&self, head: &Head, from: SocketAddr) -> Option<Response> {
        let is_let_in = match self.access {
            Access::Any => true,
            Access::Loopback => {
                from.ip().to_canonical().is_loopback()
                    && head.header("host").is_none_or(is_own_name)
            }
        };
        (!is_let_in).then(|| {
            self.counters.refused_access.add(1);
            Response::text(403, "this node answers programs of its own machine only; see --http")
        })
    }

    /// Waits for the next request, and reads its head.
    fn read_head(
        &self,
        connection: &mut RawConnection,
        reader: &mut RequestParser,
    ) -> Result<Head, End> {
        let mut began = reader.has_begun();
        let mut deadline = self.after(if began { self.pace.request } else { self.pace.idle });
        loop {
            if let Some(head) = reader.head().map_err(End::Fault)? {
                return Ok(head);
            }
            match self.read(connection, reader, deadline) {
                Ok(0) if began => return Err(End::Fault(RequestFault::Malformed)),
                Ok(0) => return Err(End::Done),
                Ok(_) if !began => {
                    began = true;
                    deadline = self.after(self.pace.request);
                }
                Ok(_) => {}
                Err(err) if is_late(&err) && began => {
                    return Err(End::Fault(RequestFault::TooSlow));
                }
                Err(err) if is_late(&err) => return Err(End::Idle),
                Err(_) => return Err(End::Broken),
            }
        }
    }

    fn read_body(
        &self,
        connection: &mut RawConnection,
        reader: &mut RequestParser,
        len: usize,
    ) -> Result<Vec<u8>, End> {
        let deadline = self.after(self.pace.request);
        loop {
            if let Some(body) = reader.body(len) {
                return Ok(body);
            }
            match self.read(connection, reader, deadline) {
                Ok(0) => return Err(End::Fault(RequestFault::Malformed)),
                Ok(_) => {}
                Err(err) if is_late(&err) => return Err(End::Fault(RequestFault::TooSlow)),
                Err(_) => return Err(End::Broken),
            }
        }
    }

    /// Reads once, any number of bytes; 0 at the end of the stream.
    fn read(
        &self,
        connection: &mut RawConnection,
        reader: &mut RequestParser,
        deadline: Time,
    ) -> io::Result<usize> {
        let mut bytes = [0; READ_BYTES];
        loop {
            let left = deadline.since(self.clock.now().mono);
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            connection.stream().set_read_timeout(Some(left))?;
            match connection.read(&mut bytes) {
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
                Ok(len) => {
                    reader.feed(&bytes[..len]);
                    return Ok(len);
                }
            }
        }
    }

    /// Writes an answer and counts it; false if the client does not take it.
    fn write_response(
        &self,
        stream: &TcpStream,
        response: &Response,
        is_head: bool,
        keep_alive: bool,
    ) -> bool {
        self.counters.count(response.status);
        let written = self.write(stream, &response.encode(is_head, keep_alive));
        if written.is_err() {
            self.counters.write_failed.add(1);
        }
        written.is_ok()
    }

    /// Writes all of `bytes`. A client gains no time by taking a byte now and then.
    fn write(&self, mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        let deadline = self.after(self.pace.write);
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = deadline.since(self.clock.now().mono);
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            stream.set_write_timeout(Some(left))?;
            match stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => rest = &rest[len..],
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Closes a connection so that the last answer arrives: closing a socket with unread input
    /// would reset it.
    fn part(&self, connection: &mut RawConnection) {
        if connection.stream().shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline = self.after(LINGER);
        let mut discarded = 0;
        while discarded < DISCARD_BYTES_MAX {
            match self.read(connection, &mut RequestParser::default(), deadline) {
                Ok(0) | Err(_) => return,
                Ok(len) => discarded += len,
            }
        }
    }

    fn after(&self, span: Duration) -> Time {
        self.clock.now().mono.after(span)
    }
}

impl ServeConnection for HttpServer {
    fn serve(&self, connection: RawConnection) {
        let mut connection = connection;
        let _ = connection.stream().set_nodelay(true);
        self.counters.connections.add(1);
        let Some(place) = self.enter(connection.from().ip()) else {
            self.counters.refused_busy.add(1);
            let busy = Response::text(503, "too many connections; try again in a moment");
            self.write_response(connection.stream(), &busy.with("Retry-After", "1"), false, false);
            // A refused connection may not cost as much as a served one: no lingering.
            return;
        };
        match self.converse(&mut connection) {
            End::Done => self.part(&mut connection),
            End::Fault(fault) => {
                let response = Response::text(fault.status(), &fault.explain());
                if self.write_response(connection.stream(), &response, false, false) {
                    self.part(&mut connection);
                }
            }
            End::Idle => self.counters.closed_idle.add(1),
            End::Broken => {}
        }
        drop(place);
    }
}

/// One connection's place; free again when dropped.
struct ConnectionPermit<'a> {
    server: &'a HttpServer,
    from: IpAddr,
}

impl Drop for ConnectionPermit<'_> {
    fn drop(&mut self) {
        let mut guests = self.server.guests();
        let left = guests.get(&self.from).map_or(0, |count| count - 1);
        if left == 0 {
            guests.remove(&self.from);
        } else {
            guests.insert(self.from, left);
        }
    }
}

fn is_late(err: &io::Error) -> bool {
    matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
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
