//! Member of a Byzantine order with a chat: inside a peer, or as a process with a screen.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::log::LevelFilter;
use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value;

use super::args::{ChatArgs, ChatOrder};
use super::byzantine::{Hearsay, OrderMember};
use super::local_server::{LocalServer, handler};
use super::run::{RunningChat, TOLD_MAX, doubled, has_screen, start_failed};
use super::session::Session;
use crate::cli::CliError;
use crate::cli::log::{LogOrigin, install_on_stderr};
use crate::cli::order::report::group_line;
use crate::cli::order::{self, Hear, OrderService, RunningOrder};
use crate::cli::run::{Running, Service, signals};
use crate::machine::bft::Config;
use crate::model::{Endpoint, Now};
use crate::network::chat::{WatcherNotifier, Watchers};
use crate::network::{Network, OrderRoster};
use crate::proto::chat::entry::MemberId;
use crate::runtime::chat::ChatNotification;
use crate::runtime::control::{self, Control};
use crate::runtime::files::DataDir;
use crate::runtime::thread;

/// A member whose directory is this process's alone, before it starts.
pub(in crate::cli) struct OrderChatService {
    order: OrderService,
    /// Directory of the directories of all members here.
    data: PathBuf,
}

impl OrderChatService {
    /// Takes the directory of the member at this port in `data`.
    ///
    /// # Errors
    /// Fails if another process has it, or the disk refuses.
    pub(in crate::cli) fn prepare(
        settings: order::Settings,
        data: &Path,
        port: u16,
    ) -> Result<Self, CliError> {
        let order = OrderService::prepare(settings, data, port)?;
        Ok(Self { order, data: data.to_owned() })
    }

    fn begin(
        self,
        network: &Arc<Network>,
        tell: Sender<(Now, ChatNotification)>,
        stop: &Receiver<()>,
    ) -> Result<Option<RunningOrderChat>, CliError> {
        let Self { order, data } = self;
        let (hearsay, watchers) = (Hearsay::of(order.settings().size()), Watchers::default());
        let notifier = WatcherNotifier { watchers: watchers.clone(), tell };
        let heard = hearsay.clone();
        let hear: Hear = Arc::new(move |now, told: &_| heard.pass_on(&notifier, now, told));
        let Some(order) = order.start(network, &hear, stop)? else { return Ok(None) };
        let engine = order.engine();
        let id = engine.me();
        let me =
            order.roster().member(id.0).expect("an engine starts for a member of its roster only");
        let name = order.name().to_owned();
        let member = OrderMember { engine, me, name, hearsay };
        let local = Arc::new(LocalServer::new(member, watchers));
        let door = match DataDir::open_at(data.join(format!("chat-{}", id.0))) {
            Ok(dir) => {
                let control = control::serve(&dir, handler(Arc::downgrade(&local)));
                let system = |source| CliError::System { action: "take local commands", source };
                Ok((control.map_err(system)?, dir))
            }
            Err(error) => Err(doubled(id, error)),
        };
        Ok(Some(RunningOrderChat { order, local, door }))
    }
}

impl Service for OrderChatService {
    type Running = RunningOrderChat;

    const NAME: &'static str = "order";

    fn dir(&self) -> &DataDir {
        self.order.dir()
    }

    fn start(
        self,
        network: &Arc<Network>,
        stop: &Receiver<()>,
    ) -> Result<Option<RunningOrderChat>, CliError> {
        // Screens follow by the watchers; in this process there is none.
        let (tell, _) = bounded(0);
        let Some(running) = self.begin(network, tell, stop)? else { return Ok(None) };
        if let Err(error) = &running.door {
            ::log::warn!("peer chat does not show this order: {error}");
        }
        Ok(Some(running))
    }
}

/// A running member, with the socket of its chat.
pub(in crate::cli) struct RunningOrderChat {
    order: RunningOrder,
    local: Arc<LocalServer>,
    /// Socket of the chat in its directory, unless another chat has that.
    door: Result<(Control, DataDir), CliError>,
}

impl Running for RunningOrderChat {
    fn status(&self) -> Box<dyn Fn() -> Value + Send + Sync> {
        self.order.status()
    }

    fn attend(&self, stop: &Receiver<()>) -> Result<(), CliError> {
        self.order.attend(stop)
    }

    fn stop(&self) {
        self.order.stop();
        self.local.close();
    }

    fn join(self) {
        drop(self.door);
        self.order.join();
    }
}

/// Takes part in a chat over a Byzantine order until it is told to stop.
///
/// # Errors
/// Any failure that keeps it from starting or stops it, and messages that are not final at the end.
pub(super) fn run(args: &ChatArgs) -> Result<(), CliError> {
    let system = |action| move |source| CliError::System { action, source };
    let missing = || CliError::Usage("a chat needs --id and --port".to_owned());
    let (id, port) = (MemberId(args.id.ok_or_else(missing)?), args.port.ok_or_else(missing)?);
    let flag = args.roster.as_ref().ok_or_else(|| {
        CliError::Usage(format!(
            "--order bft needs --roster FILE, the same on all members: a line ID IP:PORT KEY for \
             each, as peer order keygen --id {} --port {port} prints it on each machine",
            id.0
        ))
    })?;
    let settings = order::Settings::of(flag, &args.log_dir)?;
    let roster = settings.roster().expect("it was read from a file").clone();
    let at = place_of(&roster, (id, port), args)?;
    let signals = signals::listen(false).map_err(system("listen to signals"))?;
    if !has_screen(args) {
        let origin = LogOrigin { role: "chat", node: at };
        install_on_stderr(args.log_format, LevelFilter::from(args.log_level), origin)?;
    }
    let service = OrderChatService::prepare(settings, &args.data, port)?;
    let keys = order::member_keys(service.dir(), &args.data, port)?;
    if roster.id_of(&keys.public()) != Some(id.0) {
        return Err(CliError::Usage(format!(
            "{} has another key for {id} than this one; its line for this machine is: {} {at} {}",
            flag.roster.display(),
            id.0,
            keys.public()
        )));
    }
    let network = Network::builder().listen(at).data(&args.data).start_as(Some(keys));
    let network = Arc::new(network.map_err(start_failed)?);
    let (tell, events) = bounded(TOLD_MAX);
    let (runs, stop) = bounded(0);
    let Some(running) = service.begin(&network, tell, &stop)? else { return Ok(()) };
    let RunningOrderChat { order, local, door } = running;
    let (control, dir) = door?;
    let order = Arc::new(order);
    let attended = Arc::clone(&order);
    // A failure reaches the screen by its own events.
    let attend = move || drop(attended.attend(&stop));
    let attendant = thread::spawn("order", attend).map_err(system("start a thread"))?;
    let session = Session::new(Arc::<LocalServer>::clone(&local), Config::default().message_max);
    let mut chat = RunningChat::new(session.logged_elsewhere(), id, args, (events, signals));
    chat.notes = vec![format!("{id} at {at}; /help lists the commands")];
    chat.notes.extend(order.engine().status().map(|it| group_line(&it)));
    let left = chat.go_on(args);
    local.close();
    drop((control, dir));
    order.stop();
    drop::<Sender<()>>(runs);
    // The thread has panicked if this fails, and reported that itself.
    let _ = attendant.join();
    network.stop();
    left
}

/// Checks that the flags fit the roster; returns the address of this member.
fn place_of(
    roster: &OrderRoster,
    (id, port): (MemberId, u16),
    args: &ChatArgs,
) -> Result<Endpoint, CliError> {
    let Some(member) = roster.member(id.0) else {
        return Err(CliError::Usage(format!(
            "the roster has no line of {id}; peer order keygen --id {} --port {port} prints it",
            id.0
        )));
    };
    let at = super::format::place(member.at);
    if at.port() != port || (!args.host.is_unspecified() && args.host != at.ip()) {
        return Err(CliError::Usage(format!(
            "the roster has {id} at {at}: say --port {}, without --host",
            at.port()
        )));
    }
    Ok(at)
}

/// Checks that the log of this member is of the order that the flags name: a group never changes
/// its order.
///
/// # Errors
/// Fails if only a log of the other order is there.
pub(super) fn check_log(args: &ChatArgs) -> Result<(), CliError> {
    let Some(id) = args.id else { return Ok(()) };
    let crash = args.log_dir.join(format!("peer_{id}.log"));
    let order = args.log_dir.join(format!("order_{id}"));
    let (other, remedy) = match args.order {
        ChatOrder::Crash if args.roster.is_some() => {
            let text = "--roster is for an order whose members may lie: add --order bft";
            return Err(CliError::Usage(text.to_owned()));
        }
        ChatOrder::Crash if order.exists() && !crash.exists() => {
            (order, "add --order bft --roster FILE")
        }
        ChatOrder::Bft if crash.exists() && !order.exists() => (crash, "leave out --order bft"),
        ChatOrder::Crash | ChatOrder::Bft => return Ok(()),
    };
    Err(CliError::Usage(format!(
        "{} is the log of a group with the other order, which never changes; {remedy}, or begin \
         another group with another --log-dir",
        other.display()
    )))
}
