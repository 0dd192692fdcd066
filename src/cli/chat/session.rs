//! One person's part in a group: typed lines go to the engine, its events into the model.
//!
//! No entry is lost between the two: the engine never waits for a slow terminal, so entries for
//! which its queue had no room are read from the log again, by number.

use std::sync::Arc;

use super::backend::{ChatBackend, PAGE};
use super::command::{self, TypedLine};
use super::engine::ChatState;
use super::event_log::{self, EventLog};
use super::format::{self, SeenMember};
use super::model::{ChatLine, ChatModel, MemberView};
use super::plain::lines_of;
use crate::cli::CliError;
use crate::cli::text::escape;
use crate::machine::chat::{Config, Event};
use crate::model::Now;
use crate::proto::chat::entry::{Entry, Member, MemberId, SeqNo};
use crate::runtime::chat::ChatNotification;

/// Number of looks, one a second, between two reminders that the group was not found.
const REMIND_LOOKS: u32 = 10;

/// Number of earlier messages that a screen begins with.
const REMEMBERED: usize = 100;

/// Largest number of pending messages; the machine takes no more than a few beyond that.
const OPEN_MAX: usize = 4_000;

/// Number of pending messages above which a script is not read on, as long as they become final.
const OPEN_CALM: usize = 1_000;

/// Result of a typed line.
pub(super) struct LineResult {
    /// Lines of the answer.
    pub(super) lines: Vec<String>,
    /// True if the chat is to end.
    pub(super) is_over: bool,
}

/// Result of an event.
#[derive(Default)]
pub(super) struct Update {
    /// Items to show.
    pub(super) items: Vec<ChatLine>,
}

/// One person's part.
pub(super) struct Session {
    /// The chat that it is a part in.
    pub(super) chat: Arc<dyn ChatBackend>,
    /// Longest message, in bytes: by the flag, until the group's limit is known.
    message_max: usize,
    /// Number of the last entry that was taken, once one was.
    last: Option<SeqNo>,
    /// Number of typed messages that the engine has not yet reported as kept.
    unheard: usize,
    /// Number of looks for a group that was not found.
    looks: u32,
    log: EventLog,
    /// True if another thread of this process logs what happens.
    is_logged_elsewhere: bool,
}

impl Session {
    /// A part that has just begun.
    pub(super) fn new(chat: Arc<dyn ChatBackend>, message_max: usize) -> Self {
        let (last, log, is_logged_elsewhere) = (None, EventLog::default(), false);
        Self { chat, message_max, last, unheard: 0, looks: 0, log, is_logged_elsewhere }
    }

    /// The same part, without log lines: another thread writes those.
    pub(super) fn logged_elsewhere(self) -> Self {
        Self { is_logged_elsewhere: true, ..self }
    }

    /// Takes the state in which a running chat was met, as if it had just come about; entries above
    /// its number follow.
    pub(super) fn meet(&mut self, model: &mut ChatModel, status: &ChatState) -> Vec<ChatLine> {
        self.last = self.last.max(Some(status.commit()));
        let mut items: Vec<_> = status.notes().iter().map(|it| model.note(it)).collect();
        items.extend(status.events().iter().flat_map(|it| model.happen(it)));
        items
    }

    /// True if `id` is a member of the group that can be removed.
    pub(super) fn can_remove(&self, id: MemberId) -> bool {
        self.chat.status().is_some_and(|it| it.can_remove(id))
    }

    /// Number of messages typed here that are not final, also at earlier starts; `None` once the
    /// member is stopping.
    pub(super) fn pending(&self) -> Option<usize> {
        self.chat.status().map(|it| it.pending())
    }

    /// Number of messages that are not final by the events so far: late, and without asking the
    /// engine.
    pub(super) fn open(&self, model: &ChatModel) -> usize {
        self.unheard + model.waiting().len()
    }

    /// True if there is room for more, or no hope of room.
    pub(super) fn takes_more(&self, model: &ChatModel) -> bool {
        self.open(model) < OPEN_CALM || !model.standing.has_quorum
    }

    /// Puts the last messages into the model, so that the screen is not empty.
    pub(super) fn remember(&mut self, model: &mut ChatModel) {
        if let Ok(entries) = self.chat.history(REMEMBERED) {
            self.deliver(model, &entries);
        }
    }

    /// True when everything typed here is final.
    pub(super) fn is_settled(&self) -> bool {
        self.pending() == Some(0)
    }

    /// Takes a typed line.
    pub(super) fn typed(&mut self, model: &mut ChatModel, line: &str) -> LineResult {
        let mut is_over = false;
        let lines = match command::parse(line, self.message_max) {
            TypedLine::Nothing => Vec::new(),
            TypedLine::Say(_) if self.open(model) >= OPEN_MAX => vec![format!(
                "not sent: {OPEN_MAX} messages are pending already; wait for a majority"
            )],
            TypedLine::Say(text) => match self.chat.say(Arc::clone(model.room()), text) {
                Ok(()) => {
                    self.unheard += 1;
                    Vec::new()
                }
                Err(why) => vec![escape(&why)],
            },
            TypedLine::Status => self.chat.status_lines(),
            TypedLine::History(count) => self.history(model.me, count),
            TypedLine::Room(name) => {
                model.enter(&name);
                vec![format!("what you type goes to #{} now", escape(&name))]
            }
            TypedLine::Rooms => model
                .rooms()
                .iter()
                .map(|(name, room)| {
                    let here = if name == model.room() { ", you are here" } else { "" };
                    format!("#{}: {} messages since the start{here}", escape(name), room.count)
                })
                .collect(),
            TypedLine::Remove(id) => vec![self.remove(id)],
            TypedLine::Help => command::help(self.chat.is_attached()),
            TypedLine::Quit => {
                is_over = true;
                Vec::new()
            }
            TypedLine::Wrong(text) => vec![escape(&text)],
        };
        LineResult { lines, is_over }
    }

    fn history(&self, me: MemberId, count: usize) -> Vec<String> {
        match self.chat.history(count) {
            Ok(entries) if entries.is_empty() => vec!["no messages yet".to_owned()],
            Ok(entries) => lines_of(&entries, me),
            Err(error) => vec![escape(&format!("cannot read the log: {error}"))],
        }
    }

    fn remove(&self, id: MemberId) -> String {
        match self.chat.remove(id) {
            Ok(()) => format!("asks the leader to remove {id} for good"),
            Err(reason) => reason,
        }
    }

    /// Takes an event of the engine.
    ///
    /// # Errors
    /// Fails if it cannot go on: the disk fails, or the group refuses this member.
    pub(super) fn on_notification(
        &mut self,
        model: &mut ChatModel,
        now: Now,
        notification: ChatNotification,
    ) -> Result<Update, CliError> {
        let mut update = Update::default();
        match notification {
            ChatNotification::Delivered(entries) => {
                let Some(first) = entries.first() else { return Ok(update) };
                update.items = self.fill(model, first.seq_no);
                update.items.extend(self.deliver(model, &entries));
            }
            ChatNotification::Event(event) => return self.happened(model, now, &event),
            ChatNotification::Note(text) => {
                if !self.is_logged_elsewhere {
                    event_log::note(now, &text);
                }
                update.items.push(model.note(&text));
            }
            ChatNotification::Failed(text) => return Err(CliError::Failed(text)),
        }
        Ok(update)
    }

    fn happened(
        &mut self,
        model: &mut ChatModel,
        now: Now,
        event: &Event,
    ) -> Result<Update, CliError> {
        if !self.is_logged_elsewhere {
            self.log.event(model.me, now, event)?;
        }
        if matches!(event, Event::Pending(_) | Event::Rejected { .. }) {
            self.unheard = self.unheard.saturating_sub(1);
        }
        let mut items = model.happen(event);
        if matches!(event, Event::MembershipChanged(_) | Event::Reached(_) | Event::Lost(_)) {
            items.extend(self.look(model, now));
        }
        Ok(Update { items })
    }

    fn deliver(&mut self, model: &mut ChatModel, entries: &[Arc<Entry>]) -> Vec<ChatLine> {
        let new: Vec<_> =
            entries.iter().filter(|it| Some(it.seq_no) > self.last).cloned().collect();
        if let Some(last) = new.last() {
            self.last = Some(last.seq_no);
        }
        model.deliver(&new)
    }

    /// Reads the entries for which there was no room, up to the one before `next`.
    fn fill(&mut self, model: &mut ChatModel, next: SeqNo) -> Vec<ChatLine> {
        let mut items = Vec::new();
        while let Some(from) = self.last.map(|it| it.next()).filter(|from| *from < next) {
            match self.chat.page(from, PAGE.min(next.0 - from.0)) {
                Ok(entries) if !entries.is_empty() => items.extend(self.deliver(model, &entries)),
                Ok(_) => break,
                Err(error) => {
                    items.push(model.note(&format!("cannot read the log: {error}")));
                    break;
                }
            }
        }
        items
    }

    /// Looks at the state of the group, also for events that the queue had no room for; once a
    /// second.
    pub(super) fn look(&mut self, model: &mut ChatModel, now: Now) -> Vec<ChatLine> {
        let Some(status) = self.chat.status() else { return Vec::new() };
        model.standing = status.standing();
        let wall = now.wall.0;
        let before = std::mem::take(&mut model.seen);
        let seen = status.members().into_iter().map(|it| {
            let SeenMember { member: Member { id, at, .. }, is_here, lag } = it;
            let known = before.iter().find(|seen| seen.id == id);
            let seen_ms = if is_here { Some(wall) } else { known.and_then(|it| it.seen_ms) };
            MemberView { id, at: format::place(at).to_string(), is_here, lag, seen_ms }
        });
        model.seen = seen.collect();
        // An entry that is read from the log may be reported later, or never: then it would wait
        // for ever.
        match status.pending_ids() {
            Some(ids) => model.keep_waiting(ids),
            None => model.keep_newest(status.pending()),
        }
        self.unheard = status.pending().saturating_sub(model.waiting().len());
        let mut items = self.fill(model, SeqNo(status.commit().0.saturating_add(1)));
        let message_max = status.message_max();
        items.extend(self.remind(model, message_max.is_none()));
        items.extend(message_max.and_then(|it| self.agree(model, it)));
        items
    }

    /// Takes the group's limit; returns once a note that a flag that differs from it does not
    /// count.
    fn agree(&mut self, model: &mut ChatModel, message_max: usize) -> Option<ChatLine> {
        let flag = std::mem::replace(&mut self.message_max, message_max);
        let is_said = flag != message_max && flag != Config::default().message_max;
        is_said.then(|| {
            model.note(&format!(
                "a message has at most {message_max} bytes in this group, as its founder said; \
                 --message-max {flag} counts only where a group is founded"
            ))
        })
    }

    /// Returns a reminder from time to time that the group has not been found, as long as that is
    /// so.
    fn remind(&mut self, model: &mut ChatModel, is_lost: bool) -> Option<ChatLine> {
        self.looks = if is_lost { self.looks + 1 } else { 0 };
        let is_due = self.looks > 0 && self.looks.is_multiple_of(REMIND_LOOKS);
        is_due.then(|| {
            model.note(
                "no member of the group answers yet; still trying (is one running? are its address \
                 and port those of --seed?)",
            )
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use crossbeam_channel::{Sender, bounded};

    use super::*;
    use crate::cli::chat::local_server::LocalServer;
    use crate::cli::chat::model::GENERAL;
    use crate::model::{Endpoint, KeyPair};
    use crate::network::chat::{WatcherNotifier, Watchers};
    use crate::runtime::chat::{ChatEngine, ChatOptions, EngineLimits, GroupBootstrap};

    /// The founder of a group, which listens nowhere.
    pub(in crate::cli::chat) fn founder(
        log_dir: &Path,
        tell: Sender<(Now, ChatNotification)>,
    ) -> Arc<LocalServer> {
        let watchers = Watchers::default();
        let keys = KeyPair::from_secret([1; 32]);
        let at: Endpoint = "127.0.0.1:1".parse().unwrap();
        let me = Member { id: MemberId(1), at: at.into(), key: keys.public() };
        let engine = ChatEngine::start(ChatOptions {
            listen: None,
            keys,
            me,
            log_dir: log_dir.to_owned(),
            seeds: Vec::new(),
            config: Config::default(),
            cluster_keys: None,
            bootstrap: GroupBootstrap::IfNew,
            marker: None,
            limits: EngineLimits::default(),
            key_filter: None,
            sink: Box::new(WatcherNotifier { watchers: watchers.clone(), tell }),
        });
        Arc::new(LocalServer::new(engine.unwrap(), watchers))
    }

    #[test]
    fn a_message_that_was_read_from_the_log_before_it_was_told_is_not_pending_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, events) = bounded(1_000);
        let local = founder(dir.path(), tell);
        let chat = Arc::<LocalServer>::clone(&local);
        let (mut session, mut model) = (
            Session::new(chat, Config::default().message_max),
            ChatModel::new(MemberId(1), GENERAL),
        );
        // The log is read up to here, so that missing entries are noticed.
        while session.last.is_none() {
            let (now, notification) = events.recv().unwrap();
            session.on_notification(&mut model, now, notification).unwrap();
        }
        session.typed(&mut model, "one");
        assert!(!session.is_settled());
        // The reader is slow: all events are sent, and none of them taken.
        while !session.is_settled() {
            std::thread::yield_now();
        }
        let now = Now::default();
        let shown = session.look(&mut model, now);
        assert_eq!(shown.iter().map(ChatLine::line).collect::<Vec<_>>(), ["[seq=2] <peer_1>: one"]);
        for (now, notification) in events.try_iter() {
            let update = session.on_notification(&mut model, now, notification).unwrap();
            let is_said = |it: &ChatLine| matches!(it, ChatLine::Said { .. });
            assert!(!update.items.iter().any(is_said), "it is shown once");
        }
        session.look(&mut model, now);
        assert_eq!((session.open(&model), session.pending()), (0, Some(0)));
        local.engine.stop();
    }
}
