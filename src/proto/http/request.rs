//! Reader of requests: bytes in, heads and bodies out.

use super::head::{Framing, HeadScanner, RequestHead, blanks, room};
use super::{BODY_BYTES_MAX, RequestFault};

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Method, in capitals.
    pub method: String,
    /// The path, as it was sent; begins with `/`.
    pub path: String,
    /// Query behind the question mark; empty without one.
    pub query: String,
    /// The bytes of body that follow.
    pub body_len: usize,
    /// True if the client waits for [`super::CONTINUE`] before it sends the body.
    pub expects_continue: bool,
    /// True if the client would go on with this connection.
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
pub struct RequestParser {
    bytes: Vec<u8>,
    scan: HeadScanner,
}

impl RequestParser {
    /// Appends received bytes. To be called only when a request or body is not complete without.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// True if a request has begun and is not complete.
    pub const fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The next head, if all of it is here.
    ///
    /// # Errors
    /// Fails if the bytes are no head, as soon as that is clear.
    pub fn head(&mut self) -> Result<Option<Head>, RequestFault> {
        let blanks = blanks(&self.bytes);
        if blanks > 0 {
            self.bytes.drain(..blanks);
            self.scan = HeadScanner::default();
        }
        let Some(len) = self.scan.head_len(&self.bytes)? else { return Ok(None) };
        let head = Head::parse(&self.bytes[..len]);
        self.bytes.drain(..len);
        self.scan = HeadScanner::default();
        head.map(Some)
    }

    /// A body of `len` bytes, if all of it is here.
    pub fn body(&mut self, len: usize) -> Option<Vec<u8>> {
        (self.bytes.len() >= len).then(|| {
            let rest = self.bytes.split_off(len);
            std::mem::replace(&mut self.bytes, rest)
        })
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, RequestFault> {
        let mut room = room();
        let outline = RequestHead::parse(bytes, &mut room)?;
        let body_len = match outline.framing {
            Framing::Length(len) if len > BODY_BYTES_MAX => return Err(RequestFault::BodyTooLong),
            Framing::Length(len) => len,
            // Bodies for a node are short; their length can be given in advance.
            Framing::Chunked => return Err(RequestFault::NoLength),
        };
        let text = |value| String::from_utf8_lossy(value).into_owned();
        let headers = outline.headers.iter();
        Ok(Self {
            method: outline.method.to_owned(),
            path: outline.path.to_owned(),
            query: outline.query.to_owned(),
            body_len,
            expects_continue: outline.expects_continue,
            keep_alive: outline.keep_alive,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), text(value)))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

    fn read(text: &str) -> Result<Option<Head>, RequestFault> {
        let mut reader = RequestParser::default();
        reader.feed(text.as_bytes());
        reader.head()
    }

    #[track_caller]
    fn head(text: &str) -> Head {
        read(text).expect("a request").expect("a whole one")
    }

    #[track_caller]
    fn refused(text: &str, fault: RequestFault) {
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
            let (mut reader, mut heads, mut bodies) = (RequestParser::default(), vec![], vec![]);
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
            refused(&text, RequestFault::Malformed);
        }
    }

    #[test]
    fn what_is_not_served_has_a_status_of_its_own() {
        refused(&post("Transfer-Encoding: Chunked\r\n"), RequestFault::NoLength);
        refused(&post(""), RequestFault::NoLength);
        refused(&post("Transfer-Encoding: gzip\r\n"), RequestFault::NotImplemented);
        refused("BREW / HTTP/1.1\r\nHost: x\r\n\r\n", RequestFault::NotImplemented);
        refused("GET / HTTP/2.0\r\nHost: x\r\n\r\n", RequestFault::Version);
        refused("GET / HTTP/1.2\r\nHost: x\r\n\r\n", RequestFault::Version);
        refused(&get("Expect: a miracle\r\n"), RequestFault::Expectation);
    }

    #[test]
    fn everything_has_a_length_and_may_have_all_of_it() {
        let target = |len| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(len - 1));
        assert_eq!(head(&target(TARGET_BYTES_MAX)).path.len(), TARGET_BYTES_MAX);
        refused(&target(TARGET_BYTES_MAX + 1), RequestFault::TargetTooLong);
        refused(&format!("GET /{}", "a".repeat(HEAD_BYTES_MAX)), RequestFault::TargetTooLong);
        let filled = |len: usize| {
            let frame = get("X: \r\n").len();
            get(&format!("X: {}\r\n", "a".repeat(len - frame)))
        };
        assert_eq!(filled(HEAD_BYTES_MAX).len(), HEAD_BYTES_MAX);
        head(&filled(HEAD_BYTES_MAX));
        refused(&filled(HEAD_BYTES_MAX + 1), RequestFault::HeadTooLong);
        head(&get(&"X: y\r\n".repeat(HEADERS_MAX - 1)));
        refused(&get(&"X: y\r\n".repeat(HEADERS_MAX)), RequestFault::HeadTooLong);
        let body = |len: &str| post(&format!("Content-Length: {len}\r\n"));
        assert_eq!(head(&body(&BODY_BYTES_MAX.to_string())).body_len, BODY_BYTES_MAX);
        refused(&body(&(BODY_BYTES_MAX + 1).to_string()), RequestFault::BodyTooLong);
        refused(&body(&"9".repeat(60)), RequestFault::BodyTooLong);
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
