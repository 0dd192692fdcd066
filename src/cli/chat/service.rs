//! A member of a chat inside a peer, without a screen: screens attach to its control socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::log::Level;
use crossbeam_channel::{Receiver, bounded, select};
use serde_json::{Value, json};

use super::event_log::{self, EventLog};
use super::local_server::{LocalServer, handler};
use super::run::{TOLD_MAX, doubled, start_failed};
use crate::cli::log::LogLine;
use crate::cli::run::{Running, Service, signals};
use crate::cli::{CliError, descriptor_check};
use crate::machine::chat::Config;
use crate::model::Now;
use crate::network::Network;
use crate::network::chat::{ChatMember, MemberOptions, WatcherNotifier, Watchers};
use crate::proto::chat::entry::MemberId;
use crate::runtime::chat::{ChatNotification, EngineLimits};
use crate::runtime::clock::Clock;
use crate::runtime::control::{self, Control};
use crate::runtime::files::DataDir;

/// A member whose directory is this process's alone, before it starts.
pub(in crate::cli) struct ChatService {
    id: MemberId,
    dir: DataDir,
    log_dir: PathBuf,
}

impl ChatService {
    /// Takes the directory of member `id` in `data`.
    ///
    /// # Errors
    /// Fails if another process has it, or the disk refuses.
    pub(in crate::cli) fn prepare(id: u32, data: &Path, log_dir: &Path) -> Result<Self, CliError> {
        let id = MemberId(id);
        let dir = DataDir::open_at(data.join(format!("chat-{}", id.0)));
        let dir = dir.map_err(|error| doubled(id, error))?;
        Ok(Self { id, dir, log_dir: log_dir.to_owned() })
    }
}

impl Service for ChatService {
    type Running = RunningChat;

    const NAME: &'static str = "chat";

    fn dir(&self) -> &DataDir {
        &self.dir
    }

    fn start(
        self,
        network: &Arc<Network>,
        stop: &Receiver<()>,
    ) -> Result<Option<RunningChat>, CliError> {
        let (tell, notifications) = bounded(TOLD_MAX);
        let watchers = Watchers::default();
        let sink = Box::new(WatcherNotifier { watchers: watchers.clone(), tell });
        let (links_max, shortage) =
            descriptor_check::for_connections(EngineLimits::default().links_max);
        if let Some(shortage) = shortage {
            ::log::warn!("{shortage}");
        }
        let options = MemberOptions {
            id: self.id,
            log_dir: self.log_dir,
            marker: self.dir.path().join("has-a-log"),
            places: Vec::new(),
            config: Config::default(),
            links_max,
        };
        let searching = (|words: &str| ::log::info!("{words}"), || !signals::is_told(stop));
        let member = ChatMember::start(network, options, sink, searching).map_err(start_failed)?;
        let Some(member) = member else { return Ok(None) };
        let local = Arc::new(LocalServer::new(member.engine.clone(), watchers));
        let control = control::serve(&self.dir, handler(Arc::downgrade(&local)));
        let control =
            control.map_err(|source| CliError::System { action: "take local commands", source })?;
        let text = format!("{} takes part in the chat at {}", self.id, network.endpoint());
        let fields = json!({ "id": self.id.0, "endpoint": network.endpoint() });
        LogLine::new(Level::Info, "chat_started", text, fields).log(Clock::start().now().wall);
        Ok(Some(RunningChat { member, local, notifications, control, _dir: self.dir }))
    }
}

/// A running member, with its control socket.
pub(in crate::cli) struct RunningChat {
    member: ChatMember,
    local: Arc<LocalServer>,
    notifications: Receiver<(Now, ChatNotification)>,
    control: Control,
    _dir: DataDir,
}

impl Running for RunningChat {
    fn status(&self) -> Box<dyn Fn() -> Value + Send + Sync> {
        let local = Arc::downgrade(&self.local);
        Box::new(move || {
            let local = local.upgrade();
            let engine = local.as_ref().and_then(|it| it.engine.crash("").ok());
            let other_group = engine.and_then(|it| it.other_group());
            let status = engine.and_then(|it| it.status());
            status.map_or(Value::Null, |status| {
                let others = status.members.iter().filter(|it| it.member.id != status.id);
                let away = others.filter(|it| !it.linked).map(|it| it.member.id);
                json!({
                    "id": status.id,
                    "role": status.role,
                    "term": status.term,
                    "leader": status.leader,
                    "quorum": status.quorum,
                    "final": status.commit,
                    "last": status.last,
                    "members": status.members.len(),
                    "away": away.collect::<Vec<_>>(),
                    "pending": status.pending.len(),
                    "dropped": status.dropped,
                    "other_group": other_group,
                })
            })
        })
    }

    fn attend(&self, stop: &Receiver<()>) -> Result<(), CliError> {
        let (mut log, me) = (EventLog::default(), self.local.engine.me().id);
        loop {
            select! {
                recv(self.notifications) -> notification => {
                    let Ok((now, notification)) = notification else { return Ok(()) };
                    take(&mut log, me, now, notification)?;
                }
                recv(stop) -> _ => return Ok(()),
            }
        }
    }

    fn stop(&self) {
        self.local.engine.leave();
        self.local.close();
        self.local.engine.stop();
    }

    fn join(self) {
        drop(self.control);
        self.member.join();
    }
}

/// Logs what the engine reports.
///
/// # Errors
/// Fails if the member cannot go on: its disk fails, or the group refuses it.
fn take(
    log: &mut EventLog,
    me: MemberId,
    now: Now,
    notification: ChatNotification,
) -> Result<(), CliError> {
    match notification {
        ChatNotification::Delivered(entries) => {
            event_log::messages(now, &entries, me);
            Ok(())
        }
        ChatNotification::Note(text) => {
            event_log::note(now, &text);
            Ok(())
        }
        ChatNotification::Failed(text) => Err(CliError::Failed(text)),
        ChatNotification::Event(event) => log.event(me, now, &event).map_err(|error| {
            CliError::Failed(format!("{error} (without --chat, the node runs on without it)"))
        }),
    }
}
