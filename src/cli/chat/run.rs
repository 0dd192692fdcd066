//! A chat, from its start to its exit code.
//!
//! Order of preparation: the flags, signals, the member's directory, the log and the port, the
//! control socket, the screen. A second process of the same member fails before it touches
//! anything.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::log::{Level, LevelFilter};
use crossbeam_channel::{Receiver, after, bounded, never, select, tick};
use ratatui::crossterm::event::Event;
use serde_json::json;

use super::args::ChatArgs;
use super::engine::ChatState;
use super::local_server::{LocalServer, handler};
use super::model::{ChatLine, ChatModel};
use super::plain::PlainOutput;
use super::screen::keys::KeyAction;
use super::screen::{Screen, draw};
use super::session::{LineResult, Session, Update};
use super::settings::Settings;
use super::typing::{ReadLine as Typed, Typing, lines};
use crate::cli::log::{LogLine, LogOrigin, install_on_stderr};
use crate::cli::run::signals;
use crate::cli::terminal::{self, Job, Terminal};
use crate::cli::{CliError, descriptor_check, seeds};
use crate::model::{Endpoint, KeyPair, Now};
use crate::network::chat::{ChatMember, MemberOptions, WatcherNotifier, Watchers};
use crate::network::{self, Network};
use crate::proto::chat::entry::{Member, MemberId};
use crate::runtime::chat::{
    ChatEngine, ChatNotification, ChatOptions, ChatStartError, EngineLimits,
};
use crate::runtime::clock::Clock;
use crate::runtime::control;
use crate::runtime::files::{DataDir, FilesError};

/// Largest number of waiting events; those without room are read from the log later.
pub(super) const TOLD_MAX: usize = 4 * 1024;

/// Time for which the end of the input is put off while typed messages are not final.
const END_GRACE: Duration = Duration::from_secs(10);

/// Interval at which the state of the group is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Largest number of events and keys that are taken between two pictures.
const TOLD_AT_ONCE: usize = 256;

/// Receiver of the engine's events.
pub(super) type EventReceiver = Receiver<(Now, ChatNotification)>;

/// Takes part in a chat until it is told to stop.
///
/// # Errors
/// Any failure that keeps it from starting or stops it, and messages that are not final at the end.
pub(super) fn run(args: &ChatArgs) -> Result<(), CliError> {
    let seeds = fleet_of(args)?;
    let mut settings = Settings::new(args, seeds.as_deref().unwrap_or_default())?;
    let system = |action| move |source| CliError::System { action, source };
    let signals = signals::listen(false).map_err(system("listen to signals"))?;
    if !has_screen(args) {
        let origin = LogOrigin { role: "chat", node: settings.at };
        install_on_stderr(args.log_format, LevelFilter::from(args.log_level), origin)?;
    }
    let dir =
        DataDir::open_at(settings.dir.clone()).map_err(|error| doubled(settings.me, error))?;
    let keys = dir.identity()?;
    let network = seeds.map(|seeds| {
        let builder = Network::builder().listen(settings.at).seeds(seeds).data(&args.data);
        builder.start_as(Some(keys.clone())).map(Arc::new)
    });
    let failed = |error| CliError::Failed(format!("cannot join the fleet: {error}"));
    let network = network.transpose().map_err(failed)?;
    let (tell, events) = bounded(TOLD_MAX);
    let watchers = Watchers::default();
    let announcer = WatcherNotifier { watchers: watchers.clone(), tell };
    let (links_max, shortage) =
        descriptor_check::for_connections(EngineLimits::default().links_max);
    settings.notes.extend(shortage);
    let (engine, member) = match &network {
        Some(network) => {
            let Some(member) = join(network, (&settings, args, links_max), announcer, &signals)?
            else {
                return Ok(());
            };
            (member.engine.clone(), Some(member))
        }
        None => {
            let options = options(&settings, args, (keys, links_max), announcer);
            let engine = ChatEngine::start(options).map_err(network::StartError::from);
            (engine.map_err(start_failed)?, None)
        }
    };
    let local = Arc::new(LocalServer::new(engine, watchers));
    let control = control::serve(&dir, handler(Arc::downgrade(&local)));
    let control = control.map_err(system("take local commands"))?;
    let session = Session::new(Arc::<LocalServer>::clone(&local), settings.config.message_max);
    let mut chat = RunningChat::new(session, settings.me, args, (events, signals));
    chat.begin(&settings);
    let left = chat.go_on(args);
    local.close();
    drop(control);
    local.engine.stop();
    if let Some(network) = network {
        network.stop();
    }
    if let Some(member) = member {
        member.join();
    }
    left
}

/// The seeds of the fleet that this member becomes one of, if there is one.
fn fleet_of(args: &ChatArgs) -> Result<Option<Vec<Endpoint>>, CliError> {
    if args.cluster_key.is_some() {
        // On a port that fleet and chat share, nothing distinguishes their encrypted connections.
        return match args.config {
            Some(_) => Err(CliError::Usage(
                "--config cannot be used with --cluster-key: name members with --seed".to_owned(),
            )),
            None => Ok(None),
        };
    }
    let file = args.config.as_deref().unwrap_or(Path::new("config.txt"));
    seeds::running(file, args.config.is_some())
}

/// Becomes a member of the group in the fleet of `network`; `None` if it was told to stop before.
fn join(
    network: &Arc<Network>,
    (settings, args, links_max): (&Settings, &ChatArgs, usize),
    announcer: WatcherNotifier,
    signals: &Receiver<&'static str>,
) -> Result<Option<ChatMember>, CliError> {
    let options = MemberOptions {
        id: settings.me,
        log_dir: args.log_dir.clone(),
        marker: settings.dir.join("has-a-log"),
        places: settings.seeds.clone(),
        config: settings.config.clone(),
        links_max,
    };
    let told = |words: &str| {
        // A closed output is no reason to end.
        let _ = writeln!(io::stdout(), "* {words}");
    };
    let searching = (told, || signals.is_empty());
    ChatMember::start(network, options, Box::new(announcer), searching).map_err(start_failed)
}

fn options(
    settings: &Settings,
    args: &ChatArgs,
    (keys, links_max): (KeyPair, usize),
    announcer: WatcherNotifier,
) -> ChatOptions {
    ChatOptions {
        listen: settings.listen,
        me: Member { id: settings.me, at: settings.at.into(), key: keys.public() },
        keys,
        log_dir: args.log_dir.clone(),
        seeds: settings.seeds.clone(),
        config: settings.config.clone(),
        cluster_keys: settings.cluster_keys.clone(),
        bootstrap: settings.bootstrap,
        marker: Some(settings.dir.join("has-a-log")),
        limits: EngineLimits { links_max, ..EngineLimits::default() },
        key_filter: None,
        sink: Box::new(announcer),
    }
}

pub(super) fn doubled(me: MemberId, error: FilesError) -> CliError {
    let FilesError::Locked { dir } = error else { return error.into() };
    CliError::Failed(format!(
        "{me} runs already on this machine ({} is in use); stop it, or give this one another id",
        dir.display()
    ))
}

pub(super) fn start_failed(error: network::StartError) -> CliError {
    let network::StartError::Chat(error) = error else { return error.into() };
    match error {
        ChatStartError::Listen(error) => error.into(),
        ChatStartError::Files(error) => error.into(),
        ChatStartError::Store(error) => CliError::Failed(error.to_string()),
        ChatStartError::Threads(source) => CliError::System { action: "start a thread", source },
    }
}

/// True if there is a whole screen, and no plain lines.
pub(super) fn has_screen(args: &ChatArgs) -> bool {
    !args.plain && !args.quiet && terminal::is_capable()
}

/// A chat on the screen or in plain lines, while it goes on.
pub(super) struct RunningChat {
    session: Session,
    model: ChatModel,
    typing: Typing,
    clock: Clock,
    events: EventReceiver,
    signals: Receiver<&'static str>,
    /// Notes that are the first lines.
    pub(super) notes: Vec<String>,
    /// State of the chat, if it ran before.
    pub(super) met: Option<ChatState>,
}

fn screen_failed(source: io::Error) -> CliError {
    CliError::System { action: "write to the screen", source }
}

impl RunningChat {
    /// A chat of the member `me`, with its events and the signals to this process.
    pub(super) fn new(
        session: Session,
        me: MemberId,
        args: &ChatArgs,
        (events, signals): (EventReceiver, Receiver<&'static str>),
    ) -> Self {
        let (model, clock) = (ChatModel::new(me, &args.room), Clock::start());
        let (typing, notes, met) = (Typing::default(), Vec::new(), None);
        Self { session, model, typing, clock, events, signals, notes, met }
    }

    /// Goes on until the end is asked for, and leaves.
    ///
    /// # Errors
    /// Fails if the chat or the output does, or messages are not final at the end.
    pub(super) fn go_on(&mut self, args: &ChatArgs) -> Result<(), CliError> {
        let ended = if has_screen(args) { self.on_screen() } else { self.in_lines(args) };
        ended.and_then(|mut face| self.leave(&mut face))
    }

    /// Writes the first lines, and the state in which a running chat was met.
    fn open(&mut self) -> Vec<ChatLine> {
        let mut items: Vec<_> = self.notes.iter().map(|text| self.model.note(text)).collect();
        if let Some(status) = self.met.take() {
            items.extend(self.session.meet(&mut self.model, &status));
        }
        items
    }

    /// First lines of a chat: the address, and notes about the flags.
    fn begin(&mut self, settings: &Settings) {
        let how = if settings.seeds.is_empty() { "" } else { "; looks for the group" };
        let text = format!("{} at {}{how}; /help lists the commands", settings.me, settings.at);
        let fields = json!({ "id": settings.me.0, "endpoint": settings.at.to_string() });
        LogLine::new(Level::Info, "chat_started", text.clone(), fields).log(self.clock.now().wall);
        self.notes = [&[text], &settings.notes[..]].concat();
    }

    fn take(&mut self, (now, notification): (Now, ChatNotification)) -> Result<Update, CliError> {
        self.session.on_notification(&mut self.model, now, notification)
    }

    fn look(&mut self) -> Vec<ChatLine> {
        let now = self.clock.now();
        self.session.look(&mut self.model, now)
    }

    /// Goes on in plain lines until the end is asked for.
    fn in_lines(&mut self, args: &ChatArgs) -> Result<PlainOutput<io::Stdout>, CliError> {
        let mut plain = PlainOutput::stdout(format!("{}> ", self.model.me), args.quiet);
        let begun = self.open();
        plain.show(&begun).and_then(|()| plain.ask()).map_err(screen_failed)?;
        let mut lines = lines().map_err(screen_failed)?;
        let (ticks, mut deadline) = (tick(LOOK), never());
        let (nothing, mut is_ending, signals, events) =
            (never(), false, self.signals.clone(), self.events.clone());
        loop {
            // A script is not read faster than its messages become final.
            let typed = if self.session.takes_more(&self.model) { &lines } else { &nothing };
            select! {
                recv(events) -> notification => {
                    let Ok(notification) = notification else { break };
                    let update = self.take(notification)?;
                    plain.show(&update.items).map_err(screen_failed)?;
                }
                recv(typed) -> line => if let Ok(line) = line {
                    plain.was_typed();
                    let answer = self.typed(&line);
                    plain.answer(&answer.lines).map_err(screen_failed)?;
                    if answer.is_over {
                        break;
                    }
                    plain.ask().map_err(screen_failed)?;
                } else {
                    lines = never();
                    is_ending = !args.stay;
                    if is_ending {
                        deadline = after(END_GRACE);
                    }
                },
                recv(signals) -> _ => break,
                recv(deadline) -> _ => break,
                recv(ticks) -> _ => {
                    let items = self.look();
                    plain.show(&items).map_err(screen_failed)?;
                }
            }
            // The events are looked at first: a status costs more.
            if is_ending && self.session.open(&self.model) == 0 && self.session.is_settled() {
                break;
            }
        }
        Ok(plain)
    }

    fn typed(&mut self, line: &Typed) -> LineResult {
        self.typing.line(&mut self.session, &mut self.model, line)
    }

    /// Carries out a key; returns whether it ends the chat.
    fn key(
        &mut self,
        (terminal, screen): (&mut Terminal, &mut Screen),
        key: &Event,
    ) -> Result<bool, CliError> {
        match screen.tell(&self.model, key) {
            KeyAction::Nothing => {}
            KeyAction::Redraw => terminal.forget().map_err(screen_failed)?,
            KeyAction::Stop => terminal.stop().map_err(screen_failed)?,
            KeyAction::Quit => return Ok(true),
            KeyAction::Line(line) => {
                let answer = self.typed(&Ok(line));
                for line in answer.lines {
                    self.model.note(&line);
                }
                return Ok(answer.is_over);
            }
        }
        Ok(false)
    }

    /// Goes on on the whole screen until the end is asked for; then in plain lines.
    fn on_screen(&mut self) -> Result<PlainOutput<io::Stdout>, CliError> {
        // Before the terminal is taken: a stop in between would leave it in a mode that nobody can
        // use, or, if no shell is above this process, be lost.
        let jobs = terminal::jobs().map_err(screen_failed)?;
        let mut terminal = Terminal::take().map_err(screen_failed)?;
        let keys = terminal::keys().map_err(screen_failed)?;
        let mut screen = Screen::here();
        self.session.remember(&mut self.model);
        self.open();
        self.look();
        let (ticks, signals, events) = (tick(LOOK), self.signals.clone(), self.events.clone());
        let mut has_changed = true;
        loop {
            if std::mem::replace(&mut has_changed, true) {
                let now_ms = self.clock.now().wall.0;
                let picture =
                    terminal.draw(|frame| draw::draw(frame, &mut screen, &self.model, now_ms));
                picture.map_err(screen_failed)?;
            }
            select! {
                recv(events) -> notification => {
                    let Ok(notification) = notification else { break };
                    self.take(notification)?;
                    for notification in events.try_iter().take(TOLD_AT_ONCE) {
                        self.take(notification)?;
                    }
                }
                recv(keys) -> key => {
                    // Without a terminal there is no person to go on for.
                    let Ok(key) = key else { break };
                    // A pasted text may come as keys: there is one picture for many of them.
                    let mut is_over = self.key((&mut terminal, &mut screen), &key)?;
                    for key in keys.try_iter().take(TOLD_AT_ONCE) {
                        is_over = is_over || self.key((&mut terminal, &mut screen), &key)?;
                    }
                    if is_over {
                        break;
                    }
                }
                recv(jobs) -> job => match job {
                    Ok(Job::Stop) => terminal.stop().map_err(screen_failed)?,
                    Ok(Job::Continued) => terminal.take_again().map_err(screen_failed)?,
                    Err(_) => break,
                },
                recv(signals) -> _ => break,
                recv(ticks) -> _ => {
                    let (before, standing) = (self.model.span(), self.model.standing.clone());
                    self.look();
                    // While a member is away, the duration is shown.
                    let (here, all) = self.model.reach();
                    has_changed = here < all
                        || before != self.model.span()
                        || standing != self.model.standing;
                }
            }
        }
        Ok(PlainOutput::stdout(String::new(), false))
    }

    /// Hands over, says goodbye, and shows the messages that become final meanwhile.
    fn leave(&mut self, plain: &mut PlainOutput<io::Stdout>) -> Result<(), CliError> {
        self.session.chat.leave();
        let events = self.events.clone();
        for notification in events.try_iter() {
            let update = self.take(notification)?;
            plain.show(&update.items).map_err(screen_failed)?;
        }
        // Events for which there was no room.
        let items = self.look();
        plain.show(&items).map_err(screen_failed)?;
        plain.end().map_err(screen_failed)?;
        let pending = self.session.pending().unwrap_or_else(|| self.session.open(&self.model));
        // A person who reads the answers on a terminal has seen it.
        match (self.typing.refused(), pending) {
            (refused @ 1.., pending) if !io::stdin().is_terminal() => {
                Err(CliError::Refused { refused, pending })
            }
            (_, 0) => Ok(()),
            (_, pending) => Err(CliError::Pending(pending)),
        }
    }
}
