//! The ticket of a share.
//!
//! A ticket is one line: `folkmoot:share?name=NAME&size=BYTES&piece=BYTES&root=HEX`, for a folder
//! `&files=HEX`, and `&at=IP:PORT,...` if it has addresses to call first. Its holder can fetch the
//! content and check it.
//!
//! Invariants: tickets come from strangers. A parsed one has a name that stays within the folder it
//! is put in (S1), and has only one spelling: it is written again as it was read.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::endpoint::Endpoint;
use super::file_list::{FileAttributes, name_complaint};

/// Longest ticket, in bytes.
pub const TICKET_BYTES_MAX: usize = 8 * 1024;

/// Largest number of addresses in a ticket.
pub const ADDRESSES_MAX: usize = 16;

/// Prefix of every ticket.
const OPENING: &str = "folkmoot:share?";

/// Ticket of a share: its name, the digests that check its content, and addresses to fetch it from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The name of the file or folder.
    pub name: String,
    /// Size of the content, in bytes.
    pub size: u64,
    /// Size of a piece, in bytes.
    pub piece_size: u32,
    /// The root of the tree over its pieces.
    pub root: [u8; 32],
    /// The SHA-256 of the list of files, if it is a folder.
    pub files: Option<[u8; 32]>,
    /// Permissions and time of a file; a folder's list has them for each of its files.
    pub traits: FileAttributes,
    /// Addresses to call first.
    pub at: Vec<Endpoint>,
}

impl Ticket {
    /// Identity of the share: a hash of size, piece size and digests, independent of its name and
    /// addresses.
    pub fn share_id(&self) -> [u8; 32] {
        let id = Sha256::new()
            .chain_update(b"folkmoot share 1\n")
            .chain_update(self.size.to_be_bytes())
            .chain_update(self.piece_size.to_be_bytes())
            .chain_update(self.root)
            .chain_update(self.files.unwrap_or_default());
        id.finalize().into()
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OPENING}name={}", escape(&self.name))?;
        write!(f, "&size={}&piece={}", self.size, self.piece_size)?;
        write!(f, "&root={}", hex::encode(self.root))?;
        if let Some(files) = &self.files {
            write!(f, "&files={}", hex::encode(files))?;
        }
        if self.traits.run {
            f.write_str("&run=1")?;
        }
        if self.traits.private {
            f.write_str("&private=1")?;
        }
        let at: Vec<_> = self.at.iter().map(ToString::to_string).collect();
        if at.is_empty() { Ok(()) } else { write!(f, "&at={}", at.join(",")) }
    }
}

/// Error of a ticket or a list of files, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketError(String);

impl fmt::Display for TicketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TicketError {}

pub(super) fn wrong(what: impl Into<String>) -> TicketError {
    TicketError(what.into())
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        parse(text).map_err(|TicketError(why)| wrong(format!("{why}; copy the whole ticket again")))
    }
}

fn parse(text: &str) -> Result<Ticket, TicketError> {
    if text.len() > TICKET_BYTES_MAX {
        return Err(wrong(format!("a ticket has at most {TICKET_BYTES_MAX} bytes")));
    }
    let text = text.trim();
    let rest = text
        .strip_prefix(OPENING)
        .ok_or_else(|| wrong(format!("a ticket begins with {OPENING}")))?;
    let mut fields = rest.split('&').peekable();
    let mut field = |key: &str| {
        let is_it = |it: &&str| it.split_once('=').is_some_and(|(name, _)| name == key);
        fields.next_if(is_it).and_then(|it| it.split_once('=')).map(|(_, value)| value)
    };
    let missing = |key: &str| wrong(format!("the ticket has no {key} where it belongs"));
    let name = unescape(field("name").ok_or_else(|| missing("name"))?)?;
    let Some(size) = field("size") else {
        let what = "the ticket ends before its size, as a shell cuts it that takes & for itself: \
                    put it between single quotes";
        return Err(wrong(what));
    };
    let piece = field("piece").ok_or_else(|| missing("piece"))?;
    let root = digest("root", field("root").ok_or_else(|| missing("root"))?)?;
    let files = field("files").map(|it| digest("files", it)).transpose()?;
    let flag = |value: Option<&str>| match value {
        None => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(wrong(format!("a mark is 1, not {}", other.escape_debug()))),
    };
    let run = flag(field("run"))?;
    let traits = FileAttributes { run, private: flag(field("private"))?, mtime: None };
    let at = field("at").map(addresses).transpose()?.unwrap_or_default();
    if let Some(more) = fields.next() {
        let what = "the ticket has a field that does not belong there:";
        return Err(wrong(format!("{what} {}", more.escape_debug())));
    }
    if let Some(complaint) = name_complaint(&name) {
        return Err(wrong(format!("{complaint}: {}", name.escape_debug())));
    }
    let (size, piece_size) = (number("size", size)?, number("piece", piece)?);
    if piece_size == 0 {
        return Err(wrong("the ticket's pieces have no bytes"));
    }
    Ok(Ticket { name, size, piece_size, root, files, traits, at })
}

/// A number without sign, blanks or leading zeros: one spelling for each.
fn number<N: FromStr + ToString>(key: &str, text: &str) -> Result<N, TicketError> {
    let number = text.parse::<N>().ok().filter(|it| it.to_string() == text);
    number.ok_or_else(|| wrong(format!("{key} is no number: {}", text.escape_debug())))
}

fn digest(key: &str, text: &str) -> Result<[u8; 32], TicketError> {
    let mut found = [0; 32];
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if !is_lower || hex::decode_to_slice(text, &mut found).is_err() {
        let what = format!("{key} is not 64 hexadecimal digits: {}", text.escape_debug());
        return Err(wrong(what));
    }
    Ok(found)
}

fn addresses(text: &str) -> Result<Vec<Endpoint>, TicketError> {
    let parse = |it: &str| {
        let found = it.parse::<Endpoint>().ok().filter(|found| found.is_callable());
        let found = found.filter(|found| found.to_string() == it);
        found.ok_or_else(|| wrong(format!("no address that can be called: {}", it.escape_debug())))
    };
    let found: Vec<_> = text.split(',').map(parse).collect::<Result<_, _>>()?;
    match found.len() {
        0..=ADDRESSES_MAX => Ok(found),
        _ => Err(wrong(format!("a ticket has at most {ADDRESSES_MAX} addresses"))),
    }
}

/// Letters, digits and `-._~` as they are, every other byte as `%` and two digits.
fn escape(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    name.bytes().map(byte).collect()
}

fn unescape(text: &str) -> Result<String, TicketError> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = (byte == b'%').then(|| [rest.next(), rest.next()]);
        let mut found = [byte];
        if let Some(digits) = digits {
            let digits: Vec<u8> = digits.into_iter().flatten().collect();
            hex::decode_to_slice(&digits, &mut found)
                .map_err(|_| wrong("the ticket's name has a % without two digits"))?;
        }
        bytes.extend(found);
    }
    let name = String::from_utf8(bytes).map_err(|_| wrong("the ticket's name is no text"))?;
    if escape(&name) != text {
        return Err(wrong("the ticket's name is not written as names are"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            name: "big & größer 100%.iso".to_owned(),
            size: 1_073_741_824,
            piece_size: 1_048_576,
            root: [0xab; 32],
            files: None,
            traits: FileAttributes::default(),
            at: vec!["127.0.0.1:6001".parse().unwrap(), "[::1]:7".parse().unwrap()],
        }
    }

    #[test]
    fn a_ticket_is_one_line_that_is_read_as_it_was_written() {
        let text = ticket().to_string();
        let root = "ab".repeat(32);
        assert_eq!(
            text,
            format!(
                "folkmoot:share?name=big%20%26%20gr%C3%B6%C3%9Fer%20100%25.iso&size=1073741824\
                 &piece=1048576&root={root}&at=127.0.0.1:6001,[::1]:7"
            )
        );
        assert_eq!(text.parse(), Ok(ticket()));
        assert_eq!(format!(" {text}\n").parse(), Ok(ticket()));
        let folder = Ticket { files: Some([1; 32]), at: Vec::new(), ..ticket() };
        assert_eq!(folder.to_string().parse(), Ok(folder));
    }

    #[test]
    fn a_share_is_the_same_whatever_it_is_called_and_wherever_it_is() {
        let other = Ticket { name: "x".to_owned(), at: Vec::new(), ..ticket() };
        assert_eq!(other.share_id(), ticket().share_id());
        let folder = Ticket { files: Some([0; 32]), ..ticket() };
        assert_eq!(folder.share_id(), ticket().share_id(), "no list is 32 zero bytes");
        for changed in [
            Ticket { size: 1, ..ticket() },
            Ticket { piece_size: 1, ..ticket() },
            Ticket { root: [1; 32], ..ticket() },
            Ticket { files: Some([1; 32]), ..ticket() },
        ] {
            assert_ne!(changed.share_id(), ticket().share_id());
        }
    }

    #[test]
    fn what_is_no_ticket_is_refused() {
        let good = ticket().to_string();
        let changed = |from: &str, to: &str| {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from} is in it");
            text
        };
        let bad = [
            String::new(),
            changed("folkmoot:", "folkmoat:"),
            changed("size=1073741824", "size=+1073741824"),
            changed("size=1073741824", "size=01073741824"),
            changed("size=1073741824", "size=99999999999999999999"),
            changed("piece=1048576", "piece=0"),
            changed("piece=1048576", "piece=4294967296"),
            changed("&piece=1048576", ""),
            changed("root=ab", "root=AB"),
            changed("root=abab", "root=ab"),
            changed("root=ab", "root=xy"),
            changed("127.0.0.1:6001", "127.0.0.1:0"),
            changed("127.0.0.1:6001", "localhost:6001"),
            changed("127.0.0.1:6001", ""),
            changed("name=big", "name=%62ig"),
            changed("name=big%20", "name=big%2"),
            changed("name=big%20", "name=big%ff"),
            format!("{good}&size=1"),
            format!("{good}&more=1"),
            good.replace("&at=", &format!("&at={}", "1.1.1.1:1,".repeat(20))),
            "x".repeat(TICKET_BYTES_MAX + 1),
        ];
        for text in bad {
            assert!(text.parse::<Ticket>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_none_makes_no_ticket() {
        let long = "x".repeat(256);
        for name in ["", ".", "..", "a/b", "/etc", "a\0", &long] {
            let text = Ticket { name: name.to_owned(), ..ticket() }.to_string();
            assert!(text.parse::<Ticket>().is_err(), "{name:?}");
        }
        for name in ["a\\b", "c:", "a\nb", "con", "x.", "x ", "\u{7f}"] {
            if cfg!(target_os = "linux") {
                let ticket = Ticket { name: name.to_owned(), ..ticket() };
                assert_eq!(ticket.to_string().parse(), Ok(ticket));
            }
        }
    }

    #[test]
    fn modes_of_one_file_are_in_the_ticket_and_do_not_change_the_share() {
        let traits = FileAttributes { run: true, private: true, mtime: None };
        let with = Ticket { traits, ..ticket() };
        assert!(with.to_string().contains("&run=1&private=1&at="));
        assert_eq!(with.to_string().parse(), Ok(with.clone()));
        assert_eq!(with.share_id(), ticket().share_id(), "the content is the same");
        assert!(with.to_string().replace("run=1", "run=0").parse::<Ticket>().is_err());
    }

    #[test]
    fn a_ticket_that_a_shell_has_cut_says_so() {
        let cut = "folkmoot:share?name=a".parse::<Ticket>().unwrap_err().to_string();
        assert!(cut.contains("single quotes"), "{cut}");
    }
}
