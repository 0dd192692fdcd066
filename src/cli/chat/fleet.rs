//! A chat in a fleet: its members are members of the fleet too, at the same port and with the same
//! key. They find their group by it, and a member whose end the seeds have certified is removed.
//!
//! On the topic `folkmoot/chat` a member that looks for the group asks, and a member of the group
//! answers. If several look and none answers, the lowest id founds the group.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::cli::door::Door;
use crate::cli::share::apart;
use crate::cli::{CliError, config};
use crate::machine::quorum::QuorumRule;
use crate::model::{Endpoint, KeyPair};
use crate::network::{Gone, Message, Network, Queue, Site};
use crate::proto::chat::entry::{At, MemberId};
use crate::proto::dialect::Dialect;
use crate::runtime::chat::{Engine, Founds};
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::{Dialects, Serve};
use crate::runtime::thread;

/// Topic on which members of groups are announced.
const TOPIC: &str = "folkmoot/chat";

/// Time-out of a call to a seed.
const SEED_PATIENCE: Duration = Duration::from_millis(500);

/// Longest wait for the fleet to admit this member before it goes on alone.
const ADMISSION_MAX: Duration = Duration::from_secs(15);

/// Longest wait for a neighbor, if the seeds know other members.
const NEIGHBOR_MAX: Duration = Duration::from_secs(5);

/// Duration of a round of looking for the group; the lowest id at its end founds one.
const ROUND: Duration = Duration::from_millis(2_500);

/// Interval of the questions within a round.
const CALL: Duration = Duration::from_millis(500);

/// Interval of the checks whether the fleet has admitted this member.
const LOOK: Duration = Duration::from_millis(50);

/// Announcement on the topic.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct News {
    /// Id of the sender.
    node_id: MemberId,
    /// Address of the sender.
    #[serde(flatten)]
    at: At,
    /// True if the sender looks for the group; else it is one of its members.
    #[serde(default)]
    seeks: bool,
}

impl News {
    fn of(message: &Message) -> Option<Self> {
        let news: Self = serde_json::from_slice(&message.data).ok()?;
        // Valid only from the member of the fleet that has this address.
        (Endpoint::new(news.at.host, news.at.port) == message.origin).then_some(news)
    }
}

/// Membership of a chat in the fleet.
pub(super) struct Fleet {
    network: Arc<Network>,
    door: Arc<Door>,
    me: News,
    news: Option<Queue<Message>>,
    threads: Vec<JoinHandle<()>>,
}

/// Seeds of the fleet that `file` names, if enough of them run. Unless it `is_wanted`, a missing
/// file names none.
///
/// # Errors
/// Fails if the file cannot be used, or a fleet is wanted and not there.
pub(in crate::cli) fn seeds(
    file: &Path,
    is_wanted: bool,
) -> Result<Option<Vec<Endpoint>>, CliError> {
    if !is_wanted && !file.exists() {
        return Ok(None);
    }
    let seeds: Vec<_> = config::read(file)?.into_iter().map(|it| it.endpoint).collect();
    let answers = |seed: &Endpoint| {
        let addr: SocketAddr = seed.socket_addr();
        thread::spawn("seed?", move || TcpStream::connect_timeout(&addr, SEED_PATIENCE).is_ok())
    };
    let calls: Vec<_> = seeds.iter().filter_map(|seed| answers(seed).ok()).collect();
    let there = calls.into_iter().filter_map(|call| call.join().ok()).filter(|it| *it).count();
    let needed = QuorumRule::Majority.needed(seeds.len());
    if there >= needed {
        return Ok(Some(seeds));
    }
    if is_wanted {
        return Err(CliError::Failed(format!(
            "{there} of the {} seeds of {} answer, {needed} are needed; start them (seed --id N), \
             or leave --config out to go without a fleet",
            seeds.len(),
            file.display()
        )));
    }
    Ok(None)
}

impl Fleet {
    /// Becomes a member of the fleet of these seeds, at the address of `plan`.
    ///
    /// # Errors
    /// Fails if the port or the disk cannot be used.
    pub(super) fn join(
        plan: &Plan,
        seeds: &[Endpoint],
        keys: &KeyPair,
        data: PathBuf,
    ) -> Result<Self, CliError> {
        let door = Arc::new(Door::default());
        let site = Site {
            keys: Some(KeyPair::from_secret(keys.secret_bytes())),
            dialects: Dialects::from([(Dialect::Chat, Arc::clone(&door) as Arc<dyn Serve>)]),
        };
        let builder = Network::builder().listen(plan.at).seeds(seeds).data(data);
        let failed = |error| CliError::Failed(format!("cannot join the fleet: {error}"));
        let network = builder.start_at(site).map_err(failed)?;
        let news = network.subscribe(TOPIC).map_err(|error| CliError::Failed(error.to_string()))?;
        let me = News { node_id: plan.me, at: plan.at.into(), seeks: false };
        Ok(Self { network: Arc::new(network), door, me, news: Some(news), threads: Vec::new() })
    }

    fn say(&self, seeks: bool) {
        say(&self.network, News { seeks, ..self.me });
    }

    /// Looks for the group until it is found, or is this member's to found. `told` takes words for
    /// people and returns whether to go on.
    pub(super) fn seek(&self, mut told: impl FnMut(&str) -> bool) -> (Founds, Vec<Endpoint>) {
        if !self.is_let_in() {
            told("the fleet has not let this member in yet; it looks for the group meanwhile");
        }
        let others = self.network.status().members_known;
        if others > 0 && self.network.wait_for_peers(1, NEIGHBOR_MAX).is_err() {
            told("no member of the fleet is in reach yet");
        }
        loop {
            let (found, seekers) = self.round();
            if !found.is_empty() {
                return (Founds::Never, found);
            }
            match seekers.first().filter(|lowest| **lowest < self.me.node_id) {
                None => return (Founds::IfNew, Vec::new()),
                Some(lowest) => {
                    if !told(&format!("no group yet; waits for {lowest} to found one")) {
                        return (Founds::Never, Vec::new());
                    }
                }
            }
        }
    }

    fn is_let_in(&self) -> bool {
        let clock = Clock::start();
        let deadline = clock.now().mono.after(ADMISSION_MAX);
        let (_never, pause) = crossbeam_channel::bounded::<()>(0);
        while clock.now().mono < deadline {
            if self.network.status().state == "member" {
                return true;
            }
            let _ = pause.recv_timeout(LOOK);
        }
        false
    }

    /// One round: members of the group that answer, and members that look for it.
    fn round(&self) -> (Vec<Endpoint>, BTreeSet<MemberId>) {
        let clock = Clock::start();
        let (mut found, mut seekers) = (Vec::new(), BTreeSet::new());
        let Some(news) = &self.news else { return (found, seekers) };
        let deadline = clock.now().mono.after(ROUND);
        while clock.now().mono < deadline && found.is_empty() {
            self.say(true);
            let next = clock.now().mono.after(CALL);
            while let Ok(message) = news.recv_timeout(next.since(clock.now().mono)) {
                match News::of(&message) {
                    Some(News { node_id, .. }) if node_id == self.me.node_id => {}
                    Some(News { node_id, seeks: true, .. }) => {
                        seekers.insert(node_id);
                    }
                    Some(News { at, .. }) => found.push(Endpoint::new(at.host, at.port)),
                    None => {}
                }
            }
        }
        (found, seekers)
    }

    /// Passes calls to `engine`, tells it the other members, and answers those that look for the
    /// group.
    ///
    /// # Errors
    /// Fails if no threads can be started.
    pub(super) fn serve(&mut self, engine: &Engine) -> Result<(), CliError> {
        self.door.open(engine.server());
        let system = |source| CliError::System { action: "start a thread", source };
        if let Some(news) = self.news.take() {
            let (me, network, engine) = (self.me, Arc::clone(&self.network), engine.clone());
            let attend = move || attend(me, &news, &network, &engine);
            self.threads.push(thread::spawn("chat-fleet", attend).map_err(system)?);
        }
        if let Ok(removals) = self.network.removals() {
            let engine = engine.clone();
            let mourn = move || {
                for gone in removals.iter() {
                    engine.certified(gone.key);
                }
            };
            self.threads.push(thread::spawn("chat-removals", mourn).map_err(system)?);
        }
        self.threads.push(apart::say_so(&self.network).map_err(system)?);
        self.say(false);
        Ok(())
    }

    /// Leaves the fleet.
    pub(super) fn stop(self) {
        self.network.stop();
        for thread in self.threads {
            // The thread has panicked if this fails, and reported that itself.
            let _ = thread.join();
        }
    }
}

fn say(network: &Network, news: News) {
    if let Ok(text) = serde_json::to_vec(&news) {
        // A member that comes later asks.
        let _ = network.broadcast(TOPIC, text);
    }
}

/// Answers members that look for the group, as long as there is a network.
fn attend(me: News, news: &Queue<Message>, network: &Network, engine: &Engine) {
    loop {
        let message = match news.recv() {
            Ok(message) => message,
            Err(Gone::Missed(_) | Gone::Missing { .. } | Gone::Empty) => continue,
            Err(Gone::Closed) => return,
        };
        let Some(other) = News::of(&message).filter(|it| it.node_id != me.node_id) else {
            continue;
        };
        let at = Endpoint::new(other.at.host, other.at.port);
        // The seeds' certificate of a neighbor's end is sure to come here.
        network.add_peer(at);
        if !other.seeks {
            engine.add_place(at);
            continue;
        }
        let Some(status) = engine.status() else { return };
        let is_mine = status.leader.is_none_or(|leader| leader == me.node_id);
        if is_mine && status.members.iter().any(|it| it.member.id == me.node_id) {
            say(network, me);
        }
    }
}
