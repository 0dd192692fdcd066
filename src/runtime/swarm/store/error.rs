//! Why content cannot be kept or read, each with its remedy.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

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
    /// A file that is to be written has a second name somewhere.
    SecondName {
        /// The file.
        path: PathBuf,
    },
    /// Two names lead to one file here.
    SameFile {
        /// The one name.
        one: String,
        /// The other.
        other: String,
    },
    /// The file is larger than this disk, or a limit, allows one to be.
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The folder that is written to is not any more where it was.
    Moved {
        /// Where it was.
        path: PathBuf,
    },
    /// Others change the files while they are written.
    Disturbed {
        /// The file or folder.
        path: PathBuf,
    },
    /// Something is in the folder that is not of the share.
    Stray {
        /// What it is.
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
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full { path },
            Some(Errno::FBIG) => Self::TooLarge { path },
            Some(Errno::LOOP | Errno::MLINK) => Self::NotPlain { path },
            Some(_) | None => Self::Io { action, path, source },
        }
    }
}

/// A path or name with everything that could end a line or steer a terminal written out.
fn shown(text: &str) -> String {
    // Characters that turn the direction of a line do so on every terminal.
    let turns = |it| {
        matches!(it, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(it, '\u{2066}'..='\u{2069}')
    };
    let is_plain = |it: char| !it.is_control() && !turns(it);
    let mut out = String::with_capacity(text.len());
    for it in text.chars() {
        if is_plain(it) { out.push(it) } else { out.extend(it.escape_default()) }
    }
    out
}

fn path_shown(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

impl fmt::Display for StoreError {
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
                shown(one),
                shown(other)
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
                write!(f, "the name {} cannot be used: {reason}", shown(name))
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

impl Error for StoreError {
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
