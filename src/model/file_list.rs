//! Names of files and folders, and the list of files of a shared folder.
//!
//! Invariants: lists come from strangers. A parsed one has names that stay within the folder they
//! are put in (S1), and has only one spelling: it is written again as it was read.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ticket::{TicketError, wrong};

/// Longest component of a path, in bytes, as file systems have it.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest path in a list of files, in bytes.
pub const PATH_BYTES_MAX: usize = 4_096;

/// Largest number of files in one folder.
pub const FILES_MAX: usize = 65_536;

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

/// Attributes of a file that travel beside its name and its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileAttributes {
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
    /// As [`FileAttributes::run`] says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub run: bool,
    /// As [`FileAttributes::private`] says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
    /// As [`FileAttributes::mtime`] says.
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
    pub const fn traits(&self) -> FileAttributes {
        FileAttributes { run: self.run, private: self.private, mtime: self.mtime }
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
        }
        for name in bad {
            assert!(name_complaint(name).is_some(), "{name:?}");
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
