//! Writer of responses.

/// The interim response to a client that asks before it sends a body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'static str,
    /// Headers beside those that every response has. Texts of this program only: no line breaks.
    pub headers: Vec<(&'static str, String)>,
    /// Bytes of the body.
    pub body: Vec<u8>,
}

impl Response {
    /// A response with a body.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    /// One sentence in plain text.
    pub fn text(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{text}\n"))
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Bytes of the response as sent; the answer to HEAD has all but the body.
    pub fn encode(&self, is_head: bool, keep_alive: bool) -> Vec<u8> {
        let Self { status, content_type, headers, body } = self;
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut out = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Connection: {connection}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n",
            reason(*status),
            body.len(),
        );
        for (name, value) in headers {
            debug_assert!(!value.contains(['\r', '\n']), "a header is one line");
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        let mut out = out.into_bytes();
        if !is_head {
            out.extend_from_slice(body);
        }
        out
    }
}

/// Reason phrase of a status code.
#[must_use]
pub const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_whole_and_its_head_is_the_same_without_body() {
        let response = Response::text(405, "no").with("Allow", "GET, HEAD");
        let whole = String::from_utf8(response.encode(false, true)).unwrap();
        let head = String::from_utf8(response.encode(true, true)).unwrap();
        assert_eq!(whole, format!("{head}no\n"));
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{head}");
        assert!(head.ends_with("\r\nAllow: GET, HEAD\r\n\r\n"), "{head}");
        for line in ["Content-Length: 3", "Connection: keep-alive", "nosniff"] {
            assert!(head.contains(line), "{head}");
        }
        let last = String::from_utf8(response.encode(true, false)).unwrap();
        assert!(last.contains("Connection: close"), "{last}");
    }
}
