//! The process of a peer.

use std::sync::{Arc, Mutex};

use crossbeam_channel::Receiver;
use serde_json::{Value, json};

use super::local_api::{self, ApiRequest};
use super::node::{Ground, live, open_journal};
use super::role::{LocalApi, OperatorAsk, Role};
use crate::cli::CliError;
use crate::cli::log::Line;
use crate::cli::report::PeerReport;
use crate::cli::settings::PeerSettings;
use crate::cli::share::running;
use crate::model::Now;
use crate::network::Switchboard;
use crate::network::shares::{Sharing, Taking};
use crate::node::peer_kind::{Command, Event};
use crate::node::{PeerNode, PeerStatus};
use crate::runtime::control::{Answer, Control};
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
    announced: Announced,
}

/// Answers to `peer swarm status`, from the first share on.
type Announced = Arc<Mutex<Option<Control>>>;

/// Lets `peer swarm status` find the shares of the peer, from the first one on.
fn announce_swarms(sharing: &Sharing) -> Announced {
    let announced = Announced::default();
    let begun = Arc::clone(&announced);
    sharing.on_host(move |host| {
        let host = Arc::downgrade(host);
        let tell = move || host.upgrade().map(|it| it.list()).unwrap_or_default();
        let control = running::announce(tell)
            .map_err(|error| ::log::warn!("no answers to peer swarm status: {error}"));
        *begun.lock().expect("nothing under this lock can panic") = control.ok();
    });
    announced
}

impl LocalApi<PeerNode> for PeerApi {
    fn notice(&self, now: Now, event: &Event) -> bool {
        // Thousands a second, and no line above debug.
        let is_quiet = matches!(event, Event::Broadcast(_));
        let is_told = self.switch.on_event(now, event);
        self.sharing.on_event(event);
        is_told && (!is_quiet || ::log::log_enabled!(::log::Level::Debug))
    }

    fn answers(&self) -> Receiver<Command> {
        self.switch.answering()
    }

    fn wanted(&self) -> Receiver<()> {
        self.sharing.wanted()
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
        drop(self.announced.lock().expect("nothing under this lock can panic").take());
        self.sharing.end();
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
    let taking = Taking::UpTo { bytes: settings.push_max, setting: "--push-max" };
    let sharing = Sharing::new(endpoint, dir.path(), keys, taking.into());
    let announced = announce_swarms(&sharing);
    sharing.listen(&switch);
    let api = PeerApi { switch, sharing, announced };
    let api: Arc<dyn LocalApi<PeerNode>> = Arc::new(api);
    live(Peer::default(), (machine, Some(api)), journal, (listener, &dir, &settings.node))
}
