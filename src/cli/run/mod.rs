//! The life of a node's process: prepare, start, report, obey, stop.
//!
//! Order of preparation: port, log, data directory, identity, journal, machine, driver; each step
//! can fail with one sentence, and none leaves anything behind that the next start would trip over.
//! Nothing here knows the difference of seeds and peers; their [`Role`] has it.

mod control;
mod http;
mod peer;
mod report;
mod seed;
mod shares;
pub(in crate::cli) mod signals;
mod uses;

pub use peer::peer;
pub use seed::seed;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use ::log::Level;
use crossbeam_channel::{Receiver, after, select};
use rand::SeedableRng as _;
use rand::TryRng as _;
use rand::rngs::SysRng;
use serde::Serialize;
use serde_json::{Value, json};

use self::http::Pages;
use self::report::{EventOf, Reporting};
pub(in crate::cli) use self::uses::Use;
use super::CliError;
use super::log::{self as lines, Line, Origin};
use super::room;
use super::settings::NodeSettings;
use crate::machine::membership::authority::{Order, OrderState};
use crate::machine::membership::certificate::Proposal;
use crate::machine::{Input, Kind, Machine};
use crate::model::{Endpoint, KeyPair, Now, Rng};
use crate::proto::dialect::Dialect;
use crate::runtime::channel::{Entry, channel};
use crate::runtime::clock::Clock;
use crate::runtime::control::Answer;
use crate::runtime::driver::options::{Dialects, Limits, Options, Serve, Sink};
use crate::runtime::driver::{Drivable, Driver};
use crate::runtime::files::{DataDir, FilesError};
use crate::runtime::http::{Access, Counters, Server};
use crate::runtime::journal::{Journal, JournalError};
use crate::runtime::place::Place;

/// Longest time for links to drain when a node stops; a goodbye needs milliseconds.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Longest goodbye: it is decided, written down if the disk is asked, and waits until the last
/// messages are with a neighbor.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// Differences between the processes of a seed and of a peer.
trait Role: Send + Sized + 'static {
    /// Machine of the node.
    type Machine: Drivable;

    /// `seed` or `peer`: the name of its data directory and of its log lines.
    const NAME: &'static str;

    /// Log lines of an event.
    fn lines(&mut self, now: Now, event: &<Self::Machine as Kind>::Event) -> Vec<Line>;

    /// Switchboard between the node and the local programs that use it.
    type Board: Send + Sync + 'static;

    /// Passes an event to the programs that wait for it; returns whether it is also for the log, as
    /// that is set. Called under the node's lock: it must not block.
    fn notice(board: &Self::Board, now: Now, event: &<Self::Machine as Kind>::Event) -> bool;

    /// Commands of the board to the node: answers that were decided under the node's lock.
    fn answers(board: &Self::Board) -> Receiver<<Self::Machine as Machine>::Command>;

    /// Channel of the messages that [`Role::wake`] is to be called.
    fn wanted(board: &Self::Board) -> Receiver<()>;

    /// Starts what runs only in a node that uses it, if it does not run yet.
    fn wake(board: &Arc<Self::Board>, driver: &Arc<Driver<Self::Machine>>);

    /// Server of the swarm's connections to the node's port, if there is one.
    fn swarm(board: &Arc<Self::Board>) -> Option<Arc<dyn Serve>>;

    /// Begins a use of the node by a local program.
    ///
    /// # Errors
    /// The reason why it cannot.
    fn begin(
        board: &Arc<Self::Board>,
        driver: &Arc<Driver<Self::Machine>>,
        wanted: Use,
    ) -> Result<Answer, String>;

    /// Ends all waits: the node has stopped.
    fn close(board: &Self::Board);

    /// True if this event is the node's last: its process may end.
    fn is_last(event: &<Self::Machine as Kind>::Event) -> bool;

    /// Command that lets the node say goodbye before it stops, if it does.
    fn goodbye() -> Option<<Self::Machine as Machine>::Command>;

    /// Status of the node, for its operator.
    type Status: Serialize;

    /// Status of the node now; the node stands still meanwhile.
    fn status(machine: &Self::Machine) -> Self::Status;

    /// Meaning of an order to the node at this moment.
    ///
    /// # Errors
    /// The reason why it means nothing.
    fn meaning(
        machine: &Self::Machine,
        order: Order,
        endpoint: Endpoint,
    ) -> Result<Proposal, String>;

    /// Command that gives an order, if the node takes any.
    fn order(proposal: Proposal) -> Option<<Self::Machine as Machine>::Command>;

    /// State of an order.
    ///
    /// # Errors
    /// The reason why it cannot come about.
    fn order_state(machine: &Self::Machine, proposal: &Proposal) -> Result<OrderState, String>;

    /// The overlay as the node sees it.
    ///
    /// # Errors
    /// The node to ask instead.
    fn topology(machine: &Self::Machine) -> Result<Value, String>;
}

/// Resources of a node before it starts.
struct Ground {
    endpoint: Endpoint,
    listener: TcpListener,
    dir: DataDir,
    keys: KeyPair,
    rng: Rng,
}

impl Ground {
    fn prepare(role: &'static str, settings: &NodeSettings) -> Result<Self, CliError> {
        let place = Place::take((&settings.data, role), (settings.ip, settings.port))?;
        let endpoint = place.endpoint;
        lines::install(&settings.log, Origin { role, node: endpoint })?;
        let (listener, dir) = place.open()?;
        let keys = dir.identity()?;
        Ok(Self { endpoint, listener, dir, keys, rng: random()? })
    }
}

/// A generator seeded by the operating system. It decides nonces and pauses, never keys.
fn random() -> Result<Rng, CliError> {
    let mut seed = [0; 32];
    SysRng
        .try_fill_bytes(&mut seed)
        .map_err(|error| FilesError::NoEntropy { reason: error.to_string() })?;
    Ok(Rng::from_seed(seed))
}

/// An open journal, its records, and whether its last record was lost.
type Remembered<M> = (Journal<<M as Kind>::Record>, Vec<<M as Kind>::Record>, bool);

/// Opens the journal at its place.
fn open_journal<M: Drivable>(dir: &DataDir) -> Result<Remembered<M>, CliError> {
    let path = dir.journal_path();
    let (journal, records, torn) = Journal::open(&path)?;
    let is_torn = torn.is_some();
    if let Some(torn) = torn {
        ::log::warn!("{}: {torn}; nobody was told of it, so nothing is lost", path.display());
    }
    Ok((journal, records, is_torn))
}

/// Runs a prepared node to its end.
fn live<R: Role>(
    role: R,
    (machine, board): (R::Machine, Arc<R::Board>),
    journal: Journal<<R::Machine as Kind>::Record>,
    (listener, dir, settings): (TcpListener, &DataDir, &NodeSettings),
) -> Result<(), CliError> {
    let system = |action| move |source| CliError::System { action, source };
    let signals =
        signals::listen(settings.until_stdin_closes).map_err(system("listen to signals"))?;
    let (events_in, events) = channel(report::EVENTS_MAX);
    let counters = Arc::new(Counters::default());
    let pages = Arc::new(Pages::<R>::new(Arc::clone(&counters)));
    let mut dialects = dialects(settings.http, &pages, &counters);
    dialects.extend(R::swarm(&board).map(|it| (Dialect::Swarm, it)));
    let options = Options {
        dialects,
        limits: affordable(&settings.limits),
        cluster_keys: settings.cluster_keys.clone(),
        ..Options::new(Tap::<R> { board: Arc::clone(&board), log: events_in })
    };
    let driver = Driver::start(machine, listener, journal, options)
        .map_err(system("start the node's threads"))?;
    pages.show(&driver);
    let reporting = Reporting::start(role, Arc::clone(&driver), events)
        .map_err(system("start the thread of the log"))?;
    // Without local commands a node can still run, and be stopped by a signal.
    let control = control::serve::<R>(dir, &driver, &board, &counters)
        .map_err(|error| ::log::warn!("no local commands: {error}; use a shorter --data"))
        .ok();
    let outcome = attend::<R>(&board, &driver, &signals, reporting.last_event());
    driver.stop(STOP_GRACE);
    R::close(&board);
    let outcome = outcome.and_then(|()| disk_failed(driver.failed().try_recv().ok()));
    if outcome.is_ok() {
        Line::new(Level::Info, "stopped", "stopped", json!({})).log(Clock::start().now().wall);
    }
    reporting.finish();
    drop(control);
    outcome
}

/// These limits, or as much of them as the system allows, with a warning.
fn affordable(limits: &Limits) -> Limits {
    let (links_max, shortage) = room::for_connections(limits.links_max);
    let Some(shortage) = shortage else { return limits.clone() };
    ::log::warn!("{shortage}");
    // Silent connections must not take all of the room.
    let silent_max = limits.silent_max.min(links_max.div_ceil(2));
    Limits { links_max, silent_max, ..limits.clone() }
}

/// Sink of a node's events: passes them to the programs that wait, and to the log.
struct Tap<R: Role> {
    board: Arc<R::Board>,
    log: Entry<(Now, EventOf<R>)>,
}

impl<R: Role> Sink<EventOf<R>> for Tap<R> {
    fn take(&self, now: Now, event: EventOf<R>) -> bool {
        !R::notice(&self.board, now, &event) || self.log.send((now, event))
    }
}

/// Servers of connections in other dialects than the native one.
fn dialects<R: Role>(
    access: Option<Access>,
    pages: &Arc<Pages<R>>,
    counters: &Arc<Counters>,
) -> Dialects {
    let mut dialects = Dialects::new();
    if let Some(access) = access {
        let server = Server::new(Arc::clone(pages) as _, access, Arc::clone(counters));
        dialects.insert(Dialect::Http, Arc::new(server));
    }
    dialects
}

/// Carries the board's answers to the node until it is to stop, and lets it say goodbye.
fn attend<R: Role>(
    board: &Arc<R::Board>,
    driver: &Arc<Driver<R::Machine>>,
    signals: &Receiver<&'static str>,
    last_event: &Receiver<()>,
) -> Result<(), CliError> {
    let failed = driver.failed();
    let (answers, wanted) = (R::answers(board), R::wanted(board));
    let submit = |command| driver.submit(Input::Command(command));
    let signal = loop {
        select! {
            recv(failed) -> error => return disk_failed(error.ok()),
            recv(last_event) -> _ => return Ok(()),
            recv(signals) -> signal => break signal.unwrap_or("a signal"),
            recv(answers) -> answer => answer.map_or((), submit),
            recv(wanted) -> _ => R::wake(board, driver),
        }
    };
    let message = format!("stops because of {signal}; a second one ends it at once");
    Line::new(Level::Info, "stopping", message, json!({ "signal": signal }))
        .log(Clock::start().now().wall);
    let Some(goodbye) = R::goodbye() else { return Ok(()) };
    submit(goodbye);
    let limit = after(GOODBYE_MAX);
    loop {
        select! {
            recv(failed) -> error => return disk_failed(error.ok()),
            recv(last_event) -> _ => return Ok(()),
            recv(answers) -> answer => answer.map_or((), submit),
            recv(limit) -> _ => break,
        }
    }
    ::log::warn!("the goodbye took too long; stops without it");
    Ok(())
}

/// The error of a failed disk: a node that cannot remember must stop, and its process must fail.
/// The journal's thread has logged it.
fn disk_failed(error: Option<JournalError>) -> Result<(), CliError> {
    error.map_or(Ok(()), |error| Err(CliError::Journal(error)))
}
