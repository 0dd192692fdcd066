//! The whole fleet as one seed sees it: members, links and the proofs of their lives.

use std::sync::Arc;
use std::time::Duration;

use super::client::{CallOptions, Client, Failure};
use super::{QueryError, ask_first, explain, members, topology};
use crate::cli::CliError;
use crate::cli::args::AskArgs;
use crate::cli::span::Span;
use crate::model::Endpoint;
use crate::proto::membership::{ExplainResp, MemberLine, NodeLine};
use crate::proto::sealed::ClusterKeys;

/// Time-out of a seed to connect, and for each page of an answer.
const TIMEOUT: Span = Span(Duration::from_secs(2));

/// State of the fleet by one seed.
#[derive(Clone, Debug)]
pub(in crate::cli) struct FleetView {
    /// Seed that answered.
    pub(in crate::cli) seed: Endpoint,
    /// Members, and those that went lately.
    pub(in crate::cli) members: Vec<MemberLine>,
    /// Neighbors of each member.
    pub(in crate::cli) nodes: Vec<NodeLine>,
    /// Proofs about the endpoints that were chosen.
    pub(in crate::cli) explained: Vec<ExplainResp>,
}

/// Asks the seeds in turn for the fleet, until one answers; `choose` picks the endpoints whose
/// proofs are wanted, too.
///
/// # Errors
/// Fails if no seed answers.
pub(in crate::cli) fn fleet_view(
    args: &AskArgs,
    choose: impl Fn(&[MemberLine]) -> Vec<Endpoint>,
) -> Result<FleetView, CliError> {
    ask_first(args, |client| fetch(client, &choose)).map(|(_, view)| view)
}

/// The same of these seeds, in their order.
///
/// # Errors
/// Fails if none answers.
pub(in crate::cli) fn fleet_view_of(
    seeds: &[Endpoint],
    cluster_keys: Option<Arc<ClusterKeys>>,
    choose: impl Fn(&[MemberLine]) -> Vec<Endpoint>,
) -> Result<FleetView, QueryError> {
    let options = CallOptions { timeout: TIMEOUT, cluster_keys };
    let mut tried = Vec::new();
    for seed in seeds {
        let client = Client::connect(*seed, &options);
        match client.and_then(|mut client| fetch(&mut client, &choose)) {
            Ok(view) => return Ok(view),
            Err(why) => tried.push((seed.to_string(), why)),
        }
    }
    Err(QueryError::of(tried))
}

/// State of the fleet by the seed of a client.
fn fetch(
    client: &mut Client,
    choose: impl Fn(&[MemberLine]) -> Vec<Endpoint>,
) -> Result<FleetView, Failure> {
    let members = members::fetch(client, true)?;
    let nodes = topology::fetch(client)?;
    let wanted = choose(&members).into_iter();
    let explained = wanted.map(|it| explain::fetch(client, it)).collect::<Result<_, _>>()?;
    let seed = client.to();
    Ok(FleetView { seed, members, nodes, explained })
}

/// The proofs about one endpoint.
///
/// # Errors
/// Fails if no seed answers.
pub(in crate::cli) fn explained(
    args: &AskArgs,
    endpoint: Endpoint,
) -> Result<ExplainResp, CliError> {
    ask_first(args, |client| explain::fetch(client, endpoint)).map(|(_, answer)| answer)
}
