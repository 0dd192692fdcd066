//! The process of a peer.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use serde_json::{Value, json};

use super::shares::{Door, Sharing};
use super::{Ground, Role, Use, live, open_journal, uses};
use crate::cli::CliError;
use crate::cli::log::Line;
use crate::cli::report::PeerReport;
use crate::cli::settings::PeerSettings;
use crate::machine::broadcast;
use crate::machine::membership::authority::{Order, OrderState};
use crate::machine::membership::certificate::Proposal;
use crate::machine::shares::TOPIC;
use crate::model::{Endpoint, Now};
use crate::network::Switchboard;
use crate::node::peer_kind::{Command, Event};
use crate::node::{PeerNode, PeerStatus};
use crate::runtime::control::Answer;
use crate::runtime::driver::Driver;
use crate::runtime::driver::options::Serve;

#[derive(Default)]
struct Peer(PeerReport);

/// Switchboard of a peer, and its shares.
struct Board {
    switch: Arc<Switchboard>,
    sharing: Arc<Sharing>,
}

impl Role for Peer {
    type Machine = PeerNode;

    const NAME: &'static str = "peer";

    fn lines(&mut self, now: Now, event: &Event) -> Vec<Line> {
        self.0.lines(now, event)
    }

    type Board = Board;

    fn notice(board: &Board, now: Now, event: &Event) -> bool {
        // Thousands a second, and no line above debug.
        let is_quiet = matches!(event, Event::Broadcast(_));
        let is_told = board.switch.on_event(now, event);
        if let Event::Broadcast(broadcast::Event::Delivered { message, .. }) = event
            && message.topic == TOPIC
        {
            board.sharing.want();
        }
        is_told && (!is_quiet || ::log::log_enabled!(::log::Level::Debug))
    }

    fn answers(board: &Board) -> Receiver<Command> {
        board.switch.answering()
    }

    fn wanted(board: &Board) -> Receiver<()> {
        board.sharing.wanted()
    }

    fn wake(board: &Arc<Board>, driver: &Arc<Driver<PeerNode>>) {
        board.sharing.wake(&board.switch, driver);
    }

    fn swarm(board: &Arc<Board>) -> Option<Arc<dyn Serve>> {
        Some(Arc::new(Door(Arc::clone(&board.sharing))))
    }

    fn begin(
        board: &Arc<Board>,
        driver: &Arc<Driver<PeerNode>>,
        wanted: Use,
    ) -> Result<Answer, String> {
        if wanted.is_of_shares() {
            board.sharing.wake(&board.switch, driver);
        }
        uses::begin(wanted, (&board.switch, &board.sharing), driver)
    }

    fn close(board: &Board) {
        board.switch.close();
        board.sharing.end();
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
/// Fails if it cannot start, or its disk fails.
pub fn peer(settings: &PeerSettings) -> Result<(), CliError> {
    let Ground { endpoint, listener, dir, keys, rng } =
        Ground::prepare(Peer::NAME, &settings.node)?;
    let (journal, records, _) = open_journal::<PeerNode>(&dir)?;
    let (config, me) = (settings.machines, (endpoint, keys));
    let machine = match &settings.bootstrap {
        None => PeerNode::new(config, me, settings.node.book(), &records, rng),
        Some(others) => PeerNode::without_seeds(config, me, others, &records, rng),
    };
    let machine = machine.in_fleet(settings.node.fleet.clone(), &records);
    let keys = settings.node.cluster_keys.clone();
    // The log shows direct messages to the person who runs this process: they are taken.
    let switch = Switchboard::new(endpoint, true);
    let sharing = Sharing::new(endpoint, dir.path(), keys, settings.push_max);
    sharing.listen(&switch);
    let board = Board { switch, sharing };
    let machine = (machine, Arc::new(board));
    live(Peer::default(), machine, journal, (listener, &dir, &settings.node))
}
