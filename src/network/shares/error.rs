//! Errors of shares.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use crate::model::text::escape;
use crate::runtime::files::FilesError;
use crate::runtime::listen::ListenError;
use crate::runtime::swarm::JoinError;

/// Reason why a file or folder is not shared, or did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShareError {
    /// The network has stopped, or the share was ended before it was complete.
    Stopped,
    /// The text is no ticket, or one that cannot be used; the reason, for people.
    Ticket(String),
    /// The content cannot be divided into pieces of this size; the reason, for people.
    Piece(String),
    /// Something else is in the place of the content; nothing of it was changed.
    Exists(PathBuf),
    /// Nobody who has the missing pieces came in time. Those that came are kept, and not fetched
    /// again.
    NotFound {
        /// Number of pieces that are here.
        have: u32,
        /// Number of all pieces.
        pieces: u32,
        /// Last trouble with a peer that was asked, for people.
        last: String,
    },
    /// Another failure; the text says what went wrong and its remedy.
    Failed(String),
}

impl fmt::Display for ShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the peer has stopped, or has ended the share"),
            Self::Ticket(reason) => write!(f, "the ticket cannot be used: {reason}"),
            Self::Piece(reason) | Self::Failed(reason) => f.write_str(reason),
            Self::Exists(path) => write!(
                f,
                "{} exists already, and is not what the ticket names; move it away, or choose \
                 another folder",
                escape(&path.display().to_string())
            ),
            Self::NotFound { have, pieces, last } => write!(
                f,
                "nobody who has the rest came in time (at last: {}); {have} of {pieces} \
                 pieces are kept",
                escape(last)
            ),
        }
    }
}

impl Error for ShareError {}

macro_rules! share_error_from {
    ($($source:ty),* $(,)?) => {
        $(impl From<$source> for ShareError {
            fn from(source: $source) -> Self {
                Self::Failed(source.to_string())
            }
        })*
    };
}

share_error_from! { FilesError, ListenError, JoinError }
