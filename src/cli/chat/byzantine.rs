//! A chat over a Byzantine order: its reports in the form of a chat's, and its status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::event_log;
use super::format::SeenMember;
use crate::cli::order::report::{self, LAG, evidence_line, group_line, halted, silent_members};
use crate::cli::text::escape;
use crate::machine::bft::{BftStatus, Event};
use crate::machine::chat;
use crate::model::Now;
use crate::network::chat::WatcherNotifier;
use crate::proto::bft::ViewNo;
use crate::proto::chat::entry::{Member, MemberId, SeqNo};
use crate::runtime::chat::ChatNotification;
use crate::runtime::driver::options::EventSink as _;
use crate::runtime::order::{OrderEngine, OrderNotification};

/// Reasons of wishes that blame nobody: a leader's time is over, or the member itself has changed.
const CALM: [&str; 3] = ["its reign is over", "others wish for it", "it was restarted"];

/// Wish of a member for another view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Suspicion {
    /// Member that wishes.
    pub(super) by: MemberId,
    /// View that it wishes for.
    pub(super) view: ViewNo,
    /// Reason in words, for people.
    pub(super) reason: String,
}

impl Suspicion {
    fn is_calm(&self) -> bool {
        CALM.contains(&self.reason.as_str())
    }
}

/// Knowledge from an engine's reports that its status does not have.
#[derive(Default)]
struct Heard {
    /// Newest wish of each member for a view that has not begun.
    wishes: BTreeMap<MemberId, Suspicion>,
    /// Number of members of the epoch.
    members: usize,
}

/// Memory of what was heard, shared by the engine's thread and those that ask for the status.
#[derive(Clone, Default)]
pub(super) struct Hearsay(Arc<Mutex<Heard>>);

impl Hearsay {
    /// Memory for a group that begins with so many members.
    pub(super) fn of(members: usize) -> Self {
        Self(Arc::new(Mutex::new(Heard { wishes: BTreeMap::new(), members })))
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().expect("nothing under this lock can panic")
    }

    /// Tells `notifier` a report in the form of a chat's.
    pub(super) fn pass_on(&self, notifier: &WatcherNotifier, now: Now, told: &OrderNotification) {
        let told = match told {
            OrderNotification::Delivered(entries) => {
                event_log::messages(now, entries, MemberId(0));
                ChatNotification::Delivered(entries.clone())
            }
            OrderNotification::Note(text) => ChatNotification::Note(text.clone()),
            OrderNotification::Failed(text) => ChatNotification::Failed(text.clone()),
            OrderNotification::Event(event) => match self.event(event) {
                Some(told) => told,
                None => return,
            },
        };
        // Whatever has no room in a queue is in the status and in the log.
        let _ = notifier.take(now, told);
    }

    /// An event in the form of a chat's: one of its own, or a note.
    fn event(&self, event: &Event) -> Option<ChatNotification> {
        let mut heard = self.heard();
        let note =
            |event: &Event| report::line(event, || 0).map(|it| ChatNotification::Note(it.message));
        let told = match event {
            Event::Pending(chat) => chat::Event::Pending(chat.clone()),
            Event::Rejected { room, text, reason } => {
                let (room, text) = (Arc::clone(room), Arc::clone(text));
                chat::Event::Rejected { room, text, reason: reason.clone() }
            }
            Event::Proposed(id) => chat::Event::Numbered(*id, SeqNo(0)),
            Event::Reached(id) => chat::Event::Reached(*id),
            Event::Lost(id) => chat::Event::Lost(*id),
            Event::Gone => chat::Event::Gone,
            Event::Dropped(_) => return None,
            Event::Suspected { by, view, reason } => {
                let wish = Suspicion { by: *by, view: *view, reason: reason.clone() };
                let is_calm = wish.is_calm();
                heard.wishes.insert(*by, wish);
                return if is_calm { None } else { note(event) };
            }
            Event::ViewBegan { view, .. } => {
                let was_calm =
                    !heard.wishes.is_empty() && heard.wishes.values().all(Suspicion::is_calm);
                heard.wishes.retain(|_, it| it.view > *view);
                return if was_calm { None } else { note(event) };
            }
            Event::EpochBegan { committee, .. } => {
                heard.wishes.clear();
                heard.members = committee.voters().len();
                return note(event);
            }
            Event::Halted { reached, needed, silent } => {
                let text = halted((*reached, silent), heard.members, *needed, "typed");
                return Some(ChatNotification::Note(text));
            }
            Event::Stopped { reason } => {
                return Some(ChatNotification::Failed(format!(
                    "this member takes no further part in the order: {}; compare its log with \
                     another member's: peer order verify",
                    escape(reason)
                )));
            }
            Event::Resumed | Event::Equivocation(_) | Event::Hole { .. } => return note(event),
        };
        Some(ChatNotification::Event(told))
    }
}

/// Member of a Byzantine order, as a chat uses it.
pub(super) struct OrderMember {
    /// Engine of the member.
    pub(super) engine: OrderEngine,
    /// This member, as the roster has it.
    pub(super) me: Member,
    /// Name of the order.
    pub(super) name: String,
    /// Memory of the engine's reports.
    pub(super) hearsay: Hearsay,
}

impl OrderMember {
    /// Status of the member; `None` once it is stopping.
    pub(super) fn state(&self) -> Option<OrderState> {
        let status = self.engine.status()?;
        let wishes: Vec<_> = self.hearsay.heard().wishes.values().cloned().collect();
        let is_open = |it: &Suspicion| it.view > status.view && !it.is_calm();
        Some(OrderState {
            order: self.name.clone(),
            is_halted: status.reached < status.quorum,
            failures_left: status.reached.saturating_sub(status.quorum),
            suspicions: wishes.into_iter().filter(is_open).collect(),
            status,
        })
    }
}

/// Status of a member of a Byzantine order, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrderState {
    /// Name of the order.
    pub(super) order: String,
    /// True if too few members are reached for anything to become final.
    pub(super) is_halted: bool,
    /// Number of members that may fail before that is so.
    pub(super) failures_left: usize,
    /// Wishes for another leader that blame somebody, and why.
    pub(super) suspicions: Vec<Suspicion>,
    /// Status of the machine.
    #[serde(flatten)]
    pub(super) status: BftStatus,
}

impl OrderState {
    /// The members, by id.
    pub(super) fn members(&self) -> Vec<SeenMember> {
        let behind =
            |slot: u64| Some(self.status.slot.0.saturating_sub(slot)).filter(|it| *it > LAG);
        let seen = self.status.members.iter().map(|it| SeenMember {
            member: it.member.clone(),
            is_here: it.reached && !it.silent,
            lag: it.slot.and_then(|slot| behind(slot.0)),
        });
        seen.collect()
    }

    /// Lines of `/status`.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = report::status_lines(&self.status, &self.order, "typed");
        let leader = self.status.leader;
        lines.extend(self.suspicions.iter().map(|it| {
            let (by, view, reason) = (it.by, it.view.0, escape(&it.reason));
            format!("Suspected: {leader}, by {by}, which wishes for view {view}: {reason}")
        }));
        lines
    }

    /// Notes about the state, for a screen that was not there.
    pub(super) fn notes(&self) -> Vec<String> {
        let it = &self.status;
        let mut notes = vec![group_line(it)];
        if self.is_halted {
            let silent: Vec<_> = silent_members(it).collect();
            notes.push(halted((it.reached, &silent), it.members.len(), it.quorum, "typed"));
        } else if it.active {
            let (epoch, view) = (it.epoch.0, it.view.0);
            notes.push(format!("{} leads in view {view} of epoch {epoch}", it.leader));
        }
        if let Some(reason) = &it.silent {
            notes.push(format!("this member is silent: {}", escape(reason)));
        }
        notes.extend(it.evidence.iter().map(|it| evidence_line(it)));
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::bft::EpochNo;

    fn note(hearsay: &Hearsay, event: &Event) -> Option<String> {
        match hearsay.event(event) {
            Some(ChatNotification::Note(text)) => Some(text),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    #[test]
    fn a_text_that_is_proposed_is_told_without_a_number() {
        let origin = crate::proto::chat::entry::Origin { member: MemberId(1), client: 7 };
        let id = crate::proto::chat::entry::MsgId { origin, number: 3 };
        let told = Hearsay::default().event(&Event::Proposed(id));
        let Some(ChatNotification::Event(told)) = told else { panic!("{told:?}") };
        assert_eq!(told, chat::Event::Numbered(id, SeqNo(0)));
    }

    #[test]
    fn a_change_of_the_leader_is_told_with_its_reason_unless_it_blames_nobody() {
        let hearsay = Hearsay::default();
        let (epoch, leader) = (EpochNo(0), MemberId(2));
        let wish = |view, reason: &str| Event::Suspected {
            by: MemberId(3),
            view: ViewNo(view),
            reason: reason.to_owned(),
        };
        let begun = |view| Event::ViewBegan { epoch, view: ViewNo(view), leader };
        assert_eq!(note(&hearsay, &wish(1, "its reign is over")), None);
        assert_eq!(note(&hearsay, &begun(1)), None);
        let text = note(&hearsay, &wish(2, "no progress")).unwrap();
        assert_eq!(text, "peer_3 wishes for view 2: no progress");
        let text = note(&hearsay, &begun(2)).unwrap();
        assert_eq!(text, "view 2 of epoch 0 has begun; peer_2 leads");
        assert!(hearsay.heard().wishes.is_empty());
    }
}
