//! Part of a node in the log of decisions: it asks the log for the decisions that the node wants,
//! and tells it what [`decision_log`] says of the log's final entries (T10). The log is that of a
//! chat of the nodes, or a Byzantine order.
//!
//! No question is answered before the past of the log has been read.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, never, select, tick};

use crate::machine::chat::Config;
use crate::machine::decision_log::{
    self, DecisionEntry, DecisionLog, LogAuthors, ROOM, founder, is_complete, member_id,
};
use crate::machine::rollout::DecisionAuthority;
use crate::model::{Endpoint, KeyPair, Now, PublicKey};
use crate::network::order::{OrderedLog, Place};
use crate::proto::chat::entry::{Entry, HostPort, Member, SeqNo};
use crate::proto::dialect::Dialect;
use crate::proto::rollout::{Participant, Roster};
use crate::runtime::chat::{self, ChatEngine, ChatNotification, GroupBootstrap};
use crate::runtime::driver::options::{DialectServers, EventSink};
use crate::runtime::rollout::{self, EngineStatus};
use crate::runtime::thread;

/// Number of entries read at a time.
const PAGE: u64 = 1_000;

/// Interval at which the thread checks that all nodes are members.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// Largest number of items that wait for this thread, in each of its channels.
const WAITING_MAX: usize = 4_096;

/// Log in which the decisions of a node are kept.
pub enum DecisionStore {
    /// The log of a chat of the nodes: its directory, and a file away from it that remembers that
    /// there is one.
    Chat {
        /// Directory of the log.
        log_dir: PathBuf,
        /// File that remembers the log.
        marker: PathBuf,
    },
    /// A Byzantine order, received once this process is a member of it.
    Order(Receiver<Arc<OrderedLog>>),
}

impl DecisionStore {
    /// An order of which this process is a member already.
    pub(super) fn of(order: Arc<OrderedLog>) -> Self {
        let (tell, told) = bounded(1);
        // There is room for one.
        let _ = tell.send(order);
        Self::Order(told)
    }

    /// Authority by which a node with this store ends transactions.
    pub(super) const fn authority(&self) -> DecisionAuthority {
        match self {
            Self::Chat { .. } => DecisionAuthority::Log,
            Self::Order(_) => DecisionAuthority::Order,
        }
    }
}

/// Final entries in order, or the reason why there are no more.
type Delivery = Result<Vec<Arc<Entry>>, String>;

/// A log that keeps what a member appends until it is final, and delivers what is.
trait SharedLog {
    /// Trust in the authors of its entries.
    const AUTHORS: LogAuthors;

    fn append(&self, text: String);

    /// Up to `count` final entries from this one on.
    fn read(&self, from: SeqNo, count: u64) -> Delivery;

    /// Channel of the entries from this one on that become final. A gap shows that some found no
    /// room.
    fn follow(&self, from: SeqNo) -> Result<Receiver<Delivery>, String>;

    /// True if it can decide for all nodes of a roster.
    fn is_complete(&self, roster: &Roster) -> bool;
}

/// The log of a chat, and the channel of what it delivers.
struct ChatLog(ChatEngine, Receiver<Delivery>);

impl SharedLog for ChatLog {
    const AUTHORS: LogAuthors = LogAuthors::Honest;

    fn append(&self, text: String) {
        self.0.say(ROOM, text);
    }

    fn read(&self, from: SeqNo, count: u64) -> Delivery {
        self.0.history(from, count)
    }

    fn follow(&self, _: SeqNo) -> Result<Receiver<Delivery>, String> {
        Ok(self.1.clone())
    }

    fn is_complete(&self, roster: &Roster) -> bool {
        self.0.status().is_some_and(|it| is_complete(roster, &it))
    }
}

impl SharedLog for OrderedLog {
    const AUTHORS: LogAuthors = LogAuthors::MayLie;

    fn append(&self, text: String) {
        Self::append(self, ROOM, text);
    }

    fn read(&self, from: SeqNo, count: u64) -> Delivery {
        self.history(from, count)
    }

    fn follow(&self, from: SeqNo) -> Result<Receiver<Delivery>, String> {
        let (tell, told) = bounded(WAITING_MAX);
        let mut follower = Self::follow(self, Place(from.0));
        // It ends when the member of the order stops.
        let thread = thread::spawn("decisions", move || {
            while let Some(entry) = follower.next_of_any_kind() {
                if tell.send(Ok(vec![entry])).is_err() {
                    return;
                }
            }
        });
        thread.map(|_| told).map_err(|error| error.to_string())
    }

    fn is_complete(&self, roster: &Roster) -> bool {
        self.machine_status().is_some_and(|it| {
            let is_member = |key| it.members.iter().any(|it| it.member.key == key);
            it.active && it.reached >= it.quorum && roster.nodes().all(|it| is_member(it.key))
        })
    }
}

struct EntrySender(Sender<Delivery>);

impl EventSink<ChatNotification> for EntrySender {
    fn take(&self, _: Now, told: ChatNotification) -> bool {
        let delivery = match told {
            ChatNotification::Delivered(entries) => Ok(entries),
            ChatNotification::Failed(reason) => Err(reason),
            ChatNotification::Event(_) | ChatNotification::Note(_) => return true,
        };
        self.0.try_send(delivery).is_ok()
    }
}

/// Part of a node in the log of decisions.
pub(super) struct Decider {
    /// Servers at the node's port, which the group's joins.
    dialects: DialectServers,
    wanted: Receiver<DecisionEntry>,
    keys: KeyPair,
    store: DecisionStore,
    /// True if all nodes are members of the group, so that a majority of them decides.
    is_ready: Arc<AtomicBool>,
}

impl Decider {
    /// Returns a part that begins with the history, and the sender of the decisions asked of it.
    pub(super) fn new(
        keys: &KeyPair,
        store: DecisionStore,
        dialects: DialectServers,
    ) -> (Self, Sender<DecisionEntry>) {
        let (want, wanted) = bounded(WAITING_MAX);
        let keys = KeyPair::from_secret(keys.secret_bytes());
        (Self { dialects, wanted, keys, store, is_ready: Arc::default() }, want)
    }

    /// Returns whether the log can decide; once true, it stays true.
    pub(super) fn readiness(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_ready)
    }

    /// Starts the thread, which runs until the node stops or the group fails.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub(super) fn run(self, engine: rollout::RolloutEngine) -> io::Result<JoinHandle<()>> {
        thread::spawn("decider", move || {
            if let Err(reason) = self.decide(&engine) {
                ::log::error!("the log of decisions: {reason}");
            }
        })
    }

    fn decide(&self, engine: &rollout::RolloutEngine) -> Result<(), String> {
        // The first decision that is wanted comes long after the roster is known.
        let mut first = None;
        let roster = loop {
            match roster_of(engine) {
                Ok(Some(roster)) => break roster,
                Ok(None) => {}
                // The node is stopping.
                Err(_) => return Ok(()),
            }
            match self.wanted.recv_timeout(std::time::Duration::from_millis(100)) {
                Ok(decision) => first = Some(decision),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return Ok(()),
            }
        };
        match &self.store {
            DecisionStore::Chat { log_dir, marker } => {
                let (tell, told) = bounded(WAITING_MAX);
                let group = self.start(engine, &roster, (log_dir, marker), tell)?;
                self.dialects.open(Dialect::Chat, group.server());
                let log = ChatLog(group, told);
                let outcome = self.attend(engine, &log, first);
                log.0.stop();
                outcome
            }
            DecisionStore::Order(running) => match running.recv() {
                Ok(log) => self.attend(engine, &*log, first),
                // It did not start, or the process is stopping.
                Err(_) => Ok(()),
            },
        }
    }

    fn start(
        &self,
        engine: &rollout::RolloutEngine,
        roster: &Roster,
        (log_dir, marker): (&Path, &Path),
        tell: Sender<Delivery>,
    ) -> Result<ChatEngine, String> {
        let me = engine.me();
        let others: Vec<&Participant> =
            roster.nodes().filter(|it| it.node_id != me.node_id).collect();
        let is_founder = founder(roster).is_some_and(|it| it.node_id == me.node_id);
        let at = |it: &Participant| {
            let found = format!("{}:{}", it.host, it.port).to_socket_addrs();
            let addr: Option<SocketAddr> = found.ok().and_then(|mut found| found.next());
            addr.map(Endpoint::from).ok_or_else(|| format!("{} has no address", it.node_id))
        };
        let seeds: Result<Vec<_>, String> =
            others.into_iter().map(|it| Ok((Some(member_id(&it.key)), at(it)?))).collect();
        let me = Member { id: member_id(&me.key), at: HostPort::from(at(me)?), key: me.key };
        let options = chat::ChatOptions {
            listen: None,
            keys: KeyPair::from_secret(self.keys.secret_bytes()),
            me,
            log_dir: log_dir.to_owned(),
            marker: Some(marker.to_owned()),
            seeds: seeds?,
            config: Config::default(),
            cluster_keys: None,
            // The lowest name of the first roster founds the group; a node that comes later finds
            // one.
            bootstrap: if is_founder { GroupBootstrap::IfNew } else { GroupBootstrap::Never },
            limits: chat::EngineLimits::default(),
            // A node that does not vote on rollouts decides nothing about them.
            key_filter: Some(Box::new(key_filter(engine))),
            sink: Box::new(EntrySender(tell)),
        };
        ChatEngine::start(options).map_err(|error| error.to_string())
    }

    fn attend<L: SharedLog>(
        &self,
        engine: &rollout::RolloutEngine,
        shared: &L,
        first: Option<DecisionEntry>,
    ) -> Result<(), String> {
        let mut log = DecisionLog::of(L::AUTHORS);
        // A chat tells what was decided before when this node asks. An order tells all of it:
        // nobody else is believed.
        let is_told = L::AUTHORS == LogAuthors::MayLie;
        read_on(shared, &mut log, |it| {
            if is_told {
                answer(engine, it);
            }
        })?;
        let told = shared.follow(log.next())?;
        if let Some(first) = first {
            want(engine, shared, &mut log, &first)?;
        }
        let mut ticks = tick(LOOK);
        loop {
            select! {
                recv(ticks) -> _ => {
                    if let Ok(Some(roster)) = roster_of(engine)
                        && shared.is_complete(&roster)
                    {
                        self.is_ready.store(true, Ordering::Release);
                        ticks = never();
                    }
                }
                recv(self.wanted) -> decision => {
                    let Ok(decision) = decision else { return Ok(()) };
                    want(engine, shared, &mut log, &decision)?;
                }
                recv(told) -> told => {
                    let Ok(entries) = told else { return Ok(()) };
                    for entry in entries? {
                        if log.lacks(&entry) {
                            // An entry found no room on its way here.
                            read_on(shared, &mut log, |decision| answer(engine, decision))?;
                        }
                        if let Some(decision) = log.on_entry(&entry) {
                            answer(engine, decision);
                        }
                    }
                }
            }
        }
    }
}

/// Reads the entries that are final and were not read yet, and passes their decisions on.
fn read_on(
    shared: &impl SharedLog,
    log: &mut DecisionLog,
    mut tell: impl FnMut(DecisionEntry),
) -> Result<(), String> {
    loop {
        let page = shared.read(log.next(), PAGE)?;
        if page.is_empty() {
            return Ok(());
        }
        for entry in &page {
            if let Some(decision) = log.on_entry(entry) {
                tell(decision);
            }
        }
    }
}

fn want(
    engine: &rollout::RolloutEngine,
    shared: &impl SharedLog,
    log: &mut DecisionLog,
    wanted: &DecisionEntry,
) -> Result<(), String> {
    match log.on_wanted(wanted) {
        decision_log::DecisionAnswer::Decided(entries) => {
            for place in entries {
                let page = shared.read(place, 1)?;
                let decisions = page.iter().filter_map(|it| DecisionEntry::of(it));
                decisions.for_each(|it| answer(engine, it));
            }
        }
        decision_log::DecisionAnswer::Asked => {}
        decision_log::DecisionAnswer::Ask => {
            if let Ok(text) = serde_json::to_string(wanted) {
                // It is kept and said again until it is final.
                shared.append(text);
            }
        }
    }
    Ok(())
}

fn answer(engine: &rollout::RolloutEngine, decision: DecisionEntry) {
    let DecisionEntry { txid, commit, proof } = decision;
    engine.decided(txid, commit, proof);
}

/// Returns the test of keys that may be members of the group: those of the roster.
fn key_filter(
    engine: &rollout::RolloutEngine,
) -> impl Fn(&PublicKey) -> bool + Send + Sync + 'static {
    let engine = engine.clone();
    move |key| match engine.standing() {
        Ok(EngineStatus::Running { status, .. }) => status.roster.nodes().any(|it| it.key == *key),
        Ok(EngineStatus::Forming { .. }) | Err(_) => false,
    }
}

fn roster_of(engine: &rollout::RolloutEngine) -> Result<Option<Roster>, String> {
    match engine.standing() {
        Ok(EngineStatus::Running { status, .. }) => Ok(Some(status.roster)),
        Ok(EngineStatus::Forming { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
