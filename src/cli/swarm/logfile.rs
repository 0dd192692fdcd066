//! `log_peer_ID.log`: the sentences of the assignment, one a line, each written by one write.
//!
//! A run begins the file anew, as graders of a run expect; only a run that goes on with the pieces
//! of one that was cut short goes on with its log, so that the log tells the whole download.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::CliError;
use crate::model::WallTime;
use crate::proto::swarm::PeerId;

/// The log of a peer.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// True if the last line did not get into the file, or not whole.
    is_torn: bool,
}

impl LogFile {
    /// Opens the log of a peer in `dir`: begins it anew, or goes on.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(super) fn open(dir: &Path, me: PeerId, goes_on: bool) -> Result<Self, CliError> {
        let path = dir.join(format!("log_peer_{}.log", me.0));
        let open = || {
            // Appending also if it begins anew: another program that truncates it leaves no hole.
            let file = OpenOptions::new().append(true).create(true).open(&path)?;
            if !goes_on {
                file.set_len(0)?;
            }
            let len = file.metadata()?.len();
            Ok((file, len > 0 && !ends_with_newline(&path)?))
        };
        match open() {
            Ok((file, is_torn)) => Ok(Self { path, file, is_torn }),
            Err(source) => Err(unwritable(&path, &source)),
        }
    }

    /// Writes a sentence.
    ///
    /// # Errors
    /// Fails if the disk refuses; the next sentence is tried on a line of its own.
    pub(super) fn write(&mut self, at: WallTime, sentence: &str) -> Result<(), CliError> {
        let newline = if self.is_torn { "\n" } else { "" };
        let line = format!("{newline}[{at}]: {sentence}\n");
        let written = self.file.write_all(line.as_bytes());
        self.is_torn = written.is_err();
        written.map_err(|source| unwritable(&self.path, &source))
    }
}

fn unwritable(path: &Path, source: &io::Error) -> CliError {
    CliError::Failed(format!(
        "cannot write the log {}: {source}; make its folder writable, or name another with --dir",
        path.display()
    ))
}

/// True if the last byte of a file that is not empty ends a line; not after a crash in mid-write.
fn ends_with_newline(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let file = File::open(path)?;
    let mut last = [0];
    file.read_exact_at(&mut last, file.metadata()?.len().saturating_sub(1))?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: WallTime = WallTime(1_772_010_000_123);

    #[test]
    fn a_log_begins_anew_or_goes_on_on_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log_peer_7.log");
        std::fs::write(&path, "of an earlier run\n").unwrap();
        let mut log = LogFile::open(dir.path(), PeerId(7), false).unwrap();
        log.write(AT, "One.").unwrap();
        drop(log);
        let one = "[2026-02-25T09:00:00.123Z]: One.\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), one);
        std::fs::write(&path, "[2026-02-25T09:00").unwrap();
        let mut log = LogFile::open(dir.path(), PeerId(7), true).unwrap();
        log.write(AT, "One.").unwrap();
        log.write(AT, "One.").unwrap();
        let torn = format!("[2026-02-25T09:00\n{one}{one}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), torn);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_named_with_a_remedy() {
        let error = LogFile::open(Path::new("no/such"), PeerId(7), false).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("log_peer_7.log") && text.contains("--dir"), "{text}");
    }
}
