//! The process of a peer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Receiver;
use serde_json::{Map, Value, json};

use super::feed::Feed;
use super::local_api::{self, ApiRequest};
use super::node::{NodeContext, open_journal, run_node};
use super::role::{LocalApi, OperatorAsk, Role};
use super::services::{Service, Services};
use crate::cli::CliError;
use crate::cli::chat::{ChatService, OrderChatService};
use crate::cli::log::LogLine;
use crate::cli::order;
use crate::cli::report::PeerReport;
use crate::cli::rollout::{self, RolloutService};
use crate::cli::settings::PeerSettings;
use crate::cli::share::running;
use crate::machine::membership::seedbook::SeedBook;
use crate::model::{Endpoint, KeyPair, Now};
use crate::network::shares::{Sharing, Taking};
use crate::network::{self, Network, Subscriptions};
use crate::node::peer_kind::{Command, Event};
use crate::node::{PeerNode, PeerStatus};
use crate::proto::dialect::Dialect;
use crate::runtime::control::{Control, ControlAnswer};
use crate::runtime::driver::Driver;
use crate::runtime::driver::options::DialectServers;
use crate::runtime::files::DataDir;

#[derive(Default)]
struct Peer(PeerReport);

impl Role for Peer {
    type Machine = PeerNode;

    type Status = PeerStatus;

    const NAME: &'static str = "peer";

    fn lines(&mut self, now: Now, event: &Event) -> Vec<LogLine> {
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

    fn book(machine: &PeerNode) -> SeedBook {
        machine.book().clone()
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
    endpoint: Endpoint,
    dir: PathBuf,
    keys: KeyPair,
    dialects: DialectServers,
    subscriptions: Arc<Subscriptions>,
    sharing: Arc<Sharing>,
    /// Services that have not started yet.
    prepared: Mutex<Prepared>,
    services: Services,
    announced: Announced,
    feed: Arc<Feed>,
}

/// Settings of the services that run inside a peer.
#[derive(Default)]
pub struct ServiceSettings {
    /// Id of the chat's member, and the directory of its log.
    pub(in crate::cli) chat: Option<(u32, PathBuf)>,
    /// Settings of the member of a Byzantine order.
    pub(in crate::cli) order: Option<order::Settings>,
    /// Settings of the node of rollouts.
    pub(in crate::cli) rollout: Option<rollout::Settings>,
}

/// Services whose directories are this process's alone.
struct Prepared {
    chat: Option<ChatService>,
    order: Option<OrderChatService>,
    rollout: Option<RolloutService>,
}

impl Prepared {
    fn new(settings: ServiceSettings, data: &Path, port: u16) -> Result<Self, CliError> {
        let order = settings.order.map(|it| OrderChatService::prepare(it, data, port));
        let chat = settings.chat.map(|(id, log_dir)| ChatService::prepare(id, data, &log_dir));
        let rollout = settings.rollout.map(RolloutService::prepare);
        let (order, rollout) = (order.transpose()?, rollout.transpose()?);
        Ok(Self { chat: chat.transpose()?, order, rollout })
    }

    /// Key pair of the peer: that of a service which ran in a process of its own before, so that
    /// the others know it again; else that of the peer's own directory. The services keep it too:
    /// they may run in processes of their own later.
    fn keys(&self, own: &DataDir) -> Result<KeyPair, CliError> {
        let dirs = [
            self.chat.as_ref().map(Service::dir),
            self.order.as_ref().map(Service::dir),
            self.rollout.as_ref().map(Service::dir),
        ];
        let mut found: Option<(KeyPair, &DataDir)> = None;
        for dir in dirs.into_iter().flatten() {
            let Some(keys) = dir.stored_identity()? else { continue };
            match &found {
                Some((known, first)) if known.public() != keys.public() => {
                    return Err(CliError::Usage(format!(
                        "{} and {} hold different keys, and a node has one: run one of them in a \
                         process of its own, or begin one of them anew without its directory and \
                         its log",
                        first.path().display(),
                        dir.path().display(),
                    )));
                }
                Some(_) => {}
                None => found = Some((keys, dir)),
            }
        }
        let keys = found.map_or_else(|| own.identity(), |(keys, _)| Ok(keys))?;
        for dir in dirs.into_iter().flatten() {
            if dir.stored_identity()?.is_none() {
                dir.store_identity(&keys)?;
            }
        }
        Ok(keys)
    }
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
        let is_told = self.subscriptions.on_event(now, event);
        self.sharing.on_event(event);
        is_told && (!is_quiet || self.feed.is_read() || ::log::log_enabled!(::log::Level::Debug))
    }

    fn answers(&self) -> Receiver<Command> {
        self.subscriptions.answering()
    }

    fn wanted(&self) -> Receiver<()> {
        self.sharing.wanted()
    }

    fn wake(&self, driver: &Arc<Driver<PeerNode>>) {
        self.sharing.wake(&self.subscriptions, driver);
    }

    fn dialects(&self) -> DialectServers {
        self.dialects.clone()
    }

    fn start(&self, driver: &Arc<Driver<PeerNode>>) -> io::Result<()> {
        let mut prepared = self.prepared.lock().expect("nothing can panic here");
        let Prepared { chat, order, rollout } = &*prepared;
        if chat.is_none() && order.is_none() && rollout.is_none() {
            return Ok(());
        }
        let network = Arc::new(Network::of(network::Peer {
            endpoint: self.endpoint,
            keys: self.keys.clone(),
            driver: Arc::clone(driver),
            subscriptions: Arc::clone(&self.subscriptions),
            dialects: self.dialects.clone(),
            sharing: Arc::clone(&self.sharing),
            dir: self.dir.clone(),
        }));
        if let Some(chat) = prepared.chat.take() {
            self.services.run(chat, &network)?;
        }
        if let Some(order) = prepared.order.take() {
            self.services.run(order, &network)?;
        }
        if let Some(rollout) = prepared.rollout.take() {
            self.services.run(rollout, &network)?;
        }
        Ok(())
    }

    fn failed(&self) -> Receiver<CliError> {
        self.services.failed()
    }

    fn status(&self) -> Map<String, Value> {
        let mut sections = self.services.status();
        if let Some(counts) = self.sharing.counts() {
            sections.insert("shares".to_owned(), json!(counts));
        }
        sections
    }

    fn shares(&self) -> Value {
        let mut list = json!(self.sharing.list());
        for share in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            share.remove("ticket");
        }
        list
    }

    fn stop(&self) {
        self.services.stop();
    }

    fn begin(
        &self,
        driver: &Arc<Driver<PeerNode>>,
        request: ApiRequest,
    ) -> Result<ControlAnswer, String> {
        if request.is_of_shares() {
            self.wake(driver);
        }
        local_api::begin(request, (&self.subscriptions, &self.sharing), driver)
    }

    fn close(&self) {
        self.subscriptions.close();
        drop(self.announced.lock().expect("nothing under this lock can panic").take());
        self.sharing.end();
        self.services.join();
    }
}

/// Runs a peer until it is stopped, or told to leave.
///
/// # Errors
/// Fails if it cannot start, or its disk fails.
pub fn peer(settings: &PeerSettings, services: ServiceSettings) -> Result<(), CliError> {
    let NodeContext { endpoint, listener, dir, rng, feed } =
        NodeContext::prepare(Peer::NAME, &settings.node)?;
    let is_here = |it: Endpoint| it.ip().is_loopback();
    if is_here(endpoint) && settings.node.seeds.iter().any(|it| !is_here(it.endpoint)) {
        ::log::warn!(
            "seeds on other machines cannot call {endpoint}; name the address of this one with --ip"
        );
    }
    let prepared = Prepared::new(services, &settings.node.data, settings.node.port)?;
    let keys = prepared.keys(&dir)?;
    let (journal, records, _) = open_journal::<PeerNode>(&dir)?;
    let (config, me) = (settings.machines, (endpoint, keys.clone()));
    let machine = match &settings.bootstrap {
        None => PeerNode::new(config, me, settings.node.book(), &records, rng),
        Some(others) => PeerNode::without_seeds(config, me, others, &records, rng),
    };
    let machine = machine.in_fleet(settings.node.fleet.clone(), &records);
    let cluster_keys = settings.node.cluster_keys.clone();
    // The log shows direct messages to the person who runs this process: they are taken.
    let subscriptions = Subscriptions::new(endpoint, true);
    let taking = Taking::UpTo { bytes: settings.push_max, setting: "--push-max" };
    let sharing = Sharing::new(endpoint, dir.path(), cluster_keys, taking.into());
    let announced = announce_swarms(&sharing);
    sharing.listen(&subscriptions);
    let dialects = DialectServers::default();
    dialects.open(Dialect::Swarm, Arc::clone(&sharing) as _);
    let (prepared, services) = (Mutex::new(prepared), Services::default());
    let own = dir.path().to_owned();
    let api = PeerApi {
        endpoint,
        dir: own,
        keys,
        dialects,
        subscriptions,
        sharing,
        prepared,
        services,
        announced,
        feed: Arc::clone(&feed),
    };
    let api: Arc<dyn LocalApi<PeerNode>> = Arc::new(api);
    let place = (listener, &dir, &settings.node);
    run_node(Peer::default(), (machine, Some(api)), journal, place, &feed)
}
