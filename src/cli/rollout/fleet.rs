//! A node that rolls out in a fleet: it is also a member of the fleet, at the same port and with
//! the same key, and finds the other nodes through it.
//!
//! On the topic `folkmoot/rollout` a node without a history says so, and nodes that have one
//! answer. Of several that get no answer, the one with the lowest name founds a history. Only
//! members of the fleet speak there, which a quorum of its seeds has let in; so they are let in
//! here too.
//!
//! The engine is told of the members whose end a quorum of seeds certifies (T12). The seeds are
//! asked about members that are away, because their word may have gone out while this node was away
//! itself.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;
use serde::{Deserialize, Serialize};

use crate::cli::CliError;
use crate::cli::door::Door;
use crate::cli::share::apart;
use crate::model::{Endpoint, Incarnation, KeyPair, PublicKey};
use crate::network::{Gone, Message, Network, Queue, Site};
use crate::proto::dialect::Dialect;
use crate::proto::rollout::NodeId;
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::{Dialects, Serve};
use crate::runtime::rollout::{Engine, Founding, Standing};
use crate::runtime::thread;

/// Topic on which nodes are announced.
const TOPIC: &str = "folkmoot/rollout";

/// Time that the fleet has to let a node in before it goes on alone.
const ADMISSION_MAX: Duration = Duration::from_secs(15);

/// Time that a node waits for a neighbor, if the seeds know of members.
const NEIGHBOR_MAX: Duration = Duration::from_secs(5);

/// Length of a round of looking for others; the node with the lowest name at its end founds a
/// history.
const ROUND: Duration = Duration::from_millis(2_500);

/// Interval within a round at which a node says that it looks for others.
const CALL: Duration = Duration::from_millis(500);

/// Interval at which a node checks that the fleet has let it in.
const LOOK: Duration = Duration::from_millis(50);

/// Interval at which the certificates of the seeds are read, if none comes sooner.
const HEED: Duration = Duration::from_secs(1);

/// Number of looks at the certificates for each time that the seeds are asked.
const ASK: u64 = 3;

/// Message of the topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct News {
    /// Name of the sender.
    node_id: NodeId,
    /// Address of the sender.
    at: Endpoint,
    /// Key of the sender.
    key: PublicKey,
    /// True if the sender has no history yet.
    #[serde(default)]
    seeks: bool,
}

impl News {
    fn of(message: &Message) -> Option<Self> {
        let news: Self = serde_json::from_slice(&message.data).ok()?;
        // The sender is a member of the fleet, and names its own address and key.
        (news.at == message.origin && news.key == message.key).then_some(news)
    }
}

/// Membership of a node in the fleet.
pub(super) struct Fleet {
    network: Arc<Network>,
    lines: Arc<Door>,
    frames: Arc<Door>,
    me: News,
    news: Option<Queue<Message>>,
    threads: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// Becomes a member of the fleet of these seeds, at `at`, where `guests` are served too.
    ///
    /// # Errors
    /// Fails if the port or the disk cannot be used.
    pub(super) fn join(
        (node_id, at): (&NodeId, Endpoint),
        seeds: &[Endpoint],
        keys: &KeyPair,
        (data, guests): (PathBuf, Dialects),
    ) -> Result<Self, CliError> {
        let (lines, frames) = (Arc::<Door>::default(), Arc::<Door>::default());
        let mut dialects = guests;
        dialects.insert(Dialect::Rollout, Arc::clone(&lines) as Arc<dyn Serve>);
        dialects.insert(Dialect::Framed, Arc::clone(&frames) as Arc<dyn Serve>);
        let site = Site { keys: Some(KeyPair::from_secret(keys.secret_bytes())), dialects };
        let builder = Network::builder().listen(at).seeds(seeds).data(data);
        let failed = |error| CliError::Failed(format!("cannot join the fleet: {error}"));
        let network = builder.start_at(site).map_err(failed)?;
        let news = network.subscribe(TOPIC).map_err(|error| CliError::Failed(error.to_string()))?;
        let me = News { node_id: node_id.clone(), at, key: keys.public(), seeks: false };
        let network = Arc::new(network);
        Ok(Self { network, lines, frames, me, news: Some(news), threads: Vec::new() })
    }

    /// Looks for nodes that have a history, until some are found or it is this node's turn to found
    /// one; none after a signal to stop.
    pub(super) fn seek(&self, signals: &Receiver<&'static str>) -> Option<Founding> {
        self.await_admission();
        if self.network.status().members_known > 0
            && self.network.wait_for_peers(1, NEIGHBOR_MAX).is_err()
        {
            ::log::warn!("no member of the fleet is in reach yet");
        }
        loop {
            let (found, seekers) = self.round();
            if !found.is_empty() {
                return Some(Founding::Join(found));
            }
            if signals.try_recv().is_ok() {
                return None;
            }
            match seekers.first().filter(|lowest| **lowest < self.me.node_id) {
                None => return Some(Founding::By(Vec::new())),
                Some(lowest) => ::log::info!("waits for {lowest} to begin a history"),
            }
        }
    }

    fn await_admission(&self) {
        let clock = Clock::start();
        let deadline = clock.now().mono.after(ADMISSION_MAX);
        let (_never, pause) = crossbeam_channel::bounded::<()>(0);
        while clock.now().mono < deadline && self.network.status().state != "member" {
            let _ = pause.recv_timeout(LOOK);
        }
    }

    /// Does one round of looking. Returns the addresses of nodes with a history, and the names of
    /// other nodes without one.
    fn round(&self) -> (Vec<String>, BTreeSet<NodeId>) {
        let clock = Clock::start();
        let (mut found, mut seekers) = (Vec::new(), BTreeSet::new());
        let Some(news) = &self.news else { return (found, seekers) };
        let deadline = clock.now().mono.after(ROUND);
        while clock.now().mono < deadline && found.is_empty() {
            say(&self.network, &News { seeks: true, ..self.me.clone() });
            let next = clock.now().mono.after(CALL);
            while let Ok(message) = news.recv_timeout(next.since(clock.now().mono)) {
                match News::of(&message) {
                    Some(News { node_id, .. }) if node_id == self.me.node_id => {}
                    Some(News { node_id, seeks: true, .. }) => {
                        seekers.insert(node_id);
                    }
                    Some(News { at, .. }) => found.push(at.to_string()),
                    None => {}
                }
            }
        }
        (found, seekers)
    }

    /// Passes callers to `engine`, and answers nodes that look for others.
    ///
    /// # Errors
    /// Fails if a thread cannot be started.
    pub(super) fn serve(&mut self, engine: &Engine) -> Result<(), CliError> {
        self.lines.open(engine.server(Dialect::Rollout));
        self.frames.open(engine.server(Dialect::Framed));
        let system = |source| CliError::System { action: "start a thread", source };
        if let Some(news) = self.news.take() {
            let (me, network) = (self.me.clone(), Arc::clone(&self.network));
            let attending = engine.clone();
            let attend = move || attend(&me, &news, &network, &attending);
            self.threads.push(thread::spawn("roll-fleet", attend).map_err(system)?);
            let (me, network) = (self.me.clone(), Arc::clone(&self.network));
            let engine = engine.clone();
            let heed = move || Heed::new(me, &network, &engine).run();
            self.threads.push(thread::spawn("roll-seeds", heed).map_err(system)?);
            self.threads.push(apart::say_so(&self.network).map_err(system)?);
        }
        say(&self.network, &self.me);
        Ok(())
    }

    /// Leaves the fleet.
    pub(super) fn stop(self) {
        self.network.stop();
        for thread in self.threads {
            // It has panicked if this fails, and said so itself.
            let _ = thread.join();
        }
    }
}

/// Sends news on the topic. False if this node is no member now. Nodes that come later ask.
fn say(network: &Network, news: &News) -> bool {
    serde_json::to_vec(news).is_ok_and(|text| network.broadcast(TOPIC, text).is_ok())
}

/// Answers nodes that look for others, as long as there is a network.
fn attend(me: &News, news: &Queue<Message>, network: &Network, engine: &Engine) {
    loop {
        let message = match news.recv() {
            Ok(message) => message,
            Err(Gone::Missed(_) | Gone::Missing { .. } | Gone::Empty) => continue,
            Err(Gone::Closed) => return,
        };
        let Some(other) = News::of(&message).filter(|it| it.node_id != me.node_id) else {
            continue;
        };
        // The seeds' word on a neighbor's end, and its own on a new life, are sure to come here.
        network.add_peer(other.at);
        // The seeds have let it in.
        if engine.vouch(other.node_id, other.key).is_err() {
            return;
        }
        if other.seeks
            && let Ok(Standing::Running { status, .. }) = engine.standing()
            && status.roster.has(&me.node_id)
        {
            say(network, me);
        }
    }
}

/// Thread that tells the engine of certified ends, and other nodes of this node's lives.
struct Heed<'a> {
    me: News,
    network: &'a Network,
    engine: &'a Engine,
    /// Keys that the engine was told last.
    told: BTreeSet<PublicKey>,
    /// Last life that the other nodes were told of.
    life: Option<Incarnation>,
}

impl<'a> Heed<'a> {
    const fn new(me: News, network: &'a Network, engine: &'a Engine) -> Self {
        Self { me, network, engine, told: BTreeSet::new(), life: None }
    }

    /// Runs until the network or the engine stops.
    fn run(mut self) {
        let Ok(removals) = self.network.removals() else { return };
        for round in 0_u64.. {
            // A certificate that has just come is heeded at once.
            if let Err(Gone::Closed) = removals.recv_timeout(HEED) {
                return;
            }
            let keys: BTreeSet<_> = self.network.ended().iter().map(|it| it.key).collect();
            if keys != self.told && !self.engine.dead(keys.clone()) {
                return;
            }
            self.told = keys;
            self.say_life();
            if round.is_multiple_of(ASK) && !self.ask() {
                return;
            }
        }
    }

    /// Tells the other nodes of a new life of this node in the fleet: they may have taken it out.
    fn say_life(&mut self) {
        let status = self.network.status();
        let is_new = status.state == "member" && self.life != Some(status.incarnation);
        if is_new && say(self.network, &self.me) {
            self.life = Some(status.incarnation);
        }
    }

    /// Asks the seeds about members that are away, and those that are out and may be back; if this
    /// node is out itself, says that it is here. False once the engine is stopping.
    fn ask(&self) -> bool {
        let Ok(standing) = self.engine.standing() else { return false };
        let Standing::Running { status, .. } = standing else { return true };
        if !status.roster.has(&self.me.node_id) {
            // The nodes that could let it in may not have been there when it said so.
            say(self.network, &self.me);
        }
        let away = status.peers.iter().filter(|it| !it.is_linked);
        let away = away.filter_map(|it| status.roster.get(&it.node_id));
        for it in away.chain(&status.gone_by_seeds) {
            // The seeds know members by address, not by a host's name.
            if let Ok(endpoint) = format!("{}:{}", it.host, it.port).parse() {
                self.network.ask_seeds(endpoint);
            }
        }
        true
    }
}
