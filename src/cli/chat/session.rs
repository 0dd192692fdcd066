//! One person's part in a group: typed lines go to the engine, its events into the book.
//!
//! No entry is lost between the two: the engine never waits for a slow terminal, so entries for
//! which its queue had no room are read from the log again, by number.

use std::sync::Arc;

use ::log::Level;
use serde_json::json;

use super::backend::{ChatBackend, PAGE};
use super::book::{Book, Item, Seen};
use super::command::{self, HELP, Typed};
use super::plain::lines_of;
use super::words;
use crate::cli::CliError;
use crate::cli::log::Line;
use crate::cli::text::escape;
use crate::machine::chat::{Config, Event, Status};
use crate::model::Now;
use crate::proto::chat::entry::{Entry, Member, MemberId, Membership, SeqNo};
use crate::runtime::chat::Told;

/// Number of looks, one a second, between two reminders that the group was not found.
const REMIND_LOOKS: u32 = 10;

/// Number of earlier messages that a screen begins with.
const REMEMBERED: usize = 100;

/// Largest number of pending messages; the machine takes no more than a few beyond that.
const OPEN_MAX: usize = 4_000;

/// Number of pending messages above which a script is not read on, as long as they become final.
const OPEN_CALM: usize = 1_000;

/// Result of a typed line.
pub(super) struct Answer {
    /// Lines of the answer.
    pub(super) lines: Vec<String>,
    /// True if the chat is to end.
    pub(super) is_over: bool,
}

/// Result of an event.
#[derive(Default)]
pub(super) struct News {
    /// Items to show.
    pub(super) items: Vec<Item>,
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
    /// Number of refusals by cause, so that not each of them is a line.
    dropped: std::collections::BTreeMap<&'static str, u64>,
}

impl Session {
    /// A part that has just begun.
    pub(super) fn new(chat: Arc<dyn ChatBackend>, message_max: usize) -> Self {
        let dropped = std::collections::BTreeMap::new();
        Self { chat, message_max, last: None, unheard: 0, looks: 0, dropped }
    }

    /// Takes the state in which a running chat was met, as if it had just come about; entries above
    /// its number follow.
    pub(super) fn meet(&mut self, book: &mut Book, status: &Status) -> Vec<Item> {
        self.last = self.last.max(Some(status.commit));
        let members: Vec<_> = status.members.iter().map(|it| it.member.clone()).collect();
        let mut events = Vec::new();
        if !members.is_empty() {
            let group = Membership { members, ..Membership::default() };
            events.push(Event::MembershipChanged(Arc::new(group)));
        }
        events.push(Event::RoleChanged {
            role: status.role,
            term: status.term,
            leader: status.leader,
            promises: status.promises.clone(),
        });
        events.extend((status.quorum == Some(false)).then_some(Event::NoQuorum));
        events.iter().flat_map(|it| book.happen(it)).collect()
    }

    /// True if `id` is a member of the group.
    pub(super) fn knows(&self, id: MemberId) -> bool {
        let members = self.chat.status().map(|it| it.members).unwrap_or_default();
        members.iter().any(|it| it.member.id == id)
    }

    /// Number of messages typed here that are not final, also at earlier starts; `None` once the
    /// member is stopping.
    pub(super) fn pending(&self) -> Option<usize> {
        self.chat.status().map(|it| it.pending.len())
    }

    /// Number of messages that are not final by the events so far: late, and without asking the
    /// engine.
    pub(super) fn open(&self, book: &Book) -> usize {
        self.unheard + book.waiting().len()
    }

    /// True if there is room for more, or no hope of room.
    pub(super) fn takes_more(&self, book: &Book) -> bool {
        self.open(book) < OPEN_CALM || !book.standing.has_quorum
    }

    /// Puts the last messages into the book, so that the screen is not empty.
    pub(super) fn remember(&mut self, book: &mut Book) {
        if let Ok(entries) = self.chat.history(REMEMBERED) {
            self.deliver(book, &entries);
        }
    }

    /// True when everything typed here is final.
    pub(super) fn is_settled(&self) -> bool {
        self.pending() == Some(0)
    }

    /// Takes a typed line.
    pub(super) fn typed(&mut self, book: &mut Book, line: &str) -> Answer {
        let mut is_over = false;
        let lines = match command::parse(line, self.message_max) {
            Typed::Nothing => Vec::new(),
            Typed::Say(_) if self.open(book) >= OPEN_MAX => vec![format!(
                "not sent: {OPEN_MAX} messages are pending already; wait for a majority"
            )],
            Typed::Say(text) => match self.chat.say(Arc::clone(book.room()), text) {
                Ok(()) => {
                    self.unheard += 1;
                    Vec::new()
                }
                Err(why) => vec![escape(&why)],
            },
            Typed::Status => self.chat.status_lines(),
            Typed::History(count) => self.history(book.me, count),
            Typed::Room(name) => {
                book.enter(&name);
                vec![format!("what you type goes to #{} now", escape(&name))]
            }
            Typed::Rooms => book
                .rooms()
                .iter()
                .map(|(name, room)| {
                    let here = if name == book.room() { ", you are here" } else { "" };
                    format!("#{}: {} messages since the start{here}", escape(name), room.count)
                })
                .collect(),
            Typed::Remove(id) => vec![self.remove(id)],
            Typed::Help => HELP.iter().map(|it| (*it).to_owned()).collect(),
            Typed::Quit => {
                is_over = true;
                Vec::new()
            }
            Typed::Wrong(text) => vec![escape(&text)],
        };
        Answer { lines, is_over }
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
    pub(super) fn told(&mut self, book: &mut Book, now: Now, told: Told) -> Result<News, CliError> {
        let mut news = News::default();
        match told {
            Told::Delivered(entries) => {
                let Some(first) = entries.first() else { return Ok(news) };
                news.items = self.fill(book, first.seq_no);
                news.items.extend(self.deliver(book, &entries));
            }
            Told::Event(event) => return self.happened(book, now, &event),
            Told::Note(text) => {
                Line::new(Level::Info, "chat_note", text.clone(), json!({})).log(now.wall);
                news.items.push(book.note(&text));
            }
            Told::Failed(text) => return Err(CliError::Failed(text)),
        }
        Ok(news)
    }

    fn happened(&mut self, book: &mut Book, now: Now, event: &Event) -> Result<News, CliError> {
        match event {
            Event::Dropped(why) => {
                let count = self.dropped.entry(why).or_default();
                *count += 1;
                if matches!(*count, 1 | 10 | 100) {
                    words::line(event, book.me).log(now.wall);
                }
            }
            Event::Pending(_) | Event::Rejected { .. } => {
                self.unheard = self.unheard.saturating_sub(1);
                words::line(event, book.me).log(now.wall);
            }
            Event::RoleChanged { .. }
            | Event::ElectionBegun { .. }
            | Event::NoQuorum
            | Event::Quorum
            | Event::MembershipChanged(_)
            | Event::Numbered(..)
            | Event::Reached(_)
            | Event::Lost(_)
            | Event::Refused { .. }
            | Event::GivenBack { .. }
            | Event::Renamed { .. }
            | Event::Doubled { .. }
            | Event::Diverged { .. }
            | Event::Gone => words::line(event, book.me).log(now.wall),
        }
        if let Event::Refused { reason } = event {
            let me = book.me;
            return Err(CliError::Failed(format!("the group refuses {me}: {}", escape(reason))));
        }
        let mut items = book.happen(event);
        if matches!(event, Event::MembershipChanged(_) | Event::Reached(_) | Event::Lost(_)) {
            items.extend(self.look(book, now));
        }
        Ok(News { items })
    }

    fn deliver(&mut self, book: &mut Book, entries: &[Arc<Entry>]) -> Vec<Item> {
        let new: Vec<_> =
            entries.iter().filter(|it| Some(it.seq_no) > self.last).cloned().collect();
        if let Some(last) = new.last() {
            self.last = Some(last.seq_no);
        }
        book.deliver(&new)
    }

    /// Reads the entries for which there was no room, up to the one before `next`.
    fn fill(&mut self, book: &mut Book, next: SeqNo) -> Vec<Item> {
        let mut items = Vec::new();
        while let Some(from) = self.last.map(|it| it.next()).filter(|from| *from < next) {
            match self.chat.page(from, PAGE.min(next.0 - from.0)) {
                Ok(entries) if !entries.is_empty() => items.extend(self.deliver(book, &entries)),
                Ok(_) => break,
                Err(error) => {
                    items.push(book.note(&format!("cannot read the log: {error}")));
                    break;
                }
            }
        }
        items
    }

    /// Looks at the state of the group, also for events that the queue had no room for; once a
    /// second.
    pub(super) fn look(&mut self, book: &mut Book, now: Now) -> Vec<Item> {
        let Some(status) = self.chat.status() else { return Vec::new() };
        book.standing.role = status.role;
        book.standing.term = status.term;
        book.standing.leader = status.leader;
        book.standing.has_quorum = status.quorum != Some(false);
        book.standing.commit = status.commit;
        book.standing.last = status.last;
        let wall = now.wall.0;
        let before = std::mem::take(&mut book.seen);
        let seen = status.members.iter().map(|it| {
            let Member { id, at, .. } = it.member;
            let is_here = it.linked || id == book.me;
            let known = before.iter().find(|seen| seen.id == id);
            let seen_ms = if is_here { Some(wall) } else { known.and_then(|it| it.seen_ms) };
            Seen { id, at: words::place(at).to_string(), is_here, lag: it.lag, seen_ms }
        });
        book.seen = seen.collect();
        // An entry that is read from the log may be reported later, or never: then it would wait
        // for ever.
        book.keep_waiting(&status.pending);
        self.unheard = status.pending.len().saturating_sub(book.waiting().len());
        let mut items = self.fill(book, SeqNo(status.commit.0.saturating_add(1)));
        items.extend(self.remind(book, status.group.is_none()));
        if status.group.is_some() {
            items.extend(self.agree(book, status.message_max));
        }
        items
    }

    /// Takes the group's limit; returns once a note that a flag that differs from it does not
    /// count.
    fn agree(&mut self, book: &mut Book, message_max: usize) -> Option<Item> {
        let flag = std::mem::replace(&mut self.message_max, message_max);
        let is_said = flag != message_max && flag != Config::default().message_max;
        is_said.then(|| {
            book.note(&format!(
                "a message has at most {message_max} bytes in this group, as its founder said; \
                 --message-max {flag} counts only where a group is founded"
            ))
        })
    }

    /// Returns a reminder from time to time that the group has not been found, as long as that is
    /// so.
    fn remind(&mut self, book: &mut Book, is_lost: bool) -> Option<Item> {
        self.looks = if is_lost { self.looks + 1 } else { 0 };
        let is_due = self.looks > 0 && self.looks.is_multiple_of(REMIND_LOOKS);
        is_due.then(|| {
            book.note(
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
    use crate::cli::chat::book::GENERAL;
    use crate::cli::chat::local::Local;
    use crate::model::{Endpoint, KeyPair};
    use crate::network::chat::{Announcer, Watchers};
    use crate::runtime::chat::{Engine, Founds, Limits, Options};

    /// The founder of a group, which listens nowhere.
    pub(in crate::cli::chat) fn founder(log_dir: &Path, tell: Sender<(Now, Told)>) -> Arc<Local> {
        let watchers = Watchers::default();
        let keys = KeyPair::from_secret([1; 32]);
        let at: Endpoint = "127.0.0.1:1".parse().unwrap();
        let me = Member { id: MemberId(1), at: at.into(), key: keys.public() };
        let engine = Engine::start(Options {
            listen: None,
            keys,
            me,
            log_dir: log_dir.to_owned(),
            seeds: Vec::new(),
            config: Config::default(),
            cluster_keys: None,
            founds: Founds::IfNew,
            marker: None,
            limits: Limits::default(),
            allows: None,
            sink: Box::new(Announcer { watchers: watchers.clone(), tell }),
        });
        Arc::new(Local::new(engine.unwrap(), watchers))
    }

    #[test]
    fn a_message_that_was_read_from_the_log_before_it_was_told_is_not_pending_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, ear) = bounded(1_000);
        let local = founder(dir.path(), tell);
        let chat = Arc::<Local>::clone(&local);
        let (mut session, mut book) =
            (Session::new(chat, Config::default().message_max), Book::new(MemberId(1), GENERAL));
        // The log is read up to here, so that missing entries are noticed.
        while session.last.is_none() {
            let (now, told) = ear.recv().unwrap();
            session.told(&mut book, now, told).unwrap();
        }
        session.typed(&mut book, "one");
        assert!(!session.is_settled());
        // The reader is slow: all events are sent, and none of them taken.
        while !session.is_settled() {
            std::thread::yield_now();
        }
        let now = Now::default();
        let shown = session.look(&mut book, now);
        assert_eq!(shown.iter().map(Item::line).collect::<Vec<_>>(), ["[seq=2] <peer_1>: one"]);
        for (now, told) in ear.try_iter() {
            let news = session.told(&mut book, now, told).unwrap();
            let is_said = |it: &Item| matches!(it, Item::Said { .. });
            assert!(!news.items.iter().any(is_said), "it is shown once");
        }
        session.look(&mut book, now);
        assert_eq!((session.open(&book), session.pending()), (0, Some(0)));
        local.engine.stop();
    }
}
