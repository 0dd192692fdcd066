//! The reading half: bytes in, heads and bodies out.

use httparse::{EMPTY_HEADER, Error, Request, Status};

use super::{BODY_BYTES_MAX, Fault, HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// The methods of RFC 9110 that carry no body here, and those that may.
const METHODS: &[&str] = &["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH"];

/// The methods whose body is never left out.
const WITH_BODY: &[&str] = &["POST", "PUT", "PATCH"];

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// In capitals.
    pub method: String,
    /// The path, as it was sent; begins with `/`.
    pub path: String,
    /// What follows the question mark, or nothing.
    pub query: String,
    /// The bytes of body that follow.
    pub body_len: usize,
    /// Whether the client waits for [`super::CONTINUE`] before it sends them.
    pub expects_continue: bool,
    /// Whether the client would go on with this connection.
    pub keep_alive: bool,
    /// Names in small letters, with their values, in the order of their coming.
    headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of this name, which is in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Collects what a connection brings and takes requests from it, one after another.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Bytes that were looked at without finding the end of a head.
    seen: usize,
    /// Whether a line has ended among them.
    has_line: bool,
}

impl Reader {
    /// Takes in what came. Call it only when a request or body is not complete without.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a request has begun and is not complete.
    pub const fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The next head, if all of it is here.
    ///
    /// # Errors
    /// When it is none, as soon as that is clear.
    pub fn head(&mut self) -> Result<Option<Head>, Fault> {
        let Some(len) = self.head_len()? else { return Ok(None) };
        let head = parse(&self.bytes[..len]);
        self.bytes.drain(..len);
        (self.seen, self.has_line) = (0, false);
        head.map(Some)
    }

    /// A body of `len` bytes, if all of it is here.
    pub fn body(&mut self, len: usize) -> Option<Vec<u8>> {
        (self.bytes.len() >= len).then(|| {
            let rest = self.bytes.split_off(len);
            std::mem::replace(&mut self.bytes, rest)
        })
    }

    /// Looks for the end of the head; each byte is looked at once, however they come.
    fn head_len(&mut self) -> Result<Option<usize>, Fault> {
        if self.seen <= 1 {
            // Blank lines after a body are a known habit of clients.
            let is_blank = |pair: &&[u8]| *pair == b"\r\n";
            let blanks = self.bytes.chunks_exact(2).take_while(is_blank).count();
            if blanks > 0 {
                self.bytes.drain(..2 * blanks);
                self.seen = 0;
            }
        }
        let end = self.bytes.len().min(HEAD_BYTES_MAX);
        while self.seen < end {
            let at = self.seen;
            let before = at.checked_sub(1).map(|before| self.bytes[before]);
            match self.bytes[at] {
                0 => return Err(Fault::Malformed),
                // Lines end with both, always: what one reader takes for an end is one for all.
                b'\n' if before != Some(b'\r') => return Err(Fault::Malformed),
                b'\n' => {
                    self.has_line = true;
                    if self.bytes[..=at].ends_with(b"\r\n\r\n") {
                        return Ok(Some(at + 1));
                    }
                }
                _ if before == Some(b'\r') => return Err(Fault::Malformed),
                _ => {}
            }
            self.seen += 1;
        }
        match (self.bytes.len() >= HEAD_BYTES_MAX, self.has_line) {
            (false, _) => Ok(None),
            (true, false) => Err(Fault::TargetTooLong),
            (true, true) => Err(Fault::HeadTooLong),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Head, Fault> {
    let mut room = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut room);
    match request.parse(bytes) {
        Ok(Status::Complete(len)) if len == bytes.len() => {}
        Ok(Status::Complete(_) | Status::Partial) => return Err(Fault::Malformed),
        Err(Error::TooManyHeaders) => return Err(Fault::HeadTooLong),
        Err(Error::Version) => return Err(version_fault(bytes)),
        Err(_) => return Err(Fault::Malformed),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Fault::Malformed);
    };
    if target.len() > TARGET_BYTES_MAX {
        return Err(Fault::TargetTooLong);
    }
    if !METHODS.contains(&method) {
        return Err(Fault::NotImplemented);
    }
    let mut headers = Vec::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let value = String::from_utf8_lossy(header.value).into_owned();
        headers.push((header.name.to_ascii_lowercase(), value));
    }
    let headers = Headers(headers);
    // RFC 9112, 3.2: one host, no more and no less.
    match headers.all("host").count() {
        1 => {}
        0 if minor == 0 => {}
        _ => return Err(Fault::Malformed),
    }
    let (path, query) = split(target)?;
    let body_len = headers.body_len(method, minor)?;
    Ok(Head {
        expects_continue: headers.expects_continue(minor)? && body_len > 0,
        keep_alive: headers.keep_alive(minor),
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        body_len,
        headers: headers.0,
    })
}

/// Another version of HTTP, or no version at all.
fn version_fault(bytes: &[u8]) -> Fault {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    match words[..] {
        [_, _, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9']]
        | [_, _, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']] => Fault::Version,
        _ => Fault::Malformed,
    }
}

/// Path and query of a target in its origin form or its absolute one.
fn split(target: &str) -> Result<(&str, &str), Fault> {
    let origin = match target.split_once("://") {
        Some(("http" | "https", rest)) if !target.starts_with('/') => {
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        }
        _ if target == "*" => "/",
        _ => target,
    };
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    match path {
        "" => Ok(("/", query)),
        _ if path.starts_with('/') => Ok((path, query)),
        _ => Err(Fault::Malformed),
    }
}

struct Headers(Vec<(String, String)>);

impl Headers {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// How long the body is, if there is only one reading of it.
    fn body_len(&self, method: &str, minor: u8) -> Result<usize, Fault> {
        let mut lengths = self.all("content-length");
        let (length, another) = (lengths.next(), lengths.next());
        if let Some(coding) = self.all("transfer-encoding").next() {
            let is_plain = length.is_none() && minor == 1;
            return Err(match coding.trim().eq_ignore_ascii_case("chunked") {
                _ if !is_plain || self.all("transfer-encoding").count() > 1 => Fault::Malformed,
                true => Fault::NoLength,
                false => Fault::NotImplemented,
            });
        }
        let length = match (length, another) {
            (_, Some(_)) => return Err(Fault::Malformed),
            (None, None) if WITH_BODY.contains(&method) => return Err(Fault::NoLength),
            (None, None) => return Ok(0),
            (Some(length), None) => length,
        };
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Fault::Malformed);
        }
        // A number that no machine can count to is too long as well.
        let length = length.parse().unwrap_or(usize::MAX);
        if length > BODY_BYTES_MAX { Err(Fault::BodyTooLong) } else { Ok(length) }
    }

    fn expects_continue(&self, minor: u8) -> Result<bool, Fault> {
        let mut expectations = self.all("expect").peekable();
        let is_any = expectations.peek().is_some();
        if !expectations.all(|it| it.eq_ignore_ascii_case("100-continue")) {
            return Err(Fault::Expectation);
        }
        Ok(is_any && minor == 1)
    }

    fn keep_alive(&self, minor: u8) -> bool {
        let words = || self.all("connection").flat_map(|value| value.split(',')).map(str::trim);
        let says = |word: &str| words().any(|it| it.eq_ignore_ascii_case(word));
        !says("close") && (minor == 1 || says("keep-alive"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Head>, Fault> {
        let mut reader = Reader::default();
        reader.feed(text.as_bytes());
        reader.head()
    }

    #[track_caller]
    fn head(text: &str) -> Head {
        read(text).expect("a request").expect("a whole one")
    }

    #[track_caller]
    fn refused(text: &str, fault: Fault) {
        assert_eq!(read(text), Err(fault), "{}", text.escape_debug());
    }

    fn get(headers: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
    }

    fn post(headers: &str) -> String {
        format!("POST /a HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
    }

    #[test]
    fn a_request_is_told_apart_into_its_parts() {
        let head = head("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nACCEPT: text/plain\r\n\r\n");
        assert_eq!((head.method.as_str(), head.path.as_str()), ("GET", "/metrics"));
        assert_eq!((head.query.as_str(), head.header("accept")), ("x=1", Some("text/plain")));
        assert_eq!((head.body_len, head.keep_alive, head.expects_continue), (0, true, false));
        for (target, path, query) in [
            ("http://h:1/p?q", "/p", "q"),
            ("http://h", "/", ""),
            ("http://h?q", "/", "q"),
            ("/a?b?c", "/a", "b?c"),
            ("*", "/", ""),
        ] {
            let head = self::head(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
            assert_eq!((head.path.as_str(), head.query.as_str()), (path, query), "{target}");
        }
    }

    #[test]
    fn requests_cut_anywhere_and_sent_together_are_the_same_requests() {
        let text =
            format!("{}body\r\n\r\nGET /next HTTP/1.0\r\n\r\n", post("Content-Length: 4\r\n"));
        for step in [1, 2, 3, 7, text.len()] {
            let (mut reader, mut heads, mut bodies) = (Reader::default(), vec![], vec![]);
            let mut wanted = None;
            for piece in text.as_bytes().chunks(step) {
                reader.feed(piece);
                loop {
                    match wanted {
                        Some(len) => match reader.body(len) {
                            Some(body) => bodies.push(body),
                            None => break,
                        },
                        None => match reader.head().expect("a request") {
                            Some(head) => heads.push(head),
                            None => break,
                        },
                    }
                    wanted = wanted.map_or_else(|| Some(heads[heads.len() - 1].body_len), |_| None);
                }
            }
            let paths: Vec<_> = heads.iter().map(|head| head.path.as_str()).collect();
            assert_eq!(paths, ["/a", "/next"], "in steps of {step}");
            assert_eq!(bodies, [b"body".to_vec(), vec![]], "in steps of {step}");
            assert!(!reader.has_begun());
        }
    }

    #[test]
    fn a_request_with_two_readings_is_refused() {
        for text in [
            post("Content-Length: 1\r\nContent-Length: 2\r\n"),
            post("Content-Length: 1\r\nContent-Length: 1\r\n"),
            post("Content-Length: 1, 1\r\n"),
            post("Content-Length: +1\r\n"),
            post("Content-Length: 0x1\r\n"),
            post("Content-Length:\r\n"),
            post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"),
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            post("Content-Length : 1\r\n"),
            get("X: a\r\n b\r\n"),
            get("X: a\rb\r\n"),
            get("X: a\nContent-Length: 1\r\n"),
            get("X: a\0\r\n"),
            get("X\r\n"),
            get(": x\r\n"),
            get("Host: y\r\n"),
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\nHost: x\n\n".to_owned(),
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "GET metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "GET /\r\n\r\n".to_owned(),
            "GET / HTTQ/1.1\r\n\r\n".to_owned(),
        ] {
            refused(&text, Fault::Malformed);
        }
    }

    #[test]
    fn what_is_not_served_has_a_status_of_its_own() {
        refused(&post("Transfer-Encoding: Chunked\r\n"), Fault::NoLength);
        refused(&post(""), Fault::NoLength);
        refused(&post("Transfer-Encoding: gzip\r\n"), Fault::NotImplemented);
        refused("BREW / HTTP/1.1\r\nHost: x\r\n\r\n", Fault::NotImplemented);
        refused("GET / HTTP/2.0\r\nHost: x\r\n\r\n", Fault::Version);
        refused("GET / HTTP/1.2\r\nHost: x\r\n\r\n", Fault::Version);
        refused(&get("Expect: a miracle\r\n"), Fault::Expectation);
    }

    #[test]
    fn everything_has_a_length_and_may_have_all_of_it() {
        let target = |len| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(len - 1));
        assert_eq!(head(&target(TARGET_BYTES_MAX)).path.len(), TARGET_BYTES_MAX);
        refused(&target(TARGET_BYTES_MAX + 1), Fault::TargetTooLong);
        refused(&format!("GET /{}", "a".repeat(HEAD_BYTES_MAX)), Fault::TargetTooLong);
        let filled = |len: usize| {
            let frame = get("X: \r\n").len();
            get(&format!("X: {}\r\n", "a".repeat(len - frame)))
        };
        assert_eq!(filled(HEAD_BYTES_MAX).len(), HEAD_BYTES_MAX);
        head(&filled(HEAD_BYTES_MAX));
        refused(&filled(HEAD_BYTES_MAX + 1), Fault::HeadTooLong);
        head(&get(&"X: y\r\n".repeat(HEADERS_MAX - 1)));
        refused(&get(&"X: y\r\n".repeat(HEADERS_MAX)), Fault::HeadTooLong);
        let body = |len: &str| post(&format!("Content-Length: {len}\r\n"));
        assert_eq!(head(&body(&BODY_BYTES_MAX.to_string())).body_len, BODY_BYTES_MAX);
        refused(&body(&(BODY_BYTES_MAX + 1).to_string()), Fault::BodyTooLong);
        refused(&body(&"9".repeat(60)), Fault::BodyTooLong);
    }

    #[test]
    fn a_client_says_whether_it_goes_on() {
        let old = |headers: &str| head(&format!("GET / HTTP/1.0\r\n{headers}\r\n")).keep_alive;
        assert!(!old("") && old("Connection: Keep-Alive\r\n"));
        assert!(!head(&get("Connection: x, Close\r\n")).keep_alive);
        let expecting = |length: u32| {
            let headers = format!("Content-Length: {length}\r\nExpect: 100-Continue\r\n");
            head(&post(&headers)).expects_continue
        };
        assert!(expecting(1) && !expecting(0));
    }
}
