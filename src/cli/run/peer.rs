//! The process of a peer.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use serde_json::{Value, json};

use super::local_api::{self, ApiRequest};
use super::node::{Ground, live, open_journal};
use super::role::{LocalApi, OperatorAsk, Role};
use super::shares::Sharing;
use crate::cli::CliError;
use crate::cli::log::Line;
use crate::cli::report::PeerReport;
use crate::cli::settings::PeerSettings;
use crate::machine::broadcast;
use crate::machine::shares::TOPIC;
use crate::model::Now;
use crate::network::Switchboard;
use crate::node::peer_kind::{Command, Event};
use crate::node::{PeerNode, PeerStatus};
use crate::runtime::control::Answer;
use crate::runtime::driver::Driver;
use crate::runtime::driver::options::Serve;

#[derive(Default)]
struct Peer(PeerReport);

impl Role for Peer {
    type Machine = PeerNode;

    type Status = PeerStatus;

    const NAME: &'static str = "peer";

    fn lines(&mut self, now: Now, event: &Event) -> Vec<Line> {
        self.0.lines(now, event)
    }

    fn is_last(event: &Event) -> bool {
        matches!(event, Event::Gone)
    }

    fn goodbye() -> Option<Command> {
        Some(Command::Leave)
    }

    fn status(machine: &PeerNode) -> PeerStatus {
        machine.status()
    }

    fn answer(driver: &Arc<Driver<PeerNode>>, ask: OperatorAsk) -> Result<Value, String> {
        match ask {
            OperatorAsk::Topology => {
                let status = driver.inspect(|machine, _| machine.status());
                Ok(json!({ "endpoint": status.endpoint, "topology": status.topology }))
            }
            OperatorAsk::Meaning(..) | OperatorAsk::Order(_) | OperatorAsk::OrderState(_) => {
                Err("orders are for seeds".to_owned())
            }
        }
    }
}

/// Messages and shares of a peer, for the programs of this machine.
struct PeerApi {
    switch: Arc<Switchboard>,
    sharing: Arc<Sharing>,
}

impl LocalApi<PeerNode> for PeerApi {
    fn notice(&self, now: Now, event: &Event) -> bool {
        // Thousands a second, and no line above debug.
        let is_quiet = matches!(event, Event::Broadcast(_));
        let is_told = self.switch.on_event(now, event);
        if let Event::Broadcast(broadcast::Event::Delivered { message, .. }) = event
            && message.topic == TOPIC
        {
            self.sharing.waking.want();
        }
        is_told && (!is_quiet || ::log::log_enabled!(::log::Level::Debug))
    }

    fn answers(&self) -> Receiver<Command> {
        self.switch.answering()
    }

    fn wanted(&self) -> Receiver<()> {
        self.sharing.waking.wanted()
    }

    fn wake(&self, driver: &Arc<Driver<PeerNode>>) {
        self.sharing.wake(&self.switch, driver);
    }

    fn swarm(&self) -> Arc<dyn Serve> {
        Arc::clone(&self.sharing) as _
    }

    fn begin(&self, driver: &Arc<Driver<PeerNode>>, request: ApiRequest) -> Result<Answer, String> {
        if request.is_of_shares() {
            self.wake(driver);
        }
        local_api::begin(request, (&self.switch, &self.sharing), driver)
    }

    fn close(&self) {
        self.switch.close();
        self.sharing.waking.end();
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
    let api = PeerApi { switch, sharing };
    let api: Arc<dyn LocalApi<PeerNode>> = Arc::new(api);
    live(Peer::default(), (machine, Some(api)), journal, (listener, &dir, &settings.node))
}
