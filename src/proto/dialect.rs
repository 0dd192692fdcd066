//! Detection of a connection's dialect by its first bytes.
//!
//! Invariants: a verdict never changes when more bytes come, and it is given at the first byte that
//! allows one. Pure: the caller owns the socket, the deadline and the bytes, which are part of the
//! conversation and must be handed on to its handler.

use super::sealed;

/// A language that a connection may speak on the one port of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// Newline-delimited JSON: the messages of the fleet.
    Native,
    /// Newline-delimited JSON: the messages of a group that chats.
    Chat,
    /// Newline-delimited JSON: the messages of a group with Byzantine order.
    Order,
    /// Newline-delimited JSON: the messages of nodes that roll out together.
    Rollout,
    /// The native lines in encrypted frames, for holders of the cluster key.
    Sealed,
    /// The messages of nodes that roll out together, each after a 4-byte big-endian length.
    Framed,
    /// The binary protocol of the swarm.
    Swarm,
    /// HTTP/1.x: status, metrics, data plane.
    Http,
    /// None of these.
    Unknown,
}

impl Dialect {
    /// The dialect's name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Chat => "chat",
            Self::Order => "order",
            Self::Rollout => "rollout",
            Self::Sealed => "sealed",
            Self::Framed => "framed",
            Self::Swarm => "swarm",
            Self::Http => "http",
            Self::Unknown => "unknown",
        }
    }
}

/// The verdict on the bytes seen so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// The bytes open this dialect, whatever follows.
    Is(Dialect),
    /// The bytes are a proper prefix of more than one opening, or of nothing else yet.
    NeedMore,
}

/// After this many bytes without a verdict (blanks, in practice) a connection speaks nothing.
pub const OPENING_BYTES_MAX: usize = 64;

/// The fixed openings. No entry is a prefix of another.
const OPENINGS: &[(&[u8], Dialect)] = &[
    (sealed::OPENING, Dialect::Sealed),
    (b"\0", Dialect::Framed),
    (b"P2PFILESHARINGPROJ", Dialect::Swarm),
    (b"GET ", Dialect::Http),
    (b"HEAD ", Dialect::Http),
    (b"POST ", Dialect::Http),
    (b"PUT ", Dialect::Http),
    (b"DELETE ", Dialect::Http),
    (b"OPTIONS ", Dialect::Http),
    (b"PATCH ", Dialect::Http),
];

/// First lines that are not of the native dialect, as parts between which blanks may stand.
const LINES: [([&[u8]; 4], Dialect); 3] = [
    ([b"{", b"\"type\"", b":", b"\"JOIN\""], Dialect::Chat),
    ([b"{", b"\"type\"", b":", b"\"ORDER_JOIN\""], Dialect::Order),
    ([b"{", b"\"type\"", b":", b"\"ENROLL\""], Dialect::Rollout),
];

/// Tells the dialect from everything received so far on a connection.
#[must_use]
pub fn detect(bytes: &[u8]) -> Detection {
    let blanks = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    match bytes.get(blanks) {
        Some(b'{') if blanks < OPENING_BYTES_MAX => detect_object(bytes),
        Some(_) if blanks == 0 => detect_fixed(bytes),
        None if blanks < OPENING_BYTES_MAX => Detection::NeedMore,
        Some(_) | None => Detection::Is(Dialect::Unknown),
    }
}

/// Detects the dialect of a line that opens as an object. Bytes beyond the limit are not looked at,
/// so that the verdict does not depend on how they were cut.
fn detect_object(bytes: &[u8]) -> Detection {
    let mut verdict = Detection::Is(Dialect::Native);
    for (parts, dialect) in LINES {
        match opens(bytes, &parts) {
            Some(true) => return Detection::Is(dialect),
            Some(false) => {}
            None => verdict = Detection::NeedMore,
        }
    }
    verdict
}

/// True if a line opens with these parts; `None` as long as more bytes must decide.
fn opens(bytes: &[u8], parts: &[&[u8]]) -> Option<bool> {
    let mut left = bytes[..bytes.len().min(OPENING_BYTES_MAX)].trim_ascii_start();
    for part in parts {
        // A line that has ended opens nothing any more.
        let is_blank = |byte: &u8| byte.is_ascii_whitespace() && *byte != b'\n';
        left = &left[left.iter().take_while(|byte| is_blank(byte)).count()..];
        if let Some(rest) = left.strip_prefix(*part) {
            left = rest;
        } else if part.starts_with(left) && bytes.len() < OPENING_BYTES_MAX {
            return None;
        } else {
            return Some(false);
        }
    }
    Some(true)
}

fn detect_fixed(bytes: &[u8]) -> Detection {
    for &(opening, dialect) in OPENINGS {
        if bytes.starts_with(opening) {
            return Detection::Is(dialect);
        }
    }
    if OPENINGS.iter().any(|(opening, _)| opening.starts_with(bytes)) {
        Detection::NeedMore
    } else {
        Detection::Is(Dialect::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every proper prefix of `opening` is undecided, and the whole of it is decided for good.
    fn check(opening: &[u8], dialect: Dialect) {
        for len in 0..opening.len() {
            let seen = &opening[..len];
            assert_eq!(detect(seen), Detection::NeedMore, "{:?}", seen.escape_ascii().to_string());
        }
        for tail in [&b""[..], b"x", b"{", b"\0\0", b"\xff GET "] {
            let all = [opening, tail].concat();
            assert_eq!(
                detect(&all),
                Detection::Is(dialect),
                "{:?}",
                all.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn every_opening_is_told_at_its_last_byte_and_not_before() {
        check(b"{\"type\":\"H", Dialect::Native);
        check(b" { \"tyx", Dialect::Native);
        check(b"\r\n\t {}", Dialect::Native);
        check(b"{\"type\":\"JOIN\"", Dialect::Chat);
        check(b"\r\n {\t\"type\" : \r\"JOIN\"", Dialect::Chat);
        check(b"{\"type\":\"ORDER_JOIN\"", Dialect::Order);
        check(b"{\"type\":\"ORDER_JOIN_", Dialect::Native);
        check(b"{\"type\":\"ENROLL\"", Dialect::Rollout);
        check(b"{\"type\":\"ENROLL_", Dialect::Native);
        check(b"{\n", Dialect::Native);
        check(b"{\"type\":\n", Dialect::Native);
        check(b"{\"type\":\"JOIN_", Dialect::Native);
        for &(opening, dialect) in OPENINGS {
            check(opening, dialect);
        }
    }

    #[test]
    fn whatever_fits_no_opening_is_unknown_at_once() {
        let cases: [&[u8]; 11] = [
            b"[",
            b"x",
            b"get ",
            b"GETS",
            b"GET\t",
            b" GET ",
            b"\n\0",
            b"P2PFILESHARINGPROX",
            b"PX",
            b"\x16\x03\x01",
            b"\xff",
        ];
        for case in cases {
            let shown = case.escape_ascii().to_string();
            assert_eq!(detect(case), Detection::Is(Dialect::Unknown), "{shown:?}");
        }
    }

    #[test]
    fn a_verdict_is_reached_within_the_limit() {
        assert_eq!(detect(&[b' '; OPENING_BYTES_MAX - 1]), Detection::NeedMore);
        assert_eq!(detect(&[b' '; OPENING_BYTES_MAX]), Detection::Is(Dialect::Unknown));
        assert!(OPENINGS.iter().all(|(opening, _)| opening.len() < OPENING_BYTES_MAX));
    }

    /// The verdict after the limit's last blank must not be taken back by what came with it.
    #[test]
    fn too_many_blanks_are_unknown_however_many_bytes_come_at_once() {
        let opened = |blanks| [vec![b' '; blanks], b"{}".to_vec()].concat();
        let at_once = |blanks| detect(&opened(blanks));
        assert_eq!(at_once(OPENING_BYTES_MAX - 1), Detection::Is(Dialect::Native));
        assert_eq!(at_once(OPENING_BYTES_MAX), Detection::Is(Dialect::Unknown));
    }

    /// A JOIN that is not told in time is none, however many bytes come at once.
    #[test]
    fn a_join_behind_too_many_blanks_is_native() {
        let join = |blanks| [b"{".as_slice(), &vec![b' '; blanks], b"\"type\":\"JOIN\""].concat();
        let most = OPENING_BYTES_MAX - join(0).len();
        assert_eq!(detect(&join(most)), Detection::Is(Dialect::Chat));
        assert_eq!(detect(&join(most + 1)), Detection::Is(Dialect::Native));
        let seen = &join(most + 1)[..OPENING_BYTES_MAX];
        assert_eq!(detect(seen), Detection::Is(Dialect::Native));
    }
}
