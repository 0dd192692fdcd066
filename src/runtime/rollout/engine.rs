//! Engine of a node that rolls out: its port, its log and its threads.
//!
//! Invariant: after [`RolloutEngine::stop`] no thread and no socket is left, and everything handed
//! to the disk is there.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use crossbeam_channel::bounded;
use serde::{Deserialize, Serialize};

use super::bootstrapping::Bootstrapping;
use super::core::{RolloutCoreMsg, RolloutCoreState};
use super::node_state::{NodeState, PendingMembers, Phase};
use super::options::{
    AdmissionPolicy, EngineStatus, HistoryBootstrap, NodeAddr, ReplayReport, RolloutOptions,
    RolloutStartError,
};
use super::service::RolloutService;
use crate::machine::rollout::{
    Aborted, Command, CommandResult, ExtraInput, Input, Record, RolloutMemory, ServerDigests,
};
use crate::model::{KeyPair, PublicKey};
use crate::proto::dialect::Dialect;
use crate::proto::rollout::{
    Committed, Genesis, HealthSnapshot, ModelId, NodeId, Participant, Roster, TxId,
};
use crate::runtime::driver::options::ServeConnection;
use crate::runtime::engine::core::{CoreMsg, EngineLoop};
use crate::runtime::engine::core_queue::Closed;
use crate::runtime::engine::options::EngineCounters;
use crate::runtime::engine::shared::EngineSetup;
use crate::runtime::files::{make_dirs, os_rng};
use crate::runtime::journal::{Journal, JournalError};
use crate::runtime::{engine, listen};

/// Entry of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Entry {
    /// The first entry: the owner of the log, and the beginning of its history.
    Genesis {
        /// Name of the owner.
        node_id: NodeId,
        /// First roster and first state.
        genesis: Genesis,
    },
    /// A record that the machine needs after a crash.
    Record(Box<Record>),
}

/// Handle of a running node. Dropping it leaves the node running: see [`Self::stop`].
#[derive(Clone)]
pub struct RolloutEngine {
    shared: Arc<Shared>,
}

/// State shared by all threads of the engine.
pub(super) type Shared = engine::shared::Shared<RolloutService>;

/// Error of a request to a node that is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoppingError;

impl fmt::Display for StoppingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this node is stopping")
    }
}

impl Error for StoppingError {}

/// Content of the log: the beginning of the history, and the memory of its records; none if empty.
type Past = Option<(Genesis, RolloutMemory)>;

impl RolloutEngine {
    /// Starts a node.
    ///
    /// # Errors
    /// Fails if its log cannot be used, its port is taken, or the system has no room.
    pub fn start(options: RolloutOptions) -> Result<(Self, ReplayReport), RolloutStartError> {
        let (journal, past, recovered) = open(&options)?;
        let listener = options.listen.map(|addr| listen::bind(addr.ip(), addr.port())).transpose();
        let listener = listener.map_err(RolloutStartError::Listen)?;
        let addr = listener.as_ref().and_then(|it| it.local_addr().ok());
        let (host, port) = options.at;
        let port = if port == 0 { addr.map_or(0, |it| it.port()) } else { port };
        let key = options.keys.public();
        let me = Participant { node_id: options.me, host, port, key };
        let bootstrap = checked(options.bootstrap, &me)?;
        let joins = match &bootstrap {
            HistoryBootstrap::Join(places) => places.clone(),
            HistoryBootstrap::By(_) => Vec::new(),
        };
        let has_key = options.cluster_keys.is_some();
        let policy = if has_key { AdmissionPolicy::Anybody } else { options.policy };
        let bootstrapping = Bootstrapping::new(me.clone(), bootstrap, options.initial);
        let pending_members = PendingMembers::new(policy, joins);
        let strangers_max = options.limits.strangers_max;
        let node_state =
            NodeState::new(Phase::Forming(Box::new(bootstrapping)), pending_members, strangers_max);
        let setup = EngineSetup {
            limits: options.limits.engine,
            guests: options.guests,
            keys_of_mine: options.keys,
            keys: options.cluster_keys,
            addr,
            rng: os_rng().map_err(RolloutStartError::Files)?,
        };
        let service = RolloutService { me, busy: Mutex::default(), last_errors: Mutex::default() };
        let shared = Shared::new(setup, service);
        let state = RolloutCoreState::new(node_state, past, options.overrides, options.kill_at);
        let core = EngineLoop::new(&shared, state, options.sink);
        let engine = Self { shared };
        match engine.start_threads(core, journal, listener) {
            Ok(()) => Ok((engine, recovered)),
            Err(error) => {
                engine.stop();
                Err(RolloutStartError::Threads(error))
            }
        }
    }

    fn start_threads(
        &self,
        core: EngineLoop<RolloutService>,
        mut journal: Journal<Entry>,
        listener: Option<TcpListener>,
    ) -> io::Result<()> {
        self.shared.spawn("disk", move |shared| {
            let append = |journal: &mut Journal<Entry>, entries: &[Entry]| {
                for entry in entries {
                    journal.append(entry);
                }
                journal.sync()
            };
            shared.write_log(&mut journal, append, |_| Ok(()));
        })?;
        self.shared.open(core, listener)
    }

    /// Returns the address it listens at, if any.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.shared.addr
    }

    /// Returns this node's name, address and key.
    pub fn me(&self) -> &Participant {
        &self.shared.service.me
    }

    /// Returns a server of connections that another listener accepts, and that speak this dialect.
    pub fn server(&self, dialect: Dialect) -> Arc<dyn ServeConnection> {
        Arc::new(engine::shared::SharedPortServer(Arc::clone(&self.shared), dialect))
    }

    /// Returns the counters of connections and messages.
    pub fn counters(&self) -> &EngineCounters {
        &self.shared.counters
    }

    /// Gives an order to the machine and waits for the answer. Every order gets one, except that of
    /// a coordinator whose log of decisions is out of reach. Must not be called by the sink.
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub fn command(&self, command: Command) -> Result<CommandResult, StoppingError> {
        let (reply, answer) = bounded(1);
        let pushed = self.extra(RolloutCoreMsg::Command(command, reply));
        pushed.map_err(|_| StoppingError)?;
        answer.recv().map_err(|_| StoppingError)
    }

    /// Reports a window of traffic that the data plane has measured. False once the node is
    /// stopping.
    pub fn health(&self, snapshot: HealthSnapshot) -> bool {
        self.shared
            .queue
            .push(CoreMsg::Input(Input::Extra(ExtraInput::Health(snapshot))), 0)
            .is_ok()
    }

    /// Reports whether a version has answered; `failure` is the reason if it has not. False once
    /// the node is stopping.
    pub fn probed(&self, model: ModelId, failure: Option<String>) -> bool {
        self.shared
            .queue
            .push(CoreMsg::Input(Input::Extra(ExtraInput::Probed { model, failure })), 0)
            .is_ok()
    }

    /// Reports a decision of the log of decisions (T10). False once the node is stopping.
    pub fn decided(&self, txid: TxId, commit: bool, proof: Option<Box<Committed>>) -> bool {
        let input = Input::Extra(ExtraInput::Decided { txid, commit, proof });
        self.shared.queue.push(CoreMsg::Input(input), 0).is_ok()
    }

    /// Vouches that this name belongs to this key, by the word of the fleet. False if another key
    /// was vouched for under that name.
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub fn vouch(&self, node: NodeId, key: PublicKey) -> Result<bool, StoppingError> {
        let (reply, answer) = bounded(1);
        let pushed = self.extra(RolloutCoreMsg::Vouch(node, key, reply));
        pushed.map_err(|_| StoppingError)?;
        answer.recv().map_err(|_| StoppingError)
    }

    /// Reports the keys of all members whose end the fleet's seeds certify now, in place of those
    /// of the last report. False once the node is stopping.
    pub fn dead(&self, keys: BTreeSet<PublicKey>) -> bool {
        self.extra(RolloutCoreMsg::Dead(keys)).is_ok()
    }

    /// Lets a node in under this name whose key begins with these digits, or with any if there are
    /// none. Returns the keys that match: nothing is done unless there is exactly one.
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub fn admit(&self, node: NodeId, digits: String) -> Result<Vec<PublicKey>, StoppingError> {
        let (reply, answer) = bounded(1);
        let pushed = self.extra(RolloutCoreMsg::Admit(node, digits, reply));
        pushed.map_err(|_| StoppingError)?;
        answer.recv().map_err(|_| StoppingError)
    }

    /// Changes the servers that the machine counts on, if no version that is served loses its own.
    /// Must not be called by the sink.
    ///
    /// # Errors
    /// Fails if the node is stopping; the inner error is the reason of a refusal, for people.
    pub fn change_servers(
        &self,
        changes: ServerDigests,
    ) -> Result<Result<(), String>, StoppingError> {
        let (reply, answer) = bounded(1);
        let pushed = self.extra(RolloutCoreMsg::Servers(changes, reply));
        pushed.map_err(|_| StoppingError)?;
        answer.recv().map_err(|_| StoppingError)
    }

    /// Returns the status of the node. Must not be called by the sink.
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub fn standing(&self) -> Result<EngineStatus, StoppingError> {
        let (me, clock) = (self.shared.service.me.node_id.clone(), self.shared.clock);
        let ask =
            move |state: &mut RolloutCoreState| state.node_state.standing(&me, clock.now().mono);
        let mut standing = self.shared.ask(ask).map_err(|_| StoppingError)?;
        if let EngineStatus::Running { status, refusals, .. } = &mut standing {
            let last_errors =
                self.shared.service.last_errors.lock().expect("nothing under this lock can panic");
            for peer in status.peers.iter().filter(|it| !it.is_linked) {
                let known = status.roster.get(&peer.node_id);
                let why = known.and_then(|it| last_errors.get(&format!("{}:{}", it.host, it.port)));
                refusals.extend(why.map(|why| (peer.node_id.clone(), why.clone())));
            }
        }
        Ok(standing)
    }

    /// Returns the last committed and the last aborted transactions that it keeps, oldest first, at
    /// most `most` of each.
    ///
    /// # Errors
    /// Fails if the node is stopping.
    pub fn history(&self, most: usize) -> Result<(Vec<Committed>, Vec<Aborted>), StoppingError> {
        let ask = move |state: &mut RolloutCoreState| match &state.node_state.phase {
            Phase::Forming(_) => (Vec::new(), Vec::new()),
            Phase::Running { rollout, .. } => {
                let committed = rollout.history();
                let aborted: Vec<_> = rollout.aborted().cloned().collect();
                let last = |len: usize| len.saturating_sub(most);
                (
                    committed[last(committed.len())..].to_vec(),
                    aborted[last(aborted.len())..].to_vec(),
                )
            }
        };
        self.shared.ask(ask).map_err(|_| StoppingError)
    }

    fn extra(&self, extra: RolloutCoreMsg) -> Result<(), Closed> {
        self.shared.queue.push(CoreMsg::Extra(extra), 0)
    }

    /// Stops the node and ends all threads. Must not be called from one of them. A second call does
    /// nothing.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

impl fmt::Debug for RolloutEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Participant { node_id, host, port, .. } = &self.shared.service.me;
        f.debug_struct("Engine").field("node_id", node_id).field("at", &(host, port)).finish()
    }
}

/// Opens the log and reads it, or creates an empty one.
fn open(
    options: &RolloutOptions,
) -> Result<(Journal<Entry>, Past, ReplayReport), RolloutStartError> {
    let path = &options.log;
    let io = |action| {
        move |source| {
            RolloutStartError::Log(JournalError::Io { action, path: path.clone(), source })
        }
    };
    if let Some(dir) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        make_dirs(dir, 0o777).map_err(io("create the folder of"))?;
    }
    let (journal, entries, torn) = Journal::<Entry>::open(path).map_err(RolloutStartError::Log)?;
    let recovered = ReplayReport { records: entries.len(), torn };
    let foreign = |reason: String| RolloutStartError::Foreign { log: path.clone(), reason };
    let mut entries = entries.into_iter();
    let past = match entries.next() {
        None => None,
        Some(Entry::Record(_)) => return Err(foreign("it does not begin with a beginning".into())),
        Some(Entry::Genesis { node_id, .. }) if node_id != options.me => {
            return Err(foreign(format!("it is the log of {node_id}, not of {}", options.me)));
        }
        Some(Entry::Genesis { genesis, .. }) => {
            let mut memory = RolloutMemory::default();
            for entry in entries {
                match entry {
                    Entry::Record(record) => memory.replay(*record),
                    Entry::Genesis { .. } => return Err(foreign("it begins twice".into())),
                }
            }
            Some((genesis, memory))
        }
    };
    Ok((journal, past, recovered))
}

/// Checks all of a bootstrap but the keys that are not known yet; returns it with this node in it.
fn checked(
    bootstrap: HistoryBootstrap,
    me: &Participant,
) -> Result<HistoryBootstrap, RolloutStartError> {
    let HistoryBootstrap::By(mut places) = bootstrap else { return Ok(bootstrap) };
    let Participant { node_id, host, port, key } = me.clone();
    match places.iter_mut().find(|it| it.node_id == node_id) {
        None => places.push(NodeAddr { node_id, host, port, key: Some(key) }),
        Some(mine) if mine.key.is_some_and(|it| it != key) => {
            return Err(RolloutStartError::Roster(
                "this node's own key is another one than was named",
            ));
        }
        Some(mine) => mine.key = Some(key),
    }
    let mut number = 0_u8;
    // Keys that are not known yet differ; all else is checked now.
    let mut stand_in = || {
        number += 1;
        KeyPair::from_secret([number; 32]).public()
    };
    let participant = |it: &NodeAddr| Participant {
        node_id: it.node_id.clone(),
        host: it.host.clone(),
        port: it.port,
        key: it.key.unwrap_or_else(&mut stand_in),
    };
    Roster::new(places.iter().map(participant).collect()).map_err(RolloutStartError::Roster)?;
    Ok(HistoryBootstrap::By(places))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::rollout::RoutingState;
    use crate::runtime::driver::options::DialectServers;
    use crate::runtime::rollout::RolloutLimits;
    use crate::runtime::thread;

    /// A node that takes part alone, so that its history begins at once.
    fn alone(dir: &tempfile::TempDir) -> RolloutEngine {
        let (sink, _) = bounded(1_000);
        let model = |text: &str| text.parse().unwrap();
        let options = RolloutOptions {
            listen: None,
            keys: KeyPair::from_secret([1; 32]),
            me: "node-a".parse().unwrap(),
            at: ("127.0.0.1".to_owned(), 1),
            log: dir.path().join("log"),
            bootstrap: HistoryBootstrap::By(Vec::new()),
            initial: RoutingState::initial(model("v1"), model("v2")),
            overrides: Box::new(|_| {}),
            cluster_keys: None,
            policy: AdmissionPolicy::Vouched,
            guests: DialectServers::default(),
            limits: RolloutLimits::default(),
            kill_at: None,
            sink: Box::new(sink),
        };
        RolloutEngine::start(options).unwrap().0
    }

    #[test]
    fn an_order_after_a_failure_of_the_disk_does_not_wait_for_the_node_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let engine = alone(&dir);
        engine.shared.fail("no space is left".to_owned());
        let (reply, replied) = bounded(1);
        let paused = engine.clone();
        let operator = thread::spawn("operator", move || {
            reply.send(paused.command(Command::Pause)).unwrap();
        });
        let answer = replied.recv_timeout(Duration::from_secs(20));
        engine.stop();
        operator.unwrap().join().unwrap();
        assert_eq!(answer, Ok(Err(StoppingError)));
    }
}
