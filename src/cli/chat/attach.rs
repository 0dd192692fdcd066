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
use super::ask;
use super::backend::ChatBackend;
use super::local::Ask;
use super::run::{Ear, Talk, has_screen};
use super::session::Session;
use super::words::place;
use crate::cli::log::{Origin, install_on_stderr};
use crate::cli::run::signals;
use crate::cli::text::escape;
use crate::cli::{CliError, asking};
use crate::machine::chat::Status;
use crate::model::Now;
use crate::proto::chat::entry::{Entry, Member, MemberId, SeqNo};
use crate::runtime::chat::Told;
use crate::runtime::clock::Clock;
use crate::runtime::files::control_path;
use crate::runtime::{control, thread};

/// Largest number of events that have come and are not shown.
const TOLD_MAX: usize = 1_024;

/// Time without a sign of life after which a chat is given up; it gives one each second.
const SILENCE: Duration = Duration::from_secs(30);

/// First line of the stream of events.
#[derive(Deserialize)]
struct Ready {
    /// State of the chat; entries above its number follow.
    #[serde(rename = "ready")]
    status: Status,
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
    let dir = ask::find(&asked)?;
    let signals = signals::listen(false).map_err(system("listen to signals"))?;
    let (ear, Ready { status, me }) = follow(&dir)?;
    if !has_screen(args) {
        let origin = Origin { role: "chat", node: place(me.at) };
        install_on_stderr(args.log_format, LevelFilter::from(args.log_level), origin)?;
    }
    let session = Session::new(Arc::new(Remote { dir }), status.message_max);
    let mut talk = Talk::new(session, me.id, args, (ear, signals));
    talk.notes = vec![format!("attached to {}; /quit ends only this screen", me.id)];
    talk.met = Some(status);
    talk.go_on(args)
}

/// Begins to follow the chat in a directory; returns its events, and the state before them.
fn follow(dir: &Path) -> Result<(Ear, Ready), CliError> {
    let system = |source| CliError::System { action: "follow the chat that runs here", source };
    let request = serde_json::to_string(&Ask::Follow).map_err(|error| system(error.into()))?;
    let ((tell, ear), (greet, greeted), path) = (bounded(TOLD_MAX), bounded(1), control_path(dir));
    thread::spawn("follow", move || read(&path, &request, &greet, &tell)).map_err(system)?;
    match greeted.recv() {
        Ok(ready) => Ok((ear, ready)),
        Err(_) => Err(CliError::Failed(match ear.recv() {
            Ok((_, Told::Failed(why))) => why,
            _ => "the chat does not say that it can be followed".to_owned(),
        })),
    }
}

/// Reads the stream of events to its end, which is the end of the chat.
fn read(path: &Path, request: &str, greet: &Sender<Ready>, tell: &Sender<(Now, Told)>) {
    let (clock, mut me, mut refusal) = (Clock::start(), None, Value::Null);
    let ended = control::follow(path, request, SILENCE, |line| {
        if me.is_some() {
            // A newer chat may report what this program does not know.
            let told = serde_json::from_str(line).ok();
            return told.is_none_or(|told| tell.send((clock.now(), told)).is_ok());
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
    let _ = tell.send((clock.now(), Told::Failed(escape(&why))));
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A chat in another process, reached by its control socket.
struct Remote {
    dir: PathBuf,
}

impl Remote {
    fn ask(&self, wanted: &Ask) -> Result<Value, CliError> {
        asking::exchange(&self.dir, wanted, ask::PATIENCE, "ask the chat that runs here")
    }

    /// The answer for programs.
    fn object<T: DeserializeOwned>(&self, wanted: &Ask) -> Result<T, String> {
        let mut answer = self.ask(wanted).map_err(|error| error.to_string())?;
        serde_json::from_value(answer["json"].take()).map_err(|error| error.to_string())
    }
}

impl ChatBackend for Remote {
    fn status(&self) -> Option<Status> {
        self.object(&Ask::Status).ok().flatten()
    }

    fn status_lines(&self) -> Vec<String> {
        match self.ask(&Ask::Status) {
            Ok(mut answer) => serde_json::from_value(answer["lines"].take()).unwrap_or_default(),
            Err(error) => vec![error.to_string()],
        }
    }

    fn page(&self, from: SeqNo, count: u64) -> Result<Vec<Arc<Entry>>, String> {
        self.object(&Ask::Page { from, count })
    }

    fn say(&self, room: Arc<str>, text: String) -> Result<(), String> {
        match self.ask(&Ask::Say { room: room.to_string(), text }) {
            Ok(_) => Ok(()),
            Err(CliError::Unanswered(why)) => Err(format!("perhaps not sent: {why}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn remove(&self, id: MemberId) -> Result<(), String> {
        self.ask(&Ask::Remove { id }).map(drop).map_err(|error| error.to_string())
    }

    fn leave(&self) {}
}
