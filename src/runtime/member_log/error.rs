//! Errors of a log.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Reason why a log cannot be used.
#[derive(Debug)]
pub enum LogStoreError {
    /// The disk refused.
    Io {
        /// Action that failed, as an infinitive.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// Another process uses the log.
    Locked {
        /// Directory of the log.
        dir: PathBuf,
    },
    /// A line other than a torn last one is damaged.
    Corrupt {
        /// Path of the log.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// Description of the damage.
        reason: String,
        /// Remedy in words, if one is known.
        remedy: Option<String>,
    },
    /// A line is intact, and not a record of this version.
    Newer {
        /// Path of the log.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// Description of the unknown part.
        reason: String,
    },
    /// The log is that of another member, or of this one with another key.
    Foreign {
        /// Path of the log.
        path: PathBuf,
        /// Owner of the log, in words.
        whose: String,
    },
    /// The log ends before the last entry that the member had acknowledged.
    Rewound {
        /// Path of the log.
        path: PathBuf,
        /// Description of the difference, as a clause.
        reason: String,
        /// Remedy in words, for people.
        remedy: String,
    },
    /// The member had a log, and it is not there.
    Forgotten {
        /// Path where the log should be.
        path: PathBuf,
        /// File that remembers the log.
        marker: PathBuf,
        /// Remedy in words, for people.
        remedy: String,
    },
}

impl LogStoreError {
    /// An error of the disk, while `action` was tried with `path`.
    pub(in crate::runtime) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl fmt::Display for LogStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())?;
                f.write_str(remedy_for(source.kind()))
            }
            Self::Locked { dir } => write!(
                f,
                "another process with this id uses {}; stop it, or choose another --id or \
                 --log-dir",
                dir.display()
            ),
            Self::Corrupt { path, line, reason, remedy } => {
                write!(f, "{} is corrupt at line {line}: {reason}", path.display())?;
                remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
            Self::Newer { path, line, reason } => write!(
                f,
                "{} has at line {line} a record that this version does not know ({reason}): a \
                 newer version has written it. Start that version here",
                path.display()
            ),
            Self::Rewound { path, reason, remedy } => {
                write!(f, "{} is not whole: {reason}; {remedy}", path.display())
            }
            Self::Foreign { path, whose } => write!(
                f,
                "{} is the log of {whose}; choose another --log-dir, or that member's --id and \
                 --data",
                path.display()
            ),
            Self::Forgotten { path, marker, remedy } => write!(
                f,
                "{} is gone, and with it what this member has promised and stored, as {} says; \
                 {remedy}",
                path.display(),
                marker.display()
            ),
        }
    }
}

impl Error for LogStoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Locked { .. }
            | Self::Corrupt { .. }
            | Self::Newer { .. }
            | Self::Foreign { .. }
            | Self::Rewound { .. }
            | Self::Forgotten { .. } => None,
        }
    }
}

fn remedy_for(kind: io::ErrorKind) -> &'static str {
    const ROOM: &str = "; make room there, and start again: nothing that was confirmed is lost";
    const DIR: &str = "; choose a directory that you may write to with --log-dir";
    let remedies = [
        (io::ErrorKind::PermissionDenied, DIR),
        (io::ErrorKind::ReadOnlyFilesystem, DIR),
        (io::ErrorKind::StorageFull, ROOM),
        (io::ErrorKind::QuotaExceeded, ROOM),
    ];
    remedies.iter().find(|(known, _)| *known == kind).map_or("", |(_, remedy)| remedy)
}
