//! The totally ordered log in a program of one's own.
//!
//! A [`Chat`] is one member of the fleet's group. A text that a member says gets a number, the same
//! for all members, once a majority has it on disk; it never changes then.

mod group;
mod watch;

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use group::{ChatMember, MemberOptions, knows_its_group};
pub use watch::{MessageFate, WatcherNotifier, Watchers};

use super::error::{NetworkError, StartError};
use super::peer::Network;
use super::pending::{Cell, Pending};
use super::queue::{ByteSize, Queue, Readers};
use crate::machine::chat::{ChatStatus, Config};
use crate::model::Now;
use crate::proto::chat::entry::{Body, Entry, MemberId, SeqNo};
use crate::runtime::chat::{ChatNotification, EngineLimits};
use crate::runtime::driver::options::EventSink;

/// Room of texts that are said without one.
const GENERAL: &str = "general";

/// A final message of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Place in the one order of all members. Numbers rise, with gaps: changes of the group have
    /// places too.
    pub number: u64,
    /// Id of the member that said it.
    pub sender: u32,
    /// Room of the message.
    pub room: Arc<str>,
    /// Text of the message.
    pub text: Arc<str>,
}

impl ChatMessage {
    fn of(entry: &Entry) -> Option<Self> {
        let Body::Chat(chat) = &entry.body else { return None };
        Some(Self {
            number: entry.seq_no.0,
            sender: chat.msg_id.origin.member.0,
            room: Arc::clone(&chat.room_id),
            text: Arc::clone(&chat.payload),
        })
    }
}

impl ByteSize for ChatMessage {
    fn bytes(&self) -> usize {
        self.room.len() + self.text.len() + 64
    }
}

/// Reason why a text is not final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatError {
    /// The text is not kept, and never will be final; the reason, for people.
    Refused(String),
    /// The member has stopped before it was known. If the text was on disk, it is sent when this
    /// member starts again.
    Unknown,
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "not sent: {reason}"),
            Self::Unknown => f.write_str("the member stopped before the text was final"),
        }
    }
}

impl Error for ChatError {}

/// Settings of a chat's member before it starts.
#[derive(Debug)]
pub struct ChatBuilder<'a> {
    network: &'a Network,
    id: u32,
    data: PathBuf,
}

impl Network {
    /// Member `id` of the fleet's chat inside this peer, to be configured and started. An id is 1
    /// or more; of the members that are there, the one with the highest id leads.
    pub fn chat(&self, id: u32) -> ChatBuilder<'_> {
        ChatBuilder { network: self, id, data: self.peer.dir.join("chat") }
    }
}

impl ChatBuilder<'_> {
    /// Directory of the log. The default is in the network's own directory.
    #[must_use]
    pub fn data(mut self, dir: impl AsRef<Path>) -> Self {
        self.data = dir.as_ref().to_owned();
        self
    }

    /// Finds the group through the fleet, and joins it; founds one if there is none.
    ///
    /// Blocks for 2.5 s, and up to 20 s longer where the fleet has not admitted this peer yet; not
    /// if the log knows the group.
    ///
    /// # Errors
    /// Fails if the id is 0, the log cannot be used, or the network has stopped.
    pub fn start(self) -> Result<Chat, StartError> {
        if self.id == 0 {
            return Err(StartError::Setting("the id of a chat's member is 1 or more".to_owned()));
        }
        std::fs::create_dir_all(&self.data)?;
        let options = MemberOptions {
            id: MemberId(self.id),
            marker: self.data.join(format!("peer_{}.mark", self.id)),
            log_dir: self.data,
            places: Vec::new(),
            config: Config::default(),
            links_max: EngineLimits::default().links_max,
        };
        let (messages, watchers) = (Readers::default(), Watchers::default());
        let sink = Box::new(Reports { messages: messages.clone(), watchers: watchers.clone() });
        let member =
            ChatMember::start(&self.network.handle(), options, sink, (|_: &str| {}, || true))?;
        let member = member.ok_or(StartError::Network(NetworkError::Stopped))?;
        Ok(Chat { member, messages, watchers })
    }
}

/// Sink that passes messages to the readers, and fates to those that have said something.
struct Reports {
    messages: Readers<ChatMessage>,
    watchers: Watchers,
}

impl EventSink<ChatNotification> for Reports {
    fn take(&self, _: Now, told: ChatNotification) -> bool {
        self.watchers.hear(&told);
        match told {
            ChatNotification::Delivered(entries) => {
                let messages = entries.iter().filter_map(|it| ChatMessage::of(it));
                messages.filter(|it| !self.messages.push(it)).count() == 0
            }
            ChatNotification::Note(note) => {
                log::info!("{note}");
                true
            }
            ChatNotification::Failed(reason) => {
                log::error!("the chat has failed: {reason}");
                self.messages.close();
                self.watchers.close();
                true
            }
            ChatNotification::Event(_) => true,
        }
    }
}

/// One member of the fleet's chat. See the [module](self).
///
/// Dropping it stops the member. Its log keeps all messages.
pub struct Chat {
    member: ChatMember,
    messages: Readers<ChatMessage>,
    watchers: Watchers,
}

impl Chat {
    /// Says a text in the room `general`. As [`Self::say_in`].
    pub fn say(&self, text: impl Into<Arc<str>>) -> Pending<Result<u64, ChatError>> {
        self.say_in(GENERAL, text)
    }

    /// Says a text of 1 to 16,384 bytes in a room. The outcome is its number, once it is final.
    ///
    /// A text that is on disk is sent until it is final, across leaders and restarts: dropping the
    /// outcome gives up the wait only. Blocks while the member has too much to do.
    pub fn say_in(
        &self,
        room: impl Into<Arc<str>>,
        text: impl Into<Arc<str>>,
    ) -> Pending<Result<u64, ChatError>> {
        let (room, text, cell) = (room.into(), text.into(), Cell::new());
        let waiter = Waiter(Arc::clone(&cell));
        let tell = move |fate| match fate {
            MessageFate::Kept => {}
            MessageFate::Final(number) => waiter.0.put(Ok(number.0)),
            MessageFate::Refused(reason) => waiter.0.put(Err(ChatError::Refused(reason))),
        };
        if self.watchers.tell(&room, &text, Box::new(tell)).is_none() {
            let reason = "too many texts wait to be final, or the member has stopped".to_owned();
            cell.put(Err(ChatError::Refused(reason)));
        } else if !self.member.engine.say(room, text) {
            self.watchers.close();
        }
        Pending::new(cell, None)
    }

    /// Subscribes to the final messages from now on, in their order. A reader that is told of a gap
    /// finds what it missed by [`Self::history`].
    ///
    /// # Errors
    /// Fails if the member has stopped.
    pub fn messages(&self) -> Result<Queue<ChatMessage>, NetworkError> {
        self.messages.open()
    }

    /// The final messages among the `count` places from number `from` on, out of the log.
    ///
    /// # Errors
    /// Fails if the member has stopped, or its disk refuses; with the reason, for people.
    pub fn history(&self, from: u64, count: u64) -> Result<Vec<ChatMessage>, String> {
        let entries = self.member.engine.history(SeqNo(from), count)?;
        Ok(entries.iter().filter_map(|it| ChatMessage::of(it)).collect())
    }

    /// Stops the member: a leader hands over first. A second call does nothing.
    pub fn stop(&self) {
        self.member.engine.leave();
        self.member.engine.stop();
        self.watchers.close();
        self.messages.close();
    }

    /// Status of the member: its role, the leader, all members, and the texts that wait. `None`
    /// once it has stopped.
    pub fn status(&self) -> Option<ChatStatus> {
        self.member.engine.status()
    }
}

/// A wait for an outcome, which is unknown if nothing else was told.
struct Waiter(Arc<Cell<Result<u64, ChatError>>>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.put(Err(ChatError::Unknown));
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chat").field("me", self.member.engine.me()).finish_non_exhaustive()
    }
}
