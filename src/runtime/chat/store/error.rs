//! Why a log cannot be used.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a log cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// The disk refused.
    Io {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process uses the log.
    Locked {
        /// Its directory.
        dir: PathBuf,
    },
    /// A line other than a torn last one is not what was written.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// It is the log of another member, or of this one with another key.
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        whose: String,
    },
    /// The member had a log, and it is not there.
    Forgotten {
        /// Where it should be.
        path: PathBuf,
        /// What says so.
        marker: PathBuf,
    },
}

impl StoreError {
    /// An error of the disk, while `action` was tried with `path`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())?;
                f.write_str(remedy(source.kind()))
            }
            Self::Locked { dir } => write!(
                f,
                "another process with this id uses {}; stop it, or choose another --id or \
                 --log-dir",
                dir.display()
            ),
            Self::Corrupt { path, line, reason } => write!(
                f,
                "{} is corrupt at line {line}: {reason}; restore it from a copy, or move it away \
                 and join again under a new --id",
                path.display()
            ),
            Self::Foreign { path, whose } => write!(
                f,
                "{} is the log of {whose}; choose another --log-dir, or that member's --id and \
                 --data",
                path.display()
            ),
            Self::Forgotten { path, marker } => write!(
                f,
                "{} is gone, and with it what this member has promised and stored, as {} says; \
                 restore the log from a copy, or have another member /remove this one, and join \
                 again with a new --data and a new --id",
                path.display(),
                marker.display()
            ),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Locked { .. }
            | Self::Corrupt { .. }
            | Self::Foreign { .. }
            | Self::Forgotten { .. } => None,
        }
    }
}

fn remedy(kind: io::ErrorKind) -> &'static str {
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
