//! A node from its preparation to its end.
//!
//! Order of preparation: port, log, data directory, identity, journal, machine, driver; each step
//! can fail with one sentence, and none leaves anything behind that the next start would trip over.
//! Nothing here knows the difference of seeds and peers; their [`Role`] has it.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use ::log::Level;
use crossbeam_channel::{Receiver, after, never, select};
use rand::rngs::SysRng;
use rand::{SeedableRng as _, TryRng as _};
use serde_json::json;

use super::feed::Feed;
use super::http::Pages;
use super::report::{self, Reporting};
use super::role::{Api, EventOf, LocalApi, Role};
use super::{control, signals};
use crate::cli::log::{self as lines, LogLine, LogOrigin};
use crate::cli::settings::NodeSettings;
use crate::cli::{CliError, descriptor_check};
use crate::machine::{Input, Vocabulary};
use crate::model::{Endpoint, Now, Rng};
use crate::proto::dialect::Dialect;
use crate::runtime::channel::{BoundedSender, channel};
use crate::runtime::claimed_port::ClaimedPort;
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::{ConnectionLimits, DialectServers, DriverOptions, EventSink};
use crate::runtime::driver::{Drivable, Driver};
use crate::runtime::files::{DataDir, FilesError};
use crate::runtime::http::{HttpCounters, HttpServer};
use crate::runtime::journal::{Journal, JournalError};

/// Longest time for links to drain when a node stops; a goodbye needs milliseconds.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Longest goodbye: it is decided, written down if the disk is asked, and waits until the last
/// messages are with a neighbor.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// Resources of a node before it starts.
pub(super) struct NodeContext {
    pub(super) endpoint: Endpoint,
    pub(super) listener: TcpListener,
    pub(super) dir: DataDir,
    pub(super) rng: Rng,
    pub(super) feed: Arc<Feed>,
}

impl NodeContext {
    pub(super) fn prepare(role: &'static str, settings: &NodeSettings) -> Result<Self, CliError> {
        let place = ClaimedPort::take((&settings.data, role), (settings.ip, settings.port))?;
        let endpoint = place.endpoint;
        lines::install(&settings.log, LogOrigin { role, node: endpoint })?;
        let (listener, dir) = place.open()?;
        let mut rng = random()?;
        let feed = Feed::start(&mut rng);
        Ok(Self { endpoint, listener, dir, rng, feed })
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
pub(super) type Remembered<M> =
    (Journal<<M as Vocabulary>::Record>, Vec<<M as Vocabulary>::Record>, bool);

/// Opens the journal at its place.
pub(super) fn open_journal<M: Drivable>(dir: &DataDir) -> Result<Remembered<M>, CliError> {
    let path = dir.journal_path();
    let (journal, records, torn) = Journal::open(&path)?;
    let is_torn = torn.is_some();
    if let Some(torn) = torn {
        ::log::warn!("{}: {torn}; nobody was told of it, so nothing is lost", path.display());
    }
    Ok((journal, records, is_torn))
}

/// Runs a prepared node to its end.
pub(super) fn run_node<R: Role>(
    role: R,
    (machine, api): (R::Machine, Api<R::Machine>),
    journal: Journal<<R::Machine as Vocabulary>::Record>,
    (listener, dir, settings): (TcpListener, &DataDir, &NodeSettings),
    feed: &Arc<Feed>,
) -> Result<(), CliError> {
    let system = |action| move |source| CliError::System { action, source };
    let signals =
        signals::listen(settings.until_stdin_closes).map_err(system("listen to signals"))?;
    let (events_in, events) = channel(report::EVENTS_MAX);
    let counters = Arc::new(HttpCounters::default());
    let pages = Pages::<R>::new(Arc::clone(&counters), api.clone(), Arc::clone(feed), settings);
    let pages = Arc::new(pages);
    let dialects = api.as_ref().map_or_else(DialectServers::default, |it| it.dialects());
    if let Some(access) = settings.http {
        let server = HttpServer::new(Arc::clone(&pages) as _, access, Arc::clone(&counters));
        dialects.open(Dialect::Http, Arc::new(server));
    }
    let options = DriverOptions {
        dialects,
        limits: affordable(&settings.limits),
        cluster_keys: settings.cluster_keys.clone(),
        ..DriverOptions::new(EventTee::<R> { api: api.clone(), log: events_in })
    };
    let driver = Driver::start(machine, listener, journal, options)
        .map_err(system("start the node's threads"))?;
    pages.show(&driver);
    let reporting = Reporting::start(role, Arc::clone(&driver), events)
        .map_err(system("start the thread of the log"))?;
    // Without local commands a node can still run, and be stopped by a signal.
    let control = control::serve::<R>(dir, &driver, api.clone(), &counters)
        .map_err(|error| ::log::warn!("no local commands: {error}; use a shorter --data"))
        .ok();
    let started = api.as_ref().map_or(Ok(()), |it| it.start(&driver));
    let outcome = started.map_err(system("start a service"));
    let last = reporting.last_event();
    let outcome = outcome.and_then(|()| attend::<R>(api.as_deref(), &driver, &signals, last));
    if let Some(api) = &api {
        api.stop();
    }
    feed.close();
    driver.stop(STOP_GRACE);
    if let Some(api) = api {
        api.close();
    }
    let outcome = outcome.and_then(|()| disk_failed(driver.failed().try_recv().ok()));
    if outcome.is_ok() {
        LogLine::new(Level::Info, "stopped", "stopped", json!({})).log(Clock::start().now().wall);
    }
    reporting.finish();
    drop(control);
    outcome
}

/// Limits that the system allows, at most the given ones; logs a warning if they are lower.
fn affordable(limits: &ConnectionLimits) -> ConnectionLimits {
    let (links_max, shortage) = descriptor_check::for_connections(limits.links_max);
    let Some(shortage) = shortage else { return limits.clone() };
    ::log::warn!("{shortage}");
    // Silent connections must not take all of the room.
    let silent_max = limits.silent_max.min(links_max.div_ceil(2));
    ConnectionLimits { links_max, silent_max, ..limits.clone() }
}

/// Sink of a node's events: passes them to the programs that wait, and to the log.
struct EventTee<R: Role> {
    api: Api<R::Machine>,
    log: BoundedSender<(Now, EventOf<R>)>,
}

impl<R: Role> EventSink<EventOf<R>> for EventTee<R> {
    fn take(&self, now: Now, event: EventOf<R>) -> bool {
        let is_for_log = self.api.as_ref().is_none_or(|api| api.notice(now, &event));
        !is_for_log || self.log.send((now, event))
    }
}

/// Carries answers to the node until it is to stop, and lets it say goodbye.
fn attend<R: Role>(
    api: Option<&dyn LocalApi<R::Machine>>,
    driver: &Arc<Driver<R::Machine>>,
    signals: &Receiver<&'static str>,
    last_event: &Receiver<()>,
) -> Result<(), CliError> {
    let failed = driver.failed();
    let answers = api.map_or_else(never, LocalApi::answers);
    let wanted = api.map_or_else(never, LocalApi::wanted);
    let service_failed = api.map_or_else(never, LocalApi::failed);
    let submit = |command| driver.submit(Input::Command(command));
    let signal = loop {
        select! {
            recv(failed) -> error => return disk_failed(error.ok()),
            recv(last_event) -> _ => return Ok(()),
            recv(signals) -> signal => break Ok(signal.unwrap_or("a signal")),
            recv(service_failed) -> error => break error.map_or(Ok("a signal"), Err),
            recv(answers) -> answer => answer.map_or((), submit),
            recv(wanted) -> _ => api.map_or((), |it| it.wake(driver)),
        }
    };
    let (ended, line) = match signal {
        Ok(signal) => {
            let message = format!("stops because of {signal}; a second one ends it at once");
            let fields = json!({ "signal": signal });
            (Ok(()), LogLine::new(Level::Info, "stopping", message, fields))
        }
        Err(error) => {
            let message = format!("stops because a service failed: {error}");
            (Err(error), LogLine::new(Level::Error, "stopping", message, json!({})))
        }
    };
    line.log(Clock::start().now().wall);
    if let Some(api) = api {
        api.stop();
    }
    let Some(goodbye) = R::goodbye() else { return ended };
    submit(goodbye);
    let limit = after(GOODBYE_MAX);
    loop {
        select! {
            recv(failed) -> error => return disk_failed(error.ok()),
            recv(last_event) -> _ => return ended,
            recv(answers) -> answer => answer.map_or((), submit),
            recv(limit) -> _ => break,
        }
    }
    ::log::warn!("the goodbye took too long; stops without it");
    ended
}

/// The error of a failed disk: a node that cannot remember must stop, and its process must fail.
/// The journal's thread has logged it.
fn disk_failed(error: Option<JournalError>) -> Result<(), CliError> {
    error.map_or(Ok(()), |error| Err(CliError::Journal(error)))
}
