//! Parser of the head of a request, without a copy of it: its length, fields, and the framing of
//! the body.

use httparse::{Error, Header, Request, Status};

use super::{HEAD_BYTES_MAX, HEADERS_MAX, RequestFault, TARGET_BYTES_MAX};

/// The methods of RFC 9110 that carry no body here, and those that may.
const METHODS: &[&str] = &["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH"];

/// The methods whose body is never left out.
const WITH_BODY: &[&str] = &["POST", "PUT", "PATCH"];

/// Room for the headers of one message.
pub type HeaderSlots<'b> = [Header<'b>; HEADERS_MAX];

/// Room without headers.
#[must_use]
pub const fn room<'b>() -> HeaderSlots<'b> {
    [httparse::EMPTY_HEADER; HEADERS_MAX]
}

/// Framing of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The body has so many bytes; more than fit into memory are [`usize::MAX`].
    Length(usize),
    /// The body comes in chunks, see [`super::Chunks`].
    Chunked,
}

/// Parsed head of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'r, 'b> {
    /// Method, in capitals.
    pub method: &'b str,
    /// The path, as it was sent; begins with `/`.
    pub path: &'b str,
    /// Query behind the question mark; empty without one.
    pub query: &'b str,
    /// The body that follows.
    pub framing: Framing,
    /// True if the client waits for [`super::CONTINUE`] before it sends the body.
    pub expects_continue: bool,
    /// True if the client would go on with this connection.
    pub keep_alive: bool,
    /// 0 or 1: HTTP/1.0 or 1.1.
    pub minor: u8,
    /// The headers, in the order of their coming.
    pub headers: Headers<'r, 'b>,
}

/// Looks for the end of a head; each byte is looked at once, however they come.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScanner {
    /// Bytes that were looked at without finding the end.
    seen: usize,
    /// True if a line has ended among them.
    has_line: bool,
}

/// Number of bytes of blank lines before a head; a known habit of clients after a body.
#[must_use]
pub fn blanks(bytes: &[u8]) -> usize {
    2 * bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count()
}

impl HeadScanner {
    /// The length of the head that `bytes` begin with, if all of it is here. Between two calls
    /// bytes may only be added.
    ///
    /// # Errors
    /// Fails if the bytes are no head, as soon as that is clear.
    pub fn head_len(&mut self, bytes: &[u8]) -> Result<Option<usize>, RequestFault> {
        let end = bytes.len().min(HEAD_BYTES_MAX);
        let mut before = self.seen.checked_sub(1).map(|before| bytes[before]);
        for (at, &byte) in bytes.iter().enumerate().take(end).skip(self.seen) {
            match byte {
                0 => return Err(RequestFault::Malformed),
                // Lines end with both, always: what one reader takes for an end is one for all.
                b'\n' if before != Some(b'\r') => return Err(RequestFault::Malformed),
                b'\n' => {
                    self.has_line = true;
                    if bytes[..=at].ends_with(b"\r\n\r\n") {
                        return Ok(Some(at + 1));
                    }
                }
                _ if before == Some(b'\r') => return Err(RequestFault::Malformed),
                _ => {}
            }
            before = Some(byte);
        }
        self.seen = end;
        match (bytes.len() >= HEAD_BYTES_MAX, self.has_line) {
            (false, _) => Ok(None),
            (true, false) => Err(RequestFault::TargetTooLong),
            (true, true) => Err(RequestFault::HeadTooLong),
        }
    }
}

impl<'r, 'b> RequestHead<'r, 'b> {
    /// Reads a whole head.
    ///
    /// # Errors
    /// Fails if the bytes are no head, or one with two readings.
    pub fn parse(bytes: &'b [u8], room: &'r mut HeaderSlots<'b>) -> Result<Self, RequestFault> {
        let mut request = Request::new(room);
        match request.parse(bytes) {
            Ok(Status::Complete(len)) if len == bytes.len() => {}
            Ok(Status::Complete(_) | Status::Partial) => return Err(RequestFault::Malformed),
            Err(Error::TooManyHeaders) => return Err(RequestFault::HeadTooLong),
            Err(Error::Version) => return Err(version_fault(bytes)),
            Err(_) => return Err(RequestFault::Malformed),
        }
        let Request { method: Some(method), path: Some(target), version: Some(minor), headers } =
            request
        else {
            return Err(RequestFault::Malformed);
        };
        if target.len() > TARGET_BYTES_MAX {
            return Err(RequestFault::TargetTooLong);
        }
        if !METHODS.contains(&method) {
            return Err(RequestFault::NotImplemented);
        }
        let headers = Headers(headers);
        // RFC 9112, 3.2: one host, no more and no less.
        match headers.all("host").count() {
            1 => {}
            0 if minor == 0 => {}
            _ => return Err(RequestFault::Malformed),
        }
        let (path, query) = split(target)?;
        let framing = headers.framing(method, minor)?;
        let expects_continue = headers.expects_continue(minor)? && framing != Framing::Length(0);
        let keep_alive = headers.keep_alive(minor);
        Ok(Self { method, path, query, framing, expects_continue, keep_alive, minor, headers })
    }
}

/// Another version of HTTP, or no version at all.
fn version_fault(bytes: &[u8]) -> RequestFault {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    match words[..] {
        [_, _, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9']]
        | [_, _, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']] => {
            RequestFault::Version
        }
        _ => RequestFault::Malformed,
    }
}

/// Path and query of a target in its origin form or its absolute one.
fn split(target: &str) -> Result<(&str, &str), RequestFault> {
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
        _ => Err(RequestFault::Malformed),
    }
}

/// The headers of a message.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'r, 'b>(pub(super) &'r [Header<'b>]);

impl<'r, 'b> Headers<'r, 'b> {
    /// Names and values, in the order of their coming.
    pub fn iter(self) -> impl Iterator<Item = (&'b str, &'b [u8])> + 'r {
        self.0.iter().map(|header| (header.name, header.value))
    }

    /// The values of all headers of this name; capitals and small letters are the same.
    pub fn all(self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.0.iter().filter_map(move |header| {
            header.name.eq_ignore_ascii_case(name).then_some(header.value)
        })
    }

    /// The first value of the headers of this name.
    #[must_use]
    pub fn first(self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// True if the header `name` contains `word` among its comma-separated words.
    #[must_use]
    pub fn says(self, name: &str, word: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|it| it.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    }

    /// True if a message of HTTP/1.`minor` with these headers lets its connection go on.
    #[must_use]
    pub fn keep_alive(self, minor: u8) -> bool {
        !self.says("connection", "close") && (minor == 1 || self.says("connection", "keep-alive"))
    }

    /// Length of the body by the header Content-Length; `None` without the header.
    ///
    /// # Errors
    /// Fails if the header is repeated or is no plain number.
    pub(super) fn length(self) -> Result<Option<usize>, RequestFault> {
        let mut lengths = self.all("content-length");
        let Some(length) = lengths.next() else { return Ok(None) };
        let is_plain = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        if !is_plain || lengths.next().is_some() {
            return Err(RequestFault::Malformed);
        }
        let text = std::str::from_utf8(length).map_err(|_| RequestFault::Malformed)?;
        // A number that no machine can count to is too long as well.
        Ok(Some(text.parse().unwrap_or(usize::MAX)))
    }

    /// True if the body comes in chunks, by the header Transfer-Encoding.
    ///
    /// # Errors
    /// Fails if there are two readings of the end of the body, or another coding.
    pub(super) fn is_chunked(self, minor: u8) -> Result<bool, RequestFault> {
        let mut codings = self.all("transfer-encoding");
        let Some(coding) = codings.next() else { return Ok(false) };
        let is_plain = minor == 1 && self.first("content-length").is_none();
        match coding.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            _ if !is_plain || codings.next().is_some() => Err(RequestFault::Malformed),
            true => Ok(true),
            false => Err(RequestFault::NotImplemented),
        }
    }

    fn framing(self, method: &str, minor: u8) -> Result<Framing, RequestFault> {
        if self.is_chunked(minor)? {
            return Ok(Framing::Chunked);
        }
        match self.length()? {
            None if WITH_BODY.contains(&method) => Err(RequestFault::NoLength),
            length => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }

    fn expects_continue(self, minor: u8) -> Result<bool, RequestFault> {
        let mut expectations = self.all("expect").peekable();
        let is_any = expectations.peek().is_some();
        if !expectations.all(|it| it.eq_ignore_ascii_case(b"100-continue")) {
            return Err(RequestFault::Expectation);
        }
        Ok(is_any && minor == 1)
    }
}
