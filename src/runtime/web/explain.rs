//! Reasons for the refusal of a request whose head hyper could not parse.
//!
//! hyper answers such a request with a bare status. This looks at the bytes again and finds the
//! line that is wrong, so that the answer can name it. Nothing is decided here but words.

use super::refusal::Refusal;

/// Longest part of a line that is quoted, in bytes.
const QUOTED_MAX: usize = 60;

/// Reason for the refusal of the head in `bytes`, given the status that hyper chose.
pub(super) fn explain(bytes: &[u8], status: u16) -> Refusal {
    match status {
        414 => {
            return Refusal::new(414, "target_too_long", "the target of the request is too long");
        }
        431 => {
            return Refusal::new(431, "head_too_long", "the head has too many bytes or headers");
        }
        _ => {}
    }
    let head =
        bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes, |at| &bytes[..at]);
    let mut lines =
        head.split(|byte| *byte == b'\n').skip_while(|line| line.trim_ascii().is_empty());
    let first = lines.next().unwrap_or_default();
    if let Some(refusal) = of_request_line(first) {
        return refusal;
    }
    let reason = lines.find_map(of_header_line);
    let reason = reason.unwrap_or_else(|| "this is no request of HTTP/1.1".to_owned());
    if reason.contains("Transfer-Encoding") {
        return Refusal::new(501, "not_implemented", &reason);
    }
    Refusal::new(400, "malformed", &reason)
}

/// True if the head in `bytes` has a header of this name, in lower case.
pub(super) fn has_header(bytes: &[u8], name: &str) -> bool {
    let head =
        bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes, |at| &bytes[..at]);
    head.split(|byte| *byte == b'\n').any(|line| {
        line.get(..name.len()).is_some_and(|own| own.eq_ignore_ascii_case(name.as_bytes()))
            && line.get(name.len()) == Some(&b':')
    })
}

fn of_request_line(line: &[u8]) -> Option<Refusal> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.first() == Some(&0x16) {
        let reason = "this is the beginning of TLS, and this port speaks HTTP without it; use \
                      http://, or give the node --tls-cert and --tls-key";
        return Some(Refusal::new(400, "malformed", reason));
    }
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next()?, words.next(), words.next());
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if method.is_empty() || !method.iter().all(is_token) {
        let reason = format!("the method is no word: {}", quoted(line));
        return Some(Refusal::new(400, "malformed", &reason));
    }
    match version {
        Some(b"HTTP/1.1" | b"HTTP/1.0") if words.next().is_none() => {}
        Some(version) if version.starts_with(b"HTTP/") && words.next().is_none() => {
            let reason = format!("the version is not HTTP/1.0 or HTTP/1.1: {}", quoted(version));
            return Some(Refusal::new(505, "unknown_version", &reason));
        }
        _ => {
            let reason =
                format!("the request line is not METHOD TARGET HTTP/1.1: {}", quoted(line));
            return Some(Refusal::new(400, "malformed", &reason));
        }
    }
    let target = target.unwrap_or_default();
    if hyper::Uri::try_from(target).is_err() {
        let reason = format!("the target is no path or address: {}", quoted(target));
        return Some(Refusal::new(400, "malformed", &reason));
    }
    None
}

/// Fault of a header line, if it has one.
fn of_header_line(line: &[u8]) -> Option<String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let shown = quoted(line);
    if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Some(format!("a header line begins with a blank (obsolete folding): {shown}"));
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return (!line.is_empty()).then(|| format!("a header line has no colon: {shown}"));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.last().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Some(format!("a blank stands before the colon of a header: {shown}"));
    }
    if hyper::header::HeaderName::from_bytes(name).is_err() {
        return Some(format!("a header's name is no word: {shown}"));
    }
    if hyper::header::HeaderValue::from_bytes(value.trim_ascii()).is_err() {
        return Some(format!("a header's value has control characters: {shown}"));
    }
    let value = String::from_utf8_lossy(value.trim_ascii()).into_owned();
    let is_number = value.bytes().all(|it| it.is_ascii_digit()) && value.parse::<u64>().is_ok();
    if name.eq_ignore_ascii_case(b"content-length") && !is_number {
        return Some(format!("the Content-Length is no number: {shown}"));
    }
    if name.eq_ignore_ascii_case(b"transfer-encoding") && !value.eq_ignore_ascii_case("chunked") {
        return Some(format!("the one known Transfer-Encoding is chunked: {shown}"));
    }
    None
}

/// A line as text, shortened, with escapes for what is not ASCII.
fn quoted(line: &[u8]) -> String {
    let shown = line[..line.len().min(QUOTED_MAX)].escape_ascii().to_string();
    let rest = if line.len() > QUOTED_MAX { "…" } else { "" };
    format!("\"{shown}{rest}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_reason_of_its_own() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\n";
        let mut reasons = std::collections::BTreeSet::new();
        for (text, status, part) in [
            ("\x16\x03\x01\x02".to_owned(), 400, "TLS"),
            ("G(T / HTTP/1.1\r\n\r\n".to_owned(), 400, "method"),
            ("GET /\r\n\r\n".to_owned(), 400, "request line"),
            ("GET /a b HTTP/1.1\r\n\r\n".to_owned(), 400, "request line"),
            ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505, "version"),
            (format!("{head} folded\r\n\r\n"), 400, "folding"),
            (format!("{head}A : b\r\n\r\n"), 400, "before the colon"),
            (format!("{head}nothing\r\n\r\n"), 400, "no colon"),
            (format!("{head}: x\r\n\r\n"), 400, "name"),
            (format!("{head}A: \x01\r\n\r\n"), 400, "control"),
            (format!("{head}Content-Length: +5\r\n\r\n"), 400, "Content-Length"),
            (format!("{head}Transfer-Encoding: gzip\r\n\r\n"), 501, "chunked"),
        ] {
            let refusal = explain(text.as_bytes(), 400);
            assert_eq!(refusal.status, status, "{text:?}");
            assert!(refusal.reason.contains(part), "{text:?}: {}", refusal.reason);
            assert!(reasons.insert(refusal.reason), "{text:?}");
        }
        assert_eq!(explain(b"", 431).status, 431);
        assert_eq!(explain(b"", 414).status, 414);
        assert_eq!(explain(b"", 400).status, 400);
    }

    #[test]
    fn a_header_is_found_by_its_whole_name() {
        let head = b"GET / HTTP/1.1\r\nX-Content-Length: 1\r\ncontent-LENGTH: 2\r\n\r\nHost: x\r\n";
        assert!(has_header(head, "content-length"));
        assert!(!has_header(head, "content") && !has_header(head, "host"));
    }
}
