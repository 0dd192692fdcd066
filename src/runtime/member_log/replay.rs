//! Reading a log, once, at the start. The checksum of every line that is read is verified.

use std::fs::File;
use std::path::Path;

use super::LogStoreError;
use crate::runtime::records::{DurableMark, checked_json, judge, lines_from, read_line};

/// Form of a log that was read.
#[derive(Debug)]
pub(in crate::runtime) struct Replayed {
    /// Length of the intact part, in bytes.
    pub(in crate::runtime) bytes: u64,
    /// End of the last record on which other members may rely.
    pub(in crate::runtime) bound: u64,
    /// True if the last line is a mark.
    pub(in crate::runtime) ends_marked: bool,
    pub(in crate::runtime) torn: Option<Torn>,
}

/// End of a log that was never confirmed, and that a crash left in pieces.
#[derive(Debug)]
pub(in crate::runtime) struct Torn {
    /// The first damaged line, counted from 1.
    line: u64,
    bytes: u64,
    /// JSON of the records in it that can still be read.
    pub(in crate::runtime) intact: Vec<Vec<u8>>,
}

impl Torn {
    /// Note about the torn end, for people.
    pub(in crate::runtime) fn note(&self, path: &Path) -> String {
        let Self { line, bytes, .. } = self;
        let shown = path.display();
        format!("{shown}: line {line} was torn by a crash; its {bytes} bytes were cut off")
    }
}

/// Reason why a record cannot stand at its place.
pub(in crate::runtime) enum RecordFault {
    /// This version does not know it. The line is intact, so a crash is no excuse.
    Newer(String),
    /// It contradicts what stands before it.
    Corrupt(String),
    /// The log is that of this owner, in words.
    Foreign(String),
}

/// Reads a log. `take` gets the JSON and the offset of each record, and returns true if other
/// members may rely on it.
///
/// # Errors
/// Fails if the disk refuses, a line other than a torn last one is damaged, which has this remedy,
/// or `take` finds a fault.
pub(in crate::runtime) fn replay(
    log: (&Path, &File),
    remedy: Option<&str>,
    take: impl FnMut(&[u8], u64) -> Result<bool, RecordFault>,
) -> Result<Replayed, LogStoreError> {
    replay_from(log, 0, remedy, take)
}

/// Reads a log from the line on that begins at `from`, as [`replay`] does. A log that is not read
/// from its beginning has marks, and at `from` a record on which other members may rely.
///
/// # Errors
/// As [`replay`].
pub(in crate::runtime) fn replay_from(
    (path, file): (&Path, &File),
    from: u64,
    remedy: Option<&str>,
    mut take: impl FnMut(&[u8], u64) -> Result<bool, RecordFault>,
) -> Result<Replayed, LogStoreError> {
    let read_error = |source| LogStoreError::io("read", path)(source);
    let mut reader = lines_from(file, from).map_err(read_error)?;
    let (mut line, mut bytes, mut torn) = (Vec::new(), from, None);
    let (mut bound, mut has_marks, mut ends_marked) = (from, from > 0, false);
    for number in 1.. {
        // Lines are counted from the log's beginning, which is read for that only in an error.
        let line_no = || lines_before(file, from) + number;
        let corrupt = |reason: String| {
            let remedy = remedy.map(str::to_owned);
            LogStoreError::Corrupt { path: path.into(), line: line_no(), reason, remedy }
        };
        let len = read_line(&mut reader, &mut line).map_err(read_error)?;
        if len == 0 {
            break;
        }
        match checked_json(&line) {
            Ok(json) => {
                ends_marked = DurableMark::parse(json).is_some();
                has_marks |= ends_marked;
                if !ends_marked {
                    let is_bound = take(json, bytes).map_err(|fault| match fault {
                        RecordFault::Newer(reason) => {
                            LogStoreError::Newer { path: path.into(), line: line_no(), reason }
                        }
                        RecordFault::Corrupt(reason) => corrupt(reason),
                        RecordFault::Foreign(whose) => {
                            LogStoreError::Foreign { path: path.into(), whose }
                        }
                    })?;
                    if is_bound {
                        bound = bytes + len;
                    }
                }
                bytes += len;
            }
            Err(reason) => {
                let rest = judge(file, bytes, has_marks).map_err(read_error)?;
                if !rest.is_torn {
                    return Err(corrupt(reason.into()));
                }
                torn = Some(Torn { line: line_no(), bytes: rest.bytes, intact: rest.intact });
                ends_marked = false;
                break;
            }
        }
    }
    Ok(Replayed { bytes, bound, ends_marked, torn })
}

/// Number of lines before an offset, as far as they can be read.
fn lines_before(file: &File, end: u64) -> u64 {
    let Ok(mut reader) = lines_from(file, 0) else { return 0 };
    let (mut line, mut at, mut count) = (Vec::new(), 0, 0);
    while at < end
        && let Ok(len @ 1..) = read_line(&mut reader, &mut line)
    {
        at += len;
        count += 1;
    }
    count
}
