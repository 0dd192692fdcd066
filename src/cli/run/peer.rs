//! The process of a peer.

use serde_json::{Value, json};

use super::{Ground, Role, live, open_journal};
use crate::cli::CliError;
use crate::cli::log::Line;
use crate::cli::report::PeerReport;
use crate::cli::settings::PeerSettings;
use crate::model::{Endpoint, Now};
use crate::node::peer_kind::{Command, Event};
use crate::node::{PeerNode, PeerStatus};
use crate::protocol::direct;
use crate::protocol::membership::authority::{Order, OrderState};
use crate::protocol::membership::certificate::Proposal;

#[derive(Default)]
struct Peer(PeerReport);

impl Role for Peer {
    type Machine = PeerNode;

    const NAME: &'static str = "peer";

    fn lines(&mut self, now: Now, event: &Event) -> Vec<Line> {
        self.0.lines(now, event)
    }

    fn answer(event: &Event) -> Option<Command> {
        // Told in the log, and so taken.
        let Event::Direct(direct::Event::Arrived { from, number, .. }) = event else { return None };
        let (from, number) = (*from, *number);
        Some(Command::Answer { from, number, taken: true, reason: String::new() })
    }

    fn is_last(event: &Event) -> bool {
        matches!(event, Event::Gone)
    }

    fn goodbye() -> Option<Command> {
        Some(Command::Leave)
    }

    type Status = PeerStatus;

    fn status(machine: &PeerNode) -> PeerStatus {
        machine.status()
    }

    fn meaning(_: &PeerNode, _: Order, _: Endpoint) -> Result<Proposal, String> {
        Err("orders are for seeds".to_owned())
    }

    fn order(_: Proposal) -> Option<Command> {
        None
    }

    fn order_state(_: &PeerNode, _: &Proposal) -> Result<OrderState, String> {
        Err("orders are for seeds".to_owned())
    }

    fn topology(machine: &PeerNode) -> Result<Value, String> {
        let status = machine.status();
        Ok(json!({ "endpoint": status.endpoint, "topology": status.topology }))
    }
}

/// Runs a peer until it is stopped, or told to leave.
///
/// # Errors
/// When it cannot start, or its disk fails.
pub fn peer(settings: &PeerSettings) -> Result<(), CliError> {
    let Ground { endpoint, listener, dir, keys, rng } =
        Ground::prepare(Peer::NAME, &settings.node)?;
    let (journal, records, _) = open_journal::<PeerNode>(&dir)?;
    let book = settings.node.book();
    let machine = PeerNode::new(settings.machines, (endpoint, keys), book, &records, rng);
    live(Peer::default(), machine, journal, (listener, &dir, &settings.node))
}
