//! A small client of data planes: one request, one answer, all within one time-out.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crate::model::Time;
use crate::proto::http::{Chunks, ResponseFraming, ResponseHead, room};
use crate::runtime::clock::Clock;

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Answer of a data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Reply {
    /// HTTP status of the answer.
    pub(in crate::cli) status: u16,
    /// Model that answered, by the header `X-Model`.
    pub(in crate::cli) model: Option<String>,
    /// Body of the answer.
    pub(in crate::cli) body: Vec<u8>,
}

/// Asks the data plane at `HOST:PORT`. With a body it is a POST, without one a GET.
///
/// # Errors
/// Fails with the reason for people if there is no whole answer in time.
pub(in crate::cli) fn request(
    at: &str,
    path: &str,
    body: Option<&[u8]>,
    timeout: Duration,
) -> Result<Reply, String> {
    let clock = Clock::start();
    let deadline = clock.mono().after(timeout);
    let exchange = || -> io::Result<Reply> {
        let mut stream = connect(at, timeout)?;
        let method = if body.is_some() { "POST" } else { "GET" };
        let body = body.unwrap_or_default();
        let mut bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(&bytes)?;
        read(&mut stream, &clock, deadline)
    };
    exchange().map_err(|error| {
        let kind = error.kind();
        if matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            format!("no answer within {}", super::format::span(timeout))
        } else if kind == ErrorKind::ConnectionRefused {
            "nobody listens there".to_owned()
        } else if matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) {
            "it closed the connection without an answer".to_owned()
        } else {
            error.to_string()
        }
    })
}

fn connect(at: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::other("this name has no address");
    for addr in at.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn read(stream: &mut TcpStream, clock: &Clock, deadline: Time) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    let mut part = [0; 8 * 1024];
    loop {
        let left = deadline.since(clock.mono());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut part)?;
        bytes.extend_from_slice(&part[..count]);
        if let Some(reply) = parse(&bytes, count == 0)? {
            return Ok(reply);
        }
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}

/// Returns the answer, once all of it is there.
fn parse(bytes: &[u8], is_end: bool) -> io::Result<Option<Reply>> {
    let wrong = |_| io::Error::other("the answer is not HTTP");
    let mut room = room();
    let Some((len, head)) = ResponseHead::parse(bytes, &mut room).map_err(wrong)? else {
        return Ok(None);
    };
    let rest = &bytes[len..];
    let body = match head.body {
        ResponseFraming::Length(count) => rest.get(..count).map(<[u8]>::to_vec),
        ResponseFraming::UntilClose => is_end.then(|| rest.to_vec()),
        ResponseFraming::Chunked => {
            let mut body = Vec::new();
            let taken = Chunks::default().take(rest, &mut body, ANSWER_BYTES_MAX).map_err(wrong)?;
            taken.1.then_some(body)
        }
    };
    let model = head.headers.first("x-model").map(|it| String::from_utf8_lossy(it).into_owned());
    Ok(body.map(|body| Reply { status: head.status, model, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_not_there() {
        let text = b"HTTP/1.1 200 OK\r\nX-Model: v2\r\nContent-Length: 2\r\n\r\nok";
        for cut in 0..text.len() {
            assert!(parse(&text[..cut], false).unwrap().is_none(), "{cut}");
        }
        let reply = parse(text, false).unwrap().unwrap();
        assert_eq!((reply.status, reply.model.as_deref()), (200, Some("v2")));
        assert_eq!(reply.body, b"ok");
        let chunked = b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
        let reply = parse(chunked, false).unwrap().unwrap();
        assert_eq!((reply.status, &reply.body[..], reply.model), (500, &b"no"[..], None));
        assert!(parse(b"SSH-2.0-OpenSSH\r\n\r\n", false).is_err());
    }

    #[test]
    fn nobody_there_is_told_plainly() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reply = request(&gone.to_string(), "/health", None, Duration::from_secs(5));
        assert_eq!(reply.unwrap_err(), "nobody listens there");
    }
}
