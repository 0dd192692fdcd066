//! Errors that end a program, each with one sentence and one exit code.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::config::ConfigError;
use super::query::QueryError;
use crate::network::{self, ShareError};
use crate::runtime::cluster_key::ClusterKeyError;
use crate::runtime::files::FilesError;
use crate::runtime::journal::JournalError;
use crate::runtime::listen::ListenError;

/// Reason why a program ends without success.
#[derive(Debug)]
pub enum CliError {
    /// The flags contradict each other, the configuration or the facts. The user's to mend.
    Usage(String),
    /// `config.txt` cannot be used. The user's to mend.
    Config(ConfigError),
    /// The cluster key cannot be used. The user's to mend.
    ClusterKey(ClusterKeyError),
    /// The port cannot be listened on.
    Listen(ListenError),
    /// The data directory cannot be used.
    Files(FilesError),
    /// The journal cannot be read, or failed while the node ran.
    Journal(JournalError),
    /// The output file cannot be written.
    Output {
        /// Path of the output file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A question was not answered.
    Query(QueryError),
    /// The system refused something else.
    System {
        /// Action that failed, as an infinitive.
        action: &'static str,
        /// Error of the system.
        source: io::Error,
    },
    /// Another failure; the text says what went wrong and its remedy.
    Failed(String),
    /// A program did not answer a request: it may have carried it out or not.
    Unanswered(String),
    /// A message was not taken, for this reason; nothing of it is kept.
    Rejected(String),
    /// A chat ended while so many messages typed there were not final. They are kept.
    Pending(usize),
    /// Texts that a script gave to a chat were not sent.
    Refused {
        /// Number of refused texts.
        refused: usize,
        /// The number of others that are kept and not final.
        pending: usize,
    },
    /// Not all peers have the share that was ordered for all; the lines before say why.
    NotEverywhere {
        /// Number of peers that refuse it.
        refused: usize,
        /// Number of other peers that do not have it yet.
        open: usize,
        /// Number of all peers.
        of: usize,
    },
}

impl CliError {
    /// Exit code: 2 if the user's input is wrong, 1 if the surroundings are, 3 if work is left, 4
    /// if some of it was refused, 5 if the outcome is unknown.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) | Self::ClusterKey(_) => 2,
            Self::Query(error) => error.code(),
            Self::Listen(_)
            | Self::Files(_)
            | Self::Journal(_)
            | Self::Output { .. }
            | Self::System { .. }
            | Self::Failed(_) => 1,
            Self::Pending(_) | Self::NotEverywhere { refused: 0, .. } => 3,
            Self::Rejected(_) | Self::Refused { .. } | Self::NotEverywhere { .. } => 4,
            Self::Unanswered(_) => 5,
        }
    }

    /// True if the reader of the output has gone, as in `peer members | head -1`; no fault.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::System { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Prints the error, if there is one, on standard error, and returns the exit code.
pub fn conclude(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            // If even standard error is closed, the exit code alone must do.
            let _ = writeln!(io::stderr().lock(), "error: {error}");
            ExitCode::from(error.code())
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
            Self::Unanswered(text) => {
                write!(f, "{text}; it may have been done or not: look before you ask again")
            }
            Self::Rejected(reason) => write!(f, "not sent: {reason}"),
            Self::Pending(count) => {
                let what = if *count == 1 { "message is" } else { "messages are" };
                write!(f, "{count} {what} not final; kept, and sent until enough members vote")
            }
            Self::Refused { refused, pending } => {
                let what = if *refused == 1 { "text was" } else { "texts were" };
                write!(f, "{refused} {what} not sent; the answers above say why")?;
                if *pending > 0 {
                    write!(f, "; {}", Self::Pending(*pending))?;
                }
                Ok(())
            }
            Self::NotEverywhere { refused, open, of } => {
                let have = of - refused - open;
                write!(
                    f,
                    "{have} of {of} have it; {refused} refuse it, {open} have not all of it; "
                )?;
                f.write_str("it is shared on, and taken by those who can; see the lines above")
            }
            Self::Config(error) => error.fmt(f),
            Self::ClusterKey(error) => error.fmt(f),
            Self::Listen(error) => error.fmt(f),
            Self::Files(error @ FilesError::Io { .. }) => {
                write!(f, "{error}; make it usable, or name another directory with --data")
            }
            Self::Files(error) => error.fmt(f),
            Self::Journal(error) => error.fmt(f),
            Self::Output { path, source } => write!(
                f,
                "cannot append to the output file {}: {source}; name another one with --output",
                path.display()
            ),
            Self::Query(error) => error.fmt(f),
            Self::System { action, source } => write!(f, "cannot {action}: {source}"),
        }
    }
}

impl Error for CliError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Usage(_)
            | Self::Failed(_)
            | Self::Unanswered(_)
            | Self::Rejected(_)
            | Self::Pending(_)
            | Self::Refused { .. }
            | Self::NotEverywhere { .. } => None,
            Self::Config(error) => Some(error),
            Self::ClusterKey(error) => Some(error),
            Self::Listen(error) => Some(error),
            Self::Files(error) => Some(error),
            Self::Journal(error) => Some(error),
            Self::Output { source, .. } | Self::System { source, .. } => Some(source),
            Self::Query(error) => Some(error),
        }
    }
}

macro_rules! error_from {
    ($($variant:ident($error:ty)),* $(,)?) => {
        $(impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

error_from! {
    Config(ConfigError), ClusterKey(ClusterKeyError), Listen(ListenError), Files(FilesError),
    Journal(JournalError), Query(QueryError),
}

impl From<network::StartError> for CliError {
    fn from(error: network::StartError) -> Self {
        use network::StartError as Start;
        match error {
            Start::Listen(error) => error.into(),
            Start::Files(error) => error.into(),
            Start::Journal(error) => error.into(),
            Start::ClusterKey(error) => error.into(),
            Start::System(source) => Self::System { action: "start a thread", source },
            Start::Address { .. } | Start::Setting(_) => Self::Usage(error.to_string()),
            Start::Chat(_) | Start::Order(_) | Start::Rollout(_) | Start::Network(_) => {
                Self::Failed(error.to_string())
            }
        }
    }
}

impl From<ShareError> for CliError {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::Ticket(_) => Self::Usage(error.to_string()),
            ShareError::Piece(_) => Self::Usage(format!("{error} with --piece")),
            ShareError::Exists(_) => Self::Failed(format!("{error} with --to")),
            ShareError::Stopped | ShareError::NotFound { .. } | ShareError::Failed(_) => {
                Self::Failed(error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_must_mend_is_2_and_the_rest_is_1() {
        assert_eq!(CliError::Usage(String::new()).code(), 2);
        let source = io::Error::other("no");
        assert_eq!(CliError::Pending(2).code(), 3);
        assert_eq!(CliError::Refused { refused: 1, pending: 2 }.code(), 4);
        assert_eq!(CliError::NotEverywhere { refused: 1, open: 2, of: 5 }.code(), 4);
        assert_eq!(CliError::NotEverywhere { refused: 0, open: 2, of: 5 }.code(), 3);
        assert_eq!(CliError::Output { path: "x".into(), source }.code(), 1);
    }
}
