//! The whole fleet as one seed sees it: members, links and the proofs of their lives.

use super::ask_first;
use super::client::Client;
use super::{explain, members, topology};
use crate::cli::CliError;
use crate::cli::args::AskArgs;
use crate::model::Endpoint;
use crate::proto::membership::{ExplainResp, MemberLine, NodeLine};

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
    let question = |client: &mut Client| {
        let members = members::fetch(client, true)?;
        let nodes = topology::fetch(client)?;
        let wanted = choose(&members).into_iter();
        let explained = wanted.map(|it| explain::fetch(client, it)).collect::<Result<_, _>>()?;
        Ok((members, nodes, explained))
    };
    let (seed, (members, nodes, explained)) = ask_first(args, question)?;
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
