//! Why content cannot be kept or read, each with its remedy.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

/// Why a store cannot go on.
#[derive(Debug)]
pub enum StoreError {
    /// The disk refused.
    Io {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no room for the content.
    Full {
        /// Where it was to go.
        path: PathBuf,
    },
    /// Something else has the name already.
    Exists {
        /// The name.
        path: PathBuf,
    },
    /// Where a plain file or folder was wanted there is a link, a device or something else.
    NotPlain {
        /// What is in the way.
        path: PathBuf,
    },
    /// A name that could lead out of the folder, or that the disk cannot have.
    BadName {
        /// The name, shortened.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another process, or another swarm of this one, has the same content under way.
    InUse {
        /// The content.
        path: PathBuf,
    },
    /// A file that is offered is not any more what was hashed.
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file has another size than it should.
    WrongSize {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        is: u64,
        /// What it should have.
        should: u64,
    },
    /// The list of a folder's files cannot be used.
    BadList {
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody asked to stop.
    Stopped,
}

impl StoreError {
    /// What the system says, in terms of this module: a full disk and a link in the way have names
    /// of their own.
    pub(super) fn of(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Self::Full { path },
            Some(Errno::LOOP | Errno::MLINK) => Self::NotPlain { path },
            Some(_) | None => Self::Io { action, path, source },
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
            Self::Full { path } => write!(
                f,
                "no room for {}: free some on this disk and start again, it goes on where it \
                 stopped; or choose another folder",
                path.display()
            ),
            Self::Exists { path } => write!(
                f,
                "{} exists already; move it away, or choose another folder",
                path.display()
            ),
            Self::NotPlain { path } => write!(
                f,
                "{} is a link, a device or another special file; move it away: only plain files \
                 are written and offered",
                path.display()
            ),
            Self::BadName { name, reason } => {
                write!(f, "the name {name:?} cannot be used: {reason}")
            }
            Self::InUse { path } => write!(
                f,
                "{} is under way already; wait for the other process, or stop it",
                path.display()
            ),
            Self::Changed { path } => write!(
                f,
                "{} was changed since it was hashed; share it again as it is now",
                path.display()
            ),
            Self::WrongSize { path, is, should } => write!(
                f,
                "{} has {is} bytes and should have {should}; restore it, or correct the size",
                path.display()
            ),
            Self::BadList { reason } => {
                write!(f, "the list of files cannot be used: {reason}")
            }
            Self::Stopped => f.write_str("stopped on request"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Full { .. }
            | Self::Exists { .. }
            | Self::NotPlain { .. }
            | Self::BadName { .. }
            | Self::InUse { .. }
            | Self::Changed { .. }
            | Self::WrongSize { .. }
            | Self::BadList { .. }
            | Self::Stopped => None,
        }
    }
}
