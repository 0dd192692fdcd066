//! Reading of the two files of an assignment's swarm as lines of words.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::cli::config::ConfigError;

/// Largest size of a file, in bytes; one for a thousand peers has a tenth of this.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The text of the file at `path`; if it cannot be opened, the error has `remedy` as well.
///
/// # Errors
/// [`ConfigError`] if it cannot be read, or is no text.
pub(super) fn read(path: &Path, remedy: &str) -> Result<String, ConfigError> {
    let fault = |reason: String| ConfigError { file: path.into(), line: None, reason };
    let mut bytes = Vec::new();
    let file =
        File::open(path).map_err(|it| fault(format!("cannot be opened ({it}); {remedy}")))?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(format!("cannot be read ({error}); {remedy}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault("is larger than 1 MiB; it should be a few lines".to_owned()));
    }
    String::from_utf8(bytes)
        .map_err(|_| fault("is not plain text (UTF-8); save it as such".to_owned()))
}

/// The lines with content, with their numbers: without comments and outer blanks. A `#` begins a
/// comment at the start of a line or after a blank.
pub(super) fn of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    (1..).zip(text.lines()).filter_map(|(number, line)| {
        let comment = line.char_indices().find(|(at, c)| {
            *c == '#' && line[..*at].chars().next_back().is_none_or(char::is_whitespace)
        });
        let line = line[..comment.map_or(line.len(), |(at, _)| at)].trim();
        (!line.is_empty()).then_some((number, line))
    })
}
