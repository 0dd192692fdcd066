//! A note, away from the log, of the log's length: so that a log that was cut, or restored from a
//! copy, is noticed (R13).
//!
//! The file `has-a-log` in the member's data directory has one line: the number of bytes of the log
//! that others may rely on, the checksum of the last of them, the log's path. The number is written
//! after each sync of the log, in place and without a sync: it must survive the process, not the
//! machine. After a power cut it may be behind, which is harmless; it is never ahead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::runtime::files::replace_file;

/// Length of the line's head: the length of a log in 20 digits, a space, a checksum in 8
/// hexadecimal digits, a space.
const HEAD_BYTES: usize = 30;

/// Number of bytes before the log's end that the checksum covers.
const TAIL_BYTES: u64 = 128;

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::runtime) struct LogPosition {
    /// Length of the log up to there, in bytes.
    pub(in crate::runtime) bytes: u64,
    checksum: u32,
}

impl LogPosition {
    /// The place after the first `bytes` bytes of a log.
    ///
    /// # Errors
    /// Fails if the log is shorter, or the disk refuses.
    pub(in crate::runtime) fn of(log: &File, bytes: u64) -> io::Result<Self> {
        let mut tail = [0; TAIL_BYTES as usize];
        let len = usize::try_from(bytes.min(TAIL_BYTES)).expect("it is 128 at most");
        log.read_exact_at(&mut tail[..len], bytes - len as u64)?;
        Ok(Self { bytes, checksum: crc32fast::hash(&tail[..len]) })
    }

    fn head(self) -> String {
        format!("{:020} {:08x} ", self.bytes, self.checksum)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(text.get(..HEAD_BYTES)?).ok()?;
        let (bytes, rest) = head.split_once(' ')?;
        let checksum = u32::from_str_radix(rest.strip_suffix(' ')?, 16).ok()?;
        Some(Self { bytes: bytes.parse().ok()?, checksum })
    }
}

/// The file of the note.
#[derive(Debug)]
pub(in crate::runtime) struct Note {
    path: PathBuf,
    file: File,
}

impl Note {
    /// Makes the note, in place of an older one.
    pub(in crate::runtime) fn create(
        path: &Path,
        log: &Path,
        place: LogPosition,
    ) -> io::Result<Self> {
        let text = format!("{}{}\n", place.head(), log.display());
        replace_file(path, text.as_bytes())?;
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(Self { path: path.into(), file })
    }

    /// Reads a note: `None` if there is none, `Some(None)` if it names no place, as those of
    /// earlier versions.
    pub(in crate::runtime) fn read(path: &Path) -> io::Result<Option<Option<LogPosition>>> {
        match std::fs::read(path) {
            Ok(text) => Ok(Some(LogPosition::parse(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes the length of the log that is on disk.
    pub(in crate::runtime) fn write(&self, place: LogPosition) -> io::Result<()> {
        self.file.write_all_at(place.head().as_bytes(), 0)
    }

    pub(in crate::runtime) fn path(&self) -> &Path {
        &self.path
    }
}
