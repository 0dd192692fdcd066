//! Part of a node in the log of decisions: it asks the group of the nodes for the decisions that
//! the node wants, and tells it what [`decision_log`] says of the group's final entries (T10).
//!
//! No question is answered before the past of the log has been read.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, never, select, tick};

use crate::machine::chat::Config;
use crate::machine::decision_log::{
    self, DecisionEntry, DecisionLog, ROOM, founder, is_complete, member_id,
};
use crate::model::{Endpoint, KeyPair, Now, PublicKey};
use crate::proto::chat::entry::{HostPort, Member};
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

struct EntrySender(Sender<ChatNotification>);

impl EventSink<ChatNotification> for EntrySender {
    fn take(&self, _: Now, told: ChatNotification) -> bool {
        self.0.try_send(told).is_ok()
    }
}

/// Part of a node in the log of decisions.
pub(super) struct Decider {
    /// Servers at the node's port, which the group's joins.
    dialects: DialectServers,
    wanted: Receiver<DecisionEntry>,
    keys: KeyPair,
    log_dir: PathBuf,
    marker: PathBuf,
    /// True if all nodes are members of the group, so that a majority of them decides.
    is_ready: Arc<AtomicBool>,
}

impl Decider {
    /// Returns a part that begins with the history, and the sender of the decisions asked of it.
    pub(super) fn new(
        keys: &KeyPair,
        (log_dir, marker): (PathBuf, PathBuf),
        dialects: DialectServers,
    ) -> (Self, Sender<DecisionEntry>) {
        let (want, wanted) = bounded(WAITING_MAX);
        let keys = KeyPair::from_secret(keys.secret_bytes());
        (Self { dialects, wanted, keys, log_dir, marker, is_ready: Arc::default() }, want)
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
        let (tell, told) = bounded(WAITING_MAX);
        let group = self.start(engine, &roster, tell)?;
        self.dialects.open(Dialect::Chat, group.server());
        let outcome = self.attend(engine, &group, &told, first);
        group.stop();
        outcome
    }

    fn start(
        &self,
        engine: &rollout::RolloutEngine,
        roster: &Roster,
        tell: Sender<ChatNotification>,
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
            log_dir: self.log_dir.clone(),
            marker: Some(self.marker.clone()),
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

    fn attend(
        &self,
        engine: &rollout::RolloutEngine,
        group: &ChatEngine,
        told: &Receiver<ChatNotification>,
        first: Option<DecisionEntry>,
    ) -> Result<(), String> {
        let mut log = DecisionLog::default();
        // What was decided before this node asked is told when it asks.
        read_on(group, &mut log, |_| {})?;
        if let Some(first) = first {
            want(engine, group, &mut log, &first);
        }
        let mut ticks = tick(LOOK);
        loop {
            select! {
                recv(ticks) -> _ => {
                    let now = (roster_of(engine), group.status());
                    if let (Ok(Some(roster)), Some(status)) = now
                        && is_complete(&roster, &status)
                    {
                        self.is_ready.store(true, Ordering::Release);
                        ticks = never();
                    }
                }
                recv(self.wanted) -> decision => {
                    let Ok(decision) = decision else { return Ok(()) };
                    want(engine, group, &mut log, &decision);
                }
                recv(told) -> told => match told {
                    Ok(ChatNotification::Delivered(entries)) => {
                        for entry in entries {
                            if log.lacks(&entry) {
                                // An entry found no room on its way here.
                                read_on(group, &mut log, |decision| answer(engine, decision))?;
                            }
                            if let Some(decision) = log.on_entry(&entry) {
                                answer(engine, decision);
                            }
                        }
                    }
                    Ok(ChatNotification::Failed(reason)) => return Err(reason),
                    Ok(ChatNotification::Event(_) | ChatNotification::Note(_)) => {}
                    Err(_) => return Ok(()),
                },
            }
        }
    }
}

/// Reads the entries that are final and were not read yet, and passes their decisions on.
fn read_on(
    group: &ChatEngine,
    log: &mut DecisionLog,
    mut tell: impl FnMut(&DecisionEntry),
) -> Result<(), String> {
    loop {
        let page = group.history(log.next(), PAGE)?;
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
    group: &ChatEngine,
    log: &mut DecisionLog,
    wanted: &DecisionEntry,
) {
    match log.on_wanted(wanted) {
        decision_log::DecisionAnswer::Decided(decided) => answer(engine, decided),
        decision_log::DecisionAnswer::Asked => {}
        decision_log::DecisionAnswer::Ask => {
            if let Ok(text) = serde_json::to_string(wanted) {
                // The group keeps it and sends it again until it is final.
                group.say(ROOM, text);
            }
        }
    }
}

fn answer(engine: &rollout::RolloutEngine, decision: &DecisionEntry) {
    let DecisionEntry { txid, commit, proof } = decision.clone();
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
