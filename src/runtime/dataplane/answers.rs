//! Answers of this node's own, and the ends of all heads that are written to a client.

use serde_json::json;

use super::limits::DataPlaneLimits;
use super::request_reader::ReadEnd;
use super::texts;
use crate::proto::http::{RequestFault, reason};

/// Fate of a connection after an answer, and the header for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    /// The connection goes on, as it does in HTTP/1.1.
    On,
    /// The connection goes on although the client speaks HTTP/1.0.
    OnAfterAll,
    /// The connection ends.
    Off,
}

impl Going {
    /// End of a head, from behind the value of its last header line.
    pub(super) const fn header(self) -> &'static [u8] {
        match self {
            Self::On => b"\r\n\r\n",
            Self::OnAfterAll => b"\r\nConnection: keep-alive\r\n\r\n",
            Self::Off => b"\r\nConnection: close\r\n\r\n",
        }
    }
}

/// Ends an answer whose header lines are written, with its body; none for statuses without one.
pub(super) fn compose(out: &mut Vec<u8>, body: Option<&Vec<u8>>, going: Going) {
    let Some(body) = body else {
        out.truncate(out.len() - 2);
        out.extend_from_slice(going.header());
        return;
    };
    out.extend_from_slice(b"Content-Length: ");
    write_number(out, body.len());
    out.extend_from_slice(going.header());
    out.extend_from_slice(body);
}

/// Writes an answer of this node's own; `headers` are whole lines.
pub(super) fn write_own(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    headers: &[u8],
    body: &Vec<u8>,
    going: Going,
) {
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nCache-Control: no-store\r\n",
        reason(status)
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(headers);
    compose(out, Some(body), going);
}

/// Writes a refusal: `{"error":…,"reason":…}`, for programs and for people.
pub(super) fn refusal(
    out: &mut Vec<u8>,
    status: u16,
    code: &str,
    reason: &str,
    headers: &[u8],
    going: Going,
) {
    let body = json!({ "error": code, "reason": reason }).to_string().into_bytes();
    write_own(out, status, texts::JSON, headers, &body, going);
}

/// Writes the refusal of a request that could not be read to its end; returns whether there is one.
pub(super) fn refusal_of_end(out: &mut Vec<u8>, end: &ReadEnd, limits: &DataPlaneLimits) -> bool {
    let fault = match end {
        ReadEnd::Fault(fault) => *fault,
        ReadEnd::Full => {
            let reason = "too many long bodies at once; try again in a moment";
            refusal(out, 503, "busy", reason, b"Retry-After: 1\r\n", Going::Off);
            return true;
        }
        ReadEnd::Done | ReadEnd::Idle | ReadEnd::Broken => return false,
    };
    let reason = match fault {
        RequestFault::NoLength => "a body has a Content-Length, or comes in chunks".to_owned(),
        RequestFault::BodyTooLong => format!("a body has at most {} bytes", limits.body_bytes),
        RequestFault::Malformed
        | RequestFault::TooSlow
        | RequestFault::TargetTooLong
        | RequestFault::Expectation
        | RequestFault::HeadTooLong
        | RequestFault::NotImplemented
        | RequestFault::Version => fault.explain(),
    };
    refusal(out, fault.status(), texts::code(fault), &reason, &[], Going::Off);
    true
}

/// Writes a number in decimal digits.
pub(super) fn write_number(out: &mut Vec<u8>, number: usize) {
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A body as the input of a built-in model: itself if it is JSON, or else an empty object.
pub(super) fn input_of(body: &[u8]) -> &[u8] {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if is_json { text.trim_ascii().as_bytes() } else { b"{}" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_digits() {
        for number in [0, 1, 9, 10, 200, 65_536, usize::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
