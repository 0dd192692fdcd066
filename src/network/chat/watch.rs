//! Programs that wait for the outcome of a message that they have sent, and screens of other
//! processes that follow the chat.
//!
//! The programs are told on the engine's own thread, before the person at the screen: a terminal
//! that stands still holds up no answer.

use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::machine::chat::Event;
use crate::model::Now;
use crate::proto::chat::entry::{Body, ChatText, Entry, MsgId, SeqNo};
use crate::runtime::chat::ChatNotification;
use crate::runtime::driver::options::EventSink;

/// Largest number of programs that wait at a time; a further one is refused.
const WATCHERS_MAX: usize = 1_024;

/// Largest number of events that wait for a follower; further ones are lost to it, and entries are
/// read from the log.
const FOLLOWED_MAX: usize = 1_024;

/// Largest size of the texts of one waiting event, in bytes. Of more entries only the last one
/// waits; those before it are read from the log.
const FOLLOWED_BYTES_MAX: usize = 16 * 1024;

/// The fate of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageFate {
    /// The message is on disk, and is sent until it is final.
    Kept,
    /// The message is final, at this place.
    Final(SeqNo),
    /// The message is not kept, and never will be final, for this reason.
    Refused(String),
}

struct Watcher {
    number: u64,
    room: Arc<str>,
    text: Arc<str>,
    /// Identity of the message, once it is kept.
    id: Option<MsgId>,
    tell: Tell,
}

/// Receiver of a message's fates. Called by the engine's thread: it must not block.
type Tell = Box<dyn Fn(MessageFate) + Send>;

#[derive(Default)]
struct Waiting {
    next: u64,
    all: Vec<Watcher>,
    followers: Vec<Sender<ChatNotification>>,
    /// True if nobody may follow any more.
    is_closed: bool,
}

/// The programs that wait.
#[derive(Clone, Default)]
pub struct Watchers(Arc<Mutex<Waiting>>);

/// One program's wait; it ends when this is dropped.
pub struct Watch {
    watchers: Watchers,
    number: u64,
    /// Fates of the message, at most two: kept, and the last one.
    pub fates: Receiver<MessageFate>,
}

impl Watchers {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("nothing under this lock can panic")
    }

    /// Waits for a message that is about to be sent; `None` if too many wait.
    pub fn add(&self, room: &Arc<str>, text: &Arc<str>) -> Option<Watch> {
        let (tell, fates) = bounded(2);
        let tell = move |fate| drop(tell.try_send(fate));
        let number = self.tell(room, text, Box::new(tell))?;
        Some(Watch { watchers: self.clone(), number, fates })
    }

    /// Tells the fates of a message that is about to be sent; returns the number of the wait,
    /// `None` if too many wait. The receiver is dropped after the last fate.
    pub(super) fn tell(&self, room: &Arc<str>, text: &Arc<str>, tell: Tell) -> Option<u64> {
        let mut waiting = self.waiting();
        if waiting.is_closed || waiting.all.len() >= WATCHERS_MAX {
            return None;
        }
        waiting.next += 1;
        let number = waiting.next;
        let (room, text) = (Arc::clone(room), Arc::clone(text));
        waiting.all.push(Watcher { number, room, text, id: None, tell });
        Some(number)
    }

    /// Ends a wait.
    fn forget(&self, number: u64) {
        self.waiting().all.retain(|it| it.number != number);
    }

    /// Events from now on, for a screen of another process.
    pub fn follow(&self) -> Receiver<ChatNotification> {
        let (tell, told) = bounded(FOLLOWED_MAX);
        let mut waiting = self.waiting();
        if !waiting.is_closed {
            waiting.followers.push(tell);
        }
        told
    }

    /// Ends all waits, and the events of all followers after those that wait: the member stops, and
    /// sends what is kept at its next start.
    pub fn close(&self) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        waiting.followers.clear();
        let all = std::mem::take(&mut waiting.all);
        // What is told at a drop may use the watchers.
        drop(waiting);
        drop(all);
    }

    fn tell_followers(&self, told: &ChatNotification) {
        let mut waiting = self.waiting();
        if waiting.followers.is_empty() {
            return;
        }
        let Some(told) = followed(told) else { return };
        let is_there = |it: &Sender<ChatNotification>| {
            !matches!(it.try_send(told.clone()), Err(TrySendError::Disconnected(_)))
        };
        waiting.followers.retain(is_there);
    }

    pub(super) fn hear(&self, told: &ChatNotification) {
        self.tell_followers(told);
        match told {
            ChatNotification::Delivered(entries) => self.on_delivered(entries),
            ChatNotification::Event(Event::Pending(chat)) => self.on_kept(chat),
            ChatNotification::Event(Event::Rejected { room, text, reason }) => {
                let is_it = |it: &Watcher| it.id.is_none() && it.room == *room && it.text == *text;
                self.on_refused(is_it, reason);
            }
            ChatNotification::Event(Event::GivenBack { chat, reason }) => {
                self.on_refused(|it| it.id == Some(chat.msg_id), reason);
            }
            ChatNotification::Event(Event::Renamed { from, to }) => {
                let mut waiting = self.waiting();
                if let Some(it) = waiting.all.iter_mut().find(|it| it.id == Some(*from)) {
                    it.id = Some(*to);
                }
            }
            ChatNotification::Event(_)
            | ChatNotification::Note(_)
            | ChatNotification::Failed(_) => {}
        }
    }

    /// Reports a kept message. Of several programs that sent the same text any one is meant: their
    /// messages differ in nothing else.
    fn on_kept(&self, chat: &ChatText) {
        let mut waiting = self.waiting();
        let is_it = |it: &&mut Watcher| {
            it.id.is_none() && it.room == chat.room_id && it.text == chat.payload
        };
        if let Some(it) = waiting.all.iter_mut().find(is_it) {
            it.id = Some(chat.msg_id);
            (it.tell)(MessageFate::Kept);
        }
    }

    fn on_refused(&self, is_it: impl Fn(&Watcher) -> bool, reason: &str) {
        let mut waiting = self.waiting();
        if let Some(at) = waiting.all.iter().position(is_it) {
            (waiting.all.remove(at).tell)(MessageFate::Refused(reason.to_owned()));
        }
    }

    fn on_delivered(&self, entries: &[Arc<Entry>]) {
        let mut waiting = self.waiting();
        if waiting.all.is_empty() {
            return;
        }
        for entry in entries {
            let Body::Chat(chat) = &entry.body else { continue };
            waiting.all.retain(|it| {
                let is_it = it.id == Some(chat.msg_id) && it.text == chat.payload;
                if is_it {
                    (it.tell)(MessageFate::Final(entry.seq_no));
                }
                !is_it
            });
        }
    }
}

/// Form of an event in the queue of a follower, if a screen shows it.
fn followed(told: &ChatNotification) -> Option<ChatNotification> {
    let size = |entry: &Arc<Entry>| match &entry.body {
        Body::Chat(chat) => chat.payload.len(),
        Body::Opening | Body::Membership(_) => 0,
    };
    match told {
        ChatNotification::Event(Event::Dropped(_)) => None,
        // The text may be longer than any message, and a screen shows the reason only.
        ChatNotification::Event(Event::Rejected { room, reason, .. }) => {
            let (room, text, reason) = (Arc::clone(room), "".into(), reason.clone());
            Some(ChatNotification::Event(Event::Rejected { room, text, reason }))
        }
        ChatNotification::Delivered(entries)
            if entries.iter().map(size).sum::<usize>() > FOLLOWED_BYTES_MAX =>
        {
            entries.last().map(|it| ChatNotification::Delivered(vec![Arc::clone(it)]))
        }
        ChatNotification::Delivered(_)
        | ChatNotification::Event(_)
        | ChatNotification::Note(_)
        | ChatNotification::Failed(_) => Some(told.clone()),
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.forget(self.number);
    }
}

/// A sink that tells the programs that wait, and then the person at the screen.
pub struct WatcherNotifier {
    pub watchers: Watchers,
    pub tell: Sender<(Now, ChatNotification)>,
}

impl EventSink<ChatNotification> for WatcherNotifier {
    fn take(&self, now: Now, told: ChatNotification) -> bool {
        self.watchers.hear(&told);
        self.tell.take(now, told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WallTime;
    use crate::proto::chat::entry::{MemberId, Origin, Term};

    const GENERAL: &str = "general";

    fn chat(member: u32, number: u64, room: &str, text: &str) -> ChatText {
        let origin = Origin { member: MemberId(member), client: 0 };
        ChatText { msg_id: MsgId { origin, number }, room_id: room.into(), payload: text.into() }
    }

    fn entry(seq: u64, body: Body) -> Arc<Entry> {
        let (term, leader, time) = (Term(1), MemberId(1), WallTime(0));
        Arc::new(Entry { seq_no: SeqNo(seq), term, leader, time, body })
    }

    fn event(watchers: &Watchers, event: Event) {
        watchers.hear(&ChatNotification::Event(event));
    }

    #[test]
    fn each_program_learns_the_fate_of_its_own_message() {
        let watchers = Watchers::default();
        let texts: [Arc<str>; 3] = ["one".into(), "two".into(), "three".into()];
        let room: Arc<str> = GENERAL.into();
        let watches = texts.each_ref().map(|text| watchers.add(&room, text).unwrap());
        event(&watchers, Event::Pending(chat(1, 1, GENERAL, "one")));
        event(&watchers, Event::Pending(chat(1, 2, GENERAL, "two")));
        let (text, reason) = (Arc::clone(&texts[2]), "no room".to_owned());
        event(&watchers, Event::Rejected { room, text, reason });
        // Another text stands where the first one was to be; it goes on under another identity.
        let taken = entry(5, Body::Chat(chat(1, 1, GENERAL, "of another")));
        watchers.hear(&ChatNotification::Delivered(vec![taken]));
        let (from, to) = (chat(1, 1, GENERAL, "").msg_id, chat(1, 9, GENERAL, "").msg_id);
        event(&watchers, Event::Renamed { from, to });
        watchers.hear(&ChatNotification::Delivered(vec![entry(
            7,
            Body::Chat(chat(1, 9, GENERAL, "one")),
        )]));
        let (chat, reason) = (chat(1, 2, GENERAL, "two"), "too long".to_owned());
        event(&watchers, Event::GivenBack { chat, reason });
        let fates = watches.each_ref().map(|it| it.fates.try_iter().collect::<Vec<_>>());
        let refused = |why: &str| MessageFate::Refused(why.to_owned());
        assert_eq!(fates[0], [MessageFate::Kept, MessageFate::Final(SeqNo(7))]);
        assert_eq!(fates[1], [MessageFate::Kept, refused("too long")]);
        assert_eq!(fates[2], [refused("no room")]);
    }

    #[test]
    fn a_follower_that_does_not_take_its_events_misses_some_and_nobody_waits_for_it() {
        let watchers = Watchers::default();
        let (slow, quick, gone) = (watchers.follow(), watchers.follow(), watchers.follow());
        drop(gone);
        for number in 1..=2_000 {
            event(&watchers, Event::Reached(MemberId(number)));
            assert!(matches!(quick.try_recv(), Ok(ChatNotification::Event(Event::Reached(id)))
                    if id.0 == number));
        }
        assert_eq!(watchers.waiting().followers.len(), 2);
        watchers.close();
        assert_eq!(slow.iter().count(), FOLLOWED_MAX);
        assert!(quick.recv().is_err() && watchers.follow().recv().is_err(), "it is over for all");
    }

    #[test]
    fn no_event_holds_much_text_while_it_waits_for_a_follower() {
        let watchers = Watchers::default();
        let told = watchers.follow();
        let entries: Vec<_> = (1..=3)
            .map(|it| entry(it, Body::Chat(chat(1, it, GENERAL, &"x".repeat(6_000)))))
            .collect();
        watchers.hear(&ChatNotification::Delivered(entries[..2].to_vec()));
        watchers.hear(&ChatNotification::Delivered(entries));
        let (room, text, reason) = (GENERAL.into(), "x".repeat(1 << 20).into(), "long".to_owned());
        event(&watchers, Event::Rejected { room, text, reason });
        event(&watchers, Event::Dropped("of no interest"));
        let seqs = |told: ChatNotification| match &told {
            ChatNotification::Delivered(entries) => entries.iter().map(|it| it.seq_no.0).collect(),
            ChatNotification::Event(_)
            | ChatNotification::Note(_)
            | ChatNotification::Failed(_) => panic!("{told:?}"),
        };
        let [few, many]: [Vec<_>; 2] = [(); 2].map(|()| seqs(told.try_recv().unwrap()));
        assert_eq!((few, many), (vec![1, 2], vec![3]), "the others are read by their numbers");
        let Ok(ChatNotification::Event(Event::Rejected { text, reason, .. })) = told.try_recv()
        else {
            panic!("it is told")
        };
        assert_eq!((&*text, &*reason, told.len()), ("", "long", 0));
    }

    #[test]
    fn a_wait_that_is_given_up_leaves_nothing_and_too_many_are_refused() {
        let watchers = Watchers::default();
        let (room, text): (Arc<str>, Arc<str>) = (GENERAL.into(), "x".into());
        let mut all: Vec<_> =
            (0..WATCHERS_MAX).map(|_| watchers.add(&room, &text).unwrap()).collect();
        assert!(watchers.add(&room, &text).is_none());
        all.truncate(1);
        assert_eq!(watchers.waiting().all.len(), 1);
    }
}
