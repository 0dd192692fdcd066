//! The whole fleet, as a seed tells it: members, links, and the certificates of the last decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::QueryError;
use super::client::{CallOptions, Client, Failure};
use super::{members, topology};
use crate::cli::span::Span;
use crate::model::Endpoint;
use crate::model::entry::RegistryEntry;
use crate::proto::membership::{ExplainReq, MemberLine, NodeLine};
use crate::proto::message::Message;
use crate::proto::sealed::ClusterKeys;

/// Largest number of endpoints whose decisions are asked for: those that changed last.
pub(in crate::cli) const EXPLAINED_MAX: usize = 200;

/// Time-out of a seed to connect, and for each page of an answer.
const TIMEOUT: Span = Span(Duration::from_secs(2));

/// Proofs about endpoints, each with the member's line that they belong to.
pub(in crate::cli) type Explained = BTreeMap<Endpoint, (MemberLine, Arc<[RegistryEntry]>)>;

/// A fleet, as a seed told it.
#[derive(Debug)]
pub(in crate::cli) struct ToldFleet {
    /// Address of the seed.
    pub(in crate::cli) by: Endpoint,
    /// Members, and those that ended lately.
    pub(in crate::cli) members: Vec<MemberLine>,
    /// Neighbors of each member.
    pub(in crate::cli) nodes: Vec<NodeLine>,
    /// Lives of the endpoints that changed last.
    pub(in crate::cli) explained: Explained,
}

/// Asks the first of `seeds` that answers. Only what has changed since `before` is asked in full.
///
/// # Errors
/// Fails if none answers.
pub(in crate::cli) fn fleet(
    seeds: &[Endpoint],
    cluster_keys: Option<Arc<ClusterKeys>>,
    before: &Explained,
) -> Result<ToldFleet, QueryError> {
    let options = CallOptions { timeout: TIMEOUT, cluster_keys };
    let mut tried = Vec::new();
    for seed in seeds {
        let told = Client::connect(*seed, &options)
            .and_then(|mut client| fetch(*seed, &mut client, before));
        match told {
            Ok(told) => return Ok(told),
            Err(why) => tried.push((seed.to_string(), why)),
        }
    }
    Err(QueryError::of(tried))
}

fn fetch(by: Endpoint, client: &mut Client, before: &Explained) -> Result<ToldFleet, Failure> {
    let members = members::fetch(client, true)?;
    let nodes = topology::fetch(client)?;
    let mut newest: Vec<_> = members.iter().collect();
    newest.sort_by_key(|it| std::cmp::Reverse(it.since));
    let mut explained = Explained::new();
    for line in newest.into_iter().take(EXPLAINED_MAX) {
        let is_same = |known: &&(MemberLine, _)| {
            (known.0.incarnation, known.0.status, known.0.since)
                == (line.incarnation, line.status, line.since)
        };
        let lives = match before.get(&line.endpoint).filter(is_same) {
            Some((_, lives)) => Arc::clone(lives),
            None => {
                let endpoint = line.endpoint;
                let answer = client.ask(ExplainReq { endpoint }, |answer| {
                    if let Message::ExplainResp(answer) = answer { Some(answer) } else { None }
                })?;
                answer.lives.into()
            }
        };
        explained.insert(line.endpoint, (line.clone(), lives));
    }
    Ok(ToldFleet { by, members, nodes, explained })
}
