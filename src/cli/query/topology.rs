//! `peer topology`: the links of all members.

use std::time::Duration;

use serde_json::json;

use super::client::{Client, Failure, Page};
use super::graph::Graph;
use super::{QueryError, ask_first, ask_one};
use crate::cli::CliError;
use crate::cli::args::TopologyArgs;
use crate::cli::output::{print, terminal_width};
use crate::model::Endpoint;
use crate::proto::membership::{NodeLine, TopologyReq};
use crate::proto::message::Message;

/// Shows the links of all members, as a seed was told.
///
/// # Errors
/// Fails if no seed answers.
pub fn topology(args: &TopologyArgs) -> Result<(), CliError> {
    let (seed, nodes) = ask_first(&args.ask, fetch)?;
    if args.json {
        print(&json_lines(&nodes))
    } else if args.dot {
        print(&Graph::new(&nodes).dot())
    } else {
        print(&Graph::new(&nodes).text(seed, terminal_width()))
    }
}

/// The neighbors of each member, as the seed at `endpoint` was told.
///
/// # Errors
/// Fails if it does not answer, or takes longer than `timeout` to connect or for a page.
pub fn fetch_topology(endpoint: Endpoint, timeout: Duration) -> Result<Vec<NodeLine>, QueryError> {
    ask_one(endpoint, timeout, fetch)
}

pub(super) fn fetch(client: &mut Client) -> Result<Vec<NodeLine>, Failure> {
    client.fetch_all(|client, after| {
        let page = client.ask(TopologyReq { after }, |answer| {
            if let Message::TopologyResp(page) = answer { Some(page) } else { None }
        })?;
        let next = page.nodes.last().filter(|_| page.more).map(|last| last.endpoint);
        Ok(Page { items: page.nodes, next })
    })
}

fn json_lines(nodes: &[NodeLine]) -> String {
    let line = |NodeLine { endpoint, neighbors }: &NodeLine| {
        let line = json!({
            "endpoint": endpoint, "degree": neighbors.len(), "neighbors": neighbors,
        });
        line.to_string() + "\n"
    };
    nodes.iter().map(line).collect()
}
