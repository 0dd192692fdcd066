//! Reasons why questions have no answer.

use std::error::Error;
use std::fmt;

use super::client::Failure;
use crate::cli::text::escape;

/// Reason why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// `--at` names no seed.
    At {
        /// The typed text.
        typed: String,
        /// Number of seeds that can be named.
        seeds: usize,
    },
    /// No seed answered.
    NoAnswer {
        /// Seeds that were asked, each with its failure.
        tried: Vec<(String, String)>,
    },
    /// All seeds that were asked refuse, for one reason.
    Refused {
        /// Seeds that were asked.
        who: Vec<String>,
        /// Reason of the refusal, and its remedy.
        why: String,
    },
    /// No node of this machine was found, or too many.
    Local(String),
}

impl QueryError {
    /// The exit code: 2 for a slip of the user, 1 for the surroundings.
    pub const fn code(&self) -> u8 {
        match self {
            Self::At { .. } => 2,
            Self::NoAnswer { .. } | Self::Refused { .. } | Self::Local(_) => 1,
        }
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { typed, seeds } => write!(
                f,
                "--at {typed} names no seed; write a number from 1 to {seeds}, or an IP:PORT"
            ),
            Self::NoAnswer { tried } => {
                // Each reason once, with all seeds that it holds for.
                let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
                for (who, why) in tried {
                    match reasons.iter_mut().find(|(known, _)| known == why) {
                        Some((_, whose)) => whose.push(who),
                        None => reasons.push((why, vec![who])),
                    }
                }
                let tried: Vec<_> = reasons
                    .into_iter()
                    .map(|(why, whose)| format!("{}: {why}", whose.join(", ")))
                    .collect();
                write!(
                    f,
                    "no seed answered ({}); start the seeds, or name another one with --at",
                    escape(&tried.join("; "))
                )
            }
            Self::Refused { who, why } => {
                let refuse = if who.len() == 1 { "refuses" } else { "all refuse" };
                write!(f, "{} {refuse}: {}", escape(&who.join(", ")), escape(why))
            }
            Self::Local(text) => f.write_str(text),
        }
    }
}

impl Error for QueryError {}

impl QueryError {
    /// Error of a question that all of these seeds failed to answer.
    pub(super) fn of(tried: Vec<(String, Failure)>) -> Self {
        if let Some((_, Failure::Refused(why))) = tried.first()
            && tried.iter().all(|(_, it)| matches!(it, Failure::Refused(other) if other == why))
        {
            let why = why.clone();
            return Self::Refused { who: tried.into_iter().map(|(who, _)| who).collect(), why };
        }
        let text = |it| match it {
            Failure::Silent(why) => why,
            Failure::Refused(why) => format!("it refused: {why}"),
        };
        Self::NoAnswer { tried: tried.into_iter().map(|(who, it)| (who, text(it))).collect() }
    }
}
