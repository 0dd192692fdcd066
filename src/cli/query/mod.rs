//! Questions: to seeds over their public port, as a stranger; to nodes of this machine through
//! their Unix socket.
//!
//! A question never changes anything; `leave`, `evict` and `unban` are orders. Every wait has a
//! limit, and an error names the nodes that were tried and their failures.

mod client;
mod explain;
mod graph;
mod local;
mod members;
mod orders;
mod topology;
mod uses;

pub use explain::explain;
pub use local::{leave, metrics, status};
pub use members::{fetch_members, members};
pub use orders::{evict, unban};
pub use topology::{fetch_topology, topology};
pub use uses::{discover, inbox, publish, send, subscribe};
pub(in crate::cli) use uses::{peer_at, put};

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

use self::client::{Client, Failure, Manner};
use super::CliError;
use super::args::AskArgs;
use super::config;
use super::log::escape;
use super::span::Span;
use crate::model::{Endpoint, SeedId};
use crate::runtime::cluster_key;

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

/// Seeds to ask, in this order: the one that was named, or all that `config.txt` lists.
fn candidates(args: &AskArgs) -> Result<Vec<(String, Endpoint)>, CliError> {
    let label = |id: SeedId, endpoint| (format!("seed {id} at {endpoint}"), endpoint);
    if let Some(endpoint) = args.at.as_deref().and_then(|at| at.parse::<Endpoint>().ok()) {
        return Ok(vec![(endpoint.to_string(), endpoint)]);
    }
    let seeds = config::read(&args.config)?;
    let Some(at) = &args.at else {
        return Ok(seeds.iter().map(|seed| label(seed.id, seed.endpoint)).collect());
    };
    let named = seeds.iter().find(|seed| at.parse() == Ok(seed.id.0));
    match named {
        Some(seed) => Ok(vec![label(seed.id, seed.endpoint)]),
        None => Err(QueryError::At { typed: escape(at), seeds: seeds.len() }.into()),
    }
}

impl QueryError {
    /// Error of a question that all of these seeds failed to answer.
    fn of(tried: Vec<(String, Failure)>) -> Self {
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

/// Asks the seeds in turn, until one answers.
fn ask_first<R>(
    args: &AskArgs,
    mut question: impl FnMut(&mut Client) -> Result<R, Failure>,
) -> Result<(Endpoint, R), CliError> {
    let cluster_keys = args.cluster_key.as_deref().map(cluster_key::read).transpose()?;
    let manner = Manner { timeout: args.timeout, cluster_keys };
    let mut tried = Vec::new();
    for (who, endpoint) in candidates(args)? {
        let answer =
            Client::connect(endpoint, &manner).and_then(|mut client| question(&mut client));
        match answer {
            Ok(answer) => return Ok((endpoint, answer)),
            Err(why) => tried.push((who, why)),
        }
    }
    Err(QueryError::of(tried).into())
}

/// Asks one node of a fleet without a cluster key.
fn ask_one<R>(
    endpoint: Endpoint,
    timeout: Duration,
    question: impl FnOnce(&mut Client) -> Result<R, Failure>,
) -> Result<R, QueryError> {
    let manner = Manner { timeout: Span(timeout), cluster_keys: None };
    let answer = Client::connect(endpoint, &manner).and_then(|mut client| question(&mut client));
    answer.map_err(|why| QueryError::of(vec![(endpoint.to_string(), why)]))
}

/// Writes `text` to standard output, and ends its last line if it has not ended.
///
/// # Errors
/// Fails if standard output takes no more.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(end.as_bytes()))
        .and_then(|()| out.flush());
    written.map_err(|source| CliError::System { action: "write the answer", source })
}

/// Width in columns below which a table is not fitted to its terminal.
const WIDTH_MIN: u16 = 60;

/// A table that fits a terminal, or, for programs, plain lines that are never broken.
pub(in crate::cli) fn table<const N: usize>(header: [&str; N], is_terminal: bool) -> Table {
    let mut table = Table::new();
    if is_terminal {
        table.load_style(presets::UTF8_FULL_CONDENSED);
        // A terminal that is too narrow, or does not know its width, breaks lines better itself.
        let is_wide = table.width().is_some_and(|width| width >= WIDTH_MIN);
        if is_wide {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
    } else {
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(header);
    table
}

/// The table's text, without blanks at the ends of lines.
pub(in crate::cli) fn table_text(mut table: Table, is_terminal: bool) -> String {
    if !is_terminal {
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(at: Option<&str>, config: &str) -> AskArgs {
        AskArgs {
            at: at.map(str::to_owned),
            config: config.into(),
            cluster_key: None,
            timeout: Span(Duration::from_secs(1)),
        }
    }

    #[test]
    fn a_seed_is_named_by_number_or_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.txt");
        std::fs::write(&path, "127.0.0.1:5001\n127.0.0.1:5002\n").unwrap();
        let config = path.to_str().unwrap();
        let found = |at| candidates(&args(at, config)).unwrap();
        assert_eq!(found(None).len(), 2);
        assert_eq!(found(Some("2"))[0].0, "seed 2 at 127.0.0.1:5002");
        assert_eq!(found(Some("127.0.0.1:9"))[0].0, "127.0.0.1:9");
        let error = candidates(&args(Some("3"), config)).unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(error.to_string().contains("--at 3") && error.to_string().contains("1 to 2"));
    }

    #[test]
    fn an_address_needs_no_config_file() {
        assert!(candidates(&args(Some("127.0.0.1:5001"), "no/such/file")).is_ok());
        assert!(candidates(&args(Some("1"), "no/such/file")).is_err());
    }

    #[test]
    fn nobody_in_reach_is_told_with_everybody_who_was_tried() {
        let tried =
            vec![("seed 1 at 127.0.0.1:5001".to_owned(), "nobody listens there".to_owned())];
        let text = QueryError::NoAnswer { tried }.to_string();
        assert!(text.contains("seed 1 at 127.0.0.1:5001: nobody listens there"), "{text}");
        assert!(text.contains("--at"), "{text}");
    }

    fn told(failures: Vec<Failure>) -> String {
        let named = (1..).zip(failures).map(|(seed, it)| (format!("seed {seed}"), it));
        QueryError::of(named.collect()).to_string()
    }

    #[test]
    fn one_reason_is_told_once_with_its_own_remedy() {
        let refused = || Failure::Refused("use --cluster-key FILE".to_owned());
        let nobody = || Failure::from("nobody listens there");
        assert_eq!(told(vec![refused()]), "seed 1 refuses: use --cluster-key FILE");
        assert_eq!(
            told(vec![refused(), refused()]),
            "seed 1, seed 2 all refuse: use --cluster-key FILE"
        );
        assert_eq!(
            told(vec![nobody(), refused(), nobody()]),
            "no seed answered (seed 1, seed 3: nobody listens there; seed 2: it refused: use \
             --cluster-key FILE); start the seeds, or name another one with --at"
        );
    }
}
