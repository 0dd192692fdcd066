//! Requests of this program to the web: one `GET`, over HTTP without encryption.
//!
//! Invariants: a request ends within the time that it was given, apart from the look-up of a name;
//! an answer takes a bounded memory.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crate::model::Time;
use crate::runtime::clock::Clock;

/// Largest number of bytes of an answer, with its head.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Asks `url` within so much time; returns the status and the body of the answer.
///
/// # Errors
/// Fails if there is no whole answer; the text says why, for people.
pub fn get(url: &str, within: Duration) -> Result<(u16, Vec<u8>), String> {
    let rest = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => rest,
        (None, Some(_)) => return Err("https is not supported, only http".to_owned()),
        (None, None) => return Err("its address does not begin with http://".to_owned()),
    };
    let (authority, target) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let slash = if target.starts_with('/') { "" } else { "/" };
    let head = format!(
        "GET {slash}{target} HTTP/1.0\r\nHost: {authority}\r\nAccept: */*\r\nConnection: \
         close\r\n\r\n"
    );
    let clock = Clock::start();
    let deadline = clock.mono().after(within);
    let asked = ask(authority, &head, (clock, deadline));
    let answer = asked.map_err(|error| {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            return "it does not answer in time".to_owned();
        }
        format!("it cannot be asked: {error}")
    })?;
    parsed(&answer).ok_or_else(|| "it gives no whole answer in HTTP".to_owned())
}

/// Time until the deadline.
fn left((clock, deadline): (Clock, Time)) -> io::Result<Duration> {
    let left = deadline.since(clock.mono());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn ask(authority: &str, head: &str, until: (Clock, Time)) -> io::Result<Vec<u8>> {
    let has_port = authority.rsplit_once(':').is_some_and(|it| !it.1.contains(']'));
    let named = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut failure = io::Error::new(ErrorKind::NotFound, "its name has no address");
    for address in named.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, left(until)?) {
            Ok(stream) => stream,
            Err(error) => {
                failure = error;
                continue;
            }
        };
        stream.set_write_timeout(Some(left(until)?))?;
        stream.write_all(head.as_bytes())?;
        let (mut answer, mut part) = (Vec::new(), [0; 8192]);
        loop {
            stream.set_read_timeout(Some(left(until)?))?;
            let len = stream.read(&mut part)?;
            if len == 0 {
                return Ok(answer);
            }
            if answer.len() + len > ANSWER_BYTES_MAX {
                return Err(io::Error::other("its answer is longer than 1 MiB"));
            }
            answer.extend_from_slice(&part[..len]);
        }
    }
    Err(failure)
}

/// Status and body of an answer that ends with its connection; `None` if it is none, or cut off.
fn parsed(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[end + 4..];
    let is_length = |line: &&str| {
        line.split_once(':').is_some_and(|it| it.0.eq_ignore_ascii_case("content-length"))
    };
    let Some(line) = lines.find(is_length) else { return Some((status, body.to_vec())) };
    let length: usize = line.split_once(':')?.1.trim().parse().ok()?;
    Some((status, body.get(..length)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::runtime::thread;

    const WITHIN: Duration = Duration::from_secs(20);

    /// Asks a server that says `answer` to one request; returns what it was asked, too.
    fn asked(path: &str, answer: &'static [u8]) -> (Result<(u16, Vec<u8>), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = thread::spawn("server", move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(answer).unwrap();
            String::from_utf8(head).unwrap()
        });
        let result = get(&format!("http://{at}{path}"), WITHIN);
        (result, server.unwrap().join().unwrap())
    }

    #[test]
    fn an_answer_has_its_status_and_body() {
        let (answer, head) = asked("/a?b=c", b"HTTP/1.1 204 No\r\nX: y\r\n\r\n");
        assert_eq!(answer, Ok((204, Vec::new())));
        assert!(head.starts_with("GET /a?b=c HTTP/1.0\r\nHost: 127.0.0.1:"), "{head}");
        let (answer, head) = asked("", b"HTTP/1.0 500 No\r\ncontent-length: 2\r\n\r\nhi");
        assert_eq!(answer, Ok((500, b"hi".to_vec())));
        assert!(head.starts_with("GET / HTTP/1.0\r\n"), "{head}");
        assert_eq!(asked("/", b"HTTP/1.1 200 OK\r\n\r\nall").0, Ok((200, b"all".to_vec())));
        for wrong in
            [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b"SSH\r\n\r\n"]
        {
            assert!(asked("/", wrong).0.unwrap_err().contains("no whole answer"), "{wrong:?}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        assert!(get("https://localhost", WITHIN).unwrap_err().contains("https"));
        assert!(get("ftp://localhost", WITHIN).unwrap_err().contains("http://"));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(get(&format!("http://{closed}"), WITHIN).unwrap_err().contains("cannot be asked"));
        // A server that takes connections and is silent.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = silent.local_addr().unwrap();
        let answer = get(&format!("http://{at}"), Duration::from_millis(50));
        assert!(answer.unwrap_err().contains("in time"));
    }
}
