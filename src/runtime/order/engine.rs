//! Engine of a Byzantine order: one member with its port, its log and its threads.
//!
//! Invariants:
//! - After [`OrderEngine::stop`] no thread and no socket is left, and all records handed to the
//!   disk are there.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rand::RngExt as _;

use super::core::{OrderCoreMsg, OrderCoreState};
use super::options::{OrderOptions, OrderStartError};
use super::service::{Library, OrderService, Refusals};
use super::store::{self, OpenedOrderLog, OrderLog, SlotPage, SlotReader, marker_of};
use crate::machine::bft::{BftIdentity, BftReplica, BftStatus, Command, Input};
use crate::proto::bft::{OrderId, SlotNo};
use crate::proto::chat::entry::{Entry, MemberId, SeqNo};
use crate::proto::dialect::Dialect;
use crate::runtime::driver::options::{DialectServers, ServeConnection};
use crate::runtime::engine::core::{CoreMsg, EngineLoop};
use crate::runtime::engine::options::EngineCounters;
use crate::runtime::engine::shared::EngineSetup;
use crate::runtime::files::os_rng;
use crate::runtime::member_log::LogStoreError;
use crate::runtime::member_log::jobs::{self, Job, Jobs};
use crate::runtime::{engine, listen};

/// Longest wait of a member that leaves for its machine.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// Largest size of a page for people, in bytes.
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A running member. Dropping it leaves it running: see [`Self::stop`].
#[derive(Clone)]
pub struct OrderEngine {
    shared: Arc<Shared>,
}

/// State that all threads of an engine share.
pub(super) type Shared = engine::shared::Shared<OrderService>;

impl OrderEngine {
    /// Starts a member.
    ///
    /// # Errors
    /// Fails if the log cannot be used, the port is taken, or the system has no room.
    pub fn start(options: OrderOptions) -> Result<Self, OrderStartError> {
        let OrderOptions { listen, keys, me, founders, salt, log_dir, config, .. } = options;
        let group = founders.order_id(&salt);
        let mut opened = store::open(&log_dir, me, group).map_err(OrderStartError::Store)?;
        if let Some(marker) = &options.marker {
            opened.mark(&marker_of(marker, &group)).map_err(OrderStartError::Store)?;
        }
        let OpenedOrderLog { log, mut memory, notes } = opened;
        if options.is_restored && memory.is_lost.is_none() {
            memory.is_lost = Some("its operator says that its log may be a copy".to_owned());
        }
        let listener = listen.map(|addr| listen::bind(addr.ip(), addr.port())).transpose();
        let listener = listener.map_err(OrderStartError::Listen)?;
        let addr = listener.as_ref().and_then(|it| it.local_addr().ok());
        let mut rng = os_rng().map_err(OrderStartError::Files)?;
        let process = rng.random();
        let identity = BftIdentity { id: me, keys: keys.clone(), founders, salt };
        let machine_rng = os_rng().map_err(OrderStartError::Files)?;
        let order = BftReplica::new(config, identity, machine_rng, memory);
        let order = order.map_err(OrderStartError::Records)?;
        let (jobs, jobs_out) = Jobs::new();
        let setup = EngineSetup {
            limits: options.limits,
            guests: DialectServers::default(),
            keys_of_mine: keys,
            keys: options.cluster_keys,
            addr,
            rng,
        };
        let service = OrderService {
            me,
            group,
            process,
            members: Mutex::default(),
            jobs,
            refusals: Mutex::new(Refusals::default()),
        };
        service.set_members(order.status().members.iter().map(|it| &it.member));
        let shared = Shared::new(setup, service);
        for note in notes {
            shared.note(note);
        }
        let core = EngineLoop::new(&shared, OrderCoreState::new(order), options.sink);
        let reader = log.reader().map_err(OrderStartError::Store)?;
        let snapshots = log.snapshots().map_err(OrderStartError::Store)?;
        let library = Library { reader, snapshots };
        let engine = Self { shared };
        match engine.start_threads(core, log, (library, jobs_out), listener) {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.stop();
                Err(OrderStartError::Threads(error))
            }
        }
    }

    fn start_threads(
        &self,
        core: EngineLoop<OrderService>,
        mut log: OrderLog,
        (mut library, jobs): (Library, Receiver<Job<Library>>),
        listener: Option<TcpListener>,
    ) -> io::Result<()> {
        let shared = &self.shared;
        shared.spawn("disk", move |shared| {
            shared.write_log(&mut log, |log, records| log.write(records), OrderLog::conclude);
        })?;
        shared.spawn("loader", move |shared| {
            jobs::run(&jobs, &shared.log, &mut library);
        })?;
        shared.open(core, listener)
    }

    /// Listen address, if the engine listens.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.shared.addr
    }

    /// Id of this member.
    pub fn me(&self) -> MemberId {
        self.shared.service.me
    }

    /// Identity of the group.
    pub fn group(&self) -> OrderId {
        self.shared.service.group
    }

    /// Server of accepted connections of this dialect that another listener accepts.
    pub fn server(&self) -> Arc<dyn ServeConnection> {
        Arc::new(engine::shared::SharedPortServer(Arc::clone(&self.shared), Dialect::Order))
    }

    /// Counters of refused connections and lines.
    pub fn counters(&self) -> &EngineCounters {
        &self.shared.counters
    }

    /// Sends a text; it is kept until it is final. False once the member is stopping.
    ///
    /// Waits while the machine has too much to do. Not to be called by the sink.
    pub fn say(&self, room: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> bool {
        let (room, text) = (room.into(), text.into());
        let bytes = text.len();
        let command = Input::Command(Command::Say { room, text });
        self.shared.queue.push(CoreMsg::Input(command), bytes).is_ok()
    }

    /// Hands the machine a command. False once the member is stopping. Not to be called by the
    /// sink.
    pub fn command(&self, command: Command) -> bool {
        self.shared.queue.push(CoreMsg::Input(Input::Command(command)), 0).is_ok()
    }

    /// Status of the member; `None` once it is stopping. Not to be called by the sink.
    pub fn status(&self) -> Option<BftStatus> {
        self.shared.ask(|state| state.order.status()).ok()
    }

    /// Up to `count` final messages from number `from` on, out of the log.
    ///
    /// # Errors
    /// Fails if the member is stopping, too much is being read, or the disk refuses.
    pub fn history(&self, from: SeqNo, count: u64) -> Result<Vec<Arc<Entry>>, String> {
        // The records of all that the machine has delivered are counted when it answers.
        self.status().ok_or_else(|| "this member is stopping".to_owned())?;
        self.shared.read_log(move |it| it.entries(from, count, PAGE_BYTES_MAX))
    }

    /// Up to `count` final slots of one epoch from `from` on, out of the log, with the certificate
    /// that makes them final.
    ///
    /// # Errors
    /// As [`Self::history`].
    pub fn slots(&self, from: SlotNo, count: usize) -> Result<SlotPage, String> {
        self.status().ok_or_else(|| "this member is stopping".to_owned())?;
        self.shared.read_log(move |it| it.page(from, count, PAGE_BYTES_MAX))
    }

    /// Final slot that gives a message its place; `None` if none does yet.
    ///
    /// # Errors
    /// As [`Self::history`].
    pub fn slot_of(&self, place: SeqNo) -> Result<Option<SlotNo>, String> {
        self.status().ok_or_else(|| "this member is stopping".to_owned())?;
        self.shared.read_log(move |it| Ok(it.slot_of(place)))
    }

    /// Result of a read of the log, once all that the machine has delivered is on disk.
    pub(super) fn read_log<T: Send + 'static>(
        &self,
        read: impl FnOnce(&SlotReader) -> Result<T, LogStoreError> + Send + 'static,
    ) -> Result<T, String> {
        self.status().ok_or_else(|| "this member is stopping".to_owned())?;
        self.shared.read_log(read)
    }

    /// Ends this member's part, within a bounded time. The engine is still to be stopped.
    pub fn leave(&self) {
        let (reply, answer) = bounded(1);
        let asked = self.command(Command::Leave)
            && self.shared.queue.push(CoreMsg::Extra(OrderCoreMsg::AwaitGone(reply)), 0).is_ok();
        if asked {
            let _ = answer.recv_timeout(LEAVE_PATIENCE);
        }
    }

    /// Ends all threads. Must not be called from one of them. A second call does nothing.
    pub fn stop(&self) {
        self.shared.service.jobs.close();
        self.shared.stop();
    }
}

impl fmt::Debug for OrderEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, at) = (self.shared.service.me, self.shared.addr);
        f.debug_struct("Engine").field("id", &id).field("at", &at).finish_non_exhaustive()
    }
}
