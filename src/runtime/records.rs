//! The lines of append-only files, one record a line: the CRC-32 of its JSON as eight hexadecimal
//! digits, a space, the JSON. Between them stand marks.
//!
//! A [`DurableMark`] states which bytes were on disk when it was written: one follows each sync,
//! and more stand in a long write, which repeat it. Damage that a later mark covers is no torn
//! write: confirmed records are lost. Damage that no mark covers, of any shape, lies in the last
//! write, which was never confirmed: a crash may leave its last page without its first.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};

use serde::{Deserialize, Serialize};

/// Length of the prefix: eight hexadecimal digits and a space.
pub(in crate::runtime) const PREFIX_BYTES: usize = 9;

/// Longest line: far above any record, and a bound for the cost of a damaged file.
const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Size of the read buffer, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// Opening of every mark's JSON, and of no record's.
const MARK_OPENING: &[u8] = br#"{"synced":"#;

/// Largest distance of the marks in a write: a hole in its first page does not hide from a reader
/// of the next page where the write began.
pub(in crate::runtime) const MARK_BYTES: usize = 2 * 1024;

/// Statement of the bytes that were on disk when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::runtime) struct DurableMark {
    /// All bytes before this offset were on disk.
    pub(in crate::runtime) synced: u64,
    /// End of the last record on which any other node may rely; later ones are private.
    pub(in crate::runtime) bound: u64,
    /// Offset at which the mark itself begins.
    pub(in crate::runtime) at: u64,
}

impl DurableMark {
    /// Parses a mark; `None` if the JSON is that of a record.
    pub(in crate::runtime) fn parse(json: &[u8]) -> Option<Self> {
        let is_mark = json.starts_with(MARK_OPENING);
        is_mark.then(|| serde_json::from_slice(json).ok()).flatten()
    }
}

/// Appends the line of a record.
pub(in crate::runtime) fn push_line(record: &impl Serialize, lines: &mut Vec<u8>) {
    let start = lines.len();
    lines.extend_from_slice(b"00000000 ");
    serde_json::to_writer(&mut *lines, record)
        .expect("records are plain data with text keys, which always have a JSON form");
    let checksum = crc32fast::hash(&lines[start + PREFIX_BYTES..]).to_be_bytes();
    hex::encode_to_slice(checksum, &mut lines[start..start + PREFIX_BYTES - 1])
        .expect("there are two digits a byte");
    lines.push(b'\n');
}

/// JSON of a line whose checksum is right.
pub(in crate::runtime) fn checked_json(line: &[u8]) -> Result<&[u8], &'static str> {
    let text = line.strip_suffix(b"\n").ok_or("it has no newline")?;
    let (prefix, json) = text.split_at_checked(PREFIX_BYTES).ok_or("it has no checksum")?;
    let mut expected = [0; 4];
    let digits = prefix.strip_suffix(b" ").ok_or("it has no checksum")?;
    hex::decode_to_slice(digits, &mut expected).map_err(|_| "it has no checksum")?;
    let is_right = crc32fast::hash(json) == u32::from_be_bytes(expected);
    if is_right { Ok(json) } else { Err("its checksum is wrong") }
}

/// Reads a file line by line, from an offset on.
pub(in crate::runtime) fn lines_from(file: &File, at: u64) -> io::Result<BufReader<&File>> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    reader.seek(SeekFrom::Start(at))?;
    Ok(reader)
}

/// Reads the next line, of a bounded length, with its newline if it has one; returns its length in
/// bytes, 0 at the end.
pub(in crate::runtime) fn read_line(
    reader: &mut BufReader<&File>,
    line: &mut Vec<u8>,
) -> io::Result<u64> {
    line.clear();
    Ok(reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)? as u64)
}

/// Judgment of a file's rest, from its first damaged line on.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Rest {
    /// Length of the rest, in bytes.
    pub(in crate::runtime) bytes: u64,
    /// True if no mark shows that any node may rely on the damaged records: the rest can be cut
    /// off.
    pub(in crate::runtime) is_torn: bool,
    /// JSON of the intact lines in the rest, but for marks.
    pub(in crate::runtime) intact: Vec<Vec<u8>>,
}

/// Judges the damage of the line that begins at `at`. A file without any mark, of an older
/// program, may only be torn in its last line.
///
/// # Errors
/// Fails if the disk refuses.
pub(in crate::runtime) fn judge(file: &File, at: u64, has_marks: bool) -> io::Result<Rest> {
    let mut reader = lines_from(file, at)?;
    let (mut line, mut lines, mut has_marks) = (Vec::new(), 0_u64, has_marks);
    let mut rest = Rest { bytes: 0, is_torn: true, intact: Vec::new() };
    loop {
        let len = read_line(&mut reader, &mut line)?;
        if len == 0 {
            rest.is_torn &= has_marks || lines <= 1;
            return Ok(rest);
        }
        // Pages that never reached the disk are zeros, which no line has: one may begin after them.
        let start = line.iter().rposition(|byte| *byte == 0).map_or(0, |it| it + 1);
        if let Ok(json) = checked_json(&line[start..]) {
            let here = at + rest.bytes + start as u64;
            match DurableMark::parse(json) {
                Some(mark) if mark.at == here => {
                    has_marks = true;
                    rest.is_torn &= mark.bound <= at;
                }
                Some(_) => {}
                None => rest.intact.push(json.to_owned()),
            }
        }
        if !rest.is_torn {
            return Ok(rest);
        }
        lines += 1;
        rest.bytes += len;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A file of lines, where `None` is a mark with all before it bound.
    fn file_of(lines: &[Option<&str>]) -> (File, Vec<u64>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for line in lines {
            let at = bytes.len() as u64;
            starts.push(at);
            match line {
                Some(text) => push_line(text, &mut bytes),
                None => push_line(&DurableMark { synced: at, bound: at, at }, &mut bytes),
            }
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (file, starts)
    }

    #[test]
    fn damage_is_torn_only_behind_the_last_mark() {
        let (file, starts) = file_of(&[None, Some("a"), None, Some("b"), Some("c")]);
        for (line, is_torn) in [false, false, true, true, true].into_iter().enumerate() {
            let rest = judge(&file, starts[line], line > 0).unwrap();
            assert_eq!(rest.is_torn, is_torn, "line {line}");
        }
        assert_eq!(judge(&file, starts[3], true).unwrap().intact.len(), 2);
    }

    #[test]
    fn without_any_mark_only_a_last_line_is_torn() {
        let (file, starts) = file_of(&[Some("a"), Some("b")]);
        assert!(!judge(&file, starts[0], false).unwrap().is_torn);
        assert!(judge(&file, starts[1], false).unwrap().is_torn);
    }

    #[test]
    fn a_mark_is_found_behind_zeros_and_counts_only_where_it_was_written() {
        let mut bytes = vec![0; 100];
        push_line(&DurableMark { synced: 100, bound: 50, at: 100 }, &mut bytes);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        assert!(!judge(&file, 0, true).unwrap().is_torn, "what is bound begins before");
        assert!(judge(&file, 50, true).unwrap().is_torn, "everything damaged is private");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes[1..]).unwrap();
        assert!(judge(&file, 0, true).unwrap().is_torn, "it is a copy from elsewhere");
    }
}
