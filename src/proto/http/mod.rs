//! HTTP/1.0 and 1.1, the part that a node speaks: requests read, responses written.
//!
//! Invariants:
//! - Every part of a request is bounded before it is kept: head, headers, target, body.
//! - A request whose end two readers could see at different places is refused (RFC 9112, 11.2):
//!   nothing in front of a node can be made to take one request for two.
//! - Every input has an answer: a request, the wish for more, or a [`RequestFault`] with its
//!   status.
//!
//! Pure: the caller owns the socket and the deadlines. After a fault the connection is at an
//! unknown place and has to be closed.

mod answer;
mod chunks;
mod head;
mod request;
mod response;

pub use answer::{ResponseFraming, ResponseHead};
pub use chunks::Chunks;
pub use head::{Framing, HeadScanner, HeaderSlots, Headers, RequestHead, blanks, room};
pub use request::{Head, RequestParser};
pub use response::{CONTINUE, Response, reason};

/// The longest head of a request in bytes: its line, its headers, and the blank line.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The longest target of a request in bytes.
pub const TARGET_BYTES_MAX: usize = 2048;

/// Headers of a request at most.
pub const HEADERS_MAX: usize = 64;

/// The longest body of a request in bytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Reason why a request cannot be served at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestFault {
    /// The bytes are no request, or one with two readings.
    Malformed,
    /// The request did not come in time.
    TooSlow,
    /// The length of the body is not given in advance.
    NoLength,
    /// The body is too long.
    BodyTooLong,
    /// The target is too long.
    TargetTooLong,
    /// The request expects something that no node does.
    Expectation,
    /// The head is too long, or has too many headers.
    HeadTooLong,
    /// The method, or the coding of the body, is unknown here.
    NotImplemented,
    /// The version is not HTTP/1.0 or 1.1.
    Version,
}

impl RequestFault {
    /// HTTP status of the response to this fault.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooSlow => 408,
            Self::NoLength => 411,
            Self::BodyTooLong => 413,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLong => 431,
            Self::NotImplemented => 501,
            Self::Version => 505,
        }
    }

    /// Description of the fault, with the limit that was exceeded.
    pub fn explain(self) -> String {
        match self {
            Self::Malformed => "this is no request of HTTP/1.1, or one with two readings".into(),
            Self::TooSlow => "the request did not come in time".into(),
            Self::NoLength => "a body is sent with Content-Length, not in chunks".into(),
            Self::BodyTooLong => format!("a body has at most {BODY_BYTES_MAX} bytes"),
            Self::TargetTooLong => format!("a target has at most {TARGET_BYTES_MAX} bytes"),
            Self::Expectation => "the one known expectation is 100-continue".into(),
            Self::HeadTooLong => {
                format!("a head has at most {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers")
            }
            Self::NotImplemented => "this method or coding is not known here".into(),
            Self::Version => "this node speaks HTTP/1.0 and HTTP/1.1".into(),
        }
    }
}
