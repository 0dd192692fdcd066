//! State that all threads of an engine share, its start and its end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::acceptor::{Acceptor, RejectionCounters};
use super::core::{CoreMsg, EngineLoop};
use super::core_queue::{Closed, CoreQueue};
use super::handshake::Caller;
use super::log_writer::LogWriter;
use super::options::{EngineCounters, EngineLimits};
use super::service::Service;
use crate::machine::{Input, LinkId};
use crate::model::{KeyPair, Nonce, Rng};
use crate::proto::dialect::Dialect;
use crate::proto::sealed::ClusterKeys;
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::{DialectServers, RawConnection, ServeConnection};
use crate::runtime::driver::pending::{NO_ROOM, busy_line};
use crate::runtime::engine::CUT_GRACE;

/// State that all threads of an engine share.
pub(in crate::runtime) struct Shared<S: Service> {
    pub(in crate::runtime) clock: Clock,
    pub(in crate::runtime) limits: EngineLimits,
    pub(in crate::runtime) counters: EngineCounters,
    /// Servers of accepted connections of other dialects.
    pub(in crate::runtime) guests: DialectServers,
    pub(in crate::runtime) keys_of_mine: KeyPair,
    pub(in crate::runtime) keys: Option<Arc<ClusterKeys>>,
    /// Address that is listened at, if any.
    pub(in crate::runtime) addr: Option<SocketAddr>,
    pub(in crate::runtime) queue: CoreQueue<CoreMsg<S>>,
    pub(in crate::runtime) log: Arc<LogWriter<S::Entry>>,
    pub(in crate::runtime) acceptor: Acceptor,
    /// State of the service that all threads share.
    pub(in crate::runtime) service: S,
    rng: Mutex<Rng>,
    links: Mutex<Links<S::PeerId>>,
    next_link: AtomicU64,
}

/// Setup of an engine.
pub(in crate::runtime) struct EngineSetup {
    pub(in crate::runtime) limits: EngineLimits,
    pub(in crate::runtime) guests: DialectServers,
    pub(in crate::runtime) keys_of_mine: KeyPair,
    pub(in crate::runtime) keys: Option<Arc<ClusterKeys>>,
    pub(in crate::runtime) addr: Option<SocketAddr>,
    pub(in crate::runtime) rng: Rng,
}

/// Connections over which both ends have proved their keys.
struct Links<I> {
    by_id: BTreeMap<LinkId, (Arc<TcpStream>, I)>,
    is_closed: bool,
}

impl<S: Service> Shared<S> {
    pub(in crate::runtime) fn new(setup: EngineSetup, service: S) -> Arc<Self> {
        let EngineSetup { limits, guests, keys_of_mine, keys, addr, rng } = setup;
        Arc::new(Self {
            clock: Clock::start(),
            acceptor: Acceptor::new(limits.silent_max, limits.links_max),
            limits,
            counters: EngineCounters::default(),
            guests,
            keys_of_mine,
            keys,
            addr,
            queue: CoreQueue::default(),
            log: Arc::default(),
            service,
            rng: Mutex::new(rng),
            links: Mutex::new(Links { by_id: BTreeMap::new(), is_closed: false }),
            next_link: AtomicU64::new(1),
        })
    }

    /// Starts a thread of the engine.
    ///
    /// # Errors
    /// Fails if the system has no room.
    pub(in crate::runtime) fn spawn(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::clone(self);
        let name = format!("{}:{name}", S::NAME);
        self.acceptor.threads.spawn(name, move || work(&shared))
    }

    /// Starts the threads that own the machine, make calls and accept connections. That of the log
    /// must run already.
    ///
    /// # Errors
    /// Fails if the system has no room.
    pub(in crate::runtime) fn open(
        self: &Arc<Self>,
        core: EngineLoop<S>,
        listener: Option<TcpListener>,
    ) -> io::Result<()> {
        self.spawn("core", move |_| core.run())?;
        let listener = listener.map(Arc::new);
        let stopping = self.acceptor.open(listener.as_ref());
        let seeking = stopping.clone();
        self.spawn("seek", move |shared| S::dial_members(shared, &seeking))?;
        if let Some(listener) = listener {
            self.spawn("accept", move |shared| {
                let hosting = Arc::clone(shared);
                let serve = move |connection| hosting.host(connection, None);
                let full = &shared.counters.refused_full;
                shared.acceptor.accept(S::NAME, (&listener, &stopping), full, &serve);
            })?;
        }
        Ok(())
    }

    /// Writes the log with `append`, which is followed by `conclude`, until the core thread ends.
    pub(in crate::runtime) fn write_log<L, E: Display>(
        &self,
        log: &mut L,
        append: impl Fn(&mut L, &[S::Entry]) -> Result<(), E>,
        conclude: impl Fn(&mut L) -> Result<(), E>,
    ) {
        let log = RefCell::new(log);
        let append = |entries: &[S::Entry]| append(&mut log.borrow_mut(), entries);
        let conclude = || conclude(&mut log.borrow_mut());
        // A closed queue means that the engine is stopping.
        let tell = |entries| {
            let _ = self.queue.push_now(CoreMsg::Synced(entries));
        };
        if let Err(error) = self.log.write(append, tell, conclude) {
            self.fail(error.to_string());
        }
    }

    /// Ends all threads. Must not be called from one of them. A second call does nothing.
    pub(in crate::runtime) fn stop(&self) {
        self.acceptor.shut();
        self.queue.close();
        let mut links = self.links();
        links.is_closed = true;
        let open = std::mem::take(&mut links.by_id);
        drop(links);
        for (stream, _) in open.into_values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.acceptor.pending.clear();
        let deadline = self.clock.now().mono.after(CUT_GRACE);
        let left = self.acceptor.threads.wait(&self.clock, deadline);
        if left > 0 {
            log::warn!("{left} threads of {} have not ended {CUT_GRACE:?} after its end", S::ABOUT);
        }
    }

    /// A number that no connection has had.
    pub(super) fn number_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers a connection, so that [`Self::stop`] can cut it; cuts it at once after a stop.
    pub(super) fn enter(&self, link: LinkId, stream: &Arc<TcpStream>, peer: S::PeerId) {
        let mut links = self.links();
        if links.is_closed {
            let _ = stream.shutdown(Shutdown::Both);
        }
        links.by_id.insert(link, (Arc::clone(stream), peer));
    }

    pub(super) fn leave(&self, link: LinkId) {
        self.links().by_id.remove(&link);
    }

    /// The other ends of all open connections.
    pub(in crate::runtime) fn peers(&self) -> Vec<(LinkId, S::PeerId)> {
        self.links().by_id.iter().map(|(link, (_, peer))| (*link, peer.clone())).collect()
    }

    fn links(&self) -> MutexGuard<'_, Links<S::PeerId>> {
        self.links.lock().expect("nothing under this lock can panic")
    }

    /// A number that was never used before.
    pub(in crate::runtime) fn nonce(&self) -> Nonce {
        Nonce::random(&mut self.rng.lock().expect("nothing under this lock can panic"))
    }

    /// Asks a question on the core thread, and waits for the answer.
    pub(in crate::runtime) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut S::State) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        let (reply, replied) = crossbeam_channel::bounded(1);
        let query = Box::new(move |state: &mut S::State| {
            // The asking thread may have gone meanwhile.
            let _ = reply.send(question(state));
        });
        self.queue.push(CoreMsg::Query(query), 0)?;
        replied.recv().map_err(|_| Closed)
    }

    /// Hands the machine an input that a thread of the engine found out.
    pub(in crate::runtime) fn submit(&self, input: Input<S::Machine>) {
        // A closed queue means that the engine is stopping.
        let _ = self.queue.push_now(CoreMsg::Input(input));
    }

    /// Reports a remark for people.
    pub(in crate::runtime) fn note(&self, text: String) {
        let _ = self.queue.push_now(CoreMsg::Note(text));
    }

    /// Reports a failure of the disk to the core thread.
    pub(in crate::runtime) fn fail(&self, reason: String) {
        let _ = self.queue.push_now(CoreMsg::Failed(reason));
    }

    /// Words for a caller for which there is no room.
    fn busy(&self, known_dialect: Option<Dialect>) -> Vec<u8> {
        if self.keys.is_some() {
            return busy_line();
        }
        let form = known_dialect.and_then(S::form_of).unwrap_or_else(S::own_form);
        S::encode(form, &self.service.busy(NO_ROOM))
    }

    /// Serves an accepted connection from its first byte to its end.
    fn host(self: &Arc<Self>, connection: RawConnection, known_dialect: Option<Dialect>) {
        let counters = &self.counters;
        let refused =
            RejectionCounters { full: &counters.refused_full, silent: &counters.refused_silent };
        let shake_hands = |connection| self.shake_hands(connection, known_dialect);
        self.acceptor.host(
            connection,
            refused,
            || self.busy(known_dialect),
            shake_hands,
            |caller| match caller {
                Caller::Peer(ends) => self.converse(*ends),
                Caller::Guest(server, connection) => server.serve(connection),
            },
        );
    }
}

/// Server of connections that another listener accepts, and whose dialect it has detected.
pub(in crate::runtime) struct SharedPortServer<S: Service>(
    pub(in crate::runtime) Arc<Shared<S>>,
    pub(in crate::runtime) Dialect,
);

impl<S: Service> ServeConnection for SharedPortServer<S> {
    fn serve(&self, connection: RawConnection) {
        let _place = self.0.acceptor.threads.join();
        self.0.host(connection, Some(self.1));
    }
}
