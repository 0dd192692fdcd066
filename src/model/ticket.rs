//! The ticket of a share, and the list of files of a folder.
//!
//! A ticket is one line: `folkmoot:share?name=NAME&size=BYTES&piece=BYTES&root=HEX`, for a folder
//! `&files=HEX`, and `&at=IP:PORT,...` if it has addresses to call first. Its holder can fetch the
//! content and check it.
//!
//! Invariants: tickets and lists come from strangers. A parsed one has names that stay within the
//! folder they are put in (S1), and has only one spelling: it is written again as it was read.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::endpoint::Endpoint;

/// Longest ticket, in bytes.
pub const TICKET_BYTES_MAX: usize = 8 * 1024;

/// Longest component of a path, in bytes, as file systems have it.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest path in a list of files, in bytes.
pub const PATH_BYTES_MAX: usize = 4_096;

/// Largest number of files in one folder.
pub const FILES_MAX: usize = 65_536;

/// Largest number of addresses in a ticket.
pub const ADDRESSES_MAX: usize = 16;

/// Prefix of every ticket.
const OPENING: &str = "folkmoot:share?";

/// Device names of some other systems, which are reserved with any extension.
const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];

/// Returns the reason why a name cannot be that of a file or folder (S1), if there is one. A name
/// that only other systems could not hold is refused only there.
pub fn name_complaint(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("a name is empty")
    } else if name == "." || name == ".." {
        Some("a name leads to another folder")
    } else if name.contains(['/', '\0']) {
        Some("a name has a separator in it")
    } else if name.len() > NAME_BYTES_MAX {
        Some("a name has more than 255 bytes")
    } else if cfg!(target_os = "linux") {
        None
    } else {
        foreign_complaint(name)
    }
}

/// Returns the reason why a name is not allowed on systems with more separators and reserved names
/// than `/`, if there is one.
fn foreign_complaint(name: &str) -> Option<&'static str> {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let is_port = |prefix| {
        let number = stem.strip_prefix(prefix).unwrap_or_default();
        number.len() == 1 && number.bytes().all(|digit| digit.is_ascii_digit())
    };
    if name.contains(['\\', ':']) {
        Some("this system takes a character of a name for a separator")
    } else if name.chars().any(char::is_control) {
        Some("a name has a control character in it")
    } else if RESERVED.contains(&stem.as_str()) || is_port("com") || is_port("lpt") {
        Some("a name belongs to a device on this system")
    } else if name.ends_with(['.', ' ']) {
        Some("a name ends with a dot or blank, which this system leaves out")
    } else {
        None
    }
}

/// Returns the reason why a path below a folder, its parts separated by `/`, is not allowed (S1),
/// if there is one.
pub fn path_complaint(path: &str) -> Option<&'static str> {
    if path.len() > PATH_BYTES_MAX {
        return Some("a path has more than 4096 bytes");
    }
    path.split('/').find_map(name_complaint)
}

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
    pub traits: Traits,
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

fn wrong(what: impl Into<String>) -> TicketError {
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
    let traits = Traits { run, private: flag(field("private"))?, mtime: None };
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

/// Attributes of a file that travel beside its name and its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// The file may be executed.
    pub run: bool,
    /// Only the owner may read the file.
    pub private: bool,
    /// Time of the last change, in seconds since 1970.
    pub mtime: Option<i64>,
}

/// One file of a folder, or a folder in it that is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path below the folder, with `/` between the parts, and at the end of a folder's.
    pub path: String,
    /// Size of the file, in bytes.
    pub size: u64,
    /// See [`Traits::run`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub run: bool,
    /// See [`Traits::private`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
    /// See [`Traits::mtime`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
}

impl FileEntry {
    /// A file of which nothing but name and bytes travels.
    pub fn new(path: impl Into<String>, size: u64) -> Self {
        Self { path: path.into(), size, ..Self::default() }
    }

    /// An empty folder.
    pub fn folder(path: &str) -> Self {
        Self::new(format!("{path}/"), 0)
    }

    /// The path of the folder, if it is one.
    pub fn as_folder(&self) -> Option<&str> {
        self.path.strip_suffix('/')
    }

    /// Permissions and time of the file.
    pub const fn traits(&self) -> Traits {
        Traits { run: self.run, private: self.private, mtime: self.mtime }
    }
}

/// The files of a folder, in the order in which they make up the content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileList(Vec<FileEntry>);

impl FileList {
    /// Makes a list of these files, sorted by their paths.
    ///
    /// # Errors
    /// Fails if two paths are equal, a path is not allowed (S1), or there are too many files.
    pub fn new(mut files: Vec<FileEntry>) -> Result<Self, TicketError> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let list = Self(files);
        list.check().map(|()| list)
    }

    /// Files of the list, sorted by path.
    pub fn files(&self) -> &[FileEntry] {
        &self.0
    }

    /// Sum of the sizes of all files, in bytes.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|it| it.size).sum()
    }

    /// The list as bytes: a line of JSON for each file. The digest in a ticket is of these.
    pub fn encode(&self) -> Vec<u8> {
        let line = |it| serde_json::to_string(it).expect("a path and a number are JSON") + "\n";
        self.0.iter().map(line).collect::<String>().into_bytes()
    }

    /// The SHA-256 of the encoded list.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }

    /// Reads an encoded list of files with `size` bytes in all.
    ///
    /// # Errors
    /// Fails if the bytes are not exactly what [`FileList::encode`] writes, a path leads elsewhere
    /// (S1), or the sizes differ.
    pub fn decode(bytes: &[u8], size: u64) -> Result<Self, TicketError> {
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("the list of files is no text"))?;
        let mut files = Vec::new();
        for line in text.lines() {
            if files.len() >= FILES_MAX {
                break;
            }
            let entry = serde_json::from_str::<FileEntry>(line);
            files.push(entry.map_err(|it| wrong(format!("the list of files has no entry: {it}")))?);
        }
        let list = Self(files);
        list.check()?;
        if list.encode() != bytes {
            return Err(wrong("the list of files is not written as lists are"));
        }
        if list.size() != size {
            return Err(wrong(format!("the files have {} bytes, not {size}", list.size())));
        }
        Ok(list)
    }

    fn check(&self) -> Result<(), TicketError> {
        if self.0.len() > FILES_MAX {
            return Err(wrong(format!("a folder has at most {FILES_MAX} files")));
        }
        let total = self.0.iter().try_fold(0_u64, |sum, it| sum.checked_add(it.size));
        if total.is_none() {
            return Err(wrong("the files are larger than numbers go"));
        }
        if self.0.windows(2).any(|pair| pair[0].path >= pair[1].path) {
            return Err(wrong("the list of files is not in order, or has one twice"));
        }
        let fold = |path: &str| match cfg!(target_os = "linux") {
            true => path.to_owned(),
            // Other systems take names that differ in case for one.
            false => path.to_lowercase(),
        };
        let folded: BTreeSet<_> = self.0.iter().map(|it| fold(&it.path)).collect();
        if folded.len() < self.0.len() {
            return Err(wrong("two files have one name, but for the case of letters"));
        }
        for entry in &self.0 {
            let plain = entry.as_folder().unwrap_or(&entry.path);
            let shown = entry.path.escape_debug();
            if let Some(complaint) = path_complaint(plain) {
                return Err(wrong(format!("{complaint}: {shown}")));
            }
            if entry.as_folder().is_some() && *entry != FileEntry::folder(plain) {
                return Err(wrong(format!("a folder has the size or the mode of a file: {shown}")));
            }
            let mut above = fold(&entry.path);
            while let Some(at) = above.rfind('/') {
                above.truncate(at);
                let is_empty = folded.contains(&format!("{above}/")) && at + 1 < entry.path.len();
                if folded.contains(&above) || is_empty {
                    return Err(wrong(format!("a file or an empty folder is also above {shown}")));
                }
            }
        }
        Ok(())
    }
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
            traits: Traits::default(),
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
    fn names_stay_where_they_are_put() {
        let long = "x".repeat(256);
        let bad = ["", ".", "..", "a/b", "/etc", "a\0", &long];
        let foreign = [
            "a\\b",
            "c:",
            "a\nb",
            "con",
            "Com1.txt",
            "LPT9",
            "nul.tar.gz",
            "aux .txt",
            "x.",
            "x ",
            "\u{7f}",
            "\u{85}",
        ];
        for name in foreign {
            assert!(foreign_complaint(name).is_some(), "{name:?}");
            assert_eq!(name_complaint(name).is_none(), cfg!(target_os = "linux"), "{name:?}");
            if cfg!(target_os = "linux") {
                let ticket = Ticket { name: name.to_owned(), ..ticket() };
                assert_eq!(ticket.to_string().parse(), Ok(ticket));
            }
        }
        for name in bad {
            assert!(name_complaint(name).is_some(), "{name:?}");
            let text = Ticket { name: name.to_owned(), ..ticket() }.to_string();
            assert!(text.parse::<Ticket>().is_err(), "{name:?}");
        }
        for name in ["a", "...a", ".bashrc", "com", "com10", "console", "ä b", &long[..255]] {
            assert_eq!(name_complaint(name).or(foreign_complaint(name)), None, "{name:?}");
        }
        for path in ["/a", "a/", "a//b", "a/../b", "..", "./a"] {
            assert!(path_complaint(path).is_some(), "{path}");
        }
        assert_eq!(path_complaint("a/b/c.txt"), None);
    }

    #[test]
    fn modes_times_and_empty_folders_are_in_the_list_and_names_of_one_system_pass_there() {
        let tool = FileEntry { run: true, mtime: Some(981_173_106), ..FileEntry::new("b/tool", 5) };
        let key = FileEntry { private: true, ..FileEntry::new("key", 1) };
        let list = FileList::new(vec![key, FileEntry::folder("a/deep"), tool]).unwrap();
        let text = "{\"path\":\"a/deep/\",\"size\":0}\n\
                    {\"path\":\"b/tool\",\"size\":5,\"run\":true,\"mtime\":981173106}\n\
                    {\"path\":\"key\",\"size\":1,\"private\":true}\n";
        assert_eq!(String::from_utf8(list.encode()).unwrap(), text);
        assert_eq!(FileList::decode(text.as_bytes(), 6), Ok(list));
        let pair = FileList::new(vec![FileEntry::new("Docs/a", 0), FileEntry::new("docs/A", 0)]);
        assert!(pair.is_ok());
        let pair = FileList::new(vec![FileEntry::new("A", 0), FileEntry::new("a", 0)]);
        assert_eq!(pair.is_ok(), cfg!(target_os = "linux"));
        let traits = Traits { run: true, private: true, mtime: None };
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

    #[test]
    fn a_list_of_files_is_read_as_it_was_written_and_no_other_way() {
        let entry = |path: &str, size| FileEntry::new(path, size);
        let list =
            FileList::new(vec![entry("b/c", 5), entry("a", 0), entry("b/a \"q\"", 7)]).unwrap();
        let bytes = list.encode();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            "{\"path\":\"a\",\"size\":0}\n{\"path\":\"b/a \\\"q\\\"\",\"size\":7}\n\
             {\"path\":\"b/c\",\"size\":5}\n"
        );
        assert_eq!(FileList::decode(&bytes, 12), Ok(list));
        assert!(FileList::decode(&bytes, 13).is_err());
        assert!(FileList::decode(&bytes[1..], 12).is_err());
        assert!(FileList::decode(&bytes[..bytes.len() - 1], 12).is_err());
        assert_eq!(FileList::decode(b"", 0), Ok(FileList::default()));
        for text in [
            "{\"path\":\"../a\",\"size\":0}\n",
            "{\"path\":\"/a\",\"size\":0}\n",
            "{\"size\":0,\"path\":\"a\"}\n",
            "{\"path\":\"a\",\"size\":0,\"more\":1}\n",
            "{\"path\": \"a\",\"size\":0}\n",
            "{\"path\":\"a\",\"size\":0}\r\n",
            "{\"path\":\"a\",\"size\":0}\n{\"path\":\"a\",\"size\":0}\n",
            "{\"path\":\"b\",\"size\":0}\n{\"path\":\"a\",\"size\":0}\n",
            "{\"path\":\"a\",\"size\":0}\n{\"path\":\"a/b\",\"size\":0}\n",
            "{\"path\":\"a\",\"size\":0}\n{\"path\":\"a-\",\"size\":0}\n\
             {\"path\":\"a/b\",\"size\":0}\n",
        ] {
            assert!(FileList::decode(text.as_bytes(), 0).is_err(), "{text}");
        }
        for text in [
            "{\"path\":\"a/\",\"size\":0}\n{\"path\":\"a/b\",\"size\":0}\n",
            "{\"path\":\"a\",\"size\":0}\n{\"path\":\"a/\",\"size\":0}\n",
            "{\"path\":\"a/\",\"size\":0,\"run\":true}\n",
            "{\"path\":\"a/b/\",\"size\":0}\n{\"path\":\"a/b/c/\",\"size\":0}\n",
            "{\"path\":\"/\",\"size\":0}\n",
            "{\"path\":\"../\",\"size\":0}\n",
            "{\"path\":\"a\",\"size\":0,\"run\":false}\n",
        ] {
            assert!(FileList::decode(text.as_bytes(), 0).is_err(), "{text}");
        }
        let huge = [entry("a", u64::MAX), entry("b", 1)].to_vec();
        assert!(FileList::new(huge).is_err());
    }
}
