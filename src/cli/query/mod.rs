//! Questions: to seeds over their public port, as a stranger; to nodes of this machine through
//! their Unix socket.
//!
//! A question never changes anything; `leave`, `evict` and `unban` are orders. Every wait has a
//! limit, and an error names the nodes that were tried and their failures.

mod brief;
mod client;
mod error;
mod explain;
mod fleet_view;
mod graph;
mod local;
mod members;
mod orders;
mod topology;
mod uses;

pub(in crate::cli) use brief::{names, round_trip};
pub use error::QueryError;
pub use explain::explain;
pub(in crate::cli) use explain::text as explain_text;
pub(in crate::cli) use fleet_view::{FleetView, explained, fleet_view, fleet_view_of};
pub use local::{leave, metrics, status};
pub(in crate::cli) use local::{request_in, running as running_nodes};
pub use members::{fetch_members, members};
pub use orders::{evict, unban};
pub use topology::{fetch_topology, topology};
pub use uses::{discover, inbox, publish, send, subscribe};
pub(in crate::cli) use uses::{peer_at, put};

use std::time::Duration;

use self::client::{CallOptions, Client, Failure};
use super::args::AskArgs;
use super::span::Span;
use super::text::escape;
use super::{CliError, config};
use crate::model::{Endpoint, SeedId};
use crate::runtime::cluster_key;

/// Seeds to ask, in this order: the one that was named, or all that `config.txt` lists.
fn candidates(args: &AskArgs) -> Result<Vec<(String, Endpoint)>, CliError> {
    let label = |id: SeedId, endpoint| (format!("seed {id} at {endpoint}"), endpoint);
    if let Some(endpoint) = args.at.as_deref().and_then(|at| at.parse::<Endpoint>().ok()) {
        return Ok(vec![(endpoint.to_string(), endpoint)]);
    }
    let seeds = config::read(&args.config).map_err(|mut error| {
        if !args.config.exists() {
            error.reason.push_str("; in a fleet without seeds ask a peer: peer discover");
        }
        error
    })?;
    let Some(at) = &args.at else {
        return Ok(seeds.iter().map(|seed| label(seed.id, seed.endpoint)).collect());
    };
    let named = seeds.iter().find(|seed| at.parse() == Ok(seed.id.0));
    match named {
        Some(seed) => Ok(vec![label(seed.id, seed.endpoint)]),
        None => Err(QueryError::At { typed: escape(at), seeds: seeds.len() }.into()),
    }
}

/// Asks the seeds in turn, until one answers.
fn ask_first<R>(
    args: &AskArgs,
    mut question: impl FnMut(&mut Client) -> Result<R, Failure>,
) -> Result<(Endpoint, R), CliError> {
    let cluster_keys = args.cluster_key.as_deref().map(cluster_key::read).transpose()?;
    let options = CallOptions { timeout: args.timeout, cluster_keys };
    let mut tried = Vec::new();
    for (who, endpoint) in candidates(args)? {
        let answer =
            Client::connect(endpoint, &options).and_then(|mut client| question(&mut client));
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
    let options = CallOptions { timeout: Span(timeout), cluster_keys: None };
    let answer = Client::connect(endpoint, &options).and_then(|mut client| question(&mut client));
    answer.map_err(|why| QueryError::of(vec![(endpoint.to_string(), why)]))
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
