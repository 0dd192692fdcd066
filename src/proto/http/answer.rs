//! Head of an HTTP response that another server sent.

use httparse::{Error, Status};

use super::head::{HeaderSlots, Headers};
use super::{HEAD_BYTES_MAX, RequestFault};

/// Framing of a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// The body has so many bytes.
    Length(usize),
    /// The body comes in chunks.
    Chunked,
    /// The body ends with the connection.
    UntilClose,
}

/// Parsed head of a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'r, 'b> {
    /// Status code of three digits; below 200 another head follows.
    pub status: u16,
    /// Framing of the body.
    pub body: ResponseFraming,
    /// True if the connection can be used again after this response.
    pub keep_alive: bool,
    /// Headers of the response.
    pub headers: Headers<'r, 'b>,
}

impl<'r, 'b> ResponseHead<'r, 'b> {
    /// The answer to a request other than HEAD, with the length of its head, if all of the head is
    /// at the beginning of `bytes`.
    ///
    /// # Errors
    /// Fails if the bytes are no head of a response, or one with two readings.
    pub fn parse(
        bytes: &'b [u8],
        room: &'r mut HeaderSlots<'b>,
    ) -> Result<Option<(usize, Self)>, RequestFault> {
        let mut response = httparse::Response::new(room);
        let len = match response.parse(bytes) {
            Ok(Status::Complete(len)) if len <= HEAD_BYTES_MAX => len,
            Ok(Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
            Ok(_) | Err(Error::TooManyHeaders) => return Err(RequestFault::HeadTooLong),
            Err(_) => return Err(RequestFault::Malformed),
        };
        let httparse::Response { version: Some(minor), code: Some(status), headers, .. } = response
        else {
            return Err(RequestFault::Malformed);
        };
        if !(100..=599).contains(&status) {
            return Err(RequestFault::Malformed);
        }
        let headers = Headers(headers);
        let body = match (status, headers.is_chunked(minor)?, headers.length()?) {
            (..200 | 204 | 304, _, _) => ResponseFraming::Length(0),
            (_, true, _) => ResponseFraming::Chunked,
            (_, false, Some(len)) => ResponseFraming::Length(len),
            (_, false, None) => ResponseFraming::UntilClose,
        };
        let keep_alive = headers.keep_alive(minor) && body != ResponseFraming::UntilClose;
        Ok(Some((len, Self { status, body, keep_alive, headers })))
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::room;
    use super::*;

    fn read(text: &str) -> Result<Option<(u16, ResponseFraming, bool)>, RequestFault> {
        let mut room = room();
        let read = ResponseHead::parse(text.as_bytes(), &mut room)?;
        Ok(read.map(|(_, it)| (it.status, it.body, it.keep_alive)))
    }

    #[test]
    fn the_end_of_a_body_is_told_in_one_way() {
        use ResponseFraming::{Chunked, Length, UntilClose};
        for (head, wanted) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3", (200, Length(3), true)),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked", (200, Chunked, true)),
            ("HTTP/1.1 500 Oh no\r\nA: b", (500, UntilClose, false)),
            ("HTTP/1.1 204 \r\nA: b", (204, Length(0), true)),
            ("HTTP/1.1 100 Continue\r\nA: b", (100, Length(0), true)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 3", (200, Length(3), false)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Close", (200, Length(3), false)),
        ] {
            for cut in 0..head.len() + 3 {
                assert_eq!(read(&format!("{head}\r\n\r\n")[..cut]), Ok(None), "{head} {cut}");
            }
            assert_eq!(read(&format!("{head}\r\n\r\n")), Ok(Some(wanted)), "{head}");
        }
    }

    #[test]
    fn an_answer_with_two_readings_is_none() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4",
            "HTTP/1.1 200 OK\r\nContent-Length: x",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 999 OK\r\nContent-Length: 3",
            "HTTP/1.1 000 OK\r\nContent-Length: 3",
            "HTTP/2 200",
            "SSH-2.0-OpenSSH",
        ] {
            assert_eq!(read(&format!("{head}\r\n\r\n")), Err(RequestFault::Malformed), "{head}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD_BYTES_MAX));
        assert_eq!(read(&long), Err(RequestFault::HeadTooLong));
    }
}
