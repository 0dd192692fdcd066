//! File of the cluster key: one key a line, two at most while keys are changed.
//!
//! The first key is the one that a node calls with; it answers to both. `#` starts a comment, blank
//! lines are skipped. A file that others can read, or that is not just this, stops the node with
//! one sentence, which never quotes what is in the file.

use std::error::Error;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use rand::Rng as _;

use super::files::{is_exposed, os_rng, sync_dir};
use crate::proto::sealed::{ClusterKey, ClusterKeys, KEYS_MAX};

/// Largest size of the file: two keys and room for comments.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Error of a file of cluster keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKeyError {
    /// Path of the file.
    pub file: PathBuf,
    /// Line of the error, counted from 1, if one is to blame.
    pub line: Option<usize>,
    /// Description of the error and its remedy.
    pub reason: String,
}

impl fmt::Display for ClusterKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}: {}", self.file.display(), self.reason),
            None => write!(f, "{}: {}", self.file.display(), self.reason),
        }
    }
}

impl Error for ClusterKeyError {}

/// Keys in use by this process and their files, for [`read_again`].
static READ: Mutex<Vec<(PathBuf, Weak<ClusterKeys>)>> = Mutex::new(Vec::new());

/// Reads the keys in the file at `path`. [`read_again`] replaces them.
///
/// # Errors
///
/// Fails if the file is missing, open to others, or holds anything but one or two keys.
pub fn read(path: &Path) -> Result<Arc<ClusterKeys>, ClusterKeyError> {
    let keys = Arc::new(read_file(path)?);
    READ.lock()
        .expect("nothing under this lock can panic")
        .push((path.into(), Arc::downgrade(&keys)));
    Ok(keys)
}

/// Reads all key files in use by this process again; returns their number.
///
/// # Errors
///
/// As [`read`]; the keys of that file stay as they were.
pub fn read_again() -> Result<usize, ClusterKeyError> {
    let mut files = READ.lock().expect("nothing under this lock can panic");
    files.retain(|(_, keys)| keys.strong_count() > 0);
    for (path, keys) in files.iter() {
        let found = read_file(path)?;
        keys.upgrade().into_iter().for_each(|keys| keys.replace(&found));
    }
    Ok(files.len())
}

fn read_file(path: &Path) -> Result<ClusterKeys, ClusterKeyError> {
    let fault = |reason: String| ClusterKeyError { file: path.into(), line: None, reason };
    let shown = path.display();
    let file = File::open(path).map_err(|err| {
        fault(format!(
            "cannot open this cluster key ({err}); copy it from another node of the fleet, or \
             make the fleet's first with: seed keygen --cluster-key {shown}"
        ))
    })?;
    let unreadable = |err: io::Error| fault(format!("cannot read this cluster key: {err}"));
    let found = file.metadata().map_err(unreadable)?;
    if is_exposed(path, &found, 0o077) {
        let mode = found.mode() & 0o7777;
        return Err(fault(format!(
            "others may read or change this cluster key (its mode is {mode:04o}); run: \
             chmod 600 {shown}; if it may have been copied, make a new one for the whole fleet"
        )));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault("is too large for a file with one or two cluster keys".to_owned()));
    }
    parse(path, &bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<ClusterKeys, ClusterKeyError> {
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let fault = |reason: &str| ClusterKeyError {
            file: path.into(),
            line: Some(number),
            reason: reason.to_owned(),
        };
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            continue;
        }
        let key = std::str::from_utf8(line).ok().and_then(ClusterKey::parse);
        let key = key.ok_or_else(|| {
            fault("is no cluster key, which is 64 hexadecimal digits; copy the whole line")
        })?;
        if key.bytes().iter().all(|byte| *byte == key.bytes()[0]) {
            return Err(fault("is a key that anybody guesses; make one with: seed keygen"));
        }
        if keys.len() == KEYS_MAX {
            return Err(fault(
                "is a third key; keep the one in use first, and at most one other below it",
            ));
        }
        keys.push(key);
    }
    let mut keys = keys.into_iter();
    match keys.next() {
        Some(used) => Ok(ClusterKeys::new(used, keys.next())),
        None => Err(ClusterKeyError {
            file: path.into(),
            line: None,
            reason: "holds no cluster key; write one line of 64 hexadecimal digits".to_owned(),
        }),
    }
}

/// Makes a new key in a new file at `path`, which only its owner can read.
///
/// # Errors
///
/// Fails if there is such a file already, or the disk or the system's randomness fails.
pub fn create(path: &Path) -> Result<(), ClusterKeyError> {
    let fault = |reason: String| ClusterKeyError { file: path.into(), line: None, reason };
    let mut secret = [0; 32];
    os_rng().map_err(|err| fault(err.to_string()))?.fill_bytes(&mut secret);
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|err| {
        fault(if err.kind() == ErrorKind::AlreadyExists {
            "exists, and is left as it is; name a new file".to_owned()
        } else {
            format!("cannot be created ({err}); name a file that can")
        })
    })?;
    let digits = hex::encode(secret);
    let text = format!("# A cluster key: secret, and the same on every node.\n{digits}\n");
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_dir(folder.unwrap_or(Path::new("."))))
        .map_err(|err| fault(format!("cannot be written: {err}")))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(digit: &str) -> String {
        format!("{}{}", digit.repeat(63), "0")
    }

    fn parsed(text: &str) -> Result<ClusterKeys, String> {
        parse(Path::new("k"), text.as_bytes()).map_err(|err| err.to_string())
    }

    fn known(digit: &str) -> ClusterKey {
        ClusterKey::parse(&key(digit)).unwrap()
    }

    #[test]
    fn the_first_key_is_used_and_both_are_accepted() {
        let one = parsed(&format!("# ours\n\n  {}  # since May\r\n", key("a"))).unwrap();
        assert_eq!(one, ClusterKeys::new(known("a"), None));
        let two = parsed(&format!("{}\n{}", key("b"), key("a"))).unwrap();
        assert_eq!(two, ClusterKeys::new(known("b"), Some(known("a"))));
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_line_and_never_quoted() {
        let (a, b, c) = (key("a"), key("b"), key("c"));
        for (text, expected) in [
            (String::new(), "holds no cluster key"),
            ("# nothing\n".to_owned(), "holds no cluster key"),
            (a[..63].to_owned(), "k, line 1: is no cluster key"),
            (format!("{a}\n{b} {c}\n"), "k, line 2: is no cluster key"),
            (format!("{a}{b}"), "k, line 1: is no cluster key"),
            ("\u{e9}".repeat(64), "64 hexadecimal digits"),
            (format!("{a}\n{b}\n{c}\n"), "k, line 3: is a third key"),
            ("0".repeat(64), "k, line 1: is a key that anybody guesses"),
        ] {
            let error = parsed(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("aaa") && !error.contains("bbb"), "{error}");
        }
    }

    #[test]
    fn a_key_that_is_made_can_be_read_and_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        create(&path).unwrap();
        let made = read(&path).unwrap();
        assert_eq!(made.accepted().count(), 1);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let error = create(&path).unwrap_err().to_string();
        assert!(error.contains("is left as it is"), "{error}");
        assert_eq!(read(&path).unwrap(), made);
        let other = dir.path().join("other.key");
        create(&other).unwrap();
        assert_ne!(read(&other).unwrap(), made);
    }

    #[test]
    fn a_file_that_others_can_touch_or_that_is_missing_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("seed keygen --cluster-key"), "{error}");
        create(&path).unwrap();
        for mode in [0o604, 0o644, 0o622, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains(&format!("{mode:04o}")));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o440)).unwrap();
        assert!(read(&path).is_ok());
    }
}
