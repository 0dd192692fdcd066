//! Reading lines of a log while it grows, without moving the writer's position.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::LogStoreError;
use crate::runtime::records::checked_json;

/// Size of the read buffer, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Calls `show` with the JSON, the offset and the length of each line from offset `at` to `end`,
/// until it returns false.
///
/// # Errors
/// Fails if the disk refuses, a line is damaged, or `show` gives a reason why one is.
pub(in crate::runtime) fn walk_lines(
    (path, file): (&Path, &File),
    (at, end): (u64, u64),
    mut show: impl FnMut(&[u8], u64, usize) -> Result<bool, String>,
) -> Result<(), LogStoreError> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, FilePart { file, at, end });
    let (mut line, mut offset) = (Vec::new(), at);
    loop {
        line.clear();
        let read = LogStoreError::io("read", path);
        let len = reader.read_until(b'\n', &mut line).map_err(read)?;
        if len == 0 {
            return Ok(());
        }
        let json = checked_json(&line).map_err(str::to_owned);
        match json.and_then(|json| show(json, offset, len)) {
            Ok(true) => offset += len as u64,
            Ok(false) => return Ok(()),
            Err(reason) => {
                return Err(LogStoreError::Corrupt {
                    path: path.to_owned(),
                    line: 0,
                    reason: format!("{reason}, at byte {offset}"),
                    remedy: None,
                });
            }
        }
    }
}

/// A part of a file, read without moving its position.
struct FilePart<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for FilePart<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        let len = self.file.read_at(&mut buf[..left], self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}
