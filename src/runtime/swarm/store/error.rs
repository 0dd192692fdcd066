//! Errors of a store, each with its remedy.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::model::text::escape;

/// Reason why a store cannot go on.
#[derive(Debug)]
pub enum ContentStoreError {
    /// The disk refused.
    Io {
        /// Action that failed, as an infinitive.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// There is no room for the content.
    Full {
        /// Path of the content.
        path: PathBuf,
    },
    /// Another file or folder has the name already.
    Exists {
        /// Path of the name.
        path: PathBuf,
    },
    /// A link, a device or another special file is in the place of a plain file or folder.
    NotPlain {
        /// Path of the special file.
        path: PathBuf,
    },
    /// A file that is to be written has a second name (hard link) somewhere.
    SecondName {
        /// Path of the file.
        path: PathBuf,
    },
    /// Two names lead to one file here.
    SameFile {
        /// The one name.
        one: String,
        /// The other name.
        other: String,
    },
    /// The file is larger than this disk, or a limit, allows one to be.
    TooLarge {
        /// Path of the file.
        path: PathBuf,
    },
    /// The folder that is written to is not any more at its path.
    Moved {
        /// Former path of the folder.
        path: PathBuf,
    },
    /// Other programs change the files while they are written.
    Disturbed {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file is in the folder that does not belong to the share.
    Stray {
        /// Path of the file.
        path: PathBuf,
    },
    /// A name that could lead out of the folder, or that the disk cannot have.
    BadName {
        /// The name, shortened.
        name: String,
        /// Reason why the name is not allowed.
        reason: &'static str,
    },
    /// Another process, or another swarm of this one, has the same content under way.
    InUse {
        /// Path of the content.
        path: PathBuf,
    },
    /// A file that is offered has changed since it was hashed.
    Changed {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file has another size than it should.
    WrongSize {
        /// Path of the file.
        path: PathBuf,
        /// Size of the file, in bytes.
        is: u64,
        /// Expected size, in bytes.
        should: u64,
    },
    /// The list of a folder's files cannot be used.
    BadList {
        /// Reason why it cannot be used.
        reason: String,
    },
    /// The work was stopped on request.
    Stopped,
}

impl ContentStoreError {
    /// Converts an error of the system: a full disk and a link in the way have variants of their
    /// own.
    pub(super) fn of(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full { path },
            Some(Errno::FBIG) => Self::TooLarge { path },
            Some(Errno::LOOP | Errno::MLINK) => Self::NotPlain { path },
            Some(_) | None => Self::Io { action, path, source },
        }
    }
}

fn path_shown(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

impl fmt::Display for ContentStoreError {
    #[allow(clippy::too_many_lines, reason = "a sentence for each")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path_shown(path))
            }
            Self::Full { path } => write!(
                f,
                "no room for {}: free some on this disk and start again, it goes on where it \
                 stopped; or choose another folder",
                path_shown(path)
            ),
            Self::Exists { path } => write!(
                f,
                "{} exists already; move it away, or choose another folder",
                path_shown(path)
            ),
            Self::NotPlain { path } => write!(
                f,
                "{} is a link, a device or another special file; move it away: only plain files \
                 are written and offered",
                path_shown(path)
            ),
            Self::SecondName { path } => write!(
                f,
                "{} is kept under a second name as well (a hard link), and what is written to one \
                 is written to both; put a copy in its place",
                path_shown(path)
            ),
            Self::SameFile { one, other } => write!(
                f,
                "{} and {} are one file on this disk, which does not tell such names apart; \
                 choose a folder on another disk",
                escape(one),
                escape(other)
            ),
            Self::TooLarge { path } => write!(
                f,
                "{} is larger than this disk or a limit of this process (ulimit -f) lets a file \
                 be; choose a folder on another disk, or raise the limit",
                path_shown(path)
            ),
            Self::Moved { path } => write!(
                f,
                "{} was moved, replaced or deleted meanwhile; put it back",
                path_shown(path)
            ),
            Self::Disturbed { path } => write!(
                f,
                "others change {} while it is written; find out who, or choose another folder",
                path_shown(path)
            ),
            Self::Stray { path } => {
                write!(f, "{} is not of the share; move it away", path_shown(path))
            }
            Self::BadName { name, reason } => {
                write!(f, "the name {} cannot be used: {reason}", escape(name))
            }
            Self::InUse { path } => write!(
                f,
                "{} is under way already; wait for the other process, or stop it",
                path_shown(path)
            ),
            Self::Changed { path } => write!(
                f,
                "{} was changed since it was hashed; share it again as it is now",
                path_shown(path)
            ),
            Self::WrongSize { path, is, should } => write!(
                f,
                "{} has {is} bytes and should have {should}; restore it, or correct the size",
                path_shown(path)
            ),
            Self::BadList { reason } => {
                write!(f, "the list of files cannot be used: {reason}")
            }
            Self::Stopped => f.write_str("stopped on request"),
        }
    }
}

impl Error for ContentStoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Full { .. }
            | Self::Exists { .. }
            | Self::NotPlain { .. }
            | Self::SecondName { .. }
            | Self::SameFile { .. }
            | Self::TooLarge { .. }
            | Self::Moved { .. }
            | Self::Disturbed { .. }
            | Self::Stray { .. }
            | Self::BadName { .. }
            | Self::InUse { .. }
            | Self::Changed { .. }
            | Self::WrongSize { .. }
            | Self::BadList { .. }
            | Self::Stopped => None,
        }
    }
}
