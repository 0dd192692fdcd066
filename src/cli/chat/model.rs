//! Model of what a person sees of the chat: messages, pending texts, rooms, and members.
//!
//! Invariants:
//! - Pure: events of the engine go in, lines to show come out. Both the screen and the plain lines
//!   show this model, so they cannot differ.
//! - Bounded: the oldest lines are forgotten; the log has them.
//! - Nothing of a message reaches a terminal unescaped (C12).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::format::{self, GroupView};
use crate::cli::text::escape;
use crate::machine::chat::{Event, Role};
use crate::model::WallTime;
use crate::proto::chat::entry::{Body, ChatText, Entry, MemberId, Membership, MsgId, SeqNo, Term};

/// Largest number of lines that are kept.
const LINES_MAX: usize = 5_000;

/// Largest number of rooms that are counted; a further one is shown, but not listed.
const ROOMS_MAX: usize = 1_000;

/// Room in which every member begins.
pub(super) const GENERAL: &str = "general";

/// One line of the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChatLine {
    /// A message, final.
    Said {
        /// Number of the entry.
        seq: SeqNo,
        /// Member that sent it.
        sender: MemberId,
        /// Room of the message.
        room: Arc<str>,
        /// Text, escaped for a terminal.
        text: String,
        /// Time of the message by the leader's clock.
        time: WallTime,
        /// True if it was typed here.
        is_mine: bool,
    },
    /// A note about a change of the group.
    Note(String),
    /// A note about an election, in the place of those before it.
    Election {
        /// Text of the latest of these notes.
        text: String,
        /// Number of notes in this line.
        count: usize,
    },
}

impl ChatLine {
    /// One line, as scripts read it.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Said { text, .. } => format!("{}{text}", self.head()),
            Self::Note(text) | Self::Election { text, count: 0 | 1 } => format!("* {text}"),
            Self::Election { text, count } => {
                let more = if *count == 2 {
                    "one more note"
                } else {
                    &format!("{} more notes", count - 1)
                };
                format!("* {text}; {more} of elections before")
            }
        }
    }

    /// Beginning of the line, before the text.
    pub(super) fn head(&self) -> String {
        match self {
            Self::Said { seq, sender, room, .. } if **room == *GENERAL => {
                format!("[seq={}] <{sender}>: ", seq.0)
            }
            Self::Said { seq, sender, room, .. } => {
                format!("[seq={}] <{sender}> #{}: ", seq.0, escape(room))
            }
            Self::Note(_) | Self::Election { .. } => "* ".to_owned(),
        }
    }
}

/// A message typed here that is not final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingMessage {
    /// Identity and text of the message.
    pub(super) chat: ChatText,
    /// Number of its entry, if the leader has given it one; 0 while it is proposed in an order that
    /// numbers entries once they are final.
    pub(super) number: Option<SeqNo>,
}

/// Counts of one room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RoomCounts {
    /// Number of messages shown.
    pub(super) count: u64,
    /// Number of messages that came while another room was looked at.
    pub(super) unread: u64,
}

/// A member of the group, as this member sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberView {
    /// Id of the member.
    pub(super) id: MemberId,
    /// Address of the member.
    pub(super) at: String,
    /// True if there is a connection, or it is this member itself.
    pub(super) is_here: bool,
    /// Number of entries it lacks, as far as is known.
    pub(super) lag: Option<u64>,
    /// Time when it was last heard of or lost, by this machine's clock, in ms.
    pub(super) seen_ms: Option<u64>,
}

/// Model of a chat, as one person sees it.
#[derive(Clone, Debug)]
pub(super) struct ChatModel {
    /// Id of this member.
    pub(super) me: MemberId,
    /// Room to which typed texts go.
    room: Arc<str>,
    items: VecDeque<ChatLine>,
    /// Number of items that were forgotten.
    forgotten: u64,
    waiting: Vec<PendingMessage>,
    rooms: BTreeMap<Arc<str>, RoomCounts>,
    /// Members by the last entry or report of the engine.
    membership: Arc<Membership>,
    /// State of the group.
    pub(super) standing: GroupView,
    /// State of the group by the last event that was shown.
    last_shown: GroupView,
    /// Members with their connections.
    pub(super) seen: Vec<MemberView>,
}

impl ChatModel {
    /// An empty model.
    pub(super) fn new(me: MemberId, room: &str) -> Self {
        let room: Arc<str> = room.into();
        let standing = GroupView {
            role: Role::Joining,
            term: Term(0),
            leader: None,
            has_quorum: true,
            commit: SeqNo(0),
            last: SeqNo(0),
            needed: None,
        };
        Self {
            me,
            items: VecDeque::new(),
            forgotten: 0,
            waiting: Vec::new(),
            rooms: BTreeMap::from([(Arc::clone(&room), RoomCounts::default())]),
            room,
            membership: Arc::default(),
            last_shown: standing.clone(),
            standing,
            seen: Vec::new(),
        }
    }

    /// Room to which typed texts go.
    pub(super) const fn room(&self) -> &Arc<str> {
        &self.room
    }

    /// Changes the room to which typed texts go.
    pub(super) fn enter(&mut self, room: &str) {
        self.room = room.into();
        self.rooms.entry(Arc::clone(&self.room)).or_default().unread = 0;
    }

    /// The rooms, by name.
    pub(super) const fn rooms(&self) -> &BTreeMap<Arc<str>, RoomCounts> {
        &self.rooms
    }

    /// Texts that were typed here and are not final, the oldest first.
    pub(super) fn waiting(&self) -> &[PendingMessage] {
        &self.waiting
    }

    /// The first line that is kept, and the one after the last.
    pub(super) fn span(&self) -> (u64, u64) {
        (self.forgotten, self.forgotten + self.items.len() as u64)
    }

    /// Line of a number, if it is kept.
    pub(super) fn item(&self, number: u64) -> Option<&ChatLine> {
        self.items.get(usize::try_from(number.checked_sub(self.forgotten)?).ok()?)
    }

    /// True if a line is shown in the present room.
    pub(super) fn is_shown(&self, item: &ChatLine) -> bool {
        match item {
            ChatLine::Said { room, .. } => *room == self.room,
            ChatLine::Note(_) | ChatLine::Election { .. } => true,
        }
    }

    /// Writes a note.
    pub(super) fn note(&mut self, text: &str) -> ChatLine {
        self.push(ChatLine::Note(escape(text)))
    }

    /// Writes a note about an election; directly after another one it takes its place.
    fn note_election(&mut self, text: &str) -> ChatLine {
        let text = escape(text);
        let alone = ChatLine::Election { text: text.clone(), count: 1 };
        match self.items.back_mut() {
            Some(ChatLine::Election { text: last, count }) => {
                (*last, *count) = (text, *count + 1);
                alone
            }
            Some(_) | None => self.push(alone),
        }
    }

    fn push(&mut self, item: ChatLine) -> ChatLine {
        if self.items.len() == LINES_MAX {
            self.items.pop_front();
            self.forgotten += 1;
        }
        self.items.push_back(item.clone());
        item
    }

    /// Takes final entries; returns the lines that they make.
    pub(super) fn deliver(&mut self, entries: &[Arc<Entry>]) -> Vec<ChatLine> {
        let mut shown = Vec::new();
        for entry in entries {
            self.standing.commit = self.standing.commit.max(entry.seq_no);
            self.standing.last = self.standing.last.max(entry.seq_no);
            match &entry.body {
                Body::Chat(chat) => {
                    self.waiting.retain(|it| it.chat.msg_id != chat.msg_id);
                    self.count(&chat.room_id);
                    shown.push(self.push(item_of(entry, chat, self.me)));
                }
                Body::Opening | Body::Membership(_) => {}
            }
        }
        shown
    }

    fn count(&mut self, name: &Arc<str>) {
        let is_elsewhere = *name != self.room;
        if self.rooms.len() >= ROOMS_MAX && !self.rooms.contains_key(name) {
            return;
        }
        let room = self.rooms.entry(Arc::clone(name)).or_default();
        room.count += 1;
        room.unread += u64::from(is_elsewhere);
    }

    /// Takes an event; returns the lines that it makes.
    pub(super) fn happen(&mut self, event: &Event) -> Vec<ChatLine> {
        let before = std::mem::take(&mut self.membership);
        let texts = format::notes(event, self.me, &before, &self.last_shown);
        self.membership = before;
        match event {
            Event::RoleChanged { role, term, leader, .. } => {
                for standing in [&mut self.standing, &mut self.last_shown] {
                    (standing.role, standing.term, standing.leader) = (*role, *term, *leader);
                }
            }
            Event::ElectionBegun { .. } => self.standing.leader = None,
            Event::NoQuorum | Event::Quorum => {
                let has_quorum = matches!(event, Event::Quorum);
                self.standing.has_quorum = has_quorum;
                self.last_shown.has_quorum = has_quorum;
            }
            Event::MembershipChanged(now) => self.membership = Arc::clone(now),
            Event::Pending(chat) => self.await_number(chat),
            Event::Numbered(id, seq) => self.number(*id, *seq),
            Event::Renamed { from, to } => {
                if let Some(it) = self.waiting.iter_mut().find(|it| it.chat.msg_id == *from) {
                    (it.chat.msg_id, it.number) = (*to, None);
                }
            }
            Event::GivenBack { chat, .. } => {
                self.waiting.retain(|it| it.chat.msg_id != chat.msg_id);
            }
            Event::Reached(id) => self.see(*id, true),
            Event::Lost(id) => self.see(*id, false),
            Event::Rejected { .. }
            | Event::Doubled { .. }
            | Event::Refused { .. }
            | Event::Diverged { .. }
            | Event::Dropped(_)
            | Event::Gone => {}
        }
        let is_election = matches!(event, Event::RoleChanged { .. } | Event::ElectionBegun { .. });
        let note = |text: &String| {
            if is_election { self.note_election(text) } else { self.note(text) }
        };
        texts.iter().map(note).collect()
    }

    fn await_number(&mut self, chat: &ChatText) {
        if !self.waiting.iter().any(|it| it.chat.msg_id == chat.msg_id) {
            self.waiting.push(PendingMessage { chat: chat.clone(), number: None });
        }
    }

    /// Forgets the texts that do not wait any more, by the engine's list.
    pub(super) fn keep_waiting(&mut self, pending: &[MsgId]) {
        let pending: BTreeSet<_> = pending.iter().collect();
        self.waiting.retain(|it| pending.contains(&it.chat.msg_id));
    }

    /// Forgets the oldest texts of more than `count` that wait: an author's texts become final in
    /// their order.
    pub(super) fn keep_newest(&mut self, count: usize) {
        self.waiting.drain(..self.waiting.len().saturating_sub(count));
    }

    fn number(&mut self, id: MsgId, seq: SeqNo) {
        if seq == SeqNo(0) {
            // A Byzantine order proposes an author's texts in their order, many at a time.
            let is_before = |it: &MsgId| it.origin == id.origin && it.number <= id.number;
            let proposed = self.waiting.iter_mut().filter(|it| is_before(&it.chat.msg_id));
            proposed.for_each(|it| it.number = Some(seq));
        } else if let Some(waiting) = self.waiting.iter_mut().find(|it| it.chat.msg_id == id) {
            waiting.number = Some(seq);
        }
    }

    fn see(&mut self, id: MemberId, is_here: bool) {
        if let Some(seen) = self.seen.iter_mut().find(|it| it.id == id) {
            seen.is_here = is_here;
        }
    }

    /// Number of members within reach, this one included, and number of all.
    pub(super) fn reach(&self) -> (usize, usize) {
        (self.seen.iter().filter(|it| it.is_here).count(), self.seen.len())
    }
}

/// A message as a line.
pub(super) fn item_of(entry: &Entry, chat: &ChatText, me: MemberId) -> ChatLine {
    let origin = chat.msg_id.origin;
    ChatLine::Said {
        seq: entry.seq_no,
        sender: origin.member,
        room: Arc::clone(&chat.room_id),
        text: escape(&chat.payload),
        time: entry.time,
        is_mine: origin.member == me,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::proto::chat::entry::Origin;

    pub(in crate::cli::chat) fn chat(member: u32, number: u64, room: &str, text: &str) -> ChatText {
        let origin = Origin { member: MemberId(member), client: 0 };
        ChatText { msg_id: MsgId { origin, number }, room_id: room.into(), payload: text.into() }
    }

    pub(in crate::cli::chat) fn entry(seq: u64, body: Body) -> Arc<Entry> {
        let (term, leader) = (Term(1), MemberId(1));
        // A minute after nine o'clock, and so on.
        let time = WallTime((9 * 60 + seq) * 60_000);
        Arc::new(Entry { seq_no: SeqNo(seq), term, leader, time, body })
    }

    #[test]
    fn a_delivered_message_is_one_line_without_control_characters() {
        let mut model = ChatModel::new(MemberId(1), GENERAL);
        let said = |seq, text| entry(seq, Body::Chat(chat(2, seq, GENERAL, text)));
        let lines = model.deliver(&[
            entry(1, Body::Opening),
            said(2, "hello"),
            said(3, "a\nb\r\x1b[2J\u{7}\u{202e}é"),
        ]);
        let lines: Vec<_> = lines.iter().map(ChatLine::line).collect();
        assert_eq!(
            lines,
            ["[seq=2] <peer_2>: hello", "[seq=3] <peer_2>: a\\nb\\r\\u{1b}[2J\\u{7}\\u{202e}é"]
        );
        assert_eq!(model.standing.commit, SeqNo(3));
    }

    #[test]
    fn notes_of_elections_in_a_row_are_one_line_that_counts_them() {
        let mut model = ChatModel::new(MemberId(1), GENERAL);
        let leads = |term| Event::RoleChanged {
            role: Role::Follower,
            term: Term(term),
            leader: Some(MemberId(3)),
            promises: Vec::new(),
        };
        // Whoever reads lines gets each of them.
        for term in 1..=3 {
            let lines = model.happen(&leads(term));
            let expected = format!("* peer_3 leads in term {term}");
            assert_eq!(lines.iter().map(ChatLine::line).collect::<Vec<_>>(), [expected]);
        }
        model.deliver(&[entry(2, Body::Chat(chat(2, 1, GENERAL, "hi")))]);
        model.happen(&leads(4));
        model.happen(&leads(5));
        let (first, end) = model.span();
        let lines: Vec<_> = (first..end).map(|it| model.item(it).unwrap().line()).collect();
        let expected = [
            "* peer_3 leads in term 3; 2 more notes of elections before",
            "[seq=2] <peer_2>: hi",
            "* peer_3 leads in term 5; one more note of elections before",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_typed_waits_until_it_is_final() {
        let mut model = ChatModel::new(MemberId(1), GENERAL);
        for number in 1..=2 {
            assert!(model.happen(&Event::Pending(chat(1, number, GENERAL, "x"))).is_empty());
        }
        let id = chat(1, 1, GENERAL, "x").msg_id;
        model.happen(&Event::Numbered(id, SeqNo(7)));
        let numbers: Vec<_> = model.waiting().iter().map(|it| it.number).collect();
        assert_eq!(numbers, [Some(SeqNo(7)), None]);
        model.deliver(&[entry(7, Body::Chat(chat(1, 1, GENERAL, "x")))]);
        assert_eq!(model.waiting().len(), 1);
        assert_eq!(model.waiting()[0].chat.msg_id.number, 2);
    }

    #[test]
    fn an_order_proposes_texts_in_their_order_and_they_become_final_in_it() {
        let mut model = ChatModel::new(MemberId(1), GENERAL);
        for number in 1..=3 {
            model.happen(&Event::Pending(chat(1, number, GENERAL, "x")));
        }
        model.happen(&Event::Numbered(chat(1, 2, GENERAL, "x").msg_id, SeqNo(0)));
        let numbers: Vec<_> = model.waiting().iter().map(|it| it.number).collect();
        assert_eq!(numbers, [Some(SeqNo(0)), Some(SeqNo(0)), None]);
        model.keep_newest(1);
        assert_eq!(model.waiting()[0].chat.msg_id.number, 3);
        model.keep_newest(2);
        assert_eq!(model.waiting().len(), 1);
    }

    #[test]
    fn what_is_typed_without_a_majority_is_said_to_be_kept() {
        let mut model = ChatModel::new(MemberId(1), GENERAL);
        model.happen(&Event::NoQuorum);
        let lines = model.happen(&Event::Pending(chat(1, 1, GENERAL, "x")));
        assert!(matches!(&lines[..], [ChatLine::Note(text)] if text.contains("kept")), "{lines:?}");
    }

    #[test]
    fn rooms_are_labels_and_count_what_was_not_looked_at() {
        let mut model = ChatModel::new(MemberId(1), GENERAL);
        let said = |seq, room| entry(seq, Body::Chat(chat(2, seq, room, "hi")));
        let lines = model.deliver(&[said(1, GENERAL), said(2, "cats"), said(3, "cats")]);
        assert_eq!(lines[1].line(), "[seq=2] <peer_2> #cats: hi");
        assert_eq!(model.rooms()["cats"], RoomCounts { count: 2, unread: 2 });
        assert_eq!(model.rooms()[GENERAL], RoomCounts { count: 1, unread: 0 });
        assert!(!model.is_shown(&lines[1]) && model.is_shown(&lines[0]));
        model.enter("cats");
        assert_eq!(model.rooms()["cats"].unread, 0);
        assert!(model.is_shown(&lines[1]) && !model.is_shown(&lines[0]));
    }

    #[test]
    fn the_oldest_lines_are_forgotten() {
        let mut model = ChatModel::new(MemberId(1), GENERAL);
        for number in 0..LINES_MAX + 3 {
            model.note(&number.to_string());
        }
        assert_eq!(model.span(), (3, LINES_MAX as u64 + 3));
        assert_eq!(model.item(3), Some(&ChatLine::Note("3".into())));
        assert_eq!(model.item(2), None);
    }
}
