//! Proposals of this process that are not final yet, each with the function that is told its fates.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::machine::{bft, chat};
use crate::proto::chat::entry::{Body, ChatText, Entry, MsgId, SeqNo};
use crate::runtime::chat::ChatNotification;
use crate::runtime::order::OrderNotification;

/// Largest number of proposals that wait at a time; a further one is refused.
const WAITS_MAX: usize = 65_536;

/// Reason of a refusal by a member that has stopped.
const STOPPED: &str = "the member has stopped";

/// The fate of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The proposal is kept, and repeated until it is final.
    Kept,
    /// The proposal is final, at this place.
    Final(SeqNo),
    /// The proposal is not kept, and never will be final, for this reason.
    Refused(String),
}

/// Receiver of the fates of a proposal; dropped after the last one. Called by the engine's thread:
/// it must not block.
pub type TellFate = Box<dyn Fn(Fate) + Send>;

/// A proposal that has no identity yet.
struct Said {
    room: Arc<str>,
    text: Arc<str>,
    tell: TellFate,
}

#[derive(Default)]
struct Waiting {
    /// Proposals that were handed to the engine, in their order.
    said: VecDeque<Said>,
    /// Proposals that are kept.
    kept: BTreeMap<MsgId, TellFate>,
    is_closed: bool,
}

/// The proposals that wait.
#[derive(Clone, Default)]
pub(super) struct Waits(Arc<Mutex<Waiting>>);

impl Waits {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("nothing under this lock can panic")
    }

    /// Waits for a proposal that is about to be handed to the engine; false if it is refused,
    /// because too many wait or the member has stopped.
    pub(super) fn add(&self, room: &Arc<str>, text: &Arc<str>, tell: TellFate) -> bool {
        let mut waiting = self.waiting();
        let reason = if waiting.is_closed {
            STOPPED
        } else if waiting.said.len() + waiting.kept.len() >= WAITS_MAX {
            "too many proposals wait; try again"
        } else {
            let (room, text) = (Arc::clone(room), Arc::clone(text));
            waiting.said.push_back(Said { room, text, tell });
            return true;
        };
        drop(waiting);
        tell(Fate::Refused(reason.to_owned()));
        false
    }

    /// Refuses a proposal that the engine has not taken, because it stops.
    pub(super) fn give_back(&self, room: &Arc<str>, text: &Arc<str>) {
        self.on_rejected(room, text, STOPPED);
    }

    /// Ends all waits: the member stops, and proposes what is kept at its next start.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        let all = (std::mem::take(&mut waiting.said), std::mem::take(&mut waiting.kept));
        // Whatever is told at a drop may use the waits.
        drop(waiting);
        drop(all);
    }

    /// Takes a report of an engine with Byzantine order.
    pub(super) fn hear_order(&self, told: &OrderNotification) {
        match told {
            OrderNotification::Delivered(entries) => self.on_delivered(entries),
            OrderNotification::Event(bft::Event::Pending(chat)) => self.on_kept(chat),
            OrderNotification::Event(bft::Event::Rejected { room, text, reason }) => {
                self.on_rejected(room, text, reason);
            }
            OrderNotification::Event(_)
            | OrderNotification::Note(_)
            | OrderNotification::Failed(_) => {}
        }
    }

    /// Takes a report of a chat's engine.
    pub(super) fn hear_chat(&self, told: &ChatNotification) {
        match told {
            ChatNotification::Delivered(entries) => self.on_delivered(entries),
            ChatNotification::Event(chat::Event::Pending(chat)) => self.on_kept(chat),
            ChatNotification::Event(chat::Event::Rejected { room, text, reason }) => {
                self.on_rejected(room, text, reason);
            }
            ChatNotification::Event(chat::Event::GivenBack { chat, reason }) => {
                let tell = self.waiting().kept.remove(&chat.msg_id);
                tell.into_iter().for_each(|tell| tell(Fate::Refused(reason.clone())));
            }
            ChatNotification::Event(chat::Event::Renamed { from, to }) => {
                let mut waiting = self.waiting();
                if let Some(tell) = waiting.kept.remove(from) {
                    waiting.kept.insert(*to, tell);
                }
            }
            ChatNotification::Event(_)
            | ChatNotification::Note(_)
            | ChatNotification::Failed(_) => {}
        }
    }

    /// Takes the oldest proposal of this text: two of one text differ in nothing else.
    fn take(&self, room: &Arc<str>, text: &Arc<str>) -> Option<TellFate> {
        let mut waiting = self.waiting();
        let at = waiting.said.iter().position(|it| it.room == *room && it.text == *text)?;
        waiting.said.remove(at).map(|it| it.tell)
    }

    fn on_kept(&self, chat: &ChatText) {
        if let Some(tell) = self.take(&chat.room_id, &chat.payload) {
            tell(Fate::Kept);
            self.waiting().kept.insert(chat.msg_id, tell);
        }
    }

    fn on_rejected(&self, room: &Arc<str>, text: &Arc<str>, reason: &str) {
        if let Some(tell) = self.take(room, text) {
            tell(Fate::Refused(reason.to_owned()));
        }
    }

    fn on_delivered(&self, entries: &[Arc<Entry>]) {
        let mut waiting = self.waiting();
        if waiting.kept.is_empty() {
            return;
        }
        let mut done = Vec::new();
        for entry in entries {
            let Body::Chat(chat) = &entry.body else { continue };
            done.extend(waiting.kept.remove(&chat.msg_id).map(|tell| (tell, entry.seq_no)));
        }
        drop(waiting);
        done.into_iter().for_each(|(tell, place)| tell(Fate::Final(place)));
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::model::WallTime;
    use crate::proto::chat::entry::{MemberId, Origin, Term};

    fn chat(number: u64, text: &str) -> ChatText {
        let origin = Origin { member: MemberId(1), client: 7 };
        ChatText { msg_id: MsgId { origin, number }, room_id: "r".into(), payload: text.into() }
    }

    fn delivered(place: u64, chat: ChatText) -> OrderNotification {
        let (term, leader, time) = (Term(0), MemberId(1), WallTime(0));
        let entry = Entry { seq_no: SeqNo(place), term, leader, time, body: Body::Chat(chat) };
        OrderNotification::Delivered(vec![Arc::new(entry)])
    }

    fn pending(number: u64, text: &str) -> OrderNotification {
        OrderNotification::Event(bft::Event::Pending(chat(number, text)))
    }

    fn add(waits: &Waits, text: &str) -> Receiver<Fate> {
        let (tell, told) = bounded(64);
        let tell: TellFate = Box::new(move |fate| drop(tell.send(fate)));
        assert!(waits.add(&"r".into(), &text.into(), tell));
        told
    }

    #[test]
    fn each_proposal_learns_its_own_fates_though_a_refusal_overtakes_the_disk() {
        let waits = Waits::default();
        let told = ["pay", "too long", "pay"].map(|text| add(&waits, text));
        let (room, text, reason) = ("r".into(), "too long".into(), "no room".to_owned());
        let rejected = bft::Event::Rejected { room, text, reason };
        waits.hear_order(&OrderNotification::Event(rejected));
        waits.hear_order(&pending(1, "pay"));
        waits.hear_order(&pending(2, "pay"));
        waits.hear_order(&delivered(9, chat(2, "pay")));
        waits.hear_order(&delivered(8, chat(3, "of another")));
        let fates = told.each_ref().map(|it| it.try_iter().collect::<Vec<_>>());
        assert_eq!(fates[0], [Fate::Kept]);
        assert_eq!(fates[1], [Fate::Refused("no room".to_owned())]);
        assert_eq!(fates[2], [Fate::Kept, Fate::Final(SeqNo(9))]);
        assert!(told[2].recv().is_err(), "there is no fate after the last one");
        waits.close();
        assert!(told[0].recv().is_err(), "the wait has ended");
        let (tell, told) = bounded(64);
        let tell: TellFate = Box::new(move |fate| drop(tell.send(fate)));
        assert!(!waits.add(&"r".into(), &"late".into(), tell));
        let late: Vec<_> = told.iter().collect();
        assert_eq!(late, [Fate::Refused(STOPPED.to_owned())], "what surely is not kept is told so");
    }

    #[test]
    fn a_chat_that_renames_a_text_tells_its_fate_all_the_same() {
        let waits = Waits::default();
        let told = add(&waits, "pay");
        let event = |event| ChatNotification::Event(event);
        waits.hear_chat(&event(chat::Event::Pending(chat(1, "pay"))));
        let (from, to) = (chat(1, "").msg_id, chat(5, "").msg_id);
        waits.hear_chat(&event(chat::Event::Renamed { from, to }));
        let reason = "no majority".to_owned();
        waits.hear_chat(&event(chat::Event::GivenBack { chat: chat(5, "pay"), reason }));
        let fates: Vec<_> = told.iter().collect();
        assert_eq!(fates, [Fate::Kept, Fate::Refused("no majority".to_owned())]);
    }
}
