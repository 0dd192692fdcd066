//! Engine of a chat: one member with its port, its log and its threads.
//!
//! Invariants:
//! - After [`ChatEngine::stop`] no thread and no socket is left, and all records handed to the disk
//!   are there.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::core::{ChatCoreMsg, ChatCoreState};
use super::dialer::DialTarget;
use super::loader::{Library, PAGE_BYTES_MAX};
use super::options::{ChatOptions, ChatStartError, GroupBootstrap};
use super::service::ChatService;
use super::store::{self, Log, OpenedLog};
use super::verify::{Answers, VerifyReport};
use crate::machine::chat::{ChatMemory, ChatStatus, Command, Input, Replica};
use crate::model::{Endpoint, PublicKey};
use crate::proto::chat::entry::{Entry, Member, MemberId, SeqNo};
use crate::proto::dialect::Dialect;
use crate::runtime::driver::options::{DialectServers, ServeConnection};
use crate::runtime::engine::core::{CoreMsg, EngineLoop};
use crate::runtime::engine::options::EngineCounters;
use crate::runtime::engine::shared::EngineSetup;
use crate::runtime::files::os_rng;
use crate::runtime::member_log::jobs::{self, Job, Jobs};
use crate::runtime::{engine, listen};

/// Longest wait of a member that leaves for its machine, which bounds itself.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// A running member. Dropping it leaves it running: see [`Self::stop`].
#[derive(Clone)]
pub struct ChatEngine {
    shared: Arc<Shared>,
}

/// State that all threads of an engine share.
pub(super) type Shared = engine::shared::Shared<ChatService>;

impl ChatEngine {
    /// Starts a member.
    ///
    /// # Errors
    /// Fails if the log cannot be used, the port is taken, or the system has no room.
    pub fn start(options: ChatOptions) -> Result<Self, ChatStartError> {
        let ChatOptions { listen, keys, mut me, log_dir, seeds, config, .. } = options;
        let opened = store::open(&log_dir, me.id, keys.public());
        let mut opened = opened.map_err(ChatStartError::Store)?;
        if let Some(marker) = &options.marker {
            opened.mark(marker, me.id).map_err(ChatStartError::Store)?;
        }
        let OpenedLog { log, found, notes } = opened;
        let listener = listen.map(|addr| listen::bind(addr.ip(), addr.port())).transpose();
        let listener = listener.map_err(ChatStartError::Listen)?;
        let addr = listener.as_ref().and_then(|it| it.local_addr().ok());
        if let (0, Some(addr)) = (me.at.port, addr) {
            me.at.port = addr.port();
        }
        let memory = ChatMemory {
            bootstrap: options.bootstrap == GroupBootstrap::IfNew,
            group: found.group,
            snapshot: found.snapshot,
            records: found.records,
        };
        let rng = os_rng().map_err(ChatStartError::Files)?;
        let group =
            Replica::new(config, me.clone(), os_rng().map_err(ChatStartError::Files)?, memory);
        let (jobs, jobs_out) = Jobs::new();
        let setup = EngineSetup {
            limits: options.limits,
            guests: DialectServers::default(),
            keys_of_mine: keys,
            keys: options.cluster_keys,
            addr,
            rng,
        };
        let service = ChatService {
            me,
            key_filter: options.key_filter,
            places: Mutex::new(seeds.into_iter().map(|(id, at)| DialTarget::new(id, at)).collect()),
            verify: Answers::default(),
            jobs,
            other_group: Mutex::default(),
        };
        let shared = Shared::new(setup, service);
        for note in notes {
            shared.note(note);
        }
        let core = EngineLoop::new(&shared, ChatCoreState::new(group), options.sink);
        let reader = log.reader().map_err(ChatStartError::Store)?;
        let library = Library { reader, snapshots: log.snapshots() };
        let engine = Self { shared };
        match engine.start_threads(core, log, (library, jobs_out), listener) {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.stop();
                Err(ChatStartError::Threads(error))
            }
        }
    }

    fn start_threads(
        &self,
        core: EngineLoop<ChatService>,
        mut log: Log,
        (mut library, jobs): (Library, Receiver<Job<Library>>),
        listener: Option<TcpListener>,
    ) -> io::Result<()> {
        let shared = &self.shared;
        shared.spawn("disk", move |shared| {
            shared.write_log(&mut log, |log, records| log.write(records), Log::conclude);
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

    /// This member, as it is announced to others.
    pub fn me(&self) -> &Member {
        &self.shared.service.me
    }

    /// Server of accepted connections of this dialect that another listener accepts.
    pub fn server(&self) -> Arc<dyn ServeConnection> {
        Arc::new(engine::shared::SharedPortServer(Arc::clone(&self.shared), Dialect::Chat))
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

    /// Removes a member for good. False once the member is stopping.
    pub fn remove(&self, id: MemberId) -> bool {
        self.command(Command::Remove(id))
    }

    /// Lets this member go on alone, as another group (C14); returns its status then.
    ///
    /// # Errors
    /// The reason why it may not, for people.
    pub fn recover(&self) -> Result<ChatStatus, &'static str> {
        const STOPPING: &str = "it is stopping";
        self.shared.ask(|state| state.group.may_recover()).unwrap_or(Err(STOPPING))?;
        let is_asked = self.command(Command::Recover);
        self.status().filter(|_| is_asked).ok_or(STOPPING)
    }

    /// Tells the machine that the seeds have certified the end of this key's holder. False once
    /// stopping.
    pub fn certified(&self, key: PublicKey) -> bool {
        self.command(Command::Certified(key))
    }

    fn command(&self, command: Command) -> bool {
        self.shared.queue.push(CoreMsg::Input(Input::Command(command)), 0).is_ok()
    }

    /// Status of the member; `None` once it is stopping. Not to be called by the sink.
    pub fn status(&self) -> Option<ChatStatus> {
        self.shared.ask(|state| state.group.status()).ok()
    }

    /// Up to `count` final entries from number `from` on, out of the log.
    ///
    /// # Errors
    /// Fails if the member is stopping, too much is being read, or the disk refuses.
    pub fn history(&self, from: SeqNo, count: u64) -> Result<Vec<Arc<Entry>>, String> {
        let stopping = || "this member is stopping".to_owned();
        let commit = self.status().ok_or_else(stopping)?.commit;
        let from = from.max(SeqNo(1));
        let count = count.min((commit.0 + 1).saturating_sub(from.0));
        self.shared.read_log(move |it| Ok(it.page(from, count, PAGE_BYTES_MAX)?.entries))
    }

    /// Compares the log with those of all linked members (C11).
    ///
    /// # Errors
    /// Fails if the member is stopping or the disk refuses.
    pub fn verify(&self) -> Result<VerifyReport, String> {
        self.shared.compare()
    }

    /// Refusal by a member of another group at an address where this member's group should be;
    /// `None` once that address was reached. Both groups go on, each with an order of its own.
    pub fn other_group(&self) -> Option<String> {
        self.shared.service.other_group().as_ref().map(|(_, text)| text.clone())
    }

    /// Adds an address at which to look for members.
    pub fn add_place(&self, at: Endpoint) {
        let mut places =
            self.shared.service.places.lock().expect("nothing under this lock can panic");
        if !places.iter().any(|place| place.at() == at) {
            places.push(DialTarget::new(None, at));
        }
    }

    /// Hands the leadership over, if this member leads, within a bounded time. The engine is still
    /// to be stopped.
    pub fn leave(&self) {
        let (reply, answer) = bounded(1);
        let asked = self.command(Command::Leave)
            && self.shared.queue.push(CoreMsg::Extra(ChatCoreMsg::AwaitGone(reply)), 0).is_ok();
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

impl fmt::Debug for ChatEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Member { id, at, .. } = &self.shared.service.me;
        f.debug_struct("Engine").field("id", id).field("at", at).finish_non_exhaustive()
    }
}
