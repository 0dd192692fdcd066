//! One peer of the assignment's swarm, from its start to its exit code.
//!
//! Order of preparation: the files, signals, the port, the peer's folder, its log, the swarm. A
//! second process of the same peer fails at the port, before it touches anything.

use std::sync::Arc;
use std::time::Duration;

use ::log::{Level, LevelFilter};
use crossbeam_channel::{Receiver, bounded, select, tick};
use serde_json::{Value, json};

use super::args::SwarmArgs;
use super::log_thread::{Console, EventSender, LogThread};
use super::logfile::LogFile;
use super::messages::{EventMessages, ending};
use super::settings::Settings;
use crate::cli::CliError;
use crate::cli::log::LogLine;
use crate::cli::run::signals;
use crate::cli::share::progress::Screen;
use crate::cli::share::running;
use crate::machine::swarm::{Config, SwarmOutcome, SwarmRoster};
use crate::network::shares::View;
use crate::runtime::clock::Clock;
use crate::runtime::swarm::store::Store;
use crate::runtime::swarm::{SwarmEngine, SwarmHandle, SwarmKind, SwarmOptions, SwarmSpec};
use crate::runtime::thread;

/// Interval at which the bar moves.
const BAR_EVERY: Duration = Duration::from_millis(200);

/// Takes part in a swarm until all have the file.
///
/// # Errors
/// Any failure that keeps it from starting, and any other outcome than success.
pub(super) fn run(args: &SwarmArgs) -> Result<(), CliError> {
    let settings = Settings::new(args)?;
    let system = |action| move |source| CliError::System { action, source };
    let signals = signals::listen(false).map_err(system("listen to signals"))?;
    let options = SwarmOptions { listen: Some(settings.listen), ..SwarmOptions::default() };
    let engine = SwarmEngine::start(options)?;
    let outcome = take_part(&settings, args, &engine, &signals);
    engine.stop();
    outcome
}

fn take_part(
    settings: &Settings,
    args: &SwarmArgs,
    engine: &SwarmEngine,
    signals: &Receiver<&'static str>,
) -> Result<(), CliError> {
    let system = |action| move |source| CliError::System { action, source };
    let name = &settings.common.file_name;
    let store =
        Store::assigned(&settings.folder, name, settings.common.pieces, settings.is_source())
            .map_err(|error| unusable(settings, &error.to_string()))?;
    let there = u32::try_from(store.proven().len()).unwrap_or(u32::MAX);
    let goes_on = !settings.is_source() && (1..settings.common.pieces.count()).contains(&there);
    let log = LogFile::open(&settings.dir, settings.me, goes_on)?;
    let screen = Arc::new(if args.no_bar { Screen::plain() } else { Screen::new(name) });
    let console = || Console {
        name: settings.me.0.to_string(),
        format: args.log_format,
        level: LevelFilter::from(args.log_level),
        screen: Arc::clone(&screen),
    };
    let clock = Clock::start();
    console().show(clock.now().wall, &started(settings, there))?;
    let (event_sender, events) = EventSender::new();
    let joined = engine
        .join(join(settings, args, store, event_sender))
        .map_err(|error| CliError::Failed(format!("cannot take part in the swarm: {error}")))?;
    let joined = Arc::new(joined);
    let (tell_end, ended) = bounded(1);
    let log_thread =
        LogThread { messages: EventMessages { me: settings.me }, log, console: console() };
    let log_thread = thread::spawn("teller", move || log_thread.run(&events, &tell_end))
        .map_err(system("start the thread of the log"))?;
    let announced = announce(settings, &joined);
    let outcome = attend(&joined, &screen, &ended, signals);
    joined.stop();
    drop(announced);
    screen.close();
    // No sender of events is left, so the log thread ends.
    drop(joined);
    engine.stop();
    let told = log_thread
        .join()
        .unwrap_or_else(|_| Err(CliError::Failed("the thread of the log has failed".to_owned())));
    outcome.and(told)
}

/// Options of the peer's part in the swarm.
fn join(settings: &Settings, args: &SwarmArgs, store: Store, events: EventSender) -> SwarmSpec {
    let common = &settings.common;
    let k = usize::try_from(common.preferred).unwrap_or(usize::MAX);
    let config = Config {
        give_up_after: Some(args.give_up.into()),
        ..Config::assignment(k, common.unchoking, common.optimistic)
    };
    let roster = SwarmRoster::new(settings.roster.members.iter().map(|it| (it.id, it.has_file)));
    let kind = SwarmKind::Assignment { roster, calls: settings.predecessors.clone() };
    SwarmSpec { kind, me: settings.me, store, config, events: Box::new(events) }
}

/// Waits for the end.
fn attend(
    joined: &SwarmHandle,
    screen: &Screen,
    ended: &Receiver<SwarmOutcome>,
    signals: &Receiver<&'static str>,
) -> Result<(), CliError> {
    let look = if screen.has_bar() { tick(BAR_EVERY) } else { crossbeam_channel::never() };
    loop {
        select! {
            recv(ended) -> outcome => return match outcome {
                Ok(SwarmOutcome::AllComplete) => Ok(()),
                Ok(outcome) => Err(CliError::Failed(ending(&outcome))),
                Err(_) => Err(CliError::Failed("the thread of the log has failed".to_owned())),
            },
            recv(signals) -> signal => {
                let signal = signal.unwrap_or("a signal");
                return Err(CliError::Failed(format!(
                    "stopped because of {signal} before all had the file; start again to go on"
                )));
            }
            recv(look) -> _ => screen.show(&view_of(joined)),
        }
    }
}

/// Progress of the swarm.
fn view_of(joined: &SwarmHandle) -> View {
    View::of(&joined.progress(), joined.store().pieces().size())
}

/// First line on the console.
fn started(settings: &Settings, there: u32) -> LogLine {
    let (id, count, pieces) =
        (settings.me.0, settings.roster.members.len(), settings.common.pieces);
    let message = format!(
        "listens on {} as peer {id} of {count}; {} has {} bytes in {} pieces, {there} of them here",
        settings.listen,
        settings.common.file_name,
        pieces.size(),
        pieces.count(),
    );
    let fields = json!({
        "listen": settings.listen.to_string(), "peers": count, "file": settings.common.file_name,
        "size": pieces.size(), "pieces": pieces.count(), "have": there,
    });
    LogLine::new(Level::Info, "swarm_started", message, fields)
}

/// Answers `peer swarm status`; if that fails, the swarm runs all the same.
fn announce(
    settings: &Settings,
    joined: &Arc<SwarmHandle>,
) -> Option<crate::runtime::control::Control> {
    let (id, name) = (settings.me.0, settings.common.file_name.clone());
    let dir = std::path::absolute(&settings.dir).unwrap_or_else(|_| settings.dir.clone());
    // A weak reference: a question must not keep the swarm alive.
    let joined = Arc::downgrade(joined);
    let tell = move || -> Vec<Value> {
        let Some(joined) = joined.upgrade() else { return Vec::new() };
        let mut view = view_of(&joined).json();
        view["kind"] = "swarm".into();
        view["id"] = id.into();
        view["name"] = name.as_str().into();
        view["at"] = dir.display().to_string().into();
        vec![view]
    };
    running::announce(tell)
        .map_err(|error| ::log::warn!("no answers to peer swarm status: {error}"))
        .ok()
}

/// Error of a peer's file that cannot be used.
fn unusable(settings: &Settings, error: &str) -> CliError {
    let (id, line) = (settings.me.0, settings.roster.members[settings.position].line);
    if settings.is_source() {
        CliError::Failed(format!(
            "{error}; PeerInfo.cfg, line {line}, says that peer {id} has the whole file, and \
             Common.cfg that it has {} bytes: put it there, or mend those files",
            settings.common.pieces.size()
        ))
    } else {
        CliError::Failed(format!("{error}; peer {id} keeps its file there"))
    }
}
