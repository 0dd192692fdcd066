//! A screen, or plain lines, for a chat that another process on this machine runs: events come by a
//! stream of its control socket, and everything else is asked for.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::log::LevelFilter;
use crossbeam_channel::{Sender, bounded};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::{ChatArgs, ChatAskArgs};
use super::backend::ChatBackend;
use super::client;
use super::engine::ChatState;
use super::format::place;
use super::local_server::ChatRequest;
use super::run::{EventReceiver, RunningChat, has_screen};
use super::session::Session;
use crate::cli::log::{LogOrigin, install_on_stderr};
use crate::cli::run::signals;
use crate::cli::text::escape;
use crate::cli::{CliError, local_client};
use crate::machine::chat::Config;
use crate::model::Now;
use crate::proto::chat::entry::{Entry, Member, MemberId, SeqNo};
use crate::runtime::chat::ChatNotification;
use crate::runtime::clock::Clock;
use crate::runtime::files::control_path;
use crate::runtime::{control, thread};

/// Largest number of events that have come and are not shown.
const TOLD_MAX: usize = 1_024;

/// Time without a sign of life after which a chat is given up; it gives one each second.
const SILENCE: Duration = Duration::from_secs(30);

/// First line of the stream of events.
#[derive(Debug, Deserialize)]
struct Ready {
    /// State of the chat; entries above its number follow.
    #[serde(rename = "ready")]
    status: ChatState,
    /// The member that the chat is.
    me: Member,
}

/// Attaches to the chat that runs here, until the end of the screen or of the chat.
///
/// # Errors
/// Fails if none runs here, it ends, or messages are not final at the end.
pub(super) fn run(args: &ChatArgs) -> Result<(), CliError> {
    let system = |action| move |source| CliError::System { action, source };
    let asked = ChatAskArgs { id: args.id, data: args.data.clone(), json: false };
    let dir = client::find(&asked)?;
    let signals = signals::listen(false).map_err(system("listen to signals"))?;
    let (events, Ready { status, me }) = follow(&dir)?;
    if !has_screen(args) {
        let origin = LogOrigin { role: "chat", node: place(me.at) };
        install_on_stderr(args.log_format, LevelFilter::from(args.log_level), origin)?;
    }
    let message_max = status.message_max().unwrap_or(Config::default().message_max);
    let session = Session::new(Arc::new(Remote { dir }), message_max);
    let mut chat = RunningChat::new(session, me.id, args, (events, signals));
    chat.notes = vec![format!("attached to {}; /quit ends only this screen", me.id)];
    chat.met = Some(status);
    chat.go_on(args)
}

/// Begins to follow the chat in a directory; returns its events, and the state before them.
fn follow(dir: &Path) -> Result<(EventReceiver, Ready), CliError> {
    let system = |source| CliError::System { action: "follow the chat that runs here", source };
    let request =
        serde_json::to_string(&ChatRequest::Follow).map_err(|error| system(error.into()))?;
    let ((tell, events), (greet, greeted), path) =
        (bounded(TOLD_MAX), bounded(1), control_path(dir));
    thread::spawn("follow", move || read(&path, &request, &greet, &tell)).map_err(system)?;
    match greeted.recv() {
        Ok(ready) => Ok((events, ready)),
        Err(_) => Err(CliError::Failed(match events.recv() {
            Ok((_, ChatNotification::Failed(why))) => why,
            _ => "the chat does not say that it can be followed".to_owned(),
        })),
    }
}

/// Reads the stream of events to its end, which is the end of the chat.
fn read(path: &Path, request: &str, greet: &Sender<Ready>, tell: &Sender<(Now, ChatNotification)>) {
    let (clock, mut me, mut refusal) = (Clock::start(), None, Value::Null);
    let ended = control::follow(path, request, SILENCE, |line| {
        if me.is_some() {
            // A newer chat may report what this program does not know.
            let notification = serde_json::from_str(line).ok();
            return notification
                .is_none_or(|notification| tell.send((clock.now(), notification)).is_ok());
        }
        match serde_json::from_str::<Ready>(line) {
            Ok(ready) => {
                me = Some(ready.me.id);
                greet.send(ready).is_ok()
            }
            Err(_) => {
                refusal = serde_json::from_str(line).unwrap_or_default();
                false
            }
        }
    });
    let why = match (me, ended) {
        (None, Err(error)) => error.to_string(),
        (None, Ok(())) => {
            let why = refusal["error"].as_str().unwrap_or("it is of another version");
            format!("the chat that runs here cannot be followed: {why}")
        }
        (Some(me), Err(error)) if is_timeout(&error) => {
            format!("{me} gives no sign of life; whether it has stopped is not known")
        }
        (Some(me), _) => format!(
            "{me} has stopped; what was typed and is kept on its disk is sent when it runs again"
        ),
    };
    let _ = tell.send((clock.now(), ChatNotification::Failed(escape(&why))));
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A chat in another process, reached by its control socket.
struct Remote {
    dir: PathBuf,
}

impl Remote {
    fn ask(&self, wanted: &ChatRequest) -> Result<Value, CliError> {
        local_client::exchange(&self.dir, wanted, client::PATIENCE, "ask the chat that runs here")
    }

    /// The answer for programs.
    fn object<T: DeserializeOwned>(&self, wanted: &ChatRequest) -> Result<T, String> {
        let mut answer = self.ask(wanted).map_err(|error| error.to_string())?;
        serde_json::from_value(answer["json"].take()).map_err(|error| error.to_string())
    }
}

impl ChatBackend for Remote {
    fn status(&self) -> Option<ChatState> {
        self.object(&ChatRequest::Status).ok().flatten()
    }

    fn status_lines(&self) -> Vec<String> {
        match self.ask(&ChatRequest::Status) {
            Ok(mut answer) => serde_json::from_value(answer["lines"].take()).unwrap_or_default(),
            Err(error) => vec![error.to_string()],
        }
    }

    fn page(&self, from: SeqNo, count: u64) -> Result<Vec<Arc<Entry>>, String> {
        self.object(&ChatRequest::Page { from, count })
    }

    fn say(&self, room: Arc<str>, text: String) -> Result<(), String> {
        match self.ask(&ChatRequest::Say { room: room.to_string(), text }) {
            Ok(_) => Ok(()),
            Err(CliError::Unanswered(why)) => Err(format!("perhaps not sent: {why}")),
            Err(CliError::Failed(why)) => Err(why),
            Err(error) => Err(format!("not sent: {error}")),
        }
    }

    fn remove(&self, id: MemberId) -> Result<(), String> {
        self.ask(&ChatRequest::Remove { id }).map(drop).map_err(|error| error.to_string())
    }

    fn leave(&self) {}

    fn is_attached(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::chat::local_server::handler;
    use crate::cli::chat::model::tests::{chat, entry};
    use crate::cli::chat::model::{ChatLine, ChatModel, GENERAL};
    use crate::cli::chat::session::tests::founder;
    use crate::machine::chat::{Event, Role};
    use crate::proto::chat::entry::{Body, Term};
    use crate::runtime::files::DataDir;

    #[test]
    fn whatever_a_screen_shows_is_read_as_it_was_written() {
        let (id, seq, term, reason) = (MemberId(3), SeqNo(7), Term(2), "why");
        let said = || chat(1, 1, GENERAL, "a\nb \u{7} \u{1f600}");
        let events = [
            Event::RoleChanged { role: Role::Leader, term, leader: Some(id), promises: vec![id] },
            Event::RoleChanged { role: Role::Joining, term, leader: None, promises: Vec::new() },
            Event::ElectionBegun { term, reason: reason.into() },
            Event::NoQuorum,
            Event::Quorum,
            Event::MembershipChanged(Arc::default()),
            Event::Pending(said()),
            Event::Rejected { room: GENERAL.into(), text: "".into(), reason: reason.into() },
            Event::GivenBack { chat: said(), reason: reason.into() },
            Event::Renamed { from: said().msg_id, to: said().msg_id },
            Event::Doubled { member: id, reason: reason.into() },
            Event::Numbered(said().msg_id, seq),
            Event::Reached(id),
            Event::Lost(id),
            Event::Refused { reason: reason.into() },
            Event::Diverged { member: id, at: seq },
            Event::Gone,
        ];
        let entries = vec![entry(1, Body::Opening), entry(2, Body::Chat(said()))];
        let others = [
            ChatNotification::Delivered(entries),
            ChatNotification::Note("n".into()),
            ChatNotification::Failed("f".into()),
        ];
        for notification in events.map(ChatNotification::Event).into_iter().chain(others) {
            let line = serde_json::to_string(&notification).unwrap();
            let read: ChatNotification = serde_json::from_str(&line).unwrap();
            assert_eq!(format!("{read:?}"), format!("{notification:?}"), "{line}");
            assert!(!line.contains('\n'));
        }
    }

    #[test]
    fn a_chat_in_another_process_answers_a_screen_as_one_in_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, own) = bounded(1_000);
        let local = founder(dir.path(), tell);
        let data = DataDir::open_at(dir.path().join("chat-1")).unwrap();
        let control = control::serve(&data, handler(Arc::downgrade(&local))).unwrap();
        let is_founded = |notification: &(Now, ChatNotification)| {
            matches!(notification.1, ChatNotification::Delivered(_))
        };
        assert!(own.iter().any(|it| is_founded(&it)));

        let (events, ready) = follow(data.path()).unwrap();
        assert_eq!(Some(&ready.status), local.status().as_ref());
        let remote = Remote { dir: data.path().to_owned() };
        let both: [&dyn ChatBackend; 2] = [&*local, &remote];
        let (mut session, mut model) = (
            Session::new(Arc::new(Remote { dir: data.path().to_owned() }), 100),
            ChatModel::new(ready.me.id, GENERAL),
        );
        let met = session.meet(&mut model, &ready.status);
        let met: Vec<_> = met.iter().map(ChatLine::line).collect();
        let leads = "* peer_1 (this one) leads in term 1, promised by peer_1";
        assert_eq!(met, ["* the group is peer_1", leads]);
        for (number, chat) in both.iter().enumerate() {
            chat.say(GENERAL.into(), format!("text {number}")).unwrap();
        }
        let mut shown = Vec::new();
        while shown.len() < 2 {
            let (now, notification) = events.recv().unwrap();
            shown.extend(session.on_notification(&mut model, now, notification).unwrap().items);
        }
        let shown: Vec<_> = shown.iter().map(ChatLine::line).collect();
        assert_eq!(shown, ["[seq=2] <peer_1>: text 0", "[seq=3] <peer_1>: text 1"]);

        let mut help = || session.typed(&mut model, "/help").lines.join("\n");
        assert!(help().contains("/quit          end only this screen"));

        let same = |one: &dyn Fn(&dyn ChatBackend) -> String| {
            let [a, b] = both.map(one);
            assert_eq!(a, b);
            a
        };
        assert!(same(&|it| it.status_lines().join("\n")).contains("Final: seq 3 of 3"));
        assert!(same(&|it| format!("{:?}", it.status())).contains("commit: SeqNo(3)"));
        assert!(same(&|it| format!("{:?}", it.page(SeqNo(2), 1))).contains("text 0"));
        assert!(same(&|it| format!("{:?}", it.history(1))).contains("text 1"));
        assert!(same(&|it| it.remove(MemberId(9)).unwrap_err()).contains("peer_9 is no member"));

        local.engine.stop();
        let stopped = "not sent: it is stopping".to_owned();
        assert_eq!(same(&|it| it.say(GENERAL.into(), "late".into()).unwrap_err()), stopped);
        local.close();
        drop(control);
        let last = events.iter().last();
        let Some((_, ChatNotification::Failed(why))) = last else { panic!("{last:?}") };
        assert!(why.contains("peer_1 has stopped"), "{why}");
        assert!(follow(data.path()).unwrap_err().to_string().contains("no node is running there"));
    }

    #[test]
    fn what_is_no_chat_of_this_version_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open_at(dir.path().join("chat-1")).unwrap();
        let old =
            |_: &str| control::ControlAnswer::Line("{\"error\":\"not a question\"}".to_owned());
        let _control = control::serve(&data, Arc::new(old)).unwrap();
        let why = follow(data.path()).unwrap_err().to_string();
        assert_eq!(why, "the chat that runs here cannot be followed: not a question");
    }
}
